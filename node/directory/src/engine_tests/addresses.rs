//! What addresses stand for, and what becomes of that when accounts go.

use super::*;

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
fn an_address_may_stand_for_somebody_elsewhere_where_mail_is_sent_there() {
    let mut w = World::new();
    w.run(domain("x.test")).unwrap();
    let Ok(Answer::AccountCreated { mailbox: a, .. }) = w.run(account("a@x.test")) else { panic!("no account") };
    let resolve = |w: &World, address: &str| w.lookup.resolve(address).unwrap();
    assert_eq!(w.run(alias("b@x.test", &["J.D@y.test"])), Err(Refusal::NoSuchAddress("j.d@y.test".into())));
    let forward = |address: &str, targets: &[&str]| Command::AddForwards {
        address: address.into(),
        targets: targets.iter().map(|target| (*target).to_owned()).collect(),
    };
    // Only its own server knows what the case of a local part means.
    assert_eq!(w.run(forward("b@x.test", &["J.D@Y.test", "a@x.test", "J.D@y.test"])), Ok(Answer::Done));
    assert_eq!(w.run(alias("c@x.test", &["b@x.test"])), Ok(Answer::Done));
    // By the address that names it, whichever leads there.
    let outside = || vec![Forward { to: "J.D@y.test".into(), by: "b@x.test".into() }];
    for (address, detail) in [("b@x.test", None), ("C+d@x.test", Some("d".to_owned()))] {
        let is = Resolution::Forwarded { mailboxes: vec![a], outside: outside(), detail };
        assert_eq!(resolve(&w, address), is);
    }
    assert!(!w.lookup.may_send_as("a@x.test", "b@x.test").unwrap());
    assert_eq!(w.run(forward("d@x.test", &["nobody@x.test"])), Err(Refusal::NoSuchAddress("nobody@x.test".into())));
    for (address, to) in [("d@x.test", "nobody"), ("postmaster", "a@y.test"), ("b@x.test", "B@x.test")] {
        assert!(matches!(w.run(forward(address, &[to])), Err(Refusal::BadName(_))), "{address} to {to}");
    }
    // Who goes takes along what stands for nobody else.
    w.run(Command::DeleteAccount { address: "a@x.test".into() }).unwrap();
    let is = Resolution::Forwarded { mailboxes: Vec::new(), outside: outside(), detail: None };
    assert_eq!(resolve(&w, "c@x.test"), is);
    // Elsewhere counts like mailboxes.
    let many: Vec<String> = (0..=TARGETS_MAX).map(|n| format!("r{n}@y.test")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    w.run(forward("e@x.test", &many[..TARGETS_MAX])).unwrap();
    assert_eq!(w.run(forward("e@x.test", &many[TARGETS_MAX..])), Err(Refusal::TooManyTargets("e@x.test".into())));
    w.run(forward("f@x.test", &many[TARGETS_MAX..])).unwrap();
    assert_eq!(w.run(alias("g@x.test", &["e@x.test", "f@x.test"])), Err(Refusal::OutOfReach("g@x.test".into())));
}

#[test]
fn what_was_elsewhere_is_here_once_its_domain_is() {
    let mut w = World::new();
    w.run(domain("x.test")).unwrap();
    let targets = ["J.D@y.test", "far@z.test", "gone@y.test"].map(str::to_owned).to_vec();
    w.run(Command::AddForwards { address: "all@x.test".into(), targets }).unwrap();
    w.run(domain("y.test")).unwrap();
    let Ok(Answer::AccountCreated { mailbox, .. }) = w.run(account("j.d@y.test")) else { panic!("no account") };
    let outside = vec![Forward { to: "far@z.test".into(), by: "all@x.test".into() }];
    let is = Resolution::Forwarded { mailboxes: vec![mailbox], outside, detail: None };
    assert_eq!(w.lookup.resolve("all@x.test").unwrap(), is);
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
        Resolution::Unknown | Resolution::NotOurs | Resolution::Forwarded { .. } => Vec::new(),
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
