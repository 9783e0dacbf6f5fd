//! A session: one command after another.

use std::time::Duration;

use crate::commands;
use crate::cursor::Cursor;
use crate::decoder::{Decoder, Frame, Piece};
use crate::outcome::{Done, Outcome};
use crate::state::{Config, State};
use crate::store::Mailstore;
use mailraft_protocol::{Engine, Farewell, Out, Output, Patience, Tls, Turn};
use zeroize::Zeroize;

/// Commands that can't be understood before the session ends.
pub const WRONG_COMMANDS_MAX: u32 = 50;

/// A silent client is waited for this long: 30 minutes are the least once logged in (RFC 3501, section 5.4).
const IDLE_MAX: Duration = Duration::from_secs(31 * 60);
/// A client in IDLE hears so often that it is still served: what stands between forgets connections that are silent.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(120);
/// The same before a login.
const EARLY_IDLE_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
enum Mode {
    Commands,
    /// IDLE of this tag.
    Idle(String),
    /// AUTHENTICATE PLAIN of this tag.
    Authenticate(String),
    /// APPEND whose message is being received.
    Append {
        tag: String,
        append: commands::append::Append,
        receiving: commands::append::Receiving,
    },
    Closing,
}

/// A session.
pub struct Session<S> {
    pub(crate) state: State,
    decoder: Decoder,
    mode: Mode,
    wrong: u32,
    pub(crate) store: S,
}

impl<S: Mailstore> Engine for Session<S> {
    fn greeting(&self) -> Vec<u8> {
        format!("* OK [CAPABILITY {}] Mailraft\r\n", self.state.capabilities()).into_bytes()
    }

    fn farewell(&self, why: Farewell) -> Vec<u8> {
        let text = match why {
            Farewell::Silent => "silent for too long",
            Farewell::TooLong => "a login took too long",
            Farewell::TooSlow => "the message comes too slowly",
            Farewell::ShuttingDown => "[UNAVAILABLE] shutting down; connect again",
            Farewell::Revoked => "[EXPIRED] the account has changed; log in again",
            Farewell::TooManySessions => "[LIMIT] too many connections; try again later",
        };
        format!("* BYE {text}\r\n").into_bytes()
    }

    fn patience(&self) -> Patience {
        let in_message = matches!(self.mode, Mode::Append { .. });
        match self.is_authenticated() {
            true => Patience { idle: IDLE_MAX, total: None, in_message },
            false => Patience { idle: EARLY_IDLE_MAX, total: Some(self.state.config.login_max), in_message },
        }
    }

    fn room(&self) -> usize {
        self.decoder.room()
    }

    fn input(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.store.client_went_on();
        }
        self.decoder.input(bytes);
    }

    async fn drive<O: Output>(&mut self, out: &mut Out<O>) -> Turn {
        if out.is_gone() || matches!(self.mode, Mode::Closing) {
            return Turn::Close;
        }
        match self.decoder.next() {
            Frame::NeedInput => return self.waiting(),
            Frame::Continue => out.line("+ go on"),
            Frame::Command(mut pieces) => {
                let may_be_login = self.state.user.is_none();
                let (tag, expunges, outcome) = self.command(&pieces, out).await;
                self.store.tell_heard();
                if may_be_login {
                    for Piece::Text(bytes) | Piece::Literal(bytes) in &mut pieces {
                        bytes.zeroize();
                    }
                    if self.state.user.is_some() {
                        self.decoder.logged_in();
                    }
                }
                if let Some(turn) = self.finish(tag, outcome, expunges, out).await {
                    return turn;
                }
            }
            Frame::Append { head, size_bytes, synchronising } => {
                if let Err((tag, done)) = self.begin_append(&head, size_bytes, synchronising, out) {
                    self.finish(tag, Err(done), false, out).await;
                }
            }
            Frame::NextMessage { head, size_bytes, synchronising } => {
                if let Err((tag, done)) = self.next_message(&head, size_bytes, synchronising, out) {
                    self.finish(tag, Err(done), false, out).await;
                }
            }
            Frame::Message(bytes) => {
                if let Mode::Append { receiving, .. } = &mut self.mode {
                    receiving.take(&bytes, &mut self.store);
                }
            }
            Frame::MessageEnd(rest) => {
                if let Mode::Append { tag, append, receiving } = std::mem::replace(&mut self.mode, Mode::Commands) {
                    self.state.begin_command();
                    let outcome =
                        commands::append::run(&mut self.state, append, receiving, &rest, &mut self.store, out).await;
                    self.finish(tag, outcome, true, out).await;
                }
            }
            Frame::Wrong(tag, why) => {
                let tag = match self.interrupted() {
                    Some(tag) => tag,
                    None if tag.is_empty() => "*".into(),
                    None => String::from_utf8_lossy(&tag).into_owned(),
                };
                self.finish(tag, Err(Done::Bad(why.into())), false, out).await;
            }
            Frame::Lost(why) => {
                out.line(&format!("* BYE {why}"));
                self.mode = Mode::Closing;
            }
        }
        Turn::Again
    }

    async fn wait_for_news(&mut self) {
        if !self.state.heard_meanwhile {
            self.store.wait_for_event().await;
        }
    }

    fn keepalive(&self) -> Option<(Duration, &'static str)> {
        (self.waiting() == Turn::Idle).then_some((KEEPALIVE_EVERY, "* OK still here"))
    }

    async fn tell<O: Output>(&mut self, out: &mut Out<O>) -> Turn {
        if self.waiting() == Turn::Idle {
            self.store.begin_command();
            self.state.begin_command();
            let expunges = matches!(self.mode, Mode::Idle(_)) || self.state.tells_expunges_at_once();
            self.news(expunges, out).await;
        }
        self.waiting()
    }

    async fn ended(&mut self) {
        self.store.client_leaves().await;
    }

    fn tls_started(&mut self, _: Tls) {
        assert!(!self.state.tls, "TLS was up already");
        self.decoder.clear();
        self.state.tls = true;
    }
}

