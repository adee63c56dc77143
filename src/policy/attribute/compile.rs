//! From the text of Cedar files to policies that were validated against a schema. Every problem with its line.

use std::{collections::BTreeSet, str::FromStr, sync::Arc};

use cedar_policy::{
    Entities, Policy, PolicyId, PolicySet, Schema, ValidationMode, ValidationResult, ValidationWarning, Validator,
};
use serde_json::json;

use super::{
    Said,
    entities::Hierarchy,
    names::{self, Callers},
    reads::Reads,
};
use crate::{
    document::{Diagnostic, Mark, Severity, Source},
    policy::{load::SourceFile, model::Options},
};

/// The schema that comes with the program.
pub const SCHEMA: &str = include_str!("countersign.cedarschema");

/// What attribute policies are made of.
#[derive(Debug)]
pub(in crate::policy) struct Texts<'f> {
    pub(in crate::policy) policies: Vec<&'f SourceFile>,
    pub(in crate::policy) schema: Option<&'f SourceFile>,
    pub(in crate::policy) entities: Option<&'f SourceFile>,
}

#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) policies: Vec<Said>,
    pub(super) hierarchy: Hierarchy,
    pub(super) warnings: Vec<Diagnostic>,
}

struct Compiler<'c> {
    options: &'c Options,
    problems: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    ids: BTreeSet<String>,
}

pub(super) fn compile(texts: &Texts<'_>, options: &Options) -> Result<Compiled, Vec<Diagnostic>> {
    let mut compiler = Compiler { options, problems: Vec::new(), warnings: Vec::new(), ids: BTreeSet::new() };
    let own = SourceFile::new("countersign.cedarschema", SCHEMA);
    // What is not there has told its problems.
    let (schema, actions) = compiler.schema(texts.schema.unwrap_or(&own)).unzip();
    let entities = compiler.entities(texts.entities, schema.as_ref()).zip(actions);
    let file = texts.entities.unwrap_or(&own);
    let mut hierarchy = entities.and_then(|(given, actions)| compiler.hierarchy(file, [&given, &actions]));
    let held = hierarchy.as_ref().map(|hierarchy| hierarchy.held).unwrap_or_default();
    let policies = texts.policies.iter().flat_map(|file| compiler.policies(file, schema.as_ref(), held));
    let policies: Vec<_> = policies.collect();
    let named = policies.iter().flat_map(|said| said.policy.entity_literals());
    hierarchy.iter_mut().for_each(|hierarchy| named.clone().for_each(|uid| hierarchy.name(uid)));
    let Compiler { problems, warnings, .. } = compiler;
    match hierarchy {
        Some(hierarchy) if problems.is_empty() => Ok(Compiled { policies, hierarchy, warnings }),
        _ => Err(problems),
    }
}

