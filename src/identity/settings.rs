//! The `identity:` section, as the operator writes it, and everything about it that would refuse a start.

mod checks;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(super) use self::checks::{KeyPlace, fetchable};
pub use self::checks::{Problem, check_address, key_file};
use super::Algorithm;
use crate::domain::{AuthMethod, Secret, Span};

/// Who may ask, and how they prove it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Issuers of access tokens. A token of any other issuer is refused without a single request to it.
    pub issuers: Vec<IssuerSettings>,
    /// The `realm` of challenges.
    pub realm: String,
    pub acr_values: AcrValues,
    pub dpop: DpopSettings,
    pub key_sets: KeySetSettings,
    pub cache: CacheSettings,
    pub workloads: WorkloadSettings,
    /// Threads that verify signatures of tokens not seen before. 0: half of the cores, at least one.
    pub verifiers: usize,
    /// How many tokens may wait for a verifier. Beyond it the answer is 503, never 401.
    pub queue: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            issuers: Vec::new(),
            realm: "countersign".into(),
            acr_values: AcrValues::default(),
            dpop: DpopSettings::default(),
            key_sets: KeySetSettings::default(),
            cache: CacheSettings::default(),
            workloads: WorkloadSettings::default(),
            verifiers: 0,
            queue: 1024,
        }
    }
}

/// One issuer of access tokens.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerSettings {
    /// The exact `iss` of its tokens.
    pub issuer: String,
    /// What `aud` must name, at least one of them. Empty refuses to start.
    pub audiences: Vec<String>,
    /// Address (https, or http on loopback) or file path of its key set. Without it: OpenID Connect discovery; or, with
    /// `introspection`, all of its tokens are asked about, JWTs too.
    #[serde(default)]
    pub jwks: Option<String>,
    /// Signature algorithms its tokens may use. `EdDSA` and `Ed25519` (RFC 9864) are two names of one.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// `typ` of its access tokens, any case. `JWT` also means absent.
    #[serde(default = "default_token_types")]
    pub token_types: Vec<String>,
    /// Difference of clocks that is forgiven on `exp`, `nbf` and `iat`.
    #[serde(default = "default_leeway")]
    pub leeway: Span,
    /// Longest remaining life of a token.
    #[serde(default = "default_max_lifetime")]
    pub max_lifetime: Span,
    /// Roles it may assert, `*` for any run of characters. Others are dropped.
    #[serde(default = "any")]
    pub roles: Vec<String>,
    /// Permissions it may assert directly. Default: all when `roles` is `["*"]`, none otherwise.
    #[serde(default)]
    pub permissions: Option<Vec<String>>,
    #[serde(default)]
    pub claims: ClaimNames,
    /// Authentication methods that an `acr` value stands for, besides those known by themselves: `mfa` (a second factor),
    /// `phr` (one that cannot be phished, such as a passkey: `biometric`), `phrh` (the same in hardware: `hardware_key`).
    #[serde(default)]
    pub acr: BTreeMap<String, Vec<AuthMethod>>,
    /// What else marks a token as a service's, besides `client_id` (or `azp`) being its `sub`.
    #[serde(default)]
    pub services: Vec<ServiceRule>,
    /// Claims that are handed on to attribute policies.
    #[serde(default)]
    pub attributes: Vec<String>,
    /// Where its opaque tokens are asked about (RFC 7662), and its JWTs where no `jwks` is named. At most one issuer may have
    /// this. Its answers should say `iat`: where they do not, each revocation of the subject covers the token, however new it
    /// is, and without `auth_time` it is as old as its session, which no new token renews.
    #[serde(default)]
    pub introspection: Option<IntrospectionSettings>,
    /// Prefixes of addresses of its status lists (https, or http on loopback): the same origin, and a path that begins as
    /// written. Empty: those on the issuer's own origin. With `introspection` and no `jwks` none is read: its answers stand for them.
    #[serde(default)]
    pub status_lists: Vec<String>,
}

