//! The link over a transport: buffers, records, and what may be cancelled.

use crate::Config;
use crate::cursor::Reader;
use crate::engine::{Handshake, KeyChange, MESSAGE_HEADER};
use crate::error::{Offence, TlsError};
use crate::hello;
use crate::record::{ALERT, APPLICATION, CHANGE_CIPHER_SPEC, HANDSHAKE, HEADER, Keys, OVERHEAD, TAG, TEXT_MAX};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use embassy_futures::yield_now;
use embedded_io_async::{Error, ErrorType, Read, Write};

/// Records without content that a server may send before it has to send something.
const IDLE_RECORDS_MAX: u8 = 32;
/// `change_cipher_spec` records of a handshake, which mean nothing (RFC 8446 s5).
const CHANGES_MAX: u8 = 2;
/// Smallest buffers.
const BUFFER_MIN: usize = 300;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

/// Memory for a link: `RX` bytes for what comes, `TX` for what goes. It can be used again when the link has ended.
pub struct TlsBuffers<const RX: usize, const TX: usize> {
    rx: [u8; RX],
    tx: [u8; TX],
}

impl<const RX: usize, const TX: usize> TlsBuffers<RX, TX> {
    /// Empty buffers. In a `static ConstStaticCell` they never lie on the stack.
    pub const fn new() -> Self {
        Self { rx: [0; RX], tx: [0; TX] }
    }

    /// The two buffers, for [`Tls::open`].
    pub fn halves(&mut self) -> (&mut [u8], &mut [u8]) {
        (&mut self.rx, &mut self.tx)
    }
}

impl<const RX: usize, const TX: usize> Default for TlsBuffers<RX, TX> {
    fn default() -> Self {
        Self::new()
    }
}

/// The state of an open link to a server that has proved who it is, without the transport: that is handed in.
pub struct Tls<'b> {
    inbound: Inbound<'b>,
    outbound: Outbound<'b>,
    signals: Signals,
}

/// What the half that reads tells the other.
#[derive(Default)]
struct Signals {
    /// The server wants the keys of this side changed.
    rekey: AtomicBool,
    /// The link has failed: nothing more may go out (RFC 8446 s6.2).
    failed: AtomicBool,
}

/// The half that reads.
pub struct TlsReader<'l, 'b, R> {
    socket: R,
    inbound: &'l mut Inbound<'b>,
    signals: &'l Signals,
}

/// The half that writes.
pub struct TlsWriter<'l, 'b, W> {
    socket: W,
    outbound: &'l mut Outbound<'b>,
    signals: &'l Signals,
}

impl<'b> Tls<'b> {
    /// Shakes hands over a transport that is connected. `entropy` fills bytes with true randomness. Other tasks run between the steps;
    /// the longest takes two multiplications on the curve. Limit the time from outside.
    pub async fn open<R: Read, W: Write>(
        reader: &mut R,
        writer: &mut W,
        config: &Config<'_>,
        rx: &'b mut [u8],
        tx: &'b mut [u8],
        entropy: impl FnMut(&mut [u8]),
    ) -> Result<Self, TlsError> {
        if rx.len() < BUFFER_MIN || tx.len() < BUFFER_MIN {
            return Err(TlsError::BuffersTooSmall);
        }
        let mut inbound = Inbound::new(rx);
        let mut outbound = Outbound::new(tx);
        let mut handshake = Handshake::new(config, inbound.buffer.len(), entropy)?;
        yield_now().await;
        match shake_hands(&mut handshake, &mut inbound, &mut outbound, reader, writer).await {
            Ok(()) => {
                inbound.keys = handshake.read.take();
                inbound.certificate_wanted = handshake.certificate_wanted;
                outbound.keys = handshake.write.take();
                outbound.text_max = outbound.text_max.min(handshake.text_max);
                Ok(Self { inbound, outbound, signals: Signals::default() })
            }
            Err(error) => {
                if let Some(code) = error.alert() {
                    outbound.keys = handshake.write.take();
                    // The reason is the error, whether the server hears of it or not.
                    let _ = outbound.send_alert(writer, code).await;
                }
                Err(error)
            }
        }
    }

    /// Two halves that work at the same time, over those of the transport.
    pub fn split<R, W>(&mut self, reader: R, writer: W) -> (TlsReader<'_, 'b, R>, TlsWriter<'_, 'b, W>) {
        (
            TlsReader { socket: reader, inbound: &mut self.inbound, signals: &self.signals },
            TlsWriter { socket: writer, outbound: &mut self.outbound, signals: &self.signals },
        )
    }
}

