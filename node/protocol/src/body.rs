//! Reading a message's body: only the chunks that hold what is asked for, one in memory at a time.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;

use bytes::Bytes;
use mailraft_mailbox::api::{FetchedContent, READ_CHUNKS_MAX};
use mailraft_mailbox::{Answer, Command};
use mailraft_storage::body::{BodyId, CHUNK_PLAIN_BYTES, open_chunk};
use zeroize::Zeroizing;

use crate::refusal::{Failure, Refusal};

const CHUNK: u64 = CHUNK_PLAIN_BYTES as u64;

/// A session's mailbox, wherever it is.
pub trait Mailbox: Send {
    /// Asks one command, with retries and failover inside.
    ///
    /// # Errors
    /// If it was not done, or may not have been.
    fn ask(&mut self, command: Command) -> impl Future<Output = Result<Answer, Failure>> + Send;
}

/// Reads bodies; keeps the chunk it read last, because clients fetch many parts of one message.
#[derive(Default)]
#[allow(missing_debug_implementations)] // It holds mail.
pub struct BodyReader {
    kept: Option<(BodyId, u32, Zeroizing<Vec<u8>>)>,
    /// Sealed, of messages that are read soon.
    ahead: BTreeMap<BodyId, Bytes>,
    /// Nobody reads several at once where the mailbox is.
    one_by_one: bool,
}

/// What is read ahead at once, in bytes, before it is sealed.
pub const AHEAD_MAX_BYTES: u64 = 1 << 20;

impl BodyReader {
    /// Reads ahead what is short of these messages' bodies, from the first one on, so that they need not be asked for one by
    /// one. Returns of how many of them the bodies, if they are short, are there now; what was read ahead before is not.
    ///
    /// # Errors
    /// If none can be read now.
    pub async fn read_ahead<M: Mailbox>(
        &mut self,
        contents: &[&FetchedContent],
        mailbox: &mut M,
    ) -> Result<usize, Failure> {
        self.ahead.clear();
        let (mut upto, mut bytes) = (0, 0);
        let mut chunks = Vec::new();
        for content in contents {
            if content.chunks == 1 {
                bytes += content.size_bytes;
                if upto > 0 && (bytes > AHEAD_MAX_BYTES || chunks.len() >= READ_CHUNKS_MAX) {
                    break;
                }
                chunks.push((content.email, content.body, 0));
            }
            upto += 1;
        }
        if chunks.len() < 2 || self.one_by_one {
            return Ok(upto);
        }
        let bodies: Vec<BodyId> = chunks.iter().map(|(_, body, _)| *body).collect();
        match mailbox.ask(Command::ReadChunks { chunks }).await {
            Ok(Answer::Chunks(read)) => {
                let there = bodies.into_iter().zip(read).filter_map(|(body, sealed)| Some((body, sealed?)));
                self.ahead = there.collect();
            }
            Ok(_) => return Err(Refusal::Corrupt.into()),
            // One that is too old does not know how.
            Err(_) => self.one_by_one = true,
        }
        Ok(upto)
    }

    /// The bytes from the start of a range up to its end or the end of their chunk, whichever is first; none of
    /// an empty range. None if the message is no more.
    ///
    /// # Errors
    /// If the chunk can't be read now, or is damaged.
    pub async fn piece<M: Mailbox>(
        &mut self,
        content: &FetchedContent,
        range: Range<u64>,
        mailbox: &mut M,
    ) -> Result<Option<&[u8]>, Failure> {
        if range.is_empty() {
            return Ok(Some(b""));
        }
        let number = u32::try_from(range.start / CHUNK).map_err(|_| Refusal::Corrupt)?;
        if !matches!(&self.kept, Some((body, kept, _)) if *body == content.body && *kept == number) {
            self.kept = None;
            let ahead = self.ahead.remove(&content.body).filter(|_| number == 0);
            let ask = Command::ReadChunk { email: content.email, body: content.body, number };
            let sealed = match ahead {
                Some(sealed) => sealed,
                None => match mailbox.ask(ask).await? {
                    Answer::Chunk(Some(sealed)) => sealed,
                    Answer::Chunk(None) => return Ok(None),
                    _ => return Err(Refusal::Corrupt.into()),
                },
            };
            let last = number.checked_add(1) == Some(content.chunks);
            let plain =
                open_chunk(content.body, &content.body_key, number, last, &sealed).map_err(|_| Refusal::Corrupt)?;
            self.kept = Some((content.body, number, plain));
        }
        let Some((_, _, plain)) = &self.kept else { return Err(Refusal::Corrupt.into()) };
        let base = u64::from(number) * CHUNK;
        let end = range.end.min(base + plain.len() as u64);
        match plain.get((range.start - base) as usize..end.saturating_sub(base) as usize) {
            Some(bytes) if !bytes.is_empty() => Ok(Some(bytes)),
            Some(_) | None => Err(Refusal::Corrupt.into()),
        }
    }

    /// All bytes of a range, which the caller keeps small. None if the message is no more.
    ///
    /// # Errors
    /// As [`BodyReader::piece`].
    pub async fn all<M: Mailbox>(
        &mut self,
        content: &FetchedContent,
        range: Range<u64>,
        mailbox: &mut M,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let mut out = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let Some(piece) = self.piece(content, at..range.end, mailbox).await? else { return Ok(None) };
            out.extend_from_slice(piece);
            at += piece.len() as u64;
        }
        Ok(Some(out))
    }
}
