//! The directory: the shell around its production owner beside the control group's leader, administrators who change
//! accounts through any node, and clients that log in at any. What they hear is judged in `accounts`.

use std::sync::Arc;

use mailraft_checkers::{Micros, Rule};
use mailraft_cluster::{BarrierOutcome, Input, Reader, SlotOutcome};
use mailraft_directory::keys::{RootKey, first_rows};
use mailraft_directory::password::DUMMY_VERIFIER;
use mailraft_directory::{Answer, Command, Directory, Lookup, LookupError};
use mailraft_owner::{Ask, Detached, LogOwner, Owner, SessionNumber, Step, StepOf, Tell, Unanswered};
use mailraft_storage::{CommandId, Env, MailboxId, NodeId, PartitionId, ProposalOutcome, ReplicaId, RowBatch};

use crate::accounts::{Change, ChangeEnd, Password, Seen};
use crate::actors::{Asker, DirectoryActor};
use crate::event::{Event, Local};
use crate::host::{CLUSTER, Waiter};
use crate::net::Carried;
use crate::office::{ADMINISTRATORS, Busy, CHANGE_EVERY, ChangeEnded, DirectoryReply, Drawn, Login};
use crate::world::{Beginners, World};

/// Between two logins, in the mean.
const LOGIN_EVERY: Micros = 60_000;
/// An administrator's node asks again, under the same id, after this time without an answer.
const ANSWER_WITHIN: Micros = 400_000;
/// ... and gives up after this.
const PATIENCE: Micros = 5_000_000;
/// Of a thousand questions so many come once more, late.
const LATE_COPIES_PERMILLE: u64 = 100;
/// ... and so much later, in the mean.
const LATE_COPIES_MEAN: Micros = 1_000_000;
/// Before it asks again whoever leads by then.
const ASKS_AGAIN: Micros = 15_000;
/// Reading the keyring takes so long, in the mean.
const LOAD_TAKES: Micros = 2_000;
/// Who waits for a turn on the control group's own rows looks again after this time.
const TURN_EVERY: Micros = 1_000;

impl World {
    /// Administrators and logins begin, if the run has accounts.
    pub fn office_opens(&mut self) {
        if self.setup.accounts == 0 {
            return;
        }
        for number in 0..ADMINISTRATORS {
            self.queue.push(700_000 + number as Micros * 50_000, Event::Administrator(number, 0));
        }
        self.queue.push(1_000_000, Event::Login);
    }

    /// An administrator begins his next change, or asks again.
    pub fn administrator_wakes(&mut self, number: usize, attempt: u64) {
        if self.office.attempt(number) != attempt {
            return;
        }
        match self.office.busy(number) {
            None if self.beginners != Beginners::Everyone => {}
            None => self.change_begins(number),
            Some(busy) if self.now() > busy.asked + PATIENCE => self.change_ends(number, ChangeEnd::Unknown),
            Some(_) => self.asks_directory(number),
        }
    }

    /// An administrator's node hears from the directory.
    pub fn administrator_hears(&mut self, number: usize, attempt: u64, reply: DirectoryReply) {
        if self.office.attempt(number) != attempt {
            return;
        }
        match reply {
            Ok((Ok(Answer::Done | Answer::AccountCreated { .. }), index)) => {
                self.change_ends(number, ChangeEnd::Done(index));
            }
            Ok((Err(_), index)) => self.change_ends(number, ChangeEnd::Refused(index)),
            Err(Unanswered::Unknown | Unanswered::Expired { .. }) => self.change_ends(number, ChangeEnd::Unknown),
            Err(
                Unanswered::Overloaded
                | Unanswered::NotConfirmed
                | Unanswered::Lost
                | Unanswered::Unreadable
                | Unanswered::Ended(_),
            ) => {
                self.queue.push(self.now() + ASKS_AGAIN, Event::Administrator(number, attempt));
            }
        }
    }

    /// A client logs in somewhere. Who is let in by what his node has is let in; who is not, only after a read barrier
    /// and another look.
    pub fn logs_in(&mut self) {
        if self.beginners != Beginners::Everyone {
            return;
        }
        let next = self.now() + 1 + self.office.dice().exponential(LOGIN_EVERY);
        self.queue.push(next, Event::Login);
        let up = self.up();
        let (account, password) = self.office.draws_login(self.setup.accounts);
        let Some(node) = self.office.dice().pick(&up).copied() else { return };
        match self.looks_up(node, account) {
            None => {}
            Some(Some(seen)) if seen.password == password && !seen.disabled => {
                if let Err(what) = self.office.accounts().is_let_in(account, password) {
                    self.goes_wrong(Rule::Uncommitted, format!("at node {node} {what}"));
                }
            }
            Some(_) => {
                let began = self.now();
                let number = self.office.login_waits(Login { account, began });
                let Some(process) = self.host_mut(node).up.as_mut() else { return };
                let request = process.request(Waiter::Login(number));
                self.input(
                    node,
                    Input::ReadBarrier { request, partition: PartitionId::CONTROL, reader: Reader::Visible },
                );
            }
        }
    }

