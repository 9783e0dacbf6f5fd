//! A session's mailbox: the shell around the session's state machine (`node/mailbox/src/session.rs`), which decides
//! when to attach, to ask, to upload and to give up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mailraft_mailbox::api::NewMessage;
use mailraft_mailbox::session::{self, ChunkOutcome, Step};
use mailraft_mailbox::{
    Answer, Command, Detached, Event, Finished, MessageKind, Notice, Once, Position, Request, Unheard, WaitingNotices,
};
use mailraft_storage::{CommandId, Env, MailboxId, NodeId, PartitionId};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::peer::RemoteLink;
use super::source::{MessageSource, Together};
use super::upload::Upload;
use super::{Link, Reach};
use crate::actors::SessionKey;
use crate::environment::{command_id, os_env, refresh};
use crate::memory::AccountShare;
use crate::outbox::{Inbox, ToSession, channel};
use crate::spool::SpooledMessage;

/// A client that leaves is kept so long until the owner of its mailbox knows what it has heard.
const LEAVE_MAX: Duration = Duration::from_secs(1);

static SESSIONS: AtomicU64 = AtomicU64::new(1);

/// A session's mailbox.
pub struct MailboxSession {
    reach: Reach,
    mailbox: MailboxId,
    partition: PartitionId,
    /// Its account's, of what may wait.
    queue: AccountShare,
    leaders: watch::Receiver<Arc<Vec<Option<NodeId>>>>,
    /// The core ended: no more news of leaders come.
    leaders_over: bool,
    env: Env,
    machine: session::Session,
    attaching: Option<Attaching>,
    attached: Option<Attached>,
    /// The messages as they were sealed last.
    sealed: Vec<NewMessage>,
    upload: Option<Upload>,
    events: VecDeque<Event>,
    notices: WaitingNotices,
    finished: Option<(CommandId, Finished)>,
}

struct Attaching {
    number: u64,
    inbox: Inbox,
    /// One task. Dropping it ends it.
    link: JoinSet<Result<RemoteLink, Detached>>,
}

struct Attached {
    number: u64,
    link: Link,
    inbox: Inbox,
}

/// A message that is durable on a majority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// The id under which a message was stored.
pub fn stored_under(stored: &Finished<Stored>) -> Option<CommandId> {
    match stored {
        Finished::Done(stored) => Some(stored.id),
        Finished::NotDone(_) | Finished::Unknown => None,
    }
}

/// Something that the machine is to hear of.
enum News {
    Message(Option<ToSession>),
    Attached(Result<RemoteLink, Detached>),
    Chunk(ChunkOutcome),
    Leaders(bool),
    Due,
}

impl MailboxSession {
    /// Not attached yet.
    pub fn new(reach: Reach, mailbox: MailboxId) -> Self {
        let partition = mailbox.partition(reach.cluster.partitions());
        let leaders = reach.cluster.leaders();
        let queue = reach.queues.of(mailbox);
        MailboxSession {
            reach,
            mailbox,
            partition,
            queue,
            leaders,
            leaders_over: false,
            env: os_env(),
            machine: session::Session::new(),
            attaching: None,
            attached: None,
            sealed: Vec::new(),
            upload: None,
            events: VecDeque::new(),
            notices: WaitingNotices::default(),
            finished: None,
        }
    }

    /// One command; done when its effects are visible. Events that came before wait in
    /// [`MailboxSession::take_events`].
    pub async fn ask(&mut self, id: CommandId, command: Command) -> Finished {
        self.work(id, Request::Command(command), None).await.1
    }

    /// The same for one that is not done again if it repeats what nobody heard the answer to; with the id under which a
    /// result is kept.
    pub async fn ask_once(&mut self, id: CommandId, once: Once, command: Command) -> (CommandId, Finished) {
        self.work(id, Request::Command(Command::Once { once, command: Box::new(command) }), None).await
    }

