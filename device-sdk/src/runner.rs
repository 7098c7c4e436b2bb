//! The runner: owns the connection and the flash, and turns what the session says into reads, writes and pauses.

use crate::error::LinkError;
use crate::flash::Flash;
use crate::fmt::LOGS;
use crate::resources::{Locked, with};
use crate::session::Session;
use crate::shared::{Job, Shared, Sleep, Status};
use crate::transport::{Clock, Connector, Link};
use crate::wire::Wire;
use core::cell::RefCell;
use core::future::poll_fn;
use core::marker::PhantomData;
use core::task::Poll;
use embassy_futures::join::join;
use embassy_futures::select::{Either, select};
use embedded_io_async::{Read, Write};

/// How long a connection may take to be made.
const CONNECT_MS: u64 = 30_000;

/// How long the broker may take no byte of what is written.
const WRITE_MS: u64 = 20_000;

/// Pause after flash has failed.
const FLASH_PAUSE_MS: u64 = 1_000;

/// See the module. Made by [`crate::new`].
#[derive(Debug)]
pub struct Runner<'a, W, C, F, K> {
    pub(crate) shared: &'a dyn Locked,
    pub(crate) rx: &'a mut [u8],
    pub(crate) tx: &'a mut [u8],
    pub(crate) session: RefCell<Session<W>>,
    pub(crate) connector: C,
    pub(crate) flash: F,
    pub(crate) seed: u64,
    pub(crate) clock: PhantomData<K>,
}

impl core::fmt::Debug for dyn Locked + '_ {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Shared")
    }
}

impl<W: Wire, C: Connector, F: Flash, K: Clock> Runner<'_, W, C, F, K> {
    /// Runs for ever. It has to be polled by one task, and must not be dropped while the device has power: a write to
    /// flash that is given up is found and repaired at the next start, but what it was to keep is not there.
    pub async fn run(&mut self) -> ! {
        let Self { shared, rx, tx, session, connector, flash, seed, clock: _ } = self;
        let shared = *shared;
        load(shared, flash, *seed).await;
        // Neither ever ends, and so neither gives the other up.
        join(keep::<F, K>(shared, flash), connect::<W, C, K>(shared, session, connector, rx, tx)).await.1
    }
}

/// Reads what is in flash, and counts the start.
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

/// Writes to flash what has to be there.
async fn keep<F: Flash, K: Clock>(shared: &dyn Locked, flash: &mut F) -> ! {
    if !F::KEEPS {
        core::future::pending::<()>().await;
    }
    loop {
        let (job, seen) = with(shared, |shared| (shared.poll_flash(), shared.turn()));
        let Some(job) = job else {
            changed(shared, seen).await;
            continue;
        };
        let written = flash.store(job.key(), &|out| with(shared, |shared| shared.flash_fill(job, out))).await;
        with(shared, |shared| shared.flash_done(job, written.is_ok()));
        if written.is_ok() && job == Job::Paired {
            info!("the account is in flash");
        }
        if written.is_err() {
            warn!("flash does not take what belongs under key {}", job.key());
            K::sleep_until(K::now_ms() + FLASH_PAUSE_MS).await;
        }
    }
}

/// Waits until something has changed since `seen`.
async fn changed(shared: &dyn Locked, seen: u32) {
    poll_fn(|context| {
        with(shared, |shared| {
            if shared.turn() != seen {
                return Poll::Ready(());
            }
            shared.wait_runner(context.waker());
            Poll::Pending
        })
    })
    .await;
}

/// Waits until something has changed, or until a time.
async fn changed_or<K: Clock>(shared: &dyn Locked, seen: u32, until: Option<u64>) {
    match until {
        Some(until) => {
            select(changed(shared, seen), K::sleep_until(until)).await;
        }
        None => changed(shared, seen).await,
    }
}

/// Connects, again and again.
async fn connect<W: Wire, C: Connector, K: Clock>(
    shared: &dyn Locked,
    session: &RefCell<Session<W>>,
    connector: &mut C,
    rx: &mut [u8],
    tx: &mut [u8],
) -> ! {
    loop {
        ready_to_connect(shared).await;
        debug!("connecting");
        let connecting = async {
            let mut link = connector.connect().await?;
            debug!("connected, logging in");
            with(shared, |shared| session.borrow_mut().handle_connected(shared, K::now_ms()));
            Ok(talk::<W, K, _>(shared, session, &mut link, rx, tx).await)
        };
        let patience = async {
            let over = idle::<W, K>(shared, session, K::now_ms() + CONNECT_MS).await;
            if !session.borrow().is_down() {
                // It was made meanwhile: the session itself watches over it.
                core::future::pending::<()>().await;
            }
            over
        };
        let why = match select(connecting, patience).await {
            Either::First(Ok(why) | Err(why)) | Either::Second(why) => why,
        };
        let pause = with(shared, |shared| session.borrow_mut().handle_disconnected(shared, K::now_ms(), why));
        if LOGS && with(shared, |shared| shared.status()) == Status::Asleep {
            info!("asleep");
        } else {
            warn!("offline: {}; the next attempt is in {} ms", why.text(), pause);
        }
        idle::<W, K>(shared, session, K::now_ms() + u64::from(pause)).await;
    }
}

