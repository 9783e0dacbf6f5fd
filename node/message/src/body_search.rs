//! Looking for words in the body of a message (RFC 3501, section 6.4.4: BODY and TEXT) without holding the message: a
//! machine names ranges of it and takes their bytes in pieces, decoded as they come. Of one piece the end is kept for the
//! next, so that a word across both is found. What is held is a few times a piece.

use std::ops::Range;

use crate::grams::Grams;
use crate::header::HEADER_MAX_BYTES;
use crate::query::holds;
use crate::search::{self, folded};
use crate::structure::{Body, Part};
use crate::transfer::Transfer;

/// Decoded text without a line end waits for one up to this length, in bytes.
const LINE_MAX_BYTES: usize = 64 << 10;
/// A piece of this size, in bytes, is a millisecond's work or two, however many words are looked for.
pub const PIECE_MAX_BYTES: usize = 64 << 10;

/// Looks for words, [`folded`], in a message's text parts, attachments' names and inner headers.
pub struct BodySearch<'a> {
    finder: Finder<'a>,
    /// Decoded, and not yet searched: a piece in a charset whose characters are wide may become a long text.
    text: String,
    parts: Vec<&'a Part>,
    reading: Option<Reading<'a>>,
    /// All that any search goes through was gone through.
    is_whole: bool,
}

/// A range that is being read.
enum Reading<'a> {
    /// The header block of an inner message; it is taken as a whole.
    Header {
        left: Range<u64>,
        block: Vec<u8>,
        of: &'a Part,
    },
    Text {
        left: Range<u64>,
        text: Text,
    },
}

impl<'a> BodySearch<'a> {
    /// A search in a message of this structure.
    pub fn new(words: &'a [&'a str], root: &'a Part) -> Self {
        BodySearch {
            finder: Finder::new(words),
            text: String::new(),
            parts: vec![root],
            reading: None,
            is_whole: false,
        }
    }

    /// Notes the grams of all that is searched, too. Then the search goes on when all words are found, if `to_the_end`.
    pub fn noting(mut self, grams: &'a mut Grams, to_the_end: bool) -> Self {
        self.finder.noting = Some(Noting { grams, to_the_end });
        self
    }

    /// Which bytes of the message to read next; none of them while what was read before is being searched. None if the
    /// search is over.
    pub fn wants(&mut self) -> Option<Range<u64>> {
        loop {
            if !self.text.is_empty() && !self.finder.is_done() {
                return Some(0..0);
            }
            match self.reading.take() {
                Some(Reading::Header { left, block, of }) if left.is_empty() => {
                    self.finder.feed(&search::header_text(&block));
                    self.finder.end_part();
                    self.parts.push(of);
                }
                Some(Reading::Text { left, .. }) if left.is_empty() || self.finder.is_done() => self.finder.end_part(),
                Some(reading) => {
                    let (Reading::Header { left, .. } | Reading::Text { left, .. }) = &reading;
                    let wanted = left.clone();
                    self.reading = Some(reading);
                    return Some(wanted);
                }
                None => {}
            }
            if self.finder.is_done() {
                return None;
            }
            let Some(part) = self.parts.pop() else {
                self.is_whole = true;
                return None;
            };
            self.begin(part);
        }
    }

    /// Takes bytes from the start of the range that is wanted.
    ///
    /// # Panics
    /// If there are more than wanted, or none were.
    pub fn take(&mut self, piece: &[u8]) {
        if !self.text.is_empty() {
            assert!(piece.is_empty(), "more bytes than wanted");
            return self.search_some();
        }
        let bytes = piece.len() as u64;
        let reading = self.reading.as_mut().expect("bytes are taken only where some are wanted");
        let (Reading::Header { left, .. } | Reading::Text { left, .. }) = &mut *reading;
        assert!(bytes <= left.end - left.start, "more bytes than wanted");
        left.start += bytes;
        match reading {
            Reading::Header { block, .. } => block.extend_from_slice(piece),
            Reading::Text { left, text } => {
                self.text = text.take(piece, left.is_empty());
                self.search_some();
            }
        }
    }

    /// Goes on in the decoded text, no further than a piece.
    fn search_some(&mut self) {
        let mut end = self.text.len().min(PIECE_MAX_BYTES);
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let rest = self.text.split_off(end);
        self.finder.feed(&folded(&std::mem::replace(&mut self.text, rest)));
    }

    /// Which of the words were found.
    pub fn into_found(self) -> Vec<bool> {
        self.finder.found
    }

    /// Whether all that any search goes through was gone through, so that the grams noted are all that there are.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    fn begin(&mut self, part: &'a Part) {
        match &part.kind {
            Body::Multipart(inner) => self.parts.extend(inner.iter().rev()),
            Body::Leaf => {
                let disposed = part.disposition.as_ref().and_then(|(_, of)| of.iter().find(|(n, _)| is(n, "filename")));
                let name = disposed.map(|(_, name)| name.as_slice()).or_else(|| part.parameter("name"));
                self.finder.feed(&folded(&search::decode_header(name.unwrap_or_default())));
                self.finder.end_part();
            }
            // What is in it is searched as text, its header as it stands.
            Body::Message(_) if part.is_encoded_message() => {
                self.reading = Some(Reading::Text { left: part.body.clone(), text: Text::new(part) });
            }
            Body::Message(nested) => {
                let Range { start, end } = nested.1.header;
                let left = start..end.min(start.saturating_add(HEADER_MAX_BYTES as u64));
                self.reading = Some(Reading::Header { left, block: Vec::new(), of: &nested.1 });
            }
            Body::Text => self.reading = Some(Reading::Text { left: part.body.clone(), text: Text::new(part) }),
        }
    }
}

