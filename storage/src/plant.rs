//! Faults planted on purpose, one at a time, of the kind that real systems had: each must be found by the simulator
//! (`chaos-tests/sim/tests/planted.rs`). Only the feature `plant` has them, and no release can be built with it.

#[cfg(all(feature = "plant", not(debug_assertions)))]
compile_error!("planted faults are never built into a release");

macro_rules! faults {
    ($($(#[doc = $text:literal])+ $name:ident,)*) => {
        /// A fault that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault {
            $($(#[doc = $text])+ $name,)*
        }

        impl Fault {
            /// Every fault that can be planted.
            pub const ALL: &[Fault] = &[$(Fault::$name,)*];

            /// What it does, in one line.
            pub fn what(self) -> &'static str {
                match self {
                    $(Fault::$name => concat!($($text),+).trim_ascii(),)*
                }
            }
        }
    };
}

faults! {
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
    /// Memory goes forward when an entry is proposed, not when it is applied.
    DecideOnUnapplied,
    /// Neither append nor apply compares the term that a proposal was decided in.
    DropTermChecks,
    /// Commands of one batch are decided without the effects of those before them.
    BatchWithoutEffects,
    /// A refusal is answered, and not recorded under its id.
    RefusalNotRecorded,
    /// Other commands are decided between the parts of a staged change.
    InterleaveStaged,
    /// An actor of an older term goes on answering reads.
    ReadThroughOldActor,
    /// A chunk of a large body is lost, and the row that makes the body live does not require it.
    BodyLosesChunk,
    /// The sweep of open uploads does not require that the upload is still open.
    SweepLiveBody,
    /// A replica whose disk was lost comes back under its old id, and votes.
    ReplicaComesBackEmpty,
    /// A snapshot leaves the table of commands out.
    SnapshotWithoutCommands,
    /// A snapshot's rows are read after its position.
    SnapshotRowsNewer,
    /// A snapshot's position is taken over before its rows, without a mark.
    SnapshotMetadataFirst,
    /// The log is cut at what is applied, not at what is flushed.
    CutPastFlush,
    /// After a reload UIDs go on after the highest that is there.
    UidReusedAfterReload,
    /// After a reload MODSEQ goes on after the highest that a message has.
    ModseqReusedAfterReload,
    /// A folder made anew has the UIDVALIDITY that all have.
    UidValidityReused,
    /// A resume leaves out one message that changed.
    ResumeLeavesOut,
    /// A resume names the client's own HIGHESTMODSEQ.
    ResumeStaleModseq,
    /// Removals leave no trace in the expunge log.
    ExpungeWithoutHistory,
    /// A record in the middle of the log that does not check is skipped.
    LogTailWithGap,
    /// Results of commands are evicted by a clock that runs ahead, and no floor rises.
    EvictByClock,
    /// A delivery leaves no row that tells its repetition.
    DeliveryNotRemembered,
    /// A command that comes again is not looked up.
    RetryNotLookedUp,
    /// Apply does not look whether the required rows are there.
    ApplyWithoutRequired,
    /// A staged change counts from its first part.
    StageCountsAtOnce,
    /// Flags that change are not written to the message's row.
    FlagsNotWritten,
    /// An event overtakes the answer to the session's earlier read.
    EventOvertakesAnswer,
    /// Who waits for the slot of a mailbox is not told that it is free.
    SlotNeverFreed,
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
    /// Rows that a snapshot does not have stay where it is put in place.
    SnapshotOverOldRows,
    /// The contexts of a replica's reads are the same in each life of its process.
    ReadsOfAnyLife,
    /// The numbers of a replica's reads begin anew when none is under way.
    ReadNumbersRepeat,
    /// Ids of commands that are drawn in one millisecond are the same.
    CommandIdsRepeat,
    /// All staged changes have one id.
    StageIdsRepeat,
    /// The numbers of an owner's reads begin anew when none waits.
    BarrierNumbersRepeat,
    /// Bodies that are made in one second have one id.
    BodyIdsRepeat,
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
    /// The floor of the expunge history is one below what was forgotten.
    ExpungeFloorLow,
    /// The floor of the expunge history does not rise when something is forgotten.
    ExpungeFloorStays,
    /// A resume from just below the expunge history's floor is answered from it.
    ResumeBelowFloor,
    /// A resume leaves out what was expunged right after what the client knows.
    ResumeMissesExpunge,
    /// A resume leaves out what changed right after what the client knows.
    ResumeMissesChange,
    /// UNCHANGEDSINCE holds messages back that changed at just that MODSEQ.
    UnchangedSinceStrict,
    /// UNCHANGEDSINCE lets messages pass that changed right after that MODSEQ.
    UnchangedSinceLax,
    /// Of flags that change in several pages only the first page is written.
    OnlyFirstPage,
    /// A page of flags is written without those that an earlier change left in it.
    PageOfOneChange,
    /// At a reload a page of flags counts before a place that was written after it.
    PageOverPlace,
    /// At a reload tombstones are not read.
    TombstoneNotRead,
    /// A tombstone is deleted with the first of its messages.
    TombstoneFirst,
    /// A sweep deletes rows that are in use again.
    SweepInUse,
    /// The last entry of a staged change does not say that it counts.
    StageNeverCounts,
    /// A staged change does not write its folder's own row.
    StageWithoutFolder,
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
    /// First attempts are not held to the floor of kept results.
    FloorNotForFirsts,
    /// Retries are not held to the floor of kept results.
    FloorNotForRetries,
    /// Results are evicted, and the floor stays where it is.
    EvictionRaisesNoFloor,
    /// Results of commands are evicted after an eighth of their time.
    EvictEarly,
    /// A delivery is remembered for an eighth of a day.
    DeliveryForgottenEarly,
    /// The sweep of old deliveries takes new ones too.
    SweepForgetsDeliveries,
}

#[cfg(feature = "plant")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Plants a fault in everything that runs in this thread, or none.
#[cfg(feature = "plant")]
pub fn set(fault: Option<Fault>) {
    PLANTED.set(fault);
}

/// Whether this fault is planted.
#[cfg(feature = "plant")]
#[must_use]
pub fn is(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

/// Whether this fault is planted: never.
#[cfg(not(feature = "plant"))]
#[must_use]
#[inline(always)]
pub const fn is(_: Fault) -> bool {
    false
}
