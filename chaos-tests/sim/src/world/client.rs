//! What clients do with the production session (`node/mailbox/src/session.rs`): what they ask, what of the answers is
//! recorded, and what they do next. Here is the thin shell around it, with the simulated network and clock.

use std::sync::Arc;

use mailraft_checkers::{At, Ended, Op, Record, Reply, Rule};
use mailraft_mailbox::api::{FetchWhat, Watching};
use mailraft_mailbox::session::{self, ChunkOutcome, Step};
use mailraft_mailbox::{
    Answer, Command, Detached, Finished, FolderNews, MessageKind, NotDone, Notice, Once, Position, Refusal,
    Reply as OwnerReply, Request, open_body_row,
};
use mailraft_storage::body::{BodyId, open_chunk};
use mailraft_storage::{CommandId, Env, MailboxId, NodeId, PartitionId};

use crate::event::{Event, Local, ToActor, ToSession};
use crate::host::CLUSTER;
use crate::message;
use crate::moments::Moment;
use crate::session::{BodyRead, Busy, Kind, Sealed, Session};
use crate::world::World;

/// The number of a connection that was given up: nobody hears its answers.
const OLD_CONN: u64 = u64::MAX;

impl World {
    /// A client connects to a node; returns the session's number.
    pub fn connect(&mut self, node: NodeId, kind: Kind, mailbox: MailboxId) -> u64 {
        let number = self.clients.connect(node, kind, mailbox);
        self.hears_of_leader(number);
        number
    }

    /// A session begins an operation.
    pub fn begins(&mut self, number: u64, op: Op) {
        let Some(mailbox) = self.clients.session(number).map(|s| s.mailbox) else { return };
        let (id, now) = (self.clients.command_id(), self.now());
        let closes = matches!(op, Op::Select { .. } | Op::Unselect);
        self.record(Record::Asked { at: now, session: number, mailbox, id, op: op.clone() });
        self.witness.detail(now, || format!("session {number} of {mailbox} asks {id}: {op:?}"));
        let Some(session) = self.clients.session_mut(number) else { return };
        assert!(session.busy.is_none(), "a session does one thing at a time");
        if closes && session.machine.following().is_some() {
            session.machine.close_folder();
            session.kept = None;
            self.witness.record(Record::Closed { at: now, session: number });
        }
        // Whoever goes on has the answers so far.
        session.unheard.client_went_on();
        let once = op.is_once().then(|| session.unheard.once(request_of(&op)));
        let mut request = match op {
            // To who watches it is the same: it is answered, and begins to hear of folders.
            Op::Sync if session.watches() => Request::Command(Command::Watch { what: Watching::Folders }),
            _ => request(&op, once.as_ref()),
        };
        if let (Kind::Pop3, Request::Command(command)) = (session.kind, &mut request) {
            *command = in_maildrop(session, command.clone());
        }
        session.busy =
            Some(Busy { id, op, request: request.clone(), once, started: now, reading: None, returning: None });
        self.tells_what_is_heard(number);
        self.with_machine(number, None, |machine, env, out| machine.begin(env, id, request, out));
    }

    fn hears_recorded(&mut self, number: u64, id: CommandId, commands: Vec<CommandId>) {
        let at = self.now();
        self.witness.detail(at, || format!("session {number} has heard {commands:?}, and tells it with {id}"));
        self.record(Record::Hears { at, id, commands });
    }

    /// What a command takes along is written down; what none takes along its owner is told by itself.
    fn tells_what_is_heard(&mut self, number: u64) {
        let Some((session, env)) = self.clients.session_and_env(number) else { return };
        if let Some((busy, once)) = session.busy.as_ref().and_then(|busy| Some((busy, busy.once.as_ref()?))) {
            if !once.heard.is_empty() {
                let (id, commands) = (busy.id, once.heard.clone());
                self.hears_recorded(number, id, commands);
            }
            return;
        }
        let mut steps = Vec::new();
        session.unheard.tell(&mut session.machine, env, &mut steps);
        for step in steps {
            if let Step::Ask { id, command, .. } = &step
                && let Command::Heard { commands } = &**command
            {
                let (id, commands) = (*id, commands.clone());
                self.hears_recorded(number, id, commands);
            }
            self.carries_out(number, step, None);
        }
    }