/// A link together with its transport.
pub struct TlsLink<'b, R, W> {
    tls: Tls<'b>,
    reader: R,
    writer: W,
}

impl<'b, R: Read, W: Write> TlsLink<'b, R, W> {
    /// As [`Tls::open`].
    pub async fn open<const RX: usize, const TX: usize>(
        mut reader: R,
        mut writer: W,
        config: &Config<'_>,
        buffers: &'b mut TlsBuffers<RX, TX>,
        entropy: impl FnMut(&mut [u8]),
    ) -> Result<Self, TlsError> {
        let TlsBuffers { rx, tx } = buffers;
        let tls = Tls::open(&mut reader, &mut writer, config, rx, tx, entropy).await?;
        Ok(Self { tls, reader, writer })
    }

    /// Two halves that work at the same time.
    pub fn split(&mut self) -> (TlsReader<'_, 'b, &mut R>, TlsWriter<'_, 'b, &mut W>) {
        self.tls.split(&mut self.reader, &mut self.writer)
    }

    /// Says goodbye. The transport is the caller's to close.
    pub async fn close(mut self) -> Result<(), TlsError> {
        self.flush().await?;
        self.tls.outbound.send_alert(&mut self.writer, CLOSE_NOTIFY).await
    }

    /// Reads at least a byte. 0 when the server has said goodbye.
    pub async fn read(&mut self, out: &mut [u8]) -> Result<usize, TlsError> {
        self.tls.inbound.read(&mut self.reader, &self.tls.signals, out).await
    }

    /// Takes some of the bytes, at least one. They go out when a record is full, and with [`Self::flush`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<usize, TlsError> {
        self.tls.outbound.write(&mut self.writer, &self.tls.signals, bytes).await
    }

    /// Sends what was taken.
    pub async fn flush(&mut self) -> Result<(), TlsError> {
        self.tls.outbound.flush(&mut self.writer, &self.tls.signals).await
    }
}

#[cfg(test)]
impl<R, W> TlsLink<'_, R, W> {
    /// As if all but one of the records that one key may seal had gone out.
    pub(crate) fn wear_out(&mut self) {
        self.tls.outbound.keys.as_mut().expect("an open link has keys").wear_out();
    }
}

async fn shake_hands<R: Read, W: Write>(
    handshake: &mut Handshake<'_>,
    inbound: &mut Inbound<'_>,
    outbound: &mut Outbound<'_>,
    reader: &mut R,
    writer: &mut W,
) -> Result<(), TlsError> {
    outbound.ready = handshake.hello(outbound.buffer)?;
    outbound.drain(writer).await?;
    flush_socket(writer).await?;
    let mut changes = 0;
    while !handshake.is_heard() {
        while let Some(length) = inbound.message_length()? {
            let change = handshake.message(inbound.buffer.get(..length).unwrap_or_default())?;
            inbound.consume(length);
            if change == KeyChange::Changed && inbound.messages != 0 {
                return Err(TlsError::BadServer(Offence::AcrossKeys));
            }
            yield_now().await;
        }
        if handshake.is_heard() {
            break;
        }
        inbound.fill(reader).await?;
        match inbound.take_record(handshake.read.as_mut())? {
            Record::Messages => {}
            Record::Change if changes < CHANGES_MAX => changes += 1,
            Record::Change => return Err(TlsError::BadServer(Offence::Flood)),
            Record::Alert(code) => return Err(TlsError::Alert(code)),
            Record::Text(_) => return Err(TlsError::BadServer(Offence::UnexpectedRecord)),
        }
    }
    while let Some(length) = handshake.transmit(outbound.buffer)? {
        outbound.ready = length;
        outbound.drain(writer).await?;
        yield_now().await;
    }
    flush_socket(writer).await
}

/// What a record was.
enum Record {
    /// It added to the handshake messages at the front of the buffer.
    Messages,
    /// Text, at this place of the buffer.
    Text(Range<usize>),
    Alert(u8),
    /// `change_cipher_spec`.
    Change,
}

/// What comes. The buffer holds, one after the other: handshake messages that are not complete, and the record being read.
struct Inbound<'b> {
    buffer: &'b mut [u8],
    /// Bytes of messages at the front.
    messages: usize,
    /// Bytes of the record behind them.
    filled: usize,
    /// Text nobody has taken yet.
    text: Range<usize>,
    /// What is still to come of a ticket that is thrown away.
    ticket: usize,
    keys: Option<Keys>,
    certificate_wanted: bool,
    heard_text: bool,
    idle: u8,
    ended: Option<Ended>,
}