    /// Puts a message into the mailbox; with `once` not a second time, if it repeats what nobody heard the answer to.
    pub async fn store(
        &mut self,
        id: CommandId,
        kind: MessageKind,
        once: Option<Once>,
        message: &SpooledMessage,
    ) -> Finished<Stored> {
        let (id, finished) = self.put(id, kind, once, message).await;
        match finished {
            Finished::Done((Answer::Stored { uid_validity, uid, modseq: _ }, at)) => {
                Finished::Done(Stored { id, uid_validity, uid, at })
            }
            Finished::Done((other, at)) => {
                tracing::error!(command = %id, %at, ?other, "a delivery was answered with something else");
                Finished::Unknown
            }
            Finished::NotDone(why) => Finished::NotDone(why),
            Finished::Unknown => Finished::Unknown,
        }
    }

    /// Puts a message into the mailbox, whatever kind of mailbox it is; with the id under which a result is kept.
    pub async fn put(
        &mut self,
        id: CommandId,
        kind: MessageKind,
        once: Option<Once>,
        message: &SpooledMessage,
    ) -> (CommandId, Finished) {
        self.work(id, Request::Store { kind, once }, Some(message)).await
    }

    /// Puts several messages into a folder, all or none: its UIDVALIDITY and their UIDs; with the id under which a result
    /// is kept.
    pub async fn append_many(
        &mut self,
        id: CommandId,
        kind: MessageKind,
        once: Option<Once>,
        messages: &[SpooledMessage],
    ) -> (CommandId, Finished<(u32, Vec<u32>)>) {
        let (id, finished) = self.work(id, Request::Store { kind, once }, Some(&Together(messages))).await;
        let finished = match finished {
            Finished::Done((Answer::Appended { uid_validity, uids }, _)) => Finished::Done((uid_validity, uids)),
            Finished::Done((other, at)) => {
                tracing::error!(command = %id, %at, ?other, "an append was answered with something else");
                Finished::Unknown
            }
            Finished::NotDone(why) => Finished::NotDone(why),
            Finished::Unknown => Finished::Unknown,
        };
        (id, finished)
    }

    /// Puts a message of a queue into the mailbox.
    pub async fn store_queued(&mut self, id: CommandId, kind: MessageKind, message: &dyn MessageSource) -> Finished {
        self.work(id, Request::Store { kind, once: None }, Some(message)).await.1
    }

    /// Tells the mailbox's owner what the client has heard. What can't be told now waits.
    pub fn tell_heard(&mut self, unheard: &mut Unheard) {
        self.tell(None, |machine, env, out| unheard.tell(machine, env, out));
    }

    /// The same at the session's end: returns when the owner knows it, or after [`LEAVE_MAX`].
    pub async fn leave(&mut self, unheard: &mut Unheard) {
        let known = async {
            while !unheard.is_settled() {
                self.tell_heard(unheard);
                // What was asked after it is answered after it, by an owner that still leads.
                let (_, asked) =
                    self.work(command_id(&self.reach.cluster), Request::Command(Command::Sync), None).await;
                if unheard.is_told(&self.machine) || !matches!(asked, Finished::Done(_)) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(LEAVE_MAX, known).await;
    }

    /// Events since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.hear_what_is_there();
        self.events.drain(..).collect()
    }

    /// Notices since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        self.hear_what_is_there();
        self.notices.take()
    }

    /// Waits until there is an event or a notice, attaching again whenever the link breaks. Safe to cancel.
    pub async fn wait_for_event(&mut self) {
        self.hear_of_leader(None);
        self.tell(None, |machine, env, out| machine.listen(env, true, out));
        while self.events.is_empty() && self.notices.is_empty() {
            self.next(None).await;
        }
    }

    /// Waits until the mailbox's owner is another one than was asked last, or that can be asked. Safe to cancel.
    pub async fn wait_for_another_owner(&mut self) {
        self.hear_of_leader(None);
        while self.attached.is_some() || self.leader().is_none() {
            self.next(None).await;
        }
    }

    /// The session closed its folder.
    pub fn close_folder(&mut self) {
        self.machine.close_folder();
    }

    fn hear_what_is_there(&mut self) {
        while let Some((_, message)) = self.attached.as_mut().and_then(|attached| attached.inbox.try_next()) {
            self.hear_message(Some(message), None);
        }
    }

