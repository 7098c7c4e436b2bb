//! Updates over the air.
//!
//! Somebody sends the command `update` (docs/protocol.md, section 13).
//! [`Device::next_update`] gives it to the application, [`Update::install`] fetches the image in ranges, writes it through
//! a [`Firmware`], says how far it is, reads it back, and marks it to be started; after the restart
//! [`Device::finish_update`] confirms it and tells the requester. A reset in the middle goes on where it was.

use crate::bytes::{Put, Take};
use crate::client::Device;
use crate::error::{Outcome, SendError};
use crate::json::{ToJson, Value, Writer};
use crate::shared::{Answer, Reject, Shared, Status};
use crate::wire::State;
use core::future::Future;
use heapless::{String, Vec};
use sha2::{Digest, Sha256};

/// Bytes in front of each range.
const HEAD_BYTES: usize = 16;

/// An answer that has not come after so long is asked for once more.
const ANSWER_MS: u64 = 20_000;

/// How far an update is gets into flash after so many bytes: a reset repeats as many at most.
const KEEP_BYTES: u32 = 16_384;

/// Most bytes of a record in flash.
pub(crate) const RECORD_BYTES: usize = 280;

/// Where firmware is written: mostly a boot loader's second slot.
pub trait Firmware {
    /// What can go wrong.
    type Error;

    /// Bytes that there is room for.
    fn capacity(&self) -> u32;

    /// Where writing goes on after a reset, when `offset` bytes were written before it: there, or before it where flash
    /// wants a page to be begun anew.
    fn resume(&mut self, offset: u32) -> u32 {
        offset
    }

    /// Writes bytes; offsets rise, from 0 or from what [`Firmware::resume`] said. What is erased for it, and when, is up
    /// to this.
    fn write(&mut self, offset: u32, bytes: &[u8]) -> impl Future<Output = Result<(), Self::Error>>;

    /// Reads back what was written.
    fn read(&mut self, offset: u32, out: &mut [u8]) -> impl Future<Output = Result<(), Self::Error>>;

    /// The image is complete: it is to be started at the next reset.
    fn finish(&mut self, size: u32) -> impl Future<Output = Result<(), Self::Error>>;

    /// The firmware that runs is good: the boot loader keeps it. Without this it goes back to the one before. Nothing, if
    /// it was confirmed before.
    fn confirm(&mut self) -> impl Future<Output = Result<(), Self::Error>>;
}

/// Checks who has made an image.
pub trait Verify {
    /// Whether the signature is one of this image.
    fn is_signed(&self, offer: &Offer) -> bool;
}

/// Images are taken from whoever may command the device.
#[derive(Clone, Copy, Debug)]
pub struct Unsigned;

impl Verify for Unsigned {
    fn is_signed(&self, _: &Offer) -> bool {
        true
    }
}

/// The public key of whoever makes images: 32 bytes of Ed25519.
#[cfg(feature = "ed25519")]
#[derive(Clone, Copy, Debug)]
pub struct Ed25519(pub [u8; 32]);

#[cfg(feature = "ed25519")]
impl Verify for Ed25519 {
    fn is_signed(&self, offer: &Offer) -> bool {
        let signature = ed25519_compact::Signature::from_slice(&offer.signature);
        let key = ed25519_compact::PublicKey::new(self.0);
        signature.is_ok_and(|signature| key.verify(offer.sha256, &signature).is_ok())
    }
}

/// An image that is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Name of the blob.
    pub blob: String<64>,
    /// Of the firmware.
    pub version: String<32>,
    /// Bytes.
    pub size: u32,
    /// Of the image.
    pub sha256: [u8; 32],
    /// Of the 32 bytes of `sha256`, by Ed25519; empty: there is none.
    pub signature: Vec<u8, 64>,
}

