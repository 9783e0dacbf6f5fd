//! What the owner of a queue mailbox wants done: with other mailboxes, or outside the cluster. Whoever is above the actors does
//! it.

use actix::prelude::*;
use mailraft_mailbox::Place;
use mailraft_mailbox::queue::errands::{Errand, ErrandOutcome};
use mailraft_mailbox::queue::outward::{Outward, OutwardOutcome};
use tokio::sync::mpsc;

/// Something that an owner wants done and hears the end of.
pub trait Task: Send + 'static {
    /// How it ends.
    type Outcome: Send + 'static;

    /// It was not done, or nobody knows.
    fn failed() -> Self::Outcome;

    /// Its number.
    fn number(&self) -> u64;
}

impl Task for Errand {
    type Outcome = ErrandOutcome;

    fn failed() -> ErrandOutcome {
        ErrandOutcome::Failed
    }

    fn number(&self) -> u64 {
        self.number
    }
}

impl Task for Outward {
    type Outcome = OutwardOutcome;

    fn failed() -> OutwardOutcome {
        OutwardOutcome::Failed
    }

    fn number(&self) -> u64 {
        self.number
    }
}

/// A task ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct TaskEnded<O: Send + 'static> {
    /// Its number.
    pub number: u64,
    /// How it ended.
    pub outcome: O,
}

/// A task, and who waits for its end. Whoever drops it has not done it: the owner hears that too, and has it done again.
pub struct Job<T: Task> {
    /// The queue mailbox and the term of its owner.
    pub place: Place,
    /// What is to be done.
    pub task: T,
    /// The owner's actor, until it was told.
    actor: Option<Recipient<TaskEnded<T::Outcome>>>,
}

/// An errand in other mailboxes.
pub type ErrandJob = Job<Errand>;
/// Something that leaves the cluster, or tells a sender something.
pub type OutwardJob = Job<Outward>;

/// Where actors hand their tasks over. Bounded by those who do: each has so many under way.
#[derive(Clone)]
pub struct Tasks {
    /// Errands.
    pub errands: mpsc::UnboundedSender<ErrandJob>,
    /// What leaves the cluster.
    pub outwards: mpsc::UnboundedSender<OutwardJob>,
}

/// Where they come out.
pub struct TaskJobs {
    /// Errands.
    pub errands: mpsc::UnboundedReceiver<ErrandJob>,
    /// What leaves the cluster.
    pub outwards: mpsc::UnboundedReceiver<OutwardJob>,
}

/// Both ends.
pub(super) fn tasks() -> (Tasks, TaskJobs) {
    let ((errands, errand_jobs), (outwards, outward_jobs)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    (Tasks { errands, outwards }, TaskJobs { errands: errand_jobs, outwards: outward_jobs })
}

impl<T: Task> Job<T> {
    /// A task of this actor's owner.
    pub(super) fn new(place: Place, task: T, actor: Recipient<TaskEnded<T::Outcome>>) -> Self {
        Job { place, task, actor: Some(actor) }
    }

    /// Tells the owner how it ended, if it is still there.
    pub fn ended(mut self, outcome: T::Outcome) {
        self.tell(outcome);
    }

    /// Whether its owner's actor is still there.
    pub fn is_wanted(&self) -> bool {
        self.actor.as_ref().is_some_and(Recipient::connected)
    }

    fn tell(&mut self, outcome: T::Outcome) {
        if let Some(actor) = self.actor.take() {
            actor.do_send(TaskEnded { number: self.task.number(), outcome });
        }
    }
}

impl<T: Task> Drop for Job<T> {
    fn drop(&mut self) {
        self.tell(T::failed());
    }
}

/// An owner's actor that hears how its errands end, for tests of whoever carries them out.
#[cfg(test)]
pub mod testing {
    use mailraft_mailbox::accepted::{QueueOrigin, QueuePosition};
    use mailraft_mailbox::queue::errands::ErrandKind;
    use mailraft_storage::{ClusterId, CommandId, Incarnation, MailboxId, PartitionId, ReplicaId, Term};

    use super::*;

    /// The actor.
    pub struct Owner(mpsc::UnboundedSender<ErrandOutcome>);

    /// It ends.
    #[derive(Message)]
    #[rtype(result = "()")]
    struct End;

    /// Starts one, and what it hears.
    pub fn owner() -> (Addr<Owner>, mpsc::UnboundedReceiver<ErrandOutcome>) {
        let (heard, hears) = mpsc::unbounded_channel();
        (Owner(heard).start(), hears)
    }

    /// Returns once it has ended.
    pub async fn ends(owner: Addr<Owner>) {
        let _ = owner.send(End).await;
        while owner.connected() {
            tokio::task::yield_now().await;
        }
    }

    /// An errand that uploads so many bytes.
    pub fn job(owner: &Addr<Owner>, upload_bytes: u64) -> ErrandJob {
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
        let errand = Errand { number: 1, mailbox, origin, what: ErrandKind::Deliver, upload_bytes };
        ErrandJob::new(place, errand, owner.clone().recipient())
    }

    impl Actor for Owner {
        type Context = Context<Self>;
    }

    impl Handler<TaskEnded<ErrandOutcome>> for Owner {
        type Result = ();

        fn handle(&mut self, ended: TaskEnded<ErrandOutcome>, _: &mut Self::Context) {
            let _ = self.0.send(ended.outcome);
        }
    }

    impl Handler<End> for Owner {
        type Result = ();

        fn handle(&mut self, _: End, ctx: &mut Self::Context) {
            ctx.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{job, owner};
    use super::*;

    #[actix::test]
    async fn an_owner_hears_once_how_an_errand_ended_also_if_it_was_dropped() {
        let (owner, mut hears) = owner();
        let (carried_out, dropped) = (job(&owner, 0), job(&owner, 0));
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
