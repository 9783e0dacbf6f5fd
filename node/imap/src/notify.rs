//! What a client wants to be notified of (RFC 5465), and what of that has happened and is not told yet.
//!
//! What a client was told last is kept here, and what the session does itself is followed here too. Each change of the list of
//! folders costs what changed; where what happened is not known, as when the mailbox's owner changes, what a client is told is
//! the difference: so nothing is missed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mailraft_mailbox::api::{FolderId, FolderInfo, FolderStatus, HIERARCHY_SEPARATOR};
use mailraft_mailbox::{FolderNews, ListChange, ListNews, Notice, notice_bytes};

use crate::differences::{Difference, differences};
use crate::items::Item;

/// What one session may keep to be notified of folders, in bytes: 2,000 folders with names of 30 bytes. Past that it is not
/// notified at all, and hears that.
pub const NOTIFY_MAX_BYTES: usize = 256 << 10;
/// What a folder takes of it beside its name, in bytes.
const FOLDER_BYTES: usize = 96;
/// Changes of the list of folders that may wait to be told. Past that the list is compared with what was told last.
pub const CHANGES_MAX: usize = 256;
/// What they may take together, in bytes.
pub const CHANGES_MAX_BYTES: usize = 256 << 10;
/// What the shortest name of a header's field takes of an item of FETCH for each byte that is written, roughly.
const ITEM_BYTES_EACH: usize = 32;

/// What a client wants to be notified of. Without anything in it, it is what NOTIFY NONE asks for.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    /// Of the open folder, whichever that is.
    pub selected: OfSelected,
    groups: Vec<Group>,
    /// The folders that any group is about, as the client was told of them last.
    folders: BTreeMap<FolderId, Known>,
    /// Names that are subscribed to and of whose subscriptions the client hears, with a folder or without.
    subscriptions: BTreeSet<String>,
    /// What all of it takes.
    bytes: usize,
    /// The open folder, of which it hears otherwise.
    open: Option<FolderId>,
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
    Subtree(BTreeSet<String>),
    Mailboxes(BTreeSet<String>),
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
    events: Events,
    /// None where the client knows something else: it is told the next time that anything happens.
    told: Option<FolderStatus>,
}

/// What has happened and is not told yet.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// The folders are to be compared with what was told last.
    pub compares: bool,
    /// How the list of folders changed, in order, at most [`CHANGES_MAX`] times.
    pub changes: Vec<ListChanged>,
    /// What they take, in bytes.
    change_bytes: usize,
    /// Folders in which something happened.
    pub folders: BTreeMap<FolderId, Happened>,
}

/// A change of the list of folders, and who did it.
#[derive(Clone, Debug)]
pub(crate) struct ListChanged {
    pub news: Arc<ListNews>,
    /// The session did it itself: it goes on from there, and tells nothing.
    pub is_own: bool,
}

