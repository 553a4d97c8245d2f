//! pygmy-node
