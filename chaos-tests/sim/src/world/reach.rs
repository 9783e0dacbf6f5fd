//! The shell around mailbox actors: starting them, loading mailboxes, carrying out what their owners want.

use bytes::Bytes;
use mailraft_checkers::Rule;
use mailraft_cluster::eviction::{EVICTED_MAX_ROWS, evict};
use mailraft_cluster::plant::{self, Fault as Planted};
use mailraft_cluster::{BarrierOutcome, ChangeOutcome, Decision, Input, Reader, SlotOutcome};
use mailraft_mailbox::owner::{Ask, Lead, Own, Step};
use mailraft_mailbox::{Detached, Mailbox, MailboxKey, MailboxOwner, Place, Reply, SessionNumber};
use mailraft_owner::Owner;
use mailraft_storage::entry::ChunkBody;
use mailraft_storage::seal::Key;
use mailraft_storage::{
    EntryKind, Env, Epoch, MailboxId, NodeId, PartitionId, Proposal, ProposalOutcome, RowBatch, RowKey, Rows, Table,
    Verdict,
};

use crate::actors::{Actor, Leading, PendingRead, SessionName};
use crate::event::{Event, Local, ToActor, ToSession};
use crate::host::{CLUSTER, Waiter};
use crate::net::Carried;
use crate::world::World;

/// Loading a mailbox takes so long, in the mean, in microseconds.
const LOAD_TAKES: u64 = 2_000;
/// Of a thousand words to a core so many are slow, where any are.
const LATE_WORDS_PERMILLE: u64 = 20;
/// Reading rows takes so long, in the mean, in microseconds.
const READ_TAKES: u64 = 400;

impl World {
    /// Something comes from a session.
    pub fn actor_hears(&mut self, node: NodeId, session: u64, conn: u64, from: NodeId, what: ToActor) {
        let name = (session, conn);
        match what {
            ToActor::Attach(mailbox) => match self.actor_of(node, mailbox) {
                Some(actor) => actor.owner.attach(name, SessionNumber(session)),
                None => self.tells_session(
                    node,
                    from,
                    name,
                    ToSession::Reply(Box::new(Reply::Detached(Detached::NotLeader)), 0),
                ),
            },
            ToActor::Ask { mailbox, id, attempt, command } => {
                let attached = self.host(node).up.as_ref().and_then(|p| p.actors.get(&mailbox));
                if !attached.is_some_and(|a| a.owner.sessions().any(|s| s == name)) {
                    // Its actor ended meanwhile, and said so.
                    return;
                }
                let asked = Ask { session: name, id, attempt, command: *command };
                self.with_owner(node, mailbox, |owner, env, out| owner.ask(env, asked, out));
            }
            ToActor::Detach(mailbox) => {
                if let Some(process) = self.host_mut(node).up.as_mut()
                    && let Some(actor) = process.actors.get_mut(&mailbox)
                {
                    actor.owner.detach(name);
                }
            }
            ToActor::Chunk { mailbox, command, body, number, open, data } => {
                let partition = self.mailboxes.partition(mailbox);
                let Some(process) = self.host_mut(node).up.as_mut() else { return };
                let Some(leading) = process.leading.get(&partition).copied() else {
                    return self.tells_session(node, from, name, ToSession::Chunk { body, ok: false });
                };
                let request = process.request(Waiter::Chunk { session, body });
                let proposal = Proposal {
                    incarnation: leading.incarnation,
                    term: leading.term,
                    mailbox,
                    command,
                    kind: EntryKind::Chunk(ChunkBody { body: body.0, number, open, data }),
                };
                self.input(node, Input::Propose { request, partition, proposal });
            }
        }
    }

