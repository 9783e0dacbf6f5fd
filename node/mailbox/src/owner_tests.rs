//! The owner with its steps carried out, but for read barriers.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::time::Duration;

use mailraft_owner::{BACKLOG_MAX_COMMANDS, Owner, SessionNumber};
use mailraft_storage::{CommandId, Env, MailboxId, ProposalOutcome, RowBatch, RowKey, Rows, Table, UnixMillis};

use crate::accepted::{
    AcceptedEnvelope, AcceptedRecipient, Attempt, AttemptEnd, Diagnosis, QueueChange, QueueDecision,
};
use crate::api::{
    Answer, Change, Command, FetchWhat, FolderId, Listing, Refusal, STATUSES_MAX, SpecialUse, StoreMode, Watching,
    ZonedTime,
};
use crate::flags::{Flags, SystemFlag};
use crate::harness::{REPLICA, World};
use crate::notice::{FolderNews, ListChange, Notice};
use crate::owner::{AHEAD_MAX_READS, Ask, HELD_MAX_EVENTS, Lead, MailboxOwner, Own, Step};
use crate::queue::outward::{Outward, OutwardOutcome, PREDECESSOR_GRACE};
use crate::reads::StoredRead;
use crate::reply::Reply;

/// An owner over the rows of a world, with its steps carried out but for read barriers.
struct Shell {
    world: World,
    owner: MailboxOwner<u8>,
    barriers: VecDeque<(u64, Option<StoredRead>)>,
    replies: Vec<(u8, Reply)>,
    /// Entries are applied, and not visible yet.
    held: bool,
    verdicts: VecDeque<ProposalOutcome>,
    /// How often rows could not be read.
    unreadable: usize,
    /// What is under way to other servers and to senders.
    outwards: Vec<Outward>,
    ended: bool,
}

impl Shell {
    fn new() -> Self {
        Shell::over(World::new())
    }

    fn over(world: World) -> Self {
        let mut shell = Shell {
            world,
            owner: MailboxOwner::new(),
            barriers: VecDeque::new(),
            replies: Vec::new(),
            held: false,
            verdicts: VecDeque::new(),
            unreadable: 0,
            outwards: Vec::new(),
            ended: false,
        };
        for session in [1, 2] {
            shell.owner.attach(session, SessionNumber(u64::from(session)));
        }
        let loaded = shell.world.load();
        shell.run(|owner, env, out| owner.loaded(env, Ok(loaded), out));
        shell
    }

    fn run(&mut self, what: impl FnOnce(&mut MailboxOwner<u8>, &mut Env, &mut Vec<Step<u8>>)) {
        let mut out = Vec::new();
        what(&mut self.owner, &mut self.world.env, &mut out);
        let mut steps = VecDeque::from(out);
        while let Some(step) = steps.pop_front() {
            match step {
                Step::Propose(proposal) => {
                    let (index, verdict) = self.world.apply(proposal);
                    let mut out = Vec::new();
                    let outcome = ProposalOutcome::Applied { index, verdict };
                    if self.held {
                        self.verdicts.push_back(outcome);
                        continue;
                    }
                    self.owner.decided(&mut self.world.env, outcome, &mut out);
                    steps.extend(out);
                }
                Step::Own(own @ (Own::Errand(_) | Own::Barrier { held: true, .. })) => panic!("{own:?}"),
                Step::Own(Own::Outward(outward)) => self.outwards.push(outward),
                Step::Own(Own::Barrier { number, rows, held: false }) => self.barriers.push_back((number, rows)),
                Step::Own(Own::Reply { to, reply }) => self.replies.push((to, reply)),
                Step::End { .. } => self.ended = true,
                Step::Unreadable { .. } => self.unreadable += 1,
                // Until something is sent, or its sender is told that it is late.
                Step::Pause { .. } if self.world.place.mailbox.is_queue() => {}
                Step::Pause { .. } => panic!("{step:?}"),
            }
        }
    }

