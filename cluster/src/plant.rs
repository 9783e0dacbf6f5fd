//! Faults that tests plant into the core and apply, to see that they are found; in no release.

mailraft_storage::plants! {
    /// Writes count as durable, and are acknowledged, before their fsync.
    AcknowledgeBeforeFsync,
    /// Term and vote are not written to the log.
    ForgetHardState,
    /// A configuration change is applied before it is durable that it is committed.
    ApplyUnsyncedConfiguration,
    /// The read barrier passes without asking anyone.
    ReadBarrierAlwaysPasses,
    /// Reads are confirmed by the leader's lease, on its own clock, without a round.
    LeaseReads,
    /// Actors start before the first entry of the term is applied.
    StartBeforeTermApplied,
    /// An actor does not wait for its predecessor's entry in flight.
    TwoEntriesInFlight,
    /// Neither append nor apply compares the term that a proposal was decided in.
    DropTermChecks,
    /// An actor of an older term goes on answering reads.
    ReadThroughOldActor,
    /// A replica whose disk was lost comes back under its old id, and votes.
    ReplicaComesBackEmpty,
    /// A snapshot's position is taken over before its rows, without a mark.
    SnapshotMetadataFirst,
    /// The log is cut at what is applied, not at what is flushed.
    CutPastFlush,
    /// Results of commands are evicted by a clock that runs ahead, and no floor rises.
    EvictByClock,
    /// Apply does not look whether the required rows are there.
    ApplyWithoutRequired,
    /// Who waits for the slot of a mailbox is not told that it is free.
    SlotNeverFreed,
    /// The contexts of a replica's reads are the same in each life of its process.
    ReadsOfAnyLife,
    /// The numbers of a replica's reads begin anew when none is under way.
    ReadNumbersRepeat,
    /// The running hash leaves chunks out.
    HashWithoutChunks,
    /// The running hash leaves the first entry of an incarnation out.
    HashWithoutBegin,
    /// The running hash covers only the first bytes of an entry.
    HashOfHeads,
    /// The running hash is that of the last entry alone.
    HashNotChained,
    /// One of two replicas keeps a chunk without its bytes.
    ChunkLostByOne,
    /// A voter is removed though the others that are heard of are no majority.
    QuorumNotCounted,
    /// More is written as committed than the log holds.
    CommitAheadOfLog,
    /// After a start less counts as committed than is applied.
    CommitBelowApplied,
    /// A replica that was removed leaves no mark of it in its log.
    RemovedLeavesNoMark,
    /// A replica's id may be used again.
    ReplicaIdsReused,
    /// Entries are visible before another region holds them.
    ShownBeforeHeld,
    /// A region holds what one of its standbys has.
    HeldByOneStandby,
    /// Owners begin before the first entry of their term is held by the other regions.
    FreshActorShowsUnheld,
    /// A standby hears of commits above what its region holds.
    StandbyHearsCommit,
    /// Entries are visible though what they need of the control group is not.
    NeedsNotAwaited,
    /// A new leader takes what it found for as old as its lead.
    BoundRestartsWithLeader,
    /// Bounds go by a clock that stands still while the process does.
    BoundStopsInSuspend,
    /// A partition answers alone before the control group's row says so.
    AloneBeforeRow,
    /// Answers are said to wait everywhere before every partition's log that says so is held by the other regions.
    WholeBeforeHeld,
    /// Other settings of regions are answered only when another region holds them.
    SettingsWaitToBeVisible,
    /// What was answered while less was promised counts as held once more is.
    LessPromisedForgotten,
    /// Less is promised before another region holds that it is.
    LessPromisedUnheard,
    /// A standby that differs from its home stops the processes there.
    RottenStandbyStopsHome,
    /// A standby does not mark that a snapshot may be above what its region holds.
    AheadForgotten,
    /// The log is cut past what another region holds, however much of it is to be kept.
    CutPastRegion,
    /// A standby goes on as a voter before it is durable that it adopted.
    AdoptsUnsynced,
    /// A standby that adopts is the only voter.
    OneOfThreeIsEnough,
    /// A standby adopts though a snapshot may be above what its region holds.
    AheadAdopts,
    /// Messages of any incarnation are heard.
    OtherIncarnationHeard,
    /// Incarnations of one number are one, whoever named them.
    NonceNotCompared,
    /// Changes of members of an earlier incarnation count that are found below the first entry of the next.
    OldChangesCount,
    /// Mail partitions adopt by the operator's word.
    MailBeforeControl,
    /// What the standbys have is committed.
    StandbysCommit,
    /// Terms of an incarnation go on where those of the earlier one ended.
    TermsGoOn,
    /// Owners begin before the first entry of their incarnation is applied.
    OwnerBeforeTakeover,
    /// That a replica is sealed is in no log.
    SealedInMemory,
    /// Results are evicted, and the floor stays where it is.
    EvictionRaisesNoFloor,
    /// Results of commands are evicted after an eighth of their time.
    EvictEarly,
}
