//! Logs: one line an event on standard error, for a person or for a machine. And traces.

mod otlp;
mod traces;

use std::{
    fmt::{self, Write as _},
    io::{self, IsTerminal as _},
};

use tracing::field::Field;
use tracing_subscriber::{
    EnvFilter,
    field::{MakeExt as _, RecordFields},
    fmt::{
        FormatFields,
        format::{Writer, debug_fn},
    },
    reload,
    util::{SubscriberInitExt as _, TryInitError},
};

pub use self::traces::{FanOut, Publishing, Reached, Tracer, TracingError};
use crate::config::{Log, LogFormat};

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `log.level` is not one.
    #[error("log.level is not a level (error, warn, info, debug, trace) or a filter: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// The log has ended.
    #[error("the level cannot be changed: {0}")]
    Reload(#[from] reload::Error),
    /// Somebody else has started it in this process.
    #[error("logging was started before: {0}")]
    Started(#[from] TryInitError),
}

/// The level of the running log.
pub struct Level(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl Level {
    /// From now on that of `log`; its format stays.
    ///
    /// # Errors
    /// A bad level, or a log that has ended.
    pub fn set(&self, log: &Log) -> Result<(), TelemetryError> {
        Ok((self.0)(EnvFilter::try_new(&log.level)?)?)
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Level")
    }
}

/// Starts logging for the whole process.
///
/// # Errors
/// A bad level, or a second start.
pub fn start(log: &Log) -> Result<Level, TelemetryError> {
    let filter = EnvFilter::try_new(&log.level)?;
    // It would complain of standard error on standard error, and panic where that is a terminal which was closed.
    let lines =
        tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(filter).log_internal_errors(false);
    let terminal = io::stderr().is_terminal();
    Ok(if is_for_people(log.format, terminal) {
        let lines = lines.with_ansi(terminal).with_target(false).fmt_fields(Escaped).with_filter_reloading();
        let filter = lines.reload_handle();
        lines.finish().try_init()?;
        Level(Box::new(move |new| filter.reload(new)))
    } else {
        let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
        let lines = lines.with_filter_reloading();
        let filter = lines.reload_handle();
        lines.finish().try_init()?;
        Level(Box::new(move |new| filter.reload(new)))
    })
}

fn is_for_people(format: LogFormat, terminal: bool) -> bool {
    match format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    }
}

/// Writes fields for a person. Control characters are escaped: what a client sends must neither forge a
/// line nor steer a terminal.
struct Escaped;

impl<'writer> FormatFields<'writer> for Escaped {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let format = debug_fn(|writer, field: &Field, value| {
            let mut escaped = Escape(writer);
            match field.name() {
                "message" => write!(escaped, "{value:?}"),
                name => write!(escaped, "{name}={value:?}"),
            }
        });
        format.delimited(" ").format_fields(writer, fields)
    }
}

/// Escapes what passes.
struct Escape<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            let plain = part.trim_end_matches(char::is_control);
            self.0.write_str(plain)?;
            for control in part[plain.len()..].chars() {
                write!(self.0, "{}", control.escape_default())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_client_sends_neither_breaks_a_line_nor_steers_a_terminal() {
        let sink = Sink::default();
        let writer = sink.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).without_time().with_target(false);
        let lines = lines.fmt_fields(Escaped).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(lines, || {
            let evil = "a\n\u{1b}[31m\u{9b}b";
            tracing::info!(channel = evil, shown = %evil, "refused {evil}");
        });
        let text = String::from_utf8(sink.0.lock().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert_eq!(text.trim_end().chars().find(|c| c.is_control()), None, "{text:?}");
        assert!(text.contains(r"refused a\n\u{1b}[31m\u{9b}b "), "{text}");
        assert!(text.contains(r"shown=a\n\u{1b}[31m"), "{text}");
    }

    #[test]
    fn auto_is_for_people_on_a_terminal_only() {
        for (format, terminal, people) in [
            (LogFormat::Auto, true, true),
            (LogFormat::Auto, false, false),
            (LogFormat::Human, false, true),
            (LogFormat::Json, true, false),
        ] {
            assert_eq!(is_for_people(format, terminal), people);
        }
    }
}
