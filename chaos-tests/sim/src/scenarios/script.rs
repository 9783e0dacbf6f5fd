//! What scripts are written in: trouble at a chosen moment, messages held back, clients one operation at a time.
//! Everything has a bound, and what does not come within it fails the script.

use std::collections::BTreeMap;

use mailraft_checkers::{At, Ended, Micros, Op, Reply};
use mailraft_cluster::{Input, MemberChange, ReplicaStatus};
use mailraft_mailbox::api::Answer;
use mailraft_storage::{MailboxId, NodeId, PartitionId, ReplicaId, Rows, Term};

use crate::event::Event;
use crate::faults::{Fault, Planned};
use crate::host::{Process, Waiter};
use crate::session::{Kind, Session};
use crate::setup::Setup;
use crate::world::World;
use crate::world::run::Ran;

/// A millisecond.
pub const MS: Micros = 1_000;
/// A second.
pub const S: Micros = 1_000_000;
/// An operation has an end within this time: a session's longest patience and a little.
const OPERATION_MAX: Micros = 62 * S;
/// A partition is led again within this time.
const LED_WITHIN: Micros = 5 * S;
/// Lines of the timeline that a failure tells.
const LINES_TOLD: usize = 40;

/// The operator has no move of this number, and does not listen.
const NO_MOVE: usize = usize::MAX;

/// What a script yields, or why it failed.
pub type Scripted<T> = Result<T, String>;

/// What a hold or a stop looks for.
pub type Matches = Box<dyn Fn(&World, &Event) -> bool>;

/// Messages that are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hold(usize);

/// A fault that lasts until it is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasting(usize);

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client(pub u64);

struct Holding {
    matches: Matches,
    events: Vec<Event>,
}

/// A script: a world in which only what the script says goes wrong, and only its clients ask.
pub struct Script {
    /// The world.
    pub world: World,
    /// What comes next, if the script stopped right before it.
    next: Option<(Micros, Event)>,
    holds: BTreeMap<Hold, Holding>,
    held_so_far: usize,
    /// Until then every process stands still.
    asleep_until: Micros,
}

impl Script {
    /// A cluster in which every partition is led.
    ///
    /// # Errors
    /// If that does not come about.
    pub fn calm(seed: u64, nodes: u64, partitions: u32) -> Scripted<Self> {
        Self::keeping(seed, nodes, partitions, 10_000)
    }

    /// The same, keeping so many entries of log for a slow follower.
    ///
    /// # Errors
    /// If that does not come about.
    pub fn keeping(seed: u64, nodes: u64, partitions: u32, log_keep_entries: u64) -> Scripted<Self> {
        Self::of(Setup { nodes, partitions, log_keep_entries, ..Setup::new(seed) })
    }

    /// The same in a world like this one, but for its clients and faults.
    ///
    /// # Errors
    /// If that does not come about.
    pub fn of(setup: Setup) -> Scripted<Self> {
        Self::with_mailboxes(Setup { mailboxes: 4, ..setup })
    }

    /// The same with as many mailboxes.
    ///
    /// # Errors
    /// If that does not come about.
    pub fn with_mailboxes(setup: Setup) -> Scripted<Self> {
        let setup = Setup { imap_sessions: 0, smtp_sessions: 0, ..setup };
        let far = setup.standby_nodes > 0;
        let mut world = World::new(setup, Vec::new());
        world.only_scripted();
        if far {
            world.expects_takeover();
        }
        world.begin();
        let mut script = Script { world, next: None, holds: BTreeMap::new(), held_so_far: 0, asleep_until: 0 };
        script.all_led()?;
        Ok(script)
    }

    /// Time passes.
    ///
    /// # Errors
    /// If something is wrong.
    pub fn wait(&mut self, time: Micros) -> Scripted<()> {
        let end = self.world.now() + time;
        while self.step(end)? {}
        self.world.pass_until(end);
        Ok(())
    }

