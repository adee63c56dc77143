//! `countersign device`: the registry, by the admin API.

mod enroll;
mod fleet;
mod import;
mod source;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{
    client::{self, Client, Connection, Failure},
    revoke::{printable, when},
};
use crate::{
    device::said,
    wire::admin::{
        DeleteDeviceRequest, Device, GetDeviceRequest, ListDevicesRequest, PutDeviceRequest, SuspendDeviceRequest,
    },
};

/// Enrol, put, show, search, import, suspend, revoke and delete devices.
///
/// A change takes effect on every replica as fast as a revocation.
#[derive(Debug, Args)]
pub(super) struct DeviceCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write fields of a device's record; make it where there is none.
    ///
    /// Fields: user, fingerprint, cert_sha256, jkt, managed, compliant, patch_level, os, os_version, jailbroken,
    /// disk_encrypted, screen_lock, antivirus, status, status_reason, trust_score, enrolled_at, checked_at;
    /// posture_compliant and agent_… as `export` writes them. What is not set stays as it is.
    Put {
        /// The device's id.
        id: String,
        /// Set a field: `--set user=alice --set compliant=true`.
        #[arg(long = "set", value_name = "FIELD=VALUE")]
        set: Vec<String>,
        /// Make a field unknown again.
        #[arg(long, value_name = "FIELD")]
        clear: Vec<String>,
        /// Fail where the device is registered already.
        #[arg(long)]
        create_only: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show a device's record.
    Get {
        /// The device's id.
        id: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// List devices, one line each, or `--json`.
    List {
        /// Only this user's: the `sub` of their tokens.
        #[arg(long)]
        user: Option<String>,
        /// `active`, `suspended` or `revoked`.
        #[arg(long)]
        status: Option<String>,
        /// Only devices known to be compliant (`true`), or known not to be (`false`).
        #[arg(long)]
        compliant: Option<bool>,
        /// Only ids that begin with this.
        #[arg(long, value_name = "PREFIX")]
        prefix: Option<String>,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connection: Connection,
    },
    #[command(flatten)]
    Enroll(enroll::EnrollAction),
    #[command(flatten)]
    Fleet(fleet::FleetAction),
    Import(import::Import),
    /// Refuse requests from a device until it is active again (`activate`).
    Suspend {
        /// The device's id.
        id: String,
        /// For the record: who asked, which ticket.
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Forget a device. To keep a stolen one out, revoke it instead.
    Delete {
        /// The device's id.
        id: String,
        #[command(flatten)]
        connection: Connection,
    },
}

impl DeviceCommand {
    pub(super) fn run(self) -> ExitCode {
        client::run(async {
            match self.action {
                Action::Enroll(action) => action.run().await?,
                Action::Fleet(action) => action.run().await?,
                Action::Import(import) => import.run().await?,
                Action::Put { id, set, clear, create_only, connection } => {
                    if set.is_empty() && clear.is_empty() {
                        return Err(Failure::usage("nothing is to be written: `--set FIELD=VALUE` or `--clear FIELD`"));
                    }
                    let device = Some(parse(id, &set)?);
                    let asked = PutDeviceRequest { device, clear, create_only };
                    show(&connection.connect().await?.put_device(asked).await?.into_inner());
                }
                Action::Get { id, connection } => {
                    show(&connection.connect().await?.get_device(GetDeviceRequest { id }).await?.into_inner());
                }
                Action::List { user, status, compliant, prefix, json, connection } => {
                    let asked = ListDevicesRequest {
                        user: user.unwrap_or_default(),
                        status: status.unwrap_or_default(),
                        compliant,
                        id_prefix: prefix.unwrap_or_default(),
                        page_size: 1000,
                        page_token: String::new(),
                    };
                    list(connection.connect().await?, asked, json).await?;
                }
                Action::Suspend { id, reason, connection } => {
                    let asked = SuspendDeviceRequest { id, reason };
                    show(&connection.connect().await?.suspend_device(asked).await?.into_inner());
                }
                Action::Delete { id, connection } => {
                    let asked = DeleteDeviceRequest { id: id.clone() };
                    connection.connect().await?.delete_device(asked).await?;
                    println!("deleted: {id}");
                }
            }
            Ok(())
        })
    }
}

fn parse(id: String, set: &[String]) -> Result<Device, Failure> {
    let mut device = Device { id, ..Device::default() };
    for assignment in set {
        let (field, value) =
            assignment.split_once('=').ok_or_else(|| Failure::usage(format!("`{assignment}` is not FIELD=VALUE")))?;
        assign(&mut device, field, value).map_err(Failure::usage)?;
    }
    Ok(device)
}

/// Sets one field, from text, by its name in the store.
fn assign(device: &mut Device, field: &str, value: &str) -> Result<(), String> {
    let text = || Some(value.to_owned());
    let flag = || match value {
        "true" | "yes" | "1" => Ok(Some(true)),
        "false" | "no" | "0" => Ok(Some(false)),
        _ => Err(format!("`{field}` is true or false, not `{}`", printable(value))),
    };
    match field {
        "user" => device.user = text(),
        "fingerprint" => device.fingerprint = text(),
        "cert_sha256" => device.cert_sha256 = text(),
        "jkt" => device.jkt = text(),
        "patch_level" => device.patch_level = text(),
        "os" => device.os = text(),
        "os_version" => device.os_version = text(),
        "status" => device.status = text(),
        "managed" => device.managed = flag()?,
        "compliant" => device.compliant = flag()?,
        "jailbroken" => device.jailbroken = flag()?,
        "disk_encrypted" => device.disk_encrypted = flag()?,
        "trust_score" => {
            let score = value.parse().map_err(|_| "`trust_score` is a number from 0 to 1".to_owned())?;
            device.trust_score = Some(score);
        }
        "screen_lock" => device.screen_lock = flag()?,
        "antivirus" => device.antivirus = flag()?,
        "status_reason" => device.status_reason = text(),
        "checked_at" => device.checked_at = Some(moment(field, value)?),
        "enrolled_at" => device.enrolled_at = Some(moment(field, value)?),
        other if said(other).is_some() => _ = device.said.insert(other.to_owned(), value.to_owned()),
        other => return Err(format!("`{}` is no field of a device", printable(other))),
    }
    Ok(())
}

/// Unix seconds, or RFC 3339.
fn moment(field: &str, value: &str) -> Result<prost_types::Timestamp, String> {
    let seconds = value.parse::<i64>().ok().or_else(|| Some(value.parse::<jiff::Timestamp>().ok()?.as_second()));
    let seconds = seconds.filter(|seconds| *seconds >= 0);
    let seconds =
        seconds.ok_or_else(|| format!("`{field}` is a time such as 2026-11-01T00:00:00Z, or Unix seconds"))?;
    Ok(prost_types::Timestamp { seconds, nanos: 0 })
}

async fn list(mut client: Client, mut asked: ListDevicesRequest, as_json: bool) -> Result<(), Failure> {
    loop {
        let page = client.list_devices(asked.clone()).await?.into_inner();
        for device in &page.devices {
            if as_json {
                println!("{}", Value::Object(fields(device)));
            } else {
                let rest = fields(device).into_iter().filter(|(name, _)| name != "id");
                let rest: Vec<String> = rest.map(|(name, value)| format!("{name}={}", plain(&value))).collect();
                println!("{} {}", printable(&device.id), rest.join(" "));
            }
        }
        asked.page_token = page.next_page_token;
        if asked.page_token.is_empty() {
            return Ok(());
        }
    }
}

fn show(device: &Device) {
    for (name, value) in fields(device) {
        println!("{name:<15} {}", plain(&value));
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), printable)
}

/// What is known of a device, by the names of the store.
fn fields(device: &Device) -> Map<String, Value> {
    let known = [
        ("id", json!(device.id)),
        ("user", json!(device.user)),
        ("status", json!(device.status)),
        ("fingerprint", json!(device.fingerprint)),
        ("cert_sha256", json!(device.cert_sha256)),
        ("jkt", json!(device.jkt)),
        ("managed", json!(device.managed)),
        ("compliant", json!(device.compliant)),
        ("patch_level", json!(device.patch_level)),
        ("os", json!(device.os)),
        ("os_version", json!(device.os_version)),
        ("jailbroken", json!(device.jailbroken)),
        ("disk_encrypted", json!(device.disk_encrypted)),
        ("trust_score", json!(device.trust_score)),
        ("screen_lock", json!(device.screen_lock)),
        ("antivirus", json!(device.antivirus)),
        ("status_reason", json!(device.status_reason)),
        ("enrolled_at", json!(device.enrolled_at.as_ref().map(when))),
        ("checked_at", json!(device.checked_at.as_ref().map(when))),
        ("cert_expires_at", json!(device.cert_expires_at.as_ref().map(when))),
    ];
    let said = device.said.iter().map(|(name, value)| (name.as_str(), json!(value)));
    let known = known.into_iter().chain(said).filter(|(_, value)| !value.is_null());
    known.map(|(name, value)| (name.to_owned(), value)).collect()
}
