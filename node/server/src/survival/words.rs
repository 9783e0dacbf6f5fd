//! How a backup region is, in words.

use mailraft_cluster::regions::{Regions, RegionsRow, Unconfirmed};
use mailraft_message::date::{DAY_SECONDS, civil_from_days};

use super::line::{RegionLine, RegionState};

/// From then on new mail is deferred, in seconds.
pub(super) const DEFERRED_AFTER_S: u64 = 5;

/// How a backup region is. Of `all` partitions so many are `known`.
pub(super) fn sentence(regions: &Regions, line: &RegionLine, is_stopped: bool, all: usize, known: usize) -> String {
    let (row, region, home) = (regions.row(), &line.region, &regions.row().home.0);
    match line.state {
        RegionState::Holds => {
            let away = line.round_trip_ms.map_or_else(String::new, |ms| format!("; {ms} ms away"));
            let compared =
                line.compared_s.map_or_else(String::new, |s| format!("; rows compared with {home} {s} s ago"));
            let (confirming, standbys) = (line.confirming, line.standbys);
            let differ = match line.disagreeing {
                0 => String::new(),
                1 => format!("; 1 replica there differs from {home} and holds nothing: replace its node"),
                n => format!("; {n} replicas there differ from {home} and hold nothing: replace their nodes"),
            };
            format!("{region} holds all that was answered{away}; {confirming} of {standbys} standbys{compared}{differ}")
        }
        RegionState::Behind => {
            let bound = row.durability.rpo_max().unwrap_or_default();
            let (behind, bound) = (seconds(line.behind_ms), seconds(millis(bound)));
            format!(
                "{region} is {behind} s behind, bound {bound} s: loss of region {home} loses at most {behind} s of mail"
            )
        }
        RegionState::Stopped => format!("STOPPED: {}", stopped(row, line)),
        RegionState::Alone => {
            let since = line.alone_since_unix_ms.map_or_else(String::new, moment);
            let alone = format!("{home} answers alone since {since}, {} answers so far", thousands(line.alone_answers));
            let lacks = match line.lag_entries {
                0 => "nothing now".to_owned(),
                entries => format!("{} entries now", thousands(entries)),
            };
            match (line.filling.sending, is_stopped) {
                (true, _) => format!("NOT PROTECTED: {region} is being filled: {}; {alone}", line.filling.words(all)),
                (false, true) => {
                    let s = line.unconfirmed_ms / 1_000;
                    format!("NOT PROTECTED: {region} has confirmed nothing for {s} s; {alone}")
                }
                // It is another region that is silent, or it was this one until now.
                (false, false) => format!("NOT PROTECTED: {alone}; {region} is heard, and lacks {lacks}"),
            }
        }
        RegionState::Returning => {
            let since = line.alone_since_unix_ms.map_or_else(String::new, moment);
            let missing = match is_stopped {
                true => format!(
                    "{} entries of before are missing there. STOPPED: {}",
                    thousands(line.lag_entries),
                    stopped(row, line)
                ),
                false if line.lag_entries == 0 => {
                    format!("{region} lacks nothing of before, and protects it once every region holds it")
                }
                false => format!("what was answered before is being sent, {} entries", thousands(line.lag_entries)),
            };
            format!("NOT PROTECTED YET: {home} waits for {region} again since {since}; {missing}")
        }
        RegionState::Filling => {
            let words = line.filling.words(all);
            format!("{region} is being filled: {words}; {home} does not wait for it, and it protects nothing")
        }
        RegionState::Removed => {
            format!(
                "{region} is taken out: {home} waits for it no more, and it protects nothing; have it back with mailraft region add \
                 {region}"
            )
        }
        RegionState::LeftBehind => {
            let newest = regions.takeovers().last();
            let (at, number) =
                newest.map_or_else(Default::default, |row| (moment(row.since.0), row.incarnation.number));
            format!(
                "NOT PROTECTED: no backup region; {home} took over at {at}, as incarnation {number}, and {region} is no part of \
                 it. Keep the data of the nodes of {region}: what only they have is in it"
            )
        }
        RegionState::Unknown => {
            format!("NOT KNOWN: of {} of {all} partitions nobody says how far {region} is", all.saturating_sub(known))
        }
    }
}

/// That a region confirms nothing, and what follows from that.
fn stopped(row: &RegionsRow, line: &RegionLine) -> String {
    let (region, s) = (&line.region, line.unconfirmed_ms / 1_000);
    let since = if s > 0 { format!("for {s} s") } else { "yet".to_owned() };
    let now = match s >= DEFERRED_AFTER_S {
        true => "new mail is deferred (451)".to_owned(),
        false => format!("new mail waits for it, and is deferred (451) from {DEFERRED_AFTER_S} s on"),
    };
    let then = match row.unconfirmed {
        Unconfirmed::Degrade => format!("alone from {} s on", seconds(row.degrade_after_ms)),
        Unconfirmed::Refuse => "until it confirms again".to_owned(),
    };
    format!("{region} has confirmed nothing {since}; {now}, reading goes on; {then}")
}

/// A moment as RFC 3339 writes it.
pub fn moment(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1_000).unwrap_or(0);
    let (year, month, day) = civil_from_days(seconds / DAY_SECONDS);
    let of_day = seconds % DAY_SECONDS;
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// With commas.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// With a tenth of a second where that says something.
pub(crate) fn seconds(ms: u64) -> String {
    match ms {
        0..10_000 if !ms.is_multiple_of(1_000) => format!("{:.1}", (ms as f64 / 100.0).ceil() / 10.0),
        _ => (ms / 1_000).to_string(),
    }
}

pub(super) fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
