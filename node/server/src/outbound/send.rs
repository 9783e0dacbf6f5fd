//! One message to the servers of one domain.

use std::sync::Arc;

use mailraft_mailbox::Place;
use mailraft_mailbox::accepted::{Attempt, AttemptEnd, Diagnosis, ReportKind};
use mailraft_mailbox::queue::arrived::Arrived;
use mailraft_mailbox::queue::outgoing::{Demands, OutgoingMessage};
use mailraft_mailbox::queue::outward::OutwardOutcome;
use mailraft_outbound::client::{Credentials, Envelope, Notify, Recipient, Return, Role};
use mailraft_outbound::destinations::Ended;
use mailraft_outbound::outcome::{self, Handover, Onward, Outcome, Phase, Said};
use mailraft_outbound::reply::EnhancedCode;
use mailraft_outbound::report::{Event, wants};
use mailraft_outbound::schedule::{Retry, retry};
use mailraft_outbound::tls::policy::{Asked, Authentication, Configured, Decision, Lasting, Server, TlsWanted, decide};
use mailraft_outbound::tls::report::AppliedPolicy;
use mailraft_storage::{CommandId, UnixMillis};

use super::connection::{Patience, Shared, Target, hand_over};
use super::counting::{self, Counting};
use super::hosts::{Host, hosts_of};
use super::message::{MeasureError, Measured, measure};
use super::on_its_way::{OnItsWay, Source};
use super::{LetGo, Outbound, read_item};
use crate::config;
use crate::environment::wall;
use crate::trail::Step;

/// Connections to one address for one message: a server may take few recipients over each.
const CONNECTIONS_TO_ONE_MAX: usize = 10;

/// What became of a message.
pub struct Sending {
    /// For each recipient.
    pub outcome: OutwardOutcome,
    /// What that says of the domain.
    pub how: Ended,
    /// Whose servers have it, and that its last octet was let go.
    pub arrived: Option<(Arrived, LetGo)>,
}

impl Sending {
    fn not_attempted() -> Self {
        Sending { outcome: OutwardOutcome::Failed, how: Ended::Neither, arrived: None }
    }
}

/// Sends it.
pub async fn send(
    outbound: &Outbound,
    place: Place,
    item: CommandId,
    domain: &str,
    recipients: &[(u32, u32)],
) -> Sending {
    let numbers: Vec<u32> = recipients.iter().map(|(number, _)| *number).collect();
    let Some(message) = read_item(outbound, place, item, &numbers).await else {
        return Sending::not_attempted();
    };
    let message = Arc::new(message);
    let (rows, lookup) = (Arc::clone(outbound.reach.cluster.rows()), Arc::clone(&outbound.reach.lookup));
    let (of_reader, from) = (Arc::clone(&message), Arc::clone(&rows));
    // By the time that the nodes agree on: another one may hear what comes back.
    let agreed = outbound.reach.cluster.wall();
    let read = move || measure(&of_reader, from.as_ref(), &lookup, agreed);
    let mut let_go = None;
    let outcomes = match tokio::task::spawn_blocking(read).await {
        Ok(Ok(measured)) => {
            let lookup = Arc::clone(&outbound.reach.lookup);
            let (cluster, letting_go) = (outbound.reach.cluster.clone(), outbound.letting_go());
            let source = Source { letting_go, rows, lookup, cluster, place, now: agreed };
            let mut on_its_way = OnItsWay::new(Arc::clone(&message), source, measured.fields.clone());
            let outcomes = to_domain(outbound, domain, &message, &measured, &mut on_its_way).await;
            let_go = on_its_way.let_go();
            outcomes
        }
        Ok(Err(MeasureError::Gone(why))) => {
            tracing::info!(%item, why, "a message is not sent from here");
            return Sending::not_attempted();
        }
        Ok(Err(MeasureError::Unsendable(why))) => never(&message, EnhancedCode::new(5, 6, 11), &why),
        Ok(Err(MeasureError::NotRewritten(why))) => never(&message, EnhancedCode::new(5, 1, 7), &why.to_string()),
        Err(_) => return Sending::not_attempted(),
    };
    let how = ended(&outcomes);
    let (accepted, _) = message.accepted_and_expires();
    let failed = |number: u32| recipients.iter().find(|(of, _)| *of == number).map_or(0, |(_, failed)| *failed);
    let now = wall();
    let attempts = message.recipients.iter().zip(outcomes).map(|(recipient, outcome)| {
        let notify = recipient.notify.as_deref();
        let attempt = attempt(recipient.number, outcome, (failed(recipient.number), notify), now, accepted);
        tell_log(item, &recipient.address, &attempt);
        outbound.reach.trail.add(step(item, &recipient.address, &attempt));
        attempt
    });
    let attempts: Vec<Attempt> = attempts.collect();
    let arrived = Arrived::of(&message, &attempts).zip(let_go);
    Sending { outcome: OutwardOutcome::Attempted(attempts), how, arrived }
}

