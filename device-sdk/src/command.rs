//! Commands as types.

use crate::client::Device;
use crate::json::{ToJson, Value};
use crate::shared::{Answer, Reject, Taken};
use crate::wire::State;

/// What a device can be told: mostly an enum with `#[derive(Commands)]`.
pub trait Commands: Sized {
    /// JSON object for `Describe::commands`.
    const DESCRIPTION: &'static str;

    /// The command with this name and these arguments, a JSON object.
    fn parse(name: &str, args: Value<'_>) -> Result<Self, Reject>;
}

/// A command that the device is to carry out. It is answered with [`Self::done`], [`Self::failed`] or
/// [`Self::rejected`]; one that is dropped is answered as failed.
#[must_use = "a command that is dropped is answered as failed"]
#[derive(Debug)]
pub struct Command<'a, C> {
    device: Device<'a>,
    taken: Taken,
    /// What to do.
    pub what: C,
}

impl<'a, C> Command<'a, C> {
    pub(crate) fn new(device: Device<'a>, taken: Taken, what: C) -> Self {
        Self { device, taken, what }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.taken.id
    }

    /// Who wants it.
    pub fn from(&self) -> &str {
        &self.taken.from
    }

    /// Milliseconds that are left, on the device's own clock; `None`: it does not end. At 0 the broker has told the
    /// requester that it timed out.
    pub fn left_ms(&self) -> Option<u64> {
        self.taken.deadline.map(|deadline| deadline.saturating_sub(self.device.now_ms()))
    }

    /// Tells the requester that the device is at it; `text` is for people and may be empty.
    pub async fn running(&self, text: &str) {
        self.device.answer(&self.taken.id, Answer { state: State::Running, text, result: None }).await;
    }

    /// It was done; `()` is a result that says nothing more.
    pub async fn done(self, result: impl ToJson) {
        self.device.answer(&self.taken.id, Answer { state: State::Done, text: "", result: Some(&result) }).await;
    }

    /// It was not done; `text` says why, for people.
    pub async fn failed(self, text: &str) {
        self.device.answer(&self.taken.id, Answer { state: State::Failed, text, result: None }).await;
    }

    /// The device does not do that, at least not now; `text` says why, for people.
    pub async fn rejected(self, text: &str) {
        self.device.answer(&self.taken.id, Answer { state: State::Rejected, text, result: None }).await;
    }

    /// Waits until the requester takes it back. What is answered then is not heard any more.
    pub async fn canceled(&self) {
        self.device.until(|shared| shared.is_canceled(&self.taken.id).then_some(())).await;
    }
}

impl<C> Drop for Command<'_, C> {
    fn drop(&mut self) {
        // Does nothing once it was answered.
        self.device.with(|shared| shared.abandon(&self.taken.id));
    }
}
