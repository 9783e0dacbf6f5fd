#![allow(clippy::unwrap_used)]

mod attacks;

use mailraft_storage::entry::{ChunkBody, RowsBody};
use mailraft_storage::log::{LogBatch, LogWrite};
use mailraft_storage::memory::MemoryLog;
use mailraft_storage::{ClusterId, CommandId, Incarnation, LogPosition};
use raft::eraftpb::{ConfChange, ConfChangeType, Entry as RaftEntry, Snapshot};

use super::*;
use crate::placement::MemberRow;

const OWN: ReplicaId = ReplicaId(1);
const OTHER: ReplicaId = ReplicaId(2);
const STAMP_MAX: UnixMillis = UnixMillis(u64::MAX);
const BORN: Incarnation = Incarnation { number: 1, nonce: [3; 16] };

/// A replica with its log, and what it wants done.
struct Bench {
    replica: Replica,
    config: NodeConfig,
    env: Env,
    log: MemoryLog,
    batch: u64,
    out: Vec<Output>,
}

impl Bench {
    fn new(voters: &[ReplicaId]) -> Self {
        Self::of(voters, Some(BORN))
    }

    fn of(voters: &[ReplicaId], incarnation: Option<Incarnation>) -> Self {
        let member = |replica: &ReplicaId| MemberRow { replica: *replica, node: NodeId(replica.0), voter: true };
        let spec = ReplicaSpec {
            partition: PartitionId(1),
            replica: OWN,
            nonce: BORN.nonce,
            members: [OWN, OTHER].iter().map(member).collect(),
        };
        let config = NodeConfig {
            node: NodeId(1),
            cluster: ClusterId([1; 16]),
            replicas: vec![spec.clone()],
            log_keep_entries: 100,
            log_keep_bytes: 1 << 30,
            log_batch_max_bytes: 1 << 20,
            region_log_keep_bytes: 1 << 30,
            regions: None,
            logger: slog::Logger::root(slog::Discard, slog::o!()),
        };
        let log = MemoryLog::new();
        let hard_state = Some(eraftpb::HardState { term: 1, commit: 1, ..Default::default() });
        let first = LogWrite {
            replica: OWN,
            reset: Some(LogPosition { index: Index(1), term: Term(1) }),
            hard_state,
            ..LogWrite::default()
        };
        log.write_synced(1, &LogBatch { writes: vec![first] }).unwrap();
        let state = Log::state(&log, OWN).unwrap().unwrap();
        let applied =
            Applied { index: Index(1), term: Term(1), voters: voters.to_vec(), incarnation, ..Applied::default() };
        let held = Held { state, applied, flushed: Index(1), ..Held::default() };
        let replica = Replica::recover(&config, spec, Arc::new(log.clone()), held, 0, Duration::ZERO).unwrap();
        Bench { replica, config, env: Env::seeded(1), log, batch: 1, out: Vec::new() }
    }

    fn collect(&mut self) -> Vec<Output> {
        self.replica.collect(&self.config, &mut self.env, Some(STAMP_MAX), &mut self.out);
        std::mem::take(&mut self.out)
    }

    /// Writes what waits as one batch; gives its part in it.
    fn sync(&mut self) -> LogWrite {
        let write = self.replica.writes().take(1 << 20, true).unwrap();
        self.batch += 1;
        self.log.write_synced(self.batch, &LogBatch { writes: vec![write.clone()] }).unwrap();
        self.replica.persisted(&self.config, &self.env, &mut self.out);
        write
    }

    fn peer(&mut self, kind: MessageType, message: Message) -> Vec<Output> {
        let mut message = Message { from: OTHER.0, to: OWN.0, ..message };
        message.set_msg_type(kind);
        self.hears(PeerBody::Raft(message)).unwrap();
        self.collect()
    }

    fn hears(&mut self, body: PeerBody) -> Result<(), PeerRefusal> {
        self.replica.peer(&self.config, OTHER, body, false, &mut self.out)
    }

