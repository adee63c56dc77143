//! Envoy's CheckResponse, written straight into a buffer.
//!
//! A nested message is written first and its length filled in afterwards; a length takes two octets (as a varint may)
//! unless the message is longer than those can say.

/// `HeaderValueOption.header`.
const HEADER: u8 = 1;

/// `append: {}` (false), for older Envoys, and `append_action: OVERWRITE_IF_EXISTS_OR_ADD`: Envoy 1.37 honours the
/// action, whose zero value appends to what the client sent.
const APPEND_NEVER: [u8; 4] = [2 << 3 | 2, 0, 3 << 3, 2];

/// A protobuf message being written.
#[derive(Debug)]
pub struct Writer<'b>(&'b mut Vec<u8>);

impl<'b> Writer<'b> {
    pub const fn new(buffer: &'b mut Vec<u8>) -> Self {
        Self(buffer)
    }

    /// Writes a varint field.
    pub fn number(&mut self, field: u8, value: u64) {
        self.0.push(field << 3);
        varint(self.0, value);
    }

    /// Writes a string or bytes field.
    pub fn bytes(&mut self, field: u8, value: &[u8]) {
        self.key(field, value.len());
        self.0.extend_from_slice(value);
    }

    /// Writes a nested message.
    pub fn nested(&mut self, field: u8, content: impl FnOnce(&mut Writer<'_>)) {
        self.0.push(field << 3 | 2);
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        content(&mut Writer(self.0));
        self.fill_length(at);
    }

    fn fill_length(&mut self, at: usize) {
        let length = self.0.len() - at - 2;
        if length < 1 << 14 {
            self.0[at] = (length & 0x7f) as u8 | 0x80;
            self.0[at + 1] = (length >> 7) as u8;
            return;
        }
        let mut octets = Vec::with_capacity(10);
        varint(&mut octets, length as u64);
        self.0.splice(at..at + 2, octets);
    }

    /// A `HeaderValueOption` in `field` that replaces whatever the client sent under `name`.
    ///
    /// Octets that no header may hold (controls, DEL) are left out of the value: Envoy answers 500 to them.
    pub fn header(&mut self, field: u8, name: &str, value: &[u8]) {
        // Without a way out in the middle: sixteen octets at a time.
        if value.iter().fold(true, |clean, octet| clean & is_header_octet(*octet)) {
            self.clean_header(field, name.as_bytes(), value);
        } else {
            let clean: Vec<u8> = value.iter().copied().filter(|octet| is_header_octet(*octet)).collect();
            self.clean_header(field, name.as_bytes(), &clean);
        }
    }

    /// All lengths are known beforehand: a header is most of what is written, a dozen to an answer.
    fn clean_header(&mut self, field: u8, name: &[u8], value: &[u8]) {
        let header = field_length(name.len()) + field_length(value.len());
        let option = field_length(header) + APPEND_NEVER.len();
        self.key(field, option);
        self.key(HEADER, header);
        self.bytes(1, name);
        self.bytes(2, value);
        self.0.extend_from_slice(&APPEND_NEVER);
    }

    /// The key and the length of what follows.
    #[inline]
    fn key(&mut self, field: u8, length: usize) {
        if length < 0x80 {
            self.0.extend_from_slice(&[field << 3 | 2, length as u8]);
        } else {
            self.0.push(field << 3 | 2);
            varint(self.0, length as u64);
        }
    }

    /// An entry of a `google.protobuf.Struct` whose value is text.
    pub fn text_entry(&mut self, key: &str, value: &[u8]) {
        let content = field_length(value.len());
        self.entry_of(key, content);
        self.key(2, content);
        self.bytes(3, value);
    }

    /// An entry of a `google.protobuf.Struct` whose value is a number.
    pub fn number_entry(&mut self, key: &str, value: f64) {
        const CONTENT: usize = 1 + size_of::<f64>();
        self.entry_of(key, CONTENT);
        self.0.extend_from_slice(&[2 << 3 | 2, CONTENT as u8, 2 << 3 | 1]);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// The beginning of an entry: its key, before a value of so many octets.
    fn entry_of(&mut self, key: &str, content: usize) {
        self.key(1, field_length(key.len()) + field_length(content));
        self.bytes(1, key.as_bytes());
    }

    /// An entry of a `google.protobuf.Struct` whose value is a list of texts.
    pub fn list_entry<'t>(&mut self, key: &str, values: impl Iterator<Item = &'t str>) {
        self.nested(1, |entry| {
            entry.bytes(1, key.as_bytes());
            entry.nested(2, |content| {
                content.nested(6, |list| {
                    for value in values {
                        list.nested(1, |item| item.bytes(3, value.as_bytes()));
                    }
                });
            });
        });
    }
}

const fn is_header_octet(octet: u8) -> bool {
    (octet >= 0x20) & (octet != 0x7f)
}

/// Octets of a field of so many octets, its key and length included. Keys here take one octet.
const fn field_length(length: usize) -> usize {
    let mut total = 2 + length;
    let mut rest = length >> 7;
    while rest > 0 {
        total += 1;
        rest >>= 7;
    }
    total
}

#[inline]
fn varint(buffer: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buffer.push(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.push(value as u8);
}
