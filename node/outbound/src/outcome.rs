//! What came of an attempt to hand a message over to a server, for one recipient: it is sent, tried again, or given up, and
//! why. It goes into a row and into a report to the sender, so it is bounded.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::reply::{EnhancedCode, REPLY_TEXT_MAX_BYTES, Reply, Severity, harmless};

/// The longest name of a host, in bytes (RFC 1035, section 2.3.4, and a dot or the brackets of an address).
pub const HOST_NAME_MAX_BYTES: usize = 255;
/// What a diagnosis takes in postcard at most, in bytes.
pub const DIAGNOSIS_MAX_BYTES: usize = 1_024;

/// What is told in place of a server's words about a login.
const NO_LOGIN: &str = "(the smart host does not log us in: look at our account there, outbound.smart_host_user and its \
                        password; its own words may repeat them and are left out)";
/// What is told behind a smart host's words where it wants a login, or another one.
const NO_ACCOUNT: &str = "(the smart host takes no mail without a login, or another one: look at our account there, \
                          outbound.smart_host_user and its password)";

/// A server: its name as the DNS or the configuration has it, and the address that was connected to, if one was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// At most [`HOST_NAME_MAX_BYTES`]; what is longer is cut off.
    pub name: String,
    /// The address.
    pub address: Option<IpAddr>,
}

impl Peer {
    /// A host under this name.
    pub fn new(name: &str, address: Option<IpAddr>) -> Self {
        let mut name = harmless(name);
        name.truncate(HOST_NAME_MAX_BYTES);
        Peer { name, address }
    }
}

/// How far an attempt had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// Looking for hosts.
    Route,
    /// Connecting.
    Connect,
    /// The server's first line.
    Greeting,
    /// EHLO or HELO.
    Hello,
    /// STARTTLS, or TLS itself.
    Tls,
    /// The login at a smart host.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// The message, up to its final dot.
    Message,
    /// The answer to the final dot.
    FinalDot,
    /// RSET, or between two transactions.
    Between,
    /// The queue decided, without a server.
    Queue,
}

/// Who gave the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// The server.
    Reply {
        /// Its code.
        code: u16,
        /// Its text, with the enhanced code that it has if it has one; harmless and of at most [`crate::reply::REPLY_TEXT_MAX_BYTES`].
        text: String,
    },
    /// We did, in a sentence of at most [`crate::reply::REPLY_TEXT_MAX_BYTES`].
    Us(String),
}

/// Why something became what it became.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The server, if one was found.
    pub peer: Option<Peer>,
    /// The reason in words.
    pub said: Said,
    /// The reason as a number, of the outcome's class.
    pub enhanced: EnhancedCode,
    /// How far it had come.
    pub phase: Phase,
}

impl Diagnosis {
    /// A reason of our own.
    pub fn ours(peer: Option<&Peer>, phase: Phase, enhanced: EnhancedCode, sentence: &str) -> Self {
        Diagnosis { peer: peer.cloned(), said: Said::Us(harmless(sentence)), enhanced, phase }
    }

    /// What a server said. A reply without an enhanced code gets the one that its code and the phase stand for. Of what it says
    /// to a login the codes alone are told: there are servers that repeat what they were told.
    pub fn of_reply(peer: &Peer, phase: Phase, reply: &Reply) -> Self {
        let enhanced = reply.enhanced().unwrap_or_else(|| stands_for(reply.code, phase));
        let text = match (phase, reply.enhanced()) {
            (Phase::Auth, Some(enhanced)) => format!("{enhanced} {NO_LOGIN}"),
            (Phase::Auth, None) => NO_LOGIN.to_owned(),
            _ => reply.text(),
        };
        let said = Said::Reply { code: reply.code, text };
        Diagnosis { peer: Some(peer.clone()), said, enhanced, phase }
    }

