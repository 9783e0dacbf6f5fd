//! A session's command on its way, and how long its client waits for it.

use std::time::Duration;

use mailraft_storage::CommandId;

use crate::request::{NotDone, Request};
use crate::upload::Upload;

/// How long a client is kept waiting while nobody leads its mailbox's partition.
pub const NO_LEADER_MAX: Duration = Duration::from_millis(1_600);
/// How long a client is waited for while it is in doubt whether its change was done: it was asked, and nobody is there to
/// say. Mail programs give up after one to five minutes; whoever waits that long need not be told that nobody knows.
pub const IN_DOUBT_MAX: Duration = Duration::from_secs(30);
/// How long owners may take to answer a command while their nodes lead, counted from the command's beginning.
pub const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Before a body is uploaded anew, for each chunk that was sent in vain; twice as long each time after. News of a leader come
/// no earlier: whoever writes much that is lost keeps others from a majority.
const UPLOAD_AGAIN_PER_CHUNK: Duration = Duration::from_millis(1);
/// No longer than this.
const UPLOAD_AGAIN_MAX: Duration = Duration::from_secs(5);

/// A command on its way.
pub(crate) struct Busy {
    pub id: CommandId,
    pub request: Request,
    pub started: Duration,
    /// How often it was asked under its id.
    pub asked: u32,
    /// It was asked at least once without an answer that says that nothing was done, and it changes something.
    pub in_doubt: bool,
    /// Why it was not done so far.
    pub why: NotDone,
    pub doing: Doing,
    /// An owner was there that was asked, or would have been as soon as it could be: until this moment, as was seen last. From
    /// then on nobody leads. At first when it began.
    pub served_until: Duration,
    /// When it is looked next whether an answer is worth waiting for.
    pub patience: Duration,
    /// Chunks that were sent since the message was sealed last.
    pub chunks_sent: u32,
    /// How often an upload was begun anew.
    uploads_again: u32,
    /// The message is not sealed again before.
    pub seals_at: Duration,
}

/// What is done about a command.
pub(crate) enum Doing {
    /// For a leader, for a link, or for a pause to be over.
    Waiting,
    Sealing,
    Uploading(Box<Upload>),
    Asked,
}

impl Busy {
    pub fn new(id: CommandId, request: Request, now: Duration) -> Self {
        Busy {
            id,
            request,
            started: now,
            asked: 0,
            in_doubt: false,
            why: NotDone::NoQuorum,
            doing: Doing::Waiting,
            served_until: now,
            patience: now,
            chunks_sent: 0,
            uploads_again: 0,
            seals_at: now,
        }
    }

    /// Counts what was uploaded in vain, if something was: the longer it lasts until it is uploaded anew.
    pub fn count_upload(&mut self, now: Duration) {
        let sent = std::mem::take(&mut self.chunks_sent);
        if sent == 0 {
            return;
        }
        let pause = UPLOAD_AGAIN_PER_CHUNK.saturating_mul(sent).saturating_mul(1 << self.uploads_again.min(16));
        self.seals_at = now + pause.min(UPLOAD_AGAIN_MAX);
        self.uploads_again = self.uploads_again.saturating_add(1);
    }

    /// An owner says why it is not done now, which says more than that nobody is there. It is not waited for any longer than
    /// if nobody were.
    pub fn is_refused(&mut self, why: NotDone) {
        (self.why, self.served_until) = (why, self.started);
    }

    /// When the client is told how it ended, unless an answer comes, or a slow one is still worth waiting for.
    pub fn gives_up_at(&self) -> Duration {
        let asked = matches!(self.doing, Doing::Asked) && !self.request.is_read();
        let unserved = (self.served_until + NO_LEADER_MAX).min(self.started + ANSWER_MAX);
        if self.in_doubt || asked { unserved.max(self.started + IN_DOUBT_MAX) } else { unserved }
    }
}