    /// The core answered someone on a node.
    pub fn waiter_hears(&mut self, node: NodeId, waiter: Waiter, decision: Decision) {
        match (waiter, decision) {
            (Waiter::Entry { mailbox, actor, .. }, Decision::Proposal(outcome)) => {
                if self.is_actor(node, mailbox, actor) {
                    self.with_owner(node, mailbox, |owner, env, out| owner.decided(env, outcome, out));
                }
            }
            (Waiter::Barrier { mailbox, actor, read }, Decision::Barrier(outcome)) => {
                if !self.is_actor(node, mailbox, actor) {
                    return;
                }
                if let Some(pending) = self.read_of(node, mailbox, read) {
                    let passed = matches!(outcome, BarrierOutcome::Passed { .. });
                    pending.lead = Some(if passed { Lead::Confirmed } else { Lead::Lost });
                }
                self.read_may_answer(node, mailbox, read);
            }
            (Waiter::Slot { mailbox, actor }, Decision::Slot(outcome)) => {
                if !self.is_actor(node, mailbox, actor) {
                    return;
                }
                match outcome {
                    SlotOutcome::Free => {
                        let at = self.work_time(node, LOAD_TAKES);
                        self.later(node, at, Local::Load(mailbox, actor));
                    }
                    SlotOutcome::NotLeader { .. } | SlotOutcome::Overloaded => {
                        self.with_owner(node, mailbox, |o, env, out| o.loaded(env, Err(Detached::NotLeader), out));
                    }
                }
            }
            (Waiter::Control { mailbox, actor }, Decision::Barrier(outcome)) => {
                if !self.is_actor(node, mailbox, actor) {
                    return;
                }
                match outcome {
                    BarrierOutcome::Passed { .. } => self.load(node, mailbox, true),
                    BarrierOutcome::NotLeader { .. } | BarrierOutcome::Unavailable => {
                        self.with_owner(node, mailbox, |o, env, out| o.loaded(env, Err(Detached::Overloaded), out));
                    }
                }
            }
            (Waiter::Chunk { session, body }, Decision::Proposal(outcome)) => {
                let Some(to) = self.clients.session(session) else { return };
                let (home, conn) = (to.node, to.conns);
                let ok = is_accepted(outcome);
                self.tells_session(node, home, (session, conn), ToSession::Chunk { body, ok });
            }
            (Waiter::Made(mailbox), Decision::Proposal(outcome)) => {
                self.mailbox_was_made(mailbox, is_accepted(outcome));
            }
            (Waiter::DirectorySlot(number), Decision::Slot(outcome)) => self.directory_may_load(node, number, outcome),
            (Waiter::DirectoryEntry(number), Decision::Proposal(outcome)) => {
                self.directory_decided(node, number, outcome);
            }
            (Waiter::Login(number), Decision::Barrier(outcome)) => self.login_looks_again(node, number, outcome),
            (Waiter::Operator(at), decision) => self.operator_hears(at, decision),
            (Waiter::TakeOver, Decision::TakeOver(outcome)) => self.operator_is_answered(node, outcome),
            (Waiter::Settings(number), Decision::Settings(outcome)) => {
                self.settings_are_answered(node, number, outcome);
            }
            (Waiter::LateAdd(partition, replica), Decision::Change(ChangeOutcome::Changed { .. })) => {
                let what = format!("partition {partition}: replica {replica} was removed, and is a member again");
                self.goes_wrong(Rule::ReplicasAgree, what);
            }
            (Waiter::LateAdd(..), Decision::Change(_)) => {}
            (Waiter::Evicted(partition, next), Decision::Proposal(outcome)) => {
                if is_accepted(outcome)
                    && let Some(process) = self.host_mut(node).up.as_mut()
                    && let Some(term) = process.leading.get(&partition).map(|l| l.term)
                {
                    process.evicted.insert(partition, (term, next));
                }
            }
            (_, decision) => {
                let what = format!("node {node} answers another question than it was asked: {decision:?}");
                self.goes_wrong(Rule::ReplicasAgree, what);
            }
        }
    }

    /// An actor loads its mailbox, or looks for its key.
    pub fn actor_loads(&mut self, node: NodeId, mailbox: MailboxId, actor: u64) {
        if self.is_actor(node, mailbox, actor) {
            self.load(node, mailbox, false);
        }
    }

    /// An actor's rows are read.
    pub fn actor_reads(&mut self, node: NodeId, mailbox: MailboxId, actor: u64, read: u64) {
        if !self.is_actor(node, mailbox, actor) {
            return;
        }
        let rows = self.host(node).rows.clone();
        if let Some(pending) = self.read_of(node, mailbox, read)
            && let Some(wanted) = pending.wanted.take()
        {
            pending.rows = Some(wanted.run(&rows));
        }
        self.read_may_answer(node, mailbox, read);
    }

    /// An actor's pause is over.
    pub fn actor_again(&mut self, node: NodeId, mailbox: MailboxId, actor: u64) {
        if self.is_actor(node, mailbox, actor) {
            self.with_owner(node, mailbox, |owner, env, out| owner.again(env, out));
        }
    }

