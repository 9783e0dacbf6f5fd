//! Questions to the DNS: by the resolvers of the configuration or of the machine, each answer within a deadline, answers
//! kept within a bound of bytes.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use mailraft_sender_auth::{Dns, NoAnswer, Question, Record};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::dns_turns::{Asker, OF_A_MESSAGE_MAX, QUESTIONS_AT_ONCE, Turns};
use crate::places::Network;

/// Where the machine's resolvers stand.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The port of the DNS.
const DNS_PORT: u16 = 53;
/// Resolvers that are asked.
pub const RESOLVERS_MAX: usize = 3;
/// A resolver is waited for this long, then asked once more, or another one.
const RESOLVER_MAX: Duration = Duration::from_secs(3);
/// Answers that are kept, in bytes.
const CACHE_MAX_BYTES: usize = 8 << 20;
/// The longest answer that is taken, in bytes; what is longer is none.
pub(crate) const ANSWER_MAX_BYTES: usize = 32 << 10;
/// What an answer takes beside its octets, in bytes.
const ENTRY_BYTES: usize = 256;
/// An answer is kept no longer than this, whatever its records say.
const KEPT_MAX: Duration = Duration::from_secs(3_600);
/// That there is nothing is kept no longer than this.
const NOTHING_KEPT_MAX: Duration = Duration::from_secs(300);
/// That a question was not answered is kept for this long (RFC 9520, section 3.2). Of this question alone and not of its
/// domain: whoever asks for silent names below another's domain keeps no other name of it from being asked.
const SILENCE_KEPT: Duration = Duration::from_secs(5);

/// Asks the DNS; clones share what it keeps.
#[derive(Clone)]
pub struct Resolver {
    inner: TokioResolver,
    cache: Arc<Mutex<Cache>>,
    turns: Turns,
}

/// The DNS until a deadline: from then on it does not answer.
pub struct Until<'a> {
    resolver: &'a Resolver,
    deadline: Instant,
    asker: Asker,
    /// What is asked about one message at once.
    asking: Semaphore,
}

/// What is asked about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// A and AAAA records.
    Address,
    /// MX records.
    Mx,
    /// SRV records.
    Srv,
    /// TXT records, the strings of each joined.
    Txt,
}

/// What the DNS said, or that it said nothing.
type Answer = Result<Arc<[Record]>, NoAnswer>;

/// Answers that are kept, the oldest first to go.
#[derive(Default)]
struct Cache {
    answers: HashMap<Question, (Instant, Answer)>,
    /// In the order in which they came, with what each takes; an answer that was replaced stands here twice.
    order: VecDeque<(Question, usize)>,
    bytes: usize,
}

