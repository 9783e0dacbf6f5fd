#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mailraft_storage::body::seal_chunk;
use mailraft_storage::{CommandId, MailboxId, Table, UnixMillis};

use crate::accepted::{
    ASKED_FOR, AT_ONCE, AcceptedEnvelope, AcceptedRecipient, Attempt, AttemptEnd, DIAGNOSIS_MAX_BYTES, DeliveryStage,
    Diagnosis, HeldBecause, QueueChange, QueueDecision, QueuedAsked, RecipientAsked, ReportKind, Told,
};
use crate::api::{Answer, Command, Refusal, ZonedTime};
use crate::harness::World;
use crate::queue::items::Items;
use crate::queue::outgoing::OutgoingMessage;
use crate::queue::outward::{
    Outward, OutwardKind, OutwardOutcome, Outwards, QUICK_DOMAINS_MAX, QUICK_MAX, REPORTS_MAX, SENDING_RECIPIENTS_MAX,
    SENDINGS_KEPT_FOR_QUICK, SENDINGS_MAX, SENDINGS_TO_ONE_DOMAIN_MAX,
};

const MESSAGE: &str = "From: a@here.test\r\n\r\nx\r\n";
const HOUR_MS: u64 = 3_600_000;

fn outside(address: &str) -> AcceptedRecipient {
    AcceptedRecipient {
        address: address.to_owned(),
        mailbox: MailboxId::OUTSIDE,
        detail: None,
        notify: None,
        orcpt: None,
    }
}

/// Takes a message in for these addresses outside.
fn accept(world: &mut World, to: &[&str]) -> CommandId {
    accept_from(world, "a@here.test", to)
}

/// Takes in what this account sends.
fn accept_from(world: &mut World, identity: &str, to: &[&str]) -> CommandId {
    let accepted = AcceptedEnvelope {
        reverse_path: identity.into(),
        identity: Some(identity.into()),
        recipients: to.iter().map(|to| outside(to)).collect(),
        ..AcceptedEnvelope::default()
    };
    accept_as(world, accepted)
}

fn accept_as(world: &mut World, accepted: AcceptedEnvelope) -> CommandId {
    let mut new_message = world.new_message(MESSAGE);
    let sealed = seal_chunk(new_message.body, &new_message.body_key, 0, true, MESSAGE.as_bytes());
    new_message.inline = Some(sealed);
    let command = Command::Accept { new_message, accepted, received: ZonedTime::default() };
    match world.run(command) {
        Ok(Answer::Accepted { item, .. }) => item,
        other => panic!("{other:?}"),
    }
}

fn diagnosis(text: &str) -> Diagnosis {
    Diagnosis {
        at: UnixMillis(7),
        host: Some("mx.b.test".into()),
        status: "4.2.0".into(),
        text: text.into(),
        is_reply: true,
    }
}

fn attempted(item: CommandId, ends: &[(u32, AttemptEnd)]) -> Command {
    let attempt = |(recipient, end): &(u32, AttemptEnd)| Attempt {
        recipient: *recipient,
        end: *end,
        diagnosis: diagnosis("450 come again"),
    };
    Command::ChangeQueue { change: QueueChange::Attempted { item, attempts: ends.iter().map(attempt).collect() } }
}

fn stages(world: &mut World, item: CommandId) -> Vec<(u32, DeliveryStage)> {
    match world.run(Command::QueueItem { item }) {
        Ok(Answer::QueueItem(Some(detail))) => {
            detail.recipients.into_iter().map(|(number, _, stage)| (number, stage)).collect()
        }
        Ok(Answer::QueueItem(None)) => Vec::new(),
        other => panic!("{other:?}"),
    }
}

fn report(world: &mut World, item: CommandId, kind: ReportKind, recipients: &[u32]) -> Command {
    let accepted = AcceptedEnvelope { recipients: vec![outside("a@here.test")], ..AcceptedEnvelope::default() };
    let told = Told { item, kind, recipients: recipients.to_vec() };
    let new_message = world.new_message("it was not delivered");
    Command::Report { told, new_message, accepted, received: ZonedTime::default() }
}

