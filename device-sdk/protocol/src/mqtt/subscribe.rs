//! Filters of SUBSCRIBE and UNSUBSCRIBE, and their options.

use super::{DecodeError, QoS, Version};
use crate::cursor::{Reader, Sink};

/// Options of one subscription (MQTT 5.0 section 3.8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// Maximum QoS.
    pub qos: QoS,
    /// No Local: own messages are not delivered.
    pub no_local: bool,
    /// Retain As Published: the retain flag is forwarded.
    pub retain_as_published: bool,
    /// Which retained messages are sent when the subscription is made.
    pub retain_handling: RetainHandling,
}

/// Retain Handling (5.0); 3.1.1 always means [`RetainHandling::SendAtSubscribe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// All that match.
    SendAtSubscribe = 0,
    /// All that match, if the subscription did not exist before.
    SendIfNew = 1,
    /// None.
    DoNotSend = 2,
}

impl SubscriptionOptions {
    /// All 3.1.1 knows: a maximum QoS.
    pub const fn at_most(qos: QoS) -> Self {
        Self { qos, no_local: false, retain_as_published: false, retain_handling: RetainHandling::SendAtSubscribe }
    }

    /// The option byte.
    pub const fn to_bits(self) -> u8 {
        self.qos as u8
            | (self.no_local as u8) << 2
            | (self.retain_as_published as u8) << 3
            | (self.retain_handling as u8) << 4
    }

    /// From the option byte; reserved bits must be 0 [MQTT5-3.8.3-5] [MQTT3-3.8.3-4].
    pub const fn from_bits(bits: u8, version: Version) -> Result<Self, DecodeError> {
        let reserved = match version {
            Version::V311 => 0xFC,
            Version::V5 => 0xC0,
        };
        if bits & reserved != 0 {
            return Err(DecodeError::BadSubscriptionOptions);
        }
        let retain_handling = match bits >> 4 & 3 {
            0 => RetainHandling::SendAtSubscribe,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(DecodeError::SubscriptionOptionOutOfRange),
        };
        match QoS::from_bits(bits & 3) {
            Some(qos) => Ok(Self { qos, no_local: bits & 4 != 0, retain_as_published: bits & 8 != 0, retain_handling }),
            None => Err(DecodeError::SubscriptionOptionOutOfRange),
        }
    }
}

/// The filters of a SUBSCRIBE: at least one, checked when they were read.
///
/// That a filter is well formed as a *filter* is not checked here: the server answers that in SUBACK.
#[derive(Clone, Copy, Debug)]
pub struct SubscribeFilters<'a>(List<'a, (&'a str, SubscriptionOptions)>);

/// The filters of an UNSUBSCRIBE: at least one.
#[derive(Clone, Copy, Debug)]
pub struct UnsubscribeFilters<'a>(List<'a, &'a str>);

#[derive(Clone, Copy, Debug)]
enum List<'a, T> {
    Raw(&'a [u8], Version),
    Given(&'a [T]),
}

impl<'a> SubscribeFilters<'a> {
    /// Filters to send.
    pub const fn from_slice(filters: &'a [(&'a str, SubscriptionOptions)]) -> Self {
        Self(List::Given(filters))
    }

    pub(super) fn read(raw: &'a [u8], version: Version) -> Result<Self, DecodeError> {
        let mut r = Reader::new(raw);
        if r.is_empty() {
            return Err(DecodeError::NoFilters);
        }
        while !r.is_empty() {
            read_one(&mut r, version)?;
        }
        Ok(Self(List::Raw(raw, version)))
    }

    /// Filters and options in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, SubscriptionOptions)> + use<'a> {
        let (raw, version, given) = match self.0 {
            List::Raw(raw, version) => (raw, version, &[][..]),
            List::Given(given) => (&[][..], Version::V5, given),
        };
        let mut r = Reader::new(raw);
        let read = core::iter::from_fn(move || if r.is_empty() { None } else { read_one(&mut r, version).ok() });
        read.chain(given.iter().copied())
    }

    pub(super) fn encode(&self, version: Version, out: &mut impl Sink) {
        for (filter, options) in self.iter() {
            out.put_prefixed(filter.as_bytes());
            out.put_u8(match version {
                Version::V311 => options.qos as u8,
                Version::V5 => options.to_bits(),
            });
        }
    }
}

fn read_one<'a>(r: &mut Reader<'a>, version: Version) -> Result<(&'a str, SubscriptionOptions), DecodeError> {
    Ok((read_filter(r)?, SubscriptionOptions::from_bits(r.u8()?, version)?))
}

/// A filter is a string [MQTT5-3.8.3-1] [MQTT5-3.10.3-1] [MQTT3-3.8.3-1] [MQTT3-3.10.3-1] of at least one character
/// [MQTT5-4.7.3-1] [MQTT3-4.7.3-1].
fn read_filter<'a>(r: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let filter = r.string()?;
    if filter.is_empty() { Err(DecodeError::BadFilter) } else { Ok(filter) }
}

impl<'a> UnsubscribeFilters<'a> {
    /// Filters to send.
    pub const fn from_slice(filters: &'a [&'a str]) -> Self {
        Self(List::Given(filters))
    }

    pub(super) fn read(raw: &'a [u8], version: Version) -> Result<Self, DecodeError> {
        let mut r = Reader::new(raw);
        if r.is_empty() {
            return Err(DecodeError::NoFilters);
        }
        while !r.is_empty() {
            read_filter(&mut r)?;
        }
        Ok(Self(List::Raw(raw, version)))
    }

    /// Filters in their order.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let (raw, given) = match self.0 {
            List::Raw(raw, _) => (raw, &[][..]),
            List::Given(given) => (&[][..], given),
        };
        let mut r = Reader::new(raw);
        let read = core::iter::from_fn(move || if r.is_empty() { None } else { read_filter(&mut r).ok() });
        read.chain(given.iter().copied())
    }
}

impl PartialEq for SubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscribeFilters<'_> {}

impl PartialEq for UnsubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UnsubscribeFilters<'_> {}
