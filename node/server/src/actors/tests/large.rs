//! Changes of many messages, beside actors of other mailboxes.

use super::*;

/// What answers a command, past the events that come before it.
async fn answer_to(session: &mut Session, id: CommandId) -> Result<Answer, Refusal> {
    loop {
        match session.hear().await {
            ToSession::Event(_) => {}
            ToSession::Answer { id: of, result, .. } if of == id => return result,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_change_of_many_messages_waits_for_its_turn_other_actors_of_its_thread_go_on() {
    let node = Node::start(LIMITS).await;
    let [mailbox, other] = node.mailboxes().await;
    let mut copies = node.attach(mailbox);
    // Actors come to the threads in turn: the third is on the first one's.
    let mut elsewhere = node.attach(other);
    assert!(elsewhere.uids(&node).await.is_empty());
    drop(elsewhere.link.panic());
    assert_eq!(elsewhere.detached().await, Detached::Gone);
    until("its end", || node.actors() == 1).await;
    let mut beside = node.attach(other);

    let select = Command::Select { folder: "INBOX".into(), claim_recent: false };
    let Ok(Answer::Selected(inbox)) = copies.ask(node.id(), 0, select).await.0 else { panic!("not opened") };
    let append = node.id();
    copies.link.ask(append, 0, node.append().await).unwrap();
    answer_to(&mut copies, append).await.unwrap();
    let copy = || Command::Copy { folder: inbox.folder, uids: UidSet::range(1, u32::MAX), to: "INBOX".into() };
    for _ in 0..14 {
        let id = node.id();
        copies.link.ask(id, 0, copy()).unwrap();
        answer_to(&mut copies, id).await.unwrap();
    }
    until("its memory is measured", || node.services.memory.actors.used() > 1 << 20).await;

    let turns = node.services.turns.hold_deciding();
    let mut reads = node.attach(mailbox);
    let id = node.id();
    copies.link.ask(id, 0, copy()).unwrap();
    let list = node.id();
    reads.link.ask(list, 0, Command::List).unwrap();
    for _ in 0..20 {
        beside.ask(node.id(), 0, node.append().await).await.0.unwrap();
    }
    let silent = timeout(Duration::ZERO, reads.inbox.next()).await.is_err();
    assert!(silent, "where the change was decided at once, this would have been answered long ago");
    drop(turns);
    assert!(matches!(answer_to(&mut reads, list).await, Ok(Answer::Folders(_))));
    assert!(matches!(answer_to(&mut copies, id).await, Ok(Answer::Copied { to, .. }) if to.len() == 1 << 14));
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_many_messages_needs_memory_for_all_of_them_before_it_begins() {
    let node = Node::start(LIMITS).await;
    let [mailbox, _] = node.mailboxes().await;
    let mut session = node.attach(mailbox);
    let (append, copy) = (node.append().await, |uids| Command::Copy { folder: FolderId(1), uids, to: "INBOX".into() });
    session.ask(node.id(), 0, append).await.0.unwrap();
    let all = UidSet::range(1, u32::MAX);
    for _ in 0..12 {
        session.ask(node.id(), 0, copy(all.clone())).await.0.unwrap();
    }
    let memory = Arc::clone(&node.services.memory.actors);
    until("its memory is measured", || memory.used() > 1 << 20).await;
    // There is room for a quarter of it, and would be for no more without other mailboxes.
    memory.resize(memory.used() + (2 << 20));
    let refused = session.ask(node.id(), 0, copy(all.clone())).await.0;
    assert!(
        matches!(&refused, Err(Refusal::Limit(words)) if words.starts_with("too many messages at once for this server's memory")),
        "{refused:?}"
    );
    let before = memory.used();
    session.ask(node.id(), 0, copy(UidSet::range(1, 1_001))).await.0.unwrap();
    // What was kept for it is given back, and what it made is measured.
    until("only the copies are counted", || memory.used() < before + (512 << 10)).await;
    memory.resize(memory.used() + (6 << 20));
    let others = memory.of_one();
    others.set(4 << 20);
    let id = node.id();
    session.link.ask(id, 0, copy(all.clone())).unwrap();
    assert_eq!(session.hear().await, ToSession::Failed { id, error: CommandError::Overloaded }, "others have it now");
    drop(others);
    session.ask(node.id(), 0, copy(all)).await.0.unwrap();
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_mailboxes_take_all_their_memory_nothing_is_copied_and_mail_still_comes() {
    let node = Node::start(LIMITS).await;
    let [mailbox, other] = node.mailboxes().await;
    let mut session = node.attach(mailbox);
    assert!(session.ask(node.id(), 0, node.append().await).await.0.is_ok());
    let mut beside = node.attach(other);
    assert!(beside.ask(node.id(), 0, node.append().await).await.0.is_ok());
    let memory = Arc::clone(&node.services.memory.actors);
    let max = memory.max();
    memory.resize(memory.used() - 1);
    let copy = || Command::Copy { folder: FolderId(1), uids: UidSet::from_iter([1]), to: "INBOX".into() };
    for copies in [copy(), Command::Once { once: Once::default(), command: Box::new(copy()) }] {
        let id = node.id();
        session.link.ask(id, 0, copies.clone()).unwrap();
        let heard = session.hear().await;
        assert_eq!(heard, ToSession::Failed { id, error: CommandError::Overloaded });
        // A session asks again: as long as nothing was done that is refused too.
        session.link.ask(id, 1, copies.clone()).unwrap();
        assert_eq!(session.hear().await, ToSession::Failed { id, error: CommandError::Overloaded });
    }
    assert!(session.ask(node.id(), 0, node.append().await).await.0.is_ok());
    memory.resize(max);
    let id = node.id();
    assert!(matches!(session.ask(id, 0, copy()).await.0, Ok(Answer::Copied { .. })));
    // What was done stays done, whatever room there is when it is asked for again.
    memory.resize(1);
    assert!(matches!(session.ask(id, 1, copy()).await.0, Ok(Answer::Copied { .. })));
    let words = "this mailbox has too many messages for this server's memory to copy any: delete some, or whoever runs the server \
                 may give it more (limits.memory_bytes)";
    assert_eq!(session.ask(node.id(), 0, copy()).await.0, Err(Refusal::Limit(words.to_owned())));
    node.end().await;
}
