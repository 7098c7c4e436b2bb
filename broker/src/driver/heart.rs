//! The heart: woken once for any number of reads, it does what the hub decided.

use super::Driver;
use parlor_core::auth::AuthAnswer;
use parlor_core::store::StoreEvent;
use parlor_core::{Effect, LinkId};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Wakes the heart from any thread.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    set: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Signal {
    /// Makes the heart beat; cheap when it is about to anyway.
    pub(crate) fn wake(&self) {
        if !self.set.swap(true, Ordering::SeqCst)
            && let Ok(waker) = self.waker.lock()
            && let Some(waker) = &*waker
        {
            waker.wake_by_ref();
        }
    }

    /// Says that the heart beats now. A swap and not a store: what was done before a wake that this hides is seen by
    /// the beat that follows. A plain store could still be on its way out while the beat reads already, and then a
    /// commit that was reported in between would wait for the next event.
    fn clear(&self) {
        self.set.swap(false, Ordering::SeqCst);
    }

    fn arm(&self, cx: &Context<'_>) {
        if let Ok(mut waker) = self.waker.lock()
            && !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
    }
}

/// The task that performs effects, commits, writes and keeps time.
pub(crate) struct Heart {
    driver: Rc<Driver>,
    sleep: Pin<Box<Sleep>>,
    /// When `sleep` ends, on the hub's clock.
    armed_ms: u64,
}

impl Heart {
    pub(crate) fn new(driver: Rc<Driver>) -> Self {
        Self { driver, sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), armed_ms: 0 }
    }
}

