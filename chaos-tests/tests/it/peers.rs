//! What the holder of one node's certificate can do to the others, with real processes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mailraft_chaos::cluster::Cluster;
use mailraft_chaos::smtp::{Smtp, SmtpReply};
use mailraft_chaos::wire::Trust;
use mailraft_cluster::frame;
use mailraft_cluster::{PeerBody, PeerMessage};
use mailraft_driver::pki::ClusterCa;
use mailraft_storage::{ClusterId, Incarnation, NodeId, PartitionId, ReplicaId, Term, UnixMillis};
use raft::eraftpb::{Entry, Message, MessageType};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

/// How long a node has to end a connection.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// What connections are for, as their preamble numbers it.
const RAFT: u8 = 1;
const SESSIONS: u8 = 3;
const BODIES: u8 = 4;

/// Somebody who has a node's certificate and key, and nothing else of it.
struct Forger {
    node: u64,
    dir: PathBuf,
    cluster: ClusterId,
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

impl Forger {
    fn with_files_of(cluster: &Cluster, node: u64) -> Self {
        let status = cluster.status(1).unwrap();
        let hex = status["cluster"].as_str().unwrap();
        let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
        let id = ClusterId(std::array::from_fn(byte));
        let dir = Path::new(&cluster.text(node, "config")).parent().unwrap().to_owned();
        Forger { node, dir, cluster: id }
    }

    /// Connects as that node would; the answer to the preamble is not read yet.
    fn connect(&self, cluster: &Cluster, to: u64, purpose: u8) -> std::io::Result<Stream> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(cluster.ca_cert()).map_err(std::io::Error::other)? {
            roots.add(certificate.map_err(std::io::Error::other)?).map_err(std::io::Error::other)?;
        }
        let chain = CertificateDer::pem_file_iter(self.dir.join("peer.pem")).map_err(std::io::Error::other)?;
        let chain = chain.collect::<Result<Vec<_>, _>>().map_err(std::io::Error::other)?;
        let key = PrivateKeyDer::from_pem_file(self.dir.join("peer.key")).map_err(std::io::Error::other)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(std::io::Error::other)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(std::io::Error::other)?;
        let name =
            ServerName::try_from(format!("node-{to}.{}.mailraft", self.cluster)).map_err(std::io::Error::other)?;
        let address = cluster.text(to, "peer").parse().map_err(std::io::Error::other)?;
        let socket = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        socket.set_read_timeout(Some(ENDS_WITHIN))?;
        let mut stream =
            StreamOwned::new(ClientConnection::new(Arc::new(config), name).map_err(std::io::Error::other)?, socket);
        let mut preamble = b"MLRF\x01".to_vec();
        preamble.push(purpose);
        preamble.extend_from_slice(&self.cluster.0);
        preamble.extend_from_slice(&self.node.to_be_bytes());
        preamble.extend_from_slice(&to.to_be_bytes());
        stream.write_all(&preamble)?;
        stream.flush()?;
        Ok(stream)
    }

    /// Says something as one of its node's replicas to another's on node `to`, after something that only a later version
    /// would understand; returns when the connection has ended.
    fn says(&self, cluster: &Cluster, to: u64, said: &PeerMessage) {
        let mut stream = self.connect(cluster, to, RAFT).unwrap();
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [1, 0], "the node's certificate is good");
        // Its kind is the last byte.
        let removed = frame::encode(&PeerMessage { body: PeerBody::Removed, ..said.clone() });
        let newer = [&removed[..removed.len() - 1], &[99, 1, 2, 3]].concat();
        stream.write_all(&frame_of(&newer)).unwrap();
        stream.write_all(&frame_of(&frame::encode(said))).unwrap();
        stream.flush().unwrap();
        let end = stream.read(&mut answer);
        let timed_out = matches!(&end, Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock));
        assert!(!timed_out && !matches!(end, Ok(1..)), "the connection goes on after {said:?}");
    }
}

/// What nodes say first on connections for mail, as the first version said it.
const GREETING: &str = include_str!("../../../node/server/testdata/v1/greeting.hex");

fn frame_of(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], body].concat()
}

