//! Envoy's CheckRequest, walked and borrowed: nothing is copied, nothing allocated for an ordinary request.
//!
//! Both header encodings are read into one list: the `headers` map (same-name lines joined by Envoy) and `header_map`
//! (one entry per line). Octets are not yet text here; whoever uses a value decides what a broken one means.

use smallvec::SmallVec;

use super::protobuf::{Malformed, walk};

/// What is read of an `envoy.service.auth.v3.CheckRequest`.
#[derive(Clone, Debug, Default)]
pub struct CheckView<'a> {
    pub source: PeerView<'a>,
    pub destination: PeerView<'a>,
    /// In its place from the start: it is large.
    http: HttpView<'a>,
    is_http: bool,
    /// `context_extensions` of the route, in the order of the wire.
    pub extensions: SmallVec<[(&'a [u8], &'a [u8]); 4]>,
}

/// One end of the connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerView<'a> {
    /// An IP address as text; empty for a Unix socket.
    pub address: &'a [u8],
    /// URI SAN, else DNS SAN, else subject of the peer certificate.
    pub principal: &'a [u8],
    /// URL-encoded PEM.
    pub certificate: &'a [u8],
}

#[derive(Clone, Debug, Default)]
pub struct HttpView<'a> {
    pub method: &'a [u8],
    /// With its query, undecoded, and as text: see [`HttpView::target`].
    pub path: &'a [u8],
    pub host: &'a [u8],
    pub scheme: &'a [u8],
    /// Names and values; a map entry that is written twice stands here twice, the later one counting.
    headers: SmallVec<[Header<'a>; 32]>,
    /// A bit for each [`tag`] there is: most of the names that are asked for are not there.
    seen: u64,
    /// There is a `header_map`.
    has_lines: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    /// Comes from `header_map`, where each line has an entry of its own.
    pub line: bool,
    /// The [`tag`] of its name.
    tag: u8,
}

impl<'a> CheckView<'a> {
    /// # Errors
    ///
    /// [`Malformed`] where the bytes are no CheckRequest.
    pub fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut view = Self::default();
        view.read(message)?;
        Ok(view)
    }

    /// As [`Self::parse`], into a view that nothing was read into yet: it is large, and is not moved again.
    ///
    /// # Errors
    ///
    /// [`Malformed`] where the bytes are no CheckRequest.
    pub fn read(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        walk(message, |field, value| match field {
            1 => self.attributes(value.bytes()?),
            _ => Ok(()),
        })
    }

    /// `None` for plain TCP.
    pub fn http(&self) -> Option<&HttpView<'a>> {
        self.is_http.then_some(&self.http)
    }

    /// The last value of a context extension.
    pub fn extension(&self, name: &str) -> Option<&'a [u8]> {
        self.extensions.iter().rev().find(|(key, _)| *key == name.as_bytes()).map(|(_, value)| *value)
    }

    fn attributes(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        walk(message, |field, value| match field {
            1 => self.source.read(value.bytes()?),
            2 => self.destination.read(value.bytes()?),
            4 => self.request(value.bytes()?),
            10 => {
                self.extensions.push(entry(value.bytes()?)?);
                Ok(())
            }
            _ => Ok(()),
        })
    }

    fn request(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        walk(message, |field, value| match field {
            2 => {
                self.is_http = true;
                self.http.read(value.bytes()?)
            }
            _ => Ok(()),
        })
    }
}

impl<'a> PeerView<'a> {
    fn read(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        walk(message, |field, value| match field {
            1 => walk(value.bytes()?, |field, value| match field {
                1 => self.socket_address(value.bytes()?),
                _ => Ok(()),
            }),
            4 => set(&mut self.principal, value.bytes()?),
            5 => set(&mut self.certificate, value.bytes()?),
            _ => Ok(()),
        })
    }

    fn socket_address(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        walk(message, |field, value| match field {
            2 => set(&mut self.address, value.bytes()?),
            _ => Ok(()),
        })
    }
}

impl<'a> HttpView<'a> {
    /// All values of a header, in the order of the wire. `name` is lower case.
    ///
    /// Of the `headers` map only the last entry of a name counts, as in any protobuf map.
    pub fn values(&self, name: &str) -> SmallVec<[&'a [u8]; 2]> {
        let mut values = SmallVec::new();
        if !self.may_hold(name) {
            return values;
        }
        let mut mapped = None;
        for header in self.named(name) {
            if header.line {
                values.push(header.value);
            } else {
                mapped = Some(header.value);
            }
        }
        values.extend(mapped);
        values
    }

