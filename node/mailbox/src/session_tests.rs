//! Each edge of a session as a script: what happens to it, and what it does.

use std::time::Duration;

use bytes::Bytes;
use mailraft_storage::body::BodyId;
use mailraft_storage::seal::Key;
use mailraft_storage::{CommandId, Env, Index, NodeId, PartitionId};

use crate::api::{Change, Event, FolderId, MessageState, NewMessage, Once, Refusal, Resumed, Selected, Watching};
use crate::notice::{FolderNews, Notice};
use crate::session::{ANSWER_MAX, CHUNKS_UNANSWERED_MAX, ChunkOutcome, IN_DOUBT_MAX, NO_LEADER_MAX, Session, Step};
use crate::{Answer, Command, CommandError, Detached, Finished, Flags, MessageKind, Position, Request, Unheard};

/// A session, and what was heard of it so far.
struct Script {
    env: Env,
    session: Session,
    /// Ids as they appear are a, b, c.
    ids: Vec<CommandId>,
    /// The command that waits for an answer.
    asked: Option<CommandId>,
    resume: Option<CommandId>,
    /// Watches again.
    watch: Option<CommandId>,
    links: u64,
    /// Chunks of what is sealed; one goes with the command.
    chunks: u32,
    bodies: Vec<BodyId>,
    unheard: Unheard,
    said: Vec<String>,
}

impl Script {
    fn new() -> Self {
        Script {
            env: Env::seeded(7),
            session: Session::new(),
            ids: Vec::new(),
            asked: None,
            resume: None,
            watch: None,
            links: 0,
            chunks: 1,
            bodies: Vec::new(),
            unheard: Unheard::default(),
            said: Vec::new(),
        }
    }

    /// Runs words, and tells in words what was done.
    fn run(words: &str) -> String {
        let mut script = Script::new();
        words.split_whitespace().for_each(|word| script.hears(word));
        script.said.join(" ")
    }

    fn lets(&mut self, act: impl FnOnce(&mut Session, &mut Env, &mut Vec<Step>)) {
        let mut out = Vec::new();
        act(&mut self.session, &mut self.env, &mut out);
        for step in out {
            self.does(step);
        }
    }

    fn begins(&mut self, request: Request) {
        let id = self.env.command_id();
        self.lets(|session, env, out| session.begin(env, id, request, out));
    }

    fn failed(&mut self, link: u64, id: Option<CommandId>, error: CommandError) {
        let id = id.unwrap_or_default();
        self.lets(|session, env, out| session.failed(env, link, id, error, out));
    }

    fn answered(&mut self, link: u64, id: Option<CommandId>, result: Result<Answer, Refusal>) {
        let at = Position { partition: PartitionId(1), incarnation: 1, index: Index(5) };
        let id = id.unwrap_or_default();
        self.lets(|session, env, out| session.answered(env, link, id, result, at, out));
    }

