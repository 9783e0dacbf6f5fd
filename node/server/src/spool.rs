//! A message on its way in: kept by its session until the mailbox has answered.
//!
//! In memory up to 256 KiB and within a budget for the node; past that in an unlinked file, sealed under a
//! key that is held only in memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mailraft_mailbox::api::NewMessage;
use mailraft_message::budget::PARSE_MEMORY_MAX_BYTES;
use mailraft_message::header::{HEADER_MAX_BYTES, HOPS_MAX};
use mailraft_message::octets::WrongOctet;
use mailraft_message::{Described, TooMuch, claims, envelope, header, octets};
use mailraft_sender_auth::{Claims, Reader};
use mailraft_storage::body::{BodyId, CHUNK_PLAIN_BYTES, CHUNK_SEALED_MAX_BYTES, chunk_count, open_chunk, seal_chunk};
use mailraft_storage::entry::versioned_encode;
use mailraft_storage::seal::Key;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::environment::os_env;
use crate::permits::Permits;

/// Addresses in From and Sender fields of a submission.
pub const AUTHORS_MAX: usize = 16;
/// How long a whole message waits for the memory in which it is parsed.
const MEMORY_WAIT_MAX: Duration = Duration::from_secs(60);
/// The format of `Envelope` and `Part` in rows.
pub const PARSED_VERSION: u8 = 1;

/// What messages on their way in may take, shared by all sessions of a node.
#[derive(Clone)]
pub struct Budget {
    /// Memory, in KiB.
    kib: Permits,
    /// Messages longer than a chunk: each has a file, later a connection.
    large: Permits,
    /// Bytes of those files, in KiB.
    files_kib: Permits,
    /// Whole messages that are taken apart now: small ones, which wait for no large one, and large ones.
    small_parses: Permits,
    large_parses: Permits,
}

/// Why a message can't be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolRefused {
    /// The node has no memory for it now.
    Overloaded,
    /// It has octets that no message has.
    Octets(WrongOctet),
    /// It has more of this than a mailbox keeps.
    TooMuch(TooMuch),
    /// It has been through more than [`HOPS_MAX`] servers.
    Circle,
    /// The temporary file can't be written.
    Disk,
    /// The disk has no room for it: it is nearly full, or other messages on their way in are.
    NoRoom,
}

/// How a message comes in.
#[derive(Clone, Debug)]
pub enum Entrance {
    /// Put into a folder: it stays as it is.
    Append,
    /// From one of our mail programs: it gets what it lacks of these, and loses its Bcc and Return-Path.
    Submission {
        /// A Date field's value.
        date: String,
        /// A Message-ID field's value.
        message_id: String,
    },
    /// From another server: without what only this server may say.
    Elsewhere {
        /// The names in which it says so.
        names: Vec<String>,
    },
}

/// A message being received.
pub struct Spool {
    budget: Budget,
    memory: Zeroizing<Vec<u8>>,
    permit: Option<OwnedSemaphorePermit>,
    file: Option<SealedFile>,
    /// Held once it is longer than a chunk.
    large: Option<OwnedSemaphorePermit>,
    /// For its file, as long as that is there.
    on_disk: Option<OwnedSemaphorePermit>,
    size_bytes: u64,
    /// Of several messages, one behind the other: where each but the last ends.
    ends: Vec<u64>,
}

struct SealedFile {
    file: File,
    key: Key,
    id: BodyId,
    /// Offset and length of each full chunk.
    chunks: Vec<(u64, u32)>,
    end: u64,
}

