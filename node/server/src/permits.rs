//! A number of permits that a reload may change.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits; clones share them.
#[derive(Clone)]
pub struct Permits {
    semaphore: Arc<Semaphore>,
    size: Arc<Mutex<usize>>,
}

impl Permits {
    /// So many.
    pub fn new(size: usize) -> Self {
        let size = within(size);
        Permits { semaphore: Arc::new(Semaphore::new(size)), size: Arc::new(Mutex::new(size)) }
    }

    /// So many from now on. What was given out beyond them is taken back as it is returned.
    pub fn resize(&self, size: usize) {
        let size = within(size);
        let mut now = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        if size > *now {
            self.semaphore.add_permits(size - *now);
        } else {
            let surplus = *now - size;
            let given_out = (surplus - self.semaphore.forget_permits(surplus)) as u32;
            if given_out > 0 {
                let semaphore = Arc::clone(&self.semaphore);
                tokio::spawn(async move {
                    // As they come back, before anybody else's turn.
                    if let Ok(permits) = semaphore.acquire_many(given_out).await {
                        permits.forget();
                    }
                });
            }
        }
        *now = size;
    }

    /// How many are given out.
    pub fn taken(&self) -> usize {
        let size = *self.size.lock().unwrap_or_else(PoisonError::into_inner);
        size.saturating_sub(self.semaphore.available_permits())
    }

    /// So many, if they are there.
    pub fn try_take(&self, permits: u32) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.semaphore).try_acquire_many_owned(permits).ok()
    }

    /// So many, in the order of asking; or all there are, if that is less.
    pub async fn take(&self, permits: u32) -> Option<OwnedSemaphorePermit> {
        let all = *self.size.lock().unwrap_or_else(PoisonError::into_inner);
        let permits = permits.min(u32::try_from(all).unwrap_or(u32::MAX));
        Arc::clone(&self.semaphore).acquire_many_owned(permits).await.ok()
    }
}

fn within(size: usize) -> usize {
    size.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn more_are_there_at_once_and_fewer_as_they_come_back() {
        let permits = Permits::new(2);
        let first = permits.take(2).await.unwrap();
        assert!(permits.try_take(1).is_none());
        permits.resize(3);
        let second = permits.try_take(1).unwrap();
        permits.resize(1);
        tokio::task::yield_now().await;
        assert!(permits.try_take(1).is_none());
        drop(second);
        drop(first);
        // The one that is left comes behind what is taken back.
        let left = permits.take(5).await.unwrap();
        assert!(permits.try_take(1).is_none());
        drop(left);
        assert!(permits.try_take(1).is_some() && permits.try_take(2).is_none());
    }
}
