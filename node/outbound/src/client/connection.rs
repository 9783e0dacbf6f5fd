//! One connection to a server.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::client::capabilities::Capabilities;
use crate::client::envelope::Envelope;
use crate::client::login::Role;
use crate::client::transaction::{Next, Transaction, TransactionReport};
use crate::encode::Encoder;
use crate::outcome::{Diagnosis, Handover, Outcome, Peer, Phase, Refuser, of_refusal};
use crate::reply::{EnhancedCode, Replies, Reply, Severity};

/// A connection is waited for this long.
pub const CONNECT_MAX: Duration = Duration::from_secs(30);
/// The greeting and the answers to EHLO, MAIL, RCPT are waited for this long (RFC 5321, section 4.5.3.2).
const COMMAND_MAX: Duration = Duration::from_secs(5 * 60);
/// The answer to DATA is waited for this long.
const DATA_MAX: Duration = Duration::from_secs(2 * 60);
/// A piece of the message is on its way for this long.
const PIECE_MAX: Duration = Duration::from_secs(3 * 60);
/// The answer to the final dot is waited for this long: who gives up earlier sends twice.
const FINAL_DOT_MAX: Duration = Duration::from_secs(10 * 60);
/// TLS is waited for this long.
const TLS_MAX: Duration = Duration::from_secs(60);
/// An answer of a login is waited for this long.
pub const AUTH_MAX: Duration = Duration::from_secs(60);
/// The answers to RSET and QUIT are waited for this long: nothing depends on them.
pub const QUIT_MAX: Duration = Duration::from_secs(10);
/// So many transactions one connection has at most.
pub const TRANSACTIONS_MAX: usize = 100;

/// What is known of a connection before it begins.
#[allow(missing_debug_implementations)] // It holds a password.
pub struct Settings {
    /// Our name in EHLO: a host's name, or an address in brackets.
    pub helo: String,
    /// The server.
    pub peer: Peer,
    /// Whether TLS is taken up.
    pub tls: TlsUse,
    /// What it is to us. Who we are is said only under TLS.
    pub role: Role,
}

/// Whether TLS is taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsUse {
    /// It is up before the greeting.
    Implicit,
    /// It isn't, also where it is offered: it failed a moment ago.
    Never,
    /// Where it is offered.
    Opportunistic,
    /// Nothing is sent without, for this reason.
    Required {
        /// A sentence without its end, such as `b.test has a policy that wants it (MTA-STS)`.
        why: String,
    },
}

/// What the shell does next, before it asks again.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Write this. It may hold a password, so that it is wiped.
    Write(Zeroizing<Vec<u8>>),
    /// Read, and hand what came to [`Client::input`]; after [`Client::deadline`] say [`Client::lost`].
    Read,
    /// Take up TLS, then say [`Client::tls_started`] or [`Client::tls_failed`].
    StartTls,
    /// The server wants the message: hand pieces of it to [`Client::piece`] and write what comes back, then say
    /// [`Client::message_ended`]; or [`Client::withdraw`]. Asked after a piece, it says whether the server still wants it.
    Message,
    /// All but the final dot is written: say [`Client::finish`] to have it sent, or [`Client::withdraw`], and nothing was.
    BeforeFinalDot,
    /// What came of a transaction. There may be more to write or read before the next one.
    Done(TransactionReport),
    /// [`Client::begin`] a transaction, [`Client::quit`], or keep the connection for later.
    Idle,
    /// Close the connection.
    Close(Ending),
}

/// Why a connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is over. Each transaction that was begun had its report.
    Over,
    /// TLS failed and is not required: connect to the same address again with [`TlsUse::Never`].
    InClear(Diagnosis),
    /// It never came to a transaction: this is what became of any.
    Failed(Handover),
}

/// Why a connection was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The server closed it.
    Closed,
    /// Reading or writing failed, by this error.
    Broken(String),
    /// [`Client::deadline`] passed.
    Silent,
    /// All the time that there was for it is over, though the server said something now and then.
    Slow,
    /// This node ends, or leads no longer.
    Abandoned,
}

