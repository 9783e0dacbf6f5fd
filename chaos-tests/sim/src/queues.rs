//! Messages for several mailboxes, in a small world of their own: the production owners of queue mailboxes and of those that
//! they deliver to, over rows in memory, while everything between them is lost, doubled and late, owners panic, partitions
//! change their leaders and are taken over, each with what another region holds of it. What happens next is drawn.
//!
//! In the end each message that was accepted must be in each of its mailboxes once, and nothing may wait. Of what was
//! accepted and not held when its queue was taken over, no mailbox may have more than one.

mod books;
mod clients;
mod days;
mod look;
mod operator;
mod outside;
mod partition;
mod reports;
mod sendings;
mod servers;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mailraft_mailbox::accepted::AcceptedRecipient;
use mailraft_mailbox::api::NewMessage;
use mailraft_mailbox::owner::{Ask, Lead, Own, Step};
use mailraft_mailbox::plant::{self as planted, Fault as Planted};
use mailraft_mailbox::queue::content::QueuedMessage;
use mailraft_mailbox::queue::errands::{Errand, ErrandKind, ErrandOutcome};
use mailraft_mailbox::queue::outward::OutwardOutcome;
use mailraft_mailbox::{
    Answer, Command, Detached, Mailbox, MailboxKey, MailboxOwner, MessageKind, Owner, Place, Refusal, Reply,
    SessionNumber, chunk_key, open_body_key, open_body_row,
};
use mailraft_storage::body::BodyId;
use mailraft_storage::memory::MemoryRows;
use mailraft_storage::seal::Key;
use mailraft_storage::{
    CommandId, EntryKind, Env, Epoch, MailboxId, PartitionId, Proposal, ProposalOutcome, RowBatch, Rows, Table, Verdict,
};

use crate::dice::Dice;
use crate::host::CLUSTER;
use books::{Books, Said, Sender};
use outside::Outside;
use partition::{Held, Partition, Running, copied};

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
    /// Recipients outside for whom messages were accepted.
    pub outside: usize,
    /// Messages that other servers took, for one recipient each.
    pub taken: usize,
    /// Of these, those that a recipient had already.
    pub repeated: usize,
    /// Attempts of which nobody heard that a server had taken the message, or of which it was not recorded.
    pub unheard: usize,
    /// Attempts that were given up just before the message's last octet, as another node led.
    pub withdrawn: usize,
    /// Attempts that were given up just before it, as an operator had decided otherwise.
    pub decided_otherwise: usize,
    /// How often the owner of a queue was told what other servers have.
    pub told: usize,
    /// Reports to senders.
    pub reports: usize,
    /// Messages that were given up after five days.
    pub expired: usize,
    /// Decisions of operators.
    pub decided: usize,
}

/// Runs a world for so many steps, heals it, and looks.
///
/// # Errors
/// What is wrong.
pub fn run(seed: u64, steps: usize) -> Result<Summary, String> {
    let mut world = World::new(seed, Scope::Mailboxes);
    for _ in 0..steps {
        world.step()?;
    }
    world.heal()?;
    world.check()
}

/// The same with recipients at other servers, and time that passes by hours.
///
/// # Errors
/// What is wrong: the name of the rule that is broken, and how.
pub fn run_outside(seed: u64, steps: usize) -> Result<Summary, String> {
    let mut world = World::new(seed, Scope::Outside);
    for _ in 0..steps {
        world.step_outside()?;
    }
    world.heal_outside()?;
    world.check_outside()?;
    world.check()
}

/// Where the recipients of a world's messages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// In mailboxes of the cluster.
    Mailboxes,
    /// At other servers, too.
    Outside,
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
    scope: Scope,
    outside: Outside,
    books: Books,
}

