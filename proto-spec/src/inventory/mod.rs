//! The text formats in which book lists are imported and exported.