    /// How the command ended, and the id under which a result is kept.
    async fn work(
        &mut self,
        id: CommandId,
        request: Request,
        message: Option<&dyn MessageSource>,
    ) -> (CommandId, Finished) {
        // Whoever asked before may have been cancelled.
        self.tell(None, |machine, _, out| machine.abandon(out));
        self.finished = None;
        self.hear_of_leader(message);
        self.tell(message, |machine, env, out| machine.begin(env, id, request, out));
        loop {
            if let Some(finished) = self.finished.take() {
                return finished;
            }
            self.next(message).await;
        }
    }

    /// Waits for the next thing to happen and tells the machine. Safe to cancel: what happened is told before anything
    /// else is waited for.
    async fn next(&mut self, message: Option<&dyn MessageSource>) {
        refresh(&mut self.env, &self.reach.cluster);
        let due = self.machine.wakes_at().map(|at| at.saturating_sub(self.env.now));
        let news = tokio::select! {
            biased;
            message = next_message(&mut self.attached) => News::Message(message),
            link = made(&mut self.attaching) => News::Attached(link),
            outcome = next_chunk(&mut self.upload) => News::Chunk(outcome),
            changed = self.leaders.changed(), if !self.leaders_over => News::Leaders(changed.is_ok()),
            () = after(due) => News::Due,
        };
        match news {
            News::Message(heard) => self.hear_message(heard, message),
            News::Attached(link) => self.hear_of_link(link, message),
            News::Chunk(outcome) => {
                let Some(body) = self.upload.as_ref().map(Upload::body) else { return };
                self.tell(message, |machine, env, out| machine.chunk_done(env, body, outcome, out));
            }
            News::Leaders(true) => self.hear_of_leader(message),
            News::Leaders(false) => {
                self.leaders_over = true;
                self.tell(message, |machine, env, out| machine.leader(env, None, out));
            }
            News::Due => self.tell(message, session::Session::due),
        }
    }

    /// Who leads the mailbox's partition, as this node knows.
    fn leader(&mut self) -> Option<NodeId> {
        match self.leaders_over {
            false => self.leaders.borrow_and_update().get(self.partition.0 as usize).copied().flatten(),
            true => None,
        }
    }

    fn hear_of_leader(&mut self, message: Option<&dyn MessageSource>) {
        let leader = self.leader();
        self.tell(message, |machine, env, out| machine.leader(env, leader, out));
    }

    fn hear_of_link(&mut self, link: Result<RemoteLink, Detached>, message: Option<&dyn MessageSource>) {
        let Some(Attaching { number, inbox, .. }) = self.attaching.take() else { return };
        match link {
            Ok(link) => {
                self.attached = Some(Attached { number, link: Link::Remote(link), inbox });
                self.tell(message, |machine, env, out| machine.attached(env, number, out));
            }
            Err(why) => self.tell(message, |machine, env, out| machine.detached(env, number, why, out)),
        }
    }

    /// A message of the owner; None where the link broke.
    fn hear_message(&mut self, heard: Option<ToSession>, message: Option<&dyn MessageSource>) {
        let Some(link) = self.attached.as_ref().map(|attached| attached.number) else { return };
        match heard {
            Some(ToSession::Event(event)) => {
                let event = Arc::unwrap_or_clone(event);
                self.tell(message, |machine, _, out| machine.event(link, event, out));
            }
            Some(ToSession::Notice(notice)) => {
                self.tell(message, |machine, _, out| machine.notice(link, notice, out));
            }
            Some(ToSession::Answer { id, result, at }) => {
                self.tell(message, |machine, env, out| machine.answered(env, link, id, result, at, out));
            }
            Some(ToSession::Failed { id, error }) => {
                self.tell(message, |machine, env, out| machine.failed(env, link, id, error, out));
            }
            Some(ToSession::Detached(why)) => {
                tracing::debug!(mailbox = %self.mailbox, ?why, "detached");
                self.tell(message, |machine, env, out| machine.detached(env, link, why, out));
            }
            None => self.tell(message, |machine, env, out| machine.detached(env, link, Detached::Gone, out)),
        }
    }

    /// Lets the machine do something, and carries out what it wants done.
    fn tell(
        &mut self,
        message: Option<&dyn MessageSource>,
        act: impl FnOnce(&mut session::Session, &mut Env, &mut Vec<Step>),
    ) {
        refresh(&mut self.env, &self.reach.cluster);
        let mut steps = Vec::new();
        act(&mut self.machine, &mut self.env, &mut steps);
        for step in steps {
            self.carry_out(step, message);
        }
    }

