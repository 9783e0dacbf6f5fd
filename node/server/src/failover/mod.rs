//! A region takes the cluster over from a home that is lost: what an operator is told before, the word as it goes from node
//! to node, and each step with its time. What follows from the word is the core's (`mailraft_cluster::takeover`).
//!
//! An operator asks one node of the region. That one asks the region's others over their own connections, and gives the word
//! to all of them, itself first. Nothing of it needs the home, nor a node that goes on: who runs the command again, on
//! whatever node of the region, goes on with the incarnation that is there.

mod ages;
mod facts;
mod fence;
mod gather;
mod home;
mod numbers;
mod plan;
mod promised;
mod refused;
mod run;
mod settled;
mod unsealing;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use mailraft_cluster::regions::{RegionName, Regions};
use mailraft_cluster::takeover;
use mailraft_driver::{Cluster, TakeOverOutcome, TakeOverRefusal};
use mailraft_storage::{Incarnation, Index, NodeId, PartitionId};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinSet;

pub use mailraft_cluster::mode::Mode;

pub use facts::{Answer, Facts, Heard, HomeSays, Promised, Question, Seal, Standing};
pub use fence::FENCE_MAX;
pub use plan::{Group, Plan};
pub use refused::Refused;
pub use run::{Order, Progress, Rehearsal, Step, Word};
pub use unsealing::{KeyState, Unsealing};

use crate::config::Config;
use crate::links::{AboutFailover, FailoverAnswers, FailoverLinks};
use crate::region;
use home::HomeWatch;
use plan::Known;

/// A node of the region is waited for so long: it is near.
const ASK_MAX: Duration = Duration::from_millis(700);

/// A node's part in takeovers. Clones are handles to the same.
#[derive(Clone)]
pub struct Failover {
    cluster: Cluster,
    config: Arc<Config>,
    links: FailoverLinks,
    unsealing: Unsealing,
    home: HomeWatch,
    serving: Arc<OnceLock<Serving>>,
    progress: Arc<Mutex<Option<Progress>>>,
    /// An operator gives the word while a command is asked for it.
    overruled: Arc<Notify>,
}

/// How a node of a cluster of several regions is prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeoverStatus {
    /// Whether it could open mailboxes.
    pub key: KeyState,
    /// Its region is home, and it serves no mail for want of the root key.
    pub waits_for_key: bool,
}

/// What a node that takes clients says of that.
pub struct Serving {
    /// How many mailboxes are open.
    pub mailboxes: Box<dyn Fn() -> usize + Send + Sync>,
    /// When the first message was accepted.
    pub accepted: Arc<OnceLock<Instant>>,
}

impl Failover {
    /// Of a node that begins.
    pub fn new(cluster: Cluster, config: Arc<Config>, links: FailoverLinks, unsealing: Unsealing) -> Self {
        let home = HomeWatch::new(cluster.clone(), links.clone());
        let (serving, progress, overruled) = Default::default();
        Failover { cluster, config, links, unsealing, home, serving, progress, overruled }
    }

    /// Looks after what may be needed, for ever: tries the key, and hears how the home is.
    pub async fn watch(self) {
        tokio::join!(self.unsealing.clone().watch(), self.home.clone().watch());
    }

    /// The root key of this node, or the want of it.
    pub fn unsealing(&self) -> &Unsealing {
        &self.unsealing
    }

    /// The replicated groups.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What the node says of itself in its status; None in a cluster of one region.
    pub fn status(&self) -> Option<TakeoverStatus> {
        let regions = region::regions(&self.cluster)?;
        let serves = self.serving.get().is_some();
        Some(TakeoverStatus {
            key: self.unsealing.state(),
            waits_for_key: regions.is_home(self.cluster.node()) && !serves,
        })
    }

    /// This node takes clients from now on.
    pub fn serves(&self, serving: Serving) {
        // A node begins to serve once in its life.
        let _ = self.serving.set(serving);
    }

