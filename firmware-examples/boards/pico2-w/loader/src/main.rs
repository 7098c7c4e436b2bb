//! The boot loader of a Raspberry Pi Pico 2 W: swaps the images when one was installed, back when it was not confirmed, and
//! starts what is there. To be flashed once.

#![no_std]
#![no_main]

use core::cell::RefCell;
use core::ops::Range;
use cortex_m_rt::entry;
use embassy_boot_rp::{BootLoader, BootLoaderConfig, WatchdogFlash};
use embassy_embedded_hal::flash::partition::BlockingPartition;
use embassy_sync::blocking_mutex::Mutex;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_time::Duration;
use panic_halt as _;

include!(concat!(env!("OUT_DIR"), "/areas.rs"));

const FLASH_BYTES: usize = 4 * 1_024 * 1_024;
/// Where flash begins.
const FLASH_START: u32 = 0x1000_0000;

#[entry]
fn main() -> ! {
    let chip = embassy_rp::init(Default::default());
    // It goes on while the program runs, which has to feed it: one that hangs is ended, and taken back if it was on trial.
    let flash = WatchdogFlash::<FLASH_BYTES>::start(chip.FLASH, chip.WATCHDOG, Duration::from_secs(8));
    let flash = Mutex::<NoopRawMutex, _>::new(RefCell::new(flash));
    let part = |area: Range<u32>| BlockingPartition::new(&flash, area.start - FLASH_START, area.end - area.start);
    let config = BootLoaderConfig { active: part(ACTIVE), dfu: part(DFU), state: part(STATE) };
    let loader: BootLoader = BootLoader::prepare(config);
    // SAFETY: the program was linked to this address; nothing of the boot loader is used any more.
    unsafe { loader.load(ACTIVE.start) }
}
