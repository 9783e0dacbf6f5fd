//! ENVELOPE (RFC 3501, section 7.4.2): the fields of a header as IMAP tells them, undecoded.

use serde::{Deserialize, Serialize};

use crate::header::{first, trim, unfold};

/// The most addresses of one field that are kept.
pub const ADDRESSES_MAX: usize = 1_000;

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
        let text = |name: &str| first(block, name).map(unfold);
        let list = |name: &str| first(block, name).map(addresses).unwrap_or_default();
        let from = list("From");
        let or_from = |list: Vec<Address>| if list.is_empty() { from.clone() } else { list };
        Envelope {
            date: text("Date"),
            subject: text("Subject"),
            sender: or_from(list("Sender")),
            reply_to: or_from(list("Reply-To")),
            to: list("To"),
            cc: list("Cc"),
            bcc: list("Bcc"),
            in_reply_to: text("In-Reply-To"),
            message_id: text("Message-ID"),
            from,
        }
    }
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
    let tokens = tokens(value);
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
    let (name, mut spec) = match open {
        Some(open) => {
            let close = tokens.iter().rposition(|t| *t == Token::Special(b'>')).filter(|c| *c > open);
            (phrase(&tokens[..open]), &tokens[open + 1..close.unwrap_or(tokens.len())])
        }
        None => {
            let comment = tokens.iter().find_map(|t| if let Token::Comment(c) = t { Some(c.clone()) } else { None });
            (comment, tokens)
        }
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
                let end = value[at..].iter().position(|b| b" \t\r\n\"(<>,:;@[".contains(b)).map_or(value.len(), |p| at + p);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> Vec<String> {
        let text = |v: &Option<Vec<u8>>| v.as_ref().map_or("NIL".into(), |v| String::from_utf8_lossy(v).into_owned());
        addresses(value.as_bytes()).iter().map(|a| format!("{}|{}|{}|{}", text(&a.name), text(&a.route), text(&a.mailbox), text(&a.host))).collect()
    }

    #[test]
    fn addresses_of_every_form() {
        assert_eq!(shown("a@b.example"), ["NIL|NIL|a|b.example"]);
        assert_eq!(shown("\"Doe, Jane\" <jane@x>, Bob <bob@y>"), ["Doe, Jane|NIL|jane|x", "Bob|NIL|bob|y"]);
        assert_eq!(shown("=?utf-8?q?J=C3=B6rg?= <j@x>"), ["=?utf-8?q?J=C3=B6rg?=|NIL|j|x"]);
        assert_eq!(shown("old@style (Old Name)"), ["Old Name|NIL|old|style"]);
        assert_eq!(shown("<@relay,@other:a@b>"), ["NIL|@relay,@other|a|b"]);
        assert_eq!(shown("Team: a@b, c@d;, e@f"), ["NIL|NIL|Team|NIL", "NIL|NIL|a|b", "NIL|NIL|c|d", "NIL|NIL|NIL|NIL", "NIL|NIL|e|f"]);
        assert_eq!(shown("undisclosed-recipients:;"), ["NIL|NIL|undisclosed-recipients|NIL", "NIL|NIL|NIL|NIL"]);
        assert_eq!(shown("\"q@q\"@x"), ["NIL|NIL|q@q|x"]);
        assert_eq!(shown("a@[127.0.0.1]"), ["NIL|NIL|a|[127.0.0.1]"]);
        assert_eq!(shown(", ,"), Vec::<String>::new());
        assert_eq!(shown("Bob <bob@y"), ["Bob|NIL|bob|y"]);
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