impl<S: Mailstore> Session<S> {
    /// A session at its start; `tls` if TLS is up already.
    pub fn new(config: Config, tls: Option<Tls>, store: S) -> Self {
        let state = State::new(config, tls.is_some());
        Session { state, decoder: Decoder::new(), mode: Mode::Commands, wrong: 0, store }
    }

    /// Whether someone is logged in.
    fn is_authenticated(&self) -> bool {
        self.state.user.is_some()
    }

    fn waiting(&self) -> Turn {
        match self.mode {
            Mode::Idle(_) => Turn::Idle,
            // Nobody is interrupted who is in the middle of saying something long.
            Mode::Commands if self.state.is_notified() => Turn::Idle,
            Mode::Closing => Turn::Close,
            Mode::Commands | Mode::Authenticate(_) | Mode::Append { .. } => Turn::NeedInput,
        }
    }

    /// The tag of IDLE or AUTHENTICATE, which a line that is not theirs ends.
    fn interrupted(&mut self) -> Option<String> {
        match std::mem::replace(&mut self.mode, Mode::Commands) {
            Mode::Idle(tag) | Mode::Authenticate(tag) => Some(tag),
            Mode::Commands | Mode::Append { .. } | Mode::Closing => None,
        }
    }

    fn begin_append<O: Output>(
        &mut self,
        head: &[Piece],
        size_bytes: u64,
        synchronising: bool,
        out: &mut Out<O>,
    ) -> Result<(), (String, Done)> {
        let mut c = Cursor::new(head).spelt(self.state.spelling());
        let mut tag = c.tag().unwrap_or_else(|_| "*".into());
        let parsed = match (self.interrupted(), &self.state.user) {
            (Some(interrupted), _) => {
                tag = interrupted;
                Err(Done::Bad("a command came in the middle of another".into()))
            }
            (None, None) => Err(Done::Bad("log in first".into())),
            (None, Some(_)) => commands::append::parse(&mut c, size_bytes, &self.state)
                .and_then(|append| Ok(self.store.begin_message().map(|()| append)?)),
        };
        match parsed {
            Ok(append) => {
                self.store.discard();
                let receiving = commands::append::Receiving::first(self.state.config.max_message_bytes);
                self.mode = Mode::Append { tag, append, receiving };
                self.decoder.take_message(size_bytes);
                if synchronising {
                    out.line("+ go on");
                }
                Ok(())
            }
            Err(done) => {
                self.decoder.refuse_message(size_bytes, synchronising);
                Err((tag, done))
            }
        }
    }

    /// Goes on to the next message of an APPEND, or ends it.
    fn next_message<O: Output>(
        &mut self,
        head: &[Piece],
        size_bytes: u64,
        synchronising: bool,
        out: &mut Out<O>,
    ) -> Result<(), (String, Done)> {
        let Mode::Append { tag, mut append, receiving } = std::mem::replace(&mut self.mode, Mode::Commands) else {
            unreachable!("a message comes behind another one of an APPEND")
        };
        let mut c = Cursor::new(head).spelt(self.state.spelling());
        match commands::append::next(&mut append, receiving, &mut c, size_bytes, &self.state, &mut self.store) {
            Ok(receiving) => {
                self.mode = Mode::Append { tag, append, receiving };
                self.decoder.take_message(size_bytes);
                if synchronising {
                    out.line("+ go on");
                }
                Ok(())
            }
            Err(done) => {
                self.store.discard();
                self.decoder.refuse_message(size_bytes, synchronising);
                Err((tag, done))
            }
        }
    }

