//! The actor of one mailbox: a thin shell around its owner. It loads the mailbox, carries out what the owner
//! wants done, and passes on what it says.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use mailraft_cluster::{BarrierOutcome, SlotOutcome};
use mailraft_directory::Lookup;
use mailraft_driver::{Cluster, Leading};
use mailraft_mailbox::owner::{Owner, Step};
use mailraft_mailbox::{
    Answer, Command, Detached, Mailbox, MailboxKey, Place, Position, Refusal, Said, SessionNumber, StoredRead,
};
use mailraft_storage::{CommandId, Env, MailboxId, PartitionId, Proposal, ProposalOutcome, StoreError};

use crate::environment::{os_env, refresh};
use crate::outbox::{Outbox, ToSession};

use super::key::SessionKey;

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

/// The actor's term is over.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Stop(pub Detached);

/// The most bytes of messages from now on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SetQuota(pub Option<u64>);

/// The actor of one mailbox.
pub struct MailboxActor {
    cluster: Cluster,
    lookup: Arc<Lookup>,
    mailbox: MailboxId,
    partition: PartitionId,
    leading: Leading,
    quota_bytes: Option<u64>,
    idle: Idle,
    env: Env,
    owner: Owner<SessionKey>,
    outboxes: HashMap<SessionKey, Outbox>,
    last_used: Instant,
}

type RowsRead = Result<Result<Answer, Refusal>, StoreError>;

impl MailboxActor {
    /// Not loaded yet.
    pub fn new(
        cluster: Cluster,
        lookup: Arc<Lookup>,
        mailbox: MailboxId,
        partition: PartitionId,
        leading: Leading,
        quota_bytes: Option<u64>,
        idle: Idle,
    ) -> Self {
        MailboxActor {
            cluster,
            lookup,
            mailbox,
            partition,
            leading,
            quota_bytes,
            idle,
            env: os_env(),
            owner: Owner::new(),
            outboxes: HashMap::new(),
            last_used: Instant::now(),
        }
    }

    /// Lets the owner do something, and carries out what it wants done.
    fn with_owner(
        &mut self,
        ctx: &mut Context<Self>,
        act: impl FnOnce(&mut Owner<SessionKey>, &mut Env, &mut Vec<Step<SessionKey>>),
    ) {
        refresh(&mut self.env, &self.cluster);
        let mut steps = Vec::new();
        act(&mut self.owner, &mut self.env, &mut steps);
        self.carry_out(steps, ctx);
    }

    fn carry_out(&mut self, steps: Vec<Step<SessionKey>>, ctx: &mut Context<Self>) {
        for step in steps {
            match step {
                Step::Propose(proposal) => self.propose(proposal, ctx),
                Step::Gate { number, rows } => self.gate(number, rows, ctx),
                Step::Say { to, what } => self.say(to, what),
                Step::Pause { millis } => {
                    ctx.run_later(Duration::from_millis(millis), |actor, ctx| {
                        actor.with_owner(ctx, |owner, env, out| owner.again(env, out));
                    });
                }
                Step::Failed { command, error } => {
                    tracing::error!(%command, mailbox = %self.mailbox, %error, "a row can't be read");
                    self.cluster.found_damaged(self.leading.replica, &error);
                }
                Step::End => ctx.stop(),
            }
        }
    }

    /// Loads the mailbox once no entry of an earlier actor of this term is in flight.
    fn load(&mut self, ctx: &mut Context<Self>) {
        let slot = self.cluster.await_slot(self.partition, self.leading.term, self.mailbox);
        let barrier = self.cluster.clone();
        let lookup = Arc::clone(&self.lookup);
        let rows = Arc::clone(self.cluster.rows());
        let mailbox = self.mailbox;
        let place = Place {
            cluster: self.cluster.cluster_id(),
            mailbox,
            replica: self.leading.replica,
            incarnation: self.leading.incarnation,
            term: self.leading.term,
        };
        let loading = async move {
            match slot.await {
                Ok(SlotOutcome::Free) => {}
                _ => return Err(Detached::NotLeader),
            }
            let key = match find_key(&barrier, &lookup, mailbox).await? {
                Some(key) => key,
                None => {
                    // This node's replica of the control group may lag behind.
                    match barrier.read_barrier(PartitionId::CONTROL, None).await {
                        Ok(BarrierOutcome::Passed { .. }) => {}
                        _ => return Err(Detached::Overloaded),
                    }
                    find_key(&barrier, &lookup, mailbox).await?.ok_or(Detached::NoSuchMailbox)?
                }
            };
            match tokio::task::spawn_blocking(move || Mailbox::load(rows, place, key)).await {
                Ok(Ok(engine)) => Ok(engine),
                Ok(Err(error)) => {
                    tracing::error!(%mailbox, %error, "a mailbox can't be loaded");
                    barrier.found_damaged(place.replica, &error);
                    Err(Detached::Corrupt)
                }
                Err(_) => Err(Detached::Gone),
            }
        };
        let loading = actix::fut::wrap_future::<_, Self>(loading).map(|loaded, actor, ctx| {
            let quota = actor.quota_bytes;
            actor.with_owner(ctx, |owner, env, out| {
                let loaded = loaded.map(|mut engine| {
                    engine.set_quota_bytes(quota);
                    engine
                });
                owner.loaded(env, loaded, out);
            });
        });
        ctx.spawn(loading);
    }

