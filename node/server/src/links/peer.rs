//! Connections to other nodes' actors: one for each node, shared by all sessions here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mailraft_driver::{Cluster, PeerStream, StreamKind};
use mailraft_mailbox::{Command, Detached};
use mailraft_storage::{CommandId, MailboxId, NodeId};
use tokio::io::BufReader;
use tokio::sync::{mpsc, oneshot};

use super::frame::{self, Addressed, Greeting, Request, Response, Rpc, RpcReply};
use super::handshake::{End, LinkKey};
use crate::memory::Share;
use crate::outbox::{Outbox, ToSession};

/// Requests that may wait for one connection.
pub const REQUESTS_MAX: usize = 4_096;
/// The same in bytes. A message that fits one chunk is in its request.
pub const REQUESTS_MAX_BYTES: usize = 64 << 20;
/// How long a connection to another node of this region may take to be made.
const DIAL_TIMEOUT: Duration = Duration::from_millis(500);
/// The same to another region: TCP, TLS, preamble and proof are four round trips, of 300 ms there and back.
const DIAL_FAR_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a question to a node may take.
const RPC_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections to the other nodes.
pub struct Links {
    cluster: Cluster,
    key: LinkKey,
    peers: Mutex<HashMap<NodeId, Arc<Peer>>>,
    /// One call at a time for each node.
    dialling: Mutex<HashMap<NodeId, Arc<tokio::sync::Mutex<()>>>>,
}

/// A session's way to an actor on another node.
pub struct RemoteLink {
    peer: Arc<Peer>,
    session: u64,
}

struct Peer {
    requests: mpsc::Sender<Vec<u8>>,
    /// Those that wait, in bytes.
    waiting: Arc<Share>,
    numbers: AtomicU64,
    sessions: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    closed: bool,
    sessions: HashMap<u64, Outbox>,
    questions: HashMap<u64, oneshot::Sender<RpcReply>>,
}

impl Links {
    /// No connection yet.
    pub fn new(cluster: Cluster, key: LinkKey) -> Self {
        Links { cluster, key, peers: Mutex::default(), dialling: Mutex::default() }
    }

    /// A new stream to another node, which has the root key too.
    ///
    /// # Errors
    /// Those of the connection, and if the other node does not prove it.
    pub async fn dial(&self, node: NodeId, kind: StreamKind) -> std::io::Result<PeerStream> {
        let mut stream = self.cluster.dial(node, kind).await.map_err(std::io::Error::other)?;
        let greeting = self.key.begin(&mut stream, End::Caller).await?;
        tracing::debug!(node = node.0, ?kind, ?greeting, "another node is reached");
        Ok(stream)
    }

    /// Sees that whoever opened a stream to this node has the root key too: how it greeted.
    ///
    /// # Errors
    /// Those of the connection, and if it does not prove it.
    pub async fn accept(&self, stream: &mut PeerStream) -> std::io::Result<Greeting> {
        let greeting = self.key.begin(stream, End::Called).await?;
        tracing::debug!(?greeting, "another node reaches this one");
        Ok(greeting)
    }

    /// Attaches to a mailbox on another node; what it says goes to the outbox.
    ///
    /// # Errors
    /// If the node can't be reached.
    pub async fn attach(&self, node: NodeId, mailbox: MailboxId, outbox: Outbox) -> Result<RemoteLink, Detached> {
        let peer = self.peer(node).await?;
        let session = peer.numbers.fetch_add(1, Ordering::Relaxed);
        {
            let mut waiting = peer.waiting();
            if waiting.closed {
                return Err(Detached::Gone);
            }
            waiting.sessions.insert(session, outbox);
        }
        let link = RemoteLink { peer, session };
        link.peer.send(session, &Request::Attach { mailbox })?;
        Ok(link)
    }

