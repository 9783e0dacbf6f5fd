//! A session's way to its mailbox: one command at a time, wherever the mailbox's owner is, through failovers. It decides
//! when to attach, what to ask under which id and attempt, when to upload a body anew, and when to give up. A server's
//! sessions, or a simulator's, are the thin shell around it: they carry [`Step`]s out and report what became of them.
//!
//! A command keeps its id through all attempts, so that it is done once. What of it may still happen is told by type:
//! [`Finished`].

use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use mailraft_storage::body::BodyId;
use mailraft_storage::{CommandId, Env, NodeId};

use crate::api::{Answer, Command, Event, FolderId, NewMessage, Refusal, Resumed};
pub use crate::busy::{ANSWER_MAX, IN_DOUBT_MAX, NO_LEADER_MAX};
use crate::busy::{Busy, Doing};
use crate::folders::Watching;
use crate::following::Following;
use crate::notice::{FolderNews, Notice};
use mailraft_owner::Detached;

use crate::reply::CommandError;
use crate::request::{Finished, NotDone, Position, Request};
pub use crate::upload::ChunkOutcome;
use crate::upload::Upload;

/// Chunks of one upload that may be under way.
pub const CHUNKS_UNANSWERED_MAX: usize = 8;
/// Between looks whether the node that owes a slow answer still leads.
const PATIENCE_PAUSE: Duration = Duration::from_millis(100);
/// Between attempts, unless news of a leader come earlier.
const RETRY_PAUSE: Duration = Duration::from_millis(15);
/// Between attempts of a session that only listens, unless news of a leader come earlier.
const IDLE_RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Something for the shell to do. Steps are carried out in their order.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // Made, carried out and gone.
pub enum Step {
    /// Attach to the mailbox's owner on this node; then say [`Session::attached`] or [`Session::detached`].
    Attach {
        /// Names the way to the owner in this session; what comes over it is reported under this number.
        link: u64,
        /// The node.
        node: NodeId,
    },
    /// The link is given up: nothing that comes over it counts any more.
    Detach {
        /// The link.
        link: u64,
    },
    /// Ask the owner. If it can't be handed over, say [`Session::not_sent`] and then [`Session::detached`].
    Ask {
        /// The link to ask over.
        link: u64,
        /// The command's id.
        id: CommandId,
        /// 0 the first time that something is asked under this id.
        attempt: u32,
        /// The command.
        command: Box<Command>,
    },
    /// Seal each message under a body id and a key that were never used; then say [`Session::sealed`].
    Seal,
    /// Send a chunk of one of the messages that were sealed last to a node, for its partition's log; then say
    /// [`Session::chunk_done`]. Chunks are proposed in the order of their numbers.
    SendChunk {
        /// The node.
        node: NodeId,
        /// The command that the body is for.
        id: CommandId,
        /// The body.
        body: BodyId,
        /// The chunk's number.
        number: u32,
    },
    /// No more chunks of this body are sent, and none is waited for.
    EndUpload {
        /// The body.
        body: BodyId,
    },
    /// Something changed in the open folder.
    Event(Event),
    /// Something changed in a folder that is not open, or in the list of folders.
    Notice(Notice),
    /// The open folder was resumed at another owner.
    Resumed {
        /// The folder.
        folder: FolderId,
        /// The MODSEQ that the session knew.
        since: u64,
        /// What the owner answered.
        resumed: Resumed,
        /// The same as events that were missed.
        missed: Vec<Event>,
    },
    /// The open folder could not be resumed: it is no more, as this event says.
    FolderGone(Event),
    /// Nothing was done under the command's id, which is too old: it goes on under another.
    GoesOnAs {
        /// The old id.
        old: CommandId,
        /// The id from now on.
        new: CommandId,
    },
    /// The command has ended; the session may begin the next.
    Finished {
        /// Its id, under which a result is kept.
        id: CommandId,
        /// How often it was asked under that id.
        asked: u32,
        /// How it ended.
        finished: Finished,
    },
}

