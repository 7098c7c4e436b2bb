//! Says on standard error how far something long is.

use std::io::{self, IsTerminal, Read, Write};

/// Says how far it is, once a MiB at most.
pub(super) struct Progress {
    word: &'static str,
    shown: u64,
    visible: bool,
}

impl Progress {
    pub(super) fn new(word: &'static str) -> Self {
        Self { word, shown: 0, visible: io::stderr().is_terminal() }
    }

    pub(super) fn show(&mut self, bytes: u64) {
        if self.visible && bytes >> 20 > self.shown {
            self.shown = bytes >> 20;
            eprint!("\r{} MiB {}", self.shown, self.word);
        }
    }

    pub(super) fn end(&self, bytes: u64) {
        let start = if self.shown > 0 { "\r" } else { "" };
        eprintln!("{start}{bytes} bytes {}", self.word);
    }
}

/// Counts what passes and says how far it is.
pub(super) struct Counted<T> {
    pub inner: T,
    pub bytes: u64,
    pub progress: Progress,
}

impl<T> Counted<T> {
    pub(super) fn new(inner: T, progress: Progress) -> Self {
        Self { inner, bytes: 0, progress }
    }
}

impl<T: Write> Write for Counted<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.bytes += length as u64;
        self.progress.show(self.bytes);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Counted<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(bytes)?;
        self.bytes += length as u64;
        self.progress.show(self.bytes);
        Ok(length)
    }
}
