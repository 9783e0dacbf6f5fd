//! UIDL (RFC 1939, section 7): the unique id of one message or of all. It stays for as long as the message is there.

use mailraft_mailbox::api::FETCH_UIDS_MAX;
use mailraft_mailbox::{Answer, Command};
use mailraft_protocol::{Failure, Out, Output, Refusal};

use crate::maildrop::Maildrop;
use crate::refusals::{During, refuse};
use crate::reply::{err, line, ok};
use crate::state::{Opened, State, words};

pub async fn run<M: Maildrop, O: Output>(state: &mut State, argument: &[u8], maildrop: &mut M, out: &mut Out<O>) {
    let Some(opened) = state.opened(&mut out.bytes) else { return };
    let mark = out.mark();
    let failed = match words(argument).as_slice() {
        [] => {
            ok(&mut out.bytes, "unique ids follow");
            match list(opened, maildrop, out).await {
                Ok(()) => {
                    line(&mut out.bytes, ".");
                    None
                }
                Err(failure) => Some(failure),
            }
        }
        [number] => {
            let folder = opened.folder;
            let (number, uid) = match opened.find(number) {
                Ok((number, message)) => (number, message.uid),
                Err(why) => return state.wrong(&mut out.bytes, why),
            };
            let ask = Command::UniqueIds { folder, uids: [uid].into_iter().collect() };
            match maildrop.ask(ask).await.and_then(unique_ids) {
                Ok(found) => {
                    match found.first() {
                        Some((_, unique_id)) => ok(&mut out.bytes, &format!("{number} {unique_id}")),
                        None => err(&mut out.bytes, "somebody else has removed this message"),
                    }
                    None
                }
                Err(failure) => Some(failure),
            }
        }
        _ => return state.wrong(&mut out.bytes, "UIDL takes one message or none"),
    };
    match failed {
        None => {}
        // A response of which the client has some can't be completed nor taken back.
        Some(_) if !out.roll_back(mark) => state.closing = true,
        Some(failure) => refuse(state, &failure, During::Transaction, &mut out.bytes),
    }
}

/// The lines of all messages; what somebody else has removed meanwhile has none.
async fn list<M: Maildrop, O: Output>(opened: &Opened, maildrop: &mut M, out: &mut Out<O>) -> Result<(), Failure> {
    let present: Vec<(usize, u32)> = opened.present().map(|(number, message)| (number, message.uid)).collect();
    for some in present.chunks(FETCH_UIDS_MAX) {
        let uids = some.iter().map(|(_, uid)| *uid).collect();
        let found = unique_ids(maildrop.ask(Command::UniqueIds { folder: opened.folder, uids }).await?)?;
        let mut numbers = some.iter();
        for (uid, unique_id) in found {
            let Some((number, _)) = numbers.find(|(_, of)| *of == uid) else { return Err(Refusal::Corrupt.into()) };
            line(&mut out.bytes, &format!("{number} {unique_id}"));
        }
        out.pass_on().await;
        if out.is_gone() {
            return Ok(());
        }
        maildrop.breathe().await?;
    }
    Ok(())
}

fn unique_ids(answer: Answer) -> Result<Vec<(u32, String)>, Failure> {
    match answer {
        Answer::UniqueIds(found) => Ok(found),
        _ => Err(Refusal::Corrupt.into()),
    }
}
