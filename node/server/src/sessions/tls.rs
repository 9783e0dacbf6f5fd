//! The certificates that clients see, replaced as a whole on reload.

use std::path::Path;
use std::sync::{Arc, RwLock};

use mailraft_protocol::Tls;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ProtocolVersion, ServerConfig, ServerConnection, SignatureScheme};
use tokio_rustls::TlsAcceptor;

use crate::config::Config;

/// TLS towards mail programs and other servers: 1.2 at least, X25519MLKEM768 first.
#[derive(Clone)]
pub struct MailTls {
    acceptor: TlsAcceptor,
    certificates: Arc<Certificates>,
}

/// A chain and its key in files.
pub struct CertificateFiles<'a> {
    /// PEM, the server's own first.
    pub certificate: &'a Path,
    /// PEM.
    pub key: &'a Path,
}

impl<'a> CertificateFiles<'a> {
    /// Those that a configuration names.
    pub fn of(config: &'a Config) -> Vec<Self> {
        let certificates = config.tls.certificates.iter();
        certificates.map(|c| CertificateFiles { certificate: &c.certificate_file, key: &c.key_file }).collect()
    }
}

#[derive(Debug)]
struct Certificates {
    keys: RwLock<Vec<Arc<CertifiedKey>>>,
}

impl MailTls {
    /// Loads certificates.
    ///
    /// # Errors
    /// One sentence that names the file and says what to do.
    pub fn load(files: &[CertificateFiles<'_>]) -> Result<Self, String> {
        let certificates = Arc::new(Certificates { keys: RwLock::new(read_all(files)?) });
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("TLS can't be set up: {e}"))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificates) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = Vec::new();
        Ok(MailTls { acceptor: TlsAcceptor::from(Arc::new(config)), certificates })
    }

    /// Loads them anew; connections made from now on use the new ones. On an error the old ones stay.
    ///
    /// # Errors
    /// As [`MailTls::load`].
    pub fn reload(&self, files: &[CertificateFiles<'_>]) -> Result<(), String> {
        let keys = read_all(files)?;
        *self.certificates.keys.write().unwrap_or_else(std::sync::PoisonError::into_inner) = keys;
        Ok(())
    }

    /// Takes up TLS on connections.
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }
}

/// The TLS of a connection whose handshake is over. Versions are written as other servers do, and suites as IANA
/// does.
pub fn spoken(connection: &ServerConnection) -> Tls {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => Some("TLS1_2"),
        Some(ProtocolVersion::TLSv1_3) => Some("TLS1_3"),
        other => other.and_then(|version| version.as_str()),
    };
    let cipher = match connection.negotiated_cipher_suite().map(|negotiated| negotiated.suite()) {
        Some(CipherSuite::TLS13_AES_128_GCM_SHA256) => Some("TLS_AES_128_GCM_SHA256"),
        Some(CipherSuite::TLS13_AES_256_GCM_SHA384) => Some("TLS_AES_256_GCM_SHA384"),
        Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256) => Some("TLS_CHACHA20_POLY1305_SHA256"),
        other => other.and_then(|suite| suite.as_str()),
    };
    Tls { version: version.unwrap_or("unknown"), cipher: cipher.unwrap_or("unknown") }
}

impl ResolvesServerCert for Certificates {
    /// The first key that the client can verify: ECDSA where it can, RSA for older ones.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys = self.keys.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let schemes: &[SignatureScheme] = hello.signature_schemes();
        keys.iter().find(|k| k.key.choose_scheme(schemes).is_some()).or(keys.first()).cloned()
    }
}

