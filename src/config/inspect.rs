//! Everything that is wrong with a configuration, its rules and the files it names, without starting anything.
//!
//! For `check-config`, but for [`out_of_time`]: `serve` stops at what it meets first, and client commands read the
//! configuration of a server whose files may lie on another machine.

mod files;
mod roles;

use std::path::{Path, PathBuf};

use super::{Config, Environment, examine, read, reload};
use crate::{
    document::{Diagnostic, Mark, Problem, Severity, Source},
    policy::{Options, Rules},
    telemetry,
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
    let wrong = environment.get("RUST_LOG").and_then(|level| telemetry::log::of_variable(level).err());
    let place = || Mark::whole(Source::new("environment variable RUST_LOG", ""));
    found.extend(wrong.map(|error| Diagnostic::error(place(), "", error.to_string())));
    if let Some(mut config) = examined.config {
        config.resolve(file.parent().unwrap_or(Path::new("")));
        let (of_rules, loaded) = rules(&config.rules, &config.rule_options());
        let mut problems = files::unusable(&config);
        problems.extend(loaded.iter().flat_map(|rules| roles::unknown(&config, rules)));
        found.extend(problems.into_iter().map(|problem| examined.root.diagnose("", problem)));
        Diagnostic::sort(&mut found);
        found.extend(of_rules);
        found.extend(rules(&config.shadow_rules, &config.rule_options()).0);
    }
    let refused = found.iter().any(Diagnostic::is_error);
    Inspection { found, refused }
}

/// Certificates of ports that are out of their time, of those that can be read from here.
pub fn out_of_time(config: &Config) -> Vec<Problem> {
    files::tls(config).into_iter().filter(|problem| problem.severity == Severity::Warning).collect()
}

/// What is wrong with rules and what is odd about them; and they themselves, where they could be read whole. A path that
/// cannot be read does not hide what the others hold.
fn rules(paths: &[PathBuf], options: &Options) -> (Vec<Diagnostic>, Option<Rules>) {
    let (mut files, mut found) = (Vec::new(), Vec::new());
    for path in paths {
        match reload::read(std::slice::from_ref(path)) {
            Ok(read) => files.extend(read),
            Err(problems) => found.extend(problems),
        }
    }
    // Of what could not be read nobody knows whether it holds a resource, or a role.
    let whole = found.is_empty();
    match reload::load(if whole { paths } else { &[] }, &files, options) {
        Ok(loaded) => {
            found.extend(loaded.warnings);
            (found, Some(loaded.rules).filter(|_| whole))
        }
        Err(problems) => {
            found.extend(problems);
            (found, None)
        }
    }
}
