//! The board: Wi-Fi, flash, and what `device.rs` does.

#![no_std]
#![no_main]

mod device;

use embassy_embedded_hal::adapter::BlockingAsync;
use embassy_executor::Spawner;
use embassy_net::{Config as NetConfig, Runner, StackResources};
use embassy_time::Timer;
use esp_backtrace as _;
use esp_hal::rng::Rng;
use esp_hal::timer::timg::TimerGroup;
use esp_println::println;
use esp_radio::wifi::sta::StationConfig;
use esp_radio::wifi::{AuthenticationMethodConfig, Config as WifiConfig, Interface, WifiController};
use esp_storage::FlashStorage;
use parlor_device::Config;
use parlor_wiring::FlashMap;
use static_cell::StaticCell;

esp_bootloader_esp_idf::esp_app_desc!();

/// Where the SDK keeps what survives a reboot: the partition `nvs` of the usual table.
const KEPT: core::ops::Range<u32> = 0x9000..0xF000;

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
    esp_alloc::heap_allocator!(size: 96 * 1024);
    esp_rtos::start(TimerGroup::new(chip.TIMG0).timer0, chip.FROM_CPU_INTR0);
    let radio = WifiController::new(chip.WIFI, Default::default()).expect("the radio starts");
    static SOCKETS: StaticCell<StackResources<4>> = StaticCell::new();
    let sockets = SOCKETS.init_with(StackResources::new);
    let seed = u64::from(Rng::new().random()) << 32 | u64::from(Rng::new().random());
    let (net, runner) = embassy_net::new(Interface::station(), NetConfig::dhcpv4(Default::default()), sockets, seed);
    spawner.spawn(network(runner).expect("it is spawned once"));
    spawner.spawn(wifi(radio).expect("it is spawned once"));
    let flash = BlockingAsync::new(FlashStorage::new(chip.FLASH));
    let flash = FlashMap::<_, 768>::new(flash, KEPT).expect("whole pages");
    let (broker, login) = parlor_wiring::told!();
    let config = device::config(Config { login, platform: "{{chip}}", ..Config::new(env!("DEVICE_NAME")) });
    // With the radio on, the generator is a true one.
    parlor_wiring::run(net, broker, config, flash, |bytes| Rng::new().read(bytes), device::run).await
}
