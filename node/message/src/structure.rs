//! The MIME tree of a message (RFC 2045, 2046) with the byte range of every part.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::budget::{Budget, TEXT_MEMORY_BYTES, TooMuch, length_bytes};
use crate::envelope::Envelope;
use crate::header::{HEADER_MAX_BYTES, fields, is_empty_line, is_of_field, line_end, may_begin_header, trim, unfold};
use crate::transfer::{self, is_encoded};

/// Names and values, undecoded.
pub type Parameters = Vec<(Vec<u8>, Vec<u8>)>;

/// A part; the whole message is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Where its header stands, with the closing empty line.
    pub header: Range<u64>,
    /// Where its body stands, without the line end that belongs to the boundary.
    pub body: Range<u64>,
    /// `text` of `text/plain`, as written.
    pub media_type: Vec<u8>,
    /// `plain` of `text/plain`, as written.
    pub subtype: Vec<u8>,
    /// Of Content-Type.
    pub parameters: Parameters,
    /// Content-ID
    pub id: Option<Vec<u8>>,
    /// Content-Description
    pub description: Option<Vec<u8>>,
    /// Content-Transfer-Encoding; `7BIT` if there is none.
    pub encoding: Vec<u8>,
    /// Content-MD5
    pub md5: Option<Vec<u8>>,
    /// Content-Disposition and its parameters.
    pub disposition: Option<(Vec<u8>, Parameters)>,
    /// Content-Language
    pub language: Vec<Vec<u8>>,
    /// Content-Location
    pub location: Option<Vec<u8>>,
    /// Lines of the body.
    pub lines: u64,
    /// What kind of part.
    pub kind: Body,
}

/// The kinds of part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Anything that is not looked into.
    Leaf,
    /// text/*
    Text,
    /// message/rfc822: a message of its own.
    Message(Box<(Envelope, Part)>),
    /// multipart/*
    Multipart(Vec<Part>),
}

impl Part {
    /// What it takes encoded without its texts and inner parts, in bytes, at most: no message has 2^35 bytes.
    const BARE_BYTES: usize = 56;

    /// Of a whole message.
    ///
    /// # Errors
    /// If it has too much of something.
    pub fn parse(message: &[u8]) -> Result<Self, TooMuch> {
        Part::within(message, &mut Budget::of_a_message())
    }

    pub(crate) fn within(message: &[u8], budget: &mut Budget) -> Result<Self, TooMuch> {
        let mut reader = Reader { message, at: 0, line_feeds: 0, open: Vec::new(), levels: BTreeMap::new(), budget };
        Ok(reader.part(false, 0)?.0)
    }

    /// Its size in octets, as BODYSTRUCTURE tells it.
    pub fn size_bytes(&self) -> u64 {
        self.body.end - self.body.start
    }

    /// The part of a section number (RFC 3501, section 6.4.5), seen from this message. Part 1 of a message that
    /// is not multipart is its body.
    pub fn find(&self, path: &[u32]) -> Option<&Part> {
        let Some((number, rest)) = path.split_first() else { return Some(self) };
        let inner = match &self.kind {
            Body::Multipart(parts) => parts.get(usize::try_from(*number).ok()?.checked_sub(1)?)?,
            Body::Leaf | Body::Text | Body::Message(_) if *number == 1 => {
                return if rest.is_empty() { Some(self) } else { self.message()?.find(rest) };
            }
            Body::Leaf | Body::Text | Body::Message(_) => return None,
        };
        if rest.is_empty() {
            return Some(inner);
        }
        match &inner.kind {
            Body::Message(nested) => nested.1.find(rest),
            Body::Multipart(_) => inner.find(rest),
            Body::Leaf | Body::Text => None,
        }
    }

    /// Whether it is a message/rfc822 part that is encoded: the ranges of what is inside it are those of the message when
    /// it is decoded ([`transfer::decode`]).
    pub fn is_encoded_message(&self) -> bool {
        matches!(self.kind, Body::Message(_)) && is_encoded(&self.encoding)
    }