enum State {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    /// The shell takes up TLS.
    Tls,
    Auth(Login),
    Idle,
    Envelope(Transaction),
    Message(Transaction, Encoder, u64),
    BeforeFinalDot(Transaction, &'static [u8]),
    FinalDot(Transaction),
    Reset,
    Quit,
    Closed(Ending),
}

/// The answer that a login waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Login {
    Plain,
    User,
    Password,
    Finished,
}

/// The client of one connection.
pub struct Client {
    settings: Settings,
    state: State,
    secured: bool,
    can: Capabilities,
    replies: Replies,
    out: Zeroizing<Vec<u8>>,
    report: Option<TransactionReport>,
    transactions: usize,
}

impl Client {
    /// At the start: the connection is up, and TLS if it is implicit.
    pub fn new(settings: Settings) -> Self {
        let secured = settings.tls == TlsUse::Implicit;
        Client {
            settings,
            state: State::Greeting,
            secured,
            can: Capabilities::default(),
            replies: Replies::default(),
            out: Zeroizing::default(),
            report: None,
            transactions: 0,
        }
    }

    /// How many bytes it takes in now; never 0 after [`Step::Read`].
    pub fn room(&self) -> usize {
        self.replies.room()
    }

    /// Takes in what was read; at any time but between [`Step::StartTls`] and what came of it.
    ///
    /// # Panics
    /// If it is more than there is [`Client::room`] for.
    pub fn input(&mut self, bytes: &[u8]) {
        if !matches!(self.state, State::Closed(_)) {
            self.replies.push(bytes);
        }
    }

    /// How long the step that it is at may take, each time anew.
    pub fn deadline(&self) -> Duration {
        match &self.state {
            State::Greeting | State::Ehlo | State::Helo | State::StartTls => COMMAND_MAX,
            State::Tls => TLS_MAX,
            State::Auth(_) => AUTH_MAX,
            State::Envelope(transaction) if transaction.phase() == Phase::Data => DATA_MAX,
            State::Envelope(_) | State::Idle => COMMAND_MAX,
            State::Message(..) | State::BeforeFinalDot(..) => PIECE_MAX,
            State::FinalDot(_) => FINAL_DOT_MAX,
            State::Reset | State::Quit | State::Closed(_) => QUIT_MAX,
        }
    }

