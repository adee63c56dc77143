//! A CheckRequest from a file (protobuf JSON, either spelling of names) or from arguments.

use std::{collections::HashMap, fs, net::IpAddr, path::PathBuf};

use clap::Args;
use serde::Deserialize;

use crate::{
    cli::client::Failure,
    wire::owned::{self, attribute_context as wire},
};

/// The request that is asked about, as Envoy would describe it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Request")]
pub(super) struct Parts {
    /// Path and query, such as `/orders/7?all=1`.
    #[arg(long, required_unless_present_any = ["file", "decision", "audit"])]
    path: Option<String>,
    #[arg(long, default_value = "GET")]
    method: String,
    #[arg(long, default_value = "localhost")]
    host: String,
    /// Also sent as `x-forwarded-proto`, as Envoy does, unless a header says otherwise.
    #[arg(long, default_value = "https")]
    scheme: String,
    /// A file that holds the caller's token: sent as `Authorization: Bearer …`.
    #[arg(long, value_name = "FILE")]
    bearer: Option<PathBuf>,
    /// A header: `--header 'x-device-id: laptop-1'`.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The client's address, whatever `client.trusted_hops` of the server; with a header `x-forwarded-for`: the address of the
    /// connection's peer.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    address: IpAddr,
    /// SPIFFE id of the client's certificate.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    principal: String,
    /// A context extension of the route: `--extension policy=strict`.
    #[arg(long = "extension", value_name = "NAME=VALUE")]
    extensions: Vec<String>,
}

impl Parts {
    /// The client's address, where the request's own headers do not say it.
    pub(super) fn client(&self) -> Option<IpAddr> {
        let name = |header: &String| header.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
        let forwarded = self.headers.iter().any(|header| name(header) == "x-forwarded-for");
        (!forwarded).then_some(self.address)
    }

    pub(super) fn build(&self) -> Result<owned::CheckRequest, Failure> {
        let path = self.path.clone().ok_or_else(|| Failure::usage("a path, a file or a decision is needed"))?;
        let mut headers = pairs(&self.headers, ':', "NAME: VALUE")?;
        headers = headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        if let Some(file) = &self.bearer {
            let token = fs::read_to_string(file)
                .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", file.display())))?;
            headers.insert("authorization".into(), format!("Bearer {}", token.trim()));
        }
        headers.entry("x-forwarded-proto".into()).or_insert_with(|| self.scheme.clone());
        for (name, value) in [(":method", &self.method), (":path", &path), (":authority", &self.host)] {
            headers.insert(name.into(), value.clone());
        }
        let http = wire::HttpRequest {
            method: self.method.clone(),
            path,
            host: self.host.clone(),
            scheme: self.scheme.clone(),
            protocol: "HTTP/1.1".into(),
            headers,
            ..wire::HttpRequest::default()
        };
        let socket = owned::SocketAddress { address: self.address.to_string(), ..owned::SocketAddress::default() };
        let source = wire::Peer {
            address: Some(owned::Address { socket_address: Some(socket), pipe: None }),
            principal: self.principal.clone(),
            ..wire::Peer::default()
        };
        let context = owned::AttributeContext {
            source: Some(source),
            request: Some(wire::Request { time: None, http: Some(http) }),
            context_extensions: pairs(&self.extensions, '=', "NAME=VALUE")?,
            ..owned::AttributeContext::default()
        };
        Ok(owned::CheckRequest { attributes: Some(context) })
    }
}