    /// A session's timer rings.
    pub fn wakes(&mut self, number: u64, timer: u64) {
        if self.clients.session(number).is_some_and(|s| s.timer == timer) {
            self.with_machine(number, None, |machine, env, out| machine.due(env, out));
        }
    }

    /// A session hears something from its actor's node.
    pub fn hears(&mut self, number: u64, conn: u64, what: ToSession) {
        let Some(session) = self.clients.session(number) else { return };
        match what {
            ToSession::Chunk { body, ok } => {
                let outcome = if ok { ChunkOutcome::Durable } else { ChunkOutcome::NotDurable };
                self.with_machine(number, None, |machine, env, out| machine.chunk_done(env, body, outcome, out));
            }
            ToSession::Reply(reply, incarnation) => {
                let Some(link) = conn.checked_sub(session.conns_before) else { return };
                let partition = self.mailboxes.partition(session.mailbox);
                match *reply {
                    OwnerReply::Event(event) => {
                        let event = Arc::unwrap_or_clone(event);
                        self.with_machine(number, None, |m, _, out| m.event(link, event, out))
                    }
                    OwnerReply::Notice(notice) => {
                        self.with_machine(number, None, |m, _, out| m.notice(link, notice, out));
                    }
                    OwnerReply::Detached(why) => {
                        self.with_machine(number, None, |machine, env, out| machine.detached(env, link, why, out));
                    }
                    OwnerReply::Failed { id, error } => {
                        self.with_machine(number, None, |m, env, out| m.failed(env, link, id, error, out));
                    }
                    OwnerReply::Answer { id, result, at } => {
                        let at = Position { partition, incarnation, index: at };
                        self.with_machine(number, Some(at), |m, env, out| m.answered(env, link, id, result, at, out));
                    }
                }
            }
        }
    }

    /// The sessions of a node hear that a partition has another leader, or none.
    pub fn sessions_hear_of_leader(&mut self, node: NodeId, partition: PartitionId) {
        let concerned: Vec<u64> = self
            .clients
            .sessions()
            .filter(|s| s.node == node && !s.over && self.mailboxes.partition(s.mailbox) == partition)
            .map(|s| s.number)
            .collect();
        concerned.into_iter().for_each(|number| self.hears_of_leader(number));
    }

    /// Whom a session's node believes to lead may have changed for all of them.
    pub fn all_sessions_hear_of_leaders(&mut self) {
        let all: Vec<u64> = self.clients.sessions().filter(|s| !s.over).map(|s| s.number).collect();
        all.into_iter().for_each(|number| self.hears_of_leader(number));
    }

    fn hears_of_leader(&mut self, number: u64) {
        let Some(session) = self.clients.session(number) else { return };
        let partition = self.mailboxes.partition(session.mailbox);
        let leader = match session.stays {
            true => self.leader_as_told(session.node, partition),
            false => self.leader_as_seen(session.node, partition),
        };
        self.with_machine(number, None, |machine, env, out| machine.leader(env, leader, out));
    }

    /// A node died: sessions elsewhere lose their connections to it.
    pub fn connections_to_end(&mut self, node: NodeId) {
        let concerned: Vec<(u64, u64)> = self
            .clients
            .sessions()
            .filter(|s| s.node != node)
            .filter_map(|s| Some((s.number, s.conn.filter(|(_, to)| *to == node)?.0)))
            .collect();
        for (session, conn) in concerned {
            let at = self.now() + self.dice.between(200, 3_000);
            let gone = ToSession::Reply(Box::new(OwnerReply::Detached(Detached::Gone)), 0);
            self.queue.push(at, Event::ToSession(session, conn, Box::new(gone)));
        }
    }

    /// A node died: its sessions end, and their clients connect elsewhere after a while.
    pub fn clients_of_end(&mut self, node: NodeId) {
        let concerned: Vec<u64> =
            self.clients.sessions().filter(|s| s.node == node && !s.over).map(|s| s.number).collect();
        concerned.into_iter().for_each(|number| self.client_is_cut_off(number));
    }

    /// A client loses its connection to its node, or gives it up.
    pub fn hangs_up(&mut self, number: u64) {
        if self.clients.session(number).is_some_and(|session| !session.over) {
            let mailbox = self.clients.session(number).map(|session| session.mailbox);
            mailbox.into_iter().for_each(|mailbox| self.tells_actor(number, ToActor::Detach(mailbox)));
            self.client_is_cut_off(number);
        }
    }

