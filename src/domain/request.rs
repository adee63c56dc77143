//! One request as the decision sees it: already parsed, canonical, and free of secrets.

use std::{net::IpAddr, ops::Not, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::{Classification, DecisionId, TrustLevel, is_default, path::PathProblem};

#[skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccessRequest {
    pub id: DecisionId,
    pub transport: Transport,
    pub method: Method,
    /// Canonical host: lower case, without port and trailing dot. Empty where there is none.
    pub host: Arc<str>,
    /// Canonical path, or why it has none.
    pub path: Result<Arc<str>, PathProblem>,
    /// The client as Envoy vouches for it.
    pub client: Option<IpAddr>,
    /// `https` by Envoy's own word, or a downstream connection with a client certificate.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub encrypted: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub client_kind: ClientKind,
    /// An upgrade (WebSocket), a gRPC call or an event stream: one check, then a long life.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub long_lived: bool,
    #[serde(default, skip_serializing_if = "RouteExtensions::is_empty")]
    pub extensions: RouteExtensions,
    /// `X-Access-Justification`: `Some` only when 10 to 512 printable characters.
    pub justification: Option<Arc<str>>,
    /// A device id or fingerprint header was sent.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub device_sent: bool,
    /// SPIFFE id or other principal of the destination workload, where Envoy sends it.
    pub destination: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    Http,
    /// No HTTP attributes: Envoy's network filter.
    Tcp,
}

/// What kind of client waits for the answer: it decides the form of a refusal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientKind {
    #[default]
    Api,
    /// A browser that navigates: a small HTML page.
    Browser,
    Grpc,
    GrpcWeb,
}

/// Methods compare exactly; what is not listed is `Other` and matches nothing unless a rule names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "String")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Other(Arc<str>),
}

impl Method {
    /// What a resource without a `methods:` list answers to.
    pub const COMMON: [Self; 7] =
        [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Options];

    pub fn parse(text: &str) -> Self {
        match text {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            other => Self::Other(other.into()),
        }
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Other(text) => text,
        }
    }
}

impl Serialize for Method {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl From<String> for Method {
    fn from(text: String) -> Self {
        Self::parse(&text)
    }
}

impl From<Method> for String {
    fn from(method: Method) -> Self {
        method.as_str().into()
    }
}

/// Per-route `context_extensions` of Envoy. They may only tighten. A value that is not understood is kept as a problem.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteExtensions {
    pub policy: Option<Arc<str>>,
    pub resource: Option<Arc<str>>,
    pub data_classification: Option<Classification>,
    pub min_trust_level: Option<TrustLevel>,
    pub segment: Option<Arc<str>>,
    /// The name of an extension whose value is not one of its words: refuses.
    pub malformed: Option<Arc<str>>,
}

impl RouteExtensions {
    /// The route says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
