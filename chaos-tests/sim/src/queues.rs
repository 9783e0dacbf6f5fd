//! Messages for several mailboxes, in a small world of their own: the production owners of queue mailboxes and of those that
//! they deliver to, over rows in memory, while everything between them is lost, doubled and late, owners panic, partitions
//! change their leaders and are taken over, each with what another region holds of it. What happens next is drawn.
//!
//! In the end each message that was accepted must be in each of its mailboxes once, and nothing may wait. Of what was
//! accepted and not held when its queue was taken over, no mailbox may have more than one.

mod partition;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mailraft_mailbox::accepted::{AcceptedEnvelope, AcceptedRecipient};
use mailraft_mailbox::api::{FetchWhat, FetchedContent, NewMessage, ZonedTime};
use mailraft_mailbox::owner::{Ask, Lead, Own, Step};
use mailraft_mailbox::plant::{self as planted, Fault as Planted};
use mailraft_mailbox::queue::content::QueuedMessage;
use mailraft_mailbox::queue::errands::{Errand, ErrandKind, ErrandOutcome};
use mailraft_mailbox::queue::outward::OutwardOutcome;
use mailraft_mailbox::{
    Answer, Command, Detached, Mailbox, MailboxKey, MailboxOwner, MessageKind, Owner, Place, Read, Refusal, Reply,
    SessionNumber, UidSet, chunk_key, open_body_key, open_body_row,
};
use mailraft_storage::body::{BodyId, open_chunk};
use mailraft_storage::memory::MemoryRows;
use mailraft_storage::seal::Key;
use mailraft_storage::{CommandId, Env, Epoch, MailboxId, PartitionId, ProposalOutcome, RowBatch, Rows, Table};

use crate::dice::Dice;
use crate::host::CLUSTER;
use crate::message;
use partition::{Held, Partition, Running};

/// Partitions of the world.
const PARTITIONS: u32 = 3;
/// Mailboxes of the world.
const MAILBOXES: u64 = 7;
/// Messages under way at once.
const MESSAGES_UNDER_WAY: usize = 6;
/// Rounds within which everything must be delivered once all faults end.
const HEALING_ROUNDS: usize = 400;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Messages that were acknowledged.
    pub accepted: usize,
    /// Deliveries of these that were looked at.
    pub delivered: usize,
    /// Errands that were carried out.
    pub errands: usize,
    /// Deliveries that were answered as stale.
    pub stale: usize,
    /// Leaders that changed, owners that panicked, partitions that were taken over.
    pub disturbed: usize,
    /// Entries that partitions which were taken over had lost.
    pub lost: u64,
}

/// Runs a world for so many steps, heals it, and looks.
///
/// # Errors
/// What is wrong.
pub fn run(seed: u64, steps: usize) -> Result<Summary, String> {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step()?;
    }
    world.heal()?;
    world.check()
}

struct World {
    dice: Dice,
    env: Env,
    partitions: Vec<Partition>,
    mailboxes: Vec<MailboxId>,
    /// Those whose accounts were deleted.
    deleted: BTreeSet<MailboxId>,
    messages: Vec<Message>,
    jobs: Vec<Job>,
    /// Who asked over a session that waits for its answer.
    asked: BTreeMap<u64, Asker>,
    /// Copies of deliveries that come once more, late.
    late: Vec<Late>,
    sessions: u64,
    epochs: u64,
    summary: Summary,
    healing: bool,
}

/// A message that a client has for several mailboxes.
struct Message {
    marker: u64,
    recipients: Vec<MailboxId>,
    deduplicate: bool,
    id: CommandId,
    attempts: u32,
    /// The session over which an answer is awaited.
    waiting: Option<u64>,
    accepted: Option<bool>,
    /// Where it was accepted, as the answer said.
    at: u64,
    /// Its queue was taken over without it.
    may_be_lost: bool,
}

/// An errand of a queue mailbox's owner.
#[derive(Clone, Copy)]
struct Job {
    queue: MailboxId,
    epoch: u64,
    place: Place,
    errand: Errand,
}

/// A delivery, or a release, that was held up.
struct Late {
    mailbox: MailboxId,
    id: CommandId,
    command: Command,
    chunks: Vec<Bytes>,
}

#[derive(Clone, Copy)]
enum Asker {
    Client(usize),
    Errand(Job),
    Nobody,
}