#[test]
fn what_was_attempted_stands_in_rows_and_goes_when_it_is_sent() {
    let mut world = World::queue();
    let item = accept(&mut world, &["r0@b.test", "r1@b.test", "r2@c.test"]);
    let deferred = AttemptEnd::Deferred { next: UnixMillis(99) };
    world.run(attempted(item, &[(0, deferred), (1, AttemptEnd::Sent { report: None })])).unwrap();
    world.run(attempted(item, &[(0, deferred)])).unwrap();
    world.assert_rows_are_memory();
    world.reload();
    let expected = DeliveryStage::Deferred { failed: 2, next: UnixMillis(99), warned: false };
    assert_eq!(stages(&mut world, item), [(0, expected), (2, DeliveryStage::Waiting)]);
    let attempts = world.run(Command::QueueAttempts { item }).unwrap();
    assert_eq!(attempts, Answer::QueueAttempts(vec![(0, diagnosis("450 come again"))]));
    assert!(!world.mailbox.is_idle(), "what is tried again later keeps its owner awake");
    let sent = AttemptEnd::Sent { report: None };
    world.run(attempted(item, &[(0, sent), (2, sent)])).unwrap();
    world.assert_rows_are_memory();
    for table in [Table::Queue, Table::QueueKeys, Table::QueueRecipients, Table::Chunks] {
        assert_eq!(world.count(table), 0, "{table:?}");
    }
    assert!(world.mailbox.is_idle());
}

#[test]
fn a_sender_is_told_once_by_the_commit_that_forgets_whom_it_is_about() {
    let mut world = World::queue();
    let item = accept(&mut world, &["r0@b.test", "r1@b.test"]);
    world.run(attempted(item, &[(0, AttemptEnd::Failed), (1, AttemptEnd::Deferred { next: UnixMillis(9) })])).unwrap();
    assert_eq!(stages(&mut world, item)[0].1, DeliveryStage::Reporting(ReportKind::Failed));
    let first = report(&mut world, item, ReportKind::Failed, &[0]);
    let Ok(Answer::Accepted { item: of_report, .. }) = world.run(first) else { panic!("it is taken in") };
    assert_eq!(stages(&mut world, item).len(), 1);
    assert_eq!(stages(&mut world, of_report), [(0, DeliveryStage::Waiting)]);
    // A second one that another leader wrote, or a copy that was held up, is none.
    let again = report(&mut world, item, ReportKind::Failed, &[0]);
    assert_eq!(world.run(again), Err(Refusal::Stale));
    let items = world.run(Command::QueueItems { after: None }).unwrap();
    assert!(matches!(items, Answer::QueueItems(items) if items.len() == 2));
    // That it is late is told once, and it is tried on.
    let late = report(&mut world, item, ReportKind::Delayed, &[1]);
    world.run(late).unwrap();
    let late = report(&mut world, item, ReportKind::Delayed, &[1]);
    assert_eq!(world.run(late), Err(Refusal::Stale));
    assert!(matches!(stages(&mut world, item)[0].1, DeliveryStage::Deferred { warned: true, .. }));
    world.assert_rows_are_memory();
}

#[test]
fn a_report_comes_from_nobody_so_that_none_is_made_of_it() {
    let mut world = World::queue();
    let item = accept(&mut world, &["r0@b.test"]);
    world.run(attempted(item, &[(0, AttemptEnd::Failed)])).unwrap();
    let mut wrong = report(&mut world, item, ReportKind::Failed, &[0]);
    if let Command::Report { accepted, .. } = &mut wrong {
        accepted.reverse_path = "somebody@here.test".into();
    }
    assert!(matches!(world.run(wrong), Err(Refusal::NotAllowed(_))));
    // Who wants no report, or is nobody, is told nothing, and that is all.
    let told = Told { item, kind: ReportKind::Failed, recipients: vec![0] };
    world.run(Command::ChangeQueue { change: QueueChange::NotTold(told) }).unwrap();
    assert_eq!(world.count(Table::Queue), 0);
}

