//! Which commands change something, and how much.

use crate::api::Command;

impl Command {
    /// Whether it may change more messages than this.
    pub fn may_change_more_than(&self, messages: u64) -> bool {
        match self {
            Command::Once { command, .. } | Command::InMaildrop { command, .. } => {
                command.may_change_more_than(messages)
            }
            Command::Store { uids, .. }
            | Command::Copy { uids, .. }
            | Command::Move { uids, .. }
            | Command::Expunge { uids: Some(uids), .. }
            | Command::Remove { uids, .. } => uids.len() > messages,
            Command::Expunge { uids: None, .. } | Command::DeleteFolder { .. } | Command::RenameFolder { .. } => true,
            Command::Sync
            | Command::List
            | Command::Status { .. }
            | Command::Select { .. }
            | Command::Resume { .. }
            | Command::Unselect
            | Command::Fetch { .. }
            | Command::ReadChunk { .. }
            | Command::Deliver { .. }
            | Command::Append { .. }
            | Command::AppendMany { .. }
            | Command::CreateFolder { .. }
            | Command::Subscribe { .. }
            | Command::Heard { .. }
            | Command::Maildrop
            | Command::UniqueIds { .. }
            | Command::CreateFolderFor { .. }
            | Command::Quota
            | Command::Replace { .. }
            | Command::ReadChunks { .. }
            | Command::SaveDates { .. }
            | Command::CountDeleted { .. }
            | Command::Watch { .. }
            | Command::Statuses { .. }
            | Command::Search(_)
            | Command::Accept { .. }
            | Command::DeliverQueued { .. }
            | Command::ReleaseQueued { .. }
            | Command::ChangeQueue { .. }
            | Command::Report { .. }
            | Command::DecideQueued { .. }
            | Command::QueueAsked { .. }
            | Command::QueueAttempts { .. }
            | Command::QueueItems { .. }
            | Command::QueueItem { .. } => false,
        }
    }

    /// Whether it is done without an entry of its own.
    pub fn is_read(&self) -> bool {
        match self {
            Command::Sync
            | Command::List
            | Command::Status { .. }
            | Command::Select { .. }
            | Command::Resume { .. }
            | Command::Unselect
            | Command::Fetch { .. }
            | Command::ReadChunk { .. }
            | Command::ReadChunks { .. }
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
            | Command::Heard { .. } => true,
            Command::Deliver { .. }
            | Command::Append { .. }
            | Command::AppendMany { .. }
            | Command::Store { .. }
            | Command::Copy { .. }
            | Command::Move { .. }
            | Command::Expunge { .. }
            | Command::CreateFolder { .. }
            | Command::CreateFolderFor { .. }
            | Command::DeleteFolder { .. }
            | Command::RenameFolder { .. }
            | Command::Subscribe { .. }
            | Command::Remove { .. }
            | Command::Replace { .. }
            | Command::Accept { .. }
            | Command::DeliverQueued { .. }
            | Command::ReleaseQueued { .. }
            | Command::ChangeQueue { .. }
            | Command::Report { .. }
            | Command::DecideQueued { .. }
            | Command::Once { .. } => false,
            Command::InMaildrop { command, .. } => command.is_read(),
        }
    }
}
