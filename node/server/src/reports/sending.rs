//! The reports of a day, on their way: whom they are due to, where each domain wants its own, and into the queue.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailraft_feedback::dmarc::{Asking, Consent, Destination, Schema, ask, consent, destinations};
use mailraft_feedback::tls::{Place, places, record_name};
use mailraft_feedback::{DAY_SECONDS, Mail, Reporter, due_unix_s};
use mailraft_mailbox::accepted::AcceptedEnvelope;
use mailraft_mailbox::{Finished, MessageKind};
use mailraft_outbound::route::Reach;
use mailraft_sender_auth::{DmarcRecord, Dns, Domain, Question, Record, dmarc_record_name};
use mailraft_storage::{CommandId, MailboxId, UnixMillis};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::day::Reported;
use super::{LOOK_EVERY, Reports};
use crate::counted::What;
use crate::dns::Resolver;
use crate::environment::zoned_now;
use crate::links::MailboxSession;
use crate::outbound::addresses::{Stands, stands_for};
use crate::outbound::https;
use crate::spool::{Entrance, Spool};

/// Domains that are told at once.
pub const TOLD_AT_ONCE: usize = 8;
/// Reports that are posted at once, beside those: who is slow to take his keeps no mail waiting.
pub const POSTED_AT_ONCE: usize = 8;
/// Domains that are told in a day of each kind: who has a million of them gets no million mails. Which of them changes every day.
pub const TOLD_A_DAY_MAX: usize = 10_000;
/// A domain whose report could not be sent is tried so often, the first time counted,
const ROUNDS_MAX: usize = 4;
/// and again after this.
const ROUND_PAUSE_S: u64 = 15 * 60;
/// The DNS is waited for at most this long about one domain.
const DNS_MAX: Duration = Duration::from_secs(30);
/// A report is posted within this.
const POST_MAX: Duration = Duration::from_secs(60);
/// A mail is put into the queue within this.
const PUT_MAX: Duration = Duration::from_secs(60);

/// A domain that is to be told, and when that is due, in seconds since 1970.
type Due = (u64, What, String);

/// A domain that was told by mail, as far as it wants that, and where else its report is to be posted.
struct ByMail {
    one: Due,
    told: Told,
    urls: Vec<String>,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    /// The domain wants none, or there is none.
    NotWanted,
    /// It is longer than the domain wants.
    TooLong,
    /// It is on its way, or was sent before.
    Sent,
    /// It could not be sent now.
    NotNow,
}

/// Sends each report when it is due, while this node leads the control group; whether all were sent.
pub async fn all_as_due(reports: &Reports, reporter: &Reporter, resolver: &Resolver, day: Reported) -> bool {
    all(reports, reporter, resolver, day, When::Due).await
}

/// Sends all reports at once; whether all were sent.
pub async fn all_now(reports: &Reports, reporter: &Reporter, resolver: &Resolver, day: Reported) -> bool {
    all(reports, reporter, resolver, day, When::Now).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Due,
    Now,
}

async fn all(reports: &Reports, reporter: &Reporter, resolver: &Resolver, day: Reported, when: When) -> bool {
    let (mut due, left_out) = due(&day, reporter);
    let switches = (reports.config)().reports.clone();
    due.retain(|(_, what, _)| match what {
        What::Sessions => switches.tls,
        What::Messages => switches.dmarc,
    });
    if left_out > 0 {
        tracing::warn!(left_out, TOLD_A_DAY_MAX, "so many domains can't be told in a day");
    }
    let number = day.sessions.day();
    tracing::info!(day = number, domains = due.len(), "reports of a day to other domains begin");
    let sender = Arc::new(Sender {
        reports: reports.clone(),
        reporter: reporter.clone(),
        resolver: resolver.clone(),
        day,
        posting: Semaphore::new(POSTED_AT_ONCE),
        posted: Mutex::default(),
    });
    for round in 0..ROUNDS_MAX {
        due.sort();
        let mut again = Vec::new();
        // At most one for each domain that is told in a day.
        let mut posting = JoinSet::new();
        let mut telling: JoinSet<ByMail> = JoinSet::new();
        let mut is_told = |told: Option<Result<ByMail, JoinError>>| {
            let Some(Ok(ByMail { one, told, urls })) = told else { return };
            let sender = Arc::clone(&sender);
            if urls.is_empty() {
                sender.count(&one, told);
                again.extend((told == Told::NotNow).then_some(one));
            } else {
                posting.spawn(async move {
                    let told = told.max(sender.post_all(&one.2, urls).await);
                    sender.count(&one, told);
                    (told == Told::NotNow).then_some(one)
                });
            }
        };
        for one in due {
            if when == When::Due && !is_due(reports, number, one.0).await {
                return false;
            }
            if telling.len() >= TOLD_AT_ONCE {
                is_told(telling.join_next().await);
            }
            let sender = Arc::clone(&sender);
            telling.spawn(async move {
                let (told, urls) = sender.tell(&one).await;
                ByMail { one, told, urls }
            });
        }
        while let Some(told) = telling.join_next().await {
            is_told(Some(told));
        }
        while let Some(posted) = posting.join_next().await {
            again.extend(posted.ok().flatten());
        }
        if again.is_empty() {
            tracing::info!(day = number, "reports of a day to other domains are sent");
            return true;
        }
        tracing::info!(day = number, domains = again.len(), round, "reports to some domains could not be sent now");
        let next = reports.counted.now_unix_s().saturating_add(ROUND_PAUSE_S);
        due = again.into_iter().map(|(_, what, domain)| (next, what, domain)).collect();
        if when == When::Now {
            // Whoever leads tries these again when they are due.
            return false;
        }
    }
    // They had their time; tomorrow there are others.
    true
}

