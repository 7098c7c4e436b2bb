//! The runner: owns the connection and the flash, and turns what the session says into reads, writes and pauses.
//!
//! All that it waits for is in one future, so that whatever wakes it has everything looked at again. There is one timer, set to the
//! earliest of all deadlines.

use crate::error::LinkError;
use crate::flash::Flash;
use crate::fmt::LOGS;
use crate::resources::{Locked, with};
use crate::session::Session;
#[cfg(all(feature = "pairing", feature = "persist"))]
use crate::shared::Job;
use crate::shared::{Shared, Status};
use crate::transport::{Clock, Connector, Link};
use crate::wire::Wire;
use core::cell::RefCell;
use core::future::{Future, poll_fn};
use core::marker::PhantomData;
use core::task::{Context, Poll};
use embassy_futures::select::{Either, select};
use embedded_io_async::{Read, Write};

/// How long a connection may take to be made.
const CONNECT_MS: u64 = 30_000;

/// How long the broker may take no byte of what is written.
const WRITE_MS: u64 = 20_000;

/// Pause after flash has failed.
#[cfg(feature = "persist")]
const FLASH_PAUSE_MS: u64 = 1_000;

/// The longest sleep where nothing has a deadline.
const LONGEST_MS: u64 = 3_600_000;

/// See the module. Made by [`crate::new`].
#[derive(Debug)]
pub struct Runner<'a, W, C, F, K> {
    pub(crate) shared: &'a dyn Locked,
    pub(crate) rx: &'a mut [u8],
    pub(crate) tx: &'a mut [u8],
    pub(crate) road: RefCell<Road<W>>,
    pub(crate) connector: C,
    #[cfg_attr(not(feature = "persist"), allow(dead_code, reason = "nothing is kept"))]
    pub(crate) flash: F,
    pub(crate) seed: u64,
    pub(crate) clock: PhantomData<K>,
}

impl core::fmt::Debug for dyn Locked + '_ {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Shared")
    }
}

/// How far the runner is with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The next attempt is made at the deadline.
    Waits,
    /// It is given up at the deadline.
    Connects,
    /// What is written has to be taken until the deadline.
    Writes,
    /// The session says what the deadline is.
    Talks,
}

/// The session, and what the runner does for it.
#[derive(Debug)]
pub(crate) struct Road<W> {
    session: Session<W>,
    step: Step,
    until: u64,
    /// Flash is not written before.
    #[cfg(feature = "persist")]
    flash_at: u64,
}

impl<W> Road<W> {
    pub(crate) const fn new(session: Session<W>) -> Self {
        Self {
            session,
            step: Step::Waits,
            until: 0,
            #[cfg(feature = "persist")]
            flash_at: 0,
        }
    }

    fn step(&mut self, step: Step, until: u64) {
        self.step = step;
        self.until = until;
    }
}

impl<W: Wire> Road<W> {
    /// Whether the next attempt is made now.
    fn connects(&mut self, shared: &mut Shared, now: u64) -> bool {
        if shared.is_asleep() {
            shared.set_status(Status::Asleep);
            return false;
        }
        if now < self.until && !shared.hurry {
            return false;
        }
        if shared.login().is_none() {
            shared.set_status(Status::Offline(LinkError::NoCredentials));
            return false;
        }
        shared.set_status(Status::Connecting);
        shared.hurry = false;
        self.step(Step::Connects, now + CONNECT_MS);
        true
    }

    /// The next deadline; or why the connection, or the attempt to make one, is over.
    fn deadline(&mut self, shared: &mut Shared, now: u64) -> Result<u64, LinkError> {
        if matches!(self.step, Step::Waits | Step::Connects) {
            // Nothing can fail where there is no connection.
            let _ = self.session.handle_timeout(shared, now);
        }
        let over = now >= self.until;
        match self.step {
            Step::Connects if shared.is_asleep() || shared.hurry => return Err(LinkError::Closed),
            Step::Connects | Step::Writes if over => return Err(LinkError::Timeout),
            _ => {}
        }
        let mut deadline = u64::MAX;
        if self.step != Step::Talks && !over {
            deadline = self.until;
        }
        if self.step != Step::Writes {
            deadline = deadline.min(self.session.deadline(shared));
        }
        #[cfg(feature = "persist")]
        if self.flash_at > now {
            deadline = deadline.min(self.flash_at);
        }
        Ok(deadline)
    }
}

/// Where bytes come from and go to.
struct Ends<'r, C> {
    connector: &'r mut C,
    rx: &'r mut [u8],
    tx: &'r mut [u8],
}

