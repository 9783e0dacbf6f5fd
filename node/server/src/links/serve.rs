//! The other end: sessions of other nodes that attach to actors here, and chunks of bodies they upload.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mailraft_driver::{PeerStream, StreamKind};
use mailraft_mailbox::Detached;
use mailraft_mailbox::session::CHUNKS_UNANSWERED_MAX;
use mailraft_storage::{MailboxId, NodeId};
use tokio::io::BufReader;
use tokio::sync::mpsc;

use super::Reach;
use super::batch::batch;
use super::chunks::{propose_chunk, tell_when_durable};
use super::failover::FailoverAnswers;
use super::frame::{self, Addressed, ChunkDone, Response, Rpc, RpcReply, Understood, UploadChunk};
use super::packed;
use super::questions::{self, StatusSource};
use crate::actors::{LocalLink, SessionKey};
use crate::counted::Counted;
use crate::outbox::{ToSession, channel};
use crate::settings;
use crate::throttle::GuessNews;

/// Questions of one connection that may be under way at once.
const RPCS_MAX: usize = 64;

/// What answers other nodes' questions about this one: whoever is above the links.
#[derive(Clone)]
pub struct OwnAnswers {
    /// How this node is.
    pub status: StatusSource,
    /// What is said about a takeover.
    pub failover: FailoverAnswers,
    /// Takes what was guessed at another node.
    pub guesses: Arc<dyn Fn(GuessNews) + Send + Sync>,
    /// What was counted here for reports.
    pub counted: Counted,
}

/// Serves streams that other nodes open, until there are no more.
pub async fn serve_streams(
    reach: Reach,
    own: OwnAnswers,
    mut streams: mpsc::Receiver<(NodeId, StreamKind, PeerStream)>,
) {
    static CONNECTIONS: AtomicU64 = AtomicU64::new(1);
    while let Some((node, kind, mut stream)) = streams.recv().await {
        let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        let (reach, own) = (reach.clone(), own.clone());
        tokio::spawn(async move {
            let end = async {
                match kind {
                    StreamKind::Sessions => {
                        let greeting = reach.links.accept(&mut stream).await?;
                        let packs = greeting.features.iter().any(|feature| feature == packed::FEATURE);
                        sessions(reach, own, connection, packs, stream).await
                    }
                    StreamKind::Bodies => {
                        reach.links.accept(&mut stream).await?;
                        bodies(reach, stream).await
                    }
                    StreamKind::Status => questions::answer(node, &own.status, &own.failover, stream).await,
                }
            };
            let end = end.await;
            if let Err(error) = end {
                tracing::debug!(node = node.0, %error, "a connection of another node's sessions ended");
            }
        });
    }
}

/// `packs`: the other end understands what is packed.
async fn sessions(
    reach: Reach,
    own: OwnAnswers,
    connection: u64,
    packs: bool,
    stream: PeerStream,
) -> std::io::Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    let (outbox, mut inbox) = channel(0, reach.queues.of(MailboxId::PARTITION));
    let (replies, mut replied) = mpsc::channel::<(u64, Response)>(RPCS_MAX);
    let writing = async {
        loop {
            let batch = tokio::select! {
                message = inbox.next() => match message {
                    Some(first) => batch(&mut inbox, first, packs),
                    None => return std::io::Result::Ok(()),
                },
                Some((number, reply)) = replied.recv() => frame::response(number, &reply),
            };
            frame::write_batch(&mut write, &batch).await?;
        }
    };
    let reading = async {
        let mut read = BufReader::with_capacity(64 << 10, read);
        let mut attached: HashMap<u64, LocalLink> = HashMap::new();
        loop {
            let Addressed { number: session, body } = frame::read(&mut read).await?;
            match Understood::of(&body) {
                Understood::Attach(mailbox) => {
                    let key = SessionKey { connection, session };
                    let outbox = outbox.for_session(session, reach.queues.of(mailbox));
                    match reach.registry.attach(key, mailbox, outbox.clone()) {
                        Ok(link) => {
                            attached.insert(session, link);
                        }
                        Err(why) => outbox.send(ToSession::Detached(why)),
                    }
                }
                Understood::Ask(id, attempt, command) => {
                    let asked = match attached.get(&session) {
                        Some(link) => link.ask(id, attempt, *command),
                        None => Err(Detached::Gone),
                    };
                    if let Err(why) = asked {
                        attached.remove(&session);
                        let outbox = outbox.for_session(session, reach.queues.of(MailboxId::PARTITION));
                        outbox.send(ToSession::Detached(why));
                    }
                }
                Understood::Detach => {
                    attached.remove(&session);
                }
                Understood::Rpc(rpc) => answer(&reach, &own, session, rpc, replies.clone()),
                Understood::Refused(refusal) => {
                    // The connection may be over; then nobody waits.
                    let _ = replies.send((session, refusal)).await;
                }
            }
        }
        #[allow(unreachable_code)]
        std::io::Result::Ok(())
    };
    tokio::select! { end = writing => end, end = reading => end }
}

fn answer(reach: &Reach, own: &OwnAnswers, number: u64, rpc: Rpc, replies: mpsc::Sender<(u64, Response)>) {
    let (reach, own) = (reach.clone(), own.clone());
    tokio::spawn(async move {
        let reply = match rpc {
            Rpc::Directory { id, command } => match reach.registry.directory(id, command).await {
                Ok((result, at)) => RpcReply::Directory { result, at },
                Err(why) => RpcReply::Detached(why),
            },
            Rpc::Status => RpcReply::Status((own.status)().await),
            Rpc::Guesses(news) => {
                (own.guesses)(news);
                RpcReply::Heard
            }
            Rpc::SetRegions { id, settings } => {
                RpcReply::SetRegions(settings::set_here(&reach.cluster, id, settings).await)
            }
            Rpc::Feedback(question) => RpcReply::Feedback(own.counted.answer(question).await),
            Rpc::Trail(question) => {
                RpcReply::Trail(serde_json::to_string(&reach.trail.tell(&question)).unwrap_or_default())
            }
        };
        // The connection may be over; then nobody waits.
        let _ = replies.send((number, Response::Rpc(reply))).await;
    });
}

/// Chunks come in order and are answered as each becomes durable; the sender keeps at most 8 unanswered.
async fn bodies(reach: Reach, stream: PeerStream) -> std::io::Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    let (done, mut finished) = mpsc::channel::<ChunkDone>(CHUNKS_UNANSWERED_MAX);
    let writing = async {
        while let Some(chunk) = finished.recv().await {
            frame::write(&mut write, &chunk).await?;
        }
        std::io::Result::Ok(())
    };
    let reading = async {
        let mut read = BufReader::with_capacity(64 << 10, read);
        loop {
            let chunk = frame::read::<UploadChunk>(&mut read).await?;
            // Waits for a place: no more than the channel holds are under way.
            let Ok(place) = done.clone().reserve_owned().await else { return std::io::Result::Ok(()) };
            let number = chunk.number;
            // Proposed here and in order: a later chunk requires the row that the first one writes.
            let proposed = propose_chunk(&reach.cluster, chunk);
            tokio::spawn(tell_when_durable(proposed, number, place));
        }
        #[allow(unreachable_code)]
        std::io::Result::Ok(())
    };
    tokio::select! { end = writing => end, end = reading => end }
}
