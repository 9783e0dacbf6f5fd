//! The end of RocksDB's MANIFEST after a power cut.
//!
//! The MANIFEST names the files that make up the rows. A record is synced before anything relies on it, so the last
//! ones can be half there after a power cut: sectors of them, with others between that never came. RocksDB takes a
//! MANIFEST that is too short for such an end, and refuses one with a gap in its last record as damaged, although
//! nothing that was durable is missing. Here such an end is cut off, and what remains is what was synced.
//!
//! A record that was synced and damaged later can't be told from one that never came whole. If it is the last one,
//! it is cut off too, and the rows are those of an earlier flush. That is noticed: RocksDB refuses files that are not
//! there (those of before a compaction), and the core refuses rows that end before their log begins. If their log
//! still begins before, it is applied again, and nothing is lost.
//!
//! Format: <https://github.com/facebook/rocksdb/wiki/Write-Ahead-Log-File-Format>, which MANIFEST shares.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};

use mailraft_storage::StoreError;

/// Records are laid out in blocks of so many bytes.
const BLOCK_BYTES: usize = 32 << 10;

/// Checksum (4), length (2), kind (1).
const HEADER_BYTES: usize = 7;

/// As much as can have been written and not synced. One flush or compaction of this store names tens of files in some
/// hundred bytes each; more than this is damage.
const TORN_MAX_BYTES: usize = 64 << 10;

/// Cuts off what comes after the last whole record of the MANIFEST in this directory, if a power cut can have left it;
/// whether anything was cut off. Then it is durable.
///
/// # Errors
/// If it can't be read or cut. One that is damaged elsewhere is left as it is.
pub(crate) fn cut_torn_end(dir: &Path) -> Result<bool, StoreError> {
    let Some(path) = current(dir)? else { return Ok(false) };
    let failed = |e: std::io::Error| StoreError::io(format!("cutting off the torn end of {}", path.display()), e);
    let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed)?;
    let whole = whole_records(&bytes);
    if whole == 0 || whole == bytes.len() || bytes.len() - whole > TORN_MAX_BYTES {
        return Ok(false);
    }
    file.set_len(whole as u64).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(true)
}

/// The MANIFEST that CURRENT names.
fn current(dir: &Path) -> Result<Option<PathBuf>, StoreError> {
    let path = dir.join("CURRENT");
    let mut name = String::new();
    let read = File::open(&path).and_then(|file| file.take(1_024).read_to_string(&mut name));
    match read {
        Ok(_) => {}
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidData) => {
            return Ok(None);
        }
        Err(e) => return Err(StoreError::io(format!("reading {}", path.display()), e)),
    }
    let name = name.trim_end_matches('\n');
    let number = name.strip_prefix("MANIFEST-").unwrap_or_default();
    let named = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    Ok(named.then(|| dir.join(name)))
}

/// Where the last record ends before which every record is whole.
fn whole_records(bytes: &[u8]) -> usize {
    let (mut at, mut whole, mut within) = (0, 0, false);
    loop {
        let left = BLOCK_BYTES - at % BLOCK_BYTES;
        if left < HEADER_BYTES {
            // The rest of a block that has no room for a header.
            at += left;
            continue;
        }
        let Some(fragment) = fragment(bytes.get(at..).unwrap_or_default(), left) else { return whole };
        at += HEADER_BYTES + fragment.data_bytes;
        within = match (within, fragment.kind) {
            (false, Kind::Full) | (true, Kind::Last) => {
                whole = at;
                false
            }
            (false, Kind::First) | (true, Kind::Middle) => true,
            (false, Kind::Middle | Kind::Last) | (true, Kind::Full | Kind::First) => return whole,
        };
    }
}

struct Fragment {
    kind: Kind,
    data_bytes: usize,
}

#[derive(Clone, Copy)]
enum Kind {
    Full,
    First,
    Middle,
    Last,
}

