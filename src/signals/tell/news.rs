//! What was decided here that others should know, and the events that say so. Pure.

use serde_json::{Value, json};

use super::super::event::EventType;
use crate::domain::UnixTime;

/// One decision of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    pub about: About,
    pub by: By,
    pub at: UnixTime,
    /// In words, for the receiver's administrators; may be empty.
    pub reason: String,
}

/// What was decided, and about whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// One session is over; of this user (issuer and subject), where it is known.
    Session(String, Option<(String, String)>),
    /// Everything of a subject that was issued up to now.
    Subject(String),
    /// One token, by its id.
    Token(String),
    /// A device was lost, suspended or revoked; or is in use again.
    Device(String, Standing),
    /// A device keeps its rules, or does not.
    Compliance(String, bool),
}

impl About {
    /// The device that this says something of, and whether that is good.
    pub fn standing(&self) -> Option<(&str, bool)> {
        match self {
            Self::Device(id, standing) => Some((id, *standing == Standing::Back)),
            Self::Compliance(id, good) => Some((id, *good)),
            Self::Session(..) | Self::Subject(_) | Self::Token(_) => None,
        }
    }
}

/// Whether a device may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Out,
    Back,
}

/// Who decided, in the words of CAEP (`initiating_entity`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Admin,
    Policy,
}

impl By {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Policy => "policy",
        }
    }
}

/// The event of one token: its type, its subject (RFC 9493) and what it tells.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    pub(super) kind: EventType,
    pub(super) subject: Value,
    pub(super) claims: Value,
}

impl News {
    /// The events that say it, in order. A revoked subject or token is so at every issuer: one event for each of `issuers`.
    pub(super) fn events(&self, issuers: &[String]) -> Vec<Told> {
        let revoked = |subject| self.told(EventType::SessionRevoked, subject, json!({}));
        let of_issuers =
            |subject: &dyn Fn(&str) -> Value| issuers.iter().map(|issuer| revoked(subject(issuer))).collect();
        match &self.about {
            About::Session(id, user) => {
                let mut subject = member("session", id);
                if let Some((iss, sub)) = user {
                    subject["user"] = json!({"format": "iss_sub", "iss": iss, "sub": sub});
                }
                vec![revoked(subject)]
            }
            About::Subject(id) => {
                of_issuers(&|iss| json!({"format": "complex", "user": {"format": "iss_sub", "iss": iss, "sub": id}}))
            }
            About::Token(id) => of_issuers(&|iss| json!({"format": "jwt_id", "iss": iss, "jti": id})),
            // Whoever knows the sessions of a device ends them; whoever knows the device stops trusting it.
            About::Device(id, Standing::Out) => vec![revoked(member("device", id)), self.compliance(id, false)],
            About::Device(id, Standing::Back) => vec![self.compliance(id, true)],
            About::Compliance(id, compliant) => vec![self.compliance(id, *compliant)],
        }
    }

    fn compliance(&self, device: &str, compliant: bool) -> Told {
        let word = |compliant| if compliant { "compliant" } else { "not-compliant" };
        let claims = json!({"current_status": word(compliant), "previous_status": word(!compliant)});
        self.told(EventType::DeviceComplianceChange, member("device", device), claims)
    }

    fn told(&self, kind: EventType, subject: Value, mut claims: Value) -> Told {
        claims["event_timestamp"] = self.at.as_secs().into();
        claims["initiating_entity"] = self.by.as_str().into();
        if !self.reason.is_empty() {
            claims["reason_admin"] = json!({"en": self.reason});
        }
        Told { kind, subject, claims }
    }
}

fn member(name: &str, id: &str) -> Value {
    json!({"format": "complex", name: {"format": "opaque", "id": id}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(about: About) -> Vec<Told> {
        let news = News { about, by: By::Admin, at: UnixTime::from_secs(1_790_000_000), reason: "lost".into() };
        news.events(&["https://i.test".to_owned(), "https://j.test".to_owned()])
    }

    #[test]
    fn a_session_is_named_alone_and_a_subject_at_every_issuer() {
        let user = || Some(("https://i.test".to_owned(), "ann".to_owned()));
        let of_ann = events(About::Session("s1".into(), user())).remove(0).subject;
        assert_eq!((&of_ann["user"]["sub"], &of_ann["session"]["id"]), (&json!("ann"), &json!("s1")));
        let session = events(About::Session("s1".into(), None));
        assert_eq!(session.len(), 1);
        assert_eq!(session[0].subject, json!({"format": "complex", "session": {"format": "opaque", "id": "s1"}}));
        let claims = json!({
            "event_timestamp": 1_790_000_000, "initiating_entity": "admin", "reason_admin": {"en": "lost"},
        });
        assert_eq!((session[0].kind, &session[0].claims), (EventType::SessionRevoked, &claims));
        let subjects: Vec<Value> =
            events(About::Subject("ann".into())).iter().map(|told| told.subject["user"]["iss"].clone()).collect();
        assert_eq!(subjects, ["https://i.test", "https://j.test"]);
        assert_eq!(events(About::Token("t1".into()))[0].subject["jti"], "t1");
    }

    #[test]
    fn a_lost_device_loses_its_sessions_and_its_standing_and_gets_only_that_back() {
        let kinds = |about| events(about).iter().map(|told| told.kind).collect::<Vec<_>>();
        let device = |standing| About::Device("d1".into(), standing);
        assert_eq!(kinds(device(Standing::Out)), [EventType::SessionRevoked, EventType::DeviceComplianceChange]);
        assert_eq!(kinds(device(Standing::Back)), [EventType::DeviceComplianceChange]);
        let told = &events(About::Compliance("d1".into(), false))[0];
        assert_eq!(
            (&told.claims["current_status"], &told.claims["previous_status"]),
            (&json!("not-compliant"), &json!("compliant"))
        );
        assert_eq!(told.subject["device"]["id"], "d1");
    }
}