    /// The same, and that it is our account there that is at fault.
    fn of_account(mut self) -> Self {
        match &mut self.said {
            Said::Reply { text, .. } if self.phase != Phase::Auth => {
                text.truncate(REPLY_TEXT_MAX_BYTES - 1 - NO_ACCOUNT.len());
                *text = format!("{text} {NO_ACCOUNT}").trim_start().to_owned();
            }
            Said::Reply { .. } | Said::Us(_) => {}
        }
        self
    }

    /// The same, as a reason for an outcome of another class.
    fn of_class(mut self, class: u8) -> Self {
        self.enhanced = self.enhanced.of_class(class);
        self
    }

    /// The reason in one line.
    pub fn sentence(&self) -> String {
        match &self.said {
            Said::Reply { code, text } => format!("{code} {text}"),
            Said::Us(sentence) => sentence.clone(),
        }
    }
}

/// Whether a server may have taken a message of which it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Certainty {
    /// It has not.
    NotSent,
    /// The connection was lost between the final dot and its answer: the recipient may have it twice in the end.
    PerhapsSent,
}

/// Whether the next server promises to report what becomes of a message (RFC 3461).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Onward {
    /// It has the extension DSN and was told what the sender wants.
    Reports,
    /// It has not: whoever asked for reports of success hears `relayed` from us (RFC 3461, section 5.2.2).
    ReportsNothing,
}

/// What came of an attempt for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// A server has taken it.
    Sent {
        /// Its reply.
        diagnosis: Diagnosis,
        /// Whether it reports.
        onward: Onward,
    },
    /// It is tried again later.
    Deferred {
        /// Why; its code is of class 4.
        diagnosis: Diagnosis,
        /// Whether it may have been taken.
        certainty: Certainty,
    },
    /// It is given up. Its code is of class 5.
    Failed(Diagnosis),
}

impl Outcome {
    /// Tried again later; nothing was sent.
    pub fn deferred(diagnosis: Diagnosis) -> Self {
        Outcome::Deferred { diagnosis: diagnosis.of_class(4), certainty: Certainty::NotSent }
    }

    /// Tried again later, though it may have been taken.
    pub fn perhaps_sent(diagnosis: Diagnosis) -> Self {
        Outcome::Deferred { diagnosis: diagnosis.of_class(4), certainty: Certainty::PerhapsSent }
    }

    /// Given up.
    pub fn failed(diagnosis: Diagnosis) -> Self {
        Outcome::Failed(diagnosis.of_class(5))
    }

    /// Why.
    pub fn diagnosis(&self) -> &Diagnosis {
        match self {
            Outcome::Sent { diagnosis, .. } | Outcome::Deferred { diagnosis, .. } | Outcome::Failed(diagnosis) => {
                diagnosis
            }
        }
    }
}

/// What is to be done about one recipient after an attempt at one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handover {
    /// This is the outcome.
    Decided(Outcome),
    /// Another host of the route may take it now; if none is left, this is the outcome.
    OtherHost(Outcome),
    /// The same host takes it in another transaction, at once, over another connection if this one was closed. If that can't
    /// be, this is the outcome.
    AnotherTransaction(Outcome),
}

impl Handover {
    /// The outcome, if nothing more is done now.
    pub fn outcome(&self) -> &Outcome {
        match self {
            Handover::Decided(outcome) | Handover::OtherHost(outcome) | Handover::AnotherTransaction(outcome) => {
                outcome
            }
        }
    }
}

/// Who refuses, and whether that was said under TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuser {
    /// A server that takes mail for a domain from anybody.
    Public {
        /// Under TLS.
        secured: bool,
    },
    /// The smart host.
    SmartHost {
        /// Under TLS.
        secured: bool,
    },
}

impl Refuser {
    /// Whether it was said under TLS.
    pub fn is_secured(self) -> bool {
        match self {
            Refuser::Public { secured } | Refuser::SmartHost { secured } => secured,
        }
    }
}

