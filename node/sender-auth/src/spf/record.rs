//! SPF records (RFC 7208, section 12): all of one is read before any of it counts.

use std::net::{Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use super::macros::MacroString;
use crate::limits::SPF_RECORD_MAX_BYTES;

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpfRecord {
    pub(crate) directives: Vec<(Qualifier, Mechanism)>,
    pub(crate) redirect: Option<MacroString>,
}

/// What a mechanism that matches comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qualifier {
    Pass,
    Fail,
    SoftFail,
    Neutral,
}

/// How long the prefixes are that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefixes {
    pub(crate) v4: u8,
    pub(crate) v6: u8,
}

/// What may match. A mechanism without a domain is about the one whose record it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    All,
    Include(MacroString),
    A(Option<MacroString>, Prefixes),
    Mx(Option<MacroString>, Prefixes),
    Ptr(Option<MacroString>),
    Ip4(Ipv4Addr, u8),
    Ip6(Ipv6Addr, u8),
    Exists(MacroString),
}

/// Why a record does not say what its domain means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SpfFlaw {
    /// It is not of the grammar: none of it counts, and mail of the domain is *permerror* (RFC 7208, section 4.6).
    #[error("it is not of SPF's grammar, so none of it counts")]
    Grammar,
    /// Terms behind `all` are never looked at (RFC 7208, section 5.1).
    #[error("nothing behind all is looked at")]
    BehindAll,
    /// `all` lets everybody send in the domain's name.
    #[error("+all lets everybody send in the domain's name: end it with -all or ~all")]
    Everybody,
}

/// Whether the record of a domain lets the servers that take its mail send it, by the mechanism `mx`.
///
/// # Errors
/// If it does not say what its domain means, whatever is made of it.
pub fn spf_names_mx(record: &[u8]) -> Result<bool, SpfFlaw> {
    let parsed = Some(record).filter(|record| is_spf(record) && record.len() <= SPF_RECORD_MAX_BYTES);
    let SpfRecord { directives, redirect } = parsed.and_then(SpfRecord::parse).ok_or(SpfFlaw::Grammar)?;
    let all = directives.iter().position(|(_, mechanism)| *mechanism == Mechanism::All);
    match all.and_then(|at| directives.get(at).map(|(qualifier, _)| (at, *qualifier))) {
        Some((_, Qualifier::Pass)) => Err(SpfFlaw::Everybody),
        Some((at, Qualifier::Fail | Qualifier::SoftFail | Qualifier::Neutral))
            if at + 1 < directives.len() || redirect.is_some() =>
        {
            Err(SpfFlaw::BehindAll)
        }
        Some((_, Qualifier::Fail | Qualifier::SoftFail | Qualifier::Neutral)) | None => {
            let is_mx = |(qualifier, mechanism): &(Qualifier, Mechanism)| {
                *qualifier == Qualifier::Pass && matches!(mechanism, Mechanism::Mx(None, _))
            };
            Ok(directives.iter().any(is_mx))
        }
    }
}

const WHOLE: Prefixes = Prefixes { v4: 32, v6: 128 };

/// Whether a TXT record is one of SPF, of whatever grammar.
pub(crate) fn is_spf(record: &[u8]) -> bool {
    let rest = record.get(..6).filter(|begin| begin.eq_ignore_ascii_case(b"v=spf1")).map(|_| &record[6..]);
    rest.is_some_and(|rest| rest.is_empty() || rest[0] == b' ')
}

impl SpfRecord {
    /// Reads a record. None if it is not of the grammar anywhere.
    pub(crate) fn parse(record: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(record).ok().filter(|text| text.is_ascii())?;
        let mut parsed = SpfRecord { directives: Vec::new(), redirect: None };
        let mut explained = false;
        for term in text.get(6..)?.split(' ').filter(|term| !term.is_empty()) {
            match modifier(term) {
                Some((name, value)) if name.eq_ignore_ascii_case("redirect") => {
                    if parsed.redirect.replace(MacroString::domain(value)?).is_some() {
                        return None;
                    }
                }
                Some((name, value)) if name.eq_ignore_ascii_case("exp") => {
                    // What it explains is whatever the sender's domain wants said here: it is read, and not looked up.
                    MacroString::domain(value)?;
                    if std::mem::replace(&mut explained, true) {
                        return None;
                    }
                }
                Some((_, value)) => drop(MacroString::parse(value)?),
                None => parsed.directives.push(directive(term)?),
            }
        }
        Some(parsed)
    }
}

/// `name=value`, if it is no mechanism.
fn modifier(term: &str) -> Option<(&str, &str)> {
    let (name, value) = term.split_once('=')?;
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    is_name.then_some((name, value))
}

