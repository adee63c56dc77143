//! What the demo prints: lines to paste, what each must answer, and the same lines run and compared (`--check`).

use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use tokio::process::Command;

use super::{
    DemoError,
    admin::{DEVICE, FINGERPRINT},
    issuer::{Ask, Issuer},
};

/// A line to paste and what it must answer.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) title: &'static str,
    pub(super) command: String,
    pub(super) expected: Expected,
}

/// What must stand in the answer.
#[derive(Debug)]
pub(super) enum Expected {
    /// An HTTP status, and the `reason` of a refusal.
    Http(u16, Option<&'static str>),
    /// Text in what the command prints.
    Text(&'static str),
}

/// Who asks in the demo.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) clerk: String,
    pub(super) password: String,
    pub(super) expired: String,
    pub(super) revoked: String,
    /// Token ids, for the lines that revoke.
    pub(super) clerk_id: String,
    pub(super) revoked_id: String,
}

impl Tokens {
    pub(super) fn mint(issuer: &Issuer) -> Result<Self, DemoError> {
        let (clerk_id, revoked_id) = (super::issuer::random_id(), super::issuer::random_id());
        let now = issuer.now();
        let mint = |claims: Value| {
            let Value::Object(claims) = claims else { return issuer.mint(&Ask::default()) };
            let mut all = Map::from_iter([("roles".to_owned(), json!(["clerk"]))]);
            all.extend(claims);
            issuer.mint(&Ask { claims: all, ..Ask::default() })
        };
        Ok(Self {
            clerk: mint(json!({ "jti": clerk_id }))?,
            password: mint(json!({ "sub": "bob", "amr": ["pwd"] }))?,
            expired: mint(json!({ "iat": now - 7200, "auth_time": now - 7200, "exp": now - 3600 }))?,
            revoked: mint(json!({ "sub": "mallory", "jti": revoked_id }))?,
            clerk_id,
            revoked_id,
        })
    }
}

/// The lines for `curl`, through Envoy at `base`.
pub(super) fn curl(base: &str, tokens: &Tokens) -> Vec<Line> {
    let line = |title, path: &str, token: Option<&str>, more: &str, expected| {
        let mut command = format!("curl -si {base}{path}{more}");
        if let Some(token) = token {
            // Writing into a string cannot fail.
            let _ = write!(command, " -H 'Authorization: Bearer {token}'");
        }
        Line { title, command, expected }
    };
    let http = |status, reason| Expected::Http(status, Some(reason));
    let known = format!(" -H 'X-Device-ID: {DEVICE}' -H 'X-Device-Fingerprint: {FINGERPRINT}'");
    let unknown = " -H 'X-Device-ID: nobody-knows-me'";
    vec![
        line("allow", "/orders/7", Some(&tokens.clerk), "", Expected::Http(200, None)),
        line("allow, public: no token needed", "/public/logo.svg", None, "", Expected::Http(200, None)),
        line("allow, from an enrolled device", "/vault", Some(&tokens.clerk), &known, Expected::Http(200, None)),
        line("no token", "/orders/7", None, "", http(401, "no_credentials")),
        line("expired token", "/orders/7", Some(&tokens.expired), "", http(401, "token_expired")),
        line("revoked token", "/orders/7", Some(&tokens.revoked), "", http(401, "token_revoked")),
        line("unknown device", "/vault", Some(&tokens.clerk), unknown, http(403, "device_not_registered")),
        line("step-up by policy", "/payments", Some(&tokens.password), "", http(401, "authentication_method_required")),
    ]
}

/// A `CheckRequest` as Envoy would send it, for `grpcurl` and `explain`.
pub(super) fn check_request(token: &str) -> Value {
    json!({ "attributes": {
        "source": { "address": { "socketAddress": { "address": "127.0.0.1", "portValue": 40000 } } },
        "request": { "http": {
            "id": "1", "method": "GET", "scheme": "http", "host": "127.0.0.1:10000", "path": "/orders/7",
            "protocol": "HTTP/1.1",
            "headers": { ":method": "GET", ":path": "/orders/7", ":authority": "127.0.0.1:10000",
                         "authorization": format!("Bearer {token}") },
        } },
    } })
}

/// Runs a printed line in a shell, just as it is printed. `Err` says what differs.
pub(super) async fn run(line: &Line) -> Result<(), String> {
    let output = Command::new("sh").args(["-c", &line.command]).output().await;
    let output = output.map_err(|error| format!("cannot run a shell: {error}"))?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    line.expected.compare(&text)
}

impl Expected {
    fn compare(&self, text: &str) -> Result<(), String> {
        match self {
            Self::Text(wanted) if text.contains(wanted) => Ok(()),
            Self::Text(wanted) => Err(format!("`{wanted}` is not in the answer: {text}")),
            Self::Http(status, reason) => {
                let got = text.split(' ').nth(1).unwrap_or_default();
                let wanted = reason.map(|reason| format!("\"reason\":\"{reason}\""));
                let spaceless: String = text.split_whitespace().collect();
                if got == status.to_string() && wanted.is_none_or(|wanted| spaceless.contains(&wanted)) {
                    return Ok(());
                }
                Err(format!("wanted {self}, got {text}"))
            }
        }
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(status, Some(reason)) => write!(f, "{status}, reason `{reason}`"),
            Self::Http(status, None) => write!(f, "{status}"),
            Self::Text(text) => write!(f, "`{text}`"),
        }
    }
}
