//! Everything that is wrong with a configuration, its rules and the files it names, without starting anything.
//!
//! For `check-config` alone: `serve` stops at what it meets first, and client commands read the configuration of a server
//! whose files may lie on another machine.

use std::path::{Path, PathBuf};

use super::{Config, Environment, examine, read, reload};
use crate::{
    document::{Diagnostic, Problem},
    policy::{self, Options},
};

/// What there is to say, and whether `serve` would refuse to start.
#[derive(Debug)]
pub struct Inspection {
    pub found: Vec<Diagnostic>,
    pub refused: bool,
}

/// Looks at `file`, the overrides in `environment`, the rules and the files that they name. Where the configuration itself
/// has errors, the rest is judged by what could be read of it.
pub fn inspect(file: &Path, environment: &Environment) -> Inspection {
    let examined = read(file).and_then(|(name, text)| examine(&name, &text, environment));
    let examined = match examined {
        Ok(examined) => examined,
        Err(found) => return Inspection { found, refused: true },
    };
    let mut found = examined.found;
    if let Some(mut config) = examined.config {
        config.resolve(file.parent().unwrap_or(Path::new("")));
        let missing = files(&config).into_iter().map(|problem| examined.root.diagnose("", problem));
        found.extend(missing);
        Diagnostic::sort(&mut found);
        found.extend(rules(&config.rules, config.rule_options()));
        found.extend(rules(&config.shadow_rules, config.rule_options()));
    }
    let refused = found.iter().any(Diagnostic::is_error);
    Inspection { found, refused }
}

/// What is wrong with rules and what is odd about them. A path that cannot be read does not hide what the others hold.
fn rules(paths: &[PathBuf], options: Options) -> Vec<Diagnostic> {
    let (mut files, mut found) = (Vec::new(), Vec::new());
    for path in paths {
        match reload::read(std::slice::from_ref(path)) {
            Ok(read) => files.extend(read),
            Err(problems) => found.extend(problems),
        }
    }
    found.extend(policy::load(&files, options).map_or_else(|problems| problems, |loaded| loaded.warnings));
    found
}

/// Files that are named and not there: an error where the start fails without them, else a warning.
fn files(config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut needed = |path: String, file: &Path| found.extend(absent(file).map(|said| Problem::error(path, said)));
    for (name, tls) in [("authz_tls", &config.listen.authz_tls), ("admin_tls", &config.listen.admin_tls)] {
        let Some(tls) = tls else { continue };
        needed(format!("listen.{name}.certificate"), &tls.certificate);
        needed(format!("listen.{name}.key"), &tls.key);
        tls.client_ca.iter().for_each(|file| needed(format!("listen.{name}.client_ca"), file));
    }
    for (i, token) in config.admin.tokens.iter().enumerate() {
        token.file.iter().for_each(|file| needed(format!("admin.tokens[{i}].file"), file));
    }
    for (i, file) in config.devices.authorities.iter().enumerate() {
        needed(format!("devices.authorities[{i}]"), file);
    }
    config.audit.directory.iter().for_each(|folder| needed("audit.directory".into(), folder));
    for (i, issuer) in config.identity.issuers.iter().enumerate() {
        let file = issuer.jwks.as_deref().filter(|jwks| !jwks.contains("://")).map(Path::new);
        let said = file.and_then(absent).map(|said| format!("{said}: not ready until it is"));
        found.extend(said.map(|said| Problem::warning(format!("identity.issuers[{i}].jwks"), said)));
    }
    let location = &config.location;
    let databases = [
        ("city", &location.databases.city),
        ("asn", &location.databases.asn),
        ("anonymous", &location.databases.anonymous),
    ];
    let mut places = |path: String, file: &Path| {
        let said = absent(file).map(|said| format!("{said}: places are unknown until it is"));
        found.extend(said.map(|said| Problem::warning(path, said)));
    };
    for (name, file) in databases {
        file.iter().for_each(|file| places(format!("location.databases.{name}"), file));
    }
    let lists = &location.lists;
    for (name, files) in [("vpn", &lists.vpn), ("hosting", &lists.hosting), ("tor", &lists.tor)] {
        for (i, file) in files.iter().enumerate() {
            places(format!("location.lists.{name}[{i}]"), file);
        }
    }
    found
}

/// What to say of a file that is not there.
fn absent(file: &Path) -> Option<String> {
    file.metadata().err().map(|error| format!("`{}` cannot be read: {}", file.display(), super::reason(&error)))
}
