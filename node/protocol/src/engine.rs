//! The shape of a protocol's engine.

use std::future::Future;
use std::time::Duration;

use crate::out::{Out, Output};

/// What the shell must do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Something was carried out, and there may be more in the input: call [`Engine::drive`] again. Between two
    /// calls the shell lets other sessions have their turn.
    Again,
    /// Hand on what was said, then read more.
    NeedInput,
    /// Hand on what was said, then read more, or call [`Engine::tell`] when [`Engine::wait_for_news`] is done.
    Idle,
    /// Hand on what was said, take up TLS, then call [`Engine::tls_started`].
    StartTls,
    /// Hand on what was said, then compress whatever is said and expand whatever is read. Only an engine whose protocol has
    /// that wants it, once.
    Compress,
    /// Hand on what was said, then close.
    Close,
}

/// The TLS of a connection, in the words that a trace field has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tls {
    /// `TLS1_2` or `TLS1_3`.
    pub version: &'static str,
    /// The suite's name in IANA's registry.
    pub cipher: &'static str,
}

/// How long a client is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A whole command is waited for this long, whatever comes of it meanwhile.
    pub idle: Duration,
    /// The session ends this long after it began, whatever its client says.
    pub total: Option<Duration>,
    /// Its client is in the middle of a message: it must keep up a pace, which the shell knows.
    pub in_message: bool,
}

/// Why the shell ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The client was silent for longer than [`Patience::idle`].
    Silent,
    /// The session is older than [`Patience::total`].
    TooLong,
    /// A message came too slowly, or took too long.
    TooSlow,
    /// The server shuts down.
    ShuttingDown,
    /// The account was disabled, or has another password.
    Revoked,
    /// There are too many sessions.
    TooManySessions,
}

/// A session of a line protocol, with its backend.
///
/// A future of [`Engine::drive`] or [`Engine::tell`] is either awaited to its end or dropped together with the
/// engine: what was done halfway is not taken up again.
pub trait Engine: Send {
    /// The first line.
    fn greeting(&self) -> Vec<u8>;

    /// The last line, when the shell ends the session.
    fn farewell(&self, why: Farewell) -> Vec<u8>;

    /// How long the client is waited for now.
    fn patience(&self) -> Patience;

    /// How many bytes it takes in now; never 0 after [`Turn::NeedInput`] or [`Turn::Idle`].
    fn room(&self) -> usize;

    /// Takes bytes from the socket in, at most as many as [`Engine::room`].
    ///
    /// # Panics
    /// If there are more.
    fn input(&mut self, bytes: &[u8]);

    /// Carries out at most one command, or takes one piece of a message, from what is whole in the input.
    fn drive<O: Output>(&mut self, out: &mut Out<O>) -> impl Future<Output = Turn> + Send;

    /// In [`Turn::Idle`]: waits until there is something to [`Engine::tell`]. Its future may be dropped at any
    /// point and nothing is lost.
    fn wait_for_news(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// In [`Turn::Idle`]: what the client is told whenever nothing was said to it for so long. Whoever takes that is not
    /// silent, however long it says nothing.
    fn keepalive(&self) -> Option<(Duration, &'static str)> {
        None
    }

    /// In [`Turn::Idle`]: tells what has happened.
    fn tell<O: Output>(&mut self, out: &mut Out<O>) -> impl Future<Output = Turn> + Send {
        let _ = out;
        std::future::ready(Turn::NeedInput)
    }

    /// The connection has ended, whoever ended it: nothing more is read or said.
    fn ended(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// TLS is up: everything that came in clear is forgotten, also what came since [`Turn::StartTls`].
    ///
    /// # Panics
    /// If it was up already.
    fn tls_started(&mut self, tls: Tls);
}
