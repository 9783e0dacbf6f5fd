//! DANE: certificates that the DNS names (RFC 6698, RFC 7671), and when that holds for SMTP (RFC 7672).

use std::fmt;

use sha2::{Digest, Sha256, Sha512};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Records of one host that are looked at; more are not.
pub const RECORDS_MAX: usize = 64;
/// Certificates of a chain that are looked at, the server's own first.
pub const CHAIN_MAX: usize = 16;

/// A TLSA record as it came (RFC 6698, section 2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Certificate usage.
    pub usage: u8,
    /// What of the certificate.
    pub selector: u8,
    /// How it is told.
    pub matching: u8,
    /// What is told.
    pub data: Vec<u8>,
}

/// Whose certificate a record names. Usages 0 and 1 are not for SMTP (RFC 7672, section 3.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Usage {
    /// DANE-TA(2): who signed the server's certificate, over however many others.
    TrustAnchor,
    /// DANE-EE(3): the server itself.
    EndEntity,
}

/// What of a certificate a record names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// Cert(0): all of it.
    Certificate,
    /// SPKI(1): its public key, with the kind of key.
    PublicKey,
}

/// What a record says of it, the weakest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Association {
    /// SHA2-256(1).
    Sha256([u8; 32]),
    /// SHA2-512(2).
    Sha512([u8; 64]),
    /// Full(0), in DER.
    Full(Vec<u8>),
}

/// A record that SMTP can use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Usable {
    /// Whose certificate.
    pub usage: Usage,
    /// What of it.
    pub selector: Selector,
    /// What it is.
    pub association: Association,
}

/// How much of an answer of the DNS is proved by DNSSEC (RFC 7672, section 2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// All of it.
    Secure,
    /// Something is not signed, or nobody who could be believed has checked it.
    Insecure,
}

/// What the DNS says about the addresses of a mail server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Secure if either of both kinds of addresses is there and secure.
    pub security: Security,
    /// Where an alias leads to, if the name is one.
    pub alias_of: Option<String>,
}

/// What the DNS says about TLSA records of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsaAnswer {
    /// These, or that there are none.
    Records(Security, Vec<Record>),
    /// Nothing that can be believed: no answer in time, a failure of the server, or signatures that are wrong.
    Failed,
}

/// What DANE means for one mail server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dane {
    /// It does not apply.
    Absent,
    /// The server has to have TLS and a certificate that one of these fits.
    Records {
        /// Never empty, at most [`RECORDS_MAX`].
        records: Vec<Usable>,
        /// The name below which they stand: the SNI, and what a certificate of a trust anchor has to be for (RFC 7672, section
        /// 3.2.2).
        base: String,
    },
    /// There are records and none can be used: the server has to have TLS, and nothing is known of its certificate (RFC 7672,
    /// section 2.2).
    Unusable,
    /// Nobody can say: no mail goes to this server now (RFC 7672, section 2.1.1).
    Failed,
}

impl Usable {
    /// What a record says, if SMTP can use it: its numbers are known, and its data has the length or form that it must have.
    pub fn of(record: &Record) -> Option<Self> {
        let usage = match record.usage {
            2 => Usage::TrustAnchor,
            3 => Usage::EndEntity,
            _ => return None,
        };
        let selector = match record.selector {
            0 => Selector::Certificate,
            1 => Selector::PublicKey,
            _ => return None,
        };
        let association = match record.matching {
            0 if is_whole_sequence(&record.data) => Association::Full(record.data.clone()),
            1 => Association::Sha256(record.data.as_slice().try_into().ok()?),
            2 => Association::Sha512(record.data.as_slice().try_into().ok()?),
            _ => return None,
        };
        Some(Usable { usage, selector, association })
    }

    /// Whether a certificate in DER is what the record names.
    pub fn fits(&self, certificate: &[u8]) -> bool {
        let selected = match self.selector {
            Selector::Certificate => Some(certificate),
            Selector::PublicKey => public_key(certificate),
        };
        let Some(selected) = selected else { return false };
        match &self.association {
            Association::Sha256(digest) => Sha256::digest(selected)[..] == digest[..],
            Association::Sha512(digest) => Sha512::digest(selected)[..] == digest[..],
            Association::Full(full) => full == selected,
        }
    }
}