/// What a refusal means, by its code, by what it answers and by who says it.
///
/// The first digit decides (RFC 5321, section 4.2.1), but for what practice knows better:
/// * a server that refuses everybody at its greeting or HELO has a bad day, or we have one: its message waits, and another
///   host may take it. Only 521 says of itself that it is meant for ever (RFC 7504);
/// * a login that fails is our configuration's fault, which somebody mends while mail waits. So is a smart host's wish for a
///   login, for another one or for a stronger one (RFC 4954, section 6), whenever it says so;
/// * 530 in clear wants TLS, which comes again next time;
/// * 552 for a recipient is the 452 of RFC 821 (RFC 5321, section 4.5.3.1.10), unless it says what else is wrong;
/// * 421 may come at any time and is about the server.
pub fn of_refusal(peer: &Peer, phase: Phase, reply: &Reply, refuser: Refuser) -> Handover {
    let diagnosis = Diagnosis::of_reply(peer, phase, reply);
    let never = reply.severity() == Severity::Never;
    if reply.code == 421 {
        return Handover::OtherHost(Outcome::deferred(diagnosis));
    }
    if matches!(refuser, Refuser::SmartHost { .. }) && matches!(reply.code, 530 | 534 | 535 | 538) {
        return Handover::OtherHost(Outcome::deferred(diagnosis.of_account()));
    }
    match phase {
        Phase::Greeting | Phase::Hello if matches!(reply.code, 521 | 556) => {
            Handover::OtherHost(Outcome::failed(diagnosis))
        }
        Phase::Route | Phase::Connect | Phase::Greeting | Phase::Hello | Phase::Tls | Phase::Auth | Phase::Between => {
            Handover::OtherHost(Outcome::deferred(diagnosis))
        }
        Phase::Mail | Phase::Rcpt | Phase::Data if reply.code == 530 && !refuser.is_secured() => {
            Handover::OtherHost(Outcome::deferred(diagnosis))
        }
        Phase::Rcpt if is_crowded(reply) => Handover::Decided(Outcome::deferred(diagnosis)),
        Phase::Mail | Phase::Rcpt | Phase::Data | Phase::Message | Phase::FinalDot | Phase::Queue if never => {
            Handover::Decided(Outcome::failed(diagnosis))
        }
        // What is about the mailbox, or a policy such as greylisting, is so at its other hosts.
        Phase::Rcpt if matches!(diagnosis.enhanced.subject, 2 | 7) => Handover::Decided(Outcome::deferred(diagnosis)),
        Phase::Mail | Phase::Rcpt | Phase::Data => Handover::OtherHost(Outcome::deferred(diagnosis)),
        Phase::Message | Phase::FinalDot | Phase::Queue => Handover::Decided(Outcome::deferred(diagnosis)),
    }
}

/// Whether a reply to RCPT says that the transaction has too many recipients, or may say so.
pub fn is_crowded(reply: &Reply) -> bool {
    let about_this = |code: EnhancedCode| matches!((code.subject, code.detail), (5, 3) | (3, 0..=2) | (0, 0));
    matches!(reply.code, 452 | 552) && reply.enhanced().is_none_or(about_this)
}