/// What the authorization servers call the kinds of authentication that a step-up asks for (RFC 9470). What a token's
/// `acr` counts as is known by itself for the defaults; for other names `issuers[].acr` says it, unless `amr` does. A
/// token that carries a name and is not enough is not asked for that name again: 403 where nothing newer would help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AcrValues {
    /// A second factor.
    pub mfa: String,
    /// A factor that cannot be phished.
    pub phishing_resistant: String,
    /// A key in hardware.
    pub hardware: String,
}

impl Default for AcrValues {
    fn default() -> Self {
        Self { mfa: "mfa".into(), phishing_resistant: "phr".into(), hardware: "phrh".into() }
    }
}

/// A claim that marks a service.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceRule {
    /// Name of the claim, such as `gty` or `preferred_username`.
    pub claim: String,
    /// Its value, `*` for any run of characters.
    pub value: String,
}

/// Which claims are read for what. A name that is not a claim itself is tried as a dotted path: `realm_access.roles`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClaimNames {
    /// An array of strings.
    pub roles: String,
    /// An array of strings.
    pub permissions: String,
    /// An array of RFC 8176 values.
    pub methods: String,
    pub session: String,
    /// The device that the token belongs to, and therefore owes.
    pub device: String,
    /// Empty: the SHA-256 of the token is its id. With ECDSA, whoever holds a token can spell its signature in two
    /// ways; revoke such tokens by session or subject.
    pub token_id: String,
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self {
            roles: "roles".into(),
            permissions: "permissions".into(),
            methods: "amr".into(),
            session: "sid".into(),
            device: "device_id".into(),
            token_id: "jti".into(),
        }
    }
}

/// Proof of possession of a key (RFC 9449).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DpopSettings {
    /// Off: the scheme `DPoP` is unknown, and a token bound to a key is refused.
    pub enabled: bool,
    pub algorithms: Vec<Algorithm>,
    /// Age of a proof that is still accepted; also how long it is remembered.
    pub window: Span,
    /// How far in the future a proof may have been made: at most 5m.
    pub skew: Span,
    /// Demand a nonce of ours in each proof.
    pub nonce: bool,
    /// Secret that nonces are made from (at least 16 octets), the same on all replicas. Without it, each replica knows only its own.
    pub nonce_secret: Option<Secret>,
    /// Scheme (`http` or `https`) under which clients reach Envoy, where it differs from what Envoy sees.
    pub external_scheme: Option<String>,
    /// Host, with its port where that is not the usual one, under which clients reach Envoy, where it differs from what Envoy sees.
    pub external_host: Option<String>,
}

impl Default for DpopSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            algorithms: vec![Algorithm::ES256, Algorithm::EdDsa],
            window: Duration::from_secs(60).into(),
            skew: Duration::from_secs(5).into(),
            nonce: false,
            nonce_secret: None,
            external_scheme: None,
            external_host: None,
        }
    }
}

/// How key sets are fetched and for how long they are relied on.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeySetSettings {
    /// Longest time between two fetches; `Cache-Control` may shorten it. A key taken out at the issuer is refused here
    /// after at most this time. At least 1s.
    pub refresh: Span,
    /// Shortest time between two fetches that follow the clock: at least 1s.
    pub min_refresh: Span,
    /// For how long the last good set is used when no newer one can be had: at least twice `refresh`.
    pub max_age: Span,
    /// Shortest time between two fetches that an unknown `kid` causes, for each issuer: at least 1s.
    pub cooldown: Span,
    /// Time limit of one fetch: at most 1m.
    pub timeout: Span,
    /// Certificates (PEM) to trust besides those of the system.
    pub ca_file: Option<std::path::PathBuf>,
}

impl Default for KeySetSettings {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(300).into(),
            min_refresh: Duration::from_secs(10).into(),
            max_age: Duration::from_secs(86_400).into(),
            cooldown: Duration::from_secs(10).into(),
            timeout: Duration::from_secs(5).into(),
            ca_file: None,
        }
    }
}

