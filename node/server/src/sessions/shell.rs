//! The one shell around every line protocol's engine: it reads, feeds, writes, takes up TLS, and ends sessions that
//! take too long.
//!
//! Nothing waits in it: what was read is the engine's at once, and what was said is written before more is read.
//! Most sessions are silent most of the time, and what one then keeps is the node's to pay many times over: whatever
//! carries out a command has memory of its own (`Box::pin`), which goes with it.
//! A client that does not read stops its own session, after [`WRITE_MAX`] for good.

use std::io;
use std::time::Duration;

use mailraft_protocol::{Engine, Farewell, Out, Output, Patience, Turn};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::deflated::Deflated;
use super::tls::spoken;
use crate::places::{Leave, Place};

/// How long a TLS handshake may take.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// A client that does not read is waited for this long.
const WRITE_MAX: Duration = Duration::from_secs(60);
/// Bytes that are read at once from a client that has much to say.
const READ_BYTES: usize = 32 << 10;
/// The same from one that says little: a silent session keeps no more.
const READ_SHORT_BYTES: usize = 1 << 10;
/// A message may stall for this long at its pace's expense.
const PACE_GRACE: Duration = Duration::from_secs(60);

/// A client's connection, with or without TLS.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for T {}

/// The pace that a message must keep.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes a second, after [`PACE_GRACE`].
    pub bytes_per_second: u64,
    /// It has come within this time.
    pub message_max: Duration,
}

/// What a session needs beside its engine and its connection.
#[derive(Clone)]
pub struct Shell {
    acceptor: TlsAcceptor,
    serving: watch::Receiver<bool>,
    pace: Pace,
    pace_grace: Duration,
    write_max: Duration,
    /// Without it the connection is only to be refused.
    place: Option<Place>,
}

/// How far a message has come.
struct Coming {
    since: Instant,
    bytes: u64,
}

/// What comes of a client's saying nothing.
enum Due {
    End(Farewell),
    Keepalive(&'static str),
}

/// How a conversation ended without an error.
enum Ended<C> {
    Closed,
    /// TLS is to be taken up on it.
    StartTls(C),
    /// It is compressed from here on.
    Compress(C),
}

impl Shell {
    /// Takes TLS up by this acceptor, ends sessions when `serving` turns false or their place is given to another, and
    /// messages that don't keep up the pace.
    pub fn new(acceptor: TlsAcceptor, serving: watch::Receiver<bool>, pace: Pace, place: Option<Place>) -> Self {
        Shell { acceptor, serving, pace, pace_grace: PACE_GRACE, write_max: WRITE_MAX, place }
    }