fn read_all(files: &[CertificateFiles<'_>]) -> Result<Vec<Arc<CertifiedKey>>, String> {
    if files.is_empty() {
        return Err("tls.certificates is empty: name at least one certificate_file and key_file".into());
    }
    files.iter().map(read_one).collect()
}

fn read_one(files: &CertificateFiles<'_>) -> Result<Arc<CertifiedKey>, String> {
    let path = files.certificate.display();
    let chain = CertificateDer::pem_file_iter(files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| format!("the certificate {path} can't be read ({e}): give a PEM file with the chain, the server's own certificate first"))?;
    if chain.is_empty() {
        return Err(format!("{path} holds no certificate: give a PEM file with the chain"));
    }
    let key_path = files.key.display();
    let key = PrivateKeyDer::from_pem_file(files.key)
        .map_err(|e| format!("the key {key_path} can't be read ({e}): give a PEM file with a private key"))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|e| {
        format!("the key {key_path} does not fit the certificate {path} ({e}): name files that belong together")
    })?;
    Ok(Arc::new(certified))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::PathBuf;

    use rustls::crypto::CryptoProvider;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;

    use super::*;

    const NAME: &str = "mail.example.test";

    struct OnDisk {
        _dir: tempfile::TempDir,
        paths: Vec<(PathBuf, PathBuf)>,
        roots: Arc<RootCertStore>,
    }

    impl OnDisk {
        /// Certificates that sign themselves, by these keys in this order.
        fn new(keys: &[&rcgen::KeyPair]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (mut paths, mut roots) = (Vec::new(), RootCertStore::empty());
            for (number, key) in keys.iter().enumerate() {
                let certificate = rcgen::CertificateParams::new([NAME.to_owned()]).unwrap().self_signed(key).unwrap();
                let path = |kind: &str| dir.path().join(format!("{number}.{kind}"));
                std::fs::write(path("pem"), certificate.pem()).unwrap();
                std::fs::write(path("key"), key.serialize_pem()).unwrap();
                roots.add(certificate.der().clone()).unwrap();
                paths.push((path("pem"), path("key")));
            }
            OnDisk { _dir: dir, paths, roots: Arc::new(roots) }
        }

        fn files(&self) -> Vec<CertificateFiles<'_>> {
            self.paths.iter().map(|(certificate, key)| CertificateFiles { certificate, key }).collect()
        }
    }

    fn ecdsa() -> rcgen::KeyPair {
        rcgen::KeyPair::generate().unwrap()
    }

    fn rsa() -> rcgen::KeyPair {
        rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap()
    }

    /// Connects as a client that verifies signatures of one algorithm only. Gives the server's certificate.
    async fn certificate(
        tls: &MailTls,
        roots: &Arc<RootCertStore>,
        algorithm: &str,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> std::io::Result<CertificateDer<'static>> {
        let mut provider: CryptoProvider = rustls::crypto::aws_lc_rs::default_provider();
        let known = provider.signature_verification_algorithms.mapping;
        let mapping: Vec<_> =
            known.iter().copied().filter(|(scheme, _)| format!("{scheme:?}").starts_with(algorithm)).collect();
        // For the length of a test.
        provider.signature_verification_algorithms.mapping = mapping.leak();
        let client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(Arc::clone(roots))
            .with_no_client_auth();
        let (near, far) = tokio::io::duplex(64 << 10);
        let connector = TlsConnector::from(Arc::new(client));
        let name = ServerName::try_from(NAME).unwrap();
        let (near, far) = tokio::join!(connector.connect(name, near), tls.acceptor().accept(far));
        let (mut near, mut far) = (near?, far?);
        far.write_all(b"250").await?;
        far.shutdown().await?;
        let mut heard = Vec::new();
        near.read_to_end(&mut heard).await?;
        assert_eq!(heard, b"250");
        let session = near.get_ref().1;
        assert_eq!(session.protocol_version(), Some(version.version));
        Ok(session.peer_certificates().unwrap()[0].clone())
    }

    #[tokio::test]
    async fn a_client_gets_the_first_certificate_that_it_can_verify() {
        let keys = [ecdsa(), rsa()];
        let on_disk = OnDisk::new(&[&keys[0], &keys[1]]);
        let tls = MailTls::load(&on_disk.files()).unwrap();
        let own = |n: usize| CertificateDer::from_pem_file(&on_disk.paths[n].0).unwrap();
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            for (algorithm, number) in [("ECDSA_", 0), ("RSA_", 1)] {
                let got = certificate(&tls, &on_disk.roots, algorithm, version).await.unwrap();
                assert_eq!(got, own(number), "{version:?} {algorithm:?}");
            }
        }
        // After a reload of the RSA one alone, a client that knows only ECDSA is told so and not left hanging.
        tls.reload(&on_disk.files()[1..]).unwrap();
        let got = certificate(&tls, &on_disk.roots, "RSA_", &rustls::version::TLS12).await.unwrap();
        assert_eq!(got, own(1));
        assert!(certificate(&tls, &on_disk.roots, "ECDSA_", &rustls::version::TLS12).await.is_err());
    }

    #[tokio::test]
    async fn every_suite_is_told_by_its_registered_name() {
        let on_disk = OnDisk::new(&[&ecdsa()]);
        let tls = MailTls::load(&on_disk.files()).unwrap();
        let mut names = Vec::new();
        for suite in rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES {
            let mut provider = rustls::crypto::aws_lc_rs::default_provider();
            provider.cipher_suites = vec![*suite];
            let client = ClientConfig::builder_with_provider(Arc::new(provider))
                .with_protocol_versions(&[suite.version()])
                .unwrap()
                .with_root_certificates(Arc::clone(&on_disk.roots))
                .with_no_client_auth();
            let (near, far) = tokio::io::duplex(64 << 10);
            let connector = TlsConnector::from(Arc::new(client));
            let name = ServerName::try_from(NAME).unwrap();
            // Suites for RSA certificates find none here.
            if let (Ok(_near), Ok(far)) = tokio::join!(connector.connect(name, near), tls.acceptor().accept(far)) {
                let told = spoken(far.get_ref().1);
                names.push(format!("{} {}", told.version, told.cipher));
            }
        }
        assert_eq!(
            names,
            [
                "TLS1_3 TLS_AES_256_GCM_SHA384",
                "TLS1_3 TLS_AES_128_GCM_SHA256",
                "TLS1_3 TLS_CHACHA20_POLY1305_SHA256",
                "TLS1_2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
                "TLS1_2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
                "TLS1_2 TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            ]
        );
    }

    #[test]
    fn a_key_of_another_kind_than_its_certificate_is_refused_in_a_sentence() {
        let (first, second) = (OnDisk::new(&[&ecdsa()]), OnDisk::new(&[&rsa()]));
        let files = [CertificateFiles { certificate: &first.paths[0].0, key: &second.paths[0].1 }];
        let said = MailTls::load(&files).err().unwrap();
        assert!(said.contains("does not fit the certificate"), "{said}");
        assert!(MailTls::load(&[]).err().unwrap().contains("tls.certificates is empty"));
    }
}
