#![allow(clippy::unwrap_used)]

use mailraft_storage::entry::CommandRow;
use mailraft_storage::memory::MemoryRows;
use mailraft_storage::rows::{ReplicaBatch, Rows};
use mailraft_storage::{Applied, ClusterId, EntryKind, Proposal, ReplicaId, Verdict};

use mailraft_owner::conformance::{Subject, check};
use mailraft_owner::{Deciding, QUEUE_MAX_BYTES, QUEUE_MAX_COMMANDS, SessionNumber, Submitted};

use super::*;
use crate::api::NewKey;
use crate::keys::{RootKey, first_rows};
use crate::lookup::{Resolution, TARGETS_MAX};
use crate::password::DUMMY_VERIFIER;
use crate::records::{
    KEY_RECORD_MAX_BYTES, KEYS_MAX, KeyAlgorithm, KeyState, SECRET_KEY_MAX_BYTES, SecretKey, account_place,
};

const CLUSTER: ClusterId = ClusterId([4; 16]);
const REPLICA: ReplicaId = ReplicaId(1);

struct World {
    rows: MemoryRows,
    lookup: Arc<Lookup>,
    directory: Deciding<Directory>,
    env: Env,
    index: u64,
}

fn root() -> RootKey {
    RootKey::parse(&"ab".repeat(32)).unwrap()
}

impl World {
    fn new() -> Self {
        let (rows, mut env) = (MemoryRows::new(), Env::seeded(1));
        let batch = first_rows(&mut env, CLUSTER, &root());
        let applied = Applied { index: Index(1), ..Applied::default() };
        rows.write(&[ReplicaBatch { replica: REPLICA, batch, applied }]).unwrap();
        let lookup = Arc::new(Lookup::new(Arc::new(rows.clone()), REPLICA, CLUSTER, root()).unwrap());
        let directory = Deciding::new(Directory::load(&lookup, Incarnation::default(), Term(1)).unwrap());
        World { rows, lookup, directory, env, index: 1 }
    }

    fn apply(&mut self, proposal: Proposal) -> Vec<(CommandId, Result<Answer, Refusal>, Index)> {
        self.index += 1;
        let EntryKind::Rows(body) = proposal.kind else { panic!("no rows") };
        let there = |key| self.rows.get(REPLICA, key).unwrap().is_some();
        if !body.requires.iter().all(there) {
            return self.directory.applied(Index(self.index), Verdict::Missing).answers;
        }
        let mut batch = body.batch;
        let keys: BTreeSet<_> = batch.puts.iter().map(|(k, _)| k).chain(&batch.deletes).collect();
        assert_eq!(keys.len(), batch.puts.len() + batch.deletes.len(), "a key stands in a batch once");
        for (id, result) in body.results {
            let row = CommandRow { index: Index(self.index), mailbox: proposal.mailbox, result };
            batch.put(RowKey::command(id), row.encode());
        }
        let applied = Applied { index: Index(self.index), ..Applied::default() };
        self.rows.write(&[ReplicaBatch { replica: REPLICA, batch, applied }]).unwrap();
        self.directory.applied(Index(self.index), Verdict::Accepted).answers
    }

    /// Writes a row as no command would.
    fn put(&mut self, place: RowKey, value: Bytes) {
        self.index += 1;
        let mut batch = RowBatch::default();
        batch.put(place, value);
        let applied = Applied { index: Index(self.index), ..Applied::default() };
        self.rows.write(&[ReplicaBatch { replica: REPLICA, batch, applied }]).unwrap();
    }

    fn submit(&mut self, command: Command) -> CommandId {
        let id = self.env.command_id();
        assert!(matches!(self.directory.submit(SessionNumber(1), id, 1, command), Submitted::Queued));
        id
    }

    /// Everything that waits, entry by entry.
    fn drain(&mut self) -> Vec<(CommandId, Result<Answer, Refusal>, Index)> {
        let mut out = Vec::new();
        while let Some(proposal) = self.directory.next_entry(&mut self.env) {
            assert!(size(&proposal) <= BATCH_MAX_BYTES + (64 << 10));
            out.extend(self.apply(proposal));
        }
        out
    }

    fn listed(&self) -> Vec<String> {
        let domains = self.lookup.domains(10_000).unwrap().into_iter().map(|d| d.name);
        let addresses = self.lookup.addresses(10_000).unwrap().into_iter();
        let addresses = addresses
            .map(|a| format!("{} {:?}", a.address, a.targets.iter().map(ToString::to_string).collect::<Vec<_>>()));
        let accounts =
            self.lookup.accounts(10_000).unwrap().into_iter().map(|a| format!("{} {}", a.address, a.disabled));
        domains.chain(addresses).chain(accounts).collect()
    }

    fn run(&mut self, command: Command) -> Result<Answer, Refusal> {
        let id = self.env.command_id();
        assert!(matches!(self.directory.submit(SessionNumber(1), id, 1, command), Submitted::Queued));
        let proposal = self.directory.next_entry(&mut self.env).unwrap();
        self.apply(proposal).remove(0).1
    }
}

fn size(proposal: &Proposal) -> usize {
    versioned_encode(1, &proposal.kind).len()
}

