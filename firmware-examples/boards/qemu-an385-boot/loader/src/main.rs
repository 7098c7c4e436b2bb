//! The boot loader of the emulated board: swaps the images when one was installed, back when it was not confirmed, and starts
//! what is there. Flash is a file of the host: `flash=`.

#![no_std]
#![no_main]

use core::cell::RefCell;
use core::ops::Range;
use core::panic::PanicInfo;
use cortex_m_rt::entry;
use embassy_boot::{AlignedBuffer, BootLoader, BootLoaderConfig};
use embassy_embedded_hal::flash::partition::BlockingPartition;
use embassy_sync::blocking_mutex::Mutex;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embedded_storage::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use parlor_qemu::{Args, FileFlash, FlashError, exit, say};

include!(concat!(env!("OUT_DIR"), "/areas.rs"));

/// Where the file begins.
const FLASH_START: u32 = KEPT.start;

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    say!("PANIC {info}");
    exit(101)
}

/// Flash that says what is erased: a swap can be followed, and cut off.
struct Told(FileFlash);

impl ErrorType for Told {
    type Error = FlashError;
}

impl ReadNorFlash for Told {
    const READ_SIZE: usize = <FileFlash as ReadNorFlash>::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        ReadNorFlash::read(&mut self.0, offset, bytes)
    }

    fn capacity(&self) -> usize {
        ReadNorFlash::capacity(&self.0)
    }
}

impl NorFlash for Told {
    const WRITE_SIZE: usize = <FileFlash as NorFlash>::WRITE_SIZE;
    const ERASE_SIZE: usize = <FileFlash as NorFlash>::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        say!("erases {:#x}", FLASH_START + from);
        NorFlash::erase(&mut self.0, from, to)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        NorFlash::write(&mut self.0, offset, bytes)
    }
}

#[entry]
fn main() -> ! {
    say!("boot loader");
    let args = Args::read();
    let flash = FileFlash::open(args.value("flash").expect("flash= is a file")).expect("flash= can be opened");
    let flash = Mutex::<NoopRawMutex, _>::new(RefCell::new(Told(flash)));
    let part = |area: Range<u32>| BlockingPartition::new(&flash, area.start - FLASH_START, area.end - area.start);
    let config = BootLoaderConfig { active: part(ACTIVE), dfu: part(DFU), state: part(STATE) };
    let mut buffer = AlignedBuffer([0; 4_096]);
    BootLoader::new(config).prepare_boot(&mut buffer.0).expect("the file can be written");
    // SAFETY: memory at these addresses is nobody's: neither the boot loader's nor, until it runs, the program's.
    let memory =
        unsafe { core::slice::from_raw_parts_mut(ACTIVE.start as *mut u8, (ACTIVE.end - ACTIVE.start) as usize) };
    part(ACTIVE).read(0, memory).expect("the file can be read");
    // SAFETY: the program was linked to this address and is there; nothing of the boot loader is used any more.
    unsafe {
        cortex_m::Peripherals::steal().SCB.vtor.write(ACTIVE.start);
        cortex_m::asm::bootload(ACTIVE.start as *const u32)
    }
}
