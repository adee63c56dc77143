//! What in the `identity:` section would refuse a start, with its place; and what the address of a key set may be.

use std::{path::PathBuf, time::Duration};

use url::{Position, Url};

use super::{
    super::{peer::is_trust_domain, text::is_clean},
    DpopSettings, IntrospectionSettings, IssuerSettings, KeySetSettings, Settings, WorkloadSettings, XfccTrust,
};

/// Fewer octets of a secret can be guessed.
const MIN_SECRET: usize = 16;

/// No two clocks that anybody looks after differ by more.
const MAX_SKEW: Duration = Duration::from_secs(300);

/// Fetches that follow one another faster are a flood, and ours.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// Whatever waits for keys waits for a fetch that hangs.
const MAX_FETCH: Duration = Duration::from_secs(60);

/// Tokens or questions that may wait: more than memory holds.
const MAX_QUEUE: usize = 16_000_000;

/// More threads than any machine has cores.
const MAX_VERIFIERS: usize = 1024;

impl IssuerSettings {
    fn problems(&self, at: &str, found: &mut Vec<Problem>) {
        let mut say = |member: &str, message: &str| found.push(Problem::new(format!("{at}.{member}"), message));
        if !is_clean(&self.issuer) {
            say("issuer", "must be the `iss` of its tokens");
        }
        if self.audiences.is_empty() {
            say("audiences", "must name at least one audience: without one, any token of this issuer would do");
        }
        if self.audiences.iter().any(|audience| !is_clean(audience) || audience == "*") {
            say("audiences", "each must be an exact value");
        }
        if self.algorithms.is_empty() {
            say("algorithms", "must name at least one algorithm");
        }
        if self.token_types.is_empty() {
            say("token_types", "must name at least one `typ`");
        }
        if self.leeway.get() > MAX_SKEW {
            say("leeway", "is for clocks that differ a little: at most 5m");
        }
        if self.max_lifetime.get().is_zero() {
            say("max_lifetime", "must be longer than nothing");
        }
        match &self.jwks {
            Some(place) => {
                if let Err(message) = KeyPlace::parse(place) {
                    say("jwks", &message);
                }
            }
            None if self.introspection.is_some() => {}
            None => {
                if let Err(message) = fetchable(&self.issuer) {
                    say("jwks", &format!("is absent, so keys are discovered from the issuer, which {message}"));
                }
            }
        }
        for (i, prefix) in self.status_lists.iter().enumerate() {
            if let Err(message) = fetchable(prefix) {
                say(&format!("status_lists[{i}]"), &message);
            }
        }
        if !self.status_lists.is_empty() && self.jwks.is_none() && self.introspection.is_some() {
            say("status_lists", "needs `jwks` beside `introspection`: without keys no list can be verified");
        }
        if let Some(introspection) = &self.introspection {
            introspection.problems(say);
        }
    }
}

impl IntrospectionSettings {
    fn problems(&self, mut say: impl FnMut(&str, &str)) {
        if let Err(message) = fetchable(&self.endpoint) {
            say("introspection.endpoint", &message);
        }
        if self.life.get().is_zero() {
            say("introspection.life", "must be longer than nothing: an answer would be over as soon as it is there");
        }
        if !(1..=MAX_QUEUE).contains(&self.concurrency) {
            say("introspection.concurrency", &format!("must be at least 1 and at most {MAX_QUEUE}"));
        }
    }
}

impl DpopSettings {
    fn problems(&self, found: &mut Vec<Problem>) {
        let mut say = |member: &str, message: &str| found.push(Problem::new(format!("dpop.{member}"), message));
        if self.enabled && self.algorithms.is_empty() {
            say("algorithms", "must name at least one algorithm");
        }
        if self.window.get() < Duration::from_secs(1) || self.window.get() > Duration::from_secs(3600) {
            say("window", "must be between 1s and 1h");
        }
        if self.skew.get() > MAX_SKEW {
            say("skew", "is for clocks that differ a little: at most 5m");
        }
        if self.nonce_secret.as_ref().is_some_and(|secret| secret.expose().len() < MIN_SECRET) {
            say("nonce_secret", &format!("must be at least {MIN_SECRET} octets"));
        }
        let scheme = self.external_scheme.as_ref().map(|scheme| scheme.to_ascii_lowercase());
        if !matches!(scheme.as_deref(), None | Some("http" | "https")) {
            say("external_scheme", "must be http or https");
        }
        if self.external_host.as_ref().is_some_and(|host| !is_host(host)) {
            say("external_host", "must be a host, with a port where it is not the usual one: no scheme, no path");
        }
    }
}

impl KeySetSettings {
    fn problems(&self, found: &mut Vec<Problem>) {
        let mut say = |member: &str, message: &str| found.push(Problem::new(format!("key_sets.{member}"), message));
        for (member, pause) in
            [("refresh", self.refresh), ("min_refresh", self.min_refresh), ("cooldown", self.cooldown)]
        {
            if pause.get() < MIN_PAUSE {
                say(member, "must be at least 1s: issuers would be asked without a pause");
            }
        }
        if self.max_age.get() < self.refresh.get().saturating_mul(2) {
            say("max_age", "must be at least twice `refresh`: one fetch that fails would refuse every token");
        }
        if self.timeout.get().is_zero() || self.timeout.get() > MAX_FETCH {
            say("timeout", "must be longer than nothing and at most 1m");
        }
    }
}

