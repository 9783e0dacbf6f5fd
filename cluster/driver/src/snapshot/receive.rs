//! Receiving a snapshot into a file, checked and synced before the core hears of it.

use std::time::Duration;

use bytes::Bytes;
use mailraft_cluster::{Input, PeerMessage, SnapshotEvent, frame};
use mailraft_storage::rows::Applied;
use mailraft_storage::{NodeId, ReplicaId, StoreError};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use crate::metrics;
use crate::snapshot::Context;
use crate::snapshot::file::{Checker, Header, RECORD_HEAD_BYTES, Record};
use crate::snapshot::group_rows::Arriving;
use crate::snapshot::staging::file_error;
use crate::stream::PeerStream;

/// The answer when a snapshot is whole and synced.
pub(super) const TAKEN: u8 = 0;
/// The answer to one that is not taken.
const NOT_TAKEN: u8 = 1;
/// The answer when another of the same replica arrives already.
const BUSY: u8 = 2;
/// How long the next record may take.
const RECORD_TIMEOUT: Duration = Duration::from_secs(30);

/// Takes snapshots of other nodes.
#[derive(Clone)]
pub(crate) struct Receiver {
    context: Context,
}

#[derive(Debug, thiserror::Error)]
enum ReceiveError {
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("the other node was too slow")]
    Slow,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("it could not be synced: {0}")]
    NotSynced(StoreError),
    #[error("it is not for this node: {0}")]
    NotOurs(String),
    #[error("another snapshot of replica {0} arrives already")]
    Busy(ReplicaId),
}

impl Receiver {
    pub(super) fn new(context: Context) -> Self {
        Receiver { context }
    }

    /// Takes the snapshot that this stream brings, answers, and tells the core.
    pub(crate) async fn receive(&self, from: NodeId, stream: PeerStream) {
        let mut stream = BufReader::with_capacity(64 << 10, stream);
        let result = self.stage(&mut stream).await;
        let label = if result.is_ok() { "ok" } else { "failed" };
        ::metrics::counter!(metrics::SNAPSHOTS_RECEIVED, "result" => label).increment(1);
        let answer = match result {
            Ok((message, applied)) => {
                tracing::info!(peer = %from, replica = %message.to, index = %applied.index, "received a snapshot");
                self.context.inputs.own(Input::Snapshot(SnapshotEvent::Staged { from, message, applied }));
                TAKEN
            }
            Err(error) => {
                tracing::warn!(peer = %from, %error, "a snapshot of another node was not taken");
                if let ReceiveError::NotSynced(error) = &error {
                    self.context
                        .fatal
                        .raise(format!("{error}. Check the disk and its file system, then start the node again"));
                }
                if matches!(error, ReceiveError::Busy(_)) { BUSY } else { NOT_TAKEN }
            }
        };
        // If the other side does not hear it, it sends again.
        let stream = stream.get_mut();
        if stream.write_u8(answer).await.is_ok() {
            let _ = stream.shutdown().await;
        }
    }

    async fn stage(&self, stream: &mut BufReader<PeerStream>) -> Result<(PeerMessage, Applied), ReceiveError> {
        let mut checker = Checker::begin(patient(stream.read_u8()).await?)?;
        let mut bytes = vec![crate::snapshot::file::VERSION];
        let Record::Header(header) = next(stream, &mut checker, &mut bytes).await? else {
            return Err(StoreError::damaged("snapshot", "its header is missing").into());
        };
        let message = self.judge(&header)?;
        let replica = message.to;
        let _claim = self.context.staging.claim(replica).ok_or(ReceiveError::Busy(replica))?;

        let path = self.context.staging.part(replica);
        let mut file = File::create(&path).await.map_err(|e| file_error(&path, e))?;
        let received = ::metrics::counter!(metrics::SNAPSHOT_RECEIVED_BYTES);
        let (mut own, mut ended) = (Arriving::default(), false);
        loop {
            file.write_all(&bytes).await.map_err(|e| file_error(&path, e))?;
            received.increment(bytes.len() as u64);
            if ended {
                break;
            }
            bytes.clear();
            match next(stream, &mut checker, &mut bytes).await? {
                Record::Page(rows) => own.take(&rows)?,
                Record::End => ended = true,
                Record::Header(_) => unreachable!("the checker takes one header"),
            }
        }
        own.check(replica, &header.applied)?;
        let synced = async {
            file.flush().await?;
            file.sync_all().await?;
            drop(file);
            let (staging, index) = (self.context.staging.clone(), header.applied.index);
            tokio::task::spawn_blocking(move || staging.publish(replica, index)).await.map_err(std::io::Error::other)?
        };
        synced.await.map_err(|e| ReceiveError::NotSynced(file_error(&path, e)))?;
        Ok((message, header.applied))
    }

    fn judge(&self, header: &Header) -> Result<PeerMessage, ReceiveError> {
        let not_ours = |what: &str| ReceiveError::NotOurs(what.to_owned());
        if header.cluster != self.context.me.cluster {
            return Err(not_ours("another cluster"));
        }
        let Some(message) = frame::decode(&header.message)? else {
            return Err(not_ours("of a later version"));
        };
        if message.cluster != header.cluster || !message.has_position(&header.applied) {
            return Err(not_ours("its message and its position differ"));
        }
        // A replica that never was here must not fill the disk. A new one has no rows yet, but a log.
        if self.context.log.state(message.to)?.is_none() && self.context.rows.applied(message.to)?.is_none() {
            return Err(not_ours("no such replica"));
        }
        Ok(message)
    }
}

/// Reads a record, appending its bytes.
async fn next(
    stream: &mut BufReader<PeerStream>,
    checker: &mut Checker,
    bytes: &mut Vec<u8>,
) -> Result<Record, ReceiveError> {
    let mut head = [0; RECORD_HEAD_BYTES];
    patient(stream.read_exact(&mut head)).await?;
    let mut content = vec![0; Checker::length(&head)?];
    patient(stream.read_exact(&mut content)).await?;
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&content);
    Ok(checker.record(&head, Bytes::from(content))?)
}

async fn patient<T>(read: impl Future<Output = std::io::Result<T>>) -> Result<T, ReceiveError> {
    Ok(timeout(RECORD_TIMEOUT, read).await.map_err(|_| ReceiveError::Slow)??)
}
