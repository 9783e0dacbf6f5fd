//! Whose question is asked of the DNS next. A question whose domain's servers are silent takes its place for seconds, so no
//! client network, and no domain, has all of them; where some wait, the network that asks least has the next turn.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mailraft_sender_auth::Question;
use tokio::sync::oneshot;

use crate::places::Network;

/// Questions that are asked at once; more wait, within their deadline. How many wait is bounded by those who ask: of each
/// message [`OF_A_MESSAGE_MAX`] at once, and there are only so many messages on their way in.
pub const QUESTIONS_AT_ONCE: usize = 256;
/// Of these about one message.
pub const OF_A_MESSAGE_MAX: usize = 24;
/// Of these for one client network (IPv4: /24, IPv6: /48), and for mail that leaves the cluster.
pub const OF_A_NETWORK_MAX: usize = 64;
/// Of these about names below one registered domain.
pub const OF_A_DOMAIN_MAX: usize = 32;

/// For whom it is asked: a client's network, as wide as it is counted; None for mail that leaves the cluster.
pub type Asker = Option<Network>;

/// The turns of one resolver; clones share them.
#[derive(Clone, Default)]
pub struct Turns {
    table: Arc<Mutex<Table>>,
}

/// Somebody's turn, or a place in line for one: over when dropped.
pub struct Turn {
    turns: Turns,
    number: u64,
    asker: Asker,
    domain: Box<[u8]>,
}

#[derive(Default)]
struct Table {
    last: u64,
    asked: usize,
    askers: BTreeMap<Asker, usize>,
    domains: HashMap<Box<[u8]>, usize>,
    waiting: BTreeMap<Asker, Lines>,
    /// How often a turn was given to somebody who waited.
    given: u64,
}

/// Turns that are waited for, with their numbers, and what tells that they have begun.
type Line = VecDeque<(u64, oneshot::Sender<()>)>;

/// What waits for one asker.
#[derive(Default)]
struct Lines {
    /// By domain, first come first.
    of: BTreeMap<Box<[u8]>, Line>,
    /// When it was given a turn last: this was the so-manieth.
    given: u64,
}

impl Turns {
    /// Waits for a turn. Safe to cancel.
    pub async fn take(&self, asker: Asker, question: &Question) -> Turn {
        let (turn, waits) = {
            let mut table = self.table();
            table.last += 1;
            let turn = Turn { turns: self.clone(), number: table.last, asker, domain: registered(question) };
            let waits = table.begin_or_wait(&turn);
            (turn, waits)
        };
        if let Some(waits) = waits {
            // It is told before it is forgotten.
            let _ = waits.await;
        }
        turn
    }

    /// Questions that are asked now.
    #[cfg(test)]
    pub fn asked(&self) -> usize {
        self.table().asked
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut table = self.turns.table();
        if !table.leaves(self) {
            table.end(self.asker, &self.domain);
            while table.give() {}
        }
    }
}

impl Table {
    /// Begins a turn, if there is room. Else what tells that it has begun.
    fn begin_or_wait(&mut self, turn: &Turn) -> Option<oneshot::Receiver<()>> {
        // Whoever waits has no room now: it was given as soon as there was.
        if self.has_room(turn.asker, &turn.domain) {
            self.begin(turn.asker, &turn.domain);
            return None;
        }
        let (tells, waits) = oneshot::channel();
        let lines = self.waiting.entry(turn.asker).or_default();
        lines.of.entry(turn.domain.clone()).or_default().push_back((turn.number, tells));
        Some(waits)
    }

    fn has_room(&self, asker: Asker, domain: &[u8]) -> bool {
        self.asked < QUESTIONS_AT_ONCE
            && self.askers.get(&asker).is_none_or(|asked| *asked < OF_A_NETWORK_MAX)
            && self.domains.get(domain).is_none_or(|asked| *asked < OF_A_DOMAIN_MAX)
    }

    fn begin(&mut self, asker: Asker, domain: &[u8]) {
        self.asked += 1;
        *self.askers.entry(asker).or_default() += 1;
        *self.domains.entry(domain.into()).or_default() += 1;
    }

    fn end(&mut self, asker: Asker, domain: &[u8]) {
        self.asked -= 1;
        if let Some(asked) = self.askers.get_mut(&asker) {
            *asked -= 1;
            if *asked == 0 {
                self.askers.remove(&asker);
            }
        }
        if let Some(asked) = self.domains.get_mut(domain) {
            *asked -= 1;
            if *asked == 0 {
                self.domains.remove(domain);
            }
        }
    }

    /// Takes one out of its line. False if it waits no more.
    fn leaves(&mut self, turn: &Turn) -> bool {
        let Some(lines) = self.waiting.get_mut(&turn.asker) else { return false };
        let Some(line) = lines.of.get_mut(&turn.domain) else { return false };
        let Some(position) = line.iter().position(|(number, _)| *number == turn.number) else { return false };
        line.remove(position);
        self.forget_empty(turn.asker, &turn.domain);
        true
    }

    /// Gives a turn to the asker that has the fewest, and of these to the one that was given none for longest. False if
    /// nobody waits for whom there is room.
    fn give(&mut self) -> bool {
        let room = |(asker, lines): (&Asker, &Lines)| {
            // No more domains are full than there is room for.
            let domain = lines.of.keys().find(|domain| self.has_room(*asker, domain))?;
            let asked = self.askers.get(asker).copied().unwrap_or(0);
            Some((asked, lines.given, *asker, domain.clone()))
        };
        let Some((_, _, asker, domain)) = self.waiting.iter().filter_map(room).min() else { return false };
        self.given += 1;
        let Some(lines) = self.waiting.get_mut(&asker) else { return false };
        lines.given = self.given;
        let first = lines.of.get_mut(&domain).and_then(VecDeque::pop_front);
        self.forget_empty(asker, &domain);
        let Some((_, tells)) = first else { return false };
        self.begin(asker, &domain);
        // Whoever gave up meanwhile drops its turn next.
        let _ = tells.send(());
        true
    }

