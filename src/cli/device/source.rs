//! A file of devices, read line by line: JSON lines or CSV, bounded, with line numbers, resumable.

use std::io::{self, BufRead};

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::{Map, Value};

use super::assign;
use crate::wire::admin::Device;

/// Longest line that is read, in octets. A longer one is skipped and named, and never held in memory.
pub(super) const MAX_LINE: usize = 64 * 1024;

/// One line of the file.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    Device(Box<Device>),
    /// Empty, or the header.
    Nothing,
    /// What is wrong with it.
    Bad(String),
    /// The file ends in the middle of it: whoever writes the file is not done.
    Torn(String),
}

/// Where the reading stands: everything before is done.
#[derive(Clone)]
pub(super) struct Position {
    /// Lines read.
    pub(super) line: u64,
    /// Octets read.
    pub(super) offset: u64,
    /// Hash of all of them, to tell whether a file is still the one that was read.
    hash: Context,
    /// Column names, where it is CSV.
    columns: Option<Vec<String>>,
}

impl Position {
    pub(super) fn start() -> Self {
        Self { line: 0, offset: 0, hash: Context::new(&SHA256), columns: None }
    }

    pub(super) fn digest(&self) -> String {
        hex::encode(self.hash.clone().finish())
    }
}

/// Reads devices from `reader`.
pub(super) struct Source<R> {
    reader: R,
    csv: bool,
    pub(super) at: Position,
}

impl<R: BufRead> Source<R> {
    pub(super) fn new(reader: R, csv: bool) -> Self {
        Self { reader, csv, at: Position::start() }
    }

    /// Reads over what an earlier run imported.
    pub(super) fn skip_to(&mut self, line: u64) -> io::Result<bool> {
        while self.at.line < line {
            let Some(raw) = self.raw()? else { return Ok(false) };
            if self.csv && self.at.line == 1 {
                self.header(&raw);
            }
        }
        Ok(true)
    }

    /// The next line; `None` at the end of the file.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        let before = self.at.clone();
        let Some(raw) = self.raw()? else { return Ok(None) };
        let line = if self.csv && self.at.line == 1 { self.header(&raw) } else { self.read(&raw) };
        if !raw.whole && matches!(line, Line::Bad(_)) {
            self.at = before;
            let Line::Bad(why) = line else { return Ok(None) };
            return Ok(Some(Line::Torn(why)));
        }
        Ok(Some(line))
    }

    fn header(&mut self, raw: &Raw) -> Line {
        let names: Vec<String> = match raw.text().and_then(cells) {
            Ok(names) => names.iter().map(|name| name.trim().to_owned()).collect(),
            Err(why) => return Line::Bad(why),
        };
        if !names.iter().any(|name| name == "id") {
            return Line::Bad("the first line of a CSV file names its columns, and one of them is `id`".to_owned());
        }
        self.at.columns = Some(names);
        Line::Nothing
    }

    fn read(&self, raw: &Raw) -> Line {
        let text = match raw.text() {
            Ok(text) if text.trim().is_empty() => return Line::Nothing,
            Ok(text) => text,
            Err(why) => return Line::Bad(why),
        };
        let device = match &self.at.columns {
            Some(columns) => from_csv(columns, text),
            None if self.csv => Err("the file has no header".to_owned()),
            None => from_json(text),
        };
        match device {
            Ok(device) if device.id.is_empty() => Line::Bad("`id` is missing".to_owned()),
            Ok(device) => Line::Device(Box::new(device)),
            Err(why) => Line::Bad(why),
        }
    }

    /// One line, whole or cut at the limit.
    fn raw(&mut self) -> io::Result<Option<Raw>> {
        let mut raw = Raw { octets: Vec::new(), whole: false, length: 0 };
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                break;
            }
            let end = chunk.iter().position(|octet| *octet == b'\n');
            let taken = end.map_or(chunk.len(), |end| end + 1);
            let room = (MAX_LINE + 1).saturating_sub(raw.octets.len());
            raw.octets.extend_from_slice(&chunk[..taken.min(room)]);
            raw.length += taken;
            self.at.hash.update(&chunk[..taken]);
            self.reader.consume(taken);
            if end.is_some() {
                raw.whole = true;
                break;
            }
        }
        if raw.length == 0 {
            return Ok(None);
        }
        self.at.line += 1;
        self.at.offset += raw.length as u64;
        Ok(Some(raw))
    }
}

struct Raw {
    octets: Vec<u8>,
    /// It ends with a line feed.
    whole: bool,
    length: usize,
}

impl Raw {
    fn text(&self) -> Result<&str, String> {
        if self.length > MAX_LINE {
            return Err(format!("longer than {MAX_LINE} octets"));
        }
        let text = std::str::from_utf8(&self.octets).map_err(|_| "no UTF-8".to_owned())?;
        Ok(text.trim_start_matches('\u{FEFF}').trim_end_matches(['\r', '\n']))
    }
}