#[test]
fn an_operator_decides_about_recipients_as_they_are() {
    let mut world = World::queue();
    let item = accept(&mut world, &["r0@b.test", "r1@b.test"]);
    let decide =
        |decision, recipients: &[u32]| Command::DecideQueued { item, recipients: recipients.to_vec(), decision };
    let held = DeliveryStage::Held(HeldBecause::Operator);
    assert_eq!(world.run(decide(QueueDecision::Hold, &[])), Ok(Answer::Counted(2)));
    assert_eq!(stages(&mut world, item), [(0, held), (1, held)]);
    assert!(world.mailbox.is_idle(), "what is held keeps nobody awake");
    // An attempt that began before ends: it stays held, unless it is sent.
    world.run(attempted(item, &[(0, AttemptEnd::Deferred { next: UnixMillis(5) })])).unwrap();
    assert_eq!(stages(&mut world, item), [(0, held), (1, held)]);
    assert_eq!(world.run(decide(QueueDecision::Release, &[1])), Ok(Answer::Counted(1)));
    world.run(attempted(item, &[(1, AttemptEnd::Deferred { next: UnixMillis(5) })])).unwrap();
    assert_eq!(world.run(decide(QueueDecision::Retry, &[1])), Ok(Answer::Counted(1)));
    assert!(matches!(stages(&mut world, item)[1].1, DeliveryStage::Deferred { failed: 1, next: ASKED_FOR, .. }));
    assert_eq!(world.run(decide(QueueDecision::Return, &[1])), Ok(Answer::Counted(1)));
    assert_eq!(stages(&mut world, item)[1].1, DeliveryStage::Reporting(ReportKind::Failed));
    assert_eq!(world.run(decide(QueueDecision::Drop, &[])), Ok(Answer::Counted(1)), "the other's sender is told");
    assert_eq!(stages(&mut world, item).len(), 1);
    world.assert_rows_are_memory();
    // One that is gone keeps nothing of the other from being known: it was sent, so that nothing is told of it.
    world.run(attempted(item, &[(0, AttemptEnd::Failed), (1, AttemptEnd::Sent { report: None })])).unwrap();
    assert!(stages(&mut world, item).is_empty());
    world.assert_rows_are_memory();
}

#[test]
fn what_others_say_is_kept_within_a_bound_and_the_message_is_read_as_it_was() {
    let mut world = World::queue();
    let item = accept(&mut world, &["r0@b.test"]);
    let long = Diagnosis { text: "ä".repeat(DIAGNOSIS_MAX_BYTES), ..diagnosis("") };
    let attempts = vec![Attempt { recipient: 0, end: AttemptEnd::Deferred { next: UnixMillis(1) }, diagnosis: long }];
    world.run(Command::ChangeQueue { change: QueueChange::Attempted { item, attempts } }).unwrap();
    let read = OutgoingMessage::read(&world.rows, world.place, &world.key, item, &[0, 1]).unwrap().unwrap();
    assert_eq!(read.recipients.len(), 1);
    assert_eq!(read.recipients[0].last.as_ref().unwrap().text.len(), DIAGNOSIS_MAX_BYTES);
    assert_eq!(read.piece(&world.rows, 0).unwrap().unwrap().as_slice(), MESSAGE.as_bytes());
    assert!(read.is_ours() && read.piece(&world.rows, 1).unwrap().is_none());
}

#[test]
fn what_several_addresses_forward_leaves_for_each_of_them() {
    let mut world = World::queue();
    let forwarded = |to: &str, by: &str| AcceptedRecipient { detail: Some(by.to_owned()), ..outside(to) };
    let accepted = AcceptedEnvelope {
        reverse_path: "far@c.test".into(),
        client: Some("192.0.2.1".into()),
        recipients: vec![
            forwarded("r0@b.test", "x@here.test"),
            forwarded("r1@b.test", "y@here.test"),
            forwarded("r2@b.test", "x@here.test"),
            forwarded("r3@b.test", "here.test"),
        ],
        ..AcceptedEnvelope::default()
    };
    let item = accept_as(&mut world, accepted);
    let begun = Outwards::default().next(Duration::ZERO, UnixMillis(1), &items(&world));
    let mut found: Vec<Vec<String>> = Vec::new();
    for outward in &begun {
        let OutwardKind::Send { recipients, .. } = &outward.what else { panic!("nobody is told anything") };
        let numbers: Vec<u32> = recipients.iter().map(|(number, _)| *number).collect();
        let read = OutgoingMessage::read(&world.rows, world.place, &world.key, item, &numbers).unwrap().unwrap();
        assert!(!read.is_ours());
        let to = read.recipients.iter().map(|recipient| recipient.address.as_str());
        found.push(read.forwarders().into_iter().chain(to).map(str::to_owned).collect());
    }
    found.sort();
    // Whoever sent what was forwarded gets a report back, which no address forwards.
    assert_eq!(
        found,
        [vec!["r3@b.test"], vec!["x@here.test", "r0@b.test", "r2@b.test"], vec!["y@here.test", "r1@b.test"]]
    );
}

