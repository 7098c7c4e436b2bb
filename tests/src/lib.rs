//! What the tests share.

pub mod checkers;
pub mod faulty;
pub mod world;
