//! What boards with an ESP32 have in common: areas of flash, a watchdog, Wi-Fi, random numbers. The chip is a feature.

#![no_std]

use embassy_executor::Spawner;
use embassy_net::{Config, Runner, Stack, StackResources};
use embassy_time::Timer;
use esp_bootloader_esp_idf::partitions::{
    AppPartitionSubType, DataPartitionSubType, PARTITION_TABLE_MAX_LEN, PartitionType, read_partition_table,
};
use esp_hal::peripherals::WIFI;
use esp_hal::rng::Rng;
use esp_hal::rtc_cntl::{Rwdt, RwdtStage};
use esp_hal::time::Duration;
use esp_println::println;
use esp_radio::wifi::sta::StationConfig;
use esp_radio::wifi::{AuthenticationMethodConfig, Config as WifiConfig, Interface, WifiController};
use esp_storage::FlashStorage;
use static_cell::StaticCell;

/// What ends a program that hangs.
const WATCHDOG_S: u64 = 30;

/// Where things are in flash, as `partitions.csv` says: offset and length, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Areas {
    /// What the SDK keeps.
    pub kept: (u32, u32),
    /// What the boot loader is told.
    pub otadata: (u32, u32),
    /// The slot that does not run.
    pub slot: (u32, u32),
    /// The number of the one that does.
    pub running: u8,
}

impl Areas {
    /// `None`: the board was flashed with another table.
    pub fn read(flash: &mut FlashStorage<'_>) -> Option<Self> {
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
async fn wifi(mut wifi: WifiController<'static>, name: &'static str, password: &'static str) -> ! {
    let password = password.try_into().expect("WIFI_PASSWORD has at most 64 bytes");
    let station = StationConfig::default()
        .with_ssid(name.try_into().expect("WIFI_NAME has at most 32 bytes"))
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

/// Starts the watchdog, and the radio in the network with this name and password. To be called once, when heap and
/// scheduler are there.
pub fn start(
    spawner: Spawner,
    watchdog: Rwdt,
    radio: WIFI<'static>,
    (name, password): (&'static str, &'static str),
) -> Stack<'static> {
    static SOCKETS: StaticCell<StackResources<4>> = StaticCell::new();
    spawner.spawn(watch(watchdog).expect("it is spawned once"));
    let radio = WifiController::new(radio, Default::default()).expect("the radio starts");
    let sockets = SOCKETS.init_with(StackResources::new);
    let mut seed = [0; 8];
    entropy(&mut seed);
    let seed = u64::from_le_bytes(seed);
    let (net, runner) = embassy_net::new(Interface::station(), Config::dhcpv4(Default::default()), sockets, seed);
    spawner.spawn(network(runner).expect("it is spawned once"));
    spawner.spawn(wifi(radio, name, password).expect("it is spawned once"));
    net
}

/// Random numbers: with the radio on, the generator is a true one.
pub fn entropy(bytes: &mut [u8]) {
    Rng::new().read(bytes);
}
