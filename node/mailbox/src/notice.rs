//! What a session hears of folders that it does not have open, if it watches them. It says that something is another way
//! now, and the session looks: so whatever was missed is made good by looking once more.

use mailraft_storage::CommandId;
use serde::{Deserialize, Serialize};

use crate::api::Event;
use crate::folders::FolderId;

/// Something changed in a folder that is not open, or in the list of folders. It travels between nodes: variants are only
/// ever added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// The session watches another owner: it does not know what happened before.
    Anew,
    /// Messages came or went.
    Messages(FolderId),
    /// Flags changed.
    Flags(FolderId),
    /// A folder of this name was made, or a level became a folder again.
    Made(String),
    /// A folder of this name was deleted; where others are below it, it stays as a level.
    Removed(String),
    /// A folder has another name, and those below it too.
    Renamed {
        /// The old name.
        from: String,
        /// The new one.
        to: String,
    },
    /// A subscription to this name began or ended.
    Subscription(String),
}

/// What an entry makes sessions hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Those that have the folder open; those that watch hear of it as a [`Notice`].
    InFolder(Event),
    /// Those that watch.
    OfFolders {
        /// The command that caused it.
        origin: CommandId,
        /// What they hear.
        notice: Notice,
    },
}
