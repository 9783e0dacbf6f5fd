//! Root key (a file) → keyring epoch key → mailbox key. Wrapped keys live here, apart from mail: erasing a
//! mailbox drops its key.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use mailraft_storage::entry::{versioned_decode, versioned_encode};
use mailraft_storage::seal::{Key, open_row, seal_row};
use mailraft_storage::sums::SumKey;
use mailraft_storage::{ClusterId, Env, Epoch, MailboxId, RowBatch, RowKey, Rows, Table};
use zeroize::Zeroizing;

use crate::error::LookupError;

const KEY_VERSION: u8 = 1;
/// The first epoch of the keyring.
pub const FIRST_EPOCH: Epoch = Epoch(1);
/// The epoch of mailbox keys until one is erased.
pub const MAILBOX_EPOCH: Epoch = Epoch(1);

/// The key that seals the keyring. It never leaves its file but for memory.
#[derive(Clone, Debug)]
pub struct RootKey(Key);

/// What is read of a root key's file, in bytes.
const ROOT_KEY_FILE_MAX_BYTES: u64 = 4 << 10;

/// Why there is no root key.
#[derive(Debug, thiserror::Error)]
pub enum RootKeyError {
    /// The file can't be read.
    #[error(
        "the root key {path} can't be read ({error}): keys.root_key_file must name the file that quickstart made, or its copy"
    )]
    Read {
        /// The file.
        path: String,
        /// The system's words.
        error: std::io::Error,
    },
    /// Not 64 hexadecimal digits.
    #[error(
        "the root key is not 64 hexadecimal digits: restore the file from its copy; without it nothing here can be read"
    )]
    Form,
}