    /// Actors whose partition is led in another term or by another node end.
    pub fn actors_end(&mut self, node: NodeId, partition: PartitionId) {
        if plant::is(Planted::ReadThroughOldActor) {
            return;
        }
        let Some(process) = self.host(node).up.as_ref() else { return };
        let leading = process.leading.get(&partition);
        let over = |m: &MailboxId, a: &Actor| self.mailboxes.partition(*m) == partition && Some(&a.leading) != leading;
        let over: Vec<MailboxId> = process.actors.iter().filter(|(m, a)| over(m, a)).map(|(m, _)| *m).collect();
        for mailbox in over {
            self.with_owner(node, mailbox, |owner, _, out| owner.end(Detached::NotLeader, out));
        }
    }

    /// All actors of a node panic: they are discarded, and the sessions hear of it.
    pub fn actors_panic(&mut self, node: NodeId) {
        let Some(process) = self.host_mut(node).up.as_mut() else { return };
        let actors = std::mem::take(&mut process.actors);
        // Whoever asked the directory asks again.
        process.directory = None;
        for actor in actors.into_values() {
            let sessions: Vec<SessionName> = actor.owner.sessions().collect();
            for name in sessions {
                self.say_to(node, name, Reply::Detached(Detached::Gone), 0);
            }
        }
    }

    /// Makes a mailbox: a row of the control group, written through whoever leads it. Tried again if that fails.
    pub fn make_mailbox(&mut self, mailbox: MailboxId) {
        let key = self.mailboxes.key_bytes(mailbox);
        let mut batch = RowBatch::default();
        batch.put(RowKey::partition(Table::MailboxKeys, mailbox.0), Bytes::copy_from_slice(&key));
        if !self.writes_control(batch, Waiter::Made(mailbox)) {
            self.mailbox_was_made(mailbox, false);
        }
    }

    /// Evicts old results from a node's partitions that it leads, as the production server does.
    pub fn evict(&mut self, node: NodeId) {
        let kept = self.setup.results_kept;
        let host = self.host_mut(node);
        let Some(process) = host.up.as_mut() else { return };
        let led: Vec<(PartitionId, Leading)> = process.leading.iter().map(|(p, l)| (*p, *l)).collect();
        for (partition, leading) in led.into_iter().filter(|(p, _)| *p != PartitionId::CONTROL) {
            let host = self.host_mut(node);
            let Some(process) = host.up.as_mut() else { return };
            if process.waiting.values().any(|w| matches!(w, Waiter::Evicted(of, _) if *of == partition)) {
                continue;
            }
            let from = process.evicted.get(&partition).filter(|(term, _)| *term == leading.term);
            let from = from.map(|(_, from)| *from).unwrap_or_default();
            match evict(&host.rows, leading.replica, from, kept, EVICTED_MAX_ROWS) {
                Ok(Some(eviction)) => {
                    let stamp = host.rows.applied(leading.replica).ok().flatten().map_or(0, |a| a.stamp.0);
                    if eviction.next.time().0 + kept.as_millis() as u64 > stamp {
                        let what = format!("node {node} evicts a result of partition {partition} before its time");
                        return self.goes_wrong(Rule::ExactlyOnce, what);
                    }
                    let request = process.request(Waiter::Evicted(partition, eviction.next));
                    let proposal = eviction.proposal(leading.incarnation, leading.term);
                    self.input(node, Input::Propose { request, partition, proposal });
                }
                Ok(None) => {}
                Err(error) => self.meets_damage(node, partition, &error),
            }
        }
    }

    /// The actor of a mailbox on a node that leads its partition; started if there is none.
    fn actor_of(&mut self, node: NodeId, mailbox: MailboxId) -> Option<&mut Actor> {
        let partition = self.mailboxes.partition(mailbox);
        let process = self.hosts.get_mut(&node)?.up.as_mut()?;
        let leading = process.leading.get(&partition).copied()?;
        let fits = |a: &Actor| a.leading == leading || plant::is(Planted::ReadThroughOldActor);
        if !process.actors.get(&mailbox).is_some_and(fits) {
            let number = process.last_request + 1;
            process.actors.insert(mailbox, Actor::new(number, leading));
            let request = process.request(Waiter::Slot { mailbox, actor: number });
            self.actor_says(node, Input::AwaitSlot { request, partition, term: leading.term, mailbox });
        }
        self.hosts.get_mut(&node)?.up.as_mut()?.actors.get_mut(&mailbox)
    }