/// One session's mailbox.
pub struct Session {
    /// Who leads the mailbox's partition, as this node knows.
    leader: Option<NodeId>,
    link: Option<Link>,
    /// Links there were.
    links: u64,
    following: Option<Following>,
    watching: Watching,
    /// It wants events though it asks nothing.
    listening: bool,
    /// Nothing is tried again before.
    pause_until: Duration,
    busy: Option<Busy>,
    sent: Option<Sent>,
}

struct Link {
    number: u64,
    node: NodeId,
    stage: LinkStage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkStage {
    Attaching,
    /// The open folder is being resumed by this command, from this MODSEQ on. Commands wait for that.
    Resuming(CommandId, u64),
    /// This command has the session watch folders again, as it did at the owner before. Commands wait for that.
    Watching(CommandId),
    Ready,
}

/// What was asked last: an id names one command, and its attempts are counted.
struct Sent {
    id: CommandId,
    command: Discriminant<Command>,
    attempts: u32,
}

impl Session {
    /// Not attached. The shell tells at once and from then on who leads.
    pub fn new() -> Self {
        Session {
            leader: None,
            link: None,
            links: 0,
            following: None,
            watching: Watching::Nothing,
            listening: false,
            pause_until: Duration::ZERO,
            busy: None,
            sent: None,
        }
    }

    /// Begins a command. Its end comes as [`Step::Finished`]. From then on the session listens only while it is busy,
    /// until [`Session::listen`].
    ///
    /// # Panics
    /// If one is under way, or if the id is that of the one before.
    pub fn begin(&mut self, env: &mut Env, id: CommandId, request: Request, out: &mut Vec<Step>) {
        assert!(self.busy.is_none(), "a session does one thing at a time");
        assert!(self.sent.as_ref().is_none_or(|s| s.id != id), "an id names one command");
        (self.listening, self.pause_until) = (false, env.now);
        self.busy = Some(Busy::new(id, request, env.now));
        self.go(env, out);
    }

    /// Whoever began the command waits for it no more; what it asked may still be done.
    pub fn abandon(&mut self, out: &mut Vec<Step>) {
        if self.busy.is_some() {
            self.lose_link(false, out);
            self.busy = None;
        }
    }

    /// Whether events are wanted while nothing is asked: then the session attaches whenever its link breaks.
    pub fn listen(&mut self, env: &mut Env, listening: bool, out: &mut Vec<Step>) {
        self.listening = listening;
        self.go(env, out);
    }

    /// Leaves the mailbox.
    ///
    /// # Panics
    /// If a command is under way.
    pub fn leave(&mut self, out: &mut Vec<Step>) {
        assert!(self.busy.is_none(), "a session that leaves waits for nothing");
        (self.listening, self.following, self.watching) = (false, None, Watching::Nothing);
        self.lose_link(false, out);
    }

    /// The client closed its folder, or opens another.
    pub fn close_folder(&mut self) {
        self.following = None;
    }

    /// The client has heard the answers to these commands: the owner is told, so that it may ask for the same again. It
    /// does not answer.
    ///
    /// # Panics
    /// If the session is not attached.
    pub(crate) fn heard(&mut self, env: &mut Env, commands: Vec<CommandId>, out: &mut Vec<Step>) {
        let link = self.link.as_ref().filter(|link| link.stage == LinkStage::Ready);
        let Some(link) = link else { panic!("there is an owner to be told") };
        let command = Box::new(Command::Heard { commands });
        out.push(Step::Ask { link: link.number, id: env.command_id(), attempt: 0, command });
    }

    /// Who leads the mailbox's partition, as this node knows. News end a pause.
    pub fn leader(&mut self, env: &mut Env, leader: Option<NodeId>, out: &mut Vec<Step>) {
        if self.leader == leader {
            return;
        }
        if self.is_served()
            && let Some(busy) = self.busy.as_mut()
        {
            busy.served_until = env.now;
        }
        self.leader = leader;
        if let Some(leader) = leader {
            self.pause_until = env.now;
            if self.link.as_ref().is_some_and(|link| link.node != leader) {
                self.lose_link(false, out);
            }
        }
        self.go(env, out);
    }

