//! The changing commands, one a file. Each works on a copy of the mailbox and answers or refuses.

mod accept;
mod append;
mod append_many;
mod change_queue;
mod copy;
mod create_folder;
mod decide_queued;
mod delete_folder;
mod deliver;
mod deliver_queued;
mod expunge;
mod move_messages;
mod new_message;
mod once;
mod release_queued;
mod remove;
mod rename_folder;
mod replace;
mod report;
mod store;
mod subscribe;

use mailraft_storage::RowKey;

use crate::api::{Answer, Command, NewMessage, Refusal};
use crate::work::{Context, Work};
use deliver::Delivery;

pub use copy::COPY_UIDS_MAX;
pub(crate) use create_folder::begin;
pub(crate) use deliver::sweep_deliveries;
pub(crate) use once::{sweep_heard, sweep_repeats};

/// Decides one command.
pub(crate) fn decide(work: &mut Work<'_>, command: &Command) -> Result<Answer, Refusal> {
    match command {
        Command::Deliver { new_message, reverse_path, detail, deduplicate, received } => {
            let how =
                Delivery { reverse_path, detail: detail.as_deref(), deduplicate: *deduplicate, received: *received };
            deliver::deliver(work, new_message, &how)
        }
        Command::Append { folder, new_message, flags, internal_date } => {
            append::append(work, folder, new_message, flags, *internal_date)
        }
        Command::AppendMany { folder, messages } => append_many::append_many(work, folder, messages),
        Command::Store { folder, uids, mode, flags, unchanged_since } => {
            store::store(work, *folder, uids, *mode, flags, *unchanged_since)
        }
        Command::Copy { folder, uids, to } => copy::copy(work, *folder, uids, to),
        Command::Move { folder, uids, to } => move_messages::move_messages(work, *folder, uids, to),
        Command::Expunge { folder, uids } => expunge::expunge(work, *folder, uids.as_ref()),
        Command::CreateFolder { name } => create_folder::create_folder(work, name),
        Command::CreateFolderFor { name, special_use } => create_folder::create_folder_for(work, name, *special_use),
        Command::DeleteFolder { name } => delete_folder::delete_folder(work, name),
        Command::RenameFolder { from, to } => rename_folder::rename_folder(work, from, to),
        Command::Subscribe { name, on } => subscribe::subscribe(work, name, *on),
        Command::Remove { folder, uids } => remove::remove(work, *folder, uids),
        Command::Replace { folder, uid, to, new_message, flags, internal_date } => {
            replace::replace(work, (*folder, *uid), to, new_message, flags, *internal_date)
        }
        Command::Once { once, command } => once::once(work, once, command),
        Command::Accept { new_message, accepted, received } => accept::accept(work, new_message, accepted, *received),
        Command::DeliverQueued { origin, new_message, sealed_as, reverse_path, detail, deduplicate, received } => {
            let how =
                Delivery { reverse_path, detail: detail.as_deref(), deduplicate: *deduplicate, received: *received };
            deliver_queued::deliver_queued(work, origin, new_message, *sealed_as, &how)
        }
        Command::ReleaseQueued { origin } => release_queued::release_queued(work, origin),
        Command::ChangeQueue { change } => change_queue::change_queue(work, change),
        Command::Report { told, new_message, accepted, received } => {
            report::report(work, told, new_message, accepted, *received)
        }
        Command::DecideQueued { item, recipients, decision } => {
            decide_queued::decide_queued(work, *item, recipients, *decision)
        }
        // The owner has looked who has the maildrop.
        Command::InMaildrop { command, .. } => decide(work, command),
        Command::Heard { .. }
        | Command::Sync
        | Command::List
        | Command::Status { .. }
        | Command::Select { .. }
        | Command::Resume { .. }
        | Command::Unselect
        | Command::Fetch { .. }
        | Command::Maildrop
        | Command::UniqueIds { .. }
        | Command::SaveDates { .. }
        | Command::Quota
        | Command::CountDeleted { .. }
        | Command::Watch { .. }
        | Command::Statuses { .. }
        | Command::Search(_)
        | Command::QueueItems { .. }
        | Command::QueueItem { .. }
        | Command::QueueAsked { .. }
        | Command::QueueAttempts { .. }
        | Command::ReadChunks { .. }
        | Command::ReadChunk { .. } => Err(Refusal::NotAllowed("a read changes nothing".to_owned())),
    }
}

/// The messages that a command brings.
pub(crate) fn new_messages_of(command: &Command) -> Vec<&NewMessage> {
    match command {
        Command::Deliver { new_message, .. }
        | Command::Accept { new_message, .. }
        | Command::Report { new_message, .. }
        | Command::DeliverQueued { new_message, .. }
        | Command::Append { new_message, .. }
        | Command::Replace { new_message, .. } => vec![new_message],
        Command::AppendMany { messages, .. } => messages.iter().map(|message| &message.new_message).collect(),
        Command::Once { command, .. } | Command::InMaildrop { command, .. } => new_messages_of(command),
        Command::Store { .. }
        | Command::Copy { .. }
        | Command::Move { .. }
        | Command::Expunge { .. }
        | Command::CreateFolder { .. }
        | Command::CreateFolderFor { .. }
        | Command::Quota
        | Command::CountDeleted { .. }
        | Command::Watch { .. }
        | Command::Statuses { .. }
        | Command::Search(_)
        | Command::DeleteFolder { .. }
        | Command::RenameFolder { .. }
        | Command::Subscribe { .. }
        | Command::Heard { .. }
        | Command::Sync
        | Command::List
        | Command::Status { .. }
        | Command::Select { .. }
        | Command::Resume { .. }
        | Command::Unselect
        | Command::Fetch { .. }
        | Command::Maildrop
        | Command::UniqueIds { .. }
        | Command::SaveDates { .. }
        | Command::Remove { .. }
        | Command::ReleaseQueued { .. }
        | Command::ChangeQueue { .. }
        | Command::DecideQueued { .. }
        | Command::QueueAsked { .. }
        | Command::QueueAttempts { .. }
        | Command::QueueItems { .. }
        | Command::QueueItem { .. }
        | Command::ReadChunks { .. }
        | Command::ReadChunk { .. } => Vec::new(),
    }
}

/// The rows of a command's uploads, to delete if it comes to nothing. None if nothing was uploaded.
pub(crate) fn upload_rows(cx: &Context, command: &Command) -> Vec<RowKey> {
    new_messages_of(command).into_iter().flat_map(|new_message| new_message::upload_rows(cx, new_message)).collect()
}