    /// The first encoded message that a section number leads to, and the numbers that are left inside it.
    pub fn first_encoded<'p>(&self, path: &'p [u32]) -> Option<(&Part, &'p [u32])> {
        let (number, rest) = path.split_first()?;
        let inner = match &self.kind {
            Body::Multipart(parts) => parts.get(usize::try_from(*number).ok()?.checked_sub(1)?)?,
            Body::Leaf | Body::Text | Body::Message(_) if *number == 1 => self,
            Body::Leaf | Body::Text | Body::Message(_) => return None,
        };
        match &inner.kind {
            Body::Message(_) if inner.is_encoded_message() => Some((inner, rest)),
            Body::Message(nested) => nested.1.first_encoded(rest),
            Body::Multipart(_) => inner.first_encoded(rest),
            Body::Leaf | Body::Text => None,
        }
    }

    /// The message inside a message/rfc822 part.
    pub fn message(&self) -> Option<&Part> {
        match &self.kind {
            Body::Message(nested) => Some(&nested.1),
            Body::Leaf | Body::Text | Body::Multipart(_) => None,
        }
    }

    /// A parameter of Content-Type.
    pub fn parameter(&self, name: &str) -> Option<&[u8]> {
        parameter(&self.parameters, name)
    }

    /// Pays for it, without what is inside it and what was paid for as it was read: parameters, disposition and languages.
    fn pay(&self, budget: &mut Budget) -> Result<(), TooMuch> {
        budget.take(Self::BARE_BYTES, 2 * size_of::<Self>())?;
        for text in [&self.media_type, &self.subtype, &self.encoding] {
            budget.take_text(text.len())?;
        }
        let texts = [&self.id, &self.description, &self.md5, &self.location];
        texts.into_iter().flatten().try_for_each(|text| budget.take_text(text.len()))
    }
}

/// A parameter by its name, whatever the case.
pub(crate) fn parameter<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a [u8]> {
    parameters.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v.as_slice())
}

/// Reads a message once, from its start to its end, whatever is nested in it.
struct Reader<'m, 'b> {
    message: &'m [u8],
    at: usize,
    /// Before `at`.
    line_feeds: u64,
    /// The multiparts that `at` is in, the outermost first: where the part began that is being read.
    open: Vec<Option<usize>>,
    /// The outermost multipart of each boundary: its delimiter lines end whatever is inside it.
    levels: BTreeMap<Vec<u8>, usize>,
    budget: &'b mut Budget,
}

/// What ended a part.
#[derive(Clone, Copy)]
struct End {
    /// Where its last line begins or would begin, without the line end that belongs to the delimiter.
    at: usize,
    /// In the message up to there.
    line_feeds: u64,
    /// The delimiter; None at the message's end.
    delimiter: Option<Delimiter>,
}

#[derive(Clone, Copy)]
struct Delimiter {
    /// Of which multipart that is open.
    level: usize,
    closes: bool,
}

