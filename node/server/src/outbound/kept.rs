//! Connections to other servers that are kept for the next message.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mailraft_outbound::client::{Client, Lost, Step};
use mailraft_outbound::tls::policy::TlsWanted;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::wire::{Io, READ_MAX_BYTES, write};

/// A connection is kept for the next message for so long.
pub const KEPT_MAX: Duration = Duration::from_secs(10);
/// So many are kept to one server.
pub const KEPT_TO_ONE_MAX: usize = 2;
/// So many are kept in all, where descriptors allow it.
pub const KEPT_MAX_CONNECTIONS: usize = 64;
/// Saying farewell takes no longer.
const FAREWELL_MAX: Duration = Duration::from_secs(10);

/// Where a connection leads, and all that it was made for: it serves nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The server's name.
    pub host: String,
    /// Its address.
    pub address: SocketAddr,
    /// Our name.
    pub helo: String,
    /// What TLS it was made with.
    pub wanted: TlsWanted,
    /// TLS came before the greeting.
    pub implicit_tls: bool,
    /// Who we are to it, and by which password: its digest.
    pub login: Option<(String, [u8; 32])>,
}

/// A connection between two transactions.
pub struct Connection {
    /// Its engine, idle.
    pub client: Client,
    /// Its socket.
    pub io: Box<dyn Io>,
}

/// Those that are kept; clones share them.
#[derive(Clone)]
pub struct KeptConnections {
    shelf: Arc<Mutex<Shelf<Way, Connection>>>,
}

impl KeptConnections {
    /// None yet, at most so many.
    pub fn new(most: usize) -> Self {
        KeptConnections { shelf: Arc::new(Mutex::new(Shelf::new(most))) }
    }

    /// One that leads there, if one is kept.
    pub fn take(&self, way: &Way) -> Option<Connection> {
        let taken = self.shelf.lock().unwrap_or_else(PoisonError::into_inner).take(way);
        let result = if taken.is_some() { "kept" } else { "new" };
        ::metrics::counter!("mailraft_outbound_connections_total", "result" => result).increment(1);
        taken
    }

    /// Keeps it for a while, or ends it politely if there is no room.
    pub fn keep(&self, way: Way, connection: Connection) {
        let put = self.shelf.lock().unwrap_or_else(PoisonError::into_inner).put(way, connection);
        let number = match put {
            Ok(number) => number,
            Err(connection) => {
                tokio::spawn(farewell(connection));
                return;
            }
        };
        let shelf = Arc::clone(&self.shelf);
        tokio::spawn(async move {
            tokio::time::sleep(KEPT_MAX).await;
            let old = shelf.lock().unwrap_or_else(PoisonError::into_inner).remove(number);
            if let Some(connection) = old {
                farewell(connection).await;
            }
        });
    }
}

/// Says QUIT, and waits a little for the answer.
async fn farewell(Connection { mut client, mut io }: Connection) {
    let until = tokio::time::Instant::now() + FAREWELL_MAX;
    let said = async {
        if !matches!(client.step(), Step::Idle) {
            return;
        }
        client.quit();
        loop {
            match client.step() {
                Step::Write(bytes) => write(&mut client, &mut io, &bytes, until).await,
                Step::Read => {
                    let mut buffer = vec![0; client.room().min(READ_MAX_BYTES)];
                    match io.read(&mut buffer).await {
                        Ok(0) | Err(_) => client.lost(&Lost::Closed),
                        Ok(read) => client.input(&buffer[..read]),
                    }
                }
                // Nothing else comes after QUIT.
                _ => break,
            }
        }
        let _ = io.shutdown().await;
    };
    let _ = timeout(FAREWELL_MAX, said).await;
}

/// Things that are kept by where they lead, the newest taken first.
struct Shelf<K, C> {
    kept: Vec<(u64, K, C)>,
    most: usize,
    last: u64,
}

impl<K: PartialEq, C> Shelf<K, C> {
    fn new(most: usize) -> Self {
        Shelf { kept: Vec::new(), most, last: 0 }
    }

    fn take(&mut self, way: &K) -> Option<C> {
        let at = self.kept.iter().rposition(|(_, of, _)| of == way)?;
        Some(self.kept.remove(at).2)
    }

    /// The number under which it is removed; itself if there is no room.
    fn put(&mut self, way: K, connection: C) -> Result<u64, C> {
        let to_one = self.kept.iter().filter(|(_, of, _)| *of == way).count();
        if to_one >= KEPT_TO_ONE_MAX || self.kept.len() >= self.most {
            return Err(connection);
        }
        self.last += 1;
        self.kept.push((self.last, way, connection));
        Ok(self.last)
    }

    fn remove(&mut self, number: u64) -> Option<C> {
        let at = self.kept.iter().position(|(of, ..)| *of == number)?;
        Some(self.kept.remove(at).2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_kept_to_one_server_and_in_all_and_each_is_taken_once() {
        let mut shelf = Shelf::new(5);
        assert_eq!([1, 2, 3].map(|c| shelf.put("a", c)), [Ok(1), Ok(2), Err(3)]);
        assert_eq!([shelf.put("b", 4), shelf.put("c", 5), shelf.put("d", 6)], [Ok(3), Ok(4), Ok(5)]);
        assert_eq!(shelf.put("e", 7), Err(7), "so many in all");
        assert_eq!((shelf.take(&"a"), shelf.take(&"a"), shelf.take(&"a")), (Some(2), Some(1), None));
        assert_eq!((shelf.remove(3), shelf.remove(3), shelf.take(&"b")), (Some(4), None, None));
        assert_eq!(shelf.put("e", 8), Ok(6), "a number is given once");
        assert_eq!(shelf.kept.len(), 3);
    }
}
