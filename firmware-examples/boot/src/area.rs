//! A range of flash that takes an image.

use crate::BootError;
use embedded_storage_async::nor_flash::NorFlash;

/// Bytes that are written at once; fewer wait in RAM.
const STEP: usize = 256;
/// The same as an offset.
const STEP_BYTES: u32 = 256;

/// Bytes of the longest page that is begun anew after a reset. The rest of a longer one stays, and what was written
/// there already is not written again.
pub const ANEW_MAX: u32 = 16 * 1_024;

/// Some flash wants its buffers aligned to words.
#[repr(align(8))]
struct Aligned([u8; STEP]);

/// A range of flash that takes an image: pages are erased as the image reaches them, and written in steps of 256 bytes.
pub(crate) struct Area<F> {
    flash: F,
    /// What comes next.
    at: u32,
    /// What is left of a step.
    step: Aligned,
    /// In front of this something may have been written before a reset.
    doubtful_until: u32,
}

impl<F> core::fmt::Debug for Area<F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Area {{ at: {} }}", self.at)
    }
}

impl<F: NorFlash> Area<F> {
    /// Bytes erased at once.
    #[allow(clippy::cast_possible_truncation, reason = "the pages of flash are shorter than 4 GiB")]
    pub const PAGE: u32 = {
        assert!(
            F::ERASE_SIZE.is_multiple_of(STEP)
                && STEP.is_multiple_of(F::WRITE_SIZE)
                && STEP.is_multiple_of(F::READ_SIZE)
        );
        F::ERASE_SIZE as u32
    };

    /// This flash, all of it.
    pub fn new(flash: F) -> Self {
        Self { flash, at: 0, step: Aligned([0; STEP]), doubtful_until: 0 }
    }

    /// Bytes that it holds.
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.flash.capacity()).unwrap_or(u32::MAX)
    }

    /// Where writing goes on after a reset, when `offset` bytes were written before it: at the start of the page, or of the
    /// step where pages are long. What is in front of it is in flash; what is behind it may be.
    pub fn resume(offset: u32) -> u32 {
        offset - offset % if Self::PAGE <= ANEW_MAX { Self::PAGE } else { STEP_BYTES }
    }

    /// Whether this offset is another than the one that is expected: an image begins, or goes on after a reset.
    pub fn begins(&self, offset: u32) -> bool {
        offset == 0 || offset != self.at
    }

    /// Writes bytes: from 0, from where [`Self::resume`] said, or from where the last ones ended.
    pub async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), BootError> {
        if self.begins(offset) {
            if offset != Self::resume(offset) {
                return Err(BootError::Offset);
            }
            self.at = offset;
            self.doubtful_until = offset.next_multiple_of(Self::PAGE);
        }
        let end = u32::try_from(bytes.len()).ok().and_then(|len| offset.checked_add(len));
        if end.is_none_or(|end| end > self.capacity()) {
            return Err(BootError::Offset);
        }
        let mut left = bytes;
        while !left.is_empty() {
            let waiting = (self.at % STEP_BYTES) as usize;
            let (now, later) = left.split_at(left.len().min(STEP - waiting));
            self.step.0[waiting..waiting + now.len()].copy_from_slice(now);
            left = later;
            // No more than a step.
            self.at += u32::try_from(now.len()).unwrap_or(STEP_BYTES);
            if self.at.is_multiple_of(STEP_BYTES) {
                self.put(self.at - STEP_BYTES).await?;
            }
        }
        Ok(())
    }

    /// Writes what waits in RAM. Afterwards an image can only begin anew, or be resumed.
    pub async fn flush(&mut self) -> Result<(), BootError> {
        let waiting = self.at % STEP_BYTES;
        if waiting > 0 {
            self.step.0[waiting as usize..].fill(0xFF);
            self.put(self.at - waiting).await?;
        }
        self.at = 0;
        Ok(())
    }

    /// Writes the step at this offset.
    async fn put(&mut self, offset: u32) -> Result<(), BootError> {
        if offset.is_multiple_of(Self::PAGE) {
            self.flash.erase(offset, offset + Self::PAGE).await.map_err(|_| BootError::Flash)?;
        } else if offset < self.doubtful_until {
            let mut there = Aligned([0; STEP]);
            self.flash.read(offset, &mut there.0).await.map_err(|_| BootError::Flash)?;
            let words = self.step.0.chunks(F::WRITE_SIZE).zip(there.0.chunks(F::WRITE_SIZE));
            for ((new, there), place) in words.zip((offset..).step_by(F::WRITE_SIZE)) {
                if new != there {
                    self.flash.write(place, new).await.map_err(|_| BootError::Flash)?;
                }
            }
            return Ok(());
        }
        self.flash.write(offset, &self.step.0).await.map_err(|_| BootError::Flash)
    }

    /// Reads what was written, from any offset; what waits in RAM is written first.
    pub async fn read(&mut self, offset: u32, out: &mut [u8]) -> Result<(), BootError> {
        self.flush().await?;
        let (mut place, mut left) = (offset, out);
        while !left.is_empty() {
            let within = (place % STEP_BYTES) as usize;
            let start = place - place % STEP_BYTES;
            if start >= self.capacity() {
                return Err(BootError::Offset);
            }
            let mut step = Aligned([0; STEP]);
            self.flash.read(start, &mut step.0).await.map_err(|_| BootError::Flash)?;
            let len = left.len().min(STEP - within);
            let (now, later) = left.split_at_mut(len);
            now.copy_from_slice(&step.0[within..within + len]);
            left = later;
            place = start + STEP_BYTES;
        }
        Ok(())
    }
}
