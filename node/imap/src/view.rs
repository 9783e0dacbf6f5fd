//! A session's own view of its open folder: the numbers that its client knows. What others do waits here until
//! the protocol allows it to be told (RFC 3501, sections 5.2, 5.5, 7.4.1).

use std::collections::{BTreeMap, BTreeSet};

use mailraft_mailbox::api::{Change, FolderId, MessageState, Selected};
use mailraft_mailbox::{Event, Flags, UidSet, is_of_earlier_incarnation};

use crate::cursor::{Bound, SequenceSet};
use crate::print;

/// Keywords that FLAGS and PERMANENTFLAGS name. A folder may have more: its messages' own lists have them.
pub const KEYWORDS_TOLD_MAX: usize = 1_000;

/// What a client hears of messages besides their flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Telling {
    /// Their MODSEQ (RFC 7162).
    pub modseq: bool,
    /// Which of them are \\Recent; IMAP4rev2 has nothing of the kind.
    pub recent: bool,
    /// Their UIDs, and no numbers (RFC 9586).
    pub uid_only: bool,
}

impl Telling {
    /// The beginning of a response about a message, up to its items.
    pub fn begin(&self, number: usize, uid: u32) -> String {
        if self.uid_only { format!("* {uid} UIDFETCH (") } else { format!("* {number} FETCH (") }
    }
}

/// A session's view of a folder.
#[derive(Debug)]
pub struct View {
    pub folder: FolderId,
    pub read_only: bool,
    pub uid_validity: u32,
    /// UIDNEXT when the folder was opened.
    pub uid_next: u32,
    /// HIGHESTMODSEQ of all that was heard.
    pub highest_modseq: u64,
    /// The same when everything that was heard had been told: what is not told may lie above it.
    told_modseq: u64,
    /// The highest UID that was ever heard of: one up to it is known already, or gone.
    highest: u32,
    first_recent: u32,
    /// What the client knows, UIDs rising.
    messages: Vec<MessageState>,
    /// Flags that changed since they were told.
    changed: BTreeSet<u32>,
    expunged: BTreeSet<u32>,
    added: BTreeMap<u32, MessageState>,
    keywords: BTreeSet<String>,
    /// Somebody else deleted the folder.
    pub deleted: bool,
    /// This session deleted the folder: it goes on with nothing in it.
    pub gone: bool,
}