fn pairs(given: &[String], sign: char, form: &str) -> Result<HashMap<String, String>, Failure> {
    given
        .iter()
        .map(|pair| {
            let (name, value) =
                pair.split_once(sign).ok_or_else(|| Failure::usage(format!("`{pair}` is not {form}")))?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

/// Reads a CheckRequest, or what wraps one (`{"request": …}`, as `grpcurl` takes it for Explain). What Countersign does
/// not read of it is left out.
///
/// # Errors
///
/// What is wrong with the JSON, with its line.
pub(super) fn parse(text: &str) -> Result<owned::CheckRequest, serde_json::Error> {
    let file: File = serde_json::from_str(text)?;
    let check = file.request.map_or(file.check, |wrapped| *wrapped);
    if check.attributes.is_none() {
        return Err(serde::de::Error::custom("it has no `attributes`: not a CheckRequest"));
    }
    Ok(check.into())
}

#[derive(Deserialize)]
struct File {
    request: Option<Box<Check>>,
    #[serde(flatten)]
    check: Check,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Check {
    attributes: Option<Attributes>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Attributes {
    source: Option<Peer>,
    destination: Option<Peer>,
    request: Option<Request>,
    #[serde(alias = "contextExtensions")]
    context_extensions: HashMap<String, String>,
    #[serde(alias = "tlsSession")]
    tls_session: Option<Tls>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Peer {
    address: Option<Address>,
    service: String,
    labels: HashMap<String, String>,
    principal: String,
    certificate: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Address {
    #[serde(alias = "socketAddress")]
    socket_address: Option<Socket>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Socket {
    address: String,
    #[serde(alias = "portValue")]
    port_value: u32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Request {
    http: Option<Http>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Http {
    id: String,
    method: String,
    headers: HashMap<String, String>,
    #[serde(alias = "headerMap")]
    header_map: Option<Headers>,
    path: String,
    host: String,
    scheme: String,
    query: String,
    fragment: String,
    protocol: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Headers {
    headers: Vec<Header>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Header {
    key: String,
    value: String,
    #[serde(alias = "rawValue")]
    raw_value: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Tls {
    sni: String,
}

impl From<Check> for owned::CheckRequest {
    fn from(check: Check) -> Self {
        Self { attributes: check.attributes.map(Into::into) }
    }
}

impl From<Attributes> for owned::AttributeContext {
    fn from(from: Attributes) -> Self {
        Self {
            source: from.source.map(Into::into),
            destination: from.destination.map(Into::into),
            request: from.request.map(|request| wire::Request { time: None, http: request.http.map(Into::into) }),
            context_extensions: from.context_extensions,
            tls_session: from.tls_session.map(|tls| wire::TlsSession { sni: tls.sni }),
        }
    }
}

impl From<Peer> for wire::Peer {
    fn from(from: Peer) -> Self {
        let socket = from.address.and_then(|address| address.socket_address).map(|socket| owned::SocketAddress {
            address: socket.address,
            port_value: socket.port_value,
            ..owned::SocketAddress::default()
        });
        Self {
            address: socket.map(|socket| owned::Address { socket_address: Some(socket), pipe: None }),
            service: from.service,
            labels: from.labels,
            principal: from.principal,
            certificate: from.certificate,
        }
    }
}

impl From<Http> for wire::HttpRequest {
    fn from(from: Http) -> Self {
        use base64::Engine as _;
        let raw = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
        let header = |header: Header| owned::HeaderValue {
            raw_value: raw(&header.raw_value),
            key: header.key,
            value: header.value,
        };
        Self {
            id: from.id,
            method: from.method,
            headers: from.headers,
            path: from.path,
            host: from.host,
            scheme: from.scheme,
            query: from.query,
            fragment: from.fragment,
            protocol: from.protocol,
            header_map: from
                .header_map
                .map(|map| owned::HeaderMap { headers: map.headers.into_iter().map(header).collect() }),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_and_the_wrapped_form_are_read() {
        let camel = r#"{"attributes":{"source":{"address":{"socketAddress":{"address":"10.0.0.1","portValue":7}}},
            "request":{"time":{"seconds":1},"http":{"method":"GET","path":"/x","headerMap":{"headers":[{"key":"a","rawValue":"Yg=="}]}}},
            "contextExtensions":{"policy":"p"},"metadataContext":{}}}"#;
        let snake = camel
            .replace("socketAddress", "socket_address")
            .replace("portValue", "port_value")
            .replace("headerMap", "header_map")
            .replace("rawValue", "raw_value")
            .replace("contextExtensions", "context_extensions");
        let check = parse(camel).unwrap();
        assert_eq!(check, parse(&snake).unwrap());
        assert_eq!(check, parse(&format!(r#"{{"request":{camel}}}"#)).unwrap());
        let attributes = check.attributes.unwrap();
        assert_eq!(attributes.context_extensions["policy"], "p");
        let http = attributes.request.unwrap().http.unwrap();
        assert_eq!((http.path.as_str(), http.header_map.unwrap().headers[0].raw_value.as_slice()), ("/x", &b"b"[..]));
        assert!(parse("{").unwrap_err().to_string().contains("line 1"));
        assert!(parse(r#"{"atributes":{}}"#).unwrap_err().to_string().contains("no `attributes`"));
    }
}
