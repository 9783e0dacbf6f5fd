//! What an actor says to a session, and the bounded way it goes. Bounds are in bytes: a session, an account and a node
//! have one each. Whoever reads too slowly is told to attach again, loses what waited for it, and is told then what it
//! missed; nobody else notices, also where many sessions of another node share a link.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mailraft_mailbox::{
    Answer, CommandError, Detached, Event, Notice, Position, Refusal, answer_bytes, event_bytes, notice_bytes,
};
use mailraft_storage::CommandId;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::memory::{AccountShare, Room};

/// Events that may wait for one session, in bytes. A change of 2,000 messages is an event of 64 KiB.
pub const SESSION_EVENTS_MAX_BYTES: usize = 1 << 20;
/// What a message takes beside what is in it, in bytes.
const MESSAGE_BYTES: usize = 128;

/// What an actor says to a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToSession {
    /// What the mailbox answers to a command.
    Answer {
        /// The command.
        id: CommandId,
        /// The answer, or the refusal that was decided.
        result: Result<Answer, Refusal>,
        /// The position of the change, or of the memory that was read.
        at: Position,
    },
    /// Something changed in the open folder. In memory once, for however many sessions it waits.
    Event(Arc<Event>),
    /// The link is over.
    Detached(Detached),
    /// A command has no answer.
    Failed {
        /// The command.
        id: CommandId,
        /// The reason.
        error: CommandError,
    },
    /// Something changed in a folder that is not open, or in the list of folders.
    Notice(Notice),
}

/// The sending end: one for each attached session; those of one connection share a queue.
pub struct Outbox {
    number: u64,
    session: Arc<OfSession>,
    queue: Arc<Queue>,
}

/// The receiving end.
pub struct Inbox {
    queue: Arc<Queue>,
}

/// What is known of one session in a queue.
struct OfSession {
    share: AccountShare,
    /// Events that wait for it, in bytes.
    events: AtomicUsize,
    /// It was told to attach again: it hears nothing more through this.
    gave_up: AtomicBool,
}

struct Queue {
    waiting: Mutex<Waiting>,
    outboxes: AtomicUsize,
    news: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Message>,
    /// Nobody receives any more.
    closed: bool,
}

struct Message {
    number: u64,
    session: Arc<OfSession>,
    bytes: usize,
    room: Room,
    is_event: bool,
    /// None once it was received.
    said: Option<ToSession>,
}

/// A queue; `number` names the session on it, and what waits for it is of its account's share.
pub fn channel(number: u64, share: AccountShare) -> (Outbox, Inbox) {
    let queue = Queue { waiting: Mutex::default(), outboxes: AtomicUsize::new(1), news: Notify::new() };
    let queue = Arc::new(queue);
    (Outbox { number, session: OfSession::new(share), queue: Arc::clone(&queue) }, Inbox { queue })
}

impl Outbox {
    /// Another session's end of the same queue.
    pub fn for_session(&self, number: u64, share: AccountShare) -> Outbox {
        self.queue.outboxes.fetch_add(1, Ordering::Relaxed);
        Outbox { number, session: OfSession::new(share), queue: Arc::clone(&self.queue) }
    }

    /// Says something. Where too much waits an event ends the session's link, so that it attaches again and misses
    /// nothing unknowingly, and a read is answered by the word that it was too much.
    pub fn send(&self, said: ToSession) {
        let Outbox { number, session, queue } = self;
        let mut waiting = queue.waiting();
        if waiting.closed || session.gave_up.load(Ordering::Relaxed) {
            return;
        }
        let bytes = bytes_of(&said);
        match &said {
            ToSession::Event(_) | ToSession::Notice(_) => {
                let events = session.events.load(Ordering::Relaxed) + bytes;
                if events > SESSION_EVENTS_MAX_BYTES || !session.share.try_take(bytes) {
                    session.gave_up.store(true, Ordering::Relaxed);
                    waiting.messages.retain(|message| message.number != *number);
                    ::metrics::counter!("mailraft_session_outbox_overflows_total").increment(1);
                    return self.push(waiting, ToSession::Detached(Detached::Gone));
                }
                session.events.store(events, Ordering::Relaxed);
                self.push_counted(waiting, said, bytes, Room::InPart);
            }
            ToSession::Answer { id, result, .. } if is_read(result) => match session.share.try_take_one(bytes) {
                Some(room) => self.push_counted(waiting, said, bytes, room),
                None => {
                    ::metrics::counter!("mailraft_session_outbox_overflows_total").increment(1);
                    let failed = ToSession::Failed { id: *id, error: CommandError::Overloaded };
                    self.push(waiting, failed);
                }
            },
            // What was done, and words, are told in any case: one for each command, and they are short.
            ToSession::Answer { .. } | ToSession::Detached(_) | ToSession::Failed { .. } => self.push(waiting, said),
        }
    }

