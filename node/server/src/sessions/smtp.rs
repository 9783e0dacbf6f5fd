//! An SMTP or submission session over a socket.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mailraft_cluster::BarrierOutcome;
use mailraft_directory::Resolution;
use mailraft_mailbox::{Finished, MessageKind, NotDone, Refusal};
use mailraft_smtp::{
    AuthOutcome, Config, Delivery, Destination, Mailbox, Recipient, Sender, Session, Step, Transaction, trace,
};
use mailraft_storage::{MailboxId, PartitionId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::Connection;
use super::shared::{HANDSHAKE_TIMEOUT, Shared, stopped};
use super::tls::spoken;
use crate::credentials::LoginRefused;
use crate::environment::{command_id, wall, zoned_now};
use crate::links::MailboxSession;
use crate::spool::{Spool, SpoolRefused};

/// A silent client is waited for this long (RFC 5321, section 4.5.3.2.7).
const IDLE_MAX: Duration = Duration::from_secs(5 * 60);
/// A client that does not read is waited for this long.
const WRITE_MAX: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 32 << 10;

/// Serves a connection that begins in clear.
///
/// # Errors
/// Those of the connection.
pub async fn serve(
    shared: Shared,
    service: mailraft_smtp::Service,
    socket: TcpStream,
    peer: SocketAddr,
) -> io::Result<()> {
    let session = Session::new(config(&shared, service), false);
    let greeting = session.greeting();
    let mut smtp = Smtp::new(shared.clone(), session, peer);
    match smtp.talk(socket, greeting).await? {
        None => Ok(()),
        Some(socket) => {
            let accepted = timeout(HANDSHAKE_TIMEOUT, shared.tls.acceptor().accept(socket)).await;
            let tls = accepted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            smtp.tls = spoken(tls.get_ref().1);
            smtp.session.tls_started();
            smtp.talk(tls, Vec::new()).await.map(|_| ())
        }
    }
}

/// Serves a submission connection that is TLS from the start.
///
/// # Errors
/// Those of the connection.
pub async fn serve_tls<C: Connection>(
    shared: Shared,
    connection: Box<TlsStream<C>>,
    peer: SocketAddr,
) -> io::Result<()> {
    let session = Session::new(config(&shared, mailraft_smtp::Service::Submissions), true);
    let greeting = session.greeting();
    let mut smtp = Smtp::new(shared, session, peer);
    smtp.tls = spoken(connection.get_ref().1);
    smtp.talk(connection, greeting).await.map(|_| ())
}

fn config(shared: &Shared, service: mailraft_smtp::Service) -> Config {
    let config = shared.world.config();
    Config {
        hostname: config.tls.hostname.clone(),
        service,
        max_message_bytes: config.limits.max_message_bytes,
        tls_available: true,
    }
}

struct Smtp {
    shared: Shared,
    session: Session,
    peer: SocketAddr,
    tls: Option<trace::Tls>,
    spool: Option<Result<Spool, SpoolRefused>>,
    mailbox_session: Option<(MailboxId, MailboxSession)>,
}

impl Smtp {
    fn new(shared: Shared, session: Session, peer: SocketAddr) -> Self {
        Smtp { shared, session, peer, tls: None, spool: None, mailbox_session: None }
    }

    /// Talks until the end, or until TLS is to be taken up: then gives the connection back.
    async fn talk<C: Connection>(&mut self, mut connection: C, mut out: Vec<u8>) -> io::Result<Option<C>> {
        let mut buffer = vec![0; READ_BYTES];
        let mut serving = self.shared.serving.clone();
        loop {
            let step = self.session.next(&mut out);
            match step {
                Step::NeedInput => {
                    write(&mut connection, &mut out).await?;
                    let room = self.session.room().min(READ_BYTES);
                    let read = tokio::select! {
                        read = timeout(IDLE_MAX, connection.read(&mut buffer[..room])) => read,
                        () = stopped(&mut serving) => {
                            out.extend_from_slice(&self.session.shutting_down());
                            write(&mut connection, &mut out).await?;
                            let _ = connection.shutdown().await;
                            return Ok(None);
                        }
                    };
                    match read {
                        Ok(Ok(0)) => return Ok(None),
                        Ok(Ok(count)) => self.session.input(&buffer[..count]),
                        Ok(Err(error)) => return Err(error),
                        Err(_) => {
                            out.extend_from_slice(&self.session.timed_out());
                            write(&mut connection, &mut out).await?;
                            return Ok(None);
                        }
                    }
                }
                Step::Close => {
                    write(&mut connection, &mut out).await?;
                    let _ = connection.shutdown().await;
                    return Ok(None);
                }
                Step::StartTls => {
                    write(&mut connection, &mut out).await?;
                    return Ok(Some(connection));
                }
                Step::Discard => self.spool = None,
                Step::Content(bytes) => self.keep(&bytes),
                Step::CheckSender { identity, reverse_path } => {
                    let sender = self.check_sender(&identity, &reverse_path).await;
                    self.session.sender_checked(sender, &mut out);
                }
                Step::Verify(address) => {
                    let recipient = self.verify(&address).await;
                    self.session.verified(recipient, &mut out);
                }
                Step::Authenticate { user, password } => {
                    let outcome = match self.shared.world.credentials.verify(&user, password).await {
                        Ok(account) => AuthOutcome::Ok(account.address),
                        Err(LoginRefused::Wrong) => AuthOutcome::Wrong,
                        Err(LoginRefused::Throttled) => AuthOutcome::Throttled,
                        Err(LoginRefused::Unavailable) => AuthOutcome::Unavailable,
                    };
                    self.session.authenticated(outcome, &mut out);
                }
                Step::Complete(transaction) => {
                    let begun = Instant::now();
                    let delivery = self.deliver(transaction).await;
                    let result = match &delivery {
                        Delivery::Accepted(_) => "accepted",
                        Delivery::Unavailable | Delivery::Overloaded | Delivery::OverQuota | Delivery::Corrupt => {
                            "deferred"
                        }
                        Delivery::HeaderTooLong | Delivery::NoSuchMailbox | Delivery::Refused(_) => "refused",
                    };
                    ::metrics::counter!("mailraft_deliveries_total", "result" => result).increment(1);
                    ::metrics::histogram!("mailraft_command_seconds", "protocol" => "smtp")
                        .record(begun.elapsed().as_secs_f64());
                    self.session.delivered(delivery, &mut out);
                }
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let directory = self.shared.world.config().data_dir.clone();
        let budget = &self.shared.budget;
        let spool = self.spool.get_or_insert_with(|| Spool::new(budget));
        if let Ok(kept) = spool
            && let Err(refused) = kept.write(bytes, &directory)
        {
            *spool = Err(refused);
        }
    }

    async fn verify(&mut self, address: &Mailbox) -> Recipient {
        // <postmaster> alone is this server's own.
        let text = match address.domain.as_str() {
            "" => format!("{}@{}", address.local, self.shared.world.config().tls.hostname),
            _ => format!("{}@{}", address.local, address.domain),
        };
        let mut resolution = self.resolve(&text).await;
        if matches!(resolution, Some(Resolution::Unknown | Resolution::NotOurs)) {
            // "No such mailbox" is permanent to whoever hears it: this replica may lag behind.
            match self.shared.world.cluster.read_barrier(PartitionId::CONTROL, None).await {
                Ok(BarrierOutcome::Passed { .. }) => resolution = self.resolve(&text).await,
                _ => return Recipient::Unavailable,
            }
        }
        match resolution {
            Some(Resolution::Mailboxes(mailboxes, detail)) => match mailboxes.as_slice() {
                [mailbox] => Recipient::Mailbox(Destination { mailbox: mailbox.0, detail }),
                _ => Recipient::Several,
            },
            Some(Resolution::Unknown) => Recipient::Unknown,
            Some(Resolution::NotOurs) => Recipient::NotOurs,
            None => Recipient::Unavailable,
        }
    }

    async fn check_sender(&self, identity: &str, reverse_path: &Mailbox) -> Sender {
        let path = format!("{}@{}", reverse_path.local, reverse_path.domain);
        let mut owns = self.owns(identity, &path).await;
        if owns == Some(false) {
            // "Not yours" is permanent to whoever hears it: this replica may lag behind.
            match self.shared.world.cluster.read_barrier(PartitionId::CONTROL, None).await {
                Ok(BarrierOutcome::Passed { .. }) => owns = self.owns(identity, &path).await,
                _ => return Sender::Unavailable,
            }
        }
        match owns {
            Some(true) => Sender::Own,
            Some(false) => Sender::NotOwn,
            None => Sender::Unavailable,
        }
    }

    async fn owns(&self, identity: &str, path: &str) -> Option<bool> {
        let lookup = std::sync::Arc::clone(&self.shared.world.lookup);
        let (identity, path) = (identity.to_owned(), path.to_owned());
        match tokio::task::spawn_blocking(move || lookup.may_send_as(&identity, &path)).await {
            Ok(Ok(owns)) => Some(owns),
            Ok(Err(error)) => {
                tracing::error!(%error, "an address can't be looked up");
                None
            }
            Err(_) => None,
        }
    }

    async fn resolve(&self, address: &str) -> Option<Resolution> {
        let lookup = std::sync::Arc::clone(&self.shared.world.lookup);
        let text = address.to_owned();
        match tokio::task::spawn_blocking(move || lookup.resolve(&text)).await {
            Ok(Ok(resolution)) => Some(resolution),
            Ok(Err(error)) => {
                tracing::error!(%error, "an address can't be looked up");
                None
            }
            Err(_) => None,
        }
    }

    async fn deliver(&mut self, transaction: Transaction) -> Delivery {
        let id = command_id(&self.shared.world.cluster);
        let spool = self.spool.take().unwrap_or_else(|| Spool::new(&self.shared.budget));
        let Destination { mailbox, detail } = transaction.destination;
        let mailbox = MailboxId(mailbox);
        let spool = match spool {
            Ok(spool) => spool,
            Err(SpoolRefused::HeaderTooLong) => return Delivery::HeaderTooLong,
            Err(SpoolRefused::Overloaded) => return Delivery::Overloaded,
            Err(SpoolRefused::Disk) => return Delivery::Unavailable,
        };
        let reverse_path = transaction.reverse_path.as_ref().map(ToString::to_string).unwrap_or_default();
        let recipient =
            transaction.recipients.first().filter(|_| transaction.recipients.len() == 1).map(ToString::to_string);
        let hostname = self.shared.world.config().tls.hostname.clone();
        let command_id = id.to_string();
        let submitted = transaction.identity.is_some();
        let prefix = trace::return_path(&reverse_path)
            + &trace::received(&trace::Received {
                helo: &transaction.helo,
                peer: self.peer.ip(),
                host: &hostname,
                protocol: trace::protocol(transaction.extended, transaction.tls, submitted),
                tls: self.tls,
                id: &command_id,
                recipient: recipient.as_deref(),
                unix_seconds: (wall().0 / 1_000) as i64,
            });
        let received = match spool.finish(prefix.as_bytes()).await {
            Ok(received) => received,
            Err(SpoolRefused::HeaderTooLong) => return Delivery::HeaderTooLong,
            Err(SpoolRefused::Overloaded) => return Delivery::Overloaded,
            Err(SpoolRefused::Disk) => return Delivery::Unavailable,
        };
        let kind = MessageKind::Deliver { reverse_path, detail, deduplicate: !submitted, received: zoned_now() };
        // The next message on this connection often goes to the same mailbox.
        let mut kept = match self.mailbox_session.take() {
            Some((of, session)) if of == mailbox => session,
            _ => MailboxSession::new(self.shared.world.reach(), mailbox),
        };
        let stored = kept.store(id, kind, &received).await;
        kept.take_events();
        self.mailbox_session = Some((mailbox, kept));
        match stored {
            Finished::Done(stored) => {
                tracing::info!(command = %stored.id, at = %stored.at, uid = stored.uid, "delivered");
                Delivery::Accepted(format!("id={} at={}", stored.id, stored.at))
            }
            Finished::Unknown => {
                tracing::info!(command = %id, "it is not known whether it was delivered");
                Delivery::Unavailable
            }
            Finished::NotDone(why) => {
                tracing::info!(command = %id, %why, "not delivered");
                match why {
                    NotDone::NoQuorum | NotDone::BodyLost | NotDone::Expired | NotDone::Unsupported => {
                        Delivery::Unavailable
                    }
                    NotDone::Overloaded => Delivery::Overloaded,
                    NotDone::NoSuchMailbox => Delivery::NoSuchMailbox,
                    NotDone::Corrupt => Delivery::Corrupt,
                    NotDone::Refused(refusal) => match refusal {
                        Refusal::OverQuota => Delivery::OverQuota,
                        Refusal::Corrupt => Delivery::Corrupt,
                        Refusal::NoSuchFolder
                        | Refusal::TryCreate
                        | Refusal::FolderExists
                        | Refusal::BadName(_)
                        | Refusal::NotAllowed(_)
                        | Refusal::Limit(_)
                        | Refusal::FolderGone => Delivery::Refused(refusal.to_string()),
                    },
                }
            }
        }
    }
}

async fn write<C: Connection>(connection: &mut C, out: &mut Vec<u8>) -> io::Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    let bytes = std::mem::take(out);
    let written = timeout(WRITE_MAX, async {
        connection.write_all(&bytes).await?;
        connection.flush().await
    });
    written.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
