//! The places that a policy allows: one item of `allowed_locations`.

use std::sync::Arc;

use super::raw::{self, Listed};
use crate::{document::Problem, policy::model::AllowedLocation};

pub(super) fn location(raw: &raw::Location, problems: &mut Vec<Problem>, path: &str) -> AllowedLocation {
    let all = |own: &Option<String>, more: &Listed<String>| -> Vec<String> {
        own.iter().chain(more.items()).chain(&raw.value).chain(raw.values.items()).cloned().collect()
    };
    let (names, countries, cidrs) =
        (all(&raw.name, &raw.names), all(&raw.country, &raw.countries), all(&raw.cidr, &raw.cidrs));
    let given = |own: &Option<String>, more: &Listed<String>| own.is_some() || more.is_given();
    for (key, list) in
        [("values", &raw.values), ("names", &raw.names), ("countries", &raw.countries), ("cidrs", &raw.cidrs)]
    {
        if list.stands_empty() {
            let problem = Problem::error(format!("{path}.{key}"), "an empty list names no place");
            problems.push(problem.hint("leave it out, or write what is meant"));
        }
    }
    // Which networks these two are, the configuration says.
    let takes_none = matches!(raw.kind, raw::LocationKind::CorporateNetwork | raw::LocationKind::PrivateNetwork);
    for (key, here, fits) in [
        ("value", given(&raw.value, &raw.values), !takes_none),
        ("name", given(&raw.name, &raw.names), raw.kind == raw::LocationKind::KnownSecureLocation),
        ("country", given(&raw.country, &raw.countries), raw.kind == raw::LocationKind::Country),
        ("cidr", given(&raw.cidr, &raw.cidrs), raw.kind == raw::LocationKind::Cidr),
    ] {
        if here && !fits {
            problems.push(Problem::error(path, format!("`{key}` means nothing for a location of this type")));
        }
    }
    match raw.kind {
        raw::LocationKind::CorporateNetwork => AllowedLocation::CorporateNetwork,
        raw::LocationKind::PrivateNetwork => AllowedLocation::PrivateNetwork,
        raw::LocationKind::KnownSecureLocation => {
            AllowedLocation::KnownSecureLocation(names.iter().map(|name| name.as_str().into()).collect())
        }
        raw::LocationKind::Country => AllowedLocation::Country(countries_of(&countries, problems, path)),
        raw::LocationKind::Cidr => {
            let parse = |text: &String| {
                let net =
                    text.parse().ok().or_else(|| text.parse().ok().map(|address: std::net::IpAddr| address.into()));
                if net.is_none() {
                    let message = format!("`{text}` is no network such as `10.0.0.0/8`");
                    problems.push(Problem::error(path, message));
                }
                net
            };
            let nets: Vec<_> = cidrs.iter().filter_map(parse).collect();
            if cidrs.is_empty() {
                problems.push(Problem::error(path, "which networks? `cidr` is missing"));
            }
            AllowedLocation::Cidr(nets)
        }
    }
}

fn countries_of(codes: &[String], problems: &mut Vec<Problem>, path: &str) -> Vec<Arc<str>> {
    if codes.is_empty() {
        problems.push(Problem::error(path, "which countries? `countries` is missing").hint("`countries: [DE, FR]`"));
    }
    for code in codes {
        if code.len() != 2 || !code.bytes().all(|c| c.is_ascii_alphabetic()) {
            problems.push(Problem::error(path, format!("`{code}` is no country code such as `DE`")));
        }
    }
    codes.iter().map(|code| code.to_ascii_uppercase().into()).collect()
}
