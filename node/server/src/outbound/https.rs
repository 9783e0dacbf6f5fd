//! HTTPS to other domains' hosts: connections, and one request over each.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use mailraft_outbound::route::{Reach, may_connect};
use mailraft_outbound::tls::policy::TlsWanted;
use mailraft_sender_auth::{Dns, Question, Record};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::tls::OutboundTls;
use crate::dns::Resolver;

/// The port of HTTPS.
pub const HTTPS_PORT: u16 = 443;
/// The header of an answer, in bytes.
pub const HEADER_MAX_BYTES: usize = 16 << 10;
/// Addresses of a host that are tried.
const ADDRESSES_MAX: usize = 4;
/// Of the answer to what is posted so much is read, in bytes: its code says all.
const ANSWER_MAX_BYTES: usize = 64 << 10;

/// Connects to a host until the deadline, of its addresses to one that may be connected to.
///
/// # Errors
/// One sentence.
pub async fn connect(
    host: &str,
    port: u16,
    reach: Reach,
    resolver: &Resolver,
    deadline: Instant,
) -> Result<TcpStream, String> {
    let dns = resolver.until(deadline);
    let (v6, v4) = (Question::Aaaa(host.to_owned()), Question::A(host.to_owned()));
    let (v6, v4) = tokio::join!(dns.ask(&v6), dns.ask(&v4));
    let addresses = [v6, v4].into_iter().flatten().flatten().filter_map(|record| match record {
        Record::A(v4) => Some(SocketAddr::new(v4.into(), port)),
        Record::Aaaa(v6) => Some(SocketAddr::new(v6.into(), port)),
        Record::Txt(_) | Record::Mx { .. } | Record::Ptr(_) => None,
    });
    let mut error = format!("{host} has no address that the DNS would tell and that may be connected to");
    let addresses: Vec<SocketAddr> = addresses.filter(|at| may_connect(at.ip(), reach)).take(ADDRESSES_MAX).collect();
    let share = deadline.saturating_duration_since(Instant::now()) / (addresses.len() as u32 + 1);
    for at in addresses {
        match timeout(share, TcpStream::connect(at)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(failed)) => error = format!("no connection to {host} at {at}: {failed}"),
            Err(_) => error = format!("no connection to {host} at {at} in {} s", share.as_secs()),
        }
    }
    Err(error)
}