type Out = Vec<Step<u64>>;

impl World {
    fn new(seed: u64) -> Self {
        let mut env = Env::seeded(seed);
        env.wall.0 = 1_700_000_000_000;
        let ids = (0..MAILBOXES).map(|number| {
            let mut id: [u8; 16] = env.bytes();
            id[..8].copy_from_slice(&number.to_be_bytes());
            MailboxId(id)
        });
        let mailboxes = ids.collect();
        let partition = |number| Partition {
            id: PartitionId(number),
            rows: MemoryRows::new(),
            index: 0,
            held: Held(0),
            incarnation: 1,
            term: 1,
            owners: BTreeMap::new(),
        };
        World {
            dice: Dice::new(seed, 0),
            env,
            partitions: (1..=PARTITIONS).map(partition).collect(),
            mailboxes,
            deleted: BTreeSet::new(),
            messages: Vec::new(),
            jobs: Vec::new(),
            asked: BTreeMap::new(),
            late: Vec::new(),
            sessions: 0,
            epochs: 0,
            summary: Summary::default(),
            healing: false,
        }
    }

    fn step(&mut self) -> Result<(), String> {
        let millis = self.dice.exponential(40);
        self.pass(millis);
        match self.dice.below(100) {
            0..12 => self.client(),
            12..45 => {
                let flying = self.flying();
                match self.dice.pick(&flying).copied() {
                    Some(mailbox) => self.applies(mailbox),
                    None => Ok(()),
                }
            }
            45..75 => self.carry_out_one(),
            75..82 => self.again(),
            82..88 => {
                self.wake_queues()?;
                self.let_idle_ones_end()
            }
            88..92 => self.late_copy(),
            92..96 => self.change_leader(),
            96..98 => self.panic(),
            98 => self.take_over(),
            _ => {
                if self.deleted.is_empty()
                    && let Some(mailbox) = self.dice.pick(&self.mailboxes).copied()
                {
                    self.deleted.insert(mailbox);
                }
                Ok(())
            }
        }
    }

    fn pass(&mut self, millis: u64) {
        self.env.now += Duration::from_millis(millis);
        self.env.wall.0 += millis;
    }

    /// A client has a new message, or asks once more for one of which it has no answer.
    fn client(&mut self) -> Result<(), String> {
        let unheard = |m: &Message| m.accepted.is_none() && m.waiting.is_none();
        let again: Vec<usize> = (0..self.messages.len()).filter(|n| unheard(&self.messages[*n])).collect();
        if let Some(number) = self.dice.pick(&again).copied() {
            return self.send(number);
        }
        if self.messages.iter().filter(|m| m.accepted.is_none()).count() >= MESSAGES_UNDER_WAY || self.healing {
            return Ok(());
        }
        // A sender that lost its 250 sends the same again.
        let repeated: Vec<usize> = (0..self.messages.len())
            .filter(|n| self.messages[*n].deduplicate && self.messages[*n].accepted == Some(true))
            .collect();
        let repeats = if self.dice.chance(150) { self.dice.pick(&repeated).copied() } else { None };
        let (marker, recipients, deduplicate) = match repeats {
            Some(number) => {
                let of = &self.messages[number];
                (of.marker, of.recipients.clone(), true)
            }
            None => {
                let mut recipients = self.mailboxes.clone();
                let count = self.dice.between(2, MAILBOXES) as usize;
                while recipients.len() > count {
                    recipients.swap_remove(self.dice.below(recipients.len() as u64) as usize);
                }
                (self.new_marker(), recipients, self.dice.chance(300))
            }
        };
        let id = self.env.command_id();
        self.messages.push(Message {
            marker,
            recipients,
            deduplicate,
            id,
            attempts: 0,
            waiting: None,
            accepted: None,
            at: 0,
            may_be_lost: false,
        });
        self.send(self.messages.len() - 1)
    }

    /// Names a message that nobody has yet. Many have a body of several chunks.
    fn new_marker(&mut self) -> u64 {
        let number = (self.messages.len() as u64 + 1) * message::LARGE_ONE_IN;
        if self.dice.chance(250) { number } else { number + 1 }
    }

