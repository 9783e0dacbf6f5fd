//! APPEND (RFC 3501, section 6.3.11; UIDPLUS, RFC 4315), and REPLACE (RFC 8508), which also ends another message.

use mailraft_mailbox::Flags;
use mailraft_mailbox::api::{FolderId, ZonedTime};
use mailraft_message::octets::LineEnds;
use mailraft_protocol::{Failure, Out, Output, Refusal};

use crate::cursor::{Cursor, Recent, SequenceSet};
use crate::date;
use crate::opened::Names;
use crate::outcome::{Done, Outcome, ok, uid_required};
use crate::state::State;
use crate::store::Mailstore;

/// An APPEND before its message.
#[derive(Debug)]
pub(crate) struct Append {
    folder: String,
    flags: Flags,
    internal_date: Option<ZonedTime>,
    literal: Literal,
    /// The folder and the UID of the message that it takes the place of.
    replaces: Option<(FolderId, u32)>,
}

/// How the message comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Literal {
    Plain,
    /// As a literal that may have NULs (RFC 3516), which no message here has.
    Binary,
    /// The same in UTF8 (...) (RFC 6855).
    Utf8,
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
pub(crate) fn parse(c: &mut Cursor<'_>, size_bytes: u64, state: &State) -> Result<Append, Done> {
    c.space()?;
    let replaces = match c.word()?.as_str() {
        "APPEND" => None,
        "REPLACE" => Some(replaced(c, Names::Numbers, state)?),
        _ => {
            c.space()?;
            c.word()?;
            Some(replaced(c, Names::Uids, state)?)
        }
    };
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
    let literal = match state.takes_utf8() && c.eat_text("UTF8 (") {
        true => Literal::Utf8,
        false if c.peek() == Some(b'~') => Literal::Binary,
        false => Literal::Plain,
    };
    if literal != Literal::Plain {
        c.expect(b'~')?;
    }
    c.end()?;
    if size_bytes > state.config.max_message_bytes {
        return Err(Refusal::MessageTooLong(state.config.max_message_bytes).into());
    }
    Ok(Append { folder, flags, internal_date, literal, replaces })
}

/// The message that another one takes the place of.
fn replaced(c: &mut Cursor<'_>, names: Names, state: &State) -> Result<(FolderId, u32), Done> {
    c.space()?;
    let SequenceSet(ranges) = c.sequence_set()?;
    let view = state.view.as_ref().ok_or_else(|| Done::Bad("SELECT a folder first".into()))?;
    if state.uid_only && names == Names::Numbers {
        return Err(uid_required());
    }
    let [(from, to)] = ranges.as_slice() else { return Err(Done::Bad("REPLACE is of one message".into())) };
    if from != to {
        return Err(Done::Bad("REPLACE is of one message".into()));
    }
    if view.read_only {
        return Err(Done::No("[READ-ONLY] the folder was opened by EXAMINE".into()));
    }
    let set = SequenceSet(ranges);
    let named = match names {
        Names::Numbers => view.by_number(&set).ok_or_else(|| Done::Bad("there is no message of that number".into()))?,
        Names::Uids => view.by_uid(&set),
    };
    let uid = named.iter().next().filter(|uid| !view.is_expunged(*uid));
    uid.map(|uid| (view.folder, uid)).ok_or_else(Done::missing)
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
pub(crate) async fn run<S: Mailstore, O: Output>(
    append: Append,
    receiving: Receiving,
    rest: &[u8],
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    let closing: &[u8] = if append.literal == Literal::Utf8 { b")" } else { b"" };
    if rest != closing {
        store.discard();
        return Err(Done::Bad("APPEND takes one message".into()));
    }
    if let Err(refusal) = receiving.end(store) {
        store.discard();
        return Err(refusal.into());
    }
    let Append { folder, flags, internal_date, literal, replaces } = append;
    let stored = match replaces {
        Some(replaced) => store.replace(replaced, folder, flags, internal_date).await,
        None => store.append(folder, flags, internal_date).await,
    };
    let (uid_validity, uid) = match stored {
        Err(Failure::NotDone(Refusal::MessageOctets(why))) if literal != Literal::Plain => {
            // RFC 3516, section 4.4
            return Err(Done::No(format!("[UNKNOWN-CTE] {why}")));
        }
        appended => appended?,
    };
    if replaces.is_some() {
        // Before the expunge (RFC 8508, section 3.3).
        out.line(&format!("* OK [APPENDUID {uid_validity} {uid}] the replacement is stored"));
        return ok("REPLACE");
    }
    Ok(Done::Ok(format!("[APPENDUID {uid_validity} {uid}] APPEND done")))
}