    /// Whether nobody listens any more.
    pub fn is_closed(&self) -> bool {
        self.queue.waiting().closed
    }

    fn push(&self, waiting: MutexGuard<'_, Waiting>, said: ToSession) {
        let bytes = bytes_of(&said);
        self.session.share.take(bytes);
        self.push_counted(waiting, said, bytes, Room::InPart);
    }

    fn push_counted(&self, mut waiting: MutexGuard<'_, Waiting>, said: ToSession, bytes: usize, room: Room) {
        let (number, session) = (self.number, Arc::clone(&self.session));
        let is_event = matches!(said, ToSession::Event(_) | ToSession::Notice(_));
        waiting.messages.push_back(Message { number, session, bytes, room, is_event, said: Some(said) });
        drop(waiting);
        self.queue.news.notify_one();
    }
}

impl Clone for Outbox {
    fn clone(&self) -> Self {
        self.queue.outboxes.fetch_add(1, Ordering::Relaxed);
        Outbox { number: self.number, session: Arc::clone(&self.session), queue: Arc::clone(&self.queue) }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        if self.queue.outboxes.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.queue.news.notify_one();
        }
    }
}

impl Inbox {
    /// The next message; None when the link is over. Safe to cancel.
    pub async fn next(&mut self) -> Option<(u64, ToSession)> {
        // Others on this thread have their turn however much there is.
        tokio::task::coop::consume_budget().await;
        loop {
            let news = self.queue.news.notified();
            if let Some(message) = self.queue.take() {
                return Some(message);
            }
            if self.queue.outboxes.load(Ordering::Acquire) == 0 {
                // One may have said its last between the two.
                return self.queue.take();
            }
            news.await;
        }
    }

    /// A message that is there already.
    pub fn try_next(&mut self) -> Option<(u64, ToSession)> {
        self.queue.take()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting();
        waiting.closed = true;
        waiting.messages.clear();
    }
}

