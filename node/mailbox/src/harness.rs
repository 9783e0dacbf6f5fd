//! A mailbox over rows in memory for tests: applies proposals as a replica would.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use mailraft_owner::Outcome;
use mailraft_storage::body::{BodyId, CHUNK_PLAIN_BYTES, chunk_count};
use mailraft_storage::entry::{CommandRow, ENTRY_MAX_BYTES, Entry, EntryHeader, KNOWN_REQUIRED_FLAGS};
use mailraft_storage::memory::MemoryRows;
use mailraft_storage::rows::{Applied, ReplicaBatch};
use mailraft_storage::seal::Key;
use mailraft_storage::{
    ClusterId, CommandId, EntryKind, Env, Epoch, Incarnation, Index, MailboxId, Proposal, ReplicaId, RowBatch, RowKey,
    Rows, Table, Term, UnixMillis, Verdict,
};

use crate::api::{Answer, Command, Event, FolderId, NewMessage, Refusal, Selected, ZonedTime};
use crate::flags::Flags;
use crate::notice::{ListNews, News};
use crate::{
    Deciding, Mailbox, MailboxKey, Place, Read, SessionNumber, Submitted, UidSet, chunk_key, open_body_key,
    open_body_row,
};

pub const REPLICA: ReplicaId = ReplicaId(5);

pub struct World {
    pub rows: MemoryRows,
    pub env: Env,
    pub place: Place,
    pub key: MailboxKey,
    pub mailbox: Deciding<Mailbox>,
    pub events: Vec<Event>,
    pub lists: Vec<Arc<ListNews>>,
    pub answers: BTreeMap<CommandId, (Result<Answer, Refusal>, Index)>,
    /// Rows of the last entry: puts, deletes.
    pub last: (usize, usize),
    /// The most rows that an entry wrote and deleted.
    pub most_rows: usize,
    pub entries: usize,
}

impl World {
    /// A mailbox with its first folders.
    pub fn new() -> Self {
        let mut world = Self::sharing(MemoryRows::new(), 1);
        world.drain();
        world
    }

    /// A new mailbox without any entry, in a store that others may use.
    pub fn sharing(rows: MemoryRows, number: u8) -> Self {
        World::of(rows, number, MailboxId([number; 16]))
    }

    /// The queue mailbox of a partition.
    pub fn queue() -> Self {
        World::of(MemoryRows::new(), 99, MailboxId::queue_of(mailraft_storage::PartitionId(3)))
    }

    fn of(rows: MemoryRows, number: u8, mailbox: MailboxId) -> Self {
        let mut env = Env::seeded(u64::from(number));
        let key = MailboxKey::new(Key::generate(&mut env), Epoch(1));
        let place = Place {
            cluster: ClusterId([9; 16]),
            mailbox,
            replica: REPLICA,
            incarnation: Incarnation { number: 1, nonce: [7; 16] },
            term: Term(3),
            began_alone: false,
        };
        let mailbox = Deciding::new(Mailbox::load(Arc::new(rows.clone()), place, key.clone()).unwrap());
        let (events, lists, answers) = (Vec::new(), Vec::new(), BTreeMap::new());
        World { rows, env, place, key, mailbox, events, lists, answers, last: (0, 0), most_rows: 0, entries: 0 }
    }

    /// Another owner takes over: only the rows stay.
    pub fn reload(&mut self) {
        self.mailbox = Deciding::new(self.load());
    }

    /// The engine that another owner would have.
    pub fn load(&self) -> Mailbox {
        Mailbox::load(Arc::new(self.rows.clone()), self.place, self.key.clone()).unwrap()
    }

    /// A second owner loaded from the rows, for comparing.
    pub fn assert_rows_are_memory(&self) {
        let loaded = self.load();
        if let Err(difference) = self.mailbox.engine().state().same_mail(loaded.state()) {
            panic!("rows are not memory: {difference}");
        }
    }