/// All domains of a day, with their times, and how many more there are than can be told.
fn due(day: &Reported, reporter: &Reporter) -> (Vec<Due>, usize) {
    let number = day.sessions.day();
    let mut all = Vec::new();
    let mut left_out = 0;
    let sessions = day.sessions.domains().map(|domain| (What::Sessions, domain)).collect::<Vec<_>>();
    let messages = day.messages.domains().map(|domain| (What::Messages, domain)).collect::<Vec<_>>();
    for domains in [sessions, messages] {
        left_out += domains.len().saturating_sub(TOLD_A_DAY_MAX);
        let due = |(what, domain): (What, &str)| {
            (due_unix_s(number, jitter(number, what, domain, reporter)), what, domain.to_owned())
        };
        all.extend(domains.into_iter().take(TOLD_A_DAY_MAX).map(due));
    }
    (all, left_out)
}

/// Where in the time for a day's reports one is due: another place every day and for each reporter, and the same for whoever sends it.
fn jitter(day: u64, what: What, domain: &str, reporter: &Reporter) -> u16 {
    let what: &[u8] = match what {
        What::Sessions => b"tls",
        What::Messages => b"dmarc",
    };
    let digest = Sha256::new().chain_update(day.to_be_bytes()).chain_update(what).chain_update(domain);
    let digest = digest.chain_update([0]).chain_update(reporter.domain()).finalize();
    u16::from_be_bytes([digest[0], digest[1]])
}

/// Waits until then, by the time that the nodes agree on; false if this node leads no more, or the day is too long ago.
async fn is_due(reports: &Reports, day: u64, due_unix_s: u64) -> bool {
    loop {
        let now_s = reports.counted.now_unix_s();
        if !reports.leads() || now_s / DAY_SECONDS != day + 1 {
            return false;
        }
        if now_s >= due_unix_s {
            return true;
        }
        tokio::time::sleep(LOOK_EVERY.min(Duration::from_secs(due_unix_s - now_s))).await;
    }
}

/// Tells domains of a day.
struct Sender {
    reports: Reports,
    reporter: Reporter,
    resolver: Resolver,
    day: Reported,
    posting: Semaphore,
    /// Domains and places that took theirs: they get no second one while another place of the domain is tried again.
    posted: Mutex<BTreeSet<(String, String)>>,
}

impl Sender {
    /// Puts a domain's reports into the queue, and says where others of it are to be posted.
    async fn tell(&self, (_, what, domain): &Due) -> (Told, Vec<String>) {
        match what {
            What::Sessions => self.tls(domain).await,
            What::Messages => (self.dmarc(domain).await, Vec::new()),
        }
    }

    fn count(&self, (_, what, domain): &Due, told: Told) {
        let kind = match what {
            What::Sessions => "tls",
            What::Messages => "dmarc",
        };
        let result = match told {
            Told::NotWanted => "not_wanted",
            Told::TooLong => "too_long",
            Told::Sent => "sent",
            Told::NotNow => "not_now",
        };
        ::metrics::counter!("mailraft_domain_reports_total", "kind" => kind, "result" => result).increment(1);
        tracing::debug!(domain, kind, result, "a domain's report");
    }

    async fn tls(&self, domain: &str) -> (Told, Vec<String>) {
        let Some(records) = self.txt(&record_name(domain)).await else { return (Told::NotNow, Vec::new()) };
        let places = places(records.iter().map(Vec::as_slice));
        let Some(report) = self.day.sessions.report(domain, &self.reporter).filter(|_| !places.is_empty()) else {
            return (Told::NotWanted, Vec::new());
        };
        let (mut told, mut urls) = (Told::NotWanted, Vec::new());
        for place in places {
            match place {
                Place::Mail(address) => {
                    let mail = report.mail(&self.reporter, &address, self.reports.counted.now_unix_s());
                    told = told.max(self.put(report.id(), &mail).await);
                }
                Place::Https(url) => urls.push(url),
            }
        }
        (told, urls)
    }

