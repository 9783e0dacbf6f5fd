//! One message on its way: what is said of its envelope, what was answered, and what became of each recipient.

use std::collections::VecDeque;

use crate::client::capabilities::Capabilities;
use crate::client::envelope::{Envelope, RECIPIENTS_MAX};
use crate::outcome::{Diagnosis, Handover, Onward, Outcome, Peer, Phase, Refuser, is_crowded, of_refusal};
use crate::reply::{EnhancedCode, Reply, Severity};

/// Commands that are said without an answer to those before them, in bytes: whoever writes more while the server can't get
/// rid of its answers waits for ever (RFC 2920, section 3.1).
pub const PIPELINED_MAX_BYTES: usize = 8 << 10;

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionReport {
    /// One for each recipient of the envelope, in its order.
    pub recipients: Vec<Handover>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Mail,
    Rcpt(usize),
    Data,
}

/// What comes after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another answer.
    Answer,
    /// More commands.
    Commands,
    /// The message.
    Message,
    /// RSET: it is decided.
    Reset,
    /// Nothing: it is decided, and the connection is of no more use.
    Close,
}

/// A transaction.
pub struct Transaction {
    peer: Peer,
    refuser: Refuser,
    size_bytes: u64,
    onward: Onward,
    lines: VecDeque<(Command, String)>,
    unanswered: VecDeque<Command>,
    pipelined: bool,
    answered_any: bool,
    accepted: Vec<usize>,
    fates: Vec<Option<Handover>>,
}

impl Transaction {
    /// A transaction of which nothing was said yet. What the server can't take is decided already.
    pub fn new(envelope: &Envelope, can: &Capabilities, peer: &Peer, refuser: Refuser) -> Self {
        let mut begun = Transaction {
            peer: peer.clone(),
            refuser,
            size_bytes: envelope.shape.size_bytes,
            onward: if can.dsn { Onward::Reports } else { Onward::ReportsNothing },
            lines: VecDeque::new(),
            unanswered: VecDeque::new(),
            pipelined: can.pipelining,
            answered_any: false,
            accepted: Vec::new(),
            fates: vec![None; envelope.recipients.len()],
        };
        match obstacle(envelope, can, peer, refuser.is_secured()) {
            Some(obstacle) => begun.decide_rest(&obstacle),
            None => begun.write_lines(envelope, can),
        }
        begun
    }

    fn write_lines(&mut self, envelope: &Envelope, can: &Capabilities) {
        let ours = |code, sentence| Diagnosis::ours(Some(&self.peer), Phase::Mail, code, sentence);
        let Some(mail) = envelope.mail(can) else {
            let diagnosis = ours(EnhancedCode::new(5, 1, 7), "the sender's address can't be said in SMTP");
            return self.decide_rest(&Handover::Decided(Outcome::failed(diagnosis)));
        };
        self.lines.push_back((Command::Mail, mail));
        let most = can.recipients_max.unwrap_or(RECIPIENTS_MAX).min(RECIPIENTS_MAX);
        for (n, recipient) in envelope.recipients.iter().enumerate() {
            self.fates[n] = match recipient.rcpt(can) {
                None => {
                    let diagnosis = ours(EnhancedCode::new(5, 1, 3), "this address can't be said in SMTP");
                    Some(Handover::Decided(Outcome::failed(diagnosis)))
                }
                // MAIL is among the lines.
                Some(_) if self.lines.len() > most => {
                    let diagnosis = ours(EnhancedCode::new(4, 5, 3), "too many recipients for one transaction");
                    Some(Handover::AnotherTransaction(Outcome::deferred(diagnosis)))
                }
                Some(rcpt) => {
                    self.lines.push_back((Command::Rcpt(n), rcpt));
                    None
                }
            };
        }
        self.lines.push_back((Command::Data, "DATA\r\n".to_owned()));
    }

    /// Whether all is decided.
    pub fn is_decided(&self) -> bool {
        self.fates.iter().all(Option::is_some)
    }

    /// Whether the server has said anything about it.
    pub fn was_answered(&self) -> bool {
        self.answered_any
    }

    /// How long the message is to be, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Appends the commands that can be said now: one, or as many as [`PIPELINED_MAX_BYTES`] have room for.
    pub fn say(&mut self, out: &mut Vec<u8>) {
        let mut bytes = 0;
        while let Some((command, line)) = self.lines.pop_front() {
            bytes += line.len();
            out.extend_from_slice(line.as_bytes());
            self.unanswered.push_back(command);
            let fits = self.lines.front().is_some_and(|(_, next)| bytes + next.len() <= PIPELINED_MAX_BYTES);
            if !self.pipelined || !fits {
                break;
            }
        }
    }

    /// Which command the next answer is for.
    pub fn phase(&self) -> Phase {
        match self.unanswered.front() {
            None | Some(Command::Mail) => Phase::Mail,
            Some(Command::Rcpt(_)) => Phase::Rcpt,
            Some(Command::Data) => Phase::Data,
        }
    }

