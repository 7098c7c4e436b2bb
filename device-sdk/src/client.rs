//! The handle that the application has.

use crate::command::{Command, Commands};
use crate::error::{Outcome, SendError};
use crate::event::Event;
use crate::json::ToJson;
use crate::resources::{Locked, with};
use crate::shared::{Answer, Part, Received, SentId, Shared, Sleep, Status};
use crate::state::State;
use core::future::poll_fn;
use core::task::Poll;
use heapless::String;

/// The device, as the application sees it. It can be copied and used from many tasks at the same time. A call whose
/// future is dropped has done nothing, or all of it.
#[derive(Clone, Copy, Debug)]
pub struct Device<'a> {
    shared: &'a dyn Locked,
}

/// What a message says.
#[derive(Clone, Copy)]
pub struct Content<'c> {
    /// Text; may be empty if there is a body.
    pub text: &'c str,
    /// A JSON value.
    pub body: Option<&'c dyn ToJson>,
    /// A short word; empty: `text` or `json`.
    pub kind: &'c str,
    /// Does not count as unread.
    pub quiet: bool,
    /// Seq that it answers; 0: none.
    pub re: u64,
    /// Seconds, from when the broker has it, after which nobody gets it; 0: never.
    pub ttl_s: u32,
}

impl<'c> Content<'c> {
    /// A text and nothing more.
    pub const fn text(text: &'c str) -> Self {
        Self { text, body: None, kind: "", quiet: false, re: 0, ttl_s: 0 }
    }
}

