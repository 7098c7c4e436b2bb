//! The emulated Cortex-M3.

use crate::lan9118::{Lan9118, interrupted};
use crate::{executor, time};
use cortex_m_rt::{ExceptionFrame, exception};

/// The network card.
pub type Nic = Lan9118;

#[exception]
unsafe fn DefaultHandler(line: i16) {
    assert!(interrupted(line), "interrupt {line} has no handler");
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    panic!("hard fault {frame:?}")
}

struct Masked;
critical_section::set_impl!(Masked);

// SAFETY: one core; interrupts are masked within, and as they were before behind it.
unsafe impl critical_section::Impl for Masked {
    unsafe fn acquire() -> u32 {
        let masked = cortex_m::register::primask::read().is_inactive();
        cortex_m::interrupt::disable();
        u32::from(masked)
    }

    unsafe fn release(before: u32) {
        if before == 0 {
            // SAFETY: they were enabled when the section began.
            unsafe { cortex_m::interrupt::enable() }
        }
    }
}

#[cortex_m_rt::entry]
fn entry() -> ! {
    executor::run(crate::spawn)
}

/// Starts the clock.
pub fn start() {
    // SAFETY: it is called once, before anything else.
    time::start(unsafe { cortex_m::Peripherals::steal() }.SYST);
}

pub fn nic() -> Nic {
    Lan9118::start().expect("QEMU was started with -nic model=lan9118")
}

/// Cycles since the start; the lower half.
pub fn cycles() -> u32 {
    time::cycles() as u32
}