/// A whole message, taken apart.
pub struct SpooledMessage {
    message: Zeroizing<Vec<u8>>,
    digest: [u8; 32],
    content_digest: [u8; 32],
    header: Bytes,
    envelope: Bytes,
    structure: Bytes,
    message_id: Option<String>,
    authors: Option<Vec<String>>,
    _memory: Option<OwnedSemaphorePermit>,
    /// For what was made of it.
    _description: OwnedSemaphorePermit,
    _large: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// This many bytes of memory, so many large messages, and this many bytes of their files.
    pub fn new(bytes: usize, large_messages: usize, file_bytes: u64) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Budget {
            kib: Permits::new(bytes >> 10),
            large: Permits::new(large_messages),
            files_kib: Permits::new(kib(file_bytes)),
            small_parses: Permits::new(small_parses(processors)),
            large_parses: Permits::new(large_parses(processors)),
        }
    }

    /// This many bytes of memory and of files from now on.
    pub fn resize(&self, bytes: usize, file_bytes: u64) {
        self.kib.resize(bytes >> 10);
        self.files_kib.resize(kib(file_bytes));
    }

    /// Memory that messages take now, in bytes.
    pub fn taken_bytes(&self) -> u64 {
        (self.kib.taken() as u64) << 10
    }

    fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1024)).ok()?;
        self.kib.try_take(kib)
    }

    async fn wait(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1024)).ok()?;
        timeout(MEMORY_WAIT_MAX, self.kib.take(kib)).await.ok().flatten()
    }
}

/// Messages of one chunk that are taken apart at once.
fn small_parses(processors: usize) -> usize {
    processors
}

/// Larger ones that are.
fn large_parses(processors: usize) -> usize {
    (processors / 2).max(1)
}

/// What taking messages apart takes at once, beside them, on a machine of so many processors, in bytes.
pub fn parse_memory_max_bytes(processors: usize) -> usize {
    (small_parses(processors) + large_parses(processors)) * PARSE_MEMORY_MAX_BYTES
}

fn kib(bytes: u64) -> usize {
    usize::try_from(bytes >> 10).unwrap_or(usize::MAX)
}

impl Spool {
    /// Nothing received yet.
    ///
    /// # Errors
    /// [`SpoolRefused::Overloaded`] if the node has no memory for one more.
    pub fn new(budget: &Budget) -> Result<Self, SpoolRefused> {
        // Small messages are most of all: a little now, the rest as it comes.
        let permit = budget.take(8 << 10).ok_or(SpoolRefused::Overloaded)?;
        Ok(Spool {
            budget: budget.clone(),
            memory: Zeroizing::new(Vec::new()),
            permit: Some(permit),
            file: None,
            large: None,
            on_disk: None,
            size_bytes: 0,
            ends: Vec::new(),
        })
    }