    /// Takes up TLS on a connection.
    ///
    /// # Errors
    /// Those of the handshake, or that it took too long, or that another connection needs the place.
    pub async fn handshake<C: Connection>(&self, connection: C) -> io::Result<TlsStream<C>> {
        self.set_waits(true);
        let accepted = tokio::select! {
            accepted = timeout(HANDSHAKE_MAX, self.acceptor.accept(connection)) => accepted,
            _ = self.told_to_leave() => return Err(io::Error::other("gave way to another connection")),
        };
        self.set_waits(false);
        accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Serves a session to its end. The connection is in clear, or is under TLS as the engine knows.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn serve<E: Engine, C: Connection>(&self, mut engine: E, connection: C) -> io::Result<()> {
        let served = self.serve_to_the_end(&mut engine, connection).await;
        Box::pin(engine.ended()).await;
        served
    }

    async fn serve_to_the_end<E: Engine, C: Connection>(&self, engine: &mut E, connection: C) -> io::Result<()> {
        let begun = Instant::now();
        let greeting = engine.greeting();
        match self.talk(engine, connection, greeting, begun).await? {
            Ended::Closed => Ok(()),
            Ended::Compress(connection) => Box::pin(self.talk_compressed(engine, connection, begun)).await,
            Ended::StartTls(connection) => {
                let connection = Box::pin(self.handshake(connection)).await?;
                engine.tls_started(spoken(connection.get_ref().1));
                match Box::pin(self.talk(engine, Box::new(connection), Vec::new(), begun)).await? {
                    Ended::Closed => Ok(()),
                    Ended::Compress(connection) => Box::pin(self.talk_compressed(engine, connection, begun)).await,
                    Ended::StartTls(_) => Err(io::Error::other("an engine wants TLS twice")),
                }
            }
        }
    }

    /// Talks on a connection that is compressed from here on.
    async fn talk_compressed<E: Engine, C: Connection>(
        &self,
        engine: &mut E,
        connection: C,
        begun: Instant,
    ) -> io::Result<()> {
        match self.talk(engine, Deflated::new(connection), Vec::new(), begun).await? {
            Ended::Closed => Ok(()),
            Ended::StartTls(_) | Ended::Compress(_) => {
                Err(io::Error::other("an engine wants TLS late, or compression twice"))
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
        let mut buffer = vec![0; READ_SHORT_BYTES];
        out.bytes = greeting;
        let mut heard = Instant::now();
        let mut coming: Option<Coming> = None;
        loop {
            let turn = Box::pin(engine.drive(&mut out)).await;
            match turn {
                Turn::Again => {
                    heard = Instant::now();
                    if let Some(place) = &self.place {
                        place.heard();
                        // One that always has a command more hears of it too.
                        if let Some(why) = place.is_to_leave() {
                            self.end(engine, &mut out, farewell(why)).await?;
                            return Ok(Ended::Closed);
                        }
                    }
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
                Turn::Compress => {
                    out.flush().await?;
                    return Ok(Ended::Compress(out.into_output().connection));
                }
                Turn::NeedInput | Turn::Idle => out.flush().await?,
            }
            let mut idles = turn == Turn::Idle;
            let mut said = Instant::now();
            // Until there is input; news that come before it are told and change nothing else.
            loop {
                let patience = engine.patience();
                let over = patience.total.map(|total| begun + total);
                // Asked first: who always has something to say would otherwise never be cut off.
                if over.is_some_and(|over| over <= Instant::now()) {
                    self.end(engine, &mut out, Farewell::TooLong).await?;
                    return Ok(Ended::Closed);
                }
                let slow = self.slow(patience, &mut coming);
                let keepalive = engine.keepalive().filter(|_| idles);
                let due = match keepalive {
                    Some((every, words)) => (said + every, Due::Keepalive(words)),
                    None => (heard + patience.idle, Due::End(Farewell::Silent)),
                };
                let ends = [over.map(|over| (over, Farewell::TooLong)), slow];
                let ends = ends.into_iter().flatten().map(|(at, why)| (at, Due::End(why)));
                let (until, due) = ends.fold(due, |first, other| if other.0 < first.0 { other } else { first });
                let room = engine.room().min(buffer.len());
                self.set_waits(true);
                let read = tokio::select! {
                    read = timeout_at(until, out.output().connection.read(&mut buffer[..room])) => read,
                    () = engine.wait_for_news(), if idles => {
                        match Box::pin(engine.tell(&mut out)).await {
                            Turn::Close => break,
                            turn => idles = turn == Turn::Idle,
                        }
                        out.flush().await?;
                        said = Instant::now();
                        continue;
                    }
                    () = stopped(&mut serving) => {
                        self.end(engine, &mut out, Farewell::ShuttingDown).await?;
                        return Ok(Ended::Closed);
                    }
                    why = self.told_to_leave() => {
                        self.end(engine, &mut out, why).await?;
                        return Ok(Ended::Closed);
                    }
                };
                self.set_waits(false);
                match read {
                    Ok(Ok(0)) => return Ok(Ended::Closed),
                    Ok(Ok(count)) => {
                        if let Some(coming) = &mut coming {
                            coming.bytes += count as u64;
                        }
                        engine.input(&buffer[..count]);
                        if count == buffer.len() && count < READ_BYTES {
                            buffer = vec![0; READ_BYTES];
                        } else if count <= READ_SHORT_BYTES && buffer.len() > READ_SHORT_BYTES {
                            buffer = vec![0; READ_SHORT_BYTES];
                        }
                    }
                    Ok(Err(error)) => return Err(error),
                    Err(_) => match due {
                        Due::End(why) => {
                            self.end(engine, &mut out, why).await?;
                            return Ok(Ended::Closed);
                        }
                        Due::Keepalive(words) => {
                            out.line(words);
                            out.flush().await?;
                            said = Instant::now();
                            continue;
                        }
                    },
                }
                break;
            }
        }
    }

    /// When a message that comes now is too slow; whether one comes is noted.
    fn slow(&self, patience: Patience, coming: &mut Option<Coming>) -> Option<(Instant, Farewell)> {
        if !patience.in_message {
            if coming.take().is_some()
                && let Some(place) = &self.place
            {
                place.end_message();
            }
            return None;
        }
        let Coming { since, bytes } = coming.get_or_insert_with(|| Coming { since: Instant::now(), bytes: 0 });
        let paid = Duration::from_secs(*bytes / self.pace.bytes_per_second.max(1));
        Some((*since + self.pace.message_max.min(self.pace_grace + paid), Farewell::TooSlow))
    }

    fn set_waits(&self, waits: bool) {
        if let Some(place) = &self.place {
            place.set_waits(waits);
        }
    }

    async fn told_to_leave(&self) -> Farewell {
        match &self.place {
            Some(place) => farewell(place.told_to_leave().await),
            None => std::future::pending().await,
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

fn farewell(why: Leave) -> Farewell {
    match why {
        Leave::GivesWay => Farewell::TooManySessions,
        Leave::Revoked => Farewell::Revoked,
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
