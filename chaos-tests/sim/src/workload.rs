//! What clients do: small mailboxes, many hands, every command.

use mailraft_checkers::{Micros, Op, Record};
use mailraft_mailbox::api::{FolderId, StoreMode};
use mailraft_mailbox::{Flags, SystemFlag, UidSet};
use mailraft_storage::{MailboxId, NodeId};

use crate::dice::Dice;
use crate::message::LARGE_ONE_IN;
use crate::session::Kind;
use crate::world::{Event, Redelivery, World};

/// A sender tries so often.
const TRIES_MAX: u32 = 6;
/// Names that folders have.
const NAMES: [&str; 7] = ["INBOX", "Archive", "Trash", "a", "b", "a/c", "d"];
/// Messages that one command is about, at most.
const UIDS_MAX: u64 = 12;

impl World {
    /// Whether a client may begin something, and then does.
    pub fn next_operation(&mut self, number: u64) {
        let Some(session) = self.sessions.get(&number) else { return };
        if session.busy.is_some() || session.over || self.quiet {
            return;
        }
        let node = session.node;
        let Some(host) = self.hosts.get(&node).filter(|h| h.up.is_some()) else { return };
        self.clients.wall = host.cluster_wall(self.now);
        let op = match session.kind {
            Kind::Smtp => self.delivery(number),
            Kind::Imap => self.imap_command(number),
        };
        if let Some(op) = op {
            self.begins(number, op);
        }
    }

    /// An operation has ended: when the next begins, and whether a sender tries again.
    pub fn after(&mut self, number: u64, kind: Kind, mailbox: MailboxId, again: Option<u64>) {
        if let Some(marker) = again {
            let tried = self.tries.get(&marker).copied().unwrap_or(0) + 1;
            if tried < TRIES_MAX {
                self.tries.insert(marker, tried);
                let mean = if self.work.chance(50) { 600_000_000 } else { self.setup.repeats_mean };
                let at = self.now + self.work.exponential(mean);
                self.redeliveries.insert((at, marker), Redelivery { mailbox, marker, tried });
            }
        }
        let think = self.think(kind);
        let at = self.now + think;
        self.queue.push(at, Event::Next(number));
    }

    /// Whether a sender repeats a delivery that was accepted, as if it had lost the answer.
    pub fn repeats_accepted(&mut self) -> bool {
        self.setup.repeats_permille > 0 && self.work.chance(self.setup.repeats_permille)
    }

    /// A new session in the place of one whose node died.
    pub fn connects_again(&mut self, old: u64) {
        let Some(session) = self.sessions.remove(&old) else { return };
        assert!(session.busy.is_none(), "a client connects anew while session {old} still does something");
        let up: Vec<NodeId> = self.hosts.values().filter(|h| h.up.is_some()).map(|h| h.id).collect();
        let Some(node) = self.work.pick(&up).copied() else {
            // Nobody is there: the client goes on trying.
            self.sessions.insert(old, session);
            let at = self.now + 500_000;
            return self.queue.push(at, Event::Connect(old));
        };
        let number = self.connect(node, session.kind, session.mailbox);
        let at = self.now + self.think(session.kind) / 2;
        self.queue.push(at, Event::Next(number));
    }

    fn think(&mut self, kind: Kind) -> Micros {
        // Deliveries are two of five operations.
        let (sessions, share) = match kind {
            Kind::Imap => (self.setup.imap_sessions, 3),
            Kind::Smtp => (self.setup.smtp_sessions, 2),
        };
        self.work.exponential(sessions * 5 * self.setup.operation_every / share)
    }

    fn delivery(&mut self, number: u64) -> Option<Op> {
        let due = self.redeliveries.first_key_value().filter(|((at, _), _)| *at <= self.now).map(|(key, _)| *key);
        let (mailbox, marker) = match due.and_then(|key| self.redeliveries.remove(&key)) {
            Some(again) => (again.mailbox, again.marker),
            None => {
                self.next_marker();
                let there: Vec<MailboxId> =
                    self.mailboxes.iter().filter(|(_, m)| m.exists).map(|(id, _)| *id).collect();
                (*self.work.pick(&there)?, self.last_marker)
            }
        };
        if self.sessions.get(&number)?.mailbox != mailbox {
            self.turns_to(number, mailbox);
        }
        Some(Op::Deliver { marker, deduplicate: true })
    }

