//! The proxy's own log on standard error, or in a file: one line for each event, whatever its text holds.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{OnceLock, PoisonError, RwLock};

use env_logger::Builder;
use jiff::Timestamp;
use log::{Level, Log, Metadata, Record};

use crate::config::{LogFormat, LogSettings};

/// The variable that takes the place of `log.level` when it is set, with env_logger's directives.
const DIRECTIVES: &str = "RUST_LOG";

/// What is told, and where. Another one takes its place after a reload.
struct Logger(RwLock<Target>);

struct Target {
    /// Decides what is told; it writes nothing itself.
    filter: env_logger::Logger,
    format: LogFormat,
    /// Whether standard error gets nothing, as with PgBouncer's `-q`.
    quiet: bool,
    file: Option<File>,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Installs the logger for the rest of the process, or what has changed of it; a log file is opened anew. The error says
/// why it cannot be: the log goes on as before.
pub(crate) fn install(settings: &LogSettings) -> Result<(), String> {
    let mut builder = Builder::new();
    match std::env::var(DIRECTIVES) {
        Ok(directives) if !directives.trim().is_empty() => {
            builder.parse_filters(&directives);
        }
        _ => {
            builder.filter_level(settings.level);
        }
    }
    let file = settings.file.as_deref().map(open).transpose()?;
    let target = Target { filter: builder.build(), format: settings.format, quiet: settings.quiet, file };
    let most = target.filter.filter();
    if let Err(Logger(target)) = LOGGER.set(Logger(RwLock::new(target)))
        && let Some(logger) = LOGGER.get()
    {
        let target = target.into_inner().unwrap_or_else(PoisonError::into_inner);
        *logger.0.write().unwrap_or_else(PoisonError::into_inner) = target;
    }
    if let Some(logger) = LOGGER.get() {
        // Fails when it is there already.
        let _ = log::set_logger(logger);
    }
    log::set_max_level(most);
    Ok(())
}

fn open(path: &Path) -> Result<File, String> {
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path);
    file.map_err(|error| format!("log.file: found {:?}, which cannot be opened: {error}", path.display()))
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let target = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if !target.filter.matches(record) {
            return;
        }
        let mut line = line(target.format, Timestamp::now(), record);
        line.push('\n');
        // Nobody is left to be told that the log itself cannot be written.
        if !target.quiet {
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        if let Some(mut file) = target.file.as_ref() {
            let _ = file.write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// One event as one line.
fn line(format: LogFormat, time: Timestamp, record: &Record<'_>) -> String {
    let (level, target) = (record.level(), short(record.target()));
    let message = record.args().to_string();
    match format {
        LogFormat::Text => format!("{time:.3} {:5} {target}: {}", word(level), one_line(&message)),
        LogFormat::Json => {
            let line = serde_json::json!({
                "time": format!("{time:.6}"), "level": word(level), "target": target, "message": message,
            });
            line.to_string()
        }
    }
}

const fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// The module that speaks, without the crate's name and the path below it: `gprxy_proto::pool::lease` is `pool`.
fn short(target: &str) -> &str {
    let mut parts = target.split("::");
    let first = parts.next().unwrap_or(target);
    match parts.next() {
        Some(module) if first.starts_with("gprxy") => module,
        _ => first,
    }
}

/// Escapes everything that could end a line, move the cursor or hide text, so that nobody can forge a log line.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    // Besides the control characters: line and paragraph separator, and the marks that turn the direction of text.
    let turns =
        |c: char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_harmful = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || turns(c);
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_harmful(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn shown(format: LogFormat, target: &str, message: &str) -> String {
        let time = at("2026-02-03T04:05:06.789012Z");
        line(format, time, &Record::builder().level(Level::Warn).target(target).args(format_args!("{message}")).build())
    }

    #[test]
    fn a_line_has_time_level_module_and_message() {
        let text = shown(LogFormat::Text, "gprxy_proto::pool::lease", "all 5 connections are in use");
        assert_eq!(text, "2026-02-03T04:05:06.789Z warn  pool: all 5 connections are in use");
    }

    #[test]
    fn a_message_cannot_forge_a_second_line() {
        let evil = "x\r\n2026-02-03T04:05:06.789Z error auth: forged\u{2028}\u{1b}[2K\u{202e}";
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = shown(format, "gprxy", evil);
            assert!(!text.contains(['\n', '\r', '\u{1b}']), "{text}");
        }
        assert_eq!(one_line("a\nb\u{1b}\u{2028}c\u{61c}"), "a\\nb\\u{1b}\\u{2028}c\\u{61c}");
        assert!(matches!(one_line("plain é 日本"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_lines_are_json() {
        let text = shown(LogFormat::Json, "gprxy::start", "a \"quoted\"\nline");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["message"], "a \"quoted\"\nline");
        assert_eq!(value["target"], "start");
        assert_eq!(value["time"], "2026-02-03T04:05:06.789012Z");
    }

    #[test]
    fn targets_are_short() {
        assert_eq!(short("gprxy_tokio::listener"), "listener");
        assert_eq!(short("gprxy"), "gprxy");
        assert_eq!(short("rustls::client::hs"), "rustls");
    }
}
