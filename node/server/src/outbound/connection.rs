//! One connection to another server, with one message for some of its users: the socket and TLS around the client's engine.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use mailraft_outbound::client::{
    CONNECT_MAX, Client, Ending, Envelope, Lost, Role, Settings, Step, TlsUse, TransactionReport,
};
use mailraft_outbound::encode::Shape;
use mailraft_outbound::outcome::{Diagnosis, Handover, Outcome, Peer, Phase};
use mailraft_outbound::reply::EnhancedCode;
use mailraft_outbound::tls::hello::Hello;
use mailraft_outbound::tls::policy::{Authentication, Next, TlsFailure, TlsWanted, after};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::counting::{Counting, Ends};
use super::kept::{Connection, KeptConnections, Way};
use super::tls::{HandshakeError, OutboundTls};
use super::wire::{Io, READ_MAX_BYTES, too_long, within, write};

/// Until the message is wanted a connection takes no longer than this, however slowly a server speaks.
const BEFORE_MESSAGE_MAX: Duration = Duration::from_secs(3 * 60);
/// From then on, each time anew for each transaction, no longer than this.
const MESSAGE_MAX: Duration = Duration::from_secs(30 * 60);
/// Looking for a server of a domain that takes the message takes no longer than this, over all of its hosts and addresses.
const REACHING_MAX: Duration = Duration::from_secs(10 * 60);
/// One message to the servers of one domain takes no longer than this, whatever becomes of it.
const ATTEMPT_MAX: Duration = Duration::from_secs(2 * 60 * 60);
/// Transactions over one connection for one message: the rest of the recipients, where a server takes few at a time.
const TRANSACTIONS_MAX: usize = 20;

/// Where a connection goes, and how.
pub struct Target<'a> {
    /// The server's name.
    pub host: &'a str,
    /// Its address.
    pub address: SocketAddr,
    /// Our name.
    pub helo: &'a str,
    /// What TLS it has to have.
    pub wanted: &'a TlsWanted,
    /// What is looked at of its certificate and stops nothing.
    pub watched: Option<&'a Authentication>,
    /// Why TLS is wanted.
    pub because: &'a str,
    /// TLS comes before the greeting.
    pub implicit_tls: bool,
    /// What it is to us, and who we are to it.
    pub role: Role,
    /// Under what its sessions are counted for a report; None where they are not.
    pub counting: Option<Counting<'a>>,
}

impl Target<'_> {
    /// What a connection that was made for it serves.
    fn way(&self) -> Way {
        Way {
            host: self.host.to_owned(),
            address: self.address,
            helo: self.helo.to_owned(),
            wanted: self.wanted.clone(),
            implicit_tls: self.implicit_tls,
            login: self.role.credentials().map(|of| (of.user.clone(), Sha256::digest(of.password.as_bytes()).into())),
        }
    }
}

/// The message as a connection needs it.
pub trait Outgoing: Sync {
    /// Its next piece; None at its end.
    ///
    /// # Errors
    /// In words, if it can't be had now.
    fn piece(&mut self) -> impl Future<Output = Result<Option<Bytes>, String>> + Send;

    /// From the first piece on again.
    fn rewind(&mut self);

    /// As it is, from the next rewinding on.
    fn as_it_is(&mut self);

    /// In its 7-bit form, from the next rewinding on; what that looks like, or why there is none.
    ///
    /// # Errors
    /// In words, if it can't be had now.
    fn in_seven_bits(&mut self) -> impl Future<Output = Result<Result<Shape, String>, String>> + Send;

    /// Whether it may still be sent, asked when all but the final dot was.
    ///
    /// # Errors
    /// In words, if it may not.
    fn may_be_sent(&mut self) -> impl Future<Output = Result<(), String>> + Send;
}

/// How a connection ended for those that it was for.
enum Ended {
    /// These, in the order of the envelope.
    Decided(Vec<Handover>),
    /// Once more to the same address, like this.
    Again { hello: Hello, in_clear: bool },
    /// It had been kept, and was dead: once more over a new one.
    Stale,
}

/// How long an attempt may still take, over all its connections.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until a server wants the message.
    reaching: Duration,
    /// In all.
    ends: Instant,
}

