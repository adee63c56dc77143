//! The `admin` section of the configuration: who may administer.

use std::{fmt, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What `sha256sum` says of nothing.
const HASH_OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Who may administer. Every write needs a token or a client certificate. So does every read where `listen.admin` is not
/// loopback; on loopback, reads from this machine need nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the token that is made at the first start is kept (`admin.token`, mode 0600). Default: the folder of a file
    /// store; with another store `$XDG_STATE_HOME/countersign`, else `~/.local/state/countersign`. A token that is in the
    /// latter and not in the file store's folder is used.
    pub state_dir: Option<PathBuf>,
    /// Tokens with roles. With any here, none is made.
    pub tokens: Vec<TokenSettings>,
    /// Client certificates with roles, for `listen.admin_tls` with `client_ca`. A certificate that verifies and is not listed
    /// may read.
    pub clients: Vec<ClientSettings>,
}

/// A token: by its hash, or in a file. One of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenSettings {
    /// What the audit record calls its holder.
    pub name: String,
    pub role: Role,
    /// SHA-256 of the token, of 16 characters or more, in hexadecimal: `printf %s "$TOKEN" | sha256sum`.
    #[serde(default)]
    pub sha256: Option<String>,
    /// A file that holds the token and nothing else; readable by us alone, or, where it is another's, by our group (a Secret
    /// of Kubernetes: `defaultMode: 0440` and `fsGroup`).
    #[serde(default)]
    pub file: Option<PathBuf>,
}

/// A client certificate, by a name in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientSettings {
    /// A URI (`spiffe://example.org/ops`) or DNS name of the certificate, compared exactly; with `:` or `/` in it a URI.
    pub name: String,
    pub role: Role,
}

/// What somebody may do; each may what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look: get, list, explain, status.
    Reader,
    /// Revoke, reinstate, put and suspend devices.
    Operator,
    /// Delete devices.
    Admin,
}

impl Role {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Settings {
    /// What does not fit together, for `check-config`: path of the field and why.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        for (i, token) in self.tokens.iter().enumerate() {
            let place = format!("tokens[{i}]");
            if token.sha256.is_some() == token.file.is_some() {
                problems.push((place.clone(), "give either `sha256` or `file`".into()));
            }
            let is_hash = |hash: &String| hash.len() == 64 && hash.bytes().all(|octet| octet.is_ascii_hexdigit());
            if token.sha256.as_ref().is_some_and(|hash| !is_hash(hash)) {
                problems.push((format!("{place}.sha256"), "must be 64 hexadecimal digits".into()));
            }
            if token.sha256.as_ref().is_some_and(|hash| hash.eq_ignore_ascii_case(HASH_OF_NOTHING)) {
                let why = "is the hash of no token at all: was the variable set?";
                problems.push((format!("{place}.sha256"), why.into()));
            }
            if token.name.is_empty() || self.tokens[..i].iter().any(|other| other.name == token.name) {
                problems.push((format!("{place}.name"), "names must not be empty and not come twice".into()));
            }
        }
        for (i, client) in self.clients.iter().enumerate() {
            if client.name.is_empty() || self.clients[..i].iter().any(|other| other.name == client.name) {
                problems.push((format!("clients[{i}].name"), "names must not be empty and not come twice".into()));
            }
        }
        problems
    }
}