impl Reader<'_, '_> {
    /// Reads a part from its header to what ends it.
    fn part(&mut self, in_digest: bool, depth: usize) -> Result<(Part, End), TooMuch> {
        self.budget.take_part(depth)?;
        let start = self.at;
        let too_long = if depth == 0 { TooMuch::Header } else { TooMuch::PartHeader };
        // In a part, where a header that ends at its first line that is no field's would end.
        let mut fields_end = None;
        let ended_in_header = loop {
            let line = (self.at, self.line_feeds);
            if let Some(end) = self.line() {
                break Some(end);
            }
            let text = &self.message[line.0..self.at];
            let ends = is_empty_line(text);
            let belongs = if line.0 == start { may_begin_header(text) } else { is_of_field(text) };
            // The whole message's header ends where everybody's does: at an empty line.
            if depth > 0 && fields_end.is_none() && !ends && !belongs {
                fields_end = Some(line);
            }
            // A part that begins with no field has no header, and one that would be too long is none.
            if fields_end.is_some_and(|(at, _)| at == start) || self.at - start > HEADER_MAX_BYTES {
                (self.at, self.line_feeds) = fields_end.ok_or(too_long)?;
                break None;
            }
            if ends {
                break None;
            }
        };
        let (body, body_line_feeds) = (self.at, self.line_feeds);
        let header_end = ended_in_header.map_or(body, |end| end.at);
        let mut out = bare();
        read_fields(&mut out, &self.message[start.min(header_end)..header_end], self.budget)?;
        if out.media_type.is_empty() {
            match in_digest {
                true => (out.media_type, out.subtype) = (b"message".to_vec(), b"rfc822".to_vec()),
                false => be_plain_text(&mut out, self.budget)?,
            }
        }
        out.pay(self.budget)?;
        let is = |media: &[u8]| out.media_type.eq_ignore_ascii_case(media);
        let end;
        if is(b"multipart") {
            let digest = out.subtype.eq_ignore_ascii_case(b"digest");
            let boundary = out.parameter("boundary").unwrap_or_default().to_vec();
            let mut parts;
            (parts, end) = match ended_in_header {
                Some(end) => (Vec::new(), end),
                None => self.parts(boundary, digest, depth)?,
            };
            if parts.is_empty() {
                // BODYSTRUCTURE needs a part: the body as it is.
                self.budget.take_part(depth + 1)?;
                let mut whole = bare();
                be_plain_text(&mut whole, self.budget)?;
                whole.pay(self.budget)?;
                whole.kind = Body::Text;
                whole.place(body..body, body_line_feeds, end);
                parts.push(whole);
            }
            out.kind = Body::Multipart(parts);
        } else if is(b"message") && out.subtype.eq_ignore_ascii_case(b"rfc822") && is_readable(&out.encoding) {
            let inner;
            (inner, end) = match ended_in_header {
                Some(end) => self.empty_message(end, depth + 1)?,
                None => self.part(false, depth + 1)?,
            };
            let block = &self.message[inner.header.start as usize..inner.header.end as usize];
            out.kind = Body::Message(Box::new((Envelope::within(block, self.budget)?, inner)));
        } else {
            end = match ended_in_header {
                Some(end) => end,
                None => self.rest(),
            };
            if is(b"text") {
                out.kind = Body::Text;
            } else if is(b"message") && out.subtype.eq_ignore_ascii_case(b"rfc822") {
                let encoded = &self.message[body.min(end.at)..end.at];
                if is_encoded(&out.encoding)
                    && self.budget.take_encoded_message(encoded.len())
                    && let Some(nested) = of_encoded(&out.encoding, encoded, depth + 1, self.budget)?
                {
                    out.kind = Body::Message(Box::new(nested));
                    out.place(start..body, body_line_feeds, end);
                    return Ok((out, end));
                }
                // It has no readable message inside, so it is told as what it is: bytes.
                (out.media_type, out.subtype) = (b"application".to_vec(), b"octet-stream".to_vec());
            }
        }
        out.place(start..body, body_line_feeds, end);
        Ok((out, end))
    }

    /// The parts of a multipart whose body begins here.
    fn parts(&mut self, boundary: Vec<u8>, digest: bool, depth: usize) -> Result<(Vec<Part>, End), TooMuch> {
        let level = self.open.len();
        self.open.push(None);
        // Of two of the same boundary the outer one counts.
        let is_new = !boundary.is_empty() && !self.levels.contains_key(&boundary);
        if is_new {
            self.levels.insert(boundary.clone(), level);
        }
        let mut parts = Vec::new();
        // The preamble; none of it is in a part.
        let mut end = self.rest();
        while let Some(Delimiter { closes, .. }) = end.delimiter.filter(|delimiter| delimiter.level == level) {
            if closes {
                self.open[level] = None;
                if is_new {
                    self.levels.remove(&boundary);
                }
                // The epilogue.
                end = self.rest();
                break;
            }
            self.open[level] = Some(self.at);
            let part;
            (part, end) = self.part(digest, depth + 1)?;
            parts.push(part);
        }
        if is_new {
            self.levels.remove(&boundary);
        }
        self.open.truncate(level);
        Ok((parts, end))
    }

    /// The message in a part that has no body.
    fn empty_message(&mut self, end: End, depth: usize) -> Result<(Part, End), TooMuch> {
        self.budget.take_part(depth)?;
        let mut out = bare();
        be_plain_text(&mut out, self.budget)?;
        out.pay(self.budget)?;
        out.kind = Body::Text;
        out.place(end.at..end.at, end.line_feeds, end);
        Ok((out, end))
    }

    /// Goes on to what ends the part.
    fn rest(&mut self) -> End {
        loop {
            if self.levels.is_empty() {
                self.line_feeds += memchr::memchr_iter(b'\n', &self.message[self.at..]).count() as u64;
                self.at = self.message.len();
            }
            if let Some(end) = self.line() {
                return end;
            }
        }
    }