/// The items of a world's queue mailbox.
fn items(world: &World) -> Items {
    world.mailbox.engine().queue().0.clone()
}

fn sends(begun: &[Outward]) -> Vec<(&str, usize)> {
    let of = |outward: &Outward| match &outward.what {
        OutwardKind::Send { .. } => 1,
        OutwardKind::Report { .. } => 0,
    };
    assert!(begun.iter().all(|outward| of(outward) == 1));
    begun
        .iter()
        .filter_map(|outward| match &outward.what {
            OutwardKind::Send { domain, recipients, .. } => Some((domain.as_ref(), recipients.len())),
            OutwardKind::Report { .. } => None,
        })
        .collect()
}

#[test]
fn domains_take_turns_and_one_has_so_many_places() {
    let mut world = World::queue();
    for _ in 0..SENDINGS_MAX {
        accept(&mut world, &["r@slow.test"]);
    }
    accept(&mut world, &["r@b.test", "s@b.test"]);
    accept(&mut world, &["r@c.test"]);
    let (items, mut outwards) = (items(&world), Outwards::default());
    let begun = outwards.next(Duration::ZERO, UnixMillis(1), &items);
    let sent = sends(&begun);
    assert_eq!(sent.iter().filter(|(domain, _)| *domain == "slow.test").count(), SENDINGS_TO_ONE_DOMAIN_MAX);
    assert!(sent.contains(&("b.test", 2)) && sent.contains(&("c.test", 1)));
    assert!(outwards.next(Duration::ZERO, UnixMillis(1), &items).is_empty(), "each is begun once");
    // Its servers are not to be asked now: nothing more of it is begun before, and others are.
    let slow = begun.iter().find(|o| matches!(&o.what, OutwardKind::Send { domain, .. } if **domain == *"slow.test"));
    let pause = Duration::from_secs(30);
    assert_eq!(outwards.ended(Duration::ZERO, &items, slow.unwrap().number, OutwardOutcome::NotNow(pause)), None);
    assert!(outwards.next(Duration::ZERO, UnixMillis(1), &items).is_empty());
    assert_eq!(outwards.wakes_at(), Some(pause));
    assert_eq!(outwards.next(pause, UnixMillis(1), &items).len(), 1);
}

#[test]
fn so_much_is_sent_at_once_and_a_sending_has_so_many_recipients() {
    let mut world = World::queue();
    for number in 0..2 * SENDINGS_MAX {
        accept_from(&mut world, &format!("a{number}@here.test"), &[&format!("r@d{number}.test")]);
    }
    let mut outwards = Outwards::default();
    let begun = outwards.next(Duration::ZERO, UnixMillis(1), &items(&world));
    assert_eq!(begun.len(), SENDINGS_MAX - SENDINGS_KEPT_FOR_QUICK);
    let mut world = World::queue();
    let many: Vec<String> = (0..SENDING_RECIPIENTS_MAX + 20).map(|number| format!("r{number}@b.test")).collect();
    let item = accept(&mut world, &many.iter().map(String::as_str).collect::<Vec<_>>());
    let mut outwards = Outwards::default();
    let begun = outwards.next(Duration::ZERO, UnixMillis(1), &items(&world));
    assert_eq!(sends(&begun), [("b.test", SENDING_RECIPIENTS_MAX), ("b.test", 20)]);
    // Recipients of whom nothing was said are tried again, later.
    let ends: Vec<Attempt> = (0..SENDING_RECIPIENTS_MAX as u32 - 1)
        .map(|recipient| Attempt { recipient, end: AttemptEnd::Failed, diagnosis: diagnosis("no") })
        .collect();
    let change = outwards.ended(Duration::ZERO, &items(&world), begun[0].number, OutwardOutcome::Attempted(ends));
    assert!(matches!(&change, Some(QueueChange::Attempted { attempts, .. }) if attempts.len() == 99));
    let recipients: Vec<u32> = (0..99).collect();
    world.run(Command::ChangeQueue { change: change.unwrap() }).unwrap();
    outwards.changed(Duration::ZERO, item, &recipients, true);
    let next = outwards.next(Duration::ZERO, UnixMillis(1), &items(&world));
    let kinds: Vec<usize> = next.iter().map(|o| matches!(o.what, OutwardKind::Report { .. }).into()).collect();
    assert_eq!(kinds, [1], "one report about all that failed, and nothing sent yet");
    assert_eq!(outwards.next(Duration::from_secs(1), UnixMillis(1), &items(&world)).len(), 1);
}

