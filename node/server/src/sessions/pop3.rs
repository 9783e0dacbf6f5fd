//! The POP3 engine's maildrop: this node's links to the actor.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use mailraft_mailbox::api::MaildropHolder;
use mailraft_mailbox::{Answer, Command};
use mailraft_pop3::{Config, Maildrop, Session};
use mailraft_protocol::{Failure, Mailbox, Refusal, Tls};
use zeroize::Zeroizing;

use super::context::SessionContext;
use super::imap::{bytes_of, ended};
use crate::environment::{command_id, os_env};
use crate::links::MailboxSession;
use crate::logged_in::Login;
use crate::places::Place;
use crate::refusals;

/// After this long without a question the mailbox hears that the session is there: well below the time after which a new
/// login takes the maildrop.
const SILENT_AFTER: Duration = Duration::from_secs(10);
/// A client that leaves is kept so long until its maildrop is given back.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// A session at its start; `tls` if TLS is up already. Without a place it is only to be refused.
pub fn session(context: &SessionContext, peer: IpAddr, tls: Option<Tls>, place: Option<Place>) -> Session<Store> {
    let config = Config { tls_available: true, login_max: context.services.config().limits.login_max };
    let store = Store {
        context: context.clone(),
        peer,
        place,
        login: None,
        mailbox: None,
        holder: MaildropHolder(os_env().bytes()),
        asked: Instant::now(),
    };
    Session::new(config, tls, store)
}

/// A session's maildrop as the engine asks for it.
pub struct Store {
    context: SessionContext,
    peer: IpAddr,
    place: Option<Place>,
    login: Option<Login>,
    mailbox: Option<MailboxSession>,
    holder: MaildropHolder,
    /// When the mailbox was asked last.
    asked: Instant,
}

impl Mailbox for Store {
    async fn ask(&mut self, command: Command) -> Result<Answer, Failure> {
        let Some(mailbox) = self.mailbox.as_mut() else { return Err(Refusal::NoSuchMailbox.into()) };
        let id = command_id(&self.context.services.cluster);
        let begun = Instant::now();
        let reads_rows = matches!(command, Command::ReadChunk { .. } | Command::UniqueIds { .. });
        let asked = mailbox.ask(id, Command::InMaildrop { holder: self.holder, command: Box::new(command) });
        let asked = if reads_rows { self.context.turn.reads(asked, bytes_of).await? } else { asked.await };
        self.asked = Instant::now();
        ::metrics::histogram!("mailraft_command_seconds", "protocol" => "pop3").record(begun.elapsed().as_secs_f64());
        ended(id, asked).map(|(answer, _)| answer)
    }
}

impl Maildrop for Store {
    async fn login(&mut self, user: &str, password: Zeroizing<String>) -> Result<(), Failure> {
        let verified = self.context.services.credentials.verify(user, password, "pop3", self.peer).await;
        let account = verified.map_err(refusals::login)?;
        self.context.turn.belongs_to(account.mailbox);
        self.mailbox = Some(MailboxSession::new(self.context.services.reach(), account.mailbox));
        if let Some(place) = &self.place {
            place.logged_in(account.mailbox);
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

    fn is_silent(&self) -> bool {
        self.asked.elapsed() >= SILENT_AFTER
    }

    async fn wait_for_another_owner(&mut self) {
        match self.mailbox.as_mut() {
            Some(mailbox) => mailbox.wait_for_another_owner().await,
            None => std::future::pending().await,
        }
    }

    async fn leave(&mut self) {
        // Where it can't be told, the link's end tells it.
        let _ = tokio::time::timeout(LEAVE_MAX, self.ask(Command::Unselect)).await;
        self.mailbox = None;
    }
}
