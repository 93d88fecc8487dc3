//! How many descriptors this process may have.

use std::fs;

/// The limit in force and the descriptors that are open, as `/proc` tells them; `None` where it does not.
pub fn descriptors() -> Option<(usize, usize)> {
    let max = limit_in(&fs::read_to_string("/proc/self/limits").ok()?)?;
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    Some((max, open))
}

/// The soft limit of open files.
fn limit_in(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_soft_one() {
        let page = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             95974                95974                processes \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(limit_in(page), Some(1024));
        assert_eq!(limit_in(&page.replace("1024  ", "unlimited")), Some(usize::MAX));
        assert_eq!(limit_in("Max processes 1 1"), None);
    }

    #[test]
    fn this_process_has_some() {
        let (max, open) = descriptors().unwrap();
        assert!((3..=max).contains(&open), "{open} of {max}");
    }
}
