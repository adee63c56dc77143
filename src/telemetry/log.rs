//! Log lines: JSON on standard error, one event each. What a caller sent can neither begin a line nor steer a terminal,
//! and a long text is cut. Never the place for a decision's details: those are audit records.

use std::{
    fmt,
    io::{self, Write},
};

use serde_json::{Map, Value};
use tracing::{Event, Level, Subscriber, field::Field};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, ParseError, Targets},
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

use super::{LogSettings, audit::rfc3339};
use crate::clock::Clock;

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "`{level}` is neither a log level (error, warn, info, debug, trace, off) nor a list such as `info,hyper=warn`"
    )]
    Level { level: String },
    #[error("the variable RUST_LOG says `{level}`, which is no list such as `info,hyper=warn`: {source}")]
    Variable { level: String, source: ParseError },
    #[error("logging was begun before")]
    Twice,
}

/// Makes this process's log lines. Once, by `main`; a library user who has a subscriber of their own leaves it out.
///
/// # Errors
///
/// Where the level is none, or a subscriber is set already.
pub fn init(settings: &LogSettings, clock: Clock) -> Result<(), Error> {
    let asked = std::env::var("RUST_LOG").ok().map(|text| of_variable(&text)).transpose()?.flatten();
    let targets = asked.map_or_else(|| filter(settings), Ok)?;
    let layer = JsonLines::new(settings, clock, io::stderr);
    tracing_subscriber::registry().with(layer.with_filter(targets)).try_init().map_err(|_| Error::Twice)
}

/// What the variable `RUST_LOG` asks for, read as other programs read it, since it may be meant for them: a word that is no
/// level is a target, all of it. `None` where it is empty.
///
/// # Errors
///
/// Where it cannot be read so.
pub fn of_variable(text: &str) -> Result<Option<Targets>, Error> {
    let asked = listed(text).filter(|directive| !directive.is_empty()).collect::<Vec<_>>().join(",");
    if asked.is_empty() {
        return Ok(None);
    }
    let asked = muted(&asked).map_err(|source| Error::Variable { level: clean(text, MAX_QUOTED), source })?;
    Ok(Some(asked))
}

/// Libraries that repeat at each attempt what we say once, or that tell every write below a watched folder, to this log as
/// well where it lies there; and how loud they may be unless the level names them.
const MUTED: [(&str, LevelFilter); 2] = [("redis", LevelFilter::ERROR), ("notify", LevelFilter::WARN)];

/// How much of a variable an error repeats.
const MAX_QUOTED: usize = 200;

/// Stricter than the library, to which a mistyped level is the name of a target.
pub(super) fn filter(settings: &LogSettings) -> Result<Targets, Error> {
    let bad = || Error::Level { level: settings.level.clone() };
    let levels = ["error", "warn", "info", "debug", "trace", "off"];
    let known = |word: &str| levels.iter().any(|level| level.eq_ignore_ascii_case(word));
    let whole = listed(&settings.level).all(|directive| match directive.split_once('=') {
        Some((target, level)) => !target.is_empty() && known(level),
        None => known(directive),
    });
    if !whole {
        return Err(bad());
    }
    muted(&listed(&settings.level).collect::<Vec<_>>().join(",")).map_err(|_| bad())
}

fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

fn muted(level: &str) -> Result<Targets, ParseError> {
    let asked: Targets = level.parse()?;
    let muted = MUTED.into_iter().filter(|(name, _)| {
        asked.default_level().is_some_and(|level| level > LevelFilter::ERROR) && !level.contains(name)
    });
    Ok(muted.fold(asked.clone(), |targets, (name, level)| targets.with_target(name, level)))
}

/// Writes each event as one JSON line, whole, with one write.
pub struct JsonLines<W> {
    clock: Clock,
    max_field: usize,
    out: W,
}

impl<W> fmt::Debug for JsonLines<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonLines").field("max_field", &self.max_field).finish_non_exhaustive()
    }
}

impl<W> JsonLines<W> {
    /// `out` makes a writer for each line.
    pub fn new(settings: &LogSettings, clock: Clock, out: W) -> Self {
        Self { clock, max_field: settings.max_field.max(16), out }
    }
}

impl<S, W, O> Layer<S> for JsonLines<W>
where
    S: Subscriber,
    W: Fn() -> O + 'static,
    O: Write,
{
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields { fields: Map::new(), max: self.max_field };
        fields.text("time", &rfc3339(self.clock.now()));
        fields.text("level", level(*event.metadata().level()));
        event.record(&mut fields);
        fields.text("target", event.metadata().target());
        if let Ok(mut line) = serde_json::to_vec(&fields.fields) {
            line.push(b'\n');
            // A log that cannot be written must not fail what it tells of.
            let _ = (self.out)().write_all(&line);
        }
    }
}

const fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// Fields of one event. The first of a name stands: an event cannot overwrite its time or level.
struct Fields {
    fields: Map<String, Value>,
    max: usize,
}

impl Fields {
    fn text(&mut self, name: &str, text: &str) {
        let text = clean(text, self.max);
        self.value(name, text.into());
    }

    /// Libraries that log without spans bring their own target, and places in their source that tell nobody anything.
    fn value(&mut self, name: &str, value: Value) {
        let name = match name {
            "log.target" => "target",
            "log.module_path" | "log.file" | "log.line" => return,
            name => name,
        };
        self.fields.entry(name).or_insert(value);
    }
}

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field.name(), &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    /// With what caused it: `chained: like: this`.
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        self.text(field.name(), &text);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.value(field.name(), value.into());
    }
}