fn is(name: &[u8], other: &str) -> bool {
    name.eq_ignore_ascii_case(other.as_bytes())
}

/// Finds words in text that comes in pieces.
struct Finder<'a> {
    words: &'a [&'a str],
    found: Vec<bool>,
    longest: usize,
    /// The end of what came before, shorter than the longest word.
    text: String,
    noting: Option<Noting<'a>>,
}

/// Where grams are noted.
struct Noting<'a> {
    grams: &'a mut Grams,
    to_the_end: bool,
}

impl<'a> Finder<'a> {
    fn new(words: &'a [&'a str]) -> Self {
        let longest = words.iter().map(|w| w.len()).max().unwrap_or(0);
        Finder {
            words,
            found: words.iter().map(|w| w.is_empty()).collect(),
            longest,
            text: String::new(),
            noting: None,
        }
    }

    fn feed(&mut self, text: &str) {
        if let Some(noting) = &mut self.noting {
            noting.grams.feed(text);
        }
        self.text.push_str(text);
        for (word, found) in self.words.iter().zip(&mut self.found) {
            *found = *found || holds(&self.text, word);
        }
        let mut cut = (self.text.len() + 1).saturating_sub(self.longest).min(self.text.len());
        while !self.text.is_char_boundary(cut) {
            cut -= 1;
        }
        self.text.drain(..cut);
    }

    fn end_part(&mut self) {
        if let Some(noting) = &mut self.noting {
            noting.grams.end_text();
        }
        self.text.clear();
    }

    fn is_done(&self) -> bool {
        !self.noting.as_ref().is_some_and(|noting| noting.to_the_end) && self.found.iter().all(|found| *found)
    }
}

/// A text part's bytes into text in lower case.
struct Text {
    transfer: Transfer,
    charset: String,
    /// Decoded from the transfer encoding, and not yet handed on.
    waiting: Vec<u8>,
    /// Of a charset whose characters are numbers of 2 or 4 bytes.
    wide: Option<Wide>,
}

impl Text {
    fn new(part: &Part) -> Self {
        let transfer = Transfer::of(&part.encoding);
        let named = part.parameter("charset").unwrap_or_default();
        let plain = named.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:+".contains(b));
        let charset = if plain { String::from_utf8_lossy(named).to_ascii_lowercase() } else { String::new() };
        let wide = Wide::named(&charset);
        Text { transfer, charset, waiting: Vec::new(), wide }
    }

