//! What a client wants to be notified of (RFC 5465), and what of that has happened and is not told yet.
//!
//! Of folders that are not open the mailbox says only that something is another way now. What a client was told last is kept
//! here, and what it is told next is the difference: so nothing is missed however often the mailbox's owner changes.

use std::collections::{BTreeMap, BTreeSet};

use mailraft_mailbox::Notice;
use mailraft_mailbox::api::{FolderId, FolderInfo, FolderStatus, HIERARCHY_SEPARATOR};

use crate::items::Item;

/// What one session may keep to be notified of folders, in bytes: 2,000 folders with names of 30 bytes. Past that it is not
/// notified at all, and hears that.
pub const NOTIFY_MAX_BYTES: usize = 256 << 10;
/// What a folder takes of it beside its name, in bytes.
const FOLDER_BYTES: usize = 96;
/// Changes of the list of folders that may wait to be told. Past that the list is compared with what was told last.
pub const CHANGES_MAX: usize = 256;

/// What a client wants to be notified of. Without anything in it, it is what NOTIFY NONE asks for.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    /// Of the open folder, whichever that is.
    pub selected: OfSelected,
    groups: Vec<Group>,
    /// The folders that any group is about, as the client was told of them last.
    folders: BTreeMap<FolderId, Known>,
    /// Names without a folder that a group is about, and whether they are subscribed to.
    names: BTreeMap<String, bool>,
    pending: Pending,
}

/// What is told of the open folder.
#[derive(Debug, Default)]
pub(crate) struct OfSelected {
    /// Expunges do not wait for a command that allows them.
    pub at_once: bool,
    /// Messages that come and go.
    pub messages: bool,
    /// Changes of flags.
    pub flags: bool,
    /// What is told of a new message.
    pub items: Vec<Item>,
    /// New messages of which that is to be told.
    pub new: Vec<u32>,
}

/// Some folders, and what is told of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub filter: Filter,
    /// None for NONE, whatever other groups say.
    pub events: Option<Events>,
}

/// Some folders.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// All. Any folder may be delivered to, so that INBOXES is the same (RFC 5465, section 6.2).
    Personal,
    Subscribed,
    /// These and what is below them.
    Subtree(Vec<String>),
    Mailboxes(Vec<String>),
}

/// What is told of a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Events {
    /// MessageNew and MessageExpunge.
    pub messages: bool,
    /// FlagChange.
    pub flags: bool,
    /// MailboxName.
    pub names: bool,
    /// SubscriptionChange.
    pub subscriptions: bool,
}

/// A folder as the client was told of it last.
#[derive(Debug)]
struct Known {
    name: String,
    subscribed: bool,
    events: Events,
    /// None for one that was made meanwhile.
    told: Option<FolderStatus>,
}

/// What has happened and is not told yet.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// The folders are to be compared with what was told last.
    pub compares: bool,
    /// How the list of folders changed, at most [`CHANGES_MAX`] times.
    pub changes: Vec<Notice>,
    /// Folders in which something happened.
    pub folders: BTreeSet<FolderId>,
}

/// More would be kept than [`NOTIFY_MAX_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

impl OfSelected {
    /// The client was told that these are new.
    pub fn told(&mut self, uids: impl Iterator<Item = u32>) {
        if !self.items.is_empty() {
            self.new.extend(uids);
        }
    }
}

impl Filter {
    fn is_about(&self, name: &str, subscribed: bool) -> bool {
        let is_below = |above: &String| {
            name.strip_prefix(above.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(HIERARCHY_SEPARATOR))
        };
        match self {
            Filter::Personal => true,
            Filter::Subscribed => subscribed,
            Filter::Subtree(names) => names.iter().any(is_below),
            Filter::Mailboxes(names) => names.iter().any(|n| n == name),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Filter::Personal | Filter::Subscribed => 0,
            Filter::Subtree(names) | Filter::Mailboxes(names) => names.iter().map(|n| n.len() + FOLDER_BYTES).sum(),
        }
    }
}

impl Events {
    fn union(self, other: Events) -> Events {
        Events {
            messages: self.messages || other.messages,
            flags: self.flags || other.flags,
            names: self.names || other.names,
            subscriptions: self.subscriptions || other.subscriptions,
        }
    }
}

