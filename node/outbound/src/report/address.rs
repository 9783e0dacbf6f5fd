//! Addresses and names of hosts as they may stand in a header.

use std::fmt;

use super::fields::Charset;

/// The longest address, in bytes: a path of RFC 5321, section 4.5.3.1.3, and what UTF-8 makes of a local part.
const ADDRESS_MAX_BYTES: usize = 512;

/// An address that can stand between angle brackets.
pub(super) struct Mailbox(String);

impl Mailbox {
    /// Reads an address. Its local part is quoted where it must be.
    pub(super) fn parse(text: &str, charset: Charset) -> Option<Self> {
        let (local, domain) = text.rsplit_once('@')?;
        let fits = text.len() <= ADDRESS_MAX_BYTES && !local.is_empty() && charset.has(text);
        if !fits || text.chars().any(char::is_control) || !(is_domain(domain) || is_literal(domain)) {
            return None;
        }
        let local = if is_dot_atom(local) || is_quoted(local) { local.to_owned() } else { quoted(local) };
        Some(Mailbox(format!("{local}@{domain}")))
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether it is an atom (RFC 5322, section 3.2.3), of ASCII.
pub(super) fn is_atom(text: &str) -> bool {
    !text.is_empty() && text.len() <= ADDRESS_MAX_BYTES && text.is_ascii() && text.chars().all(is_atom_text)
}

/// Whether it is the name of a host, of ASCII.
pub(super) fn is_host(text: &str) -> bool {
    text.is_ascii() && is_domain(text)
}

fn is_domain(text: &str) -> bool {
    let is_of_label = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_') || !c.is_ascii();
    text.len() <= 255 && text.split('.').all(|label| !label.is_empty() && label.chars().all(is_of_label))
}

fn is_literal(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':');
    inner.is_some_and(|inner| !inner.is_empty() && inner.len() <= 64 && inner.chars().all(is_inner))
}

fn is_dot_atom(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom_text))
}

fn is_atom_text(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && !c.is_whitespace())
}

/// Whether it is a quoted string already.
fn is_quoted(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c == '"' || c == '\\' && chars.next().is_none() {
            return false;
        }
    }
    true
}

fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, charset: Charset) -> Option<String> {
        Mailbox::parse(text, charset).map(|mailbox| mailbox.to_string())
    }

    #[test]
    fn addresses_stand_in_a_header_quoted_where_they_must_be() {
        for (text, is) in [
            ("jane@example.org", Some("jane@example.org")),
            ("\"a b\"@example.org", Some("\"a b\"@example.org")),
            ("a b@example.org", Some("\"a b\"@example.org")),
            ("\"@example.org", Some("\"\\\"\"@example.org")),
            ("\"\\\"@example.org", Some("\"\\\"\\\\\\\"\"@example.org")),
            ("a@b@example.org", Some("\"a@b\"@example.org")),
            ("x@[192.0.2.1]", Some("x@[192.0.2.1]")),
            ("x@[IPv6:2001:db8::1]", Some("x@[IPv6:2001:db8::1]")),
            ("j\u{f6}rg@example.org", None),
            ("jane", None),
            ("@example.org", None),
            ("jane@", None),
            ("jane@a>b", None),
            ("jane@a..b", None),
            ("jane\r\nBcc: x@example.org", None),
        ] {
            assert_eq!(read(text, Charset::Ascii).as_deref(), is, "{text}");
        }
        let utf8 = "j\u{f6}rg@b\u{fc}cher.example";
        assert_eq!(read(utf8, Charset::Utf8).as_deref(), Some(utf8));
        assert_eq!(read(&format!("{}@example.org", "x".repeat(ADDRESS_MAX_BYTES)), Charset::Ascii), None);
    }
}
