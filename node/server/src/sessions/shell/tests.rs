//! The shell around an engine that does what a test needs.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mailraft_protocol::{OUTPUT_FLUSH_BYTES, Patience, Tls};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::DuplexStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::*;
use crate::places::{Bounds, Places, Share};

const NAME: &str = "mail.example.test";
/// What a connection holds that nobody reads, in bytes.
const PIPE_BYTES: usize = 1_000;
/// A response longer than anything that may wait for a client, in bytes.
const FLOOD_BYTES: usize = 64 << 20;
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(30);
const PACE: Pace = Pace { bytes_per_second: 1_000_000, message_max: LONG };

/// Takes lines of 100 bytes at most: STARTTLS, IDLE, FLOOD, QUIT, and others that it says again.
struct Lines {
    input: Vec<u8>,
    patience: Patience,
    tls: Option<Tls>,
    closing: bool,
    idles: bool,
    keepalive: Option<Duration>,
    news: Arc<Notify>,
    flooded: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Lines {
    fn new(idle: Duration, total: Option<Duration>) -> Self {
        Lines {
            input: Vec::new(),
            patience: Patience { idle, total, in_message: false },
            tls: None,
            closing: false,
            idles: false,
            keepalive: None,
            news: Arc::default(),
            flooded: Arc::default(),
            ended: Arc::default(),
        }
    }
}

impl Engine for Lines {
    fn greeting(&self) -> Vec<u8> {
        b"hello\r\n".to_vec()
    }

    fn farewell(&self, why: Farewell) -> Vec<u8> {
        format!("bye {why:?}\r\n").into_bytes()
    }

    fn patience(&self) -> Patience {
        self.patience
    }

    fn room(&self) -> usize {
        100 - self.input.len()
    }

    fn input(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room());
        self.input.extend_from_slice(bytes);
    }

    async fn drive<O: Output>(&mut self, out: &mut Out<O>) -> Turn {
        if self.closing {
            return Turn::Close;
        }
        let Some(end) = self.input.windows(2).position(|w| w == b"\r\n") else {
            return if self.idles { Turn::Idle } else { Turn::NeedInput };
        };
        let line: Vec<u8> = self.input.drain(..end + 2).collect();
        self.idles = false;
        match &line[..end] {
            b"STARTTLS" => {
                out.line("begin");
                return Turn::StartTls;
            }
            b"IDLE" => self.idles = true,
            b"FLOOD" => {
                while self.flooded.load(Ordering::Relaxed) < FLOOD_BYTES && !out.is_gone() {
                    out.line(&"x".repeat(998));
                    self.flooded.fetch_add(1_000, Ordering::Relaxed);
                    out.pass_on().await;
                }
            }
            b"MESSAGE" => self.patience.in_message = true,
            b"QUIT" => self.closing = true,
            _ => out.bytes.extend_from_slice(&line),
        }
        Turn::Again
    }

    async fn wait_for_news(&mut self) {
        self.news.notified().await;
    }

    fn keepalive(&self) -> Option<(Duration, &'static str)> {
        self.keepalive.map(|every| (every, "still here"))
    }

    async fn tell<O: Output>(&mut self, out: &mut Out<O>) -> Turn {
        out.line("news");
        if self.idles { Turn::Idle } else { Turn::NeedInput }
    }

    async fn ended(&mut self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    fn tls_started(&mut self, tls: Tls) {
        self.input.clear();
        self.tls = Some(tls);
    }
}

struct Client {
    wire: DuplexStream,
    stop: watch::Sender<bool>,
    session: JoinHandle<io::Result<()>>,
    connector: TlsConnector,
}

impl Client {
    fn connect(engine: Lines) -> Client {
        let (shell, stop, connector) = shell();
        let (wire, far) = tokio::io::duplex(PIPE_BYTES);
        let session = tokio::spawn(async move { shell.serve(engine, far).await });
        Client { wire, stop, session, connector }
    }

    async fn say(&mut self, text: &str) {
        self.wire.write_all(text.as_bytes()).await.unwrap();
    }

