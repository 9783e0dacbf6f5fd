//! How a node of a new cluster is written on the command line.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// The longest host or node name, in bytes (RFC 1035, section 2.3.4).
const NAME_MAX_BYTES: usize = 253;

/// A node of a new cluster: `id=1,host=mx1.example.org` and more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its number, 1 to 1,000,000.
    pub id: u64,
    /// Its host name or IP address, in its certificates.
    pub host: String,
    /// Its name for people and its directory's: the host name's first label unless given.
    pub name: String,
    /// Where other nodes reach it, if not at the host itself: host:port.
    pub peer: Option<String>,
    /// Its region.
    pub region: String,
    /// Its zone.
    pub zone: String,
    /// The address that it listens on, if not that of all nodes.
    pub listen: Option<IpAddr>,
}

impl FromStr for NodeSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut id, mut host, mut name, mut peer, mut region, mut zone, mut listen) =
            (None, None, None, None, None, None, None);
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("{part:?}: write key=value"))?;
            let slot = match key {
                "id" => &mut id,
                "host" => &mut host,
                "name" => &mut name,
                "peer" => &mut peer,
                "region" => &mut region,
                "zone" => &mut zone,
                "listen" => &mut listen,
                other => {
                    return Err(format!("{other:?}: choose from id, host, name, peer, region, zone, listen"));
                }
            };
            if slot.replace(value.to_owned()).is_some() {
                return Err(format!("{key} is given twice: keep one"));
            }
        }
        let id = id.ok_or("id is missing: write id=1,host=mx1.example.org")?;
        let id =
            id.parse().ok().filter(|id| (1..=1_000_000).contains(id)).ok_or_else(|| {
                format!("id is {id:?}: choose between 1 and 1000000, never used again for another node")
            })?;
        let host = host.ok_or("host is missing: write the node's host name or IP address, host=mx1.example.org")?;
        if host.parse::<IpAddr>().is_err() {
            named("host", &host)?;
        }
        let name = match name {
            Some(name) => name,
            None if host.parse::<IpAddr>().is_ok() => format!("node{id}"),
            None => host.split('.').next().unwrap_or_default().to_owned(),
        };
        named("name", &name)?;
        if let Some(peer) = &peer {
            let right = peer.parse::<SocketAddr>().is_ok_and(|a| a.port() > 0)
                || peer.rsplit_once(':').is_some_and(|(host, port)| {
                    named("peer", host).is_ok() && port.parse::<u16>().is_ok_and(|p| p > 0)
                });
            if !right {
                return Err(format!("peer is {peer:?}: write host:port, as the other nodes reach this one"));
            }
        }
        let region = region.unwrap_or_else(|| "home".to_owned());
        named("region", &region)?;
        let zone = zone.unwrap_or_default();
        if !zone.is_empty() {
            named("zone", &zone)?;
        }
        let listen = match listen {
            Some(text) => {
                Some(text.parse().map_err(|_| format!("listen is {text:?}: write an IP address of the node"))?)
            }
            None => None,
        };
        Ok(NodeSpec { id, host, name, peer, region, zone, listen })
    }
}

/// The most nodes of a cluster on one machine: their ports are 1,000 apart.
pub const QUICKSTART_NODES_MAX: u64 = 9;

/// Regions of a new cluster on one machine, the home's first: `home=3,south=3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionSpecs(pub Vec<RegionSpec>);

/// A region of a new cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionSpec {
    /// Its name.
    pub name: String,
    /// How many nodes it has, 1 at least.
    pub nodes: u64,
}

