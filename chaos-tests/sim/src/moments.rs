//! Moments of a takeover that chance is to reach, and how often it did: what no world of a suite ever comes to is not tested by
//! it, however many of them run.

use std::collections::BTreeMap;

macro_rules! moments {
    ($($(#[doc = $text:literal])+ $name:ident,)*) => {
        /// What happened in a run.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Moment {
            $($(#[doc = $text])+ $name,)*
        }

        impl Moment {
            /// Every one.
            pub const ALL: &[Moment] = &[$(Moment::$name,)*];
        }
    };
}

moments! {
    /// A word is given while no node at home runs.
    WordHomeDead,
    /// ... while a majority at home runs and no link to the backup region carries anything.
    WordHomeCutOff,
    /// ... while a majority at home runs and every node of the backup region hears it: the word is false.
    WordHomeHeard,
    /// ... while a majority at home runs and some nodes of the backup region hear it, and others don't.
    WordHomeHeardBySome,
    /// ... at fewer nodes that run than are a majority of the control group's standbys.
    WordAtMinority,
    /// ... while a snapshot is on its way into a replica of the backup region.
    WordInSnapshot,
    /// ... while a replica of the backup region is ahead of it by a snapshot.
    WordAhead,
    /// ... while nobody leads some partition, and a majority at home runs.
    WordInElection,
    /// ... while the home is alone.
    WordAlone,
    /// ... while the home returns from being alone.
    WordReturning,
    /// ... while the nodes that run go by different rows about the mode.
    WordInChangeOfMode,
    /// ... while an operator has asked for other settings of regions and has no answer.
    WordInSettings,
    /// ... while somebody has adopted an incarnation that has not begun.
    WordOverHalf,
    /// ... behind an incarnation that has begun.
    WordOverBegun,
    /// ... that goes on with an incarnation, at a node that nobody has asked before.
    WordElsewhere,
    /// ... that names an incarnation whose number somebody else has given another nonce.
    WordRival,
    /// A node dies while some standbys of the control group have adopted an incarnation and others have not.
    DiesBetweenAdoptions,
    /// The same of the standbys of a mail partition.
    DiesBetweenMailAdoptions,
    /// A node dies that has adopted an incarnation of the control group that has not begun.
    DiesAdopted,
    /// A replica hears of its incarnation's number with another nonce, and serves nothing.
    Contested,
    /// A replica seals itself.
    Sealed,
    /// A sealed replica's process dies.
    SealedDies,
    /// An incarnation of the control group begins.
    Begins,
    /// One begins behind another one that had begun.
    BeginsAgain,
    /// One begins in which some answer is lost.
    LosesAnswers,
    /// The old home answers something after a word.
    OldHomeAnswers,
    /// ... that is not held.
    OldHomeAnswersUnheld,
    /// An operator is told that a standby has adopted.
    SaysAdopted,
    /// He is refused, as it is ahead of its region.
    RefusedAhead,
    /// ... as the number is not higher.
    RefusedNotHigher,
    /// ... as it is sealed.
    RefusedSealed,
    /// ... as it is just becoming another.
    RefusedBusy,
    /// ... as its region is home.
    RefusedHome,
    /// A session goes on in a folder that it followed in an earlier incarnation.
    ResumesOver,
    /// ... and saw what is lost: it is told everything.
    ResumesPastFork,
    /// A session watches folders anew at another owner.
    WatchesAnew,
    /// A session hears that something happened in a folder that it does not have open.
    HearsOfFolder,
    /// A session hears that the list of folders changed.
    HearsOfNames,
    /// A client comes back with what it has kept of a folder.
    Returns,
    /// ... of an earlier incarnation.
    ReturnsOver,
    /// ... and has kept what is lost: it is told everything.
    ReturnsPastFork,
    /// ... behind which two have begun.
    ReturnsOverTwo,
}

/// How often each moment came.
pub type Moments = BTreeMap<Moment, u64>;
