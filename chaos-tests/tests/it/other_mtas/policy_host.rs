//! A host of MTA-STS policies over HTTPS.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::certificates::Certificate;

/// A silent client is waited for so long.
const SILENT_MAX: Duration = Duration::from_secs(20);

/// Tells policies by the name of the host that is asked for, as long as the process lives.
pub fn start(at: SocketAddr, certificate: &Certificate, policies: BTreeMap<String, String>) -> io::Result<()> {
    let chain = CertificateDer::pem_file_iter(&certificate.chain).map_err(io::Error::other)?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(&certificate.key).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(io::Error::other)?;
    let config = Arc::new(config);
    let listener = TcpListener::bind(at)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // How a client ends is nothing to tell.
            let _ = answer(stream, &config, &policies);
        }
    });
    Ok(())
}

fn answer(stream: TcpStream, config: &Arc<ServerConfig>, policies: &BTreeMap<String, String>) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENT_MAX))?;
    let tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let mut lines = BufReader::new(StreamOwned::new(tls, stream));
    let (mut asked, mut host) = (String::new(), String::new());
    lines.read_line(&mut asked)?;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? <= 2 {
            break;
        }
        if let Some((_, value)) = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("host")) {
            host = value.trim().to_owned();
        }
    }
    let policy = policies.get(&host).filter(|_| asked.starts_with("GET /.well-known/mta-sts.txt "));
    let (status, text) = policy.map_or(("404 Not Found", ""), |policy| ("200 OK", policy.as_str()));
    let out = lines.get_mut();
    write!(
        out,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )?;
    out.conn.send_close_notify();
    out.flush()
}