/// `text` without anything that a terminal or a line reader acts on, and no longer than `max` characters. Control and format
/// characters become `\u{..}`: visible, and harmless also to readers that take JSON escapes back.
pub fn clean(text: &str, max: usize) -> String {
    let mut cleaned = String::with_capacity(text.len().min(max));
    for (count, c) in text.chars().enumerate() {
        if count == max {
            cleaned.push('…');
            break;
        }
        if c.is_control() || is_format(c) {
            cleaned.extend(c.escape_unicode());
        } else {
            cleaned.push(c);
        }
    }
    cleaned
}

/// Line and paragraph separators, and what turns text round or hides in it.
const fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(settings: &LogSettings, what: impl FnOnce()) -> String {
        let lines = Lines::default();
        let out = lines.clone();
        let layer =
            JsonLines::new(settings, Clock::system(), move || out.clone()).with_filter(filter(settings).unwrap());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), what);
        String::from_utf8(lines.0.lock().clone()).unwrap()
    }

    #[test]
    fn what_a_caller_sends_cannot_forge_a_line_or_steer_a_terminal() {
        let hostile = "a\r\n{\"level\":\"info\",\"message\":\"forged\"}\u{1b}[2J\u{9b}31m\u{202e}\u{2028}\0";
        let text = logged(&LogSettings::default(), || {
            tracing::warn!(subject = hostile, path = %hostile, agent = ?hostile, "refused {hostile}");
        });
        assert_eq!(text.lines().count(), 1);
        assert!(!text.trim_end().chars().any(|c| c.is_control() || is_format(c)), "{text:?}");
        let line: Value = serde_json::from_str(&text).unwrap();
        for field in ["subject", "path", "agent", "message"] {
            let value = line[field].as_str().unwrap();
            assert!(value.contains("forged") && !value.contains('\n') && !value.contains('\u{1b}'), "{value:?}");
        }
        assert_eq!(line["level"], "warn");
    }

    #[test]
    fn a_long_text_is_cut_and_the_cut_is_marked() {
        let settings = LogSettings { max_field: 16, ..LogSettings::default() };
        let text = logged(&settings, || tracing::info!(path = "/é".repeat(5000), "long"));
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["path"], "/é/é/é/é/é/é/é/é…");
        assert!(text.len() < 300);
    }

    #[test]
    fn an_event_cannot_overwrite_its_own_level() {
        let text = logged(&LogSettings::default(), || tracing::error!(level = "info", time = "never", "bad"));
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "error");
        assert_ne!(line["time"], "never");
    }

    #[test]
    fn the_level_decides_what_is_written() {
        let settings = LogSettings { level: "warn,countersign=debug".into(), ..LogSettings::default() };
        let text = logged(&settings, || {
            tracing::debug!("ours");
            tracing::info!(target: "hyper", "theirs");
        });
        assert!(text.contains("ours") && !text.contains("theirs"));
        for level in ["", "loud", "loud=", "=info", "info,loud", "info,hyper=loud", "infodebug"] {
            let settings = LogSettings { level: level.into(), ..LogSettings::default() };
            assert!(matches!(filter(&settings), Err(Error::Level { .. })), "{level}");
        }
    }

    #[test]
    fn levels_are_read_in_any_case_and_with_spaces_between_them() {
        let settings = LogSettings { level: "WARN, countersign=Debug".into(), ..LogSettings::default() };
        let targets = filter(&settings).unwrap();
        assert!(targets.would_enable("countersign::app", &Level::DEBUG) && !targets.would_enable("h2", &Level::INFO));
    }

    #[test]
    fn the_variable_is_read_as_other_programs_read_it() {
        let asked = |text: &str, target: &str, level: &Level| {
            of_variable(text).unwrap().is_some_and(|targets| targets.would_enable(target, level))
        };
        assert!(asked("INFO", "countersign::app", &Level::INFO) && !asked("INFO", "countersign::app", &Level::DEBUG));
        assert!(asked("countersign", "countersign::app", &Level::TRACE) && !asked("countersign", "h2", &Level::ERROR));
        assert!(asked("warn, h2=debug,", "h2", &Level::DEBUG));
        assert!(!asked("info", "redis::cluster", &Level::WARN), "muted as ever");
        assert!(of_variable(" ").unwrap().is_none());
        let said = of_variable("info,h2=loud").unwrap_err().to_string();
        assert!(said.contains("the variable RUST_LOG says `info,h2=loud`"), "{said}");
    }

    #[test]
    fn the_watcher_of_folders_is_heard_only_by_name() {
        let heard = |level: &str| {
            let settings = LogSettings { level: level.into(), ..LogSettings::default() };
            logged(&settings, || tracing::trace!(target: "notify::inotify", "written"))
        };
        assert_eq!(heard("trace"), "");
        assert!(heard("info,notify=trace").contains("written"));
    }

    #[test]
    fn an_error_is_told_with_what_caused_it() {
        let error = super::super::audit::Error::Sink(io::Error::other("disk on fire"));
        let text = logged(&LogSettings::default(), || tracing::error!(error = &error as &dyn std::error::Error, "no"));
        assert!(text.contains("audit: cannot write records: disk on fire"), "{text}");
    }

    #[test]
    fn libraries_that_repeat_themselves_are_quiet_unless_somebody_asks() {
        let enabled = |level: &str, target: &str, what: &Level| {
            let settings = LogSettings { level: level.to_owned(), ..LogSettings::default() };
            filter(&settings).unwrap().would_enable(target, what)
        };
        assert!(!enabled("info", "redis::cluster", &Level::WARN) && enabled("info", "redis::cluster", &Level::ERROR));
        assert!(enabled("info", "countersign::store::redis::link", &Level::INFO));
        assert!(enabled("info,redis=debug", "redis::cluster", &Level::DEBUG));
        assert!(!enabled("off", "redis::cluster", &Level::ERROR));
    }
}
