//! `countersign device search | export | summary | revoke | activate`.

use std::io::{self, Write as _};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::{
    super::{
        client::{Connection, Failure},
        revoke::{printable, when},
    },
    fields, moment, plain, show,
};
use crate::wire::admin::{
    ActivateDeviceRequest, RevokeDeviceRequest, SearchRequest, SummaryRequest, search_response::Found,
};

#[derive(Debug, Subcommand)]
pub(super) enum FleetAction {
    /// Find devices by user, state, compliance and last sight: one line each, with their trust.
    Search {
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        connection: Connection,
    },
    /// Write devices as JSON lines or CSV to standard output; `import` reads both.
    Export {
        #[arg(long, value_enum, default_value = "jsonl")]
        format: Format,
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        connection: Connection,
    },
    /// How many devices there are, by state and compliance, as of the last count.
    Summary {
        #[command(flatten)]
        connection: Connection,
    },
    /// Refuse every request from a device, for good: lost, stolen.
    Revoke {
        /// The device's id.
        id: String,
        /// For the record: who asked, which ticket.
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Take a suspension or revocation back.
    Activate {
        /// The device's id.
        id: String,
        /// For the record: who asked, which ticket.
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
        #[command(flatten)]
        connection: Connection,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One JSON object a line.
    Jsonl,
    Csv,
}

#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Only this user's: the `sub` of their tokens.
    #[arg(long)]
    user: Option<String>,
    /// `provisional`, `trusted`, `suspended` or `revoked`.
    #[arg(long)]
    state: Option<String>,
    #[arg(long)]
    compliant: Option<bool>,
    /// Only ids that begin with this.
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Last seen before this time (RFC 3339 or Unix seconds), or never.
    #[arg(long, value_name = "TIME")]
    seen_before: Option<String>,
    /// Last seen at or after this time.
    #[arg(long, value_name = "TIME")]
    seen_after: Option<String>,
}

impl FleetAction {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Search { filter, connection } => {
                each(&connection, filter, false, |found| {
                    let rest = described(found).into_iter().filter(|(name, _)| name != "id");
                    let rest: Vec<String> = rest.map(|(name, value)| format!("{name}={}", plain(&value))).collect();
                    let id = found.device.as_ref().map(|device| printable(&device.id)).unwrap_or_default();
                    writeln!(io::stdout(), "{id} {}", rest.join(" "))
                })
                .await?;
            }
            Self::Export { format: Format::Jsonl, filter, connection } => {
                each(&connection, filter, true, |found| writeln!(io::stdout(), "{}", Value::Object(exported(found))))
                    .await?;
            }
            Self::Export { format: Format::Csv, filter, connection } => {
                let mut writer = csv::Writer::from_writer(io::stdout());
                writer.write_record(COLUMNS).map_err(|error| Failure::failed(error.to_string()))?;
                each(&connection, filter, true, |found| {
                    writer.write_record(cells(&exported(found))).map_err(io::Error::other)
                })
                .await?;
                writer.flush().map_err(|error| Failure::failed(error.to_string()))?;
            }
            Self::Summary { connection } => {
                let summary = connection.connect_fleet().await?.summary(SummaryRequest {}).await?.into_inner();
                let counted = summary.counted.as_ref().map_or_else(|| "never".to_owned(), when);
                println!("{:<15} {counted}\n{:<15} {}", "counted", "devices", summary.devices);
                let mut counts: Vec<_> = summary.by_state.into_iter().chain(summary.by_compliance).collect();
                counts.sort();
                counts.into_iter().for_each(|(name, count)| println!("{name:<15} {count}"));
                println!("{:<15} {}", "malformed", summary.malformed);
            }
            Self::Revoke { id, reason, connection } => {
                let asked = RevokeDeviceRequest { id, reason };
                show(&connection.connect_fleet().await?.revoke_device(asked).await?.into_inner());
            }
            Self::Activate { id, reason, connection } => {
                let asked = ActivateDeviceRequest { id, reason };
                show(&connection.connect_fleet().await?.activate_device(asked).await?.into_inner());
            }
        }
        Ok(())
    }
}

