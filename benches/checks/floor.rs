//! The floor: what a server costs that allows everything, built as such servers are: tonic, generated types, one thread.

use std::net::SocketAddr;

use envoy_types::ext_authz::v3::{
    CheckResponseExt as _,
    pb::{Authorization, AuthorizationServer, CheckRequest, CheckResponse},
};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

struct Allow;

#[tonic::async_trait]
impl Authorization for Allow {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        std::hint::black_box(&request);
        Ok(Response::new(CheckResponse::with_status(Status::ok(""))))
    }
}

/// Serves until it is killed.
pub fn serve(address: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let incoming = TcpIncoming::bind(address).expect("the port is free").with_nodelay(Some(true));
        let server = Server::builder().add_service(AuthorizationServer::new(Allow));
        server.serve_with_incoming(incoming).await.expect("the floor serves");
    });
}