    fn send(&mut self, number: usize) -> Result<(), String> {
        let Message { marker, id, attempts, deduplicate, .. } = self.messages[number];
        let queue = MailboxId::queue_of(id.queue_partition(PARTITIONS));
        let (new_message, chunks) = message::seal(&mut self.env, marker);
        self.upload(queue, &new_message, chunks)?;
        let recipient = |mailbox: &MailboxId| AcceptedRecipient {
            address: format!("{mailbox}@example.test"),
            mailbox: *mailbox,
            detail: None,
            notify: None,
            orcpt: None,
        };
        let accepted = AcceptedEnvelope {
            reverse_path: "sender@example.test".to_owned(),
            recipients: self.messages[number].recipients.iter().map(recipient).collect(),
            deduplicate,
            ..AcceptedEnvelope::default()
        };
        let session = self.session(Asker::Client(number));
        self.messages[number].waiting = Some(session);
        self.messages[number].attempts += 1;
        let command = Command::Accept { new_message, accepted, received: ZonedTime::default() };
        self.ask(queue, session, id, attempts, command)
    }

    /// Puts the chunks of a large body into the rows of a mailbox, as an upload does.
    fn upload(&mut self, mailbox: MailboxId, new_message: &NewMessage, chunks: Vec<Bytes>) -> Result<(), String> {
        if chunks.is_empty() {
            return Ok(());
        }
        let (key, body) = (key_of(mailbox), new_message.body);
        let wall = self.env.wall;
        let open = open_body_row(&mut self.env, &key, CLUSTER, mailbox, body, new_message.chunks, wall);
        let mut batch = RowBatch::default();
        batch.put(open_body_key(mailbox, body), open);
        for (number, chunk) in (0..).zip(chunks) {
            batch.put(chunk_key(mailbox, body, number), chunk);
        }
        self.partition(mailbox).write(batch, wall)
    }

    fn session(&mut self, asker: Asker) -> u64 {
        self.sessions += 1;
        self.asked.insert(self.sessions, asker);
        self.sessions
    }

    fn partition(&mut self, mailbox: MailboxId) -> &mut Partition {
        let id = mailbox.partition(PARTITIONS);
        &mut self.partitions[id.0 as usize - 1]
    }

    /// The owner of a mailbox, loaded if there is none.
    fn start(&mut self, mailbox: MailboxId) -> Result<(), String> {
        self.epochs += 1;
        let epoch = self.epochs;
        let partition = self.partition(mailbox);
        if partition.owners.contains_key(&mailbox) {
            return Ok(());
        }
        let rows: Arc<dyn Rows> = Arc::new(partition.rows.clone());
        let engine = Mailbox::load(rows, partition.place(mailbox), key_of(mailbox)).map_err(|e| e.to_string())?;
        partition.owners.insert(mailbox, Running { epoch, owner: MailboxOwner::new(), in_flight: None });
        self.with_owner(mailbox, |owner, env, out| owner.loaded(env, Ok(engine), out))
    }

    fn ask(
        &mut self,
        mailbox: MailboxId,
        session: u64,
        id: CommandId,
        attempt: u32,
        command: Command,
    ) -> Result<(), String> {
        self.start(mailbox)?;
        self.with_owner(mailbox, |owner, env, out| {
            owner.attach(session, SessionNumber(session));
            owner.ask(env, Ask { session, id, attempt, command }, out);
        })
    }

