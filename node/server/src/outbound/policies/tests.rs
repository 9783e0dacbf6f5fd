#![allow(clippy::unwrap_used)]

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::{A, TXT};
use hickory_resolver::proto::rr::{RData, RecordType};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::outbound::https::HEADER_MAX_BYTES;
use crate::proved_dns::tests as dns;

const DOMAIN: &str = "b.test";
const POLICY: &str = "version: STSv1\nmode: enforce\nmx: mx.b.test\nmax_age: 86400\n";

/// A host of policies with a certificate for a name, and who trusts it.
fn host(name: &str) -> (TlsAcceptor, OutboundTls) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), OutboundTls::new(vec![authority.der().clone()]))
}

fn ok(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// Answers one request; gives it.
async fn answer(acceptor: &TlsAcceptor, io: impl AsyncRead + AsyncWrite + Unpin, response: &str) -> String {
    let Ok(mut stream) = acceptor.accept(io).await else { return String::new() };
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(octet) => heard.push(octet),
            Err(_) => return String::new(),
        }
    }
    // Who has heard enough may end the connection.
    let _ = stream.write_all(response.as_bytes()).await;
    let _ = stream.shutdown().await;
    String::from_utf8(heard).unwrap()
}

/// What is fetched from a host whose certificate is for this name, and that answers this.
async fn fetched(name: &str, response: &str) -> (Result<Policy, FailureKind>, String) {
    let (acceptor, tls) = host(name);
    let (near, far) = tokio::io::duplex(256 << 10);
    let (policy, request) = tokio::join!(fetch_over(&tls, near, "mta-sts.b.test"), answer(&acceptor, far, response));
    (policy.map_err(|error| error.kind), request)
}

#[tokio::test]
async fn a_policy_is_what_its_host_answers_and_nothing_else() {
    use FailureKind::{StsPolicyFetchError, StsPolicyInvalid, StsWebpkiInvalid};
    let text = "Content-Type: Text/Plain; charset=utf-8\r\n";
    let (policy, request) = fetched("mta-sts.b.test", &ok(text, POLICY)).await;
    assert_eq!(policy, Ok(Policy::parse(POLICY.as_bytes()).unwrap()));
    assert!(request.starts_with("GET /.well-known/mta-sts.txt HTTP/1.1\r\n"), "{request}");
    assert!(request.to_ascii_lowercase().contains("\r\nhost: mta-sts.b.test\r\n"), "{request}");
    let moved = "HTTP/1.1 301 Moved\r\nLocation: https://www.b.test/p\r\nContent-Length: 0\r\n\r\n";
    let long = format!("{POLICY}x: {}", "y".repeat(POLICY_MAX_BYTES));
    let endless = format!(
        "HTTP/1.1 200 OK\r\n{text}Transfer-Encoding: chunked\r\n\r\n{}",
        "8000\r\n".to_owned() + &("z".repeat(0x8000) + "\r\n8000\r\n").repeat(4)
    );
    let cases = [
        (moved.to_owned(), StsPolicyFetchError),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(), StsPolicyFetchError),
        (ok("Content-Type: text/html\r\n", POLICY), StsPolicyFetchError),
        (ok("", POLICY), StsPolicyFetchError),
        ("what?\r\n\r\n".to_owned(), StsPolicyFetchError),
        (ok(text, POLICY).replace("86400\n", ""), StsPolicyFetchError),
        (format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(2 * HEADER_MAX_BYTES)), StsPolicyFetchError),
        (ok(text, "version: STSv1"), StsPolicyInvalid),
        (ok(text, &long), StsPolicyInvalid),
        (endless, StsPolicyInvalid),
    ];
    for (response, kind) in cases {
        let shown = response.chars().take(60).collect::<String>();
        assert_eq!(fetched("mta-sts.b.test", &response).await.0, Err(kind), "{shown:?}");
    }
    assert_eq!(fetched("www.b.test", &ok(text, POLICY)).await, (Err(StsWebpkiInvalid), String::new()));
}

#[tokio::test]
async fn a_fetch_has_its_time() {
    let late = until(Instant::now() + Duration::from_millis(50), std::future::pending()).await;
    assert_eq!(late.map_err(|error| error.kind), Err(FailureKind::StsPolicyFetchError));
}