/// What happened in a folder, or why it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Happened {
    /// Nothing may have happened.
    Unknown,
    /// Flags changed.
    Flags,
    /// Messages came or went, or it is another folder of the same name.
    Messages,
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
        match self {
            Filter::Personal => true,
            Filter::Subscribed => subscribed,
            Filter::Subtree(names) => {
                let mut levels = name.match_indices(HIERARCHY_SEPARATOR).map(|(at, _)| &name[..at]);
                names.contains(name) || levels.any(|level| names.contains(level))
            }
            Filter::Mailboxes(names) => names.contains(name),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Filter::Personal | Filter::Subscribed => 0,
            Filter::Subtree(names) | Filter::Mailboxes(names) => names.iter().map(|n| kept_bytes(n)).sum(),
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
        let items = selected.items.iter().map(|item| size_of::<Item>() + ITEM_BYTES_EACH * item.name_bytes());
        let bytes = groups.iter().map(|group| group.filter.bytes()).chain(items).sum();
        Notify { selected, groups, bytes, ..Notify::default() }
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

    /// What is told of the subscription to a name, which begins or ends: it is subscribed to before, or after.
    pub fn tells_subscription(&self, name: &str) -> bool {
        self.events(name, true).subscriptions || self.events(name, false).subscriptions
    }

    /// Something happened.
    pub fn take(&mut self, notice: Notice) {
        let bytes = notice_bytes(&notice);
        match notice {
            Notice::Anew => self.compare_all(),
            Notice::ListIsHere => {}
            Notice::Own(FolderNews::List(news)) => self.take_change(ListChanged { news, is_own: true }, bytes),
            Notice::OfOthers(FolderNews::List(news)) => self.take_change(ListChanged { news, is_own: false }, bytes),
            // The client knows, and what it was told before is not how it is now.
            Notice::Own(FolderNews::Messages(id) | FolderNews::Flags(id)) => self.forget_counts(id),
            Notice::OfOthers(FolderNews::Messages(id)) => self.happens(id, Happened::Messages),
            Notice::OfOthers(FolderNews::Flags(id)) => self.happens(id, Happened::Flags),
        }
    }

    fn happens(&mut self, id: FolderId, what: Happened) {
        let wants = |events: Events| if what == Happened::Flags { events.flags } else { events.messages };
        // One that is not known may have been made a moment ago.
        let unknown = !self.pending.changes.is_empty();
        if self.folders.get(&id).map_or(unknown, |folder| wants(folder.events)) {
            let before = self.pending.folders.entry(id).or_insert(what);
            *before = what.max(*before);
        }
    }

    fn take_change(&mut self, change: ListChanged, bytes: usize) {
        if !self.watches() || self.pending.compares {
            return;
        }
        let together = self.pending.change_bytes + bytes;
        if self.pending.changes.len() < CHANGES_MAX && together <= CHANGES_MAX_BYTES {
            self.pending.changes.push(change);
            self.pending.change_bytes = together;
        } else {
            self.compare_all();
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

    /// Whether anything has.
    pub fn has_pending(&self) -> bool {
        let Pending { compares, changes, change_bytes: _, folders } = &self.pending;
        *compares || !changes.is_empty() || !folders.is_empty()
    }

    /// The open folder is this one from here on. What happened while one was open was told otherwise; where it was not told at
    /// all, how the folder is now that it is open no more is told.
    pub fn opens(&mut self, folder: Option<FolderId>) {
        if self.open != folder
            && let Some(before) = std::mem::replace(&mut self.open, folder)
        {
            self.forget_counts(before);
            if !self.selected.messages {
                self.happens(before, Happened::Messages);
            }
        }
    }

    fn forget_counts(&mut self, id: FolderId) {
        if let Some(known) = self.folders.get_mut(&id) {
            known.told = None;
        }
    }

    /// Goes on from a change of the list, which costs what changed: the folders to be counted for it.
    pub fn apply(&mut self, change: &ListChanged) -> Vec<FolderId> {
        let ListChanged { news, is_own } = change;
        let line = &news.name.line;
        let mut counts = Vec::new();
        match &news.change {
            ListChange::Made => {
                if let Some(id) = line.id {
                    // A level that is a folder again is another one.
                    self.forget(id);
                }
                counts.extend(self.keep(line));
            }
            ListChange::Removed(id) => {
                if let Some(id) = id {
                    self.forget(*id);
                }
            }
            ListChange::Renamed { below, .. } => {
                let moved = std::iter::once(line).chain(below.iter().map(|below| &below.line));
                counts.extend(moved.filter_map(|line| self.keep(line)));
            }
            ListChange::Subscription => {
                self.keep_subscription(&line.name, line.subscribed);
                // That it is watched from here on is no news of its messages.
                self.keep(line);
            }
        }
        if *is_own { Vec::new() } else { counts }
    }

    /// A folder has this line now: it, if its messages are to be counted because the client can't know it under this name.
    fn keep(&mut self, line: &FolderInfo) -> Option<FolderId> {
        let id = line.id?;
        let before = self.forget(id);
        let events = self.events(&line.name, line.subscribed);
        if events == Events::default() {
            return None;
        }
        self.bytes += kept_bytes(&line.name);
        // Who hears of names follows it; who does not finds something else under its name.
        let follows =
            before.as_ref().is_some_and(|known| known.name == line.name || known.events.names || events.names);
        let told = before.and_then(|known| known.told).filter(|_| follows);
        let known = Known { name: line.name.clone(), events, told };
        self.folders.insert(id, known);
        Some(id).filter(|_| !follows && events.messages)
    }

    fn forget(&mut self, id: FolderId) -> Option<Known> {
        let known = self.folders.remove(&id)?;
        self.bytes -= kept_bytes(&known.name);
        Some(known)
    }

    fn keep_subscription(&mut self, name: &str, subscribed: bool) {
        if self.subscriptions.remove(name) {
            self.bytes -= kept_bytes(name);
        }
        if subscribed && self.tells_subscription(name) {
            self.bytes += kept_bytes(name);
            self.subscriptions.insert(name.to_owned());
        }
    }

    /// How the list of folders differs from what was told last.
    pub fn differences(&mut self, list: &[FolderInfo]) -> Vec<Difference> {
        let known = self.folders.iter().map(|(id, known)| (*id, known.name.as_str()));
        let follows = |from: &str, to: &str| {
            let names = |name: &str| self.events(name, false).names || self.events(name, true).names;
            names(from) || names(to)
        };
        let (mut all, lost) = differences(known, list, follows);
        let is_new =
            |line: &&FolderInfo| line.id.is_some_and(|id| lost.contains(&id) || !self.folders.contains_key(&id));
        let wanted = |line: &&FolderInfo| self.events(&line.name, line.subscribed) != Events::default();
        let made = list.iter().filter(is_new).filter(wanted);
        all.extend(made.map(|line| Difference::Made(line.name.clone())));
        let subscribed: BTreeSet<&str> = list.iter().filter(|l| l.subscribed).map(|l| l.name.as_str()).collect();
        let ended = self.subscriptions.iter().filter(|name| !subscribed.contains(name.as_str()));
        all.extend(ended.map(|name| Difference::Subscription(name.clone())));
        let begun =
            subscribed.iter().filter(|name| !self.subscriptions.contains(**name) && self.tells_subscription(name));
        all.extend(begun.map(|name| Difference::Subscription((*name).to_owned())));
        // What comes again is another folder to the client.
        lost.into_iter().for_each(|id| drop(self.forget(id)));
        all
    }

    /// The client is told of all that is in the list.
    pub fn follow(&mut self, list: &[FolderInfo]) {
        let now: BTreeSet<FolderId> = list.iter().filter_map(|line| line.id).collect();
        let gone: Vec<FolderId> = self.folders.keys().filter(|id| !now.contains(id)).copied().collect();
        gone.into_iter().for_each(|id| drop(self.forget(id)));
        let ended = std::mem::take(&mut self.subscriptions);
        self.bytes -= ended.iter().map(|name| kept_bytes(name)).sum::<usize>();
        for line in list {
            self.keep(line);
            self.keep_subscription(&line.name, line.subscribed);
        }
    }

    /// What a client that was notified before was told of folders counts on.
    pub fn inherit(&mut self, before: &Notify) {
        for (id, known) in &mut self.folders {
            if let Some(before) = before.folders.get(id).filter(|before| before.name == known.name) {
                known.told = before.told;
            }
        }
    }

    /// What it takes to keep, in bytes.
    ///
    /// # Errors
    /// If that is too much.
    pub fn kept_bytes(&self) -> Result<usize, Overflow> {
        if self.bytes > NOTIFY_MAX_BYTES { Err(Overflow) } else { Ok(self.bytes) }
    }

    /// Those of these folders of whose messages something is told.
    pub fn to_count(&self, of: impl Iterator<Item = FolderId>) -> Vec<(FolderId, u64)> {
        of.filter_map(|id| {
            let known = self.folders.get(&id).filter(|known| known.events.messages && self.open != Some(id))?;
            Some((id, known.told.map_or(0, |told| told.highest_modseq)))
        })
        .collect()
    }

    /// All folders that it is about.
    pub fn all(&self) -> Vec<FolderId> {
        self.folders.keys().copied().collect()
    }

    /// Whether the client was told how a folder is.
    pub fn is_told(&self, id: FolderId) -> bool {
        self.folders.get(&id).is_some_and(|known| known.told.is_some())
    }

    /// A folder has these counts now, after this happened: its name and what is told of it, if the client is told them.
    pub fn counted(&mut self, id: FolderId, now: FolderStatus, what: Happened) -> Option<(&str, Events)> {
        let known = self.folders.get_mut(&id)?;
        let told = known.told.replace(now);
        let same_messages = told.is_some_and(|told| {
            (told.messages, told.uid_next, told.uid_validity) == (now.messages, now.uid_next, now.uid_validity)
        });
        let tells = match what {
            Happened::Messages => known.events.messages,
            Happened::Flags | Happened::Unknown if !same_messages && told.is_some() => known.events.messages,
            Happened::Flags => known.events.flags,
            Happened::Unknown => known.events.messages && told.is_none() || known.events.flags,
        };
        tells.then_some((known.name.as_str(), known.events))
    }
}

/// What a name takes of what is kept, in bytes.
fn kept_bytes(name: &str) -> usize {
    name.len() + FOLDER_BYTES
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mailraft_mailbox::api::Listing;

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
        let of = |name: &str| BTreeSet::from([name.to_owned()]);
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
        all.follow(&list);
        assert!(all.kept_bytes().is_ok_and(|bytes| bytes <= NOTIFY_MAX_BYTES));
        let made = list_news(ListChange::Made, line(9_999, "9999", false));
        all.apply(&made);
        assert_eq!(all.kept_bytes(), Err(Overflow));
        all.apply(&list_news(ListChange::Removed(Some(FolderId(9_999))), line(0, "9999", false)));
        assert!(all.kept_bytes().is_ok());
        list.push(line(9_999, "9999", false));
        all.follow(&list);
        assert_eq!(all.kept_bytes(), Err(Overflow));
        let names = (0..=count).map(|n| format!("{n:04}")).collect();
        let named = notify(vec![(Filter::Mailboxes(names), Some(MESSAGES))]);
        assert_eq!(named.kept_bytes(), Err(Overflow), "names too");
        let name = "x".repeat(NOTIFY_MAX_BYTES / ITEM_BYTES_EACH);
        let items = vec![Item::BinarySize { name, path: Vec::new() }];
        let fetched = Notify::new(OfSelected { items, ..OfSelected::default() }, Vec::new());
        assert_eq!(fetched.kept_bytes(), Err(Overflow), "what is told of new messages too");
    }

    fn list_news(change: ListChange, line: FolderInfo) -> ListChanged {
        let name = Listing { is_there: line.id.is_some(), line, has_children: false };
        ListChanged { news: Arc::new(ListNews { change, name, above: Vec::new() }), is_own: false }
    }

    #[test]
    fn what_is_kept_is_counted_the_same_however_it_came() {
        let mut all = notify(vec![(Filter::Subscribed, Some(NAMES)), (Filter::Personal, Some(MESSAGES))]);
        all.follow(&[line(1, "INBOX", true), line(2, "a", false)]);
        let renamed = ListChange::Renamed { from: "a".into(), below: Vec::new() };
        for (change, line) in [
            (ListChange::Made, line(3, "b", false)),
            (ListChange::Subscription, line(3, "b", true)),
            (renamed, line(2, "long name", false)),
            (ListChange::Removed(Some(FolderId(3))), line(0, "b", true)),
            (ListChange::Subscription, line(0, "nobody", true)),
        ] {
            all.apply(&list_news(change, line));
        }
        let now = [line(1, "INBOX", true), line(0, "b", true), line(2, "long name", false), line(0, "nobody", true)];
        assert_eq!(all.differences(&now), [], "it has followed each of them");
        let mut anew = notify(vec![(Filter::Subscribed, Some(NAMES)), (Filter::Personal, Some(MESSAGES))]);
        anew.follow(&now);
        assert_eq!(all.bytes, anew.bytes);
        all.follow(&[]);
        assert_eq!(all.bytes, 0);
    }

    #[test]
    fn changes_that_wait_are_bounded_and_past_that_the_lists_are_compared() {
        let news = || Notice::OfOthers(FolderNews::List(list_news(ListChange::Subscription, line(0, "x", true)).news));
        let mut all = notify(vec![(Filter::Personal, Some(NAMES))]);
        for _ in 0..CHANGES_MAX {
            all.take(news());
        }
        assert_eq!(all.pending.changes.len(), CHANGES_MAX);
        all.take(news());
        all.take(news());
        let pending = all.take_pending();
        assert!(pending.compares && pending.changes.is_empty());
        assert!(!all.take_pending().compares, "once");
        let long = |n: usize| format!("{n:03}{}", "x".repeat(900));
        let below = (0..100).map(|n| list_news(ListChange::Made, line(1, &long(n), false)).news.name.clone()).collect();
        let renamed = list_news(ListChange::Renamed { from: "a".into(), below }, line(0, "x", true)).news;
        let news_of_many = Notice::OfOthers(FolderNews::List(renamed));
        let fit = CHANGES_MAX_BYTES / notice_bytes(&news_of_many);
        assert!((2..CHANGES_MAX).contains(&fit));
        for _ in 0..fit {
            all.take(news_of_many.clone());
        }
        assert!(!all.pending.compares);
        all.take(news_of_many);
        assert!(all.take_pending().compares, "few that take much are too many too");
        assert!(!all.has_pending());
        let mut nothing = Notify::default();
        nothing.take(news());
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
            line(8, "x", false),
            line(9, "y", false),
        ]);
        let now = [
            line(1, "INBOX", true),
            line(2, "z", false),
            line(3, "z/b", false),
            line(0, "a/b", true),
            line(4, "d", false),
            line(0, "later", true),
            line(6, "plain", true),
            line(7, "new", false),
            line(9, "x", false),
            line(8, "y", false),
        ];
        let renamed = |from: &str, to: &str| Difference::Renamed { from: from.into(), to: to.into() };
        let expected = [
            Difference::Removed("gone".into()),
            renamed("a", "z"),
            Difference::MovedAlong { from: "a/b".into(), to: "z/b".into() },
            renamed("z/c", "d"),
            Difference::Removed("x".into()),
            renamed("y", "x"),
            Difference::Made("new".into()),
            Difference::Made("y".into()),
            Difference::Subscription("only".into()),
            Difference::Subscription("later".into()),
            Difference::Subscription("plain".into()),
        ];
        assert_eq!(all.differences(&now), expected);
        all.follow(&now);
        assert_eq!(all.differences(&now), []);
    }

    #[test]
    fn counts_are_told_where_something_happened_that_the_client_wants_to_know() {
        let flags = Events { messages: true, flags: true, ..Events::default() };
        let id = FolderId(1);
        use Happened::{Flags, Messages, Unknown};
        for (events, told) in [
            (MESSAGES, [true, true, false, false, false, true]),
            // Of flags besides \Seen HIGHESTMODSEQ alone tells.
            (flags, [true, true, true, true, true, true]),
        ] {
            let mut all = notify(vec![(Filter::Personal, Some(events))]);
            all.follow(&[line(1, "INBOX", false)]);
            let mut now =
                FolderStatus { uid_next: 5, messages: 3, unseen: 1, highest_modseq: 9, ..FolderStatus::default() };
            let mut tells = |what: Happened, change: fn(&mut FolderStatus)| {
                now.highest_modseq += 1;
                change(&mut now);
                all.counted(id, now, what).is_some()
            };
            let is = [
                tells(Unknown, |_| {}),
                tells(Messages, |_| {}),
                tells(Flags, |now| now.unseen = 0),
                tells(Flags, |_| {}),
                tells(Unknown, |_| {}),
                tells(Unknown, |now| now.uid_next += 1),
            ];
            assert_eq!(is, told, "{events:?}");
            assert_eq!(all.to_count(all.all().into_iter()), [(id, 15)]);
            all.opens(Some(id));
            assert_eq!(all.to_count(all.all().into_iter()), []);
            assert!(!all.has_pending());
            all.opens(None);
            let pending = all.take_pending();
            assert_eq!(pending.folders, BTreeMap::from([(id, Messages)]), "it heard nothing of it while it was open");
            assert_eq!(
                all.to_count(all.all().into_iter()),
                [(id, 0)],
                "what was told while it was open was told otherwise"
            );
        }
    }
}
