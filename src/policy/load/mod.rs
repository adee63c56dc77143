//! Reads rules from the text of their files: all files merged into one set, or every problem with its line.
//!
//! Opens nothing: the caller hands in names and text, YAML and Cedar alike. What loads is enforced or handed on as a
//! named restriction; what is not understood is refused, never skipped.

mod convert;
mod file;
mod places;
mod raw;
mod warnings;

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use serde::de::DeserializeOwned;

pub use self::{
    file::{OF_CASES, SourceFile},
    warnings::country_warning,
};
use super::{
    attribute::{self, AttributePolicies},
    build::{self, List, Part},
    model::{Defaults, Guard, Options, Policy, RuleSet, SessionRule},
    rules::Rules,
};
use crate::document::{Diagnostic, Document, Entry, Mark, Node, Problem, Source, Value, closest};

/// Rules that loaded, and what is odd about them.
#[derive(Debug)]
pub struct Loaded {
    pub rules: Rules,
    pub warnings: Vec<Diagnostic>,
}

const SECTIONS: [&str; 7] = ["defaults", "guards", "sessions", "resources", "roles", "policies", "cedar"];

/// Loads rules from all `files` together.
///
/// # Errors
///
/// Every problem of every file, in the order a reader meets them.
pub fn load(files: &[SourceFile], options: Options) -> Result<Loaded, Vec<Diagnostic>> {
    let mut loader = Loader::default();
    loader.problems.extend(files.iter().filter(|file| file.is_blank()).map(SourceFile::blank));
    let documents: Vec<Document> = files.iter().filter_map(|file| loader.parse(file)).collect();
    for document in &documents {
        loader.document(document);
    }
    let attributes = loader.attributes(files, &options);
    loader.finish(files, attributes, options)
}

/// Where an item of a list was written.
#[derive(Clone, Debug)]
struct Origin<'d> {
    node: &'d Node,
    path: String,
}

#[derive(Default)]
struct Loader<'d> {
    set: RuleSet,
    problems: Vec<Diagnostic>,
    guards: Vec<Origin<'d>>,
    sessions: Vec<Origin<'d>>,
    resources: Vec<Origin<'d>>,
    policies: Vec<Origin<'d>>,
    roles: BTreeMap<Arc<str>, Origin<'d>>,
    defaults: Option<Mark>,
    /// Some file has a `guards:` section, be it an empty one.
    guards_given: bool,
    /// The same of `sessions:`.
    sessions_given: bool,
    /// Such a section, be it one that cannot be read.
    cedar: Option<(Option<raw::Cedar>, Origin<'d>)>,
}

impl<'d> Loader<'d> {
    fn parse(&mut self, file: &SourceFile) -> Option<Document> {
        if !file.is_yaml() || file.is_blank() {
            return None;
        }
        Document::parse(file.name.clone(), file.text.clone()).map_err(|problem| self.problems.push(problem)).ok()
    }

    fn document(&mut self, document: &'d Document) {
        let root = &document.root;
        if file::has_cases(root) {
            return self.cases(root);
        }
        if !matches!(root.value, Value::Map(_) | Value::Null) {
            let message = format!("expected a map, found {}", root.kind());
            self.problems.push(Diagnostic::error(root.at.clone(), "", message));
        }
        for entry in root.entries() {
            let origin = Origin { node: &entry.node, path: entry.key.to_string() };
            match &*entry.key {
                "defaults" => self.defaults(&origin),
                "guards" => {
                    self.guards_given = true;
                    self.list(&origin, Self::guard);
                }
                "sessions" => {
                    self.sessions_given = true;
                    self.list(&origin, Self::session);
                }
                "resources" => self.list(&origin, Self::resource),
                "policies" => self.list(&origin, Self::policy),
                "roles" => self.role_map(&origin),
                "cedar" => self.cedar(origin),
                other => {
                    let hint = closest(other, SECTIONS).map_or_else(
                        || format!("known here: {}", SECTIONS.join(", ")),
                        |near| format!("did you mean `{near}`?"),
                    );
                    let problem = Diagnostic::error(entry.key_at.clone(), other, format!("unknown key `{other}`"));
                    self.problems.push(problem.hint(hint));
                }
            }
        }
    }

    /// A file of cases holds no rules. Where it seems to, they are refused: left out, they would guard nothing.
    fn cases(&mut self, root: &Node) {
        let refuse = |entry: &Entry| {
            let message = format!("`{}` beside `cases`: rules and cases may not stand in one file", entry.key);
            Diagnostic::error(entry.key_at.clone(), &*entry.key, message).hint("move the cases to a file of their own")
        };
        self.problems.extend(file::foreign(root).map(refuse));
    }