impl Patience {
    /// Of an attempt that begins now.
    pub fn new() -> Self {
        Patience { reaching: REACHING_MAX, ends: Instant::now() + ATTEMPT_MAX }
    }

    /// Whether nothing more is begun.
    pub fn is_over(&self) -> bool {
        self.reaching.is_zero() || Instant::now() >= self.ends
    }

    /// Until when a connection may go on before the message is wanted.
    fn before_message(&self) -> Instant {
        (Instant::now() + BEFORE_MESSAGE_MAX.min(self.reaching)).min(self.ends)
    }

    /// Until when a message that is begun now may go on.
    fn message(&self) -> Instant {
        (Instant::now() + MESSAGE_MAX).min(self.ends)
    }

    /// So long was spent before a message was wanted.
    fn spend(&mut self, since: Instant) {
        self.reaching = self.reaching.saturating_sub(since.elapsed());
    }
}

/// What connections share.
pub struct Shared<'a> {
    /// TLS.
    pub tls: &'a OutboundTls,
    /// Connections of earlier messages.
    pub kept: &'a KeptConnections,
}

/// Hands a message over for these recipients. What became of each, in their order.
pub async fn hand_over<M: Outgoing + Send>(
    shared: &Shared<'_>,
    target: &Target<'_>,
    envelope: &Envelope,
    message: &mut M,
    patience: &mut Patience,
    now_s: u64,
) -> Vec<Handover> {
    let tls = shared.tls;
    let first = tls.first_hello(target.host, now_s);
    let (mut hello, mut in_clear) = (first, false);
    let mut kept = shared.kept.take(&target.way());
    // Over one that was kept, as it is, without ML-KEM, and without TLS.
    for _ in 0..4 {
        let connection = match kept.take() {
            // It was counted when it was made.
            Some(connection) => Ok((connection, None, true)),
            None => {
                let began = Instant::now();
                let made = connect(tls, target, envelope.recipients.len(), patience, (hello, in_clear)).await;
                patience.spend(began);
                // What is said in clear after TLS failed is the same session.
                made.map(|(connection, ends)| (connection, ends.filter(|_| !in_clear), false))
            }
        };
        let ended = match connection {
            Ok((connection, ends, was_kept)) => {
                let session = Session { counting: target.counting.zip(ends), was_kept, hello };
                converse(shared, target, envelope, message, patience, (connection, session)).await
            }
            Err(ended) => ended,
        };
        match ended {
            Ended::Stale => {}
            Ended::Decided(all) => {
                if hello != first && !in_clear {
                    tls.remember_small(target.host, now_s);
                }
                return all;
            }
            Ended::Again { hello: next, in_clear: clear } => (hello, in_clear) = (next, clear),
        }
    }
    let peer = peer(target);
    let why = "TLS could not be taken up, in whatever way it was tried";
    let diagnosis = Diagnosis::ours(Some(&peer), Phase::Tls, EnhancedCode::new(4, 7, 5), why);
    all_of(envelope, Handover::OtherHost(Outcome::deferred(diagnosis)))
}

fn peer(target: &Target<'_>) -> Peer {
    Peer::new(target.host, Some(target.address.ip()))
}

fn all_of(envelope: &Envelope, handover: Handover) -> Vec<Handover> {
    vec![handover; envelope.recipients.len()]
}

