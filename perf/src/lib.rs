//! pygmy-perf
