//! Passwords: Argon2id (RFC 9106) in PHC form.

use argon2::password_hash::{Output, PasswordHash, PasswordHasher, SaltString};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use sha2::{Digest, Sha256};

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

/// What Argon2 computes in, for one verification after another: a new allocation of so much costs as much as the work.
#[derive(Default)]
pub struct Memory(Vec<Block>);

/// Whether it is the password. Slow on purpose.
pub fn verify(password: &str, verifier: &str) -> bool {
    verify_in(&mut Memory::default(), password, verifier)
}

/// As [`verify`], in memory that is there already. It stays as large as usual verifiers need it.
pub fn verify_in(memory: &mut Memory, password: &str, verifier: &str) -> bool {
    let Ok(parsed) = PasswordHash::new(verifier) else { return false };
    let (Some(salt), Some(expected)) = (parsed.salt, parsed.hash) else { return false };
    let (Ok(params), Ok(algorithm)) = (Params::try_from(&parsed), Algorithm::try_from(parsed.algorithm)) else {
        return false;
    };
    let version = parsed.version.map_or(Ok(Version::V0x13), Version::try_from);
    let (mut salt_bytes, mut out) = ([0; VERIFIER_MAX_BYTES], [0; Output::MAX_LENGTH]);
    let (Ok(version), Ok(salt), Some(out)) = (version, salt.decode_b64(&mut salt_bytes), out.get_mut(..expected.len()))
    else {
        return false;
    };
    let blocks = params.block_count();
    if memory.0.len() < blocks {
        memory.0.resize(blocks, Block::default());
    }
    let argon2 = Argon2::new(algorithm, version, params);
    let computed = argon2.hash_password_into_with_memory(password.as_bytes(), salt, out, &mut memory.0[..blocks]);
    if blocks > MEMORY_KIB as usize {
        memory.0 = Vec::new();
    }
    // Compared in a time that tells nothing of where they differ.
    computed.is_ok() && Output::new(out).is_ok_and(|out| out == expected)
}

/// The shortest password, in characters.
pub const PASSWORD_MIN_CHARS: usize = 12;

/// What the best known passwords are made of, beside the passwords themselves; digits and signs around one make it no
/// better.
const KNOWN_WORDS: [&str; 8] =
    ["passwort", "passw0rd", "p@ssw0rd", "p@ssword", "qwertz", "administrator", "trustno", "mailraft"];
/// Beginnings of the SHA-256 of passwords that are tried first, sorted (`data/README.md`).
const KNOWN: &[u8] = include_bytes!("../data/known-passwords");
/// Bytes of each.
const KNOWN_BYTES: usize = 6;
/// Runs of keys; a password out of one of them is none.
const RUNS: [&str; 5] = [
    "01234567890123456789",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "1q2w3e4r5t6z7u8i9o0p",
];
/// The fewest different characters of a password.
const DIFFERENT_MIN: usize = 5;

/// What is wrong with a password for an account, in a sentence for its user; None if nothing that is known.
pub fn weakness(password: &str, address: &str) -> Option<String> {
    let lower = password.to_lowercase();
    if lower.chars().count() < PASSWORD_MIN_CHARS {
        return Some(format!("the password is too short: at least {PASSWORD_MIN_CHARS} characters"));
    }
    let different: std::collections::BTreeSet<char> = lower.chars().collect();
    let is_run = |text: &str| {
        let backwards = |run: &str| run.chars().rev().collect::<String>();
        RUNS.iter().any(|run| run.contains(text) || backwards(run).contains(text))
    };
    if different.len() < DIFFERENT_MIN || is_run(&lower) || is_known(&lower) {
        return Some("the password is among those that are tried first: choose another".to_owned());
    }
    let bare = bare(&lower);
    let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
    let site = domain.split('.').next().unwrap_or_default();
    let own = [local, site].into_iter().map(str::to_lowercase).filter(|own| own.chars().count() >= 3);
    for own in own {
        if bare == own || lower.replace(&own, "").chars().count() * 2 < PASSWORD_MIN_CHARS {
            return Some("the password is little more than the address: choose another".to_owned());
        }
    }
    None
}

/// Without the digits and signs around it.
fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| !c.is_alphabetic())
}

/// Whether it is a password that is tried first, with or without what is around it, or one several times.
fn is_known(lower: &str) -> bool {
    let letters: String = lower.chars().filter(|c| c.is_alphabetic() || *c == '@').collect();
    let repeats = |text: &str| {
        let once = |times: usize| text.get(..text.len() / times).filter(|part| part.repeat(times) == text);
        (2..=4).filter_map(once).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut texts = vec![lower.to_owned(), bare(lower).to_owned()];
    texts.extend([lower, bare(lower), &letters].into_iter().flat_map(repeats));
    let mut bare_too: Vec<String> = texts.iter().map(|text| bare(text).to_owned()).collect();
    texts.append(&mut bare_too);
    texts.iter().any(|text| KNOWN_WORDS.contains(&text.as_str()) || is_listed(text))
}

fn is_listed(text: &str) -> bool {
    let digest = Sha256::digest(text.as_bytes());
    let (listed, _) = KNOWN.as_chunks::<KNOWN_BYTES>();
    listed.binary_search_by(|known| known.as_slice().cmp(&digest[..KNOWN_BYTES])).is_ok()
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
    fn memory_is_used_again_and_tells_nothing_of_the_one_before() {
        let mut memory = Memory::default();
        let (one, other) = (hash_password("correct horse", [1; 16]), hash_password("battery staple", [2; 16]));
        assert!(verify_in(&mut memory, "correct horse", &one));
        let at = memory.0.as_ptr();
        assert!(!verify_in(&mut memory, "correct horse", &other));
        assert!(verify_in(&mut memory, "battery staple", &other));
        assert_eq!((at, memory.0.len()), (memory.0.as_ptr(), MEMORY_KIB as usize));
        // A dearer verifier is computed, and its memory given back.
        let dear = DUMMY_VERIFIER.replace("m=19456", "m=20480");
        assert!(!verify_in(&mut memory, "x", &dear) && memory.0.is_empty());
    }

    #[test]
    fn the_list_of_known_passwords_is_long_sorted_and_whole() {
        let (listed, rest) = KNOWN.as_chunks::<KNOWN_BYTES>();
        assert!(listed.len() >= 10_000 && rest.is_empty() && listed.is_sorted(), "{}", listed.len());
        for known in ["123456", "letmein", "iloveyou", "liverpool", "zxcvbnm1"] {
            assert!(is_listed(known), "{known}");
        }
        assert!(!is_listed("") && !is_listed("hxkq7mdpw2nz"));
    }

    #[test]
    fn passwords_that_are_tried_first_are_refused_and_others_are_not() {
        let of = |password: &str| weakness(password, "jane.doe@example.org");
        for bad in [
            "elevenchars",
            "Password1234",
            "!!password!!",
            "PasswordPassword",
            "123456789012",
            "210987654321",
            "qwertyuiopas",
            "aaaaaaaaaaaa",
            "abababababab",
            "Welcome12345",
            "jane.doe1234",
            "Example12345",
            "1q2w3e4r5t6z",
            "Administrator1",
            "abcdefghijkl",
            "liverpool1892!",
            "monkeymonkey",
            "Charlie-20010203",
            "trustno1trustno1",
        ] {
            assert!(of(bad).is_some(), "{bad}");
        }
        for good in ["correct horse battery", "hxkq7mdpw2nz", "n3ver-again-after-me", "example of my own choice"] {
            assert_eq!(of(good), None, "{good}");
        }
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
