//! From an event and a reaction to what changes. Pure: what comes out is written elsewhere.

use super::{
    event::{Event, EventType, Reaction},
    subject::Who,
};
use crate::{
    domain::ReportedRisk,
    notice::{Kind, Word},
};

/// One change. All are such that doing them again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    RevokeToken(String),
    RevokeSession(String),
    /// Tokens that were issued up to the event.
    RevokeSubject(String),
    Compliance(String, bool),
    Say(Kind, String, Word),
}

/// What is wrong with an event's own members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is missing or not one of its values")]
pub(super) struct Malformed(&'static str);

/// What a reaction to an event about somebody changes; nothing where it is harmless.
pub(super) fn effects(event: &Event<'_>, reaction: Reaction, who: &Who) -> Result<Vec<Effect>, Malformed> {
    let harmless = is_harmless(event)?;
    let mut effects = match event.kind {
        EventType::RiskLevelChange => return risk(event, reaction, who),
        EventType::DeviceComplianceChange => {
            let device = who.device.clone().ok_or(Malformed("device"))?;
            let mut effects = Vec::new();
            if reaction != Reaction::Inform {
                effects.push(Effect::Compliance(device.clone(), harmless));
            }
            let device = (Kind::Device, device);
            match (reaction, harmless) {
                (Reaction::RaiseRisk, true) => effects.push(say(device, Word::Risk(None))),
                (Reaction::RaiseRisk, false) => effects.push(say(device, Word::Risk(Some(ReportedRisk::Medium)))),
                (Reaction::StepUp, false) => effects.push(say(device, Word::Strong)),
                _ => {}
            }
            return Ok(effects);
        }
        EventType::AccountEnabled => {
            let enabled = reaction == Reaction::Record;
            let subject = who.subject.clone().filter(|_| enabled);
            return Ok(subject.map(|subject| say((Kind::Subject, subject), Word::Enabled)).into_iter().collect());
        }
        _ if harmless => return Ok(Vec::new()),
        _ => general(reaction, who),
    };
    if reaction == Reaction::Revoke
        && matches!(event.kind, EventType::AccountDisabled | EventType::AccountPurged)
        && let Some(subject) = &who.subject
    {
        effects.push(say((Kind::Subject, subject.clone()), Word::Disabled));
    }
    Ok(effects)
}

/// A change for the better, or of something that was added.
fn is_harmless(event: &Event<'_>) -> Result<bool, Malformed> {
    let one_of = |name: &'static str, good: &[&str], bad: &[&str]| match event.text(name) {
        Some(word) if good.contains(&word) => Ok(true),
        Some(word) if bad.contains(&word) => Ok(false),
        Some(_) | None => Err(Malformed(name)),
    };
    match event.kind {
        EventType::CredentialChange => one_of("change_type", &["create"], &["revoke", "update", "delete"]),
        EventType::AssuranceLevelChange => match event.claims.get("change_direction") {
            None => Ok(false),
            Some(_) => one_of("change_direction", &["increase"], &["decrease"]),
        },
        EventType::DeviceComplianceChange => one_of("current_status", &["compliant"], &["not-compliant"]),
        _ => Ok(false),
    }
}

/// The narrowest that the event names: its session alone where there is one.
fn general(reaction: Reaction, who: &Who) -> Vec<Effect> {
    match reaction {
        Reaction::Inform | Reaction::Record => Vec::new(),
        Reaction::RaiseRisk => {
            spoken_of(who).map(|who| say(who, Word::Risk(Some(ReportedRisk::Medium)))).into_iter().collect()
        }
        Reaction::StepUp => spoken_of(who).map(|who| say(who, Word::Strong)).into_iter().collect(),
        Reaction::Revoke => match who {
            Who { session: Some(session), .. } => vec![Effect::RevokeSession(session.clone())],
            Who { token: Some(token), .. } => vec![Effect::RevokeToken(token.clone())],
            Who { subject: Some(subject), .. } => vec![Effect::RevokeSubject(subject.clone())],
            // Which sessions are of a device is not known: each must show a strong authentication after the event.
            Who { device: Some(device), .. } => vec![say((Kind::Device, device.clone()), Word::Strong)],
            _ => Vec::new(),
        },
    }
}

/// `principal` says which member of the subject is at risk.
fn risk(event: &Event<'_>, reaction: Reaction, who: &Who) -> Result<Vec<Effect>, Malformed> {
    let level = match event.text("current_level") {
        Some("LOW") => None,
        Some("MEDIUM") => Some(ReportedRisk::Medium),
        Some("HIGH") => Some(ReportedRisk::High),
        _ => return Err(Malformed("current_level")),
    };
    let of = |kind: Kind, id: &Option<String>| id.clone().map(|id| (kind, id));
    let about = match event.text("principal") {
        Some("USER") => of(Kind::Subject, &who.subject),
        Some("DEVICE") => of(Kind::Device, &who.device),
        Some("SESSION") => of(Kind::Session, &who.session),
        Some(_) => spoken_of(who),
        None => return Err(Malformed("principal")),
    };
    let Some(about) = about else { return Err(Malformed("principal")) };
    let word = match (reaction, level) {
        (Reaction::RaiseRisk, level) => Word::Risk(level),
        (Reaction::StepUp, Some(_)) => Word::Strong,
        (Reaction::Revoke, Some(_)) => return Ok(general(Reaction::Revoke, &only(about))),
        _ => return Ok(Vec::new()),
    };
    Ok(vec![say(about, word)])
}

