//! A real OTLP/gRPC receiver that keeps what it is sent, decoded and octet by octet.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use http_body_util::{BodyExt as _, Full};
use tokio_stream::wrappers::TcpListenerStream;

// What of OTLP's messages tests read; fields that are not named here are skipped.

#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    #[prost(message, repeated, tag = "1")]
    pub resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResourceSpans {
    #[prost(message, repeated, tag = "2")]
    pub scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub name: String,
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Attribute {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    #[prost(string, tag = "1")]
    pub text: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {}

/// What arrived so far.
#[derive(Clone, Debug, Default)]
pub struct Collector(Arc<Mutex<Received>>);

#[derive(Debug, Default)]
struct Received {
    spans: Vec<Span>,
    octets: Vec<u8>,
}

impl Collector {
    /// Listens on a free port of the running runtime.
    pub async fn listen(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder().add_service(self.clone());
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }

    pub fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap().spans.clone()
    }

    /// Every octet of every export.
    pub fn octets(&self) -> Vec<u8> {
        self.0.lock().unwrap().octets.clone()
    }
}

impl tonic::server::NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl tonic::server::UnaryService<Request> for Collector {
    type Response = Response;
    type Future = std::future::Ready<Result<tonic::Response<Response>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<Request>) -> Self::Future {
        let spans = request.into_inner().resources.into_iter().flat_map(|resource| resource.scopes);
        self.0.lock().unwrap().spans.extend(spans.flat_map(|scope| scope.spans));
        std::future::ready(Ok(tonic::Response::new(Response {})))
    }
}

impl tower::Service<http::Request<tonic::body::Body>> for Collector {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let collector = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let octets = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            collector.0.lock().unwrap().octets.extend_from_slice(&octets);
            let codec = tonic_prost::ProstCodec::<Response, Request>::default();
            let request = http::Request::from_parts(head, Full::new(octets));
            Ok(tonic::server::Grpc::new(codec).unary(collector, request).await)
        })
    }
}
