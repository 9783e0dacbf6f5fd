//! The actor of one mailbox: it loads the mailbox, does its reads, and passes on what its owner replies.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix::prelude::*;
use mailraft_cluster::{BarrierOutcome, Reader};
use mailraft_mailbox::owner::{Lead, Own};
use mailraft_mailbox::queue::errands::ErrandOutcome;
use mailraft_mailbox::queue::outward::OutwardOutcome;
use mailraft_mailbox::search_index::{SearchQuestion, filters_bytes};
use mailraft_mailbox::{
    Command, CommandError, Detached, Mailbox, MailboxKey, MailboxOwner, Place, Position, Refusal, Reply, SessionNumber,
    StoredRead,
};
use mailraft_owner::Owner;
use mailraft_storage::{CommandId, Index};

use crate::lookups::{Uncertain, look_twice_before_no, look_up};
use crate::memory::{GrowingShare, OfOne};
use crate::outbox::{Outbox, ToSession};

use super::key::SessionKey;
use super::owner::{Kind, OwnerActor, Seat};
use super::tasks::{Job, TaskEnded, Tasks};

/// An actor with no session and nothing to do ends after this long.
const IDLE_BEFORE_PASSIVATION: Duration = Duration::from_secs(60);
/// How often that is looked at.
const IDLE_CHECK: Duration = Duration::from_secs(5);

/// When an actor with no session and nothing to do ends.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// It ends after this long.
    pub before_passivation: Duration,
    /// How often that is looked at.
    pub check: Duration,
}

impl Default for Idle {
    fn default() -> Self {
        Idle { before_passivation: IDLE_BEFORE_PASSIVATION, check: IDLE_CHECK }
    }
}

/// A session attaches. It is told if the actor ends without having taken it in: its channel may be that of many
/// sessions and end with none of them.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Attach {
    key: SessionKey,
    outbox: Option<Outbox>,
}

impl Attach {
    /// This session, and where to say things to it.
    pub fn new(key: SessionKey, outbox: Outbox) -> Self {
        Attach { key, outbox: Some(outbox) }
    }

    /// Who sent it tells the session.
    pub fn take_back(mut self) {
        self.outbox = None;
    }
}

impl Drop for Attach {
    fn drop(&mut self) {
        if let Some(outbox) = self.outbox.take() {
            outbox.send(ToSession::Detached(Detached::Gone));
        }
    }
}

/// A session asks.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Ask {
    /// The session.
    pub key: SessionKey,
    /// The command's id.
    pub id: CommandId,
    /// 0 the first time.
    pub attempt: u32,
    /// The command.
    pub command: Command,
}

/// A session is gone.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Detach(pub SessionKey);

/// A COPY or MOVE of more messages is carried out only where there is memory for it.
const COPY_UNMEASURED_MAX: u64 = 1_000;
/// What a COPY or MOVE takes in memory while it is carried out, for each message: its rows, what it tells sessions, and the
/// messages in their new folder.
const COPY_OF_ONE_BYTES: usize = 1_280;
/// A message of a mailbox in memory takes no less.
const MESSAGE_TAKES_MIN_BYTES: usize = 200;

/// In a mailbox that takes more memory than this, some thousand messages, a change of more messages than
/// [`DECIDED_AT_ONCE_MAX`] is decided on another thread.
const DECIDED_AT_ONCE_MAX_BYTES: usize = 512 << 10;
/// See [`DECIDED_AT_ONCE_MAX_BYTES`].
const DECIDED_AT_ONCE_MAX: u64 = 2_000;

/// The most bytes of messages from now on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SetQuota(pub Option<u64>);

/// The mailbox is to forget its index for searches: others need its memory.
#[derive(Message)]
#[rtype(result = "()")]
pub struct DropIndex;

/// The actor is to end if nobody uses it: others need its memory.
#[derive(Message)]
#[rtype(result = "()")]
pub struct MakeRoom;

/// What an actor's mailbox takes of the actors' memory, and since when nobody has used it.
pub struct Held {
    memory: OfOne,
    bytes: AtomicUsize,
    /// Of these its index for searches.
    index_bytes: AtomicUsize,
    /// For copies that are under way.
    reserved: AtomicUsize,
    used: Mutex<(usize, Instant)>,
}

impl Held {
    /// Nothing yet.
    pub fn new(memory: &Arc<GrowingShare>) -> Arc<Self> {
        Arc::new(Held {
            memory: memory.of_one(),
            bytes: AtomicUsize::new(0),
            index_bytes: AtomicUsize::new(0),
            reserved: AtomicUsize::new(0),
            used: Mutex::new((0, Instant::now())),
        })
    }

