//! Domains over HTTP: the keys that sign their mail, and what they publish in the DNS.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mailraft_cluster::placement;
use mailraft_cluster::regions::RegionsRow;
use mailraft_directory::{Command, KeyAlgorithm, KeyState, Lookup, LookupError, NewKey, SecretKey, names};
use mailraft_feedback::domain_records::{
    ClientService, DomainRecord, Facts, Finding, Purpose, mta_sts_policy, records,
};
use mailraft_message::date::{DAY_SECONDS, civil_from_days};
use mailraft_sender_auth::{Algorithm, KeyError, SigningKey};
use mailraft_storage::{CommandId, PartitionId};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Admin;
use super::api::{ChangeId, change, error, up_to_date};
use crate::dns::ValueKind;
use crate::services::Services;

/// How long the DNS is asked for what a domain publishes, less than who asks over HTTP waits: what it has not said by then it
/// does not say.
const CHECK_MAX: std::time::Duration = std::time::Duration::from_secs(10);
/// How much a mail server is preferred that stands in the home region, and one that does not.
const AT_HOME: u16 = 10;
const ELSEWHERE: u16 = 20;

#[derive(Deserialize)]
pub(super) struct NewDomain {
    name: String,
}

/// Keys to make: of each algorithm, or of one; under a selector of their own where none is named.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewKeys {
    algorithm: Option<String>,
    selector: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewState {
    state: String,
}

/// A new domain, with a key of each algorithm that signs from now on.
pub(super) async fn create(State(admin): State<Admin>, id: ChangeId, Json(new): Json<NewDomain>) -> Response {
    let id = id.or_new(&admin.services);
    match make(id, NewKeys::default(), KeyState::Signing).await {
        Ok(keys) => {
            change(&admin.services, ChangeId::of(id), Command::CreateDomainWithKeys { name: new.name, keys }).await
        }
        Err(response) => response,
    }
}

/// More keys for a domain, which do not sign yet.
pub(super) async fn add_keys(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    id: ChangeId,
    Json(new): Json<NewKeys>,
) -> Response {
    let id = id.or_new(&admin.services);
    match make(id, new, KeyState::Published).await {
        Ok(keys) => change(&admin.services, ChangeId::of(id), Command::AddDomainKeys { name, keys }).await,
        Err(response) => response,
    }
}

/// A key begins to sign, or ends.
pub(super) async fn set_state(
    State(admin): State<Admin>,
    Path((name, selector)): Path<(String, String)>,
    id: ChangeId,
    Json(new): Json<NewState>,
) -> Response {
    let command = match new.state.as_str() {
        "signing" => Command::UseDomainKey { name, selector },
        "retired" => Command::RetireDomainKey { name, selector },
        _ => return error(StatusCode::BAD_REQUEST, "a key's state becomes \"signing\" or \"retired\""),
    };
    change(&admin.services, id, command).await
}

pub(super) async fn remove_key(
    State(admin): State<Admin>,
    Path((name, selector)): Path<(String, String)>,
    id: ChangeId,
) -> Response {
    change(&admin.services, id, Command::RemoveDomainKey { name, selector }).await
}

/// What anybody may know of a domain's keys.
pub(super) async fn list_keys(State(admin): State<Admin>, Path(name): Path<String>) -> Response {
    match of_domain(&admin.services, name, read_keys).await {
        Ok(keys) => Json(keys).into_response(),
        Err(response) => response,
    }
}

/// Every record to publish for a domain.
pub(super) async fn dns(State(admin): State<Admin>, Path(name): Path<String>) -> Response {
    match facts(&admin.services, name).await {
        Ok(facts) => Json(published(&facts, records(&facts).iter().map(line).collect())).into_response(),
        Err(response) => response,
    }
}

/// The same, with what the DNS says of each.
pub(super) async fn check_dns(State(admin): State<Admin>, Path(name): Path<String>) -> Response {
    let facts = match facts(&admin.services, name).await {
        Ok(facts) => facts,
        Err(response) => return response,
    };
    let Some(resolver) = admin.services.sender_auth.resolver() else {
        let sentence = "this node has no resolver: name one in sender_auth.resolvers or /etc/resolv.conf";
        return error(StatusCode::SERVICE_UNAVAILABLE, sentence);
    };
    let deadline = Instant::now() + CHECK_MAX;
    let mut lines = Vec::new();
    for record in records(&facts) {
        let kind = match record.purpose {
            Purpose::Mx => ValueKind::Mx,
            Purpose::Address => ValueKind::Address,
            Purpose::Srv => ValueKind::Srv,
            Purpose::Spf | Purpose::Dkim | Purpose::Dmarc | Purpose::MtaSts | Purpose::TlsRpt => ValueKind::Txt,
        };
        let answers = resolver.values(&record.name, kind, deadline).await.ok();
        let (state, there, why) = match record.compare(answers.as_deref()) {
            Finding::Ok => ("ok", Vec::new(), None),
            Finding::Missing => ("missing", Vec::new(), None),
            Finding::Differs { there, why } => ("differs", there, why),
            Finding::NoAnswer => ("no_answer", Vec::new(), None),
        };
        let mut line = line(&record);
        line["state"] = json!(state);
        line["there"] = json!(there);
        line["why"] = json!(why);
        lines.push(line);
    }
    Json(published(&facts, lines)).into_response()
}

