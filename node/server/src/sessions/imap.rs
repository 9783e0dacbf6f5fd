//! The IMAP engine's mailbox: this node's links to the actor.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use mailraft_imap::{Config, Mailstore, Session};
use mailraft_mailbox::api::{Change, FolderId, Once, ZonedTime};
use mailraft_mailbox::search_index::SearchAnswer;
use mailraft_mailbox::{
    Answer, Command, Event, Finished, Flags, MessageKind, Notice, Unheard, answer_bytes, event_bytes,
};
use mailraft_protocol::{Failure, Mailbox, Refusal, Tls};
use mailraft_storage::CommandId;
use zeroize::Zeroizing;

use super::context::SessionContext;
use super::deflated::DEFLATED_MEMORY_BYTES;
use super::request::request_digest;
use crate::environment::{command_id, zoned_now};
use crate::links::{MailboxSession, stored_under};
use crate::logged_in::Login;
use crate::memory::AccountShare;
use crate::places::Place;
use crate::refusals;
use crate::spool::{Entrance, Spool, SpoolRefused};

/// An open folder takes so many times its list of messages: the view, and what it needs to go on elsewhere.
const VIEW_TIMES: usize = 2;

/// That the index looks at one message counts as so many bytes that are read for the command,
const NARROWED_COMPUTES_AS_BYTES: usize = 32;
/// and so many for each text.
const NARROWED_TEXT_COMPUTES_AS_BYTES: usize = 8;

/// A client hears so often how far a command is that takes long (RFC 9585, section 3.1).
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// A session at its start; `tls` if TLS is up already. Without a place it is only to be refused.
pub fn session(context: &SessionContext, peer: IpAddr, tls: Option<Tls>, place: Option<Place>) -> Session<Store> {
    let config = context.services.config();
    let config_of_session = Config {
        max_message_bytes: config.limits.max_message_bytes,
        tls_available: true,
        login_max: config.limits.login_max,
    };
    Session::new(config_of_session, tls, Store::new(context.clone(), peer, place))
}

/// A session's mailbox as the engine asks for it.
pub struct Store {
    context: SessionContext,
    peer: IpAddr,
    place: Option<Place>,
    login: Option<Login>,
    mailbox: Option<MailboxSession>,
    spool: Option<Result<Spool, SpoolRefused>>,
    unheard: Unheard,
    opened: Option<Taken>,
    /// What the command that is carried out keeps of messages.
    held: Option<Taken>,
    /// When its client was last told how far its command is, or that began.
    progress_told: Instant,
    /// What compressing the connection takes.
    compression: Option<Taken>,
    /// What it keeps to be notified of other folders.
    notified: Option<Taken>,
}

impl Store {
    /// Nobody is logged in yet.
    fn new(context: SessionContext, peer: IpAddr, place: Option<Place>) -> Self {
        Store {
            context,
            peer,
            place,
            login: None,
            mailbox: None,
            spool: None,
            unheard: Unheard::default(),
            opened: None,
            held: None,
            progress_told: Instant::now(),
            compression: None,
            notified: None,
        }
    }
}

impl Store {
    /// Puts the message that was kept into the mailbox: its folder's UIDVALIDITY and its UID.
    async fn store(&mut self, kind: MessageKind, once: Option<Once>) -> Result<(u32, u32), Failure> {
        let spool = self.spool.take().unwrap_or_else(|| Spool::new(&self.context.budget));
        let received = match spool {
            Ok(spool) => spool.finish(b"", Entrance::Append).await,
            Err(refused) => Err(refused),
        };
        let received = received.map_err(refusals::spool)?;
        let Some(mailbox) = self.mailbox.as_mut() else { return Err(Refusal::NoSuchMailbox.into()) };
        let id = command_id(&self.context.services.cluster);
        let stored = mailbox.store(id, kind, once.clone(), &received).await;
        if let Some(once) = once {
            self.unheard.answered(once, stored_under(&stored));
        }
        let stored = ended(id, stored)?;
        Ok((stored.uid_validity, stored.uid))
    }

    /// Puts the messages that were kept into a folder, all or none: its UIDVALIDITY and their UIDs.
    async fn store_many(&mut self, kind: MessageKind, once: Once) -> Result<(u32, Vec<u32>), Failure> {
        let spool = self.spool.take().unwrap_or_else(|| Spool::new(&self.context.budget)).map_err(refusals::spool)?;
        let messages = spool.finish_each().await.map_err(refusals::spool)?;
        let Some(mailbox) = self.mailbox.as_mut() else { return Err(Refusal::NoSuchMailbox.into()) };
        let id = command_id(&self.context.services.cluster);
        let (id, appended) = mailbox.append_many(id, kind, Some(once.clone()), &messages).await;
        self.unheard.answered(once, matches!(appended, Finished::Done(_)).then_some(id));
        ended(id, appended)
    }
}