    /// Clients are told to connect to another region than that of a node: all do but those that stay.
    pub fn clients_leave(&mut self, node: NodeId) {
        let leaves = |s: &&Session| s.node == node && !s.over && !s.stays;
        let concerned: Vec<u64> = self.clients.sessions().filter(leaves).map(|s| s.number).collect();
        concerned.into_iter().for_each(|number| self.client_is_cut_off(number));
    }

    fn client_is_cut_off(&mut self, number: u64) {
        let Some(session) = self.clients.session_mut(number) else { return };
        let open = session.machine.following().is_some();
        session.dies();
        if session.busy.is_some() {
            self.ends(number, Ended::Unknown, None, 0);
        }
        if open {
            let at = self.now();
            self.record(Record::Closed { at, session: number });
        }
        let again = self.now() + self.clients.dice().between(1_000, 1_000_000);
        self.queue.push(again, Event::Connect(number));
    }

    /// Whom a node believes to lead.
    pub fn leader_as_seen(&self, node: NodeId, partition: PartitionId) -> Option<NodeId> {
        let leader = self.leader_as_told(node, partition);
        // Two sites can't keep a home that lives on from answering reads of what was answered before.
        leader.filter(|leader| !self.promise.is_word_given() || self.promise.is_far(*leader))
    }

    fn leader_as_told(&self, node: NodeId, partition: PartitionId) -> Option<NodeId> {
        self.hosts.get(&node)?.up.as_ref()?.leaders.get(&partition).copied()
    }

    /// A session that delivers turns to another mailbox: each delivery goes to its own mailbox's actor.
    pub fn turns_to(&mut self, number: u64, mailbox: MailboxId) {
        if let Some(session) = self.clients.session_mut(number) {
            session.unheard.client_went_on();
        }
        self.tells_what_is_heard(number);
        self.with_machine(number, None, |machine, _, out| machine.leave(out));
        if let Some(session) = self.clients.session_mut(number) {
            session.turns_to(mailbox);
        }
        self.hears_of_leader(number);
    }

    /// Lets a session's machine do something, and carries out what it wants done. `heard` is where in the log the
    /// answer stands that it hears.
    pub(super) fn with_machine(
        &mut self,
        number: u64,
        heard: Option<Position>,
        act: impl FnOnce(&mut session::Session, &mut Env, &mut Vec<Step>),
    ) {
        let now = self.now();
        let World { hosts, clients, .. } = self;
        clients.set_now(now);
        let Some((session, env)) = clients.session_and_env(number) else { return };
        if let Some(host) = hosts.get(&session.node).filter(|host| host.up.is_some()) {
            env.wall = host.cluster_wall(now);
        }
        let mut steps = Vec::new();
        act(&mut session.machine, env, &mut steps);
        for step in steps {
            self.carries_out(number, step, heard);
        }
        self.sets_timer(number);
    }

    fn carries_out(&mut self, number: u64, step: Step, heard: Option<Position>) {
        let at = self.now();
        let Some(session) = self.clients.session_mut(number) else { return };
        let mailbox = session.mailbox;
        match step {
            Step::Attach { link, node } => {
                session.attaches(link, node);
                self.tells_actor(number, ToActor::Attach(mailbox));
                self.with_machine(number, None, |machine, env, out| machine.attached(env, link, out));
            }
            Step::Detach { link } => {
                assert_eq!(session.conn.map(|c| c.0), Some(session.conns_before + link), "one link at a time");
                self.tells_actor(number, ToActor::Detach(mailbox));
                if let Some(session) = self.clients.session_mut(number) {
                    session.conn = None;
                }
            }
            Step::Ask { link, id, attempt, command } => {
                assert_eq!(session.conn.map(|c| c.0), Some(session.conns_before + link), "one link at a time");
                self.tells_actor(number, ToActor::Ask { mailbox, id, attempt, command });
            }
            Step::Seal => {
                let Some(Op::Deliver { marker, .. } | Op::Append { marker, .. }) = session.busy.as_ref().map(|b| &b.op)
                else {
                    return;
                };
                let marker = *marker;
                let Some((session, env)) = self.clients.session_and_env(number) else { return };
                let (new_message, chunks) = message::seal(env, marker);
                session.sealed = Some(Sealed { body: new_message.body, chunks });
                self.with_machine(number, None, |machine, env, out| machine.sealed(env, vec![new_message], out));
            }
            Step::SendChunk { node, id, body, number: part } => self.sends_chunk(number, node, id, body, part),
            Step::EndUpload { body } => {
                session.sealed.take_if(|sealed| sealed.body == body);
            }
            Step::Event(event) => {
                self.keeps_event(number, &event);
                self.record(Record::Event { at, session: number, event });
            }
            Step::Notice(notice) => self.hears_of_folders(number, &notice),
            Step::Resumed { folder, since, resumed, missed: _ } => {
                self.counts_resume(since, &resumed);
                self.keeps_resumed(number, &resumed);
                self.record(Record::Resumed { at, session: number, folder, since, resumed });
            }
            Step::FolderGone(_) => {
                session.kept = None;
                self.record(Record::Closed { at, session: number });
            }
            Step::GoesOnAs { old, new } => self.goes_on_as(number, old, new),
            Step::Finished { id, asked, finished } => self.finished(number, id, asked, finished, heard),
        }
    }

