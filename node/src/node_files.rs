//! The files that a node of a new cluster begins with: its configuration, keys and certificates.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mailraft_driver::pki::ClusterCa;
use mailraft_server::config::RootKeyUse;
use mailraft_storage::{ClusterId, NodeId};
use zeroize::Zeroizing;

use crate::failed::Failed;

/// Read by everybody.
pub const PUBLIC: u32 = 0o644;
/// Read by its owner alone.
pub const SECRET: u32 = 0o600;

/// Random bytes from the system.
pub fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, Failed> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut_slice())
        .map_err(|e| Failed::because(format!("the system gives no random bytes ({e})")))?;
    Ok(bytes)
}

/// Refuses a directory in which something is, and a path that a configuration can't hold.
pub fn check_new_dir(dir: &Path) -> Result<(), Failed> {
    if fs::read_dir(dir).is_ok_and(|mut d| d.next().is_some()) {
        return Err(Failed::usage(format!("{} is not empty: name another directory with --dir", dir.display())));
    }
    check_path(dir)
}

/// Refuses a path that a configuration can't hold.
pub fn check_path(path: &Path) -> Result<(), Failed> {
    if path.to_string_lossy().chars().any(|c| c == '"' || c == '\\' || c.is_control()) {
        return Err(Failed::usage(format!(
            "{} has quotes or backslashes in it, which the nodes' configuration can't hold: name another directory",
            path.display()
        )));
    }
    Ok(())
}

/// Makes a directory, and those above it.
pub fn make_dir(dir: &Path) -> Result<(), Failed> {
    fs::create_dir_all(dir).map_err(|e| Failed::because(format!("{} can't be written ({e})", dir.display())))
}

/// For its owner alone: keys are below it.
pub fn keep_private(dir: &Path) -> Result<(), Failed> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
        .map_err(|e| Failed::because(format!("{} can't be closed to others ({e})", dir.display())))
}

/// Writes a file whole: who reads it meanwhile reads the old one or the new one.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failed> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    // One that an interrupted command left may have other rights.
    let _ = fs::remove_file(&new);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&new, path))
        .map_err(|e| Failed::because(format!("{} can't be written ({e})", path.display())))
}

/// Gives a node the root key if its region is home: none other reads it. When the node is to read it.
pub fn write_root_key(dir: &Path, root_key_hex: &str, is_home: bool) -> Result<RootKeyUse, Failed> {
    if !is_home {
        return Ok(RootKeyUse::AtHome);
    }
    write(&dir.join("root.key"), Zeroizing::new(format!("{root_key_hex}\n")).as_bytes(), SECRET)?;
    Ok(RootKeyUse::Always)
}

/// Issues a node's certificate towards other nodes and the one towards clients, each with its key, into `dir`.
/// `names` are the host names and IP addresses that both bear; `mail_names` those that only the latter bears.
pub fn issue_certificates(
    ca: &ClusterCa,
    cluster: ClusterId,
    node: NodeId,
    names: &[String],
    mail_names: &[String],
    dir: &Path,
) -> Result<(), Failed> {
    let failed = |e: mailraft_driver::pki::PkiError| Failed::because(e.to_string());
    let issued = ca.issue_node(node, cluster, names).map_err(failed)?;
    write(&dir.join("peer.pem"), issued.chain_pem.as_bytes(), PUBLIC)?;
    write(&dir.join("peer.key"), issued.key_pem.as_bytes(), SECRET)?;
    let mut all = mail_names.to_vec();
    all.extend(names.iter().filter(|n| !mail_names.contains(n)).cloned());
    let issued = ca.issue_server(&all).map_err(failed)?;
    write(&dir.join("mail.pem"), issued.chain_pem.as_bytes(), PUBLIC)?;
    write(&dir.join("mail.key"), issued.key_pem.as_bytes(), SECRET)
}

/// Where `write_authority` puts the authority's certificate and key.
pub fn authority(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("ca.pem"), dir.join("ca.key"))
}

/// Writes the cluster's authority: its certificate, and its key, which is for no node.
pub fn write_authority(ca: &ClusterCa, dir: &Path) -> Result<(), Failed> {
    let (certificate, key) = authority(dir);
    write(&certificate, ca.cert_pem().as_bytes(), PUBLIC)?;
    write(&key, Zeroizing::new(ca.key_pem()).as_bytes(), SECRET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_the_rights_asked_for() {
        let dir = std::env::temp_dir().join(format!("mailraft-node-files-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("key");
        fs::write(dir.join("key.new"), "left by an interrupted command").unwrap();
        for text in ["one", "two"] {
            assert!(write(&path, text.as_bytes(), SECRET).is_ok());
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, SECRET);
        }
        assert!(check_new_dir(&dir).is_err());
        fs::remove_dir_all(&dir).unwrap();
        assert!(check_new_dir(&dir).is_ok());
        assert!(check_new_dir(Path::new("/a\"b")).is_err());
    }
}
