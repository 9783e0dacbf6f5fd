//! Which actors there are on this node.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use actix::prelude::*;
use mailraft_driver::{Cluster, Leading, LeadingMap};
use mailraft_mailbox::{Command, Detached};
use mailraft_storage::{CommandId, MailboxId, PartitionId, Table};
use tokio::sync::oneshot;

use super::directory::{DirectoryActor, DirectoryAsk, Reply};
use super::key::SessionKey;
use super::mailbox::{Ask, Attach, Detach, DropIndex, Held, Idle, MailboxActor, MakeRoom, SetQuota};
use super::owner::{Seat, SetUnconfirmed, Stop};
use super::tasks::{TaskJobs, Tasks, tasks};
use super::threads::ActorThreads;
use crate::memory::GrowingShare;
use crate::outbox::Outbox;
use crate::turns::Turns;
use mailraft_directory::Lookup;

/// Messages that may wait for one actor (actix defaults to 16).
pub const ACTOR_MAILBOX_MAX_MESSAGES: usize = 1_024;

/// How often it is looked at whether something waits in a queue mailbox whose actor has ended.
const QUEUES_LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// The actors of this node.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Cluster,
    lookup: Arc<Lookup>,
    arbiters: Vec<ArbiterHandle>,
    limits: Mutex<Limits>,
    memory: Arc<GrowingShare>,
    turns: Turns,
    tasks: Tasks,
    actors: Mutex<Actors>,
}

/// Bounds of the actors.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Mailbox actors on this node.
    pub actors: usize,
    /// Bytes of mail in one mailbox, if limited.
    pub quota_bytes: Option<u64>,
    /// When an actor ends that nobody uses; for actors that start from then on.
    pub idle: Idle,
}

#[derive(Default)]
struct Actors {
    mailboxes: HashMap<MailboxId, Running>,
    directory: Option<(Leading, Addr<DirectoryActor>)>,
    started: usize,
    /// Partitions led here of which other regions have not confirmed for long.
    unconfirmed: BTreeSet<PartitionId>,
}

impl Actors {
    fn set_directory(&mut self, directory: Option<(Leading, Addr<DirectoryActor>)>) {
        if let Some((_, earlier)) = std::mem::replace(&mut self.directory, directory) {
            earlier.do_send(Stop(Detached::NotLeader));
        }
    }
}

struct Running {
    partition: PartitionId,
    leading: Leading,
    addr: Addr<MailboxActor>,
    held: Weak<Held>,
}

/// A session's way to an actor on this node. Dropping it detaches.
pub struct LocalLink {
    pub(super) addr: Addr<MailboxActor>,
    key: SessionKey,
}

impl Registry {
    /// No actor yet. Actors run on these threads, their mailboxes take of this memory, and write much in turn. What those of
    /// queue mailboxes want done comes out of the channel.
    pub fn new(
        cluster: Cluster,
        lookup: Arc<Lookup>,
        threads: &ActorThreads,
        limits: Limits,
        memory: Arc<GrowingShare>,
        turns: Turns,
    ) -> (Self, TaskJobs) {
        let arbiters = threads.arbiters().to_vec();
        let limits = Mutex::new(limits);
        let (tasks, jobs) = tasks();
        let inner = Inner { cluster, lookup, arbiters, limits, memory, turns, tasks, actors: Mutex::default() };
        (Registry { inner: Arc::new(inner) }, jobs)
    }

