//! What a backup region costs, by how far away it is: deliveries beside those of a cluster without one, bytes over the link,
//! failover at home, and how long `status` takes to say how the region is.

use std::time::Duration;

use super::{Measured, create_accounts, deliveries, failovers, leads_again, ms, print_disk, quantile};
use crate::cluster::Cluster;
use crate::scenarios::{two_regions, until_said};
use crate::wan::Wan;

/// One way over the link, in milliseconds.
const DISTANCES_MS: [u64; 3] = [5, 40, 150];
const CONNECTIONS: [usize; 3] = [1, 16, 64];
/// What is promised, as it is set and called.
const PROMISES: [(&str, &[&str]); 2] =
    [("geo", &["--durability", "geo"]), ("region, 1 s", &["--durability", "region", "--rpo-max", "1s"])];
/// How often the region goes away and comes back.
const ABSENCES: usize = 5;
/// Bytes of Raft messages and snapshots to other regions.
const SENT_BYTES: &str = "mailraft_region_sent_bytes_total";

/// Prints all figures.
///
/// # Errors
/// If a client can't do what it should.
///
/// # Panics
/// If a cluster can't be started.
pub fn run(seconds: u64, kills: usize) -> Result<(), String> {
    let time = Duration::from_secs(seconds);
    println!(
        "| one way | promise | connections | messages/s | p50 ms | in round trips | p99 ms | CPU at home, ms/message | bytes sent for each accepted |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|---:|");
    let without = {
        let mut cluster = Cluster::start_new(|config| config);
        let accounts = create_accounts(&cluster);
        for connections in CONNECTIONS {
            let measured = deliveries(&cluster, &accounts, connections, time)?;
            line("no region", "", None, connections, &measured, None);
        }
        failovers(&mut cluster, &accounts, kills, &leads_again)?
    };
    let (mut cluster, wan) = two_regions(Duration::from_millis(DISTANCES_MS[0]));
    let accounts = create_accounts(&cluster);
    for one_way_ms in DISTANCES_MS {
        goes_away_to(&cluster, &wan, one_way_ms);
        for (promise, settings) in PROMISES {
            set(&cluster, settings);
            for connections in CONNECTIONS {
                let before = sent_bytes(&cluster);
                let measured = deliveries(&cluster, &accounts, connections, time)?;
                let sent = (sent_bytes(&cluster) - before) / measured.accepted_bytes;
                let away = format!("{one_way_ms} ms");
                line(&away, promise, Some(2 * one_way_ms), connections, &measured, Some(sent));
                // What is behind comes after.
                cluster.wait_until_caught_up();
            }
        }
    }
    println!();
    print_disk(&cluster)?;
    println!(
        "\n| SIGKILL of a node at home to the first acknowledged write in the slowest partition it led, {kills} kills | p50 ms | max ms |"
    );
    println!("|---|---:|---:|");
    failover_line("no region", &without);
    for (promise, settings) in PROMISES {
        set(&cluster, settings);
        let times = failovers(&mut cluster, &accounts, kills, &leads_again)?;
        failover_line(&format!("south at 150 ms, {promise}"), &times);
    }
    set(&cluster, &["--durability", "geo", "--unconfirmed", "degrade", "--degrade-after", "1s"]);
    wan.cut(true);
    until_said(&cluster, "alone")?;
    // While a region is silent the lead stays where it is.
    let times = failovers(&mut cluster, &accounts, kills, &|cluster, _, via| home_caught_up(cluster, via))?;
    failover_line("south away, home alone", &times);
    wan.cut(false);
    until_said(&cluster, "holds")?;
    set(&cluster, &["--unconfirmed", "refuse"]);
    sentences(&cluster, &wan)
}

/// How long it takes until `status` says that the south is away, and that it is back.
fn sentences(cluster: &Cluster, wan: &Wan) -> Result<(), String> {
    println!("\n| until status says, {ABSENCES} times | p50 s | max s |\n|---|---:|---:|");
    for one_way_ms in DISTANCES_MS {
        goes_away_to(cluster, wan, one_way_ms);
        let (mut stopped, mut holds) = (Vec::new(), Vec::new());
        for _ in 0..ABSENCES {
            wan.cut(true);
            stopped.push(until_said(cluster, "stopped")?);
            wan.cut(false);
            holds.push(until_said(cluster, "holds")?);
        }
        for (what, times) in [("cut off, until STOPPED", stopped), ("there again, until it holds all", holds)] {
            let (p50, max) = (quantile(&times, 0.5), quantile(&times, 1.0));
            println!("| {one_way_ms} ms: {what} | {:.1} | {:.1} |", p50.as_secs_f64(), max.as_secs_f64());
        }
    }
    Ok(())
}

fn line(
    away: &str,
    promise: &str,
    round_trip_ms: Option<u64>,
    connections: usize,
    measured: &Measured,
    sent: Option<f64>,
) {
    let p50 = ms(measured.p50);
    let trips = round_trip_ms.map_or_else(String::new, |trip| format!("{:.2}", p50 / trip as f64));
    let sent = sent.map_or_else(String::new, |sent| format!("{sent:.2}"));
    println!(
        "| {away} | {promise} | {connections} | {:.0} | {p50:.1} | {trips} | {:.1} | {:.2} | {sent} |",
        measured.per_second,
        ms(measured.p99),
        measured.cpu_ms
    );
}

fn failover_line(what: &str, times: &[Duration]) {
    println!("| {what} | {:.0} | {:.0} |", ms(quantile(times, 0.5)), ms(quantile(times, 1.0)));
}

fn set(cluster: &Cluster, settings: &[&str]) {
    cluster.mailraft(&[&["region", "set"], settings].concat(), "");
}

/// The link takes so long from now on, and status has measured it.
fn goes_away_to(cluster: &Cluster, wan: &Wan, one_way_ms: u64) {
    wan.delay(Duration::from_millis(one_way_ms));
    cluster.wait("the way to be measured", |cluster| {
        let round_trip_ms = cluster.status(1).and_then(|status| status["regions"][0]["round_trip_ms"].as_u64());
        round_trip_ms.is_some_and(|ms| ms >= 2 * one_way_ms)
    });
}

fn sent_bytes(cluster: &Cluster) -> f64 {
    cluster.serving().into_iter().map(|node| cluster.metric(node, SENT_BYTES)).sum()
}

/// Every replica at home has what its leader has.
fn home_caught_up(cluster: &Cluster, via: u64) {
    let home = cluster.serving();
    cluster.wait("every node at home caught up", |cluster| {
        let Some(status) = cluster.status(via) else { return false };
        let at_home = |replica: &&serde_json::Value| replica["node"].as_u64().is_some_and(|node| home.contains(&node));
        status["partitions"].as_array().is_some_and(|partitions| {
            partitions.iter().all(|partition| {
                let replicas = partition["replicas"].as_array().map(Vec::as_slice).unwrap_or_default();
                let mut lags = replicas.iter().filter(at_home).map(|replica| &replica["lag"]);
                replicas.iter().filter(at_home).count() == home.len() && lags.all(|lag| *lag == 0)
            })
        })
    });
}
