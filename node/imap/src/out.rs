//! Responses on their way out.

use std::io;

use crate::store::Output;

/// Responses are handed on once so many bytes wait.
pub const OUTPUT_FLUSH_BYTES: usize = 64 << 10;

/// Responses on their way out, with the place they go to.
pub(crate) struct Out<'a, O: Output> {
    pub(crate) bytes: Vec<u8>,
    output: &'a mut O,
    /// The client is gone: nothing more is worth doing.
    failed: Option<io::Error>,
    /// How often something was handed on.
    flushes: u64,
}

/// A place in the responses to go back to.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    flushes: u64,
    len: usize,
}

impl<'a, O: Output> Out<'a, O> {
    pub(crate) fn new(output: &'a mut O) -> Self {
        Out { bytes: Vec::new(), output, failed: None, flushes: 0 }
    }

    /// Hands on what waits, if it is much.
    pub(crate) async fn pass_on(&mut self) {
        if self.bytes.len() >= OUTPUT_FLUSH_BYTES {
            self.flush().await;
        }
    }

    /// Hands on the rest.
    ///
    /// # Errors
    /// The first one of the output: the client is gone.
    pub(crate) async fn end(mut self) -> io::Result<()> {
        self.flush().await;
        self.failed.map_or(Ok(()), Err)
    }

    async fn flush(&mut self) {
        self.flushes += 1;
        let bytes = std::mem::take(&mut self.bytes);
        if self.failed.is_none()
            && !bytes.is_empty()
            && let Err(error) = self.output.write(&bytes).await
        {
            self.failed = Some(error);
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.failed.is_some()
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn line(&mut self, text: &str) {
        self.text(text);
        self.text("\r\n");
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { flushes: self.flushes, len: self.bytes.len() }
    }

    /// Takes back what was written since the mark; false if some of it is on its way to the client.
    pub(crate) fn roll_back(&mut self, mark: Mark) -> bool {
        let can = self.flushes == mark.flushes;
        if can {
            self.bytes.truncate(mark.len);
        }
        can || self.is_gone()
    }
}
