//! Facts and findings in words.

use crate::{
    decision::{Decision, Detail, DeviceProblem, authenticated_at},
    domain::{AuthMethod, Credential, DeviceRecord, DeviceSighting, Fact, Facts, Place, Revocation, UnixTime},
    domain::{CredentialProblem, Possession, RevocationKind},
    trust,
};

pub(super) fn subject(facts: &Facts) -> String {
    let Some(identity) = facts.identity() else {
        return match &facts.workload {
            Fact::Known { value, .. } => format!("the workload {}", value.principal),
            _ => "nobody: no valid credentials".into(),
        };
    };
    let methods: Vec<_> = identity.methods.iter().map(AuthMethod::as_str).collect();
    let age = facts.now.since(authenticated_at(facts, identity)).as_secs();
    format!(
        "{} of {} ({}), authenticated by {} {age} s ago",
        identity.subject,
        identity.issuer,
        match identity.kind {
            crate::domain::SubjectKind::Person => "a person",
            crate::domain::SubjectKind::Service => "a service",
        },
        if methods.is_empty() { "no known method".into() } else { methods.join(", ") },
    )
}

/// What the factors held, in words.
pub(super) fn factor_values(facts: &Facts) -> Vec<(&'static str, String)> {
    let mut values = Vec::new();
    if let Some(credential) = facts.credential.value() {
        values.push((
            "credential",
            match credential {
                Credential::Verified { proof: Some(proof), .. } => {
                    format!("a valid token, and proof of its key (by {})", possession(*proof))
                }
                Credential::Verified { proof: None, .. } => "a valid token".into(),
                Credential::Refused(problem) => format!("credentials that do not hold: {}", refused(*problem)),
            },
        ));
    }
    if let Some(workload) = facts.workload.value() {
        values.push(("workload", workload.principal.to_string()));
    }
    if let Some(revocation) = facts.revocation.value() {
        values.push((
            "revocation",
            match revocation {
                Revocation::Clear => "not revoked".into(),
                Revocation::Revoked(kind) => format!(
                    "revoked: its {} is on the list",
                    match kind {
                        RevocationKind::Token => "token id",
                        RevocationKind::Session => "session",
                        RevocationKind::Subject => "subject",
                        RevocationKind::Device => "device",
                    }
                ),
            },
        ));
    }
    if let Some(notice) = facts.notice.value() {
        let mut said = Vec::new();
        said.extend(notice.disabled.then(|| "the account is disabled".to_owned()));
        said.extend(
            notice.strong_after.map(|after| {
                format!("a strong authentication is due since {} s ago", facts.now.since(after).as_secs())
            }),
        );
        said.extend(notice.risk.map(|risk| format!("others report a {risk:?} risk").to_lowercase()));
        values.push(("notice", if said.is_empty() { "nothing was told".into() } else { said.join(", ") }));
    }
    if let Some(sighting) = facts.device.value() {
        values.push(("device", device(sighting, facts.now)));
    }
    if let Some(seen) = facts.place.value() {
        values.push(("place", place(seen)));
    }
    if let Some(behavior) = facts.behavior.value() {
        let oddities = [(behavior.unusual_time, "unusual time"), (behavior.rapid_requests, "rapid requests")];
        let mut odd: Vec<_> = oddities.iter().filter(|(seen, _)| *seen).map(|(_, word)| *word).collect();
        if behavior.new_device == Some(true) {
            odd.push("new device");
        }
        values.push(("behavior", if odd.is_empty() { "as usual, or no history".into() } else { odd.join(", ") }));
    }
    if let Some(session) = facts.session.value() {
        let age = facts.now.since(session.verified_at).as_secs();
        let ended = if session.ended { ", ended" } else { "" };
        values.push(("session", format!("last verified {age} s ago at level {}{ended}", session.level)));
    }
    if let Some(quota) = facts.quota.value() {
        values.push(("quota", format!("{} of {} left", quota.remaining, quota.limit)));
    }
    values
}

const fn refused(problem: CredentialProblem) -> &'static str {
    match problem {
        CredentialProblem::Ambiguous => "sent twice, or in two ways",
        CredentialProblem::TooLarge => "too large",
        CredentialProblem::Unsupported => "of another kind than is asked for",
        CredentialProblem::Invalid => "not a token that an issuer of ours signed for us",
        CredentialProblem::Expired => "expired",
        CredentialProblem::NotYetValid => "not valid yet",
        CredentialProblem::ProofRequired => "bound to a key, and no proof of it came along",
        CredentialProblem::ProofInvalid => "the proof of its key does not hold",
        CredentialProblem::NonceRequired => "the proof lacks our nonce",
        CredentialProblem::Revoked => "revoked, says its issuer's status list",
    }
}

const fn possession(proof: Possession) -> &'static str {
    match proof {
        Possession::Dpop => "DPoP",
        Possession::Certificate => "the client's certificate",
    }
}