impl Offer {
    /// From the arguments of the command.
    fn read(args: Value<'_>) -> Result<Self, Reject> {
        let sha256: Vec<u8, 32> = hex(args.get("sha256")).ok_or(Reject::Argument("sha256"))?;
        Ok(Self {
            blob: crate::json::argument(args, "blob")?,
            version: crate::json::argument(args, "version")?,
            size: crate::json::argument(args, "size")?,
            sha256: sha256.into_array().map_err(|_| Reject::Argument("sha256"))?,
            signature: match args.get("signature") {
                Some(text) if !text.is_null() => base64(text).ok_or(Reject::Argument("signature"))?,
                _ => Vec::new(),
            },
        })
    }
}

fn hex<const N: usize>(value: Option<Value<'_>>) -> Option<Vec<u8, N>> {
    let text = value?.text()?.as_plain()?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::new();
    for pair in text.as_bytes().chunks(2) {
        let &[high, low] = pair else { return None };
        bytes.push(digit(high)? << 4 | digit(low)?).ok()?;
    }
    Some(bytes)
}

/// Base64 with padding (RFC 4648).
fn base64<const N: usize>(value: Value<'_>) -> Option<Vec<u8, N>> {
    let text = value.text()?.as_plain()?.as_bytes();
    if text.len() % 4 != 0 {
        return None;
    }
    let mut bytes = Vec::new();
    for (at, four) in text.chunks_exact(4).enumerate() {
        let mut bits = 0u32;
        let mut padding = 0;
        for byte in four {
            let digit = match *byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' if (at + 1) * 4 == text.len() => {
                    padding += 1;
                    0
                }
                _ => return None,
            };
            if padding > 2 || padding > 0 && *byte != b'=' {
                return None;
            }
            bits = bits << 6 | u32::from(digit);
        }
        let [_, three @ ..] = bits.to_be_bytes();
        bytes.extend_from_slice(three.get(..3usize.checked_sub(padding)?)?).ok()?;
    }
    Some(bytes)
}

/// Why an update was not installed. The requester was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpdateError {
    /// It is longer than there is room.
    TooLarge,
    /// It was not signed by whom it should be.
    Signature,
    /// What was fetched is not what was offered.
    Checksum,
    /// The broker does not give it.
    Refused,
    /// The firmware could not be written or read.
    Firmware,
}

impl UpdateError {
    /// What happened, for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::TooLarge => "the image is longer than there is room for it",
            Self::Signature => "the signature is not that of the maker",
            Self::Checksum => "what was fetched is not what was offered",
            Self::Refused => "the broker does not give the image",
            Self::Firmware => "the image could not be written",
        }
    }
}

/// An update that was offered, or goes on after a reset.
#[must_use = "an update that is dropped is offered again after the next reset"]
#[derive(Debug)]
pub struct Update<'a> {
    device: Device<'a>,
    id: String<36>,
    /// What is offered.
    pub offer: Offer,
    offset: u32,
}

/// How far an update is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Fetching = 1,
    Installed = 2,
}

