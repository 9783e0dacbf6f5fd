//! What the holder of another node's certificate may invent: each of these ends the process or spoils the replica where
//! raft-rs hears it, and is refused before.

use std::panic::{AssertUnwindSafe, catch_unwind};

use raft::eraftpb::{ConfChangeSingle, ConfChangeV2, ConfState, EntryType};

use super::*;

const THIRD: ReplicaId = ReplicaId(3);

/// Where a replica stands when it is attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum As {
    /// It has heard nothing since the start; its log ends at 1, of term 1.
    Started,
    /// It follows the other in term 2; its log ends at 5, and 4 are committed.
    Follower,
    /// It leads in term 2; its log ends at 2.
    Leader,
}

/// What raft-rs does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Raw {
    /// The process ends, at once or when the replica goes on.
    Ends,
    /// It is taken.
    Takes,
}

fn bench(role: As) -> Bench {
    let mut bench = Bench::new(&[OWN, OTHER]);
    match role {
        As::Started => {}
        As::Follower => {
            bench.peer(MessageType::MsgAppend, appended(2..=5, 4));
            bench.sync();
            bench.collect();
        }
        As::Leader => {
            for _ in 0..20 {
                bench.replica.tick(&bench.config, &bench.env, false, &mut bench.out);
                bench.collect();
            }
            bench.peer(MessageType::MsgRequestPreVoteResponse, Message { term: 2, ..Message::default() });
            while bench.replica.writes().needs_sync() {
                bench.sync();
                bench.collect();
            }
            bench.peer(MessageType::MsgRequestVoteResponse, Message { term: 2, ..Message::default() });
            while bench.replica.writes().needs_sync() {
                bench.sync();
                bench.collect();
            }
            assert_eq!(bench.replica.raw.raft.state, StateRole::Leader);
        }
    }
    bench
}

fn entry(index: u64, term: u64, data: &[u8]) -> RaftEntry {
    RaftEntry { index, term, data: data.to_vec().into(), ..RaftEntry::default() }
}

fn append(index: u64, log_term: u64, commit: u64, entries: Vec<RaftEntry>) -> Message {
    Message { term: 2, index, log_term, commit, entries: entries.into(), ..Message::default() }
}

fn change(index: u64, data: Vec<u8>) -> RaftEntry {
    let mut entry = entry(index, 2, &data);
    entry.set_entry_type(EntryType::EntryConfChangeV2);
    entry
}

fn removes(replica: ReplicaId) -> ConfChangeSingle {
    let mut single = ConfChangeSingle { node_id: replica.0, ..ConfChangeSingle::default() };
    single.set_change_type(ConfChangeType::RemoveNode);
    single
}

fn removal_of_all() -> Vec<u8> {
    let changes = vec![removes(OWN), removes(OTHER)].into();
    protobuf::Message::write_to_bytes(&ConfChangeV2 { changes, ..ConfChangeV2::default() }).unwrap()
}

fn question(context: &[u8]) -> Message {
    Message { entries: vec![entry(0, 0, context)].into(), ..Message::default() }
}

fn encoded(change: impl FnOnce(&mut EntryHeader)) -> Vec<u8> {
    let mut header = header();
    change(&mut header);
    Entry { header, kind: EntryKind::Rows(RowsBody::default()) }.encode()
}