fn directive(term: &str) -> Option<(Qualifier, Mechanism)> {
    let (qualifier, rest) = match term.as_bytes().first()? {
        b'+' => (Qualifier::Pass, &term[1..]),
        b'-' => (Qualifier::Fail, &term[1..]),
        b'~' => (Qualifier::SoftFail, &term[1..]),
        b'?' => (Qualifier::Neutral, &term[1..]),
        _ => (Qualifier::Pass, term),
    };
    let end = rest.find([':', '/']).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    let argument = rest.strip_prefix(':');
    let mechanism = match name.to_ascii_lowercase().as_str() {
        "all" if rest.is_empty() => Mechanism::All,
        "include" => Mechanism::Include(MacroString::domain(argument?)?),
        "exists" => Mechanism::Exists(MacroString::domain(argument?)?),
        "ptr" if rest.is_empty() => Mechanism::Ptr(None),
        "ptr" => Mechanism::Ptr(Some(MacroString::domain(argument?)?)),
        "a" => {
            let (domain, prefixes) = domain_and_prefixes(rest)?;
            Mechanism::A(domain, prefixes)
        }
        "mx" => {
            let (domain, prefixes) = domain_and_prefixes(rest)?;
            Mechanism::Mx(domain, prefixes)
        }
        "ip4" => {
            let (address, prefix) = network(argument?, 32)?;
            Mechanism::Ip4(address.parse().ok()?, prefix)
        }
        "ip6" => {
            let (address, prefix) = network(argument?, 128)?;
            Mechanism::Ip6(address.parse().ok()?, prefix)
        }
        _ => return None,
    };
    Some((qualifier, mechanism))
}

/// `[":" domain-spec] [dual-cidr-length]`, from its end: a domain-spec may have slashes too.
fn domain_and_prefixes(text: &str) -> Option<(Option<MacroString>, Prefixes)> {
    let length = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (mut prefixes, mut rest) = (WHOLE, text);
    if let Some((before, v6)) = rest.rsplit_once("//").filter(|(_, v6)| length(v6)) {
        prefixes.v6 = prefix(v6, 128)?;
        rest = before;
    }
    if let Some((before, v4)) = rest.rsplit_once('/').filter(|(_, v4)| length(v4)) {
        prefixes.v4 = prefix(v4, 32)?;
        rest = before;
    }
    match rest.strip_prefix(':') {
        Some(spec) => Some((Some(MacroString::domain(spec)?), prefixes)),
        None => rest.is_empty().then_some((None, prefixes)),
    }
}

fn network(text: &str, max: u8) -> Option<(&str, u8)> {
    match text.split_once('/') {
        Some((address, length)) => Some((address, prefix(length, max)?)),
        None => Some((text, max)),
    }
}

fn prefix(digits: &str, max: u8) -> Option<u8> {
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let leads = digits.len() > 1 && digits.starts_with('0');
    (is_number && !leads).then(|| digits.parse().ok()).flatten().filter(|length| *length <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_record_names_its_mail_servers_or_has_a_flaw() {
        use SpfFlaw::{BehindAll, Everybody, Grammar};
        for (record, is) in [
            ("v=spf1 mx -all", Ok(true)),
            ("v=spf1 include:a.test +MX ~all", Ok(true)),
            ("v=spf1 mx/24 redirect=a.test", Ok(true)),
            ("v=spf1 mx exp=why.a.test -all", Ok(true)),
            ("v=spf1 mx -all exp=why.a.test x=y", Ok(true)),
            ("v=spf1 -mx -all", Ok(false)),
            ("v=spf1 mx:other.test -all", Ok(false)),
            ("v=spf1 -all", Ok(false)),
            ("v=spf1", Ok(false)),
            ("v=spf1 -all mx", Err(BehindAll)),
            ("v=spf1 mx ?all redirect=a.test", Err(BehindAll)),
            ("v=spf1 mx -all foo:bar", Err(Grammar)),
            ("v=spf1 mx foo -all", Err(Grammar)),
            ("v=spf1 mx -all \u{202e}", Err(Grammar)),
            ("v=spf10 mx", Err(Grammar)),
            ("v=spf1 mx +all", Err(Everybody)),
            ("v=spf1 mx all -all", Err(Everybody)),
        ] {
            assert_eq!(spf_names_mx(record.as_bytes()), is, "{record}");
        }
        assert_eq!(spf_names_mx(format!("v=spf1 {}mx", "a ".repeat(SPF_RECORD_MAX_BYTES)).as_bytes()), Err(Grammar));
    }

    #[test]
    fn a_record_is_read_whole_or_not_at_all() {
        for right in [
            "v=spf1",
            "v=spf1 ",
            "v=spf1 -all",
            "V=SPF1 +A:a.test/24//64 MX//48 ~ptr ?exists:%{i}._spf.a.test",
            "v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 redirect=_spf.a.test",
            "v=spf1 include:a.test exp=why.a.test moo=%{d} default=x -all",
            "v=spf1 a:%{d1r/}.a.test/8",
        ] {
            assert!(is_spf(right.as_bytes()) && SpfRecord::parse(right.as_bytes()).is_some(), "{right}");
        }
        for wrong in [
            "v=spf1 all:x",
            "v=spf1 all/8",
            "v=spf1 include",
            "v=spf1 include:",
            "v=spf1 a:",
            "v=spf1 a/33",
            "v=spf1 a//129",
            "v=spf1 a/",
            "v=spf1 a/08",
            "v=spf1 a/24/64",
            "v=spf1 ptr/24",
            "v=spf1 ip4:192.0.2",
            "v=spf1 ip4:192.0.2.1/",
            "v=spf1 ip6:192.0.2.1",
            "v=spf1 exists",
            "v=spf1 nothing",
            "v=spf1 -all redirect=a.test redirect=b.test",
            "v=spf1 exp=a.test exp=b.test",
            "v=spf1 redirect=",
            "v=spf1 moo=%",
            "v=spf1 a:a.test b\u{e9}",
            "v=spf1 a:a_b",
            "v=spf1 \t-all",
        ] {
            assert!(SpfRecord::parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
        assert!(!is_spf(b"v=spf10 -all") && !is_spf(b"v=spf") && !is_spf(b"spf2.0/pra"));
    }
}
