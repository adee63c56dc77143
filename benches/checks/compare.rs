//! The comparison: every contestant under every load in each round, in an order that rotates.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::json;

use super::{
    Options,
    load::{self, Load, Plan},
    redis::Redis,
    request::{self, DEVICE, FINGERPRINT, Issuer, SUBJECT},
    servers::{self, Contestant, Scope, Store},
    table::{self, Sample, Table},
};

/// Connections and streams of the cold loads, and how many tokens never seen before each contestant is sent in a round.
const COLD: [(usize, usize, usize); 2] = [(1, 1, 2_000), (4, 8, 6_000)];

/// Rows that [`least`] is made of, beside the floor.
const CORE: &str = "core, Redis";
const BARE: &str = "bare";
const BOUND: &str = "bound";

pub fn run(folder: &Path, options: &Options, issuer: &Issuer, redis: &Redis) -> io::Result<String> {
    let mut contestants = contestants(folder, issuer, redis);
    let warm = request::check(&request::token(&issuer.rs256, 0));
    println!("the message: {} octets, the token: {}", warm.len(), request::token(&issuer.rs256, 0).len());
    let mut answers = Vec::new();
    for contestant in &contestants {
        enrol(contestant);
        answers.push(assert_allowed(contestant, &warm)?);
    }
    let [_, core, .., signed, answer] = answers[..] else { unreachable!("there are six") };
    let unsigned = contestants.last().expect("there are some");
    settle(unsigned);
    let record = unsigned.record_length(folder);
    println!("an answer of everything: {answer} octets, {signed} with the assertion; a record: {record}");
    contestants.push(servers::bound(folder, BARE, core, 0));
    contestants.push(servers::bound(folder, BOUND, answer, record));
    let names = || contestants.iter().map(|contestant| contestant.name);
    let mut tables: Vec<Table> = Vec::new();
    for (connections, streams) in &options.levels {
        let title = format!("Warm, RS256, {connections} connections × {streams} streams");
        tables.push(Table::new(title, names()));
    }
    for (connections, streams, _) in COLD {
        let title = format!("Cold, RS256: every token is new, {connections} connections × {streams} streams");
        tables.push(Table::new(title, names()));
    }
    let mut tokens = 1..;
    for round in 0..options.rounds {
        for (level, (connections, streams)) in options.levels.iter().enumerate() {
            let plan = Plan::closed(*connections, *streams, Duration::from_secs_f64(options.seconds));
            for row in rotated(round, contestants.len()) {
                let sample = measure(&contestants[row], plan, &load::same(warm.clone()))?;
                tables[level].add(row, sample);
            }
        }
        for (level, (connections, streams, count)) in COLD.into_iter().enumerate() {
            let plan = Plan { connections, streams, time: None, rate: None };
            let fresh: Vec<Bytes> = mint(issuer, &tokens.by_ref().take(count).collect::<Vec<_>>());
            for row in rotated(round, contestants.len()) {
                let sample = measure(&contestants[row], plan, &load::each(fresh.clone()))?;
                tables[options.levels.len() + level].add(row, sample);
            }
        }
        println!("round {} of {}", round + 1, options.rounds);
    }
    for contestant in contestants.iter().filter(|contestant| contestant.countersign.is_some()) {
        let lost = contestant.metric("countersign_audit_lost", "");
        let recorded = contestant.metric("countersign_audit_records", "");
        println!("{}: {recorded} audit records taken, {lost} lost to a full queue", contestant.name);
    }
    let warm = options.levels.len();
    let text = |(level, table): (usize, &Table)| {
        let least = if level < warm { least(table) } else { String::new() };
        table.markdown() + &least + "\n"
    };
    Ok(tables.iter().enumerate().map(text).collect())
}

/// What everything costs at least, as long as the core costs what it does: the core, and what the longer answer and the record
/// cost a server that does nothing else. Device, place, risk, trust and policies are free in it, and writing both texts.
fn least(table: &Table) -> String {
    let [floor, core, bare, bound] = ["floor", CORE, BARE, BOUND].map(|name| table.samples(name));
    let sum = |round: usize| (core[round].cpu + bound[round].cpu - bare[round].cpu) / floor[round].cpu;
    let least = table::median((0..floor.len()).map(sum).collect());
    format!("\nCPU of everything to the floor, at least ({CORE} + {BOUND} - {BARE}): {least:.2}\n")
}

