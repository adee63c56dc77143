//! The one place that turns an outcome into what Envoy is told.
//!
//! An OK response is written from a [`Permit`] alone, so that no code path can answer "allow" without a decision on
//! live facts. Every header replaces what the client sent; every name of ours that is not set is removed.

mod challenge;
mod refusal;

use super::{AnswerSettings, MetadataChoice};
use crate::{
    decision::{Decision, Grant, Permit, known_device},
    domain::{Facts, Transport},
    identity::Challenges,
    pipeline::Outcome,
    wire::writer::Writer,
};

/// Fields of a CheckResponse.
const STATUS: u8 = 1;
const OK_RESPONSE: u8 = 3;
const DYNAMIC_METADATA: u8 = 4;

/// Fields of an OkHttpResponse.
const HEADERS: u8 = 2;
const HEADERS_TO_REMOVE: u8 = 5;

/// What tells Envoy's router when to end a stream, in milliseconds.
const STREAM_LIMIT: &str = "x-envoy-upstream-stream-duration-ms";

/// Every header name we own. Whatever is not set on an allow is removed.
pub const NAMES: [&str; 14] = [
    "x-zt-decision",
    "x-zt-subject",
    "x-zt-roles",
    "x-zt-device",
    "x-zt-session",
    "x-zt-risk-score",
    "x-zt-trust-score",
    "x-zt-trust-level",
    "x-zt-restrictions",
    "x-zt-session-ttl",
    "x-zt-policy",
    "x-zt-decision-id",
    "x-zt-assertion",
    "x-zt-next-verification",
];

/// The places of those in [`NAMES`] that an answer sets.
#[derive(Clone, Copy)]
enum Name {
    Decision = 0,
    Subject,
    Roles,
    Device,
    Session,
    RiskScore,
    TrustScore,
    TrustLevel,
    Restrictions,
    SessionTtl,
    Policy,
    DecisionId,
    Assertion,
    NextVerification,
}

/// Longest list that is sent, in octets.
const MAX_LIST: usize = 4096;

/// Writes the CheckResponse of `outcome`.
pub fn write(outcome: &Outcome, answer: &AnswerSettings, challenges: &Challenges, buffer: &mut Vec<u8>) {
    let mut response = Writer::new(buffer);
    let facts = outcome.facts();
    match outcome.permit() {
        Some(permit) => allow(&mut response, permit, outcome, answer),
        None if facts.request.transport == Transport::Tcp => refusal::status(&mut response, outcome.decision()),
        None => refusal::write(&mut response, outcome, answer, challenges),
    }
    let wanted = match answer.metadata {
        MetadataChoice::Always => true,
        MetadataChoice::Refused => outcome.permit().is_none(),
        MetadataChoice::Never => false,
    };
    if wanted {
        response.nested(DYNAMIC_METADATA, |metadata| self::metadata(metadata, outcome.decision(), facts));
    }
}

fn allow(response: &mut Writer<'_>, permit: &Permit, outcome: &Outcome, answer: &AnswerSettings) {
    response.nested(STATUS, |_| {});
    if outcome.facts().request.transport == Transport::Tcp {
        return;
    }
    response.nested(OK_RESPONSE, |ok| {
        let mut headers = Headers { ok, answer, set: 0 };
        headers.set(Name::Decision, b"allow");
        identity_headers(&mut headers, outcome.facts());
        decision_headers(&mut headers, permit.decision(), outcome);
        headers.remove_the_rest(outcome);
    });
}

fn identity_headers(headers: &mut Headers<'_, '_, '_>, facts: &Facts) {
    let Some(identity) = facts.caller() else { return };
    headers.set(Name::Subject, escape(identity.subject.as_str()).as_bytes());
    if !identity.roles.is_empty() {
        headers.set(Name::Roles, &list(identity.roles.iter().map(crate::domain::Role::as_str)));
    }
    headers.set(Name::Session, escape(identity.session.as_str()).as_bytes());
    if let Some(device) = known_device(facts) {
        headers.set(Name::Device, escape(device.id.as_str()).as_bytes());
    }
}

