//! The beginning and the end of a replica on a node that runs.
//!
//! A new replica answers nobody before its empty log is durable. One that was removed leaves a mark in the log,
//! durable before its rows are deleted, so that it never comes back under its id.

use std::collections::BTreeSet;

use mailraft_storage::log::{Log, LogState, LogWrite};
use mailraft_storage::{Applied, Env, Index, PartitionId, ReplicaId, Rows, StoreError};
use raft::eraftpb::HardState;

use super::Node;
use crate::config::ReplicaSpec;
use crate::members::{self, ChangeRefusal};
use crate::outcome::{CreateOutcome, Decision};
use crate::placement;
use crate::plant::{self, Fault};
use crate::replica::{Held, Replica, tombstone};
use crate::seam::{Output, RequestId, SnapshotJob};

/// What the stores hold of a replica at a start.
pub(super) enum Beginning {
    /// It goes on from here.
    Lives(Box<Held>),
    /// It was removed from its group, or never made.
    Never,
    /// Something that should be there is not.
    Damaged(String),
}

/// Something about a replica that is to be durable before what follows from it.
enum Step {
    Create {
        request: RequestId,
        spec: Box<ReplicaSpec>,
        /// It was said to be gone before it was there.
        doomed: bool,
    },
    Bury(Box<LogWrite>),
    /// It becomes another: [`Turn`](crate::replica::Turn).
    Turn(Box<LogWrite>),
}

/// Replicas that begin or end.
pub(super) struct Life {
    /// Waits for the next batch.
    waiting: Vec<Step>,
    /// Is in the batch that is being written.
    in_batch: Vec<Step>,
    /// Removed, and the log says so, but rows are left.
    leftovers: BTreeSet<ReplicaId>,
}

impl Life {
    /// Finds what was removed and has rows left.
    pub(super) fn recover(log: &dyn Log, rows: &dyn Rows) -> Result<Self, StoreError> {
        let mut leftovers = BTreeSet::new();
        for replica in log.replicas()? {
            let buried = log.state(replica)?.is_some_and(|state| is_buried(&state, replica));
            if buried && rows.applied(replica)?.is_some() {
                leftovers.insert(replica);
            }
        }
        Ok(Life { waiting: Vec::new(), in_batch: Vec::new(), leftovers })
    }

    /// How a replica that should be on this node begins.
    pub(super) fn begin(
        &mut self,
        spec: &ReplicaSpec,
        log: &dyn Log,
        rows: &dyn Rows,
    ) -> Result<Beginning, StoreError> {
        let replica = spec.replica;
        let (state, applied) = (log.state(replica)?, rows.applied(replica)?);
        let removed = |applied: &Applied| applied.index.0 > 0 && !members::holds(applied, replica);
        let lives = |state, applied| -> Result<Beginning, StoreError> {
            let group = placement::group(rows, replica)?;
            Ok(Beginning::Lives(Box::new(Held { state, applied, group, ..Held::default() })))
        };
        Ok(match (state, applied) {
            (Some(state), _) if is_buried(&state, replica) => Beginning::Never,
            (Some(state), Some(applied)) if removed(&applied) && state.installing.is_none() => {
                self.waiting.push(Step::Bury(Box::new(tombstone(replica, state.cut))));
                Beginning::Never
            }
            (Some(state), Some(applied)) => lives(state, applied)?,
            // Its first snapshot is not in place: what it has is in the log.
            (Some(state), None) if state.cut.index == Index(0) => lives(state, Applied::default())?,
            (Some(_), None) => Beginning::Damaged("its rows are not there".into()),
            // Placed here, and the process ended before it was made.
            (None, None) if spec.members.iter().any(|m| m.replica == replica && !m.voter) => Beginning::Never,
            (None, _) if plant::is(Fault::ReplicaComesBackEmpty) => lives(LogState::default(), Applied::default())?,
            (None, _) => Beginning::Damaged("its log is not there".into()),
        })
    }

    pub(super) fn start(&mut self, out: &mut Vec<Output>) {
        for replica in std::mem::take(&mut self.leftovers) {
            out.push(Output::Snapshot(SnapshotJob::Remove { replica }));
        }
    }

    /// Whether something is to be written.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What a replica becomes is to be written.
    pub(super) fn turns(&mut self, write: LogWrite) {
        self.waiting.push(Step::Turn(Box::new(write)));
    }

    /// What goes into the next batch.
    pub(super) fn take(&mut self) -> Vec<LogWrite> {
        self.in_batch = std::mem::take(&mut self.waiting);
        let write = |step: &Step| match step {
            Step::Create { spec, .. } => {
                let hard_state = Some(HardState::default());
                LogWrite { replica: spec.replica, hard_state, ..LogWrite::default() }
            }
            Step::Bury(write) | Step::Turn(write) => LogWrite::clone(write),
        };
        self.in_batch.iter().map(write).collect()
    }

