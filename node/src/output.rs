//! What commands print.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stderr, stdout};

/// Prints a line, as `println!` does, but never panics. Where nobody reads any more (`mailraft status | head`) the
/// rest is dropped quietly, and the command goes on.
macro_rules! tell {
    ($($text:tt)*) => { $crate::output::line(format_args!($($text)*)) };
}
pub(crate) use tell;

/// See [`tell`].
pub fn line(text: Arguments<'_>) {
    if let Some(sentence) = write_line(&mut stdout(), text) {
        error(&sentence);
    }
}

/// A time span in words, rounded down.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Prints why a command failed.
pub fn error(sentence: &str) {
    // Nothing is left to say it to.
    let _ = writeln!(stderr(), "mailraft: {sentence}");
}

/// What is wrong with the output, if anything is.
fn write_line(to: &mut dyn Write, text: Arguments<'_>) -> Option<String> {
    match writeln!(to, "{text}").and_then(|()| to.flush()) {
        Ok(()) => None,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => None,
        Err(error) => Some(format!("the output can't be written ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_quiet_and_a_full_disk_is_not() {
        let mut out = Vec::new();
        assert_eq!(write_line(&mut out, format_args!("a {}", 1)), None);
        assert_eq!(out, b"a 1\n");
        assert_eq!(write_line(&mut Broken(ErrorKind::BrokenPipe), format_args!("a")), None);
        let said = write_line(&mut Broken(ErrorKind::StorageFull), format_args!("a"));
        assert!(said.is_some_and(|s| s.starts_with("the output can't be written")));
    }
}