/// What `import` reads.
const COLUMNS: [&str; 30] = [
    "id",
    "user",
    "status",
    "status_reason",
    "fingerprint",
    "cert_sha256",
    "jkt",
    "managed",
    "compliant",
    "patch_level",
    "os",
    "os_version",
    "jailbroken",
    "disk_encrypted",
    "trust_score",
    "screen_lock",
    "antivirus",
    "enrolled_at",
    "checked_at",
    "judged_at",
    "posture_compliant",
    "agent_compliant",
    "agent_jailbroken",
    "agent_disk_encrypted",
    "agent_screen_lock",
    "agent_antivirus",
    "agent_os",
    "agent_os_version",
    "agent_patch_level",
    "agent_checked_at",
];

/// The record as it can be imported again: who says what, not what counts of it.
fn exported(found: &Found) -> Map<String, Value> {
    let fields = found.device.as_ref().map(fields).unwrap_or_default();
    fields.into_iter().filter(|(name, _)| COLUMNS.contains(&name.as_str())).collect()
}

/// A line of CSV; empty is what is not known.
fn cells(fields: &Map<String, Value>) -> impl Iterator<Item = String> {
    COLUMNS.iter().map(|name| match fields.get(*name) {
        None => String::new(),
        Some(value) => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
    })
}

/// The record with what follows from it.
fn described(found: &Found) -> Map<String, Value> {
    let mut fields = found.device.as_ref().map(fields).unwrap_or_default();
    fields.insert("state".into(), json!(found.state));
    fields.insert("trust".into(), json!((found.trust * 100.0).round() / 100.0));
    if !found.trust_lines.is_empty() {
        let lines = found.trust_lines.iter().map(|line| format!("{}{:+.2}", line.name, line.points));
        fields.insert("evidence".into(), json!(lines.collect::<Vec<_>>().join(",")));
    }
    if let Some(seen) = &found.last_seen {
        fields.insert("last_seen".into(), json!(when(seen)));
    }
    if found.posture_stale {
        fields.insert("posture_stale".into(), json!(true));
    }
    fields
}

async fn each(
    connection: &Connection,
    filter: FilterArgs,
    as_written: bool,
    mut visit: impl FnMut(&Found) -> io::Result<()>,
) -> Result<(), Failure> {
    let time = |name: &str, text: Option<String>| text.map(|text| moment(name, &text)).transpose();
    let mut asked = SearchRequest {
        user: filter.user.unwrap_or_default(),
        state: filter.state.unwrap_or_default(),
        compliant: filter.compliant,
        id_prefix: filter.prefix.unwrap_or_default(),
        seen_before: time("--seen-before", filter.seen_before).map_err(Failure::usage)?,
        seen_after: time("--seen-after", filter.seen_after).map_err(Failure::usage)?,
        page_size: 1000,
        page_token: String::new(),
        as_written,
    };
    let mut client = connection.connect_fleet().await?;
    loop {
        let page = client.search(asked.clone()).await?.into_inner();
        for found in &page.devices {
            visit(found).map_err(|error| Failure::failed(error.to_string()))?;
        }
        asked.page_token = page.next_page_token;
        if asked.page_token.is_empty() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::source::{Line, Source},
        *,
    };
    use crate::wire::admin::Device;

    /// A device with every field that an import takes.
    fn whole() -> Device {
        let text = |text: &str| Some(text.to_owned());
        let time = Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 });
        Device {
            id: "laptop".into(),
            user: text("ann, \"the\" one"),
            fingerprint: text("f"),
            cert_sha256: text("c"),
            jkt: text("j"),
            managed: Some(true),
            compliant: Some(false),
            patch_level: text("current"),
            os: text("linux"),
            os_version: text("6"),
            jailbroken: Some(false),
            disk_encrypted: Some(true),
            status: text("suspended"),
            trust_score: Some(0.85),
            enrolled_at: time,
            screen_lock: Some(true),
            antivirus: Some(false),
            status_reason: text("lost"),
            checked_at: time,
            cert_expires_at: None,
            said: [("agent_compliant", "false"), ("agent_os_version", "6.1"), ("agent_checked_at", "1800000000")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        }
    }

    #[test]
    fn what_is_exported_as_csv_is_imported_as_it_was() {
        let found = Found { device: Some(whole()), ..Found::default() };
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(COLUMNS).unwrap();
        writer.write_record(cells(&exported(&found))).unwrap();
        let text = writer.into_inner().unwrap();
        let mut source = Source::new(&text[..], true);
        assert_eq!(source.next().unwrap(), Some(Line::Nothing));
        assert_eq!(source.next().unwrap(), Some(Line::Device(Box::new(whole()))));
    }
}
