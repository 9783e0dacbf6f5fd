//! The link between regions: a proxy before each node's port for other nodes, which delays what passes, lets so many bytes a
//! second through, or nothing.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// Pieces that are on their way in one direction of a connection, at most.
const ON_THE_WAY_MAX: usize = 4_096;
const PIECE_BYTES: usize = 16 << 10;

/// A link. Connections through it end when it is dropped.
pub struct Wan {
    runtime: Runtime,
    link: Link,
    /// The proxy before each address.
    proxies: Mutex<BTreeMap<String, String>>,
}

#[derive(Clone)]
struct Link {
    one_way_us: Arc<AtomicU64>,
    bytes_per_second: Arc<AtomicU64>,
    open: watch::Sender<bool>,
}

impl Wan {
    /// A link with this delay in each direction.
    ///
    /// # Errors
    /// If no thread can be had.
    pub fn new(one_way: Duration) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let link = Link {
            one_way_us: Arc::default(),
            bytes_per_second: Arc::new(AtomicU64::new(u64::MAX)),
            open: watch::Sender::new(true),
        };
        let wan = Wan { runtime, link, proxies: Mutex::default() };
        wan.delay(one_way);
        Ok(wan)
    }

    /// What passes from now on takes so long in each direction.
    pub fn delay(&self, one_way: Duration) {
        let us = u64::try_from(one_way.as_micros()).unwrap_or(u64::MAX);
        self.link.one_way_us.store(us, Ordering::Relaxed);
    }

    /// Each direction of a connection carries so many bytes a second from now on.
    pub fn rate(&self, bytes_per_second: u64) {
        self.link.bytes_per_second.store(bytes_per_second.max(1), Ordering::Relaxed);
    }

    /// Nothing passes any more, or does again, with what waited.
    pub fn cut(&self, cut: bool) {
        self.link.open.send_replace(!cut);
    }

    /// The address of a proxy before this one.
    ///
    /// # Panics
    /// If no port is free.
    pub fn before(&self, address: &str) -> String {
        let mut proxies = self.proxies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(proxy) = proxies.get(address) {
            return proxy.clone();
        }
        let listener = self.runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let proxy = listener.local_addr().expect("its address").to_string();
        let (link, to) = (self.link.clone(), address.to_owned());
        self.runtime.spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                tokio::spawn(link.clone().carry(from, to.clone()));
            }
        });
        proxies.insert(address.to_owned(), proxy.clone());
        proxy
    }

    /// The configuration of a node whose peers in other regions are reached over this link. `region` says where a node
    /// stands.
    pub fn between(&self, config: &str, region: impl Fn(u64) -> String) -> String {
        let field = |line: &str, name: &str| -> Option<String> {
            let rest = line.split(&format!("{name} = ")).nth(1)?.trim_start_matches('"');
            Some(rest.split(['"', ',', ' ', '#']).next()?.to_owned())
        };
        let own = config.lines().find_map(|line| field(line, "region")).unwrap_or_default();
        let lines = config.lines().map(|line| {
            let peer = field(line, "peer").filter(|_| line.trim_start().starts_with('{'));
            let id = field(line, "id").and_then(|id| id.parse::<u64>().ok());
            match (id, peer) {
                (Some(id), Some(peer)) if region(id) != own => {
                    format!("{}\n", line.replace(&peer, &self.before(&peer)))
                }
                _ => format!("{line}\n"),
            }
        });
        lines.collect()
    }
}

impl Link {
    async fn carry(self, from: TcpStream, to: String) {
        let mut open = self.open.subscribe();
        if open.wait_for(|open| *open).await.is_err() {
            return;
        }
        // A round trip for the handshake of TCP.
        sleep(self.one_way() * 2).await;
        let Ok(to) = TcpStream::connect(&to).await else { return };
        let _ = (from.set_nodelay(true), to.set_nodelay(true));
        let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
        tokio::select! {
            () = self.clone().pump(from_read, to_write) => {}
            () = self.clone().pump(to_read, from_write) => {}
        }
    }

    fn one_way(&self) -> Duration {
        Duration::from_micros(self.one_way_us.load(Ordering::Relaxed))
    }

    async fn pump(self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let (sent, mut arrives) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY_MAX);
        let mut open = self.open.subscribe();
        let reading = async {
            let mut buffer = vec![0; PIECE_BYTES];
            while let Ok(count @ 1..) = from.read(&mut buffer).await {
                let rate = self.bytes_per_second.load(Ordering::Relaxed);
                if rate < u64::MAX {
                    sleep(Duration::from_secs_f64(count as f64 / rate as f64)).await;
                }
                if sent.send((Instant::now() + self.one_way(), buffer[..count].to_vec())).await.is_err() {
                    return;
                }
            }
            drop(sent);
            std::future::pending::<()>().await;
        };
        let writing = async {
            while let Some((at, bytes)) = arrives.recv().await {
                sleep_until(at).await;
                if open.wait_for(|open| *open).await.is_err() || to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn what_passes_is_late_and_nothing_passes_while_it_is_cut() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let wan = Wan::new(Duration::from_millis(60)).unwrap();
        let proxy = wan.before(&listener.local_addr().unwrap().to_string());
        assert_eq!(wan.before(&listener.local_addr().unwrap().to_string()), proxy);
        let mut near = std::net::TcpStream::connect(proxy).unwrap();
        let begun = std::time::Instant::now();
        near.write_all(b"a").unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let mut byte = [0];
        far.read_exact(&mut byte).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(180), "{:?}: a handshake and a way", begun.elapsed());
        wan.cut(true);
        near.write_all(b"b").unwrap();
        far.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(far.read_exact(&mut byte).is_err());
        wan.cut(false);
        far.set_read_timeout(None).unwrap();
        far.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"b");
    }

    #[test]
    fn only_peers_of_other_regions_are_reached_over_it() {
        let wan = Wan::new(Duration::ZERO).unwrap();
        let config = "[node]\nid = 1                 # the node's\nregion = \"home\"           # far\n[cluster]\npeers = [\n  \
                      { id = 2, peer = \"127.0.0.1:2700\" },\n  { id = 4, peer = \"127.0.0.1:4700\" },\n]\n";
        let region = |id| if id < 4 { "home".to_owned() } else { "south".to_owned() };
        let between = wan.between(config, region);
        assert!(between.contains("127.0.0.1:2700") && !between.contains("127.0.0.1:4700"), "{between}");
        assert!(
            between.contains(&wan.before("127.0.0.1:4700")) && between.lines().count() == config.lines().count(),
            "{between}"
        );
    }
}
