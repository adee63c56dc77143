//! `x-forwarded-client-cert`, read only where the configuration says that the Envoy in front vouches for it.
//!
//! The leftmost element is within an attacker's reach whenever proxies append, so elements count from the right.

use super::settings::XfccTrust;

/// Longest header that is read.
const MAX_HEADER: usize = 64 * 1024;

/// What one element says of the client certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// URI SAN of the proxy that wrote it.
    pub by: Option<String>,
    /// SHA-256 of the certificate.
    pub hash: Option<[u8; 32]>,
    /// These three are empty where the certificate has none, and the proxy tells of it.
    pub uri: Option<String>,
    pub dns: Option<String>,
    pub subject: Option<String>,
}

impl Element {
    /// What Envoy would call the principal: URI SAN, else DNS SAN, else the subject.
    pub fn principal(&self) -> Option<&str> {
        [&self.uri, &self.dns, &self.subject].into_iter().filter_map(Option::as_deref).find(|name| !name.is_empty())
    }
}

/// The element that may be believed under `trust`.
pub fn trusted(header: &[u8], trust: &XfccTrust) -> Option<Element> {
    let elements = match trust {
        XfccTrust::Never => return None,
        XfccTrust::SanitizeSet | XfccTrust::Hops { .. } => parse(header)?,
    };
    match trust {
        XfccTrust::Never => None,
        XfccTrust::SanitizeSet => (elements.len() == 1).then(|| elements.into_iter().next()).flatten(),
        XfccTrust::Hops { count, by } => {
            let index = elements.len().checked_sub(*count)?;
            let mut from = elements.into_iter().skip(index);
            let (element, next) = (from.next()?, from.next());
            // With a wrong count the element may be the proxy's own, or one that a client wrote: the next is not about the proxy.
            let is_proxy = element.principal() == Some(by);
            let vouched = next.and_then(|next| next.uri).is_none_or(|uri| uri == *by);
            (element.by.as_deref() == Some(by) && vouched && !is_proxy).then_some(element)
        }
    }
}

/// All elements, or none where one is malformed.
pub fn parse(header: &[u8]) -> Option<Vec<Element>> {
    let text = std::str::from_utf8(header).ok().filter(|text| text.len() <= MAX_HEADER)?;
    split(text, ',')?.into_iter().map(element).collect()
}

fn element(text: &str) -> Option<Element> {
    let mut element = Element::default();
    for pair in split(text.trim(), ';')? {
        let (key, value) = pair.split_once('=')?;
        let value = unquote(value)?;
        let slot = match key.trim().to_ascii_lowercase().as_str() {
            "by" => &mut element.by,
            // Envoy quotes no DNS name, and writes them last: this URI would be part of one.
            "uri" if element.dns.is_some() => return None,
            "uri" => &mut element.uri,
            "dns" => &mut element.dns,
            "subject" => &mut element.subject,
            "hash" => {
                let digest = hex::decode(&value).ok()?.try_into().ok()?;
                if element.hash.replace(digest).is_some() {
                    return None;
                }
                continue;
            }
            _ => continue,
        };
        // URI and DNS may repeat: Envoy takes the first. An empty one says that there is none, so no other can follow it.
        slot.get_or_insert(value);
    }
    Some(element)
}

/// Splits at `separator` outside quotes. `None`: a quote does not end.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == separator && !quoted => {
                parts.push(&text[start..i]);
                start = i + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    if quoted { None } else { Some(parts) }
}

