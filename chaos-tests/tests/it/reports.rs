//! What other domains are told once a day: what was counted at all nodes, once, whoever sends it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use mailraft_chaos::cluster::Cluster;
use mailraft_chaos::name_server::{NameServer, Record};
use mailraft_chaos::other_server::{OtherServer, Taken};
use mailraft_chaos::plain::Plain;
use mailraft_chaos::set_clock::{SetClock, machine_unix_s};
use serde_json::{Value, json};

use crate::other_mtas::certificates::Authority;
use crate::sending::{cluster_with, of_subject, queue, submit};

const DAY_S: u64 = 86_400;
const HOUR_S: u64 = 3_600;

/// A cluster that reports, by a clock that is set to noon, and which day that is.
fn reporting(dns: &NameServer, other: &OtherServer) -> (Cluster, SetClock, u64) {
    let text = |text: &str| [Record::Txt(text.to_owned())];
    let at_sink = [Record::Mx(10, "mx.away.test".to_owned())];
    dns.set("quiet.test", &at_sink);
    dns.set("_smtp._tls.away.test", &text("v=TLSRPTv1; rua=mailto:tls@away.test"));
    dns.set("_smtp._tls.quiet.test", &text("v=TLSRPTv1; rua=mailto:tls@quiet.test"));
    for (domain, rua) in [
        ("bank.example", "mailto:dmarc@away.test!10m"),
        // Somebody else, who does not want them.
        ("rude.example", "mailto:victim@away.test"),
        ("tiny.example", "mailto:tiny@away.test!1k"),
    ] {
        dns.set(&format!("_dmarc.{domain}"), &text(&format!("v=DMARC1; p=quarantine; rua={rua}")));
        dns.set(domain, &text("v=spf1 -all"));
    }
    for domain in ["bank.example", "tiny.example"] {
        dns.set(&format!("{domain}._report._dmarc.away.test"), &text("v=DMARC1"));
    }
    let mut cluster = cluster_with(dns, other, &|text| {
        text.replace("dmarc = \"off\"", "dmarc = \"mark\"")
            .replace("dmarc = false", "dmarc = true")
            .replace("from = \"\"", "from = \"reports@example.test\"")
    });
    let clock = SetClock::in_dir(&cluster.dir).unwrap();
    // Never backwards.
    let day = (machine_unix_s() + DAY_S / 2) / DAY_S;
    clock.set(day * DAY_S + 12 * HOUR_S).unwrap();
    for node in cluster.node_ids() {
        cluster.stop(node);
        cluster.start_by_clock(node, &clock);
    }
    cluster.wait_until_caught_up();
    (cluster, clock, day)
}

/// Hands a message over as another server does, again where that may be better later.
fn bring(cluster: &Cluster, node: u64, author: &str, id: &str) {
    let domain = author.rsplit_once('@').unwrap().1;
    let to = cluster.account(1).address;
    let once = || -> std::io::Result<String> {
        let mut server = Plain::connect(&cluster.text(node, "smtp"))?;
        let mut say = |text: &str| {
            server.send(text.as_bytes())?;
            server.line()
        };
        say("")?;
        for line in ["HELO relay.example", &format!("MAIL FROM:<x@{domain}>"), &format!("RCPT TO:<{to}>"), "DATA"] {
            let reply = say(&format!("{line}\r\n"))?;
            if !reply.starts_with(['2', '3']) {
                return Ok(reply);
            }
        }
        say(&format!("From: <{author}>\r\nSubject: {id}\r\nMessage-ID: <{id}@{domain}>\r\n\r\nx\r\n.\r\n"))
    };
    cluster.wait("it is taken", |_| once().is_ok_and(|reply| reply.starts_with("250 ")));
}

fn reports_on<'a>(taken: &'a [Taken], domain: &str) -> Vec<&'a Taken> {
    let line = format!("Subject: Report Domain: {domain}\r\n");
    taken.iter().filter(|taken| taken.content.contains(&line)).collect()
}

