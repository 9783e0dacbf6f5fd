//! Dates: the calendar, and the Date field of a message (RFC 5322, sections 3.3 and 4.3).

use crate::header::unfold;

/// The names of months, in every protocol.
pub const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// Seconds of a day.
pub const DAY_SECONDS: i64 = 86_400;

/// The longest Date field that is read, in bytes.
const DATE_MAX_BYTES: usize = 256;
/// Zones that have names, in hours east of UTC.
const ZONES: [(&str, i16); 11] = [
    ("UT", 0),
    ("GMT", 0),
    ("UTC", 0),
    ("EDT", -4),
    ("EST", -5),
    ("CDT", -5),
    ("CST", -6),
    ("MDT", -6),
    ("MST", -7),
    ("PDT", -7),
    ("PST", -8),
];

/// A date-time in UTC, of seconds since 1970-01-01, as a field has it (RFC 5322, section 3.3).
pub fn date_time(unix_s: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let (days, second) = (unix_s.div_euclid(DAY_SECONDS), unix_s.rem_euclid(DAY_SECONDS));
    let (year, month, day) = civil_from_days(days);
    format!(
        "{}, {day} {} {year} {:02}:{:02}:{:02} +0000",
        DAYS[days.rem_euclid(7) as usize],
        MONTHS[month as usize - 1],
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar; years begin in March inside.
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month from 1, and day of the month: the inverse of [`days_from_civil`].
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let month = if march < 10 { march + 3 } else { march - 9 };
    (year + era * 400 + i64::from(month <= 2), month, of_year - (153 * march + 2) / 5 + 1)
}

/// The date of a Date field: seconds since 1970-01-01 UTC, and minutes east of UTC. Obsolete forms are read too: comments
/// anywhere, two and three digits of a year, no seconds, zones by name. A zone that is not known is UTC (RFC 5322,
/// section 4.3), and a time that is not there is midnight.
pub fn parse_date(raw: &[u8]) -> Option<(i64, i16)> {
    let text = without_comments(&unfold(&raw[..raw.len().min(DATE_MAX_BYTES)]));
    let mut words = text.split_ascii_whitespace().map(str::to_owned).peekable();
    // The day of the week says nothing new, whether or not it is right.
    words.next_if(|word| !word.starts_with(|c: char| c.is_ascii_digit()));
    let day = number(&words.next()?, 1, 2)?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|m| month.get(..3).is_some_and(|start| m.eq_ignore_ascii_case(start)))? as i64;
    let year = words.next()?;
    let year = match (year.len(), number(&year, 2, 4)?) {
        (2, year) if year < 50 => 2_000 + year,
        (2 | 3, year) => 1_900 + year,
        (_, year) => year,
    };
    let days = days_from_civil(year, month + 1, day);
    if civil_from_days(days) != (year, month + 1, day) {
        return None;
    }
    // White space may stand around the colons.
    let mut time = String::new();
    while let Some(word) = words.next_if(|word| is_of_time(&time, word)) {
        time.push_str(&word);
    }
    let mut parts = time.split(':').map(|part| number(part, 1, 2));
    let (hour, minute, second) = match time.is_empty() {
        true => (0, 0, 0),
        false => (parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?),
    };
    if parts.next().is_some() && !time.is_empty() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let zone_minutes = zone(words.next().as_deref().unwrap_or_default())?;
    let local = days * DAY_SECONDS + hour * 3_600 + minute * 60 + second;
    Some((local - i64::from(zone_minutes) * 60, zone_minutes))
}

/// Whether a word goes on with a time: the zone is one without a colon, behind one that ends with a number.
fn is_of_time(time: &str, word: &str) -> bool {
    let begins = |with: fn(char) -> bool| word.starts_with(with);
    if time.is_empty() || time.ends_with(':') { begins(|c| c.is_ascii_digit()) } else { begins(|c| c == ':') }
}

