//! Faults that tests plant into what the simulator does in the place of a shell, to see that they are found; in no release.

mailraft_storage::plants! {
    /// A snapshot leaves the table of commands out.
    SnapshotWithoutCommands,
    /// A snapshot's rows are read after its position.
    SnapshotRowsNewer,
    /// A snapshot leaves the floor of kept results out.
    SnapshotWithoutFloor,
    /// A snapshot leaves what was expunged out.
    SnapshotWithoutHistory,
    /// A snapshot leaves the deliveries that are remembered out.
    SnapshotWithoutDeliveries,
    /// A snapshot leaves the rows out that say which staged changes count.
    SnapshotWithoutStages,
    /// A snapshot leaves the pages of flags out.
    SnapshotWithoutPages,
    /// A snapshot leaves the uploads that are open out.
    SnapshotWithoutUploads,
    /// A snapshot leaves the answers out that are kept for repeats.
    SnapshotWithoutRepeats,
    /// The last octet of a message is let go without a look whether this node still leads.
    LetGoUnconfirmed,
    /// What has the null reverse-path is reported to the postmaster.
    NullPathTold,
}