/// It can't be sent to any of them.
fn never(message: &OutgoingMessage, code: EnhancedCode, why: &str) -> Vec<Outcome> {
    let diagnosis = outcome::Diagnosis::ours(None, Phase::Message, code, why);
    vec![Outcome::failed(diagnosis); message.recipients.len()]
}

/// What becomes of a message whose time is over while it could not be attempted, for this reason.
pub fn expired(message: &OutgoingMessage, why: &str) -> OutwardOutcome {
    let why = format!("for five days {why}");
    let text = outcome::Diagnosis::ours(None, Phase::Connect, EnhancedCode::new(5, 4, 7), &why);
    let diagnosis = of_outcome(&text, wall());
    let attempt = |number: u32| Attempt { recipient: number, end: AttemptEnd::Failed, diagnosis: diagnosis.clone() };
    OutwardOutcome::Attempted(message.recipients.iter().map(|recipient| attempt(recipient.number)).collect())
}

/// What the outcomes say of the domain's servers.
fn ended(outcomes: &[Outcome]) -> Ended {
    let phases = || outcomes.iter().map(|outcome| outcome.diagnosis().phase);
    if phases().all(|phase| phase == Phase::Route) {
        Ended::Neither
    } else if outcomes.iter().any(|outcome| matches!(&outcome.diagnosis().said, Said::Reply { code: 421, .. })) {
        Ended::Badly
    } else if phases().all(|phase| matches!(phase, Phase::Connect | Phase::Greeting | Phase::Hello)) {
        Ended::Down
    } else {
        Ended::Well
    }
}

fn tell_log(item: CommandId, address: &str, attempt: &Attempt) {
    let (result, next) = match attempt.end {
        AttemptEnd::Sent { .. } => ("sent", None),
        AttemptEnd::Deferred { next } => ("deferred", Some(next.0)),
        AttemptEnd::Failed => ("failed", None),
    };
    ::metrics::counter!("mailraft_outbound_attempts_total", "result" => result).increment(1);
    let Diagnosis { host, status, text, is_reply, .. } = &attempt.diagnosis;
    // Servers repeat addresses, which are for no log.
    let said = if *is_reply { "" } else { text.as_str() };
    let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
    tracing::info!(%item, recipient = attempt.recipient, domain, host, status, said, next, "{result}");
}

/// The same for the trail, with the server's words.
fn step(item: CommandId, address: &str, Attempt { end, diagnosis, .. }: &Attempt) -> Step {
    let what = match end {
        AttemptEnd::Sent { .. } => "sent",
        AttemptEnd::Deferred { .. } => "deferred",
        AttemptEnd::Failed => "failed",
    };
    let at = diagnosis.host.as_ref().map(|host| format!("at {host}: ")).unwrap_or_default();
    Step { to: vec![address.to_owned()], ..Step::new(item, what) }.saying(&format!("{at}{}", diagnosis.text))
}

/// What an outcome means for the queue.
fn attempt(
    recipient: u32,
    outcome: Outcome,
    (failed, notify): (u32, Option<&str>),
    now: UnixMillis,
    accepted: UnixMillis,
) -> Attempt {
    let diagnosis = of_outcome(outcome.diagnosis(), now);
    let end = match outcome {
        Outcome::Sent { onward: Onward::ReportsNothing, .. }
            if notify.is_some_and(|_| wants(notify, Event::Success)) =>
        {
            AttemptEnd::Sent { report: Some(ReportKind::Relayed) }
        }
        Outcome::Sent { .. } => AttemptEnd::Sent { report: None },
        Outcome::Failed(_) => AttemptEnd::Failed,
        Outcome::Deferred { .. } => match retry(accepted.0, now.0, failed.saturating_add(1), rand::random()) {
            Retry::At(next) => AttemptEnd::Deferred { next: UnixMillis(next) },
            Retry::Expired => AttemptEnd::Failed,
        },
    };
    if matches!(outcome, Outcome::Deferred { certainty: outcome::Certainty::PerhapsSent, .. }) {
        ::metrics::counter!("mailraft_outbound_perhaps_twice_total").increment(1);
    }
    Attempt { recipient, end, diagnosis }
}

