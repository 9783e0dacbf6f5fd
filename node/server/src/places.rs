//! Places for client sessions: how many there may be, in all, of one service, from one address, and with a message on
//! its way in. Who is not logged in and says nothing gives way to a newcomer.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use mailraft_storage::MailboxId;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// A stranger that has been silent for this long gives way to a newcomer.
const STRANGER_GIVES_WAY_AFTER: Duration = Duration::from_secs(2);
/// A sender that has been silent for this long in the middle of a message gives way to another message.
const SENDER_GIVES_WAY_AFTER: Duration = Duration::from_secs(10);
/// Where places for messages are short, one that has been under way for this long
const SLOW_GIVES_WAY_AFTER: Duration = Duration::from_secs(5);
/// at less than this many bytes a second gives way too.
const SLOW_BYTES_PER_SECOND: u64 = 64 << 10;
/// Of the places for messages other servers leave one part of so many to who has logged in, and those to them; and an account
/// has one such part.
const MESSAGE_PARTS: usize = 4;
/// Sessions that were told to give way and have not ended; past these newcomers are refused.
const LEAVING_MAX: usize = 32;

/// What one address stands for: an IPv6 host has a network of 64 bits to choose addresses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Network(IpAddr);

impl Network {
    /// The network of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Network(address.into()),
            IpAddr::V6(address) => Network(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()),
        }
    }
}

impl Network {
    /// The larger network that it is in: IPv4 /24, IPv6 /48.
    pub fn wide(self) -> Self {
        match self.0 {
            IpAddr::V4(address) => Network(std::net::Ipv4Addr::from_bits(address.to_bits() >> 8 << 8).into()),
            IpAddr::V6(address) => Network(Ipv6Addr::from_bits(address.to_bits() >> 80 << 80).into()),
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "{address}/64"),
        }
    }
}

/// Services whose strangers have a share of their own: what happens on one port keeps nobody from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Share {
    /// Mail from other servers, who never log in.
    Relay,
    /// Submission, with or without TLS from the start.
    Submission,
    /// IMAP, with or without TLS from the start.
    Imap,
    /// POP3, with or without TLS from the start.
    Pop3,
    /// Pages over HTTPS, for which nobody logs in.
    Pages,
}

/// Why a session is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Another one needs its place.
    GivesWay,
    /// Its account was disabled, or has another password.
    Revoked,
}

/// How many sessions there may be. A reload may change all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// In all.
    pub sessions: usize,
    /// From one address (IPv6: from one /64).
    pub sessions_per_address: usize,
    /// That nobody has logged in to, of one service, in hundredths of all.
    pub strangers_percent: usize,
    /// That nobody has logged in to, from one address.
    pub strangers_per_address: usize,
    /// With a message on its way in.
    pub messages: usize,
    /// With a message on its way in, from one address.
    pub messages_per_address: usize,
}

/// Places for sessions; clones share them.
#[derive(Clone, Default)]
pub struct Places {
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    next: u64,
    seats: BTreeMap<u64, Arc<Seat>>,
    networks: HashMap<Network, Counts>,
    strangers: BTreeMap<(Share, u64), Arc<Seat>>,
    /// Those in the middle of a message.
    senders: BTreeMap<u64, Arc<Seat>>,
    leaving: usize,
}

/// Sessions of one network.
#[derive(Clone, Copy, Default)]
struct Counts {
    all: usize,
    strangers: usize,
    senders: usize,
}

/// A place for one session, free again when dropped. Clones are of one place.
#[derive(Clone)]
pub struct Place {
    held: Arc<Held>,
}

struct Held {
    places: Places,
    seat: Arc<Seat>,
}

struct Seat {
    number: u64,
    share: Share,
    network: Network,
    /// When something was heard last, by [`now_ms`].
    heard_ms: AtomicU64,
    /// It waits for its client.
    waits: AtomicBool,
    /// Who has logged in.
    account: OnceLock<MailboxId>,
    /// When its message began to come in, by [`now_ms`],
    message_began_ms: AtomicU64,
    /// and how much of it has.
    message_bytes: AtomicU64,
    leave: Notify,
    told_to_leave: AtomicBool,
    revoked: AtomicBool,
}

impl Places {
    /// Sessions that have a place.
    pub fn open(&self) -> usize {
        self.table().seats.len()
    }