    /// Lets an owner do something, and carries out what it wants done.
    fn with_owner(
        &mut self,
        mailbox: MailboxId,
        act: impl FnOnce(&mut MailboxOwner<u64>, &mut Env, &mut Out),
    ) -> Result<(), String> {
        let at = mailbox.partition(PARTITIONS).0 as usize - 1;
        let partition = &mut self.partitions[at];
        let place = partition.place(mailbox);
        let Some(running) = partition.owners.get_mut(&mailbox) else { return Ok(()) };
        let mut out = Vec::new();
        act(&mut running.owner, &mut self.env, &mut out);
        let (mut steps, mut replies) = (std::collections::VecDeque::from(out), Vec::new());
        while let Some(step) = steps.pop_front() {
            match step {
                Step::Propose(proposal) => {
                    assert!(running.in_flight.replace(proposal).is_none(), "one entry is in flight");
                }
                Step::Pause { .. } => {}
                Step::Unreadable { error, .. } => return Err(format!("a row can't be read: {error}")),
                Step::Own(Own::Barrier { number, rows, held }) => {
                    let passes = !held
                        || partition.held.is_all(&partition.rows, partition.index, &mut self.dice, self.healing)?;
                    let lead = if passes { Lead::Confirmed } else { Lead::Lost };
                    let read = rows.map(|read| read.run(&partition.rows));
                    let mut out = Vec::new();
                    running.owner.confirmed(number, lead, read, &mut out);
                    steps.extend(out);
                }
                Step::Own(Own::Reply { to, reply }) => replies.push((to, reply)),
                Step::Own(Own::Errand(errand)) => {
                    self.jobs.push(Job { queue: mailbox, epoch: running.epoch, place, errand });
                }
                // Of a mailbox that is gone the sender would be told; here nobody is.
                Step::Own(Own::Outward(outward)) => {
                    let (number, mut out) = (outward.number, Vec::new());
                    running.owner.outward_ended(&mut self.env, number, OutwardOutcome::NobodyToTell, &mut out);
                    steps.extend(out);
                }
                Step::End { .. } => {
                    partition.owners.remove(&mailbox);
                    break;
                }
            }
        }
        for (to, reply) in replies {
            self.hear(mailbox, to, reply)?;
        }
        Ok(())
    }

    fn hear(&mut self, mailbox: MailboxId, session: u64, reply: Reply) -> Result<(), String> {
        let mut answered_at = 0;
        let result = match reply {
            Reply::Answer { result, at, .. } => {
                answered_at = at.0;
                Some(result)
            }
            Reply::Failed { .. } | Reply::Detached(_) => None,
            Reply::Event(_) => return Ok(()),
        };
        let Some(asker) = self.asked.remove(&session) else { return Ok(()) };
        if let Some(running) = self.partition(mailbox).owners.get_mut(&mailbox) {
            running.owner.detach(session);
        }
        match (asker, result) {
            (Asker::Client(number), Some(result)) => {
                let message = &mut self.messages[number];
                (message.waiting, message.accepted, message.at) = (None, Some(result.is_ok()), answered_at);
                match result {
                    Ok(Answer::Accepted { recipients, .. }) => assert_eq!(recipients.len(), message.recipients.len()),
                    other => return Err(format!("a message is not accepted: {other:?}")),
                }
            }
            (Asker::Client(number), None) => self.messages[number].waiting = None,
            (Asker::Errand(job), result) => {
                let outcome = match result {
                    Some(Ok(_)) => ErrandOutcome::Done,
                    Some(Err(Refusal::Stale)) => {
                        self.summary.stale += 1;
                        ErrandOutcome::Stale
                    }
                    Some(Err(_)) | None => ErrandOutcome::Failed,
                };
                // The answer may be lost on its way back.
                let lost = !self.healing && self.dice.chance(150);
                self.tell_end(job, if lost { ErrandOutcome::Failed } else { outcome })?;
            }
            (Asker::Nobody, _) => {}
        }
        Ok(())
    }

    /// Tells a queue's owner how its errand ended, if it is still there.
    fn tell_end(&mut self, job: Job, outcome: ErrandOutcome) -> Result<(), String> {
        self.summary.errands += 1;
        let there = self.partition(job.queue).owners.get(&job.queue).is_some_and(|running| running.epoch == job.epoch);
        if !there {
            return Ok(());
        }
        self.with_owner(job.queue, |owner, env, out| owner.errand_ended(env, job.errand.number, outcome, out))
    }

    /// Mailboxes with an entry in flight.
    fn flying(&self) -> Vec<MailboxId> {
        let all = self.partitions.iter().flat_map(|p| p.owners.iter());
        all.filter(|(_, running)| running.in_flight.is_some()).map(|(mailbox, _)| *mailbox).collect()
    }

    fn applies(&mut self, mailbox: MailboxId) -> Result<(), String> {
        let wall = self.env.wall;
        let partition = self.partition(mailbox);
        let Some(proposal) = partition.owners.get_mut(&mailbox).and_then(|running| running.in_flight.take()) else {
            return Ok(());
        };
        let (index, verdict) = partition.apply(proposal, wall)?;
        let outcome = ProposalOutcome::Applied { index, verdict };
        self.with_owner(mailbox, |owner, env, out| owner.decided(env, outcome, out))
    }

