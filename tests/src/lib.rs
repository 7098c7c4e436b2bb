//! What the tests share.

pub mod checkers;
pub mod disk;
pub mod faulty;
pub mod world;
