//! pygmy-sim
