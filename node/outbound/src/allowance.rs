//! How much an account may send to other domains: whoever guessed its password, or has its owner's machine, is bounded before
//! others stop taking mail from this server. In memory alone, of what one node takes.

use std::collections::BTreeMap;

/// So many accounts are counted; where there are more, the one that has most left is forgotten.
pub const ACCOUNTS_MAX: usize = 100_000;
/// A recipient costs so much, and an hour gives back so much for each that is allowed in it.
const RECIPIENT: i64 = HOUR_MS;
const HOUR_MS: i64 = 3_600_000;

/// What accounts have left.
#[derive(Debug)]
pub struct Allowances {
    of: BTreeMap<String, Left>,
    most: usize,
}

/// What one has left, as of when, in parts of a recipient.
#[derive(Clone, Copy, Debug)]
struct Left {
    parts: i64,
    as_of_ms: u64,
}

impl Default for Allowances {
    fn default() -> Self {
        Allowances::new(ACCOUNTS_MAX)
    }
}

impl Allowances {
    /// Of so many accounts.
    pub fn new(most: usize) -> Self {
        Allowances { of: BTreeMap::new(), most: most.max(1) }
    }

    /// An account sends to so many recipients, where it may send to `per_hour` in an hour, and as many at once. A message counts
    /// whole or not at all: the last one may go beyond what is left, which is made up for by waiting.
    ///
    /// # Errors
    /// After how many seconds it may again.
    pub fn take(&mut self, account: &str, recipients: u32, per_hour: u32, now_ms: u64) -> Result<(), u64> {
        let (per_hour, most) = (i64::from(per_hour.max(1)), i64::from(per_hour.max(1)) * RECIPIENT);
        let parts = self.of.get(account).map_or(most, |left| left.now(per_hour, now_ms));
        if parts < RECIPIENT {
            let missing_ms = u64::try_from(RECIPIENT - parts).unwrap_or(0).div_ceil(per_hour.unsigned_abs());
            return Err(missing_ms.div_ceil(1_000).max(1));
        }
        let left = Left { parts: parts - i64::from(recipients) * RECIPIENT, as_of_ms: now_ms };
        if self.of.insert(account.to_owned(), left).is_none() && self.of.len() > self.most {
            self.forget(account, per_hour, now_ms);
        }
        Ok(())
    }

    /// Makes room for one that came.
    fn forget(&mut self, came: &str, per_hour: i64, now_ms: u64) {
        self.of.retain(|account, left| account == came || left.now(per_hour, now_ms) < per_hour * RECIPIENT);
        if self.of.len() > self.most {
            let others = self.of.iter().filter(|(account, _)| account.as_str() != came);
            let most = others.max_by_key(|(_, left)| left.now(per_hour, now_ms)).map(|(account, _)| account.clone());
            most.into_iter().for_each(|account| {
                self.of.remove(&account);
            });
        }
    }
}

impl Left {
    /// In a millisecond as many parts come back as recipients are allowed in an hour.
    fn now(self, per_hour: i64, now_ms: u64) -> i64 {
        let passed_ms = i64::try_from(now_ms.saturating_sub(self.as_of_ms)).unwrap_or(i64::MAX);
        self.parts.saturating_add(passed_ms.saturating_mul(per_hour)).min(per_hour * RECIPIENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    #[test]
    fn an_account_sends_so_much_at_once_and_then_as_much_as_comes_back() {
        let mut all = Allowances::default();
        for _ in 0..6 {
            assert_eq!(all.take("a", 10, 60, 0), Ok(()));
        }
        assert_eq!(all.take("a", 1, 60, 0), Err(60), "one a minute comes back");
        assert_eq!(all.take("b", 1, 60, 0), Ok(()), "another account has its own");
        assert_eq!(all.take("a", 1, 60, MINUTE_MS - 1), Err(1));
        assert_eq!(all.take("a", 1, 60, MINUTE_MS), Ok(()));
        assert_eq!(all.take("a", 1, 60, MINUTE_MS), Err(60));
        // An hour later it has all of it, and in a day no more than that.
        assert_eq!(all.take("a", 60, 60, 25 * 60 * MINUTE_MS), Ok(()));
        assert_eq!(all.take("a", 1, 60, 25 * 60 * MINUTE_MS), Err(60));
    }

    #[test]
    fn a_message_to_more_than_are_left_goes_once_and_is_made_up_for() {
        let mut all = Allowances::default();
        assert_eq!(all.take("a", 100, 10, 0), Ok(()));
        assert_eq!(all.take("a", 1, 10, 0), Err((100 - 10 + 1) * 360));
        // A clock that is set back gives nothing, and less that is allowed counts at once.
        assert_eq!(all.take("b", 1, 10, HOUR_MS.unsigned_abs()), Ok(()));
        assert_eq!(all.take("b", 9, 10, 0), Ok(()));
        assert!(all.take("b", 1, 10, 0).is_err());
    }

    #[test]
    fn so_many_accounts_are_counted_and_who_has_used_most_is_not_forgotten() {
        let mut all = Allowances::new(3);
        for (account, recipients) in [("a", 10), ("b", 2), ("c", 5), ("d", 1), ("e", 3)] {
            assert_eq!(all.take(account, recipients, 10, 0), Ok(()));
            assert!(all.of.len() <= 3);
        }
        assert!(all.take("a", 1, 10, 0).is_err(), "it is still counted");
        assert_eq!(all.of.keys().map(String::as_str).collect::<Vec<_>>(), ["a", "c", "e"]);
    }
}
