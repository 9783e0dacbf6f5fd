//! What another replica may say, checked before raft-rs hears it: raft-rs ends the process at a position that can't be,
//! as at one of its own that is damaged. Whoever holds a node's certificate can send anything.
//!
//! Two kinds of rule, and nothing else is decided here:
//!
//! * The *shape* that every message of an honest replica has, whatever was lost, delayed or delivered twice: entries that
//!   follow each other and can be read, terms that do not fall, positions that can be counted on from, one question at a
//!   time, a snapshot with a configuration that can be.
//! * What cannot be said to *this* replica in its present term: that it has acknowledged entries which its log does not
//!   hold, or holds ones which it, the leader, never made. Messages of an earlier term are exempt, since raft-rs drops them.
//!
//! What a member of a group may say and that is untrue all the same stays possible: it may claim to lead, and may
//! acknowledge what it has lost. Raft is not made for members that lie.

use mailraft_storage::{
    Applied, ClusterId, Entry as LogEntry, Index, ReplicaId, StoreError, TakenOver, Term, UnixMillis,
};
use raft::eraftpb::{self, ConfChangeV2, ConfState, EntryType, Message, MessageType};
use raft::{Changer, GetEntriesContext, ProgressTracker, Raft, StateRole};

use crate::log_store::LogStore;
use crate::members;
use crate::peer_refusal::PeerRefusal;
use crate::reach;
use crate::seam::PeerBody;
use crate::taken_over::INCARNATION_MAX;

/// A replica may be so many terms behind: with an election every second it slept for over a century.
const TERM_AHEAD_MAX: u64 = 1 << 32;
/// No term is higher, and no index: raft-rs adds one to both.
const NUMBER_MAX: u64 = 1 << 62;
/// The latest time that a clock can show, in milliseconds since 1970: in the year 10889.
const TIME_MAX: UnixMillis = UnixMillis(1 << 48);
/// The longest context of a message, in bytes; those of this version have 24.
const CONTEXT_MAX_BYTES: usize = 64;
/// The shortest context of a read: it begins with who asks.
const READ_CONTEXT_MIN_BYTES: usize = 8;
/// Questions for a read barrier that wait for the leader's next round; more are asked again later.
const READS_WAITING_MAX: usize = 1_024;
/// The most voters of an incarnation that are told.
const VOTERS_MAX: usize = 64;
/// Partitions of which a node may say at once that it leads them.
const LEADS_MAX: usize = 4_096;

/// What becomes of a message that an honest replica may have sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing {
    /// Raft hears it.
    Heard,
    /// It comes to nothing here, and raft-rs is not to see it.
    Dropped,
}

/// Checks what every message brings, whatever it says.
pub fn envelope(cluster: ClusterId, own: ClusterId, wall: UnixMillis, body: &PeerBody) -> Result<(), PeerRefusal> {
    if cluster != own {
        return Err(PeerRefusal::Cluster);
    }
    if wall > TIME_MAX {
        return Err(PeerRefusal::Clock(wall.0));
    }
    match body {
        PeerBody::Leads(led) if led.len() > LEADS_MAX => Err(PeerRefusal::Leads(led.len())),
        PeerBody::TakenOver(taken) => taken_over(taken),
        PeerBody::Modes(reports) if reports.len() > LEADS_MAX => Err(PeerRefusal::Leads(reports.len())),
        PeerBody::HeldBut(held) if held.len() > LEADS_MAX => Err(PeerRefusal::Leads(held.len())),
        PeerBody::Visible { index } if index.0 > NUMBER_MAX => Err(PeerRefusal::Number(index.0)),
        PeerBody::Hears { nodes, .. } if nodes.len() > reach::NODES_MAX => Err(PeerRefusal::Nodes(nodes.len())),
        // Whom one hears each other with, one hears.
        PeerBody::Hears { nodes, links } if *links as usize > nodes.len() => Err(PeerRefusal::Links(*links)),
        PeerBody::Raft(_)
        | PeerBody::Leads(_)
        | PeerBody::Hears { .. }
        | PeerBody::Hash { .. }
        | PeerBody::Rows { .. }
        | PeerBody::Visible { .. }
        | PeerBody::Modes(_)
        | PeerBody::HeldBut(_)
        | PeerBody::Removed => Ok(()),
    }
}

