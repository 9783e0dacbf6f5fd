//! Connections that other nodes make to this one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mailraft_cluster::Input;
use mailraft_storage::NodeId;
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::fatal::Fatal;
use crate::inputs::Inputs;
use crate::metrics;
use crate::outgoing::Outgoing;
use crate::rarely::Rarely;
use crate::snapshot::Receiver;
use crate::stream::{self, AcceptError, Identity, PeerStream, Purpose, StreamKind};
use crate::wire::{self, FRAME_MAX_BYTES};

/// Bytes of one node's messages that wait for the core thread; then its connection is not read on.
const UNREAD_MAX_BYTES: usize = 4 * FRAME_MAX_BYTES;
/// How long the user of the driver has to take a stream.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(1);
/// After the system refused a connection (no file descriptors left, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that have not said who they are. Past these the oldest gives way, of the address that has most.
const HANDSHAKES_MAX: usize = 32;

/// Connections in their handshake, the oldest first.
#[derive(Clone, Default)]
struct Handshakes {
    table: Arc<Mutex<Vec<Handshake>>>,
}

struct Handshake {
    from: IpAddr,
    told_to_leave: oneshot::Sender<()>,
}

impl Handshakes {
    /// A place for one more, until the receiver is dropped; it hears when it is to give way.
    fn enter(&self, from: IpAddr) -> oneshot::Receiver<()> {
        let (told_to_leave, leave) = oneshot::channel();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|handshake| !handshake.told_to_leave.is_closed());
        table.push(Handshake { from, told_to_leave });
        if table.len() > HANDSHAKES_MAX {
            let of = |address: IpAddr| table.iter().filter(|other| other.from == address).count();
            // The first of those that are equal: the oldest. The newcomer counts, and is the last.
            let weights: Vec<usize> = table.iter().map(|handshake| of(handshake.from)).collect();
            let most = weights.iter().max().copied().unwrap_or(0);
            if let Some(at) = weights.iter().position(|weight| *weight == most) {
                let gives_way = table.remove(at);
                refused("gave_way");
                // One that has just ended gives way too.
                let _ = gives_way.told_to_leave.send(());
            }
        }
        leave
    }
}

/// Where streams of users go.
pub(crate) type Streams = mpsc::Sender<(NodeId, StreamKind, PeerStream)>;

/// Takes connections and serves them.
#[derive(Clone)]
pub(crate) struct Listener {
    me: Identity,
    outgoing: Outgoing,
    inputs: Inputs,
    snapshots: Receiver,
    streams: Streams,
    fatal: Fatal,
    unread: Arc<BTreeMap<NodeId, Arc<Semaphore>>>,
    handshakes: Handshakes,
    strangers: Arc<Rarely>,
    newer: Arc<Rarely>,
}

impl Listener {
    pub(crate) fn new(
        me: Identity,
        peers: &BTreeMap<NodeId, String>,
        outgoing: Outgoing,
        inputs: Inputs,
        snapshots: Receiver,
        streams: Streams,
        fatal: Fatal,
    ) -> Self {
        let unread = peers.keys().map(|node| (*node, Arc::new(Semaphore::new(UNREAD_MAX_BYTES)))).collect();
        let handshakes = Handshakes::default();
        Listener {
            me,
            outgoing,
            inputs,
            snapshots,
            streams,
            fatal,
            unread: Arc::new(unread),
            handshakes,
            strangers: Arc::default(),
            newer: Arc::default(),
        }
    }

