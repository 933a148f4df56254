//! Logging, set up the same way in every binary: to stderr, level from `ARCHIPELAGO_LOG` or the command line.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::shown::Shown;

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object per line.
    Json,
}

/// Starts logging to stderr. `default` is a filter such as `info`; the variable `ARCHIPELAGO_LOG` overrides it.
/// A second call changes nothing.
pub fn init(default: &str, format: LogFormat) {
    let filter = EnvFilter::try_from_env("ARCHIPELAGO_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let registry = tracing_subscriber::registry().with(filter);
    let with_colours = format == LogFormat::Text && use_colour();
    let writer = move || Shown::new(std::io::stderr(), with_colours);
    let lines = fmt::layer().with_writer(writer).with_target(false);
    // A subscriber that is already there belongs to a test harness; it may stay.
    let _ = match format {
        LogFormat::Text => registry.with(lines.with_ansi(with_colours)).try_init(),
        LogFormat::Json => registry.with(lines.json()).try_init(),
    };
}

fn use_colour() -> bool {
    use std::io::IsTerminal as _;
    std::env::var_os("NO_COLOR").is_none() && std::io::stderr().is_terminal()
}
