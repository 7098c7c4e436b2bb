//! One executor in thread mode that idles in WFI.

use core::sync::atomic::{AtomicBool, Ordering};
use embassy_executor::{Spawner, raw};
use static_cell::StaticCell;

/// A task wants to run.
static AWAKE: AtomicBool = AtomicBool::new(true);

#[unsafe(export_name = "__pender")]
fn wake(_: *mut ()) {
    AWAKE.store(true, Ordering::SeqCst);
}

/// Runs tasks for ever. `start` spawns the first ones.
pub fn run(start: impl FnOnce(Spawner)) -> ! {
    static EXECUTOR: StaticCell<raw::Executor> = StaticCell::new();
    let executor = EXECUTOR.init(raw::Executor::new(core::ptr::null_mut()));
    start(executor.spawner());
    loop {
        AWAKE.store(false, Ordering::SeqCst);
        // SAFETY: this loop is the only place that polls, and it is not in an interrupt.
        unsafe { executor.poll() };
        // With interrupts masked nothing can wake a task between the look and WFI; WFI ends at a pending interrupt all the same.
        cortex_m::interrupt::disable();
        if !AWAKE.load(Ordering::SeqCst) {
            cortex_m::asm::wfi();
        }
        // SAFETY: they were enabled before this loop, and nothing here holds a critical section.
        unsafe { cortex_m::interrupt::enable() };
    }
}
