//! Blobs: firmware images and the like, which the operator puts in and devices fetch in ranges.
//!
//! A blob is known by the SHA-256 of its content. Its bytes lie in pieces of one size in a table of their own, so a range
//! is a few rows; its head says who may read it. While it is being put in, its head says that it is not whole: nobody
//! reads it, and a start throws it away.

use super::ask::Asker;
use super::model::{AccountNo, Address, ConvKind, ConvNo};
use super::online::{Note, Tag};
use super::row::{RowWriter, read_flag, read_u32, reader};
use super::{Code, Im, Origin, Pending, Refusal, Verdict, number, object, row, shorten, text};
use crate::hub::Now;
use crate::store::bytes::DecodeError;
use crate::store::{Answer, Direction, Fact, What};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Bytes of a piece, but for the last one.
const PIECE_BYTES: usize = 16 * 1024;
/// Bytes before those of the blob in an answer: where they begin, and how long the blob is.
const HEAD_BYTES: usize = 16;
/// An answer with fewer bytes is of no use.
pub(super) const LEAST_BYTES: usize = HEAD_BYTES + 1;
/// Bytes of a name, and of the text of a version.
const TEXT_BYTES: usize = 128;
/// Characters of a signature: Base64 of the 64 bytes of Ed25519.
const SIGNATURE_CHARS: usize = 88;
/// Accounts and groups that may read one blob.
const READERS_MAX: usize = 1_024;

/// Something the operator does about a blob. Each is answered with JSON, or refused as in messaging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobOrder {
    /// Begins to put one in; the answer has `upload`, which names it until it is whole. What was begun before and is not
    /// whole is thrown away.
    Begin {
        /// Accounts and groups that are to read it.
        readers: Vec<String>,
        /// Bytes it will have, where that is known.
        size: Option<u64>,
    },
    /// The bytes that come next.
    Append {
        /// Which.
        upload: u64,
        /// The bytes; any number of them.
        bytes: Vec<u8>,
    },
    /// It is whole; the answer is the blob. A blob with this content that is there already stays as it is, but for those
    /// who may read it (`dup`).
    Finish {
        /// Which.
        upload: u64,
        /// What it is.
        blob: NewBlob,
    },
    /// It will not be whole.
    Abort {
        /// Which.
        upload: u64,
    },
    /// Says who may read a blob; the answer is the blob.
    Grant {
        /// Its id.
        id: String,
        /// Accounts and groups that may from now on.
        add: Vec<String>,
        /// Accounts and groups that may no longer.
        remove: Vec<String>,
    },
    /// Removes a blob.
    Remove {
        /// Its id.
        id: String,
    },
}

impl BlobOrder {
    /// Whether it is refused while the disk is nearly full.
    pub(crate) fn takes_room(&self) -> bool {
        matches!(self, Self::Begin { .. } | Self::Append { .. })
    }
}

/// What a blob is, besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewBlob {
    /// SHA-256 of its content.
    pub sha256: [u8; 32],
    /// A name for people, as of a file.
    pub name: String,
    /// Its version, as text.
    pub version: String,
    /// Ed25519 signature of the 32 bytes of `sha256`, Base64; empty: none. It is passed on and not verified.
    pub signature: String,
    /// Accounts and groups that may read it.
    pub readers: Vec<String>,
}

/// Who may read a blob: an account, or the members of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reader {
    Account(AccountNo),
    Members(ConvNo),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Blob {
    is_whole: bool,
    sha256: [u8; 32],
    size: u64,
    name: String,
    version: String,
    signature: String,
    created_ms: u64,
    readers: BTreeSet<Reader>,
}

impl Blob {
    fn encode(&self) -> Vec<u8> {
        let mut w = RowWriter::new(1);
        w.flag(self.is_whole).bytes(&self.sha256).int(self.size).str(&self.name).str(&self.version);
        w.str(&self.signature).int(self.created_ms).int(self.readers.len() as u64);
        for reader in &self.readers {
            match reader {
                Reader::Account(no) => w.byte(0).int(no.0.into()),
                Reader::Members(no) => w.byte(1).int(no.0.into()),
            };
        }
        w.0
    }

    fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut r = reader(value)?;
        let mut blob = Self { is_whole: read_flag(&mut r)?, ..Self::default() };
        blob.sha256 = r.bytes()?.try_into().map_err(|_| DecodeError::Truncated)?;
        blob.size = r.int()?;
        r.str()?.clone_into(&mut blob.name);
        r.str()?.clone_into(&mut blob.version);
        r.str()?.clone_into(&mut blob.signature);
        blob.created_ms = r.int()?;
        for _ in 0..r.int()? {
            blob.readers.insert(match r.byte()? {
                0 => Reader::Account(AccountNo(read_u32(&mut r)?)),
                1 => Reader::Members(ConvNo(read_u32(&mut r)?)),
                other => return Err(DecodeError::UnknownTag(other)),
            });
        }
        Ok(blob)
    }

    fn id(&self) -> String {
        self.sha256.iter().fold(String::with_capacity(64), |mut id, byte| {
            let _ = write!(id, "{byte:02x}");
            id
        })
    }

    /// What its readers are told of it.
    fn line(&self) -> Value {
        let id = self.id();
        let mut line = json!({
            "id": id,
            "name": self.name,
            "version": self.version,
            "size": self.size,
            "sha256": id,
            "signature": null,
        });
        if !self.signature.is_empty() {
            line["signature"] = self.signature.as_str().into();
        }
        line
    }
}

/// Every blob.
#[derive(Debug, Default)]
pub(super) struct Blobs {
    /// Those that are whole, by number.
    by_no: BTreeMap<u64, Blob>,
    by_id: BTreeMap<[u8; 32], u64>,
    /// Sum of their sizes.
    bytes: u64,
    /// The number given last; none is given twice.
    last_no: u64,
    upload: Option<Upload>,
    /// Those that a start found, and that are not whole.
    broken: Vec<u64>,
}

/// One that is being put in.
#[derive(Debug)]
struct Upload {
    no: u64,
    size: u64,
    /// What is no whole piece yet.
    rest: Vec<u8>,
}

/// A range that a client waits for.
#[derive(Debug)]
pub(crate) struct Wanted {
    asker: Asker,
    no: u64,
    /// Bytes of the whole blob.
    size: u64,
    offset: u64,
    len: u64,
}

impl Wanted {
    /// Who asks.
    pub(super) fn account(&self) -> AccountNo {
        self.asker.account
    }
}

/// There is no such blob, or whoever asks may not read it: both sound the same.
fn unknown(id: &str) -> Refusal {
    Refusal::not_found(format!("there is no blob {}", shorten(id)))
}

impl Im {
    // ---- Clients ---------------------------------------------------------------------------------------------

    /// `me/blob/{id}`: a range of a blob, or what it is.
    pub(super) fn on_blob(
        &mut self,
        origin: &Origin<'_>,
        path: &str,
        id: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        let object = object(payload)?;
        let wants_info = match text(&object, "op")? {
            Some("info") => true,
            Some(_) => return Err(Refusal::bad("\"op\" is info, or is left out")),
            None => !object.contains_key("offset") && !object.contains_key("max"),
        };
        let (offset, max) = (number(&object, "offset")?.unwrap_or(0), number(&object, "max")?);
        if max == Some(0) {
            return Err(Refusal::bad("\"max\" is how many bytes are wanted, 1 or more"));
        }
        let (no, blob) =
            self.blob_of(id).filter(|(_, blob)| self.may_read(origin.account, blob)).ok_or_else(|| unknown(id))?;
        let asker = Self::asker(origin, path, object.get("id").cloned());
        if wants_info {
            let line = blob.line();
            self.answer(&asker, line);
            return Ok(Verdict::Later);
        }
        let size = blob.size;
        if offset >= size {
            return Err(Refusal::bad(format!("offset {offset} is beyond the end: the blob has {size} bytes")));
        }
        if origin.session.is_none() {
            return Err(Refusal::bad("bytes of a blob are for clients that are connected"));
        }
        self.may_pull(origin)?;
        let most = self.limits.im_blob_range_bytes_max;
        let len = max.unwrap_or(most).min(most).min(size - offset);
        let piece = PIECE_BYTES as u64;
        let what = What::Range {
            a: no,
            from: offset / piece,
            until: (offset + len).div_ceil(piece),
            direction: Direction::Up,
            max_rows: u32::MAX,
            max_bytes: u32::MAX,
        };
        let wanted = Wanted { asker, no, size, offset, len };
        self.ask(row::BLOB_PIECE, what, Pending::Blob(Box::new(wanted)));
        Ok(Verdict::Later)
    }

