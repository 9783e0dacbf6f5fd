//! What is read from a disk: log entries, rows and their keys, bodies.

use mailraft_storage::body::{BodyId, open_chunk};
use mailraft_storage::entry::CommandRow;
use mailraft_storage::seal::Key;
use mailraft_storage::{Applied, CommandFloor, Entry, ReplicaId, RowKey};

/// Reads a record, whose first byte says what it is to be: it is refused, or comes back as it was written.
pub fn record(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    match kind % 6 {
        0 => {
            if let Ok(entry) = Entry::decode(bytes) {
                let written = entry.encode();
                assert_eq!(Entry::decode(&written).map(|again| again.encode()).ok(), Some(written));
            }
        }
        1 => {
            if let Ok(row) = CommandRow::decode(bytes) {
                let written = row.encode();
                assert_eq!(CommandRow::decode(&written).map(|again| again.encode()).ok(), Some(written));
            }
        }
        2 => {
            if let Some(key) = RowKey::decode(bytes) {
                assert_eq!(key.encode(), bytes);
            }
        }
        3 => {
            if let Ok(applied) = Applied::decode(ReplicaId(1), bytes) {
                let written = applied.encode();
                let again = Applied::decode(ReplicaId(1), &written).map(|again| again.encode());
                assert_eq!(again.ok(), Some(written));
            }
        }
        4 => {
            if let Ok(floor) = CommandFloor::decode(bytes) {
                let written = floor.encode();
                assert_eq!(CommandFloor::decode(&written).map(|again| again.encode()).ok(), Some(written));
            }
        }
        _ => {
            // Nobody guesses a seal.
            assert!(open_chunk(BodyId([1; 16]), &Key::from_bytes([2; 32]), 0, true, bytes).is_err());
        }
    }
}
