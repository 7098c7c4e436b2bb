//! Tests that need several rooms.