    /// What answers other nodes.
    pub fn answers(&self) -> FailoverAnswers {
        let failover = self.clone();
        let source = move |from, about| -> Pin<Box<dyn Future<Output = String> + Send>> {
            let failover = failover.clone();
            Box::pin(async move {
                match about {
                    AboutFailover::Question(text) => failover.answer(from, &text).await,
                    AboutFailover::RootKey(text) => failover.is_given_key(from, &text).await,
                }
            })
        };
        FailoverAnswers { key: self.links.key().clone(), source: Arc::new(source) }
    }

    async fn answer(&self, from: NodeId, text: &str) -> String {
        let answer = match serde_json::from_str(text) {
            Ok(Question::Facts) => Answer::Facts(Box::new(self.facts().await)),
            Ok(Question::Home { region }) => Answer::Home(home::says(&self.cluster, &region).await),
            Ok(Question::Word { incarnation, word }) if self.is_near(from) => self.hears(incarnation, word).await,
            Ok(Question::Word { .. }) => Answer::Refused {
                why: format!("node {from} stands in another region than node {}", self.cluster.node()),
                again: false,
            },
            Err(error) => {
                Answer::Refused { why: format!("this version does not know the question ({error})"), again: false }
            }
        };
        serde_json::to_string(&answer).unwrap_or_default()
    }

    /// Only a node of its own region says anything to this one that it goes by.
    fn is_near(&self, from: NodeId) -> bool {
        !self.cluster.is_far(from)
    }

    /// An operator's word reaches this node.
    async fn hears(&self, incarnation: Incarnation, word: String) -> Answer {
        tracing::warn!(incarnation = incarnation.number, %word, "this region takes the cluster over");
        match self.cluster.take_over(incarnation, word).await {
            Some(TakeOverOutcome::Adopted) => Answer::Adopted,
            // Its rows say that the takeover has begun.
            Some(TakeOverOutcome::Refused(TakeOverRefusal::IsHome)) if self.is_of(incarnation).await => Answer::Adopted,
            Some(TakeOverOutcome::Refused(TakeOverRefusal::NotHigher { own })) if own > incarnation.number => {
                Answer::Later { number: own }
            }
            // Of another number than that which it is told: who tells it has slept through that.
            Some(TakeOverOutcome::Refused(TakeOverRefusal::IsHome)) => {
                Answer::Begun { number: region::regions(&self.cluster).as_ref().map_or(1, begun) }
            }
            Some(TakeOverOutcome::Refused(why)) => {
                Answer::Refused { why: why.to_string(), again: why == TakeOverRefusal::Busy }
            }
            None => Answer::Refused { why: "its disk or its apply stands still".to_owned(), again: true },
        }
    }

    async fn is_of(&self, incarnation: Incarnation) -> bool {
        let status = self.cluster.status().await;
        status.partitions.iter().any(|r| r.partition == PartitionId::CONTROL && r.incarnation == incarnation)
    }

    /// Another node hands the root key over that an operator gave it. Why it is not taken; empty if it is.
    async fn is_given_key(&self, from: NodeId, text: &str) -> String {
        if !self.is_near(from) {
            return format!("node {from} stands in another region than node {}", self.cluster.node());
        }
        self.unsealing.take(text).await.err().unwrap_or_default()
    }

