//! Passwords that are made for people.

use zeroize::Zeroizing;

use crate::failed::Failed;

/// 16 letters and digits, without those that look alike.
pub fn random_password() -> Result<Zeroizing<String>, Failed> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = Zeroizing::new([0; 16]);
    getrandom::fill(bytes.as_mut_slice())
        .map_err(|e| Failed::because(format!("the system gives no random bytes ({e})")))?;
    Ok(Zeroizing::new(bytes.iter().map(|b| LETTERS[usize::from(*b) % LETTERS.len()] as char).collect()))
}
