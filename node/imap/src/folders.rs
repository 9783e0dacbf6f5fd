//! The mailbox's folders, as several commands want them.

use std::collections::{BTreeMap, BTreeSet};

use mailraft_mailbox::api::{FolderInfo, FolderStatus, HIERARCHY_SEPARATOR};
use mailraft_mailbox::{Answer, Command};
use mailraft_protocol::Refusal;

use crate::objectid;
use crate::outcome::Done;
use crate::print;
use crate::store::Mailstore;

/// A mailbox's folders with the levels above them.
pub(crate) struct Levels<'f> {
    /// What is there: levels that are no folders themselves but have some below them are there too, as \Noselect.
    pub there: BTreeSet<&'f str>,
    by_name: BTreeMap<&'f str, &'f FolderInfo>,
}

/// Whether \Subscribed is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subscriptions {
    Told,
    LeftOut,
}

impl<'f> Levels<'f> {
    /// Of these folders.
    pub(crate) fn of(folders: &'f [FolderInfo]) -> Self {
        let mut there = BTreeSet::new();
        for folder in folders.iter().filter(|f| f.id.is_some()) {
            with_levels_above(&folder.name, &mut there);
        }
        Levels { there, by_name: folders.iter().map(|f| (f.name.as_str(), f)).collect() }
    }

    /// What is known of a name, if it is more than a level.
    pub(crate) fn get(&self, name: &str) -> Option<&'f FolderInfo> {
        self.by_name.get(name).copied()
    }

    /// Whether it can be selected.
    pub(crate) fn is_selectable(&self, name: &str) -> bool {
        self.get(name).is_some_and(|f| f.id.is_some() && f.selectable)
    }

    /// What LIST says of a name.
    pub(crate) fn attributes(&self, name: &str, subscriptions: Subscriptions) -> Vec<&'static str> {
        let below = format!("{name}{HIERARCHY_SEPARATOR}");
        let has_children = self.there.range(below.as_str()..).next().is_some_and(|n| n.starts_with(&below));
        let nothing =
            FolderInfo { name: String::new(), id: None, subscribed: false, special_use: None, selectable: false };
        let line = self.get(name).unwrap_or(&nothing);
        attributes(line, self.there.contains(name), has_children, subscriptions)
    }
}

/// What LIST says of a name that has this line.
pub(crate) fn attributes(
    line: &FolderInfo,
    is_there: bool,
    has_children: bool,
    subscriptions: Subscriptions,
) -> Vec<&'static str> {
    let mut attributes = Vec::new();
    if !is_there {
        attributes.push("\\NonExistent");
    } else if line.id.is_none() || !line.selectable {
        attributes.push("\\Noselect");
    }
    attributes.push(if has_children { "\\HasChildren" } else { "\\HasNoChildren" });
    if subscriptions == Subscriptions::Told && line.subscribed {
        attributes.push("\\Subscribed");
    }
    attributes.extend(line.special_use.map(print::special_use));
    attributes
}

/// Puts a name in, and all levels above it.
pub(crate) fn with_levels_above<'n>(name: &'n str, there: &mut BTreeSet<&'n str>) {
    let mut name = name;
    // Whatever is in there has all levels above it in there too.
    while there.insert(name) {
        let Some(end) = name.rfind(HIERARCHY_SEPARATOR) else { break };
        name = &name[..end];
    }
}

/// All of them, with names that are only subscribed to.
pub(crate) async fn all<S: Mailstore>(store: &mut S) -> Result<Vec<FolderInfo>, Done> {
    match store.ask(Command::List).await? {
        Answer::Folders(folders) => Ok(folders),
        _ => Err(Done::odd_answer()),
    }
}

/// How many of a folder's messages are \\Deleted.
pub(crate) async fn deleted<S: Mailstore>(folder: &str, store: &mut S) -> Result<u32, Done> {
    match store.ask(Command::CountDeleted { folder: folder.to_owned() }).await? {
        Answer::Counted(count) => Ok(count),
        _ => Err(Done::odd_answer()),
    }
}

/// A folder's counts.
pub(crate) async fn status<S: Mailstore>(folder: &str, store: &mut S) -> Result<FolderStatus, Done> {
    match store.ask(Command::Status { folder: folder.to_owned() }).await? {
        Answer::Status(status) => Ok(status),
        _ => Err(Done::odd_answer()),
    }
}

/// MAILBOXID of a folder whose UIDVALIDITY this is.
pub(crate) async fn mailbox_id<S: Mailstore>(folder: &str, uid_validity: u32, store: &mut S) -> Result<String, Done> {
    let info = all(store).await?.into_iter().find(|info| info.name == folder);
    let id = info.and_then(|info| info.id).ok_or(Refusal::NoSuchFolder)?;
    Ok(objectid::print_folder(id, uid_validity))
}
