//! The board: flash, updates, and what `device.rs` does.

#![no_std]
#![no_main]

mod device;

use embassy_embedded_hal::adapter::BlockingAsync;
use embassy_embedded_hal::flash::partition::Partition;
use embassy_executor::Spawner;
use embassy_futures::join::join;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::mutex::Mutex;
use esp_backtrace as _;
use esp_hal::rtc_cntl::Rtc;
use esp_hal::system::software_reset;
use esp_hal::timer::timg::TimerGroup;
use esp_println::println;
use esp_storage::FlashStorage;
use parlor_boot::{OtaSlots, Start};
use parlor_device::{Config, Describe};
use parlor_esp::Areas;
use parlor_wiring::FlashMap;

esp_bootloader_esp_idf::esp_app_desc!();

#[esp_rtos::main]
async fn main(spawner: Spawner) -> ! {
    let chip = esp_hal::init(esp_hal::Config::default());
    let mut flash = FlashStorage::new(chip.FLASH);
    let areas = Areas::read(&mut flash).expect("the board was flashed with partitions.csv");
    let flash = Mutex::<NoopRawMutex, _>::new(BlockingAsync::new(flash));
    let part = |(offset, len)| Partition::new(&flash, offset, len);
    let mut slots = OtaSlots::new(part(areas.slot), part(areas.otadata), areas.running);
    // Before anything that could go wrong: the boot loader of espflash does not count starts.
    if slots.start().await == Ok(Start::GoBack) {
        println!("it was not confirmed: back to the firmware before");
        software_reset();
    }
    esp_alloc::heap_allocator!(size: 96 * 1024);
    esp_rtos::start(TimerGroup::new(chip.TIMG0).timer0, chip.FROM_CPU_INTR0);
    let watchdog = Rtc::new(chip.RTC_TIMER).rwdt;
    let net = parlor_esp::start(spawner, watchdog, chip.WIFI, (env!("WIFI_NAME"), env!("WIFI_PASSWORD")));
    let kept = FlashMap::<_, 768>::new(part(areas.kept), 0..areas.kept.1).expect("whole pages");
    let (broker, login) = parlor_wiring::told!();
    let maker = parlor_wiring::maker!();
    let describe = Describe { update: maker.is_some(), ..Describe::NOTHING };
    let config = device::config(Config { login, platform: "{{chip}}", describe, ..Config::new(env!("DEVICE_NAME")) });
    let act = |handle| {
        let updates = parlor_wiring::update(handle, slots, maker, env!("CARGO_PKG_VERSION"), || software_reset());
        join(device::run(handle), updates)
    };
    parlor_wiring::run(net, broker, config, kept, parlor_esp::entropy, act).await
}
