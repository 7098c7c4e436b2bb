//! NOR flash in memory, whose power can be cut at any word and any page.

use embedded_storage::nor_flash as blocking;
use embedded_storage_async::nor_flash as awaited;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// What a power cut leaves of what was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    /// Nothing was done yet.
    Before,
    /// Some of the bits were cleared, or some of the page was erased.
    Within,
}

/// The chip: what is in it survives.
pub struct Chip {
    bytes: RefCell<Vec<u8>>,
    /// Bytes that were written since they were erased.
    written: RefCell<Vec<bool>>,
    /// Words written and pages erased so far.
    pub done: Cell<u64>,
    /// The power goes at this one.
    pub cut: Cell<Option<(u64, Tear)>>,
    /// There is no power.
    pub dead: Cell<bool>,
    /// Words that were written a second time.
    pub twice: Cell<u64>,
    chance: Cell<u64>,
}

impl Chip {
    /// Erased flash of so many bytes.
    pub fn new(bytes: u32) -> Rc<Self> {
        Rc::new(Self {
            bytes: RefCell::new(vec![0xFF; bytes as usize]),
            written: RefCell::new(vec![false; bytes as usize]),
            done: Cell::new(0),
            cut: Cell::new(None),
            dead: Cell::new(false),
            twice: Cell::new(0),
            chance: Cell::new(0x9E37_79B9_7F4A_7C15),
        })
    }

    /// Puts an image there over a cable.
    pub fn program(&self, place: u32, image: &[u8]) {
        let place = place as usize;
        self.bytes.borrow_mut()[place..place + image.len()].copy_from_slice(image);
        self.written.borrow_mut()[place..place + image.len()].fill(true);
    }

    /// What is there.
    pub fn look(&self, place: u32, len: usize) -> Vec<u8> {
        self.bytes.borrow()[place as usize..place as usize + len].to_vec()
    }

    fn random(&self) -> u8 {
        let mut x = self.chance.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.chance.set(x);
        x.to_le_bytes()[3]
    }

    /// Counts something that changes flash. `Ok(None)`: it is done. `Ok(Some(..))`: the power goes meanwhile.
    pub fn step(&self) -> Result<Option<Tear>, Dead> {
        if self.dead.get() {
            return Err(Dead);
        }
        let now = self.done.get();
        self.done.set(now + 1);
        match self.cut.get() {
            Some((at, tear)) if at == now => {
                self.dead.set(true);
                Ok(Some(tear))
            }
            _ => Ok(None),
        }
    }
}

/// There is no power, or the place does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dead;

impl blocking::NorFlashError for Dead {
    fn kind(&self) -> blocking::NorFlashErrorKind {
        blocking::NorFlashErrorKind::Other
    }
}

/// A part of the chip, which writes `WORD` bytes at once and erases `PAGE`.
#[derive(Clone)]
pub struct Part<const WORD: usize, const PAGE: usize> {
    chip: Rc<Chip>,
    place: u32,
    len: u32,
    tears: bool,
}

impl<const WORD: usize, const PAGE: usize> Part<WORD, PAGE> {
    /// These bytes of it.
    pub fn new(chip: &Rc<Chip>, place: u32, len: u32) -> Self {
        Self { chip: Rc::clone(chip), place, len, tears: true }
    }

    /// Words are written as a whole or not at all, and pages erased from their start on: what boot loaders assume of the area
    /// in which they keep their own state.
    pub fn of_state(chip: &Rc<Chip>, place: u32, len: u32) -> Self {
        Self { tears: false, ..Self::new(chip, place, len) }
    }

    fn within(&self, offset: u32, len: usize, unit: usize) -> Result<usize, Dead> {
        let fits = offset as usize + len <= self.len as usize;
        assert!(
            fits && (offset as usize).is_multiple_of(unit) && len.is_multiple_of(unit),
            "{offset}+{len} in {} by {unit}",
            self.len
        );
        if self.chip.dead.get() { Err(Dead) } else { Ok((self.place + offset) as usize) }
    }

    fn do_read(&self, offset: u32, out: &mut [u8]) -> Result<(), Dead> {
        let place = self.within(offset, out.len(), 1)?;
        out.copy_from_slice(&self.chip.bytes.borrow()[place..place + out.len()]);
        Ok(())
    }

    fn do_write(&self, offset: u32, bytes: &[u8]) -> Result<(), Dead> {
        let place = self.within(offset, bytes.len(), WORD)?;
        for (at, word) in bytes.chunks(WORD).enumerate() {
            let place = place + at * WORD;
            let tear = self.chip.step()?;
            if tear == Some(Tear::Before) || tear.is_some() && !self.tears {
                return Err(Dead);
            }
            let written = &mut self.chip.written.borrow_mut()[place..place + WORD];
            let anything = word.iter().any(|byte| *byte != 0xFF);
            // Boot loaders write a word of their state a second time when they are interrupted.
            if anything && self.tears && written.contains(&true) {
                self.chip.twice.set(self.chip.twice.get() + 1);
            }
            written.fill(anything);
            for (cell, new) in self.chip.bytes.borrow_mut()[place..place + WORD].iter_mut().zip(word) {
                *cell &= if tear.is_some() { *new | self.chip.random() } else { *new };
            }
            if tear.is_some() {
                return Err(Dead);
            }
        }
        Ok(())
    }

    fn do_erase(&self, from: u32, to: u32) -> Result<(), Dead> {
        let place = self.within(from, (to - from) as usize, PAGE)?;
        for place in (place..place + (to - from) as usize).step_by(PAGE) {
            let tear = self.chip.step()?;
            if tear == Some(Tear::Before) {
                return Err(Dead);
            }
            let mut bytes = self.chip.bytes.borrow_mut();
            let page = &mut bytes[place..place + PAGE];
            match tear {
                None => {
                    page.fill(0xFF);
                    self.chip.written.borrow_mut()[place..place + PAGE].fill(false);
                }
                Some(_) if self.tears => page.iter_mut().for_each(|byte| *byte |= self.chip.random()),
                Some(_) => {
                    page[..PAGE / 2].fill(0xFF);
                    self.chip.written.borrow_mut()[place..place + PAGE / 2].fill(false);
                }
            }
            if tear.is_some() {
                return Err(Dead);
            }
        }
        Ok(())
    }
}

impl<const WORD: usize, const PAGE: usize> blocking::ErrorType for Part<WORD, PAGE> {
    type Error = Dead;
}

impl<const WORD: usize, const PAGE: usize> blocking::ReadNorFlash for Part<WORD, PAGE> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Dead> {
        self.do_read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.len as usize
    }
}

impl<const WORD: usize, const PAGE: usize> blocking::NorFlash for Part<WORD, PAGE> {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Dead> {
        self.do_erase(from, to)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Dead> {
        self.do_write(offset, bytes)
    }
}

impl<const WORD: usize, const PAGE: usize> awaited::ReadNorFlash for Part<WORD, PAGE> {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Dead> {
        self.do_read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.len as usize
    }
}

impl<const WORD: usize, const PAGE: usize> awaited::NorFlash for Part<WORD, PAGE> {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), Dead> {
        self.do_erase(from, to)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Dead> {
        self.do_write(offset, bytes)
    }
}
