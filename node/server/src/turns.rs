//! Who computes, and when: commands that take long share part of the processors, in turn by account, and everything else
//! has the rest to itself.
//!
//! A command says every millisecond or few that others may have their turn ([`Turn::breathe`]), and when it reads much
//! ([`Turn::reads`]), which others compute for it. As long as its account has computed little lately that costs nothing.
//! After that it computes in slices of [`SLICE_MAX`] under a permit, of which there are fewer than processors, and waits for
//! the next one behind whoever came before it. An account has one place in that queue, however many sessions it has. Where
//! the machine is so busy that timers come late, who has a permit rests before each slice, the longer the later they come:
//! others' commands need little, and need it now.
//!
//! What a session computes is the time within the polls of its task ([`Turn::polled`]): a client that reads slowly takes
//! nobody's time, and keeps no permit.
//!
//! A change of many messages costs where its rows are applied, on every node, and others' entries wait there behind it: it
//! comes in parts, and each part has its turn in the same way ([`Writer::writes`]).

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use mailraft_protocol::Refusal;
use mailraft_storage::MailboxId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So long a command computes before others get their turn.
const SLICE_MAX: Duration = Duration::from_millis(4);
/// A read that takes longer waits for something, and keeps no permit for that.
const READ_HOLDS_MAX: Duration = Duration::from_millis(50);
/// What others compute for an answer: reading, opening and sealing its bytes, and handing them from node to node.
const READ_COMPUTES_PER_MIB: Duration = Duration::from_millis(20);
/// What it costs to seal, log and apply one row, on all nodes together.
const ROW_COMPUTES: Duration = Duration::from_micros(60);
/// An entry with no more rows for each of its commands is no large change, and waits for nobody.
const ROWS_OF_A_COMMAND_LIGHT_MAX: usize = 64;
/// So much an account computes without a permit, and so much of each second it gets back.
const LIGHT_MAX: Duration = Duration::from_millis(50);
const LIGHT_PER_SECOND: f64 = 0.02;
/// How late timers come is looked at so often.
const WATCHED_EVERY: Duration = Duration::from_millis(10);
/// Timers that come later than this tell of a busy machine; on any other they are up to a millisecond or two late.
const LATE: Duration = Duration::from_millis(2);
/// Before a slice its command rests so many times as long as timers are late, and no longer than [`RESTS_MAX`].
const RESTS_TIMES: u32 = 8;
const RESTS_MAX: Duration = Duration::from_millis(200);
/// So long one command may compute, with its waiting not counted.
pub const COMMAND_COMPUTES_MAX: Duration = Duration::from_secs(60);
/// Accounts that are remembered before those that no session has any more are looked for.
const ACCOUNTS_MIN: usize = 1_000;

/// The turns of a node.
#[derive(Clone)]
pub struct Turns(Arc<Shared>);

struct Shared {
    clock: fn() -> Instant,
    permits: Arc<Semaphore>,
    /// For owners that decide what takes long, as many as there are permits.
    deciding: Arc<Semaphore>,
    accounts: Mutex<Accounts>,
    /// How late timers come of late, in microseconds.
    late_us: AtomicU64,
}

#[derive(Default)]
struct Accounts {
    of: HashMap<MailboxId, Weak<Account>>,
    /// When there are so many, those that are nobody's are dropped.
    swept_at: usize,
}

/// What the sessions of one account share.
struct Account {
    /// Its one place in the queue.
    place: Arc<Semaphore>,
    light: Mutex<Light>,
}

/// What may still be computed without a permit, as of `since`.
struct Light {
    left: Duration,
    since: Instant,
}

/// One session's share; clones share it.
#[derive(Clone)]
pub struct Turn {
    turns: Turns,
    state: Arc<Mutex<State>>,
}

struct State {
    account: Arc<Account>,
    /// From here on what is computed is not counted yet.
    counted: Instant,
    /// What the command has computed in all.
    computed: Duration,
    held: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
    /// Others compute for it.
    reading: bool,
}

/// What a mailbox writes, as a share of its account.
#[derive(Clone)]
pub struct Writer {
    turns: Turns,
    account: Arc<Account>,
}

/// A session's task.
pub struct Polled<F> {
    turn: Turn,
    session: Pin<Box<F>>,
}

