//! The clock: SysTick interrupts every millisecond.

use core::cell::{Cell, RefCell};
use core::task::Waker;
use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::exception;
use critical_section::Mutex;
use embassy_time_driver::{Driver, TICK_HZ};
use embassy_time_queue_utils::Queue;

/// The core's clock on this board.
const CORE_HZ: u32 = 25_000_000;
/// What the timer counts down from.
const RELOAD: u32 = CORE_HZ / TICK_HZ as u32 - 1;

struct Clock {
    now: Mutex<Cell<u64>>,
    next: Mutex<Cell<u64>>,
    timers: Mutex<RefCell<Queue>>,
}

embassy_time_driver::time_driver_impl!(static CLOCK: Clock = Clock {
    now: Mutex::new(Cell::new(0)),
    next: Mutex::new(Cell::new(u64::MAX)),
    timers: Mutex::new(RefCell::new(Queue::new())),
});

impl Driver for Clock {
    fn now(&self) -> u64 {
        critical_section::with(|cs| self.now.borrow(cs).get())
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        critical_section::with(|cs| {
            let mut timers = self.timers.borrow_ref_mut(cs);
            if timers.schedule_wake(at, waker) {
                // The tick comes anyway: to set the alarm is to remember it. One that is past rings at the next tick.
                self.next.borrow(cs).set(timers.next_expiration(self.now.borrow(cs).get()));
            }
        });
    }
}

#[exception]
fn SysTick() {
    critical_section::with(|cs| {
        let now = CLOCK.now.borrow(cs).get() + 1;
        CLOCK.now.borrow(cs).set(now);
        if now >= CLOCK.next.borrow(cs).get() {
            CLOCK.next.borrow(cs).set(CLOCK.timers.borrow_ref_mut(cs).next_expiration(now));
        }
    });
}

/// Cycles of the core's clock since the start.
pub fn cycles() -> u64 {
    loop {
        let before = CLOCK.now();
        let within = RELOAD - SYST::get_current().min(RELOAD);
        // A tick may have come between the two.
        if CLOCK.now() == before {
            return before * u64::from(RELOAD + 1) + u64::from(within);
        }
    }
}

/// Starts the clock.
pub fn start(mut timer: SYST) {
    timer.set_clock_source(SystClkSource::Core);
    timer.set_reload(RELOAD);
    timer.clear_current();
    timer.enable_counter();
    timer.enable_interrupt();
}