    /// Bytes received.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The next bytes.
    ///
    /// # Errors
    /// If the node has no memory for them or the file can't be written.
    pub fn write(&mut self, mut bytes: &[u8], directory: &Path) -> Result<(), SpoolRefused> {
        self.size_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = CHUNK_PLAIN_BYTES - self.memory.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.reserve(self.memory.len() + now.len())?;
            self.memory.extend_from_slice(now);
            bytes = later;
            if self.memory.len() == CHUNK_PLAIN_BYTES && !bytes.is_empty() {
                if self.large.is_none() {
                    self.large = Some(self.budget.large.try_take(1).ok_or(SpoolRefused::Overloaded)?);
                }
                self.reserve_on_disk()?;
                self.spill(directory).map_err(|error| {
                    tracing::error!(directory = %directory.display(), %error, "a message on its way in can't be kept in a file");
                    SpoolRefused::Disk
                })?;
            }
        }
        Ok(())
    }

    /// A message is whole, and what comes from here on is another one, which is kept with it: together they take what one of
    /// their bytes does.
    pub fn end_message(&mut self) {
        self.ends.push(self.size_bytes);
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), SpoolRefused> {
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let needed = bytes.div_ceil(1024);
        if needed > held {
            // In steps, so that a message is not an acquisition for each packet.
            let more = (needed - held).max(32).min((CHUNK_PLAIN_BYTES >> 10).saturating_sub(held).max(1));
            let more = self.budget.take((more as u64) << 10).ok_or(SpoolRefused::Overloaded)?;
            match self.permit.as_mut() {
                Some(permit) => permit.merge(more),
                None => self.permit = Some(more),
            }
        }
        Ok(())
    }

    /// Room on the disk for one chunk more.
    fn reserve_on_disk(&mut self) -> Result<(), SpoolRefused> {
        let more = self.budget.files_kib.try_take((CHUNK_SEALED_MAX_BYTES as u32).div_ceil(1024));
        let more = more.ok_or(SpoolRefused::NoRoom)?;
        match self.on_disk.as_mut() {
            Some(held) => held.merge(more),
            None => self.on_disk = Some(more),
        }
        ::metrics::gauge!("mailraft_spool_bytes").increment(CHUNK_SEALED_MAX_BYTES as f64);
        Ok(())
    }

    fn spill(&mut self, directory: &Path) -> io::Result<()> {
        let file = match self.file.as_mut() {
            Some(file) => file,
            None => {
                let mut env = os_env();
                self.file.insert(SealedFile {
                    file: tempfile::tempfile_in(directory)?,
                    key: Key::generate(&mut env),
                    id: BodyId::generate(&mut env),
                    chunks: Vec::new(),
                    end: 0,
                })
            }
        };
        let sealed = seal_chunk(file.id, &file.key, file.chunks.len() as u32, false, &self.memory);
        file.file.write_all(&sealed)?;
        file.chunks.push((file.end, sealed.len() as u32));
        file.end += sealed.len() as u64;
        self.memory.clear();
        Ok(())
    }

    /// What the whole message claims of who sent it: it is read through once, on a thread of its own, and stays where it is.
    ///
    /// # Errors
    /// If its file can't be read.
    pub async fn claims(mut self) -> Result<(Self, Claims), SpoolRefused> {
        let turn = self.turn().await?;
        let read = tokio::task::spawn_blocking(move || {
            let mut reader = Reader::default();
            if let Some(file) = &mut self.file {
                file.each_piece(|piece| reader.push(piece))?;
            }
            reader.push(&self.memory);
            let claims = reader.finish();
            drop(turn);
            Ok((self, claims))
        });
        read.await.map_err(|_| SpoolRefused::Disk)?
    }

    /// Waits for its turn to be read as a whole.
    async fn turn(&self) -> Result<ParseTurn, SpoolRefused> {
        let waits = Instant::now();
        let turns = if self.file.is_some() { &self.budget.large_parses } else { &self.budget.small_parses };
        let turn = ParseTurn::begin(turns.take(1).await.ok_or(SpoolRefused::Overloaded)?);
        ::metrics::histogram!("mailraft_parse_wait_seconds").record(waits.elapsed().as_secs_f64());
        Ok(turn)
    }

    /// The whole message, taken apart, with `prefix` before it. Waits until the node has memory for a large one, and for its turn: so many are taken
    /// apart at once, on threads of their own, and each takes at most [`PARSE_MEMORY_MAX_BYTES`] for that.
    ///
    /// # Errors
    /// If it has too much of something, or the node has no memory for what was made of it, or its file can't be read.
    pub async fn finish(mut self, prefix: &[u8], entrance: Entrance) -> Result<SpooledMessage, SpoolRefused> {
        assert!(self.ends.is_empty(), "several messages are finished each");
        let memory = self.whole_memory().await?;
        let turn = self.turn().await?;
        let prefix = prefix.to_vec();
        let ours = prefix.len();
        let parsed = tokio::task::spawn_blocking(move || {
            let mut message = Zeroizing::new(prefix);
            message.reserve_exact(self.size_bytes as usize);
            if let Some(mut file) = self.file.take() {
                file.each_piece(|piece| message.extend_from_slice(piece))?;
            }
            message.extend_from_slice(&self.memory);
            check(&message)?;
            if let Entrance::Elsewhere { names } = &entrance {
                claims::without_our_claims(&mut message, ours, names);
            }
            // By what was sent: what is added is another each time that is sent.
            let content_digest = content_digest(&message[ours..]);
            if let Entrance::Submission { date, message_id } = &entrance {
                header::complete(&mut message, ours, date, message_id);
            }
            let said = &message[ours..];
            match entrance {
                Entrance::Submission { .. } | Entrance::Elsewhere { .. }
                    if header::hops(&said[..header::header_len(said)]) > HOPS_MAX =>
                {
                    return Err(SpoolRefused::Circle);
                }
                Entrance::Append | Entrance::Submission { .. } | Entrance::Elsewhere { .. } => {}
            }
            let whole = SpooledMessage::parse(message, content_digest, memory, self.large.take(), &self.budget);
            drop(turn);
            whole
        });
        parsed.await.map_err(|_| SpoolRefused::Disk)?
    }

    /// The messages that are put into a folder together, each taken apart, one after the other in one turn. What they take
    /// counts for the first: they are kept until the mailbox has answered for all.
    ///
    /// # Errors
    /// As [`Spool::finish`], if it is so with any of them.
    pub async fn finish_each(mut self) -> Result<Vec<SpooledMessage>, SpoolRefused> {
        let mut memory = self.whole_memory().await?;
        let turn = self.turn().await?;
        let parsed = tokio::task::spawn_blocking(move || {
            let mut each = Vec::with_capacity(self.ends.len() + 1);
            for message in self.read_each()? {
                check(&message)?;
                let digest = content_digest(&message);
                each.push(SpooledMessage::parse(message, digest, memory.take(), self.large.take(), &self.budget)?);
            }
            drop(turn);
            Ok(each)
        });
        parsed.await.map_err(|_| SpoolRefused::Disk)?
    }

    /// Waits for the memory in which all of it is at once.
    async fn whole_memory(&mut self) -> Result<Option<OwnedSemaphorePermit>, SpoolRefused> {
        if self.file.is_none() {
            return Ok(self.permit.take());
        }
        // What was held covers one chunk; what is large is read back to be parsed.
        self.permit = None;
        Ok(Some(self.budget.wait(self.size_bytes).await.ok_or(SpoolRefused::Overloaded)?))
    }

    /// The messages, each by itself.
    fn read_each(&mut self) -> Result<Vec<Zeroizing<Vec<u8>>>, SpoolRefused> {
        let (mut from, mut lengths, mut messages) = (0, Vec::new(), Vec::new());
        for end in self.ends.drain(..).chain([self.size_bytes]) {
            let length = (end - from) as usize;
            messages.push(Zeroizing::new(Vec::with_capacity(length)));
            lengths.push(length);
            from = end;
        }
        let mut at = 0;
        let mut put = |mut piece: &[u8]| {
            while !piece.is_empty() {
                let left = lengths[at] - messages[at].len();
                let (own, behind) = piece.split_at(left.min(piece.len()));
                messages[at].extend_from_slice(own);
                at += usize::from(own.len() == left);
                piece = behind;
            }
        };
        if let Some(mut file) = self.file.take() {
            file.each_piece(&mut put)?;
        }
        put(&self.memory);
        Ok(messages)
    }
}

