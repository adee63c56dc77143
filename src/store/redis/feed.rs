//! The feed: one plain connection to each primary, on which nothing but tracking and pings goes.
//!
//! No connection manager: one that reconnects by itself comes back with tracking off and says nothing. Here any loss
//! ends the whole session; the next one has a new epoch, and listeners scan again.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use redis::{
    PushInfo, PushKind, Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
    cmd,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

use super::{
    GIVE_UP, WAITS,
    address::Kind,
    link::Link,
    reply,
    topology::{Node, Plain, Topology},
};
use crate::store::{
    Backoff, FeedEvent, StoreError, StoreErrorKind,
    hub::Hub,
    keys::{CANARY, FEED_PREFIXES, lag_canary},
};

/// Between two pings, and how long each is waited for.
const PING: Duration = Duration::from_millis(100);

/// Every so many pings ask for the store's canary instead, and each while there is none: `SWAPDB` puts other data under us
/// and tells nobody. (What carries a copy of the canary is found out by those who write to it.)
const LOOK: u32 = 10;

/// How much of the canary is looked at, in octets.
const CANARY_LENGTH: usize = 256;

/// Keys written to a node of a cluster to hear of one of them: it has some of the slots.
const TRIES: usize = 32;

/// How long after the last sign of life the feed may be believed: a ping, its answer, and some delay of ours.
const PATIENCE: Duration = Duration::from_millis(300);

