//! What a decision says: enough for the answer, the audit record and an explanation, and nothing that grants anything.

use std::sync::Arc;

use serde::Serialize;
use smallvec::SmallVec;

use super::reason::{ActionRequired, Class, Reason};
use crate::{
    domain::{
        AuthMethods, Classification, Lines, PolicyId, RiskLevel, RiskScore, Role, RuleId, TrustLevel, TrustScore,
        Unavailable, UnixTime,
    },
    policy::{RateLimit, Restrictions},
    risk::statistical::Outcome,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Allow,
    Deny,
    /// Never an allow: the named authentication first.
    StepUp,
}

impl Verdict {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::StepUp => "step-up",
        }
    }
}

/// The judgement of one request under one set of rules.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    pub verdict: Verdict,
    /// The class that answered, its reason and the rule behind it; `None` on an allow.
    pub class: Option<Class>,
    pub reason: Option<Reason>,
    pub rule: Option<RuleId>,
    /// Everything that spoke against the request, in the order of the rules.
    #[serde(serialize_with = "list")]
    pub findings: Findings,
    pub risk: Risk,
    pub trust: Trust,
    pub resource: Option<Arc<str>>,
    pub policy: Option<PolicyId>,
    pub data_classification: Option<Classification>,
    /// How access was held, where it was; on a refusal it is what would have been.
    pub grant: Option<Grant>,
    pub restrictions: Restrictions,
    /// The record of this decision must be written, or there is no access.
    pub audit_required: bool,
    pub step_up: Option<StepUp>,
    /// Seconds; on 429 and 503.
    pub retry_after: Option<u32>,
    /// Scopes, separated by spaces, with which a token would have got further.
    pub scope: Option<Arc<str>>,
    /// Limits that must be taken before an allow holds.
    pub quota: Option<QuotaWanted>,
    /// Seconds until the session must be looked at again, whatever comes first.
    pub session_ttl: Option<u64>,
    /// Milliseconds that the answer may go on, where it may be a stream: to the end of the token or the next verification.
    /// At least 1.
    pub stream_limit: Option<u64>,
    pub next_verification: Option<UnixTime>,
    /// What the session must remember of this decision.
    pub session: SessionEffect,
}

/// A small vector as a plain list.
fn list<S: serde::Serializer, A: smallvec::Array<Item: Serialize>>(
    items: &SmallVec<A>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(items)
}

/// Findings of one request; most have none.
pub type Findings = SmallVec<[Finding; 2]>;

impl Decision {
    pub fn is_allow(&self) -> bool {
        self.verdict == Verdict::Allow
    }

    /// The HTTP status of the answer: 200 on an allow.
    pub fn status(&self) -> u16 {
        match (self.reason, self.class) {
            (Some(reason), Some(class)) => reason.status_in(class),
            _ if self.is_allow() => 200,
            _ => 403,
        }
    }

    /// The word for `error` in the body; `None` on an allow.
    pub fn error(&self) -> Option<&'static str> {
        self.class.map(Class::error)
    }

    /// What it means for learning. A challenge that fails is not seen here: nobody comes back to tell of it.
    pub fn teaches(&self) -> Outcome {
        match (self.verdict, self.session) {
            (Verdict::Allow, SessionEffect::SteppedUp(..)) => Outcome::StepUpPassed,
            (Verdict::Allow, _) => Outcome::Allowed,
            (Verdict::StepUp, _) => Outcome::Challenged,
            (Verdict::Deny, _) => Outcome::Denied,
        }
    }

    pub fn action_required(&self) -> ActionRequired {
        match (self.reason, self.class) {
            // What a step-up could have mended and cannot is no longer the caller's to mend.
            (Some(reason), Some(Class::Refused)) if reason.class() == Class::StepUp => ActionRequired::ContactAdmin,
            (Some(reason), _) => reason.action_required(),
            (None, _) => ActionRequired::None,
        }
    }

    /// A refusal for a reason that no facts are needed for: the record that must be written cannot be.
    ///
    /// Never an allow, whatever the reason.
    pub fn refusal(reason: Reason) -> Box<Self> {
        Self::from_findings(Findings::from_iter([Finding::new(reason, None)]))
    }

    /// A decision in which nothing is known but what speaks against it. Boxed from the start: it is large, and all that is
    /// found out besides is written into it.
    pub(super) fn from_findings(findings: Findings) -> Box<Self> {
        let mut decision = Box::new(Self {
            verdict: Verdict::Deny,
            class: Some(Class::Refused),
            reason: Some(Reason::NoMatchingResource),
            rule: None,
            findings,
            risk: Risk::default(),
            trust: Trust::default(),
            resource: None,
            policy: None,
            data_classification: None,
            grant: None,
            restrictions: Restrictions::default(),
            audit_required: false,
            step_up: None,
            retry_after: None,
            scope: None,
            quota: None,
            session_ttl: None,
            stream_limit: None,
            next_verification: None,
            session: SessionEffect::Keep,
        });
        decision.answer();
        decision
    }

    /// Lets the first class with a member answer, and its first finding name the reason.
    ///
    /// INVARIANT: without a grant, or with any finding, the verdict is not `Allow`.
    pub(super) fn answer(&mut self) {
        // The first of the lowest class: `min_by_key` returns the first of equals.
        let Some(first) = self.findings.iter().min_by_key(|finding| finding.class) else {
            if self.grant.is_some() {
                (self.verdict, self.class, self.reason, self.rule) = (Verdict::Allow, None, None, None);
            }
            return;
        };
        let steps_up = first.class == Class::StepUp && self.step_up.is_some();
        self.verdict = if steps_up { Verdict::StepUp } else { Verdict::Deny };
        (self.class, self.reason, self.rule) = (Some(first.class), Some(first.reason), first.rule.clone());
        self.retry_after = match first.class {
            Class::Unknown => Some(self.retry_after.unwrap_or(1)),
            Class::RateLimited => self.retry_after,
            _ => None,
        };
        if !steps_up {
            self.step_up = None;
        }
    }
}

