//! Everything one decision is made from. Gathered by the pipeline, judged by `decision`, recorded for replay.

use std::{ops::Not, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::{
    AccessRequest, Assessment, CredentialProblem, DeviceSighting, Fact, Identity, Notice, Place, SessionState,
    UnixTime, Workload,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The wall clock when the request was read. The only clock a decision knows.
    pub now: UnixTime,
    pub request: AccessRequest,
    /// `Absent`: the request carries no credentials. `Unavailable`: keys or introspection cannot be had just now.
    pub credential: Fact<Credential>,
    /// The peer workload, where Envoy vouches for one.
    #[serde(default, skip_serializing_if = "Fact::is_not_asked")]
    pub workload: Fact<Workload>,
    /// `NotAsked` exactly when there is no identity to ask about.
    #[serde(default, skip_serializing_if = "Fact::is_not_asked")]
    pub revocation: Fact<Revocation>,
    /// What others have told about the subject, the session and the device.
    #[serde(default, skip_serializing_if = "Fact::is_not_asked")]
    pub notice: Fact<Notice>,
    /// `Absent`: the request names no device at all.
    #[serde(default, skip_serializing_if = "Fact::is_not_asked")]
    pub device: Fact<DeviceSighting>,
    #[serde(default, skip_serializing_if = "Fact::is_not_asked")]
    pub place: Fact<Place>,
    #[serde(default, skip_serializing_if = "Fact::is_not_asked")]
    pub behavior: Fact<Behavior>,
    #[serde(default, skip_serializing_if = "Fact::is_not_asked")]
    pub session: Fact<SessionState>,
    /// The quota that the route's policy asks for, taken last and only when a dry decision would allow.
    #[serde(default, skip_serializing_if = "Fact::is_not_asked")]
    pub quota: Fact<Quota>,
}

impl Facts {
    /// The verified identity, if there is one.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        match self.credential.value() {
            Some(Credential::Verified { identity, .. }) => Some(identity),
            Some(Credential::Refused(_)) | None => None,
        }
    }

    /// The verified identity that an upstream may be told of: nothing that was looked up has ended it.
    ///
    /// Elsewhere a decision has seen to that. On a public resource nobody is refused, and a token that was revoked, or
    /// whose revocation cannot be known, is nobody's, like any bad token.
    pub fn caller(&self) -> Option<&Arc<Identity>> {
        let identity = self.identity()?;
        let clear = matches!(self.revocation, Fact::Known { value: Revocation::Clear, .. });
        let enabled = match &self.notice {
            Fact::Known { value, .. } => !value.disabled && !value.ends(identity),
            Fact::Absent | Fact::NotAsked => true,
            Fact::Unavailable(_) => false,
        };
        let ended = match &self.session {
            Fact::Known { value, .. } => value.ended,
            Fact::Absent | Fact::NotAsked => false,
            Fact::Unavailable(_) => true,
        };
        (clear && enabled && !ended).then_some(identity)
    }
}

/// What became of the credentials that a request carried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    Verified {
        identity: Arc<Identity>,
        /// How the request proved possession of the token's key, if it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        proof: Option<Possession>,
    },
    Refused(CredentialProblem),
}

/// A proof of possession that verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Possession {
    /// RFC 9449.
    Dpop,
    /// RFC 8705.
    Certificate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revocation {
    Clear,
    Revoked(RevocationKind),
}

/// What a revocation names: the middle of its key, `cs:revoked:<kind>:<id>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RevocationKind {
    #[serde(rename = "jti")]
    Token,
    #[serde(rename = "sid")]
    Session,
    #[serde(rename = "sub")]
    Subject,
    #[serde(rename = "device")]
    Device,
}

impl RevocationKind {
    pub const ALL: [Self; 4] = [Self::Token, Self::Session, Self::Subject, Self::Device];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "jti",
            Self::Session => "sid",
            Self::Subject => "sub",
            Self::Device => "device",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What the subject's past says of this request.
#[skip_serializing_none]
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Behavior {
    #[serde(default, skip_serializing_if = "Not::not")]
    pub unusual_time: bool,
    #[serde(default, skip_serializing_if = "Not::not")]
    pub rapid_requests: bool,
    /// The device is new to the subject; `None`: no history.
    pub new_device: Option<bool>,
    /// 0 to 1, for the trust score; `None`: no history, or too short a one.
    pub score: Option<f64>,
    /// What the learning model says, where one runs.
    #[serde(default)]
    pub assessment: Option<Assessment>,
}

/// What taking a token from the route's rate limit brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    pub allowed: bool,
    pub limit: u32,
    pub remaining: u32,
    /// Seconds until a request would be let through again (0 when this one was), and until the limit is whole.
    pub retry_after: u32,
    pub reset: u32,
}
