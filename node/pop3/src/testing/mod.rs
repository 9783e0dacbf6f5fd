//! A session that talks to a real mailbox.
#![allow(clippy::unwrap_used)]

use std::io;
use std::time::Duration;

use futures::executor::block_on;
use mailraft_mailbox::api::MaildropHolder;
use mailraft_mailbox::{Answer, Command};
use mailraft_protocol::{Engine, Failure, Mailbox, Out, Output, Refusal, Tls, Turn};
use mailraft_real_mailbox::{RealMailbox, Who};
use zeroize::Zeroizing;

use crate::maildrop::Maildrop;
use crate::session::Session;
use crate::state::Config;

pub const LOGIN_MAX: Duration = Duration::from_secs(120);
pub const TLS: Tls = Tls { version: "TLS1_3", cipher: "TLS_AES_128_GCM_SHA256" };
const CLIENT: MaildropHolder = MaildropHolder([1; 16]);
const ANOTHER: MaildropHolder = MaildropHolder([2; 16]);

/// What becomes of a change whose outcome is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It is done.
    Done,
    /// It is not done.
    NotDone,
}

/// A [`RealMailbox`] behind failures that a test asks for.
pub struct TestMaildrop {
    pub mailbox: RealMailbox,
    /// No majority answers.
    pub unavailable: bool,
    /// What becomes of changes whose outcome nobody learns.
    pub unknown: Option<Unknown>,
    /// So many questions are answered; those behind fail.
    pub answers: Option<usize>,
    /// Bodies that are asked for are no more.
    pub lost: bool,
    /// The mailbox was asked nothing for long.
    pub silent: bool,
    /// Turns that a command may need.
    pub breaths: usize,
    pub breaths_max: usize,
}

impl TestMaildrop {
    fn new() -> Self {
        TestMaildrop {
            mailbox: RealMailbox::new(),
            unavailable: false,
            unknown: None,
            answers: None,
            lost: false,
            silent: false,
            breaths: 0,
            breaths_max: usize::MAX,
        }
    }

    /// A message comes into INBOX.
    pub fn deliver(&mut self, message: &str) {
        self.mailbox.append("INBOX", message.as_bytes());
    }

    /// UIDs of INBOX.
    pub fn inbox(&mut self) -> Vec<u32> {
        match self.mailbox.others(Command::Select { folder: "INBOX".into(), claim_recent: false }) {
            Answer::Selected(selected) => selected.messages.into_iter().map(|m| m.uid).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Another session asks this in the maildrop.
    pub fn another(&mut self, command: Command) -> Result<Answer, mailraft_mailbox::Refusal> {
        self.mailbox.ask(Who::Another, Command::InMaildrop { holder: ANOTHER, command: Box::new(command) })
    }

    fn answer(&mut self, command: Command) -> Result<Answer, Failure> {
        self.silent = false;
        if self.unavailable || self.answers == Some(0) {
            return Err(Refusal::Unavailable.into());
        }
        self.answers = self.answers.map(|left| left - 1);
        let unknown = self.unknown.filter(|_| !command.is_read());
        if unknown == Some(Unknown::NotDone) {
            return Err(Failure::Unknown);
        }
        if self.lost && matches!(command, Command::ReadChunk { .. }) {
            return Ok(Answer::Chunk(None));
        }
        let command = Command::InMaildrop { holder: CLIENT, command: Box::new(command) };
        let answer = self.mailbox.ask(Who::Client, command);
        if unknown.is_some() {
            return Err(Failure::Unknown);
        }
        answer.map_err(|refusal| Refusal::from(refusal).into())
    }
}

impl Mailbox for TestMaildrop {
    async fn ask(&mut self, command: Command) -> Result<Answer, Failure> {
        self.answer(command)
    }
}

impl Maildrop for TestMaildrop {
    async fn login(&mut self, user: &str, password: Zeroizing<String>) -> Result<(), Failure> {
        let refusal = match (user, password.as_str()) {
            _ if self.unavailable => Refusal::Unavailable,
            ("alice", "secret") | ("bob", " two  words ") => return Ok(()),
            ("mallory", _) => Refusal::Throttled,
            _ => Refusal::WrongCredentials,
        };
        Err(refusal.into())
    }

    fn begin_command(&mut self) {
        self.breaths = 0;
    }

    async fn breathe(&mut self) -> Result<(), Refusal> {
        self.breaths += 1;
        if self.breaths > self.breaths_max { Err(Refusal::Limit("enough".into())) } else { Ok(()) }
    }

    fn is_silent(&self) -> bool {
        self.silent
    }

    async fn wait_for_another_owner(&mut self) {
        std::future::pending().await
    }

    async fn leave(&mut self) {
        let _ = self.answer(Command::Unselect);
    }
}

/// What the client heard, and the most bytes that came at once.
#[derive(Default)]
pub struct Heard(pub Vec<u8>, pub usize);

impl Output for Heard {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        self.1 = self.1.max(bytes.len());
        Ok(())
    }
}

pub struct Talk {
    pub session: Session<TestMaildrop>,
    pub heard: Heard,
    pub turn: Turn,
    /// How often TLS was taken up.
    pub handshakes: u32,
}

impl Talk {
    /// INBOX has two messages.
    pub fn new(tls: bool) -> Self {
        Talk::with_tls(tls, true)
    }

