//! Paths and parameters of MAIL and RCPT (RFC 5321, section 4.1.2).

use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest path with its angle brackets, in bytes (RFC 5321, section 4.5.3.1.3).
pub const PATH_MAX_BYTES: usize = 256;
/// The longest local part, in bytes (RFC 5321, section 4.5.3.1.1).
pub const LOCAL_PART_MAX_BYTES: usize = 64;
/// The longest local part of a reverse-path, in bytes: senders to many write each recipient's address into it, and their
/// mail is wanted.
pub const SENDER_LOCAL_PART_MAX_BYTES: usize = 512;
/// The longest reverse-path with its angle brackets, in bytes.
pub const SENDER_PATH_MAX_BYTES: usize = PATH_MAX_BYTES - LOCAL_PART_MAX_BYTES + SENDER_LOCAL_PART_MAX_BYTES;
/// The longest domain, in bytes (RFC 5321, section 4.5.3.1.2).
pub const DOMAIN_MAX_BYTES: usize = 255;
/// The longest part of a domain between dots, in bytes (RFC 1035, section 2.3.4).
const LABEL_MAX_BYTES: usize = 63;
/// The longest name of a parameter that is looked at, in bytes.
const PARAMETER_NAME_MAX_BYTES: usize = 32;

/// An address: a local part without its quoting, and a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// The local part, unquoted.
    pub local: String,
    /// The domain or address literal in lower case; empty only for `<postmaster>`.
    pub domain: String,
}

impl Mailbox {
    /// Reads an address as it is displayed: within the bounds of a reverse-path.
    pub fn parse(text: &str) -> Option<Self> {
        let in_brackets = format!("<{text}>");
        match path(&in_brackets, Side::From) {
            Ok((Some(mailbox), "")) if !text.starts_with('@') => Some(mailbox),
            Ok(_) | Err(_) => None,
        }
    }
}

impl std::fmt::Display for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if is_dot_string(&self.local) {
            f.write_str(&self.local)?;
        } else {
            write!(f, "\"{}\"", self.local.replace('\\', "\\\\").replace('"', "\\\""))?;
        }
        if self.domain.is_empty() { Ok(()) } else { write!(f, "@{}", self.domain) }
    }
}

/// A path: the null reverse-path is `None`.
pub type Path = Option<Mailbox>;

/// Whose path it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// MAIL FROM: may be null.
    From,
    /// RCPT TO: may be `<postmaster>` without a domain.
    To,
}

/// Why an argument is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// The path is not of the grammar, or too long.
    Path,
    /// It has bytes outside ASCII, which need SMTPUTF8.
    NotAscii,
    /// The parameters are not of the grammar, or one comes twice.
    Parameters,
}

/// Names in upper case, each once, and values.
pub type Parameters = Vec<(String, Option<String>)>;

/// Reads `FROM:<path> parameters` or `TO:<path> parameters`.
pub fn path_and_parameters(argument: &[u8], side: Side) -> Result<(Path, Parameters), ParseError> {
    let keyword = match side {
        Side::From => "FROM:",
        Side::To => "TO:",
    };
    let rest = strip_keyword(argument, keyword).ok_or(ParseError::Path)?;
    if !rest.is_ascii() {
        return Err(ParseError::NotAscii);
    }
    let text = std::str::from_utf8(rest).map_err(|_| ParseError::NotAscii)?;
    let (path, rest) = path(text.trim_start_matches(' '), side)?;
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Err(ParseError::Path);
    }
    Ok((path, parameters(rest)?))
}

fn strip_keyword<'a>(argument: &'a [u8], keyword: &str) -> Option<&'a [u8]> {
    let (head, rest) = argument.split_at_checked(keyword.len())?;
    head.eq_ignore_ascii_case(keyword.as_bytes()).then_some(rest)
}

fn parameters(text: &str) -> Result<Parameters, ParseError> {
    let mut parameters = Parameters::new();
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.len() <= PARAMETER_NAME_MAX_BYTES
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let is_value = value.is_none_or(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_graphic() && b != b'='));
        let name = name.to_ascii_uppercase();
        if !is_name || !is_value || parameters.iter().any(|(known, _)| *known == name) {
            return Err(ParseError::Parameters);
        }
        parameters.push((name, value.map(str::to_owned)));
    }
    Ok(parameters)
}

