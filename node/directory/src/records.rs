//! What the directory's rows hold.

use mailraft_storage::seal::Key;
use mailraft_storage::{MailboxId, RowKey, Table, UnixMillis};
use serde::{Deserialize, Serialize};

pub(crate) const RECORD_VERSION: u8 = 1;

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
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Mailbox { address, .. } => write!(f, "mailbox of {address}"),
            Target::Address(address) => f.write_str(address),
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

pub(crate) fn address_place(index: &Key, address: &str) -> RowKey {
    RowKey::partition(Table::Addresses, index.keyed_hash(&[b"address", address.as_bytes()]))
}

pub(crate) fn account_place(id: AccountId) -> RowKey {
    RowKey::partition(Table::Accounts, id.0)
}
