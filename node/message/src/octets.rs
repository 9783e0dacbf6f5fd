//! The octets that a message may have, by whatever entrance it comes: SMTP, APPEND, an import. Lines end with CRLF, a CR or
//! LF stands nowhere else (RFC 5322, section 2.3), and there is no NUL, which no literal may hold (RFC 3501, section 4.3).

/// A message has octets that none may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongOctet {
    /// A NUL.
    #[error("a message has no NUL octets")]
    Nul,
    /// A CR without LF, or an LF without CR.
    #[error("the lines of a message end with CRLF")]
    BareLineEnd,
}

/// Looks at a whole message.
///
/// # Errors
/// If it has an octet that none may have.
pub fn check(message: &[u8]) -> Result<(), WrongOctet> {
    if memchr::memchr(0, message).is_some() {
        return Err(WrongOctet::Nul);
    }
    let mut rest = message;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        rest = rest[at..].strip_prefix(b"\r\n").ok_or(WrongOctet::BareLineEnd)?;
    }
    Ok(())
}

/// Makes CRLF of each bare CR and bare LF of a text that comes in pieces, where a client is known to send such (APPEND).
#[derive(Debug, Default)]
pub struct LineEnds {
    /// The last byte was a CR, and is told with the next one.
    after_cr: bool,
}

impl LineEnds {
    /// Appends the next piece to `out`.
    pub fn take(&mut self, mut piece: &[u8], out: &mut Vec<u8>) {
        if self.after_cr && !piece.is_empty() {
            out.extend_from_slice(b"\r\n");
            piece = piece.strip_prefix(b"\n").unwrap_or(piece);
            self.after_cr = false;
        }
        while let Some(at) = memchr::memchr2(b'\r', b'\n', piece) {
            out.extend_from_slice(&piece[..at]);
            if piece[at..] == *b"\r" {
                self.after_cr = true;
                return;
            }
            out.extend_from_slice(b"\r\n");
            piece = piece[at..].strip_prefix(b"\r\n").unwrap_or(&piece[at + 1..]);
        }
        out.extend_from_slice(piece);
    }

    /// The text ends here.
    pub fn end(self, out: &mut Vec<u8>) {
        if self.after_cr {
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normalised(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut ends, mut out) = (LineEnds::default(), Vec::new());
        pieces.iter().for_each(|piece| ends.take(piece, &mut out));
        ends.end(&mut out);
        out
    }

    #[test]
    fn octets_that_no_message_has() {
        for (message, checked) in [
            (b"".as_slice(), Ok(())),
            (b"a: b\r\n\r\n\xff\x01\r\n", Ok(())),
            (b"a\0b", Err(WrongOctet::Nul)),
            (b"a\nb", Err(WrongOctet::BareLineEnd)),
            (b"a\r\nb\r", Err(WrongOctet::BareLineEnd)),
            (b"\r\r\n", Err(WrongOctet::BareLineEnd)),
        ] {
            assert_eq!(check(message), checked, "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_line_ends_come_crlf_goes_on(text in "[a\r\n]{0,30}", cut in 0usize..30) {
            let cut = cut.min(text.len());
            let (first, second) = text.as_bytes().split_at(cut);
            let out = normalised(&[first, b"", second]);
            prop_assert_eq!(check(&out), Ok(()));
            prop_assert_eq!(&out, &normalised(&[text.as_bytes()]));
            prop_assert_eq!(&normalised(&[&out]), &out, "what is right stays");
            let lines = |text: &str| text.replace("\r\n", "\n").replace('\r', "\n");
            prop_assert_eq!(lines(&String::from_utf8_lossy(&out)), lines(&text));
        }
    }
}
