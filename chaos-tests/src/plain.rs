//! A blocking connection in clear that reads lines.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(20);
const LINE_MAX_BYTES: u64 = 1 << 20;

/// A connection in clear.
pub struct Plain {
    stream: BufReader<TcpStream>,
}

impl Plain {
    /// Connects from this machine's own address.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn connect(address: &str) -> io::Result<Self> {
        Self::connect_from([127, 0, 0, 1], address)
    }

    /// Connects from another address of the loopback network.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn connect_from(from: [u8; 4], address: &str) -> io::Result<Self> {
        let socket = socket_from(from, address)?;
        socket.set_read_timeout(Some(READ_TIMEOUT))?;
        Ok(Plain { stream: BufReader::new(socket) })
    }

    /// The next line without its CRLF; empty at the end.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        (&mut self.stream).take(LINE_MAX_BYTES).read_until(b'\n', &mut line)?;
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Sends a line.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn say(&mut self, line: &str) -> io::Result<()> {
        self.send(format!("{line}\r\n").as_bytes())
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// How long a write waits for a server that does not read.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn set_write_timeout(&self, time: Duration) -> io::Result<()> {
        self.stream.get_ref().set_write_timeout(Some(time))
    }

    /// Whether the server has ended the connection, as far as is known without waiting; what it said is thrown away.
    pub fn is_over(&mut self) -> bool {
        let socket = self.stream.get_mut();
        if socket.set_nonblocking(true).is_err() {
            return true;
        }
        let mut heard = [0; 4_096];
        let over = loop {
            match socket.read(&mut heard) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
            }
        };
        over || socket.set_nonblocking(false).is_err()
    }
}

/// A socket that is connected from this address.
///
/// # Errors
/// Those of the connection.
pub fn socket_from(from: [u8; 4], address: &str) -> io::Result<TcpStream> {
    let there: SocketAddr = address.parse().map_err(io::Error::other)?;
    let own = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    own.bind(&SocketAddr::new(IpAddr::V4(Ipv4Addr::from(from)), 0).into())?;
    own.connect_timeout(&there.into(), CONNECT_TIMEOUT)?;
    let socket = TcpStream::from(own);
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Lets this process have as many connections as it may.
///
/// # Errors
/// The system's.
pub fn open_many() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(())
}
