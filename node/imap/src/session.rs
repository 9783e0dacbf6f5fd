//! A session: its state, and one command after another.

use std::io;

use mailraft_mailbox::Refusal;

use crate::commands;
use crate::cursor::{Cursor, Wrong};
use crate::decoder::{Decoder, Frame, Piece};
use crate::store::{Mailstore, Output, StoreFailure};
use crate::view::View;

/// Responses are handed on once so many bytes wait.
pub const OUTPUT_FLUSH_BYTES: usize = 64 << 10;
/// Commands that can't be understood before the session ends.
pub const WRONG_COMMANDS_MAX: u32 = 50;
const WRONG_LOGINS_MAX: u32 = 3;

/// What a session is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The longest message that APPEND takes, in bytes.
    pub max_message_bytes: u64,
    /// Whether STARTTLS is there.
    pub tls_available: bool,
}

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

/// How a command ended.
pub(crate) enum Done {
    /// Tagged OK with this text.
    Ok(String),
    /// Tagged NO with this text.
    No(String),
    /// Tagged BAD with this text.
    Bad(String),
    /// IDLE began.
    Idle,
    /// STARTTLS: OK, then TLS.
    StartTls,
    /// LOGOUT: OK, then the end.
    Logout,
    /// AUTHENTICATE waits for its message.
    Challenge,
    /// BYE with this text, without a tagged response.
    Bye(String),
}

impl From<Wrong> for Done {
    fn from(wrong: Wrong) -> Self {
        Done::Bad(wrong.0)
    }
}

impl From<StoreFailure> for Done {
    fn from(failure: StoreFailure) -> Self {
        Done::No(match failure {
            StoreFailure::Unavailable => "[UNAVAILABLE] no majority of the servers can be reached; try again".into(),
            StoreFailure::Overloaded => "[LIMIT] too busy; try again later".into(),
            StoreFailure::NoSuchMailbox => "[NONEXISTENT] the mailbox is no more".into(),
            StoreFailure::Refused(refusal) => {
                let code = match &refusal {
                    Refusal::NoSuchFolder => "[NONEXISTENT] ",
                    Refusal::TryCreate => "[TRYCREATE] ",
                    Refusal::FolderExists => "[ALREADYEXISTS] ",
                    Refusal::BadName(_) | Refusal::NotAllowed(_) => "[CANNOT] ",
                    Refusal::Limit(_) => "[LIMIT] ",
                    Refusal::OverQuota => "[OVERQUOTA] ",
                    Refusal::Corrupt => "[CONTACTADMIN] ",
                    Refusal::FolderGone => "[NONEXISTENT] ",
                };
                format!("{code}{refusal}")
            }
        })
    }
}

/// Either done, or why not.
pub(crate) type Outcome = Result<Done, Done>;

/// Responses on their way out, with the place they go to.
pub(crate) struct Out<'a, O: Output> {
    pub(crate) bytes: Vec<u8>,
    output: &'a mut O,
    /// The client is gone: nothing more is worth doing.
    failed: Option<io::Error>,
}

impl<O: Output> Out<'_, O> {
    /// Hands on what waits, if it is much.
    pub(crate) async fn pass_on(&mut self) {
        if self.bytes.len() >= OUTPUT_FLUSH_BYTES {
            self.flush().await;
        }
    }

    async fn flush(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if self.failed.is_none()
            && !bytes.is_empty()
            && let Err(error) = self.output.write(&bytes).await
        {
            self.failed = Some(error);
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.failed.is_some()
    }

    pub(crate) fn line(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
    }
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
        failure: Option<crate::store::ReceiveFailure>,
    },
    Closing,
}

/// A session.
pub struct Session {
    pub(crate) config: Config,
    pub(crate) tls: bool,
    pub(crate) user: Option<String>,
    pub(crate) view: Option<View>,
    decoder: Decoder,
    mode: Mode,
    wrong: u32,
    wrong_logins: u32,
}

impl Session {
    /// A session at its start; `tls` if TLS is up already.
    pub fn new(config: Config, tls: bool) -> Self {
        Session {
            config,
            tls,
            user: None,
            view: None,
            decoder: Decoder::new(),
            mode: Mode::Commands,
            wrong: 0,
            wrong_logins: 0,
        }
    }

