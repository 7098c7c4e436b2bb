//! One of the apps on an emulated board: `app=lamp|thermostat|button|sensor host= port= pin= terminal= flash= [code= name=]
//! [version= maker=]`.
//! What it does to its surroundings it says on the console.

use crate::{Args, FileFlash, Slot, entropy, exit, say};
use embassy_futures::join::join3;
use embassy_net::Stack;
use embassy_time::{Duration, Instant, Timer};
use parlor_apps::{button, lamp, sensor, thermostat};
use parlor_device::update::Ed25519;
use parlor_device::{Config, Describe, Device, Login, Status};
use parlor_wiring::{Broker, FlashMap, Pin};

/// How QEMU ends for a board that resets.
const RESET: i32 = 42;

/// Pages of the file that are the SDK's.
const KEPT: core::ops::Range<u32> = 0..32 * 1_024;

/// What a board can measure of itself.
#[derive(Clone, Copy)]
pub struct Measure {
    /// Bytes of stack used at most.
    pub stack: fn() -> usize,
    /// Cycles that tasks have run for, and the most in one turn.
    pub busy: Option<fn() -> (u64, u64)>,
}

/// Runs the app for ever.
pub async fn run(net: Stack<'static>, args: &'static Args, measure: Measure) -> ! {
    let Some(pin) = Pin::from_hex(wanted(args, "pin")) else { stop("pin= is not 64 hexadecimal digits") };
    let port = args.number("port").unwrap_or(8_883);
    let broker = Broker { host: wanted(args, "host"), port, pin, next_pin: args.value("next_pin").and_then(Pin::from_hex) };
    let Ok(file) = FileFlash::open(wanted(args, "flash")) else { stop("flash= cannot be opened") };
    let Some(flash) = FlashMap::<_, 768>::new(file, KEPT) else { stop("flash= is too small") };
    let login = match (args.value("code"), args.value("name")) {
        (Some(code), Some(name)) => Login::Pair { code, name },
        _ => Login::Stored,
    };
    let terminal = args.value("terminal").unwrap_or("board");
    let keep_alive_s = args.number("keep_alive").unwrap_or(30);
    let config = Config {
        login,
        keep_alive_s,
        platform: "qemu",
        describe: Describe { update: true, ..Describe::NOTHING },
        pause_min_ms: 200,
        pause_max_ms: 2_000,
        ..Config::new(terminal)
    };
    let app = wanted(args, "app");
    let config = match app {
        "lamp" => lamp::config(config),
        "thermostat" => thermostat::config(config),
        "button" => button::config(config),
        "sensor" => sensor::config(config),
        _ => stop("app= is none of lamp, thermostat, button, sensor"),
    };
    let period = args.number("period").unwrap_or(1);
    let act = |device| {
        let act = async move {
            match app {
                "lamp" => lamp::run(device, Lamp(measure)).await,
                "thermostat" => thermostat::run(device, Console, Duration::from_secs(u64::from(period))).await,
                "button" => button::run(device, Console, Console).await,
                _ => sensor::run(device, Console, period).await,
            }
        };
        join3(act, tell(device, measure), update(device, args))
    };
    parlor_wiring::run(net, broker, config, flash, entropy, act).await
}

/// Says how the connection is.
async fn tell(device: Device<'_>, measure: Measure) {
    let mut status = device.status();
    loop {
        match status {
            Status::Online => say!("online after {} ms, stack {}", Instant::now().as_millis(), (measure.stack)()),
            Status::Offline(why) => say!("offline: {}", why),
            other => say!("status {:?}", other),
        }
        status = device.status_after(status).await;
    }
}

/// Takes updates that were signed with the key `maker=`, and resets when one is installed.
async fn update(device: Device<'_>, args: &'static Args) {
    let Ok(file) = FileFlash::open(wanted(args, "flash")) else { stop("flash= cannot be opened") };
    let mut slot = Slot::new(file);
    // Whoever comes online with a firmware has shown that it works.
    device.online().await;
    if device.finish_update(args.value("version").unwrap_or("1"), &mut slot).await.is_err() {
        say!("the boot loader cannot be told");
    }
    let maker = Pin::from_hex(args.value("maker").unwrap_or_default()).map_or([0; 32], |key| key.0);
    loop {
        let update = device.next_update().await;
        say!("update to {}", update.offer.version);
        let mut buffer = [0; 528];
        match update.install(&mut slot, &Ed25519(maker), &mut buffer).await {
            Ok(()) => {
                say!("installed");
                exit(RESET);
            }
            Err(why) => say!("not updated: {}", why.text()),
        }
    }
}

fn wanted(args: &'static Args, name: &str) -> &'static str {
    args.value(name).unwrap_or_else(|| {
        say!("{}= is missing", name);
        exit(2)
    })
}

fn stop(why: &str) -> ! {
    say!("{}", why);
    exit(2)
}

/// What shines. It also says how busy the board has been.
struct Lamp(Measure);

impl lamp::Light for Lamp {
    fn set(&mut self, lamp: lamp::Lamp) {
        let (busy, longest) = self.0.busy.map_or((0, 0), |busy| busy());
        let on = if lamp.on { "on" } else { "off" };
        say!("light {on} {} longest {longest} busy {busy}", lamp.level);
    }
}

/// What a board has pins for.
struct Console;

impl thermostat::Room for Console {
    /// Colder every time.
    async fn celsius(&mut self) -> f32 {
        let tenths = 200 - Instant::now().as_secs() % 50;
        tenths as f32 / 10.0
    }

    fn heat(&mut self, on: bool) {
        say!("heat {}", if on { "on" } else { "off" });
    }
}

impl button::Button for Console {
    async fn pressed(&mut self) {
        Timer::after_secs(1).await;
        say!("pressed");
    }
}

impl button::Door for Console {
    fn light(&mut self, said: button::Said) {
        say!("door {:?}", said);
    }
}

impl sensor::Probe for Console {
    async fn measure(&mut self) -> sensor::Sensor {
        sensor::Sensor { moisture: 42, battery: 3_000 }
    }

    async fn sleep(&mut self, seconds: u32) {
        say!("asleep");
        Timer::after_secs(u64::from(seconds)).await;
        say!("awake");
    }
}
