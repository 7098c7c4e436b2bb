//! The time of day where the reader is.

use std::fs;
use std::path::{Path, PathBuf};

/// The local time zone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Zone {
    /// Seconds since 1970 from which an offset in seconds holds, ascending.
    transitions: Vec<(i64, i32)>,
    /// Before the first of them.
    first: i32,
}

/// A day and a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub year: i64,
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

impl Zone {
    /// The zone of `TZ`, or of the machine; without either, UTC.
    pub fn local() -> Self {
        let path = match std::env::var("TZ") {
            Ok(name) if name.starts_with('/') => PathBuf::from(name),
            Ok(name) if !name.is_empty() && !name.contains("..") => {
                Path::new("/usr/share/zoneinfo").join(name.trim_start_matches(':'))
            }
            _ => PathBuf::from("/etc/localtime"),
        };
        fs::read(path).ok().and_then(|bytes| Self::parse(&bytes)).unwrap_or_default()
    }

    /// Reads the first block of a `TZif` file, which reaches to 2037 (RFC 9636 s3).
    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.get(..4)? != b"TZif" {
            return None;
        }
        let count = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
        let (times, types) = (count(32)?, count(36)?);
        if times > 4_096 || types > 256 {
            return None;
        }
        let (at_types, at_infos) = (44 + times * 4, 44 + times * 5);
        let offset =
            |kind: usize| Some(i32::from_be_bytes(bytes.get(at_infos + kind * 6..)?.get(..4)?.try_into().ok()?));
        let mut transitions = Vec::with_capacity(times);
        for number in 0..times {
            let from = bytes.get(44 + number * 4..)?.get(..4)?;
            let kind = usize::from(*bytes.get(at_types + number)?);
            transitions.push((i64::from(i32::from_be_bytes(from.try_into().ok()?)), offset(kind)?));
        }
        Some(Self { transitions, first: offset(0)? })
    }

    /// When `ms` after 1970 is here.
    pub fn moment(&self, ms: u64) -> Moment {
        let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX / 2);
        let known = self.transitions.partition_point(|(from, _)| *from <= seconds);
        let offset =
            known.checked_sub(1).and_then(|at| self.transitions.get(at)).map_or(self.first, |(_, offset)| *offset);
        let local = seconds + i64::from(offset);
        let (days, rest) = (local.div_euclid(86_400), local.rem_euclid(86_400));
        let (year, month, day) = date(days);
        let byte = |value: i64| u8::try_from(value).unwrap_or_default();
        Moment { year, month, day, hour: byte(rest / 3_600), minute: byte(rest / 60 % 60), second: byte(rest % 60) }
    }

    /// `HH:MM:SS`.
    pub fn time(&self, ms: u64) -> String {
        let Moment { hour, minute, second, .. } = self.moment(ms);
        format!("{hour:02}:{minute:02}:{second:02}")
    }

    /// `HH:MM`.
    pub fn minute(&self, ms: u64) -> String {
        let Moment { hour, minute, .. } = self.moment(ms);
        format!("{hour:02}:{minute:02}")
    }

    /// `2026-11-26`.
    pub fn day(&self, ms: u64) -> String {
        let Moment { year, month, day, .. } = self.moment(ms);
        format!("{year}-{month:02}-{day:02}")
    }
}

/// The civil date of a day counted from 1970-01-01, by years that begin in March so that the leap day is the last.
fn date(days: i64) -> (i64, u8, u8) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year_of_era + carry, u8::try_from(month).unwrap_or_default(), u8::try_from(day).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_right() {
        let check = |ms: u64, expect: &str| {
            let zone = Zone::default();
            assert_eq!(format!("{} {}", zone.day(ms), zone.time(ms)), expect);
        };
        check(0, "1970-01-01 00:00:00");
        check(951_782_399_000, "2000-02-28 23:59:59");
        check(951_782_400_000, "2000-02-29 00:00:00");
        check(1_709_164_800_000, "2024-02-29 00:00:00");
        check(1_790_000_000_000, "2026-09-21 14:13:20");
        check(4_102_444_799_000, "2099-12-31 23:59:59");
    }

    #[test]
    fn a_zone_file_shifts_the_clock() {
        let mut file = b"TZif2".to_vec();
        file.resize(44, 0);
        file[35] = 2;
        file[39] = 2;
        for from in [1_000_i32, 2_000] {
            file.extend(from.to_be_bytes());
        }
        file.extend([1, 0]);
        for offset in [3_600_i32, 7_200] {
            file.extend(offset.to_be_bytes());
            file.extend([0, 0]);
        }
        let zone = Zone::parse(&file).unwrap();
        assert_eq!(zone.time(0), "01:00:00");
        assert_eq!(zone.time(1_000_000), "02:16:40");
        assert_eq!(zone.time(2_000_000), "01:33:20");
        assert_eq!(Zone::parse(&file[..50]), None);
        assert_eq!(Zone::parse(b"no"), None);
    }
}
