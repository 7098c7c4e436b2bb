//! Events as types.

use crate::json::ToJson;

/// Something that happened at a device: mostly an enum with `#[derive(Event)]`. It is sent as a message of kind `event`
/// whose body is `{"event":name, …}`, so that people read it in the conversation and programs act on it.
pub trait Event: ToJson {
    /// Its name, which is also what people read.
    fn name(&self) -> &'static str;
}
