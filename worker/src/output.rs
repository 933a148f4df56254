//! The one place that writes for people and programs: data to stdout, everything else to stderr.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use archipelago_common::{progress::EpochReport, shown};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::{error::Error, existing::Existing, results::History};

pub use work::{Waiting, WorkDisplay};

mod work;

/// How results are written to stdout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON value, for programs.
    Json,
}

/// How much is said on stderr while work goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    /// Progress and warnings.
    Normal,
    /// Every step.
    Verbose,
}

/// Where a command's results and progress go.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// Form of results.
    pub format: Format,
    /// Amount of progress.
    pub verbosity: Verbosity,
    /// What becomes of results that are there already.
    pub existing: Existing,
}

impl Output {
    /// Says nothing but errors, and replaces nothing.
    pub fn silent() -> Self {
        Self { format: Format::Text, verbosity: Verbosity::Quiet, existing: Existing::Refuse }
    }

    /// Writes a command's result. A reader that has gone away (`| head`) is no error.
    pub fn show<T: Serialize + Display>(&self, result: &T) {
        let mut stdout = io::stdout().lock();
        let _ = match self.format {
            Format::Text => writeln!(stdout, "{}", shown::text(result.to_string().trim_end())),
            Format::Json => {
                let json = serde_json::to_string_pretty(result).expect("results are JSON");
                writeln!(stdout, "{}", shown::json(&json))
            }
        };
    }

    /// Says something about the work, unless `--quiet`.
    pub fn note(&self, text: impl Display) {
        if self.verbosity != Verbosity::Quiet {
            let _ = writeln!(io::stderr().lock(), "{}", shown::text(&text.to_string()));
        }
    }

    /// A display of work whose end is known; it tells nothing of work that is done at once.
    pub fn work(&self, what: impl Into<String>) -> WorkDisplay {
        WorkDisplay::new(what.into(), self.verbosity)
    }

    /// A display of work whose end is not known: on a terminal, that it goes on and for how long.
    pub fn waiting(&self, what: impl Into<String>) -> Waiting {
        Waiting::new(what.into(), self.verbosity)
    }

    /// A display of training that will take `n_epochs` epochs in all; it also keeps the history.
    pub fn training(&self, n_epochs: u64) -> TrainingDisplay {
        let shown = match self.verbosity {
            Verbosity::Quiet => Shown::Nothing,
            _ if io::stderr().is_terminal() => Shown::Bar(bar(n_epochs)),
            _ => Shown::Lines { last: None },
        };
        TrainingDisplay { started: Instant::now(), n_epochs, shown, n_done: 0, history: History::new() }
    }
}

/// Writes an error with its causes and, where there is one, a hint.
pub fn show_error(error: &Error, hint: Option<&str>) {
    let _ = io::stderr().lock().write_all(error_text(error, hint).as_bytes());
}

/// An error and its causes on one line, for a site's own log.
pub fn chain(error: &Error) -> String {
    causes(error).join(": ")
}

fn causes(error: &Error) -> Vec<String> {
    // A file of settings is quoted over several lines; anywhere else the end of a line is part of somebody's name.
    let is_quoted = matches!(error, Error::Config { .. } | Error::ConfigFile { .. } | Error::Recipe { .. });
    let shown = |error: &dyn std::error::Error| match error.to_string() {
        text if is_quoted => shown::text(&text).into_owned(),
        text => shown::name(&text).into_owned(),
    };
    let mut texts = vec![shown(error)];
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        // Some libraries repeat the text of their source in their own.
        if texts.last() != Some(&shown(error)) {
            texts.push(shown(error));
        }
        cause = error.source();
    }
    texts
}

fn error_text(error: &Error, hint: Option<&str>) -> String {
    let mut text = format!("error: {}\n", causes(error).join("\n  caused by: "));
    if let Some(hint) = hint {
        text += &format!("\nhint: {}\n", shown::name(hint));
    }
    text
}

/// Shows epochs as they finish, of one training or of several at once: a bar on a terminal, else a line now and then.
#[derive(Debug)]
pub struct TrainingDisplay {
    started: Instant,
    n_epochs: u64,
    shown: Shown,
    n_done: u64,
    history: History,
}

#[derive(Debug)]
enum Shown {
    Nothing,
    Bar(ProgressBar),
    Lines { last: Option<Instant> },
}

impl TrainingDisplay {
    /// An epoch of what is called `name` has finished.
    pub fn epoch(&mut self, name: &str, report: &EpochReport) {
        self.history.entry(name.to_owned()).or_default().push(report.clone());
        self.n_done += 1;
        // Early stopping leaves planned epochs undone; the others' count must not pass the plan.
        let total = EpochReport {
            epoch: u32::try_from(self.n_done).unwrap_or(u32::MAX),
            n_epochs: u32::try_from(self.n_epochs.max(self.n_done)).unwrap_or(u32::MAX),
            elapsed_ms: self.started.elapsed().as_millis() as u64,
            ..report.clone()
        };
        let is_last = total.epoch == total.n_epochs;
        match &mut self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => {
                bar.set_position(self.n_done);
                let name = shown::name(name);
                bar.set_message(format!("{name}: loss {:.2}, remaining {}", report.loss, clock(total.remaining_ms())));
            }
            Shown::Lines { last } => {
                if is_last || last.is_none_or(|last| last.elapsed() >= LINE_INTERVAL) {
                    *last = Some(Instant::now());
                    let _ = writeln!(io::stderr().lock(), "{}", line(name, &total));
                }
            }
        }
    }

    /// Ends the display; the epochs of each thing trained, by name.
    pub fn finish(self) -> History {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish();
        }
        self.history
    }
}

/// Time between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

fn bar(n_epochs: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} epoch {pos}/{len}  elapsed {elapsed}  {msg}");
    ProgressBar::new(n_epochs).with_style(style.expect("the template is well formed"))
}

fn line(name: &str, total: &EpochReport) -> String {
    let EpochReport { epoch, n_epochs, loss, elapsed_ms, .. } = total;
    let remaining = clock(total.remaining_ms());
    let name = shown::name(name);
    format!("{name}: epoch {epoch}/{n_epochs}, loss {loss:.2}, elapsed {}, remaining {remaining}", clock(*elapsed_ms))
}

/// Minutes and seconds.
fn clock(ms: u64) -> String {
    let seconds = ms.div_ceil(1000);
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_causes_and_hint() {
        let source = archipelago_anndata::Error::NotHdf5 { path: "x.h5ad".into() };
        let text = error_text(&Error::Cells { path: "x.h5ad".into(), source }, Some("h5ad files"));
        let expected = "error: failed to use `x.h5ad`\n  caused by: `x.h5ad` is not an HDF5 file\n\nhint: h5ad files";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn a_name_in_an_error_cannot_command_the_terminal_or_pretend_a_line() {
        let error = Error::NothingToShow { name: "B\u{1b}[2J\nerror: none\u{202e}".into(), columns: String::new() };
        let text = error_text(&error, None);
        assert!(text.starts_with("error: `B\\u{1b}[2J\\nerror: none\\u{202e}` is neither"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn a_line_tells_loss_elapsed_and_remaining() {
        let report = EpochReport { epoch: 25, n_epochs: 100, loss: 412.345, elapsed_ms: 30_000, ..Default::default() };
        assert_eq!(line("reference", &report), "reference: epoch 25/100, loss 412.35, elapsed 0:30, remaining 1:30");
    }
}
