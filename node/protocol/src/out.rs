//! Responses on their way out.

use std::future::Future;
use std::io;

/// Responses are handed on once so many bytes wait.
pub const OUTPUT_FLUSH_BYTES: usize = 64 << 10;

/// Where responses go.
pub trait Output: Send {
    /// Writes all of it, waiting for a slow client.
    ///
    /// # Errors
    /// If the client is gone, or reads too slowly.
    fn write(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send;
}

impl<O: Output> Output for &mut O {
    fn write(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send {
        O::write(self, bytes)
    }
}

/// Responses on their way out, with the place they go to.
#[derive(Debug)]
pub struct Out<O> {
    /// What was not handed on yet. A long response calls [`Out::pass_on`] after each piece of it.
    pub bytes: Vec<u8>,
    output: O,
    /// The client is gone: nothing more is worth doing.
    failed: Option<io::Error>,
    /// How often something was handed on.
    flushes: u64,
}

/// A place in the responses to go back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    flushes: u64,
    len: usize,
}

impl<O: Output> Out<O> {
    /// Nothing said yet.
    pub fn new(output: O) -> Self {
        Out { bytes: Vec::new(), output, failed: None, flushes: 0 }
    }

    /// Hands on what waits, if it is much.
    pub async fn pass_on(&mut self) {
        if self.bytes.len() >= OUTPUT_FLUSH_BYTES {
            self.hand_on().await;
        }
    }

    /// Hands on all that waits.
    ///
    /// # Errors
    /// The first error of the output: the client is gone.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.hand_on().await;
        self.failed.take().map_or(Ok(()), |error| {
            self.failed = Some(error.kind().into());
            Err(error)
        })
    }

    async fn hand_on(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.is_empty() {
            return;
        }
        self.flushes += 1;
        if self.failed.is_none()
            && let Err(error) = self.output.write(&bytes).await
        {
            self.failed = Some(error);
        }
    }

    /// Whether the client is gone.
    pub fn is_gone(&self) -> bool {
        self.failed.is_some()
    }

    /// Where it all goes.
    pub fn output(&mut self) -> &mut O {
        &mut self.output
    }

    /// Where it all went.
    pub fn into_output(self) -> O {
        self.output
    }

    /// Says a text.
    pub fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// Says a text and ends the line.
    pub fn line(&mut self, text: &str) {
        self.text(text);
        self.text("\r\n");
    }

    /// This place, for [`Out::roll_back`].
    pub fn mark(&self) -> Mark {
        Mark { flushes: self.flushes, len: self.bytes.len() }
    }

    /// Takes back what was said since the mark; false if some of it is on its way to the client.
    pub fn roll_back(&mut self, mark: Mark) -> bool {
        let can = self.flushes == mark.flushes;
        if can {
            self.bytes.truncate(mark.len);
        }
        can || self.is_gone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::executor::block_on;

    use super::*;

    /// Takes so many bytes, then breaks.
    struct Narrow(Vec<u8>, usize);

    impl Output for Narrow {
        async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
            if self.0.len() + bytes.len() > self.1 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }

    #[test]
    fn little_waits_and_much_is_handed_on() {
        let mut out = Out::new(Narrow(Vec::new(), usize::MAX));
        out.text(&"x".repeat(OUTPUT_FLUSH_BYTES - 1));
        block_on(out.pass_on());
        assert_eq!(out.output().0, b"");
        out.text("x");
        block_on(out.pass_on());
        assert_eq!((out.output().0.len(), out.bytes.len()), (OUTPUT_FLUSH_BYTES, 0));
    }

    #[test]
    fn what_is_on_its_way_is_not_taken_back() {
        let mut out = Out::new(Narrow(Vec::new(), usize::MAX));
        out.line("a");
        let mark = out.mark();
        out.line("b");
        assert!(out.roll_back(mark));
        assert_eq!(out.bytes, b"a\r\n");
        out.line("c");
        block_on(out.flush()).unwrap();
        assert!(!out.roll_back(mark));
        assert_eq!(out.into_output().0, b"a\r\nc\r\n");
    }

    #[test]
    fn after_an_error_nothing_more_is_written_and_the_client_counts_as_gone() {
        let mut out = Out::new(Narrow(Vec::new(), 2));
        out.line("a");
        assert_eq!(block_on(out.flush()).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        out.output().1 = usize::MAX;
        out.line("b");
        assert!(out.is_gone() && block_on(out.flush()).is_err());
        assert_eq!(out.into_output().0, b"");
    }
}