    fn apply(&mut self, upto: u64, term: u64) -> Vec<Output> {
        let mut applied = self.replica.raw.store().applied().clone();
        (applied.index, applied.term) = (Index(upto), Term(term));
        self.replica.applied(applied, &[], None, &mut self.out);
        self.collect()
    }

    fn lead_alone(&mut self) {
        for _ in 0..20 {
            self.replica.tick(&self.config, &self.env, false, &mut self.out);
            self.collect();
        }
        while self.replica.writes().needs_sync() {
            self.sync();
            self.collect();
        }
        assert_eq!(self.replica.raw.raft.state, StateRole::Leader);
        self.apply(2, 2);
    }

    fn staged(&mut self, index: u64) -> Vec<Output> {
        let applied = Applied { index: Index(index), term: Term(2), voters: vec![OWN, OTHER], ..Applied::default() };
        let mut snapshot = Snapshot::default();
        snapshot.mut_metadata().index = index;
        snapshot.mut_metadata().term = 2;
        snapshot.mut_metadata().mut_conf_state().set_voters(vec![OWN.0, OTHER.0]);
        let mut message = Message { from: OTHER.0, to: OWN.0, term: 2, ..Message::default() };
        message.set_msg_type(MessageType::MsgSnapshot);
        message.set_snapshot(snapshot);
        self.replica.snapshot_staged(&self.config, OTHER, message, applied, &mut self.out).unwrap();
        self.collect()
    }
}

fn jobs(outputs: &[Output]) -> Vec<&SnapshotJob> {
    outputs.iter().filter_map(|o| if let Output::Snapshot(job) = o { Some(job) } else { None }).collect()
}

fn applies(outputs: &[Output]) -> Vec<u64> {
    let job = |o: &Output| if let Output::Apply(job) = o { Some(job.entries.clone()) } else { None };
    outputs.iter().filter_map(job).flatten().map(|(e, _)| e.index).collect()
}

fn appended(indexes: std::ops::RangeInclusive<u64>, commit: u64) -> Message {
    let after = *indexes.start() - 1;
    let entries: Vec<RaftEntry> = indexes.map(|index| RaftEntry { index, term: 2, ..RaftEntry::default() }).collect();
    let log_term = if after == 1 { 1 } else { 2 };
    let mut message = Message { term: 2, index: after, log_term, commit, ..Message::default() };
    message.set_entries(entries.into());
    message
}

/// An entry of 1 MiB.
fn large_entry() -> bytes::Bytes {
    let kind = EntryKind::Chunk(ChunkBody { body: [0; 16], number: 0, open: None, data: vec![1; 1 << 20].into() });
    Entry { header: header(), kind }.encode().into()
}

fn header() -> EntryHeader {
    EntryHeader {
        cluster: ClusterId([1; 16]),
        incarnation: BORN,
        mailbox: MailboxId([1; 16]),
        decided_in: Term(2),
        command: CommandId::default(),
        stamp: UnixMillis(1),
        required_flags: 0,
        needs_control: Index(0),
        confirmed: Index(0),
        mode: 0,
    }
}

#[test]
fn a_first_entry_that_can_not_be_proposed_while_the_lead_goes_over_is_proposed_after() {
    let mut bench = Bench::of(&[OWN], None);
    for _ in 0..20 {
        bench.replica.tick(&bench.config, &bench.env, false, &mut bench.out);
        bench.collect();
    }
    assert_eq!(bench.replica.raw.raft.state, StateRole::Leader);
    bench.replica.raw.raft.lead_transferee = Some(OTHER.0);
    while bench.replica.writes().needs_sync() {
        bench.sync();
        bench.collect();
    }
    let term = bench.replica.raw.raft.term;
    bench.apply(2, term);
    assert!(!bench.replica.lead.begin_proposed, "raft-rs takes no proposal now");
    bench.replica.raw.raft.lead_transferee = None;
    bench.collect();
    assert!(bench.replica.lead.begin_proposed);
}

