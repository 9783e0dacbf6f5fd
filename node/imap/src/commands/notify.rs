//! NOTIFY (RFC 5465): what the client wants to hear of unasked, and the telling of it.
//!
//! * Of the open folder the client hears what it asked for with SELECTED or SELECTED-DELAYED, and else only what it does
//!   itself: it has a snapshot. NOOP and CHECK ask for news, and are told all.
//! * Of other folders it hears STATUS and LIST, of what others do.
//! * A client that has been told NOTIFICATIONOVERFLOW is notified of nothing any more, as after NOTIFY NONE.

use std::collections::BTreeSet;

use mailraft_mailbox::api::{FolderId, FolderInfo, FolderStatus, HIERARCHY_SEPARATOR, STATUSES_MAX, Watching};
use mailraft_mailbox::{Answer, Command, Notice};
use mailraft_protocol::{Failure, Out, Output, Refusal};

use crate::commands::fetch::{self, Reading};
use crate::commands::list;
use crate::commands::status::{self, Item};
use crate::cursor::{Cursor, Read, wrong};
use crate::folders::{Levels, Subscriptions};
use crate::items::{Item as Fetched, items};
use crate::notify::{Events, Filter, Group, Notify, OfSelected, Pending};
use crate::outcome::{Done, Outcome, ok};
use crate::print;
use crate::state::{Enabled, State};
use crate::store::Mailstore;

/// Groups of events of one NOTIFY, each of which is looked at for each folder.
const GROUPS_MAX: usize = 64;
/// The events that there are.
const EVENTS: &str = "MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange";
/// What a client hears whose notifications end.
const OVERFLOW: &str = "[NOTIFICATIONOVERFLOW]";

/// What a client asks for.
#[derive(Debug, Default)]
struct Asked {
    status: bool,
    selected: Option<OfSelected>,
    groups: Vec<Group>,
    /// An event that is not there was asked for.
    unknown: bool,
}

/// The events of one group, as they are written.
#[derive(Debug, Default)]
struct Written {
    new: bool,
    expunge: bool,
    flags: bool,
    names: bool,
    subscriptions: bool,
    items: Option<Vec<Fetched>>,
    unknown: bool,
}

pub(crate) async fn run<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    let asked = parse(c)?;
    if asked.unknown {
        return Err(Done::No(format!("[BADEVENT ({EVENTS})] these are the events that there are")));
    }
    let Asked { status, selected, groups, .. } = asked;
    let mut notify = Notify::new(selected.unwrap_or_default(), groups);
    if notify.selected.items.contains(&Fetched::Modseq) {
        state.enable(Enabled::CondStore);
    }
    let watched = state.notify.as_ref().is_some_and(|before| before.watches());
    if notify.watches() {
        watch(Watching::Folders, store).await?;
        let told = begin(state, &mut notify, status, store, out).await;
        if let Err(failed) = told {
            // What was asked for before goes on.
            if !watched {
                watch(Watching::Nothing, store).await?;
            }
            return Err(failed.into());
        }
    } else if watched {
        watch(Watching::Nothing, store).await?;
        store.keep_for_notify(0)?;
    }
    state.notify = Some(Box::new(notify));
    ok("NOTIFY")
}

/// Tells what has happened and the client wants to know, but for what is told without any store (`State::say_news`).
///
/// # Errors
/// If the connection is to be closed without another word.
pub(crate) async fn tell<S: Mailstore, O: Output>(
    state: &mut State,
    store: &mut S,
    out: &mut Out<O>,
) -> Result<(), Done> {
    let Some(notify) = state.notify.as_mut() else { return Ok(()) };
    let new = std::mem::take(&mut notify.selected.new);
    if !new.is_empty() && state.view.is_some() {
        let items = std::mem::take(&mut notify.selected.items);
        let told = fetch::tell_messages(state, &new, &items, Reading::ChangesNothing, store, out).await;
        if let Some(notify) = state.notify.as_mut() {
            notify.selected.items = items;
        }
        match told {
            Ok(_) => {}
            Err(Done::HangUp) => return Err(Done::HangUp),
            Err(_) => overflow("a new message can't be read now", state, store, out).await,
        }
    }
    let Some(mut notify) = state.notify.take() else { return Ok(()) };
    let told = tell_others(state, &mut notify, store, out).await;
    state.notify = Some(notify);
    match told {
        Ok(()) => {}
        // Nobody leads the mailbox now: whoever does next says so, and all is looked at then.
        Err(Failed::Store(Failure::NotDone(Refusal::Unavailable))) => {
            if let Some(notify) = state.notify.as_mut() {
                notify.compare_all();
            }
        }
        Err(Failed::Store(_)) => overflow("the folders can't be looked at now", state, store, out).await,
        Err(Failed::TooMuch) => overflow("there are too many folders", state, store, out).await,
    }
    Ok(())
}

