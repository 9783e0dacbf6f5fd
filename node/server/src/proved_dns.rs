//! Questions to the DNS whose answers say whether DNSSEC proves them: where mail for a domain goes, and what DANE says of
//! a server.
//!
//! We validate nothing: a resolver does, and says so by the AD bit (RFC 4035, section 3.2.3). It is believed only if nobody can
//! stand between it and us, so only if all resolvers are on loopback addresses. Nothing is kept: such a resolver keeps it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_resolver::config::ResolverOpts;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use mailraft_outbound::tls::dane::{self, Addresses, Dane, Record, Security, TlsaAnswer};
use mailraft_sender_auth::NoAnswer;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::dns::{ANSWER_MAX_BYTES, labels, options, server, text, those_asked};

/// Questions that are asked at once; more wait, within their deadline.
const QUESTIONS_AT_ONCE: usize = 64;
/// Hosts of one answer that are taken, the preferred ones first.
pub const HOSTS_MAX: usize = 32;
/// Addresses of one host that are taken, of each kind.
pub const ADDRESSES_MAX: usize = 16;
/// An answer that is lost is asked for once more, as datagrams get lost.
const TRIES: usize = 2;

/// Asks the DNS for what can be proved; clones share the bound of questions at once.
#[derive(Clone)]
pub struct ProvedDns {
    pool: NameServerPool<TokioRuntimeProvider>,
    is_believed: bool,
    asking: Arc<Semaphore>,
}

/// Where mail for a domain goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MxAnswer {
    /// How much of it is proved.
    pub security: Security,
    /// Preferences and hosts, the preferred first, at most [`HOSTS_MAX`]. An empty name says that no mail is taken (RFC 7505).
    /// None at all: the domain itself is the host (RFC 5321, section 5.1), and what proves that is what proves its addresses, as
    /// one zone has both.
    pub hosts: Vec<(u16, String)>,
}

/// What came.
struct Answer {
    security: Security,
    response: Option<DnsResponse>,
}

impl ProvedDns {
    /// Asks these, or the machine's if there are none. None if that has none either.
    ///
    /// # Errors
    /// One sentence if they can't be asked.
    pub fn new(resolvers: &[SocketAddr]) -> Result<Option<Self>, String> {
        let servers = those_asked(resolvers);
        if servers.is_empty() {
            return Ok(None);
        }
        let is_believed = servers.iter().all(|at| at.ip().is_loopback());
        let mut options: ResolverOpts = options();
        options.max_active_requests = QUESTIONS_AT_ONCE;
        let tls = TlsConfig::new().map_err(|e| format!("the DNS can't be asked: {e}"))?;
        let context = Arc::new(PoolContext::new(options, tls));
        let servers = servers.iter().map(|at| server(*at));
        let pool = NameServerPool::from_config(servers, context, TokioRuntimeProvider::default());
        Ok(Some(ProvedDns { pool, is_believed, asking: Arc::new(Semaphore::new(QUESTIONS_AT_ONCE)) }))
    }

    /// Whether what the resolvers say about DNSSEC counts: if not, DANE applies to nobody.
    pub fn is_believed(&self) -> bool {
        self.is_believed
    }

    /// Whether the resolvers validate, and are believed: the root is signed, so an answer about it is proved. If not, DANE applies
    /// to nobody, which the operator should hear.
    ///
    /// # Errors
    /// If nobody can say now.
    pub async fn validates(&self, deadline: Instant) -> Result<bool, NoAnswer> {
        let answer = self.ask_name(Name::root(), RecordType::SOA, deadline).await?;
        Ok(answer.security == Security::Secure)
    }