    /// A place for a session from this address, if there is one or a stranger gives way.
    pub fn enter(&self, share: Share, address: IpAddr, bounds: &Bounds) -> Option<Place> {
        let network = Network::of(address);
        let mut table = self.table();
        let counts = table.networks.get(&network).copied().unwrap_or_default();
        if counts.all >= bounds.sessions_per_address {
            return None;
        }
        let strangers = table.strangers.range((share, 0)..=(share, u64::MAX)).count();
        let strangers_max = (bounds.sessions * bounds.strangers_percent / 100).max(1);
        if counts.strangers >= bounds.strangers_per_address {
            table.stranger_gives_way(share, Some(network), network)?;
        } else if strangers >= strangers_max || table.seats.len() >= bounds.sessions {
            table.stranger_gives_way(share, None, network)?;
        }
        table.next += 1;
        let seat = Arc::new(Seat {
            number: table.next,
            share,
            network,
            heard_ms: AtomicU64::new(now_ms()),
            waits: AtomicBool::new(false),
            account: OnceLock::new(),
            message_began_ms: AtomicU64::new(0),
            message_bytes: AtomicU64::new(0),
            leave: Notify::new(),
            told_to_leave: AtomicBool::new(false),
            revoked: AtomicBool::new(false),
        });
        table.seats.insert(seat.number, Arc::clone(&seat));
        table.strangers.insert((share, seat.number), Arc::clone(&seat));
        let counts = table.networks.entry(network).or_default();
        counts.all += 1;
        counts.strangers += 1;
        table.tell();
        Some(Place { held: Arc::new(Held { places: self.clone(), seat }) })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The client said something that is whole: a command, or a piece of a message.
    pub fn heard(&self) {
        self.held.seat.heard_ms.store(now_ms(), Ordering::Relaxed);
    }

    /// The session waits for its client, or does something for it.
    pub fn set_waits(&self, waits: bool) {
        self.held.seat.waits.store(waits, Ordering::Relaxed);
    }

    /// Waits until this session is to end, and says why. Safe to cancel.
    pub async fn told_to_leave(&self) -> Leave {
        loop {
            if let Some(why) = self.is_to_leave() {
                return why;
            }
            self.held.seat.leave.notified().await;
        }
    }

    /// Why this session is to end, if it is.
    pub fn is_to_leave(&self) -> Option<Leave> {
        let seat = &self.held.seat;
        if seat.revoked.load(Ordering::Acquire) {
            Some(Leave::Revoked)
        } else {
            seat.told_to_leave.load(Ordering::Acquire).then_some(Leave::GivesWay)
        }
    }

    /// The account may not be logged in to any more, or by another password: the session ends.
    pub fn revoke(&self) {
        self.held.seat.revoked.store(true, Ordering::Release);
        self.held.seat.leave.notify_one();
    }

    /// This account has logged in.
    pub fn logged_in(&self, account: MailboxId) {
        // A session logs in once.
        let _ = self.held.seat.account.set(account);
        self.held.places.table().no_stranger(&self.held.seat);
    }

    /// So much of a message has come in.
    pub fn took(&self, bytes: usize) {
        self.held.seat.message_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A message is about to come in; false if too many are, and none that is stalled or slow gives way.
    pub fn begin_message(&self, bounds: &Bounds) -> bool {
        let seat = &self.held.seat;
        let mut table = self.held.places.table();
        if table.senders.contains_key(&seat.number) || !table.seats.contains_key(&seat.number) {
            return true;
        }
        let part = bounds.messages / MESSAGE_PARTS;
        let count = |like: &dyn Fn(&Seat) -> bool| table.senders.values().filter(|other| like(other)).count();
        let of_account = |other: &Seat| seat.account.get().is_some() && other.account.get() == seat.account.get();
        let of_kind = |other: &Seat| other.is_relay() == seat.is_relay();
        let of_network = |other: &Seat| other.network == seat.network;
        // The narrowest bound that is reached: whoever gives way is among those.
        let among: Option<&dyn Fn(&Seat) -> bool> = if count(&of_account) >= part.max(1) {
            Some(&of_account)
        } else if table.networks.get(&seat.network).is_some_and(|of| of.senders >= bounds.messages_per_address) {
            Some(&of_network)
        } else if count(&of_kind) >= bounds.messages - part {
            Some(&of_kind)
        } else if table.senders.len() >= bounds.messages {
            Some(&|_: &Seat| true)
        } else {
            None
        };
        if among.is_some_and(|among| table.sender_gives_way(among, seat.network).is_none()) {
            return false;
        }
        seat.message_began_ms.store(now_ms(), Ordering::Relaxed);
        seat.message_bytes.store(0, Ordering::Relaxed);
        table.senders.insert(seat.number, Arc::clone(seat));
        if let Some(counts) = table.networks.get_mut(&seat.network) {
            counts.senders += 1;
        }
        true
    }

    /// The message is whole and has its answer, or is dropped.
    pub fn end_message(&self) {
        self.held.places.table().no_sender(&self.held.seat);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut table = self.places.table();
        if self.seat.told_to_leave.load(Ordering::Acquire) {
            table.leaving -= 1;
        }
        table.remove(&self.seat);
    }
}

impl Table {
    /// Tells a silent stranger of this service, and of this network if one is named, to leave: of the network that has
    /// most of them (the newcomer's is one more), the one that was silent for longest. None if nobody can.
    fn stranger_gives_way(&mut self, share: Share, among: Option<Network>, newcomer: Network) -> Option<()> {
        let strangers = self.strangers.range((share, 0)..=(share, u64::MAX)).map(|(_, seat)| seat);
        let silent = strangers.filter(|seat| seat.is_silent_for(STRANGER_GIVES_WAY_AFTER));
        let weight = |counts: Counts| counts.strangers;
        let among = silent.filter(|seat| among.is_none_or(|network| seat.network == network));
        let seat = self.heaviest(among, newcomer, weight, Seat::silent_for)?;
        self.tell_to_leave(&seat)
    }

    /// The same among those that are in the middle of a message: one that is silent for long, or else one that is slow.
    fn sender_gives_way(&mut self, among: &dyn Fn(&Seat) -> bool, newcomer: Network) -> Option<()> {
        let like = |seat: &&Arc<Seat>| among(seat);
        let silent = self.senders.values().filter(like).filter(|seat| seat.is_silent_for(SENDER_GIVES_WAY_AFTER));
        let weight = |counts: Counts| counts.senders;
        let seat = self.heaviest(silent, newcomer, weight, Seat::silent_for).or_else(|| {
            let slow = self.senders.values().filter(like).filter(|seat| seat.is_slow());
            self.heaviest(slow, newcomer, weight, Seat::sending_for)
        })?;
        self.tell_to_leave(&seat)
    }

    /// Of the network that has most of them, the one for which that has lasted longest.
    fn heaviest<'a>(
        &self,
        seats: impl Iterator<Item = &'a Arc<Seat>>,
        newcomer: Network,
        weight: impl Fn(Counts) -> usize,
        lasted: impl Fn(&Seat) -> Duration,
    ) -> Option<Arc<Seat>> {
        let weight = |seat: &Seat| {
            let counts = self.networks.get(&seat.network).copied().unwrap_or_default();
            weight(counts) + usize::from(seat.network == newcomer)
        };
        seats.max_by_key(|seat| (weight(seat), lasted(seat))).cloned()
    }

    fn tell_to_leave(&mut self, seat: &Arc<Seat>) -> Option<()> {
        if self.leaving >= LEAVING_MAX {
            return None;
        }
        self.leaving += 1;
        self.remove(seat);
        seat.told_to_leave.store(true, Ordering::Release);
        seat.leave.notify_one();
        ::metrics::counter!("mailraft_sessions_gave_way_total").increment(1);
        Some(())
    }

    fn no_stranger(&mut self, seat: &Seat) {
        if self.strangers.remove(&(seat.share, seat.number)).is_some()
            && let Some(counts) = self.networks.get_mut(&seat.network)
        {
            counts.strangers -= 1;
        }
        self.tell();
    }

    fn no_sender(&mut self, seat: &Seat) {
        if self.senders.remove(&seat.number).is_some()
            && let Some(counts) = self.networks.get_mut(&seat.network)
        {
            counts.senders -= 1;
        }
    }

    fn remove(&mut self, seat: &Seat) {
        self.no_stranger(seat);
        self.no_sender(seat);
        if self.seats.remove(&seat.number).is_some()
            && let Some(counts) = self.networks.get_mut(&seat.network)
        {
            counts.all -= 1;
            if counts.all == 0 {
                self.networks.remove(&seat.network);
            }
        }
        self.tell();
    }

    fn tell(&self) {
        ::metrics::gauge!("mailraft_sessions").set(self.seats.len() as f64);
        ::metrics::gauge!("mailraft_sessions_strangers").set(self.strangers.len() as f64);
        ::metrics::gauge!("mailraft_messages_incoming").set(self.senders.len() as f64);
    }
}

impl Seat {
    fn silent_for(&self) -> Duration {
        Duration::from_millis(now_ms().saturating_sub(self.heard_ms.load(Ordering::Relaxed)))
    }

