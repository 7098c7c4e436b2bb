//! Messaging from the command line.

pub(crate) mod model;
