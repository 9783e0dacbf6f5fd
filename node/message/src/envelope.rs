//! ENVELOPE (RFC 3501, section 7.4.2): the fields of a header as IMAP tells them, undecoded.

use serde::{Deserialize, Serialize};

use crate::header::{cut, fields, first, trim, unfold};

/// The most addresses of one field that are kept.
pub const ADDRESSES_MAX: usize = 1_000;
/// What is kept of a Date, Subject, In-Reply-To or Message-ID, in bytes.
pub const TEXT_MAX_BYTES: usize = 4 << 10;
/// What is kept of From, Sender and Reply-To each, in bytes; what follows are no more addresses.
pub const ORIGINATORS_MAX_BYTES: usize = 8 << 10;
/// What is kept of To, Cc and Bcc each, in bytes; what follows are no more addresses.
pub const RECIPIENTS_MAX_BYTES: usize = 32 << 10;
/// No encoded envelope is longer, in bytes: it shares an entry with the header block and the body.
pub const ENVELOPE_MAX_BYTES: usize = 4 * TEXT_MAX_BYTES + 3 * ORIGINATORS_MAX_BYTES + 3 * RECIPIENTS_MAX_BYTES + 64;
/// What is kept of an address's display name, in bytes.
pub const NAME_MAX_BYTES: usize = 1 << 10;
/// What an address takes beside its texts, in bytes, at most.
const ADDRESS_BYTES: usize = 16;

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
    /// Of a header block.
    pub fn parse(block: &[u8]) -> Self {
        let text = |name: &str| first(block, name).map(|value| cut(unfold(value), TEXT_MAX_BYTES));
        let list = |name: &str, max_bytes| within(first(block, name).map(addresses).unwrap_or_default(), max_bytes);
        let from = list("From", ORIGINATORS_MAX_BYTES);
        let or_from = |list: Vec<Address>| if list.is_empty() { from.clone() } else { list };
        Envelope {
            date: text("Date"),
            subject: text("Subject"),
            sender: or_from(list("Sender", ORIGINATORS_MAX_BYTES)),
            reply_to: or_from(list("Reply-To", ORIGINATORS_MAX_BYTES)),
            to: list("To", RECIPIENTS_MAX_BYTES),
            cc: list("Cc", RECIPIENTS_MAX_BYTES),
            bcc: list("Bcc", RECIPIENTS_MAX_BYTES),
            in_reply_to: text("In-Reply-To"),
            message_id: text("Message-ID"),
            from,
        }
    }

    /// What it takes encoded, in bytes, as an upper bound.
    pub(crate) fn size_bytes(&self) -> usize {
        let texts = [&self.date, &self.subject, &self.in_reply_to, &self.message_id];
        let lists = [&self.from, &self.sender, &self.reply_to, &self.to, &self.cc, &self.bcc];
        64 + texts.into_iter().flatten().map(Vec::len).sum::<usize>()
            + lists.into_iter().flatten().map(Address::size_bytes).sum::<usize>()
    }
}

impl Address {
    fn size_bytes(&self) -> usize {
        let texts = [&self.name, &self.route, &self.mailbox, &self.host];
        ADDRESS_BYTES + texts.into_iter().flatten().map(Vec::len).sum::<usize>()
    }

    fn ends_group(&self) -> bool {
        self.mailbox.is_none() && self.host.is_none()
    }

    fn begins_group(&self) -> bool {
        self.mailbox.is_some() && self.host.is_none()
    }
}

/// The first of them that fit. A group that is cut off is closed.
fn within(mut list: Vec<Address>, max_bytes: usize) -> Vec<Address> {
    let (mut bytes, mut kept, mut in_group) = (ADDRESS_BYTES, 0, false);
    for address in &list {
        bytes += address.size_bytes();
        if bytes > max_bytes {
            break;
        }
        kept += 1;
        in_group = address.begins_group() || (in_group && !address.ends_group());
    }
    if kept < list.len() {
        list.truncate(kept);
        if in_group {
            list.push(Address::default());
        }
    }
    list
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Special(u8),
    Word(Vec<u8>),
    Quoted(Vec<u8>),
    Comment(Vec<u8>),
    /// A domain literal with its brackets.
    Literal(Vec<u8>),
    Space,
}

