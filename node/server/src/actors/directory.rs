//! The actor of the directory, beside the control group's leader.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use mailraft_cluster::SlotOutcome;
use mailraft_cluster::eviction::{EVICTED_MAX_ROWS, evict};
use mailraft_directory::{Answer, Command, Directory, Lookup, Refusal, Submitted};
use mailraft_driver::{Cluster, Leading};
use mailraft_mailbox::Detached;
use mailraft_storage::{CommandId, Env, Index, MailboxId, PartitionId, ProposalOutcome, Verdict};
use tokio::sync::oneshot;

use crate::environment::{os_env, refresh};
use mailraft_mailbox::Position;

/// Commands that wait while the directory is being loaded.
const BACKLOG_MAX_COMMANDS: usize = 256;
/// Before deciding again what could not be appended.
const AGAIN_PAUSE: Duration = Duration::from_millis(20);

/// Results whose time is over are evicted this often, by one entry.
const EVICT_PAUSE: Duration = Duration::from_secs(60);

/// What the directory answered and where the change stands, or why nobody here can say.
pub type Reply = Result<(Result<Answer, Refusal>, Position), Detached>;

/// A change of the directory.
#[derive(Message)]
#[rtype(result = "()")]
pub struct DirectoryAsk {
    /// Its id.
    pub id: CommandId,
    /// The change.
    pub command: Command,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Reply>,
}

/// The actor's term is over. It must be told: its timer keeps it alive when nobody knows it any more.
#[derive(Message)]
#[rtype(result = "()")]
pub struct TermOver;

/// The actor of the directory.
pub struct DirectoryActor {
    cluster: Cluster,
    lookup: Arc<Lookup>,
    leading: Leading,
    env: Env,
    engine: Option<Directory>,
    backlog: Vec<DirectoryAsk>,
    waiting: HashMap<CommandId, Vec<oneshot::Sender<Reply>>>,
    evict_due: bool,
    /// An entry that evicts is in flight: of the control group's own rows there is one at a time.
    evicting: bool,
    evict_from: CommandId,
}

impl DirectoryActor {
    /// Not loaded yet.
    pub fn new(cluster: Cluster, lookup: Arc<Lookup>, leading: Leading) -> Self {
        DirectoryActor {
            cluster,
            lookup,
            leading,
            env: os_env(),
            engine: None,
            backlog: Vec::new(),
            waiting: HashMap::new(),
            evict_due: true,
            evicting: false,
            evict_from: CommandId::default(),
        }
    }

    fn submit(&mut self, asked: DirectoryAsk, ctx: &mut Context<Self>) {
        let Some(engine) = self.engine.as_mut() else {
            if self.backlog.len() < BACKLOG_MAX_COMMANDS {
                self.backlog.push(asked);
            } else {
                let _ = asked.reply.send(Err(Detached::Overloaded));
            }
            return;
        };
        let DirectoryAsk { id, command, reply } = asked;
        refresh(&mut self.env, &self.cluster);
        match engine.submit(&mut self.env, id, command) {
            Submitted::Answered(result, index) => {
                let _ = reply.send(Ok((result, position(&self.leading, index))));
            }
            Submitted::Queued | Submitted::Joined => self.waiting.entry(id).or_default().push(reply),
            Submitted::Overloaded => {
                let _ = reply.send(Err(Detached::Overloaded));
            }
            Submitted::Unknown => {
                let _ = reply.send(Err(Detached::Gone));
            }
            Submitted::Failed(error) => {
                tracing::error!(command = %id, %error, "the directory can't be read");
                self.cluster.found_damaged(self.leading.replica, &error);
                let _ = reply.send(Err(Detached::Corrupt));
            }
        }
        self.pump(ctx);
    }

    fn pump(&mut self, ctx: &mut Context<Self>) {
        if self.evicting {
            return;
        }
        let Some(engine) = self.engine.as_mut() else { return };
        if self.evict_due && !engine.in_flight() {
            self.evict_due = false;
            if self.evict(ctx) {
                return;
            }
        }
        let Some(engine) = self.engine.as_mut() else { return };
        refresh(&mut self.env, &self.cluster);
        let proposal = engine.next_entry(&mut self.env);
        for (id, error) in engine.take_failed() {
            tracing::error!(command = %id, %error, "the directory can't be read");
            self.cluster.found_damaged(self.leading.replica, &error);
            for reply in self.waiting.remove(&id).unwrap_or_default() {
                let _ = reply.send(Err(Detached::Corrupt));
            }
        }
        let Some(proposal) = proposal else { return };
        let proposed = self.cluster.propose(PartitionId::CONTROL, proposal);
        let decided =
            actix::fut::wrap_future::<_, Self>(proposed).map(|outcome, actor, ctx| actor.decided(outcome, ctx));
        ctx.spawn(decided);
    }

