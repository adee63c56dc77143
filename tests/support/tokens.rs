//! A test issuer: keys of its own, a key set, and any token a test asks for, right or wrong.
//!
//! Signs by itself, without the code under test, and remembers what it minted, so that a stack can look for leaks.

use std::{
    sync::{Mutex, OnceLock},
    time::{SystemTime, UNIX_EPOCH},
};

use aho_corasick::AhoCorasick;
use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

pub const ISSUER: &str = "https://issuer.test";
pub const AUDIENCE: &str = "api.test";

/// Signing keys by algorithm; made once for the process, an RSA key takes its time.
struct Keys {
    rsa: aws_lc_rs::rsa::KeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| Keys {
        rsa: aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).expect("an RSA key can be made"),
        ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("an EC key can be made"),
        ed: Ed25519KeyPair::generate().expect("an Ed25519 key can be made"),
    })
}

/// The key set that verifies every token of [`Token`].
pub fn key_set() -> Value {
    let Keys { rsa, ec, ed } = keys();
    let (n, e) = (rsa.public_key().modulus(), rsa.public_key().exponent());
    let point = ec.public_key().as_ref();
    json!({"keys": [
        {"kty": "RSA", "kid": "RS256", "alg": "RS256", "use": "sig",
         "n": base64(n.big_endian_without_leading_zero()), "e": base64(e.big_endian_without_leading_zero())},
        {"kty": "EC", "crv": "P-256", "kid": "ES256", "alg": "ES256", "use": "sig",
         "x": base64(&point[1..33]), "y": base64(&point[33..])},
        {"kty": "OKP", "crv": "Ed25519", "kid": "EdDSA", "alg": "EdDSA", "use": "sig",
         "x": base64(ed.public_key().as_ref())},
    ]})
}

fn base64(octets: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_secs()).expect("seconds fit")
}

/// What must turn up nowhere: payloads and signatures of minted tokens, and secrets.
static MINTED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on `secret` must turn up nowhere either.
pub fn must_not_leak(secret: &str) {
    MINTED.lock().expect("no test panics while it mints").push(secret.to_owned());
}

/// Whether part of a token that this test process minted stands in `text`: it must not in anything that a process writes.
/// All of them are looked for in one pass: thousands of tokens, and logs of many megabytes.
pub fn leaked(text: &[u8]) -> bool {
    let minted = MINTED.lock().expect("no test panics while it mints").clone();
    AhoCorasick::new(minted).expect("so many fit").is_match(text)
}

/// A token in the making.
#[derive(Clone, Debug)]
pub struct Token {
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

impl Token {
    /// A person with a password and a one-time code, for an hour, ES256.
    pub fn person(subject: &str) -> Self {
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "jti": unique("jti"), "sid": unique("sid"),
            "iat": now(), "auth_time": now(), "exp": now() + 3600, "amr": ["pwd", "otp"], "client_id": "shop-web",
        });
        let header = json!({"alg": "ES256", "kid": "ES256", "typ": "at+jwt"});
        Self { header: object(header), claims: object(claims) }
    }

    /// A service: its client is its subject, and it says nothing of methods.
    pub fn service(name: &str) -> Self {
        Self::person(name).claim("client_id", name).without("amr").without("auth_time").without("sid")
    }

    pub fn roles(self, roles: &[&str]) -> Self {
        self.claim("roles", roles)
    }

    /// Sets a claim.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Leaves a claim out.
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Sets a header parameter.
    pub fn parameter(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Signs with this algorithm and the key of its name.
    pub fn algorithm(self, name: &str) -> Self {
        self.parameter("alg", name).parameter("kid", name)
    }

    /// Binds it to the key of [`proof`].
    pub fn bound(self) -> Self {
        let jwk = &key_set()["keys"][1];
        // RFC 7638: the required members in the order of their names.
        let canonical = json!({"crv": "P-256", "kty": "EC", "x": jwk["x"], "y": jwk["y"]}).to_string();
        let thumbprint = base64(digest(&SHA256, canonical.as_bytes()));
        self.claim("cnf", json!({ "jkt": thumbprint }))
    }

    /// The value of a string claim, `jti` for one.
    pub fn value(&self, claim: &str) -> &str {
        self.claims[claim].as_str().expect("a string claim")
    }

    /// The compact token, signed as its header says.
    pub fn mint(&self) -> String {
        let part = |map: &Map<String, Value>| base64(serde_json::to_vec(map).expect("a map is JSON"));
        let payload = part(&self.claims);
        let input = format!("{}.{payload}", part(&self.header));
        let signature = sign(self.header["alg"].as_str().unwrap_or_default(), input.as_bytes());
        MINTED.lock().expect("no test panics while it mints").extend([payload, signature.clone()]);
        format!("{input}.{signature}")
    }
}

/// A proof (RFC 9449) that the sender of `method url` holds the key that `token` is bound to.
pub fn proof(token: &str, method: &str, url: &str) -> String {
    proof_with_nonce(token, method, url, None)
}

/// As [`proof`], with the nonce that a server gave.
pub fn proof_with_nonce(token: &str, method: &str, url: &str, nonce: Option<&str>) -> String {
    let jwk = &key_set()["keys"][1];
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": jwk["x"], "y": jwk["y"]});
    let mut claims = json!({
        "jti": unique("proof"), "htm": method, "htu": url, "iat": now(), "ath": base64(digest(&SHA256, token.as_bytes())),
    });
    if let Some(nonce) = nonce {
        claims["nonce"] = json!(nonce);
    }
    let part = |value: Value| base64(value.to_string());
    let input = format!("{}.{}", part(json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk})), part(claims));
    let signature = sign("ES256", input.as_bytes());
    format!("{input}.{signature}")
}

fn sign(algorithm: &str, input: &[u8]) -> String {
    let Keys { rsa, ec, ed } = keys();
    let random = SystemRandom::new();
    match algorithm {
        "RS256" => {
            let mut signature = vec![0; rsa.public_modulus_len()];
            rsa.sign(&RSA_PKCS1_SHA256, &random, input, &mut signature).expect("RSA signs");
            base64(signature)
        }
        "EdDSA" | "Ed25519" => base64(ed.sign(input)),
        _ => base64(ec.sign(&random, input).expect("ECDSA signs")),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("no object: {other}"),
    }
}

/// A name that no other test of this run uses.
pub fn unique(prefix: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