    /// Carries out a command, or goes on with one: its tag, whether expunges may be told at its end, and how it
    /// ended.
    async fn command<O: Output>(&mut self, pieces: &[Piece], out: &mut Out<O>) -> (String, bool, Outcome) {
        match std::mem::replace(&mut self.mode, Mode::Commands) {
            Mode::Idle(tag) => {
                let outcome = commands::idle::end(pieces);
                return (tag, true, outcome);
            }
            Mode::Authenticate(tag) => {
                let outcome = match pieces {
                    [Piece::Text(text)] => commands::authenticate::plain(&mut self.state, text, &mut self.store).await,
                    _ => Err(Done::Bad("not a message of PLAIN".into())),
                };
                return (tag, true, outcome);
            }
            Mode::Commands | Mode::Append { .. } | Mode::Closing => {}
        }
        let mut c = Cursor::of_command(pieces).spelt(self.state.spelling());
        match c.tag().and_then(|tag| c.space().map(|()| tag)) {
            Ok(tag) => {
                self.state.tag.clone_from(&tag);
                self.state.begin_command();
                let (expunges, outcome) = commands::command(&mut self.state, &mut c, &mut self.store, out).await;
                (tag, expunges, outcome)
            }
            Err(wrong) => ("*".into(), false, Err(wrong.into())),
        }
    }

    /// Tells what is new, then how the command ended, and what the shell is to do for it.
    async fn finish<O: Output>(
        &mut self,
        tag: String,
        outcome: Outcome,
        expunges: bool,
        out: &mut Out<O>,
    ) -> Option<Turn> {
        let done = match outcome.unwrap_or_else(|done| done) {
            // What came behind it in clear would be taken for compressed, or the other way round.
            Done::Compress if self.decoder.has_input() => {
                Done::Bad("nothing comes behind COMPRESS before its answer".into())
            }
            done => done,
        };
        match done {
            Done::HangUp => {
                self.mode = Mode::Closing;
                return None;
            }
            Done::Idle => {
                out.line("+ idling");
                self.mode = Mode::Idle(tag);
                self.news(true, out).await;
                return None;
            }
            Done::Challenge => {
                out.line("+ ");
                self.mode = Mode::Authenticate(tag);
                return None;
            }
            Done::StartTls => {
                out.line(&format!("{tag} OK begin TLS"));
                return Some(Turn::StartTls);
            }
            Done::Ok(_) | Done::No(_) | Done::Bad(_) | Done::LastNo(_) | Done::Logout | Done::Bye(_) => {}
            Done::Compress => {}
        }
        self.news(expunges, out).await;
        if matches!(self.mode, Mode::Closing) {
            // BYE was the last word.
            return None;
        }
        match done {
            Done::Ok(text) => {
                if self.is_authenticated() {
                    self.wrong = 0;
                }
                out.line(&format!("{tag} OK {}", one_line(&text)));
            }
            Done::No(text) => out.line(&format!("{tag} NO {}", one_line(&text))),
            Done::LastNo(text) => {
                out.line(&format!("{tag} NO {}", one_line(&text)));
                out.line("* BYE too many wrong logins");
                self.mode = Mode::Closing;
            }
            Done::Bad(text) => {
                out.line(&format!("{tag} BAD {}", one_line(&text)));
                self.wrong += 1;
                if self.wrong >= WRONG_COMMANDS_MAX {
                    out.line("* BYE too many commands that can't be understood");
                    self.mode = Mode::Closing;
                }
            }
            Done::Logout => {
                self.store.client_leaves().await;
                out.line("* BYE goodbye");
                out.line(&format!("{tag} OK LOGOUT done"));
                self.mode = Mode::Closing;
            }
            Done::Bye(text) => {
                out.line(&format!("* BYE {text}"));
                self.mode = Mode::Closing;
            }
            Done::Compress => {
                self.state.compressed = true;
                out.line(&format!("{tag} OK DEFLATE active"));
                return Some(Turn::Compress);
            }
            Done::Idle | Done::StartTls | Done::Challenge | Done::HangUp => {}
        }
        if !expunges && matches!(self.mode, Mode::Commands) && self.state.tells_expunges_at_once() {
            // Behind the command's end, whose numbers they would have changed.
            self.news(true, out).await;
        }
        None
    }

    /// Hears and tells what is new. If somebody else deleted the open folder, the session ends: its client would
    /// go on with numbers of a folder that is no more (RFC 2180, section 3.3).
    async fn news<O: Output>(&mut self, expunges: bool, out: &mut Out<O>) {
        self.state.heard_meanwhile = false;
        self.state.hear(&mut self.store);
        self.state.say_news(expunges, out).await;
        if self.state.is_folder_deleted() {
            self.state.view = None;
            out.line("* BYE the open folder was deleted");
            self.mode = Mode::Closing;
        } else if commands::notify::tell(&mut self.state, &mut self.store, out).await.is_err() {
            self.mode = Mode::Closing;
        }
    }
}

/// Whatever a refusal says must not begin another response.
fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}
