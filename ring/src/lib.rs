//! pygmy-ring