    /// The link is made.
    pub fn attached(&mut self, env: &mut Env, link: u64, out: &mut Vec<Step>) {
        let Some(link) = self.link.as_mut().filter(|l| l.number == link && l.stage == LinkStage::Attaching) else {
            return;
        };
        link.stage = LinkStage::Ready;
        if let Some(following) = &self.following {
            let id = env.command_id();
            let known = [self.sent.as_ref().map(|s| s.id), self.busy.as_ref().map(|b| b.id)];
            assert!(!known.contains(&Some(id)), "an id names one command");
            link.stage = LinkStage::Resuming(id, following.modseq());
            let (link, command) = (link.number, Box::new(following.resume()));
            out.push(Step::Ask { link, id, attempt: 0, command });
        }
        self.watch_again(env, out);
    }

    /// The link could not be made, or is over.
    pub fn detached(&mut self, env: &mut Env, link: u64, why: Detached, out: &mut Vec<Step>) {
        if !self.is_link(link) {
            return;
        }
        // An owner says these instead of beginning to do anything.
        let nothing_done = match why {
            Detached::NoSuchMailbox | Detached::Corrupt | Detached::Overloaded | Detached::NotConfirmed => true,
            Detached::NotLeader | Detached::Gone => false,
        };
        self.lose_link(nothing_done, out);
        match why {
            Detached::NoSuchMailbox if self.busy.is_some() => {
                self.finish(Finished::NotDone(NotDone::NoSuchMailbox), out);
            }
            Detached::NoSuchMailbox | Detached::NotLeader | Detached::Gone => {
                self.try_later(env, NotDone::NoQuorum, out);
            }
            Detached::Overloaded => self.try_later(env, NotDone::Overloaded, out),
            // A leader whose rows are damaged hands over.
            Detached::Corrupt => self.try_later(env, NotDone::Corrupt, out),
            Detached::NotConfirmed => self.try_later(env, NotDone::NotConfirmed, out),
        }
    }

    /// What was to be asked over this link could not be handed over: it was not asked.
    pub fn not_sent(&mut self, link: u64) {
        if !self.is_ready(link) {
            return;
        }
        let Some(busy) = self.busy.as_mut().filter(|b| matches!(b.doing, Doing::Asked)) else { return };
        busy.doing = Doing::Waiting;
        busy.asked -= 1;
        if let Some(sent) = self.sent.as_mut() {
            sent.attempts -= 1;
        }
    }

    /// Something changed in a folder. What is not about the open one is an echo of one that was closed: who watches folders
    /// hears of it as of any other, as its owner takes it for open.
    pub fn event(&mut self, link: u64, event: Event, out: &mut Vec<Step>) {
        if !self.is_link(link) {
            return;
        }
        let Some(following) = self.following.as_mut().filter(|f| f.folder() == event.folder) else {
            let Some(news) = FolderNews::of(&event) else { return };
            let is_own = self.sent.as_ref().is_some_and(|sent| sent.id == event.origin);
            return self.notice(link, if is_own { Notice::Own(news) } else { Notice::OfOthers(news) }, out);
        };
        following.hear(&event);
        self.following.take_if(|following| following.is_gone());
        out.push(Step::Event(event));
    }

    /// Something changed in a folder that is not open, or in the list of folders.
    pub fn notice(&self, link: u64, notice: Notice, out: &mut Vec<Step>) {
        if self.is_link(link) && self.watching == Watching::Folders {
            out.push(Step::Notice(notice));
        }
    }

    /// The mailbox answered. An answer that nobody waits for is dropped.
    pub fn answered(
        &mut self,
        env: &mut Env,
        link: u64,
        id: CommandId,
        result: Result<Answer, Refusal>,
        at: Position,
        out: &mut Vec<Step>,
    ) {
        match self.stage_ends(link, id) {
            Some(LinkStage::Resuming(_, since)) => return self.resumed(env, id, since, result, out),
            Some(LinkStage::Watching(_)) => {
                out.push(Step::Notice(Notice::Anew));
                return self.go(env, out);
            }
            Some(LinkStage::Attaching | LinkStage::Ready) | None => {}
        }
        if self.take_asked(link, id).is_none() {
            return;
        }
        match result {
            Ok(answer) => {
                if let Answer::Selected(selected) = &answer {
                    self.following = Some(Following::new(selected));
                }
                match &self.busy {
                    Some(Busy { request: Request::Command(Command::Watch { what }), .. }) => self.watching = *what,
                    Some(Busy { request: Request::Command(Command::List), .. }) => {
                        self.notice(link, Notice::ListIsHere, out);
                    }
                    Some(_) | None => {}
                }
                self.finish(Finished::Done((answer, at)), out);
            }
            Err(refusal) => self.finish(Finished::NotDone(NotDone::Refused(refusal)), out),
        }
    }

