//! APPEND (RFC 3501, section 6.3.11; UIDPLUS, RFC 4315).

use mailraft_mailbox::Flags;
use mailraft_mailbox::api::ZonedTime;
use mailraft_message::octets::LineEnds;
use mailraft_protocol::Refusal;

use crate::cursor::{Cursor, Recent};
use crate::date;
use crate::outcome::{Done, Outcome};
use crate::state::Config;
use crate::store::Mailstore;

/// An APPEND before its message.
#[derive(Debug)]
pub(crate) struct Append {
    folder: String,
    flags: Flags,
    internal_date: Option<ZonedTime>,
}

/// The message as it comes, with CRLF where clients send other line ends: its size and UID are those of what is kept.
#[derive(Debug)]
pub(crate) struct Receiving {
    line_ends: LineEnds,
    left_bytes: u64,
    max_bytes: u64,
    refusal: Option<Refusal>,
}

/// Reads everything before the message.
pub(crate) fn parse(c: &mut Cursor<'_>, size_bytes: u64, config: &Config) -> Result<Append, Done> {
    c.space()?;
    c.word()?;
    c.space()?;
    let folder = c.folder()?;
    c.space()?;
    let mut flags = Flags::none();
    if c.peek() == Some(b'(') {
        flags = c.flag_list(Recent::Ignored)?;
        c.space()?;
    }
    let mut internal_date = None;
    if c.peek() == Some(b'"') {
        let text = c.text()?;
        internal_date = Some(
            date::parse(&text).ok_or_else(|| Done::Bad("a date-time reads \"17-Jul-1996 02:44:25 -0700\"".into()))?,
        );
        c.space()?;
    }
    c.end()?;
    if size_bytes > config.max_message_bytes {
        return Err(Refusal::MessageTooLong(config.max_message_bytes).into());
    }
    Ok(Append { folder, flags, internal_date })
}

impl Receiving {
    /// Of a message that may have so many bytes.
    pub(crate) fn new(left_bytes: u64) -> Self {
        Receiving { line_ends: LineEnds::default(), left_bytes, max_bytes: left_bytes, refusal: None }
    }

    /// The next bytes of the message.
    pub(crate) fn take<S: Mailstore>(&mut self, bytes: &[u8], store: &mut S) {
        let mut lines = Vec::with_capacity(bytes.len() + 2);
        self.line_ends.take(bytes, &mut lines);
        self.keep(&lines, store);
    }

    /// The message has ended.
    fn end<S: Mailstore>(mut self, store: &mut S) -> Result<(), Refusal> {
        let mut lines = Vec::new();
        std::mem::take(&mut self.line_ends).end(&mut lines);
        self.keep(&lines, store);
        self.refusal.map_or(Ok(()), Err)
    }

    fn keep<S: Mailstore>(&mut self, lines: &[u8], store: &mut S) {
        if self.refusal.is_some() {
            return;
        }
        match self.left_bytes.checked_sub(lines.len() as u64) {
            Some(left) => self.left_bytes = left,
            // What was announced fits, but not with its line ends.
            None => self.refusal = Some(Refusal::MessageTooLong(self.max_bytes)),
        }
        if self.refusal.is_none() {
            self.refusal = store.receive(lines).err();
        }
    }
}

/// Appends the message that was received, unless it could not be kept.
pub(crate) async fn run<S: Mailstore>(append: Append, receiving: Receiving, rest: &[u8], store: &mut S) -> Outcome {
    if !rest.is_empty() {
        store.discard();
        return Err(Done::Bad("APPEND takes one message".into()));
    }
    if let Err(refusal) = receiving.end(store) {
        store.discard();
        return Err(refusal.into());
    }
    let (uid_validity, uid) = store.append(append.folder, append.flags, append.internal_date).await?;
    Ok(Done::Ok(format!("[APPENDUID {uid_validity} {uid}] APPEND done")))
}
