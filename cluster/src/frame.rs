//! Peer messages as bytes: one of version, then postcard with Raft's own messages as protobuf inside.
//!
//! RUSTSEC-2024-0437 says of protobuf 2.28 that it recurses without a bound on unknown groups. In what is generated for
//! raft-rs it refuses a group in another; the fuzzers' corpus has a frame of them. Only what arrived over mutual TLS, within
//! [`FRAME_MAX_BYTES`], is ever decoded.

use bytes::Bytes;
use mailraft_storage::entry::{versioned_encode, versioned_take};
use mailraft_storage::{
    ClusterId, Incarnation, Index, NodeId, PartitionId, ReplicaId, StoreError, TakenOver, Term, UnixMillis,
};
use protobuf::Message;
use raft::eraftpb;
use serde::{Deserialize, Serialize};

use crate::mode::ModeReport;
use crate::seam::{PeerBody, PeerMessage};

/// The longest frame, in bytes: a full append and room.
pub const FRAME_MAX_BYTES: usize = 8 << 20;
const FRAME_VERSION: u8 = 2;
/// The newest version without a nonce. Whoever speaks of the first incarnation still writes it.
const WITHOUT_NONCE: u8 = 1;
/// Set in the count of a hash that is the sum over rows, and the count then their position. A version that knows no sums
/// takes it for a count that it has not reached, and says nothing to it.
const OF_ROWS: u64 = 1 << 63;

/// What stands before the body.
#[derive(Serialize, Deserialize)]
struct Head {
    cluster: ClusterId,
    partition: PartitionId,
    from: ReplicaId,
    to: ReplicaId,
    incarnation: u32,
    wall: UnixMillis,
}

/// The kinds of [`FramedBody`], which are numbered from 0.
const BODY_KINDS: u32 = 9;

#[derive(Serialize, Deserialize)]
enum FramedBody {
    Raft(Bytes),
    Hash {
        count: u64,
        hash: [u8; 32],
    },
    Leads(Vec<(PartitionId, Term)>),
    Removed,
    /// Only in clusters of several regions, in which every node knows it.
    Visible {
        index: Index,
    },
    Hears {
        nodes: Vec<NodeId>,
        links: u32,
    },
    /// Only in clusters of several regions, too.
    Modes(Vec<ModeReport>),
    /// And this.
    TakenOver(TakenOver),
    /// And this, which a version that does not know it passes over.
    HeldBut(Vec<(PartitionId, u64)>),
}

/// A peer message as bytes.
pub fn encode(message: &PeerMessage) -> Vec<u8> {
    let body = match &message.body {
        PeerBody::Raft(raft) => FramedBody::Raft(raft.write_to_bytes().expect("a message of raft-rs encodes").into()),
        PeerBody::Hash { count, hash } => FramedBody::Hash { count: *count, hash: *hash },
        PeerBody::Rows { index, sum } => FramedBody::Hash { count: index.0 | OF_ROWS, hash: *sum },
        PeerBody::Leads(led) => FramedBody::Leads(led.clone()),
        PeerBody::Removed => FramedBody::Removed,
        PeerBody::Visible { index } => FramedBody::Visible { index: *index },
        PeerBody::Hears { nodes, links } => FramedBody::Hears { nodes: nodes.clone(), links: *links },
        PeerBody::Modes(reports) => FramedBody::Modes(reports.clone()),
        PeerBody::TakenOver(taken) => FramedBody::TakenOver(taken.clone()),
        PeerBody::HeldBut(held) => FramedBody::HeldBut(held.clone()),
    };
    let head = Head {
        cluster: message.cluster,
        partition: message.partition,
        from: message.from,
        to: message.to,
        incarnation: message.incarnation.number,
        wall: message.wall,
    };
    match message.incarnation.number {
        0 | 1 => versioned_encode(WITHOUT_NONCE, &(head, body)),
        _ => versioned_encode(FRAME_VERSION, &((head, message.incarnation.nonce), body)),
    }
}