fn domain(name: &str) -> Command {
    Command::CreateDomain { name: name.into() }
}

fn account(address: &str) -> Command {
    Command::CreateAccount { address: address.into(), verifier: DUMMY_VERIFIER.into() }
}

fn alias(address: &str, targets: &[&str]) -> Command {
    Command::AddAddress { address: address.into(), targets: targets.iter().map(|t| (*t).into()).collect() }
}

/// The directory, as the rules of every owner are checked over it.
struct Checked;

impl Subject for Checked {
    type Engine = Directory;

    fn first_rows(&mut self, env: &mut Env, place: &Place) -> RowBatch {
        first_rows(env, place.cluster, &root())
    }

    fn load(&self, rows: Arc<dyn Rows>, place: Place) -> Directory {
        let lookup = Lookup::new(rows, place.replica, place.cluster, root()).unwrap();
        Directory::load(&Arc::new(lookup), place.incarnation, place.term).unwrap()
    }

    fn accepted(&self, _: &mut Env, number: usize) -> Command {
        domain(&format!("d{number}.test"))
    }

    fn refused(&self) -> Command {
        domain("no domain")
    }

    fn carried_out(&self, rows: &MemoryRows, place: &Place) -> usize {
        rows.scan(place.replica, place.mailbox, Table::Domains, &[], &[], usize::MAX).unwrap().len()
    }
}

#[test]
fn the_directory_keeps_to_the_rules_of_every_owner() {
    check(|| Checked, MailboxId::PARTITION);
}

#[test]
fn domains_accounts_and_aliases_resolve() {
    let mut w = World::new();
    assert_eq!(w.run(account("a@x.test")), Err(Refusal::NoSuchDomain("x.test".into())));
    assert_eq!(w.run(domain("X.test")), Ok(Answer::Done));
    assert_eq!(w.run(domain("x.test")), Err(Refusal::DomainExists("x.test".into())));
    let Ok(Answer::AccountCreated { mailbox: a, .. }) = w.run(account("A@x.test")) else { panic!("no account") };
    let Ok(Answer::AccountCreated { mailbox: b, .. }) = w.run(account("b@x.test")) else { panic!("no account") };
    assert_ne!(a, b);
    assert_eq!(w.run(account("a@x.test")), Err(Refusal::AddressExists("a@x.test".into())));
    assert_eq!(w.run(alias("all@x.test", &["a@x.test", "b@x.test"])), Ok(Answer::Done));
    assert_eq!(w.run(alias("more@x.test", &["all@x.test"])), Ok(Answer::Done));
    let resolve = |w: &World, address: &str| w.lookup.resolve(address).unwrap();
    assert_eq!(resolve(&w, "A+box@x.test"), Resolution::Mailboxes(vec![a], Some("box".into())));
    assert_eq!(resolve(&w, "more@x.test"), Resolution::Mailboxes(vec![a, b], None));
    assert_eq!(resolve(&w, "c@x.test"), Resolution::Unknown);
    assert_eq!(resolve(&w, "a@y.test"), Resolution::NotOurs);
    assert_ne!(w.lookup.mailbox_key(a).unwrap(), w.lookup.mailbox_key(b).unwrap());
    assert_eq!(
        w.run(Command::RemoveAddress { address: "a@x.test".into() }),
        Err(Refusal::IsAccount("a@x.test".into()))
    );
    assert_eq!(w.run(alias("b@x.test", &["a@x.test"])), Err(Refusal::IsAccount("b@x.test".into())));
    assert_eq!(w.run(Command::RemoveAddress { address: "all@x.test".into() }), Ok(Answer::Done));
    assert_eq!(resolve(&w, "more@x.test"), Resolution::Unknown);
    assert_eq!(w.lookup.accounts(10).unwrap().len(), 2);
    assert_eq!(w.lookup.account("all@x.test").unwrap(), None);
}

#[test]
fn an_alias_that_leads_to_itself_ends() {
    let mut w = World::new();
    w.run(domain("x.test")).unwrap();
    w.run(account("a@x.test")).unwrap();
    w.run(alias("b@x.test", &["a@x.test"])).unwrap();
    w.run(alias("c@x.test", &["b@x.test"])).unwrap();
    w.run(alias("b@x.test", &["c@x.test"])).unwrap();
    assert!(matches!(w.lookup.resolve("c@x.test").unwrap(), Resolution::Mailboxes(m, None) if m.len() == 1));
}

#[test]
fn no_name_stands_in_any_row_and_another_root_key_opens_nothing() {
    let mut w = World::new();
    w.run(domain("secret-domain.test")).unwrap();
    w.run(account("secret-name@secret-domain.test")).unwrap();
    let view = w.rows.view(REPLICA).unwrap().unwrap();
    for (key, value) in view.rows(None, 1_000).unwrap() {
        for bytes in [key.encode(), value.to_vec()] {
            assert!(!bytes.windows(6).any(|w| w == b"secret"), "{key:?}");
        }
    }
    let other = RootKey::parse(&"cd".repeat(32)).unwrap();
    assert!(matches!(Lookup::new(Arc::new(w.rows.clone()), REPLICA, CLUSTER, other), Err(LookupError::RootKey)));
}

