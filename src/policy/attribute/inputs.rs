//! What attribute policies may read of a request, each value by name, and as the bytes of a memo's key.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use cedar_policy::RestrictedExpression;
use serde_json::Value as Json;

use super::reads::Reads;
use crate::{
    domain::{AuthMethod, Identity, Method, Permission, SubjectKind, Unavailable},
    policy::model::Resource,
};

/// One request as attribute policies see it.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub identity: &'a Identity,
    pub multi_factor: bool,
    pub resource: &'a Resource,
    /// With what the route adds.
    pub classification: Option<&'static str>,
    pub method: &'a Method,
    pub host: &'a str,
    pub path: &'a str,
    pub address: Option<IpAddr>,
    /// 0 to 10, rounded up.
    pub risk: i64,
    pub risk_level: &'static str,
    /// 0 to 100, rounded down.
    pub trust: i64,
    pub trust_level: &'static str,
    /// Or why the device cannot be told; then nothing is told of it.
    pub device: Result<&'static str, Unavailable>,
    pub device_managed: Option<bool>,
    pub device_compliant: Option<bool>,
    pub country: Option<&'a str>,
    /// Or why the place cannot be told; then its country cannot either.
    pub network: Result<&'static str, Unavailable>,
    pub encrypted: bool,
    pub signed: bool,
    pub justified: bool,
    /// 0 to 23, UTC.
    pub hour: i64,
}

/// A fact that policies read and that cannot be had just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untold {
    Place(Unavailable),
    Device(Unavailable),
}

/// Why a policy cannot be given what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lacking {
    /// A claim of a shape that Cedar has no word for.
    Claim,
    Fact(Untold),
}

/// A value that a policy may read.
#[derive(Debug)]
pub(super) enum Input<'a> {
    Flag(bool),
    Whole(i64),
    Text(&'a str),
    Address(IpAddr),
    Texts(Vec<&'a str>),
    Claim(&'a Json),
    Untold(Untold),
}

impl<'a> Question<'a> {
    pub(super) fn principal(&self, name: &str) -> Option<Input<'a>> {
        let identity = self.identity;
        Some(match name {
            "issuer" => Input::Text(identity.issuer.as_str()),
            "client" => Input::Text(identity.client_id.as_deref()?),
            "methods" => Input::Texts(identity.methods.iter().map(AuthMethod::as_str).collect()),
            "multi_factor" => Input::Flag(self.multi_factor),
            "scopes" => Input::Texts(identity.scopes.iter().map(|scope| &**scope).collect()),
            "permissions" => Input::Texts(identity.permissions.iter().map(Permission::as_str).collect()),
            // Issuers write `null` for what somebody does not have.
            claim => Input::Claim(identity.attributes.get(claim).filter(|value| !value.is_null())?),
        })
    }

    pub(super) fn resource(&self, name: &str) -> Option<Input<'a>> {
        Some(match name {
            "classification" => Input::Text(self.classification?),
            "permission" => Input::Text(self.resource.permission.as_deref()?),
            "policy" => Input::Text(self.resource.policy.as_ref()?.as_str()),
            _ => return None,
        })
    }

    pub(super) fn context(&self, name: &str) -> Option<Input<'a>> {
        Some(match name {
            "method" => Input::Text(self.method.as_str()),
            "host" => Input::Text(self.host),
            "path" => Input::Text(self.path),
            "address" => Input::Address(self.address?),
            "risk" => Input::Whole(self.risk),
            "risk_level" => Input::Text(self.risk_level),
            "trust" => Input::Whole(self.trust),
            "trust_level" => Input::Text(self.trust_level),
            "device" | "device_managed" | "device_compliant" | "country" | "network" => return self.looked_up(name),
            "encrypted" => Input::Flag(self.encrypted),
            "signed" => Input::Flag(self.signed),
            "justified" => Input::Flag(self.justified),
            "hour" => Input::Whole(self.hour),
            _ => return None,
        })
    }

    /// What comes from a look-up: its failure is no absence.
    fn looked_up(&self, name: &str) -> Option<Input<'a>> {
        Some(match (name, self.device, self.network) {
            ("country" | "network", _, Err(why)) => Input::Untold(Untold::Place(why)),
            ("country", ..) => Input::Text(self.country?),
            ("network", _, Ok(network)) => Input::Text(network),
            (_, Err(why), _) => Input::Untold(Untold::Device(why)),
            ("device_managed", ..) => Input::Flag(self.device_managed?),
            ("device_compliant", ..) => Input::Flag(self.device_compliant?),
            (_, Ok(device), _) => Input::Text(device),
        })
    }

    /// What of all that is read cannot be given.
    pub(super) fn lacking(&self, reads: &Reads) -> Option<Lacking> {
        let claims = reads.principal.iter().filter_map(|name| self.principal(name));
        claims.chain(reads.context.iter().filter_map(|name| self.context(name))).find_map(|input| input.lacking())
    }

    pub(super) const fn kind(&self) -> &'static str {
        match self.identity.kind {
            SubjectKind::Person => "User",
            SubjectKind::Service => "Service",
        }
    }
}

