//! The command line: reads arguments, calls `app` or the admin API, prints, exits 0, 1 or 64.

mod audit;
mod check_config;
mod client;
mod demo;
mod device;
pub mod docs;
mod doctor;
mod explain;
mod output;
mod policy;
mod replay;
mod revoke;
mod risk;
mod serve;
mod session;

use std::{env, error::Error, ffi::OsString, io::IsTerminal, process::ExitCode};

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
            let printed = error.print();
            return if fine { output::ending(printed) } else { ExitCode::from(EXIT_USAGE) };
        }
    };
    if !matches!(arguments.command, Command::Serve(_) | Command::Demo(_) | Command::DemoIssuer(_) | Command::Echo(_)) {
        output::end_where_it_cannot_be_written();
    }
    let code = match arguments.command {
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
    };
    output::finish();
    code
}

/// The process environment. Names and values that are no text are nobody's settings.
fn environment() -> Environment {
    env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// Whether what is drawn on `stream` may be coloured: on a terminal, unless `NO_COLOR` says otherwise (<https://no-color.org>).
fn is_coloured(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && !forbids_colour(env::var_os("NO_COLOR"))
}

fn forbids_colour(no_color: Option<OsString>) -> bool {
    no_color.is_some_and(|value| !value.is_empty())
}

/// An error and what caused it, in one line. Some errors say their cause themselves: nothing is said twice.
fn with_causes(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.ends_with(&text) {
            said = format!("{said}: {text}");
        }
        cause = error.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("cannot write records")]
        Silent(#[source] io::Error),
        #[error("cannot listen: {0}")]
        Telling(#[source] io::Error),
        #[error(transparent)]
        Through(Box<Self>),
    }

    #[test]
    fn an_error_is_told_with_its_causes_and_none_of_them_twice() {
        let inner = || io::Error::other("`/audit`: permission denied");
        let silent = || Outer::Silent(inner());
        assert_eq!(with_causes(&silent()), "cannot write records: `/audit`: permission denied");
        assert_eq!(
            with_causes(&Outer::Through(Box::new(silent()))),
            "cannot write records: `/audit`: permission denied"
        );
        assert_eq!(with_causes(&Outer::Telling(inner())), "cannot listen: `/audit`: permission denied");
    }

    #[test]
    fn no_color_forbids_colour_unless_it_is_empty() {
        assert!(!forbids_colour(None) && !forbids_colour(Some("".into())));
        assert!(forbids_colour(Some("0".into())) && forbids_colour(Some("1".into())));
    }
}
