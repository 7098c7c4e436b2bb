//! A doorbell that chats: who presses it is announced to the household, and what people answer is shown at the door.

use embassy_futures::join::join;
use parlor_device::{Config, Describe, Device, Event, Keep, Listen, Outcome, Place, Policy};

/// What happens at the door.
#[derive(Event)]
pub enum AtTheDoor {
    /// Somebody has pressed the button.
    Rang {
        /// How often since the board was started.
        times: u32,
    },
}

/// A ring in a power cut is still announced: rows to people are kept in flash.
const POLICIES: &[Policy] = &[Policy { topic: "im/v1/to/#", keep: Keep::DropOldest, place: Place::Flash }];

/// The settings that make a device a doorbell.
pub const fn config(board: Config) -> Config {
    Config {
        describe: Describe { name: "Doorbell", ..board.describe },
        app: concat!("button ", env!("CARGO_PKG_VERSION")),
        listen: Listen::MESSAGES,
        policies: POLICIES,
        ..board
    }
}

/// Is a doorbell.
pub async fn run(device: Device<'_>, mut button: impl Button, mut door: impl Door) -> ! {
    let announce = async {
        let mut times = 0;
        loop {
            button.pressed().await;
            times += 1;
            let to = device.household().or_else(|| device.owner().and_then(|owner| owner.as_str().try_into().ok()));
            let Some(to) = to else {
                door.light(Said::NotPaired);
                continue;
            };
            match device.event(&to, &AtTheDoor::Rang { times }).await {
                Ok(receipt) => {
                    door.light(Said::Queued);
                    match receipt.acked().await {
                        Outcome::Acked { .. } => door.light(Said::Sent),
                        Outcome::Lost(_) => door.light(Said::Lost),
                    }
                }
                Err(_) => door.light(Said::Lost),
            }
        }
    };
    join(announce, listen(device)).await.0
}

/// Answers whoever writes to it directly.
async fn listen(device: Device<'_>) -> ! {
    let mut buffer = [0; 256];
    loop {
        let message = device.next_message(&mut buffer).await;
        // In a household others may be talking, among them doorbells like this one.
        if message.address != message.from {
            continue;
        }
        let answer = if message.text.is_empty() { "I can read text only" } else { "I have shown it at the door" };
        let _ = device.send(message.address, answer).await;
    }
}

/// How far a ring has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Nobody to tell: the board has to be paired.
    NotPaired,
    /// It is kept, even if the power goes.
    Queued,
    /// The broker has it.
    Sent,
    /// Nobody will hear of it.
    Lost,
}

/// The button.
pub trait Button {
    /// Waits until it is pressed.
    fn pressed(&mut self) -> impl Future<Output = ()>;
}

/// What can be seen at the door.
pub trait Door {
    /// Shows how far a ring has come.
    fn light(&mut self, said: Said);
}