    /// Starts the actors of queue mailboxes in which something waits, wherever this node leads, for as long as it runs: at
    /// once in a new term, and again where one has ended.
    pub async fn keep_queues_awake(self) {
        let mut leading = self.inner.cluster.leading();
        loop {
            let now = leading.borrow_and_update().clone();
            let registry = self.clone();
            let waking = tokio::task::spawn_blocking(move || registry.wake_queues(&now));
            if waking.await.is_err() {
                tracing::error!("looking what waits in queues panicked");
            }
            match tokio::time::timeout(QUEUES_LOOKED_AT_EVERY, leading.changed()).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(_)) => return,
            }
        }
    }

    /// Starts the actors of queue mailboxes in which something waits. One that can't be read keeps no other from waking.
    fn wake_queues(&self, now: &LeadingMap) {
        for (&partition, &leading) in now.iter().filter(|(partition, _)| **partition != PartitionId::CONTROL) {
            let mailbox = MailboxId::queue_of(partition);
            let is_awake = |actors: &Actors| {
                actors.mailboxes.get(&mailbox).is_some_and(|r| r.leading == leading && r.addr.connected())
            };
            if is_awake(&self.actors()) {
                continue;
            }
            if !self.is_in_use(partition, leading) {
                continue;
            }
            let mut actors = self.actors();
            if !is_awake(&actors) && self.leading(partition) == Some(leading) {
                self.start(&mut actors, mailbox, leading);
            }
        }
    }

    /// The partitions that this node leads in whose queues something is. Blocking.
    pub fn queues_in_use(&self) -> Vec<PartitionId> {
        let leading = self.inner.cluster.leading().borrow().clone();
        let in_use = leading.iter().filter(|(partition, leading)| {
            **partition != PartitionId::CONTROL && self.is_in_use(**partition, **leading)
        });
        in_use.map(|(partition, _)| *partition).collect()
    }

    /// Whether something is in a partition's queue here.
    fn is_in_use(&self, partition: PartitionId, leading: Leading) -> bool {
        let (cluster, mailbox) = (&self.inner.cluster, MailboxId::queue_of(partition));
        match cluster.rows().scan(leading.replica, mailbox, Table::QueueKeys, &[], &[], 1) {
            Ok(found) => !found.is_empty(),
            Err(error) => {
                tracing::error!(partition = partition.0, %error, "it can't be read whether something waits in a queue");
                cluster.found_damaged(leading.replica, &error);
                false
            }
        }
    }

    /// Attaches a session to a mailbox's actor, which is started if need be.
    ///
    /// # Errors
    /// If this node does not lead the partition, or has too many actors.
    pub fn attach(&self, key: SessionKey, mailbox: MailboxId, outbox: Outbox) -> Result<LocalLink, Detached> {
        let leading = self.leading(self.partition(mailbox)).ok_or(Detached::NotLeader)?;
        self.attach_in(leading, key, mailbox, outbox)
    }

    /// Attaches to the actor of this term, which may not be the newest any more.
    pub(super) fn attach_in(
        &self,
        leading: Leading,
        key: SessionKey,
        mailbox: MailboxId,
        outbox: Outbox,
    ) -> Result<LocalLink, Detached> {
        let mut actors = self.actors();
        let running = actors
            .mailboxes
            .get(&mailbox)
            .filter(|r| r.leading == leading && r.addr.connected())
            .map(|r| r.addr.clone());
        let addr = match running {
            Some(addr) => addr,
            None => {
                actors.mailboxes.retain(|_, r| r.addr.connected());
                if actors.mailboxes.len() >= self.limits().actors || self.inner.memory.is_full() {
                    // Whoever asks again finds the room that those leave.
                    self.make_room(&actors);
                    return Err(Detached::Overloaded);
                }
                self.start(&mut actors, mailbox, leading)
            }
        };
        let (why, attach) = match addr.try_send(Attach::new(key, outbox)) {
            Ok(()) => return Ok(LocalLink { addr, key }),
            Err(SendError::Full(attach)) => (Detached::Overloaded, attach),
            Err(SendError::Closed(attach)) => (Detached::Gone, attach),
        };
        attach.take_back();
        Err(why)
    }

    /// Changes the directory, if this node leads the control group.
    ///
    /// # Errors
    /// If it does not, or the outcome is not known.
    pub async fn directory(&self, id: CommandId, command: mailraft_directory::Command) -> Reply {
        let leading = self.leading(PartitionId::CONTROL).ok_or(Detached::NotLeader)?;
        self.directory_in(leading, id, command).await
    }

    /// Asks the actor of this term, which may not be the newest any more.
    pub(super) async fn directory_in(
        &self,
        leading: Leading,
        id: CommandId,
        command: mailraft_directory::Command,
    ) -> Reply {
        let addr = {
            let mut actors = self.actors();
            match actors.directory.as_ref().filter(|(at, addr)| *at == leading && addr.connected()) {
                Some((_, addr)) => addr.clone(),
                None => {
                    let seat = self.seat(PartitionId::CONTROL, MailboxId::PARTITION, leading);
                    let addr = DirectoryActor::start_in_arbiter(&self.inner.arbiters[0], move |ctx| {
                        ctx.set_mailbox_capacity(ACTOR_MAILBOX_MAX_MESSAGES);
                        DirectoryActor::of_directory(seat)
                    });
                    if actors.unconfirmed.contains(&PartitionId::CONTROL) {
                        addr.do_send(SetUnconfirmed(true));
                    }
                    actors.set_directory(Some((leading, addr.clone())));
                    addr
                }
            }
        };
        let (reply, answered) = oneshot::channel();
        match addr.try_send(DirectoryAsk { id, command, reply }) {
            Ok(()) => {}
            Err(SendError::Full(_)) => return Err(Detached::Overloaded),
            Err(SendError::Closed(_)) => return Err(Detached::Gone),
        }
        answered.await.unwrap_or(Err(Detached::Gone))
    }

    /// New bounds from now on. Actors above the bound stay until they fall idle.
    pub fn set_limits(&self, limits: Limits) {
        *self.inner.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
        for running in self.actors().mailboxes.values() {
            running.addr.do_send(SetQuota(limits.quota_bytes));
        }
    }

    /// Of these partitions led here other regions have not confirmed for long, and of no others: their actors take nothing
    /// more in.
    pub fn set_unconfirmed(&self, now: BTreeSet<PartitionId>) {
        let mut actors = self.actors();
        let before = std::mem::replace(&mut actors.unconfirmed, now);
        let changed: BTreeSet<PartitionId> = before.symmetric_difference(&actors.unconfirmed).copied().collect();
        if changed.is_empty() {
            return;
        }
        let of = |partition| SetUnconfirmed(actors.unconfirmed.contains(&partition));
        for running in actors.mailboxes.values().filter(|running| changed.contains(&running.partition)) {
            running.addr.do_send(of(running.partition));
        }
        if let Some((_, addr)) = actors.directory.as_ref().filter(|_| changed.contains(&PartitionId::CONTROL)) {
            addr.do_send(of(PartitionId::CONTROL));
        }
    }

    /// Ends actors whose term is over, for as long as the node runs. No task beside each leader: an actor may have been
    /// started in a term so short that no such task ever ran in it.
    pub async fn end_actors_with_their_terms(self) {
        let mut leading = self.inner.cluster.leading();
        loop {
            let now = leading.borrow_and_update().clone();
            self.end_actors_but(&now);
            if leading.changed().await.is_err() {
                return;
            }
        }
    }

    /// Ends all actors but those of these terms.
    pub(super) fn end_actors_but(&self, now: &LeadingMap) {
        let mut actors = self.actors();
        actors.mailboxes.retain(|_, running| {
            let stays = now.get(&running.partition) == Some(&running.leading) && running.addr.connected();
            if !stays {
                running.addr.do_send(Stop(Detached::NotLeader));
            }
            stays
        });
        if actors.directory.as_ref().is_some_and(|(at, _)| now.get(&PartitionId::CONTROL) != Some(at)) {
            actors.set_directory(None);
        }
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.inner.cluster
    }

    pub(super) fn lookup(&self) -> &Arc<Lookup> {
        &self.inner.lookup
    }

    /// The mailboxes whose actors run here.
    pub(super) fn mailboxes(&self) -> Vec<MailboxId> {
        self.actors().mailboxes.keys().copied().collect()
    }

    /// Ends a mailbox's actor, if one runs here. Whoever attaches next waits until it has ended.
    pub(super) fn end_actor(&self, mailbox: MailboxId, why: Detached) {
        if let Some(running) = self.actors().mailboxes.get(&mailbox) {
            running.addr.do_send(Stop(why));
        }
    }

    /// How many mailbox actors run here.
    pub fn len(&self) -> usize {
        self.actors().mailboxes.values().filter(|r| r.addr.connected()).count()
    }

    #[cfg(test)]
    pub(super) fn directory_actor(&self) -> Option<Addr<DirectoryActor>> {
        self.actors().directory.as_ref().map(|(_, addr)| addr.clone())
    }

    /// How many mailbox actors were ever started here.
    #[cfg(test)]
    pub(super) fn started(&self) -> usize {
        self.actors().started
    }

    /// Whether no mailbox actor runs here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn start(&self, actors: &mut Actors, mailbox: MailboxId, leading: Leading) -> Addr<MailboxActor> {
        let inner = &self.inner;
        let partition = self.partition(mailbox);
        actors.started += 1;
        let arbiter = &inner.arbiters[actors.started % inner.arbiters.len()];
        let seat = self.seat(partition, mailbox, leading);
        let Limits { actors: _, quota_bytes, idle } = self.limits();
        let (held, tasks) = (Held::new(&inner.memory), inner.tasks.clone());
        let known = Arc::downgrade(&held);
        let addr = MailboxActor::start_in_arbiter(arbiter, move |ctx| {
            ctx.set_mailbox_capacity(ACTOR_MAILBOX_MAX_MESSAGES);
            MailboxActor::of_mailbox(seat, quota_bytes, idle, held, tasks)
        });
        if actors.unconfirmed.contains(&partition) {
            addr.do_send(SetUnconfirmed(true));
        }
        let running = Running { partition, leading, addr: addr.clone(), held: known };
        if let Some(earlier) = actors.mailboxes.insert(mailbox, running) {
            // Its term is over, and nobody else knows it any more: sessions that only listen must not go on doing so.
            earlier.addr.do_send(Stop(Detached::NotLeader));
        }
        addr
    }

    /// Where memory lacks, indexes for searches go first, the largest before others. Then those end that nobody has used for
    /// longest, as many as it takes to be within the memory again, and one at least.
    fn make_room(&self, actors: &Actors) {
        let (used, max) = (self.inner.memory.used(), self.inner.memory.max());
        let mut excess = used.saturating_sub(max).max(1);
        if used >= max {
            let indexed = actors.mailboxes.values().filter_map(|running| {
                let bytes = running.held.upgrade()?.index_bytes();
                (bytes > 0).then_some((bytes, &running.addr))
            });
            let mut indexed: Vec<_> = indexed.collect();
            indexed.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
            for (bytes, addr) in indexed {
                addr.do_send(DropIndex);
                excess = excess.saturating_sub(bytes);
                if excess == 0 {
                    return;
                }
            }
        }
        let idle = actors.mailboxes.values().filter_map(|running| {
            let held = running.held.upgrade()?;
            Some((held.idle_since()?, held.bytes(), &running.addr))
        });
        let mut idle: Vec<_> = idle.collect();
        idle.sort_unstable_by_key(|(since, ..)| *since);
        for (_, bytes, addr) in idle {
            addr.do_send(MakeRoom);
            excess = excess.saturating_sub(bytes.max(1));
            if excess == 0 {
                return;
            }
        }
    }

    fn seat(&self, partition: PartitionId, mailbox: MailboxId, leading: Leading) -> Seat {
        let (cluster, lookup) = (self.inner.cluster.clone(), Arc::clone(&self.inner.lookup));
        let writer = self.inner.turns.writer(mailbox);
        Seat { cluster, lookup, partition, mailbox, leading, writer }
    }

    fn partition(&self, mailbox: MailboxId) -> PartitionId {
        mailbox.partition(self.inner.cluster.partitions())
    }

    fn leading(&self, partition: PartitionId) -> Option<Leading> {
        self.inner.cluster.leading().borrow().get(&partition).cloned()
    }

    fn limits(&self) -> Limits {
        *self.inner.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn actors(&self) -> std::sync::MutexGuard<'_, Actors> {
        self.inner.actors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LocalLink {
    /// Hands a command over; the answer goes to the session's outbox.
    ///
    /// # Errors
    /// If the actor is gone or can't take more.
    pub fn ask(&self, id: CommandId, attempt: u32, command: Command) -> Result<(), Detached> {
        self.addr.try_send(Ask { key: self.key, id, attempt, command }).map_err(|e| match e {
            SendError::Full(_) => Detached::Overloaded,
            SendError::Closed(_) => Detached::Gone,
        })
    }
}

impl Drop for LocalLink {
    fn drop(&mut self) {
        // Past the bound on purpose: a session that is gone must not be kept, and there is one such
        // message for each attached session.
        self.addr.do_send(Detach(self.key));
    }
}
