//! Passwords: Argon2id (RFC 9106) in PHC form.

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

/// Memory of one hash, in KiB.
pub const MEMORY_KIB: u32 = 19 * 1024;
/// How often Argon2 goes over that memory.
pub const PASSES: u32 = 2;
/// The longest verifier, in bytes.
pub const VERIFIER_MAX_BYTES: usize = 512;
/// The most memory a verifier may ask for, in KiB: each login takes it.
pub const MEMORY_MAX_KIB: u32 = 256 * 1024;
/// The most passes a verifier may ask for.
pub const PASSES_MAX: u32 = 16;
/// The most lanes a verifier may ask for.
pub const LANES_MAX: u32 = 16;
/// Verified where there is no account, so that the answer takes as long.
pub const DUMMY_VERIFIER: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A verifier of this password. Slow on purpose.
///
/// # Panics
/// Never: the parameters and the salt's length are fixed and right.
pub fn hash_password(password: &str, salt: [u8; 16]) -> String {
    let salt = SaltString::encode_b64(&salt).expect("16 bytes are a salt");
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).expect("the parameters are valid");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password(password.as_bytes(), &salt)
        .expect("hashing needs only memory")
        .to_string()
}

/// Whether it is the password. Slow on purpose.
pub fn verify(password: &str, verifier: &str) -> bool {
    let Ok(parsed) = PasswordHash::new(verifier) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok()
}

/// Whether it is an Argon2id verifier in PHC form that is not too dear to verify.
pub fn is_verifier(text: &str) -> bool {
    if text.len() > VERIFIER_MAX_BYTES {
        return false;
    }
    let Ok(parsed) = PasswordHash::new(text) else { return false };
    let Ok(params) = Params::try_from(&parsed) else { return false };
    parsed.algorithm == argon2::ARGON2ID_IDENT
        && parsed.salt.is_some()
        && parsed.hash.is_some()
        && params.m_cost() <= MEMORY_MAX_KIB
        && params.t_cost() <= PASSES_MAX
        && params.p_cost() <= LANES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_argon2id_within_bounds_is_a_verifier() {
        assert!(is_verifier(DUMMY_VERIFIER));
        for (what, by) in [
            ("argon2id", "argon2i"),
            ("argon2id", "scrypt"),
            ("m=19456", "m=4000000"),
            ("t=2", "t=1000"),
            ("p=1", "p=200"),
        ] {
            let other = DUMMY_VERIFIER.replace(what, by);
            assert!(other != DUMMY_VERIFIER && !is_verifier(&other), "{other}");
        }
        let no_hash = DUMMY_VERIFIER.rsplit_once('$').map_or("", |(head, _)| head);
        assert!(!is_verifier(no_hash) && !is_verifier("") && !is_verifier(&"v".repeat(VERIFIER_MAX_BYTES + 1)));
    }

    #[test]
    fn only_the_password_verifies_and_salts_differ() {
        let verifier = hash_password("correct horse", [1; 16]);
        assert!(verifier.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(verify("correct horse", &verifier));
        assert!(!verify("correct hors", &verifier));
        assert!(!verify("correct horse", "not a verifier"));
        assert_ne!(verifier, hash_password("correct horse", [2; 16]));
        assert!(PasswordHash::new(DUMMY_VERIFIER).is_ok() && !verify("x", DUMMY_VERIFIER));
    }
}