    fn read<T: DeserializeOwned>(&mut self, origin: &Origin<'_>) -> Option<T> {
        let read = origin.node.read_into(&origin.path, &mut self.problems);
        let mut gaps = origin.node.gaps(&origin.path);
        gaps.retain(|gap| self.problems.iter().all(|known| known.path != gap.path));
        let whole = gaps.is_empty();
        self.problems.append(&mut gaps);
        read.filter(|_| whole)
    }

    fn tell(&mut self, origin: &Origin<'_>, problems: Vec<Problem>) {
        self.problems.extend(problems.into_iter().map(|problem| origin.node.diagnose(&origin.path, problem)));
    }

    fn defaults(&mut self, origin: &Origin<'d>) {
        if let Some(before) = self.defaults.replace(origin.node.at.clone()) {
            let message = format!("`defaults` are given in {before} already");
            self.problems.push(Diagnostic::error(origin.node.at.clone(), "defaults", message));
        }
        let Some(raw) = self.read::<raw::Defaults>(origin) else { return };
        let own = Defaults::default();
        self.set.defaults = Defaults {
            min_trust_level: raw.min_trust_level.unwrap_or(own.min_trust_level),
            device: raw.device.unwrap_or(own.device),
        };
    }

    fn list(&mut self, origin: &Origin<'d>, item: fn(&mut Self, Origin<'d>)) {
        match &origin.node.value {
            Value::List(items) => {
                for (i, node) in items.iter().enumerate() {
                    item(self, Origin { node, path: format!("{}[{i}]", origin.path) });
                }
            }
            _ => {
                let message = format!("expected a list, found {}", origin.node.kind());
                let problem = Diagnostic::error(origin.node.at.clone(), origin.path.clone(), message);
                self.problems.push(without_items(problem, &origin.node.value, "[]"));
            }
        }
    }

    fn guard(&mut self, origin: Origin<'d>) {
        if let Some(raw) = self.read::<raw::Guard>(&origin) {
            self.set.guards.push(convert::guard(&raw));
            self.guards.push(origin);
        }
    }

    fn session(&mut self, origin: Origin<'d>) {
        if let Some(raw) = self.read::<raw::Session>(&origin) {
            let mut problems = Vec::new();
            self.set.sessions.push(convert::session(&raw, &mut problems));
            self.tell(&origin, problems);
            self.sessions.push(origin);
        }
    }

    fn resource(&mut self, origin: Origin<'d>) {
        if let Some(raw) = self.read::<raw::Resource>(&origin) {
            let mut problems = Vec::new();
            self.set.resources.push(convert::resource(&raw, &mut problems));
            self.tell(&origin, problems);
            self.resources.push(origin);
        }
    }

    fn policy(&mut self, origin: Origin<'d>) {
        if let Some(raw) = self.read::<raw::Policy>(&origin) {
            let mut problems = Vec::new();
            self.set.policies.push(convert::policy(&raw, &mut problems));
            self.tell(&origin, problems);
            self.policies.push(origin);
        } else if let Some(Value::Text(id)) = origin.node.get("id").map(|id| &id.value) {
            // Its own problems have been told, and these rules will not load: who names it is not at fault.
            self.set.policies.push(Policy::new(id));
            self.policies.push(origin);
        }
    }

    fn role_map(&mut self, origin: &Origin<'d>) {
        if !matches!(origin.node.value, Value::Map(_)) {
            let message = format!("expected a map of roles, found {}", origin.node.kind());
            let problem = Diagnostic::error(origin.node.at.clone(), "roles", message);
            self.problems.push(without_items(problem, &origin.node.value, "{}"));
        }
        for entry in origin.node.entries() {
            let origin = Origin { node: &entry.node, path: format!("roles.{}", entry.key) };
            if let Some(before) = self.roles.get(&entry.key) {
                let message = format!("the role `{}` is defined in {} already", entry.key, before.node.at);
                self.problems.push(Diagnostic::error(entry.key_at.clone(), origin.path, message));
            } else if let Some(permissions) = self.read::<Vec<String>>(&origin) {
                let permissions = permissions.into_iter().map(Into::into).collect();
                self.set.roles.insert(entry.key.clone(), permissions);
                self.roles.insert(entry.key.clone(), origin);
            }
        }
    }

    fn cedar(&mut self, origin: Origin<'d>) {
        if let Some((_, before)) = &self.cedar {
            let message = format!("`cedar` is given in {} already", before.node.at);
            self.problems.push(Diagnostic::error(origin.node.at.clone(), "cedar", message));
        } else {
            self.cedar = Some((self.read::<raw::Cedar>(&origin), origin));
        }
    }

    /// The attribute policies that `cedar:` names, where there is such a section.
    fn attributes(&mut self, files: &[SourceFile], options: &Options) -> Option<AttributePolicies> {
        let Some((raw, origin)) = self.cedar.take() else {
            self.problems.extend(files.iter().filter_map(SourceFile::unreached));
            return None;
        };
        let raw = raw?;
        let base = origin.node.at.source.name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let named = |name: &str| {
            let path = resolve(base, name);
            let below = format!("{path}/");
            move |file: &&SourceFile| resolve("", &file.name) == path || resolve("", &file.name).starts_with(&below)
        };
        let mut missing = |key: &str, name: &str| {
            let message = format!("`{name}` is not among the files that are read: `rules` must list it, or its folder");
            self.problems.push(origin.node.diagnose(&origin.path, Problem::error(key, message)));
        };
        let (policies, others): (Vec<_>, Vec<_>) = files.iter().partition(named(&raw.policies));
        let policies: Vec<_> = policies.into_iter().filter(|file| file.is_cedar()).collect();
        if policies.is_empty() {
            missing("policies", &raw.policies);
        }
        let mut one = |key: &str, name: &Option<String>| {
            let name = name.as_ref()?;
            let file = files.iter().find(named(name));
            if file.is_none() {
                missing(key, name);
            }
            file
        };
        let (schema, entities) = (one("schema", &raw.schema), one("entities", &raw.entities));
        self.problems.extend(others.into_iter().filter_map(SourceFile::unreached));
        let texts = attribute::Texts { policies, schema, entities };
        AttributePolicies::compile(&texts, options).map_err(|found| self.problems.extend(found)).ok()
    }

    fn finish(
        mut self,
        files: &[SourceFile],
        attributes: Option<AttributePolicies>,
        options: Options,
    ) -> Result<Loaded, Vec<Diagnostic>> {
        if !self.guards_given {
            self.set.guards = Guard::defaults();
            self.set.guards.extend(options.allowed_countries.then(Guard::of_countries));
        }
        if !self.sessions_given {
            self.set.sessions = SessionRule::defaults();
        }
        let mut warnings = attributes.as_ref().map(|policies| policies.warnings().to_vec()).unwrap_or_default();
        let set = std::mem::take(&mut self.set);
        let built = Rules::build(&version(files), set, attributes, options);
        match built {
            Ok(rules) if self.problems.is_empty() => {
                warnings.extend(warnings::of(&rules, &self));
                Diagnostic::sort(&mut warnings);
                Ok(Loaded { rules, warnings })
            }
            Ok(_) => Err(self.sorted()),
            Err(found) => {
                let told: Vec<_> = found.into_iter().map(|problem| self.place(problem)).collect();
                self.problems.extend(told);
                Err(self.sorted())
            }
        }
    }

    fn sorted(mut self) -> Vec<Diagnostic> {
        Diagnostic::sort(&mut self.problems);
        self.problems
    }

    /// Gives a problem of the merged set its file and line back.
    fn place(&self, problem: build::Problem) -> Diagnostic {
        let build::Problem { part, message, hint } = problem;
        let mut relative = Problem::error(written(&part), message);
        relative.hint = hint;
        match self.origin(&part) {
            Some(origin) => origin.node.diagnose(&origin.path, relative),
            // The default guards stand in no file.
            None => Diagnostic::error(Mark::whole(Source::new("rules", "")), relative.path, relative.message),
        }
    }

    fn origin(&self, part: &Part) -> Option<&Origin<'d>> {
        match part.list {
            List::Guards => self.guards.get(part.position),
            List::Sessions => self.sessions.get(part.position),
            List::Resources => self.resources.get(part.position),
            List::Policies => self.policies.get(part.position),
            List::Roles => self.roles.values().nth(part.position),
        }
    }
}