impl Queue {
    fn take(&self) -> Option<(u64, ToSession)> {
        let mut message = self.waiting().messages.pop_front()?;
        Some((message.number, message.said.take()?))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OfSession {
    fn new(share: AccountShare) -> Arc<Self> {
        Arc::new(OfSession { share, events: AtomicUsize::new(0), gave_up: AtomicBool::new(false) })
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.session.share.give_one_back(self.room, self.bytes);
        if self.is_event {
            self.session.events.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// What a message takes while it waits, in bytes. An event counts whole for each session, though they share it.
fn bytes_of(said: &ToSession) -> usize {
    MESSAGE_BYTES
        + match said {
            ToSession::Answer { result: Ok(answer), .. } => answer_bytes(answer),
            ToSession::Event(event) => event_bytes(event),
            ToSession::Notice(notice) => notice_bytes(notice),
            ToSession::Answer { result: Err(_), .. } | ToSession::Detached(_) | ToSession::Failed { .. } => 0,
        }
}

/// Whether it answers a read, which may be asked again, and not a change that was made.
fn is_read(result: &Result<Answer, Refusal>) -> bool {
    match result {
        Ok(
            Answer::Folders(_)
            | Answer::Statuses(_)
            | Answer::Search(_)
            | Answer::Selected(_)
            | Answer::Resumed(_)
            | Answer::Fetched(_)
            | Answer::Chunk(_)
            | Answer::Chunks(_)
            | Answer::Maildrop(_)
            | Answer::UniqueIds(_)
            | Answer::SaveDates(_)
            | Answer::Quota(_)
            | Answer::Counted(_)
            | Answer::QueueItems(_)
            | Answer::QueueAsked(_)
            | Answer::QueueAttempts(_)
            | Answer::QueueItem(_),
        ) => true,
        Ok(
            Answer::Done
            | Answer::Status(_)
            | Answer::Stored { .. }
            | Answer::Appended { .. }
            | Answer::Accepted { .. }
            | Answer::Flagged { .. }
            | Answer::Copied { .. }
            | Answer::Expunged { .. },
        )
        | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mailraft_mailbox::api::{Change, FolderId, MessageState, Resumed};
    use mailraft_mailbox::{Flags, UidSet};
    use mailraft_storage::{Index, MailboxId, PartitionId};

    use super::*;
    use crate::memory::SharedByAccounts;

    fn account(shared: &SharedByAccounts, n: u8) -> AccountShare {
        shared.of(MailboxId([n; 16]))
    }

    fn event(messages: u32) -> ToSession {
        let state = |uid| MessageState { uid, flags: Flags::none(), modseq: 1 };
        let change = Change::Flagged((1..=messages).map(state).collect());
        ToSession::Event(Arc::new(Event { folder: FolderId(1), origin: CommandId::default(), modseq: 1, change }))
    }

    fn answer(answer: Answer) -> ToSession {
        let at = Position { partition: PartitionId(1), incarnation: 1, index: Index(1) };
        ToSession::Answer { id: CommandId([7; 16]), result: Ok(answer), at }
    }

    #[tokio::test]
    async fn a_session_that_does_not_read_loses_its_link_and_what_waits_and_others_on_it_notice_nothing() {
        let shared = SharedByAccounts::new(64 << 20, 4);
        let (slow, mut inbox) = channel(7, account(&shared, 1));
        let other = slow.for_session(8, account(&shared, 2));
        other.send(event(1));
        let one = bytes_of(&event(1_000));
        for _ in 0..SESSION_EVENTS_MAX_BYTES / one {
            slow.send(event(1_000));
        }
        assert!(shared.node().used() > SESSION_EVENTS_MAX_BYTES - one && shared.node().used() < 2 << 20);
        slow.send(event(1_000));
        assert!(shared.node().used() < 1_000, "what waited is gone at once");
        slow.send(event(1));
        other.send(answer(Answer::Done));
        assert!(matches!(inbox.next().await, Some((8, ToSession::Event(_)))));
        assert!(matches!(inbox.next().await, Some((7, ToSession::Detached(Detached::Gone)))));
        assert!(matches!(inbox.next().await, Some((8, ToSession::Answer { .. }))));
        assert!(inbox.try_next().is_none());
        drop((slow, other));
        assert!(inbox.next().await.is_none());
        assert_eq!(shared.node().used(), 0);
    }

    #[tokio::test]
    async fn past_the_bound_of_its_account_a_read_is_refused_and_what_was_done_is_told() {
        let shared = SharedByAccounts::new(4 << 20, 4);
        let (outbox, mut inbox) = channel(7, account(&shared, 1));
        let chunk = || answer(Answer::Chunk(Some(vec![0; 600 << 10].into())));
        outbox.send(chunk());
        outbox.send(chunk());
        outbox.send(answer(Answer::Flagged { modified: UidSet::new(), modseq: Some(9) }));
        let (elsewhere, mut of_another) = channel(9, account(&shared, 2));
        elsewhere.send(chunk());
        assert!(matches!(inbox.next().await, Some((7, ToSession::Answer { result: Ok(Answer::Chunk(_)), .. }))));
        let refused = ToSession::Failed { id: CommandId([7; 16]), error: CommandError::Overloaded };
        assert_eq!(inbox.next().await, Some((7, refused)));
        assert!(matches!(inbox.next().await, Some((7, ToSession::Answer { result: Ok(Answer::Flagged { .. }), .. }))));
        assert!(matches!(of_another.try_next(), Some((9, ToSession::Answer { .. }))));
        outbox.send(chunk());
        drop(inbox);
        assert!(outbox.is_closed() && shared.node().used() == 0);
        outbox.send(chunk());
        assert_eq!(shared.node().used(), 0);
    }

    #[tokio::test]
    async fn a_folder_that_is_larger_than_its_accounts_part_is_opened_and_followed_and_others_are_served_meanwhile() {
        let shared = SharedByAccounts::new(8 << 20, 8);
        let messages = |count| {
            let states = (1..=count).map(|uid| MessageState { uid, flags: Flags::none(), modseq: 1 });
            states.collect::<Vec<_>>()
        };
        let resumed = |count| {
            let (vanished, changed) = (UidSet::new(), messages(count));
            answer(Answer::Resumed(Resumed { uid_next: 1, highest_modseq: 1, vanished, changed }))
        };
        let (outbox, mut inbox) = channel(7, account(&shared, 1));
        // Every flag changed: that is no event, and what is told instead when the session attaches again is as large.
        outbox.send(event(150_000));
        assert!(matches!(inbox.next().await, Some((7, ToSession::Detached(Detached::Gone)))));
        let (outbox, mut inbox) = channel(8, account(&shared, 1));
        assert!(bytes_of(&resumed(150_000)) > account(&shared, 1).part());
        outbox.send(resumed(150_000));
        outbox.send(resumed(150_000));
        let (of_another, mut other) = channel(9, account(&shared, 2));
        of_another.send(answer(Answer::Chunk(Some(vec![0; 1_000_000].into()))));
        assert!(matches!(other.next().await, Some((9, ToSession::Answer { .. }))));
        assert!(matches!(inbox.next().await, Some((8, ToSession::Answer { result: Ok(Answer::Resumed(_)), .. }))));
        assert!(matches!(inbox.next().await, Some((8, ToSession::Failed { error: CommandError::Overloaded, .. }))));
        outbox.send(resumed(150_000));
        assert!(matches!(inbox.next().await, Some((8, ToSession::Answer { .. }))), "there is room again");
        assert_eq!(shared.node().used(), 0);
    }
}