    /// What a session hears of folders is of those that it does not have open: of that one it hears all, in order.
    fn hears_of_folders(&mut self, number: u64, notice: &Notice) {
        let Some(session) = self.clients.session(number) else { return };
        assert!(session.watches(), "who does not watch hears of no other folder");
        match notice {
            Notice::Anew => self.witness.comes_to(Moment::WatchesAnew),
            Notice::ListIsHere => {}
            Notice::OfOthers(news) | Notice::Own(news) => match news {
                FolderNews::Messages(folder) | FolderNews::Flags(folder) => {
                    let open = session.machine.following().map(|following| following.folder());
                    assert_ne!(open, Some(*folder), "session {number} has it open");
                    self.witness.comes_to(Moment::HearsOfFolder);
                }
                FolderNews::List(_) => self.witness.comes_to(Moment::HearsOfNames),
            },
        }
    }

    fn sends_chunk(&mut self, number: u64, node: NodeId, command: CommandId, body: BodyId, part: u32) {
        let World { clients, mailboxes, .. } = self;
        let Some((session, env)) = clients.session_and_env(number) else { return };
        assert_eq!(session.conn.map(|c| c.1), Some(node), "chunks go where the command will go");
        let Some(sealed) = session.sealed.as_ref().filter(|sealed| sealed.body == body) else { return };
        let (mailbox, count, wall) = (session.mailbox, sealed.chunks.len() as u32, env.wall);
        let key = mailboxes.key(mailbox);
        let open = (part == 0).then(|| open_body_row(env, &key, CLUSTER, mailbox, body, count, wall));
        let Some(data) = sealed.chunks.get(part as usize).cloned() else { return };
        self.tells_actor(number, ToActor::Chunk { mailbox, command, body, number: part, open, data });
    }

    /// The same operation under another id: whoever judges takes it for an attempt that did nothing, and a new one.
    fn goes_on_as(&mut self, number: u64, old: CommandId, new: CommandId) {
        let at = self.now();
        let Some(session) = self.clients.session_mut(number) else { return };
        let mailbox = session.mailbox;
        let Some(busy) = session.busy.as_mut().filter(|b| b.id == old) else { return };
        busy.id = new;
        let op = busy.op.clone();
        let heard = busy.once.as_ref().map(|once| once.heard.clone()).unwrap_or_default();
        self.witness.detail(at, || format!("session {number} of {mailbox}: {old} is too old and goes on as {new}"));
        self.record(Record::Ended { at, id: old, ended: Ended::NotDone, position: None });
        self.record(Record::Asked { at, session: number, mailbox, id: new, op });
        if !heard.is_empty() {
            self.hears_recorded(number, new, heard);
        }
    }