/// A section whose items were all taken out, or turned into comments, may have been meant as empty or as not there: the
/// difference is that of the default guards.
fn without_items(problem: Diagnostic, value: &Value, empty: &str) -> Diagnostic {
    if matches!(value, Value::Null) {
        problem.hint(format!("write `{empty}` where nothing is meant, or leave the section out"))
    } else {
        problem
    }
}

/// The path of a part within its item, as files write it.
fn written(part: &Part) -> String {
    let mut path = match part.field {
        "paths" | "methods" | "hosts" => format!("match.{}", part.field),
        "risk_at_least" => "when.risk_at_least".to_owned(),
        "min_trust_score" | "max_risk" => format!("conditions.{}", part.field),
        field => field.to_owned(),
    };
    if let Some(item) = part.item {
        // Writing into a `String` cannot fail.
        let _ = write!(path, "[{item}]");
    }
    path
}

/// `name` relative to `base`, without `.`, `..` and doubled or final slashes.
fn resolve(base: &str, name: &str) -> String {
    let whole = if name.starts_with('/') || base.is_empty() { name.to_owned() } else { format!("{base}/{name}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." && parts.last().is_some_and(|last| *last != "..") {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    let root = if whole.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

/// A digest of names and texts: equal rules, equal version.
fn version(files: &[SourceFile]) -> String {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for file in files {
        let name = file.name.rsplit('/').next().unwrap_or_default();
        for part in [name, &*file.text] {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
    }
    hex::encode(&digest.finish().as_ref()[..8])
}
