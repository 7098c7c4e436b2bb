//! The facts, and their byte form.

use super::bytes::{DecodeError, Reader, put_bytes, put_int};
use super::row::Table;
use super::{QueueIndex, SessionNo};

/// A message as it is stored and forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageRef<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Properties that are forwarded untouched, as MQTT 5 bytes without the length prefix.
    pub properties: &'a [u8],
    /// Application payload.
    pub payload: &'a [u8],
    /// Milliseconds since 1970 after which nobody may get it; 0: never expires.
    pub expires_at_ms: u64,
}

impl<'a> MessageRef<'a> {
    /// What a queue entry of this message counts towards byte limits.
    pub fn cost(&self) -> usize {
        self.topic.len() + self.properties.len() + self.payload.len()
    }

    /// Appends the byte form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.topic.as_bytes());
        put_bytes(out, self.properties);
        put_bytes(out, self.payload);
        put_int(out, self.expires_at_ms);
    }

    /// Reads one message.
    pub fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { topic: r.str()?, properties: r.bytes()?, payload: r.bytes()?, expires_at_ms: r.int()? })
    }
}

/// Who gets an enqueued message, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient<'a> {
    /// Whose queue.
    pub session: SessionNo,
    /// Where in it: the index after the last one given.
    pub index: QueueIndex,
    /// QoS of the delivery, 1 or 2.
    pub qos: u8,
    /// Retain flag of the delivery.
    pub retain: bool,
    /// Subscription Identifier properties of the delivery, as MQTT 5 property bytes (`0x0B` and integer, each).
    pub subscription_ids: &'a [u8],
}

impl<'a> Recipient<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_int(out, self.session.0);
        put_int(out, self.index.0);
        out.push(self.qos | u8::from(self.retain) << 2);
        put_bytes(out, self.subscription_ids);
    }

    /// Reads one recipient.
    pub fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let session = SessionNo(r.int()?);
        let index = QueueIndex(r.int()?);
        let flags = r.byte()?;
        Ok(Self { session, index, qos: flags & 3, retain: flags & 4 != 0, subscription_ids: r.bytes()? })
    }
}

/// A list of [`Recipient`]s in its byte form, so that no list is allocated to write one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipients<'a> {
    /// How many.
    pub count: u32,
    /// Made with [`encode_recipient`].
    pub bytes: &'a [u8],
}

/// Appends `recipient` to the bytes of a [`Recipients`].
pub fn encode_recipient(out: &mut Vec<u8>, recipient: &Recipient<'_>) {
    recipient.encode(out);
}

impl<'a> Recipients<'a> {
    /// The recipients, in the order given; ends early on bytes that are not a recipient.
    pub fn iter(&self) -> RecipientsIter<'a> {
        RecipientsIter { reader: Reader::new(self.bytes), left: self.count }
    }
}

impl<'a> IntoIterator for &Recipients<'a> {
    type Item = Recipient<'a>;
    type IntoIter = RecipientsIter<'a>;

    fn into_iter(self) -> RecipientsIter<'a> {
        self.iter()
    }
}

/// Iterates over [`Recipients`].
#[derive(Debug)]
pub struct RecipientsIter<'a> {
    reader: Reader<'a>,
    left: u32,
}

impl RecipientsIter<'_> {
    /// How many of the list's bytes the recipients given so far took.
    pub fn used(&self) -> usize {
        self.reader.used()
    }
}

impl<'a> Iterator for RecipientsIter<'a> {
    type Item = Recipient<'a>;

    fn next(&mut self) -> Option<Recipient<'a>> {
        self.left = self.left.checked_sub(1)?;
        Recipient::read(&mut self.reader).ok()
    }
}

/// State of one queue entry beyond "queued".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QueueState {
    /// To be sent, or sent and not answered.
    Queued,
    /// PUBREC arrived: the message itself is done, PUBREL is owed until PUBCOMP.
    Received,
    /// Done, but an entry before it is not.
    Acked,
}

