//! raft-rs logs through slog, everything else through tracing.

use std::fmt::{self, Write};

use slog::{Drain, KV, Never, OwnedKVList, Record};

/// A logger for raft-rs whose lines become debug events of tracing; warnings and errors keep their level.
pub fn logger() -> slog::Logger {
    slog::Logger::root(Bridge, slog::o!())
}

struct Bridge;

impl Drain for Bridge {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        let level = record.level();
        let loud = level.is_at_least(slog::Level::Warning);
        // Formatting costs more than all the rest: only for who listens.
        if !loud && !tracing::enabled!(target: "raft", tracing::Level::DEBUG) {
            return Ok(());
        }
        let mut text = Text(format!("{}", record.msg()));
        // Text never fails to take a value.
        let _ = record.kv().serialize(record, &mut text);
        let _ = values.serialize(record, &mut text);
        match level {
            slog::Level::Critical | slog::Level::Error => tracing::error!(target: "raft", "{}", text.0),
            slog::Level::Warning => tracing::warn!(target: "raft", "{}", text.0),
            slog::Level::Info | slog::Level::Debug => tracing::debug!(target: "raft", "{}", text.0),
            slog::Level::Trace => tracing::trace!(target: "raft", "{}", text.0),
        }
        Ok(())
    }
}

struct Text(String);

impl slog::Serializer for Text {
    fn emit_arguments(&mut self, key: slog::Key, value: &fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={value}").map_err(slog::Error::from)
    }
}