/// Why something is not told.
enum Failed {
    Store(Failure),
    /// It would take more than a session may keep.
    TooMuch,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Failed::Store(failure)
    }
}

impl From<Failed> for Done {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Store(failure) => failure.into(),
            Failed::TooMuch => Done::No(format!("{OVERFLOW} these are too many folders to be notified of")),
        }
    }
}

/// The client is notified of nothing any more, and hears that (RFC 5465, section 5.8).
async fn overflow<S: Mailstore, O: Output>(why: &str, state: &mut State, store: &mut S, out: &mut Out<O>) {
    state.notify = Some(Box::default());
    out.line(&format!("* OK {OVERFLOW} {why}; ask to be notified again"));
    // Nothing is kept, and what is still heard counts for nothing.
    let _ = store.keep_for_notify(0);
    let _ = store.ask(Command::Watch { what: Watching::Nothing }).await;
}

async fn watch<S: Mailstore>(what: Watching, store: &mut S) -> Result<(), Failure> {
    store.ask(Command::Watch { what }).await.map(drop)
}

/// Looks at all folders that it is about; with `tells` the client is told them.
async fn begin<S: Mailstore, O: Output>(
    state: &State,
    notify: &mut Notify,
    tells: bool,
    store: &mut S,
    out: &mut Out<O>,
) -> Result<(), Failed> {
    let list = folders(store).await?;
    follow(notify, &list, store)?;
    let open = state.view.as_ref().map(|view| view.folder);
    let condstore = state.enabled >= Enabled::CondStore;
    for (id, now) in counts(notify.to_count(None, open), store).await? {
        if let Some((name, events)) = notify.counted(id, now, condstore).filter(|_| tells) {
            tell_counts(state, (name, &now), condstore || events.flags, out);
            out.pass_on().await;
        }
    }
    Ok(())
}

async fn tell_others<S: Mailstore, O: Output>(
    state: &State,
    notify: &mut Notify,
    store: &mut S,
    out: &mut Out<O>,
) -> Result<(), Failed> {
    let Pending { compares, mut changes, folders: happened } = notify.take_pending();
    if !compares && changes.is_empty() && happened.is_empty() {
        return Ok(());
    }
    if compares || !changes.is_empty() {
        let list = folders(store).await?;
        if compares {
            changes = notify.differences(&list);
        }
        for line in list_lines(notify, &changes, &list, state) {
            out.line(&line);
            out.pass_on().await;
        }
        follow(notify, &list, store)?;
    }
    let open = state.view.as_ref().map(|view| view.folder);
    let condstore = state.enabled >= Enabled::CondStore;
    let known = notify.to_count((!compares).then_some(&happened), open);
    for (id, now) in counts(known, store).await? {
        if let Some((name, _)) = notify.counted(id, now, condstore) {
            tell_counts(state, (name, &now), condstore, out);
            out.pass_on().await;
        }
    }
    Ok(())
}

fn follow<S: Mailstore>(notify: &mut Notify, list: &[FolderInfo], store: &mut S) -> Result<(), Failed> {
    let bytes = notify.follow(list).map_err(|_| Failed::TooMuch)?;
    store.keep_for_notify(bytes).map_err(|_| Failed::TooMuch)
}

fn tell_counts<O: Output>(state: &State, (name, now): (&str, &FolderStatus), modseqs: bool, out: &mut Out<O>) {
    let mut items = vec![Item::Messages, Item::UidNext, Item::UidValidity, Item::Unseen];
    if modseqs {
        items.push(Item::HighestModseq);
    }
    let name = print::folder(name, state.spelling());
    out.line(&status::line(state, &name, now, &items, ("", 0)));
}

/// LIST responses about what changed (RFC 5465, sections 5.4 and 5.5), as the list is now.
fn list_lines(notify: &Notify, changes: &[Notice], list: &[FolderInfo], state: &State) -> Vec<String> {
    let levels = Levels::of(list);
    let events = |name: &str| notify.events(name, levels.get(name).is_some_and(|f| f.subscribed));
    let print = |name: &str, old: Option<&str>| {
        let attributes = levels.attributes(name, Subscriptions::Told);
        let line = list::line("LIST", &attributes, name, state.spelling());
        match old {
            Some(old) => format!("{line} (\"OLDNAME\" ({}))", print::folder(old, state.spelling())),
            None => line,
        }
    };
    let mut told: BTreeSet<&str> = BTreeSet::new();
    let mut lines = Vec::new();
    for change in changes {
        match change {
            Notice::Made(name) | Notice::Removed(name) => {
                // The level above is another way too: it has children, or none.
                let above = name.rsplit_once(HIERARCHY_SEPARATOR).map(|(above, _)| above);
                for name in std::iter::once(name.as_str()).chain(above) {
                    if events(name).names && told.insert(name) {
                        lines.push(print(name, None));
                    }
                }
            }
            Notice::Renamed { from, to } => {
                if events(from).names || events(to).names {
                    lines.push(print(to, Some(from)));
                }
            }
            Notice::Subscription(name) => {
                // It is subscribed to before, or after.
                if notify.events(name, true).subscriptions && told.insert(name) {
                    lines.push(print(name, None));
                }
            }
            Notice::Anew | Notice::Messages(_) | Notice::Flags(_) => {}
        }
    }
    lines
}

