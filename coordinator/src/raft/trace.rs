//! Raft's log lines, which come by way of slog, as tracing events.

/// A logger for the consensus module. Its `info` is about single messages and becomes `debug` here.
pub(crate) fn logger() -> slog::Logger {
    slog::Logger::root(slog::Fuse(Tracing), slog::o!())
}

struct Tracing;

impl slog::Drain for Tracing {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &slog::Record<'_>, _: &slog::OwnedKVList) -> Result<(), slog::Never> {
        let text = Line(record);
        match record.level() {
            slog::Level::Critical | slog::Level::Error => tracing::error!(target: "raft", "{text}"),
            slog::Level::Warning => tracing::warn!(target: "raft", "{text}"),
            slog::Level::Info => tracing::debug!(target: "raft", "{text}"),
            slog::Level::Debug | slog::Level::Trace => tracing::trace!(target: "raft", "{text}"),
        }
        Ok(())
    }
}

/// Formatted only where the line is wanted.
struct Line<'a>(&'a slog::Record<'a>);

impl std::fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.msg())?;
        slog::KV::serialize(&self.0.kv(), self.0, &mut Fields(f)).map_err(|_| std::fmt::Error)
    }
}

struct Fields<'a, 'b>(&'a mut std::fmt::Formatter<'b>);

impl slog::Serializer for Fields<'_, '_> {
    fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, ", {key}: {value}").map_err(|_| slog::Error::Fmt(std::fmt::Error))
    }
}
