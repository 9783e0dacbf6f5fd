//! The actor of one mailbox: a thin shell that feeds the engine, proposes what it decides, and passes on
//! what it says.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use mailraft_cluster::Outcome;
use mailraft_directory::Lookup;
use mailraft_driver::{Cluster, Leading};
use mailraft_mailbox::api::FolderId;
use mailraft_mailbox::{Answer, Command, Event, Mailbox, Place, SessionNumber, Submitted};
use mailraft_storage::{CommandId, Env, Index, MailboxId, PartitionId, Verdict};

use crate::environment::{os_env, refresh};
use crate::links::{Detached, Outbox, Position, ToSession};
use crate::refusals::Refused;

use super::key::SessionKey;

/// An actor with no session and nothing to do ends after this long.
const IDLE_BEFORE_PASSIVATION: Duration = Duration::from_secs(60);
/// How often that is looked at.
const IDLE_CHECK: Duration = Duration::from_secs(5);
/// Commands that wait while the mailbox is being loaded.
const BACKLOG_MAX_COMMANDS: usize = 256;
/// Before deciding again what could not be appended.
const AGAIN_PAUSE: Duration = Duration::from_millis(5);
/// Before deciding again what the log had no room for.
const OVERLOADED_PAUSE: Duration = Duration::from_millis(50);

/// A session attaches.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Attach {
    /// The session.
    pub key: SessionKey,
    /// Where to say things to it.
    pub outbox: Outbox,
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

/// The actor of one mailbox.
pub struct MailboxActor {
    cluster: Cluster,
    lookup: Arc<Lookup>,
    mailbox: MailboxId,
    partition: PartitionId,
    leading: Leading,
    quota_bytes: Option<u64>,
    env: Env,
    engine: Option<Mailbox>,
    backlog: VecDeque<Ask>,
    sessions: HashMap<SessionKey, Attached>,
    waiting: HashMap<CommandId, Vec<SessionKey>>,
    /// Commands among them that open a folder when they are answered; a resume knows which.
    opening: HashMap<CommandId, Option<FolderId>>,
    last_used: Instant,
}

struct Attached {
    outbox: Outbox,
    open: Option<FolderId>,
    /// Events that came after the folder was read and before the session was told: they follow its answer.
    held: Option<Vec<Event>>,
    reading: Option<CommandId>,
}

impl MailboxActor {
    /// Not loaded yet.
    pub fn new(
        cluster: Cluster,
        lookup: Arc<Lookup>,
        mailbox: MailboxId,
        partition: PartitionId,
        leading: Leading,
        quota_bytes: Option<u64>,
    ) -> Self {
        MailboxActor {
            cluster,
            lookup,
            mailbox,
            partition,
            leading,
            quota_bytes,
            env: os_env(),
            engine: None,
            backlog: VecDeque::new(),
            sessions: HashMap::new(),
            waiting: HashMap::new(),
            opening: HashMap::new(),
            last_used: Instant::now(),
        }
    }

    fn position(&self, index: Index) -> Position {
        Position { partition: self.partition, incarnation: self.leading.incarnation.number, index }
    }

    /// Loads the mailbox once no entry of an earlier actor of this term is in flight.
    fn load(&mut self, ctx: &mut Context<Self>) {
        let slot = self.cluster.await_slot(self.partition, self.leading.term, self.mailbox);
        let barrier = self.cluster.clone();
        let lookup = Arc::clone(&self.lookup);
        let rows = Arc::clone(self.cluster.rows());
        let (mailbox, quota) = (self.mailbox, self.quota_bytes);
        let place = Place {
            cluster: self.cluster.cluster_id(),
            mailbox,
            replica: self.leading.replica,
            incarnation: self.leading.incarnation,
            term: self.leading.term,
        };
        let loading = async move {
            match slot.await {
                Ok(Outcome::SlotFree) => {}
                _ => return Err(Detached::NotLeader),
            }
            let key = match find_key(&lookup, mailbox).await? {
                Some(key) => key,
                None => {
                    // This node's replica of the control group may lag behind.
                    match barrier.read_barrier(PartitionId::CONTROL, None).await {
                        Ok(Outcome::Read { .. }) => {}
                        _ => return Err(Detached::Overloaded),
                    }
                    find_key(&lookup, mailbox).await?.ok_or(Detached::NoSuchMailbox)?
                }
            };
            let loaded = tokio::task::spawn_blocking(move || Mailbox::load(rows, place, key)).await;
            match loaded {
                Ok(Ok(mut engine)) => {
                    engine.set_quota_bytes(quota);
                    Ok(engine)
                }
                Ok(Err(error)) => {
                    tracing::error!(%mailbox, %error, "a mailbox can't be loaded");
                    Err(Detached::Corrupt)
                }
                Err(_) => Err(Detached::Gone),
            }
        };
        let loading = actix::fut::wrap_future::<_, Self>(loading).map(|loaded, actor, ctx| match loaded {
            Ok(engine) => {
                actor.engine = Some(engine);
                // A new mailbox makes its first folders before anything else.
                actor.pump(ctx);
                for asked in std::mem::take(&mut actor.backlog) {
                    actor.submit(asked, ctx);
                }
                actor.pump(ctx);
            }
            Err(why) => actor.end(why, ctx),
        });
        ctx.spawn(loading);
    }

