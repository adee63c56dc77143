//! The CheckRequest that is sent, as Envoy 1.40 builds it for a browser's request: 21 headers with Envoy's own, about 2 KB.

use std::{
    collections::HashMap,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use countersign::identity::{
    Algorithm,
    mint::{SigningKey, key_set},
};
use envoy_types::pb::{
    envoy::{
        config::core::v3::{Address, SocketAddress, address, socket_address::PortSpecifier},
        service::auth::v3::{
            AttributeContext, CheckRequest,
            attribute_context::{HttpRequest, Peer, Request, TlsSession},
        },
    },
    google::protobuf::Timestamp,
};
use prost::Message as _;
use serde_json::{Value, json};

pub const ISSUER: &str = "https://issuer.test/realms/shop";
pub const AUDIENCE: &str = "https://api.test";
/// Whose tokens they all are: a device has one owner.
pub const SUBJECT: &str = "6513270e-269e-4d37-92a7-4de452e6b438";
pub const DEVICE: &str = "laptop-0042";
pub const FINGERPRINT: &str = "fp-8c0f1f6a2d0f44c9";
pub const PATH: &str = "/api/orders/8c0f1f6a/items?page=2&limit=50";

/// The issuer's keys.
pub struct Issuer {
    pub rs256: SigningKey,
    pub es256: SigningKey,
    pub eddsa: SigningKey,
}

impl Issuer {
    pub fn new() -> Self {
        let key = |algorithm: Algorithm, kid: &str| SigningKey::generate(algorithm, kid).expect("a key can be made");
        Self {
            rs256: key(Algorithm::RS256, "rs-1"),
            es256: key(Algorithm::ES256, "es-1"),
            eddsa: key(Algorithm::EdDsa, "ed-1"),
        }
    }

    /// The key set that verifies them all.
    pub fn key_set(&self) -> String {
        key_set([&self.rs256, &self.es256, &self.eddsa])
    }
}

/// Claims as an identity provider writes them: 890 octets as an RS256 token. `number` makes token and session.
pub fn claims(number: u64, life: u64) -> Value {
    let id = |kind: u64| format!("{:08x}-{kind:04x}-4000-8000-{number:012x}", number.wrapping_mul(0x9e37_79b9) as u32);
    let now = now();
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "azp": "web-console", "iat": now, "nbf": now, "auth_time": now,
        "exp": now + life, "jti": id(2), "sid": id(3), "amr": ["pwd", "otp"],
        "scope": "openid profile orders:read orders:write", "roles": ["user", "orders-reader"],
    })
}

/// A token that lives an hour.
pub fn token(key: &SigningKey, number: u64) -> String {
    key.token(&claims(number, 3600)).expect("a token can be signed")
}

/// As [`token`], of this subject.
pub fn token_of(key: &SigningKey, subject: &str, number: u64) -> String {
    let mut claims = claims(number, 3600);
    claims["sub"] = subject.into();
    key.token(&claims).expect("a token can be signed")
}

/// What Envoy asks about a request that carries `token`.
pub fn check(token: &str) -> Bytes {
    check_with(token, PATH, DEVICE)
}

pub fn check_with(token: &str, path: &str, device: &str) -> Bytes {
    let http = HttpRequest {
        id: "7881362165744169606".into(),
        method: "GET".into(),
        headers: headers(token, path, device),
        path: path.into(),
        host: "api.test".into(),
        scheme: "http".into(),
        protocol: "HTTP/1.1".into(),
        ..HttpRequest::default()
    };
    let time = Timestamp { seconds: now() as i64, nanos: 528_464_536 };
    let attributes = AttributeContext {
        source: Some(peer("127.0.0.1", 40_814)),
        destination: Some(peer("127.0.0.1", 10_000)),
        request: Some(Request { time: Some(time), http: Some(http) }),
        metadata_context: Some(envoy_types::pb::envoy::config::core::v3::Metadata::default()),
        tls_session: None::<TlsSession>,
        ..AttributeContext::default()
    };
    CheckRequest { attributes: Some(attributes) }.encode_to_vec().into()
}

fn headers(token: &str, path: &str, device: &str) -> HashMap<String, String> {
    let authorization = format!("Bearer {token}");
    let envoys = [
        (":authority", "api.test"),
        (":method", "GET"),
        (":path", path),
        (":scheme", "http"),
        ("x-forwarded-proto", "http"),
        ("x-envoy-external-address", "127.0.0.1"),
        ("x-request-id", "c4b22eb3-5708-4d53-aec2-a5996f50cdee"),
    ];
    let all = envoys.into_iter().chain(browser(&authorization, device, FINGERPRINT));
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What the client itself sends.
pub fn browser<'a>(authorization: &'a str, device: &'a str, fingerprint: &'a str) -> [(&'static str, &'a str); 14] {
    [
        (
            "user-agent",
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
        ),
        ("accept", "application/json, text/plain, */*"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("accept-language", "en-GB,en;q=0.9"),
        ("authorization", authorization),
        ("cookie", "theme=dark; locale=en; visits=17; _consent=GA1.1.1172839046.1755512345"),
        ("origin", "https://console.test"),
        ("referer", "https://console.test/orders/8c0f1f6a"),
        ("sec-fetch-mode", "cors"),
        ("sec-fetch-site", "cross-site"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("x-device-id", device),
        ("x-device-fingerprint", fingerprint),
        ("x-forwarded-for", "203.0.113.24,127.0.0.1"),
    ]
}

fn peer(address: &str, port: u32) -> Peer {
    let socket = SocketAddress {
        address: address.into(),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..SocketAddress::default()
    };
    let address = Address { address: Some(address::Address::SocketAddress(socket)) };
    Peer { address: Some(address), ..Peer::default() }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