/// The piece of a record that these bytes begin with, if it is whole and ends in this block.
fn fragment(bytes: &[u8], left: usize) -> Option<Fragment> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let [c0, c1, c2, c3, l0, l1, kind] = *header;
    let data_bytes = usize::from(u16::from_le_bytes([l0, l1]));
    if HEADER_BYTES + data_bytes > left {
        return None;
    }
    let data = rest.get(..data_bytes)?;
    let sum = crc32c::crc32c_append(crc32c::crc32c(&[kind]), data);
    if u32::from_le_bytes([c0, c1, c2, c3]) != masked(sum) {
        return None;
    }
    let kind = match kind {
        1 => Kind::Full,
        2 => Kind::First,
        3 => Kind::Middle,
        4 => Kind::Last,
        _ => return None,
    };
    Some(Fragment { kind, data_bytes })
}

/// As RocksDB stores checksums.
fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment_of(kind: u8, data: &[u8]) -> Vec<u8> {
        let sum = masked(crc32c::crc32c_append(crc32c::crc32c(&[kind]), data));
        let mut out = sum.to_le_bytes().to_vec();
        out.extend((data.len() as u16).to_le_bytes());
        out.push(kind);
        out.extend(data);
        out
    }

    #[test]
    fn whole_records_end_where_the_first_torn_one_begins() {
        let mut bytes = fragment_of(1, b"the first");
        bytes.extend(fragment_of(1, b"the second"));
        let two = bytes.len();
        assert_eq!(whole_records(&bytes), two);
        let mut over_blocks = bytes.clone();
        over_blocks.extend(fragment_of(2, &vec![7; BLOCK_BYTES - two - HEADER_BYTES]));
        assert_eq!(whole_records(&over_blocks), two, "its end is missing");
        over_blocks.extend(fragment_of(3, &vec![7; BLOCK_BYTES - HEADER_BYTES]));
        over_blocks.extend(fragment_of(4, b"its end"));
        assert_eq!(whole_records(&over_blocks), over_blocks.len());
        // Each thing that can be wrong with a record.
        for kind in [0, 3, 4, 5, 9] {
            let mut wrong = bytes.clone();
            wrong.extend(fragment_of(kind, b"the third"));
            assert_eq!(whole_records(&wrong), two, "kind {kind}");
        }
        let mut third = bytes.clone();
        third.extend(fragment_of(1, b"the third"));
        for at in two..third.len() {
            let mut gap = third.clone();
            gap[at] ^= 0x40;
            assert_eq!(whole_records(&gap), two, "byte {at}");
            assert_eq!(whole_records(&third[..at]), two, "ends at {at}");
        }
        third.extend([0; 5_000]);
        assert_eq!(whole_records(&third), third.len() - 5_000);
    }

    #[test]
    fn only_an_end_is_cut_off_and_never_all_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("MANIFEST-000004");
        let good = fragment_of(1, &[1; 700]);
        let cut = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let cut = cut_torn_end(dir.path()).unwrap();
            assert_eq!(std::fs::read(&path).unwrap().len() != bytes.len(), cut);
            cut
        };
        assert!(!cut_torn_end(dir.path()).unwrap(), "there is no CURRENT");
        for other in ["", "MANIFEST-", "../MANIFEST-000004", "MANIFEST-00000x\n"] {
            std::fs::write(dir.path().join("CURRENT"), other).unwrap();
            assert!(!cut(&[&good[..], &[9; 100]].concat()), "{other:?}");
        }
        std::fs::write(dir.path().join("CURRENT"), "MANIFEST-000004\n").unwrap();
        assert!(!cut(&good));
        assert!(!cut(&[9; 100]), "nothing would be left");
        assert!(cut(&[&good[..], &[9; 100]].concat()));
        assert_eq!(std::fs::read(&path).unwrap(), good);
        assert!(cut(&[&good[..], &[9; TORN_MAX_BYTES]].concat()));
        assert!(!cut(&[&good[..], &[9; TORN_MAX_BYTES + 1]].concat()), "so much is not torn");
    }
}