/// A takeover that can be.
fn taken_over(taken: &TakenOver) -> Result<(), PeerRefusal> {
    let TakenOver { incarnation, voters, fork } = taken;
    if !(2..=INCARNATION_MAX).contains(&incarnation.number) || fork.term >= incarnation.first_term() {
        return Err(PeerRefusal::Incarnation(incarnation.number));
    }
    if voters.is_empty() || voters.len() > VOTERS_MAX {
        return Err(PeerRefusal::Nodes(voters.len()));
    }
    if fork.index.0 > NUMBER_MAX { Err(PeerRefusal::Number(fork.index.0)) } else { Ok(()) }
}

/// What a replica is compared with.
pub struct Own<'a> {
    /// Its Raft.
    pub raft: &'a Raft<LogStore>,
    /// Up to here the configuration holds what was committed.
    pub handed: Index,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The first term of its incarnation. Changes of members of an earlier one change nothing any more.
    pub first_term: Term,
}

impl Own<'_> {
    /// Whether Raft may hear a message of this replica.
    pub fn check(&self, from: ReplicaId, message: &Message) -> Result<Hearing, PeerRefusal> {
        let kind = message.get_msg_type();
        is_sent(kind)?;
        let to = ReplicaId(message.to);
        if kind == MessageType::MsgReadIndex && message.from != from.0 {
            // A follower hands on what another asked of it. That one asks again who leads.
            return Ok(Hearing::Dropped);
        }
        if message.from != from.0 || message.to != self.raft.id {
            return Err(PeerRefusal::Address { from: ReplicaId(message.from), to });
        }
        self.numbers(kind, message)?;
        let same_term = message.term == self.raft.term;
        let leader = ReplicaId(self.raft.leader_id);
        let second_leader = same_term && leader.0 != 0 && leader != from;
        let earlier = message.term < self.raft.term;
        match kind {
            MessageType::MsgAppend => {
                self.entries(message)?;
                if second_leader {
                    return Err(PeerRefusal::SecondLeader(leader));
                }
                if !earlier {
                    self.fits_committed(message)?;
                    self.changes(message)?;
                }
            }
            MessageType::MsgHeartbeat => {
                if second_leader {
                    return Err(PeerRefusal::SecondLeader(leader));
                }
                let last = self.raft.raft_log.last_index();
                if !earlier && message.commit > last {
                    return Err(PeerRefusal::Commit { commit: Index(message.commit), last: Index(last) });
                }
            }
            MessageType::MsgSnapshot => {
                if second_leader {
                    return Err(PeerRefusal::SecondLeader(leader));
                }
                snapshot(message)?;
            }
            MessageType::MsgAppendResponse | MessageType::MsgHeartbeatResponse => {
                if message.request_snapshot != 0 {
                    return Err(PeerRefusal::Snapshot("was asked for, which no replica does"));
                }
                let last = self.raft.raft_log.last_index();
                let highest = message.index.max(message.commit).max(message.reject_hint);
                if same_term && self.raft.state == StateRole::Leader && highest > last {
                    return Err(PeerRefusal::Answer { index: Index(highest), last: Index(last) });
                }
            }
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
                if message.log_term >= message.term || message.commit_term >= message.term {
                    return Err(PeerRefusal::Entries(Index(message.index)));
                }
            }
            MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse => {}
            MessageType::MsgTimeoutNow => {
                // A leader says it only to whom it has heard in its term.
                if second_leader || message.term > self.raft.term {
                    return Ok(Hearing::Dropped);
                }
            }
            MessageType::MsgReadIndex => {
                let [question] = message.get_entries() else { return Err(PeerRefusal::Read) };
                let asks = question.data.get(..READ_CONTEXT_MIN_BYTES);
                if asks != Some(&from.0.to_be_bytes()[..]) || question.data.len() > CONTEXT_MAX_BYTES {
                    return Err(PeerRefusal::Read);
                }
                let full = self.raft.read_only.pending_read_count() >= READS_WAITING_MAX;
                if self.raft.state != StateRole::Leader || full {
                    return Ok(Hearing::Dropped);
                }
            }
            MessageType::MsgReadIndexResp => {
                let [question] = message.get_entries() else { return Err(PeerRefusal::Read) };
                if question.data.len() > CONTEXT_MAX_BYTES {
                    return Err(PeerRefusal::Read);
                }
                if second_leader {
                    return Ok(Hearing::Dropped);
                }
            }
            MessageType::MsgHup
            | MessageType::MsgBeat
            | MessageType::MsgPropose
            | MessageType::MsgUnreachable
            | MessageType::MsgSnapStatus
            | MessageType::MsgCheckQuorum
            | MessageType::MsgTransferLeader => return Err(PeerRefusal::Kind(kind)),
        }
        Ok(Hearing::Heard)
    }

    /// From where a leader goes on after a follower refused entries, found by halving where raft-rs reads its whole log
    /// back, entry by entry.
    pub fn shorten_search(&self, message: &mut Message) {
        let log = &self.raft.raft_log;
        if message.get_msg_type() != MessageType::MsgAppendResponse || !message.reject || message.log_term == 0 {
            return;
        }
        // Terms never fall within a log, so what is looked for parts it in two.
        let (mut low, mut high) = (log.first_index() - 1, message.reject_hint);
        if high > log.last_index() || high < low {
            return;
        }
        while low < high {
            let middle = high - (high - low) / 2;
            match log.term(middle) {
                Ok(term) if term <= message.log_term => low = middle,
                Ok(_) => high = middle - 1,
                // raft-rs decides what to do where its own log can't be read.
                Err(_) => return,
            }
        }
        (message.reject_hint, message.log_term) = (low, 0);
    }

    /// Terms and indexes that can be.
    fn numbers(&self, kind: MessageType, message: &Message) -> Result<(), PeerRefusal> {
        let (term, own) = (Term(message.term), Term(self.raft.term));
        // raft-rs takes a message without a term for one of its own.
        let without = kind == MessageType::MsgReadIndex;
        if (term.0 == 0) != without || term.0 > own.0.saturating_add(TERM_AHEAD_MAX).min(NUMBER_MAX) {
            return Err(PeerRefusal::Term { term, own });
        }
        let Message { index, commit, reject_hint, .. } = message;
        if let Some(number) = [*index, *commit, *reject_hint].into_iter().find(|n| *n > NUMBER_MAX) {
            return Err(PeerRefusal::Number(number));
        }
        if message.context.len() > CONTEXT_MAX_BYTES {
            return Err(PeerRefusal::Context(message.context.len()));
        }
        Ok(())
    }

    /// Entries that follow each other, of terms that don't fall, and each of them one that can be applied.
    fn entries(&self, message: &Message) -> Result<(), PeerRefusal> {
        // Where raft-rs knows no term it takes 0 for it, and would let entries follow what it does not have.
        if (message.log_term == 0) != (message.index == 0) || message.log_term > message.term {
            return Err(PeerRefusal::Entries(Index(message.index)));
        }
        let (mut index, mut term) = (message.index, message.log_term);
        for entry in message.get_entries() {
            if entry.index != index + 1 || entry.term < term.max(1) || entry.term > message.term {
                return Err(PeerRefusal::Entries(Index(entry.index)));
            }
            (index, term) = (entry.index, entry.term);
            self.entry(entry)?;
        }
        Ok(())
    }

    fn entry(&self, entry: &eraftpb::Entry) -> Result<(), PeerRefusal> {
        let index = Index(entry.index);
        let wrong = |error: String| PeerRefusal::Entry { index, error };
        let unread = |error: StoreError| match error {
            StoreError::Newer { .. } => PeerRefusal::Newer { index, error: error.to_string() },
            other => wrong(other.to_string()),
        };
        if entry.get_entry_type() != EntryType::EntryNormal {
            return members::decode(entry).map(drop).map_err(unread);
        }
        if entry.data.is_empty() {
            return Ok(());
        }
        let LogEntry { header, .. } = LogEntry::decode(&entry.data).map_err(unread)?;
        let unknown = header.required_flags & !mailraft_storage::entry::KNOWN_REQUIRED_FLAGS;
        if unknown != 0 {
            return Err(PeerRefusal::Newer { index, error: format!("features {unknown:#x}") });
        }
        if header.cluster != self.cluster {
            return Err(wrong("it is another cluster's".to_owned()));
        }
        if header.stamp > TIME_MAX {
            return Err(wrong(format!("its stamp is {} ms since 1970", header.stamp.0)));
        }
        Ok(())
    }

    /// A leader has all that is committed: what it has before its entries is no earlier than that.
    fn fits_committed(&self, message: &Message) -> Result<(), PeerRefusal> {
        let log = &self.raft.raft_log;
        let Ok(committed) = log.term(log.committed) else { return Ok(()) };
        let fits = match message.index.cmp(&log.committed) {
            // raft-rs answers only how far it is.
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => message.log_term == committed,
            std::cmp::Ordering::Greater => message.log_term >= committed,
        };
        let (index, term) = (Index(message.index), Term(message.log_term));
        if fits { Ok(()) } else { Err(PeerRefusal::Committed { index, term }) }
    }

    /// Whether the changes of the configuration among the entries can be made after those that are not made yet.
    fn changes(&self, message: &Message) -> Result<(), PeerRefusal> {
        let counts = |entry: &eraftpb::Entry| entry.term >= self.first_term.0;
        let is_change = |entry: &&eraftpb::Entry| entry.get_entry_type() != EntryType::EntryNormal && counts(entry);
        let log = &self.raft.raft_log;
        if !message.get_entries().iter().any(|entry| is_change(&entry)) || message.index > log.last_index() {
            return Ok(());
        }
        let mut tracker = self.raft.prs().clone();
        let from = self.handed.0.max(log.first_index() - 1) + 1;
        let waiting = match from <= message.index {
            true => log.slice(from, message.index + 1, None, GetEntriesContext::empty(false)).unwrap_or_default(),
            false => Vec::new(),
        };
        // Those that were made already come again in a message that was delayed.
        let news = message.get_entries().iter().filter(|entry| entry.index >= from);
        for entry in waiting.iter().chain(news).filter(is_change) {
            let index = Index(entry.index);
            let change = |error: String| PeerRefusal::Change { index, error };
            let decoded = members::decode(entry).map_err(|error| change(error.to_string()))?;
            if let Some(decoded) = decoded {
                make(&mut tracker, &decoded.change).map_err(|error| change(error.to_string()))?;
            }
        }
        Ok(())
    }
}

