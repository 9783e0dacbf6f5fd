//! Public keys that sign mail (RFC 6376, section 3.6.1; RFC 8463), and what they signed.

use aws_lc_rs::digest::Digest;
use aws_lc_rs::signature::{ED25519, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, UnparsedPublicKey};

use crate::limits::{RECORD_MAX_BYTES, RSA_MAX_BITS, RSA_MIN_BITS};
use crate::tags::{Tags, colons};

/// How a signature is made, always over SHA-256: SHA-1 proves nothing any more (RFC 8301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// PKCS #1, version 1.5.
    RsaSha256,
    /// RFC 8463.
    Ed25519Sha256,
}

impl Algorithm {
    /// Those that there are.
    pub const ALL: [Algorithm; 2] = [Algorithm::RsaSha256, Algorithm::Ed25519Sha256];

    /// By its name in `a=`.
    pub fn parse(name: &str) -> Option<Self> {
        Algorithm::ALL.into_iter().find(|a| a.as_str() == name)
    }

    /// Its name in `a=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::RsaSha256 => "rsa-sha256",
            Algorithm::Ed25519Sha256 => "ed25519-sha256",
        }
    }
}

/// A key as its domain publishes it.
#[derive(Debug)]
pub(crate) struct Key {
    kind: Kind,
    /// Signatures are for this very domain, not for those below it.
    pub(crate) same_domain: bool,
}

#[derive(Debug)]
enum Kind {
    /// In the form of RFC 8017, appendix A.1.1.
    Rsa(Vec<u8>),
    Ed25519([u8; 32]),
}

/// Why a key can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyRefusal {
    /// It is not of the grammar, or not for mail, or not of a kind that is known.
    Unusable,
    Revoked,
    TooShort,
    TooLong,
}

impl Key {
    pub(crate) fn parse(record: &[u8]) -> Result<Self, KeyRefusal> {
        use KeyRefusal::{Revoked, TooLong, TooShort, Unusable};
        let tags = Some(record).filter(|r| r.len() <= RECORD_MAX_BYTES).and_then(Tags::parse).ok_or(Unusable)?;
        if tags.has("v") && (tags.first() != Some("v") || tags.text("v") != Some("DKIM1")) {
            return Err(Unusable);
        }
        let listed = |name: &str, wanted: &[&str]| match tags.text(name) {
            Some(list) => colons(list).any(|part| wanted.contains(&part)),
            None => !tags.has(name),
        };
        if !listed("h", &["sha256"]) || !listed("s", &["*", "email"]) || !tags.has("p") {
            return Err(Unusable);
        }
        let octets = tags.base64("p").ok_or(Unusable)?;
        if octets.is_empty() {
            return Err(Revoked);
        }
        let kind = match (tags.has("k"), tags.text("k")) {
            (false, _) | (true, Some("rsa")) => {
                let key = rsa_public_key(&octets).ok_or(Unusable)?;
                match modulus_bits(key).ok_or(Unusable)? {
                    ..RSA_MIN_BITS => return Err(TooShort),
                    bits if bits > RSA_MAX_BITS => return Err(TooLong),
                    _ => Kind::Rsa(key.to_vec()),
                }
            }
            (true, Some("ed25519")) => Kind::Ed25519(octets.try_into().map_err(|_| Unusable)?),
            (true, _) => return Err(Unusable),
        };
        Ok(Key { kind, same_domain: tags.text("t").is_some_and(|flags| colons(flags).any(|flag| flag == "s")) })
    }

    /// Whether it made this signature; None if it can't have, by its kind.
    pub(crate) fn verifies(&self, algorithm: Algorithm, digest: &Digest, signature: &[u8]) -> Option<bool> {
        match (&self.kind, algorithm) {
            (Kind::Rsa(key), Algorithm::RsaSha256) => {
                let key = UnparsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, key);
                Some(key.verify_digest(digest, signature).is_ok())
            }
            // What is signed is the digest (RFC 8463, section 3).
            (Kind::Ed25519(key), Algorithm::Ed25519Sha256) => {
                Some(UnparsedPublicKey::new(&ED25519, key).verify(digest.as_ref(), signature).is_ok())
            }
            (Kind::Rsa(_), Algorithm::Ed25519Sha256) | (Kind::Ed25519(_), Algorithm::RsaSha256) => None,
        }
    }
}

