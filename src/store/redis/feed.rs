//! The feed: one plain connection to each primary, on which nothing but tracking and pings goes.
//!
//! No connection manager: one that reconnects by itself comes back with tracking off and says nothing. Here any loss
//! ends the whole session; the next one has a new epoch, and listeners scan again.

use std::{pin::Pin, sync::Arc, time::Duration};

use redis::{PushInfo, PushKind, Value, aio::MultiplexedConnection, cmd};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

use super::{
    address::Kind,
    backoff, reply,
    topology::{Node, Plain, Topology},
};
use crate::store::{FeedEvent, StoreError, hub::Hub, keys::FEED_PREFIXES};

/// Between two pings, and how long each is waited for.
const PING: Duration = Duration::from_millis(100);

/// How long after the last sign of life the feed may be believed: a ping, its answer, and some delay of ours.
const PATIENCE: Duration = Duration::from_millis(300);

/// After so long without an answer the connection is given up.
const GIVE_UP: Duration = Duration::from_secs(2);

/// How often the set of primaries is looked up, besides when it announces itself.
const SURVEY: Duration = Duration::from_secs(2);

/// Follows the primaries for ever.
pub(super) async fn follow(topology: Arc<Topology>, hub: Arc<Hub>) {
    let mut failures = 0;
    loop {
        match begin(&topology).await {
            Ok((primaries, plains)) => {
                failures = 0;
                hub.connect(Some(PATIENCE));
                session(&topology, &hub, &primaries, plains).await;
                hub.lose();
            }
            Err(error) => {
                failures += 1;
                if failures == 1 {
                    tracing::warn!(servers = %topology.address, %error, "no feed from the store");
                }
            }
        }
        tokio::time::sleep(backoff(failures)).await;
    }
}

/// Connects to every primary and has it tell of changes.
async fn begin(topology: &Topology) -> Result<(Vec<Node>, Vec<Plain>), StoreError> {
    let primaries = topology.primaries().await?;
    let mut plains = Vec::with_capacity(primaries.len());
    for node in &primaries {
        let mut plain = topology.connect(node, PING).await?;
        let mut tracking = cmd("CLIENT");
        tracking.arg("TRACKING").arg("ON").arg("BCAST");
        for prefix in FEED_PREFIXES {
            tracking.arg("PREFIX").arg(prefix);
        }
        let tracked = tracking.query_async::<()>(&mut plain.0).await;
        tracked.map_err(|error| reply::failure(&error))?;
        plains.push(plain);
    }
    Ok((primaries, plains))
}

/// Passes events on until any connection is lost or the primaries are others.
async fn session(topology: &Topology, hub: &Hub, primaries: &[Node], plains: Vec<Plain>) {
    let (sender, mut events) = mpsc::unbounded_channel();
    let mut alive = vec![Instant::now(); plains.len()];
    let mut nodes = JoinSet::new();
    for (index, plain) in plains.into_iter().enumerate() {
        nodes.spawn(listen(index, plain, sender.clone()));
    }
    let mut surveying: Option<Pin<Box<dyn Future<Output = bool> + Send + '_>>> = None;
    let mut surveys = tokio::time::interval_at(Instant::now() + SURVEY, SURVEY);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some((index, FeedEvent::Alive(as_of))) => {
                    // As much as the slowest has told.
                    let before = alive.iter().min().copied();
                    alive[index] = as_of;
                    if let Some(now) = alive.iter().min().copied().filter(|now| Some(*now) != before) {
                        hub.tell(&FeedEvent::Alive(now));
                    }
                }
                Some((_, FeedEvent::Changed(keys))) => hub.changed(keys),
                Some((_, FeedEvent::Lost)) | None => return,
                Some((_, event)) => hub.tell(&event),
            },
            () = topology.switched.notified() => return,
            _ = surveys.tick(), if surveying.is_none() && topology.address.kind != Kind::Single => {
                surveying = Some(Box::pin(async move {
                    // No answer changes nothing: a primary that is gone shows by itself.
                    topology.primaries().await.is_ok_and(|now| now != primaries)
                }));
            }
            moved = async { match &mut surveying { Some(survey) => survey.await, None => std::future::pending().await } } => {
                surveying = None;
                if moved {
                    return;
                }
            }
        }
    }
}

/// One primary: what it pushes, and whether it answers.
async fn listen(index: usize, (connection, mut pushes): Plain, events: mpsc::UnboundedSender<(usize, FeedEvent)>) {
    let tell = |event| events.send((index, event)).is_ok();
    let mut ticks = tokio::time::interval(PING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut alive = Instant::now();
    let mut pinging: Option<Pin<Box<dyn Future<Output = Pong> + Send>>> = None;
    loop {
        let going_on = tokio::select! {
            push = pushes.recv() => push.and_then(translate).is_none_or(|event| event != FeedEvent::Lost && tell(event)),
            _ = ticks.tick(), if pinging.is_none() => {
                pinging = Some(Box::pin(ping(connection.clone())));
                true
            }
            pong = async { match &mut pinging { Some(ping) => ping.await, None => std::future::pending().await } } => {
                pinging = None;
                match pong {
                    // What was pushed before the answer is told before it.
                    Pong::At(asked) => {
                        alive = asked;
                        let mut heard = true;
                        while let Ok(push) = pushes.try_recv() {
                            heard &= translate(push).is_none_or(|event| event != FeedEvent::Lost && tell(event));
                        }
                        heard && tell(FeedEvent::Alive(asked))
                    }
                    Pong::Late => alive.elapsed() < GIVE_UP,
                    Pong::Broken => false,
                }
            }
        };
        if !going_on {
            tell(FeedEvent::Lost);
            return;
        }
    }
}

enum Pong {
    /// Answered; asked at this time.
    At(Instant),
    Late,
    Broken,
}

async fn ping(mut connection: MultiplexedConnection) -> Pong {
    let asked = Instant::now();
    match cmd("PING").query_async::<Value>(&mut connection).await {
        Ok(_) => Pong::At(asked),
        Err(error) if error.is_timeout() => Pong::Late,
        Err(_) => Pong::Broken,
    }
}

/// What a push says. An invalidation holds an array of keys, or nil when the whole database was flushed.
fn translate(push: PushInfo) -> Option<FeedEvent> {
    match push.kind {
        PushKind::Disconnection => Some(FeedEvent::Lost),
        PushKind::Invalidate => Some(match push.data.into_iter().next() {
            Some(Value::Nil) | None => FeedEvent::Flushed,
            Some(keys) => reply::strings(keys).map_or(FeedEvent::Flushed, FeedEvent::Changed),
        }),
        _ => None,
    }
}
