//! Who reports, and what each report is called.

use mailraft_outbound::tls::domain::host_name;
use sha2::{Digest, Sha256};

use crate::mailto;
use crate::text::harmless;

/// The longest name of an organisation, in bytes.
const ORGANIZATION_MAX_BYTES: usize = 256;

/// Who reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporter {
    organization: String,
    domain: String,
    from: String,
    contact: String,
}

/// Why nobody can report like this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReporterError {
    /// The domain is none.
    #[error("{0:?} is no domain to report as: name one like mail.example.org")]
    Domain(String),
    /// An address is none, or needs quotes.
    #[error("{0:?} is no address to report from: name one like reports@example.org, without quotes")]
    Address(String),
}

impl Reporter {
    /// An organisation that reports as `domain`, by mail from the address `from`, with the address `contact` for questions. The mail
    /// has to be signed by the domain of `from`, or readers take it for forged.
    ///
    /// # Errors
    /// If the domain or an address is none.
    pub fn new(organization: &str, domain: &str, from: &str, contact: &str) -> Result<Self, ReporterError> {
        let address = |text: &str| {
            // As in a URI, where a percent sign stands for an octet.
            let address = mailto::address(&text.replace('%', "%25").replace('?', "%3F"));
            address.map(|address| address.address).ok_or_else(|| ReporterError::Address(text.to_owned()))
        };
        Ok(Reporter {
            organization: harmless(organization, ORGANIZATION_MAX_BYTES),
            domain: host_name(domain).ok_or_else(|| ReporterError::Domain(domain.to_owned()))?,
            from: address(from)?,
            contact: address(contact)?,
        })
    }

    pub(crate) fn organization(&self) -> &str {
        &self.organization
    }

    /// The domain that it reports as.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    pub(crate) fn from(&self) -> &str {
        &self.from
    }

    pub(crate) fn contact(&self) -> &str {
        &self.contact
    }

    /// A report's id, of letters and digits: the same whenever and by whichever node it is made, as a reader knows by it what it has
    /// already; another one for another day, domain or `part`, which says what else tells two reports apart.
    pub(crate) fn report_id(&self, day: u64, domain: &str, part: &[u8]) -> String {
        let digest = Sha256::new()
            .chain_update(self.domain.as_bytes())
            .chain_update([0])
            .chain_update(day.to_be_bytes())
            .chain_update(domain.as_bytes())
            .chain_update([0])
            .chain_update(part)
            .finalize();
        digest.iter().take(16).map(|octet| format!("{octet:02x}")).collect()
    }

    /// The name of a report's file (RFC 8460, section 5.1; RFC 9990, section 4.5.2).
    pub(crate) fn file_name(&self, domain: &str, (begin, end): (u64, u64), id: &str, extension: &str) -> String {
        format!("{}!{domain}!{begin}!{end}!{id}.{extension}", self.domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reports_has_a_domain_and_addresses() {
        let of = |domain, from| Reporter::new("A\r\nB", domain, from, "postmaster@a.test");
        let reporter = of("MAIL.a.test", "dmarc%x@a.test").unwrap();
        assert_eq!(
            (reporter.domain(), reporter.from(), reporter.organization()),
            ("mail.a.test", "dmarc%x@a.test", "A??B")
        );
        for (domain, from) in
            [("a b", "x@a.test"), ("", "x@a.test"), ("a.test", "x"), ("a.test", "x@a.test\r\nBcc: y@a.test")]
        {
            let error = of(domain, from).unwrap_err();
            assert!(error.to_string().contains("name one like"), "{error}");
        }
    }

    #[test]
    fn a_report_has_the_same_id_whenever_it_is_made_and_another_one_for_anything_else() {
        let reporter = Reporter::new("A", "a.test", "x@a.test", "x@a.test").unwrap();
        let id = reporter.report_id(1, "b.test", b"p");
        assert_eq!(id, reporter.report_id(1, "b.test", b"p"));
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_alphanumeric()));
        let other = Reporter::new("A", "c.test", "x@a.test", "x@a.test").unwrap();
        let others = [
            reporter.report_id(2, "b.test", b"p"),
            reporter.report_id(1, "c.test", b"p"),
            reporter.report_id(1, "b.test", b"q"),
            other.report_id(1, "b.test", b"p"),
        ];
        assert!(!others.contains(&id));
        // RFC 7489, section 7.2.1.1.
        let sample = Reporter::new("A", "mail.receiver.example", "x@a.test", "x@a.test").unwrap();
        let name = sample.file_name("example.com", (1_013_662_812, 1_013_749_130), "1", "xml.gz");
        assert_eq!(name, "mail.receiver.example!example.com!1013662812!1013749130!1.xml.gz");
    }
}
