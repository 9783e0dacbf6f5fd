//! One connection to another server, with one message for some of its users: the socket and TLS around the client's engine.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use mailraft_outbound::client::{
    CONNECT_MAX, Client, Ending, Envelope, Lost, Settings, Step, TlsUse, TransactionReport,
};
use mailraft_outbound::outcome::{Diagnosis, Handover, Outcome, Peer, Phase};
use mailraft_outbound::reply::EnhancedCode;
use mailraft_outbound::tls::hello::Hello;
use mailraft_outbound::tls::policy::{Authentication, Next, TlsWanted, after};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::kept::{Connection, KeptConnections, Way};
use super::tls::{HandshakeError, OutboundTls};
use super::wire::{Io, READ_MAX_BYTES, within, write};

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
    /// Who we are to it.
    pub credentials: Option<mailraft_outbound::client::Credentials>,
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
            user: self.credentials.as_ref().map(|of| of.user.clone()),
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
            Some(connection) => Ok((connection, true)),
            None => {
                let began = Instant::now();
                let made = connect(tls, target, envelope.recipients.len(), patience, (hello, in_clear)).await;
                patience.spend(began);
                made.map(|connection| (connection, false))
            }
        };
        let ended = match connection {
            Ok((connection, was_kept)) => {
                converse(shared, target, envelope, message, patience, (connection, was_kept, hello)).await
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

/// A new connection, as far as the server's greeting.
async fn connect(
    tls: &OutboundTls,
    target: &Target<'_>,
    recipients: usize,
    patience: &Patience,
    (hello, in_clear): (Hello, bool),
) -> Result<Connection, Ended> {
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
    let credentials = target.credentials.clone();
    let settings = Settings { helo: target.helo.to_owned(), peer: peer.clone(), tls: tls_use, credentials };
    Ok(Connection { client: Client::new(settings), io })
}

/// A connection, whether it was kept, and with which hello its TLS begins.
type Made = (Connection, bool, Hello);

/// Talks with the server until everything is decided that can be over this connection.
async fn converse<M: Outgoing + Send>(
    shared: &Shared<'_>,
    target: &Target<'_>,
    envelope: &Envelope,
    message: &mut M,
    patience: &mut Patience,
    (Connection { mut client, mut io }, was_kept, hello): Made,
) -> Ended {
    let peer = peer(target);
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
                    Err(_) => client.lost(&Lost::Silent),
                }
            }
            Step::StartTls => {
                match shared.tls.handshake(io, target.host, target.wanted, target.watched, hello).await {
                    Ok(secured) => {
                        io = Box::new(secured.stream);
                        client.tls_started();
                    }
                    Err(error) => {
                        let text = error.text.clone();
                        if let Ok(again) = of_handshake(target, error, hello) {
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
                client.begin(&Envelope { recipients, ..envelope.clone() });
            }
            Step::Close(ending) => {
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
    use mailraft_outbound::client::Recipient;
    use mailraft_outbound::encode::Shape;
    use tokio::net::TcpListener;

    use super::*;

    struct NoMessage;

    impl Outgoing for NoMessage {
        async fn piece(&mut self) -> Result<Option<Bytes>, String> {
            Err("nobody gets so far".to_owned())
        }

        fn rewind(&mut self) {}

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

    #[tokio::test]
    async fn servers_that_never_get_to_the_point_are_left_when_the_time_is_over() {
        let (tls, kept) = (OutboundTls::new(Vec::new()), KeptConnections::new(1));
        let shared = Shared { tls: &tls, kept: &kept };
        let recipients = vec![Recipient { address: "r@b.test".to_owned(), notify: None, orcpt: None }];
        let envelope = Envelope {
            reverse_path: String::new(),
            recipients,
            shape: Shape::default(),
            utf8_header: false,
            require_tls: false,
            ret: None,
            envid: None,
        };
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
                credentials: None,
            };
            let mut patience = Patience { reaching: Duration::from_millis(300), ends: Instant::now() + ATTEMPT_MAX };
            let came = hand_over(&shared, &target, &envelope, &mut NoMessage, &mut patience, 0).await;
            assert!(matches!(came.as_slice(), [Handover::OtherHost(Outcome::Deferred { .. })]), "{came:?}");
            assert_eq!(came[0].outcome().diagnosis().phase, Phase::Greeting);
            assert!(patience.is_over(), "another server is not even begun with");
        }
    }
}
