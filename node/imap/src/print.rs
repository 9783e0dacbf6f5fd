//! Responses as bytes (RFC 3501, section 7 and 9).

use mailraft_mailbox::Flags;
use mailraft_mailbox::api::SpecialUse;
use mailraft_message::structure::Parameters;
use mailraft_message::{Address, Body, Envelope, Part};

use crate::utf7::Spelling;

/// Longer strings go as literals.
const QUOTED_MAX_BYTES: usize = 1_000;

/// A string: quoted where that can hold it, else a literal.
pub fn string(out: &mut Vec<u8>, value: &[u8]) {
    let plain = value.len() <= QUOTED_MAX_BYTES && value.iter().all(|b| (0x20..0x7f).contains(b));
    if plain {
        out.push(b'"');
        for byte in value {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(*byte);
        }
        out.push(b'"');
    } else {
        literal(out, value);
    }
}

/// A literal.
pub fn literal(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(format!("{{{}}}\r\n", value.len()).as_bytes());
    out.extend_from_slice(value);
}

/// A string or NIL.
pub fn nstring(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => string(out, value),
        None => out.extend_from_slice(b"NIL"),
    }
}

/// A folder's name.
pub fn folder(name: &str, spelling: Spelling) -> String {
    let spelt = spelling.encode(name);
    // Whoever takes UTF-8 takes it in quotes too.
    if spelling == Spelling::Utf8 && !spelt.chars().any(char::is_control) {
        return format!("\"{}\"", spelt.replace('\\', "\\\\").replace('"', "\\\""));
    }
    let mut out = Vec::new();
    string(&mut out, spelt.as_bytes());
    String::from_utf8_lossy(&out).into_owned()
}

/// A special use (RFC 6154, section 2).
pub fn special_use(of: SpecialUse) -> &'static str {
    match of {
        SpecialUse::Drafts => "\\Drafts",
        SpecialUse::Sent => "\\Sent",
        SpecialUse::Junk => "\\Junk",
        SpecialUse::Trash => "\\Trash",
        SpecialUse::Archive => "\\Archive",
    }
}

/// A list of flags in parentheses.
pub fn flags(flags: &Flags, recent: bool) -> String {
    let mut names = flags.names();
    if recent {
        names.push("\\Recent");
    }
    format!("({})", names.join(" "))
}

/// MODSEQ behind another item of FETCH (RFC 7162, section 3.1.4).
pub fn modseq(modseq: u64) -> String {
    format!(" MODSEQ ({modseq})")
}

/// The flags that every folder keeps, in the order they are printed.
pub const SYSTEM_FLAGS: [&str; 5] = ["\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft"];

/// ENVELOPE
pub fn envelope(out: &mut Vec<u8>, envelope: &Envelope) {
    out.push(b'(');
    nstring(out, envelope.date.as_deref());
    out.push(b' ');
    nstring(out, envelope.subject.as_deref());
    for list in [&envelope.from, &envelope.sender, &envelope.reply_to, &envelope.to, &envelope.cc, &envelope.bcc] {
        out.push(b' ');
        addresses(out, list);
    }
    out.push(b' ');
    nstring(out, envelope.in_reply_to.as_deref());
    out.push(b' ');
    nstring(out, envelope.message_id.as_deref());
    out.push(b')');
}

fn addresses(out: &mut Vec<u8>, list: &[Address]) {
    if list.is_empty() {
        return out.extend_from_slice(b"NIL");
    }
    out.push(b'(');
    for address in list {
        out.push(b'(');
        for (n, field) in [&address.name, &address.route, &address.mailbox, &address.host].into_iter().enumerate() {
            if n > 0 {
                out.push(b' ');
            }
            nstring(out, field.as_deref());
        }
        out.push(b')');
    }
    out.push(b')');
}

