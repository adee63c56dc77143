//! Places from real database and list files: found, absent, private, broken, replaced while in use.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "location/mmdb.rs"]
mod mmdb;

use std::{fs, net::IpAddr, path::Path, sync::Arc, time::Duration};

use countersign::{
    domain::{Fact, NetworkKind, Place, Unavailable, UnixTime},
    location::{DatabaseSettings, ListSettings, Locator, Networks, Settings},
};
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

fn city(code: &str, name: &str, latitude: f64, longitude: f64) -> serde_json::Value {
    json!({
        "country": {"iso_code": code}, "city": {"names": {"en": name, "de": "anders"}},
        "location": {"latitude": latitude, "longitude": longitude, "accuracy_radius": 20},
    })
}

fn write_databases(folder: &Path) -> DatabaseSettings {
    let cities = mmdb::database(
        "Test-City",
        &[
            ("192.0.2.0/24", city("DE", "Berlin", 52.52, 13.405)),
            ("198.51.100.0/24", city("US", "Boston", 42.36, -71.06)),
            ("203.0.113.0/24", json!({"country": {"iso_code": "FR"}})),
            ("2001:db8::/32", city("JP", "Tokyo", 35.68, 139.69)),
        ],
    );
    let systems = mmdb::database(
        "Test-ASN",
        &[
            ("192.0.2.0/24", json!({"autonomous_system_number": 64500})),
            ("198.51.100.0/24", json!({"autonomous_system_number": 64501})),
        ],
    );
    let anonymous = mmdb::database(
        "Test-Anonymous-IP",
        &[
            ("203.0.113.0/26", json!({"is_anonymous": true, "is_anonymous_vpn": true})),
            ("203.0.113.64/26", json!({"is_anonymous": true, "is_hosting_provider": true})),
            ("203.0.113.128/26", json!({"is_anonymous": true, "is_tor_exit_node": true, "is_anonymous_vpn": true})),
        ],
    );
    for (name, octets) in [("city.mmdb", cities), ("asn.mmdb", systems), ("anonymous.mmdb", anonymous)] {
        fs::write(folder.join(name), octets).unwrap();
    }
    DatabaseSettings {
        city: Some(folder.join("city.mmdb")),
        asn: Some(folder.join("asn.mmdb")),
        anonymous: Some(folder.join("anonymous.mmdb")),
    }
}

fn networks(cidrs: &[&str], asns: &[u32]) -> Networks {
    Networks { cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(), asns: asns.to_vec() }
}

fn locate(locator: &Locator, address: &str) -> Fact<Place> {
    locator.locate(Some(address.parse::<IpAddr>().unwrap()), NOW)
}

fn place(locator: &Locator, address: &str) -> Place {
    match locate(locator, address) {
        Fact::Known { value, .. } => value,
        other => panic!("{address}: {other:?}"),
    }
}

#[test]
fn an_address_has_its_country_city_position_and_system() {
    let folder = TempDir::new().unwrap();
    let locator = Locator::open(Settings { databases: write_databases(folder.path()), ..Settings::default() });
    let berlin = place(&locator, "192.0.2.77");
    assert_eq!(
        (berlin.country.as_deref(), berlin.city.as_deref(), berlin.asn),
        (Some("DE"), Some("Berlin"), Some(64500))
    );
    assert_eq!((berlin.position, berlin.accuracy_km), (Some((52.52, 13.405)), Some(20)));
    assert!(berlin.allowed && !berlin.unusual && berlin.network == NetworkKind::Ordinary);
    assert_eq!(place(&locator, "::ffff:192.0.2.77"), berlin);
    assert_eq!(place(&locator, "2001:db8:1::1").city.as_deref(), Some("Tokyo"));
    assert_eq!(place(&locator, "203.0.113.9").position, None);
    let nowhere = place(&locator, "8.8.8.8");
    assert_eq!((nowhere.country, nowhere.allowed, nowhere.unusual), (None, true, false));
}