fn cells(text: &str) -> Result<Vec<String>, String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let record = reader.records().next().transpose().map_err(|_| "no CSV".to_owned())?;
    Ok(record.map(|record| record.iter().map(str::to_owned).collect()).unwrap_or_default())
}

fn from_csv(columns: &[String], text: &str) -> Result<Device, String> {
    if text.matches('"').count() % 2 == 1 {
        return Err("a quote is not closed: one device stands on one line".to_owned());
    }
    let cells = cells(text)?;
    if cells.len() != columns.len() {
        return Err(format!("{} columns, and the header has {}", cells.len(), columns.len()));
    }
    let mut device = Device::default();
    for (name, value) in columns.iter().zip(cells.iter().map(|cell| cell.trim())).filter(|(_, value)| !value.is_empty())
    {
        set(&mut device, name, value)?;
    }
    Ok(device)
}

fn from_json(text: &str) -> Result<Device, String> {
    let fields: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| format!("no JSON object (column {})", error.column()))?;
    let mut device = Device::default();
    for (name, value) in &fields {
        match value {
            Value::Null => {}
            Value::String(text) => set(&mut device, name, text)?,
            Value::Bool(_) | Value::Number(_) => set(&mut device, name, &value.to_string())?,
            Value::Array(_) | Value::Object(_) => return Err(format!("`{name}` is no single value")),
        }
    }
    Ok(device)
}

fn set(device: &mut Device, name: &str, value: &str) -> Result<(), String> {
    if name == "id" {
        value.clone_into(&mut device.id);
        return Ok(());
    }
    assign(device, name, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8], csv: bool) -> Vec<String> {
        let mut source = Source::new(text, csv);
        let mut lines = Vec::new();
        while let Some(line) = source.next().unwrap() {
            let (number, torn) = (source.at.line, matches!(line, Line::Torn(_)));
            lines.push(match line {
                Line::Device(device) => format!("{number} {} {}", device.id, device.user.unwrap_or_default()),
                Line::Nothing => continue,
                Line::Bad(why) => format!("{number} bad: {why}"),
                Line::Torn(why) => format!("after {number} torn: {why}"),
            });
            if torn {
                break;
            }
        }
        lines
    }

    #[test]
    fn a_bad_line_is_told_by_its_number_and_loses_nothing_else() {
        let long = "x".repeat(MAX_LINE);
        let text = format!(
            "{{\"id\":\"a\",\"user\":\"u\"}}\n\nnonsense\n{{\"id\":\"{long}\"}}\n{{\"user\":\"u\"}}\n{{\"id\":\"b\",\"colour\":1}}\n             {{\"id\":\"c\",\"managed\":true,\"compliant\":\"no\",\"trust_score\":0.7}}\r\n"
        );
        let lines = all(text.as_bytes(), false);
        assert_eq!(lines[0], "1 a u");
        assert_eq!(lines[1], "3 bad: no JSON object (column 2)");
        assert_eq!(lines[2], format!("4 bad: longer than {MAX_LINE} octets"));
        assert_eq!(lines[3], "5 bad: `id` is missing");
        assert_eq!(lines[4], "6 bad: `colour` is no field of a device");
        assert_eq!(lines[5], "7 c ");
    }

    #[test]
    fn csv_is_read_by_its_header() {
        let text = "\u{FEFF}id,user,managed\na,\"u, v\",true\nb,u\nc,\"u,true\nd,,\n";
        let lines = all(text.as_bytes(), true);
        assert_eq!(lines[0], "2 a u, v");
        assert_eq!(lines[1], "3 bad: 2 columns, and the header has 3");
        assert!(lines[2].starts_with("4 bad: a quote"), "{}", lines[2]);
        assert_eq!(lines[3], "5 d ");
        assert!(all(b"user\n", true)[0].contains("one of them is `id`"));
    }

    #[test]
    fn a_file_that_ends_in_the_middle_of_a_line_is_not_read_past_it() {
        let whole = b"{\"id\":\"a\"}\n{\"id\":\"b\"}\n";
        let half = &whole[..whole.len() - 5];
        let lines = all(half, false);
        assert!(lines[1].starts_with("after 1 torn"), "{lines:?}");
        let mut again = Source::new(&whole[..], false);
        let mut before = Source::new(half, false);
        before.next().unwrap();
        assert!(again.skip_to(1).unwrap());
        assert_eq!(again.at.digest(), before.at.digest());
        assert!(matches!(again.next().unwrap(), Some(Line::Device(device)) if device.id == "b"));
        // The last line may do without its line feed where it is whole without it.
        assert_eq!(all(b"{\"id\":\"a\"}", false), ["1 a "]);
    }
}
