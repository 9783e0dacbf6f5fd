//! Certificates of nodes that count no more: a list of their fingerprints, one a line.

use std::collections::BTreeSet;

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

/// Lines of a list.
const LINES_MAX: usize = 100_000;

/// The SHA-256 fingerprints of certificates that are revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    fingerprints: BTreeSet<[u8; 32]>,
}

/// What is wrong with a list, and what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevokedError {
    /// A line that is no fingerprint.
    #[error(
        "line {0} is no fingerprint: write what `openssl x509 -noout -fingerprint -sha256 -in peer.pem` prints, or its 64 hexadecimal digits"
    )]
    Line(usize),
    /// Too many lines.
    #[error("it has more than {LINES_MAX} lines: certificates that have run out need not be listed")]
    Long,
}

impl Revoked {
    /// From the text of a list: a line has a fingerprint, as 64 hexadecimal digits with or without colons or as openssl
    /// prints it, and what follows a # means nothing.
    ///
    /// # Errors
    /// If a line is something else, or there are too many: none of it counts then.
    pub fn parse(text: &str) -> Result<Self, RevokedError> {
        let mut fingerprints = BTreeSet::new();
        for (number, line) in text.lines().enumerate() {
            if number >= LINES_MAX {
                return Err(RevokedError::Long);
            }
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let digits = line.rsplit('=').next().unwrap_or_default();
            let digits: String = digits.chars().filter(|c| *c != ':').collect();
            let mut fingerprint = [0; 32];
            hex::decode_to_slice(digits.trim(), &mut fingerprint).map_err(|_| RevokedError::Line(number + 1))?;
            fingerprints.insert(fingerprint);
        }
        Ok(Revoked { fingerprints })
    }

    /// Whether one of these certificates is revoked, by their fingerprints.
    pub fn has_one_of(&self, fingerprints: &[[u8; 32]]) -> bool {
        fingerprints.iter().any(|fingerprint| self.fingerprints.contains(fingerprint))
    }

    /// How many are listed.
    pub fn count(&self) -> usize {
        self.fingerprints.len()
    }
}

/// The SHA-256 of a certificate as it is sent.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_list_has_fingerprints_in_every_form_that_tools_print() {
        let [one, two] = [1, 2].map(|byte| fingerprint(&CertificateDer::from(vec![byte])));
        let plain = hex::encode(one);
        let pairs: Vec<&str> = plain.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap()).collect();
        let colons = pairs.join(":").to_ascii_uppercase();
        for text in [
            format!("{plain}\n"),
            format!("# node 3, its disk was stolen\n\n  {colons}   # since May\r\n"),
            format!("sha256 Fingerprint={colons}"),
        ] {
            let revoked = Revoked::parse(&text).unwrap();
            assert!(revoked.count() == 1 && revoked.has_one_of(&[two, one]), "{text}");
            assert!(!revoked.has_one_of(&[two]));
        }
        assert_eq!(Revoked::parse("").unwrap().count(), 0);
        assert_eq!(Revoked::parse(&format!("{plain}\n{}\n", &plain[1..])), Err(RevokedError::Line(2)));
        assert_eq!(Revoked::parse(&"\n".repeat(LINES_MAX + 1)), Err(RevokedError::Long));
        assert!(Revoked::parse(&"\n".repeat(LINES_MAX)).is_ok());
    }
}