    fn hears(&mut self, word: &str) {
        let (link, asked) = (self.links, self.asked);
        let (word, number) = word.split_once(':').unwrap_or((word, ""));
        let number: u64 = number.parse().unwrap_or(0);
        let body = self.bodies.last().copied().unwrap_or_default();
        match word {
            "leader" => self.lets(|s, env, out| s.leader(env, Some(NodeId(number)), out)),
            "nobody" => self.lets(|s, env, out| s.leader(env, None, out)),
            "change" => self.begins(Request::Command(Command::Subscribe { name: "x".to_owned(), on: true })),
            "read" => self.begins(Request::Command(Command::Sync)),
            "select" => {
                self.begins(Request::Command(Command::Select { folder: "INBOX".to_owned(), claim_recent: true }));
            }
            "store" => {
                self.chunks = number as u32;
                let (folder, flags, internal_date) = ("INBOX".to_owned(), Flags::none(), Default::default());
                let kind = MessageKind::Append { folder, flags, internal_date };
                self.begins(Request::Store { kind, once: (number == 1).then(Once::default) });
            }
            "attached" => self.lets(|s, env, out| s.attached(env, link, out)),
            "gone" | "not-leader" | "overloaded" | "corrupt" | "no-mailbox" => {
                let why = match word {
                    "gone" => Detached::Gone,
                    "not-leader" => Detached::NotLeader,
                    "overloaded" => Detached::Overloaded,
                    "corrupt" => Detached::Corrupt,
                    _ => Detached::NoSuchMailbox,
                };
                let link = if number > 0 { number } else { link };
                self.lets(|s, env, out| s.detached(env, link, why, out));
            }
            "unsent" => {
                self.session.not_sent(link);
                self.lets(|s, env, out| s.detached(env, link, Detached::Overloaded, out));
            }
            "ok" => self.answered(if number > 0 { number } else { link }, asked, Ok(Answer::Done)),
            "another-ok" => self.answered(link, self.ids.first().copied(), Ok(Answer::Done)),
            "refused" => self.answered(link, asked, Err(Refusal::OverQuota)),
            "busy" => self.failed(link, asked, CommandError::Overloaded),
            "not-known" => self.failed(link, asked, CommandError::Unsupported),
            "lost" => self.failed(link, asked, CommandError::BodyLost),
            "damaged" => self.failed(link, asked, CommandError::Corrupt),
            "unconfirmed" => self.failed(link, asked, CommandError::NotConfirmed),
            "unknown" => self.failed(link, asked, CommandError::Unknown),
            "expired" => {
                let floor = asked.unwrap_or_default();
                self.failed(link, asked, CommandError::Expired { floor });
            }
            "selected" => {
                let messages = vec![MessageState { uid: 1, flags: Flags::none(), modseq: 3 }];
                let selected = Selected {
                    folder: FolderId(1),
                    uid_validity: 9,
                    uid_next: 2,
                    highest_modseq: 3,
                    first_recent_uid: 1,
                    messages,
                };
                self.answered(link, asked, Ok(Answer::Selected(selected)));
            }
            "resumed" => {
                let changed = vec![MessageState { uid: 2, flags: Flags::none(), modseq: 8 }];
                let resumed = Resumed { uid_next: 3, highest_modseq: 8, vanished: Default::default(), changed };
                self.answered(link, self.resume, Ok(Answer::Resumed(resumed)));
            }
            "resume-gone" => self.answered(link, self.resume, Err(Refusal::FolderGone)),
            "resume-busy" => self.failed(link, self.resume, CommandError::Overloaded),
            "event" => {
                let change = Change::Expunged([1].into_iter().collect());
                let event = Event { folder: FolderId(number as u32), origin: CommandId::default(), modseq: 4, change };
                self.lets(|s, _, out| s.event(link, event, out));
            }
            "chunk" => self.lets(|s, env, out| s.chunk_done(env, body, ChunkOutcome::Durable, out)),
            "no-chunk" => self.lets(|s, env, out| s.chunk_done(env, body, ChunkOutcome::NotDurable, out)),
            "unconfirmed-chunk" => self.lets(|s, env, out| s.chunk_done(env, body, ChunkOutcome::NotConfirmed, out)),
            "old-chunk" => {
                let first = self.bodies[0];
                self.lets(|s, env, out| s.chunk_done(env, first, ChunkOutcome::Durable, out));
            }
            "heard" => {
                self.unheard.answered(Once::default(), Some(CommandId::default()));
                self.unheard.client_went_on();
                self.hears("tell");
            }
            "tell" => {
                let mut unheard = std::mem::take(&mut self.unheard);
                self.lets(|s, env, out| unheard.tell(s, env, out));
                let told = format!("told={}", unheard.is_told(&self.session));
                self.said.push(told);
                self.unheard = unheard;
            }
            "watch" | "unwatch" => {
                let what = if word == "watch" { Watching::Folders } else { Watching::Nothing };
                self.begins(Request::Command(Command::Watch { what }));
            }
            "watches" => self.answered(link, self.watch, Ok(Answer::Done)),
            "watch-busy" => self.failed(link, self.watch, CommandError::Overloaded),
            "watch-not-known" => self.failed(link, self.watch, CommandError::Unsupported),
            "notice" => self.lets(|s, _, out| s.notice(link, Notice::OfOthers(FolderNews::Messages(FolderId(7))), out)),
            "list" => self.begins(Request::Command(Command::List)),
            "listen" => self.lets(|s, env, out| s.listen(env, true, out)),
            "close" => self.session.close_folder(),
            "abandon" => self.lets(|s, _, out| s.abandon(out)),
            "ms" => self.passes(Duration::from_millis(number)),
            other => panic!("no such word: {other}"),
        }
    }

    fn passes(&mut self, time: Duration) {
        let end = self.env.now + time;
        while let Some(due) = self.session.wakes_at().filter(|due| *due <= end) {
            self.env.now = self.env.now.max(due);
            self.lets(Session::due);
            assert!(self.session.wakes_at().is_none_or(|next| next > self.env.now), "it wakes again and again");
        }
        self.env.now = end;
    }

