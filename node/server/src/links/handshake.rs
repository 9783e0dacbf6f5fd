//! How a connection that carries mail in clear between two nodes begins: each end greets, and proves that it has the
//! cluster's root key.
//!
//! A node's certificate says who it is; that alone must not let anybody read mail. So after the greetings each end sends a
//! code over the TLS session's own secret (RFC 5705, RFC 9266), under a key that is derived from the root key. What one end
//! sends differs from what the other does, and is worth nothing in another session: it can be neither sent back nor passed
//! on. The end that called proves first, so that a node tells nothing to somebody who only connects.

use std::time::Duration;

use mailraft_driver::PeerStream;
use mailraft_storage::seal::Key;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::frame::{self, Greeting};

/// How long greetings and proofs may take together.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// What a session's own secret is exported under.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-mailraft-root-key-1";

/// The key of the proofs, derived from the root key.
#[derive(Clone, Debug)]
pub struct LinkKey(Key);

/// Which end of a connection this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It has called the other.
    Caller,
    /// It was called.
    Called,
}

/// That its sender has the root key. Kinds are added at the end; one that is not known proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Proof {
    /// A keyed hash of the sender's end and of the session's own secret.
    KeyedHash([u8; 32]),
}

impl LinkKey {
    /// The key of this cluster's proofs.
    pub fn new(key: Key) -> Self {
        LinkKey(key)
    }

    /// Begins a connection: greets, is greeted, and sees that the other node has the root key too. Nothing else may be sent
    /// before it.
    ///
    /// # Errors
    /// Those of the connection; `InvalidData` for a greeting that is none; `PermissionDenied` if the other node does not
    /// prove that it has the root key; `TimedOut`.
    pub async fn begin(&self, stream: &mut PeerStream, end: End) -> std::io::Result<Greeting> {
        let secret = stream.session_secret(EXPORTER_LABEL)?;
        let begun = timeout(HANDSHAKE_TIMEOUT, self.exchange(stream, &secret, end)).await;
        let begun = begun.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        if let Err(error) = &begun
            && error.kind() == std::io::ErrorKind::PermissionDenied
        {
            ::metrics::counter!(crate::metrics::PEERS_WITHOUT_ROOT_KEY).increment(1);
            tracing::error!(%error, "a connection between nodes is not used");
        }
        begun
    }

    async fn exchange(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        secret: &[u8; 32],
        end: End,
    ) -> std::io::Result<Greeting> {
        frame::greet(stream).await?;
        let greeting = frame::greeted(stream).await?;
        match end {
            End::Caller => {
                self.prove(stream, secret, End::Caller).await?;
                self.see(stream, secret, End::Called).await?;
            }
            End::Called => {
                self.see(stream, secret, End::Caller).await?;
                self.prove(stream, secret, End::Called).await?;
            }
        }
        Ok(greeting)
    }

    async fn prove(&self, to: &mut (impl AsyncWrite + Unpin), secret: &[u8; 32], end: End) -> std::io::Result<()> {
        frame::write(to, &Proof::KeyedHash(self.code(secret, end))).await
    }

    async fn see(&self, from: &mut (impl AsyncRead + Unpin), secret: &[u8; 32], end: End) -> std::io::Result<()> {
        let Proof::KeyedHash(given) = frame::read_short(from).await?;
        if are_equal(&given, &self.code(secret, end)) {
            return Ok(());
        }
        let what =
            "the other node does not have this cluster's root key: it holds a node's certificate and nothing more";
        Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, what))
    }

    fn code(&self, secret: &[u8; 32], end: End) -> [u8; 32] {
        let end: &[u8] = match end {
            End::Caller => b"caller",
            End::Called => b"called",
        };
        self.0.keyed_hash(&[end, secret])
    }
}

/// Compares without telling by the time where two codes differ.
fn are_equal(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let differ = one.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b));
    std::hint::black_box(differ) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::ErrorKind;

    use super::*;

    fn key(byte: u8) -> LinkKey {
        LinkKey(Key::from_bytes([byte; 32]))
    }

    async fn meet(caller: (&LinkKey, [u8; 32]), called: (&LinkKey, [u8; 32])) -> [Result<(), ErrorKind>; 2] {
        let (mut one, mut other) = tokio::io::duplex(64 << 10);
        let calls = async move { caller.0.exchange(&mut one, &caller.1, End::Caller).await };
        let answers = async move { called.0.exchange(&mut other, &called.1, End::Called).await };
        let (calls, answers) = tokio::join!(calls, answers);
        [calls, answers].map(|end| end.map(drop).map_err(|error| error.kind()))
    }

    #[tokio::test]
    async fn only_two_that_have_the_root_key_in_one_session_go_on() {
        let (right, wrong) = (key(1), key(2));
        assert_eq!(meet((&right, [7; 32]), (&right, [7; 32])).await, [Ok(()), Ok(())]);
        let [called, answered] = meet((&wrong, [7; 32]), (&right, [7; 32])).await;
        assert_eq!((called, answered), (Err(ErrorKind::UnexpectedEof), Err(ErrorKind::PermissionDenied)));
        // Passed on from another session, as one between the two would.
        let [_, answered] = meet((&right, [8; 32]), (&right, [7; 32])).await;
        assert_eq!(answered, Err(ErrorKind::PermissionDenied));
    }

    #[tokio::test]
    async fn what_the_caller_proved_is_no_proof_of_the_called() {
        let (mut one, mut other) = tokio::io::duplex(64 << 10);
        let (right, secret) = (key(1), [7; 32]);
        let calls = async move { key(1).exchange(&mut one, &secret, End::Caller).await };
        let mirrors = async move {
            frame::greet(&mut other).await.unwrap();
            frame::greeted(&mut other).await.unwrap();
            let proof: Proof = frame::read_short(&mut other).await.unwrap();
            assert_eq!(proof, Proof::KeyedHash(right.code(&secret, End::Caller)));
            frame::write(&mut other, &proof).await.unwrap();
            other
        };
        let (calls, _) = tokio::join!(calls, mirrors);
        assert_eq!(calls.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
}
