//! A partition of the queues' world: its rows, the owners of its mailboxes, and what another region holds of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mailraft_mailbox::{MailboxOwner, Place};
use mailraft_storage::entry::CommandRow;
use mailraft_storage::memory::MemoryRows;
use mailraft_storage::rows::ReplicaBatch;
use mailraft_storage::{
    Applied, CommandId, EntryKind, Incarnation, Index, MailboxId, PartitionId, Proposal, ReplicaId, RowBatch, RowKey,
    Rows, Table, Term, Verdict,
};

use super::books::Said;
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
    /// Owners of queue mailboxes in earlier terms that do not know yet that they are over, by their epochs.
    pub deposed: BTreeMap<u64, Running>,
}

/// A mailbox's owner.
pub struct Running {
    pub epoch: u64,
    pub owner: MailboxOwner<u64>,
    pub in_flight: Option<Proposal>,
    pub place: Place,
    /// What its node has.
    pub rows: MemoryRows,
    /// When it is to be asked to go on.
    pub wakes: BTreeSet<Duration>,
    /// What came of attempts, as it was told, and has not proposed yet; and what is in the entry in flight.
    pub said: Vec<Said>,
    pub proposed: Vec<Said>,
}

impl Running {
    pub fn new(epoch: u64, place: Place, rows: MemoryRows) -> Self {
        Running {
            epoch,
            owner: MailboxOwner::new(),
            in_flight: None,
            place,
            rows,
            wakes: BTreeSet::new(),
            said: Vec::new(),
            proposed: Vec::new(),
        }
    }
}

/// What a node that hears nothing more keeps of a replica.
pub fn copied(rows: &MemoryRows, replica: ReplicaId) -> Result<MemoryRows, String> {
    let (copy, mut batch) = (MemoryRows::new(), RowBatch::default());
    let applied = rows.applied(replica).map_err(|e| e.to_string())?.unwrap_or_default();
    for key in rows.keys(replica).into_iter().filter(|key| *key != Applied::key()) {
        if let Some(value) = rows.get(replica, &key).map_err(|e| e.to_string())? {
            batch.put(key, value);
        }
    }
    copy.write(&[ReplicaBatch { replica, batch, applied }]).map_err(|e| e.to_string())?;
    Ok(copy)
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

    /// The owner of a mailbox with this epoch, also one that leads no more.
    pub fn running(&mut self, mailbox: MailboxId, epoch: u64) -> Option<&mut Running> {
        match self.owners.get_mut(&mailbox) {
            Some(running) if running.epoch == epoch => Some(running),
            Some(_) | None => self.deposed.get_mut(&epoch),
        }
    }

    /// Whether an item of this id is in a queue mailbox.
    pub fn has_item(&self, queue: MailboxId, item: CommandId) -> Result<bool, String> {
        let key = RowKey::new(queue, Table::Queue, item.0);
        self.rows.get(self.place(queue).replica, &key).map(|row| row.is_some()).map_err(|e| e.to_string())
    }

    /// Whether a mailbox has rows of a table.
    pub fn has_rows(&self, mailbox: MailboxId, table: Table) -> Result<bool, String> {
        let replica = self.place(mailbox).replica;
        let found = self.rows.scan(replica, mailbox, table, &[], &[], 1).map_err(|e| e.to_string())?;
        Ok(!found.is_empty())
    }
}
