//! The actor around an owner, whatever it owns: it has the rows loaded, carries out what the owner wants done, and
//! reports what became of it.

use std::collections::VecDeque;
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use mailraft_cluster::SlotOutcome;
use mailraft_directory::Lookup;
use mailraft_driver::{Cluster, Leading};
use mailraft_owner::{Detached, Owner, Step};
use mailraft_storage::{EntryKind, Env, MailboxId, PartitionId, Proposal, ProposalOutcome};

use crate::environment::{os_env, refresh};
use crate::turns::Writer;

/// Which rows an actor owns, and beside what.
#[derive(Clone)]
pub struct Seat {
    /// The replicated groups.
    pub cluster: Cluster,
    /// The directory.
    pub lookup: Arc<Lookup>,
    /// The partition.
    pub partition: PartitionId,
    /// The mailbox; [`MailboxId::PARTITION`] for the partition's own rows.
    pub mailbox: MailboxId,
    /// What this node leads.
    pub leading: Leading,
    /// Whose turn it is to write much.
    pub writer: Writer,
}

/// What is particular to the actors of one kind of owner.
pub trait Kind: Sized + Unpin + 'static {
    /// The owner.
    type Owner: Owner<Engine: Send + 'static, Own: Send + 'static, Error: Display + Send + 'static>
        + Unpin
        + Send
        + 'static;

    /// Loads the rows, once no entry of an earlier owner of this term is in flight.
    fn load(seat: &Seat) -> impl Future<Output = Result<<Self::Owner as Owner>::Engine, Detached>> + 'static;

    /// Whether what the owner does next may take long.
    fn takes_long(&self) -> bool;

    /// The owner has done all that it was asked.
    fn fell_idle(&mut self);

    /// Sets an engine up that was just loaded.
    fn loaded(&mut self, engine: &mut <Self::Owner as Owner>::Engine);

    /// Does what other owners don't want done.
    fn carry_out(actor: &mut OwnerActor<Self>, own: <Self::Owner as Owner>::Own, ctx: &mut Context<OwnerActor<Self>>);

    /// The actor begins.
    fn started(actor: &mut OwnerActor<Self>, ctx: &mut Context<OwnerActor<Self>>);
}

/// What an actor's owner wants done, in this order.
type Steps<K> = Vec<Step<<<K as Kind>::Owner as Owner>::Own, <<K as Kind>::Owner as Owner>::Error>>;

/// An actor around an owner.
pub struct OwnerActor<K: Kind> {
    pub(super) seat: Seat,
    pub(super) kind: K,
    /// None while the owner works on another thread.
    desk: Option<Box<Desk<K>>>,
    /// What it does when it is back, in this order.
    later: VecDeque<Act<K>>,
}

/// What an owner is let do.
type Act<K> = Box<dyn FnOnce(&mut <K as Kind>::Owner, &mut Env, &mut Steps<K>) + Send>;

/// The owner, and what it decides with.
struct Desk<K: Kind> {
    owner: K::Owner,
    env: Env,
}

/// The actor is to end: its term is over, say. It must be told: what it waits for may keep it alive when nobody knows
/// it any more.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Stop(pub Detached);

/// Other regions have not confirmed for long, or do again.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SetUnconfirmed(pub bool);

impl<K: Kind> OwnerActor<K> {
    /// Not loaded yet.
    pub fn new(seat: Seat, owner: K::Owner, kind: K) -> Self {
        OwnerActor { seat, kind, desk: Some(Box::new(Desk { owner, env: os_env() })), later: VecDeque::new() }
    }

    /// The owner, unless it works on another thread.
    pub(super) fn owner_if_here(&mut self) -> Option<&mut K::Owner> {
        self.desk.as_mut().map(|desk| &mut desk.owner)
    }

    /// The owner, while a message is handled.
    ///
    /// # Panics
    /// If it works on another thread: until it is back messages wait.
    pub(super) fn owner(&mut self) -> &mut K::Owner {
        match self.owner_if_here() {
            Some(owner) => owner,
            None => panic!("a message is handled while the owner works elsewhere"),
        }
    }

