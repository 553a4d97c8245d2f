//! pygmy-client
