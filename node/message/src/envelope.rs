//! ENVELOPE (RFC 3501, section 7.4.2): the fields of a header as IMAP tells them, undecoded.

use std::ops::{ControlFlow, Range};

use serde::{Deserialize, Serialize};

use crate::budget::{Budget, TEXT_MEMORY_BYTES, TooMuch, length_bytes};
use crate::header::{fields, first, trim, unfold};

/// An address. A group begins with one that has a mailbox (its name) and no host, and ends with one that has
/// neither.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The display name, undecoded.
    pub name: Option<Vec<u8>>,
    /// The source route.
    pub route: Option<Vec<u8>>,
    /// The local part, or the group's name.
    pub mailbox: Option<Vec<u8>>,
    /// The domain.
    pub host: Option<Vec<u8>>,
}

/// The ENVELOPE of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Date
    pub date: Option<Vec<u8>>,
    /// Subject
    pub subject: Option<Vec<u8>>,
    /// From
    pub from: Vec<Address>,
    /// Sender; From if there is none.
    pub sender: Vec<Address>,
    /// Reply-To; From if there is none.
    pub reply_to: Vec<Address>,
    /// To
    pub to: Vec<Address>,
    /// Cc
    pub cc: Vec<Address>,
    /// Bcc
    pub bcc: Vec<Address>,
    /// In-Reply-To
    pub in_reply_to: Option<Vec<u8>>,
    /// Message-ID
    pub message_id: Option<Vec<u8>>,
}

impl Envelope {
    /// What it takes without its texts and addresses: encoded, a byte for each field, and two more where there are many
    /// addresses.
    const BARE_BYTES: usize = 32;

    /// Of a header block.
    ///
    /// # Errors
    /// If it has too many addresses, or texts too long.
    pub fn parse(block: &[u8]) -> Result<Self, TooMuch> {
        Envelope::within(block, &mut Budget::of_a_message())
    }

    pub(crate) fn within(block: &[u8], budget: &mut Budget) -> Result<Self, TooMuch> {
        budget.take(Self::BARE_BYTES, size_of::<Self>())?;
        let from = list(block, "From", budget)?;
        let sender = list_or(&from, block, "Sender", budget)?;
        let reply_to = list_or(&from, block, "Reply-To", budget)?;
        Ok(Envelope {
            date: text(block, "Date", budget)?,
            subject: text(block, "Subject", budget)?,
            sender,
            reply_to,
            to: list(block, "To", budget)?,
            cc: list(block, "Cc", budget)?,
            bcc: list(block, "Bcc", budget)?,
            in_reply_to: text(block, "In-Reply-To", budget)?,
            message_id: text(block, "Message-ID", budget)?,
            from,
        })
    }
}

impl Address {
    /// Pays for it.
    fn pay(&self, budget: &mut Budget) -> Result<(), TooMuch> {
        let texts = [&self.name, &self.route, &self.mailbox, &self.host].into_iter().flatten();
        let (mut encoded, mut memory) = (4, 2 * size_of::<Self>());
        for text in texts {
            encoded += text.len() + length_bytes(text.len());
            memory += text.len() + TEXT_MEMORY_BYTES;
        }
        budget.take(encoded, memory)
    }
}

fn text(block: &[u8], name: &str, budget: &mut Budget) -> Result<Option<Vec<u8>>, TooMuch> {
    let Some(value) = first(block, name).map(unfold) else { return Ok(None) };
    budget.take_text(value.len())?;
    Ok(Some(value))
}

fn list(block: &[u8], name: &str, budget: &mut Budget) -> Result<Vec<Address>, TooMuch> {
    let (mut out, mut paid) = (Vec::new(), Ok(()));
    each_address_of(block, name, |address| {
        paid = address.pay(budget);
        if paid.is_err() {
            return ControlFlow::Break(());
        }
        out.push(address);
        ControlFlow::Continue(())
    });
    paid.map(|()| out)
}

