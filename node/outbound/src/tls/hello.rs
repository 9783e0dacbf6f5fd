//! Servers that can't stand a first message of TLS as long as a key of ML-KEM makes it: it takes two packets, which some
//! servers, and things on the way to them, don't put together. They get a second try without.

use std::collections::{BTreeMap, VecDeque};

/// Servers that are remembered; the one that was first remembered goes first.
pub const HOSTS_MAX: usize = 4_096;
/// A server is tried again with a key of ML-KEM after this many seconds.
pub const REMEMBERED_S: u64 = 7 * 86_400;

/// The first message of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// With a key of X25519MLKEM768, of some 1200 octets.
    WithMlKem,
    /// With a key of X25519 only.
    Small,
}

/// How a handshake ended that didn't succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The connection ended before the server's first message.
    Ended,
    /// The server said nothing in time.
    Silent,
    /// The server's first word was an alert that says that it can't read what came: decode_error, illegal_parameter,
    /// handshake_failure, protocol_version, record_overflow, unexpected_message, internal_error.
    NotUnderstood,
    /// Anything after the server's first message, or an alert about something else.
    Other,
}

impl HandshakeFailure {
    /// Whether the length of our first message may be why.
    pub fn may_be_the_hello(self) -> bool {
        match self {
            HandshakeFailure::Ended | HandshakeFailure::Silent | HandshakeFailure::NotUnderstood => true,
            HandshakeFailure::Other => false,
        }
    }
}

/// The servers that took the small message and not the other one.
#[derive(Debug, Default)]
pub struct Hellos {
    small_until_s: BTreeMap<String, u64>,
    /// In the order in which they were remembered; each host once.
    order: VecDeque<String>,
}

impl Hellos {
    /// What a server gets first.
    pub fn first(&self, host: &str, now_s: u64) -> Hello {
        match self.small_until_s.get(host) {
            Some(until_s) if now_s < *until_s => Hello::Small,
            Some(_) | None => Hello::WithMlKem,
        }
    }

    /// What a server gets after a handshake that failed; none if another try can't help.
    pub fn again(tried: Hello, failure: HandshakeFailure) -> Option<Hello> {
        match tried {
            Hello::WithMlKem => failure.may_be_the_hello().then_some(Hello::Small),
            Hello::Small => None,
        }
    }

    /// A handshake with the small message succeeded after one with the other had failed.
    pub fn remember(&mut self, host: &str, now_s: u64) {
        if self.small_until_s.insert(host.to_owned(), now_s.saturating_add(REMEMBERED_S)).is_none() {
            self.order.push_back(host.to_owned());
        }
        while self.order.len() > HOSTS_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            self.small_until_s.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_may_not_stand_the_hello_gets_one_more_try() {
        use HandshakeFailure::{Ended, NotUnderstood, Other, Silent};
        for failure in [Ended, Silent, NotUnderstood] {
            assert_eq!(Hellos::again(Hello::WithMlKem, failure), Some(Hello::Small));
            assert_eq!(Hellos::again(Hello::Small, failure), None, "the second try is the last");
        }
        assert_eq!(Hellos::again(Hello::WithMlKem, Other), None);
    }

    #[test]
    fn what_helped_is_remembered_for_a_while() {
        let mut hellos = Hellos::default();
        assert_eq!(hellos.first("a.test", 10), Hello::WithMlKem);
        hellos.remember("a.test", 10);
        assert_eq!(hellos.first("a.test", 10 + REMEMBERED_S - 1), Hello::Small);
        assert_eq!(hellos.first("a.test", 10 + REMEMBERED_S), Hello::WithMlKem);
        assert_eq!(hellos.first("b.test", 11), Hello::WithMlKem);
    }

    #[test]
    fn the_memory_is_bounded_and_the_oldest_goes_first() {
        let mut hellos = Hellos::default();
        for n in 0..=HOSTS_MAX {
            (0..3).for_each(|_| hellos.remember(&format!("h{n}.test"), 10));
        }
        assert_eq!((hellos.small_until_s.len(), hellos.order.len()), (HOSTS_MAX, HOSTS_MAX));
        assert_eq!(hellos.first("h0.test", 11), Hello::WithMlKem);
        assert_eq!(hellos.first("h1.test", 11), Hello::Small);
    }
}
