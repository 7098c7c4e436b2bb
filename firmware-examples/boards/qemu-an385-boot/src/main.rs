//! A lamp on the Cortex-M3 board `mps2-an385` under QEMU, started by embassy-boot: what a board with a boot loader does, with a
//! file for flash. Built with another `FIRMWARE_VERSION` it is another firmware, with `FIRMWARE_IS_NO_GOOD` one that ends at once, with
//! `FIRMWARE_IS_DEAF` one that never finds its broker.

#![no_std]
#![no_main]

#[path = "../../qemu-mps2-an385/src/executor.rs"]
#[allow(dead_code)]
mod executor;
#[path = "../../qemu-mps2-an385/src/lan9118.rs"]
mod lan9118;
#[path = "../../qemu-mps2-an385/src/time.rs"]
mod time;

use core::ops::Range;
use core::panic::PanicInfo;
use cortex_m::peripheral::SCB;
use cortex_m_rt::{entry, exception};
use embassy_embedded_hal::flash::partition::Partition;
use embassy_executor::Spawner;
use embassy_futures::join::join3;
use embassy_net::{Config as NetConfig, Runner, StackResources};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::mutex::Mutex;
use embassy_time::Duration;
use lan9118::Lan9118;
use parlor_apps::lamp::{self, Lamp, Light};
use parlor_boot::Slots;
use parlor_device::{Config, Describe, Device, Login, Status};
use parlor_qemu::{Args, FileFlash, entropy, exit, say};
use parlor_wiring::{Broker, FlashMap, Maker, Pin};
use static_cell::StaticCell;

include!(concat!(env!("OUT_DIR"), "/areas.rs"));

/// What this firmware is called.
const VERSION: &str = match option_env!("FIRMWARE_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// How long it has to come online when it is new: nobody waits ten minutes for a test.
const TRIAL: Duration = Duration::from_secs(5);

/// Where the file begins.
const FLASH_START: u32 = KEPT.start;

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    say!("PANIC {info}");
    exit(101)
}

#[exception]
unsafe fn DefaultHandler(line: i16) {
    assert!(lan9118::interrupted(line), "interrupt {line} has no handler");
}

#[embassy_executor::task]
async fn network(mut runner: Runner<'static, Lan9118>) -> ! {
    runner.run().await
}

#[entry]
fn entry() -> ! {
    if option_env!("FIRMWARE_IS_NO_GOOD").is_some() {
        say!("firmware {VERSION} is no good");
        SCB::sys_reset()
    }
    say!("firmware {VERSION}");
    executor::run(|spawner| spawner.spawn(board(spawner).expect("the first task has its place")))
}

struct Console;

impl Light for Console {
    fn set(&mut self, lamp: Lamp) {
        say!("light {}", if lamp.on { "on" } else { "off" });
    }
}

fn wanted(args: &'static Args, name: &str) -> &'static str {
    args.value(name).unwrap_or_else(|| {
        say!("{name}= is missing");
        exit(2)
    })
}

/// Says how the connection is.
async fn tell(device: Device<'_>) {
    let mut status = device.status();
    loop {
        match status {
            Status::Online => say!("online"),
            Status::Offline(why) => say!("offline: {why}"),
            _ => {}
        }
        status = device.status_after(status).await;
    }
}

#[embassy_executor::task]
async fn board(spawner: Spawner) {
    let chip = cortex_m::Peripherals::take().expect("they are taken once");
    time::start(chip.SYST);
    static ARGS: StaticCell<Args> = StaticCell::new();
    let args: &'static Args = ARGS.init_with(Args::read);
    let mut seed = [0; 8];
    entropy(&mut seed);
    let driver = Lan9118::start().expect("QEMU was started with -nic model=lan9118");
    static SOCKETS: StaticCell<StackResources<4>> = StaticCell::new();
    let sockets = SOCKETS.init_with(StackResources::new);
    let seed = u64::from_le_bytes(seed);
    let (net, runner) = embassy_net::new(driver, NetConfig::dhcpv4(Default::default()), sockets, seed);
    spawner.spawn(network(runner).expect("it is spawned once"));
    net.wait_config_up().await;
    let pin = Pin::from_hex(wanted(args, "pin")).expect("pin= is 64 hexadecimal digits");
    let port = args.number("port").expect("port= is a number");
    // Nobody listens at port 1.
    let port = if option_env!("FIRMWARE_IS_DEAF").is_some() { 1 } else { port };
    let broker = Broker { host: wanted(args, "host"), port, pin, next_pin: None };
    let flash = FileFlash::open(wanted(args, "flash")).expect("flash= can be opened");
    let flash = Mutex::<NoopRawMutex, _>::new(flash);
    let part = |area: Range<u32>| Partition::new(&flash, area.start - FLASH_START, area.end - area.start);
    let kept = FlashMap::<_, 768>::new(part(KEPT), 0..KEPT.end - KEPT.start).expect("whole pages");
    let slots = Slots::new(part(DFU), part(STATE));
    let login = match (args.value("code"), args.value("name")) {
        (Some(code), Some(name)) => Login::Pair { code, name },
        _ => Login::Stored,
    };
    let maker = Maker::from_hex(args.value("maker"));
    let config = lamp::config(Config {
        login,
        platform: "qemu",
        describe: Describe { update: maker.is_some(), ..Describe::NOTHING },
        pause_min_ms: 200,
        pause_max_ms: 2_000,
        ..Config::new("lamp")
    });
    let act = |device| {
        let reset = || SCB::sys_reset();
        let updates = parlor_wiring::update_within(TRIAL, device, slots, maker, VERSION, reset);
        join3(lamp::run(device, Console), tell(device), updates)
    };
    parlor_wiring::run(net, broker, config, kept, entropy, act).await
}
