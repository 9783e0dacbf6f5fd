//! The IMAP engine's mailbox: this node's links to the actor.

use std::net::IpAddr;
use std::time::Instant;

use mailraft_imap::{Config, Mailstore, Session};
use mailraft_mailbox::api::ZonedTime;
use mailraft_mailbox::{Answer, Command, Event, Finished, Flags, MessageKind, Unheard};
use mailraft_protocol::{Failure, Mailbox, Refusal, Tls};
use mailraft_storage::CommandId;
use zeroize::Zeroizing;

use super::context::SessionContext;
use super::request::request_digest;
use crate::environment::{command_id, zoned_now};
use crate::links::{MailboxSession, stored_under};
use crate::logged_in::Login;
use crate::places::Place;
use crate::refusals;
use crate::spool::{Spool, SpoolRefused};

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
}

impl Store {
    /// Nobody is logged in yet.
    fn new(context: SessionContext, peer: IpAddr, place: Option<Place>) -> Self {
        Store { context, peer, place, login: None, mailbox: None, spool: None, unheard: Unheard::default() }
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
            Command::Fetch { .. } | Command::ReadChunk { .. } => {
                mailbox.tell_heard(&mut self.unheard);
                self.context.turn.reads(mailbox.ask(id, command), bytes_of).await?
            }
            _ => {
                mailbox.tell_heard(&mut self.unheard);
                mailbox.ask(id, command).await
            }
        };
        ::metrics::histogram!("mailraft_command_seconds", "protocol" => "imap").record(begun.elapsed().as_secs_f64());
        ended(id, asked).map(|(answer, _)| answer)
    }
}

impl Mailstore for Store {
    async fn login(&mut self, user: &str, password: Zeroizing<String>) -> Result<(), Failure> {
        let verified = self.context.services.credentials.verify(user, password, "imap", self.peer).await;
        let account = verified.map_err(refusals::login)?;
        self.context.turn.belongs_to(account.mailbox);
        self.mailbox = Some(MailboxSession::new(self.context.services.reach(), account.mailbox));
        if let Some(place) = &self.place {
            place.logged_in();
            self.login = Some(self.context.services.logged_in.enter(&account, place));
        }
        Ok(())
    }

    fn begin_command(&mut self) {
        self.context.turn.begin_command();
    }

    async fn breathe(&mut self) -> Result<(), Refusal> {
        self.context.turn.breathe().await
    }

    async fn wait_for_event(&mut self) {
        match self.mailbox.as_mut() {
            Some(mailbox) => mailbox.wait_for_event().await,
            None => std::future::pending().await,
        }
    }

    fn take_events(&mut self) -> Vec<Event> {
        self.mailbox.as_mut().map(MailboxSession::take_events).unwrap_or_default()
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
        let directory = self.context.services.config().data_dir.clone();
        let budget = &self.context.budget;
        let spool = self.spool.get_or_insert_with(|| Spool::new(budget));
        match spool {
            Ok(_) if self.context.services.disk.is_low() => Err(refusals::spool(SpoolRefused::NoRoom)),
            Ok(kept) => kept.write(bytes, &directory).map_err(refusals::spool),
            Err(refused) => Err(refusals::spool(*refused)),
        }
    }

    fn discard(&mut self) {
        self.spool = None;
    }

    async fn append(
        &mut self,
        folder: String,
        flags: Flags,
        internal_date: Option<ZonedTime>,
    ) -> Result<(u32, u32), Failure> {
        let spool = self.spool.take().unwrap_or_else(|| Spool::new(&self.context.budget));
        let received = match spool {
            Ok(spool) => spool.finish(b"", None).await,
            Err(refused) => Err(refused),
        };
        let received = received.map_err(refusals::spool)?;
        let Some(mailbox) = self.mailbox.as_mut() else { return Err(Refusal::NoSuchMailbox.into()) };
        // A date that the client gave is part of what it asked; ours is another one each time.
        let date = internal_date.map(|date| (date.unix_seconds.to_be_bytes(), date.zone_minutes.to_be_bytes()));
        let request = request_digest(date.iter().flat_map(|(seconds, zone)| [seconds.as_slice(), zone.as_slice()]));
        let once = self.unheard.once(request);
        let kind = MessageKind::Append { folder, flags, internal_date: internal_date.unwrap_or_else(zoned_now) };
        let id = command_id(&self.context.services.cluster);
        let stored = mailbox.store(id, kind, Some(once.clone()), &received).await;
        self.unheard.answered(once, stored_under(&stored));
        let stored = ended(id, stored)?;
        Ok((stored.uid_validity, stored.uid))
    }
}

/// How large an answer to a read is.
pub(super) fn bytes_of<P>(asked: &Finished<(Answer, P)>) -> usize {
    match asked {
        Finished::Done((Answer::Chunk(Some(chunk)), _)) => chunk.len(),
        Finished::Done((Answer::Fetched(fetched), _)) => {
            let headers = fetched.iter().filter_map(|message| message.header.as_ref());
            headers.map(|of| of.header.len() + of.envelope.len() + of.structure.len()).sum()
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
