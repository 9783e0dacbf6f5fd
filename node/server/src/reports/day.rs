//! What all nodes counted of a day.

use std::sync::Arc;

use bytes::Bytes;
use mailraft_driver::Cluster;
use mailraft_feedback::dmarc::MessagesOfDay;
use mailraft_feedback::tls::SessionsOfDay;
use mailraft_feedback::{Day, Kind};
use mailraft_storage::NodeId;

use super::Reports;
use crate::counted::{FeedbackAnswer, FeedbackQuestion, What};
use crate::links::{Rpc, RpcReply};
use crate::region;

/// Parts of a day that a node may have, more than its bounds leave room for.
const PARTS_MAX: u32 = 1_024;

/// A day to be reported.
pub struct Reported {
    /// Sessions of TLS.
    pub sessions: SessionsOfDay,
    /// Messages that DMARC judged.
    pub messages: MessagesOfDay,
}

/// Nodes whose counts are in no report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Without {
    /// They did not answer.
    pub silent: usize,
    /// By their clocks the day goes on.
    pub behind: usize,
}

/// Why a node's counts are not there.
enum NoParts {
    Silent,
    Behind,
}

impl Reported {
    /// Asks all nodes.
    pub async fn gather(reports: &Reports, day: u64) -> (Self, Without) {
        let mut all = Reported { sessions: Day::new(day), messages: Day::new(day) };
        let mut without = Without::default();
        for node in nodes(&reports.reach.cluster) {
            let sessions = of_node(reports, node, What::Sessions, day).await;
            let messages = of_node(reports, node, What::Messages, day).await;
            let (sessions, messages) = match (sessions, messages) {
                (Ok(sessions), Ok(messages)) => (sessions, messages),
                (Err(NoParts::Behind), _) | (_, Err(NoParts::Behind)) => {
                    without.behind += 1;
                    continue;
                }
                (Err(NoParts::Silent), _) | (_, Err(NoParts::Silent)) => {
                    tracing::warn!(node = node.0, "a node does not say what it counted: reports are without that");
                    without.silent += 1;
                    continue;
                }
            };
            let merged = tokio::task::spawn_blocking(move || {
                take_in(&mut all.sessions, node, &sessions);
                take_in(&mut all.messages, node, &messages);
                all
            });
            all = match merged.await {
                Ok(all) => all,
                Err(error) => {
                    tracing::error!(%error, "making one day of what nodes counted panicked");
                    return (Reported { sessions: Day::new(day), messages: Day::new(day) }, without);
                }
            };
        }
        (all, without)
    }

    /// Tells all nodes that a day's reports are sent. Who does not hear it forgets the day when two others have begun.
    pub async fn forget(reports: &Reports, day: u64) {
        for node in nodes(&reports.reach.cluster) {
            ask(reports, node, FeedbackQuestion::Told { day }).await;
        }
    }
}

/// The nodes that serve mail, this one first.
fn nodes(cluster: &Cluster) -> Vec<NodeId> {
    let regions = region::regions(cluster);
    let is_home = |node: &NodeId| regions.as_ref().is_none_or(|regions| regions.is_home(*node));
    std::iter::once(cluster.node()).chain(cluster.peers().into_iter().filter(is_home)).collect()
}

/// All parts of what a node counted.
async fn of_node(reports: &Reports, node: NodeId, what: What, day: u64) -> Result<Vec<Bytes>, NoParts> {
    let mut all: Vec<Bytes> = Vec::new();
    loop {
        let from = u32::try_from(all.len()).ok().filter(|from| *from < PARTS_MAX).ok_or(NoParts::Silent)?;
        match ask(reports, node, FeedbackQuestion::Parts { what, day, from }).await {
            Some(FeedbackAnswer::Parts { parts, more }) => {
                let is_over = !more || parts.is_empty();
                all.extend(parts);
                if is_over {
                    return Ok(all);
                }
            }
            Some(FeedbackAnswer::NotNow) => return Err(NoParts::Behind),
            Some(FeedbackAnswer::Noted) | None => return Err(NoParts::Silent),
        }
    }
}

async fn ask(reports: &Reports, node: NodeId, question: FeedbackQuestion) -> Option<FeedbackAnswer> {
    if node == reports.reach.cluster.node() {
        return Some(reports.counted.answer(question).await);
    }
    match Arc::clone(&reports.reach.links).ask(node, Rpc::Feedback(question)).await {
        Ok(RpcReply::Feedback(answer)) => Some(answer),
        // A node of an earlier version, which counts nothing, or one that is away.
        Ok(
            RpcReply::Unsupported
            | RpcReply::Detached(_)
            | RpcReply::Directory { .. }
            | RpcReply::Status(_)
            | RpcReply::Heard
            | RpcReply::SetRegions(_)
            | RpcReply::Trail(_),
        )
        | Err(_) => None,
    }
}

/// Takes in what a node counted; what can't be read is left out.
fn take_in<K: Kind>(all: &mut Day<K>, node: NodeId, parts: &[Bytes]) {
    for part in parts {
        match Day::decode(part) {
            Ok(part) => {
                if let Err(error) = all.merge(part) {
                    tracing::warn!(node = node.0, %error, "part of what a node counted is left out of reports");
                }
            }
            Err(error) => {
                tracing::warn!(node = node.0, %error, "part of what a node counted is left out of reports");
            }
        }
    }
}