    /// Goes behind the next line, unless it is none of the part's.
    fn line(&mut self) -> Option<End> {
        let start = self.at;
        if start == self.message.len() {
            return Some(End { at: start, line_feeds: self.line_feeds, delimiter: None });
        }
        let before = self.line_feeds;
        self.at = line_end(self.message, start);
        let line = &self.message[start..self.at];
        self.line_feeds += u64::from(line.ends_with(b"\n"));
        let delimiter = self.delimiter(line)?;
        let part = self.open.get(delimiter.level).copied().flatten().unwrap_or(start);
        let at = before_line_end(self.message, part, start);
        // Only the last of what is cut off can be a line feed.
        Some(End { at, line_feeds: before - u64::from(at < start), delimiter: Some(delimiter) })
    }

    /// A line of a boundary (RFC 2046, section 5.1.1).
    fn delimiter(&self, line: &[u8]) -> Option<Delimiter> {
        let rest = line.strip_prefix(b"--").filter(|_| !self.levels.is_empty())?;
        let rest = trim_line(rest);
        let level = |boundary: &[u8]| self.levels.get(boundary).copied();
        let opens = level(rest).map(|level| Delimiter { level, closes: false });
        let closes = rest.strip_suffix(b"--").and_then(level).map(|level| Delimiter { level, closes: true });
        opens.into_iter().chain(closes).min_by_key(|delimiter| delimiter.level)
    }
}

/// The ENVELOPE and structure of an encoded message, as it is when it is decoded; None if it has a NUL, which no message
/// has.
fn of_encoded(
    encoding: &[u8],
    encoded: &[u8],
    depth: usize,
    budget: &mut Budget,
) -> Result<Option<(Envelope, Part)>, TooMuch> {
    let message = transfer::decode(encoding, encoded);
    if memchr::memchr(0, &message).is_some() {
        return Ok(None);
    }
    let mut reader =
        Reader { message: &message, at: 0, line_feeds: 0, open: Vec::new(), levels: BTreeMap::new(), budget };
    let part = reader.part(false, depth)?.0;
    let block = &message[part.header.start as usize..part.header.end as usize];
    Ok(Some((Envelope::within(block, budget)?, part)))
}

impl Part {
    /// Puts it where it stands: its header as it was read, which may have gone too far, its body up to the end.
    fn place(&mut self, header: Range<usize>, body_line_feeds: u64, end: End) {
        let (start, body) = (header.start.min(end.at) as u64, header.end.min(end.at) as u64);
        (self.header, self.body) = (start..body, body..end.at as u64);
        self.lines = match self.kind {
            Body::Text | Body::Message(_) if header.end <= end.at => end.line_feeds - body_line_feeds,
            Body::Text | Body::Message(_) | Body::Leaf | Body::Multipart(_) => 0,
        };
    }
}

fn is_readable(encoding: &[u8]) -> bool {
    [b"7bit".as_slice(), b"8bit", b"binary"].iter().any(|e| encoding.eq_ignore_ascii_case(e))
}

fn bare() -> Part {
    Part {
        header: 0..0,
        body: 0..0,
        media_type: Vec::new(),
        subtype: Vec::new(),
        parameters: Vec::new(),
        id: None,
        description: None,
        encoding: b"7BIT".to_vec(),
        md5: None,
        disposition: None,
        language: Vec::new(),
        location: None,
        lines: 0,
        kind: Body::Leaf,
    }
}

/// RFC 2045, section 5.2.
fn be_plain_text(out: &mut Part, budget: &mut Budget) -> Result<(), TooMuch> {
    (out.media_type, out.subtype) = (b"text".to_vec(), b"plain".to_vec());
    out.parameters = vec![parameter_of(b"charset", b"us-ascii", budget)?];
    Ok(())
}

fn read_fields(out: &mut Part, block: &[u8], budget: &mut Budget) -> Result<(), TooMuch> {
    for field in fields(block) {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name.as_bytes());
        if is("Content-Type") && out.media_type.is_empty() {
            let (value, parameters) = value_and_parameters(field.value, budget)?;
            let mut halves = value.splitn(2, |b| *b == b'/');
            let (media, sub) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
            if !trim(media).is_empty() && !trim(sub).is_empty() {
                (out.media_type, out.subtype, out.parameters) = (trim(media).to_vec(), trim(sub).to_vec(), parameters);
            }
        } else if is("Content-ID") {
            out.id = Some(unfold(field.value));
        } else if is("Content-Description") {
            out.description = Some(unfold(field.value));
        } else if is("Content-Transfer-Encoding") {
            let value = pieces(&unfold(field.value), |_| Ok(()))?;
            if !value.is_empty() {
                out.encoding = value;
            }
        } else if is("Content-MD5") {
            out.md5 = Some(unfold(field.value));
        } else if is("Content-Disposition") {
            let (value, parameters) = value_and_parameters(field.value, budget)?;
            if !value.is_empty() {
                budget.take_text(value.len())?;
                out.disposition = Some((value, parameters));
            }
        } else if is("Content-Language") {
            out.language.clear();
            for language in unfold(field.value).split(|b| *b == b',').map(trim).filter(|l| !l.is_empty()) {
                budget.take_text(language.len())?;
                budget.take(0, 2 * size_of::<Vec<u8>>())?;
                out.language.push(language.to_vec());
            }
        } else if is("Content-Location") {
            out.location = Some(location(&unfold(field.value)));
        }
    }
    Ok(())
}