impl WorkloadSettings {
    fn problems(&self, found: &mut Vec<Problem>) {
        for (i, domain) in self.trust_domains.iter().enumerate() {
            if !is_trust_domain(domain) {
                let message = "must be the name alone: lower-case letters, digits, `-`, `.` and `_`";
                found.push(Problem::new(format!("workloads.trust_domains[{i}]"), message));
            }
        }
        if let XfccTrust::Hops { count, by } = &self.xfcc
            && (*count == 0 || by.is_empty())
        {
            found.push(Problem::new("workloads.xfcc.hops", "needs a count of at least 1 and the `by` of that proxy"));
        }
    }
}

/// Something about the settings that refuses a start, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Problem {
    /// Relative to `identity`, such as `issuers[0].audiences`.
    pub path: String,
    pub message: String,
}

impl Problem {
    fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl Settings {
    /// The longest time that a token can still be taken: until its issuer's leeway after an end that lies, by that leeway
    /// again, beyond its longest life.
    pub fn longest_life(&self) -> Duration {
        let lives = self.issuers.iter().map(|issuer| issuer.max_lifetime.get().saturating_add(issuer.leeway.get() * 2));
        lives.max().unwrap_or_default()
    }

    /// Everything that refuses a start, all at once.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        for (i, issuer) in self.issuers.iter().enumerate() {
            issuer.problems(&format!("issuers[{i}]"), &mut found);
            if self.issuers[..i].iter().any(|other| other.issuer == issuer.issuer) {
                found.push(Problem::new(format!("issuers[{i}].issuer"), "stands twice"));
            }
        }
        if self.issuers.iter().filter(|issuer| issuer.introspection.is_some()).count() > 1 {
            found.push(Problem::new(
                "issuers",
                "only one may have `introspection`: an opaque token does not say whose it is, and must not be shown to others",
            ));
        }
        self.dpop.problems(&mut found);
        self.key_sets.problems(&mut found);
        if self.realm.contains(['"', '\\']) || !is_clean(&self.realm) || !self.realm.is_ascii() {
            found.push(Problem::new("realm", "must be plain printable text without quotes"));
        }
        let acr = [&self.acr_values.mfa, &self.acr_values.phishing_resistant, &self.acr_values.hardware];
        if acr.iter().any(|value| value.contains(['"', '\\']) || !is_clean(value) || !value.is_ascii()) {
            found.push(Problem::new("acr_values", "must be plain printable text without quotes"));
        }
        if !(1..=MAX_QUEUE).contains(&self.queue) {
            found.push(Problem::new("queue", format!("must be at least 1 and at most {MAX_QUEUE}")));
        }
        if self.verifiers > MAX_VERIFIERS {
            found.push(Problem::new("verifiers", format!("must be at most {MAX_VERIFIERS}")));
        }
        if self.cache.size_mib == 0 {
            found.push(Problem::new("cache.size_mib", "must be at least 1"));
        }
        self.workloads.problems(&mut found);
        found
    }
}

/// Whether `text` is what stands between scheme and path of an address.
fn is_host(text: &str) -> bool {
    let alone = |url: Url| url[..Position::BeforeHost] == *"https://" && url[Position::AfterPort..] == *"/";
    is_clean(text) && Url::parse(&format!("https://{text}/")).is_ok_and(alone)
}

/// Where a key set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::identity) enum KeyPlace {
    File(PathBuf),
    Url(Url),
}

impl KeyPlace {
    pub(in crate::identity) fn parse(text: &str) -> Result<Self, String> {
        if !text.contains("://") {
            return Ok(Self::File(text.into()));
        }
        let Some(url) = Url::parse(text).ok().filter(|url| url.scheme() == "file") else {
            return fetchable(text).map(Self::Url);
        };
        let plain = url.query().is_none() && url.fragment().is_none();
        let path = url.to_file_path().ok().filter(|_| plain);
        path.map(Self::File).ok_or_else(|| {
            "must name a file by its absolute path, `file:///etc/keys.json`, or without `file://`".to_owned()
        })
    }
}

/// An address that may be fetched: https, or http on loopback; no credentials in it.
pub(in crate::identity) fn fetchable(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("is not an address: {e}"))?;
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold credentials".into());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        _ => Err("must be https (http is only for loopback)".into()),
    }
}

/// An address that other modules' settings name and that is fetched by the same rules as key sets.
///
/// # Errors
///
/// What is wrong with it, for the operator.
pub fn check_address(text: &str) -> Result<Url, String> {
    fetchable(text)
}

/// The file of a key set that settings name; `None`: an address.
///
/// # Errors
///
/// What is wrong with it, for the operator.
pub fn key_file(text: &str) -> Result<Option<PathBuf>, String> {
    KeyPlace::parse(text).map(|place| match place {
        KeyPlace::File(path) => Some(path),
        KeyPlace::Url(_) => None,
    })
}