impl Mailbox for Store {
    async fn ask(&mut self, command: Command) -> Result<Answer, Failure> {
        let Some(mailbox) = self.mailbox.as_mut() else { return Err(Refusal::NoSuchMailbox.into()) };
        let id = command_id(&self.context.services.cluster);
        let begun = Instant::now();
        let asked = match &command {
            Command::Copy { .. } => {
                let once = self.unheard.once([0; 32]);
                let (id, asked) = mailbox.ask_once(id, once.clone(), command).await;
                self.unheard.answered(once, matches!(asked, Finished::Done(_)).then_some(id));
                asked
            }
            Command::Fetch { .. } | Command::ReadChunk { .. } | Command::ReadChunks { .. } | Command::Search(_) => {
                mailbox.tell_heard(&mut self.unheard);
                self.context.turn.reads(mailbox.ask(id, command), bytes_of).await?
            }
            _ => {
                mailbox.tell_heard(&mut self.unheard);
                mailbox.ask(id, command).await
            }
        };
        ::metrics::histogram!("mailraft_command_seconds", "protocol" => "imap").record(begun.elapsed().as_secs_f64());
        let answer = ended(id, asked).map(|(answer, _)| answer)?;
        if let (Answer::Selected(selected), Some(opened)) = (&answer, &mut self.opened) {
            let (bytes, messages) = (VIEW_TIMES * answer_bytes(&answer), selected.messages.len());
            if !opened.try_become(bytes) {
                let why = has_no_room(bytes, &opened.share, messages);
                // What came is dropped, and nothing is heard of the folder from now on.
                mailbox.close_folder();
                mailbox.ask(command_id(&self.context.services.cluster), Command::Unselect).await;
                return Err(why.into());
            }
        }
        Ok(answer)
    }
}

impl Mailstore for Store {
    async fn login(&mut self, user: &str, password: Zeroizing<String>) -> Result<(), Failure> {
        let verified = self.context.services.credentials.verify(user, password, "imap", self.peer).await;
        let account = verified.map_err(refusals::login)?;
        self.context.turn.belongs_to(account.mailbox);
        let share = || Taken::none(self.context.services.memory.views.of(account.mailbox));
        (self.opened, self.held, self.compression, self.notified) =
            (Some(share()), Some(share()), Some(share()), Some(share()));
        self.mailbox = Some(MailboxSession::new(self.context.services.reach(), account.mailbox));
        if let Some(place) = &self.place {
            place.logged_in(account.mailbox);
            self.login = Some(self.context.services.logged_in.enter(&account, place));
        }
        Ok(())
    }

    fn begin_command(&mut self) {
        self.context.turn.begin_command();
        self.progress_told = Instant::now();
        if let Some(held) = &mut self.held {
            held.try_become(0);
        }
    }

    fn is_progress_due(&mut self) -> bool {
        let due = self.progress_told.elapsed() >= PROGRESS_EVERY;
        if due {
            self.progress_told = Instant::now();
        }
        due
    }

    fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        taken(&mut self.held, bytes)
    }

    fn now_unix_seconds(&self) -> i64 {
        zoned_now().unix_seconds
    }

    async fn breathe(&mut self) -> Result<(), Refusal> {
        self.context.turn.breathe().await
    }

    fn compress(&mut self) -> Result<(), Refusal> {
        taken(&mut self.compression, DEFLATED_MEMORY_BYTES)
    }

    async fn wait_for_event(&mut self) {
        match self.mailbox.as_mut() {
            Some(mailbox) => mailbox.wait_for_event().await,
            None => std::future::pending().await,
        }
    }

    fn take_events(&mut self) -> Vec<Event> {
        let events = self.mailbox.as_mut().map(MailboxSession::take_events).unwrap_or_default();
        if let Some(opened) = &mut self.opened {
            let added = events.iter().filter(|event| matches!(event.change, Change::Added(_)));
            opened.grow(added.map(|event| VIEW_TIMES * event_bytes(event)).sum());
        }
        events
    }

    fn take_notices(&mut self) -> Vec<Notice> {
        self.mailbox.as_mut().map(MailboxSession::take_notices).unwrap_or_default()
    }

    fn keep_for_notify(&mut self, bytes: usize) -> Result<(), Refusal> {
        taken(&mut self.notified, bytes)
    }

    fn client_went_on(&mut self) {
        self.unheard.client_went_on();
    }

    fn tell_heard(&mut self) {
        if let Some(mailbox) = self.mailbox.as_mut() {
            mailbox.tell_heard(&mut self.unheard);
        }
    }

    async fn client_leaves(&mut self) {
        if let Some(mailbox) = self.mailbox.as_mut() {
            mailbox.leave(&mut self.unheard).await;
        }
        self.unheard = Unheard::default();
    }

    fn close_folder(&mut self) {
        if let Some(opened) = &mut self.opened {
            opened.try_become(0);
        }
        if let Some(mailbox) = self.mailbox.as_mut() {
            mailbox.close_folder();
        }
    }

    fn begin_message(&mut self) -> Result<(), Refusal> {
        self.context.services.has_room()?;
        let bounds = self.context.services.bounds();
        match &self.place {
            Some(place) if !place.begin_message(&bounds) => Err(Refusal::Overloaded),
            Some(_) | None => Ok(()),
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if let Some(place) = &self.place {
            place.took(bytes.len());
        }
        let directory = self.context.services.config().data_dir.clone();
        let budget = &self.context.budget;
        let spool = self.spool.get_or_insert_with(|| Spool::new(budget));
        match spool {
            Ok(_) if self.context.services.disk.is_low() => Err(refusals::spool(SpoolRefused::NoRoom)),
            Ok(kept) => kept.write(bytes, &directory).map_err(refusals::spool),
            Err(refused) => Err(refusals::spool(*refused)),
        }
    }

    fn next_message(&mut self) -> Result<(), Refusal> {
        self.context.services.has_room()?;
        let budget = &self.context.budget;
        match self.spool.get_or_insert_with(|| Spool::new(budget)) {
            Ok(kept) => kept.end_message(),
            Err(refused) => return Err(refusals::spool(*refused)),
        }
        Ok(())
    }

    fn discard(&mut self) {
        self.spool = None;
    }

    async fn replace(
        &mut self,
        (folder, uid): (FolderId, u32),
        to: String,
        flags: Flags,
        internal_date: Option<ZonedTime>,
    ) -> Result<(u32, u32), Failure> {
        let internal_date = internal_date.unwrap_or_else(zoned_now);
        self.store(MessageKind::Replace { folder, uid, to, flags, internal_date }, None).await
    }

    async fn append(
        &mut self,
        folder: String,
        mut each: Vec<(Flags, Option<ZonedTime>)>,
    ) -> Result<(u32, Vec<u32>), Failure> {
        // A date that the client gave is part of what it asked; ours is another one each time.
        let dates: Vec<Vec<u8>> = match each.as_slice() {
            [(_, date)] => date.iter().flat_map(|date| date_parts(*date)).collect(),
            several => several.iter().map(|(_, date)| date.map_or_else(Vec::new, |d| date_parts(d).concat())).collect(),
        };
        let once = self.unheard.once(request_digest(dates.iter().map(Vec::as_slice)));
        if each.len() == 1 {
            let (flags, internal_date) = each.remove(0);
            let kind = MessageKind::Append { folder, flags, internal_date: internal_date.unwrap_or_else(zoned_now) };
            return self.store(kind, Some(once)).await.map(|(uid_validity, uid)| (uid_validity, vec![uid]));
        }
        let each = each.into_iter().map(|(flags, date)| (flags, date.unwrap_or_else(zoned_now))).collect();
        self.store_many(MessageKind::AppendMany { folder, each }, once).await
    }
}

/// What a session's open folder takes of its account's share, until it is dropped.
struct Taken {
    share: AccountShare,
    bytes: usize,
}

impl Taken {
    fn none(share: AccountShare) -> Self {
        Taken { share, bytes: 0 }
    }

    /// Another folder is open, or none; false, and nothing is taken, if there is no room for it.
    fn try_become(&mut self, bytes: usize) -> bool {
        self.share.give_back(std::mem::take(&mut self.bytes));
        let taken = self.share.try_take(bytes);
        if taken {
            self.bytes = bytes;
        }
        taken
    }

    /// The folder has grown: that is not refused, and the next one to be opened is.
    fn grow(&mut self, bytes: usize) {
        self.share.take(bytes);
        self.bytes += bytes;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.share.give_back(self.bytes);
    }
}