#[test]
fn a_nodes_certificate_alone_opens_no_connection_that_carries_mail() {
    let mut cluster = Cluster::start_new(|c| c);
    let forger = Forger::with_files_of(&cluster, 3);
    cluster.kill(3);
    let digits: Vec<u8> = GREETING.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |d: &[u8]| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap();
    let greeting: Vec<u8> = digits.chunks(2).map(byte).collect();
    // A guess at the proof; and a question at once, in its place.
    let proof = frame_of(&[&[1, 0][..], &[7; 32]].concat());
    let question = frame_of(&[1, 9, 2, 3, 1]);
    for purpose in [SESSIONS, BODIES] {
        for said in [&proof, &question] {
            let mut stream = forger.connect(&cluster, 1, purpose).unwrap();
            let mut answer = [0; 2];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [1, 0], "the node's certificate is good");
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut told = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut told).unwrap();
            // Three bytes say that it is one; this version may name more features than the first.
            assert_eq!(told[..3], greeting[4..7], "a greeting: {told:?}");
            assert!(told.len() < 200 && told[3] >= greeting[7], "and nothing but that: {told:?}");
            stream.write_all(&greeting).unwrap();
            stream.write_all(said).unwrap();
            stream.flush().unwrap();
            let end = stream.read(&mut answer);
            let timed_out = matches!(&end, Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock));
            assert!(!timed_out && !matches!(end, Ok(1..)), "the connection goes on: {end:?}");
        }
    }
    let counted = "mailraft_peers_without_root_key_total 2";
    cluster.wait(counted, |c| c.get(1, "/metrics").is_ok_and(|text| text.contains(counted)));
    let log = std::fs::read_to_string(cluster.text(1, "log")).unwrap();
    assert!(log.contains("does not have this cluster's root key"), "a line in the log");
    // Nodes that have the key serve sessions through each other.
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    for node in [1, 2] {
        let mut smtp = Smtp::login(&trust, &cluster.text(node, "submissions"), &alice).unwrap();
        for to in [&alice, &bob] {
            let sent = smtp.send(&alice.address, &to.address, b"Subject: through\r\n\r\nx\r\n").unwrap();
            assert!(matches!(sent, SmtpReply::Accepted { .. }), "{sent:?}");
        }
    }
}

#[test]
fn a_revoked_certificate_ends_its_connections_and_a_new_one_is_taken_without_a_restart() {
    let lists = tempfile::tempdir().unwrap();
    let list = lists.path().join("revoked");
    std::fs::write(&list, "# none yet\n").unwrap();
    let line = format!("revoked_file = \"{}\"", list.display());
    let cluster = Cluster::start_new(|c| c.replace("# revoked_file = \"/etc/mailraft/revoked\"", &line));
    let pids: Vec<i32> = cluster.node_ids().into_iter().map(|node| cluster.pid(node)).collect();
    let forger = Forger::with_files_of(&cluster, 3);
    let old = CertificateDer::from_pem_file(forger.dir.join("peer.pem")).unwrap();
    let fingerprint: [u8; 32] =
        sha2::Digest::finalize(sha2::Digest::chain_update(sha2::Sha256::default(), &old)).into();
    let fingerprint: Vec<String> = fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
    // A connection of whoever has copied the certificate, which stands.
    let mut stream = forger.connect(&cluster, 1, RAFT).unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [1, 0]);

    std::fs::write(&list, format!("sha256 Fingerprint={}  # node 3, May\n", fingerprint.join(":"))).unwrap();
    for node in [1, 2] {
        cluster.signal(node, Signal::HUP);
    }
    assert!(matches!(stream.read(&mut answer), Ok(0) | Err(_)), "it has ended");
    for node in [1, 2] {
        let without = "mailraft_peer_connected{node=\"3\"} 0";
        cluster.wait(without, |c| c.get(node, "/metrics").is_ok_and(|text| text.contains(without)));
    }
    let mut stream = forger.connect(&cluster, 1, RAFT).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [1, 7], "revoked");

    let ca = |name: &str| std::fs::read_to_string(cluster.ca_cert().with_file_name(name)).unwrap();
    let ca = ClusterCa::from_pem(&ca("ca.pem"), &ca("ca.key")).unwrap();
    let new = ca.issue_node(NodeId(3), forger.cluster, &[]).unwrap();
    std::fs::write(forger.dir.join("peer.pem"), new.chain_pem).unwrap();
    std::fs::write(forger.dir.join("peer.key"), new.key_pem).unwrap();
    cluster.signal(3, Signal::HUP);
    cluster.wait_until_caught_up();
    for node in [1, 2] {
        let with = "mailraft_peer_connected{node=\"3\"} 1";
        cluster.wait(with, |c| c.get(node, "/metrics").is_ok_and(|text| text.contains(with)));
    }
    let now: Vec<i32> = cluster.node_ids().into_iter().map(|node| cluster.pid(node)).collect();
    assert_eq!(pids, now);
    assert!(pids.iter().all(|pid| Path::new(&format!("/proc/{pid}")).exists()));
}

/// The replica of a partition on a node, as that node says.
fn replica(status: &Value, node: u64, partition: u64) -> Value {
    let nodes = status["nodes"].as_array().unwrap();
    let of = nodes.iter().find(|line| line["id"] == node).unwrap();
    let mut replicas = of["partitions"].as_array().unwrap().iter();
    replicas.find(|replica| replica["partition"] == partition).unwrap().clone()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| value.as_str().and_then(|text| text.parse().ok()).expect("a number"))
}

