//! What the tests share.
pub mod disk;
