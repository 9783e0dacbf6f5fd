//! What clients do: small mailboxes, many hands, every command.

use mailraft_checkers::{Ended, Micros, Op};
use mailraft_mailbox::api::{FolderId, StoreMode};
use mailraft_mailbox::{Flags, SystemFlag, UidSet};
use mailraft_storage::MailboxId;

use super::Clients;
use crate::dice::Dice;
use crate::session::{Kind, Session};
use crate::setup::Setup;

/// Names that folders have.
const NAMES: [&str; 7] = ["INBOX", "Archive", "Trash", "a", "b", "a/c", "d"];
/// Of a thousand that are asked again so many differ in one thing.
const DIFFERS_PERMILLE: u64 = 250;
/// ... and so many are asked by another session.
const OTHERS_PERMILLE: u64 = 200;
/// A client that loses its connection does so after this time, in the mean.
const HANGS_UP_AFTER: Micros = 4_000;
/// Messages that one command is about, at most.
const UIDS_MAX: u64 = 12;

impl Clients {
    /// Whether a sender repeats a delivery that was accepted, as if it had lost the answer.
    pub fn repeats_accepted(&mut self, setup: &Setup) -> bool {
        setup.repeats_permille > 0 && self.dice.chance(setup.repeats_permille)
    }

    /// An operation has ended: whether its client asks for it again next. Mostly because it heard no answer; sometimes
    /// because it wants it twice, or something that differs in one thing.
    pub fn may_ask_again(&mut self, number: u64, op: &Op, ended: &Ended, setup: &Setup) {
        if !op.is_once() || setup.again_permille == 0 {
            return;
        }
        let permille = match ended {
            Ended::Unknown => 8 * setup.again_permille,
            Ended::Done(_) => setup.again_permille,
            Ended::Refused(_) | Ended::NotDone | Ended::NoSuchMailbox => 0,
        };
        if !self.dice.chance(permille.min(900)) {
            return;
        }
        let mut again = op.clone();
        let differs = self.dice.chance(DIFFERS_PERMILLE);
        match &mut again {
            Op::Append { folder, date, .. } if differs => match self.dice.below(2) {
                0 => (*self.dice.pick(&NAMES).unwrap_or(&NAMES[0])).clone_into(folder),
                _ => *date = Some(self.dice.below(2) as i64),
            },
            Op::Copy { to, .. } if differs => (*self.dice.pick(&NAMES).unwrap_or(&NAMES[0])).clone_into(to),
            _ => {}
        }
        // Its own client, or another one of the mailbox, which got it from there.
        let other = self.dice.chance(OTHERS_PERMILLE).then(|| self.of_same_mailbox(number)).flatten();
        if let Some(session) = self.sessions.get_mut(&other.unwrap_or(number)) {
            session.again = Some(again);
        }
    }

    /// Another session of a session's mailbox.
    fn of_same_mailbox(&mut self, number: u64) -> Option<u64> {
        let of = self.sessions.get(&number)?;
        let same = |other: &&Session| other.number != number && other.mailbox == of.mailbox && other.kind == of.kind;
        let others: Vec<u64> = self.sessions.values().filter(same).map(|other| other.number).collect();
        self.dice.pick(&others).copied()
    }

    /// Whether a client is to lose its connection soon after it asked, and when.
    pub fn hangs_up_after(&mut self, setup: &Setup) -> Option<Micros> {
        let lost = setup.hang_ups_permille > 0 && self.dice.chance(setup.hang_ups_permille);
        lost.then(|| self.dice.exponential(HANGS_UP_AFTER))
    }

    /// How long a client thinks before it begins something.
    pub fn think(&mut self, kind: Kind, setup: &Setup) -> Micros {
        // Deliveries are two of five operations.
        let (sessions, share) = match kind {
            Kind::Imap => (setup.imap_sessions, 3),
            Kind::Smtp => (setup.smtp_sessions, 2),
            Kind::Pop3 => (setup.pop3_sessions, 1),
        };
        self.dice.exponential(sessions * 5 * setup.operation_every / share)
    }

    /// What a sender delivers next, and to which of the mailboxes that are there: again what is due, or a new message.
    pub fn delivery(&mut self, there: &[MailboxId], now: Micros, setup: &Setup) -> Option<(MailboxId, Op)> {
        let (mailbox, marker) = match self.due_redelivery(now) {
            Some(again) => again,
            None => {
                let marker = self.next_marker(setup);
                (*self.dice.pick(there)?, marker)
            }
        };
        let submits = setup.submissions_permille > 0 && marker_chance(marker) < setup.submissions_permille;
        Some((mailbox, Op::Deliver { marker, deduplicate: !submits }))
    }

    /// What a session asks next.
    pub fn imap_command(&mut self, number: u64, setup: &Setup) -> Option<Op> {
        let (session, work) = (self.sessions.get(&number)?, &mut self.dice);
        let name = |work: &mut Dice| (*work.pick(&NAMES).unwrap_or(&"INBOX")).to_owned();
        if let Some(kept) = &session.returns_with {
            return Some(Op::Select { folder: kept.name.clone() });
        }
        let Some(following) = session.following() else {
            return Some(match work.below(20) {
                0 => Op::List,
                1 => Op::Status { folder: name(work) },
                2 => Op::Create { name: name(work) },
                3..=11 => Op::Select { folder: "INBOX".to_owned() },
                _ => Op::Select { folder: name(work) },
            });
        };
        let (folder, since) = (following.folder(), following.modseq());
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
            let (flags, to) = (flag(work), name(work));
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
                Op::Append { folder, marker: self.next_marker(setup), flags, date: None }
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

    /// What a POP3 session asks next: it logs in, looks at some messages, may remove some, and quits.
    pub fn pop3_command(&mut self, number: u64, setup: &Setup) -> Option<Op> {
        let (session, work) = (self.sessions.get_mut(&number)?, &mut self.dice);
        let Some(maildrop) = &mut session.maildrop else { return Some(Op::Maildrop) };
        let folder = maildrop.folder;
        if maildrop.quits || maildrop.uids.is_empty() {
            return Some(Op::Unselect);
        }
        let some = |work: &mut Dice, uids: &[u32]| -> UidSet {
            (0..work.between(1, UIDS_MAX)).filter_map(|_| work.pick(uids).copied()).collect()
        };
        // Who fetches mail this way removes it; here some is left for the others.
        let removes = if maildrop.uids.len() > setup.folder_full { 40 } else { 10 };
        Some(match work.below(100) {
            0..=39 => Op::ReadBody { folder, uid: *work.pick(&maildrop.uids)? },
            40..=54 => Op::UniqueIds { folder, uids: some(work, &maildrop.uids) },
            at if at < 55 + removes => {
                maildrop.quits = true;
                Op::Remove { folder, uids: some(work, &maildrop.uids) }
            }
            _ => Op::Unselect,
        })
    }

    /// A new message's marker, which says how large it is.
    fn next_marker(&mut self, setup: &Setup) -> u64 {
        let large = setup.large_permille > 0 && self.dice.chance(setup.large_permille);
        if large { self.new_large_marker() } else { self.new_marker() }
    }
}

/// Of a thousand, which share a message is of: the same at each try.
fn marker_chance(marker: u64) -> u64 {
    marker.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & 0x3ff
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