    /// What can be told of the text after one more piece: whole lines, unless they are long.
    fn take(&mut self, piece: &[u8], last: bool) -> String {
        self.transfer.decode(piece, &mut self.waiting);
        if let Some(wide) = &mut self.wide {
            return wide.take(&mut self.waiting, last);
        }
        let cut = match (last, self.waiting.iter().rposition(|b| *b == b'\n')) {
            (true, _) => self.waiting.len(),
            (false, Some(end)) => end + 1,
            (false, None) if self.waiting.len() > LINE_MAX_BYTES => before_character(&self.waiting),
            (false, None) => 0,
        };
        let rest = self.waiting.split_off(cut);
        let bytes = std::mem::replace(&mut self.waiting, rest);
        if bytes.is_empty() {
            return String::new();
        }
        search::decode_text(&bytes, self.charset.as_bytes())
    }
}

/// Characters as numbers of 2 bytes (UTF-16, RFC 2781) or 4 (UTF-32), of which a text is cut nowhere else.
#[derive(Clone, Copy)]
struct Wide {
    bytes: usize,
    /// Whether the high byte comes first. None: as a mark at the text's start says, and last if there is none.
    high_first: Option<bool>,
}

impl Wide {
    fn named(charset: &str) -> Option<Self> {
        let has = |parts: &[&str]| parts.iter().any(|part| charset.contains(part));
        let bytes = match () {
            () if has(&["utf-7", "utf-8", "utf7", "utf8"]) => return None,
            () if has(&["utf-32", "utf32", "ucs-4", "ucs4"]) => 4,
            () if has(&["utf-16", "utf16", "ucs-2", "ucs2", "unicode"]) => 2,
            () => return None,
        };
        let high_first = match () {
            () if charset.ends_with("le") => Some(false),
            () if charset.ends_with("be") || charset.ends_with("fffe") => Some(true),
            () => None,
        };
        Some(Wide { bytes, high_first })
    }

    /// All whole characters of what waits, but for a mark at the start.
    fn take(&mut self, waiting: &mut Vec<u8>, last: bool) -> String {
        let number = |bytes: &[u8], high_first: bool| {
            let shift = |number: u32, byte: &u8| number << 8 | u32::from(*byte);
            if high_first { bytes.iter().fold(0, shift) } else { bytes.iter().rev().fold(0, shift) }
        };
        let mut start = 0;
        if self.high_first.is_none() && waiting.len() >= self.bytes {
            let is_mark = |high_first: &bool| number(&waiting[..self.bytes], *high_first) == 0xfeff;
            let mark = [false, true].into_iter().find(is_mark);
            (self.high_first, start) = (Some(mark.unwrap_or(false)), mark.map_or(0, |_| self.bytes));
        }
        let high_first = self.high_first.unwrap_or(false);
        let mut end = start + (waiting.len() - start) / self.bytes * self.bytes;
        // The first half of a pair waits for the other.
        if !last
            && self.bytes == 2
            && end > start
            && (0xd800..0xdc00).contains(&number(&waiting[end - 2..end], high_first))
        {
            end -= 2;
        }
        let numbers = waiting[start..end].chunks_exact(self.bytes).map(|bytes| number(bytes, high_first));
        let text = match self.bytes {
            2 => char::decode_utf16(numbers.map(|n| n as u16))
                .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect(),
            _ => numbers.map(|n| char::from_u32(n).unwrap_or(char::REPLACEMENT_CHARACTER)).collect(),
        };
        waiting.drain(..end);
        text
    }
}