/// The RSAPublicKey in a SubjectPublicKeyInfo (RFC 5280), or as it is: both are published.
fn rsa_public_key(der: &[u8]) -> Option<&[u8]> {
    const RSA_ENCRYPTION: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    let (outer, rest) = element(der, 0x30)?;
    if !rest.is_empty() {
        return None;
    }
    if outer.first() == Some(&0x02) {
        return Some(der);
    }
    let (algorithm, rest) = element(outer, 0x30)?;
    let (kind, _) = element(algorithm, 0x06)?;
    let (bits, rest) = element(rest, 0x03).filter(|_| kind == RSA_ENCRYPTION)?;
    bits.strip_prefix(&[0]).filter(|_| rest.is_empty())
}

/// How long the modulus of an RSAPublicKey is.
fn modulus_bits(key: &[u8]) -> Option<usize> {
    let (fields, rest) = element(key, 0x30)?;
    let (modulus, fields) = element(fields, 0x02)?;
    let (_, end) = element(fields, 0x02)?;
    if !rest.is_empty() || !end.is_empty() {
        return None;
    }
    let modulus = &modulus[modulus.iter().position(|b| *b != 0)?..];
    Some(modulus.len() * 8 - modulus.first()?.leading_zeros() as usize)
}

/// The content of a DER element with this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (_, rest) = der.split_first().filter(|(first, _)| **first == tag)?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81 | 0x82 => {
            let (octets, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine};

    use super::*;

    /// A key with a modulus of so many bits; it is no real one.
    fn rsa_of(bits: usize) -> String {
        let integer = |octets: &[u8]| [&[2, 0x82, (octets.len() >> 8) as u8, octets.len() as u8], octets].concat();
        let mut modulus = vec![0u8];
        modulus.extend(std::iter::repeat_n(0xff, bits.div_ceil(8)));
        modulus[1] >>= (8 - bits % 8) % 8;
        let content = [integer(&modulus), vec![2, 3, 1, 0, 1]].concat();
        let der = [&[0x30, 0x82, (content.len() >> 8) as u8, content.len() as u8], content.as_slice()].concat();
        format!("p={}", BASE64_STANDARD.encode(der))
    }

    #[test]
    fn keys_that_prove_nothing_or_cost_too_much_are_not_used() {
        for (bits, refusal) in [
            (512, Some(KeyRefusal::TooShort)),
            (1_023, Some(KeyRefusal::TooShort)),
            (1_024, None),
            (4_096, None),
            (4_097, Some(KeyRefusal::TooLong)),
            (16_384, Some(KeyRefusal::TooLong)),
        ] {
            assert_eq!(Key::parse(rsa_of(bits).as_bytes()).err(), refusal, "{bits}");
        }
    }

    #[test]
    fn records_say_what_a_key_is_for() {
        let key = rsa_of(1_024);
        for (tags, refusal) in [
            ("v=DKIM1; ", None),
            ("v=DKIM1; k=rsa; h=sha1:sha256; s=email; t=y:s; ", None),
            ("v=DKIM2; ", Some(KeyRefusal::Unusable)),
            ("k=rsa; v=DKIM1; ", Some(KeyRefusal::Unusable)),
            ("h=sha1; ", Some(KeyRefusal::Unusable)),
            ("s=tlsrpt; ", Some(KeyRefusal::Unusable)),
            ("k=dsa; ", Some(KeyRefusal::Unusable)),
            ("k=ed25519; ", Some(KeyRefusal::Unusable)),
        ] {
            let parsed = Key::parse(format!("{tags}{key}").as_bytes());
            assert_eq!(parsed.as_ref().err().copied(), refusal, "{tags}");
            assert_eq!(parsed.is_ok_and(|key| key.same_domain), tags.contains("t=y:s"));
        }
        assert_eq!(Key::parse(b"v=DKIM1; p=").err(), Some(KeyRefusal::Revoked));
        for wrong in [&b"v=DKIM1"[..], b"p=!", b"p=AAAA", b"p=MAA=", b"\xff=1"] {
            assert_eq!(Key::parse(wrong).err(), Some(KeyRefusal::Unusable), "{wrong:?}");
        }
        let long = format!("n={}; {key}", "x".repeat(RECORD_MAX_BYTES));
        assert_eq!(Key::parse(long.as_bytes()).err(), Some(KeyRefusal::Unusable));
    }
}
