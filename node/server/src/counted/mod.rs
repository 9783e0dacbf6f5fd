//! What this node counts for the reports that other domains get once a day (`mailraft_feedback`): within its bounds, in memory and,
//! over a restart, in a sealed file. `reports` makes reports of what all nodes counted.

mod file;
mod question;
mod rows;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mailraft_feedback::dmarc::Messages;
use mailraft_feedback::tls::{Failure, Sessions};
use mailraft_feedback::{DAY_SECONDS, Day, Lost};
use mailraft_outbound::tls::report::AppliedPolicy;
use mailraft_sender_auth::{Disposition, Envelope, Verdict};

pub use file::CountsFile;
pub use question::{FeedbackAnswer, FeedbackQuestion, PARTS_AT_ONCE, What};

use crate::config;

/// What was counted is written down this often: a crash forgets no more than this.
pub const WRITTEN_EVERY: Duration = Duration::from_secs(15 * 60);

/// What a node counts; clones share it. The default one counts nothing.
#[derive(Clone)]
pub struct Counted(Arc<Inner>);

struct Inner {
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
    file: Option<CountsFile>,
    counts_tls: AtomicBool,
    counts_dmarc: AtomicBool,
    sessions: Mutex<Sessions>,
    messages: Mutex<Messages>,
    /// What somebody asks for page by page: a day that is over does not change.
    asked: Mutex<Option<Asked>>,
}

/// The parts of a day.
struct Asked {
    what: What,
    day: u64,
    parts: Vec<Bytes>,
}

impl Counted {
    /// What the file has, by a clock that gives seconds since 1970. Blocking. A file that can't be read begins anew, and the log
    /// says so: these are statistics.
    pub fn new(switches: &config::Reports, file: CountsFile, clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let (sessions, messages) = file.read(clock()).unwrap_or_else(|sentence| {
            tracing::warn!("what was counted for reports is lost: {sentence}");
            Default::default()
        });
        let counted = Counted(Arc::new(Inner {
            clock: Box::new(clock),
            file: Some(file),
            counts_tls: AtomicBool::default(),
            counts_dmarc: AtomicBool::default(),
            sessions: Mutex::new(sessions),
            messages: Mutex::new(messages),
            asked: Mutex::default(),
        }));
        counted.set(switches);
        counted
    }

    /// What is counted from now on. What was counted stays until its day is told or forgotten.
    pub fn set(&self, switches: &config::Reports) {
        self.0.counts_tls.store(switches.tls, Ordering::Relaxed);
        self.0.counts_dmarc.store(switches.dmarc, Ordering::Relaxed);
    }

    /// The time by which days are told apart, in seconds since 1970.
    pub fn now_unix_s(&self) -> u64 {
        (self.0.clock)()
    }

    /// Counts a session with a server of a domain, or an attempt at one, if such are counted.
    pub fn session(&self, domain: &str, policy: &AppliedPolicy, failure: Option<&Failure>) {
        if self.0.counts_tls.load(Ordering::Relaxed) {
            lock(&self.0.sessions).count(self.now_unix_s(), domain, policy, failure);
        }
    }

    /// Counts a message that was checked, if such are counted and its author's domain wants to hear of it.
    pub fn message(&self, verdict: &Verdict, envelope: &Envelope, done: Disposition) {
        if self.0.counts_dmarc.load(Ordering::Relaxed)
            && let Some((domain, published, row)) = rows::of(verdict, envelope, done)
        {
            lock(&self.0.messages).count(self.now_unix_s(), &domain, &published, &row);
        }
    }

    /// Answers whoever sends reports for all nodes. What is not over by this node's clock is neither told nor forgotten.
    pub async fn answer(&self, question: FeedbackQuestion) -> FeedbackAnswer {
        let counted = self.clone();
        // A day that is full takes a while to be written as records, or as a file.
        tokio::task::spawn_blocking(move || counted.answer_now(question)).await.unwrap_or(FeedbackAnswer::NotNow)
    }