/// The end, or the start of a character of UTF-8 that is not whole.
fn before_character(bytes: &[u8]) -> usize {
    let end = bytes.len();
    let start = bytes.iter().rev().take(4).position(|b| *b & 0xc0 != 0x80).map_or(end, |back| end - 1 - back);
    let needs = match bytes.get(start) {
        Some(0xc0..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xff) => 4,
        Some(_) | None => 1,
    };
    if end - start < needs { start } else { end }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text_in_pieces(message: &[u8], size: usize) -> String {
        let root = Part::parse(message).unwrap();
        let body = &message[root.body.start as usize..root.body.end as usize];
        let mut text = Text::new(&root);
        let count = body.chunks(size).count();
        body.chunks(size).enumerate().map(|(n, piece)| text.take(piece, n + 1 == count)).collect()
    }

    #[test]
    fn text_reads_the_same_whole_and_in_pieces() {
        let texts: [(&[u8], &str); 7] = [
            (b"\r\nLine One\r\nline two \xc3\x84\r\n", "Line One\r\nline two Ä\r\n"),
            (b"Content-Type: text/plain; charset=iso-8859-1\r\n\r\nGr\xfc\xdfe\r\n", "Grüße\r\n"),
            (
                b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nR3LDvMOfZQpHcsO8\r\nw59lCg==\r\n",
                "Grüße\nGrüße\n",
            ),
            (b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=\r\n=9Fe a=3D b\r\n", "Grüße a= b\r\n"),
            (
                b"Content-Transfer-Encoding: Quoted-Printable\r\nContent-Type: text/html; charset=ISO-8859-1\r\n\r\n<p>Gr=FC=\r\n=DFe",
                "<p>Grüße",
            ),
            (
                b"Content-Type: text/plain; charset=utf-16le\r\nContent-Transfer-Encoding: base64\r\n\r\naABpAAoAaABvAA==\r\n",
                "hi\nho",
            ),
            (
                b"Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n\x1b$B$3$s\x1b(B\r\n\x1b$B$K\x1b(B\r\n",
                "こん\r\nに\r\n",
            ),
        ];
        for (message, text) in texts {
            let whole = text_in_pieces(message, usize::MAX);
            assert_eq!(whole, text);
            for size in 1..20 {
                assert_eq!(text_in_pieces(message, size), whole, "pieces of {size}");
            }
        }
    }

    #[test]
    fn what_is_not_well_encoded_is_searched_all_the_same() {
        let quoted = b"Content-Transfer-Encoding: quoted-printable\r\n\r\na = b=zz=4";
        let base64 = b"Content-Transfer-Encoding: base64\r\n\r\naGVs*bG8=d29y\r\nbGQ";
        for size in 1..20 {
            assert_eq!(text_in_pieces(quoted, size), "a = b=zz");
            assert_eq!(text_in_pieces(base64, size), "helloworld");
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_held() {
        let long = [b"\r\n".as_slice(), "ä".repeat(LINE_MAX_BYTES).as_bytes()].concat();
        let root = Part::parse(&long).unwrap();
        let mut text = Text::new(&root);
        for piece in long[2..].chunks(4_999) {
            let told = text.take(piece, false);
            assert!(told.chars().all(|c| c == 'ä'));
            assert!(text.waiting.len() <= LINE_MAX_BYTES + 4_999);
        }
    }

    #[test]
    fn every_text_of_a_message_is_searched_however_it_comes_and_no_other() {
        let message = b"Subject: outer\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nBirnen\r\n--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=\"Kirschen.pdf\"\r\n\r\nquark\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: Pflaumen\r\n\r\nTrauben\r\n--b--\r\n";
        let words = ["birnen", "kirschen.pdf", "pflaumen", "trauben", "quark", "outer", ""];
        let root = Part::parse(message).unwrap();
        for size in [1, 2, 7, usize::MAX] {
            let mut search = BodySearch::new(&words, &root);
            while let Some(wanted) = search.wants() {
                let wanted = &message[wanted.start as usize..wanted.end as usize];
                search.take(&wanted[..wanted.len().min(size)]);
            }
            assert_eq!(search.into_found(), [true, true, true, true, false, false, true], "pieces of {size}");
        }
    }

    #[test]
    fn a_search_ends_when_all_is_found_and_not_before_all_was_read() {
        let message = [b"\r\nearly\r\n".as_slice(), &vec![b'x'; 20 << 20], b" late"].concat();
        let root = Part::parse(&message).unwrap();
        for (word, found, read) in
            [("early", true, 1_000), ("late", true, message.len() - 2), ("never", false, message.len() - 2)]
        {
            let words = [word];
            let mut search = BodySearch::new(&words, &root);
            let mut taken = 0;
            while let Some(wanted) = search.wants() {
                let piece = &message[wanted.start as usize..wanted.end as usize];
                if piece.is_empty() {
                    search.take(piece);
                    continue;
                }
                let size = if taken == 0 { 1_000 } else { 1 << 20 };
                let piece = &piece[..piece.len().min(size)];
                search.take(piece);
                taken += piece.len();
            }
            assert_eq!((search.into_found(), taken), (vec![found], read), "{word}");
        }
    }

    #[test]
    fn a_long_text_of_wide_characters_is_searched_in_pieces() {
        let text: Vec<u8> = "\u{4e2d}".repeat(200_000).encode_utf16().flat_map(u16::to_le_bytes).collect();
        let head = b"Content-Type: text/plain; charset=utf-16le\r\n\r\n".to_vec();
        let message = [head, text, b"e\0n\0d\0".to_vec()].concat();
        let root = Part::parse(&message).unwrap();
        let mut search = BodySearch::new(&["end"], &root);
        let (mut read, mut searched) = (0, 0);
        while let Some(wanted) = search.wants() {
            let piece = &message[wanted.start as usize..wanted.end as usize];
            let before = search.text.len();
            search.take(&piece[..piece.len().min(PIECE_MAX_BYTES)]);
            searched += usize::from(before > 0);
            assert!(before.saturating_sub(search.text.len()) <= PIECE_MAX_BYTES);
            read += piece.len().min(PIECE_MAX_BYTES);
        }
        // Of 64 KiB with two bytes a character half as much again is text.
        assert!(read >= 400_000 && searched >= 6, "{read} {searched}");
        assert_eq!(search.into_found(), [true]);
    }

    #[test]
    fn text_of_wide_characters_reads_the_same_whole_and_in_pieces() {
        let text = "mid \u{1f4e8} \u{c4} end";
        let pairs = |to: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(to).collect::<Vec<u8>>();
        let (low, high) = (pairs(u16::to_le_bytes), pairs(u16::to_be_bytes));
        let four: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
        for (charset, body) in [
            ("utf-16le", low.clone()),
            ("utf-16", low.clone()),
            ("UTF-16", [vec![0xff, 0xfe], low].concat()),
            ("utf-16be", high.clone()),
            ("iso-10646-ucs-2", [vec![0xfe, 0xff], high].concat()),
            ("utf-32", [vec![0, 0, 0xfe, 0xff], four.clone()].concat()),
            ("utf-32be", four),
        ] {
            let head = format!("Content-Type: text/plain; charset={charset}\r\n\r\n").into_bytes();
            let message = [head, body].concat();
            for size in (1..12).chain([usize::MAX]) {
                assert_eq!(text_in_pieces(&message, size), text, "{charset} in pieces of {size}");
            }
        }
        // Half a character, and half a pair.
        let broken = b"Content-Type: text/plain; charset=utf-16be\r\n\r\n\0a\xd8\x3d\0".as_slice();
        assert_eq!(text_in_pieces(broken, 1), "a\u{fffd}");
    }

    proptest! {
        #[test]
        fn words_are_found_however_the_text_comes(text in "[abä]{0,60}", word in "[abä]{0,5}", size in 1usize..9) {
            let words = [word.as_str(), "ba"];
            let mut finder = Finder::new(&words);
            let characters: Vec<char> = text.chars().collect();
            for piece in characters.chunks(size) {
                finder.feed(&piece.iter().collect::<String>());
                prop_assert!(finder.text.len() < 12);
            }
            prop_assert_eq!(finder.found, words.map(|w| text.contains(w)));
        }
    }
}