/// A new connection, as far as the server's greeting, and where its ends are.
async fn connect(
    tls: &OutboundTls,
    target: &Target<'_>,
    recipients: usize,
    patience: &Patience,
    (hello, in_clear): (Hello, bool),
) -> Result<(Connection, Option<Ends>), Ended> {
    let peer = peer(target);
    let lost = |why: String| {
        let diagnosis = Diagnosis::ours(Some(&peer), Phase::Connect, EnhancedCode::new(4, 4, 1), &why);
        Ended::Decided(vec![Handover::OtherHost(Outcome::deferred(diagnosis)); recipients])
    };
    let most = CONNECT_MAX.min(patience.before_message().saturating_duration_since(Instant::now()));
    let stream = match timeout(most, TcpStream::connect(target.address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(lost(format!("{} can't be reached: {error}", target.address))),
        Err(_) => return Err(lost(format!("{} did not answer within {most:?}", target.address))),
    };
    let _ = stream.set_nodelay(true);
    let ours = stream.local_addr().ok().map(|at| at.ip());
    let ends = Ends { ours, theirs: target.address.ip() };
    let mut io: Box<dyn Io> = Box::new(stream);
    let tls_use = match (target.implicit_tls, in_clear, target.wanted) {
        (true, ..) => TlsUse::Implicit,
        (false, true, _) => TlsUse::Never,
        (false, false, TlsWanted::Opportunistic) => TlsUse::Opportunistic,
        (false, false, TlsWanted::Encrypted | TlsWanted::Authenticated { .. }) => {
            TlsUse::Required { why: target.because.to_owned() }
        }
    };
    if target.implicit_tls {
        match tls.handshake(io, target.host, target.wanted, target.watched, hello).await {
            Ok(secured) => io = Box::new(secured.stream),
            Err(error) => return Err(of_handshake(target, error, hello).unwrap_or_else(lost)),
        }
    }
    let role = target.role.clone();
    let settings = Settings { helo: target.helo.to_owned(), peer: peer.clone(), tls: tls_use, role };
    Ok((Connection { client: Client::new(settings), io }, Some(ends)))
}

/// A connection as a session.
struct Session<'a> {
    /// Under what it is counted, once.
    counting: Option<(Counting<'a>, Ends)>,
    /// Whether it served an earlier message.
    was_kept: bool,
    /// With which hello its TLS begins.
    hello: Hello,
}

impl Session<'_> {
    /// Had no TLS that counts.
    fn failed(&mut self, failure: TlsFailure) {
        if let Some((counting, ends)) = self.counting.take() {
            counting.failed(ends, failure);
        }
    }
}

