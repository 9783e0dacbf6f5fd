//! The admin server's connections: so many at once, none for long. The one that is there for longest gives way.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::descriptors::ADMIN_CONNECTIONS;

/// Who sends nothing is waited for this long; an answer may take as long.
const SILENT_MAX: Duration = Duration::from_secs(60);
/// A connection is over after this long.
const TOTAL_MAX: Duration = Duration::from_secs(10 * 60);
/// After accepting failed (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes connections within [`ADMIN_CONNECTIONS`].
pub struct Listener {
    socket: TcpListener,
    /// The longest there first.
    open: VecDeque<oneshot::Sender<()>>,
}

/// A connection with an end.
pub struct Connection {
    socket: TcpStream,
    until: Instant,
    silent: Pin<Box<Sleep>>,
    leave: oneshot::Receiver<()>,
}

impl Listener {
    /// On a socket that listens.
    pub fn new(socket: TcpListener) -> Self {
        Listener { socket, open: VecDeque::new() }
    }

    fn enter(&mut self) -> oneshot::Receiver<()> {
        self.open.retain(|connection| !connection.is_closed());
        if self.open.len() >= ADMIN_CONNECTIONS
            && let Some(longest) = self.open.pop_front()
        {
            // One that has just ended gives way too.
            let _ = longest.send(());
        }
        let (told, leave) = oneshot::channel();
        self.open.push_back(told);
        leave
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.socket.accept().await {
                Ok((socket, from)) => {
                    let now = Instant::now();
                    let silent = Box::pin(sleep_until(now + SILENT_MAX));
                    return (Connection { socket, until: now + TOTAL_MAX, silent, leave: self.enter() }, from);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection to the admin server can't be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if Pin::new(&mut self.leave).poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::other("gave way to another connection")));
        }
        let before = into.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, into);
        if read.is_ready() {
            if into.filled().len() > before {
                let until = self.until.min(Instant::now() + SILENT_MAX);
                self.silent.as_mut().reset(until);
            }
            return read;
        }
        match self.silent.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
