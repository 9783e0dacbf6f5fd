//! Regions over HTTP: who stands where, and what is promised.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mailraft_cluster::placement::{self, NodeRow};
use mailraft_cluster::regions::{
    Durability, RegionName, RegionSettings, Regions, RegionsRow, SyncSetChange, TakeoverRow, Unconfirmed,
};
use mailraft_cluster::{BarrierOutcome, Reader, taken_over};
use mailraft_driver::Cluster;
use mailraft_mailbox::Detached;
use mailraft_storage::{CommandId, LogPosition, NodeId, PartitionId, StoreError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Admin;
use super::api::{self, Asked, ChangeId};
use crate::links::{Rpc, RpcReply};
use crate::services::Services;
use crate::settings::{self, SettingsReply};
use crate::survival::was_left_behind;

/// What is to change. What is left out stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSettings {
    durability: Option<Promise>,
    rpo_max_ms: Option<u64>,
    unconfirmed: Option<WithoutThem>,
    degrade_after_ms: Option<u64>,
    /// Answers wait for this region from now on.
    add: Option<String>,
    /// Or for this one no more.
    remove: Option<String>,
}

/// What is promised, as it is written.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Promise {
    Geo,
    Region,
}

/// What happens while other regions do not confirm, as it is written.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WithoutThem {
    Degrade,
    Refuse,
}

/// Under `region` answers run ahead for so long where nobody says otherwise.
const RPO_MAX_MS: u64 = 1_000;

impl NewSettings {
    fn settings(&self) -> Result<RegionSettings, &'static str> {
        let durability = match (self.durability, self.rpo_max_ms) {
            (None, None) => None,
            (Some(Promise::Geo), None) => Some(Durability::Geo),
            (Some(Promise::Region), ms) => Some(Durability::Region { rpo_max_ms: ms.unwrap_or(RPO_MAX_MS) }),
            (None | Some(Promise::Geo), Some(_)) => return Err("rpo_max_ms goes with durability region: give both"),
        };
        let unconfirmed = self.unconfirmed.map(|unconfirmed| match unconfirmed {
            WithoutThem::Degrade => Unconfirmed::Degrade,
            WithoutThem::Refuse => Unconfirmed::Refuse,
        });
        let sync_set = match (&self.add, &self.remove) {
            (None, None) => None,
            (Some(region), None) => Some(SyncSetChange::Add(RegionName(region.clone()))),
            (None, Some(region)) => Some(SyncSetChange::Remove(RegionName(region.clone()))),
            (Some(_), Some(_)) => return Err("add one region or remove one, not both at once"),
        };
        Ok(RegionSettings { durability, unconfirmed, degrade_after_ms: self.degrade_after_ms, sync_set })
    }
}

/// Changes what is promised. The control group's leader does so whatever waits there for a region that is away.
pub(super) async fn set(State(admin): State<Admin>, given: ChangeId, Json(new): Json<NewSettings>) -> Response {
    let settings = match new.settings() {
        Ok(settings) => settings,
        Err(sentence) => return api::error(StatusCode::BAD_REQUEST, sentence),
    };
    let services = &admin.services;
    let id = given.or_new(services);
    let asked = |node| {
        let asking = ask(services, node, id, settings.clone());
        async move {
            match asking.await {
                SettingsReply::Changed { at } => Asked::Answered(Ok(at)),
                SettingsReply::Refused(why) => Asked::Answered(Err(why)),
                SettingsReply::NotDone => Asked::NotBegun,
                SettingsReply::Unknown => Asked::InDoubt,
            }
        }
    };
    match api::until_known(services, id, asked).await {
        Ok(Ok(at)) => Json(api::changed(id, at)).into_response(),
        Ok(Err(why)) => api::refused(&why.to_string()),
        Err(response) => response,
    }
}

