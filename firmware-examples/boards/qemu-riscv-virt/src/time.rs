//! The clock: `mtime` of the CLINT counts at 10 MHz, and `mtimecmp` rings.

use core::cell::RefCell;
use core::task::Waker;
use critical_section::Mutex;
use embassy_time_driver::{Driver, TICK_HZ};
use embassy_time_queue_utils::Queue;
use riscv::interrupt::Interrupt;

const MTIME: *mut u32 = 0x0200_BFF8 as *mut u32;
const MTIMECMP: *mut u32 = 0x0200_4000 as *mut u32;
/// Counts of `mtime` in a tick.
const COUNTS: u64 = 10_000_000 / TICK_HZ;

struct Clock(Mutex<RefCell<Queue>>);

embassy_time_driver::time_driver_impl!(static CLOCK: Clock = Clock(Mutex::new(RefCell::new(Queue::new()))));

fn counts() -> u64 {
    loop {
        // SAFETY: two aligned registers of the CLINT, which every `virt` machine has at this place.
        let [high, low, again] =
            unsafe { [MTIME.add(1).read_volatile(), MTIME.read_volatile(), MTIME.add(1).read_volatile()] };
        // The low half may have run over between the reads.
        if high == again {
            return u64::from(high) << 32 | u64::from(low);
        }
    }
}

fn ring_at(counts: u64) {
    // SAFETY: as above. The high half goes to its maximum first, so that no mixture of old and new rings too early.
    unsafe {
        MTIMECMP.add(1).write_volatile(u32::MAX);
        MTIMECMP.write_volatile(counts as u32);
        MTIMECMP.add(1).write_volatile((counts >> 32) as u32);
    }
}

impl Driver for Clock {
    fn now(&self) -> u64 {
        counts() / COUNTS
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        critical_section::with(|cs| {
            let mut timers = self.0.borrow_ref_mut(cs);
            if timers.schedule_wake(at, waker) {
                ring_at(timers.next_expiration(self.now()).saturating_mul(COUNTS));
            }
        });
    }
}

#[riscv_rt::core_interrupt(Interrupt::MachineTimer)]
fn rang() {
    critical_section::with(|cs| {
        let next = CLOCK.0.borrow_ref_mut(cs).next_expiration(CLOCK.now());
        ring_at(next.saturating_mul(COUNTS));
    });
}

/// Starts the clock's interrupt.
pub fn start() {
    ring_at(u64::MAX);
    // SAFETY: its handler is `rang`, and no critical section is open.
    unsafe { riscv::interrupt::enable_interrupt(Interrupt::MachineTimer) };
}