impl fmt::Display for Usable {
    /// As it stands in a zone, for a report (RFC 8460, section 4.4).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usage = match self.usage {
            Usage::TrustAnchor => 2,
            Usage::EndEntity => 3,
        };
        let selector = match self.selector {
            Selector::Certificate => 0,
            Selector::PublicKey => 1,
        };
        let (matching, data) = match &self.association {
            Association::Full(data) => (0, &data[..]),
            Association::Sha256(digest) => (1, &digest[..]),
            Association::Sha512(digest) => (2, &digest[..]),
        };
        write!(f, "{usage} {selector} {matching} ")?;
        data.iter().try_for_each(|octet| write!(f, "{octet:02X}"))
    }
}

/// The hosts below whose names TLSA records are asked for, one after the other until [`of_answer`] knows. None: DANE does not
/// apply, and nothing is asked, as the servers of zones without signatures may not even answer such a question (RFC 7672,
/// section 2.2.2). An alias's end comes first, then the name itself (RFC 7671, section 7).
pub fn bases(mx: Security, host: &str, addresses: &Addresses) -> Vec<String> {
    match (mx, addresses.security) {
        (Security::Secure, Security::Secure) => {
            let end = addresses.alias_of.iter().filter(|end| *end != host).cloned();
            end.chain([host.to_owned()]).collect()
        }
        (Security::Insecure, Security::Secure | Security::Insecure) | (Security::Secure, Security::Insecure) => {
            Vec::new()
        }
    }
}

/// The name of the TLSA records of a host for mail (RFC 7672, section 2.2.3).
pub fn record_name(base: &str, port: u16) -> String {
    format!("_{port}._tcp.{base}")
}

/// What an answer about a base means. None: there are no records that count there, so that the next base is asked, and after
/// the last one DANE is [`Dane::Absent`].
pub fn of_answer(base: &str, answer: TlsaAnswer) -> Option<Dane> {
    match answer {
        TlsaAnswer::Records(Security::Secure, records) if !records.is_empty() => {
            let usable = strongest(records.iter().filter_map(Usable::of).take(RECORDS_MAX).collect());
            Some(if usable.is_empty() {
                Dane::Unusable
            } else {
                Dane::Records { records: usable, base: base.to_owned() }
            })
        }
        TlsaAnswer::Records(Security::Secure | Security::Insecure, _) => None,
        TlsaAnswer::Failed => Some(Dane::Failed),
    }
}

/// Whether the server's own certificate fits a record of DANE-EE. Its dates, names and signers say nothing then (RFC 7672,
/// section 3.1.1).
pub fn fits_end_entity(records: &[Usable], certificate: &[u8]) -> bool {
    records.iter().any(|record| record.usage == Usage::EndEntity && record.fits(certificate))
}

/// A trust anchor that a record of DANE-TA names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// A certificate, which came in the chain or stands in the record, in DER.
    Certificate(Vec<u8>),
    /// A public key that stands in the record and that no certificate of the chain has, for each name that signed one of the
    /// chain (RFC 7671, section 5.2.3).
    PublicKey {
        /// The name, in DER, without the header of its SEQUENCE.
        subject: Vec<u8>,
        /// SubjectPublicKeyInfo, in DER, without the header of its SEQUENCE.
        key: Vec<u8>,
    },
}

/// The trust anchors that records of DANE-TA name, for a chain that begins with the server's own certificate. The server's own
/// is never one (RFC 7671, section 5.2.2: what signs it is looked for). Whether the chain leads to one of them, with dates and
/// names, is for who has the cryptography.
pub fn anchors(records: &[Usable], chain: &[&[u8]]) -> Vec<Anchor> {
    let mut anchors = Vec::new();
    for record in records.iter().filter(|record| record.usage == Usage::TrustAnchor) {
        let issuers = chain.iter().take(CHAIN_MAX).skip(1).filter(|certificate| record.fits(certificate));
        let mut found: Vec<Anchor> = issuers.map(|certificate| Anchor::Certificate(certificate.to_vec())).collect();
        if let (Association::Full(full), true) = (&record.association, found.is_empty()) {
            match record.selector {
                Selector::Certificate => found.push(Anchor::Certificate(full.clone())),
                Selector::PublicKey => found.extend(chain.iter().take(CHAIN_MAX).filter_map(|c| under_key(c, full))),
            }
        }
        anchors.extend(found);
    }
    anchors.dedup();
    anchors
}

