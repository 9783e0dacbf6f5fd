//! Mailbox actors over a whole node whose stores are in memory.

#![allow(clippy::unwrap_used, clippy::panic)]

mod deleted;
mod large;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock, mpsc};
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use mailraft_directory::keys::RootKey;
use mailraft_directory::{Lookup, password};
use mailraft_driver::testing::{PATIENCE, cluster_ca};
use mailraft_driver::{Cluster, DriverConfig, Leading, LeadingMap};
use mailraft_mailbox::api::{Change, FolderId, Once, ZonedTime};
use mailraft_mailbox::{
    Answer, Command, CommandError, Detached, Event, Finished, Flags, MessageKind, NotDone, Position, Refusal, UidSet,
};
use mailraft_storage::memory::{MemoryLog, MemoryRows};
use mailraft_storage::rows::{Applied, ReplicaBatch, Rows, RowsView, ScannedRows};
use mailraft_storage::{
    ClusterId, CommandId, Index, MailboxId, NodeId, PartitionId, ReplicaId, RowKey, StoreError, Table, Term,
};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::mailbox::MailboxActor;
use super::{ActorThreads, Idle, Limits, LocalLink, Registry, SessionKey};
use crate::bootstrap::{FirstNode, FirstState, create_first_state};
use crate::config::{Config, OnLoopback, RootKeyUse, render_on_loopback};
use crate::credentials::{Credentials, LoginRefused};
use crate::descriptors::Descriptors;
use crate::disk_space::DiskSpace;
use crate::environment::command_id;
use crate::failover::{Failover, Unsealing};
use crate::links::{FailoverLinks, LinkKey, Links, MailboxSession, StatusLinks, Stored};
use crate::logged_in::LoggedIn;
use crate::memory_limit::{Division, NodeMemory};
use crate::outbox::{Inbox, Outbox, ToSession, channel};
use crate::places::Places;
use crate::sender_auth::SenderAuth;
use crate::services::Services;
use crate::spool::{Budget, Entrance, Spool, SpooledMessage};
use crate::turns::Turns;
use crate::{OpenStores, RowsBounds, Stores};

const CLUSTER: ClusterId = ClusterId([0xc1; 16]);
const PARTITIONS: u32 = 2;
const ROOT_KEY: &str = "1111111111111111111111111111111111111111111111111111111111111111";
/// Between two looks at something that nobody announces.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Actors that stay for as long as a test takes.
const LIMITS: Limits = Limits {
    actors: 100,
    quota_bytes: None,
    idle: Idle { before_passivation: Duration::from_secs(3_600), check: Duration::from_millis(10) },
};
/// Actors that end as soon as nobody uses them.
const SHORT_LIVED: Limits =
    Limits { idle: Idle { before_passivation: Duration::from_millis(20), check: Duration::from_millis(5) }, ..LIMITS };

/// A node without sockets for clients.
struct Node {
    services: Services,
    rows: WatchedRows,
    threads: ActorThreads,
    dir: TempDir,
}