    /// Listens for ever; every connection ends with the node, except those handed to users.
    pub(crate) async fn run(self, socket: TcpListener, connections_max: usize) {
        let places = Arc::new(Semaphore::new(connections_max.saturating_sub(HANDSHAKES_MAX).max(1)));
        loop {
            match socket.accept().await {
                Ok((tcp, from)) => {
                    let leave = self.handshakes.enter(from.ip());
                    self.fatal
                        .spawn_task("a connection of another node", self.clone().serve(tcp, leave, places.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "could not take a connection of another node");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve(self, tcp: TcpStream, leave: oneshot::Receiver<()>, places: Arc<Semaphore>) {
        let from = tcp.peer_addr().map_or_else(|_| "an unknown address".to_owned(), |a| a.to_string());
        let known = |node| self.unread.contains_key(&node);
        let accepted = tokio::select! {
            accepted = stream::accept(&self.me, tcp, known) => accepted,
            _ = leave => return,
        };
        let (node, purpose, stream) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                refused(match &error {
                    AcceptError::Io(_) => "handshake",
                    AcceptError::Timeout => "timeout",
                    AcceptError::Refused(refusal) => refusal.label(),
                });
                if let Some(others) = self.strangers.says(Instant::now()) {
                    tracing::warn!(%from, %error, others, "a connection to the port for nodes came to nothing");
                }
                return;
            }
        };
        let Ok(place) = places.try_acquire_owned() else {
            refused("full");
            if let Some(others) = self.strangers.says(Instant::now()) {
                tracing::warn!(%from, others, "too many connections from other nodes; this one is closed");
            }
            return;
        };
        self.outgoing.heard_of(node);
        match purpose {
            Purpose::Raft => {
                if let Err(error) = self.read_messages(node, stream).await {
                    tracing::warn!(peer = %node, %error, "the connection for Raft messages of a node ended");
                }
            }
            Purpose::Snapshot => self.snapshots.receive(node, stream).await,
            Purpose::User(kind) => {
                let stream = stream.holding(place);
                if !matches!(timeout(HAND_OVER_TIMEOUT, self.streams.send((node, kind, stream))).await, Ok(Ok(()))) {
                    refused("not_taken");
                    tracing::warn!(peer = %node, ?kind, "nobody took a stream of another node");
                }
            }
        }
    }

    async fn read_messages(&self, node: NodeId, stream: PeerStream) -> std::io::Result<()> {
        let Some(unread) = self.unread.get(&node) else { return Ok(()) };
        let received = ::metrics::counter!(metrics::PEER_RECEIVED, "node" => node.to_string());
        let mut stream = BufReader::with_capacity(64 << 10, stream);
        while let Some(length) = wire::read_length(&mut stream).await? {
            // Bounded by FRAME_MAX_BYTES, which is below the semaphore's size.
            let Ok(permit) = unread.clone().acquire_many_owned(length as u32).await else { return Ok(()) };
            let Some(message) = wire::read_message(&mut stream, length).await? else {
                ::metrics::counter!(metrics::PEER_MESSAGES_REFUSED, "node" => node.to_string(), "reason" => "newer")
                    .increment(1);
                if let Some(others) = self.newer.says(Instant::now()) {
                    tracing::warn!(peer = %node, others, "a node of a later version said what this one does not understand; it is passed over");
                }
                continue;
            };
            received.increment(1);
            if !self.inputs.peer(Input::Peer { from: node, message }, permit) {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn refused(reason: &'static str) {
    ::metrics::counter!(metrics::PEER_REFUSED, "reason" => reason).increment(1);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn of_too_many_handshakes_the_oldest_of_the_busiest_address_gives_way() {
        let handshakes = Handshakes::default();
        let from = |last| handshakes.enter(IpAddr::from([192, 0, 2, last]));
        let mut node = from(1);
        let mut strangers: Vec<_> = (1..HANDSHAKES_MAX).map(|_| from(9)).collect();
        assert!(strangers[0].try_recv() == Err(oneshot::error::TryRecvError::Empty));
        let mut other = from(2);
        assert_eq!(strangers[0].try_recv(), Ok(()));
        for stays in [&mut node, &mut other, &mut strangers[1]] {
            assert_eq!(stays.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        }
        strangers.clear();
        let (mut a, mut b) = (from(9), from(9));
        assert!(a.try_recv().is_err() && b.try_recv().is_err());
        assert_eq!(handshakes.table.lock().unwrap().len(), 4);
    }
}
