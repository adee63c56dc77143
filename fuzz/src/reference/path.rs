//! The profile of paths, sentence by sentence.

/// The canonical path of `target`; `None`: refused.
pub fn canonical(target: &str) -> Option<String> {
    let path = target.split('?').next()?;
    let right = path.len() <= 8192
        && path.starts_with('/')
        && path.bytes().all(|octet| (0x21..=0x7e).contains(&octet) && !b"#\\".contains(&octet));
    if !right {
        return None;
    }
    let segments: Vec<&str> = path[1..].split('/').collect();
    let mut names = Vec::new();
    for segment in &segments {
        let mut parts = segment.split(';');
        let name = decode(parts.next()?)?;
        // Parameters are cut, and judged like everything else.
        for parameter in parts {
            decode(parameter)?;
        }
        let cut = segment.contains(';');
        if name == b"." || name == b".." || (name.is_empty() && cut) {
            return None;
        }
        names.push(name);
    }
    if names[..names.len() - 1].iter().any(Vec::is_empty) {
        return None;
    }
    let spelt = segments.iter().map(|segment| format!("/{}", spell(segment.split(';').next().unwrap_or_default())));
    Some(spelt.collect::<String>()).filter(|path| path.len() <= 8192)
}

/// The octets that a piece of a segment stands for, when it may stand there.
fn decode(piece: &str) -> Option<Vec<u8>> {
    let octets = piece.as_bytes();
    let mut decoded = Vec::new();
    let mut i = 0;
    while i < octets.len() {
        if octets[i] == b'%' {
            let octet = escaped(octets, i)?;
            if b"/\\%;?#".contains(&octet) || octet < 0x20 || octet == 0x7f {
                return None;
            }
            decoded.push(octet);
            i += 3;
        } else {
            decoded.push(octets[i]);
            i += 1;
        }
    }
    let text = String::from_utf8(decoded.clone()).ok()?;
    let bad = |c: char| c == '\u{ff0f}' || c == '\u{ff3c}' || c.is_control();
    (!text.chars().any(bad)).then_some(decoded)
}

fn escaped(octets: &[u8], at: usize) -> Option<u8> {
    let digit = |octet: &u8| char::from(*octet).to_digit(16);
    Some((digit(octets.get(at + 1)?)? * 16 + digit(octets.get(at + 2)?)?) as u8)
}

/// What RFC 3986 lets stand in a segment plain (`;` left out), everything else encoded in upper case.
fn spell(name: &str) -> String {
    let octets = name.as_bytes();
    let (mut spelt, mut i) = (String::new(), 0);
    while i < octets.len() {
        let octet = if octets[i] == b'%' { escaped(octets, i).unwrap_or_default() } else { octets[i] };
        i += if octets[i] == b'%' { 3 } else { 1 };
        let plain = octet.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&octet);
        spelt += &if plain { char::from(octet).to_string() } else { format!("%{octet:02X}") };
    }
    spelt
}
