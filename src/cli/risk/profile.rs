//! `countersign risk profile export | forget`: what is remembered of a subject, for whoever has a right to ask.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::super::{
    client::{self, Connection, Failure},
    revoke::when,
};
use crate::wire::admin::{ExportProfileRequest, ForgetProfileRequest, Profile};

/// Show or forget what is remembered of a subject's behaviour.
#[derive(Debug, Args)]
pub(super) struct ProfileCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Everything that is remembered, as JSON. Names are not kept: keys are hashes.
    Export {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        connection: Connection,
    },
    /// Forget a subject on every replica and in the store. They are somebody new at their next request.
    Forget {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        connection: Connection,
    },
}

#[derive(Debug, Args)]
struct Whose {
    /// The `iss` of their tokens.
    #[arg(long, value_name = "ISSUER")]
    issuer: String,
    /// The `sub` of their tokens.
    #[arg(long, value_name = "SUBJECT")]
    subject: String,
}

impl ProfileCommand {
    pub(super) fn run(self) -> ExitCode {
        client::run(async {
            match self.action {
                Action::Export { whose, connection } => export(whose, &connection).await,
                Action::Forget { whose, connection } => forget(whose, &connection).await,
            }
        })
    }
}

async fn export(Whose { issuer, subject }: Whose, connection: &Connection) -> Result<(), Failure> {
    let asked = ExportProfileRequest { issuer, subject };
    let profile = connection.connect_behavior().await?.export_profile(asked).await?.into_inner();
    println!("{}", serde_json::to_string_pretty(&spoken(&profile)).unwrap_or_default());
    Ok(())
}

async fn forget(Whose { issuer, subject }: Whose, connection: &Connection) -> Result<(), Failure> {
    let asked = ForgetProfileRequest { issuer, subject };
    let forgotten = connection.connect_behavior().await?.forget_profile(asked).await?.into_inner();
    println!("{}", if forgotten.was_known { "forgotten" } else { "nothing was remembered" });
    Ok(())
}

fn spoken(profile: &Profile) -> serde_json::Value {
    let time = |at: &Option<prost_types::Timestamp>| at.as_ref().map(when);
    let counts: Vec<_> = profile
        .counts
        .iter()
        .map(|count| json!({ "what": count.what, "key": count.key, "observations": count.observations }))
        .collect();
    json!({
        "counts": counts,
        "last_position": profile.last_position.as_ref().map(|position| json!({
            "at": time(&position.at), "latitude": position.latitude, "longitude": position.longitude,
        })),
        "pace": profile.pace.as_ref().map(|pace| json!({
            "at": time(&pace.at), "surprise": pace.surprise, "fast": pace.fast, "slow": pace.slow,
            "fast_mark": pace.fast_mark, "slow_mark": pace.slow_mark,
        })),
    })
}
