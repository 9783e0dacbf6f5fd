//! SEARCH (RFC 3501, section 6.4.4) with what it may return and save (RFC 4731, 5182, 9394).

use mailraft_mailbox::UidSet;
use mailraft_protocol::{Out, Output};

use crate::cursor::Cursor;
use crate::finding::{Looking, find};
use crate::opened::{Names, view};
use crate::outcome::{Done, Outcome, ok};
use crate::returns::{Returns, set};
use crate::state::State;
use crate::store::Mailstore;

pub(crate) async fn run<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    names: Names,
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    let saved = state.saved.clone();
    let outcome = search(state, c, names, store, out).await;
    if matches!(outcome, Err(Done::Bad(_))) {
        // It was no search: what was saved stays (RFC 5182, section 2.1).
        state.saved = saved;
    }
    outcome
}

async fn search<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    names: Names,
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    view(state)?;
    c.space()?;
    // IMAP4rev2 knows no other answer than ESEARCH (RFC 9051, section 6.4.4).
    let returns = Returns::parse(c)?.or_else(|| state.rev2.then(Returns::everything));
    let saved = state.saved.clone();
    if returns.as_ref().is_some_and(|returns| returns.save) {
        // Whatever goes wrong from here on, nothing is saved (RFC 5182, section 2.1).
        state.saved = UidSet::new();
    }
    let looking = Looking::parse(c, state, store)?;
    let tells_modseq = looking.is_about_modseq();
    let Some(found) = find(state, looking, &saved, store, out).await? else { return ok("SEARCH") };
    let tag = state.tag.clone();
    let view = view(state)?;
    let numbers = names.of(&found, view);
    let modseq = |uids: &UidSet| view.messages().iter().filter(|m| uids.contains(m.uid)).map(|m| m.modseq).max();
    match &returns {
        None => {
            let line: String = numbers.iter().map(|number| format!(" {number}")).collect();
            let modseq = modseq(&set(&found)).filter(|_| tells_modseq);
            out.line(&format!("* SEARCH{line}{}", modseq.map(|m| format!(" (MODSEQ {m})")).unwrap_or_default()));
        }
        // Of what is only saved nothing is told.
        Some(returns) if returns.tells() => {
            let modseq = modseq(&returns.saved(&found)).filter(|_| tells_modseq);
            let modseq = modseq.map(|m| format!(" MODSEQ {m}")).unwrap_or_default();
            out.line(&format!("{}{modseq}", returns.print(&tag, names, &numbers)));
        }
        Some(_) => {}
    }
    if let Some(returns) = returns.filter(|returns| returns.save) {
        state.saved = returns.saved(&found);
    }
    ok("SEARCH")
}
