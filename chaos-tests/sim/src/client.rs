//! Sessions: one command at a time, wherever the mailbox's actor is, through failovers. Patience and pauses are
//! those of the production sessions.

use mailraft_checkers::{At, Ended, Micros, Op, Record, Reply, Rule};
use mailraft_mailbox::api::FetchWhat;
use mailraft_mailbox::{Answer, Command, Detached, Following, Refusal, Refused, Said, open_body_row};
use mailraft_storage::body::{BodyId, open_chunk};
use mailraft_storage::seal::Key;
use mailraft_storage::{CommandId, MailboxId, NodeId, PartitionId};

use crate::host::CLUSTER;
use crate::message;
use crate::session::{Busy, Conn, Kind, Session, Stage, Upload};
use crate::world::{Event, Local, ToActor, ToSession, World};

/// How long a client is kept waiting while nobody leads its mailbox's partition.
const NO_LEADER_MAX: Micros = 1_600_000;
/// How long an actor may take for one answer while its node leads.
const ANSWER_MAX: Micros = 60_000_000;
/// Between attempts.
const RETRY_PAUSE: Micros = 15_000;
/// Between looks at a slow answer.
const PATIENCE_PAUSE: Micros = 100_000;
/// Between attempts of an idling session.
const IDLE_RETRY_PAUSE: Micros = 250_000;
/// A late attempt comes so much later, in the mean.
const LATE_COPY: Micros = 1_000_000;
/// The number of a connection that was given up: nobody hears its answers.
const OLD_CONN: u64 = u64::MAX;
/// Parts of one upload that may be under way.
const CHUNKS_UNANSWERED_MAX: usize = 8;

impl World {
    /// A client connects to a node; returns the session's number.
    pub fn connect(&mut self, node: NodeId, kind: Kind, mailbox: MailboxId) -> u64 {
        self.last_session += 1;
        let number = self.last_session;
        let session = Session {
            number,
            node,
            kind,
            mailbox,
            conn: None,
            conns: 0,
            following: None,
            busy: None,
            over: false,
            timer: 0,
        };
        self.sessions.insert(number, session);
        number
    }

    /// A session begins an operation.
    pub fn begins(&mut self, number: u64, op: Op) {
        self.begins_above(number, op, CommandId::default());
    }

    fn begins_above(&mut self, number: u64, op: Op, floor: CommandId) {
        let id = self.clients.command_id_above(floor);
        let (now, mailbox) = (self.now, self.sessions[&number].mailbox);
        let closes = matches!(op, Op::Select { .. } | Op::Unselect);
        self.record(Record::Asked { at: now, session: number, mailbox, id, op: op.clone() });
        self.trace.detail(now, || format!("session {number} of {mailbox} asks {id}: {op:?}"));
        let Some(session) = self.sessions.get_mut(&number) else { return };
        assert!(session.busy.is_none(), "a session does one thing at a time");
        if closes && session.following.take().is_some() {
            self.checker.record(Record::Closed { at: now, session: number });
        }
        let busy = Busy { id, op, started: now, attempt: 0, sent: false, asked: None, stage: Stage::Plain };
        session.busy = Some(busy);
        self.advance(number);
    }

    /// A session's timer rings.
    pub fn wakes(&mut self, number: u64, timer: u64) {
        let Some(session) = self.sessions.get_mut(&number).filter(|s| s.timer == timer) else { return };
        if session.busy.is_some() {
            self.loses_patience(number);
        } else if session.following.is_some() && session.conn.is_none() {
            // It idles, and wants to hear what happens.
            self.attach(number);
            let due = self.now + IDLE_RETRY_PAUSE;
            self.wake_at(number, due);
        }
    }