    /// Asks another node.
    ///
    /// # Errors
    /// If it can't be reached or does not answer in time.
    pub async fn ask(&self, node: NodeId, rpc: Rpc) -> Result<RpcReply, Detached> {
        let peer = self.peer(node).await?;
        let number = peer.numbers.fetch_add(1, Ordering::Relaxed);
        let (tx, rx) = oneshot::channel();
        {
            let mut waiting = peer.waiting();
            if waiting.closed {
                return Err(Detached::Gone);
            }
            waiting.questions.insert(number, tx);
        }
        peer.send(number, &Request::Rpc(rpc))?;
        match tokio::time::timeout(RPC_TIMEOUT, rx).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(Detached::Gone),
            Err(_) => {
                peer.waiting().questions.remove(&number);
                Err(Detached::Gone)
            }
        }
    }

    async fn peer(&self, node: NodeId) -> Result<Arc<Peer>, Detached> {
        if let Some(peer) = self.known(node) {
            return Ok(peer);
        }
        let dialling =
            Arc::clone(self.dialling.lock().unwrap_or_else(PoisonError::into_inner).entry(node).or_default());
        let _one_at_a_time = dialling.lock().await;
        if let Some(peer) = self.known(node) {
            return Ok(peer);
        }
        let timeout = if self.cluster.is_far(node) { DIAL_FAR_TIMEOUT } else { DIAL_TIMEOUT };
        let dialled = tokio::time::timeout(timeout, self.dial(node, StreamKind::Sessions)).await;
        let Ok(Ok(stream)) = dialled else { return Err(Detached::Gone) };
        let (requests, rx) = mpsc::channel(REQUESTS_MAX);
        let peer = Arc::new(Peer::new(requests));
        tokio::spawn(carry(stream, rx, Arc::clone(&peer)));
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).insert(node, Arc::clone(&peer));
        Ok(peer)
    }

    fn known(&self, node: NodeId) -> Option<Arc<Peer>> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = peers.get(&node)?;
        if peer.waiting().closed {
            peers.remove(&node);
            return None;
        }
        Some(Arc::clone(peer))
    }
}

impl RemoteLink {
    /// Hands a command over.
    ///
    /// # Errors
    /// If the connection is over or full.
    pub fn ask(&self, id: CommandId, attempt: u32, command: Command) -> Result<(), Detached> {
        let command = frame::encoded(&command);
        self.peer.send(self.session, &Request::Ask { id, attempt, command })
    }
}

impl Drop for RemoteLink {
    fn drop(&mut self) {
        if self.peer.waiting().sessions.remove(&self.session).is_some() {
            // If it can't be said, the connection's end says it.
            let _ = self.peer.send(self.session, &Request::Detach);
        }
    }
}

impl Peer {
    fn new(requests: mpsc::Sender<Vec<u8>>) -> Self {
        let waiting = Share::new(REQUESTS_MAX_BYTES);
        Peer { requests, waiting, numbers: AtomicU64::new(1), sessions: Mutex::default() }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, number: u64, request: &Request) -> Result<(), Detached> {
        let framed = frame::request(number, request).map_err(|error| {
            tracing::error!(%error, "a request to another node is not sent");
            Detached::Overloaded
        })?;
        let bytes = framed.len();
        if !self.waiting.try_take(bytes) {
            return Err(Detached::Overloaded);
        }
        self.requests.try_send(framed).map_err(|e| {
            self.waiting.give_back(bytes);
            match e {
                mpsc::error::TrySendError::Full(_) => Detached::Overloaded,
                mpsc::error::TrySendError::Closed(_) => Detached::Gone,
            }
        })
    }

    /// Passes a response on to the session or question that it is about, and to no other: also what can't be
    /// understood, which a node of a later version may have sent.
    fn hear(&self, Addressed { number, body }: Addressed) {
        match postcard::from_bytes(&body) {
            Ok(Response::ToSession(message)) => self.tell_session(number, message),
            Ok(Response::Packed(mut packed)) => {
                let sessions = std::iter::once(number).chain(std::mem::take(&mut packed.others)).collect::<Vec<_>>();
                // In memory once here too.
                let said = packed.unpack().unwrap_or(ToSession::Detached(Detached::Gone));
                sessions.into_iter().for_each(|session| self.tell_session(session, said.clone()));
            }
            Ok(Response::Rpc(reply)) => self.tell_question(number, reply),
            Ok(Response::Unsupported) | Err(_) => {
                // What the session asked may have been done: it attaches again, and asks once more.
                self.tell_session(number, ToSession::Detached(Detached::Gone));
                self.tell_question(number, RpcReply::Unsupported);
            }
        }
    }

    fn tell_session(&self, session: u64, message: ToSession) {
        // After a Detached it stays until the link is dropped, which tells the other end.
        let outbox = self.waiting().sessions.get(&session).cloned();
        if let Some(outbox) = outbox {
            outbox.send(message);
        }
    }

    fn tell_question(&self, number: u64, reply: RpcReply) {
        if let Some(asked) = self.waiting().questions.remove(&number) {
            let _ = asked.send(reply);
        }
    }

    fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        for (_, outbox) in waiting.sessions.drain() {
            outbox.send(ToSession::Detached(Detached::Gone));
        }
        waiting.questions.clear();
    }
}