impl Notify {
    pub fn new(selected: OfSelected, groups: Vec<Group>) -> Self {
        Notify { selected, groups, ..Notify::default() }
    }

    /// Whether it is about any folder that is not open.
    pub fn watches(&self) -> bool {
        self.groups.iter().any(|group| group.events.is_some_and(|events| events != Events::default()))
    }

    /// What is told of a folder: what any group about it says, and nothing if one says NONE.
    pub fn events(&self, name: &str, subscribed: bool) -> Events {
        let about = self.groups.iter().filter(|group| group.filter.is_about(name, subscribed));
        about
            .map(|group| group.events)
            .try_fold(Events::default(), |all, events| events.map(|events| all.union(events)))
            .unwrap_or_default()
    }

    /// Something happened.
    pub fn take(&mut self, notice: Notice) {
        match notice {
            Notice::Anew => self.compare_all(),
            Notice::Messages(id) | Notice::Flags(id) => {
                let is_flags = matches!(notice, Notice::Flags(_));
                let wants = |events: Events| if is_flags { events.flags } else { events.messages };
                // One that is not known may have been made a moment ago.
                let unknown = !self.pending.changes.is_empty();
                if self.folders.get(&id).map_or(unknown, |folder| wants(folder.events)) {
                    self.pending.folders.insert(id);
                }
            }
            Notice::Made(_) | Notice::Removed(_) | Notice::Renamed { .. } | Notice::Subscription(_) => {
                if !self.watches() || self.pending.compares {
                    return;
                }
                if self.pending.changes.len() < CHANGES_MAX {
                    self.pending.changes.push(notice);
                } else {
                    self.compare_all();
                }
            }
        }
    }

    /// What happened is not known: the folders are compared with what was told last.
    pub fn compare_all(&mut self) {
        self.pending = Pending { compares: self.watches(), ..Pending::default() };
    }

    /// What has happened since it was asked last.
    pub fn take_pending(&mut self) -> Pending {
        std::mem::take(&mut self.pending)
    }

    /// How the list of folders differs from what was told last.
    pub fn differences(&self, list: &[FolderInfo]) -> Vec<Notice> {
        let now: BTreeMap<FolderId, &FolderInfo> = list.iter().filter_map(|line| Some((line.id?, line))).collect();
        let by_name: BTreeMap<&str, FolderId> =
            self.folders.iter().map(|(id, known)| (known.name.as_str(), *id)).collect();
        let mut changes = Vec::new();
        for (id, known) in &self.folders {
            match now.get(id) {
                None => changes.push(Notice::Removed(known.name.clone())),
                Some(line) if line.name != known.name => {
                    // It goes along with what is above it.
                    let goes_along = || {
                        let (above, leaf) = known.name.rsplit_once(HIERARCHY_SEPARATOR)?;
                        let moved = now.get(by_name.get(above)?)?;
                        Some(moved.name != above && line.name == format!("{}{HIERARCHY_SEPARATOR}{leaf}", moved.name))
                    };
                    if goes_along() != Some(true) {
                        changes.push(Notice::Renamed { from: known.name.clone(), to: line.name.clone() });
                    }
                }
                Some(line) if line.subscribed != known.subscribed => {
                    changes.push(Notice::Subscription(known.name.clone()));
                }
                Some(_) => {}
            }
        }
        let is_new = |line: &&FolderInfo| line.id.is_some_and(|id| !self.folders.contains_key(&id));
        let wanted = |line: &&FolderInfo| self.events(&line.name, line.subscribed) != Events::default();
        changes.extend(list.iter().filter(is_new).filter(wanted).map(|line| Notice::Made(line.name.clone())));
        let without: BTreeMap<&str, bool> =
            list.iter().filter(|line| line.id.is_none()).map(|line| (line.name.as_str(), line.subscribed)).collect();
        let ended =
            self.names.iter().filter(|(name, subscribed)| **subscribed && without.get(name.as_str()) != Some(&true));
        changes.extend(ended.map(|(name, _)| Notice::Subscription(name.clone())));
        let begun = without.iter().filter(|(name, subscribed)| **subscribed && self.names.get(**name) != Some(&true));
        let begun = begun.filter(|(name, _)| !by_name.contains_key(**name));
        changes.extend(begun.map(|(name, _)| Notice::Subscription((*name).to_owned())));
        changes
    }

