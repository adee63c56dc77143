//! Floods: what tokens that must be looked at do to requests whose tokens are known.

use std::{
    fmt::Write as _,
    io,
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use bytes::Bytes;

use super::{
    Options,
    load::{self, Load, Plan},
    request::{self, Issuer},
    servers::{self, Scope, Store},
    support::process::pause,
    table::median,
};

/// Good requests a second, over four connections.
const GOOD: f64 = 1_000.0;
/// Bad ones: ten times as many.
const BAD: f64 = 10.0 * GOOD;
/// Tokens never seen that come at once.
const BURST: usize = 32;
const BETWEEN_BURSTS: Duration = Duration::from_millis(50);

pub fn run(folder: &Path, options: &Options, issuer: &Issuer) -> io::Result<String> {
    let server = servers::countersign(folder, "flood", Scope::Core, Store::Embedded, &issuer.key_set());
    let warm = request::check(&request::token(&issuer.rs256, 0));
    let time = Duration::from_secs_f64(options.seconds.max(3.0));
    let good = || {
        let plan = Plan { connections: 4, streams: 32, time: Some(time), rate: Some(GOOD) };
        load::run(server.address, plan, &load::same(warm.clone()))
    };
    good()?;
    let bursts = (time.as_millis() / BETWEEN_BURSTS.as_millis()) as usize + 4;
    let (mut quiet, mut flooded, mut burst) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.rounds {
        quiet.push(good()?);
        flooded.push(beside(|stop| flood(server.address, issuer, round, stop), good)?);
        let fresh: Vec<Bytes> = (0..bursts * BURST)
            .map(|i| request::check(&request::token(&issuer.es256, (1 << 32) + (round * bursts * BURST + i) as u64)))
            .collect();
        burst.push(beside(|stop| cold(server.address, &fresh, stop), good)?);
        println!("round {} of {}", round + 1, options.rounds);
    }
    let mut report = format!(
        "### {GOOD} good requests a second (warm, RS256), beside what\n\n| beside | p50 µs | p99 µs | max µs |\n|---|---:|---:|---:|\n"
    );
    for (what, loads) in [
        ("nothing", &quiet),
        ("10,000 bad RS256 signatures a second", &flooded),
        ("32 new ES256 tokens at once, every 50 ms", &burst),
    ] {
        let of = |percent: f64| median(loads.iter().map(|load| load.percentile(percent)).collect());
        let _ = writeln!(report, "| {what} | {:.0} | {:.0} | {:.0} |", of(50.0), of(99.0), of(100.0));
    }
    let p99 = |loads: &[Load]| median(loads.iter().map(|load| load.percentile(99.0)).collect());
    let ratios = quiet.iter().zip(&flooded).map(|(quiet, flooded)| flooded.percentile(99.0) / quiet.percentile(99.0));
    let _ = writeln!(
        report,
        "\nThe flood's p99 is {:.2} times the quiet one (median of the rounds); bursts add {:.0} µs to it.",
        median(ratios.collect()),
        p99(&burst) - p99(&quiet)
    );
    Ok(report)
}

/// Runs `good` on this thread while `other` runs on another until told to stop.
fn beside(
    other: impl FnOnce(&AtomicBool) -> io::Result<()> + Send,
    good: impl FnOnce() -> io::Result<Load>,
) -> io::Result<Load> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| other(&stop));
        pause(Duration::from_millis(100));
        let load = good();
        stop.store(true, Ordering::Relaxed);
        other.join().expect("the flood does not panic")?;
        let load = load?;
        assert_eq!(
            load.denied + load.failed,
            0,
            "good traffic is allowed throughout: {} not",
            load.denied + load.failed
        );
        Ok(load)
    })
}

/// A good token's text with a signature that fits nothing, another one each time.
fn flood(to: SocketAddr, issuer: &Issuer, round: usize, stop: &AtomicBool) -> io::Result<()> {
    let token = request::token(&issuer.rs256, 1);
    let (head, signature) = token.rsplit_once('.').expect("a JWS");
    let mut number = (round as u64) << 32;
    let mut next = || {
        number += 1;
        request::check(&format!("{head}.{number:016x}{}", &signature[16..]))
    };
    while !stop.load(Ordering::Relaxed) {
        let part: Vec<Bytes> = (0..BAD as usize / 10).map(|_| next()).collect();
        let plan = Plan { connections: 4, streams: 64, time: None, rate: Some(BAD) };
        let load = load::run(to, plan, &load::each(part))?;
        assert_eq!(load.allowed, 0, "a bad signature is refused");
    }
    Ok(())
}

fn cold(to: SocketAddr, fresh: &[Bytes], stop: &AtomicBool) -> io::Result<()> {
    for burst in fresh.chunks(BURST) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let plan = Plan { connections: 1, streams: BURST, time: None, rate: None };
        let load = load::run(to, plan, &load::each(burst.to_vec()))?;
        assert_eq!(load.denied + load.failed, 0, "new tokens are allowed");
        pause(BETWEEN_BURSTS);
    }
    Ok(())
}