    /// Lets the owner do something, and carries out what it wants done. What may take long it does on another thread, in
    /// its turn, and other actors of this thread go on meanwhile; this one waits.
    pub(super) fn with_owner(
        &mut self,
        ctx: &mut Context<Self>,
        act: impl FnOnce(&mut K::Owner, &mut Env, &mut Steps<K>) + Send + 'static,
    ) {
        let Some(mut desk) = self.desk.take() else {
            // Messages wait, but futures of this actor run once more after it began to wait: what they bring comes next, and
            // there are no more of these than futures.
            return self.later.push_back(Box::new(act));
        };
        refresh(&mut desk.env, &self.seat.cluster);
        let work = move || {
            let mut steps = Vec::new();
            act(&mut desk.owner, &mut desk.env, &mut steps);
            (desk, steps)
        };
        if !self.kind.takes_long() {
            let (desk, steps) = work();
            return self.is_back(desk, steps, ctx);
        }
        let writer = self.seat.writer.clone();
        let elsewhere = async move {
            let _turn = writer.decides().await;
            tokio::task::spawn_blocking(work).await
        };
        let back = actix::fut::wrap_future::<_, Self>(elsewhere).map(|worked, actor, ctx| match worked {
            Ok((desk, steps)) => actor.is_back(desk, steps, ctx),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The node ends.
                Err(_) => ctx.stop(),
            },
        });
        ctx.wait(back);
    }

    fn is_back(&mut self, desk: Box<Desk<K>>, steps: Steps<K>, ctx: &mut Context<Self>) {
        if desk.owner.is_idle() {
            self.kind.fell_idle();
        }
        self.desk = Some(desk);
        self.carry_out(steps, ctx);
        if let Some(act) = self.later.pop_front() {
            self.with_owner(ctx, act);
        }
    }

    fn carry_out(&mut self, steps: Steps<K>, ctx: &mut Context<Self>) {
        for step in steps {
            match step {
                Step::Propose(proposal) => self.propose(proposal, ctx),
                Step::Pause { millis } => {
                    ctx.run_later(Duration::from_millis(millis), |actor, ctx| {
                        actor.with_owner(ctx, move |owner, env, out| owner.again(env, out));
                    });
                }
                Step::Unreadable { command, error } => {
                    tracing::error!(%command, mailbox = %self.seat.mailbox, %error, "a row can't be read");
                    self.seat.cluster.found_damaged(self.seat.leading.replica, &error);
                }
                Step::Own(own) => K::carry_out(self, own, ctx),
                Step::End { .. } => ctx.stop(),
            }
        }
    }

    fn load(&mut self, ctx: &mut Context<Self>) {
        let Seat { cluster, partition, mailbox, leading, .. } = &self.seat;
        let slot = cluster.await_slot(*partition, leading.term, *mailbox);
        let load = K::load(&self.seat);
        let loading = async move {
            match slot.await {
                Ok(SlotOutcome::Free) => load.await,
                Ok(SlotOutcome::NotLeader { .. } | SlotOutcome::Overloaded) | Err(_) => Err(Detached::NotLeader),
            }
        };
        let loading = actix::fut::wrap_future::<_, Self>(loading).map(|mut loaded, actor, ctx| {
            if let Ok(engine) = &mut loaded {
                actor.kind.loaded(engine);
            }
            actor.with_owner(ctx, move |owner, env, out| owner.loaded(env, loaded, out));
        });
        ctx.spawn(loading);
    }

    fn propose(&mut self, proposal: Proposal, ctx: &mut Context<Self>) {
        let Seat { cluster, partition, mailbox, writer, .. } = &self.seat;
        tracing::debug!(command = %proposal.command, %mailbox, partition = partition.0, "proposed");
        let (rows, commands) = match &proposal.kind {
            EntryKind::Rows(body) => (body.batch.puts.len() + body.batch.deletes.len(), body.results.len()),
            EntryKind::Begin | EntryKind::Chunk(_) | EntryKind::Takeover(_) => (0, 1),
        };
        let (cluster, partition, writer) = (cluster.clone(), *partition, writer.clone());
        // If this actor ends while it waits for its turn, that ends too, and nothing is proposed.
        let proposed = async move { writer.writes(rows, commands, || cluster.propose(partition, proposal)).await };
        let decided = actix::fut::wrap_future::<_, Self>(proposed).map(|outcome, actor, ctx| {
            // The node ends, perhaps after it was appended.
            let outcome = outcome.unwrap_or(ProposalOutcome::Unknown);
            actor.with_owner(ctx, move |owner, env, out| owner.decided(env, outcome, out));
        });
        ctx.spawn(decided);
    }
}

impl<K: Kind> Actor for OwnerActor<K> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.load(ctx);
        K::started(self, ctx);
    }
}

impl<K: Kind> Handler<SetUnconfirmed> for OwnerActor<K> {
    type Result = ();

    fn handle(&mut self, SetUnconfirmed(unconfirmed): SetUnconfirmed, ctx: &mut Self::Context) {
        self.with_owner(ctx, move |owner, _, out| owner.set_unconfirmed(unconfirmed, out));
    }
}

impl<K: Kind> Handler<Stop> for OwnerActor<K> {
    type Result = ();

    fn handle(&mut self, Stop(why): Stop, ctx: &mut Self::Context) {
        self.with_owner(ctx, move |owner, _, out| owner.end(why, out));
    }
}
