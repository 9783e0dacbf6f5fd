//! Who we are to a smart host, and that nothing of it is ever told on: not every server keeps to itself what was said to it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::reply::Reply;

/// So many letters of what we say in a login, one behind the other, are no accident.
const REPEATED_CHARS: usize = 6;
/// What is told of a reply that has them.
const LEFT_OUT: &str = "(what the server says repeats our login, and is left out)";

/// Credentials at a smart host.
#[derive(Clone)]
#[allow(missing_debug_implementations)] // It holds a password.
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: Zeroizing<String>,
}

/// What a server is to us.
#[derive(Clone)]
#[allow(missing_debug_implementations)] // It holds a password.
pub enum Role {
    /// It takes mail for a domain from anybody.
    Public,
    /// It takes all mail that we send, for who we are to it if it is to know.
    SmartHost(Option<Credentials>),
}

impl Role {
    /// Who we are to it.
    pub fn credentials(&self) -> Option<&Credentials> {
        match self {
            Role::Public => None,
            Role::SmartHost(credentials) => credentials.as_ref(),
        }
    }
}

impl Credentials {
    /// The message of AUTH PLAIN (RFC 4616, section 2), in base64.
    pub(super) fn plain(&self) -> Zeroizing<String> {
        encoded(&Zeroizing::new(format!("\0{}\0{}", self.user, self.password.as_str())))
    }

    /// The two answers of AUTH LOGIN, in base64: the user's name, and the password.
    pub(super) fn login(&self) -> (Zeroizing<String>, Zeroizing<String>) {
        (encoded(&self.user), encoded(&self.password))
    }

    /// A reply as it may be told on: without its text where that has the password, or part of it, in any form in which it was
    /// said. Spaces, line ends and case make no difference.
    pub(super) fn left_out_of(&self, reply: Reply) -> Reply {
        let said = Zeroizing::new(without_spaces(&reply.lines.concat()));
        let forms = [Zeroizing::new(self.password.to_string()), self.login().1, self.plain()];
        if !forms.iter().any(|form| is_repeated(form, &said)) {
            return reply;
        }
        let enhanced = reply.enhanced().map(|code| format!("{code} ")).unwrap_or_default();
        Reply { code: reply.code, lines: vec![format!("{enhanced}{LEFT_OUT}")] }
    }
}

/// Whether a text has so much of a secret that it is no accident; all of a short one.
fn is_repeated(secret: &str, said: &[u8]) -> bool {
    let secret = Zeroizing::new(without_spaces(secret));
    if secret.is_empty() {
        return false;
    }
    secret.windows(REPEATED_CHARS.min(secret.len())).any(|part| memchr::memmem::find(said, part).is_some())
}

fn without_spaces(text: &str) -> Vec<u8> {
    text.bytes().filter(|b| !b.is_ascii_whitespace()).map(|b| b.to_ascii_lowercase()).collect()
}

fn encoded(text: &str) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(password: &str) -> Credentials {
        Credentials { user: "mailraft".to_owned(), password: Zeroizing::new(password.to_owned()) }
    }

    #[test]
    fn no_part_of_a_password_is_told_on_in_whatever_form_it_was_said() {
        let (password, encoded) = ("correct horse", "Y29ycmVjdCBob3JzZQ==");
        let whole = credentials(password).plain();
        let upper = whole.to_uppercase();
        for said in [
            "you said correct horse".to_owned(),
            "you said correcthorse".to_owned(),
            "CORRECT HORSE".to_owned(),
            format!("Command unrecognized: \"{encoded}\""),
            format!("\"{}...\"", &encoded[..8]),
            format!("...{}", &encoded[6..14]),
            format!("AUTH PLAIN {}", *whole),
            format!("AUTH PLAIN {upper}"),
            format!("AUTH PLAIN {}", &whole[..9]),
            format!("{} {}", &whole[..4], &whole[4..8]),
        ] {
            for lines in [vec![format!("5.7.8 {said}")], vec!["5.7.8 no".to_owned(), said.clone()]] {
                let told = credentials(password).left_out_of(Reply { code: 535, lines });
                assert_eq!((told.code, told.text()), (535, format!("5.7.8 {LEFT_OUT}")), "{said}");
            }
        }
        for (password, said) in [("correct horse", "5.7.8 authentication failed"), ("", "5.7.8 no"), ("x1", "5.7.8 no")]
        {
            let reply = Reply { code: 535, lines: vec![said.to_owned()] };
            assert_eq!(credentials(password).left_out_of(reply.clone()), reply);
        }
        let short = Reply { code: 250, lines: vec!["as x1 said".to_owned()] };
        assert_eq!(credentials("x1").left_out_of(short).text(), LEFT_OUT);
    }
}
