//! The boot loader of an STM32F767: swaps the images when one was installed, back when it was not confirmed, and starts
//! what is there. To be flashed once.

#![no_std]
#![no_main]

use core::cell::RefCell;
use core::ops::Range;
use cortex_m_rt::entry;
use embassy_boot_stm32::{BootLoader, BootLoaderConfig};
use embassy_embedded_hal::flash::partition::BlockingPartition;
use embassy_stm32::flash::Flash;
use embassy_stm32::wdg::IndependentWatchdog;
use embassy_sync::blocking_mutex::Mutex;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use panic_halt as _;

include!(concat!(env!("OUT_DIR"), "/areas.rs"));

/// Where sectors of 32 KB begin, and those of 256 KB.
const SMALL: u32 = 0x0800_0000;
const LARGE: u32 = 0x0804_0000;

#[entry]
fn main() -> ! {
    let chip = embassy_stm32::init(Default::default());
    let flash = Flash::new_blocking(chip.FLASH).into_blocking_regions();
    let small = Mutex::<NoopRawMutex, _>::new(RefCell::new(flash.bank1_region1));
    let large = Mutex::<NoopRawMutex, _>::new(RefCell::new(flash.bank1_region3));
    let image = |area: Range<u32>| BlockingPartition::new(&large, area.start - LARGE, area.end - area.start);
    let state = BlockingPartition::new(&small, STATE.start - SMALL, STATE.end - STATE.start);
    let config = BootLoaderConfig { active: image(ACTIVE), dfu: image(DFU), state };
    // A quarter of a minute when there is something to swap.
    let loader = BootLoader::prepare::<_, _, _, 2_048>(config);
    // The program has to feed it: one that hangs is ended, and taken back if it was on trial.
    IndependentWatchdog::new(chip.IWDG, 30_000_000).unleash();
    // SAFETY: the program was linked to this address; nothing of the boot loader is used any more.
    unsafe { loader.load(ACTIVE.start) }
}