    /// A login's read barrier has answered.
    pub fn login_looks_again(&mut self, node: NodeId, number: u64, outcome: BarrierOutcome) {
        let Some(Login { account, began }) = self.office.take_login(number) else { return };
        match outcome {
            BarrierOutcome::NotLeader { .. } | BarrierOutcome::Unavailable => {}
            BarrierOutcome::Passed { .. } => self.reads_account(node, account, began),
        }
    }

    /// After the run every node has what was answered, and changes were answered until the end.
    pub fn office_closes(&mut self) {
        if self.setup.accounts == 0 {
            return;
        }
        let up = self.up();
        for node in up {
            for account in 0..self.setup.accounts {
                self.reads_account(node, account, self.now());
            }
        }
        let answered = self.office.answered_at();
        if answered < self.setup.safety && self.wrong().is_none() {
            self.goes_wrong(Rule::Liveness, format!("the directory answered last at {answered} us"));
        }
    }

    /// Something comes from an administrator's node.
    pub fn directory_hears(&mut self, node: NodeId, asker: Asker, id: CommandId, command: Command) {
        let Some(process) = self.host_mut(node).up.as_mut() else { return };
        let Some(leading) = process.leading.get(&PartitionId::CONTROL).copied() else {
            return self.directory_replies(node, asker, Err(Unanswered::Ended(Detached::NotLeader)));
        };
        if process.directory.as_ref().is_none_or(|directory| directory.leading != leading) {
            let number = process.last_request + 1;
            process.directory = Some(DirectoryActor { number, leading, owner: LogOwner::new(), proposal: None });
            let request = process.request(Waiter::DirectorySlot(number));
            let (partition, term) = (PartitionId::CONTROL, leading.term);
            self.input(node, Input::AwaitSlot { request, partition, term, mailbox: MailboxId::PARTITION });
        }
        // As in production nobody says whether it was sent before.
        let asked = Ask { from: asker, turn: SessionNumber::default(), id, attempt: 1, command };
        self.with_directory(node, |owner, env, out| owner.ask(env, asked, out));
    }

    /// No entry of an earlier owner is in flight, or never again here.
    pub fn directory_may_load(&mut self, node: NodeId, number: u64, outcome: SlotOutcome) {
        if !self.is_directory(node, number) {
            return;
        }
        match outcome {
            SlotOutcome::Free => {
                let takes = self.office.dice().exponential(LOAD_TAKES);
                self.later(node, self.now() + 1 + takes, Local::DirectoryLoad(number));
            }
            SlotOutcome::NotLeader { .. } | SlotOutcome::Overloaded => {
                self.with_directory(node, |owner, env, out| owner.loaded(env, Err(Detached::NotLeader), out));
            }
        }
    }

    /// The directory's keys are read.
    pub fn directory_loads(&mut self, node: NodeId, number: u64) {
        if !self.is_directory(node, number) {
            return;
        }
        let Some(leading) = self.host(node).up.as_ref().and_then(|p| Some(p.directory.as_ref()?.leading)) else {
            return;
        };
        let lookup = self.lookup(node, leading.replica);
        let loaded = lookup.and_then(|lookup| Directory::load(&Arc::new(lookup), leading.incarnation, leading.term));
        let loaded = loaded.map_err(|error| {
            self.meets_damage(node, PartitionId::CONTROL, &error);
            Detached::Corrupt
        });
        self.with_directory(node, |owner, env, out| owner.loaded(env, loaded, out));
    }

    /// What became of the directory's entry.
    pub fn directory_decided(&mut self, node: NodeId, number: u64, outcome: ProposalOutcome) {
        if self.is_directory(node, number) {
            self.with_directory(node, |owner, env, out| owner.decided(env, outcome, out));
        }
    }

    /// A pause of the directory's owner is over.
    pub fn directory_again(&mut self, node: NodeId, number: u64) {
        if self.is_directory(node, number) {
            self.with_directory(node, |owner, env, out| owner.again(env, out));
        }
    }

