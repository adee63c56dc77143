//! Addresses of clients: which are inside, and which IPv4 address stands behind an IPv6 one.

use std::net::IpAddr;

/// Private, loopback, link-local, carrier-grade and unique-local addresses: no database knows them.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// The IPv4 address behind a 6to4 address (RFC 3056) or one of NAT64's well-known prefix (RFC 6052). Only public ones may be
/// written like that: another one stands for nobody inside.
pub fn embedded(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = address else { return None };
    let inner = match v6.octets() {
        [0x20, 0x02, a, b, c, d, ..] => [a, b, c, d],
        [0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => [a, b, c, d],
        _ => return None,
    };
    Some(IpAddr::from(inner)).filter(|inner| !is_private(*inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_stand_behind_others() {
        let behind = |text: &str| embedded(text.parse().unwrap()).map(|inner| inner.to_string());
        assert_eq!(behind("2002:c633:6407::1").as_deref(), Some("198.51.100.7"));
        assert_eq!(behind("64:ff9b::198.51.100.7").as_deref(), Some("198.51.100.7"));
        for other in
            ["2002:0a00:0001::1", "64:ff9b::10.0.0.1", "64:ff9b:1::198.51.100.7", "2001:db8::1", "198.51.100.7"]
        {
            assert_eq!(behind(other), None, "{other}");
        }
    }
}
