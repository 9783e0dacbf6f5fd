//! TLS towards other servers: what was decided (`mailraft_outbound::tls::policy`) becomes a handshake that succeeds only if the
//! server is what it has to be.
//!
//! Each connection has a configuration and a verifier of its own, and no session is resumed: a resumed one would not be
//! looked at again, whatever had been wanted of the first.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mailraft_outbound::tls::dane::{Anchor, Usable, anchors, fits_end_entity, public_key};
use mailraft_outbound::tls::hello::{HandshakeFailure, Hello, Hellos};
use mailraft_outbound::tls::policy::{Authentication, CertificateFault, TlsFailure, TlsWanted};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, Der, ServerName, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, NamedGroup, RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A handshake takes at most this long.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// Certificates of authorities that are taken from the machine.
pub const AUTHORITIES_MAX: usize = 4_096;

/// What all connections share.
#[derive(Clone, Debug)]
pub struct OutboundTls {
    with_ml_kem: Arc<CryptoProvider>,
    small: Arc<CryptoProvider>,
    /// None if the machine trusts no authority.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    hellos: Arc<Mutex<Hellos>>,
    handshake_max: Duration,
}

/// A connection with TLS.
#[derive(Debug)]
pub struct Secured<S> {
    /// The connection.
    pub stream: TlsStream<S>,
    /// What came of what is only watched: a policy in mode testing.
    pub watched: Option<Result<(), CertificateFault>>,
}

/// Why there is no TLS.
#[derive(Debug)]
pub struct HandshakeError {
    /// What it was.
    pub failure: TlsFailure,
    /// In words for the log.
    pub text: String,
}

impl OutboundTls {
    /// With the authorities that this machine trusts: those of its package ca-certificates, or of SSL_CERT_FILE and SSL_CERT_DIR. They
    /// are read once.
    pub fn of_this_machine() -> Self {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "certificates of authorities can't be read");
        }
        if found.certs.is_empty() {
            tracing::warn!(
                "this machine trusts no authority, so no policy of MTA-STS can be fetched or met: install the package \
                 ca-certificates"
            );
        }
        Self::new(found.certs)
    }

    /// With these authorities, the first [`AUTHORITIES_MAX`] of them; those that can't be read are left out.
    pub fn new(authorities: Vec<CertificateDer<'static>>) -> Self {
        let with_ml_kem = aws_lc_rs::default_provider();
        let mut small = with_ml_kem.clone();
        small.kx_groups.retain(|group| group.name() != NamedGroup::X25519MLKEM768);
        let with_ml_kem = Arc::new(with_ml_kem);
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.into_iter().take(AUTHORITIES_MAX));
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&with_ml_kem)).build();
        OutboundTls {
            with_ml_kem,
            small: Arc::new(small),
            authorities: verifier.ok(),
            hellos: Arc::default(),
            handshake_max: HANDSHAKE_MAX,
        }
    }

    /// What a server gets first: [`Hello::WithMlKem`], unless it could not stand that lately.
    pub fn first_hello(&self, host: &str, now_s: u64) -> Hello {
        self.hellos.lock().unwrap_or_else(PoisonError::into_inner).first(host, now_s)
    }

    /// Remembers that a server took the small message after it had not taken the other one.
    pub fn remember_small(&self, host: &str, now_s: u64) {
        self.hellos.lock().unwrap_or_else(PoisonError::into_inner).remember(host, now_s);
    }

    /// A handshake with a server that offers TLS, within [`HANDSHAKE_MAX`].
    ///
    /// # Errors
    /// Why there is no TLS, or none with the server that is wanted. The connection is of no use then.
    pub async fn handshake<S>(
        &self,
        io: S,
        host: &str,
        wanted: &TlsWanted,
        watched: Option<&Authentication>,
        hello: Hello,
    ) -> Result<Secured<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let how = match wanted {
            TlsWanted::Authenticated { how } => Some(how),
            TlsWanted::Opportunistic | TlsWanted::Encrypted => None,
        };
        let name = how.or(watched).map_or(host, Authentication::server_name);
        let judge = Arc::new(Judge {
            wanted: how.map(|how| self.standard(how)),
            watched: watched.map(|how| self.standard(how)),
            algorithms: self.with_ml_kem.signature_verification_algorithms,
            seen: Mutex::default(),
        });
        let (config, name) = self.config(Arc::clone(&judge), name, hello)?;
        let connected = timeout(self.handshake_max, TlsConnector::from(Arc::new(config)).connect(name, io)).await;
        let seen = std::mem::take(&mut *judge.seen.lock().unwrap_or_else(PoisonError::into_inner));
        let result = match (&connected, &seen.fault) {
            (Ok(Ok(_)), _) => "ok",
            (_, Some(_)) => "certificate",
            (_, None) => "handshake",
        };
        ::metrics::counter!("mailraft_outbound_tls_total", "result" => result).increment(1);
        match (connected, seen.fault) {
            (Ok(Ok(stream)), _) => Ok(Secured { stream, watched: seen.watched }),
            (_, Some((fault, text))) => Err(HandshakeError { failure: TlsFailure::Certificate(fault), text }),
            (Ok(Err(error)), None) => {
                let text = format!("{host} and we could not agree on TLS: {error}");
                Err(HandshakeError { failure: TlsFailure::Handshake(handshake_failure(&error)), text })
            }
            (Err(_), None) => {
                let text = format!("{host} did not end its part of the TLS handshake in {:?}", self.handshake_max);
                Err(HandshakeError { failure: TlsFailure::Handshake(HandshakeFailure::Silent), text })
            }
        }
    }

    fn config(
        &self,
        judge: Arc<Judge>,
        name: &str,
        hello: Hello,
    ) -> Result<(ClientConfig, ServerName<'static>), HandshakeError> {
        let provider = match hello {
            Hello::WithMlKem => &self.with_ml_kem,
            Hello::Small => &self.small,
        };
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(&versions);
        let builder = builder.map_err(|error| HandshakeError {
            failure: TlsFailure::Handshake(HandshakeFailure::Other),
            text: format!("TLS can't be set up: {error}"),
        })?;
        let mut config = builder
            .dangerous()
            .with_custom_certificate_verifier(judge as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        // A server without a name that can be asked for is not asked for one.
        let nameless = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
        Ok((config, ServerName::try_from(name.to_owned()).unwrap_or(nameless)))
    }

    fn standard(&self, how: &Authentication) -> Standard {
        match how {
            Authentication::Dane { records, base: _, names } => {
                Standard::Dane { records: records.clone(), names: names.clone() }
            }
            Authentication::WebPki { host } => {
                Standard::WebPki { host: host.clone(), authorities: self.authorities.clone() }
            }
        }
    }
}