impl Turns {
    /// So many permits: half of the processors, or one.
    pub fn of_this_machine() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Turns::new((processors / 2).max(1), Instant::now)
    }

    fn new(permits: usize, clock: fn() -> Instant) -> Self {
        let (permits, deciding) = (Arc::new(Semaphore::new(permits)), Arc::new(Semaphore::new(permits)));
        Turns(Arc::new(Shared { clock, permits, deciding, accounts: Mutex::default(), late_us: AtomicU64::new(0) }))
    }

    /// Watches how busy the machine is, for ever.
    pub async fn watch(self) {
        loop {
            let begun = self.now();
            tokio::time::sleep(WATCHED_EVERY).await;
            self.timer_came(self.now().duration_since(begun).saturating_sub(WATCHED_EVERY));
        }
    }

    /// A session's share.
    pub fn session(&self) -> Turn {
        // Whoever is not logged in has no account: all of these share one.
        let state = State {
            account: self.account(MailboxId([0; 16])),
            counted: self.now(),
            computed: Duration::ZERO,
            held: None,
            reading: false,
        };
        Turn { turns: self.clone(), state: Arc::new(Mutex::new(state)) }
    }

    /// What this mailbox writes.
    pub fn writer(&self, mailbox: MailboxId) -> Writer {
        Writer { turns: self.clone(), account: self.account(mailbox) }
    }

    /// Nobody decides what takes long until this is dropped.
    #[cfg(test)]
    pub fn hold_deciding(&self) -> OwnedSemaphorePermit {
        let all = u32::try_from(self.0.deciding.available_permits()).unwrap();
        Arc::clone(&self.0.deciding).try_acquire_many_owned(all).unwrap()
    }

    fn now(&self) -> Instant {
        (self.0.clock)()
    }

    /// A timer came so late: one counts for a quarter.
    fn timer_came(&self, late: Duration) {
        let late_us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        let before = self.0.late_us.load(Ordering::Relaxed);
        self.0.late_us.store(before - before / 4 + late_us / 4, Ordering::Relaxed);
    }

    /// How long to rest before a slice.
    fn rests(&self) -> Duration {
        let late = Duration::from_micros(self.0.late_us.load(Ordering::Relaxed));
        if late <= LATE { Duration::ZERO } else { (late * RESTS_TIMES).min(RESTS_MAX) }
    }

    fn account(&self, mailbox: MailboxId) -> Arc<Account> {
        let mut accounts = self.0.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if accounts.of.len() > accounts.swept_at.max(ACCOUNTS_MIN) {
            accounts.of.retain(|_, account| account.strong_count() > 0);
            accounts.swept_at = 2 * accounts.of.len();
        }
        if let Some(account) = accounts.of.get(&mailbox).and_then(Weak::upgrade) {
            return account;
        }
        let light = Mutex::new(Light { left: LIGHT_MAX, since: self.now() });
        let account = Arc::new(Account { place: Arc::new(Semaphore::new(1)), light });
        accounts.of.insert(mailbox, Arc::downgrade(&account));
        account
    }
}

impl Turn {
    /// The task of the session whose share this is.
    pub fn polled<F: Future>(&self, session: F) -> Polled<F> {
        Polled { turn: self.clone(), session: Box::pin(session) }
    }

    /// From now on it is this account's.
    pub fn belongs_to(&self, mailbox: MailboxId) {
        let account = self.turns.account(mailbox);
        self.state().account = account;
    }

    /// A command begins.
    pub fn begin_command(&self) {
        let mut state = self.state();
        state.count(self.turns.now());
        state.computed = Duration::ZERO;
    }

