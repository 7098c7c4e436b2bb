//! The bytes and nouns that Parlor's broker and its devices share.
//!
//! Everything here works without `std` and without an allocator: packets borrow from the bytes they
//! were read from, and are written into whatever implements [`Sink`].
#![no_std]
#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod cursor;
#[cfg(feature = "link")]
pub mod link;
pub mod mqtt;
pub mod topic;

pub use cursor::Sink;