    fn letter(&mut self, id: CommandId) -> char {
        let at = self.ids.iter().position(|known| *known == id).unwrap_or_else(|| {
            self.ids.push(id);
            self.ids.len() - 1
        });
        char::from(b'a' + at as u8)
    }

    fn does(&mut self, step: Step) {
        let said = match step {
            Step::Attach { link, node } => {
                self.links = link;
                format!("attach-{node}")
            }
            Step::Detach { link } => format!("detach:{link}"),
            Step::Ask { id, command, attempt: 0, .. } if matches!(*command, Command::Resume { .. }) => {
                self.resume = Some(id);
                "resume".to_owned()
            }
            Step::Ask { id, command, attempt: 0, .. }
                if matches!(*command, Command::Watch { .. }) && self.session.asked() != Some(id) =>
            {
                self.watch = Some(id);
                "watch".to_owned()
            }
            Step::Ask { link, id, attempt, command } => {
                assert_eq!(link, self.links);
                if let Command::Heard { commands } = command.as_ref() {
                    return self.said.push(format!("heard-{}", commands.len()));
                }
                let plain = matches!(*command, Command::Append { .. });
                assert!(!plain || self.chunks != 1, "messages of one chunk are stored once here: {command:?}");
                self.asked = Some(id);
                format!("ask-{}{attempt}", self.letter(id))
            }
            Step::Seal => {
                let body = BodyId(self.env.bytes());
                self.bodies.push(body);
                let new_message = NewMessage {
                    body,
                    body_key: Key::from_bytes([0; 32]),
                    chunks: self.chunks,
                    inline: (self.chunks == 1).then(Bytes::new),
                    size_bytes: 1,
                    digest: [0; 32],
                    content_digest: [0; 32],
                    header: Bytes::new(),
                    envelope: Bytes::new(),
                    structure: Bytes::new(),
                    message_id: None,
                };
                self.said.push("seal".to_owned());
                return self.lets(|s, env, out| s.sealed(env, vec![new_message], out));
            }
            Step::SendChunk { node, body, number, .. } => {
                assert_eq!(Some(&body), self.bodies.last());
                format!("chunk-{number}@{node}")
            }
            Step::EndUpload { .. } => "end-upload".to_owned(),
            Step::Event(_) => "event".to_owned(),
            Step::Notice(Notice::Anew) => "anew".to_owned(),
            Step::Notice(Notice::ListIsHere) => "list-is-here".to_owned(),
            Step::Notice(_) => "notice".to_owned(),
            Step::Resumed { since, missed, .. } => format!("resumed-{since}+{}", missed.len()),
            Step::FolderGone(_) => "folder-gone".to_owned(),
            Step::GoesOnAs { old, new } => {
                assert!(new > old);
                "goes-on".to_owned()
            }
            Step::Finished { asked, finished, .. } => match finished {
                Finished::Done(_) => format!("DONE/{asked}"),
                Finished::NotDone(why) => format!("NOT/{why:?}"),
                Finished::Unknown => "UNKNOWN".to_owned(),
            },
        };
        self.said.push(said);
    }
}

/// Each row: what it is about, what happens, and what the session does.
fn check(rows: &[(&str, &str, &str)]) {
    for (about, words, expected) in rows {
        assert_eq!(Script::run(words), *expected, "{about}: {words}");
    }
}