/// The field's addresses; `or` if it has none.
fn list_or(or: &[Address], block: &[u8], name: &str, budget: &mut Budget) -> Result<Vec<Address>, TooMuch> {
    let own = list(block, name, budget)?;
    if !own.is_empty() {
        return Ok(own);
    }
    or.iter().try_for_each(|address| address.pay(budget))?;
    Ok(or.to_vec())
}

/// The addresses of a field's value (RFC 5322, section 3.4), as much as can be made of it.
pub fn addresses(value: &[u8]) -> Vec<Address> {
    let mut out = Vec::new();
    each_address(value, |address| {
        out.push(address);
        ControlFlow::Continue(())
    });
    out
}

/// Hands over the addresses of all fields of a name, one by one, until `visit` breaks off. There should be one field of each
/// name (RFC 5322, section 3.6); where there are more, none of their addresses is lost.
pub fn each_address_of(block: &[u8], name: &str, mut visit: impl FnMut(Address) -> ControlFlow<()>) {
    for field in fields(block).filter(|f| f.name.eq_ignore_ascii_case(name.as_bytes())) {
        if visit_addresses(&unfold(field.value), &mut visit).is_break() {
            return;
        }
    }
}

/// Hands over the addresses of a field's value, one by one, until `visit` breaks off. One is in memory at a time.
pub fn each_address(value: &[u8], mut visit: impl FnMut(Address) -> ControlFlow<()>) {
    // How it ended is of no use to anybody.
    let _ = visit_addresses(&unfold(value), &mut visit);
}

fn visit_addresses(value: &[u8], visit: &mut impl FnMut(Address) -> ControlFlow<()>) -> ControlFlow<()> {
    let (mut start, mut in_group, mut in_brackets) = (0, false, false);
    for (token, range) in (Tokens { value, at: 0 }) {
        match token {
            Token::Special(b'<') => in_brackets = true,
            Token::Special(b'>') => in_brackets = false,
            Token::Special(b',') if !in_brackets => {
                visit_some(address(&value[start..range.start]), visit)?;
                start = range.end;
            }
            Token::Special(b':') if !in_brackets && !in_group => {
                let name = phrase(&value[start..range.start]).unwrap_or_default();
                visit(Address { mailbox: Some(name), ..Address::default() })?;
                (start, in_group) = (range.end, true);
            }
            Token::Special(b';') if in_group => {
                visit_some(address(&value[start..range.start]), visit)?;
                visit(Address::default())?;
                (start, in_group, in_brackets) = (range.end, false, false);
            }
            Token::Special(_) | Token::Text(_) | Token::Quoted(_) | Token::Comment(_) | Token::Literal(_) => {}
            Token::Space => {}
        }
    }
    visit_some(address(&value[start..]), visit)?;
    if in_group { visit(Address::default()) } else { ControlFlow::Continue(()) }
}

fn visit_some(address: Option<Address>, visit: &mut impl FnMut(Address) -> ControlFlow<()>) -> ControlFlow<()> {
    address.map_or(ControlFlow::Continue(()), visit)
}

/// Made of the text of one address, which is read twice: once for where its parts are.
fn address(text: &[u8]) -> Option<Address> {
    let (mut open, mut close, mut colon, mut at, mut comment) = (None, None, None, None, None);
    let inside = |open: &Option<Range<usize>>, close: &Option<_>| open.is_some() && close.is_none();
    for (token, range) in (Tokens { value: text, at: 0 }) {
        match token {
            Token::Special(b'<') if open.is_none() => (open, at) = (Some(range), None),
            // What follows the last one belongs to nothing.
            Token::Special(b'>') if open.is_some() => close = Some((range.start, at.clone())),
            Token::Special(b':') if open.is_some() && colon.is_none() => (colon, at) = (Some(range), None),
            Token::Special(b'@') => (at, comment) = (Some(range), None),
            // Old mail has the name in a comment behind the address; within one it is no name.
            Token::Comment(inner) if comment.is_none() && !inside(&open, &close) => comment = Some(inner),
            Token::Text(_) | Token::Quoted(_) | Token::Literal(_) => comment = None,
            Token::Special(_) | Token::Comment(_) | Token::Space => {}
        }
    }
    let comment = || comment.map(|inner| trim(&unquoted(inner)).to_vec());
    let (name, mut spec) = match &open {
        Some(open) => {
            let end = close.as_ref().map_or(text.len(), |(end, _)| *end);
            (phrase(&text[..open.start]).or_else(comment), open.end..end)
        }
        None => (comment(), 0..text.len()),
    };
    if let Some((_, before)) = close {
        at = before;
    }
    let route = colon.filter(|colon| colon.end <= spec.end).map(|colon| {
        let route = joined(&text[spec.start..colon.start]);
        spec.start = colon.end;
        route
    });
    let at = at.filter(|at| at.start >= spec.start && at.end <= spec.end);
    let (local, host) = match at {
        Some(at) => (joined(&text[spec.start..at.start]), Some(joined(&text[at.end..spec.end]))),
        None => (joined(&text[spec]), None),
    };
    if local.is_empty() && host.is_none() && name.is_none() {
        return None;
    }
    // A group's start has no host: an address without one gets an empty one.
    Some(Address { name, route, mailbox: Some(local), host: Some(host.unwrap_or_default()) })
}

