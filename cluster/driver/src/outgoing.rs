//! Raft messages to other nodes: a bounded queue for each, emptied by a task that keeps one connection; for one in another
//! region four of both, by partition: over such a distance one connection that loses a packet now and then carries little.
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

use crate::far::Far;
use crate::inputs::Inputs;
use crate::metrics;
use crate::stream::{self, DialError, Identity, PeerStream, Purpose};
use crate::wire;

/// Messages that wait for one node.
pub(crate) const QUEUE_MAX_MESSAGES: usize = 8_192;
/// Bytes of messages that wait for one node.
pub(crate) const QUEUE_MAX_BYTES: usize = 32 << 20;
/// Connections to a node of another region. One that loses one packet in a thousand carries about 1 MB/s over 80 ms.
pub(crate) const FAR_LANES: usize = 4;
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
    /// Its region, if it is another.
    region: Option<String>,
    /// Each for some of the partitions: what is about one of them keeps its order.
    lanes: Vec<Lane>,
}

#[derive(Default)]
struct Lane {
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
    pub(crate) fn new(peers: &BTreeMap<NodeId, String>, far: &Far) -> Self {
        let peer = |(&node, address): (&NodeId, &String)| {
            let region = far.region(node).map(str::to_owned);
            let lanes = if region.is_some() { FAR_LANES } else { 1 };
            let lanes = std::iter::repeat_with(Lane::default).take(lanes).collect();
            (node, Peer { address: address.clone(), label: node.to_string(), region, lanes })
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
        let (lane, lanes) = (peer.lane(&message), peer.lanes.len());
        let mut queue = lane.lock();
        if queue.messages.len() >= QUEUE_MAX_MESSAGES / lanes || queue.bytes + bytes > QUEUE_MAX_BYTES / lanes {
            drop(queue);
            peer.dropped(1);
            return;
        }
        queue.bytes += bytes;
        queue.messages.push_back(message);
        drop(queue);
        lane.filled.notify_one();
    }

    /// The nodes to which all connections stand.
    pub(crate) fn connected(&self) -> Vec<NodeId> {
        self.peers.iter().filter(|(_, peer)| peer.is_connected()).map(|(node, _)| *node).collect()
    }

    /// Messages that wait for a node.
    pub(crate) fn waiting(&self, node: NodeId) -> usize {
        self.peers.get(&node).map_or(0, |peer| peer.lanes.iter().map(|lane| lane.lock().messages.len()).sum())
    }

    /// A node called here: if it is not connected yet, it is worth calling at once.
    pub(crate) fn heard_of(&self, node: NodeId) {
        for lane in self.peers.get(&node).into_iter().flat_map(|peer| &peer.lanes) {
            lane.heard.notify_one();
        }
    }

    /// Every connection that is to be kept: its node, and which of that node's it is.
    pub(crate) fn lanes(&self) -> Vec<(NodeId, usize)> {
        self.peers.iter().flat_map(|(node, peer)| (0..peer.lanes.len()).map(|lane| (*node, lane))).collect()
    }

    /// Keeps one connection to a node, for ever.
    pub(crate) async fn run(self, me: Identity, (node, lane): (NodeId, usize), inputs: Inputs) {
        let Some(peer) = self.peers.get(&node) else { return };
        let Some(lane) = peer.lanes.get(lane) else { return };
        let mut backoff = BACKOFF_MIN;
        let mut told = String::new();
        loop {
            match stream::connect(&me, node, &peer.address, Purpose::Raft).await {
                Ok(stream) => {
                    tracing::info!(peer = %node, address = %peer.address, "connected");
                    told.clear();
                    backoff = BACKOFF_MIN;
                    let connected = Connected::new(peer, lane);
                    let error = peer.pump(lane, stream).await;
                    drop(connected);
                    peer.clear(lane);
                    inputs.own(Input::Unreachable { node });
                    tracing::info!(peer = %node, address = %peer.address, %error, "disconnected");
                }
                Err(error) => {
                    ::metrics::counter!(metrics::PEER_DIAL_FAILURES, "node" => peer.label.clone()).increment(1);
                    say_once(&mut told, &error);
                    if peer.clear(lane) {
                        inputs.own(Input::Unreachable { node });
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_MAX),
                () = lane.heard.notified() => backoff = BACKOFF_MIN,
            }
        }
    }
}

/// A connection that stands; also when its task is ended from outside it no longer does.
struct Connected<'a>(&'a Peer, &'a Lane);

impl<'a> Connected<'a> {
    fn new(peer: &'a Peer, lane: &'a Lane) -> Self {
        peer.set_connected(lane, true);
        Connected(peer, lane)
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.set_connected(self.1, false);
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    fn lane(&self, message: &PeerMessage) -> &Lane {
        &self.lanes[message.partition.0 as usize % self.lanes.len()]
    }

    fn is_connected(&self) -> bool {
        self.lanes.iter().all(|lane| lane.lock().connected)
    }

    fn set_connected(&self, lane: &Lane, connected: bool) {
        lane.lock().connected = connected;
        let connected = self.is_connected();
        ::metrics::gauge!(metrics::PEER_CONNECTED, "node" => self.label.clone()).set(f64::from(u8::from(connected)));
    }

    fn dropped(&self, messages: usize) {
        ::metrics::counter!(metrics::PEER_DROPPED, "node" => self.label.clone()).increment(messages as u64);
    }

    /// Throws away what waits; true if there was something.
    fn clear(&self, lane: &Lane) -> bool {
        let mut queue = lane.lock();
        let count = queue.messages.len();
        queue.messages.clear();
        queue.bytes = 0;
        drop(queue);
        self.dropped(count);
        count > 0
    }

    /// Sends until the connection breaks; returns why.
    async fn pump(&self, lane: &Lane, stream: PeerStream) -> std::io::Error {
        let (mut read, mut write) = tokio::io::split(stream);
        let sent = ::metrics::counter!(metrics::PEER_SENT, "node" => self.label.clone());
        let sent_bytes = ::metrics::counter!(metrics::PEER_SENT_BYTES, "node" => self.label.clone());
        let region = self.region.clone();
        let to_region = region.map(|region| ::metrics::counter!(metrics::REGION_SENT_BYTES, "region" => region));
        let sending = async {
            let mut buffer = Vec::new();
            loop {
                let count = self.fill(lane, &mut buffer);
                if count == 0 {
                    lane.filled.notified().await;
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
                if let Some(to_region) = &to_region {
                    to_region.increment(buffer.len() as u64);
                }
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
    fn fill(&self, lane: &Lane, buffer: &mut Vec<u8>) -> u64 {
        buffer.clear();
        buffer.shrink_to(2 * WRITE_BYTES);
        let mut count = 0;
        while buffer.len() < WRITE_BYTES {
            let mut queue = lane.lock();
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
        PeerBody::TakenOver(taken) => taken.voters.len() * size_of::<mailraft_storage::ReplicaId>(),
        PeerBody::Leads(led) => led.len() * 16,
        PeerBody::HeldBut(held) => held.len() * 16,
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
    use mailraft_storage::{ClusterId, Incarnation, PartitionId, ReplicaId, UnixMillis};
    use raft::eraftpb::{Entry, Message};

    fn message(entry_bytes: usize) -> PeerMessage {
        let mut raft = Message::default();
        raft.mut_entries().push(Entry { data: vec![7; entry_bytes].into(), ..Entry::default() });
        PeerMessage {
            cluster: ClusterId([1; 16]),
            partition: PartitionId(1),
            from: ReplicaId(1),
            to: ReplicaId(2),
            incarnation: Incarnation { number: 1, nonce: [0; 16] },
            wall: UnixMillis(1),
            body: PeerBody::Raft(raft),
        }
    }

    #[test]
    fn a_queue_is_bounded_in_messages_and_bytes_and_empties_in_order() {
        let node = NodeId(2);
        let outgoing = Outgoing::new(&BTreeMap::from([(node, "127.0.0.1:1".to_owned())]), &Far::default());
        for _ in 0..QUEUE_MAX_MESSAGES + 5 {
            outgoing.send(node, message(0));
        }
        assert_eq!(outgoing.waiting(node), QUEUE_MAX_MESSAGES);
        let peer = &outgoing.peers[&node];
        let lane = &peer.lanes[0];
        assert!(peer.clear(lane) && !peer.clear(lane));
        for _ in 0..100 {
            outgoing.send(node, message(1 << 20));
        }
        assert_eq!(outgoing.waiting(node), QUEUE_MAX_BYTES / (1 << 20) - 1);
        assert!(peer.clear(lane));

        outgoing.send(NodeId(9), message(1));
        for bytes in [300_000, 400_000, 500_000, 1] {
            outgoing.send(node, message(bytes));
        }
        let mut buffer = Vec::new();
        assert_eq!(peer.fill(lane, &mut buffer), 3, "a write is closed when it is full");
        let length = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]) as usize;
        assert_eq!(buffer[4..4 + length], frame::encode(&message(300_000)));
        assert_eq!(peer.fill(lane, &mut buffer), 1);
        assert_eq!((peer.fill(lane, &mut buffer), lane.lock().bytes), (0, 0));
    }

    #[test]
    fn to_another_region_each_partition_has_one_of_four_queues_and_they_share_the_bounds() {
        let (near, far) = (NodeId(2), NodeId(3));
        let peers = [near, far].map(|node| (node, "127.0.0.1:1".to_owned()));
        let outgoing = Outgoing::new(&BTreeMap::from(peers), &Far::with([(far, "south")]));
        let lanes = [(near, 0), (far, 0), (far, 1), (far, 2), (far, 3)];
        assert_eq!(outgoing.lanes(), lanes);
        let about = |partition| PeerMessage { partition: PartitionId(partition), ..message(1) };
        for partition in (0..8).chain(0..8) {
            outgoing.send(far, about(partition));
        }
        let peer = &outgoing.peers[&far];
        for (lane, partitions) in peer.lanes.iter().zip([[0, 4, 0, 4], [1, 5, 1, 5], [2, 6, 2, 6], [3, 7, 3, 7]]) {
            let queued: Vec<u32> = lane.lock().messages.iter().map(|message| message.partition.0).collect();
            assert_eq!(queued, partitions);
            peer.clear(lane);
        }
        for _ in 0..QUEUE_MAX_MESSAGES {
            outgoing.send(far, about(1));
        }
        assert_eq!(outgoing.waiting(far), QUEUE_MAX_MESSAGES / FAR_LANES, "others' places are theirs");
        outgoing.send(far, about(2));
        assert_eq!(outgoing.waiting(far), QUEUE_MAX_MESSAGES / FAR_LANES + 1);
        // All four, or the node is not connected.
        for lane in &peer.lanes[1..] {
            peer.set_connected(lane, true);
        }
        assert_eq!(outgoing.connected(), []);
        peer.set_connected(&peer.lanes[0], true);
        assert_eq!(outgoing.connected(), [far]);
    }
}
