//! Raft messages to other nodes: a bounded queue for each, emptied by a task that keeps one connection.
//! Raft repeats what it needs, so a full queue and a broken connection cost messages, never memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailraft_cluster::mode::ModeReport;
use mailraft_cluster::seam::PeerBody;
use mailraft_cluster::{Input, PeerMessage};
use mailraft_storage::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::inputs::Inputs;
use crate::metrics;
use crate::stream::{self, DialError, Identity, PeerStream, Purpose};
use crate::wire;

/// Messages that wait for one node.
pub(crate) const QUEUE_MAX_MESSAGES: usize = 8_192;
/// Bytes of messages that wait for one node.
pub(crate) const QUEUE_MAX_BYTES: usize = 32 << 20;
/// Messages are put together up to this many bytes for one write.
const WRITE_BYTES: usize = 1 << 20;
/// What a message counts beside its entries, in bytes.
const MESSAGE_BYTES: usize = 256;
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The queues to all other nodes.
#[derive(Clone)]
pub(crate) struct Outgoing {
    peers: Arc<BTreeMap<NodeId, Peer>>,
}

struct Peer {
    address: String,
    label: String,
    queue: Mutex<Queue>,
    /// Told when the queue is no longer empty.
    filled: Notify,
    /// The node has just been heard of: call it now.
    heard: Notify,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<PeerMessage>,
    bytes: usize,
    connected: bool,
}

impl Outgoing {
    pub(crate) fn new(peers: &BTreeMap<NodeId, String>) -> Self {
        let peer = |(&node, address): (&NodeId, &String)| {
            let peer = Peer {
                address: address.clone(),
                label: node.to_string(),
                queue: Mutex::default(),
                filled: Notify::new(),
                heard: Notify::new(),
            };
            (node, peer)
        };
        Outgoing { peers: Arc::new(peers.iter().map(peer).collect()) }
    }

    /// Queues a message, or drops it if too many wait or the node is none of the peers.
    pub(crate) fn send(&self, to: NodeId, message: PeerMessage) {
        let Some(peer) = self.peers.get(&to) else {
            ::metrics::counter!(metrics::PEER_DROPPED, "node" => "unknown").increment(1);
            return;
        };
        let bytes = message_bytes(&message);
        let mut queue = peer.lock();
        if queue.messages.len() >= QUEUE_MAX_MESSAGES || queue.bytes + bytes > QUEUE_MAX_BYTES {
            drop(queue);
            peer.dropped(1);
            return;
        }
        queue.bytes += bytes;
        queue.messages.push_back(message);
        drop(queue);
        peer.filled.notify_one();
    }

    /// The nodes to which the connection stands.
    pub(crate) fn connected(&self) -> Vec<NodeId> {
        self.peers.iter().filter(|(_, peer)| peer.lock().connected).map(|(node, _)| *node).collect()
    }

    /// Messages that wait for a node.
    pub(crate) fn waiting(&self, node: NodeId) -> usize {
        self.peers.get(&node).map_or(0, |peer| peer.lock().messages.len())
    }

    /// A node called here: if it is not connected yet, it is worth calling at once.
    pub(crate) fn heard_of(&self, node: NodeId) {
        if let Some(peer) = self.peers.get(&node) {
            peer.heard.notify_one();
        }
    }

    /// Keeps the connection to a node, for ever.
    pub(crate) async fn run(self, me: Identity, node: NodeId, inputs: Inputs) {
        let Some(peer) = self.peers.get(&node) else { return };
        let mut backoff = BACKOFF_MIN;
        let mut told = String::new();
        loop {
            match stream::connect(&me, node, &peer.address, Purpose::Raft).await {
                Ok(stream) => {
                    tracing::info!(peer = %node, address = %peer.address, "connected");
                    told.clear();
                    backoff = BACKOFF_MIN;
                    let connected = Connected::new(peer);
                    let error = peer.pump(stream).await;
                    drop(connected);
                    peer.clear();
                    inputs.own(Input::Unreachable { node });
                    tracing::info!(peer = %node, address = %peer.address, %error, "disconnected");
                }
                Err(error) => {
                    ::metrics::counter!(metrics::PEER_DIAL_FAILURES, "node" => peer.label.clone()).increment(1);
                    say_once(&mut told, &error);
                    if peer.clear() {
                        inputs.own(Input::Unreachable { node });
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_MAX),
                () = peer.heard.notified() => backoff = BACKOFF_MIN,
            }
        }
    }
}

/// A connection that stands; also when its task is ended from outside it no longer does.
struct Connected<'a>(&'a Peer);

impl<'a> Connected<'a> {
    fn new(peer: &'a Peer) -> Self {
        peer.set_connected(true);
        Connected(peer)
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.set_connected(false);
    }
}

impl Peer {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_connected(&self, connected: bool) {
        self.lock().connected = connected;
        ::metrics::gauge!(metrics::PEER_CONNECTED, "node" => self.label.clone()).set(f64::from(u8::from(connected)));
    }

    fn dropped(&self, messages: usize) {
        ::metrics::counter!(metrics::PEER_DROPPED, "node" => self.label.clone()).increment(messages as u64);
    }

