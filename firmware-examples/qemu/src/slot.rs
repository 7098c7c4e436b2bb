//! The second slot of a board that can be updated: the end of its flash file.

use crate::flash::{FileFlash, FlashError};
use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};
use parlor_device::update::Firmware;

/// Where the boot loader is told what to start: the size of the image, and whether it has proved itself.
const TOLD: u32 = 60 * 1_024;
/// Where the image goes.
const SLOT: u32 = 64 * 1_024;
/// Bytes of it.
const SLOT_BYTES: u32 = 192 * 1_024;
/// Erased at once.
const PAGE: u32 = 4_096;
/// What is written once an image has proved itself.
const PROVED: u32 = 0x600D_600D;

/// The slot.
pub struct Slot {
    flash: FileFlash,
    /// Pages in front of this are erased. Nothing is known before the first write.
    erased: Option<u32>,
}

impl Slot {
    /// The slot in this file.
    pub fn new(flash: FileFlash) -> Self {
        Self { flash, erased: None }
    }
}

impl Firmware for Slot {
    type Error = FlashError;

    fn capacity(&self) -> u32 {
        SLOT_BYTES
    }

    /// Ranges end where they end: what is left of a word is written with the next one, over bits that are still set.
    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        let mut place = SLOT + offset;
        // Where a reset has interrupted, the page was erased before; what is written there again is the same.
        let mut erased = self.erased.filter(|_| offset > 0).unwrap_or(place.next_multiple_of(PAGE));
        let end = place + u32::try_from(bytes.len()).map_err(|_| FlashError::OutOfBounds)?;
        while erased < end {
            self.flash.erase(erased, erased + PAGE)?;
            erased += PAGE;
            crate::say!("slot page {}", (erased - SLOT) / PAGE);
        }
        self.erased = Some(erased);
        for byte in bytes {
            let mut word = [0xFF; 4];
            let within = place % 4;
            if let Some(cell) = word.get_mut(within as usize) {
                *cell = *byte;
            }
            self.flash.write(place - within, &word)?;
            place += 1;
        }
        Ok(())
    }

    async fn read(&mut self, offset: u32, out: &mut [u8]) -> Result<(), FlashError> {
        self.flash.read(SLOT + offset, out)
    }

    async fn finish(&mut self, size: u32) -> Result<(), FlashError> {
        self.flash.erase(TOLD, TOLD + PAGE)?;
        self.flash.write(TOLD, &size.to_le_bytes())
    }

    async fn confirm(&mut self) -> Result<(), FlashError> {
        self.flash.write(TOLD + 4, &PROVED.to_le_bytes())
    }
}