    fn carry_out(&mut self, step: Step, message: Option<&dyn MessageSource>) {
        match step {
            Step::Attach { link, node } => self.attach(link, node, message),
            Step::Detach { link } => {
                self.attaching.take_if(|attaching| attaching.number == link);
                self.attached.take_if(|attached| attached.number == link);
            }
            Step::Ask { link, id, attempt, command } => {
                let Some(attached) = self.attached.as_ref().filter(|attached| attached.number == link) else { return };
                let Err(why) = attached.link.ask(id, attempt, *command) else { return };
                self.machine.not_sent(link);
                // What is there already may say more of it.
                while let Some((_, heard)) = self.attached.as_mut().and_then(|attached| attached.inbox.try_next()) {
                    self.hear_message(Some(heard), message);
                }
                self.tell(message, |machine, env, out| machine.detached(env, link, why, out));
            }
            Step::Seal => {
                let Some(message) = message else { return };
                let sealed = message.seal();
                self.sealed.clone_from(&sealed);
                self.tell(Some(message), |machine, env, out| machine.sealed(env, sealed, out));
            }
            Step::SendChunk { node, id, body, number } => {
                let Some(place) = self.sealed.iter().position(|sealed| sealed.body == body) else { return };
                let (Some(source), sealed) = (message, &self.sealed[place]) else { return };
                let Some(chunk) = source.chunk(place, sealed, number) else {
                    self.sealed.clear();
                    let lost = ChunkOutcome::NotDurable;
                    return self.tell(message, |machine, env, out| machine.chunk_done(env, body, lost, out));
                };
                let upload = match self.upload.take_if(|upload| upload.body() == body) {
                    Some(upload) => upload,
                    None => Upload::begin(&self.reach, node, self.mailbox, id, sealed),
                };
                upload.send(number, chunk);
                self.upload = Some(upload);
            }
            Step::EndUpload { body } => {
                self.upload.take_if(|upload| upload.body() == body);
            }
            Step::Notice(notice) => self.notices.push(notice),
            Step::Event(event) | Step::FolderGone(event) => self.events.push_back(event),
            Step::Resumed { folder: _, since: _, resumed: _, missed } => self.events.extend(missed),
            Step::GoesOnAs { old, new } => {
                tracing::info!(command = %old, goes_on_as = %new, "the id was too old");
            }
            Step::Finished { id, asked: _, finished } => self.finished = Some((id, finished)),
        }
    }

    fn attach(&mut self, number: u64, node: NodeId, message: Option<&dyn MessageSource>) {
        let session = SESSIONS.fetch_add(1, Ordering::Relaxed);
        let (outbox, inbox) = channel(session, self.queue.clone());
        if node == self.reach.cluster.node() {
            let key = SessionKey { connection: 0, session };
            match self.reach.registry.attach(key, self.mailbox, outbox) {
                Ok(link) => {
                    self.attached = Some(Attached { number, link: Link::Local(link), inbox });
                    self.tell(message, |machine, env, out| machine.attached(env, number, out));
                }
                Err(why) => self.tell(message, |machine, env, out| machine.detached(env, number, why, out)),
            }
        } else {
            let (links, mailbox) = (Arc::clone(&self.reach.links), self.mailbox);
            let mut link = JoinSet::new();
            link.spawn(async move { links.attach(node, mailbox, outbox).await });
            self.attaching = Some(Attaching { number, inbox, link });
        }
    }
}

async fn next_message(attached: &mut Option<Attached>) -> Option<ToSession> {
    match attached {
        Some(attached) => attached.inbox.next().await.map(|(_, message)| message),
        None => std::future::pending().await,
    }
}

async fn made(attaching: &mut Option<Attaching>) -> Result<RemoteLink, Detached> {
    match attaching {
        Some(attaching) => match attaching.link.join_next().await {
            Some(Ok(made)) => made,
            Some(Err(_)) | None => Err(Detached::Gone),
        },
        None => std::future::pending().await,
    }
}

async fn next_chunk(upload: &mut Option<Upload>) -> ChunkOutcome {
    match upload {
        Some(upload) => upload.done().await,
        None => std::future::pending().await,
    }
}

async fn after(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