    pub fn next_index(&self) -> Index {
        Index(self.rows.applied(REPLICA).unwrap().map_or(0, |a| a.index.0) + 1)
    }

    /// Applies an entry as a replica does.
    pub fn apply(&mut self, proposal: Proposal) -> (Index, Verdict) {
        let index = self.next_index();
        let entry = Entry {
            header: EntryHeader {
                cluster: self.place.cluster,
                incarnation: proposal.incarnation,
                mailbox: proposal.mailbox,
                decided_in: proposal.term,
                command: proposal.command,
                stamp: UnixMillis(1),
                required_flags: KNOWN_REQUIRED_FLAGS,
                needs_control: Index(0),
                confirmed: Index(0),
                mode: 0,
            },
            kind: proposal.kind,
        };
        let size = entry.encode().len();
        assert!(size <= ENTRY_MAX_BYTES, "an entry of {size} bytes");
        let EntryKind::Rows(body) = entry.kind else { panic!("not rows") };
        let keys = body.batch.puts.iter().map(|(k, _)| k).chain(&body.batch.deletes);
        let mut seen = BTreeSet::new();
        for key in keys {
            assert_eq!(key.mailbox, self.place.mailbox);
            assert!(seen.insert(key), "a key stands twice in an entry");
        }
        let missing = body.requires.iter().any(|key| self.rows.get(REPLICA, key).unwrap().is_none());
        let (mut batch, verdict) =
            if missing { (RowBatch::default(), Verdict::Missing) } else { (body.batch, Verdict::Accepted) };
        if !missing {
            self.last = (batch.puts.len(), batch.deletes.len());
            self.most_rows = self.most_rows.max(batch.puts.len() + batch.deletes.len());
            self.entries += 1;
            for (id, result) in body.results {
                let row = CommandRow { index, mailbox: self.place.mailbox, result };
                batch.put(RowKey::command(id), row.encode());
            }
        }
        self.write(index, batch);
        (index, verdict)
    }

    pub fn write(&self, index: Index, batch: RowBatch) {
        let applied = Applied { index, ..Applied::default() };
        self.rows.write(&[ReplicaBatch { replica: REPLICA, batch, applied }]).unwrap();
    }

    /// One entry decided, applied and answered. False if there was nothing to do.
    pub fn step(&mut self) -> bool {
        let Some(proposal) = self.mailbox.next_entry(&mut self.env) else { return false };
        let (index, verdict) = self.apply(proposal);
        let outcome = self.mailbox.applied(index, verdict);
        self.note(outcome);
        true
    }

    pub fn note(&mut self, outcome: Outcome<Mailbox>) {
        for news in outcome.events {
            match news {
                News::InFolder(event) => self.events.push(event),
                News::OfList { news, .. } => self.lists.push(news),
            }
        }
        for (id, answer, index) in outcome.answers {
            assert!(self.answers.insert(id, (answer, index)).is_none(), "answered twice");
        }
    }

    pub fn drain(&mut self) {
        while self.step() {}
    }

    pub fn submit(&mut self, session: u64, command: Command) -> CommandId {
        let id = self.env.command_id();
        let submitted = self.mailbox.submit(SessionNumber(session), id, 0, command);
        assert!(matches!(submitted, Submitted::Queued), "{submitted:?}");
        id
    }

    /// A command and everything that follows from it.
    pub fn run(&mut self, command: Command) -> Result<Answer, Refusal> {
        if command.is_read() {
            return match self.mailbox.engine_mut().read(&self.env, &command) {
                Read::Answered(answer, _) => answer,
                Read::Heard => Ok(Answer::Done),
                Read::Stored(read) => Ok(read.run(&self.rows).unwrap().answer),
                Read::TooEarly => panic!("no folders yet"),
            };
        }
        let id = self.submit(1, command);
        self.drain();
        self.answers.get(&id).expect("answered").0.clone()
    }

    pub fn new_message(&mut self, text: &str) -> NewMessage {
        new_message(&mut self.env, text)
    }