    /// How many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many of them its index for searches takes.
    pub fn index_bytes(&self) -> usize {
        self.index_bytes.load(Ordering::Relaxed)
    }

    /// Whether an index may grow by so many bytes: mailboxes come first, and find a quarter of their memory free of indexes.
    fn has_room_to_index(&self, bytes: usize) -> bool {
        let share = self.memory.share();
        share.used().saturating_add(bytes) <= share.max() / 4 * 3
    }

    /// The index takes so many bytes now.
    fn index_measured(&self, bytes: usize) {
        let before = self.index_bytes.swap(bytes, Ordering::Relaxed);
        metrics::gauge!("mailraft_search_index_bytes").increment(bytes as f64 - before as f64);
        self.measured(self.bytes() + bytes - before.min(self.bytes()));
    }

    /// Since when no session has been attached to it; None while one is.
    pub fn idle_since(&self) -> Option<Instant> {
        let (sessions, since) = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        (sessions == 0).then_some(since)
    }

    fn used_by(&self, sessions: usize) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = (sessions, Instant::now());
    }

    /// Whether there is room for a copy that takes so many bytes; then they are kept for it. A mailbox makes one at a time.
    fn reserve(&self, bytes: usize) -> bool {
        let reserved = bytes.max(self.reserved.load(Ordering::Relaxed));
        let fits = self.memory.try_set(self.bytes() + reserved);
        if fits {
            self.reserved.store(reserved, Ordering::Relaxed);
        }
        fits
    }

    /// Whether there is no room for it to grow: for one that has half of all by itself, as soon as all is taken.
    fn may_not_grow(&self) -> bool {
        let share = self.memory.share();
        share.is_full() || (self.bytes() > share.max() / 2 && share.used() > share.max())
    }

    /// What that means for whoever wants to copy messages, or to move some.
    fn no_room(&self, copies: bool) -> NoRoom {
        let (bytes, max) = (self.bytes(), self.memory.share().max());
        let operators = "whoever runs the server may give it more (limits.memory_bytes)";
        if copies && bytes > max {
            return NoRoom::Ever(format!(
                "this mailbox has too many messages for this server's memory to copy any: delete some, or {operators}"
            ));
        }
        let fits = (max.saturating_sub(bytes) / COPY_OF_ONE_BYTES).max(COPY_UNMEASURED_MAX as usize);
        NoRoom::Ever(format!(
            "too many messages at once for this server's memory: about {fits} of this mailbox can be copied or moved together; \
             {operators}"
        ))
    }

    /// Nothing is under way any more.
    fn give_reserved_back(&self) {
        if self.reserved.swap(0, Ordering::Relaxed) > 0 {
            self.memory.set(self.bytes());
        }
    }

    fn measured(&self, bytes: usize) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.memory.set(bytes + self.reserved.load(Ordering::Relaxed));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.index_measured(0);
    }
}

/// The actor of one mailbox.
pub type MailboxActor = OwnerActor<MailboxKind>;

/// What is particular to it: sessions, and reads that wait for a barrier.
pub struct MailboxKind {
    quota_bytes: Option<u64>,
    idle: Idle,
    outboxes: HashMap<SessionKey, Outbox>,
    last_used: Instant,
    held: Arc<Held>,
    tasks: Tasks,
    /// It was used since its memory was measured.
    changed: bool,
    /// A change of many messages waits or is under way.
    takes_long: bool,
}

impl MailboxActor {
    /// Not loaded yet.
    pub fn of_mailbox(seat: Seat, quota_bytes: Option<u64>, idle: Idle, held: Arc<Held>, tasks: Tasks) -> Self {
        let kind = MailboxKind {
            quota_bytes,
            idle,
            outboxes: HashMap::new(),
            last_used: Instant::now(),
            held,
            tasks,
            changed: false,
            takes_long: false,
        };
        OwnerActor::new(seat, MailboxOwner::new(), kind)
    }

