//! A stream at a transmitter: found by its metadata, made where it is not there, verified from time to time (SSF 1.0).
//!
//! A transmitter that is away costs nothing but a warning: it is tried again. What a verification event must carry back is
//! kept in the store, since any replica may be the one that it reaches.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;

use super::{
    event::EventType,
    poll::{Poller, backoff},
    receiver::{Receiver, Transmitter},
    settings::{Delivery, PollSettings, StreamSettings},
};
use crate::{
    domain::Secret,
    identity::{Fetcher, MAX_BODY, Outgoing, check_address},
    store::keys,
};

pub(super) const PUSH: &str = "urn:ietf:rfc:8935";
const POLL: &str = "urn:ietf:rfc:8936";
/// How long a replica that makes a stream is waited for.
const SET_UP: Duration = Duration::from_secs(60);
/// How long a verification event may take at least.
const LATE: Duration = Duration::from_secs(300);
/// A stream that was there for so long is not lost again and again.
const STEADY: Duration = Duration::from_secs(300);

/// Looks after one transmitter's stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) receiver: Arc<Receiver>,
    pub(super) fetcher: Arc<Fetcher>,
    /// Which of the receiver's transmitters.
    pub(super) index: usize,
}

/// What the metadata and the transmitter's answers say.
struct Found {
    stream: String,
    verification: Option<Url>,
    poll: Option<Url>,
}

/// Why a transmitter did not do what was asked.
struct Failure {
    why: String,
    /// It does not know what was asked about.
    gone: bool,
}

impl<T: Into<String>> From<T> for Failure {
    fn from(why: T) -> Self {
        Self { why: why.into(), gone: false }
    }
}

impl Stream {
    /// Finds or makes the stream, asks at its address and has it verified, for ever: a stream that its transmitter has lost is
    /// found or made anew.
    pub(super) async fn run(self) {
        let Some(settings) = self.transmitter().settings.stream.clone() else { return };
        let (mut found, mut losses) = (self.found(&settings).await, backoff());
        loop {
            let since = Instant::now();
            let another = tokio::select! {
                () = self.poll(&found, &settings) => None,
                another = self.verified(&found, &settings) => Some(another),
            };
            found = match another {
                Some(another) => another,
                None => {
                    if since.elapsed() > STEADY {
                        losses.worked();
                    }
                    let transmitter = &*self.transmitter().settings.issuer;
                    tracing::warn!(transmitter, "a stream of security events is not there any more");
                    tokio::time::sleep(losses.failed()).await;
                    self.found(&settings).await
                }
            };
        }
    }

    async fn found(&self, settings: &StreamSettings) -> Found {
        let transmitter = &*self.transmitter().settings.issuer;
        let mut backoff = backoff();
        loop {
            match self.set_up(settings).await {
                Ok(found) => {
                    tracing::info!(transmitter, stream = found.stream, "a stream of security events is set up");
                    return found;
                }
                Err(Failure { why, .. }) => {
                    tracing::warn!(transmitter, why, "a stream of security events is not set up yet");
                    tokio::time::sleep(backoff.failed()).await;
                }
            }
        }
    }

