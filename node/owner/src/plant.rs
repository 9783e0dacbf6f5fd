//! Faults that tests plant into owners, to see that they are found; in no release.

mailraft_storage::plants! {
    /// A refusal is answered, and not recorded under its id.
    RefusalNotRecorded,
    /// Other commands are decided between the parts of a staged change.
    InterleaveStaged,
    /// A command that comes again is not looked up.
    RetryNotLookedUp,
    /// First attempts are not held to the floor of kept results.
    FloorNotForFirsts,
    /// Retries are not held to the floor of kept results.
    FloorNotForRetries,
}