fn attacks() -> Vec<(As, MessageType, Message, Raw, &'static str)> {
    use As::{Follower, Leader, Started};
    use MessageType::*;
    use Raw::{Ends, Takes};
    let message = || Message { term: 2, ..Message::default() };
    let mut attacks = vec![
        // Positions.
        (Follower, MsgHeartbeat, Message { commit: 99, ..message() }, Ends, "commit"),
        (Follower, MsgHeartbeat, Message { commit: u64::MAX, ..message() }, Ends, "number"),
        (Follower, MsgAppend, append(50, 0, 50, vec![]), Ends, "entries"),
        (Follower, MsgAppend, append(50, 0, 0, vec![entry(51, 2, b"")]), Ends, "entries"),
        (Follower, MsgAppend, append(u64::MAX, 0, 0, vec![entry(0, 2, b"")]), Ends, "number"),
        (Leader, MsgAppendResponse, Message { index: u64::MAX, ..message() }, Ends, "number"),
        (Leader, MsgAppendResponse, Message { index: 9, ..message() }, Takes, "answer"),
        (
            Leader,
            MsgAppendResponse,
            Message { index: 1, reject: true, reject_hint: u64::MAX, ..message() },
            Ends,
            "number",
        ),
        (Leader, MsgAppendResponse, Message { index: 1, reject: true, reject_hint: 9, ..message() }, Takes, "answer"),
        (Leader, MsgAppendResponse, Message { reject: true, request_snapshot: 9, ..message() }, Takes, "snapshot"),
        (Leader, MsgHeartbeatResponse, Message { commit: 9, ..message() }, Takes, "answer"),
        // Entries.
        (Follower, MsgAppend, append(4, 2, 4, vec![entry(3, 1, b"")]), Ends, "entries"),
        (Follower, MsgAppend, append(4, 2, 4, vec![entry(5, 2, b""), entry(9, 2, b"")]), Ends, "entries"),
        (Follower, MsgAppend, append(5, 2, 4, vec![entry(6, 7, b"")]), Takes, "entries"),
        (Follower, MsgAppend, append(5, 2, 4, vec![entry(6, 1, b"")]), Takes, "entries"),
        (Follower, MsgAppend, append(5, 7, 4, vec![]), Takes, "entries"),
        (Follower, MsgAppend, append(4, 1, 4, vec![]), Takes, "committed"),
        (Follower, MsgAppend, append(5, 1, 4, vec![]), Takes, "committed"),
        (Follower, MsgAppend, append(5, 2, 6, vec![entry(6, 2, b"\x01junk")]), Takes, "entry"),
        (
            Follower,
            MsgAppend,
            append(5, 2, 6, vec![entry(6, 2, &encoded(|h| h.cluster = ClusterId([9; 16])))]),
            Takes,
            "entry",
        ),
        (
            Follower,
            MsgAppend,
            append(5, 2, 6, vec![entry(6, 2, &encoded(|h| h.stamp = UnixMillis(u64::MAX)))]),
            Takes,
            "entry",
        ),
        (
            Follower,
            MsgAppend,
            append(5, 2, 6, vec![entry(6, 2, &encoded(|h| h.required_flags = 1 << 31))]),
            Takes,
            "newer",
        ),
        (Follower, MsgAppend, append(5, 2, 6, vec![change(6, b"\xff\xff".to_vec())]), Ends, "entry"),
        (Follower, MsgAppend, append(5, 2, 6, vec![change(6, removal_of_all())]), Ends, "change"),
        // Terms.
        (Follower, MsgHeartbeat, Message { term: u64::MAX, ..Message::default() }, Ends, "term"),
        (Follower, MsgHeartbeat, Message::default(), Takes, "term"),
        (Started, MsgRequestVote, Message { index: 9, log_term: 9, ..Message::default() }, Ends, "term"),
        (Started, MsgRequestVote, Message { index: 9, log_term: 9, ..message() }, Takes, "entries"),
        // Kinds.
        (Leader, MsgPropose, Message::default(), Ends, "kind"),
        (Leader, MsgTransferLeader, Message::default(), Takes, "kind"),
        (Follower, MsgSnapshot, message(), Takes, "kind"),
        // Reads.
        (Leader, MsgReadIndex, Message::default(), Takes, "read"),
        (Leader, MsgReadIndex, question(&OWN.0.to_be_bytes()), Takes, "read"),
        (Leader, MsgReadIndex, question(&[&OTHER.0.to_be_bytes()[..], &[0; 64]].concat()), Takes, "read"),
        (Follower, MsgReadIndex, Message { term: 2, ..question(&OTHER.0.to_be_bytes()) }, Ends, "term"),
        (Follower, MsgReadIndexResp, Message { index: 9, ..message() }, Takes, "read"),
        (Follower, MsgHeartbeat, Message { context: vec![0; 65].into(), ..message() }, Takes, "context"),
    ];
    let local = [MsgHup, MsgBeat, MsgUnreachable, MsgSnapStatus, MsgCheckQuorum];
    attacks.extend(local.map(|kind| (Leader, kind, Message::default(), Takes, "kind")));
    attacks
}

fn of(kind: MessageType, message: &Message) -> Message {
    let mut message = Message { from: OTHER.0, to: OWN.0, ..message.clone() };
    message.set_msg_type(kind);
    message
}

/// Everything that a replica does when time passes and all that it writes is durable.
fn goes_on(bench: &mut Bench) -> Vec<Output> {
    let mut out = bench.collect();
    for _ in 0..60 {
        bench.replica.tick(&bench.config, &bench.env, false, &mut bench.out);
        out.extend(bench.collect());
        while bench.replica.writes().needs_sync() {
            bench.sync();
            out.extend(bench.collect());
        }
    }
    out
}

