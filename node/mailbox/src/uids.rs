//! Sets of UIDs as ranges.

use serde::{Deserialize, Serialize};

/// A set of numbers in 1..2^32, kept as ranges that rise and neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UidSet {
    ranges: Vec<(u32, u32)>,
}

impl UidSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// All UIDs from `first` to `last`, in either order.
    pub fn range(first: u32, last: u32) -> Self {
        UidSet { ranges: vec![(first.min(last), first.max(last))] }
    }

    /// From ranges in any order, each with its ends in either order.
    pub fn from_ranges(mut ranges: Vec<(u32, u32)>) -> Self {
        for r in &mut ranges {
            *r = (r.0.min(r.1), r.0.max(r.1));
        }
        ranges.sort_unstable();
        let mut out: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (lo, hi) in ranges {
            match out.last_mut() {
                Some(last) if lo <= last.1.saturating_add(1) => last.1 = last.1.max(hi),
                _ => out.push((lo, hi)),
            }
        }
        UidSet { ranges: out }
    }

    /// Adds one; cheap when they come in rising order.
    pub fn insert(&mut self, uid: u32) {
        match self.ranges.last_mut() {
            Some(last) if uid > last.1 => {
                if uid == last.1 + 1 {
                    last.1 = uid;
                } else {
                    self.ranges.push((uid, uid));
                }
            }
            None => self.ranges.push((uid, uid)),
            Some(_) => {
                let mut ranges = std::mem::take(&mut self.ranges);
                ranges.push((uid, uid));
                *self = Self::from_ranges(ranges);
            }
        }
    }

    /// Whether it holds this UID.
    pub fn contains(&self, uid: u32) -> bool {
        let at = self.ranges.partition_point(|r| r.1 < uid);
        self.ranges.get(at).is_some_and(|r| r.0 <= uid)
    }

    /// The ranges, rising.
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.ranges
    }

    /// Every UID, rising. A set from a client may be huge (`1:*`): intersect with what exists instead.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|r| r.0..=r.1)
    }

    /// Those that are not in the other set, whatever the sizes of ranges.
    pub fn minus(&self, other: &UidSet) -> UidSet {
        let mut left = Vec::new();
        for &(first, last) in self.ranges() {
            let mut from = Some(first);
            let near = other.ranges().partition_point(|(_, end)| *end < first);
            for &(start, end) in other.ranges()[near..].iter().take_while(|(start, _)| *start <= last) {
                if let Some(from) = from.filter(|from| *from < start) {
                    left.push((from, start - 1));
                }
                from = end.checked_add(1);
            }
            if let Some(from) = from.filter(|from| *from <= last) {
                left.push((from, last));
            }
        }
        UidSet::from_ranges(left)
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many UIDs.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|r| u64::from(r.1 - r.0) + 1).sum()
    }
}

impl FromIterator<u32> for UidSet {
    fn from_iter<I: IntoIterator<Item = u32>>(uids: I) -> Self {
        let mut out = UidSet::new();
        let mut late = Vec::new();
        for uid in uids {
            if out.ranges.last().is_none_or(|r| uid > r.1) {
                out.insert(uid);
            } else {
                late.push((uid, uid));
            }
        }
        if !late.is_empty() {
            late.extend_from_slice(&out.ranges);
            out = UidSet::from_ranges(late);
        }
        out
    }
}

impl std::fmt::Display for UidSet {
    /// As an IMAP sequence set: `1:3,7`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, (lo, hi)) in self.ranges.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            if lo == hi {
                write!(f, "{lo}")?;
            } else {
                write!(f, "{lo}:{hi}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_out_of_a_set_is_out_and_all_else_stays() {
        let set = |ranges: &[(u32, u32)]| UidSet::from_ranges(ranges.to_vec());
        for (from, out, left) in [
            (&[(1, 10)][..], &[(3, 4), (9, 20)][..], "1:2,5:8"),
            (&[(1, u32::MAX)], &[(1, 1), (u32::MAX, u32::MAX)], "2:4294967294"),
            (&[(1, 2), (5, 6), (9, 9)], &[(2, 5)], "1,6,9"),
            (&[(1, 2)], &[], "1:2"),
            (&[(5, 9)], &[(1, u32::MAX)], ""),
        ] {
            assert_eq!(set(from).minus(&set(out)).to_string(), left);
        }
    }

    #[test]
    fn sets_from_any_order_are_the_same() {
        let set: UidSet = [5, 1, 2, 3, 9, 8, 5].into_iter().collect();
        assert_eq!(set.to_string(), "1:3,5,8:9");
        assert_eq!(set, UidSet::from_ranges(vec![(9, 8), (1, 3), (5, 5)]));
        assert_eq!(set.len(), 6);
        for uid in 0..12 {
            assert_eq!(set.contains(uid), [1, 2, 3, 5, 8, 9].contains(&uid), "{uid}");
        }
    }
}