/// Follows the primaries for ever, while commands are answered.
pub(super) async fn follow(topology: Arc<Topology>, link: Arc<Link>, hub: Arc<Hub>) {
    let mut backoff = Backoff::between(WAITS.0, WAITS.1);
    loop {
        // What is told of is read by commands: while those go nowhere, a new epoch is of no use, and everything would be
        // read again in vain.
        link.answers().await;
        // Before connecting, so that nothing is missed.
        let (mut switches, mut links) = (topology.switches(), topology.links());
        let pause = match begin(&topology).await {
            Ok((primaries, plains)) => {
                backoff.worked();
                hub.connect(Some(PATIENCE));
                // INVARIANT: what was read over another connection of commands, maybe at another server than the feed's, is
                // read again in a new epoch. Otherwise news told here and read there would be taken for nothing.
                let others = async {
                    tokio::select! {
                        () = switches.away_from(&primaries) => {}
                        _ = links.changed() => {}
                        () = topology.moved(&primaries) => {}
                    }
                };
                session(&hub, plains, others).await;
                hub.lose();
                backoff.pause()
            }
            Err(error) => {
                if !backoff.is_failing() {
                    tracing::warn!(servers = %topology.address, %error, "no feed from the store");
                }
                backoff.failed()
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// A connection, and what the canary said when it began; `None`: not looked at.
type Begun = (Plain, Option<Vec<u8>>);

/// Connects to every primary and has it tell of changes.
async fn begin(topology: &Topology) -> Result<(Vec<Node>, Vec<Begun>), StoreError> {
    let primaries = topology.primaries().await?;
    let mut plains = Vec::with_capacity(primaries.len());
    for node in &primaries {
        let mut plain = topology.connect(node, PING).await?;
        let canary = track(&mut plain.0).await?;
        let is_cluster = topology.address.kind == Kind::Cluster;
        prove(&mut plain, if is_cluster { TRIES } else { 1 }).await?;
        // A cluster has one database, and its canary one node.
        let canary = (!is_cluster).then(|| canary.unwrap_or_default());
        plains.push((plain, canary));
    }
    Ok((primaries, plains))
}

/// Has changes told from here on. What the canary says is asked for in the same trip, before anything else is read: an
/// exchange after that shows.
async fn track(connection: &mut MultiplexedConnection) -> Result<Option<Vec<u8>>, StoreError> {
    let mut pipe = redis::pipe();
    pipe.cmd("CLIENT").arg("TRACKING").arg("ON").arg("BCAST");
    for prefix in FEED_PREFIXES {
        pipe.arg("PREFIX").arg(prefix);
    }
    pipe.cmd("GETRANGE").arg(CANARY).arg(0).arg(CANARY_LENGTH);
    let answers = connection.req_packed_commands(&pipe, 0, 2).await.map_err(|error| reply::failure(&error))?;
    let mut answers = answers.into_iter().map(Value::extract_error);
    answers.next().ok_or_else(reply::unexpected)?.map_err(|error| reply::failure(&error))?;
    match answers.next() {
        Some(Ok(Value::BulkString(found))) => Ok(Some(found)),
        _ => Ok(None),
    }
}

/// Writes something and waits until it is told of. A server, or what stands before it, that passes nothing on would be
/// believed for as long as it answers. Where nothing can be written there is nothing to hear. What else is told meanwhile is
/// read by whoever is told that listening has begun.
async fn prove((connection, pushes): &mut Plain, tries: usize) -> Result<(), StoreError> {
    let keys: Vec<String> = (0..tries).map(|_| lag_canary(&format!("{:016x}", rand::random::<u64>()))).collect();
    let mut pipe = redis::pipe();
    for key in &keys {
        pipe.cmd("SET").arg(key).arg("").arg("PX").arg(1000).cmd("DEL").arg(key);
    }
    let answers = connection.req_packed_commands(&pipe, 0, 2 * tries).await.map_err(|error| reply::failure(&error))?;
    if answers.into_iter().step_by(2).all(|answer| answer.extract_error().is_err()) {
        return Ok(());
    }
    let heard = async {
        while let Some(event) = pushes.recv().await.map(translate) {
            match event {
                Some(FeedEvent::Changed(changed)) if changed.iter().any(|key| keys.contains(key)) => return true,
                Some(FeedEvent::Lost) => return false,
                _ => {}
            }
        }
        false
    };
    match tokio::time::timeout(PING, heard).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(StoreError::new(StoreErrorKind::Unreachable, "the connection ended")),
        Err(_) => Err(StoreError::new(StoreErrorKind::Timeout, "the server does not tell of our own write")),
    }
}

/// Passes events on until any connection is lost, or until `others`: the primaries are, or what commands go over.
async fn session(hub: &Hub, plains: Vec<Begun>, others: impl Future<Output = ()>) {
    let (sender, mut events) = mpsc::unbounded_channel();
    let mut alive = vec![Instant::now(); plains.len()];
    let mut nodes = JoinSet::new();
    for (index, plain) in plains.into_iter().enumerate() {
        nodes.spawn(listen(index, plain, sender.clone()));
    }
    let mut others = pin!(others);
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
            () = &mut others => return,
        }
    }
}

/// One primary: what it pushes, and whether it answers.
async fn listen(index: usize, ((connection, mut pushes), mut canary): Begun, events: Events) {
    let tell = |event| events.send((index, event)).is_ok();
    let mut ticks = tokio::time::interval(PING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut alive, mut pings) = (Instant::now(), 0_u32);
    let mut pinging: Option<Pin<Box<dyn Future<Output = Pong> + Send>>> = None;
    loop {
        let going_on = tokio::select! {
            push = pushes.recv() => push.and_then(translate).is_none_or(|event| event != FeedEvent::Lost && tell(event)),
            _ = ticks.tick(), if pinging.is_none() => {
                pings = pings.wrapping_add(1);
                let looks = canary.as_ref().is_some_and(|known| known.is_empty() || pings.is_multiple_of(LOOK));
                pinging = Some(Box::pin(ping(connection.clone(), looks)));
                true
            }
            pong = async { match &mut pinging { Some(ping) => ping.await, None => std::future::pending().await } } => {
                pinging = None;
                match pong {
                    // What was pushed before the answer is told before it.
                    Pong::At(asked, found) => {
                        alive = asked;
                        let mut going_on = true;
                        while let Ok(push) = pushes.try_recv() {
                            let event = translate(push);
                            going_on &= event.is_none_or(|event| event != FeedEvent::Lost && tell(event));
                        }
                        going_on && !is_exchanged(&mut canary, found) && tell(FeedEvent::Alive(asked))
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

type Events = mpsc::UnboundedSender<(usize, FeedEvent)>;

/// The canary is gone or another: nothing that was heard is about what the store holds now. A flush that was told of does
/// not explain it: it may have been of another database, and what is read since of yet another.
fn is_exchanged(canary: &mut Option<Vec<u8>>, found: Option<Vec<u8>>) -> bool {
    let (Some(known), Some(found)) = (canary, found) else { return false };
    let exchanged = !known.is_empty() && *known != found;
    *known = found;
    if exchanged {
        tracing::warn!("`{CANARY}` has changed, and the data with it: everything is read again");
    }
    exchanged
}

enum Pong {
    /// Answered; asked at this time. What the canary says, if it was asked for and may be read.
    At(Instant, Option<Vec<u8>>),
    Late,
    Broken,
}

async fn ping(mut connection: MultiplexedConnection, looks: bool) -> Pong {
    let asked = Instant::now();
    let answer = if looks {
        look(&mut connection).await
    } else {
        cmd("PING").query_async::<Value>(&mut connection).await.map(|_| None).map_err(|error| reply::failure(&error))
    };
    match answer {
        Ok(canary) => Pong::At(asked, canary),
        Err(error) if error.kind == StoreErrorKind::Timeout => Pong::Late,
        Err(error) if error.is_transient() => Pong::Broken,
        // Refused, as by one that cannot save its data: answered all the same.
        Err(_) => Pong::At(asked, None),
    }
}

/// What the canary says: nothing where there is none, `None` where it is of another type or may not be read.
async fn look(connection: &mut MultiplexedConnection) -> Result<Option<Vec<u8>>, StoreError> {
    let mut beginning = cmd("GETRANGE");
    let beginning = beginning.arg(CANARY).arg(0).arg(CANARY_LENGTH).query_async::<Value>(connection).await;
    match beginning.map_err(|error| reply::failure(&error)) {
        Ok(Value::BulkString(found)) => Ok(Some(found)),
        Err(error) if error.is_transient() => Err(error),
        Ok(_) | Err(_) => Ok(None),
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
