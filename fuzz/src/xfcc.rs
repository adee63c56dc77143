//! `x-forwarded-client-cert`: what is read of it must survive being written again, and a header is believed whole or not.

use countersign::identity::{
    settings::XfccTrust,
    xfcc::{Element, parse, trusted},
};

pub fn run(data: &[u8]) {
    assert_eq!(trusted(data, &XfccTrust::Never), None);
    let elements = parse(data);
    let sanitised = trusted(data, &XfccTrust::SanitizeSet);
    let by = elements.as_ref().and_then(|all| all.last()?.by.clone()).unwrap_or_default();
    let hop = trusted(data, &XfccTrust::Hops { count: 1, by });
    let Some(elements) = elements else {
        assert_eq!((sanitised, hop), (None, None), "part of a malformed header was believed");
        return;
    };
    assert_eq!(sanitised.is_some(), elements.len() == 1);
    let client = |last: &&Element| last.by.is_some() && last.principal() != last.by.as_deref();
    assert_eq!(hop, elements.last().filter(client).cloned(), "hops count from the right");
    let written: Vec<String> = elements.iter().map(write).collect();
    let written = written.join(",");
    if written.len() <= 64 * 1024 {
        assert_eq!(parse(written.as_bytes()).as_ref(), Some(&elements), "{written}");
    }
}

fn write(element: &Element) -> String {
    let quoted = |text: &String| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let named = [("By", &element.by), ("URI", &element.uri), ("DNS", &element.dns), ("Subject", &element.subject)];
    let mut pairs: Vec<String> =
        named.iter().filter_map(|(name, text)| Some(format!("{name}={}", quoted(text.as_ref()?)))).collect();
    if let Some(hash) = element.hash {
        pairs.push(format!("Hash={}", hash.iter().map(|octet| format!("{octet:02x}")).collect::<String>()));
    }
    if pairs.is_empty() { "Other=x".to_owned() } else { pairs.join(";") }
}
