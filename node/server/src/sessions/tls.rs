//! The certificates that clients see, replaced as a whole on reload.

use std::path::Path;
use std::sync::{Arc, RwLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SignatureScheme};
use tokio_rustls::TlsAcceptor;

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
