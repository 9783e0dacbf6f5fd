//! A session: its state, its input, and what it asks of the shell.

use zeroize::Zeroizing;

use crate::commands;
use crate::data::Data;
use crate::input::{Input, Line};
use crate::parse::{Mailbox, Path};
use crate::reply::line;

/// A command line with its CRLF, in bytes (RFC 5321, section 4.5.3.1.4).
pub const COMMAND_LINE_MAX_BYTES: usize = 512;
/// A MAIL line: 26 more for SIZE (RFC 1870), 17 for BODY (RFC 6152), 500 for AUTH (RFC 4954).
pub const MAIL_LINE_MAX_BYTES: usize = COMMAND_LINE_MAX_BYTES + 26 + 17 + 500;
/// An AUTH line, or one of its answers (RFC 4954, section 4).
pub const AUTH_LINE_MAX_BYTES: usize = 12_288;
/// Recipients of one transaction.
pub const RECIPIENTS_MAX: usize = 100;
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
}

/// What the shell must do next.
pub enum Step {
    /// Write what was said, then read more.
    NeedInput,
    /// Look a recipient up, then say [`Session::verified`].
    Verify(Mailbox),
    /// Check credentials, then say [`Session::authenticated`]. Both are as the client sent them.
    Authenticate {
        /// Who.
        user: String,
        /// With which password.
        password: Zeroizing<String>,
    },
    /// More of the message: keep it.
    Content(Vec<u8>),
    /// The message is whole: deliver it, then say [`Session::delivered`] or [`Session::sender_not_owned`].
    Complete(Transaction),
    /// The message won't be completed, whatever follows of it: drop what was kept.
    Discard,
    /// Write what was said, take up TLS, then say [`Session::tls_started`].
    StartTls,
    /// Write what was said, then close.
    Close,
}

impl std::fmt::Debug for Step {
    /// Shows neither passwords nor content.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::NeedInput => f.write_str("NeedInput"),
            Step::Verify(address) => f.debug_tuple("Verify").field(address).finish(),
            Step::Authenticate { user, .. } => {
                f.debug_struct("Authenticate").field("user", user).finish_non_exhaustive()
            }
            Step::Content(bytes) => write!(f, "Content({} bytes)", bytes.len()),
            Step::Complete(transaction) => f.debug_tuple("Complete").field(transaction).finish(),
            Step::Discard => f.write_str("Discard"),
            Step::StartTls => f.write_str("StartTls"),
            Step::Close => f.write_str("Close"),
        }
    }
}

/// A message's envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The reverse-path; None is the null one.
    pub reverse_path: Path,
    /// The recipients as given, all of one mailbox; at least one.
    pub recipients: Vec<Mailbox>,
    /// What HELO or EHLO said.
    pub helo: String,
    /// EHLO, not HELO.
    pub extended: bool,
    /// BODY=8BITMIME.
    pub eight_bit: bool,
    /// What SIZE= announced, in bytes; nobody checked that it is true.
    pub announced_bytes: Option<u64>,
    /// Who is logged in.
    pub identity: Option<String>,
    /// Under TLS.
    pub tls: bool,
}

/// What became of looking a recipient up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// It is this mailbox.
    Mailbox([u8; 16]),
    /// Nobody of that name, as a read barrier says.
    Unknown,
    /// Not a domain of this server.
    NotOurs,
    /// It stands for several mailboxes, which one transaction can't reach yet.
    Several,
    /// Its mailbox is full.
    OverQuota,
    /// Nobody can say now.
    Unavailable,
    /// Too busy.
    Overloaded,
}

/// What became of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthOutcome {
    /// Logged in as this.
    Ok(String),
    /// Not these credentials.
    Wrong,
    /// Too many attempts.
    Throttled,
    /// Nobody can say now.
    Unavailable,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Durable on a majority; the text tells where.
    Accepted(String),
    /// No majority, or the outcome is not known.
    Unavailable,
    /// Too busy.
    Overloaded,
    /// The mailbox is full.
    OverQuota,
    /// Its header block is too long.
    HeaderTooLong,
    /// The mailbox is no more.
    NoSuchMailbox,
    /// Damaged there, being repaired.
    Corrupt,
    /// Refused for this reason.
    Refused(String),
}

#[derive(Debug)]
pub(crate) enum Reading {
    Commands,
    AuthPlain,
    AuthLoginUser,
    AuthLoginPassword(String),
    Data(Data),
    /// The message's end was there.
    DataEnded,
}

/// The mail transaction that is being prepared.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    pub reverse_path: Path,
    pub eight_bit: bool,
    pub announced_bytes: Option<u64>,
    pub recipients: Vec<Mailbox>,
    pub mailbox: Option<[u8; 16]>,
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    Recipient(Mailbox),
    Login,
    Delivery,
    Tls,
}