#[derive(Clone, Copy)]
enum Ended {
    /// The server said goodbye.
    Orderly,
    /// An error was told.
    Failed,
}

impl<'b> Inbound<'b> {
    fn new(buffer: &'b mut [u8]) -> Self {
        Self {
            buffer,
            messages: 0,
            filled: 0,
            text: 0..0,
            ticket: 0,
            keys: None,
            certificate_wanted: false,
            heard_text: false,
            idle: 0,
            ended: None,
        }
    }

    /// Length of the record's content, once its header is there.
    fn content_length(&self) -> Result<Option<usize>, TlsError> {
        if self.filled < HEADER {
            return Ok(None);
        }
        let mut header = Reader(self.buffer.get(self.messages..).unwrap_or_default());
        header.take(3)?;
        let length = header.number(2)?;
        let end = self.messages + HEADER + length;
        if end > self.buffer.len() || length > TEXT_MAX + 1 + TAG { Err(TlsError::TooLarge) } else { Ok(Some(length)) }
    }

    /// Reads until a whole record is there. Cancelled, it goes on where it was.
    async fn fill(&mut self, socket: &mut impl Read) -> Result<(), TlsError> {
        loop {
            let target = self.content_length()?.map_or(HEADER, |length| HEADER + length);
            // With a header there is a length: one that is 0 is for `take_record` to refuse.
            if self.filled == target {
                return Ok(());
            }
            let room =
                self.buffer.get_mut(self.messages + self.filled..self.messages + target).ok_or(TlsError::TooLarge)?;
            match socket.read(room).await.map_err(|error| TlsError::Socket(error.kind()))? {
                0 => return Err(TlsError::Cut),
                read => self.filled += read,
            }
        }
    }

    /// Takes the record apart that `fill` has read.
    fn take_record(&mut self, keys: Option<&mut Keys>) -> Result<Record, TlsError> {
        let unexpected = TlsError::BadServer(Offence::UnexpectedRecord);
        let record = self.buffer.get_mut(self.messages..self.messages + self.filled).ok_or(TlsError::TooLarge)?;
        self.filled = 0;
        let (header, content) = record.split_first_chunk_mut::<HEADER>().ok_or(TlsError::TooLarge)?;
        let (kind, length) = match (header[0], keys) {
            (CHANGE_CIPHER_SPEC, _) if content == [1] => return Ok(Record::Change),
            (APPLICATION, Some(keys)) => keys.open(*header, content)?,
            (kind @ (HANDSHAKE | ALERT), None) => (kind, content.len()),
            _ => return Err(unexpected),
        };
        let start = self.messages + HEADER;
        match kind {
            _ if length > TEXT_MAX => Err(TlsError::TooLarge),
            HANDSHAKE if length == 0 => Err(TlsError::BadServer(Offence::EmptyRecord)),
            HANDSHAKE => {
                self.buffer.copy_within(start..start + length, self.messages);
                self.messages += length;
                Ok(Record::Messages)
            }
            ALERT => match self.buffer.get(start..start + length) {
                Some([_, code]) => Ok(Record::Alert(*code)),
                _ => Err(TlsError::BadServer(Offence::Malformed)),
            },
            // A message must not be interrupted (RFC 8446 s5.1).
            APPLICATION if self.messages == 0 && self.ticket == 0 => Ok(Record::Text(start..start + length)),
            _ => Err(unexpected),
        }
    }

    /// Length of the first message, if it is complete.
    fn message_length(&self) -> Result<Option<usize>, TlsError> {
        if self.messages < MESSAGE_HEADER {
            return Ok(None);
        }
        let mut header = Reader(self.buffer.get(1..MESSAGE_HEADER).unwrap_or_default());
        let length = MESSAGE_HEADER + header.number(3)?;
        if length > self.buffer.len() {
            return Err(TlsError::TooLarge);
        }
        Ok((length <= self.messages).then_some(length))
    }

    /// Forgets the first message.
    fn consume(&mut self, length: usize) {
        self.buffer.copy_within(length..self.messages, 0);
        self.messages -= length;
    }

