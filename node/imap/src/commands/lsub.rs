//! LSUB (RFC 3501, section 6.3.9).

use std::collections::BTreeMap;

use mailraft_mailbox::api::HIERARCHY_SEPARATOR;
use mailraft_protocol::{Out, Output};

use crate::commands::list::{line, matches, whole};
use crate::cursor::Cursor;
use crate::folders;
use crate::outcome::{Outcome, ok};
use crate::store::Mailstore;

pub(crate) async fn run<S: Mailstore, O: Output>(c: &mut Cursor<'_>, store: &mut S, out: &mut Out<O>) -> Outcome {
    c.space()?;
    let reference = c.folder()?;
    c.space()?;
    let pattern = whole(&reference, &c.pattern()?)?;
    c.end()?;
    let mut lines: BTreeMap<(bool, String), bool> = BTreeMap::new();
    for folder in folders::all(store).await?.into_iter().filter(|f| f.subscribed) {
        store.breathe().await?;
        if matches(&pattern, &folder.name) {
            let selectable = folder.id.is_some() && folder.selectable;
            lines.insert((folder.name != "INBOX", folder.name), selectable);
        } else if pattern.contains('%') {
            // With `%`, a level above a subscribed name stands for it.
            for (at, _) in folder.name.match_indices(HIERARCHY_SEPARATOR) {
                let above = &folder.name[..at];
                if matches(&pattern, above) {
                    lines.entry((above != "INBOX", above.to_owned())).or_insert(false);
                }
            }
        }
    }
    for ((_, name), selectable) in lines {
        out.line(&line("LSUB", if selectable { &[] } else { &["\\Noselect"] }, &name, c.spelling()));
        out.pass_on().await;
    }
    ok("LSUB")
}
