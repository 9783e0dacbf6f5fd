//! Dates of IMAP (RFC 3501, section 9: date, date-time).

use mailraft_mailbox::api::ZonedTime;
use mailraft_message::date::{DAY_SECONDS, MONTHS, civil_from_days, days_from_civil};

const YEAR_0_SECONDS: i64 = -62_167_219_200;
const YEAR_9999_SECONDS: i64 = 253_402_300_799;

/// `17-Jul-1996 02:44:25 -0700`, with the day padded by a space.
pub fn print(time: ZonedTime) -> String {
    let local = local_seconds(time.unix_seconds, time.zone_minutes);
    let (year, month, day) = civil_from_days(local.div_euclid(DAY_SECONDS));
    let second = local.rem_euclid(DAY_SECONDS);
    let (sign, zone) = if time.zone_minutes < 0 { ('-', -time.zone_minutes) } else { ('+', time.zone_minutes) };
    format!(
        "{day:>2}-{}-{year:04} {:02}:{:02}:{:02} {sign}{:02}{:02}",
        MONTHS[month as usize - 1],
        second / 3_600,
        second / 60 % 60,
        second % 60,
        zone / 60,
        zone % 60
    )
}

/// The inverse of [`print`].
pub fn parse(text: &str) -> Option<ZonedTime> {
    let (date, rest) = text.trim_start().split_once(' ')?;
    let (time, zone) = rest.split_once(' ')?;
    let mut parts = time.splitn(3, ':').map(|p| digits(p, 2, 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits = zone.get(1..).filter(|z| z.len() == 4 && z.bytes().all(|b| b.is_ascii_digit()))?;
    let zone_minutes = sign * (digits[..2].parse::<i16>().ok()? * 60 + digits[2..].parse::<i16>().ok()?);
    if hour > 23 || minute > 59 || second > 60 || zone_minutes.abs() > 14 * 60 {
        return None;
    }
    let local = parse_day(date)? * DAY_SECONDS + hour * 3_600 + minute * 60 + second;
    Some(ZonedTime { unix_seconds: local - i64::from(zone_minutes) * 60, zone_minutes })
}

/// `1-Feb-1994` as days since 1970-01-01.
pub fn parse_day(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, '-');
    let (day, month, year) = (digits(parts.next()?, 1, 2)?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|m| m.eq_ignore_ascii_case(month))? as i64 + 1;
    let year = digits(year, 4, 4)?;
    let days = days_from_civil(year, month, day);
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

fn digits(text: &str, least: usize, most: usize) -> Option<i64> {
    let fits = (least..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

/// Within the years that IMAP can say.
fn local_seconds(unix_seconds: i64, zone_minutes: i16) -> i64 {
    (unix_seconds.saturating_add(i64::from(zone_minutes) * 60)).clamp(YEAR_0_SECONDS, YEAR_9999_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_come_back() {
        for text in ["17-Jul-1996 02:44:25 -0700", " 1-Jan-1970 00:00:00 +0000", "29-Feb-2024 23:59:59 +1345"] {
            assert_eq!(parse(text).map(print).as_deref(), Some(text));
        }
        assert_eq!(parse(" 1-Jan-1970 02:00:00 +0200"), Some(ZonedTime { unix_seconds: 0, zone_minutes: 120 }));
        for (seconds, text) in [(i64::MAX, "31-Dec-9999 23:59:59 +0000"), (i64::MIN, " 1-Jan-0000 00:00:00 +0000")] {
            assert_eq!(print(ZonedTime { unix_seconds: seconds, zone_minutes: 0 }), text);
        }
        for text in [
            "31-Feb-2024 00:00:00 +0000",
            "1-Jan-70 00:00:00 +0000",
            "1-Jan-1970 24:00:00 +0000",
            "1-Jan-1970 +1:00:00 +0000",
            "+1-Jan-1970 01:00:00 +0000",
            "1-Jan-1970",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse_day("1-Jan-1970"), Some(0));
    }
}
