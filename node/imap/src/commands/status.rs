//! STATUS (RFC 3501, section 6.3.10; SIZE from RFC 8438, HIGHESTMODSEQ from RFC 7162, APPENDLIMIT from RFC 7889, MAILBOXID from RFC 8474,
//! DELETED from RFC 9051).

use mailraft_mailbox::api::FolderStatus;
use mailraft_protocol::{Out, Output};

use crate::cursor::{Cursor, Read, wrong};
use crate::folders;
use crate::outcome::{Done, Outcome, ok};
use crate::print;
use crate::state::{Enabled, State};
use crate::store::Mailstore;

/// A count of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Messages,
    Recent,
    Unseen,
    UidNext,
    UidValidity,
    Size,
    HighestModseq,
    AppendLimit,
    MailboxId,
    Deleted,
}

pub(crate) async fn run<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    c.space()?;
    let folder = c.folder()?;
    c.space()?;
    let items = items(c)?;
    c.end()?;
    if items.contains(&Item::HighestModseq) {
        state.enable(Enabled::CondStore);
    }
    tell(state, folder, &items, store, out).await?;
    ok("STATUS")
}

/// The items in parentheses, each once.
pub(super) fn items(c: &mut Cursor<'_>) -> Read<Vec<Item>> {
    c.open()?;
    let mut items = Vec::new();
    while !c.close() {
        let item = match c.word()?.as_str() {
            "MESSAGES" => Item::Messages,
            "RECENT" => Item::Recent,
            "UNSEEN" => Item::Unseen,
            "UIDNEXT" => Item::UidNext,
            "UIDVALIDITY" => Item::UidValidity,
            "SIZE" => Item::Size,
            "HIGHESTMODSEQ" => Item::HighestModseq,
            "APPENDLIMIT" => Item::AppendLimit,
            "MAILBOXID" => Item::MailboxId,
            "DELETED" => Item::Deleted,
            other => return wrong(format!("STATUS does not know {other}")),
        };
        if !items.contains(&item) {
            items.push(item);
        }
        c.eat(b' ');
    }
    if items.is_empty() { wrong("STATUS wants an item") } else { Ok(items) }
}

/// One STATUS response.
pub(super) async fn tell<S: Mailstore, O: Output>(
    state: &State,
    folder: String,
    items: &[Item],
    store: &mut S,
    out: &mut Out<O>,
) -> Result<(), Done> {
    let name = print::folder(&folder, state.spelling());
    let status = folders::status(&folder, store).await?;
    let id = match items.contains(&Item::MailboxId) {
        true => folders::mailbox_id(&folder, status.uid_validity, store).await?,
        false => String::new(),
    };
    let deleted = match items.contains(&Item::Deleted) {
        true => folders::deleted(&folder, store).await?,
        false => 0,
    };
    out.line(&line(state, &name, &status, items, (&id, deleted)));
    Ok(())
}

/// A STATUS response without the end of its line, of a name as the client spells it; `extra` is what MAILBOXID and DELETED are.
pub(super) fn line(state: &State, name: &str, status: &FolderStatus, items: &[Item], extra: (&str, u32)) -> String {
    let (id, deleted) = extra;
    let append_limit = state.config.max_message_bytes;
    let list: Vec<String> = items
        .iter()
        .map(|item| match item {
            Item::Messages => format!("MESSAGES {}", status.messages),
            Item::Recent => format!("RECENT {}", status.recent),
            Item::Unseen => format!("UNSEEN {}", status.unseen),
            Item::UidNext => format!("UIDNEXT {}", status.uid_next),
            Item::UidValidity => format!("UIDVALIDITY {}", status.uid_validity),
            Item::Size => format!("SIZE {}", status.size_bytes),
            Item::HighestModseq => format!("HIGHESTMODSEQ {}", status.highest_modseq),
            Item::AppendLimit => format!("APPENDLIMIT {append_limit}"),
            Item::MailboxId => format!("MAILBOXID ({id})"),
            Item::Deleted => format!("DELETED {deleted}"),
        })
        .collect();
    format!("* STATUS {name} ({})", list.join(" "))
}