/// Whether a message may be kept at all.
fn check(message: &[u8]) -> Result<(), SpoolRefused> {
    octets::check(message).map_err(SpoolRefused::Octets)?;
    match header::header_len(message) > HEADER_MAX_BYTES {
        true => Err(SpoolRefused::TooMuch(TooMuch::Header)),
        false => Ok(()),
    }
}

/// SHA-256 of a message without its trace fields.
fn content_digest(message: &[u8]) -> [u8; 32] {
    let mut content = Sha256::new();
    header::without_trace(message, |part| content.update(part));
    content.finalize().into()
}

/// The memory that one message may take while it is taken apart.
struct ParseTurn {
    _permit: OwnedSemaphorePermit,
}

impl ParseTurn {
    fn begin(permit: OwnedSemaphorePermit) -> Self {
        ::metrics::gauge!("mailraft_parse_memory_bytes").increment(PARSE_MEMORY_MAX_BYTES as f64);
        ParseTurn { _permit: permit }
    }
}

impl Drop for ParseTurn {
    fn drop(&mut self) {
        ::metrics::gauge!("mailraft_parse_memory_bytes").decrement(PARSE_MEMORY_MAX_BYTES as f64);
    }
}

impl Drop for SealedFile {
    fn drop(&mut self) {
        ::metrics::gauge!("mailraft_spool_bytes").decrement((self.chunks.len() * CHUNK_SEALED_MAX_BYTES) as f64);
    }
}

