//! Whom an event is about: from the subject identifiers of RFC 9493 and shared signals to what is known here.
//!
//! A subject that cannot be mapped is refused, never guessed: an event that silently does nothing is worse than an error
//! at its transmitter.

use serde_json::Value;

use super::{
    event::EventType,
    settings::{Format, SubjectSettings},
};

/// Longest identifier that is taken, in octets.
const MAX_ID: usize = 1024;

/// Whom an event is about, as far as it says. At least one is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) subject: Option<String>,
    pub(super) session: Option<String>,
    pub(super) device: Option<String>,
    pub(super) token: Option<String>,
}

impl Who {
    fn is_nobody(&self) -> bool {
        *self == Self::default()
    }

    /// Takes what `other` names and this does not.
    fn join(&mut self, other: Self) {
        let Self { subject, session, device, token } = other;
        self.subject = self.subject.take().or(subject);
        self.session = self.session.take().or(session);
        self.device = self.device.take().or(device);
        self.token = self.token.take().or(token);
    }
}

/// Why nobody could be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unknown {
    #[error("the subject is not a subject identifier")]
    Malformed,
    #[error("the subject names nobody that this receiver can know: see `subjects.formats`")]
    Unmapped,
    #[error("the transmitter may not speak about subjects of this issuer")]
    OtherIssuer,
    #[error("the subject has a critical member that is not understood")]
    Critical,
}

/// What may be named: the transmitter's settings, and the issuers of access tokens.
pub(super) struct Names<'a> {
    pub(super) settings: &'a SubjectSettings,
    pub(super) issuers: &'a [String],
    /// What the transmitter's metadata call critical, beside what the settings do.
    pub(super) critical: &'a [String],
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    User,
    Device,
    Session,
}

impl Names<'_> {
    /// # Errors
    ///
    /// Nobody that is known here.
    pub(super) fn find(&self, identifier: &Value, event: EventType) -> Result<Who, Unknown> {
        let members = identifier.as_object().ok_or(Unknown::Malformed)?;
        // Before formats had names, a complex subject was one without any.
        let format = match members.get("format") {
            Some(format) => format.as_str().ok_or(Unknown::Malformed)?,
            None if members.values().all(Value::is_object) => "complex",
            None => return Err(Unknown::Malformed),
        };
        let who = match format {
            "complex" => self.complex(identifier)?,
            "aliases" => self.aliases(identifier, event)?,
            _ => self.simple(identifier, role_of(event))?,
        };
        if who.is_nobody() { Err(Unknown::Unmapped) } else { Ok(who) }
    }

    /// Members that are not there match everything; those that narrow to what is not known here are left out, so that more
    /// is matched, not less, unless the configuration calls them critical.
    fn complex(&self, identifier: &Value) -> Result<Who, Unknown> {
        let members = identifier.as_object().ok_or(Unknown::Malformed)?;
        let known = |name: &str| matches!(name, "format" | "user" | "device" | "session");
        let critical = self.settings.critical.iter().chain(self.critical);
        if critical.into_iter().any(|name| !known(name) && members.contains_key(name)) {
            return Err(Unknown::Critical);
        }
        let mut who = Who::default();
        for (name, role) in [("session", Role::Session), ("user", Role::User), ("device", Role::Device)] {
            let Some(member) = members.get(name) else { continue };
            match self.simple(member, role) {
                Ok(found) => who.join(found),
                // The session says it all.
                Err(Unknown::Unmapped) if who.session.is_some() => {}
                Err(problem) => return Err(problem),
            }
        }
        Ok(who)
    }

    /// The same party by several names: those that are known here count.
    fn aliases(&self, identifier: &Value, event: EventType) -> Result<Who, Unknown> {
        let names = identifier.get("identifiers").and_then(Value::as_array).ok_or(Unknown::Malformed)?;
        let mut who = Who::default();
        let mut problem = Unknown::Unmapped;
        for name in names {
            if name.get("format").and_then(Value::as_str).is_none_or(|format| matches!(format, "aliases" | "complex")) {
                return Err(Unknown::Malformed);
            }
            match self.simple(name, role_of(event)) {
                Ok(found) => who.join(found),
                Err(Unknown::Malformed) => return Err(Unknown::Malformed),
                Err(other) => problem = other,
            }
        }
        if who.is_nobody() { Err(problem) } else { Ok(who) }
    }

    fn simple(&self, identifier: &Value, role: Role) -> Result<Who, Unknown> {
        let text = |name: &str| {
            let text = identifier.get(name).and_then(Value::as_str).ok_or(Unknown::Malformed)?;
            if (1..=MAX_ID).contains(&text.len()) { Ok(text.to_owned()) } else { Err(Unknown::Malformed) }
        };
        let (format, id) = match identifier.get("format").and_then(Value::as_str).ok_or(Unknown::Malformed)? {
            "iss_sub" => {
                // A library that transmitters are built with (caep.dev) writes `issuer`.
                self.allows(&text("iss").or_else(|_| text("issuer"))?)?;
                (Format::IssSub, text("sub")?)
            }
            "jwt_id" => {
                self.allows(&text("iss")?)?;
                return Ok(Who { token: Some(text("jti")?), ..Who::default() });
            }
            "opaque" => (Format::Opaque, text("id")?),
            "email" => (Format::Email, text("email")?),
            "phone_number" => (Format::PhoneNumber, text("phone_number")?),
            "account" => (Format::Account, text("uri")?),
            "did" => (Format::Did, text("url")?),
            "uri" => (Format::Uri, text("uri")?),
            _ => return Err(Unknown::Unmapped),
        };
        match role {
            Role::Device => Ok(Who { device: Some(id), ..Who::default() }),
            Role::Session if matches!(format, Format::Opaque | Format::Uri) => {
                Ok(Who { session: Some(id), ..Who::default() })
            }
            // A session event that names its user by a format of users is about all of their sessions.
            Role::User | Role::Session if self.settings.formats.contains(&format) => {
                Ok(Who { subject: Some(id), ..Who::default() })
            }
            Role::User | Role::Session => Err(Unknown::Unmapped),
        }
    }

    fn allows(&self, issuer: &str) -> Result<(), Unknown> {
        let list = if self.settings.issuers.is_empty() { self.issuers } else { &self.settings.issuers };
        if list.iter().any(|known| known == issuer) { Ok(()) } else { Err(Unknown::OtherIssuer) }
    }
}

