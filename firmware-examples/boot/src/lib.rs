//! Updates through the boot loaders that boards have: [`Slots`] for embassy-boot (RP2040, RP2350, nRF52, STM32),
//! [`OtaSlots`] for Espressif's. Both write the image into an [`Area`] of flash and differ in how the boot loader is told.
//!
//! What flash has to do: bits are cleared by writing and set by erasing a page. Where pages are longer than
//! [`ANEW_MAX`] bytes a word in which the power went is written once more, with the same bits: flash that keeps a checksum
//! for each word (STM32H7, L4, G4) refuses that, and is not for this.

#![no_std]

#[cfg(any(feature = "embassy", feature = "esp"))]
mod area;
#[cfg(feature = "embassy")]
mod embassy;
#[cfg(feature = "esp")]
mod esp;

#[cfg(any(feature = "embassy", feature = "esp"))]
pub use area::ANEW_MAX;
#[cfg(any(feature = "embassy", feature = "esp"))]
use area::Area;
#[cfg(feature = "embassy")]
pub use embassy::Slots;
#[cfg(feature = "esp")]
pub use esp::{OtaSlots, Otadata, Start, State};

use parlor_device::update::Firmware;

/// Why an update is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BootError {
    /// Flash did not do what it was asked.
    Flash,
    /// The image begins in the middle, leaves something out, or is longer than the slot.
    Offset,
    /// What runs is on trial: the slot holds the image to go back to.
    OnTrial,
}

impl core::fmt::Display for BootError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Flash => "flash did not do what it was asked",
            Self::Offset => "the image begins in the middle, leaves something out, or is too long",
            Self::OnTrial => "what runs is on trial: confirm it first",
        })
    }
}

impl core::error::Error for BootError {}

/// A slot for firmware whose boot loader goes back to the image before unless the new one is confirmed.
pub trait Slot: Firmware<Error = BootError> {
    /// Whether what runs was installed and has not been confirmed: after the next reset the image before runs.
    fn is_on_trial(&mut self) -> impl Future<Output = Result<bool, BootError>>;
}