#[test]
fn a_command_is_asked_until_there_is_an_answer_and_told_once() {
    check(&[
        ("the plain way", "leader:1 change attached ok", "attach-1 ask-a0 DONE/1"),
        ("the link stays", "leader:1 change attached ok change ok", "attach-1 ask-a0 DONE/1 ask-b0 DONE/1"),
        ("no other region confirms", "leader:1 change attached unconfirmed", "attach-1 ask-a0 NOT/NotConfirmed"),
        (
            "no other region confirms what may have been done before",
            "leader:1 change attached leader:2 attached unconfirmed",
            "attach-1 ask-a0 detach:1 attach-2 ask-a1 UNKNOWN",
        ),
        ("a refusal is final", "leader:1 change attached refused", "attach-1 ask-a0 NOT/Refused(OverQuota)"),
        ("nobody leads at first", "change ms:100 leader:2 attached ok", "attach-2 ask-a0 DONE/1"),
        (
            "its link breaks",
            "leader:1 change attached gone ms:15 attached ok",
            "attach-1 ask-a0 detach:1 attach-1 ask-a1 DONE/2",
        ),
        (
            "another leads",
            "leader:1 change attached leader:2 attached ok",
            "attach-1 ask-a0 detach:1 attach-2 ask-a1 DONE/2",
        ),
        (
            "another leads before it is attached",
            "leader:1 change leader:2 attached ok",
            "attach-1 detach:1 attach-2 ask-a0 DONE/1",
        ),
        ("a pause ends with news", "leader:1 change attached gone leader:2", "attach-1 ask-a0 detach:1 attach-2"),
        ("an answer comes twice", "leader:1 change attached ok ok", "attach-1 ask-a0 DONE/1"),
        (
            "a late answer over an older link, to an older attempt",
            "leader:1 change attached leader:2 attached ok:1 ok",
            "attach-1 ask-a0 detach:1 attach-2 ask-a1 DONE/2",
        ),
        (
            "an answer to the command before",
            "leader:1 change attached busy ms:15 ok change another-ok ok",
            "attach-1 ask-a0 ask-a1 DONE/2 ask-b0 DONE/1",
        ),
        (
            "the end of an older link",
            "leader:1 change attached leader:2 attached gone:1 ok",
            "attach-1 ask-a0 detach:1 attach-2 ask-a1 DONE/2",
        ),
        ("the leader is forgotten, and its link stays", "leader:1 change attached nobody ok", "attach-1 ask-a0 DONE/1"),
    ]);
}

#[test]
fn who_watches_all_folders_does_so_at_the_next_owner_too_and_hears_that_it_was_away() {
    check(&[
        ("the plain way", "leader:1 notice watch attached notice ok notice", "attach-1 ask-a0 DONE/1 notice"),
        (
            "another leads, and it watches there before anything else is asked",
            "leader:1 watch attached ok listen leader:2 change attached notice watches ok",
            "attach-1 ask-a0 DONE/1 detach:1 attach-2 watch notice anew ask-b0 DONE/1",
        ),
        (
            "behind its open folder",
            "leader:1 watch attached ok select selected listen leader:2 attached resumed watches notice",
            "attach-1 ask-a0 DONE/1 ask-b0 DONE/1 detach:1 attach-2 resume resumed-3+1 watch anew notice",
        ),
        (
            "its owner has no room",
            "leader:1 watch attached ok listen leader:2 attached watch-busy ms:250 attached watches",
            "attach-1 ask-a0 DONE/1 detach:1 attach-2 watch detach:2 attach-2 watch anew",
        ),
        (
            "its owner is too old to know it, and it goes on without, until there is another",
            "leader:1 watch attached ok leader:2 read attached watch-not-known ok listen leader:1 attached watches",
            "attach-1 ask-a0 DONE/1 detach:1 attach-2 watch ask-b0 DONE/1 detach:2 attach-1 watch anew",
        ),
        (
            "what its owner takes for open is to be looked at once it is closed",
            "leader:1 watch attached ok select selected event:1 close event:1",
            "attach-1 ask-a0 DONE/1 ask-b0 DONE/1 event notice",
        ),
        (
            "a list has all that was heard before it",
            "leader:1 list attached ok watch ok list notice ok notice",
            "attach-1 ask-a0 DONE/1 ask-b0 DONE/1 ask-c0 notice list-is-here DONE/1 notice",
        ),
        (
            "nobody watches any more",
            "leader:1 watch attached ok unwatch ok notice listen leader:2 attached notice",
            "attach-1 ask-a0 DONE/1 ask-b0 DONE/1 detach:1 attach-2",
        ),
        ("it could not be asked", "leader:1 watch attached not-known ms:2000 notice", "attach-1 ask-a0 ask-a1"),
    ]);
}

#[test]
fn that_an_answer_was_heard_is_told_to_whom_there_is_a_way_and_to_the_next_owner_too() {
    for (what, words, does) in [
        ("the plain way", "leader:1 store:1 attached ok heard", "attach-1 seal ask-a0 DONE/1 heard-1 told=true"),
        (
            "while something else waits",
            "leader:1 store:1 attached ok change heard ok",
            "attach-1 seal ask-a0 DONE/1 ask-b0 heard-1 told=true DONE/1",
        ),
        ("once", "leader:1 read attached ok heard tell", "attach-1 ask-a0 DONE/1 heard-1 told=true told=true"),
        (
            "nobody is there, and then somebody",
            "leader:1 store:1 attached ok gone heard read ms:250 attached tell ok",
            "attach-1 seal ask-a0 DONE/1 detach:1 told=false attach-1 ask-b0 heard-1 told=true DONE/1",
        ),
        (
            "another owner",
            "leader:1 read attached ok heard heard leader:2 read attached tell ok",
            "attach-1 ask-a0 DONE/1 heard-1 told=true heard-1 told=true detach:1 attach-2 ask-b0 heard-2 told=true DONE/1",
        ),
    ] {
        assert_eq!(Script::run(words), does, "{what}");
    }
}

