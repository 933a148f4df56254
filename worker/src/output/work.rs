//! Displays of work other than training: a share that is done, or only that it goes on.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{LINE_INTERVAL, Verbosity, clock};

/// Shows how much of some work is done, from many threads: a bar on a terminal, else a line now and then.
#[derive(Debug)]
pub struct WorkDisplay {
    what: String,
    started: Instant,
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Nothing,
    Bar(ProgressBar),
    Lines { last: Mutex<Instant> },
}

impl WorkDisplay {
    pub(super) fn new(what: String, verbosity: Verbosity) -> Self {
        let started = Instant::now();
        let shown = match verbosity {
            Verbosity::Quiet => Shown::Nothing,
            _ if io::stderr().is_terminal() => Shown::Bar(ProgressBar::hidden()),
            _ => Shown::Lines { last: Mutex::new(started) },
        };
        Self { what, started, shown }
    }

    /// This share of the work, 0 to 1, is done.
    pub fn share(&self, share: f64) {
        let elapsed = self.started.elapsed();
        if elapsed < PATIENCE {
            return;
        }
        match &self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => {
                if bar.is_hidden() {
                    let style =
                        ProgressStyle::with_template("{prefix}  {bar:30} {percent} %  elapsed {elapsed}  {msg}");
                    bar.set_style(style.expect("the template is well formed"));
                    bar.set_length(STEPS);
                    bar.set_prefix(self.what.clone());
                    bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
                }
                bar.set_position((share * STEPS as f64) as u64);
                bar.set_message(format!("remaining {}", remaining(elapsed, share)));
            }
            Shown::Lines { last } => {
                let mut last = last.lock().unwrap_or_else(|e| e.into_inner());
                if last.elapsed() >= LINE_INTERVAL {
                    *last = Instant::now();
                    let _ = writeln!(io::stderr().lock(), "{}", line(&self.what, elapsed, share));
                }
            }
        }
    }
}

impl Drop for WorkDisplay {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

/// Shows that some work goes on, until it is dropped.
#[derive(Debug)]
pub struct Waiting(Option<ProgressBar>);

impl Waiting {
    pub(super) fn new(what: String, verbosity: Verbosity) -> Self {
        if verbosity == Verbosity::Quiet || !io::stderr().is_terminal() {
            return Self(None);
        }
        let style = ProgressStyle::with_template("{spinner} {prefix}  elapsed {elapsed}");
        let bar = ProgressBar::new_spinner().with_style(style.expect("the template is well formed")).with_prefix(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(Some(bar))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn line(what: &str, elapsed: Duration, share: f64) -> String {
    let done = (100.0 * share) as u32;
    format!("{what}: {done} %, elapsed {}, remaining {}", clock(elapsed.as_millis() as u64), remaining(elapsed, share))
}

fn remaining(elapsed: Duration, share: f64) -> String {
    if share <= 0.0 {
        return "unknown".to_owned();
    }
    clock((elapsed.as_millis() as f64 * (1.0 - share.min(1.0)) / share) as u64)
}

/// Work that is done sooner needs no display.
const PATIENCE: Duration = Duration::from_secs(1);
const STEPS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_share_elapsed_and_remaining() {
        let text = line("finding neighbours", Duration::from_secs(30), 0.25);
        assert_eq!(text, "finding neighbours: 25 %, elapsed 0:30, remaining 1:30");
        assert!(line("x", Duration::from_secs(1), 0.0).ends_with("remaining unknown"));
    }
}