/// `value; name=value; name="quoted"` (RFC 2045, section 5.1), comments left out.
fn value_and_parameters(raw: &[u8], budget: &mut Budget) -> Result<(Vec<u8>, Parameters), TooMuch> {
    let mut parameters = Vec::new();
    let value = pieces(&unfold(raw), |piece| {
        let Some(equals) = memchr::memchr(b'=', piece) else { return Ok(()) };
        let name = trim(&piece[..equals]);
        if !name.is_empty() {
            parameters.push(parameter_of(name, trim(&piece[equals + 1..]), budget)?);
        }
        Ok(())
    })?;
    Ok((value, parameters))
}

/// A parameter that is paid for.
fn parameter_of(name: &[u8], value: &[u8], budget: &mut Budget) -> Result<(Vec<u8>, Vec<u8>), TooMuch> {
    let lengths = length_bytes(name.len()) + length_bytes(value.len());
    let memory_bytes = 2 * size_of::<(Vec<u8>, Vec<u8>)>() + 2 * TEXT_MEMORY_BYTES;
    budget.take(name.len() + value.len() + lengths, name.len() + value.len() + memory_bytes)?;
    Ok((name.to_vec(), value.to_vec()))
}

/// A URI without what may stand in and around it: comments, quotes, and the white space of folding (RFC 2557, section
/// 4.4.2). A URI may have parentheses too: a comment's stand behind white space.
fn location(value: &[u8]) -> Vec<u8> {
    let (mut out, mut depth, mut quoted, mut before) = (Vec::new(), 0u32, false, b' ');
    for byte in value {
        match byte {
            b'"' if depth == 0 => quoted = !quoted,
            b'(' if !quoted && (depth > 0 || before.is_ascii_whitespace()) => depth += 1,
            b')' if !quoted && depth > 0 => depth -= 1,
            byte if depth == 0 && !byte.is_ascii_whitespace() => out.push(*byte),
            _ => {}
        }
        before = if *byte == b')' && depth == 0 { b' ' } else { *byte };
    }
    out
}

/// Takes a value apart at its semicolons: hands over each piece but the first, which is returned. Quotes, backslashes
/// within them, and comments are gone.
fn pieces(value: &[u8], mut visit: impl FnMut(&[u8]) -> Result<(), TooMuch>) -> Result<Vec<u8>, TooMuch> {
    let mut first: Option<Vec<u8>> = None;
    let (mut piece, mut at, mut quoted) = (Vec::new(), 0, false);
    while at < value.len() {
        match value[at] {
            b'\\' if quoted && at + 1 < value.len() => {
                piece.push(value[at + 1]);
                at += 1;
            }
            b'"' => quoted = !quoted,
            b'(' if !quoted => {
                let mut depth = 1;
                while depth > 0 && at + 1 < value.len() {
                    at += 1;
                    match value[at] {
                        b'(' => depth += 1,
                        b')' => depth -= 1,
                        _ => {}
                    }
                }
            }
            b';' if !quoted => {
                match first {
                    Some(_) => visit(&piece)?,
                    None => first = Some(trim(&piece).to_vec()),
                }
                piece.clear();
            }
            byte => piece.push(byte),
        }
        at += 1;
    }
    match first {
        Some(first) => visit(&piece).map(|()| first),
        None => Ok(trim(&piece).to_vec()),
    }
}

fn trim_line(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|b| !matches!(b, b' ' | b'\t' | b'\r' | b'\n')).map_or(0, |p| p + 1);
    &line[..end]
}