    pub fn with_tls(tls: bool, tls_available: bool) -> Self {
        let mut maildrop = TestMaildrop::new();
        maildrop.deliver("From: A <a@b>\r\nSubject: first\r\n\r\nhello world\r\n.\r\n..dots\r\nlast\r\n");
        maildrop.deliver("Subject: second\r\n\r\nno end");
        let session = Session::new(Config { tls_available, login_max: LOGIN_MAX }, tls.then_some(TLS), maildrop);
        Talk { session, heard: Heard::default(), turn: Turn::NeedInput, handshakes: 0 }
    }

    pub fn maildrop(&mut self) -> &mut TestMaildrop {
        &mut self.session.maildrop
    }

    pub fn say(&mut self, bytes: &[u8]) {
        self.say_in_pieces(bytes, 10_000);
    }

    /// Up to the end of the session.
    pub fn say_in_pieces(&mut self, bytes: &[u8], size: usize) {
        for piece in bytes.chunks(size) {
            if self.turn == Turn::Close {
                return;
            }
            self.session.input(piece);
            let mut out = Out::new(&mut self.heard);
            loop {
                self.turn = block_on(self.session.drive(&mut out));
                match self.turn {
                    Turn::Again => block_on(out.pass_on()),
                    Turn::Compress => panic!("POP3 has no compression"),
                    Turn::StartTls => {
                        self.handshakes += 1;
                        self.session.tls_started(TLS);
                    }
                    Turn::NeedInput | Turn::Idle | Turn::Close => break,
                }
            }
            block_on(out.flush()).unwrap();
        }
    }

    /// The mailbox has another owner, and the shell tells the engine, which says nothing unasked.
    pub fn fail_over(&mut self, meanwhile: impl FnOnce(&mut TestMaildrop)) {
        self.maildrop().mailbox.fail_over();
        meanwhile(self.maildrop());
        if self.turn == Turn::Idle {
            let mut out = Out::new(&mut self.heard);
            self.turn = block_on(self.session.tell(&mut out));
            assert_eq!(out.bytes, b"");
        }
    }

    /// What was heard since the last time.
    pub fn take_heard(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.heard.0)).into_owned()
    }
}

pub fn logged_in() -> Talk {
    let mut talk = Talk::new(true);
    talk.say(b"USER alice\r\nPASS secret\r\n");
    assert_eq!(talk.take_heard(), "+OK now the password\r\n+OK 2 messages (88 octets)\r\n");
    assert_eq!(talk.turn, Turn::Idle);
    talk
}
