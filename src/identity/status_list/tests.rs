//! Lists as the draft writes them, whose they may be, and for how long they count.

use serde_json::Value;

use super::{
    super::{jws, life::Life},
    read::{MAX_INFLATED, inflate, parse},
    *,
};

fn at(secs: u64) -> Moment {
    Moment { wall: UnixTime::from_secs(secs), steady: Instant::now() }
}

fn list(bits: u8, lst: &str) -> List {
    let octets = inflate(&hex::decode(lst).unwrap()).unwrap();
    List { bits, octets, life: Life::new(at(0), Duration::from_secs(60)) }
}

#[test]
fn the_vectors_of_the_draft_read_as_written() {
    let one = list(1, "78dadbb918000217015d");
    assert_eq!(one.octets, [0xb9, 0xa3]);
    let statuses: Vec<_> = (0..16).filter_map(|i| one.status(i)).collect();
    assert_eq!(statuses, [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]);
    assert_eq!(one.status(16), None);
    let two = list(2, "78da3be9f2130003df0207");
    let statuses: Vec<_> = (0..12).filter_map(|i| two.status(i)).collect();
    assert_eq!(statuses, [1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3]);
}

#[test]
fn a_list_that_inflates_without_end_is_refused() {
    use std::io::Write;
    let mut bomb = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&vec![0; MAX_INFLATED as usize + 1]).unwrap();
    assert!(inflate(&bomb.finish().unwrap()).is_err());
    assert!(inflate(b"not zlib").is_err());
}

#[test]
fn only_the_issuers_own_lists_are_fetched() {
    let issuer = IssuerSettings::new("https://i.example/tenant", ["a"]);
    assert!(allowed("https://i.example/lists/1", &issuer).is_some());
    for foreign in ["https://evil.example/1", "http://i.example/1", "https://i.example:8443/1", "/1"] {
        assert!(allowed(foreign, &issuer).is_none(), "{foreign}");
    }
    let named = IssuerSettings { status_lists: vec!["https://cdn.example/i/".into()], ..issuer };
    assert!(allowed("https://cdn.example/i/1", &named).is_some());
    assert!(allowed("https://i.example/lists/1", &named).is_none());
}

#[test]
fn a_prefix_ends_where_its_host_and_port_do_and_its_path_is_taken_as_written() {
    let allows = |prefix: &str, uri: &str| {
        let issuer = IssuerSettings { status_lists: vec![prefix.into()], ..IssuerSettings::new("https://i", ["a"]) };
        allowed(uri, &issuer).is_some()
    };
    for uri in ["https://cdn.example/", "https://cdn.example/1?page=2", "https://CDN.example:443/1"] {
        assert!(allows("https://cdn.example", uri), "{uri}");
    }
    for uri in [
        "https://cdn.example.evil.com/",
        "https://cdn.example:8443/",
        "https://cdn.example@evil.com/",
        "https://cdn.exampleevil.com/",
    ] {
        assert!(!allows("https://cdn.example", uri), "{uri}");
    }
    assert!(allows("https://cdn.example/i", "https://cdn.example/i/1"));
    assert!(allows("https://cdn.example/i", "https://cdn.example/issuer"), "as it is written");
    assert!(!allows("https://cdn.example/i/", "https://cdn.example/i/../other"));
    assert!(!allows("cdn.example", "https://cdn.example/1"));
}

#[test]
fn the_dates_of_a_list_may_have_fractions() {
    let issuer = IssuerSettings::new("https://i.example", ["a"]);
    let until = |exp: Value, ttl: Value| {
        let list = serde_json::json!({ "bits": 1, "lst": jws::encode(&hex::decode("78dadbb918000217015d").unwrap()) });
        let claims = serde_json::json!({ "sub": "u", "exp": exp, "ttl": ttl, "status_list": list });
        parse(&claims, "u", &issuer, at(1000)).map(|list| list.life.until().as_millis()).ok()
    };
    assert_eq!(until(1100.25.into(), 300.into()), Some(1_100_250));
    assert_eq!(until(1000.5.into(), 300.into()), Some(1_000_500));
    assert_eq!(until(2000.into(), 60.5.into()), Some(1_060_500));
    assert_eq!(until(1e300.into(), 1e300.into()), Some(1_300_000), "far away is far away");
    for bad in [Value::Null, "1100".into(), (-1).into(), 999.5.into(), 1000.into(), 0.into()] {
        assert_eq!(until(bad.clone(), 60.into()), None, "{bad}");
    }
}