impl FromStr for RegionSpecs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut regions: Vec<RegionSpec> = Vec::new();
        for part in text.split(',') {
            let (name, nodes) = part.split_once('=').ok_or_else(|| format!("{part:?}: write home=3,south=3"))?;
            named("a region", name)?;
            let nodes = nodes.parse().ok().filter(|nodes| (1..=QUICKSTART_NODES_MAX).contains(nodes));
            let nodes = nodes
                .ok_or_else(|| format!("{part:?}: a region has 1 to {QUICKSTART_NODES_MAX} nodes, such as {name}=3"))?;
            if regions.iter().any(|region| region.name == name) {
                return Err(format!("region {name} is given twice: keep one"));
            }
            regions.push(RegionSpec { name: name.to_owned(), nodes });
        }
        let all: u64 = regions.iter().map(|region| region.nodes).sum();
        if all > QUICKSTART_NODES_MAX {
            return Err(format!("{all} nodes in all: one machine takes {QUICKSTART_NODES_MAX}"));
        }
        Ok(RegionSpecs(regions))
    }
}

/// Letters, digits, hyphens and dots; neither a path nor an option.
pub fn named(key: &str, text: &str) -> Result<(), String> {
    let right = !text.is_empty()
        && text.len() <= NAME_MAX_BYTES
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
        && !text.starts_with(['.', '-'])
        && !text.contains("..");
    if right {
        Ok(())
    } else {
        Err(format!("{key} is {text:?}: use letters, digits, hyphens and dots, a letter or digit first"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NodeSpec, String> {
        text.parse()
    }

    #[test]
    fn a_node_is_named_after_its_host_unless_it_says_otherwise() {
        let node = parse("id=2,host=mx2.example.org").unwrap();
        assert_eq!((node.id, node.name.as_str(), node.region.as_str()), (2, "mx2", "home"));
        assert_eq!(parse("id=2,host=127.0.0.2").unwrap().name, "node2");
        let node = parse("id=7,host=2001:db8::7,name=ams-1,peer=[2001:db8::7]:700,region=eu,zone=a,listen=2001:db8::7")
            .unwrap();
        assert_eq!((node.name.as_str(), node.zone.as_str()), ("ams-1", "a"));
        assert_eq!(node.peer.as_deref(), Some("[2001:db8::7]:700"));
    }

    #[test]
    fn regions_are_named_and_counted_and_what_is_wrong_is_said() {
        let regions = "home=3,south=1".parse::<RegionSpecs>().unwrap().0;
        let counted: Vec<(&str, u64)> = regions.iter().map(|r| (r.name.as_str(), r.nodes)).collect();
        assert_eq!(counted, [("home", 3), ("south", 1)]);
        for (text, said) in [
            ("", "write home=3,south=3"),
            ("home", "write home=3,south=3"),
            ("home=0", "a region has 1 to 9 nodes"),
            ("home=x", "a region has 1 to 9 nodes"),
            ("home=3,=3", "use letters"),
            ("home=3,home=1", "region home is given twice"),
            ("home=5,south=5", "10 nodes in all"),
        ] {
            let error = text.parse::<RegionSpecs>().err().unwrap_or_default();
            assert!(error.contains(said), "{text}: {error:?} does not say {said:?}");
        }
    }

    #[test]
    fn errors_name_the_key_and_the_fix() {
        let long = format!("id=1,host={}", "a".repeat(NAME_MAX_BYTES + 1));
        for (text, said) in [
            ("mx1.example.org", "write key=value"),
            ("host=a", "id is missing"),
            ("id=0,host=a", "choose between 1 and 1000000"),
            ("id=x,host=a", "choose between 1 and 1000000"),
            ("id=1", "host is missing"),
            ("id=1,id=2,host=a", "id is given twice"),
            ("id=1,host=a,rack=3", "choose from id, host"),
            ("id=1,host=a b", "host is \"a b\""),
            ("id=1,host=a,name=../b", "name is \"../b\""),
            ("id=1,host=a,peer=b", "write host:port"),
            ("id=1,host=a,peer=b:0", "write host:port"),
            ("id=1,host=a,region=e\"u", "region is"),
            ("id=1,host=a,listen=b", "write an IP address"),
            (long.as_str(), "use letters"),
        ] {
            let error = parse(text).err().unwrap_or_default();
            assert!(error.contains(said), "{text}: {error:?} does not say {said:?}");
        }
    }
}
