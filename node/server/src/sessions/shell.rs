//! The one shell around every line protocol's engine: it reads, feeds, writes, takes up TLS, and ends sessions that
//! take too long.
//!
//! Nothing waits in it: what was read is the engine's at once, and what was said is written before more is read.
//! A client that does not read stops its own session, after [`WRITE_MAX`] for good.

use std::io;
use std::time::Duration;

use mailraft_protocol::{Engine, Farewell, Out, Output, Turn};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::tls::spoken;

/// How long a TLS handshake may take.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// A client that does not read is waited for this long.
const WRITE_MAX: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 32 << 10;

/// A client's connection, with or without TLS.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for T {}

/// What a session needs beside its engine and its connection.
#[derive(Clone)]
pub struct Shell {
    acceptor: TlsAcceptor,
    serving: watch::Receiver<bool>,
    write_max: Duration,
}

/// How a conversation ended without an error.
enum Ended<C> {
    Closed,
    /// TLS is to be taken up on it.
    StartTls(C),
}

impl Shell {
    /// Takes TLS up by this acceptor, and ends sessions when `serving` turns false.
    pub fn new(acceptor: TlsAcceptor, serving: watch::Receiver<bool>) -> Self {
        Shell { acceptor, serving, write_max: WRITE_MAX }
    }

    /// Takes up TLS on a connection.
    ///
    /// # Errors
    /// Those of the handshake, or that it took too long.
    pub async fn handshake<C: Connection>(&self, connection: C) -> io::Result<TlsStream<C>> {
        let accepted = timeout(HANDSHAKE_MAX, self.acceptor.accept(connection)).await;
        accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Serves a session to its end. The connection is in clear, or is under TLS as the engine knows.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn serve<E: Engine, C: Connection>(&self, mut engine: E, connection: C) -> io::Result<()> {
        let served = self.serve_to_the_end(&mut engine, connection).await;
        engine.ended().await;
        served
    }

    async fn serve_to_the_end<E: Engine, C: Connection>(&self, engine: &mut E, connection: C) -> io::Result<()> {
        let begun = Instant::now();
        let greeting = engine.greeting();
        match self.talk(engine, connection, greeting, begun).await? {
            Ended::Closed => Ok(()),
            Ended::StartTls(connection) => {
                let connection = self.handshake(connection).await?;
                engine.tls_started(spoken(connection.get_ref().1));
                match self.talk(engine, Box::new(connection), Vec::new(), begun).await? {
                    Ended::Closed => Ok(()),
                    Ended::StartTls(_) => Err(io::Error::other("an engine wants TLS twice")),
                }
            }
        }
    }

    /// Refuses a connection with one line.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn refuse<E: Engine, C: Connection>(&self, engine: E, connection: C, why: Farewell) -> io::Result<()> {
        self.end(&engine, &mut Out::new(self.socket(connection)), why).await
    }

    /// Talks until the end, or until TLS is to be taken up.
    async fn talk<E: Engine, C: Connection>(
        &self,
        engine: &mut E,
        connection: C,
        greeting: Vec<u8>,
        begun: Instant,
    ) -> io::Result<Ended<C>> {
        let mut out = Out::new(self.socket(connection));
        let mut serving = self.serving.clone();
        let mut buffer = vec![0; READ_BYTES];
        out.bytes = greeting;
        loop {
            let turn = engine.drive(&mut out).await;
            match turn {
                Turn::Again => {
                    out.pass_on().await;
                    if out.is_gone() {
                        return out.flush().await.map(|()| Ended::Closed);
                    }
                    // Others have their turn even if this client sends without a pause.
                    tokio::task::coop::consume_budget().await;
                    continue;
                }
                Turn::Close => {
                    out.flush().await?;
                    let _ = out.output().connection.shutdown().await;
                    return Ok(Ended::Closed);
                }
                Turn::StartTls => {
                    out.flush().await?;
                    return Ok(Ended::StartTls(out.into_output().connection));
                }
                Turn::NeedInput | Turn::Idle => out.flush().await?,
            }
            let mut idles = turn == Turn::Idle;
            // Until there is input; news that come before it are told and change nothing else.
            loop {
                let patience = engine.patience();
                let over = patience.total.map(|total| begun + total);
                // Asked first: who always has something to say would otherwise never be cut off.
                if over.is_some_and(|over| over <= Instant::now()) {
                    self.end(engine, &mut out, Farewell::TooLong).await?;
                    return Ok(Ended::Closed);
                }
                let silent = Instant::now() + patience.idle;
                let (until, why) = match over.filter(|over| *over < silent) {
                    Some(over) => (over, Farewell::TooLong),
                    None => (silent, Farewell::Silent),
                };
                let room = engine.room().min(READ_BYTES);
                let read = tokio::select! {
                    read = timeout_at(until, out.output().connection.read(&mut buffer[..room])) => read,
                    () = engine.wait_for_news(), if idles => {
                        match engine.tell(&mut out).await {
                            Turn::Close => break,
                            turn => idles = turn == Turn::Idle,
                        }
                        out.flush().await?;
                        continue;
                    }
                    () = stopped(&mut serving) => {
                        self.end(engine, &mut out, Farewell::ShuttingDown).await?;
                        return Ok(Ended::Closed);
                    }
                };
                match read {
                    Ok(Ok(0)) => return Ok(Ended::Closed),
                    Ok(Ok(count)) => engine.input(&buffer[..count]),
                    Ok(Err(error)) => return Err(error),
                    Err(_) => {
                        self.end(engine, &mut out, why).await?;
                        return Ok(Ended::Closed);
                    }
                }
                break;
            }
        }
    }

    async fn end<E: Engine, C: Connection>(
        &self,
        engine: &E,
        out: &mut Out<Socket<C>>,
        why: Farewell,
    ) -> io::Result<()> {
        out.bytes.extend_from_slice(&engine.farewell(why));
        out.flush().await?;
        let _ = out.output().connection.shutdown().await;
        Ok(())
    }

    fn socket<C: Connection>(&self, connection: C) -> Socket<C> {
        Socket { connection, write_max: self.write_max }
    }
}

/// Waits until the node shuts down.
pub async fn stopped(serving: &mut watch::Receiver<bool>) {
    let _ = serving.wait_for(|serving| !serving).await;
}

struct Socket<C> {
    connection: C,
    write_max: Duration,
}

impl<C: Connection> Output for Socket<C> {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = timeout(self.write_max, async {
            self.connection.write_all(bytes).await?;
            self.connection.flush().await
        });
        written.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

#[cfg(test)]
mod tests;
