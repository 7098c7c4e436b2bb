//! The handle that the application has.

#[cfg(feature = "commands")]
use crate::command::{Command, Commands};
use crate::error::{Outcome, SendError};
#[cfg(feature = "messages")]
use crate::event::Event;
#[cfg(any(feature = "topics", feature = "messages", feature = "state"))]
use crate::json::ToJson;
use crate::resources::{Locked, with};
#[cfg(feature = "commands")]
use crate::shared::Answer;
#[cfg(feature = "topics")]
use crate::shared::Part;
#[cfg(feature = "messages")]
use crate::shared::Received;
#[cfg(feature = "sleep")]
use crate::shared::Sleep;
use crate::shared::{SentId, Shared, Status};
#[cfg(feature = "state")]
use crate::state::State;
use core::future::{Future, poll_fn};
#[cfg(any(feature = "topics", feature = "messages", feature = "state"))]
use core::task::Context;
use core::task::Poll;
#[cfg(feature = "pairing")]
use heapless::String;

/// The device, as the application sees it. It can be copied and used from many tasks at the same time. A call whose
/// future is dropped has done nothing, or all of it.
#[derive(Clone, Copy, Debug)]
pub struct Device<'a> {
    shared: &'a dyn Locked,
}

/// What a message says.
#[cfg(feature = "messages")]
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

#[cfg(feature = "messages")]
impl<'c> Content<'c> {
    /// A text and nothing more.
    pub const fn text(text: &'c str) -> Self {
        Self { text, body: None, kind: "", quiet: false, re: 0, ttl_s: 0 }
    }
}