    /// Does a read, and asks whether this node still leads in the actor's term.
    fn gate(&mut self, number: u64, rows: Option<StoredRead>, ctx: &mut Context<Self>) {
        let gate = self.cluster.read_barrier(self.partition, Some(self.leading.term));
        let store = Arc::clone(self.cluster.rows());
        let mailbox = self.mailbox;
        let gated = async move {
            let read: Option<RowsRead> = match rows {
                None => None,
                Some(rows) => match tokio::task::spawn_blocking(move || rows.run(store.as_ref())).await {
                    Ok(read) => Some(read),
                    Err(_) => {
                        tracing::error!(%mailbox, "a read of rows panicked");
                        None
                    }
                },
            };
            (matches!(gate.await, Ok(BarrierOutcome::Passed { .. })), read)
        };
        let gated = actix::fut::wrap_future::<_, Self>(gated).map(move |(leads, read), actor, ctx| {
            actor.with_owner(ctx, |owner, _, out| owner.gated(number, leads, read, out));
        });
        ctx.spawn(gated);
    }

    fn propose(&mut self, proposal: Proposal, ctx: &mut Context<Self>) {
        let first = proposal.command;
        tracing::debug!(command = %first, mailbox = %self.mailbox, partition = self.partition.0, "proposed");
        let proposed = self.cluster.propose(self.partition, proposal);
        let decided = actix::fut::wrap_future::<_, Self>(proposed).map(|outcome, actor, ctx| {
            // The node ends, perhaps after it was appended.
            let outcome = outcome.unwrap_or(ProposalOutcome::Unknown);
            actor.with_owner(ctx, |owner, env, out| owner.decided(env, outcome, out));
        });
        ctx.spawn(decided);
    }

    fn say(&mut self, to: SessionKey, what: Said) {
        let (partition, incarnation) = (self.partition, self.leading.incarnation.number);
        let message = match what {
            Said::Answer { id, result, at } => {
                tracing::debug!(command = %id, partition = partition.0, index = at.0, ok = result.is_ok(), "answered");
                ToSession::Answer { id, result, at: Position { partition, incarnation, index: at } }
            }
            Said::Event(event) => ToSession::Event(event),
            Said::Detached(why) => {
                if let Some(outbox) = self.outboxes.remove(&to) {
                    outbox.send(ToSession::Detached(why));
                }
                return;
            }
        };
        if let Some(outbox) = self.outboxes.get(&to) {
            outbox.send(message);
        }
    }
}

async fn find_key(cluster: &Cluster, lookup: &Arc<Lookup>, mailbox: MailboxId) -> Result<Option<MailboxKey>, Detached> {
    let lookup = Arc::clone(lookup);
    match tokio::task::spawn_blocking(move || lookup.mailbox_key(mailbox)).await {
        Ok(Ok(key)) => Ok(key.map(|(key, epoch)| MailboxKey::new(key, epoch))),
        Ok(Err(error)) => {
            tracing::error!(%mailbox, %error, "a mailbox key can't be read");
            if let Some(control) = cluster.replica(PartitionId::CONTROL) {
                cluster.found_damaged(control, &error);
            }
            Err(Detached::Corrupt)
        }
        Err(_) => Err(Detached::Gone),
    }
}

impl Actor for MailboxActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        metrics::gauge!("mailraft_mailbox_actors").increment(1.0);
        self.load(ctx);
        ctx.run_interval(self.idle.check, |actor, ctx| {
            if actor.owner.is_idle() && actor.last_used.elapsed() > actor.idle.before_passivation {
                actor.with_owner(ctx, |owner, _, out| owner.end(Detached::Gone, out));
            }
        });
    }
}

impl Drop for MailboxActor {
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
        self.last_used = Instant::now();
        self.outboxes.insert(key, outbox);
        let turn = key.connection.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ key.session;
        self.owner.attach(key, SessionNumber(turn));
    }
}

impl Handler<Ask> for MailboxActor {
    type Result = ();

    fn handle(&mut self, Ask { key, id, attempt, command }: Ask, ctx: &mut Self::Context) {
        self.last_used = Instant::now();
        let asked = mailraft_mailbox::owner::Ask { session: key, id, attempt, command };
        self.with_owner(ctx, |owner, env, out| owner.ask(env, asked, out));
    }
}

impl Handler<Detach> for MailboxActor {
    type Result = ();

    fn handle(&mut self, Detach(key): Detach, _: &mut Self::Context) {
        self.last_used = Instant::now();
        self.outboxes.remove(&key);
        self.owner.detach(key);
    }
}

impl Handler<Stop> for MailboxActor {
    type Result = ();

    fn handle(&mut self, Stop(why): Stop, ctx: &mut Self::Context) {
        self.with_owner(ctx, |owner, _, out| owner.end(why, out));
    }
}

impl Handler<SetQuota> for MailboxActor {
    type Result = ();

    fn handle(&mut self, SetQuota(quota): SetQuota, _: &mut Self::Context) {
        self.quota_bytes = quota;
        self.owner.set_quota_bytes(quota);
    }
}