/// Talks with the server until everything is decided that can be over this connection.
async fn converse<M: Outgoing + Send>(
    shared: &Shared<'_>,
    target: &Target<'_>,
    envelope: &Envelope,
    message: &mut M,
    patience: &mut Patience,
    (Connection { mut client, mut io }, mut session): (Connection, Session<'_>),
) -> Ended {
    let (peer, hello, was_kept) = (peer(target), session.hello, session.was_kept);
    // What is still to be decided: the places of its recipients in the envelope.
    let mut open: Vec<usize> = (0..envelope.recipients.len()).collect();
    let mut decided: Vec<Option<Handover>> = vec![None; envelope.recipients.len()];
    let (mut under_way, mut transactions, mut mid) = (Vec::new(), 0, false);
    let (mut began, mut until) = (Some(Instant::now()), patience.before_message());
    loop {
        match client.step() {
            Step::Write(bytes) => write(&mut client, &mut io, &bytes, until).await,
            Step::Read => {
                let mut buffer = vec![0; client.room().min(READ_MAX_BYTES)];
                match timeout(within(&client, until), io.read(&mut buffer)).await {
                    Ok(Ok(0)) => client.lost(&Lost::Closed),
                    Ok(Ok(read)) => client.input(&buffer[..read]),
                    Ok(Err(error)) => client.lost(&Lost::Broken(error.to_string())),
                    Err(_) => client.lost(&too_long(until)),
                }
            }
            Step::StartTls => {
                match shared.tls.handshake(io, target.host, target.wanted, target.watched, hello).await {
                    Ok(secured) => {
                        if let Some((counting, ends)) = session.counting.take() {
                            counting.secured(ends, secured.watched.as_ref());
                        }
                        io = Box::new(secured.stream);
                        client.tls_started();
                    }
                    Err(error) => {
                        let (text, failure) = (error.text.clone(), error.failure);
                        let next = of_handshake(target, error, hello);
                        // With another first message it is one session yet.
                        if !matches!(next, Ok(Ended::Again { in_clear: false, .. })) {
                            session.failed(failure);
                        }
                        if let Ok(again) = next {
                            return again;
                        }
                        client.tls_failed(&text);
                        // The connection went with the handshake.
                        return match client.step() {
                            Step::Close(Ending::InClear(_)) => Ended::Again { hello, in_clear: true },
                            Step::Close(Ending::Failed(handover)) => Ended::Decided(all_of(envelope, handover)),
                            _ => {
                                let code = EnhancedCode::new(4, 4, 1);
                                let diagnosis = Diagnosis::ours(Some(&peer), Phase::Connect, code, &text);
                                Ended::Decided(all_of(envelope, Handover::OtherHost(Outcome::deferred(diagnosis))))
                            }
                        };
                    }
                }
            }
            Step::Message => {
                if !std::mem::replace(&mut mid, true) {
                    message.rewind();
                    began.take().into_iter().for_each(|began| patience.spend(began));
                    until = patience.message();
                }
                match message.piece().await {
                    Ok(Some(piece)) => {
                        let wire = client.piece(&piece);
                        write(&mut client, &mut io, &wire, until).await;
                    }
                    Ok(None) => client.message_ended(),
                    Err(why) => client.withdraw(&why),
                }
            }
            Step::BeforeFinalDot => match message.may_be_sent().await {
                Ok(()) => client.finish(),
                Err(why) => client.withdraw(&why),
            },
            Step::Done(report) => {
                mid = false;
                (began, until) = (Some(Instant::now()), patience.before_message());
                take(report, std::mem::take(&mut under_way), &mut open, &mut decided);
            }
            Step::Idle if session.counting.is_some() => {
                // It is so far, and not by TLS: that was not offered, or refused.
                session.failed(TlsFailure::NotOffered);
            }
            Step::Idle if open.is_empty() => {
                shared.kept.keep(target.way(), Connection { client, io });
                // All of them were in some transaction.
                return Ended::Decided(decided.into_iter().flatten().collect());
            }
            Step::Idle if transactions >= TRANSACTIONS_MAX => client.quit(),
            Step::Idle => {
                transactions += 1;
                under_way = std::mem::take(&mut open);
                let recipients = under_way.iter().map(|at| envelope.recipients[*at].clone()).collect();
                let mut of_these = Envelope { recipients, ..envelope.clone() };
                if let Err(why) = be_taken_by(&client, &mut of_these, message).await {
                    let diagnosis = Diagnosis::ours(Some(&peer), Phase::Mail, EnhancedCode::new(4, 3, 0), &why);
                    let deferred = Handover::Decided(Outcome::deferred(diagnosis));
                    std::mem::take(&mut under_way).into_iter().for_each(|at| decided[at] = Some(deferred.clone()));
                    continue;
                }
                client.begin(&of_these);
            }
            Step::Close(ending) => {
                if let Ending::Failed(handover) = &ending
                    && handover.outcome().diagnosis().phase == Phase::Tls
                {
                    session.failed(TlsFailure::NotOffered);
                }
                let _ = timeout(within(&client, until), io.shutdown()).await;
                began.take().into_iter().for_each(|began| patience.spend(began));
                let is_open = |one: &Option<Handover>| matches!(one, Some(Handover::AnotherTransaction(_)));
                if was_kept && transactions == 1 && decided.iter().all(is_open) {
                    return Ended::Stale;
                }
                let rest = match ending {
                    Ending::InClear(_) => return Ended::Again { hello, in_clear: true },
                    Ending::Failed(handover) => handover,
                    Ending::Over => {
                        let why = format!("{} ended the connection before it had answered", target.host);
                        let code = EnhancedCode::new(4, 4, 2);
                        let diagnosis = Diagnosis::ours(Some(&peer), Phase::Between, code, &why);
                        Handover::OtherHost(Outcome::deferred(diagnosis))
                    }
                };
                return Ended::Decided(decided.into_iter().map(|one| one.unwrap_or_else(|| rest.clone())).collect());
            }
        }
    }
}

/// Has the message in the form that this server takes, if it has one.
async fn be_taken_by<M: Outgoing + Send>(
    client: &Client,
    envelope: &mut Envelope,
    message: &mut M,
) -> Result<(), String> {
    message.as_it_is();
    if envelope.needs_seven_bit(client.capabilities()) {
        match message.in_seven_bits().await? {
            Ok(shape) => envelope.shape = shape,
            Err(why) => envelope.not_seven_bit = Some(why),
        }
    }
    Ok(())
}

/// Takes what came of a transaction for these recipients; some of them may be for another one over the same connection.
fn take(report: TransactionReport, of: Vec<usize>, open: &mut Vec<usize>, decided: &mut [Option<Handover>]) {
    for (at, handover) in of.into_iter().zip(report.recipients) {
        if matches!(handover, Handover::AnotherTransaction(_)) {
            open.push(at);
        }
        decided[at] = Some(handover);
    }
}

/// What is tried next after a handshake that failed, if something is; else why it failed.
fn of_handshake(target: &Target<'_>, error: HandshakeError, hello: Hello) -> Result<Ended, String> {
    match after(target.wanted, error.failure, hello) {
        Next::Again(hello) => Ok(Ended::Again { hello, in_clear: false }),
        Next::InClear if !target.implicit_tls => Ok(Ended::Again { hello, in_clear: true }),
        Next::InClear | Next::OtherServer => Err(error.text),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use mailraft_feedback::tls::SessionsOfDay;
    use mailraft_feedback::{DAY_SECONDS, Day, Reporter};
    use mailraft_outbound::client::Recipient;
    use mailraft_outbound::tls::policy::Decision;
    use mailraft_outbound::tls::report::AppliedPolicy;
    use tokio::io::AsyncBufReadExt;
    use tokio::net::TcpListener;

    use super::*;

    struct NoMessage;

    impl Outgoing for NoMessage {
        async fn piece(&mut self) -> Result<Option<Bytes>, String> {
            Err("nobody gets so far".to_owned())
        }

        fn rewind(&mut self) {}

        fn as_it_is(&mut self) {}

        async fn in_seven_bits(&mut self) -> Result<Result<Shape, String>, String> {
            Err("nobody gets so far".to_owned())
        }

        async fn may_be_sent(&mut self) -> Result<(), String> {
            Err("nobody gets so far".to_owned())
        }
    }

    /// A server that says this, a byte now and then for ever where it drips.
    async fn server(drips: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut goes_on = !drips || stream.write_all(b"220-").await.is_ok();
                    while goes_on {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        goes_on = !drips || stream.write_all(b"a").await.is_ok();
                    }
                });
            }
        });
        address
    }

    /// What a server does about TLS.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Offers {
        Nothing,
        /// STARTTLS, and then the connection ends.
        AndEnds,
        Tls,
    }

    /// A server that takes every command, and each connection for as long as it lasts.
    async fn polite(offers: Offers) -> SocketAddr {
        let made = rcgen::generate_simple_self_signed(["mx.b.test".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config.unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut io = tokio::io::BufReader::new(Box::new(stream) as Box<dyn Io>);
                    let mut greets = io.write_all(b"220 b.test\r\n").await.is_ok();
                    while greets {
                        let mut line = String::new();
                        if io.read_line(&mut line).await.is_ok_and(|read| read == 0) {
                            return;
                        }
                        let reply: &[u8] = match line.trim_end() {
                            "STARTTLS" => {
                                io.write_all(b"220 go on\r\n").await.unwrap();
                                if offers == Offers::AndEnds {
                                    return;
                                }
                                let secured = acceptor.accept(io.into_inner()).await.unwrap();
                                io = tokio::io::BufReader::new(Box::new(secured) as Box<dyn Io>);
                                continue;
                            }
                            "DATA" => b"354 go on\r\n",
                            line if line.starts_with("EHLO") && offers != Offers::Nothing => {
                                b"250-b.test\r\n250 STARTTLS\r\n"
                            }
                            _ => b"250 b.test\r\n",
                        };
                        greets = io.write_all(reply).await.is_ok();
                    }
                });
            }
        });
        address
    }

    /// What is told of an attempt at a server: sessions that were as they are to be, failed ones, and the JSON.
    async fn told(offers: Offers, wanted: TlsWanted) -> (u64, u64, String) {
        let dir = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicU64::new(0));
        let key = mailraft_storage::seal::Key::from_bytes([1; 32]);
        let file = crate::counted::CountsFile::new(dir.path(), mailraft_storage::ClusterId([1; 16]), key);
        let (clock, switches) = (Arc::clone(&now), crate::config::Reports { tls: true, ..Default::default() });
        let counted = crate::counted::Counted::new(&switches, file, move || clock.load(Ordering::Relaxed));
        let decision = Decision {
            wanted: wanted.clone(),
            watched: None,
            needs_requiretls: false,
            counted_as: AppliedPolicy::NoPolicy,
            flaw: None,
            because: String::new(),
        };
        let (tls, kept) = (OutboundTls::new(Vec::new()), KeptConnections::new(1));
        let target = Target {
            host: "mx.b.test",
            address: polite(offers).await,
            helo: "mx.here.test",
            wanted: &wanted,
            watched: None,
            because: "a test wants it",
            implicit_tls: false,
            role: Role::Public,
            counting: Some(Counting { counted: &counted, domain: "b.test", host: "mx.b.test", decision: &decision }),
        };
        hand_over(&Shared { tls: &tls, kept: &kept }, &target, &envelope(), &mut NoMessage, &mut Patience::new(), 0)
            .await;
        now.store(DAY_SECONDS, Ordering::Relaxed);
        let question =
            crate::counted::FeedbackQuestion::Parts { what: crate::counted::What::Sessions, day: 0, from: 0 };
        let mut day: SessionsOfDay = Day::new(0);
        let crate::counted::FeedbackAnswer::Parts { parts, .. } = counted.answer(question).await else {
            panic!("the day is over");
        };
        parts.iter().for_each(|part| day.merge(Day::decode(part).unwrap()).unwrap());
        let reporter = Reporter::new("A", "a.test", "a@a.test", "a@a.test").unwrap();
        let json = day.report("b.test", &reporter).map(|report| report.json().to_vec()).unwrap_or_default();
        let json = String::from_utf8(json).unwrap();
        let number = |name: &str| {
            let digits = json.split(&format!("\"{name}\":")).nth(1).unwrap_or_default();
            digits.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default().parse().unwrap_or_default()
        };
        (number("total-successful-session-count"), number("total-failure-session-count"), json)
    }

    #[tokio::test]
    async fn a_session_is_counted_once_by_what_became_of_its_tls() {
        for (offers, wanted, counted, kind) in [
            (Offers::Tls, TlsWanted::Opportunistic, (1, 0), ""),
            (Offers::Tls, TlsWanted::Encrypted, (1, 0), ""),
            (Offers::Nothing, TlsWanted::Opportunistic, (0, 1), "starttls-not-supported"),
            (Offers::Nothing, TlsWanted::Encrypted, (0, 1), "starttls-not-supported"),
            // With another first message, and then in clear: that is one session.
            (Offers::AndEnds, TlsWanted::Opportunistic, (0, 1), "validation-failure"),
            (Offers::AndEnds, TlsWanted::Encrypted, (0, 1), "validation-failure"),
        ] {
            let (well, badly, json) = told(offers, wanted.clone()).await;
            assert_eq!((well, badly), counted, "{offers:?} {wanted:?}: {json}");
            assert!(json.contains(kind) && json.contains("\"no-policy-found\""), "{offers:?} {wanted:?}: {json}");
            assert!(badly == 0 || json.contains("\"receiving-mx-hostname\":\"mx.b.test\""), "{json}");
        }
    }

    fn envelope() -> Envelope {
        let recipients = vec![Recipient { address: "r@b.test".to_owned(), notify: None, orcpt: None }];
        Envelope {
            reverse_path: String::new(),
            recipients,
            shape: Shape::default(),
            not_seven_bit: None,
            utf8_header: false,
            require_tls: false,
            ret: None,
            envid: None,
        }
    }

    #[tokio::test]
    async fn servers_that_never_get_to_the_point_are_left_when_the_time_is_over() {
        let (tls, kept) = (OutboundTls::new(Vec::new()), KeptConnections::new(1));
        let shared = Shared { tls: &tls, kept: &kept };
        let envelope = envelope();
        for drips in [false, true] {
            let address = server(drips).await;
            let target = Target {
                host: "mx.b.test",
                address,
                helo: "mx.here.test",
                wanted: &TlsWanted::Opportunistic,
                watched: None,
                because: "",
                implicit_tls: false,
                role: Role::Public,
                counting: None,
            };
            let mut patience = Patience { reaching: Duration::from_millis(300), ends: Instant::now() + ATTEMPT_MAX };
            let came = hand_over(&shared, &target, &envelope, &mut NoMessage, &mut patience, 0).await;
            assert!(matches!(came.as_slice(), [Handover::OtherHost(Outcome::Deferred { .. })]), "{came:?}");
            assert_eq!(came[0].outcome().diagnosis().phase, Phase::Greeting);
            assert!(patience.is_over(), "another server is not even begun with");
        }
    }
}