    fn submit(&mut self, asked: Ask, ctx: &mut Context<Self>) {
        let Ask { key, id, attempt, command } = asked;
        let Some(engine) = self.engine.as_mut() else {
            if self.backlog.len() >= BACKLOG_MAX_COMMANDS {
                self.answer_one(key, id, Err(Refused::Overloaded), Index(0));
            } else {
                self.backlog.push_back(Ask { key, id, attempt, command });
            }
            return;
        };
        self.last_used = Instant::now();
        refresh(&mut self.env);
        let opens = matches!(command, Command::Select { .. } | Command::Resume { .. });
        let resumes = if let Command::Resume { folder, .. } = &command { Some(*folder) } else { None };
        let closes = matches!(command, Command::Unselect);
        let session = SessionNumber(key.connection.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ key.session);
        match engine.submit(&mut self.env, session, id, attempt, command) {
            Submitted::Answered(result, index) => {
                if let Some(attached) = self.sessions.get_mut(&key) {
                    if opens {
                        attached.open = opened(&result, resumes);
                        attached.held = Some(Vec::new());
                        attached.reading = Some(id);
                    } else if closes {
                        attached.open = None;
                        attached.held = None;
                    }
                }
                self.after_gate(key, id, ctx, async move { result.map_err(Refused::Mailbox) }, index);
            }
            Submitted::Read(read) => {
                let rows = Arc::clone(self.cluster.rows());
                let index = read.position();
                let reading = async move {
                    match tokio::task::spawn_blocking(move || read.run(rows.as_ref())).await {
                        Ok(Ok(result)) => result.map_err(Refused::Mailbox),
                        Ok(Err(error)) => {
                            tracing::error!(command = %id, %error, "a row can't be read");
                            Err(Refused::Corrupt)
                        }
                        Err(_) => Err(Refused::Corrupt),
                    }
                };
                self.after_gate(key, id, ctx, reading, index);
            }
            Submitted::Queued | Submitted::Joined => {
                self.waiting.entry(id).or_default().push(key);
                if opens {
                    self.opening.insert(id, resumes);
                }
                self.pump(ctx);
            }
            Submitted::Overloaded => self.answer_one(key, id, Err(Refused::Overloaded), Index(0)),
            Submitted::Unknown => self.answer_one(key, id, Err(Refused::Unknown), Index(0)),
            Submitted::Failed(error) => {
                tracing::error!(command = %id, %error, "a row can't be read");
                self.answer_one(key, id, Err(Refused::Corrupt), Index(0));
            }
        }
    }

    /// Answers a read when a majority has confirmed that this node still leads in the actor's term.
    fn after_gate(
        &mut self,
        key: SessionKey,
        id: CommandId,
        ctx: &mut Context<Self>,
        read: impl Future<Output = Result<Answer, Refused>> + 'static,
        index: Index,
    ) {
        let gate = self.cluster.read_barrier(self.partition, Some(self.leading.term));
        let gated = async move {
            let result = read.await;
            match gate.await {
                Ok(Outcome::Read { .. }) => Ok(result),
                _ => Err(()),
            }
        };
        let gated = actix::fut::wrap_future::<_, Self>(gated).map(move |gated, actor, ctx| match gated {
            Ok(result) => actor.answer_one(key, id, result, index),
            // Whoever does not lead any more says nothing: the session asks the next leader.
            Err(()) => actor.end(Detached::NotLeader, ctx),
        });
        ctx.spawn(gated);
    }

