//! A session: one command, or one piece of a message, after another.

use std::time::Duration;

use mailraft_protocol::{Engine, Farewell, Input, Line, Out, Output, Patience, Refusal, Tls, Turn};

use crate::agent::{DeliveryAgent, Transaction};
use crate::chunks::{Chunk, ChunkRefusal};
use crate::commands;
use crate::data::Data;
use crate::dsn::{ENVID_MAX_BYTES, ORCPT_MAX_BYTES};
use crate::parse::{PATH_MAX_BYTES, SENDER_PATH_MAX_BYTES};
use crate::refusals::{During, refuse};
use crate::reply::line;
use crate::state::{Config, Reading, Service, State};

/// A command line with its CRLF, in bytes (RFC 5321, section 4.5.3.1.4).
pub const COMMAND_LINE_MAX_BYTES: usize = 512;
/// A MAIL line: 26 more for SIZE (RFC 1870), 17 for BODY (RFC 6152), 500 for AUTH (RFC 4954), 11 for REQUIRETLS
/// (RFC 8689), 9 for RET and 7 and the value for ENVID (RFC 3461), and a longer path.
pub const MAIL_LINE_MAX_BYTES: usize =
    COMMAND_LINE_MAX_BYTES + 26 + 17 + 500 + 11 + 9 + 7 + ENVID_MAX_BYTES + SENDER_PATH_MAX_BYTES - PATH_MAX_BYTES;
/// A RCPT line: 29 more for NOTIFY, 7 and the value for ORCPT (RFC 3461).
pub const RCPT_LINE_MAX_BYTES: usize = COMMAND_LINE_MAX_BYTES + 29 + 7 + ORCPT_MAX_BYTES;
/// An AUTH line, or one of its answers (RFC 4954, section 4).
pub const AUTH_LINE_MAX_BYTES: usize = 12_288;

/// A silent client is waited for this long (RFC 5321, section 4.5.3.2.7).
const IDLE_MAX: Duration = Duration::from_secs(5 * 60);
/// A session is over after this long: who sends a byte now and then would otherwise hold it for ever.
const SESSION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A session.
pub struct Session<A> {
    state: State,
    input: Input,
    pub(crate) agent: A,
}

impl<A: DeliveryAgent> Session<A> {
    /// A session at its start; `tls` if TLS is up already.
    pub fn new(config: Config, tls: Option<Tls>, agent: A) -> Self {
        Session { state: State::new(config, tls), input: Input::default(), agent }
    }

    /// The agent, when the session is over.
    pub fn into_agent(self) -> A {
        self.agent
    }

    /// Takes a piece of the message, and delivers it if that was the last.
    async fn message(&mut self, mut data: Data, out: &mut Vec<u8>) -> Turn {
        let mut content = Vec::new();
        let (took, ended) = data.take(self.input.pending(), &mut content);
        self.input.consume(took);
        let limit = self.state.config.max_message_bytes;
        let too_long = data.size_bytes > limit;
        let refused = too_long || data.bare;
        if refused && !std::mem::replace(&mut data.dropped, true) {
            self.agent.discard();
        } else if !refused && !content.is_empty() {
            self.agent.receive(&content);
        }
        if !ended {
            self.state.reading = Reading::Data(data);
            return if took == 0 { Turn::NeedInput } else { Turn::Again };
        }
        self.whole(data.size_bytes, data.bare, out).await;
        Turn::Again
    }