impl Node {
    /// A new cluster of one node that leads everything.
    async fn start(limits: Limits) -> Node {
        let dir = TempDir::new().unwrap();
        let stores = MemoryStores::default();
        let first = FirstNode {
            id: 1,
            name: "node1".into(),
            region: "home".into(),
            zone: String::new(),
            peer: "127.0.0.1:1".into(),
            data_dir: dir.path().into(),
        };
        let root_key_hex = ROOT_KEY.to_owned().into();
        let state = FirstState { cluster: CLUSTER, partitions: PARTITIONS, root_key_hex, nodes: vec![first] };
        create_first_state(&state, &stores).unwrap();

        let tls = cluster_ca(CLUSTER, 1).1.remove(&NodeId(1)).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let staging = dir.path().join("staging");
        let mut driver = DriverConfig::new(NodeId(1), CLUSTER, PARTITIONS, listen, BTreeMap::new(), tls, staging);
        driver.on_fatal = Arc::new(|sentence| tracing::error!("{sentence}"));
        let (log, rows) = (Arc::new(stores.log.clone()), Arc::new(stores.rows.clone()));
        let streams = tokio::sync::mpsc::channel(1).0;
        let cluster = Cluster::start(driver, log, rows.clone(), streams).await.unwrap();
        let mut leading = cluster.leading();
        let all = leading.wait_for(|leading| leading.len() == PARTITIONS as usize + 1);
        drop(timeout(PATIENCE, all).await.unwrap().unwrap());

        let control = cluster.replica(PartitionId::CONTROL).unwrap();
        let lookup = Lookup::new(rows, control, CLUSTER, RootKey::parse(ROOT_KEY).unwrap()).map(Arc::new).unwrap();
        let threads = ActorThreads::start().unwrap();
        let memory = NodeMemory::new(Division::of(1 << 30, &config(dir.path()).limits));
        let of_actors = Arc::clone(&memory.actors);
        let turns = Turns::of_this_machine();
        let (far, of_node) = (StatusLinks::new(cluster.clone()), Arc::new(config(dir.path())));
        let near = FailoverLinks::new(cluster.clone(), LinkKey::new(RootKey::parse(ROOT_KEY).unwrap().sums_alone()));
        let unsealing = Unsealing::new(cluster.clone(), Arc::clone(&of_node), None);
        let services = Services {
            failover: Failover::new(cluster.clone(), of_node, near, unsealing),
            accepted: Arc::default(),
            far,
            registry: Registry::new(cluster.clone(), Arc::clone(&lookup), &threads, limits, of_actors, turns.clone()).0,
            links: Arc::new(Links::new(cluster.clone(), LinkKey::new(RootKey::parse(ROOT_KEY).unwrap().link_key()))),
            memory,
            rows_memory: Arc::new(|| 0),
            bodies: Budget::new(4 << 20, 8, 64 << 20),
            credentials: Arc::new(Credentials::new(cluster.clone(), Arc::clone(&lookup), 1)),
            config: Arc::new(RwLock::new(Arc::new(config(dir.path())))),
            cluster,
            lookup,
            disk: DiskSpace::of(dir.path(), &config(dir.path()).limits),
            allowed: Default::default(),
            queues: Default::default(),
            trail: Default::default(),
            descriptors: Descriptors::share_out(4_096, 0, 100).unwrap(),
            sender_auth: SenderAuth::default(),
            counted: Default::default(),
            logged_in: LoggedIn::default(),
            places: Places::default(),
            turns,
        };
        tokio::spawn(services.registry.clone().end_actors_with_their_terms());
        Node { services, rows: stores.rows, threads, dir }
    }

    /// The mailboxes of new accounts, each in another partition.
    async fn mailboxes(&self) -> [MailboxId; PARTITIONS as usize] {
        use mailraft_directory::{Answer, Command};
        self.change(Command::CreateDomain { name: "example.test".into() }).await;
        let mut found = [None; PARTITIONS as usize];
        for number in 0.. {
            let address = format!("user{number}@example.test");
            let create = Command::CreateAccount { address, verifier: password::DUMMY_VERIFIER.into() };
            let Answer::AccountCreated { mailbox, .. } = self.change(create).await else { panic!("no account") };
            found[mailbox.partition(PARTITIONS).0 as usize - 1] = Some(mailbox);
            if found.iter().all(Option::is_some) {
                break;
            }
        }
        found.map(Option::unwrap)
    }

    async fn change(&self, command: mailraft_directory::Command) -> mailraft_directory::Answer {
        self.services.registry.directory(self.id(), command).await.unwrap().0.unwrap()
    }

    fn id(&self) -> CommandId {
        command_id(&self.services.cluster)
    }

    fn leading(&self, mailbox: MailboxId) -> Leading {
        self.services.cluster.leading().borrow()[&mailbox.partition(PARTITIONS)]
    }

