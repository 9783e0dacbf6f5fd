//! Ports: each can be had or is the running node's, and the other nodes are reached.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use mailraft_server::config::Config;

use super::finding::Finding;

/// Another node must take a connection within this.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Tries every port that the node listens on, and every other node.
pub fn examine(config: &Config) -> Vec<Finding> {
    let listen = &config.listen;
    let own = [
        ("peer.listen", Some(config.peer.listen)),
        ("listen.smtp", listen.smtp),
        ("listen.submission", listen.submission),
        ("listen.submissions", listen.submissions),
        ("listen.imap", listen.imap),
        ("listen.imaps", listen.imaps),
        ("listen.pop3", listen.pop3),
        ("listen.pop3s", listen.pop3s),
        ("listen.https", listen.https),
        ("admin.listen", Some(config.admin.listen)),
    ];
    let mut findings: Vec<Finding> =
        own.into_iter().filter_map(|(key, address)| Some(judge_own(key, address?, &own_port(address?)))).collect();
    // All at once: each may take its time.
    let asked: Vec<_> = config
        .cluster
        .peers
        .iter()
        .map(|(node, peer)| {
            let address = peer.clone();
            (node, peer, std::thread::spawn(move || reach(&address)))
        })
        .collect();
    findings.extend(asked.into_iter().map(|(node, peer, thread)| {
        let reached = thread.join().unwrap_or_else(|_| Err("it could not be tried".to_owned()));
        match reached {
            Ok(()) => Finding::good("ports", format!("node {node} is reached at {peer}")),
            Err(why) => Finding::warning(
                "ports",
                format!("node {node} is not reached at {peer} ({why})"),
                "start it; else see the firewalls of both, and cluster.peers here",
            ),
        }
    }));
    findings
}

/// What a port of this node's is.
#[derive(Debug, PartialEq, Eq)]
enum OwnPort {
    Free,
    Taken,
    Refused(String),
}

fn own_port(address: SocketAddr) -> OwnPort {
    match TcpListener::bind(address) {
        Ok(_) => OwnPort::Free,
        Err(error) if error.kind() == ErrorKind::AddrInUse => OwnPort::Taken,
        Err(error) => OwnPort::Refused(error.to_string()),
    }
}

fn judge_own(key: &str, address: SocketAddr, port: &OwnPort) -> Finding {
    match port {
        OwnPort::Free => Finding::good("ports", format!("{key} {address} is free")),
        OwnPort::Taken => Finding::good("ports", format!("{key} {address} is listened on: by this node, if it runs")),
        OwnPort::Refused(why) if address.port() < 1_024 => Finding::bad(
            "ports",
            format!("{key} {address} can't be had ({why})"),
            "give the program CAP_NET_BIND_SERVICE, as the packaged unit does, or use a higher port",
        ),
        OwnPort::Refused(why) => Finding::bad(
            "ports",
            format!("{key} {address} can't be had ({why})"),
            "name an address of this machine, or [::] for all",
        ),
    }
}

fn reach(peer: &str) -> Result<(), String> {
    let addresses = peer.to_socket_addrs().map_err(|e| format!("its name is not known: {e}"))?;
    let mut last = "its name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_MAX) {
            Ok(_) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_port_is_free_taken_or_not_to_be_had() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        assert_eq!(own_port(address), OwnPort::Taken);
        assert_eq!(reach(&address.to_string()), Ok(()));
        drop(listener);
        assert_eq!(own_port(address), OwnPort::Free);
        assert!(reach(&address.to_string()).is_err());
        let elsewhere: SocketAddr = "192.0.2.1:2525".parse().expect("an address");
        let refused = own_port(elsewhere);
        assert!(matches!(refused, OwnPort::Refused(_)), "{refused:?}");
        assert_eq!(judge_own("listen.smtp", elsewhere, &refused).verdict, Verdict::Bad);
    }
}
