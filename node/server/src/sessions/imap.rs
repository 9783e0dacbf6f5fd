//! An IMAP session over a socket.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mailraft_imap::{Config, LoginFailure, Mailstore, Output, ReceiveFailure, Session, StoreFailure, Turn};
use mailraft_mailbox::api::ZonedTime;
use mailraft_mailbox::{Answer, Command, Event, Flags, MessageKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::Connection;
use super::shared::{HANDSHAKE_TIMEOUT, Shared, stopped};
use crate::credentials::LoginRefused;
use crate::environment::{command_id, zoned_now};
use crate::links::MailboxSession;
use crate::refusals;
use crate::spool::{Spool, SpoolRefused};

/// A silent client is waited for this long: 30 minutes are the least once logged in (RFC 3501, section 5.4).
const IDLE_MAX: Duration = Duration::from_secs(31 * 60);
/// The same before a login.
const LOGIN_MAX: Duration = Duration::from_secs(60);
/// A client that does not read is waited for this long.
const WRITE_MAX: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 32 << 10;

/// Serves a connection that begins in clear.
///
/// # Errors
/// Those of the connection.
pub async fn serve(shared: Shared, socket: TcpStream, peer: SocketAddr) -> io::Result<()> {
    let mut session = Session::new(config(&shared), false);
    let greeting = session.greeting();
    match talk(&shared, &mut session, socket, peer, &greeting).await? {
        None => Ok(()),
        Some(socket) => {
            let accepted = timeout(HANDSHAKE_TIMEOUT, shared.tls.acceptor().accept(socket)).await;
            let tls = accepted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            session.tls_started();
            talk(&shared, &mut session, tls, peer, b"").await.map(|_| ())
        }
    }
}

/// Serves a connection that is TLS from the start.
///
/// # Errors
/// Those of the connection.
pub async fn serve_tls<C: Connection>(shared: Shared, connection: C, peer: SocketAddr) -> io::Result<()> {
    let mut session = Session::new(config(&shared), true);
    let greeting = session.greeting();
    talk(&shared, &mut session, connection, peer, &greeting).await.map(|_| ())
}

fn config(shared: &Shared) -> Config {
    Config { max_message_bytes: shared.world.config().limits.max_message_bytes, tls_available: true }
}

/// Talks until the end, or until TLS is to be taken up: then gives the connection back.
async fn talk<C: Connection>(
    shared: &Shared,
    session: &mut Session,
    connection: C,
    _: SocketAddr,
    greeting: &[u8],
) -> io::Result<Option<C>> {
    let (mut read, write): (ReadHalf<C>, WriteHalf<C>) = tokio::io::split(connection);
    let mut writer = Writer(write);
    let mut store = Store { shared: shared.clone(), mailbox: None, spool: None };
    let mut serving = shared.serving.clone();
    let mut buffer = vec![0; READ_BYTES];
    writer.write(greeting).await?;
    let mut turn = Turn::NeedInput;
    loop {
        match turn {
            Turn::Close => {
                let _ = writer.0.shutdown().await;
                return Ok(None);
            }
            Turn::StartTls => return Ok(Some(read.unsplit(writer.0))),
            Turn::NeedInput | Turn::Idle => {}
        }
        let patience = if session.is_authenticated() { IDLE_MAX } else { LOGIN_MAX };
        let room = session.room().min(READ_BYTES);
        tokio::select! {
            got = timeout(patience, read.read(&mut buffer[..room])) => match got {
                Ok(Ok(0)) => return Ok(None),
                Ok(Ok(count)) => {
                    session.input(&buffer[..count]);
                    let begun = Instant::now();
                    turn = session.drive(&mut store, &mut writer).await?;
                    ::metrics::histogram!("mailraft_command_seconds", "protocol" => "imap").record(begun.elapsed().as_secs_f64());
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    writer.write(&session.bye("silent for too long")).await?;
                    return Ok(None);
                }
            },
            () = store.wait_for_event(), if turn == Turn::Idle => {
                turn = session.tell(&mut store, &mut writer).await?;
            }
            () = stopped(&mut serving) => {
                writer.write(&session.bye("[UNAVAILABLE] shutting down; connect again")).await?;
                let _ = writer.0.shutdown().await;
                return Ok(None);
            }
        }
    }
}

struct Writer<C>(WriteHalf<C>);

impl<C: Connection> Output for Writer<C> {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = timeout(WRITE_MAX, async {
            self.0.write_all(bytes).await?;
            self.0.flush().await
        });
        written.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// A session's mailbox as the engine asks for it.
struct Store {
    shared: Shared,
    mailbox: Option<MailboxSession>,
    spool: Option<Result<Spool, SpoolRefused>>,
}

impl Store {
    async fn wait_for_event(&mut self) {
        match self.mailbox.as_mut() {
            Some(mailbox) => mailbox.wait_for_event().await,
            None => std::future::pending().await,
        }
    }
}

impl Mailstore for Store {
    async fn login(&mut self, user: &str, password: Zeroizing<String>) -> Result<(), LoginFailure> {
        match self.shared.world.credentials.verify(user, password).await {
            Ok(account) => {
                self.mailbox = Some(MailboxSession::new(self.shared.world.reach(), account.mailbox));
                Ok(())
            }
            Err(LoginRefused::Wrong) => Err(LoginFailure::Wrong),
            Err(LoginRefused::Throttled) => Err(LoginFailure::Throttled),
            Err(LoginRefused::Unavailable) => Err(LoginFailure::Unavailable),
        }
    }

    async fn ask(&mut self, command: Command) -> Result<Answer, StoreFailure> {
        let Some(mailbox) = self.mailbox.as_mut() else { return Err(StoreFailure::NoSuchMailbox) };
        let id = command_id(&self.shared.world.cluster);
        refusals::to_imap(id, mailbox.ask(id, command).await).map(|(answer, _)| answer)
    }

    fn take_events(&mut self) -> Vec<Event> {
        self.mailbox.as_mut().map(MailboxSession::take_events).unwrap_or_default()
    }

    fn close_folder(&mut self) {
        if let Some(mailbox) = self.mailbox.as_mut() {
            mailbox.close_folder();
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), ReceiveFailure> {
        let directory = self.shared.world.config().data_dir.clone();
        let budget = &self.shared.budget;
        let spool = self.spool.get_or_insert_with(|| Spool::new(budget));
        match spool {
            Ok(kept) => kept.write(bytes, &directory).map_err(to_imap),
            Err(refused) => Err(to_imap(*refused)),
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
    ) -> Result<Result<(u32, u32), ReceiveFailure>, StoreFailure> {
        let spool = self.spool.take().unwrap_or_else(|| Spool::new(&self.shared.budget));
        let received = match spool {
            Ok(spool) => spool.finish(b"").await,
            Err(refused) => Err(refused),
        };
        let received = match received {
            Ok(received) => received,
            Err(refused) => return Ok(Err(to_imap(refused))),
        };
        let Some(mailbox) = self.mailbox.as_mut() else { return Err(StoreFailure::NoSuchMailbox) };
        let kind = MessageKind::Append { folder, flags, internal_date: internal_date.unwrap_or_else(zoned_now) };
        let id = command_id(&self.shared.world.cluster);
        let stored = refusals::to_imap(id, mailbox.store(id, kind, &received).await)?;
        Ok(Ok((stored.uid_validity, stored.uid)))
    }
}

fn to_imap(refused: SpoolRefused) -> ReceiveFailure {
    match refused {
        SpoolRefused::Overloaded => ReceiveFailure::Overloaded,
        SpoolRefused::HeaderTooLong => ReceiveFailure::HeaderTooLong,
        SpoolRefused::Disk => ReceiveFailure::Unavailable,
    }
}