#[cfg(feature = "messages")]
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
    pub(crate) fn until<R>(&self, mut f: impl FnMut(&mut Shared) -> Option<R>) -> impl Future<Output = R> {
        let device = *self;
        poll_fn(move |context| {
            device.with(|shared| match f(shared) {
                Some(result) => Poll::Ready(result),
                None => {
                    shared.wait_app(context.waker());
                    Poll::Pending
                }
            })
        })
    }

    #[cfg(feature = "commands")]
    pub(crate) fn now_ms(&self) -> u64 {
        self.with(|shared| shared.now())
    }

    /// Queues something, waiting for room if it is to be kept, and until flash has it if it is to be there.
    #[cfg(any(feature = "topics", feature = "messages", feature = "state"))]
    fn queue(
        &self,
        mut push: impl FnMut(&mut Shared) -> Result<SentId, SendError>,
    ) -> impl Future<Output = Result<Receipt<'a>, SendError>> {
        let mut receipt = Some(Receipt { device: *self, id: None, kept: false });
        poll_fn(move |context| match &mut receipt {
            Some(waiting) => match waiting.poll(context, &mut push) {
                Poll::Ready(result) => Poll::Ready(result.and_then(|()| receipt.take().ok_or(SendError::Full))),
                Poll::Pending => Poll::Pending,
            },
            // It was ready.
            None => Poll::Pending,
        })
    }

    // ---- Sending -----------------------------------------------------------------------------------------------

    /// Sends a text to a person, a group or another device. It is queued when this returns, in flash if the policy for
    /// `im/v1/to/#` says so; what becomes of it, the receipt tells.
    #[cfg(feature = "messages")]
    pub fn send(&self, to: &str, text: &str) -> impl Future<Output = Result<Receipt<'a>, SendError>> {
        let content = Content::text(text);
        self.queue(move |shared| shared.push_message(to, &content))
    }

    /// Sends a message.
    #[cfg(feature = "messages")]
    pub fn send_content(
        &self,
        to: &str,
        content: &Content<'_>,
    ) -> impl Future<Output = Result<Receipt<'a>, SendError>> {
        self.queue(move |shared| shared.push_message(to, content))
    }

    /// Tells a person or a group of something that has happened.
    #[cfg(feature = "messages")]
    pub fn event(&self, to: &str, event: &impl Event) -> impl Future<Output = Result<Receipt<'a>, SendError>> {
        let content = Content { body: Some(event), kind: "event", ..Content::text(event.name()) };
        self.queue(move |shared| shared.push_message(to, &content))
    }

    /// Publishes to an ordinary topic at QoS 1.
    #[cfg(feature = "topics")]
    pub fn publish(&self, topic: &str, payload: &[u8]) -> impl Future<Output = Result<Receipt<'a>, SendError>> {
        self.queue(move |shared| shared.push_topic(topic, Part::Bytes(payload), true, false))
    }

    /// Publishes JSON to an ordinary topic at QoS 1.
    #[cfg(feature = "topics")]
    pub fn publish_json(
        &self,
        topic: &str,
        payload: &impl ToJson,
    ) -> impl Future<Output = Result<Receipt<'a>, SendError>> {
        self.queue(move |shared| shared.push_topic(topic, Part::Json(payload), true, false))
    }

    /// Publishes to an ordinary topic at QoS 1, to be retained.
    #[cfg(feature = "topics")]
    pub fn publish_retained(
        &self,
        topic: &str,
        payload: &[u8],
    ) -> impl Future<Output = Result<Receipt<'a>, SendError>> {
        self.queue(move |shared| shared.push_topic(topic, Part::Bytes(payload), true, true))
    }

    /// Publishes to an ordinary topic at QoS 0, if the device is online and there is room; whether it was tried.
    #[cfg(feature = "topics")]
    pub fn publish_now(&self, topic: &str, payload: &[u8]) -> bool {
        self.with(|shared| {
            shared.status() == Status::Online && shared.push_topic(topic, Part::Bytes(payload), false, false).is_ok()
        })
    }

    /// Reports the state of the device; an earlier report that was not sent yet is replaced.
    #[cfg(feature = "state")]
    pub async fn report(&self, state: &impl State) -> Result<(), SendError> {
        // Nobody waits for the receipt: the latest state is what counts.
        self.queue(|shared| shared.push_reported(state)).await.map(drop)
    }

    /// Reports a part of the state: a JSON merge patch (RFC 7396). Parts replace each other as whole reports do, so use
    /// one way or the other.
    #[cfg(feature = "state")]
    pub async fn report_json(&self, patch: &impl ToJson) -> Result<(), SendError> {
        self.queue(|shared| shared.push_reported(patch)).await.map(drop)
    }

    #[cfg(feature = "commands")]
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
    #[cfg(feature = "persist")]
    pub async fn receipt(&self, id: SentId) -> Option<Receipt<'a>> {
        let known = self.until(|shared| shared.is_started().then(|| shared.claim(id))).await;
        known.then_some(Receipt { device: *self, id: Some(id), kept: true })
    }

    /// A receipt for the oldest message or publication that was in flash without an outcome when the device started, and
    /// for which nobody has a receipt yet. None: there is no more. Outcomes that nobody asks for make room when it is needed.
    #[cfg(feature = "persist")]
    pub async fn earlier(&self) -> Option<Receipt<'a>> {
        let id = self.until(|shared| shared.is_started().then(|| shared.claim_earlier())).await?;
        Some(Receipt { device: *self, id: Some(id), kept: true })
    }

    // ---- Receiving ---------------------------------------------------------------------------------------------

    /// The next command. Those with another name or wrong arguments are rejected meanwhile, those whose time is over are
    /// dropped, and those that were answered before are answered again, the same.
    ///
    /// A command with `once` is in flash before this returns it; after a reboot it is answered `unknown_outcome`, and
    /// never comes again.
    #[cfg(feature = "commands")]
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
    #[cfg(feature = "messages")]
    pub async fn next_message<'b>(&self, buffer: &'b mut [u8]) -> Received<'b> {
        let len = self.until(|shared| shared.copy_message(buffer)).await;
        Received::read(buffer, len)
    }

    /// The next message on an ordinary topic, in `buffer`: topic and payload; what does not fit there is cut off.
    #[cfg(feature = "topics")]
    pub async fn next_publish<'b>(&self, buffer: &'b mut [u8]) -> (&'b str, &'b [u8]) {
        let len = self.until(|shared| shared.copy_topic(buffer)).await;
        crate::shared::read_topic(buffer, len)
    }

    /// Waits until a state other than the reported one is desired, and takes it over into `state`; whether anything has
    /// changed. The application then acts, and reports.
    #[cfg(feature = "state")]
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
    #[cfg(feature = "sleep")]
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
    #[cfg(feature = "sleep")]
    pub fn wake(&self) {
        self.with(Shared::wake_up);
    }

    /// Tries to connect at once, for instance when the network is there again.
    pub fn connect_now(&self) {
        self.with(Shared::hurry_up);
    }

    /// Logs in with a pairing code at the next attempt, which is made at once; the account that this gives is kept in
    /// flash.
    #[cfg(feature = "pairing")]
    pub fn pair(&self, code: &str) {
        self.with(|shared| shared.pair(code));
    }

    /// Forgets the account that pairing has given; once flash has forgotten it, this returns.
    #[cfg(feature = "pairing")]
    pub async fn unpair(&self) {
        self.with(Shared::unpair);
        self.until(|shared| shared.paired_is_kept().then_some(())).await;
    }

    /// The account that pairing has given.
    #[cfg(feature = "pairing")]
    pub fn account(&self) -> Option<String<32>> {
        self.with(|shared| shared.pairing.paired.as_ref().map(|paired| paired.account.clone()))
    }

    /// Who has paired the device.
    #[cfg(feature = "pairing")]
    pub fn owner(&self) -> Option<String<32>> {
        self.with(|shared| shared.pairing.paired.as_ref().map(|paired| paired.owner.clone()))
    }

    /// The household that the device was brought into.
    #[cfg(feature = "pairing")]
    pub fn household(&self) -> Option<String<34>> {
        self.with(|shared| shared.pairing.paired.as_ref().map(|paired| paired.household.clone()))
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
    /// None until it is queued.
    id: Option<SentId>,
    #[cfg_attr(not(feature = "persist"), allow(dead_code, reason = "what is queued is kept"))]
    kept: bool,
}

