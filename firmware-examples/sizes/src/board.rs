//! An emulated board: on it the program runs until everything that its client can do was done, and says how deep the stack was.

use crate::{chip, stack};
use core::cell::RefCell;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};
use critical_section::Mutex;
use semihosting::experimental::env;
use static_cell::ConstStaticCell;

pub use crate::chip::{Nic, nic};

/// The machine that emulates.
pub const HOST: &str = "10.0.2.2";

/// Bytes of flash.
const FLASH: usize = 8_192;

/// What has to be heard, one bit each: bytes or a topic, a message, what is desired, a command.
const WANTED: u32 = if cfg!(any(feature = "topics", not(feature = "sdk"))) { 1 } else { 0 }
    | if cfg!(feature = "messages") { 2 } else { 0 }
    | if cfg!(feature = "state") { 4 } else { 0 }
    | if cfg!(feature = "commands") { 8 } else { 0 };

static PORT: AtomicU32 = AtomicU32::new(0);
static PIN: Mutex<RefCell<[u8; 32]>> = Mutex::new(RefCell::new([0; 32]));
static CHIP: Mutex<RefCell<[u8; FLASH]>> = Mutex::new(RefCell::new([0xFF; FLASH]));
static HEARD: AtomicU32 = AtomicU32::new(0);
/// Times that something was heard.
static TIMES: AtomicU32 = AtomicU32::new(0);

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    semihosting::println!("PANIC {info}");
    semihosting::process::exit(101)
}

/// Starts the clock, and reads `port=` and `pin=` of the command line.
pub fn start() {
    chip::start();
    let args = env::args::<256>();
    for arg in args.iter().flatten().filter_map(Result::ok) {
        if let Some(port) = arg.strip_prefix("port=") {
            PORT.store(port.parse().expect("port= is a number"), Ordering::Relaxed);
        }
        if let Some(pin) = arg.strip_prefix("pin=") {
            critical_section::with(|cs| {
                for (byte, at) in PIN.borrow(cs).borrow_mut().iter_mut().zip((0..64).step_by(2)) {
                    *byte = u8::from_str_radix(&pin[at..at + 2], 16).expect("pin= is 64 hexadecimal digits");
                }
            });
        }
    }
}

pub fn port() -> u16 {
    PORT.load(Ordering::Relaxed) as u16
}

pub fn pin() -> [u8; 32] {
    critical_section::with(|cs| *PIN.borrow(cs).borrow())
}

/// What TCP reads into and writes from.
pub fn tcp() -> &'static mut ([u8; 2_048], [u8; 1_024]) {
    static BUFFERS: ConstStaticCell<([u8; 2_048], [u8; 1_024])> = ConstStaticCell::new(([0; 2_048], [0; 1_024]));
    BUFFERS.take()
}

/// Numbers that need not be random here.
pub fn register(number: usize) -> u32 {
    chip::cycles() ^ number as u32
}

/// Something was heard, see [`WANTED`]. Ends the program once everything was, and more than once.
pub fn heard(what: u32, _value: u32) {
    let all = HEARD.fetch_or(1 << what, Ordering::Relaxed) | 1 << what;
    if TIMES.fetch_add(1, Ordering::Relaxed) >= 8 && all == WANTED {
        let deepest = stack::deepest();
        semihosting::println!("stack {deepest}");
        semihosting::process::exit(0)
    }
}

pub fn flash_read(offset: u32, bytes: &mut [u8]) {
    critical_section::with(|cs| {
        let chip = CHIP.borrow(cs).borrow();
        bytes.copy_from_slice(&chip[offset as usize..offset as usize + bytes.len()]);
    });
}

pub fn flash_write(offset: u32, bytes: &[u8]) {
    critical_section::with(|cs| {
        let mut chip = CHIP.borrow(cs).borrow_mut();
        for (place, byte) in chip[offset as usize..].iter_mut().zip(bytes) {
            *place &= byte;
        }
    });
}

pub fn flash_erase(from: u32, to: u32) {
    critical_section::with(|cs| CHIP.borrow(cs).borrow_mut()[from as usize..to as usize].fill(0xFF));
}
