//! What a request carries to say who asks, borrowed; and which single token that is, if any.

use std::borrow::Cow;

use super::{Detail, jws::MAX_TOKEN};

/// Lines of one header, of which exactly one may count.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeaderValues<'a> {
    first: Option<&'a [u8]>,
    several: bool,
}

impl<'a> HeaderValues<'a> {
    pub const NONE: Self = Self { first: None, several: false };

    pub const fn one(value: &'a [u8]) -> Self {
        Self { first: Some(value), several: false }
    }

    /// Another line of the same header.
    pub const fn push(&mut self, value: &'a [u8]) {
        match self.first {
            Some(_) => self.several = true,
            None => self.first = Some(value),
        }
    }

    /// The only line. `Err`: there are several, or Envoy has joined several with commas.
    pub(super) fn only(&self) -> Result<Option<&'a [u8]>, ()> {
        match self.first {
            Some(value) if self.several || value.iter().fold(false, |comma, octet| comma | (*octet == b',')) => Err(()),
            first => Ok(first),
        }
    }

    /// The only line, commas and all.
    pub(super) const fn only_line(&self) -> Option<&'a [u8]> {
        if self.several { None } else { self.first }
    }
}

/// What a request carries to say who asks. Nothing here is believed yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credentials<'a> {
    pub authorization: HeaderValues<'a>,
    pub dpop: HeaderValues<'a>,
    /// `x-forwarded-client-cert`: only looked at where the configuration trusts it.
    pub xfcc: HeaderValues<'a>,
    /// After the first `?` of the path, without it.
    pub query: Option<&'a [u8]>,
    pub method: &'a [u8],
    pub scheme: &'a [u8],
    /// As Envoy sends it, with its port.
    pub host: &'a [u8],
    /// Before the first `?`, undecoded.
    pub path: &'a [u8],
    /// `source.principal`; empty: none.
    pub principal: &'a [u8],
    /// `source.certificate`: URL-encoded PEM; empty: none.
    pub certificate: &'a [u8],
    /// Somebody asks what would be answered: a proof of possession is not used up by that.
    pub only_look: bool,
}

/// How a token was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Bearer,
    Dpop,
}

impl<'a> Credentials<'a> {
    /// What stands where the one token does, before anybody has looked whether it is one: enough to find a token that was
    /// read before, as nothing else can be in memory. Whatever else this leaves out is [`Self::token`]'s to say.
    pub(super) fn unread(&self) -> Option<(Scheme, &'a [u8])> {
        let line = self.authorization.only_line()?;
        let (scheme, rest) = line.split_at(line.iter().position(|octet| *octet == b' ')?);
        let scheme = Scheme::parse(scheme)?;
        let spaces = rest.iter().take_while(|octet| **octet == b' ').count();
        (!self.query.is_some_and(has_access_token)).then_some((scheme, &rest[spaces..]))
    }

    /// The one token of the request. A token in the query or a cookie alone is none.
    ///
    /// # Errors
    ///
    /// Several credentials, or one that cannot be a token.
    pub(super) fn token(&self) -> Result<Option<(Scheme, &'a str)>, Detail> {
        // A token holds no comma: in a single line that is one nothing else can hide.
        let usual = self.authorization.only_line().and_then(split_scheme).filter(|(_, token)| is_token68(token));
        let presented = match usual {
            Some(_) => usual,
            None => match self.authorization.only() {
                Ok(Some(value)) => split_scheme(value),
                Ok(None) => return Ok(None),
                Err(()) if self.authorization.only_line().is_some_and(is_one_foreign_credential) => {
                    return Err(self.no_token());
                }
                Err(()) => return Err(Detail::SeveralCredentials),
            },
        };
        if self.query.is_some_and(has_access_token) {
            return Err(Detail::SeveralCredentials);
        }
        let (_, token) = presented.ok_or_else(|| self.no_token())?;
        if token.len() > MAX_TOKEN {
            return Err(Detail::TooLarge);
        }
        usual.map(Some).ok_or_else(|| self.no_token())
    }

    /// The scheme of the only line, whatever follows it.
    pub(super) fn scheme(&self) -> Option<Scheme> {
        let line = self.authorization.only_line()?;
        Scheme::parse(line.split(|octet| *octet == b' ').next()?)
    }

    /// What a single line that holds no token is: of another scheme, or of ours and followed by something else.
    fn no_token(&self) -> Detail {
        if self.scheme().is_some() { Detail::NotOneToken } else { Detail::UnknownScheme }
    }
}

impl Scheme {
    /// `Bearer` or `DPoP` in any case.
    const fn parse(name: &[u8]) -> Option<Self> {
        match name {
            bearer if bearer.eq_ignore_ascii_case(b"bearer") => Some(Self::Bearer),
            dpop if dpop.eq_ignore_ascii_case(b"dpop") => Some(Self::Dpop),
            _ => None,
        }
    }
}

/// The scheme, spaces, and the rest.
fn split_scheme(value: &[u8]) -> Option<(Scheme, &str)> {
    let value = std::str::from_utf8(value).ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    Some((Scheme::parse(scheme.as_bytes())?, rest.trim_start_matches(' ')))
}