impl<'a> Device<'a> {
    /// The next update: one that a reset interrupted, or one that is offered.
    pub async fn next_update(&self) -> Update<'a> {
        let (id, offer, offset) = self
            .until(|shared| {
                if !shared.is_started() {
                    return None;
                }
                if let Some((Stage::Fetching, offset, id, offer)) = recorded(shared)
                    && !shared.update_is_taken()
                {
                    shared.take_update();
                    return Some((id, offer, offset));
                }
                let now = shared.now();
                let mut offer = None;
                let taken = shared.take_command(now, true, &mut |_, args| {
                    offer = Some(Offer::read(args)?);
                    Ok(())
                })?;
                shared.take_update();
                Some((taken.id, offer?, 0))
            })
            .await;
        Update { device: *self, id, offer, offset }
    }

    /// After a restart with a firmware of this version that has shown that it works (it is online, say): confirms it to
    /// the boot loader, and tells whoever has sent the update how it went. To be called once, before the first
    /// [`Device::next_update`].
    pub async fn finish_update<F: Firmware>(&self, version: &str, firmware: &mut F) -> Result<(), F::Error> {
        let record = self.until(|shared| shared.is_started().then(|| recorded(shared))).await;
        let Some((Stage::Installed, _, id, offer)) = record else { return Ok(()) };
        if offer.version == version {
            firmware.confirm().await?;
            let result = Installed(version);
            self.tell(&id, Answer { state: State::Done, text: "", result: Some(&result) }).await;
        } else {
            let text = "the device went back to the firmware it had";
            self.tell(&id, Answer { state: State::Failed, text, result: None }).await;
        }
        self.with(|shared| shared.keep_update(None));
        Ok(())
    }

    /// Says how an update goes, also after a reset.
    async fn tell(&self, id: &str, answer: Answer<'_>) {
        self.until(|shared| match shared.say_result(id, answer) {
            Err(SendError::Full) => None,
            _ => Some(()),
        })
        .await;
    }
}

struct Installed<'a>(&'a str);

impl ToJson for Installed<'_> {
    fn to_json(&self, json: &mut Writer<'_>) {
        json.begin_object();
        json.field("version", self.0);
        json.end_object();
    }
}

/// Whether flash has an update that came as this command.
pub(crate) fn is_recorded(shared: &Shared, command: &str) -> bool {
    recorded(shared).is_some_and(|(_, _, id, _)| id == command)
}

/// What flash has of an update.
fn recorded(shared: &Shared) -> Option<(Stage, u32, String<36>, Offer)> {
    let mut take = Take(shared.flash.update.as_deref()?);
    let stage = match take.u8() {
        1 => Stage::Fetching,
        2 => Stage::Installed,
        _ => return None,
    };
    let (offset, size) = (take.u32(), take.u32());
    let sha256 = *take.bytes(32).first_chunk::<32>()?;
    let id = String::try_from(take.short()).ok()?;
    let offer = Offer {
        blob: String::try_from(take.short()).ok()?,
        version: String::try_from(take.short()).ok()?,
        size,
        sha256,
        signature: Vec::from_slice(take.rest()).ok()?,
    };
    Some((stage, offset, id, offer))
}