#[test]
fn patience_ends_and_what_may_still_happen_is_told_apart() {
    let slow = ANSWER_MAX.as_millis() + 100;
    let slow = format!("leader:1 change attached ms:{slow}");
    check(&[
        ("never sent", "change ms:1600", "NOT/NoQuorum"),
        ("never sent, in time", "change ms:1599", ""),
        ("never attached", "leader:1 change ms:1600", "attach-1 detach:1 NOT/NoQuorum"),
        (
            "sent, and the link broke",
            "leader:1 change attached gone nobody ms:30000",
            "attach-1 ask-a0 detach:1 UNKNOWN",
        ),
        (
            "sent, and nobody is told anything before that",
            "leader:1 change attached gone nobody ms:29999",
            "attach-1 ask-a0 detach:1",
        ),
        (
            "a majority comes back while the client waits",
            "leader:1 change attached gone nobody ms:29000 leader:2 attached ok",
            "attach-1 ask-a0 detach:1 attach-2 ask-a1 DONE/2",
        ),
        ("the same with a read", "leader:1 read attached gone nobody ms:1600", "attach-1 ask-a0 detach:1 NOT/NoQuorum"),
        (
            "sent, and the leader is forgotten",
            "leader:1 change attached nobody ms:30000",
            "attach-1 ask-a0 detach:1 UNKNOWN",
        ),
        ("who led may have the answer still", "leader:1 change attached nobody ms:29000 ok", "attach-1 ask-a0 DONE/1"),
        (
            "a read of one who leads no more",
            "leader:1 read attached nobody ms:1600",
            "attach-1 ask-a0 detach:1 NOT/NoQuorum",
        ),
        ("a slow answer of one who leads", "leader:1 change attached ms:50000 ok", "attach-1 ask-a0 DONE/1"),
        ("one that is too slow", &slow, "attach-1 ask-a0 detach:1 UNKNOWN"),
        (
            "too slow since it leads no more",
            "leader:1 change attached ms:35000 nobody ms:1700",
            "attach-1 ask-a0 detach:1 UNKNOWN",
        ),
        (
            "too slow, and then another leads",
            "leader:1 change attached ms:35000 nobody ms:1500 leader:2 attached ok",
            "attach-1 ask-a0 detach:1 attach-2 ask-a1 DONE/2",
        ),
        (
            "the same with a read",
            "leader:1 read attached ms:35000 leader:2 attached ms:20000 ok",
            "attach-1 ask-a0 detach:1 attach-2 ask-a1 DONE/2",
        ),
        (
            "its link breaks after that time, and there is no other",
            "leader:1 change attached ms:30000 gone ms:1600",
            "attach-1 ask-a0 detach:1 attach-1 detach:2 UNKNOWN",
        ),
        (
            "and there is no room for it then",
            "leader:1 change attached ms:30000 gone ms:15 overloaded",
            "attach-1 ask-a0 detach:1 attach-1 detach:2 UNKNOWN",
        ),
        ("nobody knows", "leader:1 change attached unknown", "attach-1 ask-a0 UNKNOWN"),
        ("nobody knows of a read", "leader:1 read attached unknown", "attach-1 ask-a0 NOT/NoQuorum"),
        (
            "no link, again and again",
            "leader:1 change not-leader ms:15 not-leader ms:1600",
            "attach-1 detach:1 attach-1 detach:2 attach-1 detach:3 NOT/NoQuorum",
        ),
        ("it could not be handed over", "leader:1 change attached unsent ms:14", "attach-1 ask-a0 detach:1"),
        (
            "and then it is a first attempt still",
            "leader:1 change attached unsent ms:15 attached ok",
            "attach-1 ask-a0 detach:1 attach-1 ask-a0 DONE/1",
        ),
        (
            "or never sent",
            "leader:1 change attached ms:1500 unsent nobody ms:100",
            "attach-1 ask-a0 detach:1 NOT/Overloaded",
        ),
    ]);
    let bounds = (Duration::from_millis(1_600), Duration::from_secs(30));
    assert_eq!((NO_LEADER_MAX, IN_DOUBT_MAX), bounds, "the rows above go by them");
}