    async fn read(&mut self, socket: &mut impl Read, signals: &Signals, out: &mut [u8]) -> Result<usize, TlsError> {
        match self.ended {
            Some(Ended::Orderly) => return Ok(0),
            Some(Ended::Failed) => return Err(TlsError::Closed),
            None => {}
        }
        let read = self.read_open(socket, &signals.rekey, out).await;
        match read {
            Err(_) => {
                self.ended = Some(Ended::Failed);
                signals.failed.store(true, Ordering::Release);
            }
            Ok(0) if !out.is_empty() => self.ended = Some(Ended::Orderly),
            Ok(_) => {}
        }
        read
    }

    async fn read_open(
        &mut self,
        socket: &mut impl Read,
        rekey: &AtomicBool,
        out: &mut [u8],
    ) -> Result<usize, TlsError> {
        while self.text.is_empty() {
            if out.is_empty() {
                return Ok(0);
            }
            self.fill(socket).await?;
            let mut keys = self.keys.take();
            let record = self.take_record(keys.as_mut());
            self.keys = keys;
            match record? {
                Record::Text(text) if !text.is_empty() => {
                    self.text = text;
                    self.heard_text = true;
                    self.idle = 0;
                }
                Record::Alert(CLOSE_NOTIFY) => return Ok(0),
                Record::Alert(USER_CANCELED) | Record::Text(_) => self.count_idle()?,
                Record::Alert(code) => return Err(self.refusal(code)),
                Record::Change => return Err(TlsError::BadServer(Offence::UnexpectedRecord)),
                Record::Messages => {
                    self.count_idle()?;
                    self.take_messages(rekey)?;
                }
            }
        }
        let length = self.text.len().min(out.len());
        let from = self.buffer.get(self.text.start..self.text.start + length).unwrap_or_default();
        for (to, from) in out.iter_mut().zip(from) {
            *to = *from;
        }
        self.text.start += length;
        Ok(length)
    }

    /// What a server may still say when the handshake is over.
    fn take_messages(&mut self, rekey: &AtomicBool) -> Result<(), TlsError> {
        loop {
            let gone = self.ticket.min(self.messages);
            self.consume(gone);
            self.ticket -= gone;
            // A ticket is to resume with, which this library does not do. It may be longer than the buffer.
            if let Some([NEW_SESSION_TICKET, length @ ..]) = self.buffer.get(..self.messages.min(MESSAGE_HEADER))
                && length.len() == 3
            {
                self.ticket = MESSAGE_HEADER + Reader(length).number(3)?;
                continue;
            }
            let Some(length) = self.message_length()? else { return Ok(()) };
            let message = self.buffer.get(..length).unwrap_or_default();
            match message {
                [KEY_UPDATE, _, _, _, wanted @ (0 | 1)] => {
                    if *wanted == 1 {
                        rekey.store(true, Ordering::Release);
                    }
                    self.keys = self.keys.as_ref().map(Keys::next);
                    self.consume(length);
                    if self.messages != 0 {
                        return Err(TlsError::BadServer(Offence::AcrossKeys));
                    }
                }
                [KEY_UPDATE, ..] => return Err(TlsError::BadServer(Offence::Malformed)),
                _ => return Err(TlsError::BadServer(Offence::UnexpectedMessage)),
            }
        }
    }

    fn count_idle(&mut self) -> Result<(), TlsError> {
        self.idle += 1;
        if self.idle > IDLE_RECORDS_MAX { Err(TlsError::BadServer(Offence::Flood)) } else { Ok(()) }
    }

    /// What an alert means. A server looks at the board's certificate when the board believes the link open, so the first thing read
    /// tells.
    fn refusal(&self, code: u8) -> TlsError {
        match code {
            42..=46 | 48 | 49 | 51 | 116 if self.certificate_wanted && !self.heard_text => {
                TlsError::RefusedClientCertificate(code)
            }
            _ => TlsError::Alert(code),
        }
    }
}

/// What goes.
struct Outbound<'b> {
    /// A record that is sealed (`sent..ready`), or text for the next (`text` bytes behind the place of its header); never both.
    buffer: &'b mut [u8],
    sent: usize,
    ready: usize,
    text: usize,
    /// How long the text of a record may be.
    text_max: usize,
    keys: Option<Keys>,
}

impl<'b> Outbound<'b> {
    fn new(buffer: &'b mut [u8]) -> Self {
        let text_max = buffer.len().saturating_sub(OVERHEAD).min(TEXT_MAX);
        Self { buffer, sent: 0, ready: 0, text: 0, text_max, keys: None }
    }

