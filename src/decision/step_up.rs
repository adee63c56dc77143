//! The least authentication that would make it an allow, found by deciding again with changed facts: "what if".
//!
//! A rung that changes nothing is not tried: a token that already has what would be asked for gets a refusal, not the
//! same challenge again. `max_age` is always below the present age, so no challenge can be met by what is at hand. And
//! what a new token of this issuer has shown that it never says, a method or a time, is not asked for again.

use super::{
    conditions::is_contextual,
    outcome::{Detail, Finding, Findings, StepUp, StepUpLevel},
    reason::{Class, Reason},
    scene::{FRESH, Scene, WhatIf},
};
use crate::domain::{AuthMethod, AuthMethods, Fact, UnixTime};

/// Which kind of authentication a rung asks for, and whether it must be new.
type Rung = (Option<StepUpLevel>, bool);

const SECOND_FACTOR: Rung = (Some(StepUpLevel::Mfa), false);
const FRESHER: Rung = (None, true);
const STRONGER: [Rung; 5] = [
    (Some(StepUpLevel::Mfa), true),
    (Some(StepUpLevel::PhishingResistant), false),
    (Some(StepUpLevel::PhishingResistant), true),
    (Some(StepUpLevel::Hardware), false),
    (Some(StepUpLevel::Hardware), true),
];

/// The first rung that `allows`.
pub(super) fn least(scene: &Scene<'_>, findings: &Findings, allows: impl Fn(WhatIf) -> bool) -> Option<StepUp> {
    if scene.is_service() {
        return None;
    }
    let age_is_all = findings.iter().all(|finding| {
        let age = matches!(finding.reason, Reason::SessionTooOld | Reason::ReverificationDue | Reason::SessionChanged);
        finding.class != Class::StepUp || age
    });
    let easiest = if age_is_all { [FRESHER, SECOND_FACTOR] } else { [SECOND_FACTOR, FRESHER] };
    let silent = findings.iter().any(|finding| is_silent(scene, finding));
    let asking = Asking { missing: missing_methods(findings), max_age: max_age(scene, findings, silent), silent };
    easiest.into_iter().chain(STRONGER).find_map(|rung| {
        let (step_up, what_if) = change(scene, rung, asking)?;
        allows(what_if).then_some(step_up)
    })
}

/// What every rung has to go by.
#[derive(Clone, Copy)]
struct Asking {
    /// Methods that the rules name and the caller has not used.
    missing: AuthMethods,
    max_age: Option<u64>,
    /// Tokens of this caller do not say when they authenticated: no new one will show that it was in this context.
    silent: bool,
}

/// What a rung asks for and changes; `None` where the token in hand would answer it already.
fn change(scene: &Scene<'_>, (level, fresh): Rung, asking: Asking) -> Option<(StepUp, WhatIf)> {
    if !fresh && level.is_some_and(|level| is_named(scene, level)) {
        return None;
    }
    let max_age = if fresh { Some(asking.max_age?) } else { None };
    let methods = match level {
        Some(level) => added(scene, level, asking.missing, fresh)?,
        None => AuthMethods::NONE,
    };
    let strong = scene.methods.union(methods).is_multi_factor();
    let what_if = WhatIf { methods, authenticated: max_age, stepped_up: strong && !asking.silent };
    Some((StepUp { level, max_age, methods }, what_if))
}

/// Whether the token carries the very `acr` that a challenge of this level asks for, whatever its issuer's tokens count as.
fn is_named(scene: &Scene<'_>, level: StepUpLevel) -> bool {
    let asked = &scene.rules.options().acr_values;
    let value = match level {
        StepUpLevel::Mfa => &asked.mfa,
        StepUpLevel::PhishingResistant => &asked.phishing_resistant,
        StepUpLevel::Hardware => &asked.hardware,
    };
    !value.is_empty() && scene.identity.acr.as_ref() == Some(value)
}