impl View {
    pub fn new(selected: Selected, read_only: bool) -> Self {
        let mut view = View {
            folder: selected.folder,
            read_only,
            uid_validity: selected.uid_validity,
            uid_next: selected.uid_next,
            highest_modseq: selected.highest_modseq,
            told_modseq: selected.highest_modseq,
            highest: selected.messages.last().map_or(0, |m| m.uid),
            first_recent: selected.first_recent_uid,
            messages: selected.messages,
            changed: BTreeSet::new(),
            expunged: BTreeSet::new(),
            added: BTreeMap::new(),
            keywords: BTreeSet::new(),
            deleted: false,
            gone: false,
        };
        for at in 0..view.messages.len() {
            let flags = std::mem::take(&mut view.messages[at].flags);
            view.learn_keywords(&flags);
            view.messages[at].flags = flags;
        }
        view
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
            let open_ended = [from, to].contains(&&Bound::Largest);
            let (from, to) = (resolve(*from, last), resolve(*to, last));
            // A range with * has the last message, whatever its other end (RFC 3501, section 9: seq-range).
            let (low, high) = (from.min(to), if open_ended { last } else { from.max(to) });
            if low == 0 || high > last {
                return None;
            }
            ranges.push((low, high));
        }
        let numbers = UidSet::from_ranges(ranges);
        Some(numbers.iter().map(|n| self.messages[n as usize - 1].uid).collect())
    }

    /// A set of numbers with `*` resolved: as a search key, numbers beyond the last fit nothing.
    pub fn numbers(&self, set: &SequenceSet) -> UidSet {
        set.upto(u32::try_from(self.messages.len()).unwrap_or(u32::MAX))
    }

    /// A set of UIDs with `*` resolved.
    pub fn uids(&self, set: &SequenceSet) -> UidSet {
        set.upto(self.messages.last().map_or(0, |m| m.uid))
    }

    /// Whether a set of UIDs names some that the session has not heard of yet.
    pub fn reaches_beyond(&self, set: &SequenceSet) -> bool {
        let beyond = |bound: &Bound| match bound {
            Bound::Number(uid) => *uid > self.highest,
            Bound::Largest => true,
        };
        set.0.iter().any(|(from, to)| beyond(from) || beyond(to))
    }

    /// The UIDs of a set of UIDs that the client knows.
    pub fn by_uid(&self, set: &SequenceSet) -> UidSet {
        let wanted = self.uids(set);
        self.messages.iter().map(|m| m.uid).filter(|uid| wanted.contains(*uid)).collect()
    }

    /// Whether a message is gone, though the client does not know it yet.
    pub fn is_expunged(&self, uid: u32) -> bool {
        self.expunged.contains(&uid)
    }

    /// Whether a message's flags changed since the client was told them.
    pub fn is_changed(&self, uid: u32) -> bool {
        self.changed.contains(&uid)
    }

    /// Takes an event in. One that is known already changes nothing.
    pub fn take(&mut self, event: Event) {
        if event.folder != self.folder {
            return;
        }
        self.highest_modseq = self.highest_modseq.max(event.modseq);
        match event.change {
            Change::Added(messages) => {
                for message in messages {
                    if message.uid > self.highest {
                        self.highest = message.uid;
                        self.added.insert(message.uid, message);
                    }
                }
            }
            Change::Flagged(messages) => {
                for message in messages {
                    if let Some(added) = self.added.get_mut(&message.uid) {
                        if added.modseq < message.modseq {
                            *added = message;
                        }
                    } else if let Ok(at) = self.messages.binary_search_by_key(&message.uid, |m| m.uid)
                        && self.messages[at].modseq < message.modseq
                    {
                        if self.messages[at].flags != message.flags {
                            self.changed.insert(message.uid);
                        }
                        self.messages[at] = message;
                    }
                }
            }
            Change::Expunged(uids) => {
                self.added.retain(|uid, _| !uids.contains(*uid));
                self.changed.retain(|uid| !uids.contains(*uid));
                self.expunged.extend(self.messages.iter().map(|m| m.uid).filter(|uid| uids.contains(*uid)));
            }
            Change::FolderDeleted => self.deleted = true,
        }
    }

    /// The client is told these flags by other means.
    pub fn told(&mut self, uid: u32) {
        self.changed.remove(&uid);
    }

    /// The session deleted its open folder: all messages are gone, and none will come.
    pub fn lose(&mut self) {
        self.deleted = false;
        self.gone = true;
        self.added.clear();
        self.changed.clear();
        self.expunged = self.messages.iter().map(|m| m.uid).collect();
    }

    /// Removes the messages that are gone and of which that is to be told, in one pass however many they are: the numbers to
    /// tell in EXPUNGE, in this order.
    pub fn take_expunged(&mut self, tells: impl Fn(u32) -> bool) -> Vec<u32> {
        self.take_gone(tells).0
    }

    /// The same with their UIDs (RFC 7162, section 3.2.10).
    pub fn take_vanished(&mut self, tells: impl Fn(u32) -> bool) -> UidSet {
        self.take_gone(tells).1
    }

    /// Numbers and UIDs.
    fn take_gone(&mut self, tells: impl Fn(u32) -> bool) -> (Vec<u32>, UidSet) {
        let (gone, kept) = std::mem::take(&mut self.expunged).into_iter().partition(|uid| tells(*uid));
        let gone: BTreeSet<u32> = gone;
        self.expunged = kept;
        let mut numbers = Vec::with_capacity(gone.len());
        if gone.is_empty() {
            return (numbers, UidSet::new());
        }
        let mut number = 1;
        self.messages.retain(|m| {
            let goes = gone.contains(&m.uid);
            // The next one takes the number of one that goes.
            if goes {
                numbers.push(number)
            } else {
                number += 1
            }
            !goes
        });
        (numbers, gone.into_iter().collect())
    }

    /// The HIGHESTMODSEQ up to which the client knows all, once it is told of the messages that `tells` names: what it was told
    /// of no other change of must come when it asks what it missed (RFC 7162, section 3.2.5).
    pub fn told_modseq(&self, tells: impl Fn(u32) -> bool) -> u64 {
        let mut waits = self.changed.iter().chain(&self.expunged).chain(self.added.keys());
        if waits.all(|uid| tells(*uid)) { self.highest_modseq } else { self.told_modseq }
    }

    /// What could be told is told.
    pub fn settle(&mut self) {
        self.told_modseq = self.told_modseq(|_| false);
    }

    /// Whether a MODSEQ may be of changes that were lost with an earlier home.
    pub fn may_be_lost(&self, modseq: u64) -> bool {
        is_of_earlier_incarnation(modseq, self.highest_modseq)
    }

    /// The client knows by other means that these are gone, and counts them to the end.
    pub fn forget(&mut self, gone: &UidSet) {
        self.expunged.retain(|uid| !gone.contains(*uid));
    }

    /// Whether one of these messages is new.
    pub fn has_added(&self, of: &UidSet) -> bool {
        self.added.keys().any(|uid| of.contains(*uid))
    }

    /// Tells of messages that are new; which they are.
    pub fn tell_added(&mut self, telling: Telling, out: &mut Vec<u8>) -> Vec<u32> {
        if self.added.is_empty() {
            return Vec::new();
        }
        let new = self.added.keys().copied().collect();
        let mut learnt = false;
        // UIDs rise: what is new comes behind all that the client knows.
        for message in std::mem::take(&mut self.added).into_values() {
            learnt |= self.learn_keywords(&message.flags);
            self.messages.push(message);
        }
        if learnt {
            out.extend_from_slice(self.flags_lines().as_bytes());
        }
        out.extend_from_slice(format!("* {} EXISTS\r\n", self.messages.len()).as_bytes());
        if telling.recent {
            out.extend_from_slice(format!("* {} RECENT\r\n", self.recent()).as_bytes());
        }
        new
    }

    /// The messages whose flags changed, of those of which that is to be told: the client is told them.
    pub fn take_changed(&mut self, tells: impl Fn(u32) -> bool) -> BTreeSet<u32> {
        let (told, kept) = std::mem::take(&mut self.changed).into_iter().partition(|uid| tells(*uid));
        self.changed = kept;
        told
    }

    /// Tells the flags of one message.
    pub fn tell_flags(&mut self, uid: u32, telling: Telling, out: &mut Vec<u8>) {
        let Some(number) = self.number(uid) else { return };
        let flags = self.messages[number - 1].flags.clone();
        self.note_keywords(&flags, out);
        let list = print::flags(&flags, telling.recent && self.is_recent(uid));
        let modseq = if telling.modseq { print::modseq(self.messages[number - 1].modseq) } else { String::new() };
        let begin = telling.begin(number, uid);
        let uid = if telling.uid_only { String::new() } else { format!("UID {uid} ") };
        out.extend_from_slice(format!("{begin}{uid}FLAGS {list}{modseq})\r\n").as_bytes());
    }

    /// A keyword that the client has not seen yet is told in FLAGS first.
    pub fn note_keywords(&mut self, flags: &Flags, out: &mut Vec<u8>) {
        if self.learn_keywords(flags) {
            out.extend_from_slice(self.flags_lines().as_bytes());
        }
    }

    /// FLAGS and PERMANENTFLAGS (RFC 3501, sections 7.2.6 and 7.1).
    pub fn flags_lines(&self) -> String {
        let mut names = print::SYSTEM_FLAGS.to_vec();
        names.extend(self.keywords.iter().map(String::as_str));
        let names = names.join(" ");
        match self.read_only {
            true => format!("* FLAGS ({names})\r\n* OK [PERMANENTFLAGS ()] opened to read\r\n"),
            false => format!("* FLAGS ({names})\r\n* OK [PERMANENTFLAGS ({names} \\*)] kept\r\n"),
        }
    }

    /// Whether one was new.
    fn learn_keywords(&mut self, flags: &Flags) -> bool {
        let before = self.keywords.len();
        for keyword in flags.keywords() {
            if self.keywords.len() < KEYWORDS_TOLD_MAX && !self.keywords.contains(keyword) {
                self.keywords.insert(keyword.to_owned());
            }
        }
        self.keywords.len() > before
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
    use mailraft_mailbox::SystemFlag;
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

    fn told(view: &mut View, expunges: bool) -> String {
        let mut out = Vec::new();
        if expunges {
            for number in view.take_expunged(|_| true) {
                out.extend_from_slice(format!("* {number} EXPUNGE\r\n").as_bytes());
            }
        }
        let telling = Telling { modseq: false, recent: true, uid_only: false };
        view.tell_added(telling, &mut out);
        for uid in view.take_changed(|_| true) {
            view.tell_flags(uid, telling, &mut out);
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn expunges_wait_and_numbers_stay_until_they_are_told() {
        let mut v = view(&[3, 5, 9]);
        v.take(event(Change::Expunged(UidSet::range(3, 5))));
        v.take(event(Change::Added(vec![state(60, 2)])));
        assert_eq!(told(&mut v, false), "* 4 EXISTS\r\n* 1 RECENT\r\n");
        assert_eq!(v.number(9), Some(3));
        assert_eq!(told(&mut v, true), "* 1 EXPUNGE\r\n* 1 EXPUNGE\r\n");
        assert_eq!(v.number(9), Some(1));
    }

    #[test]
    fn sets_mean_what_the_client_knows() {
        let v = view(&[3, 5, 9]);
        let n = Bound::Number;
        assert_eq!(v.by_number(&SequenceSet(vec![(n(2), Bound::Largest)])).map(|s| s.to_string()), Some("5,9".into()));
        assert_eq!(v.by_number(&SequenceSet(vec![(n(4), n(4))])), None);
        assert_eq!(v.by_number(&SequenceSet(vec![(n(1), n(u32::MAX))])), None);
        for open_ended in [(n(9), Bound::Largest), (Bound::Largest, n(u32::MAX))] {
            assert_eq!(v.by_number(&SequenceSet(vec![open_ended])).map(|s| s.to_string()), Some("9".into()));
        }
        assert_eq!(v.by_uid(&SequenceSet(vec![(n(4), n(4_000_000_000))])).to_string(), "5,9");
        assert_eq!(
            v.by_uid(&SequenceSet(vec![(n(20), Bound::Largest)])).to_string(),
            "9",
            "a range with * has the last message"
        );
        assert_eq!(view(&[]).by_number(&SequenceSet(vec![(n(1), Bound::Largest)])), None);
    }

    #[test]
    fn what_comes_late_or_twice_changes_nothing() {
        let mut v = view(&[3, 5]);
        v.take(event(Change::Added(vec![state(60, 2)])));
        v.take(event(Change::Expunged(UidSet::range(60, 60))));
        v.take(event(Change::Added(vec![state(60, 2), state(4, 2)])));
        v.take(event(Change::Flagged(vec![state(3, 9), state(77, 9)])));
        assert_eq!(told(&mut v, true), "", "the same flags, UIDs gone or unknown");
        v.take(event(Change::Expunged(UidSet::range(1, u32::MAX))));
        assert_eq!(told(&mut v, true), "* 1 EXPUNGE\r\n* 1 EXPUNGE\r\n");
        v.take(event(Change::Added(vec![state(5, 3), state(61, 3)])));
        assert_eq!(told(&mut v, true), "* 1 EXISTS\r\n* 1 RECENT\r\n");
    }

    #[test]
    fn flags_of_messages_that_are_gone_are_not_told() {
        let mut v = view(&[3, 5]);
        let seen = MessageState { flags: Flags::none().with(SystemFlag::Seen), ..state(3, 2) };
        v.take(event(Change::Flagged(vec![seen])));
        assert!(v.is_changed(3));
        v.take(event(Change::Expunged(UidSet::range(3, 3))));
        assert_eq!(told(&mut v, false), "");
    }

    #[test]
    fn a_large_folder_is_emptied_in_one_pass() {
        let uids: Vec<u32> = (1..=100_000).collect();
        let mut v = view(&uids);
        v.take(event(Change::Expunged(UidSet::range(1, 99_999))));
        let numbers = v.take_expunged(|_| true);
        assert!(numbers.len() == 99_999 && numbers.iter().all(|n| *n == 1));
        assert_eq!((v.messages().len(), v.number(100_000)), (1, Some(1)));
    }

    #[test]
    fn keywords_of_many_new_messages_are_named_once() {
        let mut v = view(&[1]);
        let new = |n: u32| MessageState { flags: Flags::none().with_keyword(&format!("k{n}")), ..state(100 + n, 2) };
        v.take(event(Change::Added((1..=500).map(new).collect())));
        let told = told(&mut v, true);
        assert_eq!(told.matches("* FLAGS").count(), 1);
        assert!(told.ends_with("* 501 EXISTS\r\n* 500 RECENT\r\n"));
    }

    #[test]
    fn keywords_that_flags_names_are_bounded() {
        let mut v = view(&[1]);
        let mut out = Vec::new();
        for n in 0..KEYWORDS_TOLD_MAX + 10 {
            v.note_keywords(&Flags::none().with_keyword(&format!("k{n}")), &mut out);
        }
        assert_eq!(v.keywords.len(), KEYWORDS_TOLD_MAX);
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
                        for line in told(&mut v, tell).lines() {
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