#[test]
fn the_kind_of_a_network_is_the_first_that_applies() {
    let folder = TempDir::new().unwrap();
    let databases = write_databases(folder.path());
    let feed = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
        vec![folder.path().join(name)]
    };
    let locator = Locator::open(Settings {
        databases,
        corporate_networks: networks(&["10.20.0.0/16"], &[64501]),
        known_networks: [("branch".to_owned(), networks(&["192.0.2.0/28"], &[]))].into(),
        lists: ListSettings {
            vpn: feed("vpn.txt", "8.8.8.0/24 # a feed\nnot a network\n9.9.9.9\n"),
            hosting: feed("hosting.txt", "9.9.9.0/24\n"),
            tor: feed("tor.txt", "2001:db8:dead::/48\n"),
        },
        ..Settings::default()
    });
    for (address, kind) in [
        ("10.20.3.4", NetworkKind::Corporate),
        ("198.51.100.1", NetworkKind::Corporate),
        ("10.21.3.4", NetworkKind::Private),
        ("::1", NetworkKind::Private),
        ("fd00::1", NetworkKind::Private),
        ("100.64.0.1", NetworkKind::Private),
        ("::ffff:127.0.0.1", NetworkKind::Private),
        ("203.0.113.1", NetworkKind::Vpn),
        ("203.0.113.65", NetworkKind::Hosting),
        ("203.0.113.129", NetworkKind::Tor),
        ("2001:db8:dead::1", NetworkKind::Tor),
        ("8.8.8.8", NetworkKind::Vpn),
        ("9.9.9.9", NetworkKind::Vpn),
        ("9.9.9.8", NetworkKind::Hosting),
        ("192.0.2.1", NetworkKind::Ordinary),
    ] {
        assert_eq!(place(&locator, address).network, kind, "{address}");
    }
    assert_eq!(*place(&locator, "192.0.2.1").known_networks, [Arc::from("branch")]);
    assert!(place(&locator, "192.0.2.100").known_networks.is_empty());
}

#[test]
fn countries_are_allowed_and_expected_and_what_has_none_is_neither() {
    let folder = TempDir::new().unwrap();
    let locator = Locator::open(Settings {
        databases: write_databases(folder.path()),
        allowed_countries: vec!["DE".into(), "US".into()],
        expected_countries: vec!["DE".into()],
        ..Settings::default()
    });
    for (address, allowed, unusual) in [
        ("192.0.2.1", true, false),
        ("198.51.100.1", true, true),
        ("2001:db8::1", false, true),
        ("8.8.8.8", false, true),
        ("10.0.0.1", true, false),
    ] {
        let place = place(&locator, address);
        assert_eq!((place.allowed, place.unusual), (allowed, unusual), "{address}");
    }
}

#[test]
fn what_is_not_configured_is_not_asked_and_no_address_is_absent() {
    assert_eq!(locate(&Locator::open(Settings::default()), "8.8.8.8"), Fact::NotAsked);
    let folder = TempDir::new().unwrap();
    let databases = write_databases(folder.path());
    let off = Settings { enabled: false, databases: databases.clone(), ..Settings::default() };
    assert_eq!(locate(&Locator::open(off), "8.8.8.8"), Fact::NotAsked);
    assert_eq!(Locator::open(Settings { databases, ..Settings::default() }).locate(None, NOW), Fact::Absent);
}

