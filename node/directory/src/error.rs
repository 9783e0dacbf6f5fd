//! Why the directory can't be read.

use mailraft_storage::seal::SealError;
use mailraft_storage::{Epoch, StoreError, Table};

/// Why the directory can't be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LookupError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The root key does not open the keyring.
    #[error("the root key does not open this cluster's keyring: keys.root_key_file must name this cluster's own key")]
    RootKey,
    /// The keyring has no key of an epoch that a row names.
    #[error("the keyring has no key of epoch {0}")]
    NoKey(Epoch),
    /// A row does not open.
    #[error("a row of {table:?} can't be opened: {error}")]
    Seal {
        /// Its table.
        table: Table,
        /// What opening it came to.
        error: SealError,
    },
}
