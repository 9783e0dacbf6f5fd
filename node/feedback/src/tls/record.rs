//! Where a domain wants its reports (RFC 8460, section 3).

use crate::mailto;

/// Places where a domain wants reports that get them, in the order of its record.
pub const PLACES_MAX: usize = 4;

/// Where a domain wants its reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// By mail to this address.
    Mail(String),
    /// By POST to this URL.
    Https(String),
}

/// The name of a domain's record of TLS-RPT.
pub fn record_name(domain: &str) -> String {
    format!("_smtp._tls.{domain}")
}

/// Where a domain wants reports, out of the TXT records of its name: the first [`PLACES_MAX`] that can be. None of them if
/// there is not exactly one record of TLS-RPT.
pub fn places<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Vec<Place> {
    let is_ours = |record: &&[u8]| {
        record.strip_prefix(b"v=TLSRPTv1").is_some_and(|rest| rest.trim_ascii_start().first() == Some(&b';'))
    };
    let mut records = records.into_iter().filter(is_ours);
    let (Some(record), None) = (records.next(), records.next()) else { return Vec::new() };
    let Ok(record) = std::str::from_utf8(record) else { return Vec::new() };
    let value = |field: &'_ str| -> Option<String> {
        let (name, value) = field.split_once('=')?;
        (name.trim() == "rua").then(|| value.trim().to_owned())
    };
    let rua = record.split(';').skip(1).find_map(value).unwrap_or_default();
    rua.split(',').filter_map(|uri| place(uri.trim())).take(PLACES_MAX).collect()
}

fn place(uri: &str) -> Option<Place> {
    let (scheme, rest) = mailto::split(uri)?;
    if scheme == "mailto" {
        return mailto::address(rest).map(|address| Place::Mail(address.address));
    }
    let is_url = scheme == "https" && rest.starts_with("//") && rest.len() > 2;
    is_url.then(|| Place::Https(format!("https:{rest}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailto::URI_MAX_BYTES;

    #[test]
    fn one_record_says_where_reports_go() {
        let of = |records: &[&str]| places(records.iter().map(|r| r.as_bytes()));
        let mail = |address: &str| Place::Mail(address.to_owned());
        // RFC 8460, section 3.1.
        assert_eq!(of(&["v=TLSRPTv1;rua=mailto:reports@example.com"]), [mail("reports@example.com")]);
        let url = "https://reporting.example.com/v1/tlsrpt";
        assert_eq!(of(&[&format!("v=TLSRPTv1; rua={url}")]), [Place::Https(url.to_owned())]);
        let both = format!("v=TLSRPTv1; rua=MAILTO:a%2Cb@example.com , {url}; ext=1;");
        assert_eq!(of(&[&both]), [Place::Https(url.to_owned())], "an address with a comma is none");
        assert_eq!(of(&["v=TLSRPTv1; rua=mailto:a%21b@example.com?subject=x"]), [mail("a!b@example.com")]);
        // White space may stand around the equals sign.
        assert_eq!(of(&["v=TLSRPTv1 ; ext = 1; rua = mailto:a@EXAMPLE.com"]), [mail("a@example.com")]);
        let many = ["mailto:a@example.com"; PLACES_MAX + 2].join(",");
        assert_eq!(of(&[&format!("v=TLSRPTv1;rua={many}")]).len(), PLACES_MAX);
        // Records for something else don't count.
        assert_eq!(of(&["v=spf1 -all", "v=TLSRPTv1; rua=mailto:a@example.com"]), [mail("a@example.com")]);
        for none in [
            "v=TLSRPTv1",
            "v=TLSRPTv1; rua=",
            "v=TLSRPTv10; rua=mailto:a@example.com",
            "rua=mailto:a@example.com; v=TLSRPTv1",
            "v=TLSRPTv1; rua=mailto:a",
            "v=TLSRPTv1; rua=mailto:@example.com",
            "v=TLSRPTv1; rua=mailto:a@",
            "v=TLSRPTv1; rua=mailto:a%0D%0Ab@example.com",
            "v=TLSRPTv1; rua=mailto:a%20b@example.com",
            "v=TLSRPTv1; rua=mailto:a%3@example.com",
            "v=TLSRPTv1; rua=mailto:a%ff@example.com",
            "v=TLSRPTv1; rua=mailto:a%+1@example.com",
            "v=TLSRPTv1; rua=mailto:a@b@example.com",
            "v=TLSRPTv1; rua=http://example.com/",
            "v=TLSRPTv1; rua=https:",
            "v=TLSRPTv1; rua=https://",
        ] {
            assert!(of(&[none]).is_empty(), "{none}");
        }
        assert!(of(&["v=TLSRPTv1; rua=mailto:a@example.com"; 2]).is_empty());
        assert!(places([&b"v=TLSRPTv1; rua=mailto:\xff@example.com"[..]]).is_empty());
        let long = format!("v=TLSRPTv1; rua=https://example.com/{}", "x".repeat(URI_MAX_BYTES));
        assert!(of(&[&long]).is_empty());
        assert_eq!(record_name("example.com"), "_smtp._tls.example.com");
    }
}