/// Names of all inputs, for policies that use a variable whole.
pub(super) const PRINCIPAL: [&str; 6] = ["issuer", "client", "methods", "multi_factor", "scopes", "permissions"];
pub(super) const RESOURCE: [&str; 3] = ["classification", "permission", "policy"];
pub(super) const CONTEXT: [&str; 17] = [
    "method",
    "host",
    "path",
    "address",
    "risk",
    "risk_level",
    "trust",
    "trust_level",
    "device",
    "device_managed",
    "device_compliant",
    "country",
    "network",
    "encrypted",
    "signed",
    "justified",
    "hour",
];

impl Input<'_> {
    /// Appends the value so that different values are different octets, wherever they stand.
    pub(super) fn write(input: Option<&Self>, key: &mut impl Extend<u8>) {
        match input {
            None => key.extend([0]),
            Some(Self::Flag(flag)) => key.extend([1, u8::from(*flag)]),
            Some(Self::Whole(number)) => {
                key.extend([2]);
                key.extend(number.to_be_bytes());
            }
            Some(Self::Text(text)) => {
                key.extend([3]);
                write_text(text, key);
            }
            Some(Self::Address(IpAddr::V4(address))) => {
                key.extend([4]);
                key.extend(address.octets());
            }
            Some(Self::Address(IpAddr::V6(address))) => {
                key.extend([5]);
                key.extend(address.octets());
            }
            Some(Self::Texts(texts)) => {
                key.extend([6]);
                key.extend((texts.len() as u64).to_be_bytes());
                texts.iter().for_each(|text| write_text(text, key));
            }
            Some(Self::Claim(json)) => {
                key.extend([7]);
                write_text(&json.to_string(), key);
            }
            Some(Self::Untold(Untold::Place(why))) => key.extend([8, *why as u8]),
            Some(Self::Untold(Untold::Device(why))) => key.extend([9, *why as u8]),
        }
    }

    fn lacking(&self) -> Option<Lacking> {
        match self {
            Self::Claim(json) if claim(json).is_none() => Some(Lacking::Claim),
            Self::Untold(fact) => Some(Lacking::Fact(*fact)),
            _ => None,
        }
    }

    /// As Cedar takes it. `None` where there is nothing to give: who reads it is not asked (see [`Question::lacking`]).
    pub(super) fn express(&self) -> Option<RestrictedExpression> {
        Some(match self {
            Self::Flag(flag) => RestrictedExpression::new_bool(*flag),
            Self::Whole(number) => RestrictedExpression::new_long(*number),
            Self::Text(text) => RestrictedExpression::new_string((*text).to_owned()),
            Self::Address(address) => RestrictedExpression::new_ip(address.to_string()),
            Self::Texts(texts) => RestrictedExpression::new_set(
                texts.iter().map(|text| RestrictedExpression::new_string((*text).to_owned())),
            ),
            Self::Claim(json) => claim(json)?,
            Self::Untold(_) => return None,
        })
    }
}

pub(super) fn write_text(text: &str, key: &mut impl Extend<u8>) {
    key.extend((text.len() as u64).to_be_bytes());
    key.extend(text.bytes());
}

fn claim(json: &Json) -> Option<RestrictedExpression> {
    Some(match json {
        Json::Bool(flag) => RestrictedExpression::new_bool(*flag),
        Json::Number(number) => RestrictedExpression::new_long(number.as_i64()?),
        Json::String(text) => RestrictedExpression::new_string(text.clone()),
        Json::Array(items) => RestrictedExpression::new_set(items.iter().map(claim).collect::<Option<Vec<_>>>()?),
        Json::Object(_) | Json::Null => return None,
    })
}

/// Attributes by name, as Cedar takes them.
pub(super) fn express<'a>(
    names: &[Arc<str>],
    read: impl Fn(&str) -> Option<Input<'a>>,
) -> BTreeMap<String, RestrictedExpression> {
    names.iter().filter_map(|name| Some((name.to_string(), read(name)?.express()?))).collect()
}