/// One thing that speaks against a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub reason: Reason,
    pub class: Class,
    /// The guard, resource, policy or attribute policy that says so.
    pub rule: Option<RuleId>,
    /// For the audit record and explanations, never for the caller.
    pub detail: Detail,
}

impl Finding {
    pub fn new(reason: Reason, rule: Option<RuleId>) -> Self {
        Self { reason, class: reason.class(), rule, detail: Detail::None }
    }

    pub fn with(self, detail: Detail) -> Self {
        Self { detail, ..self }
    }
}

/// What exactly was missing or wrong.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    None,
    /// The fact could not be had.
    Missing(Unavailable),
    Device(DeviceProblem),
    /// The device requirement that is not met, by its key.
    Requirement(&'static str),
    /// The level or score that was asked for.
    Level(TrustLevel),
    Score(f64),
    /// The methods that are missing.
    Methods(AuthMethods),
    Classification(Option<Classification>),
    Path(crate::domain::path::PathProblem),
    /// The extension of the route that is not understood.
    Extension(&'static str),
    /// Seconds since the authentication.
    Age(u64),
    /// The risk that a guard stopped.
    Risk(f64),
}

/// What contradicts a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceProblem {
    OtherOwner,
    FingerprintDiffers,
    KeyDiffers,
    Suspended,
    Revoked,
    NotCompliant,
    Jailbroken,
    /// Its own certificate, shown outside its time.
    CertificateExpired,
    /// Another device than the token names.
    DiffersFromToken,
    /// The token names a device, and the request none.
    OwedToToken,
}

impl DeviceProblem {
    /// What the caller is told. What would help somebody who copied a header is one and the same word.
    pub const fn reason(self) -> Reason {
        match self {
            Self::OtherOwner => Reason::DeviceOtherOwner,
            Self::Suspended => Reason::DeviceSuspended,
            Self::Revoked => Reason::DeviceRevoked,
            Self::NotCompliant => Reason::DeviceNotCompliant,
            Self::Jailbroken => Reason::DeviceJailbroken,
            Self::CertificateExpired => Reason::DeviceCertificateExpired,
            Self::FingerprintDiffers | Self::KeyDiffers | Self::DiffersFromToken | Self::OwedToToken => {
                Reason::DeviceUntrusted
            }
        }
    }
}

/// Why access is held.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// The resource is public.
    Public,
    /// The resource asks for valid credentials and no more.
    Authenticated,
    /// The resource names no permission, and its policy allows.
    Policy(PolicyId),
    /// The token holds the permission itself.
    Direct,
    /// A role of the token holds it.
    Role(Role),
    /// An attribute policy permits it.
    Attribute(RuleId),
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Risk {
    pub score: RiskScore,
    pub level: RiskLevel,
    #[serde(serialize_with = "list")]
    pub lines: Lines,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trust {
    pub score: TrustScore,
    /// The level that counts: the session's, where it has not risen yet to what the score makes.
    pub level: TrustLevel,
    /// The level of the score alone.
    pub raw_level: TrustLevel,
    #[serde(serialize_with = "list")]
    pub lines: Lines,
}

impl Default for Risk {
    fn default() -> Self {
        Self { score: RiskScore::default(), level: RiskLevel::Low, lines: Lines::new() }
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self {
            score: TrustScore::default(),
            level: TrustLevel::Untrusted,
            raw_level: TrustLevel::Untrusted,
            lines: Lines::new(),
        }
    }
}

/// The authentication that would do, and no more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StepUp {
    /// The kind of authentication; `None`: the same again, only fresher.
    pub level: Option<StepUpLevel>,
    /// Seconds since the authentication, at most.
    pub max_age: Option<u64>,
    /// Methods that would do.
    pub methods: AuthMethods,
}

/// Kinds of authentication, least first; the configuration names an `acr` value for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepUpLevel {
    Mfa,
    PhishingResistant,
    Hardware,
}

impl StepUpLevel {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mfa => "mfa",
            Self::PhishingResistant => "phishing-resistant",
            Self::Hardware => "hardware",
        }
    }
}

/// Rate limits to take a token from, all of them: one entry for each policy that has some, never empty.
pub type QuotaWanted = SmallVec<[PolicyLimits; 1]>;

/// The limits of one policy, counted under its name: what another policy of the request allows is counted apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicyLimits {
    pub policy: PolicyId,
    pub limits: Arc<[RateLimit]>,
}

/// What must be remembered with the session, so that a step-up guard is satisfied once, not asked for again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionEffect {
    Keep,
    /// A step-up guard applied and is not satisfied: set `challenged_at` to now, unless it is set.
    Challenged,
    /// A strong authentication after the challenge satisfied it: set `stepped_up`.
    SteppedUp(AuthMethods, UnixTime),
    /// A rule ends it.
    End,
}
