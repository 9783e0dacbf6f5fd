//! A connection whose bytes are deflated (RFC 1951) in both directions, as IMAP's COMPRESS wants it (RFC 4978). What is
//! inflated is handed on in pieces that the reader has room for, so that little that becomes much is read as slowly as much.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What both directions of one connection take in memory, in bytes, with their windows and buffers.
pub const DEFLATED_MEMORY_BYTES: usize = 512 << 10;
/// Deflated bytes that are read at once.
const INPUT_BYTES: usize = 8 << 10;
/// Deflated bytes that wait for a client; past them nothing more is taken.
const OUTPUT_MAX_BYTES: usize = 64 << 10;
/// Room for deflated bytes is made in such steps.
const OUTPUT_STEP_BYTES: usize = 8 << 10;

/// A connection under another one that is deflated.
pub struct Deflated<C> {
    connection: C,
    inflate: Decompress,
    deflate: Compress,
    input: Box<[u8]>,
    /// Of `input`, what was read and not yet inflated.
    unread: std::ops::Range<usize>,
    /// The last piece was as long as there was room: more may wait.
    has_more: bool,
    ended: bool,
    output: Vec<u8>,
    /// Of `output`, so many bytes are written.
    written: usize,
    /// All that was said is in `output`.
    flushed: bool,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Deflated<C> {
    /// From here on.
    pub fn new(connection: C) -> Self {
        Deflated {
            connection,
            inflate: Decompress::new(false),
            deflate: Compress::new(Compression::fast(), false),
            input: vec![0; INPUT_BYTES].into(),
            unread: 0..0,
            has_more: false,
            ended: false,
            output: Vec::new(),
            written: 0,
            flushed: true,
        }
    }

    /// Inflates some of what was read: how many bytes that made.
    fn inflate(&mut self, to: &mut ReadBuf<'_>) -> io::Result<usize> {
        let (read, made) = (self.inflate.total_in(), self.inflate.total_out());
        let unread = &self.input[self.unread.clone()];
        let status = self.inflate.decompress(unread, to.initialize_unfilled(), FlushDecompress::None)?;
        let made = (self.inflate.total_out() - made) as usize;
        self.unread.start += (self.inflate.total_in() - read) as usize;
        self.ended = status == Status::StreamEnd;
        to.advance(made);
        self.has_more = to.remaining() == 0;
        Ok(made)
    }

    /// Deflates some of these bytes, or what was kept back of others: how many it took.
    fn deflate(&mut self, bytes: &[u8], flush: FlushCompress) -> io::Result<usize> {
        let before = self.deflate.total_in();
        self.output.reserve(OUTPUT_STEP_BYTES);
        self.deflate.compress_vec(bytes, &mut self.output, flush).map_err(io::Error::other)?;
        Ok((self.deflate.total_in() - before) as usize)
    }

    /// Writes all that waits.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.output.len() {
            let waits = &self.output[self.written..];
            match ready!(Pin::new(&mut self.connection).poll_write(cx, waits))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.output.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for Deflated<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.ended || to.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if (!this.unread.is_empty() || this.has_more) && this.inflate(to)? > 0 {
                return Poll::Ready(Ok(()));
            }
            if this.ended || !this.unread.is_empty() {
                continue;
            }
            let mut buffer = ReadBuf::new(&mut this.input);
            ready!(Pin::new(&mut this.connection).poll_read(cx, &mut buffer))?;
            this.unread = 0..buffer.filled().len();
            if this.unread.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Deflated<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.output.len() >= OUTPUT_MAX_BYTES {
            ready!(self.poll_output(cx))?;
        }
        self.flushed = false;
        loop {
            let took = self.deflate(bytes, FlushCompress::None)?;
            if took > 0 || bytes.is_empty() {
                return Poll::Ready(Ok(took));
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.flushed {
            self.deflate(&[], FlushCompress::Sync)?;
            // Where there was room left, nothing is kept back.
            self.flushed = self.output.len() < self.output.capacity();
        }
        ready!(self.poll_output(cx))?;
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use flate2::write::DeflateEncoder;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_one_says_the_other_hears_as_soon_as_it_is_flushed() {
        let (near, far) = tokio::io::duplex(100);
        let (mut near, mut far) = (Deflated::new(near), Deflated::new(far));
        let long: Vec<u8> = (0..300_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for said in [b"a NOOP\r\n".to_vec(), b"x".repeat(1_000_000), long, b"b".to_vec()] {
            let saying = async {
                near.write_all(&said).await.unwrap();
                near.flush().await.unwrap();
            };
            let mut heard = vec![0; said.len()];
            let hearing = async { far.read_exact(&mut heard).await.map(|_| ()) };
            let ((), done) = tokio::join!(saying, hearing);
            done.unwrap();
            assert!(heard == said);
        }
        near.shutdown().await.unwrap();
        assert_eq!(far.read(&mut [0; 10]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn little_that_becomes_much_is_read_as_there_is_room() {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&b"x".repeat(10_000_000)).unwrap();
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 20_000);
        let (mut near, far) = tokio::io::duplex(100_000);
        near.write_all(&bomb).await.unwrap();
        let mut far = Deflated::new(far);
        let (mut room, mut all) = ([0; 1_000], 0);
        loop {
            let count = far.read(&mut room).await.unwrap();
            if count == 0 {
                break;
            }
            all += count;
        }
        assert_eq!(all, 10_000_000);
    }

    #[tokio::test]
    async fn what_is_not_deflated_ends_the_connection() {
        let (mut near, far) = tokio::io::duplex(100);
        near.write_all(b"\xff\xffa NOOP\r\n").await.unwrap();
        let mut far = Deflated::new(far);
        assert!(far.read(&mut [0; 100]).await.is_err());
    }
}
