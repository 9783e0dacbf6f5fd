//! CREATE (RFC 3501, section 6.3.3), for a special use too (RFC 6154, section 3), with MAILBOXID (RFC 8474).

use mailraft_mailbox::Command;
use mailraft_mailbox::api::{HIERARCHY_SEPARATOR, SpecialUse};
use mailraft_protocol::{Failure, Refusal};

use crate::cursor::{Cursor, Read, wrong};
use crate::folders;
use crate::outcome::{Done, Outcome, ok};
use crate::print;
use crate::store::Mailstore;

/// Uses named in one CREATE.
const USES_MAX: usize = 10;

pub(crate) async fn run<S: Mailstore>(c: &mut Cursor<'_>, store: &mut S) -> Outcome {
    c.space()?;
    let mut name = c.folder()?;
    let uses = match c.eat(b' ') {
        true => uses(c)?,
        false => Vec::new(),
    };
    c.end()?;
    // The separator at its end says that folders will be made below it; here every folder may have some.
    if name.ends_with(HIERARCHY_SEPARATOR) {
        name.pop();
    }
    let command = match uses.as_slice() {
        [] => Command::CreateFolder { name: name.clone() },
        [named] => match SpecialUse::ALL.into_iter().find(|of| print::special_use(*of).eq_ignore_ascii_case(named)) {
            Some(special_use) => Command::CreateFolderFor { name: name.clone(), special_use },
            None => return Err(Done::No(format!("[USEATTR] no folder here is {named}"))),
        },
        _ => return Err(Done::No("[USEATTR] a folder has one special use".into())),
    };
    match store.ask(command).await {
        Ok(_) => {}
        Err(Failure::NotDone(Refusal::NotAllowed(why))) if !uses.is_empty() => {
            return Err(Done::No(format!("[USEATTR] {why}")));
        }
        Err(failure) => return Err(failure.into()),
    }
    // It is made: if its identifier can't be learnt now, the client asks for that when it needs it.
    match folders::status(&name, store).await {
        Ok(status) => match folders::mailbox_id(&name, status.uid_validity, store).await {
            Ok(id) => Ok(Done::Ok(format!("[MAILBOXID ({id})] CREATE done"))),
            Err(_) => ok("CREATE"),
        },
        Err(_) => ok("CREATE"),
    }
}

/// `(USE (\Sent))`
fn uses(c: &mut Cursor<'_>) -> Read<Vec<String>> {
    let mut uses = Vec::new();
    c.open()?;
    if c.word()? != "USE" {
        return wrong("CREATE knows only USE");
    }
    c.space()?;
    c.open()?;
    while !c.close() {
        c.expect(b'\\')?;
        uses.push(format!("\\{}", c.atom()?));
        if uses.len() > USES_MAX {
            return wrong("too many uses");
        }
        c.eat(b' ');
    }
    if c.close() { Ok(uses) } else { wrong("a parenthesis is missing") }
}
