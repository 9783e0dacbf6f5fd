//! Who gets the places for sending. A server that does not answer keeps a place for minutes, and whoever sends to many such
//! servers would have all of them: so a sender has never more than half of what is free beside his own, and some places are for
//! servers that were quick lately.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// Whoever has something sent, as a number: an account by its name, what another server sends on through an address of this
/// cluster's by that address, what is our own as nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sender(u64);

impl Sender {
    /// Of who was logged in and the address that forwards to the recipient.
    pub fn of(identity: Option<&str>, forwarded_by: Option<&str>) -> Self {
        let Some(name) = identity.or(forwarded_by) else { return Sender(0) };
        let digest: [u8; 32] = Sha256::digest(name.to_ascii_lowercase().as_bytes()).into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        Sender(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// What is known of how fast a domain's servers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// The last attempt was answered and over soon.
    Quick,
    /// It was not, or there was none lately.
    Unproved,
}

/// Places for sending, and who has them.
#[derive(Clone, Debug)]
pub struct Places {
    all: usize,
    /// Those of them that only what is quick gets.
    kept: usize,
    taken: BTreeMap<(Pace, Sender), usize>,
    quick: usize,
    unproved: usize,
}

impl Places {
    /// So many, of which so many are kept for what is quick.
    pub fn new(all: usize, kept: usize) -> Self {
        Places { all, kept: kept.min(all), taken: BTreeMap::new(), quick: 0, unproved: 0 }
    }

    /// Whether nobody gets one.
    pub fn is_full(&self) -> bool {
        self.quick + self.unproved >= self.all
    }

    /// Whether a sender gets one: while he has less than half as many of this pace as are free. So the first one of a sender is
    /// free for as long as any is, and of `n` senders who want all there are, each gets one in `n + 2`.
    pub fn has_room(&self, sender: Sender, pace: Pace) -> bool {
        let free = self.all.saturating_sub(self.quick + self.unproved);
        let free = match pace {
            Pace::Quick => free,
            Pace::Unproved => free.min((self.all - self.kept).saturating_sub(self.unproved)),
        };
        let own = self.taken.get(&(pace, sender)).copied().unwrap_or(0);
        own.saturating_mul(2) < free
    }

    /// One is taken.
    ///
    /// # Panics
    /// If there was no room.
    pub fn take(&mut self, sender: Sender, pace: Pace) {
        assert!(self.has_room(sender, pace), "a place is taken where there is room");
        *self.taken.entry((pace, sender)).or_default() += 1;
        *self.of(pace) += 1;
    }

    /// One that was taken is free again.
    ///
    /// # Panics
    /// If it was not taken.
    pub fn leave(&mut self, sender: Sender, pace: Pace) {
        let left = self.taken.get_mut(&(pace, sender)).map(|taken| {
            *taken -= 1;
            *taken
        });
        assert!(left.is_some(), "a place is left that was taken");
        if left == Some(0) {
            self.taken.remove(&(pace, sender));
        }
        *self.of(pace) -= 1;
    }

    fn of(&mut self, pace: Pace) -> &mut usize {
        match pace {
            Pace::Quick => &mut self.quick,
            Pace::Unproved => &mut self.unproved,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(number: usize) -> Sender {
        Sender::of(Some(&format!("a{number}@here.test")), None)
    }

    /// What each of so many senders gets who take turns until nobody gets more.
    fn shares(places: &mut Places, senders: usize, pace: Pace) -> Vec<usize> {
        let mut shares = vec![0; senders];
        loop {
            let before = shares.clone();
            for (number, share) in shares.iter_mut().enumerate() {
                if places.has_room(account(number), pace) {
                    places.take(account(number), pace);
                    *share += 1;
                }
            }
            if before == shares {
                return shares;
            }
        }
    }

    #[test]
    fn whoever_wants_all_places_leaves_some_to_others_and_to_what_is_quick() {
        for (senders, largest) in [(1, 16), (2, 12), (3, 10), (10, 4), (22, 2)] {
            let mut places = Places::new(64, 16);
            let shares = shares(&mut places, senders, Pace::Unproved);
            assert_eq!(shares.iter().max(), Some(&largest), "{senders} senders: {shares:?}");
            assert!(places.has_room(account(99), Pace::Unproved), "{senders} senders: another one gets a place");
            assert!(places.has_room(account(0), Pace::Quick), "his own mail to quick servers leaves beside it");
        }
        // However many they are, what is kept is not theirs.
        let mut places = Places::new(64, 16);
        assert_eq!(shares(&mut places, 1_000, Pace::Unproved).iter().sum::<usize>(), 48);
        assert!(!places.has_room(account(2_000), Pace::Unproved) && places.has_room(account(2_000), Pace::Quick));
    }

    #[test]
    fn what_is_quick_may_have_all_places_and_each_that_is_left_is_free_again() {
        let mut places = Places::new(4, 1);
        assert_eq!(shares(&mut places, 9, Pace::Quick), [1, 1, 1, 1, 0, 0, 0, 0, 0]);
        assert!(places.is_full() && !places.has_room(account(9), Pace::Quick));
        assert!(!places.has_room(account(9), Pace::Unproved));
        (0..4).for_each(|number| places.leave(account(number), Pace::Quick));
        assert!(places.taken.is_empty() && !places.is_full());
        assert_eq!(shares(&mut places, 9, Pace::Unproved).iter().sum::<usize>(), 3);
    }

    #[test]
    fn a_sender_is_an_account_or_the_address_that_forwards() {
        assert_eq!(Sender::of(Some("A@here.test"), Some("x@here.test")), Sender::of(Some("a@here.test"), None));
        assert_ne!(Sender::of(None, Some("x@here.test")), Sender::of(None, Some("y@here.test")));
        assert_eq!(Sender::of(None, None), Sender::default());
    }
}