    fn carry_out_one(&mut self) -> Result<(), String> {
        if self.jobs.is_empty() {
            return Ok(());
        }
        let at = self.dice.below(self.jobs.len() as u64) as usize;
        let job = self.jobs.swap_remove(at);
        self.carry_out(job)
    }

    fn carry_out(&mut self, job: Job) -> Result<(), String> {
        let Job { queue, place, errand, .. } = job;
        if self.deleted.contains(&errand.mailbox) {
            return self.tell_end(job, ErrandOutcome::NoSuchMailbox);
        }
        let mut uploaded = Vec::new();
        let command = match errand.what {
            ErrandKind::Release => {
                let partition = &mut self.partitions[queue.partition(PARTITIONS).0 as usize - 1];
                // Only whoever leads in the owner's term can say that another region holds what it rests on.
                let leads = (partition.incarnation, partition.term) == (place.incarnation.number, place.term.0);
                if !leads || !partition.held.is_all(&partition.rows, partition.index, &mut self.dice, self.healing)? {
                    return self.tell_end(job, ErrandOutcome::Failed);
                }
                Command::ReleaseQueued { origin: errand.origin }
            }
            ErrandKind::Deliver => {
                let rows = self.partition(queue).rows.clone();
                let of = (errand.origin.item, errand.origin.recipient);
                let read = QueuedMessage::read(&rows, place, &key_of(queue), of).map_err(|e| e.to_string())?;
                let Some(queued) = read else { return self.tell_end(job, ErrandOutcome::Failed) };
                let new_message = queued.new_message(&mut self.env);
                if new_message.inline.is_none() {
                    let chunk = |number| queued.chunk(&rows, number).ok().flatten();
                    let chunks: Option<Vec<Bytes>> = (0..new_message.chunks).map(chunk).collect();
                    let Some(chunks) = chunks else { return self.tell_end(job, ErrandOutcome::Failed) };
                    self.upload(errand.mailbox, &new_message, chunks.clone())?;
                    uploaded = chunks;
                }
                let MessageKind::Queued { origin, sealed_as, reverse_path, detail, deduplicate, received } =
                    queued.kind(errand.origin)
                else {
                    return Err("a queue delivers in a way of its own".to_owned());
                };
                Command::DeliverQueued { origin, new_message, sealed_as, reverse_path, detail, deduplicate, received }
            }
        };
        let id = self.env.command_id();
        if !self.healing && self.dice.chance(120) {
            // Held up on the way: it comes when nobody waits for it any more, or not at all.
            if self.dice.chance(800) {
                self.late.push(Late { mailbox: errand.mailbox, id, command, chunks: uploaded });
            }
            return self.tell_end(job, ErrandOutcome::Failed);
        }
        if !self.healing && self.dice.chance(120) {
            self.late.push(Late { mailbox: errand.mailbox, id, command: command.clone(), chunks: uploaded });
        }
        let session = self.session(Asker::Errand(job));
        self.ask(errand.mailbox, session, id, 0, command)
    }

    /// What was held up comes now, perhaps under an id of its own, as after the result that was kept under it is evicted.
    fn late_copy(&mut self) -> Result<(), String> {
        if self.late.is_empty() {
            return Ok(());
        }
        let at = self.dice.below(self.late.len() as u64) as usize;
        let Late { mailbox, mut id, mut command, chunks } = self.late.swap_remove(at);
        if self.dice.chance(500) {
            id = self.env.command_id();
            if let Command::DeliverQueued { new_message, .. } = &mut command
                && new_message.inline.is_none()
            {
                // Whoever held it up uploads it anew.
                new_message.body = BodyId::generate(&mut self.env);
                let new_message = new_message.clone();
                self.upload(mailbox, &new_message, chunks)?;
            }
        }
        let session = self.session(Asker::Nobody);
        self.ask(mailbox, session, id, 0, command)
    }

    fn again(&mut self) -> Result<(), String> {
        let all: Vec<MailboxId> = self.partitions.iter().flat_map(|p| p.owners.keys().copied()).collect();
        for mailbox in all {
            self.with_owner(mailbox, |owner, env, out| owner.again(env, out))?;
        }
        Ok(())
    }

