//! The servers of Pygmy.

pub mod cli;
pub mod config;
pub mod disk;
pub mod driver;
pub mod inspect;
pub mod local;
pub mod machine;
pub mod mistake;
pub mod node;
pub mod roles;
pub mod settings;
pub mod snapshot;
pub mod store;