    /// Takes a part of a piece, and delivers the message if that was the last.
    async fn chunk(&mut self, mut chunk: Chunk, out: &mut Vec<u8>) -> Turn {
        let pending = self.input.pending();
        let took = pending.len().min(usize::try_from(chunk.left_bytes).unwrap_or(usize::MAX));
        let limit = self.state.config.max_message_bytes;
        let begun = self.state.mail.as_mut().and_then(|mail| mail.chunks.as_mut());
        if let (None, Some(chunks)) = (&chunk.refused, begun) {
            let was_refused = chunks.size_bytes > limit || chunks.bare;
            chunks.take(&pending[..took]);
            let is_refused = chunks.size_bytes > limit || chunks.bare;
            if is_refused && !was_refused {
                self.agent.discard();
            } else if !is_refused && took > 0 {
                self.agent.receive(&pending[..took]);
            }
        }
        self.input.consume(took);
        chunk.left_bytes -= took as u64;
        if chunk.left_bytes > 0 {
            self.state.reading = Reading::Chunk(chunk);
            return if took == 0 { Turn::NeedInput } else { Turn::Again };
        }
        match chunk.refused {
            Some(ChunkRefusal::Wrong(reply)) => self.state.wrong(out, reply),
            Some(ChunkRefusal::Refused(refusal)) => {
                self.state.mail = None;
                refuse(&mut self.state, &refusal.into(), During::Message, out);
            }
            None => {
                let chunks = self.state.mail.as_ref().and_then(|mail| mail.chunks.as_ref());
                let Some(chunks) = chunks else { unreachable!("a piece that is taken has begun its message") };
                let (size_bytes, ends_in_cr) = (chunks.size_bytes, chunk.last && !chunks.bare && chunks.has_bare());
                let bare = chunks.bare || ends_in_cr;
                if ends_in_cr && size_bytes <= limit {
                    self.agent.discard();
                }
                if chunk.last || size_bytes > limit || bare {
                    self.whole(size_bytes, bare, out).await;
                } else {
                    line(out, &format!("250 2.0.0 {} octets taken", chunk.size_bytes));
                }
            }
        }
        Turn::Again
    }

    /// Delivers a message that has ended, or refuses it; its transaction is over.
    async fn whole(&mut self, size_bytes: u64, bare: bool, out: &mut Vec<u8>) {
        let limit = self.state.config.max_message_bytes;
        let transaction = self.transaction();
        match transaction {
            _ if size_bytes > limit => {
                refuse(&mut self.state, &Refusal::MessageTooLong(limit).into(), During::Message, out)
            }
            _ if bare => line(out, "550 5.6.11 a line ends with a bare CR or LF; lines end with CRLF"),
            Some(transaction) => match self.agent.deliver(transaction).await {
                Ok(text) => line(out, &format!("250 2.0.0 Ok {text}")),
                Err(failure) => refuse(&mut self.state, &failure, During::Message, out),
            },
            None => unreachable!("a message comes after a recipient"),
        }
    }

    /// The envelope of the message that has ended.
    fn transaction(&mut self) -> Option<Transaction> {
        let mail = self.state.mail.take()?;
        let (helo, extended) = self.state.helo.clone()?;
        Some(Transaction {
            reverse_path: mail.reverse_path,
            recipients: mail.recipients,
            destinations: mail.destinations,
            helo,
            extended,
            eight_bit: mail.eight_bit,
            requiretls: mail.requiretls,
            ret: mail.ret,
            envid: mail.envid,
            announced_bytes: mail.announced_bytes,
            identity: self.state.identity.clone(),
            tls: self.state.tls,
        })
    }

    async fn command(&mut self, reading: Reading, out: &mut Vec<u8>) -> Turn {
        let answers_auth = !matches!(reading, Reading::Commands);
        let text = match self.input.line(|line| line_max_bytes(line, answers_auth)) {
            Line::Incomplete => {
                self.state.reading = reading;
                return Turn::NeedInput;
            }
            Line::TooLong => {
                self.state.wrong(out, "500 5.5.2 line too long");
                // The octets that a BDAT tells of are no commands, though its line can't be read.
                self.state.closing |= !answers_auth && self.input.verb().eq_ignore_ascii_case(b"BDAT");
                return Turn::Again;
            }
            Line::Whole(text) => text,
        };
        let (state, agent) = (&mut self.state, &mut self.agent);
        match reading {
            Reading::AuthPlain => commands::auth::plain(state, &text, agent, out).await,
            Reading::AuthLoginUser => commands::auth::login_user(state, &text, out),
            Reading::AuthLoginPassword(user) => commands::auth::login_password(state, user, &text, agent, out).await,
            Reading::Commands => {
                let turn = commands::command(state, &text, agent, out).await;
                if turn == Turn::StartTls {
                    // Whatever came in clear behind STARTTLS is not the client's word.
                    self.input.clear();
                }
                return turn;
            }
            Reading::Data(_) | Reading::Chunk(_) => unreachable!("a message is not read by lines"),
        }
        Turn::Again
    }
}