#[test]
fn aliases_that_all_name_each_other_resolve_at_once() {
    let mut w = World::new();
    w.run(domain("x.test")).unwrap();
    w.run(account("a@x.test")).unwrap();
    let names: Vec<String> = (0..40).map(|n| format!("list{n}@x.test")).collect();
    for name in &names {
        w.run(alias(name, &["a@x.test"])).unwrap();
    }
    for name in &names {
        let others: Vec<&str> = names.iter().filter(|n| *n != name).map(String::as_str).collect();
        w.run(alias(name, &others)).unwrap();
    }
    assert!(matches!(w.lookup.resolve(&names[0]).unwrap(), Resolution::Mailboxes(m, None) if m.len() == 1));
}

#[test]
fn aliases_are_followed_so_far_by_the_shortest_way_and_none_is_taken_that_leads_further() {
    let mut w = World::new();
    w.run(domain("x.test")).unwrap();
    w.run(account("a0@x.test")).unwrap();
    let name = |n: usize| format!("a{n}@x.test");
    let mut add = |of: usize, to: usize| w.run(alias(&name(of), &[&name(to)]));
    // The first alias names the account's mailbox itself, so the ninth is eight aliases away from it.
    (1..=9).for_each(|n| assert_eq!(add(n, n - 1), Ok(Answer::Done)));
    assert_eq!(add(10, 9), Err(Refusal::OutOfReach(name(10))));
    assert_eq!(add(10, 5), Ok(Answer::Done));
    assert_eq!(add(10, 8), Ok(Answer::Done));
    // Nor is one below others that then would lead further than they did.
    (12..=20).for_each(|n| assert_eq!(add(n, if n == 12 { 0 } else { n - 1 }), Ok(Answer::Done)));
    assert_eq!(add(12, 1), Err(Refusal::OutOfReach(name(20))));
    // A circle is as deep as what is in it.
    assert_eq!(add(1, 9), Ok(Answer::Done));
    for n in (1..=10).chain(12..=20) {
        assert!(matches!(w.lookup.resolve(&name(n)).unwrap(), Resolution::Mailboxes(m, None) if m.len() == 1), "{n}");
    }
}

#[test]
fn no_list_of_lists_is_taken_whose_mail_would_not_reach_everybody() {
    let mut w = World::new();
    w.run(domain("x.test")).unwrap();
    let own = |n: usize| format!("u{n}@x.test");
    for n in 0..=TARGETS_MAX {
        w.submit(account(&own(n)));
    }
    w.drain();
    let users: Vec<String> = (0..=TARGETS_MAX).map(own).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    w.run(alias("some@x.test", &users[..TARGETS_MAX])).unwrap();
    w.run(alias("last@x.test", &users[TARGETS_MAX..])).unwrap();
    let all = w.run(alias("all@x.test", &["some@x.test", "last@x.test"]));
    assert_eq!(all, Err(Refusal::OutOfReach("all@x.test".into())));
    assert_eq!(w.run(alias("all@x.test", &["some@x.test"])), Ok(Answer::Done));
}

#[test]
fn what_waits_is_decided_together_each_on_those_before_it() {
    let mut w = World::new();
    let commands = [
        (domain("x.test"), Ok(Answer::Done)),
        (domain("x.test"), Err(Refusal::DomainExists("x.test".into()))),
        (account("a@y.test"), Err(Refusal::NoSuchDomain("y.test".into()))),
        (alias("b@x.test", &["a@x.test"]), Err(Refusal::NoSuchAddress("a@x.test".into()))),
    ];
    let mut ids: Vec<CommandId> = commands.iter().map(|(command, _)| w.submit(command.clone())).collect();
    ids.push(w.submit(account("a@x.test")));
    ids.push(w.submit(alias("b@x.test", &["a@x.test"])));
    ids.push(w.submit(Command::SetDisabled { address: "a@x.test".into(), disabled: true }));
    ids.push(w.submit(Command::RemoveAddress { address: "b@x.test".into() }));
    ids.push(w.submit(alias("b@x.test", &["a@x.test"])));
    let proposal = w.directory.next_entry(&mut w.env).unwrap();
    assert_eq!(proposal.command, ids[0]);
    let EntryKind::Rows(body) = &proposal.kind else { panic!("no rows") };
    assert_eq!(body.requires, [], "all that it reads, it makes");
    assert_eq!(w.lookup.domains(10).unwrap(), [], "nothing is there before it is applied");
    let answers = w.apply(proposal);
    assert_eq!(answers.iter().map(|a| a.0).collect::<Vec<_>>(), ids, "one entry answers all, in their order");
    for ((_, expected), (_, result, index)) in commands.iter().zip(&answers) {
        assert_eq!((result, *index), (expected, Index(2)));
    }
    assert!(answers[4..].iter().all(|(_, result, _)| result.is_ok()));
    let of_a = |address: &str| format!("{address} [\"mailbox of a@x.test\"]");
    let addresses = ["a@x.test", "abuse@x.test", "b@x.test", "postmaster", "postmaster@x.test"].map(of_a);
    assert_eq!(w.listed(), [&["x.test".to_owned()], addresses.as_slice(), &["a@x.test true".to_owned()]].concat());
}