/// Waits until the device has something to log in with, and does not sleep.
async fn ready_to_connect(shared: &dyn Locked) {
    loop {
        let (ready, seen) = with(shared, |shared| {
            let asleep = matches!(shared.sleep, Sleep::Asleep { .. });
            let login = shared.login().is_some();
            if asleep {
                shared.set_status(Status::Asleep);
            } else if login {
                shared.set_status(Status::Connecting);
            } else {
                shared.set_status(Status::Offline(LinkError::NoCredentials));
            }
            (login && !asleep, shared.turn())
        });
        if ready {
            return;
        }
        changed(shared, seen).await;
    }
}

/// Waits while there is no connection, until a time, or until the device sleeps or has another login.
async fn idle<W: Wire, K: Clock>(shared: &dyn Locked, session: &RefCell<Session<W>>, until: u64) -> LinkError {
    let hurry = with(shared, |shared| shared.hurry());
    loop {
        let now = K::now_ms();
        let (over, seen, timeout) = with(shared, |shared| {
            let mut session = session.borrow_mut();
            if session.is_down() {
                // Nothing can fail where there is no connection.
                let _ = session.handle_timeout(shared, now);
            }
            let over = matches!(shared.sleep, Sleep::Asleep { .. }) || shared.hurry() != hurry;
            (over, shared.turn(), if session.is_down() { session.poll_timeout(shared) } else { None })
        });
        if over {
            return LinkError::Closed;
        }
        if now >= until {
            return LinkError::Timeout;
        }
        changed_or::<K>(shared, seen, Some(timeout.map_or(until, |timeout| timeout.min(until)))).await;
    }
}

/// A connection, until it ends.
async fn talk<W: Wire, K: Clock, L: Link>(
    shared: &dyn Locked,
    session: &RefCell<Session<W>>,
    link: &mut L,
    rx: &mut [u8],
    tx: &mut [u8],
) -> LinkError {
    let (reader, writer) = link.split();
    let read = read::<W, K, _>(shared, session, reader, |error| L::why(error), rx);
    match select(read, write::<W, K>(shared, session, writer, tx)).await {
        Either::First(why) | Either::Second(why) => why,
    }
}

async fn read<W: Wire, K: Clock, R: Read>(
    shared: &dyn Locked,
    session: &RefCell<Session<W>>,
    mut reader: R,
    why: impl Fn(&R::Error) -> LinkError,
    rx: &mut [u8],
) -> LinkError {
    let mut filled = 0;
    loop {
        let room = rx.get_mut(filled..).unwrap_or(&mut []);
        match reader.read(room).await {
            Ok(0) => return LinkError::Closed,
            Err(error) => return why(&error),
            Ok(len) => filled += len,
        }
        loop {
            let bytes = rx.get(..filled).unwrap_or(&[]);
            let was = LOGS.then(|| with(shared, |shared| shared.status()));
            let (used, stalled, seen) = with(shared, |shared| {
                let mut session = session.borrow_mut();
                let used = session.handle_bytes(shared, K::now_ms(), bytes);
                (used, session.is_stalled(), shared.turn())
            });
            if was.is_some_and(|was| was != Status::Online) && with(shared, |shared| shared.status()) == Status::Online
            {
                info!("online");
            }
            match used {
                Ok(used) => {
                    rx.copy_within(used..filled, 0);
                    filled -= used;
                }
                Err(why) => return why,
            }
            if !stalled {
                break;
            }
            changed(shared, seen).await;
        }
    }
}

async fn write<W: Wire, K: Clock>(
    shared: &dyn Locked,
    session: &RefCell<Session<W>>,
    mut writer: impl Write,
    tx: &mut [u8],
) -> LinkError {
    loop {
        let now = K::now_ms();
        let (len, seen, timeout) = with(shared, |shared| {
            let mut session = session.borrow_mut();
            let len = session.handle_timeout(shared, now).map(|()| session.poll_transmit(shared, now, tx));
            (len, shared.turn(), session.poll_timeout(shared))
        });
        match len {
            Err(why) => return why,
            Ok(0) => {
                if let Some(why) = session.borrow().is_over() {
                    return why;
                }
                changed_or::<K>(shared, seen, timeout).await;
            }
            Ok(len) => {
                let bytes = tx.get(..len).unwrap_or(&[]);
                let written = async {
                    writer.write_all(bytes).await?;
                    writer.flush().await
                };
                match select(written, K::sleep_until(now + WRITE_MS)).await {
                    Either::First(Ok(())) => {}
                    Either::First(Err(_)) => return LinkError::Closed,
                    Either::Second(()) => return LinkError::Timeout,
                }
            }
        }
    }
}
