//! What silent sessions keep of a node's memory.

use std::time::Duration;

use super::create_accounts;
use crate::cluster::Cluster;
use crate::imap::Imap;
use crate::wire::Trust;

/// Sessions of each account.
const OF_AN_ACCOUNT: usize = 8;
/// Sessions that warm the node up: threads, caches and its first logins are not theirs to pay for.
const BEFORE: usize = 100;
/// How long the node is left alone before its memory is read.
const SETTLES: Duration = Duration::from_secs(5);

/// Prints what a node has in memory without sessions, with 1,000 and with so many that idle with INBOX open, over TLS.
///
/// # Errors
/// If a client can't do what it should.
///
/// # Panics
/// If the cluster can't be started.
pub fn run(sessions: usize) -> Result<(), String> {
    let cluster = Cluster::start_new(|config| {
        config.replace("sessions_per_address = 1000 ", &format!("sessions_per_address = {} ", sessions + BEFORE))
    });
    let accounts = create_accounts(&cluster);
    let trust = Trust::in_file(&cluster.ca_cert()).map_err(|e| e.to_string())?;
    let node = cluster.serving()[0];
    let address = cluster.text(node, "imaps");
    let mut open = Vec::new();
    let mut idle = |number: usize| -> Result<(), String> {
        while open.len() < BEFORE + number {
            let account = &accounts[open.len() / OF_AN_ACCOUNT % accounts.len()];
            let mut imap = Imap::login(&trust, &address, account).map_err(|e| e.to_string())?;
            imap.ok("SELECT INBOX").and_then(|_| imap.idle()).map_err(|e| e.to_string())?;
            open.push(imap);
        }
        std::thread::sleep(SETTLES);
        Ok(())
    };
    idle(0)?;
    let before = cluster.resident_bytes(node)?;
    println!("sessions   resident MiB   KiB for each");
    println!("{:>8}   {:>12.1}", 0, mib(before));
    for number in [1_000, sessions] {
        idle(number)?;
        let resident = cluster.resident_bytes(node)?;
        let each = mib(resident.saturating_sub(before)) * 1_024.0 / number as f64;
        println!("{number:>8}   {:>12.1}   {each:>12.1}", mib(resident));
    }
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
