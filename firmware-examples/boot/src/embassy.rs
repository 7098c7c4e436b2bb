//! embassy-boot's slots: the image in ACTIVE runs, a new one is written to DFU, and the boot loader swaps them page by page.

use crate::{Area, BootError, Slot};
use embassy_boot::{FirmwareState, State};
use embedded_storage_async::nor_flash::NorFlash;
use parlor_device::update::Firmware;

/// Bytes of the longest word that flash writes at once.
const WORD_MAX: usize = 64;

/// Some flash wants its buffers aligned to words.
#[repr(align(8))]
struct Word([u8; WORD_MAX]);

/// The areas DFU and STATE of embassy-boot. DFU must be a page longer than ACTIVE, as the boot loader wants it.
pub struct Slots<D, S> {
    dfu: Area<D>,
    state: S,
}

impl<D, S> core::fmt::Debug for Slots<D, S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Slots {{ dfu: {:?} }}", self.dfu)
    }
}

impl<D: NorFlash, S: NorFlash> Slots<D, S> {
    /// These areas.
    pub fn new(dfu: D, state: S) -> Self {
        const { assert!(S::WRITE_SIZE <= WORD_MAX && S::READ_SIZE <= WORD_MAX) }
        Self { dfu: Area::new(dfu), state }
    }

    /// What the boot loader was told, or says.
    pub async fn state(&mut self) -> Result<State, BootError> {
        let mut word = Word([0; WORD_MAX]);
        let word = &mut word.0[..S::WRITE_SIZE.max(S::READ_SIZE)];
        FirmwareState::new(&mut self.state, word).get_state().await.map_err(|_| BootError::Flash)
    }
}

impl<D: NorFlash, S: NorFlash> Firmware for Slots<D, S> {
    type Error = BootError;

    /// That of ACTIVE.
    fn capacity(&self) -> u32 {
        self.dfu.capacity().saturating_sub(Area::<D>::PAGE)
    }

    fn resume(&mut self, offset: u32) -> u32 {
        Area::<D>::resume(offset)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), BootError> {
        if self.dfu.begins(offset) && self.is_on_trial().await? {
            return Err(BootError::OnTrial);
        }
        self.dfu.write(offset, bytes).await
    }

    async fn read(&mut self, offset: u32, out: &mut [u8]) -> Result<(), BootError> {
        self.dfu.read(offset, out).await
    }

    async fn finish(&mut self, size: u32) -> Result<(), BootError> {
        self.dfu.flush().await?;
        if size > self.capacity() {
            return Err(BootError::Offset);
        }
        if self.is_on_trial().await? {
            return Err(BootError::OnTrial);
        }
        let mut word = Word([0; WORD_MAX]);
        let word = &mut word.0[..S::WRITE_SIZE.max(S::READ_SIZE)];
        FirmwareState::new(&mut self.state, word).mark_updated().await.map_err(|_| BootError::Flash)
    }

    async fn confirm(&mut self) -> Result<(), BootError> {
        if !self.is_on_trial().await? {
            return Ok(());
        }
        let mut word = Word([0; WORD_MAX]);
        let word = &mut word.0[..S::WRITE_SIZE.max(S::READ_SIZE)];
        FirmwareState::new(&mut self.state, word).mark_booted().await.map_err(|_| BootError::Flash)
    }
}

impl<D: NorFlash, S: NorFlash> Slot for Slots<D, S> {
    async fn is_on_trial(&mut self) -> Result<bool, BootError> {
        Ok(self.state().await? == State::Swap)
    }
}