/// What the futures of the runner have in common.
struct Drive<'r, W, K> {
    shared: &'r dyn Locked,
    road: &'r RefCell<Road<W>>,
    clock: PhantomData<K>,
}

impl<W: Wire, C: Connector, F: Flash, K: Clock> Runner<'_, W, C, F, K> {
    /// Runs for ever. It has to be polled by one task, and must not be dropped while the device has power: a write to
    /// flash that is given up is found and repaired at the next start, but what it was to keep is not there.
    pub async fn run(&mut self) -> ! {
        let drive = Drive { shared: self.shared, road: &self.road, clock: PhantomData::<K> };
        let mut ends = Ends { connector: &mut self.connector, rx: self.rx, tx: self.tx };
        #[cfg(feature = "persist")]
        {
            load(self.shared, &mut self.flash, self.seed).await;
            // Neither ever ends, and so neither gives the other up.
            match select(drive.connect(&mut ends), drive.keep(&mut self.flash)).await {
                Either::First(never) | Either::Second(never) => match never {},
            }
        }
        #[cfg(not(feature = "persist"))]
        {
            const { assert!(!F::KEEPS, "parlor-device keeps nothing without its feature `persist`") };
            drive.with(|_, shared, _| {
                shared.start(self.seed, false);
                shared.started();
            });
            match drive.connect(&mut ends).await {}
        }
    }
}

/// Reads what is in flash, and counts the start.
#[cfg(feature = "persist")]
async fn load<F: Flash>(shared: &dyn Locked, flash: &mut F, seed: u64) {
    if F::KEEPS {
        for key in Shared::keys() {
            // What cannot be read is not there; the map repairs itself when it is written.
            if let Ok(Some(bytes)) = flash.load(key).await {
                with(shared, |shared| shared.load(key, bytes));
            }
        }
    }
    let boot = with(shared, |shared| shared.start(seed, F::KEEPS));
    info!("start {}", u32::from_be_bytes(boot));
    if F::KEEPS {
        let fill = |out: &mut [u8]| {
            out.get_mut(..4)?.copy_from_slice(&boot);
            Some(4)
        };
        if flash.store(0, &fill).await.is_err() {
            warn!("flash does not take the number of the start: nothing is kept");
            // Better without flash than with numbers that come twice.
            with(shared, |shared| shared.start(seed, false));
        }
    }
    with(shared, Shared::started);
}