/// A session.
#[derive(Debug)]
pub struct Session {
    pub(crate) config: Config,
    pub(crate) tls: bool,
    pub(crate) helo: Option<(String, bool)>,
    pub(crate) identity: Option<String>,
    pub(crate) mail: Option<Mail>,
    pub(crate) reading: Reading,
    input: Input,
    asked: Asked,
    wrong: u32,
    wrong_logins: u32,
    closing: bool,
}

impl Session {
    /// A session at its start; `tls` if TLS is up already.
    pub fn new(config: Config, tls: bool) -> Self {
        Session {
            config,
            tls,
            helo: None,
            identity: None,
            mail: None,
            reading: Reading::Commands,
            input: Input::default(),
            asked: Asked::Nothing,
            wrong: 0,
            wrong_logins: 0,
            closing: false,
        }
    }

    /// The first line.
    pub fn greeting(&self) -> Vec<u8> {
        format!("220 {} ESMTP Mailraft\r\n", self.config.hostname).into_bytes()
    }

    /// The last line when the client was silent for too long.
    pub fn timed_out(&self) -> Vec<u8> {
        format!("421 4.4.2 {} silent for too long\r\n", self.config.hostname).into_bytes()
    }

    /// The last line when the server stops.
    pub fn shutting_down(&self) -> Vec<u8> {
        format!("421 4.3.2 {} shutting down; try again\r\n", self.config.hostname).into_bytes()
    }