/// Makes a change of the configuration as raft-rs does.
fn make(tracker: &mut ProgressTracker, change: &ConfChangeV2) -> raft::Result<()> {
    let mut changer = Changer::new(tracker);
    let (configuration, changes) = if change.leave_joint() {
        changer.leave_joint()?
    } else if let Some(auto_leave) = change.enter_joint() {
        changer.enter_joint(auto_leave, &change.changes)?
    } else {
        changer.simple(&change.changes)?
    };
    tracker.apply_conf(configuration, changes, 1);
    Ok(())
}

/// A snapshot of a position that its leader can have, with a configuration that raft-rs can restore.
fn snapshot(message: &Message) -> Result<(), PeerRefusal> {
    let metadata = message.get_snapshot().get_metadata();
    let refused = |why| Err(PeerRefusal::Snapshot(why));
    if metadata.index == 0 || metadata.index > NUMBER_MAX {
        return refused("is of an index that none can have");
    }
    if metadata.term == 0 || metadata.term > message.term {
        return refused("is of a term that its leader has not seen");
    }
    if !can_be(metadata.get_conf_state()) {
        return refused("has a configuration that can't be");
    }
    Ok(())
}

/// What the rows of a snapshot say of their position.
pub fn snapshot_rows(applied: &Applied) -> Result<(), PeerRefusal> {
    if applied.count > applied.index.0 {
        return Err(PeerRefusal::Snapshot("has more entries than its index"));
    }
    if applied.stamp > TIME_MAX {
        return Err(PeerRefusal::Snapshot("has a stamp that no clock shows"));
    }
    Ok(())
}

/// Whether raft-rs comes to this configuration when it restores it: it stops the process else.
fn can_be(conf: &ConfState) -> bool {
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave, .. } = conf;
    let is_set = |ids: &[u64]| ids.windows(2).all(|pair| pair[0] < pair[1]) && ids.first() != Some(&0);
    let apart = |some: &[u64], others: &[u64]| some.iter().all(|id| !others.contains(id));
    let joint = !voters_outgoing.is_empty();
    [voters, learners, voters_outgoing, learners_next].into_iter().all(|ids| is_set(ids))
        && !voters.is_empty()
        && apart(voters, learners)
        && apart(voters_outgoing, learners)
        && apart(voters, learners_next)
        && learners_next.iter().all(|id| voters_outgoing.contains(id))
        && (joint || !auto_leave)
}

/// The kinds of message that one replica's raft-rs sends another's. A forwarded proposal is none: owners propose beside
/// the leader.
fn is_sent(kind: MessageType) -> Result<(), PeerRefusal> {
    match kind {
        MessageType::MsgAppend
        | MessageType::MsgAppendResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgSnapshot
        | MessageType::MsgTimeoutNow
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => Ok(()),
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader => Err(PeerRefusal::Kind(kind)),
    }
}