/// Carries requests and responses until the connection breaks.
async fn carry(stream: PeerStream, mut requests: mpsc::Receiver<Vec<u8>>, peer: Arc<Peer>) {
    let (read, mut write) = tokio::io::split(stream);
    let writing = async {
        while let Some(first) = requests.recv().await {
            let mut batch = first;
            while batch.len() < (256 << 10) {
                match requests.try_recv() {
                    Ok(next) => batch.extend_from_slice(&next),
                    Err(_) => break,
                }
            }
            peer.waiting.give_back(batch.len());
            frame::write_batch(&mut write, &batch).await?;
        }
        std::io::Result::Ok(())
    };
    let reading = async {
        let mut read = BufReader::with_capacity(64 << 10, read);
        loop {
            peer.hear(frame::read::<Addressed>(&mut read).await?);
        }
        #[allow(unreachable_code)]
        std::io::Result::Ok(())
    };
    let end = tokio::select! { end = writing => end, end = reading => end };
    if let Err(error) = end {
        tracing::debug!(%error, "a connection to another node's actors ended");
    }
    peer.close();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::SharedByAccounts;
    use crate::outbox::Inbox;

    fn channel(number: u64) -> (Outbox, Inbox) {
        crate::outbox::channel(number, SharedByAccounts::new(1 << 20, 1).of(MailboxId([1; 16])))
    }

    #[test]
    fn the_other_end_of_a_link_that_is_over_is_given_up_as_well() {
        let (requests, mut sent) = mpsc::channel(REQUESTS_MAX);
        let peer = Arc::new(Peer::new(requests));
        let (outbox, mut inbox) = channel(0);
        peer.waiting().sessions.insert(7, outbox);
        let link = RemoteLink { peer: Arc::clone(&peer), session: 7 };
        let response = Response::ToSession(ToSession::Detached(Detached::NotLeader));
        peer.hear(Addressed { number: 7, body: frame::encoded(&response) });
        assert!(matches!(inbox.try_next(), Some((_, ToSession::Detached(Detached::NotLeader)))));
        drop(link);
        assert_eq!(sent.try_recv().ok(), frame::request(7, &Request::Detach).ok());
        assert!(peer.waiting().sessions.is_empty());
    }

    #[test]
    fn what_a_later_version_answers_concerns_only_whom_it_was_sent_to() {
        let (requests, _sent) = mpsc::channel(REQUESTS_MAX);
        let peer = Arc::new(Peer::new(requests));
        let ((outbox, mut inbox), (bystander, mut other)) = (channel(0), channel(0));
        let (question, mut answered) = oneshot::channel();
        peer.waiting().sessions.extend([(7, outbox), (8, bystander)]);
        peer.waiting().questions.insert(9, question);
        for number in [7, 9] {
            // A kind of response that was added later.
            peer.hear(Addressed { number, body: vec![99, 1, 2].into() });
        }
        assert!(matches!(inbox.try_next(), Some((_, ToSession::Detached(Detached::Gone)))));
        assert_eq!(answered.try_recv().ok(), Some(RpcReply::Unsupported));
        assert!(other.try_next().is_none() && !peer.waiting().closed);
        let response = Response::ToSession(ToSession::Detached(Detached::NotLeader));
        peer.hear(Addressed { number: 8, body: frame::encoded(&response) });
        assert!(matches!(other.try_next(), Some((_, ToSession::Detached(Detached::NotLeader)))));
    }

    #[test]
    fn requests_that_wait_for_a_node_are_bounded_in_bytes() {
        let (requests, mut sent) = mpsc::channel(REQUESTS_MAX);
        let peer = Arc::new(Peer::new(requests));
        let link = RemoteLink { peer: Arc::clone(&peer), session: 7 };
        let ask = || link.ask(CommandId::default(), 0, Command::CreateFolder { name: "x".repeat(1 << 20) });
        let taken = (0..).take_while(|_| ask().is_ok()).count();
        assert!((60..64).contains(&taken), "{taken} requests of 1 MiB");
        assert_eq!((ask(), sent.len()), (Err(Detached::Overloaded), taken));
        // As the connection takes one of them.
        peer.waiting.give_back(sent.try_recv().map_or(0, |request| request.len()));
        assert_eq!(ask(), Ok(()));
    }

    #[test]
    fn a_request_that_is_too_long_ends_nobody_elses_link() {
        let (requests, mut sent) = mpsc::channel(REQUESTS_MAX);
        let peer = Arc::new(Peer::new(requests));
        let link = RemoteLink { peer: Arc::clone(&peer), session: 7 };
        let name = "x".repeat(frame::FRAME_MAX_BYTES);
        let asked = link.ask(CommandId::default(), 0, Command::CreateFolder { name });
        assert_eq!((asked, peer.waiting().closed), (Err(Detached::Overloaded), false));
        assert!(sent.try_recv().is_err());
    }
}
