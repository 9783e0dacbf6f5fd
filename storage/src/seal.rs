//! Sealing of rows, wrapping of keys, keyed hashes.
//!
//! A sealed row is `version (1) ‖ epoch (4) ‖ nonce (24) ‖ XChaCha20-Poly1305 ciphertext with tag (16)`.
//! The nonce is random. The associated data binds version, epoch, cluster, mailbox, table and key, so
//! that a row moved to another place does not open.

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::env::Env;
use crate::ids::{ClusterId, Epoch, MailboxId};
use crate::row::{RowKey, Table};

/// The newest sealed form this binary reads, and the one it writes.
pub const SEAL_VERSION: u8 = 1;
/// What sealing adds to a row, in bytes.
pub const SEAL_OVERHEAD_BYTES: usize = 1 + 4 + 24 + 16;

/// A symmetric key of 256 bits, wiped when dropped and never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key([u8; 32]);

impl Key {
    /// A new random key.
    pub fn generate(env: &mut Env) -> Self {
        Key(env.bytes())
    }

    /// A key from its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Key(bytes)
    }

    /// The key's bytes, to wrap or to send over an encrypted connection.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// A key for one purpose, derived by HMAC-SHA-256 of the label.
    pub fn derive(&self, label: &str) -> Key {
        Key(self.keyed_hash(&[label.as_bytes()]))
    }

    /// HMAC-SHA-256 over the parts, each with its length before it, so that no two lists of parts agree.
    pub fn keyed_hash(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.0).expect("HMAC takes any key length");
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// How a key stands in a sealed row or in a frame between nodes: 32 bytes behind their number. A field asks for it by
/// `#[serde(with = "key_bytes")]`, so that none is written by mistake.
pub mod key_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use zeroize::Zeroizing;

    use super::Key;

    /// Writes a key.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(key: &Key, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(key.expose())
    }

    /// Reads a key.
    ///
    /// # Errors
    /// If it is not 32 bytes.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        let bytes = Zeroizing::new(<serde_bytes::ByteBuf>::deserialize(deserializer)?.into_vec());
        let key = <[u8; 32]>::try_from(bytes.as_slice());
        key.map(Key::from_bytes).map_err(|_| de::Error::invalid_length(bytes.len(), &"a key of 32 bytes"))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        // Constant time: fold every byte before judging.
        self.0.iter().zip(other.0.iter()).fold(0u8, |acc, (a, b)| acc | (a ^ b)) == 0
    }
}

/// Why something sealed does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Written by a newer version.
    #[error("sealed by a newer version of mailraft (format {0})")]
    Newer(u8),
    /// Too short to be sealed.
    #[error("too short to be a sealed row")]
    Short,
    /// Wrong key, wrong place, or changed bytes.
    #[error("the seal is broken: wrong key, wrong place or changed bytes")]
    Broken,
}

/// Seals a row's value for its place.
pub fn seal_row(env: &mut Env, key: &Key, epoch: Epoch, cluster: ClusterId, place: &RowKey, plain: &[u8]) -> Bytes {
    let nonce: [u8; 24] = env.bytes();
    let aad = associated_data(epoch, cluster, place);
    let sealed = XChaCha20Poly1305::new((&key.0).into())
        .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: &aad })
        .expect("XChaCha20-Poly1305 seals anything below 256 GiB");
    let mut out = Vec::with_capacity(SEAL_OVERHEAD_BYTES + plain.len());
    out.push(SEAL_VERSION);
    out.extend_from_slice(&epoch.0.to_be_bytes());
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&sealed);
    out.into()
}

/// Which epoch of its key sealed this.
///
/// # Errors
/// If it is too short or of a newer version.
pub fn sealed_epoch(sealed: &[u8]) -> Result<Epoch, SealError> {
    let version = *sealed.first().ok_or(SealError::Short)?;
    if version != SEAL_VERSION {
        return Err(SealError::Newer(version));
    }
    let epoch = sealed.get(1..5).and_then(|b| b.try_into().ok()).ok_or(SealError::Short)?;
    Ok(Epoch(u32::from_be_bytes(epoch)))
}