fn path(text: &str, side: Side) -> Result<(Path, &str), ParseError> {
    let inner = text.strip_prefix('<').ok_or(ParseError::Path)?;
    if let Some(rest) = inner.strip_prefix('>') {
        return match side {
            Side::From => Ok((None, rest)),
            Side::To => Err(ParseError::Path),
        };
    }
    // A source route is taken and thrown away (RFC 5321, appendix C).
    let inner = if inner.starts_with('@') {
        let (route, address) = inner.split_once(':').ok_or(ParseError::Path)?;
        if !route.split(',').all(|hop| hop.strip_prefix('@').is_some_and(is_domain_name)) {
            return Err(ParseError::Path);
        }
        address
    } else {
        inner
    };
    let (local_max, path_max) = match side {
        Side::From => (SENDER_LOCAL_PART_MAX_BYTES, SENDER_PATH_MAX_BYTES),
        // A report about what was forwarded comes back to what was its reverse-path.
        Side::To if is_rewritten(inner) => (SENDER_LOCAL_PART_MAX_BYTES, SENDER_PATH_MAX_BYTES),
        Side::To => (LOCAL_PART_MAX_BYTES, PATH_MAX_BYTES),
    };
    let (local, rest) = local_part(inner, local_max)?;
    let (domain, rest) = match rest.strip_prefix('@') {
        Some(rest) => rest.split_once('>').filter(|(domain, _)| is_domain(domain)).ok_or(ParseError::Path)?,
        None if side == Side::To && local.eq_ignore_ascii_case("postmaster") => {
            ("", rest.strip_prefix('>').ok_or(ParseError::Path)?)
        }
        None => return Err(ParseError::Path),
    };
    if text.len() - rest.len() > path_max {
        return Err(ParseError::Path);
    }
    Ok((Some(Mailbox { local, domain: domain.to_ascii_lowercase() }), rest))
}

/// Whether an address may be a reverse-path that a forwarder rewrote (SRS).
fn is_rewritten(address: &str) -> bool {
    let head = address.trim_start_matches('"').get(..4);
    head.is_some_and(|head| head.eq_ignore_ascii_case("SRS0") || head.eq_ignore_ascii_case("SRS1"))
}

fn local_part(text: &str, max_bytes: usize) -> Result<(String, &str), ParseError> {
    let (local, rest) = match text.strip_prefix('"') {
        Some(quoted) => {
            let mut local = String::new();
            let mut chars = quoted.char_indices();
            loop {
                match chars.next() {
                    Some((at, '"')) => break (local, &quoted[at + 1..]),
                    Some((_, '\\')) => match chars.next() {
                        Some((_, c)) if (' '..='~').contains(&c) => local.push(c),
                        _ => return Err(ParseError::Path),
                    },
                    Some((_, c)) if (' '..='~').contains(&c) => local.push(c),
                    _ => return Err(ParseError::Path),
                }
            }
        }
        None => {
            let end = text.bytes().position(|b| !is_atom(b) && b != b'.').unwrap_or(text.len());
            let (local, rest) = text.split_at(end);
            if !is_dot_string(local) {
                return Err(ParseError::Path);
            }
            (local.to_owned(), rest)
        }
    };
    if local.len() > max_bytes { Err(ParseError::Path) } else { Ok((local, rest)) }
}

/// A domain name or an address literal.
pub fn is_domain(text: &str) -> bool {
    match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        Some(literal) => is_address(literal),
        None => is_domain_name(text),
    }
}

/// An IPv4 address, or `IPv6:` and one (RFC 5321, section 4.1.3). Other literals are not registered.
fn is_address(literal: &str) -> bool {
    match literal.split_at_checked("IPv6:".len()) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => address.parse::<Ipv6Addr>().is_ok(),
        _ => literal.parse::<Ipv4Addr>().is_ok(),
    }
}

fn is_domain_name(text: &str) -> bool {
    let is_label = |l: &str| {
        !l.is_empty()
            && l.len() <= LABEL_MAX_BYTES
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= DOMAIN_MAX_BYTES && text.split('.').all(is_label)
}

fn is_dot_string(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atom))
}