    /// The client is told of all that is in the list; how much that takes to keep, in bytes.
    ///
    /// # Errors
    /// If that is too much.
    pub fn follow(&mut self, list: &[FolderInfo]) -> Result<usize, Overflow> {
        let mut before = std::mem::take(&mut self.folders);
        self.names.clear();
        let mut bytes = self.groups.iter().map(|group| group.filter.bytes()).sum::<usize>();
        for line in list {
            let events = self.events(&line.name, line.subscribed);
            if events == Events::default() {
                continue;
            }
            bytes += line.name.len() + FOLDER_BYTES;
            match line.id {
                Some(id) => {
                    let told = before.remove(&id).and_then(|known| known.told);
                    self.folders
                        .insert(id, Known { name: line.name.clone(), subscribed: line.subscribed, events, told });
                }
                None => {
                    self.names.insert(line.name.clone(), line.subscribed);
                }
            }
        }
        if bytes > NOTIFY_MAX_BYTES { Err(Overflow) } else { Ok(bytes) }
    }

    /// Of these folders, or all, those of whose messages something is told, each with its HIGHESTMODSEQ as it was told last.
    pub fn to_count(&self, of: Option<&BTreeSet<FolderId>>, open: Option<FolderId>) -> Vec<(FolderId, u64)> {
        let counted = self
            .folders
            .iter()
            .filter(|(id, known)| known.events.messages && Some(**id) != open && of.is_none_or(|of| of.contains(*id)));
        counted.map(|(id, known)| (*id, known.told.map_or(0, |told| told.highest_modseq))).collect()
    }

