//! A message as it goes over the wire after DATA (RFC 5321, section 4.5.2), in pieces of any size: dots at a line's start are
//! doubled, and the final dot comes after a CRLF. A CR or LF that is no part of a CRLF never leaves: servers differ about what
//! it ends, and smuggling lives on that.

use memchr::memchr2;
use serde::{Deserialize, Serialize};

/// The longest line that every server takes, without its CRLF, in bytes (RFC 5321, section 4.5.3.1.6).
pub const LINE_MAX_BYTES: usize = 998;

/// What a message looks like, which decides what a server must be able to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Its octets, with CRLFs and without doubled dots (RFC 1870, section 3).
    pub size_bytes: u64,
    /// Its longest line without its CRLF; servers may refuse one of more than [`LINE_MAX_BYTES`].
    pub longest_line_bytes: u64,
    /// It has octets above 127.
    pub eight_bit: bool,
}

/// The message has a CR or LF that is no part of a CRLF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of the message ends with a bare CR or LF")]
pub struct BareLineEnd;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    LineStart,
    Middle,
    /// After a CR, which was not handed out yet.
    Cr,
}

/// Encodes one message.
#[derive(Debug)]
pub struct Encoder {
    state: State,
    line_bytes: u64,
    shape: Shape,
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder { state: State::LineStart, line_bytes: 0, shape: Shape::default() }
    }
}

impl Encoder {
    /// Appends a piece as it goes over the wire: at most twice its length.
    ///
    /// # Errors
    /// If it has a bare CR or LF. What was appended before may be sent or not; the message must not be ended.
    pub fn piece(&mut self, piece: &[u8], wire: &mut Vec<u8>) -> Result<(), BareLineEnd> {
        self.shape.eight_bit |= !piece.is_ascii();
        self.shape.size_bytes += piece.len() as u64;
        let mut rest = piece;
        while let Some(first) = rest.first().copied() {
            match (self.state, first) {
                (State::Cr, b'\n') => {
                    wire.extend_from_slice(b"\r\n");
                    (self.state, self.line_bytes, rest) = (State::LineStart, 0, &rest[1..]);
                }
                (State::Cr, _) | (_, b'\n') => return Err(BareLineEnd),
                (_, b'\r') => (self.state, rest) = (State::Cr, &rest[1..]),
                (State::LineStart | State::Middle, _) => {
                    if self.state == State::LineStart && first == b'.' {
                        wire.push(b'.');
                    }
                    let run = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                    wire.extend_from_slice(&rest[..run]);
                    self.line_bytes += run as u64;
                    self.shape.longest_line_bytes = self.shape.longest_line_bytes.max(self.line_bytes);
                    (self.state, rest) = (State::Middle, &rest[run..]);
                }
            }
        }
        Ok(())
    }

