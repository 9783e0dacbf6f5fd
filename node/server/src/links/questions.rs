//! Questions how a node of another region is. A backup region's nodes need not have the root key, so these go over
//! connections on which nobody proves it: nothing is said there that is about mail.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mailraft_driver::{Cluster, PeerStream, StreamKind};
use mailraft_storage::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::frame;

/// How this node is, as JSON: whoever is above the links says it.
pub type StatusSource = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = String> + Send>> + Send + Sync>;

/// How long a connection may take to be made and asked over: five round trips of 300 ms, and as much for a lost packet.
const ASK_MAX: Duration = Duration::from_secs(3);
/// Asks how the node is.
const HOW_ARE_YOU: u8 = 1;

/// How often it is looked whether all connections are there.
const KEEP_WARM_EVERY: Duration = Duration::from_secs(1);

/// Connections over which nodes of other regions are asked, kept for the next question.
#[derive(Clone)]
pub struct StatusLinks {
    cluster: Cluster,
    kept: Arc<Mutex<HashMap<NodeId, PeerStream>>>,
}

impl StatusLinks {
    /// No connection yet.
    pub fn new(cluster: Cluster) -> Self {
        StatusLinks { cluster, kept: Arc::default() }
    }

    /// How a node is, as JSON.
    ///
    /// # Errors
    /// Those of the connection; `TimedOut` past 3 s.
    pub async fn ask(&self, node: NodeId) -> std::io::Result<String> {
        let asked = timeout(ASK_MAX, async {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
            // One that was kept may have broken meanwhile.
            if let Some(stream) = kept
                && let Ok(answer) = self.ask_over(node, stream).await
            {
                return Ok(answer);
            }
            let stream = self.cluster.dial(node, StreamKind::Status).await.map_err(std::io::Error::other)?;
            self.ask_over(node, stream).await
        });
        asked.await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    }

    /// Keeps a connection to each node of another region, for ever, so that a question takes one round trip.
    pub async fn keep_warm(self) {
        let mut pause = tokio::time::interval(KEEP_WARM_EVERY);
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pause.tick().await;
            self.dial_missing().await;
        }
    }

    async fn dial_missing(&self) {
        let far = self.cluster.peers().into_iter().filter(|node| self.cluster.is_far(*node) && !self.has(*node));
        let mut dialling = JoinSet::new();
        for node in far {
            let links = self.clone();
            dialling.spawn(async move {
                if let Ok(stream) = links.cluster.dial(node, StreamKind::Status).await {
                    links.keep(node, stream);
                }
            });
        }
        while dialling.join_next().await.is_some() {}
    }

    fn has(&self, node: NodeId) -> bool {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&node)
    }

    fn keep(&self, node: NodeId, stream: PeerStream) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(node, stream);
    }

    async fn ask_over(&self, node: NodeId, mut stream: PeerStream) -> std::io::Result<String> {
        stream.write_u8(HOW_ARE_YOU).await?;
        stream.flush().await?;
        let answer = frame::read(&mut stream).await?;
        self.keep(node, stream);
        Ok(answer)
    }
}

/// Answers a node's questions until its connection ends.
///
/// # Errors
/// Those of the connection; `InvalidData` for a question that is not known.
pub async fn answer(status: &StatusSource, mut stream: PeerStream) -> std::io::Result<()> {
    loop {
        if stream.read_u8().await? != HOW_ARE_YOU {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        frame::write(&mut stream, &status().await).await?;
    }
}
