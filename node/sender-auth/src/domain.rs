//! Domain names as they are asked for and compared.

/// A domain name in lower case, without a dot at its end: at most 253 octets, of labels of at most 63 (RFC 1035, section
/// 2.3.4). Its labels have letters, digits, `-` and `_` alone, so that it can stand in a header field as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Domain(String);

/// The longest name, in octets.
const NAME_MAX_BYTES: usize = 253;
/// The longest label, in octets.
const LABEL_MAX_BYTES: usize = 63;

impl Domain {
    /// Reads a name; one that is not ASCII in its A-labels (RFC 5890, section 2.3.2.1).
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let ascii = match text.is_ascii() {
            true => text.to_ascii_lowercase(),
            false => idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::STD3).ok()?.into_owned(),
        };
        let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let is_label = |label: &str| !label.is_empty() && label.len() <= LABEL_MAX_BYTES && label.bytes().all(is_name);
        (ascii.len() <= NAME_MAX_BYTES && ascii.split('.').all(is_label)).then_some(Domain(ascii))
    }

    /// The name of a host that gives mail: it has a dot, and is no address.
    pub fn of_host(text: &str) -> Option<Self> {
        Domain::parse(text).filter(|domain| {
            let top = domain.0.rsplit('.').next().unwrap_or_default();
            domain.0.contains('.') && !top.bytes().all(|b| b.is_ascii_digit())
        })
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name below it.
    pub fn below(&self, labels: &str) -> Option<Self> {
        Domain::parse(&format!("{labels}.{}", self.0))
    }

    /// Whether it is that name or below it.
    pub fn is_within(&self, other: &Domain) -> bool {
        let rest = self.0.strip_suffix(other.0.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// The domain that was registered by an organisation (RFC 7489, section 3.2); itself where it is a public suffix.
    pub fn organizational(&self) -> Domain {
        psl::domain_str(&self.0).and_then(Domain::parse).unwrap_or_else(|| self.clone())
    }
}

impl std::fmt::Display for Domain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<String> {
        Domain::parse(text).map(|domain| domain.to_string())
    }

    #[test]
    fn names_are_bounded_and_of_harmless_octets() {
        assert_eq!(parsed("EXAMPLE.org.").as_deref(), Some("example.org"));
        assert_eq!(parsed("_dmarc.example.org").as_deref(), Some("_dmarc.example.org"));
        assert_eq!(parsed("bücher.example").as_deref(), Some("xn--bcher-kva.example"));
        let label = "a".repeat(63);
        assert!(parsed(&[label.as_str(); 3].join(".")).is_some());
        assert_eq!(parsed(&format!("{label}a.b")), None);
        assert_eq!(parsed(&[label.as_str(); 4].join(".")), None);
        for wrong in ["", ".", "a..b", ".a", "a b.c", "a;b", "a\r\nb", "[192.0.2.1]", "a\"b", "a.b..", "\u{0}.b"] {
            assert_eq!(parsed(wrong), None, "{wrong:?}");
        }
        assert!(Domain::of_host("localhost").is_none() && Domain::of_host("192.0.2.1").is_none());
        assert!(Domain::of_host("mx.example.org").is_some());
    }

    #[test]
    fn what_is_below_a_name_ends_with_it_at_a_dot() {
        let domain = |text| Domain::parse(text).unwrap();
        assert!(domain("a.example.org").is_within(&domain("example.org")));
        assert!(domain("example.org").is_within(&domain("example.org")));
        assert!(!domain("badexample.org").is_within(&domain("example.org")));
        assert!(!domain("org").is_within(&domain("example.org")));
    }

    #[test]
    fn an_organisation_has_one_label_more_than_a_public_suffix() {
        for (name, organisation) in [
            ("a.b.example.com", "example.com"),
            ("a.example.co.uk", "example.co.uk"),
            ("example.com", "example.com"),
            ("co.uk", "co.uk"),
            ("a.example.test", "example.test"),
        ] {
            assert_eq!(Domain::parse(name).unwrap().organizational().as_str(), organisation, "{name}");
        }
    }
}
