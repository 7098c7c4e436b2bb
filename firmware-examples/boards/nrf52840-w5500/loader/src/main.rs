//! The boot loader of an nRF52840: swaps the images when one was installed, back when it was not confirmed, and starts what
//! is there. To be flashed once.

#![no_std]
#![no_main]

use core::cell::RefCell;
use core::ops::Range;
use cortex_m_rt::entry;
use embassy_boot_nrf::{BootLoader, BootLoaderConfig, WatchdogFlash};
use embassy_embedded_hal::flash::partition::BlockingPartition;
use embassy_nrf::nvmc::Nvmc;
use embassy_nrf::wdt;
use embassy_sync::blocking_mutex::Mutex;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use panic_halt as _;

include!(concat!(env!("OUT_DIR"), "/areas.rs"));

#[entry]
fn main() -> ! {
    let chip = embassy_nrf::init(Default::default());
    // It goes on while the program runs, which has to feed it: one that hangs is ended, and taken back if it was on trial.
    // The program has the same settings.
    let mut watchdog = wdt::Config::default();
    watchdog.timeout_ticks = 30 * 32_768;
    watchdog.action_during_debug_halt = wdt::HaltConfig::PAUSE;
    let flash = WatchdogFlash::start(Nvmc::new(chip.NVMC), chip.WDT, watchdog);
    let flash = Mutex::<NoopRawMutex, _>::new(RefCell::new(flash));
    let part = |area: Range<u32>| BlockingPartition::new(&flash, area.start, area.end - area.start);
    let config = BootLoaderConfig { active: part(ACTIVE), dfu: part(DFU), state: part(STATE) };
    let loader: BootLoader = BootLoader::prepare(config);
    // SAFETY: the program was linked to this address; nothing of the boot loader is used any more.
    unsafe { loader.load(ACTIVE.start) }
}