    /// Everything up to the end of the session.
    async fn hear_all(&mut self) -> String {
        let mut heard = String::new();
        self.wire.read_to_string(&mut heard).await.unwrap();
        heard
    }
}

/// A shell with a certificate that the connector trusts.
fn shell() -> (Shell, watch::Sender<bool>, TlsConnector) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new([NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (stop, serving) = watch::channel(true);
    let shell = Shell {
        write_max: SHORT,
        pace_grace: SHORT,
        ..Shell::new(TlsAcceptor::from(Arc::new(server)), serving, PACE, None)
    };
    (shell, stop, TlsConnector::from(Arc::new(client)))
}

async fn line<C: Connection>(wire: &mut C) -> String {
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n") {
        heard.push(wire.read_u8().await.unwrap());
    }
    String::from_utf8(heard).unwrap()
}

#[tokio::test]
async fn what_comes_at_once_is_answered_in_order_and_the_engine_ends_it() {
    let mut client = Client::connect(Lines::new(LONG, None));
    client.say("a\r\nb\r\nQUIT\r\nc\r\n").await;
    assert_eq!(client.hear_all().await, "hello\r\na\r\nb\r\n");
    client.session.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_idles_hears_now_and_then_that_it_is_served_and_is_never_too_silent() {
    let mut client = Client::connect(Lines { keepalive: Some(SHORT), ..Lines::new(2 * SHORT, None) });
    client.say("IDLE\r\n").await;
    assert_eq!(line(&mut client.wire).await, "hello\r\n");
    for _ in 0..10 {
        assert_eq!(line(&mut client.wire).await, "still here\r\n");
    }
    // Outside IDLE it is told nothing, and leaves.
    client.say("over\r\n").await;
    let heard = client.hear_all().await.replace("still here\r\n", "");
    assert_eq!(heard, "over\r\nbye Silent\r\n");
    // Who takes nothing of it leaves too.
    let mut client = Client::connect(Lines { keepalive: Some(SHORT), ..Lines::new(LONG, None) });
    client.say("IDLE\r\n").await;
    assert!(client.session.await.unwrap().is_err());
}

#[tokio::test]
async fn an_engine_hears_once_that_its_session_has_ended_whoever_ended_it() {
    for (said, idle, stops) in [("QUIT\r\n", LONG, false), ("", SHORT, false), ("", LONG, true), ("half", LONG, false)]
    {
        let engine = Lines::new(idle, None);
        let ended = Arc::clone(&engine.ended);
        let mut client = Client::connect(engine);
        client.say(said).await;
        assert_eq!(line(&mut client.wire).await, "hello\r\n");
        client.stop.send_replace(!stops);
        if said == "half" {
            drop(client.wire);
        }
        client.session.await.unwrap().unwrap();
        assert_eq!(ended.load(Ordering::Relaxed), 1, "{said:?}");
    }
}

#[tokio::test]
async fn input_is_read_only_as_there_is_room_for_it() {
    let client = Client::connect(Lines::new(LONG, None));
    let lines: String = (0..90).map(|n| format!("line {n}\r\n")).collect();
    let (mut near, mut far) = tokio::io::split(client.wire);
    let said = lines.clone() + "QUIT\r\n";
    let saying = tokio::spawn(async move { far.write_all(said.as_bytes()).await });
    let mut heard = String::new();
    near.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, format!("hello\r\n{lines}"));
    saying.await.unwrap().unwrap();
    client.session.await.unwrap().unwrap();
}

#[tokio::test]
async fn nothing_that_came_in_clear_survives_starttls() {
    let mut client = Client::connect(Lines::new(LONG, None));
    client.say("STARTTLS\r\ninjected\r\n").await;
    assert_eq!(line(&mut client.wire).await, "hello\r\n");
    assert_eq!(line(&mut client.wire).await, "begin\r\n");
    let name = ServerName::try_from(NAME).unwrap();
    let mut wire = client.connector.connect(name, client.wire).await.unwrap();
    wire.write_all(b"under tls\r\nQUIT\r\n").await.unwrap();
    let mut heard = String::new();
    wire.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "under tls\r\n");
    client.session.await.unwrap().unwrap();
}

