//! Parlor's decisions: inputs in, effects out.
//!
//! Nothing here waits, reads a clock, draws a random number or touches a socket or a disk.
pub mod access;
pub mod auth;
pub mod limits;
pub mod store;