impl Future for Heart {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let driver = Rc::clone(&self.driver);
        driver.signal.arm(cx);
        driver.signal.clear();
        driver.beat();
        let now = driver.now();
        let due = driver.hub.borrow().deadline().unwrap_or(now.ms + 60_000);
        if due != self.armed_ms {
            self.armed_ms = due;
            let at = Instant::now() + Duration::from_millis(due.saturating_sub(now.ms));
            self.sleep.as_mut().reset(at);
        }
        if self.sleep.as_mut().poll(cx).is_ready() {
            driver.hub.borrow_mut().tick(driver.now());
            // Whatever fell due has left the list of deadlines; the next one is looked up in the next beat.
            self.armed_ms = u64::MAX;
            driver.wake();
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Driver {
    /// One turn: what the store says, what the hub wants done, what is to be written, until nothing is left.
    fn beat(self: &Rc<Self>) {
        self.take_store_events();
        loop {
            self.perform_effects();
            if self.submit() {
                // A store that is quick may have answered already.
                self.take_store_events();
                continue;
            }
            let retry = self.retry.borrow_mut().pop_front();
            if let Some(link) = retry {
                self.flush(link);
                continue;
            }
            let dirty = self.hub.borrow_mut().poll_dirty();
            match dirty {
                Some(link) => self.flush(link),
                None => break,
            }
        }
        self.send_packets();
        self.log_notices();
    }

    /// What was written on QUIC connections in this turn goes out, once for each.
    fn send_packets(&self) {
        for connection in self.unsent.borrow_mut().drain(..) {
            connection.transmit(&mut self.packets.borrow_mut());
        }
    }

    fn take_store_events(&self) {
        loop {
            let event = self.store.borrow_mut().poll();
            let Some(event) = event else { break };
            match &event {
                StoreEvent::Committed(number) if number.0 >= self.outstanding.get() => self.outstanding.set(0),
                // No connection outlives its store [MQTT3-4.8.0-2].
                StoreEvent::Failed(why) => {
                    self.store_failed.set(true);
                    self.outside.borrow_mut().failed(why);
                }
                StoreEvent::LowSpace(low) => self.outside.borrow_mut().low_space(*low),
                StoreEvent::Page(_) | StoreEvent::Answer(_) | StoreEvent::Committed(_) => {}
            }
            self.hub.borrow_mut().stored(self.now(), event);
        }
    }

    /// Group commit: while one batch is on its way to the disk the next one gathers.
    fn submit(&self) -> bool {
        if self.outstanding.get() == 0
            && !self.store_failed.get()
            && let Some((number, batch)) = self.hub.borrow_mut().take_batch()
        {
            self.outstanding.set(number.0);
            self.store.borrow_mut().submit(number, batch);
            return true;
        }
        false
    }

    fn perform_effects(self: &Rc<Self>) {
        loop {
            let effect = self.hub.borrow_mut().poll_effect();
            match effect {
                None => break,
                Some(Effect::Close(link)) => {
                    if let Some(conn) = self.conn(link) {
                        conn.close();
                        self.retry.borrow_mut().push_back(link);
                    }
                }
                Some(Effect::Authenticate(link, request)) => self.authenticate(link, request),
                Some(Effect::Forget(exchange)) => self.authenticator.forget(exchange),
                Some(Effect::Load(load)) => self.store.borrow_mut().load(load),
                Some(Effect::Query(query)) => self.store.borrow_mut().query(query),
                Some(Effect::Resume(link)) => {
                    if let Some(conn) = self.conn(link) {
                        conn.wake();
                    }
                }
                Some(Effect::Stored(token)) => self.outside.borrow_mut().stored(token),
                Some(Effect::Replied(token, reply)) => self.outside.borrow_mut().replied(token, reply),
                Some(Effect::Pair(request)) => self.pair(request.exchange),
                Some(Effect::AccountMade { name, record }) => {
                    self.outside.borrow_mut().account_made(&name, &record);
                }
            }
        }
    }

    /// Password checks take tens of milliseconds by design, so they run beside this thread.
    fn authenticate(self: &Rc<Self>, link: LinkId, request: Box<parlor_core::auth::AuthRequest>) {
        let (exchange, wall_ms) = (request.exchange, self.now().wall_ms);
        if let Some(answer) = self.authenticator.answer_quickly(&request, wall_ms) {
            self.answered(link, exchange, answer);
            return;
        }
        let driver = Rc::clone(self);
        let authenticator = std::sync::Arc::clone(&self.authenticator);
        tokio::task::spawn_local(async move {
            let asked = tokio::task::spawn_blocking(move || authenticator.answer(&request, wall_ms)).await;
            if let Ok(answer) = asked {
                driver.answered(link, exchange, answer);
                driver.wake();
            }
        });
    }

    /// Makes the credentials of a device whose pairing code is right, which takes as long as a password check.
    fn pair(self: &Rc<Self>, exchange: u64) {
        let driver = Rc::clone(self);
        let (authenticator, wall_ms) = (std::sync::Arc::clone(&self.authenticator), self.now().wall_ms);
        tokio::task::spawn_local(async move {
            let made = tokio::task::spawn_blocking(move || authenticator.make_credentials(wall_ms)).await;
            match made {
                Ok(Ok((password, record))) => {
                    driver.hub.borrow_mut().paired(driver.now(), exchange, &record.encode(), password.reveal());
                    driver.wake();
                }
                Ok(Err(error)) => tracing::error!("a device could not be paired, it has to try again: {error}"),
                // The runtime is ending.
                Err(_) => {}
            }
        });
    }

    fn answered(&self, link: LinkId, exchange: u64, answer: AuthAnswer) {
        if let Some(conn) = self.conn(link) {
            let peer = conn.arrival.peer;
            match &answer {
                AuthAnswer::Accept { account, .. } => tracing::debug!(%peer, account, "let in"),
                AuthAnswer::Refuse { label, text, .. } => tracing::debug!(%peer, label, "not let in: {text}"),
                AuthAnswer::Continue { .. } => {}
            }
        }
        self.hub.borrow_mut().authenticated(self.now(), link, exchange, answer);
    }

    fn log_notices(&self) {
        loop {
            let notice = self.hub.borrow_mut().poll_notice();
            let Some(notice) = notice else { break };
            tracing::warn!(label = notice.label, suppressed = notice.suppressed, "{}", notice.text);
        }
    }
}
