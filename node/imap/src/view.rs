//! A session's own view of its open folder: the numbers that its client knows. What others do waits here until
//! the protocol allows it to be told (RFC 3501, sections 5.2, 5.5, 7.4.1).

use std::collections::{BTreeMap, BTreeSet};

use mailraft_mailbox::api::{Change, FolderId, MessageState, Selected};
use mailraft_mailbox::{Event, Flags, UidSet};

use crate::cursor::{Bound, SequenceSet};
use crate::print;

/// A session's view of a folder.
#[derive(Debug)]
pub struct View {
    pub folder: FolderId,
    pub read_only: bool,
    pub uid_validity: u32,
    pub uid_next: u32,
    first_recent: u32,
    /// What the client knows, UIDs rising.
    messages: Vec<MessageState>,
    /// Flags that changed since they were told.
    changed: BTreeSet<u32>,
    expunged: BTreeSet<u32>,
    added: BTreeMap<u32, MessageState>,
    keywords: BTreeSet<String>,
    pub deleted: bool,
}

impl View {
    pub fn new(selected: Selected, read_only: bool) -> Self {
        let mut keywords = BTreeSet::new();
        for message in &selected.messages {
            keywords.extend(message.flags.keywords().map(str::to_owned));
        }
        View {
            folder: selected.folder,
            read_only,
            uid_validity: selected.uid_validity,
            uid_next: selected.uid_next,
            first_recent: selected.first_recent_uid,
            messages: selected.messages,
            changed: BTreeSet::new(),
            expunged: BTreeSet::new(),
            added: BTreeMap::new(),
            keywords,
            deleted: false,
        }
    }

    pub fn messages(&self) -> &[MessageState] {
        &self.messages
    }

    pub fn is_recent(&self, uid: u32) -> bool {
        uid >= self.first_recent
    }

    pub fn recent(&self) -> usize {
        self.messages.len() - self.messages.partition_point(|m| m.uid < self.first_recent)
    }

    pub fn keywords(&self) -> impl Iterator<Item = &str> {
        self.keywords.iter().map(String::as_str)
    }

    /// The sequence number of a UID.
    pub fn number(&self, uid: u32) -> Option<usize> {
        self.messages.binary_search_by_key(&uid, |m| m.uid).ok().map(|at| at + 1)
    }

    pub fn message(&self, uid: u32) -> Option<&MessageState> {
        self.messages.binary_search_by_key(&uid, |m| m.uid).ok().map(|at| &self.messages[at])
    }

    /// The UIDs of a set of sequence numbers; None if one is beyond the last.
    pub fn by_number(&self, set: &SequenceSet) -> Option<UidSet> {
        let last = u32::try_from(self.messages.len()).unwrap_or(u32::MAX);
        let mut ranges = Vec::new();
        for (from, to) in &set.0 {
            let (from, to) = (resolve(*from, last), resolve(*to, last));
            let (low, high) = (from.min(to), from.max(to));
            if low == 0 || high > last {
                return None;
            }
            ranges.push((low, high));
        }
        let numbers = UidSet::from_ranges(ranges);
        Some(numbers.iter().map(|n| self.messages[n as usize - 1].uid).collect())
    }

    /// The UIDs of those numbers of a set that there are: as a search key, numbers beyond the last fit nothing.
    pub fn by_number_lenient(&self, set: &SequenceSet) -> UidSet {
        let last = u32::try_from(self.messages.len()).unwrap_or(u32::MAX);
        let ranges = set.0.iter().map(|(from, to)| (resolve(*from, last), resolve(*to, last))).collect();
        let wanted = UidSet::from_ranges(ranges);
        (1..=last).filter(|n| wanted.contains(*n)).map(|n| self.messages[n as usize - 1].uid).collect()
    }

    /// The UIDs of a set of UIDs that the client knows.
    pub fn by_uid(&self, set: &SequenceSet) -> UidSet {
        let largest = self.messages.last().map_or(0, |m| m.uid);
        let ranges = set.0.iter().map(|(from, to)| (resolve(*from, largest), resolve(*to, largest))).collect();
        let wanted = UidSet::from_ranges(ranges);
        self.messages.iter().map(|m| m.uid).filter(|uid| wanted.contains(*uid)).collect()
    }

    /// Takes an event in. One that is known already changes nothing.
    pub fn take(&mut self, event: Event) {
        if event.folder != self.folder {
            return;
        }
        match event.change {
            Change::Added(messages) => {
                for message in messages {
                    self.uid_next = self.uid_next.max(message.uid.saturating_add(1));
                    if self.message(message.uid).is_none() {
                        self.added.insert(message.uid, message);
                    }
                }
            }
            Change::Flagged(messages) => {
                for message in messages {
                    if let Some(added) = self.added.get_mut(&message.uid) {
                        *added = message;
                    } else if let Ok(at) = self.messages.binary_search_by_key(&message.uid, |m| m.uid)
                        && self.messages[at].modseq < message.modseq
                    {
                        self.changed.insert(message.uid);
                        self.messages[at] = message;
                    }
                }
            }
            Change::Expunged(uids) => {
                self.added.retain(|uid, _| !uids.contains(*uid));
                self.expunged.extend(self.messages.iter().map(|m| m.uid).filter(|uid| uids.contains(*uid)));
            }
            Change::FolderDeleted => self.deleted = true,
        }
    }

    /// The client is told these flags by other means.
    pub fn told(&mut self, uid: u32) {
        self.changed.remove(&uid);
    }