    /// An actor's word to its node's core, which sometimes is slow to hear it; words keep their order.
    fn actor_says(&mut self, node: NodeId, input: Input) {
        let late = self.setup.proposals_late;
        if late == 0 {
            return self.input(node, input);
        }
        let late = if self.dice.chance(LATE_WORDS_PERMILLE) { late } else { LOAD_TAKES };
        let at = self.now() + self.dice.exponential(late);
        let Some(process) = self.host_mut(node).up.as_mut() else { return };
        process.heard_until = process.heard_until.max(at);
        let at = process.heard_until;
        self.later(node, at, Local::Late(Box::new(input)));
    }

    fn is_actor(&self, node: NodeId, mailbox: MailboxId, number: u64) -> bool {
        let process = self.host(node).up.as_ref();
        process.and_then(|p| p.actors.get(&mailbox)).is_some_and(|a| a.number == number)
    }

    fn read_of(&mut self, node: NodeId, mailbox: MailboxId, read: u64) -> Option<&mut PendingRead> {
        self.host_mut(node).up.as_mut()?.actors.get_mut(&mailbox)?.reads.get_mut(&read)
    }

    fn read_may_answer(&mut self, node: NodeId, mailbox: MailboxId, read: u64) {
        let Some(pending) = self.read_of(node, mailbox, read) else { return };
        let Some(lead) = pending.lead else { return };
        if lead == Lead::Confirmed && pending.wanted.is_some() {
            return;
        }
        let rows = pending.rows.take();
        if let Some(actor) = self.host_mut(node).up.as_mut().and_then(|p| p.actors.get_mut(&mailbox)) {
            actor.reads.remove(&read);
        }
        self.with_owner(node, mailbox, |owner, _, out| owner.confirmed(read, lead, rows, out));
    }

