//! What commands take in memory while they wait.

use mailraft_storage::CommandId;

use crate::api::{Command, NewMessage};
use crate::flags::Flags;
use crate::uids::UidSet;

/// What a command takes beside its texts, in bytes, roughly.
const COMMAND_BYTES: usize = 256;

/// What a command takes, in bytes, roughly.
pub(crate) fn command_bytes(command: &Command) -> usize {
    let new_message = |d: &NewMessage| {
        d.inline.as_ref().map_or(0, bytes::Bytes::len)
            + d.header.len()
            + d.envelope.len()
            + d.structure.len()
            + d.message_id.as_ref().map_or(0, String::len)
    };
    let set = |uids: &UidSet| uids.ranges().len() * 8;
    let flags = |flags: &Flags| flags.keywords().map(|k| k.len() + 32).sum::<usize>();
    COMMAND_BYTES
        + match command {
            Command::Sync | Command::List | Command::Unselect | Command::ReadChunk { .. } | Command::Maildrop => 0,
            Command::Status { folder } | Command::Select { folder, .. } => folder.len(),
            Command::Resume { known, .. } => set(known),
            Command::Fetch { uids, .. } | Command::UniqueIds { uids, .. } | Command::Remove { uids, .. } => set(uids),
            Command::Deliver { new_message: d, reverse_path, detail, .. } => {
                new_message(d) + reverse_path.len() + detail.as_ref().map_or(0, String::len)
            }
            Command::Append { folder, new_message: d, flags: f, .. } => folder.len() + new_message(d) + flags(f),
            Command::Store { uids, flags: f, .. } => set(uids) + flags(f),
            Command::Copy { uids, to, .. } | Command::Move { uids, to, .. } => set(uids) + to.len(),
            Command::Expunge { uids, .. } => uids.as_ref().map_or(0, set),
            Command::CreateFolder { name } | Command::DeleteFolder { name } | Command::Subscribe { name, .. } => {
                name.len()
            }
            Command::RenameFolder { from, to } => from.len() + to.len(),
            Command::Once { once, command } => {
                (once.heard.len() + once.own.len()) * size_of::<CommandId>() + command_bytes(command)
            }
            Command::InMaildrop { command, .. } => command_bytes(command),
            Command::Heard { commands } => commands.len() * size_of::<CommandId>(),
        }
}
