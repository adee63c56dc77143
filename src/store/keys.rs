//! The one home of key names. Operators and scripts rely on those of revocations and devices.

use crate::domain::RevocationKind;

pub const REVOKED: &str = "cs:revoked:";
pub const REINSTATED: &str = "cs:reinstated:";
pub const DEVICE: &str = "cs:device:";

/// What signals have told of subjects, sessions and devices.
pub const NOTICE: &str = "cs:notice:";

/// What is remembered of sessions. Busy: not listened to.
pub const SESSION: &str = "cs:session:";

/// Tells replicas that a session's record has changed in a way that matters.
pub const SESSION_MARK: &str = "cs:session-mark:";

/// What the feed listens to: not the busy ones.
pub const FEED_PREFIXES: [&str; 5] = [REVOKED, REINSTATED, DEVICE, NOTICE, SESSION_MARK];

/// `cs:revoked:<kind>:<id>`. The id is taken whole as the rest of the key, never as a pattern.
pub fn revoked(kind: RevocationKind, id: &str) -> String {
    format!("{REVOKED}{}:{id}", kind.as_str())
}

/// `cs:reinstated:<kind>:<id>`.
pub fn reinstated(kind: RevocationKind, id: &str) -> String {
    format!("{REINSTATED}{}:{id}", kind.as_str())
}

/// `cs:device:<id>`.
pub fn device(id: &str) -> String {
    format!("{DEVICE}{id}")
}

/// `cs:notice:<aspect>:<kind>:<id>`.
pub fn notice(aspect: &str, kind: &str, id: &str) -> String {
    format!("{NOTICE}{aspect}:{kind}:{id}")
}

/// `cs:session:<subject>:<session>`, digests both.
pub fn session(key: &str) -> String {
    format!("{SESSION}{key}")
}

/// `cs:session-mark:<subject>:<session>`.
pub fn session_mark(key: &str) -> String {
    format!("{SESSION_MARK}{key}")
}

/// `cs:session-index:<subject>`: the sessions of one subject, each with the time of its beginning.
pub fn session_index(subject: &str) -> String {
    format!("cs:session-index:{subject}")
}

/// `cs:session-challenge:<subject>:<context>`: when a subject was asked for an authentication in a context.
pub fn session_challenge(subject: &str, context: &str) -> String {
    format!("cs:session-challenge:{subject}:{context}")
}

/// `cs:signal-seen:<SHA-256>`: a security event token that was taken. The digest covers its issuer and its `jti`.
pub fn signal_seen(digest: &[u8; 32]) -> String {
    format!("cs:signal-seen:{}", hex::encode(digest))
}

/// `cs:signal-device:<id>`: what the newest event said of a device's compliance.
pub fn signal_device(id: &str) -> String {
    format!("cs:signal-device:{id}")
}

/// `cs:signal-told:<id>`: there while others hold against a device what we told of it.
pub fn signal_told(id: &str) -> String {
    format!("cs:signal-told:{id}")
}

/// `cs:signal-state:<issuer>:<word>`: a word that a verification event of a transmitter may carry, and when it was asked for.
pub fn signal_state(issuer: &str, word: &str) -> String {
    format!("cs:signal-state:{issuer}:{word}")
}

/// `cs:signal-setup:<issuer>`: which replica makes a stream at a transmitter just now.
pub fn signal_setup(issuer: &str) -> String {
    format!("cs:signal-setup:{issuer}")
}

/// `cs:signal-out:<receiver>`: a record; `last` counts what was ever queued for a receiver of security events.
pub fn signal_out(receiver: &str) -> String {
    format!("cs:signal-out:{receiver}")
}

/// `cs:signal-out:<receiver>:<number>`: one event that waits to be sent.
pub fn signal_out_item(receiver: &str, number: u64) -> String {
    format!("cs:signal-out:{receiver}:{number}")
}

