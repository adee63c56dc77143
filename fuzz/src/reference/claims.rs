//! The profile of tokens, sentence by sentence, for one issuer with the default settings and one Ed25519 key.

use super::json::{self, Json};

/// What the reference is told of the issuer and the moment.
#[derive(Debug)]
pub struct Profile<'p> {
    pub issuer: &'p str,
    pub audience: &'p str,
    pub kid: &'p str,
    pub now: f64,
}

const LEEWAY: f64 = 30.0;
const LONGEST_LIFE: f64 = 86_400.0;

impl Profile<'_> {
    /// Whether a token with this header and payload, its signature being right, is an access token of this issuer.
    pub fn accepts(&self, header: &[u8], payload: &[u8]) -> bool {
        let (Some(header), Some(payload)) = (json::parse(header), json::parse(payload)) else { return false };
        self.header(&header).is_some_and(|at_jwt| self.payload(&payload, at_jwt).is_some())
    }

    /// Whether the type is `at+jwt`; `None` refuses.
    fn header(&self, header: &Json) -> Option<bool> {
        matches!(header, Json::Object(_)).then_some(())?;
        for extension in ["crit", "b64", "cty"] {
            header.get(extension).is_none().then_some(())?;
        }
        ["EdDSA", "Ed25519"].contains(&header.get("alg")?.text()?).then_some(())?;
        (header.get("kid")?.text()? == self.kid).then_some(())?;
        let typ = match header.get("typ") {
            None => return Some(false),
            Some(typ) => typ.text()?.to_ascii_lowercase(),
        };
        match typ.as_str() {
            "at+jwt" | "application/at+jwt" => Some(true),
            "jwt" | "application/jwt" => Some(false),
            _ => None,
        }
    }

    fn payload(&self, claims: &Json, at_jwt: bool) -> Option<()> {
        matches!(claims, Json::Object(_)).then_some(())?;
        (claims.get("iss")?.text()? == self.issuer).then_some(())?;
        for foreign in ["events", "htm", "htu", "at_hash", "c_hash", "s_hash", "status_list"] {
            claims.get(foreign).is_none().then_some(())?;
        }
        access_token(claims, at_jwt).then_some(())?;
        self.audience(claims.get("aud")?).then_some(())?;
        self.time(claims)?;
        for required in ["sub", "jti"] {
            clean(claims.get(required)?).then_some(())?;
        }
        for optional in ["client_id", "azp", "sid", "device_id"] {
            // `azp` is looked at only where there is no `client_id`: either way it must be clean.
            claims.get(optional).is_none_or(clean).then_some(())?;
        }
        binding(claims.get("cnf"))?;
        match claims.get("status") {
            Some(status @ Json::Object(_)) => {
                let list = status.get("status_list")?;
                list.get("uri")?.text()?;
                matches!(list.get("idx")?, Json::Number(index) if *index >= 0.0 && index.fract() == 0.0).then_some(())
            }
            _ => Some(()),
        }
    }

    fn audience(&self, aud: &Json) -> bool {
        match aud {
            Json::Text(one) => one == self.audience,
            Json::List(all) => {
                all.iter().all(|one| one.text().is_some()) && all.iter().any(|one| one.text() == Some(self.audience))
            }
            _ => false,
        }
    }

    fn time(&self, claims: &Json) -> Option<()> {
        let date = |name: &str| match claims.get(name) {
            None => Some(None),
            Some(Json::Number(n)) if *n == 0.0 && matches!(name, "nbf" | "auth_time") => Some(Some(0.0)),
            // Kept to the millisecond, like the clock.
            Some(Json::Number(n)) if *n > 0.0 && *n < 1e12 => Some(Some((n * 1000.0).floor() / 1000.0)),
            Some(_) => None,
        };
        let (exp, iat, nbf) = (date("exp")??, date("iat")??, date("nbf")?);
        date("auth_time")?;
        let right = self.now < exp + LEEWAY
            && iat <= self.now + LEEWAY
            && nbf.is_none_or(|nbf| nbf <= self.now + LEEWAY)
            && exp - self.now <= LONGEST_LIFE + LEEWAY;
        right.then_some(())
    }
}

/// ID tokens and refresh tokens of some issuers are told by these.
fn access_token(claims: &Json, at_jwt: bool) -> bool {
    let usage = claims.get("token_use");
    let typ = claims.get("typ").and_then(Json::text);
    let says_so = matches!(typ, Some("Bearer" | "DPoP")) || usage.and_then(Json::text) == Some("access");
    let id_token = claims.get("nonce").is_some() && !at_jwt && !says_so;
    let other = usage.is_some_and(|usage| usage.text() != Some("access"))
        || matches!(typ, Some("ID" | "Refresh" | "Offline" | "Logout"));
    !id_token && !other
}

/// Exactly one confirmation that can be checked, or none at all.
fn binding(cnf: Option<&Json>) -> Option<()> {
    let Some(cnf) = cnf else { return Some(()) };
    let Json::Object(members) = cnf else { return None };
    let [(name, value)] = members.as_slice() else { return None };
    let text = value.text()?;
    let digest = text.len() == 43
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
        // The last of 43 letters holds four bits of 32 octets; its other two must be zero.
        && "AEIMQUYcgkosw048".contains(text.chars().next_back()?);
    (digest && (name == "jkt" || name == "x5t#S256")).then_some(())
}

/// Non-blank, at most 1024 characters, none of them a control, a format character or a separator of lines.
fn clean(value: &Json) -> bool {
    let Some(text) = value.text() else { return false };
    let blank = text.chars().all(char::is_whitespace);
    let bad = |c: char| c.is_control() || FORMAT.iter().any(|(from, to)| (*from..=*to).contains(&u32::from(c)));
    !blank && text.chars().count() <= 1024 && !text.chars().any(bad)
}

/// General category Cf of Unicode 16, and U+2028, U+2029.
const FORMAT: [(u32, u32); 21] = [
    (0xad, 0xad),
    (0x600, 0x605),
    (0x61c, 0x61c),
    (0x6dd, 0x6dd),
    (0x70f, 0x70f),
    (0x890, 0x891),
    (0x8e2, 0x8e2),
    (0x180e, 0x180e),
    (0x200b, 0x200f),
    (0x2028, 0x202e),
    (0x2060, 0x2064),
    (0x2066, 0x206f),
    (0xfeff, 0xfeff),
    (0xfff9, 0xfffb),
    (0x110bd, 0x110bd),
    (0x110cd, 0x110cd),
    (0x13430, 0x1343f),
    (0x1bca0, 0x1bca3),
    (0x1d173, 0x1d17a),
    (0xe0001, 0xe0001),
    (0xe0020, 0xe007f),
];