    /// Whether it brings mail of other servers.
    fn is_relay(&self) -> bool {
        self.share == Share::Relay
    }

    /// How long its message has been under way.
    fn sending_for(&self) -> Duration {
        Duration::from_millis(now_ms().saturating_sub(self.message_began_ms.load(Ordering::Relaxed)))
    }

    /// Whether its client keeps it waiting, and its message comes slowly.
    fn is_slow(&self) -> bool {
        let (for_, bytes) = (self.sending_for(), self.message_bytes.load(Ordering::Relaxed));
        let ms = u64::try_from(for_.as_millis()).unwrap_or(u64::MAX);
        self.waits.load(Ordering::Relaxed)
            && for_ >= SLOW_GIVES_WAY_AFTER
            && bytes.saturating_mul(1_000) < ms.saturating_mul(SLOW_BYTES_PER_SECOND)
    }

    fn is_silent_for(&self, least: Duration) -> bool {
        self.waits.load(Ordering::Relaxed) && self.silent_for() >= least
    }
}

/// Milliseconds of a clock that never goes back. It begins an hour before its first use, so that tests can look back.
fn now_ms() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let since = FIRST.get_or_init(Instant::now).elapsed() + Duration::from_secs(3_600);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BOUNDS: Bounds = Bounds {
        sessions: 20,
        sessions_per_address: 8,
        strangers_percent: 25,
        strangers_per_address: 4,
        messages: 3,
        messages_per_address: 2,
    };

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// As if it had been silent for so long.
    fn silent(place: &Place, for_: Duration) {
        place.set_waits(true);
        let then = now_ms() - u64::try_from(for_.as_millis()).unwrap();
        place.held.seat.heard_ms.store(then, Ordering::Relaxed);
    }