impl Update<'_> {
    /// Refuses it; `text` says why, for people.
    pub async fn reject(self, text: &str) {
        self.end(State::Rejected, text).await;
    }

    /// Fetches, writes and checks the image, and marks it to be started. `buffer` takes one range and 16 bytes: its length
    /// and that of the inbox bound how much is fetched at a time. When this returns `Ok` the device is to be reset; the
    /// requester hears of the outcome from [`Device::finish_update`].
    pub async fn install<F: Firmware>(
        mut self,
        firmware: &mut F,
        verify: &impl Verify,
        buffer: &mut [u8],
    ) -> Result<(), UpdateError> {
        let installed = self.run(firmware, verify, buffer).await;
        if let Err(error) = installed {
            warn!("update to {:?} failed: {}", self.offer.version.as_str(), error.text());
        }
        match installed {
            Ok(()) => info!("update to {:?} is installed", self.offer.version.as_str()),
            Err(error @ (UpdateError::TooLarge | UpdateError::Signature)) => {
                self.end(State::Rejected, error.text()).await;
            }
            Err(error) => self.end(State::Failed, error.text()).await,
        }
        installed
    }

    async fn run<F: Firmware>(
        &mut self,
        firmware: &mut F,
        verify: &impl Verify,
        buffer: &mut [u8],
    ) -> Result<(), UpdateError> {
        if self.offer.size > firmware.capacity() {
            return Err(UpdateError::TooLarge);
        }
        if !verify.is_signed(&self.offer) {
            return Err(UpdateError::Signature);
        }
        let mut kept = self.offset;
        if self.offset == 0 {
            self.keep(Stage::Fetching).await;
        } else {
            self.offset = firmware.resume(self.offset).min(self.offset);
        }
        let mut told = u32::MAX;
        while self.offset < self.offer.size {
            let percent = u32::try_from(u64::from(self.offset) * 100 / u64::from(self.offer.size)).unwrap_or(0);
            if told == u32::MAX || percent >= told + 10 {
                told = percent;
                info!("update to {:?}: {} of {} bytes", self.offer.version.as_str(), self.offset, self.offer.size);
                self.progress(percent).await;
            }
            let len = self.fetch(buffer).await?;
            let bytes = buffer.get(HEAD_BYTES..HEAD_BYTES + len).unwrap_or(&[]);
            firmware.write(self.offset, bytes).await.map_err(|_| UpdateError::Firmware)?;
            self.offset += u32::try_from(len).unwrap_or(0);
            if self.offset.saturating_sub(kept) >= KEEP_BYTES {
                kept = self.offset;
                self.keep(Stage::Fetching).await;
            }
        }
        self.check(firmware, buffer).await?;
        self.progress(100).await;
        // Before the boot loader is told: an image that starts must find that it is the one that was installed. When the
        // power goes in between, the update has failed; the other way round an image that is no good would be tried for ever.
        self.keep(Stage::Installed).await;
        firmware.finish(self.offer.size).await.map_err(|_| UpdateError::Firmware)
    }

    /// Fetches the range at the offset into `buffer`; how many bytes stand behind the head.
    async fn fetch(&self, buffer: &mut [u8]) -> Result<usize, UpdateError> {
        let most = buffer.len().saturating_sub(HEAD_BYTES);
        let wanted = Range {
            offset: self.offset,
            max: u32::try_from(most).unwrap_or(u32::MAX).min(self.offer.size - self.offset),
        };
        let mut topic = String::<80>::new();
        let _ = topic.push_str("im/v1/me/blob/");
        let _ = topic.push_str(&self.offer.blob);
        let device = self.device;
        loop {
            device.online().await;
            let conn = device.with(|shared| {
                shared.drop_blobs();
                shared.conn()
            });
            let again = device.now_ms() + ANSWER_MS;
            let request = device.publish_json(&topic, &wanted).await.map_err(|_| UpdateError::Refused)?;
            let answer = device
                .until(|shared| {
                    if let Some(len) = shared.take_blob(buffer) {
                        return Some(Ok(Some(len)));
                    }
                    if let Some(Outcome::Lost(_)) = request.outcome_of(shared) {
                        return Some(Err(UpdateError::Refused));
                    }
                    // An answer to an older connection does not come any more; nor does one that takes so long.
                    let lost = shared.conn() != conn || shared.now() >= again;
                    (shared.status() == Status::Online && lost).then_some(Ok(None))
                })
                .await?;
            let Some(len) = answer else { continue };
            let mut take = Take(buffer.get(..len).unwrap_or(&[]));
            let (offset, size) = (take.u64(), take.u64());
            if size != u64::from(self.offer.size) {
                return Err(UpdateError::Checksum);
            }
            let left = usize::try_from(self.offer.size - self.offset).unwrap_or(usize::MAX);
            let len = take.0.len().min(left);
            // Of an older request.
            if offset == u64::from(self.offset) && len > 0 {
                return Ok(len);
            }
        }
    }

    /// Reads the image back.
    async fn check<F: Firmware>(&self, firmware: &mut F, buffer: &mut [u8]) -> Result<(), UpdateError> {
        let mut hash = Sha256::new();
        let mut offset = 0;
        while offset < self.offer.size {
            let len = usize::try_from(self.offer.size - offset).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..len).ok_or(UpdateError::Firmware)?;
            firmware.read(offset, part).await.map_err(|_| UpdateError::Firmware)?;
            hash.update(&*part);
            offset += u32::try_from(len).unwrap_or(u32::MAX);
        }
        let sum: [u8; 32] = hash.finalize().into();
        if sum == self.offer.sha256 { Ok(()) } else { Err(UpdateError::Checksum) }
    }

    async fn progress(&self, percent: u32) {
        let progress = Progress(percent);
        self.device.tell(&self.id, Answer { state: State::Running, text: "", result: Some(&progress) }).await;
    }

    /// Puts into flash how far it is, and waits until it is there.
    async fn keep(&self, stage: Stage) {
        let mut room = [0; RECORD_BYTES];
        let mut put = Put::new(&mut room);
        put.u8(stage as u8);
        put.u32(self.offset);
        put.u32(self.offer.size);
        put.bytes(&self.offer.sha256);
        put.short(self.id.as_bytes());
        put.short(self.offer.blob.as_bytes());
        put.short(self.offer.version.as_bytes());
        put.bytes(&self.offer.signature);
        let len = put.done().unwrap_or(0);
        self.device.with(|shared| shared.keep_update(room.get(..len)));
        self.device.until(|shared| shared.update_is_kept().then_some(())).await;
    }

    async fn end(&self, state: State, text: &str) {
        self.device.with(|shared| shared.keep_update(None));
        self.device.tell(&self.id, Answer { state, text, result: None }).await;
    }
}

