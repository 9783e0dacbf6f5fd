//! THREAD (RFC 5256, section 3).

use mailraft_mailbox::api::FetchWhat;
use mailraft_message::sort::Compared;
use mailraft_message::subject::BaseSubject;
use mailraft_message::thread::{ByReferences, BySubject, Forest, Threaded, Told};
use mailraft_message::{Envelope, header};
use mailraft_protocol::{BodyReader, Out, Output, Refusal};
use mailraft_storage::entry::versioned_decode;

use crate::cursor::{Cursor, wrong};
use crate::finding::{Looking, find, long_header};
use crate::opened::{Names, fetched, tell_progress, view};
use crate::outcome::{Done, Outcome, ok};
use crate::state::State;
use crate::store::{Breathing, Mailstore, PARSED_VERSION, fetch_at_once, hold_keys};

/// The conversations that are being put together.
enum Algorithm {
    OrderedSubject(BySubject),
    References(ByReferences),
}

pub(crate) async fn run<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    names: Names,
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    view(state)?;
    c.space()?;
    let mut algorithm = match c.word()?.as_str() {
        "ORDEREDSUBJECT" => Algorithm::OrderedSubject(BySubject::default()),
        "REFERENCES" => Algorithm::References(ByReferences::default()),
        other => return Ok(wrong(format!("THREAD does not know {other}"))?),
    };
    c.space()?;
    let looking = Looking::parse_in_charset(c, state, store)?;
    let saved = state.saved.clone();
    let Some(found) = find(state, looking, &saved, store, out).await? else { return ok("THREAD") };
    let folder = view(state)?.folder;
    let what = FetchWhat { content: true, header: true };
    let mut bodies = BodyReader::default();
    for (n, batch) in found.chunks(fetch_at_once(what)).enumerate() {
        tell_progress(&state.tag, n * fetch_at_once(what), found.len(), store, out).await;
        if out.is_gone() {
            return ok("THREAD");
        }
        for message in fetched(folder, batch, what, store).await? {
            store.breathe().await?;
            let (Some(content), Some(kept)) = (&message.content, &message.header) else { continue };
            let envelope: Envelope =
                versioned_decode("envelope", PARSED_VERSION, &kept.envelope).map_err(|_| Refusal::Corrupt)?;
            let compared = Compared {
                envelope: Some(&envelope),
                received_unix_seconds: content.internal_date.unix_seconds,
                size_bytes: content.size_bytes,
            };
            let threaded = Threaded {
                number: message.state.uid,
                sent_unix_seconds: compared.sent_unix_seconds(),
                subject: BaseSubject::of(envelope.subject.as_deref().unwrap_or_default()),
            };
            let bytes = match &mut algorithm {
                Algorithm::OrderedSubject(by) => {
                    by.add(threaded);
                    by.memory_bytes()
                }
                Algorithm::References(by) => {
                    let Ok(long) = long_header(&message, &mut bodies, store).await? else { continue };
                    let block = long.as_deref().unwrap_or(&kept.header);
                    let references = header::first(block, "References").unwrap_or_default();
                    let (id, reply) = (envelope.message_id.as_deref(), envelope.in_reply_to.as_deref());
                    let (id, reply) = (id.unwrap_or_default(), reply.unwrap_or_default());
                    by.add(threaded, id, references, reply, &mut Breathing(store)).await?;
                    by.memory_bytes()
                }
            };
            hold_keys(bytes, store)?;
        }
    }
    let forest = match algorithm {
        Algorithm::OrderedSubject(by) => by.finish(&mut Breathing(store)).await?,
        Algorithm::References(by) => by.finish(&mut Breathing(store)).await?,
    };
    tell(state, &forest, names, out).await?;
    ok("THREAD")
}

/// `* THREAD (2)(3 6 (4 23)(44 7 96))`
async fn tell<O: Output>(state: &mut State, forest: &Forest, names: Names, out: &mut Out<O>) -> Result<(), Done> {
    let view = view(state)?;
    out.text("* THREAD");
    let mut before = " ";
    for conversation in forest.conversations() {
        for told in conversation {
            match told {
                Told::Begin => {
                    out.text(before);
                    out.text("(");
                    before = "";
                }
                Told::Message(uid) => {
                    out.text(before);
                    let number = match names {
                        Names::Uids => uid as usize,
                        Names::Numbers => view.number(uid).unwrap_or_default(),
                    };
                    out.text(&number.to_string());
                    before = " ";
                }
                Told::End => {
                    out.text(")");
                    before = "";
                }
            }
        }
        out.pass_on().await;
    }
    out.line("");
    Ok(())
}