impl SealedFile {
    fn each_piece(&mut self, mut piece: impl FnMut(&[u8])) -> Result<(), SpoolRefused> {
        let mut read = |file: &mut Self| -> io::Result<()> {
            file.file.seek(SeekFrom::Start(0))?;
            let mut sealed = Vec::with_capacity(CHUNK_SEALED_MAX_BYTES);
            for (number, (_, len)) in file.chunks.iter().enumerate() {
                sealed.resize(*len as usize, 0);
                file.file.read_exact(&mut sealed)?;
                let plain = open_chunk(file.id, &file.key, number as u32, false, &sealed)
                    .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
                piece(&plain);
            }
            Ok(())
        };
        read(self).map_err(|error| {
            tracing::error!(%error, "a message on its way in can't be read back");
            SpoolRefused::Disk
        })
    }
}

impl SpooledMessage {
    fn parse(
        message: Zeroizing<Vec<u8>>,
        content_digest: [u8; 32],
        memory: Option<OwnedSemaphorePermit>,
        large: Option<OwnedSemaphorePermit>,
        budget: &Budget,
    ) -> Result<Self, SpoolRefused> {
        let block = &message[..header::header_len(&message)];
        let Described { envelope, structure } = Described::of(&message).map_err(SpoolRefused::TooMuch)?;
        let envelope: Bytes = versioned_encode(PARSED_VERSION, &envelope).into();
        let structure: Bytes = versioned_encode(PARSED_VERSION, &structure).into();
        let kept_bytes = header::kept(block).len() + envelope.len() + structure.len();
        let description = budget.take(kept_bytes as u64).ok_or(SpoolRefused::Overloaded)?;
        let message_id = header::message_id(block).map(|id| String::from_utf8_lossy(&id).into_owned());
        Ok(SpooledMessage {
            digest: Sha256::digest(message.as_slice()).into(),
            content_digest,
            header: Bytes::copy_from_slice(header::kept(block)),
            envelope,
            structure,
            message_id,
            authors: envelope::authors(block, AUTHORS_MAX),
            message,
            _memory: memory,
            _description: description,
            _large: large,
        })
    }

    /// Whom its From and Sender fields name; None if one of them can't be understood, or they name more than
    /// [`AUTHORS_MAX`].
    pub fn authors(&self) -> Option<&[String]> {
        self.authors.as_deref()
    }

    /// Whether an address has forwarded it before, as its Delivered-To fields say.
    pub fn was_delivered_to(&self, address: &str) -> bool {
        header::was_delivered_to(&self.header, address)
    }

    /// SHA-256 of what was sent, without trace fields.
    pub fn content_digest(&self) -> [u8; 32] {
        self.content_digest
    }

    /// Whether it has a Message-ID field.
    pub fn has_message_id(&self) -> bool {
        self.message_id.is_some()
    }

    /// A new message for the mailbox, under a new body id and key; with the body in it, if it fits one chunk.
    pub fn seal(&self) -> NewMessage {
        let mut env = os_env();
        let (body, key) = (BodyId::generate(&mut env), Key::generate(&mut env));
        let chunks = chunk_count(self.message.len() as u64);
        NewMessage {
            body,
            chunks,
            inline: (chunks == 1).then(|| seal_chunk(body, &key, 0, true, &self.message)),
            body_key: key,
            size_bytes: self.message.len() as u64,
            digest: self.digest,
            content_digest: self.content_digest,
            header: self.header.clone(),
            envelope: self.envelope.clone(),
            structure: self.structure.clone(),
            message_id: self.message_id.clone(),
        }
    }