    /// The owner has no answer. What nobody waits for is dropped.
    pub fn failed(&mut self, env: &mut Env, link: u64, id: CommandId, error: CommandError, out: &mut Vec<Step>) {
        match self.stage_ends(link, id) {
            // It hears nothing of other folders until its mailbox has an owner that knows this.
            Some(LinkStage::Watching(_)) if error == CommandError::Unsupported => return self.go(env, out),
            Some(_) => return self.resume_failed(env, error, out),
            None => {}
        }
        let Some(busy) = self.take_asked(link, id) else { return };
        match error {
            CommandError::Overloaded => self.try_later(env, NotDone::Overloaded, out),
            CommandError::BodyLost => self.try_later(env, NotDone::BodyLost, out),
            CommandError::Unsupported => self.try_later(env, NotDone::Unsupported, out),
            CommandError::Corrupt => {
                busy.why = NotDone::Corrupt;
                self.give_up(out);
            }
            // It was waited for long enough before anybody was refused.
            CommandError::NotConfirmed => {
                busy.why = NotDone::NotConfirmed;
                self.give_up(out);
            }
            CommandError::Expired { floor } if busy.asked == 1 && env.now <= busy.started + ANSWER_MAX => {
                // Nothing was done under that id: the same once more, under one that is not too old. The client has
                // been waiting since it began, so this is no new command: its patience goes on from there.
                let old = std::mem::replace(&mut busy.id, env.command_id_above(floor));
                busy.asked = 0;
                out.push(Step::GoesOnAs { old, new: busy.id });
                self.go(env, out);
            }
            CommandError::Expired { .. } => {
                busy.why = NotDone::Expired;
                self.give_up(out);
            }
            // What changes nothing is never in doubt.
            CommandError::Unknown if busy.request.is_read() => {
                self.finish(Finished::NotDone(NotDone::NoQuorum), out);
            }
            CommandError::Unknown => self.finish(Finished::Unknown, out),
        }
    }

    /// The messages are sealed: those that fit go with the command, and the others are uploaded before it.
    ///
    /// # Panics
    /// If they are not as many as are to be stored.
    pub fn sealed(&mut self, env: &mut Env, messages: Vec<NewMessage>, out: &mut Vec<Step>) {
        let Some(busy) = self.busy.as_mut().filter(|b| matches!(b.doing, Doing::Sealing)) else { return };
        let upload = Upload::new(messages);
        if upload.current().is_none() {
            return self.ask_to_store(env, upload.messages(), out);
        }
        busy.doing = Doing::Uploading(Box::new(upload));
        self.send_chunks(out);
    }

    /// What became of a chunk.
    pub fn chunk_done(&mut self, env: &mut Env, body: BodyId, outcome: ChunkOutcome, out: &mut Vec<Step>) {
        let Some(busy) = self.busy.as_mut() else { return };
        let Doing::Uploading(upload) = &mut busy.doing else { return };
        if upload.current().is_none_or(|message| message.body != body) {
            return;
        }
        match outcome {
            ChunkOutcome::Durable => {}
            ChunkOutcome::NotDurable => {
                busy.doing = Doing::Waiting;
                out.push(Step::EndUpload { body });
                return self.try_later(env, NotDone::NoQuorum, out);
            }
            ChunkOutcome::NotConfirmed => {
                busy.doing = Doing::Waiting;
                busy.why = NotDone::NotConfirmed;
                out.push(Step::EndUpload { body });
                return self.give_up(out);
            }
        }
        if !upload.is_whole_with_one_more() {
            return self.send_chunks(out);
        }
        out.push(Step::EndUpload { body });
        if upload.current().is_some() {
            return self.send_chunks(out);
        }
        let messages = upload.messages();
        self.ask_to_store(env, messages, out);
    }

