//! Project Wycheproof's vectors through our own key loading and verification: every key comes in as a JWK, every
//! signature in the form that a JWS carries. All that is `invalid` is refused; all that is `valid` is accepted, unless
//! its key is one that is never used here, which is counted and bounded.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign::identity::{Algorithm, KeyProblem, probe};
use serde_json::{Value, json};
use wycheproof::TestResult;

fn encode(octets: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

#[derive(Default, Debug)]
struct Tally {
    accepted: usize,
    refused: usize,
    key_not_used: usize,
}

impl Tally {
    fn judge(&mut self, what: &str, expected: &TestResult, got: Result<bool, KeyProblem>) {
        match (expected, got) {
            (TestResult::Valid, Ok(true)) => self.accepted += 1,
            (TestResult::Invalid, Ok(false)) => self.refused += 1,
            (TestResult::Acceptable, Ok(_)) => {}
            (_, Err(_)) => self.key_not_used += 1,
            (expected, got) => panic!("{what}: {got:?}, and it is {expected:?}"),
        }
    }
}

/// `04 || x || y` as a JWK.
fn ec(curve: &str, point: &[u8]) -> Value {
    let (x, y) = point[1..].split_at((point.len() - 1) / 2);
    json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) })
}

fn ecdsa(name: wycheproof::ecdsa::TestName, curve: &str, algorithm: Algorithm) -> Tally {
    let mut tally = Tally::default();
    for group in wycheproof::ecdsa::TestSet::load(name).unwrap().test_groups {
        let jwk = ec(curve, &group.key.key);
        for test in group.tests {
            let what = format!("{name:?} {}: {}", test.tc_id, test.comment);
            tally.judge(&what, &test.result, probe::signature(&jwk, algorithm, &test.msg, &test.sig));
        }
    }
    tally
}

#[test]
fn ecdsa_over_p256_as_jws_writes_it() {
    let tally = ecdsa(wycheproof::ecdsa::TestName::EcdsaSecp256r1Sha256P1363, "P-256", Algorithm::ES256);
    assert!(tally.accepted > 100 && tally.refused > 50 && tally.key_not_used == 0, "{tally:?}");
}

#[test]
fn ecdsa_over_p384_as_jws_writes_it() {
    let tally = ecdsa(wycheproof::ecdsa::TestName::EcdsaSecp384r1Sha384P1363, "P-384", Algorithm::ES384);
    assert!(tally.accepted > 100 && tally.refused > 50 && tally.key_not_used == 0, "{tally:?}");
}

#[test]
fn ecdsa_in_der_is_no_jws_signature() {
    let name = wycheproof::ecdsa::TestName::EcdsaSecp256r1Sha256;
    for group in wycheproof::ecdsa::TestSet::load(name).unwrap().test_groups {
        let jwk = ec("P-256", &group.key.key);
        for test in group.tests {
            // A DER signature may have 64 octets by accident; none of these verifies as r || s either.
            let verified = probe::signature(&jwk, Algorithm::ES256, &test.msg, &test.sig);
            assert_eq!(verified, Ok(false), "{}: {}", test.tc_id, test.comment);
        }
    }
}

#[test]
fn ed25519() {
    let mut tally = Tally::default();
    let name = wycheproof::eddsa::TestName::Ed25519;
    for group in wycheproof::eddsa::TestSet::load(name).unwrap().test_groups {
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(&group.key.pk) });
        for test in group.tests {
            let what = format!("{}: {}", test.tc_id, test.comment);
            tally.judge(&what, &test.result, probe::signature(&jwk, Algorithm::EdDsa, &test.msg, &test.sig));
        }
    }
    assert!(tally.accepted > 50 && tally.refused > 50 && tally.key_not_used == 0, "{tally:?}");
}

fn rsa(n: &[u8], e: &[u8]) -> Value {
    json!({ "kty": "RSA", "n": encode(n), "e": encode(e) })
}

#[test]
fn rsa_pkcs1() {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let sets = [
        (TestName::Rsa2048Sha256, Algorithm::RS256),
        (TestName::Rsa2048Sha384, Algorithm::RS384),
        (TestName::Rsa2048Sha512, Algorithm::RS512),
        (TestName::Rsa3072Sha256, Algorithm::RS256),
        (TestName::Rsa3072Sha384, Algorithm::RS384),
        (TestName::Rsa3072Sha512, Algorithm::RS512),
        (TestName::Rsa4096Sha256, Algorithm::RS256),
        (TestName::Rsa4096Sha384, Algorithm::RS384),
        (TestName::Rsa4096Sha512, Algorithm::RS512),
        (TestName::Rsa8192Sha256, Algorithm::RS256),
        (TestName::Rsa8192Sha384, Algorithm::RS384),
        (TestName::Rsa8192Sha512, Algorithm::RS512),
    ];
    let mut tally = Tally::default();
    for (name, algorithm) in sets {
        for group in TestSet::load(name).unwrap().test_groups {
            let jwk = rsa(&group.key.n, &group.key.e);
            for test in group.tests {
                let what = format!("{name:?} {}: {}", test.tc_id, test.comment);
                tally.judge(&what, &test.result, probe::signature(&jwk, algorithm, &test.msg, &test.sig));
            }
        }
    }
    println!("{tally:?}");
    assert!(tally.accepted > 50 && tally.refused > 1000 && tally.key_not_used <= 5, "{tally:?}");
}

