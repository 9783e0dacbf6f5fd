//! A large body on its way to its mailbox's leader, here or on another node.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use mailraft_driver::StreamKind;
use mailraft_mailbox::api::NewMessage;
use mailraft_mailbox::session::{CHUNKS_UNANSWERED_MAX, ChunkOutcome};
use mailraft_mailbox::{MailboxKey, open_body_row};
use mailraft_storage::body::BodyId;
use mailraft_storage::{CommandId, MailboxId, NodeId};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Reach;
use super::chunks::{propose_chunk, tell_when_durable};
use super::frame::{self, ChunkDone, UploadChunk};
use crate::environment::os_env;

/// An upload to one node. Dropping it ends it.
pub struct Upload {
    body: BodyId,
    chunks: mpsc::Sender<(u32, Bytes)>,
    done: mpsc::Receiver<ChunkDone>,
    carrying: JoinHandle<()>,
}

struct Carrier {
    reach: Reach,
    node: NodeId,
    mailbox: MailboxId,
    command: CommandId,
    body: BodyId,
    count: u32,
}

impl Upload {
    /// Begins the upload of a message's body for a command.
    pub fn begin(reach: &Reach, node: NodeId, mailbox: MailboxId, command: CommandId, message: &NewMessage) -> Self {
        let (chunks, waiting) = mpsc::channel(CHUNKS_UNANSWERED_MAX);
        let (finished, done) = mpsc::channel(CHUNKS_UNANSWERED_MAX);
        let (body, count) = (message.body, message.chunks);
        let carrier = Carrier { reach: reach.clone(), node, mailbox, command, body, count };
        let carrying = tokio::spawn(async move {
            if let Err(error) = carrier.carry(waiting, finished).await {
                tracing::debug!(%command, %mailbox, %error, "an upload ended");
            }
        });
        Upload { body, chunks, done, carrying }
    }

    /// The body.
    pub fn body(&self) -> BodyId {
        self.body
    }

    /// Sends the next chunk. Where the upload is over, [`Upload::done`] says so.
    pub fn send(&self, number: u32, data: Bytes) {
        // There is room for all that may be unanswered.
        let _ = self.chunks.try_send((number, data));
    }

    /// What became of the next chunk; not durable where the upload is over. Safe to cancel.
    pub async fn done(&mut self) -> ChunkOutcome {
        self.done.recv().await.map_or(ChunkOutcome::NotDurable, |chunk| chunk.outcome)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

impl Carrier {
    async fn carry(self, waiting: mpsc::Receiver<(u32, Bytes)>, finished: mpsc::Sender<ChunkDone>) -> io::Result<()> {
        let (lookup, mailbox) = (Arc::clone(&self.reach.lookup), self.mailbox);
        let key = tokio::task::spawn_blocking(move || lookup.mailbox_key(mailbox)).await?;
        let Some((key, epoch)) = key.map_err(io::Error::other)? else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the mailbox has no key here"));
        };
        let (key, cluster) = (MailboxKey::new(key, epoch), &self.reach.cluster);
        let mut env = os_env();
        let open = open_body_row(&mut env, &key, cluster.cluster_id(), mailbox, self.body, self.count, cluster.wall());
        if self.node == cluster.node() {
            self.carry_here(open, waiting, finished).await;
            Ok(())
        } else {
            self.carry_there(open, waiting, finished).await
        }
    }

    fn chunk(&self, open: &Bytes, number: u32, data: Bytes) -> UploadChunk {
        let open = (number == 0).then(|| open.clone());
        UploadChunk { mailbox: self.mailbox, command: self.command, body: self.body, number, open, data }
    }

    async fn carry_here(
        &self,
        open: Bytes,
        mut waiting: mpsc::Receiver<(u32, Bytes)>,
        finished: mpsc::Sender<ChunkDone>,
    ) {
        while let Some((number, data)) = waiting.recv().await {
            let Ok(place) = finished.clone().reserve_owned().await else { return };
            // Proposed here and in order: a later chunk requires the row that the first one writes.
            let proposed = propose_chunk(&self.reach.cluster, self.chunk(&open, number, data));
            tokio::spawn(tell_when_durable(proposed, number, place));
        }
    }

    async fn carry_there(
        &self,
        open: Bytes,
        mut waiting: mpsc::Receiver<(u32, Bytes)>,
        finished: mpsc::Sender<ChunkDone>,
    ) -> io::Result<()> {
        let stream = self.reach.links.dial(self.node, StreamKind::Bodies).await?;
        let (mut read, mut write) = tokio::io::split(stream);
        let writing = async {
            while let Some((number, data)) = waiting.recv().await {
                frame::write(&mut write, &self.chunk(&open, number, data)).await?;
            }
            io::Result::Ok(())
        };
        let reading = async {
            loop {
                let chunk = frame::read::<ChunkDone>(&mut read).await?;
                if finished.send(chunk).await.is_err() {
                    return io::Result::Ok(());
                }
            }
        };
        tokio::select! { end = writing => end, end = reading => end }
    }
}