    /// Others may have their turn.
    ///
    /// # Errors
    /// [`Refusal::Limit`] if the command has computed for [`COMMAND_COMPUTES_MAX`].
    pub async fn breathe(&self) -> Result<(), Refusal> {
        {
            let (mut state, now) = (self.state(), self.turns.now());
            let slice = now.saturating_duration_since(state.counted);
            if slice < SLICE_MAX && (state.held.is_some() || slice < state.account.light().left) {
                return Ok(());
            }
            state.count(now);
            state.held = None;
        }
        self.may_go_on()?;
        let heavy = self.state().is_heavy();
        if heavy {
            self.wait_for_permit().await;
        } else {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Waits for an answer that may be large: others compute for it, the more the more bytes it has.
    ///
    /// # Errors
    /// As [`Turn::breathe`].
    pub async fn reads<F: Future>(
        &self,
        reading: F,
        bytes: impl Fn(&F::Output) -> usize,
    ) -> Result<F::Output, Refusal> {
        let begun = self.turns.now();
        self.state().count(begun);
        self.may_go_on()?;
        let needs_permit = {
            let state = self.state();
            state.is_heavy() && state.held.is_none()
        };
        if needs_permit {
            self.wait_for_permit().await;
        }
        self.state().reading = true;
        tokio::pin!(reading);
        let read = tokio::select! {
            biased;
            read = &mut reading => read,
            () = tokio::time::sleep(READ_HOLDS_MAX) => {
                self.state().held = None;
                reading.await
            }
        };
        let now = self.turns.now();
        let mut state = self.state();
        state.reading = false;
        state.spend(now, READ_COMPUTES_PER_MIB.mul_f64(bytes(&read) as f64 / f64::from(1 << 20)));
        Ok(read)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_go_on(&self) -> Result<(), Refusal> {
        if self.state().computed < COMMAND_COMPUTES_MAX {
            return Ok(());
        }
        ::metrics::counter!("mailraft_commands_stopped_total").increment(1);
        Err(Refusal::Limit("this takes too much computing; ask for less at once".into()))
    }

    async fn wait_for_permit(&self) {
        let begun = self.turns.now();
        let place = Arc::clone(&self.state().account.place);
        let permits = &self.turns.0.permits;
        // A runtime's yield comes behind all that is woken meanwhile, so none where somebody waits for the permit.
        let nobody_waits = place.available_permits() > 0 && permits.available_permits() > 0;
        let place = place.acquire_owned().await;
        let permit = Arc::clone(permits).acquire_owned().await;
        if nobody_waits {
            tokio::task::yield_now().await;
        }
        let rests = self.turns.rests();
        if !rests.is_zero() {
            tokio::time::sleep(rests).await;
        }
        let now = self.turns.now();
        ::metrics::histogram!("mailraft_turn_wait_seconds").record(now.duration_since(begun).as_secs_f64());
        let mut state = self.state();
        // Nobody closes them.
        state.held = place.ok().zip(permit.ok());
        state.counted = now;
    }
}

impl Writer {
    /// Carries out an entry of so many rows and commands, which may wait for its turn before.
    pub async fn writes<F: Future>(&self, rows: usize, commands: usize, proposing: impl FnOnce() -> F) -> F::Output {
        if rows <= ROWS_OF_A_COMMAND_LIGHT_MAX * commands.max(1) {
            return proposing().await;
        }
        let cost = ROW_COMPUTES * u32::try_from(rows).unwrap_or(u32::MAX);
        let permit = if self.spends(cost) { self.wait_for_permit().await } else { None };
        let proposed = proposing();
        tokio::pin!(proposed);
        tokio::select! {
            biased;
            outcome = &mut proposed => outcome,
            // It waits for others: a majority, say.
            () = tokio::time::sleep(READ_HOLDS_MAX) => {
                drop(permit);
                proposed.await
            }
        }
    }

    /// Whose turn it is to decide what takes long: whoever comes first. Not one of the permits, with which a session may
    /// wait for what is decided.
    pub async fn decides(&self) -> Option<OwnedSemaphorePermit> {
        // Nobody closes it.
        Arc::clone(&self.turns.0.deciding).acquire_owned().await.ok()
    }

    /// Whether the account has nothing left after this.
    fn spends(&self, cost: Duration) -> bool {
        let mut light = self.account.light();
        light.spend(self.turns.now(), cost);
        light.left.is_zero()
    }

    async fn wait_for_permit(&self) -> Option<OwnedSemaphorePermit> {
        let begun = self.turns.now();
        // Nobody closes them. No rest beside that: a change has hundreds of parts, and its client waits for the last.
        let permit = Arc::clone(&self.turns.0.permits).acquire_owned().await.ok();
        let waited = self.turns.now().duration_since(begun);
        ::metrics::histogram!("mailraft_turn_wait_seconds").record(waited.as_secs_f64());
        permit
    }
}

impl State {
    /// Its account has computed so much lately that it needs a permit.
    fn is_heavy(&self) -> bool {
        self.account.light().left < SLICE_MAX
    }

    /// Counts what was computed since it was last counted.
    fn count(&mut self, now: Instant) {
        let spent = now.saturating_duration_since(self.counted);
        self.spend(now, spent);
    }

    fn spend(&mut self, now: Instant, spent: Duration) {
        self.account.light().spend(now, spent);
        self.computed += spent;
        self.counted = now;
    }
}

impl Account {
    fn light(&self) -> MutexGuard<'_, Light> {
        self.light.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Light {
    fn spend(&mut self, now: Instant, spent: Duration) {
        let regained = now.saturating_duration_since(self.since).mul_f64(LIGHT_PER_SECOND);
        self.left = (self.left + regained).min(LIGHT_MAX).saturating_sub(spent);
        self.since = now;
    }
}

impl<F: Future> Future for Polled<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let now = self.turn.turns.now();
        // Since it was polled last it computed nothing.
        self.turn.state().counted = now;
        let polled = self.session.as_mut().poll(cx);
        let now = self.turn.turns.now();
        let mut state = self.turn.state();
        if !state.reading {
            state.count(now);
            state.held = None;
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    thread_local! {
        static STARTED: Instant = Instant::now();
        static PASSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// A clock that shows what a test has let pass in its thread.
    fn shown() -> Instant {
        STARTED.with(|started| *started + PASSED.get())
    }

    fn passes(time: Duration) {
        PASSED.set(PASSED.get() + time);
    }

    /// Computes for so many milliseconds, saying after each that others may have their turn.
    async fn computes(turn: &Turn, milliseconds: u32) -> Result<(), Refusal> {
        for _ in 0..milliseconds {
            passes(MS);
            turn.breathe().await?;
        }
        Ok(())
    }

    /// Time passes in which it computes nothing.
    fn idle(turn: &Turn, time: Duration) {
        turn.state().count(shown());
        passes(time);
        turn.state().counted = shown();
    }

    fn holds_permit(turn: &Turn) -> bool {
        turn.state().held.is_some()
    }

    fn session_of(turns: &Turns, account: u8) -> Turn {
        let turn = turns.session();
        turn.belongs_to(MailboxId([account; 16]));
        turn.begin_command();
        turn
    }

    #[tokio::test]
    async fn a_command_that_computes_little_waits_for_nobody() {
        let turns = Turns::new(1, shown);
        let long = session_of(&turns, 1);
        computes(&long, 70).await.unwrap();
        assert!(holds_permit(&long), "it has the only permit");
        let short = session_of(&turns, 2);
        computes(&short, 40).await.unwrap();
        assert!(!holds_permit(&short));
        // After a while it may again.
        idle(&short, Duration::from_secs(3));
        short.begin_command();
        computes(&short, 40).await.unwrap();
        assert!(!holds_permit(&short));
    }

    #[tokio::test]
    async fn many_short_commands_are_one_long_one() {
        let turns = Turns::new(1, shown);
        let turn = session_of(&turns, 1);
        for _ in 0..12 {
            turn.begin_command();
            computes(&turn, 5).await.unwrap();
        }
        assert!(holds_permit(&turn));
    }

    #[tokio::test]
    async fn accounts_take_turns_however_many_sessions_they_have() {
        let turns = Turns::new(1, shown);
        let done = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for account in [1, 1, 1, 1, 1, 1, 1, 1, 2] {
            let (turn, done) = (session_of(&turns, account), Arc::clone(&done));
            turn.state().account.light().left = Duration::ZERO;
            tasks.push(tokio::spawn(turn.clone().polled(async move {
                for _ in 0..10 {
                    passes(SLICE_MAX);
                    turn.breathe().await.unwrap();
                    done.lock().unwrap().push(account);
                }
            })));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let done = done.lock().unwrap();
        let last = done.iter().rposition(|account| *account == 2).unwrap();
        let before = done[..last].iter().filter(|account| **account == 1).count();
        assert!(before <= 22, "the other account had {before} turns in the time of 10");
    }

    #[tokio::test]
    async fn a_command_that_computes_for_too_long_is_stopped_and_waiting_is_no_computing() {
        let turns = Turns::new(1, shown);
        let turn = session_of(&turns, 1);
        for _ in 0..100 {
            idle(&turn, COMMAND_COMPUTES_MAX);
            computes(&turn, 10).await.unwrap();
        }
        turn.begin_command();
        let most = u32::try_from(COMMAND_COMPUTES_MAX.as_millis()).unwrap();
        computes(&turn, most - 10).await.unwrap();
        let refused = computes(&turn, 20).await.unwrap_err();
        assert!(matches!(refused, Refusal::Limit(_)), "{refused}");
        turn.begin_command();
        computes(&turn, 10).await.unwrap();
    }

    #[tokio::test]
    async fn who_waits_for_its_client_keeps_no_permit_and_computes_nothing() {
        let turns = Turns::new(1, shown);
        let turn = session_of(&turns, 1);
        let client = Arc::new(tokio::sync::Notify::new());
        let (session, reads) = (turn.clone(), Arc::clone(&client));
        let mut task = turn.polled(async move {
            computes(&session, 70).await.unwrap();
            assert!(holds_permit(&session));
            reads.notified().await;
        });
        let waker = std::task::Waker::noop();
        while turn.state().computed < 70 * MS {
            assert!(Pin::new(&mut task).poll(&mut Context::from_waker(waker)).is_pending());
        }
        assert!(!holds_permit(&turn));
        passes(COMMAND_COMPUTES_MAX);
        client.notify_one();
        task.await;
        assert!(turn.state().computed < 80 * MS);
    }

    #[tokio::test]
    async fn a_long_read_keeps_its_permit_for_a_while_and_counts_by_its_bytes() {
        let turns = Turns::new(1, Instant::now);
        let turn = session_of(&turns, 1);
        turn.state().account.light().left = Duration::ZERO;
        let other = session_of(&turns, 2);
        other.state().account.light().left = Duration::ZERO;
        let answer = Arc::new(tokio::sync::Notify::new());
        let (reads, answered) = (turn.clone(), Arc::clone(&answer));
        let task = tokio::spawn(turn.polled(async move { reads.reads(answered.notified(), |()| 2 << 20).await }));
        while !turn.state().reading {
            tokio::task::yield_now().await;
        }
        assert!(holds_permit(&turn));
        other.polled(async { other.reads(std::future::ready(()), |()| 0).await }).await.unwrap();
        assert!(!holds_permit(&turn), "it took too long");
        answer.notify_one();
        task.await.unwrap().unwrap();
        let computed = turn.state().computed;
        assert!(computed >= 2 * READ_COMPUTES_PER_MIB && computed < 4 * READ_COMPUTES_PER_MIB, "{computed:?}");
    }

    #[tokio::test]
    async fn a_change_of_many_rows_waits_for_its_turn_and_one_of_few_does_not() {
        let turns = Turns::new(1, shown);
        let (writer, proposed) = (turns.writer(MailboxId([1; 16])), Cell::new(0));
        let propose = || async { proposed.set(proposed.get() + 1) };
        let many = 2_000;
        writer.writes(many, 0, propose).await;
        let held = Arc::clone(&turns.0.permits).acquire_owned().await.unwrap();
        let mut waits = Box::pin(writer.writes(many, 0, propose));
        assert!(waits.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
        assert_eq!(proposed.get(), 1);
        // A delivery, and many of them in one entry.
        writer.writes(9, 1, propose).await;
        writer.writes(64 * 9, 64, propose).await;
        // Another account has written nothing lately.
        turns.writer(MailboxId([2; 16])).writes(many / 4, 1, propose).await;
        assert_eq!(proposed.get(), 4);
        drop(held);
        waits.await;
        assert_eq!(proposed.get(), 5);
    }

    #[tokio::test]
    async fn a_change_that_waits_for_a_majority_keeps_no_permit() {
        let turns = Turns::new(1, shown);
        let writer = turns.writer(MailboxId([1; 16]));
        let many = 2_000;
        writer.writes(many, 0, || std::future::ready(())).await;
        let mut never = Box::pin(writer.writes(many, 0, std::future::pending::<()>));
        assert!(never.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
        assert_eq!(turns.0.permits.available_permits(), 0);
        tokio::select! {
            () = never => {}
            () = writer.writes(many, 0, || std::future::ready(())) => {}
        }
    }

    #[test]
    fn who_computes_for_long_rests_while_the_machine_is_busy() {
        let turns = Turns::new(1, shown);
        (0..100).for_each(|_| turns.timer_came(MS));
        assert_eq!(turns.rests(), Duration::ZERO);
        (0..100).for_each(|_| turns.timer_came(10 * MS));
        let rests = turns.rests();
        assert!(rests > 70 * MS && rests <= 80 * MS, "{rests:?}");
        turns.timer_came(Duration::from_secs(3_600));
        assert_eq!(turns.rests(), RESTS_MAX);
        (0..100).for_each(|_| turns.timer_came(Duration::ZERO));
        assert_eq!(turns.rests(), Duration::ZERO);
    }

    #[tokio::test]
    async fn accounts_that_are_nobodys_are_forgotten() {
        let turns = Turns::new(1, shown);
        for account in 0..(3 * ACCOUNTS_MIN as u64) {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&account.to_be_bytes());
            turns.session().belongs_to(MailboxId(id));
        }
        assert!(turns.0.accounts.lock().unwrap().of.len() <= ACCOUNTS_MIN + 1);
    }
}
