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

    /// Takes so many bytes past the bound, unless that is passed already.
    fn try_take_beyond(&self, bytes: usize) -> bool {
        let max = self.max();
        let taken = |used: usize| used.checked_add(bytes).filter(|_| used <= max);
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

/// Memory of things that grow while they are in use, past any bound. However large one of them is, it counts for half of what
/// there is where others ask for room: no one alone keeps all others out.
#[derive(Debug)]
pub struct GrowingShare {
    taken: Share,
    counted: AtomicUsize,
}

/// What one thing takes of it, until it is dropped.
#[derive(Debug)]
pub struct OfOne {
    of: Arc<GrowingShare>,
    taken: AtomicUsize,
    counted: AtomicUsize,
}

impl GrowingShare {
    /// So many bytes, none of them taken.
    pub fn new(max_bytes: usize) -> Arc<Self> {
        let taken = Share { used: AtomicUsize::new(0), max: AtomicUsize::new(max_bytes) };
        Arc::new(GrowingShare { taken, counted: AtomicUsize::new(0) })
    }

    /// So many bytes from now on; what is taken stays taken.
    pub fn resize(&self, max_bytes: usize) {
        self.taken.resize(max_bytes);
    }

    /// Bytes that are taken.
    pub fn used(&self) -> usize {
        self.taken.used()
    }

    /// Bytes that there are.
    pub fn max(&self) -> usize {
        self.taken.max()
    }

    /// Whether there is no room for others.
    pub fn is_full(&self) -> bool {
        self.counted.load(Ordering::Relaxed) >= self.max()
    }

    /// Of one more, which takes nothing yet.
    pub fn of_one(self: &Arc<Self>) -> OfOne {
        OfOne { of: Arc::clone(self), taken: AtomicUsize::new(0), counted: AtomicUsize::new(0) }
    }
}

impl OfOne {
    /// It takes so many bytes now, whatever there is.
    pub fn set(&self, bytes: usize) {
        let of = &self.of;
        of.taken.take(bytes);
        of.taken.give_back(self.taken.swap(bytes, Ordering::Relaxed));
        let counted = bytes.min(of.max().div_ceil(2));
        of.counted.fetch_add(counted, Ordering::Relaxed);
        of.counted.fetch_sub(self.counted.swap(counted, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// It takes so many bytes now, if all together take no more than there is.
    pub fn try_set(&self, bytes: usize) -> bool {
        let before = self.taken.load(Ordering::Relaxed);
        self.set(bytes);
        let fits = bytes <= before || self.of.used() <= self.of.max();
        if !fits {
            self.set(before);
        }
        fits
    }

    /// What all take together.
    pub fn share(&self) -> &GrowingShare {
        &self.of
    }
}

impl Drop for OfOne {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// A share of a node's memory, of which each account gets only a part; clones are the same. One thing that is larger than
/// that part, such as what a very large folder is opened by, gets what it needs while its account has nothing else that large.
/// All such things together leave others a quarter.
#[derive(Clone)]
pub struct SharedByAccounts {
    node: Arc<Share>,
    /// Of that, for things that are larger than an account's part.
    large: Arc<Share>,
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

/// What something was taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// The account's part.
    InPart,
    /// What there is for things that are larger than that.
    Large,
}

/// The shares of which whoever works for an account takes together.
#[derive(Clone, Debug)]
pub struct AccountShare {
    account: Arc<Share>,
    node: Arc<Share>,
    large: Arc<Share>,
}

impl SharedByAccounts {
    /// So many bytes, and for each account one part of so many.
    pub fn new(max_bytes: usize, parts: usize) -> Self {
        let large = Share::new(large_bytes(max_bytes));
        SharedByAccounts { node: Share::new(max_bytes), large, parts: parts.max(1), accounts: Arc::default() }
    }

    /// So many bytes from now on.
    pub fn resize(&self, max_bytes: usize) {
        self.node.resize(max_bytes);
        self.large.resize(large_bytes(max_bytes));
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
        AccountShare { account, node: Arc::clone(&self.node), large: Arc::clone(&self.large) }
    }

    /// That of all accounts together.
    pub fn node(&self) -> &Share {
        &self.node
    }
}

/// For things that are larger than an account's part.
fn large_bytes(max_bytes: usize) -> usize {
    max_bytes / 4 * 3
}

impl AccountShare {
    /// How many bytes the account may have of it.
    pub fn part(&self) -> usize {
        self.account.max()
    }

    /// Whether the account has so many bytes left of its part.
    pub fn has(&self, bytes: usize) -> bool {
        self.account.used().checked_add(bytes).is_some_and(|used| used <= self.account.max())
    }

    /// Takes so many bytes for one thing, which may be larger than the account's part unless the account has such a thing
    /// already. None if there is no room.
    pub fn try_take_one(&self, bytes: usize) -> Option<Room> {
        if self.try_take(bytes) {
            return Some(Room::InPart);
        }
        if bytes <= self.account.max() || !self.account.try_take_beyond(bytes) {
            return None;
        }
        if self.large.try_take(bytes) {
            if self.node.try_take(bytes) {
                return Some(Room::Large);
            }
            self.large.give_back(bytes);
        }
        self.account.give_back(bytes);
        None
    }

    /// Gives back what was taken for one thing.
    pub fn give_one_back(&self, room: Room, bytes: usize) {
        self.give_back(bytes);
        match room {
            Room::InPart => {}
            Room::Large => self.large.give_back(bytes),
        }
    }

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
    fn one_alone_keeps_nobody_out_however_large_and_two_do() {
        let share = GrowingShare::new(101);
        let (one, other, third) = (share.of_one(), share.of_one(), share.of_one());
        one.set(500);
        assert!(share.used() == 500 && !share.is_full());
        other.set(49);
        assert!(!share.is_full(), "51 and 49 of 101");
        third.set(1);
        assert!(share.is_full());
        assert!(!third.try_set(2) && other.try_set(48), "nothing is reserved past the bound, and less is always taken");
        assert_eq!(share.used(), 549);
        drop(one);
        assert!(third.try_set(53) && !third.try_set(54) && share.used() == 101);
        drop((other, third));
        assert!(share.used() == 0 && !share.is_full() && share.counted.load(Ordering::Relaxed) == 0);
    }

    #[test]
    fn one_large_thing_of_an_account_gets_what_it_needs_and_all_such_leave_others_a_quarter() {
        let shared = SharedByAccounts::new(100, 10);
        let of = |n: u8| shared.of(MailboxId([n; 16]));
        let (first, second, third) = (of(1), of(2), of(3));
        assert_eq!(first.try_take_one(10), Some(Room::InPart));
        assert_eq!(first.try_take_one(1), None, "its part is taken, and this is no larger than that");
        assert_eq!(first.try_take_one(40), Some(Room::Large));
        assert_eq!(first.try_take_one(11), None, "one such thing at a time");
        assert_eq!((second.try_take_one(36), second.try_take_one(35)), (None, Some(Room::Large)));
        assert_eq!((third.try_take_one(11), third.try_take_one(10)), (None, Some(Room::InPart)));
        assert_eq!((first.part(), shared.node().used()), (10, 95));
        first.give_one_back(Room::Large, 40);
        first.give_one_back(Room::InPart, 10);
        assert_eq!(third.try_take_one(40), Some(Room::Large));
        [(&second, 35, Room::Large), (&third, 40, Room::Large), (&third, 10, Room::InPart)]
            .into_iter()
            .for_each(|(of, bytes, room)| of.give_one_back(room, bytes));
        assert_eq!((shared.node().used(), shared.large.used(), first.account.used()), (0, 0, 0));
        shared.resize(1_000);
        assert_eq!((first.part(), first.try_take_one(700)), (100, Some(Room::Large)));
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
