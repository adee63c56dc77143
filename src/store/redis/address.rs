//! Reads a store's URL: which servers, which of them are which, who we are, and whether what we say is encrypted.

use std::{borrow::Cow, fmt, ops::RangeInclusive, path::Path, time::Duration};

use percent_encoding::percent_decode_str;
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};

use super::files::{Certificates, Files};

use crate::{
    domain::Span,
    store::{RedisUrl, StoreError, StoreErrorKind},
};

/// How long a command may take before it counts as unanswered: shorter than a check's deadline.
const TIMEOUT: Duration = Duration::from_millis(100);

/// In none nothing is ever answered, and in a long one nobody notices that a server is gone.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(10);

/// A store's URL, read. `redis[s]://[user:password@]host[:port][/database]`,
/// `redis[s]-sentinel://[user:password@]host[:port],…/master[/database]`, `redis[s]-cluster://[user:password@]host[:port],…`,
/// each with `?ca=FILE&certificate=FILE&key=FILE&timeout=100ms`, behind Sentinel also with
/// `sentinel_user=USER&sentinel_password=PASSWORD`.
pub(super) struct Address {
    pub(super) kind: Kind,
    /// Host and port of the nodes named in the URL.
    pub(super) nodes: Vec<(String, u16)>,
    pub(super) tls: bool,
    pub(super) certificates: Certificates,
    pub(super) timeout: Duration,
    login: RedisConnectionInfo,
    /// Sentinels have users and passwords of their own.
    sentinel_login: RedisConnectionInfo,
}

/// What a URL says of itself.
struct Said {
    kind: Kind,
    nodes: Vec<(String, u16)>,
    tls: bool,
    login: RedisConnectionInfo,
    options: Options,
}

struct Options {
    files: Files,
    timeout: Duration,
    sentinel_login: RedisConnectionInfo,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Single,
    Sentinel { master: String },
    Cluster,
}

/// The servers, without credentials: for log lines.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (host, port)) in self.nodes.iter().enumerate() {
            write!(f, "{}{host}:{port}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl Address {
    /// Reads a URL and the files that it names.
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let Said { kind, nodes, tls, login, options } = Said::read(url).map_err(|why| refused(&why))?;
        let Options { files, timeout, sentinel_login } = options;
        let certificates = Certificates::open(files).map_err(|why| refused(&why))?;
        Ok(Self { kind, nodes, tls, certificates, timeout, login, sentinel_login })
    }

    /// What a URL says of itself, without looking at files; in words where it cannot be meant.
    pub(super) fn inspect(url: &str) -> Result<RedisUrl, Wrong> {
        let said = Said::read(url)?;
        let login = said.login.password().is_some_and(|password| !password.is_empty());
        Ok(RedisUrl { remote: is_remote(&said.nodes), tls: said.tls, login })
    }

    /// Why the files that a URL names cannot be used, if they cannot.
    pub(super) fn inspect_files(url: &str) -> Result<(), Wrong> {
        Said::read(url)?.options.files.read().map(drop)
    }

    /// Whether any node is not on this machine.
    pub(super) fn is_remote(&self) -> bool {
        is_remote(&self.nodes)
    }

    /// A client of one data node, with our credentials.
    pub(super) async fn client(&self, node: &(String, u16)) -> Result<Client, StoreError> {
        self.build(self.connection(node, self.login.clone())).await
    }

    /// A client of one sentinel. It is spoken to as the data nodes are, with credentials of its own.
    pub(super) async fn sentinel(&self, node: &(String, u16)) -> Result<Client, StoreError> {
        self.build(self.connection(node, self.sentinel_login.clone())).await
    }

    pub(super) fn connections(&self) -> Vec<ConnectionInfo> {
        self.nodes.iter().map(|node| self.connection(node, self.login.clone())).collect()
    }

    async fn build(&self, connection: ConnectionInfo) -> Result<Client, StoreError> {
        match self.certificates.current().await.certificates() {
            Some(certificates) => Client::build_with_tls(connection, certificates),
            None => Client::open(connection),
        }
        .map_err(|error| super::reply::failure(&error))
    }

    fn connection(&self, (host, port): &(String, u16), login: RedisConnectionInfo) -> ConnectionInfo {
        let address = if self.tls {
            ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host.clone(), *port)
        };
        // An address that is already parsed converts without failing; the fallback is never taken.
        match address.into_connection_info() {
            Ok(info) => info.set_redis_settings(login),
            Err(_) => unreachable_info(login),
        }
    }
}