/// One thing that must survive. The order within a batch, and of batches, is the order of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact<'a> {
    /// A persistent session began or changed; subscriptions and queue of that number stay as they are.
    Session {
        /// Its number.
        no: SessionNo,
        /// MQTT client identifier.
        client_id: &'a str,
        /// Whose it is.
        account: &'a str,
        /// Protocol level, 4 or 5.
        version: u8,
        /// Session Expiry Interval, seconds; `u32::MAX` never expires.
        expiry_secs: u32,
        /// When its connection ended, milliseconds since 1970; 0 while it is connected.
        disconnected_at_ms: u64,
        /// One past the last index ever sent to the client; meaningful while it is not connected.
        sent: QueueIndex,
    },
    /// The session is gone, with subscriptions, queue and packet identifiers.
    SessionEnd {
        /// Its number.
        no: SessionNo,
    },
    /// A subscription was made or replaced.
    Subscribe {
        /// Whose.
        no: SessionNo,
        /// Filter, with `$share/…` where shared.
        filter: &'a str,
        /// Option bits as in SUBSCRIBE.
        options: u8,
        /// Subscription Identifier, or 0.
        id: u32,
    },
    /// A subscription ended.
    Unsubscribe {
        /// Whose.
        no: SessionNo,
        /// Filter as subscribed.
        filter: &'a str,
    },
    /// A message entered the queues of `recipients`; stored once.
    Enqueue {
        /// The message.
        message: MessageRef<'a>,
        /// At least one.
        recipients: Recipients<'a>,
    },
    /// A queue entry is done.
    Acked {
        /// Whose queue.
        no: SessionNo,
        /// Which entry.
        index: QueueIndex,
    },
    /// PUBREC arrived for a QoS 2 entry.
    Received {
        /// Whose queue.
        no: SessionNo,
        /// Which entry.
        index: QueueIndex,
    },
    /// A QoS 2 PUBLISH with this packet identifier was accepted.
    InboundAdd {
        /// Whose.
        no: SessionNo,
        /// Packet identifier.
        packet_id: u16,
    },
    /// It was released (PUBREL).
    InboundRemove {
        /// Whose.
        no: SessionNo,
        /// Packet identifier.
        packet_id: u16,
    },
    /// A retained message was set for its topic.
    Retain {
        /// QoS it was published with.
        qos: u8,
        /// The account that published it.
        publisher: &'a str,
        /// The message.
        message: MessageRef<'a>,
    },
    /// A retained message was cleared.
    RetainClear {
        /// Its topic.
        topic: &'a str,
    },
    /// A will was set, or its due time changed. One will a client identifier.
    Will {
        /// Client identifier it belongs to.
        client_id: &'a str,
        /// The account that set it.
        account: &'a str,
        /// QoS 0, 1 or 2.
        qos: u8,
        /// Retain flag.
        retain: bool,
        /// Will Delay Interval, seconds.
        delay_secs: u32,
        /// When it is due, milliseconds since 1970; 0 while its connection lives.
        due_at_ms: u64,
        /// The session of the client, if it is persistent.
        session: Option<SessionNo>,
        /// The message; `expires_at_ms` holds the *interval* in milliseconds until it is published (0: none).
        message: MessageRef<'a>,
    },
    /// The will was published or dropped.
    WillClear {
        /// Client identifier.
        client_id: &'a str,
    },
    /// An account was made or changed.
    Account {
        /// Its name.
        name: &'a str,
        /// An encoding the account room owns.
        record: &'a [u8],
    },
    /// An account was removed.
    AccountRemove {
        /// Its name.
        name: &'a str,
    },
    /// A row was written or replaced.
    Put {
        /// Of which table.
        table: Table,
        /// First half of the key.
        a: u64,
        /// Second half.
        b: u64,
        /// An encoding that the room owns which owns the table.
        value: &'a [u8],
    },
    /// A row is gone.
    Del {
        /// Of which table.
        table: Table,
        /// First half of the key.
        a: u64,
        /// Second half.
        b: u64,
    },
    /// Rows of a paged or keyed table with this `a`, and a `b` below `below`, are gone.
    Trim {
        /// Of which table.
        table: Table,
        /// First half of the key.
        a: u64,
        /// The lowest `b` that stays.
        below: u64,
    },
    /// The time of day. Rows are as old as the last one before them (see [`super::Retention`]).
    Clock {
        /// Milliseconds since 1970.
        wall_ms: u64,
    },
}

