//! The thread that owns the core: it takes inputs in the order they come, and has each output carried out
//! in the order the core gave them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use mailraft_cluster::{ClusterTime, Difference, Input, Node, Output, OwnersTerm, PeerRefusal, SnapshotJob};
use mailraft_storage::log::LogBatch;
use mailraft_storage::{Env, Incarnation, LogPosition, NodeId, PartitionId, ReplicaId, Rows, Term};
use tokio::sync::{mpsc, watch};

use crate::apply_thread::ApplyWork;
use crate::clock::{self, SharedTime, Ticks};
use crate::connections::Connections;
use crate::fatal::Fatal;
use crate::inputs::{Inputs, Queued};
use crate::metrics;
use crate::outgoing::Outgoing;
use crate::questions::Questions;
use crate::snapshot::SnapshotWork;

/// The period of a tick.
pub(crate) const TICK: Duration = Duration::from_millis(25);
/// Inputs taken at one wake-up before their outputs are carried out.
const ROUND_MAX_INPUTS: usize = 128;

/// The log says once in so long that a node's messages are refused for one reason.
const REFUSAL_TOLD_EVERY: Duration = Duration::from_secs(1);

/// A partition that this node leads, ready for owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leading {
    /// Its replica here.
    pub replica: ReplicaId,
    /// The term in which owners decide.
    pub term: Term,
    /// The incarnation in which owners decide.
    pub incarnation: Incarnation,
    /// Whether no other region held what this term began with, since the home answers alone: [`OwnersTerm::began_alone`].
    pub began_alone: bool,
}

/// What this node leads, by partition.
pub type LeadingMap = Arc<BTreeMap<PartitionId, Leading>>;
/// Who leads each partition as far as known, by partition number.
pub type Leaders = Arc<Vec<Option<NodeId>>>;

pub(crate) struct CoreThread {
    pub(crate) node: Node,
    pub(crate) env: Env,
    pub(crate) queue: Receiver<Queued>,
    pub(crate) to_log: Sender<(u64, LogBatch)>,
    pub(crate) to_apply: Sender<ApplyWork>,
    pub(crate) to_snapshots: mpsc::UnboundedSender<SnapshotWork>,
    pub(crate) outgoing: Outgoing,
    pub(crate) leading: watch::Sender<LeadingMap>,
    pub(crate) leaders: watch::Sender<Leaders>,
    pub(crate) committed: watch::Sender<Vec<LogPosition>>,
    pub(crate) time: SharedTime,
    pub(crate) fatal: Fatal,
    pub(crate) rows: Arc<dyn Rows>,
    pub(crate) inputs: Inputs,
    pub(crate) connections: Connections,
}

/// What users see of leadership, published once a round.
struct Views {
    leading: BTreeMap<PartitionId, Leading>,
    leaders: Vec<Option<NodeId>>,
    leading_changed: bool,
    leaders_changed: bool,
    /// How far the cluster's time is ahead of the wall clock, as the core said last, in milliseconds.
    ahead_ms: i64,
    /// When the log said last that a node's message was refused for a reason, by the boot clock.
    refusals_told: BTreeMap<(NodeId, &'static str), Duration>,
}

impl CoreThread {
    /// Runs until told to stop or something is fatal; then nothing is led here any more.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let result = self.work();
        self.leading.send_replace(LeadingMap::default());
        result
    }

