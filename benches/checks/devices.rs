//! A fleet: how long a million devices take to import into Redis and what they weigh there, and that checks are then as
//! fast as beside ten.

use std::{
    cell::RefCell,
    fmt::Write as _,
    fs,
    io::{self, BufWriter, Write as _},
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Options,
    compare::measure,
    load::{self, Plan, Source},
    redis::Redis,
    request::{self, FINGERPRINT, Issuer, PATH},
    servers::{self, Contestant, Scope, Store},
    table::median,
};

/// The small fleet, and how many devices of the large one take turns.
const FEW: u64 = 10;
const MANY: u64 = 1_000;

pub fn run(folder: &Path, devices: u64, options: &Options, issuer: &Issuer, redis: &Redis) -> io::Result<String> {
    let server = servers::countersign(folder, "fleet", Scope::Everything, Store::Redis(redis), &issuer.key_set());
    let few = messages(issuer, (0..FEW).collect());
    import(&server, 0..FEW)?;
    let before = rounds(&server, options, &few)?;
    let (resident, stored) = (server.memory(), stored(redis));
    let cpu = server.cpu();
    let (took, told) = import(&server, 0..devices)?;
    let cpu = (server.cpu() - cpu).as_secs_f64();
    let after = rounds(&server, options, &few)?;
    let spread = messages(issuer, (0..MANY).map(|i| i * devices / MANY).collect());
    let many = rounds(&server, options, &spread)?;

    let mut report = format!("### {devices} devices imported into Redis\n\n");
    let rate = devices as f64 / took.as_secs_f64();
    let _ = writeln!(
        report,
        "{:.0} s ({rate:.0} a second), of which Countersign's CPU {cpu:.0} s; the last lines of its progress:\n",
        took.as_secs_f64()
    );
    let lines: Vec<&str> = told.lines().collect();
    for line in &lines[lines.len().saturating_sub(4)..] {
        let _ = writeln!(report, "    {line}");
    }
    let weight = (self::stored(redis) - stored) * f64::from(1 << 20) / devices as f64;
    let _ = writeln!(
        report,
        "\nRedis: {stored:.0} MiB before, {:.0} after ({weight:.0} octets a device). Countersign: {resident:.0} MiB \
         resident before, {:.0} after.\n\n| warm checks, everything on | checks/s | p99 µs | CPU s/100k |\n|---|---:|---:|---:|",
        self::stored(redis),
        server.memory()
    );
    for (what, (per_second, p99, cpu)) in [
        (format!("{FEW} devices in use, {FEW} registered"), before),
        (format!("{FEW} in use, {devices} registered"), after),
        (format!("{MANY} in use, {devices} registered"), many),
    ] {
        let _ = writeln!(report, "| {what} | {per_second:.0} | {p99:.0} | {cpu:.2} |");
    }
    let ratio = after.2 / before.2;
    let _ = writeln!(report, "\nCPU of a check beside {devices} devices: {ratio:.2} times that beside {FEW}.");
    assert!(ratio < 1.5, "checks stay as fast: {ratio:.2}");
    Ok(report)
}

fn id(number: u64) -> String {
    format!("laptop-{number:07}")
}

/// Everybody has one.
fn owner(number: u64) -> String {
    format!("user-{number:07}")
}

/// Imports devices by the command line; says how long it took and what it printed.
fn import(server: &Contestant, numbers: std::ops::Range<u64>) -> io::Result<(Duration, String)> {
    let file = std::env::temp_dir().join(format!("countersign-fleet-{}.jsonl", std::process::id()));
    let mut out = BufWriter::new(fs::File::create(&file)?);
    for number in numbers {
        writeln!(
            out,
            "{{\"id\":\"{}\",\"user\":\"{}\",\"fingerprint\":\"{FINGERPRINT}\",\"compliant\":true,\"managed\":true,\
             \"os\":\"macos\",\"os_version\":\"14.6\",\"patch_level\":\"current\",\"disk_encrypted\":true}}",
            id(number),
            owner(number)
        )?;
    }
    out.flush()?;
    let started = Instant::now();
    let path = file.to_string_lossy();
    let (exit, told) = server.server().command(&["device", "import", &path, "--config", "countersign.yaml"]);
    let took = started.elapsed();
    fs::remove_file(&file)?;
    assert_eq!(exit, Some(0), "the import failed: {told}");
    Ok((took, told))
}

/// A request of each device, with a token of its owner.
fn messages(issuer: &Issuer, numbers: Vec<u64>) -> Vec<Bytes> {
    let message = |number| {
        let token = request::token_of(&issuer.rs256, &owner(number), number);
        request::check_with(&token, PATH, &id(number))
    };
    numbers.into_iter().map(message).collect()
}

/// One after the other, over and over.
fn in_turn(messages: &[Bytes]) -> Source {
    let (messages, mut next) = (messages.to_vec(), 0);
    Rc::new(RefCell::new(move || {
        next += 1;
        messages.get(next % messages.len()).cloned()
    }))
}

/// Medians over the rounds: checks a second, p99 in µs, CPU seconds per 100,000 checks.
fn rounds(server: &Contestant, options: &Options, messages: &[Bytes]) -> io::Result<(f64, f64, f64)> {
    // Each once, one at a time: tokens and records are at hand after that.
    let warming = Plan { connections: 1, streams: 1, time: None, rate: None };
    load::run(server.address, warming, &load::each(messages.to_vec()))?;
    let plan = Plan::closed(4, 32, Duration::from_secs_f64(options.seconds));
    let samples = (0..options.rounds).map(|_| measure(server, plan, &in_turn(messages)));
    let samples = samples.collect::<io::Result<Vec<_>>>()?;
    Ok((
        median(samples.iter().map(|sample| sample.per_second).collect()),
        median(samples.iter().map(|sample| sample.p99).collect()),
        median(samples.iter().map(|sample| sample.cpu).collect()),
    ))
}

/// What Redis holds, in MiB.
fn stored(redis: &Redis) -> f64 {
    let text = redis.cli(&["INFO", "memory"]);
    let line = text.lines().find_map(|line| line.strip_prefix("used_memory:"));
    line.and_then(|octets| octets.trim().parse::<f64>().ok()).unwrap_or_default() / f64::from(1 << 20)
}
