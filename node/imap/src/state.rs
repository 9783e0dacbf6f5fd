//! What a session is between commands, and what its commands change.

use std::time::Duration;

use mailraft_mailbox::UidSet;
use mailraft_protocol::{Out, Output};

use crate::notify::Notify;
use crate::store::Mailstore;
use crate::utf7::Spelling;
use crate::view::{Telling, View};

/// Logins that may fail before the session ends.
const WRONG_LOGINS_MAX: u32 = 3;

/// What of the open folder is told though others did it.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    messages: bool,
    flags: bool,
}

const CAPABILITIES: [&str; 40] = [
    "IMAP4rev1",
    "IMAP4rev2",
    "LITERAL+",
    "SASL-IR",
    "ID",
    "ENABLE",
    "IDLE",
    "NAMESPACE",
    "UIDPLUS",
    "UNSELECT",
    "MOVE",
    "CHILDREN",
    "SPECIAL-USE",
    "CREATE-SPECIAL-USE",
    "LIST-EXTENDED",
    "LIST-STATUS",
    "STATUS=SIZE",
    "CONDSTORE",
    "QRESYNC",
    "ESEARCH",
    "SEARCHRES",
    "WITHIN",
    "PARTIAL",
    "QUOTA",
    "QUOTA=RES-STORAGE",
    "OBJECTID",
    "SORT",
    "SORT=DISPLAY",
    "ESORT",
    "THREAD=ORDEREDSUBJECT",
    "THREAD=REFERENCES",
    "PREVIEW",
    "BINARY",
    "UTF8=ACCEPT",
    "UIDONLY",
    "INPROGRESS",
    "SAVEDATE",
    "REPLACE",
    "MULTIAPPEND",
    "NOTIFY",
];

/// What a session is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The longest message that APPEND takes, in bytes.
    pub max_message_bytes: u64,
    /// Whether STARTTLS is there.
    pub tls_available: bool,
    /// A client logs in within this time: who sends a byte now and then would otherwise hold a session for ever.
    pub login_max: Duration,
}

/// A session's state.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) tls: bool,
    /// Who is logged in.
    pub(crate) user: Option<String>,
    /// The open folder.
    pub(crate) view: Option<View>,
    /// The tag of the command that is carried out, for responses that name it.
    pub(crate) tag: String,
    /// The UIDs that the last SEARCH with SAVE found (RFC 5182).
    pub(crate) saved: UidSet,
    /// What the client has enabled.
    pub(crate) enabled: Enabled,
    /// UTF8=ACCEPT (RFC 6855).
    pub(crate) utf8_accept: bool,
    /// IMAP4rev2 (RFC 9051).
    pub(crate) rev2: bool,
    /// UIDONLY (RFC 9586): messages are named by UIDs alone.
    pub(crate) uid_only: bool,
    /// What the client wants to be notified of, once it has said so (RFC 5465).
    pub(crate) notify: Option<Box<Notify>>,
    /// Messages of the open folder that the command that is carried out changes itself: that is told in any case.
    own: UidSet,
    /// The command that is carried out asks for news.
    pub(crate) polls: bool,
    /// Something may have been heard while it was told what is new, behind what was told of its kind.
    pub(crate) heard_meanwhile: bool,
    /// Whether the connection is compressed.
    pub(crate) compressed: bool,
    wrong_logins: u32,
}

/// What changes responses once a client has enabled it (RFC 7162), each with what is before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Enabled {
    /// Nothing.
    Nothing,
    /// CONDSTORE: MODSEQ is told with flags that changed.
    CondStore,
    /// QRESYNC: what was expunged is told by UID.
    QResync,
}

impl State {
    pub(crate) fn new(config: Config, tls: bool) -> Self {
        State {
            config,
            tls,
            user: None,
            view: None,
            tag: String::new(),
            saved: UidSet::new(),
            enabled: Enabled::Nothing,
            utf8_accept: false,
            rev2: false,
            uid_only: false,
            notify: None,
            own: UidSet::new(),
            polls: false,
            heard_meanwhile: false,
            compressed: false,
            wrong_logins: 0,
        }
    }

    pub(crate) fn capabilities(&self) -> String {
        // All of it before a login too: some clients never ask again.
        let append_limit = format!("APPENDLIMIT={}", self.config.max_message_bytes);
        let mut names = CAPABILITIES.to_vec();
        names.push(&append_limit);
        if !self.compressed {
            names.push("COMPRESS=DEFLATE");
        }
        if self.user.is_none() {
            if self.tls {
                names.push("AUTH=PLAIN");
            } else {
                if self.config.tls_available {
                    names.push("STARTTLS");
                }
                names.push("LOGINDISABLED");
            }
        }
        names.join(" ")
    }

    /// Whether strings from and to the client may be UTF-8.
    pub(crate) fn takes_utf8(&self) -> bool {
        self.utf8_accept || self.rev2
    }

    /// How the client spells folders' names.
    pub(crate) fn spelling(&self) -> Spelling {
        if self.takes_utf8() { Spelling::Utf8 } else { Spelling::ModifiedUtf7 }
    }

    /// A command was given that enables this (RFC 7162, section 3.1).
    pub(crate) fn enable(&mut self, what: Enabled) {
        self.enabled = self.enabled.max(what);
    }

    /// A login failed; true if it was one too many.
    pub(crate) fn wrong_login(&mut self) -> bool {
        self.wrong_logins += 1;
        self.wrong_logins >= WRONG_LOGINS_MAX
    }

