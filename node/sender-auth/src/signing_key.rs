//! Keys that sign mail, and the records by which they are published (RFC 6376, section 3.6.1; RFC 8463, section 4).

use aws_lc_rs::digest::Digest;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256};
use base64::prelude::{BASE64_STANDARD, Engine};
use zeroize::Zeroizing;

use crate::keys::Algorithm;

/// The shortest RSA key that signs, in octets of its modulus: 2,048 bits (RFC 8301, section 3.2).
const RSA_SIGNING_MIN_BYTES: usize = 256;
/// The longest, which verifiers must take (RFC 8301, section 3.2).
const RSA_SIGNING_MAX_BYTES: usize = 512;

/// A key that signs.
pub struct SigningKey(Kind);

enum Kind {
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// Why a key can't sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is not PKCS #8 of its algorithm.
    #[error(
        "the signing key can't be read: it is no PKCS #8 key of its algorithm; make another one with mailraft domain key add"
    )]
    Unreadable,
    /// It is shorter than what proves something, or longer than what is verified.
    #[error("an RSA key that signs has 2048 to 4096 bits: make another one with mailraft domain key add")]
    Length,
    /// The library could not make or use it.
    #[error("the cryptographic library failed: try again")]
    Failed,
}

impl SigningKey {
    /// Makes a key, of 2,048 bits where it is RSA, with the library's own randomness: it takes no other. Returns it as PKCS #8.
    /// An RSA key takes a processor for up to a second.
    ///
    /// # Errors
    /// If the library fails.
    pub fn generate(algorithm: Algorithm) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let failed = |_| KeyError::Failed;
        Ok(Zeroizing::new(match algorithm {
            Algorithm::RsaSha256 => {
                let key = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
                let der: Pkcs8V1Der<'_> = key.as_der().map_err(failed)?;
                der.as_ref().to_vec()
            }
            Algorithm::Ed25519Sha256 => {
                Ed25519KeyPair::generate().and_then(|key| key.to_pkcs8v1()).map_err(failed)?.as_ref().to_vec()
            }
        }))
    }

    /// Reads a key from PKCS #8.
    ///
    /// # Errors
    /// If it is none of this algorithm, or of a length that others do not verify.
    pub fn parse(algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self, KeyError> {
        Ok(SigningKey(match algorithm {
            Algorithm::RsaSha256 => {
                let key = RsaKeyPair::from_pkcs8(pkcs8).map_err(|_| KeyError::Unreadable)?;
                if !is_of_length(key.public_modulus_len()) {
                    return Err(KeyError::Length);
                }
                Kind::Rsa(key)
            }
            Algorithm::Ed25519Sha256 => {
                Kind::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| KeyError::Unreadable)?)
            }
        }))
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Kind::Rsa(_) => Algorithm::RsaSha256,
            Kind::Ed25519(_) => Algorithm::Ed25519Sha256,
        }
    }

    /// The text of the TXT record at SELECTOR._domainkey.DOMAIN.
    ///
    /// # Errors
    /// If the library fails.
    pub fn record(&self) -> Result<String, KeyError> {
        let (kind, key) = match &self.0 {
            Kind::Rsa(key) => {
                let der: PublicKeyX509Der<'_> = key.public_key().as_der().map_err(|_| KeyError::Failed)?;
                ("rsa", BASE64_STANDARD.encode(der.as_ref()))
            }
            Kind::Ed25519(key) => ("ed25519", BASE64_STANDARD.encode(key.public_key().as_ref())),
        };
        Ok(format!("v=DKIM1; k={kind}; p={key}"))
    }

    pub(crate) fn sign(&self, digest: &Digest) -> Result<Vec<u8>, KeyError> {
        match &self.0 {
            Kind::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign_digest(&RSA_PKCS1_SHA256, digest, &mut signature).map_err(|_| KeyError::Failed)?;
                Ok(signature)
            }
            // What is signed is the digest (RFC 8463, section 3).
            Kind::Ed25519(key) => Ok(key.try_sign(digest.as_ref()).map_err(|_| KeyError::Failed)?.as_ref().to_vec()),
        }
    }

    #[cfg(test)]
    pub(crate) fn of_seed(seed: &[u8]) -> Self {
        SigningKey(Kind::Ed25519(Ed25519KeyPair::from_seed_unchecked(seed).unwrap()))
    }
}

fn is_of_length(modulus_bytes: usize) -> bool {
    (RSA_SIGNING_MIN_BYTES..=RSA_SIGNING_MAX_BYTES).contains(&modulus_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Key;

    #[test]
    fn keys_come_back_from_pkcs8_and_are_published_as_they_verify() {
        for algorithm in Algorithm::ALL {
            let secret = SigningKey::generate(algorithm).unwrap();
            let key = SigningKey::parse(algorithm, &secret).unwrap();
            assert_eq!(key.algorithm(), algorithm);
            let record = key.record().unwrap();
            assert!(Key::parse(record.as_bytes()).is_ok(), "{record}");
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"x");
            let signature = key.sign(&digest).unwrap();
            assert_eq!(Key::parse(record.as_bytes()).unwrap().verifies(algorithm, &digest, &signature), Some(true));
        }
    }

    #[test]
    fn what_is_no_key_or_too_short_does_not_sign() {
        let [rsa, ed25519] = Algorithm::ALL.map(|algorithm| SigningKey::generate(algorithm).unwrap());
        let refusal = |algorithm, secret: &[u8]| SigningKey::parse(algorithm, secret).err();
        assert_eq!(refusal(Algorithm::RsaSha256, &ed25519), Some(KeyError::Unreadable));
        assert_eq!(refusal(Algorithm::Ed25519Sha256, &rsa), Some(KeyError::Unreadable));
        assert_eq!(refusal(Algorithm::RsaSha256, b""), Some(KeyError::Unreadable));
        assert_eq!([255, 256, 512, 513].map(is_of_length), [false, true, true, false]);
    }

    #[test]
    fn the_key_of_rfc_8463_is_published_as_it_is_there() {
        let seed = BASE64_STANDARD.decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=").unwrap();
        let record = SigningKey::of_seed(&seed).record().unwrap();
        assert_eq!(record, "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
    }
}