    /// The store has brought the pieces of a range.
    pub(super) fn blob_found(&mut self, wanted: &Wanted, answer: &Answer) {
        let Some(session) = wanted.asker.session else { return };
        let place = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let (skipped, len) = (place(wanted.offset % PIECE_BYTES as u64), place(wanted.len));
        let bytes: Vec<u8> = answer.iter().flat_map(|found| found.value).skip(skipped).take(len).copied().collect();
        if bytes.len() < len || !self.blobs.by_no.contains_key(&wanted.no) {
            // It was removed in between.
            self.counters.refused.add(Code::NotFound.text());
            let refusal = unknown(wanted.asker.re.rsplit('/').next().unwrap_or_default());
            let reply = json!({ "code": refusal.code.text(), "text": refusal.text });
            let mut asker = wanted.asker.clone();
            (asker.topic, asker.correlation) = ("im/v1/me/err".into(), None);
            return self.tell_session(session, &asker, reply);
        }
        let mut payload = Vec::with_capacity(HEAD_BYTES + bytes.len());
        payload.extend_from_slice(&wanted.offset.to_be_bytes());
        payload.extend_from_slice(&wanted.size.to_be_bytes());
        payload.extend_from_slice(&bytes);
        let mut note = Note::new(wanted.asker.class(), &wanted.asker.topic, &payload);
        note.correlation.clone_from(&wanted.asker.correlation);
        note.tag = Tag::Range;
        if let Some(online) = self.live_session(session) {
            self.note(online, note);
        }
    }

    fn blob_of(&self, id: &str) -> Option<(u64, &Blob)> {
        let no = *self.blobs.by_id.get(&digest(id)?)?;
        self.blobs.by_no.get(&no).map(|blob| (no, blob))
    }

    fn may_read(&self, account: AccountNo, blob: &Blob) -> bool {
        blob.readers.iter().any(|reader| match reader {
            Reader::Account(no) => *no == account,
            Reader::Members(no) => self.dir.convs.get(no.at()).is_some_and(|conv| conv.member(account).is_some()),
        })
    }

    // ---- The operator ----------------------------------------------------------------------------------------

    /// Does what the operator wants done.
    pub(crate) fn order_blob(&mut self, now: Now, order: BlobOrder) -> Result<Value, Refusal> {
        match order {
            BlobOrder::Begin { readers, size } => self.begin_blob(&readers, size),
            BlobOrder::Append { upload, bytes } => self.append_to_blob(upload, &bytes),
            BlobOrder::Finish { upload, blob } => self.finish_blob(now, upload, blob),
            BlobOrder::Abort { upload } => {
                self.upload_of(upload)?;
                self.drop_upload();
                Ok(json!({}))
            }
            BlobOrder::Grant { id, add, remove } => {
                let (add, remove) = (self.readers(&add)?, self.readers(&remove)?);
                let (no, _) = self.blob_of(&id).ok_or_else(|| unknown(&id))?;
                self.grant_blob(no, add, &remove)
            }
            BlobOrder::Remove { id } => {
                let (no, blob) = self.blob_of(&id).ok_or_else(|| unknown(&id))?;
                let (sha256, size) = (blob.sha256, blob.size);
                self.blobs.by_no.remove(&no);
                self.blobs.by_id.remove(&sha256);
                self.blobs.bytes -= size;
                self.forget_blob(no);
                Ok(json!({}))
            }
        }
    }

    fn begin_blob(&mut self, readers: &[String], size: Option<u64>) -> Result<Value, Refusal> {
        self.drop_upload();
        self.readers(readers)?;
        let most = self.limits.im_blobs_max;
        if self.blobs.by_no.len() as u64 >= most {
            let text = format!("there are {most} blobs (limits.im_blobs_max): remove one first");
            return Err(Refusal::new(Code::Quota, text));
        }
        self.fits_blob(size.unwrap_or(0))?;
        self.blobs.last_no += 1;
        let no = self.blobs.last_no;
        let mut w = RowWriter::new(1);
        w.int(no);
        self.put(row::BLOB, 0, 0, &w.0);
        self.put(row::BLOB, no, 0, &Blob::default().encode());
        self.blobs.upload = Some(Upload { no, size: 0, rest: vec![] });
        Ok(json!({ "upload": no }))
    }

