//! Reading everything in time, a little at once, while rows change.

use std::ops::Bound;

use super::view::{behind, not_applied};
use super::{State, SummedRows};
use crate::error::StoreError;
use crate::ids::{MailboxId, ReplicaId};
use crate::row::{RowKey, Table};
use crate::rows::{RowsView, Scrubbed};
use crate::sums::{Sums, is_own};

/// Rows read at once: so many chunks are 4 MiB.
const STEP_ROWS: usize = 16;

/// A mailbox that is being read.
pub(super) struct Scrubbing {
    pub(super) replica: ReplicaId,
    mailbox: MailboxId,
    /// The last row that is in the sums.
    upto: RowKey,
    /// Of the rows up to there, as they are now.
    sums: Sums,
    /// What has changed behind that since the view was taken that is being read.
    meanwhile: Vec<(RowKey, Sums)>,
}

impl Scrubbing {
    /// A row changes.
    pub(super) fn changed(&mut self, key: &RowKey, change: &Sums) {
        if key.mailbox != self.mailbox {
            return;
        }
        if *key <= self.upto {
            self.sums.add(change);
        } else {
            self.meanwhile.push((key.clone(), *change));
        }
    }
}

impl SummedRows {
    pub(super) fn scrub_on(&self, begin: Option<(ReplicaId, MailboxId)>, bytes: u64) -> Result<Scrubbed, StoreError> {
        let mut done = Scrubbed { next: None, rows: 0, bytes: 0 };
        let going_on = self.state().scrubbing.as_ref().map(|s| (s.replica, s.mailbox));
        let mut next = match begin.or(going_on) {
            Some(place) if going_on == Some(place) => Some(place),
            place => {
                let (replica, mailbox) = place.unwrap_or((ReplicaId(0), MailboxId::PARTITION));
                self.next_mailbox(replica, Bound::Included(mailbox))?
            }
        };
        while let Some((replica, mailbox)) = next {
            if done.bytes >= bytes {
                break;
            }
            let ended = match self.step(replica, mailbox, &mut done) {
                Ok(ended) => ended,
                Err(error @ StoreError::Damaged { .. }) => {
                    let mut state = self.state();
                    state.scrubbing = None;
                    self.finds(&mut state, replica, mailbox, &error);
                    true
                }
                Err(error) => return Err(error),
            };
            if ended {
                next = self.next_mailbox(replica, Bound::Excluded(mailbox))?;
            }
        }
        done.next = next;
        Ok(done)
    }

    /// The first mailbox of this replica, or of one behind it, that has rows or sums.
    fn next_mailbox(
        &self,
        replica: ReplicaId,
        from: Bound<MailboxId>,
    ) -> Result<Option<(ReplicaId, MailboxId)>, StoreError> {
        let mut from = from;
        for replica in self.inner.replicas()?.into_iter().filter(|r| *r >= replica) {
            let start = match from {
                Bound::Included(mailbox) => mailbox,
                Bound::Excluded(mailbox) => match after(mailbox) {
                    Some(mailbox) => mailbox,
                    None => continue,
                },
                Bound::Unbounded => MailboxId::PARTITION,
            };
            from = Bound::Unbounded;
            if start == MailboxId::PARTITION {
                return Ok(Some((replica, start)));
            }
            let found = self.first_with_rows_or_sums(replica, start);
            match found {
                Ok(None) => {}
                Ok(Some(mailbox)) => return Ok(Some((replica, mailbox))),
                Err(error @ StoreError::Damaged { .. }) => {
                    // What is behind can't be found: on with the next replica.
                    self.finds(&mut self.state(), replica, MailboxId::PARTITION, &error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn first_with_rows_or_sums(&self, replica: ReplicaId, start: MailboxId) -> Result<Option<MailboxId>, StoreError> {
        let sums = self.inner.scan(replica, MailboxId::PARTITION, Table::Sums, &[], &start.0, 1)?;
        let with_sums = sums.into_iter().next().and_then(|(key, _)| key.try_into().ok()).map(MailboxId);
        let Some(view) = self.inner.view(replica)? else { return Ok(None) };
        let row = view.rows(Some(&RowKey { mailbox: start, table: 0, key: Vec::new() }), 1)?;
        let with_rows = row.into_iter().next().map(|(key, _)| key.mailbox);
        Ok(with_sums.into_iter().chain(with_rows).min())
    }

    /// Reads a page of a mailbox. Whether that was its last.
    fn step(&self, replica: ReplicaId, mailbox: MailboxId, done: &mut Scrubbed) -> Result<bool, StoreError> {
        let (view, from) = {
            let mut state = self.state();
            // No write is half done here: what is changed from now on is heard of.
            let Some(view) = self.inner.view(replica)? else { return Ok(true) };
            if state.roots.get(&replica).is_none_or(|root| root.broken) {
                return Ok(true);
            }
            let begun = state.scrubbing.take_if(|s| s.replica == replica && s.mailbox == mailbox);
            let begun = begun.unwrap_or_else(|| Scrubbing {
                replica,
                mailbox,
                upto: RowKey { mailbox, table: 0, key: Vec::new() },
                sums: Sums::default(),
                meanwhile: Vec::new(),
            });
            let scrubbing = state.scrubbing.insert(begun);
            scrubbing.meanwhile.clear();
            (view, scrubbing.upto.clone())
        };
        let (sums, upto, ends) = self.read(view.as_ref(), mailbox, from, done)?;
        drop(view);
        let mut state = self.state();
        // None if the replica was replaced or removed meanwhile: its next mailbox then.
        let Some(scrubbing) = state.scrubbing.as_mut() else { return Ok(true) };
        scrubbing.sums.add(&sums);
        for (key, change) in std::mem::take(&mut scrubbing.meanwhile) {
            if ends || key <= upto {
                scrubbing.sums.add(&change);
            }
        }
        scrubbing.upto = upto;
        if !ends {
            return Ok(false);
        }
        let found = scrubbing.sums;
        state.scrubbing = None;
        if found == self.sums(replica, mailbox, &state)? { Ok(true) } else { Err(not_applied(replica, mailbox)) }
    }

    /// A mailbox is damaged; if it is the partition itself, all of the replica is.
    fn finds(&self, state: &mut State, replica: ReplicaId, mailbox: MailboxId, error: &StoreError) {
        if mailbox == MailboxId::PARTITION {
            return self.distrusts(state, replica, &error.to_string());
        }
        state.news.push((replica, error.to_string()));
    }

    /// A page of a mailbox's rows behind a key: their sums, the last of them, and whether there are no more.
    fn read(
        &self,
        view: &dyn RowsView,
        mailbox: MailboxId,
        from: RowKey,
        done: &mut Scrubbed,
    ) -> Result<(Sums, RowKey, bool), StoreError> {
        let mut sums = Sums::default();
        let page = view.rows(Some(&from), STEP_ROWS)?;
        let mut ends = page.len() < STEP_ROWS;
        let mut upto = from;
        for (key, value) in page {
            if key.mailbox != mailbox {
                ends = true;
                break;
            }
            if is_own(&key) {
                upto = behind(mailbox, key.table);
                continue;
            }
            done.rows += 1;
            done.bytes += (key.encode().len() + value.len()) as u64;
            sums.toggle(key.table, &self.key.row(&key, &value));
            upto = key;
        }
        Ok((sums, upto, ends))
    }
}

fn after(mailbox: MailboxId) -> Option<MailboxId> {
    u128::from_be_bytes(mailbox.0).checked_add(1).map(|next| MailboxId(next.to_be_bytes()))
}