/// The enhanced code that a code without one stands for.
fn stands_for(code: u16, phase: Phase) -> EnhancedCode {
    let class = match code / 100 {
        3 => 2,
        class => class as u8,
    };
    let (subject, detail) = match (code, phase) {
        (421, _) => (3, 2),
        (450 | 550, Phase::Rcpt) => (1, 1),
        (551, _) => (1, 6),
        (553, Phase::Rcpt) => (1, 3),
        (553, Phase::Mail) => (1, 7),
        (452, Phase::Rcpt) => (5, 3),
        (452, _) => (3, 1),
        (552, Phase::Rcpt) => (2, 2),
        (552, _) => (3, 4),
        (530 | 534 | 535 | 538, _) | (454, Phase::Tls | Phase::Auth) => (7, 0),
        (521, _) => (3, 2),
        (556, _) => (1, 10),
        (500 | 502, _) => (5, 1),
        (501 | 504 | 555, _) => (5, 4),
        (503, _) => (5, 1),
        _ => (0, 0),
    };
    EnhancedCode::new(class, subject, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer::new("mx.b.test", None)
    }

    const CLEAR: Refuser = Refuser::Public { secured: false };

    fn reply(text: &str) -> Reply {
        Reply { code: text[..3].parse().unwrap(), lines: vec![text[4..].to_owned()] }
    }

    /// In short.
    fn told(handover: &Handover) -> String {
        let (next, outcome) = match handover {
            Handover::Decided(outcome) => ("", outcome),
            Handover::OtherHost(outcome) => ("other host, else ", outcome),
            Handover::AnotherTransaction(outcome) => ("another transaction, else ", outcome),
        };
        let word = match outcome {
            Outcome::Sent { .. } => "sent",
            Outcome::Deferred { certainty: Certainty::NotSent, .. } => "deferred",
            Outcome::Deferred { certainty: Certainty::PerhapsSent, .. } => "perhaps sent",
            Outcome::Failed(_) => "failed",
        };
        format!("{next}{word} {}", outcome.diagnosis().enhanced)
    }

    #[test]
    fn a_refusal_means_what_its_code_and_its_phase_say() {
        for (phase, said, meant) in [
            (Phase::Greeting, "554 no", "other host, else deferred 4.0.0"),
            (Phase::Greeting, "421 busy", "other host, else deferred 4.3.2"),
            (Phase::Greeting, "521 no mail here", "other host, else failed 5.3.2"),
            (Phase::Hello, "550 5.7.1 who are you", "other host, else deferred 4.7.1"),
            (Phase::Tls, "454 no", "other host, else deferred 4.7.0"),
            (Phase::Auth, "535 5.7.8 no", "other host, else deferred 4.7.8"),
            (Phase::Mail, "550 5.7.1 no", "failed 5.7.1"),
            (Phase::Mail, "451 4.3.0 no", "other host, else deferred 4.3.0"),
            (Phase::Mail, "452 full", "other host, else deferred 4.3.1"),
            (Phase::Mail, "530 5.7.0 Must issue a STARTTLS command first", "other host, else deferred 4.7.0"),
            (Phase::Rcpt, "550 no", "failed 5.1.1"),
            (Phase::Rcpt, "556 no", "failed 5.1.10"),
            (Phase::Rcpt, "450 4.7.1 greylisted", "deferred 4.7.1"),
            (Phase::Rcpt, "451 4.7.1 greylisted", "deferred 4.7.1"),
            (Phase::Rcpt, "452 4.2.2 full", "deferred 4.2.2"),
            (Phase::Rcpt, "452 4.5.3 too many", "deferred 4.5.3"),
            (Phase::Rcpt, "552 too many", "deferred 4.2.2"),
            (Phase::Rcpt, "552 5.5.3 too many", "deferred 4.5.3"),
            (Phase::Rcpt, "552 5.2.2 full", "failed 5.2.2"),
            (Phase::Rcpt, "451 4.3.0 no", "other host, else deferred 4.3.0"),
            (Phase::Rcpt, "421 4.7.0 too much", "other host, else deferred 4.7.0"),
            (Phase::Data, "554 no", "failed 5.0.0"),
            (Phase::Data, "451 no", "other host, else deferred 4.0.0"),
            (Phase::FinalDot, "552 too big", "failed 5.3.4"),
            (Phase::FinalDot, "554 5.7.1 spam", "failed 5.7.1"),
            (Phase::FinalDot, "451 4.7.1 later", "deferred 4.7.1"),
            (Phase::FinalDot, "421 4.3.2 going down", "other host, else deferred 4.3.2"),
        ] {
            assert_eq!(told(&of_refusal(&peer(), phase, &reply(said), CLEAR)), meant, "{phase:?} {said}");
        }
        let secured = of_refusal(&peer(), Phase::Mail, &reply("530 5.7.0 log in"), Refuser::Public { secured: true });
        assert_eq!(told(&secured), "failed 5.7.0");
    }

    #[test]
    fn a_smart_host_that_wants_another_login_is_mended_while_mail_waits() {
        let phases = [
            Phase::Greeting,
            Phase::Hello,
            Phase::Tls,
            Phase::Auth,
            Phase::Mail,
            Phase::Rcpt,
            Phase::Data,
            Phase::Message,
            Phase::FinalDot,
            Phase::Between,
        ];
        for (phase, secured) in phases.into_iter().flat_map(|phase| [(phase, true), (phase, false)]) {
            for said in
                ["530 5.7.0 log in", "534 5.7.9 too weak", "535 5.7.8 no", "538 5.7.11 TLS first", "535 ", "530 no"]
            {
                let refused = of_refusal(&peer(), phase, &reply(said), Refuser::SmartHost { secured });
                assert!(told(&refused).starts_with("other host, else deferred 4.7."), "{phase:?} {said}: {refused:?}");
                let sentence = refused.outcome().diagnosis().sentence();
                assert!(
                    sentence.starts_with(&said[..4]) && sentence.contains("look at our account there"),
                    "{sentence}"
                );
            }
            let long = format!("530 {}", "x".repeat(1_000));
            let refused = of_refusal(&peer(), phase, &reply(&long), Refuser::SmartHost { secured });
            let sentence = refused.outcome().diagnosis().sentence();
            assert!(sentence.ends_with(')') && sentence.len() <= REPLY_TEXT_MAX_BYTES + 4, "{sentence}");
        }
        // What it says of a recipient or a message is as another server's.
        for (phase, said) in [(Phase::Rcpt, "550 5.1.1 no"), (Phase::FinalDot, "554 5.7.1 spam")] {
            let refused = of_refusal(&peer(), phase, &reply(said), Refuser::SmartHost { secured: true });
            assert!(told(&refused).starts_with("failed "), "{refused:?}");
        }
    }

    #[test]
    fn what_a_server_says_to_a_login_is_told_by_its_codes_alone() {
        for (said, begins) in
            [("535 5.7.8 AUTH PLAIN AG1h", "535 5.7.8 ("), ("500 AUTH PLAIN AG1h", "500 ("), ("421 AG1h", "421 (")]
        {
            let sentence = Diagnosis::of_reply(&peer(), Phase::Auth, &reply(said)).sentence();
            assert!(sentence.starts_with(begins) && !sentence.contains("AG1h"), "{sentence}");
        }
    }

    #[test]
    fn too_many_recipients_are_told_from_a_full_mailbox() {
        for (said, crowded) in [
            ("452 too many", true),
            ("452 4.5.3 too many", true),
            ("552 5.5.3 too many", true),
            ("452 4.3.1 no space", true),
            ("452 4.2.2 full", false),
            ("552 5.2.2 full", false),
            ("450 4.5.3 too many", false),
            ("552 5.7.1 no", false),
        ] {
            assert_eq!(is_crowded(&reply(said)), crowded, "{said}");
        }
    }

    #[test]
    fn a_diagnosis_is_bounded_whatever_is_said() {
        let address = IpAddr::from([0xfd00, 1, 2, 3, 4, 5, 6, 7_u16]);
        let host = Peer::new(&"h".repeat(10_000), Some(address));
        let said = Reply { code: 550, lines: vec![format!("5.999.999 {}", "x".repeat(10_000)); 20] };
        let diagnosis = Diagnosis::of_reply(&host, Phase::Queue, &said);
        let outcome = Outcome::Deferred { diagnosis, certainty: Certainty::PerhapsSent };
        let bytes = postcard::to_allocvec(&outcome).unwrap();
        assert!(bytes.len() > HOST_NAME_MAX_BYTES + REPLY_TEXT_MAX_BYTES && bytes.len() <= DIAGNOSIS_MAX_BYTES);
        assert_eq!(postcard::from_bytes::<Outcome>(&bytes).unwrap(), outcome);
    }
}
