//! What becomes of a mailbox in memory whose account is deleted.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_in_memory_whose_account_is_deleted_takes_nothing_more() {
    use mailraft_directory::{Answer, Command};
    let node = Node::start(LIMITS).await;
    tokio::spawn(node.services.registry.clone().end_actors_of_deleted());
    let [other, _] = node.mailboxes().await;
    let address = "deleted@example.test".to_owned();
    let create = Command::CreateAccount { address: address.clone(), verifier: password::DUMMY_VERIFIER.into() };
    let Answer::AccountCreated { mailbox, .. } = node.change(create).await else { panic!("no account") };
    let message = node.message(100).await;
    let kind =
        || MessageKind::Append { folder: "INBOX".into(), flags: Flags::none(), internal_date: ZonedTime::default() };
    let mut sessions = [mailbox, other].map(|mailbox| MailboxSession::new(node.services.reach(), mailbox));
    for session in &mut sessions {
        let stored = session.store(node.id(), kind(), None, &message).await;
        assert!(matches!(stored, Finished::Done(_)), "{stored:?}");
    }
    assert_eq!((node.actors(), node.services.registry.started()), (2, 2));
    node.change(Command::DeleteAccount { address }).await;
    // Nobody uses it, and yet it ends; the other one stays.
    until("its end", || node.actors() == 1).await;
    for _ in 0..2 {
        let refused = sessions[0].store(node.id(), kind(), None, &message).await;
        assert!(matches!(refused, Finished::NotDone(NotDone::NoSuchMailbox)), "{refused:?}");
    }
    let stored = sessions[1].store(node.id(), kind(), None, &message).await;
    assert!(matches!(stored, Finished::Done(_)), "{stored:?}");
    node.end().await;
}