#[allow(
    clippy::manual_async_fn,
    reason = "an async fn keeps each of its arguments twice, and every byte of this lies in RAM"
)]
impl<W: Wire, K: Clock> Drive<'_, W, K> {
    fn with<R>(&self, f: impl FnOnce(&mut Road<W>, &mut Shared, u64) -> R) -> R {
        let now = K::now_ms();
        with(self.shared, |shared| f(&mut self.road.borrow_mut(), shared, now))
    }

    /// Writes to flash what has to be there.
    #[cfg(feature = "persist")]
    async fn keep<F: Flash>(&self, flash: &mut F) -> core::convert::Infallible {
        loop {
            let next = |road: &mut Road<W>, shared: &mut Shared, now| {
                let job = if now < road.flash_at { None } else { shared.poll_flash() };
                job.map_or(Poll::Pending, Poll::Ready)
            };
            let job = poll_fn(|_| self.with(next)).await;
            let shared = self.shared;
            let written = flash.store(job.key(), &|out| with(shared, |shared| shared.flash_fill(job, out))).await;
            #[cfg(feature = "pairing")]
            if written.is_ok() && job == Job::Paired {
                info!("the account is in flash");
            }
            if written.is_err() {
                warn!("flash does not take what belongs under key {}", job.key());
            }
            self.with(|road, shared, now| {
                if written.is_err() {
                    road.flash_at = now + FLASH_PAUSE_MS;
                }
                shared.flash_done(job, written.is_ok());
            });
        }
    }

    /// Connects, again and again.
    fn connect<C: Connector>(&self, ends: &mut Ends<'_, C>) -> impl Future<Output = core::convert::Infallible> {
        async move {
            // Who changes something before all is looked at for the first time wakes this already.
            let _ = poll_fn(|context| Poll::Ready(self.look(context))).await;
            loop {
                let why = match select(self.attempt(ends), self.watch()).await {
                    Either::First(Ok(why) | Err(why)) | Either::Second(why) => why,
                };
                let (pause, status) = self.with(|road, shared, now| {
                    let pause = road.session.handle_disconnected(shared, now, why);
                    road.step(Step::Waits, now + u64::from(pause));
                    (pause, shared.status())
                });
                if status == Status::Asleep {
                    info!("asleep");
                } else {
                    warn!("offline: {}; the next attempt is in {} ms", why.text(), pause);
                }
            }
        }
    }

    /// Waits until there is something to log in with and the pause is over, connects, and talks until the connection ends.
    fn attempt<C: Connector>(&self, ends: &mut Ends<'_, C>) -> impl Future<Output = Result<LinkError, LinkError>> {
        async move {
            let Ends { connector, rx, tx } = ends;
            poll_fn(|_| if self.with(Road::connects) { Poll::Ready(()) } else { Poll::Pending }).await;
            debug!("connecting");
            let mut link = connector.connect().await?;
            debug!("connected, logging in");
            self.with(|road, shared, now| {
                road.step(Step::Talks, 0);
                road.session.handle_connected(shared, now);
            });
            let (reader, writer) = link.split();
            let why = |error: &_| <C::Link<'_> as Link>::why(error);
            match select(self.read(reader, why, rx), self.write(writer, tx)).await {
                Either::First(why) | Either::Second(why) => Ok(why),
            }
        }
    }

    /// The next deadline; and whatever changes from now on wakes the runner.
    #[inline(never)]
    fn look(&self, context: &Context<'_>) -> Result<u64, LinkError> {
        self.with(|road, shared, now| {
            shared.wait_runner(context.waker());
            road.deadline(shared, now)
        })
    }

    /// Waits until the time for something is over.
    fn watch(&self) -> impl Future<Output = LinkError> {
        async move {
            loop {
                let deadline = match poll_fn(|context| Poll::Ready(self.look(context))).await {
                    Ok(deadline) => deadline,
                    Err(why) => return why,
                };
                let changed =
                    poll_fn(|context| if self.look(context) == Ok(deadline) { Poll::Pending } else { Poll::Ready(()) });
                let now = K::now_ms();
                // Always behind now: this lets everything else look first.
                select(changed, K::sleep_until(deadline.clamp(now + 1, now + LONGEST_MS))).await;
            }
        }
    }

    fn read<R: Read>(
        &self,
        mut reader: R,
        why: impl Fn(&R::Error) -> LinkError,
        rx: &mut [u8],
    ) -> impl Future<Output = LinkError> {
        async move {
            let mut filled = 0;
            loop {
                match reader.read(rx.get_mut(filled..).unwrap_or(&mut [])).await {
                    Ok(0) => return LinkError::Closed,
                    Err(error) => return why(&error),
                    Ok(len) => filled += len,
                }
                let mut is_new = false;
                // More is not read before the application has taken what there is no room for.
                let heard = poll_fn(|_| {
                    self.with(|road, shared, now| {
                        let was = shared.status();
                        let used = road.session.handle_bytes(shared, now, rx.get(..filled).unwrap_or(&[]))?;
                        rx.copy_within(used..filled, 0);
                        filled -= used;
                        is_new |= LOGS && was != Status::Online && shared.status() == Status::Online;
                        Ok(road.session.is_stalled())
                    })
                    .map_or_else(
                        |why| Poll::Ready(Some(why)),
                        |stalled| if stalled { Poll::Pending } else { Poll::Ready(None) },
                    )
                });
                let heard = heard.await;
                if is_new {
                    info!("online");
                }
                if let Some(why) = heard {
                    return why;
                }
            }
        }
    }

    fn write(&self, mut writer: impl Write, tx: &mut [u8]) -> impl Future<Output = LinkError> {
        async move {
            loop {
                let next = poll_fn(|_| {
                    self.with(|road, shared, now| {
                        if let Err(why) = road.session.handle_timeout(shared, now) {
                            return Poll::Ready(Err(why));
                        }
                        let len = road.session.poll_transmit(shared, now, tx);
                        if len > 0 {
                            road.step(Step::Writes, now + WRITE_MS);
                            return Poll::Ready(Ok(len));
                        }
                        road.session.is_over().map_or(Poll::Pending, |why| Poll::Ready(Err(why)))
                    })
                });
                let len = match next.await {
                    Ok(len) => len,
                    Err(why) => return why,
                };
                let mut rest = tx.get(..len).unwrap_or(&[]);
                while !rest.is_empty() {
                    match writer.write(rest).await {
                        Ok(0) | Err(_) => return LinkError::Closed,
                        Ok(len) => rest = rest.get(len..).unwrap_or(&[]),
                    }
                }
                if writer.flush().await.is_err() {
                    return LinkError::Closed;
                }
                self.road.borrow_mut().step(Step::Talks, 0);
            }
        }
    }
}
