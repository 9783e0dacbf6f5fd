//! Connections between nodes: who may connect to whom, and for what.
//!
//! After the TLS handshake the connecting side sends a preamble and waits for an answer:
//!
//! ```text
//! preamble  "MLRF" ‖ version (1) ‖ kind (1) ‖ cluster (16) ‖ own node (8) ‖ the other node (8)
//! answer    version (1) ‖ 0, or a reason for refusing (1)
//! ```
//!
//! The answer is needed because a TLS 1.3 client hears of a refused certificate only when it reads.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use mailraft_storage::{ClusterId, NodeId};
use rustls_pki_types::CertificateDer;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::connections::{Connections, Standing};
pub(crate) use crate::purpose::Purpose;
pub use crate::purpose::StreamKind;
use crate::revoked::fingerprint;
use crate::tls::{self, PeerTls};

/// The version of preamble and answer.
pub(crate) const PREAMBLE_VERSION: u8 = 1;
/// How long TCP, TLS and the preamble may take together.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// An idle connection is probed after this time, and again after each further second.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(3);
/// A connection ends when sent bytes stay unacknowledged for this long.
const USER_TIMEOUT: Duration = Duration::from_secs(3);
const KEEPALIVE_PROBES: u32 = 3;

const MAGIC: &[u8; 4] = b"MLRF";
const PREAMBLE_BYTES: usize = 4 + 1 + 1 + 16 + 8 + 8;

/// A mutually authenticated, encrypted stream to another node.
pub struct PeerStream {
    inner: TlsStream<TcpStream>,
    /// Whether it has been ended from outside; none before the other node is known.
    standing: Option<Standing>,
    /// Its place among the connections that this node takes.
    place: Option<OwnedSemaphorePermit>,
}

impl PeerStream {
    fn new(inner: TlsStream<TcpStream>) -> Self {
        PeerStream { inner, standing: None, place: None }
    }

    /// From now on it can be ended from outside.
    ///
    /// # Errors
    /// If a certificate of the other end is revoked.
    fn stands(&mut self, me: &Identity, node: NodeId, purpose: Purpose) -> Result<(), ConnectionRefusal> {
        let certificates: Vec<_> = self.certificates().iter().map(fingerprint).collect();
        // It stands first: a list that comes meanwhile is looked at here, or finds it.
        self.standing = Some(me.connections.stands(node, purpose, certificates.clone()));
        if me.tls.revokes(&certificates) { Err(ConnectionRefusal::Revoked) } else { Ok(()) }
    }

    /// 32 bytes that only the two ends of this TLS session know, one value for each label (RFC 5705, RFC 8446 7.5).
    ///
    /// # Errors
    /// If the session gives none.
    pub fn session_secret(&self, label: &[u8]) -> io::Result<[u8; 32]> {
        let exported = match &self.inner {
            TlsStream::Client(tls) => tls.get_ref().1.export_keying_material([0; 32], label, None),
            TlsStream::Server(tls) => tls.get_ref().1.export_keying_material([0; 32], label, None),
        };
        exported.map_err(io::Error::other)
    }

    fn certificates(&self) -> &[CertificateDer<'static>] {
        self.inner.get_ref().1.peer_certificates().unwrap_or_default()
    }

    fn poll_reads(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.standing.as_mut().map_or(Ok(()), |standing| standing.poll_reads(cx))
    }

    fn poll_writes(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.standing.as_mut().map_or(Ok(()), |standing| standing.poll_writes(cx))
    }

    /// Keeps the place as long as the stream lives.
    pub(crate) fn holding(mut self, place: OwnedSemaphorePermit) -> Self {
        self.place = Some(place);
        self
    }
}

impl std::fmt::Debug for PeerStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerStream").field("accepted", &self.place.is_some()).finish_non_exhaustive()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_reads(cx)?;
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_writes(cx)?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_writes(cx)?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_writes(cx)?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// Why no stream to a node could be had.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The configuration names no such node.
    #[error("node {0} is not among this node's peers: add it to the configuration")]
    UnknownNode(NodeId),
    /// Nobody answered in time.
    #[error("node {node} at {address} did not answer within {} ms", CONNECT_TIMEOUT.as_millis())]
    Timeout {
        /// The node that was called.
        node: NodeId,
        /// The address at which it was called.
        address: String,
    },
    /// The network or TLS failed.
    #[error("can't connect to node {node} at {address}: {error}")]
    Io {
        /// The node that was called.
        node: NodeId,
        /// The address at which it was called.
        address: String,
        /// The system's or TLS's words.
        error: io::Error,
    },
    /// The other node doesn't want this connection.
    #[error("node {node} at {address} refused the connection: {reason}")]
    Refused {
        /// The node that was called.
        node: NodeId,
        /// The address at which it was called.
        address: String,
        /// The reason that it gave.
        reason: ConnectionRefusal,
    },
}

