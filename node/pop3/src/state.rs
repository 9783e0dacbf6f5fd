//! What a session is between commands, and what its commands change.

use std::time::Duration;

use mailraft_mailbox::UidSet;
use mailraft_mailbox::api::{self, FolderId};
use mailraft_protocol::Refusal;

use crate::reply::err;

/// Commands that are wrong before the session ends.
pub const WRONG_COMMANDS_MAX: u32 = 20;
/// Failed logins before the session ends.
pub const WRONG_LOGINS_MAX: u32 = 3;

/// What a session is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether STLS is there.
    pub tls_available: bool,
    /// A client logs in within this time: who sends a byte now and then would otherwise hold a session for ever.
    pub login_max: Duration,
}

/// A session's state.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) tls: bool,
    /// What USER said, if that was the last command.
    pub(crate) user: Option<String>,
    /// The maildrop in the TRANSACTION state.
    pub(crate) opened: Option<Opened>,
    pub(crate) reading: Reading,
    /// Why the maildrop is not this session's any more, as it heard while its client said nothing.
    pub(crate) lost: Option<Refusal>,
    /// Nothing more is read.
    pub(crate) closing: bool,
    wrong: u32,
    wrong_logins: u32,
}

/// What the next line is.
#[derive(Debug)]
pub(crate) enum Reading {
    Commands,
    AuthPlain,
    AuthLoginUser,
    AuthLoginPassword(String),
}

/// The maildrop as it was at the login.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) folder: FolderId,
    /// Message n is at n - 1.
    messages: Vec<Message>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) uid: u32,
    pub(crate) size_bytes: u64,
    pub(crate) deleted: bool,
}

impl State {
    pub(crate) fn new(config: Config, tls: bool) -> Self {
        State {
            config,
            tls,
            user: None,
            opened: None,
            reading: Reading::Commands,
            lost: None,
            closing: false,
            wrong: 0,
            wrong_logins: 0,
        }
    }

    /// The maildrop, if somebody is logged in; else that is said.
    pub(crate) fn opened(&mut self, out: &mut Vec<u8>) -> Option<&mut Opened> {
        if self.opened.is_none() {
            self.wrong(out, "log in first");
        }
        self.opened.as_mut()
    }

    /// A command was wrong; too many end the session.
    pub(crate) fn wrong(&mut self, out: &mut Vec<u8>, text: &str) {
        self.wrong += 1;
        self.closing = self.wrong >= WRONG_COMMANDS_MAX;
        err(out, &if self.closing { format!("{text}; these were too many wrong commands") } else { text.to_owned() });
    }

    /// A login failed; too many end the session.
    pub(crate) fn wrong_login(&mut self, out: &mut Vec<u8>, text: &str) {
        self.wrong_logins += 1;
        self.closing = self.wrong_logins >= WRONG_LOGINS_MAX;
        err(out, text);
    }
}

impl Opened {
    pub(crate) fn new(maildrop: api::Maildrop) -> Self {
        let message = |m: api::MaildropMessage| Message { uid: m.uid, size_bytes: m.size_bytes, deleted: false };
        Opened { folder: maildrop.folder, messages: maildrop.messages.into_iter().map(message).collect() }
    }

    /// The messages that are not marked as deleted, with their numbers.
    pub(crate) fn present(&self) -> impl Iterator<Item = (usize, Message)> + '_ {
        (1..).zip(self.messages.iter().copied()).filter(|(_, message)| !message.deleted)
    }

    /// How many these are, and their bytes.
    pub(crate) fn count(&self) -> (usize, u64) {
        self.present().fold((0, 0), |(count, bytes), (_, message)| (count + 1, bytes + message.size_bytes))
    }

    /// The message of a number, as a client wrote it.
    pub(crate) fn find(&mut self, number: &[u8]) -> Result<(usize, &mut Message), &'static str> {
        let number = parse_number(number).ok_or("a message is named by its number")?;
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        match at.checked_sub(1).and_then(|index| self.messages.get_mut(index)) {
            None => Err("no such message"),
            Some(message) if message.deleted => Err("this message is marked as deleted"),
            Some(message) => Ok((at, message)),
        }
    }

    /// The UIDs of those that are.
    pub(crate) fn deleted(&self) -> UidSet {
        self.messages.iter().filter(|message| message.deleted).map(|message| message.uid).collect()
    }

    /// None is marked as deleted.
    pub(crate) fn reset(&mut self) {
        self.messages.iter_mut().for_each(|message| message.deleted = false);
    }
}

/// A number as a client writes it; one too large for anything is the largest.
pub(crate) fn parse_number(word: &[u8]) -> Option<u64> {
    if word.is_empty() || !word.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(word.iter().fold(0u64, |n, digit| n.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

/// The words of an argument.
pub(crate) fn words(argument: &[u8]) -> Vec<&[u8]> {
    argument.split(|b| *b == b' ').filter(|word| !word.is_empty()).collect()
}
