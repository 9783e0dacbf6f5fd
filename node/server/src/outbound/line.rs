//! What waits for a place among the messages that a node sends at once.

use std::collections::VecDeque;

use mailraft_mailbox::queue::places::{Pace, Places, Sender};

/// What waits, in the order in which it came, and the places. How much waits is bounded by the queues that this node leads:
/// each has so much under way.
pub struct Line<J> {
    waiting: VecDeque<(Sender, J)>,
    places: Places,
}

impl<J> Line<J> {
    /// None waits yet.
    pub fn new(places: Places) -> Self {
        Line { waiting: VecDeque::new(), places }
    }

    /// A sender's job comes.
    pub fn push(&mut self, sender: Sender, job: J) {
        self.waiting.push_back((sender, job));
    }

    /// Those that get a place now, the one that waited longest first. Each says with [`Line::left`] when it has ended.
    pub fn begin(&mut self, pace: impl Fn(&J) -> Pace) -> Vec<(Sender, Pace, J)> {
        let mut begun = Vec::new();
        let mut at = 0;
        while !self.places.is_full() {
            let Some((sender, job)) = self.waiting.get(at) else { break };
            let (sender, pace) = (*sender, pace(job));
            if !self.places.has_room(sender, pace) {
                at += 1;
                continue;
            }
            self.places.take(sender, pace);
            begun.extend(self.waiting.remove(at).map(|(sender, job)| (sender, pace, job)));
        }
        begun
    }

    /// A place is free again.
    pub fn left(&mut self, sender: Sender, pace: Pace) {
        self.places.leave(sender, pace);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SENDINGS_AT_ONCE, SENDINGS_KEPT_FOR_QUICK_ONE_IN, places};
    use super::*;

    fn account(name: &str) -> Sender {
        Sender::of(Some(name), None)
    }

    fn pace(domain: &&str) -> Pace {
        if domain.starts_with("quick") { Pace::Quick } else { Pace::Unproved }
    }

    fn names<'a>(begun: &[(Sender, Pace, &'a str)]) -> Vec<&'a str> {
        begun.iter().map(|(_, _, domain)| *domain).collect()
    }

    #[test]
    fn behind_what_hangs_other_mail_gets_a_place_of_the_node_at_once() {
        let mut line = Line::new(places(SENDINGS_AT_ONCE));
        let (hog, other) = (account("hog@here.test"), account("somebody@here.test"));
        (0..10 * SENDINGS_AT_ONCE).for_each(|_| line.push(hog, "hangs.test"));
        let hanging = line.begin(pace);
        assert_eq!(hanging.len(), (SENDINGS_AT_ONCE - SENDINGS_AT_ONCE / SENDINGS_KEPT_FOR_QUICK_ONE_IN) / 4 + 1);
        line.push(other, "new.test");
        line.push(hog, "quick.test");
        line.push(other, "quick.test");
        assert_eq!(names(&line.begin(pace)), ["new.test", "quick.test", "quick.test"]);
        // Beside somebody else he has one place less: of two that end one makes room for what waited longest.
        hanging[..2].iter().for_each(|(sender, of, _)| line.left(*sender, *of));
        assert_eq!(names(&line.begin(pace)), ["hangs.test"]);
    }

    #[test]
    fn whatever_comes_so_much_is_under_way_and_nothing_is_lost() {
        let mut line = Line::new(places(SENDINGS_AT_ONCE));
        for number in 0..3 * SENDINGS_AT_ONCE {
            line.push(account(&format!("a{number}@here.test")), "quick.test");
        }
        let mut sent = 0;
        loop {
            let begun = line.begin(pace);
            if begun.is_empty() {
                break;
            }
            assert_eq!(begun.len(), SENDINGS_AT_ONCE);
            sent += begun.len();
            begun.into_iter().for_each(|(sender, pace, _)| line.left(sender, pace));
        }
        assert_eq!(sent, 3 * SENDINGS_AT_ONCE);
    }
}
