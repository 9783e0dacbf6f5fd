//! `mailraft cluster`: the first state of a cluster of several machines, and its nodes' certificates. Both are written
//! on a machine that is none of them; what is in `nodes/<name>` is then copied to that node, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use mailraft_driver::pki::ClusterCa;
use mailraft_server::bootstrap::{FirstNode, FirstState, create_first_state};
use mailraft_server::config::{Config, Files, Listens, Rendered, RootKeyUse, render};
use mailraft_storage::{ClusterId, NodeId};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::failed::Failed;
use crate::node_files::{self, PUBLIC, SECRET};
use crate::node_spec::{NodeSpec, named};
use crate::options::{Certificates, CreateCluster};
use crate::output::tell;
use crate::stores::OnDisk;

/// Ports that have no well-known number.
const PEER_PORT: u16 = 10_700;
const ADMIN_PORT: u16 = 10_080;

/// Writes the first state of every node of a new cluster.
pub fn create(options: &CreateCluster) -> Result<(), Failed> {
    let dir = &options.dir;
    node_files::check_new_dir(dir)?;
    for path in [&options.config_dir, &options.data_dir].into_iter().chain(&options.secrets_dir) {
        node_files::check_path(path)?;
        if !path.is_absolute() {
            return Err(Failed::usage(format!("{} is where the node has it: write an absolute path", path.display())));
        }
    }
    check(&options.nodes)?;
    for name in &options.mail_names {
        // A star stands for one label.
        let rest = name.strip_prefix("*.").unwrap_or(name);
        if name.parse::<IpAddr>().is_err() {
            named("--mail-name", rest).map_err(Failed::usage)?;
        }
    }
    let cluster = ClusterId(*node_files::random::<16>()?);
    let root_key = Zeroizing::new(hex::encode(node_files::random::<32>()?.as_slice()));
    let ca = ClusterCa::create(cluster).map_err(|e| Failed::because(e.to_string()))?;
    node_files::make_dir(&dir.join("authority"))?;
    node_files::keep_private(dir)?;
    node_files::write_authority(&ca, &dir.join("authority"))?;
    let home = options.nodes.first().map(|node| node.region.clone());
    let mut first = Vec::new();
    for node in &options.nodes {
        let own = dir.join("nodes").join(&node.name);
        let files = own.join("config");
        node_files::make_dir(&files)?;
        node_files::write(&files.join("ca.pem"), ca.cert_pem().as_bytes(), PUBLIC)?;
        let root_key_use = node_files::write_root_key(&files, &root_key, Some(&node.region) == home.as_ref())?;
        let token = Zeroizing::new(hex::encode(node_files::random::<24>()?.as_slice()));
        node_files::write(&files.join("admin-token"), line(&token).as_bytes(), SECRET)?;
        node_files::issue_certificates(
            &ca,
            cluster,
            NodeId(node.id),
            std::slice::from_ref(&node.host),
            &options.mail_names,
            &files,
        )?;
        let text = configuration(options, cluster, node, root_key_use);
        // Whatever was given on the command line, a node must be able to read it.
        Config::parse(&text).map_err(|e| Failed::usage(format!("node {}: {e}", node.id)))?;
        node_files::write(&files.join("mailraft.toml"), text.as_bytes(), PUBLIC)?;
        first.push(FirstNode {
            id: node.id,
            name: node.name.clone(),
            region: node.region.clone(),
            zone: node.zone.clone(),
            peer: peer(node, options.port_offset),
            data_dir: own.join("data"),
        });
    }
    let state = FirstState { cluster, partitions: options.partitions, root_key_hex: root_key, nodes: first };
    create_first_state(&state, &OnDisk).map_err(Failed::because)?;
    let nodes: Vec<Value> = options
        .nodes
        .iter()
        .map(|n| {
            json!({"id": n.id, "name": n.name, "host": n.host, "region": n.region, "zone": n.zone,
                   "peer": peer(n, options.port_offset)})
        })
        .collect();
    let described = json!({"cluster": cluster.to_string(), "partitions": options.partitions, "nodes": nodes,
                           "mail_names": options.mail_names});
    let text = serde_json::to_string_pretty(&described).map_err(|e| Failed::because(e.to_string()))?;
    // Last: where it is, all the rest is.
    node_files::write(&dir.join("cluster.json"), line(&text).as_bytes(), PUBLIC)?;
    explain(options);
    Ok(())
}

