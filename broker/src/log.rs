//! The log: one line an event, to standard error, as text or JSON.
//!
//! Callers use the `tracing` macros. The message says what happened and what to do; everything variable is a field.
//! Passwords, tokens and payloads are never logged: nothing that holds one has a `Debug` form that shows it.

use crate::config::{Log, LogFormat, LogLevel};
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::metadata::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber, span};

static LEVEL: AtomicU8 = AtomicU8::new(3);

/// Starts the log. A second call only sets the level.
pub fn start(log: &Log) {
    set_level(log.level);
    let _ = tracing::subscriber::set_global_default(Lines { format: log.format });
}

/// Changes what is worth a line, from now on.
pub fn set_level(level: LogLevel) {
    LEVEL.store(level as u8, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

fn filter() -> LevelFilter {
    match LEVEL.load(Ordering::Relaxed) {
        0 => LevelFilter::OFF,
        1 => LevelFilter::ERROR,
        2 => LevelFilter::WARN,
        3 => LevelFilter::INFO,
        4 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

/// Writes each event as one line. Spans are not used here and cost nothing.
struct Lines {
    format: LogFormat,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What libraries find worth a line at their lower levels is about them, not about the broker.
        let is_ours = metadata.target().starts_with("parlor") || *metadata.level() <= Level::WARN;
        metadata.is_event() && is_ours && *metadata.level() <= filter()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(filter())
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = match self.format {
            LogFormat::Text => text_line(SystemTime::now(), event),
            LogFormat::Json => json_line(SystemTime::now(), event),
        };
        line.push('\n');
        // Nobody to tell when standard error is closed.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn text_line(now: SystemTime, event: &Event<'_>) -> String {
    let mut fields = TextFields::default();
    event.record(&mut fields);
    let level = level_name(*event.metadata().level()).to_ascii_uppercase();
    format!("{} {level:5} {}{}", Timestamp(now), fields.message, fields.rest)
}

fn json_line(now: SystemTime, event: &Event<'_>) -> String {
    let mut fields = JsonFields(serde_json::Map::new());
    fields.0.insert("time".into(), Timestamp(now).to_string().into());
    fields.0.insert("level".into(), level_name(*event.metadata().level()).into());
    fields.0.insert("target".into(), event.metadata().target().into());
    event.record(&mut fields);
    serde_json::Value::Object(fields.0).to_string()
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

#[derive(Default)]
struct TextFields {
    message: String,
    rest: String,
}

impl TextFields {
    fn push(&mut self, field: &Field, value: &str) {
        // A client chooses what it is called: no control character of its may begin a line of the log or move a cursor.
        if field.name() == "message" {
            self.message.extend(value.chars().map(|c| if c.is_control() { ' ' } else { c }));
            return;
        }
        let _ = write!(self.rest, " {}=", field.name());
        if !value.is_empty() && value.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '"' && c != '=') {
            self.rest.push_str(value);
        } else {
            let _ = write!(self.rest, "{value:?}");
        }
    }
}

impl Visit for TextFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, &format!("{value:?}"));
    }
}

struct JsonFields(serde_json::Map<String, serde_json::Value>);

impl Visit for JsonFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}").into());
    }
}

/// RFC 3339 in UTC with milliseconds.
struct Timestamp(SystemTime);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
    }
}

/// Year, month and day of a number of days since 1970-01-01 (Gregorian).
fn civil(days: u64) -> (u64, u64, u64) {
    // Years that begin on 1 March put the leap day last, so months have fixed beginnings.
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Labels a [`RateLimited`] keeps; further ones share one.
const LABELS_MAX: usize = 256;

/// Lets one line through for each label in a time, and counts the others.
#[derive(Debug)]
pub struct RateLimited {
    quiet: Duration,
    seen: Vec<(&'static str, Instant, u64)>,
}

impl RateLimited {
    /// One line for each label in `quiet`.
    pub fn new(quiet: Duration) -> Self {
        Self { quiet, seen: Vec::new() }
    }

    /// `Some(n)`: write the line now, and say that `n` like it were left out since the last one. `None`: leave it out.
    pub fn admit(&mut self, now: Instant, label: &'static str) -> Option<u64> {
        let label = if self.seen.len() < LABELS_MAX || self.seen.iter().any(|(seen, ..)| *seen == label) {
            label
        } else {
            "other"
        };
        match self.seen.iter_mut().find(|(seen, ..)| *seen == label) {
            Some((_, until, suppressed)) if now < *until => {
                *suppressed += 1;
                None
            }
            Some((_, until, suppressed)) => {
                *until = now + self.quiet;
                Some(std::mem::take(suppressed))
            }
            None => {
                self.seen.push((label, now + self.quiet, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn timestamps_are_utc() {
        for (seconds, expect) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Timestamp(UNIX_EPOCH + Duration::from_secs(seconds)).to_string(), expect);
        }
    }

    #[test]
    fn a_flood_makes_one_line() {
        let mut limited = RateLimited::new(Duration::from_secs(10));
        let start = Instant::now();
        assert_eq!(limited.admit(start, "a"), Some(0));
        assert_eq!(limited.admit(start, "a"), None);
        assert_eq!(limited.admit(start + Duration::from_secs(9), "a"), None);
        assert_eq!(limited.admit(start, "b"), Some(0));
        assert_eq!(limited.admit(start + Duration::from_secs(10), "a"), Some(2));
        assert_eq!(limited.admit(start + Duration::from_secs(21), "a"), Some(0));
    }

    /// Formats every event it gets, in both forms.
    struct Capture(Arc<Mutex<Vec<String>>>);

    impl Subscriber for Capture {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, event: &Event<'_>) {
            let mut lines = self.0.lock().unwrap();
            lines.push(text_line(UNIX_EPOCH, event));
            lines.push(json_line(UNIX_EPOCH, event));
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn lines_stay_lines_whatever_a_client_calls_itself() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        tracing::subscriber::with_default(Capture(lines.clone()), || {
            tracing::warn!(target: "parlor", client_id = "a\nERROR b", peer = %"127.0.0.1:1", n = 3_u64, "refused\n");
        });
        assert_eq!(
            *lines.lock().unwrap(),
            [
                r#"1970-01-01T00:00:00.000Z WARN  refused  client_id="a\nERROR b" peer=127.0.0.1:1 n=3"#,
                r#"{"client_id":"a\nERROR b","level":"warn","message":"refused\n","n":3,"peer":"127.0.0.1:1","target":"parlor","time":"1970-01-01T00:00:00.000Z"}"#
            ]
        );
    }
}