    fn let_idle_ones_end(&mut self) -> Result<(), String> {
        let idle = |p: &Partition| {
            let idle = p.owners.iter().filter(|(_, running)| running.owner.is_idle());
            idle.map(|(mailbox, _)| *mailbox).collect::<Vec<_>>()
        };
        for mailbox in self.partitions.iter().flat_map(idle).collect::<Vec<_>>() {
            self.with_owner(mailbox, |owner, _, out| owner.end(Detached::Gone, out))?;
        }
        Ok(())
    }

    /// The owners of queue mailboxes in which something waits are started.
    fn wake_queues(&mut self) -> Result<(), String> {
        if planted::is(Planted::QueueNotStarted) {
            return Ok(());
        }
        for queue in (1..=PARTITIONS).map(|number| MailboxId::queue_of(PartitionId(number))) {
            if self.partition(queue).has_rows(queue, Table::QueueKeys)? {
                self.start(queue)?;
            }
        }
        Ok(())
    }

    fn change_leader(&mut self) -> Result<(), String> {
        let at = self.dice.below(u64::from(PARTITIONS)) as usize;
        self.partitions[at].term += 1;
        self.summary.disturbed += 1;
        for mailbox in self.partitions[at].owners.keys().copied().collect::<Vec<_>>() {
            self.lose(mailbox)?;
        }
        if self.dice.chance(500) { self.wake_queues() } else { Ok(()) }
    }

    fn take_over(&mut self) -> Result<(), String> {
        let at = self.dice.below(u64::from(PARTITIONS)) as usize;
        self.summary.disturbed += 1;
        for mailbox in self.partitions[at].owners.keys().copied().collect::<Vec<_>>() {
            self.lose(mailbox)?;
        }
        let partition = &mut self.partitions[at];
        let (id, held) = (partition.id, partition.held.0);
        partition.incarnation += 1;
        partition.rows.crash();
        self.summary.lost += partition.index - held;
        partition.index = held;
        for message in self.messages.iter_mut().filter(|m| m.id.queue_partition(PARTITIONS) == id && m.at > held) {
            message.may_be_lost = true;
        }
        Ok(())
    }

    fn panic(&mut self) -> Result<(), String> {
        let all: Vec<MailboxId> = self.partitions.iter().flat_map(|p| p.owners.keys().copied()).collect();
        let Some(mailbox) = self.dice.pick(&all).copied() else { return Ok(()) };
        self.summary.disturbed += 1;
        self.lose(mailbox)
    }

    /// An owner is gone. What it had in flight is applied before the next one starts, or never.
    fn lose(&mut self, mailbox: MailboxId) -> Result<(), String> {
        let (wall, applied) = (self.env.wall, self.dice.chance(500));
        let partition = self.partition(mailbox);
        let Some(running) = partition.owners.remove(&mailbox) else { return Ok(()) };
        if let Some(proposal) = running.in_flight.filter(|_| applied) {
            partition.apply(proposal, wall)?;
        }
        let sessions: Vec<u64> = running.owner.sessions().collect();
        for session in sessions {
            match self.asked.remove(&session) {
                Some(Asker::Client(number)) => self.messages[number].waiting = None,
                Some(Asker::Errand(job)) => self.tell_end(job, ErrandOutcome::Failed)?,
                Some(Asker::Nobody) | None => {}
            }
        }
        Ok(())
    }