#[test]
fn what_ends_raft_rs_is_refused_before_it_and_nothing_has_changed() {
    std::panic::set_hook(Box::new(|_| {}));
    for (role, kind, message, raw, label) in attacks() {
        let what = format!("{label}: as {role:?}, {kind:?} {message:?}");
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let mut bench = bench(role);
            let _ = bench.replica.raw.step(of(kind, &message));
            goes_on(&mut bench).iter().any(|output| matches!(output, Output::Abort(_)))
        }));
        let ends = ended.unwrap_or(true);
        assert_eq!(ends, raw == Raw::Ends, "raft-rs, {what}");

        let mut bench = bench(role);
        let state = |bench: &Bench| {
            let raft = &bench.replica.raw.raft;
            (raft.term, raft.vote, raft.state, raft.raft_log.last_index(), raft.raft_log.committed, raft.leader_id)
        };
        let before = state(&bench);
        let refusal = bench.hears(PeerBody::Raft(of(kind, &message))).unwrap_err();
        assert_eq!((refusal.label(), state(&bench)), (label, before), "{what}: {refusal}");
        assert!(bench.collect().is_empty(), "{what}");
    }
    let _ = std::panic::take_hook();
}

#[test]
fn who_was_told_all_of_it_goes_on_as_before() {
    let mut bench = bench(As::Follower);
    for (role, kind, message, _, _) in attacks() {
        if role == As::Follower {
            bench.hears(PeerBody::Raft(of(kind, &message))).unwrap_err();
        }
    }
    assert_eq!(applies(&bench.peer(MessageType::MsgAppend, appended(6..=6, 6))), [5]);
    bench.sync();
    assert_eq!(applies(&bench.collect()), [6]);
}

#[test]
fn who_speaks_for_another_is_refused_and_a_question_that_is_handed_on_is_none() {
    let mut bench = bench(As::Follower);
    for (from, to) in [(THIRD, OWN), (OWN, OWN), (OTHER, THIRD)] {
        let mut message = Message { from: from.0, to: to.0, term: 2, ..Message::default() };
        message.set_msg_type(MessageType::MsgHeartbeat);
        let refusal = bench.hears(PeerBody::Raft(message)).unwrap_err();
        assert_eq!(refusal, PeerRefusal::Address { from, to });
    }
    let mut handed_on = Message { from: THIRD.0, to: OWN.0, ..question(&THIRD.0.to_be_bytes()) };
    handed_on.set_msg_type(MessageType::MsgReadIndex);
    bench.hears(PeerBody::Raft(handed_on)).unwrap();
    assert!(bench.collect().is_empty());
}

#[test]
fn a_second_leader_of_a_term_is_not_followed_and_its_connection_goes_on() {
    let mut bench = bench(As::Follower);
    for kind in [MessageType::MsgHeartbeat, MessageType::MsgAppend] {
        let mut message = Message { from: THIRD.0, to: OWN.0, ..append(5, 2, 5, vec![]) };
        message.set_msg_type(kind);
        let refusal =
            bench.replica.peer(&bench.config, THIRD, PeerBody::Raft(message), false, &mut bench.out).unwrap_err();
        assert_eq!(refusal, PeerRefusal::SecondLeader(OTHER));
        assert!(!refusal.ends_connection());
    }
    assert_eq!((bench.replica.raw.raft.leader_id, bench.replica.raw.raft.raft_log.committed), (OTHER.0, 4));
}

#[test]
fn a_message_of_an_earlier_term_is_late_and_no_lie() {
    let mut bench = bench(As::Follower);
    bench.peer(MessageType::MsgHeartbeat, Message { term: 4, commit: 4, ..Message::default() });
    // The leader of term 3 has not what was committed since, and counted more than is left here.
    for (kind, message) in [
        (MessageType::MsgHeartbeat, Message { term: 3, commit: 9, ..Message::default() }),
        (MessageType::MsgAppend, Message { term: 3, ..append(5, 1, 3, vec![]) }),
        (MessageType::MsgAppendResponse, Message { term: 3, index: 9, ..Message::default() }),
    ] {
        bench.peer(kind, message);
    }
}