impl Resolver {
    /// Asks these, or the machine's if there are none. None if that has none either.
    ///
    /// # Errors
    /// One sentence if they can't be asked.
    pub fn new(resolvers: &[SocketAddr]) -> Result<Option<Self>, String> {
        let servers = those_asked(resolvers);
        if servers.is_empty() {
            return Ok(None);
        }
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(|at| server(*at)).collect());
        let options = options();
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let inner = builder.with_options(options).build().map_err(|e| format!("the DNS can't be asked: {e}"))?;
        Ok(Some(Resolver { inner, cache: Arc::default(), turns: Turns::default() }))
    }

    /// The DNS until then, for mail that leaves the cluster.
    pub fn until(&self, deadline: Instant) -> Until<'_> {
        self.until_for(deadline, None)
    }

    /// The DNS until then, about one message of this client.
    pub fn until_of(&self, deadline: Instant, client: IpAddr) -> Until<'_> {
        self.until_for(deadline, Some(Network::of(client).wide()))
    }

    fn until_for(&self, deadline: Instant, asker: Asker) -> Until<'_> {
        Until { resolver: self, deadline, asker, asking: Semaphore::new(OF_A_MESSAGE_MAX) }
    }

    /// What stands at a name now, whatever was kept of it: values as a zone file has them, text without quotes.
    ///
    /// # Errors
    /// If the DNS does not answer by then, or with more than [`ANSWER_MAX_BYTES`].
    pub async fn values(&self, name: &str, kind: ValueKind, deadline: Instant) -> Result<Vec<String>, NoAnswer> {
        let kinds: &[RecordType] = match kind {
            ValueKind::Address => &[RecordType::A, RecordType::AAAA],
            ValueKind::Mx => &[RecordType::MX],
            ValueKind::Srv => &[RecordType::SRV],
            ValueKind::Txt => &[RecordType::TXT],
        };
        // Turns are counted by name, whatever is asked about it.
        let counted = Question::Txt(name.to_owned());
        let mut values = Vec::new();
        for kind in kinds {
            // A timer comes a little late: an answer from this machine would be there before it.
            if Instant::now() >= deadline {
                return Err(NoAnswer);
            }
            let asked = async {
                let _turn = self.turns.take(None, &counted).await;
                match self.inner.lookup(labels(name)?, *kind).await {
                    Ok(lookup) => Ok(lookup.answers().iter().filter_map(|r| value(&r.data, *kind)).collect()),
                    Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Ok(Vec::new()),
                    Err(_) => Err(NoAnswer),
                }
            };
            let found: Vec<String> = timeout_at(deadline, asked).await.map_err(|_| NoAnswer)??;
            values.extend(found);
            if values.iter().map(String::len).sum::<usize>() > ANSWER_MAX_BYTES {
                return Err(NoAnswer);
            }
        }
        Ok(values)
    }

    async fn ask(&self, question: &Question, until: &Until<'_>) -> Answer {
        let count = |result: &'static str| {
            ::metrics::counter!("mailraft_dns_questions_total", "result" => result).increment(1);
        };
        let kept = || self.cache().get(question, Instant::now()).inspect(|_| count("kept"));
        if let Some(kept) = kept() {
            return kept;
        }
        if Instant::now() >= until.deadline {
            return Err(NoAnswer);
        }
        let asked = async {
            let _of_message = until.asking.acquire().await.map_err(|_| NoAnswer)?;
            let _turn = self.turns.take(until.asker, question).await;
            // Others may have asked the same meanwhile.
            match kept() {
                Some(kept) => kept.map(|records| (records, Duration::ZERO)),
                None => self.look_up(question).await.map(|(records, kept_for)| (records.into(), kept_for)),
            }
        };
        let Ok(answer) = timeout_at(until.deadline, asked).await else {
            count("none");
            return Err(NoAnswer);
        };
        let (answer, kept_for) = match answer {
            Ok((records, kept_for)) => (Ok(records), kept_for),
            Err(NoAnswer) => (Err(NoAnswer), SILENCE_KEPT),
        };
        count(if answer.is_ok() { "answered" } else { "none" });
        if !kept_for.is_zero() {
            let mut cache = self.cache();
            cache.keep(question.clone(), Instant::now() + kept_for, answer.clone());
            ::metrics::gauge!("mailraft_dns_kept_bytes").set(cache.bytes as f64);
        }
        answer
    }

    /// The records, and how long they may be kept.
    async fn look_up(&self, question: &Question) -> Result<(Vec<Record>, Duration), NoAnswer> {
        let (name, kind) = match question {
            Question::Txt(name) => (labels(name)?, RecordType::TXT),
            Question::Mx(name) => (labels(name)?, RecordType::MX),
            Question::A(name) => (labels(name)?, RecordType::A),
            Question::Aaaa(name) => (labels(name)?, RecordType::AAAA),
            Question::Ptr(address) => (arpa(*address), RecordType::PTR),
        };
        match self.inner.lookup(name, kind).await {
            Ok(lookup) => {
                let kept_for = lookup.valid_until().saturating_duration_since(std::time::Instant::now());
                let records: Vec<Record> = lookup.answers().iter().filter_map(|r| record(&r.data, kind)).collect();
                let size: usize = records.iter().map(size_bytes).sum();
                if size > ANSWER_MAX_BYTES { Err(NoAnswer) } else { Ok((records, kept_for.min(KEPT_MAX))) }
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => {
                let kept_for = Duration::from_secs(u64::from(nothing.negative_ttl.unwrap_or(0)));
                Ok((Vec::new(), kept_for.min(NOTHING_KEPT_MAX)))
            }
            Err(error) => {
                tracing::debug!(%error, "the DNS did not answer");
                Err(NoAnswer)
            }
        }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dns for Until<'_> {
    async fn ask(&self, question: &Question) -> Result<Vec<Record>, NoAnswer> {
        self.resolver.ask(question, self).await.map(|records| records.to_vec())
    }
}

impl Cache {
    fn get(&self, question: &Question, now: Instant) -> Option<Answer> {
        self.answers.get(question).filter(|(until, _)| now < *until).map(|(_, answer)| answer.clone())
    }

    fn keep(&mut self, question: Question, until: Instant, answer: Answer) {
        let records = answer.iter().flat_map(|records| records.iter());
        let size = ENTRY_BYTES + 2 * question_bytes(&question) + records.map(size_bytes).sum::<usize>();
        self.answers.insert(question.clone(), (until, answer));
        self.order.push_back((question, size));
        self.bytes += size;
        while self.bytes > CACHE_MAX_BYTES {
            let Some((oldest, size)) = self.order.pop_front() else { break };
            self.answers.remove(&oldest);
            self.bytes -= size;
        }
    }
}

fn question_bytes(question: &Question) -> usize {
    match question {
        Question::Txt(name) | Question::Mx(name) | Question::A(name) | Question::Aaaa(name) => name.len(),
        Question::Ptr(_) => 16,
    }
}

fn size_bytes(record: &Record) -> usize {
    let octets = match record {
        Record::Txt(text) => text.len(),
        Record::Mx { exchange, .. } => exchange.len(),
        Record::A(_) | Record::Aaaa(_) => 0,
        Record::Ptr(name) => name.len(),
    };
    octets + size_of::<Record>()
}

/// These resolvers, or the machine's if there are none; none if that has none either.
pub(crate) fn those_asked(resolvers: &[SocketAddr]) -> Vec<SocketAddr> {
    match resolvers {
        [] => std::fs::read_to_string(RESOLV_CONF).map(|text| of_resolv_conf(&text)).unwrap_or_default(),
        named => named.to_vec(),
    }
}

/// How all resolvers are asked.
pub(crate) fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = RESOLVER_MAX;
    options.attempts = 1;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.max_active_requests = QUESTIONS_AT_ONCE;
    options
}

