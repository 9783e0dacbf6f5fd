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
use crate::lookup::{Forward, Resolution, TARGETS_MAX};
use crate::password::DUMMY_VERIFIER;
use crate::records::{
    KEY_RECORD_MAX_BYTES, KEYS_MAX, KeyAlgorithm, KeyState, SECRET_KEY_MAX_BYTES, SecretKey, account_place,
};

#[path = "engine_tests/addresses.rs"]
mod addresses;

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
        Command::AddForwards { address: text("x"), targets: vec![text("y")] },
        Command::RenewForwardingKey,
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

#[test]
fn the_key_of_what_is_forwarded_can_be_replaced_and_the_one_before_counts_until_the_next_time() {
    let mut w = World::new();
    let mac = |key: &Key| key.keyed_hash(&[b"x"]);
    let keys = |w: &World| {
        let keys = w.lookup.forwarding_keys().unwrap();
        (mac(&keys.newest), keys.before.as_ref().map(mac))
    };
    let first = keys(&w);
    assert_eq!((first.1, keys(&w)), (None, first));
    // Two that are decided together are two.
    w.submit(Command::RenewForwardingKey);
    w.submit(Command::RenewForwardingKey);
    assert!(w.drain().iter().all(|(_, result, _)| *result == Ok(Answer::Done)));
    let third = keys(&w);
    assert!(third.0 != first.0 && third.1.is_some_and(|before| before != first.0 && before != third.0));
    w.run(Command::RenewForwardingKey).unwrap();
    assert_eq!(keys(&w).1, Some(third.0));
    let other = World::new().lookup.forwarding_keys().unwrap();
    assert_eq!(mac(&other.newest), first.0, "it follows from the keyring");
}
