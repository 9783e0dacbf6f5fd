//! A session: one command after another.

use std::io;

use zeroize::Zeroize;

use crate::commands;
use crate::cursor::Cursor;
use crate::decoder::{Decoder, Frame, Piece};
use crate::out::Out;
use crate::outcome::{Done, Outcome};
use crate::state::{Config, State};
use crate::store::{Mailstore, Output, ReceiveFailure};

/// Commands that can't be understood before the session ends.
pub const WRONG_COMMANDS_MAX: u32 = 50;

/// What the shell must do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Read more.
    NeedInput,
    /// Read more, and call [`Session::tell`] when the store has events.
    Idle,
    /// Take up TLS, then say [`Session::tls_started`].
    StartTls,
    /// Close.
    Close,
}

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
        failure: Option<ReceiveFailure>,
    },
    Closing,
}

/// A session.
pub struct Session {
    state: State,
    decoder: Decoder,
    mode: Mode,
    wrong: u32,
}

impl Session {
    /// A session at its start; `tls` if TLS is up already.
    pub fn new(config: Config, tls: bool) -> Self {
        Session { state: State::new(config, tls), decoder: Decoder::new(), mode: Mode::Commands, wrong: 0 }
    }

    /// The first line.
    pub fn greeting(&self) -> Vec<u8> {
        format!("* OK [CAPABILITY {}] Mailraft\r\n", self.state.capabilities()).into_bytes()
    }

    /// The last line, when the server ends the session.
    pub fn bye(&self, text: &str) -> Vec<u8> {
        format!("* BYE {text}\r\n").into_bytes()
    }

    /// Whether someone is logged in.
    pub fn is_authenticated(&self) -> bool {
        self.state.user.is_some()
    }

    /// Takes bytes from the socket in, at most as many as [`Session::room`].
    ///
    /// # Panics
    /// If there are more.
    pub fn input(&mut self, bytes: &[u8]) {
        self.decoder.input(bytes);
    }

    /// How many bytes it takes in now; never 0 after [`Session::drive`].
    pub fn room(&self) -> usize {
        self.decoder.room()
    }

    /// TLS is up: everything that came in clear is forgotten.
    pub fn tls_started(&mut self) {
        self.decoder.clear();
        self.state.tls = true;
    }

    /// Carries out everything that is whole in the input.
    ///
    /// # Errors
    /// Those of the output: the client is gone.
    pub async fn drive<S: Mailstore, O: Output>(&mut self, store: &mut S, output: &mut O) -> io::Result<Turn> {
        let mut out = Out::new(output);
        let turn = self.run(store, &mut out).await;
        out.end().await.map(|()| turn)
    }

    /// In IDLE: tells what has happened.
    ///
    /// # Errors
    /// As [`Session::drive`].
    pub async fn tell<S: Mailstore, O: Output>(&mut self, store: &mut S, output: &mut O) -> io::Result<Turn> {
        let mut out = Out::new(output);
        if matches!(self.mode, Mode::Idle(_)) {
            self.news(true, store, &mut out).await;
        }
        out.end().await.map(|()| self.waiting())
    }

    fn waiting(&self) -> Turn {
        match self.mode {
            Mode::Idle(_) => Turn::Idle,
            Mode::Closing => Turn::Close,
            Mode::Commands | Mode::Authenticate(_) | Mode::Append { .. } => Turn::NeedInput,
        }
    }

    async fn run<S: Mailstore, O: Output>(&mut self, store: &mut S, out: &mut Out<'_, O>) -> Turn {
        loop {
            if out.is_gone() || matches!(self.mode, Mode::Closing) {
                return Turn::Close;
            }
            out.pass_on().await;
            match self.decoder.next() {
                Frame::NeedInput => return self.waiting(),
                Frame::Continue => out.line("+ go on"),
                Frame::Command(mut pieces) => {
                    let may_be_login = self.state.user.is_none();
                    let (tag, expunges, outcome) = self.command(&pieces, store, out).await;
                    if may_be_login {
                        for Piece::Text(bytes) | Piece::Literal(bytes) in &mut pieces {
                            bytes.zeroize();
                        }
                        if self.state.user.is_some() {
                            self.decoder.logged_in();
                        }
                    }
                    if self.finish(tag, outcome, expunges, store, out).await {
                        return Turn::StartTls;
                    }
                }
                Frame::Append { head, size_bytes, synchronising } => {
                    if let Err((tag, done)) = self.begin_append(&head, size_bytes, synchronising, store, out) {
                        self.finish(tag, Err(done), false, store, out).await;
                    }
                }
                Frame::Message(bytes) => {
                    if let Mode::Append { failure, .. } = &mut self.mode
                        && failure.is_none()
                    {
                        *failure = store.receive(&bytes).err();
                    }
                }
                Frame::MessageEnd(rest) => {
                    let Mode::Append { tag, append, failure } = std::mem::replace(&mut self.mode, Mode::Commands)
                    else {
                        continue;
                    };
                    let outcome = commands::append::run(append, failure, &rest, store).await;
                    self.finish(tag, outcome, true, store, out).await;
                }
                Frame::Wrong(tag, why) => {
                    let tag = match self.interrupted() {
                        Some(tag) => tag,
                        None if tag.is_empty() => "*".into(),
                        None => String::from_utf8_lossy(&tag).into_owned(),
                    };
                    self.finish(tag, Err(Done::Bad(why.into())), false, store, out).await;
                }
                Frame::Lost(why) => {
                    out.line(&format!("* BYE {why}"));
                    self.mode = Mode::Closing;
                }
            }
        }
    }

