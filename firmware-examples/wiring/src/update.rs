//! Takes updates that the maker has signed, and goes back to the firmware before when a new one does not come online.

use crate::Pin;
use core::future::pending;
use embassy_futures::select::{Either, select};
use embassy_time::{Duration, Timer};
use parlor_boot::Slot;
use parlor_device::Device;
use parlor_device::update::Ed25519;

/// How long new firmware has until it must be online.
pub const TRIAL: Duration = Duration::from_secs(10 * 60);

/// Whoever signs images: 32 bytes of an Ed25519 key.
#[derive(Debug, Clone, Copy)]
pub struct Maker(Ed25519);

impl Maker {
    /// The key that the build script was told, or none.
    #[doc(hidden)]
    pub fn from_hex(key: Option<&str>) -> Option<Self> {
        let key = key.filter(|key| !key.is_empty())?;
        Some(Self(Ed25519(Pin::from_hex(key).expect("UPDATE_KEY is 64 hexadecimal digits").0)))
    }
}

/// The maker's key that the build script was told (`UPDATE_KEY`, `parlor-secrets`): without one the board takes no updates.
#[macro_export]
macro_rules! maker {
    () => {
        $crate::Maker::from_hex(option_env!("UPDATE_KEY"))
    };
}

/// Is the board's part in updates. Firmware that has just been installed has [`TRIAL`] to come online; then it is confirmed, else
/// `reset` goes back to the one before. Afterwards images of the maker are installed, and `reset` starts them. `version` is what
/// this firmware is called in offers.
pub async fn update<S: Slot>(device: Device<'_>, slot: S, maker: Option<Maker>, version: &str, reset: impl Fn()) -> ! {
    update_within(TRIAL, device, slot, maker, version, reset).await
}

/// The same with another time to come online.
pub async fn update_within<S: Slot>(
    trial: Duration,
    device: Device<'_>,
    mut slot: S,
    maker: Option<Maker>,
    version: &str,
    reset: impl Fn(),
) -> ! {
    if slot.is_on_trial().await == Ok(true)
        && let Either::Second(()) = select(device.online(), Timer::after(trial)).await
    {
        reset();
        pending::<()>().await;
    }
    // Whoever comes online has shown that it works.
    device.online().await;
    let _ = device.finish_update(version, &mut slot).await;
    if slot.is_on_trial().await == Ok(true) {
        // It is not what was offered, or the boot loader could not be told: what has to be said goes first.
        device.sleep(1).await;
        reset();
        pending::<()>().await;
    }
    let Some(Maker(maker)) = maker else {
        loop {
            pending::<()>().await;
        }
    };
    loop {
        let mut buffer = [0; 528];
        // Whoever asked for it hears why, when it is not installed.
        if device.next_update().await.install(&mut slot, &maker, &mut buffer).await.is_ok() {
            reset();
            pending::<()>().await;
        }
    }
}
