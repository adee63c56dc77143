//! What a check costs beside a server that allows everything, in one run on one machine. `make bench`.
//!
//! `cargo bench --bench checks -- [compare|envoy|memory|flood|devices] [options]`. First it proves that nothing stale is allowed; then
//! it measures. How to read the figures, and those of our own machine: `docs/performance.md`.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench; it shares support with the tests"
)]

mod bound;
mod compare;
mod devices;
mod envoy;
mod flood;
mod floor;
mod http2;
mod load;
mod memory;
mod proof;
#[path = "../../tests/support/redis.rs"]
mod redis;
mod request;
mod servers;
#[path = "../../tests/support/mod.rs"]
mod support;
mod table;

use std::{fs, io, net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand};

/// Measures Countersign beside an always-allow server.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    mode: Option<Mode>,
    #[command(flatten)]
    options: Options,
    /// What cargo says.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[arg(long, default_value_t = 5, global = true)]
    rounds: usize,
    /// Of each measurement.
    #[arg(long, default_value_t = 2.0, global = true)]
    seconds: f64,
    /// Connections and streams on each.
    #[arg(long, default_values = ["1x1", "4x32"], value_delimiter = ',', value_parser = level, global = true)]
    levels: Vec<(usize, usize)>,
    /// Where the tables are written to as well.
    #[arg(long, default_value = "target/checks.md", global = true)]
    out: PathBuf,
    /// Not first proving that stale requests are refused: for trying things out only.
    #[arg(long, global = true)]
    no_proof: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum Mode {
    /// Floor and Countersign in turn, warm and cold.
    Compare,
    /// The same behind a real Envoy each, with the default answer and with a bare one.
    Envoy,
    /// What a flood of bad signatures, and bursts of tokens never seen, do to the latency of good traffic.
    Flood,
    /// What millions of tokens, good and bad, do to the memory of the process and of its token cache.
    Memory {
        /// Distinct tokens of each kind.
        #[arg(long, default_value_t = 1_000_000)]
        tokens: u64,
        /// Garbage after them.
        #[arg(long, default_value_t = 10_000_000)]
        garbage: u64,
    },
    /// A fleet imported into Redis: time, memory, and checks before and after.
    Devices {
        #[arg(long, default_value_t = 1_000_000)]
        devices: u64,
    },
    /// The always-allow server itself; this program starts it.
    #[command(hide = true)]
    Floor { address: SocketAddr },
    /// The server of [`bound`]; this program starts it.
    #[command(hide = true)]
    Bound { address: SocketAddr, answer: usize, record: usize, file: PathBuf },
}

fn level(text: &str) -> Result<(usize, usize), String> {
    let number = |text: &str| text.parse().ok().filter(|number| *number > 0);
    let parts = text.split_once('x').and_then(|(connections, streams)| number(connections).zip(number(streams)));
    parts.ok_or_else(|| format!("`{text}` is not CONNECTIONSxSTREAMS, such as 4x32"))
}

fn main() -> io::Result<()> {
    let Arguments { mode, options, .. } = Arguments::parse();
    match &mode {
        Some(Mode::Floor { address }) => {
            floor::serve(*address);
            return Ok(());
        }
        Some(Mode::Bound { address, answer, record, file }) => return bound::serve(*address, *answer, *record, file),
        _ => {}
    }
    let folder = tempfile::TempDir::with_prefix("countersign-bench-")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let redis = runtime.block_on(redis::Redis::start());
    let issuer = request::Issuer::new();
    if !options.no_proof {
        proof::run(folder.path(), &issuer, &redis)?;
    }
    let text = match mode.unwrap_or(Mode::Compare) {
        Mode::Compare | Mode::Floor { .. } | Mode::Bound { .. } => {
            compare::run(folder.path(), &options, &issuer, &redis)?
        }
        Mode::Envoy => envoy::run(folder.path(), &options, &issuer, &redis)?,
        Mode::Flood => flood::run(folder.path(), &options, &issuer)?,
        Mode::Memory { tokens, garbage } => memory::run(folder.path(), tokens, garbage, &issuer)?,
        Mode::Devices { devices } => devices::run(folder.path(), devices, &options, &issuer, &redis)?,
    };
    println!("\n{text}");
    fs::write(&options.out, text)
}