#[tokio::test]
async fn a_policy_is_found_by_the_dns_and_https_and_outlives_both() {
    let (acceptor, tls) = host("mta-sts.b.test");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut policies = Policies::new(tls);
    policies.port = listener.local_addr().unwrap().port();
    let id = dns::record("_mta-sts.b.test", RData::TXT(TXT::new(vec!["v=STSv1; id=1;".to_owned()])));
    let address = dns::record("mta-sts.b.test", RData::A(A([127, 0, 0, 1].into())));
    let said = |records| (ResponseCode::NoError, false, records);
    let (at, _) = dns::resolver(vec![
        ("_mta-sts.b.test", RecordType::TXT, said(vec![id])),
        ("mta-sts.b.test", RecordType::A, said(vec![address])),
    ])
    .await;
    let resolver = Resolver::new(&[at]).unwrap().unwrap();
    let response = ok("Content-Type: text/plain\r\n", POLICY);
    let serve = async {
        let (io, _) = listener.accept().await.unwrap();
        answer(&acceptor, io, &response).await
    };
    let (found, request) = tokio::join!(policies.of(DOMAIN, &resolver, 1_000), serve);
    assert!(request.starts_with("GET "));
    let policy = Policy::parse(POLICY.as_bytes()).unwrap();
    assert_eq!(found, Found { policy: Some(policy.clone()), flaw: None });
    // From then on nobody is asked, though the host is gone.
    drop(listener);
    assert_eq!(policies.of(DOMAIN, &resolver, 2_000).await, Found { policy: Some(policy), flaw: None });
    // A day later it is over, and the fetch that fails says so.
    let found = policies.of(DOMAIN, &resolver, 1_000 + 86_400).await;
    assert_eq!(found, Found { policy: None, flaw: Some(FailureKind::StsPolicyFetchError) });
    assert_eq!(policies.of("c.test", &resolver, 2_000).await, Found::default());
}

#[tokio::test]
async fn however_many_want_a_policy_at_once_it_is_fetched_once() {
    let (acceptor, tls) = host("mta-sts.b.test");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut policies = Policies::new(tls);
    policies.port = listener.local_addr().unwrap().port();
    let id = dns::record("_mta-sts.b.test", RData::TXT(TXT::new(vec!["v=STSv1; id=1;".to_owned()])));
    let address = dns::record("mta-sts.b.test", RData::A(A([127, 0, 0, 1].into())));
    let (at, _) = dns::resolver(vec![
        ("_mta-sts.b.test", RecordType::TXT, (ResponseCode::NoError, false, vec![id])),
        ("mta-sts.b.test", RecordType::A, (ResponseCode::NoError, false, vec![address])),
    ])
    .await;
    let resolver = Resolver::new(&[at]).unwrap().unwrap();
    let wanted = (0..50).map(|_| {
        let (policies, resolver) = (policies.clone(), resolver.clone());
        tokio::spawn(async move { policies.of(DOMAIN, &resolver, 1_000).await })
    });
    let wanted: Vec<_> = wanted.collect();
    let (io, _) = listener.accept().await.unwrap();
    // From here on nobody could fetch it again.
    drop(listener);
    answer(&acceptor, io, &ok("Content-Type: text/plain\r\n", POLICY)).await;
    for found in wanted {
        let found = found.await.unwrap();
        assert!(found.policy.is_some() && found.flaw.is_none(), "{found:?}");
    }
    assert!(policies.under_way.lock().unwrap().len() <= 1);
}

#[test]
fn a_fetch_that_fails_leaves_what_is_valid() {
    let mut cache = Cache::default();
    let id = RecordAnswer::Id("1".to_owned());
    let policy = Policy::parse(POLICY.as_bytes()).unwrap();
    let failed = || Err(FetchError::fetch("gone".to_owned()));
    assert_eq!(cache.came(DOMAIN, &id, Ok(policy.clone()), 1_000).policy, Some(policy.clone()));
    let flaw = Some(FailureKind::StsPolicyFetchError);
    let found = cache.came(DOMAIN, &RecordAnswer::Id("2".to_owned()), failed(), 2_000);
    assert_eq!(found, Found { policy: Some(policy), flaw });
    assert_eq!(cache.get(DOMAIN).failed_at_s, Some(2_000));
    assert_eq!(cache.came(DOMAIN, &id, failed(), 1_000 + 86_400), Found { policy: None, flaw });
}

#[test]
fn policies_are_kept_within_a_bound_of_bytes_and_those_in_use_stay() {
    let mut cache = Cache::default();
    let long = format!("mx: {}.b.test\n", "x".repeat(60)).repeat(400);
    let policy = Policy::parse(POLICY.replace("mx: mx.b.test\n", &long).as_bytes()).unwrap();
    let id = RecordAnswer::Id("1".to_owned());
    for n in 0..2_000 {
        cache.came(&format!("n{n}.test"), &id, Ok(policy.clone()), 1_000);
        assert!(cache.get("n0.test").kept.is_some(), "{n}: it is used all the time");
        assert!(cache.bytes <= CACHE_MAX_BYTES);
        assert_eq!(cache.domains.len(), cache.by_use.len());
    }
    assert!(cache.get("n1.test").kept.is_none() && cache.domains.len() > 100);
    let bytes: usize = cache.domains.iter().map(|(domain, entry)| entry.size_bytes(domain)).sum();
    assert_eq!(bytes, cache.bytes);
}
