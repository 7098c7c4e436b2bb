//! Reported and desired state as types.

use crate::json::{ToJson, Value};

/// What a device reports of itself: mostly a struct with `#[derive(State)]`.
pub trait State: ToJson {
    /// JSON object for `Describe::state`.
    const DESCRIPTION: &'static str;

    /// Takes over what is desired, a JSON object; fields that the state does not have, or with values that it cannot
    /// have, are left out. Whether anything has changed.
    fn merge(&mut self, desired: Value<'_>) -> bool;
}