    fn actors(&self) -> usize {
        self.services.registry.len()
    }

    fn attach(&self, mailbox: MailboxId) -> Session {
        self.try_attach(mailbox).unwrap()
    }

    fn try_attach(&self, mailbox: MailboxId) -> Result<Session, Detached> {
        let (outbox, inbox) = channel(1, self.services.memory.queues.of(mailbox));
        let key = session_key();
        let link = self.services.registry.attach(key, mailbox, outbox.clone())?;
        Ok(Session { link, inbox, outbox })
    }

    /// A whole message that was received.
    async fn message(&self, bytes: usize) -> SpooledMessage {
        let mut spool = Spool::new(&Budget::new(64 << 20, 8, 64 << 20)).unwrap();
        spool.write(b"Subject: one\r\nMessage-ID: <1@example.test>\r\n\r\n", self.dir.path()).unwrap();
        spool.write(&vec![b'x'; bytes], self.dir.path()).unwrap();
        spool.finish(b"", Entrance::Append).await.unwrap()
    }

    async fn append(&self) -> Command {
        let new_message = self.message(100).await.seal();
        Command::Append {
            folder: "INBOX".into(),
            new_message,
            flags: Flags::default(),
            internal_date: ZonedTime::default(),
        }
    }

    async fn end(self) {
        self.threads.stop();
        self.services.cluster.shutdown().await;
    }
}

fn session_key() -> SessionKey {
    static SESSIONS: AtomicU64 = AtomicU64::new(1);
    SessionKey { connection: 9, session: SESSIONS.fetch_add(1, Ordering::Relaxed) }
}

fn config(dir: &Path) -> Config {
    let (ca, token) = (dir.join("ca.pem"), dir.join("token"));
    let text = render_on_loopback(&OnLoopback {
        region: "home",
        root_key_use: RootKeyUse::Always,
        id: 1,
        cluster: &CLUSTER.to_string(),
        partitions: PARTITIONS,
        peers: &[],
        dir,
        ca_file: &ca,
        token_file: &token,
        base_port: 10_000,
    });
    Config::parse(&text).unwrap()
}