/// Issues new certificates and keys for nodes of a cluster that `create` made.
pub fn certificates(options: &Certificates) -> Result<(), Failed> {
    let path = options.dir.join("cluster.json");
    let text = read(&path)?;
    let described: Value =
        serde_json::from_str(&text).map_err(|e| Failed::because(format!("{} is damaged ({e})", path.display())))?;
    let cluster = described["cluster"]
        .as_str()
        .and_then(ClusterId::from_hex)
        .ok_or_else(|| Failed::because(format!("{} is damaged: it names no cluster", path.display())))?;
    let (certificate, key) = node_files::authority(&options.dir.join("authority"));
    let key = Zeroizing::new(read(&key)?);
    let ca = ClusterCa::from_pem(&read(&certificate)?, &key)
        .map_err(|e| Failed::because(format!("the authority in {}: {e}", options.dir.display())))?;
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|n| n.as_str().map(str::to_owned)).collect()
    };
    let nodes = described["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    for wanted in &options.nodes {
        if !nodes.iter().any(|n| n["name"] == wanted.as_str()) {
            let known: Vec<&str> = nodes.iter().filter_map(|n| n["name"].as_str()).collect();
            return Err(Failed::usage(format!("no node is called {wanted}: choose from {}", known.join(", "))));
        }
    }
    for node in nodes {
        let (Some(id), Some(name), Some(host)) = (node["id"].as_u64(), node["name"].as_str(), node["host"].as_str())
        else {
            return Err(Failed::because(format!("{} is damaged: a node has no id, name or host", path.display())));
        };
        if !options.nodes.is_empty() && !options.nodes.iter().any(|n| n == name) {
            continue;
        }
        let own = options.dir.join("nodes").join(name).join("config");
        node_files::make_dir(&own)?;
        let names = [host.to_owned()];
        node_files::issue_certificates(&ca, cluster, NodeId(id), &names, &texts(&described["mail_names"]), &own)?;
        tell!("issued certificates for {name} in {}", own.display());
    }
    Ok(())
}

/// Refuses nodes that can't be one cluster.
fn check(nodes: &[NodeSpec]) -> Result<(), Failed> {
    let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
    for node in nodes {
        if !ids.insert(node.id) {
            return Err(Failed::usage(format!("two nodes have the number {}: give each its own", node.id)));
        }
        if !names.insert(&node.name) {
            return Err(Failed::usage(format!("two nodes are called {}: give each its own name", node.name)));
        }
    }
    Ok(())
}

fn configuration(options: &CreateCluster, cluster: ClusterId, node: &NodeSpec, root_key_use: RootKeyUse) -> String {
    let at = |port: u16| SocketAddr::new(node.listen.unwrap_or(options.listen), port + options.port_offset);
    let loopback = match node.listen.unwrap_or(options.listen) {
        own if own.is_loopback() => own,
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let peers: Vec<(u64, String)> =
        options.nodes.iter().filter(|n| n.id != node.id).map(|n| (n.id, peer(n, options.port_offset))).collect();
    render(&Rendered {
        id: node.id,
        name: &node.name,
        region: &node.region,
        root_key_use,
        zone: &node.zone,
        cluster: &cluster.to_string(),
        partitions: options.partitions,
        peers: &peers,
        hostname: &node.host,
        dmarc: "mark",
        outbound: true,
        data_dir: &options.data_dir,
        files: Files::in_dirs(&options.config_dir, options.secrets_dir.as_ref().unwrap_or(&options.config_dir)),
        listens: Listens {
            peer: at(PEER_PORT),
            smtp: at(25),
            submission: at(587),
            submissions: at(465),
            imap: at(143),
            imaps: at(993),
            pop3: at(110),
            pop3s: at(995),
            admin: SocketAddr::new(loopback, ADMIN_PORT + options.port_offset),
        },
    })
}

/// Where other nodes reach a node.
fn peer(node: &NodeSpec, port_offset: u16) -> String {
    node.peer.clone().unwrap_or_else(|| {
        let port = PEER_PORT + port_offset;
        match node.host.parse::<IpAddr>() {
            Ok(address) => SocketAddr::new(address, port).to_string(),
            Err(_) => format!("{}:{port}", node.host),
        }
    })
}

fn explain(options: &CreateCluster) {
    let dir = options.dir.display();
    tell!("Made a cluster of {} nodes with {} mail partitions in {dir}\n", options.nodes.len(), options.partitions);
    let home = options.nodes.first().map_or("", |node| node.region.as_str());
    for node in &options.nodes {
        let keeps = match node.region == home {
            true => String::new(),
            false => format!("; keeps an encrypted backup in region {}, without the root key", node.region),
        };
        tell!("  node {}  {}  reached by the others at {}{keeps}", node.id, node.name, peer(node, options.port_offset));
    }
    tell!("\nTo each node, and to no other, copy what is below its name:");
    tell!("  {dir}/nodes/NAME/config/  to {}", options.config_dir.display());
    tell!("  {dir}/nodes/NAME/data/    to {}", options.data_dir.display());
    tell!("then start it: mailraft node --config {}", options.config_dir.join("mailraft.toml").display());
    tell!("\nKeep {dir}/authority here: who has its key can pass for a node. Delete nodes/*/data here");
    tell!("once it is copied: a node's first state is started from once, ever.");
    tell!("Keep a copy of root.key elsewhere: without it nothing can be read.");
}

fn read(path: &Path) -> Result<String, Failed> {
    fs::read_to_string(path).map_err(|e| {
        Failed::because(format!(
            "{} can't be read ({e}): name the directory of mailraft cluster create with --dir",
            path.display()
        ))
    })
}

fn line(text: &str) -> Zeroizing<String> {
    Zeroizing::new(format!("{text}\n"))
}
