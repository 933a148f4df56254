//! The one place that writes for people and programs: data to stdout, everything else to stderr. What others have named or
//! said commands no terminal.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
};

use archipelago_common::shown;
use serde::Serialize;

use crate::error::Error;

/// How results are written to stdout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON value, for programs.
    Json,
}

/// Where a command's results go.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// Form of results.
    pub format: Format,
    /// Whether to say nothing but errors and results.
    pub is_quiet: bool,
}

impl Output {
    /// Writes a result: `value` for programs, `text` for people. A reader that has gone away (`| head`) is no error.
    pub fn show(&self, value: &impl Serialize, text: impl Display) {
        let mut stdout = io::stdout().lock();
        let _ = match self.format {
            Format::Text => writeln!(stdout, "{}", shown::text(text.to_string().trim_end())),
            Format::Json => {
                let json = serde_json::to_string_pretty(value).expect("results are JSON");
                writeln!(stdout, "{}", shown::json(&json))
            }
        };
    }

    /// Says something about the work, unless `--quiet`.
    pub fn note(&self, text: impl Display) {
        if !self.is_quiet {
            let _ = writeln!(io::stderr().lock(), "{}", shown::text(&text.to_string()));
        }
    }

    /// Shows how much of a transfer is done, on a terminal only.
    pub fn transfer(&self, what: &str, done: u64, total: u64) {
        if !self.is_quiet && io::stderr().is_terminal() {
            let share = if total == 0 { 100.0 } else { done as f64 / total as f64 * 100.0 };
            let end = if done == total { "\n" } else { "" };
            let _ = write!(io::stderr().lock(), "\r{what}: {done} of {total} bytes ({share:.0} %){end}");
        }
    }
}

/// Writes text as it is, such as a completion script.
pub fn raw(bytes: &[u8]) {
    let _ = io::stdout().lock().write_all(bytes);
}

/// Writes an error with its causes and, where there is one, a hint.
pub fn show_error(error: &Error) {
    let mut text = format!("error: {}\n", shown::text(&error.to_string()));
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!("  caused by: {}\n", shown::text(&error.to_string()));
        cause = error.source();
    }
    if let Some(hint) = error.hint() {
        text += &format!("\nhint: {hint}\n");
    }
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