/// Whether a value with commas is a single credential of another kind (`Digest a="b", c="d"`, a JWS in JSON) rather than
/// several that were joined: it begins with no token of ours, and none begins after a comma.
fn is_one_foreign_credential(value: &[u8]) -> bool {
    let mut parts = value.split(|octet| *octet == b',');
    let first = parts.next().unwrap_or_default();
    let ours = |part: &[u8]| split_scheme(part.trim_ascii()).is_some_and(|(_, token)| is_token68(token.trim_end()));
    let foreign = first.contains(&b' ') && !ours(first);
    foreign && !parts.any(|part| part.trim_ascii().is_empty() || split_scheme(part.trim_ascii()).is_some())
}

/// RFC 6750: letters, digits, `-._~+/`, then any number of `=`.
fn is_token68(token: &str) -> bool {
    let body = token.trim_end_matches('=');
    // All of it is looked at, wherever something wrong stands: without a way out in the middle the compiler takes sixteen
    // octets at a time.
    !body.is_empty() && body.bytes().fold(true, |fine, octet| fine & is_token68_octet(octet))
}

const fn is_token68_octet(octet: u8) -> bool {
    let letter = (octet | 0x20).wrapping_sub(b'a') < 26;
    let digit = octet.wrapping_sub(b'0') < 10;
    // `-`, `.` and `/` stand side by side.
    let mark = octet.wrapping_sub(b'-') < 3;
    letter | digit | mark | (octet == b'+') | (octet == b'_') | (octet == b'~')
}

/// Whether a query has a parameter `access_token`, in any spelling of its name.
fn has_access_token(query: &[u8]) -> bool {
    query.split(|b| *b == b'&').any(|pair| {
        let name = pair.split(|b| *b == b'=').next().unwrap_or_default();
        let name: Cow<'_, [u8]> = match name.contains(&b'%') {
            true => percent_encoding::percent_decode(name).into(),
            false => name.into(),
        };
        &*name == b"access_token"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&'static str], query: Option<&'static str>) -> Result<Option<(Scheme, &'static str)>, Detail> {
        let mut authorization = HeaderValues::NONE;
        for line in lines {
            authorization.push(line.as_bytes());
        }
        let credentials = Credentials { authorization, query: query.map(str::as_bytes), ..Credentials::default() };
        let (token, unread) = (credentials.token(), credentials.unread());
        match token {
            // Whatever is a token is found at once where it is known.
            Ok(Some((scheme, token))) => assert_eq!(unread, Some((scheme, token.as_bytes()))),
            // Whatever is none cannot be found: it is not what is kept of a token.
            _ => assert!(unread.is_none_or(|(_, octets)| !std::str::from_utf8(octets).is_ok_and(is_token68))),
        }
        token
    }

    #[test]
    fn exactly_one_authorization_counts() {
        assert_eq!(of(&["Bearer a.b.c"], None), Ok(Some((Scheme::Bearer, "a.b.c"))));
        for lines in [
            &["Bearer a", "Bearer b"][..],
            &["Bearer a", "Bearer a"],
            &["Basic eA==", "Bearer a"],
            &["Bearer a,Bearer b"],
            &["Bearer a, b"],
            &["", "Bearer a", ""],
            &["", "Bearer a"],
            &["Bearer a", ""],
            &[",Bearer a"],
            &["Basic eA==, Bearer a"],
            &["Digest a=\"b\", bearer a"],
            &["Bearer a,"],
            &["Bearer {\"a\":1,DPoP b"],
            &[", Bearer a"],
            &["a,b"],
        ] {
            assert_eq!(of(lines, None), Err(Detail::SeveralCredentials), "{lines:?}");
        }
    }

    #[test]
    fn the_scheme_is_bearer_or_dpop_in_any_case_and_one_token_follows_it() {
        for value in ["bearer t", "BEARER t", "BeArEr  t"] {
            assert_eq!(of(&[value], None), Ok(Some((Scheme::Bearer, "t"))), "{value}");
        }
        assert_eq!(of(&["dpop t"], None), Ok(Some((Scheme::Dpop, "t"))));
        for value in [
            "",
            " ",
            "Bearer\tt",
            "Bearer\u{a0}t",
            "Bearer: t",
            "Basic eA==",
            "Negotiate",
            " Bearer t",
            "t",
            "Token t",
            "Digest username=\"a\", realm=\"b\"",
            "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=c",
        ] {
            assert_eq!(of(&[value], None), Err(Detail::UnknownScheme), "{value:?}");
        }
        for value in [
            "Bearer",
            "Bearer ",
            "Bearer \"t\"",
            "Bearer Bearer t",
            "Bearer t ",
            "Bearer t\0",
            "Bearer tö",
            "Bearer =",
            "Bearer t;x",
            "DPoP {}",
            "Bearer {\"payload\":\"a\",\"protected\":\"b\",\"signature\":\"c\"}",
        ] {
            assert_eq!(of(&[value], None), Err(Detail::NotOneToken), "{value:?}");
        }
        assert_eq!(of(&[], None), Ok(None));
    }

    #[test]
    fn a_token_in_the_query_is_none_and_beside_a_header_ambiguous() {
        assert_eq!(of(&[], Some("access_token=t")), Ok(None));
        for query in ["access_token=t", "a=1&access_token=t", "access%5Ftoken=t", "%61ccess_token", "access_token"] {
            assert_eq!(of(&["Bearer t"], Some(query)), Err(Detail::SeveralCredentials), "{query}");
        }
        for query in ["", "a=access_token", "xaccess_token=1", "access_tokens=1"] {
            assert!(of(&["Bearer t"], Some(query)).is_ok(), "{query}");
        }
    }
}