#[test]
fn together_or_one_by_one_comes_to_the_same() {
    for seed in 0..20 {
        let mut random = Env::seeded(seed);
        let mut pick = move |n: u8| random.bytes::<1>()[0] % n;
        let commands: Vec<Command> = (0..120)
            .map(|_| {
                let name = |n: u8| format!("u{}@d{}.test", n % 5, n % 2);
                let address = name(pick(10));
                match pick(8) {
                    0 => domain(&format!("d{}.test", pick(2))),
                    1 | 2 => account(&address),
                    3 => Command::RemoveAddress { address },
                    4 => Command::SetDisabled { address, disabled: pick(2) == 0 },
                    5 => Command::SetPassword { address, verifier: DUMMY_VERIFIER.into() },
                    _ => alias(&address, &[&name(pick(10)), &name(pick(10))]),
                }
            })
            .collect();
        let plain = |r: Result<Answer, Refusal>| r.map(|answer| matches!(answer, Answer::Done));
        let (mut one, mut many) = (World::new(), World::new());
        let singly: Vec<_> = commands.iter().map(|c| plain(one.run(c.clone()))).collect();
        for command in &commands {
            many.submit(command.clone());
        }
        let together: Vec<_> = many.drain().into_iter().map(|(_, r, _)| plain(r)).collect();
        assert_eq!(singly, together);
        assert_eq!(one.listed(), many.listed());
        assert_eq!(many.index, 3, "120 commands are two entries");
        assert!(singly.iter().any(Result::is_err) && singly.iter().any(Result::is_ok));
    }
}

#[test]
fn a_missing_row_has_everything_decided_again() {
    let mut w = World::new();
    w.run(domain("x.test")).unwrap();
    let id = w.submit(account("a@x.test"));
    let proposal = w.directory.next_entry(&mut w.env).unwrap();
    let EntryKind::Rows(body) = &proposal.kind else { panic!("no rows") };
    assert_eq!(body.requires.len(), 1);
    let mut gone = RowBatch::default();
    gone.delete(body.requires[0].clone());
    w.index += 1;
    let applied = Applied { index: Index(w.index), ..Applied::default() };
    w.rows.write(&[ReplicaBatch { replica: REPLICA, batch: gone, applied }]).unwrap();
    assert_eq!(w.apply(proposal), []);
    let again = w.drain();
    assert_eq!((again[0].0, &again[0].1), (id, &Err(Refusal::NoSuchDomain("x.test".into()))));
}

#[test]
fn entries_and_queue_are_bounded() {
    let mut w = World::new();
    w.run(domain("x.test")).unwrap();
    let long = |n: usize| format!("{}{n}@x.test", "u".repeat(50));
    for n in 0..TARGETS_MAX {
        w.submit(account(&long(n)));
    }
    w.drain();
    let targets: Vec<String> = (0..TARGETS_MAX).map(long).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    for n in 0..200 {
        w.submit(alias(&format!("list{n}@x.test"), &targets));
    }
    let answers = w.drain();
    assert!(answers.len() == 200 && answers.iter().all(|(_, r, _)| r.is_ok()));
    w.run(account("more@x.test")).unwrap();
    assert_eq!(w.run(alias("list0@x.test", &["more@x.test"])), Err(Refusal::TooManyTargets("list0@x.test".into())));
    assert_eq!(w.run(alias("list0@x.test", &targets)), Ok(Answer::Done), "they are there already");

    for _ in 0..QUEUE_MAX_COMMANDS {
        w.submit(domain("x.test"));
    }
    let id = w.env.command_id();
    assert!(matches!(w.directory.submit(SessionNumber(1), id, 1, domain("x.test")), Submitted::Overloaded));
    w.drain();
    let huge = || domain(&"x".repeat(QUEUE_MAX_BYTES));
    w.submit(huge());
    assert!(matches!(w.directory.submit(SessionNumber(1), id, 1, domain("x.test")), Submitted::Overloaded));
    w.directory.next_entry(&mut w.env).unwrap();
    w.directory.dropped();
    assert!(
        matches!(w.directory.submit(SessionNumber(1), id, 1, domain("x.test")), Submitted::Overloaded),
        "it waits again"
    );
    assert!(w.drain().iter().all(|(_, r, _)| matches!(r, Err(Refusal::BadName(_)))));
    w.submit(domain("x.test"));
}

#[test]
fn what_is_no_verifier_is_refused_and_none_is_printed() {
    let mut w = World::new();
    w.run(domain("x.test")).unwrap();
    w.run(account("a@x.test")).unwrap();
    for verifier in ["", "secret", "$argon2id$v=19$m=4000000,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAA"] {
        let new = Command::CreateAccount { address: "b@x.test".into(), verifier: verifier.into() };
        assert_eq!(w.run(new), Err(Refusal::BadVerifier));
        let set = Command::SetPassword { address: "a@x.test".into(), verifier: verifier.into() };
        assert_eq!(w.run(set), Err(Refusal::BadVerifier));
    }
    let printed = format!("{:?} {:?}", account("a@x.test"), w.lookup.account("a@x.test").unwrap());
    assert!(printed.contains("a@x.test") && !printed.contains("argon2"), "{printed}");
}

