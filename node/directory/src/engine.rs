//! The directory's engine: what its commands come to, each on applied state and the effects of those before it in the
//! same entry. It holds nothing in memory but the keys: what is applied, the rows say.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use mailraft_owner::{Effect, Engine, Missed, Part, Place, Queued, RequestDigest};
use mailraft_storage::entry::{ENTRY_MAX_BYTES, versioned_decode, versioned_encode};
use mailraft_storage::seal::{Key, SEAL_OVERHEAD_BYTES, open_row, result_place, seal_row, sealed_epoch};
use mailraft_storage::{CommandId, Env, Epoch, Incarnation, Index, MailboxId, RowBatch, RowKey, Rows, Table, Term};

use crate::api::{Answer, Command, Refusal};
use crate::decide::decide;
use crate::error::LookupError;
use crate::lookup::{Lookup, Overlay};

/// An entry is closed past these bytes. One command's effects are far smaller.
pub const BATCH_MAX_BYTES: usize = ENTRY_MAX_BYTES / 2;
const RESULT_VERSION: u8 = 2;
/// The newest version in which a result has no digest of what was asked.
const RESULT_WITHOUT_DIGEST: u8 = 1;

/// The state machine of the directory in one term.
pub struct Directory {
    lookup: Arc<Lookup>,
    place: Place,
    key: Key,
    epoch: Epoch,
}

/// An entry while it is decided.
#[derive(Default)]
pub struct Entry {
    overlay: Overlay,
    requires: BTreeSet<RowKey>,
    bytes: usize,
}

impl Directory {
    /// The engine in this term.
    ///
    /// # Errors
    /// If the keyring can't be read.
    pub fn load(lookup: &Arc<Lookup>, incarnation: Incarnation, term: Term) -> Result<Self, LookupError> {
        let (key, epoch) = lookup.newest_key()?;
        let (_, replica, cluster) = lookup.rows();
        let place = Place { cluster, mailbox: MailboxId::PARTITION, replica, incarnation, term, began_alone: false };
        Ok(Directory { lookup: Arc::clone(lookup), place, key, epoch })
    }
}

impl Engine for Directory {
    type Command = Command;
    type Answer = Answer;
    type Refusal = Refusal;
    type Entry = Entry;
    type Event = std::convert::Infallible;
    type Error = LookupError;

    fn place(&self) -> &Place {
        &self.place
    }

    fn rows(&self) -> &dyn Rows {
        self.lookup.rows().0
    }

    fn position(&self) -> Index {
        Index(0)
    }

    fn command_bytes(command: &Command) -> usize {
        command.text_bytes()
    }

    fn request_digest(&self, command: &Command) -> Option<RequestDigest> {
        Some(command.digest(self.lookup.index()))
    }

    fn id_is_taken(&self) -> Refusal {
        Refusal::IdIsTaken
    }

    fn seal_result(
        &self,
        env: &mut Env,
        id: CommandId,
        request: Option<RequestDigest>,
        result: &Result<Answer, Refusal>,
    ) -> Bytes {
        let place = result_place(self.place.mailbox, id);
        let plain = versioned_encode(RESULT_VERSION, &(request, result));
        seal_row(env, &self.key, self.epoch, self.place.cluster, &place, &plain)
    }

    fn open_result(
        &self,
        id: CommandId,
        sealed: &Bytes,
    ) -> Result<(Option<RequestDigest>, Result<Answer, Refusal>), LookupError> {
        let damaged = |error| LookupError::Seal { table: Table::Commands, error };
        let key = self.lookup.epoch_key(sealed_epoch(sealed).map_err(damaged)?)?;
        let place = result_place(self.place.mailbox, id);
        let plain = open_row(&key, self.place.cluster, &place, sealed).map_err(damaged)?;
        if plain.first() == Some(&RESULT_WITHOUT_DIGEST) {
            return Ok((None, versioned_decode("result", RESULT_WITHOUT_DIGEST, &plain)?));
        }
        Ok(versioned_decode("result", RESULT_VERSION, &plain)?)
    }

    fn begin(&mut self, _: &mut Env) -> Entry {
        Entry::default()
    }

    fn decide(
        &mut self,
        env: &mut Env,
        entry: &mut Entry,
        queued: &Queued<Command>,
    ) -> Effect<Answer, Refusal, LookupError> {
        let (rows, needed, result) = match decide(self.lookup.reader(Some(&entry.overlay)), env, &queued.command) {
            Ok(Ok(effects)) => (effects.rows, effects.requires, Ok(effects.answer)),
            Ok(Err(refusal)) => (RowBatch::default(), Vec::new(), Err(refusal)),
            Err(error) => return Effect::Unreadable(error),
        };
        let needs: usize = needed.iter().map(|key| key.encode().len() + 8).sum();
        let sealed = versioned_encode(RESULT_VERSION, &result).len() + size_of::<RequestDigest>() + SEAL_OVERHEAD_BYTES;
        let bytes = rows.size_bytes() + needs + sealed + 32;
        if entry.bytes > 0 && entry.bytes + bytes > BATCH_MAX_BYTES {
            return Effect::NoRoom;
        }
        entry.bytes += bytes;
        // A row that this entry itself makes is not there before it is applied.
        let Entry { overlay, requires, .. } = entry;
        requires.extend(needed.into_iter().filter(|key| !overlay.contains_key(key)));
        overlay.extend(rows.deletes.into_iter().map(|key| (key, None)));
        overlay.extend(rows.puts.into_iter().map(|(key, value)| (key, Some(value))));
        Effect::Decided(result)
    }

    fn next_part(&mut self, _: &mut Env) -> Part<Entry, Answer, Refusal> {
        panic!("no change of the directory has parts")
    }

    fn close(&mut self, _: &mut Env, entry: &mut Entry) -> (Vec<RowKey>, RowBatch) {
        let mut batch = RowBatch::default();
        for (key, value) in std::mem::take(&mut entry.overlay) {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        (std::mem::take(&mut entry.requires).into_iter().collect(), batch)
    }

    fn accepted(&mut self, _: Index, _: Entry) -> Vec<Self::Event> {
        Vec::new()
    }

    /// What is missing was removed meanwhile: deciding again finds it so.
    fn missing(&mut self, _: Entry, commands: usize) -> Vec<Missed> {
        vec![Missed::Again; commands]
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