/// The addresses of a field's value (RFC 5322, section 3.4), as much as can be made of it.
pub fn addresses(value: &[u8]) -> Vec<Address> {
    let tokens = tokens(&unfold(value));
    let mut out = Vec::new();
    let mut current: Vec<Token> = Vec::new();
    let mut in_group = false;
    let mut depth = 0;
    for token in tokens {
        if out.len() >= ADDRESSES_MAX {
            break;
        }
        match token {
            Token::Special(b'<') => {
                depth += 1;
                current.push(token);
            }
            Token::Special(b'>') => {
                depth = 0;
                current.push(token);
            }
            Token::Special(b',') if depth == 0 => {
                out.extend(address(&std::mem::take(&mut current)));
            }
            Token::Special(b':') if depth == 0 && !in_group => {
                let name = phrase(&std::mem::take(&mut current)).unwrap_or_default();
                out.push(Address { mailbox: Some(name), ..Address::default() });
                in_group = true;
            }
            Token::Special(b';') if in_group => {
                out.extend(address(&std::mem::take(&mut current)));
                out.push(Address::default());
                in_group = false;
                depth = 0;
            }
            token => current.push(token),
        }
    }
    out.extend(address(&current));
    if in_group {
        out.push(Address::default());
    }
    out
}

fn address(tokens: &[Token]) -> Option<Address> {
    let open = tokens.iter().position(|t| *t == Token::Special(b'<'));
    // Old mail has the name in a comment.
    let comment = || tokens.iter().find_map(|t| if let Token::Comment(c) = t { Some(c.clone()) } else { None });
    let (name, mut spec) = match open {
        Some(open) => {
            let close = tokens.iter().rposition(|t| *t == Token::Special(b'>')).filter(|c| *c > open);
            (phrase(&tokens[..open]).or_else(comment), &tokens[open + 1..close.unwrap_or(tokens.len())])
        }
        None => (comment(), tokens),
    };
    let mut route = None;
    if open.is_some()
        && let Some(colon) = spec.iter().position(|t| *t == Token::Special(b':'))
    {
        route = Some(joined(&spec[..colon]));
        spec = &spec[colon + 1..];
    }
    let at = spec.iter().rposition(|t| *t == Token::Special(b'@'));
    let (local, host) = match at {
        Some(at) => (joined(&spec[..at]), Some(joined(&spec[at + 1..]))),
        None => (joined(spec), None),
    };
    if local.is_empty() && host.is_none() && name.is_none() {
        return None;
    }
    // A group's start has no host: an address without one gets an empty one.
    let name = name.map(|name| cut(name, NAME_MAX_BYTES));
    Some(Address { name, route, mailbox: Some(local), host: Some(host.unwrap_or_default()) })
}

fn phrase(tokens: &[Token]) -> Option<Vec<u8>> {
    let mut out: Vec<u8> = Vec::new();
    for token in tokens {
        match token {
            Token::Word(w) | Token::Quoted(w) | Token::Literal(w) => out.extend_from_slice(w),
            Token::Special(b) => out.push(*b),
            Token::Space => out.push(b' '),
            Token::Comment(_) => {}
        }
    }
    let trimmed = trim(&out);
    (!trimmed.is_empty()).then(|| trimmed.to_vec())
}

fn joined(tokens: &[Token]) -> Vec<u8> {
    let mut out = Vec::new();
    for token in tokens {
        match token {
            Token::Word(w) | Token::Quoted(w) | Token::Literal(w) => out.extend_from_slice(w),
            Token::Special(b) => out.push(*b),
            Token::Space | Token::Comment(_) => {}
        }
    }
    out
}