fn decision_headers(headers: &mut Headers<'_, '_, '_>, decision: &Decision, outcome: &Outcome) {
    let mut number = Number::default();
    if outcome.facts().caller().is_some() && was_judged(decision) {
        headers.set(Name::RiskScore, number.truncate(decision.risk.score.get(), 1));
        headers.set(Name::TrustScore, number.truncate(decision.trust.score.get(), 2));
        headers.set(Name::TrustLevel, decision.trust.level.as_str().as_bytes());
    }
    if !decision.restrictions.is_empty() {
        headers.set(Name::Restrictions, &list(decision.restrictions.iter()));
    }
    if let Some(ttl) = decision.session_ttl {
        headers.set(Name::SessionTtl, number.integer(ttl));
    }
    if let Some(next) = decision.next_verification {
        headers.set(Name::NextVerification, number.integer(next.as_secs()));
    }
    if let Some(policy) = &decision.policy {
        headers.set(Name::Policy, escape(policy.as_str()).as_bytes());
    }
    headers.set(Name::DecisionId, &outcome.facts().request.id.to_hex());
    if let Some(assertion) = outcome.assertion() {
        headers.set(Name::Assertion, assertion.as_bytes());
    }
    if let Some(limit) = decision.stream_limit {
        // 0 may mean "no limit" to Envoy.
        headers.unnamed(STREAM_LIMIT, number.integer(limit.max(1)));
    }
}

/// The headers of an OK response, and which of [`NAMES`] have been set.
struct Headers<'w, 'b, 'a> {
    ok: &'w mut Writer<'b>,
    answer: &'a AnswerSettings,
    set: u32,
}

impl Headers<'_, '_, '_> {
    /// Sets one of [`NAMES`], unless the operator chose not to send it.
    fn set(&mut self, name: Name, value: &[u8]) {
        let text = NAMES[name as usize];
        let chosen = self.answer.headers.as_ref().is_none_or(|chosen| chosen.iter().any(|wanted| wanted == text));
        if chosen || matches!(name, Name::Decision) {
            self.set |= 1 << name as u32;
            self.ok.header(HEADERS, text, value);
        }
    }

    fn unnamed(&mut self, name: &str, value: &[u8]) {
        self.ok.header(HEADERS, name, value);
    }

    /// Set and removed stay disjoint: some Envoys remove after they set.
    fn remove_the_rest(&mut self, outcome: &Outcome) {
        let limited = outcome.decision().stream_limit.is_some();
        for (index, name) in NAMES.iter().enumerate() {
            if self.set & (1 << index) == 0 {
                self.ok.bytes(HEADERS_TO_REMOVE, name.as_bytes());
            }
        }
        for name in outcome.headers_to_remove() {
            let set_by_us = limited && **name == *STREAM_LIMIT;
            if !NAMES.contains(&&**name) && !set_by_us {
                self.ok.bytes(HEADERS_TO_REMOVE, name.as_bytes());
            }
        }
    }
}

fn metadata(metadata: &mut Writer<'_>, decision: &Decision, facts: &Facts) {
    metadata.text_entry("decision", decision.verdict.as_str().as_bytes());
    metadata.text_entry("decision_id", &facts.request.id.to_hex());
    if let Some(reason) = decision.reason {
        metadata.text_entry("reason", reason.code().as_bytes());
    }
    if let Some(rule) = &decision.rule {
        metadata.text_entry("rule", rule.as_str().as_bytes());
    }
    if let Some(policy) = &decision.policy {
        metadata.text_entry("policy", policy.as_str().as_bytes());
    }
    let told = if decision.is_allow() { facts.caller() } else { facts.identity() };
    let Some(identity) = told else { return };
    metadata.text_entry("subject", identity.subject.as_str().as_bytes());
    metadata.text_entry("session", identity.session.as_str().as_bytes());
    if !identity.roles.is_empty() {
        metadata.list_entry("roles", identity.roles.iter().map(crate::domain::Role::as_str));
    }
    if let Some(device) = if decision.is_allow() { known_device(facts) } else { facts.device.value() } {
        metadata.text_entry("device", device.id.as_str().as_bytes());
    }
    if was_judged(decision) {
        metadata.number_entry("risk_score", decision.risk.score.get());
        metadata.number_entry("trust_score", decision.trust.score.get());
        metadata.text_entry("trust_level", decision.trust.level.as_str().as_bytes());
    }
    if !decision.restrictions.is_empty() {
        metadata.list_entry("restrictions", decision.restrictions.iter());
    }
    if let Some(ttl) = decision.session_ttl {
        metadata.number_entry("session_ttl", ttl as f64);
    }
    if let Some(next) = decision.next_verification {
        metadata.number_entry("next_verification", next.as_secs() as f64);
    }
}

