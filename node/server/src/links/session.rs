//! A session's mailbox: one command at a time, wherever the actor is, through failovers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mailraft_driver::StreamKind;
use mailraft_mailbox::api::Draft;
use mailraft_mailbox::{Answer, Command, Detached, Event, Following, Refused};
use mailraft_storage::body::BodyId;
use mailraft_storage::{CommandId, MailboxId, NodeId, PartitionId};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Link;
use super::chunks::{CHUNKS_UNANSWERED_MAX, ProposedChunk, propose_chunk};
use super::frame::{self, ChunkDone, UploadChunk};
use super::outbox::{Inbox, Position, ToSession, channel};
use crate::actors::SessionKey;
use crate::environment::{command_id, os_env};
use crate::sessions::spool::Received;
use crate::world::World;

/// How long a client is kept waiting while nobody leads its mailbox's partition.
pub const NO_LEADER_MAX: Duration = Duration::from_millis(1_600);
/// How long an actor may take for one answer while its node leads.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Between attempts, unless news of a leader come earlier.
const RETRY_PAUSE: Duration = Duration::from_millis(15);
/// Between attempts of an idling session, unless news of a leader come earlier.
const IDLE_RETRY_PAUSE: Duration = Duration::from_millis(250);

static SESSIONS: AtomicU64 = AtomicU64::new(1);

/// A session's mailbox.
pub struct MailboxSession {
    world: World,
    mailbox: MailboxId,
    partition: PartitionId,
    leaders: watch::Receiver<std::sync::Arc<Vec<Option<NodeId>>>>,
    attached: Option<Attached>,
    open: Option<Following>,
    events: VecDeque<Event>,
    /// Why the last link ended, where that is final.
    ended: Option<Detached>,
}

struct Attached {
    node: NodeId,
    link: Link,
    inbox: Inbox,
    /// The open folder is being resumed by this command; events and answers count after it.
    resuming: Option<CommandId>,
}

/// How a message is put into a mailbox.
#[derive(Clone, Debug)]
pub enum MessageKind {
    /// A delivery.
    Deliver {
        /// The reverse-path, empty for null.
        reverse_path: String,
        /// The `+detail`.
        detail: Option<String>,
        /// Whether a repeat is recognised.
        deduplicate: bool,
    },
    /// IMAP APPEND.
    Append {
        /// The folder.
        folder: String,
        /// Its flags.
        flags: mailraft_mailbox::Flags,
        /// Its INTERNALDATE.
        internal_date: mailraft_mailbox::api::ZonedTime,
    },
}

/// A message that is durable on a majority.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// The id under which the result is kept: the given one, unless that was too old.
    pub id: CommandId,
    /// The folder's UIDVALIDITY.
    pub uid_validity: u32,
    /// The message's UID.
    pub uid: u32,
    /// The entry that brought it.
    pub at: Position,
}

#[allow(clippy::large_enum_variant)] // One for each command, on the stack.
enum Work<'a> {
    Plain(Command),
    Message { kind: MessageKind, received: &'a Received },
}

impl MailboxSession {
    /// Not attached yet.
    pub fn new(world: World, mailbox: MailboxId) -> Self {
        let partition = mailbox.partition(world.cluster.partitions());
        let leaders = world.cluster.leaders();
        MailboxSession {
            world,
            mailbox,
            partition,
            leaders,
            attached: None,
            open: None,
            events: VecDeque::new(),
            ended: None,
        }
    }

    /// One command; answered when its effects are visible. Events that came before wait in
    /// [`MailboxSession::take_events`].
    ///
    /// # Errors
    /// The mailbox's refusal, or that no majority answered in time.
    pub async fn ask(&mut self, id: CommandId, command: Command) -> Result<(Answer, Position), Refused> {
        self.work(id, Work::Plain(command)).await.map(|(answer, at, _)| (answer, at))
    }

    /// Puts a message into the mailbox.
    ///
    /// # Errors
    /// As [`MailboxSession::ask`].
    pub async fn store(&mut self, id: CommandId, kind: MessageKind, received: &Received) -> Result<Stored, Refused> {
        match self.work(id, Work::Message { kind, received }).await? {
            (Answer::Stored { uid_validity, uid, modseq: _ }, at, id) => Ok(Stored { id, uid_validity, uid, at }),
            (other, at, id) => {
                tracing::error!(command = %id, %at, ?other, "a delivery was answered with something else");
                Err(Refused::Unknown)
            }
        }
    }