    /// A folder has these counts now: its name and what is told of it, if the client is told them. With `modseqs` it is told
    /// HIGHESTMODSEQ too.
    pub fn counted(&mut self, id: FolderId, now: FolderStatus, modseqs: bool) -> Option<(&str, Events)> {
        let known = self.folders.get_mut(&id)?;
        let told = known.told.replace(now);
        let same_messages = told.is_some_and(|told| {
            (told.messages, told.uid_next, told.uid_validity) == (now.messages, now.uid_next, now.uid_validity)
        });
        let same_flags = told.is_some_and(|told| told.unseen == now.unseen && !modseqs);
        let tells = if same_messages { known.events.flags && !same_flags } else { known.events.messages };
        tells.then_some((known.name.as_str(), known.events))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MESSAGES: Events = Events { messages: true, flags: false, names: false, subscriptions: false };
    const NAMES: Events = Events { messages: false, flags: false, names: true, subscriptions: true };

    fn notify(groups: Vec<(Filter, Option<Events>)>) -> Notify {
        let groups = groups.into_iter().map(|(filter, events)| Group { filter, events });
        Notify::new(OfSelected::default(), groups.collect())
    }

    fn line(id: u32, name: &str, subscribed: bool) -> FolderInfo {
        let id = (id > 0).then_some(FolderId(id));
        FolderInfo { name: name.into(), id, subscribed, special_use: None, selectable: id.is_some() }
    }

    #[test]
    fn several_groups_about_a_folder_are_all_heard_and_none_silences_it() {
        let of = |name: &str| vec![name.to_owned()];
        let all = notify(vec![
            (Filter::Subscribed, Some(MESSAGES)),
            (Filter::Subtree(of("Lists")), Some(NAMES)),
            (Filter::Mailboxes(of("Lists/loud")), None),
            (Filter::Personal, Some(Events { flags: true, ..Events::default() })),
        ]);
        let told = |name: &str, subscribed| {
            let Events { messages, flags, names, subscriptions } = all.events(name, subscribed);
            (messages, flags, names && subscriptions)
        };
        assert_eq!(told("INBOX", true), (true, true, false));
        assert_eq!(told("Lists", false), (false, true, true));
        assert_eq!(told("Lists/a/b", true), (true, true, true));
        assert_eq!(told("Listsa", true), (true, true, false));
        assert_eq!(told("Lists/loud", true), (false, false, false));
        assert!(all.watches() && !notify(vec![(Filter::Personal, None)]).watches());
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes() {
        let mut all = notify(vec![(Filter::Personal, Some(MESSAGES))]);
        let count = NOTIFY_MAX_BYTES / (FOLDER_BYTES + 4);
        let mut list: Vec<FolderInfo> = (1..=count as u32).map(|n| line(n, &format!("{n:04}"), false)).collect();
        assert!(all.follow(&list).is_ok_and(|bytes| bytes <= NOTIFY_MAX_BYTES));
        list.push(line(9_999, "9999", false));
        assert_eq!(all.follow(&list), Err(Overflow));
        let names = (0..=count).map(|n| format!("{n:04}")).collect();
        assert_eq!(notify(vec![(Filter::Mailboxes(names), Some(MESSAGES))]).follow(&[]), Err(Overflow), "names too");
    }

    #[test]
    fn changes_that_wait_are_bounded_and_past_that_the_lists_are_compared() {
        let mut all = notify(vec![(Filter::Personal, Some(NAMES))]);
        for _ in 0..CHANGES_MAX {
            all.take(Notice::Subscription("x".into()));
        }
        assert_eq!(all.pending.changes.len(), CHANGES_MAX);
        all.take(Notice::Subscription("x".into()));
        all.take(Notice::Subscription("x".into()));
        let pending = all.take_pending();
        assert!(pending.compares && pending.changes.is_empty());
        assert!(!all.take_pending().compares, "once");
        let mut nothing = Notify::default();
        nothing.take(Notice::Subscription("x".into()));
        nothing.take(Notice::Anew);
        let pending = nothing.take_pending();
        assert!(!pending.compares && pending.changes.is_empty(), "it costs nothing");
    }

    #[test]
    fn lists_that_differ_say_what_happened_between_them() {
        let mut all = notify(vec![(Filter::Personal, Some(NAMES))]);
        all.follow(&[
            line(1, "INBOX", true),
            line(2, "a", false),
            line(3, "a/b", true),
            line(4, "a/c", false),
            line(5, "gone", false),
            line(0, "only", true),
            line(6, "plain", false),
        ])
        .unwrap();
        let now = [
            line(1, "INBOX", true),
            line(2, "z", false),
            line(3, "z/b", true),
            line(4, "d", false),
            line(0, "later", true),
            line(6, "plain", true),
            line(7, "new", false),
        ];
        let renamed = |from: &str, to: &str| Notice::Renamed { from: from.into(), to: to.into() };
        let expected = [
            renamed("a", "z"),
            renamed("a/c", "d"),
            Notice::Removed("gone".into()),
            Notice::Subscription("plain".into()),
            Notice::Made("new".into()),
            Notice::Subscription("only".into()),
            Notice::Subscription("later".into()),
        ];
        assert_eq!(all.differences(&now), expected);
        all.follow(&now).unwrap();
        assert_eq!(all.differences(&now), []);
    }

    #[test]
    fn counts_are_told_where_they_differ_in_what_the_client_wants_to_know() {
        let flags = Events { messages: true, flags: true, ..Events::default() };
        for (events, modseqs, told) in [
            (MESSAGES, false, [true, false, false]),
            (flags, false, [true, true, false]),
            (flags, true, [true, true, true]),
        ] {
            let mut all = notify(vec![(Filter::Personal, Some(events))]);
            all.follow(&[line(1, "INBOX", false)]).unwrap();
            let id = FolderId(1);
            let mut now =
                FolderStatus { uid_next: 5, messages: 3, unseen: 1, highest_modseq: 9, ..FolderStatus::default() };
            assert!(all.counted(id, now, modseqs).is_some(), "nothing was told before");
            let mut tells = |change: fn(&mut FolderStatus)| {
                now.highest_modseq += 1;
                change(&mut now);
                all.counted(id, now, modseqs).is_some()
            };
            let is = [tells(|now| now.uid_next += 1), tells(|now| now.unseen = 0), tells(|_| {})];
            assert_eq!(is, told, "{events:?} {modseqs}");
            assert_eq!(all.to_count(None, None), [(id, 12)]);
            assert_eq!(all.to_count(None, Some(id)), []);
        }
    }
}
