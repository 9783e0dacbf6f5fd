//! One mailbox engine over rows in memory, and clients whose history is written down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use mailraft_checkers::{At, Bounds, Checker, Ended, Op, Record, Reply, Report, Rule};
use mailraft_mailbox::api::{Change, FetchWhat, FolderId, NewMessage, ZonedTime};
use mailraft_mailbox::notice::News;
use mailraft_mailbox::{
    Answer, Command, Deciding, Event, Flags, Mailbox, MailboxKey, Once, Place, Read, Refusal, SessionNumber, Submitted,
    UidSet,
};
use mailraft_storage::body::BodyId;
use mailraft_storage::entry::CommandRow;
use mailraft_storage::memory::MemoryRows;
use mailraft_storage::rows::{Applied, ReplicaBatch};
use mailraft_storage::seal::Key;
use mailraft_storage::{
    ClusterId, CommandId, EntryKind, Env, Epoch, Incarnation, Index, MailboxId, Proposal, ReplicaId, RowBatch, RowKey,
    Rows, Term, Verdict,
};

pub const MAILBOX: MailboxId = MailboxId([1; 16]);
pub const PARTITION: u32 = 3;
const REPLICA: ReplicaId = ReplicaId(5);
/// How long each step takes.
pub const STEP_MICROS: u64 = 500_000;

/// A session's open folder, as it needs to know it for resuming.
pub struct Open {
    pub folder: FolderId,
    uid_validity: u32,
    modseq: u64,
    known: BTreeSet<u32>,
}