    /// How far it has come.
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Greeting => Phase::Greeting,
            State::Ehlo | State::Helo => Phase::Hello,
            State::StartTls | State::Tls => Phase::Tls,
            State::Auth(_) => Phase::Auth,
            State::Envelope(transaction) => transaction.phase(),
            State::Message(..) | State::BeforeFinalDot(..) => Phase::Message,
            State::FinalDot(_) => Phase::FinalDot,
            State::Idle | State::Reset | State::Quit | State::Closed(_) => Phase::Between,
        }
    }

    /// What the server can do, as it said last.
    pub fn capabilities(&self) -> &Capabilities {
        &self.can
    }

    /// Whether TLS is up.
    pub fn is_secured(&self) -> bool {
        self.secured
    }

    /// What to do next.
    pub fn step(&mut self) -> Step {
        loop {
            if let Some(report) = self.report.take() {
                return Step::Done(report);
            }
            if !self.out.is_empty() {
                return Step::Write(std::mem::take(&mut self.out));
            }
            match &self.state {
                State::Closed(ending) => return Step::Close(ending.clone()),
                State::Tls => return Step::StartTls,
                State::Greeting
                | State::Ehlo
                | State::Helo
                | State::StartTls
                | State::Auth(_)
                | State::Idle
                | State::Envelope(_)
                | State::Message(..)
                | State::BeforeFinalDot(..)
                | State::FinalDot(_)
                | State::Reset
                | State::Quit => {}
            }
            if !self.take_reply() {
                return match &self.state {
                    State::Idle => Step::Idle,
                    State::Message(..) => Step::Message,
                    State::BeforeFinalDot(..) => Step::BeforeFinalDot,
                    _ => Step::Read,
                };
            }
        }
    }

    /// Begins a transaction. What can't be is in its report.
    ///
    /// # Panics
    /// If the last step was not [`Step::Idle`].
    pub fn begin(&mut self, envelope: &Envelope) {
        assert!(matches!(self.state, State::Idle), "a transaction begins when none is");
        let mut transaction = Transaction::new(envelope, &self.can, &self.settings.peer, self.refuser());
        self.transactions += 1;
        if transaction.is_decided() {
            self.report = Some(transaction.report());
            return self.rest();
        }
        transaction.say(&mut self.out);
        self.state = State::Envelope(transaction);
    }

    /// Encodes a piece of the message; what it returns is to be written. Empty if the message can't be sent as it is, or the
    /// server does not want it any more: the next step tells.
    pub fn piece(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        let State::Message(_, encoder, _) = &mut self.state else { return wire };
        match encoder.piece(piece, &mut wire) {
            Ok(()) => wire,
            Err(error) => {
                self.unsendable(EnhancedCode::new(5, 6, 11), &error.to_string());
                Vec::new()
            }
        }
    }

    /// The message has no more pieces. It is not sent if it was shorter or longer than its envelope said.
    pub fn message_ended(&mut self) {
        let State::Message(_, encoder, size_bytes) = &self.state else { return };
        let (came, told) = (encoder.shape().size_bytes, *size_bytes);
        if came != told {
            let why = format!("the message was to have {told} octets, and {came} were read");
            return self.stop(EnhancedCode::new(4, 3, 0), &why);
        }
        match encoder.end() {
            Ok(dot) => {
                if let State::Message(transaction, ..) = self.leave_state() {
                    self.state = State::BeforeFinalDot(transaction, dot);
                }
            }
            Err(error) => self.unsendable(EnhancedCode::new(5, 6, 11), &error.to_string()),
        }
    }

    /// Sends the final dot.
    ///
    /// # Panics
    /// If the last step was not [`Step::BeforeFinalDot`].
    pub fn finish(&mut self) {
        match self.leave_state() {
            State::BeforeFinalDot(transaction, dot) => {
                self.out.extend_from_slice(dot);
                self.state = State::FinalDot(transaction);
            }
            _ => panic!("a message ends after its last piece"),
        }
    }

    /// Does not send the message that is on its way, for this reason, and closes: nothing was sent. Also between two steps.
    pub fn withdraw(&mut self, why: &str) {
        self.stop(EnhancedCode::new(4, 3, 0), why);
    }

    /// TLS is up. What came in clear is forgotten (RFC 3207, section 4.2).
    ///
    /// # Panics
    /// If the last step was not [`Step::StartTls`].
    pub fn tls_started(&mut self) {
        assert!(matches!(self.state, State::Tls), "TLS starts when it is asked for");
        self.replies.clear();
        self.secured = true;
        self.say_ehlo();
    }

    /// TLS failed, for this reason.
    pub fn tls_failed(&mut self, why: &str) {
        if matches!(self.state, State::Tls) {
            self.no_tls(&format!("TLS could not be taken up: {why}"));
        }
    }

    /// The connection is lost. What came before it, handed to [`Client::input`], still counts.
    pub fn lost(&mut self, why: &Lost) {
        while self.take_reply() {}
        let sentence = match why {
            Lost::Closed => "the server closed the connection".to_owned(),
            Lost::Broken(error) => format!("the connection broke: {error}"),
            Lost::Silent => format!("the server said nothing for {} seconds", self.deadline().as_secs()),
            Lost::Slow => "the server took too long until the time for this attempt was over".to_owned(),
            Lost::Abandoned => "this server had to end the connection".to_owned(),
        };
        let phase = self.phase();
        let diagnosis = Diagnosis::ours(Some(&self.settings.peer), phase, EnhancedCode::new(4, 4, 2), &sentence);
        self.out = Zeroizing::default();
        let ending = match self.leave_state() {
            State::Greeting | State::Ehlo | State::Helo | State::StartTls | State::Auth(_) => {
                Ending::Failed(Handover::OtherHost(Outcome::deferred(diagnosis)))
            }
            State::Tls => {
                self.state = State::Tls;
                return self.no_tls(&sentence);
            }
            State::Envelope(mut transaction) => {
                let outcome = Outcome::deferred(diagnosis);
                let fate = if self.is_stale(&transaction) {
                    Handover::AnotherTransaction(outcome)
                } else {
                    Handover::OtherHost(outcome)
                };
                transaction.decide_rest(&fate);
                self.report = Some(transaction.report());
                Ending::Over
            }
            State::Message(mut transaction, ..) | State::BeforeFinalDot(mut transaction, _) => {
                transaction.decide_rest(&Handover::OtherHost(Outcome::deferred(diagnosis)));
                self.report = Some(transaction.report());
                Ending::Over
            }
            State::FinalDot(mut transaction) => {
                transaction.decide_rest(&Handover::Decided(Outcome::perhaps_sent(diagnosis)));
                self.report = Some(transaction.report());
                Ending::Over
            }
            State::Idle | State::Reset | State::Quit => Ending::Over,
            State::Closed(ending) => ending,
        };
        self.state = State::Closed(ending);
    }

    /// Says QUIT.
    ///
    /// # Panics
    /// If the last step was not [`Step::Idle`].
    pub fn quit(&mut self) {
        assert!(matches!(self.state, State::Idle), "QUIT is said between transactions");
        self.out.extend_from_slice(b"QUIT\r\n");
        self.state = State::Quit;
    }

    /// Whether it waited between two transactions and nothing was heard since: it may have been dead for long, and another
    /// connection to the same host may do.
    fn is_stale(&self, transaction: &Transaction) -> bool {
        self.transactions > 1 && !transaction.was_answered()
    }

    /// Takes out the state; whoever does puts another in.
    fn leave_state(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Closed(Ending::Over))
    }

    /// Takes a reply that has come, and goes on; false if none is whole, or none is of interest.
    fn take_reply(&mut self) -> bool {
        if matches!(self.state, State::Tls | State::Closed(_)) {
            return false;
        }
        match self.replies.take() {
            Ok(Some(reply)) => {
                let reply = match self.settings.role.credentials() {
                    Some(credentials) => credentials.left_out_of(reply),
                    None => reply,
                };
                self.go_on(&reply);
            }
            Ok(None) => return false,
            Err(error) => self.out_of_step(&error.to_string()),
        }
        true
    }

    fn go_on(&mut self, reply: &Reply) {
        let is_done = reply.severity() == Severity::Done;
        match self.leave_state() {
            State::Greeting if is_done => self.say_ehlo(),
            State::Ehlo if is_done => {
                self.can = Capabilities::read(reply);
                self.after_hello();
            }
            State::Helo if is_done => {
                self.can = Capabilities::default();
                self.after_hello();
            }
            // A server that does not know it; one that is busy would not know HELO either (RFC 5321, section 3.2).
            State::Ehlo if reply.severity() == Severity::Never && !matches!(reply.code, 521 | 556) => {
                self.out.extend_from_slice(format!("HELO {}\r\n", self.settings.helo).as_bytes());
                self.state = State::Helo;
            }
            State::Greeting => self.refused(Phase::Greeting, reply),
            State::Ehlo | State::Helo => self.refused(Phase::Hello, reply),
            State::StartTls if is_done => {
                // Whatever came behind it in clear was put there by somebody.
                self.replies.clear();
                self.state = State::Tls;
            }
            State::StartTls => match self.settings.tls {
                TlsUse::Required { .. } => self.refused(Phase::Tls, reply),
                TlsUse::Implicit | TlsUse::Never | TlsUse::Opportunistic if reply.code == 421 => {
                    self.refused(Phase::Tls, reply)
                }
                TlsUse::Implicit | TlsUse::Never | TlsUse::Opportunistic => self.log_in(),
            },
            State::Auth(login) => self.log_in_further(login, reply),
            State::Envelope(mut transaction) if reply.code == 421 && self.is_stale(&transaction) => {
                let diagnosis = Diagnosis::of_reply(&self.settings.peer, Phase::Between, reply);
                transaction.decide_rest(&Handover::AnotherTransaction(Outcome::deferred(diagnosis)));
                self.report = Some(transaction.report());
            }
            State::Envelope(mut transaction) => match transaction.answer(reply) {
                Next::Answer => self.state = State::Envelope(transaction),
                Next::Commands => {
                    transaction.say(&mut self.out);
                    self.state = State::Envelope(transaction);
                }
                Next::Message => {
                    let size_bytes = transaction.size_bytes();
                    self.state = State::Message(transaction, Encoder::default(), size_bytes);
                }
                Next::Reset => {
                    self.report = Some(transaction.report());
                    self.out.extend_from_slice(b"RSET\r\n");
                    self.state = State::Reset;
                }
                Next::Close => self.report = Some(transaction.report()),
            },
            State::Message(mut transaction, ..) | State::BeforeFinalDot(mut transaction, _) => {
                transaction.early_answer(reply);
                self.report = Some(transaction.report());
            }
            State::FinalDot(mut transaction) => {
                let next = transaction.final_answer(reply);
                self.report = Some(transaction.report());
                if next != Next::Close {
                    self.rest();
                }
            }
            State::Reset if is_done => self.rest(),
            // Said unasked while it waited: a farewell, or nonsense.
            State::Idle | State::Reset | State::Quit => {}
            State::Tls => self.state = State::Tls,
            State::Closed(ending) => self.state = State::Closed(ending),
        }
    }

    /// The server said what is no reply: nothing that follows can be trusted.
    fn out_of_step(&mut self, why: &str) {
        let phase = self.phase();
        let diagnosis = Diagnosis::ours(Some(&self.settings.peer), phase, EnhancedCode::new(4, 5, 0), why);
        match self.leave_state() {
            State::Greeting | State::Ehlo | State::Helo | State::StartTls | State::Tls | State::Auth(_) => {
                self.state = State::Closed(Ending::Failed(Handover::OtherHost(Outcome::deferred(diagnosis))));
            }
            State::Envelope(mut transaction)
            | State::Message(mut transaction, ..)
            | State::BeforeFinalDot(mut transaction, _) => {
                transaction.decide_rest(&Handover::OtherHost(Outcome::deferred(diagnosis)));
                self.report = Some(transaction.report());
            }
            State::FinalDot(mut transaction) => {
                transaction.decide_rest(&Handover::Decided(Outcome::perhaps_sent(diagnosis)));
                self.report = Some(transaction.report());
            }
            State::Idle | State::Reset | State::Quit => {}
            State::Closed(ending) => self.state = State::Closed(ending),
        }
    }

    /// Between two transactions: waits for the next, or leaves after the last.
    fn rest(&mut self) {
        let most = self.can.transactions_max.unwrap_or(TRANSACTIONS_MAX).min(TRANSACTIONS_MAX);
        if self.transactions < most {
            self.state = State::Idle;
        } else {
            self.out.extend_from_slice(b"QUIT\r\n");
            self.state = State::Quit;
        }
    }

    fn say_ehlo(&mut self) {
        self.out.extend_from_slice(format!("EHLO {}\r\n", self.settings.helo).as_bytes());
        self.state = State::Ehlo;
    }

    fn after_hello(&mut self) {
        if self.secured {
            return self.log_in();
        }
        match &self.settings.tls {
            TlsUse::Opportunistic | TlsUse::Required { .. } if self.can.starttls => {
                self.out.extend_from_slice(b"STARTTLS\r\n");
                self.state = State::StartTls;
            }
            TlsUse::Required { .. } => self.no_tls("the server does not offer it"),
            TlsUse::Implicit | TlsUse::Never | TlsUse::Opportunistic => self.log_in(),
        }
    }

    /// TLS can't be taken up over this connection.
    fn no_tls(&mut self, sentence: &str) {
        let ours = |sentence: &str| {
            Diagnosis::ours(Some(&self.settings.peer), Phase::Tls, EnhancedCode::new(4, 7, 4), sentence)
        };
        let ending = match &self.settings.tls {
            TlsUse::Required { why } => {
                let diagnosis = ours(&format!("TLS is required, as {why}; {sentence}"));
                Ending::Failed(Handover::OtherHost(Outcome::deferred(diagnosis)))
            }
            TlsUse::Implicit | TlsUse::Never | TlsUse::Opportunistic => Ending::InClear(ours(sentence)),
        };
        self.leave(ending);
    }

    fn log_in(&mut self) {
        let Some(credentials) = self.settings.role.credentials() else {
            self.state = State::Idle;
            return;
        };
        if !self.secured {
            return self.no_login("a login is configured, and the server has no TLS to protect it");
        }
        if self.can.auth_plain {
            let line = Zeroizing::new(format!("AUTH PLAIN {}\r\n", credentials.plain().as_str()));
            self.out.extend_from_slice(line.as_bytes());
            self.state = State::Auth(Login::Plain);
        } else if self.can.auth_login {
            self.out.extend_from_slice(b"AUTH LOGIN\r\n");
            self.state = State::Auth(Login::User);
        } else {
            self.no_login("a login is configured, and the server offers neither AUTH PLAIN nor AUTH LOGIN");
        }
    }

    fn log_in_further(&mut self, login: Login, reply: &Reply) {
        let (Some(credentials), severity) = (self.settings.role.credentials(), reply.severity()) else {
            return self.no_login("no login is configured");
        };
        let (user, password) = credentials.login();
        let (said, next) = match (login, severity) {
            (Login::Plain | Login::Finished, Severity::Done) => {
                self.state = State::Idle;
                return;
            }
            (Login::User, Severity::GoOn) => (user, Login::Password),
            (Login::Password, Severity::GoOn) => (password, Login::Finished),
            (_, Severity::NotNow | Severity::Never) => return self.refused(Phase::Auth, reply),
            (_, Severity::Done | Severity::GoOn) => {
                return self.no_login("the server's answer is none to this step of a login");
            }
        };
        self.out.extend_from_slice(said.as_bytes());
        self.out.extend_from_slice(b"\r\n");
        self.state = State::Auth(next);
    }

    fn no_login(&mut self, sentence: &str) {
        let peer = Some(&self.settings.peer);
        let diagnosis = Diagnosis::ours(peer, Phase::Auth, EnhancedCode::new(4, 7, 0), sentence);
        self.leave(Ending::Failed(Handover::OtherHost(Outcome::deferred(diagnosis))));
    }

    /// The server refuses before a transaction.
    fn refused(&mut self, phase: Phase, reply: &Reply) {
        let refused = of_refusal(&self.settings.peer, phase, reply, self.refuser());
        if reply.code == 421 {
            self.state = State::Closed(Ending::Failed(refused));
        } else {
            self.leave(Ending::Failed(refused));
        }
    }

    /// Whose refusals they are.
    fn refuser(&self) -> Refuser {
        match (&self.settings.role, self.secured) {
            (Role::SmartHost(_), secured) => Refuser::SmartHost { secured },
            (Role::Public, secured) => Refuser::Public { secured },
        }
    }

    /// Says QUIT, if TLS has not failed halfway, and does not wait for its answer.
    fn leave(&mut self, ending: Ending) {
        if !matches!(self.state, State::Tls) {
            self.out.extend_from_slice(b"QUIT\r\n");
        }
        self.state = State::Closed(ending);
    }

    /// Ends a message without its final dot: nobody else takes it either.
    fn unsendable(&mut self, code: EnhancedCode, why: &str) {
        let diagnosis = Diagnosis::ours(Some(&self.settings.peer), Phase::Message, code, why);
        self.end_without_dot(&Handover::Decided(Outcome::failed(diagnosis)));
    }

    /// Ends a message without its final dot, for later.
    fn stop(&mut self, code: EnhancedCode, why: &str) {
        let diagnosis = Diagnosis::ours(Some(&self.settings.peer), Phase::Message, code, why);
        self.end_without_dot(&Handover::Decided(Outcome::deferred(diagnosis)));
    }

    fn end_without_dot(&mut self, fate: &Handover) {
        match self.leave_state() {
            State::Message(mut transaction, ..) | State::BeforeFinalDot(mut transaction, _) => {
                transaction.decide_rest(fate);
                self.report = Some(transaction.report());
            }
            other => self.state = other,
        }
    }
}

impl std::fmt::Debug for Client {
    /// Shows neither passwords nor addresses.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("peer", &self.settings.peer)
            .field("phase", &self.phase())
            .finish_non_exhaustive()
    }
}
