//! The fuzz targets without a fuzzer: the corpus, former crashes among it, and seeded random variants of it, with every
//! `make test`. Then the same oracles at scale over generated paths and claims: `DIFFERENTIAL=10000000` for that many.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, dead_code, unreachable_pub, reason = "a test")]

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::{fs, path::Path};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

fn folder(kind: &str, target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// How many, where the environment does not say.
fn wanted(variable: &str, usually: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usually)
}

/// The words of a dictionary, without the escapes that only the fuzzer reads.
fn words(target: &str) -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/dictionaries/{target}.dict"));
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| line[1..line.len() - 1].replace("\\\"", "\"").replace("\\\\", "\\")).collect()
}

/// One to four changes of an input: a bit, an octet, a word, a cut, a piece of another input.
fn changed(corpus: &[Vec<u8>], words: &[String], random: &mut StdRng) -> Vec<u8> {
    let mut data = corpus.choose(random).unwrap().clone();
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..=data.len());
        match random.random_range(0..6) {
            0 if at < data.len() => data[at] ^= 1 << random.random_range(0..8),
            1 if at < data.len() => data[at] = random.random(),
            2 => drop(data.splice(at..at, words.choose(random).unwrap().bytes())),
            3 => data.truncate(at),
            4 => {
                let other = corpus.choose(random).unwrap();
                let from = random.random_range(0..=other.len());
                let to = random.random_range(from..=other.len());
                data.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let end = random.random_range(at..=data.len());
                data.drain(at..end);
            }
        }
    }
    data
}

fn run(name: &str) {
    let (_, target) = targets::TARGETS.into_iter().find(|(known, _)| *known == name).unwrap();
    let corpus = folder("corpus", name);
    assert!(corpus.len() >= 5, "{name}: {} inputs", corpus.len());
    corpus.iter().for_each(|input| target(input));
    let (words, mut random) = (words(name), StdRng::seed_from_u64(5));
    for _ in 0..wanted("FUZZ_VARIANTS", 3_000) {
        target(&changed(&corpus, &words, &mut random));
    }
}

#[test]
fn token() {
    run("token");
}

#[test]
fn key_set() {
    run("key_set");
}

#[test]
fn check_request_to_check_response() {
    run("check");
}

#[test]
fn path() {
    run("path");
}

#[test]
fn forwarded_client_certificate() {
    run("xfcc");
}

#[test]
fn device_record() {
    run("record");
}

#[test]
fn rules_and_configuration() {
    run("policy");
}

#[test]
fn every_target_has_its_program_and_its_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for (name, _) in targets::TARGETS {
        assert!(root.join(format!("fuzz_targets/{name}.rs")).exists(), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        assert!(!words(name).is_empty(), "{name}");
    }
}

const PIECES: [&str; 48] = [
    "a",
    "B",
    "9",
    "-",
    ".",
    "..",
    "_",
    "~",
    "/",
    "/",
    "/",
    "//",
    "%2e",
    "%2E",
    "%2f",
    "%5C",
    "%25",
    "%3B",
    "%3f",
    "%23",
    "%00",
    "%1f",
    "%7f",
    "%41",
    "%7E",
    "%2b",
    "%2A",
    "%40",
    "%7b",
    "*",
    "@",
    "{x}",
    "%5d",
    "|",
    "%c3%a9",
    "%c0%af",
    "%ef%bc%8f",
    "%C2%85",
    "%",
    "%u0041",
    "%4",
    ";",
    ";x=1",
    "?",
    "#",
    "\\",
    "é",
    " ",
];

#[test]
fn t4_the_canonical_path_is_what_a_slow_reference_says() {
    let mut random = StdRng::seed_from_u64(11);
    let mut fine = 0;
    for _ in 0..wanted("DIFFERENTIAL", 200_000) {
        let mut target = if random.random_ratio(19, 20) { "/".to_owned() } else { String::new() };
        // Mostly harmless pieces, so that many paths are fine and differ in their last piece only.
        for _ in 0..random.random_range(0..10) {
            let harmless = random.random_ratio(3, 4);
            target += if harmless {
                ["a", "b1", "/c", "%41", ".x", ";p"].choose(&mut random).unwrap()
            } else {
                PIECES.choose(&mut random).unwrap()
            };
        }
        targets::path::run(target.as_bytes());
        fine += usize::from(targets::reference::path::canonical(&target).is_some());
    }
    assert!(fine > wanted("DIFFERENTIAL", 200_000) / 10, "{fine} of them had a canonical form");
}

