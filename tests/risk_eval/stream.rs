//! Three weeks of requests of that world, with attacks in the last two, as lines for `risk replay`.

use serde_json::json;

use super::people::{COUNTRIES, Gear, Line, Net, Person, Random, Town, loot};

pub(crate) const START: f64 = 1_780_272_000.0;
pub(crate) const DAY: f64 = 86_400.0;
pub(crate) const DAYS: usize = 21;
pub(crate) const WARM_UP: f64 = START + 7.0 * DAY;

/// A request with its truth beside it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) at: f64,
    pub(crate) user: String,
    pub(crate) session: String,
    pub(crate) role: String,
    pub(crate) net: Net,
    pub(crate) gear: Gear,
    pub(crate) strong: bool,
    pub(crate) action: String,
    /// Kind and number of the attack; `None` for the person itself.
    pub(crate) attack: Option<(&'static str, usize)>,
    /// Whether whoever sent it would pass a challenge.
    pub(crate) passes: bool,
}

impl Request {
    /// The line that the scorer reads; the truth is not in it.
    pub(crate) fn line(&self, id: usize) -> String {
        let (method, path) = self.action.split_once(' ').unwrap_or(("GET", "/"));
        let methods = if self.strong { json!(["pwd", "otp", "mfa"]) } else { json!(["pwd"]) };
        let path = path.replace("{}", &((self.at * 1000.0) as u64 % 99_991).to_string());
        json!({
            "id": id, "t": self.at, "user": self.user, "ip": self.net.address.to_string(), "country": self.net.town.code(),
            "lat": self.net.town.latitude, "lon": self.net.town.longitude, "asn": self.net.asn, "vpn": self.net.anonymous,
            "device_id": self.gear.id, "device_compliant": self.gear.compliant, "jailbroken": false,
            "user_agent": self.gear.agent, "method": method, "path": path, "roles": [self.role], "amr": methods,
            "jti": self.session,
        })
        .to_string()
    }
}

/// One person's or thief's session.
struct Visit<'a> {
    person: &'a Person,
    session: String,
    net: Net,
    gear: Gear,
    strong: bool,
    attack: Option<(&'static str, usize)>,
    passes: bool,
}

impl Visit<'_> {
    fn request(&self, at: f64, action: &str) -> Request {
        Request {
            at,
            user: self.person.name.clone(),
            session: self.session.clone(),
            role: format!("role{}", self.person.role),
            net: self.net,
            gear: self.gear.clone(),
            strong: self.strong,
            action: action.to_owned(),
            attack: self.attack,
            passes: self.passes,
        }
    }
}

/// A whole stream, in the order of time.
pub(crate) fn generate(seed: u64, people: usize) -> Vec<Request> {
    let mut random = Random::new(seed);
    let mut persons: Vec<Person> = (0..people).map(|n| Person::new(&mut random, n)).collect();
    let mut all = Vec::new();
    for day in 0..DAYS {
        for person in &mut persons {
            live(&mut random, person, day, &mut all);
        }
    }
    let honest = all.len();
    let mut number = 0;
    for round in 0..people / 60 {
        for kind in 0..KINDS {
            number += 1;
            let victim = random.below(honest);
            attack(&mut random, (kind, number), &persons, victim, round, &mut all);
        }
    }
    all.retain(|request| request.at < START + DAYS as f64 * DAY);
    all.sort_by(|a, b| a.at.total_cmp(&b.at).then_with(|| a.session.cmp(&b.session)));
    all
}

/// One day of a person: new devices, trips and phones included.
fn live(random: &mut Random, person: &mut Person, day: usize, all: &mut Vec<Request>) {
    if random.chance(1.0 / 60.0) {
        person.laptop.id = Some(format!("{:012x}", random.next() >> 16));
    }
    if random.chance(1.0 / 120.0) {
        person.phone = Gear::phone(random);
    }
    if random.chance(0.04) {
        person.home = Net::new(Line::Home(random.below(3)), person.town, random.next());
    }
    let weekend = day % 7 >= 5;
    let away = random.chance(0.01);
    let sessions = person.sessions_a_day * if weekend { 0.15 } else { 1.0 } + random.unit();
    for _ in 0..sessions as usize {
        let phone = random.chance(0.3);
        let at = START + day as f64 * DAY + (person.starts + random.between(0.0, 9.0)) * 3600.0;
        let host = random.next();
        let net = match (away, phone, person.office) {
            (true, ..) => Net::new(
                Line::Hotel,
                {
                    let country = random.below(COUNTRIES);
                    Town::random(random, country)
                },
                host,
            ),
            (_, true, _) => Net::new(Line::Mobile(person.carrier), person.town, host),
            (_, _, true) if random.chance(0.6) => Net::new(Line::Office, person.town, host % 4),
            _ => person.home,
        };
        let gear = if phone { person.phone.clone() } else { person.laptop.clone() };
        let strong = random.chance(person.strong);
        let session = format!("{:012x}", random.next() >> 16);
        let visit = Visit { person, session, net, gear, strong, attack: None, passes: random.chance(0.97) };
        work(random, visit, at, phone, all);
    }
}