    /// Posts a domain's report about TLS to these places, but for those that have it.
    async fn post_all(&self, domain: &str, urls: Vec<String>) -> Told {
        let Ok(_turn) = self.posting.acquire().await else { return Told::NotNow };
        let Some(report) = self.day.sessions.report(domain, &self.reporter) else { return Told::NotWanted };
        let mut told = Told::NotWanted;
        for url in urls {
            let place = (domain.to_owned(), url);
            if self.posted().contains(&place) {
                told = told.max(Told::Sent);
                continue;
            }
            let now = self.post(&place.1, report.post()).await;
            if now == Told::Sent {
                self.posted().insert(place);
            }
            told = told.max(now);
        }
        told
    }

    fn posted(&self) -> MutexGuard<'_, BTreeSet<(String, String)>> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn dmarc(&self, domain: &str) -> Told {
        let Some(name) = Domain::parse(domain).and_then(|domain| dmarc_record_name(&domain)) else {
            return Told::NotWanted;
        };
        let Some(records) = self.txt(name.as_str()).await else { return Told::NotNow };
        let rua = DmarcRecord::among(records.iter().map(Vec::as_slice)).and_then(|record| record.aggregate_reports_to);
        let Some(rua) = rua else { return Told::NotWanted };
        let (mut wanted, mut told): (Vec<Destination>, Told) = (Vec::new(), Told::NotWanted);
        for place in destinations(&rua) {
            match ask(domain, &place) {
                Asking::Nothing => wanted.push(place),
                Asking::Never => {}
                Asking::Txt(name) => match self.txt(&name).await {
                    Some(records) => match consent(&place, records.iter().map(Vec::as_slice)) {
                        Consent::Given(places) => wanted.extend(places),
                        Consent::Refused => {}
                    },
                    None => told = Told::NotNow,
                },
            }
        }
        let mut seen = BTreeSet::new();
        wanted.retain(|place| seen.insert(place.address.clone()));
        // Every reader knows this form.
        for report in self.day.messages.reports(domain, &self.reporter, Schema::Rfc7489) {
            for place in &wanted {
                let mail = report.mail(&self.reporter, &place.address, self.reports.counted.now_unix_s());
                told = told.max(match place.takes(mail.bytes.len()) {
                    true => self.put(report.id(), &mail).await,
                    false => Told::TooLong,
                });
            }
        }
        told
    }

    /// The TXT records of a name; None if the DNS does not say.
    async fn txt(&self, name: &str) -> Option<Vec<Vec<u8>>> {
        let dns = self.resolver.until(Instant::now() + DNS_MAX);
        let records = dns.ask(&Question::Txt(name.to_owned())).await.ok()?;
        Some(records.into_iter().filter_map(|r| if let Record::Txt(text) = r { Some(text) } else { None }).collect())
    }

    async fn post(&self, url: &str, post: mailraft_feedback::tls::Post) -> Told {
        let private = (self.reports.config)().outbound.private_addresses;
        let reach = if private { Reach::Private } else { Reach::Public };
        let what = (post.content_type, post.body);
        let deadline = Instant::now() + POST_MAX;
        match https::post(&self.reports.tls, url, what, reach, &self.resolver, deadline).await {
            Ok(()) => Told::Sent,
            Err(why) => {
                tracing::info!(why, "a report is not posted now");
                Told::NotNow
            }
        }
    }

    /// Puts a mail into the queue, once.
    async fn put(&self, report: &str, mail: &Mail) -> Told {
        let reach = &self.reports.reach;
        let recipients = match stands_for(reach, &mail.to).await {
            Ok(Stands::For(recipients)) => recipients,
            Ok(Stands::ForNobody) => return Told::NotWanted,
            Err(()) => return Told::NotNow,
        };
        let id = command_of(self.day.sessions.day(), report, &mail.to);
        let spooled = async {
            let mut spool = Spool::new(&self.reports.budget)?;
            spool.write(&mail.bytes, &(self.reports.config)().data_dir)?;
            spool.finish(b"Return-Path: <>\r\n", Entrance::Append).await
        };
        let spooled = match spooled.await {
            Ok(spooled) => spooled,
            Err(why) => {
                tracing::info!(?why, "a report has no room now");
                return Told::NotNow;
            }
        };
        // How much TLS its way has to have stands in its header.
        let accepted = AcceptedEnvelope { recipients, ..AcceptedEnvelope::default() };
        let how = MessageKind::Accept { accepted, received: zoned_now() };
        let queue = MailboxId::queue_of(id.queue_partition(reach.cluster.partitions()));
        let mut session = MailboxSession::new(reach.clone(), queue);
        match tokio::time::timeout(PUT_MAX, session.put(id, how, None, &spooled)).await {
            Ok((_, Finished::Done((_, at)))) => {
                let domain = mail.to.rsplit_once('@').map_or("", |(_, domain)| domain);
                tracing::info!(%id, %at, report, domain, "a report to another domain is in the queue");
                Told::Sent
            }
            Ok((_, Finished::NotDone(why))) => {
                tracing::info!(%id, %why, "a report to another domain is sent later");
                Told::NotNow
            }
            Ok((_, Finished::Unknown)) | Err(_) => Told::NotNow,
        }
    }
}

