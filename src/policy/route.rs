//! Which resource a request is for: a trie over path segments, so that five thousand resources cost what five do.
//!
//! A literal segment is more specific than `{name}`, and that than `**`; then a named host, then named methods. The most
//! specific path that admits the host decides alone: a method that none of its rules names is refused, not passed on.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::FixedState;

use super::model::Resource;
use crate::domain::{Method, path::canonical_path};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Route<'r> {
    /// With the one of its paths, as the rules write it, that matched.
    Resource(&'r Resource, &'r str),
    /// There are rules for the path, none for the method; the first of them.
    MethodNotAllowed(&'r Resource),
    NotFound,
}

/// The trie. Holds positions in the list of resources it was made from.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, usize, FixedState>,
    parameter: Option<usize>,
    /// Rules for paths that end here, and for everything below.
    here: Entries,
    below: Entries,
}

/// The rules of one path. By host, so that five thousand hosts with one path cost what one does.
#[derive(Clone, Debug, Default)]
struct Entries {
    hosts: HashMap<Arc<str>, Vec<Entry>, FixedState>,
    any_host: Vec<Entry>,
}

impl Entries {
    /// Those for `host`, most specific first; among equals, file order.
    fn admitting(&self, host: &str) -> impl Iterator<Item = &Entry> {
        self.hosts.get(host).into_iter().flatten().chain(&self.any_host)
    }

    fn admit(&self, host: &str) -> bool {
        self.admitting(host).next().is_some()
    }

    /// Adds an entry, or names the resource it ties with.
    fn insert(&mut self, host: Option<Arc<str>>, entry: Entry) -> Result<(), usize> {
        let entries = match host {
            Some(host) => self.hosts.entry(host).or_default(),
            None => &mut self.any_host,
        };
        if let Some(other) = entries.iter().find(|other| other.ties_with(&entry)) {
            return Err(other.resource);
        }
        entries.push(entry);
        entries.sort_by_key(|entry| entry.methods.is_none());
        Ok(())
    }
}

/// One resource at one path and host.
#[derive(Clone, Debug)]
struct Entry {
    methods: Option<Vec<Method>>,
    resource: usize,
    /// Position in the resource's paths.
    path: usize,
}

impl Entry {
    fn names(&self, method: &Method) -> bool {
        match &self.methods {
            Some(methods) => methods.contains(method),
            None => Method::COMMON.contains(method),
        }
    }

    /// Of the same path and host: whether some method could be taken by either.
    fn ties_with(&self, other: &Self) -> bool {
        match (&self.methods, &other.methods) {
            (Some(own), Some(others)) => own.iter().any(|method| others.contains(method)),
            (None, None) => true,
            _ => false,
        }
    }
}

/// Why a path pattern cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternProblem {
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    #[error("`**` stands only at the end")]
    WildcardInside,
    #[error("`*` is no pattern: `{{name}}` stands for one segment, `**` at the end for everything below")]
    Star,
    #[error("a parameter is a whole segment: `{{name}}`")]
    PartialParameter,
    #[error("`{0}` is cut from requests with what follows it (query, parameter or fragment): write the path alone")]
    MoreThanPath(char),
    #[error("{0}: no request could match")]
    NotCanonical(String),
}

/// A pattern, cut into segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    segments: Vec<Segment>,
    below: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    Parameter,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternProblem> {
        if !text.starts_with('/') {
            return Err(PatternProblem::NotAbsolute);
        }
        // Cut from the rule as it is from a request, it would make the rule wider than it reads.
        if let Some(more) = text.chars().find(|c| matches!(c, '?' | ';' | '#')) {
            return Err(PatternProblem::MoreThanPath(more));
        }
        let canonical = canonical_path(text).map_err(|problem| PatternProblem::NotCanonical(problem.to_string()))?;
        // Wildcards are what is written as such: `%2A` is a star and `%7B` a brace, in a rule as in a request.
        let mut parts: Vec<_> = text[1..].split('/').zip(canonical[1..].split('/')).collect();
        let below = parts.last().is_some_and(|(written, _)| *written == "**");
        if below {
            parts.pop();
        }
        let segments = parts.into_iter().map(|(written, canonical)| segment(written, canonical));
        Ok(Self { segments: segments.collect::<Result<_, _>>()?, below })
    }
}

fn segment(written: &str, canonical: &str) -> Result<Segment, PatternProblem> {
    match written {
        "**" => Err(PatternProblem::WildcardInside),
        text if text.contains('*') => Err(PatternProblem::Star),
        text if text.contains(['{', '}']) => {
            let name = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let whole = name.is_some_and(|name| !name.is_empty() && !name.contains(['{', '}']));
            if whole { Ok(Segment::Parameter) } else { Err(PatternProblem::PartialParameter) }
        }
        _ => Ok(Segment::Literal(canonical.into())),
    }
}

impl Routes {
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node::default()] }
    }

    /// Adds one path of a resource, of which the positions are given; the resource it ties with, if there is one.
    pub(super) fn insert(
        &mut self,
        pattern: &Pattern,
        resource: &Resource,
        (position, path): (usize, usize),
    ) -> Result<(), usize> {
        let node = pattern.segments.iter().fold(0, |node, segment| self.child(node, segment));
        let entries = if pattern.below { &mut self.nodes[node].below } else { &mut self.nodes[node].here };
        let hosts: Vec<_> =
            if resource.hosts.is_empty() { vec![None] } else { resource.hosts.iter().cloned().map(Some).collect() };
        let entry = || Entry { methods: resource.methods.clone(), resource: position, path };
        hosts.into_iter().try_for_each(|host| entries.insert(host, entry()))
    }

    fn child(&mut self, node: usize, segment: &Segment) -> usize {
        let next = self.nodes.len();
        let found = match segment {
            Segment::Literal(text) => *self.nodes[node].literals.entry(text.clone()).or_insert(next),
            Segment::Parameter => *self.nodes[node].parameter.get_or_insert(next),
        };
        if found == next {
            self.nodes.push(Node::default());
        }
        found
    }

    /// `path` is canonical, `host` too.
    pub(super) fn find<'r>(&self, resources: &'r [Resource], host: &str, path: &str, method: &Method) -> Route<'r> {
        let Some(entries) = path.strip_prefix('/').and_then(|rest| self.descend(0, Some(rest), host)) else {
            return Route::NotFound;
        };
        match entries.admitting(host).find(|entry| entry.names(method)) {
            Some(entry) => {
                let resource = &resources[entry.resource];
                Route::Resource(resource, &resource.paths[entry.path])
            }
            None => entries
                .admitting(host)
                .next()
                .map_or(Route::NotFound, |entry| Route::MethodNotAllowed(&resources[entry.resource])),
        }
    }

    /// The rules of the most specific pattern below `node` that matches `rest` (`None`: the path ended) and admits `host`.
    ///
    /// Each node is visited at most once: the way back costs no more than the patterns themselves.
    fn descend(&self, node: usize, rest: Option<&str>, host: &str) -> Option<&Entries> {
        let node = &self.nodes[node];
        let Some(rest) = rest else {
            return node.here.admit(host).then_some(&node.here);
        };
        let (segment, rest) = match rest.split_once('/') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (rest, None),
        };
        let literal = node.literals.get(segment).copied();
        let parameter = node.parameter.filter(|_| !segment.is_empty());
        literal
            .and_then(|next| self.descend(next, rest, host))
            .or_else(|| parameter.and_then(|next| self.descend(next, rest, host)))
            .or_else(|| node.below.admit(host).then_some(&node.below))
    }
}

#[cfg(test)]
mod tests;