/// Why a node refuses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionRefusal {
    /// The preamble has another version.
    #[error("it speaks another version of the preamble")]
    Version,
    /// It does not know what the stream is for.
    #[error("it does not know this kind of stream")]
    Kind,
    /// It belongs to another cluster.
    #[error("it belongs to another cluster")]
    Cluster,
    /// It is another node than the one that was called.
    #[error("another node listens at this address")]
    OtherNode,
    /// The caller is not among its peers, or its certificate names another.
    #[error("it does not take this node for who it says it is")]
    Identity,
    /// It has too many connections, or is about to stop.
    #[error("it takes no more connections at present")]
    Busy,
    /// The certificate that was shown is revoked.
    #[error("the certificate of the other end is revoked (peer.revoked_file)")]
    Revoked,
    /// A reason that this version does not know.
    #[error("reason {0}")]
    Other(u8),
}

impl ConnectionRefusal {
    fn number(self) -> u8 {
        match self {
            ConnectionRefusal::Version => 1,
            ConnectionRefusal::Kind => 2,
            ConnectionRefusal::Cluster => 3,
            ConnectionRefusal::OtherNode => 4,
            ConnectionRefusal::Identity => 5,
            ConnectionRefusal::Busy => 6,
            ConnectionRefusal::Revoked => 7,
            ConnectionRefusal::Other(number) => number,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            1 => ConnectionRefusal::Version,
            2 => ConnectionRefusal::Kind,
            3 => ConnectionRefusal::Cluster,
            4 => ConnectionRefusal::OtherNode,
            5 => ConnectionRefusal::Identity,
            6 => ConnectionRefusal::Busy,
            7 => ConnectionRefusal::Revoked,
            other => ConnectionRefusal::Other(other),
        }
    }

    /// A word for a metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            ConnectionRefusal::Version => "version",
            ConnectionRefusal::Kind => "kind",
            ConnectionRefusal::Cluster => "cluster",
            ConnectionRefusal::OtherNode => "other_node",
            ConnectionRefusal::Identity => "identity",
            ConnectionRefusal::Busy => "busy",
            ConnectionRefusal::Revoked => "revoked",
            ConnectionRefusal::Other(_) => "other",
        }
    }
}

/// Who this node is on the wire.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) tls: PeerTls,
    /// Its connections to other nodes.
    pub(crate) connections: Connections,
}

/// Connects to a node; returns when it accepted the stream.
pub(crate) async fn connect(
    me: &Identity,
    node: NodeId,
    address: &str,
    purpose: Purpose,
) -> Result<PeerStream, DialError> {
    let io = |error| DialError::Io { node, address: address.to_owned(), error };
    let work = async {
        let tcp = TcpStream::connect(address).await.map_err(io)?;
        tune(&tcp).map_err(io)?;
        let name = tls::server_name(node, me.cluster).ok_or_else(|| io(io::Error::other("no name for the node")))?;
        let tls = TlsConnector::from(me.tls.client()).connect(name, tcp).await.map_err(io)?;
        let mut stream = PeerStream::new(TlsStream::Client(tls));
        stream.write_all(&preamble(me, node, purpose)).await.map_err(io)?;
        stream.flush().await.map_err(io)?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).await.map_err(io)?;
        match answer {
            [PREAMBLE_VERSION, 0] => stream.stands(me, node, purpose).map(|()| stream),
            [PREAMBLE_VERSION, number] => Err(ConnectionRefusal::from_number(number)),
            _ => Err(ConnectionRefusal::Version),
        }
        .map_err(|reason| DialError::Refused { node, address: address.to_owned(), reason })
    };
    match timeout(CONNECT_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err(DialError::Timeout { node, address: address.to_owned() }),
    }
}

/// What came of an incoming connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no handshake within {} ms", CONNECT_TIMEOUT.as_millis())]
    Timeout,
    #[error("refused: {0}")]
    Refused(ConnectionRefusal),
}