/// What a certificate has to be.
#[derive(Debug)]
enum Standard {
    Dane { records: Vec<Usable>, names: Vec<String> },
    WebPki { host: String, authorities: Option<Arc<WebPkiServerVerifier>> },
}

/// Judges one server's certificate.
#[derive(Debug)]
struct Judge {
    wanted: Option<Standard>,
    watched: Option<Standard>,
    algorithms: WebPkiSupportedAlgorithms,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    fault: Option<(CertificateFault, String)>,
    watched: Option<Result<(), CertificateFault>>,
}

/// What a server showed, and when.
struct Shown<'a> {
    own: &'a CertificateDer<'a>,
    others: &'a [CertificateDer<'a>],
    now: UnixTime,
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Shown { own: end_entity, others: intermediates, now };
        let wanted = self.wanted.as_ref().map(|standard| standard.judge(&shown, &self.algorithms));
        let watched = self.watched.as_ref().map(|standard| standard.judge(&shown, &self.algorithms));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.watched = watched.map(|judged| judged.map_err(|(fault, _)| fault));
        match wanted {
            None | Some(Ok(())) => Ok(ServerCertVerified::assertion()),
            Some(Err(fault)) => {
                seen.fault = Some(fault);
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self.wanted {
            // That somebody has the key of a certificate of which nothing is wanted proves nothing, and old keys and
            // certificates can't be read.
            None => Ok(HandshakeSignatureValid::assertion()),
            Some(_) => verify_tls12_signature(message, certificate, signature, &self.algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match (&self.wanted, public_key(certificate)) {
            (None, _) => Ok(HandshakeSignatureValid::assertion()),
            // The key alone: a certificate that a record names may be of version 1.
            (Some(Standard::Dane { .. }), Some(key)) => {
                let key = SubjectPublicKeyInfoDer::from(key);
                verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
            }
            (Some(Standard::Dane { .. } | Standard::WebPki { .. }), _) => {
                verify_tls13_signature(message, certificate, signature, &self.algorithms)
            }
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl Standard {
    fn judge(
        &self,
        shown: &Shown<'_>,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), (CertificateFault, String)> {
        match self {
            Standard::WebPki { host, authorities } => {
                let Some(authorities) = authorities else {
                    let text = "this machine trusts no authority: install the package ca-certificates";
                    return Err((CertificateFault::NotTrusted, text.to_owned()));
                };
                let Ok(name) = ServerName::try_from(host.as_str()) else {
                    return Err((
                        CertificateFault::NotForHost,
                        format!("{host} is no name that a certificate can have"),
                    ));
                };
                let verified = authorities.verify_server_cert(shown.own, shown.others, &name, &[], shown.now);
                verified.map(|_| ()).map_err(|error| fault(host, &error))
            }
            Standard::Dane { records, names } => {
                if fits_end_entity(records, shown.own) {
                    return Ok(());
                }
                let host = names.first().map_or("the server", String::as_str);
                let text = format!("no TLSA record of {host} fits the certificate that it shows");
                let mut result = Err((CertificateFault::NoRecordFits, text));
                let chain: Vec<&[u8]> = [shown.own].into_iter().chain(shown.others).map(|der| der.as_ref()).collect();
                for anchor in anchors(records, &chain) {
                    match under_anchor(&anchor, shown, names, algorithms) {
                        Ok(()) => return Ok(()),
                        Err(error) => result = Err(fault(host, &error)),
                    }
                }
                result
            }
        }
    }
}

/// Whether the chain leads to an anchor, all its certificates are in their time, and the server's own is for one of these
/// names (RFC 7671, section 5.2; RFC 7672, section 3.1.2).
fn under_anchor(
    anchor: &Anchor,
    shown: &Shown<'_>,
    names: &[String],
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    match anchor {
        Anchor::Certificate(der) => roots.add(CertificateDer::from(der.as_slice()))?,
        Anchor::PublicKey { subject, key } => roots.roots.push(TrustAnchor {
            subject: Der::from(subject.clone()),
            subject_public_key_info: Der::from(key.clone()),
            name_constraints: None,
        }),
    }
    let own = ParsedCertificate::try_from(shown.own)?;
    verify_server_cert_signed_by_trust_anchor(&own, &roots, shown.others, shown.now, algorithms.all)?;
    let mut result = Err(CertificateError::NotValidForName.into());
    for name in names.iter().filter_map(|name| ServerName::try_from(name.as_str()).ok()) {
        result = verify_server_name(&own, &name);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn fault(host: &str, error: &rustls::Error) -> (CertificateFault, String) {
    let rustls::Error::InvalidCertificate(error) = error else {
        return (CertificateFault::Other, format!("the certificate of {host} can't be used: {error}"));
    };
    let kind = match error {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => CertificateFault::Expired,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            CertificateFault::NotForHost
        }
        // A bad signature: somebody else has the name of an authority.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => CertificateFault::NotTrusted,
        // There will be others.
        _ => CertificateFault::Other,
    };
    (kind, format!("the certificate of {host} is not what it has to be: {error}"))
}

/// How a handshake failed that no certificate is to blame for.
fn handshake_failure(error: &io::Error) -> HandshakeFailure {
    use AlertDescription::{
        BadRecordMac, DecodeError, DecryptError, HandshakeFailure as NoCommon, IllegalParameter, InternalError,
        ProtocolVersion, RecordOverflow, UnexpectedMessage, UnsupportedExtension,
    };
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => match alert {
            BadRecordMac | DecodeError | DecryptError | NoCommon | IllegalParameter | InternalError
            | ProtocolVersion | RecordOverflow | UnexpectedMessage | UnsupportedExtension => {
                HandshakeFailure::NotUnderstood
            }
            _ => HandshakeFailure::Other,
        },
        Some(_) => HandshakeFailure::Other,
        None => match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => HandshakeFailure::Ended,
            io::ErrorKind::TimedOut => HandshakeFailure::Silent,
            _ => HandshakeFailure::Other,
        },
    }
}

#[cfg(test)]
mod tests;
