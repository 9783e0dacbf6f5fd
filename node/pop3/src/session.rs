//! A session: one command after another.

use std::time::Duration;

use mailraft_mailbox::Command;
use mailraft_protocol::{Engine, Failure, Farewell, Input, Line, Out, Output, Patience, Refusal, Tls, Turn};

use crate::commands;
use crate::maildrop::Maildrop;
use crate::refusals::{During, refuse};
use crate::state::{Config, Reading, State};

/// A command line with its CRLF, in bytes (RFC 2449, section 4).
pub const COMMAND_LINE_MAX_BYTES: usize = 255;
/// An AUTH line, or one of its answers (RFC 5034, section 4).
pub const AUTH_LINE_MAX_BYTES: usize = 12_288;

/// A silent client is waited for this long: ten minutes are the least (RFC 1939, section 3).
const IDLE_MAX: Duration = Duration::from_secs(10 * 60);
/// The same before a login.
const EARLY_IDLE_MAX: Duration = Duration::from_secs(60);

/// A session.
pub struct Session<M> {
    state: State,
    input: Input,
    pub(crate) maildrop: M,
}

impl<M: Maildrop> Session<M> {
    /// A session at its start; `tls` if TLS is up already.
    pub fn new(config: Config, tls: Option<Tls>, maildrop: M) -> Self {
        Session { state: State::new(config, tls.is_some()), input: Input::default(), maildrop }
    }

    /// Whether the maildrop is still this session's; else the session ends with a response that says so.
    async fn holds_maildrop(&mut self, out: &mut Vec<u8>) -> bool {
        if self.state.opened.is_none() {
            return true;
        }
        if self.state.lost.is_none() && self.maildrop.is_silent() {
            self.is_here().await;
        }
        let Some(why) = self.state.lost.clone() else { return true };
        refuse(&mut self.state, &why.into(), During::Transaction, out);
        self.state.closing = true;
        false
    }

    /// The mailbox hears that this session is here, and gives it the maildrop again if it has another owner now.
    async fn is_here(&mut self) {
        if let Err(Failure::NotDone(refusal)) = self.maildrop.ask(Command::Sync).await
            && (refusal == Refusal::MaildropInUse || !refusal.may_be_retried())
        {
            self.state.lost = Some(refusal);
        }
    }

    fn waiting(&self) -> Turn {
        if self.state.closing {
            Turn::Close
        } else if self.state.opened.is_some() && self.state.lost.is_none() {
            Turn::Idle
        } else {
            Turn::NeedInput
        }
    }
}

impl<M: Maildrop> Engine for Session<M> {
    fn greeting(&self) -> Vec<u8> {
        b"+OK Mailraft\r\n".to_vec()
    }

    fn farewell(&self, why: Farewell) -> Vec<u8> {
        let text = match why {
            // A client that is silent is told nothing (RFC 1939, section 3).
            Farewell::Silent => return Vec::new(),
            Farewell::TooLong => "a login took too long",
            Farewell::TooSlow => "this comes too slowly",
            Farewell::ShuttingDown => "[SYS/TEMP] shutting down; no message was removed; connect again",
            Farewell::Revoked => "[AUTH] the account has changed; no message was removed; log in again",
            Farewell::TooManySessions => "[SYS/TEMP] too many connections; try again later",
        };
        format!("-ERR {text}\r\n").into_bytes()
    }

    fn patience(&self) -> Patience {
        match self.state.opened {
            Some(_) => Patience { idle: IDLE_MAX, total: None, in_message: false },
            None => Patience { idle: EARLY_IDLE_MAX, total: Some(self.state.config.login_max), in_message: false },
        }
    }

    fn room(&self) -> usize {
        self.input.room()
    }

    fn input(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "more input than there is room for");
        self.input.push(bytes);
    }

    async fn drive<O: Output>(&mut self, out: &mut Out<O>) -> Turn {
        if out.is_gone() || self.state.closing {
            return Turn::Close;
        }
        let answers_auth = !matches!(self.state.reading, Reading::Commands);
        let text = match self.input.line(|line| line_max_bytes(line, answers_auth)) {
            Line::Incomplete => return self.waiting(),
            Line::TooLong => {
                self.state.reading = Reading::Commands;
                self.state.wrong(&mut out.bytes, "line too long");
                return Turn::Again;
            }
            Line::Whole(text) => text,
        };
        self.maildrop.begin_command();
        if !self.holds_maildrop(&mut out.bytes).await {
            return Turn::Again;
        }
        let reading = std::mem::replace(&mut self.state.reading, Reading::Commands);
        let (state, maildrop, said) = (&mut self.state, &mut self.maildrop, &mut out.bytes);
        match reading {
            Reading::AuthPlain => commands::auth::plain(state, &text, maildrop, said).await,
            Reading::AuthLoginUser => commands::auth::login_user(state, &text, said),
            Reading::AuthLoginPassword(user) => {
                commands::auth::login_password(state, user, &text, maildrop, said).await;
            }
            Reading::Commands => {
                let turn = commands::command(state, &text, maildrop, out).await;
                if turn == Turn::StartTls {
                    // Whatever came in clear behind STLS is not the client's word.
                    self.input.clear();
                }
                return turn;
            }
        }
        Turn::Again
    }

    async fn wait_for_news(&mut self) {
        self.maildrop.wait_for_another_owner().await;
    }

    /// The mailbox is at another owner, which learns that this session has the maildrop, or says that another has it. The
    /// client hears that with its next command.
    async fn tell<O: Output>(&mut self, _: &mut Out<O>) -> Turn {
        self.is_here().await;
        self.waiting()
    }

    async fn ended(&mut self) {
        if self.state.opened.take().is_some() {
            self.maildrop.leave().await;
        }
    }

    /// Everything learnt before is forgotten (RFC 2595, section 4).
    fn tls_started(&mut self, _: Tls) {
        assert!(!self.state.tls, "TLS was up already");
        self.input.clear();
        self.state.tls = true;
        self.state.user = None;
    }
}

impl<M> std::fmt::Debug for Session<M> {
    /// Shows neither passwords nor content.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("tls", &self.state.tls).field("input", &self.input).finish_non_exhaustive()
    }
}

/// How long a line that begins like this may be.
fn line_max_bytes(line: &[u8], answers_auth: bool) -> usize {
    let is_auth = line.get(..5).is_some_and(|head| head.eq_ignore_ascii_case(b"AUTH "));
    if answers_auth || is_auth { AUTH_LINE_MAX_BYTES } else { COMMAND_LINE_MAX_BYTES }
}