/// How many sendings of those are an account's, by the name that its domains begin with.
fn to(begun: &[Outward], domains: &str) -> usize {
    sends(begun).iter().filter(|(domain, _)| domain.starts_with(domains)).count()
}

/// That an attempt was made of it, and a server answered.
fn answered(outward: &Outward) -> OutwardOutcome {
    let OutwardKind::Send { recipients, .. } = &outward.what else { panic!("it is sent") };
    let end = AttemptEnd::Deferred { next: UnixMillis(u64::MAX) };
    let attempt = |(recipient, _): &(u32, u32)| Attempt { recipient: *recipient, end, diagnosis: diagnosis("450 no") };
    OutwardOutcome::Attempted(recipients.iter().map(attempt).collect())
}

#[test]
fn an_account_whose_mail_goes_to_servers_that_hang_leaves_places_to_others_and_to_its_own_other_mail() {
    let (mut world, mut outwards) = (World::queue(), Outwards::default());
    // Its own mail to a domain that answers.
    accept_from(&mut world, "hog@here.test", &["r@quick.test"]);
    let first = outwards.next(Duration::ZERO, UnixMillis(1), &items(&world));
    assert_eq!(sends(&first), [("quick.test", 1)]);
    let change = outwards.ended(QUICK_MAX, &items(&world), first[0].number, answered(&first[0])).unwrap();
    let item = change.item();
    world.run(Command::ChangeQueue { change }).unwrap();
    outwards.changed(QUICK_MAX, item, &[0], true);
    for number in 0..10 * SENDINGS_MAX {
        accept_from(&mut world, "hog@here.test", &[&format!("r@hangs{number}.test")]);
    }
    let hanging = outwards.next(QUICK_MAX, UnixMillis(1), &items(&world));
    assert_eq!(to(&hanging, "hangs"), (SENDINGS_MAX - SENDINGS_KEPT_FOR_QUICK) / 4 + 1);
    // None of them ends, and what comes beside them is begun at once. Whose it is stands in rows.
    accept_from(&mut world, "somebody@here.test", &["r@new.test"]);
    accept_from(&mut world, "hog@here.test", &["r@quick.test"]);
    world.reload();
    let beside = outwards.next(QUICK_MAX, UnixMillis(1), &items(&world));
    assert_eq!(sends(&beside), [("new.test", 1), ("quick.test", 1)]);
}