/// What Python reads in a report.
fn read(report: &Taken) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/report.py");
    let mut python = Command::new("/usr/bin/python3");
    let mut child = python.arg(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(report.content.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", report.content);
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Python's server for what is posted, with a certificate for a name; it ends with the test.
struct Collector {
    process: Child,
    said: BufReader<ChildStdout>,
    port: String,
}

impl Collector {
    fn start(dir: &Path, name: &str) -> Self {
        let certificate = Authority::new(&dir.join("authority")).issue("collector", &[name]);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/collector.py");
        let mut python = Command::new("/usr/bin/python3");
        python.arg(path).arg(&certificate.chain).arg(&certificate.key);
        let mut process = python.stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        let mut collector = Collector { process, said, port: String::new() };
        collector.port = collector.line();
        collector
    }

    /// The next line that it says: it waits for one.
    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.said.read_line(&mut line).unwrap() > 0, "it ended");
        line.trim().to_owned()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The node that leads the control group.
fn leader(cluster: &Cluster) -> u64 {
    let mut found = None;
    cluster.wait("somebody leads the control group", |cluster| {
        let status = cluster.node_ids().into_iter().find_map(|node| cluster.status(node));
        let partitions = status.and_then(|status| status["partitions"].as_array().cloned()).unwrap_or_default();
        found = partitions.iter().find(|of| of["partition"] == 0).and_then(|of| of["leader"].as_u64());
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn other_domains_are_told_once_what_all_nodes_counted_whoever_sends_it() {
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    let (mut cluster, clock, day) = reporting(&dns, &other);
    let alice = cluster.account(0);

    // Each node counts its own; one of them starts again, and another one leads by then.
    for node in cluster.node_ids() {
        bring(&cluster, node, "boss@bank.example", &format!("n{node}"));
    }
    for author in ["boss@rude.example", "boss@tiny.example"] {
        bring(&cluster, 1, author, "one");
    }
    submit(&cluster, &alice, "bob@away.test", "hello", "x");
    submit(&cluster, &alice, "bob@quiet.test", "hush", "x");
    cluster.wait("it is sent", |_| other.count() == 2);
    let first = leader(&cluster);
    cluster.stop(first);
    cluster.start_by_clock(first, &clock);
    cluster.wait_until_caught_up();

    // The day is over, and nobody waits for the night: all nodes send it at once.
    clock.set((day + 1) * DAY_S + 60).unwrap();
    let yesterday = format!("\"day_unix_s\":{}", day * DAY_S);
    cluster.wait("the nodes agree that it is over", |cluster| {
        std::thread::scope(|scope| {
            let nodes = cluster.node_ids().into_iter();
            let asked: Vec<_> =
                nodes.map(|node| scope.spawn(move || cluster.request(node, "POST", "/api/v1/reports"))).collect();
            let answers: Vec<_> = asked.into_iter().map(|asked| asked.join().unwrap()).collect();
            answers.iter().any(|answer| answer.as_ref().is_ok_and(|begun| begun.contains(&yesterday)))
        })
    });
    let again = cluster.runs(&["reports", "send", "--json"], "");
    let (begun, refused) = (String::from_utf8_lossy(&again.stdout), String::from_utf8_lossy(&again.stderr));
    assert!(begun.contains(&yesterday) || refused.contains("are being sent"), "{begun} {refused}");
    cluster.wait("reports arrive", |_| {
        ["away.test", "quiet.test", "bank.example"].iter().all(|of| !reports_on(&other.taken(), of).is_empty())
    });
    cluster.wait("nothing waits", |cluster| queue(cluster, 1).is_empty());
    let taken = other.taken();
    let [tls] = reports_on(&taken, "away.test")[..] else { panic!("{taken:#?}") };
    assert_eq!((tls.from.as_str(), tls.to.as_slice()), ("", &["tls@away.test".to_owned()][..]));
    assert!(tls.content.contains("DKIM-Signature: ") && tls.content.contains("d=example.test"), "{}", tls.content);
    let said = read(tls);
    assert_eq!((said["organization"].as_str(), said["report_type"].as_str()), (Some("example.test"), Some("tlsrpt")));
    assert_eq!((said["tls_required"].as_str(), said["from"].as_str()), (Some("No"), Some("reports@example.test")));
    let policies = json!([{
        "type": "no-policy-found", "domain": "away.test", "well": 0, "badly": 1, "failures": ["starttls-not-supported"]
    }]);
    assert_eq!(said["policies"], policies);
    let [dmarc] = reports_on(&taken, "bank.example")[..] else { panic!("{taken:#?}") };
    assert_eq!(dmarc.to, ["dmarc@away.test"]);
    let said = read(dmarc);
    assert_eq!((said["begin"].as_u64(), said["policy"].as_str()), (Some(day * DAY_S), Some("quarantine")));
    let row = json!([{
        "source": "127.0.0.1", "count": 3, "disposition": "none", "dkim": "fail", "spf": "fail",
        "header_from": "bank.example", "spf_result": "fail"
    }]);
    assert_eq!(said["rows"], row, "of all three nodes");
    assert!(said["file"].as_str().unwrap().starts_with("example.test!bank.example!"), "{said}");

    // The next day by itself, by whoever leads then.
    let second = leader(&cluster);
    let witness = cluster.node_ids().into_iter().find(|node| *node != second).unwrap();
    bring(&cluster, witness, "boss@bank.example", "later");
    cluster.stop(second);
    clock.set((day + 2) * DAY_S + 5 * HOUR_S).unwrap();
    cluster.wait("it is told again", |_| reports_on(&other.taken(), "bank.example").len() == 2);
    cluster.start_by_clock(second, &clock);
    cluster.wait_until_caught_up();
    cluster.wait("nothing waits", |cluster| queue(cluster, 1).is_empty());
    let taken = other.taken();
    let of_bank = reports_on(&taken, "bank.example");
    let rows =
        |report: &Taken| read(report)["rows"].as_array().unwrap().iter().map(|row| row["count"].clone()).collect();
    assert_eq!(of_bank.len(), 2);
    let counts: Vec<Value> = rows(of_bank[1]);
    assert_eq!(counts, [json!(1)]);
    assert_eq!(reports_on(&taken, "quiet.test").len(), 1, "there is no report about how a report arrived");
    for nobody in ["rude.example", "tiny.example"] {
        assert!(reports_on(&taken, nobody).is_empty(), "{nobody}");
    }
    let counted = |result: &str| {
        let line = format!("mailraft_domain_reports_total{{kind=\"dmarc\",result=\"{result}\"}}");
        cluster.node_ids().iter().any(|node| cluster.get(*node, "/metrics").unwrap_or_default().contains(&line))
    };
    assert!(counted("too_long") && counted("not_wanted"));
}

#[test]
fn a_report_about_tls_is_posted_over_https_to_who_wants_it_so_under_the_id_that_the_mail_has() {
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    let (cluster, clock, day) = reporting(&dns, &other);
    let mut collector = Collector::start(&cluster.dir, "collector.posted.test");
    let at = format!("collector.posted.test:{}", collector.port);
    dns.set("collector.posted.test", &[Record::A([127, 0, 0, 1].into())]);
    dns.set("posted.test", &[Record::Mx(10, "mx.away.test".to_owned())]);
    let rua = format!("v=TLSRPTv1; rua=https://{at}/v1/reports,mailto:tls@away.test");
    dns.set("_smtp._tls.posted.test", &[Record::Txt(rua)]);
    submit(&cluster, &cluster.account(0), "bob@posted.test", "hello", "x");
    cluster.wait("it is sent", |_| !of_subject(&other.taken(), "hello").is_empty());
    clock.set((day + 1) * DAY_S + 60).unwrap();
    let yesterday = format!("\"day_unix_s\":{}", day * DAY_S);
    cluster.wait("the day is over", |cluster| {
        cluster.request(1, "POST", "/api/v1/reports").is_ok_and(|begun| begun.contains(&yesterday))
    });
    let posted: Value = serde_json::from_str(&collector.line()).unwrap();
    for (name, value) in [("path", "/v1/reports"), ("host", &at), ("type", "application/tlsrpt+gzip")] {
        assert_eq!(posted[name].as_str(), Some(value), "{posted}");
    }
    assert_eq!(posted["tls"].as_str(), Some("TLSv1.3"));
    assert_eq!(posted["policies"], json!([["posted.test", 1]]));
    cluster.wait("the mail arrives", |_| !reports_on(&other.taken(), "posted.test").is_empty());
    assert_eq!(read(reports_on(&other.taken(), "posted.test")[0])["id"], posted["id"]);
}
