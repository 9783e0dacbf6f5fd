//! Pages over HTTPS: the policy of MTA-STS of our own domains, and what mail programs fill in by themselves.
//!
//! Everybody may read them, so they tell nothing that is not public: whether a domain is here (mail to it says so too), never
//! whether an address is.

mod content;
mod request;

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HOST};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use self::content::{Page, Told, page};
use self::request::{Asked, RequestRefusal, Wanted};
use crate::config::Config;
use crate::lookups::look_up;
use crate::places::Place;
use crate::services::Services;

/// A connection is over after this long, whatever was said on it. It has one request.
const TOTAL_MAX: Duration = Duration::from_secs(30);
/// The header of a request, in bytes.
const HEADER_MAX_BYTES: usize = 16 << 10;
/// Fields of the header of a request.
const FIELDS_MAX: usize = 64;
/// The body of a request, in bytes.
const BODY_MAX_BYTES: usize = 16 << 10;

/// Answers the request of a connection whose TLS is taken up, within [`TOTAL_MAX`] and until its place is given to another.
///
/// # Errors
/// Those of the connection.
pub async fn serve<S>(services: Services, connection: S, place: &Place) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    place.heard();
    place.set_waits(true);
    let is_ours = move |domain: String| {
        let services = services.clone();
        async move {
            let found = look_up(&services.cluster, &services.lookup, move |lookup| lookup.domain(&domain)).await;
            (found.map(|domain| domain.is_some()).map_err(|_| ()), services.config())
        }
    };
    within(TOTAL_MAX, place, answer_one(connection, is_ours)).await
}

/// For so long, and until the place is given to another connection.
async fn within(total: Duration, place: &Place, answered: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    tokio::select! {
        answered = timeout(total, answered) => answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        _ = place.told_to_leave() => Err(io::Error::other("gave way to another connection")),
    }
}

