//! A real mailbox for the tests of protocol engines: the engine and its owner over rows in memory. Each entry is applied at once, as a
//! replica would.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mailraft_mailbox::api::{NewMessage, ZonedTime};
use mailraft_mailbox::owner::{Ask, Lead, Own, Step};
use mailraft_mailbox::{
    Answer, Command, Event, Flags, Mailbox, MailboxKey, MailboxOwner, Notice, Owner, Place, Refusal, Reply,
    SessionNumber, UidSet, chunk_key, open_body_key, open_body_row,
};
use mailraft_message::{Described, header};
use mailraft_storage::body::{BodyId, CHUNK_PLAIN_BYTES, chunk_count, seal_chunk};
use mailraft_storage::entry::{CommandRow, versioned_encode};
use mailraft_storage::memory::MemoryRows;
use mailraft_storage::rows::{Applied, ReplicaBatch};
use mailraft_storage::seal::Key;
use mailraft_storage::{
    ClusterId, EntryKind, Env, Epoch, Incarnation, Index, MailboxId, Proposal, ProposalOutcome, ReplicaId, RowBatch,
    RowKey, Rows, Term, Verdict,
};

/// The version of ENVELOPE and BODYSTRUCTURE as the mailbox keeps them.
const PARSED_VERSION: u8 = 1;
const REPLICA: ReplicaId = ReplicaId(5);
const MAILBOX: MailboxId = MailboxId([1; 16]);
const CLUSTER: ClusterId = ClusterId([9; 16]);
/// 1 January 1996.
const DELIVERED: ZonedTime = ZonedTime { unix_seconds: 820_454_400, zone_minutes: 0 };

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// The session under test.
    Client,
    /// Another session of the same protocol.
    Another,
    /// Everybody else.
    Others,
}

/// A mailbox with its first folders, its owner, and the replies to the sessions that were not heard yet.
pub struct RealMailbox {
    rows: MemoryRows,
    env: Env,
    key: MailboxKey,
    incarnation: Incarnation,
    owner: MailboxOwner<Who>,
    replies: BTreeMap<Who, VecDeque<Reply>>,
}

impl RealMailbox {
    /// A new one.
    pub fn new() -> Self {
        let rows = MemoryRows::new();
        let mut env = Env::seeded(1);
        let key = MailboxKey::new(Key::generate(&mut env), Epoch(1));
        let incarnation = Incarnation { number: 1, nonce: [7; 16] };
        let mut mailbox =
            RealMailbox { rows, env, key, incarnation, owner: MailboxOwner::new(), replies: BTreeMap::new() };
        mailbox.fail_over();
        mailbox
    }

    /// Another owner begins, and all sessions attach to it.
    pub fn fail_over(&mut self) {
        let place = Place {
            cluster: CLUSTER,
            mailbox: MAILBOX,
            replica: REPLICA,
            incarnation: self.incarnation,
            term: Term(3),
            began_alone: false,
        };
        let engine = Mailbox::load(Arc::new(self.rows.clone()), place, self.key.clone()).unwrap();
        self.owner = MailboxOwner::new();
        for (who, number) in [(Who::Client, 1), (Who::Another, 2), (Who::Others, 3)] {
            self.owner.attach(who, SessionNumber(number));
        }
        self.act(|owner, env, out| owner.loaded(env, Ok(engine), out));
    }

    /// Another region takes the home's place.
    pub fn take_over(&mut self) {
        self.incarnation.number += 1;
        self.fail_over();
    }

    /// A session's link breaks, and it makes another one.
    pub fn attach_again(&mut self, who: Who) {
        self.owner.detach(who);
        self.owner.attach(who, SessionNumber(9));
    }

    /// Time goes by.
    pub fn wait(&mut self, time: Duration) {
        self.env.now += time;
    }

    /// A command, and everything that follows from it.
    ///
    /// # Errors
    /// What the mailbox decides.
    pub fn ask(&mut self, session: Who, command: Command) -> Result<Answer, Refusal> {
        let id = self.env.command_id();
        self.act(|owner, env, out| owner.ask(env, Ask { session, id, attempt: 0, command }, out));
        let replies = self.replies.entry(session).or_default();
        let is_it = |reply: &Reply| matches!(reply, Reply::Answer { id: of, .. } if *of == id);
        let at = replies.iter().position(is_it).expect("every command is answered");
        match replies.remove(at) {
            Some(Reply::Answer { result, .. }) => result,
            other => panic!("{other:?}"),
        }
    }

    /// What the others ask is done.
    pub fn others(&mut self, command: Command) -> Answer {
        self.ask(Who::Others, command).unwrap()
    }

    /// Events that were told to the session under test.
    pub fn take_events(&mut self) -> Vec<Event> {
        let replies = self.replies.entry(Who::Client).or_default();
        let (events, others) = replies.drain(..).partition(|reply| matches!(reply, Reply::Event(_)));
        let events: VecDeque<Reply> = events;
        *replies = others;
        let event = |reply| if let Reply::Event(event) = reply { Some(Arc::unwrap_or_clone(event)) } else { None };
        events.into_iter().filter_map(event).collect()
    }

