#![allow(clippy::unwrap_used)]

use mailraft_outbound::tls::dane::{Association, Selector, Usage};
use mailraft_outbound::tls::policy::{Next, after};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, SupportedProtocolVersion};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::*;

const HOST: &str = "mx.b.test";
const OCTETS: usize = 64 << 10;

/// A server with a certificate.
struct Server {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
    versions: &'static [&'static SupportedProtocolVersion],
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "an authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn params(name: &str) -> CertificateParams {
    CertificateParams::new([name.to_owned()]).unwrap()
}

fn expired(name: &str) -> CertificateParams {
    let mut params = params(name);
    (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
    params
}

impl Server {
    fn self_signed(params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.self_signed(&key).unwrap().der().clone()];
        Server { chain, key, versions: rustls::ALL_VERSIONS }
    }

    /// It shows its authority too.
    fn signed(params: &CertificateParams, by: &Authority) -> Self {
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.signed_by(&key, by).unwrap().der().clone(), by.der().clone()];
        Server { chain, key, versions: rustls::ALL_VERSIONS }
    }

    fn without_authority(mut self) -> Self {
        self.chain.truncate(1);
        self
    }

    fn acceptor(&self) -> TlsAcceptor {
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// What comes of a handshake, with the name that the server was asked for. What is said over it arrives.
async fn meet(
    tls: &OutboundTls,
    server: &Server,
    wanted: &TlsWanted,
    watched: Option<&Authentication>,
) -> (Result<Option<Result<(), CertificateFault>>, TlsFailure>, Option<String>) {
    let (near, far) = tokio::io::duplex(OCTETS);
    let acceptor = server.acceptor();
    let ours = async {
        let secured = tls.handshake(near, HOST, wanted, watched, Hello::WithMlKem).await;
        let mut secured = secured.map_err(|error| error.failure)?;
        secured.stream.write_all(b"EHLO").await.unwrap();
        secured.stream.shutdown().await.unwrap();
        // Until the server has heard it and goes.
        let _ = secured.stream.read_to_end(&mut Vec::new()).await;
        Ok(secured.watched)
    };
    let theirs = async {
        let mut stream = acceptor.accept(far).await.ok()?;
        let mut heard = Vec::new();
        // A client of TLS 1.3 that refuses the certificate may do so after our part is over.
        if stream.read_to_end(&mut heard).await.is_ok() {
            assert_eq!(heard, b"EHLO");
        }
        stream.get_ref().1.server_name().map(str::to_owned)
    };
    tokio::join!(ours, theirs)
}

fn digest(usage: Usage, selector: Selector, certificate: &[u8]) -> Usable {
    let of = match selector {
        Selector::Certificate => certificate,
        Selector::PublicKey => public_key(certificate).unwrap(),
    };
    Usable { usage, selector, association: Association::Sha256(Sha256::digest(of).into()) }
}

fn dane(records: &[Usable]) -> TlsWanted {
    let names = vec![HOST.to_owned(), "b.test".to_owned()];
    TlsWanted::Authenticated { how: Authentication::Dane { records: records.to_vec(), base: HOST.to_owned(), names } }
}

fn webpki() -> TlsWanted {
    TlsWanted::Authenticated { how: Authentication::WebPki { host: HOST.to_owned() } }
}

fn refused(fault: CertificateFault) -> Result<Option<Result<(), CertificateFault>>, TlsFailure> {
    Err(TlsFailure::Certificate(fault))
}

const VERSIONS: [&[&SupportedProtocolVersion]; 2] = [&[&rustls::version::TLS12], &[&rustls::version::TLS13]];

#[tokio::test]
async fn who_wants_no_proof_takes_any_certificate() {
    let tls = OutboundTls::new(Vec::new());
    for versions in VERSIONS {
        for server in [Server::self_signed(&params("other.test")), Server::self_signed(&expired(HOST))] {
            let server = Server { versions, ..server };
            for wanted in [TlsWanted::Opportunistic, TlsWanted::Encrypted] {
                let (came, name) = meet(&tls, &server, &wanted, None).await;
                assert_eq!((came, name.as_deref()), (Ok(None), Some(HOST)));
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_that_a_record_names_needs_no_date_and_no_name() {
    let tls = OutboundTls::new(Vec::new());
    let servers = || [Server::self_signed(&params(HOST)), Server::self_signed(&expired("other.test"))];
    for versions in VERSIONS {
        for server in servers() {
            let server = Server { versions, ..server };
            for selector in [Selector::Certificate, Selector::PublicKey] {
                let fits = digest(Usage::EndEntity, selector, &server.chain[0]);
                let other = digest(Usage::EndEntity, selector, &Server::self_signed(&params(HOST)).chain[0]);
                assert_eq!(meet(&tls, &server, &dane(&[other.clone(), fits]), None).await.0, Ok(None));
                let (came, name) = meet(&tls, &server, &dane(&[other]), None).await;
                assert_eq!(came, refused(CertificateFault::NoRecordFits));
                assert!(name.is_none_or(|name| name == HOST));
            }
        }
    }
}

#[tokio::test]
async fn who_shows_a_named_certificate_without_its_key_is_refused() {
    let tls = OutboundTls::new(Vec::new());
    for versions in VERSIONS {
        let honest = Server::self_signed(&params(HOST));
        // rustls does not let a server show a certificate that is not its key's, so this one is told to show it anyway.
        let thief = Server { chain: honest.chain.clone(), key: KeyPair::generate().unwrap(), versions };
        let key = aws_lc_rs::sign::any_supported_type(&PrivateKeyDer::Pkcs8(thief.key.serialize_der().into())).unwrap();
        let shown = Arc::new(rustls::sign::CertifiedKey::new(thief.chain.clone(), key));
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shows(shown)));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let wanted = dane(&[digest(Usage::EndEntity, Selector::PublicKey, &honest.chain[0])]);
        let (near, far) = tokio::io::duplex(OCTETS);
        let (ours, _theirs) =
            tokio::join!(tls.handshake(near, HOST, &wanted, None, Hello::WithMlKem), acceptor.accept(far));
        assert!(ours.is_err(), "{versions:?}");
    }
}

#[derive(Debug)]
struct Shows(Arc<rustls::sign::CertifiedKey>);

impl rustls::server::ResolvesServerCert for Shows {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[tokio::test]
async fn a_certificate_under_a_named_authority_needs_its_date_and_its_name() {
    let (tls, ours, theirs) = (OutboundTls::new(Vec::new()), authority(), authority());
    let named = |selector| dane(&[digest(Usage::TrustAnchor, selector, ours.der())]);
    for selector in [Selector::Certificate, Selector::PublicKey] {
        for name in [HOST, "b.test", "*.b.test"] {
            let server = Server::signed(&params(name), &ours);
            assert_eq!(meet(&tls, &server, &named(selector), None).await.0, Ok(None), "{name}");
        }
        let came = |server: Server, wanted: TlsWanted| {
            let tls = &tls;
            async move { meet(tls, &server, &wanted, None).await.0 }
        };
        let other = Server::signed(&params("other.test"), &ours);
        assert_eq!(came(other, named(selector)).await, refused(CertificateFault::NotForHost));
        let old = Server::signed(&expired(HOST), &ours);
        assert_eq!(came(old, named(selector)).await, refused(CertificateFault::Expired));
        let strange = Server::signed(&params(HOST), &theirs);
        assert_eq!(came(strange, named(selector)).await, refused(CertificateFault::NoRecordFits));
        // Who only shows the authority beside a certificate that it has not signed.
        let mut borrowed = Server::signed(&params(HOST), &theirs);
        borrowed.chain[1] = ours.der().clone();
        assert!(came(borrowed, named(selector)).await.is_err());
        let absent = Server::signed(&params(HOST), &ours).without_authority();
        assert_eq!(came(absent, named(selector)).await, refused(CertificateFault::NoRecordFits));
    }
}

#[tokio::test]
async fn an_authority_that_stands_in_the_record_need_not_be_shown() {
    let (tls, ours, theirs) = (OutboundTls::new(Vec::new()), authority(), authority());
    let full = |selector, of: &Authority| {
        let data = match selector {
            Selector::Certificate => of.der().to_vec(),
            Selector::PublicKey => public_key(of.der()).unwrap().to_vec(),
        };
        dane(&[Usable { usage: Usage::TrustAnchor, selector, association: Association::Full(data) }])
    };
    for selector in [Selector::Certificate, Selector::PublicKey] {
        let server = Server::signed(&params(HOST), &ours).without_authority();
        assert_eq!(meet(&tls, &server, &full(selector, &ours), None).await.0, Ok(None), "{selector:?}");
        assert!(meet(&tls, &server, &full(selector, &theirs), None).await.0.is_err(), "{selector:?}");
        let other = Server::signed(&params("other.test"), &ours).without_authority();
        let came = meet(&tls, &other, &full(selector, &ours), None).await.0;
        assert_eq!(came, refused(CertificateFault::NotForHost));
    }
}

#[tokio::test]
async fn a_certificate_that_has_to_be_trusted_needs_everything() {
    let (ours, theirs) = (authority(), authority());
    let tls = OutboundTls::new(vec![ours.der().clone()]);
    let cases = [
        (Server::signed(&params(HOST), &ours), Ok(None)),
        (Server::signed(&params(HOST), &ours).without_authority(), Ok(None)),
        (Server::signed(&params("other.test"), &ours), refused(CertificateFault::NotForHost)),
        (Server::signed(&expired(HOST), &ours), refused(CertificateFault::Expired)),
        (Server::signed(&params(HOST), &theirs), refused(CertificateFault::NotTrusted)),
        (Server::self_signed(&params(HOST)), refused(CertificateFault::NotTrusted)),
    ];
    for (number, (server, expected)) in cases.into_iter().enumerate() {
        assert_eq!(meet(&tls, &server, &webpki(), None).await.0, expected, "case {number}");
    }
    // A machine that trusts nobody proves nothing.
    let server = Server::signed(&params(HOST), &ours);
    let came = meet(&OutboundTls::new(Vec::new()), &server, &webpki(), None).await.0;
    assert_eq!(came, refused(CertificateFault::NotTrusted));
}

#[tokio::test]
async fn what_is_only_watched_is_told_and_stops_nothing() {
    let ours = authority();
    let tls = OutboundTls::new(vec![ours.der().clone()]);
    let watched = Authentication::WebPki { host: HOST.to_owned() };
    let of = |server: Server| {
        let (tls, watched) = (&tls, &watched);
        async move { meet(tls, &server, &TlsWanted::Opportunistic, Some(watched)).await.0 }
    };
    assert_eq!(of(Server::signed(&params(HOST), &ours)).await, Ok(Some(Ok(()))));
    let told = |fault| Ok(Some(Err(fault)));
    assert_eq!(of(Server::self_signed(&params(HOST))).await, told(CertificateFault::NotTrusted));
    assert_eq!(of(Server::signed(&expired(HOST), &ours)).await, told(CertificateFault::Expired));
}

/// A server that ends connections whose first message is long, as some do.
async fn short_of_room(server: &Server, mut far: tokio::io::DuplexStream) -> bool {
    let mut header = [0; 5];
    far.read_exact(&mut header).await.unwrap();
    if u16::from_be_bytes([header[3], header[4]]) > 1_000 {
        return false;
    }
    let (read, write) = tokio::io::split(far);
    server.acceptor().accept(tokio::io::join(header.as_slice().chain(read), write)).await.is_ok()
}

#[tokio::test]
async fn a_server_that_can_not_stand_the_first_message_gets_a_small_one_and_is_remembered() {
    let tls = OutboundTls::new(Vec::new());
    let server = Server::self_signed(&params(HOST));
    let wanted = dane(&[digest(Usage::EndEntity, Selector::PublicKey, &server.chain[0])]);
    let mut hello = tls.first_hello(HOST, 10);
    assert_eq!(hello, Hello::WithMlKem);
    for attempt in 0.. {
        let (near, far) = tokio::io::duplex(OCTETS);
        let (ours, theirs) = tokio::join!(tls.handshake(near, HOST, &wanted, None, hello), short_of_room(&server, far));
        match ours {
            Ok(_) => {
                assert_eq!((attempt, hello, theirs), (1, Hello::Small, true));
                tls.remember_small(HOST, 10);
                break;
            }
            Err(error) => {
                assert_eq!(error.failure, TlsFailure::Handshake(HandshakeFailure::Ended), "{}", error.text);
                let Next::Again(next) = after(&wanted, error.failure, hello) else { panic!("one more try") };
                hello = next;
            }
        }
    }
    assert_eq!(tls.first_hello(HOST, 11), Hello::Small);
}

#[tokio::test]
async fn the_first_message_has_a_key_of_ml_kem() {
    let server = Server::self_signed(&params(HOST));
    let tls = OutboundTls::new(Vec::new());
    for (hello, group) in [(Hello::WithMlKem, NamedGroup::X25519MLKEM768), (Hello::Small, NamedGroup::X25519)] {
        let (near, far) = tokio::io::duplex(OCTETS);
        let acceptor = server.acceptor();
        let (ours, theirs) =
            tokio::join!(tls.handshake(near, HOST, &TlsWanted::Opportunistic, None, hello), acceptor.accept(far));
        assert!(theirs.is_ok());
        let stream = ours.unwrap().stream;
        assert_eq!(stream.get_ref().1.negotiated_key_exchange_group().unwrap().name(), group);
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_waited_for_up_to_a_bound() {
    let mut tls = OutboundTls::new(Vec::new());
    assert_eq!(tls.handshake_max, HANDSHAKE_MAX);
    tls.handshake_max = Duration::from_millis(50);
    let (near, _far) = tokio::io::duplex(OCTETS);
    let error = tls.handshake(near, HOST, &TlsWanted::Opportunistic, None, Hello::Small).await.unwrap_err();
    assert_eq!(error.failure, TlsFailure::Handshake(HandshakeFailure::Silent));
}

#[tokio::test]
async fn no_session_is_resumed_for_a_connection_that_wants_more() {
    let tls = OutboundTls::new(Vec::new());
    let server = Server::self_signed(&params(HOST));
    let other = digest(Usage::EndEntity, Selector::PublicKey, &Server::self_signed(&params(HOST)).chain[0]);
    for _ in 0..2 {
        assert_eq!(meet(&tls, &server, &TlsWanted::Opportunistic, None).await.0, Ok(None));
        assert_eq!(
            meet(&tls, &server, &dane(std::slice::from_ref(&other)), None).await.0,
            refused(CertificateFault::NoRecordFits)
        );
    }
}

#[tokio::test]
async fn what_is_no_tls_at_all_is_another_failure() {
    let tls = OutboundTls::new(Vec::new());
    let (near, mut far) = tokio::io::duplex(OCTETS);
    let talk = async {
        far.write_all(b"500 what?\r\n").await.unwrap();
        far.shutdown().await.unwrap();
    };
    let wanted = TlsWanted::Opportunistic;
    let (ours, ()) = tokio::join!(tls.handshake(near, HOST, &wanted, None, Hello::WithMlKem), talk);
    let failure = ours.unwrap_err().failure;
    assert_eq!(failure, TlsFailure::Handshake(HandshakeFailure::Other));
    assert_eq!(after(&wanted, failure, Hello::WithMlKem), Next::InClear);
}