pub struct World {
    pub env: Env,
    rows: MemoryRows,
    place: Place,
    key: MailboxKey,
    mailbox: Deciding<Mailbox>,
    index: u64,
    pub now: u64,
    pub records: Vec<Record>,
    /// Commands without an answer, and whose they are.
    pub waiting: BTreeMap<CommandId, u64>,
    pub open: BTreeMap<u64, Open>,
    /// Folders that somebody opened.
    pub ids: BTreeSet<FolderId>,
    pub marker: u64,
    last: Option<CommandId>,
    /// How the next is asked, if it is one that is done once.
    once: Option<Once>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut env = Env::seeded(seed);
        let (rows, key) = (MemoryRows::new(), MailboxKey::new(Key::generate(&mut env), Epoch(1)));
        let place = Place {
            cluster: ClusterId([9; 16]),
            mailbox: MAILBOX,
            replica: REPLICA,
            incarnation: Incarnation { number: 1, nonce: [7; 16] },
            term: Term(3),
            began_alone: false,
        };
        let mailbox = Deciding::new(Mailbox::load(Arc::new(rows.clone()), place, key.clone()).unwrap());
        let mut world = World {
            env,
            rows,
            place,
            key,
            mailbox,
            index: 0,
            now: 0,
            records: vec![Record::Mailbox { mailbox: MAILBOX, partition: PARTITION }],
            waiting: BTreeMap::new(),
            open: BTreeMap::new(),
            ids: BTreeSet::new(),
            marker: 0,
            last: None,
            once: None,
        };
        while world.step(true) {}
        world
    }

    fn pass(&mut self) {
        self.now += STEP_MICROS;
        self.env.wall.0 += STEP_MICROS / 1_000;
    }

    /// A number below `below`.
    pub fn any(&mut self, below: u64) -> u64 {
        u64::from_be_bytes(self.env.bytes()) % below
    }

    /// Asks, and gives the answer of a read.
    pub fn ask(&mut self, session: u64, op: Op) -> CommandId {
        self.pass();
        let id = self.env.command_id();
        self.last = Some(id);
        let command = self.command(&op);
        let once = self.once.take();
        let heard = once.as_ref().map(|once| once.heard.clone()).unwrap_or_default();
        let command = match once {
            Some(once) => Command::Once { once, command: Box::new(command) },
            None => command,
        };
        if matches!(op, Op::Select { .. } | Op::Unselect) {
            self.open.remove(&session);
        }
        self.records.push(Record::Asked { at: self.now, session, mailbox: MAILBOX, id, op: op.clone() });
        if !heard.is_empty() {
            self.records.push(Record::Hears { at: self.now, id, commands: heard });
        }
        if command.is_read() {
            let (answer, index) = self.read(&command);
            self.answer(session, id, &op, answer, index);
            return id;
        }
        match self.mailbox.submit(SessionNumber(session), id, 0, command) {
            Submitted::Queued => {
                self.waiting.insert(id, session);
            }
            Submitted::Overloaded => {
                self.records.push(Record::Ended { at: self.now, id, ended: Ended::NotDone, position: None });
            }
            other => panic!("{other:?}"),
        }
        id
    }

    /// Asks for what is done once.
    pub fn ask_once(&mut self, session: u64, op: Op, once: Once) -> CommandId {
        let date = if let Op::Append { date, .. } = &op { date.unwrap_or_default() } else { 0 };
        let mut request = [0; 32];
        request[..8].copy_from_slice(&date.to_be_bytes());
        self.once = Some(Once { request, ..once });
        self.ask(session, op)
    }

    /// The same, and everything that follows from it.
    pub fn run_once(&mut self, session: u64, op: Op, once: Once) -> CommandId {
        let id = self.ask_once(session, op, once);
        while self.step(true) {}
        id
    }

    fn read(&mut self, command: &Command) -> (Result<Answer, Refusal>, Index) {
        match self.mailbox.engine_mut().read(&self.env, command) {
            Read::Answered(answer, index) => (answer, index),
            Read::Stored(read) => {
                let index = read.position();
                (Ok(read.run(&self.rows).unwrap().answer), index)
            }
            Read::Heard => panic!("it is answered"),
            Read::TooEarly => panic!("the first folders are there"),
        }
    }

    /// Asks, and everything that follows from it.
    pub fn run(&mut self, session: u64, op: Op) -> CommandId {
        let id = self.ask(session, op);
        while self.step(true) {}
        id
    }

    /// One entry. Its answers are given, or else lost: then the table of commands tells of them at the end.
    pub fn step(&mut self, answered: bool) -> bool {
        let Some(proposal) = self.mailbox.next_entry(&mut self.env) else { return false };
        self.pass();
        let verdict = self.apply(proposal);
        let outcome = self.mailbox.applied(Index(self.index), verdict);
        for news in outcome.events.iter().filter(|_| answered) {
            // What those hear who watch folders is in no view.
            if let News::InFolder(event) = news {
                self.tell(event);
            }
        }
        for (id, answer, index) in outcome.answers {
            let Some(session) = self.waiting.remove(&id) else { continue };
            let at = self.at(index);
            if !answered {
                self.records.push(Record::Ended { at: self.now, id, ended: Ended::Unknown, position: None });
                self.records.push(Record::Resolved { id, outcome: Some((at, answer)) });
                continue;
            }
            self.answer(session, id, &Op::Sync, answer, index);
        }
        true
    }

    /// The owner is gone: nothing that waited is carried out, and every session comes back to the next one.
    pub fn fail_over(&mut self) {
        self.pass();
        for (id, _) in std::mem::take(&mut self.waiting) {
            self.records.push(Record::Ended { at: self.now, id, ended: Ended::Unknown, position: None });
            self.records.push(Record::Resolved { id, outcome: None });
        }
        let mailbox = Mailbox::load(Arc::new(self.rows.clone()), self.place, self.key.clone()).unwrap();
        self.mailbox = Deciding::new(mailbox);
        self.sessions_resume();
    }

    /// The same, and the next one begins while the home answers alone.
    pub fn fail_over_alone(&mut self) {
        self.place.began_alone = true;
        self.place.term.0 += 1;
        self.fail_over();
        while self.step(true) {}
    }

    /// Another region takes over with what this world has, and the sessions of one that went on are its own. What that one
    /// answered since then is lost.
    pub fn takes_over_from(&mut self, lost: World, lost_since: u64) {
        (self.records, self.open, self.now, self.marker) = (lost.records, lost.open, lost.now, lost.marker);
        self.env = Env::seeded(2);
        self.env.wall = lost.env.wall;
        self.takes_over(Some(lost_since));
    }

    /// Another region takes over with what this world has, and lacks what was answered since then.
    pub fn takes_over(&mut self, lost_since: Option<u64>) {
        self.pass();
        self.place.incarnation.number += 1;
        let (at, fork, incarnation) = (self.now, self.index, self.place.incarnation.number);
        self.records.push(Record::TakenOver { at, partition: PARTITION, incarnation, fork, lost_since });
        let mailbox = Mailbox::load(Arc::new(self.rows.clone()), self.place, self.key.clone()).unwrap();
        self.mailbox = Deciding::new(mailbox);
        while self.step(true) {}
        self.sessions_resume();
    }

    fn sessions_resume(&mut self) {
        for (session, mut open) in std::mem::take(&mut self.open) {
            let command = Command::Resume {
                folder: open.folder,
                uid_validity: open.uid_validity,
                since: open.modseq,
                known: open.known.iter().copied().collect(),
            };
            let (answer, _) = self.read(&command);
            let Ok(Answer::Resumed(resumed)) = answer else {
                self.records.push(Record::Closed { at: self.now, session });
                continue;
            };
            let since = open.modseq;
            open.modseq = resumed.highest_modseq;
            open.known.retain(|uid| !resumed.vanished.contains(*uid));
            open.known.extend(resumed.changed.iter().map(|m| m.uid));
            self.records.push(Record::Resumed { at: self.now, session, folder: open.folder, since, resumed });
            self.open.insert(session, open);
        }
    }

    pub fn at(&self, index: Index) -> At {
        At { partition: PARTITION, incarnation: self.place.incarnation.number, index: index.0 }
    }

    fn tell(&mut self, event: &Event) {
        for (session, open) in &mut self.open {
            if open.folder != event.folder {
                continue;
            }
            open.modseq = event.modseq;
            match &event.change {
                Change::Added(messages) => open.known.extend(messages.iter().map(|m| m.uid)),
                Change::Flagged(_) => {}
                Change::Expunged(uids) => open.known.retain(|uid| !uids.contains(*uid)),
                Change::FolderDeleted => {}
            }
            self.records.push(Record::Event { at: self.now, session: *session, event: event.clone() });
        }
        if event.change == Change::FolderDeleted {
            self.open.retain(|_, open| open.folder != event.folder);
        }
    }

    fn answer(&mut self, session: u64, id: CommandId, op: &Op, answer: Result<Answer, Refusal>, index: Index) {
        let (at, position) = (self.now, Some(self.at(index)));
        let ended = match answer {
            Err(refusal) => Ended::Refused(refusal),
            Ok(Answer::Selected(selected)) => {
                let open = Open {
                    folder: selected.folder,
                    uid_validity: selected.uid_validity,
                    modseq: selected.highest_modseq,
                    known: selected.messages.iter().map(|m| m.uid).collect(),
                };
                self.ids.insert(open.folder);
                self.open.insert(session, open);
                let opened = Record::Opened { at, session, mailbox: MAILBOX, selected: selected.clone() };
                self.records.push(opened);
                Ended::Done(Reply::Answer(Answer::Selected(selected)))
            }
            Ok(Answer::Fetched(fetched)) => {
                let lines = fetched.into_iter().map(|f| {
                    let header = f.header.unwrap().header;
                    let marker = u64::from_be_bytes(header[..8].try_into().unwrap());
                    (f.state.uid, marker, f.state.flags, f.state.modseq)
                });
                let lines: Vec<_> = lines.collect();
                match op {
                    Op::ReadBody { .. } => Ended::Done(Reply::Body(lines.first().map(|l| l.1))),
                    _ => Ended::Done(Reply::Fetched(lines)),
                }
            }
            Ok(answer) => Ended::Done(Reply::Answer(answer)),
        };
        self.records.push(Record::Ended { at, id, ended, position });
    }

    fn apply(&mut self, proposal: Proposal) -> Verdict {
        self.index += 1;
        let EntryKind::Rows(body) = proposal.kind else { panic!("not rows") };
        let missing = body.requires.iter().any(|key| self.rows.get(REPLICA, key).unwrap().is_none());
        let mut batch = if missing { RowBatch::default() } else { body.batch };
        for (id, result) in body.results.into_iter().filter(|_| !missing) {
            let row = CommandRow { index: Index(self.index), mailbox: MAILBOX, result };
            batch.put(RowKey::command(id), row.encode());
        }
        let applied = Applied { index: Index(self.index), ..Applied::default() };
        self.rows.write(&[ReplicaBatch { replica: REPLICA, batch, applied }]).unwrap();
        if missing { Verdict::Missing } else { Verdict::Accepted }
    }

    fn new_message(&mut self, marker: u64) -> NewMessage {
        NewMessage {
            body: BodyId::generate(&mut self.env),
            body_key: Key::from_bytes([7; 32]),
            chunks: 1,
            inline: Some(Bytes::from_static(b"body")),
            size_bytes: 4,
            digest: [marker as u8; 32],
            content_digest: [marker as u8; 32],
            header: Bytes::from(marker.to_be_bytes().to_vec()),
            envelope: Bytes::from_static(b"e"),
            structure: Bytes::from_static(b"s"),
            message_id: Some(format!("<{marker}@x>")),
        }
    }

    fn command(&mut self, op: &Op) -> Command {
        let what = FetchWhat { content: false, header: true };
        match op.clone() {
            Op::Deliver { marker, deduplicate } => Command::Deliver {
                new_message: self.new_message(marker),
                reverse_path: "sender@x".to_owned(),
                detail: None,
                deduplicate,
                received: ZonedTime::default(),
            },
            Op::Append { folder, marker, flags, date: _ } => {
                let new_message = self.new_message(marker);
                Command::Append { folder, new_message, flags, internal_date: ZonedTime::default() }
            }
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
            Op::Select { folder } => Command::Select { folder, claim_recent: false },
            Op::Fetch { folder, uids } => Command::Fetch { folder, uids, what },
            Op::Unselect => Command::Unselect,
            Op::ReadBody { folder, uid } => Command::Fetch { folder, uids: UidSet::range(uid, uid), what },
            Op::Maildrop => Command::Maildrop,
            Op::UniqueIds { folder, uids } => Command::UniqueIds { folder, uids },
            Op::Remove { folder, uids } => Command::Remove { folder, uids },
        }
    }

    /// The last command asked.
    pub fn last(&self) -> CommandId {
        self.last.unwrap()
    }

    pub fn new_marker(&mut self) -> u64 {
        self.marker += 1;
        self.marker
    }

    pub fn append(&mut self, session: u64, folder: &str, flags: Flags) -> CommandId {
        let marker = self.new_marker();
        self.run(session, Op::Append { folder: folder.to_owned(), marker, flags, date: None })
    }
}

/// What the checks say of a history.
pub fn check(records: Vec<Record>) -> Report {
    let mut checker = Checker::new(Bounds::serving_within(10 * STEP_MICROS));
    for record in records {
        checker.record(record);
    }
    checker.finish()
}

/// Which rules a history breaks.
pub fn broken(records: Vec<Record>) -> BTreeMap<Rule, Vec<String>> {
    let mut out: BTreeMap<Rule, Vec<String>> = BTreeMap::new();
    for violation in check(records).violations {
        out.entry(violation.rule).or_default().push(violation.to_string());
    }
    out
}
