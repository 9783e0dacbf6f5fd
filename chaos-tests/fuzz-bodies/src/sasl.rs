//! Logins: what a session asks about is what the client wrote, or nothing.

use std::io;
use std::time::Duration;

use data_encoding::BASE64;
use futures::executor::block_on;
use mailraft_protocol::{Engine, Failure, Out, Output, Refusal, Tls, Turn};
use mailraft_smtp::{Config, DeliveryAgent, Mailbox, Service, Session, Transaction, Verified};
use zeroize::Zeroizing;

/// Longer ones would not fit a line, in bytes.
const INPUT_MAX_BYTES: usize = 8_000;
const TLS: Tls = Tls { version: "TLS1_3", cipher: "TLS_AES_128_GCM_SHA256" };

/// Says the input as the one message of AUTH PLAIN (RFC 4616), and its base64: the credentials that are checked are those
/// that the message has.
pub fn sasl(input: &[u8]) {
    if input.len() > INPUT_MAX_BYTES {
        return;
    }
    if !input.iter().any(|b| b" \r\n".contains(b)) && input != b"*" {
        // The decoder takes several texts behind each other, each with its padding, for one.
        let message = BASE64.decode(input).ok().filter(|message| BASE64.encode(message).as_bytes() == input);
        assert_eq!(asked(input), message.as_deref().and_then(credentials));
    }
    let encoded = BASE64.encode(input);
    if !encoded.is_empty() {
        assert_eq!(asked(encoded.as_bytes()), credentials(input));
    }
    let Some((user, password)) = input.split_at_checked(input.len() / 2) else { return };
    let (user, password) = (BASE64.encode(user), BASE64.encode(password));
    let lines = format!("EHLO x\r\nAUTH LOGIN\r\n{user}\r\n{password}\r\n");
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let wanted = text(&input[..input.len() / 2]).filter(|user| !user.is_empty());
    assert_eq!(talk(lines.as_bytes()), wanted.zip(text(&input[input.len() / 2..])));
}

/// User and password of a message of PLAIN. Nobody acts for another.
fn credentials(message: &[u8]) -> Option<(String, String)> {
    let mut parts = std::str::from_utf8(message).ok()?.split('\0');
    let (authorise, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let is_one = parts.next().is_none() && !user.is_empty() && (authorise.is_empty() || authorise == user);
    is_one.then(|| (user.to_owned(), password.to_owned()))
}

/// What is asked where the client sends this behind AUTH PLAIN.
fn asked(initial: &[u8]) -> Option<(String, String)> {
    talk(&[b"EHLO x\r\nAUTH PLAIN\r\n", initial, b"\r\n"].concat())
}

fn talk(said: &[u8]) -> Option<(String, String)> {
    let config = Config {
        hostname: "mx.test".to_owned(),
        service: Service::Submission,
        max_message_bytes: 1_000,
        tls_available: true,
        reports: true,
        login_max: Duration::from_secs(120),
    };
    let mut session = Session::new(config, Some(TLS), Agent::default());
    for piece in said.chunks(1_000) {
        session.input(piece);
        let mut out = Out::new(Nowhere);
        while block_on(session.drive(&mut out)) == Turn::Again {}
    }
    session.into_agent().asked
}

struct Nowhere;

impl Output for Nowhere {
    async fn write(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Agent {
    asked: Option<(String, String)>,
}

impl DeliveryAgent for Agent {
    async fn authenticate(&mut self, user: &str, password: Zeroizing<String>) -> Result<String, Failure> {
        assert_eq!(self.asked, None, "one message asks once");
        self.asked = Some((user.to_owned(), password.as_str().to_owned()));
        Err(Refusal::WrongCredentials.into())
    }

    async fn check_sender(&mut self, _: &str, _: &Mailbox) -> Result<(), Failure> {
        Err(Refusal::NotOwnAddress.into())
    }

    async fn verify(&mut self, _: Option<&str>, _: &Mailbox) -> Result<Verified, Failure> {
        Err(Refusal::Unavailable.into())
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

    fn receive(&mut self, _: &[u8]) {}

    fn discard(&mut self) {}

    fn client_went_on(&mut self) {}

    async fn client_leaves(&mut self) {}

    async fn deliver(&mut self, _: Transaction) -> Result<String, Failure> {
        panic!("nobody is logged in")
    }
}