/// Asks over a connection with TLS, and reads the answer by a function of its own.
///
/// # Errors
/// Those of HTTP, and what the function says.
pub async fn ask<S, B, F, T, E>(
    io: S,
    request: Request<B>,
    read: impl FnOnce(Response<Incoming>) -> F + Send,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>> + Send,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    E: From<hyper::Error>,
{
    let mut client = hyper::client::conn::http1::Builder::new();
    client.max_buf_size(HEADER_MAX_BYTES);
    let (mut sender, connection) = client.handshake(TokioIo::new(io)).await?;
    let answered = async { read(sender.send_request(request).await?).await };
    tokio::pin!(answered);
    tokio::select! {
        biased;
        answer = &mut answered => return answer,
        // It may have ended after all of the answer came.
        _ended = connection => {}
    }
    answered.await
}

/// Why nothing was posted.
#[derive(Debug, thiserror::Error)]
enum PostError {
    #[error("it does not speak HTTP as it should: {0}")]
    Http(#[from] hyper::Error),
    #[error("it answers {0}")]
    Answer(u16),
}

/// Posts this to a URL until the deadline, whatever certificate is there (RFC 8460, section 3); an answer of 2xx takes it.
///
/// # Errors
/// One sentence.
pub async fn post(
    tls: &OutboundTls,
    url: &str,
    (content_type, body): (&str, Vec<u8>),
    reach: Reach,
    resolver: &Resolver,
    deadline: Instant,
) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
    let (Some(host), Some(authority)) = (uri.host(), uri.authority()) else {
        return Err(format!("{url:?} names no host"));
    };
    if authority.as_str().contains('@') {
        return Err(format!("{url:?} names a user, whom nobody here is"));
    }
    let posted = async {
        let stream = connect(host, uri.port_u16().unwrap_or(HTTPS_PORT), reach, resolver, deadline).await?;
        let hello = tls.first_hello(host, crate::environment::wall().0 / 1_000);
        let secured = tls.handshake(stream, host, &TlsWanted::Encrypted, None, hello).await.map_err(|e| e.text)?;
        let path = uri.path_and_query().map_or("/", hyper::http::uri::PathAndQuery::as_str);
        let request = Request::post(path)
            .header(HOST, authority.as_str())
            .header(USER_AGENT, "Mailraft")
            .header(CONTENT_TYPE, content_type)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| format!("no request can be made for {url:?}: {error}"))?;
        let taken = ask(secured.stream, request, |response| async move {
            let code = response.status();
            // Read so that the other end hears that it was.
            let _ = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await;
            if code.is_success() { Ok(()) } else { Err(PostError::Answer(code.as_u16())) }
        });
        taken.await.map_err(|error| format!("{host}: {error}"))
    };
    timeout_at(deadline, posted).await.unwrap_or_else(|_| Err(format!("{host} did not take it in time")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use rustls::ServerConfig;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A host with a certificate that nobody signed, which gives each this answer. What it heard is told.
    async fn host(answer: &'static str) -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (told, tells) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let mut heard = Vec::new();
                while !heard.ends_with(b"the report") {
                    let mut some = [0; 1_024];
                    let read = stream.read(&mut some).await.unwrap();
                    assert!(read > 0, "{}", String::from_utf8_lossy(&heard));
                    heard.extend_from_slice(&some[..read]);
                }
                told.send(String::from_utf8(heard).unwrap()).unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        (port, tells)
    }

    /// Posts over a connection that stands.
    async fn posted(answer: &'static str) -> (Result<(), String>, String) {
        let (port, mut tells) = host(answer).await;
        let tls = OutboundTls::new(Vec::new());
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let body = Full::new(Bytes::from_static(b"the report"));
        let request = Request::post("/v1?x").header(HOST, "r.test").header(CONTENT_TYPE, "a/b").body(body).unwrap();
        let hello = tls.first_hello("r.test", 0);
        let secured = tls.handshake(stream, "r.test", &TlsWanted::Encrypted, None, hello).await.unwrap();
        let taken = ask(secured.stream, request, |response| async move {
            match response.status() {
                code if code.is_success() => Ok(()),
                code => Err(PostError::Answer(code.as_u16())),
            }
        });
        (taken.await.map_err(|error| error.to_string()), tells.recv().await.unwrap())
    }

    #[tokio::test]
    async fn what_is_posted_arrives_whatever_certificate_is_there_and_a_refusal_is_told() {
        let (taken, heard) = posted("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(taken, Ok(()));
        assert!(heard.starts_with("POST /v1?x HTTP/1.1\r\n"), "{heard}");
        assert!(heard.contains("content-type: a/b\r\n") && heard.ends_with("\r\n\r\nthe report"), "{heard}");
        let (refused, _) = posted("HTTP/1.1 429 Slowly\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(refused.unwrap_err(), "it answers 429");
    }

    #[tokio::test]
    async fn nothing_is_posted_to_what_is_no_host_or_to_this_machine() {
        let tls = OutboundTls::new(Vec::new());
        let resolver = Resolver::new(&["127.0.0.1:9".parse().unwrap()]).unwrap().unwrap();
        let deadline = Instant::now() + std::time::Duration::from_secs(1);
        for (url, said) in [
            ("https:///x", "names no host"),
            ("https://user@a.test/", "names a user"),
            ("https://127.0.0.1/", "no address that the DNS would tell"),
        ] {
            let done = post(&tls, url, ("a/b", Vec::new()), Reach::Public, &resolver, deadline).await;
            let error = done.unwrap_err();
            assert!(error.contains(said) || error.contains("is no URL"), "{url}: {error}");
        }
        assert!(!may_connect([127, 0, 0, 1].into(), Reach::Public));
    }
}
