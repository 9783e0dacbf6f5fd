//! NOTIFY (RFC 5465): what the client wants to hear of unasked, and the telling of it.
//!
//! * Of the open folder the client hears what it asked for with SELECTED or SELECTED-DELAYED, and else only what it does
//!   itself: it has a snapshot. NOOP and CHECK ask for news, and are told all.
//! * Of other folders it hears STATUS and LIST, of what others do.
//! * A client that has been told NOTIFICATIONOVERFLOW is notified of nothing any more, as after NOTIFY NONE.

use std::collections::{BTreeMap, BTreeSet};

use mailraft_mailbox::api::{FolderId, FolderInfo, FolderStatus, HIERARCHY_SEPARATOR, Listing, STATUSES_MAX, Watching};
use mailraft_mailbox::{Answer, Command, ListChange, ListNews, Notice};
use mailraft_protocol::{Failure, Out, Output, Refusal};

use crate::commands::fetch::{self, Reading};
use crate::commands::list;
use crate::commands::status::{self, Item};
use crate::cursor::{Cursor, Read, wrong};
use crate::differences::Difference;
use crate::folders::{Levels, Subscriptions, attributes};
use crate::items::{Item as Fetched, items};
use crate::notify::{Events, Filter, Group, Happened, ListChanged, Notify, OfSelected, Pending};
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
    /// SET, and not NONE.
    is_set: bool,
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
    let Asked { is_set, status, selected, groups, .. } = asked;
    let mut notify = Box::new(Notify::new(selected.unwrap_or_default(), groups));
    if notify.selected.items.contains(&Fetched::Modseq) {
        state.enable(Enabled::CondStore);
    }
    if is_set {
        // It asks for news of the open folder, as NOOP does (RFC 5465, section 3.1).
        state.polls = true;
        store.ask(Command::Sync).await?;
        state.hear(store);
    }
    let mut before = state.notify.take();
    let watched = before.as_ref().is_some_and(|before| before.watches());
    let begun = match notify.watches() {
        true => begin(state, &mut notify, before.as_deref_mut(), status, store, out).await,
        false => keep(&notify, store),
    };
    if let Err(failed) = begun {
        // What was asked for before goes on, and looks at what it may have missed; there it hears if there is no room for it.
        if let Some(before) = before.as_mut() {
            before.compare_all();
            let _ = keep(before, store);
        }
        state.notify = before;
        if !watched {
            watch(Watching::Nothing, store).await?;
        }
        return Err(failed.into());
    }
    state.notify = Some(notify);
    if watched && !state.notify.as_ref().is_some_and(|notify| notify.watches()) {
        watch(Watching::Nothing, store).await?;
    }
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
        // Reading them takes events into the view, which is behind what was told of it.
        state.heard_meanwhile = true;
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
    let is_more = notify.has_pending();
    state.notify = Some(notify);
    match told {
        Ok(()) => state.heard_meanwhile |= is_more,
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
            Failed::TooMuch => Done::No(format!("{OVERFLOW} this is too much to be notified of")),
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

/// Looks at all folders that it is about; with `status` the client is told them. Of those that it was notified of `before` it
/// is told all that has happened up to here.
async fn begin<S: Mailstore, O: Output>(
    state: &State,
    notify: &mut Notify,
    mut before: Option<&mut Notify>,
    status: bool,
    store: &mut S,
    out: &mut Out<O>,
) -> Result<(), Failed> {
    if !before.as_ref().is_some_and(|before| before.watches()) {
        watch(Watching::Folders, store).await?;
    }
    let (list, heard) = folders(store).await?;
    let (heard, later) = heard.split();
    let mut happened = BTreeMap::new();
    if let Some(before) = before.as_mut().filter(|before| before.watches()) {
        heard.into_iter().for_each(|notice| before.take(notice));
        let Pending { compares, changes, folders, .. } = before.take_pending();
        if compares {
            tell_differences(state, before, &list, out).await;
        }
        happened = folders;
        for id in tell_changes(state, before, &changes, out).await {
            happened.insert(id, Happened::Messages);
        }
    }
    notify.opens(state.view.as_ref().map(|view| view.folder));
    notify.follow(&list);
    keep(notify, store)?;
    if let Some(before) = before {
        notify.inherit(before);
    }
    let mut known = notify.to_count(notify.all().into_iter());
    if status {
        known.iter_mut().for_each(|(_, modseq)| *modseq = 0);
    }
    for (id, now) in counts(known, store).await? {
        let before = happened.get(&id).copied();
        let what = if status { Happened::Messages } else { before.unwrap_or(Happened::Unknown) };
        // Of what it begins to watch the client knows how it is, or would have asked.
        let tells = status || before.is_some() || notify.is_told(id);
        if let Some((name, events)) = notify.counted(id, now, what).filter(|_| tells) {
            tell_counts(state, (name, &now), events, out);
            out.pass_on().await;
        }
    }
    later.into_iter().for_each(|notice| notify.take(notice));
    Ok(())
}

async fn tell_others<S: Mailstore, O: Output>(
    state: &State,
    notify: &mut Notify,
    store: &mut S,
    out: &mut Out<O>,
) -> Result<(), Failed> {
    notify.opens(state.view.as_ref().map(|view| view.folder));
    let Pending { compares, changes, folders: mut happened, .. } = notify.take_pending();
    if !compares && changes.is_empty() && happened.is_empty() {
        return Ok(());
    }
    if compares {
        let (list, heard) = folders(store).await?;
        tell_differences(state, notify, &list, out).await;
        happened = notify.all().into_iter().map(|id| (id, Happened::Unknown)).collect();
        heard.split().1.into_iter().for_each(|notice| notify.take(notice));
    }
    for id in tell_changes(state, notify, &changes, out).await {
        happened.insert(id, Happened::Messages);
    }
    keep(notify, store)?;
    for (id, now) in counts(notify.to_count(happened.keys().copied()), store).await? {
        let what = happened.get(&id).copied().unwrap_or(Happened::Unknown);
        if let Some((name, events)) = notify.counted(id, now, what) {
            tell_counts(state, (name, &now), events, out);
            out.pass_on().await;
        }
    }
    Ok(())
}

fn keep<S: Mailstore>(notify: &Notify, store: &mut S) -> Result<(), Failed> {
    let bytes = notify.kept_bytes().map_err(|_| Failed::TooMuch)?;
    store.keep_for_notify(bytes).map_err(|_| Failed::TooMuch)
}

fn tell_counts<O: Output>(state: &State, (name, now): (&str, &FolderStatus), events: Events, out: &mut Out<O>) {
    let mut items = vec![Item::Messages, Item::UidNext, Item::UidValidity, Item::Unseen];
    // Whoever hears of flags knows by it that some changed (RFC 5465, section 5.1).
    if state.enabled >= Enabled::CondStore || events.flags {
        items.push(Item::HighestModseq);
    }
    let name = print::folder(name, state.spelling());
    out.line(&status::line(state, &name, now, &items, ("", 0)));
}

/// Tells how the list of folders changed (RFC 5465, sections 5.4 and 5.5), each time as it was right after that. Returns
/// folders to be counted for it.
async fn tell_changes<O: Output>(
    state: &State,
    notify: &mut Notify,
    changes: &[ListChanged],
    out: &mut Out<O>,
) -> Vec<FolderId> {
    let mut counts = Vec::new();
    for change in changes {
        if !change.is_own {
            for line in change_lines(notify, &change.news, state) {
                out.line(&line);
                out.pass_on().await;
            }
        }
        counts.extend(notify.apply(change));
    }
    counts
}

fn change_lines(notify: &Notify, news: &ListNews, state: &State) -> Vec<String> {
    let names = |listing: &Listing| notify.events(&listing.line.name, listing.line.subscribed).names;
    let print = |listing: &Listing, old: Option<&str>| {
        let mut attributes = attributes(&listing.line, listing.is_there, listing.has_children, Subscriptions::Told);
        if matches!(news.change, ListChange::Removed(_)) && listing == &news.name {
            // It is no mailbox any more, also where a level stays of it.
            attributes[0] = "\\NonExistent";
        }
        response(state, &attributes, &listing.line.name, old)
    };
    let mut lines = Vec::new();
    match &news.change {
        ListChange::Made | ListChange::Removed(_) => lines.extend(names(&news.name).then(|| print(&news.name, None))),
        ListChange::Renamed { from, below } => {
            let was = |name: &str| notify.events(name, false).names || notify.events(name, true).names;
            // Of each, also where it moved along with one above it (RFC 5465, section 5.4).
            for listing in std::iter::once(&news.name).chain(below) {
                let old = format!("{from}{}", &listing.line.name[news.name.line.name.len()..]);
                if was(&old) || names(listing) {
                    lines.push(print(listing, Some(&old)));
                }
            }
        }
        ListChange::Subscription => {
            lines.extend(notify.tells_subscription(&news.name.line.name).then(|| print(&news.name, None)));
        }
    }
    lines.extend(news.above.iter().filter(|listing| names(listing)).map(|listing| print(listing, None)));
    lines
}

/// Tells how the list of folders differs from what the client knows, and goes on from there.
async fn tell_differences<O: Output>(state: &State, notify: &mut Notify, list: &[FolderInfo], out: &mut Out<O>) {
    let differences = notify.differences(list);
    for line in difference_lines(notify, &differences, list, state) {
        out.line(&line);
        out.pass_on().await;
    }
    notify.follow(list);
}

/// LIST responses about differences, as the list is now. What has other children than before comes last, when all names that
/// it may have are told.
fn difference_lines(notify: &Notify, differences: &[Difference], list: &[FolderInfo], state: &State) -> Vec<String> {
    let levels = Levels::of(list);
    let names = |name: &str| notify.events(name, levels.get(name).is_some_and(|f| f.subscribed)).names;
    let print =
        |name: &str, old: Option<&str>| response(state, &levels.attributes(name, Subscriptions::Told), name, old);
    let (mut lines, mut above, mut told) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for difference in differences {
        match difference {
            Difference::Removed(name) => {
                above.extend(parent(name));
                if names(name) {
                    // Another folder may have its name by now, and is told later.
                    let mut attributes = levels.attributes(name, Subscriptions::Told);
                    attributes.retain(|attribute| !["\\NonExistent", "\\Noselect"].contains(attribute));
                    attributes.insert(0, "\\NonExistent");
                    lines.push(response(state, &attributes, name, None));
                    told.extend(levels.get(name).is_none_or(|line| line.id.is_none()).then_some(name.as_str()));
                }
            }
            Difference::Renamed { from, to } => {
                above.extend([parent(from), parent(to)].into_iter().flatten());
                if names(from) || names(to) {
                    lines.push(print(to, Some(from)));
                    told.insert(to.as_str());
                }
            }
            Difference::MovedAlong { from, to } => {
                if names(from) || names(to) {
                    lines.push(print(to, Some(from)));
                    told.insert(to.as_str());
                }
            }
            Difference::Made(name) => {
                above.extend(parent(name));
                if names(name) {
                    lines.push(print(name, None));
                    told.insert(name.as_str());
                }
            }
            Difference::Subscription(name) => {
                if told.insert(name.as_str()) {
                    lines.push(print(name, None));
                }
            }
        }
    }
    let above = above.into_iter().filter(|name| names(name) && !told.contains(name));
    lines.extend(above.map(|name| print(name, None)));
    lines
}

/// A LIST response without the end of its line.
fn response(state: &State, attributes: &[&str], name: &str, old: Option<&str>) -> String {
    let line = list::line("LIST", attributes, name, state.spelling());
    match old {
        Some(old) => format!("{line} (\"OLDNAME\" ({}))", print::folder(old, state.spelling())),
        None => line,
    }
}

fn parent(name: &str) -> Option<&str> {
    name.rsplit_once(HIERARCHY_SEPARATOR).map(|(above, _)| above)
}

/// What was heard up to the answer of a question, and behind it.
struct HeardAround(Vec<Notice>);

impl HeardAround {
    /// What is in the answer, and what is not.
    fn split(self) -> (Vec<Notice>, Vec<Notice>) {
        let HeardAround(mut before) = self;
        let at = before.iter().rposition(|notice| *notice == Notice::ListIsHere).map_or(0, |at| at + 1);
        let after = before.split_off(at);
        (before, after)
    }
}

/// The list of folders, and what is heard around it.
async fn folders<S: Mailstore>(store: &mut S) -> Result<(Vec<FolderInfo>, HeardAround), Failure> {
    match store.ask(Command::List).await? {
        Answer::Folders(folders) => Ok((folders, HeardAround(store.take_notices()))),
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
        "SET" => asked.is_set = true,
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
fn mailboxes(c: &mut Cursor<'_>) -> Read<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    if c.peek() == Some(b'(') {
        c.open()?;
        while !c.close() {
            names.insert(c.folder()?);
            c.eat(b' ');
        }
    } else {
        names.insert(c.folder()?);
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
    use mailraft_mailbox::api::StoreMode;
    use mailraft_mailbox::{Flags, SystemFlag, UidSet};

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
        let refused = "a NO [NOTIFICATIONOVERFLOW] this is too much to be notified of\r\n";
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
        let refused = "a NO [NOTIFICATIONOVERFLOW] this is too much to be notified of\r\n";
        assert_eq!(hears(&mut talk, "a NOTIFY SET (PERSONAL (MailboxName))"), refused);
        assert_eq!(hears(&mut talk, "b NOTIFY SET (SUBSCRIBED (MailboxName))"), "b OK NOTIFY done\r\n");
    }

    #[test]
    fn a_change_of_the_list_is_followed_without_asking_for_it() {
        let mut talk = logged_in();
        hears(&mut talk, "a NOTIFY SET (PERSONAL (MessageNew MessageExpunge MailboxName SubscriptionChange))");
        talk.store().lists = 0;
        for n in 0..300 {
            talk.store().mailbox.others(Command::CreateFolder { name: format!("a/{n}") });
            talk.tell();
        }
        hears(&mut talk, "b CREATE mine");
        hears(&mut talk, "c RENAME mine yours");
        hears(&mut talk, "d DELETE yours");
        talk.store().mailbox.others(Command::RenameFolder { from: "a".into(), to: "b".into() });
        talk.tell();
        assert!(hears(&mut talk, "e NOOP").ends_with("e OK NOOP done\r\n"));
        // CREATE asks for MAILBOXID.
        assert_eq!(talk.store().lists, 1, "who makes a folder asks, and nobody else");
        // Past what may wait the lists are compared, once, and that tells the same.
        talk.take_heard();
        for n in 0..crate::notify::CHANGES_MAX + 1 {
            talk.store().mailbox.others(Command::CreateFolder { name: format!("c/{n}") });
        }
        talk.tell();
        let heard = talk.take_heard();
        assert_eq!(heard.matches("* LIST (\\HasNoChildren) \"/\" \"c/").count(), crate::notify::CHANGES_MAX + 1);
        assert_eq!(talk.store().lists, 2);
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

    #[test]
    fn what_happens_while_something_is_told_is_told_right_after_it() {
        let see = || Command::Store {
            folder: FolderId(1),
            uids: UidSet::range(1, 1),
            mode: StoreMode::Add,
            flags: Flags::none().with(SystemFlag::Seen),
            unchanged_since: None,
        };
        let asks = "a NOTIFY SET (SELECTED (MessageNew (BODY.PEEK[TEXT]) MessageExpunge FlagChange)) \
            (PERSONAL (MessageNew MessageExpunge MailboxName))";
        let mut talk = crate::testing::selected();
        hears(&mut talk, asks);
        talk.store().later = Some((0, see()));
        talk.store().deliver("Subject: third\r\n\r\nhello\r\n");
        talk.tell_all();
        let heard = talk.take_heard();
        assert!(heard.contains("hello") && heard.contains("* 1 FETCH (UID 1 FLAGS (\\Seen))"), "{heard}");
        // Behind the list that it compares, before it looks there.
        talk.store().later = Some((0, Command::CreateFolder { name: "late".into() }));
        talk.store().is_back = true;
        talk.tell_all();
        let heard = talk.take_heard();
        assert!(heard.contains("* LIST (\\HasNoChildren) \"/\" \"late\"\r\n"), "{heard}");
    }

    #[test]
    fn what_comes_to_a_session_that_is_not_notified_does_not_wake_it_for_ever() {
        let mut talk = logged_in();
        // SYNC, WATCH and LIST; then nobody leads, who could be told that it is not to be notified.
        talk.store().answers = Some(3);
        let refused = hears(&mut talk, "a NOTIFY SET STATUS (PERSONAL (MessageNew MessageExpunge))");
        assert!(refused.starts_with("a NO [UNAVAILABLE]"), "{refused}");
        talk.store().answers = None;
        talk.store().mailbox.append("Trash", b"Subject: x\r\n\r\n");
        assert!(talk.store().has_events(), "it is watching");
        assert_eq!(hears(&mut talk, "b IDLE"), "+ idling\r\n");
        talk.store().mailbox.append("Trash", b"Subject: y\r\n\r\n");
        talk.tell_all();
        assert_eq!(talk.take_heard(), "");
    }

    #[test]
    fn what_is_fetched_of_new_messages_is_kept_within_bounds() {
        let mut talk = crate::testing::selected();
        let asks = |count: usize| {
            let fields = format!("BODY.PEEK[HEADER.FIELDS ({})]", vec!["x"; 500].join(" "));
            format!("a NOTIFY SET (SELECTED (MessageNew ({}) MessageExpunge))", vec![fields; count].join(" "))
        };
        assert_eq!(hears(&mut talk, &asks(2)), "a OK NOTIFY done\r\n");
        assert_eq!(hears(&mut talk, &asks(16)), "a NO [NOTIFICATIONOVERFLOW] this is too much to be notified of\r\n");
        talk.store().held_max = 100;
        let asks = "b NOTIFY SET (SELECTED (MessageNew (BODY.PEEK[HEADER.FIELDS (SUBJECT)]) MessageExpunge))";
        assert_eq!(hears(&mut talk, asks), "b NO [NOTIFICATIONOVERFLOW] this is too much to be notified of\r\n");
    }
}