impl Compiler<'_> {
    /// The schema and its actions.
    fn schema(&mut self, file: &SourceFile) -> Option<(Schema, Entities)> {
        let (schema, _) =
            Schema::from_cedarschema_str(&file.text).map_err(|error| self.tell(file, &error, Severity::Error)).ok()?;
        let actions = schema.action_entities().map_err(|error| self.tell(file, &error, Severity::Error)).ok()?;
        let missing = names::missing(&schema);
        if !missing.is_empty() {
            let message = format!("the schema lacks what requests are asked about with: {}", missing.join(", "));
            let hint =
                "take the schema that comes with the program, and add to it: its types and actions keep their names";
            self.problem(file, 0, message, Some(hint.to_owned()));
        }
        Some((schema, actions))
    }

    fn policies(&mut self, file: &SourceFile, schema: Option<&Schema>, held: Callers) -> Vec<Said> {
        let set = match PolicySet::from_str(&file.text) {
            Ok(set) => set,
            Err(errors) => {
                errors.iter().for_each(|error| self.tell(file, error, Severity::Error));
                return Vec::new();
            }
        };
        if set.templates().next().is_some() {
            self.problem(file, 0, "templates (`?principal`, `?resource`) are never linked here".to_owned(), None);
        }
        if let Some(schema) = schema {
            self.validate(file, &set, schema);
        }
        let policies: Vec<_> = set.policies().map(|policy| self.named(file, policy)).collect();
        policies.iter().for_each(|said| self.vouched(file, said, held));
        policies
    }

    /// The policy under the id its author gave it: annotations do not become ids by themselves.
    fn named(&mut self, file: &SourceFile, policy: &Policy) -> Said {
        let stem = file.stem();
        let id = policy.annotation("id").map_or_else(|| format!("{stem}.{}", policy.id()), str::to_owned);
        if !self.ids.insert(id.clone()) {
            let offset = file.text.rfind(&format!("\"{id}\"")).unwrap_or(0);
            self.problem(file, offset, format!("the attribute policy id `{id}` is taken"), None);
        }
        let policy = policy.new_id(PolicyId::new(&id));
        Said { id: id.into(), reads: Reads::of(&policy, &self.options.claims), policy }
    }

    fn validate(&mut self, file: &SourceFile, set: &PolicySet, schema: &Schema) {
        let result = validated(set, schema);
        result.validation_errors().for_each(|error| self.tell(file, error, Severity::Error));
        for warning in result.validation_warnings() {
            if !is_impossible(warning) || !self.asks_for_a_claim(set.policy(warning.policy_id()), schema) {
                self.tell(file, warning, Severity::Warning);
            }
        }
    }

    /// Whether a policy reads a claim that the schema does not know. Of what type it is only tokens say, so the schema cannot be
    /// extended by it; and to the validator whoever asks for an unknown attribute asks in vain.
    fn asks_for_a_claim(&self, policy: Option<&Policy>, schema: &Schema) -> bool {
        let reads = policy.map(|policy| Reads::of(policy, &[])).unwrap_or_default();
        reads.principal.iter().any(|name| self.options.claims.contains(name) && !knows(schema, name))
    }

    fn entities(&mut self, file: Option<&SourceFile>, schema: Option<&Schema>) -> Option<Entities> {
        let Some(file) = file else { return Some(Entities::empty()) };
        // Without the actions of the schema: those are added once, beside these.
        Entities::from_json_str(&file.text, schema).map_err(|error| self.tell(file, &error, Severity::Error)).ok()
    }

    fn hierarchy(&mut self, file: &SourceFile, given: [&Entities; 2]) -> Option<Hierarchy> {
        let hierarchy = Hierarchy::of(given, Callers::ambiguous(self.options));
        let of_nobody = hierarchy.iter().flat_map(|hierarchy| hierarchy.of_nobody(self.options));
        for uid in of_nobody {
            let offset = file.text.find(&format!("\"{}\"", uid.id().escaped())).unwrap_or(0);
            let message =
                format!("`issuer` of {uid} is none of the configuration: several vouch for callers of this name");
            self.problem(file, offset, message, None);
        }
        if hierarchy.is_none() {
            self.problem(file, 0, "a tag of an entity has a value that cannot be handed on".to_owned(), None);
        }
        hierarchy
    }

    /// Entities are called by their subject alone: who names one must say whose, where several may vouch for the name.
    fn vouched(&mut self, file: &SourceFile, said: &Said, held: Callers) {
        let compared = if said.reads.compared { held } else { Callers::default() };
        if !said.reads.issuer && said.reads.named.and(compared).meet(Callers::ambiguous(self.options)) {
            let text = said.policy.to_cedar().unwrap_or_default();
            let offset = file.text.find(text.trim()).unwrap_or(0);
            let message = "tells callers by their name alone, and several issuers vouch for callers of the same name";
            let hint = "ask for the issuer, too: `when { principal.issuer == \"https://idp.example\" }`";
            self.problem(file, offset, message.to_owned(), Some(hint.to_owned()));
        }
    }

    fn tell(&mut self, file: &SourceFile, error: &dyn miette::Diagnostic, severity: Severity) {
        let offset = error.labels().and_then(|mut labels| labels.next()).map_or(0, |label| label.offset());
        let message = chain(error);
        let hint = error.help().map(|help| help.to_string());
        match severity {
            Severity::Error => self.problem(file, offset, message, hint),
            Severity::Warning => self.warnings.push(diagnostic(file, offset, message, hint, severity)),
        }
    }

    /// One problem for each place: Cedar tells it once for every kind of request. The first in the alphabet stays.
    fn problem(&mut self, file: &SourceFile, offset: usize, message: String, hint: Option<String>) {
        let problem = diagnostic(file, offset, message, hint, Severity::Error);
        match self.problems.iter_mut().find(|known| known.at == problem.at) {
            Some(known) if known.message <= problem.message => {}
            Some(known) => *known = problem,
            None => self.problems.push(problem),
        }
    }
}

fn validated(set: &PolicySet, schema: &Schema) -> ValidationResult {
    Validator::new(schema.clone()).validate(set, ValidationMode::Strict)
}

const fn is_impossible(warning: &ValidationWarning) -> bool {
    matches!(warning, ValidationWarning::ImpossiblePolicy(_))
}

/// Whether some caller may have the attribute: a policy that asks for nothing else is possible then.
fn knows(schema: &Schema, attribute: &str) -> bool {
    let asked = json!({ "kind": "when", "body": { "has": { "left": { "Var": "principal" }, "attr": attribute } } });
    let any = json!({ "op": "All" });
    let policy = json!({
        "effect": "permit", "principal": any, "action": any, "resource": any, "conditions": [asked],
    });
    let set = Policy::from_json(None, policy).ok().and_then(|policy| PolicySet::from_policies([policy]).ok());
    set.is_some_and(|set| validated(&set, schema).validation_warnings().all(|warning| !is_impossible(warning)))
}

fn diagnostic(
    file: &SourceFile,
    offset: usize,
    message: String,
    hint: Option<String>,
    severity: Severity,
) -> Diagnostic {
    let source = Source::new(Arc::clone(&file.name), Arc::clone(&file.text));
    let mark = Mark::at(&source, offset..offset + 1);
    Diagnostic { severity, at: mark, path: String::new(), message, hint }
}

/// An error and what caused it, in one line.
fn chain(error: &dyn miette::Diagnostic) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        source = cause.source();
    }
    message.replace('\n', " ")
}