    /// All faults end: everything must be answered and delivered soon. Then what was held up comes at last.
    fn heal(&mut self) -> Result<(), String> {
        self.healing = true;
        self.settle()?;
        while !self.late.is_empty() {
            self.late_copy()?;
            self.settle()?;
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..HEALING_ROUNDS {
            self.pass(1_000);
            self.wake_queues()?;
            self.client()?;
            self.again()?;
            for mailbox in self.flying() {
                self.applies(mailbox)?;
            }
            for job in std::mem::take(&mut self.jobs) {
                self.carry_out(job)?;
            }
            if self.jobs.is_empty() && self.flying().is_empty() && self.unanswered() == 0 && self.waiting()?.is_empty()
            {
                return Ok(());
            }
        }
        let unanswered = self.unanswered();
        Err(format!("liveness: {unanswered} messages have no answer, and these wait: {:?}", self.waiting()?))
    }

    fn unanswered(&self) -> usize {
        self.messages.iter().filter(|m| m.accepted.is_none()).count()
    }

    /// Items with recipients for whom something is still to be done.
    fn waiting(&mut self) -> Result<Vec<CommandId>, String> {
        let mut waiting = Vec::new();
        for queue in (1..=PARTITIONS).map(|number| MailboxId::queue_of(PartitionId(number))) {
            let mut engine = self.load(queue)?;
            let Read::Answered(Ok(Answer::QueueItems(items)), _) =
                engine.read(&self.env, &Command::QueueItems { after: None })
            else {
                return Err("a queue can't be listed".to_owned());
            };
            waiting.extend(items.iter().filter(|item| item.waiting + item.delivered > 0).map(|item| item.item));
        }
        Ok(waiting)
    }

    fn load(&mut self, mailbox: MailboxId) -> Result<Mailbox, String> {
        let partition = self.partition(mailbox);
        let rows: Arc<dyn Rows> = Arc::new(partition.rows.clone());
        Mailbox::load(rows, partition.place(mailbox), key_of(mailbox)).map_err(|e| e.to_string())
    }

    fn check(&mut self) -> Result<Summary, String> {
        let mut found: BTreeMap<MailboxId, BTreeMap<u64, usize>> = BTreeMap::new();
        for mailbox in self.mailboxes.clone() {
            let markers = self.markers(mailbox)?;
            let counts = found.entry(mailbox).or_default();
            markers.into_iter().for_each(|marker| *counts.entry(marker).or_default() += 1);
        }
        for message in &self.messages {
            if message.accepted != Some(true) {
                return Err(format!("message {} was not accepted", message.marker));
            }
            self.summary.accepted += 1;
            for mailbox in message.recipients.iter().filter(|mailbox| !self.deleted.contains(mailbox)) {
                let times = found[mailbox].get(&message.marker).copied().unwrap_or_default();
                self.summary.delivered += 1;
                if times != 1 && !(times == 0 && message.may_be_lost) {
                    return Err(format!("message {} is {times} times in mailbox {mailbox}", message.marker));
                }
            }
        }
        for queue in (1..=PARTITIONS).map(|number| MailboxId::queue_of(PartitionId(number))) {
            let partition = self.partition(queue);
            if !partition.has_rows(queue, Table::QueueKeys)? && partition.has_rows(queue, Table::QueueRecipients)? {
                return Err("recipients outlive their item".to_owned());
            }
        }
        Ok(self.summary)
    }

    /// What the messages in a mailbox's INBOX say they are, every byte of them read.
    fn markers(&mut self, mailbox: MailboxId) -> Result<Vec<u64>, String> {
        let mut engine = self.load(mailbox)?;
        let rows = self.partition(mailbox).rows.clone();
        let mut ask = |env: &Env, command: Command| match engine.read(env, &command) {
            Read::Answered(result, _) => result.map_err(|e| e.to_string()).map(Some),
            Read::Stored(read) => read.run(&rows).map_err(|e| e.to_string()).map(|read| Some(read.answer)),
            Read::Heard | Read::TooEarly => Ok(None),
        };
        let select = Command::Select { folder: "INBOX".to_owned(), claim_recent: false };
        let Some(Answer::Selected(selected)) = ask(&self.env, select)? else { return Ok(Vec::new()) };
        let uids: UidSet = selected.messages.iter().map(|message| message.uid).collect();
        let what = FetchWhat { content: true, header: false };
        let Some(Answer::Fetched(fetched)) = ask(&self.env, Command::Fetch { folder: selected.folder, uids, what })?
        else {
            return Err("INBOX can't be read".to_owned());
        };
        let mut markers = Vec::new();
        for FetchedContent { email, body, body_key, chunks, .. } in fetched.into_iter().filter_map(|f| f.content) {
            let mut plain = Vec::new();
            for number in 0..chunks {
                let Some(Answer::Chunk(Some(sealed))) = ask(&self.env, Command::ReadChunk { email, body, number })?
                else {
                    return Err(format!("a chunk is missing in mailbox {mailbox}"));
                };
                let opened = open_chunk(body, &body_key, number, number + 1 == chunks, &sealed);
                plain.extend_from_slice(&opened.map_err(|e| format!("a chunk does not open: {e}"))?);
            }
            markers.push(message::marker_of_text(&plain).ok_or("a message is not what was sent")?);
        }
        Ok(markers)
    }
}

fn key_of(mailbox: MailboxId) -> MailboxKey {
    MailboxKey::new(Key::from_bytes([7; 32]).derive(&mailbox.to_string()), Epoch(1))
}