/// Of digests of one usage and selector only the strongest count: a weak digest that is still there must not be what an attacker
/// has to break (RFC 7671, section 9). Full data always counts.
fn strongest(mut records: Vec<Usable>) -> Vec<Usable> {
    let has_sha512: Vec<(Usage, Selector)> = records
        .iter()
        .filter(|record| matches!(record.association, Association::Sha512(_)))
        .map(|record| (record.usage, record.selector))
        .collect();
    records.retain(|record| match record.association {
        Association::Sha256(_) => !has_sha512.contains(&(record.usage, record.selector)),
        Association::Sha512(_) | Association::Full(_) => true,
    });
    records
}

/// The key as what may have signed this certificate.
fn under_key(certificate: &[u8], key: &[u8]) -> Option<Anchor> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = content(parsed.tbs_certificate.issuer.as_raw())?.to_vec();
    Some(Anchor::PublicKey { subject, key: content(key)?.to_vec() })
}

/// SubjectPublicKeyInfo of a certificate in DER. Versions and extensions may be whatever they are.
pub fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed.tbs_certificate.subject_pki.raw)
}

/// Whether it is one SEQUENCE in DER, from its first octet to its last: what certificates and public keys are.
fn is_whole_sequence(der: &[u8]) -> bool {
    content(der).is_some()
}