    /// What the session under test heard of other folders.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        let replies = self.replies.entry(Who::Client).or_default();
        let (notices, others) = replies.drain(..).partition(|reply| matches!(reply, Reply::Notice(_)));
        let notices: VecDeque<Reply> = notices;
        *replies = others;
        let notice = |reply| if let Reply::Notice(notice) = reply { Some(notice) } else { None };
        notices.into_iter().filter_map(notice).collect()
    }

    /// Whether events were told to the session under test.
    pub fn has_events(&self) -> bool {
        self.replies.get(&Who::Client).is_some_and(|replies| !replies.is_empty())
    }

    /// Others put a message into a folder.
    pub fn append(&mut self, folder: &str, message: &[u8]) {
        let new_message = self.new_message(message);
        let (folder, flags) = (folder.to_owned(), Flags::none());
        self.others(Command::Append { folder, new_message, flags, internal_date: DELIVERED });
    }

    /// Others copy messages within INBOX until it has so many.
    pub fn fill(&mut self, count: u32) {
        let folder = self.folder("INBOX");
        loop {
            let Answer::Selected(selected) =
                self.others(Command::Select { folder: "INBOX".into(), claim_recent: false })
            else {
                panic!("INBOX can't be opened")
            };
            let have = selected.messages.len() as u32;
            if have >= count {
                return;
            }
            let uids = UidSet::range(1, have.min(count - have));
            self.others(Command::Copy { folder, uids, to: "INBOX".into() });
        }
    }

    /// The most bytes of messages from now on.
    pub fn set_quota_bytes(&mut self, quota: Option<u64>) {
        self.owner.set_quota_bytes(quota);
    }

    /// Others move messages of INBOX away: their UIDs are no more.
    pub fn expunge(&mut self, uids: UidSet) {
        let folder = self.folder("INBOX");
        self.others(Command::Move { folder, uids, to: "Trash".into() });
    }

    /// The folder of a name.
    pub fn folder(&mut self, name: &str) -> mailraft_mailbox::api::FolderId {
        match self.others(Command::Select { folder: name.into(), claim_recent: false }) {
            Answer::Selected(selected) => selected.folder,
            other => panic!("{other:?}"),
        }
    }

    /// A message as a session's node prepares it; a large one is uploaded.
    pub fn new_message(&mut self, message: &[u8]) -> NewMessage {
        let (body, key) = (BodyId::generate(&mut self.env), Key::generate(&mut self.env));
        let chunks = chunk_count(message.len() as u64);
        let mut sealed: Vec<Bytes> = (0u32..)
            .zip(message.chunks(CHUNK_PLAIN_BYTES))
            .map(|(number, plain)| seal_chunk(body, &key, number, number + 1 == chunks, plain))
            .collect();
        if message.is_empty() {
            sealed.push(seal_chunk(body, &key, 0, true, b""));
        }
        let inline = (chunks == 1).then(|| sealed.remove(0));
        if inline.is_none() {
            let wall = self.env.wall;
            let mut batch = RowBatch::default();
            let open = open_body_row(&mut self.env, &self.key, CLUSTER, MAILBOX, body, chunks, wall);
            batch.put(open_body_key(MAILBOX, body), open);
            for (number, chunk) in (0..).zip(sealed) {
                batch.put(chunk_key(MAILBOX, body, number), chunk);
            }
            self.write(batch);
        }
        let block = &message[..header::header_len(message)];
        let described = Described::of(message).unwrap();
        NewMessage {
            body,
            body_key: key,
            chunks,
            inline,
            size_bytes: message.len() as u64,
            digest: self.env.bytes(),
            content_digest: self.env.bytes(),
            header: Bytes::copy_from_slice(header::kept(block)),
            envelope: versioned_encode(PARSED_VERSION, &described.envelope).into(),
            structure: versioned_encode(PARSED_VERSION, &described.structure).into(),
            message_id: None,
        }
    }

    /// Lets the owner do something, and carries out what it wants done.
    fn act(&mut self, act: impl FnOnce(&mut MailboxOwner<Who>, &mut Env, &mut Vec<Step<Who>>)) {
        let mut steps = Vec::new();
        act(&mut self.owner, &mut self.env, &mut steps);
        let mut steps = VecDeque::from(steps);
        while let Some(step) = steps.pop_front() {
            let mut more = Vec::new();
            match step {
                Step::Propose(proposal) => {
                    let (index, verdict) = self.apply(proposal);
                    self.owner.decided(&mut self.env, ProposalOutcome::Applied { index, verdict }, &mut more);
                }
                Step::Own(Own::Barrier { number, rows, held: _ }) => {
                    let read = rows.map(|read| read.run(&self.rows));
                    self.owner.confirmed(number, Lead::Confirmed, read, &mut more);
                }
                Step::Own(own @ (Own::Errand(_) | Own::Outward(_))) => {
                    unreachable!("a session's mailbox is no queue: {own:?}")
                }
                Step::Own(Own::Reply { to, reply }) => self.replies.entry(to).or_default().push_back(reply),
                Step::Pause { .. } => self.owner.again(&mut self.env, &mut more),
                Step::Unreadable { error, .. } => panic!("{error}"),
                Step::End { .. } => panic!("nothing ends this owner"),
            }
            steps.extend(more);
        }
    }

    fn apply(&mut self, proposal: Proposal) -> (Index, Verdict) {
        let EntryKind::Rows(body) = proposal.kind else { panic!("an owner proposes rows") };
        if body.requires.iter().any(|key| self.rows.get(REPLICA, key).unwrap().is_none()) {
            return (self.write(RowBatch::default()), Verdict::Missing);
        }
        let (mut batch, index) = (body.batch, self.next_index());
        for (id, result) in body.results {
            batch.put(RowKey::command(id), CommandRow { index, mailbox: MAILBOX, result }.encode());
        }
        (self.write(batch), Verdict::Accepted)
    }

    fn next_index(&self) -> Index {
        Index(self.rows.applied(REPLICA).unwrap().map_or(0, |applied| applied.index.0) + 1)
    }

    fn write(&self, batch: RowBatch) -> Index {
        let index = self.next_index();
        let applied = Applied { index, ..Applied::default() };
        self.rows.write(&[ReplicaBatch { replica: REPLICA, batch, applied }]).unwrap();
        index
    }
}

impl Default for RealMailbox {
    fn default() -> Self {
        Self::new()
    }
}