pub(crate) fn server(at: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(at.ip());
    server.connections.iter_mut().for_each(|connection: &mut ConnectionConfig| connection.port = at.port());
    server
}

/// A name of whatever octets, label by label: SPF's macros make names of what a sender wrote.
pub(crate) fn labels(name: &str) -> Result<Name, NoAnswer> {
    let labels = name.trim_end_matches('.').split('.').map(str::as_bytes);
    let mut name = Name::from_labels(labels).map_err(|_| NoAnswer)?;
    name.set_fqdn(true);
    Ok(name)
}

fn arpa(address: IpAddr) -> Name {
    let mut name = Name::from(address.to_canonical());
    name.set_fqdn(true);
    name
}

/// A record of the kind that was asked for; others come beside them.
fn record(data: &RData, kind: RecordType) -> Option<Record> {
    let record = match data {
        RData::TXT(txt) => Record::Txt(txt.txt_data.concat()),
        RData::MX(mx) => Record::Mx { preference: mx.preference, exchange: text(&mx.exchange) },
        RData::A(a) => Record::A(a.0),
        RData::AAAA(aaaa) => Record::Aaaa(aaaa.0),
        RData::PTR(ptr) => Record::Ptr(text(&ptr.0)),
        // Aliases on the way, which the resolver has followed, and what was not asked for.
        _ => return None,
    };
    (data.record_type() == kind).then_some(record)
}

/// The value of a record of this kind as a zone file has it.
fn value(data: &RData, kind: RecordType) -> Option<String> {
    let value = match data {
        RData::TXT(txt) => String::from_utf8_lossy(&txt.txt_data.concat()).into_owned(),
        RData::MX(mx) => format!("{} {}", mx.preference, text(&mx.exchange)),
        RData::SRV(srv) => format!("{} {} {} {}", srv.priority, srv.weight, srv.port, text(&srv.target)),
        RData::A(a) => a.0.to_string(),
        RData::AAAA(aaaa) => aaaa.0.to_string(),
        // Aliases on the way, which the resolver has followed, and what was not asked for.
        _ => return None,
    };
    (data.record_type() == kind).then_some(value)
}