fn zone(word: &str) -> Option<i16> {
    let sign = match word.bytes().next() {
        Some(b'+') => 1,
        Some(b'-') => -1,
        _ => {
            let named = ZONES.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
            return Some(named.map_or(0, |(_, hours)| hours * 60));
        }
    };
    let digits = number(&word[1..], 4, 4)?;
    let (hours, minutes) = (digits / 100, digits % 100);
    // No hour has so many (RFC 5322 section 3.3): it says as little as a name that is not known.
    if minutes >= 60 {
        return Some(0);
    }
    let minutes = i16::try_from(hours * 60 + minutes).ok()?;
    Some(sign * minutes)
}

fn number(text: &str, least: usize, most: usize) -> Option<i64> {
    let fits = (least..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

/// The text with a space for each comment and each comma.
fn without_comments(text: &[u8]) -> String {
    let (mut out, mut depth, mut bytes) = (String::new(), 0u32, text.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if depth > 0 => drop(bytes.next()),
            b'(' => depth += 1,
            b')' => {
                depth = depth.saturating_sub(1);
                out.push(' ');
            }
            _ if depth > 0 => {}
            b',' => out.push(' '),
            byte => out.push(char::from(*byte)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_of_every_form_have_their_day_and_zone() {
        // Thu, 14 Aug 2025 14:15 UTC
        const AT: i64 = 1_755_180_900;
        for (text, date) in [
            (" Mon, 1 Jan 2024 02:00:00 +0200", (1_704_067_200, 120)),
            ("31 Dec 2023 19:00:00 -0500", (1_704_067_200, -300)),
            ("Thu, 14 Aug 2025 14:15 GMT", (AT, 0)),
            ("Thu, 14 Aug 2025 07:15:00 PDT", (AT, -420)),
            ("Thu, 14 Aug 2025 07:15 pdt (Pacific (Daylight\\) Time)", (AT, -420)),
            ("Thu , 14 (x) Aug 25 14 : 15 : 00 Z", (AT, 0)),
            ("14 August 125 14:15 XYZ", (AT, 0)),
            ("14 Aug 2025 14:15 +9999", (AT, 0)),
            ("14 Aug 2025 14:15 -0060", (AT, 0)),
            ("Thu,14 Aug 2025\r\n 14:15:00\r\n +0000", (AT, 0)),
            ("1 Jan 70 0:00:00 EST", (18_000, -300)),
            ("1 Jan 49 00:00 UT", (2_493_072_000, 0)),
            ("1 Jan 1970", (0, 0)),
            ("31 Dec 1998 23:59:60 +0000", (915_148_800, 0)),
        ] {
            assert_eq!(parse_date(text.as_bytes()), Some(date), "{text}");
        }
        for text in [
            "yesterday",
            "",
            "Mon",
            "31 Feb 2024 00:00 +0000",
            "1 Jan 2024 24:00 +0000",
            "1 Jan 2024 12 +0000",
            "1 Jan 2024 12:00:00:00 +0000",
            "1 Jan 2024 12:00 +00",
            "1 Jan 20245 12:00 +0000",
            "1 J\u{e4}n 2024 12:00",
            "(1 Jan 2024",
        ] {
            assert_eq!(parse_date(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn dates_of_every_kind_of_year() {
        assert_eq!(date_time(0), "Thu, 1 Jan 1970 00:00:00 +0000");
        assert_eq!(date_time(951_827_696), "Tue, 29 Feb 2000 12:34:56 +0000");
        assert_eq!(date_time(1_709_251_199), "Thu, 29 Feb 2024 23:59:59 +0000");
        assert_eq!(date_time(4_107_542_399), "Sun, 28 Feb 2100 23:59:59 +0000");
        assert_eq!(date_time(4_107_542_400), "Mon, 1 Mar 2100 00:00:00 +0000");
    }

    proptest! {
        #[test]
        fn no_date_panics(text in "[0-9 :+(),A-Za-z\\-]{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            parse_date(text.as_bytes());
            parse_date(&bytes);
        }

        #[test]
        fn days_come_back(days in -1_000_000i64..4_000_000) {
            let (year, month, day) = civil_from_days(days);
            prop_assert_eq!(days_from_civil(year, month, day), days);
        }
    }
}
