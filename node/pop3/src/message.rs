//! A message as a multi-line response (RFC 1939, sections 3, 5 and 7).

use mailraft_mailbox::api::{FetchWhat, FetchedContent};
use mailraft_mailbox::{Answer, Command, UidSet};
use mailraft_protocol::{BodyReader, Failure, Out, Output, Refusal};

use crate::maildrop::Maildrop;
use crate::refusals::{During, refuse};
use crate::reply::{err, ok};
use crate::state::State;

/// So much is put into a response at once.
const PIECE_BYTES: usize = 16 << 10;

/// Answers with a message, or with its header and the first lines of its body.
pub(crate) async fn send<M: Maildrop, O: Output>(
    state: &mut State,
    number: &[u8],
    body_lines: Option<u64>,
    maildrop: &mut M,
    out: &mut Out<O>,
) {
    let Some(opened) = state.opened(&mut out.bytes) else { return };
    let folder = opened.folder;
    let uid = match opened.find(number) {
        Ok((_, message)) => message.uid,
        Err(why) => return state.wrong(&mut out.bytes, why),
    };
    let mark = out.mark();
    let fetch =
        Command::Fetch { folder, uids: UidSet::range(uid, uid), what: FetchWhat { content: true, header: false } };
    let sent = match maildrop.ask(fetch).await {
        Ok(Answer::Fetched(fetched)) => match fetched.into_iter().next().and_then(|message| message.content) {
            Some(content) => print(&content, body_lines, maildrop, out).await,
            None => Ok(false),
        },
        Ok(_) => Err(Refusal::Corrupt.into()),
        Err(failure) => Err(failure),
    };
    match sent {
        Ok(true) => {}
        // A response of which the client has some can't be completed nor taken back: a word more would count as part of it.
        Ok(false) | Err(_) if !out.roll_back(mark) => state.closing = true,
        Ok(false) => err(&mut out.bytes, "somebody else has removed this message"),
        Err(failure) => refuse(state, &failure, During::Transaction, &mut out.bytes),
    }
}

/// Says a message; false if it is no more.
async fn print<M: Maildrop, O: Output>(
    content: &FetchedContent,
    body_lines: Option<u64>,
    maildrop: &mut M,
    out: &mut Out<O>,
) -> Result<bool, Failure> {
    match body_lines {
        None => ok(&mut out.bytes, &format!("{} octets", content.size_bytes)),
        Some(_) => ok(&mut out.bytes, "the top follows"),
    }
    let (mut reader, mut lines, mut at) = (BodyReader::default(), Lines::new(body_lines), 0);
    while at < content.size_bytes && !lines.are_enough() {
        let Some(piece) = reader.piece(content, at..content.size_bytes, maildrop).await? else { return Ok(false) };
        at += piece.len() as u64;
        for piece in piece.chunks(PIECE_BYTES) {
            lines.take(piece, &mut out.bytes);
            out.pass_on().await;
            if out.is_gone() {
                return Ok(true);
            }
            maildrop.breathe().await?;
            if maildrop.is_silent() {
                maildrop.ask(Command::Sync).await?;
            }
        }
    }
    lines.end(&mut out.bytes);
    Ok(true)
}

/// Lines of a message as they are sent: a dot before each that begins with one, and a line with a dot alone at the end.
struct Lines {
    /// So many lines of the body are still wanted; all for None.
    body: Option<u64>,
    in_header: bool,
    /// What there is of the present line, but for its end: as much as tells whether it is empty.
    line: Line,
    /// Whether the last two bytes are CRLF, or nothing was sent.
    ended: bool,
    last: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Begins,
    /// A CR alone.
    Cr,
    HasText,
}

impl Lines {
    fn new(body: Option<u64>) -> Self {
        Lines { body, in_header: true, line: Line::Begins, ended: true, last: b'\n' }
    }

    /// Whether no more lines are wanted.
    fn are_enough(&self) -> bool {
        !self.in_header && self.body == Some(0) && self.line == Line::Begins
    }

    /// Sends a piece of the message, or what is wanted of it.
    fn take(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        // Clients differ about whether a bare LF ends a line: a dot behind it is doubled too, so that none takes it for the
        // end of the message.
        for line in piece.split_inclusive(|b| *b == b'\n') {
            if self.are_enough() {
                return;
            }
            if self.line == Line::Begins && line[0] == b'.' {
                out.push(b'.');
            }
            out.extend_from_slice(line);
            let (text, ends) = line.strip_suffix(b"\n").map_or((line, false), |text| (text, true));
            self.line = match (self.line, text) {
                (line, []) => line,
                (Line::Begins, [b'\r']) => Line::Cr,
                _ => Line::HasText,
            };
            let before = if line.len() > 1 { line[line.len() - 2] } else { self.last };
            self.last = line[line.len() - 1];
            self.ended = before == b'\r' && self.last == b'\n';
            if ends {
                let empty = self.line != Line::HasText;
                self.line = Line::Begins;
                match &mut self.body {
                    _ if self.in_header => self.in_header = !empty,
                    Some(left) => *left -= 1,
                    None => {}
                }
            }
        }
    }

    /// Ends the response. A message that does not end with CRLF gets one.
    fn end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.ended { b".\r\n" } else { b"\r\n.\r\n" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(message: &[u8], body_lines: Option<u64>, piece_bytes: usize) -> String {
        let (mut lines, mut out) = (Lines::new(body_lines), Vec::new());
        for piece in message.chunks(piece_bytes) {
            lines.take(piece, &mut out);
        }
        lines.end(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_sent_as_they_are_with_their_dots_doubled_however_they_are_cut() {
        for (message, all, top, first) in [
            ("", ".\r\n", ".\r\n", ".\r\n"),
            ("a", "a\r\n.\r\n", "a\r\n.\r\n", "a\r\n.\r\n"),
            ("a\r\n", "a\r\n.\r\n", "a\r\n.\r\n", "a\r\n.\r\n"),
            ("a\r\n\r\n.\r\n..b\r\n", "a\r\n\r\n..\r\n...b\r\n.\r\n", "a\r\n\r\n.\r\n", "a\r\n\r\n..\r\n.\r\n"),
            ("\r\nb\r\nc", "\r\nb\r\nc\r\n.\r\n", "\r\n.\r\n", "\r\nb\r\n.\r\n"),
            ("a\n\n.\nb\n", "a\n\n..\nb\n\r\n.\r\n", "a\n\n\r\n.\r\n", "a\n\n..\n\r\n.\r\n"),
            (
                "a\r\n.\r\r\n\r\n\r\nb",
                "a\r\n..\r\r\n\r\n\r\nb\r\n.\r\n",
                "a\r\n..\r\r\n\r\n.\r\n",
                "a\r\n..\r\r\n\r\n\r\n.\r\n",
            ),
        ] {
            for size in 1..=message.len().max(1) {
                assert_eq!(sent(message.as_bytes(), None, size), all, "{message:?} in pieces of {size}");
                assert_eq!(sent(message.as_bytes(), Some(0), size), top, "top of {message:?} in pieces of {size}");
                assert_eq!(sent(message.as_bytes(), Some(1), size), first, "{message:?} in pieces of {size}");
                assert_eq!(sent(message.as_bytes(), Some(u64::MAX), size), all, "{message:?} in pieces of {size}");
            }
        }
    }
}