fn published(facts: &Facts, records: Vec<Value>) -> Value {
    json!({
        "domain": facts.domain,
        "records": records,
        "mta_sts_policy": {
            "url": format!("https://mta-sts.{}/.well-known/mta-sts.txt", facts.domain),
            "text": mta_sts_policy(facts),
        },
    })
}

fn line(record: &DomainRecord) -> Value {
    json!({
        "name": record.name,
        "type": record.purpose.kind(),
        "value": record.value,
        "purpose": record.purpose.as_str(),
        "zone": record.zone_line(),
    })
}

/// The name of a domain in its one form, if it is of this cluster.
fn ours(lookup: &Lookup, name: &str) -> Result<Option<String>, LookupError> {
    match names::domain(name) {
        Ok(name) => Ok(lookup.domain(&name)?.map(|domain| domain.name)),
        Err(_) => Ok(None),
    }
}

/// What is known of a domain: its keys, and the nodes with their names.
async fn facts(services: &Services, name: String) -> Result<Facts, Response> {
    super::status::learn_called(services).await;
    of_domain(services, name, read_facts).await
}

/// Reads something of a domain, as it is by now everywhere.
async fn of_domain<T: Send + 'static>(
    services: &Services,
    name: String,
    read: fn(&Services, &str) -> Result<Option<T>, String>,
) -> Result<T, Response> {
    up_to_date(services).await?;
    let missing = format!("there is no domain {name:?}: mailraft domain list shows those that there are");
    let reading = services.clone();
    match tokio::task::spawn_blocking(move || read(&reading, &name)).await {
        Ok(Ok(Some(found))) => Ok(found),
        Ok(Ok(None)) => Err(error(StatusCode::NOT_FOUND, &missing)),
        Ok(Err(sentence)) => Err(error(StatusCode::INTERNAL_SERVER_ERROR, &sentence)),
        Err(ended) => Err(error(StatusCode::INTERNAL_SERVER_ERROR, &ended.to_string())),
    }
}

fn read_keys(services: &Services, name: &str) -> Result<Option<Value>, String> {
    let said = |e: LookupError| e.to_string();
    let Some(name) = ours(&services.lookup, name).map_err(said)? else { return Ok(None) };
    let keys = services.lookup.domain_keys(&name).map_err(said)?.into_iter().map(|key| {
        json!({
            "selector": key.selector,
            "algorithm": key.algorithm.as_str(),
            "state": key.state.as_str(),
            "name": format!("{}._domainkey.{name}", key.selector),
            "record": key.record,
            "created_unix_ms": key.created.0,
            "since_unix_ms": key.since.0,
        })
    });
    Ok(Some(Value::Array(keys.collect())))
}

fn read_facts(services: &Services, name: &str) -> Result<Option<Facts>, String> {
    let said = |e: LookupError| e.to_string();
    let Some(domain) = ours(&services.lookup, name).map_err(said)? else { return Ok(None) };
    let keys = services.lookup.domain_keys(&domain).map_err(said)?;
    let keys = keys.into_iter().map(|key| (key.selector, key.record)).collect();
    let config = services.config();
    let mut mail_hosts = Vec::new();
    if let Some(control) = services.cluster.replica(PartitionId::CONTROL) {
        let rows = services.cluster.rows().as_ref();
        let home = RegionsRow::read(rows, control).map_err(|e| e.to_string())?.map(|row| row.home.0);
        for node in placement::nodes(rows, control).map_err(|e| e.to_string())? {
            // Others see a node's name in its greeting. Of one that never said it, it is known where other nodes call it.
            let host = match node.id == services.cluster.node() {
                true => config.tls.hostname.clone(),
                false => services.far.called(node.id).hostname.unwrap_or_else(|| host_of(&node.peer).to_owned()),
            };
            let preference = if home.as_ref().is_none_or(|home| *home == node.region) { AT_HOME } else { ELSEWHERE };
            if is_public(&host) && !mail_hosts.iter().any(|(_, other)| *other == host) {
                mail_hosts.push((preference, host));
            }
        }
        mail_hosts.sort();
    }
    let listen = &config.listen;
    let services = [
        (ClientService::Submissions, listen.submissions),
        (ClientService::Submission, listen.submission),
        (ClientService::Imaps, listen.imaps),
        (ClientService::Imap, listen.imap),
        (ClientService::Pop3s, listen.pop3s),
        (ClientService::Pop3, listen.pop3),
    ];
    let services = services.into_iter().filter_map(|(service, at)| Some((service, at?.port()))).collect();
    Ok(Some(Facts { domain, mail_hosts, keys, services }))
}

