//! The open folder, as commands want it.

use std::collections::BTreeMap;

use mailraft_mailbox::api::{FETCH_UIDS_MAX, FetchWhat, Fetched, FolderId};
use mailraft_mailbox::{Answer, Command, UidSet};
use mailraft_protocol::{Failure, Out, Output};

use crate::cursor::MessageSet;
use crate::outcome::Done;
use crate::state::State;
use crate::store::Mailstore;
use crate::view::View;

/// What a command names messages by, and what its responses name them by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// Sequence numbers.
    Numbers,
    /// UIDs, as behind the word UID.
    Uids,
}

impl Names {
    /// What messages of these UIDs are called; those that the client does not count are left out.
    pub(crate) fn of(self, uids: &[u32], view: &View) -> Vec<u32> {
        match self {
            Names::Uids => uids.to_vec(),
            Names::Numbers => uids.iter().filter_map(|uid| u32::try_from(view.number(*uid)?).ok()).collect(),
        }
    }
}

pub(crate) fn view(state: &mut State) -> Result<&mut View, Done> {
    state.view.as_mut().ok_or_else(|| Done::Bad("SELECT a folder first".into()))
}

/// A view that may be changed.
pub(crate) fn writable(state: &mut State) -> Result<&mut View, Done> {
    let view = view(state)?;
    if view.read_only { Err(Done::No("[READ-ONLY] the folder was opened by EXAMINE".into())) } else { Ok(view) }
}

/// The UIDs of a set. One that reaches beyond what the session knows asks for news first, so that `UID FETCH n:*`
/// finds whatever was acknowledged before it.
pub(crate) async fn uids<S: Mailstore, O: Output>(
    state: &mut State,
    set: &MessageSet,
    names: Names,
    store: &mut S,
    out: &mut Out<O>,
) -> Result<UidSet, Done> {
    let set = match set {
        MessageSet::Written(set) => set,
        // UIDs, whatever the command names messages by; those that are no more name nothing.
        MessageSet::Saved => {
            let saved = state.saved.clone();
            let view = view(state)?;
            return Ok(view.messages().iter().map(|m| m.uid).filter(|uid| saved.contains(*uid)).collect());
        }
    };
    if names == Names::Numbers {
        return view(state)?.by_number(set).ok_or_else(|| Done::Bad("there is no message of that number".into()));
    }
    if view(state)?.reaches_beyond(set) {
        store.ask(Command::Sync).await?;
        state.hear(store);
        state.say_news(false, out).await;
    }
    Ok(view(state)?.by_uid(set))
}

/// What a client missed since a MODSEQ that it brings (RFC 7162).
#[derive(Debug, Default)]
pub(crate) struct Missed {
    /// Which of the UIDs that it knew are no more. Those that it still counts are left to be told when that is allowed.
    pub vanished: UidSet,
    /// The messages that changed, of those that it counts.
    pub changed: UidSet,
}

/// What changed since a MODSEQ, and which of the UIDs that are `known` are no more. One that is of a home that was lost, and
/// lies past what is left of it, tells nothing: everything counts as changed. Only the mailbox knows which are.
pub(crate) async fn missed_since<S: Mailstore>(
    state: &mut State,
    modseq: u64,
    known: Option<UidSet>,
    store: &mut S,
) -> Result<Missed, Done> {
    let opened = view(state)?;
    let (folder, uid_validity) = (opened.folder, opened.uid_validity);
    let mut missed = Missed::default();
    let mut told = UidSet::new();
    if known.is_some() || opened.may_be_lost(modseq) {
        let known = known.unwrap_or_default();
        let answer = store.ask(Command::Resume { folder, uid_validity, since: modseq, known }).await?;
        let Answer::Resumed(resumed) = answer else { return Err(Done::odd_answer()) };
        let counted: UidSet = view(state)?.messages().iter().map(|m| m.uid).collect();
        missed.vanished = resumed.vanished.minus(&counted);
        told = resumed.changed.iter().map(|m| m.uid).collect();
    }
    let changed = view(state)?.messages().iter().filter(|m| m.modseq > modseq || told.contains(m.uid));
    missed.changed = changed.map(|m| m.uid).collect();
    Ok(missed)
}

/// What the mailbox has of messages; those that are no more are left out.
pub(crate) async fn fetched<S: Mailstore>(
    folder: FolderId,
    uids: &[u32],
    what: FetchWhat,
    store: &mut S,
) -> Result<Vec<Fetched>, Done> {
    let uids = uids.iter().copied().collect();
    match store.ask(Command::Fetch { folder, uids, what }).await? {
        Answer::Fetched(fetched) => Ok(fetched),
        _ => Err(Done::odd_answer()),
    }
}

/// When messages came to the folder, in seconds since 1970-01-01 UTC (RFC 8514); those that are no more are left out.
pub(crate) async fn save_dates<S: Mailstore>(
    folder: FolderId,
    uids: &[u32],
    store: &mut S,
) -> Result<BTreeMap<u32, i64>, Done> {
    let mut all = BTreeMap::new();
    for batch in uids.chunks(FETCH_UIDS_MAX) {
        store.breathe().await?;
        let uids = batch.iter().copied().collect();
        match store.ask(Command::SaveDates { folder, uids }).await? {
            Answer::SaveDates(dates) => {
                all.extend(dates.into_iter().map(|(uid, saved)| (uid, (saved.0 / 1_000).cast_signed())));
            }
            _ => return Err(Done::odd_answer()),
        }
    }
    Ok(all)
}

/// Tells now and then how far a command is that takes long (RFC 9585): so many of so many messages.
pub(crate) async fn tell_progress<S: Mailstore, O: Output>(
    tag: &str,
    done: usize,
    of: usize,
    store: &mut S,
    out: &mut Out<O>,
) {
    if store.is_progress_due() {
        out.line(&format!("* OK [INPROGRESS (\"{tag}\" {done} {of})] still at it"));
        // Whether the client is gone is asked where it matters.
        let _ = out.flush().await;
    }
}

/// Closes the open folder.
pub(crate) async fn close<S: Mailstore, O: Output>(state: &mut State, store: &mut S, out: &mut Out<O>) {
    state.say_gone_before_leaving(out).await;
    state.view = None;
    state.saved = UidSet::new();
    store.close_folder();
    // It is closed here, and what comes of it is heard no more, whether or not its mailbox could be told. CLOSE has removed
    // messages before this: it must not hear NO for that.
    if let Err(failure) = store.ask(Command::Unselect).await {
        debug_assert_ne!(failure, Failure::Unknown, "a read changes nothing");
    }
    store.take_events();
}
