//! Golden dialogues, one file a command: `C:` is a line that the client says, `R:` raw bytes of it with `\r`,
//! `\n`, `\0` and `\xNN` written so, `S:` what it hears, `E:` what the agent or the shell was told. `* service tls` begins a
//! new session, `#` a comment. The whole file must come out again.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::executor::block_on;
use mailraft_protocol::{Engine, Failure, Farewell, Out, Output, Refusal, Tls, Turn};
use zeroize::Zeroizing;

use crate::agent::{DeliveryAgent, Forward, Transaction, Verified};
use crate::parse::Mailbox;
use crate::session::Session;
use crate::state::{Config, Service};

const MESSAGE_MAX_BYTES: u64 = 100;
/// The mailbox that has no room.
const FULL: u8 = 9;
const LOGIN_MAX: Duration = Duration::from_secs(120);
const TLS: Tls = Tls { version: "TLS1_3", cipher: "TLS_AES_128_GCM_SHA256" };

/// A client and a scripted delivery agent.
pub struct Talk {
    pub session: Session<Script>,
    pub heard: Vec<u8>,
    pub log: Vec<String>,
    closed: bool,
}

/// An agent that knows a few names, and what happened there since it was last looked at.
#[derive(Default)]
pub struct Script {
    content: Vec<u8>,
    events: Vec<String>,
    /// Deliveries that were answered, and how many of them by what the client has gone on since.
    answered: (usize, usize),
    /// The client said that it ends the session.
    left: bool,
    /// No message is to come now.
    no_place: bool,
    /// There is no room for messages.
    full: bool,
}

impl DeliveryAgent for Script {
    async fn check_sender(&mut self, identity: &str, reverse_path: &Mailbox) -> Result<(), Failure> {
        Ok(sender(identity, &reverse_path.local)?)
    }

    async fn verify(&mut self, identity: Option<&str>, address: &Mailbox) -> Result<Verified, Failure> {
        match recipient(address) {
            Err(Refusal::NotOurDomain(_)) if identity.is_some() && address.domain != "nowhere.test" => {
                Ok(Verified::Outside)
            }
            found => Ok(found?),
        }
    }

    async fn check_quota(&mut self, mailbox: [u8; 16], announced_bytes: Option<u64>) -> Result<(), Failure> {
        let room = if mailbox[0] == FULL { 0 } else { 90 };
        if announced_bytes.unwrap_or(1) > room { Err(Refusal::OverQuota.into()) } else { Ok(()) }
    }

    async fn authenticate(&mut self, user: &str, password: Zeroizing<String>) -> Result<String, Failure> {
        Ok(login(user, &password)?)
    }

    fn has_room(&self) -> Result<(), Refusal> {
        if self.full { Err(Refusal::ServerFull) } else { Ok(()) }
    }

    fn begin_message(&mut self) -> Result<(), Refusal> {
        if self.no_place { Err(Refusal::Overloaded) } else { Ok(()) }
    }

    fn receive(&mut self, bytes: &[u8]) {
        assert!(!bytes.is_empty());
        self.content.extend_from_slice(bytes);
    }

    fn discard(&mut self) {
        self.content.clear();
        self.events.push("discard".to_owned());
    }

    fn client_went_on(&mut self) {
        self.answered.1 = self.answered.0;
    }

    async fn client_leaves(&mut self) {
        self.left = true;
    }