    /// Whether there is room for one of this size.
    fn fits_blob(&self, size: u64) -> Result<(), Refusal> {
        let (most, most_of_all) = (self.limits.im_blob_bytes_max, self.limits.im_blobs_bytes_max);
        if size > most {
            let text = format!("a blob has {most} bytes at most (limits.im_blob_bytes_max)");
            return Err(Refusal::new(Code::TooLarge, text));
        }
        if self.blobs.bytes.saturating_add(size) > most_of_all {
            let text = format!(
                "all blobs together have {most_of_all} bytes at most (limits.im_blobs_bytes_max): remove one first"
            );
            return Err(Refusal::new(Code::Quota, text));
        }
        Ok(())
    }

    fn upload_of(&mut self, upload: u64) -> Result<&mut Upload, Refusal> {
        let gone = || Refusal::new(Code::NotFound, "another upload has begun, or the broker has: begin again");
        self.blobs.upload.as_mut().filter(|found| found.no == upload).ok_or_else(gone)
    }

    fn append_to_blob(&mut self, upload: u64, bytes: &[u8]) -> Result<Value, Refusal> {
        let size = self.upload_of(upload)?.size.saturating_add(bytes.len() as u64);
        if let Err(refusal) = self.fits_blob(size) {
            self.drop_upload();
            return Err(refusal);
        }
        let upload = self.upload_of(upload)?;
        let (no, first) = (upload.no, upload.size / PIECE_BYTES as u64);
        upload.size = size;
        upload.rest.extend_from_slice(bytes);
        let whole = upload.rest.len() - upload.rest.len() % PIECE_BYTES;
        let pieces: Vec<u8> = upload.rest.drain(..whole).collect();
        for (at, piece) in (first..).zip(pieces.chunks(PIECE_BYTES)) {
            self.put(row::BLOB_PIECE, no, at, piece);
        }
        Ok(json!({ "size": size }))
    }

    fn finish_blob(&mut self, now: Now, upload: u64, new: NewBlob) -> Result<Value, Refusal> {
        let size = self.upload_of(upload)?.size;
        let checked = check(&new, size).and_then(|()| self.readers(&new.readers));
        let readers = match checked {
            Ok(readers) => readers,
            Err(refusal) => {
                self.drop_upload();
                return Err(refusal);
            }
        };
        if let Some(&no) = self.blobs.by_id.get(&new.sha256) {
            self.drop_upload();
            let mut line = self.grant_blob(no, readers, &BTreeSet::new())?;
            line["dup"] = true.into();
            return Ok(line);
        }
        let Some(Upload { no, size, rest }) = self.blobs.upload.take() else { return Ok(Value::Null) };
        if !rest.is_empty() {
            self.put(row::BLOB_PIECE, no, size / PIECE_BYTES as u64, &rest);
        }
        let NewBlob { sha256, name, version, signature, .. } = new;
        let created_ms = now.wall_ms;
        let blob = Blob { is_whole: true, sha256, size, name, version, signature, created_ms, readers };
        self.put(row::BLOB, no, 0, &blob.encode());
        let mut line = self.blob_line(&blob);
        line["dup"] = false.into();
        self.blobs.add(no, blob);
        Ok(line)
    }

    /// Throws away what is not whole.
    fn drop_upload(&mut self) {
        if let Some(upload) = self.blobs.upload.take() {
            self.forget_blob(upload.no);
        }
    }

    fn forget_blob(&mut self, no: u64) {
        self.del(row::BLOB, no, 0);
        self.facts.push(&Fact::Trim { table: row::BLOB_PIECE, a: no, below: u64::MAX });
    }

