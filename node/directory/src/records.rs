//! What the directory's rows hold.

use mailraft_storage::seal::Key;
use mailraft_storage::{MailboxId, RowKey, Table, UnixMillis};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

pub(crate) const RECORD_VERSION: u8 = 1;
/// Keys of a domain: two that sign, two that will, two that did, and some more.
pub const KEYS_MAX: usize = 8;
/// The longest secret key, in bytes: RSA of 4,096 bits has 2,400.
pub const SECRET_KEY_MAX_BYTES: usize = 4 << 10;
/// The longest text of a record, in bytes.
pub const KEY_RECORD_MAX_BYTES: usize = 2 << 10;

/// An account's id, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountId(pub [u8; 16]);

/// A domain of this cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Its name, lower case.
    pub name: String,
    /// When it was made.
    pub created: UnixMillis,
}

/// The keys of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DomainKeys {
    /// The domain, lower case.
    pub name: String,
    /// In the order in which they were made.
    pub keys: Vec<DomainKey>,
}

/// A key that signs the mail of a domain, or did, or will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainKey {
    /// What of it anybody may know.
    pub public: PublicKey,
    /// The key itself.
    pub secret: SecretKey,
}

/// What of a domain's key anybody may know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    /// It is published at SELECTOR._domainkey.DOMAIN; lower case.
    pub selector: String,
    /// How it signs.
    pub algorithm: KeyAlgorithm,
    /// Whether it does.
    pub state: KeyState,
    /// The text of the TXT record that publishes it.
    pub record: String,
    /// When it was made.
    pub created: UnixMillis,
    /// When its state became what it is.
    pub since: UnixMillis,
}

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyAlgorithm {
    /// RFC 8301.
    RsaSha256,
    /// RFC 8463.
    Ed25519Sha256,
}

impl KeyAlgorithm {
    /// Its name in a signature.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyAlgorithm::RsaSha256 => "rsa-sha256",
            KeyAlgorithm::Ed25519Sha256 => "ed25519-sha256",
        }
    }
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyState {
    /// It is published, so that others know it before it signs.
    Published,
    /// It signs. One key of an algorithm does.
    Signing,
    /// It signs no more, and is published as long as what it signed is on its way.
    Retired,
}

impl KeyState {
    /// A word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyState::Published => "published",
            KeyState::Signing => "signing",
            KeyState::Retired => "retired",
        }
    }
}

/// A secret key as PKCS #8. It is for no log, and is wiped where it was.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey(pub Vec<u8>);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey")
    }
}

/// Where mail to an address goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// To an account's mailbox.
    Mailbox {
        /// The account.
        account: AccountId,
        /// Its mailbox.
        mailbox: MailboxId,
        /// The account's address, for people.
        address: String,
    },
    /// To another address.
    Address(String),
    /// To an address of another domain.
    Outside(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Mailbox { address, .. } => write!(f, "mailbox of {address}"),
            Target::Address(address) | Target::Outside(address) => f.write_str(address),
        }
    }
}

/// An address of this cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRecord {
    /// The address, lower case.
    pub address: String,
    /// Where its mail goes.
    pub targets: Vec<Target>,
}

/// An account.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// Its address and user name, lower case.
    pub address: String,
    /// Argon2id in PHC form.
    pub verifier: String,
    /// Its mailbox.
    pub mailbox: MailboxId,
    /// May not log in.
    pub disabled: bool,
    /// When it was made.
    pub created: UnixMillis,
}

/// Without the verifier, which is for no log.
impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Account { id, address, verifier: _, mailbox, disabled, created } = self;
        f.debug_struct("Account")
            .field("id", id)
            .field("address", address)
            .field("mailbox", mailbox)
            .field("disabled", disabled)
            .field("created", created)
            .finish_non_exhaustive()
    }
}

pub(crate) fn domain_place(index: &Key, name: &str) -> RowKey {
    RowKey::partition(Table::Domains, index.keyed_hash(&[b"domain", name.as_bytes()]))
}

pub(crate) fn domain_keys_place(index: &Key, name: &str) -> RowKey {
    RowKey::partition(Table::DomainKeys, index.keyed_hash(&[b"domain keys", name.as_bytes()]))
}

pub(crate) fn address_place(index: &Key, address: &str) -> RowKey {
    RowKey::partition(Table::Addresses, index.keyed_hash(&[b"address", address.as_bytes()]))
}

pub(crate) fn account_place(id: AccountId) -> RowKey {
    RowKey::partition(Table::Accounts, id.0)
}
