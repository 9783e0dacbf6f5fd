//! What a group's own rows say of its takeovers.

use mailraft_storage::entry::{versioned_decode, versioned_encode};
use mailraft_storage::{MailboxId, ReplicaId, RowBatch, RowKey, Rows, StoreError, Table, TakenOver};

const ROW_VERSION: u8 = 1;
/// The highest number of an incarnation: modification sequences have 12 bits for it.
pub const INCARNATION_MAX: u32 = (1 << 12) - 1;

/// All takeovers of a group, the newest last.
///
/// # Errors
/// If one can't be read.
pub fn of_group(rows: &dyn Rows, replica: ReplicaId) -> Result<Vec<TakenOver>, StoreError> {
    let most = INCARNATION_MAX as usize + 1;
    rows.scan(replica, MailboxId::PARTITION, Table::Incarnation, &[], &[], most)?
        .iter()
        .filter(|(key, _)| !key.is_empty())
        .map(|(_, row)| versioned_decode("row of an incarnation", ROW_VERSION, row))
        .collect()
}

/// Adds one, and the incarnation that the group is of from then on.
pub(crate) fn write(batch: &mut RowBatch, taken: &TakenOver) {
    batch.put(RowKey::partition(Table::Incarnation, []), versioned_encode(ROW_VERSION, &taken.incarnation));
    let key = taken.incarnation.number.to_be_bytes();
    batch.put(RowKey::partition(Table::Incarnation, key), versioned_encode(ROW_VERSION, taken));
}
