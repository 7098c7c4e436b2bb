//! The emulated RISC-V.

use crate::time;
use crate::virtio_net::{Frames, VirtioNet};
use embassy_executor::Executor;
use riscv::register::{mcycle, mstatus};
use static_cell::{ConstStaticCell, StaticCell};

/// The network card.
pub type Nic = VirtioNet;

struct Masked;
critical_section::set_impl!(Masked);

// SAFETY: one core; interrupts are masked within, and as they were before behind it.
unsafe impl critical_section::Impl for Masked {
    unsafe fn acquire() -> u32 {
        let masked = !mstatus::read().mie();
        riscv::interrupt::disable();
        u32::from(masked)
    }

    unsafe fn release(before: u32) {
        if before == 0 {
            // SAFETY: they were enabled when the section began.
            unsafe { riscv::interrupt::enable() }
        }
    }
}

#[riscv_rt::entry]
fn entry() -> ! {
    static EXECUTOR: StaticCell<Executor> = StaticCell::new();
    EXECUTOR.init(Executor::new()).run(crate::spawn)
}

/// Starts the clock.
pub fn start() {
    time::start();
    // SAFETY: every interrupt that is on has its handler, and no critical section is open.
    unsafe { riscv::interrupt::enable() };
}

pub fn nic() -> Nic {
    static FRAMES: ConstStaticCell<Frames> = ConstStaticCell::new([[0; 1_536]; 4]);
    VirtioNet::start(FRAMES.take()).expect("QEMU was started with -device virtio-net-device")
}

/// Cycles since the start; the lower half.
pub fn cycles() -> u32 {
    mcycle::read() as u32
}
