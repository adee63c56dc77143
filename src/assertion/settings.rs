//! The `assertion` section of the configuration.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::{Secret, Span, host::canonical_host};

/// Fewer characters of a secret can be guessed.
const MIN_SECRET: usize = 32;

/// The signed statement for upstreams (`x-zt-assertion`): who asks, from which device, how far trusted, under which restrictions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `false`: no header, no keys.
    pub enabled: bool,
    /// The `iss` claim, which upstreams compare.
    pub issuer: String,
    /// `EdDSA` (Ed25519, the cheaper one) or `ES256` (where an upstream's library knows no EdDSA).
    pub algorithm: Algorithm,
    /// How long an assertion is valid.
    pub life: Span,
    /// The `aud` claim by host of the request; a host that is not named is its own audience.
    pub audiences: BTreeMap<String, String>,
    /// How often a new key is made. The next one is published one period ahead, the last one for one period after.
    pub rotation: Span,
    /// Replicas share keys through the store, sealed with this secret (at least 32 characters, the same on every replica).
    /// Without it they are kept there in clear: whoever can read the store can then sign as Countersign.
    pub secret: Option<Secret>,
    /// What else opens keys in the store: while a secret changes, the one before and the one to come, so that all replicas
    /// sign with the same keys and publish them. An empty one stands for keys in clear. Whoever knows one of these and can
    /// write to the store can sign as Countersign: take them out when the change is two `rotation`s old.
    pub other_secrets: Vec<Secret>,
    /// How many assertions are kept for reuse.
    pub cache_entries: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    #[default]
    EdDSA,
    ES256,
    /// For what receivers of security events demand; not for assertions.
    #[serde(skip)]
    RS256,
}

impl Algorithm {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EdDSA => "EdDSA",
            Self::ES256 => "ES256",
            Self::RS256 => "RS256",
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            issuer: "countersign".into(),
            algorithm: Algorithm::EdDSA,
            life: Duration::from_secs(60).into(),
            audiences: BTreeMap::new(),
            rotation: Duration::from_secs(24 * 3600).into(),
            secret: None,
            other_secrets: Vec::new(),
            cache_entries: 100_000,
        }
    }
}

impl Settings {
    /// What does not fit together, for `check-config`: name of the field and why.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.issuer.trim().is_empty() {
            problems.push(("issuer", "must not be empty".into()));
        }
        if !(Duration::from_secs(10)..=Duration::from_secs(600)).contains(&self.life.get()) {
            problems.push(("life", "must be between 10s and 10m".into()));
        }
        if self.rotation.get() < Duration::from_secs(600).max(2 * self.life.get()) {
            problems.push(("rotation", "must be at least 10m and twice `life`".into()));
        }
        if self.secret.as_ref().is_some_and(|secret| secret.expose().len() < MIN_SECRET) {
            problems.push(("secret", format!("must be at least {MIN_SECRET} characters")));
        }
        if self.other_secrets.iter().any(|secret| (1..MIN_SECRET).contains(&secret.expose().len())) {
            let message = format!("each must be at least {MIN_SECRET} characters, or empty for keys in clear");
            problems.push(("other_secrets", message));
        }
        if self.audiences.values().any(String::is_empty) {
            problems.push(("audiences", "an audience must not be empty".into()));
        }
        for host in self.audiences.keys() {
            match canonical_host(host) {
                Some(canonical) if canonical == *host => {}
                Some(canonical) => {
                    problems.push(("audiences", format!("`{host}` is never found: write `{canonical}`")));
                }
                None => problems.push(("audiences", format!("`{host}` is no host"))),
            }
        }
        problems
    }
}
