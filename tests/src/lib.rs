//! What the tests share.

pub mod raw;
pub mod server;
pub mod disk;
