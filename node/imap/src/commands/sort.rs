//! SORT (RFC 5256, section 3; by what is displayed, RFC 5957), with what it may return (ESORT, RFC 5267).

use std::collections::BTreeSet;

use mailraft_mailbox::UidSet;
use mailraft_mailbox::api::FetchWhat;
use mailraft_message::Envelope;
use mailraft_message::sort::{CRITERIA_MAX, Compared, Criterion, Direction};
use mailraft_protocol::{Out, Output, Refusal};
use mailraft_storage::entry::versioned_decode;

use crate::cursor::{Cursor, Read, wrong};
use crate::finding::{Looking, find};
use crate::opened::{Names, fetched, tell_progress, view};
use crate::outcome::{Done, Outcome, ok};
use crate::returns::{Returns, set};
use crate::state::State;
use crate::store::{Mailstore, PARSED_VERSION, fetch_at_once, hold_keys};

/// What a key takes in memory beside its octets, in bytes, roughly.
const KEY_MEMORY_BYTES: usize = 64;

pub(crate) async fn run<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    names: Names,
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    let saved = state.saved.clone();
    let outcome = sort(state, c, names, store, out).await;
    if matches!(outcome, Err(Done::Bad(_))) {
        state.saved = saved;
    }
    outcome
}

async fn sort<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    names: Names,
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    view(state)?;
    c.space()?;
    let returns = Returns::parse(c)?;
    let saved = state.saved.clone();
    if returns.as_ref().is_some_and(|returns| returns.save) {
        state.saved = UidSet::new();
    }
    let criteria = criteria(c)?;
    c.space()?;
    let looking = Looking::parse_in_charset(c, state, store)?;
    let tells_modseq = looking.is_about_modseq();
    let Some(found) = find(state, looking, &saved, store, out).await? else { return ok("SORT") };
    let folder = view(state)?.folder;
    let what = FetchWhat { content: true, header: criteria.iter().any(|(criterion, _)| criterion.needs_envelope()) };
    let (mut keys, mut held) = (BTreeSet::new(), 0);
    for (n, batch) in found.chunks(fetch_at_once(what)).enumerate() {
        tell_progress(&state.tag, n * fetch_at_once(what), found.len(), store, out).await;
        if out.is_gone() {
            return ok("SORT");
        }
        for message in fetched(folder, batch, what, store).await? {
            store.breathe().await?;
            let Some(content) = &message.content else { continue };
            let envelope: Option<Envelope> = match &message.header {
                Some(header) => {
                    Some(versioned_decode("envelope", PARSED_VERSION, &header.envelope).map_err(|_| Refusal::Corrupt)?)
                }
                None => None,
            };
            let compared = Compared {
                envelope: envelope.as_ref(),
                received_unix_seconds: content.internal_date.unix_seconds,
                size_bytes: content.size_bytes,
            };
            let key = compared.key(&criteria);
            held += KEY_MEMORY_BYTES + key.len();
            hold_keys(held, store)?;
            // Those with equal keys come in the order of their numbers.
            keys.insert((key, message.state.uid));
        }
    }
    let sorted: Vec<u32> = keys.into_iter().map(|(_, uid)| uid).collect();
    state.hear(store);
    let tag = state.tag.clone();
    let view = view(state)?;
    let numbers = names.of(&sorted, view);
    let of = returns.as_ref().map_or_else(|| set(&sorted), |returns| returns.saved(&sorted));
    let modseq = view.messages().iter().filter(|m| of.contains(m.uid)).map(|m| m.modseq).max();
    let modseq = modseq.filter(|_| tells_modseq);
    match &returns {
        None => {
            out.text("* SORT");
            for number in numbers {
                out.text(&format!(" {number}"));
            }
            out.line(&modseq.map(|m| format!(" (MODSEQ {m})")).unwrap_or_default());
        }
        Some(returns) if returns.tells() => {
            let modseq = modseq.map(|m| format!(" MODSEQ {m}")).unwrap_or_default();
            out.line(&format!("{}{modseq}", returns.print(&tag, names, &numbers)));
        }
        Some(_) => {}
    }
    if let Some(returns) = returns.filter(|returns| returns.save) {
        state.saved = returns.saved(&sorted);
    }
    ok("SORT")
}

/// `(REVERSE SIZE SUBJECT)`
fn criteria(c: &mut Cursor<'_>) -> Read<Vec<(Criterion, Direction)>> {
    c.open()?;
    let mut criteria = Vec::new();
    let mut direction = Direction::Rising;
    while direction == Direction::Falling || !c.close() {
        let criterion = match c.word()?.as_str() {
            "REVERSE" if direction == Direction::Rising => {
                direction = Direction::Falling;
                c.space()?;
                continue;
            }
            "ARRIVAL" => Criterion::Arrival,
            "CC" => Criterion::Cc,
            "DATE" => Criterion::Date,
            "FROM" => Criterion::From,
            "SIZE" => Criterion::Size,
            "SUBJECT" => Criterion::Subject,
            "TO" => Criterion::To,
            "DISPLAYFROM" => Criterion::DisplayFrom,
            "DISPLAYTO" => Criterion::DisplayTo,
            other => return wrong(format!("SORT does not know {other}")),
        };
        criteria.push((criterion, std::mem::replace(&mut direction, Direction::Rising)));
        if criteria.len() > CRITERIA_MAX {
            return wrong("too many criteria");
        }
        c.eat(b' ');
    }
    if criteria.is_empty() { wrong("SORT wants a criterion") } else { Ok(criteria) }
}
