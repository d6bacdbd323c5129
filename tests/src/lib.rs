//! Harness for the suites that drive the real binary.

pub mod netns;
