//! Memory: shares of what this node may take, counted in bytes by whoever takes of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use mailraft_storage::MailboxId;

/// Accounts that are remembered before those that nobody has any more are looked for.
const ACCOUNTS_MIN: usize = 1_000;

/// Bytes of which many may take, up to a bound.
#[derive(Debug)]
pub struct Share {
    used: AtomicUsize,
    max: AtomicUsize,
}

impl Share {
    /// So many bytes, none of them taken.
    pub fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Share { used: AtomicUsize::new(0), max: AtomicUsize::new(max_bytes) })
    }

    /// So many bytes from now on; what is taken stays taken.
    pub fn resize(&self, max_bytes: usize) {
        self.max.store(max_bytes, Ordering::Relaxed);
    }

    /// Takes so many bytes, if they are there.
    pub fn try_take(&self, bytes: usize) -> bool {
        let max = self.max();
        let taken = |used: usize| used.checked_add(bytes).filter(|used| *used <= max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    /// Takes so many bytes, also past the bound: nobody else gets any until they are given back.
    pub fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back what was taken.
    pub fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes that are taken.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that there are.
    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }
}

/// A share of a node's memory, of which each account gets only a part; clones are the same.
#[derive(Clone)]
pub struct SharedByAccounts {
    node: Arc<Share>,
    /// What part of it one account may take: one of so many.
    parts: usize,
    accounts: Arc<Mutex<Accounts>>,
}

#[derive(Default)]
struct Accounts {
    of: HashMap<MailboxId, Weak<Share>>,
    /// When there are so many, those that are nobody's are dropped.
    swept_at: usize,
}

/// The two of which whoever works for an account takes together.
#[derive(Clone, Debug)]
pub struct AccountShare {
    account: Arc<Share>,
    node: Arc<Share>,
}

impl SharedByAccounts {
    /// So many bytes, and for each account one part of so many.
    pub fn new(max_bytes: usize, parts: usize) -> Self {
        SharedByAccounts { node: Share::new(max_bytes), parts: parts.max(1), accounts: Arc::default() }
    }

    /// So many bytes from now on.
    pub fn resize(&self, max_bytes: usize) {
        self.node.resize(max_bytes);
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        for account in accounts.of.values().filter_map(Weak::upgrade) {
            account.resize(max_bytes / self.parts);
        }
    }

    /// That of an account.
    pub fn of(&self, mailbox: MailboxId) -> AccountShare {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if accounts.of.len() > accounts.swept_at.max(ACCOUNTS_MIN) {
            accounts.of.retain(|_, account| account.strong_count() > 0);
            accounts.swept_at = 2 * accounts.of.len();
        }
        let account = accounts.of.get(&mailbox).and_then(Weak::upgrade).unwrap_or_else(|| {
            let account = Share::new(self.node.max() / self.parts);
            accounts.of.insert(mailbox, Arc::downgrade(&account));
            account
        });
        AccountShare { account, node: Arc::clone(&self.node) }
    }

    /// That of all accounts together.
    pub fn node(&self) -> &Share {
        &self.node
    }
}

impl AccountShare {
    /// Takes so many bytes, if both the account and the node have them.
    pub fn try_take(&self, bytes: usize) -> bool {
        if !self.account.try_take(bytes) {
            return false;
        }
        let taken = self.node.try_take(bytes);
        if !taken {
            self.account.give_back(bytes);
        }
        taken
    }

    /// Takes so many bytes, also past the bounds.
    pub fn take(&self, bytes: usize) {
        self.account.take(bytes);
        self.node.take(bytes);
    }

    /// Gives back what was taken.
    pub fn give_back(&self, bytes: usize) {
        self.account.give_back(bytes);
        self.node.give_back(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_gets_its_part_and_all_together_no_more_than_there_is() {
        let shared = SharedByAccounts::new(100, 4);
        let of = |n: u8| shared.of(MailboxId([n; 16]));
        let (first, again, others) = (of(1), of(1), [of(2), of(3), of(4)]);
        assert!(first.try_take(20) && !again.try_take(6) && again.try_take(5));
        assert!(others.iter().all(|account| account.try_take(25)) && !of(5).try_take(1));
        others[0].give_back(25);
        assert!(of(5).try_take(1));
        first.take(50);
        assert_eq!((shared.node().used(), shared.node().max()), (126, 100));
        first.give_back(75);
        shared.resize(400);
        assert!(first.try_take(100) && !first.try_take(1));
    }

    #[test]
    fn accounts_that_nobody_has_any_more_are_forgotten() {
        let shared = SharedByAccounts::new(100, 4);
        for account in 0..(3 * ACCOUNTS_MIN as u64) {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&account.to_be_bytes());
            drop(shared.of(MailboxId(id)));
        }
        assert!(shared.accounts.lock().is_ok_and(|accounts| accounts.of.len() <= ACCOUNTS_MIN + 1));
    }
}
