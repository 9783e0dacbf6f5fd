//! The directory's owner: what waits is decided together, one command after another, each on applied state and
//! the effects of those before it; one entry is in flight.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use mailraft_storage::entry::{CommandRow, ENTRY_MAX_BYTES, RowsBody, versioned_decode, versioned_encode};
use mailraft_storage::seal::{Key, open_row, result_place, seal_row, sealed_epoch};
use mailraft_storage::{
    CommandFloor, CommandId, EntryKind, Env, Epoch, Incarnation, Index, MailboxId, Proposal, RowBatch, RowKey, Table,
    Term, Verdict,
};

use crate::api::{Answer, Command, Refusal};
use crate::decide::decide;
use crate::error::LookupError;
use crate::lookup::{Lookup, Overlay};

/// Commands that may wait.
pub const QUEUE_MAX_COMMANDS: usize = 1_024;
/// Texts of commands that may wait, in bytes.
pub const QUEUE_MAX_BYTES: usize = 16 << 20;
/// Commands decided together as one entry.
pub const BATCH_MAX_COMMANDS: usize = 64;
/// An entry is closed past these bytes. One command's effects are far smaller.
pub const BATCH_MAX_BYTES: usize = ENTRY_MAX_BYTES / 2;
const RESULT_VERSION: u8 = 1;

/// What became of handing a command in.
#[derive(Debug)]
pub enum Submitted {
    /// It was done before: its result and where.
    Answered(Result<Answer, Refusal>, Index),
    /// It waits.
    Queued,
    /// The same command waits already; both are answered together.
    Joined,
    /// Too many wait.
    Overloaded,
    /// Whether it was done can't be said.
    Unknown,
    /// The directory can't be read; nothing is recorded, and it may be tried again.
    Failed(LookupError),
}

/// The directory's owner in one term.
pub struct Directory {
    lookup: Arc<Lookup>,
    incarnation: Incarnation,
    term: Term,
    key: Key,
    epoch: Epoch,
    queue: VecDeque<(CommandId, Command)>,
    queue_bytes: usize,
    /// Ids that wait or are in flight.
    known: BTreeSet<CommandId>,
    in_flight: Option<Vec<Decided>>,
    failed: Vec<(CommandId, LookupError)>,
}

struct Decided {
    id: CommandId,
    command: Command,
    result: Result<Answer, Refusal>,
}

impl Directory {
    /// The owner in this term.
    ///
    /// # Errors
    /// If the keyring can't be read.
    pub fn load(lookup: &Arc<Lookup>, incarnation: Incarnation, term: Term) -> Result<Self, LookupError> {
        let (key, epoch) = lookup.newest_key()?;
        Ok(Directory {
            lookup: Arc::clone(lookup),
            incarnation,
            term,
            key,
            epoch,
            queue: VecDeque::new(),
            queue_bytes: 0,
            known: BTreeSet::new(),
            in_flight: None,
            failed: Vec::new(),
        })
    }

    /// Takes a command in. A result kept under the id is the answer. Below the floor of kept results it is unknown:
    /// it may be a late copy, or its clock is far behind.
    pub fn submit(&mut self, _: &mut Env, id: CommandId, command: Command) -> Submitted {
        if self.known.contains(&id) {
            return Submitted::Joined;
        }
        match self.kept_result(id) {
            Ok(None) => {}
            Ok(Some(kept)) => return kept,
            Err(error) => return Submitted::Failed(error),
        }
        let bytes = command.text_bytes();
        if self.queue.len() >= QUEUE_MAX_COMMANDS || self.queue_bytes + bytes > QUEUE_MAX_BYTES {
            return Submitted::Overloaded;
        }
        self.known.insert(id);
        self.queue_bytes += bytes;
        self.queue.push_back((id, command));
        Submitted::Queued
    }

