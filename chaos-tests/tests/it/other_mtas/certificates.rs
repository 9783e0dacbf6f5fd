//! An authority of the bed's own and its certificates, and what TLSA records say of them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::programs::{done, program};

/// An authority, in a directory.
pub struct Authority {
    dir: PathBuf,
}

/// A certificate that it issued.
pub struct Certificate {
    /// The certificate and the authority's after it, as PEM.
    pub chain: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one.
    pub fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let authority = Authority { dir: dir.to_owned() };
        let mut request = program("openssl");
        request.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]);
        request.args(["-subj", "/CN=Test bed", "-keyout"]).arg(dir.join("authority.key"));
        done(request.arg("-out").arg(authority.certificate()));
        authority
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("authority.pem")
    }

    /// A certificate for these names.
    pub fn issue(&self, file: &str, names: &[&str]) -> Certificate {
        let at = |ending: &str| self.dir.join(format!("{file}.{ending}"));
        let mut request = program("openssl");
        request.args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj"]);
        request.arg(format!("/CN={}", names[0])).arg("-keyout").arg(at("key"));
        done(request.arg("-out").arg(at("csr")));
        let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
        let extensions = format!("subjectAltName={}\nbasicConstraints=CA:false\n", names.join(","));
        std::fs::write(at("ext"), extensions).unwrap();
        let mut issue = program("openssl");
        issue.args(["x509", "-req", "-days", "30", "-CAcreateserial", "-in"]).arg(at("csr"));
        issue.arg("-CA").arg(self.certificate()).arg("-CAkey").arg(self.dir.join("authority.key"));
        done(issue.arg("-extfile").arg(at("ext")).arg("-out").arg(at("crt")));
        let chain = [std::fs::read(at("crt")).unwrap(), std::fs::read(self.certificate()).unwrap()].concat();
        std::fs::write(at("pem"), chain).unwrap();
        // Servers read it after they are no more root.
        std::fs::set_permissions(at("key"), PermissionsExt::from_mode(0o644)).unwrap();
        Certificate { chain: at("pem"), key: at("key") }
    }

    /// The data of a TLSA record 2 0 1 of the authority.
    pub fn tlsa_of_whole(&self) -> String {
        digest(program("openssl").args(["x509", "-outform", "DER", "-in"]).arg(self.certificate()))
    }
}

impl Certificate {
    /// The data of a TLSA record 3 1 1.
    pub fn tlsa_of_key(&self) -> String {
        digest(program("openssl").args(["pkey", "-pubout", "-outform", "DER", "-in"]).arg(&self.key))
    }
}

/// The SHA-256 of what a command writes, in hexadecimal digits.
fn digest(command: &mut std::process::Command) -> String {
    use sha2::{Digest as _, Sha256};
    let written = command.output().unwrap();
    assert!(written.status.success() && !written.stdout.is_empty(), "{command:?}");
    Sha256::digest(&written.stdout).iter().map(|octet| format!("{octet:02x}")).collect()
}
