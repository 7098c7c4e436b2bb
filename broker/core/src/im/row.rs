//! The rows of the messaging rooms: which table holds what, and their bytes.
//!
//! Every row begins with a version byte, so that a later form can be told apart.

use crate::store::Table;
use crate::store::bytes::{DecodeError, Reader, put_bytes, put_int};

/// (account, 0) -> name, kind, profile.
pub(crate) const ACCOUNT: Table = Table(1);
/// (account, peer) -> contact.
pub(crate) const CONTACT: Table = Table(2);
/// (conversation, 0) -> what it is: two accounts, or the name and settings of a group or channel.
pub(crate) const CONV: Table = Table(3);
/// (conversation, 0) -> its last seq, and for a direct one both marks.
pub(crate) const HEAD: Table = Table(4);
/// (conversation, account) -> marks and role of a member of a group.
pub(crate) const MEMBER: Table = Table(5);
/// (account, number of the terminal) -> client identifier, place, level.
pub(crate) const TERMINAL: Table = Table(6);
/// (account, 0) -> end and floor of the mailbox.
pub(crate) const MAILBOX: Table = Table(7);
/// (device, number of the command) -> command.
pub(crate) const COMMAND: Table = Table(8);
/// (device, 0) -> reported and desired state; (device, 1) -> description.
pub(crate) const STATE: Table = Table(9);
/// (channel, entry) -> announcement.
pub(crate) const ANNOUNCEMENT: Table = Table(10);
/// (conversation, seq) -> when a message expires that nobody has taken yet.
pub(crate) const EXPIRY: Table = Table(11);
/// (hash of a pairing code, 0) -> pairing code.
pub(crate) const PAIRING: Table = Table(12);
/// (account * 16 + terminal, conversation) -> place in a log that is followed (large groups, channels).
pub(crate) const PLACE: Table = Table(13);
/// (account, day since 1970) -> first position of that day, 8 bytes little-endian.
pub(crate) const MAIL_DAY: Table = Table(14);
/// (number of the blob, 0) -> what it is and who may read it; (0, 0) -> the number that the next one gets.
pub(crate) const BLOB: Table = Table(15);
/// (conversation, seq) -> message.
pub(crate) const BODY: Table = Table(128);
/// (account, pos) -> mailbox entry.
pub(crate) const MAIL: Table = Table(129);
/// (number of the blob, number of the piece) -> its bytes.
pub(crate) const BLOB_PIECE: Table = Table(130);
/// (account, hash of terminal and client id) -> what became of it.
pub(crate) const DEDUP: Table = Table(192);

/// Writes a row.
#[derive(Debug, Default)]
pub(crate) struct RowWriter(pub(crate) Vec<u8>);

impl RowWriter {
    /// Begins a row of this version.
    pub(crate) fn new(version: u8) -> Self {
        Self(vec![version])
    }

    pub(crate) fn int(&mut self, value: u64) -> &mut Self {
        put_int(&mut self.0, value);
        self
    }

    pub(crate) fn flag(&mut self, value: bool) -> &mut Self {
        self.0.push(u8::from(value));
        self
    }

    pub(crate) fn byte(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(crate) fn str(&mut self, value: &str) -> &mut Self {
        put_bytes(&mut self.0, value.as_bytes());
        self
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        put_bytes(&mut self.0, value);
        self
    }
}

/// Reads a row; the version must be 1 as long as there is one form of each.
pub(crate) fn reader(value: &[u8]) -> Result<Reader<'_>, DecodeError> {
    let mut r = Reader::new(value);
    match r.byte()? {
        1 => Ok(r),
        other => Err(DecodeError::UnknownTag(other)),
    }
}

/// A number that fits 32 bits.
pub(crate) fn read_u32(r: &mut Reader<'_>) -> Result<u32, DecodeError> {
    u32::try_from(r.int()?).map_err(|_| DecodeError::IntegerTooLong)
}

/// Yes or no.
pub(crate) fn read_flag(r: &mut Reader<'_>) -> Result<bool, DecodeError> {
    Ok(r.byte()? != 0)
}