/// The host of host:port.
fn host_of(peer: &str) -> &str {
    peer.rsplit_once(':').map_or(peer, |(host, _)| host)
}

/// Whether it is a name that others can look up.
fn is_public(host: &str) -> bool {
    names::domain(host).is_ok_and(|name| name == host)
}

/// Makes keys. Their selectors follow from the change's id: who asks for the same again asks for the same keys.
async fn make(id: CommandId, new: NewKeys, state: KeyState) -> Result<Vec<NewKey>, Response> {
    let algorithms: Vec<Algorithm> = match new.algorithm.as_deref() {
        None => Algorithm::ALL.to_vec(),
        Some(name) => match Algorithm::parse(name) {
            Some(algorithm) => vec![algorithm],
            None => {
                let known = Algorithm::ALL.map(Algorithm::as_str).join(" or ");
                return Err(error(StatusCode::BAD_REQUEST, &format!("a key's algorithm is {known}")));
            }
        },
    };
    if new.selector.is_some() && algorithms.len() > 1 {
        return Err(error(StatusCode::BAD_REQUEST, "a selector names one key: say of which algorithm it is to be"));
    }
    // An RSA key takes a processor for a while.
    let made = tokio::task::spawn_blocking(move || {
        let one = |algorithm| one_key(id, algorithm, new.selector.as_deref(), state);
        algorithms.into_iter().map(one).collect::<Result<Vec<NewKey>, KeyError>>()
    });
    match made.await {
        Ok(Ok(keys)) => Ok(keys),
        Ok(Err(e)) => Err(error(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string())),
        Err(e) => Err(error(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string())),
    }
}

fn one_key(id: CommandId, algorithm: Algorithm, selector: Option<&str>, state: KeyState) -> Result<NewKey, KeyError> {
    let secret = SigningKey::generate(algorithm)?;
    let record = SigningKey::parse(algorithm, &secret)?.record()?;
    let (kind, algorithm) = match algorithm {
        Algorithm::RsaSha256 => ("rsa", KeyAlgorithm::RsaSha256),
        Algorithm::Ed25519Sha256 => ("ed", KeyAlgorithm::Ed25519Sha256),
    };
    let selector = selector.map_or_else(|| selector_of(id, kind), str::to_owned);
    Ok(NewKey { selector, algorithm, state, record, secret: SecretKey(secret.to_vec()) })
}

/// Such as `rsa-20261127-3f9c`: the day on which the change was begun, and something of its own.
fn selector_of(id: CommandId, kind: &str) -> String {
    let days = (id.made_at().0 / 1_000) as i64 / DAY_SECONDS;
    let (year, month, day) = civil_from_days(days);
    format!("{kind}-{year:04}{month:02}{day:02}-{}", hex::encode(&id.0[14..]))
}

#[cfg(test)]
mod tests {
    use mailraft_storage::UnixMillis;

    use super::*;

    #[test]
    fn a_selector_says_when_and_is_the_same_for_the_same_change() {
        let id = CommandId::v7(UnixMillis(1_755_180_900_000), 0x1234_5678_9abc_def0);
        assert_eq!(selector_of(id, "rsa"), "rsa-20250814-def0");
        assert_eq!(selector_of(id, "rsa"), selector_of(id, "rsa"));
        assert!(names_are_fine(&selector_of(id, "ed")));
    }

    fn names_are_fine(selector: &str) -> bool {
        mailraft_directory::names::selector(selector).is_ok_and(|name| name == selector)
    }

    #[tokio::test]
    async fn keys_are_made_as_they_are_asked_for() {
        let id = CommandId::v7(UnixMillis(0), 7);
        let keys = make(id, NewKeys::default(), KeyState::Signing).await.unwrap();
        let algorithms: Vec<KeyAlgorithm> = keys.iter().map(|key| key.algorithm).collect();
        assert_eq!(algorithms, [KeyAlgorithm::RsaSha256, KeyAlgorithm::Ed25519Sha256]);
        for key in &keys {
            let algorithm = Algorithm::parse(key.algorithm.as_str()).unwrap();
            assert_eq!(SigningKey::parse(algorithm, &key.secret.0).unwrap().record().unwrap(), key.record);
        }
        let of = |algorithm: &str, selector: Option<&str>| NewKeys {
            algorithm: (!algorithm.is_empty()).then(|| algorithm.to_owned()),
            selector: selector.map(str::to_owned),
        };
        let one = make(id, of("ed25519-sha256", Some("mine")), KeyState::Published).await.unwrap();
        assert_eq!((one.len(), one[0].selector.as_str()), (1, "mine"));
        for wrong in [of("rsa-sha1", None), of("", Some("mine"))] {
            assert_eq!(make(id, wrong, KeyState::Published).await.unwrap_err().status(), StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn only_names_that_others_can_look_up_are_published() {
        for (peer, public) in
            [("mx1.example.org:700", true), ("127.0.0.1:700", false), ("[::1]:700", false), ("localhost:1", false)]
        {
            assert_eq!(is_public(host_of(peer)), public, "{peer}");
        }
    }
}
