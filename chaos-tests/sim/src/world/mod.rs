//! The simulated world: nodes, network, clients, and what happens next. Each of its parts owns what it holds; here is
//! what happens between them.
//!
//! * `run`: a whole run. `machine`: cores and the threads around them. `reach`: mailbox actors. `client`, `workload`:
//!   sessions and what they do. `regions`: what a backup region holds. `settings`: what an operator sets about it.
//!   `takeover`: it takes over. `losses`: what it lacks then. `moments`: what it came to. `returns`: clients that come back. `fates`: what became of what nobody heard of. `directory`: the
//!   directory, its administrators, logins. `operator`, `corruption`: members of groups change, and rows turn bad.

mod client;
mod corruption;
mod directory;
mod fates;
mod losses;
mod machine;
mod moments;
mod operator;
mod reach;
mod regions;
mod returns;
pub mod run;
mod settings;
mod takeover;
mod workload;

use std::collections::BTreeMap;

use mailraft_checkers::{Micros, Record, Rule, Violation};
use mailraft_cluster::Input;
use mailraft_storage::{Applied, NodeId, PartitionId, ReplicaId, Rows};

use crate::clients::Clients;
use crate::dice::Dice;
use crate::event::{Event, Local};
use crate::faults::Planned;
use crate::host::Host;
use crate::inputs::Inputs;
use crate::mailboxes::Mailboxes;
use crate::moves::Moves;
use crate::net::Net;
use crate::office::Office;
use crate::promise::{Promise, Wanted};
use crate::queue::Queue;
use crate::setup::Setup;
use crate::under_way::UnderWay;
use crate::unresolved::Unresolved;
use crate::witness::Witness;

/// Who begins something by himself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginners {
    /// Clients, administrators, the operator.
    Everyone,
    /// The operator; clients do what a script says.
    Operator,
    /// Nobody: everything comes to rest.
    Nobody,
}

/// The world.
pub struct World {
    setup: Setup,
    /// The time, and what happens next.
    queue: Queue<Event>,
    /// What follows from the present event.
    inputs: Inputs,
    hosts: BTreeMap<NodeId, Host>,
    net: Net,
    /// Chance in the network and on disks.
    dice: Dice,
    witness: Witness,
    faults: UnderWay,
    clients: Clients,
    /// Changes of which their clients heard nothing.
    unresolved: Unresolved,
    mailboxes: Mailboxes,
    /// What the operator is at.
    moves: Moves,
    /// Administrators, logins, and what they heard.
    office: Office,
    beginners: Beginners,
    /// The backup region, and what was answered.
    promise: Promise,
}

impl World {
    /// How it was set up.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The time.
    pub fn now(&self) -> Micros {
        self.queue.now()
    }

    /// Time passes until a moment, and nothing happens.
    pub fn pass_until(&mut self, moment: Micros) {
        self.queue.pass_until(moment);
    }

    /// Something is to happen.
    pub fn schedule(&mut self, at: Micros, event: Event) {
        self.queue.push(at, event);
    }

    /// When the next is to happen.
    pub fn next_at(&self) -> Option<Micros> {
        self.queue.next_at()
    }

    /// The next that is to happen, and when it was due; it is to be given to [`World::happens`]. Time passes until then.
    pub fn pop(&mut self) -> Option<(Micros, Event)> {
        self.queue.pop()
    }

    /// One more fault, which begins when it is told to; its number.
    pub fn plan_fault(&mut self, planned: Planned) -> usize {
        self.faults.add(planned)
    }

    /// Clients begin only what they are told to.
    pub fn only_scripted(&mut self) {
        self.beginners = Beginners::Operator;
        self.clients.keep_answers();
    }

    /// A line of the history.
    pub fn record(&mut self, record: Record) {
        self.witness.record(record);
    }

    /// A line for people.
    pub fn say(&mut self, line: String) {
        self.witness.line(self.queue.now(), line);
    }

    /// The world itself saw something that must never be.
    pub fn goes_wrong(&mut self, rule: Rule, what: String) {
        self.witness.goes_wrong(rule, self.queue.now(), what);
    }

    /// The first that the world itself saw to be wrong.
    pub fn wrong(&self) -> Option<&Violation> {
        self.witness.wrong()
    }

    /// What was seen.
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// What operators want to be set.
    pub fn wishes(&self) -> &[Wanted] {
        self.promise.wanted()
    }

    /// The clients.
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// The clients, to be told what to do.
    pub fn clients_mut(&mut self) -> &mut Clients {
        &mut self.clients
    }

    /// The mailboxes.
    pub fn mailboxes(&self) -> &Mailboxes {
        &self.mailboxes
    }

    /// What the operator is at.
    pub fn moves(&self) -> &Moves {
        &self.moves
    }

    /// All machines.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values()
    }

    /// All nodes.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.hosts.keys().copied().collect()
    }

    /// The nodes that clients connect to: those at home whose process is up.
    pub fn up(&self) -> Vec<NodeId> {
        let serves = |host: &&Host| host.up.is_some() && self.promise.is_home(host.id);
        self.hosts.values().filter(serves).map(|host| host.id).collect()
    }

    /// A node.
    ///
    /// # Panics
    /// If there is none of that number.
    pub fn host(&self, node: NodeId) -> &Host {
        self.hosts.get(&node).unwrap_or_else(|| panic!("there is no node {node}"))
    }

    /// A node, to be changed.
    ///
    /// # Panics
    /// If there is none of that number.
    pub fn host_mut(&mut self, node: NodeId) -> &mut Host {
        self.hosts.get_mut(&node).unwrap_or_else(|| panic!("there is no node {node}"))
    }

    /// Something for a node's core.
    pub fn input(&mut self, node: NodeId, input: Input) {
        self.inputs.push(node, input);
    }

    /// Something later on a node, in its present life.
    pub fn later(&mut self, node: NodeId, at: Micros, what: Local) {
        let life = self.host(node).life;
        self.queue.push(at, Event::On(node, life, what));
    }

    /// The replica of a partition on a node that is up.
    pub fn replica(&self, node: NodeId, partition: PartitionId) -> Option<ReplicaId> {
        let process = self.hosts.get(&node)?.up.as_ref()?;
        process.core.replica_ids().get(&partition).copied()
    }

    /// The position of a replica.
    pub fn applied(&self, node: NodeId, replica: ReplicaId) -> Option<Applied> {
        self.hosts.get(&node)?.rows.applied(replica).ok()?
    }
}