/// What a subject that is not complex names.
const fn role_of(event: EventType) -> Role {
    match event {
        EventType::DeviceComplianceChange => Role::Device,
        _ if event.is_of_session() => Role::Session,
        _ => Role::User,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn find(identifier: &Value, event: EventType) -> Result<Who, Unknown> {
        let settings = SubjectSettings { critical: vec!["tenant".into()], ..SubjectSettings::default() };
        Names { settings: &settings, issuers: &["https://i.test".to_owned()], critical: &["org_unit".to_owned()] }
            .find(identifier, event)
    }

    fn subject(id: &str) -> Result<Who, Unknown> {
        Ok(Who { subject: Some(id.into()), ..Who::default() })
    }

    #[test]
    fn each_format_names_what_it_can() {
        let user = json!({"format": "iss_sub", "iss": "https://i.test", "sub": "ann"});
        let email = json!({"format": "email", "email": "ann@x.test"});
        let revoked = EventType::SessionRevoked;
        assert_eq!(find(&user, revoked), subject("ann"));
        assert_eq!(find(&user, EventType::AccountDisabled), subject("ann"));
        assert_eq!(find(&json!({"format": "opaque", "id": "s1"}), revoked).unwrap().session.as_deref(), Some("s1"));
        assert_eq!(find(&json!({"format": "opaque", "id": "ann"}), EventType::AccountPurged), subject("ann"));
        let device = find(&json!({"format": "opaque", "id": "d1"}), EventType::DeviceComplianceChange).unwrap();
        assert_eq!(device.device.as_deref(), Some("d1"));
        let token = json!({"format": "jwt_id", "iss": "https://i.test", "jti": "t1"});
        assert_eq!(find(&token, revoked).unwrap().token.as_deref(), Some("t1"));
        let aliases = json!({"format": "aliases", "identifiers": [email, user]});
        assert_eq!(find(&aliases, revoked), subject("ann"));
        for unmapped in [
            email.clone(),
            json!({"format": "phone_number", "phone_number": "+4930"}),
            json!({"format": "account", "uri": "acct:ann@x.test"}),
            json!({"format": "did", "url": "did:x:1"}),
            json!({"format": "saml_assertion_id", "issuer": "i", "assertion_id": "a"}),
            json!({"format": "ip-addresses", "ip-addresses": ["10.0.0.1"]}),
            json!({"format": "aliases", "identifiers": [email]}),
            json!({"format": "complex", "group": {"format": "opaque", "id": "g"}}),
        ] {
            assert_eq!(find(&unmapped, revoked), Err(Unknown::Unmapped), "{unmapped}");
        }
        for malformed in [
            json!("ann"),
            json!({}),
            json!({"format": "opaque"}),
            json!({"format": "opaque", "id": ""}),
            json!({"format": "opaque", "id": 7}),
            json!({"format": "iss_sub", "iss": "https://i.test"}),
            json!({"format": "aliases", "identifiers": [{"format": "aliases", "identifiers": []}]}),
            json!({"format": "complex", "user": "ann"}),
        ] {
            let found = find(&malformed, revoked);
            assert!(matches!(found, Err(Unknown::Malformed | Unknown::Unmapped)), "{malformed}: {found:?}");
        }
        let other = json!({"format": "iss_sub", "iss": "https://j.test", "sub": "ann"});
        assert_eq!(find(&other, revoked), Err(Unknown::OtherIssuer));
    }

    #[test]
    fn a_complex_subject_names_its_members_and_a_critical_one_must_be_understood() {
        let complex = json!({
            "format": "complex",
            "user": {"format": "iss_sub", "iss": "https://i.test", "sub": "ann"},
            "session": {"format": "opaque", "id": "s1"},
            "device": {"format": "opaque", "id": "d1"},
            "application": {"format": "opaque", "id": "a1"},
        });
        let who = find(&complex, EventType::SessionRevoked).unwrap();
        let named = [who.subject, who.session, who.device].map(Option::unwrap_or_default);
        assert_eq!(named, ["ann", "s1", "d1"]);
        let mut critical = complex;
        critical["tenant"] = json!({"format": "opaque", "id": "t"});
        assert_eq!(find(&critical, EventType::SessionRevoked), Err(Unknown::Critical), "by the settings");
        let members = critical.as_object_mut().unwrap();
        let tenant = members.remove("tenant").unwrap();
        members.insert("org_unit".into(), tenant);
        assert_eq!(find(&critical, EventType::SessionRevoked), Err(Unknown::Critical), "by the metadata");
    }
}