/// Methods that an authentication of a level brings: what the rules name and it can give, else one of its own.
///
/// `None` where the caller is at that level already and the rules name nothing more of it: asking for it would be asking
/// for what is there. A challenge names levels, not methods: which one is missing, of a level that the caller has shown,
/// only an authentication made anew might bring.
fn added(scene: &Scene<'_>, level: StepUpLevel, missing: AuthMethods, fresh: bool) -> Option<AuthMethods> {
    let might = |method: &AuthMethod| {
        let its = level_of(*method);
        its <= level && (fresh || !its.is_shown_by(scene.methods))
    };
    let named: AuthMethods = missing.iter().filter(might).collect();
    match (level.is_shown_by(scene.methods.union(named)), named.is_empty()) {
        (true, true) => None,
        (true, false) => Some(named),
        (false, _) => Some(named.with(level.method())),
    }
}

impl StepUpLevel {
    /// The method that an authentication of this level counts as where nothing says which it was.
    pub const fn method(self) -> AuthMethod {
        match self {
            Self::Mfa => AuthMethod::MfaTotp,
            Self::PhishingResistant => AuthMethod::Biometric,
            Self::Hardware => AuthMethod::HardwareKey,
        }
    }

    /// Whether a caller of these methods has shown this level: it is not asked for again.
    pub fn is_shown_by(self, methods: AuthMethods) -> bool {
        match self {
            Self::Mfa => methods.is_multi_factor(),
            Self::PhishingResistant | Self::Hardware => methods.iter().any(|method| level_of(method) >= self),
        }
    }
}

const fn level_of(method: AuthMethod) -> StepUpLevel {
    match method {
        AuthMethod::Password | AuthMethod::MfaTotp | AuthMethod::MfaPush => StepUpLevel::Mfa,
        AuthMethod::Biometric => StepUpLevel::PhishingResistant,
        AuthMethod::Certificate | AuthMethod::HardwareKey => StepUpLevel::Hardware,
    }
}

fn missing_methods(findings: &Findings) -> AuthMethods {
    findings.iter().fold(AuthMethods::NONE, |all, finding| match finding.detail {
        Detail::Methods(missing) => all.union(missing),
        _ => all,
    })
}

/// How old an authentication may be that still helps, in seconds; `None` where the present one is no older.
fn max_age(scene: &Scene<'_>, findings: &Findings, silent: bool) -> Option<u64> {
    let age = scene.age as u64;
    let longest = scene.target.policies.iter().filter_map(|policy| policy.constraints.session_duration).min();
    let limit = longest.map_or(FRESH, |longest| FRESH.min(longest.as_secs()));
    let anew = |finding: &Finding| {
        is_contextual(finding) || matches!(finding.reason, Reason::ReverificationDue | Reason::ReauthenticationRequired)
    };
    if age > limit {
        Some(limit)
    } else if findings.iter().any(anew) && !silent {
        Some(age.saturating_sub(1))
    } else {
        None
    }
}

/// Whether the token was issued after `finding` asked for a strong authentication, and does not say when there was one.
fn is_silent(scene: &Scene<'_>, finding: &Finding) -> bool {
    let asked_at = if finding.reason == Reason::ReauthenticationRequired {
        scene.facts.notice.value().and_then(|notice| notice.strong_after)
    } else if !is_contextual(finding) {
        None
    } else if matches!(scene.facts.session, Fact::NotAsked) {
        // Nothing remembers. A token that is new now was fetched for this, or the next one will be.
        (scene.age as u64 <= FRESH).then_some(UnixTime::EPOCH)
    } else {
        scene.session().and_then(|session| session.challenged_at)
    };
    scene.methods.is_multi_factor()
        && scene.auth_time().is_none()
        && !scene.identity.issue_unstated
        && asked_at.is_some_and(|asked| scene.identity.issued_at.as_secs() > asked.as_secs())
}
