//! What a sender wants to be told of a message (RFC 3461), as it stands in MAIL and RCPT.

use std::fmt;

/// The longest ENVID, in bytes of xtext (RFC 3461, section 4.4).
pub const ENVID_MAX_BYTES: usize = 100;
/// The longest ORCPT with its type, in bytes of xtext (RFC 3461, section 4.2).
pub const ORCPT_MAX_BYTES: usize = 500;
/// The longest type of an address in ORCPT, in bytes: registered ones are short.
const ADDRESS_TYPE_MAX_BYTES: usize = 32;

/// What is asked of one recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// NOTIFY; None if nothing was said.
    pub notify: Option<Notify>,
    /// ORCPT as it came: a type and an address, in xtext.
    pub orcpt: Option<String>,
}

/// NOTIFY (RFC 3461, section 4.1): what is told. Nothing of all is NEVER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify {
    /// That it arrived.
    pub success: bool,
    /// That it won't.
    pub failure: bool,
    /// That it is late.
    pub delay: bool,
}

/// RET (RFC 3461, section 4.3): what of the message comes back with a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// All of it.
    Full,
    /// Its header.
    Header,
}

impl Asked {
    /// Whether somebody wants to hear that it arrived.
    pub fn wants_success(&self) -> bool {
        self.notify.is_some_and(|notify| notify.success)
    }

    /// The same, but for the news that it arrived.
    pub fn without_success(&self) -> Self {
        Asked { notify: self.notify.map(|notify| Notify { success: false, ..notify }), ..self.clone() }
    }

    /// Of two recipients that are one: whatever either wants. The address is told as it was to who wants to hear most of it.
    pub(crate) fn joined(&self, other: &Self) -> Self {
        if self.notify.is_none() && other.notify.is_none() {
            return self.clone();
        }
        let [one, two] = [self, other].map(|asked| asked.notify.unwrap_or(Notify::UNASKED));
        let notify = Notify {
            success: one.success || two.success,
            failure: one.failure || two.failure,
            delay: one.delay || two.delay,
        };
        let orcpt = if two.success && !one.success { &other.orcpt } else { &self.orcpt };
        Asked { notify: Some(notify), orcpt: orcpt.clone() }
    }
}

impl Notify {
    /// What is told to who says nothing.
    const UNASKED: Notify = Notify { success: false, failure: true, delay: true };

    /// Reads the value of NOTIFY: NEVER alone, or some of the others.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut notify = Notify { success: false, failure: false, delay: false };
        if text.eq_ignore_ascii_case("NEVER") {
            return Some(notify);
        }
        for word in text.split(',') {
            match word.to_ascii_uppercase().as_str() {
                "SUCCESS" => notify.success = true,
                "FAILURE" => notify.failure = true,
                "DELAY" => notify.delay = true,
                _ => return None,
            }
        }
        Some(notify)
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let words: Vec<&str> = words.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
        f.write_str(&if words.is_empty() { "NEVER".to_owned() } else { words.join(",") })
    }
}

impl Return {
    /// Reads the value of RET.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_uppercase().as_str() {
            "FULL" => Some(Return::Full),
            "HDRS" => Some(Return::Header),
            _ => None,
        }
    }

    /// As it stands in MAIL.
    pub fn as_str(self) -> &'static str {
        match self {
            Return::Full => "FULL",
            Return::Header => "HDRS",
        }
    }
}

/// Whether it may be an ENVID: xtext of printable ASCII.
pub(crate) fn is_envid(text: &str) -> bool {
    text.len() <= ENVID_MAX_BYTES && is_xtext(text)
}

