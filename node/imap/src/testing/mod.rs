//! A session that talks to a real mailbox.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::new_without_default
)]

mod store;

use std::io;
use std::time::Duration;

use futures::FutureExt;
use futures::executor::block_on;
use mailraft_mailbox::{Answer, Command};
use mailraft_protocol::{Engine, Out, Output, Tls, Turn};

pub use self::store::{TestStore, Unknown};
use crate::session::Session;
use crate::state::Config;

/// The longest message that APPEND takes.
pub const MESSAGE_MAX_BYTES: u64 = 1_000;
/// How often a session may have something to tell without anything new.
const TELLINGS_MAX: usize = 10;
const TLS: Tls = Tls { version: "TLS1_3", cipher: "TLS_AES_128_GCM_SHA256" };
const MESSAGE: &str = "From: A <a@b>\r\nSubject: first\r\nDate: Mon, 1 Jan 1996 00:00:00 +0000\r\nMessage-ID: <1@b>\r\n\r\nhello world\r\n";

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
    pub session: Session<TestStore>,
    pub heard: Heard,
    pub turn: Turn,
    /// How often TLS was taken up.
    pub handshakes: u32,
    /// How often compression began. Here nothing is compressed.
    pub compressions: u32,
}

impl Talk {
    /// INBOX has two messages, of which somebody has seen the first one come.
    pub fn new(tls: bool) -> Self {
        let config =
            Config { max_message_bytes: MESSAGE_MAX_BYTES, tls_available: true, login_max: Duration::from_secs(120) };
        let mut store = TestStore::new();
        store.deliver(MESSAGE);
        let claim = Command::Select { folder: "INBOX".into(), claim_recent: true };
        assert!(matches!(store.mailbox.others(claim), Answer::Selected(_)));
        store.deliver("Subject: second\r\n\r\nbye\r\n");
        let session = Session::new(config, tls.then_some(TLS), store);
        Talk { session, heard: Heard::default(), turn: Turn::NeedInput, handshakes: 0, compressions: 0 }
    }

    pub fn store(&mut self) -> &mut TestStore {
        &mut self.session.store
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
                    Turn::Compress => self.compressions += 1,
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

    /// What the shell does in IDLE when there is news.
    pub fn tell(&mut self) {
        let mut out = Out::new(&mut self.heard);
        self.turn = block_on(self.session.tell(&mut out));
        block_on(out.flush()).unwrap();
    }

    /// Whether the shell would have it tell something.
    pub fn wakes(&mut self) -> bool {
        self.session.wait_for_news().now_or_never().is_some()
    }

    /// Tells as long as there is something to tell.
    ///
    /// # Panics
    /// If that has no end.
    pub fn tell_all(&mut self) {
        for _ in 0..TELLINGS_MAX {
            if self.turn != Turn::Idle || !self.wakes() {
                return;
            }
            self.tell();
        }
        panic!("it is woken for ever");
    }

    /// What was heard since the last time.
    pub fn take_heard(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.heard.0)).into_owned()
    }
}

pub fn logged_in() -> Talk {
    let mut talk = Talk::new(true);
    talk.say(b"l LOGIN alice secret\r\n");
    assert!(talk.take_heard().starts_with("l OK [CAPABILITY IMAP4rev1 "));
    talk
}

pub fn selected() -> Talk {
    let mut talk = logged_in();
    talk.say(b"s SELECT INBOX\r\n");
    let heard = talk.take_heard();
    assert!(heard.contains("* 2 EXISTS\r\n* 1 RECENT\r\n") && heard.ends_with("s OK [READ-WRITE] SELECT done\r\n"));
    talk
}
