//! A board that does not exist: everything a program needs to link, and nothing that could be optimised into nothing.

use core::task::{Context, Waker};
use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use static_cell::ConstStaticCell;

/// Reads a register the compiler knows nothing of.
pub fn register(number: usize) -> u32 {
    // SAFETY: never run; on a chip it would be the address of a register.
    unsafe { ((0x4000_0000 + 4 * number) as *const u32).read_volatile() }
}

/// Writes one.
pub fn set(number: usize, value: u32) {
    // SAFETY: as above.
    unsafe { ((0x4000_0000 + 4 * number) as *mut u32).write_volatile(value) }
}

/// Says that something was heard: bytes or a topic, a message, what is desired, a command.
pub fn heard(what: u32, value: u32) {
    set(10 + what as usize, value);
}

/// A flash chip, a byte at a time.
#[cfg(feature = "flash")]
pub fn flash_read(offset: u32, bytes: &mut [u8]) {
    set(20, offset);
    bytes.iter_mut().for_each(|byte| *byte = register(21) as u8);
}

#[cfg(feature = "flash")]
pub fn flash_write(offset: u32, bytes: &[u8]) {
    set(20, offset);
    bytes.iter().for_each(|byte| set(21, u32::from(*byte)));
}

#[cfg(feature = "flash")]
pub fn flash_erase(from: u32, to: u32) {
    set(22, from);
    set(23, to);
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {
        set(0, 1);
    }
}

struct Masked;
critical_section::set_impl!(Masked);

// SAFETY: never run.
unsafe impl critical_section::Impl for Masked {
    unsafe fn acquire() -> u32 {
        register(1)
    }

    unsafe fn release(before: u32) {
        set(1, before);
    }
}

struct Clock;
embassy_time_driver::time_driver_impl!(static CLOCK: Clock = Clock);

impl embassy_time_driver::Driver for Clock {
    fn now(&self) -> u64 {
        u64::from(register(2))
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        set(3, at as u32);
        waker.wake_by_ref();
    }
}

#[unsafe(export_name = "__pender")]
fn wake(_: *mut ()) {
    set(4, 1);
}

/// Where the broker is.
pub const HOST: &str = "broker.lan";

/// Where the broker is.
pub const fn port() -> u16 {
    1_883
}

/// The key of the broker.
#[cfg(feature = "tls")]
pub const fn pin() -> [u8; 32] {
    [7; 32]
}

/// What TCP reads into and writes from.
pub fn tcp() -> &'static mut ([u8; 2_048], [u8; 1_024]) {
    static BUFFERS: ConstStaticCell<([u8; 2_048], [u8; 1_024])> = ConstStaticCell::new(([0; 2_048], [0; 1_024]));
    BUFFERS.take()
}

/// A network card.
pub struct Nic([u8; 1_514]);

impl Nic {
    pub const fn new() -> Self {
        Self([0; 1_514])
    }
}

pub struct Token<'a>(&'a mut [u8]);

impl RxToken for Token<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, use_it: F) -> R {
        for byte in self.0.iter_mut() {
            *byte = register(5) as u8;
        }
        use_it(self.0)
    }
}

impl TxToken for Token<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let filled = fill(&mut self.0[..length]);
        for byte in self.0.iter() {
            set(6, u32::from(*byte));
        }
        filled
    }
}

impl Driver for Nic {
    type RxToken<'a> = Token<'a>;
    type TxToken<'a> = Token<'a>;

    fn receive(&mut self, _: &mut Context) -> Option<(Token<'_>, Token<'_>)> {
        let (rx, tx) = self.0.split_at_mut(757);
        (register(7) != 0).then_some((Token(rx), Token(tx)))
    }

    fn transmit(&mut self, _: &mut Context) -> Option<Token<'_>> {
        (register(8) != 0).then_some(Token(&mut self.0))
    }

    fn link_state(&mut self, _: &mut Context) -> LinkState {
        LinkState::Up
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = 1_514;
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet([2, 0, 0, 0, 0, 1])
    }
}