    /// The moment of [`Session::wakes_at`] has come.
    pub fn due(&mut self, env: &mut Env, out: &mut Vec<Step>) {
        let is_served = self.is_served();
        let Some(busy) = self.busy.as_mut() else { return self.go(env, out) };
        let is_early = env.now < busy.started + ANSWER_MAX;
        match busy.doing {
            // Its owner is there, and loads the mailbox, say: it is told, but can't begin yet.
            Doing::Waiting if env.now >= busy.gives_up_at() && is_served && is_early => busy.served_until = env.now,
            Doing::Waiting | Doing::Sealing if env.now >= busy.gives_up_at() => {
                if is_served {
                    busy.is_refused(NotDone::Overloaded);
                }
                if self.link.as_ref().is_some_and(|link| link.stage != LinkStage::Ready) {
                    self.lose_link(false, out);
                }
                self.give_up(out);
            }
            Doing::Waiting | Doing::Sealing => self.go(env, out),
            Doing::Uploading(_) | Doing::Asked if env.now >= busy.started + NO_LEADER_MAX => {
                if is_served && is_early {
                    busy.served_until = env.now;
                }
                // If it leads no more, as far as is known here, it may have the answer to what would be in doubt without it.
                if env.now < busy.gives_up_at() {
                    busy.patience = env.now + PATIENCE_PAUSE;
                } else {
                    self.lose_link(false, out);
                    self.give_up(out);
                }
            }
            Doing::Uploading(_) | Doing::Asked => {}
        }
    }

    /// When to call [`Session::due`], by the clock of [`Env::now`]. To be asked again after every other call.
    pub fn wakes_at(&self) -> Option<Duration> {
        let can_go = match &self.link {
            None => self.leader.is_some(),
            Some(link) => link.stage == LinkStage::Ready,
        };
        match &self.busy {
            Some(busy) => {
                let give_up = busy.gives_up_at();
                Some(match busy.doing {
                    Doing::Waiting if can_go => give_up.min(self.pause_until.max(busy.seals_at)),
                    Doing::Waiting | Doing::Sealing => give_up,
                    Doing::Uploading(_) | Doing::Asked => busy.patience,
                })
            }
            None => (self.listening && self.link.is_none() && can_go).then_some(self.pause_until),
        }
    }

    /// Whether a command is under way.
    pub fn is_busy(&self) -> bool {
        self.busy.is_some()
    }

    /// The id of the command that is under way, if it was asked under it and may have been done.
    pub fn asked(&self) -> Option<CommandId> {
        self.busy.as_ref().filter(|busy| busy.asked > 0).map(|busy| busy.id)
    }

    /// How many chunks of the upload that is under way are durable.
    pub fn chunks_durable(&self) -> Option<u32> {
        match &self.busy.as_ref()?.doing {
            Doing::Uploading(upload) => Some(upload.durable()),
            Doing::Waiting | Doing::Sealing | Doing::Asked => None,
        }
    }

    /// The open folder, as far as it was told.
    pub fn following(&self) -> Option<&Following> {
        self.following.as_ref()
    }

    /// The node and the number of the link.
    pub fn link(&self) -> Option<(NodeId, u64)> {
        self.link.as_ref().map(|link| (link.node, link.number))
    }

    /// Whether the session is attached and its open folder, if there is one, resumed.
    pub fn is_attached(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.stage == LinkStage::Ready)
    }

    /// Does what can be done next.
    fn go(&mut self, env: &mut Env, out: &mut Vec<Step>) {
        if self.busy.is_none() && !self.listening || env.now < self.pause_until {
            return;
        }
        match (&self.link, self.leader) {
            (None, None) => {}
            (None, Some(node)) => {
                self.links += 1;
                self.link = Some(Link { number: self.links, node, stage: LinkStage::Attaching });
                out.push(Step::Attach { link: self.links, node });
            }
            (Some(link), _) if link.stage != LinkStage::Ready => {}
            (Some(_), _) => {
                let Some(busy) = self.busy.as_mut().filter(|b| matches!(b.doing, Doing::Waiting)) else { return };
                match &busy.request {
                    Request::Command(command) => {
                        let command = command.clone();
                        self.ask(env, command, out);
                    }
                    Request::Store { .. } => {
                        busy.count_upload(env.now);
                        if env.now < busy.seals_at {
                            return;
                        }
                        busy.doing = Doing::Sealing;
                        out.push(Step::Seal);
                    }
                }
            }
        }
    }