impl Said {
    fn read(url: &str) -> Result<Self, Wrong> {
        let (scheme, rest) = url.split_once("://").ok_or("no `://` in it")?;
        let (tls, family) = match scheme.strip_prefix("rediss") {
            Some(family) => (true, family),
            None => (false, scheme.strip_prefix("redis").ok_or("its scheme is not one of Redis")?),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if query.contains('@') {
            // Not shown: what looks like an option may be half a password.
            return Err("`?` in a password is written `%3F`, and `@` in an option `%40`".into());
        }
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (kind, database, port) = match family {
            "" => (Kind::Single, path, 6379),
            "-cluster" => (Kind::Cluster, path, 6379),
            "-sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err("it names no master: redis-sentinel://host:26379/mymaster".into());
                }
                (Kind::Sentinel { master: master.to_owned() }, database, 26379)
            }
            _ => return Err("its scheme is not one of Redis".into()),
        };
        let nodes: Vec<_> = hosts.split(',').map(|host| node(host, port)).collect::<Result<_, _>>()?;
        if kind == Kind::Single && nodes.len() > 1 {
            return Err("several hosts need redis-cluster:// or redis-sentinel://".into());
        }
        let database: i64 =
            if database.is_empty() { Ok(0) } else { database.parse() }.map_err(|_| "the database is not a number")?;
        if kind == Kind::Cluster && database != 0 {
            return Err("a cluster has no databases".into());
        }
        let login = user(login)?.set_db(database);
        let options = Options::read(query, &kind, tls)?;
        Ok(Self { kind, nodes, tls, login, options })
    }
}

impl Options {
    fn read(query: &str, kind: &Kind, tls: bool) -> Result<Self, Wrong> {
        let (mut files, mut timeout, mut user, mut password) = (Files::default(), TIMEOUT, None, None);
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let value = decoded(value)?;
            let place = match name {
                "ca" => &mut files.ca,
                "certificate" => &mut files.certificate,
                "key" => &mut files.key,
                "sentinel_user" => &mut user,
                "sentinel_password" => &mut password,
                "timeout" => {
                    timeout = *Span::parse(&value).map_err(|why| format!("`timeout`: {why}"))?;
                    if !TIMEOUTS.contains(&timeout) {
                        return Err("`timeout` is 1ms to 10s: how long a command may take".into());
                    }
                    continue;
                }
                other => {
                    let known = "ca, certificate, key, timeout, sentinel_user, sentinel_password";
                    // Not shown: it may be the other half of a password.
                    if query.contains("password=") {
                        return Err(format!("an option is not one of {known}; `&` in a password is `%26`").into());
                    }
                    return Err(format!("`{other}` is not one of {known}").into());
                }
            };
            if value.is_empty() {
                return Err(match name.strip_prefix("sentinel_") {
                    Some(what) => format!("`{name}` names no {what}"),
                    None => format!("`{name}` names no file: {name}=/path/to/file.pem"),
                }
                .into());
            }
            if !name.starts_with("sentinel_") && !Path::new(&value).is_absolute() {
                return Err(format!("`{name}` is named by its absolute path: {name}=/path/to/file.pem").into());
            }
            *place = Some(value);
        }
        if files.certificate.is_some() != files.key.is_some() {
            return Err("`certificate` and `key` come together".into());
        }
        if (files.ca.is_some() || files.key.is_some()) && !tls {
            return Err("certificates need rediss://".into());
        }
        let mut sentinel_login = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        match (user, password) {
            (None, None) => {}
            _ if !matches!(kind, Kind::Sentinel { .. }) => {
                return Err("`sentinel_user` and `sentinel_password` need redis-sentinel://".into());
            }
            (Some(_), None) => return Err("`sentinel_user` needs `sentinel_password`".into()),
            (user, Some(password)) => {
                sentinel_login = sentinel_login.set_password(password);
                if let Some(user) = user {
                    sentinel_login = sentinel_login.set_username(user);
                }
            }
        }
        Ok(Self { files, timeout, sentinel_login })
    }
}

fn is_remote(nodes: &[(String, u16)]) -> bool {
    nodes.iter().any(|(host, _)| {
        let address = host.parse::<std::net::IpAddr>();
        !(host == "localhost" || address.is_ok_and(|address| address.is_loopback()))
    })
}

fn unreachable_info(login: RedisConnectionInfo) -> ConnectionInfo {
    #[expect(clippy::unwrap_used, reason = "a constant that parses")]
    let info = "redis://invalid.invalid".into_connection_info().unwrap();
    info.set_redis_settings(login)
}

