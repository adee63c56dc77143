//! The security events that are known here: their names, and what is done about each where nothing else is configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is done about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reaction {
    /// Recorded in the audit, nothing else.
    Inform,
    /// Points of risk for the subject, session or device, until it is said to be low again or `keep` is over.
    RaiseRisk,
    /// Only a strong authentication after the event counts.
    StepUp,
    /// What was issued up to the event is refused.
    Revoke,
    /// The state that the event tells is taken over: a device's compliance, an account that is enabled again.
    Record,
}

impl Reaction {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inform => "inform",
            Self::RaiseRisk => "raise_risk",
            Self::StepUp => "step_up",
            Self::Revoke => "revoke",
            Self::Record => "record",
        }
    }
}

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident $short:literal $family:ident $reaction:ident)+) => {
        /// A type of event, by the last part of its URI.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum EventType { $($(#[$doc])* #[serde(rename = $short)] $name),+ }

        impl EventType {
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $short),+ }
            }

            const fn family(self) -> &'static str {
                match self { $(Self::$name => $family),+ }
            }

            /// What is done about it where nothing else is configured.
            pub const fn default_reaction(self) -> Reaction {
                match self { $(Self::$name => Reaction::$reaction),+ }
            }
        }
    };
}

const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";
const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type/";

events! {
    SessionRevoked "session-revoked" CAEP Revoke
    TokenClaimsChange "token-claims-change" CAEP Revoke
    CredentialChange "credential-change" CAEP StepUp
    AssuranceLevelChange "assurance-level-change" CAEP StepUp
    DeviceComplianceChange "device-compliance-change" CAEP Record
    RiskLevelChange "risk-level-change" CAEP RaiseRisk
    SessionEstablished "session-established" CAEP Inform
    SessionPresented "session-presented" CAEP Inform
    AccountDisabled "account-disabled" RISC Revoke
    AccountEnabled "account-enabled" RISC Record
    AccountPurged "account-purged" RISC Revoke
    CredentialCompromise "credential-compromise" RISC StepUp
    SessionsRevoked "sessions-revoked" RISC Revoke
    CredentialChangeRequired "account-credential-change-required" RISC Inform
    IdentifierChanged "identifier-changed" RISC Inform
    IdentifierRecycled "identifier-recycled" RISC Inform
    RecoveryActivated "recovery-activated" RISC Inform
    Verification "verification" SSF Inform
    StreamUpdated "stream-updated" SSF Inform
}

impl EventType {
    pub fn uri(self) -> String {
        format!("{}{}", self.family(), self.as_str())
    }

    pub fn parse(uri: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|known| uri.strip_prefix(known.family()).is_some_and(|short| short == known.as_str()))
    }

    /// About the stream, not about somebody: nothing to configure.
    pub const fn is_of_the_stream(self) -> bool {
        matches!(self, Self::Verification | Self::StreamUpdated)
    }

    /// Whether this reaction to this event means something.
    pub const fn allows(self, reaction: Reaction) -> bool {
        match (self, reaction) {
            (Self::Verification | Self::StreamUpdated, _) => false,
            (_, Reaction::Inform) => true,
            (Self::AccountEnabled, reaction) => matches!(reaction, Reaction::Record),
            // A device that is not compliant is contradicted already: rules see it.
            (Self::DeviceComplianceChange, reaction) => !matches!(reaction, Reaction::Revoke),
            (_, reaction) => !matches!(reaction, Reaction::Record),
        }
    }

    /// Whether a subject that is one opaque word names a session (or device) rather than a user.
    pub(super) const fn is_of_session(self) -> bool {
        matches!(self, Self::SessionRevoked | Self::SessionEstablished | Self::SessionPresented)
    }
}

/// One event of a token: its type and what it tells.
#[derive(Debug)]
pub(super) struct Event<'a> {
    pub(super) kind: EventType,
    pub(super) claims: &'a Value,
}

impl Event<'_> {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.claims.get(name).and_then(Value::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_uri_reads_back_and_no_other_does() {
        for event in EventType::ALL {
            assert_eq!(EventType::parse(&event.uri()), Some(*event));
            assert!(event.is_of_the_stream() || event.allows(event.default_reaction()), "{event:?}");
        }
        for uri in ["", "session-revoked", "https://evil.example/session-revoked", &format!("{RISC}session-revoked")] {
            assert_eq!(EventType::parse(uri), None, "{uri}");
        }
    }
}