    fn finished(&mut self, number: u64, id: CommandId, asked: u32, finished: Finished, heard: Option<Position>) {
        let now = self.now();
        let Some(session) = self.clients.session_mut(number) else { return };
        let mailbox = session.mailbox;
        let Some(busy) = session.busy.as_mut() else { return };
        if busy.returning.is_some() {
            let resumed = match finished {
                Finished::Done((Answer::Resumed(resumed), _)) => Some(resumed),
                Finished::Done(_) | Finished::Unknown | Finished::NotDone(_) => None,
            };
            return self.is_told_what_it_missed(number, resumed);
        }
        let heard = heard.map(as_checked);
        let (answer, at) = match finished {
            Finished::Done((answer, at)) => (answer, as_checked(at)),
            Finished::Unknown => return self.ends(number, Ended::Unknown, None, asked),
            Finished::NotDone(why) => match why {
                // Damage is one replica's: what is decided for all and for good must not depend on it.
                NotDone::Refused(Refusal::Corrupt) => {
                    let what = format!("session {number}: a mailbox refuses {id} as damaged");
                    return self.goes_wrong(Rule::ExactlyOnce, what);
                }
                NotDone::Refused(refusal) => return self.ends(number, Ended::Refused(refusal), heard, asked),
                NotDone::NoSuchMailbox => return self.ends(number, Ended::NoSuchMailbox, None, asked),
                NotDone::Corrupt => {
                    let reads = busy.op.is_read() && matches!(busy.op, Op::ReadBody { .. });
                    let corrupted = match session.conn {
                        Some((_, node)) => !self.host(node).corrupted.is_empty(),
                        None => self.hosts.values().any(|host| !host.corrupted.is_empty()),
                    };
                    if corrupted {
                        self.clients.refuse_damaged();
                    }
                    let damaged = reads && !corrupted && heard.is_some();
                    let ended = if damaged { Ended::Done(Reply::BodyDamaged) } else { Ended::NotDone };
                    return self.ends(number, ended, heard.filter(|_| damaged), asked);
                }
                NotDone::NoQuorum
                | NotDone::NotConfirmed
                | NotDone::Overloaded
                | NotDone::BodyLost
                | NotDone::Expired
                | NotDone::Unsupported => {
                    return self.ends(number, Ended::NotDone, None, asked);
                }
            },
        };
        let reply = match answer {
            Answer::Selected(selected) => {
                let name = if let Op::Select { folder } = &busy.op { folder.clone() } else { String::new() };
                self.record(Record::Opened { at: now, session: number, mailbox, selected: selected.clone() });
                self.keeps_opened(number, &name, &selected);
                if self.asks_what_it_missed(number, &selected, at) {
                    return;
                }
                Reply::Answer(Answer::Selected(selected))
            }
            Answer::Fetched(fetched) if matches!(busy.op, Op::ReadBody { .. }) => {
                match fetched.into_iter().next().and_then(|f| f.content) {
                    None => Reply::Body(None),
                    Some(content) => {
                        busy.reading = Some(BodyRead { content, plain: Vec::new(), next: 0, at });
                        return self.asks_chunk(number);
                    }
                }
            }
            Answer::Fetched(fetched) => {
                let marker = |f: &mailraft_mailbox::api::Fetched| {
                    f.header.as_ref().and_then(|h| message::marker_of_header(&h.header)).unwrap_or(0)
                };
                let seen = |f: &mailraft_mailbox::api::Fetched| {
                    (f.state.uid, marker(f), f.state.flags.clone(), f.state.modseq)
                };
                Reply::Fetched(fetched.iter().map(seen).collect())
            }
            Answer::Chunk(chunk) => return self.reads_chunk(number, chunk, at),
            answer => Reply::Answer(answer),
        };
        self.ends(number, Ended::Done(reply), Some(at), asked);
    }

    /// The next part of a body, under an id of its own.
    fn asks_chunk(&mut self, number: u64) {
        let part = self.clients.command_id();
        let Some(session) = self.clients.session(number) else { return };
        let Some(BodyRead { content, next, .. }) = session.busy.as_ref().and_then(|b| b.reading.as_ref()) else {
            return;
        };
        let mut command = Command::ReadChunk { email: content.email, body: content.body, number: *next };
        if session.kind == Kind::Pop3 {
            command = in_maildrop(session, command);
        }
        self.with_machine(number, None, |m, env, out| m.begin(env, part, Request::Command(command), out));
    }

