//! The servers of Pygmy.

pub mod machine;
pub mod settings;