#[test]
fn a_change_of_the_configuration_is_applied_only_when_its_commit_is_durable() {
    let mut bench = Bench::new(&[OWN]);
    bench.lead_alone();
    let mut change = ConfChange { node_id: OTHER.0, ..ConfChange::default() };
    change.set_change_type(ConfChangeType::AddLearnerNode);
    bench.replica.raw.propose_conf_change(Vec::new(), change).unwrap();
    assert!(applies(&bench.collect()).is_empty());
    assert_eq!(bench.sync().append.len(), 1);
    // Committed, as only one votes; but a restart would not know it yet.
    assert!(applies(&bench.collect()).is_empty(), "applied before its commit was durable");
    let hard_state = bench.sync().hard_state.unwrap();
    assert_eq!(hard_state.commit, 3);
    let outputs = bench.collect();
    assert_eq!(applies(&outputs), [3]);
    let conf = outputs.iter().find_map(|o| if let Output::Apply(job) = o { job.entries[0].1.clone() } else { None });
    assert_eq!(conf.unwrap().get_learners(), [OTHER.0]);
}

#[test]
fn rows_are_replaced_only_when_apply_has_nothing_in_hand_and_a_second_snapshot_waits() {
    let mut bench = Bench::new(&[OWN, OTHER]);
    bench.peer(MessageType::MsgAppend, appended(2..=5, 4));
    bench.sync();
    assert_eq!(applies(&bench.collect()), [2, 3, 4]);
    assert!(jobs(&bench.staged(50)).is_empty());
    assert!(jobs(&bench.staged(60)).is_empty(), "the first one's file would be thrown away");
    assert_eq!(bench.sync().mark.unwrap().held().map(|applied| applied.index), Some(Index(50)));
    assert!(jobs(&bench.collect()).is_empty(), "apply still writes rows");
    // No election may begin now: raft-rs would stop the process.
    bench.peer(MessageType::MsgTimeoutNow, Message { term: 2, ..Message::default() });
    for _ in 0..40 {
        bench.replica.tick(&bench.config, &bench.env, false, &mut bench.out);
        bench.collect();
    }
    assert_eq!(bench.replica.raw.raft.state, StateRole::Follower);
    let outputs = bench.apply(4, 2);
    assert!(matches!(jobs(&outputs)[..], [SnapshotJob::Install { applied, .. }] if applied.index == Index(50)));
    // What the leader sends meanwhile is neither durable nor applied before the rows are there.
    assert!(applies(&bench.peer(MessageType::MsgAppend, appended(51..=52, 52))).is_empty());
    assert!(!bench.replica.writes().needs_sync());
    let later = MemberRow { replica: ReplicaId(7), node: NodeId(70), voter: false };
    bench.replica.rows_installed(&GroupRows { members: vec![later], highest: ReplicaId(9), ..GroupRows::default() });
    assert_eq!(
        (bench.replica.members.node(later.replica), bench.replica.members.highest()),
        (Some(later.node), ReplicaId(9))
    );
    assert_eq!(bench.sync().reset, Some(LogPosition { index: Index(50), term: Term(2) }));
    assert!(matches!(jobs(&bench.collect())[..], [SnapshotJob::Discard { .. }]));
    assert_eq!(bench.sync().append.len(), 2);
    assert_eq!(applies(&bench.collect()), [51, 52]);
}

#[test]
fn a_change_that_waits_when_a_snapshot_comes_is_not_made_over_it() {
    let mut bench = Bench::new(&[OWN, OTHER]);
    let mut change = ConfChange { node_id: OTHER.0, ..ConfChange::default() };
    change.set_change_type(ConfChangeType::AddLearnerNode);
    let mut message = appended(2..=3, 1);
    message.mut_entries()[1].set_entry_type(raft::eraftpb::EntryType::EntryConfChange);
    message.mut_entries()[1].data = protobuf::Message::write_to_bytes(&change).unwrap().into();
    bench.peer(MessageType::MsgAppend, message);
    bench.sync();
    bench.collect();
    // That it is committed is not durable yet; by the snapshot the other votes again.
    bench.peer(MessageType::MsgHeartbeat, Message { term: 2, commit: 3, ..Message::default() });
    assert_eq!(bench.replica.commits.len(), 1);
    assert!(applies(&bench.staged(50)).is_empty());
    while bench.replica.writes().needs_sync() {
        bench.sync();
        bench.collect();
    }
    assert_eq!(bench.replica.raw.raft.prs().conf().to_conf_state().get_voters().len(), 2);
    assert!(bench.replica.members.votes(OTHER));
}

