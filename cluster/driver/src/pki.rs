//! A cluster's own certificate authority: nodes know each other by it, and a quickstart's mail listeners
//! get their certificates from it. All keys are ECDSA P-256.

use std::time::{Duration, SystemTime};

use mailraft_storage::{ClusterId, NodeId};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::tls::node_name;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a CA lives.
pub const CA_DAYS: u32 = 3_650;
/// How long a certificate lives that it issues.
pub const CERTIFICATE_DAYS: u32 = 825;
/// The domain of the names by which nodes know each other; no mail certificate may bear one.
const NODE_DOMAIN: &str = "mailraft";

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// By the library.
    #[error("can't make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A name that a mail server's certificate may not bear.
    #[error("{0} is a name for connections between nodes: a mail server's certificate can't bear it")]
    NodeName(String),
}

/// A cluster's certificate authority.
pub struct ClusterCa {
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its private key.
#[derive(Clone)]
pub struct Issued {
    /// The certificate, in PEM.
    pub chain_pem: String,
    /// Its private key, in PEM (PKCS #8). A secret.
    pub key_pem: String,
}

impl ClusterCa {
    /// A new one, named after its cluster.
    ///
    /// # Errors
    /// If the library can't draw a key.
    pub fn create(cluster: ClusterId) -> Result<Self, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = params(Vec::new(), &format!("Mailraft CA {cluster}"), CA_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(ClusterCa { cert_pem: certificate.pem(), issuer: Issuer::new(params, key) })
    }

    /// One that was made earlier.
    ///
    /// # Errors
    /// If these are no PEM of a CA certificate and a private key.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let issuer = Issuer::from_ca_cert_pem(cert_pem, KeyPair::from_pem(key_pem)?)?;
        Ok(ClusterCa { cert_pem: cert_pem.to_owned(), issuer })
    }

    /// The CA's certificate, in PEM.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The CA's private key, in PEM. A secret: who has it can pass for any node.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for a node, for both sides of connections between nodes. `addresses` are further host
    /// names or IP addresses to name in it; nodes don't look at them.
    ///
    /// # Errors
    /// If an address is no name.
    pub fn issue_node(&self, node: NodeId, cluster: ClusterId, addresses: &[String]) -> Result<Issued, PkiError> {
        let mut names = vec![node_name(node, cluster)];
        names.extend_from_slice(addresses);
        self.issue(
            names,
            &format!("Mailraft node {node}"),
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        )
    }

    /// A certificate for the mail listeners of a server with these host names or IP addresses. No node takes
    /// it for a node's.
    ///
    /// # Errors
    /// If a name is none, or one for connections between nodes.
    pub fn issue_server(&self, names: &[String]) -> Result<Issued, PkiError> {
        for name in names {
            let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
            if last.eq_ignore_ascii_case(NODE_DOMAIN) {
                return Err(PkiError::NodeName(name.clone()));
            }
        }
        let title = names.first().map_or("mail", String::as_str).to_owned();
        self.issue(names.to_vec(), &title, vec![ExtendedKeyUsagePurpose::ServerAuth])
    }

    fn issue(&self, names: Vec<String>, title: &str, usages: Vec<ExtendedKeyUsagePurpose>) -> Result<Issued, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = params(names, title, CERTIFICATE_DAYS)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { chain_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

fn params(names: Vec<String>, title: &str, days: u32) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    let now = SystemTime::now();
    // A day early: clocks differ.
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * days).into();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Mailraft");
    name.push(DnType::CommonName, title);
    params.distinguished_name = name;
    Ok(params)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tls::PeerTls;

    const CLUSTER: ClusterId = ClusterId([7; 16]);

    #[test]
    fn a_ca_comes_back_from_its_pem_and_issues_certificates_that_fit() {
        let first = ClusterCa::create(CLUSTER).unwrap();
        let again = ClusterCa::from_pem(first.cert_pem(), &first.key_pem()).unwrap();
        let issued = again.issue_node(NodeId(1), CLUSTER, &["127.0.0.1".into(), "localhost".into()]).unwrap();
        let ca = first.cert_pem().as_bytes();
        let tls = PeerTls::from_pem(ca, issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
        assert!(tls.check_own(NodeId(1), CLUSTER).is_ok());
    }

    #[test]
    fn mail_certificates_never_bear_a_nodes_name() {
        let ca = ClusterCa::create(CLUSTER).unwrap();
        assert!(ca.issue_server(&["mail.example.test".into(), "127.0.0.1".into()]).is_ok());
        for name in [node_name(NodeId(1), CLUSTER), "x.MAILRAFT".into(), "x.mailraft.".into()] {
            assert!(matches!(ca.issue_server(&[name]), Err(PkiError::NodeName(_))));
        }
    }
}
