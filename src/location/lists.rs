//! Sets of networks: what the configuration names, and feeds of tens of thousands of lines.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use prefix_trie::joint::{JointPrefixMap, JointPrefixSet};

use super::settings::{Networks, Settings};

/// Longest feed that is read, in octets.
pub(super) const MAX_FEED: u64 = 64 << 20;

/// Networks of one kind.
#[derive(Clone, Debug, Default)]
pub(super) struct PrefixSet(JointPrefixSet<IpNet>);

impl PrefixSet {
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.0.is_covered(&IpNet::from(address))
    }

    pub(super) fn insert(&mut self, network: IpNet) {
        self.0.insert(canonical(network));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds the networks of a feed. A bad line is skipped; says how many there were, and the number of the first.
    pub(super) fn read(&mut self, text: &str) -> BadLines {
        let mut bad = BadLines::default();
        for (number, line) in text.lines().enumerate() {
            let entry = line.split(['#', ';', ',', ' ', '\t']).next().unwrap_or_default();
            if entry.is_empty() {
                continue;
            }
            match parse(entry) {
                Some(network) => self.insert(network),
                None => bad.note(number + 1),
            }
        }
        bad
    }
}

/// Lines of a feed that name no network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BadLines {
    pub(super) count: usize,
    /// From 1.
    pub(super) first: usize,
}

impl BadLines {
    const fn note(&mut self, line: usize) {
        if self.count == 0 {
            self.first = line;
        }
        self.count += 1;
    }
}

/// A network, or an address as the network that holds it alone. Nothing as large as `/7` (IPv6: `/15`) is a network of one
/// kind: it is `/24` or `/128` in a file that ends too early.
fn parse(entry: &str) -> Option<IpNet> {
    let network = entry.parse::<IpNet>().ok().or_else(|| entry.parse::<IpAddr>().ok().map(IpNet::from))?;
    let network = canonical(network.trunc());
    (network.prefix_len() >= if network.addr().is_ipv4() { 8 } else { 16 }).then_some(network)
}

/// IPv4-mapped networks (`::ffff:192.0.2.0/120`) as what they map to, as addresses are.
fn canonical(network: IpNet) -> IpNet {
    match (network.addr().to_canonical(), network.prefix_len()) {
        (address @ IpAddr::V4(_), length @ 96..) if network.addr().is_ipv6() => {
            IpNet::new(address, length - 96).unwrap_or(network)
        }
        _ => network,
    }
}

/// Networks that the configuration names.
#[derive(Debug, Default)]
pub(super) struct NamedNetworks {
    corporate: PrefixSet,
    corporate_asns: Vec<u32>,
    /// Indexes into `names`.
    prefixes: JointPrefixMap<IpNet, Vec<usize>>,
    asns: Vec<(u32, usize)>,
    names: Vec<Arc<str>>,
}

impl NamedNetworks {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut all = Self { corporate_asns: settings.corporate_networks.asns.clone(), ..Self::default() };
        settings.corporate_networks.cidrs.iter().for_each(|network| all.corporate.insert(network.trunc()));
        for (name, networks) in &settings.known_networks {
            all.add(name, networks);
        }
        all
    }

    fn add(&mut self, name: &str, networks: &Networks) {
        let index = self.names.len();
        self.names.push(name.into());
        self.asns.extend(networks.asns.iter().map(|asn| (*asn, index)));
        for network in &networks.cidrs {
            let network = canonical(network.trunc());
            let mut holders = self.prefixes.remove(&network).unwrap_or_default();
            holders.push(index);
            self.prefixes.insert(network, holders);
        }
    }

    /// Of any of the ways in which an address may be written.
    pub(super) fn is_corporate(&self, ways: [IpAddr; 2], asn: Option<u32>) -> bool {
        ways.iter().any(|address| self.corporate.contains(*address))
            || asn.is_some_and(|asn| self.corporate_asns.contains(&asn))
    }

    /// Names of all networks that hold the address, whichever way it is written, in the order of the configuration, each once.
    pub(super) fn names(&self, ways: [IpAddr; 2], asn: Option<u32>) -> Vec<Arc<str>> {
        let covering = |address: IpAddr| self.prefixes.cover_values(&IpNet::from(address)).flatten().copied();
        let by_prefix = ways.into_iter().flat_map(covering);
        let by_asn = self.asns.iter().filter(|(number, _)| Some(*number) == asn).map(|(_, index)| *index);
        let mut indexes: Vec<usize> = by_prefix.chain(by_asn).collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes.into_iter().map(|index| Arc::clone(&self.names[index])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_with_bad_lines_keeps_its_good_ones() {
        let mut set = PrefixSet::default();
        let text = "# a feed\n198.51.100.0/24\n\n203.0.113.7 ; one host\r\n2001:db8::/32,vpn\nnonsense\n10.0.0.0/33\n0.0.0.0/0\n::ffff:0:0/96\n::ffff:192.0.2.0/120\n";
        let bad = set.read(text);
        assert_eq!((bad, set.len()), (BadLines { count: 4, first: 6 }, 4));
        for (address, inside) in [
            ("198.51.100.200", true),
            ("203.0.113.7", true),
            ("203.0.113.8", false),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
            ("192.0.2.9", true),
            ("8.8.8.8", false),
        ] {
            assert_eq!(set.contains(address.parse().unwrap()), inside, "{address}");
        }
    }

    #[test]
    fn a_line_that_was_cut_within_its_prefix_length_is_a_bad_line() {
        let good =
            ["185.220.101.0/24", "17.0.0.0/8", "203.0.113.7/32", "2002::/16", "2001:db8::/32", "2001:db8::1/128"];
        for line in good {
            assert_eq!(PrefixSet::default().read(line), BadLines::default(), "{line}");
            let length = line.split_once('/').unwrap().1;
            for missing in 1..length.len() {
                let cut = &line[..line.len() - missing];
                assert_eq!(PrefixSet::default().read(cut).count, 1, "{cut}");
            }
        }
    }

    #[test]
    fn an_address_is_in_every_named_network_that_holds_it() {
        let networks = |cidrs: &[&str], asns: &[u32]| Networks {
            cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
            asns: asns.to_vec(),
        };
        let settings = Settings {
            known_networks: [
                ("campus".to_owned(), networks(&["10.0.0.0/8"], &[])),
                ("lab".to_owned(), networks(&["10.1.0.0/16", "10.2.0.0/16"], &[])),
                ("partner".to_owned(), networks(&["10.1.0.0/16"], &[64500])),
            ]
            .into(),
            ..Settings::default()
        };
        let named = NamedNetworks::new(&settings);
        let names = |address: &str, asn| named.names([address.parse().unwrap(); 2], asn).join(",");
        assert_eq!(names("10.1.2.3", None), "campus,lab,partner");
        assert_eq!(names("10.9.9.9", Some(64500)), "campus,partner");
        assert_eq!(names("192.0.2.1", Some(64501)), "");
    }
}