/// The id under which a report goes to an address: of the day's end, and the same whoever sends it. The queue keeps what became of
/// it for longer than a day, in which nobody sends that day's reports any more.
fn command_of(day: u64, report: &str, to: &str) -> CommandId {
    let digest = Sha256::new().chain_update(report).chain_update([0]).chain_update(to.to_ascii_lowercase()).finalize();
    let mut random = [0; 16];
    random.copy_from_slice(&digest[..16]);
    CommandId::v7(UnixMillis((day + 1) * DAY_SECONDS * 1_000), u128::from_be_bytes(random))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mailraft_feedback::{COLLECTING_S, SPREAD_S, dmarc, tls};
    use mailraft_outbound::tls::report::AppliedPolicy;

    use super::*;

    fn reporter() -> Reporter {
        Reporter::new("A", "a.test", "r@a.test", "r@a.test").unwrap()
    }

    #[test]
    fn whoever_sends_a_report_to_an_address_does_so_under_one_id_and_no_other_has_it() {
        let id = command_of(20_000, "r1", "a@b.test");
        assert_eq!(id, command_of(20_000, "r1", "A@b.test"));
        assert_eq!(id.time(), UnixMillis(20_001 * DAY_SECONDS * 1_000));
        let others = [command_of(20_001, "r1", "a@b.test"), command_of(20_000, "r2", "a@b.test")];
        assert!(!others.contains(&id) && id != command_of(20_000, "r1", "b@b.test"));
    }

    #[test]
    fn reports_are_spread_over_their_time_by_what_they_are_and_bounded_in_number() {
        let (mut sessions, mut messages) = (tls::Sessions::default(), dmarc::Messages::default());
        let names = TOLD_A_DAY_MAX + 100;
        (0..names).for_each(|n| sessions.count(0, &format!("{n}.test"), &AppliedPolicy::NoPolicy, None));
        messages.count(0, "0.test", &published(), &row());
        let day = Reported { sessions: sessions.forget_told(0).unwrap(), messages: messages.forget_told(0).unwrap() };
        assert_eq!(day.sessions.domains().count(), names);
        let (all, left_out) = due(&day, &reporter());
        assert_eq!((all.len(), left_out), (TOLD_A_DAY_MAX + 1, 100));
        assert_eq!(due(&day, &reporter()).0, all, "whoever sends them");
        let (from, to) = (DAY_SECONDS + COLLECTING_S, DAY_SECONDS + COLLECTING_S + SPREAD_S);
        assert!(all.iter().all(|(due, ..)| (from..to).contains(due)));
        let half = all.iter().filter(|(due, ..)| *due < from + SPREAD_S / 2).count();
        assert!((TOLD_A_DAY_MAX * 4 / 10..TOLD_A_DAY_MAX * 6 / 10).contains(&half), "{half}");
    }

    fn published() -> dmarc::Published {
        dmarc::Published {
            policy: mailraft_sender_auth::Policy::None,
            below: mailraft_sender_auth::Policy::None,
            dkim_alignment: dmarc::AlignmentMode::Relaxed,
            spf_alignment: dmarc::AlignmentMode::Relaxed,
            percent: 100,
            failure_options: "0".to_owned(),
        }
    }

    fn row() -> dmarc::Row {
        dmarc::Row {
            header_from: "0.test".to_owned(),
            envelope_from: None,
            envelope_to: None,
            source: [192, 0, 2, 1].into(),
            disposition: mailraft_sender_auth::Disposition::Deliver,
            dkim_aligned: dmarc::Alignment::Fail,
            spf_aligned: dmarc::Alignment::Fail,
            overrides: Vec::new(),
            dkim: Vec::new(),
            spf: dmarc::SpfAuth {
                domain: String::new(),
                scope: dmarc::SpfScope::Helo,
                result: mailraft_sender_auth::SpfResult::None,
            },
        }
    }
}
