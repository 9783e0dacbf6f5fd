//! Where a domain wants its reports: the tag `rua` of its record (RFC 7489, section 6.2).

use crate::mailto;

/// Places where a domain wants reports that get them, in the order of its record (RFC 7489, section 6.3 asks for two at least).
pub const DESTINATIONS_MAX: usize = 4;

/// A place where a domain wants reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The address.
    pub address: String,
    /// The domain of the address, in lower case and A-labels.
    pub host: String,
    /// The longest message that it wants, in bytes, if it says so. RFC 9990 has that no more, and nobody minds if it is kept to.
    pub max_bytes: Option<u64>,
}

impl Destination {
    /// Whether a message of so many bytes is not too long for it.
    pub fn takes(&self, bytes: usize) -> bool {
        self.max_bytes.is_none_or(|max| u64::try_from(bytes).is_ok_and(|bytes| bytes <= max))
    }
}

/// Reads the value of `rua`: the first [`DESTINATIONS_MAX`] that mail can go to. Others are ignored.
pub fn destinations(rua: &str) -> Vec<Destination> {
    rua.split(',').filter_map(|uri| destination(uri.trim())).take(DESTINATIONS_MAX).collect()
}

fn destination(uri: &str) -> Option<Destination> {
    let (scheme, rest) = mailto::split(uri)?;
    // Exclamation marks of the address itself are escaped.
    let (rest, max_bytes) = match rest.split_once('!') {
        Some((rest, size)) => (rest, Some(size_bytes(size)?)),
        None => (rest, None),
    };
    let mailto::Address { address, host } = mailto::address(rest).filter(|_| scheme == "mailto")?;
    Some(Destination { address, host, max_bytes })
}

/// A size with its unit, which is a power of 2^10.
fn size_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    let number: u64 = Some(digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rua: &str) -> Vec<(String, Option<u64>)> {
        destinations(rua).into_iter().map(|of| (of.address, of.max_bytes)).collect()
    }

    #[test]
    fn addresses_of_a_record_have_the_sizes_that_they_want() {
        let at = |address: &str, max| (address.to_owned(), max);
        // RFC 7489, sections 6.2 and B.2.
        assert_eq!(of("mailto:reports@example.com!50m"), [at("reports@example.com", Some(50 << 20))]);
        let two = "mailto:dmarc-feedback@example.com,mailto:tld-test@thirdparty.example.net!10m";
        let expected = [at("dmarc-feedback@example.com", None), at("tld-test@thirdparty.example.net", Some(10 << 20))];
        assert_eq!(of(two), expected);
        for (size, bytes) in [("0", 0), ("7", 7), ("1k", 1 << 10), ("3G", 3 << 30), ("2t", 2 << 40)] {
            assert_eq!(of(&format!(" MAILTO:a@B.test!{size} ,")), [at("a@b.test", Some(bytes))], "{size}");
        }
        assert_eq!(of("mailto:a%21b%2Cc@b.test"), [], "an address with a comma is none");
        assert_eq!(of("mailto:a%21b@b.test?subject=x"), [at("a!b@b.test", None)]);
        for none in [
            "",
            "https://b.test/",
            "mailto:a@b.test!",
            "mailto:a@b.test!x",
            "mailto:a@b.test!1kb",
            "mailto:a@b.test!-1",
            "mailto:a@b.test!1!2",
            "mailto:a@b.test!99999999999999999999",
            "mailto:a@b.test!18446744073709551615k",
            "mailto:a%0D%0Ab@b.test",
            "mailto:a",
            "a@b.test",
        ] {
            assert!(of(none).is_empty(), "{none}");
        }
        assert_eq!(of(&["mailto:a@b.test"; DESTINATIONS_MAX + 1].join(",")).len(), DESTINATIONS_MAX);
    }

    #[test]
    fn what_is_too_long_for_a_place_is_known() {
        let [limited, free] = &destinations("mailto:a@b.test!1k,mailto:b@b.test")[..] else { panic!("two places") };
        assert!(limited.takes(1_024) && !limited.takes(1_025) && free.takes(usize::MAX));
    }
}