fn of_outcome(diagnosis: &outcome::Diagnosis, at: UnixMillis) -> Diagnosis {
    let (text, is_reply) = match &diagnosis.said {
        Said::Reply { .. } => (diagnosis.sentence(), true),
        Said::Us(sentence) => (sentence.clone(), false),
    };
    let host = diagnosis.peer.as_ref().map(|peer| peer.name.clone());
    Diagnosis { at, host, status: diagnosis.enhanced.to_string(), text, is_reply }.bounded()
}

/// Tries the domain's hosts, until something is decided for everybody. The outcomes are in the order of the recipients.
async fn to_domain(
    outbound: &Outbound,
    domain: &str,
    message: &OutgoingMessage,
    measured: &Measured,
    on_its_way: &mut OnItsWay,
) -> Vec<Outcome> {
    let config = (outbound.config)();
    let count = message.recipients.len();
    let hosts = match hosts_of(outbound, domain, &config.outbound).await {
        Ok(hosts) => hosts,
        Err(outcome) => return vec![outcome; count],
    };
    let asked = asked(message.demands(), measured);
    let mut all: Vec<Option<Handover>> = vec![None; count];
    let mut last = None;
    let mut patience = Patience::new();
    let shared = Shared { tls: &outbound.tls, kept: &outbound.kept };
    for host in &hosts {
        let open: Vec<usize> = (0..count).filter(|at| is_open(all[*at].as_ref())).collect();
        if open.is_empty() || patience.is_over() {
            break;
        }
        let decision = match tls_for(outbound, domain, host, asked, &config.outbound).await {
            Ok(decision) => decision,
            Err(outcome) => {
                last = Some(outcome);
                continue;
            }
        };
        for address in &host.addresses {
            let smart_host = config.outbound.smart_host.as_ref().filter(|_| host.found.is_none());
            let target = Target {
                host: &host.name,
                address: *address,
                helo: &config.tls.hostname,
                wanted: &decision.wanted,
                watched: decision.watched.as_ref(),
                because: &decision.because,
                implicit_tls: smart_host.is_some_and(|of| of.tls == config::SmartHostTls::Implicit),
                role: smart_host.map_or(Role::Public, |of| {
                    let credentials = of.credentials.clone();
                    Role::SmartHost(credentials.map(|(user, password)| Credentials { user, password }))
                }),
                counting: is_counted(host, asked).then_some(Counting {
                    counted: &outbound.counted,
                    domain,
                    host: &host.name,
                    decision: &decision,
                }),
            };
            let mut unreached = false;
            let mut of_connection = open.clone();
            for _ in 0..CONNECTIONS_TO_ONE_MAX {
                let envelope = envelope(message, measured, &of_connection);
                let now_s = wall().0 / 1_000;
                let came = hand_over(&shared, &target, &envelope, on_its_way, &mut patience, now_s).await;
                unreached = came.iter().all(|one| one.outcome().diagnosis().phase == Phase::Connect);
                for (at, handover) in of_connection.iter().zip(came) {
                    all[*at] = Some(handover);
                }
                // Another connection to a server that takes so many recipients over each, while it takes any.
                let before = of_connection.len();
                of_connection.retain(|at| matches!(all[*at], Some(Handover::AnotherTransaction(_))));
                if of_connection.is_empty() || of_connection.len() == before || patience.is_over() {
                    break;
                }
            }
            // Another address of the host only where this one could not be reached.
            if !unreached || patience.is_over() {
                break;
            }
        }
    }
    let nothing = || {
        let why = format!("no server of {domain} could be asked");
        Outcome::deferred(outcome::Diagnosis::ours(None, Phase::Route, EnhancedCode::new(4, 4, 1), &why))
    };
    let rest = last.unwrap_or_else(nothing);
    all.into_iter().map(|one| one.map_or_else(|| rest.clone(), |handover| handover.outcome().clone())).collect()
}

