//! Mutual TLS 1.3 between nodes.
//!
//! A node is who its certificate says: the certificate, signed by the cluster's own CA, bears the DNS name
//! `node-<id>.<cluster id in hexadecimal>.mailraft`. Both sides check the other's name; addresses and
//! host names in it mean nothing here. Sessions are not resumed, so a reload holds for every new
//! connection. A certificate that is on the list of revoked ones is none, whatever the CA says.

use std::sync::{Arc, PoisonError, RwLock};

use mailraft_storage::{ClusterId, NodeId};
use rustls::client::{Resumption, verify_server_name};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::revoked::{Revoked, fingerprint};

/// What is wrong with certificates or their key, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or nothing of the kind in it.
    #[error("{what}: {detail}; give a PEM file as `mailraft quickstart` writes it")]
    Pem {
        /// Which of the three.
        what: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// They don't fit together.
    #[error(
        "the node's certificate and key can't be used: {0}; they must belong together and be signed by the cluster's CA"
    )]
    Unusable(String),
    /// The certificate is on the list of revoked ones.
    #[error("the node's own certificate is revoked: issue a new one for it")]
    Revoked,
    /// The certificate is another node's.
    #[error("the node's certificate does not bear the name {expected}: issue one for this node of this cluster")]
    OtherNode {
        /// The name that this node's certificate must bear.
        expected: String,
    },
}

/// The DNS name that a node's certificate must bear.
pub fn node_name(node: NodeId, cluster: ClusterId) -> String {
    format!("node-{node}.{cluster}.mailraft")
}

/// Certificates and key for connections between nodes. Clones share them: a reload holds for all.
#[derive(Clone)]
pub struct PeerTls {
    loaded: Arc<RwLock<Arc<Loaded>>>,
}

struct Loaded {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    own: CertificateDer<'static>,
    revoked: Revoked,
}

impl std::fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerTls")
    }
}

impl PeerTls {
    /// From the cluster's CA certificates, this node's certificate with any intermediate ones, and its
    /// private key, all in PEM.
    ///
    /// # Errors
    /// If one of them is no PEM or they don't belong together.
    pub fn from_pem(ca: &[u8], chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        PeerTls::with_revoked(ca, chain, key, Revoked::default())
    }

    /// As [`PeerTls::from_pem`], with a list of certificates that count no more.
    ///
    /// # Errors
    /// As [`PeerTls::from_pem`], and if this node's own is among them.
    pub fn with_revoked(ca: &[u8], chain: &[u8], key: &[u8], revoked: Revoked) -> Result<Self, TlsError> {
        Ok(PeerTls { loaded: Arc::new(RwLock::new(Arc::new(load(ca, chain, key, revoked)?))) })
    }

    /// Takes what was loaded anew for every connection made from now on. Those that stand are left alone.
    pub(crate) fn replace_by(&self, new: &PeerTls) {
        let new = new.current();
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// Whether one of these certificates is revoked, by their fingerprints.
    pub(crate) fn revokes(&self, fingerprints: &[[u8; 32]]) -> bool {
        self.current().revoked.has_one_of(fingerprints)
    }

    /// Checks that the own certificate is this node's.
    ///
    /// # Errors
    /// [`TlsError::OtherNode`] if it is not.
    pub fn check_own(&self, node: NodeId, cluster: ClusterId) -> Result<(), TlsError> {
        if is_node(&self.current().own, node, cluster) {
            Ok(())
        } else {
            Err(TlsError::OtherNode { expected: node_name(node, cluster) })
        }
    }

    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        self.current().client.clone()
    }

    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        self.current().server.clone()
    }

    fn current(&self) -> Arc<Loaded> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The name to ask for when connecting to a node.
pub(crate) fn server_name(node: NodeId, cluster: ClusterId) -> Option<ServerName<'static>> {
    ServerName::try_from(node_name(node, cluster)).ok()
}

/// Whether a certificate, verified already, is that node's.
pub(crate) fn is_node(certificate: &CertificateDer<'_>, node: NodeId, cluster: ClusterId) -> bool {
    let Some(name) = server_name(node, cluster) else { return false };
    ParsedCertificate::try_from(certificate).is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
}