impl Drop for Update<'_> {
    fn drop(&mut self) {
        self.device.with(Shared::release_update);
    }
}

struct Progress(u32);

impl ToJson for Progress {
    fn to_json(&self, json: &mut Writer<'_>) {
        json.begin_object();
        json.field("progress", self.0);
        json.end_object();
    }
}

struct Range {
    offset: u32,
    max: u32,
}

impl ToJson for Range {
    fn to_json(&self, json: &mut Writer<'_>) {
        json.begin_object();
        json.field("offset", self.offset);
        json.field("max", self.max);
        json.end_object();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_read() {
        let sha = "00".repeat(31) + "Ff";
        let read = |text: &str| Offer::read(Value::parse(text).unwrap());
        let args = std::format!(r#"{{"blob":"b","version":"2","size":19,"sha256":"{sha}","signature":"AP8QIA=="}}"#);
        let offer = read(&args).unwrap();
        assert_eq!((offer.blob.as_str(), offer.version.as_str(), offer.size), ("b", "2", 19));
        assert_eq!((offer.sha256[31], &offer.signature[..]), (0xFF, &[0, 0xFF, 0x10, 0x20][..]));
        let unsigned = std::format!(r#"{{"blob":"b","version":"2","size":19,"sha256":"{sha}","signature":null}}"#);
        assert!(read(&unsigned).unwrap().signature.is_empty());
        let check =
            |from: &str, to: &str, field| assert_eq!(read(&args.replace(from, to)), Err(Reject::Argument(field)));
        check("Ff", "F", "sha256");
        check("Ff", "Fg", "sha256");
        check("\"size\":19,", "", "size");
        for bad in ["AP8QIA=", "AP8=IA==", "AP8QI===", "=P8QIA==", "AP8?IA=="] {
            check("AP8QIA==", bad, "signature");
        }
    }

    #[cfg(feature = "ed25519")]
    #[test]
    fn only_what_the_maker_signed_is_taken() {
        let pair = ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new([7; 32]));
        let signature = pair.sk.sign([9; 32], None);
        let mut offer = Offer {
            blob: String::new(),
            version: String::new(),
            size: 1,
            sha256: [9; 32],
            signature: Vec::from_slice(signature.as_ref()).unwrap(),
        };
        let maker = Ed25519(*pair.pk);
        assert!(maker.is_signed(&offer));
        assert!(!Ed25519([3; 32]).is_signed(&offer));
        offer.sha256[0] ^= 1;
        assert!(!maker.is_signed(&offer));
        offer.signature.clear();
        assert!(!maker.is_signed(&offer));
    }
}
