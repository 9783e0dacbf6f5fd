//! How what takes long lets others have their turn.

use std::future::Future;

/// Whoever has something computed in pieces.
pub trait Breath: Send {
    /// Why it does not go on.
    type Error;

    /// Called every few microseconds of computing: others get their turn now and then.
    ///
    /// # Errors
    /// If it must not go on.
    fn breathe(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
