//! Which part a node has by its region: at home it serves clients, in a backup region it keeps encrypted standbys, and needs
//! no key for that.

use std::path::{Path, PathBuf};

use mailraft_cluster::placement;
use mailraft_cluster::regions::{RegionName, Regions};
use mailraft_directory::keys::RootKey;
use mailraft_driver::Cluster;
use mailraft_storage::seal::Key;
use mailraft_storage::sums::SumKey;
use mailraft_storage::{NodeId, PartitionId, ReplicaId, Rows, StoreError};
use zeroize::Zeroizing;

use crate::config::{Config, RootKeyUse};

/// What a node is there for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its region is home, or the only one: it serves clients.
    Home,
    /// Its region is a backup: it keeps standbys.
    Standby {
        /// Where clients are served.
        home: RegionName,
    },
}

/// The cluster's regions as this node's rows say now; None if there is one, or if the rows can't be read, as the log says.
pub fn regions(cluster: &Cluster) -> Option<Regions> {
    let control = cluster.replica(PartitionId::CONTROL)?;
    let regions = Regions::from_rows(cluster.rows().as_ref(), control);
    regions.inspect_err(|error| tracing::error!(%error, "the cluster's regions can't be read")).ok().flatten()
}

impl Part {
    /// Of a node, as its rows say.
    ///
    /// # Errors
    /// If the rows can't be read.
    pub fn of(rows: &dyn Rows, node: NodeId) -> Result<Self, StoreError> {
        let Some(control) = placement::control_replica(rows, node)? else { return Ok(Part::Home) };
        Ok(match Regions::from_rows(rows, control)? {
            Some(regions) if !regions.is_home(node) => Part::Standby { home: regions.home().clone() },
            Some(_) | None => Part::Home,
        })
    }
}

/// The root key, for a node with this part. None where it is not read.
///
/// # Errors
/// One sentence if the file can't be used.
pub fn root_key(config: &Config, part: &Part) -> Result<Option<RootKey>, String> {
    match (part, config.keys.used) {
        (Part::Standby { .. }, RootKeyUse::AtHome) => Ok(None),
        (Part::Standby { .. }, RootKeyUse::Always) | (Part::Home, _) => {
            RootKey::read(&config.keys.root_key_file).map(Some).map_err(|e| e.to_string())
        }
    }
}

/// Whether a node whose region is home, and which can't read the root key, goes on without it until somebody gives it one: a
/// region that took over may have no file with it.
pub fn waits_for_key(config: &Config) -> bool {
    config.keys.used == RootKeyUse::AtHome && sums_file(&config.data_dir).exists()
}

/// The region in which these replicas of the control group stand.
pub fn of_control(regions: &Regions, replicas: &[ReplicaId]) -> Option<RegionName> {
    let control = regions.placements().find(|placed| placed.partition == PartitionId::CONTROL)?;
    let there = control.members.iter().find(|member| replicas.contains(&member.replica))?;
    regions.of(there.node).cloned()
}

/// Where a node of a backup region has the key of its rows' sums, which it can't derive.
fn sums_file(data_dir: &Path) -> PathBuf {
    data_dir.join("sums.key")
}

/// Gives a node of a backup region the key of its rows' sums.
///
/// # Errors
/// One sentence if it can't be written.
pub fn write_sums_key(data_dir: &Path, root: &RootKey) -> Result<(), String> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let path = sums_file(data_dir);
    let text = Zeroizing::new(format!("{}\n", hex::encode(root.sums_alone().expose())));
    let mut options = std::fs::OpenOptions::new();
    let written = options.write(true).create_new(true).mode(0o600).open(&path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|e| format!("{} can't be written ({e})", path.display()))
}

/// The key of the sums over a node's rows.
///
/// # Errors
/// One sentence if there is none.
pub fn sums_key(config: &Config, root: Option<&RootKey>) -> Result<SumKey, String> {
    Ok(SumKey::of(&sums_alone(config, root)?))
}

/// What nodes prove to each other where a region takes over: every node has it, with the root key or without.
///
/// # Errors
/// One sentence if there is none.
pub fn word_key(config: &Config, root: Option<&RootKey>) -> Result<Key, String> {
    Ok(sums_alone(config, root)?.derive("mailraft word of a takeover 1"))
}

/// The key that gives those.
fn sums_alone(config: &Config, root: Option<&RootKey>) -> Result<Key, String> {
    if let Some(root) = root {
        return Ok(root.sums_alone());
    }
    let path = sums_file(&config.data_dir);
    let what_to_do = "copy it from another node of a backup region, or write keys.use = \"always\" and give this node \
                      the root key";
    let text =
        std::fs::read_to_string(&path).map_err(|e| format!("{} can't be read ({e}): {what_to_do}", path.display()))?;
    let text = Zeroizing::new(text);
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim(), bytes.as_mut_slice())
        .map_err(|_| format!("{} does not hold 64 hexadecimal digits: {what_to_do}", path.display()))?;
    Ok(Key::from_bytes(*bytes))
}