    /// One sealed chunk of this message, as it was sealed for the mailbox.
    pub fn seal_chunk(&self, new_message: &NewMessage, number: u32) -> Bytes {
        let from = number as usize * CHUNK_PLAIN_BYTES;
        let to = self.message.len().min(from + CHUNK_PLAIN_BYTES);
        seal_chunk(
            new_message.body,
            &new_message.body_key,
            number,
            number + 1 == new_message.chunks,
            &self.message[from..to],
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message(bytes: usize) -> Vec<u8> {
        let mut m = b"Subject: spooled\r\n\r\n".to_vec();
        m.extend((0..bytes).map(|n| b'a' + (n % 23) as u8));
        m
    }

    fn entrances() -> [Entrance; 3] {
        let (date, message_id) = ("now".to_owned(), "<1@mx>".to_owned());
        [
            Entrance::Append,
            Entrance::Submission { date, message_id },
            Entrance::Elsewhere { names: vec!["mx".to_owned()] },
        ]
    }

    #[tokio::test]
    async fn what_goes_in_a_circle_is_refused_but_may_be_put_into_a_folder() {
        let budget = Budget::new(4 << 20, 8, 64 << 20);
        for (hops, refused) in [(HOPS_MAX, [false; 3]), (HOPS_MAX + 1, [false, true, true])] {
            for (entrance, refused) in entrances().into_iter().zip(refused) {
                let mut spool = Spool::new(&budget).unwrap();
                let message = "Received: x\r\n".repeat(hops) + "\r\nReceived: no field\r\n";
                spool.write(message.as_bytes(), Path::new("/")).unwrap();
                let finished = spool.finish(b"Received: ours\r\n", entrance).await;
                assert_eq!(finished.err(), refused.then_some(SpoolRefused::Circle));
            }
        }
    }

    #[tokio::test]
    async fn what_is_submitted_again_is_known_again_though_it_gets_another_id() {
        let budget = Budget::new(4 << 20, 8, 64 << 20);
        let mut digests = Vec::new();
        for id in ["<1@mx>", "<2@mx>"] {
            let mut spool = Spool::new(&budget).unwrap();
            spool.write(b"Bcc: c@d\r\nSubject: x\r\n\r\n", Path::new("/")).unwrap();
            let entrance = Entrance::Submission { date: id.to_owned(), message_id: id.to_owned() };
            let sealed = spool.finish(b"T: x\r\n", entrance).await.unwrap().seal();
            assert_eq!(sealed.message_id.as_deref(), Some(id));
            assert_eq!(sealed.header, format!("T: x\r\nDate: {id}\r\nMessage-ID: {id}\r\nSubject: x\r\n\r\n"));
            digests.push((sealed.content_digest, sealed.digest));
        }
        assert!(digests[0].0 == digests[1].0 && digests[0].1 != digests[1].1);
    }

    #[tokio::test]
    async fn messages_small_and_large_come_back_whole() {
        let directory = tempfile::tempdir().unwrap();
        let budget = Budget::new(4 << 20, 8, 64 << 20);
        for size in [0, 100, CHUNK_PLAIN_BYTES - 20, CHUNK_PLAIN_BYTES, 3 * CHUNK_PLAIN_BYTES + 5] {
            let whole = message(size);
            let mut spool = Spool::new(&budget).unwrap();
            for part in whole.chunks(7_001) {
                spool.write(part, directory.path()).unwrap();
            }
            let received = spool.finish(b"Received: x\r\n", Entrance::Append).await.unwrap();
            let new_message = received.seal();
            let mut back = Vec::new();
            for n in 0..new_message.chunks {
                let sealed = received.seal_chunk(&new_message, n);
                let plain =
                    open_chunk(new_message.body, &new_message.body_key, n, n + 1 == new_message.chunks, &sealed)
                        .unwrap();
                back.extend_from_slice(&plain);
            }
            assert_eq!(back, [b"Received: x\r\n".as_slice(), &whole].concat());
            assert_eq!(new_message.size_bytes, back.len() as u64);
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "the file has no name");
        }
    }

    #[tokio::test]
    async fn large_messages_are_bounded_and_small_ones_go_on() {
        let directory = tempfile::tempdir().unwrap();
        let budget = Budget::new(8 << 20, 2, 64 << 20);
        let large = || {
            let mut spool = Spool::new(&budget).unwrap();
            spool.write(&message(CHUNK_PLAIN_BYTES), directory.path()).map(|()| spool)
        };
        let (first, second) = (large().unwrap(), large().unwrap());
        assert_eq!(large().err(), Some(SpoolRefused::Overloaded));
        assert_eq!(Spool::new(&budget).unwrap().write(&[b'x'; 1_000], directory.path()), Ok(()));
        // A whole message holds its place until it is with its mailbox.
        let whole = first.finish(b"", Entrance::Append).await.unwrap();
        assert!(large().is_err());
        drop(whole);
        assert!(large().is_ok());
        drop(second);
    }

    #[tokio::test]
    async fn messages_that_come_together_come_back_each_by_itself_and_take_what_one_of_their_bytes_does() {
        let directory = tempfile::tempdir().unwrap();
        let budget = Budget::new(2 << 20, 1, 64 << 20);
        let lengths = [
            vec![10, 0, 100],
            vec![100, CHUNK_PLAIN_BYTES, 3],
            vec![CHUNK_PLAIN_BYTES - 20, CHUNK_PLAIN_BYTES - 20, 5],
            vec![1_000; 256],
            vec![3 * CHUNK_PLAIN_BYTES + 7, 2 * CHUNK_PLAIN_BYTES],
        ];
        for lengths in lengths {
            let messages: Vec<Vec<u8>> = lengths.iter().map(|bytes| message(*bytes)).collect();
            let mut spool = Spool::new(&budget).unwrap();
            for (number, whole) in messages.iter().enumerate() {
                if number > 0 {
                    spool.end_message();
                }
                whole.chunks(7_001).for_each(|part| spool.write(part, directory.path()).unwrap());
                assert!(budget.taken_bytes() <= CHUNK_PLAIN_BYTES as u64, "while they come");
            }
            let whole = spool.finish_each().await.unwrap();
            let bytes: usize = messages.iter().map(Vec::len).sum();
            assert!(budget.taken_bytes() >= bytes as u64);
            let back: Vec<&[u8]> = whole.iter().map(|spooled| spooled.message.as_slice()).collect();
            assert_eq!(back, messages);
            drop(whole);
            assert_eq!(budget.taken_bytes(), 0);
        }
    }

    #[tokio::test]
    async fn of_messages_that_come_together_one_that_may_not_be_kept_leaves_none() {
        let budget = Budget::new(4 << 20, 1, 64 << 20);
        let mut spool = Spool::new(&budget).unwrap();
        for text in ["A: b\r\n\r\n", "A: b\n\nb", "A: b\r\n\r\n"] {
            spool.write(text.as_bytes(), Path::new("/")).unwrap();
            spool.end_message();
        }
        assert_eq!(spool.finish_each().await.err(), Some(SpoolRefused::Octets(WrongOctet::BareLineEnd)));
        assert_eq!(budget.taken_bytes(), 0);
    }

    #[tokio::test]
    async fn files_of_messages_on_their_way_are_bounded_and_give_their_room_back() {
        let directory = tempfile::tempdir().unwrap();
        let budget = Budget::new(8 << 20, 8, 1 << 20);
        let mut first = Spool::new(&budget).unwrap();
        first.write(&message(2 * CHUNK_PLAIN_BYTES), directory.path()).unwrap();
        let mut second = Spool::new(&budget).unwrap();
        let more = second.write(&message(2 * CHUNK_PLAIN_BYTES), directory.path());
        assert_eq!(more, Err(SpoolRefused::NoRoom));
        drop(second);
        // Read back, it is on the disk no more.
        let whole = first.finish(b"", Entrance::Append).await.unwrap();
        let mut third = Spool::new(&budget).unwrap();
        third.write(&message(2 * CHUNK_PLAIN_BYTES), directory.path()).unwrap();
        drop(whole);
    }

    #[tokio::test]
    async fn what_a_mailbox_would_not_keep_whole_is_refused_and_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let budget = Budget::new(64 << 20, 8, 64 << 20);
        let message = |header: &str| format!("Content-Type: message/rfc822\r\n\r\n{header}\r\n\r\nx\r\n");
        for (whole, refused) in [
            (format!("A: {}\r\n\r\n", "x".repeat(HEADER_MAX_BYTES)), TooMuch::Header),
            (message(&format!("To: {}", "a@b,".repeat(1 << 20))), TooMuch::PartHeader),
            (message(&format!("To: {}", "a@b,".repeat(60_000))), TooMuch::Description),
            (message(&"Content-Type: message/rfc822\r\n\r\n".repeat(60)), TooMuch::Depth),
            (
                format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", "--b\r\n\r\n".repeat(4_001)),
                TooMuch::Parts,
            ),
        ] {
            let mut spool = Spool::new(&budget).unwrap();
            spool.write(whole.as_bytes(), directory.path()).unwrap();
            assert_eq!(spool.finish(b"", Entrance::Append).await.err(), Some(SpoolRefused::TooMuch(refused)));
        }
        for (whole, wrong) in [("A: b\r\n\r\na\0b", WrongOctet::Nul), ("A: b\n\nb", WrongOctet::BareLineEnd)] {
            let mut spool = Spool::new(&budget).unwrap();
            spool.write(whole.as_bytes(), directory.path()).unwrap();
            assert_eq!(spool.finish(b"", Entrance::Append).await.err(), Some(SpoolRefused::Octets(wrong)));
        }
    }