#[test]
fn who_does_nothing_says_so_and_it_is_not_forgotten() {
    check(&[
        ("overloaded, then done", "leader:1 change attached busy ms:14 ms:1 ok", "attach-1 ask-a0 ask-a1 DONE/2"),
        ("overloaded to the end", "leader:1 change attached ms:1590 busy ms:10", "attach-1 ask-a0 NOT/Overloaded"),
        (
            "overloaded after an attempt that nobody answered",
            "leader:1 change attached gone ms:15 attached ms:29980 busy ms:5",
            "attach-1 ask-a0 detach:1 attach-1 ask-a1 UNKNOWN",
        ),
        (
            "a node that is too old to know the command, and a newer one",
            "leader:1 change attached not-known leader:2 attached ok",
            "attach-1 ask-a0 detach:1 attach-2 ask-a1 DONE/2",
        ),
        (
            "only nodes that are too old",
            "leader:1 change attached ms:1590 not-known ms:10",
            "attach-1 ask-a0 NOT/Unsupported",
        ),
        ("too many owners there", "leader:1 change ms:1590 overloaded ms:10", "attach-1 detach:1 NOT/Overloaded"),
        (
            "corrupt, then handed over",
            "leader:1 change attached corrupt ms:5 leader:2 attached ok",
            "attach-1 ask-a0 detach:1 attach-2 ask-a1 DONE/2",
        ),
        (
            "corrupt, and nobody takes over",
            "leader:1 change attached ms:1590 corrupt ms:10",
            "attach-1 ask-a0 detach:1 NOT/Corrupt",
        ),
        (
            "corrupt, and the next owner is gone before it says so",
            "leader:1 change attached ms:1580 corrupt ms:15 gone ms:5",
            "attach-1 ask-a0 detach:1 attach-1 detach:2 NOT/Corrupt",
        ),
        ("a row is damaged", "leader:1 change attached damaged", "attach-1 ask-a0 NOT/Corrupt"),
        (
            "a row is damaged, and an earlier attempt may have been done",
            "leader:1 change attached gone ms:15 attached damaged",
            "attach-1 ask-a0 detach:1 attach-1 ask-a1 UNKNOWN",
        ),
        (
            "a read of a damaged row",
            "leader:1 read attached gone ms:15 attached damaged",
            "attach-1 ask-a0 detach:1 attach-1 ask-a1 NOT/Corrupt",
        ),
        ("no such mailbox", "leader:1 change attached no-mailbox", "attach-1 ask-a0 detach:1 NOT/NoSuchMailbox"),
        ("no such mailbox while attaching", "leader:1 change no-mailbox", "attach-1 detach:1 NOT/NoSuchMailbox"),
        (
            "no such mailbox while nobody asks",
            "leader:1 listen attached no-mailbox ms:249 ms:1",
            "attach-1 detach:1 attach-1",
        ),
    ]);
}

#[test]
fn an_id_that_is_too_old_is_given_up_only_where_nothing_was_done_under_it() {
    let late = ANSWER_MAX.as_millis() + 1;
    let late = format!("leader:1 change attached ms:{late} expired");
    check(&[
        ("a first attempt", "leader:1 change attached expired ok", "attach-1 ask-a0 goes-on ask-b0 DONE/1"),
        (
            "and another",
            "leader:1 change attached expired expired ok",
            "attach-1 ask-a0 goes-on ask-b0 goes-on ask-c0 DONE/1",
        ),
        (
            "its patience is what was left of it",
            "leader:1 change attached ms:29900 expired gone nobody ms:1600",
            "attach-1 ask-a0 goes-on ask-b0 detach:1 UNKNOWN",
        ),
        (
            "a slow answer is taken up all the same",
            "leader:1 change attached ms:3000 expired ok",
            "attach-1 ask-a0 goes-on ask-b0 DONE/1",
        ),
        ("but not for ever", &late, "attach-1 ask-a0 detach:1 UNKNOWN"),
        (
            "a later attempt, after one that did nothing",
            "leader:1 change attached busy ms:15 expired",
            "attach-1 ask-a0 ask-a1 NOT/Expired",
        ),
        (
            "a later attempt, after one that nobody answered",
            "leader:1 change attached gone ms:15 attached expired",
            "attach-1 ask-a0 detach:1 attach-1 ask-a1 UNKNOWN",
        ),
        (
            "a message is sealed anew for the new id",
            "leader:1 store:1 attached expired ok",
            "attach-1 seal ask-a0 goes-on seal ask-b0 DONE/1",
        ),
    ]);
}

