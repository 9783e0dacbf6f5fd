//! What a client says in a login by SASL: PLAIN (RFC 4616) and LOGIN, in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Why a client's line is no message of a mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// A `*`: the client gives up.
    GivenUp,
    /// It is not base64 of UTF-8.
    Malformed,
}

/// PLAIN's one message.
#[derive(PartialEq, Eq)]
#[allow(missing_debug_implementations)] // It holds a password.
pub enum Plain {
    /// Credentials.
    Login {
        /// The user's name, not empty.
        user: String,
        /// The password.
        password: Zeroizing<String>,
    },
    /// Somebody wants to act for another.
    ForAnother,
    /// It is none.
    Malformed,
}

/// The text of a client's line.
///
/// # Errors
/// If it is none.
pub fn decode(line: &[u8]) -> Result<Zeroizing<String>, Unusable> {
    if line == b"*" {
        return Err(Unusable::GivenUp);
    }
    let bytes = Zeroizing::new(STANDARD.decode(line).map_err(|_| Unusable::Malformed)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| Unusable::Malformed)?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Takes PLAIN's message apart.
pub fn plain(message: &str) -> Plain {
    let mut parts = message.split('\0');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(authorise), Some(user), Some(password), None) if !user.is_empty() => {
            if !authorise.is_empty() && authorise != user {
                return Plain::ForAnother;
            }
            Plain::Login { user: user.to_owned(), password: Zeroizing::new(password.to_owned()) }
        }
        _ => Plain::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_has_three_parts_and_its_user_acts_for_itself() {
        let login = |user: &str, password: &str| Plain::Login {
            user: user.to_owned(),
            password: Zeroizing::new(password.to_owned()),
        };
        assert!(plain("\0a\0b") == login("a", "b") && plain("a\0a\0") == login("a", ""));
        assert!(plain("x\0a\0b") == Plain::ForAnother);
        assert!(["", "a", "\0a", "\0\0b", "\0a\0b\0c"].iter().all(|message| plain(message) == Plain::Malformed));
        assert_eq!(decode(b"*"), Err(Unusable::GivenUp));
        assert_eq!(decode(b"!"), Err(Unusable::Malformed));
        assert_eq!(decode(b"/w=="), Err(Unusable::Malformed));
        assert_eq!(decode(b"AGE="), Ok(Zeroizing::new("\0a".to_owned())));
    }
}
