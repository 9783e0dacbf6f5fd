#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mailraft_storage::body::{BodyId, CHUNK_SEALED_MAX_BYTES, open_chunk};
use mailraft_storage::rows::ReplicaBatch;
use mailraft_storage::{
    Applied, CommandId, Env, Index, MailboxId, PartitionId, Proposal, ProposalOutcome, RowBatch, Rows, Table,
    UnixMillis,
};

use crate::accepted::{
    AcceptedEnvelope, AcceptedRecipient, Attempt, AttemptEnd, DeliveryStage, Diagnosis, HeldBecause, MAILBOXES_MAX,
    QueueChange, QueueOrigin, QueuePosition,
};
use crate::api::{Answer, Command, FetchWhat, NewMessage, Refusal, ZonedTime};
use crate::harness::{ALL, REPLICA, World, append, stored_uid};
use crate::limits::{QUEUE_MAX_BYTES, QUEUE_MAX_ITEMS, QUEUE_MAX_RECIPIENTS};
use crate::owner::{Ask, Lead, MailboxOwner, Own, Step};
use crate::queue::content::QueuedMessage;
use crate::queue::errands::{Errand, ErrandOutcome};
use crate::queue::outward::{Outward, OutwardOutcome};
use crate::reply::Reply;
use crate::{Deciding, Flags, Limits, Mailbox, MessageKind, Owner, SessionNumber};

/// The most that headers, ENVELOPE and BODYSTRUCTURE of a message take together: that is the message crate's bound.
const DESCRIPTION_MAX_BYTES: usize = 448 << 10;

fn accept(new_message: NewMessage, recipients: usize) -> Command {
    let recipient = |number: usize| AcceptedRecipient {
        address: format!("r{number}@example.test"),
        mailbox: MailboxId([number as u8 + 1; 16]),
        detail: None,
        notify: None,
        orcpt: None,
    };
    let accepted = AcceptedEnvelope {
        reverse_path: "a@x".into(),
        recipients: (0..recipients).map(recipient).collect(),
        deduplicate: false,
        ..AcceptedEnvelope::default()
    };
    Command::Accept { new_message, accepted, received: ZonedTime::default() }
}

fn at(index: u64) -> QueuePosition {
    QueuePosition { incarnation: 1, index: Index(index) }
}

fn origin(item: CommandId, at: QueuePosition) -> QueueOrigin {
    QueueOrigin { queue: PartitionId(3), at, item, recipient: 0 }
}

fn deliver_queued(origin: QueueOrigin, new_message: NewMessage) -> Command {
    Command::DeliverQueued {
        origin,
        sealed_as: new_message.body,
        new_message,
        reverse_path: "a@x".into(),
        detail: None,
        deduplicate: false,
        received: ZonedTime::default(),
    }
}

