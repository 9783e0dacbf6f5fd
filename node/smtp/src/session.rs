//! A session: input goes in, replies and steps come out.

use crate::commands;
use crate::input::{Input, Line};
use crate::reply::line;
use crate::state::{Asked, Config, Reading, State};
use crate::step::{AuthOutcome, Delivery, Recipient, Sender, Step, Transaction};

/// A command line with its CRLF, in bytes (RFC 5321, section 4.5.3.1.4).
pub const COMMAND_LINE_MAX_BYTES: usize = 512;
/// A MAIL line: 26 more for SIZE (RFC 1870), 17 for BODY (RFC 6152), 500 for AUTH (RFC 4954).
pub const MAIL_LINE_MAX_BYTES: usize = COMMAND_LINE_MAX_BYTES + 26 + 17 + 500;
/// An AUTH line, or one of its answers (RFC 4954, section 4).
pub const AUTH_LINE_MAX_BYTES: usize = 12_288;

/// A session.
#[derive(Debug)]
pub struct Session {
    state: State,
    input: Input,
}

impl Session {
    /// A session at its start; `tls` if TLS is up already.
    pub fn new(config: Config, tls: bool) -> Self {
        Session { state: State::new(config, tls), input: Input::default() }
    }

    /// The first line.
    pub fn greeting(&self) -> Vec<u8> {
        format!("220 {} ESMTP Mailraft\r\n", self.state.config.hostname).into_bytes()
    }

    /// The last line when the client was silent for too long.
    pub fn timed_out(&self) -> Vec<u8> {
        format!("421 4.4.2 {} silent for too long\r\n", self.state.config.hostname).into_bytes()
    }

    /// The last line when the server stops.
    pub fn shutting_down(&self) -> Vec<u8> {
        format!("421 4.3.2 {} shutting down; try again\r\n", self.state.config.hostname).into_bytes()
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
        assert_eq!(self.state.asked, Asked::Nothing, "a question is open");
        loop {
            if self.state.closing {
                return Step::Close;
            }
            let step = match &mut self.state.reading {
                Reading::Data(data) => {
                    let mut content = Vec::new();
                    let (took, ended) = data.take(self.input.pending(), &mut content);
                    self.input.consume(took);
                    let too_long = data.size_bytes > self.state.config.max_message_bytes;
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
                    let answers_auth = !matches!(self.state.reading, Reading::Commands);
                    match self.input.line(|line| line_max_bytes(line, answers_auth)) {
                        Line::Incomplete => Some(Step::NeedInput),
                        Line::TooLong => {
                            self.state.reading = Reading::Commands;
                            self.state.wrong(out, "500 5.5.2 line too long");
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

    /// The answer to [`Step::CheckSender`].
    ///
    /// # Panics
    /// If that was not asked.
    pub fn sender_checked(&mut self, sender: Sender, out: &mut Vec<u8>) {
        let Asked::Sender(mail) = std::mem::replace(&mut self.state.asked, Asked::Nothing) else {
            unreachable!("no sender was asked for")
        };
        commands::mail::sender_checked(&mut self.state, mail, sender, out);
    }

    /// The answer to [`Step::Verify`].
    ///
    /// # Panics
    /// If that was not asked.
    pub fn verified(&mut self, recipient: Recipient, out: &mut Vec<u8>) {
        let Asked::Recipient(address) = std::mem::replace(&mut self.state.asked, Asked::Nothing) else {
            unreachable!("no recipient was asked for")
        };
        commands::rcpt::verified(&mut self.state, address, recipient, out);
    }

    /// The answer to [`Step::Authenticate`].
    ///
    /// # Panics
    /// If that was not asked.
    pub fn authenticated(&mut self, outcome: AuthOutcome, out: &mut Vec<u8>) {
        assert_eq!(self.state.asked, Asked::Login, "no login was asked for");
        self.state.asked = Asked::Nothing;
        commands::auth::verified(&mut self.state, outcome, out);
    }

    /// The answer to [`Step::Complete`].
    ///
    /// # Panics
    /// If that was not asked.
    pub fn delivered(&mut self, delivery: Delivery, out: &mut Vec<u8>) {
        assert_eq!(self.state.asked, Asked::Delivery, "no delivery was asked for");
        self.state.asked = Asked::Nothing;
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

    /// TLS is up: everything learnt before is forgotten (RFC 3207, section 4.2), also input that came in since
    /// [`Step::StartTls`]; only what is said under TLS may be put in after this.
    ///
    /// # Panics
    /// If that was not asked.
    pub fn tls_started(&mut self) {
        assert_eq!(self.state.asked, Asked::Tls, "no TLS was asked for");
        self.state.asked = Asked::Nothing;
        self.input.clear();
        self.state.tls = true;
        self.state.helo = None;
        self.state.identity = None;
        self.state.mail = None;
    }

    fn line(&mut self, text: &[u8], out: &mut Vec<u8>) -> Option<Step> {
        match std::mem::replace(&mut self.state.reading, Reading::Commands) {
            Reading::AuthPlain => commands::auth::plain(&mut self.state, text, out),
            Reading::AuthLoginUser => commands::auth::login_user(&mut self.state, text, out),
            Reading::AuthLoginPassword(user) => commands::auth::login_password(&mut self.state, user, text, out),
            Reading::Commands => {
                let step = commands::command(&mut self.state, text, out);
                if matches!(step, Some(Step::StartTls)) {
                    // Whatever came in clear behind STARTTLS is not the client's word.
                    self.input.clear();
                }
                step
            }
            Reading::Data(_) | Reading::DataEnded => unreachable!("a message is not read by lines"),
        }
    }

    fn data_ended(&mut self, too_long: bool, refused: bool, out: &mut Vec<u8>) {
        if !refused {
            self.state.reading = Reading::DataEnded;
            return;
        }
        self.state.reading = Reading::Commands;
        self.state.mail = None;
        if too_long {
            line(out, &format!("552 5.3.4 the message is longer than {} bytes", self.state.config.max_message_bytes));
        } else {
            line(out, "550 5.6.11 a line ends with a bare CR or LF; lines end with CRLF");
        }
    }

    fn complete(&mut self) -> Option<Step> {
        self.state.reading = Reading::Commands;
        let mail = self.state.mail.take()?;
        let destination = mail.destination?;
        let (helo, extended) = self.state.helo.clone()?;
        self.state.asked = Asked::Delivery;
        Some(Step::Complete(Transaction {
            reverse_path: mail.reverse_path,
            recipients: mail.recipients,
            destination,
            helo,
            extended,
            eight_bit: mail.eight_bit,
            announced_bytes: mail.announced_bytes,
            identity: self.state.identity.clone(),
            tls: self.state.tls,
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