    /// Decides what waits as one entry. None while one is in flight or nothing waits. A refusal is a result too
    /// and travels; a directory that can't be read is none: see [`Directory::take_failed`].
    pub fn next_entry(&mut self, env: &mut Env) -> Option<Proposal> {
        if self.in_flight.is_some() {
            return None;
        }
        let (mut overlay, mut requires) = (Overlay::new(), BTreeSet::new());
        let (mut decided, mut results, mut bytes) = (Vec::<Decided>::new(), Vec::new(), 0);
        while decided.len() < BATCH_MAX_COMMANDS {
            let Some((id, command)) = self.queue.pop_front() else { break };
            let (effects, result) = match decide(self.lookup.reader(Some(&overlay)), env, &command) {
                Ok(Ok(effects)) => (Some((effects.rows, effects.requires)), Ok(effects.answer)),
                Ok(Err(refusal)) => (None, Err(refusal)),
                Err(error) => {
                    self.known.remove(&id);
                    self.queue_bytes -= command.text_bytes();
                    self.failed.push((id, error));
                    continue;
                }
            };
            let (rows, needed) = effects.unwrap_or_default();
            let sealed = self.seal_result(env, id, &result);
            let needs: usize = needed.iter().map(|key| key.encode().len() + 8).sum();
            let size = rows.size_bytes() + needs + sealed.len() + 32;
            if !decided.is_empty() && bytes + size > BATCH_MAX_BYTES {
                self.queue.push_front((id, command));
                break;
            }
            bytes += size;
            self.queue_bytes -= command.text_bytes();
            // A row that this entry itself makes is not there before it is applied.
            requires.extend(needed.into_iter().filter(|key| !overlay.contains_key(key)));
            overlay.extend(rows.deletes.into_iter().map(|key| (key, None)));
            overlay.extend(rows.puts.into_iter().map(|(key, value)| (key, Some(value))));
            results.push((id, sealed));
            decided.push(Decided { id, command, result });
        }
        let first = decided.first()?.id;
        self.in_flight = Some(decided);
        let mut batch = RowBatch::default();
        for (key, value) in overlay {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        Some(Proposal {
            incarnation: self.incarnation,
            term: self.term,
            mailbox: MailboxId::PARTITION,
            command: first,
            kind: EntryKind::Rows(RowsBody { requires: requires.into_iter().collect(), batch, results }),
        })
    }

    /// Commands that [`Directory::next_entry`] could not decide because the directory can't be read. Nothing is
    /// recorded of them: they may come again.
    pub fn take_failed(&mut self) -> Vec<(CommandId, LookupError)> {
        std::mem::take(&mut self.failed)
    }

    /// The entry in flight has its verdict. After anything but [`Verdict::Accepted`] nothing changed and its
    /// commands wait again, in their order. (After [`Verdict::Fenced`] this owner's reign is over: discard it.)
    ///
    /// # Panics
    /// If none is in flight.
    pub fn applied(&mut self, index: Index, verdict: Verdict) -> Vec<(CommandId, Result<Answer, Refusal>, Index)> {
        let flight = self.in_flight.take().expect("a verdict for an entry in flight");
        match verdict {
            Verdict::Accepted => flight
                .into_iter()
                .map(|decided| {
                    self.known.remove(&decided.id);
                    (decided.id, decided.result, index)
                })
                .collect(),
            Verdict::Missing | Verdict::Fenced => {
                self.wait_again(flight);
                Vec::new()
            }
        }
    }

    /// The entry was never appended: its commands are decided again.
    pub fn dropped(&mut self) {
        if let Some(flight) = self.in_flight.take() {
            self.wait_again(flight);
        }
    }

    /// Whether a verdict is awaited.
    pub fn in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    fn wait_again(&mut self, flight: Vec<Decided>) {
        for decided in flight.into_iter().rev() {
            self.queue_bytes += decided.command.text_bytes();
            self.queue.push_front((decided.id, decided.command));
        }
    }

    fn seal_result(&self, env: &mut Env, id: CommandId, result: &Result<Answer, Refusal>) -> Bytes {
        let (_, _, cluster) = self.lookup.rows();
        let plain = versioned_encode(RESULT_VERSION, result);
        seal_row(env, &self.key, self.epoch, cluster, &result_place(MailboxId::PARTITION, id), &plain)
    }

    /// What is known of a command that was sent before; None if it was never carried out.
    fn kept_result(&self, id: CommandId) -> Result<Option<Submitted>, LookupError> {
        let (rows, replica, cluster) = self.lookup.rows();
        // The floor after the row: it rises in the batch that evicts.
        let Some(row) = rows.get(replica, &RowKey::command(id))? else { return self.below_floor(id) };
        let row = CommandRow::decode(&row)?;
        if row.mailbox != MailboxId::PARTITION {
            return Ok(Some(Submitted::Unknown));
        }
        let said = |error| LookupError::Seal { table: Table::Commands, error };
        let key = self.lookup.epoch_key(sealed_epoch(&row.result).map_err(said)?)?;
        let place = result_place(MailboxId::PARTITION, id);
        let plain = open_row(&key, cluster, &place, &row.result).map_err(said)?;
        let result = versioned_decode("result", RESULT_VERSION, &plain)?;
        Ok(Some(Submitted::Answered(result, row.index)))
    }

    fn below_floor(&self, id: CommandId) -> Result<Option<Submitted>, LookupError> {
        let (rows, replica, _) = self.lookup.rows();
        Ok(CommandFloor::read(rows, replica)?.is_above(id).then_some(Submitted::Unknown))
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