async fn folders<S: Mailstore>(store: &mut S) -> Result<Vec<FolderInfo>, Failure> {
    match store.ask(Command::List).await? {
        Answer::Folders(folders) => Ok(folders),
        _ => Err(Refusal::Corrupt.into()),
    }
}

/// The counts of those folders that have changed since.
async fn counts<S: Mailstore>(
    known: Vec<(FolderId, u64)>,
    store: &mut S,
) -> Result<Vec<(FolderId, FolderStatus)>, Failure> {
    let mut all = Vec::new();
    for known in known.chunks(STATUSES_MAX) {
        match store.ask(Command::Statuses { known: known.to_vec() }).await? {
            Answer::Statuses(counts) => all.extend(counts),
            _ => return Err(Refusal::Corrupt.into()),
        }
    }
    Ok(all)
}

/// `NONE`, or `SET [STATUS] (filter events) ...`
fn parse(c: &mut Cursor<'_>) -> Read<Asked> {
    let mut asked = Asked::default();
    c.space()?;
    match c.word()?.as_str() {
        "NONE" => {
            c.end()?;
            return Ok(asked);
        }
        "SET" => {}
        other => return wrong(format!("NOTIFY does not know {other}")),
    }
    c.space()?;
    if c.peek() != Some(b'(') {
        if c.word()? != "STATUS" {
            return wrong("NOTIFY SET wants filters with their events");
        }
        asked.status = true;
        c.space()?;
    }
    group(c, &mut asked)?;
    while c.eat(b' ') {
        group(c, &mut asked)?;
        if asked.groups.len() > GROUPS_MAX {
            return wrong(format!("at most {GROUPS_MAX} filters"));
        }
    }
    c.end()?;
    Ok(asked)
}

fn group(c: &mut Cursor<'_>, asked: &mut Asked) -> Read<()> {
    c.open()?;
    let name = c.word()?;
    c.space()?;
    let filter = match name.as_str() {
        "SELECTED" | "SELECTED-DELAYED" => {
            let Written { new, flags, names, subscriptions, items, unknown, .. } = events(c)?.unwrap_or_default();
            if names || subscriptions {
                return wrong(format!("{name} is about messages alone"));
            }
            let items = items.unwrap_or_default();
            let selected = OfSelected { at_once: name == "SELECTED", messages: new, flags, items, new: Vec::new() };
            if asked.selected.replace(selected).is_some() {
                return wrong("the open folder is named twice");
            }
            asked.unknown |= unknown;
            return if c.close() { Ok(()) } else { wrong("a parenthesis is missing") };
        }
        "INBOXES" | "PERSONAL" => Filter::Personal,
        "SUBSCRIBED" => Filter::Subscribed,
        "SUBTREE" => Filter::Subtree(mailboxes(c)?),
        "MAILBOXES" => Filter::Mailboxes(mailboxes(c)?),
        other => return wrong(format!("NOTIFY does not know {other}")),
    };
    let events = match events(c)? {
        Some(Written { items: Some(_), .. }) => return wrong("what is fetched goes with SELECTED"),
        Some(Written { new, flags, names, subscriptions, unknown, .. }) => {
            asked.unknown |= unknown;
            Some(Events { messages: new, flags, names, subscriptions })
        }
        None => None,
    };
    asked.groups.push(Group { filter, events });
    if c.close() { Ok(()) } else { wrong("a parenthesis is missing") }
}

/// One mailbox, or several in parentheses, and the space behind.
fn mailboxes(c: &mut Cursor<'_>) -> Read<Vec<String>> {
    let mut names = Vec::new();
    if c.peek() == Some(b'(') {
        c.open()?;
        while !c.close() {
            names.push(c.folder()?);
            c.eat(b' ');
        }
    } else {
        names.push(c.folder()?);
    }
    c.space()?;
    if names.is_empty() { wrong("a mailbox is missing") } else { Ok(names) }
}

