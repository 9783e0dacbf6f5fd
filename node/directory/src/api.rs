//! Commands, answers and refusals. They travel between nodes in postcard: variants and fields are only ever
//! added at the end.

use std::fmt;

use mailraft_storage::MailboxId;
use mailraft_storage::seal::Key;
use serde::{Deserialize, Serialize};

use crate::records::{AccountId, KeyAlgorithm, KeyState, SecretKey};

/// A change of the directory.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A new domain.
    CreateDomain {
        /// Its name.
        name: String,
    },
    /// A new account with its mailbox.
    CreateAccount {
        /// Its address.
        address: String,
        /// Its password's verifier.
        verifier: String,
    },
    /// Another password.
    SetPassword {
        /// The account.
        address: String,
        /// The new verifier.
        verifier: String,
    },
    /// An account may not log in, or may again.
    SetDisabled {
        /// The account.
        address: String,
        /// Whether it is disabled.
        disabled: bool,
    },
    /// More targets for an address, which is made if need be.
    AddAddress {
        /// The address.
        address: String,
        /// Addresses of this cluster.
        targets: Vec<String>,
    },
    /// An address that is no account's goes.
    RemoveAddress {
        /// The address.
        address: String,
    },
    /// An account goes, with its mailbox's key and every address that stands for it alone.
    DeleteAccount {
        /// The account.
        address: String,
    },
    /// A new domain with keys that sign its mail.
    CreateDomainWithKeys {
        /// Its name.
        name: String,
        /// Its keys.
        keys: Vec<NewKey>,
    },
    /// More keys for a domain.
    AddDomainKeys {
        /// The domain.
        name: String,
        /// The keys.
        keys: Vec<NewKey>,
    },
    /// A key signs from now on, instead of the one of its algorithm that did, which retires.
    UseDomainKey {
        /// The domain.
        name: String,
        /// The key's selector.
        selector: String,
    },
    /// A key signs no more, and stays published.
    RetireDomainKey {
        /// The domain.
        name: String,
        /// The key's selector.
        selector: String,
    },
    /// A key that does not sign goes for good.
    RemoveDomainKey {
        /// The domain.
        name: String,
        /// The key's selector.
        selector: String,
    },
    /// More targets for an address, which is made if need be, and some of them may be of other domains: as long as mail is sent
    /// there.
    AddForwards {
        /// The address.
        address: String,
        /// Addresses of this cluster, and of other domains.
        targets: Vec<String>,
    },
    /// Reverse-paths of what is forwarded are made by another key. Those that were made by the key before are taken until the next
    /// time.
    RenewForwardingKey,
}

/// A key for a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    /// Its selector.
    pub selector: String,
    /// How it signs.
    pub algorithm: KeyAlgorithm,
    /// What it is for at first.
    pub state: KeyState,
    /// The text of the TXT record that publishes it.
    pub record: String,
    /// The key itself.
    pub secret: SecretKey,
}

/// Without verifiers and keys, which are for no log.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::CreateDomain { name } => write!(f, "CreateDomain({name:?})"),
            Command::CreateAccount { address, verifier: _ } => write!(f, "CreateAccount({address:?})"),
            Command::SetPassword { address, verifier: _ } => write!(f, "SetPassword({address:?})"),
            Command::SetDisabled { address, disabled } => write!(f, "SetDisabled({address:?}, {disabled})"),
            Command::AddAddress { address, targets } => write!(f, "AddAddress({address:?}, {targets:?})"),
            Command::AddForwards { address, targets } => write!(f, "AddForwards({address:?}, {targets:?})"),
            Command::RenewForwardingKey => f.write_str("RenewForwardingKey"),
            Command::RemoveAddress { address } => write!(f, "RemoveAddress({address:?})"),
            Command::DeleteAccount { address } => write!(f, "DeleteAccount({address:?})"),
            Command::CreateDomainWithKeys { name, keys } => {
                write!(f, "CreateDomainWithKeys({name:?}, {:?})", selectors(keys))
            }
            Command::AddDomainKeys { name, keys } => write!(f, "AddDomainKeys({name:?}, {:?})", selectors(keys)),
            Command::UseDomainKey { name, selector } => write!(f, "UseDomainKey({name:?}, {selector:?})"),
            Command::RetireDomainKey { name, selector } => write!(f, "RetireDomainKey({name:?}, {selector:?})"),
            Command::RemoveDomainKey { name, selector } => write!(f, "RemoveDomainKey({name:?}, {selector:?})"),
        }
    }
}

impl Command {
    /// What is asked, in short. A password is not in it: its verifier is another one each time, and so are keys.
    pub(crate) fn digest(&self, key: &Key) -> [u8; 32] {
        let (kind, address, others): (u8, &str, Vec<&str>) = match self {
            Command::CreateDomain { name } => (0, name, Vec::new()),
            Command::CreateAccount { address, verifier: _ } => (1, address, Vec::new()),
            Command::SetPassword { address, verifier: _ } => (2, address, Vec::new()),
            Command::SetDisabled { address, disabled: false } => (3, address, Vec::new()),
            Command::SetDisabled { address, disabled: true } => (4, address, Vec::new()),
            Command::AddAddress { address, targets } => (5, address, targets.iter().map(String::as_str).collect()),
            Command::RemoveAddress { address } => (6, address, Vec::new()),
            Command::DeleteAccount { address } => (7, address, Vec::new()),
            Command::CreateDomainWithKeys { name, keys } => (8, name, selectors(keys)),
            Command::AddDomainKeys { name, keys } => (9, name, selectors(keys)),
            Command::UseDomainKey { name, selector } => (10, name, vec![selector]),
            Command::RetireDomainKey { name, selector } => (11, name, vec![selector]),
            Command::RemoveDomainKey { name, selector } => (12, name, vec![selector]),
            Command::AddForwards { address, targets } => (13, address, targets.iter().map(String::as_str).collect()),
            Command::RenewForwardingKey => (14, "", Vec::new()),
        };
        // Names are compared without case, too.
        let texts: Vec<String> = std::iter::once(address).chain(others).map(str::to_lowercase).collect();
        let kind = [kind];
        let parts: Vec<&[u8]> = std::iter::once(kind.as_slice()).chain(texts.iter().map(String::as_bytes)).collect();
        key.keyed_hash(&parts)
    }

