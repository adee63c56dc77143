//! The configuration: one file, overrides from the environment, checked whole before anything starts.
//!
//! Each section is the `Settings` of the module that it is for; this module only knows their names. Defaults, then the
//! file, then the environment. Unknown keys are errors, and all problems are told at once, each with its line.
//! Nothing below `app` imports this module.

mod checks;
mod environment;
pub mod inspect;
pub mod reference;
pub mod reload;
mod sections;
#[cfg(test)]
mod tests;
pub mod watch;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::sections::{Address, Client, Listen, Risk, Store, Tls};
pub use crate::domain::RiskModel;
use crate::{
    admin, assertion, behavior, device,
    document::{Diagnostic, Document, Mark, Node, Source},
    extauthz, identity, location, ops, policy, revocation, session, signals, telemetry,
};

/// Everything that `countersign serve` is told.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub listen: Listen,
    pub admin: admin::Settings,
    pub store: Store,
    pub identity: identity::Settings,
    pub client: Client,
    /// Files and folders of rules, relative to the folder of this file. Folders are read whole (`*.yaml`, `*.yml`, and
    /// Cedar's `*.cedar`, `*.cedarschema`, `*.json`), in the order of their names; a file that is named must be one of these. A
    /// change is taken up without a restart, unless no rules are left by it. None: everything is refused.
    pub rules: Vec<PathBuf>,
    /// A second set of rules, tried beside `rules` on every request: files and folders as there. It decides nothing and
    /// costs requests nothing; where its answer differs, the audit record says so and `countersign_shadow_decisions`
    /// counts it. Files that cannot be used leave it out, with an error in the log.
    pub shadow_rules: Vec<PathBuf>,
    pub risk: Risk,
    pub behavior: behavior::Settings,
    pub location: location::Settings,
    pub session: session::Settings,
    pub revocation: revocation::Settings,
    pub devices: device::Settings,
    pub check: extauthz::Settings,
    pub answer: extauthz::AnswerSettings,
    pub signals: signals::Settings,
    pub assertion: assertion::Settings,
    pub audit: telemetry::audit::Settings,
    pub telemetry: telemetry::Settings,
    pub ops: ops::Settings,
}

/// Sections of later versions. Refused rather than accepted and ignored.
const NOT_YET: [&str; 3] = ["trust", "segments", "idp"];

/// The process environment, or a test's.
pub type Environment = BTreeMap<String, String>;

/// Reads `file` and the overrides in `environment`. The warnings beside a configuration are for the log and
/// `check-config`.
///
/// # Errors
///
/// Every problem, in the order of the file.
pub fn load(file: &Path, environment: &Environment) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (name, text) = read(file)?;
    let (mut config, warnings) = parse(&name, &text, environment)?;
    config.resolve(file.parent().unwrap_or(Path::new("")));
    Ok((config, warnings))
}

/// As [`load`], of text at hand; paths stay as they are written.
///
/// # Errors
///
/// Every problem, in the order of the file.
pub fn parse(name: &str, text: &str, environment: &Environment) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    let Examined { config, found, .. } = examine(name, text, environment)?;
    match config {
        Some(config) if !found.iter().any(Diagnostic::is_error) => Ok((config, found)),
        _ => Err(found),
    }
}

/// The name and the text of a file.
fn read(file: &Path) -> Result<(String, String), Vec<Diagnostic>> {
    let name = file.display().to_string();
    match fs::read_to_string(file) {
        Ok(text) => Ok((name, text)),
        Err(error) => {
            let at = Mark::whole(Source::new(name, ""));
            Err(vec![Diagnostic::error(at, "", format!("cannot be read: {}", reason(&error)))])
        }
    }
}

/// A configuration as far as it could be read, and everything that is wrong with it.
struct Examined {
    root: Node,
    config: Option<Config>,
    found: Vec<Diagnostic>,
}

fn examine(name: &str, text: &str, environment: &Environment) -> Result<Examined, Vec<Diagnostic>> {
    let mut root = Document::parse(name, text).map_err(|problem| vec![problem])?.root;
    let mut found = environment::apply(&mut root, environment);
    found.extend(checks::not_yet(&mut root, &NOT_YET));
    let (config, problems) = root.salvage::<Config>("");
    found.extend(problems);
    let checked = config.as_ref().map(checks::all).unwrap_or_default();
    let fresh: Vec<_> = checked.into_iter().filter(|problem| !follows(&problem.path, &found)).collect();
    found.extend(fresh.into_iter().map(|problem| root.diagnose("", problem)));
    Diagnostic::sort(&mut found);
    Ok(Examined { root, config, found })
}

/// Whether what stands at `path` was itself not read, so that a default was checked in its place.
fn follows(path: &str, found: &[Diagnostic]) -> bool {
    let within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    found.iter().any(|error| !error.path.is_empty() && (within(path, &error.path) || within(&error.path, path)))
}

/// An I/O error without its number.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

