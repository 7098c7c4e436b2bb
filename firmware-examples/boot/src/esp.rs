//! The slots of Espressif's boot loader: `ota_0` and `ota_1`. Which of them starts is in the partition `otadata`, two
//! entries in a sector each, of which the valid one with the higher number counts (ESP-IDF, `bootloader_common.c`).
//!
//! The boot loader goes back by itself only if it was built for it (`CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE`), which the one
//! of espflash is not. So firmware looks itself, first thing at its start: [`OtaSlots::start`].

use crate::{Area, BootError, Slot};
use embedded_storage_async::nor_flash::NorFlash;
use parlor_device::update::Firmware;

/// Where the second entry is: each has a sector.
const SECTOR: u32 = 4_096;
/// Bytes of an entry.
const ENTRY: usize = 32;
/// In the label of an entry, which the boot loader ignores: the image was started, and nobody but itself has counted it.
const STARTED: [u8; 20] = *b"started by itself\0\0\0";

/// The state of an image (`esp_ota_img_states_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// Installed and not started.
    New = 0,
    /// Started for the first time.
    PendingVerify = 1,
    /// Confirmed.
    Valid = 2,
    /// It has not proved itself; the boot loader passes over it.
    Invalid = 3,
    /// It was not confirmed after its first start; the boot loader passes over it.
    Aborted = 4,
    /// Nobody has said.
    Undefined = u32::MAX,
}

impl State {
    fn from_bytes(bytes: [u8; 4]) -> Option<Self> {
        let all = [Self::New, Self::PendingVerify, Self::Valid, Self::Invalid, Self::Aborted, Self::Undefined];
        all.into_iter().find(|state| *state as u32 == u32::from_le_bytes(bytes))
    }
}

/// What firmware is, as it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "after `GoBack` the board is to be reset"]
pub enum Start {
    /// It was confirmed, or came over a cable.
    Settled,
    /// It was installed, and runs for the first time.
    Trial,
    /// It has run before without being confirmed. Now it is marked: the board is to be reset, and the image before starts.
    GoBack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// From 1 on; its remainder says which slot.
    seq: u32,
    label: [u8; 20],
    state: State,
}

impl Entry {
    fn new(seq: u32, state: State) -> Self {
        Self { seq, label: [0xFF; 20], state }
    }

    /// `None`: none was written, or not to its end.
    fn from_bytes(bytes: &[u8; ENTRY]) -> Option<Self> {
        let (seq, rest) = bytes.split_first_chunk::<4>()?;
        let (label, rest) = rest.split_first_chunk::<20>()?;
        let (state, sum) = rest.split_first_chunk::<4>()?;
        let seq = u32::from_le_bytes(*seq);
        let whole = seq != 0 && seq != u32::MAX && sum == crc(seq).to_le_bytes();
        if whole { Some(Self { seq, label: *label, state: State::from_bytes(*state)? }) } else { None }
    }

    fn to_bytes(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..4].copy_from_slice(&self.seq.to_le_bytes());
        bytes[4..24].copy_from_slice(&self.label);
        bytes[24..28].copy_from_slice(&(self.state as u32).to_le_bytes());
        // Last: an entry without it does not count.
        bytes[28..].copy_from_slice(&crc(self.seq).to_le_bytes());
        bytes
    }

    /// 0 or 1.
    fn slot(self) -> u8 {
        u8::from(self.seq.is_multiple_of(2))
    }

    fn counts(self) -> bool {
        !matches!(self.state, State::Invalid | State::Aborted)
    }
}

/// CRC-32 of the number, as the chips' ROM computes it with `UINT32_MAX` to begin with.
fn crc(seq: u32) -> u32 {
    let mut crc = 0_u32;
    for byte in seq.to_le_bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
        }
    }
    !crc
}

/// The partition `otadata` of a table with two slots.
#[derive(Debug)]
pub struct Otadata<F>(F);

/// For the driver's sake, which wants words.
#[repr(align(4))]
struct Aligned([u8; ENTRY]);

impl<F: NorFlash> Otadata<F> {
    /// In this flash, which is the partition and nothing else: two sectors.
    pub fn new(flash: F) -> Self {
        const {
            assert!(
                F::ERASE_SIZE == SECTOR as usize
                    && ENTRY.is_multiple_of(F::WRITE_SIZE)
                    && ENTRY.is_multiple_of(F::READ_SIZE)
            );
        }
        Self(flash)
    }

    async fn entry(&mut self, at: u32) -> Result<Option<Entry>, BootError> {
        let mut bytes = Aligned([0; ENTRY]);
        self.0.read(at * SECTOR, &mut bytes.0).await.map_err(|_| BootError::Flash)?;
        Ok(Entry::from_bytes(&bytes.0))
    }

    /// The entry that counts, and which it is.
    async fn selected(&mut self) -> Result<Option<(u32, Entry)>, BootError> {
        let (first, second) = (self.entry(0).await?, self.entry(1).await?);
        let entries = [(0, first), (1, second)].into_iter().filter_map(|(at, entry)| Some((at, entry?)));
        Ok(entries.filter(|(_, entry)| entry.counts()).max_by_key(|(_, entry)| entry.seq))
    }

    async fn put(&mut self, at: u32, entry: Entry) -> Result<(), BootError> {
        let bytes = Aligned(entry.to_bytes());
        self.0.erase(at * SECTOR, (at + 1) * SECTOR).await.map_err(|_| BootError::Flash)?;
        self.0.write(at * SECTOR, &bytes.0).await.map_err(|_| BootError::Flash)
    }