/// Why a folder of so many messages that takes so many bytes is not opened by an account with this share.
fn has_no_room(bytes: usize, share: &AccountShare, messages: usize) -> Refusal {
    let part_bytes = share.part();
    if bytes <= part_bytes && share.has(bytes) {
        // Those of others are open.
        return Refusal::Overloaded;
    }
    if bytes <= part_bytes {
        return Refusal::Limit(
            "your other sessions have folders open that leave no memory for one of this size: close one of them there"
                .to_owned(),
        );
    }
    Refusal::Limit(format!(
        "too many messages for this server's memory: the folder has {messages}, and about {} can be open: whoever runs it may give \
         it more (limits.memory_bytes)",
        messages.saturating_mul(part_bytes / 1024) / (bytes / 1024).max(1)
    ))
}

/// What a date is, for a digest.
fn date_parts(date: ZonedTime) -> [Vec<u8>; 2] {
    [date.unix_seconds.to_be_bytes().to_vec(), date.zone_minutes.to_be_bytes().to_vec()]
}

/// So many bytes are taken, of whatever share there is.
fn taken(of: &mut Option<Taken>, bytes: usize) -> Result<(), Refusal> {
    let has_room = of.as_mut().is_some_and(|of| of.try_become(bytes));
    if has_room { Ok(()) } else { Err(Refusal::Overloaded) }
}

/// How large an answer to a read is.
pub(super) fn bytes_of<P>(asked: &Finished<(Answer, P)>) -> usize {
    match asked {
        Finished::Done((Answer::Chunk(Some(chunk)), _)) => chunk.len(),
        Finished::Done((Answer::Chunks(chunks), _)) => chunks.iter().flatten().map(bytes::Bytes::len).sum(),
        Finished::Done((Answer::Fetched(fetched), _)) => {
            let headers = fetched.iter().filter_map(|message| message.header.as_ref());
            headers.map(|of| of.header.len() + of.envelope.len() + of.structure.len()).sum()
        }
        Finished::Done((Answer::Search(SearchAnswer::Narrowed { indexed, lacking }), _)) => {
            let of_one = NARROWED_COMPUTES_AS_BYTES + lacking.len() * NARROWED_TEXT_COMPUTES_AS_BYTES;
            usize::try_from(indexed.len()).map_or(usize::MAX, |messages| messages.saturating_mul(of_one))
        }
        Finished::Done(_) | Finished::NotDone(_) | Finished::Unknown => 0,
    }
}

/// How a command ended, as the engine hears it.
pub(super) fn ended<T>(id: CommandId, finished: Finished<T>) -> Result<T, Failure> {
    match finished {
        Finished::Done(done) => Ok(done),
        Finished::NotDone(why) => {
            tracing::debug!(command = %id, %why, "a command was not carried out");
            Err(refusals::not_done(why).into())
        }
        Finished::Unknown => {
            tracing::debug!(command = %id, "it is not known whether a command was carried out");
            Err(Failure::Unknown)
        }
    }
}

#[cfg(test)]
mod tests {
    use mailraft_storage::MailboxId;

    use super::*;
    use crate::memory::SharedByAccounts;

    #[test]
    fn a_folder_that_never_fits_into_memory_is_told_apart_from_a_bad_moment() {
        let of = |bytes: usize| SharedByAccounts::new(bytes, 1).of(MailboxId([1; 16]));
        assert_eq!(has_no_room(64 << 20, &of(64 << 20), 1_000_000), Refusal::Overloaded);
        let used = of(64 << 20);
        assert!(used.try_take(1));
        let own = has_no_room(64 << 20, &used, 1_000_000);
        assert!(matches!(&own, Refusal::Limit(words) if words.starts_with("your other sessions")), "{own:?}");
        let never = has_no_room(64 << 20, &of(32 << 20), 1_000_000);
        let words = "too many messages for this server's memory: the folder has 1000000, and about 500000 can be open: whoever runs \
                     it may give it more (limits.memory_bytes)";
        assert_eq!(never, Refusal::Limit(words.to_owned()));
    }

    #[test]
    fn open_folders_have_a_share_of_memory_and_give_it_back() {
        let views = SharedByAccounts::new(1_000, 2);
        let of = |n: u8| Taken::none(views.of(MailboxId([n; 16])));
        let (mut first, mut second, mut other) = (of(1), of(1), of(2));
        assert!(first.try_become(400) && !second.try_become(200) && other.try_become(500));
        assert!(first.try_become(450), "instead of what it had");
        other.grow(200);
        assert!(!second.try_become(10), "nobody opens anything as long as there is too much");
        drop(other);
        assert!(second.try_become(50) && first.try_become(0));
        drop((first, second));
        assert_eq!(views.node().used(), 0);
    }
}