fn is_open(handover: Option<&Handover>) -> bool {
    match handover {
        None | Some(Handover::OtherHost(_)) => true,
        Some(Handover::Decided(_) | Handover::AnotherTransaction(_)) => false,
    }
}

/// What its sender asked for. Who demands TLS to the end can't waive it too (RFC 8689, section 5).
fn asked(demands: Demands, measured: &Measured) -> Asked {
    match (demands.requiretls, measured.tls_not_required) {
        (true, _) => Asked::RequireTls,
        (false, true) => Asked::TlsNotRequired,
        (false, false) => Asked::Nothing,
    }
}

/// Whether sessions for it are told to the domain: not what goes by a smart host, whose they are, nor what no policy is applied to.
/// So nothing is told of how the reports about TLS arrived, and there is none tomorrow about today's.
fn is_counted(host: &Host, asked: Asked) -> bool {
    host.found.is_some() && asked != Asked::TlsNotRequired
}

/// What TLS a host has to have.
async fn tls_for(
    outbound: &Outbound,
    domain: &str,
    host: &Host,
    asked: Asked,
    config: &config::Outbound,
) -> Result<Decision, Outcome> {
    let Some(found) = &host.found else {
        let wanted = match config.smart_host.as_ref().map(|of| of.tls) {
            // It gets a password, and all mail: only who proves that it is this host.
            Some(config::SmartHostTls::Implicit | config::SmartHostTls::StartTls) => {
                TlsWanted::Authenticated { how: Authentication::WebPki { host: host.name.clone() } }
            }
            Some(config::SmartHostTls::Opportunistic) | None if asked == Asked::RequireTls => {
                TlsWanted::Authenticated { how: Authentication::WebPki { host: host.name.clone() } }
            }
            Some(config::SmartHostTls::Opportunistic) | None => TlsWanted::Opportunistic,
        };
        return Ok(Decision {
            wanted,
            watched: None,
            needs_requiretls: asked == Asked::RequireTls,
            counted_as: AppliedPolicy::NoPolicy,
            flaw: None,
            because: "the configuration wants it of the smart host".to_owned(),
        });
    };
    let policy = match &outbound.resolver {
        Some(resolver) => {
            let found = outbound.policies.of(domain, resolver, wall().0 / 1_000).await;
            if let Some(kind) = found.flaw.filter(|_| is_counted(host, asked)) {
                counting::not_fetched(&outbound.counted, domain, kind, found.policy.as_ref());
            }
            found.policy
        }
        None => None,
    };
    let server = Server { domain, host: &host.name, mx: found.mx, dane: &found.dane, mta_sts: policy.as_ref() };
    match decide(server, Configured::AsTheDomainAsks, asked) {
        Ok(decision) => Ok(decision),
        Err(refusal) => {
            counting::refused(&outbound.counted, domain, &refusal, policy.as_ref());
            let (code, sentence) = (EnhancedCode::new(4, 7, 10), refusal.sentence());
            let diagnosis = outcome::Diagnosis::ours(None, Phase::Tls, code, &sentence);
            Err(match refusal.lasting() {
                Lasting::ForNow => Outcome::deferred(diagnosis),
                Lasting::ForGood => Outcome::failed(diagnosis),
            })
        }
    }
}

fn envelope(message: &OutgoingMessage, measured: &Measured, open: &[usize]) -> Envelope {
    let (ret, envid) = message.ret_and_envid();
    let recipients = open.iter().map(|at| {
        let of = &message.recipients[*at];
        Recipient { address: of.address.clone(), notify: of.notify.as_deref().map(notify), orcpt: of.orcpt.clone() }
    });
    Envelope {
        reverse_path: measured.reverse_path.clone(),
        recipients: recipients.collect(),
        shape: measured.shape,
        not_seven_bit: None,
        utf8_header: measured.utf8_header,
        require_tls: message.demands().requiretls,
        ret: ret.map(|ret| if ret.eq_ignore_ascii_case("FULL") { Return::Full } else { Return::Header }),
        envid: envid.map(str::to_owned),
    }
}

fn notify(text: &str) -> Notify {
    let [success, failure, delay] =
        [Event::Success, Event::Failure, Event::Delay].map(|event| wants(Some(text), event));
    match (success, failure, delay) {
        (false, false, false) => Notify::Never,
        (success, failure, delay) => Notify::Of { success, failure, delay },
    }
}