impl Receipt<'_> {
    /// Its name, for `Device::receipt` after a reboot; of a message also what the conversation calls it.
    pub fn id(&self) -> SentId {
        // A receipt is not given away before.
        self.id.unwrap_or(SentId::from_bytes([0; 8]))
    }

    /// Waits until it is known what became of it.
    pub fn acked(&self) -> impl Future<Output = Outcome> {
        self.device.until(|shared| self.outcome_of(shared))
    }

    /// Queues it once, and waits until flash has it if it is to be there.
    #[cfg(any(feature = "topics", feature = "messages", feature = "state"))]
    fn poll(
        &mut self,
        context: &Context<'_>,
        push: &mut dyn FnMut(&mut Shared) -> Result<SentId, SendError>,
    ) -> Poll<Result<(), SendError>> {
        let device = self.device;
        device.with(|shared| {
            if self.id.is_none() && shared.is_started() {
                match push(shared) {
                    Ok(id) => {
                        shared.watch(id);
                        self.id = Some(id);
                    }
                    Err(SendError::Full) => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            #[cfg(feature = "persist")]
            let kept = self.id.and_then(|id| shared.kept(id));
            #[cfg(not(feature = "persist"))]
            let kept = self.id.map(|_| Ok(()));
            if let Some(kept) = kept {
                self.kept = true;
                return Poll::Ready(kept);
            }
            shared.wait_app(context.waker());
            Poll::Pending
        })
    }

    pub(crate) fn outcome_of(&self, shared: &mut Shared) -> Option<Outcome> {
        shared.outcome(self.id?)
    }

    /// What became of it; `None`: it is still queued.
    pub fn outcome(&self) -> Option<Outcome> {
        self.device.with(|shared| self.outcome_of(shared))
    }
}

impl Drop for Receipt<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        self.device.with(|shared| {
            #[cfg(feature = "persist")]
            if !self.kept {
                // The call that queues it was given up before flash had it.
                shared.withdraw(id);
            }
            shared.unwatch(id);
        });
    }
}