#[test]
fn rsa_pss() {
    use wycheproof::rsa_pss_verify::{TestName, TestSet};
    // RFC 7518 fixes the salt at the length of the hash, so other salts are refused whatever the file says.
    let sets = [
        (TestName::RsaPss2048Sha256Mgf1SaltLen32, Algorithm::PS256, true),
        (TestName::RsaPss2048Sha384Mgf1SaltLen48, Algorithm::PS384, true),
        (TestName::RsaPss3072Sha256Mgf1SaltLen32, Algorithm::PS256, true),
        (TestName::RsaPss4096Sha256Mgf1SaltLen32, Algorithm::PS256, true),
        (TestName::RsaPss4096Sha384Mgf1SaltLen48, Algorithm::PS384, true),
        (TestName::RsaPss4096Sha512Mgf1SaltLen64, Algorithm::PS512, true),
        (TestName::RsaPss2048Sha256Mgf1SaltLen0, Algorithm::PS256, false),
        (TestName::RsaPss4096Sha512Mgf1SaltLen32, Algorithm::PS512, false),
    ];
    let mut tally = Tally::default();
    for (name, algorithm, right_salt) in sets {
        for group in TestSet::load(name).unwrap().test_groups {
            let jwk = rsa(&group.key.n, &group.key.e);
            for test in group.tests {
                let what = format!("{name:?} {}: {}", test.tc_id, test.comment);
                let got = probe::signature(&jwk, algorithm, &test.msg, &test.sig);
                let salt_is_right = test.comment.contains("s_len changed to");
                match (right_salt, got) {
                    (true, got) => tally.judge(&what, &test.result, got),
                    (false, Ok(false)) => tally.refused += 1,
                    // A file about one salt holds a few signatures with another, which may be the one of RFC 7518.
                    (false, Ok(true)) if salt_is_right => {}
                    (false, got) => panic!("{what}: {got:?}"),
                }
            }
        }
    }
    println!("{tally:?}");
    assert!(tally.accepted > 50 && tally.refused > 500, "{tally:?}");
}

#[test]
fn j20_weak_rsa_keys_are_no_keys() {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let set = TestSet::load(TestName::Rsa2048Sha256).unwrap();
    let n = &set.test_groups[0].key.n;
    let load = |n: &[u8], e: &[u8]| probe::signature(&rsa(n, e), Algorithm::RS256, b"", b"");
    let n: Vec<u8> = n.iter().copied().skip_while(|octet| *octet == 0).collect();
    assert_eq!(load(&n, &[1, 0, 1]), Ok(false), "the control loads");
    for e in [&[1][..], &[2], &[3], &[0], &[1, 0, 0], &[0xff; 5], &[0xff; 200]] {
        assert_eq!(load(&n, e), Err(KeyProblem::WeakRsa), "e = {e:?}");
    }
    assert_eq!(load(&n[128..], &[1, 0, 1]), Err(KeyProblem::WeakRsa), "1024 bits");
    assert_eq!(load(&n[1..], &[1, 0, 1]), Err(KeyProblem::WeakRsa), "2040 bits");
    let mut even = n.clone();
    *even.last_mut().unwrap() &= 0xfe;
    assert_eq!(load(&even, &[1, 0, 1]), Err(KeyProblem::WeakRsa), "even");
}

#[test]
fn j20_a_modulus_of_the_roca_form_is_no_key() {
    // 65537^k modulo the product of the first primes, lifted to 2048 bits: what the broken generator's moduli look like.
    let primes: Vec<u64> = (3..=167).filter(|n| (2..*n).all(|d| n % d != 0)).collect();
    let mut modulus = vec![0_u8; 256];
    modulus[0] = 0x80;
    modulus[255] = 1;
    // Walk odd numbers by the primes' product until every residue is 1, which is 65537^0.
    let residue = |modulus: &[u8], p: u64| modulus.iter().fold(0, |rest, octet| (rest * 256 + u64::from(*octet)) % p);
    let mut step: Vec<u64> = vec![2];
    for p in primes {
        // Adding the product of the primes settled so far changes only what is not settled yet.
        for _ in 0..p {
            if residue(&modulus, p) == 1 {
                break;
            }
            add_product(&mut modulus, &step);
        }
        assert_eq!(residue(&modulus, p), 1);
        step.push(p);
    }
    assert_eq!(probe::signature(&rsa(&modulus, &[1, 0, 1]), Algorithm::RS256, b"", b""), Err(KeyProblem::Roca));
}

/// Adds the product of `factors`.
fn add_product(modulus: &mut [u8], factors: &[u64]) {
    let mut product = vec![0_u8; modulus.len()];
    *product.last_mut().unwrap() = 1;
    for factor in factors {
        let mut carry = 0_u64;
        for octet in product.iter_mut().rev() {
            carry += u64::from(*octet) * factor;
            *octet = carry as u8;
            carry >>= 8;
        }
    }
    let mut carry = 0_u16;
    for (octet, other) in modulus.iter_mut().zip(&product).rev() {
        carry += u16::from(*octet) + u16::from(*other);
        *octet = carry as u8;
        carry >>= 8;
    }
}

#[test]
fn j22_ed25519_keys_of_small_order_are_no_keys() {
    let p = |first: u8, last: u8| [vec![first], vec![0xff; 30], vec![last]].concat();
    let small = |first: u8, last: u8| [vec![first], vec![0; 30], vec![last]].concat();
    let mut keys = vec![small(0, 0), small(1, 0), small(0, 0x80), small(1, 0x80)];
    for first in 0xec..=0xff {
        keys.extend([p(first, 0x7f), p(first, 0xff)]);
    }
    for text in [
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    ] {
        keys.push(hex::decode(text).unwrap());
    }
    for key in keys {
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(&key) });
        let loaded = probe::signature(&jwk, Algorithm::EdDsa, b"", b"");
        assert_eq!(loaded, Err(KeyProblem::BadPoint), "{}", hex::encode(&key));
    }
}
