//! Questions how a node of another region is. A backup region's nodes need not have the root key, so these go over
//! connections on which nobody proves it: nothing is said there that is about mail.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailraft_driver::{Cluster, PeerStream, StreamKind};
use mailraft_storage::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::failover::{self, FailoverAnswers};
use super::frame;

/// How this node is, as JSON: whoever is above the links says it.
pub type StatusSource = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = String> + Send>> + Send + Sync>;

/// How long a connection may take to be made and asked over: five round trips of 300 ms, and as much for a lost packet.
const ASK_MAX: Duration = Duration::from_secs(3);
/// How long an answer is waited for, over a connection that stands: two round trips of 300 ms.
const ANSWER_WITHIN: Duration = Duration::from_millis(700);
/// The same of a node whose last answer never came: meanwhile what others said grows old.
const SILENT_ANSWER_WITHIN: Duration = Duration::from_millis(100);
/// Asks how the node is.
const HOW_ARE_YOU: u8 = 1;

/// How often it is looked whether all connections are there.
const KEEP_WARM_EVERY: Duration = Duration::from_secs(1);

/// The longest name of a node that is remembered, in bytes.
const NODE_NAME_MAX_BYTES: usize = 255;

/// Connections over which nodes of other regions are asked, kept for the next question.
#[derive(Clone)]
pub struct StatusLinks {
    cluster: Cluster,
    kept: Arc<Mutex<HashMap<NodeId, PeerStream>>>,
    late: Late,
    called: Arc<Mutex<HashMap<NodeId, Called>>>,
}

/// What a node calls itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Called {
    /// `node.name`, for people.
    pub name: Option<String>,
    /// `tls.hostname`, for mail programs and servers. An older version does not say.
    pub hostname: Option<String>,
}

/// Nodes that did not answer in time, and what is known of them since.
#[derive(Clone, Default)]
struct Late(Arc<Mutex<HashMap<NodeId, Since>>>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Since {
    /// The question is under way yet.
    Asked,
    /// Its answer never came.
    Silent,
}

impl StatusLinks {
    /// No connection yet.
    pub fn new(cluster: Cluster) -> Self {
        StatusLinks { cluster, kept: Arc::default(), late: Late::default(), called: Arc::default() }
    }

    /// What a node calls itself, as it last said: it stands for one that does not answer any more.
    pub fn called(&self, node: NodeId) -> Called {
        self.called.lock().unwrap_or_else(PoisonError::into_inner).get(&node).cloned().unwrap_or_default()
    }

    /// What a node of the cluster calls itself. What is too long to be a name is left out.
    pub fn learn_called(&self, node: NodeId, name: Option<&str>, hostname: Option<&str>) {
        let fits = |name: &&str| name.len() <= NODE_NAME_MAX_BYTES;
        let [name, hostname] = [name, hostname].map(|said| said.filter(fits).map(str::to_owned));
        self.called.lock().unwrap_or_else(PoisonError::into_inner).insert(node, Called { name, hostname });
    }

    /// How a node is, as JSON.
    ///
    /// # Errors
    /// Those of the connection; `TimedOut` past 700 ms, and sooner where it did not answer lately. It is asked on then, so
    /// that a later question finds it.
    pub async fn ask(&self, node: NodeId) -> std::io::Result<String> {
        let links = self.clone();
        self.late.ask(node, async move { links.ask_patiently(node).await }).await
    }

    async fn ask_patiently(&self, node: NodeId) -> std::io::Result<String> {
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

impl Late {
    async fn ask(
        &self,
        node: NodeId,
        ask: impl Future<Output = std::io::Result<String>> + Send + 'static,
    ) -> std::io::Result<String> {
        let within = match self.nodes().get(&node) {
            None => ANSWER_WITHIN,
            Some(Since::Silent) => SILENT_ANSWER_WITHIN,
            Some(Since::Asked) => return Err(ErrorKind::TimedOut.into()),
        };
        let (late, (tell, told)) = (self.clone(), oneshot::channel());
        tokio::spawn(async move {
            let mut ask = pin!(ask);
            if let Ok(answer) = timeout(within, &mut ask).await {
                if answer.is_ok() {
                    late.nodes().remove(&node);
                }
                // Whoever asked may have gone.
                let _ = tell.send(answer);
                return;
            }
            late.nodes().insert(node, Since::Asked);
            let _ = tell.send(Err(ErrorKind::TimedOut.into()));
            match ask.await {
                Ok(_) => late.nodes().remove(&node),
                Err(_) => late.nodes().insert(node, Since::Silent),
            };
        });
        told.await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<NodeId, Since>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers a node's questions until its connection ends.
///
/// # Errors
/// Those of the connection; `InvalidData` for a question that is not known.
pub async fn answer(
    from: NodeId,
    status: &StatusSource,
    answers: &FailoverAnswers,
    mut stream: PeerStream,
) -> std::io::Result<()> {
    loop {
        match stream.read_u8().await? {
            HOW_ARE_YOU => frame::write(&mut stream, &status().await).await?,
            failover::BEGINS => return failover::answer(from, answers, stream).await,
            _ => return Err(std::io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn who_does_not_answer_is_waited_for_once_and_found_when_it_answers_again() {
        let (late, node) = (Late::default(), NodeId(4));
        let begun = Instant::now();
        let (answer, comes) = oneshot::channel::<()>();
        let asked = late.ask(node, async move {
            let _ = comes.await;
            Err(ErrorKind::TimedOut.into())
        });
        assert!(asked.await.is_err() && begun.elapsed() >= ANSWER_WITHIN);
        let again = Instant::now();
        assert!(late.ask(node, async { unreachable!("one question is under way") }).await.is_err());
        assert!(again.elapsed() < ANSWER_WITHIN, "{:?}", again.elapsed());
        drop(answer);
        while late.nodes().get(&node) != Some(&Since::Silent) {
            tokio::task::yield_now().await;
        }
        let (answer, comes) = oneshot::channel::<()>();
        let again = Instant::now();
        let asked = late.ask(node, async move { Ok(format!("{:?}", comes.await)) });
        assert!(asked.await.is_err() && again.elapsed() < ANSWER_WITHIN, "{:?}", again.elapsed());
        answer.send(()).expect("it is asked on");
        while late.nodes().contains_key(&node) {
            tokio::task::yield_now().await;
        }
        assert!(late.ask(node, async { Ok("well".to_owned()) }).await.is_ok());
    }
}