/// Looks again and again.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let looking = async {
        while !is() {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// An attached session.
struct Session {
    link: LocalLink,
    inbox: Inbox,
    /// Its channel does not end with the actor, as that of another node's sessions does not.
    #[allow(dead_code)]
    outbox: Outbox,
}

impl Session {
    async fn hear(&mut self) -> ToSession {
        timeout(PATIENCE, self.inbox.next()).await.expect("never heard of").expect("an open channel").1
    }

    async fn detached(&mut self) -> Detached {
        match self.hear().await {
            ToSession::Detached(why) => why,
            other => panic!("{other:?}"),
        }
    }

    async fn answer(&mut self, id: CommandId) -> (Result<Answer, Refusal>, Position) {
        match self.hear().await {
            ToSession::Answer { id: of, result, at } if of == id => (result, at),
            other => panic!("{other:?}"),
        }
    }

    async fn ask(&mut self, id: CommandId, attempt: u32, command: Command) -> (Result<Answer, Refusal>, Position) {
        self.link.ask(id, attempt, command).unwrap();
        self.answer(id).await
    }

    async fn uids(&mut self, node: &Node) -> Vec<u32> {
        let select = Command::Select { folder: "INBOX".into(), claim_recent: false };
        match self.ask(node.id(), 0, select).await.0.unwrap() {
            Answer::Selected(selected) => selected.messages.iter().map(|m| m.uid).collect(),
            other => panic!("{other:?}"),
        }
    }
}

/// The actor panics once `when` has come; until then it does nothing else.
#[derive(Message)]
#[rtype(result = "()")]
struct Panic {
    when: mpsc::Receiver<()>,
}

impl Handler<Panic> for MailboxActor {
    type Result = ();

    fn handle(&mut self, Panic { when }: Panic, _: &mut Self::Context) {
        let _ = when.recv();
        panic!("as the test wants");
    }
}

impl LocalLink {
    /// The actor panics when the sender sends or is dropped.
    fn panic(&self) -> mpsc::Sender<()> {
        let (now, when) = mpsc::channel();
        self.addr.do_send(Panic { when });
        now
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_panic_the_next_actor_waits_for_the_entry_in_flight_and_nothing_is_done_twice() {
    let node = Node::start(LIMITS).await;
    let [mailbox, other] = node.mailboxes().await;
    let mut first = node.attach(mailbox);
    let mut idler = node.attach(mailbox);
    assert!(first.uids(&node).await.is_empty());
    // Another mailbox that has its first folders, and no actor any more.
    let mut elsewhere = node.attach(other);
    assert!(elsewhere.uids(&node).await.is_empty());
    drop(elsewhere.link.panic());
    assert_eq!(elsewhere.detached().await, Detached::Gone);
    until("its end", || node.actors() == 1).await;

    node.rows.hold(true);
    let (id, append) = (node.id(), node.append().await);
    first.link.ask(id, 0, append.clone()).unwrap();
    node.rows.waits().await;
    let loads = [mailbox, other].map(|m| node.rows.scans(m));
    drop(first.link.panic());
    assert_eq!(first.detached().await, Detached::Gone);
    assert_eq!(idler.detached().await, Detached::Gone);
    // It says so before its place is free.
    until("its end", || node.actors() == 0).await;
    assert_eq!(first.link.ask(id, 1, append.clone()), Err(Detached::Gone));

    let mut second = node.attach(mailbox);
    second.link.ask(id, 1, append.clone()).unwrap();
    assert_eq!(node.actors(), 1);
    // An actor that has nothing to wait for is loaded and answers, though it started later.
    assert!(node.attach(other).uids(&node).await.is_empty());
    assert!(second.inbox.try_next().is_none(), "the first actor's entry has no verdict yet");
    assert_eq!(node.rows.scans(mailbox), loads[0], "a mailbox is loaded before it is known how it stands");
    assert!(node.rows.scans(other) > loads[1]);

    node.rows.hold(false);
    let (answer, at) = second.answer(id).await;
    assert!(matches!(answer, Ok(Answer::Stored { uid: 1, .. })), "{answer:?}");
    assert_eq!(second.uids(&node).await, [1]);
    assert_eq!(second.ask(id, 2, append).await, (answer, at), "the first one's result");
    assert_eq!(second.uids(&node).await, [1]);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_attaching_waited_when_the_actor_panicked_is_told() {
    let node = Node::start(LIMITS).await;
    let [mailbox, _] = node.mailboxes().await;
    let first = node.attach(mailbox);
    let now = first.link.panic();
    let mut second = node.attach(mailbox);
    drop(now);
    assert_eq!(second.detached().await, Detached::Gone);
    until("the actor's end", || node.actors() == 0).await;
    assert!(node.attach(mailbox).uids(&node).await.is_empty());
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_of_an_earlier_term_is_told_when_the_next_takes_its_place() {
    let node = Node::start(LIMITS).await;
    let [mailbox, _] = node.mailboxes().await;
    let mut first = node.attach(mailbox);
    assert!(first.uids(&node).await.is_empty());
    let now = node.leading(mailbox);
    let later = Leading { term: Term(now.term.0 + 1), ..now };
    let (outbox, _inbox) = channel(1, node.services.memory.queues.of(mailbox));
    // That actor can't stay: nobody leads in such a term.
    let _next = node.services.registry.attach_in(later, session_key(), mailbox, outbox);
    assert_eq!(first.detached().await, Detached::NotLeader);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_ends_whose_term_is_over_before_anybody_saw_it_begin() {
    let node = Node::start(LIMITS).await;
    let [mailbox, other] = node.mailboxes().await;
    let (mut ends, mut stays) = (node.attach(mailbox), node.attach(other));
    assert!(ends.uids(&node).await.is_empty() && stays.uids(&node).await.is_empty());
    let mut now = LeadingMap::clone(&node.services.cluster.leading().borrow());
    Arc::make_mut(&mut now).remove(&mailbox.partition(node.services.cluster.partitions()));
    node.services.registry.end_actors_but(&now);
    assert_eq!(ends.detached().await, Detached::NotLeader);
    assert!(stays.uids(&node).await.is_empty(), "its term is not over");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_actor_of_the_directory_ends_with_its_term() {
    let node = Node::start(LIMITS).await;
    node.mailboxes().await;
    let registry = &node.services.registry;
    let earlier = registry.directory_actor().unwrap();
    let now = node.services.cluster.leading().borrow()[&PartitionId::CONTROL];
    let later = Leading { term: Term(now.term.0 + 1), ..now };
    let create = mailraft_directory::Command::CreateDomain { name: "later.test".into() };
    assert_eq!(registry.directory_in(later, node.id(), create).await, Err(Detached::NotLeader));
    until("the earlier actor's end", || !earlier.connected()).await;

    node.change(mailraft_directory::Command::CreateDomain { name: "now.test".into() }).await;
    assert!(registry.directory_actor().is_some_and(|actor| actor.connected()), "its term is not over");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_nobody_uses_ends_and_the_next_one_sees_everything() {
    let node = Node::start(SHORT_LIVED).await;
    let [mailbox, other] = node.mailboxes().await;
    let mut used = node.attach(other);
    let mut first = node.attach(mailbox);
    let (id, append) = (node.id(), node.append().await);
    let stored = first.ask(id, 0, append.clone()).await;
    assert!(stored.0.is_ok(), "{stored:?}");
    let loads = node.rows.scans(mailbox);
    assert_eq!(node.actors(), 2);
    drop(first.link);
    until("the actor that nobody uses ends", || node.actors() == 1).await;
    // It was looked at as often as the other one, which has a session.
    assert!(used.uids(&node).await.is_empty());

    let mut second = node.attach(mailbox);
    assert_eq!(second.uids(&node).await, [1]);
    assert_eq!(second.ask(id, 1, append).await, stored);
    assert!(node.rows.scans(mailbox) > loads, "loaded anew");
    assert_eq!(node.actors(), 2);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_under_way_keeps_an_actor_without_sessions() {
    let node = Node::start(SHORT_LIVED).await;
    let [mailbox, other] = node.mailboxes().await;
    let mut first = node.attach(mailbox);
    let mut witness = node.attach(other);
    assert!(first.uids(&node).await.is_empty() && witness.uids(&node).await.is_empty());
    node.rows.hold(true);
    let (id, append) = (node.id(), node.append().await);
    first.link.ask(id, 0, append.clone()).unwrap();
    node.rows.waits().await;
    drop(first);
    drop(witness);
    until("the other actor ends", || node.actors() == 1).await;
    let mut second = node.attach(mailbox);
    second.link.ask(id, 1, append).unwrap();
    node.rows.hold(false);
    assert!(matches!(second.answer(id).await.0, Ok(Answer::Stored { uid: 1, .. })));
    assert_eq!(second.uids(&node).await, [1]);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actors_are_bounded_and_the_bound_can_be_changed() {
    let one = Limits { actors: 1, ..SHORT_LIVED };
    let node = Node::start(one).await;
    let [mailbox, other] = node.mailboxes().await;
    let first = node.attach(mailbox);
    assert_eq!(node.try_attach(other).err(), Some(Detached::Overloaded));
    let again = node.attach(mailbox);
    drop((first, again));
    let mut second = None;
    until("the place of the actor that ended is free", || {
        second = node.try_attach(other).ok();
        second.is_some()
    })
    .await;
    assert!(second.as_mut().unwrap().uids(&node).await.is_empty());
    assert_eq!(node.try_attach(mailbox).err(), Some(Detached::Overloaded));

    node.services.registry.set_limits(Limits { actors: 2, ..one });
    let mut first = node.attach(mailbox);
    assert!(first.uids(&node).await.is_empty());
    node.services.registry.set_limits(one);
    assert!(node.attach(mailbox).uids(&node).await.is_empty(), "actors above the bound stay while they are used");
    assert_eq!(node.actors(), 2);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mailboxes_that_nobody_uses_leave_memory_for_others_and_those_in_use_stay() {
    let node = Node::start(LIMITS).await;
    let [mailbox, other] = node.mailboxes().await;
    let memory = Arc::clone(&node.services.memory.actors);
    // As if the first one had grown: it takes more than there is.
    memory.resize(2);
    let mut first = node.attach(mailbox);
    assert!(first.uids(&node).await.is_empty() && memory.used() > memory.max());
    let mut second = node.attach(other);
    assert!(second.uids(&node).await.is_empty(), "one alone keeps nobody out");
    let third = MailboxId::queue_of(PartitionId(1));
    assert_eq!(node.try_attach(third).err(), Some(Detached::Overloaded), "both are in use");
    assert!(first.uids(&node).await.is_empty() && second.uids(&node).await.is_empty());
    drop(first);
    until("the one that nobody uses makes room", || node.try_attach(third).is_ok()).await;
    assert!(second.uids(&node).await.is_empty());
    assert_eq!(node.actors(), 2);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_quota_holds_for_actors_that_run_are_being_loaded_or_start_later() {
    let over = Err(Refusal::OverQuota);
    let node = Node::start(LIMITS).await;
    let [mailbox, other] = node.mailboxes().await;
    let mut runs = node.attach(mailbox);
    assert!(runs.ask(node.id(), 0, node.append().await).await.0.is_ok());
    let mut loading = node.attach(other);
    let small = Limits { quota_bytes: Some(10), ..LIMITS };
    node.services.registry.set_limits(small);
    assert_eq!(runs.ask(node.id(), 0, node.append().await).await.0, over);
    assert_eq!(loading.ask(node.id(), 0, node.append().await).await.0, over);
    drop(runs.link.panic());
    assert_eq!(runs.detached().await, Detached::Gone);
    until("the actor's end", || node.actors() == 1).await;
    let mut later = node.attach(mailbox);
    assert_eq!(later.ask(node.id(), 0, node.append().await).await.0, over);

    node.services.registry.set_limits(LIMITS);
    assert!(later.ask(node.id(), 0, node.append().await).await.0.is_ok());
    assert_eq!(later.uids(&node).await.len(), 2);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_hear_that_there_is_no_such_mailbox() {
    let node = Node::start(LIMITS).await;
    let nobody = MailboxId([0x77; 16]);
    assert_eq!(node.attach(nobody).detached().await, Detached::NoSuchMailbox);
    until("its actor ends", || node.actors() == 0).await;

    let mut session = MailboxSession::new(node.services.reach(), nobody);
    let asked = session.ask(node.id(), Command::Sync).await;
    assert_eq!(asked, Finished::NotDone(NotDone::NoSuchMailbox));
    for bytes in [100, 600_000] {
        let message = node.message(bytes).await;
        let received = ZonedTime::default();
        let kind = MessageKind::Deliver { reverse_path: String::new(), detail: None, deduplicate: true, received };
        let stored = session.store(node.id(), kind, None, &message).await;
        assert_eq!(stored, Finished::NotDone(NotDone::NoSuchMailbox), "{bytes} bytes");
    }
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_can_not_be_read_is_refused_and_its_replica_reported() {
    let node = Node::start(SHORT_LIVED).await;
    let [mailbox, other] = node.mailboxes().await;
    let mut first = node.attach(mailbox);
    assert!(first.ask(node.id(), 0, node.append().await).await.0.is_ok());
    drop(first);
    until("its actor ends", || node.actors() == 0).await;
    node.services.cluster.flush().await;
    let replica = node.leading(mailbox).replica;
    node.rows.rows.damage(replica, node.rows.rows.keys(replica).into_iter().filter(|key| key.mailbox == mailbox));

    assert_eq!(node.attach(mailbox).detached().await, Detached::Corrupt);
    let status = node.services.cluster.status().await;
    let damaged: Vec<PartitionId> = status.partitions.iter().filter(|p| p.damaged).map(|p| p.partition).collect();
    assert_eq!(damaged, [mailbox.partition(PARTITIONS)]);
    // There is nobody to hand over to: it goes on serving what it can read.
    assert!(node.attach(other).uids(&node).await.is_empty());
    let mut session = MailboxSession::new(node.services.reach(), mailbox);
    assert_eq!(session.ask(node.id(), Command::Sync).await, Finished::NotDone(NotDone::Corrupt));
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_up_that_meets_damage_is_no_no_and_is_reported() {
    let node = Node::start(LIMITS).await;
    node.mailboxes().await;
    node.services.cluster.flush().await;
    let control = node.services.cluster.replica(PartitionId::CONTROL).unwrap();
    let damaged = || async {
        let status = node.services.cluster.status().await;
        status.partitions.iter().find(|p| p.partition == PartitionId::CONTROL).unwrap().damaged
    };
    assert!(!damaged().await);
    let accounts = node.rows.rows.keys(control).into_iter().filter(|key| key.table == Table::Accounts.number());
    node.rows.rows.damage(control, accounts);
    let login = node
        .services
        .credentials
        .verify("user0@example.test", "wrong".to_owned().into(), "imap", [127, 0, 0, 1].into())
        .await;
    assert_eq!(login.unwrap_err(), LoginRefused::Unavailable);
    assert!(damaged().await, "another node is to answer");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_listens_to_what_is_not_there_attaches_again_only_now_and_then() {
    let node = Node::start(LIMITS).await;
    let mut session = MailboxSession::new(node.services.reach(), MailboxId([0x77; 16]));
    assert!(timeout(Duration::from_millis(600), session.wait_for_event()).await.is_err());
    let started = node.services.registry.started();
    assert!((1..=4).contains(&started), "{started} actors were started");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cancelled_disturbs_nothing_that_comes_after_it() {
    let node = Node::start(LIMITS).await;
    let [mailbox, _] = node.mailboxes().await;
    let mut session = MailboxSession::new(node.services.reach(), mailbox);
    let select = Command::Select { folder: "INBOX".into(), claim_recent: true };
    let opened = session.ask(node.id(), select).await;
    assert!(matches!(opened, Finished::Done((Answer::Selected(_), _))), "{opened:?}");

    // In the middle of an upload its client goes away.
    let message = node.message(600_000).await;
    let (flags, internal_date) = (Flags::default(), ZonedTime::default());
    let kind = MessageKind::Append { folder: "INBOX".into(), flags, internal_date };
    node.rows.hold(true);
    tokio::select! {
        biased;
        stored = session.store(node.id(), kind.clone(), None, &message) => panic!("{stored:?}"),
        () = node.rows.waits() => {}
    }
    node.rows.hold(false);
    let stored = session.store(node.id(), kind, None, &message).await;
    assert!(matches!(stored, Finished::Done(Stored { uid: 1, .. })), "{stored:?}");
    let added = |events: Vec<Event>| -> Vec<u32> {
        let of = |event: Event| -> Vec<u32> {
            match event.change {
                Change::Added(messages) => messages.into_iter().map(|m| m.uid).collect(),
                other => panic!("{other:?}"),
            }
        };
        events.into_iter().flat_map(of).collect()
    };
    assert_eq!(added(session.take_events()), [1]);

    // A wait that is given up again and again misses nothing.
    assert!(timeout(Duration::from_millis(20), session.wait_for_event()).await.is_err());
    let mut other = MailboxSession::new(node.services.reach(), mailbox);
    let appended = other.ask(node.id(), node.append().await).await;
    assert!(matches!(appended, Finished::Done((Answer::Stored { uid: 2, .. }, _))), "{appended:?}");
    while timeout(Duration::from_micros(50), session.wait_for_event()).await.is_err() {}
    assert_eq!(added(session.take_events()), [2]);
    node.end().await;
}

/// Stores in memory.
#[derive(Clone, Default)]
struct MemoryStores {
    log: MemoryLog,
    rows: WatchedRows,
}

impl OpenStores for MemoryStores {
    fn open(&self, _: &Path, _: ClusterId, _: RowsBounds) -> Result<Stores, String> {
        let missing = mailraft_storage::summed::Missing::Make;
        Ok(Stores {
            log: Arc::new(self.log.clone()),
            rows: Arc::new(self.rows.clone()),
            missing,
            rows_memory: Arc::new(|| 0),
            give_back_freed: || false,
        })
    }

    fn sums_are_made(&self, _: &Path, _: ClusterId) -> Result<(), String> {
        Ok(())
    }
}

/// Rows whose writes can be held up, and that know which mailboxes were loaded.
#[derive(Clone, Default)]
struct WatchedRows {
    rows: MemoryRows,
    shared: Arc<Watched>,
}

#[derive(Default)]
struct Watched {
    writes: Mutex<Writes>,
    changed: Condvar,
    scans: Mutex<BTreeMap<MailboxId, usize>>,
}

#[derive(Default)]
struct Writes {
    held: bool,
    waiting: usize,
}

impl WatchedRows {
    fn hold(&self, held: bool) {
        self.shared.writes.lock().unwrap().held = held;
        self.shared.changed.notify_all();
    }

    /// Until a write is held up.
    async fn waits(&self) {
        until("a write that is held up", || self.shared.writes.lock().unwrap().waiting > 0).await;
    }

    /// How often rows of a mailbox were scanned: an actor does that once, to load it.
    fn scans(&self, mailbox: MailboxId) -> usize {
        self.shared.scans.lock().unwrap().get(&mailbox).copied().unwrap_or_default()
    }
}

impl Rows for WatchedRows {
    fn get(&self, replica: ReplicaId, key: &RowKey) -> Result<Option<Bytes>, StoreError> {
        self.rows.get(replica, key)
    }

    fn scan(
        &self,
        replica: ReplicaId,
        mailbox: MailboxId,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<ScannedRows, StoreError> {
        *self.shared.scans.lock().unwrap().entry(mailbox).or_default() += 1;
        self.rows.scan(replica, mailbox, table, prefix, from, limit)
    }

    fn write(&self, batches: &[ReplicaBatch]) -> Result<(), StoreError> {
        let mut writes = self.shared.writes.lock().unwrap();
        writes.waiting += 1;
        let mut writes = self.shared.changed.wait_while(writes, |writes| writes.held).unwrap();
        writes.waiting -= 1;
        drop(writes);
        self.rows.write(batches)
    }

    fn applied(&self, replica: ReplicaId) -> Result<Option<Applied>, StoreError> {
        self.rows.applied(replica)
    }

    fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError> {
        self.rows.replicas()
    }

    fn flush(&self) -> Result<Vec<(ReplicaId, Index)>, StoreError> {
        self.rows.flush()
    }

    fn flushed(&self) -> Result<Vec<(ReplicaId, Index)>, StoreError> {
        self.rows.flushed()
    }

    fn view(&self, replica: ReplicaId) -> Result<Option<Box<dyn RowsView>>, StoreError> {
        self.rows.view(replica)
    }

    fn replace(
        &self,
        replica: ReplicaId,
        applied: &Applied,
        rows: &mut dyn Iterator<Item = Result<(RowKey, Bytes), StoreError>>,
    ) -> Result<(), StoreError> {
        self.rows.replace(replica, applied, rows)
    }

    fn remove(&self, replica: ReplicaId) -> Result<(), StoreError> {
        self.rows.remove(replica)
    }
}