    async fn deliver(&mut self, mail: Transaction) -> Result<String, Failure> {
        let from = mail.reverse_path.map_or("<>".into(), |p| p.to_string());
        let to: Vec<String> = mail.recipients.iter().map(ToString::to_string).collect();
        let content = String::from_utf8_lossy(&std::mem::take(&mut self.content)).into_owned();
        let mut envelope = format!("{from} -> {} by {}", to.join(" "), mail.helo);
        for (is, word) in [
            (mail.extended, " esmtp"),
            (mail.tls.is_some(), " tls"),
            (mail.eight_bit, " 8bit"),
            (mail.requiretls, " requiretls"),
        ] {
            envelope.push_str(if is { word } else { "" });
        }
        if let Some(bytes) = mail.announced_bytes {
            envelope.push_str(&format!(" size={bytes}"));
        }
        if let Some(ret) = mail.ret {
            envelope.push_str(&format!(" ret={}", ret.as_str()));
        }
        if let Some(envid) = mail.envid {
            envelope.push_str(&format!(" envid={envid}"));
        }
        if let Some(identity) = mail.identity {
            envelope.push_str(&format!(" as {identity}"));
        }
        envelope.push_str(" to");
        for destination in mail.destinations {
            match destination.mailbox {
                Some(mailbox) => envelope.push_str(&format!(" {}", mailbox[0])),
                None => envelope.push_str(&format!(" outside:{}", destination.address)),
            }
            if let Some(detail) = destination.detail {
                envelope.push_str(&format!("+{detail}"));
            }
            if let Some(notify) = destination.asked.notify {
                envelope.push_str(&format!(" notify={notify}"));
            }
            if let Some(orcpt) = destination.asked.orcpt {
                envelope.push_str(&format!(" orcpt={orcpt}"));
            }
        }
        self.events.push(format!("{envelope}: {content:?}"));
        self.answered.0 += 1;
        delivery(from.split('@').next().unwrap_or_default())
    }
}

/// What a client is sent at once.
#[derive(Default)]
struct Heard(Vec<u8>);

impl Output for Heard {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

impl Talk {
    pub fn new(service: Service, tls: bool) -> Self {
        Talk::with(service, tls, &[])
    }

    /// Without what these words name: `no-tls`, `no-reports`.
    fn with(service: Service, tls: bool, words: &[&str]) -> Self {
        let config = Config {
            hostname: "mx.test".to_owned(),
            service,
            max_message_bytes: MESSAGE_MAX_BYTES,
            tls_available: !words.contains(&"no-tls"),
            reports: !words.contains(&"no-reports"),
            login_max: LOGIN_MAX,
        };
        let session = Session::new(config, tls.then_some(TLS), Script::default());
        let heard = session.greeting();
        Talk { session, heard, log: Vec::new(), closed: false }
    }

    /// Says bytes. Returns what is heard and logged, in order; `heard` and `log` have it since the start.
    pub fn say(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() && !self.closed {
            let (piece, later) = rest.split_at(self.session.room().min(rest.len()));
            self.session.input(piece);
            while self.drive(&mut lines) {}
            rest = later;
        }
        lines
    }

    /// Deliveries that were answered, and how many of them by what the client has gone on since.
    pub fn answered(&self) -> (usize, usize) {
        self.session.agent.answered
    }

    /// One turn; false if the session waits for input, or has ended.
    fn drive(&mut self, lines: &mut Vec<String>) -> bool {
        let mut out = Out::new(Heard::default());
        let turn = block_on(self.session.drive(&mut out));
        for event in std::mem::take(&mut self.session.agent.events) {
            self.event(&event, lines);
        }
        block_on(out.flush()).unwrap();
        self.hear(&out.into_output().0, lines);
        match turn {
            Turn::Again => {}
            Turn::NeedInput => assert!(self.session.room() > 0, "it waits for input that it has no room for"),
            Turn::Compress => panic!("SMTP has no compression"),
            Turn::StartTls => {
                self.event("tls", lines);
                self.session.tls_started(TLS);
            }
            Turn::Close => {
                self.closed = true;
                self.event("close", lines);
            }
            Turn::Idle => panic!("SMTP has nothing to tell unasked"),
        }
        matches!(turn, Turn::Again | Turn::StartTls)
    }

    fn hear(&mut self, out: &[u8], lines: &mut Vec<String>) {
        self.heard.extend_from_slice(out);
        let text = std::str::from_utf8(out).unwrap();
        assert!(text.is_empty() || text.ends_with("\r\n"), "half a line: {text:?}");
        lines.extend(text.split_terminator("\r\n").map(|line| format!("S: {line}").trim_end().to_owned()));
    }

