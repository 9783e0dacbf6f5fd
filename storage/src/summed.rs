//! A store that keeps [sums](crate::sums) over the rows of the one below, and knows by them whether what it reads is what
//! was applied.
//!
//! Every write reads what it changes, but for what is known to be new or was written lately, and brings the sums forward in
//! its own batch: so they are at the position at all times, and after a crash too. What finds a row that was put back or deleted on the disk:
//!
//! * a start, which reads the partition's own rows (the directory's in the control group) and the mailboxes' sums;
//! * the load of a mailbox, which reads its rows ([`RowsProof::check_mailbox`]);
//! * whoever reads a view from its first row to its last, as a snapshot's sender does;
//! * the next change of that row, as the replica's sum is then another than that of the others;
//! * the scrub, which reads everything in time ([`RowsProof::scrub`]).

mod scrub;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use self::scrub::Scrubbing;
use self::view::SummedView;
use crate::error::StoreError;
use crate::ids::{Index, MailboxId, ReplicaId};
use crate::row::{RowBatch, RowKey, Table};
use crate::rows::{Applied, ReplicaBatch, Rows, RowsProof, RowsView, ScannedRows, Scrubbed};
use crate::sums::{Part, Root, Sum, SumKey, Sums, is_own, root_key, sums_key};

/// Rows read at once.
const PAGE_ROWS: usize = 1_000;
/// Rows of sums written at once when they are made anew.
const MADE_ROWS: usize = 10_000;
/// Mailboxes of which something is remembered, and rows of theirs; past either all is forgotten.
const RECENT_MAX_MAILBOXES: usize = 10_000;
const RECENT_MAX_ROWS: usize = 50_000;
/// A mailbox that changes while it is read is read so often, before a view is taken of it.
const READ_AGAIN_MAX: usize = 3;

/// What to do about a replica without sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A version may have written it that kept none: they are made of its rows as they are. So they are if they are of
    /// another position, as such a version leaves them.
    Make,
    /// They were deleted.
    Damaged,
}

/// A store with sums over its rows.
pub struct SummedRows {
    inner: Arc<dyn Rows>,
    key: SumKey,
    state: Mutex<State>,
    /// Whether any replica is distrusted: whoever asks need not wait for a write.
    distrusts: AtomicBool,
}

#[derive(Default)]
struct State {
    roots: BTreeMap<ReplicaId, Root>,
    /// Replicas whose rows are wrong, and how that is known.
    distrusted: BTreeMap<ReplicaId, String>,
    news: Vec<(ReplicaId, String)>,
    scrubbing: Option<Scrubbing>,
    /// What was written lately, so that it need not be read before it is written again.
    recent: BTreeMap<(ReplicaId, MailboxId), Recent>,
    /// Rows of which the hash is remembered, in all mailboxes: no fewer than there are.
    recent_rows: usize,
}

/// Of one mailbox.
#[derive(Default)]
struct Recent {
    /// Its sums, and their hash.
    sums: Option<(Sums, Sum)>,
    /// The hashes of rows that are soon written again, or deleted.
    hashes: BTreeMap<RowKey, Sum>,
}

impl State {
    /// All rows of a replica go, or others take their place.
    fn forget(&mut self, replica: ReplicaId) {
        self.roots.remove(&replica);
        self.recent.retain(|(of, _), _| *of != replica);
        self.distrusted.remove(&replica);
        self.news.retain(|(of, _)| *of != replica);
        self.scrubbing.take_if(|scrubbing| scrubbing.replica == replica);
    }
}