#[test]
fn a_replica_that_may_have_lost_what_it_acknowledged_does_not_vote_until_it_has_it_again() {
    let mut bench = bench(As::Follower);
    let lost = Message { term: 2, commit: 7, ..Message::default() };
    let refusal = bench.hears(PeerBody::Raft(of(MessageType::MsgHeartbeat, &lost))).unwrap_err();
    assert!(refusal.ends_connection() && refusal.to_string().contains("log ends at 5"), "{refusal}");
    let asks_for_vote = |term| Message { term, index: 9, log_term: 2, ..Message::default() };
    let votes = |bench: &mut Bench, term| {
        for _ in 0..60 {
            bench.replica.tick(&bench.config, &bench.env, false, &mut bench.out);
        }
        let campaigns = bench.replica.raw.raft.state != StateRole::Follower;
        bench.peer(MessageType::MsgRequestVote, asks_for_vote(term));
        campaigns || bench.replica.raw.raft.term == term
    };
    assert!(!votes(&mut bench, 3));
    bench.peer(MessageType::MsgAppend, appended(6..=7, 4));
    assert!(votes(&mut bench, 9), "it has again what it may have lost");

    let mut bench = Bench::new(&[OWN, OTHER]);
    bench.replica.in_doubt = Some((1 << 40, DOUBT_TICKS));
    bench.replica.ticks = DOUBT_TICKS - 61;
    assert!(!votes(&mut bench, 3), "the doubt lasts");
    assert!(votes(&mut bench, 9), "an invented position is not waited for without end");
}

#[test]
fn the_word_of_one_removes_nobody_whom_another_voter_knows() {
    let says = |bench: &mut Bench, from, body| {
        bench.replica.peer(&bench.config, from, body, false, &mut bench.out).unwrap();
        bench.replica.is_over()
    };
    let hash = || PeerBody::Hash { count: 99, hash: [0; 32] };
    let mut bench = Bench::new(&[OWN, OTHER, THIRD]);
    bench.replica.ticks = 10 * GONE_SILENT_TICKS;
    says(&mut bench, THIRD, hash());
    for _ in 0..2 * GONE_SILENT_TICKS / COMPARE_EVERY_TICKS {
        assert!(!says(&mut bench, OTHER, PeerBody::Removed));
        assert!(!says(&mut bench, ReplicaId(9), PeerBody::Removed), "it is no voter");
        bench.replica.ticks += COMPARE_EVERY_TICKS;
        assert!(!says(&mut bench, THIRD, hash()));
    }
    assert!(says(&mut bench, THIRD, PeerBody::Removed), "both say so");

    let mut bench = Bench::new(&[OWN, OTHER, THIRD]);
    assert!(!says(&mut bench, OTHER, PeerBody::Removed), "the other had no time to speak");
    bench.replica.ticks = GONE_SILENT_TICKS + 1;
    assert!(says(&mut bench, OTHER, PeerBody::Removed), "the other is gone too");
}

#[test]
fn so_many_questions_wait_and_no_more() {
    let mut bench = bench(As::Leader);
    bench.peer(MessageType::MsgAppendResponse, Message { term: 2, index: 2, ..Message::default() });
    let most = 1_024;
    for number in 0..most as u64 + 1 {
        let context = [OTHER.0, 0, number].map(u64::to_be_bytes).concat();
        bench.peer(MessageType::MsgReadIndex, question(&context));
    }
    assert_eq!(bench.replica.raw.raft.pending_read_count(), most);
}

