//! What the demo asks of the admin API: a device to know, a token to refuse; and the lines with which others ask it.

use std::path::Path;

use tonic::{Request, metadata::MetadataValue, transport::Endpoint};

use super::{
    DemoError,
    lines::{Expected, Line, Tokens},
    ports::{Ports, local},
    run::shown,
};
use crate::{
    admin,
    wire::admin::{Device, Kind, PutDeviceRequest, RevokeRequest, admin_client::AdminClient},
};

/// The device that the demo enrols, and what it shows of itself.
pub(super) const DEVICE: &str = "laptop-1";
pub(super) const FINGERPRINT: &str = "fp-1";

/// Enrols the device and revokes the token of the lines that need them. `state` holds the admin token.
pub(super) async fn prepare(port: u16, state: &Path, tokens: &Tokens) -> Result<(), DemoError> {
    let token = admin::find_token(state)?;
    let token = token.ok_or_else(|| DemoError::Prepare(format!("no admin token in {}", state.display())))?;
    let authorization: MetadataValue<_> = format!("Bearer {}", token.expose())
        .parse()
        .map_err(|_| DemoError::Prepare("the admin token is no header value".to_owned()))?;
    let channel = Endpoint::from_shared(format!("http://{}", local(port)))?.connect().await?;
    let mut client = AdminClient::with_interceptor(channel, move |mut request: Request<()>| {
        request.metadata_mut().insert("authorization", authorization.clone());
        Ok(request)
    });
    let device = Device {
        id: DEVICE.to_owned(),
        user: Some("alice".to_owned()),
        fingerprint: Some(FINGERPRINT.to_owned()),
        managed: Some(true),
        compliant: Some(true),
        ..Device::default()
    };
    client
        .put_device(PutDeviceRequest { device: Some(device), ..PutDeviceRequest::default() })
        .await
        .map_err(Box::new)?;
    let revoke = RevokeRequest {
        kind: Kind::Token.into(),
        id: tokens.revoked_id.clone(),
        reason: "reported stolen".to_owned(),
        ..RevokeRequest::default()
    };
    client.revoke(revoke).await.map_err(Box::new)?;
    Ok(())
}

/// The same Check and why by `grpcurl`, and a revocation that bites at once. `programs`: this one, and grpcurl.
pub(super) fn lines(programs: [&Path; 2], folder: &Path, ports: &Ports, tokens: &Tokens) -> Vec<Line> {
    let [program, grpcurl] = programs.map(shown);
    let file = |name: &str| shown(&folder.join(name));
    let (authz, admin) = (local(ports.authz_port), local(ports.admin_port));
    let base = ports.base();
    vec![
        Line {
            title: "the question of the first line, without Envoy",
            command: format!(
                "{grpcurl} -plaintext -d @ {authz} envoy.service.auth.v3.Authorization/Check < {}",
                file("check.json")
            ),
            expected: Expected::Text("x-zt-decision-id"),
        },
        Line {
            title: "why",
            command: format!(
                "{grpcurl} -plaintext -d @ {admin} countersign.admin.v1.Admin/Explain < {}",
                file("explain.json")
            ),
            expected: Expected::Text("\"verdict\": \"allow\""),
        },
        Line {
            title: "revoke the first line's token",
            command: format!(
                "{program} revoke token {} --reason 'lost laptop' --config {}",
                tokens.clerk_id,
                file("countersign.yaml")
            ),
            expected: Expected::Text("revoked"),
        },
        Line {
            title: "the first line again: it bites",
            command: format!("curl -si {base}/orders/7 -H 'Authorization: Bearer {}'", tokens.clerk),
            expected: Expected::Http(401, Some("token_revoked")),
        },
    ]
}