    /// The last value of a header.
    pub fn value(&self, name: &str) -> Option<&'a [u8]> {
        if !self.may_hold(name) {
            return None;
        }
        self.named(name).next_back().map(|header| header.value)
    }

    /// The path with its query, octet by octet where Envoy sends it so (`encode_raw_headers`): in `path` it has replaced octets that
    /// are no UTF-8 by `!`, which is another path.
    pub fn target(&self) -> &'a [u8] {
        const PATH: &str = ":path";
        if !self.has_lines {
            return self.path;
        }
        self.named(PATH).rfind(|header| header.line).map_or(self.path, |header| header.value)
    }

    fn named(&self, name: &str) -> impl DoubleEndedIterator<Item = &Header<'a>> {
        let (wanted, name) = (tag(name.as_bytes()), name.as_bytes());
        self.headers.iter().filter(move |header| header.tag == wanted && header.name.eq_ignore_ascii_case(name))
    }

    pub fn headers(&self) -> &[Header<'a>] {
        &self.headers
    }

    fn may_hold(&self, name: &str) -> bool {
        self.seen & bit(tag(name.as_bytes())) != 0
    }

    fn push(&mut self, name: &'a [u8], value: &'a [u8], line: bool) {
        let tag = tag(name);
        self.seen |= bit(tag);
        self.headers.push(Header { name, value, line, tag });
    }

    fn read(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        walk(message, |field, value| match field {
            2 => set(&mut self.method, value.bytes()?),
            3 => {
                let (name, value) = entry(value.bytes()?)?;
                self.push(name, value, false);
                Ok(())
            }
            4 => set(&mut self.path, value.bytes()?),
            5 => set(&mut self.host, value.bytes()?),
            6 => set(&mut self.scheme, value.bytes()?),
            13 => walk(value.bytes()?, |field, value| match field {
                1 => self.line(value.bytes()?),
                _ => Ok(()),
            }),
            _ => Ok(()),
        })
    }

    /// An entry of `header_map`: `raw_value` with `encode_raw_headers`, else `value`.
    fn line(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        let (mut name, mut value, mut raw): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
        walk(message, |field, content| match field {
            1 => set(&mut name, content.bytes()?),
            2 => set(&mut value, content.bytes()?),
            3 => set(&mut raw, content.bytes()?),
            _ => Ok(()),
        })?;
        self.has_lines = true;
        self.push(name, if raw.is_empty() { value } else { raw }, true);
        Ok(())
    }
}

/// As Envoy writes an entry: a key of less than 128 octets, a value of less than 16 KiB, nothing else.
fn usual_entry(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x0a, length @ 0..0x80, rest @ ..] = message else { return None };
    let (key, rest) = rest.split_at_checked(usize::from(*length))?;
    let (length, value) = match rest {
        [0x12, length @ 0..0x80, value @ ..] => (usize::from(*length), value),
        [0x12, low, high @ 0..0x80, value @ ..] => (usize::from(low & 0x7f) | usize::from(*high) << 7, value),
        _ => return None,
    };
    (value.len() == length).then_some((key, value))
}

/// Equal for names that differ in case alone, and for few others.
#[inline]
fn tag(name: &[u8]) -> u8 {
    let first = name.first().map_or(0, u8::to_ascii_lowercase);
    (name.len() as u8).wrapping_mul(31) ^ first
}

#[inline]
const fn bit(tag: u8) -> u64 {
    1 << (tag & 63)
}

/// Key and value of a map entry.
fn entry(message: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    if let Some(found) = usual_entry(message) {
        return Ok(found);
    }
    let (mut key, mut content): (&[u8], &[u8]) = (&[], &[]);
    walk(message, |field, value| match field {
        1 => set(&mut key, value.bytes()?),
        2 => set(&mut content, value.bytes()?),
        _ => Ok(()),
    })?;
    Ok((key, content))
}

fn set<'a>(place: &mut &'a [u8], bytes: &'a [u8]) -> Result<(), Malformed> {
    *place = bytes;
    Ok(())
}