fn tokens(value: &[u8]) -> Vec<Token> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < value.len() {
        let byte = value[at];
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                if out.last() != Some(&Token::Space) {
                    out.push(Token::Space);
                }
                at += 1;
            }
            b'"' => {
                let (text, next) = enclosed(value, at + 1, b'"', None);
                out.push(Token::Quoted(text));
                at = next;
            }
            b'(' => {
                let (text, next) = enclosed(value, at + 1, b')', Some(b'('));
                out.push(Token::Comment(trim(&text).to_vec()));
                at = next;
            }
            b'[' => {
                let (text, next) = enclosed(value, at + 1, b']', None);
                out.push(Token::Literal([b"[".as_slice(), &text, b"]"].concat()));
                at = next;
            }
            b'<' | b'>' | b',' | b':' | b';' | b'@' => {
                out.push(Token::Special(byte));
                at += 1;
            }
            _ => {
                let end =
                    value[at..].iter().position(|b| b" \t\r\n\"(<>,:;@[".contains(b)).map_or(value.len(), |p| at + p);
                out.push(Token::Word(value[at..end.max(at + 1)].to_vec()));
                at = end.max(at + 1);
            }
        }
    }
    out
}

/// Text up to the closing byte, without backslashes before quoted bytes and without line ends; and where it
/// goes on.
fn enclosed(value: &[u8], mut at: usize, close: u8, open: Option<u8>) -> (Vec<u8>, usize) {
    let (mut out, mut depth) = (Vec::new(), 1);
    while at < value.len() {
        let byte = value[at];
        at += 1;
        if byte == b'\\' && at < value.len() {
            out.push(value[at]);
            at += 1;
            continue;
        }
        if byte == close {
            depth -= 1;
            if depth == 0 {
                break;
            }
        } else if open == Some(byte) {
            depth += 1;
        }
        if !matches!(byte, b'\r' | b'\n') {
            out.push(byte);
        }
    }
    (out, at)
}

/// The fields that say who wrote or sent a message (RFC 5322, sections 3.6.2 and 3.6.6).
const AUTHORS: [&str; 4] = ["From", "Sender", "Resent-From", "Resent-Sender"];

/// Every address that such a field of the block names, as `local@domain`; None where one of them names none that could be
/// understood. At most `max` of them are looked for.
pub fn authors(block: &[u8], max: usize) -> Option<Vec<String>> {
    let mut authors = Vec::new();
    for field in fields(block).filter(|f| AUTHORS.iter().any(|name| f.name.eq_ignore_ascii_case(name.as_bytes()))) {
        let before = authors.len();
        // A group's beginning and end have no host, and no mailbox or no address.
        for address in addresses(field.value).into_iter().filter(|a| a.host.is_some()) {
            let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap_or_default()).ok();
            authors.push(format!("{}@{}", text(address.mailbox)?, text(address.host)?));
        }
        if authors.len() == before || authors.len() > max {
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
        assert_eq!(shown("a\0@b.ex\r\n ample"), ["NIL|NIL|a|b.example"]);
    }

    #[test]
    fn an_envelope_is_bounded_whatever_the_header() {
        let long = "n".repeat(250_000);
        let many = "some.body@example.org, ".repeat(10_000);
        for block in [
            format!("From: {long} <a@b>\r\nSubject: {long}\r\n\r\n"),
            format!("From: {many}\r\nSender: {many}\r\nTo: {many}\r\nCc: {many}\r\nBcc: {many}\r\n\r\n"),
            format!("From: g: {many};\r\nTo: {}\r\n\r\n", ":".repeat(200_000)),
        ] {
            let envelope = Envelope::parse(block.as_bytes());
            assert!(envelope.size_bytes() <= ENVELOPE_MAX_BYTES, "{}", envelope.size_bytes());
        }
        let named = Envelope::parse(format!("From: {long} <a@b>\r\n\r\n").as_bytes()).from;
        assert_eq!(named[0].host.as_deref(), Some(b"b".as_slice()), "only the name is cut");
        let list = Envelope::parse(format!("To: g: {many};\r\n\r\n").as_bytes()).to;
        assert!(list.len() > 500 && list[1].host.is_some(), "whole addresses are kept");
        assert_eq!(list.last(), Some(&Address::default()), "the group is closed");
    }

    #[test]
    fn sender_and_reply_to_are_from_if_they_are_not_there() {
        let envelope = Envelope::parse(b"From: a@b\r\nReply-To: r@s\r\nSubject: =?x?=\r\n y\r\n\r\n");
        assert_eq!(envelope.sender, envelope.from);
        assert_eq!(envelope.reply_to, addresses(b"r@s"));
        assert_eq!(envelope.subject.as_deref(), Some(b"=?x?= y".as_slice()));
        assert_eq!(envelope.message_id, None);
    }
}