fn only((kind, id): (Kind, String)) -> Who {
    let (mut who, id) = (Who::default(), Some(id));
    match kind {
        Kind::Subject => who.subject = id,
        Kind::Session => who.session = id,
        Kind::Device => who.device = id,
        // Only we speak of those.
        Kind::Login => {}
    }
    who
}

fn spoken_of(who: &Who) -> Option<(Kind, String)> {
    let of = |kind: Kind, id: &Option<String>| id.clone().map(|id| (kind, id));
    of(Kind::Session, &who.session)
        .or_else(|| of(Kind::Subject, &who.subject))
        .or_else(|| of(Kind::Device, &who.device))
}

fn say((kind, id): (Kind, String), word: Word) -> Effect {
    Effect::Say(kind, id, word)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn who(text: &str) -> Who {
        let has = |name: &str| text.contains(name).then(|| name.to_owned());
        Who { subject: has("ann"), session: has("s1"), device: has("d1"), token: has("t1") }
    }

    fn of(kind: EventType, claims: &Value, reaction: Reaction, text: &str) -> Result<Vec<Effect>, Malformed> {
        effects(&Event { kind, claims }, reaction, &who(text))
    }

    fn said(kind: Kind, id: &str, word: Word) -> Effect {
        Effect::Say(kind, id.into(), word)
    }

    #[test]
    fn a_session_in_the_subject_ends_that_session_only() {
        let revoked = |text| of(EventType::SessionRevoked, &json!({}), Reaction::Revoke, text).unwrap();
        assert_eq!(revoked("ann s1 d1"), [Effect::RevokeSession("s1".into())]);
        assert_eq!(revoked("ann d1"), [Effect::RevokeSubject("ann".into())]);
        assert_eq!(revoked("d1"), [said(Kind::Device, "d1", Word::Strong)]);
        assert_eq!(revoked("t1"), [Effect::RevokeToken("t1".into())]);
        assert_eq!(of(EventType::SessionRevoked, &json!({}), Reaction::Inform, "s1"), Ok(Vec::new()));
    }

    #[test]
    fn an_account_is_disabled_until_it_is_enabled() {
        let disabled = of(EventType::AccountDisabled, &json!({}), Reaction::Revoke, "ann").unwrap();
        assert_eq!(disabled, [Effect::RevokeSubject("ann".into()), said(Kind::Subject, "ann", Word::Disabled)]);
        let enabled = of(EventType::AccountEnabled, &json!({}), Reaction::Record, "ann").unwrap();
        assert_eq!(enabled, [said(Kind::Subject, "ann", Word::Enabled)]);
        assert_eq!(of(EventType::AccountEnabled, &json!({}), Reaction::Inform, "ann"), Ok(Vec::new()));
    }

    #[test]
    fn a_change_for_the_better_takes_nothing() {
        let change = |word: &str| json!({"change_type": word, "change_direction": word, "current_status": word});
        for (kind, good, bad) in [
            (EventType::CredentialChange, "create", "delete"),
            (EventType::AssuranceLevelChange, "increase", "decrease"),
        ] {
            assert_eq!(of(kind, &change(good), Reaction::StepUp, "ann"), Ok(Vec::new()));
            let strong = [said(Kind::Subject, "ann", Word::Strong)];
            assert_eq!(of(kind, &change(bad), Reaction::StepUp, "ann").unwrap(), strong);
            assert!(of(kind, &change("sideways"), Reaction::StepUp, "ann").is_err());
        }
        let device = |word| of(EventType::DeviceComplianceChange, &change(word), Reaction::Record, "d1");
        assert_eq!(device("compliant").unwrap(), [Effect::Compliance("d1".into(), true)]);
        assert_eq!(device("not-compliant").unwrap(), [Effect::Compliance("d1".into(), false)]);
        assert!(device("unknown").is_err());
        assert!(of(EventType::DeviceComplianceChange, &change("compliant"), Reaction::Record, "ann").is_err());
    }

    #[test]
    fn risk_is_of_whom_the_event_says_and_falls_again() {
        let risk = |principal: &str, level: &str, reaction| {
            let claims = json!({"principal": principal, "current_level": level});
            of(EventType::RiskLevelChange, &claims, reaction, "ann d1")
        };
        let high = Word::Risk(Some(ReportedRisk::High));
        assert_eq!(risk("USER", "HIGH", Reaction::RaiseRisk).unwrap(), [said(Kind::Subject, "ann", high)]);
        assert_eq!(risk("DEVICE", "LOW", Reaction::RaiseRisk).unwrap(), [said(Kind::Device, "d1", Word::Risk(None))]);
        assert_eq!(risk("USER", "HIGH", Reaction::StepUp).unwrap(), [said(Kind::Subject, "ann", Word::Strong)]);
        assert_eq!(risk("USER", "LOW", Reaction::Revoke), Ok(Vec::new()));
        assert_eq!(risk("USER", "HIGH", Reaction::Revoke).unwrap(), [Effect::RevokeSubject("ann".into())]);
        assert!(risk("SESSION", "HIGH", Reaction::RaiseRisk).is_err(), "no session is named");
        assert!(risk("USER", "severe", Reaction::RaiseRisk).is_err());
    }
}