/// Requests of an ordinary session; a phone changes its address on the way, a few sessions are long errands.
fn work(random: &mut Random, mut visit: Visit<'_>, mut at: f64, phone: bool, all: &mut Vec<Request>) {
    let errand = random.chance(0.006);
    let count = if errand { 40 } else { 3 + random.below(9) };
    let mut at_action = random.below(5);
    for _ in 0..count {
        let favourites = &visit.person.favourites;
        let action = favourites[at_action.min(favourites.len() - 1)].clone();
        all.push(visit.request(at, &action));
        at += random.pause(if errand { 2.0 } else { 25.0 });
        if !errand {
            at_action = if random.chance(0.7) {
                (at_action * 2 + visit.person.role) % 6
            } else {
                random.below(favourites.len())
            };
        }
        if phone && random.chance(0.12) {
            visit.net = Net::new(Line::Mobile(visit.person.carrier), visit.person.town, random.next());
        }
    }
}

const KINDS: usize = 8;

/// One attack on the owner of a request that was made before.
fn attack(
    random: &mut Random,
    (kind, number): (usize, usize),
    persons: &[Person],
    victim: usize,
    round: usize,
    all: &mut Vec<Request>,
) {
    let seen = all[victim].clone();
    let index: usize = seen.user[1..].parse().unwrap_or(0);
    let person = &persons[index];
    let at = (WARM_UP + random.between(0.0, 13.0 * DAY)).max(seen.at);
    let abroad = Net::new(
        Line::Home(random.below(3)),
        {
            let country = random.below(COUNTRIES);
            Town::random(random, country)
        },
        random.next(),
    );
    let tunnel = Net::new(Line::Tunnel(random.below(3)), Town::random(random, person.town.country), random.next());
    let neighbour = Net::new(Line::Home(random.below(3)), person.town, random.next());
    let gear = Gear::foreign(random);
    let session = format!("{:012x}", random.next() >> 16);
    let (name, net, gear, session, at, strong) = match kind {
        0 => ("password_abroad", abroad, gear, session, at, false),
        1 => ("password_tunnel", tunnel, gear, session, at, false),
        2 => ("password_nearby", neighbour, Gear { agent: seen.gear.agent.clone(), ..gear }, session, at, false),
        3 => ("token_replay", tunnel, gear, seen.session.clone(), seen.at + random.between(60.0, 3000.0), seen.strong),
        4 => (
            "header_clone",
            neighbour,
            seen.gear.clone(),
            seen.session.clone(),
            seen.at + random.between(5.0, 600.0),
            seen.strong,
        ),
        5 => ("insider", seen.net, seen.gear.clone(), seen.session.clone(), seen.at + 20.0, seen.strong),
        6 => return stuffing(random, number, persons, at, all),
        _ => return poisoning(random, number, person, round, all),
    };
    if at < WARM_UP {
        return;
    }
    let insider = kind == 5;
    let wanted = loot(random);
    let visit = Visit { person, session, net, gear, strong, attack: Some((name, number)), passes: insider };
    let (mut at, count) = (at, if insider { 40 } else { 4 + random.below(12) });
    for _ in 0..count {
        let own = !insider && random.chance(0.4);
        let from = if own { &person.favourites } else { &wanted };
        all.push(visit.request(at, &from[random.below(from.len())]));
        at += random.pause(if insider { 4.0 } else { 12.0 });
    }
}

/// One machine tries the passwords of many people.
fn stuffing(random: &mut Random, number: usize, persons: &[Person], mut at: f64, all: &mut Vec<Request>) {
    let net = Net::new(Line::Tunnel(9), Town::of(random.below(COUNTRIES), 1), random.next());
    for _ in 0..25 {
        let person = &persons[random.below(persons.len())];
        let gear = Gear { id: None, agent: "python-requests/2.32".into(), compliant: None };
        let session = format!("{:012x}", random.next() >> 16);
        let visit =
            Visit { person, session, net, gear, strong: false, attack: Some(("stuffing", number)), passes: false };
        all.push(visit.request(at, "GET /common/pagea"));
        at += random.pause(20.0);
    }
}

/// Quiet logins with the password for a week, to be known when it counts; then the loot.
fn poisoning(random: &mut Random, number: usize, person: &Person, round: usize, all: &mut Vec<Request>) {
    let net = Net::new(Line::Tunnel(round % 3), person.town, random.next());
    let gear = Gear::foreign(random);
    let wanted = loot(random);
    for day in 8..16 {
        let session = format!("{:012x}", random.next() >> 16);
        let visit = Visit {
            person,
            session,
            net,
            gear: gear.clone(),
            strong: false,
            attack: Some(("poisoning", number)),
            passes: false,
        };
        let at = START + day as f64 * DAY + person.starts * 3600.0 + random.between(0.0, 7000.0);
        let actions = if day < 15 { &person.favourites } else { &wanted };
        for (turn, action) in actions.iter().take(4).enumerate() {
            all.push(visit.request(at + 30.0 * turn as f64, action));
        }
    }
}