/// The inverse of [`encode`]. None for what only a later version of Mailraft understands: a kind of body that this one does
/// not know, or another format. Whoever reads frames goes on behind it, as nodes of two versions run beside each other
/// while a cluster is upgraded.
///
/// # Errors
/// If it is too long, or no peer message.
pub fn decode(bytes: &[u8]) -> Result<Option<PeerMessage>, StoreError> {
    if bytes.len() > FRAME_MAX_BYTES {
        return Err(StoreError::damaged("peer message", format_args!("{} bytes long", bytes.len())));
    }
    let damaged = |e| StoreError::damaged("peer message", e);
    let (head, nonce, bytes): (Head, [u8; 16], _) = match bytes.first() {
        Some(&version) if version > FRAME_VERSION => return Ok(None),
        Some(&WITHOUT_NONCE) => {
            let (head, left) = versioned_take("peer message", WITHOUT_NONCE, bytes)?;
            (head, [0; 16], left)
        }
        _ => {
            let ((head, nonce), left) = versioned_take("peer message", FRAME_VERSION, bytes)?;
            (head, nonce, left)
        }
    };
    let (kind, _): (u32, _) = postcard::take_from_bytes(bytes).map_err(damaged)?;
    if kind >= BODY_KINDS {
        return Ok(None);
    }
    let (body, left): (FramedBody, _) = postcard::take_from_bytes(bytes).map_err(damaged)?;
    if !left.is_empty() {
        return Err(StoreError::damaged("peer message", format_args!("{} bytes too many", left.len())));
    }
    let body = match body {
        FramedBody::Raft(bytes) => {
            let mut raft = eraftpb::Message::default();
            raft.merge_from_bytes(&bytes).map_err(|e| StoreError::damaged("peer message", e))?;
            PeerBody::Raft(raft)
        }
        FramedBody::Hash { count, hash } if count & OF_ROWS != 0 => {
            PeerBody::Rows { index: Index(count & !OF_ROWS), sum: hash }
        }
        FramedBody::Hash { count, hash } => PeerBody::Hash { count, hash },
        FramedBody::Leads(led) => PeerBody::Leads(led),
        FramedBody::Removed => PeerBody::Removed,
        FramedBody::Visible { index } => PeerBody::Visible { index },
        FramedBody::Hears { nodes, links } => PeerBody::Hears { nodes, links },
        FramedBody::Modes(reports) => PeerBody::Modes(reports),
        FramedBody::TakenOver(taken) => PeerBody::TakenOver(taken),
        FramedBody::HeldBut(held) => PeerBody::HeldBut(held),
    };
    let Head { cluster, partition, from, to, incarnation, wall } = head;
    let incarnation = Incarnation { number: incarnation, nonce };
    Ok(Some(PeerMessage { cluster, partition, from, to, incarnation, wall, body }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mailraft_storage::LogPosition;

    use super::*;

    #[test]
    fn messages_come_back_and_junk_is_refused() {
        let mut raft = eraftpb::Message { term: 7, from: 1, to: 2, ..Default::default() };
        raft.set_msg_type(eraftpb::MessageType::MsgAppend);
        raft.mut_entries().push(eraftpb::Entry { index: 9, data: vec![1; 300].into(), ..Default::default() });
        let message = PeerMessage {
            cluster: ClusterId([1; 16]),
            partition: PartitionId(3),
            from: ReplicaId(1),
            to: ReplicaId(2),
            incarnation: Incarnation { number: 1, nonce: [0; 16] },
            wall: UnixMillis(5),
            body: PeerBody::Raft(raft.clone()),
        };
        let bytes = encode(&message);
        let back = decode(&bytes).unwrap().unwrap();
        assert!(matches!(back.body, PeerBody::Raft(r) if r == raft));
        let removed = encode(&PeerMessage { body: PeerBody::Removed, ..message.clone() });
        assert!(matches!(decode(&removed).unwrap().unwrap().body, PeerBody::Removed));
        let visible = encode(&PeerMessage { body: PeerBody::Visible { index: Index(9) }, ..message.clone() });
        assert!(matches!(decode(&visible).unwrap().unwrap().body, PeerBody::Visible { index: Index(9) }));
        let report = ModeReport {
            partition: PartitionId(4),
            version: 2,
            waits_and_held: true,
            caught_up: true,
            unconfirmed_ms: 9,
        };
        let modes = encode(&PeerMessage { body: PeerBody::Modes(vec![report]), ..message.clone() });
        assert!(matches!(decode(&modes).unwrap().unwrap().body, PeerBody::Modes(reports) if reports == [report]));
        let rows = encode(&PeerMessage { body: PeerBody::Rows { index: Index(70), sum: [3; 32] }, ..message.clone() });
        assert!(
            matches!(decode(&rows).unwrap().unwrap().body, PeerBody::Rows { index: Index(70), sum } if sum == [3; 32])
        );
        assert_eq!((back.partition, back.to, back.wall), (PartitionId(3), ReplicaId(2), UnixMillis(5)));
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err());
        }
        let mut newer = bytes;
        newer[0] = 9;
        assert!(matches!(decode(&newer), Ok(None)));
    }

    #[test]
    fn a_kind_that_only_a_newer_version_knows_is_passed_over_and_every_known_one_is_read() {
        let [message, _] = v1();
        let head = |body: &[u8]| {
            let removed = encode(&PeerMessage { body: PeerBody::Removed, ..message.clone() });
            [&removed[..removed.len() - 1], body].concat()
        };
        let bodies = [
            PeerBody::Removed,
            PeerBody::Hash { count: 1, hash: [1; 32] },
            PeerBody::Leads(Vec::new()),
            PeerBody::Visible { index: Index(1) },
            PeerBody::Hears { nodes: vec![NodeId(2)], links: 1 },
            PeerBody::Modes(Vec::new()),
            PeerBody::TakenOver(taken_over()),
            PeerBody::HeldBut(vec![(PartitionId(4), 9)]),
            message.body.clone(),
        ];
        let kinds = bodies.map(|body| {
            let encoded = encode(&PeerMessage { body, ..message.clone() });
            assert!(decode(&encoded).unwrap().is_some());
            u32::from(encoded[head(&[]).len()])
        });
        assert_eq!(std::collections::BTreeSet::from(kinds), (0..BODY_KINDS).collect());
        for kind in [BODY_KINDS, 127, 128, u32::MAX] {
            let newer = head(&[postcard::to_allocvec(&kind).unwrap(), vec![1, 2, 3]].concat());
            assert!(decode(&newer).unwrap().is_none(), "kind {kind}");
        }
        assert!(decode(&head(&[])).is_err() && decode(&head(&[0xff; 9])).is_err(), "no kind");
    }

    fn taken_over() -> TakenOver {
        let incarnation = Incarnation { number: 2, nonce: [0x2e; 16] };
        let fork = LogPosition { index: Index(40), term: Term(7) };
        TakenOver { incarnation, voters: vec![ReplicaId(12), ReplicaId(300)], fork }
    }

    /// A frame of a later incarnation, as the first version that knows such wrote it; never written anew.
    const V2: &str = include_str!("../testdata/v2/frames.hex");

    #[test]
    fn frames_of_later_incarnations_have_their_nonce_and_are_read_for_ever() {
        let incarnation = taken_over().incarnation;
        let [raft, _] = v1();
        let messages = [
            PeerMessage { incarnation, ..raft.clone() },
            PeerMessage { incarnation, body: PeerBody::TakenOver(taken_over()), ..raft },
        ];
        assert_eq!(V2.lines().count(), 2);
        for (line, message) in V2.lines().zip(messages) {
            let hex: String = encode(&message).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(line, hex);
            assert_eq!(format!("{:?}", decode(&encode(&message)).unwrap().unwrap()), format!("{message:?}"));
        }
    }

    /// Frames as the first version wrote them; never written anew.
    const V1: &str = include_str!("../testdata/v1/frames.hex");

    fn v1() -> [PeerMessage; 2] {
        let mut raft =
            eraftpb::Message { term: 7, from: 11, to: 12, log_term: 6, index: 40, commit: 39, ..Default::default() };
        raft.set_msg_type(eraftpb::MessageType::MsgAppend);
        raft.mut_entries().push(eraftpb::Entry {
            index: 41,
            term: 7,
            data: vec![1, 2, 3].into(),
            ..Default::default()
        });
        let message = |body| PeerMessage {
            cluster: ClusterId([0xc1; 16]),
            partition: PartitionId(300),
            from: ReplicaId(11),
            to: ReplicaId(12),
            incarnation: Incarnation { number: 1, nonce: [0; 16] },
            wall: UnixMillis(1_700_000_000_000),
            body,
        };
        [message(PeerBody::Raft(raft)), message(PeerBody::Hash { count: 1_024, hash: [0xab; 32] })]
    }

    #[test]
    fn frames_of_the_first_version_are_read_and_written_alike() {
        assert_eq!(V1.lines().count(), 2);
        for (line, message) in V1.lines().zip(v1()) {
            let hex: String = encode(&message).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(line, hex);
            let bytes: Vec<u8> =
                (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect();
            assert_eq!(format!("{:?}", decode(&bytes).unwrap().unwrap()), format!("{message:?}"));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_stop_the_decoder(junk: Vec<u8>, at: usize, to: u8) {
            let _ = decode(&junk);
            for message in v1() {
                let mut bytes = encode(&message);
                let at = at % bytes.len();
                bytes[at] = to;
                if let Ok(Some(decoded)) = decode(&bytes) {
                    let _ = encode(&decoded);
                }
            }
        }
    }
}
