//! Bytes to another server and from it.

use std::time::Duration;

use mailraft_outbound::client::{Client, Lost};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

/// What is read from a server at once, in bytes.
pub const READ_MAX_BYTES: usize = 4 << 10;

/// A stream, with TLS or without.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// How long the next step may take.
pub fn within(client: &Client, until: Instant) -> Duration {
    client.deadline().min(until.saturating_duration_since(Instant::now()))
}

/// Writes it, or tells the engine that it can't be.
pub async fn write(client: &mut Client, io: &mut Box<dyn Io>, bytes: &[u8], until: Instant) {
    let written = async {
        io.write_all(bytes).await?;
        io.flush().await
    };
    match timeout(within(client, until), written).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => client.lost(&Lost::Broken(error.to_string())),
        Err(_) => client.lost(&too_long(until)),
    }
}

/// What took too long: this step, or all of them.
pub fn too_long(until: Instant) -> Lost {
    if Instant::now() < until { Lost::Silent } else { Lost::Slow }
}
