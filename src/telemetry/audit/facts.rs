//! The facts in a line, without what the line says already: its head names the request and the subject, and most facts are
//! known as of the time of the request. [`complete`] is the way back.

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use serde_with::skip_serializing_none;

use crate::domain::{
    AccessRequest, Behavior, ClientKind, Credential, CredentialProblem, DeviceSighting, Fact, Facts, Notice, Place,
    Possession, Quota, Revocation, RouteExtensions, SessionState, Transport, Unavailable, UnixTime, Workload,
    is_default, path::PathProblem,
};

/// Members of a request that stand at the head of the line; a path that could not be read stands with the request.
const OF_REQUEST: [&str; 3] = ["id", "method", "host"];

/// Members of an identity that stand at the head of the line.
pub(super) const OF_IDENTITY: [&str; 2] = ["issuer", "subject"];

/// [`Facts`], shortened.
#[derive(Serialize)]
pub(super) struct FactsBody<'a> {
    now: UnixTime,
    request: RequestBody<'a>,
    credential: FactBody<CredentialBody<'a>>,
    #[serde(skip_serializing_if = "FactBody::is_not_asked")]
    workload: FactBody<&'a Workload>,
    #[serde(skip_serializing_if = "FactBody::is_not_asked")]
    revocation: FactBody<&'a Revocation>,
    #[serde(skip_serializing_if = "FactBody::is_not_asked")]
    notice: FactBody<&'a Notice>,
    #[serde(skip_serializing_if = "FactBody::is_not_asked")]
    device: FactBody<&'a DeviceSighting>,
    #[serde(skip_serializing_if = "FactBody::is_not_asked")]
    place: FactBody<&'a Place>,
    #[serde(skip_serializing_if = "FactBody::is_not_asked")]
    behavior: FactBody<&'a Behavior>,
    #[serde(skip_serializing_if = "FactBody::is_not_asked")]
    session: FactBody<&'a SessionState>,
    #[serde(skip_serializing_if = "FactBody::is_not_asked")]
    quota: FactBody<&'a Quota>,
}

/// [`AccessRequest`], shortened.
#[skip_serializing_none]
#[derive(Serialize)]
struct RequestBody<'a> {
    transport: Option<Transport>,
    path: Option<Result<(), PathProblem>>,
    client: Option<&'a std::net::IpAddr>,
    #[serde(skip_serializing_if = "is_default")]
    encrypted: bool,
    #[serde(skip_serializing_if = "is_default")]
    client_kind: ClientKind,
    #[serde(skip_serializing_if = "is_default")]
    long_lived: bool,
    #[serde(skip_serializing_if = "RouteExtensions::is_empty")]
    extensions: &'a RouteExtensions,
    justification: Option<&'a str>,
    #[serde(skip_serializing_if = "is_default")]
    device_sent: bool,
    destination: Option<&'a str>,
}

/// [`Credential`], with the identity as it stands in records.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum CredentialBody<'a> {
    Verified {
        identity: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        proof: Option<Possession>,
    },
    Refused(CredentialProblem),
}

/// [`Fact`]. Known as of the request where there is no other time.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum FactBody<T> {
    Known {
        value: T,
        #[serde(skip_serializing_if = "Option::is_none")]
        as_of: Option<UnixTime>,
    },
    Absent,
    Unavailable(Unavailable),
    NotAsked,
}

impl<T> FactBody<T> {
    const fn is_not_asked(&self) -> bool {
        matches!(self, Self::NotAsked)
    }

    fn of(fact: Fact<T>, now: UnixTime) -> Self {
        match fact {
            Fact::Known { value, as_of } => Self::Known { value, as_of: (as_of != now).then_some(as_of) },
            Fact::Absent => Self::Absent,
            Fact::Unavailable(why) => Self::Unavailable(why),
            Fact::NotAsked => Self::NotAsked,
        }
    }
}

impl<'a> FactsBody<'a> {
    pub(super) fn of(facts: &'a Facts, identity: Option<&'a RawValue>) -> Self {
        let Facts { now, request, credential, workload, revocation, notice, device, place, behavior, session, quota } =
            facts;
        let now = *now;
        let credential = credential.as_ref().map(|credential| match credential {
            Credential::Verified { proof, .. } => CredentialBody::Verified { identity, proof: *proof },
            Credential::Refused(problem) => CredentialBody::Refused(*problem),
        });
        Self {
            now,
            request: RequestBody::of(request),
            credential: FactBody::of(credential, now),
            workload: FactBody::of(workload.as_ref(), now),
            revocation: FactBody::of(revocation.as_ref(), now),
            notice: FactBody::of(notice.as_ref(), now),
            device: FactBody::of(device.as_ref(), now),
            place: FactBody::of(place.as_ref(), now),
            behavior: FactBody::of(behavior.as_ref(), now),
            session: FactBody::of(session.as_ref(), now),
            quota: FactBody::of(quota.as_ref(), now),
        }
    }
}

impl<'a> RequestBody<'a> {
    fn of(request: &'a AccessRequest) -> Self {
        let AccessRequest {
            id: _,
            transport,
            method: _,
            host: _,
            path,
            client,
            encrypted,
            client_kind,
            long_lived,
            extensions,
            justification,
            device_sent,
            destination,
        } = request;
        Self {
            transport: (*transport != Transport::Http).then_some(*transport),
            path: path.as_ref().err().map(|problem| Err(*problem)),
            client: client.as_ref(),
            encrypted: *encrypted,
            client_kind: *client_kind,
            long_lived: *long_lived,
            extensions,
            justification: justification.as_deref(),
            device_sent: *device_sent,
            destination: destination.as_deref(),
        }
    }
}

/// Puts back into the facts of a line what the line says elsewhere; what stands in them stays as it is.
pub(super) fn complete(line: &mut Value) {
    let Some(head) = line.as_object_mut() else { return };
    let Some(mut facts) = head.remove("facts") else { return };
    if let Some(facts) = facts.as_object_mut() {
        complete_facts(head, facts);
    }
    head.insert("facts".into(), facts);
}

fn complete_facts(head: &Map<String, Value>, facts: &mut Map<String, Value>) {
    if let Some(request) = facts.get_mut("request").and_then(Value::as_object_mut) {
        copy(head, request, OF_REQUEST);
        request.entry("transport").or_insert_with(|| "http".into());
        if let Some(path) = head.get("path") {
            request.entry("path").or_insert_with(|| [("Ok".to_owned(), path.clone())].into_iter().collect());
        }
    }
    if let Some(now) = facts.get("now").cloned() {
        for known in facts.values_mut().filter_map(|fact| fact.get_mut("known")?.as_object_mut()) {
            known.entry("as_of").or_insert_with(|| now.clone());
        }
    }
    let identity = facts.get_mut("credential").and_then(|fact| fact.pointer_mut("/known/value/verified/identity"));
    if let Some(identity) = identity.and_then(Value::as_object_mut) {
        copy(head, identity, OF_IDENTITY);
    }
}

fn copy<const N: usize>(from: &Map<String, Value>, to: &mut Map<String, Value>, names: [&str; N]) {
    for name in names {
        if let Some(value) = from.get(name) {
            to.entry(name).or_insert_with(|| value.clone());
        }
    }
}