#[test]
fn what_is_decided_while_it_is_sent_takes_effect_when_that_has_ended() {
    let sent = AttemptEnd::Sent { report: None };
    let (deferred, failed) =
        (AttemptEnd::Deferred { next: UnixMillis(u64::MAX) }, DeliveryStage::Reporting(ReportKind::Failed));
    let held = DeliveryStage::Held(HeldBecause::Operator);
    for (decision, end, left, told) in [
        // What was sent is sent, and nobody hears that it was not delivered.
        (QueueDecision::Return, sent, None, 0),
        (QueueDecision::Hold, sent, None, 0),
        (QueueDecision::Drop, sent, None, 0),
        (QueueDecision::Return, deferred, Some(failed), 1),
        (QueueDecision::Hold, deferred, Some(held), 0),
        (QueueDecision::Drop, deferred, None, 0),
    ] {
        let (mut world, mut outwards) = (World::queue(), Outwards::default());
        let item = accept(&mut world, &["r@b.test"]);
        let begun = outwards.next(Duration::ZERO, UnixMillis(1), &items(&world));
        world.run(Command::DecideQueued { item, recipients: Vec::new(), decision }).unwrap();
        let meanwhile = outwards.next(Duration::ZERO, UnixMillis(1), &items(&world));
        assert!(meanwhile.is_empty(), "{decision:?}: nobody is told before it is known: {meanwhile:?}");
        let attempts = vec![Attempt { recipient: 0, end, diagnosis: diagnosis("of the server") }];
        let outcome = OutwardOutcome::Attempted(attempts);
        if let Some(change) = outwards.ended(Duration::ZERO, &items(&world), begun[0].number, outcome) {
            world.run(Command::ChangeQueue { change }).unwrap();
            outwards.changed(Duration::ZERO, item, &[0], true);
        }
        assert_eq!(stages(&mut world, item).first().map(|(_, stage)| *stage), left, "{decision:?}, {end:?}");
        assert_eq!(outwards.next(Duration::ZERO, UnixMillis(1), &items(&world)).len(), told, "{decision:?}, {end:?}");
        world.assert_rows_are_memory();
    }
}

#[test]
fn so_many_domains_are_known_as_quick_and_one_that_was_slow_is_no_more() {
    let (mut world, mut outwards, mut now) = (World::queue(), Outwards::default(), Duration::ZERO);
    let mut send = |world: &mut World, outwards: &mut Outwards, domain: &str, takes: Duration| {
        let item = accept_from(world, "a@here.test", &[&format!("r@{domain}")]);
        let begun = outwards.next(now, UnixMillis(1), &items(world));
        now += takes;
        let change = outwards.ended(now, &items(world), begun[0].number, answered(&begun[0])).unwrap();
        world.run(Command::ChangeQueue { change }).unwrap();
        outwards.changed(now, item, &[0], true);
    };
    send(&mut world, &mut outwards, "slow.test", QUICK_MAX);
    send(&mut world, &mut outwards, "slow.test", QUICK_MAX + Duration::from_millis(1));
    for number in 0..QUICK_DOMAINS_MAX + 1 {
        send(&mut world, &mut outwards, &format!("q{number}.test"), Duration::ZERO);
    }
    assert_eq!(outwards.quick_domains(), QUICK_DOMAINS_MAX);
    for (domain, is_quick) in [("slow.test", false), ("q0.test", false), ("q1.test", true), ("never.test", false)] {
        assert_eq!(outwards.is_quick(domain), is_quick, "{domain}");
    }
}

#[test]
fn what_is_due_later_waits_and_its_sender_hears_after_four_hours() {
    let mut world = World::queue();
    let begun_at = world.env.wall;
    let item = accept(&mut world, &["r@b.test"]);
    let next = UnixMillis(begun_at.0 + 5 * HOUR_MS);
    world.run(attempted(item, &[(0, AttemptEnd::Deferred { next })])).unwrap();
    let (items, mut outwards) = (items(&world), Outwards::default());
    assert!(outwards.next(Duration::ZERO, begun_at, &items).is_empty());
    assert_eq!(outwards.wakes_at(), Some(Duration::from_millis(4 * HOUR_MS)));
    let late = outwards.next(Duration::ZERO, UnixMillis(begun_at.0 + 4 * HOUR_MS), &items);
    let [Outward { what: OutwardKind::Report { kind: ReportKind::Delayed, .. }, number, .. }] = late.as_slice() else {
        panic!("{late:?}")
    };
    // It could not be told now: the message is sent all the same when that is due, and it is told later.
    assert_eq!(outwards.ended(Duration::ZERO, &items, *number, OutwardOutcome::Failed), None);
    let due = outwards.next(Duration::from_secs(1), next, &items);
    assert!(
        matches!(due.as_slice(), [Outward { what: OutwardKind::Send { recipients, .. }, .. }] if recipients == &[(0, 1)])
    );
}