#[test]
fn a_large_body_goes_first_and_anew_to_each_leader() {
    check(&[
        ("one chunk goes with the command", "leader:1 store:1 attached ok", "attach-1 seal ask-a0 DONE/1"),
        (
            "two go before it",
            "leader:1 store:2 attached chunk chunk ok",
            "attach-1 seal chunk-0@1 chunk-1@1 end-upload ask-a0 DONE/1",
        ),
        (
            "another leads in the middle",
            "leader:1 store:2 attached chunk leader:2 attached ms:1 old-chunk ms:1 chunk chunk ok",
            "attach-1 seal chunk-0@1 chunk-1@1 detach:1 end-upload attach-2 seal chunk-0@2 chunk-1@2 end-upload ask-a0 DONE/1",
        ),
        (
            "a chunk fails",
            "leader:1 store:2 attached chunk no-chunk ms:17 chunk chunk ok",
            "attach-1 seal chunk-0@1 chunk-1@1 end-upload seal chunk-0@1 chunk-1@1 end-upload ask-a0 DONE/1",
        ),
        (
            "each time it is waited for twice as long",
            "leader:1 store:2 attached no-chunk ms:17 no-chunk ms:18 ms:1 no-chunk ms:22 ms:1 no-chunk leader:2 ms:1600",
            "attach-1 seal chunk-0@1 chunk-1@1 end-upload seal chunk-0@1 chunk-1@1 end-upload seal chunk-0@1 chunk-1@1 \
             end-upload seal chunk-0@1 chunk-1@1 end-upload detach:1 attach-2 detach:2 NOT/NoQuorum",
        ),
        (
            "no other region confirms",
            "leader:1 store:2 attached chunk unconfirmed-chunk",
            "attach-1 seal chunk-0@1 chunk-1@1 end-upload NOT/NotConfirmed",
        ),
        (
            "the body is swept before it is used",
            "leader:1 store:2 attached chunk chunk lost ms:17 chunk chunk ok",
            "attach-1 seal chunk-0@1 chunk-1@1 end-upload ask-a0 seal chunk-0@1 chunk-1@1 end-upload ask-a1 DONE/2",
        ),
        (
            "swept to the end",
            "leader:1 store:2 attached ms:1590 chunk chunk lost ms:10",
            "attach-1 seal chunk-0@1 chunk-1@1 end-upload ask-a0 NOT/BodyLost",
        ),
        (
            "the link breaks in the middle, and nobody leads",
            "leader:1 store:2 attached chunk gone nobody ms:1600",
            "attach-1 seal chunk-0@1 chunk-1@1 detach:1 end-upload NOT/NoQuorum",
        ),
        (
            "chunks are as slow as an answer may be",
            "leader:1 store:2 attached chunk ms:30000 chunk ok",
            "attach-1 seal chunk-0@1 chunk-1@1 end-upload ask-a0 DONE/1",
        ),
        (
            "but no slower, and nothing was asked",
            "leader:1 store:2 attached chunk ms:61000",
            "attach-1 seal chunk-0@1 chunk-1@1 detach:1 end-upload NOT/NoQuorum",
        ),
    ]);
}

#[test]
fn no_more_chunks_are_under_way_than_the_bound() {
    let sent = |words: &str| Script::run(words).matches("chunk-").count();
    assert_eq!(sent("leader:1 store:20 attached"), CHUNKS_UNANSWERED_MAX);
    assert_eq!(sent("leader:1 store:20 attached chunk chunk chunk"), CHUNKS_UNANSWERED_MAX + 3);
    let all = format!("leader:1 store:20 attached {} ok", "chunk ".repeat(20));
    assert_eq!(sent(&all), 20);
    assert!(Script::run(&all).ends_with("chunk-19@1 end-upload ask-a0 DONE/1"));
}