/// Takes an incoming connection as far as its accepted preamble; `known` says who is a peer.
pub(crate) async fn accept(
    me: &Identity,
    tcp: TcpStream,
    known: impl Fn(NodeId) -> bool,
) -> Result<(NodeId, Purpose, PeerStream), AcceptError> {
    let work = async {
        tune(&tcp)?;
        let tls = TlsAcceptor::from(me.tls.server()).accept(tcp).await?;
        let mut stream = PeerStream::new(TlsStream::Server(tls));
        let mut bytes = [0; PREAMBLE_BYTES];
        stream.read_exact(&mut bytes).await?;
        let certificate = stream.certificates().first();
        let is_node = |node| known(node) && certificate.is_some_and(|c| tls::is_node(c, node, me.cluster));
        let judged = judge(me, &bytes, is_node);
        let judged = judged.and_then(|(node, purpose)| {
            stream.stands(me, node, purpose)?;
            Ok((node, purpose))
        });
        let number = judged.as_ref().map_or_else(|refusal| refusal.number(), |_| 0);
        stream.write_all(&[PREAMBLE_VERSION, number]).await?;
        stream.flush().await?;
        match judged {
            Ok((node, purpose)) => Ok((node, purpose, stream)),
            Err(refusal) => {
                stream.shutdown().await?;
                Err(AcceptError::Refused(refusal))
            }
        }
    };
    timeout(CONNECT_TIMEOUT, work).await.unwrap_or(Err(AcceptError::Timeout))
}

fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(Duration::from_secs(1))
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

fn preamble(me: &Identity, to: NodeId, purpose: Purpose) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREAMBLE_BYTES);
    out.extend_from_slice(MAGIC);
    out.push(PREAMBLE_VERSION);
    out.push(purpose.number());
    out.extend_from_slice(&me.cluster.0);
    out.extend_from_slice(&me.node.0.to_be_bytes());
    out.extend_from_slice(&to.0.to_be_bytes());
    out
}

fn judge(
    me: &Identity,
    bytes: &[u8; PREAMBLE_BYTES],
    is_node: impl Fn(NodeId) -> bool,
) -> Result<(NodeId, Purpose), ConnectionRefusal> {
    let number = |at: usize| {
        let mut eight = [0; 8];
        eight.copy_from_slice(&bytes[at..at + 8]);
        NodeId(u64::from_be_bytes(eight))
    };
    let (from, to) = (number(22), number(30));
    if bytes[..4] != MAGIC[..] || bytes[4] != PREAMBLE_VERSION {
        return Err(ConnectionRefusal::Version);
    }
    if bytes[6..22] != me.cluster.0 {
        return Err(ConnectionRefusal::Cluster);
    }
    if to != me.node {
        return Err(ConnectionRefusal::OtherNode);
    }
    if from == me.node || !is_node(from) {
        return Err(ConnectionRefusal::Identity);
    }
    let purpose = Purpose::from_number(bytes[5]).ok_or(ConnectionRefusal::Kind)?;
    Ok((from, purpose))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pki::ClusterCa;

    fn identity(node: u64) -> Identity {
        let cluster = ClusterId([7; 16]);
        let ca = ClusterCa::create(cluster).unwrap();
        let issued = ca.issue_node(NodeId(node), cluster, &[]).unwrap();
        let tls = PeerTls::from_pem(ca.cert_pem().as_bytes(), issued.chain_pem.as_bytes(), issued.key_pem.as_bytes());
        Identity { node: NodeId(node), cluster, tls: tls.unwrap(), connections: Connections::default() }
    }

    #[test]
    fn a_preamble_is_judged_byte_by_byte() {
        let (one, two) = (identity(1), identity(2));
        let good: [u8; PREAMBLE_BYTES] =
            preamble(&one, NodeId(2), Purpose::User(StreamKind::Bodies)).try_into().unwrap();
        assert_eq!(judge(&two, &good, |n| n == NodeId(1)), Ok((NodeId(1), Purpose::User(StreamKind::Bodies))));
        assert_eq!(judge(&two, &good, |_| false), Err(ConnectionRefusal::Identity));
        for (at, refusal) in [
            (0, ConnectionRefusal::Version),
            (4, ConnectionRefusal::Version),
            (5, ConnectionRefusal::Kind),
            (6, ConnectionRefusal::Cluster),
            (22, ConnectionRefusal::Identity),
            (37, ConnectionRefusal::OtherNode),
        ] {
            let mut bad = good;
            bad[at] ^= 0x40;
            assert_eq!(judge(&two, &bad, |n| n == NodeId(1)), Err(refusal), "byte {at}");
        }
    }

    #[test]
    fn kinds_and_refusals_come_back_from_their_numbers() {
        for number in 0..=u8::MAX {
            if let Some(purpose) = Purpose::from_number(number) {
                assert_eq!(purpose.number(), number);
            }
            assert_eq!(ConnectionRefusal::from_number(number).number(), number);
        }
    }
}