#[test]
fn a_file_that_is_broken_missing_or_of_another_kind_makes_places_unavailable_and_says_why() {
    let folder = TempDir::new().unwrap();
    let databases = write_databases(folder.path());
    let good = fs::read(databases.city.as_ref().unwrap()).unwrap();
    let path = folder.path().join("bad.mmdb");
    let mut looped = mmdb::database("Test-City", &[("1.0.0.0/8", json!({"country": {"iso_code": "DE"}}))]);
    looped[..6].copy_from_slice(&[0xff; 6]);
    for (octets, said) in [
        (Vec::new(), "no MaxMind-format database"),
        (b"<html>not found</html>".to_vec(), "no MaxMind-format database"),
        (good[..good.len() / 2].to_vec(), "no MaxMind-format database"),
        (good[good.len() / 2..].to_vec(), "damaged"),
        (looped, "damaged"),
        (fs::read(databases.asn.as_ref().unwrap()).unwrap(), "`Test-ASN` database"),
    ] {
        fs::write(&path, &octets).unwrap();
        let databases = DatabaseSettings { city: Some(path.clone()), ..DatabaseSettings::default() };
        let locator = Locator::open(Settings { databases, ..Settings::default() });
        assert_eq!(locate(&locator, "192.0.2.1"), Fact::Unavailable(Unavailable::Malformed), "{said}");
        let problems = locator.problems();
        assert!(problems[0].1.contains(said), "{problems:?}, wanted {said}");
    }
    let missing = DatabaseSettings { city: Some(folder.path().join("none")), ..DatabaseSettings::default() };
    let locator = Locator::open(Settings { databases: missing, ..Settings::default() });
    assert!(locate(&locator, "192.0.2.1").is_unavailable());
}

#[test]
fn what_is_ours_needs_no_database() {
    let folder = TempDir::new().unwrap();
    let good = write_databases(folder.path());
    let damaged = folder.path().join("damaged.mmdb");
    let octets = fs::read(good.city.as_ref().unwrap()).unwrap();
    fs::write(&damaged, &octets[octets.len() / 2..]).unwrap();
    for city in [folder.path().join("none"), damaged] {
        let locator = Locator::open(Settings {
            databases: DatabaseSettings { city: Some(city), ..good.clone() },
            corporate_networks: networks(&["192.0.2.0/28"], &[64501]),
            allowed_countries: vec!["DE".to_owned()],
            expected_countries: vec!["DE".to_owned()],
            ..Settings::default()
        });
        for address in ["10.1.2.3", "::1", "192.0.2.1"] {
            let place = place(&locator, address);
            assert!(place.allowed && !place.unusual && place.country.is_none(), "{address}: {place:?}");
        }
        for address in ["192.0.2.77", "203.0.113.1"] {
            assert_eq!(locate(&locator, address), Fact::Unavailable(Unavailable::Malformed), "{address}");
        }
    }
}