    /// Loads a mailbox as the actor of the production server does: its key from this node's rows of the control
    /// group, and where there is none, once more after a read barrier.
    fn load(&mut self, node: NodeId, mailbox: MailboxId, asked_control: bool) {
        let (partition, limits) = (self.mailboxes.partition(mailbox), self.setup.limits);
        let Some(control) = self.replica(node, PartitionId::CONTROL) else { return };
        let host = self.host_mut(node);
        let found = host.rows.get(control, &RowKey::partition(Table::MailboxKeys, mailbox.0));
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.meets_damage(node, PartitionId::CONTROL, &error);
                return self.with_owner(node, mailbox, |o, env, out| o.loaded(env, Err(Detached::Corrupt), out));
            }
        };
        let key = found.and_then(|row| <[u8; 32]>::try_from(row.as_ref()).ok());
        let host = self.host_mut(node);
        let Some(process) = host.up.as_mut() else { return };
        let Some(actor) = process.actors.get(&mailbox) else { return };
        let (leading, number) = (actor.leading, actor.number);
        let loaded = match key {
            None if !asked_control => {
                let request = process.request(Waiter::Control { mailbox, actor: number });
                let barrier = Input::ReadBarrier { request, partition: PartitionId::CONTROL, reader: Reader::Visible };
                return self.input(node, barrier);
            }
            None => Err(Detached::NoSuchMailbox),
            Some(key) => {
                let place = Place {
                    cluster: CLUSTER,
                    mailbox,
                    replica: leading.replica,
                    incarnation: leading.incarnation,
                    term: leading.term,
                    began_alone: leading.began_alone,
                };
                let key = MailboxKey::new(Key::from_bytes(key), Epoch(1));
                Mailbox::load_with(std::sync::Arc::new(host.rows.clone()), place, key, limits).map_err(|error| {
                    self.meets_damage(node, partition, &format!("mailbox {mailbox}: {error}"));
                    Detached::Corrupt
                })
            }
        };
        self.with_owner(node, mailbox, |owner, env, out| owner.loaded(env, loaded, out));
    }

    fn work_time(&mut self, node: NodeId, mean: u64) -> u64 {
        let now = self.now();
        let World { hosts, dice, .. } = self;
        hosts.get(&node).map_or(now, |host| host.work(dice, now, mean))
    }

    /// Lets an owner do something, and carries out what it wants done.
    fn with_owner(
        &mut self,
        node: NodeId,
        mailbox: MailboxId,
        act: impl FnOnce(&mut MailboxOwner<SessionName>, &mut Env, &mut Vec<Step<SessionName>>),
    ) {
        let now = self.now();
        let host = self.host_mut(node);
        host.tell_time(now);
        let Some(process) = host.up.as_mut() else { return };
        let Some(actor) = process.actors.get_mut(&mailbox) else { return };
        let (number, leading) = (actor.number, actor.leading);
        let mut steps = Vec::new();
        act(&mut actor.owner, &mut process.actors_env, &mut steps);
        let partition = self.mailboxes.partition(mailbox);
        for step in steps {
            let control = self.control_applied(node);
            let Some(process) = self.host_mut(node).up.as_mut() else { return };
            match step {
                Step::Propose(proposal) => {
                    let request = process.request(Waiter::Entry { mailbox, actor: number, control });
                    let input = Input::Propose { request, partition, proposal };
                    self.actor_says(node, input);
                }
                Step::Own(Own::Barrier { number: read, rows, held }) => {
                    assert!(!held, "nothing comes from a queue here");
                    let wanted = rows.is_some();
                    let request = process.request(Waiter::Barrier { mailbox, actor: number, read });
                    if let Some(actor) = process.actors.get_mut(&mailbox) {
                        actor.reads.insert(read, PendingRead { lead: None, rows: None, wanted: rows });
                    }
                    self.input(node, Input::ReadBarrier { request, partition, reader: Reader::Owner(leading.term) });
                    if wanted {
                        let at = self.work_time(node, READ_TAKES);
                        self.later(node, at, Local::Read(mailbox, number, read));
                    }
                }
                // Its world is a small one of its own: `queues`.
                Step::Own(own @ (Own::Errand(_) | Own::Outward(_))) => {
                    unreachable!("no queue mailbox is here: {own:?}")
                }
                Step::Own(Own::Reply { to, reply }) => {
                    let mut incarnation = leading.incarnation.number;
                    if let Reply::Answer { at, .. } = &reply {
                        self.memory_is_shown(node, mailbox, *at);
                        incarnation = self.incarnation_at(node, leading.replica, *at).unwrap_or(incarnation);
                    }
                    self.say_to(node, to, reply, incarnation);
                }
                Step::Pause { millis } => self.later(node, now + millis * 1_000, Local::Again(mailbox, number)),
                Step::Unreadable { command, error } => {
                    self.meets_damage(node, partition, &format!("command {command}: {error}"));
                }
                Step::End { .. } => {
                    process.actors.remove(&mailbox);
                }
            }
        }
    }

    fn say_to(&mut self, node: NodeId, name: SessionName, what: Reply, incarnation: u32) {
        let Some(session) = self.clients.session(name.0) else { return };
        let home = session.node;
        self.tells_session(node, home, name, ToSession::Reply(Box::new(what), incarnation));
    }

    fn tells_session(&mut self, from: NodeId, to: NodeId, name: SessionName, what: ToSession) {
        let event = Event::ToSession(name.0, name.1, Box::new(what));
        self.send(from, to, name, event);
    }

    /// A message of a session's connection.
    pub fn send(&mut self, from: NodeId, to: NodeId, name: SessionName, event: Event) {
        if self.net.is_broken(name) {
            return;
        }
        let now = self.now();
        let World { net, dice, .. } = self;
        match net.stream(dice, now, from, to) {
            Carried::At(at) => self.queue.push(at, event),
            Carried::Held => self.net.hold(from, to, event),
            Carried::Broken => {
                self.net.breaks(name);
                self.breaks(from, to, name, &event);
            }
        }
    }

    /// Both ends notice that their connection broke, at the latest when the link is whole again.
    fn breaks(&mut self, from: NodeId, to: NodeId, name: SessionName, lost: &Event) {
        let Some(session) = self.clients.session(name.0) else { return };
        let to_session = matches!(lost, Event::ToSession(..));
        let actors_node = if to_session { from } else { to };
        let left = ToActor::Detach(session.mailbox);
        let left = Event::To(actors_node, Local::FromSession(name.0, name.1, session.node, Box::new(left)));
        let gone = ToSession::Reply(Box::new(Reply::Detached(Detached::Gone)), 0);
        let gone = Event::ToSession(name.0, name.1, Box::new(gone));
        self.net.hold(from, to, left);
        self.net.hold(from, to, gone);
    }
}

/// Whether a proposal was carried out.
fn is_accepted(outcome: ProposalOutcome) -> bool {
    matches!(outcome, ProposalOutcome::Applied { verdict: Verdict::Accepted, .. })
}
