//! Names of domains and hosts as the DNS has them.

/// The longest name of a domain, in octets (RFC 1035, section 2.3.4).
const NAME_MAX_BYTES: usize = 253;

/// The name in ASCII and lower case, without a dot at its end; Unicode becomes A-labels (RFC 5890). None if it is no name of
/// a host: of labels of letters, digits, hyphens and underscores, each up to 63 octets. An address literal is none.
pub fn host_name(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let ascii = if name.is_ascii() { name.to_ascii_lowercase() } else { idna::domain_to_ascii(name).ok()? };
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    let is_number = ascii.rsplit('.').next()?.bytes().all(|b| b.is_ascii_digit());
    (ascii.len() <= NAME_MAX_BYTES && !is_number && ascii.split('.').all(is_label)).then_some(ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_form_however_it_is_written() {
        let same = ["MX.Example.Test", "mx.example.test.", "mx.example.test"];
        assert!(same.iter().all(|name| host_name(name).as_deref() == Some("mx.example.test")));
        assert_eq!(host_name("bücher.test").as_deref(), Some("xn--bcher-kva.test"));
        let none =
            ["", ".", "a..test", "a b.test", "192.0.2.1", "[192.0.2.1]", "a/b.test", "mx.test:25", "a.test\r\nb"];
        assert!(none.iter().all(|name| host_name(name).is_none()));
        assert!(host_name(&format!("{}.test", "x".repeat(64))).is_none());
        assert!(host_name(&"x.".repeat(127)).is_some() && host_name(&"x.".repeat(128)).is_none());
    }
}