    #[tokio::test]
    async fn so_many_messages_are_taken_apart_at_once_and_small_ones_wait_for_no_large_one() {
        let directory = tempfile::tempdir().unwrap();
        let budget = Budget::new(64 << 20, 8, 64 << 20);
        let spool = |bytes| {
            let mut spool = Spool::new(&budget).unwrap();
            spool.write(&message(bytes), directory.path()).unwrap();
            spool
        };
        let all = budget.large_parses.take(u32::MAX).await.unwrap();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        assert_eq!(all.num_permits(), (processors / 2).max(1));
        let mut large = Box::pin(spool(2 * CHUNK_PLAIN_BYTES).finish(b"", Entrance::Append));
        tokio::select! { biased; _ = &mut large => panic!("it has no turn yet"), () = std::future::ready(()) => {} }
        assert!(spool(100).finish(b"", Entrance::Append).await.is_ok());
        tokio::select! { biased; _ = &mut large => panic!("it still has none"), () = std::future::ready(()) => {} }
        drop(all);
        assert!(large.await.is_ok());
        assert!(parse_memory_max_bytes(64) <= 1 << 30, "also on a large machine it is little");
    }

    #[tokio::test]
    async fn what_is_made_of_a_message_counts_until_its_mailbox_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let budget = Budget::new(1 << 20, 8, 64 << 20);
        let people = format!("To: {}\r\n\r\n", "Some Body <some.body@example.org>,".repeat(6_000));
        let spool = || {
            let mut spool = Spool::new(&budget).unwrap();
            spool.write(people.as_bytes(), directory.path()).unwrap();
            spool
        };
        let (first, second) = (spool(), spool());
        let kept = first.finish(b"", Entrance::Append).await.unwrap();
        assert_eq!(second.finish(b"", Entrance::Append).await.err(), Some(SpoolRefused::Overloaded));
        drop(kept);
        assert!(spool().finish(b"", Entrance::Append).await.is_ok());
    }

    #[tokio::test]
    async fn the_budget_bounds_all_sessions_together() {
        let directory = tempfile::tempdir().unwrap();
        let budget = Budget::new(64 << 10, 8, 64 << 20);
        let mut held = Vec::new();
        for _ in 0..4 {
            let mut spool = Spool::new(&budget).unwrap();
            spool.write(&[b'x'; 16 << 10], directory.path()).ok();
            held.push(spool);
        }
        assert_eq!(held[3].write(&[b'x'; 200 << 10], directory.path()), Err(SpoolRefused::Overloaded));
        held.clear();
        assert!(Spool::new(&budget).is_ok());
    }
}