impl core::fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Content").field("text", &self.text).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl<'a> Device<'a> {
    pub(crate) fn new(shared: &'a dyn Locked) -> Self {
        Self { shared }
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Shared) -> R) -> R {
        with(self.shared, f)
    }

    /// Waits until `f` gives something.
    pub(crate) async fn until<R>(&self, mut f: impl FnMut(&mut Shared) -> Option<R>) -> R {
        poll_fn(|context| {
            self.with(|shared| match f(shared) {
                Some(result) => Poll::Ready(result),
                None => {
                    shared.wait_app(context.waker());
                    Poll::Pending
                }
            })
        })
        .await
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.with(|shared| shared.now())
    }

    /// Queues something, waiting for room if it is to be kept, and until flash has it if it is to be there.
    async fn queue(
        &self,
        mut push: impl FnMut(&mut Shared) -> Result<SentId, SendError>,
    ) -> Result<Receipt<'a>, SendError> {
        let queued = self.until(|shared| {
            if !shared.is_started() {
                return None;
            }
            match push(shared) {
                Ok(id) => {
                    shared.watch(id);
                    Some(Ok(id))
                }
                Err(SendError::Full) => None,
                Err(error) => Some(Err(error)),
            }
        });
        let mut receipt = Receipt { device: *self, id: queued.await?, kept: false };
        let id = receipt.id;
        let kept = self.until(|shared| shared.kept(id)).await;
        receipt.kept = true;
        kept.map(|()| receipt)
    }

    // ---- Sending -----------------------------------------------------------------------------------------------

    /// Sends a text to a person, a group or another device. It is queued when this returns, in flash if the policy for
    /// `im/v1/to/#` says so; what becomes of it, the receipt tells.
    pub async fn send(&self, to: &str, text: &str) -> Result<Receipt<'a>, SendError> {
        self.send_content(to, &Content::text(text)).await
    }

    /// Sends a message.
    pub async fn send_content(&self, to: &str, content: &Content<'_>) -> Result<Receipt<'a>, SendError> {
        self.queue(|shared| shared.push_message(to, content)).await
    }

    /// Tells a person or a group of something that has happened.
    pub async fn event(&self, to: &str, event: &impl Event) -> Result<Receipt<'a>, SendError> {
        let content = Content { body: Some(event), kind: "event", ..Content::text(event.name()) };
        self.send_content(to, &content).await
    }

    /// Publishes to an ordinary topic at QoS 1.
    pub async fn publish(&self, topic: &str, payload: &[u8]) -> Result<Receipt<'a>, SendError> {
        self.queue(|shared| shared.push_topic(topic, Part::Rest(payload), true, false)).await
    }

    /// Publishes JSON to an ordinary topic at QoS 1.
    pub async fn publish_json(&self, topic: &str, payload: &impl ToJson) -> Result<Receipt<'a>, SendError> {
        self.queue(|shared| shared.push_topic(topic, Part::Json(payload), true, false)).await
    }

    /// Publishes to an ordinary topic at QoS 1, to be retained.
    pub async fn publish_retained(&self, topic: &str, payload: &[u8]) -> Result<Receipt<'a>, SendError> {
        self.queue(|shared| shared.push_topic(topic, Part::Rest(payload), true, true)).await
    }

    /// Publishes to an ordinary topic at QoS 0, if the device is online and there is room; whether it was tried.
    pub fn publish_now(&self, topic: &str, payload: &[u8]) -> bool {
        self.with(|shared| {
            shared.status() == Status::Online && shared.push_topic(topic, Part::Rest(payload), false, false).is_ok()
        })
    }

    /// Reports the state of the device; an earlier report that was not sent yet is replaced.
    pub async fn report(&self, state: &impl State) -> Result<(), SendError> {
        // Nobody waits for the receipt: the latest state is what counts.
        self.queue(|shared| shared.push_reported(state)).await.map(drop)
    }

    /// Reports a part of the state: a JSON merge patch (RFC 7396). Parts replace each other as whole reports do, so use
    /// one way or the other.
    pub async fn report_json(&self, patch: &impl ToJson) -> Result<(), SendError> {
        self.queue(|shared| shared.push_reported(patch)).await.map(drop)
    }

    pub(crate) async fn answer(&self, id: &str, answer: Answer<'_>) {
        self.until(|shared| match shared.answer(id, answer) {
            Err(SendError::Full) => None,
            Ok(()) => Some(()),
            Err(_) => {
                // The result is too long; that it was done still counts.
                let _ = shared.answer(id, Answer { result: None, ..answer });
                Some(())
            }
        })
        .await;
    }

    /// A receipt for what was kept in flash and queued before a reboot, by the id of the receipt that there was then.
    ///
    /// None: nothing is known of it any more. Flash knows outcomes that nobody had asked for when the power went until their
    /// place is used again, which is after about 16 rows more. With `Keep::Latest` a newer value is written over it at once. Or
    /// somebody has a receipt for it already.
    pub async fn receipt(&self, id: SentId) -> Option<Receipt<'a>> {
        let known = self.until(|shared| shared.is_started().then(|| shared.claim(id))).await;
        known.then_some(Receipt { device: *self, id, kept: true })
    }

    /// A receipt for the oldest message or publication that was in flash without an outcome when the device started, and
    /// for which nobody has a receipt yet. None: there is no more. Outcomes that nobody asks for make room when it is needed.
    pub async fn earlier(&self) -> Option<Receipt<'a>> {
        let id = self.until(|shared| shared.is_started().then(|| shared.claim_earlier())).await?;
        Some(Receipt { device: *self, id, kept: true })
    }

    // ---- Receiving ---------------------------------------------------------------------------------------------

    /// The next command. Those with another name or wrong arguments are rejected meanwhile, those whose time is over are
    /// dropped, and those that were answered before are answered again, the same.
    ///
    /// A command with `once` is in flash before this returns it; after a reboot it is answered `unknown_outcome`, and
    /// never comes again.
    pub async fn next_command<C: Commands>(&self) -> Command<'a, C> {
        let (taken, what) = self
            .until(|shared| {
                let mut what = None;
                let now = shared.now();
                let taken = shared.take_command(now, false, &mut |name, args| {
                    what = Some(C::parse(name, args)?);
                    Ok(())
                })?;
                Some((taken, what?))
            })
            .await;
        Command::new(*self, taken, what)
    }

    /// The next message that somebody has written, in `buffer`; what does not fit there is cut off.
    pub async fn next_message<'b>(&self, buffer: &'b mut [u8]) -> Received<'b> {
        let len = self.until(|shared| shared.copy_message(buffer)).await;
        Received::read(buffer, len)
    }

    /// The next message on an ordinary topic, in `buffer`: topic and payload; what does not fit there is cut off.
    pub async fn next_publish<'b>(&self, buffer: &'b mut [u8]) -> (&'b str, &'b [u8]) {
        let len = self.until(|shared| shared.copy_topic(buffer)).await;
        Received::read_topic(buffer, len)
    }

    /// Waits until a state other than the reported one is desired, and takes it over into `state`; whether anything has
    /// changed. The application then acts, and reports.
    pub async fn next_desired(&self, state: &mut impl State) -> bool {
        self.until(|shared| shared.take_desired(|desired| state.merge(desired))).await
    }

    // ---- The connection ----------------------------------------------------------------------------------------

    /// How the connection is.
    pub fn status(&self) -> Status {
        self.with(|shared| shared.status())
    }

    /// Waits until the connection is not like this any more.
    pub async fn status_after(&self, last: Status) -> Status {
        self.until(|shared| (shared.status() != last).then_some(shared.status())).await
    }

    /// Waits until the device is online.
    pub async fn online(&self) {
        self.until(|shared| (shared.status() == Status::Online).then_some(())).await;
    }

    /// Sends what is left, says that the device sleeps for so many seconds, and closes the connection; then the power may
    /// go. Whether the broker was told within 10 seconds. [`Self::wake`] ends it.
    pub async fn sleep(&self, for_s: u32) -> bool {
        self.with(|shared| shared.go_to_sleep(for_s));
        self.until(|shared| match (shared.sleep, shared.status()) {
            (Sleep::Asleep { told }, Status::Asleep) if shared.flash_is_idle() => Some(told),
            // Somebody else woke it up.
            (Sleep::Awake, _) => Some(false),
            _ => None,
        })
        .await
    }

    /// Connects again after [`Self::sleep`].
    pub fn wake(&self) {
        self.with(Shared::wake_up);
    }

    /// Tries to connect at once, for instance when the network is there again.
    pub fn connect_now(&self) {
        self.with(Shared::hurry_up);
    }

    /// Logs in with a pairing code at the next attempt, which is made at once; the account that this gives is kept in
    /// flash.
    pub fn pair(&self, code: &str) {
        self.with(|shared| shared.pair(code));
    }

    /// Forgets the account that pairing has given; once flash has forgotten it, this returns.
    pub async fn unpair(&self) {
        self.with(Shared::unpair);
        self.until(|shared| shared.paired_is_kept().then_some(())).await;
    }

    /// The account that pairing has given.
    pub fn account(&self) -> Option<String<32>> {
        self.with(|shared| shared.paired.as_ref().map(|paired| paired.account.clone()))
    }

    /// Who has paired the device.
    pub fn owner(&self) -> Option<String<32>> {
        self.with(|shared| shared.paired.as_ref().map(|paired| paired.owner.clone()))
    }

    /// The household that the device was brought into.
    pub fn household(&self) -> Option<String<34>> {
        self.with(|shared| shared.paired.as_ref().map(|paired| paired.household.clone()))
    }

    /// Rows of the outbox that still have to get to the broker.
    pub fn waiting(&self) -> usize {
        self.with(Shared::unsent)
    }
}