    /// Tells what waits; expunges only where they are allowed.
    pub fn tell(&mut self, expunges: bool, out: &mut Vec<u8>) {
        if expunges {
            for uid in std::mem::take(&mut self.expunged) {
                if let Ok(at) = self.messages.binary_search_by_key(&uid, |m| m.uid) {
                    self.messages.remove(at);
                    self.changed.remove(&uid);
                    out.extend_from_slice(format!("* {} EXPUNGE\r\n", at + 1).as_bytes());
                }
            }
        }
        if !self.added.is_empty() {
            // UIDs rise: what is new comes behind all that the client knows.
            for (uid, message) in std::mem::take(&mut self.added) {
                assert!(self.messages.last().is_none_or(|m| m.uid < uid), "UID {uid} is told out of order");
                self.note_keywords(&message.flags, out);
                self.messages.push(message);
            }
            out.extend_from_slice(
                format!("* {} EXISTS\r\n* {} RECENT\r\n", self.messages.len(), self.recent()).as_bytes(),
            );
        }
        for uid in std::mem::take(&mut self.changed) {
            let Some(number) = self.number(uid) else { continue };
            let flags = self.messages[number - 1].flags.clone();
            self.note_keywords(&flags, out);
            let list = print::flags(&flags, self.is_recent(uid));
            out.extend_from_slice(format!("* {number} FETCH (UID {uid} FLAGS {list})\r\n").as_bytes());
        }
    }

    /// A keyword that the client has not seen yet is told in FLAGS first.
    pub fn note_keywords(&mut self, flags: &Flags, out: &mut Vec<u8>) {
        let before = self.keywords.len();
        self.keywords.extend(flags.keywords().map(str::to_owned));
        if self.keywords.len() > before {
            out.extend_from_slice(print::flags_line(self.keywords()).as_bytes());
        }
    }
}

fn resolve(bound: Bound, largest: u32) -> u32 {
    match bound {
        Bound::Number(n) => n,
        Bound::Largest => largest,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state(uid: u32, modseq: u64) -> MessageState {
        MessageState { uid, flags: Flags::none(), modseq }
    }

    fn event(change: Change) -> Event {
        Event { folder: FolderId(1), origin: Default::default(), modseq: 1, change }
    }

    fn view(uids: &[u32]) -> View {
        let messages = uids.iter().map(|u| state(*u, 1)).collect();
        let selected = Selected {
            folder: FolderId(1),
            uid_validity: 1,
            uid_next: 100,
            highest_modseq: 1,
            first_recent_uid: 50,
            messages,
        };
        View::new(selected, false)
    }

    #[test]
    fn expunges_wait_and_numbers_stay_until_they_are_told() {
        let mut v = view(&[3, 5, 9]);
        v.take(event(Change::Expunged(UidSet::range(3, 5))));
        v.take(event(Change::Added(vec![state(60, 2)])));
        let mut out = Vec::new();
        v.tell(false, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), "* 4 EXISTS\r\n* 1 RECENT\r\n");
        assert_eq!(v.number(9), Some(3));
        out.clear();
        v.tell(true, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), "* 1 EXPUNGE\r\n* 1 EXPUNGE\r\n");
        assert_eq!(v.number(9), Some(1));
    }

    #[test]
    fn sets_mean_what_the_client_knows() {
        let v = view(&[3, 5, 9]);
        let n = Bound::Number;
        assert_eq!(v.by_number(&SequenceSet(vec![(n(2), Bound::Largest)])).map(|s| s.to_string()), Some("5,9".into()));
        assert_eq!(v.by_number(&SequenceSet(vec![(n(4), n(4))])), None);
        assert_eq!(v.by_uid(&SequenceSet(vec![(n(4), n(4_000_000_000))])).to_string(), "5,9");
        assert_eq!(
            v.by_uid(&SequenceSet(vec![(n(20), Bound::Largest)])).to_string(),
            "9",
            "a range with * has the last message"
        );
        assert_eq!(view(&[]).by_number(&SequenceSet(vec![(n(1), Bound::Largest)])), None);
    }

    proptest! {
        /// A client that follows EXISTS and EXPUNGE counts what the server counts.
        #[test]
        fn a_client_that_follows_counts_the_same(steps in proptest::collection::vec((0u8..3, 1u32..40, any::<bool>()), 0..60)) {
            let mut v = view(&[1, 2, 3]);
            let (mut next, mut count) = (100, 3usize);
            let mut alive: BTreeSet<u32> = [1, 2, 3].into();
            for (kind, pick, tell) in steps {
                match kind {
                    0 => {
                        v.take(event(Change::Added(vec![state(next, 1)])));
                        alive.insert(next);
                        next += 1;
                    }
                    1 => {
                        if let Some(uid) = alive.iter().copied().nth(pick as usize % alive.len().max(1)) {
                            alive.remove(&uid);
                            v.take(event(Change::Expunged(UidSet::range(uid, uid))));
                        }
                    }
                    _ => {
                        let mut out = Vec::new();
                        v.tell(tell, &mut out);
                        for line in String::from_utf8_lossy(&out).lines() {
                            let words: Vec<&str> = line.split(' ').collect();
                            match words[2] {
                                "EXPUNGE" => {
                                    prop_assert!((1..=count).contains(&words[1].parse::<usize>().unwrap_or(0)));
                                    count -= 1;
                                }
                                "EXISTS" => {
                                    let now = words[1].parse().unwrap_or(0);
                                    prop_assert!(now >= count);
                                    count = now;
                                }
                                _ => {}
                            }
                        }
                        prop_assert_eq!(count, v.messages().len());
                        if tell {
                            prop_assert_eq!(v.messages().iter().map(|m| m.uid).collect::<BTreeSet<_>>(), alive.clone());
                        }
                    }
                }
            }
        }
    }
}
