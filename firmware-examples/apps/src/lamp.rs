//! A lamp: it is told what to do, or what is desired of it, and reports what it is.

use embassy_futures::select::{Either, select};
use embassy_time::Timer;
use parlor_device::{Command, Commands, Config, Describe, Device, State};

/// What a lamp can be told.
#[derive(Commands)]
pub enum Order {
    /// Be like this.
    Set {
        /// Whether it shines.
        on: bool,
        /// How brightly; as before if it is left out.
        #[parlor(min = 1, max = 100, unit = "%")]
        level: Option<u8>,
    },
    /// Goes on and off, for somebody who looks for it.
    Blink {
        /// So often.
        #[parlor(min = 1, max = 10)]
        times: u8,
    },
}

/// What a lamp is.
#[derive(State, Clone, Copy)]
pub struct Lamp {
    /// Whether it shines.
    pub on: bool,
    /// How brightly.
    #[parlor(min = 1, max = 100, unit = "%")]
    pub level: u8,
}

/// The settings that make a device a lamp.
pub const fn config(board: Config) -> Config {
    let describe = Describe {
        name: "Lamp",
        commands: Order::DESCRIPTION,
        state: Lamp::DESCRIPTION,
        ..board.describe
    };
    Config { describe, app: concat!("lamp ", env!("CARGO_PKG_VERSION")), ..board }
}

/// Is a lamp.
pub async fn run(device: Device<'_>, mut light: impl Light) -> ! {
    let mut lamp = Lamp { on: false, level: 100 };
    loop {
        light.set(lamp);
        // A report that cannot be kept is followed by the next one.
        let _ = device.report(&lamp).await;
        match select(device.next_command::<Order>(), device.next_desired(&mut lamp)).await {
            Either::First(order) => obey(order, &mut lamp, &mut light).await,
            // It is in `lamp` already.
            Either::Second(_changed) => {}
        }
    }
}

async fn obey(order: Command<'_, Order>, lamp: &mut Lamp, light: &mut impl Light) {
    match order.what {
        Order::Set { on, level } => {
            *lamp = Lamp { on, level: level.unwrap_or(lamp.level) };
            light.set(*lamp);
            order.done(*lamp).await;
        }
        Order::Blink { times } => {
            order.running("look for the one that blinks").await;
            for half in 0..2 * times {
                light.set(Lamp { on: half % 2 == 0, ..*lamp });
                Timer::after_millis(100).await;
            }
            order.done(()).await;
        }
    }
}

/// What shines.
pub trait Light {
    /// Makes it so.
    fn set(&mut self, lamp: Lamp);
}