impl<'a> Fact<'a> {
    /// Appends the byte form: a tag, then the fields in the order of their declaration.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Session { no, client_id, account, version, expiry_secs, disconnected_at_ms, sent } => {
                out.push(1);
                put_int(out, no.0);
                put_bytes(out, client_id.as_bytes());
                put_bytes(out, account.as_bytes());
                out.push(version);
                put_int(out, expiry_secs.into());
                put_int(out, disconnected_at_ms);
                put_int(out, sent.0);
            }
            Self::SessionEnd { no } => {
                out.push(2);
                put_int(out, no.0);
            }
            Self::Subscribe { no, filter, options, id } => {
                out.push(3);
                put_int(out, no.0);
                put_bytes(out, filter.as_bytes());
                out.push(options);
                put_int(out, id.into());
            }
            Self::Unsubscribe { no, filter } => {
                out.push(4);
                put_int(out, no.0);
                put_bytes(out, filter.as_bytes());
            }
            Self::Enqueue { message, recipients } => {
                out.push(5);
                message.encode(out);
                put_int(out, recipients.count.into());
                put_bytes(out, recipients.bytes);
            }
            Self::Acked { no, index } => {
                out.push(6);
                put_int(out, no.0);
                put_int(out, index.0);
            }
            Self::Received { no, index } => {
                out.push(7);
                put_int(out, no.0);
                put_int(out, index.0);
            }
            Self::InboundAdd { no, packet_id } => {
                out.push(8);
                put_int(out, no.0);
                put_int(out, packet_id.into());
            }
            Self::InboundRemove { no, packet_id } => {
                out.push(9);
                put_int(out, no.0);
                put_int(out, packet_id.into());
            }
            Self::Retain { qos, publisher, message } => {
                out.push(10);
                out.push(qos);
                put_bytes(out, publisher.as_bytes());
                message.encode(out);
            }
            Self::RetainClear { topic } => {
                out.push(11);
                put_bytes(out, topic.as_bytes());
            }
            Self::Will { client_id, account, qos, retain, delay_secs, due_at_ms, session, message } => {
                out.push(12);
                put_bytes(out, client_id.as_bytes());
                put_bytes(out, account.as_bytes());
                out.push(qos | u8::from(retain) << 2 | u8::from(session.is_some()) << 3);
                put_int(out, delay_secs.into());
                put_int(out, due_at_ms);
                put_int(out, session.map_or(0, |s| s.0));
                message.encode(out);
            }
            Self::WillClear { client_id } => {
                out.push(13);
                put_bytes(out, client_id.as_bytes());
            }
            Self::Account { name, record } => {
                out.push(14);
                put_bytes(out, name.as_bytes());
                put_bytes(out, record);
            }
            Self::AccountRemove { name } => {
                out.push(15);
                put_bytes(out, name.as_bytes());
            }
            Self::Put { table, a, b, value } => {
                out.push(16);
                out.push(table.0);
                put_int(out, a);
                put_int(out, b);
                put_bytes(out, value);
            }
            Self::Del { table, a, b } => {
                out.push(17);
                out.push(table.0);
                put_int(out, a);
                put_int(out, b);
            }
            Self::Trim { table, a, below } => {
                out.push(18);
                out.push(table.0);
                put_int(out, a);
                put_int(out, below);
            }
            Self::Clock { wall_ms } => {
                out.push(19);
                put_int(out, wall_ms);
            }
        }
    }

    /// Reads one fact from the front of `bytes`; also says how many bytes it took.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, usize), DecodeError> {
        let mut r = Reader::new(bytes);
        let fact = match r.byte()? {
            1 => Self::Session {
                no: SessionNo(r.int()?),
                client_id: r.str()?,
                account: r.str()?,
                version: r.byte()?,
                expiry_secs: read_u32(&mut r)?,
                disconnected_at_ms: r.int()?,
                sent: QueueIndex(r.int()?),
            },
            2 => Self::SessionEnd { no: SessionNo(r.int()?) },
            3 => {
                Self::Subscribe { no: SessionNo(r.int()?), filter: r.str()?, options: r.byte()?, id: read_u32(&mut r)? }
            }
            4 => Self::Unsubscribe { no: SessionNo(r.int()?), filter: r.str()? },
            5 => Self::Enqueue {
                message: MessageRef::read(&mut r)?,
                recipients: Recipients { count: read_u32(&mut r)?, bytes: r.bytes()? },
            },
            6 => Self::Acked { no: SessionNo(r.int()?), index: QueueIndex(r.int()?) },
            7 => Self::Received { no: SessionNo(r.int()?), index: QueueIndex(r.int()?) },
            8 => Self::InboundAdd { no: SessionNo(r.int()?), packet_id: read_u16(&mut r)? },
            9 => Self::InboundRemove { no: SessionNo(r.int()?), packet_id: read_u16(&mut r)? },
            10 => Self::Retain { qos: r.byte()?, publisher: r.str()?, message: MessageRef::read(&mut r)? },
            11 => Self::RetainClear { topic: r.str()? },
            12 => {
                let (client_id, account, flags) = (r.str()?, r.str()?, r.byte()?);
                let (delay_secs, due_at_ms, session) = (read_u32(&mut r)?, r.int()?, r.int()?);
                Self::Will {
                    client_id,
                    account,
                    qos: flags & 3,
                    retain: flags & 4 != 0,
                    delay_secs,
                    due_at_ms,
                    session: (flags & 8 != 0).then_some(SessionNo(session)),
                    message: MessageRef::read(&mut r)?,
                }
            }
            13 => Self::WillClear { client_id: r.str()? },
            14 => Self::Account { name: r.str()?, record: r.bytes()? },
            15 => Self::AccountRemove { name: r.str()? },
            16 => Self::Put { table: Table(r.byte()?), a: r.int()?, b: r.int()?, value: r.bytes()? },
            17 => Self::Del { table: Table(r.byte()?), a: r.int()?, b: r.int()? },
            18 => Self::Trim { table: Table(r.byte()?), a: r.int()?, below: r.int()? },
            19 => Self::Clock { wall_ms: r.int()? },
            tag => return Err(DecodeError::UnknownTag(tag)),
        };
        Ok((fact, r.used()))
    }
}