/// BODYSTRUCTURE, or BODY without the extension data.
pub fn structure(out: &mut Vec<u8>, part: &Part, extended: bool) {
    out.push(b'(');
    match &part.kind {
        Body::Multipart(parts) => {
            for inner in parts {
                structure(out, inner, extended);
            }
            out.push(b' ');
            string(out, &upper(&part.subtype));
            if extended {
                out.push(b' ');
                parameters(out, &part.parameters);
            }
        }
        Body::Leaf | Body::Text | Body::Message(_) => {
            string(out, &upper(&part.media_type));
            out.push(b' ');
            string(out, &upper(&part.subtype));
            out.push(b' ');
            parameters(out, &part.parameters);
            out.push(b' ');
            nstring(out, part.id.as_deref());
            out.push(b' ');
            nstring(out, part.description.as_deref());
            out.push(b' ');
            string(out, &upper(&part.encoding));
            out.extend_from_slice(format!(" {}", part.size_bytes()).as_bytes());
            match &part.kind {
                Body::Message(nested) => {
                    out.push(b' ');
                    envelope(out, &nested.0);
                    out.push(b' ');
                    structure(out, &nested.1, extended);
                    out.extend_from_slice(format!(" {}", part.lines).as_bytes());
                }
                Body::Text => out.extend_from_slice(format!(" {}", part.lines).as_bytes()),
                Body::Leaf | Body::Multipart(_) => {}
            }
            if extended {
                out.push(b' ');
                nstring(out, part.md5.as_deref());
            }
        }
    }
    if extended {
        out.push(b' ');
        match &part.disposition {
            Some((kind, of)) => {
                out.push(b'(');
                string(out, &upper(kind));
                out.push(b' ');
                parameters(out, of);
                out.push(b')');
            }
            None => out.extend_from_slice(b"NIL"),
        }
        out.push(b' ');
        match part.language.as_slice() {
            [] => out.extend_from_slice(b"NIL"),
            languages => {
                out.push(b'(');
                for (n, language) in languages.iter().enumerate() {
                    if n > 0 {
                        out.push(b' ');
                    }
                    string(out, language);
                }
                out.push(b')');
            }
        }
        out.push(b' ');
        nstring(out, part.location.as_deref());
    }
    out.push(b')');
}

fn parameters(out: &mut Vec<u8>, list: &Parameters) {
    if list.is_empty() {
        return out.extend_from_slice(b"NIL");
    }
    out.push(b'(');
    for (n, (name, value)) in list.iter().enumerate() {
        if n > 0 {
            out.push(b' ');
        }
        string(out, &upper(name));
        out.push(b' ');
        string(out, value);
    }
    out.push(b')');
}

fn upper(value: &[u8]) -> Vec<u8> {
    value.to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(print: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        print(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn strings_are_quoted_or_literal() {
        assert_eq!(shown(|o| string(o, b"a \"b\" \\")), "\"a \\\"b\\\" \\\\\"");
        assert_eq!(shown(|o| string(o, "ä".as_bytes())), "{2}\r\nä");
        assert_eq!(shown(|o| nstring(o, None)), "NIL");
        assert_eq!(folder("Entwürfe & \"x\"", Spelling::ModifiedUtf7), "\"Entw&APw-rfe &- \\\"x\\\"\"");
        assert_eq!(folder("Entwürfe & \"x\"", Spelling::Utf8), "\"Entwürfe & \\\"x\\\"\"");
    }

    #[test]
    fn the_structure_of_a_mixed_message() {
        let message = b"Subject: x\r\nFrom: \"A B\" <a@b>\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b\r\nContent-Type: image/png; name=p\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment\r\n\r\nAA==\r\n--b--\r\n";
        let part = Part::parse(message).unwrap();
        assert_eq!(
            shown(|o| structure(o, &part, true)),
            "((\"TEXT\" \"PLAIN\" (\"CHARSET\" \"us-ascii\") NIL NIL \"7BIT\" 2 0 NIL NIL NIL NIL)(\"IMAGE\" \"PNG\" (\"NAME\" \"p\") NIL NIL \"BASE64\" 4 NIL (\"ATTACHMENT\" NIL) NIL NIL) \"MIXED\" (\"BOUNDARY\" \"b\") NIL NIL NIL)"
        );
        assert_eq!(
            shown(|o| structure(o, &part, false)),
            "((\"TEXT\" \"PLAIN\" (\"CHARSET\" \"us-ascii\") NIL NIL \"7BIT\" 2 0)(\"IMAGE\" \"PNG\" (\"NAME\" \"p\") NIL NIL \"BASE64\" 4) \"MIXED\")"
        );
        let block = &message[..mailraft_message::header::header_len(message)];
        assert_eq!(
            shown(|o| envelope(o, &Envelope::parse(block).unwrap())),
            "(NIL \"x\" ((\"A B\" NIL \"a\" \"b\")) ((\"A B\" NIL \"a\" \"b\")) ((\"A B\" NIL \"a\" \"b\")) NIL NIL NIL NIL NIL)"
        );
    }
}
