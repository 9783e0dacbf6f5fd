//! Places for client sessions: how many there may be, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts sessions.
#[derive(Clone, Default)]
pub struct SessionLimits {
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place for one session, free again when dropped.
pub struct Place {
    limits: SessionLimits,
    address: IpAddr,
}

impl SessionLimits {
    /// Sessions that have a place.
    pub fn open(&self) -> usize {
        self.counts().all
    }

    /// A place for a session from this address, if there is one.
    pub fn enter(&self, address: IpAddr, all_max: usize, by_address_max: usize) -> Option<Place> {
        let mut counts = self.counts();
        let of = counts.by_address.get(&address).copied().unwrap_or(0);
        if counts.all >= all_max || of >= by_address_max {
            return None;
        }
        counts.all += 1;
        counts.by_address.insert(address, of + 1);
        ::metrics::gauge!("mailraft_sessions").set(counts.all as f64);
        Some(Place { limits: self.clone(), address })
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.limits.counts();
        counts.all -= 1;
        ::metrics::gauge!("mailraft_sessions").set(counts.all as f64);
        match counts.by_address.get_mut(&self.address) {
            Some(1) | None => {
                counts.by_address.remove(&self.address);
            }
            Some(n) => *n -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_by_address_and_come_back() {
        let limits = SessionLimits::default();
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = limits.enter(a, 3, 2);
        let second = limits.enter(a, 3, 2);
        assert!(first.is_some() && second.is_some());
        assert!(limits.enter(a, 3, 2).is_none(), "by address");
        let third = limits.enter(b, 3, 2);
        assert!(third.is_some());
        assert!(limits.enter(b, 3, 2).is_none(), "in all");
        drop(first);
        assert!(limits.enter(a, 3, 2).is_some());
    }
}
