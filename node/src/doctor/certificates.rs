//! Keys and certificates: there, whole, the node's own, long enough alive, and for nobody else to read.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use mailraft_directory::keys::RootKey;
use mailraft_server::config::{Config, RootKeyUse};
use mailraft_server::sessions::tls::{CertificateFiles, MailTls};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

use super::finding::Finding;

/// A certificate that ends sooner is warned of, in days.
const DAYS_LEAST: i64 = 30;
const DAY_S: i64 = 86_400;

/// Reads everything as the node would.
pub fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let root_key_is_needed = config.keys.used == RootKeyUse::Always;
    findings.push(match RootKey::read(&config.keys.root_key_file) {
        Ok(_) => Finding::good("certificates", "the root key is whole".to_owned()),
        Err(_) if !root_key_is_needed => {
            Finding::good("certificates", "the root key is not here, as long as this region is a backup".to_owned())
        }
        Err(error) => Finding::bad("certificates", error.to_string(), "put the cluster's root key there"),
    });
    let peer = config
        .driver(1)
        .and_then(|driver| driver.tls.check_own(config.node.id, config.cluster.id).map_err(|e| format!("[peer]: {e}")));
    findings.push(match peer {
        Ok(()) => Finding::good("certificates", "the certificate towards other nodes is this node's".to_owned()),
        Err(why) => Finding::bad(
            "certificates",
            why,
            "issue it anew: mailraft cluster certificates, on the machine that has the cluster's authority",
        ),
    });
    let files: Vec<CertificateFiles<'_>> = config
        .tls
        .certificates
        .iter()
        .map(|c| CertificateFiles { certificate: &c.certificate_file, key: &c.key_file })
        .collect();
    if let Err(why) = MailTls::load(&files) {
        findings.push(Finding::bad("certificates", why, "copy the certificate and its key there again"));
    }
    let now_s =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
    let mail = config.tls.certificates.iter().map(|c| (&c.certificate_file, Some(config.tls.hostname.as_str())));
    let all = [(&config.peer.ca_file, None), (&config.peer.certificate_file, None)].into_iter().chain(mail);
    findings.extend(all.map(|(path, name)| judge_certificate(path, name, now_s)));
    let root_key = Some(&config.keys.root_key_file).filter(|path| root_key_is_needed || path.exists());
    let secrets = root_key.into_iter().chain([&config.peer.key_file, &config.admin.token_file]);
    let secrets = secrets.chain(config.tls.certificates.iter().map(|c| &c.key_file));
    findings.extend(secrets.filter_map(|path| judge_rights(path)));
    findings
}

/// How long the first certificate of a file lives, and whether it bears a name.
fn judge_certificate(path: &Path, name: Option<&str>, now_s: i64) -> Finding {
    let shown = path.display();
    let unreadable = |why: String| Finding::bad("certificates", format!("{shown}: {why}"), "copy it there again");
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return unreadable(format!("can't be read ({error})")),
    };
    let Some(Ok(pem)) = Pem::iter_from_buffer(&bytes).next() else { return unreadable("no PEM".to_owned()) };
    let certificate = match pem.parse_x509() {
        Ok(certificate) => certificate,
        Err(error) => return unreadable(format!("no certificate ({error})")),
    };
    let days = (certificate.validity().not_after.timestamp() - now_s).div_euclid(DAY_S);
    if certificate.validity().not_before.timestamp() > now_s {
        return Finding::bad("certificates", format!("{shown} is not valid yet"), "see this machine's clock");
    }
    if days < 0 {
        return Finding::bad(
            "certificates",
            format!("{shown} ended {} days ago", -days),
            "renew it; SIGHUP takes it up",
        );
    }
    let names: Vec<String> = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|extension| extension.value.general_names.iter().filter_map(written).collect())
        .unwrap_or_default();
    if let Some(name) = name
        && !names.iter().any(|own| covers(own, name))
    {
        return Finding::warning(
            "certificates",
            format!("{shown} is for {}, and this server calls itself {name}", names.join(", ")),
            "mail programs that connect to that name refuse it: issue it for tls.hostname too",
        );
    }
    let found = format!("{shown} lives {days} days more");
    if days < DAYS_LEAST {
        Finding::warning("certificates", found, "renew it; SIGHUP takes it up")
    } else {
        Finding::good("certificates", found)
    }
}

fn written(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(|b| std::net::IpAddr::from(b).to_string());
            four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(|b| std::net::IpAddr::from(b).to_string())).ok()
        }
        _ => None,
    }
}

/// Whether a certificate's name covers a host's (RFC 6125, section 6.4): a star stands for one label.
fn covers(own: &str, host: &str) -> bool {
    match own.strip_prefix("*.") {
        Some(rest) => host.split_once('.').is_some_and(|(_, domain)| domain.eq_ignore_ascii_case(rest)),
        None => own.eq_ignore_ascii_case(host),
    }
}

/// Nothing to say where only the owner reads, or the owner's group (as the package has the mail key).
fn judge_rights(path: &Path) -> Option<Finding> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o027 != 0).then(|| {
        Finding::bad(
            "certificates",
            format!("{} may be read or changed by others (mode {mode:o})", path.display()),
            format!("chmod 600 {}", path.display()),
        )
    })
}

#[cfg(test)]
mod tests {
    use mailraft_driver::pki::ClusterCa;
    use mailraft_storage::ClusterId;

    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_certificate_is_judged_by_its_end_and_its_names() {
        let dir = std::env::temp_dir().join(format!("mailraft-doctor-certificates-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap_or_default();
        let path = dir.join("mail.pem");
        let ca = ClusterCa::create(ClusterId([7; 16])).unwrap_or_else(|e| panic!("{e}"));
        let issued =
            ca.issue_server(&["mx1.example.org".to_owned(), "*.mail.example.org".to_owned(), "192.0.2.1".to_owned()]);
        std::fs::write(&path, issued.unwrap_or_else(|e| panic!("{e}")).chain_pem).unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs().cast_signed());
        let judge = |name, days: i64| judge_certificate(&path, name, now + days * DAY_S);
        for name in [None, Some("MX1.example.org"), Some("a.mail.example.org"), Some("192.0.2.1")] {
            assert_eq!(judge(name, 1).verdict, Verdict::Good, "{name:?}");
        }
        for name in ["mail.example.org", "a.b.mail.example.org", "mx2.example.org"] {
            assert_eq!(judge(Some(name), 1).verdict, Verdict::Warning, "{name}");
        }
        assert_eq!(judge(None, 800).verdict, Verdict::Warning);
        assert_eq!(judge(None, 830).verdict, Verdict::Bad);
        assert_eq!(judge(None, -30).verdict, Verdict::Bad);
        std::fs::write(&path, "nothing").unwrap_or_default();
        assert_eq!(judge(None, 0).verdict, Verdict::Bad);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap_or_default();
        assert!(judge_rights(&path).is_some_and(|f| f.verdict == Verdict::Bad));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap_or_default();
        assert_eq!(judge_rights(&path), None);
        std::fs::remove_dir_all(&dir).unwrap_or_default();
    }
}
