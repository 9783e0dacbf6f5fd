//! STATUS (RFC 3501, section 6.3.10; SIZE from RFC 8438).

use mailraft_mailbox::{Answer, Command};

use crate::cursor::Cursor;
use crate::out::Out;
use crate::outcome::{Done, Outcome, ok};
use crate::print;
use crate::store::{Mailstore, Output};

pub(crate) async fn run<S: Mailstore, O: Output>(c: &mut Cursor<'_>, store: &mut S, out: &mut Out<'_, O>) -> Outcome {
    c.space()?;
    let folder = c.folder()?;
    c.space()?;
    c.open()?;
    let mut items = Vec::new();
    while !c.close() {
        items.push(c.word()?);
        c.eat(b' ');
    }
    c.end()?;
    let Answer::Status(status) = store.ask(Command::Status { folder: folder.clone() }).await? else {
        return Err(Done::No("the mailbox answered something else".into()));
    };
    let mut list = Vec::new();
    for item in items {
        let value = match item.as_str() {
            "MESSAGES" => u64::from(status.messages),
            "RECENT" => u64::from(status.recent),
            "UNSEEN" => u64::from(status.unseen),
            "UIDNEXT" => u64::from(status.uid_next),
            "UIDVALIDITY" => u64::from(status.uid_validity),
            "SIZE" => status.size_bytes,
            other => return Err(Done::Bad(format!("STATUS does not know {other}"))),
        };
        list.push(format!("{item} {value}"));
    }
    out.line(&format!("* STATUS {} ({})", print::folder(&folder), list.join(" ")));
    ok("STATUS")
}