    /// The first line.
    pub fn greeting(&self) -> Vec<u8> {
        format!("* OK [CAPABILITY {}] Mailraft\r\n", self.capabilities()).into_bytes()
    }

    /// The last line, when the server ends the session.
    pub fn bye(&self, text: &str) -> Vec<u8> {
        format!("* BYE {text}\r\n").into_bytes()
    }

    /// Whether someone is logged in.
    pub fn is_authenticated(&self) -> bool {
        self.user.is_some()
    }

    /// Takes bytes from the socket in, at most as many as [`Session::room`].
    ///
    /// # Panics
    /// If there are more.
    pub fn input(&mut self, bytes: &[u8]) {
        self.decoder.input(bytes);
    }

    /// How many bytes it takes in now.
    pub fn room(&self) -> usize {
        self.decoder.room()
    }

    /// TLS is up: everything that came in clear is forgotten.
    pub fn tls_started(&mut self) {
        self.decoder.clear();
        self.tls = true;
    }

    /// Carries out everything that is whole in the input.
    ///
    /// # Errors
    /// Those of the output: the client is gone.
    pub async fn drive<S: Mailstore, O: Output>(&mut self, store: &mut S, output: &mut O) -> io::Result<Turn> {
        let mut out = Out { bytes: Vec::new(), output, failed: None };
        let turn = self.run(store, &mut out).await;
        out.flush().await;
        match out.failed {
            Some(error) => Err(error),
            None => Ok(turn),
        }
    }

    /// In IDLE: tells what has happened.
    ///
    /// # Errors
    /// As [`Session::drive`].
    pub async fn tell<S: Mailstore, O: Output>(&mut self, store: &mut S, output: &mut O) -> io::Result<Turn> {
        let mut out = Out { bytes: Vec::new(), output, failed: None };
        self.hear(store);
        let gone = self.say_news(true, &mut out);
        out.flush().await;
        match out.failed {
            Some(error) => Err(error),
            None if gone => Ok(Turn::Close),
            None => Ok(self.waiting()),
        }
    }

    pub(crate) fn capabilities(&self) -> String {
        let mut names = vec![
            "IMAP4rev1",
            "LITERAL+",
            "SASL-IR",
            "ID",
            "ENABLE",
            "IDLE",
            "NAMESPACE",
            "UIDPLUS",
            "UNSELECT",
            "CHILDREN",
            "SPECIAL-USE",
            "MOVE",
        ];
        if self.user.is_none() {
            if self.tls {
                names.push("AUTH=PLAIN");
            } else {
                if self.config.tls_available {
                    names.push("STARTTLS");
                }
                names.push("LOGINDISABLED");
            }
        }
        names.join(" ")
    }

    /// A login failed; too many end the session.
    pub(crate) fn wrong_login(&mut self) -> bool {
        self.wrong_logins += 1;
        self.wrong_logins >= WRONG_LOGINS_MAX
    }