    fn reads_chunk(&mut self, number: u64, chunk: Option<bytes::Bytes>, at: At) {
        let Some(busy) = self.clients.session_mut(number).and_then(|s| s.busy.as_mut()) else { return };
        // Where the message was there; its body may outlive its place by a copy.
        let Some(BodyRead { content, plain, next, at: found }) = &mut busy.reading else { return };
        let found = *found;
        let Some(chunk) = chunk else { return self.ends(number, Ended::Done(Reply::Body(None)), Some(at), 0) };
        let last = *next + 1 == content.chunks;
        let body: BodyId = content.body;
        let opened = open_chunk(body, &content.body_key, *next, last, &chunk).ok();
        let Some(opened) = opened else { return self.ends(number, Ended::Done(Reply::BodyDamaged), Some(at), 0) };
        plain.extend_from_slice(&opened);
        *next += 1;
        if !last {
            return self.asks_chunk(number);
        }
        let reply = match message::marker_of_text(plain) {
            Some(marker) => Reply::Body(Some(marker)),
            None => Reply::BodyDamaged,
        };
        self.ends(number, Ended::Done(reply), Some(found), 0);
    }

    /// An earlier attempt of a change, on a connection that was given up, arrives when the client has its answer.
    fn comes_late(&mut self, number: u64, busy: &Busy, asked: u32) {
        let Some(session) = self.clients.session(number) else { return };
        let Some((_, to)) = session.conn else { return };
        let Request::Command(command) = busy.request.clone() else { return };
        if busy.op.is_read() {
            return;
        }
        let (id, mailbox, from) = (busy.id, session.mailbox, session.node);
        let first = self.setup.late_firsts_permille > 0 && self.dice.chance(self.setup.late_firsts_permille);
        let attempt = if first { 0 } else { asked };
        let ask = ToActor::Ask { mailbox, id, attempt, command: Box::new(command) };
        let at = self.now() + self.dice.exponential(self.setup.late_copies_mean);
        for what in [ToActor::Attach(mailbox), ask, ToActor::Detach(mailbox)] {
            let what = Local::FromSession(number, OLD_CONN, from, Box::new(what));
            self.queue.push(at, Event::To(to, what));
        }
    }

    fn tells_actor(&mut self, number: u64, what: ToActor) {
        let Some(session) = self.clients.session(number) else { return };
        let Some((conn, to)) = session.conn else { return };
        let (from, name) = (session.node, (number, conn));
        let event = Event::To(to, Local::FromSession(name.0, name.1, from, Box::new(what)));
        self.send(from, to, name, event);
    }

    /// Sets the session's timer to when its machine wants to be woken; earlier ones are void.
    fn sets_timer(&mut self, number: u64) {
        let Some(session) = self.clients.session_mut(number) else { return };
        let due = session.machine.wakes_at().map(|at| (at.as_micros() as u64).max(self.queue.now()));
        if session.wakes_at != due {
            session.timer += 1;
            session.wakes_at = due;
            let timer = session.timer;
            due.into_iter().for_each(|at| self.queue.push(at, Event::Wake(number, timer)));
        }
    }

    /// The client has its answer, or gives up; what it does next.
    pub(super) fn ends(&mut self, number: u64, ended: Ended, position: Option<At>, asked: u32) {
        let marker = match self.clients.session(number).and_then(|s| s.busy.as_ref()).map(|b| &b.op) {
            Some(Op::Deliver { marker, .. }) => Some(*marker),
            _ => None,
        };
        let lost = matches!(ended, Ended::Unknown | Ended::NotDone);
        let again = marker.filter(|_| lost || self.clients.repeats_accepted(&self.setup));
        let at = self.now();
        let Some(session) = self.clients.session_mut(number) else { return };
        let (kind, mailbox) = (session.kind, session.mailbox);
        let Some(mut busy) = session.busy.take() else { return };
        if matches!(ended, Ended::Refused(_)) {
            session.returns_with = None;
        }
        if let Some(once) = busy.once.take() {
            session.unheard.answered(once, matches!(ended, Ended::Done(_)).then_some(busy.id));
        }
        session.keeps_maildrop(&busy.op, &ended);
        self.clients.may_ask_again(number, &busy.op, &ended, &self.setup);
        self.witness.operation_ended();
        self.clients.answered(number, &ended, position);
        if matches!(ended, Ended::Unknown) && !busy.op.is_read() {
            self.unresolved.given_up(busy.id, mailbox, at);
        }
        let outcome = match &ended {
            Ended::Done(_) => 1,
            Ended::Refused(_) => 2,
            Ended::NotDone => 3,
            Ended::NoSuchMailbox => 4,
            Ended::Unknown => 5,
        };
        self.witness.event(at, &[3, number, outcome, position.map_or(0, |p| p.index)]);
        self.witness.detail(at, || {
            let took = (at - busy.started) / 1_000;
            let position = position.map(|p| p.index);
            format!(
                "session {number} of {mailbox}: {:?} {} after {took} ms at {position:?}: {ended:?}",
                busy.op, busy.id
            )
        });
        let answered = matches!(ended, Ended::Done(_) | Ended::Refused(_));
        if answered && self.setup.late_copies_permille > 0 && self.dice.chance(self.setup.late_copies_permille) {
            self.comes_late(number, &busy, asked);
        }
        self.record(Record::Ended { at, id: busy.id, ended, position });
        self.after(number, kind, mailbox, again);
        // Whoever has a folder open wants to hear what happens in it.
        if self.clients.session(number).is_some_and(|s| !s.over && s.machine.following().is_some()) {
            self.with_machine(number, None, |machine, env, out| machine.listen(env, true, out));
        }
    }
}