    fn decided(&mut self, outcome: Result<ProposalOutcome, oneshot::error::RecvError>, ctx: &mut Context<Self>) {
        let Some(engine) = self.engine.as_mut() else { return };
        match outcome {
            Ok(ProposalOutcome::Applied { index, verdict: verdict @ (Verdict::Accepted | Verdict::Missing) }) => {
                for (id, result, at) in engine.applied(index, verdict) {
                    for reply in self.waiting.remove(&id).unwrap_or_default() {
                        let _ = reply.send(Ok((result.clone(), position(&self.leading, at))));
                    }
                }
                self.pump(ctx);
            }
            Ok(ProposalOutcome::Dropped | ProposalOutcome::Overloaded) => {
                engine.dropped();
                ctx.run_later(AGAIN_PAUSE, |actor, ctx| actor.pump(ctx));
            }
            Ok(
                ProposalOutcome::Applied { verdict: Verdict::Fenced, .. }
                | ProposalOutcome::NotLeader { .. }
                | ProposalOutcome::Unknown,
            )
            | Err(_) => ctx.stop(),
        }
    }
}

impl DirectoryActor {
    /// Evicts results whose time is over. False if there are none.
    fn evict(&mut self, ctx: &mut Context<Self>) -> bool {
        let (rows, kept) = (self.cluster.rows().as_ref(), self.cluster.results_kept());
        let eviction = match evict(rows, self.leading.replica, self.evict_from, kept, EVICTED_MAX_ROWS) {
            Ok(Some(eviction)) => eviction,
            Ok(None) => return false,
            Err(error) => {
                tracing::error!(%error, "results of commands can't be evicted: check the disk");
                return false;
            }
        };
        let (evicted, next) = (eviction.evicted, eviction.next);
        let proposal = eviction.proposal(self.leading.incarnation, self.leading.term);
        let proposed = self.cluster.propose(PartitionId::CONTROL, proposal);
        let decided = actix::fut::wrap_future::<_, Self>(proposed).map(move |outcome, actor, ctx| {
            actor.evicting = false;
            match outcome {
                Ok(ProposalOutcome::Applied { verdict: Verdict::Accepted, .. }) => {
                    metrics::counter!(mailraft_driver::metrics::EVICTED).increment(evicted as u64);
                    actor.evict_from = next;
                    actor.pump(ctx);
                }
                Ok(
                    ProposalOutcome::Applied { verdict: Verdict::Missing, .. }
                    | ProposalOutcome::Dropped
                    | ProposalOutcome::Overloaded,
                ) => {
                    actor.pump(ctx);
                }
                Ok(
                    ProposalOutcome::Applied { verdict: Verdict::Fenced, .. }
                    | ProposalOutcome::NotLeader { .. }
                    | ProposalOutcome::Unknown,
                )
                | Err(_) => ctx.stop(),
            }
        });
        self.evicting = true;
        ctx.spawn(decided);
        true
    }
}

fn position(leading: &Leading, index: Index) -> Position {
    Position { partition: PartitionId::CONTROL, incarnation: leading.incarnation.number, index }
}

impl Actor for DirectoryActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(EVICT_PAUSE, |actor, ctx| {
            actor.evict_due = true;
            actor.pump(ctx);
        });
        let slot = self.cluster.await_slot(PartitionId::CONTROL, self.leading.term, MailboxId::PARTITION);
        let (lookup, leading) = (Arc::clone(&self.lookup), self.leading);
        let loading = async move {
            match slot.await {
                Ok(SlotOutcome::Free) => {}
                _ => return None,
            }
            tokio::task::spawn_blocking(move || Directory::load(&lookup, leading.incarnation, leading.term)).await.ok()
        };
        let loading = actix::fut::wrap_future::<_, Self>(loading).map(|loaded, actor, ctx| match loaded {
            Some(Ok(engine)) => {
                actor.engine = Some(engine);
                for asked in std::mem::take(&mut actor.backlog) {
                    actor.submit(asked, ctx);
                }
            }
            Some(Err(error)) => {
                tracing::error!(%error, "the directory can't be loaded");
                actor.cluster.found_damaged(actor.leading.replica, &error);
                ctx.stop();
            }
            None => ctx.stop(),
        });
        ctx.spawn(loading);
    }
}

impl Handler<DirectoryAsk> for DirectoryActor {
    type Result = ();

    fn handle(&mut self, asked: DirectoryAsk, ctx: &mut Self::Context) {
        self.submit(asked, ctx);
    }
}

impl Handler<TermOver> for DirectoryActor {
    type Result = ();

    /// Who still waits hears that nobody here knows.
    fn handle(&mut self, TermOver: TermOver, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