/// Asks the node that leads the control group.
async fn ask(services: &Services, node: NodeId, id: CommandId, settings: RegionSettings) -> SettingsReply {
    if node == services.cluster.node() {
        return settings::set_here(&services.cluster, id, settings).await;
    }
    match services.links.ask(node, Rpc::SetRegions { id, settings }).await {
        Ok(RpcReply::SetRegions(reply)) => reply,
        // A node of an earlier version, or one that has too much to do.
        Ok(RpcReply::Unsupported | RpcReply::Detached(Detached::Overloaded)) => SettingsReply::NotDone,
        Ok(
            RpcReply::Directory { .. }
            | RpcReply::Status(_)
            | RpcReply::Detached(_)
            | RpcReply::Heard
            | RpcReply::Trail(_)
            | RpcReply::Feedback(_),
        )
        | Err(_) => SettingsReply::Unknown,
    }
}

/// Says who stands where and what is promised, as it is after everything that was answered: what a change asks for that waits is what all go by already.
pub(super) async fn show(State(admin): State<Admin>) -> Response {
    match admin.services.cluster.read_barrier(PartitionId::CONTROL, Reader::Applied).await {
        Ok(BarrierOutcome::Passed { .. }) => {}
        _ => return api::error(StatusCode::SERVICE_UNAVAILABLE, "the control group does not answer; try again"),
    }
    answered(admin.services.cluster.clone(), None).await
}

/// The same as a node knows it that serves no mail: the home may be lost, and is not asked.
pub(super) async fn known_in(cluster: Cluster, region: &str) -> Response {
    answered(cluster, Some(region.to_owned())).await
}