#[test]
fn a_sender_hears_that_it_is_late_though_nobody_could_even_be_asked() {
    let mut world = World::queue();
    let begun_at = world.env.wall;
    let item = accept(&mut world, &["r@down.test"]);
    let mut outwards = Outwards::default();
    let begun = outwards.next(Duration::ZERO, begun_at, &items(&world));
    let pause = OutwardOutcome::NotNow(Duration::from_secs(30));
    assert_eq!(outwards.ended(Duration::ZERO, &items(&world), begun[0].number, pause), None);
    let late = outwards.next(Duration::ZERO, UnixMillis(begun_at.0 + 4 * HOUR_MS), &items(&world));
    assert!(matches!(late.as_slice(), [Outward { what: OutwardKind::Report { kind: ReportKind::Delayed, .. }, .. }]));
    let report = report(&mut world, item, ReportKind::Delayed, &[0]);
    world.run(report).unwrap();
    let expected = DeliveryStage::Deferred { failed: 0, next: AT_ONCE, warned: true };
    assert_eq!(stages(&mut world, item), [(0, expected)], "it is due as before, and he hears it once");
    world.assert_rows_are_memory();
}

#[test]
fn what_an_operator_asks_for_is_attempted_while_its_domain_is_left_alone() {
    let mut world = World::queue();
    let [first, second, third] = [1, 2, 3].map(|_| accept(&mut world, &["r@down.test"]));
    let (mut now, pause) = (Duration::ZERO, OutwardOutcome::NotNow(Duration::from_secs(30)));
    let mut outwards = Outwards::default();
    for begun in outwards.next(now, UnixMillis(9), &items(&world)) {
        assert_eq!(outwards.ended(now, &items(&world), begun.number, pause.clone()), None);
    }
    assert!(outwards.next(now, UnixMillis(9), &items(&world)).is_empty());
    // One that was never attempted, and one that was.
    world.run(attempted(third, &[(0, AttemptEnd::Deferred { next: UnixMillis(u64::MAX) })])).unwrap();
    for item in [second, third] {
        let retry = Command::DecideQueued { item, recipients: Vec::new(), decision: QueueDecision::Retry };
        assert_eq!(world.run(retry), Ok(Answer::Counted(1)));
    }
    world.assert_rows_are_memory();
    world.reload();
    let begun = outwards.next(now, UnixMillis(9), &items(&world));
    let is_asked = |o: &Outward| matches!(o.what, OutwardKind::Send { is_asked_for: true, .. });
    assert!(begun.len() == 2 && begun.iter().all(|o| o.item != first && is_asked(o)), "{begun:?}");
    // Where it can't be attempted even so it is tried again later, and not at once.
    let of_second = begun.iter().find(|o| o.item == second).unwrap();
    assert_eq!(outwards.ended(now, &items(&world), of_second.number, pause), None);
    assert!(outwards.next(now, UnixMillis(9), &items(&world)).is_empty());
    now += Duration::from_secs(30);
    let begun = outwards.next(now, UnixMillis(9), &items(&world));
    assert!(begun.iter().map(|o| (o.item, is_asked(o))).eq([(second, true), (first, false)]), "{begun:?}");
}

#[test]
fn whether_a_message_is_still_to_be_sent_is_what_its_rows_say() {
    let mut world = World::queue();
    let item = accept(&mut world, &["r0@b.test", "r1@b.test", "r2@b.test"]);
    let read = OutgoingMessage::read(&world.rows, world.place, &world.key, item, &[0, 1]).unwrap().unwrap();
    assert!(read.is_still_to_be_sent(&world.rows).unwrap());
    world.run(attempted(item, &[(0, AttemptEnd::Deferred { next: UnixMillis(9) })])).unwrap();
    let hold = |recipients: &[u32], decision| Command::DecideQueued { item, recipients: recipients.to_vec(), decision };
    world.run(hold(&[2], QueueDecision::Hold)).unwrap();
    assert!(read.is_still_to_be_sent(&world.rows).unwrap(), "another one is held");
    world.run(hold(&[0], QueueDecision::Hold)).unwrap();
    assert!(!read.is_still_to_be_sent(&world.rows).unwrap());
    world.run(hold(&[0], QueueDecision::Release)).unwrap();
    assert!(read.is_still_to_be_sent(&world.rows).unwrap());
    world.run(hold(&[1], QueueDecision::Return)).unwrap();
    assert!(!read.is_still_to_be_sent(&world.rows).unwrap());
    world.run(hold(&[], QueueDecision::Drop)).unwrap();
    assert!(!read.is_still_to_be_sent(&world.rows).unwrap());
}

