//! Listening sockets: one task for each, one for each session.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mailraft_protocol::Farewell;
use tokio::net::{TcpListener, TcpStream};

use super::context::SessionContext;
use super::shell::{Pace, Shell, stopped};
use super::tls::spoken;
use super::{imap, pop3, smtp};
use crate::config;
use crate::pages;
use crate::places::{Place, Share};

/// After accepting failed (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// SMTP from other servers (port 25).
    Smtp,
    /// Submission with STARTTLS (port 587).
    Submission,
    /// Submission over TLS (port 465).
    Submissions,
    /// IMAP with STARTTLS (port 143).
    Imap,
    /// IMAP over TLS (port 993).
    Imaps,
    /// POP3 with STLS (port 110).
    Pop3,
    /// POP3 over TLS (port 995).
    Pop3s,
    /// Pages over HTTPS (port 443).
    Https,
}

impl Service {
    /// All, with where a node listens for each.
    pub fn each(listen: &config::Listen) -> [(Service, Option<SocketAddr>); 8] {
        [
            (Service::Smtp, listen.smtp),
            (Service::Submission, listen.submission),
            (Service::Submissions, listen.submissions),
            (Service::Imap, listen.imap),
            (Service::Imaps, listen.imaps),
            (Service::Pop3, listen.pop3),
            (Service::Pop3s, listen.pop3s),
            (Service::Https, listen.https),
        ]
    }

    /// Whose strangers share their places.
    fn share(self) -> Share {
        match self {
            Service::Smtp => Share::Relay,
            Service::Submission | Service::Submissions => Share::Submission,
            Service::Imap | Service::Imaps => Share::Imap,
            Service::Pop3 | Service::Pop3s => Share::Pop3,
            Service::Https => Share::Pages,
        }
    }
}

/// Serves a port until the node shuts down.
///
/// # Errors
/// One sentence if the port can't be had.
pub async fn listen(context: SessionContext, service: Service, address: SocketAddr) -> Result<(), String> {
    let listener = TcpListener::bind(address).await.map_err(|e| {
        format!("can't listen on {address} for {service:?} ({e}): free the port or change it in [listen]")
    })?;
    tracing::info!(%address, ?service, "listening");
    let mut serving = context.serving.clone();
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopped(&mut serving) => return,
            };
            match accepted {
                Ok((socket, peer)) => {
                    let context = SessionContext { turn: context.services.turns.session(), ..context.clone() };
                    let turn = context.turn.clone();
                    tokio::spawn(turn.polled(session(context, service, socket, peer)));
                }
                Err(error) => {
                    tracing::warn!(%error, ?service, "a connection can't be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    Ok(())
}

async fn session(context: SessionContext, service: Service, socket: TcpStream, peer: SocketAddr) {
    let limits = context.services.config().limits.clone();
    let pace = Pace { bytes_per_second: limits.message_bytes_per_second, message_max: limits.message_max };
    let place = context.services.places.enter(service.share(), peer.ip(), &context.services.bounds());
    let shell = Shell::new(context.tls.acceptor().clone(), context.serving.clone(), pace, place.clone());
    let _ = socket.set_nodelay(true);
    let ended = match place {
        Some(place) => serve(&context, &shell, service, socket, peer, place).await,
        None => {
            ::metrics::counter!("mailraft_sessions_refused_total").increment(1);
            // Past these nobody is told why: a flood must not take the descriptors that are set aside.
            match context.refusing.try_take(1) {
                Some(_place) => Box::pin(refuse(&context, &shell, service, socket, peer)).await,
                None => Ok(()),
            }
        }
    };
    match ended {
        Ok(()) => tracing::trace!(?service, "a session ended"),
        Err(error) => tracing::debug!(?service, %error, "a session ended"),
    }
}

async fn serve(
    context: &SessionContext,
    shell: &Shell,
    service: Service,
    socket: TcpStream,
    peer: SocketAddr,
    place: Place,
) -> io::Result<()> {
    let given = place.clone();
    let place = Some(place);
    match service {
        Service::Smtp => {
            Box::pin(shell.serve(smtp::session(context, mailraft_smtp::Service::Relay, peer, None, place), socket))
                .await
        }
        Service::Submission => {
            Box::pin(shell.serve(smtp::session(context, mailraft_smtp::Service::Submission, peer, None, place), socket))
                .await
        }
        Service::Submissions => {
            let connection = Box::pin(shell.handshake(socket)).await?;
            let tls = Some(spoken(connection.get_ref().1));
            let session = smtp::session(context, mailraft_smtp::Service::Submissions, peer, tls, place);
            Box::pin(shell.serve(session, Box::new(connection))).await
        }
        Service::Imap => Box::pin(shell.serve(imap::session(context, peer.ip(), None, place), socket)).await,
        Service::Imaps => {
            let connection = Box::pin(shell.handshake(socket)).await?;
            let tls = Some(spoken(connection.get_ref().1));
            Box::pin(shell.serve(imap::session(context, peer.ip(), tls, place), Box::new(connection))).await
        }
        Service::Pop3 => Box::pin(shell.serve(pop3::session(context, peer.ip(), None, place), socket)).await,
        Service::Pop3s => {
            let connection = Box::pin(shell.handshake(socket)).await?;
            let tls = Some(spoken(connection.get_ref().1));
            Box::pin(shell.serve(pop3::session(context, peer.ip(), tls, place), Box::new(connection))).await
        }
        Service::Https => {
            let connection = Box::pin(shell.handshake(socket)).await?;
            Box::pin(pages::serve(context.services.clone(), connection, &given)).await
        }
    }
}

/// Says why there is no session, where that needs no handshake.
async fn refuse(
    context: &SessionContext,
    shell: &Shell,
    service: Service,
    socket: TcpStream,
    peer: SocketAddr,
) -> io::Result<()> {
    let why = Farewell::TooManySessions;
    match service {
        Service::Smtp | Service::Submission => {
            shell.refuse(smtp::session(context, mailraft_smtp::Service::Relay, peer, None, None), socket, why).await
        }
        Service::Imap => shell.refuse(imap::session(context, peer.ip(), None, None), socket, why).await,
        Service::Pop3 => shell.refuse(pop3::session(context, peer.ip(), None, None), socket, why).await,
        Service::Submissions | Service::Imaps | Service::Pop3s | Service::Https => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every session keeps to its end, beside what its service keeps, in bytes.
    const TASK_MAX_BYTES: usize = 4 << 10;

    fn bytes<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_session_is_small() {
        let bytes = bytes(session);
        assert!(bytes <= TASK_MAX_BYTES, "{bytes}: a service's own future belongs in a box");
    }
}
