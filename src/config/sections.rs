//! Sections that no single module owns: where to listen, where the store is, which parts are on.

use std::{borrow::Cow, fmt, net::SocketAddr, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::Url;

use crate::domain::{RiskModel, Secret};

/// Where to listen. A port that is taken is an error: two processes never share one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Where Envoy asks (`ext_authz` gRPC): `address:port`, or `unix:/path/to/socket`.
    pub authz: Address,
    /// TLS for `authz`. Without it, keep the port reachable by Envoy alone.
    pub authz_tls: Option<Tls>,
    /// The admin API (gRPC). Off loopback it needs `admin_tls` with `client_ca`, or `admin.tokens`, and every call credentials.
    #[serde(deserialize_with = "socket_address")]
    pub admin: SocketAddr,
    /// TLS for `admin`.
    pub admin_tls: Option<Tls>,
    /// Health, metrics and public keys (HTTP).
    #[serde(deserialize_with = "socket_address")]
    pub http: SocketAddr,
}

fn socket_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let wrong = |_| "not an address such as `127.0.0.1:9192`, `0.0.0.0:9193` or `[::]:9193`";
    String::deserialize(deserializer)?.parse().map_err(wrong).map_err(de::Error::custom)
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            authz: Address::Tcp(SocketAddr::from(([0, 0, 0, 0], 9191))),
            authz_tls: None,
            admin: SocketAddr::from(([127, 0, 0, 1], 9192)),
            admin_tls: None,
            http: SocketAddr::from(([0, 0, 0, 0], 9193)),
        }
    }
}

/// A server's certificate, and whom it lets in. Read again when the files change, for new connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file: our certificate, then those between it and the root.
    pub certificate: PathBuf,
    /// PEM file: the certificate's private key.
    pub key: PathBuf,
    /// PEM file: the authorities that clients' certificates must come from. With it, a client without a certificate is
    /// refused.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// `address:port` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) => {
                let path = path.strip_prefix("//").unwrap_or(path);
                if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(UNIX.to_owned()) }
            }
            None => text.parse().map(Self::Tcp).map_err(|_| {
                format!(
                    "`{text}` is not an address such as `0.0.0.0:9191`, `[::]:9191` or `unix:/run/countersign.sock`"
                )
            }),
        }
    }
}

const UNIX: &str = "a Unix socket is named by its absolute path: `unix:/run/countersign.sock`";

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).and_then(|text| Self::parse(&text).map_err(de::Error::custom))
    }
}

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "`address:port`, or `unix:/path`" })
    }
}

/// How the client behind Envoy is told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Client {
    /// How many proxies of yours append to `X-Forwarded-For`, Envoy included: the client is so many from the right.
    /// Absent: the client is the peer of Envoy's connection (`source.address`).
    pub trusted_hops: Option<usize>,
}

/// Where revocations, devices and counters are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// `memory://` (dies with the process: for trying only), `file:///var/lib/countersign` (one machine),
    /// `redis://host:6379/0`, `rediss://…` (TLS), `redis-cluster://a:6379,b:6379`,
    /// `redis-sentinel://s1:26379,s2:26379/mymaster`. Before the hosts of a Redis: `user:password@` or `:password@`,
    /// percent-encoded (`@` is `%40`). After them `?` and, joined by `&`: `ca=FILE` (PEM, trusted instead of the system's
    /// authorities), `certificate=FILE` with `key=FILE` (PEM, our own), all three absolute paths, for `rediss` alone, and read
    /// anew for each connection; `timeout=100ms` (how long a command may take, 1ms to 10s); `sentinel_password=PASSWORD` where
    /// the sentinels ask for one, with `sentinel_user=USER` if they know users, percent-encoded as well (`&` is `%26`).
    pub url: Secret,
}

impl Store {
    /// The folder of a file store, if that is what the URL names.
    pub fn folder(&self) -> Option<PathBuf> {
        let url = Url::parse(self.url.expose()).ok().filter(|url| url.scheme() == "file")?;
        let plain = url.query().is_none() && url.fragment().is_none();
        url.to_file_path().ok().filter(|path| plain && path.parent().is_some())
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { url: Secret::new("memory://") }
    }
}

/// How much a request's circumstances weigh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Risk {
    /// `statistical`: how likely the request is from its user, by what was learned of the user (`docs/risk.md`). `fixed`: a
    /// table of points. `none`: every score is 0, and nobody's behaviour is looked at.
    pub model: RiskModel,
}

impl Default for Risk {
    fn default() -> Self {
        Self { model: RiskModel::Statistical }
    }
}