fn phrase(text: &[u8]) -> Option<Vec<u8>> {
    let mut out: Vec<u8> = Vec::new();
    for (token, _) in (Tokens { value: text, at: 0 }) {
        match token {
            Token::Space => out.push(b' '),
            token => token.push_to(&mut out),
        }
    }
    let trimmed = trim(&out);
    (!trimmed.is_empty()).then(|| trimmed.to_vec())
}

fn joined(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (token, _) in (Tokens { value: text, at: 0 }) {
        token.push_to(&mut out);
    }
    out
}

/// A token of a value on one line, and the value's own bytes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'a> {
    Special(u8),
    Text(&'a [u8]),
    /// What is between the quotes, with its backslashes.
    Quoted(&'a [u8]),
    /// The same of a comment.
    Comment(&'a [u8]),
    /// The same of a domain literal.
    Literal(&'a [u8]),
    Space,
}

impl Token<'_> {
    /// Appends what it means; spaces and comments mean nothing.
    fn push_to(self, out: &mut Vec<u8>) {
        match self {
            Token::Special(byte) => out.push(byte),
            Token::Text(text) => out.extend_from_slice(text),
            Token::Quoted(inner) => push_unquoted(inner, out),
            Token::Literal(inner) => {
                out.push(b'[');
                push_unquoted(inner, out);
                out.push(b']');
            }
            Token::Space | Token::Comment(_) => {}
        }
    }
}

/// The tokens of a value, with their ranges, as they are asked for.
struct Tokens<'a> {
    value: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (Token<'a>, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let (value, start) = (self.value, self.at);
        let run = |belongs: &dyn Fn(&u8) -> bool| value[start..].iter().take_while(|b| belongs(b)).count();
        let byte = *value.get(start)?;
        let token = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                self.at += run(&|b| b" \t\r\n".contains(b));
                Token::Space
            }
            b'"' => Token::Quoted(self.enclosed(b'"', None)),
            b'(' => Token::Comment(self.enclosed(b')', Some(b'('))),
            b'[' => Token::Literal(self.enclosed(b']', None)),
            b'<' | b'>' | b',' | b':' | b';' | b'@' => {
                self.at += 1;
                Token::Special(byte)
            }
            _ => {
                let length = run(&|b| !b" \t\r\n\"(<>,:;@[".contains(b));
                self.at += length;
                Token::Text(&value[start..start + length])
            }
        };
        Some((token, start..self.at))
    }
}

impl<'a> Tokens<'a> {
    /// Goes behind the closing byte, or to the end. Returns what is before it.
    fn enclosed(&mut self, close: u8, open: Option<u8>) -> &'a [u8] {
        let (start, mut depth) = (self.at + 1, 1u32);
        let mut at = start;
        while at < self.value.len() {
            let byte = self.value[at];
            if byte == b'\\' && at + 1 < self.value.len() {
                at += 2;
                continue;
            }
            if byte == close {
                depth -= 1;
                if depth == 0 {
                    self.at = at + 1;
                    return &self.value[start..at];
                }
            } else if open == Some(byte) {
                depth += 1;
            }
            at += 1;
        }
        self.at = self.value.len();
        &self.value[start..]
    }
}

