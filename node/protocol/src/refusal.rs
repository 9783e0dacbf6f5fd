//! Why a client's request was not carried out: one closed list. Each protocol answers it in one exhaustive match, in
//! its own `refusals.rs`. What an engine itself finds wrong with a command (its syntax, its order, bounds of the
//! protocol) is not here: that is answered where it is found.

/// Declares the list, and one of each for the tables that go through it.
macro_rules! refusals {
    ($($(#[$attribute:meta])+ $name:ident $(($holds:ty = $example:expr))?,)+) => {
        /// Why a request was not carried out, and won't be unless it is made anew. Its text is for the client's user.
        #[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
        pub enum Refusal {
            $($(#[$attribute])+ $name $(($holds))?,)+
        }

        impl Refusal {
            /// One of each, in the order of the list: a protocol's test tables all its answers by it.
            pub fn each() -> Vec<Refusal> {
                vec![$(Refusal::$name $(($example))?),+]
            }
        }
    };
}

refusals! {
    /// Nobody who could decide it was reached in time.
    #[error("no majority of the servers can be reached; try again")]
    Unavailable,
    /// A backup region has not confirmed what was written before, for so long that nothing more is begun.
    #[error("the backup region has not confirmed what came before, so nothing new is taken; try again later")]
    NotConfirmed,
    /// Too much is waiting, here or where the mailbox is.
    #[error("too busy; try again later")]
    Overloaded,
    /// This node can't keep the message until its mailbox has it: its own disk fails.
    #[error("the message can't be kept now; try again")]
    NotKept,
    /// The disk of this node is nearly full.
    #[error("this server's disk is nearly full, which is not about your mailbox; try again later")]
    ServerFull,
    /// Part of the mailbox can't be read where it is.
    #[error("part of this mailbox is damaged and being repaired")]
    Corrupt,
    /// The mailbox has reached its quota.
    #[error("the mailbox is full")]
    OverQuota,
    /// The mailbox was erased, or never was, as a read barrier of the control group says.
    #[error("no such mailbox")]
    NoSuchMailbox,
    /// The mailbox has no folder of that name.
    #[error("no such folder")]
    NoSuchFolder,
    /// The folder that messages go to is not there, and could be created.
    #[error("no such folder; create it first")]
    NoSuchTarget,
    /// The open folder was deleted, or made anew under its name.
    #[error("the folder was deleted")]
    FolderGone,
    /// There is a folder of the name that one was to get.
    #[error("a folder of that name exists")]
    FolderExists,
    /// No folder can have that name, for this reason.
    #[error("{0}")]
    BadName(String = "no such name".to_owned()),
    /// Nobody may do that, for this reason.
    #[error("{0}")]
    NotAllowed(String = "not with INBOX".to_owned()),
    /// This bound of the mailbox is reached.
    #[error("{0}")]
    Limit(String = "too many folders".to_owned()),
    /// Another session has the POP3 maildrop to itself.
    #[error("another session has this maildrop open; try again later")]
    MaildropInUse,
    /// The message has more of something, header, addresses or parts, than a mailbox keeps.
    #[error("{0}")]
    MessageTooMuch(String = "the header is longer than 1024 KiB".to_owned()),
    /// The message has octets that none may have: a NUL, or a CR or LF that is no part of a CRLF.
    #[error("{0}")]
    MessageOctets(String = "a message has no NUL octets".to_owned()),
    /// The message has been through more servers than this.
    #[error("the message has been through more than {0} servers, so it goes in a circle")]
    MailLoop(usize = 50),
    /// This address of the cluster's has forwarded the message before.
    #[error("<{0}> has forwarded this message before, so it goes in a circle")]
    ForwardedBefore(String = "a@b.test".to_owned()),
    /// The message is forwarded by this address, and says that it is of that address's own domain without showing it: whoever gets
    /// it from us would believe it.
    #[error("<{0}> forwards nothing that says it is of its own domain and does not show it (DMARC)")]
    NotForwarded(String = "a@b.test".to_owned()),
    /// The author's domain, if it is known, wants mail refused that is not shown to be its own, and this is not (DMARC).
    #[error("{0} wants mail refused that is not shown to be its own, and this is not (DMARC)")]
    AgainstPolicy(String = "b.test".to_owned()),
    /// The message is longer than this many bytes.
    #[error("the message is longer than {0} bytes")]
    MessageTooLong(u64 = 100),
    /// These are nobody's credentials.
    #[error("wrong user name or password")]
    WrongCredentials,
    /// Too many logins were tried with wrong credentials.
    #[error("too many wrong logins; try again in a minute")]
    Throttled,
    /// This address is nobody's, as a read barrier of the control group says.
    #[error("<{0}> is nobody here")]
    NoSuchAddress(String = "a@b.test".to_owned()),
    /// This address is in no domain of this cluster.
    #[error("<{0}> is not in a domain of this server, and it relays for nobody")]
    NotOurDomain(String = "a@b.test".to_owned()),
    /// An account may not send to this address, as nobody here sends to other domains.
    #[error("<{0}> is in another domain, and this server sends nothing there: whoever runs it may switch outbound.enabled on")]
    SendingIsOff(String = "a@b.test".to_owned()),
    /// The account has sent to as many recipients in other domains as it may for now; so many seconds later it may again.
    #[error("this account has sent to as many addresses in other domains as it may in an hour; try again in {0} s")]
    SentTooMuch(u64 = 60),
    /// This address forwards to other domains, and nobody here sends there now.
    #[error("<{0}> forwards to another domain, and this server sends nothing there now; try again later")]
    ForwardingRests(String = "a@b.test".to_owned()),
    /// The account may not send as this reverse-path, as a read barrier of the control group says.
    #[error("this reverse-path is not yours to send from")]
    NotOwnAddress,
    /// A From or Sender field of a submission names an address that is not the account's, as a read barrier of the
    /// control group says, or none that could be understood.
    #[error("From and Sender must name addresses that are yours to send from")]
    NotOwnAuthor,
}

impl Refusal {
    /// Whether the same may succeed later without anybody doing something about it.
    pub fn may_be_retried(&self) -> bool {
        match self {
            Refusal::Unavailable
            | Refusal::NotConfirmed
            | Refusal::Overloaded
            | Refusal::NotKept
            | Refusal::ServerFull
            | Refusal::Corrupt
            | Refusal::OverQuota
            | Refusal::SentTooMuch(_)
            | Refusal::MaildropInUse
            | Refusal::ForwardingRests(_) => true,
            Refusal::NoSuchMailbox
            | Refusal::NoSuchFolder
            | Refusal::NoSuchTarget
            | Refusal::FolderGone
            | Refusal::FolderExists
            | Refusal::BadName(_)
            | Refusal::NotAllowed(_)
            | Refusal::Limit(_)
            | Refusal::MessageTooMuch(_)
            | Refusal::MessageOctets(_)
            | Refusal::MailLoop(_)
            | Refusal::ForwardedBefore(_)
            | Refusal::NotForwarded(_)
            | Refusal::AgainstPolicy(_)
            | Refusal::MessageTooLong(_)
            | Refusal::WrongCredentials
            // It was throttled because it retried.
            | Refusal::Throttled
            | Refusal::NoSuchAddress(_)
            | Refusal::NotOurDomain(_)
            | Refusal::SendingIsOff(_)
            | Refusal::NotOwnAddress
            | Refusal::NotOwnAuthor => false,
        }
    }
}

/// What a mailbox decided, in its own words.
impl From<mailraft_mailbox::Refusal> for Refusal {
    fn from(decided: mailraft_mailbox::Refusal) -> Self {
        use mailraft_mailbox::Refusal as Decided;
        match decided {
            Decided::NoSuchFolder => Refusal::NoSuchFolder,
            Decided::TryCreate => Refusal::NoSuchTarget,
            Decided::FolderExists => Refusal::FolderExists,
            Decided::FolderGone => Refusal::FolderGone,
            Decided::BadName(why) => Refusal::BadName(why),
            Decided::NotAllowed(why) => Refusal::NotAllowed(why),
            Decided::Limit(why) => Refusal::Limit(why),
            Decided::OverQuota => Refusal::OverQuota,
            Decided::Corrupt => Refusal::Corrupt,
            Decided::MaildropInUse => Refusal::MaildropInUse,
            // Mail that waits is delivered meanwhile.
            Decided::QueueFull => Refusal::Overloaded,
            // Only queues hear it.
            Decided::Stale => Refusal::Unavailable,
        }
    }
}

/// How a request ended that has no success to tell. The two are told apart up to each protocol's match, because a
/// client that hears "not done" may do it again, and one that does so after "unknown" may have it twice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It was not done, and never will be.
    #[error(transparent)]
    NotDone(#[from] Refusal),
    /// It may have been done, or may still be.
    #[error("it is not known whether it was done")]
    Unknown,
}

impl Failure {
    /// Whether the same may succeed later without anybody doing something about it.
    pub fn may_be_retried(&self) -> bool {
        match self {
            Failure::NotDone(refusal) => refusal.may_be_retried(),
            Failure::Unknown => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use mailraft_mailbox::Refusal as Decided;

    use super::*;

    #[test]
    fn a_mailbox_gives_its_reasons_in_the_same_words() {
        for decided in [
            Decided::NoSuchFolder,
            Decided::TryCreate,
            Decided::FolderExists,
            Decided::FolderGone,
            Decided::BadName("a name is empty".into()),
            Decided::NotAllowed("INBOX stays".into()),
            Decided::Limit("too many folders".into()),
            Decided::OverQuota,
            Decided::Corrupt,
            Decided::MaildropInUse,
        ] {
            let text = decided.to_string();
            assert_eq!(Refusal::from(decided).to_string(), text);
        }
    }
}