async fn answered(cluster: Cluster, known_in: Option<String>) -> Response {
    match tokio::task::spawn_blocking(move || read(&cluster, known_in)).await {
        Ok(Ok(value)) => Json(value).into_response(),
        Ok(Err(e)) => api::error(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
        Err(e) => api::error(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
    }
}

fn read(cluster: &Cluster, known_in: Option<String>) -> Result<Value, StoreError> {
    let Some(control) = cluster.replica(PartitionId::CONTROL) else { return Ok(Value::Null) };
    let rows = cluster.rows().as_ref();
    let mut out = written(RegionsRow::read(rows, control)?.as_ref(), &placement::nodes(rows, control)?);
    if let (Some(regions), Some(lines)) = (Regions::from_rows(rows, control)?, out["regions"].as_array_mut()) {
        for line in lines {
            let name = RegionName(line["name"].as_str().unwrap_or_default().to_owned());
            line["left_behind"] = json!(was_left_behind(&regions, &name));
        }
    }
    out["takeovers"] = takeovers(cluster, &TakeoverRow::read_all(rows, control)?)?;
    if let Some(region) = known_in {
        out["known_in"] = json!(region);
    }
    Ok(out)
}

/// Every takeover, the newest last, with the fork of each partition of which there is a replica here.
fn takeovers(cluster: &Cluster, all: &[TakeoverRow]) -> Result<Value, StoreError> {
    let mut lines: Vec<Value> = Vec::new();
    for row in all {
        let TakeoverRow { incarnation, home, fork: _, since, word } = row;
        lines.push(json!({
            "incarnation": incarnation.number, "nonce": hex::encode(incarnation.nonce), "home": home.0, "since_unix_ms": since.0,
            "word": word, "forks": [],
        }));
    }
    for number in 0..=cluster.partitions() {
        let partition = PartitionId(number);
        let Some(replica) = cluster.replica(partition) else { continue };
        for taken in taken_over::of_group(cluster.rows().as_ref(), replica)? {
            let of = |line: &&mut Value| line["incarnation"] == taken.incarnation.number;
            if let Some(forks) = lines.iter_mut().find(of).and_then(|line| line["forks"].as_array_mut()) {
                let LogPosition { index, term } = taken.fork;
                forks.push(json!({"partition": number, "index": index.0, "term": term.0}));
            }
        }
    }
    Ok(Value::Array(lines))
}

/// As it goes over HTTP. A cluster of one region promises nothing about others.
fn written(row: Option<&RegionsRow>, nodes: &[NodeRow]) -> Value {
    let mut names: Vec<&str> = Vec::new();
    for node in nodes {
        if !names.contains(&node.region.as_str()) {
            names.push(&node.region);
        }
    }
    let home = row.map(|row| row.home.0.as_str()).or(names.first().copied());
    let lines: Vec<Value> = names
        .iter()
        .map(|name| {
            let ids: Vec<u64> = nodes.iter().filter(|node| node.region == *name).map(|node| node.id.0).collect();
            let waited_for = row.is_some_and(|row| row.sync_set.contains(&RegionName((*name).to_owned())));
            json!({"name": name, "home": home == Some(*name), "waited_for": waited_for, "nodes": ids})
        })
        .collect();
    let mut out = json!({"home": home, "regions": lines});
    if let Some(row) = row {
        let (durability, rpo_max_ms) = match row.durability {
            Durability::Geo => ("geo", None),
            Durability::Region { rpo_max_ms } => ("region", Some(rpo_max_ms)),
        };
        let unconfirmed = match row.unconfirmed {
            Unconfirmed::Degrade => "degrade",
            Unconfirmed::Refuse => "refuse",
        };
        out["durability"] = json!(durability);
        out["rpo_max_ms"] = json!(rpo_max_ms);
        out["unconfirmed"] = json!(unconfirmed);
        out["degrade_after_ms"] = json!(row.degrade_after_ms);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mailraft_storage::NodeId;

    use super::*;

    #[test]
    fn what_is_left_out_stays_and_a_bound_goes_with_its_promise() {
        let settings = |text: &str| serde_json::from_str::<NewSettings>(text).unwrap().settings();
        assert_eq!(settings("{}"), Ok(RegionSettings::default()));
        let durability = |text| settings(text).unwrap().durability;
        assert_eq!(durability(r#"{"durability": "geo"}"#), Some(Durability::Geo));
        assert_eq!(durability(r#"{"durability": "region"}"#), Some(Durability::Region { rpo_max_ms: 1_000 }));
        let bound = r#"{"durability": "region", "rpo_max_ms": 250}"#;
        assert_eq!(durability(bound), Some(Durability::Region { rpo_max_ms: 250 }));
        assert!(settings(r#"{"rpo_max_ms": 250}"#).is_err());
        assert!(settings(r#"{"durability": "geo", "rpo_max_ms": 250}"#).is_err());
        let others = settings(r#"{"unconfirmed": "refuse", "degrade_after_ms": 9000}"#).unwrap();
        assert_eq!((others.unconfirmed, others.degrade_after_ms), (Some(Unconfirmed::Refuse), Some(9_000)));
        let south = || RegionName("south".into());
        let sync_set = |text| settings(text).unwrap().sync_set;
        assert_eq!(sync_set(r#"{"add": "south"}"#), Some(SyncSetChange::Add(south())));
        assert_eq!(sync_set(r#"{"remove": "south"}"#), Some(SyncSetChange::Remove(south())));
        assert!(settings(r#"{"add": "south", "remove": "east"}"#).is_err());
        assert!(serde_json::from_str::<NewSettings>(r#"{"durabilty": "geo"}"#).is_err());
    }

    #[test]
    fn regions_are_told_the_homes_first_and_one_region_promises_nothing() {
        let node = |id, region: &str| NodeRow {
            id: NodeId(id),
            name: String::new(),
            region: region.into(),
            zone: String::new(),
            peer: String::new(),
        };
        let nodes = [node(1, "home"), node(2, "home"), node(3, "south")];
        let name = |name: &str| RegionName(name.into());
        let row = RegionsRow::new(name("home"), [name("south")].into(), Durability::Region { rpo_max_ms: 700 });
        let told = written(Some(&row), &nodes);
        assert_eq!((&told["durability"], &told["rpo_max_ms"]), (&json!("region"), &json!(700)));
        assert_eq!(told["regions"][0], json!({"name": "home", "home": true, "waited_for": false, "nodes": [1, 2]}));
        assert_eq!(told["regions"][1], json!({"name": "south", "home": false, "waited_for": true, "nodes": [3]}));
        let alone = written(None, &nodes[..2]);
        assert!(alone["home"] == "home" && alone.get("durability").is_none(), "{alone}");
    }
}
