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
        let info = self.get(name);
        let mut attributes = Vec::new();
        if !self.there.contains(name) {
            attributes.push("\\NonExistent");
        } else if !self.is_selectable(name) {
            attributes.push("\\Noselect");
        }
        let below = format!("{name}{HIERARCHY_SEPARATOR}");
        let has_children = self.there.range(below.as_str()..).next().is_some_and(|n| n.starts_with(&below));
        attributes.push(if has_children { "\\HasChildren" } else { "\\HasNoChildren" });
        if subscriptions == Subscriptions::Told && info.is_some_and(|f| f.subscribed) {
            attributes.push("\\Subscribed");
        }
        attributes.extend(info.and_then(|f| f.special_use).map(print::special_use));
        attributes
    }
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
