//! A small world of our own: people, devices and networks made from a seed, without lists of real names.
//!
//! It is deliberately another world than any simulator the model was tuned on: places are random, providers
//! have ranges, words are generated. What it shares with reality is only what the model claims to use.

use std::net::Ipv4Addr;

/// A generator of numbers: the same seed, the same world.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bf0_3635)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// 0 to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.unit() * n as f64) as usize
    }

    pub(crate) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Time to the next request of a person: seconds, with a long tail.
    pub(crate) fn pause(&mut self, mean: f64) -> f64 {
        (-(1.0 - self.unit()).ln() * mean).clamp(0.5, 1200.0)
    }
}

/// A town of a country, and the providers that serve it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Town {
    pub(crate) country: usize,
    pub(crate) number: usize,
    pub(crate) latitude: f64,
    pub(crate) longitude: f64,
}

pub(crate) const COUNTRIES: usize = 14;
const TOWNS: usize = 5;

impl Town {
    pub(crate) fn of(country: usize, number: usize) -> Self {
        let mut place = Random::new((country * 100 + number) as u64 + 7);
        let mut centre = Random::new(country as u64 + 991);
        let (latitude, longitude) = (centre.between(-40.0, 60.0), centre.between(-150.0, 150.0));
        Self {
            country,
            number,
            latitude: latitude + place.between(-5.0, 5.0),
            longitude: longitude + place.between(-6.0, 6.0),
        }
    }

    pub(crate) fn random(random: &mut Random, country: usize) -> Self {
        Self::of(country, random.below(TOWNS))
    }

    pub(crate) fn code(&self) -> String {
        let letter = |n: usize| char::from(b'A' + (n % 26) as u8);
        format!("{}{}", letter(self.country * 7 + 3), letter(self.country * 3 + 1))
    }
}

/// How an address is reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Line {
    Home(usize),
    Mobile(usize),
    Office,
    Hotel,
    Tunnel(usize),
}

/// An address with what databases say of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Net {
    pub(crate) address: Ipv4Addr,
    pub(crate) town: Town,
    pub(crate) asn: u32,
    pub(crate) anonymous: bool,
}

impl Net {
    pub(crate) fn new(line: Line, town: Town, host: u64) -> Self {
        let (kind, provider) = match line {
            Line::Home(n) => (1, n),
            Line::Mobile(n) => (2, n),
            Line::Office => (3, 0),
            Line::Hotel => (4, 0),
            Line::Tunnel(n) => (5, n),
        };
        // Mobile gateways stand in the first town of the country; tunnels belong to no country.
        let seen = if kind == 2 && host.is_multiple_of(3) { Town::of(town.country, 0) } else { town };
        let country = if kind == 5 { 40 } else { town.country };
        let asn = 1000 + (kind * 1000 + country * 20 + provider) as u32;
        let block = Random::new(u64::from(asn) << 8 | town.number as u64).next();
        let [a, b] = [20 + (block % 180) as u8, (block >> 8) as u8];
        let third = ((block >> 16) as u8 & 0xe0) | (host >> 8) as u8 & 0x1f;
        let address = Ipv4Addr::new(a, b, third, (host % 250) as u8 + 1);
        Self { address, town: seen, asn, anonymous: kind == 5 && !host.is_multiple_of(3) }
    }
}

/// A device and the software on it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gear {
    pub(crate) id: Option<String>,
    pub(crate) agent: String,
    pub(crate) compliant: Option<bool>,
}

impl Gear {
    pub(crate) fn laptop(random: &mut Random) -> Self {
        let systems = ["Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7", "X11; Linux x86_64"];
        let system = systems[random.below(10).saturating_sub(6).min(2)];
        let agent = match random.below(4) {
            0 => format!("Mozilla/5.0 ({system}; rv:140.0) Gecko/20100101 Firefox/140.0"),
            1 => format!("Mozilla/5.0 ({system}) AppleWebKit/537.36 Chrome/138.0.0.0 Safari/537.36 Edg/138.0"),
            _ => format!("Mozilla/5.0 ({system}) AppleWebKit/537.36 Chrome/138.0.0.0 Safari/537.36"),
        };
        Self { id: Some(format!("{:012x}", random.next() >> 16)), agent, compliant: Some(true) }
    }

    pub(crate) fn phone(random: &mut Random) -> Self {
        let agent = if random.chance(0.5) {
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Mobile Safari/604.1"
        } else {
            "Mozilla/5.0 (Linux; Android 15; K) AppleWebKit/537.36 Chrome/138.0.0.0 Mobile Safari/537.36"
        };
        Self { id: Some(format!("{:012x}", random.next() >> 16)), agent: agent.to_owned(), compliant: None }
    }

    /// The gear of somebody who never enrolled anything.
    pub(crate) fn foreign(random: &mut Random) -> Self {
        let id = random.chance(0.6).then(|| format!("{:012x}", random.next() >> 16));
        Self { id, compliant: None, ..Self::laptop(random) }
    }
}

/// Somebody with habits.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) role: usize,
    pub(crate) town: Town,
    pub(crate) home: Net,
    pub(crate) carrier: usize,
    pub(crate) office: bool,
    pub(crate) strong: f64,
    pub(crate) starts: f64,
    pub(crate) sessions_a_day: f64,
    pub(crate) laptop: Gear,
    pub(crate) phone: Gear,
    pub(crate) favourites: Vec<String>,
}

pub(crate) const ROLES: usize = 6;

impl Person {
    pub(crate) fn new(random: &mut Random, number: usize) -> Self {
        let town = {
            let country = random.below(COUNTRIES);
            Town::random(random, country)
        };
        let role = random.below(ROLES);
        let mut favourites = actions_of(role);
        for i in (1..favourites.len()).rev() {
            favourites.swap(i, random.below(i + 1));
        }
        let provider = random.below(3);
        let host = random.next();
        Self {
            name: format!("p{number:04}"),
            role,
            town,
            home: Net::new(Line::Home(provider), town, host),
            carrier: random.below(2),
            office: random.chance(0.6),
            strong: [1.0, 1.0, 0.6, 0.0][random.below(4)],
            starts: random.between(7.0, 10.5),
            sessions_a_day: random.between(0.5, 2.5),
            laptop: Gear::laptop(random),
            phone: Gear::phone(random),
            favourites,
        }
    }
}

/// What a role does: nine actions of its own and seven that everybody takes.
pub(crate) fn actions_of(role: usize) -> Vec<String> {
    let own = (0..9).map(|n| {
        format!("{} /team{role}/thing{}{}", ["GET", "GET", "POST"][n % 3], (b'a' + n as u8) as char, ["", "/{}"][n % 2])
    });
    own.chain((0..7).map(|n| format!("GET /common/page{}", (b'a' + n) as char))).collect()
}

/// What somebody wants who came to take things away.
pub(crate) fn loot(random: &mut Random) -> Vec<String> {
    let mut wanted: Vec<String> = (0..4)
        .map(|_| {
            let actions = actions_of(random.below(ROLES));
            actions[random.below(9)].clone()
        })
        .collect();
    wanted.push("POST /common/export".to_owned());
    wanted
}
