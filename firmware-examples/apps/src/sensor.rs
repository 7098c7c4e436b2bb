//! A sensor that sleeps: it wakes, measures, tells, and sleeps again. People see it as asleep, not as offline.

use embassy_time::{Duration, with_timeout};
use parlor_device::{Config, Describe, Device, Keep, Listen, Place, Policy, State};

/// How long it tries to be heard before it sleeps all the same.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a sensor knows.
#[derive(State, Clone, Copy)]
pub struct Sensor {
    /// Of the soil.
    #[parlor(read_only, min = 0, max = 100, unit = "%")]
    pub moisture: u8,
    /// Of the battery.
    #[parlor(read_only, unit = "mV")]
    pub battery: u16,
}

/// Only the latest state counts: one that was not heard is replaced by the next.
const POLICIES: &[Policy] = &[Policy { topic: "im/v1/me/reported", keep: Keep::Latest, place: Place::Ram }];

/// The settings that make a device a sensor.
pub const fn config(board: Config) -> Config {
    Config {
        describe: Describe { name: "Plant", state: Sensor::DESCRIPTION, ..board.describe },
        app: concat!("sensor ", env!("CARGO_PKG_VERSION")),
        listen: Listen::NOTHING,
        policies: POLICIES,
        ..board
    }
}

/// Is a sensor that measures every `period_s` seconds.
pub async fn run(device: Device<'_>, mut probe: impl Probe, period_s: u32) -> ! {
    loop {
        let measured = probe.measure().await;
        let told = async {
            device.online().await;
            // A report that cannot be kept is followed by the next one.
            let _ = device.report(&measured).await;
        };
        // Unheard: the network may be back at the next turn.
        let _ = with_timeout(PATIENCE, told).await;
        // Sends what waits, and says until when nobody need worry.
        device.sleep(period_s).await;
        probe.sleep(period_s).await;
        device.wake();
    }
}

/// What measures, and the power switch.
pub trait Probe {
    /// Measures.
    fn measure(&mut self) -> impl Future<Output = Sensor>;
    /// Sleeps so long. A chip whose deep sleep ends with a reset does not return from here, and starts anew.
    fn sleep(&mut self, seconds: u32) -> impl Future<Output = ()>;
}
