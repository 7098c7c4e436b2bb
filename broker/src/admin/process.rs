//! What the operating system knows about this process.

use super::metrics::Metric;
use std::time::Duration;

/// Metrics every process has, and the build.
pub(super) fn metrics() -> Vec<Metric> {
    let mut metrics = vec![Metric::gauge("parlor_build_info", "Always 1; the label says what runs.").labelled(
        "version",
        env!("CARGO_PKG_VERSION"),
        1,
    )];
    if let Some(bytes) = resident_bytes() {
        metrics.push(Metric::gauge("process_resident_memory_bytes", "Resident memory in bytes.").with(bytes));
    }
    if let Some(time) = cpu_time() {
        metrics.push(
            Metric::counter("process_cpu_seconds_total", "CPU time, user and system, in seconds.")
                .with_float(time.as_secs_f64()),
        );
    }
    metrics
}

/// From `/proc/self/status`, which counts in KiB whatever the size of a page is.
fn resident_bytes() -> Option<u64> {
    parse_resident(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

fn cpu_time() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(parse_resident("Name:\tparlor\nVmRSS:\t    5120 kB\n"), Some(5_242_880));
        assert_eq!(parse_resident("Name:\tparlor\n"), None);
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000));
        assert!(cpu_time().is_some());
    }
}