    /// Takes bytes from the socket in, at most as many as [`Session::room`].
    ///
    /// # Panics
    /// If there are more.
    pub fn input(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "more input than there is room for");
        self.input.push(bytes);
    }

    /// How many bytes it takes in now; never 0 after [`Step::NeedInput`].
    pub fn room(&self) -> usize {
        self.input.room()
    }

    /// What to do next. Replies are appended to `out`, those to pipelined commands together; write them out
    /// before waiting for more input. It is bounded by [`crate::INPUT_MAX_BYTES`]: one reply for each line there.
    ///
    /// # Panics
    /// If a question was not answered.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Step {
        assert_eq!(self.asked, Asked::Nothing, "a question is open");
        loop {
            if self.closing {
                return Step::Close;
            }
            let step = match &mut self.reading {
                Reading::Data(data) => {
                    let mut content = Vec::new();
                    let (took, ended) = data.take(self.input.pending(), &mut content);
                    self.input.consume(took);
                    let too_long = data.size_bytes > self.config.max_message_bytes;
                    let refused = too_long || data.bare;
                    let drop_now = refused && !std::mem::replace(&mut data.dropped, true);
                    if ended {
                        self.data_ended(too_long, refused, out);
                    }
                    if drop_now {
                        Some(Step::Discard)
                    } else if !refused && !content.is_empty() {
                        Some(Step::Content(content))
                    } else if !ended && took == 0 {
                        Some(Step::NeedInput)
                    } else {
                        None
                    }
                }
                Reading::DataEnded => self.complete(),
                Reading::Commands | Reading::AuthPlain | Reading::AuthLoginUser | Reading::AuthLoginPassword(_) => {
                    let answers_auth = !matches!(self.reading, Reading::Commands);
                    match self.input.line(|line| line_max_bytes(line, answers_auth)) {
                        Line::Incomplete => Some(Step::NeedInput),
                        Line::TooLong => {
                            self.reading = Reading::Commands;
                            self.wrong(out, "500 5.5.2 line too long");
                            None
                        }
                        Line::Whole(text) => self.line(&text, out),
                    }
                }
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// The answer to [`Step::Verify`].
    ///
    /// # Panics
    /// If that was not asked.
    pub fn verified(&mut self, recipient: Recipient, out: &mut Vec<u8>) {
        let Asked::Recipient(address) = std::mem::replace(&mut self.asked, Asked::Nothing) else {
            unreachable!("no recipient was asked for")
        };
        commands::rcpt::verified(self, address, recipient, out);
    }

    /// The answer to [`Step::Authenticate`].
    ///
    /// # Panics
    /// If that was not asked.
    pub fn authenticated(&mut self, outcome: AuthOutcome, out: &mut Vec<u8>) {
        assert_eq!(self.asked, Asked::Login, "no login was asked for");
        self.asked = Asked::Nothing;
        match outcome {
            AuthOutcome::Ok(identity) => {
                self.identity = Some(identity);
                line(out, "235 2.7.0 logged in");
            }
            AuthOutcome::Wrong => {
                self.wrong_logins += 1;
                line(out, "535 5.7.8 wrong user name or password");
                if self.wrong_logins >= WRONG_LOGINS_MAX {
                    line(out, "421 4.7.0 too many wrong logins");
                    self.closing = true;
                }
            }
            AuthOutcome::Throttled => line(out, "454 4.7.0 too many wrong logins; try again in a minute"),
            AuthOutcome::Unavailable => line(out, "454 4.7.0 logins can't be checked now; try again"),
        }
    }

    /// The answer to [`Step::Complete`].
    ///
    /// # Panics
    /// If that was not asked.
    pub fn delivered(&mut self, delivery: Delivery, out: &mut Vec<u8>) {
        self.delivery_answered();
        match delivery {
            Delivery::Accepted(text) => line(out, &format!("250 2.0.0 Ok {text}")),
            Delivery::Unavailable => line(out, "451 4.3.0 no majority of the servers can be reached; try again"),
            Delivery::Overloaded => line(out, "451 4.3.2 too busy; try again later"),
            Delivery::OverQuota => line(out, "452 4.2.2 the mailbox is full"),
            Delivery::HeaderTooLong => line(out, "552 5.3.4 the header is longer than 256 KiB"),
            Delivery::NoSuchMailbox => line(out, "550 5.1.1 no such mailbox"),
            Delivery::Corrupt => line(out, "451 4.3.0 the mailbox is being repaired; try again later"),
            Delivery::Refused(text) => line(out, &format!("554 5.3.0 {text}")),
        }
    }

    /// The other answer to [`Step::Complete`]: who is logged in may not send as this reverse-path.
    ///
    /// # Panics
    /// If that was not asked.
    pub fn sender_not_owned(&mut self, out: &mut Vec<u8>) {
        self.delivery_answered();
        self.wrong(out, "553 5.7.1 this reverse-path is not yours to send from");
    }

    /// TLS is up: everything learnt before is forgotten (RFC 3207, section 4.2), also input that came in since
    /// [`Step::StartTls`]; only what is said under TLS may be put in after this.
    ///
    /// # Panics
    /// If that was not asked.
    pub fn tls_started(&mut self) {
        assert_eq!(self.asked, Asked::Tls, "no TLS was asked for");
        self.asked = Asked::Nothing;
        self.input.clear();
        self.tls = true;
        self.helo = None;
        self.identity = None;
        self.mail = None;
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

    pub(crate) fn ask_recipient(&mut self, address: Mailbox) -> Step {
        self.asked = Asked::Recipient(address.clone());
        Step::Verify(address)
    }

    pub(crate) fn ask_login(&mut self, user: String, password: Zeroizing<String>) -> Step {
        self.reading = Reading::Commands;
        self.asked = Asked::Login;
        Step::Authenticate { user, password }
    }

    pub(crate) fn start_tls(&mut self) -> Step {
        // Whatever came in clear behind STARTTLS is not the client's word.
        self.input.clear();
        self.asked = Asked::Tls;
        Step::StartTls
    }

    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    fn delivery_answered(&mut self) {
        assert_eq!(self.asked, Asked::Delivery, "no delivery was asked for");
        self.asked = Asked::Nothing;
    }

    fn line(&mut self, text: &[u8], out: &mut Vec<u8>) -> Option<Step> {
        match std::mem::replace(&mut self.reading, Reading::Commands) {
            Reading::AuthPlain => commands::auth::plain(self, text, out),
            Reading::AuthLoginUser => commands::auth::login_user(self, text, out),
            Reading::AuthLoginPassword(user) => commands::auth::login_password(self, user, text, out),
            Reading::Commands => commands::command(self, text, out),
            Reading::Data(_) | Reading::DataEnded => unreachable!("a message is not read by lines"),
        }
    }

    fn data_ended(&mut self, too_long: bool, refused: bool, out: &mut Vec<u8>) {
        if !refused {
            self.reading = Reading::DataEnded;
            return;
        }
        self.reading = Reading::Commands;
        self.mail = None;
        if too_long {
            line(out, &format!("552 5.3.4 the message is longer than {} bytes", self.config.max_message_bytes));
        } else {
            line(out, "550 5.6.11 a line ends with a bare CR or LF; lines end with CRLF");
        }
    }

    fn complete(&mut self) -> Option<Step> {
        self.reading = Reading::Commands;
        let mail = self.mail.take()?;
        let (helo, extended) = self.helo.clone()?;
        self.asked = Asked::Delivery;
        Some(Step::Complete(Transaction {
            reverse_path: mail.reverse_path,
            recipients: mail.recipients,
            helo,
            extended,
            eight_bit: mail.eight_bit,
            announced_bytes: mail.announced_bytes,
            identity: self.identity.clone(),
            tls: self.tls,
        }))
    }
}

/// How long a line that begins like this may be.
fn line_max_bytes(line: &[u8], answers_auth: bool) -> usize {
    let is = |verb: &[u8]| line.get(..verb.len()).is_some_and(|head| head.eq_ignore_ascii_case(verb));
    if answers_auth || is(b"AUTH ") {
        AUTH_LINE_MAX_BYTES
    } else if is(b"MAIL ") {
        MAIL_LINE_MAX_BYTES
    } else {
        COMMAND_LINE_MAX_BYTES
    }
}