#[test]
fn a_command_that_can_t_be_decided_leaves_no_result_and_may_come_again() {
    let mut w = World::new();
    w.run(domain("x.test")).unwrap();
    w.run(account("a@x.test")).unwrap();
    let place = account_place(w.lookup.account("a@x.test").unwrap().unwrap().id);
    let whole = w.rows.get(REPLICA, &place).unwrap().unwrap();
    w.put(place.clone(), Bytes::from_static(b"damaged"));
    let disable = Command::SetDisabled { address: "a@x.test".into(), disabled: true };
    let (failed, other) = (w.submit(disable.clone()), w.submit(domain("y.test")));
    let answers = w.drain();
    assert_eq!(answers.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), [other]);
    assert_eq!(w.directory.take_unreadable().into_iter().map(|(id, _)| id).collect::<Vec<_>>(), [failed]);
    assert!(w.rows.get(REPLICA, &RowKey::command(failed)).unwrap().is_none());
    w.put(place, whole);
    assert!(matches!(w.directory.submit(SessionNumber(1), failed, 1, disable), Submitted::Queued));
    assert_eq!(w.drain().remove(0).1, Ok(Answer::Done));
}

#[test]
fn an_account_sends_as_itself_and_as_what_stands_for_it_alone() {
    let mut w = World::new();
    for command in [
        domain("x.test"),
        account("a@x.test"),
        account("b@x.test"),
        alias("sales@x.test", &["a@x.test"]),
        alias("all@x.test", &["a@x.test", "b@x.test"]),
        alias("first@x.test", &["sales@x.test"]),
    ] {
        w.run(command).unwrap();
    }
    for (path, may) in [
        ("a@x.test", true),
        ("A@X.test", true),
        ("a+list@x.test", true),
        ("sales@x.test", true),
        ("sales+x@x.test", true),
        ("first@x.test", true),
        ("all@x.test", false),
        ("b@x.test", false),
        ("b+a@x.test", false),
        ("nobody@x.test", false),
        ("a@y.test", false),
        ("a", false),
    ] {
        assert_eq!(w.lookup.may_send_as("a@x.test", path).unwrap(), may, "{path}");
    }
    assert!(!w.lookup.may_send_as("nobody@x.test", "a@x.test").unwrap());
}

