//! From Redis' replies and errors to ours. An error's text may hold keys: only its code goes into a message.

use std::time::Duration;

use redis::{ErrorKind, RedisError, Value};

use crate::domain::UnixTime;
use crate::store::{
    Entry, Held, MAX_VALUE, StoreError, StoreErrorKind,
    table::{too_large, wrong_type},
};

pub(super) fn failure(error: &RedisError) -> StoreError {
    if error.is_timeout() {
        return StoreError::new(StoreErrorKind::Timeout, "no answer in time");
    }
    // The error of a transaction has no code of its own.
    let text = error.to_string();
    if text.contains("WRONGTYPE") {
        return wrong_type();
    }
    let code = error.code().unwrap_or_default();
    match (error.kind(), code) {
        (_, "TOOLARGE") => too_large(),
        (ErrorKind::Io | ErrorKind::ClusterConnectionNotFound | ErrorKind::MasterNameNotFoundBySentinel, _)
        | (_, "LOADING" | "CLUSTERDOWN" | "MASTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK" | "READONLY" | "UNBLOCKED") => {
            StoreError::new(StoreErrorKind::Unreachable, described(error, code))
        }
        // Of a script it is the code, of a transaction the reason.
        _ if text.contains("not allowed when used memory") => {
            let why = "OOM: Redis takes no writes, its memory is full (`maxmemory`)";
            StoreError::new(StoreErrorKind::Refused, why)
        }
        _ if text.contains("not an integer") => StoreError::new(StoreErrorKind::Malformed, "not an integer"),
        _ => StoreError::new(StoreErrorKind::Refused, described(error, code)),
    }
}

/// In words that tell an operator where to look. What the network and TLS say of a connection holds no key of ours.
fn described(error: &RedisError, code: &str) -> String {
    match code {
        "WRONGPASS" | "NOAUTH" => format!("{code}: user or password is not right"),
        "NOPERM" => format!("{code}: this user may not"),
        "" if error.kind() == ErrorKind::Io => {
            error.to_string().split(" (os error").next().unwrap_or_default().to_lowercase()
        }
        "" => error.category().to_owned(),
        code => format!("{} ({code})", error.category()),
    }
}

/// Whether a connection that gave this error should be replaced.
pub(super) fn is_broken(error: &RedisError) -> bool {
    // A primary that became a replica answers, and is of no use any more.
    !error.is_timeout()
        && (error.is_unrecoverable_error() || error.is_connection_dropped() || error.code() == Some("READONLY"))
}

/// The entry that `GETRANGE key 0 MAX_VALUE` and `PTTL key` tell of together. `GETRANGE` answers the empty string for
/// a key that is not there; `PTTL` then answers -2.
pub(super) fn entry(value: Result<Value, StoreError>, life: Result<Value, StoreError>) -> Result<Entry, StoreError> {
    let value = match value {
        Ok(Value::BulkString(value)) => value,
        Ok(_) => return Err(unexpected()),
        Err(error) if error.kind == StoreErrorKind::Malformed => return Ok(Err(error)),
        Err(error) => return Err(error),
    };
    let Value::Int(life) = life? else { return Err(unexpected()) };
    Ok(match (value.len(), life) {
        (0, -2) => Ok(None),
        (length, _) if length > MAX_VALUE => Err(too_large()),
        // A key that ended between the two commands was there: no life is left of it.
        (_, -2) => Ok(Some(Held { value, life: Some(Duration::ZERO) })),
        (_, millis) => Ok(Some(Held { value, life: u64::try_from(millis).ok().map(Duration::from_millis) })),
    })
}

pub(super) fn unexpected() -> StoreError {
    StoreError::new(StoreErrorKind::Refused, "an answer of another shape than expected")
}

/// Of `TIME`: seconds, and microseconds beside them.
pub(super) fn time(value: &Value) -> Result<UnixTime, StoreError> {
    let Value::Array(parts) = value else { return Err(unexpected()) };
    let seconds = parts.first().and_then(|part| match part {
        Value::BulkString(octets) => std::str::from_utf8(octets).ok()?.parse().ok(),
        _ => None,
    });
    seconds.map(UnixTime::from_secs).ok_or_else(unexpected)
}

pub(super) fn integer(value: &Value) -> Result<i64, StoreError> {
    match value {
        Value::Int(number) => Ok(*number),
        _ => Err(unexpected()),
    }
}

/// Strings of an array; what is not UTF-8 is left out, since no id of ours can equal it.
pub(super) fn strings(value: Value) -> Result<Vec<String>, StoreError> {
    let Value::Array(items) = value else { return Err(unexpected()) };
    Ok(items.into_iter().filter_map(string).collect())
}

pub(super) fn string(value: Value) -> Option<String> {
    match value {
        Value::BulkString(octets) => String::from_utf8(octets).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_where_to_look() {
        let refused = RedisError::from(std::io::Error::from_raw_os_error(111));
        assert_eq!(failure(&refused).to_string(), "store unreachable: connection refused");
        let reply = |line: &[u8]| redis::parse_redis_value(line).unwrap().extract_error().unwrap_err();
        let wrong = failure(&reply(b"-WRONGPASS invalid username-password pair\r\n"));
        assert_eq!(wrong.to_string(), "store refused: WRONGPASS: user or password is not right");
        let denied = failure(&reply(b"-NOPERM No permissions to access the key 'cs:secret'\r\n"));
        assert_eq!(denied.to_string(), "store refused: NOPERM: this user may not");
        let full = failure(&reply(b"-OOM command not allowed when used memory > 'maxmemory'. script: 5f1c\r\n"));
        assert_eq!(full.to_string(), "store refused: OOM: Redis takes no writes, its memory is full (`maxmemory`)");
    }
}