    /// Time passes until something holds.
    ///
    /// # Errors
    /// If it does not hold in time.
    pub fn until(&mut self, what: &str, within: Micros, holds: impl Fn(&World) -> bool) -> Scripted<()> {
        let end = self.world.now() + within;
        while !holds(&self.world) {
            if !self.step(end)? {
                return Err(self.failed(&format!("not within {} ms: {what}", within / MS)));
            }
        }
        Ok(())
    }

    /// Time passes until right before something happens.
    ///
    /// # Errors
    /// If it does not come in time.
    pub fn until_before(&mut self, what: &str, within: Micros, matches: Matches) -> Scripted<()> {
        let end = self.world.now() + within;
        loop {
            if let Some((_, event)) = &self.next
                && matches(&self.world, event)
            {
                return Ok(());
            }
            if self.next.is_some() {
                self.step(end)?;
            }
            match self.world.next_at() {
                Some(at) if at <= end => {}
                _ => return Err(self.failed(&format!("does not come within {} ms: {what}", within / MS))),
            }
            if let Some((at, event)) = self.world.pop() {
                self.next = Some((at, event));
            }
        }
    }

    /// Time passes until something has happened.
    ///
    /// # Errors
    /// If it does not come in time.
    pub fn until_after(&mut self, what: &str, within: Micros, matches: Matches) -> Scripted<()> {
        self.until_before(what, within, matches)?;
        self.step(self.world.now() + within).map(drop)
    }

    /// Fails unless something holds: the script is not where it wants to be.
    ///
    /// # Errors
    /// If it does not hold.
    pub fn expect(&self, what: &str, holds: bool) -> Scripted<()> {
        if holds { Ok(()) } else { Err(self.failed(&format!("it should be that {what}"))) }
    }

    /// A process dies; of its log's unsynced bytes none survive.
    pub fn kill(&mut self, node: NodeId) {
        self.kill_torn(node, 0);
    }

    /// A process dies; of its log's unsynced bytes so many survive.
    pub fn kill_torn(&mut self, node: NodeId, torn: usize) {
        self.world.crash(node, torn);
        self.world.settle();
    }

    /// A node's process starts.
    ///
    /// # Errors
    /// If it can't.
    pub fn restart(&mut self, node: NodeId) -> Scripted<()> {
        self.world.start(node);
        self.world.settle();
        self.all_well()
    }

    /// A fault begins, and lasts until it is ended.
    ///
    /// # Errors
    /// If something is wrong.
    pub fn fault(&mut self, fault: Fault) -> Scripted<Lasting> {
        let now = self.world.now();
        let lasting = Lasting(self.world.plan_fault(Planned { from: now, to: Micros::MAX, fault }));
        self.happen(Event::Fault(lasting.0))?;
        Ok(lasting)
    }

    /// A fault ends.
    ///
    /// # Errors
    /// If something is wrong.
    pub fn over(&mut self, fault: Lasting) -> Scripted<()> {
        self.happen(Event::Over(fault.0))
    }

    /// These nodes and all others hear nothing of each other.
    ///
    /// # Errors
    /// If something is wrong.
    pub fn cut(&mut self, side: &[NodeId]) -> Scripted<Lasting> {
        self.fault(Fault::Partition { side: side.to_vec() })
    }

    /// Every process stands still for a time, as on a host that sleeps.
    pub fn sleep_all(&mut self, time: Micros) {
        let until = self.world.now() + time;
        self.asleep_until = until;
        for node in self.world.nodes() {
            self.world.host_mut(node).paused_until = until;
        }
    }

    /// A process stands still for a time, and then goes on as if nothing was.
    pub fn sleep(&mut self, node: NodeId, time: Micros) {
        let until = self.world.now() + time;
        self.world.host_mut(node).paused_until = until;
    }

