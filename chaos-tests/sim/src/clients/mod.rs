//! Clients: their sessions, what they draw ids from, and what senders try again.
//!
//! * `workload`: what they ask.

mod workload;

use std::collections::BTreeMap;
use std::time::Duration;

use mailraft_checkers::{At, Ended, Micros, Reply};
use mailraft_mailbox::Answer;
use mailraft_storage::{CommandId, Env, MailboxId, NodeId, UnixMillis};

use crate::dice::Dice;
use crate::message::LARGE_ONE_IN;
use crate::session::{Kind, Session};
use crate::setup::Setup;

/// The dice of what clients do.
const STREAM: u64 = 2;
/// A sender tries so often.
const TRIES_MAX: u32 = 6;
/// Of a thousand senders that try again so many do so after long.
const PATIENT_PERMILLE: u64 = 50;
/// ... after so long, in the mean.
const PATIENT_MEAN: Micros = 600_000_000;

/// A delivery that a sender tries again: to this mailbox, this message.
type Redelivery = (MailboxId, u64);

/// All clients of a run.
pub struct Clients {
    /// Chance in what they do.
    dice: Dice,
    /// What they draw ids and keys from.
    env: Env,
    sessions: BTreeMap<u64, Session>,
    last_session: u64,
    /// The last message's marker.
    last_marker: u64,
    /// Deliveries to be tried again, by time and marker.
    redeliveries: BTreeMap<(Micros, u64), Redelivery>,
    /// How often each message was tried.
    tries: BTreeMap<u64, u32>,
    /// The names in the last answer to a LIST.
    last_list: Option<Vec<String>>,
    /// How each session's last operation ended, if someone asks.
    answers: Option<BTreeMap<u64, (Ended, Option<At>)>>,
    /// One was refused since damaged rows could not be read.
    refused_damaged: bool,
}

impl Clients {
    /// None is connected yet.
    pub fn new(seed: u64, env: Env) -> Self {
        Clients {
            dice: Dice::new(seed, STREAM),
            env,
            sessions: BTreeMap::new(),
            last_session: 0,
            last_marker: 0,
            redeliveries: BTreeMap::new(),
            tries: BTreeMap::new(),
            last_list: None,
            answers: None,
            refused_damaged: false,
        }
    }

    /// One connects to a node; its session's number.
    pub fn connect(&mut self, node: NodeId, kind: Kind, mailbox: MailboxId) -> u64 {
        self.last_session += 1;
        let number = self.last_session;
        self.sessions.insert(number, Session::new(number, node, kind, mailbox));
        number
    }

    /// The number of a session that never was, by which something is judged.
    pub fn judged_alone(&mut self) -> u64 {
        self.last_session += 1;
        self.last_session
    }

    /// A session is gone for good; None if there is none of this number.
    pub fn disconnect(&mut self, number: u64) -> Option<Session> {
        self.sessions.remove(&number)
    }

    /// A session that was to be gone stays after all.
    pub fn stays(&mut self, session: Session) {
        self.sessions.insert(session.number, session);
    }

    /// The session of this number.
    pub fn session(&self, number: u64) -> Option<&Session> {
        self.sessions.get(&number)
    }

    /// The session of this number, to be changed.
    pub fn session_mut(&mut self, number: u64) -> Option<&mut Session> {
        self.sessions.get_mut(&number)
    }

    /// All sessions.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values()
    }

    /// A session beside what clients draw from.
    pub fn session_and_env(&mut self, number: u64) -> Option<(&mut Session, &mut Env)> {
        self.sessions.get_mut(&number).map(|session| (session, &mut self.env))
    }

    /// Chance in what clients do.
    pub fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }

    /// What clients draw ids and keys from.
    pub fn env(&mut self) -> &mut Env {
        &mut self.env
    }

    /// The time that the next ids are drawn at, as a client's node knows it.
    pub fn set_wall(&mut self, wall: UnixMillis) {
        self.env.wall = wall;
    }

    /// The time since the beginning, for patience.
    pub fn set_now(&mut self, now: Micros) {
        self.env.now = Duration::from_micros(now);
    }

    /// An id that nobody drew before.
    pub fn command_id(&mut self) -> CommandId {
        self.env.command_id()
    }

    /// A new message's marker.
    pub fn new_marker(&mut self) -> u64 {
        self.last_marker += 1;
        self.last_marker
    }

    /// A new message's marker that makes it small.
    pub fn new_small_marker(&mut self) -> u64 {
        let marker = self.new_marker();
        if marker.is_multiple_of(LARGE_ONE_IN) { self.new_marker() } else { marker }
    }

    /// A new message's marker that makes it larger than a chunk.
    pub fn new_large_marker(&mut self) -> u64 {
        self.last_marker = (self.last_marker + 1).next_multiple_of(LARGE_ONE_IN);
        self.last_marker
    }

    /// A sender tries a message again some time, if it was not tried too often.
    pub fn tries_again(&mut self, mailbox: MailboxId, marker: u64, now: Micros, setup: &Setup) {
        let tried = self.tries.get(&marker).copied().unwrap_or(0) + 1;
        if tried < TRIES_MAX {
            self.tries.insert(marker, tried);
            let mean = if self.dice.chance(PATIENT_PERMILLE) { PATIENT_MEAN } else { setup.repeats_mean };
            let at = now + self.dice.exponential(mean);
            self.redeliveries.insert((at, marker), (mailbox, marker));
        }
    }

    /// A delivery that is to be tried again by now.
    fn due_redelivery(&mut self, now: Micros) -> Option<Redelivery> {
        let due = self.redeliveries.first_key_value().filter(|((at, _), _)| *at <= now).map(|(key, _)| *key)?;
        self.redeliveries.remove(&due)
    }

    /// From now on it is kept how each session's last operation ended.
    pub fn keep_answers(&mut self) {
        self.answers = Some(BTreeMap::new());
    }

    /// What a session's last operation came to is of no interest any more.
    pub fn forget_answer(&mut self, number: u64) {
        self.answers.as_mut().and_then(|answers| answers.remove(&number));
    }

    /// How a session's last operation ended. It has not if the session began anew under another id.
    pub fn answer(&self, number: u64) -> Option<&(Ended, Option<At>)> {
        let busy = self.sessions.get(&number).is_some_and(|session| session.busy.is_some());
        self.answers.as_ref()?.get(&number).filter(|_| !busy)
    }

    /// A session's operation has ended.
    pub fn answered(&mut self, number: u64, ended: &Ended, position: Option<At>) {
        if let Ended::Done(Reply::Answer(Answer::Folders(folders))) = ended {
            let names = folders.iter().filter(|f| f.selectable && f.id.is_some()).map(|f| f.name.clone());
            self.last_list = Some(names.collect());
        }
        if let Some(answers) = &mut self.answers {
            answers.insert(number, (ended.clone(), position));
        }
    }

    /// The names in the last answer to a LIST, once.
    pub fn take_list(&mut self) -> Option<Vec<String>> {
        self.last_list.take()
    }

    /// Someone was refused what damaged rows hold.
    pub fn refuse_damaged(&mut self) {
        self.refused_damaged = true;
    }

    /// Whether someone was refused what damaged rows hold, since that was forgotten.
    pub fn refused_damaged(&self) -> bool {
        self.refused_damaged
    }

    /// Nobody was refused anything yet.
    pub fn forget_refused(&mut self) {
        self.refused_damaged = false;
    }
}