    /// The slot that is to start, 0 or 1, and the state of its image; `None`: the boot loader takes the first.
    pub async fn selection(&mut self) -> Result<Option<(u8, State)>, BootError> {
        Ok(self.selected().await?.map(|(_, entry)| (entry.slot(), entry.state)))
    }

    /// The entry of the image that runs, if it is the selected one.
    async fn of(&mut self, running: u8) -> Result<Option<(u32, Entry)>, BootError> {
        Ok(self.selected().await?.filter(|(_, entry)| entry.slot() == running))
    }

    async fn start(&mut self, running: u8) -> Result<Start, BootError> {
        let Some((at, entry)) = self.of(running).await? else { return Ok(Start::Settled) };
        match entry.state {
            // A boot loader that counts starts would have made it `PendingVerify`.
            State::New => {
                self.put(at, Entry { label: STARTED, state: State::PendingVerify, ..entry }).await?;
                Ok(Start::Trial)
            }
            State::PendingVerify if entry.label == STARTED => {
                self.put(at, Entry::new(entry.seq, State::Invalid)).await?;
                Ok(Start::GoBack)
            }
            State::PendingVerify => Ok(Start::Trial),
            _ => Ok(Start::Settled),
        }
    }

    /// Makes the slot that does not run the next to start.
    async fn switch(&mut self, running: u8) -> Result<(), BootError> {
        // The one that runs must have an entry, to go back to. It has none before the first update, or when the boot loader
        // found another's image broken.
        let (at, seq) = match self.selected().await? {
            Some((at, entry)) if entry.slot() == running => (at, entry.seq),
            other => {
                let (at, seq) =
                    other.map_or((0, u32::from(running) + 1), |(at, entry)| (1 - at, entry.seq.wrapping_add(1)));
                self.put(at, Entry::new(seq, State::Valid)).await?;
                (at, seq)
            }
        };
        self.put(1 - at, Entry::new(seq.wrapping_add(1), State::New)).await
    }

    async fn confirm(&mut self, running: u8) -> Result<(), BootError> {
        match self.of(running).await? {
            Some((at, entry)) if matches!(entry.state, State::New | State::PendingVerify) => {
                self.put(at, Entry::new(entry.seq, State::Valid)).await
            }
            _ => Ok(()),
        }
    }
}

/// The slot that does not run, and `otadata`.
pub struct OtaSlots<F, O> {
    slot: Area<F>,
    otadata: Otadata<O>,
    running: u8,
}

impl<F, O> core::fmt::Debug for OtaSlots<F, O> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "OtaSlots {{ slot: {:?}, running: {} }}", self.slot, self.running)
    }
}

impl<F: NorFlash, O: NorFlash> OtaSlots<F, O> {
    /// `slot` is the partition that does not run, `running` the number of the one that does: 0 or 1.
    pub fn new(slot: F, otadata: O, running: u8) -> Self {
        Self { slot: Area::new(slot), otadata: Otadata::new(otadata), running: running & 1 }
    }

    /// To be called as early as can be after each start, and once: an image that was started before and not confirmed is
    /// given up.
    pub async fn start(&mut self) -> Result<Start, BootError> {
        self.otadata.start(self.running).await
    }
}

impl<F: NorFlash, O: NorFlash> Firmware for OtaSlots<F, O> {
    type Error = BootError;

    fn capacity(&self) -> u32 {
        self.slot.capacity()
    }

    fn resume(&mut self, offset: u32) -> u32 {
        Area::<F>::resume(offset)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), BootError> {
        if self.slot.begins(offset) && self.is_on_trial().await? {
            return Err(BootError::OnTrial);
        }
        self.slot.write(offset, bytes).await
    }

    async fn read(&mut self, offset: u32, out: &mut [u8]) -> Result<(), BootError> {
        self.slot.read(offset, out).await
    }

    async fn finish(&mut self, size: u32) -> Result<(), BootError> {
        self.slot.flush().await?;
        if size > self.capacity() {
            return Err(BootError::Offset);
        }
        if self.is_on_trial().await? {
            return Err(BootError::OnTrial);
        }
        self.otadata.switch(self.running).await
    }

    async fn confirm(&mut self) -> Result<(), BootError> {
        self.otadata.confirm(self.running).await
    }
}

impl<F: NorFlash, O: NorFlash> Slot for OtaSlots<F, O> {
    async fn is_on_trial(&mut self) -> Result<bool, BootError> {
        let entry = self.otadata.of(self.running).await?;
        Ok(entry.is_some_and(|(_, entry)| matches!(entry.state, State::New | State::PendingVerify)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From entries that ESP-IDF's tools wrote.
    #[test]
    fn entries_are_those_of_esp_idf() {
        for (seq, sum) in [(1, 0x4743_989A), (2, 0x55F6_3774), (3, 0xED4A_5011)] {
            assert_eq!(crc(seq), sum);
            let entry = Entry::new(seq, State::New);
            assert_eq!(Entry::from_bytes(&entry.to_bytes()), Some(entry));
            assert_eq!(u32::from(entry.slot()), (seq - 1) % 2);
        }
        assert_eq!(Entry::from_bytes(&[0xFF; ENTRY]), None);
        let mut torn = Entry::new(1, State::New).to_bytes();
        torn[28..].fill(0xFF);
        assert_eq!(Entry::from_bytes(&torn), None);
    }
}