    /// A follower is down until the log of the others begins after what it has.
    ///
    /// # Errors
    /// If that does not come about.
    pub fn leave_behind(&mut self, node: NodeId, partition: PartitionId, writer: Client) -> Scripted<()> {
        let last = self.status(node, partition)?.last;
        self.kill(node);
        for _ in 0..3 * self.world.setup().log_keep_entries {
            self.deliver(writer)?;
        }
        let mut others = self.followers(partition)?;
        others.push(self.leader(partition)?);
        for other in others {
            self.flush(other)?;
            let first = self.status(other, partition)?.first;
            self.expect("the log begins after what the follower has", first.0 > last.0 + 1)?;
        }
        Ok(())
    }

    /// A node's rows are flushed, and its log may be cut.
    ///
    /// # Errors
    /// If something is wrong.
    pub fn flush(&mut self, node: NodeId) -> Scripted<()> {
        match self.world.host_mut(node).rows.flush() {
            Ok(upto) => self.world.input(node, Input::Flushed { upto }),
            Err(error) => return Err(self.failed(&error.to_string())),
        }
        self.world.settle();
        self.all_well()
    }

    /// A leader is asked to change the members of a group. What comes of it shows in the configuration.
    ///
    /// # Errors
    /// If nobody leads.
    pub fn reconfigure(&mut self, partition: PartitionId, change: MemberChange) -> Scripted<()> {
        let leader = self.leader(partition)?;
        let Some((request, term)) = self.world.host_mut(leader).up.as_mut().and_then(|process| {
            let term = process.leading.get(&partition)?.term;
            Some((process.request(Waiter::Operator(NO_MOVE)), term))
        }) else {
            return Err(self.failed("nobody to ask for a change of members"));
        };
        self.world.input(leader, Input::Reconfigure { request, partition, term, change });
        self.world.settle();
        self.all_well()
    }

    /// Holds back what matches, from now on.
    pub fn hold(&mut self, matches: Matches) -> Hold {
        self.held_so_far += 1;
        let hold = Hold(self.held_so_far);
        self.holds.insert(hold, Holding { matches, events: Vec::new() });
        hold
    }

    /// How many are held back.
    pub fn held(&self, hold: Hold) -> usize {
        self.holds.get(&hold).map_or(0, |h| h.events.len())
    }

    /// Time passes until so many are held back.
    ///
    /// # Errors
    /// If it are not so many in time.
    pub fn until_held(&mut self, hold: Hold, count: usize, within: Micros) -> Scripted<()> {
        let end = self.world.now() + within;
        while self.held(hold) < count {
            if !self.step(end)? {
                let what = format!("{} of {count} messages are held back after {} ms", self.held(hold), within / MS);
                return Err(self.failed(&what));
            }
        }
        Ok(())
    }

    /// The first that is held back arrives now; the others stay.
    ///
    /// # Errors
    /// If there is none.
    pub fn release_one(&mut self, hold: Hold) -> Scripted<()> {
        let first = self.holds.get_mut(&hold).filter(|h| !h.events.is_empty()).map(|h| h.events.remove(0));
        match first {
            Some(event) => self.happen(event),
            None => Err(self.failed("nothing is held back")),
        }
    }

    /// All that is held back arrives now, and nothing more is held.
    ///
    /// # Errors
    /// If something is wrong.
    pub fn release(&mut self, hold: Hold) -> Scripted<()> {
        for event in self.holds.remove(&hold).map(|h| h.events).unwrap_or_default() {
            self.happen(event)?;
        }
        Ok(())
    }

    /// All that is held back is lost, and nothing more is held.
    pub fn lose(&mut self, hold: Hold) {
        self.holds.remove(&hold);
    }

    /// A client connects to a node, for a mailbox of a partition.
    ///
    /// # Errors
    /// If the partition has no mailbox.
    pub fn client(&mut self, node: NodeId, partition: PartitionId) -> Scripted<Client> {
        let mailbox = self.mailbox(partition)?;
        Ok(self.client_of(node, mailbox))
    }