/// The line end before a boundary belongs to the boundary.
fn before_line_end(message: &[u8], start: usize, at: usize) -> usize {
    let mut end = at;
    if end > start && message[end - 1] == b'\n' {
        end -= 1;
        if end > start && message[end - 1] == b'\r' {
            end -= 1;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::budget::{DEPTH_MAX, ENCODED_MESSAGES_MAX_BYTES, PARTS_MAX};

    const NESTED: &str = "From: a@b\r\nContent-Type: multipart/mixed; boundary=\"out er\"\r\n\r\npreamble\r\n--out er\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhello\r\nworld\r\n--out er\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\nContent-Type: multipart/alternative; boundary=in\r\n\r\n--in\r\n\r\nplain\r\n--in\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\nPGI+\r\n--in--\r\n\r\n--out er\r\nContent-Type: application/pdf; name=x.pdf\r\nContent-Disposition: attachment; filename=\"x \\\"y\\\".pdf\"\r\n\r\n%PDF\r\n--out er--\r\nepilogue\r\n";

    fn text<'a>(message: &'a str, part: &Part) -> &'a str {
        &message[part.body.start as usize..part.body.end as usize]
    }

    #[test]
    fn parts_have_the_numbers_of_rfc_3501() {
        let root = Part::parse(NESTED.as_bytes()).unwrap();
        assert_eq!(text(NESTED, root.find(&[1]).unwrap()), "hello\r\nworld");
        assert_eq!(root.find(&[1]).unwrap().lines, 1);
        let message = root.find(&[2]).unwrap();
        assert!(text(NESTED, message).starts_with("Subject: inner"));
        assert_eq!(text(NESTED, root.find(&[2, 1]).unwrap()), "plain");
        assert_eq!(text(NESTED, root.find(&[2, 2]).unwrap()), "PGI+");
        assert_eq!(root.find(&[2, 2]).unwrap().encoding, b"base64");
        assert_eq!(root.find(&[4]), None);
        assert_eq!(root.find(&[1, 1]), None);
        let Body::Message(nested) = &message.kind else { panic!("no message") };
        assert_eq!(nested.0.subject.as_deref(), Some(b"inner".as_slice()));
        let pdf = root.find(&[3]).unwrap();
        assert_eq!(
            pdf.disposition,
            Some((b"attachment".to_vec(), vec![(b"filename".to_vec(), b"x \"y\".pdf".to_vec())]))
        );
        assert_eq!(pdf.parameter("NAME"), Some(b"x.pdf".as_slice()));
    }

    #[test]
    fn part_one_of_a_simple_message_is_its_body_and_defaults_are_plain_text() {
        let root = Part::parse(b"Subject: x\r\n\r\nbody\r\n").unwrap();
        assert_eq!(root.find(&[1]), Some(&root));
        assert_eq!(root.find(&[2]), None);
        assert_eq!((root.media_type.as_slice(), root.subtype.as_slice()), (b"text".as_slice(), b"plain".as_slice()));
        assert_eq!(root.parameter("charset"), Some(b"us-ascii".as_slice()));
        assert_eq!((root.size_bytes(), root.lines), (6, 1));
    }

    #[test]
    fn a_digest_holds_messages_and_a_missing_end_reaches_to_the_end() {
        let digest = "Content-Type: multipart/digest; boundary=d\n\n--d\n\nSubject: one\n\nfirst\n--d\n\nSubject: two\n\nsecond\n";
        let root = Part::parse(digest.as_bytes()).unwrap();
        let Body::Multipart(parts) = &root.kind else { panic!("no multipart") };
        assert_eq!(parts.len(), 2);
        assert!(parts.iter().all(|p| p.message().is_some()));
        assert_eq!(text(digest, root.find(&[2, 1]).unwrap()), "second\n");
    }

    fn depth(part: &Part) -> usize {
        match &part.kind {
            Body::Multipart(parts) => 1 + parts.iter().map(depth).max().unwrap_or(0),
            Body::Message(nested) => 1 + depth(&nested.1),
            Body::Leaf | Body::Text => 0,
        }
    }

    #[test]
    fn a_location_is_a_uri_without_what_stands_around_it() {
        for (value, uri) in [
            (" http://a.test/b", "http://a.test/b"),
            (" \"http://a.test/b\" (of the (old) server)", "http://a.test/b"),
            (" (x)(y) http://a.test/\r\n\tb/\r\n c_(d).png", "http://a.test/b/c_(d).png"),
            (" \"http://a.test/ (b)\"", "http://a.test/(b)"),
        ] {
            let part = Part::parse(format!("Content-Location:{value}\r\n\r\nx").as_bytes()).unwrap();
            assert_eq!(String::from_utf8_lossy(&part.location.unwrap()), uri, "{value}");
        }
    }

    #[test]
    fn an_encoded_message_is_told_as_the_message_that_it_is() {
        // `Subject: in`, and a part in it.
        let inner = "Subject: in\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b--\r\n";
        let quoted = inner.replace('=', "=3D");
        let outer = |encoding: &str, body: &str| {
            format!("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{body}\r\n")
        };
        let message = outer("quoted-printable", &quoted);
        let root = Part::parse(message.as_bytes()).unwrap();
        let Body::Message(nested) = &root.kind else { panic!("no message") };
        assert_eq!(nested.0.subject.as_deref(), Some(b"in".as_slice()));
        assert_eq!(
            (root.encoding.as_slice(), root.size_bytes()),
            (b"quoted-printable".as_slice(), quoted.len() as u64 + 2)
        );
        let (encoded, rest) = root.first_encoded(&[1, 1]).unwrap();
        assert_eq!((encoded, rest), (&root, &[1][..]));
        let decoded = transfer::decode(&root.encoding, &message.as_bytes()[root.body.start as usize..]);
        let part = nested.1.find(&[1]).unwrap();
        assert_eq!(&decoded[part.body.start as usize..part.body.end as usize], b"hi");
        let base64 = Part::parse(outer("BASE64", "U3ViamVjdDogaW4NCg0KaGk=").as_bytes()).unwrap();
        assert_eq!(base64.message().unwrap().body, 15..17);
        let with_nul = Part::parse(outer("base64", "AA==").as_bytes()).unwrap();
        assert_eq!((with_nul.subtype.as_slice(), with_nul.kind), (b"octet-stream".as_slice(), Body::Leaf));
        let large = Part::parse(outer("base64", &"A".repeat(ENCODED_MESSAGES_MAX_BYTES + 1)).as_bytes()).unwrap();
        assert_eq!((large.subtype.as_slice(), large.kind), (b"octet-stream".as_slice(), Body::Leaf));
    }

    #[test]
    fn what_is_nested_too_deep_or_has_too_many_parts_is_refused_and_all_else_is_whole() {
        let deep = |levels: usize| {
            let level = |n| format!("Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n");
            (0..levels).map(level).collect::<String>() + "\nx\n"
        };
        assert_eq!(depth(&Part::parse(deep(DEPTH_MAX).as_bytes()).unwrap()), DEPTH_MAX);
        assert_eq!(Part::parse(deep(DEPTH_MAX + 1).as_bytes()), Err(TooMuch::Depth));
        let messages = "Content-Type: message/rfc822\n\n".repeat(100_000);
        assert_eq!(Part::parse(messages.as_bytes()), Err(TooMuch::Depth));
        let wide = |parts| format!("Content-Type: multipart/mixed; boundary=b\n\n{}", "--b\n\nx\n".repeat(parts));
        let Body::Multipart(parts) = Part::parse(wide(PARTS_MAX - 1).as_bytes()).unwrap().kind else {
            panic!("no multipart")
        };
        assert_eq!(parts.len(), PARTS_MAX - 1);
        assert_eq!(Part::parse(wide(PARTS_MAX).as_bytes()), Err(TooMuch::Parts));
    }

    #[test]
    fn header_blocks_at_every_depth_are_bounded() {
        let with = |bytes: usize| format!("A: {}\n\n", "x".repeat(bytes - 5));
        let in_a_part = |block: String| format!("Content-Type: multipart/mixed; boundary=b\n\n--b\n{block}x\n--b--\n");
        assert!(Part::parse(with(HEADER_MAX_BYTES).as_bytes()).is_ok());
        assert_eq!(Part::parse(with(HEADER_MAX_BYTES + 1).as_bytes()), Err(TooMuch::Header));
        assert!(Part::parse(in_a_part(with(HEADER_MAX_BYTES)).as_bytes()).is_ok());
        assert_eq!(Part::parse(in_a_part(with(HEADER_MAX_BYTES + 1)).as_bytes()), Err(TooMuch::PartHeader));
        let message = format!("Content-Type: message/rfc822\n\n{}", with(HEADER_MAX_BYTES + 1));
        assert_eq!(Part::parse(message.as_bytes()), Err(TooMuch::PartHeader));
        // Without an empty line all of it is header.
        assert_eq!(Part::parse(&[b'\n'; 3]).unwrap().header, 0..1);
        assert_eq!(Part::parse("x\n".repeat(HEADER_MAX_BYTES).as_bytes()), Err(TooMuch::Header));
    }

    #[test]
    fn a_part_that_begins_with_text_has_no_header_and_long_text_is_none() {
        let with = |part: &str| format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n{part}\r\n--b--\r\n");
        let long = "some text\r\n".repeat(HEADER_MAX_BYTES / 10);
        for (part, body) in [
            ("some text\r\nA: b", "some text\r\nA: b"),
            (" some: text\r\n\r\nmore", " some: text\r\n\r\nmore"),
            ("A: b\r\n c\r\nsome text\r\n\r\nbody", "body"),
            (">From x\r\nA: b\r\n\r\nbody", "body"),
            ("", ""),
            (long.trim_end(), long.trim_end()),
            (&format!("A: b\r\n{long}x"), &format!("{long}x")),
        ] {
            let message = with(part);
            let root = Part::parse(message.as_bytes()).unwrap();
            assert!(text(&message, root.find(&[1]).unwrap()) == body, "{}", &part[..part.len().min(30)]);
            inside(&root, &(0..message.len() as u64));
        }
    }

    #[test]
    fn texts_are_whole_up_to_the_budget() {
        let long = "d".repeat(5_000);
        let described = |parts| {
            let part = format!("--b\nContent-Description: {long}\nContent-ID: {long}\n\nx\n");
            Part::parse(format!("Content-Type: multipart/mixed; boundary=b\n\n{}", part.repeat(parts)).as_bytes())
        };
        let Body::Multipart(parts) = described(40).unwrap().kind else { panic!("no multipart") };
        assert!(parts.iter().all(|part| part.description.as_deref() == Some(long.as_bytes())));
        assert_eq!(described(50), Err(TooMuch::Description));
        let named =
            |parameters| Part::parse(format!("Content-Type: a/b{}\n\nx\n", ";a=b".repeat(parameters)).as_bytes());
        assert_eq!(named(20_000).unwrap().parameters.len(), 20_000);
        assert_eq!(named(40_000), Err(TooMuch::Description));
        let spoken = |languages| Part::parse(format!("Content-Language: {}\n\nx\n", "a,".repeat(languages)).as_bytes());
        assert_eq!(spoken(20_000).unwrap().language.len(), 20_000);
        assert_eq!(spoken(100_000), Err(TooMuch::Description));
        let name = "%E4%B8%AD".repeat(160);
        let encoded = format!("Content-Disposition: attachment; filename*=utf-8''{name}\n\nx\n");
        let (_, parameters) = Part::parse(encoded.as_bytes()).unwrap().disposition.unwrap();
        assert_eq!(parameters, [(b"filename*".to_vec(), format!("utf-8''{name}").into_bytes())]);
    }

    fn inside(part: &Part, outer: &Range<u64>) {
        assert!(
            part.header.start <= part.header.end
                && part.header.end == part.body.start
                && part.body.end >= part.body.start
        );
        assert!(part.header.start >= outer.start && part.body.end <= outer.end, "{part:?} not in {outer:?}");
        match &part.kind {
            Body::Multipart(parts) => parts.iter().for_each(|p| inside(p, &part.body)),
            Body::Message(nested) => inside(&nested.1, &part.body),
            Body::Leaf | Body::Text => {}
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_parts_lie_inside_their_parents(
            pieces in proptest::collection::vec(prop_oneof![
                Just("Content-Type: multipart/mixed; boundary=b\r\n".to_owned()), Just("\r\n".to_owned()), Just("\n".to_owned()),
                Just("--b\r\n".to_owned()), Just("--b--\r\n".to_owned()), Just("Content-Type: message/rfc822\r\n".to_owned()),
                Just("Content-Type: multipart/digest; boundary=\"b\"\n".to_owned()), "[ -~\r\n\"(;:<@>]{0,20}",
            ], 0..40),
        ) {
            let message = pieces.concat();
            let root = Part::parse(message.as_bytes()).unwrap();
            inside(&root, &(0..message.len() as u64));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            inside(&Part::parse(&bytes).unwrap(), &(0..bytes.len() as u64));
            Envelope::parse(&bytes).unwrap();
        }
    }
}
