//! Faults that tests plant into mailboxes, to see that they are found; in no release.

mailraft_storage::plants! {
    /// Memory goes forward when an entry is proposed, not when it is applied.
    DecideOnUnapplied,
    /// Commands of one batch are decided without the effects of those before them.
    BatchWithoutEffects,
    /// The sweep of open uploads does not require that the upload is still open.
    SweepLiveBody,
    /// After a reload UIDs go on after the highest that is there.
    UidReusedAfterReload,
    /// After a reload MODSEQ goes on after the highest that a message has.
    ModseqReusedAfterReload,
    /// UIDs and UIDVALIDITY go on over a takeover.
    UidsGoOn,
    /// UIDs, UIDVALIDITY and modification sequences go on in a term that began alone.
    AloneGoesOn,
    /// A modification sequence past its incarnation's fork counts like any other.
    ForkNotHeard,
    /// A folder made anew has the UIDVALIDITY that all have.
    UidValidityReused,
    /// A resume leaves out one message that changed.
    ResumeLeavesOut,
    /// A resume names the client's own HIGHESTMODSEQ.
    ResumeStaleModseq,
    /// Removals leave no trace in the expunge log.
    ExpungeWithoutHistory,
    /// A delivery leaves no row that tells its repetition.
    DeliveryNotRemembered,
    /// A staged change counts from its first part.
    StageCountsAtOnce,
    /// Flags that change are not written to the message's row.
    FlagsNotWritten,
    /// A read leaves out what is removed by an entry that is not visible yet.
    RowsAheadOfMemory,
    /// An event overtakes the answer to the session's earlier read.
    EventOvertakesAnswer,
    /// All staged changes have one id.
    StageIdsRepeat,
    /// The numbers of an owner's reads begin anew when none waits.
    BarrierNumbersRepeat,
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
    /// A delivery is remembered for an eighth of a day.
    DeliveryForgottenEarly,
    /// The sweep of old deliveries takes new ones too.
    SweepForgetsDeliveries,
    /// A command that is done once leaves no row that tells its repetition.
    RepeatNotRemembered,
    /// What is done once is remembered for an eighth of its time.
    RepeatForgottenEarly,
    /// What is done once is remembered for as long as its row is there, and that for good.
    RepeatKeptForever,
    /// The sweep of answers that are kept for repeats takes new ones too.
    SweepForgetsRepeats,
    /// APPENDs to different folders count as repeats.
    RepeatInAnyFolder,
    /// What differs in the date alone counts as a repeat.
    RepeatOfAnyDate,
    /// What a command made need not be there any more for its repeat.
    RepeatOfWhatIsGone,
    /// What is told to be heard along with a command is not listened to.
    HeardIgnored,
    /// Whoever has heard an answer has heard all that were given.
    HeardOfOthers,
    /// A queue delivery that was held up past its release is stored again.
    StaleDeliveryStored,
    /// A queue releases a delivery before it is durable that it was made.
    ReleasedBeforeDone,
    /// A release does not raise the floor of its queue.
    ReleaseRaisesNoFloor,
    /// What a queue delivered is not remembered until it is released.
    QueuedDeliveryNotRemembered,
    /// A queue hears that something was delivered before another region holds it.
    QueuedDeliveryNotHeld,
    /// A queue does nothing more for a recipient once that failed.
    QueueSleeps,
    /// A queue's new owner does not look what waits in it.
    QueueNotStarted,
    /// What another server has, and an operator returned meanwhile, is bounced.
    SentIsBounced,
    /// A queue's owner does not wake for the next attempt to send something.
    SendingSleeps,
    /// What an operator holds, returns or drops while it is sent, is sent all the same.
    StoppedIsSent,
}
