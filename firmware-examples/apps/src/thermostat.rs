//! A thermostat: it keeps a room at a temperature, whether the broker is there or not, and reports what has changed.

use embassy_futures::select::{Either3, select3};
use embassy_time::{Duration, Ticker};
use parlor_device::{Commands, Config, Describe, Device, State};

/// How far the room may be from its target before the heating is switched.
const SLACK: f32 = 0.3;
/// A change of the temperature that is worth a report.
const WORTH: f32 = 0.2;

/// What a thermostat can be told.
#[derive(Commands)]
pub enum Order {
    /// Keep the room at this temperature.
    Target {
        /// Degrees.
        #[parlor(min = 5, max = 30, unit = "°C")]
        celsius: i32,
    },
}

/// What a thermostat knows.
#[derive(State, Clone, Copy)]
pub struct Thermostat {
    /// What the room should be.
    #[parlor(min = 5, max = 30, unit = "°C")]
    pub target: i32,
    /// What it is.
    #[parlor(read_only, unit = "°C")]
    pub room: f32,
    /// Whether it is being heated.
    #[parlor(read_only)]
    pub heating: bool,
}

/// The settings that make a device a thermostat.
pub const fn config(board: Config) -> Config {
    let describe = Describe {
        name: "Thermostat",
        commands: Order::DESCRIPTION,
        state: Thermostat::DESCRIPTION,
        ..board.describe
    };
    Config { describe, app: concat!("thermostat ", env!("CARGO_PKG_VERSION")), ..board }
}

/// Is a thermostat that looks at its room every `period`.
pub async fn run(device: Device<'_>, mut room: impl Room, period: Duration) -> ! {
    let mut now = Thermostat { target: 20, room: room.celsius().await, heating: false };
    let mut told: Option<Thermostat> = None;
    let mut ticker = Ticker::every(period);
    loop {
        let off = now.target as f32 - now.room;
        now.heating = if now.heating { off > -SLACK } else { off > SLACK };
        room.heat(now.heating);
        if told.is_none_or(|told| is_news(told, now)) {
            // A report that cannot be kept is followed by the next one.
            let _ = device.report(&now).await;
            told = Some(now);
        }
        match select3(device.next_command::<Order>(), device.next_desired(&mut now), ticker.next()).await {
            Either3::First(order) => {
                let Order::Target { celsius } = order.what;
                now.target = celsius;
                order.done(now).await;
            }
            // It is in `now` already.
            Either3::Second(_changed) => {}
            Either3::Third(()) => now.room = room.celsius().await,
        }
    }
}

fn is_news(told: Thermostat, now: Thermostat) -> bool {
    let drift = told.room - now.room;
    told.target != now.target || told.heating != now.heating || !(-WORTH..=WORTH).contains(&drift)
}

/// A room with a heater.
pub trait Room {
    /// Measures.
    fn celsius(&mut self) -> impl Future<Output = f32>;
    /// Switches the heater.
    fn heat(&mut self, on: bool);
}