    /// Sends what is sealed. Cancelled, it goes on where it was.
    async fn drain(&mut self, socket: &mut impl Write) -> Result<(), TlsError> {
        while self.sent < self.ready {
            let rest = self.buffer.get(self.sent..self.ready).unwrap_or_default();
            match socket.write(rest).await.map_err(|error| TlsError::Socket(error.kind()))? {
                0 => return Err(TlsError::Cut),
                sent => self.sent += sent,
            }
        }
        (self.sent, self.ready) = (0, 0);
        Ok(())
    }

    fn seal(&mut self, kind: u8, length: usize) -> Result<(), TlsError> {
        let keys = self.keys.as_mut().ok_or(TlsError::Closed)?;
        self.ready = keys.seal(kind, self.buffer, length)?;
        self.text = 0;
        Ok(())
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        for (to, from) in self.buffer.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }

    /// Sends what is sealed, and changes the keys if it is time to (RFC 8446 s4.6.3).
    async fn make_room(&mut self, socket: &mut impl Write, signals: &Signals) -> Result<(), TlsError> {
        if signals.failed.load(Ordering::Acquire) {
            return Err(TlsError::Closed);
        }
        self.drain(socket).await?;
        let worn_out = self.keys.as_ref().is_some_and(Keys::worn_out);
        if self.text == 0 && (signals.rekey.load(Ordering::Acquire) || worn_out) {
            signals.rekey.store(false, Ordering::Release);
            self.put(HEADER, &[KEY_UPDATE, 0, 0, 1, 0]);
            self.seal(HANDSHAKE, 5)?;
            self.keys = self.keys.as_ref().map(Keys::next);
            self.drain(socket).await?;
        }
        Ok(())
    }

    async fn write(&mut self, socket: &mut impl Write, signals: &Signals, bytes: &[u8]) -> Result<usize, TlsError> {
        self.make_room(socket, signals).await?;
        let room = self.text_max - self.text;
        let length = room.min(bytes.len());
        self.put(HEADER + self.text, bytes.get(..length).unwrap_or_default());
        self.text += length;
        if length == room {
            self.seal(APPLICATION, self.text)?;
        }
        Ok(length)
    }

    async fn flush(&mut self, socket: &mut impl Write, signals: &Signals) -> Result<(), TlsError> {
        self.make_room(socket, signals).await?;
        if self.text > 0 {
            self.seal(APPLICATION, self.text)?;
            self.drain(socket).await?;
        }
        flush_socket(socket).await
    }

    async fn send_alert(&mut self, socket: &mut impl Write, code: u8) -> Result<(), TlsError> {
        // A warning if it is a goodbye, else fatal.
        let level = if code == CLOSE_NOTIFY { 1 } else { 2 };
        self.drain(socket).await?;
        if self.keys.is_some() {
            self.put(HEADER, &[level, code]);
            self.seal(ALERT, 2)?;
        } else {
            self.ready = hello::write_alert(self.buffer, code)?;
        }
        self.drain(socket).await?;
        flush_socket(socket).await
    }
}

async fn flush_socket(socket: &mut impl Write) -> Result<(), TlsError> {
    socket.flush().await.map_err(|error| TlsError::Socket(error.kind()))
}

impl<R, W> ErrorType for TlsLink<'_, R, W> {
    type Error = TlsError;
}

impl<R: Read, W: Write> Read for TlsLink<'_, R, W> {
    async fn read(&mut self, out: &mut [u8]) -> Result<usize, TlsError> {
        TlsLink::read(self, out).await
    }
}

impl<R: Read, W: Write> Write for TlsLink<'_, R, W> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, TlsError> {
        TlsLink::write(self, bytes).await
    }

    async fn flush(&mut self) -> Result<(), TlsError> {
        TlsLink::flush(self).await
    }
}

impl<R> ErrorType for TlsReader<'_, '_, R> {
    type Error = TlsError;
}

impl<R: Read> Read for TlsReader<'_, '_, R> {
    async fn read(&mut self, out: &mut [u8]) -> Result<usize, TlsError> {
        self.inbound.read(&mut self.socket, self.signals, out).await
    }
}

impl<W> ErrorType for TlsWriter<'_, '_, W> {
    type Error = TlsError;
}

impl<W: Write> Write for TlsWriter<'_, '_, W> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, TlsError> {
        self.outbound.write(&mut self.socket, self.signals, bytes).await
    }

    async fn flush(&mut self) -> Result<(), TlsError> {
        self.outbound.flush(&mut self.socket, self.signals).await
    }
}
