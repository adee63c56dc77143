//! The command line: reads arguments, calls `app` or the admin API, prints, exits 0, 1 or 64.

mod audit;
mod check_config;
mod client;
mod demo;
mod device;
pub mod docs;
mod doctor;
mod explain;
mod policy;
mod replay;
mod revoke;
mod risk;
mod serve;
mod session;

use std::{
    env, panic,
    process::{self, ExitCode},
};

use clap::{Parser, Subcommand, error::ErrorKind};

use crate::config::Environment;

/// Bad usage or configuration.
const EXIT_USAGE: u8 = 64;

/// Zero trust for Envoy and Istio, verified on every request.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Audit(audit::Audit),
    CheckConfig(check_config::CheckConfig),
    Demo(demo::Demo),
    DemoIssuer(demo::DemoIssuer),
    Docs(docs::Docs),
    Doctor(doctor::Doctor),
    Echo(demo::Echo),
    Device(device::DeviceCommand),
    Explain(explain::Explain),
    Policy(policy::Policy),
    Replay(replay::Replay),
    Revoke(revoke::Revoke),
    Risk(risk::Risk),
    Serve(serve::Serve),
    Session(session::SessionCommand),
}

/// Runs the command named by the process arguments.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let fine = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Where standard output is closed there is nobody left to tell.
            let _ = error.print();
            return if fine { ExitCode::SUCCESS } else { ExitCode::from(EXIT_USAGE) };
        }
    };
    if !matches!(arguments.command, Command::Serve(_) | Command::Demo(_) | Command::DemoIssuer(_) | Command::Echo(_)) {
        end_quietly_when_unread();
    }
    match arguments.command {
        Command::Audit(command) => command.run(),
        Command::CheckConfig(command) => command.run(),
        Command::Demo(command) => command.run(),
        Command::DemoIssuer(command) => command.run(),
        Command::Docs(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Echo(command) => command.run(),
        Command::Device(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Policy(command) => command.run(),
        Command::Replay(command) => command.run(),
        Command::Revoke(command) => command.run(),
        Command::Risk(command) => command.run(),
        Command::Serve(command) => command.run(),
        Command::Session(command) => command.run(),
    }
}

/// `countersign … | head`: whoever has read enough closes the pipe, and the command ends as SIGPIPE would have ended it. Rust
/// ignores that signal, and must: a connection that breaks would raise it as well, where there is something to be said.
fn end_quietly_when_unread() {
    const SIGPIPE: i32 = 13;
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        // `println!` has no other way to tell.
        if panic.payload_as_str().is_some_and(|said| said.starts_with("failed printing to stdout: Broken pipe")) {
            process::exit(128 + SIGPIPE);
        }
        usual(panic);
    }));
}

/// The process environment. Names and values that are no text are nobody's settings.
fn environment() -> Environment {
    env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}
