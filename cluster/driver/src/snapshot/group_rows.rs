//! The rows of a snapshot by which the node itself goes: who the group's members are, whether its answers wait for other
//! regions, and what the control group says of nodes, placement and regions. All others only their mailbox's actor opens,
//! which bears that they can't be read.
//!
//! They are read before a snapshot is taken: whoever has a node's certificate must not be able to end another node by rows
//! that can't be read, and once a snapshot is being put in place there is no way back.

use std::sync::Arc;

use bytes::Bytes;
use mailraft_cluster::placement::{self, GroupRows};
use mailraft_cluster::regions::Regions;
use mailraft_storage::memory::MemoryRows;
use mailraft_storage::rows::{Applied, ReplicaBatch};
use mailraft_storage::{MailboxId, ReplicaId, RowBatch, RowKey, Rows, StoreError, Table};

/// The tables of these rows.
const TABLES: [Table; 6] =
    [Table::Incarnation, Table::Members, Table::Mode, Table::Nodes, Table::Placement, Table::Regions];
/// The most bytes of them in one snapshot. A node's row takes some hundred, a partition's placement fewer.
pub(super) const GROUP_ROWS_MAX_BYTES: usize = 4 << 20;

/// What a group's rows say to the node.
pub(super) type Read = (GroupRows, Option<Arc<Regions>>);

/// Reads what a replica's rows say to the node.
pub(super) fn read(rows: &dyn Rows, replica: ReplicaId) -> Result<Read, StoreError> {
    Ok((placement::group(rows, replica)?, Regions::from_rows(rows, replica)?.map(Arc::new)))
}

/// Those among the rows of a snapshot that arrives.
#[derive(Default)]
pub(super) struct Arriving {
    rows: RowBatch,
    bytes: usize,
}

impl Arriving {
    /// Some of the snapshot's rows.
    ///
    /// # Errors
    /// If it has more of these than any group has.
    pub(super) fn take(&mut self, rows: &[(RowKey, Bytes)]) -> Result<(), StoreError> {
        let own = |key: &RowKey| {
            key.mailbox == MailboxId::PARTITION && TABLES.iter().any(|table| table.number() == key.table)
        };
        for (key, value) in rows.iter().filter(|(key, _)| own(key)) {
            self.bytes += key.key.len() + value.len();
            if self.bytes > GROUP_ROWS_MAX_BYTES {
                let detail = format_args!("more than {GROUP_ROWS_MAX_BYTES} bytes of rows about members and nodes");
                return Err(StoreError::damaged("snapshot", detail));
            }
            self.rows.put(key.clone(), value.to_vec());
        }
        Ok(())
    }

    /// The snapshot is whole: whether this node can read them all.
    ///
    /// # Errors
    /// If one of them can't be read.
    pub(super) fn check(self, replica: ReplicaId, applied: &Applied) -> Result<(), StoreError> {
        let rows = MemoryRows::new();
        rows.write(&[ReplicaBatch { replica, batch: self.rows, applied: applied.clone() }])?;
        read(&rows, replica)?;
        placement::nodes(&rows, replica)?;
        placement::placements(&rows, replica)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn whatever_this_node_reads_of_a_groups_rows_is_read_before_a_snapshot_is_taken() {
        let (replica, applied) = (ReplicaId(1), Applied::default());
        let mut read_by_the_node = Vec::new();
        for table in Table::ALL {
            for key in [&[][..], &[0], &[1], &[0; 4], &[0; 8], &[1; 9], &[7; 16]] {
                let row = (RowKey::partition(table, key), Bytes::from_static(&[9; 7]));
                let rows = MemoryRows::new();
                let mut batch = RowBatch::default();
                batch.put(row.0.clone(), row.1.to_vec());
                if rows.write(&[ReplicaBatch { replica, batch, applied: applied.clone() }]).is_err()
                    || read(&rows, replica).is_ok()
                {
                    continue;
                }
                let mut arriving = Arriving::default();
                arriving.take(&[row]).unwrap();
                assert!(arriving.check(replica, &applied).is_err(), "{table:?} {key:?} is taken and can't be read");
                read_by_the_node.push(table);
            }
        }
        read_by_the_node.dedup();
        assert_eq!(read_by_the_node, [Table::Incarnation, Table::Members, Table::Mode, Table::Regions]);
    }
}
