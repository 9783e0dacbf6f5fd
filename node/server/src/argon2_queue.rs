//! Turns at Argon2: so many at once, and those who wait are served network by network, so that nobody waits for
//! a thousand of another's. Each turn has the memory that it computes in, used again by the next.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mailraft_directory::password::Memory;
use tokio::sync::oneshot;

use crate::places::Network;

/// Those that may wait, in all and of one network.
const WAITING_MAX: usize = 10_000;
const WAITING_OF_ONE_MAX: usize = WAITING_MAX / 4;

/// A queue for Argon2; clones share it.
#[derive(Clone)]
pub struct Argon2Queue {
    state: Arc<Mutex<State>>,
}

struct State {
    at_once: usize,
    taken: usize,
    waiting: HashMap<Network, VecDeque<oneshot::Sender<Turn>>>,
    /// Networks in which somebody waits, the next one first.
    order: VecDeque<Network>,
    count: usize,
    memories: Vec<Memory>,
}

/// Somebody's turn, until it is dropped.
pub struct Turn {
    queue: Option<Argon2Queue>,
    memory: Memory,
}

impl Argon2Queue {
    /// So many at once.
    pub fn new(at_once: usize) -> Self {
        let (waiting, order, memories) = (HashMap::new(), VecDeque::new(), Vec::new());
        let state = State { at_once: at_once.max(1), taken: 0, waiting, order, count: 0, memories };
        Argon2Queue { state: Arc::new(Mutex::new(state)) }
    }

    /// So many at once from now on.
    pub fn resize(&self, at_once: usize) {
        let mut state = self.state();
        state.at_once = at_once.max(1);
        state.memories.clear();
        self.go_on(state);
    }

    /// Turns that have memory: those taken, and those kept for the next.
    pub fn memories(&self) -> usize {
        let state = self.state();
        state.taken + state.memories.len()
    }

    /// The next turn of this network; None if too many wait.
    pub async fn take(&self, network: Network) -> Option<Turn> {
        let turn = {
            let mut state = self.state();
            let of_one = state.waiting.get(&network).map_or(0, VecDeque::len);
            if state.count >= WAITING_MAX || of_one >= WAITING_OF_ONE_MAX {
                return None;
            }
            let (told, turn) = oneshot::channel();
            if of_one == 0 {
                state.order.push_back(network);
            }
            state.waiting.entry(network).or_default().push_back(told);
            state.count += 1;
            self.go_on(state);
            turn
        };
        turn.await.ok()
    }

    /// Gives turns to whoever waits, as long as there are some.
    fn go_on(&self, mut state: MutexGuard<'_, State>) {
        while state.taken < state.at_once {
            let Some(network) = state.order.pop_front() else { return };
            let Some(waiting) = state.waiting.get_mut(&network) else { continue };
            let told = waiting.pop_front();
            match waiting.is_empty() {
                true => drop(state.waiting.remove(&network)),
                false => state.order.push_back(network),
            }
            let Some(told) = told else { continue };
            state.count -= 1;
            let memory = state.memories.pop().unwrap_or_default();
            state.taken += 1;
            if let Err(mut turn) = told.send(Turn { queue: Some(self.clone()), memory }) {
                // Nobody waits for it any more. Its end must not be heard here, under the lock.
                turn.queue = None;
                state.taken -= 1;
                state.memories.push(std::mem::take(&mut turn.memory));
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// What it computes in.
    pub fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.queue.take() else { return };
        let mut state = turns.state();
        state.taken -= 1;
        if state.memories.len() < state.at_once {
            state.memories.push(std::mem::take(&mut self.memory));
        }
        turns.go_on(state);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn network(last: u8) -> Network {
        Network::of([192, 0, 2, last].into())
    }

    #[tokio::test]
    async fn who_comes_late_from_elsewhere_waits_for_one_and_not_for_a_thousand() {
        let turns = Argon2Queue::new(1);
        let first = turns.take(network(1)).await.unwrap();
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for last in std::iter::repeat_n(1, 1_000).chain([2]) {
            let (waits, served) = (turns.clone(), Arc::clone(&served));
            tasks.push(tokio::spawn(async move {
                let turn = waits.take(network(last)).await.unwrap();
                served.lock().unwrap().push(last);
                drop(turn);
            }));
            tokio::task::yield_now().await;
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        let at = served.lock().unwrap().iter().position(|last| *last == 2).unwrap();
        assert!(at <= 1, "served as number {at}");
    }

    #[tokio::test]
    async fn who_waits_no_more_keeps_no_turn_and_waiting_is_bounded() {
        let turns = Argon2Queue::new(1);
        let first = turns.take(network(1)).await.unwrap();
        let gone = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(network(1)).await.map(drop) }
        });
        tokio::task::yield_now().await;
        gone.abort();
        let _ = gone.await;
        drop(first);
        let second = turns.take(network(1)).await.unwrap();
        let taken_and_waiting = || {
            let now = turns.state();
            (now.taken, now.count)
        };
        assert_eq!(taken_and_waiting(), (1, 0));
        let mut waiting: Vec<_> = (0..WAITING_OF_ONE_MAX)
            .map(|_| {
                let turns = turns.clone();
                tokio::spawn(async move { turns.take(network(3)).await.is_some() })
            })
            .collect();
        while turns.state().count < WAITING_OF_ONE_MAX {
            tokio::task::yield_now().await;
        }
        assert!(turns.take(network(3)).await.is_none());
        turns.resize(2);
        drop(second);
        assert!(waiting.pop().unwrap().await.unwrap());
    }
}
