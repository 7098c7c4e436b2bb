//! What only one side may send.

use crate::whole;
use parlor_protocol::mqtt::{DecodeError as E, Sender, Version::V5};

#[test]
fn packets_properties_and_reason_codes_of_one_side() {
    use Sender::{Client, Server};
    let both: &[&[u8]] = &[
        b"\x30\x04\x00\x01t\x00",
        b"\x40\x02\x00\x01",
        b"\x40\x03\x00\x01\x97",
        b"\x50\x02\x00\x01",
        b"\x62\x03\x00\x01\x92",
        b"\x70\x02\x00\x01",
        b"\xE0\x00",
        b"\xE0\x01\x82",
        b"\xF0\x06\x18\x04\x15\x00\x01m",
    ];
    for bytes in both {
        let packet = whole(bytes, V5).unwrap();
        assert_eq!((packet.check_sender(Client), packet.check_sender(Server)), (Ok(()), Ok(())), "{packet:?}");
        assert_eq!(packet.kind(), bytes[0] >> 4);
    }
    let one: &[(Sender, E, &[u8])] = &[
        // Section 2.1.2, the table of packet types.
        (Client, E::PacketOfOtherSide(1), b"\x10\x0D\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00"),
        (Server, E::PacketOfOtherSide(2), b"\x20\x03\x00\x00\x00"),
        (Client, E::PacketOfOtherSide(8), b"\x82\x07\x00\x01\x00\x00\x01t\x00"),
        (Server, E::PacketOfOtherSide(9), b"\x90\x04\x00\x01\x00\x00"),
        (Client, E::PacketOfOtherSide(10), b"\xA2\x06\x00\x01\x00\x00\x01t"),
        (Server, E::PacketOfOtherSide(11), b"\xB0\x04\x00\x01\x00\x00"),
        (Client, E::PacketOfOtherSide(12), b"\xC0\x00"),
        (Server, E::PacketOfOtherSide(13), b"\xD0\x00"),
        // [MQTT5-3.3.4-6]
        (Server, E::PropertyOfOtherSide(0x0B), b"\x30\x06\x00\x01t\x02\x0B\x01"),
        (Server, E::PropertyOfOtherSide(0x0B), b"\x30\x0D\x00\x01t\x09\x26\x00\x01a\x00\x01b\x0B\x01"),
        // Sections 3.4.2.1 and 3.5.2.1.
        (Server, E::ReasonCodeOfOtherSide(0x10), b"\x40\x03\x00\x01\x10"),
        (Server, E::ReasonCodeOfOtherSide(0x10), b"\x50\x03\x00\x01\x10"),
        // Section 3.14.2.1.
        (Client, E::ReasonCodeOfOtherSide(0x04), b"\xE0\x01\x04"),
        (Server, E::ReasonCodeOfOtherSide(0x8B), b"\xE0\x01\x8B"),
        (Server, E::ReasonCodeOfOtherSide(0x8E), b"\xE0\x01\x8E"),
        // [MQTT5-3.14.2-2]
        (Client, E::PropertyOfOtherSide(0x11), b"\xE0\x07\x00\x05\x11\x00\x00\x00\x01"),
        // Section 3.14.2.2.5.
        (Server, E::PropertyOfOtherSide(0x1C), b"\xE0\x06\x00\x04\x1C\x00\x01s"),
        // Section 3.15.2.1.
        (Server, E::ReasonCodeOfOtherSide(0x00), b"\xF0\x00"),
        (Client, E::ReasonCodeOfOtherSide(0x19), b"\xF0\x06\x19\x04\x15\x00\x01m"),
    ];
    for (legal, error, bytes) in one {
        let packet = whole(bytes, V5).unwrap();
        let other = if *legal == Client { Server } else { Client };
        assert_eq!(packet.check_sender(*legal), Ok(()), "{packet:?}");
        assert_eq!(packet.check_sender(other), Err(*error), "{packet:?}");
    }
}
