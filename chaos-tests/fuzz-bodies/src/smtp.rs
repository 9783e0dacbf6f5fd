//! SMTP and submission: a whole session.

use std::io;
use std::time::Duration;

use futures::executor::block_on;
use mailraft_protocol::{Engine, Failure, Out, Output, Refusal, Tls, Turn};
use mailraft_smtp::{Config, DeliveryAgent, Mailbox, REPLY_LINE_MAX_BYTES, Service, Session, Transaction, Verified};
use zeroize::Zeroizing;

/// The longest message that the session takes, in bytes.
const MESSAGE_MAX_BYTES: u64 = 2_000;
const TLS: Tls = Tls { version: "TLS1_3", cipher: "TLS_AES_128_GCM_SHA256" };

/// Says the input to a session, whose first byte chooses the service: as one piece and byte by byte, and hears the same.
/// Each reply is one or more lines of three digits, and no message that is taken has a bare CR or LF.
pub fn dialogue(input: &[u8]) {
    let Some((first, said)) = input.split_first() else { return };
    let service = if first % 2 == 0 { Service::Relay } else { Service::Submission };
    let tls = first & 2 != 0;
    let (heard, taken) = talk(service, tls, said, usize::MAX);
    assert_eq!((&heard, &taken), (&talk(service, tls, said, 1).0, &talk(service, tls, said, 7).1), "in pieces");
    check_replies(&heard);
    for message in taken {
        check_line_ends(&message);
        assert!(message.len() as u64 <= MESSAGE_MAX_BYTES, "a message of {} bytes", message.len());
    }
}

fn check_replies(heard: &[u8]) {
    let text = std::str::from_utf8(heard).expect("replies are text");
    assert!(text.is_empty() || text.ends_with("\r\n"));
    for line in text.split_terminator("\r\n") {
        let code = line.as_bytes().get(..3).expect("a reply has a code");
        assert!(code.iter().all(u8::is_ascii_digit) && matches!(line.as_bytes().get(3), Some(b' ' | b'-')), "{line:?}");
        assert!(line.len() + 2 <= REPLY_LINE_MAX_BYTES && !line.chars().any(char::is_control), "{line:?}");
    }
}

fn check_line_ends(message: &[u8]) {
    for (at, byte) in message.iter().enumerate() {
        match byte {
            b'\r' => assert_eq!(message.get(at + 1), Some(&b'\n'), "a bare CR"),
            b'\n' => assert_eq!(at.checked_sub(1).map(|before| message[before]), Some(b'\r'), "a bare LF"),
            _ => {}
        }
    }
}

/// What is heard, and the messages that were taken.
fn talk(service: Service, tls: bool, said: &[u8], piece_bytes: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let config = Config {
        hostname: "mx.test".to_owned(),
        service,
        max_message_bytes: MESSAGE_MAX_BYTES,
        tls_available: true,
        reports: true,
        login_max: Duration::from_secs(120),
    };
    let mut session = Session::new(config, tls.then_some(TLS), Agent::default());
    let mut heard = Heard(session.greeting());
    let mut rest = said;
    while !rest.is_empty() {
        let room = session.room();
        assert!(room > 0, "a session that waits for input takes some");
        let (piece, later) = rest.split_at(piece_bytes.min(room).min(rest.len()));
        session.input(piece);
        rest = later;
        let mut out = Out::new(&mut heard);
        let turn = loop {
            match block_on(session.drive(&mut out)) {
                Turn::Again => block_on(out.pass_on()),
                // What came in clear behind it is dropped, so how it is cut makes a difference: the talk ends here.
                turn => break turn,
            }
        };
        block_on(out.flush()).expect("memory takes all");
        if !matches!(turn, Turn::NeedInput | Turn::Idle) {
            break;
        }
    }
    (heard.0, session.into_agent().taken)
}

struct Heard(Vec<u8>);

impl Output for Heard {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[derive(Default)]
struct Agent {
    coming: Vec<u8>,
    taken: Vec<Vec<u8>>,
}

impl DeliveryAgent for Agent {
    async fn check_sender(&mut self, _: &str, path: &Mailbox) -> Result<(), Failure> {
        if path.local == "alice" { Ok(()) } else { Err(Refusal::NotOwnAddress.into()) }
    }

    async fn verify(&mut self, _: Option<&str>, address: &Mailbox) -> Result<Verified, Failure> {
        match address.local.as_str() {
            "nobody" => Err(Refusal::NoSuchAddress(address.to_string()).into()),
            local => Ok(Verified::Mailboxes { mailboxes: vec![[local.len() as u8; 16]], detail: None }),
        }
    }

    async fn authenticate(&mut self, user: &str, _: Zeroizing<String>) -> Result<String, Failure> {
        if user == "alice" { Ok(user.to_owned()) } else { Err(Refusal::WrongCredentials.into()) }
    }

    async fn check_quota(&mut self, _: [u8; 16], _: Option<u64>) -> Result<(), Failure> {
        Ok(())
    }

    fn has_room(&self) -> Result<(), Refusal> {
        Ok(())
    }

    fn begin_message(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.coming.extend_from_slice(bytes);
    }

    fn discard(&mut self) {
        self.coming.clear();
    }

    fn client_went_on(&mut self) {}

    async fn client_leaves(&mut self) {}

    async fn deliver(&mut self, transaction: Transaction) -> Result<String, Failure> {
        assert!(!transaction.recipients.is_empty(), "a message has a recipient");
        assert!(!transaction.destinations.is_empty(), "a recipient stands for a mailbox");
        self.taken.push(std::mem::take(&mut self.coming));
        Ok("id=1".to_owned())
    }
}
