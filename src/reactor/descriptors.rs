//! How many descriptors this process may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::io;

/// The limit in force and the descriptors that are open; `None`: `/proc` does not say how many are.
pub fn descriptors() -> Option<(usize, usize)> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    Some((count(getrlimit(Resource::Nofile).current), open))
}

/// How many descriptors this process can have once the limit is raised.
pub fn descriptors_max() -> usize {
    count(getrlimit(Resource::Nofile).maximum)
}

/// Raises the limit in force to the hard one: shells and service managers often set a soft limit for programs that use
/// `select`. The limits before and after.
///
/// # Errors
/// When the system refuses it.
pub fn raise_descriptors() -> io::Result<(usize, usize)> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok((count(current), count(maximum)))
}

fn count(limit: Option<u64>) -> usize {
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_some() {
        let (max, open) = descriptors().unwrap();
        assert!((3..=max).contains(&open), "{open} of {max}");
        assert!(max <= descriptors_max());
    }
}