#[test]
fn the_election_window_follows_the_rank_among_the_voters() {
    let mut bench = Bench::new(&[OTHER]);
    let mut windows = Vec::new();
    for voters in [vec![OTHER], vec![OWN, OTHER], vec![ReplicaId(3), ReplicaId(4)]] {
        let applied = Applied { voters, ..Applied::default() };
        bench.replica.members.adopt(&applied, &GroupRows::default());
        bench.replica.tick(&bench.config, &bench.env, false, &mut bench.out);
        windows.push(bench.replica.raw.raft.randomized_election_timeout());
    }
    assert_eq!(windows, [12, 10, 14]);
}

#[test]
fn a_snapshot_that_is_not_news_is_thrown_away() {
    let mut bench = Bench::new(&[OWN, OTHER]);
    bench.peer(MessageType::MsgAppend, appended(2..=5, 5));
    bench.sync();
    bench.collect();
    assert!(matches!(jobs(&bench.staged(3))[..], [SnapshotJob::Discard { .. }]));
    assert!(!bench.replica.is_installing());
}

#[test]
fn of_two_voters_that_disagree_both_stop() {
    let mut bench = Bench::new(&[OWN, OTHER]);
    bench.replica.agreement.remember(7, [7; 32]);
    for (count, hash, stops) in [(7, [7; 32], false), (8, [8; 32], false), (7, [9; 32], true)] {
        let mut out = Vec::new();
        bench.hears(PeerBody::Hash { count, hash }).unwrap();
        assert!(bench.out.is_empty(), "{:?}", bench.out);
        for _ in 0..STOP_AFTER_TICKS {
            bench.replica.tick(&bench.config, &bench.env, false, &mut out);
        }
        let told = |o: &Output| matches!(o, Output::Send { message, .. } if matches!(message.body, PeerBody::Hash { count: 7, .. }));
        let stop = |o: &Output| matches!(o, Output::Abort(_));
        assert_eq!((out.iter().any(told), out.iter().any(stop)), (stops, stops), "{count}");
        assert!(!stops || out.iter().position(told) < out.iter().position(stop));
    }
}

#[test]
fn a_follower_whose_apply_lags_takes_no_more_until_it_has_room() {
    let mut bench = Bench::new(&[OWN, OTHER]);
    let mut next = 2;
    let mut taken = 0;
    for _ in 0..60 {
        let mut message = appended(next..=next, next);
        message.mut_entries()[0].data = large_entry();
        bench.peer(MessageType::MsgAppend, message);
        let last = bench.replica.raw.raft.raft_log.last_index();
        if last < next {
            break;
        }
        (next, taken) = (next + 1, taken + 1);
        // Durable, but for the bytes in the log: nobody reads them back.
        while bench.replica.writes().take(1 << 20, true).is_some() {
            bench.replica.persisted(&bench.config, &bench.env, &mut bench.out);
            bench.collect();
        }
    }
    assert!((30..40).contains(&taken), "{taken} MiB taken");
    bench.apply(next - 1, 2);
    let mut message = appended(next..=next, next);
    message.mut_entries()[0].data = large_entry();
    bench.peer(MessageType::MsgAppend, message);
    assert_eq!(bench.replica.raw.raft.raft_log.last_index(), next);
}

