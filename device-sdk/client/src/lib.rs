//! x
pub mod backoff;
pub mod error;
pub mod model;
pub mod options;
pub mod target;
