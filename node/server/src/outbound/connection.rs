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
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::tls::{HandshakeError, OutboundTls};

/// What is read from a server at once, in bytes.
const READ_MAX_BYTES: usize = 4 << 10;
/// Until the message is wanted a connection takes no longer than this, however slowly a server speaks.
const BEFORE_MESSAGE_MAX: Duration = Duration::from_secs(3 * 60);
/// From then on, each time anew for each transaction, no longer than this.
const MESSAGE_MAX: Duration = Duration::from_secs(30 * 60);
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

/// A stream, with TLS or without.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// How a connection ended for those that it was for.
enum Ended {
    /// These, in the order of the envelope.
    Decided(Vec<Handover>),
    /// Once more to the same address, like this.
    Again { hello: Hello, in_clear: bool },
}

/// Hands a message over for these recipients. What became of each, in their order.
pub async fn hand_over<M: Outgoing + Send>(
    tls: &OutboundTls,
    target: &Target<'_>,
    envelope: &Envelope,
    message: &mut M,
    now_s: u64,
) -> Vec<Handover> {
    let first = tls.first_hello(target.host, now_s);
    let (mut hello, mut in_clear) = (first, false);
    // As it is, without ML-KEM, and without TLS.
    for _ in 0..3 {
        match connect(tls, target, envelope, message, (hello, in_clear)).await {
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

async fn connect<M: Outgoing + Send>(
    tls: &OutboundTls,
    target: &Target<'_>,
    envelope: &Envelope,
    message: &mut M,
    (hello, in_clear): (Hello, bool),
) -> Ended {
    let peer = peer(target);
    let lost = |why: String| {
        let diagnosis = Diagnosis::ours(Some(&peer), Phase::Connect, EnhancedCode::new(4, 4, 1), &why);
        Ended::Decided(all_of(envelope, Handover::OtherHost(Outcome::deferred(diagnosis))))
    };
    let stream = match timeout(CONNECT_MAX, TcpStream::connect(target.address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return lost(format!("{} can't be reached: {error}", target.address)),
        Err(_) => return lost(format!("{} did not answer within {CONNECT_MAX:?}", target.address)),
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
            Err(error) => return of_handshake(target, error, hello).unwrap_or_else(lost),
        }
    }
    let credentials = target.credentials.clone();
    let settings = Settings { helo: target.helo.to_owned(), peer: peer.clone(), tls: tls_use, credentials };
    let mut client = Client::new(settings);
    // What is still to be decided: the places of its recipients in the envelope.
    let mut open: Vec<usize> = (0..envelope.recipients.len()).collect();
    let mut decided: Vec<Option<Handover>> = vec![None; envelope.recipients.len()];
    let (mut under_way, mut transactions, mut mid) = (Vec::new(), 0, false);
    let mut until = Instant::now() + BEFORE_MESSAGE_MAX;
    loop {
        match client.step() {
            Step::Write(bytes) => write(&mut client, &mut io, &bytes).await,
            Step::Read => {
                let mut buffer = vec![0; client.room().min(READ_MAX_BYTES)];
                let left = until.saturating_duration_since(Instant::now());
                match timeout(client.deadline().min(left), io.read(&mut buffer)).await {
                    Ok(Ok(0)) => client.lost(&Lost::Closed),
                    Ok(Ok(read)) => client.input(&buffer[..read]),
                    Ok(Err(error)) => client.lost(&Lost::Broken(error.to_string())),
                    Err(_) => client.lost(&Lost::Silent),
                }
            }
            Step::StartTls => {
                match tls.handshake(io, target.host, target.wanted, target.watched, hello).await {
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
                            _ => lost(text),
                        };
                    }
                }
            }
            Step::Message => {
                if !std::mem::replace(&mut mid, true) {
                    message.rewind();
                    until = Instant::now() + MESSAGE_MAX;
                }
                match message.piece().await {
                    Ok(Some(piece)) => {
                        let wire = client.piece(&piece);
                        write(&mut client, &mut io, &wire).await;
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
                until = Instant::now() + BEFORE_MESSAGE_MAX;
                take(report, std::mem::take(&mut under_way), &mut open, &mut decided);
            }
            Step::Idle if open.is_empty() || transactions >= TRANSACTIONS_MAX => client.quit(),
            Step::Idle => {
                transactions += 1;
                under_way = std::mem::take(&mut open);
                let recipients = under_way.iter().map(|at| envelope.recipients[*at].clone()).collect();
                client.begin(&Envelope { recipients, ..envelope.clone() });
            }
            Step::Close(ending) => {
                let _ = io.shutdown().await;
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

async fn write(client: &mut Client, io: &mut Box<dyn Io>, bytes: &[u8]) {
    let written = async {
        io.write_all(bytes).await?;
        io.flush().await
    };
    let deadline: Duration = client.deadline();
    match timeout(deadline, written).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => client.lost(&Lost::Broken(error.to_string())),
        Err(_) => client.lost(&Lost::Silent),
    }
}
