//! A map that holds so much and no more, and of which parts that were counted apart become one in any order.
//!
//! What does not fit when parts are joined is what comes last in the order of the keys, and where that begins is remembered: from
//! there on nothing is kept any more. A shelf that was cut claims all that it may take of the one that it stands in. So what is
//! claimed only ever grows, whatever is joined first, and what is left in the end, and what was dropped, is the same in any order.

use std::collections::BTreeMap;

/// How much a shelf holds.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Its entries.
    pub entries: usize,
    /// All that it takes with what stands in it, in bytes.
    pub bytes: usize,
}

/// What takes memory beside itself.
pub trait Weighed {
    /// That, in bytes.
    fn heap_bytes(&self) -> usize;
}

/// What stands on a shelf under a key.
pub trait Counted: Default {
    /// What it claims beside its own size, in bytes.
    fn claimed_bytes(&self) -> usize;
    /// How much is counted in it.
    fn total(&self) -> u64;
    /// Takes in what was counted apart.
    fn join(&mut self, other: Self);
}

/// What the map takes for an entry beside its key and its value, in bytes.
const NODE_BYTES: usize = 64;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shelf<K, V> {
    kept: BTreeMap<K, V>,
    /// From this key on nothing is kept.
    cut: Option<K>,
    dropped: u64,
    /// What all entries claim.
    bytes: usize,
}

impl<K, V> Default for Shelf<K, V> {
    fn default() -> Self {
        Shelf { kept: BTreeMap::new(), cut: None, dropped: 0, bytes: 0 }
    }
}

impl<K: Ord + Clone + Weighed, V: Counted> Shelf<K, V> {
    /// What was written down: at most what the limit allows of it is kept, and a key that comes twice is one.
    pub fn of(entries: impl IntoIterator<Item = (K, V)>, cut: Option<K>, dropped: u64, limit: Limit) -> Self {
        let mut shelf = Shelf { kept: BTreeMap::new(), cut, dropped, bytes: 0 };
        shelf.take(entries);
        shelf.settle(limit);
        shelf
    }

    /// Its entries in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.kept.iter()
    }

    /// What stands under a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.kept.get(key)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// From which key on nothing is kept.
    pub fn cut(&self) -> Option<&K> {
        self.cut.as_ref()
    }

    /// How much was counted that stands in no entry.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// All that was counted.
    pub fn total(&self) -> u64 {
        self.kept.values().fold(self.dropped, |sum, value| sum.saturating_add(value.total()))
    }

    /// What it claims of the shelf that it stands in, in bytes.
    pub fn claimed_bytes(&self, limit: Limit) -> usize {
        if self.cut.is_some() { limit.bytes } else { self.bytes }
    }

    /// Has something counted under a key, by a function that is told how many bytes it may add. One that is new has to fit here,
    /// and into the `room` that the shelves around this one have, in bytes: else it is counted as dropped.
    pub fn count(&mut self, key: K, room: usize, limit: Limit, count: impl FnOnce(&mut V, usize)) {
        let own_room = limit.bytes.saturating_sub(self.bytes);
        // One that was cut has claimed its room already.
        let mut left = if self.cut.is_some() { own_room } else { own_room.min(room) };
        if !self.kept.contains_key(&key) {
            let bytes = entry_bytes::<K, V>(&key);
            let is_beyond = self.cut.as_ref().is_some_and(|cut| key >= *cut);
            if is_beyond || self.kept.len() >= limit.entries || bytes > left {
                self.dropped = self.dropped.saturating_add(1);
                return;
            }
            left -= bytes;
            self.bytes += bytes;
        }
        let value = self.kept.entry(key).or_default();
        let before = value.claimed_bytes();
        count(value, left);
        self.bytes += value.claimed_bytes() - before;
    }

    /// Takes in what was counted apart.
    pub fn join(&mut self, other: Self, limit: Limit) {
        self.dropped = self.dropped.saturating_add(other.dropped);
        self.cut = match (self.cut.take(), other.cut) {
            (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
            (ours, theirs) => ours.or(theirs),
        };
        self.take(other.kept);
        self.settle(limit);
    }

    fn take(&mut self, entries: impl IntoIterator<Item = (K, V)>) {
        for (key, value) in entries {
            self.kept.entry(key).or_default().join(value);
        }
    }

    /// Drops what does not fit.
    fn settle(&mut self, limit: Limit) {
        self.bytes = 0;
        for (entries, (key, value)) in self.kept.iter().enumerate() {
            let bytes = entry_bytes::<K, V>(key) + value.claimed_bytes();
            let is_beyond = self.cut.as_ref().is_some_and(|cut| key >= cut);
            if is_beyond || entries == limit.entries || self.bytes + bytes > limit.bytes {
                // Never beyond the cut that there was: then this is the first key behind it, and both say the same.
                self.cut = Some(self.cut.take().map_or_else(|| key.clone(), |cut| cut.min(key.clone())));
                break;
            }
            self.bytes += bytes;
        }
        let Some(cut) = &self.cut else { return };
        let gone = self.kept.split_off(cut);
        self.dropped = gone.values().fold(self.dropped, |sum, value| sum.saturating_add(value.total()));
    }
}

/// What an entry takes without what is claimed by its value, in bytes.
pub fn entry_bytes<K: Weighed, V>(key: &K) -> usize {
    NODE_BYTES + size_of::<K>() + key.heap_bytes() + size_of::<V>()
}

impl Counted for u64 {
    fn claimed_bytes(&self) -> usize {
        0
    }

    fn total(&self) -> u64 {
        *self
    }

    fn join(&mut self, other: Self) {
        *self = self.saturating_add(other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weighed for u32 {
        fn heap_bytes(&self) -> usize {
            0
        }
    }

    const EACH: usize = NODE_BYTES + 4 + 8;

    fn shelf(keys: &[u32], limit: Limit) -> Shelf<u32, u64> {
        Shelf::of(keys.iter().map(|key| (*key, 1)), None, 0, limit)
    }

    #[test]
    fn what_does_not_fit_is_the_end_and_nothing_from_there_on_comes_back() {
        let limit = Limit { entries: 3, bytes: 100 * EACH };
        let mut joined = shelf(&[1, 5, 7], limit);
        joined.join(shelf(&[2, 7], limit), limit);
        assert_eq!(joined.iter().map(|(key, count)| (*key, *count)).collect::<Vec<_>>(), [(1, 1), (2, 1), (5, 1)]);
        assert_eq!((joined.cut(), joined.dropped(), joined.total()), (Some(&7), 2, 5));
        joined.count(7, usize::MAX, limit, |count, _| *count += 1);
        joined.count(5, usize::MAX, limit, |count, _| *count += 1);
        assert_eq!((joined.dropped(), joined.total()), (3, 7));
        assert_eq!(joined.claimed_bytes(limit), limit.bytes);
    }

    #[test]
    fn bytes_bound_it_too_and_so_does_the_room_around_it() {
        let limit = Limit { entries: 100, bytes: 2 * EACH };
        let mut counted = Shelf::<u32, u64>::default();
        (0..5).for_each(|key| counted.count(key, usize::MAX, limit, |count, _| *count += 1));
        assert_eq!((counted.len(), counted.dropped(), counted.claimed_bytes(limit)), (2, 3, 2 * EACH));
        let mut counted = Shelf::<u32, u64>::default();
        counted.count(1, EACH - 1, limit, |count, _| *count += 1);
        assert_eq!((counted.len(), counted.dropped()), (0, 1));
        assert_eq!(shelf(&[1, 2, 3], limit).len(), 2);
    }
}