    /// A client connects to a node, for this mailbox.
    pub fn client_of(&mut self, node: NodeId, mailbox: MailboxId) -> Client {
        Client(self.world.connect(node, Kind::Imap, mailbox))
    }

    /// A client does not hear of a takeover, and stays at its node.
    ///
    /// # Errors
    /// If it has no session.
    pub fn stays(&mut self, client: Client) -> Scripted<()> {
        match self.world.clients_mut().session_mut(client.0) {
            Some(session) => session.stays = true,
            None => return Err(self.failed("a client has no session")),
        }
        Ok(())
    }

    /// A client begins something, and nobody waits for its end.
    pub fn begin(&mut self, client: Client, op: Op) {
        let Some(node) = self.world.clients().session(client.0).map(|s| s.node) else { return };
        let wall = self.world.host(node).cluster_wall(self.world.now());
        self.world.clients_mut().set_wall(wall);
        self.world.clients_mut().forget_answer(client.0);
        self.world.begins(client.0, op);
        self.world.settle();
    }

    /// A message for INBOX begins its way; its marker.
    pub fn begin_delivery(&mut self, client: Client) -> u64 {
        let marker = self.world.clients_mut().new_small_marker();
        self.begin(client, Op::Deliver { marker, deduplicate: true });
        marker
    }

    /// A message larger than a chunk begins its way; its marker.
    pub fn begin_large_delivery(&mut self, client: Client) -> u64 {
        let marker = self.world.clients_mut().new_large_marker();
        self.begin(client, Op::Deliver { marker, deduplicate: true });
        marker
    }

    /// How a client's last operation ended, if it has.
    pub fn ended(&self, client: Client) -> Option<&Ended> {
        answer_of(&self.world, client).map(|(ended, _)| ended)
    }

    /// Where a client's last answer stands in the log.
    pub fn position(&self, client: Client) -> Option<At> {
        answer_of(&self.world, client).and_then(|(_, at)| *at)
    }

    /// Waits for the end of a client's operation.
    ///
    /// # Errors
    /// If it has none.
    pub fn answer(&mut self, client: Client) -> Scripted<Ended> {
        let ended = |world: &World| answer_of(world, client).is_some();
        self.until("a client has its answer", OPERATION_MAX, ended)?;
        self.ended(client).cloned().ok_or_else(|| self.failed("a client has no answer"))
    }

    /// Waits for a client's OK.
    ///
    /// # Errors
    /// If it gets none.
    pub fn ok(&mut self, client: Client) -> Scripted<Reply> {
        match self.answer(client)? {
            Ended::Done(reply) => Ok(reply),
            other => Err(self.failed(&format!("a client gets no OK, but {other:?}"))),
        }
    }

    /// A client asks and gets an OK.
    ///
    /// # Errors
    /// If it gets none.
    pub fn does(&mut self, client: Client, op: Op) -> Scripted<Reply> {
        self.begin(client, op);
        self.ok(client)
    }

    /// A message is delivered to INBOX; its marker.
    ///
    /// # Errors
    /// If there is no OK.
    pub fn deliver(&mut self, client: Client) -> Scripted<u64> {
        let marker = self.begin_delivery(client);
        self.ok(client)?;
        Ok(marker)
    }

    /// A client opens a folder and follows it.
    ///
    /// # Errors
    /// If there is no OK.
    pub fn opens(&mut self, client: Client, folder: &str) -> Scripted<()> {
        self.does(client, Op::Select { folder: folder.to_owned() }).map(drop)
    }