#[test]
fn snapshots_that_cannot_be_are_thrown_away() {
    let conf = |voters: &[u64], learners: &[u64], outgoing: &[u64], next: &[u64]| ConfState {
        voters: voters.to_vec(),
        learners: learners.to_vec(),
        voters_outgoing: outgoing.to_vec(),
        learners_next: next.to_vec(),
        ..ConfState::default()
    };
    std::panic::set_hook(Box::new(|_| {}));
    for (index, term, conf, raw) in [
        (u64::MAX, 2, conf(&[1, 2], &[], &[], &[]), Raw::Ends),
        (0, 2, conf(&[1, 2], &[], &[], &[]), Raw::Takes),
        (50, 0, conf(&[1, 2], &[], &[], &[]), Raw::Ends),
        (50, 3, conf(&[1, 2], &[], &[], &[]), Raw::Takes),
        (50, 2, conf(&[], &[1], &[], &[]), Raw::Ends),
        (50, 2, conf(&[1, 1], &[], &[], &[]), Raw::Takes),
        (50, 2, conf(&[1, 2], &[1], &[], &[]), Raw::Ends),
        (50, 2, conf(&[0, 1], &[], &[], &[]), Raw::Ends),
        (50, 2, conf(&[2], &[1], &[], &[3]), Raw::Ends),
        (50, 2, conf(&[2], &[1], &[1, 3], &[]), Raw::Ends),
    ] {
        let what = format!("{index} of {term}: {conf:?}");
        let mut message = of(MessageType::MsgSnapshot, &Message { term: 2, ..Message::default() });
        let metadata = message.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (index, term);
        metadata.set_conf_state(conf.clone());
        let ended = catch_unwind(AssertUnwindSafe(|| bench(As::Follower).replica.raw.step(message.clone())));
        assert_eq!(ended.is_err(), raw == Raw::Ends, "raft-rs, {what}");

        let mut bench = bench(As::Follower);
        let ids = |ids: &[u64]| ids.iter().map(|id| ReplicaId(*id)).collect();
        let applied = Applied {
            index: Index(index),
            term: Term(term),
            voters: ids(&conf.voters),
            learners: ids(&conf.learners),
            voters_outgoing: ids(&conf.voters_outgoing),
            learners_next: ids(&conf.learners_next),
            ..Applied::default()
        };
        let staged = bench.replica.snapshot_staged(&bench.config, OTHER, message, applied, &mut bench.out);
        assert_eq!(staged.unwrap_err().label(), "snapshot", "{what}");
        assert!(matches!(jobs(&bench.collect())[..], [SnapshotJob::Discard { .. }]), "{what}");
    }
    let _ = std::panic::take_hook();
    for rows in [
        Applied { index: Index(50), count: 51, ..Applied::default() },
        Applied { stamp: UnixMillis(u64::MAX), ..Applied::default() },
    ] {
        assert_eq!(peer_check::snapshot_rows(&rows).unwrap_err().label(), "snapshot");
    }
}

#[test]
fn what_every_message_brings_is_bounded() {
    let (own, other) = (ClusterId([1; 16]), ClusterId([2; 16]));
    let leads = |count| PeerBody::Leads(vec![(PartitionId(1), Term(1)); count]);
    let hears = |count, links| PeerBody::Hears { nodes: vec![mailraft_storage::NodeId(1); count], links };
    for (cluster, wall, body, label) in [
        (own, 1 << 48, leads(4_096), None),
        (other, 0, PeerBody::Removed, Some("cluster")),
        (own, (1 << 48) + 1, PeerBody::Removed, Some("clock")),
        (own, 0, leads(4_097), Some("leads")),
        (own, 0, hears(1_024, 1_024), None),
        (own, 0, hears(1_025, 1), Some("nodes")),
        (own, 0, hears(2, 3), Some("links")),
        (own, 0, hears(2, u32::MAX), Some("links")),
    ] {
        let judged = peer_check::envelope(cluster, own, UnixMillis(wall), &body);
        assert_eq!(judged.err().map(|refusal| refusal.label()), label);
    }
    for (term, label) in [(2 + (1 << 32), None), (3 + (1 << 32), Some("term"))] {
        let message = of(MessageType::MsgHeartbeat, &Message { term, ..Message::default() });
        let judged = bench(As::Follower).hears(PeerBody::Raft(message));
        assert_eq!(judged.err().map(|refusal| refusal.label()), label);
    }
}

#[test]
fn where_a_follower_may_go_on_is_found_as_raft_rs_finds_it() {
    let mut bench = Bench::new(&[OWN, OTHER]);
    let terms = [2, 2, 3, 3, 3, 5, 8, 8];
    let entries: Vec<RaftEntry> = (2..).zip(terms).map(|(index, term)| entry(index, term, b"")).collect();
    bench.peer(MessageType::MsgAppend, Message { term: 8, ..append(1, 1, 1, entries) });
    bench.sync();
    bench.collect();
    let raft = &bench.replica.raw.raft;
    let own = Own { raft, handed: Index(1), cluster: bench.config.cluster, first_term: Term(0) };
    for reject_hint in 1..=9 {
        for log_term in 1..=9 {
            let answer = Message { reject: true, reject_hint, log_term, ..Message::default() };
            let mut message = of(MessageType::MsgAppendResponse, &answer);
            own.shorten_search(&mut message);
            let (found, _) = raft.raft_log.find_conflict_by_term(reject_hint, log_term);
            assert_eq!((message.reject_hint, message.log_term), (found, 0), "{reject_hint} {log_term}");
        }
    }
}
