//! Listening sockets: one task for each, one for each session.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::shared::{HANDSHAKE_TIMEOUT, Shared, stopped};
use super::{imap, smtp};

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
}

/// Serves a port until the node shuts down.
///
/// # Errors
/// One sentence if the port can't be had.
pub async fn listen(shared: Shared, service: Service, address: SocketAddr) -> Result<(), String> {
    let listener = TcpListener::bind(address).await.map_err(|e| {
        format!("can't listen on {address} for {service:?} ({e}): free the port or change it in [listen]")
    })?;
    tracing::info!(%address, ?service, "listening");
    let mut serving = shared.serving.clone();
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopped(&mut serving) => return,
            };
            match accepted {
                Ok((socket, peer)) => {
                    tokio::spawn(session(shared.clone(), service, socket, peer));
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

async fn session(shared: Shared, service: Service, mut socket: TcpStream, peer: SocketAddr) {
    let limits = shared.world.config().limits.clone();
    let Some(_place) = shared.limits.enter(peer.ip(), limits.sessions, limits.sessions_per_address) else {
        ::metrics::counter!("mailraft_sessions_refused_total").increment(1);
        let line: &[u8] = match service {
            Service::Smtp | Service::Submission => b"421 4.3.2 too many connections; try again later\r\n",
            Service::Imap => b"* BYE [LIMIT] too many connections; try again later\r\n",
            Service::Submissions | Service::Imaps => b"",
        };
        let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, line).await;
        return;
    };
    let _ = socket.set_nodelay(true);
    let end = match service {
        Service::Smtp => smtp::serve(shared, mailraft_smtp::Service::Relay, socket, peer).await,
        Service::Submission => smtp::serve(shared, mailraft_smtp::Service::Submission, socket, peer).await,
        Service::Imap => imap::serve(shared, socket, peer).await,
        Service::Submissions | Service::Imaps => {
            let accepted = timeout(HANDSHAKE_TIMEOUT, shared.tls.acceptor().accept(socket)).await;
            match (accepted, service) {
                (Ok(Ok(tls)), Service::Imaps) => imap::serve_tls(shared, Box::new(tls), peer).await,
                (Ok(Ok(tls)), _) => smtp::serve_tls(shared, Box::new(tls), peer).await,
                (Ok(Err(error)), _) => Err(error),
                (Err(_), _) => Err(std::io::ErrorKind::TimedOut.into()),
            }
        }
    };
    if let Err(error) = end {
        tracing::debug!(?service, %error, "a session ended");
    }
}