/// A value that a claim might be given, right and wrong ones.
fn value(random: &mut StdRng) -> String {
    let now = targets::token::NOW;
    match random.random_range(0..12) {
        0 => (now + random.random_range(0..200_000) - 100_000).to_string(),
        1 => format!("{}.{}", now + random.random_range(0..100) - 50, random.random_range(0..1000)),
        2 => ["null", "true", "false", "0", "-1", "1e9", "1.9e9", "1e400", "01", "1.", "19e8"]
            .choose(random)
            .unwrap()
            .to_string(),
        3 => r#""api.example.com""#.to_owned(),
        4 => r#"["x","api.example.com"]"#.to_owned(),
        5 => r#"["api.example.com",1]"#.to_owned(),
        6 => [
            r#""""#,
            r#"" ""#,
            r#""a\u0000""#,
            r#""\u202e""#,
            r#""é""#,
            "\"a\u{200b}\"",
            r#""\ud800""#,
            r#""\ud83d\ude00""#,
        ]
        .choose(random)
        .unwrap()
        .to_string(),
        7 => r#"{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}"#.to_owned(),
        8 => [r#"{}"#, r#"{"jkt":"x"}"#, r#"{"status_list":{"idx":1,"uri":"x"}}"#, r#"{"status_list":{}}"#]
            .choose(random)
            .unwrap()
            .to_string(),
        9 => ["\"access\"", "\"id\"", "\"ID\"", "\"Bearer\"", "\"Refresh\"", "\"DPoP\""]
            .choose(random)
            .unwrap()
            .to_string(),
        10 => "\"https://issuer.example\"".to_owned(),
        _ => "\"text\"".to_owned(),
    }
}

const NAMES: [&str; 27] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "cnf",
    "status",
    "nonce",
    "typ",
    "token_use",
    "events",
    "at_hash",
    "sid",
    "device_id",
    "azp",
    "client_id",
    "auth_time",
    "acr",
    "amr",
    "roles",
    "scope",
    "htm",
    "s_hash",
    "x",
    "status_list",
];

fn claims(random: &mut StdRng) -> String {
    let now = targets::token::NOW;
    let mut members: Vec<(String, String)> = [
        ("iss", "\"https://issuer.example\"".to_owned()),
        ("sub", "\"alice\"".to_owned()),
        ("aud", "\"api.example.com\"".to_owned()),
        ("exp", (now + 600).to_string()),
        ("iat", (now - 10).to_string()),
        ("jti", "\"t\"".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    for _ in 0..random.random_range(0..3) {
        let name = NAMES.choose(random).unwrap().to_string();
        match random.random_range(0..8) {
            0 => drop(members.pop()),
            1 => members.push((name, value(random))),
            _ => {
                members.retain(|(known, _)| *known != name);
                members.push((name, value(random)));
            }
        }
    }
    let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

#[test]
fn t4_what_claims_are_accepted_is_what_a_slow_reference_says() {
    let mut random = StdRng::seed_from_u64(12);
    let headers = [
        r#"{"alg":"EdDSA","kid":"ed","typ":"at+jwt"}"#,
        r#"{"alg":"EdDSA","kid":"ed","typ":"JWT"}"#,
        r#"{"alg":"EdDSA","kid":"ed"}"#,
        r#"{"alg":"EdDSA","kid":"ed","typ":"application/AT+jwt","x":{"y":[]}}"#,
        r#"{"alg":"EdDSA","kid":"ed","typ":"id+jwt"}"#,
        r#"{"alg":"Ed25519","kid":"ed","typ":"at+jwt"}"#,
        r#"{"alg":"Ed448","kid":"ed","typ":"at+jwt"}"#,
    ];
    for _ in 0..wanted("DIFFERENTIAL", 200_000) / 10 {
        let header = if random.random_ratio(4, 5) { headers[0] } else { headers.choose(&mut random).unwrap() };
        targets::token::run(format!("S{header}\n{}", claims(&mut random)).as_bytes());
    }
}

/// A header or payload with something wrong with it, or not: to be signed again, so that nothing but itself refuses it.
fn varied(text: &str, random: &mut StdRng) -> String {
    let mut octets = text.as_bytes().to_vec();
    match random.random_range(0..4) {
        0 => {
            let at = random.random_range(0..octets.len());
            octets[at] = random.random_range(0x20..0x7f);
        }
        1 => {
            let (at, length) = (random.random_range(0..octets.len()), random.random_range(1..6));
            octets.drain(at..(at + length).min(text.len()));
        }
        // A member more, before the others: one that is there already, in another spelling, or one that changes the meaning.
        kind => {
            let members = [
                r#""alg":"EdDSA""#,
                r#""al\u0067":"none""#,
                r#""kid":"ed""#,
                r#""crit":["exp"]"#,
                r#""b64":false"#,
                r#""cty":"JWT""#,
                r#""typ":"id+jwt""#,
                r#""t\u0079p":"at+jwt""#,
                r#""jwk":{}"#,
                r#""aud":["api.example.com"]"#,
                r#""su\u0062":"root""#,
                r#""exp":1e300"#,
                r#""x":[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]"#,
            ];
            let one = members.choose(random).unwrap();
            let text = if kind == 2 {
                text.replacen('{', &format!("{{{one},"), 1)
            } else {
                text.replacen('}', &format!(",{one}}}"), 1)
            };
            octets = text.into_bytes();
        }
    }
    String::from_utf8_lossy(&octets).into_owned()
}

#[test]
fn t2_a_variant_that_is_signed_again_is_what_a_slow_reference_says() {
    let mut random = StdRng::seed_from_u64(13);
    for _ in 0..wanted("DIFFERENTIAL", 200_000) / 10 {
        let mut header = r#"{"alg":"EdDSA","kid":"ed","typ":"at+jwt"}"#.to_owned();
        let mut payload = claims(&mut random);
        match random.random_range(0..3) {
            0 => header = varied(&header, &mut random),
            1 => payload = varied(&payload, &mut random),
            _ => (header, payload) = (varied(&header, &mut random), varied(&payload, &mut random)),
        }
        targets::token::run(format!("S{header}\n{payload}").as_bytes());
    }
}