    fn ask_to_store(&mut self, env: &mut Env, messages: Vec<NewMessage>, out: &mut Vec<Step>) {
        let Some(Busy { request: Request::Store { kind, once }, .. }) = &self.busy else { return };
        let (once, command) = (once.clone(), kind.clone().command(messages));
        let command = match once {
            Some(once) => Command::Once { once, command: Box::new(command) },
            None => command,
        };
        self.ask(env, command, out);
    }

    fn ask(&mut self, env: &Env, command: Command, out: &mut Vec<Step>) {
        let Some(link) = self.link.as_ref().filter(|link| link.stage == LinkStage::Ready) else { return };
        let Some(busy) = self.busy.as_mut() else { return };
        assert!(!matches!(busy.doing, Doing::Asked), "one question waits for an answer at a time");
        let kind = discriminant(&command);
        let earlier = self.sent.take().filter(|sent| sent.id == busy.id);
        assert!(earlier.as_ref().is_none_or(|sent| sent.command == kind), "an id names one command");
        assert_eq!(earlier.map_or(0, |sent| sent.attempts), busy.asked, "attempts are counted from 0 and rise");
        self.sent = Some(Sent { id: busy.id, command: kind, attempts: busy.asked + 1 });
        out.push(Step::Ask { link: link.number, id: busy.id, attempt: busy.asked, command: Box::new(command) });
        busy.asked += 1;
        busy.doing = Doing::Asked;
        busy.patience = env.now.max(busy.started + NO_LEADER_MAX);
    }

    fn send_chunks(&mut self, out: &mut Vec<Step>) {
        let Some(link) = &self.link else { return };
        let Some(busy) = self.busy.as_mut() else { return };
        let Doing::Uploading(upload) = &mut busy.doing else { return };
        busy.patience = busy.patience.max(busy.started + NO_LEADER_MAX);
        while let (Some(body), Some(number)) =
            (upload.current().map(|message| message.body), upload.next_chunk(CHUNKS_UNANSWERED_MAX))
        {
            out.push(Step::SendChunk { node: link.node, id: busy.id, body, number });
            busy.chunks_sent += 1;
        }
    }

    /// The command under way if this link's owner was asked it under this id: it is no longer waited for there.
    fn take_asked(&mut self, link: u64, id: CommandId) -> Option<&mut Busy> {
        if !self.is_ready(link) {
            return None;
        }
        let busy = self.busy.as_mut().filter(|b| b.id == id && matches!(b.doing, Doing::Asked))?;
        busy.doing = Doing::Waiting;
        Some(busy)
    }

    /// The stage that the link was in, if this is the id of what was asked for that: it is ready from here on.
    fn stage_ends(&mut self, link: u64, id: CommandId) -> Option<LinkStage> {
        let link = self.link.as_mut().filter(|l| l.number == link)?;
        let (LinkStage::Resuming(asked, _) | LinkStage::Watching(asked)) = link.stage else { return None };
        (asked == id).then(|| std::mem::replace(&mut link.stage, LinkStage::Ready))
    }

    /// Has a new link's owner tell of all folders, if the one before did, and goes on.
    fn watch_again(&mut self, env: &mut Env, out: &mut Vec<Step>) {
        if let Some(link) = self.link.as_mut().filter(|link| link.stage == LinkStage::Ready)
            && self.watching == Watching::Folders
        {
            let (id, command) = (env.command_id(), Box::new(Command::Watch { what: self.watching }));
            link.stage = LinkStage::Watching(id);
            out.push(Step::Ask { link: link.number, id, attempt: 0, command });
        }
        self.go(env, out);
    }

