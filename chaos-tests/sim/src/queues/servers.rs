//! The other servers of the queues' world: what they answer, and whether anybody hears it.

use crate::dice::Dice;

/// How the servers of a domain are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// They take what comes.
    Takes,
    /// They say *not now* to most.
    Greylists,
    /// They know nobody of that name.
    Refuses,
    /// One can't tell.
    Moody,
    /// Nobody can reach them, ever.
    Gone,
}

/// The domains outside, `far0.test` and so on.
const MANNERS: [Manner; 5] = [Manner::Takes, Manner::Greylists, Manner::Refuses, Manner::Moody, Manner::Gone];
/// How many they are.
pub const DOMAINS: u64 = MANNERS.len() as u64;
/// A silent server is waited for no longer than this, in milliseconds.
const SILENCE_MAX_MILLIS: u64 = 30 * 60_000;

/// What comes of connecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// Nobody can be reached.
    NotReached,
    /// It takes the connection and says nothing; after so many milliseconds that is given up.
    Silent(u64),
    /// It speaks.
    Speaks,
}

/// What it says of a recipient, before it has the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfRecipient {
    /// 250.
    Yes,
    /// 4xx.
    NotNow,
    /// 5xx.
    Never,
}

/// What it does with the message's last octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfMessage {
    /// It has the message, and says so.
    Takes,
    /// It has the message, and dies before anybody hears that.
    TakesUnheard,
    /// It dies without the message.
    Dies,
    /// 4xx.
    NotNow,
    /// 5xx.
    Never,
}

/// The name of a domain.
pub fn domain(number: u64) -> String {
    format!("far{}.test", number % DOMAINS)
}

/// Whether a domain's servers tell what becomes of a message later on (RFC 3461).
pub fn reports_onward(domain: &str) -> bool {
    !matches!(manner(domain), Manner::Takes | Manner::Moody)
}

/// Connects to a server of a domain.
pub fn meet(dice: &mut Dice, domain: &str, healing: bool) -> Meeting {
    let manner = manner(domain);
    if manner == Manner::Gone {
        return Meeting::NotReached;
    }
    let bad = if manner == Manner::Moody { 300 } else { 60 };
    if healing || !dice.chance(bad) {
        return Meeting::Speaks;
    }
    if dice.chance(500) { Meeting::NotReached } else { Meeting::Silent(dice.between(1_000, SILENCE_MAX_MILLIS)) }
}

/// Names a recipient to it.
pub fn of_recipient(dice: &mut Dice, domain: &str, healing: bool) -> OfRecipient {
    match (manner(domain), healing) {
        (Manner::Refuses, true) => OfRecipient::Never,
        (_, true) => OfRecipient::Yes,
        (Manner::Takes | Manner::Gone, false) => OfRecipient::Yes,
        (Manner::Greylists, false) if dice.chance(700) => OfRecipient::NotNow,
        (Manner::Refuses, false) if dice.chance(800) => OfRecipient::Never,
        (Manner::Moody, false) if dice.chance(200) => OfRecipient::NotNow,
        (Manner::Moody, false) if dice.chance(100) => OfRecipient::Never,
        (Manner::Greylists | Manner::Refuses | Manner::Moody, false) => OfRecipient::Yes,
    }
}

/// Hands it the message's last octet.
pub fn of_message(dice: &mut Dice, domain: &str, healing: bool) -> OfMessage {
    if healing {
        return OfMessage::Takes;
    }
    let moody = manner(domain) == Manner::Moody;
    match dice.below(1_000) {
        0..80 => OfMessage::TakesUnheard,
        80..120 => OfMessage::Dies,
        120..250 if moody => OfMessage::NotNow,
        250..320 if moody => OfMessage::Never,
        _ => OfMessage::Takes,
    }
}

fn manner(domain: &str) -> Manner {
    let number = domain.strip_prefix("far").and_then(|rest| rest.strip_suffix(".test")).and_then(|n| n.parse().ok());
    number.and_then(|number: usize| MANNERS.get(number).copied()).unwrap_or(Manner::Gone)
}