    fn ask(&mut self, session: u8, command: Command) -> CommandId {
        let id = self.world.env.command_id();
        self.run(|owner, env, out| owner.ask(env, Ask { session, id, attempt: 0, command }, out));
        id
    }

    fn confirm(&mut self, lead: Lead) {
        let (number, rows) = self.barriers.pop_front().unwrap();
        let rows = rows.map(|read| read.run(&self.world.rows));
        self.run(|owner, _, out| owner.confirmed(number, lead, rows, out));
    }

    /// What is applied becomes visible.
    fn shows(&mut self) {
        self.held = false;
        while let Some(outcome) = self.verdicts.pop_front() {
            self.run(|owner, env, out| owner.decided(env, outcome, out));
        }
    }

    /// Session 1 has INBOX open with messages 1 and 2, and session 2 removes the first: that is applied, and not visible.
    fn removes_unseen() -> Self {
        let mut shell = Shell::new();
        shell.append(2);
        shell.append(2);
        shell.ask(1, select());
        shell.confirm(Lead::Confirmed);
        shell.held = true;
        shell.ask(2, Command::Remove { folder: FolderId(1), uids: [1].into_iter().collect() });
        assert_eq!(shell.heard(), "S2");
        shell
    }

    fn append(&mut self, session: u8) {
        let new_message = self.world.new_message("Subject: x\r\n\r\nhello\r\n");
        let folder = "INBOX".to_owned();
        let (flags, internal_date) = Default::default();
        self.ask(session, Command::Append { folder, new_message, flags, internal_date });
    }