    fn grant_blob(&mut self, no: u64, add: BTreeSet<Reader>, remove: &BTreeSet<Reader>) -> Result<Value, Refusal> {
        let Some(blob) = self.blobs.by_no.get(&no) else { return Ok(Value::Null) };
        let is_there = |reader: &Reader| match reader {
            Reader::Account(no) => !self.dir.accounts[no.at()].removed,
            Reader::Members(_) => true,
        };
        let kept = blob.readers.iter().copied().chain(add);
        let readers: BTreeSet<Reader> = kept.filter(|reader| !remove.contains(reader) && is_there(reader)).collect();
        if readers.len() > READERS_MAX {
            let text = format!("{READERS_MAX} accounts and groups at most read one blob: name a group of them");
            return Err(Refusal::new(Code::Quota, text));
        }
        let blob = Blob { readers, ..blob.clone() };
        self.put(row::BLOB, no, 0, &blob.encode());
        let line = self.blob_line(&blob);
        self.blobs.by_no.insert(no, blob);
        Ok(line)
    }

    /// The accounts and groups of these addresses.
    fn readers(&self, addresses: &[String]) -> Result<BTreeSet<Reader>, Refusal> {
        let reader = |address: &String| match self.dir.by_name.get(address.as_str()) {
            Some(Address::Account(no)) => Ok(Reader::Account(*no)),
            Some(Address::Conv(no)) if matches!(self.dir.convs[no.at()].kind, ConvKind::Group(_)) => {
                Ok(Reader::Members(*no))
            }
            _ => Err(Refusal::not_found(format!("there is no account and no group {}", shorten(address)))),
        };
        addresses.iter().map(reader).collect()
    }

    /// What the operator is told of a blob.
    fn blob_line(&self, blob: &Blob) -> Value {
        let mut line = blob.line();
        line["created"] = blob.created_ms.into();
        let address = |reader: &Reader| match reader {
            Reader::Account(no) => {
                let account = self.dir.accounts.get(no.at()).filter(|account| !account.removed)?;
                Some(account.name.to_string())
            }
            Reader::Members(no) => match &self.dir.convs.get(no.at())?.kind {
                ConvKind::Group(group) => Some(group.address.to_string()),
                _ => None,
            },
        };
        line["for"] = blob.readers.iter().filter_map(address).collect::<Vec<String>>().into();
        line
    }

    /// Every blob, as they came.
    pub(super) fn look_blobs(&self) -> Value {
        json!({ "items": self.blobs.by_no.values().map(|blob| self.blob_line(blob)).collect::<Vec<_>>() })
    }

    // ---- A start ---------------------------------------------------------------------------------------------

    pub(super) fn restore_blob(&mut self, no: u64, value: &[u8]) -> Result<(), DecodeError> {
        if no == 0 {
            self.blobs.last_no = self.blobs.last_no.max(reader(value)?.int()?);
            return Ok(());
        }
        self.blobs.last_no = self.blobs.last_no.max(no);
        let blob = Blob::decode(value)?;
        if blob.is_whole {
            self.blobs.add(no, blob);
        } else {
            self.blobs.broken.push(no);
        }
        Ok(())
    }

    /// Every row was read: what is not whole goes.
    pub(super) fn blobs_restored(&mut self) {
        for no in core::mem::take(&mut self.blobs.broken) {
            self.forget_blob(no);
        }
    }
}

impl Blobs {
    fn add(&mut self, no: u64, blob: Blob) {
        self.bytes = self.bytes.saturating_add(blob.size);
        self.by_id.insert(blob.sha256, no);
        self.by_no.insert(no, blob);
    }
}

fn check(new: &NewBlob, size: u64) -> Result<(), Refusal> {
    if size == 0 {
        return Err(Refusal::bad("the blob is empty"));
    }
    for (key, text) in [("name", &new.name), ("version", &new.version)] {
        if text.len() > TEXT_BYTES || text.chars().any(char::is_control) {
            return Err(Refusal::bad(format!("\"{key}\" is {TEXT_BYTES} bytes at most, without control characters")));
        }
    }
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    if !new.signature.is_empty() && (new.signature.len() != SIGNATURE_CHARS || !new.signature.bytes().all(is_base64)) {
        return Err(Refusal::bad("\"signature\" is no Base64 of the 64 bytes of an Ed25519 signature"));
    }
    Ok(())
}

/// The digest that an id is: 64 digits, small letters.
fn digest(id: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = id
        .as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests;