impl SummedRows {
    /// Over these rows, after a look at what every replica's position, its partition's rows and its mailboxes' sums
    /// say. What that finds is in [`RowsProof::take_news`]. `made` hears of each replica whose sums were made anew, with
    /// the number of its rows.
    ///
    /// # Errors
    /// If the store can't be read or written.
    pub fn open(
        inner: Arc<dyn Rows>,
        key: SumKey,
        missing: Missing,
        mut made: impl FnMut(ReplicaId, u64),
    ) -> Result<Self, StoreError> {
        let rows = SummedRows { inner, key, state: Mutex::default(), distrusts: AtomicBool::new(false) };
        for replica in rows.inner.replicas()? {
            match rows.begin(replica, missing, &mut made) {
                Ok(root) => drop(rows.state().roots.insert(replica, root)),
                Err(error @ StoreError::Damaged { .. }) => {
                    let mut state = rows.state();
                    state.roots.insert(replica, Root { broken: true, ..Root::default() });
                    rows.distrusts(&mut state, replica, &error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(rows)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn distrusts(&self, state: &mut State, replica: ReplicaId, why: &str) {
        state.distrusted.entry(replica).or_insert_with(|| {
            state.news.push((replica, why.to_owned()));
            why.to_owned()
        });
        self.distrusts.store(true, Ordering::Release);
    }

    fn begin(
        &self,
        replica: ReplicaId,
        missing: Missing,
        made: &mut impl FnMut(ReplicaId, u64),
    ) -> Result<Root, StoreError> {
        let damaged = |what: &str| StoreError::damaged(format!("rows of replica {replica}"), what);
        let applied = self.inner.applied(replica)?.unwrap_or_default();
        let root = self.inner.get(replica, &root_key())?.map(|row| self.key.open(replica, &row)).transpose()?;
        let root = match (root, missing) {
            (Some(root), _) if root.index == applied.index => root,
            (Some(_) | None, Missing::Make) => return self.make(replica, &applied, made),
            (Some(_), Missing::Damaged) => return Err(damaged("their sum is of another position")),
            (None, Missing::Damaged) => return Err(damaged("their sum is not there")),
        };
        if root.broken {
            return Err(damaged("one could not be read when it was changed"));
        }
        if self.mailboxes(replica)? != root.mailboxes {
            return Err(damaged("the sums of its mailboxes are not those that were applied"));
        }
        if self.loaded(replica, MailboxId::PARTITION)? != root.partition.loaded {
            return Err(damaged("those of the partition itself are not those that were applied"));
        }
        Ok(root)
    }

    /// Makes the sums of all rows as they are.
    fn make(
        &self,
        replica: ReplicaId,
        applied: &Applied,
        made: &mut impl FnMut(ReplicaId, u64),
    ) -> Result<Root, StoreError> {
        let Some(view) = self.inner.view(replica)? else { return Ok(Root::default()) };
        let mut old = RowBatch::default();
        self.each(replica, MailboxId::PARTITION, Table::Sums, |key, _| {
            old.delete(RowKey::partition(Table::Sums, key));
            Ok(())
        })?;
        self.inner.write_sums(replica, &old)?;
        let mut all = Summing::default();
        let mut after: Option<RowKey> = None;
        let mut count = 0;
        loop {
            let page = view.rows(after.as_ref(), PAGE_ROWS)?;
            page.iter().for_each(|(key, value)| all.row(&self.key, key, value));
            count += page.len() as u64;
            match page.into_iter().next_back() {
                Some((last, _)) => after = Some(last),
                None => break,
            }
        }
        let (root, rows) = all.finish(&self.key, replica, applied.index);
        for part in rows.chunks(MADE_ROWS) {
            self.inner.write_sums(replica, &RowBatch { puts: part.to_vec(), deletes: Vec::new() })?;
        }
        made(replica, count);
        Ok(root)
    }

    /// The sum of the rows with mailboxes' sums.
    fn mailboxes(&self, replica: ReplicaId) -> Result<Sum, StoreError> {
        let mut sum = Sum::default();
        self.each(replica, MailboxId::PARTITION, Table::Sums, |key, value| {
            if key.is_empty() {
                return Ok(());
            }
            let mailbox = key.try_into().map(MailboxId);
            let mailbox = mailbox.map_err(|_| StoreError::damaged("a row of sums", "its key has a wrong length"))?;
            sum.toggle(&self.key.mailbox(mailbox, &Sums::decode(mailbox, value)?));
            Ok(())
        })?;
        Ok(sum)
    }

    /// The sum of those rows of a mailbox, or of the partition, that are read at a load.
    fn loaded(&self, replica: ReplicaId, mailbox: MailboxId) -> Result<Sum, StoreError> {
        let mut sum = Sum::default();
        for table in Table::ALL.into_iter().filter(|t| Part::of(t.number()) == Part::Loaded) {
            if is_own(&RowKey::partition(table, [])) {
                continue;
            }
            self.each(replica, mailbox, table, |key, value| {
                sum.toggle(&self.key.row(&RowKey::new(mailbox, table, key), value));
                Ok(())
            })?;
        }
        Ok(sum)
    }

    fn each(
        &self,
        replica: ReplicaId,
        mailbox: MailboxId,
        table: Table,
        mut row: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut from = Vec::new();
        loop {
            let page = self.inner.scan(replica, mailbox, table, &[], &from, PAGE_ROWS)?;
            page.iter().try_for_each(|(key, value)| row(key, value))?;
            match page.into_iter().next_back() {
                Some((mut last, _)) => {
                    last.push(0);
                    from = last;
                }
                None => return Ok(()),
            }
        }
    }

    /// A mailbox's own sums as its row has them.
    fn sums(&self, replica: ReplicaId, mailbox: MailboxId, state: &State) -> Result<Sums, StoreError> {
        if mailbox == MailboxId::PARTITION {
            return Ok(state.roots.get(&replica).map(|root| root.partition).unwrap_or_default());
        }
        if let Some((sums, _)) = state.recent.get(&(replica, mailbox)).and_then(|recent| recent.sums) {
            return Ok(sums);
        }
        let row = self.inner.get(replica, &sums_key(mailbox))?;
        row.map_or(Ok(Sums::default()), |row| Sums::decode(mailbox, &row))
    }

    /// The hash of each of these rows as it is before the first `puts` of them are put; zero for one that is not there.
    fn hashes(&self, replica: ReplicaId, keys: &[&RowKey], puts: usize, state: &State) -> Result<Vec<Sum>, StoreError> {
        let mut out = vec![Sum::default(); keys.len()];
        let mut unknown: Vec<(usize, &RowKey)> = Vec::new();
        for (at, key) in keys.iter().copied().enumerate() {
            if at < puts && Table::from_number(key.table).is_some_and(Table::is_written_once) {
                continue;
            }
            let known = is_remembered(key).then(|| state.recent.get(&(replica, key.mailbox))).flatten();
            match known.and_then(|recent| recent.hashes.get(key)) {
                Some(hash) => out[at] = *hash,
                None => unknown.push((at, key)),
            }
        }
        if unknown.is_empty() {
            return Ok(out);
        }
        let wanted: Vec<&RowKey> = unknown.iter().map(|(_, key)| *key).collect();
        for ((at, key), value) in unknown.into_iter().zip(self.inner.get_many(replica, &wanted)?) {
            if let Some(value) = value {
                out[at] = self.key.row(key, &value);
            }
        }
        Ok(out)
    }

    /// What a batch changes of the sums, as rows to be written with it; the root after it.
    fn changed(&self, batch: &ReplicaBatch, state: &mut State) -> Result<(Root, RowBatch), StoreError> {
        let ReplicaBatch { replica, batch: rows, applied } = batch;
        let mut own = RowBatch::default();
        let mut root = state.roots.get(replica).cloned().unwrap_or_default();
        root.index = applied.index;
        let mut changes: BTreeMap<MailboxId, Sums> = BTreeMap::new();
        let keys: Vec<&RowKey> = rows.puts.iter().map(|(key, _)| key).chain(&rows.deletes).collect();
        if keys.iter().any(|key| is_own(key)) {
            return Err(StoreError::damaged("an entry", "it changes what only the store itself writes"));
        }
        let old = match self.hashes(*replica, &keys, rows.puts.len(), state) {
            _ if root.broken => Vec::new(),
            Ok(old) => old,
            Err(error @ StoreError::Damaged { .. }) => {
                root.broken = true;
                self.distrusts(state, *replica, &format!("{error}; it was to be changed"));
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let new = rows.puts.iter().map(|(key, value)| self.key.row(key, value));
        let new = new.chain(rows.deletes.iter().map(|_| Sum::default()));
        for ((key, old), new) in keys.into_iter().zip(old).zip(new) {
            let mut change = Sums::default();
            [old, new].iter().for_each(|hash| change.toggle(key.table, hash));
            if is_remembered(key) {
                let hashes = &mut state.recent.entry((*replica, key.mailbox)).or_default().hashes;
                match hashes.get_mut(key) {
                    _ if new == Sum::default() => drop(hashes.remove(key)),
                    Some(hash) => *hash = new,
                    None => {
                        hashes.insert(key.clone(), new);
                        state.recent_rows += 1;
                    }
                }
            }
            if let Some(scrubbing) = state.scrubbing.as_mut().filter(|s| s.replica == *replica) {
                scrubbing.changed(key, &change);
            }
            changes.entry(key.mailbox).or_default().add(&change);
        }
        for (mailbox, change) in changes {
            if mailbox == MailboxId::PARTITION {
                root.partition.add(&change);
                continue;
            }
            let before = match self.sums(*replica, mailbox, state) {
                Ok(before) => before,
                Err(error @ StoreError::Damaged { .. }) => {
                    root.broken = true;
                    self.distrusts(state, *replica, &format!("{error}; it was to be changed"));
                    break;
                }
                Err(error) => return Err(error),
            };
            let mut after = before;
            after.add(&change);
            let hash = self.key.mailbox(mailbox, &after);
            let known = state.recent.entry((*replica, mailbox)).or_default().sums.replace((after, hash));
            root.mailboxes.toggle(&known.map_or_else(|| self.key.mailbox(mailbox, &before), |(_, hash)| hash));
            root.mailboxes.toggle(&hash);
            if after == Sums::default() {
                own.delete(sums_key(mailbox));
            } else {
                own.put(sums_key(mailbox), after.encode());
            }
        }
        own.put(root_key(), self.key.seal(*replica, &root));
        Ok((root, own))
    }
}

impl Rows for SummedRows {
    fn get(&self, replica: ReplicaId, key: &RowKey) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(replica, key)
    }

    fn scan(
        &self,
        replica: ReplicaId,
        mailbox: MailboxId,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<ScannedRows, StoreError> {
        self.inner.scan(replica, mailbox, table, prefix, from, limit)
    }

    fn write(&self, batches: &[ReplicaBatch]) -> Result<(), StoreError> {
        // A second one would begin with the sums, and with rows, as they were before the first.
        let replicas: BTreeSet<ReplicaId> = batches.iter().map(|batch| batch.replica).collect();
        assert_eq!(replicas.len(), batches.len(), "a write has one batch for each replica");
        // Held until the rows are written: whoever scrubs sees both or neither.
        let mut state = self.state();
        if state.recent.len() > RECENT_MAX_MAILBOXES || state.recent_rows > RECENT_MAX_ROWS {
            state.recent.clear();
            state.recent_rows = 0;
        }
        let mut roots = Vec::with_capacity(batches.len());
        let mut sums = Vec::with_capacity(batches.len());
        for batch in batches {
            let (root, own) = self.changed(batch, &mut state)?;
            roots.push((batch.replica, root));
            sums.push(own);
        }
        self.inner.write_with_sums(batches, &sums)?;
        state.roots.extend(roots);
        Ok(())
    }

    fn applied(&self, replica: ReplicaId) -> Result<Option<Applied>, StoreError> {
        self.inner.applied(replica)
    }

    fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError> {
        self.inner.replicas()
    }

    fn flush(&self) -> Result<Vec<(ReplicaId, Index)>, StoreError> {
        self.inner.flush()
    }

    fn flushed(&self) -> Result<Vec<(ReplicaId, Index)>, StoreError> {
        self.inner.flushed()
    }

    fn view(&self, replica: ReplicaId) -> Result<Option<Box<dyn RowsView>>, StoreError> {
        self.check_trusted(replica)?;
        let Some(view) = self.inner.view(replica)? else { return Ok(None) };
        Ok(Some(Box::new(SummedView::new(view, replica, self.key.clone()))))
    }

    fn replace(
        &self,
        replica: ReplicaId,
        applied: &Applied,
        rows: &mut dyn Iterator<Item = Result<(RowKey, Bytes), StoreError>>,
    ) -> Result<(), StoreError> {
        let mut summing = Some(Summing::default());
        let mut root = None;
        let mut own = Vec::new().into_iter();
        let mut with_sums = std::iter::from_fn(|| -> Option<Result<(RowKey, Bytes), StoreError>> {
            for row in &mut *rows {
                match row {
                    Ok((key, _)) if is_own(&key) => {}
                    Ok((key, value)) => {
                        if let Some(summing) = summing.as_mut() {
                            summing.row(&self.key, &key, &value);
                        }
                        return Some(Ok((key, value)));
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
            if let Some(summing) = summing.take() {
                let (made, rows) = summing.finish(&self.key, replica, applied.index);
                root = Some(made);
                own = rows.into_iter();
            }
            own.next().map(Ok)
        });
        self.inner.replace(replica, applied, &mut with_sums)?;
        let mut state = self.state();
        state.forget(replica);
        state.roots.extend(root.map(|root| (replica, root)));
        Ok(())
    }

    fn remove(&self, replica: ReplicaId) -> Result<(), StoreError> {
        self.inner.remove(replica)?;
        self.state().forget(replica);
        Ok(())
    }

    fn size_bytes(&self) -> Result<u64, StoreError> {
        self.inner.size_bytes()
    }

    fn proof(&self) -> Option<&dyn RowsProof> {
        Some(self)
    }
}

impl RowsProof for SummedRows {
    fn sum(&self, replica: ReplicaId) -> Option<(Index, [u8; 32])> {
        let state = self.state();
        let root = state.roots.get(&replica).filter(|root| !root.broken)?;
        Some((root.index, self.key.all(root).bytes()))
    }

    fn check_mailbox(&self, replica: ReplicaId, mailbox: MailboxId) -> Result<(), StoreError> {
        self.check_trusted(replica)?;
        for _ in 0..READ_AGAIN_MAX {
            let before = self.inner.applied(replica)?.map(|applied| applied.index);
            let expected = self.sums(replica, mailbox, &self.state())?.loaded;
            if self.loaded(replica, mailbox)? == expected {
                return Ok(());
            }
            if self.inner.applied(replica)?.map(|applied| applied.index) == before {
                break;
            }
        }
        // Something is written all the time: a view tells whether that is all.
        let Some(view) = self.inner.view(replica)? else { return Ok(()) };
        view::check_mailbox(view.as_ref(), &self.key, replica, mailbox)
    }

    fn check_trusted(&self, replica: ReplicaId) -> Result<(), StoreError> {
        if !self.distrusts.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.state().distrusted.get(&replica) {
            Some(why) => Err(StoreError::damaged(format!("rows of replica {replica}"), why)),
            None => Ok(()),
        }
    }

    fn distrust(&self, replica: ReplicaId, why: &str) {
        self.distrusts(&mut self.state(), replica, why);
    }

    fn take_news(&self) -> Vec<(ReplicaId, String)> {
        std::mem::take(&mut self.state().news)
    }

    fn scrub(&self, begin: Option<(ReplicaId, MailboxId)>, bytes: u64) -> Result<Scrubbed, StoreError> {
        self.scrub_on(begin, bytes)
    }
}

/// Whether a row is written again and again, or deleted soon after it was written.
fn is_remembered(key: &RowKey) -> bool {
    const TABLES: [u8; 3] = [Table::Counters as u8, Table::Folders as u8, Table::Repeats as u8];
    key.mailbox != MailboxId::PARTITION && TABLES.contains(&key.table)
}

/// All sums of a replica in the making.
#[derive(Default)]
struct Summing {
    mailboxes: BTreeMap<MailboxId, Sums>,
}

impl Summing {
    fn row(&mut self, key: &SumKey, row: &RowKey, value: &[u8]) {
        if !is_own(row) {
            self.mailboxes.entry(row.mailbox).or_default().toggle(row.table, &key.row(row, value));
        }
    }

    /// The root, and the rows of all sums.
    fn finish(mut self, key: &SumKey, replica: ReplicaId, index: Index) -> (Root, Vec<(RowKey, Bytes)>) {
        let partition = self.mailboxes.remove(&MailboxId::PARTITION).unwrap_or_default();
        let mut root = Root { index, partition, ..Root::default() };
        let mut rows = Vec::with_capacity(self.mailboxes.len() + 1);
        for (mailbox, sums) in self.mailboxes {
            root.mailboxes.toggle(&key.mailbox(mailbox, &sums));
            rows.push((sums_key(mailbox), Bytes::from(sums.encode())));
        }
        rows.push((root_key(), Bytes::from(key.seal(replica, &root))));
        (root, rows)
    }
}

#[cfg(test)]
#[path = "summed/tests.rs"]
mod tests;
