//! The directory: domains, addresses, accounts with their password verifiers, and the keyring. Its rows are
//! the control group's; every node reads them from its own replica, and one owner beside the control group's
//! leader changes them.
//!
//! * [`keys`] holds the root key, keyring, mailbox keys.
//! * [`records`] says what the rows hold.
//! * [`lookup`] reads.
//! * [`engine`] changes.
//! * [`password`] has Argon2id.
//! * [`names`] says what an address may look like.

mod decide;
pub mod engine;
pub mod keys;
pub mod lookup;
pub mod names;
pub mod password;
pub mod records;

pub use engine::{Answer, Command, Directory, Refusal, Submitted};
pub use lookup::{Lookup, LookupError, Resolution};
pub use records::{Account, AccountId, AddressRecord, Domain, Target};
