//! The connections to other nodes that stand, in both directions, so that they can be ended from outside: where a node said
//! what no honest node says, and where its certificate is revoked.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use mailraft_storage::NodeId;
use tokio::sync::oneshot;

use crate::purpose::Purpose;

/// All connections that stand.
#[derive(Clone, Default)]
pub(crate) struct Connections {
    table: Arc<Mutex<Vec<Connection>>>,
}

struct Connection {
    node: NodeId,
    purpose: Purpose,
    /// Fingerprints of the certificates that the other end showed.
    certificates: Vec<[u8; 32]>,
    /// Whoever holds the other ends hears when these are dropped.
    reads: oneshot::Sender<()>,
    _writes: oneshot::Sender<()>,
}

impl Connections {
    /// One more stands, until what is returned is dropped.
    pub(crate) fn stands(&self, node: NodeId, purpose: Purpose, certificates: Vec<[u8; 32]>) -> Standing {
        let (reads, reads_end) = oneshot::channel();
        let (_writes, writes_end) = oneshot::channel();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|connection| !connection.reads.is_closed());
        table.push(Connection { node, purpose, certificates, reads, _writes });
        Standing { reads: Some(reads_end), writes: Some(writes_end) }
    }

    /// Ends those over which a node's Raft speaks.
    pub(crate) fn end_raft_of(&self, node: NodeId) {
        self.end(|connection| {
            connection.node == node && matches!(connection.purpose, Purpose::Raft | Purpose::Snapshot)
        });
    }

    /// Ends those whose other end showed a certificate of which this is true; gives how many.
    pub(crate) fn end_of_certificates(&self, ends: impl Fn(&[[u8; 32]]) -> bool) -> usize {
        self.end(|connection| ends(&connection.certificates))
    }

    fn end(&self, ends: impl Fn(&Connection) -> bool) -> usize {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|connection| !connection.reads.is_closed());
        let before = table.len();
        table.retain(|connection| !ends(connection));
        before - table.len()
    }
}

/// A connection's own view: whether it has been ended. Its two directions may belong to two tasks.
#[derive(Default)]
pub(crate) struct Standing {
    reads: Option<oneshot::Receiver<()>>,
    writes: Option<oneshot::Receiver<()>>,
}

impl Standing {
    /// An error once the connection has been ended; else whoever reads is woken then.
    pub(crate) fn poll_reads(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        poll(&mut self.reads, cx)
    }

    /// An error once the connection has been ended; else whoever writes is woken then.
    pub(crate) fn poll_writes(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        poll(&mut self.writes, cx)
    }
}

fn poll(end: &mut Option<oneshot::Receiver<()>>, cx: &mut Context<'_>) -> std::io::Result<()> {
    if let Some(receiver) = end {
        match Pin::new(receiver).poll(cx) {
            Poll::Pending => return Ok(()),
            Poll::Ready(_) => *end = None,
        }
    }
    Err(std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "this node has ended the connection"))
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn the_raft_connections_of_one_node_end_and_no_others() {
        let connections = Connections::default();
        let (two, three) = (NodeId(2), NodeId(3));
        let sessions = Purpose::User(crate::purpose::StreamKind::Sessions);
        let mut standing = [(two, Purpose::Raft), (two, Purpose::Snapshot), (two, sessions), (three, Purpose::Raft)]
            .map(|(node, purpose)| connections.stands(node, purpose, vec![[node.0 as u8; 32]]));
        drop(connections.stands(two, Purpose::Raft, Vec::new()));
        connections.end_raft_of(two);
        let mut context = Context::from_waker(Waker::noop());
        for (standing, ended) in standing.iter_mut().zip([true, true, false, false]) {
            for _ in 0..2 {
                assert_eq!(standing.poll_reads(&mut context).is_err(), ended);
                assert_eq!(standing.poll_writes(&mut context).is_err(), ended);
            }
        }
        assert_eq!(connections.end_of_certificates(|shown| shown.contains(&[2; 32])), 1);
        assert!(standing[2].poll_reads(&mut context).is_err() && standing[3].poll_reads(&mut context).is_ok());
        assert_eq!(connections.table.lock().map(|table| table.len()).ok(), Some(1));
    }
}
