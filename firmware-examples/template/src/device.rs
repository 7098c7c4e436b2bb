//! What the device does. This is the file to change.

use embassy_futures::select::{Either, select};
use parlor_device::{Commands, Config, Describe, Device, State};

/// What it can be told. People's apps show this; the comments are for you.
#[derive(Commands)]
pub enum Order {
    /// Counts on.
    Count {
        /// By so many.
        #[parlor(min = 1, max = 100)]
        by: u32,
    },
}

/// What it reports, and what can be desired of it.
#[derive(State, Clone, Copy)]
pub struct Counter {
    /// How far it has counted.
    pub count: u32,
}

/// The settings that make a board this device.
pub const fn config(board: Config) -> Config {
    let describe = Describe {
        name: "{{project-name}}",
        commands: Order::DESCRIPTION,
        state: Counter::DESCRIPTION,
        ..board.describe
    };
    Config { describe, app: concat!("{{project-name}} ", env!("CARGO_PKG_VERSION")), ..board }
}

/// Is the device. Online or not, it does the same.
pub async fn run(device: Device<'_>) -> ! {
    let mut counter = Counter { count: 0 };
    loop {
        // A report that cannot be kept is followed by the next one.
        let _ = device.report(&counter).await;
        match select(device.next_command::<Order>(), device.next_desired(&mut counter)).await {
            Either::First(order) => {
                let Order::Count { by } = order.what;
                counter.count = counter.count.saturating_add(by);
                order.done(counter).await;
            }
            // It is in `counter` already.
            Either::Second(_changed) => {}
        }
    }
}