    fn is_creating(&self, partition: PartitionId) -> bool {
        let of = |step: &Step| matches!(step, Step::Create { spec, .. } if spec.partition == partition);
        self.waiting.iter().chain(&self.in_batch).any(of)
    }

    fn is_burying(&self, replica: ReplicaId) -> bool {
        let of = |step: &Step| matches!(step, Step::Bury(write) if write.replica == replica);
        self.waiting.iter().chain(&self.in_batch).any(of)
    }
}

impl Node {
    pub(super) fn create(&mut self, request: RequestId, spec: ReplicaSpec, out: &mut Vec<Output>) {
        let replica = spec.replica;
        let answer = |outcome| Output::Decided { request, decision: Decision::Create(outcome) };
        let refused = |why| answer(CreateOutcome::Refused { why, members: spec.members.clone() });
        if self.by_replica.get(&replica) == Some(&spec.partition) {
            return out.push(answer(CreateOutcome::Created));
        }
        if self.replicas.contains_key(&spec.partition) || self.life.is_creating(spec.partition) {
            return out.push(refused(ChangeRefusal::NodeTaken(self.config.node)));
        }
        match self.log.state(replica) {
            Ok(found) if found.as_ref().is_none_or(|s| *s == LogState::default()) && !self.life.is_burying(replica) => {
                self.life.waiting.push(Step::Create { request, spec: Box::new(spec), doomed: false });
            }
            // It was here before, and may have voted.
            Ok(_) => out.push(refused(ChangeRefusal::IdUsed(replica))),
            Err(error) => out.push(Output::Abort(format!("the log of replica {replica} can't be read: {error}"))),
        }
    }

    pub(super) fn destroy(&mut self, replica: ReplicaId, out: &mut Vec<Output>) {
        if let Some((partition, found)) = self.of(replica) {
            found.dismiss();
            self.dirty.push(partition);
            return;
        }
        for step in self.life.waiting.iter_mut().chain(&mut self.life.in_batch) {
            if let Step::Create { spec, doomed, .. } = step
                && spec.replica == replica
            {
                *doomed = true;
                return;
            }
        }
        match self.log.state(replica) {
            Ok(Some(state)) if !is_buried(&state, replica) && !self.life.is_burying(replica) => {
                self.life.waiting.push(Step::Bury(Box::new(tombstone(replica, state.cut))));
            }
            Ok(_) => {}
            Err(error) => out.push(Output::Abort(format!("the log of replica {replica} can't be read: {error}"))),
        }
    }

    /// The batch that removed replicas and made new ones is durable.
    pub(super) fn life_persisted(&mut self, env: &mut Env, out: &mut Vec<Output>) {
        for step in std::mem::take(&mut self.life.in_batch) {
            match step {
                Step::Turn(write) => self.turned(write.replica, env, out),
                Step::Bury(write) => out.push(Output::Snapshot(SnapshotJob::Remove { replica: write.replica })),
                Step::Create { request, spec, doomed: true } => {
                    let why = ChangeRefusal::IdUsed(spec.replica);
                    let refused = CreateOutcome::Refused { why, members: spec.members };
                    out.push(Output::Decided { request, decision: Decision::Create(refused) });
                    let stone = tombstone(spec.replica, LogState::default().cut);
                    self.life.waiting.push(Step::Bury(Box::new(stone)));
                }
                Step::Create { request, spec, doomed: false } => {
                    let (partition, replica) = (spec.partition, spec.replica);
                    let boot = u64::from_be_bytes(env.bytes());
                    match Replica::recover(&self.config, *spec, self.log.clone(), Held::default(), boot, env.now) {
                        Ok(mut made) => {
                            made.sees_control(self.control.seen());
                            self.replicas.insert(partition, made);
                            self.by_replica.insert(replica, partition);
                            self.dirty.push(partition);
                            let decision = Decision::Create(CreateOutcome::Created);
                            out.push(Output::Decided { request, decision });
                        }
                        Err(error) => {
                            out.push(Output::Abort(format!("replica {replica} can't be made: {error}")));
                        }
                    }
                }
            }
        }
    }

    /// A replica was removed from its group.
    pub(super) fn end(&mut self, partition: PartitionId, out: &mut Vec<Output>) {
        let Some(replica) = self.replicas.remove(&partition) else { return };
        self.by_replica.remove(&replica.spec.replica);
        let write = replica.end(out);
        self.life.waiting.push(Step::Bury(Box::new(write)));
    }
}

/// Whether a log says that its replica was removed from its group.
fn is_buried(state: &LogState, replica: ReplicaId) -> bool {
    state.installing.as_ref().is_some_and(|mark| !members::holds(mark, replica))
}