    /// A new message whose chunks were uploaded at this time.
    pub fn uploaded(&mut self, chunks: u32, opened: UnixMillis) -> NewMessage {
        let mut new_message = self.new_message("large");
        new_message.inline = None;
        new_message.size_bytes = u64::from(chunks) * CHUNK_PLAIN_BYTES as u64;
        new_message.chunks = chunk_count(new_message.size_bytes);
        let mailbox = self.place.mailbox;
        let open =
            open_body_row(&mut self.env, &self.key, self.place.cluster, mailbox, new_message.body, chunks, opened);
        let mut batch = RowBatch::default();
        batch.put(open_body_key(mailbox, new_message.body), open);
        for n in 0..chunks {
            batch.put(chunk_key(mailbox, new_message.body, n), vec![n as u8]);
        }
        self.write(self.next_index(), batch);
        new_message
    }

    pub fn append(&mut self, folder: &str, text: &str) -> u32 {
        let new_message = self.new_message(text);
        stored_uid(self.run(append(folder, new_message, Flags::none())))
    }

    pub fn select(&mut self, folder: &str) -> Selected {
        match self.run(Command::Select { folder: folder.into(), claim_recent: false }) {
            Ok(Answer::Selected(selected)) => selected,
            other => panic!("{other:?}"),
        }
    }

    pub fn id(&mut self, folder: &str) -> FolderId {
        self.select(folder).folder
    }

    pub fn uids(&mut self, folder: &str) -> Vec<u32> {
        self.select(folder).messages.iter().map(|m| m.uid).collect()
    }

    /// At least so many messages in a folder, all the same one, by copying.
    pub fn fill(&mut self, folder: &str, count: u32) {
        self.append(folder, "seed");
        let id = self.id(folder);
        loop {
            let have = self.select(folder).messages.len() as u32;
            if have >= count {
                return;
            }
            let uids = UidSet::range(1, have.min(count - have));
            self.run(Command::Copy { folder: id, uids, to: folder.into() }).unwrap();
        }
    }

    pub fn count(&self, table: Table) -> usize {
        self.rows.scan(REPLICA, self.place.mailbox, table, &[], &[], usize::MAX).unwrap().len()
    }
}

pub fn new_message(env: &mut Env, text: &str) -> NewMessage {
    NewMessage {
        body: BodyId::generate(env),
        body_key: Key::from_bytes([7; 32]),
        chunks: 1,
        inline: Some(Bytes::from(text.as_bytes().to_vec())),
        size_bytes: text.len() as u64,
        digest: [1; 32],
        content_digest: [2; 32],
        header: Bytes::from_static(b"Subject: x\r\n\r\n"),
        envelope: Bytes::from_static(b"e"),
        structure: Bytes::from_static(b"s"),
        message_id: Some(format!("<{text}@x>")),
    }
}

pub fn append(folder: &str, new_message: NewMessage, flags: Flags) -> Command {
    Command::Append { folder: folder.into(), new_message, flags, internal_date: ZonedTime::default() }
}

pub fn deliver(new_message: NewMessage, reverse_path: &str, detail: Option<&str>) -> Command {
    Command::Deliver {
        new_message,
        reverse_path: reverse_path.into(),
        detail: detail.map(Into::into),
        deduplicate: true,
        received: ZonedTime::default(),
    }
}

pub fn create(name: &str) -> Command {
    Command::CreateFolder { name: name.into() }
}

pub fn stored_uid(answer: Result<Answer, Refusal>) -> u32 {
    match answer {
        Ok(Answer::Stored { uid, .. }) => uid,
        other => panic!("{other:?}"),
    }
}

pub const ALL: fn() -> UidSet = || UidSet::range(1, u32::MAX);

/// A digest of a text, as good as any for a test.
pub fn digest(text: &str) -> [u8; 32] {
    Key::from_bytes([1; 32]).keyed_hash(&[text.as_bytes()])
}