/// What is in a SEQUENCE in DER that is all there is.
fn content(der: &[u8]) -> Option<&[u8]> {
    let [0x30, first, rest @ ..] = der else { return None };
    match usize::from(*first) {
        short @ ..=0x7f => (rest.len() == short).then_some(rest),
        long @ 0x81..=0x84 if rest.len() > long - 0x80 => {
            let (length, content) = rest.split_at(long - 0x80);
            let length = length.iter().fold(0, |length, octet| length << 8 | usize::from(*octet));
            (length > 0x7f && content.len() == length).then_some(content)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// A certificate that openssl(1) made, and what its dgst(1) says of it and of its public key.
    const CERTIFICATE: &str = "MIIBfTCCASOgAwIBAgIUDs5E32WaXsXQbEQMKEhfvBFaQpIwCgYIKoZIzj0EAwIwFDESMBAGA1UEAwwJbXguYi50ZXN0MB4XDTI2 \
    MTEyNzAwNTcxN1oXDTI2MTEyODAwNTcxN1owFDESMBAGA1UEAwwJbXguYi50ZXN0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE \
    LO48386edFQz2L2KogwkxpQfkuPRZji3pz8bKin2roeHnzpgy62pVJDpHSEMU9PdZ/PR+OVjcKv2Tz/gm+g2yaNTMFEwHQYDVR0O \
    BBYEFJywL+mG65y0CmvkkkwnCQHEGOxOMB8GA1UdIwQYMBaAFJywL+mG65y0CmvkkkwnCQHEGOxOMA8GA1UdEwEB/wQFMAMBAf8w \
    CgYIKoZIzj0EAwIDSAAwRQIgKzqJPArbB1r7m6b6+thfDKuyqjmBo+MpW174VOEIGukCIQChxC8dr9+ZlYo9kYAS7suZUzXyDkhu \
    ugKJj61B7SelDA==";
    const SHA256: &str = "41BCA917AD6C789E7E24A3174C1599F122C438016ED0FB250C608E42EF8AAA0E";
    const SHA512: &str = "57B4166BEE52268E483739E3F3868012BE37BF4465BE6B238652FACDC125AD48\
                          94C3E95E45AD190CB82D7760BF9EFB1B1AD9ADA32AFA361C0B265E655AD89CC1";
    const KEY_SHA256: &str = "5DCF8DFA7694C89DDD1C11A070885808E938BCD76DAAFBE414991239369FA4FD";
    const KEY_SHA512: &str = "10FCFE6C9636D5C1CDFEF7758DFDFF3F3D0D231438FF9A22C94A6E4D51542D4A\
                              28B1A98C07ABC44AA6B9B40E36F1FB006CA25517835C4F949816C5F24340722C";

    fn certificate() -> Vec<u8> {
        STANDARD.decode(CERTIFICATE.replace(' ', "")).unwrap()
    }

    fn octets(hex: &str) -> Vec<u8> {
        hex.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    }

    fn record(usage: u8, selector: u8, matching: u8, data: &[u8]) -> Record {
        Record { usage, selector, matching, data: data.to_vec() }
    }

    fn usable(records: &[Record]) -> Vec<Usable> {
        match of_answer("mx.b.test", TlsaAnswer::Records(Security::Secure, records.to_vec())) {
            Some(Dane::Records { records, base }) if base == "mx.b.test" => records,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_certificate_fits_what_openssl_says_of_it() {
        let certificate = certificate();
        let key = public_key(&certificate).unwrap();
        let fitting = [
            record(3, 0, 1, &octets(SHA256)),
            record(3, 0, 2, &octets(SHA512)),
            record(3, 1, 1, &octets(KEY_SHA256)),
            record(3, 1, 2, &octets(KEY_SHA512)),
            record(3, 0, 0, &certificate),
            record(3, 1, 0, key),
        ];
        for record in fitting {
            let used = usable(std::slice::from_ref(&record));
            assert!(fits_end_entity(&used, &certificate), "{record:?}");
            // What is off by one bit, of the other selector, or for a trust anchor doesn't fit.
            let mut off = record.clone();
            *off.data.last_mut().unwrap() ^= 1;
            let other = Record { selector: 1 - record.selector, ..record.clone() };
            let anchor = Record { usage: 2, ..record.clone() };
            for not in [off, other, anchor] {
                assert!(!fits_end_entity(&usable(std::slice::from_ref(&not)), &certificate), "{not:?}");
            }
        }
        let text = usable(&[record(3, 1, 1, &octets(KEY_SHA256))])[0].to_string();
        assert_eq!(text, format!("3 1 1 {KEY_SHA256}"));
        assert!(!fits_end_entity(&usable(&[record(3, 1, 1, &octets(KEY_SHA256))]), b"no certificate"));
    }

    #[test]
    fn what_smtp_can_not_use_is_not_used() {
        let (digest, der) = ([7; 32], certificate());
        let unusable = [
            record(0, 1, 1, &digest),
            record(1, 1, 1, &digest),
            record(4, 1, 1, &digest),
            record(255, 1, 1, &digest),
            record(3, 2, 1, &digest),
            record(3, 255, 1, &digest),
            record(3, 1, 3, &digest),
            record(3, 1, 1, &digest[1..]),
            record(3, 1, 1, &[7; 33]),
            record(3, 1, 2, &digest),
            record(3, 1, 0, b""),
            record(3, 0, 0, &der[1..]),
            record(3, 0, 0, &der[..der.len() - 1]),
            record(3, 0, 0, &[der.clone(), vec![0]].concat()),
            record(3, 0, 0, &[0x30, 0x81, 1, 0]),
            record(3, 0, 0, &[0x30, 0x80]),
        ];
        for record in &unusable {
            assert_eq!(Usable::of(record), None, "{record:?}");
        }
        let all = TlsaAnswer::Records(Security::Secure, unusable.to_vec());
        assert_eq!(of_answer("mx.b.test", all), Some(Dane::Unusable));
        // One that can be used is enough, wherever it stands.
        let with_one = [&unusable[..], &[record(3, 1, 1, &digest)]].concat();
        assert_eq!(usable(&with_one).len(), 1);
    }

    #[test]
    fn an_answer_means_what_it_proves() {
        let records = vec![record(3, 1, 1, &[7; 32])];
        let of = |security, records: &[Record]| of_answer("mx.b.test", TlsaAnswer::Records(security, records.to_vec()));
        assert!(matches!(of(Security::Secure, &records), Some(Dane::Records { .. })));
        assert_eq!(of(Security::Insecure, &records), None);
        assert_eq!(of(Security::Secure, &[]), None);
        assert_eq!(of_answer("mx.b.test", TlsaAnswer::Failed), Some(Dane::Failed));
    }

    #[test]
    fn nothing_is_asked_unless_all_that_leads_there_is_secure() {
        let addresses = |security, alias: Option<&str>| Addresses { security, alias_of: alias.map(str::to_owned) };
        let (secure, insecure) = (Security::Secure, Security::Insecure);
        assert_eq!(bases(secure, "mx.b.test", &addresses(secure, None)), ["mx.b.test"]);
        assert_eq!(bases(secure, "mx.b.test", &addresses(secure, Some("mx.c.test"))), ["mx.c.test", "mx.b.test"]);
        assert_eq!(bases(secure, "mx.b.test", &addresses(secure, Some("mx.b.test"))), ["mx.b.test"]);
        assert!(bases(insecure, "mx.b.test", &addresses(secure, None)).is_empty());
        assert!(bases(secure, "mx.b.test", &addresses(insecure, None)).is_empty());
        assert!(bases(insecure, "mx.b.test", &addresses(insecure, None)).is_empty());
        assert_eq!(record_name("mx.b.test", 25), "_25._tcp.mx.b.test");
    }

    #[test]
    fn a_weaker_digest_beside_a_stronger_one_does_not_count() {
        let certificate = certificate();
        // The digest of SHA2-256 fits and the one of SHA2-512 doesn't: somebody may have broken the former.
        let both = [record(3, 1, 1, &octets(KEY_SHA256)), record(3, 1, 2, &[7; 64])];
        assert!(!fits_end_entity(&usable(&both), &certificate));
        // Those of another selector or usage are apart, and so is full data.
        let apart = [record(3, 1, 1, &octets(KEY_SHA256)), record(3, 0, 2, &[7; 64]), record(2, 1, 2, &[7; 64])];
        assert!(fits_end_entity(&usable(&apart), &certificate));
        let full = [record(3, 0, 0, &certificate), record(3, 0, 2, &[7; 64])];
        assert!(fits_end_entity(&usable(&full), &certificate));
    }

    #[test]
    fn a_trust_anchor_is_in_the_chain_above_the_server_or_in_the_record() {
        let certificate = certificate();
        let key = public_key(&certificate).unwrap();
        let server: &[u8] = b"\x30\x01\x00";
        let by_digest = usable(&[record(2, 1, 1, &octets(KEY_SHA256))]);
        assert_eq!(anchors(&by_digest, &[server, &certificate]), [Anchor::Certificate(certificate.clone())]);
        assert!(anchors(&by_digest, &[&certificate]).is_empty(), "the server's own is not who signed it");
        assert!(anchors(&by_digest, &[server]).is_empty() && anchors(&by_digest, &[]).is_empty());
        let mut long = vec![server; CHAIN_MAX];
        long.push(&certificate);
        assert!(anchors(&by_digest, &long).is_empty(), "a chain is looked at up to a bound");
        assert_eq!(anchors(&by_digest, &long[1..]), [Anchor::Certificate(certificate.clone())]);
        let whole = usable(&[record(2, 0, 0, &certificate)]);
        assert_eq!(anchors(&whole, &[server]), [Anchor::Certificate(certificate.clone())]);
        let bare = usable(&[record(2, 1, 0, key)]);
        assert!(anchors(&bare, &[server]).is_empty(), "nobody signed what is no certificate");
        let name = [&[0x31, 18, 0x30, 16, 6, 3, 0x55, 4, 3, 12, 9][..], b"mx.b.test"].concat();
        let by_key = Anchor::PublicKey { subject: name, key: key[2..].to_vec() };
        assert_eq!(anchors(&bare, &[&certificate]), [by_key]);
        assert_eq!(anchors(&bare, &[server, &certificate]), [Anchor::Certificate(certificate.clone())]);
        let end_entity = usable(&[record(3, 1, 1, &octets(KEY_SHA256))]);
        assert!(anchors(&end_entity, &[server, &certificate]).is_empty());
    }

    #[test]
    fn records_are_looked_at_up_to_a_bound() {
        let many = |n: u32| (0..n).map(|n| record(3, 1, 1, &Sha256::digest(n.to_be_bytes()))).collect::<Vec<_>>();
        assert_eq!(usable(&many(200)).len(), RECORDS_MAX);
        assert_eq!(usable(&many(10)).len(), 10);
    }
}