/// A message that a client has for several mailboxes.
struct Message {
    marker: u64,
    recipients: Vec<MailboxId>,
    sender: Sender,
    reverse_path: String,
    /// Its recipients at other servers.
    outside: Vec<AcceptedRecipient>,
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
#[derive(Clone)]
struct Job {
    queue: MailboxId,
    epoch: u64,
    place: Place,
    /// What its node has of the queue's partition.
    rows: MemoryRows,
    errand: Errand,
}

/// A delivery, or a release, that was held up.
struct Late {
    mailbox: MailboxId,
    id: CommandId,
    command: Command,
    chunks: Vec<Bytes>,
}

#[derive(Clone)]
enum Asker {
    Client(usize),
    Errand(Job),
    /// Puts a report into the queue.
    Report(outside::Task),
    Operator(operator::Decision),
    Nobody,
}

type Out = Vec<Step<u64>>;

impl World {
    fn new(seed: u64, scope: Scope) -> Self {
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
            deposed: BTreeMap::new(),
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
            scope,
            outside: Outside::new(),
            books: Books::default(),
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
        let (place, own_rows) = (partition.place(mailbox), partition.rows.clone());
        partition.owners.insert(mailbox, Running::new(epoch, place, own_rows));
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

    /// Lets the owner that leads do something, if there is one.
    fn with_owner(
        &mut self,
        mailbox: MailboxId,
        act: impl FnOnce(&mut MailboxOwner<u64>, &mut Env, &mut Out),
    ) -> Result<(), String> {
        let Some(epoch) = self.partition(mailbox).owners.get(&mailbox).map(|running| running.epoch) else {
            return Ok(());
        };
        self.with_running(mailbox, epoch, act)
    }

    /// Lets an owner do something, and carries out what it wants done.
    fn with_running(
        &mut self,
        mailbox: MailboxId,
        epoch: u64,
        act: impl FnOnce(&mut MailboxOwner<u64>, &mut Env, &mut Out),
    ) -> Result<(), String> {
        let at = mailbox.partition(PARTITIONS).0 as usize - 1;
        let partition = &mut self.partitions[at];
        let (running, leads) = match partition.owners.get_mut(&mailbox) {
            Some(running) if running.epoch == epoch => (running, true),
            Some(_) | None => match partition.deposed.get_mut(&epoch) {
                Some(running) => (running, false),
                None => return Ok(()),
            },
        };
        let place = running.place;
        let mut out = Vec::new();
        act(&mut running.owner, &mut self.env, &mut out);
        let (mut steps, mut replies) = (std::collections::VecDeque::from(out), Vec::new());
        while let Some(step) = steps.pop_front() {
            match step {
                Step::Propose(proposal) => {
                    assert!(running.in_flight.replace(proposal).is_none(), "one entry is in flight");
                    running.proposed.append(&mut running.said);
                }
                Step::Pause { millis } => {
                    running.wakes.insert(self.env.now + Duration::from_millis(millis));
                }
                Step::Unreadable { error, .. } => return Err(format!("a row can't be read: {error}")),
                Step::Own(Own::Barrier { number, rows, held }) => {
                    let passes = !held
                        || partition.held.is_all(&partition.rows, partition.index, &mut self.dice, self.healing)?;
                    let lead = if leads && passes { Lead::Confirmed } else { Lead::Lost };
                    let read = rows.map(|read| read.run(&running.rows));
                    let mut out = Vec::new();
                    running.owner.confirmed(number, lead, read, &mut out);
                    steps.extend(out);
                }
                Step::Own(Own::Reply { to, reply }) => replies.push((to, reply)),
                Step::Own(Own::Errand(errand)) => {
                    self.jobs.push(Job { queue: mailbox, epoch, place, rows: running.rows.clone(), errand });
                }
                Step::Own(Own::Outward(outward)) if self.scope == Scope::Outside => {
                    self.outside.begin(mailbox, epoch, place, running.rows.clone(), outward);
                }
                // Of a mailbox that is gone the sender would be told; here nobody is.
                Step::Own(Own::Outward(outward)) => {
                    let (number, mut out) = (outward.number, Vec::new());
                    running.owner.outward_ended(&mut self.env, number, OutwardOutcome::NobodyToTell, &mut out);
                    steps.extend(out);
                }
                Step::End { .. } if leads => {
                    partition.owners.remove(&mailbox);
                    break;
                }
                Step::End { .. } => {
                    partition.deposed.remove(&epoch);
                    break;
                }
            }
        }
        for (to, reply) in replies {
            self.hear(mailbox, epoch, to, reply)?;
        }
        Ok(())
    }

    fn hear(&mut self, mailbox: MailboxId, epoch: u64, session: u64, reply: Reply) -> Result<(), String> {
        let mut answered_at = 0;
        let result = match reply {
            Reply::Answer { result, at, .. } => {
                answered_at = at.0;
                Some(result)
            }
            Reply::Failed { .. } | Reply::Detached(_) => None,
            Reply::Event(_) | Reply::Notice(_) => return Ok(()),
        };
        let Some(asker) = self.asked.remove(&session) else { return Ok(()) };
        if let Some(running) = self.partition(mailbox).running(mailbox, epoch) {
            running.owner.detach(session);
        }
        match (asker, result) {
            (Asker::Client(number), Some(result)) => {
                let message = &mut self.messages[number];
                (message.waiting, message.accepted, message.at) = (None, Some(result.is_ok()), answered_at);
                match result {
                    Ok(Answer::Accepted { .. }) => {}
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
            (Asker::Report(task), result) => {
                let lost = !self.healing && self.dice.chance(150);
                self.report_put(task, result.filter(|_| !lost))?;
            }
            (Asker::Operator(decision), result) => self.is_decided(&decision, result),
            (Asker::Nobody, _) => {}
        }
        Ok(())
    }

    /// Tells a queue's owner how its errand ended, if it is still there.
    fn tell_end(&mut self, job: Job, outcome: ErrandOutcome) -> Result<(), String> {
        self.summary.errands += 1;
        self.with_running(job.queue, job.epoch, |owner, env, out| {
            owner.errand_ended(env, job.errand.number, outcome, out)
        })
    }

    /// Mailboxes with an entry in flight.
    fn flying(&self) -> Vec<MailboxId> {
        let all = self.partitions.iter().flat_map(|p| p.owners.iter());
        all.filter(|(_, running)| running.in_flight.is_some()).map(|(mailbox, _)| *mailbox).collect()
    }

    fn applies(&mut self, mailbox: MailboxId) -> Result<(), String> {
        let not_now = self.scope == Scope::Outside && !self.healing && self.dice.chance(60);
        let is_full = self.scope == Scope::Outside && self.dice.chance(500);
        let refused = not_now.then_some(if is_full { ProposalOutcome::Overloaded } else { ProposalOutcome::Dropped });
        let partition = self.partition(mailbox);
        let Some(running) = partition.owners.get_mut(&mailbox) else { return Ok(()) };
        let Some(proposal) = running.in_flight.take() else { return Ok(()) };
        let (epoch, mut proposed) = (running.epoch, std::mem::take(&mut running.proposed));
        let outcome = match refused {
            Some(refused) => {
                running.said.append(&mut proposed);
                refused
            }
            None => self.apply(mailbox, proposal, epoch, &proposed)?,
        };
        self.with_owner(mailbox, |owner, env, out| owner.decided(env, outcome, out))
    }

    /// An entry is applied; the books take down what it says.
    fn apply(
        &mut self,
        mailbox: MailboxId,
        proposal: Proposal,
        epoch: u64,
        proposed: &[Said],
    ) -> Result<ProposalOutcome, String> {
        let wall = self.env.wall;
        let commands = match &proposal.kind {
            EntryKind::Rows(body) => body.results.iter().map(|(id, _)| *id).collect(),
            _ => Vec::new(),
        };
        let partition = self.partition(mailbox);
        let (index, verdict) = partition.apply(proposal, wall)?;
        if verdict == Verdict::Accepted {
            let mut accepted = BTreeSet::new();
            for id in &commands {
                if mailbox.is_queue() && partition.has_item(mailbox, *id)? {
                    accepted.insert(*id);
                }
            }
            self.books.applied(index.0, &commands, &accepted)?;
            proposed.iter().for_each(|said| self.books.recorded(index.0, epoch, said));
        }
        Ok(ProposalOutcome::Applied { index, verdict })
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
        let Job { queue, place, errand, .. } = job.clone();
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
                let rows = job.rows.clone();
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
        // A report is looked for in the books by its id.
        if self.dice.chance(500) && !matches!(command, Command::Report { .. }) {
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
        self.depose(at)?;
        if self.dice.chance(500) { self.wake_queues() } else { Ok(()) }
    }

    fn depose(&mut self, at: usize) -> Result<(), String> {
        self.summary.disturbed += 1;
        for mailbox in self.partitions[at].owners.keys().copied().collect::<Vec<_>>() {
            let lives_on = self.scope == Scope::Outside && mailbox.is_queue() && self.dice.chance(600);
            let lost = self.lose(mailbox)?;
            if let Some(mut running) = lost.filter(|_| lives_on) {
                // It does not know yet. What it reads is what it had, or what it hears from its successor.
                if self.dice.chance(700) {
                    running.rows = copied(&running.rows, running.place.replica)?;
                }
                self.partitions[at].deposed.insert(running.epoch, running);
            }
        }
        self.partitions[at].term += 1;
        Ok(())
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
        self.lose(mailbox).map(|_| ())
    }

    /// An owner is gone, or leads no more. What it had in flight is applied before the next one starts, or never.
    fn lose(&mut self, mailbox: MailboxId) -> Result<Option<Running>, String> {
        let applied = self.dice.chance(500);
        let Some(mut running) = self.partition(mailbox).owners.remove(&mailbox) else { return Ok(None) };
        let proposed = std::mem::take(&mut running.proposed);
        if let Some(proposal) = running.in_flight.take().filter(|_| applied) {
            self.apply(mailbox, proposal, running.epoch, &proposed)?;
        }
        self.books.owner_is_gone(running.epoch);
        let sessions: Vec<u64> = running.owner.sessions().collect();
        for session in sessions {
            match self.asked.remove(&session) {
                Some(Asker::Client(number)) => self.messages[number].waiting = None,
                Some(Asker::Errand(job)) => self.tell_end(job, ErrandOutcome::Failed)?,
                Some(Asker::Report(task)) => self.report_put(task, None)?,
                Some(Asker::Operator(decision)) => self.is_decided(&decision, None),
                Some(Asker::Nobody) | None => {}
            }
        }
        Ok(Some(running))
    }
}

fn key_of(mailbox: MailboxId) -> MailboxKey {
    MailboxKey::new(Key::from_bytes([7; 32]).derive(&mailbox.to_string()), Epoch(1))
}
