//! A stream at a transmitter: found by its metadata, made where it is not there, verified from time to time (SSF 1.0).
//!
//! A transmitter that is away costs nothing but a warning: it is tried again. What a verification event must carry back is
//! kept in the store, since any replica may be the one that it reaches.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    event::EventType,
    poll::{Poller, back_off},
    receiver::{Receiver, Transmitter},
    settings::{Delivery, PollSettings, StreamSettings},
};
use crate::{
    domain::Secret,
    identity::{Fetcher, Outgoing, check_address},
    store::keys,
};

pub(super) const PUSH: &str = "urn:ietf:rfc:8935";
const POLL: &str = "urn:ietf:rfc:8936";

/// Looks after one transmitter's stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) receiver: Arc<Receiver>,
    pub(super) fetcher: Arc<Fetcher>,
    /// Which of the receiver's transmitters.
    pub(super) index: usize,
    pub(super) cancel: CancellationToken,
}

/// What the metadata and the transmitter's answers say.
struct Found {
    stream: String,
    verification: Option<Url>,
    poll: Option<Url>,
}

impl Stream {
    /// Finds or makes the stream, then has it verified for ever.
    pub(super) async fn run(self) {
        let Some(settings) = self.transmitter().settings.stream.clone() else { return };
        let mut failures = 0;
        let found = loop {
            match self.set_up(&settings).await {
                Ok(found) => break found,
                Err(why) => {
                    failures += 1;
                    let transmitter = &*self.transmitter().settings.issuer;
                    tracing::warn!(transmitter, why, failures, "a stream of security events is not set up yet");
                    tokio::time::sleep(back_off(failures)).await;
                }
            }
        };
        let transmitter = &*self.transmitter().settings.issuer;
        tracing::info!(transmitter, stream = found.stream, "a stream of security events is set up");
        if let Some(url) = found.poll.clone() {
            self.poll(url, &settings);
        }
        loop {
            let asked = self.verify(&settings, &found).await;
            if let Err(why) = &asked {
                tracing::warn!(transmitter, why, "a verification event could not be asked for");
            }
            let pause = if asked.is_ok() { settings.verify_every.get() } else { Duration::from_secs(30) };
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.9..1.1))).await;
        }
    }

    fn transmitter(&self) -> &Transmitter {
        &self.receiver.transmitters[self.index]
    }

    fn poll(&self, url: Url, settings: &StreamSettings) {
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
        };
        let cancel = self.cancel.clone();
        tokio::spawn(async move { cancel.run_until_cancelled(poller.run()).await });
    }

    async fn set_up(&self, settings: &StreamSettings) -> Result<Found, String> {
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
        let listed = self.call("GET", &configuration, settings, None, &[200, 404]).await?;
        let listed = match listed {
            Value::Array(streams) => streams,
            one @ Value::Object(_) => vec![one],
            _ => Vec::new(),
        };
        let ours = listed.into_iter().find(|stream| self.is_ours(stream, settings));
        let stream = match ours {
            Some(stream) => stream,
            None => self.call("POST", &configuration, settings, Some(self.wanted(settings)), &[200, 201]).await?,
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
    async fn verify(&self, settings: &StreamSettings, found: &Found) -> Result<(), String> {
        let Some(url) = &found.verification else { return Ok(()) };
        let state = hex::encode(rand::random::<[u8; 16]>());
        let Receiver { parts, .. } = &*self.receiver;
        let value = format!("{} {state}", parts.clock.now().as_millis());
        let key = keys::signal_state(self.transmitter().signer.issuer());
        let life = Some(settings.verify_every.get() * 2);
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
    ) -> Result<Value, String> {
        let authorization: &Secret = &settings.authorization_header;
        let headers = [
            ("accept", "application/json"),
            ("content-type", "application/json"),
            ("authorization", authorization.expose()),
        ];
        let method = if method == "GET" { ::http::Method::GET } else { ::http::Method::POST };
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = Outgoing { method, url, headers: &headers, body, timeout: None };
        let answer = self.fetcher.send(request).await.map_err(|error| error.to_string())?;
        if !good.contains(&answer.status) {
            return Err(format!("`{}` answered {}", url.path(), answer.status));
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
