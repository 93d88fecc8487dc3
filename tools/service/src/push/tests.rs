//! Pushes over several links, driven by hand.