/// What is remembered of tokens.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheSettings {
    /// Bound on verified tokens with their facts, in MiB.
    pub size_mib: u64,
    /// How many refused tokens are remembered, and for how long: a small cache of its own.
    pub refused: u64,
    pub refused_life: Span,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { size_mib: 128, refused: 10_000, refused_life: Duration::from_secs(5).into() }
    }
}

/// Identities of workloads, as mutual TLS proves them.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadSettings {
    /// SPIFFE trust domains (`td.example`, without `spiffe://`) whose workloads are identities by themselves, without a
    /// token. Empty: none. Of a certificate that Envoy sends (`include_peer_certificate: true`) its URIs are looked at; else
    /// Envoy's word counts, which is a DNS name where a certificate has no URI: sign no unchecked names.
    pub trust_domains: Vec<String>,
    /// Roles by SPIFFE id, `*` for any run of characters.
    pub roles: BTreeMap<String, Vec<String>>,
    /// Whether `x-forwarded-client-cert` may be believed. Default: never.
    pub xfcc: XfccTrust,
}

/// When `x-forwarded-client-cert` is believed. Without `hops`, Envoy's own `source.principal` and `source.certificate` come first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum XfccTrust {
    #[default]
    Never,
    /// The Envoy in front sets it anew (`forward_client_cert_details: SANITIZE_SET`): exactly one element. It names the peer
    /// where Envoy tells none, and the hash of its certificate where Envoy tells the peer and sends no certificate.
    SanitizeSet,
    /// A proxy calls over mutual TLS, and the peer is its client: the element that `count` and `by` name. Where there is none
    /// (a client without a certificate), or where anybody else calls, even by a certificate of its own, there is no workload.
    Hops {
        /// From the right: 1 is the last element, where the Envoy that asks has `FORWARD_ONLY`; 2 where it has
        /// `APPEND_FORWARD`, as it adds an element about the proxy.
        count: usize,
        /// The proxy by its URI SAN: `source.principal` of the connection, and the `By` of the element.
        by: String,
    },
}

/// Token introspection (RFC 7662).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IntrospectionSettings {
    pub endpoint: String,
    pub client_id: String,
    pub client_secret: Secret,
    /// For how long "active" is believed without asking again: how late a revocation at the issuer may bite. Of a token that is
    /// in use it is asked for again from four fifths of it on, so that no request waits.
    #[serde(default = "default_introspection_life")]
    pub life: Span,
    /// How many questions may be under way at once, a quarter of them about tokens that were active a moment ago. Beyond it
    /// a token waits for its turn as long as its check may take; then the answer is 503.
    #[serde(default = "default_introspection_concurrency")]
    pub concurrency: usize,
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDsa]
}

fn default_token_types() -> Vec<String> {
    vec!["at+jwt".into(), "JWT".into()]
}

fn default_leeway() -> Span {
    Duration::from_secs(30).into()
}

fn default_max_lifetime() -> Span {
    Duration::from_secs(86_400).into()
}

fn any() -> Vec<String> {
    vec!["*".into()]
}

fn default_introspection_life() -> Span {
    Duration::from_secs(30).into()
}

const fn default_introspection_concurrency() -> usize {
    32
}

impl IssuerSettings {
    /// An issuer with everything at its default.
    pub fn new(issuer: impl Into<String>, audiences: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            issuer: issuer.into(),
            audiences: audiences.into_iter().map(Into::into).collect(),
            jwks: None,
            algorithms: default_algorithms(),
            token_types: default_token_types(),
            leeway: default_leeway(),
            max_lifetime: default_max_lifetime(),
            roles: any(),
            permissions: None,
            claims: ClaimNames::default(),
            acr: BTreeMap::new(),
            services: Vec::new(),
            attributes: Vec::new(),
            introspection: None,
            status_lists: Vec::new(),
        }
    }
}
