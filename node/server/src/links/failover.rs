//! What nodes say to each other where a region takes over: over connections on which both ends have proved that they have
//! what every node of the cluster has and nobody else, the key of the sums over rows. A certificate alone gives no word and
//! is given no key.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailraft_driver::{Cluster, PeerStream, StreamKind};
use mailraft_storage::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::frame;
use super::handshake::{End, LinkKey};

/// The first byte of such a connection, among those for questions between nodes.
pub const BEGINS: u8 = 2;
/// Asks or says something, as JSON.
const QUESTION: u8 = 1;
/// Hands the root key over.
const ROOT_KEY: u8 = 2;
/// A root key as its digits.
const ROOT_KEY_BYTES: usize = 64;

/// What another node says. Who it is was proved; whether to go by it is for whoever answers.
pub enum AboutFailover {
    /// A question, as JSON.
    Question(String),
    /// The root key: 64 hexadecimal digits.
    RootKey(Zeroizing<String>),
}

/// Answers what nodes say: whoever is above the links does.
pub type FailoverSource =
    Arc<dyn Fn(NodeId, AboutFailover) -> Pin<Box<dyn Future<Output = String> + Send>> + Send + Sync>;

/// What a node needs to be asked.
#[derive(Clone)]
pub struct FailoverAnswers {
    /// What both ends prove that they have.
    pub key: LinkKey,
    /// Who answers.
    pub source: FailoverSource,
}

/// Connections over which nodes are asked, kept for the next question.
#[derive(Clone)]
pub struct FailoverLinks {
    cluster: Cluster,
    key: LinkKey,
    kept: Arc<Mutex<HashMap<NodeId, PeerStream>>>,
}

#[derive(Clone, Copy)]
enum Body<'a> {
    Text(&'a str),
    /// Not within a frame, whose memory nobody clears.
    Digits(&'a [u8]),
}

impl FailoverLinks {
    /// No connection yet.
    pub fn new(cluster: Cluster, key: LinkKey) -> Self {
        FailoverLinks { cluster, key, kept: Arc::default() }
    }

    /// What both ends prove that they have.
    pub fn key(&self) -> &LinkKey {
        &self.key
    }

    /// Asks a node something, or says something.
    ///
    /// # Errors
    /// Those of the connection; `PermissionDenied` if the other end proves nothing; `TimedOut` after so long. Then it may have
    /// been heard all the same.
    pub async fn ask(&self, node: NodeId, question: &str, within: Duration) -> std::io::Result<String> {
        self.say(node, QUESTION, Body::Text(question), within).await
    }

    /// Hands the root key over, in 64 hexadecimal digits. Why it was not taken; empty if it was.
    ///
    /// # Errors
    /// As [`FailoverLinks::ask`].
    ///
    /// # Panics
    /// If it has another length: whoever gives it has parsed it.
    pub async fn give_root_key(
        &self,
        node: NodeId,
        key: &Zeroizing<String>,
        within: Duration,
    ) -> std::io::Result<String> {
        let digits = key.trim().as_bytes();
        assert_eq!(digits.len(), ROOT_KEY_BYTES, "a root key has 64 digits");
        self.say(node, ROOT_KEY, Body::Digits(digits), within).await
    }

    /// Over the connection that is kept, if it still stands, or else a new one: what is said twice is done once.
    async fn say(&self, node: NodeId, kind: u8, body: Body<'_>, within: Duration) -> std::io::Result<String> {
        let said = timeout(within, async {
            let kept = self.kept().remove(&node);
            if let Some(stream) = kept
                && let Ok(answer) = self.say_over(node, stream, kind, body).await
            {
                return Ok(answer);
            }
            let mut stream = self.cluster.dial(node, StreamKind::Status).await.map_err(std::io::Error::other)?;
            stream.write_u8(BEGINS).await?;
            stream.flush().await?;
            self.key.begin(&mut stream, End::Caller).await?;
            self.say_over(node, stream, kind, body).await
        });
        said.await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
    }

    async fn say_over(
        &self,
        node: NodeId,
        mut stream: PeerStream,
        kind: u8,
        body: Body<'_>,
    ) -> std::io::Result<String> {
        stream.write_u8(kind).await?;
        match body {
            Body::Text(text) => frame::write(&mut stream, &text).await?,
            Body::Digits(digits) => stream.write_all(digits).await?,
        }
        stream.flush().await?;
        let answer = frame::read(&mut stream).await?;
        self.kept().insert(node, stream);
        Ok(answer)
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<NodeId, PeerStream>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers a node until its connection ends, whose first byte was [`BEGINS`].
///
/// # Errors
/// Those of the connection; `PermissionDenied` if the other end proves nothing; `InvalidData` for what is not known.
pub async fn answer(from: NodeId, answers: &FailoverAnswers, mut stream: PeerStream) -> std::io::Result<()> {
    answers.key.begin(&mut stream, End::Called).await?;
    loop {
        let about = match stream.read_u8().await? {
            QUESTION => AboutFailover::Question(frame::read_short(&mut stream).await?),
            ROOT_KEY => {
                let mut digits = Zeroizing::new([0; ROOT_KEY_BYTES]);
                stream.read_exact(digits.as_mut_slice()).await?;
                let text = std::str::from_utf8(digits.as_slice()).map_err(|_| ErrorKind::InvalidData)?;
                AboutFailover::RootKey(Zeroizing::new(text.to_owned()))
            }
            _ => return Err(ErrorKind::InvalidData.into()),
        };
        frame::write(&mut stream, &(answers.source)(from, about).await).await?;
    }
}
