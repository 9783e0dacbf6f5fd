//! Quoted-printable and base64 of what comes in pieces (RFC 2045, sections 6.7 and 6.8).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The longest line of what is encoded, without its CRLF, in octets.
pub const ENCODED_LINE_MAX_OCTETS: usize = 76;
/// What a line of base64 stands for, in octets.
const BASE64_LINE_PLAIN_OCTETS: usize = ENCODED_LINE_MAX_OCTETS / 4 * 3;

/// How a part is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Text, most of which is ASCII: lines stay lines.
    QuotedPrintable,
    /// All else.
    Base64,
}

impl Coding {
    /// Its name in Content-Transfer-Encoding.
    pub fn as_str(self) -> &'static str {
        match self {
            Coding::QuotedPrintable => "quoted-printable",
            Coding::Base64 => "base64",
        }
    }
}

/// How long so many octets become in base64, in bytes.
pub fn base64_bytes(octets: u64) -> u64 {
    let lines = octets.div_ceil(BASE64_LINE_PLAIN_OCTETS as u64);
    octets.div_ceil(3).saturating_mul(4).saturating_add(2 * lines.saturating_sub(1))
}

/// Encodes one part.
#[derive(Debug)]
pub enum Encoding {
    /// Into quoted-printable.
    QuotedPrintable(QuotedPrintable),
    /// Into base64.
    Base64(Base64),
}

impl Encoding {
    /// From its first octet on.
    pub fn new(coding: Coding) -> Self {
        match coding {
            Coding::QuotedPrintable => Encoding::QuotedPrintable(QuotedPrintable::default()),
            Coding::Base64 => Encoding::Base64(Base64::default()),
        }
    }

    /// Appends what a piece becomes: at most six times its length.
    pub fn piece(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        match self {
            Encoding::QuotedPrintable(quoted) => quoted.piece(piece, out),
            Encoding::Base64(base64) => base64.piece(piece, out),
        }
    }

    /// Appends what was held back.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        match self {
            Encoding::QuotedPrintable(quoted) => quoted.end(out),
            Encoding::Base64(base64) => base64.end(out),
        }
    }
}

/// What is not written yet, as the next octets decide how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Nothing,
    /// White space, perhaps at a line's end.
    White(u8),
    /// A CR, perhaps of a CRLF.
    Return,
    WhiteAndReturn(u8),
}

/// Quoted-printable.
#[derive(Debug)]
pub struct QuotedPrintable {
    column: usize,
    held: Held,
}

impl Default for QuotedPrintable {
    fn default() -> Self {
        QuotedPrintable { column: 0, held: Held::Nothing }
    }
}

impl QuotedPrintable {
    fn piece(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        for byte in piece.iter().copied() {
            match (std::mem::replace(&mut self.held, Held::Nothing), byte) {
                (Held::White(white), b'\r') => {
                    self.held = Held::WhiteAndReturn(white);
                    continue;
                }
                (Held::WhiteAndReturn(white), b'\n') => {
                    self.encoded(white, out);
                    self.line_end(out);
                    continue;
                }
                (Held::Return, b'\n') => {
                    self.line_end(out);
                    continue;
                }
                (Held::White(white), _) => self.literal(white, out),
                (Held::WhiteAndReturn(white), _) => {
                    self.literal(white, out);
                    self.encoded(b'\r', out);
                }
                (Held::Return, _) => self.encoded(b'\r', out),
                (Held::Nothing, _) => {}
            }
            match byte {
                b' ' | b'\t' => self.held = Held::White(byte),
                b'\r' => self.held = Held::Return,
                b'!'..=b'<' | b'>'..=b'~' => self.literal(byte, out),
                _ => self.encoded(byte, out),
            }
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Nothing => {}
            Held::White(white) => self.encoded(white, out),
            Held::Return => self.encoded(b'\r', out),
            Held::WhiteAndReturn(white) => {
                self.literal(white, out);
                self.encoded(b'\r', out);
            }
        }
    }

    fn literal(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.make_room(1, out);
        // A line that is new here must not be taken for one of a boundary.
        if self.column == 0 && byte == b'-' {
            return self.encoded(byte, out);
        }
        out.push(byte);
        self.column += 1;
    }

