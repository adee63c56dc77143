//! MaxMind-format databases: the few fields that decisions read, and nothing that can bring the process down.

use std::{fs, net::IpAddr, path::Path, sync::Arc};

use maxminddb::{MaxMindDbError, Reader};
use serde::Deserialize;

/// Largest file that is read into memory, in octets.
const MAX_DATABASE: u64 = 1 << 30;

/// One database, whole in memory: a file that changes under a mapping would be undefined behaviour, a read one is not.
#[derive(Debug)]
pub(super) struct Database(Reader<Vec<u8>>);

/// What kind of database a file must be, by the words that its type may hold.
pub(super) const CITY: &[&str] = &["City", "Country", "Enterprise"];
pub(super) const ASN: &[&str] = &["ASN", "ISP", "Enterprise"];
pub(super) const ANONYMOUS: &[&str] = &["Anonymous"];

/// Why a file is of no use; for the operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("is larger than {MAX_DATABASE} octets")]
    TooLarge,
    #[error("is no MaxMind-format database, or a damaged one: {0}")]
    Format(#[from] MaxMindDbError),
    #[error("is a `{found}` database; wanted one of: {wanted}")]
    Kind { found: String, wanted: String },
}

/// From a City or Country database.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CityRow<'a> {
    #[serde(borrow)]
    pub(super) country: CountryRow<'a>,
    #[serde(borrow)]
    pub(super) city: NamesRow<'a>,
    pub(super) location: PositionRow,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CountryRow<'a> {
    #[serde(borrow)]
    pub(super) iso_code: Option<&'a str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NamesRow<'a> {
    #[serde(borrow)]
    pub(super) names: EnglishRow<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct EnglishRow<'a> {
    #[serde(borrow)]
    pub(super) en: Option<&'a str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PositionRow {
    pub(super) latitude: Option<f64>,
    pub(super) longitude: Option<f64>,
    pub(super) accuracy_radius: Option<u16>,
}

/// From an ASN or ISP database, or an Enterprise one, which has it among the traits.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AsnRow {
    autonomous_system_number: Option<u32>,
    traits: TraitsRow,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TraitsRow {
    autonomous_system_number: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AnonymousRow {
    pub(super) is_anonymous: bool,
    pub(super) is_anonymous_vpn: bool,
    pub(super) is_hosting_provider: bool,
    pub(super) is_public_proxy: bool,
    pub(super) is_residential_proxy: bool,
    pub(super) is_tor_exit_node: bool,
}

impl Database {
    /// Reads a file and looks into it in a few places, so that a damaged one is found now rather than by a request.
    pub(super) fn open(path: &Path, wanted: &[&str]) -> Result<Self, Error> {
        if fs::metadata(path)?.len() > MAX_DATABASE {
            return Err(Error::TooLarge);
        }
        let reader = Reader::from_source(fs::read(path)?)?;
        let found = &reader.metadata().database_type;
        if !wanted.iter().any(|word| found.contains(word)) {
            return Err(Error::Kind { found: found.clone(), wanted: wanted.join(", ") });
        }
        let database = Self(reader);
        for address in [[1, 1, 1, 1], [8, 8, 8, 8], [81, 2, 69, 142], [203, 0, 113, 1]] {
            database.look_up::<serde::de::IgnoredAny>(IpAddr::from(address))?;
        }
        Ok(database)
    }

    /// The row of an address; `None`: it has none.
    pub(super) fn look_up<'a, T: Deserialize<'a>>(&'a self, address: IpAddr) -> Result<Option<T>, MaxMindDbError> {
        if address.is_ipv6() && self.0.metadata().ip_version == 4 {
            return Ok(None);
        }
        self.0.lookup(address)?.decode()
    }
}

impl AsnRow {
    pub(super) fn number(&self) -> Option<u32> {
        self.autonomous_system_number.or(self.traits.autonomous_system_number)
    }
}

impl CityRow<'_> {
    pub(super) fn country(&self) -> Option<Arc<str>> {
        self.country.iso_code.map(Into::into)
    }

    pub(super) fn city(&self) -> Option<Arc<str>> {
        self.city.names.en.map(Into::into)
    }

    /// Degrees that are on the globe.
    pub(super) fn position(&self) -> Option<(f64, f64)> {
        let position = self.location.latitude.zip(self.location.longitude)?;
        (position.0.abs() <= 90.0 && position.1.abs() <= 180.0).then_some(position)
    }
}