    fn answer_now(&self, question: FeedbackQuestion) -> FeedbackAnswer {
        let today = self.now_unix_s() / DAY_SECONDS;
        match question {
            FeedbackQuestion::Parts { day, .. } | FeedbackQuestion::Told { day } if day >= today => {
                FeedbackAnswer::NotNow
            }
            FeedbackQuestion::Parts { what, day, from } => self.parts(what, day, from as usize),
            FeedbackQuestion::Told { day } => {
                *lock(&self.0.asked) = None;
                let sessions = lock(&self.0.sessions).forget_told(day).is_some();
                let messages = lock(&self.0.messages).forget_told(day).is_some();
                if sessions || messages {
                    // So that a restart does not find it again.
                    self.write();
                }
                FeedbackAnswer::Noted
            }
        }
    }

    /// Some parts of a day, if there is any. All of them are made at once, as nothing is counted meanwhile.
    fn parts(&self, what: What, day: u64, from: usize) -> FeedbackAnswer {
        let mut asked = lock(&self.0.asked);
        let is_it = |of: &Asked| from > 0 && (of.what, of.day) == (what, day);
        let of = match asked.take().filter(is_it) {
            Some(of) => of,
            None => Asked { what, day, parts: self.all_parts(what, day) },
        };
        let end = from.saturating_add(PARTS_AT_ONCE).min(of.parts.len());
        let parts = of.parts.get(from..end).unwrap_or_default().to_vec();
        let more = end < of.parts.len();
        *asked = more.then_some(of);
        FeedbackAnswer::Parts { parts, more }
    }

    fn all_parts(&self, what: What, day: u64) -> Vec<Bytes> {
        let parts = match what {
            What::Sessions => lock(&self.0.sessions).day(day).map(Day::encode),
            What::Messages => lock(&self.0.messages).day(day).map(Day::encode),
        };
        parts.unwrap_or_default().into_iter().map(Bytes::from).collect()
    }

    /// Writes down what is counted, in the place of what was. Blocking.
    pub fn write(&self) {
        let Some(file) = &self.0.file else { return };
        let (sessions, messages) = (lock(&self.0.sessions).encode(), lock(&self.0.messages).encode());
        if let Err(sentence) = file.write(&sessions, &messages) {
            tracing::warn!("what was counted for reports is not written down: {sentence}");
        }
    }

    /// Writes it down now and then, and tells metrics, for as long as the node runs.
    pub async fn keep_written(self) {
        let mut pause = tokio::time::interval(WRITTEN_EVERY);
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // What was read is written already.
        pause.tick().await;
        loop {
            self.announce();
            pause.tick().await;
            let counted = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || counted.write()).await {
                tracing::error!(%error, "writing down what was counted for reports panicked");
            }
        }
    }

    /// Memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        lock(&self.0.sessions).bytes() + lock(&self.0.messages).bytes()
    }

    fn announce(&self) {
        let (sessions, messages) = (lock(&self.0.sessions).lost(), lock(&self.0.messages).lost());
        for (what, Lost { untold, unlisted }) in [("tls", sessions), ("dmarc", messages)] {
            ::metrics::gauge!("mailraft_feedback_lost", "what" => what, "how" => "untold").set(untold as f64);
            ::metrics::gauge!("mailraft_feedback_lost", "what" => what, "how" => "unlisted").set(unlisted as f64);
        }
        ::metrics::gauge!("mailraft_feedback_bytes").set(self.bytes() as f64);
    }
}

impl Default for Counted {
    fn default() -> Self {
        Counted(Arc::new(Inner {
            clock: Box::new(|| 0),
            file: None,
            counts_tls: AtomicBool::default(),
            counts_dmarc: AtomicBool::default(),
            sessions: Mutex::default(),
            messages: Mutex::default(),
            asked: Mutex::default(),
        }))
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
