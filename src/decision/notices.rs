//! What notices of security events say against a request: a disabled account, a strong authentication that must be newer.

use super::{
    outcome::{Detail, Finding, Findings},
    posture::{Lack, Posture, Sensitivity, Subject, posture},
    reason::{Class, Reason},
    scene::Scene,
};
use crate::domain::{Fact, UnixTime};

pub(super) fn apply(scene: &Scene<'_>, findings: &mut Findings) {
    let notice = match &scene.facts.notice {
        Fact::Known { value, .. } => value,
        lacking => {
            if let Some(lack) = Lack::of(lacking)
                && let Posture::Refuse(reason) = posture(Subject::Notice, lack, Sensitivity::Weighed)
            {
                let detail = if let Lack::Unavailable(why) = lack { Detail::Missing(why) } else { Detail::None };
                findings.push(Finding::new(reason, None).with(detail));
            }
            return;
        }
    };
    if notice.disabled {
        findings.push(Finding::new(Reason::AccountDisabled, None));
    }
    if notice.ends(scene.identity) {
        findings.push(Finding::new(Reason::SessionEnded, None));
    }
    if let Some(after) = notice.strong_after
        && !is_met(scene, after)
    {
        let mut finding = Finding::new(Reason::ReauthenticationRequired, None).with(Detail::Age(scene.age as u64));
        if scene.is_service() {
            // A service cannot do MFA; it can obtain a new token.
            finding.class = Class::Revoked;
        }
        findings.push(finding);
    }
}

/// Tokens count time in whole seconds. One of the very second of the event may be from before it.
fn is_met(scene: &Scene<'_>, after: UnixTime) -> bool {
    let later = |time: UnixTime| time.as_secs() > after.as_secs();
    if scene.is_service() {
        return !scene.identity.issue_unstated && later(scene.identity.issued_at);
    }
    let passed = scene.session().and_then(|session| session.stepped_up);
    scene.what_if.stepped_up
        || (scene.methods.is_multi_factor() && scene.auth_time().is_some_and(later))
        || passed.is_some_and(|(methods, at)| methods.is_multi_factor() && later(at))
}