fn unquoted(inner: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    push_unquoted(inner, &mut out);
    out
}

/// Appends a text without the backslashes before quoted bytes.
fn push_unquoted(inner: &[u8], out: &mut Vec<u8>) {
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        match (byte, bytes.as_slice().first()) {
            (b'\\', Some(quoted)) => {
                out.push(*quoted);
                bytes.next();
            }
            (byte, _) => out.push(*byte),
        }
    }
}

/// The fields that say who wrote or sent a message (RFC 5322, sections 3.6.2 and 3.6.6).
const AUTHORS: [&str; 4] = ["From", "Sender", "Resent-From", "Resent-Sender"];

/// Every address that such a field of the block names, as `local@domain`; None where one of them names none that could be
/// understood. At most `max` of them are looked for.
pub fn authors(block: &[u8], max: usize) -> Option<Vec<String>> {
    let mut authors = Vec::new();
    for field in fields(block).filter(|f| AUTHORS.iter().any(|name| f.name.eq_ignore_ascii_case(name.as_bytes()))) {
        let (mut named, mut understood) = (0, true);
        each_address(field.value, |address| {
            // A group's beginning and end have no host, and no mailbox or no address.
            if address.host.is_none() {
                return ControlFlow::Continue(());
            }
            named += 1;
            let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap_or_default()).ok();
            match text(address.mailbox).zip(text(address.host)) {
                Some((local, domain)) if authors.len() < max => authors.push(format!("{local}@{domain}")),
                Some(_) | None => understood = false,
            }
            if understood { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if named == 0 || !understood {
            return None;
        }
    }
    Some(authors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> Vec<String> {
        let text = |v: &Option<Vec<u8>>| v.as_ref().map_or("NIL".into(), |v| String::from_utf8_lossy(v).into_owned());
        addresses(value.as_bytes())
            .iter()
            .map(|a| format!("{}|{}|{}|{}", text(&a.name), text(&a.route), text(&a.mailbox), text(&a.host)))
            .collect()
    }

    #[test]
    fn every_author_is_named_whatever_hides_it() {
        let of = |text: &str| authors(text.as_bytes(), 4);
        let is = |text: &str, wanted: &[&str]| {
            assert_eq!(of(text), Some(wanted.iter().map(|w| (*w).to_owned()).collect()), "{text}")
        };
        // A name without a domain is an author too, and nobody's address.
        assert!(of("From: somebody\r\n\r\n").is_none_or(|all| all.iter().all(|a| !a.contains(".test"))));
        is("Subject: x\r\n\r\nFrom: not@in.the.header\r\n", &[]);
        is("From: A <a@b.test>\r\n\r\n", &["a@b.test"]);
        is("From: a@b.test\r\nfrom : \"c@d\" <c@d.test>, e@f.test\r\n\r\n", &["a@b.test", "c@d.test", "e@f.test"]);
        is("Sender:\r\n (x) a@b.test\r\nResent-From: us: c@d.test;\r\n\r\n", &["a@b.test", "c@d.test"]);
        for nobody in ["From:\r\n\r\n", "From: a@b, a@b, a@b, a@b, a@b\r\n\r\n"] {
            assert_eq!(of(nobody), None, "{nobody}");
        }
    }

    #[test]
    fn addresses_of_every_form() {
        assert_eq!(shown("a@b.example"), ["NIL|NIL|a|b.example"]);
        assert_eq!(shown("\"Doe, Jane\" <jane@x>, Bob <bob@y>"), ["Doe, Jane|NIL|jane|x", "Bob|NIL|bob|y"]);
        assert_eq!(shown("=?utf-8?q?J=C3=B6rg?= <j@x>"), ["=?utf-8?q?J=C3=B6rg?=|NIL|j|x"]);
        assert_eq!(shown("old@style (Old Name)"), ["Old Name|NIL|old|style"]);
        assert_eq!(shown("<@relay,@other:a@b>"), ["NIL|@relay,@other|a|b"]);
        assert_eq!(
            shown("Team: a@b, c@d;, e@f"),
            ["NIL|NIL|Team|NIL", "NIL|NIL|a|b", "NIL|NIL|c|d", "NIL|NIL|NIL|NIL", "NIL|NIL|e|f"]
        );
        assert_eq!(shown("undisclosed-recipients:;"), ["NIL|NIL|undisclosed-recipients|NIL", "NIL|NIL|NIL|NIL"]);
        assert_eq!(shown("\"q@q\"@x"), ["NIL|NIL|q@q|x"]);
        assert_eq!(shown("a@[127.0.0.1]"), ["NIL|NIL|a|[127.0.0.1]"]);
        assert_eq!(shown(", ,"), Vec::<String>::new());
        assert_eq!(shown("Bob <bob@y"), ["Bob|NIL|bob|y"]);
        assert_eq!(shown("<bob@y> (Bob)"), ["Bob|NIL|bob|y"]);
        assert_eq!(shown("bob@y (Bob) (Bobby)"), ["Bob|NIL|bob|y"]);
        assert_eq!(shown("<user (comment)@ (comment) domain.org>"), ["NIL|NIL|user|domain.org"]);
        assert_eq!(shown("user (comment) @ (comment) domain.org"), ["NIL|NIL|user|domain.org"]);
        assert_eq!(shown("(comment) user@domain.org, U (comment) <u@d>"), ["NIL|NIL|user|domain.org", "U|NIL|u|d"]);
        assert_eq!(shown("a\0@b.ex\r\n ample"), ["NIL|NIL|a|b.example"]);
    }

    #[test]
    fn an_envelope_is_whole_or_refused() {
        let of = |block: String| Envelope::parse(block.as_bytes());
        let long = "n".repeat(250_000);
        let named = of(format!("From: {long} <a@b>\r\n\r\n"));
        assert_eq!(named, Err(TooMuch::Description), "it would be told as Sender and Reply-To too");
        let named = of(format!("To: {long} <a@b>\r\n\r\n")).unwrap().to;
        assert_eq!(named[0].name.as_ref().map(Vec::len), Some(250_000));
        assert_eq!(of(format!("Subject: {long}\r\n\r\n")).unwrap().subject.map(|s| s.len()), Some(250_000));
        let people: Vec<String> = (0..6_000).map(|n| format!("Some Body {n} <user{n}@example.org>")).collect();
        let envelope = of(format!("To: team: {};\r\n\r\n", people.join(",\r\n "))).unwrap();
        assert_eq!(envelope.to.len(), 6_002, "a header block full of people is told whole");
        assert_eq!(envelope.to.last(), Some(&Address::default()), "the group is closed");
        for many in ["a@b,".repeat(60_000), ":;".repeat(120_000), "a,".repeat(120_000)] {
            assert_eq!(of(format!("Cc: {many}\r\n\r\n")), Err(TooMuch::Description));
        }
    }

    #[test]
    fn addresses_of_a_second_field_are_not_lost() {
        let envelope = Envelope::parse(b"To: a@b\r\nFrom: f@g\r\nto: c@d, e@f\r\nFrom: h@i\r\n\r\n").unwrap();
        assert_eq!(envelope.to, addresses(b"a@b, c@d, e@f"));
        assert_eq!(envelope.from, addresses(b"f@g, h@i"));
        assert_eq!(envelope.reply_to, envelope.from);
    }

    #[test]
    fn sender_and_reply_to_are_from_if_they_are_not_there() {
        let envelope = Envelope::parse(b"From: a@b\r\nReply-To: r@s\r\nSubject: =?x?=\r\n y\r\n\r\n").unwrap();
        assert_eq!(envelope.sender, envelope.from);
        assert_eq!(envelope.reply_to, addresses(b"r@s"));
        assert_eq!(envelope.subject.as_deref(), Some(b"=?x?= y".as_slice()));
        assert_eq!(envelope.message_id, None);
    }
}