    pub(crate) fn text_bytes(&self) -> usize {
        match self {
            Command::CreateDomain { name } => name.len(),
            Command::CreateAccount { address, verifier } | Command::SetPassword { address, verifier } => {
                address.len() + verifier.len()
            }
            Command::SetDisabled { address, .. }
            | Command::RemoveAddress { address }
            | Command::DeleteAccount { address } => address.len(),
            Command::AddAddress { address, targets } | Command::AddForwards { address, targets } => {
                address.len() + targets.iter().map(|t| t.len() + size_of::<String>()).sum::<usize>()
            }
            Command::CreateDomainWithKeys { name, keys } | Command::AddDomainKeys { name, keys } => {
                name.len() + keys.iter().map(NewKey::size_bytes).sum::<usize>()
            }
            Command::UseDomainKey { name, selector }
            | Command::RetireDomainKey { name, selector }
            | Command::RemoveDomainKey { name, selector } => name.len() + selector.len(),
            Command::RenewForwardingKey => 0,
        }
    }
}

impl NewKey {
    fn size_bytes(&self) -> usize {
        let NewKey { selector, record, secret, algorithm: _, state: _ } = self;
        selector.len() + record.len() + secret.0.len() + size_of::<NewKey>()
    }
}

fn selectors(keys: &[NewKey]) -> Vec<&str> {
    keys.iter().map(|key| key.selector.as_str()).collect()
}

/// What the directory answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The change was made.
    Done,
    /// A new account.
    AccountCreated {
        /// Its id.
        id: AccountId,
        /// Its mailbox.
        mailbox: MailboxId,
    },
}

/// Why the directory does not do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The name can't be.
    #[error("{0}")]
    BadName(String),
    /// There is one already.
    #[error("the domain {0} exists already")]
    DomainExists(String),
    /// The domain is missing.
    #[error("there is no domain {0}: create it first with mailraft domain create {0}")]
    NoSuchDomain(String),
    /// There is one already.
    #[error("the address {0} exists already")]
    AddressExists(String),
    /// The address is missing.
    #[error("there is no address {0} in this cluster")]
    NoSuchAddress(String),
    /// The account is missing.
    #[error("there is no account {0}")]
    NoSuchAccount(String),
    /// An account's own address stays as long as the account.
    #[error("{0} is an account's own address and stays as long as the account")]
    IsAccount(String),
    /// Only in results that an earlier version kept: the directory's rows could not be read then.
    #[error("the directory can't be read: {0}")]
    Damaged(String),
    /// No more fit.
    #[error("{0} would have more than {max} targets: name another address that stands for some of them", max = crate::lookup::TARGETS_MAX)]
    TooManyTargets(String),
    /// Not Argon2id in PHC form, or too dear to verify.
    #[error("the password's verifier is not Argon2id in PHC form within bounds: let mailraft hash the password")]
    BadVerifier,
    /// The command's id was used for another one.
    #[error(
        "this id belongs to another change, which it was given first: nothing was done; leave the id out, or draw a new one"
    )]
    IdIsTaken,
    /// More addresses name the account than one change takes.
    #[error("more than {max} addresses stand for {0}: remove some of them first with mailraft address remove", max = crate::lookup::ADDRESSES_WITH_ACCOUNT_MAX)]
    TooManyAddresses(String),
    /// Only in results that an earlier version kept, which changed settings of regions here.
    #[error("this cluster has one region: there is nothing to set before nodes stand in a second one")]
    OneRegion,
    /// The same.
    #[error("{0}")]
    BadSettings(String),
    /// Mail to an address would not reach all that it stands for.
    #[error(
        "not all that {0} stands for would get its mail: aliases are followed {depth} deep, to {mailboxes} mailboxes at most; name the accounts themselves, or fewer",
        depth = crate::lookup::ALIAS_DEPTH_MAX,
        mailboxes = crate::lookup::TARGETS_MAX
    )]
    OutOfReach(String),
    /// The domain has one of this selector already.
    #[error("there is a key {selector} of {name} already: name another selector with --selector")]
    KeyExists {
        /// The domain.
        name: String,
        /// The selector.
        selector: String,
    },
    /// The key is missing.
    #[error("there is no key {selector} of {name}: mailraft domain key list {name} shows those that there are")]
    NoSuchKey {
        /// The domain.
        name: String,
        /// The selector.
        selector: String,
    },
    /// No more fit.
    #[error("{0} would have more than {max} keys: remove retired ones first with mailraft domain key remove", max = crate::records::KEYS_MAX)]
    TooManyKeys(String),
    /// What signs now can't go.
    #[error(
        "the key {selector} of {name} signs: let another one sign first with mailraft domain key use, or retire it"
    )]
    KeySigns {
        /// The domain.
        name: String,
        /// The selector.
        selector: String,
    },
    /// It is too long, or nothing that can be published.
    #[error("the key {0} can't be kept: let mailraft make it")]
    BadKey(String),
}