    /// Takes events into the view.
    pub(crate) fn hear<S: Mailstore>(&mut self, store: &mut S) {
        // What comes to a session that is not notified, as after a NOTIFY that failed, would otherwise wake it for ever.
        for notice in store.take_notices() {
            if let Some(notify) = self.notify.as_mut() {
                notify.take(notice);
            }
        }
        let events = store.take_events();
        if let Some(view) = self.view.as_mut() {
            for event in events {
                view.take(event);
            }
        }
    }

    /// What the client hears of messages besides their flags.
    pub(crate) fn telling(&self) -> Telling {
        Telling { modseq: self.enabled >= Enabled::CondStore, recent: !self.rev2, uid_only: self.uid_only }
    }

    /// Whether someone else deleted the open folder: then the session must end.
    pub(crate) fn is_folder_deleted(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.deleted)
    }

    /// A command begins.
    pub(crate) fn begin_command(&mut self) {
        self.own = UidSet::new();
        self.polls = false;
    }

    /// The command that is carried out changes these messages of the open folder.
    pub(crate) fn does_itself(&mut self, uids: &UidSet) {
        self.own = UidSet::from_ranges([self.own.ranges(), uids.ranges()].concat());
    }

    /// The same, if the folder that has this UIDVALIDITY, which no other one ever has, is the open one.
    pub(crate) fn does_itself_in(&mut self, uid_validity: u32, uids: &UidSet) {
        if self.view.as_ref().is_some_and(|view| view.uid_validity == uid_validity) {
            self.does_itself(uids);
        }
    }

    /// Whether the client is told of a change of this message's flags.
    pub(crate) fn tells_flags_of(&self, uid: u32) -> bool {
        self.wanted().flags || self.own.contains(uid)
    }

    /// Whether the client is to hear of something while it asks nothing and does not idle.
    pub(crate) fn is_notified(&self) -> bool {
        self.notify.as_ref().is_some_and(|notify| {
            notify.watches() || self.view.is_some() && (notify.selected.messages || notify.selected.flags)
        })
    }

    /// Whether expunges are told without waiting for a command that allows it (RFC 5465, section 6.1).
    pub(crate) fn tells_expunges_at_once(&self) -> bool {
        self.notify.as_ref().is_some_and(|notify| notify.selected.messages && notify.selected.at_once)
    }

    /// What of the open folder is told though others did it. Whoever asks for news hears all.
    fn wanted(&self) -> Wanted {
        match self.notify.as_ref().filter(|_| !self.polls) {
            Some(notify) => Wanted { messages: notify.selected.messages, flags: notify.selected.flags },
            None => Wanted { messages: true, flags: true },
        }
    }

    /// The HIGHESTMODSEQ up to which the client will know all of the open folder, once this command has ended.
    pub(crate) fn told_modseq(&self) -> u64 {
        let wanted = self.wanted();
        let tells = |uid| wanted.messages && wanted.flags || self.own.contains(uid);
        self.view.as_ref().map_or(0, |view| view.told_modseq(tells))
    }

    /// The open folder is left. Expunges that waited for a command that allows them are told to whoever counts on that: who is
    /// notified hears nothing more of them (RFC 5465, section 6.1.2), and who keeps what it knows by a MODSEQ may have been told
    /// one that is behind them, so that it would not be told when it comes again (RFC 7162, section 3.2).
    pub(crate) async fn say_gone_before_leaving<O: Output>(&mut self, out: &mut Out<O>) {
        let by_uid = self.enabled >= Enabled::QResync || self.uid_only;
        let counts_on_it = by_uid || self.notify.as_ref().is_some_and(|notify| notify.selected.messages);
        if let Some(view) = self.view.as_mut().filter(|view| counts_on_it && !view.deleted) {
            say_gone(view, |_| true, by_uid, out).await;
        }
    }

    /// Tells what waits in the view, in portions; expunges only where they are allowed.
    pub(crate) async fn say_news<O: Output>(&mut self, expunges: bool, out: &mut Out<O>) {
        let (enabled, telling, wanted) = (self.enabled, self.telling(), self.wanted());
        let own = &self.own;
        let Some(view) = self.view.as_mut().filter(|view| !view.deleted) else { return };
        if expunges {
            let by_uid = enabled >= Enabled::QResync || self.uid_only;
            say_gone(view, |uid| wanted.messages || own.contains(uid), by_uid, out).await;
        }
        if wanted.messages || view.has_added(own) {
            let new = view.tell_added(telling, &mut out.bytes);
            if let Some(notify) = self.notify.as_mut() {
                notify.selected.told(new.into_iter().filter(|uid| !own.contains(*uid)));
            }
        }
        for uid in view.take_changed(|uid| wanted.flags || own.contains(uid)) {
            view.tell_flags(uid, telling, &mut out.bytes);
            out.pass_on().await;
        }
        view.settle();
    }
}

/// Tells which messages are gone.
async fn say_gone<O: Output>(view: &mut View, tells: impl Fn(u32) -> bool, by_uid: bool, out: &mut Out<O>) {
    if by_uid {
        let vanished = view.take_vanished(tells);
        if !vanished.is_empty() {
            out.line(&format!("* VANISHED {vanished}"));
            out.pass_on().await;
        }
        return;
    }
    for number in view.take_expunged(tells) {
        out.line(&format!("* {number} EXPUNGE"));
        out.pass_on().await;
    }
}
