//! What MAIL and RCPT say: written so that no address can be two commands.

use serde::{Deserialize, Serialize};

use crate::client::capabilities::Capabilities;
use crate::encode::Shape;

/// The most recipients of one transaction (RFC 5321, section 4.5.3.1.8).
pub const RECIPIENTS_MAX: usize = 100;
/// The longest address that is said, in bytes: our own submission takes longer ones than RFC 5321 has, in reverse-paths.
pub const ADDRESS_MAX_BYTES: usize = 1_024;
/// The longest ENVID, in bytes (RFC 3461, section 4.4).
pub const ENVID_MAX_BYTES: usize = 100;
/// The longest ORCPT, in bytes (RFC 3461, section 4.2).
pub const ORCPT_MAX_BYTES: usize = 500;

/// One message to some recipients at one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The address of MAIL as it stands between the angle brackets; empty if it is null.
    pub reverse_path: String,
    /// At most [`RECIPIENTS_MAX`] are offered to the server; those behind them are for another transaction.
    pub recipients: Vec<Recipient>,
    /// What the message looks like.
    pub shape: Shape,
    /// Why it has no 7-bit form, where one was wanted.
    pub not_seven_bit: Option<String>,
    /// Its header has octets above 127 (RFC 6532).
    pub utf8_header: bool,
    /// Its sender wants TLS to the end (RFC 8689).
    pub require_tls: bool,
    /// What a report returns of it.
    pub ret: Option<Return>,
    /// What the sender calls it, in xtext, at most [`ENVID_MAX_BYTES`].
    pub envid: Option<String>,
}

/// A recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Its address as it stands between the angle brackets.
    pub address: String,
    /// What is to be reported.
    pub notify: Option<Notify>,
    /// The address as the sender wrote it, with its type and in xtext, at most [`ORCPT_MAX_BYTES`].
    pub orcpt: Option<String>,
}

/// NOTIFY (RFC 3461, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notify {
    /// Nothing.
    Never,
    /// Any of these.
    Of {
        /// That it was delivered.
        success: bool,
        /// That it was given up.
        failure: bool,
        /// That it waits.
        delay: bool,
    },
}

/// RET (RFC 3461, section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Return {
    /// The whole message.
    Full,
    /// Its header.
    Header,
}

impl Envelope {
    /// Whether the server must have SMTPUTF8: in a domain A-labels do.
    pub fn needs_utf8(&self) -> bool {
        let is_utf8 = |address: &str| !address.rsplit_once('@').map_or(address, |(local, _)| local).is_ascii();
        self.utf8_header || is_utf8(&self.reverse_path) || self.recipients.iter().any(|to| is_utf8(&to.address))
    }

    /// Whether a server that can do this needs its 7-bit form (RFC 6152, section 3): one that can't take it at all needs none.
    pub fn needs_seven_bit(&self, can: &Capabilities) -> bool {
        self.shape.eight_bit && !can.eight_bit && (can.utf8 || !self.needs_utf8())
    }

    /// MAIL, with the parameters that the server knows. None if the address can't be said.
    pub fn mail(&self, can: &Capabilities) -> Option<String> {
        let path = if self.reverse_path.is_empty() { String::new() } else { path(&self.reverse_path)? };
        let mut line = format!("MAIL FROM:<{path}>");
        if can.size {
            line.push_str(&format!(" SIZE={}", self.shape.size_bytes));
        }
        if can.eight_bit && self.shape.eight_bit {
            line.push_str(" BODY=8BITMIME");
        }
        if can.utf8 && self.needs_utf8() {
            line.push_str(" SMTPUTF8");
        }
        if self.require_tls {
            line.push_str(" REQUIRETLS");
        }
        if can.dsn {
            match self.ret {
                Some(Return::Full) => line.push_str(" RET=FULL"),
                Some(Return::Header) => line.push_str(" RET=HDRS"),
                None => {}
            }
            if let Some(envid) = self.envid.as_ref().filter(|envid| is_xtext(envid, ENVID_MAX_BYTES)) {
                line.push_str(&format!(" ENVID={envid}"));
            }
        }
        Some(line + "\r\n")
    }
}

impl Recipient {
    /// RCPT, with the parameters that the server knows. None if the address can't be said.
    pub fn rcpt(&self, can: &Capabilities) -> Option<String> {
        let mut line = format!("RCPT TO:<{}>", path(&self.address)?);
        if can.dsn {
            if let Some(notify) = self.notify {
                line.push_str(&format!(" NOTIFY={}", notify.words()));
            }
            if let Some(orcpt) = self.orcpt.as_ref().filter(|orcpt| is_xtext(orcpt, ORCPT_MAX_BYTES)) {
                line.push_str(&format!(" ORCPT={orcpt}"));
            }
        }
        Some(line + "\r\n")
    }
}

