//! Sending a snapshot: a thread reads pages of an unchanging view, a task sends them at a bounded rate.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mailraft_cluster::{PeerMessage, frame};
use mailraft_storage::{Index, NodeId, ReplicaId, RowKey, StoreError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::metrics;
use crate::snapshot::Context;
use crate::snapshot::file::{Header, PAGE_BYTES, Writer};
use crate::snapshot::receive::TAKEN;
use crate::stream::{self, DialError, Purpose};

/// Rows read from the view at once.
const READ_ROWS: usize = 64;
/// Pages read ahead of what is sent.
const AHEAD_PAGES: usize = 2;
/// How long one page may take to be sent.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the other side may take to check and sync the last of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Why a snapshot was not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("{0} is no peer of this node")]
    UnknownNode(NodeId),
    #[error("this node has no replica {0}")]
    NoReplica(ReplicaId),
    #[error("the core's message is no MsgSnapshot")]
    NotASnapshot,
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("the other node was too slow")]
    Slow,
    #[error("the other node did not take it (answer {0})")]
    NotTaken(u8),
    #[error("reading it stopped")]
    Stopped,
    #[error("reading it panicked")]
    Panicked,
}

/// Sends a replica's rows as they are now; returns their position once the other side has them whole.
pub(super) async fn send(
    context: &Context,
    replica: ReplicaId,
    to: NodeId,
    message: PeerMessage,
) -> Result<Index, SendError> {
    let result = transfer(context, replica, to, message).await;
    match &result {
        Err(SendError::Store(error)) => context.inputs.damaged(replica, error),
        Err(SendError::Panicked) => context.fatal.raise(format!(
            "reading the rows of replica {replica} for a snapshot panicked; this is a bug: keep the log and report it"
        )),
        Ok(_) | Err(_) => {}
    }
    let label = if result.is_ok() { "ok" } else { "failed" };
    ::metrics::counter!(metrics::SNAPSHOTS_SENT, "result" => label).increment(1);
    result
}

async fn transfer(context: &Context, replica: ReplicaId, to: NodeId, message: PeerMessage) -> Result<Index, SendError> {
    let address = context.peers.get(&to).ok_or(SendError::UnknownNode(to))?;
    let mut stream = stream::connect(&context.me, to, address, Purpose::Snapshot).await?;
    let (pages, mut read) = mpsc::channel(AHEAD_PAGES);
    let sending = context.far.region(to).map(|_| context.under_way.begins(message.partition, to));
    let rows = context.rows.clone();
    let cluster = context.me.cluster;
    let reading = tokio::task::spawn_blocking(move || {
        let view = rows.view(replica)?.ok_or(SendError::NoReplica(replica))?;
        let applied = view.applied().clone();
        let mut message = message;
        if !message.set_position(&applied) {
            return Err(SendError::NotASnapshot);
        }
        let index = applied.index;
        let header = Header { cluster, applied, message: frame::encode(&message).into() };
        let (mut writer, first) = Writer::begin(&header);
        let gone = |_| SendError::Stopped;
        pages.blocking_send(first).map_err(gone)?;
        let mut after: Option<RowKey> = None;
        loop {
            let found = view.rows(after.as_ref(), READ_ROWS)?;
            let Some((last, _)) = found.last() else { break };
            after = Some(last.clone());
            for part in split(&found) {
                pages.blocking_send(writer.page(part)).map_err(gone)?;
            }
        }
        pages.blocking_send(writer.end()).map_err(gone)?;
        Ok(index)
    });
    let sent_bytes = ::metrics::counter!(metrics::SNAPSHOT_SENT_BYTES);
    let (bytes_per_second, to_region) = match context.far.region(to) {
        Some(region) => {
            let to_region = ::metrics::counter!(metrics::REGION_SENT_BYTES, "region" => region.to_owned());
            (context.far_bytes_per_second, Some(to_region))
        }
        None => (context.bytes_per_second, None),
    };
    let begun = Instant::now();
    let mut sent: u64 = 0;
    while let Some(page) = read.recv().await {
        timeout(PAGE_TIMEOUT, stream.write_all(&page)).await.map_err(|_| SendError::Slow)??;
        sent += page.len() as u64;
        sent_bytes.increment(page.len() as u64);
        if let (Some(to_region), Some(sending)) = (&to_region, &sending) {
            to_region.increment(page.len() as u64);
            sending.sent(page.len() as u64);
        }
        let earliest = Duration::from_secs_f64(sent as f64 / bytes_per_second as f64);
        sleep(earliest.saturating_sub(begun.elapsed())).await;
    }
    let index = reading.await.map_err(|e| if e.is_panic() { SendError::Panicked } else { SendError::Stopped })??;
    stream.flush().await?;
    let answer = timeout(ANSWER_TIMEOUT, stream.read_u8()).await.map_err(|_| SendError::Slow)??;
    if answer == TAKEN { Ok(index) } else { Err(SendError::NotTaken(answer)) }
}

/// Parts of at most [`PAGE_BYTES`] of values, or of one row.
fn split(rows: &[(RowKey, Bytes)]) -> impl Iterator<Item = &[(RowKey, Bytes)]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|(_, value)| {
            bytes += value.len();
            bytes <= PAGE_BYTES
        });
        let (part, left) = rest.split_at(fitting.count().max(1).min(rest.len()));
        rest = left;
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mailraft_storage::Table;

    #[test]
    fn pages_are_bounded_but_for_one_large_row_and_lose_nothing() {
        let row =
            |n: usize, bytes: usize| (RowKey::partition(Table::Commands, [n as u8; 16]), Bytes::from(vec![0; bytes]));
        let rows = [row(0, 10), row(1, PAGE_BYTES - 10), row(2, 1), row(3, 2 * PAGE_BYTES), row(4, 5), row(5, 5)];
        let parts: Vec<usize> = split(&rows).map(<[_]>::len).collect();
        assert_eq!(parts, [2, 1, 1, 2]);
        assert_eq!(split(&[]).count(), 0);
    }
}