    /// Events since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.hear_what_is_there();
        self.events.drain(..).collect()
    }

    /// Waits until there is an event, attaching again whenever the link breaks. Safe to cancel.
    pub async fn wait_for_event(&mut self) {
        while self.events.is_empty() {
            if self.attached.is_none() && self.attach().await.is_err() {
                let _ = tokio::time::timeout(IDLE_RETRY_PAUSE, self.leaders.changed()).await;
                continue;
            }
            let Some(attached) = self.attached.as_mut() else { continue };
            let node = attached.node;
            tokio::select! {
                message = attached.inbox.next() => {
                    match message {
                        Some((_, message)) => { self.hear(message); }
                        None => self.attached = None,
                    }
                    if self.attached.is_none() && self.events.is_empty() {
                        // The next actor may end at once as well: a mailbox may be damaged, or be no more.
                        let _ = tokio::time::timeout(IDLE_RETRY_PAUSE, self.leaders.changed()).await;
                    }
                }
                changed = self.leaders.changed() => {
                    if changed.is_err() { std::future::pending::<()>().await; }
                    if self.leader().is_some_and(|leader| leader != node) { self.attached = None; }
                }
            }
        }
    }

    /// The answer, where, and the id under which it is kept.
    async fn work(&mut self, mut id: CommandId, work: Work<'_>) -> Result<(Answer, Position, CommandId), Refused> {
        let started = Instant::now();
        let give_up = started + NO_LEADER_MAX;
        // How often this id was sent. Until it was, nothing can have been done under it.
        let mut attempt = 0;
        loop {
            let command = match self.ready(give_up).await {
                Ok(()) => self.command(id, &work).await,
                Err(refused) => return Err(if attempt > 0 { Refused::Unknown } else { refused }),
            };
            if let Some(command) = command {
                let asked = self.attached.as_ref().map(|a| a.link.ask(id, attempt, command));
                match asked {
                    Some(Ok(())) => {
                        attempt += 1;
                        match self.answer(id, started).await {
                            Some((Err(Refused::Overloaded | Refused::BodyLost), _)) => {}
                            Some((Err(Refused::Expired { floor }), _)) if attempt == 1 => {
                                let old = id;
                                id = os_env().command_id_above(floor);
                                attempt = 0;
                                tracing::info!(command = %old, goes_on_as = %id, "the id was too old");
                                continue;
                            }
                            None => {}
                            Some((result, at)) => return result.map(|answer| (answer, at, id)),
                        }
                    }
                    Some(Err(Detached::Overloaded)) if Instant::now() >= give_up => return Err(Refused::Overloaded),
                    Some(Err(_)) => {
                        self.hear_what_is_there();
                        self.attached = None;
                    }
                    None => {}
                }
            } else {
                // A body can't be uploaded to a mailbox that is gone; its actor says so.
                self.hear_what_is_there();
            }
            match self.ended.take() {
                Some(Detached::NoSuchMailbox) => return Err(Refused::NoSuchMailbox),
                Some(Detached::Corrupt) if Instant::now() >= give_up => return Err(Refused::Corrupt),
                // A leader whose rows are damaged hands over.
                Some(Detached::NotLeader | Detached::Gone | Detached::Overloaded | Detached::Corrupt) | None => {}
            }
            if Instant::now() >= give_up {
                return Err(if attempt > 0 { Refused::Unknown } else { Refused::NoQuorum });
            }
            let _ = tokio::time::timeout(RETRY_PAUSE, self.leaders.changed()).await;
        }
    }

    /// Attached, and the open folder resumed.
    async fn ready(&mut self, give_up: Instant) -> Result<(), Refused> {
        loop {
            let failed = match self.attached.as_ref().map(|a| a.resuming) {
                Some(None) => return Ok(()),
                Some(Some(resume)) => {
                    let heard = tokio::time::timeout_at(give_up, self.resumed(resume)).await;
                    match heard {
                        Ok(true) => return Ok(()),
                        Ok(false) | Err(_) => {
                            self.attached = None;
                            self.ended.take().unwrap_or(Detached::Gone)
                        }
                    }
                }
                None => match tokio::time::timeout_at(give_up, self.attach()).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(why)) => why,
                    Err(_) => Detached::NotLeader,
                },
            };
            match failed {
                Detached::NoSuchMailbox => return Err(Refused::NoSuchMailbox),
                Detached::Corrupt if Instant::now() >= give_up => return Err(Refused::Corrupt),
                Detached::Overloaded if Instant::now() >= give_up => return Err(Refused::Overloaded),
                Detached::NotLeader | Detached::Gone if Instant::now() >= give_up => return Err(Refused::NoQuorum),
                Detached::NotLeader | Detached::Gone | Detached::Overloaded | Detached::Corrupt => {}
            }
            let _ = tokio::time::timeout(RETRY_PAUSE, self.leaders.changed()).await;
        }
    }

    /// Attaches to the actor, and asks to resume the open folder.
    async fn attach(&mut self) -> Result<(), Detached> {
        self.ended = None;
        let node = self.leader().ok_or(Detached::NotLeader)?;
        let number = SESSIONS.fetch_add(1, Ordering::Relaxed);
        let (outbox, inbox) = channel(number);
        let link = if node == self.world.cluster.node() {
            let key = SessionKey { connection: 0, session: number };
            Link::Local(self.world.registry.attach(key, self.mailbox, outbox)?)
        } else {
            Link::Remote(self.world.links.attach(node, self.mailbox, outbox).await?)
        };
        let mut resuming = None;
        if let Some(open) = &self.open {
            let id = command_id(&self.world.cluster);
            link.ask(id, 0, open.resume())?;
            resuming = Some(id);
        }
        self.attached = Some(Attached { node, link, inbox, resuming });
        Ok(())
    }

    async fn resumed(&mut self, resume: CommandId) -> bool {
        loop {
            let Some(attached) = self.attached.as_mut() else { return false };
            if attached.resuming != Some(resume) {
                return true;
            }
            match attached.inbox.next().await {
                Some((_, message)) => {
                    self.hear(message);
                }
                None => return false,
            }
        }
    }

    /// Waits for the answer to a command; None if the link broke before it.
    async fn answer(&mut self, id: CommandId, started: Instant) -> Option<(Result<Answer, Refused>, Position)> {
        let mut patience = started + NO_LEADER_MAX;
        loop {
            let attached = self.attached.as_mut()?;
            let node = attached.node;
            tokio::select! {
                biased;
                message = attached.inbox.next() => match message {
                    Some((_, message)) => {
                        if let Some((of, result, at)) = self.hear(message) && of == id {
                            return Some((result, at));
                        }
                    }
                    None => { self.attached = None; return None; }
                },
                changed = self.leaders.changed() => {
                    if changed.is_err() || self.leader().is_some_and(|leader| leader != node) {
                        self.attached = None;
                        return None;
                    }
                }
                () = tokio::time::sleep_until(patience) => {
                    // A slow answer is waited for as long as its node leads, and no longer.
                    if self.leader() != Some(node) || started.elapsed() > ANSWER_MAX {
                        self.attached = None;
                        return None;
                    }
                    patience = Instant::now() + Duration::from_millis(100);
                }
            }
        }
    }

    fn hear_what_is_there(&mut self) {
        while let Some((_, message)) = self.attached.as_mut().and_then(|a| a.inbox.try_next()) {
            self.hear(message);
        }
    }

    /// Takes one message in: keeps events, follows the open folder, returns an answer that is not to a resume.
    fn hear(&mut self, message: ToSession) -> Option<(CommandId, Result<Answer, Refused>, Position)> {
        match message {
            ToSession::Event(event) => {
                self.follow(&event);
                self.events.push_back(event);
                None
            }
            ToSession::Detached(why) => {
                tracing::debug!(mailbox = %self.mailbox, ?why, "detached");
                self.attached = None;
                self.ended = matches!(why, Detached::NoSuchMailbox | Detached::Corrupt).then_some(why);
                None
            }
            ToSession::Answer { id, result, at } => {
                if let Some(attached) = self.attached.as_mut().filter(|a| a.resuming == Some(id)) {
                    attached.resuming = None;
                    self.take_up(id, result);
                    return None;
                }
                if let Ok(Answer::Selected(selected)) = &result {
                    self.open = Some(Following::new(selected));
                }
                Some((id, result, at))
            }
        }
    }

    /// The session closed its folder.
    pub fn close_folder(&mut self) {
        self.open = None;
    }

    fn follow(&mut self, event: &Event) {
        if let Some(open) = self.open.as_mut() {
            open.hear(event);
        }
        self.open.take_if(|open| open.is_gone());
    }

    /// Turns the answer to a resume into the events that were missed.
    fn take_up(&mut self, id: CommandId, result: Result<Answer, Refused>) {
        let Some(open) = self.open.as_mut() else { return };
        match result {
            Ok(Answer::Resumed(resumed)) => self.events.extend(open.resumed(id, resumed)),
            Err(Refused::Mailbox(refusal)) => match open.refused(id, &refusal) {
                Some(event) => self.events.push_back(event),
                None => self.attached = None,
            },
            // Attached again at the next command.
            Ok(_) | Err(_) => self.attached = None,
        }
        self.open.take_if(|open| open.is_gone());
    }

    fn leader(&mut self) -> Option<NodeId> {
        self.leaders.borrow_and_update().get(self.partition.0 as usize).copied().flatten()
    }

    /// The command to send in this attempt. A large body is uploaded first, under a new id and key each time.
    /// None if the upload failed.
    async fn command(&mut self, id: CommandId, work: &Work<'_>) -> Option<Command> {
        let (kind, received) = match work {
            Work::Plain(command) => return Some(command.clone()),
            Work::Message { kind, received } => (kind.clone(), *received),
        };
        let draft = received.seal();
        let draft = if draft.inline.is_some() { draft } else { self.upload(id, draft, received).await? };
        Some(match kind {
            MessageKind::Deliver { reverse_path, detail, deduplicate } => {
                Command::Deliver { draft, reverse_path, detail, deduplicate, received: crate::environment::zoned_now() }
            }
            MessageKind::Append { folder, flags, internal_date } => {
                Command::Append { folder, draft, flags, internal_date }
            }
        })
    }

    async fn upload(&mut self, id: CommandId, draft: Draft, received: &Received) -> Option<Draft> {
        let node = self.attached.as_ref()?.node;
        let lookup = std::sync::Arc::clone(&self.world.lookup);
        let mailbox = self.mailbox;
        let (key, epoch) = tokio::task::spawn_blocking(move || lookup.mailbox_key(mailbox)).await.ok()?.ok()??;
        let key = mailraft_mailbox::MailboxKey::new(key, epoch);
        let body: BodyId = draft.body;
        let mut env = os_env();
        let (cluster, now) = (self.world.cluster.cluster_id(), self.world.cluster.wall());
        let open = mailraft_mailbox::open_body_row(&mut env, &key, cluster, mailbox, body, draft.chunks, now);
        let chunk = |number: u32| UploadChunk {
            mailbox,
            command: id,
            body,
            number,
            open: (number == 0).then(|| open.clone()),
            data: received.seal_chunk(&draft, number),
        };
        let ok = if node == self.world.cluster.node() {
            let mut under_way = VecDeque::new();
            let mut ok = true;
            for number in 0..draft.chunks {
                if under_way.len() == CHUNKS_UNANSWERED_MAX
                    && let Some(first) = under_way.pop_front()
                {
                    let first: ProposedChunk = first;
                    ok &= first.durable().await;
                }
                if !ok {
                    return None;
                }
                under_way.push_back(propose_chunk(&self.world, chunk(number)));
            }
            for rest in under_way {
                ok &= rest.durable().await;
            }
            ok
        } else {
            let stream = self.world.cluster.dial(node, StreamKind::Bodies).await.ok()?;
            let (mut read, mut write) = tokio::io::split(stream);
            let mut answered = 0;
            for number in 0..draft.chunks {
                if (number - answered) as usize == CHUNKS_UNANSWERED_MAX {
                    if !frame::read::<ChunkDone>(&mut read).await.ok()?.ok {
                        return None;
                    }
                    answered += 1;
                }
                frame::write(&mut write, &chunk(number)).await.ok()?;
            }
            while answered < draft.chunks {
                if !frame::read::<ChunkDone>(&mut read).await.ok()?.ok {
                    return None;
                }
                answered += 1;
            }
            true
        };
        ok.then_some(draft)
    }
}