    fn event(&mut self, text: &str, lines: &mut Vec<String>) {
        self.log.push(text.to_owned());
        lines.push(format!("E: {text}"));
    }
}

fn recipient(address: &Mailbox) -> Result<Verified, Refusal> {
    let (local, domain) = (address.local.as_str(), address.domain.as_str());
    match local {
        _ if domain != "here.test" && !domain.is_empty() => Err(Refusal::NotOurDomain(address.to_string())),
        "alice" | "alice+x" | "alice+y" | "postmaster" | "a b" => Ok(verified(&[1], local)),
        "bob" | "bob+z" => Ok(verified(&[2], local)),
        "carol" => Ok(verified(&[3], local)),
        "full" => Ok(verified(&[FULL], local)),
        "away" => Ok(forwarded(Vec::new(), "J.D")),
        "both" => Ok(forwarded(vec![[1; 16]], "x")),
        "rests" => Err(Refusal::ForwardingRests(address.to_string())),
        "SRS0=back" => Ok(Verified::Returned(outside("sender"))),
        "several" | "several+x" => Ok(verified(&[1, 3], local)),
        "crowd" => Ok(verified(&Vec::from_iter(10..110), local)),
        "crush" => Ok(verified(&Vec::from_iter(110..210), local)),
        "later" => Err(Refusal::Unavailable),
        "busy" => Err(Refusal::Overloaded),
        _ => Err(Refusal::NoSuchAddress(address.to_string())),
    }
}

fn outside(local: &str) -> Mailbox {
    Mailbox { local: local.to_owned(), domain: "away.test".to_owned() }
}

fn forwarded(mailboxes: Vec<[u8; 16]>, to: &str) -> Verified {
    let forward = Forward { to: outside(to), by: "list@here.test".to_owned() };
    Verified::Forwarded { mailboxes, outside: vec![forward], detail: None }
}

fn verified(numbers: &[u8], local: &str) -> Verified {
    let detail = local.split_once('+').map(|(_, detail)| detail.to_owned());
    Verified::Mailboxes { mailboxes: numbers.iter().map(|number| [*number; 16]).collect(), detail }
}

fn login(user: &str, password: &str) -> Result<String, Refusal> {
    match (user, password) {
        ("alice", "secret") => Ok("alice".into()),
        ("later", _) => Err(Refusal::Unavailable),
        ("again", _) => Err(Refusal::Throttled),
        _ => Err(Refusal::WrongCredentials),
    }
}

/// Whether this account may send from this local part.
fn sender(identity: &str, local: &str) -> Result<(), Refusal> {
    match local {
        "later" => Err(Refusal::Unavailable),
        local if local.split('+').next() == Some(identity) => Ok(()),
        _ => Err(Refusal::NotOwnAddress),
    }
}

/// What becomes of a message from this local part.
fn delivery(local: &str) -> Result<String, Failure> {
    let refusal = match local {
        "later" => return Err(Failure::Unknown),
        "busy" => Refusal::Overloaded,
        "full" => Refusal::OverQuota,
        "header" => Refusal::MessageTooMuch("the header is longer than 1024 KiB".to_owned()),
        "gone" => Refusal::NoSuchMailbox,
        "corrupt" => Refusal::Corrupt,
        "policy" => Refusal::Limit("no\r\n250 Ok".into()),
        _ => return Ok("id=7 at=1.1.9".into()),
    };
    Err(refusal.into())
}

fn unescaped(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (byte, length) = match escape.as_bytes()[0] {
            b'r' => (b'\r', 1),
            b'n' => (b'\n', 1),
            b'0' => (0, 1),
            b'x' => (u8::from_str_radix(&escape[1..3], 16).unwrap(), 3),
            other => panic!("\\{} is no escape", other as char),
        };
        bytes.push(byte);
        rest = &escape[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Runs a dialogue. Returns the file as it should be.
fn run(file: &str) -> String {
    let mut came: Vec<String> = Vec::new();
    let mut talk = None;
    for line in file.lines() {
        let (mark, text) = line.split_at_checked(2).unwrap_or((line, ""));
        let text = text.strip_prefix(' ').unwrap_or(text);
        match mark {
            "* " => {
                let words: Vec<&str> = text.split(' ').collect();
                let service = match words[0] {
                    "relay" => Service::Relay,
                    "submission" => Service::Submission,
                    "submissions" => Service::Submissions,
                    other => panic!("no service {other}"),
                };
                let new = Talk::with(service, words.contains(&"tls"), &words);
                came.push(line.to_owned());
                came.push(format!("S: {}", String::from_utf8_lossy(&new.heard).trim_end()));
                talk = Some(new);
            }
            "C:" | "R:" => {
                let talk: &mut Talk = talk.as_mut().unwrap();
                let bytes = if mark == "C:" { format!("{text}\r\n").into_bytes() } else { unescaped(text) };
                came.push(line.to_owned());
                came.extend(talk.say(&bytes));
            }
            "S:" | "E:" => {}
            _ => {
                assert!(line.is_empty() || line.starts_with('#'), "what is {line:?}?");
                came.push(line.to_owned());
            }
        }
    }
    came.join("\n") + "\n"
}

#[test]
fn where_there_is_no_place_for_a_message_it_is_refused_before_it_is_sent() {
    let mut talk = Talk::new(Service::Relay, false);
    talk.session.agent.no_place = true;
    talk.say(b"EHLO a\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<alice@here.test>\r\n");
    assert_eq!(talk.say(b"DATA\r\n"), ["S: 451 4.3.2 too busy; try again later"]);
    assert!(!talk.session.patience().in_message);
    talk.session.agent.no_place = false;
    let go_on = talk.say(b"DATA\r\n");
    assert!(go_on[0].starts_with("S: 354 ") && talk.session.patience().in_message, "{go_on:?}");
}

#[test]
fn a_server_whose_disk_is_full_says_so_before_anything_is_sent() {
    let mut talk = Talk::new(Service::Relay, false);
    talk.session.agent.full = true;
    talk.say(b"EHLO a\r\n");
    let full = "S: 452 4.3.1 this server's disk is nearly full, which is not about your mailbox; try again later";
    assert_eq!(talk.say(b"MAIL FROM:<a@b.test>\r\n"), [full]);
    talk.session.agent.full = false;
    assert_eq!(talk.say(b"MAIL FROM:<a@b.test>\r\n"), ["S: 250 2.1.0 Ok"]);
}

#[test]
fn a_mail_program_logs_in_soon_and_a_server_need_not() {
    let total = |service, say: &str| {
        let mut talk = Talk::new(service, true);
        talk.say(say.as_bytes());
        talk.session.patience().total
    };
    let log_in = "EHLO a\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n";
    assert_eq!(total(Service::Submissions, "EHLO a\r\n"), Some(LOGIN_MAX));
    assert!(total(Service::Submissions, log_in) > Some(LOGIN_MAX));
    assert!(total(Service::Relay, "EHLO a\r\n") > Some(LOGIN_MAX));
}

#[test]
fn every_dialogue_comes_out_as_it_is_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/commands");
    let files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut dialogues: Vec<PathBuf> = files.into_iter().filter(|f| f.extension().is_some_and(|e| e == "txt")).collect();
    dialogues.sort();
    assert!(dialogues.len() >= 14, "{dialogues:?}");
    for path in dialogues {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = std::fs::read_to_string(&path).unwrap();
        let came = run(&file);
        for (number, (is, should)) in came.lines().zip(file.lines()).enumerate() {
            assert_eq!(is, should, "line {} of {name}", number + 1);
        }
        assert_eq!(came, file, "{name}");
    }
}

#[test]
fn an_answer_counts_as_heard_when_more_comes_after_it() {
    let mut talk = Talk::new(Service::Relay, false);
    talk.say(b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<alice@here.test>\r\nDATA\r\nx\r\n.\r\n");
    assert_eq!(talk.answered(), (1, 0));
    talk.say(b"Q");
    assert_eq!((talk.answered(), talk.session.agent.left), ((1, 1), false));
    talk.say(b"UIT\r\n");
    assert!(talk.session.agent.left);
}

#[test]
fn the_challenge_without_text_keeps_its_space() {
    let mut talk = Talk::new(Service::Submissions, true);
    talk.say(b"EHLO x\r\nAUTH PLAIN\r\n");
    assert!(talk.heard.ends_with(b"\r\n334 \r\n"));
}

#[test]
fn last_lines() {
    let session = Talk::new(Service::Relay, false).session;
    for (why, line) in [
        (Farewell::Silent, "421 4.4.2 mx.test silent for too long\r\n"),
        (Farewell::TooLong, "421 4.4.2 mx.test the session took too long\r\n"),
        (Farewell::TooSlow, "421 4.4.2 mx.test the message comes too slowly\r\n"),
        (Farewell::Revoked, "421 4.7.0 mx.test the account has changed; log in again\r\n"),
        (Farewell::ShuttingDown, "421 4.3.2 mx.test shutting down; try again\r\n"),
        (Farewell::TooManySessions, "421 4.3.2 mx.test too many connections; try again later\r\n"),
    ] {
        assert_eq!(String::from_utf8_lossy(&session.farewell(why)), line);
    }
}

#[test]
fn a_long_line_has_its_bound_by_its_verb() {
    let long = |head: &str, bytes: usize| format!("{head}{}\r\n", "x".repeat(bytes - head.len() - 2));
    for (head, bound, fits) in [
        ("NOOP ", 512, "250 2.0.0 Ok\r\n"),
        ("mail FROM:<a@b> SIZE=", 1_630, "501 5.5.4 SIZE is a number\r\n"),
        ("rcpt TO:<a@b> NOTIFY=", 1_048, "503 5.5.1 say MAIL first\r\n"),
        ("AUTH PLAIN ", 12_288, "503 5.5.1 no logins on this port; use submission, 587 or 465\r\n"),
    ] {
        for (bytes, expected) in [(bound, fits), (bound + 1, "500 5.5.2 line too long\r\n")] {
            let mut talk = Talk::new(Service::Relay, false);
            talk.say(b"EHLO x\r\n");
            talk.heard.clear();
            talk.say(long(head, bytes).as_bytes());
            assert_eq!(String::from_utf8_lossy(&talk.heard), expected, "{head}{bytes}");
        }
    }
}

/// What follows a BDAT whose line can't be read may be a message, and no command in it is carried out.
#[test]
fn a_bdat_line_that_is_too_long_ends_the_session_however_it_is_cut() {
    let line = format!("bdat 6{}\r\n", " ".repeat(505));
    for piece in [1, 100, 511, 600] {
        let mut talk = Talk::new(Service::Relay, false);
        talk.say(b"EHLO x\r\n");
        talk.heard.clear();
        let said = [line.as_bytes(), b"NOOP\r\n"].concat();
        said.chunks(piece).for_each(|part| drop(talk.say(part)));
        assert_eq!(String::from_utf8_lossy(&talk.heard), "500 5.5.2 line too long\r\n", "in pieces of {piece}");
        assert_eq!(talk.log, ["close"]);
    }
}

#[test]
fn what_is_printed_of_a_session_is_no_secret() {
    let mut session = Talk::new(Service::Submissions, true).session;
    session.input(b"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n");
    let printed = format!("{session:?}");
    assert!(printed.contains("Input(33 bytes)") && !printed.contains("AGFs"), "{printed}");
}

#[test]
fn starttls_empties_the_input_both_before_and_after_the_shell_takes_it_up() {
    let mut session = Talk::new(Service::Submission, false).session;
    session.input(b"STARTTLS\r\nEHLO injected.test\r\n");
    let mut out = Out::new(Heard::default());
    assert_eq!(block_on(session.drive(&mut out)), Turn::StartTls);
    assert_eq!(session.room(), mailraft_protocol::INPUT_MAX_BYTES);
    out.bytes.clear();
    session.input(b"NOOP\r\n");
    session.tls_started(TLS);
    assert_eq!(block_on(session.drive(&mut out)), Turn::NeedInput);
    assert_eq!(out.bytes, b"");
}

#[test]
fn replies_to_commands_that_come_together_go_out_together() {
    let mut session = Talk::new(Service::Relay, false).session;
    session.input(b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<alice@here.test>\r\nDATA\r\n");
    let mut out = Out::new(Heard::default());
    while block_on(session.drive(&mut out)) == Turn::Again {}
    assert_eq!(out.output().0, b"");
    assert!(out.bytes.ends_with(b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 end with <CR><LF>.<CR><LF>\r\n"));
}
