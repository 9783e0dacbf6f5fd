//! Folders, as they are named and counted.

use serde::{Deserialize, Serialize};

/// The longest folder name, in bytes of UTF-8.
pub const FOLDER_NAME_MAX_BYTES: usize = 1_000;
/// The most folders in a mailbox.
pub const FOLDERS_MAX: usize = 10_000;
/// What separates the levels of a folder's name.
pub const HIERARCHY_SEPARATOR: char = '/';

/// A folder of a mailbox: a number that stays through renames and is never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FolderId(pub u32);

/// RFC 6154 special uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpecialUse {
    /// \Drafts
    Drafts,
    /// \Sent
    Sent,
    /// \Junk
    Junk,
    /// \Trash
    Trash,
    /// \Archive
    Archive,
}

impl SpecialUse {
    /// All of them.
    pub const ALL: [SpecialUse; 5] =
        [SpecialUse::Drafts, SpecialUse::Sent, SpecialUse::Junk, SpecialUse::Trash, SpecialUse::Archive];
}

/// One line of LIST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderInfo {
    /// The full name.
    pub name: String,
    /// None for a name that is only subscribed to, or only a level above others.
    pub id: Option<FolderId>,
    /// Whether it is subscribed to.
    pub subscribed: bool,
    /// Its special use.
    pub special_use: Option<SpecialUse>,
    /// False for a level that was deleted but has folders below it.
    pub selectable: bool,
}

/// A name in the list of folders, with what LIST says of its place among the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Its line.
    pub line: FolderInfo,
    /// Whether there is a folder or a level of that name; else it is at most subscribed to.
    pub is_there: bool,
    /// Whether there are names below it.
    pub has_children: bool,
}

/// A folder's counts (STATUS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderStatus {
    /// MESSAGES
    pub messages: u32,
    /// RECENT
    pub recent: u32,
    /// UNSEEN
    pub unseen: u32,
    /// UIDNEXT
    pub uid_next: u32,
    /// UIDVALIDITY
    pub uid_validity: u32,
    /// HIGHESTMODSEQ
    pub highest_modseq: u64,
    /// SIZE (RFC 8438)
    pub size_bytes: u64,
}

/// What a session hears of folders that it does not have open. It travels between nodes: variants are only ever added at
/// the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Watching {
    /// Nothing.
    Nothing,
    /// Each `Notice`.
    Folders,
}
