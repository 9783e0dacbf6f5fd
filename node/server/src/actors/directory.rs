//! The actor of the directory, beside the control group's leader.

use std::future::Future;
use std::sync::Arc;

use actix::prelude::*;
use mailraft_directory::{Answer, Command, Directory, Refusal};
use mailraft_driver::Leading;
use mailraft_mailbox::Position;
use mailraft_owner::{Ask, Detached, LogOwner, SessionNumber, Tell, Unanswered};
use mailraft_storage::{CommandId, Index, PartitionId};
use tokio::sync::oneshot;

use super::owner::{Kind, OwnerActor, Seat};

/// What the directory answered and where the change stands, or why nobody here can say.
pub type Reply = Result<(Result<Answer, Refusal>, Position), Detached>;

/// A change of the directory.
#[derive(Message)]
#[rtype(result = "()")]
pub struct DirectoryAsk {
    /// Its id.
    pub id: CommandId,
    /// The change.
    pub command: Command,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Reply>,
}

/// The actor of the directory.
pub type DirectoryActor = OwnerActor<DirectoryKind>;

/// What is particular to it: nothing stays between two questions.
pub struct DirectoryKind;

impl DirectoryActor {
    /// Not loaded yet.
    pub fn of_directory(seat: Seat) -> Self {
        OwnerActor::new(seat, LogOwner::new(), DirectoryKind)
    }
}

impl Kind for DirectoryKind {
    type Owner = LogOwner<Directory, oneshot::Sender<Reply>>;

    fn load(seat: &Seat) -> impl Future<Output = Result<Directory, Detached>> + 'static {
        let Seat { cluster, lookup, leading, .. } = seat.clone();
        async move {
            let (lookup, at) = (Arc::clone(&lookup), leading);
            let load = move || Directory::load(&lookup, at.incarnation, at.term);
            match tokio::task::spawn_blocking(load).await {
                Ok(Ok(engine)) => Ok(engine),
                Ok(Err(error)) => {
                    tracing::error!(%error, "the directory can't be loaded");
                    cluster.found_damaged(leading.replica, &error);
                    Err(Detached::Corrupt)
                }
                Err(_) => Err(Detached::Gone),
            }
        }
    }

    fn takes_long(&self) -> bool {
        false
    }

    fn fell_idle(&mut self) {}

    fn loaded(&mut self, _: &mut Directory) {}

    fn carry_out(
        actor: &mut DirectoryActor,
        tell: Tell<Directory, oneshot::Sender<Reply>>,
        _: &mut Context<DirectoryActor>,
    ) {
        match tell {
            Tell::Event(never) => match never {},
            Tell::Answer { to, result, at, .. } => {
                let result = result.map(|result| (result, position(&actor.seat.leading, at))).map_err(detached);
                // Whoever asked may have gone.
                let _ = to.send(result);
            }
            Tell::Kept { to, result, at, .. } => {
                let _ = to.send(Ok((result, position(&actor.seat.leading, at))));
            }
        }
    }

    fn started(_: &mut DirectoryActor, _: &mut Context<DirectoryActor>) {}
}

/// Whoever hears that asks again, wherever the directory is led by then.
fn detached(why: Unanswered) -> Detached {
    match why {
        Unanswered::Overloaded => Detached::Overloaded,
        Unanswered::Unknown | Unanswered::Expired { .. } | Unanswered::Lost => Detached::Gone,
        Unanswered::Unreadable => Detached::Corrupt,
        Unanswered::NotConfirmed => Detached::NotConfirmed,
        Unanswered::Ended(why) => why,
    }
}

fn position(leading: &Leading, index: Index) -> Position {
    Position { partition: PartitionId::CONTROL, incarnation: leading.incarnation.number, index }
}

impl Handler<DirectoryAsk> for DirectoryActor {
    type Result = ();

    fn handle(&mut self, DirectoryAsk { id, command, reply }: DirectoryAsk, ctx: &mut Self::Context) {
        // Nobody says whether it was sent before: taken for a repeat.
        let asked = Ask { from: reply, turn: SessionNumber::default(), id, attempt: 1, command };
        self.with_owner(ctx, move |owner, env, out| owner.ask(env, asked, out));
    }
}
