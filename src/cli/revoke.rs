//! `countersign revoke`: takes access back, at once, on every replica; or takes the revocation back.

use std::{process::ExitCode, time::Duration};

use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};
use tonic::Code;

use super::client::{self, Client, Connection, Failure};
use crate::{
    domain::{Span, UnixTime},
    wire::admin::{GetDeviceRequest, Kind, ListRevocationsRequest, ReinstateRequest, Revocation, RevokeRequest},
};

/// Revoke a token, a session, a subject or a device; or take a revocation back
///
/// Takes effect on every replica within milliseconds. Examples:
///
///   countersign revoke token 5f1c… --reason 'lost laptop'
///   countersign revoke subject alice            every token of hers issued until now
///   countersign revoke subject alice --undo
///   countersign revoke --list
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Revoke {
    /// What is revoked.
    #[arg(value_enum, required_unless_present = "list")]
    kind: Option<KindName>,
    /// The token's `jti`, the session's `sid`, the subject's `sub`, or the device's id.
    #[arg(required_unless_present = "list", value_parser = NonEmptyStringValueParser::new())]
    id: Option<String>,
    /// For the record: who asked, which ticket.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// How long it is kept, such as `12h`. Default: as long as such a token can live; a device's for good.
    #[arg(long, value_name = "TIME", value_parser = life, conflicts_with = "undo")]
    r#for: Option<Span>,
    /// Take the revocation back.
    #[arg(long)]
    undo: bool,
    /// List what is revoked, all or of one kind.
    #[arg(long, conflicts_with_all = ["undo", "for", "id"])]
    list: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindName {
    #[value(alias = "jti")]
    Token,
    #[value(alias = "sid")]
    Session,
    #[value(alias = "sub")]
    Subject,
    Device,
}

impl From<KindName> for Kind {
    fn from(name: KindName) -> Self {
        match name {
            KindName::Token => Self::Token,
            KindName::Session => Self::Session,
            KindName::Subject => Self::Subject,
            KindName::Device => Self::Device,
        }
    }
}

impl Revoke {
    pub(super) fn run(self) -> ExitCode {
        client::run(async {
            match (self.list, self.kind, &self.id) {
                (true, kind, _) => self.list(kind).await,
                (false, Some(kind), Some(id)) if self.undo => self.undo(kind, id).await,
                (false, Some(kind), Some(id)) => self.revoke(kind, id).await,
                (false, ..) => Err(Failure::usage("what is revoked? See `countersign revoke --help`")),
            }
        })
    }

    async fn revoke(&self, kind: KindName, id: &str) -> Result<(), Failure> {
        let life = match self.r#for {
            Some(life) => Some(life.get().try_into().map_err(|_| Failure::usage("`--for` is too long"))?),
            None => None,
        };
        let kind = Kind::from(kind).into();
        let asked = RevokeRequest { kind, id: id.to_owned(), reason: self.reason.clone(), life };
        let answer = self.connection.connect().await?.revoke(asked).await?.into_inner();
        println!("revoked: {}", answer.revocation.map(|entry| spoken(&entry)).unwrap_or_default());
        Ok(())
    }

    async fn undo(&self, kind: KindName, id: &str) -> Result<(), Failure> {
        let asked = ReinstateRequest { kind: Kind::from(kind).into(), id: id.to_owned(), reason: self.reason.clone() };
        let mut client = self.connection.connect().await?;
        let answer = client.reinstate(asked).await?.into_inner();
        let word = if answer.was_revoked { "reinstated" } else { "was not revoked" };
        println!("{word}: {} {id}", name(kind.into()));
        if let (KindName::Device, Some(status)) = (kind, status(&mut client, id).await?) {
            print!("{}", still_out(id, &status));
        }
        Ok(())
    }

    async fn list(&self, kind: Option<KindName>) -> Result<(), Failure> {
        let mut client = self.connection.connect().await?;
        let kind = kind.map_or(0, |kind| Kind::from(kind).into());
        let mut asked = ListRevocationsRequest { kind, page_size: 1000, ..ListRevocationsRequest::default() };
        loop {
            let page = client.list_revocations(asked.clone()).await?.into_inner();
            page.revocations.iter().for_each(|entry| println!("{}", spoken(entry)));
            asked.page_token = page.next_page_token;
            if asked.page_token.is_empty() {
                return Ok(());
            }
        }
    }
}

/// What a device's own record says of it, where it has one.
async fn status(client: &mut Client, id: &str) -> Result<Option<String>, Failure> {
    match client.get_device(GetDeviceRequest { id: id.to_owned() }).await {
        Ok(device) => Ok(device.into_inner().status),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}

/// A device has two locks: the revocation, which this command takes back, and the status of its record. Empty: neither holds.
fn still_out(id: &str, status: &str) -> String {
    if status == "active" {
        return String::new();
    }
    format!("its record says `{status}`, so it is still refused: `countersign device activate {id}` takes that back\n")
}

/// As the server takes it.
fn life(text: &str) -> Result<Span, String> {
    let life = Span::parse(text)?;
    if life.get() < Duration::from_secs(1) { Err("must be at least 1s".to_owned()) } else { Ok(life) }
}

const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Unspecified => "?",
        Kind::Token => "token",
        Kind::Session => "session",
        Kind::Subject => "subject",
        Kind::Device => "device",
    }
}

fn spoken(entry: &Revocation) -> String {
    let mut text = format!("{} {}", name(entry.kind()), printable(&entry.id));
    if let Some(time) = &entry.issued_until {
        text.push_str(&format!(", tokens issued until {}", when(time)));
    }
    match &entry.expires {
        Some(time) => text.push_str(&format!(", kept until {}", when(time))),
        None => text.push_str(", kept for good"),
    }
    if !entry.reason.is_empty() {
        text.push_str(&format!(": {}", printable(&entry.reason)));
    }
    text
}

/// What others wrote, on a terminal: without control characters.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

/// A time as people and scripts both read it.
pub(super) fn when(time: &prost_types::Timestamp) -> String {
    let seconds = u64::try_from(time.seconds).unwrap_or_default();
    jiff::Timestamp::from_second(i64::try_from(UnixTime::from_secs(seconds).as_secs()).unwrap_or_default())
        .map_or_else(|_| format!("@{seconds}"), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        revoke: Revoke,
    }

    #[test]
    fn what_the_server_would_refuse_is_bad_usage_here() {
        for wrong in [&["token", ""][..], &["token", "t", "--for", "0s"], &["token", "t", "--for", "999ms"]] {
            assert!(Line::try_parse_from([&["revoke"], wrong].concat()).is_err(), "{wrong:?}");
        }
        let line = Line::try_parse_from(["revoke", "token", "t", "--for", "12h"]).unwrap();
        assert_eq!(line.revoke.r#for.unwrap().get(), Duration::from_secs(12 * 3600));
    }

    #[test]
    fn who_takes_the_revocation_of_a_device_back_is_told_what_still_keeps_it_out() {
        assert_eq!(still_out("d1", "active"), "");
        let told = still_out("d1", "revoked");
        assert!(told.contains("says `revoked`") && told.contains("`countersign device activate d1`"), "{told}");
    }
}