    /// Where mail for a domain goes.
    ///
    /// # Errors
    /// If nobody can say now: mail for the domain waits (RFC 5321, section 5.1; RFC 7672, section 2.1.2).
    pub async fn mx(&self, domain: &str, deadline: Instant) -> Result<MxAnswer, NoAnswer> {
        let answer = self.ask(domain, RecordType::MX, deadline).await?;
        let mx = |data: &RData| match data {
            RData::MX(mx) => Some((mx.preference, text(&mx.exchange))),
            _ => None,
        };
        let mut hosts: Vec<(u16, String)> = answer.data().filter_map(mx).collect();
        hosts.sort();
        hosts.truncate(HOSTS_MAX);
        Ok(MxAnswer { security: answer.security, hosts })
    }

    /// The addresses of a host, IPv6 first, and what is proved of them.
    ///
    /// # Errors
    /// If nobody can say now.
    pub async fn addresses(&self, host: &str, deadline: Instant) -> Result<(Vec<IpAddr>, Addresses), NoAnswer> {
        let (v6, v4) =
            tokio::join!(self.ask(host, RecordType::AAAA, deadline), self.ask(host, RecordType::A, deadline));
        let is_lost = v6.is_err() || v4.is_err();
        let mut proved = Addresses { security: Security::Insecure, alias_of: None };
        let mut all = Vec::new();
        for answer in [v6, v4].into_iter().flatten() {
            let address = |data: &RData| match data {
                RData::A(a) => Some(IpAddr::V4(a.0)),
                RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
                _ => None,
            };
            let before = all.len();
            all.extend(answer.data().filter_map(address).take(ADDRESSES_MAX));
            if all.len() > before && answer.security == Security::Secure {
                proved.security = Security::Secure;
                proved.alias_of = answer.alias_of(host).or(proved.alias_of);
            }
        }
        // That there are none is believed only if both answers came.
        if all.is_empty() && is_lost { Err(NoAnswer) } else { Ok((all, proved)) }
    }

    /// What DANE says of a host, given what is proved of who named it and of its addresses (RFC 7672, section 2.2).
    pub async fn dane(&self, mx: Security, host: &str, addresses: &Addresses, port: u16, deadline: Instant) -> Dane {
        for base in dane::bases(mx, host, addresses) {
            let answer = self.tlsa(&dane::record_name(&base, port), deadline).await;
            if let Some(dane) = dane::of_answer(&base, answer) {
                return dane;
            }
        }
        Dane::Absent
    }

    async fn tlsa(&self, name: &str, deadline: Instant) -> TlsaAnswer {
        let Ok(answer) = self.ask(name, RecordType::TLSA, deadline).await else { return TlsaAnswer::Failed };
        let tlsa = |data: &RData| match data {
            RData::TLSA(tlsa) => Some(Record {
                usage: tlsa.cert_usage.into(),
                selector: tlsa.selector.into(),
                matching: tlsa.matching.into(),
                data: tlsa.cert_data.clone(),
            }),
            _ => None,
        };
        TlsaAnswer::Records(answer.security, answer.data().filter_map(tlsa).collect())
    }

    async fn ask(&self, name: &str, kind: RecordType, deadline: Instant) -> Result<Answer, NoAnswer> {
        self.ask_name(labels(name)?, kind, deadline).await
    }

    async fn ask_name(&self, name: Name, kind: RecordType, deadline: Instant) -> Result<Answer, NoAnswer> {
        let query = Query::query(name.clone(), kind);
        let mut request_options = DnsRequestOptions::default();
        request_options.use_edns = true;
        request_options.edns_payload_len = self.pool.context().options.edns_payload_len;
        let mut request = DnsRequest::from_query(query, request_options);
        // That we understand the AD bit (RFC 6840, section 5.7); signatures themselves would only be long.
        request.metadata.authentic_data = true;
        let asked = async {
            let _turn = self.asking.acquire().await.map_err(|_| NoAnswer)?;
            for _ in 0..TRIES {
                match self.pool.send(request.clone()).first_answer().await {
                    Ok(response) => return self.answer(response),
                    Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => return no_records(nothing.response_code),
                    Err(error) => tracing::debug!(%error, %name, "the DNS did not answer"),
                }
            }
            Err(NoAnswer)
        };
        let answer = timeout_at(deadline, asked).await.unwrap_or(Err(NoAnswer));
        let result = if answer.is_ok() { "answered" } else { "none" };
        ::metrics::counter!("mailraft_dns_questions_total", "result" => result).increment(1);
        answer
    }