/// As a POP3 server asks it.
fn in_maildrop(session: &Session, command: Command) -> Command {
    Command::InMaildrop { holder: session.holder(), command: Box::new(command) }
}

fn as_checked(Position { partition, incarnation, index }: Position) -> At {
    At { partition: partition.0, incarnation, index: index.0 }
}

/// What of an operation makes it another one beside what its command says: a date that the client gave.
fn request_of(op: &Op) -> [u8; 32] {
    let mut request = [0; 32];
    if let Op::Append { date: Some(date), .. } = op {
        request[0] = 1;
        request[1..9].copy_from_slice(&date.to_be_bytes());
    }
    request
}

/// What an operation asks of the session.
fn request(op: &Op, once: Option<&Once>) -> Request {
    let store = |kind| Request::Store { kind, once: once.cloned() };
    match op {
        Op::Append { folder, flags, .. } => store(MessageKind::Append {
            folder: folder.clone(),
            flags: flags.clone(),
            internal_date: Default::default(),
        }),
        Op::Deliver { deduplicate, .. } => store(MessageKind::Deliver {
            reverse_path: "sender@example.org".to_owned(),
            detail: None,
            deduplicate: *deduplicate,
            received: Default::default(),
        }),
        other => Request::Command(match once.cloned() {
            Some(once) => Command::Once { once, command: Box::new(command(other)) },
            None => command(other),
        }),
    }
}

/// The command of an operation without a message.
///
/// # Panics
/// For one with a message.
fn command(op: &Op) -> Command {
    match op.clone() {
        Op::Deliver { .. } | Op::Append { .. } => unreachable!("a message is sealed first"),
        Op::Store { folder, uids, mode, flags, unchanged_since } => {
            Command::Store { folder, uids, mode, flags, unchanged_since }
        }
        Op::Copy { folder, uids, to } => Command::Copy { folder, uids, to },
        Op::Move { folder, uids, to } => Command::Move { folder, uids, to },
        Op::Expunge { folder, uids } => Command::Expunge { folder, uids },
        Op::Create { name } => Command::CreateFolder { name },
        Op::Delete { name } => Command::DeleteFolder { name },
        Op::Rename { from, to } => Command::RenameFolder { from, to },
        Op::Subscribe { name, on } => Command::Subscribe { name, on },
        Op::Sync => Command::Sync,
        Op::List => Command::List,
        Op::Status { folder } => Command::Status { folder },
        Op::Select { folder } => Command::Select { folder, claim_recent: true },
        Op::Fetch { folder, uids } => Command::Fetch { folder, uids, what: FetchWhat { content: false, header: true } },
        Op::Unselect => Command::Unselect,
        Op::Maildrop => Command::Maildrop,
        Op::UniqueIds { folder, uids } => Command::UniqueIds { folder, uids },
        Op::Remove { folder, uids } => Command::Remove { folder, uids },
        Op::ReadBody { folder, uid } => Command::Fetch {
            folder,
            uids: [uid].into_iter().collect(),
            what: FetchWhat { content: true, header: false },
        },
    }
}
