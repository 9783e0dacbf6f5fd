//! How much accounts may still send to other domains through this node, by its clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use mailraft_outbound::allowance::Allowances;
use mailraft_protocol::Refusal;

/// What all accounts have left; clones share it.
#[derive(Clone)]
pub struct Allowed {
    begun: Instant,
    of: Arc<Mutex<Allowances>>,
}

impl Default for Allowed {
    fn default() -> Self {
        Allowed { begun: Instant::now(), of: Arc::default() }
    }
}

impl Allowed {
    /// An account sends to so many recipients in other domains, of so many in an hour; 0 is no limit.
    ///
    /// # Errors
    /// If it has sent to too many: then they do not count.
    pub fn take(&self, account: &str, recipients: usize, per_hour: u32) -> Result<(), Refusal> {
        if per_hour == 0 || recipients == 0 {
            return Ok(());
        }
        let now_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let recipients = u32::try_from(recipients).unwrap_or(u32::MAX);
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.take(account, recipients, per_hour, now_ms).map_err(|wait_s| {
            ::metrics::counter!("mailraft_sent_too_much_total").increment(1);
            Refusal::SentTooMuch(wait_s)
        })
    }
}
