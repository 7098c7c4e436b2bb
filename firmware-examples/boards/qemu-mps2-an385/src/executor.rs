//! One executor in thread mode that idles in WFI.

use crate::time;
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering};
use critical_section::Mutex;
use embassy_executor::{Spawner, raw};
use static_cell::StaticCell;

/// A task wants to run.
static AWAKE: AtomicBool = AtomicBool::new(true);

/// How long tasks have run, and the longest time they ran without idling.
static BUSY: Mutex<Cell<(u64, u64)>> = Mutex::new(Cell::new((0, 0)));

/// Cycles of the core's clock that tasks have run for, and the most that one turn of all that were awake took. A cycle is 40 ns; when
/// QEMU counts instructions (`-icount shift=0`), 40 instructions.
pub fn busy() -> (u64, u64) {
    critical_section::with(|cs| BUSY.borrow(cs).get())
}

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
        let began = time::cycles();
        // SAFETY: this loop is the only place that polls, and it is not in an interrupt.
        unsafe { executor.poll() };
        let ran = time::cycles().saturating_sub(began);
        critical_section::with(|cs| {
            let (all, longest) = BUSY.borrow(cs).get();
            BUSY.borrow(cs).set((all + ran, longest.max(ran)));
        });
        // With interrupts masked nothing can wake a task between the look and WFI; WFI ends at a pending interrupt all the same.
        cortex_m::interrupt::disable();
        if !AWAKE.load(Ordering::SeqCst) {
            cortex_m::asm::wfi();
        }
        // SAFETY: they were enabled before this loop, and nothing here holds a critical section.
        unsafe { cortex_m::interrupt::enable() };
    }
}