    /// Does a read, and asks whether this node still leads in the actor's term.
    fn confirm(&mut self, number: u64, rows: Option<StoredRead>, reader: Reader, ctx: &mut Context<Self>) {
        let Seat { cluster, partition, mailbox, .. } = &self.seat;
        let barrier = cluster.read_barrier(*partition, reader);
        let (store, mailbox) = (Arc::clone(cluster.rows()), *mailbox);
        let reading = async move {
            let read = match rows {
                None => None,
                Some(rows) => match tokio::task::spawn_blocking(move || rows.run(store.as_ref())).await {
                    Ok(read) => Some(read),
                    Err(_) => {
                        tracing::error!(%mailbox, "a read of rows panicked");
                        None
                    }
                },
            };
            match barrier.await {
                Ok(BarrierOutcome::Passed { .. }) => (Lead::Confirmed, read),
                Ok(BarrierOutcome::NotLeader { .. } | BarrierOutcome::Unavailable) | Err(_) => (Lead::Lost, read),
            }
        };
        let confirmed = actix::fut::wrap_future::<_, Self>(reading).map(move |(lead, read), actor, ctx| {
            actor.with_owner(ctx, move |owner, _, out| owner.confirmed(number, lead, read, out));
        });
        ctx.spawn(confirmed);
    }

    fn reply(&mut self, to: SessionKey, reply: Reply) {
        let (partition, incarnation) = (self.seat.partition, self.seat.leading.incarnation.number);
        let message = match reply {
            Reply::Answer { id, result, at } => {
                tracing::debug!(command = %id, partition = partition.0, index = at.0, ok = result.is_ok(), "answered");
                ToSession::Answer { id, result, at: Position { partition, incarnation, index: at } }
            }
            Reply::Failed { id, error } => {
                tracing::debug!(command = %id, partition = partition.0, %error, "not answered");
                ToSession::Failed { id, error }
            }
            Reply::Event(event) => ToSession::Event(event),
            Reply::Notice(notice) => ToSession::Notice(notice),
            Reply::Detached(why) => {
                if let Some(outbox) = self.kind.outboxes.remove(&to) {
                    outbox.send(ToSession::Detached(why));
                }
                return;
            }
        };
        if let Some(outbox) = self.kind.outboxes.get(&to) {
            outbox.send(message);
        }
    }
}

impl Kind for MailboxKind {
    type Owner = MailboxOwner<SessionKey>;

    fn load(seat: &Seat) -> impl Future<Output = Result<Mailbox, Detached>> + 'static {
        let seat = seat.clone();
        async move {
            let Seat { cluster, lookup, mailbox, .. } = seat.clone();
            let is_no = |key: &Option<_>| key.is_none();
            let look = || look_up(&cluster, &lookup, move |lookup| lookup.mailbox_key(mailbox));
            let found = look_twice_before_no(&cluster, is_no, look).await.map_err(|why| match why {
                Uncertain::Damaged => Detached::Corrupt,
                Uncertain::Unavailable => Detached::Overloaded,
            })?;
            let (key, epoch) = found.ok_or(Detached::NoSuchMailbox)?;
            let place = place_of(&seat);
            let rows = Arc::clone(cluster.rows());
            let load = move || Mailbox::load(rows, place, MailboxKey::new(key, epoch));
            match tokio::task::spawn_blocking(load).await {
                Ok(Ok(engine)) => Ok(engine),
                Ok(Err(error)) => {
                    tracing::error!(%mailbox, %error, "a mailbox can't be loaded");
                    cluster.found_damaged(place.replica, &error);
                    Err(Detached::Corrupt)
                }
                Err(_) => Err(Detached::Gone),
            }
        }
    }

    fn takes_long(&self) -> bool {
        self.takes_long
    }

    fn fell_idle(&mut self) {
        self.takes_long = false;
        self.held.give_reserved_back();
    }

    fn loaded(&mut self, engine: &mut Mailbox) {
        engine.set_quota_bytes(self.quota_bytes);
        self.held.measured(engine.memory_bytes());
    }

    fn carry_out(actor: &mut MailboxActor, own: Own<SessionKey>, ctx: &mut Context<MailboxActor>) {
        match own {
            Own::Barrier { number, rows, held } => {
                let term = actor.seat.leading.term;
                actor.confirm(number, rows, if held { Reader::Held(term) } else { Reader::Owner(term) }, ctx);
            }
            Own::Reply { to, reply } => actor.reply(to, reply),
            Own::Errand(errand) => {
                let place = place_of(&actor.seat);
                // Where the node ends, nobody takes it any more.
                let _ = actor.kind.tasks.errands.send(Job::new(place, errand, ctx.address().recipient()));
            }
            Own::Outward(outward) => {
                let place = place_of(&actor.seat);
                let _ = actor.kind.tasks.outwards.send(Job::new(place, outward, ctx.address().recipient()));
            }
        }
    }

    fn started(actor: &mut MailboxActor, ctx: &mut Context<MailboxActor>) {
        metrics::gauge!("mailraft_mailbox_actors").increment(1.0);
        ctx.run_interval(actor.kind.idle.check, |actor, ctx| {
            let changed = std::mem::take(&mut actor.kind.changed);
            let Some(owner) = actor.owner_if_here() else { return actor.kind.changed = changed };
            let measured = changed.then(|| (owner.search_index_bytes(), owner.memory_bytes()));
            let is_idle = owner.is_idle();
            if let Some((index, all)) = measured {
                actor.kind.held.index_measured(index);
                actor.kind.held.measured(all);
            }
            if !is_idle {
                // What waits for its time may be due.
                actor.with_owner(ctx, move |owner, env, out| owner.again(env, out));
            } else if actor.kind.last_used.elapsed() > actor.kind.idle.before_passivation {
                actor.with_owner(ctx, move |owner, _, out| owner.end(Detached::Gone, out));
            }
        });
    }
}