fn item(world: &mut World) -> CommandId {
    match world.run(Command::QueueItems { after: None }) {
        Ok(Answer::QueueItems(items)) => items.last().unwrap().item,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_accepted_waits_for_each_recipient_and_goes_with_the_last_and_so_does_its_key() {
    let mut world = World::queue();
    let new_message = world.uploaded(3, world.env.wall);
    let Ok(Answer::Accepted { recipients, .. }) = world.run(accept(new_message, 2)) else { panic!("it is accepted") };
    assert_eq!(recipients, ["r0@example.test", "r1@example.test"]);
    assert_eq!((world.count(Table::OpenBodies), world.count(Table::Chunks), world.count(Table::Folders)), (0, 3, 0));
    assert!(!world.mailbox.is_idle(), "something waits");
    world.assert_rows_are_memory();
    let item = item(&mut world);
    world.run(Command::ChangeQueue { change: QueueChange::Delivered { item, recipient: 0 } }).unwrap();
    let because = HeldBecause::NoSuchMailbox;
    world.run(Command::ChangeQueue { change: QueueChange::Held { item, recipient: 1, because } }).unwrap();
    world.assert_rows_are_memory();
    world.reload();
    let Ok(Answer::QueueItem(Some(detail))) = world.run(Command::QueueItem { item }) else { panic!("it waits") };
    let stages = [DeliveryStage::Delivered, DeliveryStage::Held(because)];
    let recipients = [(0, "r0@example.test".to_owned(), stages[0]), (1, "r1@example.test".to_owned(), stages[1])];
    assert_eq!((detail.reverse_path.as_str(), detail.recipients.as_slice()), ("a@x", &recipients[..]));
    for recipient in [0, 1] {
        assert_eq!(world.count(Table::QueueKeys), 1);
        world.run(Command::ChangeQueue { change: QueueChange::Released { item, recipient } }).unwrap();
        world.assert_rows_are_memory();
    }
    for table in [Table::Queue, Table::QueueKeys, Table::QueueRecipients, Table::Chunks] {
        assert_eq!(world.count(table), 0, "{table:?}");
    }
    assert_eq!(world.run(Command::QueueItem { item }), Ok(Answer::QueueItem(None)));
    assert!(world.mailbox.is_idle());
}

#[test]
fn a_queue_holds_so_much_and_no_more() {
    let small = Limits { queue_max_items: 3, queue_max_recipients: 7, queue_max_bytes: 40, ..Limits::default() };
    let production = Limits::default();
    let bounds = (production.queue_max_items, production.queue_max_recipients, production.queue_max_bytes);
    assert_eq!(bounds, (QUEUE_MAX_ITEMS, QUEUE_MAX_RECIPIENTS, QUEUE_MAX_BYTES));
    // Items of so many bytes with so many recipients, and how many are taken.
    for (bytes, recipients, taken) in [(1, 1, 3), (1, 3, 2), (20, 1, 2), (41, 1, 0), (1, 8, 0)] {
        let mut world = World::queue();
        let rows = std::sync::Arc::new(world.rows.clone());
        world.mailbox = Deciding::new(Mailbox::load_with(rows, world.place, world.key.clone(), small).unwrap());
        let mut accepted = 0;
        loop {
            let new_message = world.new_message(&"x".repeat(bytes));
            match world.run(accept(new_message, recipients)) {
                Ok(_) => accepted += 1,
                Err(refusal) => break assert_eq!(refusal, Refusal::QueueFull),
            }
        }
        assert_eq!(accepted, taken, "{bytes} bytes to {recipients}");
    }
    let mut world = World::queue();
    for recipients in [0, MAILBOXES_MAX + 1] {
        let new_message = world.new_message("x");
        assert!(matches!(world.run(accept(new_message, recipients)), Err(Refusal::Limit(_))), "{recipients}");
    }
    let new_message = world.new_message("x");
    assert!(world.run(accept(new_message, MAILBOXES_MAX)).is_ok());
}

#[test]
fn only_a_queue_mailbox_accepts_for_others_and_none_gets_mail_itself() {
    let (mut queue, mut world) = (World::queue(), World::new());
    let new_message = world.new_message("x");
    assert!(matches!(world.run(accept(new_message, 2)), Err(Refusal::NotAllowed(_))));
    let new_message = queue.new_message("x");
    let delivered = queue.run(deliver_queued(origin(CommandId([1; 16]), at(1)), new_message));
    assert!(matches!(delivered, Err(Refusal::NotAllowed(_))));
}

#[test]
fn what_a_queue_delivers_is_stored_once_and_past_its_release_it_is_stale() {
    let mut world = World::new();
    let (first, other) = (CommandId([1; 16]), CommandId([2; 16]));
    let deliver = |world: &mut World, item, position| {
        let new_message = world.new_message("m");
        world.run(deliver_queued(origin(item, position), new_message))
    };
    let stored = deliver(&mut world, first, at(5));
    assert_eq!(stored_uid(stored.clone()), 1);
    world.reload();
    assert_eq!(deliver(&mut world, first, at(7)), stored, "another owner of the queue sends it again");
    // It is released at a state of the queue that is past the second delivery's.
    world.run(Command::ReleaseQueued { origin: origin(first, at(9)) }).unwrap();
    world.assert_rows_are_memory();
    world.reload();
    assert_eq!(deliver(&mut world, first, at(7)), Err(Refusal::Stale), "a copy that was held up");
    assert_eq!(deliver(&mut world, other, at(8)), Err(Refusal::Stale), "it is sent again from the present position");
    assert_eq!(stored_uid(deliver(&mut world, other, at(9))), 2);
    // A release that comes late lowers no floor; a later incarnation is above all positions of the one before.
    world.run(Command::ReleaseQueued { origin: origin(first, at(6)) }).unwrap();
    assert_eq!(deliver(&mut world, first, at(8)), Err(Refusal::Stale));
    let next = QueuePosition { incarnation: 2, index: Index(1) };
    assert_eq!(stored_uid(deliver(&mut world, CommandId([3; 16]), next)), 3);
    world.assert_rows_are_memory();
    assert_eq!((world.count(Table::QueuedDeliveries), world.count(Table::QueueFloors)), (2, 1));
}

#[test]
fn what_was_accepted_is_delivered_though_the_mailbox_is_full_by_then() {
    let mut world = World::new();
    world.append("INBOX", "sixsix");
    world.mailbox.engine_mut().set_quota_bytes(Some(6));
    let new_message = world.new_message("more");
    assert_eq!(world.run(append("INBOX", new_message, Flags::none())), Err(Refusal::OverQuota));
    let new_message = world.new_message("more");
    assert_eq!(stored_uid(world.run(deliver_queued(origin(CommandId([1; 16]), at(1)), new_message))), 2);
}

#[test]
fn a_sender_s_repeat_is_recognised_whether_it_comes_by_a_queue_or_not() {
    let mut world = World::new();
    let new_message = world.new_message("m");
    let first = world.run(crate::harness::deliver(new_message, "a@x", None));
    let new_message = world.new_message("m");
    let mut again = deliver_queued(origin(CommandId([1; 16]), at(1)), new_message);
    if let Command::DeliverQueued { deduplicate, .. } = &mut again {
        *deduplicate = true;
    }
    assert_eq!(world.run(again), first);
    assert_eq!((world.uids("INBOX").len(), world.count(Table::QueuedDeliveries)), (1, 1));
    world.assert_rows_are_memory();
}

#[test]
fn a_body_of_several_chunks_is_read_in_the_mailbox_as_the_queue_sealed_it() {
    let (mut queue, mut world) = (World::queue(), World::new());
    let new_message = queue.uploaded(2, queue.env.wall);
    queue.run(accept(new_message.clone(), 1)).unwrap();
    let item = item(&mut queue);
    let queued = QueuedMessage::read(&queue.rows, queue.place, &queue.key, (item, 0)).unwrap().unwrap();
    let MessageKind::Queued { sealed_as, .. } = queued.kind(origin(item, at(1))) else { panic!("from a queue") };
    assert_eq!(sealed_as, new_message.body);
    // Each attempt has an id of its own, under which its chunks are uploaded.
    let attempts = [queued.new_message(&mut queue.env), queued.new_message(&mut queue.env)];
    assert!(attempts[0].body != attempts[1].body && attempts[0].body != sealed_as);
    let uploaded = world.uploaded(2, world.env.wall);
    let mut command = deliver_queued(origin(item, at(1)), uploaded.clone());
    if let Command::DeliverQueued { sealed_as: of, .. } = &mut command {
        *of = sealed_as;
    }
    world.run(command).unwrap();
    world.reload();
    let folder = world.id("INBOX");
    let what = FetchWhat { content: true, header: false };
    let Ok(Answer::Fetched(fetched)) = world.run(Command::Fetch { folder, uids: ALL(), what }) else {
        panic!("fetched")
    };
    let content = fetched[0].content.clone().unwrap();
    assert_eq!(content.body, sealed_as, "it opens under the id by which it was sealed");
    for number in 0..2 {
        let read = Command::ReadChunk { email: content.email, body: content.body, number };
        let stored = world.rows.get(REPLICA, &crate::chunk_key(world.place.mailbox, uploaded.body, number)).unwrap();
        assert_eq!(world.run(read), Ok(Answer::Chunk(stored)));
    }
    assert!(open_chunk(BodyId([0; 16]), &content.body_key, 0, false, &[]).is_err());
}

/// An owner, and what it wants done.
struct Shell {
    world: World,
    owner: MailboxOwner<u8>,
    in_flight: Vec<Proposal>,
    errands: Vec<Errand>,
    outwards: Vec<Outward>,
    barriers: Vec<(u64, bool)>,
    replies: Vec<(u8, Reply)>,
    pauses: Vec<u64>,
}

impl Shell {
    fn of(world: World) -> Self {
        let mut shell = Shell {
            world,
            owner: MailboxOwner::new(),
            in_flight: Vec::new(),
            errands: Vec::new(),
            outwards: Vec::new(),
            barriers: Vec::new(),
            replies: Vec::new(),
            pauses: Vec::new(),
        };
        let loaded = shell.world.load();
        shell.lets(|owner, env, out| owner.loaded(env, Ok(loaded), out));
        shell.applies();
        shell
    }

    fn lets(&mut self, what: impl FnOnce(&mut MailboxOwner<u8>, &mut Env, &mut Vec<Step<u8>>)) {
        let mut out = Vec::new();
        what(&mut self.owner, &mut self.world.env, &mut out);
        for step in out {
            match step {
                Step::Propose(proposal) => self.in_flight.push(proposal),
                Step::Own(Own::Errand(errand)) => self.errands.push(errand),
                Step::Own(Own::Outward(outward)) => self.outwards.push(outward),
                Step::Own(Own::Barrier { number, rows: None, held }) => self.barriers.push((number, held)),
                Step::Own(Own::Reply { to, reply }) => self.replies.push((to, reply)),
                Step::Pause { millis } => self.pauses.push(millis),
                other => panic!("{other:?}"),
            }
        }
    }

    /// What is in flight is applied, and what follows from it, until nothing is.
    fn applies(&mut self) {
        while let Some(proposal) = self.in_flight.pop() {
            let (index, verdict) = self.world.apply(proposal);
            self.lets(|owner, env, out| owner.decided(env, ProposalOutcome::Applied { index, verdict }, out));
        }
    }

    fn ask(&mut self, session: u8, (id, attempt): (CommandId, u32), command: Command) {
        self.lets(|owner, env, out| {
            owner.attach(session, SessionNumber(u64::from(session)));
            owner.ask(env, Ask { session, id, attempt, command }, out);
        });
    }
}

#[test]
fn what_waits_goes_on_once_other_regions_confirm_again() {
    let mut shell = Shell::of(World::queue());
    let (id, new_message) = (CommandId([1; 16]), shell.world.new_message("x"));
    shell.ask(1, (id, 0), accept(new_message, 1));
    shell.applies();
    let errand = shell.errands.pop().unwrap();
    shell.lets(|owner, _, out| owner.set_unconfirmed(true, out));
    shell.lets(|owner, env, out| owner.errand_ended(env, errand.number, ErrandOutcome::Failed, out));
    // Whatever it waited for is over before they do.
    shell.world.env.now += Duration::from_secs(100);
    shell.lets(|owner, env, out| owner.again(env, out));
    assert!(shell.errands.is_empty());
    shell.pauses.clear();
    shell.lets(|owner, _, out| owner.set_unconfirmed(false, out));
    assert_eq!(shell.pauses, [0], "nothing else happens here any more");
    shell.lets(|owner, env, out| owner.again(env, out));
    assert_eq!(shell.errands.len(), 1);
}

#[test]
fn what_was_sent_while_other_regions_do_not_confirm_is_recorded_later_and_not_sent_again() {
    let mut shell = Shell::of(World::queue());
    let mut command = accept(shell.world.new_message("x"), 1);
    if let Command::Accept { accepted, .. } = &mut command {
        accepted.recipients[0].mailbox = MailboxId::OUTSIDE;
    }
    shell.ask(1, (CommandId([1; 16]), 0), command);
    shell.applies();
    let sending = shell.outwards.pop().unwrap();
    shell.lets(|owner, _, out| owner.set_unconfirmed(true, out));
    let diagnosis =
        Diagnosis { at: UnixMillis(1), host: None, status: "2.0.0".into(), text: "250 ok".into(), is_reply: true };
    let sent = Attempt { recipient: 0, end: AttemptEnd::Sent { report: None }, diagnosis };
    let outcome = OutwardOutcome::Attempted(vec![sent]);
    shell.lets(|owner, env, out| owner.outward_ended(env, sending.number, outcome, out));
    assert!(shell.in_flight.is_empty() && shell.outwards.is_empty());
    // However often they fall silent and confirm again, it is the record that is made anew.
    for unconfirmed in [false, true, false] {
        shell.lets(|owner, _, out| owner.set_unconfirmed(unconfirmed, out));
        shell.world.env.now += Duration::from_millis(400);
        shell.lets(|owner, env, out| owner.again(env, out));
    }
    shell.world.env.now += Duration::from_secs(2);
    shell.lets(|owner, env, out| owner.again(env, out));
    assert_eq!((shell.in_flight.len(), shell.outwards.len()), (1, 0));
    shell.applies();
    assert_eq!(shell.world.count(Table::Queue), 0, "it is done");
    assert!(shell.outwards.is_empty(), "and was sent once");
}

#[test]
fn whoever_asks_again_for_a_delivery_in_flight_hears_no_sooner_that_it_is_made() {
    let mut shell = Shell::of(World::new());
    let id = shell.world.env.command_id();
    let (origin, new_message) = (origin(CommandId([1; 16]), at(1)), shell.world.new_message("x"));
    for (session, attempt) in [(1, 0), (2, 1)] {
        shell.ask(session, (id, attempt), deliver_queued(origin, new_message.clone()));
    }
    shell.applies();
    assert_eq!(shell.barriers.iter().map(|(_, held)| *held).collect::<Vec<_>>(), [true, true]);
    assert!(shell.replies.is_empty(), "{:?}", shell.replies);
    for (number, _) in std::mem::take(&mut shell.barriers) {
        shell.lets(|owner, _, out| owner.confirmed(number, Lead::Confirmed, None, out));
    }
    assert_eq!(shell.replies.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn an_item_that_goes_while_it_is_read_is_no_damage() {
    let mut queue = World::queue();
    let new_message = queue.new_message("x");
    let body = new_message.body;
    queue.run(accept(new_message, 1)).unwrap();
    let item = item(&mut queue);
    let read = |queue: &World| QueuedMessage::read(&queue.rows, queue.place, &queue.key, (item, 0)).unwrap();
    assert!(read(&queue).is_some());
    // Rows are read one after another, and whoever deposed this owner may be done with the item between two of them.
    let mut batch = RowBatch::default();
    batch.delete(crate::chunk_key(queue.place.mailbox, body, 0));
    let applied = Applied { index: queue.next_index(), ..Applied::default() };
    queue.rows.write(&[ReplicaBatch { replica: REPLICA, batch, applied }]).unwrap();
    assert!(read(&queue).is_none());
}

#[test]
fn a_copy_of_a_delivery_under_another_id_leaves_the_body_that_is_live() {
    let mut world = World::new();
    let new_message = world.uploaded(2, world.env.wall);
    let origin = origin(CommandId([1; 16]), at(1));
    let first = world.run(deliver_queued(origin, new_message.clone()));
    assert_eq!(world.run(deliver_queued(origin, new_message.clone())), first);
    assert_eq!(world.count(Table::Chunks), 2);
    // An upload of its own that came to nothing goes.
    let again = world.uploaded(2, world.env.wall);
    assert_eq!(world.run(deliver_queued(origin, again)), first);
    assert_eq!((world.count(Table::Chunks), world.count(Table::OpenBodies)), (2, 0));
}

#[test]
fn the_largest_description_fits_an_entry_with_the_most_recipients() {
    let mut world = World::queue();
    let mut new_message = world.new_message("x");
    let header = vec![b'h'; DESCRIPTION_MAX_BYTES];
    (new_message.header, new_message.inline) = (header.into(), Some(vec![0; CHUNK_SEALED_MAX_BYTES].into()));
    let mut command = accept(new_message, MAILBOXES_MAX);
    if let Command::Accept { accepted, .. } = &mut command {
        // The longest path stands in the recipient's row and in the answer.
        for recipient in &mut accepted.recipients {
            recipient.address = format!("{}@{}", "l".repeat(64), "d".repeat(255));
            recipient.detail = Some("d".repeat(62));
        }
    }
    let answer = world.run(command);
    assert!(matches!(answer, Ok(Answer::Accepted { .. })), "{answer:?}");
}