    fn resumed(
        &mut self,
        env: &mut Env,
        id: CommandId,
        since: u64,
        result: Result<Answer, Refusal>,
        out: &mut Vec<Step>,
    ) {
        // Where the client closed it meanwhile, nobody wants to know.
        if let Some(following) = self.following.as_mut() {
            let step = match result {
                Ok(Answer::Resumed(resumed)) => {
                    let missed = following.resumed(id, resumed.clone());
                    Some(Step::Resumed { folder: following.folder(), since, resumed, missed })
                }
                // Nothing else answers a resume.
                Ok(_) => None,
                Err(refusal) => following.refused(id, &refusal).map(Step::FolderGone),
            };
            self.following.take_if(|following| following.is_gone());
            let Some(step) = step else { return self.resume_failed(env, CommandError::Unknown, out) };
            out.push(step);
        }
        self.watch_again(env, out);
    }

    /// The folder is resumed, and watched anew, at another link, or at the same owner after a while.
    fn resume_failed(&mut self, env: &mut Env, error: CommandError, out: &mut Vec<Step>) {
        if self.following.is_none() && self.watching == Watching::Nothing {
            return self.go(env, out);
        }
        let why = match error {
            CommandError::Overloaded => NotDone::Overloaded,
            CommandError::Corrupt => NotDone::Corrupt,
            CommandError::NotConfirmed => NotDone::NotConfirmed,
            CommandError::Unknown
            | CommandError::BodyLost
            | CommandError::Expired { .. }
            | CommandError::Unsupported => NotDone::NoQuorum,
        };
        self.lose_link(false, out);
        self.try_later(env, why, out);
    }

    /// Gives the link up, and what was under way over it.
    fn lose_link(&mut self, nothing_done: bool, out: &mut Vec<Step>) {
        let Some(link) = self.link.take() else { return };
        out.push(Step::Detach { link: link.number });
        let Some(busy) = self.busy.as_mut() else { return };
        match std::mem::replace(&mut busy.doing, Doing::Waiting) {
            Doing::Waiting | Doing::Sealing => {}
            Doing::Uploading(upload) => {
                out.extend(upload.current().map(|message| Step::EndUpload { body: message.body }));
            }
            Doing::Asked => busy.in_doubt |= !nothing_done && !busy.request.is_read(),
        }
    }

    /// Once more after a pause, or, if the client was kept waiting for long enough, not at all.
    fn try_later(&mut self, env: &Env, why: NotDone, out: &mut Vec<Step>) {
        let Some(busy) = self.busy.as_mut() else {
            self.pause_until = env.now + IDLE_RETRY_PAUSE;
            return;
        };
        self.pause_until = env.now + RETRY_PAUSE;
        if why != NotDone::NoQuorum {
            busy.is_refused(why);
        }
        if env.now >= busy.gives_up_at() {
            self.give_up(out);
        }
    }

    fn give_up(&mut self, out: &mut Vec<Step>) {
        let Some(busy) = &self.busy else { return };
        let finished = if busy.in_doubt { Finished::Unknown } else { Finished::NotDone(busy.why.clone()) };
        self.finish(finished, out);
    }

    fn finish(&mut self, finished: Finished, out: &mut Vec<Step>) {
        let Some(Busy { id, asked, .. }) = self.busy.take() else { panic!("a command ends once") };
        out.push(Step::Finished { id, asked, finished });
    }

    /// Whether an owner is there that is asked, or has the session wait until it can be: its node leads, and a slow answer of
    /// it is waited for.
    fn is_served(&self) -> bool {
        let Some(link) = self.link.as_ref().filter(|link| self.leader == Some(link.node)) else { return false };
        let is_asked = self.busy.as_ref().is_some_and(|busy| matches!(busy.doing, Doing::Uploading(_) | Doing::Asked));
        is_asked || matches!(link.stage, LinkStage::Resuming(..) | LinkStage::Watching(_))
    }

    fn is_link(&self, number: u64) -> bool {
        self.link.as_ref().is_some_and(|link| link.number == number)
    }

    fn is_ready(&self, number: u64) -> bool {
        self.link.as_ref().is_some_and(|link| link.number == number && link.stage == LinkStage::Ready)
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}