impl Config {
    /// What the rules must know of the rest of the configuration.
    pub fn rule_options(&self) -> policy::Options {
        let location = self.location.is_configured();
        let countries = location && self.location.databases.city.is_some();
        let reverify = self.session.reverify.is_on();
        let allowed_countries = location && !self.location.allowed_countries.is_empty();
        let claims = self.identity.issuers.iter().flat_map(|issuer| &issuer.attributes);
        let claims = claims.map(|name| name.as_str().into()).collect();
        let known_networks = Some(self.location.known_networks.keys().map(|name| name.as_str().into()).collect());
        let domains = &self.identity.workloads.trust_domains;
        let asked = &self.identity.acr_values;
        let acr_values = policy::model::AcrValues {
            mfa: asked.mfa.as_str().into(),
            phishing_resistant: asked.phishing_resistant.as_str().into(),
            hardware: asked.hardware.as_str().into(),
        };
        policy::Options {
            risk_model: self.risk.model,
            reverify,
            audit: self.audit.sink != telemetry::audit::Sink::None,
            location,
            countries,
            allowed_countries,
            known_networks,
            claims,
            issuers: self.identity.issuers.iter().map(|issuer| issuer.issuer.as_str().into()).collect(),
            trust_domains: domains.iter().map(|domain| format!("spiffe://{domain}").into()).collect(),
            acr_values,
        }
    }

    /// What revocation is told: nothing is forgotten while a token that some issuer may sign still lives.
    pub fn revocation_settings(&self) -> revocation::Settings {
        let mut settings = self.revocation.clone();
        settings.max_lifetime = settings.max_lifetime.get().max(self.identity.longest_life()).into();
        settings
    }

    /// Reads and loads the rules that the configuration names, with what is odd about them.
    ///
    /// # Errors
    ///
    /// Every problem of every file.
    pub fn load_rules(&self) -> Result<(policy::Loaded, Vec<policy::SourceFile>), Vec<Diagnostic>> {
        let files = reload::read(&self.rules)?;
        let loaded = reload::load(&self.rules, &files, &self.rule_options())?;
        Ok((loaded, files))
    }

    /// As [`Config::load_rules`], of the shadow rules; `None` where there are none.
    ///
    /// # Errors
    ///
    /// Every problem of every file.
    pub fn load_shadow_rules(&self) -> Result<Option<policy::Loaded>, Vec<Diagnostic>> {
        if self.shadow_rules.is_empty() {
            return Ok(None);
        }
        let files = reload::read(&self.shadow_rules)?;
        reload::load(&self.shadow_rules, &files, &self.rule_options()).map(Some)
    }

    /// Where the admin token is kept: as configured, else in the folder of a file store, else where such state goes.
    pub fn state_dir(&self) -> Option<PathBuf> {
        if let Some(configured) = &self.admin.state_dir {
            return Some(configured.clone());
        }
        let usual = admin::state_dir();
        let Some(store) = self.store.folder() else { return usual };
        // Earlier versions made it there whatever the store: such a token stays in use.
        let made_before =
            |usual: &PathBuf| matches!((admin::holds_token(usual), admin::holds_token(&store)), (Ok(true), Ok(false)));
        Some(usual.filter(made_before).unwrap_or_else(|| store.clone()))
    }

    /// Whether others than this machine's users must say who they are to administer.
    pub fn admin_is_guarded(&self) -> bool {
        let certificates = self.listen.admin_tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        certificates || !self.admin.tokens.is_empty()
    }

    /// Makes relative paths relative to the folder of the configuration file instead of the working directory.
    fn resolve(&mut self, folder: &Path) {
        let here = |path: &mut PathBuf| {
            if path.is_relative() {
                *path = folder.join(&path);
            }
        };
        self.rules.iter_mut().chain(&mut self.shadow_rules).for_each(here);
        for tls in [&mut self.listen.authz_tls, &mut self.listen.admin_tls].into_iter().flatten() {
            here(&mut tls.certificate);
            here(&mut tls.key);
            tls.client_ca.iter_mut().for_each(here);
        }
        for jwks in self.identity.issuers.iter_mut().filter_map(|issuer| issuer.jwks.as_mut()) {
            if !jwks.contains("://") && Path::new(jwks).is_relative() {
                *jwks = folder.join(&jwks).display().to_string();
            }
        }
        let transmitters = self.signals.transmitters.iter_mut().filter_map(|known| known.jwks.as_mut());
        let providers = self.signals.logout.iter_mut().filter_map(|known| known.jwks.as_mut());
        for jwks in transmitters.chain(providers) {
            if !jwks.contains("://") && Path::new(jwks).is_relative() {
                *jwks = folder.join(&jwks).display().to_string();
            }
        }
        self.identity.key_sets.ca_file.iter_mut().for_each(here);
        self.devices.authorities.iter_mut().for_each(here);
        let enrollment = &mut self.devices.enrollment;
        [&mut enrollment.authority, &mut enrollment.authority_key].into_iter().flatten().for_each(here);
        self.admin.state_dir.iter_mut().for_each(here);
        self.admin.tokens.iter_mut().filter_map(|token| token.file.as_mut()).for_each(here);
        let location = &mut self.location;
        let databases = &mut location.databases;
        [&mut databases.city, &mut databases.asn, &mut databases.anonymous].into_iter().flatten().for_each(here);
        let lists = &mut location.lists;
        [&mut lists.vpn, &mut lists.hosting, &mut lists.tor].into_iter().flatten().for_each(here);
        self.audit.directory.iter_mut().for_each(here);
        self.audit.key.iter_mut().for_each(here);
        self.telemetry.traces.ca.iter_mut().for_each(here);
    }
}