#[test]
fn nobody_hears_of_what_is_applied_before_it_is_visible() {
    let mut bench = Bench::new(&[OWN]);
    bench.lead_alone();
    let held = bench.replica.raw.store().applied().index;
    bench.replica.visibility.hold_at(Some(held));
    let mailbox = |n: u64| MailboxId([n as u8; 16]);
    for n in 1..=2 {
        let proposal = Proposal {
            incarnation: BORN,
            term: Term(2),
            mailbox: mailbox(n),
            command: CommandId::default(),
            kind: EntryKind::Rows(RowsBody::default()),
        };
        assert_eq!(bench.replica.propose(&bench.config, STAMP_MAX, proposal, RequestId(n)), None);
    }
    assert_eq!(bench.replica.await_slot(RequestId(3), Term(2), mailbox(1)), None);
    bench.collect();
    while bench.replica.writes().needs_sync() {
        bench.sync();
        bench.collect();
    }
    assert_eq!(bench.replica.read_barrier(RequestId(4), Reader::Owner(Term(2))), None);
    let mut applied = bench.replica.raw.store().applied().clone();
    (applied.index, applied.term) = (Index(held.0 + 2), Term(2));
    let verdicts = [(Index(held.0 + 1), Verdict::Accepted), (Index(held.0 + 2), Verdict::Missing)];
    bench.replica.applied(applied, &verdicts, None, &mut bench.out);
    let decided = |outputs: Vec<Output>| -> Vec<u64> {
        let request = |o: Output| if let Output::Decided { request, .. } = o { Some(request.0) } else { None };
        outputs.into_iter().filter_map(request).collect()
    };
    assert_eq!(decided(bench.collect()), [], "told before it is visible");
    assert!(bench.replica.owners.is_taken(mailbox(1)) && bench.replica.owners.is_taken(mailbox(2)));
    bench.replica.visibility.hold_at(Some(Index(held.0 + 1)));
    assert_eq!(decided(bench.collect()), [1, 3], "the first entry, then who waits for its slot");
    assert!(!bench.replica.owners.is_taken(mailbox(1)) && bench.replica.owners.is_taken(mailbox(2)));
    bench.replica.visibility.hold_at(None);
    assert_eq!(decided(bench.collect()), [2, 4], "the second, then the read that waits for it");
}

#[test]
fn stamps_are_the_clusters_time_and_never_go_back() {
    let mut bench = Bench::new(&[OWN]);
    bench.lead_alone();
    let mut stamps = Vec::new();
    for wall in [1_000, 500, 2_000, 1_500] {
        let proposal = Proposal {
            incarnation: BORN,
            term: Term(2),
            mailbox: MailboxId([1; 16]),
            command: CommandId::default(),
            kind: EntryKind::Rows(RowsBody::default()),
        };
        let index = bench.replica.append(&bench.config, UnixMillis(wall), proposal).unwrap();
        bench.collect();
        let entry =
            bench.replica.raw.raft.raft_log.entries(index.0, None, raft::GetEntriesContext::empty(false)).unwrap();
        stamps.push(Entry::decode(&entry[0].data).unwrap().header.stamp.0);
    }
    assert_eq!(stamps, [1_000, 1_000, 2_000, 2_000]);
}

#[test]
fn a_member_that_speaks_and_does_not_answer_is_not_active() {
    let mut bench = Bench::new(&[OWN, OTHER]);
    bench.hears(PeerBody::Hash { count: 1, hash: [0; 32] }).unwrap();
    for (kind, active) in [(MessageType::MsgRequestPreVote, false), (MessageType::MsgHeartbeatResponse, true)] {
        bench.peer(kind, Message { term: 1, ..Message::default() });
        assert_eq!(bench.replica.is_active(OTHER), active, "{kind:?}");
    }
}

#[test]
fn where_no_majority_has_the_same_rows_it_is_said_once_and_nobody_is_set_aside() {
    let mut bench = Bench::new(&[OWN, OTHER]);
    bench.replica.rows_agreement.applied(Index(7), Some([7; 32]));
    for _ in 0..3 {
        bench.hears(PeerBody::Rows { index: Index(7), sum: [9; 32] }).unwrap();
    }
    let said = &bench.out;
    assert!(matches!(said[..], [Output::RowsDiffer { difference: Difference::Undecided, .. }]), "{said:?}");
    assert!(!bench.replica.is_damaged());
}
