//! A lamp on an ESP32S3: the light is the LED at GPIO2.

#![no_std]
#![no_main]

use embassy_embedded_hal::adapter::BlockingAsync;
use embassy_embedded_hal::flash::partition::Partition;
use embassy_executor::Spawner;
use embassy_futures::join::join;
use embassy_net::{Config as NetConfig, Runner, StackResources};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::mutex::Mutex;
use embassy_time::Timer;
use esp_backtrace as _;
use esp_bootloader_esp_idf::partitions::{
    AppPartitionSubType, DataPartitionSubType, PARTITION_TABLE_MAX_LEN, PartitionType, read_partition_table,
};
use esp_hal::gpio::{Level, Output, OutputConfig};
use esp_hal::rng::Rng;
use esp_hal::rtc_cntl::{Rtc, Rwdt, RwdtStage};
use esp_hal::system::software_reset;
use esp_hal::time::Duration;
use esp_hal::timer::timg::TimerGroup;
use esp_println::println;
use esp_radio::wifi::sta::StationConfig;
use esp_radio::wifi::{AuthenticationMethodConfig, Config as WifiConfig, Interface, WifiController};
use esp_storage::FlashStorage;
use parlor_apps::lamp::{self, Lamp, Light};
use parlor_boot::{OtaSlots, Start};
use parlor_device::{Config, Describe};
use parlor_wiring::FlashMap;
use static_cell::StaticCell;

esp_bootloader_esp_idf::esp_app_desc!();

/// What ends a program that hangs.
const WATCHDOG_S: u64 = 30;

struct Led(Output<'static>);

impl Light for Led {
    fn set(&mut self, lamp: Lamp) {
        self.0.set_level(lamp.on.into());
    }
}

/// Where things are in flash, as `partitions.csv` says: offset and length.
struct Areas {
    kept: (u32, u32),
    otadata: (u32, u32),
    /// The slot that does not run.
    slot: (u32, u32),
    /// The number of the one that does.
    running: u8,
}

impl Areas {
    /// `None`: the board was flashed with another table.
    fn read(flash: &mut FlashStorage<'_>) -> Option<Self> {
        let mut room = [0; PARTITION_TABLE_MAX_LEN];
        let table = read_partition_table(flash, &mut room).ok()?;
        let find = |kind| table.find_partition(kind).ok().flatten().map(|row| (row.offset(), row.len()));
        let first = PartitionType::App(AppPartitionSubType::Ota0);
        let second = PartitionType::App(AppPartitionSubType::Ota1);
        let running = u8::from(table.booted_partition().ok()??.partition_type() == second);
        Some(Self {
            kept: find(PartitionType::Data(DataPartitionSubType::Nvs))?,
            otadata: find(PartitionType::Data(DataPartitionSubType::Ota))?,
            slot: find(if running == 0 { second } else { first })?,
            running,
        })
    }
}

/// Shows the watchdog that tasks run.
#[embassy_executor::task]
async fn watch(mut watchdog: Rwdt) -> ! {
    watchdog.set_timeout(RwdtStage::Stage0, Duration::from_secs(WATCHDOG_S));
    watchdog.enable();
    loop {
        watchdog.feed();
        Timer::after_secs(WATCHDOG_S / 6).await;
    }
}

#[embassy_executor::task]
async fn network(mut runner: Runner<'static, Interface>) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn wifi(mut wifi: WifiController<'static>) -> ! {
    let password = env!("WIFI_PASSWORD").try_into().expect("WIFI_PASSWORD has at most 64 bytes");
    let station = StationConfig::default()
        .with_ssid(env!("WIFI_NAME").try_into().expect("WIFI_NAME has at most 32 bytes"))
        .with_authentication(AuthenticationMethodConfig::Wpa2Personal(password));
    wifi.set_config(&WifiConfig::Station(station)).expect("the radio takes the settings");
    loop {
        match wifi.connect_async().await {
            Ok(_) => {
                println!("Wi-Fi up");
                let _ = wifi.wait_for_disconnect_async().await;
            }
            Err(why) => println!("no Wi-Fi: {why:?}"),
        }
        Timer::after_secs(5).await;
    }
}

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
    spawner.spawn(watch(Rtc::new(chip.RTC_TIMER).rwdt).expect("it is spawned once"));
    let led = Led(Output::new(chip.GPIO2, Level::Low, OutputConfig::default()));
    let radio = WifiController::new(chip.WIFI, Default::default()).expect("the radio starts");
    static SOCKETS: StaticCell<StackResources<4>> = StaticCell::new();
    let sockets = SOCKETS.init_with(StackResources::new);
    let seed = u64::from(Rng::new().random()) << 32 | u64::from(Rng::new().random());
    let (net, runner) = embassy_net::new(Interface::station(), NetConfig::dhcpv4(Default::default()), sockets, seed);
    spawner.spawn(network(runner).expect("it is spawned once"));
    spawner.spawn(wifi(radio).expect("it is spawned once"));
    let kept = FlashMap::<_, 768>::new(part(areas.kept), 0..areas.kept.1).expect("whole pages");
    let (broker, login) = parlor_wiring::told!();
    let maker = parlor_wiring::maker!();
    let describe = Describe { update: maker.is_some(), ..Describe::NOTHING };
    let config = lamp::config(Config { login, platform: "esp32s3", describe, ..Config::new(env!("DEVICE_NAME")) });
    let act = |device| {
        let updates = parlor_wiring::update(device, slots, maker, env!("CARGO_PKG_VERSION"), || software_reset());
        join(lamp::run(device, led), updates)
    };
    // With the radio on, the generator is a true one.
    parlor_wiring::run(net, broker, config, kept, |bytes| Rng::new().read(bytes), act).await
}