    /// The tag of IDLE or AUTHENTICATE, which a line that is not theirs ends.
    fn interrupted(&mut self) -> Option<String> {
        match std::mem::replace(&mut self.mode, Mode::Commands) {
            Mode::Idle(tag) | Mode::Authenticate(tag) => Some(tag),
            Mode::Commands | Mode::Append { .. } | Mode::Closing => None,
        }
    }

    fn begin_append<S: Mailstore, O: Output>(
        &mut self,
        head: &[Piece],
        size_bytes: u64,
        synchronising: bool,
        store: &mut S,
        out: &mut Out<'_, O>,
    ) -> Result<(), (String, Done)> {
        let mut c = Cursor::new(head);
        let mut tag = c.tag().unwrap_or_else(|_| "*".into());
        let parsed = match (self.interrupted(), &self.state.user) {
            (Some(interrupted), _) => {
                tag = interrupted;
                Err(Done::Bad("a command came in the middle of another".into()))
            }
            (None, None) => Err(Done::Bad("log in first".into())),
            (None, Some(_)) => commands::append::parse(&mut c, size_bytes, &self.state.config),
        };
        match parsed {
            Ok(append) => {
                store.discard();
                self.mode = Mode::Append { tag, append, failure: None };
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

    /// Carries out a command, or goes on with one: its tag, whether expunges may be told at its end, and how it
    /// ended.
    async fn command<S: Mailstore, O: Output>(
        &mut self,
        pieces: &[Piece],
        store: &mut S,
        out: &mut Out<'_, O>,
    ) -> (String, bool, Outcome) {
        match std::mem::replace(&mut self.mode, Mode::Commands) {
            Mode::Idle(tag) => {
                let outcome = match pieces {
                    [Piece::Text(text)] if text.eq_ignore_ascii_case(b"DONE") => Ok(Done::Ok("IDLE done".into())),
                    _ => Err(Done::Bad("IDLE ends with DONE".into())),
                };
                return (tag, true, outcome);
            }
            Mode::Authenticate(tag) => {
                let outcome = match pieces {
                    [Piece::Text(text)] => commands::login::plain(&mut self.state, text, store).await,
                    _ => Err(Done::Bad("not a message of PLAIN".into())),
                };
                return (tag, true, outcome);
            }
            Mode::Commands | Mode::Append { .. } | Mode::Closing => {}
        }
        let mut c = Cursor::new(pieces);
        match c.tag().and_then(|tag| c.space().map(|()| tag)) {
            Ok(tag) => {
                let (expunges, outcome) = commands::command(&mut self.state, &mut c, store, out).await;
                (tag, expunges, outcome)
            }
            Err(wrong) => ("*".into(), false, Err(wrong.into())),
        }
    }

    /// Tells what is new, then how the command ended; true if TLS is to be taken up.
    async fn finish<S: Mailstore, O: Output>(
        &mut self,
        tag: String,
        outcome: Outcome,
        expunges: bool,
        store: &mut S,
        out: &mut Out<'_, O>,
    ) -> bool {
        let done = outcome.unwrap_or_else(|done| done);
        match done {
            Done::HangUp => {
                self.mode = Mode::Closing;
                return false;
            }
            Done::Idle => {
                out.line("+ idling");
                self.mode = Mode::Idle(tag);
                self.news(true, store, out).await;
                return false;
            }
            Done::Challenge => {
                out.line("+ ");
                self.mode = Mode::Authenticate(tag);
                return false;
            }
            Done::StartTls => {
                out.line(&format!("{tag} OK begin TLS"));
                return true;
            }
            Done::Ok(_) | Done::No(_) | Done::Bad(_) | Done::LastNo(_) | Done::Logout | Done::Bye(_) => {}
        }
        self.news(expunges, store, out).await;
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
                out.line("* BYE goodbye");
                out.line(&format!("{tag} OK LOGOUT done"));
                self.mode = Mode::Closing;
            }
            Done::Bye(text) => {
                out.line(&format!("* BYE {text}"));
                self.mode = Mode::Closing;
            }
            Done::Idle | Done::StartTls | Done::Challenge | Done::HangUp => {}
        }
        false
    }

    /// Hears and tells what is new. If somebody else deleted the open folder, the session ends: its client would
    /// go on with numbers of a folder that is no more (RFC 2180, section 3.3).
    async fn news<S: Mailstore, O: Output>(&mut self, expunges: bool, store: &mut S, out: &mut Out<'_, O>) {
        self.state.hear(store);
        self.state.say_news(expunges, out).await;
        if self.state.is_folder_deleted() {
            self.state.view = None;
            out.line("* BYE the open folder was deleted");
            self.mode = Mode::Closing;
        }
    }
}

/// Whatever a refusal says must not begin another response.
fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}