/// Something that is queued. What becomes of it can be asked as long as the receipt is there.
#[must_use = "a receipt that is dropped tells nothing; what was queued is sent all the same"]
#[derive(Debug)]
pub struct Receipt<'a> {
    device: Device<'a>,
    id: SentId,
    kept: bool,
}

impl Receipt<'_> {
    /// Its name, for [`Device::receipt`] after a reboot; of a message also what the conversation calls it.
    pub fn id(&self) -> SentId {
        self.id
    }

    /// Waits until it is known what became of it.
    pub async fn acked(&self) -> Outcome {
        let id = self.id;
        self.device.until(|shared| shared.outcome(id)).await
    }

    #[cfg(feature = "update")]
    pub(crate) fn outcome_of(&self, shared: &mut Shared) -> Option<Outcome> {
        shared.outcome(self.id)
    }

    /// What became of it; `None`: it is still queued.
    pub fn outcome(&self) -> Option<Outcome> {
        self.device.with(|shared| shared.outcome(self.id))
    }
}

impl Drop for Receipt<'_> {
    fn drop(&mut self) {
        let (id, kept) = (self.id, self.kept);
        self.device.with(|shared| {
            if !kept {
                // The call that queues it was given up before flash had it.
                shared.withdraw(id);
            }
            shared.unwatch(id);
        });
    }
}
