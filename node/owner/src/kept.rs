//! What the table of commands keeps under an id, and what it says by keeping nothing.

use mailraft_storage::entry::CommandRow;
use mailraft_storage::{CommandFloor, CommandId, ReplicaId, RowKey, Rows, StoreError};

/// What is known of a command that may have been sent before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// It was carried out: its result is kept.
    Result(CommandRow),
    /// It was not carried out.
    New,
    /// Its id is below this floor of kept results: nobody knows whether it was carried out.
    BelowFloor(CommandId),
}

/// The row that is kept under an id.
///
/// # Errors
/// If the store can't be read or the row is damaged.
pub fn kept_row(rows: &dyn Rows, replica: ReplicaId, id: CommandId) -> Result<Option<CommandRow>, StoreError> {
    rows.get(replica, &RowKey::command(id))?.map(|row| CommandRow::decode(&row)).transpose()
}

/// What is known of a command.
///
/// # Errors
/// If the store can't be read, or the row or the floor is damaged.
pub fn known(rows: &dyn Rows, replica: ReplicaId, id: CommandId) -> Result<Known, StoreError> {
    if let Some(row) = kept_row(rows, replica, id)? {
        return Ok(Known::Result(row));
    }
    // The floor after the row: it rises in the batch that evicts.
    let floor = CommandFloor::read(rows, replica)?;
    Ok(if floor.is_above(id) { Known::BelowFloor(floor.0) } else { Known::New })
}
