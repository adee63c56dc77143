//! The answer to "why?" in sentences: what decided, what would help, which factor counted against the request.

use super::words::{in_words, place, remedy};
use crate::{
    decision::{ActionRequired, Class, Decision, Detail, Finding, Grant, Reason},
    domain::{Credential, Facts, Lines, Permission, RevocationKind, Role},
};

/// What decided, as one would say it to somebody who did not write the rules.
pub fn why(facts: &Facts, decision: &Decision) -> String {
    let Some(reason) = decision.reason else { return allowed(decision) };
    let finding = decision.findings.iter().find(|finding| finding.reason == reason);
    let circumstances = finding
        .and_then(|finding| detail(finding, decision))
        .or_else(|| circumstances(reason, facts, decision))
        .map(|words| format!(": {words}"));
    let message = reason.message().trim_end_matches('.');
    let rule = decision.rule.as_ref().map(|rule| format!(" ({} `{rule}`)", kind(rule.as_str(), decision)));
    format!("{message}{}{}.", circumstances.unwrap_or_default(), rule.unwrap_or_default())
}

fn allowed(decision: &Decision) -> String {
    let granted = match &decision.grant {
        Some(Grant::Public) => "the resource is public".to_owned(),
        Some(Grant::Authenticated) => "whoever is known may do this".to_owned(),
        Some(Grant::Direct) => "the permission stands in the token".to_owned(),
        Some(Grant::Role(role)) => format!("the role `{role}` holds the permission"),
        Some(Grant::Policy(policy)) => format!("the policy `{policy}` allows it"),
        Some(Grant::Attribute(policy)) => format!("the attribute policy `{policy}` permits it"),
        None => "it is granted".to_owned(),
    };
    format!("Nothing spoke against it, and {granted}.")
}

/// What kind of rule an id names.
fn kind(rule: &str, decision: &Decision) -> &'static str {
    if decision.policy.as_ref().is_some_and(|policy| policy.as_str() == rule) {
        "policy"
    } else if decision.resource.as_deref() == Some(rule) || decision.reason == Some(Reason::MethodNotAllowed) {
        "resource"
    } else {
        "rule"
    }
}

fn detail(finding: &Finding, decision: &Decision) -> Option<String> {
    let words = in_words(&finding.detail)?;
    Some(match finding.detail {
        Detail::Risk(_) => format!("{words} of 10{}", largest(&decision.risk.lines)),
        Detail::Level(_) | Detail::Score(_) => {
            format!("{words}, and it is {:.2} ({})", decision.trust.score.get(), decision.trust.level.as_str())
        }
        _ => words,
    })
}

/// What a score is mostly made of.
fn largest(lines: &Lines) -> String {
    let mut lines: Vec<_> = lines.iter().filter(|line| line.points > 0.0).collect();
    lines.sort_by(|a, b| b.points.total_cmp(&a.points));
    let names: Vec<_> =
        lines.iter().take(3).map(|line| format!("{} {:+.1}", spoken(line.name.as_str()), line.points)).collect();
    if names.is_empty() { String::new() } else { format!(", mostly {}", names.join(", ")) }
}

/// A name of the code's in words.
pub fn spoken(name: &str) -> String {
    name.replace('_', " ")
}

fn circumstances(reason: Reason, facts: &Facts, decision: &Decision) -> Option<String> {
    let request = &facts.request;
    let identity = facts.identity();
    Some(match reason {
        Reason::NoCredentials => match facts.credential.value() {
            Some(Credential::Refused(_)) => "the request carries credentials of another kind, and no token".into(),
            _ => "the request carries no token, and no client certificate that stands for somebody".into(),
        },
        Reason::NoMatchingResource => {
            let path = request.path.as_deref().unwrap_or_default();
            format!("no resource in the rules matches {}{path}, and what no rule names is refused", request.host)
        }
        Reason::MethodNotAllowed => format!("the rules for this path do not name {}", request.method.as_str()),
        Reason::PermissionMissing => {
            let identity = identity?;
            let list = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let roles = list(identity.roles.iter().map(Role::as_str).collect());
            let permissions = list(identity.permissions.iter().map(Permission::as_str).collect());
            let resource = decision.resource.as_deref().unwrap_or_default();
            format!(
                "what `{resource}` asks for is granted by none of {}'s roles ({roles}) and permissions ({permissions})",
                identity.subject
            )
        }
        Reason::ScopeMissing => {
            let held: Vec<&str> = identity?.scopes.iter().map(|scope| &**scope).collect();
            let held = if held.is_empty() { "none".to_owned() } else { held.join(" ") };
            format!("`{}`; the token holds: {held}", decision.scope.as_deref().unwrap_or_default())
        }
        Reason::TokenRevoked => "its id is on the revocation list".into(),
        Reason::SessionRevoked => "the session that the token belongs to is on the revocation list".into(),
        Reason::SubjectRevoked => {
            format!("every token of {} that was issued until then is revoked", identity?.subject)
        }
        Reason::LocationNotAllowed
        | Reason::LocationUnusual
        | Reason::UnusualLocationStepUp
        | Reason::NetworkNotAllowed => {
            let client = request.client.map_or_else(|| "an unknown address".to_owned(), |client| client.to_string());
            match facts.place.value() {
                Some(seen) => format!("it comes from {client} ({})", place(seen)),
                None => format!("it comes from {client}, of which no place is known"),
            }
        }
        Reason::SessionChanged | Reason::IdentityUnverified | Reason::SessionStepUp | Reason::LocationUnverified => {
            let session = facts.session.value()?;
            let (country, device) = (session.start.country.as_deref(), session.start.device.as_ref());
            let device = device.map_or("no device", crate::domain::DeviceId::as_str);
            format!("it began in {} with {device}", country.unwrap_or("an unknown country"))
        }
        Reason::PrivilegesReduced => {
            let names: Vec<&str> = decision.restrictions.iter().collect();
            format!("the session is restricted: {}", names.join(", "))
        }
        Reason::RateLimited => {
            let quota = facts.quota.value()?;
            format!("all {} of its window are used up", quota.limit)
        }
        _ => return None,
    })
}