    pub(crate) fn logged_in(&mut self, user: String) {
        self.user = Some(user);
        self.decoder.logged_in();
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
                Frame::Command(pieces) => {
                    if let Some(turn) = self.command(&pieces, store, out).await {
                        return turn;
                    }
                }
                Frame::Append { head, size_bytes, synchronising } => {
                    self.begin_append(&head, size_bytes, synchronising, store, out);
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
                    self.finish(&tag, outcome, true, store, out);
                }
                Frame::Wrong(tag, why) => {
                    let tag = String::from_utf8_lossy(&tag).into_owned();
                    let tag = if tag.is_empty() { "*".into() } else { tag };
                    self.finish(&tag, Err(Done::Bad(why.into())), false, store, out);
                }
                Frame::Lost(why) => {
                    out.line(&format!("* BYE {why}"));
                    self.mode = Mode::Closing;
                }
            }
        }
    }

    fn begin_append<S: Mailstore, O: Output>(
        &mut self,
        head: &[Piece],
        size_bytes: u64,
        synchronising: bool,
        store: &mut S,
        out: &mut Out<'_, O>,
    ) {
        let mut c = Cursor::new(head);
        let tag = c.tag().unwrap_or_else(|_| "*".into());
        let parsed = match self.user {
            Some(_) => commands::append::parse(&mut c, size_bytes, &self.config),
            None => Err(Done::Bad("log in first".into())),
        };
        match parsed {
            Ok(append) => {
                store.discard();
                self.mode = Mode::Append { tag, append, failure: None };
                self.decoder.take_message(size_bytes);
                if synchronising {
                    out.line("+ go on");
                }
            }
            Err(done) => {
                self.decoder.refuse_message(size_bytes, synchronising);
                self.finish(&tag, Err(done), false, store, out);
            }
        }
    }

    async fn command<S: Mailstore, O: Output>(
        &mut self,
        pieces: &[Piece],
        store: &mut S,
        out: &mut Out<'_, O>,
    ) -> Option<Turn> {
        match std::mem::replace(&mut self.mode, Mode::Commands) {
            Mode::Idle(tag) => {
                let done = matches!(pieces, [Piece::Text(t)] if t.eq_ignore_ascii_case(b"DONE"));
                let outcome =
                    if done { Ok(Done::Ok("IDLE done".into())) } else { Err(Done::Bad("IDLE ends with DONE".into())) };
                self.finish(&tag, outcome, true, store, out);
                return None;
            }
            Mode::Authenticate(tag) => {
                let outcome = match pieces {
                    [Piece::Text(text)] => commands::login::plain(self, text, store).await,
                    _ => Err(Done::Bad("not a message of PLAIN".into())),
                };
                self.finish(&tag, outcome, true, store, out);
                return None;
            }
            Mode::Commands | Mode::Append { .. } | Mode::Closing => {}
        }
        let mut c = Cursor::new(pieces);
        let tag = match c.tag().and_then(|tag| c.space().map(|()| tag)) {
            Ok(tag) => tag,
            Err(wrong) => {
                self.finish("*", Err(wrong.into()), false, store, out);
                return None;
            }
        };
        let (expunges, outcome) = commands::command(self, &mut c, store, out).await;
        match outcome {
            Ok(Done::Idle) => {
                out.line("+ idling");
                self.hear(store);
                self.say_news(true, out);
                self.mode = Mode::Idle(tag);
                None
            }
            Ok(Done::Challenge) => {
                out.line("+ ");
                self.mode = Mode::Authenticate(tag);
                None
            }
            Ok(Done::StartTls) => {
                out.line(&format!("{tag} OK begin TLS"));
                Some(Turn::StartTls)
            }
            outcome => {
                self.finish(&tag, outcome, expunges, store, out);
                None
            }
        }
    }

    /// Tells what is new, then how the command ended.
    fn finish<S: Mailstore, O: Output>(
        &mut self,
        tag: &str,
        outcome: Outcome,
        expunges: bool,
        store: &mut S,
        out: &mut Out<'_, O>,
    ) {
        self.hear(store);
        let gone = self.say_news(expunges, out);
        match outcome.unwrap_or_else(|done| done) {
            Done::Ok(text) => out.line(&format!("{tag} OK {text}")),
            Done::No(text) => out.line(&format!("{tag} NO {text}")),
            Done::Bad(text) => {
                out.line(&format!("{tag} BAD {text}"));
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
            Done::Idle | Done::StartTls | Done::Challenge => unreachable!("ended by its command"),
        }
        if gone {
            self.mode = Mode::Closing;
        }
    }

    /// Takes events into the view.
    pub(crate) fn hear<S: Mailstore>(&mut self, store: &mut S) {
        let events = store.take_events();
        if let Some(view) = self.view.as_mut() {
            for event in events {
                view.take(event);
            }
        }
    }

    /// Tells what waits in the view; true if the folder is no more and the session must end.
    fn say_news<O: Output>(&mut self, expunges: bool, out: &mut Out<'_, O>) -> bool {
        let Some(view) = self.view.as_mut() else { return false };
        if view.deleted {
            out.line("* BYE the open folder was deleted");
            self.mode = Mode::Closing;
            return true;
        }
        view.tell(expunges, &mut out.bytes);
        false
    }
}