    fn answer(&self, response: DnsResponse) -> Result<Answer, NoAnswer> {
        if response.as_buffer().len() > ANSWER_MAX_BYTES {
            return Err(NoAnswer);
        }
        let is_proved = self.is_believed && response.metadata.authentic_data;
        match response.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {
                let security = if is_proved { Security::Secure } else { Security::Insecure };
                Ok(Answer { security, response: Some(response) })
            }
            // Failures are errors of the pool; whatever else there is, is no answer.
            _ => Err(NoAnswer),
        }
    }
}

impl Answer {
    fn data(&self) -> impl Iterator<Item = &RData> {
        self.response.iter().flat_map(|response| response.answers.iter()).map(|record| &record.data)
    }

    /// Where an alias leads to: whose the addresses are.
    fn alias_of(&self, host: &str) -> Option<String> {
        let records = self.response.iter().flat_map(|response| response.answers.iter());
        let mut owners = records.filter(|r| matches!(r.data, RData::A(_) | RData::AAAA(_))).map(|r| text(&r.name));
        owners.next().filter(|owner| owner != host)
    }
}

/// That there is nothing, or that the resolver failed to find out: a failure must not look like nothing, as whoever can
/// make a resolver fail would take TLSA records away.
fn no_records(code: ResponseCode) -> Result<Answer, NoAnswer> {
    match code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(Answer { security: Security::Insecure, response: None }),
        _ => Err(NoAnswer),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashMap;
    use std::sync::Mutex;
    use std::time::Duration;

    use hickory_resolver::proto::op::Message;
    use hickory_resolver::proto::rr::Record as DnsRecord;
    use hickory_resolver::proto::rr::rdata::{A, CNAME, MX, SOA, TLSA};
    use mailraft_outbound::tls::dane::Usage;
    use tokio::net::UdpSocket;

    use super::*;

    /// What a resolver says to a question: the code, whether it is proved, and records.
    pub(crate) type Said = (ResponseCode, bool, Vec<DnsRecord>);

    pub(crate) fn name(name: &str) -> Name {
        labels(name).unwrap()
    }

    pub(crate) fn record(owner: &str, data: RData) -> DnsRecord {
        DnsRecord::from_rdata(name(owner), 60, data)
    }

    fn address(owner: &str) -> DnsRecord {
        record(owner, RData::A(A([192, 0, 2, 1].into())))
    }

    fn tlsa(owner: &str) -> DnsRecord {
        record(&dane::record_name(owner, 25), RData::TLSA(TLSA::new(3.into(), 1.into(), 1.into(), vec![7; 32])))
    }

    /// What a resolver was asked: the kind and the name, and whether the answer was to say if it is proved.
    pub(crate) type Asked = Arc<Mutex<Vec<(String, bool)>>>;

    async fn proved(said: Vec<(&'static str, RecordType, Said)>) -> (ProvedDns, Asked) {
        let (at, asked) = resolver(said).await;
        (ProvedDns::new(&[at]).unwrap().unwrap(), asked)
    }

    /// A resolver that says these things, and nothing of any other name; and what it was asked.
    pub(crate) async fn resolver(said: Vec<(&'static str, RecordType, Said)>) -> (SocketAddr, Asked) {
        let said: HashMap<(String, RecordType), Said> =
            said.into_iter().map(|(name, kind, said)| ((name.to_owned(), kind), said)).collect();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut buffer = [0; 4_096];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let question = Message::from_vec(&buffer[..length]).unwrap();
                let query = question.queries[0].clone();
                let key = (text(query.name()), query.query_type());
                heard.lock().unwrap().push((format!("{} {}", key.1, key.0), question.metadata.authentic_data));
                let (code, is_proved, records) =
                    said.get(&key).cloned().unwrap_or((ResponseCode::NXDomain, false, Vec::new()));
                let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
                answer.metadata.response_code = code;
                answer.metadata.authentic_data = is_proved;
                answer.metadata.recursion_desired = true;
                answer.metadata.recursion_available = true;
                answer.add_query(query);
                answer.add_answers(records);
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        (at, asked)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    async fn dane(dns: &ProvedDns, mx: Security, host: &str) -> Result<Dane, NoAnswer> {
        let (_, addresses) = dns.addresses(host, soon()).await?;
        Ok(dns.dane(mx, host, &addresses, 25, soon()).await)
    }

    #[tokio::test]
    async fn what_the_resolver_proves_is_secure_and_the_rest_is_not() {
        let mx = |preference, host: &str| record("b.test", RData::MX(MX::new(preference, name(host))));
        let (dns, asked) = proved(vec![
            ("b.test", RecordType::MX, (ResponseCode::NoError, true, vec![mx(20, "mx2.b.test"), mx(10, "mx.b.test")])),
            ("c.test", RecordType::MX, (ResponseCode::NoError, false, vec![])),
            ("d.test", RecordType::MX, (ResponseCode::ServFail, false, vec![])),
            ("mx.b.test", RecordType::A, (ResponseCode::NoError, true, vec![address("mx.b.test")])),
            ("_25._tcp.mx.b.test", RecordType::TLSA, (ResponseCode::NoError, true, vec![tlsa("mx.b.test")])),
        ])
        .await;
        let answer = dns.mx("b.test", soon()).await.unwrap();
        assert_eq!(answer.security, Security::Secure);
        assert_eq!(answer.hosts, [(10, "mx.b.test".to_owned()), (20, "mx2.b.test".to_owned())]);
        let none = MxAnswer { security: Security::Insecure, hosts: Vec::new() };
        assert_eq!(dns.mx("c.test", soon()).await, Ok(none));
        assert_eq!(dns.mx("d.test", soon()).await, Err(NoAnswer), "a failure is not that there is nothing");
        let (addresses, proved) = dns.addresses("mx.b.test", soon()).await.unwrap();
        assert_eq!((addresses, proved.security), (vec![IpAddr::from([192, 0, 2, 1])], Security::Secure));
        let found = dane(&dns, Security::Secure, "mx.b.test").await.unwrap();
        assert!(
            matches!(found, Dane::Records { records, base } if records[0].usage == Usage::EndEntity && base == "mx.b.test")
        );
        assert!(asked.lock().unwrap().iter().all(|(_, is_proof_wanted)| *is_proof_wanted));
    }

    #[tokio::test]
    async fn no_records_are_asked_for_where_the_zone_is_not_signed() {
        let (dns, asked) = proved(vec![
            ("mx.b.test", RecordType::A, (ResponseCode::NoError, false, vec![address("mx.b.test")])),
            ("_25._tcp.mx.b.test", RecordType::TLSA, (ResponseCode::NoError, true, vec![tlsa("mx.b.test")])),
        ])
        .await;
        assert_eq!(dane(&dns, Security::Secure, "mx.b.test").await, Ok(Dane::Absent));
        assert!(!asked.lock().unwrap().iter().any(|(question, _)| question.starts_with("TLSA")));
    }

    #[tokio::test]
    async fn a_resolver_that_fails_takes_no_records_away() {
        let (dns, _) = proved(vec![
            ("mx.b.test", RecordType::A, (ResponseCode::NoError, true, vec![address("mx.b.test")])),
            ("_25._tcp.mx.b.test", RecordType::TLSA, (ResponseCode::ServFail, false, vec![])),
            ("mx.c.test", RecordType::A, (ResponseCode::NoError, true, vec![address("mx.c.test")])),
            ("mx.d.test", RecordType::A, (ResponseCode::ServFail, false, vec![])),
        ])
        .await;
        assert_eq!(dane(&dns, Security::Secure, "mx.b.test").await, Ok(Dane::Failed));
        assert_eq!(dane(&dns, Security::Secure, "mx.c.test").await, Ok(Dane::Absent), "there are none");
        assert_eq!(dane(&dns, Security::Secure, "mx.d.test").await, Err(NoAnswer));
    }

    #[tokio::test]
    async fn records_at_the_end_of_an_alias_come_before_those_of_its_name() {
        let alias = record("mx.b.test", RData::CNAME(CNAME(name("mx.c.test"))));
        let (dns, asked) = proved(vec![
            ("mx.b.test", RecordType::A, (ResponseCode::NoError, true, vec![alias, address("mx.c.test")])),
            ("_25._tcp.mx.b.test", RecordType::TLSA, (ResponseCode::NoError, true, vec![tlsa("mx.b.test")])),
        ])
        .await;
        let found = dane(&dns, Security::Secure, "mx.b.test").await.unwrap();
        assert!(matches!(found, Dane::Records { base, .. } if base == "mx.b.test"));
        let asked = asked.lock().unwrap();
        let tlsa: Vec<&str> = asked.iter().filter_map(|(question, _)| question.strip_prefix("TLSA ")).collect();
        assert_eq!(tlsa, ["_25._tcp.mx.c.test", "_25._tcp.mx.b.test"]);
    }

    #[tokio::test]
    async fn a_resolver_that_validates_proves_what_the_root_says() {
        let soa = DnsRecord::from_rdata(
            Name::root(),
            60,
            RData::SOA(SOA::new(name("a.test"), name("b.test"), 1, 60, 60, 60, 60)),
        );
        for is_proved in [true, false] {
            let (dns, _) =
                proved(vec![("", RecordType::SOA, (ResponseCode::NoError, is_proved, vec![soa.clone()]))]).await;
            assert_eq!(dns.validates(soon()).await, Ok(is_proved));
        }
        let (dns, _) = proved(vec![("", RecordType::SOA, (ResponseCode::ServFail, false, vec![]))]).await;
        assert_eq!(dns.validates(soon()).await, Err(NoAnswer));
    }

    #[tokio::test]
    async fn an_answer_is_taken_up_to_a_bound() {
        let mx = |n: usize| record("b.test", RData::MX(MX::new(1_000 - n as u16, name(&format!("h{n}.b.test")))));
        let address = |n: usize| record("mx.b.test", RData::A(A([192, 0, 2, n as u8].into())));
        let (dns, _) = proved(vec![
            ("b.test", RecordType::MX, (ResponseCode::NoError, true, (0..=HOSTS_MAX).map(mx).collect())),
            ("mx.b.test", RecordType::A, (ResponseCode::NoError, true, (0..=ADDRESSES_MAX).map(address).collect())),
        ])
        .await;
        let hosts = dns.mx("b.test", soon()).await.unwrap().hosts;
        assert_eq!((hosts.len(), hosts[0].1.as_str()), (HOSTS_MAX, "h32.b.test"), "the preferred ones stay");
        assert_eq!(dns.addresses("mx.b.test", soon()).await.unwrap().0.len(), ADDRESSES_MAX);
    }

    #[test]
    fn only_resolvers_on_this_machine_are_believed() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let is_believed = |servers: &[&str]| {
            let servers: Vec<SocketAddr> = servers.iter().map(|at| at.parse().unwrap()).collect();
            ProvedDns::new(&servers).unwrap().unwrap().is_believed()
        };
        assert!(is_believed(&["127.0.0.1:53"]) && is_believed(&["127.0.0.53:53", "[::1]:53"]));
        assert!(!is_believed(&["192.0.2.1:53"]) && !is_believed(&["127.0.0.1:53", "192.0.2.1:53"]));
    }
}
