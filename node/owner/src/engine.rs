//! What is particular to one kind of owner: what its commands change, and how its rows are sealed.

use bytes::Bytes;
use mailraft_storage::{
    ClusterId, CommandId, Env, Incarnation, Index, MailboxId, ReplicaId, RowBatch, RowKey, Rows, StoreError, Term,
};

use crate::queue::Queued;

/// The rows that an owner changes, and the term in which it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The cluster.
    pub cluster: ClusterId,
    /// The mailbox whose rows they are; [`MailboxId::PARTITION`] for the partition's own.
    pub mailbox: MailboxId,
    /// The replica beside which the owner lives.
    pub replica: ReplicaId,
    /// The partition's incarnation.
    pub incarnation: Incarnation,
    /// The term in which that replica leads.
    pub term: Term,
    /// Whether no other region held the term's first entry when it began, since the home answers alone. Then what an earlier
    /// leader sent to another region alone may live on there: nothing of it is known here, and it must never come to be mistaken
    /// for what this term makes.
    pub began_alone: bool,
}

/// What was asked, in short: equal for a repeat, and for nothing else.
pub type RequestDigest = [u8; 32];

/// A result as it is answered and kept: the answer, or the refusal that was decided.
pub type Kept<E> = Result<<E as Engine>::Answer, <E as Engine>::Refusal>;

/// The state machine behind an owner. Its memory always equals applied state: what is decided is decided on a copy
/// in [`Engine::Entry`], which takes memory's place when the entry is accepted.
pub trait Engine {
    /// A change that is asked for.
    type Command;
    /// What it comes to.
    type Answer: Clone;
    /// Why it is not carried out, as was decided.
    type Refusal: Clone;
    /// An entry while it is decided, and until its verdict.
    type Entry;
    /// Something that an entry changed, for whoever listens.
    type Event;
    /// Why rows can't be read.
    type Error: From<StoreError>;

    /// The rows that are owned.
    fn place(&self) -> &Place;

    /// The store that they are in.
    fn rows(&self) -> &dyn Rows;

    /// The position of the applied state in memory; 0 if nothing is held there.
    fn position(&self) -> Index;

    /// What a command takes while it waits, in bytes, roughly.
    fn command_bytes(command: &Self::Command) -> usize;

    /// What a command asks, in short, if its id is given by someone who may use it again for something else. None where
    /// ids are drawn anew for each command, as sessions do.
    fn request_digest(&self, _command: &Self::Command) -> Option<RequestDigest> {
        None
    }

    /// Why a command is not carried out whose id belongs to another one.
    fn id_is_taken(&self) -> Self::Refusal;

    /// Seals a result, to be kept under its command's id, with the digest of what was asked.
    fn seal_result(&self, env: &mut Env, id: CommandId, request: Option<RequestDigest>, result: &Kept<Self>) -> Bytes;

    /// The inverse of [`Engine::seal_result`].
    ///
    /// # Errors
    /// If it can't be opened.
    fn open_result(&self, id: CommandId, sealed: &Bytes) -> Result<(Option<RequestDigest>, Kept<Self>), Self::Error>;

    /// Whether an entry is to be written before anything else, though no command waits: rows that are new are made.
    fn must_begin(&self) -> bool {
        false
    }

    /// Whether there is nothing to do but what commands ask for.
    fn is_idle(&self) -> bool {
        true
    }

    /// An entry of work that no command asked for. None if there is none.
    fn upkeep(&mut self, _env: &mut Env) -> Option<Self::Entry> {
        None
    }

    /// A new entry on applied state, with what it must begin with.
    fn begin(&mut self, env: &mut Env) -> Self::Entry;

    /// Decides one command on applied state and the effects of those before it in the entry. Whatever it comes to but
    /// [`Effect::Decided`] leaves the entry as it was.
    fn decide(
        &mut self,
        env: &mut Env,
        entry: &mut Self::Entry,
        queued: &Queued<Self::Command>,
    ) -> Effect<Self::Answer, Self::Refusal, Self::Error>;

    /// The next entry of the change that [`Effect::Parts`] was said of. The same again if the one before was not
    /// accepted.
    ///
    /// # Panics
    /// If there is no such change.
    fn next_part(&mut self, env: &mut Env) -> Part<Self::Entry, Self::Answer, Self::Refusal>;

    /// The rows that an entry requires, and those that it writes. Called once, when it is to be proposed.
    fn close(&mut self, env: &mut Env, entry: &mut Self::Entry) -> (Vec<RowKey>, RowBatch);

    /// The entry was applied: memory goes forward to it.
    fn accepted(&mut self, index: Index, entry: Self::Entry) -> Vec<Self::Event>;

    /// A row that the entry requires is missing, and nothing of it was applied. Says of each command decided in it,
    /// or of the one whose change has parts, what becomes of it, in their order.
    fn missing(&mut self, entry: Self::Entry, commands: usize) -> Vec<Missed>;
}

/// What deciding one command came to.
#[derive(Debug)]
pub enum Effect<A, R, X> {
    /// It is in the entry, with this result.
    Decided(Result<A, R>),
    /// The entry has no room left: the command waits for the next. Never said of an entry that has nothing in it.
    NoRoom,
    /// The change takes entries of its own, which [`Engine::next_part`] gives. Until the last of them is applied nothing
    /// else is decided. Only said of an entry that has nothing in it.
    Parts,
    /// Rows that it needs can't be read. Nothing is recorded: it may come again.
    Unreadable(X),
}

/// An entry of a change that takes several.
#[derive(Debug)]
pub enum Part<T, A, R> {
    /// Others follow.
    Inner(T),
    /// The last one, by which the whole change counts, with its result.
    Last(T, Result<A, R>),
}

/// What becomes of a command whose entry was not applied because a row was missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// It is decided again.
    Again,
    /// It is decided again, as one that needs rows which are damaged.
    Damaged,
    /// What it brings is gone. Nothing is recorded: whoever asked brings it again.
    Lost,
}