    /// What this node says of itself.
    pub async fn facts(&self) -> Facts {
        if !self.unsealing.state().usable {
            // Its file may be there by now; what comes of it stands in the state.
            let _ = self.unsealing.key().await;
        }
        let status = self.cluster.status().await;
        let leading = self.cluster.leading().borrow().clone();
        let regions = region::regions(&self.cluster);
        let standing = |replica: &mailraft_cluster::ReplicaStatus| Standing {
            partition: replica.partition,
            incarnation: replica.incarnation,
            last: replica.last,
            ahead: replica.ahead.is_some(),
            home_heard_ms: replica.home_heard_ms,
            ready: leading
                .get(&replica.partition)
                .is_some_and(|led| led.incarnation.number == replica.incarnation.number),
            contested: replica.contested,
            sealed: replica.sealed_by.is_some(),
        };
        let near = |peer: &&mailraft_driver::PeerStatus| peer.connected && self.is_near(peer.node);
        let control = status.partitions.iter().find(|replica| replica.partition == PartitionId::CONTROL);
        let seal = |control: &mailraft_cluster::ReplicaStatus| {
            let by = regions.as_ref().and_then(|regions| region::of_control(regions, &control.sealed_voters));
            Some(Seal { number: control.sealed_by?, region: by.map(|by| by.0) })
        };
        // The rows are read later than this was said, so they have that and what came since.
        let promised = |(control, regions): (&mailraft_cluster::ReplicaStatus, &Regions)| Promised {
            applied: control.applied,
            row: regions.row().clone(),
            mode: *regions.mode(),
            settings: regions.changes().newest().map_or(Index(0), |newest| newest.index),
            in_log: control.settings_in_log.clone(),
        };
        let serving = self.serving.get();
        let accepted = serving.and_then(|serving| serving.accepted.get());
        Facts {
            node: status.node,
            home: regions.as_ref().map_or_else(String::new, |regions| regions.home().0.clone()),
            begun: regions.as_ref().map_or(1, begun),
            standings: status.partitions.iter().map(standing).collect(),
            home_nodes: self.home.heard(),
            neighbours: status.peers.iter().filter(near).map(|peer| peer.node).collect(),
            confirmed_ago_ms: self.home.confirmed_ago_ms(),
            home_said: self.home.said(),
            key: self.unsealing.state(),
            serves: serving.is_some(),
            mailboxes: serving.map_or(0, |serving| (serving.mailboxes)()),
            accepted_ago_ms: accepted.map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
            sealed_by: control.and_then(seal),
            promised: control.zip(regions.as_ref()).map(promised),
        }
    }

    /// The nodes of this node's region that have a standby of the control group.
    fn nodes(&self, regions: &Regions) -> Vec<NodeId> {
        let Some(own) = regions.of(self.cluster.node()) else { return Vec::new() };
        let control = regions.placements().find(|placed| placed.partition == PartitionId::CONTROL);
        control.into_iter().flat_map(|placed| takeover::standbys(regions, placed, own)).map(|m| m.node).collect()
    }

    /// What the region's nodes say of themselves.
    async fn gather(&self, regions: &Regions) -> BTreeMap<NodeId, Option<Facts>> {
        let (nodes, mut asking) = (self.nodes(regions), JoinSet::new());
        for node in nodes.iter().copied() {
            let failover = self.clone();
            asking.spawn(async move {
                let facts = match failover.ask(node, &Question::Facts).await {
                    Ok(Answer::Facts(facts)) => Some(*facts),
                    Ok(_) | Err(_) => None,
                };
                (node, facts)
            });
        }
        let own = regions.of(self.cluster.node()).cloned().unwrap_or_else(|| RegionName(String::new()));
        gather::gather(&nodes, asking, |facts| plan::is_enough(&self.known(&own, regions, facts))).await
    }

    fn known<'a>(
        &self,
        to: &'a RegionName,
        regions: &'a Regions,
        facts: &'a BTreeMap<NodeId, Option<Facts>>,
    ) -> Known<'a> {
        Known {
            to,
            regions,
            settings: Index(0),
            partitions: self.cluster.partitions(),
            facts,
            now: self.cluster.wall(),
        }
    }

    /// Asks a node of the region, which may be this one.
    async fn ask(&self, node: NodeId, question: &Question) -> std::io::Result<Answer> {
        let text = serde_json::to_string(question).map_err(std::io::Error::other)?;
        let answer = match node == self.cluster.node() {
            true => self.answer(node, &text).await,
            false => {
                // A word is answered once it is durable.
                let longer = match question {
                    Question::Word { .. } => mailraft_driver::TAKE_OVER_MAX,
                    Question::Facts | Question::Home { .. } => Duration::ZERO,
                };
                self.links.ask(node, &text, ASK_MAX + longer).await?
            }
        };
        serde_json::from_str(&answer).map_err(std::io::Error::other)
    }
}

/// The newest takeover that has begun; 1 if there was none.
fn begun(regions: &Regions) -> u32 {
    regions.takeovers().last().map_or(1, |row| row.incarnation.number)
}