impl<A: DeliveryAgent> Engine for Session<A> {
    fn greeting(&self) -> Vec<u8> {
        format!("220 {} ESMTP Mailraft\r\n", self.state.config.hostname).into_bytes()
    }

    fn farewell(&self, why: Farewell) -> Vec<u8> {
        let host = &self.state.config.hostname;
        let reply = match why {
            Farewell::Silent => format!("421 4.4.2 {host} silent for too long"),
            Farewell::TooLong => format!("421 4.4.2 {host} the session took too long"),
            Farewell::TooSlow => format!("421 4.4.2 {host} the message comes too slowly"),
            Farewell::ShuttingDown => format!("421 4.3.2 {host} shutting down; try again"),
            Farewell::Revoked => format!("421 4.7.0 {host} the account has changed; log in again"),
            Farewell::TooManySessions => format!("421 4.3.2 {host} too many connections; try again later"),
        };
        let mut out = Vec::new();
        line(&mut out, &reply);
        out
    }

    fn patience(&self) -> Patience {
        let stranger = self.state.config.service != Service::Relay && self.state.identity.is_none();
        let total = if stranger { self.state.config.login_max } else { SESSION_MAX };
        let begun = self.state.mail.as_ref().is_some_and(|mail| mail.chunks.is_some());
        let in_message = begun || matches!(self.state.reading, Reading::Data(_) | Reading::Chunk(_));
        Patience { idle: IDLE_MAX, total: Some(total), in_message }
    }

    fn room(&self) -> usize {
        self.input.room()
    }

    fn input(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.agent.client_went_on();
        }
        assert!(bytes.len() <= self.room(), "more input than there is room for");
        self.input.push(bytes);
    }

    async fn drive<O: Output>(&mut self, out: &mut Out<O>) -> Turn {
        if self.state.closing {
            return Turn::Close;
        }
        match std::mem::replace(&mut self.state.reading, Reading::Commands) {
            Reading::Data(data) => self.message(data, &mut out.bytes).await,
            Reading::Chunk(chunk) => self.chunk(chunk, &mut out.bytes).await,
            reading => self.command(reading, &mut out.bytes).await,
        }
    }

    async fn ended(&mut self) {
        self.agent.client_leaves().await;
    }

    /// Everything learnt before is forgotten (RFC 3207, section 4.2).
    fn tls_started(&mut self, tls: Tls) {
        assert_eq!(self.state.tls, None, "TLS was up already");
        self.input.clear();
        self.state.tls = Some(tls);
        self.state.helo = None;
        self.state.identity = None;
        self.state.drop_mail(&mut self.agent);
    }
}

impl<A> std::fmt::Debug for Session<A> {
    /// Shows neither passwords nor content.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("state", &self.state).field("input", &self.input).finish_non_exhaustive()
    }
}

/// How long a line that begins like this may be.
fn line_max_bytes(line: &[u8], answers_auth: bool) -> usize {
    let is = |verb: &[u8]| line.get(..verb.len()).is_some_and(|head| head.eq_ignore_ascii_case(verb));
    if answers_auth || is(b"AUTH ") {
        AUTH_LINE_MAX_BYTES
    } else if is(b"MAIL ") {
        MAIL_LINE_MAX_BYTES
    } else if is(b"RCPT ") {
        RCPT_LINE_MAX_BYTES
    } else {
        COMMAND_LINE_MAX_BYTES
    }
}