/// The beginning of a file that nobody else may read. A device or a pipe, which may never end or never begin, is none.
fn read_short(path: &Path) -> std::io::Result<Zeroizing<String>> {
    let file = std::fs::metadata(path)?;
    if !file.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    if is_for_others(file.mode(), file.uid(), file.gid()) {
        let mode = file.mode() & 0o777;
        return Err(std::io::Error::other(format!("others may read or change it (mode {mode:o}): chmod 600 it")));
    }
    let mut text = Zeroizing::new(String::with_capacity(ROOT_KEY_FILE_MAX_BYTES as usize));
    std::fs::File::open(path)?.take(ROOT_KEY_FILE_MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether more than the owner may read or change a file. The group's bits count unless owner and group are root's: a
/// credential of systemd's is root's, and its bits for the group are what an access list gives the service's user at most.
fn is_for_others(mode: u32, uid: u32, gid: u32) -> bool {
    let of_root = uid == 0 && gid == 0;
    mode & if of_root { 0o027 } else { 0o077 } != 0
}

impl RootKey {
    /// From a file of 64 hexadecimal digits and perhaps a line end.
    ///
    /// # Errors
    /// If it can't be read, is something else, or others than its owner may read or change it.
    pub fn read(path: &Path) -> Result<Self, RootKeyError> {
        let text = read_short(path).map_err(|error| RootKeyError::Read { path: path.display().to_string(), error })?;
        RootKey::parse(&text)
    }

    /// From its text.
    ///
    /// # Errors
    /// If it is not 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, RootKeyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim(), bytes.as_mut_slice()).map_err(|_| RootKeyError::Form)?;
        Ok(RootKey(Key::from_bytes(*bytes)))
    }

    /// The key by which nodes prove to each other that they have this one. It proves that and opens nothing.
    pub fn link_key(&self) -> Key {
        self.0.derive("mailraft links between nodes 1")
    }

    /// The key of what a node counts for reports to other domains, in its file.
    pub fn counts_key(&self) -> Key {
        self.0.derive("mailraft counts for reports 1")
    }

    /// The key of the sums over rows: whoever has the disk and not this file can't make them.
    pub fn sum_key(&self) -> SumKey {
        SumKey::derived_from(&self.0)
    }

    /// The same as a key, for nodes that are not to have the root key: their rows' sums are compared with all others'.
    pub fn sums_alone(&self) -> Key {
        SumKey::derived(&self.0)
    }
}

/// The keyring's first key, sealed: what a new cluster's control group begins with.
pub fn first_rows(env: &mut Env, cluster: ClusterId, root: &RootKey) -> RowBatch {
    let mut rows = RowBatch::default();
    let key = Key::generate(env);
    let place = keyring_place(FIRST_EPOCH);
    let plain = Zeroizing::new(versioned_encode(KEY_VERSION, key.expose()));
    rows.put(place.clone(), seal_row(env, &root.0, Epoch(0), cluster, &place, &plain));
    rows
}

/// Whether the root key is that of this store's cluster, as far as a keyring is there to tell.
///
/// # Errors
/// [`LookupError::RootKey`] if there is one that it does not open.
pub fn check_root(rows: &dyn Rows, cluster: ClusterId, root: &RootKey) -> Result<(), LookupError> {
    for replica in rows.replicas()? {
        // One that can't be read says nothing about the key.
        if let Ok(Some(sealed)) = rows.get(replica, &keyring_place(FIRST_EPOCH)) {
            open_epoch_key(cluster, root, FIRST_EPOCH, &sealed)?;
        }
    }
    Ok(())
}

/// Opens an epoch key of the keyring.
pub(crate) fn open_epoch_key(
    cluster: ClusterId,
    root: &RootKey,
    epoch: Epoch,
    sealed: &[u8],
) -> Result<Key, LookupError> {
    let plain = open_row(&root.0, cluster, &keyring_place(epoch), sealed).map_err(|_| LookupError::RootKey)?;
    key_of(&plain)
}

pub(crate) fn keyring_place(epoch: Epoch) -> RowKey {
    RowKey::partition(Table::Keyring, epoch.0.to_be_bytes())
}

/// Where it stands how often the key of what is forwarded was replaced.
pub(crate) fn forwarding_key_place() -> RowKey {
    RowKey::partition(Table::Keyring, *b"forwarding key")
}

pub(crate) fn mailbox_key_place(mailbox: MailboxId) -> RowKey {
    RowKey::partition(Table::MailboxKeys, mailbox.0)
}

/// A key as a row's plaintext.
pub(crate) fn key_record(key: &Key) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(versioned_encode(KEY_VERSION, key.expose()))
}

pub(crate) fn key_of(plain: &[u8]) -> Result<Key, LookupError> {
    let bytes: [u8; 32] = versioned_decode("key", KEY_VERSION, plain)?;
    Ok(Key::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_key_that_others_may_read_is_refused() {
        for (mode, uid, gid, refused) in [
            (0o100_600, 1_000, 1_000, false),
            (0o100_400, 0, 0, false),
            (0o100_440, 0, 0, false),
            (0o100_440, 0, 1_000, true),
            (0o100_640, 1_000, 1_000, true),
            (0o100_460, 0, 0, true),
            (0o100_644, 0, 0, true),
            (0o100_601, 1_000, 1_000, true),
        ] {
            assert_eq!(is_for_others(mode, uid, gid), refused, "{mode:o} of {uid}:{gid}");
        }
    }

    #[test]
    fn a_root_key_is_64_hexadecimal_digits() {
        assert!(RootKey::parse(&format!("{}\n", "0f".repeat(32))).is_ok());
        for text in ["", "0f", &"0g".repeat(32), &"0f".repeat(33)] {
            assert!(RootKey::parse(text).is_err(), "{text}");
        }
        let device = RootKey::read(Path::new("/dev/zero")).err().map(|e| e.to_string());
        assert!(device.is_some_and(|said| said.contains("no regular file")));
        let missing = RootKey::read(Path::new("/nonexistent/root.key")).err().map(|e| e.to_string());
        assert!(missing.is_some_and(|m| m.contains("/nonexistent/root.key") && m.contains("keys.root_key_file")));
    }
}