    /// Takes the answer to the oldest command without one.
    pub fn answer(&mut self, reply: &Reply) -> Next {
        let phase = self.phase();
        let Some(command) = self.unanswered.pop_front() else { return Next::Close };
        self.answered_any = true;
        if reply.code == 421 {
            self.decide_rest(&of_refusal(&self.peer, phase, reply, self.refuser));
            return Next::Close;
        }
        match (command, reply.severity()) {
            (Command::Mail, Severity::Done) => {}
            (Command::Rcpt(n), Severity::Done) => {
                if self.fates[n].is_none() {
                    self.accepted.push(n);
                }
            }
            (Command::Data, Severity::GoOn) => {
                // A server that has no recipient and wants a message: without a dot it gets none.
                return if self.accepted.is_empty() { Next::Close } else { Next::Message };
            }
            (Command::Mail, Severity::NotNow | Severity::Never)
            | (Command::Data, Severity::NotNow | Severity::Never) => {
                self.decide_rest(&of_refusal(&self.peer, phase, reply, self.refuser));
                self.lines.clear();
            }
            (Command::Rcpt(n), Severity::NotNow | Severity::Never) => {
                let refused = of_refusal(&self.peer, phase, reply, self.refuser);
                let crowded = is_crowded(reply) && !self.accepted.is_empty();
                let fate = if crowded { Handover::AnotherTransaction(refused.outcome().clone()) } else { refused };
                self.fates[n].get_or_insert(fate);
            }
            (Command::Mail | Command::Rcpt(_), Severity::GoOn) | (Command::Data, Severity::Done) => {
                self.give_up(phase, "the server's answer is none to this command");
                return Next::Close;
            }
        }
        if !self.unanswered.is_empty() {
            return Next::Answer;
        }
        if matches!(self.lines.front(), Some((Command::Data, _))) && self.accepted.is_empty() {
            self.lines.clear();
        }
        if self.lines.is_empty() { Next::Reset } else { Next::Commands }
    }

    /// Takes the answer to the final dot; whether the connection goes on.
    pub fn final_answer(&mut self, reply: &Reply) -> Next {
        let diagnosis = Diagnosis::of_reply(&self.peer, Phase::FinalDot, reply);
        match reply.severity() {
            Severity::Done => {
                self.decide_rest(&Handover::Decided(Outcome::Sent { diagnosis, onward: self.onward }));
                Next::Commands
            }
            Severity::NotNow | Severity::Never => {
                self.decide_rest(&of_refusal(&self.peer, Phase::FinalDot, reply, self.refuser));
                if reply.code == 421 { Next::Close } else { Next::Commands }
            }
            Severity::GoOn => {
                self.decide_rest(&Handover::Decided(Outcome::perhaps_sent(diagnosis)));
                Next::Close
            }
        }
    }

    /// Takes an answer that came before the message had ended.
    pub fn early_answer(&mut self, reply: &Reply) {
        match reply.severity() {
            Severity::NotNow | Severity::Never => {
                self.decide_rest(&of_refusal(&self.peer, Phase::Message, reply, self.refuser));
            }
            Severity::Done | Severity::GoOn => {
                self.give_up(Phase::Message, "the server answered what was not said yet")
            }
        }
    }

    /// The host is of no use now; nothing was sent.
    pub fn give_up(&mut self, phase: Phase, sentence: &str) {
        let diagnosis = Diagnosis::ours(Some(&self.peer), phase, EnhancedCode::new(4, 5, 0), sentence);
        self.decide_rest(&Handover::OtherHost(Outcome::deferred(diagnosis)));
    }

    /// Whatever was not decided becomes this.
    pub fn decide_rest(&mut self, fate: &Handover) {
        for open in self.fates.iter_mut().filter(|open| open.is_none()) {
            *open = Some(fate.clone());
        }
    }

    /// What became of it.
    ///
    /// # Panics
    /// If something is not decided.
    pub fn report(self) -> TransactionReport {
        let decided: Option<Vec<Handover>> = self.fates.into_iter().collect();
        let Some(recipients) = decided else { panic!("a transaction ends when each recipient has its fate") };
        TransactionReport { recipients }
    }
}

/// Why this server can't take the message, whatever it answered.
fn obstacle(envelope: &Envelope, can: &Capabilities, peer: &Peer, secured: bool) -> Option<Handover> {
    let failed = |code, sentence: &str| Outcome::failed(Diagnosis::ours(Some(peer), Phase::Mail, code, sentence));
    let size = envelope.shape.size_bytes;
    if envelope.require_tls && !(secured && can.require_tls) {
        let why = "the sender wants TLS to the end (REQUIRETLS), and this server does not promise it";
        return Some(Handover::OtherHost(failed(EnhancedCode::new(5, 7, 30), why)));
    }
    if let Some(max) = can.size_max_bytes.filter(|max| size > *max) {
        let why = format!("the message has {size} octets, and this server takes at most {max}");
        return Some(Handover::Decided(failed(EnhancedCode::new(5, 3, 4), &why)));
    }
    if envelope.needs_utf8() && !can.utf8 {
        let why = "an address or the header has letters outside ASCII, and this server does not take them (SMTPUTF8)";
        return Some(Handover::Decided(failed(EnhancedCode::new(5, 6, 7), why)));
    }
    if envelope.shape.eight_bit && !can.eight_bit {
        let without = "the message has octets above 127, and this server does not take them (8BITMIME)";
        let why = match &envelope.not_seven_bit {
            Some(why) => format!("{without}; it can't be sent without them: {why}"),
            None => without.to_owned(),
        };
        return Some(Handover::Decided(failed(EnhancedCode::new(5, 6, 3), &why)));
    }
    None
}