    /// Until there is another stream in place of this one.
    async fn verified(&self, found: &Found, settings: &StreamSettings) -> Found {
        let transmitter = &*self.transmitter().settings.issuer;
        loop {
            let asked = self.verify(settings, found).await;
            if let Err(Failure { why, gone }) = &asked {
                tracing::warn!(transmitter, why, "a verification event could not be asked for");
                if *gone
                    && let Ok(another) = self.set_up(settings).await
                    && another.stream != found.stream
                {
                    tracing::warn!(transmitter, stream = another.stream, "another stream of security events is set up");
                    return another;
                }
            }
            let pause = if asked.is_ok() { settings.verify_every.get() } else { Duration::from_secs(30) };
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.9..1.1))).await;
        }
    }

    fn transmitter(&self) -> &Transmitter {
        &self.receiver.transmitters[self.index]
    }

    /// Until there is nobody at the stream's address. One that is pushed to has none.
    async fn poll(&self, found: &Found, settings: &StreamSettings) {
        let Some(url) = found.poll.clone() else { return std::future::pending().await };
        let transmitter = self.transmitter();
        let configured = transmitter.settings.poll.clone();
        let poller = Poller {
            receiver: Arc::clone(&self.receiver),
            fetcher: Arc::clone(&self.fetcher),
            issuer: transmitter.settings.issuer.clone(),
            url,
            settings: PollSettings {
                authorization_header: Some(settings.authorization_header.clone()),
                ..configured.unwrap_or_default()
            },
            asking: Arc::clone(&transmitter.asking),
            of_stream: true,
        };
        poller.run().await;
    }

    async fn set_up(&self, settings: &StreamSettings) -> Result<Found, Failure> {
        let issuer = &*self.transmitter().settings.issuer;
        let metadata = self.call("GET", &metadata_address(issuer)?, settings, None, &[200]).await?;
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        if text(&metadata, "issuer").as_deref() != Some(issuer) {
            return Err("the metadata name another issuer".into());
        }
        let critical = metadata.get("critical_subject_members").and_then(Value::as_array);
        let critical = critical.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        // Read once: a transmitter that changes its mind is heard at the next start.
        let _ = self.transmitter().critical.set(critical);
        let address = |name: &str| text(&metadata, name).map(|text| check_address(&text)).transpose();
        let configuration =
            address("configuration_endpoint")?.ok_or("the metadata have no `configuration_endpoint`")?;
        let stream = match self.listed(&configuration, settings).await? {
            Some(stream) => stream,
            None => self.made(&configuration, settings).await?,
        };
        if !self.is_ours(&stream, settings) {
            return Err("the stream is for another audience, or delivered in another way".into());
        }
        let id = text(&stream, "stream_id").ok_or("the stream has no `stream_id`")?;
        let poll = match settings.delivery {
            Delivery::Push { .. } => None,
            Delivery::Poll => {
                let endpoint = stream.pointer("/delivery/endpoint_url").and_then(Value::as_str);
                Some(check_address(endpoint.ok_or("the stream names no address to ask at")?)?)
            }
        };
        Ok(Found { stream: id, verification: address("verification_endpoint")?, poll })
    }

    /// The stream of ours that the transmitter has already.
    async fn listed(&self, configuration: &Url, settings: &StreamSettings) -> Result<Option<Value>, Failure> {
        let listed = match self.call("GET", configuration, settings, None, &[200, 404]).await? {
            Value::Array(streams) => streams,
            one @ Value::Object(_) => vec![one],
            _ => Vec::new(),
        };
        Ok(listed.into_iter().find(|stream| self.is_ours(stream, settings)))
    }

    /// A new stream. Of many replicas that find none, one makes it; the others find it then.
    async fn made(&self, configuration: &Url, settings: &StreamSettings) -> Result<Value, Failure> {
        let store = &self.receiver.parts.store;
        let key = keys::signal_setup(self.transmitter().signer.issuer());
        let turn = rand::random::<[u8; 8]>();
        let ours = store.create(&key, &turn, Some(SET_UP)).await.map_err(|error| error.to_string())?;
        if !ours {
            return Err("another replica is making it".into());
        }
        // Whoever had the turn before may have made it since we looked.
        let made = match self.listed(configuration, settings).await {
            Ok(Some(stream)) => Ok(stream),
            Ok(None) => self.call("POST", configuration, settings, Some(self.wanted(settings)), &[200, 201]).await,
            Err(failure) => Err(failure),
        };
        // Should it fail, the turn ends by itself.
        let _ = store.exchange(&key, &turn, None).await;
        made
    }

    fn is_ours(&self, stream: &Value, settings: &StreamSettings) -> bool {
        let known = &self.transmitter().settings;
        let delivery = |name: &str| stream.pointer(&format!("/delivery/{name}")).and_then(Value::as_str);
        let delivered = match &settings.delivery {
            Delivery::Push { url } => delivery("method") == Some(PUSH) && delivery("endpoint_url") == Some(url),
            Delivery::Poll => delivery("method") == Some(POLL),
        };
        let issuer = stream.get("iss").and_then(Value::as_str);
        delivered && issuer == Some(&known.issuer) && super::set::audience_is(stream, &known.audience).is_ok()
    }

    fn wanted(&self, settings: &StreamSettings) -> Value {
        let known = &self.transmitter().settings;
        let events = EventType::ALL.iter().filter(|event| !event.is_of_the_stream());
        let delivery = match &settings.delivery {
            Delivery::Poll => json!({"method": POLL}),
            Delivery::Push { url } => match &known.authorization_header {
                Some(header) => json!({"method": PUSH, "endpoint_url": url, "authorization_header": header.expose()}),
                None => json!({"method": PUSH, "endpoint_url": url}),
            },
        };
        let events: Vec<String> = events.map(|event| event.uri()).collect();
        json!({"delivery": delivery, "events_requested": events, "description": "countersign"})
    }

    /// Asks for a verification event that carries a word of ours.
    async fn verify(&self, settings: &StreamSettings, found: &Found) -> Result<(), Failure> {
        let Some(url) = &found.verification else { return Ok(()) };
        let state = hex::encode(rand::random::<[u8; 16]>());
        let Receiver { parts, .. } = &*self.receiver;
        let value = parts.clock.now().as_millis().to_string();
        // Of its own: other replicas ask as well, and each word is good until it is late.
        let key = keys::signal_state(self.transmitter().signer.issuer(), &state);
        let life = Some((settings.verify_every.get() * 2).max(LATE));
        parts.store.write(&key, value.as_bytes(), life).await.map_err(|error| error.to_string())?;
        let body = json!({"stream_id": found.stream, "state": state});
        self.call("POST", url, settings, Some(body), &[200, 202, 204]).await.map(drop)
    }

    /// The JSON of an answer with one of these statuses; `null` where there is none.
    async fn call(
        &self,
        method: &str,
        url: &Url,
        settings: &StreamSettings,
        body: Option<Value>,
        good: &[u16],
    ) -> Result<Value, Failure> {
        let authorization: &Secret = &settings.authorization_header;
        let headers = [
            ("accept", "application/json"),
            ("content-type", "application/json"),
            ("authorization", authorization.expose()),
        ];
        let method = if method == "GET" { ::http::Method::GET } else { ::http::Method::POST };
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = Outgoing { method, url, headers: &headers, body, timeout: None, room: MAX_BODY };
        let answer = self.fetcher.send(request).await.map_err(|error| error.to_string())?;
        if !good.contains(&answer.status) {
            let why = format!("`{}` answered {}", url.path(), answer.status);
            return Err(Failure { why, gone: matches!(answer.status, 404 | 410) });
        }
        Ok(serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }
}

/// SSF 1.0, section 7.2: between host and path.
fn metadata_address(issuer: &str) -> Result<Url, String> {
    let mut url = check_address(issuer.trim_end_matches('/'))?;
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("/.well-known/ssf-configuration{path}"));
    Ok(url)
}
