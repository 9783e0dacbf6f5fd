//! The actor around an owner, whatever it owns: it has the rows loaded, carries out what the owner wants done, and
//! reports what became of it.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use mailraft_cluster::SlotOutcome;
use mailraft_directory::Lookup;
use mailraft_driver::{Cluster, Leading};
use mailraft_owner::{Detached, Owner, Step};
use mailraft_storage::{Env, MailboxId, PartitionId, Proposal, ProposalOutcome};

use crate::environment::{os_env, refresh};

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
}

/// What is particular to the actors of one kind of owner.
pub trait Kind: Sized + Unpin + 'static {
    /// The owner.
    type Owner: Owner<Engine: 'static, Own: 'static, Error: Display> + Unpin + 'static;

    /// Loads the rows, once no entry of an earlier owner of this term is in flight.
    fn load(seat: &Seat) -> impl Future<Output = Result<<Self::Owner as Owner>::Engine, Detached>> + 'static;

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
    pub(super) owner: K::Owner,
    pub(super) kind: K,
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
        OwnerActor { seat, owner, kind, env: os_env() }
    }

    /// Lets the owner do something, and carries out what it wants done.
    pub(super) fn with_owner(
        &mut self,
        ctx: &mut Context<Self>,
        act: impl FnOnce(&mut K::Owner, &mut Env, &mut Steps<K>),
    ) {
        refresh(&mut self.env, &self.seat.cluster);
        let mut steps = Vec::new();
        act(&mut self.owner, &mut self.env, &mut steps);
        self.carry_out(steps, ctx);
    }

    fn carry_out(&mut self, steps: Steps<K>, ctx: &mut Context<Self>) {
        for step in steps {
            match step {
                Step::Propose(proposal) => self.propose(proposal, ctx),
                Step::Pause { millis } => {
                    ctx.run_later(Duration::from_millis(millis), |actor, ctx| {
                        actor.with_owner(ctx, |owner, env, out| owner.again(env, out));
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
            actor.with_owner(ctx, |owner, env, out| owner.loaded(env, loaded, out));
        });
        ctx.spawn(loading);
    }

    fn propose(&mut self, proposal: Proposal, ctx: &mut Context<Self>) {
        let Seat { cluster, partition, mailbox, .. } = &self.seat;
        tracing::debug!(command = %proposal.command, %mailbox, partition = partition.0, "proposed");
        let proposed = cluster.propose(*partition, proposal);
        let decided = actix::fut::wrap_future::<_, Self>(proposed).map(|outcome, actor, ctx| {
            // The node ends, perhaps after it was appended.
            let outcome = outcome.unwrap_or(ProposalOutcome::Unknown);
            actor.with_owner(ctx, |owner, env, out| owner.decided(env, outcome, out));
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
        self.with_owner(ctx, |owner, _, out| owner.set_unconfirmed(unconfirmed, out));
    }
}

impl<K: Kind> Handler<Stop> for OwnerActor<K> {
    type Result = ();

    fn handle(&mut self, Stop(why): Stop, ctx: &mut Self::Context) {
        self.with_owner(ctx, |owner, _, out| owner.end(why, out));
    }
}
