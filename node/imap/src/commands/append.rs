//! APPEND (RFC 3501, section 6.3.11; UIDPLUS, RFC 4315), also of several messages (MULTIAPPEND, RFC 3502), and REPLACE
//! (RFC 8508), which also ends another message.

use mailraft_mailbox::api::{APPEND_MESSAGES_MAX, FolderId, ZonedTime};
use mailraft_mailbox::{Flags, UidSet};
use mailraft_message::octets::LineEnds;
use mailraft_protocol::{Failure, Out, Output, Refusal};

use crate::cursor::{Cursor, Recent, SequenceSet};
use crate::date;
use crate::opened::Names;
use crate::outcome::{Done, Outcome, ok, uid_required};
use crate::state::State;
use crate::store::Mailstore;

/// What several messages that are appended at once may have together, in bytes, but no more than one may have: all of them
/// are in memory when the last has come.
pub(crate) const TOGETHER_MAX_BYTES: u64 = 8 << 20;

/// An APPEND before its last message.
#[derive(Debug)]
pub(crate) struct Append {
    folder: String,
    /// The flags and dates of the messages, with that of the one that comes now.
    each: Vec<(Flags, Option<ZonedTime>)>,
    /// How the one that comes now does.
    literal: Literal,
    /// Some came as literals that may have NULs.
    is_binary: bool,
    /// The bytes of those that are whole.
    whole_bytes: u64,
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
    /// What is told where it is longer with its line ends, which may be as long as was announced.
    longer: Refusal,
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
    let (flags, internal_date, literal) = before_literal(c, state)?;
    let max_bytes = state.config.max_message_bytes;
    check_size(size_bytes, max_bytes)?;
    let is_binary = literal != Literal::Plain;
    Ok(Append { folder, each: vec![(flags, internal_date)], literal, is_binary, whole_bytes: 0, replaces })
}

/// Reads what stands before a message, from the space on.
fn before_literal(c: &mut Cursor<'_>, state: &State) -> Result<(Flags, Option<ZonedTime>, Literal), Done> {
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
    Ok((flags, internal_date, literal))
}

fn check_size(size_bytes: u64, max_bytes: u64) -> Result<(), Done> {
    match size_bytes {
        // How a client gives up what it has begun (RFC 3502, section 6.3.11).
        0 => Err(Done::No("[CANNOT] a message has octets; nothing is appended".into())),
        _ if size_bytes > max_bytes => Err(Refusal::MessageTooLong(max_bytes).into()),
        _ => Ok(()),
    }
}

/// A message is whole, and another one comes behind it (RFC 3502).
pub(crate) fn next<S: Mailstore>(
    append: &mut Append,
    receiving: Receiving,
    c: &mut Cursor<'_>,
    size_bytes: u64,
    state: &State,
    store: &mut S,
) -> Result<Receiving, Done> {
    if append.replaces.is_some() {
        return Err(Done::Bad("REPLACE takes one message".into()));
    }
    if append.literal == Literal::Utf8 {
        c.expect(b')')?;
    }
    let max_bytes = state.config.max_message_bytes.min(TOGETHER_MAX_BYTES);
    append.whole_bytes += receiving.end(store)?;
    let left_bytes = max_bytes.saturating_sub(append.whole_bytes);
    let (flags, internal_date, literal) = before_literal(c, state)?;
    if append.each.len() >= APPEND_MESSAGES_MAX {
        return Err(Refusal::Limit(format!("at most {APPEND_MESSAGES_MAX} messages are appended at once")).into());
    }
    check_size(size_bytes, state.config.max_message_bytes)?;
    let longer = Refusal::Limit(format!("messages that are appended at once have at most {max_bytes} bytes together"));
    if size_bytes > left_bytes {
        return Err(longer.into());
    }
    store.next_message()?;
    append.each.push((flags, internal_date));
    append.is_binary |= literal != Literal::Plain;
    append.literal = literal;
    Ok(Receiving::new(left_bytes, longer))
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
    /// Of the first message of a command, which may have so many bytes.
    pub(crate) fn first(max_bytes: u64) -> Self {
        Receiving::new(max_bytes, Refusal::MessageTooLong(max_bytes))
    }

    fn new(max_bytes: u64, longer: Refusal) -> Self {
        Receiving { line_ends: LineEnds::default(), left_bytes: max_bytes, max_bytes, longer, refusal: None }
    }

    /// The next bytes of the message.
    pub(crate) fn take<S: Mailstore>(&mut self, bytes: &[u8], store: &mut S) {
        let mut lines = Vec::with_capacity(bytes.len() + 2);
        self.line_ends.take(bytes, &mut lines);
        self.keep(&lines, store);
    }

    /// The message has ended: how many bytes it has.
    fn end<S: Mailstore>(mut self, store: &mut S) -> Result<u64, Refusal> {
        let mut lines = Vec::new();
        std::mem::take(&mut self.line_ends).end(&mut lines);
        self.keep(&lines, store);
        self.refusal.map_or(Ok(self.max_bytes - self.left_bytes), Err)
    }

    fn keep<S: Mailstore>(&mut self, lines: &[u8], store: &mut S) {
        if self.refusal.is_some() {
            return;
        }
        match self.left_bytes.checked_sub(lines.len() as u64) {
            Some(left) => self.left_bytes = left,
            None => self.refusal = Some(self.longer.clone()),
        }
        if self.refusal.is_none() {
            self.refusal = store.receive(lines).err();
        }
    }
}