fn is_atom(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str, side: Side) -> Result<String, ParseError> {
        let (path, parameters) = path_and_parameters(text.as_bytes(), side)?;
        let path = path.map_or("null".into(), |p| format!("{}|{}", p.local, p.domain));
        Ok(format!("{path} {parameters:?}"))
    }

    fn from(text: &str) -> Result<String, ParseError> {
        read(text, Side::From)
    }

    #[test]
    fn paths_that_are() {
        for (text, expected) in [
            ("FROM:<a@b.example>", "a|b.example []"),
            ("from:<>", "null []"),
            ("FROM:<> ", "null []"),
            (
                "FROM: <A.b+c@B.Example> SIZE=10  body=8BITMIME",
                "A.b+c|b.example [(\"SIZE\", Some(\"10\")), (\"BODY\", Some(\"8BITMIME\"))]",
            ),
            ("FROM:<@x,@y:a@b>", "a|b []"),
            ("FROM:<\"a b\\\"c\"@d>", "a b\"c|d []"),
            ("FROM:<\"a>b@c\"@d>", "a>b@c|d []"),
            ("FROM:<\"\"@d>", "|d []"),
            ("FROM:<a@[127.0.0.1]>", "a|[127.0.0.1] []"),
            ("FROM:<a@[IPv6:2001:db8::1]>", "a|[ipv6:2001:db8::1] []"),
            ("FROM:<a@b> AUTH=<> X", "a|b [(\"AUTH\", Some(\"<>\")), (\"X\", None)]"),
        ] {
            assert_eq!(from(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(read("TO:<Postmaster>", Side::To).unwrap(), "Postmaster| []");
        assert_eq!(read("to:<@x:a@b>", Side::To).unwrap(), "a|b []");
    }

    #[test]
    fn paths_that_are_not() {
        for text in [
            "",
            "FROM",
            "FROM:",
            "FROM:a@b",
            "FROM:<a@b",
            "FROM:<a>",
            "FROM:<postmaster>",
            "FROM:<@b>",
            "FROM:<@b:>",
            "FROM:<@:a@b>",
            "FROM:<@x,y:a@b>",
            "FROM:<a@>",
            "FROM:<a@b>x",
            "FROM:<a@b>>",
            "FROM:<<a@b>>",
            "FROM:<a..b@c>",
            "FROM:<.a@c>",
            "FROM:<a.@c>",
            "FROM:<a@b\n>",
            "FROM:<a b@c>",
            "FROM:< a@c>",
            "FROM:<a@c >",
            "FROM:\t<a@b>",
            "FROM :<a@b>",
            "TO:<a@b>",
            "FROM:<a@-b>",
            "FROM:<a@b..c>",
            "FROM:<a@b.>",
            "FROM:<a@[1.2.3]>",
            "FROM:<a@[1.2.3.4>",
            "FROM:<a@[IPv6:1.2.3.4]>",
            "FROM:<a@[::1]>",
            "FROM:<a@[x:y]>",
            "FROM:<\"a@b>",
            "FROM:<\"a\\",
            "FROM:<\"a\0\"@b>",
            "FROM:<\"a\"b@c>",
        ] {
            assert_eq!(from(text), Err(ParseError::Path), "{text}");
        }
        assert_eq!(read("TO:<>", Side::To), Err(ParseError::Path));
        assert_eq!(from("FROM:<jörg@b>"), Err(ParseError::NotAscii));
        assert_eq!(path_and_parameters(b"FROM:<a@\xff>", Side::From), Err(ParseError::NotAscii));
    }

    #[test]
    fn parameters_that_are_not() {
        for text in ["=1", "A=", "A=1 a=2", "A=1=2", "A_B", "-A", "A=\x01", &"A".repeat(33)] {
            assert_eq!(from(&format!("FROM:<a@b> {text}")), Err(ParseError::Parameters), "{text}");
        }
    }

    #[test]
    fn lengths_have_bounds() {
        let domain = "abc.".repeat(63)[..251].to_owned();
        let to = |text: &str| read(text, Side::To);
        assert!(to(&format!("TO:<{}@b>", "a".repeat(64))).is_ok());
        assert_eq!(to(&format!("TO:<{}@b>", "a".repeat(65))), Err(ParseError::Path));
        for text in ["jane@a.test", "\"a b\"@a.test", "\"a@b\\\"\"@a.test", "SRS0=a=b=c=d@a.test", "x@[192.0.2.1]"] {
            assert_eq!(Mailbox::parse(text).map(|mailbox| mailbox.to_string()).as_deref(), Some(text));
        }
        for text in ["", "jane", "a b@a.test", "jane@a.test>", "jane@a.test> x", "@a:b@c", "jane@", "<jane@a.test>"] {
            assert_eq!(Mailbox::parse(text), None, "{text}");
        }
        assert!(to(&format!("TO:<SRS0={}@b>", "a".repeat(507))).is_ok(), "a reverse-path that was rewritten");
        assert_eq!(to(&format!("TO:<SRS0={}@b>", "a".repeat(508))), Err(ParseError::Path));
        assert!(to(&format!("TO:<aa@{domain}>")).is_ok(), "256 bytes");
        assert_eq!(to(&format!("TO:<aaa@{domain}>")), Err(ParseError::Path), "257 bytes");
        assert!(from(&format!("FROM:<{}@b>", "a".repeat(512))).is_ok());
        assert_eq!(from(&format!("FROM:<{}@b>", "a".repeat(513))), Err(ParseError::Path));
        assert!(from(&format!("FROM:<{}@{domain}>", "a".repeat(450))).is_ok(), "704 bytes");
        assert_eq!(from(&format!("FROM:<{}@{domain}>", "a".repeat(451))), Err(ParseError::Path), "705 bytes");
        assert_eq!(from(&format!("FROM:<a@{}>", "a".repeat(64))), Err(ParseError::Path));
    }

    #[test]
    fn addresses_print_as_they_parse() {
        for local in ["a", "a.b", "a b\"\\", "", ".", "a..b", "a.", "@", ">"] {
            let odd = Mailbox { local: local.into(), domain: "x".into() };
            let (back, _) = path_and_parameters(format!("TO:<{odd}>").as_bytes(), Side::To).unwrap();
            assert_eq!(back, Some(odd));
        }
    }
}
