//! For tests: a table of how large structures are, and how large they may be.

use crate::base::slab::GenSlab;
use std::fmt::Write;

/// A structure, and the most that it may take.
pub(crate) struct Bound {
    pub(crate) name: &'static str,
    pub(crate) bytes: usize,
    pub(crate) bytes_max: usize,
    pub(crate) why: &'static str,
}

/// Bytes of one entry of a [`GenSlab`], its generation included.
pub(crate) fn slab_entry_bytes<Tag, T>(_: &GenSlab<Tag, T>) -> usize {
    /// As the `slab` crate has it.
    #[expect(dead_code, reason = "only its size matters")]
    enum Entry<T> {
        Vacant(usize),
        Occupied(T),
    }
    size_of::<Entry<T>>() + size_of::<u32>()
}

/// Prints the table, and fails when a bound is exceeded.
pub(crate) fn check(title: &str, bounds: &[Bound]) {
    let mut table = format!("{title:<42} bytes    max  why\n");
    for Bound { name, bytes, bytes_max, why } in bounds {
        let _ = writeln!(table, "{name:<42} {bytes:>5}  {bytes_max:>5}  {why}");
    }
    println!("{table}");
    let grown = bounds.iter().filter(|bound| bound.bytes > bound.bytes_max);
    let grown: Vec<&str> = grown.map(|bound| bound.name).collect();
    assert!(grown.is_empty(), "too large: {grown:?}\n{table}");
}

#[test]
#[should_panic(expected = "too large: [\"b\"]")]
fn what_has_grown_is_named() {
    let bound = |name, bytes| Bound { name, bytes, bytes_max: 8, why: "" };
    check("planted", &[bound("a", 8), bound("b", 9)]);
}