#[test]
fn listings_come_in_pages() {
    let mut w = World::new();
    for n in 0..25 {
        w.submit(domain(&format!("d{n:02}.test")));
    }
    w.drain();
    let (mut names, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let (page, next) = w.lookup.domains_page(after.as_deref(), 10).unwrap();
        names.extend(page.into_iter().map(|d| d.name));
        pages += 1;
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    names.sort();
    assert_eq!((names, pages), ((0..25).map(|n| format!("d{n:02}.test")).collect(), 3));
    assert_eq!(w.lookup.domains(7).unwrap().len(), 7);
    assert_eq!(w.lookup.domains(0).unwrap(), []);
}

#[test]
fn an_id_that_comes_again_with_another_request_is_refused_and_changes_nothing() {
    let domain = |name: &str| Command::CreateDomain { name: name.to_owned() };
    let account =
        |verifier: &str| Command::CreateAccount { address: "a@one.test".to_owned(), verifier: verifier.to_owned() };
    let mut world = World::new();
    let id = world.submit(domain("one.test"));
    let submit = |world: &mut World, id, command| world.directory.submit(SessionNumber(2), id, 1, command);
    let is_taken = |submitted| matches!(submitted, Submitted::Answered(Err(Refusal::IdIsTaken), _));
    // While it waits, while it is in flight, and when its result is kept, for the next owner too.
    assert!(is_taken(submit(&mut world, id, domain("two.test"))));
    assert!(matches!(submit(&mut world, id, domain("ONE.test")), Submitted::Joined));
    let proposal = world.directory.next_entry(&mut world.env).unwrap();
    assert!(is_taken(submit(&mut world, id, domain("two.test"))));
    assert_eq!(world.apply(proposal)[0].1, Ok(Answer::Done));
    for _ in 0..2 {
        assert!(is_taken(submit(&mut world, id, account(DUMMY_VERIFIER))));
        assert!(matches!(submit(&mut world, id, domain("one.test")), Submitted::Answered(Ok(Answer::Done), _)));
        world.directory = Deciding::new(Directory::load(&world.lookup, Incarnation::default(), Term(1)).unwrap());
    }
    assert_eq!(world.lookup.domains(9).unwrap().len(), 1);
    // A password is hashed anew each time it is sent.
    let id = world.submit(account(DUMMY_VERIFIER));
    assert!(matches!(submit(&mut world, id, account("another")), Submitted::Joined));
    assert!(is_taken(submit(
        &mut world,
        id,
        Command::SetPassword { address: "a@one.test".to_owned(), verifier: DUMMY_VERIFIER.to_owned() }
    )));
    // What an earlier version kept has no digest: whatever comes is answered with it.
    let id = world.env.command_id();
    let (key, epoch) = world.lookup.newest_key().unwrap();
    let plain = versioned_encode(RESULT_WITHOUT_DIGEST, &Ok::<Answer, Refusal>(Answer::Done));
    let sealed = seal_row(&mut world.env, &key, epoch, CLUSTER, &result_place(MailboxId::PARTITION, id), &plain);
    let row = CommandRow { index: Index(1), mailbox: MailboxId::PARTITION, result: sealed };
    world.put(RowKey::command(id), row.encode().into());
    assert!(matches!(submit(&mut world, id, domain("two.test")), Submitted::Answered(Ok(Answer::Done), _)));
}

#[test]
fn a_deleted_account_takes_its_key_and_all_that_stands_for_it_alone() {
    let mut w = World::new();
    let delete = |address: &str| Command::DeleteAccount { address: address.into() };
    w.run(domain("x.test")).unwrap();
    let Ok(Answer::AccountCreated { mailbox: a, .. }) = w.run(account("a@x.test")) else { panic!("no account") };
    let Ok(Answer::AccountCreated { mailbox: b, .. }) = w.run(account("b@x.test")) else { panic!("no account") };
    for (name, targets) in [
        ("alone@x.test", &["a@x.test"][..]),
        ("through@x.test", &["alone@x.test"]),
        ("all@x.test", &["a@x.test", "b@x.test"]),
        ("more@x.test", &["all@x.test", "through@x.test"]),
    ] {
        w.run(alias(name, targets)).unwrap();
    }
    assert_eq!(w.run(delete("A@x.test")), Ok(Answer::Done));
    let resolve = |w: &World, address: &str| w.lookup.resolve(address).unwrap();
    for gone in ["a@x.test", "a+box@x.test", "alone@x.test", "through@x.test"] {
        assert_eq!(resolve(&w, gone), Resolution::Unknown, "{gone}");
    }
    for stays in ["b@x.test", "all@x.test", "more@x.test"] {
        assert_eq!(resolve(&w, stays), Resolution::Mailboxes(vec![b], None), "{stays}");
    }
    let names: Vec<String> = w.lookup.addresses(10).unwrap().into_iter().map(|record| record.address).collect();
    let left = ["abuse@x.test", "all@x.test", "b@x.test", "more@x.test", "postmaster", "postmaster@x.test"];
    assert_eq!(names, left);
    assert_eq!(w.lookup.account("a@x.test").unwrap(), None);
    assert!(w.lookup.mailbox_key(a).unwrap().is_none() && w.lookup.mailbox_key(b).unwrap().is_some());
    assert_eq!(w.run(delete("a@x.test")), Err(Refusal::NoSuchAccount("a@x.test".into())));
    assert_eq!(w.run(delete("all@x.test")), Err(Refusal::NoSuchAccount("all@x.test".into())));
    // The name is free, and its new mailbox is another one.
    let Ok(Answer::AccountCreated { mailbox, .. }) = w.run(account("a@x.test")) else { panic!("no account") };
    assert_ne!(mailbox, a);
    assert_eq!(resolve(&w, "all@x.test"), Resolution::Mailboxes(vec![b], None));
}

#[test]
fn where_there_is_anybody_somebody_is_postmaster() {
    let mut w = World::new();
    let mailbox = |w: &mut World, address: &str| match w.run(account(address)) {
        Ok(Answer::AccountCreated { mailbox, .. }) => mailbox,
        other => panic!("{other:?}"),
    };
    let delete = |w: &mut World, address: &str| w.run(Command::DeleteAccount { address: address.into() }).unwrap();
    let reached = |w: &World, address: &str| match w.lookup.resolve(address).unwrap() {
        Resolution::Mailboxes(mailboxes, _) => mailboxes,
        Resolution::Unknown | Resolution::NotOurs => Vec::new(),
    };
    w.run(domain("x.test")).unwrap();
    w.run(domain("y.test")).unwrap();
    assert_eq!(reached(&w, "postmaster"), []);
    let b = mailbox(&mut w, "b@x.test");
    let c = mailbox(&mut w, "c@y.test");
    let a = mailbox(&mut w, "a@x.test");
    for (address, who) in [
        ("PostMaster", b),
        ("POSTMASTER@X.test", b),
        ("postmaster+x@x.test", b),
        ("abuse@x.test", b),
        ("postmaster@y.test", c),
        ("abuse@y.test", c),
    ] {
        assert_eq!(reached(&w, address), [who], "{address}");
    }
    // Nobody logs in as postmaster by that.
    assert_eq!(w.lookup.account("postmaster@x.test").unwrap(), None);
    // Somebody else is named, in a domain and without one.
    w.run(alias("help@y.test", &["postmaster@y.test"])).unwrap();
    w.run(Command::RemoveAddress { address: "Postmaster".into() }).unwrap();
    w.run(alias("postmaster", &["c@y.test"])).unwrap();
    assert_eq!((reached(&w, "postmaster"), reached(&w, "postmaster@x.test")), (vec![c], vec![b]));
    let own = mailbox(&mut w, "abuse@x.test");
    assert_eq!(reached(&w, "abuse@x.test"), [own]);
    assert_eq!(w.run(account("abuse@x.test")), Err(Refusal::AddressExists("abuse@x.test".into())));
    // Whoever is left takes it over, with what stands for it.
    delete(&mut w, "b@x.test");
    assert_eq!(reached(&w, "postmaster@x.test"), [a]);
    delete(&mut w, "c@y.test");
    assert_eq!((reached(&w, "postmaster@y.test"), reached(&w, "help@y.test")), (vec![], vec![]));
    assert_eq!(reached(&w, "postmaster"), [a]);
    delete(&mut w, "a@x.test");
    assert_eq!(reached(&w, "postmaster@x.test"), [own]);
    delete(&mut w, "abuse@x.test");
    assert_eq!(w.lookup.addresses(10).unwrap(), []);
    // Also where the account was postmaster by its own address.
    let e = mailbox(&mut w, "e@x.test");
    w.run(Command::RemoveAddress { address: "postmaster@x.test".into() }).unwrap();
    mailbox(&mut w, "postmaster@x.test");
    w.run(alias("help@x.test", &["postmaster@x.test"])).unwrap();
    delete(&mut w, "postmaster@x.test");
    // What stood for the account goes with it.
    assert_eq!((reached(&w, "postmaster@x.test"), reached(&w, "help@x.test")), (vec![e], vec![]));
    assert_eq!(w.lookup.account("postmaster@x.test").unwrap(), None);
    delete(&mut w, "e@x.test");
    assert_eq!(w.lookup.addresses(10).unwrap(), []);
    let d = mailbox(&mut w, "postmaster@y.test");
    assert_eq!((reached(&w, "postmaster"), reached(&w, "abuse@y.test")), (vec![d], vec![d]));
}

#[test]
fn a_deletion_sees_the_addresses_that_are_decided_with_it_in_one_entry() {
    let mut w = World::new();
    w.run(domain("x.test")).unwrap();
    w.run(account("a@x.test")).unwrap();
    w.submit(alias("late@x.test", &["a@x.test"]));
    w.submit(Command::DeleteAccount { address: "a@x.test".into() });
    assert!(w.drain().iter().all(|(_, result, _)| result.is_ok()));
    assert_eq!(w.lookup.addresses(10).unwrap(), []);
}

#[test]
fn every_change_has_a_digest_of_its_own() {
    let text = |text: &str| text.to_owned();
    let commands = [
        Command::CreateDomain { name: text("x") },
        Command::CreateAccount { address: text("x"), verifier: text("v") },
        Command::SetPassword { address: text("x"), verifier: text("v") },
        Command::SetDisabled { address: text("x"), disabled: true },
        Command::SetDisabled { address: text("x"), disabled: false },
        Command::AddAddress { address: text("x"), targets: Vec::new() },
        Command::AddAddress { address: text("x"), targets: vec![text("y")] },
        Command::AddAddress { address: text("x"), targets: vec![text("y"), text("z")] },
        Command::AddAddress { address: text("x"), targets: vec![text("yz")] },
        Command::RemoveAddress { address: text("x") },
        Command::DeleteAccount { address: text("x") },
        Command::CreateDomainWithKeys { name: text("x"), keys: Vec::new() },
        Command::CreateDomainWithKeys { name: text("x"), keys: vec![new_key("k", KeyAlgorithm::RsaSha256)] },
        Command::AddDomainKeys { name: text("x"), keys: vec![new_key("k", KeyAlgorithm::RsaSha256)] },
        Command::UseDomainKey { name: text("x"), selector: text("k") },
        Command::RetireDomainKey { name: text("x"), selector: text("k") },
        Command::RemoveDomainKey { name: text("x"), selector: text("k") },
    ];
    let key = Key::from_bytes([1; 32]);
    let digests: BTreeSet<[u8; 32]> = commands.iter().map(|command| command.digest(&key)).collect();
    assert_eq!(digests.len(), commands.len());
}

fn new_key(selector: &str, algorithm: KeyAlgorithm) -> NewKey {
    NewKey {
        selector: selector.to_owned(),
        algorithm,
        state: KeyState::Published,
        record: format!("v=DKIM1; p={selector}"),
        secret: SecretKey(format!("the secret of {selector}").into_bytes()),
    }
}

/// The keys of a domain with their states.
fn keys(w: &World, name: &str) -> Vec<String> {
    let keys = w.lookup.domain_keys(name).unwrap();
    keys.iter().map(|key| format!("{} {}", key.selector, key.state.as_str())).collect()
}

#[test]
fn a_domain_is_made_with_keys_that_sign() {
    let mut w = World::new();
    let signing = |selector, algorithm| NewKey { state: KeyState::Signing, ..new_key(selector, algorithm) };
    let new = vec![signing("R1", KeyAlgorithm::RsaSha256), signing("e1", KeyAlgorithm::Ed25519Sha256)];
    let create = Command::CreateDomainWithKeys { name: "X.test".into(), keys: new };
    assert_eq!(w.run(create.clone()), Ok(Answer::Done));
    assert_eq!(keys(&w, "x.TEST"), ["r1 signing", "e1 signing"]);
    let signers = w.lookup.signers_of("X.test").unwrap();
    let secrets: Vec<&[u8]> = signers.iter().map(|key| key.secret.0.as_slice()).collect();
    assert_eq!(secrets, [b"the secret of R1".as_slice(), b"the secret of e1"]);
    assert_eq!(w.run(create), Err(Refusal::DomainExists("x.test".into())));
    // One that was made without has none, and neither has a domain of others.
    w.run(domain("y.test")).unwrap();
    assert!(w.lookup.signers_of("y.test").unwrap().is_empty() && w.lookup.signers_of("z.test").unwrap().is_empty());
}

#[test]
fn a_key_is_published_signs_retires_and_goes() {
    let mut w = World::new();
    w.run(domain("x.test")).unwrap();
    let name = || "x.test".to_owned();
    let add = |selector, algorithm| Command::AddDomainKeys { name: name(), keys: vec![new_key(selector, algorithm)] };
    let sign = |selector: &str| Command::UseDomainKey { name: name(), selector: selector.into() };
    let retire = |selector: &str| Command::RetireDomainKey { name: name(), selector: selector.into() };
    let remove = |selector: &str| Command::RemoveDomainKey { name: name(), selector: selector.into() };
    for (selector, algorithm) in
        [("r1", KeyAlgorithm::RsaSha256), ("e1", KeyAlgorithm::Ed25519Sha256), ("r2", KeyAlgorithm::RsaSha256)]
    {
        w.run(add(selector, algorithm)).unwrap();
    }
    assert_eq!(keys(&w, "x.test"), ["r1 published", "e1 published", "r2 published"]);
    assert!(w.lookup.signers_of("x.test").unwrap().is_empty(), "nothing signs before it is published");
    w.run(sign("r1")).unwrap();
    w.run(sign("e1")).unwrap();
    let refusal = Refusal::KeySigns { name: name(), selector: "r1".into() };
    assert_eq!(w.run(remove("r1")), Err(refusal));
    w.run(sign("R2")).unwrap();
    assert_eq!(keys(&w, "x.test"), ["r1 retired", "e1 signing", "r2 signing"]);
    // It can be taken back.
    w.run(sign("r1")).unwrap();
    w.run(retire("e1")).unwrap();
    assert_eq!(keys(&w, "x.test"), ["r1 signing", "e1 retired", "r2 retired"]);
    w.run(remove("e1")).unwrap();
    assert_eq!(keys(&w, "x.test"), ["r1 signing", "r2 retired"]);
    let gone = Refusal::NoSuchKey { name: name(), selector: "e1".into() };
    for command in [sign("e1"), retire("e1"), remove("e1")] {
        assert_eq!(w.run(command), Err(gone.clone()));
    }
    let exists = Refusal::KeyExists { name: name(), selector: "r1".into() };
    assert_eq!(w.run(add("R1", KeyAlgorithm::RsaSha256)), Err(exists));
    let nowhere = Command::UseDomainKey { name: "z.test".into(), selector: "r1".into() };
    assert_eq!(w.run(nowhere), Err(Refusal::NoSuchDomain("z.test".into())));
}

#[test]
fn keys_of_a_domain_are_bounded_in_number_and_size() {
    let mut w = World::new();
    w.run(domain("x.test")).unwrap();
    let add = |key: NewKey| Command::AddDomainKeys { name: "x.test".into(), keys: vec![key] };
    let fresh = |selector: &str| new_key(selector, KeyAlgorithm::RsaSha256);
    let bad = Err(Refusal::BadKey("a".into()));
    for (secret_bytes, record, expected) in [
        (SECRET_KEY_MAX_BYTES + 1, "p=".to_owned(), &bad),
        (1, "x".repeat(KEY_RECORD_MAX_BYTES + 1), &bad),
        (1, String::new(), &bad),
        (1, "v=DKIM1\r\n".to_owned(), &bad),
        (SECRET_KEY_MAX_BYTES, "x".repeat(KEY_RECORD_MAX_BYTES), &Ok(Answer::Done)),
    ] {
        let key = NewKey { secret: SecretKey(vec![1; secret_bytes]), record, ..fresh("a") };
        assert_eq!(&w.run(add(key)), expected);
    }
    for n in 1..KEYS_MAX {
        w.run(add(fresh(&format!("k{n}")))).unwrap();
    }
    assert_eq!(w.run(add(fresh("more"))), Err(Refusal::TooManyKeys("x.test".into())));
    assert_eq!(keys(&w, "x.test").len(), KEYS_MAX);
    assert!(w.run(add(fresh("not_one"))).is_err());
    // Several at once are added all or not at all.
    let two = Command::AddDomainKeys { name: "y.test".into(), keys: vec![fresh("k"), fresh("k")] };
    w.run(domain("y.test")).unwrap();
    assert!(matches!(w.run(two), Err(Refusal::KeyExists { .. })));
    assert!(keys(&w, "y.test").is_empty());
}

#[test]
fn no_secret_of_a_key_stands_in_a_log_or_in_clear_in_a_row() {
    let mut w = World::new();
    let keys = vec![new_key("r1", KeyAlgorithm::RsaSha256)];
    let create = Command::CreateDomainWithKeys { name: "x.test".into(), keys };
    assert!(!format!("{create:?} {:?}", new_key("r1", KeyAlgorithm::RsaSha256)).contains("116, 104, 101"));
    w.run(create).unwrap();
    let rows = w.rows.scan(REPLICA, MailboxId::PARTITION, Table::DomainKeys, &[], &[], 10).unwrap();
    let (key, value) = &rows[0];
    let has = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|part| part == what);
    assert!(!has(value, b"the secret") && !has(value, b"x.test") && !has(key, b"x.test"));
}
