//! A directory says which cluster it belongs to and in which format it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mailraft_storage::{ClusterId, StoreError};

/// The newest format of data directories that this binary reads. In the first, rows stood only under the first prefix of
/// their replica.
pub const FORMAT: u8 = 3;
/// The format in which rows have no sums yet: that of a new directory, until they are made.
const FORMAT_WITHOUT_SUMS: u8 = 2;
const FILE: &str = "MAILRAFT";
/// What a crash may leave of writing it.
const FILE_UNFINISHED: &str = "MAILRAFT.new";

/// Whether the rows in a data directory have their sums, or a start is to make them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowSums {
    /// None: no version that keeps them has started there yet.
    NotYet,
    /// They were made: without them the rows are damaged.
    Made,
}

/// Notes in a data directory's marker that its rows have sums. From then on no older version opens it.
///
/// # Errors
/// If it can't be written.
pub fn sums_are_made(dir: &Path, cluster: ClusterId) -> Result<(), StoreError> {
    write_synced(dir, &dir.join(FILE), &marker(cluster, FORMAT))
        .map_err(|e| StoreError::io(format!("the data directory {}", dir.display()), e))
}

/// Nobody but its owner may look into it, whatever it was before.
fn keep_private(dir: &Path) -> std::io::Result<()> {
    if fs::metadata(dir)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Checks a data directory's marker, and writes it into one that has none and is empty.
///
/// # Errors
/// One sentence if it belongs to another cluster, to a later version, or holds something else.
pub fn check(dir: &Path, cluster: ClusterId) -> Result<RowSums, StoreError> {
    let io = |e: std::io::Error| StoreError::io(format!("the data directory {}", dir.display()), e);
    fs::create_dir_all(dir).map_err(io)?;
    keep_private(dir).map_err(io)?;
    let file = dir.join(FILE);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let mut others = fs::read_dir(dir).map_err(io)?;
            if others.any(|f| f.map_or(true, |f| f.file_name() != FILE_UNFINISHED)) {
                return Err(damaged(
                    dir,
                    "it holds files but no marker of mailraft: name an empty directory, or the right one",
                ));
            }
            let text = marker(cluster, FORMAT_WITHOUT_SUMS);
            write_synced(dir, &file, &text).map_err(io)?;
            text
        }
        Err(e) => return Err(io(e)),
    };
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
    let format: u8 = field("format ").and_then(|f| f.parse().ok()).ok_or_else(|| damaged(dir, UNREADABLE))?;
    if format > FORMAT {
        return Err(StoreError::Newer {
            place: format!("the data directory {}", dir.display()),
            found: format,
            known: FORMAT,
        });
    }
    match field("cluster ").and_then(ClusterId::from_hex) {
        Some(found) if found == cluster && format == FORMAT => Ok(RowSums::Made),
        Some(found) if found == cluster => {
            if format < FORMAT_WITHOUT_SUMS {
                write_synced(dir, &file, &marker(cluster, FORMAT_WITHOUT_SUMS)).map_err(io)?;
            }
            Ok(RowSums::NotYet)
        }
        Some(found) => Err(damaged(
            dir,
            format_args!(
                "it belongs to cluster {found}, and the configuration names {cluster}: name the right directory or cluster"
            ),
        )),
        None => Err(damaged(dir, UNREADABLE)),
    }
}

/// What is damaged then is known by the other files' own checks.
const UNREADABLE: &str = "its marker, the file MAILRAFT, can't be read: check the disk, and if that is well, copy the \
                          file from another node of this cluster that has the same version";

fn marker(cluster: ClusterId, format: u8) -> String {
    format!("mailraft data\nformat {format}\ncluster {cluster}\n")
}

fn damaged(dir: &Path, detail: impl std::fmt::Display) -> StoreError {
    StoreError::damaged(format!("the data directory {}", dir.display()), detail)
}

fn write_synced(dir: &Path, file: &Path, text: &str) -> std::io::Result<()> {
    let unfinished = dir.join(FILE_UNFINISHED);
    fs::write(&unfinished, text)?;
    fs::File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, file)?;
    fs::File::open(dir)?.sync_all()
}