#[test]
fn every_single_damaged_octet_of_a_database_is_a_fact_and_never_a_crash() {
    let folder = TempDir::new().unwrap();
    let good = fs::read(write_databases(folder.path()).city.unwrap()).unwrap();
    let path = folder.path().join("damaged.mmdb");
    for position in 0..good.len() {
        let mut damaged = good.clone();
        damaged[position] ^= 0x55;
        fs::write(&path, &damaged).unwrap();
        let databases = DatabaseSettings { city: Some(path.clone()), ..DatabaseSettings::default() };
        let locator = Locator::open(Settings { databases, ..Settings::default() });
        for address in ["192.0.2.1", "198.51.100.1", "2001:db8::1", "8.8.8.8", "::1"] {
            let fact = locate(&locator, address);
            assert!(
                matches!(fact, Fact::Known { .. } | Fact::Unavailable(Unavailable::Malformed)),
                "{position}: {fact:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_replaced_file_is_taken_up_and_a_broken_one_leaves_the_last_good_one() {
    let folder = TempDir::new().unwrap();
    let databases = write_databases(folder.path());
    let path = databases.city.clone().unwrap();
    let settings = Settings { databases, reload_every: Duration::from_millis(20).into(), ..Settings::default() };
    let locator = Locator::open(settings);
    let cancel = CancellationToken::new();
    let watching = locator.watch(cancel.clone());
    assert_eq!(place(&locator, "192.0.2.1").city.as_deref(), Some("Berlin"));

    let moved = mmdb::database("Test-City", &[("192.0.2.0/24", city("DE", "Hamburg", 53.55, 9.99))]);
    fs::write(folder.path().join("new"), moved).unwrap();
    fs::rename(folder.path().join("new"), &path).unwrap();
    until(|| place(&locator, "192.0.2.1").city.as_deref() == Some("Hamburg")).await;

    let generation = locator.generation();
    fs::write(&path, "half a download").unwrap();
    until(|| !locator.problems().is_empty()).await;
    assert_eq!(place(&locator, "192.0.2.1").city.as_deref(), Some("Hamburg"));
    assert!(locator.generation() > generation);
    assert_eq!(locator.counters().reload_failures.get(), 1);
    cancel.cancel();
    watching.await.unwrap();
}

#[tokio::test]
async fn a_feed_that_is_renewed_before_each_look_is_read_all_the_same() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tor.txt");
    fs::write(&path, "192.0.2.0/24\n").unwrap();
    let lists = ListSettings { tor: vec![path.clone()], ..ListSettings::default() };
    let hourly = Duration::from_secs(3600).into();
    let locator = Locator::open(Settings { lists, reload_every: hourly, ..Settings::default() });
    fs::write(folder.path().join("new"), "198.51.100.0/24\n").unwrap();
    fs::rename(folder.path().join("new"), &path).unwrap();
    let cancel = CancellationToken::new();
    // Its first look is now, its next but for the change in an hour, when there is another file again.
    let watching = locator.watch(cancel.clone());
    until(|| place(&locator, "198.51.100.9").network == NetworkKind::Tor).await;
    cancel.cancel();
    watching.await.unwrap();
}

#[test]
fn an_emptied_feed_or_one_that_is_being_written_leaves_the_last_good_one() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tor.txt");
    let write = |text: &str| fs::write(&path, text).unwrap();
    write("# exits\n185.220.101.0/24\n198.51.100.0/24\n");
    let lists = ListSettings { tor: vec![path.clone()], ..ListSettings::default() };
    let locator = Locator::open(Settings { lists, ..Settings::default() });
    let is_tor = |address: &str| place(&locator, address).network == NetworkKind::Tor;
    for (emptied, failures) in [("", 1), ("# exits, of today\n", 1), ("<html>not found</html>\n", 2)] {
        write(emptied);
        assert!(!locator.reload() && !locator.reload());
        assert!(is_tor("185.220.101.9") && is_tor("198.51.100.9"), "{emptied}");
        assert_eq!(locator.counters().reload_failures.get(), failures, "each problem is told once");
        assert!(locator.problems()[0].1.contains("holds no network"), "{:?}", locator.problems());
    }
    for half in ["185.220.101.0/24\n", "185.220.101.0/24\n198.51.100.0/2"] {
        write(half);
        assert!(!locator.reload(), "it may be being written");
        assert!(is_tor("198.51.100.9"));
    }
    assert!(locator.reload(), "it is not");
    assert!(is_tor("185.220.101.9") && !is_tor("198.51.100.9") && !is_tor("192.0.2.9"));
    assert!(locator.problems().is_empty());
    let empty = folder.path().join("none.txt");
    fs::write(&empty, "").unwrap();
    let lists = ListSettings { vpn: vec![empty], ..ListSettings::default() };
    let locator = Locator::open(Settings { lists, ..Settings::default() });
    assert!(locate(&locator, "192.0.2.9").is_unavailable(), "nobody knows what should stand there");
}

#[test]
fn an_enterprise_database_tells_systems_too() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("enterprise.mmdb");
    let row = json!({"country": {"iso_code": "DE"}, "traits": {"autonomous_system_number": 64500, "isp": "Example"}});
    fs::write(&path, mmdb::database("Test-Enterprise", &[("192.0.2.0/24", row)])).unwrap();
    let databases = DatabaseSettings { city: Some(path.clone()), asn: Some(path), ..DatabaseSettings::default() };
    let locator = Locator::open(Settings { databases, ..Settings::default() });
    let found = place(&locator, "192.0.2.1");
    assert_eq!((found.country.as_deref(), found.asn), (Some("DE"), Some(64500)));
}

async fn until(condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come true within 5 s");
}