impl Notify {
    fn words(self) -> String {
        match self {
            Notify::Never | Notify::Of { success: false, failure: false, delay: false } => "NEVER".to_owned(),
            Notify::Of { success, failure, delay } => {
                let words = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
                Vec::from_iter(words.into_iter().filter(|(is, _)| *is).map(|(_, word)| word)).join(",")
            }
        }
    }
}

/// Whether it is what may stand behind ENVID= and ORCPT= (RFC 3461, section 4). What isn't is left out, as it is only for reports.
fn is_xtext(text: &str, max_bytes: usize) -> bool {
    !text.is_empty() && text.len() <= max_bytes && text.bytes().all(|b| b.is_ascii_graphic() && b != b'=')
}

/// An address as it is said, with a domain in A-labels. None if it is not one (RFC 5321, section 4.1.2; RFC 6531, section 3.3).
fn path(address: &str) -> Option<String> {
    if address.len() > ADDRESS_MAX_BYTES || address.chars().any(char::is_control) {
        return None;
    }
    let Some((local, domain)) = address.rsplit_once('@') else {
        return address.eq_ignore_ascii_case("postmaster").then(|| address.to_owned());
    };
    if !(is_dot_string(local) || is_quoted(local)) {
        return None;
    }
    if let Some(literal) = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let is_literal =
            !literal.is_empty() && literal.bytes().all(|b| b.is_ascii_alphanumeric() || b":.-".contains(&b));
        return is_literal.then(|| address.to_owned());
    }
    let ascii = match domain.is_ascii() {
        true => domain.to_owned(),
        false => idna::domain_to_ascii_cow(domain.as_bytes(), idna::AsciiDenyList::STD3).ok()?.into_owned(),
    };
    let is_domain = !ascii.is_empty() && ascii.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    is_domain.then(|| format!("{local}@{ascii}"))
}

fn is_dot_string(local: &str) -> bool {
    let is_text = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    !local.is_empty() && local.chars().all(is_text)
}

fn is_quoted(local: &str) -> bool {
    let Some(inner) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c == '"' || (c == '\\' && chars.next().is_none()) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_said_only_if_it_is_one() {
        for (address, said) in [
            ("a@b.test", Some("a@b.test")),
            ("a.b+c=d@b.test", Some("a.b+c=d@b.test")),
            ("\"a b\\\"<>\"@b.test", Some("\"a b\\\"<>\"@b.test")),
            ("a@[192.0.2.1]", Some("a@[192.0.2.1]")),
            ("a@[IPv6:2001:db8::1]", Some("a@[IPv6:2001:db8::1]")),
            ("Postmaster", Some("Postmaster")),
            ("\u{e4}@b\u{fc}cher.test", Some("\u{e4}@xn--bcher-kva.test")),
            ("a", None),
            ("", None),
            ("@b.test", None),
            ("a@", None),
            ("a@[]", None),
            ("a b@b.test", None),
            ("a>@b.test", None),
            ("a@b.test> SIZE=1", None),
            ("a@b.test\r\nRSET", None),
            ("\"a\r\nRSET\"@b.test", None),
            ("\"a\"b\"@b.test", None),
            ("\"a\\\"@b.test", None),
            ("a\u{0}@b.test", None),
        ] {
            assert_eq!(path(address).as_deref(), said, "{address:?}");
        }
        let long = |bytes: usize| format!("{}@b.test", "x".repeat(bytes - 7));
        assert!(path(&long(ADDRESS_MAX_BYTES)).is_some() && path(&long(ADDRESS_MAX_BYTES + 1)).is_none());
    }

    #[test]
    fn what_is_for_reports_is_left_out_where_it_is_not_xtext_or_too_long() {
        for (text, is) in [("rfc822;a+2Bb@c.test", true), ("", false), ("a=b", false), ("a b", false), ("a\r\n", false)]
        {
            assert_eq!(is_xtext(text, ORCPT_MAX_BYTES), is, "{text:?}");
        }
        assert!(is_xtext(&"x".repeat(ENVID_MAX_BYTES), ENVID_MAX_BYTES));
        assert!(!is_xtext(&"x".repeat(ENVID_MAX_BYTES + 1), ENVID_MAX_BYTES));
    }
}
