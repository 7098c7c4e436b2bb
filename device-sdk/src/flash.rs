//! What must survive a reboot: the number of the start, the account, commands that never begin twice, and rows of the
//! outbox whose policy says so. Without the feature `persist` there is only [`NoFlash`].

use core::future::Future;

/// Flash did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlashError;

impl core::fmt::Display for FlashError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("flash did not do what it was asked")
    }
}

impl core::error::Error for FlashError {}

/// A small map that survives a reboot: after a power cut each key has the value before or the one that was being written.
///
/// Only the runner calls it, one call at a time, and never gives one up.
pub trait Flash {
    /// Whether it keeps anything.
    const KEEPS: bool = true;

    /// Reads the value of a key into the map's own buffer; `None`: it has none.
    fn load(&mut self, key: u8) -> impl Future<Output = Result<Option<&[u8]>, FlashError>>;

    /// Writes a value, which `fill` writes to the front of a buffer; `None`: it is longer than that.
    fn store(
        &mut self,
        key: u8,
        fill: &dyn Fn(&mut [u8]) -> Option<usize>,
    ) -> impl Future<Output = Result<(), FlashError>>;
}

/// No flash: a reboot forgets everything, and commands that must never begin twice are rejected.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFlash;

impl Flash for NoFlash {
    const KEEPS: bool = false;

    async fn load(&mut self, _key: u8) -> Result<Option<&[u8]>, FlashError> {
        Ok(None)
    }

    async fn store(&mut self, _key: u8, _fill: &dyn Fn(&mut [u8]) -> Option<usize>) -> Result<(), FlashError> {
        Err(FlashError)
    }
}

#[cfg(feature = "flash")]
pub use sequential::FlashMap;

#[cfg(feature = "flash")]
mod sequential {
    use super::{Flash, FlashError};
    use core::ops::Range;
    use embedded_storage_async::nor_flash::NorFlash;
    use sequential_storage::cache::{Cache, Uncached};
    use sequential_storage::map::{MapConfig, MapStorage, SerializationError, Value};

    /// A map in NOR flash by `sequential-storage`: entries are appended, pages are erased in turn. `BUFFER` bounds one
    /// value: the longest row of the outbox and 12 bytes.
    pub struct FlashMap<S: NorFlash, const BUFFER: usize> {
        map: MapStorage<u8, S, Cache<Uncached, Uncached, Uncached, u8>>,
        buffer: Aligned<BUFFER>,
    }

    /// Some flash wants the buffer aligned to its words.
    #[repr(align(8))]
    struct Aligned<const N: usize>([u8; N]);

    impl<S: NorFlash, const BUFFER: usize> core::fmt::Debug for FlashMap<S, BUFFER> {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            f.write_str("FlashMap")
        }
    }

    impl<S: NorFlash, const BUFFER: usize> FlashMap<S, BUFFER> {
        /// In this range of addresses, which must be whole pages and at least two of them; `None` if they are not.
        pub fn new(flash: S, range: Range<u32>) -> Option<Self> {
            let config = MapConfig::try_new(range).ok()?;
            Some(Self { map: MapStorage::new(flash, config, Cache::new_uncached()), buffer: Aligned([0; BUFFER]) })
        }

        /// Gives the flash back.
        pub fn into_inner(self) -> S {
            self.map.destroy().0
        }
    }

    impl<S: NorFlash, const BUFFER: usize> Flash for FlashMap<S, BUFFER> {
        async fn load(&mut self, key: u8) -> Result<Option<&[u8]>, FlashError> {
            self.map.fetch_item::<&[u8]>(&mut self.buffer.0, &key).await.map_err(|_| FlashError)
        }

        async fn store(&mut self, key: u8, fill: &dyn Fn(&mut [u8]) -> Option<usize>) -> Result<(), FlashError> {
            self.map.store_item(&mut self.buffer.0, &key, &Filled(fill)).await.map_err(|_| FlashError)
        }
    }

    /// A value that is written where the map wants it.
    struct Filled<'a>(&'a dyn Fn(&mut [u8]) -> Option<usize>);

    impl<'a> Value<'a> for Filled<'a> {
        fn serialize_into(&self, buffer: &mut [u8]) -> Result<usize, SerializationError> {
            (self.0)(buffer).ok_or(SerializationError::BufferTooSmall)
        }

        fn deserialize_from(_: &'a [u8]) -> Result<(Self, usize), SerializationError> {
            Err(SerializationError::InvalidFormat)
        }
    }
}