    #[test]
    fn an_ipv6_host_is_its_network_of_64_bits_and_a_mapped_address_is_ipv4() {
        let of = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::7"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(
            (of("2001:db8::9").to_string(), of("192.0.2.1").to_string()),
            ("2001:db8::/64".into(), "192.0.2.1".into())
        );
    }

    #[test]
    fn places_are_bounded_in_all_by_share_and_by_address_and_come_back() {
        let places = Places::default();
        let from = |last| places.enter(Share::Relay, address(last), &BOUNDS);
        let mut held: Vec<Place> = (0..4).map(|_| from(1).unwrap()).collect();
        assert!(from(1).is_none(), "strangers of one address");
        held.push(from(2).unwrap());
        assert!(from(3).is_none(), "strangers of one service: a quarter of all");
        let imap = places.enter(Share::Imap, address(1), &BOUNDS);
        assert!(imap.is_none(), "an address has so many strangers, wherever");
        let mut members = Vec::new();
        for last in 10..25 {
            let member = places.enter(Share::Imap, address(last), &BOUNDS).unwrap();
            member.logged_in(MailboxId([last; 16]));
            members.push(member);
        }
        assert_eq!(places.open(), 20);
        assert!(places.enter(Share::Imap, address(30), &BOUNDS).is_none(), "in all");
        held.clear();
        assert!(from(1).is_some());
        for n in 0..4 {
            let member = places.enter(Share::Imap, address(10), &BOUNDS);
            member.as_ref().unwrap().logged_in(MailboxId([9; 16]));
            members.extend(member);
            assert!(members.len() == 16 + n);
        }
        drop(members);
        assert_eq!(places.open(), 0);
    }

    #[test]
    fn an_idle_stranger_of_the_heaviest_network_gives_way_and_nobody_who_is_served_does() {
        let places = Places::default();
        let from = |last| places.enter(Share::Relay, address(last), &BOUNDS);
        let heavy: Vec<Place> = (0..4).map(|_| from(1).unwrap()).collect();
        let light = from(2).unwrap();
        silent(&light, Duration::from_secs(60));
        assert!(from(3).is_some(), "the only silent one");
        assert!(light.held.places.table().leaving == 1);
        // The newcomer's place is free again, so that the share has room for one.
        let light = from(2).unwrap();
        assert!(from(3).is_none(), "nobody is silent");
        silent(&light, Duration::from_secs(60));
        silent(&heavy[2], Duration::from_secs(3));
        silent(&heavy[1], Duration::from_secs(5));
        let newcomer = from(3).unwrap();
        let gone = |place: &Place| !places.table().seats.contains_key(&place.held.seat.number);
        assert!(gone(&heavy[1]) && !gone(&heavy[2]) && !gone(&light), "of the heaviest, the one silent for longest");
        drop((heavy, light, newcomer));
        assert_eq!((places.open(), places.table().networks.len()), (0, 0));
    }

    #[test]
    fn messages_on_their_way_are_bounded_and_a_stalled_one_gives_way() {
        let places = Places::default();
        let from = |last| places.enter(Share::Submission, address(last), &BOUNDS).unwrap();
        let (a, b, c, d) = (from(1), from(1), from(2), from(3));
        assert!(a.begin_message(&BOUNDS) && b.begin_message(&BOUNDS) && c.begin_message(&BOUNDS));
        assert!(!d.begin_message(&BOUNDS), "in all");
        c.end_message();
        assert!(d.begin_message(&BOUNDS) && d.begin_message(&BOUNDS), "it is counted once");
        d.end_message();
        let e = from(1);
        assert!(!e.begin_message(&BOUNDS), "of one address");
        silent(&a, Duration::from_secs(5));
        assert!(!e.begin_message(&BOUNDS), "a slow network is not a stalled one");
        silent(&b, Duration::from_secs(11));
        assert!(e.begin_message(&BOUNDS));
        assert_eq!(places.table().senders.len(), 2);
    }

    /// As if its message had been under way for so long, and so much of it had come.
    fn slow(place: &Place, for_: Duration, bytes: usize) {
        place.set_waits(true);
        let then = now_ms() - u64::try_from(for_.as_millis()).unwrap();
        place.held.seat.message_began_ms.store(then, Ordering::Relaxed);
        place.took(bytes);
    }

    #[test]
    fn where_places_are_short_a_message_that_is_slow_and_never_silent_gives_way_and_a_quick_one_does_not() {
        let bounds = Bounds { strangers_percent: 100, sessions: 40, messages: 3, ..BOUNDS };
        let places = Places::default();
        let from = |last| places.enter(Share::Relay, address(last), &bounds).unwrap();
        let (young, quick, drips) = (from(1), from(2), from(3));
        assert!([&young, &quick, &drips].iter().all(|place| place.begin_message(&bounds)));
        slow(&young, Duration::from_secs(4), 0);
        slow(&quick, Duration::from_secs(600), 600 * (64 << 10));
        let newcomer = from(4);
        assert!(!newcomer.begin_message(&bounds), "nobody is slow yet");
        slow(&drips, Duration::from_secs(6), 6 * 6_000);
        drips.set_waits(false);
        assert!(!newcomer.begin_message(&bounds), "it waits for the mailbox, not for its client");
        drips.set_waits(true);
        assert!(newcomer.begin_message(&bounds));
        assert_eq!(drips.is_to_leave(), Some(Leave::GivesWay));
        assert!(young.is_to_leave().is_none() && quick.is_to_leave().is_none());
    }

    #[test]
    fn an_account_has_a_quarter_of_the_places_for_messages_and_strangers_leave_one_to_who_logged_in() {
        let bounds = Bounds { strangers_percent: 100, sessions: 90, messages: 8, ..BOUNDS };
        let places = Places::default();
        let enter = |share, last| places.enter(share, address(last), &bounds).unwrap();
        let member = |last: u8, account: u8| {
            let place = enter(Share::Submission, last);
            place.logged_in(MailboxId([account; 16]));
            place
        };
        let own: Vec<Place> = (1..=3).map(|last| member(last, 1)).collect();
        assert_eq!(own.iter().map(|place| place.begin_message(&bounds)).collect::<Vec<_>>(), [true, true, false]);
        slow(&own[0], Duration::from_secs(6), 0);
        assert!(own[2].begin_message(&bounds) && own[0].is_to_leave().is_some(), "its own gives way");
        let strangers: Vec<Place> = (10..17).map(|last| enter(Share::Relay, last)).collect();
        let began = strangers.iter().filter(|place| place.begin_message(&bounds)).count();
        assert_eq!(began, 6);
        let other = member(30, 2);
        slow(&own[1], Duration::from_secs(60), 0);
        slow(&strangers[0], Duration::from_secs(9), 0);
        assert!(other.begin_message(&bounds) && own[1].is_to_leave().is_some(), "all are taken: of all the slowest");
        assert!(strangers[6].begin_message(&bounds) && strangers[0].is_to_leave().is_some(), "of theirs");
    }

    #[tokio::test]
    async fn who_is_to_leave_hears_it_whenever_it_asks() {
        let places = Places::default();
        let bounds = Bounds { strangers_per_address: 1, ..BOUNDS };
        let first = places.enter(Share::Imap, address(1), &bounds).unwrap();
        first.set_waits(true);
        let told = first.clone();
        let hears = tokio::spawn(async move { told.told_to_leave().await });
        places.table().tell_to_leave(&first.held.seat.clone()).unwrap();
        assert_eq!(hears.await.unwrap(), Leave::GivesWay);
        assert_eq!(first.told_to_leave().await, Leave::GivesWay);
        first.revoke();
        assert_eq!(first.is_to_leave(), Some(Leave::Revoked));
        drop(first);
        assert_eq!(places.table().leaving, 0);
    }
}