/// Events in parentheses; None for NONE.
fn events(c: &mut Cursor<'_>) -> Read<Option<Written>> {
    if c.peek() != Some(b'(') {
        return if c.word()? == "NONE" { Ok(None) } else { wrong("events come in parentheses") };
    }
    c.open()?;
    let mut all = Written::default();
    let mut any = false;
    while !c.close() {
        any = true;
        match c.word()?.as_str() {
            "MESSAGENEW" => {
                all.new = true;
                c.eat(b' ');
                if c.peek() == Some(b'(') {
                    all.items = Some(items(c)?);
                }
            }
            "MESSAGEEXPUNGE" => all.expunge = true,
            "FLAGCHANGE" => all.flags = true,
            "MAILBOXNAME" => all.names = true,
            "SUBSCRIPTIONCHANGE" => all.subscriptions = true,
            // AnnotationChange, MailboxMetadataChange and ServerMetadataChange too: there is nothing of which they would tell.
            _ => all.unknown = true,
        }
        c.eat(b' ');
    }
    if !any {
        return wrong("an event is missing");
    }
    if all.new != all.expunge || all.flags && !all.new {
        return wrong("MessageNew and MessageExpunge go together, and FlagChange with both");
    }
    Ok(Some(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Talk, logged_in};

    fn hears(talk: &mut Talk, said: &str) -> String {
        talk.say(format!("{said}\r\n").as_bytes());
        talk.take_heard()
    }

    #[test]
    fn who_would_keep_too_much_is_notified_of_nothing_and_hears_that() {
        let mut talk = logged_in();
        let asks = "a NOTIFY SET (PERSONAL (MessageNew MessageExpunge MailboxName))";
        talk.store().held_max = 100;
        let refused = "a NO [NOTIFICATIONOVERFLOW] these are too many folders to be notified of\r\n";
        assert_eq!(hears(&mut talk, asks), refused);
        talk.store().mailbox.append("Trash", b"Subject: x\r\n\r\n");
        assert!(!talk.store().has_events() && talk.turn == mailraft_protocol::Turn::NeedInput, "nobody watches");
        talk.store().held_max = usize::MAX;
        assert_eq!(hears(&mut talk, asks), "a OK NOTIFY done\r\n");
        talk.store().held_max = 100;
        talk.store().mailbox.others(Command::CreateFolder { name: "one more".into() });
        talk.tell();
        let heard = talk.take_heard();
        assert!(heard.contains("* OK [NOTIFICATIONOVERFLOW] there are too many folders; ask to be"), "{heard}");
        assert_eq!(talk.turn, mailraft_protocol::Turn::NeedInput);
        talk.store().mailbox.append("Trash", b"Subject: x\r\n\r\n");
        assert!(!talk.store().has_events());
        assert_eq!(hears(&mut talk, "b NOOP"), "b OK NOOP done\r\n");
    }

    #[test]
    fn folders_that_take_too_much_are_too_many_however_much_room_there_is() {
        let mut talk = logged_in();
        let name = |n: usize| format!("{n:03}{}", "x".repeat(900));
        for n in 0..crate::notify::NOTIFY_MAX_BYTES / 1_000 + 1 {
            talk.store().mailbox.others(Command::CreateFolder { name: name(n) });
        }
        let refused = "a NO [NOTIFICATIONOVERFLOW] these are too many folders to be notified of\r\n";
        assert_eq!(hears(&mut talk, "a NOTIFY SET (PERSONAL (MailboxName))"), refused);
        assert_eq!(hears(&mut talk, "b NOTIFY SET (SUBSCRIBED (MailboxName))"), "b OK NOTIFY done\r\n");
    }

    #[test]
    fn filters_of_one_command_are_bounded() {
        let mut talk = logged_in();
        let asks = |count: usize| format!("a NOTIFY SET{}", " (PERSONAL NONE)".repeat(count));
        assert_eq!(hears(&mut talk, &asks(GROUPS_MAX)), "a OK NOTIFY done\r\n");
        assert_eq!(hears(&mut talk, &asks(GROUPS_MAX + 1)), "a BAD at most 64 filters\r\n");
    }

    #[test]
    fn a_new_message_that_can_not_be_read_ends_the_notifications() {
        let mut talk = crate::testing::selected();
        hears(&mut talk, "a NOTIFY SET (SELECTED (MessageNew (BODY[]) MessageExpunge))");
        talk.store().lost = true;
        talk.store().deliver("Subject: third\r\n\r\nhello\r\n");
        talk.tell();
        let heard = talk.take_heard();
        assert!(heard.starts_with("* 3 EXISTS\r\n* 2 RECENT\r\n"), "{heard}");
        assert!(!heard.contains("FETCH"), "a message that is no more is left out: {heard}");
        talk.store().lost = false;
        (talk.store().breaths, talk.store().breaths_max) = (0, 0);
        talk.store().deliver("Subject: fourth\r\n\r\nhello\r\n");
        talk.tell();
        let heard = talk.take_heard();
        assert!(heard.contains("* OK [NOTIFICATIONOVERFLOW] a new message can't be read now"), "{heard}");
    }
}
