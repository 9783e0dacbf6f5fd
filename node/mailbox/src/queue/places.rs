//! Who gets the places for sending. A server that does not answer keeps a place for minutes, and whoever sends to many such
//! servers would have all of them. So some places are for servers that were quick lately; and of the others, as of all, one half
//! is only ever a sender's first. However senders come, one after the other or in turns, whoever has none finds one at once as
//! long as fewer have some than that half is ([`Places::first_ones`]); after that he gets the next one that is left.

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

    /// So many of a pace are only ever a sender's first.
    pub fn first_ones(&self, pace: Pace) -> usize {
        let of_pace = match pace {
            Pace::Quick => self.all,
            Pace::Unproved => self.all - self.kept,
        };
        of_pace / 2
    }

    /// Whether a sender gets one. His first one of this pace he gets as long as any is free; another one only out of those that
    /// are free beyond [`Places::first_ones`], and while he has had fewer such than are left of them.
    pub fn has_room(&self, sender: Sender, pace: Pace) -> bool {
        let free = self.all.saturating_sub(self.quick + self.unproved);
        let free = match pace {
            Pace::Quick => free,
            Pace::Unproved => free.min((self.all - self.kept).saturating_sub(self.unproved)),
        };
        match self.taken.get(&(pace, sender)) {
            None => free > 0,
            Some(own) => own.saturating_sub(1) < free.saturating_sub(self.first_ones(pace)),
        }
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
    use proptest::prelude::*;

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
        for (senders, largest) in [(1, 13), (2, 9), (3, 7), (10, 3), (22, 2), (47, 1)] {
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

    /// What each of so many senders gets of whom one comes after the other and takes all that he gets.
    fn one_after_the_other(places: &mut Places, senders: usize, pace: Pace) -> Vec<usize> {
        let greedy = |number: usize| {
            let mut taken = 0;
            while places.has_room(account(number), pace) {
                places.take(account(number), pace);
                taken += 1;
            }
            taken
        };
        (0..senders).map(greedy).collect()
    }

    #[test]
    fn senders_who_come_one_after_the_other_leave_a_place_to_the_next_of_two_dozen() {
        for (all, kept, senders) in [(64, 16, 24), (32, 8, 12)] {
            let mut places = Places::new(all, kept);
            assert_eq!(places.first_ones(Pace::Unproved), senders);
            let shares = one_after_the_other(&mut places, senders, Pace::Unproved);
            assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
            assert!(places.has_room(account(99), Pace::Unproved), "the next one finds a place: {shares:?}");
            // When there are none left, the next that is free is for who has none.
            one_after_the_other(&mut places, 2 * all, Pace::Unproved);
            assert!(!places.has_room(account(999), Pace::Unproved));
            places.leave(account(0), Pace::Unproved);
            assert!(places.has_room(account(999), Pace::Unproved) && !places.has_room(account(1), Pace::Unproved));
        }
    }

    proptest! {
        #[test]
        fn whatever_came_before_who_has_none_finds_a_place_while_so_few_have_some(
            steps in prop::collection::vec((0usize..40, any::<bool>(), 0u8..4), 0..400),
            (all, kept) in prop::sample::select(vec![(64, 16), (32, 8), (8, 2), (1, 0)]),
        ) {
            let mut places = Places::new(all, kept);
            for (number, is_quick, what) in steps {
                let pace = if is_quick { Pace::Quick } else { Pace::Unproved };
                let has = |places: &Places| places.taken.contains_key(&(pace, account(number)));
                match what {
                    // One of his ends.
                    0 if has(&places) => places.leave(account(number), pace),
                    // He takes what he gets, or one.
                    1 => while places.has_room(account(number), pace) {
                        places.take(account(number), pace);
                    },
                    _ if places.has_room(account(number), pace) => places.take(account(number), pace),
                    _ => {}
                }
                prop_assert!(places.quick + places.unproved <= all && places.unproved <= all - kept);
                // Who sends to both kinds counts twice.
                let few = places.taken.len() <= places.first_ones(Pace::Unproved);
                for pace in [Pace::Quick, Pace::Unproved] {
                    prop_assert!(!few || places.has_room(account(1_000), pace), "{:?}", places);
                    // Whoever has some takes none of those that are for others.
                    let free = if pace == Pace::Quick { all - places.quick - places.unproved } else { all - kept - places.unproved };
                    let goes_on = |number| places.taken.contains_key(&(pace, account(number))) && places.has_room(account(number), pace);
                    prop_assert!(free > places.first_ones(pace) || !(0..40).any(goes_on), "{:?}", places);
                }
            }
        }
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