    /// The end: the final dot, after a CRLF if the message has none at its end.
    ///
    /// # Errors
    /// If the message ends with a bare CR.
    pub fn end(&self) -> Result<&'static [u8], BareLineEnd> {
        match self.state {
            State::LineStart => Ok(b".\r\n"),
            State::Middle => Ok(b"\r\n.\r\n"),
            State::Cr => Err(BareLineEnd),
        }
    }

    /// What the message looks like up to here.
    pub fn shape(&self) -> Shape {
        self.shape
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::executor::block_on;
    use mailraft_protocol::{Engine, Failure, Out, Output, Refusal, Turn};
    use mailraft_smtp::{Config, DeliveryAgent, Mailbox, Service, Session, Transaction, Verified};
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    use super::*;

    fn encoded(pieces: &[&[u8]]) -> Result<Vec<u8>, BareLineEnd> {
        let (mut encoder, mut wire) = (Encoder::default(), Vec::new());
        for piece in pieces {
            encoder.piece(piece, &mut wire)?;
        }
        wire.extend_from_slice(encoder.end()?);
        Ok(wire)
    }

    #[test]
    fn dots_at_a_line_start_are_doubled_and_a_dot_ends_it() {
        for (message, wire) in [
            ("", ".\r\n"),
            ("a", "a\r\n.\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            (".", "..\r\n.\r\n"),
            ("a\r\n.\r\nb.\r\n..\r\n", "a\r\n..\r\nb.\r\n...\r\n.\r\n"),
            ("\r\n.", "\r\n..\r\n.\r\n"),
        ] {
            assert_eq!(encoded(&[message.as_bytes()]).unwrap(), wire.as_bytes(), "{message:?}");
        }
    }

    #[test]
    fn a_bare_line_end_never_leaves() {
        for message in ["a\nb", "a\rb", "\n", "\r", "a\r\r\n", "a\r\n\n", "a\r\n.\n", "\n.\r\n", "a\r\n.\r", "\r.\r"] {
            for at in 0..=message.len() {
                let (head, tail) = message.split_at(at);
                assert_eq!(encoded(&[head.as_bytes(), tail.as_bytes()]), Err(BareLineEnd), "{message:?} at {at}");
            }
        }
        let mut wire = Vec::new();
        assert_eq!(Encoder::default().piece(b"a\r\nx\rQUIT", &mut wire), Err(BareLineEnd));
        assert_eq!(wire, b"a\r\nx");
    }

    #[test]
    fn long_lines_and_octets_above_127_are_told() {
        let mut encoder = Encoder::default();
        let mut wire = Vec::new();
        encoder.piece(&[b'x'; 600], &mut wire).unwrap();
        encoder.piece(&[b'x'; 399], &mut wire).unwrap();
        encoder.piece(b"\r\n\xe4\r\n", &mut wire).unwrap();
        let shape = Shape { size_bytes: 1_004, longest_line_bytes: LINE_MAX_BYTES as u64 + 1, eight_bit: true };
        assert_eq!(encoder.shape(), shape);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_and_our_own_server_reads_the_message(
            lines in prop::collection::vec("[.a\0\u{e4}]{0,5}", 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let message: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let whole = encoded(&[message.as_bytes()]).unwrap();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(message.len() + 1)).collect();
            at.extend([0, message.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|w| &message.as_bytes()[w[0]..w[1]]).collect();
            prop_assert_eq!(&encoded(&pieces).unwrap(), &whole);
            prop_assert_eq!(received(&whole), (message.into_bytes(), "250".to_owned()));
        }

        /// Whatever the bytes: they are refused here, or read back as they are, and nothing behind them is a command.
        #[test]
        fn nothing_is_smuggled(pieces in prop::collection::vec(
            prop::sample::select(vec!["\r", "\n", ".", "\r\n", "\0", "x", "\r\n.\r\n", "\n.\n", "\r.\r", "RSET\r\n"]), 0..20,
        )) {
            let message = pieces.concat();
            match encoded(&[message.as_bytes()]) {
                Err(BareLineEnd) => prop_assert!(message.replace("\r\n", "").contains(['\r', '\n'])),
                Ok(wire) => {
                    let whole = if message.is_empty() || message.ends_with("\r\n") { message } else { message + "\r\n" };
                    prop_assert_eq!(received(&wire), (whole.into_bytes(), "250".to_owned()));
                }
            }
        }
    }

    #[derive(Default)]
    struct Keeps(Vec<u8>);

    impl DeliveryAgent for Keeps {
        async fn check_sender(&mut self, _: &str, _: &Mailbox) -> Result<(), Failure> {
            Ok(())
        }
        async fn verify(&mut self, _: Option<&str>, _: &Mailbox) -> Result<Verified, Failure> {
            Ok(Verified::Mailboxes { mailboxes: vec![[1; 16]], detail: None })
        }
        async fn check_quota(&mut self, _: [u8; 16], _: Option<u64>) -> Result<(), Failure> {
            Ok(())
        }
        async fn authenticate(&mut self, _: &str, _: Zeroizing<String>) -> Result<String, Failure> {
            Err(Refusal::WrongCredentials.into())
        }
        fn has_room(&self) -> Result<(), Refusal> {
            Ok(())
        }
        fn begin_message(&mut self) -> Result<(), Refusal> {
            Ok(())
        }
        fn receive(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }
        fn discard(&mut self) {
            self.0.clear();
        }
        async fn deliver(&mut self, _: Transaction) -> Result<String, Failure> {
            Ok("taken".to_owned())
        }
        fn client_went_on(&mut self) {}
        async fn client_leaves(&mut self) {}
    }

    #[derive(Default)]
    struct Heard(Vec<u8>);

    impl Output for Heard {
        async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }

    /// What our server makes of what goes over the wire: the message, and the code of its one answer.
    fn received(wire: &[u8]) -> (Vec<u8>, String) {
        let config = Config {
            hostname: "mx.test".to_owned(),
            service: Service::Relay,
            max_message_bytes: 10_000,
            tls_available: false,
            reports: true,
            login_max: Duration::from_secs(60),
        };
        let mut session = Session::new(config, None, Keeps::default());
        session.input(b"EHLO a.test\r\nMAIL FROM:<>\r\nRCPT TO:<b@mx.test>\r\nDATA\r\n");
        session.input(wire);
        let mut out = Out::new(Heard::default());
        while block_on(session.drive(&mut out)) == Turn::Again {}
        block_on(out.flush()).unwrap();
        let text = String::from_utf8(out.into_output().0).unwrap();
        let (_, after) = text.split_once("354 end with <CR><LF>.<CR><LF>\r\n").unwrap();
        let codes: Vec<&str> = after.lines().map(|line| &line[..3]).collect();
        (session.into_agent().0, codes.join(" "))
    }
}
