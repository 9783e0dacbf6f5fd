//! A session: its state, its input, and what it asks of the shell.

use zeroize::{Zeroize, Zeroizing};

use crate::commands;
use crate::data::Data;
use crate::parse::{Mailbox, Path};
use crate::reply::line;

/// Input that waits, in bytes. Beyond it the shell must not read.
pub const INPUT_MAX_BYTES: usize = 64 << 10;
/// A command line (RFC 5321 asks for 512; AUTH needs 12,288: RFC 4954, section 4).
pub const LINE_MAX_BYTES: usize = 12_288;
/// Recipients of one transaction.
pub const RECIPIENTS_MAX: usize = 100;
/// Commands that are wrong or refused before the session ends.
pub const WRONG_COMMANDS_MAX: u32 = 20;
/// Failed logins before the session ends.
const WRONG_LOGINS_MAX: u32 = 3;

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
#[derive(Debug)]
pub enum Step {
    /// Write what was said, then read more.
    NeedInput,
    /// Look a recipient up, then say [`Session::verified`].
    Verify(Mailbox),
    /// Check credentials, then say [`Session::authenticated`].
    Authenticate {
        /// Who.
        user: String,
        /// With which password.
        password: Zeroizing<String>,
    },
    /// More of the message: keep it.
    Content(Vec<u8>),
    /// The message is whole: deliver it, then say [`Session::delivered`].
    Complete(Transaction),
    /// The message won't be completed: drop what was kept.
    Discard,
    /// Write what was said, take up TLS, then say [`Session::tls_started`].
    StartTls,
    /// Write what was said, then close.
    Close,
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
    /// A line that is too long, up to its end.
    LongLine,
}

/// The mail transaction that is being prepared.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    pub reverse_path: Path,
    pub eight_bit: bool,
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
    input: Vec<u8>,
    asked: Asked,
    wrong: u32,
    wrong_logins: u32,
    closing: bool,
    /// Said when the shell has something to drop.
    pub(crate) discard: bool,
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
            input: Vec::new(),
            asked: Asked::Nothing,
            wrong: 0,
            wrong_logins: 0,
            closing: false,
            discard: false,
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
        self.input.extend_from_slice(bytes);
    }

    /// How many bytes it takes in now.
    pub fn room(&self) -> usize {
        INPUT_MAX_BYTES - self.input.len()
    }

    /// What to do next. Replies are appended to `out`.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Step {
        loop {
            if std::mem::take(&mut self.discard) {
                return Step::Discard;
            }
            if self.closing {
                return Step::Close;
            }
            assert_eq!(self.asked, Asked::Nothing, "a question is open");
            if let Reading::Data(data) = &mut self.reading {
                let mut content = Vec::new();
                let (took, ended) = data.take(&self.input, &mut content);
                self.input.drain(..took);
                let too_long = data.size_bytes > self.config.max_message_bytes;
                let bare = data.bare;
                if ended {
                    if let Some(step) = self.data_ended(too_long, bare, content, out) {
                        return step;
                    }
                    continue;
                }
                if took == 0 {
                    return Step::NeedInput;
                }
                if too_long || content.is_empty() {
                    continue;
                }
                return Step::Content(content);
            }
            let Some(end) = self.input.windows(2).position(|w| w == b"\r\n") else {
                if self.input.len() > LINE_MAX_BYTES {
                    // What can't be a command is thrown away; the last byte may be half of its end.
                    self.reading = Reading::LongLine;
                    let keep = self.input.split_off(self.input.len() - 1);
                    self.input.zeroize();
                    self.input = keep;
                }
                return Step::NeedInput;
            };
            let rest = self.input.split_off(end + 2);
            let mut text = std::mem::replace(&mut self.input, rest);
            text.truncate(end);
            let text = Zeroizing::new(text);
            let step = self.line(&text, out);
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// The answer to [`Step::Verify`].
    pub fn verified(&mut self, recipient: Recipient, out: &mut Vec<u8>) {
        let Asked::Recipient(address) = std::mem::replace(&mut self.asked, Asked::Nothing) else {
            unreachable!("no recipient was asked for")
        };
        commands::rcpt::verified(self, address, recipient, out);
    }

    /// The answer to [`Step::Authenticate`].
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
    pub fn delivered(&mut self, delivery: Delivery, out: &mut Vec<u8>) {
        assert_eq!(self.asked, Asked::Delivery, "no delivery was asked for");
        self.asked = Asked::Nothing;
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

    /// TLS is up: everything learnt before is forgotten (RFC 3207, section 4.2).
    pub fn tls_started(&mut self) {
        assert_eq!(self.asked, Asked::Tls, "no TLS was asked for");
        self.asked = Asked::Nothing;
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

    fn line(&mut self, text: &[u8], out: &mut Vec<u8>) -> Option<Step> {
        match std::mem::replace(&mut self.reading, Reading::Commands) {
            Reading::LongLine => {
                self.wrong(out, "500 5.5.2 line too long");
                None
            }
            Reading::AuthPlain => commands::auth::plain(self, text, out),
            Reading::AuthLoginUser => commands::auth::login_user(self, text, out),
            Reading::AuthLoginPassword(user) => commands::auth::login_password(self, user, text, out),
            Reading::Commands => commands::command(self, text, out),
            Reading::Data(_) => unreachable!("a message is not read by lines"),
        }
    }

    fn data_ended(&mut self, too_long: bool, bare: bool, content: Vec<u8>, out: &mut Vec<u8>) -> Option<Step> {
        if too_long {
            self.reading = Reading::Commands;
            self.mail = None;
            self.discard = true;
            line(out, &format!("552 5.3.4 the message is longer than {} bytes", self.config.max_message_bytes));
            return None;
        }
        if bare {
            self.reading = Reading::Commands;
            self.mail = None;
            self.discard = true;
            line(out, "550 5.6.11 a line ends with a bare CR or LF; lines end with CRLF");
            return None;
        }
        if !content.is_empty() {
            // The end comes again, by itself.
            self.input.splice(0..0, *b".\r\n");
            self.reading = Reading::Data(Data::new());
            return Some(Step::Content(content));
        }
        self.reading = Reading::Commands;
        let mail = self.mail.take()?;
        let (helo, extended) = self.helo.clone().unwrap_or_default();
        self.asked = Asked::Delivery;
        Some(Step::Complete(Transaction {
            reverse_path: mail.reverse_path,
            recipients: mail.recipients,
            helo,
            extended,
            eight_bit: mail.eight_bit,
            identity: self.identity.clone(),
            tls: self.tls,
        }))
    }
}