    fn encoded(&mut self, byte: u8, out: &mut Vec<u8>) {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        self.make_room(3, out);
        out.extend([b'=', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        self.column += 3;
    }

    /// A soft line break where the line would be too long with so much more and the break's own sign.
    fn make_room(&mut self, octets: usize, out: &mut Vec<u8>) {
        if self.column + octets >= ENCODED_LINE_MAX_OCTETS {
            out.extend_from_slice(b"=\r\n");
            self.column = 0;
        }
    }

    fn line_end(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        self.column = 0;
    }
}

/// Base64.
#[derive(Debug, Default)]
pub struct Base64 {
    /// Less than a line, that is not written.
    rest: Vec<u8>,
    begun: bool,
}

impl Base64 {
    fn piece(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let missing = (BASE64_LINE_PLAIN_OCTETS - self.rest.len()).min(piece.len());
        let (first, others) = piece.split_at(missing);
        self.rest.extend_from_slice(first);
        if self.rest.len() < BASE64_LINE_PLAIN_OCTETS {
            return;
        }
        let line = std::mem::take(&mut self.rest);
        self.line(&line, out);
        let mut lines = others.chunks_exact(BASE64_LINE_PLAIN_OCTETS);
        lines.by_ref().for_each(|line| self.line(line, out));
        self.rest.extend_from_slice(lines.remainder());
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            self.line(&rest, out);
        }
    }

    /// A line, with the line end of the one before it: the last one's belongs to what follows the part.
    fn line(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(STANDARD.encode(plain).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use mailraft_message::transfer::decode;
    use proptest::prelude::*;

    use super::*;

    fn encoded(coding: Coding, pieces: &[&[u8]]) -> Vec<u8> {
        let (mut encoding, mut out) = (Encoding::new(coding), Vec::new());
        pieces.iter().for_each(|piece| encoding.piece(piece, &mut out));
        encoding.end(&mut out);
        out
    }

    #[test]
    fn quoted_printable_is_read_as_what_it_stands_for() {
        let long = "x".repeat(75);
        for (plain, quoted) in [
            ("", String::new()),
            ("Gr\u{fc}\u{df}e\r\n", "Gr=C3=BC=C3=9Fe\r\n".to_owned()),
            ("a=b", "a=3Db".to_owned()),
            ("a \r\nb\t\r\n \r\n", "a=20\r\nb=09\r\n=20\r\n".to_owned()),
            ("a b ", "a b=20".to_owned()),
            ("a \rb\n\r", "a =0Db=0A=0D".to_owned()),
            (&long, long.clone()),
            (&format!("{long}\r\n"), format!("{long}\r\n")),
            (&format!("{long}--b"), format!("{long}=\r\n=2D-b")),
            (&format!("{}\u{e9}", "x".repeat(72)), format!("{}=C3=\r\n=A9", "x".repeat(72))),
            ("--b\r\n-", "=2D-b\r\n=2D".to_owned()),
        ] {
            assert_eq!(String::from_utf8_lossy(&encoded(Coding::QuotedPrintable, &[plain.as_bytes()])), quoted);
        }
    }

    #[test]
    fn base64_has_lines_and_no_line_end_of_its_own() {
        let plain = [b'x'; 58];
        let coded = encoded(Coding::Base64, &[&plain]);
        assert_eq!((coded.len(), &coded[76..]), (76 + 6, &b"\r\neA=="[..]));
        assert_eq!(encoded(Coding::Base64, &[&plain[..57]]).len(), 76);
        assert_eq!(encoded(Coding::Base64, &[]), b"");
    }

    proptest! {
        #[test]
        fn whatever_is_encoded_decodes_to_itself_in_lines_that_everybody_takes(
            parts in prop::collection::vec(prop_oneof![
                Just(b"\r\n".to_vec()), Just(b" ".to_vec()), Just(b"\r".to_vec()), Just(b"--b".to_vec()), Just(b"=".to_vec()),
                prop::collection::vec(any::<u8>(), 0..90),
            ], 0..12),
            base64 in any::<bool>(),
        ) {
            let coding = if base64 { Coding::Base64 } else { Coding::QuotedPrintable };
            let plain = parts.concat();
            let coded = encoded(coding, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert_eq!(&coded, &encoded(coding, &[&plain]));
            prop_assert_eq!(decode(coding.as_str().as_bytes(), &coded), plain.clone());
            prop_assert!(!base64 || coded.len() as u64 == base64_bytes(plain.len() as u64));
            prop_assert!(coded.len() <= 6 * parts.concat().len() + 4);
            let text = String::from_utf8(coded).unwrap();
            prop_assert!(text.is_ascii());
            for line in text.split("\r\n") {
                prop_assert!(line.len() <= ENCODED_LINE_MAX_OCTETS && !line.starts_with('-'), "{}", line);
                prop_assert!(!line.ends_with([' ', '\t']) && !line.contains(['\r', '\n']), "{}", line);
            }
        }
    }
}
