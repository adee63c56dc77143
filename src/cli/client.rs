//! The connection of client commands to the admin API. They never touch a store.

use std::{
    fs,
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use tonic::{
    Code, Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::{EXIT_USAGE, environment};
use crate::{
    admin, config,
    domain::Secret,
    wire::admin::{
        admin_client::AdminClient, behavior_client::BehaviorClient, devices_client::DevicesClient,
        sessions_client::SessionsClient,
    },
};

/// A server that hangs still takes connections: so long is waited for one, and as long for TLS on it.
const PATIENCE: Duration = Duration::from_secs(5);

const ADDRESSES: &str = "host:port, http://… or https://…";

/// Where the admin API is, and who asks.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connection {
    /// The admin API: `host:port`, `http://…` or `https://…`. Default: the one of `--config`, else 127.0.0.1:9192.
    #[arg(long, value_name = "ADDRESS", env = "COUNTERSIGN_ADMIN")]
    admin: Option<String>,
    /// The configuration of the server: tells its address and where its token is, when both are on one machine.
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_CONFIG")]
    config: Option<PathBuf>,
    /// A file that holds a token. Default: the token that the server made at its first start. The variable
    /// COUNTERSIGN_ADMIN_TOKEN may hold a token itself.
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_ADMIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// PEM file: the authority of the server's certificate, for `https://`.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file: a client certificate, with `--key`.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file: the client certificate's private key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

pub(super) type Client = AdminClient<InterceptedService<Channel, Bearer>>;

/// The calls about the fleet, at the same address.
pub(super) type FleetClient = DevicesClient<InterceptedService<Channel, Bearer>>;

/// The calls about behaviour, at the same address.
pub(super) type ProfileClient = BehaviorClient<InterceptedService<Channel, Bearer>>;

/// The calls about sessions, at the same address.
pub(super) type SessionClient = SessionsClient<InterceptedService<Channel, Bearer>>;

/// Why a client command failed: one line, and the exit code.
#[derive(Debug)]
pub(super) struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: EXIT_USAGE }
    }

    #[cfg(test)]
    pub(super) const fn code(&self) -> u8 {
        self.code
    }

    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        // What a server says has no source; what the transport says has several layers of them.
        if let Some(source) = std::error::Error::source(&status) {
            return Self::failed(format!(
                "the connection ended: {}: does the server speak TLS (`https://…`), or ask for a certificate (`--cert`)?",
                innermost(source)
            ));
        }
        if status.code() == Code::Unimplemented && status.message().is_empty() {
            return Self::failed(
                "what listens there has no such call: is it the admin API (`--admin`), and of this version?",
            );
        }
        let message = status.message();
        let message = if message.is_empty() { status.code().description() } else { message };
        if status.code() == Code::Unauthenticated {
            return Self::failed(with_place_of_token(message));
        }
        // The server knows more of what may be asked than we do.
        if status.code() == Code::InvalidArgument { Self::usage(message) } else { Self::failed(message) }
    }
}