    /// The directory proposes if nothing else on the control group's own rows is in flight; else it waits.
    pub fn directory_turn(&mut self, node: NodeId, number: u64) {
        if !self.is_directory(node, number) {
            return;
        }
        let next = self.now() + TURN_EVERY;
        let Some(process) = self.host_mut(node).up.as_mut() else { return };
        if process.own_rows_taken() {
            return self.later(node, next, Local::DirectoryTurn(number));
        }
        let Some(proposal) = process.directory.as_mut().and_then(|d| d.proposal.take()) else { return };
        let request = process.request(Waiter::DirectoryEntry(number));
        self.input(node, Input::Propose { request, partition: PartitionId::CONTROL, proposal });
    }

    /// The directory's owner ends with its term.
    pub fn directory_ends(&mut self, node: NodeId) {
        let Some(process) = self.host(node).up.as_ref() else { return };
        let leading = process.leading.get(&PartitionId::CONTROL);
        if process.directory.as_ref().is_some_and(|directory| Some(&directory.leading) != leading) {
            self.with_directory(node, |owner, _, out| owner.end(Detached::NotLeader, out));
        }
    }

    fn change_begins(&mut self, number: usize) {
        let (up, now) = (self.up(), self.now());
        let Some((node, drawn)) = self.office.draws_change(self.setup.accounts, &up, now) else {
            let attempt = self.office.attempt(number);
            return self.queue.push(now + CHANGE_EVERY, Event::Administrator(number, attempt));
        };
        let (change, command) = match drawn {
            Drawn::Domain => (None, Command::CreateDomain { name: DOMAIN.to_owned() }),
            Drawn::Change { number, account, change } => (Some(number), command_of(account, change)),
        };
        self.clients.set_wall(self.hosts[&node].cluster_wall(now));
        let id = self.clients.command_id();
        self.office.waits(number, Busy { node, id, command, change, asked: now });
        self.asks_directory(number);
    }

    fn asks_directory(&mut self, number: usize) {
        let (attempt, busy) = self.office.asks(number);
        let Some(Busy { node, id, command, .. }) = busy else { return };
        let (node, id, command) = (*node, *id, command.clone());
        if self.host(node).up.is_none() {
            return self.change_ends(number, ChangeEnd::Unknown);
        }
        let asker = Asker { administrator: number, attempt, node };
        let again = match self.leader_as_seen(node, PartitionId::CONTROL) {
            Some(leader) => {
                let now = self.now();
                let World { net, office, .. } = self;
                if let Carried::At(at) = net.stream(office.dice(), now, node, leader) {
                    if office.dice().chance(LATE_COPIES_PERMILLE) {
                        let late = at + office.dice().exponential(LATE_COPIES_MEAN);
                        let asks = Local::DirectoryAsk(asker, id, Box::new(command.clone()));
                        self.queue.push(late, Event::To(leader, asks));
                    }
                    self.queue.push(at, Event::To(leader, Local::DirectoryAsk(asker, id, Box::new(command))));
                }
                ANSWER_WITHIN
            }
            None => ASKS_AGAIN,
        };
        self.queue.push(self.now() + again, Event::Administrator(number, attempt));
    }

    fn change_ends(&mut self, number: usize, end: ChangeEnd) {
        let Some(ChangeEnded { next, attempt, wrong }) = self.office.change_ends(number, end, self.queue.now()) else {
            return;
        };
        self.queue.push(next, Event::Administrator(number, attempt));
        if let Some(what) = wrong {
            self.goes_wrong(Rule::ExactlyOnce, what);
        }
    }

    /// Reads an account where everything is that was answered before `began`.
    fn reads_account(&mut self, node: NodeId, account: usize, began: Micros) {
        let Some(seen) = self.looks_up(node, account) else { return };
        // What was answered in the same microsecond may have been answered behind it.
        let checked = self.office.accounts().is_read(account, seen, began.saturating_sub(1), self.now());
        if let Err(what) = checked {
            self.goes_wrong(Rule::Stale, format!("at node {node} {what}"));
        }
    }