    /// Proposes what the engine has decided, if nothing is in flight.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        let Some(engine) = self.engine.as_mut() else { return };
        refresh(&mut self.env);
        let Some(proposal) = engine.next_entry(&mut self.env) else { return };
        let first = proposal.command;
        tracing::debug!(command = %first, mailbox = %self.mailbox, partition = self.partition.0, "proposed");
        let proposed = self.cluster.propose(self.partition, proposal);
        let decided = actix::fut::wrap_future::<_, Self>(proposed).map(|outcome, actor, ctx| match outcome {
            Ok(outcome) => actor.decided(outcome, ctx),
            Err(_) => actor.end(Detached::Gone, ctx),
        });
        ctx.spawn(decided);
    }

    fn decided(&mut self, outcome: Outcome, ctx: &mut Context<Self>) {
        let Some(engine) = self.engine.as_mut() else { return };
        match outcome {
            Outcome::Applied { index, verdict: verdict @ (Verdict::Accepted | Verdict::Missing) } => {
                let said = engine.applied(index, verdict);
                for event in said.events {
                    self.tell(event);
                }
                for id in said.lost {
                    // The body it needs is gone and nothing was done: the session uploads it again.
                    self.answer(id, Err(Refused::BodyLost), index);
                }
                for (id, result, at) in said.answers {
                    tracing::debug!(command = %id, partition = self.partition.0, index = at.0, ok = result.is_ok(), "applied");
                    self.answer(id, result.map_err(Refused::Mailbox), at);
                }
                self.pump(ctx);
            }
            Outcome::Dropped => {
                engine.dropped();
                ctx.run_later(AGAIN_PAUSE, |actor, ctx| actor.pump(ctx));
            }
            Outcome::Overloaded => {
                engine.dropped();
                ctx.run_later(OVERLOADED_PAUSE, |actor, ctx| actor.pump(ctx));
            }
            Outcome::Applied { verdict: Verdict::Fenced, .. }
            | Outcome::NotLeader { .. }
            | Outcome::Unknown
            | Outcome::Read { .. }
            | Outcome::SlotFree
            | Outcome::Unavailable => self.end(Detached::NotLeader, ctx),
        }
    }

    /// Tells an event to every session that has its folder open.
    fn tell(&mut self, event: Event) {
        for attached in self.sessions.values_mut().filter(|a| a.open == Some(event.folder)) {
            match attached.held.as_mut() {
                Some(held) => held.push(event.clone()),
                None => attached.outbox.send(ToSession::Event(event.clone())),
            }
        }
    }

    fn answer(&mut self, id: CommandId, result: Result<Answer, Refused>, at: Index) {
        if let (Some(resumes), Some(keys)) = (self.opening.remove(&id), self.waiting.get(&id)) {
            for key in keys {
                if let Some(attached) = self.sessions.get_mut(key) {
                    attached.open = opened(&result, resumes);
                }
            }
        }
        for key in self.waiting.remove(&id).unwrap_or_default() {
            self.answer_one(key, id, result.clone(), at);
        }
    }

    fn answer_one(&mut self, key: SessionKey, id: CommandId, result: Result<Answer, Refused>, at: Index) {
        let at = self.position(at);
        let Some(attached) = self.sessions.get_mut(&key) else { return };
        attached.outbox.send(ToSession::Answer { id, result, at });
        if attached.reading == Some(id) {
            attached.reading = None;
            for event in attached.held.take().unwrap_or_default() {
                attached.outbox.send(ToSession::Event(event));
            }
        }
    }

    fn end(&mut self, why: Detached, ctx: &mut Context<Self>) {
        for (_, attached) in self.sessions.drain() {
            attached.outbox.send(ToSession::Detached(why));
        }
        self.engine = None;
        self.backlog.clear();
        ctx.stop();
    }
}

/// The folder that an answer opens.
fn opened<E>(result: &Result<Answer, E>, resumes: Option<FolderId>) -> Option<FolderId> {
    match result {
        Ok(Answer::Selected(selected)) => Some(selected.folder),
        Ok(Answer::Resumed(_)) => resumes,
        Ok(_) | Err(_) => None,
    }
}

async fn find_key(lookup: &Arc<Lookup>, mailbox: MailboxId) -> Result<Option<mailraft_mailbox::MailboxKey>, Detached> {
    let lookup = Arc::clone(lookup);
    match tokio::task::spawn_blocking(move || lookup.mailbox_key(mailbox)).await {
        Ok(Ok(key)) => Ok(key.map(|(key, epoch)| mailraft_mailbox::MailboxKey::new(key, epoch))),
        Ok(Err(error)) => {
            tracing::error!(%mailbox, %error, "a mailbox key can't be read");
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
        ctx.run_interval(IDLE_CHECK, |actor, ctx| {
            let idle = actor.sessions.is_empty()
                && actor.backlog.is_empty()
                && actor.engine.as_ref().is_some_and(Mailbox::idle);
            if idle && actor.last_used.elapsed() > IDLE_BEFORE_PASSIVATION {
                actor.end(Detached::Gone, ctx);
            }
        });
    }
}

impl Drop for MailboxActor {
    fn drop(&mut self) {
        metrics::gauge!("mailraft_mailbox_actors").decrement(1.0);
        // After a panic the sessions are still here: they attach to the next actor.
        for (_, attached) in self.sessions.drain() {
            attached.outbox.send(ToSession::Detached(Detached::Gone));
        }
    }
}

impl Handler<Attach> for MailboxActor {
    type Result = ();

    fn handle(&mut self, Attach { key, outbox }: Attach, _: &mut Self::Context) {
        self.last_used = Instant::now();
        self.sessions.insert(key, Attached { outbox, open: None, held: None, reading: None });
    }
}

impl Handler<Ask> for MailboxActor {
    type Result = ();

    fn handle(&mut self, asked: Ask, ctx: &mut Self::Context) {
        self.submit(asked, ctx);
    }
}

impl Handler<Detach> for MailboxActor {
    type Result = ();

    fn handle(&mut self, Detach(key): Detach, _: &mut Self::Context) {
        self.last_used = Instant::now();
        self.sessions.remove(&key);
    }
}

impl Handler<Stop> for MailboxActor {
    type Result = ();

    fn handle(&mut self, Stop(why): Stop, ctx: &mut Self::Context) {
        self.end(why, ctx);
    }
}
