//! The mailbox's folders, as several commands want them.

use mailraft_mailbox::api::{FolderInfo, FolderStatus};
use mailraft_mailbox::{Answer, Command};
use mailraft_protocol::Refusal;

use crate::objectid;
use crate::outcome::Done;
use crate::store::Mailstore;

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