/// Adds the token to each call.
#[derive(Clone, Debug)]
pub(super) struct Bearer(Option<Secret>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let value = format!("Bearer {}", token.expose());
            let value = value.parse().map_err(|_| Status::invalid_argument("the token is no printable text"))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

/// Runs `work`; a failure is one line on standard error.
pub(super) fn run(work: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => Err(Failure::failed(error.to_string())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("countersign: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

impl Connection {
    /// The server's configuration, where it was named.
    pub(super) fn config(&self) -> Option<PathBuf> {
        self.config.clone()
    }

    /// Connects and finds the token. Without a token, reads still work on the server's own machine.
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        let (channel, token) = self.channel().await?;
        Ok(AdminClient::with_interceptor(channel, Bearer(token)))
    }

    /// As [`Connection::connect`], for the calls about the fleet.
    pub(super) async fn connect_fleet(&self) -> Result<FleetClient, Failure> {
        let (channel, token) = self.channel().await?;
        Ok(DevicesClient::with_interceptor(channel, Bearer(token)))
    }

    /// As [`Connection::connect`], for the calls about behaviour.
    pub(super) async fn connect_behavior(&self) -> Result<ProfileClient, Failure> {
        let (channel, token) = self.channel().await?;
        Ok(BehaviorClient::with_interceptor(channel, Bearer(token)))
    }

    /// As [`Connection::connect`], for the calls about sessions.
    pub(super) async fn connect_sessions(&self) -> Result<SessionClient, Failure> {
        let (channel, token) = self.channel().await?;
        Ok(SessionsClient::with_interceptor(channel, Bearer(token)))
    }

    async fn channel(&self) -> Result<(Channel, Option<Secret>), Failure> {
        let (address, token) = self.resolve()?;
        let endpoint = self.endpoint(&address)?;
        let channel = endpoint.connect().await.map_err(|error| {
            let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), innermost);
            Failure::failed(format!(
                "no admin API at {address}: {reason}: is the server running there? (`--admin` names another address)"
            ))
        })?;
        Ok((channel, token))
    }

    /// Address and token, from arguments, the environment and the server's configuration.
    pub(super) fn resolve(&self) -> Result<(String, Option<Secret>), Failure> {
        let mut state_dir = admin::state_dir();
        let mut address = self.admin.clone();
        if let Some(file) = &self.config {
            let (config, _) = config::load(file, &environment()).map_err(|found| {
                let first = found.iter().find(|problem| problem.is_error()).map(ToString::to_string);
                Failure::usage(first.unwrap_or_else(|| format!("{} cannot be used", file.display())))
            })?;
            // Where tokens are configured none is made, and one that lies there is of another time.
            state_dir = config.state_dir().filter(|_| config.admin.tokens.is_empty());
            let scheme = if config.listen.admin_tls.is_some() { "https" } else { "http" };
            address.get_or_insert_with(|| format!("{scheme}://{}", reachable(config.listen.admin)));
        }
        let address = address.unwrap_or_else(|| "127.0.0.1:9192".to_owned());
        let address = if address.contains("://") { address } else { format!("http://{address}") };
        if !address.starts_with("http://") && !address.starts_with("https://") {
            return Err(Failure::usage(format!("`{address}` is no address: {ADDRESSES}")));
        }
        // The token that lies on this machine is for the server on this machine.
        let state_dir = state_dir.filter(|_| self.admin.is_none() || is_here(&address));
        Ok((address, self.token(state_dir)?))
    }

    fn token(&self, state_dir: Option<PathBuf>) -> Result<Option<Secret>, Failure> {
        if let Some(path) = &self.token_file {
            let text = fs::read_to_string(path).map_err(|error| Failure::usage(unreadable(path, &error)))?;
            return given(&text, &path.display().to_string()).map(Some);
        }
        if let Some(token) = environment().remove("COUNTERSIGN_ADMIN_TOKEN") {
            return given(&token, "COUNTERSIGN_ADMIN_TOKEN").map(Some);
        }
        let Some(folder) = state_dir else { return Ok(None) };
        match admin::find_token(&folder) {
            Ok(token) => Ok(token),
            // The server's folder, and we are not the server: reads may still work.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
            Err(error) => Err(Failure::failed(error.to_string())),
        }
    }

    fn endpoint(&self, address: &str) -> Result<Endpoint, Failure> {
        let endpoint = Endpoint::from_shared(address.to_owned())
            .map_err(|_| Failure::usage(format!("`{address}` is no address: {ADDRESSES}")))?
            .connect_timeout(PATIENCE)
            .timeout(Duration::from_secs(30));
        if !address.starts_with("https://") {
            return Ok(endpoint);
        }
        // A second installation in one process (tests) changes nothing.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let read = |path: &PathBuf| fs::read(path).map_err(|error| Failure::usage(unreadable(path, &error)));
        let mut tls = ClientTlsConfig::new().timeout(PATIENCE);
        if let Some(ca) = &self.ca {
            tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        endpoint.tls_config(tls).map_err(|error| Failure::usage(format!("TLS: {}", innermost(&error))))
    }
}

/// Where a server is asked on its own machine: one that listens on every address is asked on loopback, which certificates name.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    address
}

/// Whether an address is one of this machine's own.
fn is_here(address: &str) -> bool {
    let host = address.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

/// The token that `place` holds. An empty one is a variable that was not filled in, and no wish to be nobody.
fn given(text: &str, place: &str) -> Result<Secret, Failure> {
    match text.trim() {
        "" => Err(Failure::usage(format!("{place} holds no token: it is empty"))),
        token => Ok(Secret::new(token)),
    }
}

fn unreadable(path: &std::path::Path, error: &io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}

/// What the server says of tokens, in the words of this command line.
fn with_place_of_token(message: &str) -> String {
    const HERE: &str = "name one with `--token-file`, or in COUNTERSIGN_ADMIN_TOKEN";
    let there = "send `authorization: Bearer …`";
    if message.contains(there) { message.replace(there, HERE) } else { format!("{message}: {HERE}") }
}

/// The error that began it all.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_listens_everywhere_is_asked_on_loopback() {
        for (address, expected) in
            [("0.0.0.0:9192", "127.0.0.1:9192"), ("[::]:9192", "[::1]:9192"), ("10.0.0.7:1", "10.0.0.7:1")]
        {
            assert_eq!(reachable(address.parse().unwrap()).to_string(), expected);
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("countersign.yaml");
        let text = "listen: { admin: 0.0.0.0:9192, admin_tls: { certificate: c, key: k, client_ca: a } }\n\
                    identity: { issuers: [{ issuer: https://i, audiences: [a], jwks: https://i/jwks }] }\nrules: [r]\n";
        fs::write(&file, text).unwrap();
        assert_eq!(connection(None, Some(file)).resolve().unwrap().0, "https://127.0.0.1:9192");
    }

    fn connection(admin: Option<&str>, config: Option<PathBuf>) -> Connection {
        let admin = admin.map(str::to_owned);
        Connection { admin, config, token_file: None, ca: None, cert: None, key: None }
    }

    #[test]
    fn a_token_of_the_first_start_is_not_sent_where_others_are_configured() {
        let folder = tempfile::tempdir().unwrap();
        admin::make_token(folder.path()).unwrap();
        let file = folder.path().join("countersign.yaml");
        let state = folder.path().display();
        let found = |tokens: &str| {
            let text = format!(
                "admin: {{ state_dir: {state}{tokens} }}\nrules: [r]\n\
                 identity: {{ issuers: [{{ issuer: https://i, audiences: [a], jwks: https://i/jwks }}] }}\n"
            );
            fs::write(&file, text).unwrap();
            connection(None, Some(file.clone())).resolve().unwrap().1.is_some()
        };
        assert!(found(""));
        assert!(!found(&format!(", tokens: [{{ name: ops, role: operator, sha256: \"{}\" }}]", "0".repeat(64))));
    }

    #[test]
    fn an_empty_token_is_bad_usage() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let connection = Connection { token_file: Some(file.path().to_owned()), ..connection(None, None) };
        let failure = connection.resolve().unwrap_err();
        assert!(
            failure.code == EXIT_USAGE && failure.to_string().ends_with("holds no token: it is empty"),
            "{failure}"
        );
        assert!(given(" \n", "COUNTERSIGN_ADMIN_TOKEN").is_err());
    }

    #[test]
    fn an_address_of_another_protocol_is_bad_usage() {
        let failure = connection(Some("ftp://127.0.0.1:9192"), None).resolve().unwrap_err();
        assert_eq!(failure.code, EXIT_USAGE, "{failure}");
    }

    #[test]
    fn who_is_not_known_is_told_where_a_token_goes() {
        let status = Status::unauthenticated("writes need a token: send `authorization: Bearer …`");
        let failure = Failure::from(status);
        assert!(failure.to_string().contains("token: name one with `--token-file`") && failure.code == 1, "{failure}");
        assert!(!failure.to_string().contains("Bearer"), "{failure}");
        let failure = Failure::from(Status::unauthenticated("the token is not known"));
        assert!(failure.to_string().contains("COUNTERSIGN_ADMIN_TOKEN"), "{failure}");
    }

    #[test]
    fn what_the_server_calls_a_bad_argument_is_bad_usage() {
        assert_eq!(Failure::from(Status::invalid_argument("`id` must be …")).code, EXIT_USAGE);
        assert_eq!(Failure::from(Status::not_found("gone")).code, 1);
    }

    #[test]
    fn another_port_than_the_admin_api_is_told_as_that() {
        let failure = Failure::from(Status::unimplemented(""));
        assert!(failure.to_string().contains("is it the admin API (`--admin`)") && failure.code == 1, "{failure}");
    }

    #[test]
    fn a_token_that_was_found_is_for_this_machine_alone() {
        for here in ["http://127.0.0.1:9192", "https://localhost:9192", "http://[::1]:9192", "http://0.0.0.0:9192"] {
            assert!(is_here(here), "{here}");
        }
        for elsewhere in
            ["http://admin.example:9192", "https://10.0.0.7:9192", "http://localhost.evil.example:9192", "x"]
        {
            assert!(!is_here(elsewhere), "{elsewhere}");
        }
    }
}
