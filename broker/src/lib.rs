//! The broker: sockets, disk and operator's doors around the decisions of `parlor_core`.
pub mod store;
