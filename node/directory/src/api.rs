//! Commands, answers and refusals. They travel between nodes in postcard: variants and fields are only ever
//! added at the end.

use std::fmt;

use mailraft_storage::MailboxId;
use mailraft_storage::seal::Key;
use serde::{Deserialize, Serialize};

use crate::records::AccountId;

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
}

/// Without verifiers, which are for no log.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::CreateDomain { name } => write!(f, "CreateDomain({name:?})"),
            Command::CreateAccount { address, verifier: _ } => write!(f, "CreateAccount({address:?})"),
            Command::SetPassword { address, verifier: _ } => write!(f, "SetPassword({address:?})"),
            Command::SetDisabled { address, disabled } => write!(f, "SetDisabled({address:?}, {disabled})"),
            Command::AddAddress { address, targets } => write!(f, "AddAddress({address:?}, {targets:?})"),
            Command::RemoveAddress { address } => write!(f, "RemoveAddress({address:?})"),
            Command::DeleteAccount { address } => write!(f, "DeleteAccount({address:?})"),
        }
    }
}

impl Command {
    /// What is asked, in short. A password is not in it: its verifier is another one each time.
    pub(crate) fn digest(&self, key: &Key) -> [u8; 32] {
        let (kind, address, others): (u8, &str, &[String]) = match self {
            Command::CreateDomain { name } => (0, name, &[]),
            Command::CreateAccount { address, verifier: _ } => (1, address, &[]),
            Command::SetPassword { address, verifier: _ } => (2, address, &[]),
            Command::SetDisabled { address, disabled: false } => (3, address, &[]),
            Command::SetDisabled { address, disabled: true } => (4, address, &[]),
            Command::AddAddress { address, targets } => (5, address, targets),
            Command::RemoveAddress { address } => (6, address, &[]),
            Command::DeleteAccount { address } => (7, address, &[]),
        };
        // Names are compared without case, too.
        let texts: Vec<String> =
            std::iter::once(address).chain(others.iter().map(String::as_str)).map(str::to_lowercase).collect();
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
            Command::AddAddress { address, targets } => {
                address.len() + targets.iter().map(|t| t.len() + size_of::<String>()).sum::<usize>()
            }
        }
    }
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
}