#[test]
fn so_many_senders_are_told_at_once() {
    let mut world = World::queue();
    for _ in 0..REPORTS_MAX + 3 {
        let item = accept(&mut world, &["r@b.test", "s@b.test"]);
        world.run(attempted(item, &[(0, AttemptEnd::Failed), (1, AttemptEnd::Failed)])).unwrap();
    }
    let mut outwards = Outwards::default();
    let begun = outwards.next(Duration::ZERO, UnixMillis(1), &items(&world));
    assert_eq!(begun.len(), REPORTS_MAX);
    assert!(begun.iter().all(|o| matches!(&o.what, OutwardKind::Report { recipients, .. } if recipients.len() == 2)));
}

#[test]
fn who_wants_to_hear_that_it_arrived_is_told_once_the_mailbox_has_it_and_nobody_else_is() {
    let mut world = World::queue();
    let recipient = |number: u8, notify: Option<&str>| AcceptedRecipient {
        address: format!("r{number}@here.test"),
        mailbox: MailboxId([number + 1; 16]),
        notify: notify.map(str::to_owned),
        orcpt: Some(format!("rfc822;r{number}@old.test")).filter(|_| number == 0),
        ..outside("")
    };
    let accepted = AcceptedEnvelope {
        reverse_path: "a@b.test".into(),
        recipients: vec![recipient(0, Some("delay,success")), recipient(1, Some("NEVER")), recipient(2, None)],
        ret: Some("HDRS".into()),
        envid: Some("x+2By".into()),
        ..AcceptedEnvelope::default()
    };
    let new_message = world.new_message(MESSAGE);
    let command = Command::Accept { new_message, accepted, received: ZonedTime::default() };
    let Ok(Answer::Accepted { item, .. }) = world.run(command) else { panic!("it is accepted") };
    let asked = QueuedAsked {
        ret: Some("HDRS".into()),
        envid: Some("x+2By".into()),
        smtputf8: false,
        requiretls: false,
        recipients: vec![
            RecipientAsked {
                recipient: 0,
                notify: Some("delay,success".into()),
                orcpt: Some("rfc822;r0@old.test".into()),
            },
            RecipientAsked { recipient: 1, notify: Some("NEVER".into()), orcpt: None },
        ],
    };
    assert_eq!(world.run(Command::QueueAsked { item }), Ok(Answer::QueueAsked(Some(asked))));
    for recipient in 0..3 {
        world.run(Command::ChangeQueue { change: QueueChange::Delivered { item, recipient } }).unwrap();
    }
    world.reload();
    let mut outwards = Outwards::default();
    let wall = world.env.wall;
    assert!(outwards.next(Duration::ZERO, wall, &items(&world)).is_empty(), "its mailbox knows that first");
    for recipient in 0..3 {
        world.run(Command::ChangeQueue { change: QueueChange::Released { item, recipient } }).unwrap();
        world.assert_rows_are_memory();
    }
    assert_eq!(stages(&mut world, item), [(0, DeliveryStage::Reporting(ReportKind::Delivered))]);
    world.reload();
    let mut outwards = Outwards::default();
    let begun = outwards.next(Duration::ZERO, wall, &items(&world));
    let [Outward { what: OutwardKind::Report { kind: ReportKind::Delivered, recipients }, .. }] = begun.as_slice()
    else {
        panic!("{begun:?}")
    };
    assert_eq!(recipients.as_slice(), [0]);
    // A copy of the release that was held up changes nothing.
    world.run(Command::ChangeQueue { change: QueueChange::Released { item, recipient: 0 } }).unwrap();
    let told = report(&mut world, item, ReportKind::Delivered, &[0]);
    assert!(matches!(world.run(told), Ok(Answer::Accepted { .. })));
    let again = report(&mut world, item, ReportKind::Delivered, &[0]);
    assert_eq!(world.run(again), Err(Refusal::Stale));
    assert_eq!(world.run(Command::QueueAsked { item }), Ok(Answer::QueueAsked(None)));
    world.assert_rows_are_memory();
}