fn place_of(seat: &Seat) -> Place {
    let Seat { cluster, mailbox, leading, .. } = seat;
    Place {
        cluster: cluster.cluster_id(),
        mailbox: *mailbox,
        replica: leading.replica,
        incarnation: leading.incarnation,
        term: leading.term,
        began_alone: leading.began_alone,
    }
}

impl Drop for MailboxKind {
    fn drop(&mut self) {
        metrics::gauge!("mailraft_mailbox_actors").decrement(1.0);
        // After a panic the sessions are still here: they attach to the next actor.
        for outbox in self.outboxes.values() {
            outbox.send(ToSession::Detached(Detached::Gone));
        }
    }
}

impl Handler<Attach> for MailboxActor {
    type Result = ();

    fn handle(&mut self, mut attach: Attach, _: &mut Self::Context) {
        let Some(outbox) = attach.outbox.take() else { return };
        let key = attach.key;
        self.kind.last_used = Instant::now();
        self.kind.outboxes.insert(key, outbox);
        self.kind.held.used_by(self.kind.outboxes.len());
        let turn = key.connection.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ key.session;
        self.owner().attach(key, SessionNumber(turn));
    }
}

impl Handler<Ask> for MailboxActor {
    type Result = ();

    fn handle(&mut self, Ask { key, id, attempt, command }: Ask, ctx: &mut Self::Context) {
        self.kind.last_used = Instant::now();
        self.kind.changed = true;
        // An earlier attempt may have been done, and then nobody is told that it was not.
        if (attempt == 0 || self.owner().is_new(id))
            && let Some(why) = self.has_no_room_to_copy(&command)
        {
            // Nothing was read.
            let reply = match why {
                NoRoom::Now => Reply::Failed { id, error: CommandError::Overloaded },
                NoRoom::Ever(words) => Reply::Answer { id, result: Err(Refusal::Limit(words)), at: Index::default() },
            };
            return self.reply(key, reply);
        }
        let index_grows = match &command {
            Command::Search(SearchQuestion::Add { filters }) => filters_bytes(filters),
            _ => 0,
        };
        if index_grows > 0 && !self.kind.held.has_room_to_index(index_grows) {
            // Not as one that is too busy, who would be asked again.
            let result = Err(Refusal::Limit("there is no room for the index".to_owned()));
            return self.reply(key, Reply::Answer { id, result, at: Index::default() });
        }
        let bytes = self.kind.held.bytes();
        self.kind.takes_long |= bytes > DECIDED_AT_ONCE_MAX_BYTES && command.may_change_more_than(DECIDED_AT_ONCE_MAX);
        let asked = mailraft_mailbox::owner::Ask { session: key, id, attempt, command };
        self.with_owner(ctx, move |owner, env, out| owner.ask(env, asked, out));
        if index_grows > 0
            && let Some(bytes) = self.owner_if_here().map(|owner| owner.search_index_bytes())
        {
            self.kind.held.index_measured(bytes);
        }
    }
}

impl MailboxActor {
    /// Why there is no room for a command that copies messages where mailboxes are in memory, if there is none. A copy brings
    /// nothing that a quota counts, so nothing else bounds how large it makes a mailbox. Its index for searches goes first.
    fn has_no_room_to_copy(&mut self, command: &Command) -> Option<NoRoom> {
        let why = self.copy_has_no_room(command)?;
        if self.kind.held.index_bytes() == 0 {
            return Some(why);
        }
        self.owner().drop_search_index();
        self.kind.held.index_measured(0);
        self.copy_has_no_room(command)
    }