    /// How many messages a folder has, as a client is told.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn messages(&mut self, client: Client, folder: &str) -> Scripted<usize> {
        match self.does(client, Op::Status { folder: folder.to_owned() })? {
            Reply::Answer(Answer::Status(status)) => Ok(status.messages as usize),
            other => Err(self.failed(&format!("STATUS is answered by {other:?}"))),
        }
    }

    /// A client's session.
    ///
    /// # Errors
    /// If it has none.
    pub fn session(&self, client: Client) -> Scripted<&Session> {
        self.world.clients().session(client.0).ok_or_else(|| self.failed("a client has no session"))
    }

    /// The first mailbox of a partition.
    ///
    /// # Errors
    /// If there is none.
    pub fn mailbox(&self, partition: PartitionId) -> Scripted<MailboxId> {
        let mailboxes = self.world.mailboxes();
        let found = mailboxes.there().into_iter().find(|mailbox| mailboxes.partition(*mailbox) == partition);
        found.ok_or_else(|| self.failed("a partition has no mailbox"))
    }

    /// The node that leads a partition in the highest term, and has told its owners.
    ///
    /// # Errors
    /// If nobody leads.
    pub fn leader(&self, partition: PartitionId) -> Scripted<NodeId> {
        leader(&self.world, partition).map(|(node, _)| node).ok_or_else(|| self.failed("nobody leads"))
    }

    /// The highest term in which a partition is led.
    ///
    /// # Errors
    /// If nobody leads.
    pub fn term(&self, partition: PartitionId) -> Scripted<Term> {
        leader(&self.world, partition).map(|(_, term)| term).ok_or_else(|| self.failed("nobody leads"))
    }

    /// Nodes with a replica of a partition that do not lead it.
    ///
    /// # Errors
    /// If nobody leads.
    pub fn followers(&self, partition: PartitionId) -> Scripted<Vec<NodeId>> {
        let leader = self.leader(partition)?;
        let nodes = self.world.nodes().into_iter();
        Ok(nodes.filter(|n| *n != leader && status(&self.world, *n, partition).is_some()).collect())
    }

    /// Nodes with a replica of a partition.
    ///
    /// # Errors
    /// If there are none.
    pub fn members(&self, partition: PartitionId) -> Scripted<Vec<NodeId>> {
        let nodes = self.world.nodes().into_iter();
        let found: Vec<NodeId> = nodes.filter(|n| status(&self.world, *n, partition).is_some()).collect();
        if found.is_empty() { Err(self.failed("a partition has no replica")) } else { Ok(found) }
    }

    /// Nodes without a replica of a partition.
    pub fn outsiders(&self, partition: PartitionId) -> Vec<NodeId> {
        self.world.nodes().into_iter().filter(|n| status(&self.world, *n, partition).is_none()).collect()
    }

    /// How a replica is.
    ///
    /// # Errors
    /// If the node is down or has none.
    pub fn status(&self, node: NodeId, partition: PartitionId) -> Scripted<ReplicaStatus> {
        status(&self.world, node, partition)
            .ok_or_else(|| self.failed(&format!("node {node} has no replica of partition {partition}")))
    }

    /// The replica of a partition on a node.
    ///
    /// # Errors
    /// If the node is down or has none.
    pub fn replica(&self, node: NodeId, partition: PartitionId) -> Scripted<ReplicaId> {
        self.status(node, partition).map(|s| s.replica)
    }

    /// A partition is led, by somebody other than these.
    ///
    /// # Errors
    /// If that does not come about.
    pub fn led_by_another(&mut self, partition: PartitionId, than: &[NodeId]) -> Scripted<NodeId> {
        let other = |w: &World| leader(w, partition).is_some_and(|(node, _)| !than.contains(&node));
        self.until("another node leads", LED_WITHIN, other)?;
        self.leader(partition)
    }

    /// A partition is led by one of the nodes.
    ///
    /// # Errors
    /// If that does not come about within a time.
    pub fn led_by(&mut self, partition: PartitionId, node: NodeId, within: Micros) -> Scripted<()> {
        let led = |w: &World| leader(w, partition).is_some_and(|(n, _)| n == node);
        self.until(&format!("node {node} leads"), within, led)
    }

    /// Nothing is wrong any more: every partition is led and serves, all comes to rest, and the checks find nothing.
    ///
    /// # Errors
    /// What the checks find, or that a partition does not serve.
    pub fn expect_clean(mut self) -> Scripted<Ran> {
        for hold in self.holds.keys().copied().collect::<Vec<_>>() {
            self.release(hold)?;
        }
        self.world.heal();
        self.world.settle();
        self.all_led()?;
        let nodes = self.world.up();
        for number in 1..=self.world.setup().partitions {
            let writer = self.client(nodes[number as usize % nodes.len()], PartitionId(number))?;
            self.deliver(writer)?;
        }
        if let Some((at, event)) = self.next.take() {
            self.world.schedule(at, event);
        }
        self.world.comes_to_rest();
        let told = self.failed("the checks find something");
        let ran = self.world.finish();
        match ran.report.violations.first() {
            None => Ok(ran),
            Some(first) => Err(format!("{first}\n{told}")),
        }
    }

    /// Why the script can't go on, with the last that happened.
    pub fn failed(&self, what: &str) -> String {
        let lines = self.world.witness().timeline();
        let last = &lines[lines.len().saturating_sub(LINES_TOLD)..];
        format!("at {} ms: {what}\n{}", self.world.now() / MS, last.join("\n"))
    }

    fn all_led(&mut self) -> Scripted<()> {
        let partitions = self.world.setup().partitions;
        let led = move |w: &World| (0..=partitions).all(|p| leader(w, PartitionId(p)).is_some());
        self.until("every partition is led", LED_WITHIN, led)
    }

    /// The next event happens, or is held back; false if none comes before the end.
    fn step(&mut self, end: Micros) -> Scripted<bool> {
        let (at, event) = match self.next.take() {
            Some(next) => next,
            None if self.world.next_at().is_some_and(|at| at <= end) => {
                let Some(next) = self.world.pop() else { return Ok(false) };
                next
            }
            None => {
                self.world.pass_until(end);
                return Ok(false);
            }
        };
        // Clients begin only what the script says.
        if matches!(event, Event::Connect(_) | Event::Next(_)) {
            return Ok(true);
        }
        // While nothing runs there is nothing to look at.
        if at < self.asleep_until && matches!(event, Event::Look | Event::Flap) {
            self.world.schedule(self.asleep_until, event);
            return Ok(true);
        }
        let world = &self.world;
        if let Some(hold) = self.holds.values_mut().find(|h| (h.matches)(world, &event)) {
            hold.events.push(event);
            return Ok(true);
        }
        self.happen(event)?;
        Ok(true)
    }

    fn happen(&mut self, event: Event) -> Scripted<()> {
        self.world.happens(event);
        self.world.settle();
        self.all_well()
    }

    fn all_well(&self) -> Scripted<()> {
        match self.world.wrong() {
            None => Ok(()),
            Some(wrong) => Err(self.failed(&wrong.to_string())),
        }
    }
}

/// How a client's last operation ended. It has not if it began anew under another id.
fn answer_of(world: &World, client: Client) -> Option<&(Ended, Option<At>)> {
    world.clients().answer(client.0)
}

/// A node's process, while it is up.
pub fn process(world: &World, node: NodeId) -> Option<&Process> {
    world.host(node).up.as_ref()
}

/// Who leads a partition in the highest term.
pub fn leader(world: &World, partition: PartitionId) -> Option<(NodeId, Term)> {
    let leading = world.hosts().filter_map(|h| Some((h.id, h.up.as_ref()?.leading.get(&partition)?.term)));
    leading.max_by_key(|(_, term)| *term)
}

/// How a replica is.
pub fn status(world: &World, node: NodeId, partition: PartitionId) -> Option<ReplicaStatus> {
    process(world, node)?.core.status().into_iter().find(|s| s.partition == partition)
}

/// Up to where a node's rows of a partition are.
pub fn rows_at(world: &World, node: NodeId, partition: PartitionId) -> Option<u64> {
    let replica = world.replica(node, partition)?;
    world.host(node).rows.applied(replica).ok().flatten().map(|applied| applied.index.0)
}
