//! What a session hears of folders that it does not have open, if it watches them. Of messages it hears only that something
//! is another way now, and looks; of the list of folders it hears what changed, with the names that it is about as they are
//! after it: so a change costs each session what changed, however many folders there are. Whatever is missed is made good by
//! looking at everything once more.

use std::sync::Arc;

use mailraft_storage::CommandId;
use serde::{Deserialize, Serialize};

use crate::api::{Change, Event};
use crate::folders::{FolderId, Listing};

/// Something that a session which watches folders hears. It travels between nodes: variants are only ever added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// The session watches another owner, or lost what it had heard: it does not know what happened before.
    Anew,
    /// The session asked for the list of folders: all that it heard before this is in the answer.
    ListIsHere,
    /// What somebody else did.
    OfOthers(FolderNews),
    /// What the session did itself. Its client is told nothing of it, and knows it.
    Own(FolderNews),
}

/// Something changed in a folder that is not open, or in the list of folders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FolderNews {
    /// Messages came or went.
    Messages(FolderId),
    /// Flags changed.
    Flags(FolderId),
    /// The list of folders changed. In memory once, for however many sessions it waits.
    List(Arc<ListNews>),
}

impl FolderNews {
    /// What an event is to those that do not have its folder open. Of one that is deleted they hear as its name goes.
    pub fn of(event: &Event) -> Option<FolderNews> {
        match event.change {
            Change::Added(_) | Change::Expunged(_) => Some(FolderNews::Messages(event.folder)),
            Change::Flagged(_) => Some(FolderNews::Flags(event.folder)),
            Change::FolderDeleted => None,
        }
    }
}

/// How the list of folders changed, and the names that it is about as they were right after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListNews {
    /// How.
    pub change: ListChange,
    /// The name that it is about; the new one of a folder that was renamed.
    pub name: Listing,
    /// The levels right above it, which have children now, or none any more: of a folder that was renamed, those above its old
    /// name and its new one where they differ.
    pub above: Vec<Listing>,
}

/// A change of the list of folders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListChange {
    /// A folder was made, or a level became a folder again.
    Made,
    /// This folder was deleted; where others are below it, its name stays as a level. None for a level that went with the last
    /// folder below it.
    Removed(Option<FolderId>),
    /// A folder has another name.
    Renamed {
        /// The old one.
        from: String,
        /// What is below it, which moves along, under its new names.
        below: Vec<Listing>,
    },
    /// A subscription to this name began or ended.
    Subscription,
}

/// What an entry makes sessions hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Those that have the folder open; those that watch hear of it as a [`Notice`].
    InFolder(Event),
    /// Those that watch.
    OfList {
        /// The command that caused it.
        origin: CommandId,
        /// What they hear.
        news: Arc<ListNews>,
    },
}