#[tokio::test]
async fn one_line_in_clear_behind_the_answer_to_starttls_ends_the_session() {
    let mut client = Client::connect(Lines::new(LONG, None));
    client.say("STARTTLS\r\n").await;
    assert_eq!(line(&mut client.wire).await, "hello\r\n");
    assert_eq!(line(&mut client.wire).await, "begin\r\n");
    client.say("in clear\r\n").await;
    assert_eq!(client.session.await.unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_silent_client_is_told_so() {
    let mut client = Client::connect(Lines::new(SHORT, None));
    assert_eq!(client.hear_all().await, "hello\r\nbye Silent\r\n");
    client.session.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_keeps_a_session_for_too_long_is_told_so_however_much_it_says() {
    let client = Client::connect(Lines::new(LONG, Some(SHORT)));
    let (mut near, mut far) = tokio::io::split(client.wire);
    let saying = tokio::spawn(async move { while far.write_all(b"a\r\n").await.is_ok() {} });
    let mut heard = String::new();
    near.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("hello\r\na\r\n") && heard.ends_with("a\r\nbye TooLong\r\n"), "{heard:.100}");
    drop(near);
    client.session.await.unwrap().unwrap();
    saying.await.unwrap();
}

/// What a client hears that says this again and again.
async fn heard_by_who_drips(engine: Lines, first: &str, drop: &'static [u8]) -> String {
    let mut client = Client::connect(engine);
    client.say(first).await;
    let (mut near, mut far) = tokio::io::split(client.wire);
    let dripping = tokio::spawn(async move {
        while far.write_all(drop).await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
    });
    let mut heard = String::new();
    near.read_to_string(&mut heard).await.unwrap();
    std::mem::drop(near);
    client.session.await.unwrap().unwrap();
    dripping.await.unwrap();
    heard
}

#[tokio::test]
async fn who_sends_a_byte_now_and_then_is_as_silent_as_who_sends_none() {
    let heard = heard_by_who_drips(Lines::new(SHORT, None), "", b"a").await;
    assert_eq!(heard, "hello\r\nbye Silent\r\n");
}

#[tokio::test]
async fn a_message_that_drips_is_given_up() {
    let heard = heard_by_who_drips(Lines::new(LONG, None), "MESSAGE\r\n", b"a\r\n").await;
    assert!(heard.ends_with("a\r\nbye TooSlow\r\n"), "{heard:.200}");
}

#[tokio::test]
async fn a_session_that_gives_way_hears_why_also_in_its_handshake() {
    let bounds = Bounds {
        sessions: 9,
        sessions_per_address: 9,
        strangers_percent: 100,
        strangers_per_address: 1,
        messages: 1,
        messages_per_address: 1,
    };
    let places = Places::default();
    let enter = || places.enter(Share::Imap, [127, 0, 0, 1].into(), &bounds);
    let (shell, _stop, _) = shell();
    let (mut near, far) = tokio::io::duplex(PIPE_BYTES);
    let (mut near_too, far_too) = tokio::io::duplex(PIPE_BYTES);
    let first = Shell { place: enter(), ..shell.clone() };
    let session = tokio::spawn(async move { first.serve(Lines::new(LONG, None), far).await });
    assert_eq!(line(&mut near).await, "hello\r\n");
    let mut second = None;
    while second.is_none() {
        tokio::time::sleep(SHORT).await;
        second = enter();
    }
    assert_eq!(line(&mut near).await, "bye TooManySessions\r\n");
    session.await.unwrap().unwrap();
    let second = Shell { place: second, ..shell };
    let handshake = tokio::spawn(async move { second.handshake(far_too).await.map(drop) });
    let mut third = None;
    while third.is_none() {
        tokio::time::sleep(SHORT).await;
        third = enter();
    }
    assert!(handshake.await.unwrap().is_err());
    assert_eq!(near_too.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_node_that_shuts_down_says_so() {
    let mut client = Client::connect(Lines::new(LONG, None));
    client.say("a\r\n").await;
    assert_eq!(line(&mut client.wire).await, "hello\r\n");
    assert_eq!(line(&mut client.wire).await, "a\r\n");
    client.stop.send(false).unwrap();
    assert_eq!(client.hear_all().await, "bye ShuttingDown\r\n");
    client.session.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_its_own_session_and_nothing_piles_up() {
    let engine = Lines::new(LONG, None);
    let flooded = Arc::clone(&engine.flooded);
    let mut client = Client::connect(engine);
    client.say("FLOOD\r\n").await;
    assert_eq!(client.session.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!(flooded.load(Ordering::Relaxed) <= OUTPUT_FLUSH_BYTES + 2_000);
}

#[tokio::test]
async fn news_are_told_while_the_engine_idles_and_only_then() {
    let engine = Lines::new(LONG, None);
    let news = Arc::clone(&engine.news);
    let mut client = Client::connect(engine);
    news.notify_one();
    client.say("a\r\nIDLE\r\n").await;
    for expected in ["hello\r\n", "a\r\n", "news\r\n"] {
        assert_eq!(line(&mut client.wire).await, expected);
    }
    news.notify_one();
    assert_eq!(line(&mut client.wire).await, "news\r\n");
    client.say("b\r\nQUIT\r\n").await;
    assert_eq!(client.hear_all().await, "b\r\n");
    client.session.await.unwrap().unwrap();
}

#[tokio::test]
async fn one_too_many_hears_one_line() {
    let (mut near, far) = tokio::io::duplex(PIPE_BYTES);
    let (shell, _stop, _) = shell();
    shell.refuse(Lines::new(LONG, None), far, Farewell::TooManySessions).await.unwrap();
    let mut heard = String::new();
    near.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "bye TooManySessions\r\n");
}
