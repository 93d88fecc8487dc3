//! CPU time and memory of a process, from /proc.
//!
//! Source: proc(5), `/proc/PID/stat` fields 14 and 15 (all threads), `/proc/PID/status` VmRSS.

use crate::options::Watched;

/// What a process stands at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    /// User and system time of all threads, in seconds.
    pub(crate) cpu_s: f64,
    /// Resident memory, in bytes.
    pub(crate) rss_bytes: u64,
}

/// Reads all of them; a process that is not there is an error.
pub(crate) fn read_all(watched: &[Watched]) -> Result<Vec<Usage>, String> {
    watched.iter().map(|process| read(process.pid)).collect()
}

/// Raises these to what the processes hold now; one that is not there is left as it was.
pub(crate) fn raise(peaks: &mut [Usage], watched: &[Watched]) {
    for (peak, process) in peaks.iter_mut().zip(watched) {
        if let Ok(usage) = read(process.pid) {
            peak.rss_bytes = peak.rss_bytes.max(usage.rss_bytes);
        }
    }
}

fn read(pid: u32) -> Result<Usage, String> {
    let file = |name: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/{name}"))
            .map_err(|error| format!("process {pid}: {error}"))
    };
    let ticks_per_s = rustix::param::clock_ticks_per_second();
    parse(&file("stat")?, &file("status")?, ticks_per_s)
        .ok_or_else(|| format!("process {pid}: unreadable /proc"))
}

fn parse(stat: &str, status: &str, ticks_per_s: u64) -> Option<Usage> {
    // The command stands in parentheses, and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let cpu = ticks(11)?.saturating_add(ticks(12)?);
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = rss.split_whitespace().next()?.parse().ok()?;
    Some(Usage { cpu_s: cpu as f64 / ticks_per_s as f64, rss_bytes: kib.saturating_mul(1024) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_proc_are_read() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 100 1000 10";
        let usage = parse(stat, "Name:\tx\nVmRSS:\t  2048 kB\n", 100).unwrap();
        assert_eq!(usage, Usage { cpu_s: 3.0, rss_bytes: 2 << 20 });
        assert_eq!(parse("nonsense", "", 100), None);
        assert!(read(std::process::id()).unwrap().rss_bytes > 0);
    }
}