    /// A session hears something from its actor's node.
    pub fn hears(&mut self, number: u64, conn: u64, what: ToSession) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        match what {
            ToSession::Chunk { upload, ok } => self.chunk_done(number, upload, ok),
            ToSession::Said(said, incarnation) => {
                if session.conn.as_ref().map(|c| c.number) != Some(conn) {
                    return;
                }
                match *said {
                    Said::Event(event) => {
                        let Some(following) = session.following.as_mut() else { return };
                        if following.folder() != event.folder {
                            return;
                        }
                        following.hear(&event);
                        if following.is_gone() {
                            session.following = None;
                        }
                        let at = self.now;
                        self.record(Record::Event { at, session: number, event });
                    }
                    Said::Detached(why) => {
                        session.conn = None;
                        self.detached(number, why);
                    }
                    Said::Answer { id, result, at } => {
                        let partition = self.mailboxes[&self.sessions[&number].mailbox].partition.0;
                        self.answered(number, id, result, At { partition, incarnation, index: at.0 });
                    }
                }
            }
        }
    }

    /// The sessions of a node hear that a partition has another leader, or none.
    pub fn sessions_hear_of_leader(&mut self, node: NodeId, partition: PartitionId) {
        let leader = self.leader_as_seen(node, partition);
        let concerned: Vec<u64> = self
            .sessions
            .values()
            .filter(|s| s.node == node && self.mailboxes[&s.mailbox].partition == partition)
            .map(|s| s.number)
            .collect();
        for number in concerned {
            let Some(session) = self.sessions.get_mut(&number) else { continue };
            let elsewhere = session.conn.as_ref().is_some_and(|c| leader.is_some_and(|l| l != c.node));
            if elsewhere {
                self.drops_conn(number);
                if let Some(busy) = self.sessions.get_mut(&number).and_then(|s| s.busy.as_mut())
                    && busy.asked.take().is_some()
                {
                    busy.attempt += 1;
                }
            }
            let Some(session) = self.sessions.get(&number) else { continue };
            if leader.is_some() && session.conn.is_none() {
                if session.busy.is_some() {
                    self.advance(number);
                } else if session.following.is_some() {
                    self.attach(number);
                }
            }
        }
    }

    /// A node died: sessions elsewhere lose their connections to it.
    pub fn connections_to_end(&mut self, node: NodeId) {
        let concerned: Vec<(u64, u64)> = self
            .sessions
            .values()
            .filter(|s| s.node != node)
            .filter_map(|s| Some((s.number, s.conn.as_ref().filter(|c| c.node == node)?.number)))
            .collect();
        for (session, conn) in concerned {
            let at = self.now + self.dice.between(200, 3_000);
            let gone = ToSession::Said(Box::new(Said::Detached(Detached::Gone)), 0);
            self.queue.push(at, Event::ToSession(session, conn, Box::new(gone)));
        }
    }

    /// A node died: its sessions end, and their clients connect elsewhere after a while.
    pub fn clients_of_end(&mut self, node: NodeId) {
        let concerned: Vec<u64> =
            self.sessions.values().filter(|s| s.node == node && !s.over).map(|s| s.number).collect();
        for number in concerned {
            if self.sessions[&number].busy.is_some() {
                self.ends(number, Ended::Unknown, None);
            }
            let at = self.now;
            if self.sessions.get_mut(&number).is_some_and(|s| s.following.take().is_some()) {
                self.record(Record::Closed { at, session: number });
            }
            self.drops_conn(number);
            if let Some(session) = self.sessions.get_mut(&number) {
                session.over = true;
            }
            let again = self.now + self.work.between(1_000, 1_000_000);
            self.queue.push(again, Event::Connect(number));
        }
    }

    /// Whom a node believes to lead.
    pub fn leader_as_seen(&self, node: NodeId, partition: PartitionId) -> Option<NodeId> {
        self.hosts.get(&node)?.up.as_ref()?.leaders.get(&partition).copied()
    }

    /// Does the next thing for the session's command.
    fn advance(&mut self, number: u64) {
        let Some(session) = self.sessions.get(&number) else { return };
        let Some(busy) = session.busy.as_ref().filter(|b| b.asked.is_none()) else { return };
        let give_up = busy.started + NO_LEADER_MAX;
        match &session.conn {
            None => {
                if !self.attach(number) {
                    return self.tries_later(number);
                }
            }
            Some(conn) if conn.resuming.is_some() => return self.wake_at(number, give_up),
            Some(_) => {}
        }
        let ready = self.sessions[&number].conn.as_ref().is_some_and(|c| c.resuming.is_none());
        if ready {
            self.asks(number);
        }
        let due = give_up.max(self.now + RETRY_PAUSE);
        self.wake_at(number, due);
    }

    /// Attaches to the actor where the partition is led, and asks to resume the open folder.
    fn attach(&mut self, number: u64) -> bool {
        let session = &self.sessions[&number];
        let (node, mailbox) = (session.node, session.mailbox);
        let Some(leader) = self.leader_as_seen(node, self.mailboxes[&mailbox].partition) else { return false };
        let Some(session) = self.sessions.get_mut(&number) else { return false };
        session.conns += 1;
        let conn = session.conns;
        let resume = session.following.as_ref().map(|f| (f.resume(), f.modseq()));
        session.conn = Some(Conn { number: conn, node: leader, resuming: None });
        self.tells_actor(number, ToActor::Attach(mailbox));
        if let Some((command, since)) = resume {
            let id = self.clients.command_id();
            if let Some(conn) = self.sessions.get_mut(&number).and_then(|s| s.conn.as_mut()) {
                conn.resuming = Some((id, since));
            }
            self.tells_actor(number, ToActor::Ask { mailbox, id, attempt: 0, command: Box::new(command) });
        }
        true
    }

    /// Sends the command, or what of it comes next.
    fn asks(&mut self, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let mailbox = session.mailbox;
        let Some(busy) = session.busy.as_mut() else { return };
        let (id, attempt) = (busy.id, busy.attempt);
        if let Op::Deliver { marker, .. } | Op::Append { marker, .. } = &busy.op {
            let (draft, chunks) = message::seal(&mut self.clients, *marker);
            if draft.inline.is_none() {
                self.last_upload += 1;
                let upload = Upload { number: self.last_upload, draft, chunks, sent: 0, durable: 0 };
                busy.stage = Stage::Upload(upload);
                busy.sent = true;
                // The answer that it waits for is that to its parts.
                busy.asked = Some(id);
                return self.sends_chunks(number);
            }
            let command = stored(&busy.op, draft);
            busy.sent = true;
            busy.asked = Some(id);
            return self.tells_actor(number, ToActor::Ask { mailbox, id, attempt, command: Box::new(command) });
        }
        busy.stage = Stage::Plain;
        let command = command(&busy.op);
        busy.sent = true;
        busy.asked = Some(id);
        self.tells_actor(number, ToActor::Ask { mailbox, id, attempt, command: Box::new(command) });
    }

    fn sends_chunks(&mut self, number: u64) {
        loop {
            let wall = self.clients.wall;
            let Some(session) = self.sessions.get_mut(&number) else { return };
            let mailbox = session.mailbox;
            let Some(busy) = session.busy.as_mut() else { return };
            let Stage::Upload(upload) = &mut busy.stage else { return };
            if upload.sent == upload.chunks.len() || upload.sent - upload.durable == CHUNKS_UNANSWERED_MAX {
                return;
            }
            let (at, body, count) = (upload.sent, upload.draft.body, upload.draft.chunks);
            let key = &self.mailboxes[&mailbox].key;
            let open = (at == 0).then(|| open_body_row(&mut self.clients, key, CLUSTER, mailbox, body, count, wall));
            let chunk = ToActor::Chunk {
                mailbox,
                command: busy.id,
                upload: upload.number,
                body: body.0,
                number: at as u32,
                open,
                data: upload.chunks[at].clone(),
            };
            upload.sent += 1;
            self.tells_actor(number, chunk);
        }
    }

    fn chunk_done(&mut self, number: u64, of: u64, ok: bool) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let mailbox = session.mailbox;
        let attached = session.conn.is_some();
        let Some(busy) = session.busy.as_mut() else { return };
        let Stage::Upload(upload) = &mut busy.stage else { return };
        if upload.number != of {
            return;
        }
        if !ok || !attached {
            busy.stage = Stage::Plain;
            busy.asked = None;
            return self.tries_later(number);
        }
        upload.durable += 1;
        if upload.durable < upload.chunks.len() {
            return self.sends_chunks(number);
        }
        let command = stored(&busy.op, upload.draft.clone());
        let (id, attempt) = (busy.id, busy.attempt);
        busy.stage = Stage::Plain;
        self.tells_actor(number, ToActor::Ask { mailbox, id, attempt, command: Box::new(command) });
    }

    fn answered(&mut self, number: u64, id: CommandId, result: Result<Answer, Refused>, at: At) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let rotted = session.conn.as_ref().is_some_and(|c| !self.hosts[&c.node].rotted.is_empty());
        if let Some(conn) = session.conn.as_mut()
            && let Some((resume, since)) = conn.resuming
            && resume == id
        {
            conn.resuming = None;
            return self.resumed(number, id, since, result);
        }
        let Some(busy) = session.busy.as_mut().filter(|b| b.asked == Some(id)) else { return };
        busy.asked = None;
        match result {
            Err(Refused::Overloaded | Refused::BodyLost) => {
                busy.attempt += 1;
                self.tries_later(number);
            }
            Err(Refused::Expired { floor }) if busy.attempt == 0 => {
                // Nothing was done under that id: the same once more, under one that is not too old.
                let op = busy.op.clone();
                self.ended(number, Ended::NotDone, None);
                self.begins_above(number, op, floor);
            }
            // Damage is one replica's: what is decided for all and for good must not depend on it.
            Err(Refused::Mailbox(Refusal::Corrupt)) => {
                self.goes_wrong(Rule::ExactlyOnce, format!("session {number}: a mailbox refuses {id} as damaged"));
            }
            Err(Refused::Mailbox(refusal)) => self.ends(number, Ended::Refused(refusal), Some(at)),
            Err(Refused::NoSuchMailbox) => self.ends(number, Ended::NoSuchMailbox, None),
            Err(Refused::NoQuorum | Refused::Unknown | Refused::Expired { .. }) => {
                self.ends(number, Ended::Unknown, None)
            }
            Err(Refused::Corrupt) if rotted => {
                self.refused_damaged = true;
                self.ends(number, Ended::Unknown, None);
            }
            Err(Refused::Corrupt) => {
                let damaged = matches!(busy.op, Op::ReadBody { .. });
                let ended = if damaged { Ended::Done(Reply::BodyDamaged) } else { Ended::Unknown };
                self.ends(number, ended, damaged.then_some(at));
            }
            Ok(Answer::Selected(selected)) => {
                session.following = Some(Following::new(&selected));
                let mailbox = session.mailbox;
                self.record(Record::Opened { at: now, session: number, mailbox, selected: selected.clone() });
                self.ends(number, Ended::Done(Reply::Answer(Answer::Selected(selected))), Some(at));
            }
            Ok(Answer::Fetched(fetched)) => {
                let reads_body = matches!(busy.op, Op::ReadBody { .. });
                if !reads_body {
                    let marker = |f: &mailraft_mailbox::api::Fetched| {
                        f.header.as_ref().and_then(|h| message::marker_of_header(&h.header)).unwrap_or(0)
                    };
                    let seen = fetched
                        .iter()
                        .map(|f| (f.state.uid, marker(f), f.state.flags.clone(), f.state.modseq))
                        .collect();
                    return self.ends(number, Ended::Done(Reply::Fetched(seen)), Some(at));
                }
                match fetched.into_iter().next().and_then(|f| f.content) {
                    None => self.ends(number, Ended::Done(Reply::Body(None)), Some(at)),
                    Some(content) => {
                        busy.stage = Stage::Body { content, plain: Vec::new(), next: 0, at };
                        self.asks_chunk(number);
                    }
                }
            }
            Ok(Answer::Chunk(chunk)) => self.reads_chunk(number, chunk, at),
            Ok(answer) => self.ends(number, Ended::Done(Reply::Answer(answer)), Some(at)),
        }
    }

    fn asks_chunk(&mut self, number: u64) {
        let part = self.clients.command_id();
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let mailbox = session.mailbox;
        let Some(busy) = session.busy.as_mut() else { return };
        let Stage::Body { content, next, .. } = &busy.stage else { return };
        busy.asked = Some(part);
        let command = Command::ReadChunk { email: content.email, body: content.body, number: *next };
        self.tells_actor(number, ToActor::Ask { mailbox, id: part, attempt: 0, command: Box::new(command) });
    }

    fn reads_chunk(&mut self, number: u64, chunk: Option<bytes::Bytes>, at: At) {
        let Some(busy) = self.sessions.get_mut(&number).and_then(|s| s.busy.as_mut()) else { return };
        // Where the message was there; its body may outlive its place by a copy.
        let Stage::Body { content, plain, next, at: found } = &mut busy.stage else { return };
        let found = *found;
        let Some(chunk) = chunk else { return self.ends(number, Ended::Done(Reply::Body(None)), Some(at)) };
        let last = *next + 1 == content.chunks;
        let key = <[u8; 32]>::try_from(content.body_key.as_slice()).map(Key::from_bytes).ok();
        let body: BodyId = content.body;
        let opened = key.and_then(|key| open_chunk(body, &key, *next, last, &chunk).ok());
        let Some(opened) = opened else { return self.ends(number, Ended::Done(Reply::BodyDamaged), Some(at)) };
        plain.extend_from_slice(&opened);
        *next += 1;
        if !last {
            return self.asks_chunk(number);
        }
        let reply = match message::marker_of_text(plain) {
            Some(marker) => Reply::Body(Some(marker)),
            None => Reply::BodyDamaged,
        };
        self.ends(number, Ended::Done(reply), Some(found));
    }

    fn resumed(&mut self, number: u64, id: CommandId, since: u64, result: Result<Answer, Refused>) {
        let at = self.now;
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let Some(following) = session.following.as_mut() else { return };
        let folder = following.folder();
        match result {
            Ok(Answer::Resumed(resumed)) => {
                following.resumed(id, resumed.clone());
                self.record(Record::Resumed { at, session: number, folder, since, resumed });
            }
            Err(Refused::Mailbox(refusal)) => match following.refused(id, &refusal) {
                Some(_) => {
                    session.following = None;
                    self.record(Record::Closed { at, session: number });
                }
                None => self.drops_conn(number),
            },
            Ok(_) | Err(_) => self.drops_conn(number),
        }
        self.advance(number);
    }

    /// The actor's end of the connection is gone.
    fn detached(&mut self, number: u64, why: Detached) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        match session.busy.as_mut() {
            Some(_) if why == Detached::NoSuchMailbox => self.ends(number, Ended::NoSuchMailbox, None),
            Some(busy) => {
                if busy.asked.take().is_some() {
                    let uploads = matches!(busy.stage, Stage::Upload(_));
                    busy.stage = Stage::Plain;
                    busy.attempt += u32::from(!uploads);
                }
                self.tries_later(number);
            }
            None => {
                let due = self.now + RETRY_PAUSE;
                self.wake_at(number, due);
            }
        }
    }

    /// Once more after a pause, or not at all.
    fn tries_later(&mut self, number: u64) {
        let Some(busy) = self.sessions.get(&number).and_then(|s| s.busy.as_ref()) else { return };
        if self.now >= busy.started + NO_LEADER_MAX {
            let ended = if busy.sent { Ended::Unknown } else { Ended::NotDone };
            return self.ends(number, ended, None);
        }
        let due = self.now + RETRY_PAUSE;
        self.wake_at(number, due);
    }

    /// A session that waits looks whether it still should.
    fn loses_patience(&mut self, number: u64) {
        let Some(session) = self.sessions.get(&number) else { return };
        let Some(busy) = session.busy.as_ref() else { return };
        let leader = self.leader_as_seen(session.node, self.mailboxes[&session.mailbox].partition);
        let waits = busy.asked.is_some() || session.conn.as_ref().is_some_and(|c| c.resuming.is_some());
        if !waits {
            if self.now >= busy.started + NO_LEADER_MAX {
                return self.tries_later(number);
            }
            return self.advance(number);
        }
        let resuming = busy.asked.is_none();
        let over = self.now >= busy.started + NO_LEADER_MAX;
        let there = session.conn.as_ref().is_some_and(|c| leader == Some(c.node));
        if over && (!there || resuming || self.now > busy.started + ANSWER_MAX) {
            self.drops_conn(number);
            if let Some(busy) = self.sessions.get_mut(&number).and_then(|s| s.busy.as_mut()) {
                busy.asked = None;
                busy.stage = Stage::Plain;
                busy.attempt += 1;
            }
            return self.tries_later(number);
        }
        let due = if over { self.now + PATIENCE_PAUSE } else { self.sessions[&number].busy_until() };
        self.wake_at(number, due);
    }

    /// An earlier attempt of a change, on a connection that was given up, arrives when the client has its answer.
    fn comes_late(&mut self, number: u64, busy: &Busy) {
        let Some(session) = self.sessions.get(&number) else { return };
        let Some(conn) = session.conn.as_ref() else { return };
        if busy.op.is_read() || matches!(busy.op, Op::Deliver { .. } | Op::Append { .. }) {
            return;
        }
        let (id, mailbox) = (busy.id, session.mailbox);
        let ask = ToActor::Ask { mailbox, id, attempt: busy.attempt + 1, command: Box::new(command(&busy.op)) };
        let (to, from) = (conn.node, session.node);
        let at = self.now + self.dice.exponential(LATE_COPY);
        for what in [ToActor::Attach(mailbox), ask, ToActor::Detach(mailbox)] {
            let what = Local::FromSession(number, OLD_CONN, from, Box::new(what));
            self.queue.push(at, Event::To(to, what));
        }
    }

    /// A session leaves its actor.
    pub fn drops_conn(&mut self, number: u64) {
        let Some(session) = self.sessions.get(&number) else { return };
        let mailbox = session.mailbox;
        if session.conn.is_some() {
            if self.hosts[&session.node].up.is_some() {
                self.tells_actor(number, ToActor::Detach(mailbox));
            }
            if let Some(session) = self.sessions.get_mut(&number) {
                session.conn = None;
            }
        }
    }

    fn tells_actor(&mut self, number: u64, what: ToActor) {
        let Some(session) = self.sessions.get(&number) else { return };
        let Some(conn) = session.conn.as_ref() else { return };
        let (from, to, name) = (session.node, conn.node, (number, conn.number));
        let event = Event::To(to, Local::FromSession(name.0, name.1, from, Box::new(what)));
        self.send(from, to, name, event);
    }

    fn wake_at(&mut self, number: u64, at: Micros) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        session.timer += 1;
        let timer = session.timer;
        self.queue.push(at, Event::Wake(number, timer));
    }

    /// The client has its answer, or gives up; what it does next.
    fn ends(&mut self, number: u64, ended: Ended, position: Option<At>) {
        let again = match (&ended, self.sessions.get(&number).and_then(|s| s.busy.as_ref()).map(|b| &b.op)) {
            (Ended::Unknown | Ended::NotDone, Some(Op::Deliver { marker, .. })) => Some(*marker),
            _ => None,
        };
        if let Some((kind, mailbox)) = self.ended(number, ended, position) {
            self.after(number, kind, mailbox, again);
        }
    }

    fn ended(&mut self, number: u64, ended: Ended, position: Option<At>) -> Option<(Kind, MailboxId)> {
        let at = self.now;
        let session = self.sessions.get_mut(&number)?;
        let (kind, mailbox) = (session.kind, session.mailbox);
        let busy = session.busy.take()?;
        self.operations += 1;
        if let Ended::Done(Reply::Answer(Answer::Folders(folders))) = &ended {
            self.last_list =
                Some(folders.iter().filter(|f| f.selectable && f.id.is_some()).map(|f| f.name.clone()).collect());
        }
        if matches!(ended, Ended::Unknown) && !busy.op.is_read() {
            self.unresolved.insert(busy.id, (mailbox, at));
        }
        let outcome = match &ended {
            Ended::Done(_) => 1,
            Ended::Refused(_) => 2,
            Ended::NotDone => 3,
            Ended::NoSuchMailbox => 4,
            Ended::Unknown => 5,
        };
        self.trace.event(at, &[3, number, outcome, position.map_or(0, |p| p.index)]);
        self.trace.detail(at, || {
            let took = (at - busy.started) / 1_000;
            let position = position.map(|p| p.index);
            format!(
                "session {number} of {mailbox}: {:?} {} after {took} ms at {position:?}: {ended:?}",
                busy.op, busy.id
            )
        });
        if let Some(answers) = &mut self.answers {
            answers.insert(number, (ended.clone(), position));
        }
        let answered = matches!(ended, Ended::Done(_) | Ended::Refused(_));
        if answered && self.setup.late_copies_permille > 0 && self.dice.chance(self.setup.late_copies_permille) {
            self.comes_late(number, &busy);
        }
        self.record(Record::Ended { at, id: busy.id, ended, position });
        Some((kind, mailbox))
    }
}

fn stored(op: &Op, draft: mailraft_mailbox::api::Draft) -> Command {
    match op {
        Op::Append { folder, flags, .. } => {
            Command::Append { folder: folder.clone(), draft, flags: flags.clone(), internal_date: Default::default() }
        }
        _ => Command::Deliver {
            draft,
            reverse_path: "sender@example.org".to_owned(),
            detail: None,
            deduplicate: matches!(op, Op::Deliver { deduplicate: true, .. }),
            received: Default::default(),
        },
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
        Op::ReadBody { folder, uid } => Command::Fetch {
            folder,
            uids: [uid].into_iter().collect(),
            what: FetchWhat { content: true, header: false },
        },
    }
}

impl Session {
    /// When its command's first patience ends.
    fn busy_until(&self) -> Micros {
        self.busy.as_ref().map_or(0, |b| b.started + NO_LEADER_MAX)
    }
}
