//! Memory: the token cache keeps to its bound, and tokens that verify under no key leave no trace in it.

use std::{cell::RefCell, fmt::Write as _, io, path::Path, rc::Rc, time::Duration};

use serde_json::json;

use super::{
    load::{self, Plan, Source},
    request::{self, Issuer},
    servers::{self, Contestant, Scope, Store},
    support::process::pause,
};

/// The configured bound on the token cache, in MiB.
const BOUND: u32 = 64;
/// Tokens in use all along, which nothing may push out but other good tokens.
const REGULARS: u64 = 1_000;

pub fn run(folder: &Path, tokens: u64, rubbish: u64, issuer: &Issuer) -> io::Result<String> {
    let mut setup = |folder: &Path| {
        let mut setup = servers::setup(folder, Scope::Core, Store::Embedded, &issuer.key_set());
        setup.config["identity"]["cache"] = json!({ "size_mib": BOUND });
        setup
    };
    let server = servers::start(folder, "memory", &mut setup);
    let mut report = format!(
        "### {tokens} distinct good tokens, then {rubbish} of garbage; the cache may hold {BOUND} MiB\n\n\
         | after | RSS MiB | cache MiB | entries |\n|---|---:|---:|---:|\n"
    );
    let mut line = |what: &str| {
        let cached = server.metric("countersign_token_cache_bytes", "") / f64::from(1 << 20);
        let entries = server.metric("countersign_token_cache_entries", "");
        println!("{what}: {:.0} MiB resident, {cached:.1} MiB in the cache, {entries} entries", server.memory());
        let _ = writeln!(report, "| {what} | {:.0} | {cached:.1} | {entries} |", server.memory());
        assert!(cached <= f64::from(BOUND) * 1.02, "the token cache keeps to its bound");
        server.memory()
    };
    line("the start");
    let mut filled = 0.0;
    for part in 0..10 {
        let numbers = part * tokens / 10..(part + 1) * tokens / 10;
        ask(&server, &good(issuer, numbers), true)?;
        let now = line(&format!("{} good", (part + 1) * tokens / 10));
        // Full after the first few parts: flat from there on.
        if part == 4 {
            filled = now;
        }
        assert!(part <= 4 || now <= filled * 1.15, "flat once the cache is full: {filled:.0} MiB, now {now:.0} MiB");
    }

    // Made once: a token that is signed anew in another second is another token.
    let kept: Vec<_> = (0..REGULARS).map(|number| request::check(&request::token(&issuer.eddsa, number))).collect();
    let regulars = || -> Source {
        let mut each = kept.clone().into_iter();
        Rc::new(RefCell::new(move || each.next()))
    };
    let unknown = || -> io::Result<f64> {
        let before = server.metric("countersign_tokens", "outcome=\"new\"");
        ask(&server, &regulars(), true)?;
        Ok(server.metric("countersign_tokens", "outcome=\"new\"") - before)
    };
    // A full cache takes a newcomer in once it is asked for more often than whom it would push out, and decides later.
    let mut settled = 0;
    while settled < 3 {
        settled = if unknown()? < 1.0 { settled + 1 } else { 0 };
        pause(Duration::from_millis(500));
    }
    let before = line("1000 regulars");
    for part in 0..10 {
        ask(&server, &garbage(issuer, part * rubbish / 10..(part + 1) * rubbish / 10), false)?;
        let now = line(&format!("{} of garbage", (part + 1) * rubbish / 10));
        assert!(now <= before * 1.1 + 8.0, "garbage does not grow the process: {before:.0} MiB, now {now:.0} MiB");
    }
    let displaced = unknown()?;
    let _ = writeln!(report, "\nOf {REGULARS} good tokens in use, the garbage displaced {displaced}.");
    assert!(displaced < 1.0, "garbage displaces no good entry");
    Ok(report)
}

fn ask(server: &Contestant, source: &Source, allowed: bool) -> io::Result<()> {
    let plan = Plan { connections: 4, streams: 16, time: None, rate: None };
    let load = load::run(server.address, plan, source)?;
    let (right, wrong) = if allowed { (load.allowed, load.denied) } else { (load.denied, load.allowed) };
    assert!(right > 0 && wrong == 0 && load.failed == 0, "not as expected: {load:?}");
    Ok(())
}

/// EdDSA, since a million RSA signatures take ten minutes to make.
fn good(issuer: &Issuer, mut numbers: std::ops::Range<u64>) -> Source {
    let key = countersign::identity::mint::SigningKey::from_pkcs8(
        issuer.eddsa.algorithm(),
        issuer.eddsa.kid(),
        &issuer.eddsa.to_pkcs8().expect("a key of ours"),
    );
    let key = key.expect("a key of ours");
    Rc::new(RefCell::new(move || numbers.next().map(|number| request::check(&request::token(&key, number)))))
}

/// In turn: no token at all, one with a broken signature, one of a key that nobody has.
fn garbage(issuer: &Issuer, mut numbers: std::ops::Range<u64>) -> Source {
    let template = request::token(&issuer.eddsa, u64::MAX >> 8);
    let (head, signature) =
        template.rsplit_once('.').map(|(head, tail)| (head.to_owned(), tail.to_owned())).expect("a JWS");
    Rc::new(RefCell::new(move || {
        let number = numbers.next()?;
        let token = match number % 3 {
            0 => format!("{number:016x}{}", "Zm9v".repeat(200)),
            1 => format!("{head}.{number:016x}{}", &signature[16..]),
            _ => format!("{head}x{number:x}.{signature}"),
        };
        Some(request::check(&token))
    }))
}