    fn copy_has_no_room(&mut self, command: &Command) -> Option<NoRoom> {
        let once = if let Command::Once { command, .. } = command { command.as_ref() } else { command };
        let (Command::Copy { uids, .. } | Command::Move { uids, .. }) = once else { return None };
        let copies = matches!(once, Command::Copy { .. });
        if uids.len() <= COPY_UNMEASURED_MAX {
            let refused = copies && self.kind.held.may_not_grow();
            let alone = self.kind.held.bytes() > self.kind.held.memory.share().max();
            return refused.then(|| if alone { self.kind.held.no_room(copies) } else { NoRoom::Now });
        }
        let bytes = self.owner().memory_bytes();
        self.kind.held.measured(bytes);
        let messages = usize::try_from(uids.len()).unwrap_or(usize::MAX).min(bytes / MESSAGE_TAKES_MIN_BYTES);
        let takes = messages * COPY_OF_ONE_BYTES;
        if self.kind.held.reserve(takes) {
            return None;
        }
        let fits = bytes + takes <= self.kind.held.memory.share().max();
        Some(if fits { NoRoom::Now } else { self.kind.held.no_room(copies) })
    }
}

/// Why messages are not copied or moved.
#[derive(Debug, PartialEq, Eq)]
enum NoRoom {
    /// Other mailboxes take what there is.
    Now,
    /// It would not fit beside its own mailbox if there were no other: for the client.
    Ever(String),
}

impl Handler<Detach> for MailboxActor {
    type Result = ();

    fn handle(&mut self, Detach(key): Detach, _: &mut Self::Context) {
        self.kind.last_used = Instant::now();
        self.kind.outboxes.remove(&key);
        self.kind.held.used_by(self.kind.outboxes.len());
        self.owner().detach(key);
    }
}

impl Handler<TaskEnded<ErrandOutcome>> for MailboxActor {
    type Result = ();

    fn handle(&mut self, TaskEnded { number, outcome }: TaskEnded<ErrandOutcome>, ctx: &mut Self::Context) {
        self.with_owner(ctx, move |owner, env, out| owner.errand_ended(env, number, outcome, out));
    }
}

impl Handler<TaskEnded<OutwardOutcome>> for MailboxActor {
    type Result = ();

    fn handle(&mut self, TaskEnded { number, outcome }: TaskEnded<OutwardOutcome>, ctx: &mut Self::Context) {
        self.with_owner(ctx, move |owner, env, out| owner.outward_ended(env, number, outcome, out));
    }
}

impl Handler<DropIndex> for MailboxActor {
    type Result = ();

    fn handle(&mut self, DropIndex: DropIndex, _: &mut Self::Context) {
        self.owner().drop_search_index();
        self.kind.held.index_measured(0);
    }
}

impl Handler<MakeRoom> for MailboxActor {
    type Result = ();

    fn handle(&mut self, MakeRoom: MakeRoom, ctx: &mut Self::Context) {
        if self.owner().is_idle() {
            metrics::counter!("mailraft_mailbox_actors_evicted_total").increment(1);
            self.with_owner(ctx, move |owner, _, out| owner.end(Detached::Gone, out));
        }
    }
}

impl Handler<SetQuota> for MailboxActor {
    type Result = ();

    fn handle(&mut self, SetQuota(quota): SetQuota, _: &mut Self::Context) {
        self.kind.quota_bytes = quota;
        self.owner().set_quota_bytes(quota);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_grows_only_where_mailboxes_leave_room_and_gives_its_memory_back() {
        let share = GrowingShare::new(4_000);
        let (held, other) = (Held::new(&share), Held::new(&share));
        other.measured(1_000);
        assert!(held.has_room_to_index(2_000) && !held.has_room_to_index(2_001));
        held.measured(500);
        held.index_measured(1_500);
        assert_eq!((held.bytes(), held.index_bytes(), share.used()), (2_000, 1_500, 3_000));
        assert!(!held.has_room_to_index(1));
        // What is measured as a whole has the index in it.
        held.measured(2_100);
        held.index_measured(1_000);
        assert_eq!((held.bytes(), share.used()), (1_600, 2_600));
        held.index_measured(0);
        assert_eq!((held.bytes(), held.index_bytes(), share.used()), (600, 0, 1_600));
        held.index_measured(700);
        drop(held);
        assert_eq!(share.used(), 1_000);
    }
}