/// On a public resource nobody is scored: a zero there would say of a caller what nobody found out.
fn was_judged(decision: &Decision) -> bool {
    decision.grant != Some(Grant::Public)
}

/// Octets outside 0x21 to 0x7E, and `%` itself, percent-encoded: one header value, whatever a claim holds.
fn escape(text: &str) -> std::borrow::Cow<'_, str> {
    const KEEP: percent_encoding::AsciiSet = percent_encoding::CONTROLS.add(b' ').add(b'%');
    // Most names need none. Without a way out in the middle: sixteen octets at a time.
    if text.bytes().fold(true, |plain, octet| plain & (octet > b' ') & (octet < 0x7f) & (octet != b'%')) {
        return text.into();
    }
    percent_encoding::utf8_percent_encode(text, &KEEP).into()
}

/// A comma list of escaped names, cut at a comma before it grows too long.
fn list<'r>(names: impl Iterator<Item = &'r str>) -> Vec<u8> {
    let mut list = Vec::with_capacity(64);
    for name in names {
        let mut name = escape(name);
        if name.contains(',') {
            name = name.replace(',', "%2C").into();
        }
        if list.len() + name.len() + 1 > MAX_LIST {
            break;
        }
        if !list.is_empty() {
            list.push(b',');
        }
        list.extend_from_slice(name.as_bytes());
    }
    list
}

/// A small buffer to write numbers into. (`format!` takes ten times as long.)
#[derive(Default)]
struct Number([u8; 24]);

impl Number {
    fn integer(&mut self, value: u64) -> &[u8] {
        self.decimals(value, 0)
    }

    /// Cut off, not rounded: a score under a bound is never told as one that reaches it.
    fn truncate(&mut self, value: f64, decimals: usize) -> &[u8] {
        let scale = 10_u32.pow(decimals as u32);
        // A sum of tenths may lie a trifle under the tenth that is meant.
        self.decimals((value * f64::from(scale) + 1e-9) as u64, decimals)
    }

    /// `value` with a point before its last `decimals` digits. The longest number has 20 digits.
    fn decimals(&mut self, mut value: u64, decimals: usize) -> &[u8] {
        let mut at = self.0.len();
        let mut digits = 0;
        while value > 0 || digits <= decimals {
            if digits == decimals && digits > 0 {
                at -= 1;
                self.0[at] = b'.';
            }
            at -= 1;
            self.0[at] = b'0' + (value % 10) as u8;
            value /= 10;
            digits += 1;
        }
        &self.0[at..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_told_as_no_more_than_they_are() {
        let mut number = Number::default();
        let risks = [(0.0, "0.0"), (0.04, "0.0"), (4.96, "4.9"), (4.999, "4.9"), (5.0, "5.0"), (10.0, "10.0")];
        for (value, told) in risks.into_iter().chain([(0.1 + 0.2, "0.3"), (0.7 + 0.1, "0.8")]) {
            assert_eq!(number.truncate(value, 1), told.as_bytes(), "{value}");
        }
        let trusts = [(0.0, "0.00"), (0.05, "0.05"), (0.195, "0.19"), (0.596, "0.59"), (0.6, "0.60"), (1.0, "1.00")];
        for (value, told) in trusts.into_iter().chain([(0.1 + 0.2, "0.30")]) {
            assert_eq!(number.truncate(value, 2), told.as_bytes(), "{value}");
        }
        for value in [0, 7, 10, 900, u64::MAX] {
            assert_eq!(number.integer(value), value.to_string().as_bytes());
        }
    }
}
