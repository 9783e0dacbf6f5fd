//! Ports of a node that serves no mail: clients hear where it is served.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::config::Config;
use crate::descriptors::REFUSING;
use crate::permits::Permits;
use crate::sessions::Service;
use crate::sessions::tls::MailTls;

/// A client has so long to take up TLS and to hear where mail is served.
const TURN_AWAY_MAX: Duration = Duration::from_secs(10);
/// After accepting failed (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A port that cannot be had yet is tried again so soon.
const PORT_AGAIN: Duration = Duration::from_millis(50);

/// Tells clients where mail is served.
#[derive(Clone)]
pub struct TurnAway {
    refusing: Permits,
    acceptor: TlsAcceptor,
    hostname: String,
    /// As it is now: where mail is served may change.
    why: watch::Receiver<String>,
}

/// The ports on which that is told. They are free again once [`Ports::close`] has returned.
pub struct Ports {
    open: watch::Sender<bool>,
    listeners: JoinSet<()>,
}

impl TurnAway {
    /// With these words.
    pub fn new(config: &Config, tls: &MailTls, why: watch::Receiver<String>) -> Self {
        let (acceptor, hostname) = (tls.acceptor().clone(), config.tls.hostname.clone());
        TurnAway { refusing: Permits::new(REFUSING), acceptor, hostname, why }
    }

    /// Listens on every port on which mail would be served. Where mail was served there until now, a port is waited for.
    ///
    /// # Errors
    /// One sentence if a port can't be had within this time.
    pub async fn listen(self, config: &Config, within: Duration) -> Result<Ports, String> {
        let (open, still_open) = watch::channel(true);
        let mut listeners = JoinSet::new();
        for (service, address) in Service::each(&config.listen) {
            if let Some(address) = address {
                let listener = listen(service, address, within).await?;
                listeners.spawn(self.clone().accept(service, listener, still_open.clone()));
            }
        }
        Ok(Ports { open, listeners })
    }

    async fn accept(self, service: Service, listener: TcpListener, mut open: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = open.wait_for(|open| !open) => return,
            };
            match accepted {
                Ok((socket, _)) => {
                    // Past these nobody is told why: a flood must not take the descriptors that are set aside.
                    let Some(place) = self.refusing.try_take(1) else { continue };
                    let turn_away = self.clone();
                    tokio::spawn(async move {
                        let told = timeout(TURN_AWAY_MAX, turn_away.tell(service, socket)).await;
                        drop(place);
                        if let Ok(Err(error)) = told {
                            tracing::debug!(?service, %error, "a client was not told where mail is served");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, ?service, "a connection can't be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn tell(self, service: Service, socket: TcpStream) -> io::Result<()> {
        let line = self.line(service);
        match service {
            Service::Submissions | Service::Imaps | Service::Pop3s | Service::Https => {
                say(&mut self.acceptor.accept(socket).await?, &line).await
            }
            Service::Smtp | Service::Submission | Service::Imap | Service::Pop3 => {
                let mut socket = socket;
                say(&mut socket, &line).await
            }
        }
    }

    /// The greeting that ends a connection (RFC 5321, section 3.1; RFC 3501, section 7.1.5; RFC 3206), or the answer to whatever is asked (RFC 9110, section 15.6.4).
    fn line(&self, service: Service) -> String {
        let (hostname, why) = (&self.hostname, self.why.borrow());
        match service {
            Service::Smtp | Service::Submission | Service::Submissions => format!("421 4.3.2 {hostname} {}\r\n", *why),
            Service::Imap | Service::Imaps => format!("* BYE [UNAVAILABLE] {}\r\n", *why),
            Service::Pop3 | Service::Pop3s => format!("-ERR [SYS/TEMP] {}\r\n", *why),
            Service::Https => {
                format!(
                    "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}\r\n",
                    why.len() + 2,
                    *why
                )
            }
        }
    }
}

impl Ports {
    /// Listens no more.
    pub async fn close(mut self) {
        self.open.send_replace(false);
        while self.listeners.join_next().await.is_some() {}
    }
}

async fn listen(service: Service, address: SocketAddr, within: Duration) -> Result<TcpListener, String> {
    let begun = tokio::time::Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, ?service, "listening, to say where mail is served");
                return Ok(listener);
            }
            Err(_) if begun.elapsed() < within => sleep(PORT_AGAIN).await,
            Err(e) => {
                return Err(format!(
                    "can't listen on {address} for {service:?} ({e}): free the port or change it in [listen]"
                ));
            }
        }
    }
}

async fn say(to: &mut (impl AsyncWrite + Unpin), line: &str) -> io::Result<()> {
    to.write_all(line.as_bytes()).await?;
    to.flush().await?;
    to.shutdown().await
}
