//! JSON by RFC 8259, read letter by letter: no member twice, at most sixteen deep, nothing after it.

/// A value. Numbers as they are written.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// A member of an object.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// `None`: not exactly one value.
pub fn parse(text: &[u8]) -> Option<Json> {
    let mut reader = Reader { rest: text };
    let value = reader.value(0)?;
    reader.space();
    reader.rest.is_empty().then_some(value)
}

struct Reader<'t> {
    rest: &'t [u8],
}

impl Reader<'_> {
    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.rest.first() {
            self.rest = &self.rest[1..];
        }
    }

    fn take(&mut self, word: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        self.space();
        match self.rest.first()? {
            b'n' => self.take(b"null").map(|()| Json::Null),
            b't' => self.take(b"true").map(|()| Json::Bool(true)),
            b'f' => self.take(b"false").map(|()| Json::Bool(false)),
            b'"' => self.string().map(Json::Text),
            b'[' if depth < 16 => self.list(depth + 1),
            b'{' if depth < 16 => self.object(depth + 1),
            b'-' | b'0'..=b'9' => self.number(),
            _ => None,
        }
    }

    fn list(&mut self, depth: usize) -> Option<Json> {
        self.next()?;
        let mut items = Vec::new();
        self.space();
        if self.take(b"]").is_some() {
            return Some(Json::List(items));
        }
        loop {
            items.push(self.value(depth)?);
            self.space();
            match self.next()? {
                b',' => {}
                b']' => return Some(Json::List(items)),
                _ => return None,
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        self.next()?;
        let mut members: Vec<(String, Json)> = Vec::new();
        self.space();
        if self.take(b"}").is_some() {
            return Some(Json::Object(members));
        }
        loop {
            self.space();
            let name = self.string()?;
            self.space();
            self.take(b":")?;
            let value = self.value(depth)?;
            if members.iter().any(|(known, _)| *known == name) {
                return None;
            }
            members.push((name, value));
            self.space();
            match self.next()? {
                b',' => {}
                b'}' => return Some(Json::Object(members)),
                _ => return None,
            }
        }
    }

    fn number(&mut self) -> Option<Json> {
        let end = self.rest.iter().position(|c| !b"+-.eE0123456789".contains(c)).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        let text = std::str::from_utf8(text).ok()?;
        let digits = text.strip_prefix('-').unwrap_or(text);
        let whole = digits.split(['.', 'e', 'E']).next()?;
        let fraction = digits.split_once('.').map(|(_, rest)| rest.split(['e', 'E']).next().unwrap_or_default());
        let exponent = digits.split_once(['e', 'E']).map(|(_, rest)| rest.strip_prefix(['+', '-']).unwrap_or(rest));
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
        let right = all_digits(whole)
            && (whole == "0" || !whole.starts_with('0'))
            && fraction.is_none_or(all_digits)
            && exponent.is_none_or(all_digits);
        let number: f64 = text.parse().ok()?;
        (right && number.is_finite()).then_some(Json::Number(number))
    }

    fn string(&mut self) -> Option<String> {
        self.take(b"\"")?;
        let mut octets = Vec::new();
        loop {
            match self.next()? {
                b'"' => return String::from_utf8(octets).ok(),
                b'\\' => {
                    let c = self.escape()?;
                    octets.extend(c.to_string().bytes());
                }
                0..=0x1f => return None,
                octet => octets.push(octet),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        Some(match self.next()? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.unit()?;
                if (0xd800..0xdc00).contains(&first) {
                    self.take(b"\\u")?;
                    let second = self.unit()?;
                    return char::decode_utf16([first, second])
                        .next()?
                        .ok()
                        .filter(|_| (0xdc00..0xe000).contains(&second));
                }
                char::from_u32(u32::from(first))?
            }
            _ => return None,
        })
    }

    fn unit(&mut self) -> Option<u16> {
        let mut unit = 0;
        for _ in 0..4 {
            unit = unit * 16 + char::from(self.next()?).to_digit(16)? as u16;
        }
        Some(unit)
    }
}
