//! A partition of the queues' world: its rows, the owners of its mailboxes, and what another region holds of it.

use std::collections::BTreeMap;

use mailraft_mailbox::{MailboxOwner, Place};
use mailraft_storage::entry::CommandRow;
use mailraft_storage::memory::MemoryRows;
use mailraft_storage::rows::ReplicaBatch;
use mailraft_storage::{
    Applied, EntryKind, Incarnation, Index, MailboxId, PartitionId, Proposal, ReplicaId, RowBatch, RowKey, Rows, Table,
    Term, Verdict,
};

use crate::dice::Dice;
use crate::host::CLUSTER;

/// A partition.
pub struct Partition {
    pub id: PartitionId,
    pub rows: MemoryRows,
    pub index: u64,
    pub held: Held,
    pub incarnation: u32,
    pub term: u64,
    pub owners: BTreeMap<MailboxId, Running>,
}

/// A mailbox's owner.
pub struct Running {
    pub epoch: u64,
    pub owner: MailboxOwner<u64>,
    pub in_flight: Option<Proposal>,
}

/// Up to which index another region holds a partition.
pub struct Held(pub u64);

impl Held {
    /// Whether it holds everything; perhaps it does by now.
    pub fn is_all(&mut self, rows: &MemoryRows, index: u64, dice: &mut Dice, healing: bool) -> Result<bool, String> {
        if self.0 < index && (healing || dice.chance(500)) {
            rows.flush().map_err(|e| e.to_string())?;
            self.0 = index;
        }
        Ok(self.0 == index)
    }
}

impl Partition {
    pub fn place(&self, mailbox: MailboxId) -> Place {
        Place {
            cluster: CLUSTER,
            mailbox,
            replica: ReplicaId(u64::from(self.id.0)),
            incarnation: Incarnation { number: self.incarnation, nonce: [1; 16] },
            term: Term(self.term),
            began_alone: false,
        }
    }

    pub fn apply(
        &mut self,
        proposal: Proposal,
        wall: mailraft_storage::UnixMillis,
    ) -> Result<(Index, Verdict), String> {
        let EntryKind::Rows(body) = proposal.kind else { return Err("not rows".to_owned()) };
        let replica = self.place(proposal.mailbox).replica;
        for key in &body.requires {
            if self.rows.get(replica, key).map_err(|e| e.to_string())?.is_none() {
                self.write(RowBatch::default(), wall)?;
                return Ok((Index(self.index), Verdict::Missing));
            }
        }
        let mut batch = body.batch;
        for (id, result) in body.results {
            let row = CommandRow { index: Index(self.index + 1), mailbox: proposal.mailbox, result };
            batch.put(RowKey::command(id), row.encode());
        }
        self.write(batch, wall)?;
        Ok((Index(self.index), Verdict::Accepted))
    }

    pub fn write(&mut self, batch: RowBatch, stamp: mailraft_storage::UnixMillis) -> Result<(), String> {
        self.index += 1;
        let applied = Applied { index: Index(self.index), stamp, ..Applied::default() };
        let replica = ReplicaId(u64::from(self.id.0));
        self.rows.write(&[ReplicaBatch { replica, batch, applied }]).map_err(|e| e.to_string())
    }

    /// Whether a mailbox has rows of a table.
    pub fn has_rows(&self, mailbox: MailboxId, table: Table) -> Result<bool, String> {
        let replica = self.place(mailbox).replica;
        let found = self.rows.scan(replica, mailbox, table, &[], &[], 1).map_err(|e| e.to_string())?;
        Ok(!found.is_empty())
    }
}
