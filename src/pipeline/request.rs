//! From Envoy's attributes to an [`AccessRequest`]: canonical, bounded, free of secrets.
//!
//! What cannot be read becomes a problem inside the request, for the decision to refuse; nothing fails here.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use smallvec::SmallVec;

use crate::{
    domain::{
        AccessRequest, Classification, ClientKind, DecisionId, Method, RouteExtensions, Transport, TrustLevel,
        host::canonical_host,
        path::{PathProblem, canonical_path},
        text::is_invisible,
    },
    identity::{Credentials, HeaderValues},
    wire::{
        Malformed,
        check::{CheckView, HttpView},
    },
};

/// Headers by which a client might talk an upstream into another path or method. Never read, removed on allow.
const OVERRIDES: [&str; 9] = [
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-forwarded-uri",
    "x-forwarded-path",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-envoy-upstream-stream-duration-ms",
];

/// All that is read of one check's message.
pub(super) struct Message<'a> {
    pub(super) request: AccessRequest,
    /// `None` for plain TCP.
    pub(super) carried: Option<Carried<'a>>,
    /// Names of headers that the upstream must not see.
    pub(super) remove: SmallVec<[Box<str>; 2]>,
    pub(super) traceparent: Option<&'a [u8]>,
}

/// What a request carries for the stages that find out who sent it, as Envoy sent it.
pub(super) struct Carried<'a> {
    pub(super) credentials: Credentials<'a>,
    pub(super) device: Option<Cow<'a, str>>,
    pub(super) fingerprint: Option<Cow<'a, str>>,
    agent: Option<&'a [u8]>,
}

impl<'a> Message<'a> {
    /// `trusted_hops` of `None`: the client is the peer of the connection.
    ///
    /// # Errors
    ///
    /// [`Malformed`] where the octets are no CheckRequest.
    pub(super) fn read(octets: &'a [u8], id: DecisionId, trusted_hops: Option<usize>) -> Result<Self, Malformed> {
        let mut view = CheckView::default();
        view.read(octets)?;
        Ok(match view.http() {
            None => Self { request: tcp(&view, id), carried: None, remove: SmallVec::new(), traceparent: None },
            Some(http) => {
                let carried = Carried::of(&view, http);
                Self {
                    request: request(&view, http, &carried, id, trusted_hops),
                    carried: Some(carried),
                    remove: headers_to_remove(http),
                    traceparent: http.value("traceparent"),
                }
            }
        })
    }
}

impl<'a> Carried<'a> {
    fn of(view: &CheckView<'a>, http: &HttpView<'a>) -> Self {
        let lines = |name| {
            let mut values = HeaderValues::NONE;
            http.values(name).into_iter().for_each(|line| values.push(line));
            values
        };
        let mut target = http.target().splitn(2, |octet| *octet == b'?');
        Self {
            credentials: Credentials {
                authorization: lines("authorization"),
                dpop: lines("dpop"),
                xfcc: lines("x-forwarded-client-cert"),
                path: target.next().unwrap_or_default(),
                query: target.next(),
                method: http.method,
                scheme: http.scheme,
                host: http.host,
                principal: view.source.principal,
                certificate: view.source.certificate,
                only_look: false,
            },
            device: joined(http, "x-device-id"),
            fingerprint: joined(http, "x-device-fingerprint"),
            agent: http.value("user-agent"),
        }
    }

    /// `User-Agent`; empty where there is none, or none that is text.
    pub(super) fn agent(&self) -> &'a str {
        self.agent.and_then(|octets| std::str::from_utf8(octets).ok()).unwrap_or_default()
    }
}

/// The text of a header; several lines are joined by commas, as Envoy joins them.
fn joined<'a>(http: &HttpView<'a>, name: &str) -> Option<Cow<'a, str>> {
    let lines = http.values(name);
    match lines.as_slice() {
        [] => None,
        [line] => Some(lossy(line)),
        lines => Some(lossy(&lines.join(&b","[..])).into_owned().into()),
    }
}

/// As [`String::from_utf8_lossy`], which looks at octets one by one, and faster where all is well.
fn lossy(octets: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(octets).map_or_else(|_| String::from_utf8_lossy(octets), Cow::Borrowed)
}

