//! What the owner of a queue mailbox wants done with other mailboxes. Whoever is above the actors does it.

use actix::prelude::*;
use mailraft_mailbox::Place;
use mailraft_mailbox::queue::errands::{Errand, ErrandOutcome};
use tokio::sync::mpsc;

/// An errand ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ErrandEnded {
    /// Its number.
    pub number: u64,
    /// How it ended.
    pub outcome: ErrandOutcome,
}

/// An errand, and who waits for its end. Whoever drops it has not done it: the owner hears that too, and has it done again.
pub struct ErrandJob {
    /// The queue mailbox and the term of its owner.
    pub place: Place,
    /// What is to be done.
    pub errand: Errand,
    /// The owner's actor, until it was told.
    actor: Option<Recipient<ErrandEnded>>,
}

/// Where actors hand their errands over. Bounded by those who do: each has so many under way.
pub type ErrandJobs = mpsc::UnboundedSender<ErrandJob>;

impl ErrandJob {
    /// An errand of this actor's owner.
    pub(super) fn new(place: Place, errand: Errand, actor: Recipient<ErrandEnded>) -> Self {
        ErrandJob { place, errand, actor: Some(actor) }
    }

    /// Tells the owner how it ended, if it is still there.
    pub fn ended(mut self, outcome: ErrandOutcome) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: ErrandOutcome) {
        if let Some(actor) = self.actor.take() {
            actor.do_send(ErrandEnded { number: self.errand.number, outcome });
        }
    }
}

impl Drop for ErrandJob {
    fn drop(&mut self) {
        self.tell(ErrandOutcome::Failed);
    }
}

#[cfg(test)]
mod tests {
    use mailraft_mailbox::accepted::{QueueOrigin, QueuePosition};
    use mailraft_mailbox::queue::errands::ErrandKind;
    use mailraft_storage::{ClusterId, CommandId, Incarnation, MailboxId, PartitionId, ReplicaId, Term};

    use super::*;

    struct Owner(mpsc::UnboundedSender<ErrandOutcome>);

    impl Actor for Owner {
        type Context = Context<Self>;
    }

    impl Handler<ErrandEnded> for Owner {
        type Result = ();

        fn handle(&mut self, ended: ErrandEnded, _: &mut Self::Context) {
            let _ = self.0.send(ended.outcome);
        }
    }

    #[actix::test]
    async fn an_owner_hears_once_how_an_errand_ended_also_if_it_was_dropped() {
        let (heard, mut hears) = mpsc::unbounded_channel();
        let owner = Owner(heard).start();
        let jobs = [(), ()].map(|()| {
            let (mailbox, queue) = (MailboxId([1; 16]), PartitionId(1));
            let place = Place {
                cluster: ClusterId([1; 16]),
                mailbox: MailboxId::queue_of(queue),
                replica: ReplicaId(1),
                incarnation: Incarnation::default(),
                term: Term(1),
                began_alone: false,
            };
            let origin = QueueOrigin { queue, at: QueuePosition::default(), item: CommandId([2; 16]), recipient: 0 };
            let errand = Errand { number: 1, mailbox, origin, what: ErrandKind::Deliver };
            ErrandJob::new(place, errand, owner.clone().recipient())
        });
        let [carried_out, dropped] = jobs;
        carried_out.ended(ErrandOutcome::Done);
        let panicking = tokio::spawn(async move {
            let _job = dropped;
            panic!("whoever carries it out");
        });
        assert!(panicking.await.is_err());
        drop(owner);
        let mut all = Vec::new();
        while let Some(outcome) = hears.recv().await {
            all.push(outcome);
        }
        assert_eq!(all, [ErrandOutcome::Done, ErrandOutcome::Failed]);
    }
}