fn load(ca: &[u8], chain: &[u8], key: &[u8], revoked: Revoked) -> Result<Loaded, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let unusable = |e: &dyn std::fmt::Display| TlsError::Unusable(e.to_string());
    let mut roots = RootCertStore::empty();
    for root in certificates("the cluster's CA certificate", ca)? {
        roots.add(root).map_err(|e| TlsError::Pem { what: "the cluster's CA certificate", detail: e.to_string() })?;
    }
    let roots = Arc::new(roots);
    let chain = certificates("the node's certificate", chain)?;
    let own = chain.first().cloned().ok_or_else(|| unusable(&"no certificate"))?;
    let fingerprints: Vec<_> = chain.iter().map(fingerprint).collect();
    if revoked.has_one_of(&fingerprints) {
        return Err(TlsError::Revoked);
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|e| TlsError::Pem { what: "the node's private key", detail: e.to_string() })?;

    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|e| unusable(&e))?;
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| unusable(&e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(|e| unusable(&e))?;
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| unusable(&e))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|e| unusable(&e))?;
    client.resumption = Resumption::disabled();
    Ok(Loaded { client: Arc::new(client), server: Arc::new(server), own, revoked })
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| TlsError::Pem { what, detail: e.to_string() })?;
    if found.is_empty() {
        return Err(TlsError::Pem { what, detail: "no CERTIFICATE section".into() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pki::ClusterCa;

    const CLUSTER: ClusterId = ClusterId([7; 16]);

    #[test]
    fn a_certificate_is_one_nodes_of_one_cluster() {
        let ca = ClusterCa::create(CLUSTER).unwrap();
        let issued = ca.issue_node(NodeId(2), CLUSTER, &[]).unwrap();
        let tls = PeerTls::from_pem(ca.cert_pem().as_bytes(), issued.chain_pem.as_bytes(), issued.key_pem.as_bytes())
            .unwrap();
        assert!(tls.check_own(NodeId(2), CLUSTER).is_ok());
        let other = tls.check_own(NodeId(3), CLUSTER).unwrap_err().to_string();
        assert!(other.contains("node-3.07070707070707070707070707070707.mailraft"), "{other}");
        assert!(tls.check_own(NodeId(2), ClusterId([8; 16])).is_err());
    }

    #[test]
    fn what_does_not_fit_is_told_and_a_failed_reload_changes_nothing() {
        let ca = ClusterCa::create(CLUSTER).unwrap();
        let one = ca.issue_node(NodeId(1), CLUSTER, &[]).unwrap();
        let two = ca.issue_node(NodeId(2), CLUSTER, &[]).unwrap();
        let pem = ca.cert_pem().as_bytes();
        let bad = PeerTls::from_pem(pem, one.chain_pem.as_bytes(), two.key_pem.as_bytes()).unwrap_err();
        assert!(matches!(bad, TlsError::Unusable(_)), "{bad}");
        let bad = PeerTls::from_pem(b"hello", one.chain_pem.as_bytes(), one.key_pem.as_bytes()).unwrap_err();
        assert!(bad.to_string().starts_with("the cluster's CA certificate: no CERTIFICATE section"), "{bad}");
        let tls = PeerTls::from_pem(pem, one.chain_pem.as_bytes(), one.key_pem.as_bytes()).unwrap();
        let new = PeerTls::from_pem(pem, two.chain_pem.as_bytes(), two.key_pem.as_bytes()).unwrap();
        tls.clone().replace_by(&new);
        assert!(tls.check_own(NodeId(2), CLUSTER).is_ok(), "clones share a reload");
    }

    #[test]
    fn a_node_does_not_start_with_a_certificate_that_is_revoked() {
        let ca = ClusterCa::create(CLUSTER).unwrap();
        let [one, two] = [1, 2].map(|node| ca.issue_node(NodeId(node), CLUSTER, &[]).unwrap());
        let of = |issued: &crate::pki::Issued| {
            fingerprint(&CertificateDer::from_pem_slice(issued.chain_pem.as_bytes()).unwrap())
        };
        let list = Revoked::parse(&hex::encode(of(&one))).unwrap();
        let load = |issued: &crate::pki::Issued| {
            let (ca, chain, key) = (ca.cert_pem(), &issued.chain_pem, &issued.key_pem);
            PeerTls::with_revoked(ca.as_bytes(), chain.as_bytes(), key.as_bytes(), list.clone())
        };
        assert!(matches!(load(&one), Err(TlsError::Revoked)));
        let tls = load(&two).unwrap();
        assert!(tls.revokes(&[of(&two), of(&one)]) && !tls.revokes(&[of(&two)]));
    }
}
