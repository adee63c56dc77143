//! One spelling for a host: lower case, no port, no trailing dot; an IPv6 address as RFC 5952 writes it.

use std::{borrow::Cow, net::Ipv6Addr};

/// The canonical form of an `:authority` or `Host` value, or `None` where it is no host at all
/// (user information, spaces, control characters, more than 255 octets, an empty name, brackets around no IPv6 address).
pub fn canonical_host(authority: &str) -> Option<Cow<'_, str>> {
    let name = without_port(authority)?;
    if let Some(literal) = name.strip_prefix('[') {
        let address: Ipv6Addr = literal.strip_suffix(']')?.parse().ok()?;
        return Some(Cow::Owned(format!("[{address}]")));
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > 255 || !name.bytes().all(is_host_octet) {
        return None;
    }
    Some(if name.bytes().any(|octet| octet.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

fn without_port(authority: &str) -> Option<&str> {
    if authority.starts_with('[') {
        let (address, port) = authority.split_at(authority.find(']')? + 1);
        return is_port(port).then_some(address);
    }
    let end = authority.bytes().position(|octet| octet == b':').unwrap_or(authority.len());
    let (name, port) = authority.split_at(end);
    is_port(port).then_some(name)
}

/// Empty, or a colon with at most five digits.
fn is_port(text: &str) -> bool {
    text.is_empty()
        || text.strip_prefix(':').is_some_and(|digits| digits.len() <= 5 && digits.bytes().all(|d| d.is_ascii_digit()))
}

fn is_host_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~' | b'|')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_case_and_trailing_dot_do_not_make_another_host() {
        for spelling in ["shop.example", "SHOP.example", "shop.example:8443", "Shop.Example.:443", "shop.example."] {
            assert_eq!(canonical_host(spelling).as_deref(), Some("shop.example"), "{spelling}");
        }
    }

    #[test]
    fn an_ipv6_address_has_one_spelling() {
        for spelling in ["[::1]", "[::1]:80", "[0:0:0:0:0:0:0:1]", "[::0001]", "[0000:0::1]:8443"] {
            assert_eq!(canonical_host(spelling).as_deref(), Some("[::1]"), "{spelling}");
        }
        assert_eq!(canonical_host("[2001:DB8::A]").as_deref(), Some("[2001:db8::a]"));
        assert_eq!(canonical_host("[::ffff:7f00:1]"), canonical_host("[::FFFF:127.0.0.1]"));
        for text in
            ["[]", "[::1", "[::1].", "[::1]x", "[shop.example]", "[::1%251]", "[v1.x]", "[1::2::3]", "a[b]", "[[::1]]"]
        {
            assert_eq!(canonical_host(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_host_has_no_canonical_form() {
        for text in
            ["", ".", ":80", "a b", "user@shop.example", "shop.example:port", "shop.example:1:2", "[::1", "a\0b"]
        {
            assert_eq!(canonical_host(text), None, "{text:?}");
        }
    }
}
