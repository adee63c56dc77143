//! Load: a closed loop (each answer brings the next question) or a steady rate (a question is due when it is due,
//! however late the answers are). All of it on one thread.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{task::LocalSet, time::timeout};

use super::http2::{Answer, Connection, Verdict};

/// Where the next message comes from; `None`: there is no more.
pub type Source = Rc<RefCell<dyn FnMut() -> Option<Bytes>>>;

/// One message over and over.
pub fn same(message: Bytes) -> Source {
    Rc::new(RefCell::new(move || Some(message.clone())))
}

/// Each message once.
pub fn each(messages: Vec<Bytes>) -> Source {
    let mut messages = messages.into_iter();
    Rc::new(RefCell::new(move || messages.next()))
}

/// How hard to ask.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub connections: usize,
    /// Questions under way on each connection at most.
    pub streams: usize,
    /// `None`: until the source ends.
    pub time: Option<Duration>,
    /// Questions a second over all connections; `None`: as fast as they are answered.
    pub rate: Option<f64>,
}

impl Plan {
    pub const fn closed(connections: usize, streams: usize, time: Duration) -> Self {
        Self { connections, streams, time: Some(time), rate: None }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Load {
    pub allowed: u64,
    pub denied: u64,
    pub failed: u64,
    /// From asking (or from when it was due) to the answer; in microseconds, sorted.
    pub latencies: Vec<f32>,
    /// Of the last answer.
    pub octets: usize,
    pub took: Duration,
}

impl Load {
    pub const fn answers(&self) -> u64 {
        self.allowed + self.denied + self.failed
    }

    pub fn per_second(&self) -> f64 {
        self.answers() as f64 / self.took.as_secs_f64()
    }

    /// In microseconds.
    pub fn percentile(&self, percent: f64) -> f64 {
        let index = (self.latencies.len() as f64 * percent / 100.0) as usize;
        self.latencies.get(index.min(self.latencies.len().saturating_sub(1))).copied().map_or(f64::NAN, f64::from)
    }

    fn add(&mut self, answer: Answer) {
        match answer.verdict {
            Verdict::Allowed => self.allowed += 1,
            Verdict::Denied => self.denied += 1,
            Verdict::Failed => self.failed += 1,
        }
        self.octets = answer.octets;
        self.latencies.push(answer.asked.elapsed().as_secs_f32() * 1e6);
    }
}

/// Asks `to` as `plan` says, on this thread, until it is over.
pub fn run(to: SocketAddr, plan: Plan, source: &Source) -> io::Result<Load> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, all(to, plan, source))
}

async fn all(to: SocketAddr, plan: Plan, source: &Source) -> io::Result<Load> {
    let start = Instant::now();
    let tasks: Vec<_> =
        (0..plan.connections).map(|index| tokio::task::spawn_local(talk(to, plan, index, Rc::clone(source)))).collect();
    let mut sum = Load::default();
    for task in tasks {
        let part = task.await.map_err(io::Error::other)??;
        sum.allowed += part.allowed;
        sum.denied += part.denied;
        sum.failed += part.failed;
        sum.octets = part.octets;
        sum.latencies.extend(part.latencies);
    }
    sum.took = start.elapsed();
    sum.latencies.sort_by(f32::total_cmp);
    Ok(sum)
}

/// The life of one connection.
async fn talk(to: SocketAddr, plan: Plan, index: usize, source: Source) -> io::Result<Load> {
    let mut connection = Connection::open(to).await?;
    let mut load = Load::default();
    let start = Instant::now();
    let end = plan.time.map(|time| start + time);
    let gap = plan.rate.map(|rate| Duration::from_secs_f64(plan.connections as f64 / rate));
    // Connections take turns, so that a steady rate is steady.
    let mut due = gap.map(|gap| start + gap.mul_f64(index as f64 / plan.connections as f64));
    let mut next = None;
    let mut over = false;
    loop {
        over |= end.is_some_and(|end| Instant::now() >= end);
        while !over && connection.in_flight() < plan.streams && due.is_none_or(|due| due <= Instant::now()) {
            let Some(message) = next.take().or_else(|| (source.borrow_mut())()) else {
                over = true;
                break;
            };
            if !connection.has_room(message.len()) {
                next = Some(message);
                break;
            }
            connection.ask(&message, due.unwrap_or_else(Instant::now));
            due = due.zip(gap).map(|(due, gap)| due + gap);
        }
        if over && connection.in_flight() == 0 {
            return Ok(load);
        }
        connection.flush().await?;
        let wait = match due {
            Some(due) if !over && connection.in_flight() < plan.streams => {
                due.saturating_duration_since(Instant::now()).max(Duration::from_micros(50))
            }
            _ => Duration::from_secs(10),
        };
        match timeout(wait, connection.receive()).await {
            Ok(answers) => {
                for answer in answers? {
                    load.add(answer);
                }
            }
            Err(_) if due.is_some() && !over => {}
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer for ten seconds")),
        }
    }
}