/// Opens a sealed row of this place.
///
/// # Errors
/// If it is not what [`seal_row`] made with this key for this place.
pub fn open_row(key: &Key, cluster: ClusterId, place: &RowKey, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let epoch = sealed_epoch(sealed)?;
    if sealed.len() < SEAL_OVERHEAD_BYTES {
        return Err(SealError::Short);
    }
    let nonce: [u8; 24] = sealed[5..29].try_into().map_err(|_| SealError::Short)?;
    let aad = associated_data(epoch, cluster, place);
    XChaCha20Poly1305::new((&key.0).into())
        .decrypt(&XNonce::from(nonce), Payload { msg: &sealed[29..], aad: &aad })
        .map(Zeroizing::new)
        .map_err(|_| SealError::Broken)
}

/// The place of a command's sealed result: bound to the mailbox whose key seals it, not to the partition.
pub fn result_place(mailbox: MailboxId, command: crate::ids::CommandId) -> RowKey {
    RowKey::new(mailbox, Table::Commands, command.0)
}

fn associated_data(epoch: Epoch, cluster: ClusterId, place: &RowKey) -> Vec<u8> {
    let mut aad = Vec::with_capacity(64);
    aad.push(SEAL_VERSION);
    aad.extend_from_slice(&epoch.0.to_be_bytes());
    aad.extend_from_slice(&cluster.0);
    aad.extend_from_slice(&place.encode());
    aad
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Keeps {
        #[serde(with = "key_bytes")]
        key: Key,
    }

    #[test]
    fn a_key_stands_in_records_as_its_bytes_and_never_in_a_log() {
        let keeps = Keeps { key: Key::from_bytes([0x2a; 32]) };
        let written = crate::entry::versioned_encode(1, &keeps);
        // As a `Vec<u8>` did that earlier versions wrote: its length, then its bytes.
        assert_eq!(written, [[1, 32].as_slice(), &[0x2a; 32]].concat());
        assert_eq!(crate::entry::versioned_decode::<Keeps>("keeps", 1, &written).unwrap(), keeps);
        for wrong in [31, 33] {
            let bytes = [[1, wrong].as_slice(), &vec![0x2a; usize::from(wrong)]].concat();
            assert!(crate::entry::versioned_decode::<Keeps>("keeps", 1, &bytes).is_err(), "{wrong} bytes");
        }
        assert_eq!(format!("{keeps:?}"), "Keeps { key: Key(..) }");
    }

    fn place(n: u8) -> RowKey {
        RowKey::new(MailboxId([n; 16]), Table::Folders, [0, 0, 0, n])
    }

    #[test]
    fn a_row_opens_only_with_its_key_at_its_place() {
        let mut env = Env::seeded(1);
        let (key, other) = (Key::generate(&mut env), Key::generate(&mut env));
        let cluster = ClusterId([3; 16]);
        let sealed = seal_row(&mut env, &key, Epoch(7), cluster, &place(1), b"folder");
        assert_eq!(sealed_epoch(&sealed), Ok(Epoch(7)));
        assert_eq!(open_row(&key, cluster, &place(1), &sealed).unwrap().as_slice(), b"folder");
        assert_eq!(open_row(&other, cluster, &place(1), &sealed), Err(SealError::Broken));
        assert_eq!(open_row(&key, cluster, &place(2), &sealed), Err(SealError::Broken));
        assert_eq!(open_row(&key, ClusterId([4; 16]), &place(1), &sealed), Err(SealError::Broken));
    }

    #[test]
    fn no_changed_bit_and_no_shorter_row_opens() {
        let mut env = Env::seeded(2);
        let key = Key::generate(&mut env);
        let sealed = seal_row(&mut env, &key, Epoch(1), ClusterId([3; 16]), &place(1), b"x");
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(open_row(&key, ClusterId([3; 16]), &place(1), &changed).is_err(), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(open_row(&key, ClusterId([3; 16]), &place(1), &sealed[..len]).is_err());
        }
    }

    #[test]
    fn keyed_hashes_tell_lists_of_parts_apart_and_keys_stay_secret() {
        let key = Key::from_bytes([9; 32]);
        assert_ne!(key.keyed_hash(&[b"ab", b"c"]), key.keyed_hash(&[b"a", b"bc"]));
        assert_eq!(format!("{key:?}"), "Key(..)");
        assert!(key.derive("a") != key.derive("b"));
    }
}