    /// What session 1 has heard since the last call, in a letter each.
    fn heard(&mut self) -> String {
        let of = |(to, what): &(u8, Reply)| match (to, what) {
            (1, Reply::Answer { result: Ok(Answer::Selected(s)), .. }) => format!("S{}", s.messages.len()),
            (1, Reply::Answer { result: Ok(Answer::Fetched(f)), .. }) => format!("F{}", f.len()),
            (1, Reply::Answer { result: Ok(_), .. }) => "A".to_owned(),
            (1, Reply::Answer { result: Err(e), .. }) => format!("{e:?}"),
            (1, Reply::Failed { error, .. }) => format!("{error:?}"),
            (1, Reply::Event(event)) => match &event.change {
                Change::Added(m) => format!("+{}", m[0].uid),
                _ => "E".to_owned(),
            },
            (1, Reply::Notice(notice)) => brief(notice),
            (1, Reply::Detached(why)) => format!("{why:?}"),
            _ => String::new(),
        };
        self.replies.drain(..).map(|reply| of(&reply)).filter(|s| !s.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// A notice: `own` where the session did it; names with what is below or above them in parentheses.
fn brief(notice: &Notice) -> String {
    let (own, news) = match notice {
        Notice::Anew | Notice::ListIsHere => return format!("{notice:?}"),
        Notice::OfOthers(news) => ("", news),
        Notice::Own(news) => ("own-", news),
    };
    let list = match news {
        FolderNews::Messages(id) => return format!("{own}messages-{}", id.0),
        FolderNews::Flags(id) => return format!("{own}flags-{}", id.0),
        FolderNews::List(list) => list,
    };
    let listing = |of: &Listing| {
        let has = [(of.line.id.is_some(), 'f'), (of.is_there, 't'), (of.has_children, 'c'), (of.line.subscribed, 's')];
        let has: String = has.iter().filter(|(has, _)| *has).map(|(_, letter)| letter).collect();
        format!("{}:{has}", of.line.name)
    };
    let change = match &list.change {
        ListChange::Made => "made".to_owned(),
        ListChange::Removed(id) => format!("removed{}", if id.is_some() { "" } else { "-level" }),
        ListChange::Renamed { from, below } => {
            let below: Vec<String> = below.iter().map(listing).collect();
            format!("renamed {from}({}) to", below.join(","))
        }
        ListChange::Subscription => "subscription".to_owned(),
    };
    let above: Vec<String> = list.above.iter().map(listing).collect();
    format!("{own}{change} {}^{}", listing(&list.name), above.join(","))
}

fn select() -> Command {
    Command::Select { folder: "INBOX".to_owned(), claim_recent: true }
}

#[test]
fn what_happens_while_a_read_waits_for_its_barrier_is_told_after_its_answer() {
    let mut shell = Shell::new();
    shell.append(2);
    shell.ask(1, select());
    shell.append(2);
    assert_eq!(shell.heard(), "", "the barrier has not answered");
    shell.confirm(Lead::Confirmed);
    assert_eq!(shell.heard(), "S1 +2");
    let folder = FolderId(1);
    let uids = (1..=9).collect();
    shell.ask(1, Command::Fetch { folder, uids, what: Default::default() });
    shell.ask(1, Command::Sync);
    shell.append(2);
    shell.confirm(Lead::Confirmed);
    assert_eq!(shell.heard(), "F2", "another read of the same state still waits");
    shell.confirm(Lead::Confirmed);
    assert_eq!(shell.heard(), "A +3");
    shell.append(2);
    assert_eq!(shell.heard(), "+4");
}

#[test]
fn who_watches_hears_of_folders_that_are_not_open_and_what_it_did_itself_as_its_own() {
    let mut shell = Shell::new();
    let inbox = FolderId(1);
    shell.append(2);
    assert_eq!(shell.heard(), "", "nobody watches");
    shell.ask(1, Command::Watch { what: Watching::Folders });
    shell.append(2);
    assert_eq!(shell.heard(), "", "the barrier has not answered");
    shell.confirm(Lead::Confirmed);
    assert_eq!(shell.heard(), "A messages-1");
    let flag = |uid: u32| Command::Store {
        folder: inbox,
        uids: [uid].into_iter().collect(),
        mode: StoreMode::Add,
        flags: Flags::none().with(SystemFlag::Seen),
        unchanged_since: None,
    };
    shell.ask(2, flag(1));
    assert_eq!(shell.heard(), "flags-1");
    shell.ask(1, flag(2));
    shell.append(1);
    assert_eq!(shell.heard(), "own-flags-1 A own-messages-1 A", "what it did itself is its own");
    shell.ask(2, Command::Remove { folder: inbox, uids: [1].into_iter().collect() });
    assert_eq!(shell.heard(), "messages-1");
    let named = |command: Command, shell: &mut Shell| {
        shell.ask(2, command);
        shell.heard()
    };
    let create = |name: &str| Command::CreateFolder { name: name.into() };
    let rename = |from: &str, to: &str| Command::RenameFolder { from: from.into(), to: to.into() };
    let delete = |name: &str| Command::DeleteFolder { name: name.into() };
    let subscribe = |on| Command::Subscribe { name: "inbox/x".into(), on };
    assert_eq!(named(create("a/b"), &mut shell), "made a:ft^ made a/b:ft^a:ftc");
    assert_eq!(named(create("a/b/x"), &mut shell), "made a/b/x:ft^a/b:ftc");
    assert_eq!(
        named(rename("a/b", "c/d"), &mut shell),
        "made c:ft^ renamed a/b(c/d/x:ft) to c/d:ftc^a:ft,c:ftc",
        "each as the list is right after it"
    );
    assert_eq!(named(rename("c/d", "c/e"), &mut shell), "renamed c/d(c/e/x:ft) to c/e:ftc^", "the level is the same");
    named(delete("c/e/x"), &mut shell);
    assert_eq!(named(delete("c"), &mut shell), "removed c:tc^", "it stays as a level");
    assert_eq!(named(create("c"), &mut shell), "made c:ftc^", "it is a folder again");
    named(delete("c"), &mut shell);
    assert_eq!(named(delete("c/e"), &mut shell), "removed c/e:^c:t removed-level c:^", "the level goes with it");
    assert_eq!(named(subscribe(true), &mut shell), "subscription INBOX/x:s^");
    assert_eq!(named(subscribe(true), &mut shell), "", "nothing changed");
    assert_eq!(named(subscribe(false), &mut shell), "subscription INBOX/x:^");
    shell.ask(2, delete("Sent"));
    shell.heard();
    let sent = Command::CreateFolderFor { name: "Sent".into(), special_use: SpecialUse::Sent };
    shell.ask(2, sent);
    let made = shell.replies.drain(..).find_map(|(_, reply)| match reply {
        Reply::Notice(Notice::OfOthers(FolderNews::List(news))) => Some(news),
        _ => None,
    });
    assert_eq!(made.and_then(|news| news.name.line.special_use), Some(SpecialUse::Sent), "its use is told at once");
    shell.ask(1, create("mine"));
    assert_eq!(shell.heard(), "own-made mine:ft^ A", "before the answer");
    shell.ask(1, select());
    shell.confirm(Lead::Confirmed);
    shell.heard();
    shell.append(2);
    assert_eq!(shell.heard(), "+4", "of the open folder it hears all, once");
    shell.ask(1, Command::Unselect);
    shell.append(2);
    shell.confirm(Lead::Confirmed);
    assert_eq!(shell.heard(), "A messages-1", "it is not open any more");
    shell.ask(1, Command::Watch { what: Watching::Nothing });
    shell.confirm(Lead::Confirmed);
    shell.append(2);
    assert_eq!(shell.heard(), "A");
}

#[test]
fn notices_behind_a_read_are_bounded_as_events_are() {
    let mut shell = Shell::new();
    shell.ask(1, Command::Watch { what: Watching::Folders });
    shell.confirm(Lead::Confirmed);
    shell.heard();
    shell.ask(1, Command::Sync);
    // A folder is made with all levels above it.
    let mut makes = |top: usize, levels: usize| {
        let name = format!("{top}{}", "/x".repeat(levels - 1));
        shell.ask(2, Command::CreateFolder { name });
        shell.heard()
    };
    let levels = 400;
    for top in 0..HELD_MAX_EVENTS / levels {
        assert_eq!(makes(top, levels), "");
    }
    assert_eq!(makes(100, HELD_MAX_EVENTS % levels), "");
    assert_eq!(makes(101, 1), "Gone", "it attaches again, and looks itself");
}

#[test]
fn folders_are_counted_where_they_have_changed() {
    let mut shell = Shell::new();
    shell.append(2);
    let counts = |shell: &mut Shell, known: Vec<(FolderId, u64)>| {
        shell.ask(1, Command::Statuses { known });
        shell.confirm(Lead::Confirmed);
        match shell.replies.drain(..).last() {
            Some((1, Reply::Answer { result: Ok(Answer::Statuses(counts)), .. })) => Ok(counts),
            Some((1, Reply::Answer { result: Err(refusal), .. })) => Err(refusal),
            other => panic!("{other:?}"),
        }
    };
    let all = counts(&mut shell, vec![(FolderId(1), 0), (FolderId(3), 0), (FolderId(99), 0)]).unwrap();
    let brief: Vec<_> = all.iter().map(|(id, c)| (id.0, c.messages, c.unseen, c.uid_next)).collect();
    assert_eq!(brief, [(1, 1, 1, 2), (3, 0, 0, 1)], "one that is no more is left out");
    let known: Vec<_> = all.iter().map(|(id, c)| (*id, c.highest_modseq)).collect();
    assert_eq!(counts(&mut shell, known.clone()), Ok(Vec::new()));
    shell.append(2);
    assert_eq!(counts(&mut shell, known).unwrap().len(), 1);
    let too_many = (0..=STATUSES_MAX as u32).map(|n| (FolderId(n), 0)).collect();
    assert!(matches!(counts(&mut shell, too_many), Err(Refusal::Limit(_))));
}

#[test]
fn the_kept_result_of_a_repeat_waits_for_a_barrier_and_events_behind_it() {
    let mut shell = Shell::new();
    shell.ask(1, select());
    shell.confirm(Lead::Confirmed);
    let subscribe = || Command::Subscribe { name: "x".to_owned(), on: true };
    let id = shell.ask(1, subscribe());
    assert_eq!(shell.heard(), "S0 A", "its own entry shows that this owner led");
    let repeat = |shell: &mut Shell| {
        let asked = Ask { session: 1, id, attempt: 1, command: subscribe() };
        shell.run(|owner, env, out| owner.ask(env, asked, out));
    };
    repeat(&mut shell);
    shell.append(2);
    assert_eq!(shell.heard(), "", "the barrier has not answered");
    shell.confirm(Lead::Confirmed);
    assert_eq!(shell.heard(), "A +1");
    repeat(&mut shell);
    shell.confirm(Lead::Lost);
    assert_eq!((shell.heard().as_str(), shell.ended), ("NotLeader", true));
}

#[test]
fn a_removal_that_may_have_been_done_is_not_refused_because_another_has_the_maildrop() {
    let mut shell = Shell::new();
    shell.append(2);
    let in_maildrop = |holder: u8, command| Command::InMaildrop {
        holder: crate::api::MaildropHolder([holder; 16]),
        command: Box::new(command),
    };
    let remove = || in_maildrop(1, Command::Remove { folder: FolderId(1), uids: [1].into_iter().collect() });
    shell.ask(2, in_maildrop(2, Command::Maildrop));
    shell.confirm(Lead::Confirmed);
    shell.ask(1, remove());
    assert_eq!(shell.heard(), "", "whoever leads no more may be wrong about who has it");
    shell.confirm(Lead::Confirmed);
    assert_eq!(shell.heard(), "MaildropInUse");
    // The first attempt was with another owner.
    let id = shell.world.env.command_id();
    let asked = Ask { session: 1, id, attempt: 1, command: remove() };
    shell.run(|owner, env, out| owner.ask(env, asked, out));
    let messages = |shell: &Shell| shell.world.load().state().folder(FolderId(1)).unwrap().messages();
    assert_eq!((shell.heard().as_str(), messages(&shell)), ("Unknown", 1));
    // The holder's link ends, and with it the lock.
    shell.owner.detach(2);
    shell.ask(1, remove());
    assert_eq!((shell.heard().as_str(), messages(&shell)), ("A", 0));
}

fn fetch() -> Command {
    let what = FetchWhat { content: true, header: true };
    Command::Fetch { folder: FolderId(1), uids: (1..=9).collect(), what }
}

#[test]
fn a_read_that_finds_rows_gone_waits_until_the_removal_is_visible() {
    let mut shell = Shell::removes_unseen();
    shell.ask(1, fetch());
    shell.confirm(Lead::Confirmed);
    shell.ask(1, Command::Sync);
    shell.confirm(Lead::Confirmed);
    assert_eq!(shell.heard(), "A", "what removed the message may still be undone");
    shell.shows();
    assert_eq!((shell.heard().as_str(), shell.unreadable), ("F1 E", 0), "first the answer, then that it is gone");
    shell.ask(1, fetch());
    shell.confirm(Lead::Confirmed);
    assert_eq!(shell.heard(), "F1");
}

#[test]
fn while_other_regions_do_not_confirm_nobody_waits_for_rows_that_are_ahead() {
    let mut shell = Shell::removes_unseen();
    shell.ask(1, fetch());
    shell.confirm(Lead::Confirmed);
    shell.run(|owner, _, out| owner.set_unconfirmed(true, out));
    shell.ask(1, fetch());
    shell.confirm(Lead::Confirmed);
    assert_eq!(shell.heard(), "NotConfirmed NotConfirmed");
    shell.run(|owner, _, out| owner.set_unconfirmed(false, out));
    for _ in 0..=AHEAD_MAX_READS {
        shell.ask(1, fetch());
        shell.confirm(Lead::Confirmed);
    }
    assert_eq!(shell.heard(), "Overloaded");
    shell.shows();
    assert_eq!(shell.heard().matches("F1").count(), AHEAD_MAX_READS);
    assert!(shell.barriers.is_empty());
}

#[test]
fn rows_that_are_gone_and_that_nobody_removed_are_damage_if_this_node_led_after_that() {
    for (lead, heard, unreadable) in [(Lead::Confirmed, "Corrupt", 1), (Lead::Lost, "NotLeader", 0)] {
        let mut shell = Shell::new();
        shell.append(2);
        let mailbox = shell.world.place.mailbox;
        let rows = shell.world.rows.scan(REPLICA, mailbox, Table::Contents, &[], &[], 9).unwrap();
        let deletes = rows.iter().map(|(key, _)| RowKey::new(mailbox, Table::Contents, key.clone())).collect();
        shell.world.write(shell.world.next_index(), RowBatch { puts: Vec::new(), deletes });
        shell.held = true;
        shell.ask(2, Command::Subscribe { name: "x".to_owned(), on: true });
        shell.ask(1, fetch());
        shell.confirm(Lead::Confirmed);
        assert!(shell.barriers.is_empty(), "the entry in flight may have removed them");
        shell.shows();
        assert_eq!(shell.heard(), "");
        shell.confirm(lead);
        assert_eq!((shell.heard().as_str(), shell.unreadable), (heard, unreadable));
    }
}

#[test]
fn after_a_lost_lead_nothing_is_answered_and_everyone_is_told() {
    let mut shell = Shell::new();
    shell.ask(1, select());
    shell.confirm(Lead::Lost);
    assert_eq!((shell.heard().as_str(), shell.ended), ("NotLeader", true));
    shell.ask(1, Command::Sync);
    assert_eq!((shell.heard().as_str(), shell.barriers.len()), ("", 0));
}

#[test]
fn what_waits_for_loading_is_bounded_and_then_done_in_its_order() {
    let mut shell = Shell::new();
    shell.owner = MailboxOwner::new();
    shell.owner.attach(1, SessionNumber(1));
    for _ in 0..=BACKLOG_MAX_COMMANDS {
        shell.ask(1, Command::Subscribe { name: "x".to_owned(), on: true });
    }
    assert_eq!(shell.heard(), "Overloaded");
    let loaded = shell.world.load();
    shell.run(|owner, env, out| owner.loaded(env, Ok(loaded), out));
    assert_eq!(shell.heard().matches('A').count(), BACKLOG_MAX_COMMANDS);
    assert!(!shell.owner.is_idle(), "a session is attached");
    shell.owner.detach(1);
    assert!(shell.owner.is_idle());
}

#[test]
fn a_session_that_hears_nothing_while_too_much_happens_attaches_again() {
    let mut shell = Shell::new();
    shell.append(2);
    shell.ask(1, select());
    for n in 0..=HELD_MAX_EVENTS {
        let mode = if n % 2 == 0 { crate::api::StoreMode::Add } else { crate::api::StoreMode::Remove };
        let flags = crate::Flags::none().with(crate::SystemFlag::Seen);
        let uids = [1].into_iter().collect();
        shell.ask(2, Command::Store { folder: FolderId(1), uids, mode, flags, unchanged_since: None });
    }
    assert_eq!(shell.heard(), "Gone");
    shell.confirm(Lead::Confirmed);
    assert_eq!(shell.heard(), "");
}

#[test]
fn an_owner_does_not_end_while_a_message_is_sent_that_was_held_meanwhile() {
    let mut shell = Shell::over(World::queue());
    accept_for_outside(&mut shell);
    [1, 2].into_iter().for_each(|session| shell.owner.detach(session));
    let sending = shell.outwards.pop().unwrap();
    shell.owner.attach(1, SessionNumber(1));
    let hold = Command::DecideQueued { item: sending.item, recipients: Vec::new(), decision: QueueDecision::Hold };
    shell.ask(1, hold);
    shell.owner.detach(1);
    // What it comes to is to be recorded: else a message that was sent would be held, and sent again when it is released.
    assert!(!shell.owner.is_idle(), "a message is on its way");
    let attempt = attempt(AttemptEnd::Sent { report: None });
    shell.run(|owner, env, out| {
        owner.outward_ended(env, sending.number, OutwardOutcome::Attempted(vec![attempt]), out);
    });
    assert!(shell.owner.is_idle());
    assert_eq!(shell.world.count(Table::Queue), 0, "it was sent");
}

/// A message for somebody at another server.
fn accept_for_outside(shell: &mut Shell) {
    let new_message = shell.world.new_message("Subject: x\r\n\r\nhello\r\n");
    let to = AcceptedRecipient {
        address: "r@b.test".to_owned(),
        mailbox: MailboxId::OUTSIDE,
        detail: None,
        notify: None,
        orcpt: None,
    };
    let accepted = AcceptedEnvelope { recipients: vec![to], ..AcceptedEnvelope::default() };
    shell.ask(1, Command::Accept { new_message, accepted, received: ZonedTime::default() });
}

fn attempt(end: AttemptEnd) -> Attempt {
    let diagnosis = Diagnosis {
        at: UnixMillis(7),
        host: Some("mx.b.test".to_owned()),
        status: "2.0.0".to_owned(),
        text: "250 ok".to_owned(),
        is_reply: true,
    };
    Attempt { recipient: 0, end, diagnosis }
}

#[test]
fn what_an_earlier_owner_let_go_is_not_sent_again_if_it_is_told_in_time() {
    for is_told in [true, false] {
        let mut shell = Shell::over(World::queue());
        accept_for_outside(&mut shell);
        let item = shell.outwards.pop().unwrap().item;
        // Its last octet is on its way, and another node leads.
        let mut successor = Shell::over(shell.world);
        let just_before = PREDECESSOR_GRACE - Duration::from_millis(1);
        successor.world.env.now += just_before;
        successor.world.env.wall.0 += u64::try_from(just_before.as_millis()).unwrap();
        successor.run(|owner, env, out| owner.again(env, out));
        assert!(successor.outwards.is_empty());
        // Mail that comes meanwhile nobody else can have begun.
        accept_for_outside(&mut successor);
        let new = successor.outwards.pop().unwrap();
        assert!(successor.outwards.is_empty() && new.item != item);
        successor.run(|owner, env, out| {
            let sent = vec![attempt(AttemptEnd::Sent { report: None })];
            owner.outward_ended(env, new.number, OutwardOutcome::Attempted(sent), out);
        });
        assert_eq!(successor.heard(), "A");
        let said = |end| Command::ChangeQueue { change: QueueChange::Attempted { item, attempts: vec![attempt(end)] } };
        for end in [AttemptEnd::Failed, AttemptEnd::Deferred { next: UnixMillis(0) }] {
            successor.ask(1, said(end));
            assert_eq!(successor.heard(), "Unsupported", "it finds that out for itself");
        }
        if is_told {
            for _ in 0..2 {
                successor.ask(1, said(AttemptEnd::Sent { report: None }));
                assert_eq!(successor.heard(), "A");
            }
            assert_eq!(successor.world.count(Table::Queue), 0);
        }
        successor.world.env.now += Duration::from_millis(1);
        successor.run(|owner, env, out| owner.again(env, out));
        assert_eq!(successor.outwards.len(), usize::from(!is_told));
    }
}

#[test]
fn an_owner_sends_at_once_what_comes_to_it_and_what_nobody_can_have_begun() {
    let mut shell = Shell::over(World::queue());
    accept_for_outside(&mut shell);
    let sending = shell.outwards.pop().unwrap();
    // It is tried again in an hour: who leads then need not wait for what nobody began.
    let next = UnixMillis(shell.world.env.wall.0 + 3_600_000);
    shell.run(|owner, env, out| {
        let attempts = vec![attempt(AttemptEnd::Deferred { next })];
        owner.outward_ended(env, sending.number, OutwardOutcome::Attempted(attempts), out);
    });
    let mut successor = Shell::over(shell.world);
    accept_for_outside(&mut successor);
    assert_eq!(successor.outwards.len(), 1);
}
