//! Another domain's mail server on loopback, for tests: it takes messages, and does with a recipient what the local part says.
//!
//! * `never...` is refused for good; `later...` is refused for now until [`OtherServer::relent`].
//! * `lost...` is taken, and the connection ends instead of the answer to the final dot, once for each message.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A silent client is waited for so long.
const SILENT_MAX: Duration = Duration::from_secs(60);

/// A message that it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The reverse-path.
    pub from: String,
    /// The recipients.
    pub to: Vec<String>,
    /// The message, dots undone.
    pub content: String,
}

/// The server; it ends with the process.
#[derive(Clone)]
pub struct OtherServer {
    at: SocketAddr,
    state: Arc<Mutex<State>>,
    answers_on: Arc<Condvar>,
}

#[derive(Default)]
struct State {
    taken: Vec<Taken>,
    relents: bool,
    is_down: bool,
    /// It takes messages, and does not say so yet.
    is_silent: bool,
    /// Whose answer was lost already.
    lost: BTreeSet<String>,
    connections: u64,
    /// It takes no octets above 127.
    is_seven_bit: bool,
    /// Recipients of a transaction, and transactions of a connection, which it then closes without a word.
    most: Option<(usize, usize)>,
}

impl OtherServer {
    /// One on a port of its own.
    ///
    /// # Errors
    /// If there is no port for it.
    pub fn start() -> io::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// One that listens there.
    ///
    /// # Errors
    /// If it can't.
    pub fn start_at(at: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(at)?;
        let server = OtherServer { at: listener.local_addr()?, state: Arc::default(), answers_on: Arc::default() };
        let of_thread = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                of_thread.lock().connections += 1;
                if of_thread.lock().is_down {
                    continue;
                }
                let server = of_thread.clone();
                // How a client ends is nothing to tell.
                std::thread::spawn(move || server.serve(stream));
            }
        });
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.at
    }

    /// From now on it takes what it refused for now.
    pub fn relent(&self) {
        self.lock().relents = true;
    }

    /// Whether it ends each connection without a word from now on.
    pub fn be_down(&self, is_down: bool) {
        self.lock().is_down = is_down;
    }

    /// Whether it leaves those waiting whose messages it has, from now on.
    pub fn be_silent(&self, is_silent: bool) {
        self.lock().is_silent = is_silent;
        self.answers_on.notify_all();
    }

    /// Whether it takes no octets above 127 from now on, and says so: it has no 8BITMIME.
    pub fn be_seven_bit(&self, is_seven_bit: bool) {
        self.lock().is_seven_bit = is_seven_bit;
    }

    /// It takes so many recipients in a transaction from now on, and after so many transactions closes the connection without a
    /// word.
    pub fn be_curt(&self, recipients: usize, transactions: usize) {
        self.lock().most = Some((recipients, transactions));
    }

    /// What it took so far.
    pub fn taken(&self) -> Vec<Taken> {
        self.lock().taken.clone()
    }

    /// How many messages it took so far.
    pub fn count(&self) -> usize {
        self.lock().taken.len()
    }

    /// Connections that it had.
    pub fn connections(&self) -> u64 {
        self.lock().connections
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(SILENT_MAX))?;
        let mut out = stream.try_clone()?;
        let mut lines = BufReader::new(stream);
        out.write_all(b"220 other.test ESMTP\r\n")?;
        let (mut from, mut to): (String, Vec<String>) = (String::new(), Vec::new());
        let mut transactions = 0;
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end();
            let path = |line: &str| line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
            match line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "EHLO" => {
                    let eight_bit = if self.lock().is_seven_bit { "" } else { "250-8BITMIME\r\n" };
                    let reply = format!("250-other.test\r\n{eight_bit}250-PIPELINING\r\n250 SIZE 99999999\r\n");
                    out.write_all(reply.as_bytes())?;
                }
                "MAIL" => {
                    (from, to) = (path(line), Vec::new());
                    out.write_all(b"250 2.1.0 ok\r\n")?;
                }
                "RCPT" => {
                    let address = path(line);
                    if self.lock().most.is_some_and(|(recipients, _)| to.len() >= recipients) {
                        out.write_all(b"452 4.5.3 too many at once\r\n")?;
                    } else if address.starts_with("never") {
                        out.write_all(b"550 5.1.1 there is nobody of this name\r\n")?;
                    } else if address.starts_with("later") && !self.lock().relents {
                        out.write_all(b"450 4.2.0 come again later\r\n")?;
                    } else {
                        to.push(address);
                        out.write_all(b"250 2.1.5 ok\r\n")?;
                    }
                }
                "DATA" if to.is_empty() => out.write_all(b"503 5.5.1 nobody to take it\r\n")?,
                "DATA" => {
                    out.write_all(b"354 go on\r\n")?;
                    let content = message(&mut lines)?;
                    // It is signed anew each time, with the time: the same message begins where it was received.
                    let unsigned = content.find("Received:").map_or(content.as_str(), |at| &content[at..]);
                    let is_lost =
                        to.iter().any(|to| to.starts_with("lost")) && self.lock().lost.insert(unsigned.to_owned());
                    self.lock().taken.push(Taken { from: from.clone(), to: std::mem::take(&mut to), content });
                    if is_lost {
                        return Ok(());
                    }
                    let silent = self.answers_on.wait_while(self.lock(), |state| state.is_silent);
                    drop(silent.unwrap_or_else(PoisonError::into_inner));
                    out.write_all(b"250 2.0.0 taken\r\n")?;
                    transactions += 1;
                    if self.lock().most.is_some_and(|(_, most)| transactions >= most) {
                        return Ok(());
                    }
                }
                "RSET" => out.write_all(b"250 2.0.0 ok\r\n")?,
                "QUIT" => {
                    out.write_all(b"221 2.0.0 bye\r\n")?;
                    return Ok(());
                }
                _ => out.write_all(b"502 5.5.1 not here\r\n")?,
            }
        }
    }
}

fn message(lines: &mut impl BufRead) -> io::Result<String> {
    let mut content = String::new();
    loop {
        let mut line = Vec::new();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(content);
        }
        let line = line.strip_prefix(b".").unwrap_or(&line);
        content.push_str(&String::from_utf8_lossy(line));
    }
}