/// Whether it may be an ORCPT: a type, and an address in xtext of printable ASCII, or of type utf-8 as RFC 6533, section 3, has
/// it, in ASCII.
pub(crate) fn is_orcpt(text: &str) -> bool {
    let Some((kind, address)) = text.split_once(';') else { return false };
    let is_kind = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*-/?^_`{|}~".contains(&b);
    let fits = text.len() <= ORCPT_MAX_BYTES && (1..=ADDRESS_TYPE_MAX_BYTES).contains(&kind.len());
    fits && kind.bytes().all(is_kind)
        && match kind.eq_ignore_ascii_case("utf-8") {
            true => is_utf8_xtext(address),
            false => is_xtext(address),
        }
}

/// Octets as they are, or `+` and two upper-case hexadecimal digits (RFC 3461, section 4).
fn is_xtext(text: &str) -> bool {
    let mut bytes = text.bytes();
    let digit = |b: Option<u8>| match b {
        Some(b @ b'0'..=b'9') => Some(b - b'0'),
        Some(b @ b'A'..=b'F') => Some(b - b'A' + 10),
        Some(_) | None => None,
    };
    while let Some(byte) = bytes.next() {
        let means = match byte {
            b'+' => match (digit(bytes.next()), digit(bytes.next())) {
                (Some(high), Some(low)) => high * 16 + low,
                _ => return false,
            },
            b'=' => return false,
            b'!'..=b'~' => byte,
            _ => return false,
        };
        if !(b' '..=b'~').contains(&means) {
            return false;
        }
    }
    !text.is_empty()
}

/// Characters as they are, or `\x{...}` with the number of one.
fn is_utf8_xtext(text: &str) -> bool {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match c {
            '\\' => {
                let Some((number, after)) = rest.strip_prefix("\\x{").and_then(|inner| inner.split_once('}')) else {
                    return false;
                };
                let is_number = (2..=6).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_hexdigit());
                let means = u32::from_str_radix(number, 16).ok().and_then(char::from_u32);
                if !is_number || means.is_none_or(char::is_control) {
                    return false;
                }
                rest = after;
            }
            '+' | '=' => return false,
            '!'..='~' => rest = &rest[1..],
            _ => return false,
        }
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_is_never_or_some_of_three() {
        for (text, is) in [
            ("never", Some("NEVER")),
            ("SUCCESS", Some("SUCCESS")),
            ("delay,Success,FAILURE,delay", Some("SUCCESS,FAILURE,DELAY")),
            ("NEVER,SUCCESS", None),
            ("", None),
            ("SUCCESS,", None),
            ("ALWAYS", None),
        ] {
            assert_eq!(Notify::parse(text).map(|notify| notify.to_string()).as_deref(), is, "{text:?}");
        }
    }

    #[test]
    fn xtext_is_printable_and_bounded() {
        for (text, is) in [
            ("QQ314159", true),
            ("a+2Bb+3D+20", true),
            ("", false),
            ("a=b", false),
            ("a+2b", false),
            ("a+2", false),
            ("a+0D+0A", false),
            ("a+C3+B6", false),
            ("\u{f6}", false),
        ] {
            assert_eq!(is_envid(text), is, "{text:?}");
        }
        assert!(is_envid(&"x".repeat(ENVID_MAX_BYTES)) && !is_envid(&"x".repeat(ENVID_MAX_BYTES + 1)));
    }

    #[test]
    fn an_original_recipient_has_a_type_and_an_address_of_it() {
        for (text, is) in [
            ("rfc822;a+2Bb@c.test", true),
            ("RFC822;\"a+20b\"@c.test", true),
            ("x400;/C=de", false),
            ("x400;/C+3Dde", true),
            ("rfc822", false),
            (";a@c.test", false),
            ("rfc822;", false),
            ("rfc 822;a@c.test", false),
            ("utf-8;j\\x{F6}rg@c.test", true),
            ("utf-8;j\\x{1F600}\\x{2B}@c.test", true),
            ("utf-8;j\u{f6}rg@c.test", false),
            ("rfc822;j\u{f6}rg@c.test", false),
            ("utf-8;a+2Bb@c.test", false),
            ("utf-8;a\\x{D800}", false),
            ("utf-8;a\\x{0A}", false),
            ("utf-8;a\\x{110000}", false),
            ("utf-8;a\\x{F6", false),
            ("utf-8;a\\", false),
            ("utf-8;a\u{85}", false),
        ] {
            assert_eq!(is_orcpt(text), is, "{text:?}");
        }
        let long = |bytes: usize| format!("rfc822;{}", "x".repeat(bytes - 7));
        assert!(is_orcpt(&long(ORCPT_MAX_BYTES)) && !is_orcpt(&long(ORCPT_MAX_BYTES + 1)));
        let kind = |bytes: usize| format!("{};a@c.test", "x".repeat(bytes));
        assert!(is_orcpt(&kind(ADDRESS_TYPE_MAX_BYTES)) && !is_orcpt(&kind(ADDRESS_TYPE_MAX_BYTES + 1)));
    }

    #[test]
    fn two_recipients_that_are_one_hear_whatever_either_wants() {
        let asked = |notify: &str, orcpt: &str| Asked {
            notify: Notify::parse(notify),
            orcpt: (!orcpt.is_empty()).then(|| orcpt.to_owned()),
        };
        for (one, other, joined) in [
            (("", ""), ("", "b"), ("", "")),
            (("", "a"), ("SUCCESS", "b"), ("SUCCESS,FAILURE,DELAY", "b")),
            (("NEVER", "a"), ("", "b"), ("FAILURE,DELAY", "a")),
            (("SUCCESS", "a"), ("SUCCESS,DELAY", "b"), ("SUCCESS,DELAY", "a")),
            (("NEVER", "a"), ("NEVER", "b"), ("NEVER", "a")),
        ] {
            assert_eq!(asked(one.0, one.1).joined(&asked(other.0, other.1)), asked(joined.0, joined.1), "{one:?}");
        }
    }
}