/// What would help, the likeliest first.
pub fn remedies(facts: &Facts, decision: &Decision) -> Vec<String> {
    let Some(reason) = decision.reason else { return Vec::new() };
    if let Some(remedy) = remedy(decision) {
        return vec![remedy];
    }
    let method = facts.request.method.as_str();
    let specific = match reason {
        Reason::NoCredentials => "a token of a configured issuer, in `Authorization: Bearer …`".into(),
        Reason::TokenExpired | Reason::TokenNotYetValid => "a fresh token; if it is fresh, look at the clocks".into(),
        Reason::ProofRequired | Reason::ProofInvalid | Reason::SignedRequestRequired => {
            "a token bound to a key, and a DPoP proof made with that key for this very request".into()
        }
        Reason::NoMatchingResource => "a resource in the rules whose `match` covers this host and path".into(),
        Reason::MethodNotAllowed => format!("naming {method} in the `methods` of the resource"),
        Reason::PermissionMissing => {
            "a role that holds the permission (`roles:` in the rules), or the permission in the token".into()
        }
        Reason::JustificationRequired => {
            "the header `X-Access-Justification` with 10 to 512 printable characters".into()
        }
        Reason::EncryptionRequired => "asking over https".into(),
        Reason::ClassificationNotCovered => "a policy whose `data_classification` covers the resource's".into(),
        Reason::AccountDisabled => "an `account-enabled` event from whoever told that the account is disabled".into(),
        Reason::DeviceNotRegistered => "enrolling the device, and naming it in `X-Device-ID`".into(),
        Reason::DeviceNotProven => "a proof that it is the device: its fingerprint, key or certificate".into(),
        _ => return general(reason, facts),
    };
    vec![specific]
}

fn general(reason: Reason, facts: &Facts) -> Vec<String> {
    let one = |text: &str| vec![text.to_owned()];
    if reason.class() == Class::Revoked {
        let mut all = one("signing in again");
        if let Some(crate::domain::Revocation::Revoked(kind)) = facts.revocation.value() {
            let id = if *kind == RevocationKind::Token { "JTI" } else { "ID" };
            all.push(format!("were it a mistake: `countersign revoke {} {id} --undo`", kind.as_str()));
        }
        return all;
    }
    match reason.action_required() {
        ActionRequired::Authenticate | ActionRequired::Reauthenticate => one("signing in again"),
        ActionRequired::StepUpAuthentication => {
            one("none: what could be asked for is there already, or would not suffice")
        }
        ActionRequired::VerifyIdentity => one("whatever lowers the risk: its lines are below, with their evidence"),
        ActionRequired::VerifyLocation => one("asking from an allowed place, or allowing this one"),
        ActionRequired::DeviceEnrollment => one("mending the device, or its record (`countersign device get ID`)"),
        ActionRequired::ReducePrivileges => one("asking for less, or being granted more"),
        ActionRequired::RetryLater => one("trying again; `countersign doctor` tells what is out of reach"),
        ActionRequired::ContactAdmin => one("a change of the rules, or of what they read"),
        ActionRequired::None => Vec::new(),
    }
}

/// The factor that a reason speaks of, by its name in `Factors`.
pub fn factor(reason: Reason) -> Option<&'static str> {
    let code = reason.code();
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| code.starts_with(prefix));
    match reason.class() {
        Class::Malformed => None,
        _ if begins(&["account_disabled", "reauthentication_required", "signals_unknown"]) => Some("notice"),
        _ if begins(&["device_"]) => Some("device"),
        _ if begins(&["location_", "network_", "impossible_travel"]) => Some("place"),
        Class::Credentials => Some("credential"),
        _ if reason != Reason::SessionRevoked
            && begins(&[
                "session_",
                "too_many_sessions",
                "reverification",
                "privileges_reduced",
                "identity_unverified",
            ]) =>
        {
            Some("session")
        }
        Class::Revoked => Some("revocation"),
        Class::RateLimited => Some("quota"),
        _ if begins(&["revocation_"]) => Some("revocation"),
        _ if begins(&["quota_"]) => Some("quota"),
        _ if begins(&[
            "credentials_",
            "scope_",
            "permission_",
            "authentication_method",
            "mfa_",
            "signed_",
            "token_",
        ]) =>
        {
            Some("credential")
        }
        _ => None,
    }
}