fn device(sighting: &DeviceSighting, now: UnixTime) -> String {
    let mut words = match &sighting.record {
        None => format!("{}: not registered", sighting.id),
        Some(record) => {
            let owner = record.user.as_ref().map_or_else(|| "nobody".into(), ToString::to_string);
            let proof = sighting.proof.as_str();
            let trust = registry_trust(record, sighting, now);
            format!("{}: {}, of {owner}, shown by {proof}; {trust}", sighting.id, record.status.as_str())
        }
    };
    for (seen, word) in [
        (sighting.fingerprint_differs, "its fingerprint differs"),
        (sighting.key_differs, "its key or certificate differs"),
        (sighting.differs_from_token, "the token names another device"),
        (sighting.evidence.certificate_expired, "its certificate is out of its time"),
        (sighting.evidence.certificate_unverified, "no authority of ours vouches for its certificate"),
        (sighting.evidence.posture_stale, "its posture was checked too long ago"),
    ] {
        if seen {
            words = format!("{words}; {word}");
        }
    }
    words
}

/// What the registry's trust in a device is made of.
fn registry_trust(record: &DeviceRecord, sighting: &DeviceSighting, now: UnixTime) -> String {
    let score = trust::device::score(record, sighting.evidence, now).get();
    if record.trust_score.is_some() {
        return format!("registry trust {score:.2}, as its record says");
    }
    let lines = trust::device::lines(record, sighting.evidence, now);
    let lines: String = lines.iter().map(|line| format!(", {} {:+.2}", line.name, line.points)).collect();
    format!("registry trust {score:.2} (start {:.2}{lines})", trust::device::START)
}

pub(super) fn place(place: &Place) -> String {
    let mut words = vec![format!("{} network", place.network.as_str())];
    words.extend(place.city.iter().chain(&place.country).map(ToString::to_string));
    words.extend(place.asn.map(|asn| format!("AS{asn}")));
    words.extend(place.known_networks.iter().map(|name| format!("known as {name}")));
    for (seen, word) in [
        (!place.allowed, "not an allowed country"),
        (place.unusual, "unusual"),
        (place.impossible_travel, "impossible travel"),
    ] {
        if seen {
            words.push(word.into());
        }
    }
    words.join(", ")
}

/// What exactly was missing or wrong, in words. `None` where the reason says it all.
pub fn in_words(detail: &Detail) -> Option<String> {
    Some(match detail {
        Detail::None => return None,
        Detail::Missing(why) => format!("it could not be looked up: {}", why.as_str()),
        Detail::Device(problem) => device_problem(*problem).into(),
        Detail::Requirement(name) => format!("the device does not meet `{name}`"),
        Detail::Level(level) => format!("trust level {level} is asked for"),
        Detail::Score(score) => format!("a trust score of {score:.2} is asked for"),
        Detail::Methods(methods) => {
            let names: Vec<_> = methods.iter().map(AuthMethod::as_str).collect();
            format!("not authenticated by {}", names.join(", "))
        }
        Detail::Classification(Some(classification)) => format!("the data is {classification}"),
        Detail::Classification(None) => "the data's classification is not known".into(),
        Detail::Path(problem) => problem.to_string(),
        Detail::Extension("segment") => "the route names a `segment`, and there are none in this version".into(),
        Detail::Extension(name) => format!("the route's `{name}` has a value that is none of its words"),
        Detail::Age(seconds) => format!("authenticated {seconds} s ago"),
        Detail::Risk(risk) => format!("a risk of {risk:.1}"),
    })
}

const fn device_problem(problem: DeviceProblem) -> &'static str {
    match problem {
        DeviceProblem::OtherOwner => "the device belongs to somebody else",
        DeviceProblem::FingerprintDiffers => "its fingerprint is not the registered one",
        DeviceProblem::KeyDiffers => "its key or certificate is not the registered one",
        DeviceProblem::Suspended => "the device is suspended",
        DeviceProblem::Revoked => "the device is revoked",
        DeviceProblem::NotCompliant => "the device is not compliant",
        DeviceProblem::CertificateExpired => "its certificate is out of its time",
        DeviceProblem::Jailbroken => "the device is jailbroken",
        DeviceProblem::DiffersFromToken => "the token names another device than the request",
        DeviceProblem::OwedToToken => "the token names a device, and the request none",
    }
}

pub(super) fn remedy(decision: &Decision) -> Option<String> {
    if let Some(step_up) = &decision.step_up {
        let methods: Vec<_> = step_up.methods.iter().map(AuthMethod::as_str).collect();
        let by = if methods.is_empty() { String::new() } else { format!(", such as {}", methods.join(", ")) };
        let kind = step_up.level.map_or("the same authentication once more".into(), |level| {
            format!("an authentication of the level `{}`{by}", level.as_str())
        });
        let age = step_up.max_age.map(|age| format!(", at most {age} s old")).unwrap_or_default();
        return Some(format!("{kind}{age}: with it this request would be allowed"));
    }
    if let Some(scope) = &decision.scope {
        return Some(format!("a token with the scope `{scope}`"));
    }
    decision.retry_after.map(|seconds| format!("trying again in {seconds} s"))
}