/// Answers one request. Whether a domain is ours is asked, and comes with the configuration as it is now; Err if nobody can say.
async fn answer_one<S, F>(connection: S, is_ours: impl Fn(String) -> F + Clone) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = (Result<bool, ()>, std::sync::Arc<Config>)>,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let is_ours = is_ours.clone();
        async move { Ok::<_, Infallible>(response(request, is_ours).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.keep_alive(false).max_buf_size(HEADER_MAX_BYTES).max_headers(FIELDS_MAX);
    http.serve_connection(TokioIo::new(connection), service).await.map_err(io::Error::other)
}

async fn response<F>(request: Request<Incoming>, is_ours: impl Fn(String) -> F) -> Response<Full<Bytes>>
where
    F: Future<Output = (Result<bool, ()>, std::sync::Arc<Config>)>,
{
    let (head, body) = request.into_parts();
    let body = match head.method {
        Method::POST => match Limited::new(body, BODY_MAX_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return plain(StatusCode::PAYLOAD_TOO_LARGE),
        },
        _ => Bytes::new(),
    };
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    let asked = Asked { method: head.method.as_str(), host, path, query, body: &body };
    let wanted = match Wanted::of(&asked) {
        Ok(wanted) => wanted,
        Err(RequestRefusal::NotFound) => return plain(StatusCode::NOT_FOUND),
        Err(RequestRefusal::NoAddress) => return plain(StatusCode::BAD_REQUEST),
        Err(RequestRefusal::NotAllowed) => {
            let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED);
            refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, POST"));
            return refused;
        }
    };
    let (ours, config) = is_ours(wanted.domain().to_owned()).await;
    match ours {
        Err(()) => plain(StatusCode::SERVICE_UNAVAILABLE),
        Ok(false) => plain(StatusCode::NOT_FOUND),
        Ok(true) => {
            let (listen, policy) = (&config.listen, config.mta_sts.as_ref());
            match page(&wanted, &Told { hostname: &config.tls.hostname, listen, policy }) {
                None => plain(StatusCode::NOT_FOUND),
                Some(Page { kind, text }) => {
                    let mut found = Response::new(Full::new(Bytes::from(text)));
                    found.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
                    found
                }
            }
        }
    }
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::places::{Bounds, Places, Share};

    fn config() -> Arc<Config> {
        let text = crate::config::example().replace("mode = \"off\"", "mode = \"testing\"");
        Arc::new(Config::parse(&text).unwrap())
    }

    /// What is heard after this was said, in a cluster that has the domain b.test; c.test is what nobody can tell of.
    async fn heard(said: &str) -> String {
        let (mut near, far) = tokio::io::duplex(256 << 10);
        let is_ours = |domain: String| async move {
            let ours = if domain == "c.test" { Err(()) } else { Ok(domain == "b.test") };
            (ours, config())
        };
        let talk = async {
            near.write_all(said.as_bytes()).await.unwrap();
            let mut heard = Vec::new();
            near.read_to_end(&mut heard).await.unwrap();
            String::from_utf8(heard).unwrap()
        };
        let (heard, _ended) = tokio::join!(talk, answer_one(far, is_ours));
        heard
    }

    fn get(host: &str, path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
    }

    #[tokio::test]
    async fn pages_are_about_domains_that_are_here() {
        let path = "/.well-known/mta-sts.txt";
        let heard_of = async |host: &str| heard(&get(host, path)).await;
        let policy = heard_of("mta-sts.b.test").await;
        assert!(policy.starts_with("HTTP/1.1 200 OK\r\n") && policy.contains("mode: testing\r\n"), "{policy}");
        assert!(policy.contains("mx: localhost\r\n"), "without others it names this server: {policy}");
        assert!(heard_of("mta-sts.a.test").await.starts_with("HTTP/1.1 404 "));
        assert!(heard_of("mta-sts.c.test").await.starts_with("HTTP/1.1 503 "));
        assert!(heard_of("b.test").await.starts_with("HTTP/1.1 404 "));
        let twice = get("mta-sts.b.test", path).repeat(2);
        assert_eq!(heard(&twice).await.matches("HTTP/1.1 ").count(), 1, "a connection has one request");
        let xml = "<EMailAddress>a@b.test</EMailAddress>";
        let post = |length: usize| {
            format!(
                "POST /autodiscover/autodiscover.xml HTTP/1.1\r\nHost: b.test\r\nContent-Length: {length}\r\n\r\n{xml}"
            )
        };
        let answer = heard(&post(xml.len())).await;
        assert!(answer.contains("<LoginName>a@b.test</LoginName>"), "{answer}");
        assert!(heard(&get("b.test", "/autodiscover/autodiscover.xml")).await.contains("405"));
        assert!(heard(&get("b.test", "/mail.mobileconfig")).await.contains("400"));
    }

    #[tokio::test]
    async fn who_asks_slowly_is_not_waited_for_and_gives_way_to_others() {
        let places = Places::default();
        let bounds = Bounds {
            sessions: 2,
            sessions_per_address: 2,
            strangers_percent: 50,
            strangers_per_address: 2,
            messages: 1,
            messages_per_address: 1,
        };
        let enter = || places.enter(Share::Pages, [127, 0, 0, 1].into(), &bounds);
        let place = enter().unwrap();
        let (_near, far) = tokio::io::duplex(1_024);
        let never = || answer_one(far, async |_| (Ok(true), config()));
        let ended = within(Duration::from_millis(50), &place, never()).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        place.set_waits(true);
        let newcomer = async {
            // A stranger gives way once it was silent for a while.
            while enter().is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let (ended, ()) = tokio::join!(within(TOTAL_MAX, &place, std::future::pending()), newcomer);
        assert!(ended.unwrap_err().to_string().contains("gave way"));
    }

    #[tokio::test]
    async fn a_request_has_its_bounds() {
        let fields = |n: usize| "X: y\r\n".repeat(n);
        let with = |fields: &str| format!("GET / HTTP/1.1\r\nHost: b.test\r\n{fields}\r\n");
        assert!(heard(&with(&fields(FIELDS_MAX - 1))).await.contains("404"));
        assert!(heard(&with(&fields(FIELDS_MAX))).await.contains("431"));
        let long = with(&format!("X: {}\r\n", "y".repeat(2 * HEADER_MAX_BYTES)));
        assert!(heard(&long).await.contains("431"));
        let body = "x".repeat(BODY_MAX_BYTES + 1);
        let path = "/autodiscover/autodiscover.xml";
        let long = format!("POST {path} HTTP/1.1\r\nHost: b.test\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert!(heard(&long).await.contains("413"));
    }
}