fn request(
    view: &CheckView<'_>,
    http: &HttpView<'_>,
    carried: &Carried<'_>,
    id: DecisionId,
    trusted_hops: Option<usize>,
) -> AccessRequest {
    let host = canonical_host(text(http.host));
    let path = canonical_path(&lossy(http.target())).map(Arc::from);
    let content_type = http.value("content-type").unwrap_or_default();
    let accept = http.values("accept");
    AccessRequest {
        id,
        transport: Transport::Http,
        method: std::str::from_utf8(http.method).map_or_else(|_| Method::Other("?".into()), Method::parse),
        path: if host.is_none() && !http.host.is_empty() { Err(PathProblem::Unreadable) } else { path },
        host: Arc::from(host.unwrap_or_default()),
        client: client_address(view, http, trusted_hops),
        encrypted: is_encrypted(view, http),
        client_kind: client_kind(http, content_type, accept.last().copied().unwrap_or_default()),
        long_lived: is_long_lived(http, content_type, &accept),
        extensions: extensions(view),
        justification: justification(http),
        device_sent: carried.device.is_some() || carried.fingerprint.is_some(),
        destination: principal(view.destination.principal),
    }
}

/// The request of a check whose message could not be read at all.
pub(super) fn unread(id: DecisionId, problem: PathProblem) -> AccessRequest {
    let mut request = tcp(&CheckView::default(), id);
    request.transport = Transport::Http;
    request.path = Err(problem);
    request
}

fn tcp(view: &CheckView<'_>, id: DecisionId) -> AccessRequest {
    AccessRequest {
        id,
        transport: Transport::Tcp,
        method: Method::Other("".into()),
        host: "".into(),
        path: Ok("".into()),
        client: parse_address(view.source.address),
        encrypted: !view.source.principal.is_empty(),
        client_kind: ClientKind::Api,
        long_lived: true,
        extensions: extensions(view),
        justification: None,
        device_sent: false,
        destination: principal(view.destination.principal),
    }
}

/// Names to remove from an allowed request: whatever begins with `x-zt-` in either spelling, and the overrides.
///
/// Of a few names each is compared with those before it; many, which only an attacker sends, are sorted instead.
fn headers_to_remove(http: &HttpView<'_>) -> SmallVec<[Box<str>; 2]> {
    const FEW: usize = 32;
    let mut names: SmallVec<[Box<str>; 2]> = SmallVec::new();
    // All of them begin with an `x`; most headers do not.
    for header in http.headers().iter().filter(|header| matches!(header.name, [b'x' | b'X', ..])) {
        if (is_ours(header.name) || is_override(header.name))
            && let Ok(name) = std::str::from_utf8(header.name)
            && (names.len() >= FEW || !names.iter().any(|known| known.eq_ignore_ascii_case(name)))
        {
            names.push(name.to_ascii_lowercase().into());
        }
    }
    if names.len() > FEW {
        names.sort_unstable();
        names.dedup();
    }
    names
}

/// `x-zt-…`, with `-` and `_` taken for one another as many upstreams do.
fn is_ours(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"x-zt-";
    name.len() >= PREFIX.len()
        && name.iter().zip(PREFIX).all(|(octet, expected)| match octet {
            b'_' => *expected == b'-',
            other => other.eq_ignore_ascii_case(expected),
        })
}