fn unquote(value: &str) -> Option<String> {
    let Some(inner) = value.strip_prefix('"') else {
        return (!value.contains('"')).then(|| value.to_owned());
    };
    let inner = inner.strip_suffix('"')?;
    let (mut text, mut escaped) = (String::with_capacity(inner.len()), false);
    for c in inner.chars() {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return None,
            c => {
                text.push(c);
                escaped = false;
            }
        }
    }
    (!escaped).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688";

    fn hops(count: usize) -> XfccTrust {
        XfccTrust::Hops { count, by: "spiffe://td/edge".into() }
    }

    #[test]
    fn an_element_is_read_with_its_quotes_and_escapes() {
        let header = format!(
            r#"By=spiffe://td/edge;Hash={HASH};Subject="CN=\"a, b\";O=x";URI=spiffe://td/client;DNS=a.example;DNS=b.example"#
        );
        let element = trusted(header.as_bytes(), &XfccTrust::SanitizeSet).unwrap();
        assert_eq!(element.by.as_deref(), Some("spiffe://td/edge"));
        assert_eq!(element.subject.as_deref(), Some(r#"CN="a, b";O=x"#));
        assert_eq!(element.principal(), Some("spiffe://td/client"));
        assert_eq!(element.dns.as_deref(), Some("a.example"));
        assert_eq!(element.hash.map(hex::encode).as_deref(), Some(HASH));
    }

    #[test]
    fn what_a_certificate_lacks_hides_nothing_that_it_has() {
        let principal =
            |header: &str| trusted(header.as_bytes(), &XfccTrust::SanitizeSet).unwrap().principal().map(str::to_owned);
        assert_eq!(principal(r#"By=x;Subject="CN=a";URI=;DNS=a.example"#).as_deref(), Some("a.example"));
        assert_eq!(principal(r#"By=x;Subject="CN=a";URI=;DNS="#).as_deref(), Some("CN=a"));
        assert_eq!(principal(r#"By=x;Subject="";URI="#), None);
        assert_eq!(principal(r#"By=x;URI=;URI=spiffe://td/admin;DNS=a.example"#).as_deref(), Some("a.example"));
    }

    #[test]
    fn h06_a_forged_header_is_never_believed_unless_the_listener_sanitises() {
        let forged = "By=spiffe://td/edge;URI=spiffe://td/admin";
        let real = "By=spiffe://td/edge;URI=spiffe://td/client";
        let both = format!("{forged},{real}");
        assert_eq!(trusted(real.as_bytes(), &XfccTrust::Never), None);
        assert_eq!(trusted(both.as_bytes(), &XfccTrust::SanitizeSet), None);
        let element = trusted(both.as_bytes(), &hops(1)).unwrap();
        assert_eq!(element.principal(), Some("spiffe://td/client"));
        assert_eq!(trusted(real.as_bytes(), &hops(2)), None);
        assert_eq!(trusted(b"By=spiffe://td/other;URI=spiffe://td/admin", &hops(1)), None);
        let forwarded = format!("{both},By=spiffe://td/inner;URI=spiffe://td/edge");
        assert_eq!(trusted(forwarded.as_bytes(), &hops(2)).unwrap().principal(), Some("spiffe://td/client"));
        assert_eq!(trusted(both.as_bytes(), &hops(2)), None, "one too many: it is the client that wrote it");
        let nameless = format!("{forged},By=spiffe://td/edge;Hash={HASH};URI=");
        assert_eq!(
            trusted(nameless.as_bytes(), &hops(2)),
            None,
            "one too many, of a client whose certificate has no URI"
        );
        let named = r#"By=spiffe://td/edge;Subject="CN=m";URI=;DNS=x;URI=spiffe://td/admin"#;
        assert_eq!(trusted(named.as_bytes(), &XfccTrust::SanitizeSet), None, "a DNS name that would be a URI");
        let proxy = "By=spiffe://td/edge;URI=spiffe://td/edge";
        assert_eq!(trusted(proxy.as_bytes(), &hops(1)), None, "one too few");
    }

    #[test]
    fn what_is_malformed_is_believed_in_no_part() {
        for header in ["By=\"x", "Hash=zz", "Hash=00", "novalue", "By=a\"b", "URI=\"a\\\"", "By=\"a\"b\""] {
            assert_eq!(parse(header.as_bytes()), None, "{header}");
        }
    }
}
