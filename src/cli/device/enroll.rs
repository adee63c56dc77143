//! `countersign device code | enroll | renew | posture`.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    super::{
        client::{Connection, Failure},
        revoke::when,
    },
    assign, show,
};
use crate::{
    domain::Span,
    wire::admin::{
        CreateEnrollmentCodeRequest, Device, EnrollRequest, Enrolled, Posture, RenewRequest, UpdatePostureRequest,
    },
};

#[derive(Debug, Subcommand)]
pub(super) enum EnrollAction {
    /// Make a one-time code with which an agent enrols one device of a user (`POST /devices/enroll`).
    ///
    /// The code is printed once and kept nowhere but as a hash.
    Code {
        /// Whose device it will be: the `sub` of their tokens.
        #[arg(long)]
        user: String,
        /// The id that the device gets. Default: one is made.
        #[arg(long, value_name = "ID")]
        device: Option<String>,
        /// How long the code works (`15m`). Default: as the server is configured.
        #[arg(long, value_name = "TIME", value_parser = Span::parse)]
        life: Option<Span>,
        /// One JSON object.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Enrol a device on your own word: check its posture, sign its certificate request, write its record.
    Enroll {
        /// Whose device it is: the `sub` of their tokens.
        #[arg(long)]
        user: String,
        /// The id of the device. Default: one is made.
        #[arg(long, value_name = "ID")]
        device: Option<String>,
        #[command(flatten)]
        request: Signing,
        #[command(flatten)]
        connection: Connection,
    },
    /// Sign a new certificate request of an enrolled device.
    Renew {
        /// The device's id.
        id: String,
        #[command(flatten)]
        request: Signing,
        #[command(flatten)]
        connection: Connection,
    },
    /// Tell what was found out about a device; the server judges it by its requirements.
    Posture {
        /// The device's id.
        id: String,
        #[command(flatten)]
        posture: Told,
        #[command(flatten)]
        connection: Connection,
    },
}

/// A certificate request and where the certificate goes.
#[derive(Debug, Args)]
pub(super) struct Signing {
    /// PEM file: the certificate request (PKCS#10) of the device; `-`: standard input.
    #[arg(long, value_name = "FILE")]
    csr: PathBuf,
    /// Where the certificate is written. Default: standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    posture: Told,
}

/// What is known of a device.
#[derive(Debug, Args)]
pub(super) struct Told {
    /// What is known of the device: managed, disk_encrypted, screen_lock, antivirus, jailbroken, os, os_version,
    /// patch_level (`--set os=macos --set jailbroken=false`).
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    set: Vec<String>,
}

impl EnrollAction {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Code { user, device, life, json, connection } => {
                let life = life.map(|life| prost_types::Duration {
                    seconds: i64::try_from(life.get().as_secs()).unwrap_or(i64::MAX),
                    nanos: 0,
                });
                let asked = CreateEnrollmentCodeRequest { user, device_id: device.unwrap_or_default(), life };
                let made = connection.connect_fleet().await?.create_enrollment_code(asked).await?.into_inner();
                let expires = made.expires.as_ref().map(when).unwrap_or_default();
                if json {
                    println!("{}", json!({"code": made.code, "expires": expires}));
                } else {
                    println!("{}", made.code);
                    eprintln!("works once, until {expires}");
                }
            }
            Self::Enroll { user, device, request, connection } => {
                let (csr, posture) = (request.csr()?, request.posture.read()?);
                let asked = EnrollRequest { user, device_id: device.unwrap_or_default(), posture, csr };
                let enrolled = connection.connect_fleet().await?.enroll(asked).await?.into_inner();
                request.hand_out(&enrolled)?;
            }
            Self::Renew { id, request, connection } => {
                let (csr, posture) = (request.csr()?, request.posture.read()?);
                let asked = RenewRequest { device_id: id, posture, csr };
                let enrolled = connection.connect_fleet().await?.renew(asked).await?.into_inner();
                request.hand_out(&enrolled)?;
            }
            Self::Posture { id, posture, connection } => {
                let asked = UpdatePostureRequest { device_id: id, posture: posture.read()? };
                let result = connection.connect_fleet().await?.update_posture(asked).await?.into_inner();
                result.device.iter().for_each(show);
                for issue in &result.issues {
                    println!("not compliant: {} ({}): {}", issue.message, issue.code, issue.remediation);
                }
            }
        }
        Ok(())
    }
}

impl Signing {
    fn csr(&self) -> Result<String, Failure> {
        read(&self.csr).map_err(|error| Failure::usage(format!("{} cannot be read: {error}", self.csr.display())))
    }

    fn hand_out(&self, enrolled: &Enrolled) -> Result<(), Failure> {
        if let Some(device) = &enrolled.device {
            let expires = enrolled.expires.as_ref().map(when).unwrap_or_default();
            let renew = enrolled.renew_after.as_ref().map(when).unwrap_or_default();
            eprintln!("{}: certificate until {expires}; renew it after {renew}", device.id);
        }
        match &self.out {
            None => print!("{}", enrolled.certificate),
            Some(path) => fs::write(path, &enrolled.certificate)
                .map_err(|error| Failure::failed(format!("{} cannot be written: {error}", path.display())))?,
        }
        Ok(())
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    if path != Path::new("-") {
        return fs::read_to_string(path);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

impl Told {
    fn read(&self) -> Result<Option<Posture>, Failure> {
        let mut device = Device::default();
        for assignment in &self.set {
            let (field, value) =
                assignment.split_once('=').filter(|(field, _)| POSTURE.contains(field)).ok_or_else(|| {
                    Failure::usage(format!("`{assignment}` is not FIELD=VALUE of {}", POSTURE.join(", ")))
                })?;
            assign(&mut device, field, value).map_err(Failure::usage)?;
        }
        Ok(Some(Posture {
            managed: device.managed,
            disk_encrypted: device.disk_encrypted,
            screen_lock: device.screen_lock,
            antivirus: device.antivirus,
            jailbroken: device.jailbroken,
            os: device.os,
            os_version: device.os_version,
            patch_level: device.patch_level,
        }))
    }
}

const POSTURE: [&str; 8] =
    ["managed", "disk_encrypted", "screen_lock", "antivirus", "jailbroken", "os", "os_version", "patch_level"];
