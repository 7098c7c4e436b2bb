//! A NOR flash in a file of the host.

use embedded_storage::nor_flash::{ErrorType, NorFlash as Blocking, NorFlashError, NorFlashErrorKind, ReadNorFlash as BlockingRead};
use embedded_storage_async::nor_flash::{NorFlash, ReadNorFlash};
use semihosting::fs::File;
use semihosting::io::{Read, Seek, SeekFrom, Write};

/// A NOR flash in a file: bits can be cleared by writing and are set only by erasing a whole page of 4 KiB, as on a chip.
pub struct FileFlash {
    file: File,
    bytes: u32,
}

/// What a flash refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlashError {
    /// The host could not read or write the file.
    Host,
    /// The place is beyond the end.
    OutOfBounds,
    /// The place or the length is no multiple of what can be written or erased at once.
    NotAligned,
}

impl NorFlashError for FlashError {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::Host => NorFlashErrorKind::Other,
            Self::OutOfBounds => NorFlashErrorKind::OutOfBounds,
            Self::NotAligned => NorFlashErrorKind::NotAligned,
        }
    }
}

/// Bytes written at once.
const WORD: u32 = 4;
/// Bytes erased at once.
const PAGE: u32 = 4_096;

impl FileFlash {
    /// Opens the file, whose length is the size of the flash.
    pub fn open(path: &str) -> Result<Self, FlashError> {
        let mut room = [0; 256];
        room.get_mut(..path.len()).ok_or(FlashError::Host)?.copy_from_slice(path.as_bytes());
        let path = core::ffi::CStr::from_bytes_until_nul(&room).map_err(|_| FlashError::Host)?;
        let file = File::options().read(true).write(true).open(path).map_err(|_| FlashError::Host)?;
        let bytes = file.metadata().map_err(|_| FlashError::Host)?.len();
        Ok(Self { file, bytes: u32::try_from(bytes).map_err(|_| FlashError::OutOfBounds)? })
    }

    fn seek(&mut self, offset: u32) -> Result<(), FlashError> {
        self.file.seek(SeekFrom::Start(u64::from(offset))).map(drop).map_err(|_| FlashError::Host)
    }

    fn within(&self, offset: u32, length: usize) -> Result<(), FlashError> {
        let length = u32::try_from(length).map_err(|_| FlashError::OutOfBounds)?;
        let end = offset.checked_add(length).ok_or(FlashError::OutOfBounds)?;
        if end > self.bytes { Err(FlashError::OutOfBounds) } else { Ok(()) }
    }
}

impl ErrorType for FileFlash {
    type Error = FlashError;
}

impl BlockingRead for FileFlash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        self.within(offset, bytes.len())?;
        self.seek(offset)?;
        self.file.read_exact(bytes).map_err(|_| FlashError::Host)
    }

    fn capacity(&self) -> usize {
        self.bytes as usize
    }
}

impl Blocking for FileFlash {
    const WRITE_SIZE: usize = WORD as usize;
    const ERASE_SIZE: usize = PAGE as usize;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        if from % PAGE != 0 || to % PAGE != 0 {
            return Err(FlashError::NotAligned);
        }
        self.within(from, to.saturating_sub(from) as usize)?;
        self.seek(from)?;
        for _ in 0..to.saturating_sub(from) / 64 {
            self.file.write_all(&[0xFF; 64]).map_err(|_| FlashError::Host)?;
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        if offset % WORD != 0 || bytes.len() % WORD as usize != 0 {
            return Err(FlashError::NotAligned);
        }
        self.within(offset, bytes.len())?;
        let mut place = offset;
        for new in bytes.chunks(64) {
            let mut cells = [0xFF_u8; 64];
            let cells = &mut cells[..new.len()];
            BlockingRead::read(self, place, cells)?;
            for (cell, new) in cells.iter_mut().zip(new) {
                *cell &= new;
            }
            self.seek(place)?;
            self.file.write_all(cells).map_err(|_| FlashError::Host)?;
            place += WORD * (new.len() as u32 / WORD);
        }
        Ok(())
    }
}

impl ReadNorFlash for FileFlash {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        BlockingRead::read(self, offset, bytes)
    }

    fn capacity(&self) -> usize {
        BlockingRead::capacity(self)
    }
}

impl NorFlash for FileFlash {
    const WRITE_SIZE: usize = WORD as usize;
    const ERASE_SIZE: usize = PAGE as usize;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        Blocking::erase(self, from, to)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        Blocking::write(self, offset, bytes)
    }
}