fn node(text: &str, default_port: u16) -> Result<(String, u16), Wrong> {
    let bracketed = text.starts_with('[');
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !bracketed || host.ends_with(']') => {
            (host, port.parse().map_err(|_| "a port is not a number")?)
        }
        _ => (text, default_port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() { Err("a host is missing".into()) } else { Ok((host.to_owned(), port)) }
}

fn user(login: Option<&str>) -> Result<RedisConnectionInfo, Wrong> {
    let info = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
    let Some(login) = login else { return Ok(info) };
    let (user, password) = login.split_once(':').unwrap_or(("", login));
    let info = if user.is_empty() { info } else { info.set_username(decoded(user)?) };
    Ok(info.set_password(decoded(password)?))
}

fn decoded(text: &str) -> Result<String, Wrong> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "it is not UTF-8")?;
    Ok(decoded.into_owned())
}

/// What is wrong with a URL. The URL itself stays out of it: it may hold a password.
pub(super) type Wrong = Cow<'static, str>;

fn refused(why: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Refused, format!("store URL: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_url_is_read() {
        let single = Address::parse("redis://:p%40ss@h:7/3").unwrap();
        assert_eq!((single.kind, single.nodes.clone(), single.tls), (Kind::Single, vec![("h".into(), 7)], false));
        assert_eq!((single.login.password(), single.login.username(), single.login.db()), (Some("p@ss"), None, 3));
        let cluster = Address::parse("rediss-cluster://u:p@a,[::1]:7001").unwrap();
        assert_eq!(cluster.nodes, [("a".into(), 6379), ("::1".into(), 7001)]);
        assert!(cluster.tls && cluster.kind == Kind::Cluster && cluster.login.username() == Some("u"));
        let sentinel = Address::parse("redis-sentinel://s1:26379,s2/mymaster?timeout=50ms").unwrap();
        assert_eq!(sentinel.kind, Kind::Sentinel { master: "mymaster".into() });
        assert_eq!(sentinel.nodes[1], ("s2".into(), 26379));
        assert_eq!(sentinel.timeout, Duration::from_millis(50));
        assert_eq!(sentinel.sentinel_login.password(), None);
        let guarded = Address::parse("redis-sentinel://:d@s/m?sentinel_user=u&sentinel_password=p%40%26s").unwrap();
        let login = guarded.sentinel_login;
        assert_eq!(
            (login.username(), login.password(), guarded.login.password()),
            (Some("u"), Some("p@&s"), Some("d"))
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_without_showing_the_password() {
        for url in [
            "redis:h",
            "redisx://h",
            "redis://a,b",
            "redis://:secret@h:port",
            "redis://h/x",
            "redis-sentinel://h",
            "redis-cluster://h/2",
            "redis://h?ca=/x",
            "rediss://h?ca",
            "rediss://h?ca=",
            "rediss://h?ca=secret/ca.pem",
            "rediss://h?certificate=/x",
            "redis://h?timeout=soon",
            "redis://h?timeout",
            "redis://h?timeout=0ms",
            "redis://h?timeout=11s",
            "redis://u:secr?et=secret@h",
            "redis://h/0#x",
            "redis-sentinel://h/m/x",
            "redis://h?tls=1",
            "redis://h?sentinel_password=secret",
            "redis-sentinel://h/m?sentinel_password=",
            "redis-sentinel://h/m?sentinel_user=secret",
            "redis-sentinel://h/m?sentinel_password=secret&other-secret",
            "rediss://h?ca=/nonexistent/ca.pem",
        ] {
            let Err(error) = Address::parse(url) else { panic!("{url} was taken") };
            assert!(!error.to_string().contains("secret"), "{error}");
            assert!(Address::inspect(url).is_err() || url.contains("nonexistent"), "{url}: files are looked at apart");
        }
    }

    #[test]
    fn files_are_tried_without_a_connection() {
        let folder = tempfile::tempdir().unwrap();
        let junk = folder.path().join("ca.pem");
        std::fs::write(&junk, "-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----\n").unwrap();
        let named = |path: &str| Address::inspect_files(&format!("rediss://h?ca={path}"));
        assert!(named(junk.to_str().unwrap()).unwrap_err().contains("cannot be used"));
        assert!(named("/nonexistent/ca.pem").unwrap_err().contains("cannot be read"));
        assert_eq!(Address::inspect_files("rediss://h"), Ok(()));
    }
}