    /// Throws away what waits; true if there was something.
    fn clear(&self) -> bool {
        let mut queue = self.lock();
        let count = queue.messages.len();
        queue.messages.clear();
        queue.bytes = 0;
        drop(queue);
        self.dropped(count);
        count > 0
    }

    /// Sends until the connection breaks; returns why.
    async fn pump(&self, stream: PeerStream) -> std::io::Error {
        let (mut read, mut write) = tokio::io::split(stream);
        let sent = ::metrics::counter!(metrics::PEER_SENT, "node" => self.label.clone());
        let sent_bytes = ::metrics::counter!(metrics::PEER_SENT_BYTES, "node" => self.label.clone());
        let sending = async {
            let mut buffer = Vec::new();
            loop {
                let count = self.fill(&mut buffer);
                if count == 0 {
                    self.filled.notified().await;
                    continue;
                }
                if let Err(error) = write.write_all(&buffer).await {
                    return error;
                }
                if let Err(error) = write.flush().await {
                    return error;
                }
                sent.increment(count);
                sent_bytes.increment(buffer.len() as u64);
            }
        };
        // The other side sends nothing on this connection: anything but silence is its end.
        let ending = async {
            match read.read_u8().await {
                Ok(_) => std::io::Error::other("the other node sent bytes on a connection that is ours to use"),
                Err(error) => error,
            }
        };
        tokio::select! {
            error = sending => error,
            error = ending => error,
        }
    }

    /// Frames of waiting messages for one write; returns how many.
    fn fill(&self, buffer: &mut Vec<u8>) -> u64 {
        buffer.clear();
        buffer.shrink_to(2 * WRITE_BYTES);
        let mut count = 0;
        while buffer.len() < WRITE_BYTES {
            let mut queue = self.lock();
            let Some(message) = queue.messages.pop_front() else { break };
            queue.bytes -= message_bytes(&message);
            drop(queue);
            // Encoded outside the lock: the core thread waits for it.
            if wire::append(&message, buffer) {
                count += 1;
            } else {
                self.dropped(1);
            }
        }
        count
    }
}

/// The size of a message, nearly, without encoding it.
fn message_bytes(message: &PeerMessage) -> usize {
    let body = match &message.body {
        PeerBody::Raft(raft) => {
            let entries: usize = raft.entries.iter().map(|entry| entry.data.len() + entry.context.len() + 32).sum();
            entries + raft.context.len()
        }
        PeerBody::Hash { .. } | PeerBody::Rows { .. } | PeerBody::Visible { .. } | PeerBody::Removed => 0,
        PeerBody::Leads(led) => led.len() * 16,
        PeerBody::Hears { nodes, .. } => nodes.len() * 8,
        PeerBody::Modes(reports) => reports.len() * size_of::<ModeReport>(),
    };
    body + MESSAGE_BYTES
}

/// Logs what is new: a node that is down would fill the log.
fn say_once(told: &mut String, error: &DialError) {
    let sentence = error.to_string();
    if sentence == *told {
        tracing::debug!("{sentence}");
    } else {
        tracing::warn!("{sentence}; will try again");
        *told = sentence;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mailraft_cluster::frame;
    use mailraft_storage::{ClusterId, PartitionId, ReplicaId, UnixMillis};
    use raft::eraftpb::{Entry, Message};

    fn message(entry_bytes: usize) -> PeerMessage {
        let mut raft = Message::default();
        raft.mut_entries().push(Entry { data: vec![7; entry_bytes].into(), ..Entry::default() });
        PeerMessage {
            cluster: ClusterId([1; 16]),
            partition: PartitionId(1),
            from: ReplicaId(1),
            to: ReplicaId(2),
            incarnation: 1,
            wall: UnixMillis(1),
            body: PeerBody::Raft(raft),
        }
    }

    #[test]
    fn a_queue_is_bounded_in_messages_and_bytes_and_empties_in_order() {
        let node = NodeId(2);
        let outgoing = Outgoing::new(&BTreeMap::from([(node, "127.0.0.1:1".to_owned())]));
        for _ in 0..QUEUE_MAX_MESSAGES + 5 {
            outgoing.send(node, message(0));
        }
        assert_eq!(outgoing.waiting(node), QUEUE_MAX_MESSAGES);
        let peer = &outgoing.peers[&node];
        assert!(peer.clear() && !peer.clear());
        for _ in 0..100 {
            outgoing.send(node, message(1 << 20));
        }
        assert_eq!(outgoing.waiting(node), QUEUE_MAX_BYTES / (1 << 20) - 1);
        assert!(peer.clear());

        outgoing.send(NodeId(9), message(1));
        for bytes in [300_000, 400_000, 500_000, 1] {
            outgoing.send(node, message(bytes));
        }
        let mut buffer = Vec::new();
        assert_eq!(peer.fill(&mut buffer), 3, "a write is closed when it is full");
        let length = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]) as usize;
        assert_eq!(buffer[4..4 + length], frame::encode(&message(300_000)));
        assert_eq!(peer.fill(&mut buffer), 1);
        assert_eq!((peer.fill(&mut buffer), peer.lock().bytes), (0, 0));
    }
}
