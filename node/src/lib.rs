//! The servers of Pygmy.

pub mod driver;
pub mod machine;
pub mod node;
pub mod roles;
pub mod settings;
pub mod store;
