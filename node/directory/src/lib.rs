//! The directory: domains, addresses, accounts with their password verifiers, and the keyring. Its rows are
//! the control group's; every node reads them from its own replica, and one owner beside the control group's
//! leader changes them.
//!
//! * [`keys`] holds the root key, keyring, mailbox keys.
//! * [`records`] says what the rows hold.
//! * [`lookup`] reads.
//! * [`engine`] changes, as an owner's engine.
//! * `domain_keys` says how the keys change that sign a domain's mail.
//! * [`password`] has Argon2id.
//! * [`names`] says what an address may look like.

pub mod api;
mod decide;
mod domain_keys;
pub mod engine;
mod error;
pub mod keys;
pub mod lookup;
pub mod names;
pub mod password;
pub mod records;

pub use api::{Answer, Command, NewKey, Refusal};
pub use engine::Directory;
pub use error::LookupError;
pub use lookup::{Forward, ForwardingKeys, Lookup, Resolution};
pub use records::{
    Account, AccountId, AddressRecord, Domain, DomainKey, KeyAlgorithm, KeyState, PublicKey, SecretKey, Target,
};