/// `cs:signal-out:<receiver>:done`: the number up to which everything was sent or given up.
pub fn signal_out_done(receiver: &str) -> String {
    format!("cs:signal-out:{receiver}:done")
}

/// `cs:signal-turn:<receiver>`: which replica sends to it just now.
pub fn signal_turn(receiver: &str) -> String {
    format!("cs:signal-turn:{receiver}")
}

/// `cs:device-seen:<id>`.
pub fn device_seen(id: &str) -> String {
    format!("cs:device-seen:{id}")
}

/// `cs:enrollment:<SHA-256>`: a one-time code for enrolling a device, by its hash. Whoever deletes it has used it.
pub fn enrollment_code(digest: &str) -> String {
    format!("cs:enrollment:{digest}")
}

/// `cs:device-renewal:<SHA-256>`: a signed wish for a new certificate that was granted.
pub fn device_renewal(digest: &str) -> String {
    format!("cs:device-renewal:{digest}")
}

/// Who counts the fleet just now, and what the last count found.
pub const CENSUS_TURN: &str = "cs:device-census:turn";
pub const CENSUS: &str = "cs:device-census:result";

/// `cs:assertion-key:<algorithm>:<period>`: the key that all replicas sign with in one period: assertions, and with RS256
/// security events. Where a secret that is not known here sealed it, ours stands at `…:<which secret>`; a key that
/// another replaced in an emptied store, at `…:<which secret>:replaced`.
pub fn assertion_key(algorithm: &str, period: u64) -> String {
    format!("cs:assertion-key:{algorithm}:{period}")
}

/// `cs:dpop:<SHA-256>`: a proof of possession that was used. The digest covers its key, its target and its `jti`.
pub fn dpop_proof(digest: &[u8; 32]) -> String {
    format!("cs:dpop:{}", hex::encode(digest))
}

/// `cs:profile:<key>`: what was counted of a subject, a field for each count and 30 days. `<key>` is a hash of issuer and subject.
pub fn profile(subject: u64) -> String {
    format!("cs:profile:{subject:016x}")
}

/// `cs:profile:last:<key>`: when a subject was last seen, where, and how quickly; begins with the time.
pub fn profile_last(subject: u64) -> String {
    format!("cs:profile:last:{subject:016x}")
}

/// `cs:profile:session:<key>`: the contexts a session was seen in.
pub fn profile_session(session: u64) -> String {
    format!("cs:profile:session:{session:016x}")
}

/// `cs:profile:news:<number>`: what a replica learned within a second, for the others. Numbers have no gaps.
pub fn profile_news(number: u64) -> String {
    format!("cs:profile:news:{number}")
}

/// The number of the latest news, or one shortly before it.
pub const PROFILE_NEWS: &str = "cs:profile:news";

/// `cs:profile:everyone:<part>`: what everyone has in common, as of some news; the first part says how many there are.
pub fn profile_everyone(part: usize) -> String {
    format!("cs:profile:everyone:{part}")
}

/// `cs:profile:turn:<minute>`: which replica writes down what everyone has in common.
pub fn profile_turn(minute: u64) -> String {
    format!("cs:profile:turn:{minute}")
}

/// `cs:profile:lines:<hour>`: the lines of the risk model in an hour, by whichever replica said so first.
pub fn profile_lines(hour: u64) -> String {
    format!("cs:profile:lines:{hour}")
}

/// There as long as the store has not been emptied.
pub const CANARY: &str = "cs:canary";

/// `cs:revoked:canary:<instance>`: what a replica writes to see how long a change takes to come round. Of no kind.
pub fn lag_canary(instance: &str) -> String {
    format!("{REVOKED}canary:{instance}")
}

/// Kind and id of a key under `prefix` ([`REVOKED`] or [`REINSTATED`]).
pub fn parse_revocation<'k>(prefix: &str, key: &'k str) -> Option<(RevocationKind, &'k str)> {
    let (kind, id) = key.strip_prefix(prefix)?.split_once(':')?;
    Some((RevocationKind::parse(kind)?, id))
}
