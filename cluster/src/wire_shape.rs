//! What Raft's messages may look like as bytes, checked before they are decoded: the decoder skips groups, which nobody
//! writes, by calling itself for each one in another, and a stack ends sooner than a frame (RUSTSEC-2024-0437).

use mailraft_storage::StoreError;

/// A kind of message: which of its fields are messages again, and of which kind.
pub(crate) struct Shape(&'static [(u64, &'static Shape)]);

const PLAIN: Shape = Shape(&[]);
const SNAPSHOT_METADATA: Shape = Shape(&[(1, &PLAIN)]);
const SNAPSHOT: Shape = Shape(&[(2, &SNAPSHOT_METADATA)]);
/// `eraftpb.Message`.
pub(crate) const MESSAGE: Shape = Shape(&[(7, &PLAIN), (9, &SNAPSHOT)]);
/// `eraftpb.ConfChange`.
pub(crate) const CONF_CHANGE: Shape = PLAIN;
/// `eraftpb.ConfChangeV2`.
pub(crate) const CONF_CHANGE_V2: Shape = Shape(&[(2, &PLAIN)]);

/// Goes through a message field by field.
///
/// # Errors
/// If it holds a group, or ends within a field.
pub(crate) fn check(shape: &Shape, mut bytes: &[u8]) -> Result<(), StoreError> {
    let damaged = |why: &str| StoreError::damaged("message of Raft's", why);
    while !bytes.is_empty() {
        let tag = varint(&mut bytes).ok_or_else(|| damaged("a field's number is not whole"))?;
        let length = match tag & 7 {
            0 => varint(&mut bytes).map(|_| 0),
            1 => Some(8),
            2 => varint(&mut bytes),
            5 => Some(4),
            _ => return Err(damaged("it has a group")),
        };
        let field = length.and_then(|length| bytes.split_at_checked(usize::try_from(length).ok()?));
        let (content, rest) = field.ok_or_else(|| damaged("a field is not whole"))?;
        if tag & 7 == 2
            && let Some((_, inner)) = shape.0.iter().find(|(number, _)| *number == tag >> 3)
        {
            check(inner, content)?;
        }
        bytes = rest;
    }
    Ok(())
}

/// Seven bits a byte, the lowest first.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        // What is beyond 64 bits is the decoder's to refuse.
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use protobuf::Message as _;
    use raft::eraftpb;

    use super::*;

    #[test]
    fn what_raft_writes_passes_and_groups_are_refused_wherever_they_are() {
        let mut raft = eraftpb::Message { term: u64::MAX, from: 1, to: 2, ..Default::default() };
        raft.mut_entries().push(eraftpb::Entry { index: 9, data: vec![0x0b; 300].into(), ..Default::default() });
        raft.mut_snapshot().mut_metadata().mut_conf_state().set_voters(vec![1, 2, 300]);
        let bytes = raft.write_to_bytes().expect("it encodes");
        assert!(check(&MESSAGE, &bytes).is_ok());
        for len in 1..bytes.len() {
            // Whole fields may be missing at the end.
            let _ = check(&MESSAGE, &bytes[..len]);
        }
        let groups = [0x0b; 100_000];
        let within = |field: u8, inner: &[u8]| {
            let mut out = vec![field << 3 | 2];
            let mut length = inner.len();
            while length > 127 {
                out.push(length as u8 | 0x80);
                length >>= 7;
            }
            out.push(length as u8);
            [&out, inner].concat()
        };
        assert!(check(&MESSAGE, &groups).is_err());
        assert!(check(&MESSAGE, &within(7, &groups)).is_err());
        assert!(check(&MESSAGE, &within(9, &within(2, &within(1, &groups)))).is_err());
        assert!(check(&CONF_CHANGE, &groups).is_err());
        assert!(check(&CONF_CHANGE_V2, &within(2, &groups)).is_err());
        assert!(check(&MESSAGE, &within(12, &groups)).is_ok(), "bytes are bytes");
        assert!(check(&MESSAGE, &[0x80; 20]).is_err());
    }
}
