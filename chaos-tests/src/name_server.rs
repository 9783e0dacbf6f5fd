//! A name server on loopback for tests: what it is told, by UDP; it can be made to say nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The longest question that is read, in bytes.
const QUESTION_MAX_BYTES: usize = 512;
/// How long records may be kept: not at all, so that the next question is asked.
const TTL_S: u32 = 0;

/// A record that is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// TXT, in strings of at most 255 octets.
    Txt(String),
    /// A.
    A(Ipv4Addr),
    /// AAAA.
    Aaaa(Ipv6Addr),
    /// MX: a preference and a host; an empty one says that no mail is taken.
    Mx(u16, String),
}

/// A name server; it ends with the last clone.
#[derive(Clone)]
pub struct NameServer {
    at: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    records: BTreeMap<String, Vec<Record>>,
    silent: bool,
    asked: u64,
}

impl NameServer {
    /// One that knows nothing yet, on a port of its own.
    ///
    /// # Errors
    /// If there is no port for it.
    pub fn start() -> io::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// One that is asked there.
    ///
    /// # Errors
    /// If it can't be.
    pub fn start_at(at: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(at)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let server = NameServer { at: socket.local_addr()?, state: Arc::default() };
        let state = Arc::downgrade(&server.state);
        std::thread::spawn(move || {
            let mut question = [0; QUESTION_MAX_BYTES];
            while let Some(state) = state.upgrade() {
                let Ok((length, from)) = socket.recv_from(&mut question) else { continue };
                let answer = lock(&state).answer(&question[..length]);
                if let Some(answer) = answer {
                    // Who asked is gone, or asks again.
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Ok(server)
    }

    /// Where it is asked.
    pub fn address(&self) -> SocketAddr {
        self.at
    }

    /// Tells these records of a name from now on, and no others.
    pub fn set(&self, name: &str, records: &[Record]) {
        lock(&self.state).records.insert(name.to_ascii_lowercase(), records.to_vec());
    }

    /// Whether it says nothing from now on, to whatever question.
    pub fn be_silent(&self, silent: bool) {
        lock(&self.state).silent = silent;
    }

    /// Questions that it was asked.
    pub fn asked(&self) -> u64 {
        lock(&self.state).asked
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// The answer (RFC 1035, section 4); None to what is no question.
    fn answer(&mut self, question: &[u8]) -> Option<Vec<u8>> {
        let (mut at, mut labels) = (12, Vec::new());
        loop {
            let length = usize::from(*question.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(question.get(at..at + length)?).to_ascii_lowercase());
            at += length;
        }
        let end = at + 4;
        let kind = u16::from_be_bytes([*question.get(at)?, *question.get(at + 1)?]);
        question.get(..end)?;
        self.asked += 1;
        if self.silent {
            return None;
        }
        let known = self.records.get(&labels.join("."));
        let data: Vec<Vec<u8>> = known.into_iter().flatten().filter_map(|record| record.data(kind)).collect();
        // An answer, with recursion; NXDOMAIN where the name is not known.
        let flags = if known.is_some() { [0x81, 0x80] } else { [0x81, 0x83] };
        let mut out = [&question[..2], &flags, &[0, 1], &(data.len() as u16).to_be_bytes(), &[0; 4]].concat();
        out.extend_from_slice(&question[12..end]);
        for data in data {
            out.extend_from_slice(&[0xc0, 12]);
            out.extend_from_slice(&kind.to_be_bytes());
            out.extend_from_slice(&[0, 1]);
            out.extend_from_slice(&TTL_S.to_be_bytes());
            out.extend_from_slice(&(data.len() as u16).to_be_bytes());
            out.extend_from_slice(&data);
        }
        Some(out)
    }
}

impl Record {
    /// What it tells, if it is of this type.
    fn data(&self, kind: u16) -> Option<Vec<u8>> {
        match (self, kind) {
            (Record::A(address), 1) => Some(address.octets().to_vec()),
            (Record::Aaaa(address), 28) => Some(address.octets().to_vec()),
            (Record::Txt(text), 16) => {
                let mut out = Vec::new();
                for part in text.as_bytes().chunks(255) {
                    out.push(part.len() as u8);
                    out.extend_from_slice(part);
                }
                Some(out)
            }
            (Record::Mx(preference, host), 15) => {
                let mut out = preference.to_be_bytes().to_vec();
                for label in host.split('.').filter(|label| !label.is_empty()) {
                    out.push(label.len() as u8);
                    out.extend_from_slice(label.as_bytes());
                }
                out.push(0);
                Some(out)
            }
            (Record::A(_) | Record::Aaaa(_) | Record::Txt(_) | Record::Mx(..), _) => None,
        }
    }
}
