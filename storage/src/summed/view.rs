//! A view without the sums' own rows, which fails at its end if what was read is not what was applied.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::{PAGE_ROWS, Summing};
use crate::error::StoreError;
use crate::ids::{MailboxId, ReplicaId};
use crate::row::{ROW_KEY_MAX_BYTES, RowKey, Table};
use crate::rows::{Applied, RowsView};
use crate::sums::{SumKey, Sums, is_own, root_key, sums_key};

pub(super) struct SummedView {
    inner: Box<dyn RowsView>,
    replica: ReplicaId,
    key: SumKey,
    reading: Mutex<Reading>,
}

/// What was read of the view, as long as nothing was left out.
#[derive(Default)]
struct Reading {
    upto: Option<RowKey>,
    all: Option<Summing>,
}

impl SummedView {
    pub(super) fn new(inner: Box<dyn RowsView>, replica: ReplicaId, key: SumKey) -> Self {
        SummedView { inner, replica, key, reading: Mutex::default() }
    }

    /// Whether this is the sum that the view itself has.
    fn judge(&self, all: Summing) -> Result<(), StoreError> {
        let damaged = |what: &str| StoreError::damaged(format!("rows of replica {}", self.replica), what);
        let row = row_of(self.inner.as_ref(), &root_key())?.ok_or_else(|| damaged("their sum is not there"))?;
        let root = self.key.open(self.replica, &row)?;
        let (found, _) = all.finish(&self.key, self.replica, root.index);
        if found != root || root.index != self.inner.applied().index {
            return Err(damaged("they are not those that were applied"));
        }
        Ok(())
    }
}

impl RowsView for SummedView {
    fn applied(&self) -> &Applied {
        self.inner.applied()
    }

    fn rows(&self, after: Option<&RowKey>, limit: usize) -> Result<Vec<(RowKey, Bytes)>, StoreError> {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        match after {
            None => *reading = Reading { upto: None, all: Some(Summing::default()) },
            Some(_) if reading.upto.as_ref() == after => {}
            Some(_) => reading.all = None,
        }
        let mut from = after.cloned();
        loop {
            let mut page = self.inner.rows(from.as_ref(), limit)?;
            let ends = page.len() < limit;
            let last = page.last().map(|(key, _)| key.clone());
            page.retain(|(key, _)| !is_own(key));
            if let Some(all) = reading.all.as_mut() {
                page.iter().for_each(|(key, value)| all.row(&self.key, key, value));
            }
            if ends && let Some(all) = reading.all.take() {
                self.judge(all)?;
            }
            if !page.is_empty() || ends {
                reading.upto = page.last().map(|(key, _)| key.clone());
                return Ok(page);
            }
            // Nothing but sums: on behind them.
            from = last.map(|_| behind(MailboxId::PARTITION, Table::Sums.number()));
        }
    }
}

/// A key that no row of a table has, and behind all that it can have.
pub(super) fn behind(mailbox: MailboxId, table: u8) -> RowKey {
    RowKey { mailbox, table, key: vec![0xff; ROW_KEY_MAX_BYTES + 1] }
}

/// Checks the rows that a mailbox is loaded from in a view.
pub(super) fn check_mailbox(
    view: &dyn RowsView,
    key: &SumKey,
    replica: ReplicaId,
    mailbox: MailboxId,
) -> Result<(), StoreError> {
    let row = row_of(view, &sums_key(mailbox))?;
    let expected = row.map_or(Ok(Sums::default()), |row| Sums::decode(mailbox, &row))?;
    let mut found = Sums::default();
    // Nothing of the mailbox comes before it.
    let mut after = RowKey { mailbox, table: 0, key: Vec::new() };
    'pages: loop {
        let page = view.rows(Some(&after), PAGE_ROWS)?;
        let Some((last, _)) = page.last() else { break };
        after = last.clone();
        for (row, value) in &page {
            if row.mailbox != mailbox {
                break 'pages;
            }
            found.toggle(row.table, &key.row(row, value));
        }
    }
    if found.loaded == expected.loaded { Ok(()) } else { Err(not_applied(replica, mailbox)) }
}

/// What is said of a mailbox with other rows than were applied.
pub(super) fn not_applied(replica: ReplicaId, mailbox: MailboxId) -> StoreError {
    let place = match mailbox {
        MailboxId::PARTITION => format!("rows of replica {replica}"),
        _ => format!("rows of mailbox {mailbox} of replica {replica}"),
    };
    StoreError::damaged(place, "they are not those that were applied: one was put back, changed or deleted on the disk")
}

/// One row of a view.
fn row_of(view: &dyn RowsView, key: &RowKey) -> Result<Option<Bytes>, StoreError> {
    // The greatest key before it.
    let before = match key.key.split_last() {
        None => behind(key.mailbox, key.table.saturating_sub(1)),
        Some((last, head)) => {
            let mut before = head.to_vec();
            if let Some(less) = last.checked_sub(1) {
                before.push(less);
                before.resize(ROW_KEY_MAX_BYTES + 1, 0xff);
            }
            RowKey { mailbox: key.mailbox, table: key.table, key: before }
        }
    };
    let found = view.rows(Some(&before), 1)?.into_iter().next();
    Ok(found.filter(|(found, _)| found == key).map(|(_, value)| value))
}
