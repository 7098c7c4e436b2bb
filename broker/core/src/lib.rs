//! Parlor's decisions: inputs in, effects out.
//!
//! Nothing here waits, reads a clock, draws a random number or touches a socket or a disk.
pub mod access;
pub mod auth;
mod counters;
mod hash;
mod hub;
mod im;
pub mod limits;
mod link;
mod message;
pub mod native;
mod roads;
pub mod router;
mod session;
pub mod store;

pub use counters::{Counters, Notice, Tally};
pub use hub::{Effect, Hub, LinkView, Now, RetainedView, SessionBrief, SessionView, Settings, Totals};
pub use im::{BlobOrder, ImCounters, ImSettings, ImTotals, Look, NewBlob, PairRequest, Reply, is_address_of_account};
pub use link::{LinkId, Peer, StreamKind};