fn contestants(folder: &Path, issuer: &Issuer, redis: &Redis) -> Vec<Contestant> {
    let keys = issuer.key_set();
    let countersign = |name, scope, store| servers::countersign(folder, name, scope, store, &keys);
    vec![
        servers::floor(folder),
        countersign("core, embedded", Scope::Core, Store::Embedded),
        countersign(CORE, Scope::Core, Store::Redis(redis)),
        countersign("everything, embedded", Scope::Everything, Store::Embedded),
        countersign("everything, Redis", Scope::Everything, Store::Redis(redis)),
        countersign("unsigned, Redis", Scope::Unsigned, Store::Redis(redis)),
    ]
}

/// Registers the device that requests name.
pub fn enrol(contestant: &Contestant) {
    if contestant.countersign.is_some() {
        let device =
            json!({"id": DEVICE, "user": SUBJECT, "fingerprint": FINGERPRINT, "compliant": true, "status": "active"});
        contestant.admin("PutDevice", &json!({ "device": device }));
    }
}

/// Says how many octets an answer has.
fn assert_allowed(contestant: &Contestant, message: &Bytes) -> io::Result<usize> {
    let plan = Plan::closed(2, 4, Duration::from_millis(500));
    let load = load::run(contestant.address, plan, &load::same(message.clone()))?;
    assert!(load.allowed > 0 && load.denied + load.failed == 0, "{} does not allow: {load:?}", contestant.name);
    Ok(load.octets)
}

/// Drives one contestant, and reads from the kernel what it used meanwhile.
pub fn measure(contestant: &Contestant, plan: Plan, source: &load::Source) -> io::Result<Sample> {
    let before = contestant.cpu();
    let load: Load = load::run(contestant.address, plan, source)?;
    // What it still does for these checks (audit) counts.
    settle(contestant);
    let cpu = contestant.cpu() - before;
    // Thousands of requests a second are nobody's habit: the risk model may refuse one in a thousand.
    let refused = load.denied + load.failed;
    let few = refused * 1_000 <= load.answers();
    assert!(few, "{} refused {refused} of {}: {}", contestant.name, load.answers(), reasons(contestant));
    Ok(Sample {
        per_second: load.per_second(),
        p50: load.percentile(50.0),
        p99: load.percentile(99.0),
        cpu: cpu.as_secs_f64() / load.answers() as f64 * 1e5,
        memory: contestant.memory(),
    })
}

/// What a Countersign has refused for so far.
fn reasons(contestant: &Contestant) -> String {
    let page = contestant.countersign.as_ref().map(|server| server.get("/metrics").body).unwrap_or_default();
    let refusals = page.lines().filter(|line| line.starts_with("countersign_decisions") && !line.contains("allow"));
    refusals.collect::<Vec<_>>().join("; ")
}

/// Waits until the process has been idle for 30 ms, a second at most.
fn settle(contestant: &Contestant) {
    let limit = Instant::now() + Duration::from_secs(1);
    let mut last = contestant.cpu();
    while Instant::now() < limit {
        super::support::process::pause(Duration::from_millis(30));
        let now = contestant.cpu();
        if now == last {
            return;
        }
        last = now;
    }
}

/// RS256 signatures are made on all cores: they cost twenty times what verifying them does.
fn mint(issuer: &Issuer, numbers: &[u64]) -> Vec<Bytes> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let part = numbers.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let make = |part: &[u64]| -> Vec<Bytes> {
            part.iter().map(|number| request::check(&request::token(&issuer.rs256, *number))).collect()
        };
        let parts: Vec<_> = numbers.chunks(part).map(|part| scope.spawn(move || make(part))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("signing does not panic")).collect()
    })
}

fn rotated(round: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |index| (index + round) % count)
}
