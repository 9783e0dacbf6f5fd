//! Paths and parameters of MAIL and RCPT (RFC 5321, section 4.1.2).

/// The longest path, in bytes (RFC 5321, section 4.5.3.1.3).
pub const PATH_MAX_BYTES: usize = 256;
const LOCAL_PART_MAX_BYTES: usize = 64;
const DOMAIN_MAX_BYTES: usize = 255;

/// An address: a local part without its quoting, and a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// The local part, unquoted.
    pub local: String,
    /// The domain or address literal; empty only for `<postmaster>`.
    pub domain: String,
}

impl std::fmt::Display for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.local.bytes().all(|b| is_atom(b) || b == b'.') && !self.local.is_empty() {
            f.write_str(&self.local)?;
        } else {
            write!(f, "\"{}\"", self.local.replace('\\', "\\\\").replace('"', "\\\""))?;
        }
        if self.domain.is_empty() { Ok(()) } else { write!(f, "@{}", self.domain) }
    }
}

/// A path: the null reverse-path is `None`.
pub type Path = Option<Mailbox>;

/// Why a path is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// Not of the grammar.
    Syntax,
    /// Has bytes outside ASCII, which need SMTPUTF8.
    NotAscii,
}

/// Names in upper case, and values.
pub type Parameters = Vec<(String, Option<String>)>;

/// `keyword FROM:<path> parameters`: the path, and the parameters with upper-case names.
pub fn path_and_parameters(argument: &[u8], keyword: &str) -> Result<(Path, Parameters), PathError> {
    let rest = strip_keyword(argument, keyword).ok_or(PathError::Syntax)?;
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    if !rest.is_ascii() {
        return Err(PathError::NotAscii);
    }
    let text = std::str::from_utf8(rest).map_err(|_| PathError::NotAscii)?;
    let (path, rest) = path(text)?;
    let mut parameters = Vec::new();
    for word in rest.split(' ').filter(|w| !w.is_empty()) {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(PathError::Syntax);
        }
        parameters.push((name.to_ascii_uppercase(), value));
    }
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Err(PathError::Syntax);
    }
    Ok((path, parameters))
}

fn strip_keyword<'a>(argument: &'a [u8], keyword: &str) -> Option<&'a [u8]> {
    let head = argument.get(..keyword.len())?;
    head.eq_ignore_ascii_case(keyword.as_bytes()).then(|| &argument[keyword.len()..])
}

fn path(text: &str) -> Result<(Path, &str), PathError> {
    let inner = text.strip_prefix('<').ok_or(PathError::Syntax)?;
    if let Some(rest) = inner.strip_prefix('>') {
        return Ok((None, rest));
    }
    // A source route is taken and thrown away (RFC 5321, appendix C).
    let inner = match inner.strip_prefix('@') {
        Some(route) => route.split_once(':').ok_or(PathError::Syntax)?.1,
        None => inner,
    };
    let (local, rest) = local_part(inner)?;
    if let Some(rest) = rest.strip_prefix('>') {
        let postmaster = local.eq_ignore_ascii_case("postmaster");
        return if postmaster {
            Ok((Some(Mailbox { local, domain: String::new() }), rest))
        } else {
            Err(PathError::Syntax)
        };
    }
    let rest = rest.strip_prefix('@').ok_or(PathError::Syntax)?;
    let (domain, rest) = rest.split_once('>').ok_or(PathError::Syntax)?;
    if !is_domain(domain) || local.len() + domain.len() + 1 > PATH_MAX_BYTES {
        return Err(PathError::Syntax);
    }
    Ok((Some(Mailbox { local, domain: domain.to_ascii_lowercase() }), rest))
}

fn local_part(text: &str) -> Result<(String, &str), PathError> {
    let (local, rest) = match text.strip_prefix('"') {
        Some(quoted) => {
            let mut local = String::new();
            let mut chars = quoted.char_indices();
            loop {
                match chars.next() {
                    Some((at, '"')) => break (local, &quoted[at + 1..]),
                    Some((_, '\\')) => match chars.next() {
                        Some((_, c)) if (' '..='~').contains(&c) => local.push(c),
                        _ => return Err(PathError::Syntax),
                    },
                    Some((_, c)) if (' '..='~').contains(&c) => local.push(c),
                    _ => return Err(PathError::Syntax),
                }
            }
        }
        None => {
            let end = text.bytes().position(|b| !is_atom(b) && b != b'.').unwrap_or(text.len());
            let local = &text[..end];
            if local.is_empty() || local.starts_with('.') || local.ends_with('.') || local.contains("..") {
                return Err(PathError::Syntax);
            }
            (local.to_owned(), &text[end..])
        }
    };
    if local.len() > LOCAL_PART_MAX_BYTES { Err(PathError::Syntax) } else { Ok((local, rest)) }
}

/// A domain name or an address literal.
pub fn is_domain(text: &str) -> bool {
    if let Some(literal) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return !literal.is_empty()
            && literal.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b':' | b'-'));
    }
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    !text.is_empty() && text.len() <= DOMAIN_MAX_BYTES && text.split('.').all(label)
}

fn is_atom(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn from(text: &str) -> Result<String, PathError> {
        let (path, parameters) = path_and_parameters(text.as_bytes(), "FROM:")?;
        let path = path.map_or("null".into(), |p| format!("{}|{}", p.local, p.domain));
        Ok(format!("{path} {parameters:?}"))
    }

    #[test]
    fn paths_that_are() {
        assert_eq!(from("FROM:<a@b.example>").unwrap(), "a|b.example []");
        assert_eq!(from("from:<>").unwrap(), "null []");
        assert_eq!(
            from("FROM: <A.b+c@B.Example> SIZE=10 body=8BITMIME").unwrap(),
            "A.b+c|b.example [(\"SIZE\", Some(\"10\")), (\"BODY\", Some(\"8BITMIME\"))]"
        );
        assert_eq!(from("FROM:<@x,@y:a@b>").unwrap(), "a|b []");
        assert_eq!(from("FROM:<\"a b\\\"c\"@d>").unwrap(), "a b\"c|d []");
        assert_eq!(from("FROM:<a@[127.0.0.1]>").unwrap(), "a|[127.0.0.1] []");
        assert_eq!(from("FROM:<Postmaster>").unwrap(), "Postmaster| []");
    }

    #[test]
    fn paths_that_are_not() {
        for text in [
            "FROM:a@b",
            "FROM:<a@b",
            "FROM:<a>",
            "FROM:<@b>",
            "FROM:<a@>",
            "FROM:<a@b>x",
            "FROM:<a..b@c>",
            "FROM:<.a@c>",
            "FROM:<a@b\n>",
            "FROM:<a b@c>",
            "TO:<a@b>",
            "FROM:<a@-b>",
            "FROM:<a@b> =1",
            "FROM:<\"a@b>",
        ] {
            assert_eq!(from(text), Err(PathError::Syntax), "{text}");
        }
        assert_eq!(from("FROM:<jörg@b>"), Err(PathError::NotAscii));
        assert_eq!(from(&format!("FROM:<{}@b>", "a".repeat(65))), Err(PathError::Syntax));
    }

    #[test]
    fn addresses_print_as_they_parse() {
        let odd = Mailbox { local: "a b\"\\".into(), domain: "x".into() };
        let (back, _) = path_and_parameters(format!("TO:<{odd}>").as_bytes(), "TO:").unwrap();
        assert_eq!(back, Some(odd));
    }
}