fn is_override(name: &[u8]) -> bool {
    OVERRIDES.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// Mutual TLS, or https by Envoy's own word. Over HTTP/2 the client writes `:scheme`, and Envoy passes it on as it came; what
/// the connection was stands in `x-forwarded-proto`. The attribute `tls_session` says nothing: it is there without TLS, too.
fn is_encrypted(view: &CheckView<'_>, http: &HttpView<'_>) -> bool {
    let is_https = |text: &[u8]| text.eq_ignore_ascii_case(b"https");
    let forwarded = || {
        let lines = http.values("x-forwarded-proto");
        !lines.is_empty() && lines.iter().all(|line| is_https(line))
    };
    !view.source.principal.is_empty() || (is_https(http.scheme) && forwarded())
}

fn client_address(view: &CheckView<'_>, http: &HttpView<'_>, trusted_hops: Option<usize>) -> Option<IpAddr> {
    let Some(hops) = trusted_hops.filter(|hops| *hops > 0) else { return parse_address(view.source.address) };
    // Several lines read as one list, in order; only what our own proxies appended, on the right, is believed.
    let lines = http.values("x-forwarded-for");
    let mut addresses = lines.iter().rev().flat_map(|line| line.rsplit(|octet| *octet == b','));
    parse_address(addresses.nth(hops - 1)?.trim_ascii())
}

/// An address, also with its port, as some load balancers write it.
fn parse_address(address: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(address).ok()?;
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse::<IpAddr>().ok().or_else(with_port).map(|address| address.to_canonical())
}

fn client_kind(http: &HttpView<'_>, content_type: &[u8], accept: &[u8]) -> ClientKind {
    if starts_with(content_type, b"application/grpc-web") {
        return ClientKind::GrpcWeb;
    }
    if starts_with(content_type, b"application/grpc") {
        return ClientKind::Grpc;
    }
    let navigates = || http.value("sec-fetch-mode").is_none_or(|mode| mode == b"navigate");
    if starts_with(accept, b"text/html") && navigates() { ClientKind::Browser } else { ClientKind::Api }
}

fn is_long_lived(http: &HttpView<'_>, content_type: &[u8], accept: &[&[u8]]) -> bool {
    http.method == b"CONNECT"
        || starts_with(content_type, b"application/grpc")
        || accept.iter().any(|line| takes_events(line))
        || http.value("upgrade").is_some()
}

/// Whether an `Accept` list (RFC 9110 section 12.5.1) has `text/event-stream` anywhere, with whatever parameters.
fn takes_events(accept: &[u8]) -> bool {
    let kind = |member: &[u8]| {
        let end = member.iter().position(|octet| *octet == b';').unwrap_or(member.len());
        member[..end].trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    };
    accept.split(|octet| *octet == b',').any(kind)
}

fn extensions(view: &CheckView<'_>) -> RouteExtensions {
    let mut extensions = RouteExtensions::default();
    if view.extensions.is_empty() {
        return extensions;
    }
    let mut malformed = None;
    // An empty value is what a template's variable without a value leaves: no name of anything, as an unknown one.
    let mut named = |name: &'static str| {
        let value = view.extension(name).map(text)?;
        if value.is_empty() {
            malformed = Some(name);
        }
        Some(value)
    };
    extensions.policy = named("policy").map(Arc::from);
    extensions.resource = named("resource").map(Arc::from);
    extensions.segment = named("segment").map(Arc::from);
    let (classification, level) = (named("data_classification"), named("min_trust_level"));
    extensions.data_classification = classification.and_then(Classification::parse);
    extensions.min_trust_level = level.and_then(TrustLevel::parse);
    if classification.is_some() && extensions.data_classification.is_none() {
        malformed = Some("data_classification");
    }
    if level.is_some() && extensions.min_trust_level.is_none() {
        malformed = Some("min_trust_level");
    }
    extensions.malformed = malformed.map(Arc::from);
    extensions
}

/// Ten to 512 printable characters, else as if none were given. Spaces in a row count once, and what nobody sees is not printable.
fn justification(http: &HttpView<'_>) -> Option<Arc<str>> {
    let given = std::str::from_utf8(http.value("x-access-justification")?).ok()?.trim();
    let printed = given.split_whitespace().map(|word| 1 + word.chars().count()).sum::<usize>().saturating_sub(1);
    let fits = printed >= 10 && given.chars().count() <= 512;
    (fits && !given.chars().any(is_invisible)).then(|| given.into())
}

fn principal(octets: &[u8]) -> Option<Arc<str>> {
    let text = text(octets);
    (!text.is_empty()).then(|| text.into())
}

/// Text, or nothing where the octets are none: what is not text matches no rule.
fn text(octets: &[u8]) -> &str {
    std::str::from_utf8(octets).unwrap_or("\u{fffd}")
}

fn starts_with(value: &[u8], prefix: &[u8]) -> bool {
    value.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests;