#[test]
fn an_open_folder_is_resumed_before_anything_is_asked() {
    let open = |words: &str| {
        let all = Script::run(&format!("leader:1 select attached selected {words}"));
        all.strip_prefix("attach-1 ask-a0 DONE/1").map(|rest| rest.trim().to_owned()).unwrap_or(all)
    };
    for (about, words, expected) in [
        ("events of it are told", "event:1", "event"),
        ("those of another folder are not", "event:2", ""),
        ("nor those of one that was closed", "close event:1", ""),
        (
            "at another leader",
            "change leader:2 attached resumed ok",
            "ask-b0 detach:1 attach-2 resume resumed-3+1 ask-b1 DONE/2",
        ),
        (
            "from the MODSEQ that was heard last",
            "event:1 change leader:2 attached resumed",
            "event ask-b0 detach:1 attach-2 resume resumed-4+1 ask-b1",
        ),
        (
            "the link breaks during it",
            "change leader:2 attached gone ms:15 attached resumed ok",
            "ask-b0 detach:1 attach-2 resume detach:2 attach-2 resume resumed-3+1 ask-b1 DONE/2",
        ),
        (
            "it lasts while the mailbox is loaded by one who leads",
            "gone change attached ms:50000 resumed ok",
            "detach:1 attach-1 resume resumed-3+1 ask-b0 DONE/1",
        ),
        (
            "or by one after another",
            "gone change attached ms:20000 nobody ms:1500 leader:2 attached ms:20000 resumed ok",
            "detach:1 attach-1 resume detach:2 attach-2 resume resumed-3+1 ask-b0 DONE/1",
        ),
        ("for too long", "gone change attached ms:60000", "detach:1 attach-1 resume detach:2 NOT/Overloaded"),
        (
            "nobody leads during it",
            "gone change attached nobody ms:1600",
            "detach:1 attach-1 resume detach:2 NOT/NoQuorum",
        ),
        (
            "nobody leads after a while",
            "gone change attached ms:9000 nobody ms:1599 ms:1",
            "detach:1 attach-1 resume detach:2 NOT/NoQuorum",
        ),
        (
            "who leads has no room after a while",
            "gone change attached ms:9000 resume-busy",
            "detach:1 attach-1 resume detach:2 NOT/Overloaded",
        ),
        (
            "the owner is too busy",
            "gone change attached resume-busy ms:15 attached resumed ok",
            "detach:1 attach-1 resume detach:2 attach-1 resume resumed-3+1 ask-b0 DONE/1",
        ),
        ("no such mailbox", "gone change attached no-mailbox", "detach:1 attach-1 resume detach:2 NOT/NoSuchMailbox"),
        (
            "it is no more",
            "change leader:2 attached resume-gone ok",
            "ask-b0 detach:1 attach-2 resume folder-gone ask-b1 DONE/2",
        ),
        ("an answer that is not its own", "change leader:2 attached ok", "ask-b0 detach:1 attach-2 resume"),
        ("nobody listens", "leader:2 ms:1000", "detach:1"),
        ("somebody does", "listen leader:2 attached resumed", "detach:1 attach-2 resume resumed-3+1"),
        ("and tries again, slowly", "listen gone ms:249 ms:1", "detach:1 attach-1"),
        (
            "closed during it",
            "listen leader:2 attached close resumed change ok",
            "detach:1 attach-2 resume ask-b0 DONE/1",
        ),
        ("a command ends listening", "listen change ok leader:2", "ask-b0 DONE/1 detach:1"),
    ] {
        assert_eq!(open(words), expected, "{about}: {words}");
    }
}

#[test]
fn who_waits_no_more_hears_no_late_answer() {
    check(&[
        (
            "asked",
            "leader:1 change attached abandon ok:1 change attached ok",
            "attach-1 ask-a0 detach:1 attach-1 ask-b0 DONE/1",
        ),
        (
            "in the middle of an upload",
            "leader:1 store:2 attached abandon chunk ms:2000",
            "attach-1 seal chunk-0@1 chunk-1@1 detach:1 end-upload",
        ),
        ("nothing was begun", "leader:1 change attached ok abandon change ok", "attach-1 ask-a0 DONE/1 ask-b0 DONE/1"),
    ]);
}

#[test]
#[should_panic(expected = "one thing at a time")]
fn two_commands_at_once_are_a_fault_of_the_shell() {
    Script::run("leader:1 change change");
}

#[test]
#[should_panic(expected = "an id names one command")]
fn an_id_is_never_used_for_another_command() {
    let mut script = Script::new();
    ["leader:1", "change", "attached", "ok"].into_iter().for_each(|word| script.hears(word));
    let id = script.ids[0];
    script.lets(|session, env, out| session.begin(env, id, Request::Command(Command::List), out));
}
