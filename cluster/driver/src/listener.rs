//! Connections that other nodes make to this one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mailraft_cluster::Input;
use mailraft_storage::NodeId;
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use crate::fatal::Fatal;
use crate::inputs::Inputs;
use crate::metrics;
use crate::outgoing::Outgoing;
use crate::snapshot::Receiver;
use crate::stream::{self, AcceptError, Identity, PeerStream, Purpose, StreamKind};
use crate::wire::{self, FRAME_MAX_BYTES};

/// Bytes of one node's messages that wait for the core thread; then its connection is not read on.
const UNREAD_MAX_BYTES: usize = 4 * FRAME_MAX_BYTES;
/// How long the user of the driver has to take a stream.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(1);
/// After the system refused a connection (no file descriptors left, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
        Listener { me, outgoing, inputs, snapshots, streams, fatal, unread: Arc::new(unread) }
    }

    /// Listens for ever; every connection ends with the node, except those handed to users.
    pub(crate) async fn run(self, socket: TcpListener, connections_max: usize) {
        let places = Arc::new(Semaphore::new(connections_max));
        loop {
            match socket.accept().await {
                Ok((tcp, from)) => {
                    let Ok(place) = places.clone().try_acquire_owned() else {
                        refused("full");
                        tracing::warn!(%from, "too many connections from other nodes; this one is closed");
                        continue;
                    };
                    self.fatal.spawn_task("a connection of another node", self.clone().serve(tcp, place));
                }
                Err(error) => {
                    tracing::warn!(%error, "could not take a connection of another node");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve(self, tcp: TcpStream, place: OwnedSemaphorePermit) {
        let from = tcp.peer_addr().map_or_else(|_| "an unknown address".to_owned(), |a| a.to_string());
        let known = |node| self.unread.contains_key(&node);
        let (node, purpose, stream) = match stream::accept(&self.me, tcp, known).await {
            Ok(accepted) => accepted,
            Err(error) => {
                refused(match &error {
                    AcceptError::Io(_) => "handshake",
                    AcceptError::Timeout => "timeout",
                    AcceptError::Refused(refusal) => refusal.label(),
                });
                tracing::warn!(%from, %error, "a connection to the port for nodes came to nothing");
                return;
            }
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
            let message = wire::read_message(&mut stream, length).await?;
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
