//! Parlor's decisions: inputs in, effects out.
//!
//! Nothing here waits, reads a clock, draws a random number or touches a socket or a disk.
pub mod store;