    /// An account as a node's own replica has it; None if that can't be read.
    fn looks_up(&mut self, node: NodeId, account: usize) -> Option<Option<Seen>> {
        let replica = self.replica(node, PartitionId::CONTROL)?;
        let process = self.host(node).up.as_ref()?;
        if process.replacing.contains(&replica) {
            return None;
        }
        let found = match self.lookup(node, replica) {
            // A replica that is new, and still empty.
            Err(LookupError::NoKey(_)) => return Some(None),
            lookup => lookup.and_then(|lookup| lookup.account(&address(account))),
        };
        match found {
            Ok(found) => {
                Some(found.map(|account| Seen { password: password_of(&account.verifier), disabled: account.disabled }))
            }
            Err(error) => {
                self.meets_damage(node, PartitionId::CONTROL, &error);
                None
            }
        }
    }

    fn lookup(&self, node: NodeId, replica: ReplicaId) -> Result<Lookup, LookupError> {
        Lookup::new(Arc::new(self.host(node).rows.clone()), replica, CLUSTER, root())
    }

    fn is_directory(&self, node: NodeId, number: u64) -> bool {
        let process = self.host(node).up.as_ref();
        process.and_then(|p| p.directory.as_ref()).is_some_and(|directory| directory.number == number)
    }

    /// Lets the owner do something, and carries out what it wants done.
    fn with_directory(
        &mut self,
        node: NodeId,
        act: impl FnOnce(&mut LogOwner<Directory, Asker>, &mut Env, &mut Vec<StepOf<Directory, Asker>>),
    ) {
        let now = self.now();
        let host = self.host_mut(node);
        host.tell_time(now);
        let Some(process) = host.up.as_mut() else { return };
        let Some(directory) = process.directory.as_mut() else { return };
        let (number, mut steps) = (directory.number, Vec::new());
        act(&mut directory.owner, &mut process.actors_env, &mut steps);
        for step in steps {
            match step {
                Step::Propose(proposal) => {
                    let Some(process) = self.host_mut(node).up.as_mut() else { return };
                    if let Some(directory) = process.directory.as_mut() {
                        directory.proposal = Some(proposal);
                    }
                    self.directory_turn(node, number);
                }
                Step::Own(Tell::Event(never)) => match never {},
                Step::Own(Tell::Answer { to, result, at, .. }) => {
                    self.directory_replies(node, to, result.map(|result| (result, at)));
                }
                Step::Own(Tell::Kept { to, result, at, .. }) => self.directory_replies(node, to, Ok((result, at))),
                Step::Pause { millis } => self.later(node, now + millis * 1_000, Local::DirectoryAgain(number)),
                Step::Unreadable { command, error } => {
                    self.meets_damage(node, PartitionId::CONTROL, &format!("command {command}: {error}"));
                }
                Step::End { .. } => {
                    if let Some(process) = self.host_mut(node).up.as_mut() {
                        process.directory = None;
                    }
                }
            }
        }
    }

    fn directory_replies(&mut self, node: NodeId, to: Asker, reply: DirectoryReply) {
        let now = self.now();
        let World { net, office, .. } = self;
        if let Carried::At(at) = net.stream(office.dice(), now, node, to.node) {
            self.queue.push(at, Event::FromDirectory(to.administrator, to.attempt, Box::new(reply)));
        }
    }
}

/// What the control group's rows begin with where the directory is at work.
pub fn first_directory_rows(seed: u64) -> RowBatch {
    first_rows(&mut Env::seeded(seed), CLUSTER, &root())
}

const DOMAIN: &str = "sim.test";
/// The digits of a password's number in its verifier.
const PASSWORD_DIGITS: usize = 12;

fn root() -> RootKey {
    RootKey::parse(&"07".repeat(32)).expect("64 hexadecimal digits are a root key")
}

fn address(account: usize) -> String {
    format!("account{account}@{DOMAIN}")
}

fn command_of(account: usize, change: Change) -> Command {
    let address = address(account);
    match change {
        Change::Create(password) => Command::CreateAccount { address, verifier: verifier(password) },
        Change::SetPassword(password) => Command::SetPassword { address, verifier: verifier(password) },
        Change::SetDisabled(disabled) => Command::SetDisabled { address, disabled },
    }
}

/// A verifier that begins its hash with the password's number. Nobody computes it.
fn verifier(password: Password) -> String {
    let hash = DUMMY_VERIFIER.rfind('$').map_or(0, |at| at + 1);
    format!("{}{password:0PASSWORD_DIGITS$}{}", &DUMMY_VERIFIER[..hash], &DUMMY_VERIFIER[hash + PASSWORD_DIGITS..])
}

fn password_of(verifier: &str) -> Password {
    let hash = verifier.rsplit('$').next().unwrap_or_default();
    hash.get(..PASSWORD_DIGITS).and_then(|digits| digits.parse().ok()).unwrap_or_default()
}