    fn forget_empty(&mut self, asker: Asker, domain: &[u8]) {
        let Some(lines) = self.waiting.get_mut(&asker) else { return };
        if lines.of.get(domain).is_some_and(VecDeque::is_empty) {
            lines.of.remove(domain);
        }
        if lines.of.is_empty() {
            self.waiting.remove(&asker);
        }
    }
}

/// The registered domain that a question's name is below, whatever octets the name has; of an address its network.
fn registered(question: &Question) -> Box<[u8]> {
    let name = match question {
        Question::Txt(name) | Question::Mx(name) | Question::A(name) | Question::Aaaa(name) => name,
        Question::Ptr(address) => return Network::of(*address).wide().to_string().into_bytes().into(),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    match psl::domain(name.as_bytes()) {
        Some(domain) => domain.as_bytes().into(),
        None => name.into_bytes().into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Taking = Pin<Box<dyn Future<Output = Turn>>>;

    fn network(number: u8) -> Asker {
        Some(Network::of([192, 0, number, 1].into()).wide())
    }

    fn takes(turns: &Turns, asker: Asker, name: &str) -> Taking {
        let (turns, question) = (turns.clone(), Question::Txt(name.to_owned()));
        Box::pin(async move { turns.take(asker, &question).await })
    }

    fn has(taking: &mut Taking) -> Option<Turn> {
        match taking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    /// Those of so many that have their turn at once, and the others.
    fn all(turns: &Turns, asker: Asker, names: impl Iterator<Item = String>) -> (Vec<Turn>, Vec<Taking>) {
        let (mut begun, mut waiting) = (Vec::new(), Vec::new());
        for name in names {
            let mut taking = takes(turns, asker, &name);
            match has(&mut taking) {
                Some(turn) => begun.push(turn),
                None => waiting.push(taking),
            }
        }
        (begun, waiting)
    }

    fn is_empty(turns: &Turns) -> bool {
        let table = turns.table();
        table.asked == 0 && table.askers.is_empty() && table.domains.is_empty() && table.waiting.is_empty()
    }

    #[test]
    fn a_network_a_domain_and_all_together_have_so_many_at_once() {
        let turns = Turns::default();
        let many = |number: u8| (0..100).map(move |n| format!("n{n}-{number}.test"));
        let (of_one, waiting) = all(&turns, network(1), many(1));
        assert_eq!((of_one.len(), waiting.len()), (OF_A_NETWORK_MAX, 100 - OF_A_NETWORK_MAX));
        let (of_domain, others) = all(&turns, network(2), (0..100).map(|n| format!("n{n}.silent.test")));
        assert_eq!((of_domain.len(), others.len()), (OF_A_DOMAIN_MAX, 100 - OF_A_DOMAIN_MAX));
        let more: Vec<_> = (3..9).map(|number| all(&turns, network(number), many(number))).collect();
        let begun = of_one.len() + of_domain.len() + more.iter().map(|(begun, _)| begun.len()).sum::<usize>();
        assert_eq!(begun, QUESTIONS_AT_ONCE);
        drop((others, waiting, of_one, of_domain, more));
        assert!(is_empty(&turns), "whoever gives up, waiting or not, leaves nothing behind");
    }

    #[test]
    fn who_asks_least_has_the_next_turn_and_many_that_ask_as_much_take_turns() {
        let turns = Turns::default();
        let many = |number: u8| (0..100).map(move |n| format!("n{n}-{number}.test"));
        let mut all: Vec<_> = (1..=4).map(|number| all(&turns, network(number), many(number))).collect();
        let mut newcomer = takes(&turns, network(9), "honest.test");
        assert!(has(&mut newcomer).is_none(), "all are asked");
        drop(all[0].0.pop());
        let turn = has(&mut newcomer).unwrap();
        drop(turn);
        // A fifth comes when the others have theirs.
        all.push(self::all(&turns, network(5), many(5)));
        let mut given = vec![0; 5];
        for _ in 0..64 {
            drop(all[1].0.pop());
            for (number, (_, waiting)) in all.iter_mut().enumerate() {
                if let Some(position) =
                    waiting.iter_mut().position(|taking| has(taking).map(std::mem::forget).is_some())
                {
                    drop(waiting.remove(position));
                    given[number] += 1;
                }
            }
        }
        // The first had one left to take; the fifth has as many in the end as whoever gives them up.
        assert_eq!(given, [1, 32, 0, 0, 32]);
    }

    #[test]
    fn names_are_of_the_domain_that_was_registered_whatever_octets_they_have() {
        let of = |name: &str| String::from_utf8(registered(&Question::Txt(name.to_owned())).into()).unwrap();
        assert_eq!(of("s1._domainkey.Mail.Example.CO.UK."), "example.co.uk");
        assert_eq!(of("a b\u{e4}!%{x}.evil.test"), "evil.test");
        assert_eq!(of("co.uk"), "co.uk");
        assert_eq!(
            registered(&Question::Ptr([192, 0, 2, 7].into())),
            registered(&Question::Ptr([192, 0, 2, 9].into()))
        );
    }
}