#[test]
fn what_a_nodes_certificate_lets_one_invent_ends_the_connection_and_no_process() {
    let mut cluster = Cluster::start_new(|c| c);
    let forger = Forger::with_files_of(&cluster, 3);
    let status = cluster.status(1).unwrap();
    cluster.kill(3);
    let mut now = Value::Null;
    cluster.wait("each of the others leads and follows", |c| {
        let Some(status) = c.status(1) else { return false };
        let partitions = status["partitions"].as_array().cloned().unwrap_or_default();
        let all_led = partitions.iter().all(|p| p["leader"].as_u64().is_some_and(|leader| leader != 3));
        let has = |node: u64, role: &str| {
            partitions.iter().any(|p| replica(&status, node, number(&p["partition"]))["role"] == role)
        };
        let ready = all_led && [1, 2].into_iter().all(|node| has(node, "follower") && has(node, "leader"));
        now = status;
        ready
    });
    let mut said = 0;
    for to in [1, 2] {
        let partitions: Vec<u64> =
            now["partitions"].as_array().unwrap().iter().map(|p| number(&p["partition"])).collect();
        let of_role = |role: &str| {
            let found = partitions.iter().find(|p| replica(&now, to, **p)["role"] == role);
            *found.unwrap_or_else(|| panic!("node {to} has no {role}"))
        };
        for (label, partition, kind, message) in attacks(of_role("follower"), of_role("leader")) {
            let (from, own) = (number(&replica(&status, 3, partition)["replica"]), replica(&now, to, partition));
            let (own, term) = (number(&own["replica"]), number(&own["term"]));
            let mut raft = message(term);
            (raft.from, raft.to) = (from, own);
            raft.set_msg_type(kind);
            let message = PeerMessage {
                cluster: forger.cluster,
                partition: PartitionId(partition as u32),
                from: ReplicaId(from),
                to: ReplicaId(own),
                incarnation: Incarnation { number: 1, nonce: [0; 16] },
                wall: UnixMillis(1_800_000_000_000),
                body: PeerBody::Raft(raft),
            };
            forger.says(&cluster, to, &message);
            said += 1;
            let counted = format!("mailraft_peer_messages_refused_total{{node=\"3\",reason=\"{label}\"}}");
            cluster.wait(&counted, |c| c.get(to, "/metrics").is_ok_and(|text| text.contains(&counted)));
        }
        let many = PeerBody::Leads(vec![(PartitionId(1), Term(1)); 5_000]);
        let (from, own) = (number(&replica(&status, 3, 0)["replica"]), number(&replica(&now, to, 0)["replica"]));
        let message = PeerMessage {
            cluster: forger.cluster,
            partition: PartitionId::CONTROL,
            from: ReplicaId(from),
            to: ReplicaId(own),
            incarnation: Incarnation { number: 1, nonce: [0; 16] },
            wall: UnixMillis(1_800_000_000_000),
            body: many,
        };
        forger.says(&cluster, to, &message);
        let log = std::fs::read_to_string(cluster.text(to, "log")).unwrap();
        assert!(log.contains("what node 3 says is not heard"), "a line in the log");
        let passed_over = "mailraft_peer_messages_refused_total{node=\"3\",reason=\"newer\"} 9";
        assert!(cluster.get(to, "/metrics").unwrap().contains(passed_over), "{passed_over}");
        assert!(Path::new(&format!("/proc/{}", cluster.pid(to))).exists());
    }
    assert_eq!(said, 16);
    // The two that are left serve, and the third is welcome again.
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    let mut smtp = Smtp::login(&trust, &cluster.text(1, "submissions"), &alice).unwrap();
    let sent = smtp.send(&alice.address, &bob.address, b"Subject: still here\r\n\r\nx\r\n").unwrap();
    assert!(matches!(sent, SmtpReply::Accepted { .. }), "{sent:?}");
    cluster.start(3);
    cluster.wait_until_caught_up();
}

type Invented = fn(u64) -> Message;

/// The reason that each is counted under, the partition that it is about, its kind and the message in a term.
fn attacks(followed: u64, led: u64) -> [(&'static str, u64, MessageType, Invented); 8] {
    const FAR: u64 = 1 << 40;
    [
        ("commit", followed, MessageType::MsgHeartbeat, |term| Message {
            term: term + 1,
            commit: FAR,
            ..Message::default()
        }),
        ("number", followed, MessageType::MsgHeartbeat, |term| Message {
            term,
            commit: u64::MAX,
            ..Message::default()
        }),
        ("term", followed, MessageType::MsgHeartbeat, |_| Message { term: u64::MAX, ..Message::default() }),
        ("entries", followed, MessageType::MsgAppend, |term| {
            let entries = vec![Entry { term: term + 1, index: FAR + 1, ..Entry::default() }].into();
            Message { term: term + 1, index: FAR, commit: FAR, entries, ..Message::default() }
        }),
        ("answer", led, MessageType::MsgAppendResponse, |term| Message { term, index: FAR, ..Message::default() }),
        ("read", led, MessageType::MsgReadIndex, |_| Message::default()),
        ("kind", led, MessageType::MsgPropose, |_| Message::default()),
        ("snapshot", led, MessageType::MsgAppendResponse, |term| Message {
            term,
            reject: true,
            request_snapshot: FAR,
            ..Message::default()
        }),
    ]
}
