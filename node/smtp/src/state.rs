//! What a session is between commands, and what its commands change.

use std::time::Duration;

use mailraft_protocol::Tls;

use crate::agent::{DeliveryAgent, Destination};
use crate::chunks::{Chunk, Chunks};
use crate::data::Data;
use crate::dsn::Return;
use crate::parse::{Mailbox, Path};
use crate::reply::line;

/// Recipients of one transaction.
pub const RECIPIENTS_MAX: usize = 100;
/// Mailboxes that the recipients of one transaction stand for.
pub const MAILBOXES_MAX: usize = 200;
/// Commands that are wrong or refused before the session ends.
pub const WRONG_COMMANDS_MAX: u32 = 20;
/// Failed logins before the session ends.
pub const WRONG_LOGINS_MAX: u32 = 3;

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// From other servers: port 25.
    Relay,
    /// From mail programs, with STARTTLS: port 587.
    Submission,
    /// From mail programs, over TLS: port 465.
    Submissions,
}

/// What a session is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// This server's name.
    pub hostname: String,
    /// What the port is for.
    pub service: Service,
    /// The longest message, in bytes.
    pub max_message_bytes: u64,
    /// Whether STARTTLS is there.
    pub tls_available: bool,
    /// Whether senders can be told what became of their messages: DSN is offered.
    pub reports: bool,
    /// A mail program logs in within this time.
    pub login_max: Duration,
}

/// A session's state.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) tls: Option<Tls>,
    /// What HELO or EHLO said, and whether it was EHLO.
    pub(crate) helo: Option<(String, bool)>,
    /// Who is logged in.
    pub(crate) identity: Option<String>,
    pub(crate) mail: Option<Mail>,
    pub(crate) reading: Reading,
    /// Nothing more is read.
    pub(crate) closing: bool,
    wrong: u32,
    wrong_logins: u32,
}

/// What the next input is.
#[derive(Debug)]
pub(crate) enum Reading {
    Commands,
    AuthPlain,
    AuthLoginUser,
    AuthLoginPassword(String),
    Data(Data),
    Chunk(Chunk),
}

/// The mail transaction that is being prepared.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mail {
    pub(crate) reverse_path: Path,
    pub(crate) eight_bit: bool,
    pub(crate) requiretls: bool,
    pub(crate) ret: Option<Return>,
    pub(crate) envid: Option<String>,
    pub(crate) announced_bytes: Option<u64>,
    pub(crate) recipients: Vec<Mailbox>,
    /// What they stand for, each mailbox once.
    pub(crate) destinations: Vec<Destination>,
    /// What came of the message, once BDAT began it.
    pub(crate) chunks: Option<Chunks>,
}

impl State {
    pub(crate) fn new(config: Config, tls: Option<Tls>) -> Self {
        State {
            config,
            tls,
            helo: None,
            identity: None,
            mail: None,
            reading: Reading::Commands,
            closing: false,
            wrong: 0,
            wrong_logins: 0,
        }
    }

    /// Ends the transaction; what came of its message is dropped.
    pub(crate) fn drop_mail<A: DeliveryAgent>(&mut self, agent: &mut A) {
        if self.mail.take().is_some_and(|mail| mail.chunks.is_some()) {
            agent.discard();
        }
    }

    /// A command was wrong or refused; too many end the session.
    pub(crate) fn wrong(&mut self, out: &mut Vec<u8>, reply: &str) {
        line(out, reply);
        self.wrong += 1;
        if self.wrong >= WRONG_COMMANDS_MAX {
            line(out, "421 4.7.0 too many wrong commands");
            self.closing = true;
        }
    }

    /// A login failed; too many end the session.
    pub(crate) fn wrong_login(&mut self, out: &mut Vec<u8>, reply: &str) {
        line(out, reply);
        self.wrong_logins += 1;
        if self.wrong_logins >= WRONG_LOGINS_MAX {
            line(out, "421 4.7.0 too many wrong logins");
            self.closing = true;
        }
    }
}