fn read_u32(r: &mut Reader<'_>) -> Result<u32, DecodeError> {
    u32::try_from(r.int()?).map_err(|_| DecodeError::IntegerTooLong)
}

fn read_u16(r: &mut Reader<'_>) -> Result<u16, DecodeError> {
    u16::try_from(r.int()?).map_err(|_| DecodeError::IntegerTooLong)
}

/// One queued message in a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageEntry<'a> {
    /// Its index.
    pub index: QueueIndex,
    /// QoS of the delivery.
    pub qos: u8,
    /// Retain flag of the delivery.
    pub retain: bool,
    /// PUBREC has arrived: only PUBREL is owed, and `message` is empty.
    pub received: bool,
    /// Subscription Identifier properties, as MQTT 5 property bytes.
    pub subscription_ids: &'a [u8],
    /// The message.
    pub message: MessageRef<'a>,
}

impl<'a> PageEntry<'a> {
    /// Appends the byte form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_int(out, self.index.0);
        out.push(self.qos | u8::from(self.retain) << 2 | u8::from(self.received) << 3);
        put_bytes(out, self.subscription_ids);
        self.message.encode(out);
    }

    /// Reads one entry from the front of `bytes`; also says how many bytes it took.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, usize), DecodeError> {
        let mut r = Reader::new(bytes);
        let index = QueueIndex(r.int()?);
        let flags = r.byte()?;
        let entry = Self {
            index,
            qos: flags & 3,
            retain: flags & 4 != 0,
            received: flags & 8 != 0,
            subscription_ids: r.bytes()?,
            message: MessageRef::read(&mut r)?,
        };
        Ok((entry, r.used()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fact: Fact<'_>) {
        let mut bytes = vec![];
        fact.encode(&mut bytes);
        assert_eq!(Fact::decode(&bytes), Ok((fact, bytes.len())));
        for cut in 0..bytes.len() {
            assert_eq!(Fact::decode(&bytes[..cut]), Err(DecodeError::Truncated), "cut at {cut}");
        }
    }

    #[test]
    fn every_fact_reads_back_and_every_cut_is_seen() {
        let message = MessageRef { topic: "a/b", properties: &[1, 1], payload: b"hello", expires_at_ms: u64::MAX };
        let mut list = vec![];
        let one = Recipient {
            session: SessionNo(7),
            index: QueueIndex(300),
            qos: 2,
            retain: true,
            subscription_ids: &[11, 5],
        };
        encode_recipient(&mut list, &one);
        encode_recipient(&mut list, &one);
        let recipients = Recipients { count: 2, bytes: &list };
        assert_eq!(recipients.iter().collect::<Vec<_>>(), [one, one]);
        let no = SessionNo(1 << 40);
        check(Fact::Session {
            no,
            client_id: "c",
            account: "a",
            version: 5,
            expiry_secs: u32::MAX,
            disconnected_at_ms: 9,
            sent: QueueIndex(4),
        });
        check(Fact::SessionEnd { no });
        check(Fact::Subscribe { no, filter: "a/#", options: 0x2D, id: 268_435_455 });
        check(Fact::Unsubscribe { no, filter: "a/#" });
        check(Fact::Enqueue { message, recipients });
        check(Fact::Acked { no, index: QueueIndex(5) });
        check(Fact::Received { no, index: QueueIndex(5) });
        check(Fact::InboundAdd { no, packet_id: 65535 });
        check(Fact::InboundRemove { no, packet_id: 1 });
        check(Fact::Retain { qos: 1, publisher: "p", message });
        check(Fact::RetainClear { topic: "t" });
        for session in [None, Some(no)] {
            check(Fact::Will {
                client_id: "c",
                account: "a",
                qos: 2,
                retain: true,
                delay_secs: 9,
                due_at_ms: 1,
                session,
                message,
            });
        }
        check(Fact::WillClear { client_id: "c" });
        check(Fact::Account { name: "n", record: &[1, 2, 3] });
        check(Fact::AccountRemove { name: "n" });
        let table = Table(200);
        check(Fact::Put { table, a: u64::MAX, b: 1 << 33, value: b"row" });
        check(Fact::Del { table, a: 300, b: 0 });
        check(Fact::Trim { table, a: 300, below: u64::MAX });
        check(Fact::Clock { wall_ms: 1 << 41 });
    }
}