    fn work(&mut self) -> Result<(), String> {
        let mut questions = Questions::default();
        let mut views = Views {
            leading: BTreeMap::new(),
            leaders: self.leaders.borrow().as_ref().clone(),
            leading_changed: false,
            leaders_changed: false,
            ahead_ms: 0,
            refusals_told: BTreeMap::new(),
        };
        let mut outputs = Vec::new();
        self.tell_time();
        self.node.start(&mut self.env, &mut outputs);
        self.carry_out(&mut outputs, &mut questions, &mut views)?;
        let mut ticks = Ticks::new(TICK, clock::boot());
        loop {
            let first = match self.queue.recv_timeout(ticks.wait(clock::boot())) {
                Ok(queued) => Some(queued),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            if self.fatal.is_dead() {
                return Ok(());
            }
            let begun = Instant::now();
            self.tell_time();
            let mut next = first;
            let mut taken = 0;
            while let Some(queued) = next {
                let input = match queued {
                    Queued::Own(input) => Some(input),
                    Queued::Peer(input, bytes) => {
                        drop(bytes);
                        Some(input)
                    }
                    Queued::Ask(input, request, asked, bytes) => {
                        drop(bytes);
                        questions.insert(request, asked);
                        Some(input)
                    }
                    Queued::Status(reply) => {
                        // Whoever asked may have gone.
                        let _ = reply.send(self.node.status());
                        None
                    }
                    Queued::Stop => return Ok(()),
                };
                if let Some(input) = input {
                    self.node.step(&mut self.env, input, &mut outputs);
                }
                taken += 1;
                next = if taken < ROUND_MAX_INPUTS { self.queue.try_recv().ok() } else { None };
            }
            let tick = ticks.take(clock::boot());
            if let Some(missed) = tick {
                if missed > 0 {
                    ::metrics::counter!(metrics::TICKS_MISSED).increment(missed);
                }
                if missed > 4 {
                    tracing::warn!(
                        missed,
                        "the core thread stood still; is this machine overloaded or was it suspended?"
                    );
                }
                self.tell_time();
                self.node.step(&mut self.env, Input::Tick, &mut outputs);
                ::metrics::gauge!(metrics::CORE_QUEUE).set(self.queue.len() as f64);
            }
            self.carry_out(&mut outputs, &mut questions, &mut views)?;
            if tick.is_some() {
                self.time.set(ClusterTime::of(self.env.now, self.env.wall, views.ahead_ms));
            }
            ::metrics::histogram!(metrics::CORE_ROUND).record(begun.elapsed());
        }
    }

    fn tell_time(&mut self) {
        self.env.now = clock::boot();
        self.env.wall = clock::wall();
    }

    fn carry_out(&self, outputs: &mut Vec<Output>, questions: &mut Questions, views: &mut Views) -> Result<(), String> {
        for output in outputs.drain(..) {
            match output {
                Output::Persist { number, batch } => self.to_log.send((number, batch)).map_err(gone)?,
                Output::Apply(job) => self.to_apply.send(ApplyWork::Entries(job)).map_err(gone)?,
                Output::Committed { partition, upto, .. } => {
                    let known = |all: &mut Vec<LogPosition>| {
                        let known = usize::try_from(partition.0).ok().and_then(|at| all.get_mut(at));
                        known.map(|known| *known = upto).is_some()
                    };
                    self.committed.send_if_modified(known);
                }
                Output::Send { to, message } => self.outgoing.send(to, message),
                Output::Decided { request, decision } => questions.decided(request, decision),
                Output::Waited { waited, .. } => {
                    waited.into_iter().for_each(|waited| ::metrics::histogram!(metrics::VISIBLE).record(waited));
                }
                Output::Leads { partition, replica, leading } => views.leads(partition, replica, leading),
                Output::Leader { partition, node } => views.leader(partition, node),
                Output::Time { ahead_ms } => {
                    views.ahead_ms = ahead_ms;
                    // Before a lead is published that begins by it.
                    self.time.set(ClusterTime::of(self.env.now, self.env.wall, ahead_ms));
                    SharedTime::report(ahead_ms);
                }
                // In the queue of apply, so that everything before it is applied.
                Output::Snapshot(job @ (SnapshotJob::Install { .. } | SnapshotJob::Remove { .. })) => {
                    self.to_apply.send(ApplyWork::Snapshot(Box::new(job))).map_err(gone)?;
                }
                Output::Snapshot(job @ (SnapshotJob::Send { .. } | SnapshotJob::Discard { .. })) => {
                    self.to_snapshots.send(SnapshotWork::Job(Box::new(job))).map_err(gone)?;
                }
                Output::Differs { partition, replica, other, count, difference } => {
                    let which = match difference {
                        Difference::OtherIsWrong => "the other is damaged, as a majority shows: replace it",
                        Difference::Undecided => "one of them is damaged; the word of another voter will tell which",
                    };
                    tracing::error!(%partition, %replica, %other, entries = count, "two replicas disagree: {which}");
                    ::metrics::counter!(metrics::DIFFERS, "partition" => partition.to_string()).increment(1);
                }
                Output::RowsDiffer { partition, replica, other, index, difference } => {
                    let which = match difference {
                        Difference::OtherIsWrong => {
                            "the other's were changed on its disk, as a majority shows or its own node: replace it"
                        }
                        Difference::Undecided => {
                            "one of them is damaged; which is not known as long as no majority agrees"
                        }
                    };
                    tracing::error!(%partition, %replica, %other, %index, "the rows of two replicas differ: {which}");
                    ::metrics::counter!(metrics::DIFFERS, "partition" => partition.to_string()).increment(1);
                }
                Output::Distrust { partition, replica, index } => {
                    let why = format!(
                        "the rows of partition {partition} here are at {index} not what a majority of its group has: some were put back, changed or deleted on this disk"
                    );
                    if let Some(proof) = self.rows.proof() {
                        proof.distrust(replica, &why);
                    }
                    self.inputs.tell_damage(self.rows.as_ref());
                }
                Output::Refused { from, partition, refusal } => self.refused(from, partition, &refusal, views),
                Output::Abort(reason) => {
                    return Err(format!(
                        "{reason}; nothing was changed after that. Keep this node's data, see OPERATIONS, \"Rows that are not what was applied\""
                    ));
                }
            }
        }
        if std::mem::take(&mut views.leading_changed) {
            ::metrics::gauge!(metrics::LED).set(views.leading.len() as f64);
            self.leading.send_replace(Arc::new(views.leading.clone()));
        }
        if std::mem::take(&mut views.leaders_changed) {
            self.leaders.send_replace(Arc::new(views.leaders.clone()));
        }
        Ok(())
    }
}

impl CoreThread {
    /// A node said what no honest node says.
    fn refused(&self, from: NodeId, partition: PartitionId, refusal: &PeerRefusal, views: &mut Views) {
        let label = refusal.label();
        ::metrics::counter!(metrics::PEER_MESSAGES_REFUSED, "node" => from.to_string(), "reason" => label).increment(1);
        let ends = refusal.ends_connection();
        if ends {
            self.connections.end_raft_of(from);
        }
        // Whoever says it again and again is counted, and does not fill the log.
        let told = views.refusals_told.insert((from, label), self.env.now);
        if told.is_none_or(|told| self.env.now.saturating_sub(told) >= REFUSAL_TOLD_EVERY) {
            let end = if ends { "; its connection ends" } else { "" };
            tracing::error!(peer = %from, %partition, reason = label, "what node {from} says is not heard: {refusal}{end}");
        } else if let Some(told) = told {
            views.refusals_told.insert((from, label), told);
        }
    }
}

impl Views {
    fn leads(&mut self, partition: PartitionId, replica: ReplicaId, leading: Option<OwnersTerm>) {
        self.leading_changed = true;
        match leading {
            Some(OwnersTerm { term, incarnation, began_alone }) => {
                tracing::info!(%partition, %replica, %term, "leads");
                self.leading.insert(partition, Leading { replica, term, incarnation, began_alone });
            }
            None => {
                tracing::info!(%partition, %replica, "leads no more");
                self.leading.remove(&partition);
            }
        }
    }

    fn leader(&mut self, partition: PartitionId, node: Option<NodeId>) {
        let Some(known) = usize::try_from(partition.0).ok().and_then(|at| self.leaders.get_mut(at)) else { return };
        if *known != node {
            *known = node;
            self.leaders_changed = true;
            ::metrics::counter!(metrics::LEADER_CHANGES).increment(1);
            tracing::debug!(%partition, leader = ?node, "leader");
        }
    }
}

/// A thread that can't be reached has ended: by a failure that it reported itself.
fn gone<T>(_: T) -> String {
    "a thread it depends on has ended".to_owned()
}
