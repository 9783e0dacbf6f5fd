//! Canonical forms of a message's fields and body (RFC 6376, section 3.4), piece by piece.

use aws_lc_rs::digest::{Context, Digest, SHA256};

/// A canonicalization algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Canonical {
    /// Nearly nothing may change on the way.
    Simple,
    /// White space may.
    Relaxed,
}

impl Canonical {
    /// Hands over a field with its line end, in canonical form.
    pub(crate) fn field(self, field: &[u8], mut piece: impl FnMut(&[u8])) {
        match self {
            Canonical::Simple => piece(field),
            Canonical::Relaxed => piece(&relaxed_field(field)),
        }
    }
}

/// The name in lower case, the value on one line with single spaces, and a line end (RFC 6376, section 3.4.2).
fn relaxed_field(field: &[u8]) -> Vec<u8> {
    let colon = memchr::memchr(b':', field).unwrap_or(field.len());
    let (name, value) = field.split_at(colon);
    let mut out = Vec::with_capacity(field.len() + 2);
    out.extend(trimmed(name).iter().map(u8::to_ascii_lowercase));
    out.push(b':');
    let mut space = false;
    for byte in trimmed(value.get(1..).unwrap_or_default()) {
        match byte {
            b' ' | b'\t' => space = true,
            b'\r' | b'\n' => {}
            _ => {
                if std::mem::take(&mut space) {
                    out.push(b' ');
                }
                out.push(*byte);
            }
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Without the spaces, tabs and line ends around it. A form feed is none of them, and counts.
fn trimmed(mut bytes: &[u8]) -> &[u8] {
    const AROUND: [u8; 4] = *b" \t\r\n";
    while let [first, rest @ ..] = bytes
        && AROUND.contains(first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && AROUND.contains(last)
    {
        bytes = rest;
    }
    bytes
}

/// Makes a body canonical, and takes digests of it: of all of it, and of its beginnings of the lengths that `l=` names.
pub(crate) struct BodyHash {
    canonical: Canonical,
    all: Context,
    /// Lengths at which a digest is wanted, the longest first, and the digests that are there.
    wanted: Vec<u64>,
    prefixes: Vec<(u64, Digest)>,
    size_bytes: u64,
    /// Line ends that count only if something follows them.
    line_ends: u64,
    /// White space that counts only if something follows it on its line.
    space: bool,
    cr: bool,
    buffer: Vec<u8>,
}

/// Digests of a canonical body.
#[derive(Clone)]
pub(crate) struct BodyDigests {
    all: Digest,
    prefixes: Vec<(u64, Digest)>,
    size_bytes: u64,
}

impl BodyDigests {
    /// The digest over so many octets, and whether that is all of them; None if there are fewer.
    pub(crate) fn of(&self, length: Option<u64>) -> Option<(&[u8], bool)> {
        match length {
            Some(length) if length != self.size_bytes => {
                let found = self.prefixes.iter().find(|(of, _)| *of == length);
                found.map(|(_, digest)| (digest.as_ref(), false))
            }
            Some(_) | None => Some((self.all.as_ref(), true)),
        }
    }
}

/// Octets that are handed to the digest at once.
const BUFFER_BYTES: usize = 16 << 10;

impl BodyHash {
    pub(crate) fn new(canonical: Canonical, mut lengths: Vec<u64>) -> Self {
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        BodyHash {
            canonical,
            all: Context::new(&SHA256),
            wanted: lengths,
            prefixes: Vec::new(),
            size_bytes: 0,
            line_ends: 0,
            space: false,
            cr: false,
            buffer: Vec::with_capacity(BUFFER_BYTES + 2),
        }
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        let canonical = self.canonical;
        // Most of a body is neither line ends nor white space.
        let special = |b: &u8| match b {
            b'\r' | b'\n' => true,
            b' ' | b'\t' => canonical == Canonical::Relaxed,
            _ => false,
        };
        while let Some(first) = bytes.first().copied() {
            if std::mem::take(&mut self.cr) && first != b'\n' {
                self.content(b"\r");
            }
            match first {
                b'\n' => {
                    self.line_ends += 1;
                    self.space = false;
                }
                b'\r' => self.cr = true,
                _ if special(&first) => self.space = true,
                _ => {
                    let run = bytes.iter().position(special).unwrap_or(bytes.len());
                    self.content(&bytes[..run]);
                    bytes = &bytes[run..];
                    continue;
                }
            }
            bytes = &bytes[1..];
        }
    }

    fn content(&mut self, run: &[u8]) {
        for _ in 0..std::mem::take(&mut self.line_ends) {
            self.put(b"\r\n");
        }
        if std::mem::take(&mut self.space) {
            self.put(b" ");
        }
        self.put(run);
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush();
        }
        if bytes.len() > BUFFER_BYTES {
            self.digest(bytes, self.size_bytes);
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        self.size_bytes += bytes.len() as u64;
    }

    fn flush(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.digest(&buffer, self.size_bytes - buffer.len() as u64);
        buffer.clear();
        self.buffer = buffer;
    }

    /// Digests octets that come behind so many others.
    fn digest(&mut self, mut bytes: &[u8], mut at: u64) {
        while let Some(length) = self.wanted.last().copied().filter(|length| *length <= at + bytes.len() as u64) {
            self.wanted.pop();
            let (now, later) = bytes.split_at((length - at) as usize);
            self.all.update(now);
            self.prefixes.push((length, self.all.clone().finish()));
            (bytes, at) = (later, length);
        }
        self.all.update(bytes);
    }

    pub(crate) fn finish(mut self) -> BodyDigests {
        if std::mem::take(&mut self.cr) {
            self.content(b"\r");
        }
        // A body ends with one line end; an empty one has one only in the simple form.
        self.line_ends = 0;
        if self.size_bytes > 0 || self.canonical == Canonical::Simple {
            self.put(b"\r\n");
        }
        self.flush();
        BodyDigests { all: self.all.finish(), prefixes: self.prefixes, size_bytes: self.size_bytes }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::digest;
    use proptest::prelude::*;

    use super::*;

    fn digests(canonical: Canonical, pieces: &[&[u8]], lengths: &[u64]) -> BodyDigests {
        let mut hash = BodyHash::new(canonical, lengths.to_vec());
        pieces.iter().for_each(|piece| hash.push(piece));
        hash.finish()
    }

    /// What it says, done the long way.
    fn plainly(canonical: Canonical, body: &str) -> String {
        let mut lines: Vec<String> = body.split("\r\n").map(str::to_owned).collect();
        if canonical == Canonical::Relaxed {
            for line in &mut lines {
                let words: Vec<&str> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
                let indent = if line.starts_with([' ', '\t']) && !words.is_empty() { " " } else { "" };
                *line = format!("{indent}{}", words.join(" "));
            }
        }
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        match (lines.is_empty(), canonical) {
            (true, Canonical::Relaxed) => String::new(),
            _ => lines.join("\r\n") + "\r\n",
        }
    }

    #[test]
    fn spaces_and_tabs_alone_go_from_around_a_value() {
        for (field, is) in [
            (&b"A:\x0c b \x0c\r\n"[..], &b"a:\x0c b \x0c\r\n"[..]),
            (b"A: \x0b\t\r\n", b"a:\x0b\r\n"),
            (b"A \t:\t b\t \r\n", b"a:b\r\n"),
            (b"A:\r\n", b"a:\r\n"),
        ] {
            assert_eq!(relaxed_field(field), is, "{field:?}");
        }
    }

    #[test]
    fn the_examples_of_rfc_6376_section_3_4_5() {
        let fields: [&[u8]; 2] = [b"A: X\r\n", b"B : Y\t\r\n\tZ  \r\n"];
        let of = |canonical: Canonical| {
            let mut out = Vec::new();
            fields.iter().for_each(|field| canonical.field(field, |piece| out.extend_from_slice(piece)));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(of(Canonical::Relaxed), "a:X\r\nb:Y Z\r\n");
        assert_eq!(of(Canonical::Simple), "A: X\r\nB : Y\t\r\n\tZ  \r\n");
        let body = " C \r\nD \t E\r\n\r\n\r\n";
        assert_eq!(plainly(Canonical::Relaxed, body), " C\r\nD E\r\n");
        assert_eq!(plainly(Canonical::Simple, body), " C \r\nD \t E\r\n");
    }

    #[test]
    fn an_empty_body_is_a_line_end_in_the_simple_form_and_nothing_in_the_relaxed_one() {
        for body in ["", "\r\n", "\r\n\r\n\r\n"] {
            for (canonical, is) in [(Canonical::Simple, "\r\n"), (Canonical::Relaxed, "")] {
                let all = digests(canonical, &[body.as_bytes()], &[]);
                assert_eq!(all.of(None).unwrap().0, digest(&SHA256, is.as_bytes()).as_ref(), "{body:?}");
            }
        }
        // Lines of white space alone are empty in the relaxed form.
        let blank = digests(Canonical::Relaxed, &[b"x\r\n \t\r\n  \r\n"], &[]);
        assert_eq!(blank.of(None).unwrap().0, digest(&SHA256, b"x\r\n").as_ref());
    }

    proptest! {
        #[test]
        fn however_a_body_comes_in_pieces_its_digests_are_those_of_its_canonical_form(
            parts in prop::collection::vec(prop::sample::select(vec!["a", "bc", " ", "\t", "\r\n", "\r\n\r\n", "..", "é"]), 0..40),
            at in 0usize..64,
            length in 0u64..64,
            relaxed in any::<bool>(),
        ) {
            let canonical = if relaxed { Canonical::Relaxed } else { Canonical::Simple };
            let body = parts.concat();
            let (one, other) = body.as_bytes().split_at(at.min(body.len()));
            let found = digests(canonical, &[one, other], &[length, 3]);
            let plain = plainly(canonical, &body);
            let expected = digest(&SHA256, plain.as_bytes());
            prop_assert_eq!(found.of(None).unwrap().0, expected.as_ref());
            let part = plain.as_bytes().get(..length as usize).map(|part| digest(&SHA256, part));
            prop_assert_eq!(
                found.of(Some(length)).map(|(digest, _)| digest.to_vec()),
                part.map(|digest| digest.as_ref().to_vec())
            );
            prop_assert_eq!(found.of(Some(length)).is_some_and(|(_, all)| all), length == plain.len() as u64);
        }
    }

    #[test]
    fn long_bodies_are_digested_as_they_are() {
        let body = b"0123456789 abcdef\r\n".repeat(20_000);
        let lengths = [1, BUFFER_BYTES as u64, 300_000, 380_000, 380_001];
        let found = digests(Canonical::Simple, &[&body[..100_000], &body[100_000..]], &lengths);
        assert_eq!(found.of(None).unwrap(), (digest(&SHA256, &body).as_ref(), true));
        for length in &lengths[..3] {
            let part = digest(&SHA256, &body[..*length as usize]);
            assert_eq!(found.of(Some(*length)).unwrap(), (part.as_ref(), false));
        }
        assert!(found.of(Some(380_000)).unwrap().1);
        assert!(found.of(Some(380_001)).is_none());
    }
}
