//! What only one side of a connection may send.

use super::reason::DISCONNECT_OF_CLIENT;
use super::{Ack, DecodeError, Packet, ReasonCode};

/// The side of a connection that sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The side that sent CONNECT.
    Client,
    /// The side that answered it.
    Server,
}

impl Packet<'_> {
    /// The packet type, 1 to 15 (section 2.1.2).
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Connect(..) => 1,
            Self::ConnAck(..) => 2,
            Self::Publish(..) => 3,
            Self::PubAck(..) => 4,
            Self::PubRec(..) => 5,
            Self::PubRel(..) => 6,
            Self::PubComp(..) => 7,
            Self::Subscribe(..) => 8,
            Self::SubAck(..) => 9,
            Self::Unsubscribe(..) => 10,
            Self::UnsubAck(..) => 11,
            Self::PingReq => 12,
            Self::PingResp => 13,
            Self::Disconnect(..) => 14,
            Self::Auth(..) => 15,
        }
    }

    /// Whether `sender` may send this packet at all: its type, its reason code and its properties. [`super::decode`] reads
    /// what either side may send; the receiver asks this next.
    #[inline]
    pub fn check_sender(&self, sender: Sender) -> Result<(), DecodeError> {
        match (self, sender) {
            // [MQTT5-3.3.4-6]
            (Self::Publish(p), Sender::Client) if !p.properties.is_empty() => {
                if p.properties.subscription_identifier().is_some() {
                    return Err(DecodeError::PropertyOfOtherSide(0x0B));
                }
                Ok(())
            }
            (Self::Publish(_), _) => Ok(()),
            _ => check_other(self, sender),
        }
    }
}

fn check_other(packet: &Packet<'_>, sender: Sender) -> Result<(), DecodeError> {
    match (packet, sender) {
        (Packet::ConnAck(..) | Packet::SubAck(..) | Packet::UnsubAck(..) | Packet::PingResp, Sender::Client)
        | (Packet::Connect(..) | Packet::Subscribe(..) | Packet::Unsubscribe(..) | Packet::PingReq, Sender::Server) => {
            Err(DecodeError::PacketOfOtherSide(packet.kind()))
        }
        (Packet::PubAck(ack) | Packet::PubRec(ack), Sender::Client) => check_ack(ack),
        (Packet::Disconnect(p), Sender::Client) if !DISCONNECT_OF_CLIENT.contains(&p.reason.0) => {
            Err(DecodeError::ReasonCodeOfOtherSide(p.reason.0)) // Section 3.14.2.1
        }
        (Packet::Disconnect(p), Sender::Client) if p.properties.server_reference().is_some() => {
            Err(DecodeError::PropertyOfOtherSide(0x1C)) // Section 3.14.2.2.5
        }
        (Packet::Disconnect(p), Sender::Server) if p.reason == ReasonCode::DISCONNECT_WITH_WILL => {
            Err(DecodeError::ReasonCodeOfOtherSide(p.reason.0)) // Section 3.14.2.1
        }
        (Packet::Disconnect(p), Sender::Server) if p.properties.session_expiry_interval_secs().is_some() => {
            Err(DecodeError::PropertyOfOtherSide(0x11)) // [MQTT5-3.14.2-2]
        }
        // Section 3.15.2.1: only the server ends an exchange, only the client begins another.
        (Packet::Auth(p), Sender::Client) if p.reason == ReasonCode::SUCCESS => {
            Err(DecodeError::ReasonCodeOfOtherSide(p.reason.0))
        }
        (Packet::Auth(p), Sender::Server) if p.reason == ReasonCode::RE_AUTHENTICATE => {
            Err(DecodeError::ReasonCodeOfOtherSide(p.reason.0))
        }
        _ => Ok(()),
    }
}

/// Only the server knows that nobody subscribes (sections 3.4.2.1 and 3.5.2.1).
fn check_ack(ack: &Ack<'_>) -> Result<(), DecodeError> {
    if ack.reason == ReasonCode::NO_MATCHING_SUBSCRIBERS {
        return Err(DecodeError::ReasonCodeOfOtherSide(ack.reason.0));
    }
    Ok(())
}
