//! A blocking connection over TLS that reads lines.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// No server may keep a client waiting longer: a slow answer takes a minute at most.
pub const READ_TIMEOUT: Duration = Duration::from_secs(70);
const LINE_MAX_BYTES: u64 = 64 << 20;

/// What a client trusts.
#[derive(Clone)]
pub struct Trust {
    config: Arc<ClientConfig>,
}

/// A connection over TLS.
pub struct Wire {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Trust {
    /// Trusts the certificates in this PEM file alone.
    ///
    /// # Errors
    /// If there is none in it.
    pub fn in_file(path: &Path) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(io::Error::other)? {
            roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Trust { config: Arc::new(config) })
    }
}

impl Wire {
    /// Connects, and speaks TLS at once.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn connect(trust: &Trust, address: &str) -> io::Result<Self> {
        let parsed = address.parse().map_err(io::Error::other)?;
        let socket = TcpStream::connect_timeout(&parsed, Duration::from_secs(2))?;
        socket.set_nodelay(true)?;
        Self::over(trust, socket)
    }

    /// Speaks TLS over a connection.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn over(trust: &Trust, socket: TcpStream) -> io::Result<Self> {
        socket.set_read_timeout(Some(READ_TIMEOUT))?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let client = ClientConnection::new(Arc::clone(&trust.config), name).map_err(io::Error::other)?;
        Ok(Wire { stream: BufReader::new(StreamOwned::new(client, socket)) })
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)?;
        self.stream.get_mut().flush()
    }

    /// One line without its CRLF.
    ///
    /// # Errors
    /// Those of the connection, and its end.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let got = (&mut self.stream).take(LINE_MAX_BYTES).read_until(b'\n', &mut line)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while line.last().is_some_and(|b| matches!(b, b'\r' | b'\n')) {
            line.pop();
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// How long a write waits for a server that does not read.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn set_write_timeout(&self, time: Duration) -> io::Result<()> {
        self.stream.get_ref().sock.set_write_timeout(Some(time))
    }

    /// Exactly this many bytes.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn exactly(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        let mut out = vec![0; bytes];
        self.stream.read_exact(&mut out)?;
        Ok(out)
    }
}