    fn imap_command(&mut self, number: u64) -> Option<Op> {
        let session = self.sessions.get(&number)?;
        let World { work, setup, .. } = self;
        let name = |work: &mut Dice| (*work.pick(&NAMES).unwrap_or(&"INBOX")).to_owned();
        let Some(following) = session.following() else {
            return Some(match work.below(20) {
                0 => Op::List,
                1 => Op::Status { folder: name(work) },
                2 => Op::Create { name: name(work) },
                3..=11 => Op::Select { folder: "INBOX".to_owned() },
                _ => Op::Select { folder: name(work) },
            });
        };
        let folder = following.folder();
        let uids: Vec<u32> = following.uids().collect();
        let full = uids.len() > setup.folder_full;
        let some = |work: &mut Dice| -> UidSet {
            let count = work.between(1, UIDS_MAX);
            (0..count).filter_map(|_| work.pick(&uids).copied()).collect()
        };
        let flag = |work: &mut Dice| {
            let flags = [SystemFlag::Seen, SystemFlag::Flagged, SystemFlag::Answered];
            match work.below(4) {
                3 => Flags::none().with_keyword(if work.chance(500) { "$one" } else { "$two" }),
                at => Flags::none().with(flags[at as usize % flags.len()]),
            }
        };
        let overfull = uids.len() > 2 * setup.folder_full;
        if setup.wide_permille > 0 && work.chance(setup.wide_permille) {
            let mode = *work.pick(&[StoreMode::Add, StoreMode::Remove, StoreMode::Replace])?;
            let (flags, to, since) = (flag(work), name(work), following.modseq());
            let marked = (uids.len() > setup.folder_full).then_some(SystemFlag::Deleted);
            return Some(wide(work, folder, &uids, (mode, flags, since), to, marked));
        }
        if overfull || full && work.chance(300) {
            // Those that came first go first.
            let old: UidSet = uids.iter().copied().take(UIDS_MAX as usize).collect();
            let flags = Flags::none().with(SystemFlag::Deleted);
            return Some(if work.chance(500) {
                Op::Store { folder, uids: old, mode: StoreMode::Add, flags, unchanged_since: None }
            } else {
                Op::Expunge { folder, uids: None }
            });
        }
        Some(match work.below(100) {
            0..=19 => {
                let mode = *work.pick(&[StoreMode::Add, StoreMode::Remove, StoreMode::Replace])?;
                let since = following.modseq();
                let unchanged_since = work.chance(150).then(|| since.saturating_sub(work.below(4)));
                Op::Store { folder, uids: some(work), mode, flags: flag(work), unchanged_since }
            }
            20..=27 => {
                let flags = Flags::none().with(SystemFlag::Deleted);
                Op::Store { folder, uids: some(work), mode: StoreMode::Add, flags, unchanged_since: None }
            }
            28..=34 => Op::Expunge { folder, uids: work.chance(400).then(|| some(work)) },
            35..=49 if !full => {
                let (folder, flags) = (name(work), flag(work));
                Op::Append { folder, marker: self.next_marker(), flags }
            }
            50..=55 if !full => Op::Copy { folder, uids: some(work), to: name(work) },
            56..=61 => Op::Move { folder, uids: some(work), to: name(work) },
            62..=73 => Op::Fetch { folder, uids: some(work) },
            74..=78 => Op::ReadBody { folder, uid: *work.pick(&uids).unwrap_or(&1) },
            79..=84 => Op::Sync,
            85..=88 => Op::Select { folder: name(work) },
            89 => Op::Unselect,
            90..=91 => Op::Status { folder: name(work) },
            92 => Op::List,
            93..=94 => Op::Create { name: name(work) },
            95 => Op::Delete { name: name(work) },
            96 => Op::Rename { from: name(work), to: name(work) },
            97 => Op::Subscribe { name: name(work), on: work.chance(500) },
            _ => Op::Sync,
        })
    }

    /// A new message's name, which says how large it is.
    fn next_marker(&mut self) -> u64 {
        let large = self.setup.large_permille > 0 && self.work.chance(self.setup.large_permille);
        self.last_marker = match large {
            true => (self.last_marker + 1).next_multiple_of(LARGE_ONE_IN),
            false => self.last_marker + 1,
        };
        self.last_marker
    }

    /// A mailbox was made, or is to be made again.
    pub fn mailbox_was_made(&mut self, mailbox: MailboxId, made: bool) {
        if !made {
            let at = self.now + 200_000;
            return self.queue.push(at, Event::Make(mailbox));
        }
        let Some(info) = self.mailboxes.get_mut(&mailbox).filter(|m| !m.exists) else { return };
        info.exists = true;
        let partition = info.partition.0;
        self.record(Record::Mailbox { mailbox, partition });
        self.say(format!("mailbox {mailbox} exists, in partition {partition}"));
    }
}

/// A command about all messages of a folder, or all of a stretch of it: what has rows of another shape than a change of few.
/// Where `deletes` says so the folder is full, and the command makes room.
fn wide(
    work: &mut Dice,
    folder: FolderId,
    uids: &[u32],
    (mode, flags, since): (StoreMode, Flags, u64),
    to: String,
    deletes: Option<SystemFlag>,
) -> Op {
    let from = work.below(uids.len() as u64 / 2 + 1) as usize;
    let stretch: UidSet = match work.below(4) {
        // As a client says 1:*.
        0..=1 => UidSet::range(1, u32::MAX),
        2 => uids.iter().skip(from).copied().collect(),
        _ => uids.iter().step_by(2).copied().collect(),
    };
    if let Some(flag) = deletes {
        let flags = Flags::none().with(flag);
        return match work.below(3) {
            0 => Op::Expunge { folder, uids: None },
            1 => Op::Move { folder, uids: stretch, to },
            _ => Op::Store { folder, uids: stretch, mode: StoreMode::Add, flags, unchanged_since: None },
        };
    }
    match work.below(10) {
        0..=2 => Op::Store { folder, uids: stretch, mode, flags, unchanged_since: None },
        3 => Op::Store { folder, uids: stretch, mode, flags, unchanged_since: Some(since) },
        4..=7 => Op::Copy { folder, uids: stretch, to },
        8 => Op::Move { folder, uids: stretch, to },
        _ => Op::Expunge { folder, uids: None },
    }
}
