//! The only place that reads clocks; everywhere else the time is an argument.
//!
//! Windows and timeouts use [`boot_time`], because pinned maps live exactly as long as a boot.
//! [`wall_time`] is for people (logs, API) and never for arithmetic.

use std::time::Duration;

/// What a kernel may have as CONFIG_HZ, ticks per second.
const HZ_RANGE: std::ops::RangeInclusive<u64> = 24..=10_000;
/// The tick assumed when the kernel does not tell: Debian's CONFIG_HZ, ticks per second.
const DEFAULT_HZ: u64 = 250;
const NANOSECONDS: u64 = 1_000_000_000;
const SECONDS_PER_DAY: u64 = 86_400;

/// Time since boot, sleep included (CLOCK_BOOTTIME). Never goes back; ends with the boot, as
/// pinned maps do.
#[must_use]
pub fn boot_time() -> Duration {
    read(libc::CLOCK_BOOTTIME)
}

/// Time since boot without sleep (CLOCK_MONOTONIC), which service managers want to be told.
#[must_use]
pub fn monotonic() -> Duration {
    read(libc::CLOCK_MONOTONIC)
}

/// The wall clock as an RFC 3339 UTC timestamp with milliseconds, for logs and the API.
///
/// It may jump in both directions.
#[must_use]
pub fn wall_time() -> String {
    rfc3339(read(libc::CLOCK_REALTIME))
}

/// The wall clock as time since 1970-01-01T00:00:00Z. It may jump in both directions.
#[must_use]
pub fn since_epoch() -> Duration {
    read(libc::CLOCK_REALTIME)
}

/// Ticks (jiffies) per second of the running kernel, its CONFIG_HZ.
///
/// The resolution of CLOCK_REALTIME_COARSE is exactly one tick. USER_HZ (`sysconf(_SC_CLK_TCK)`)
/// is always 100 and says nothing about jiffies.
#[must_use]
pub fn ticks_per_second() -> u64 {
    let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec of ours; the call keeps no reference to it.
    let code = unsafe { libc::clock_getres(libc::CLOCK_REALTIME_COARSE, &raw mut resolution) };
    if code == 0 { hz(to_duration(&resolution)) } else { DEFAULT_HZ }
}

/// Rounds to the nearest whole frequency: at CONFIG_HZ=300 a tick is 3,333,333 ns.
fn hz(tick: Duration) -> u64 {
    let tick_ns = u64::try_from(tick.as_nanos()).unwrap_or(0);
    let hz = (NANOSECONDS + tick_ns / 2).checked_div(tick_ns).unwrap_or(0);
    if HZ_RANGE.contains(&hz) { hz } else { DEFAULT_HZ }
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec of ours; the call keeps no reference to it.
    let code = unsafe { libc::clock_gettime(clock, &raw mut now) };
    // Only an unknown clock id or a bad pointer fails, and neither can happen here.
    debug_assert_eq!(code, 0, "clock_gettime refused clock {clock}");
    to_duration(&now)
}

fn to_duration(time: &libc::timespec) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanoseconds)
}

/// Renders a time since 1970-01-01T00:00:00Z as RFC 3339 section 5.6 in UTC, with milliseconds.
///
/// Right for the years 1970 to 9999.
#[must_use]
pub fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil(seconds / SECONDS_PER_DAY);
    let of_day = seconds % SECONDS_PER_DAY;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let millis = since_epoch.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month (1..=12) and day (1..=31) of the proleptic Gregorian calendar, from days since
/// 1970-01-01.
///
/// Years are counted from March, so that the leap day is the last day of a year, in eras of 400
/// years, which all have the same number of days.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_ERA: u64 = 146_097;
    const DAYS_FROM_MARCH_OF_YEAR_0: u64 = 719_468;
    let days = days + DAYS_FROM_MARCH_OF_YEAR_0;
    let (era, of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // March to July have 153 days in five months, and so have August to December.
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        for (seconds, millis, want) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, 999, "2000-02-28T23:59:59.999Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000Z"),
            (951_868_800, 7, "2000-03-01T00:00:00.007Z"),
            (1_709_164_800, 0, "2024-02-29T00:00:00.000Z"),
            (1_735_689_599, 0, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799, 0, "9999-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(rfc3339(Duration::new(seconds, millis * 1_000_000)), want);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = civil(0);
        for days in 1..80_000 {
            let (year, month, day) = civil(days);
            let (old_year, old_month, old_day) = before;
            let next_day = (year, month, day) == (old_year, old_month, old_day + 1);
            let next_month =
                day == 1 && old_day >= 28 && year * 12 + month == old_year * 12 + old_month + 1;
            assert!(next_day || next_month, "{before:?} then {year} {month} {day}");
            before = (year, month, day);
        }
    }

    #[test]
    fn ticks() {
        for (tick_ns, want) in [
            (10_000_000, 100),
            (4_000_000, 250),
            (3_333_333, 300),
            (1_000_000, 1_000),
            (976_562, 1_024),
            (1, DEFAULT_HZ),
            (0, DEFAULT_HZ),
        ] {
            assert_eq!(hz(Duration::from_nanos(tick_ns)), want, "{tick_ns} ns");
        }
        assert!(HZ_RANGE.contains(&ticks_per_second()));
    }

    #[test]
    fn clocks_run() {
        let (boot, monotonic) = (boot_time(), monotonic());
        assert!(boot_time() >= boot && boot + Duration::from_millis(50) >= monotonic);
        assert!(since_epoch() > Duration::from_secs(1_700_000_000));
        assert!(wall_time().ends_with('Z'));
    }
}