/// Appends what was received, unless it could not be kept.
pub(crate) async fn run<S: Mailstore, O: Output>(
    state: &mut State,
    append: Append,
    receiving: Receiving,
    rest: &[u8],
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    let closing: &[u8] = if append.literal == Literal::Utf8 { b")" } else { b"" };
    if rest != closing {
        store.discard();
        return Err(Done::Bad("nothing comes behind the last message".into()));
    }
    if let Err(refusal) = receiving.end(store) {
        store.discard();
        return Err(refusal.into());
    }
    let Append { folder, mut each, is_binary, replaces, .. } = append;
    let stored = match (replaces, each.len()) {
        (Some(replaced), 1) => {
            let (flags, internal_date) = each.remove(0);
            store
                .replace(replaced, folder, flags, internal_date)
                .await
                .map(|(uid_validity, uid)| (uid_validity, vec![uid]))
        }
        _ => store.append(folder, each).await,
    };
    let (uid_validity, uids) = match stored {
        Err(Failure::NotDone(Refusal::MessageOctets(why))) if is_binary => {
            // RFC 3516, section 4.4
            return Err(Done::No(format!("[UNKNOWN-CTE] {why}")));
        }
        appended => appended?,
    };
    let uids: UidSet = uids.into_iter().collect();
    state.does_itself_in(uid_validity, &uids);
    if let Some((_, uid)) = replaces {
        state.does_itself(&UidSet::range(uid, uid));
    }
    if replaces.is_some() {
        // Before the expunge (RFC 8508, section 3.3).
        out.line(&format!("* OK [APPENDUID {uid_validity} {uids}] the replacement is stored"));
        return ok("REPLACE");
    }
    Ok(Done::Ok(format!("[APPENDUID {uid_validity} {uids}] APPEND done")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Talk, logged_in};

    /// A session that takes messages of so many bytes.
    fn taking(max_bytes: u64) -> Talk {
        let mut talk = logged_in();
        talk.session.state.config.max_message_bytes = max_bytes;
        talk
    }

    fn messages(talk: &mut Talk, lengths: impl IntoIterator<Item = u64>) -> String {
        let before = talk.store().inbox().len();
        talk.say(b"a APPEND INBOX");
        for length in lengths {
            let mut text = "\r\n".to_owned() + &"x".repeat(length as usize);
            text.truncate(length as usize);
            talk.say(format!(" {{{length}+}}\r\n{text}").as_bytes());
        }
        talk.say(b"\r\n");
        let heard = talk.take_heard();
        let appended = talk.store().inbox().len() - before;
        talk.say(b"b NOOP\r\n");
        assert!(talk.take_heard().ends_with("b OK NOOP done\r\n"), "nothing that came counts as a command");
        assert_eq!(appended > 0, heard.starts_with("a OK"), "{heard}");
        heard
    }

    #[test]
    fn so_many_messages_are_appended_at_once_and_no_more() {
        let mut talk = logged_in();
        let most = APPEND_MESSAGES_MAX;
        let heard = messages(&mut talk, std::iter::repeat_n(3, most));
        assert_eq!(heard, format!("a OK [APPENDUID 1 3:{}] APPEND done\r\n", most + 2));
        for more in [1, 3] {
            let heard = messages(&mut talk, std::iter::repeat_n(3, most + more));
            assert_eq!(heard, format!("a NO [LIMIT] at most {most} messages are appended at once\r\n"));
        }
    }

    #[test]
    fn messages_that_are_appended_at_once_have_so_many_bytes_together_and_no_more() {
        let mut talk = taking(TOGETHER_MAX_BYTES + 1);
        let refused = format!(
            "a NO [LIMIT] messages that are appended at once have at most {TOGETHER_MAX_BYTES} bytes together\r\n"
        );
        let heard = messages(&mut talk, [TOGETHER_MAX_BYTES - 7, 7]);
        assert_eq!(heard, "a OK [APPENDUID 1 3:4] APPEND done\r\n");
        assert_eq!(messages(&mut talk, [TOGETHER_MAX_BYTES - 7, 8]), refused);
        assert_eq!(messages(&mut talk, [TOGETHER_MAX_BYTES + 1, 3]), refused);
        assert!(messages(&mut talk, [TOGETHER_MAX_BYTES + 1]).starts_with("a OK"), "one may have more");
    }
}
