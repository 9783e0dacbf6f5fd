//! The file in which counts outlive a restart: sealed under a key of its own, as it says who writes to whom. It is written anew
//! each time, beside the one before, and then put in its place.

use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use mailraft_feedback::dmarc::Messages;
use mailraft_feedback::tls::Sessions;
use mailraft_feedback::{DAYS_MAX, PART_MAX_BYTES, dmarc, tls};
use mailraft_storage::seal::{Key, open_row, seal_row};
use mailraft_storage::{ClusterId, Epoch, MailboxId, RowKey, Table};
use zeroize::Zeroizing;

use crate::environment::os_env;

/// The name of the file in `data_dir`.
const FILE: &str = "reports.counts";
/// The version of the file.
const VERSION: u8 = 1;
/// The most records of a kind: what all days take in memory, in parts, and one for the rest of each.
const RECORDS_MAX: usize = 2 * DAYS_MAX * (1 + (tls::DAY_MAX_BYTES + dmarc::DAY_MAX_BYTES) / PART_MAX_BYTES);
/// The longest record when it is sealed, in bytes.
const SEALED_MAX_BYTES: usize = PART_MAX_BYTES + 1_024;

/// Where counts are written down.
pub struct CountsFile {
    path: PathBuf,
    cluster: ClusterId,
    key: Key,
}

impl CountsFile {
    /// In this directory, under this key.
    pub fn new(data_dir: &Path, cluster: ClusterId, key: Key) -> Self {
        CountsFile { path: data_dir.join(FILE), cluster, key }
    }

    /// What was written last; nothing if nothing was. Blocking.
    ///
    /// # Errors
    /// One sentence if the file can't be read, or is not what was written.
    pub fn read(&self, now_unix_s: u64) -> Result<(Sessions, Messages), String> {
        let said = |error: &dyn std::fmt::Display| format!("{}: {error}", self.path.display());
        let file = match std::fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Default::default()),
            Err(error) => return Err(said(&error)),
        };
        let mut file = std::io::BufReader::new(file);
        let mut head = [0; 9];
        file.read_exact(&mut head).map_err(|e| said(&e))?;
        if head[0] != VERSION {
            return Err(said(&format_args!("it is of version {}, and this node reads {VERSION}", head[0])));
        }
        let count = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let mut of_kind = |kind: u8, count: u32| {
            if count as usize > RECORDS_MAX {
                return Err(said(&format_args!("{count} records are more than there can be")));
            }
            (0..count).map(|number| self.record(&mut file, (kind, number, count)).map_err(|e| said(&e))).collect()
        };
        let sessions: Vec<Zeroizing<Vec<u8>>> = of_kind(0, count(1))?;
        let messages: Vec<Zeroizing<Vec<u8>>> = of_kind(1, count(5))?;
        let slices = |records: &[Zeroizing<Vec<u8>>]| records.iter().map(|r| r.to_vec()).collect::<Vec<_>>();
        let (sessions, messages) = (slices(&sessions), slices(&messages));
        Ok((
            Sessions::decode(sessions.iter().map(Vec::as_slice), now_unix_s).map_err(|e| said(&e))?,
            Messages::decode(messages.iter().map(Vec::as_slice), now_unix_s).map_err(|e| said(&e))?,
        ))
    }

    /// Writes these in the place of all that was there. Blocking.
    ///
    /// # Errors
    /// One sentence. What was there stays then.
    pub fn write(&self, sessions: &[Vec<u8>], messages: &[Vec<u8>]) -> Result<(), String> {
        let beside = self.path.with_extension("new");
        let written = || -> std::io::Result<()> {
            let mut file = BufWriter::new(std::fs::File::create(&beside)?);
            let counts = [sessions.len() as u32, messages.len() as u32];
            file.write_all(&[VERSION])?;
            counts.iter().try_for_each(|count| file.write_all(&count.to_be_bytes()))?;
            let mut env = os_env();
            for (kind, (records, count)) in (0u8..).zip([sessions, messages].into_iter().zip(counts)) {
                for (number, record) in (0u32..).zip(records) {
                    let place = place((kind, number, count));
                    let sealed: Bytes = seal_row(&mut env, &self.key, Epoch(0), self.cluster, &place, record);
                    file.write_all(&(sealed.len() as u32).to_be_bytes())?;
                    file.write_all(&sealed)?;
                }
            }
            file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
            std::fs::rename(&beside, &self.path)
        };
        written().map_err(|error| format!("{}: {error}", self.path.display()))
    }

    fn record(&self, file: &mut impl Read, of: (u8, u32, u32)) -> Result<Zeroizing<Vec<u8>>, String> {
        let mut length = [0; 4];
        file.read_exact(&mut length).map_err(|e| e.to_string())?;
        let length = u32::from_be_bytes(length) as usize;
        if length > SEALED_MAX_BYTES {
            return Err(format!("a record of {length} bytes is longer than any"));
        }
        let mut sealed = vec![0; length];
        file.read_exact(&mut sealed).map_err(|e| e.to_string())?;
        open_row(&self.key, self.cluster, &place(of), &sealed).map_err(|e| e.to_string())
    }
}

/// What a record is sealed for: its kind, its number, and of how many. No store has such a row; the key opens nothing else.
fn place((kind, number, count): (u8, u32, u32)) -> RowKey {
    let key = [&[kind][..], &number.to_be_bytes(), &count.to_be_bytes()].concat();
    RowKey::new(MailboxId::PARTITION, Table::Hashes, key)
}