pub(crate) fn text(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

/// The resolvers that a resolv.conf(5) names.
fn of_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        Some(SocketAddr::new(address.parse().ok()?, DNS_PORT))
    };
    text.lines().filter_map(address).take(RESOLVERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::{Message, MessageType};

    use super::*;
    use crate::dns_turns::{OF_A_DOMAIN_MAX, OF_A_NETWORK_MAX};

    #[test]
    fn the_machines_resolvers_are_those_of_its_file() {
        let text = "# nameserver 192.0.2.9\nsearch a.test\nnameserver 192.0.2.1\nnameserver ::1 \noptions edns0\n\
                    nameserver fe80::1%eth0\nnameserver nowhere\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        let expected = ["192.0.2.1:53", "[::1]:53", "192.0.2.3:53"];
        assert_eq!(of_resolv_conf(text), expected.map(|at| at.parse::<SocketAddr>().unwrap()));
        assert!(of_resolv_conf("").is_empty());
    }

    #[test]
    fn names_may_have_any_octets_and_their_labels_are_bounded() {
        let name = labels("a b.c%d.test.").ok().unwrap();
        assert_eq!((name.iter().count(), name.is_fqdn()), (3, true));
        assert!(labels(&format!("{}.test", "x".repeat(64))).is_err());
        assert!(labels("a..test").is_err());
        let address = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(text(&arpa(address)), "1.2.0.192.in-addr.arpa");
    }

    #[test]
    fn answers_are_kept_within_a_bound_of_bytes() {
        let mut cache = Cache::default();
        let now = Instant::now();
        let until = now + Duration::from_secs(60);
        let question = |n: usize| Question::Txt(format!("n{n}.test"));
        let records: Arc<[Record]> = [Record::Txt(vec![b'x'; 10_000])].into();
        for n in 0..2_000 {
            cache.keep(question(n), until, Ok(Arc::clone(&records)));
            assert!(cache.bytes <= CACHE_MAX_BYTES);
        }
        assert!(cache.answers.len() > CACHE_MAX_BYTES / 20_000 && cache.answers.len() < CACHE_MAX_BYTES / 10_000);
        assert!(cache.get(&question(0), now).is_none() && cache.get(&question(1_999), now).is_some());
        assert!(cache.get(&question(1_999), until).is_none(), "it is kept no longer than it may be");
        // One name that is asked for again and again takes no more.
        for _ in 0..100_000 {
            cache.keep(question(0), until, Ok([].into()));
        }
        assert!(cache.order.len() * ENTRY_BYTES <= CACHE_MAX_BYTES && cache.bytes <= CACHE_MAX_BYTES);
    }

    #[tokio::test]
    async fn a_resolver_that_says_nothing_is_waited_for_until_the_deadline() {
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let resolver = Resolver::new(&[silent.local_addr().unwrap()]).unwrap().unwrap();
        let dns = resolver.until(Instant::now() + Duration::from_millis(50));
        assert_eq!(Dns::ask(&dns, &Question::A("a.test".into())).await, Err(NoAnswer));
        let mut asked = 0;
        while silent.try_recv(&mut [0; 512]).is_ok() {
            asked += 1;
        }
        assert!(asked > 0);
        // From then on nothing is asked at all.
        assert_eq!(Dns::ask(&dns, &Question::A("b.test".into())).await, Err(NoAnswer));
        tokio::task::yield_now().await;
        assert!(silent.try_recv(&mut [0; 512]).is_err());
    }

    /// A server that says nothing about names below `silent.` and some registered domains, and of others that they are there.
    async fn half_silent() -> SocketAddr {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut packet = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                let mut asked = Message::from_vec(&packet[..length]).unwrap();
                if asked.queries[0].name().to_ascii().contains("honest") {
                    // That there is nothing is an answer, too.
                    asked.metadata.message_type = MessageType::Response;
                    socket.send_to(&asked.to_vec().unwrap(), from).await.unwrap();
                }
            }
        });
        at
    }

    /// Asks about messages of these clients all at once, whatever they get.
    fn attack(resolver: &Resolver, clients: impl Iterator<Item = IpAddr>, name: impl Fn(usize, usize) -> String) {
        for (message, client) in clients.enumerate() {
            let names: Vec<String> = (0..40).map(|n| name(message, n)).collect();
            let resolver = resolver.clone();
            tokio::spawn(async move {
                let dns = resolver.until_of(Instant::now() + Duration::from_secs(10), client);
                let questions: Vec<Question> = names.into_iter().map(Question::Txt).collect();
                futures::future::join_all(questions.iter().map(|question| Dns::ask(&dns, question))).await;
            });
        }
    }

    /// How long it takes until a message with twelve questions, one after another, has its answers.
    async fn honest(resolver: &Resolver) -> Duration {
        let begun = Instant::now();
        let dns = resolver.until_of(begun + Duration::from_secs(10), [198, 51, 100, 7].into());
        for n in 0..12 {
            let question = Question::Txt(format!("n{n}.honest.test"));
            assert_eq!(Dns::ask(&dns, &question).await, Ok(Vec::new()));
        }
        begun.elapsed()
    }

    async fn until_full(resolver: &Resolver, asked: usize) {
        while resolver.turns.asked() < asked {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_asks_for_many_silent_domains_from_one_network_keeps_no_other_waiting() {
        let resolver = Resolver::new(&[half_silent().await]).unwrap().unwrap();
        let clients = (0..60).map(|n| IpAddr::from([192, 0, 2, n]));
        attack(&resolver, clients, |message, n| format!("s._domainkey.d{n}-{message}.test"));
        until_full(&resolver, OF_A_NETWORK_MAX).await;
        let took = honest(&resolver).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert_eq!(resolver.turns.asked(), OF_A_NETWORK_MAX);
    }

    #[tokio::test]
    async fn who_asks_for_one_silent_domain_from_many_networks_keeps_no_other_waiting() {
        let resolver = Resolver::new(&[half_silent().await]).unwrap().unwrap();
        let clients = (0..60).map(|n| IpAddr::from([192, 0, n, 1]));
        attack(&resolver, clients, |message, n| format!("s{n}-{message}._domainkey.silent.test"));
        until_full(&resolver, OF_A_DOMAIN_MAX).await;
        let took = honest(&resolver).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert_eq!(resolver.turns.asked(), OF_A_DOMAIN_MAX);
    }

    #[tokio::test]
    async fn one_message_asks_so_much_at_once() {
        let resolver = Resolver::new(&[half_silent().await]).unwrap().unwrap();
        attack(&resolver, std::iter::once([192, 0, 2, 1].into()), |_, n| format!("d{n}.test"));
        until_full(&resolver, OF_A_MESSAGE_MAX).await;
        assert_eq!(honest(&resolver).await.as_secs(), 0);
        assert_eq!(resolver.turns.asked(), OF_A_MESSAGE_MAX);
    }

    #[tokio::test]
    async fn what_was_not_answered_is_not_asked_again_for_a_while_and_other_names_are() {
        let resolver = Resolver::new(&["127.0.0.1:1".parse().unwrap()]).unwrap().unwrap();
        let dns = resolver.until(Instant::now() + Duration::from_secs(60));
        let question = Question::Txt("a.test".into());
        assert_eq!(Dns::ask(&dns, &question).await, Err(NoAnswer));
        let kept = |question: &Question, after| resolver.cache().get(question, Instant::now() + after);
        assert_eq!(kept(&question, Duration::ZERO), Some(Err(NoAnswer)));
        assert_eq!(kept(&question, SILENCE_KEPT), None);
        assert_eq!(kept(&Question::Txt("b.a.test".into()), Duration::ZERO), None);
        assert_eq!(resolver.turns.asked(), 0);
    }

    #[tokio::test]
    async fn what_stands_at_a_name_is_told_as_a_zone_has_it_and_asked_anew() {
        use hickory_resolver::proto::op::ResponseCode;
        use hickory_resolver::proto::rr::rdata::{A, AAAA, MX, SRV, TXT};

        use crate::proved_dns::tests::{name, record, resolver};

        let said = [
            ("a.test", RData::MX(MX::new(10, name("Mx.test")))),
            ("a.test", RData::SRV(SRV::new(0, 1, 993, name("mx.test")))),
            ("a.test", RData::TXT(TXT::new(vec!["v=spf1 ".to_owned(), "mx".to_owned()]))),
            ("a.test", RData::A(A([192, 0, 2, 1].into()))),
            ("a.test", RData::AAAA(AAAA("2001:db8::1".parse().unwrap()))),
        ];
        let said = said.map(|(owner, data)| {
            (owner, data.record_type(), (ResponseCode::NoError, false, vec![record(owner, data)]))
        });
        let (at, asked) = resolver(said.into()).await;
        let resolver = Resolver::new(&[at]).unwrap().unwrap();
        let soon = || Instant::now() + Duration::from_secs(20);
        for (kind, expected) in [
            (ValueKind::Mx, vec!["10 mx.test"]),
            (ValueKind::Srv, vec!["0 1 993 mx.test"]),
            (ValueKind::Txt, vec!["v=spf1 mx"]),
            (ValueKind::Address, vec!["192.0.2.1", "2001:db8::1"]),
            // It is not kept: whoever has just published something asks again.
            (ValueKind::Mx, vec!["10 mx.test"]),
        ] {
            let found = resolver.values("a.test", kind, soon()).await.ok().unwrap();
            assert_eq!(found, expected, "{kind:?}");
        }
        assert_eq!(asked.lock().unwrap().len(), 6);
        assert_eq!(resolver.values("nothing.test", ValueKind::Mx, soon()).await, Ok(Vec::new()));
        assert_eq!(resolver.values("a..test", ValueKind::Mx, soon()).await, Err(NoAnswer));
        let past = Instant::now();
        assert_eq!(resolver.values("a.test", ValueKind::Mx, past).await, Err(NoAnswer));
        assert_eq!(resolver.turns.asked(), 0);
    }
}
