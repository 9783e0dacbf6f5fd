//! The floor of kept results of commands: the row that says from which id on a partition knows what it carried out.

use serde::{Deserialize, Serialize};

use crate::entry::{versioned_decode, versioned_encode};
use crate::error::StoreError;
use crate::ids::{CommandId, ReplicaId};
use crate::row::{RowKey, Table};
use crate::rows::Rows;

/// The newest format of the row that this binary reads, and the one it writes.
const FLOOR_VERSION: u8 = 1;

/// The id below which nothing is known of commands that have no row: their results may have been evicted. In clear,
/// under [`Table::CommandFloor`]. Of two floors the later one is the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CommandFloor(pub CommandId);

impl CommandFloor {
    /// The key of its row.
    pub fn key() -> RowKey {
        RowKey::partition(Table::CommandFloor, [])
    }

    /// The floor of a replica's partition; the lowest id, below which there is none, while nothing was evicted.
    /// Looked at after a command's own row was not found: the floor rises in the batch that evicts.
    ///
    /// # Errors
    /// If the row can't be read, or as [`CommandFloor::decode`]. Nobody may take that for "no floor": a command that
    /// was evicted would be carried out again.
    pub fn read(rows: &dyn Rows, replica: ReplicaId) -> Result<Self, StoreError> {
        match rows.get(replica, &CommandFloor::key())? {
            Some(row) => CommandFloor::decode(&row),
            None => Ok(CommandFloor::default()),
        }
    }

    /// Version byte and encoding.
    pub fn encode(&self) -> Vec<u8> {
        versioned_encode(FLOOR_VERSION, self)
    }

    /// The inverse of [`CommandFloor::encode`].
    ///
    /// # Errors
    /// [`StoreError::Newer`] for a later version, [`StoreError::Damaged`] for anything that is none, a row that is
    /// too short among it.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        versioned_decode("command floor", FLOOR_VERSION, bytes)
    }

    /// Whether nothing is known of this id if it has no row.
    pub fn is_above(&self, id: CommandId) -> bool {
        id < self.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::ids::Index;
    use crate::memory::MemoryRows;
    use crate::row::RowBatch;
    use crate::rows::{Applied, ReplicaBatch};

    const R: ReplicaId = ReplicaId(1);

    #[test]
    fn no_row_is_no_floor_and_a_damaged_one_is_damage() {
        let rows = MemoryRows::new();
        let mut index = 0;
        let mut put = |row: Vec<u8>| {
            index += 1;
            let mut batch = RowBatch::default();
            batch.put(CommandFloor::key(), row);
            let applied = Applied { index: Index(index), ..Applied::default() };
            rows.write(&[ReplicaBatch { replica: R, batch, applied }]).unwrap();
            CommandFloor::read(&rows, R)
        };
        let floor = CommandFloor(CommandId([7; 16]));
        assert_eq!(put(floor.encode()).unwrap(), floor);
        let whole = floor.encode();
        for length in 0..whole.len() {
            assert!(matches!(put(whole[..length].to_vec()), Err(StoreError::Damaged { .. })), "{length} bytes");
        }
        assert!(matches!(put([&whole[..], &[0]].concat()), Err(StoreError::Damaged { .. })));
        assert!(matches!(put([&[9], &whole[1..]].concat()), Err(StoreError::Newer { found: 9, .. })));
        let empty = MemoryRows::new();
        assert_eq!(CommandFloor::read(&empty, R).unwrap(), CommandFloor::default());
        assert!(!CommandFloor::default().is_above(CommandId::default()));
    }
}
