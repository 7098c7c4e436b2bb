//! Every bound of the broker, in one place: default, unit, and what happens at the edge.

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident: $default:expr, $least:expr, $most:expr;)+) => {
        /// The bounds. Each field's text says its unit and what happens at the edge.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Limits {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        /// Name, description, default, least and greatest legal value of each limit.
        pub const LIMITS: &[LimitInfo] = &[
            $(LimitInfo { name: stringify!($name), about: concat!($($doc,)+), default: $default, least: $least, most: $most },)+
        ];

        impl Limits {
            /// The value of the limit called `name`.
            pub fn value(&self, name: &str) -> Option<u64> {
                match name {
                    $(stringify!($name) => Some(self.$name),)+
                    _ => None,
                }
            }

            /// Sets the limit called `name`.
            pub fn set(&mut self, name: &str, value: u64) -> Result<(), LimitError> {
                match name {
                    $(stringify!($name) => {
                        if !($least..=$most).contains(&value) {
                            return Err(LimitError::OutOfRange { least: $least, most: $most });
                        }
                        self.$name = value;
                    })+
                    _ => return Err(LimitError::Unknown),
                }
                Ok(())
            }
        }
    };
}

/// What a limit is, for documents and messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitInfo {
    /// Key in the `[limits]` table of the configuration.
    pub name: &'static str,
    /// What it bounds, its unit, and what happens at the edge.
    pub about: &'static str,
    /// Value when nothing is configured.
    pub default: u64,
    /// Least legal value.
    pub least: u64,
    /// Greatest legal value.
    pub most: u64,
}

/// A limit could not be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitError {
    /// There is no limit of that name.
    Unknown,
    /// The value is outside `least..=most`.
    OutOfRange {
        /// Least legal value.
        least: u64,
        /// Greatest legal value.
        most: u64,
    },
}

limits! {
    /// Connections at the same time. One more is accepted, told 0x89 Server busy, and closed.
    connections_max: 50_000, 1, 1_000_000;
    /// Seconds from accept to a complete CONNECT (TLS and WebSocket handshakes included). Later ones are closed.
    connect_timeout_secs: 10, 1, 3_600;
    /// Streams of one QUIC connection at the same time, beside its first. One more is refused and counted; the first takes everything as well.
    quic_streams_max: 16, 0, 1_024;
    /// Largest packet a client may send, bytes. A larger one ends the connection with 0x95 Packet too large.
    packet_bytes_max: 1_048_576, 128, 268_435_460;
    /// Receive Maximum announced to clients: unanswered QoS 1 and 2 PUBLISH packets. One more ends the connection with 0x93.
    receive_max: 1_024, 1, 65_535;
    /// Unanswered QoS 1 and 2 PUBLISH packets sent to one client, also when its own Receive Maximum is higher. Further ones wait.
    in_flight_max: 1_024, 1, 32_766;
    /// Topic Alias Maximum announced to clients. A higher alias ends the connection with 0x94; 0 forbids aliases.
    topic_alias_max: 64, 0, 65_535;
    /// Topic aliases used towards one client, also when its own Topic Alias Maximum is higher; 0 uses none.
    topic_alias_out_max: 32, 0, 1_024;
    /// Longest Session Expiry Interval, seconds; longer wishes are shortened and the client is told. 3.1.1 sessions get this one. 4294967295: no limit.
    session_expiry_max_secs: 2_592_000, 0, 4_294_967_295;
    /// Persistent sessions in all. One more CONNECT is refused with 0x97 Quota exceeded.
    sessions_max: 100_000, 1, 10_000_000;
    /// Client identifiers (terminals) one account may have at the same time. One more CONNECT is refused with 0x97; 0: no limit.
    terminals_per_account_max: 0, 0, 1_000_000;
    /// Messages queued on disk for one persistent session. Further ones are dropped for it and counted; the publisher hears 0x97 if nobody got the message.
    queue_messages_max: 100_000, 1, 100_000_000;
    /// Bytes (topic, properties, payload) queued on disk for one persistent session. Edge as `queue_messages_max`.
    queue_bytes_max: 67_108_864, 1_024, 1_099_511_627_776;
    /// QoS 1 and 2 messages waiting in memory for one connected session that is not persistent. Edge as `queue_messages_max`.
    memory_queue_messages_max: 10_000, 1, 10_000_000;
    /// Bytes of those. Edge as `queue_messages_max`.
    memory_queue_bytes_max: 4_194_304, 1_024, 1_099_511_627_776;
    /// Bytes of output one connection may leave unread. QoS 0 messages beyond it are dropped and counted; others wait in the queue.
    output_bytes_max: 1_048_576, 16_384, 1_073_741_824;
    /// Retained messages in all. Setting one more is refused with 0x97 Quota exceeded.
    retained_messages_max: 100_000, 0, 100_000_000;
    /// Bytes of retained messages in all (topic, properties, payload). Edge as `retained_messages_max`.
    retained_bytes_max: 67_108_864, 0, 1_099_511_627_776;
    /// Subscriptions of one session. One more is answered 0x97 Quota exceeded in SUBACK.
    subscriptions_per_session_max: 1_000, 1, 1_000_000;
    /// Subscriptions in all. Edge as `subscriptions_per_session_max`.
    subscriptions_max: 1_000_000, 1, 100_000_000;
    /// Longest topic name or filter, bytes. A longer one is refused with 0x90 or 0x8F.
    topic_bytes_max: 65_535, 1, 65_535;
    /// Most levels of a topic name or filter. More are refused with 0x90 or 0x8F.
    topic_levels_max: 128, 1, 65_535;
    /// Longest client identifier, bytes. A longer one is refused with 0x85.
    client_id_bytes_max: 1_024, 23, 65_535;
    /// PUBLISH packets a second one client may send, averaged; 0: no limit. Beyond it QoS 1 and 2 of MQTT 5 get 0x97, others are not read until their time comes.
    publish_rate_max: 0, 0, 10_000_000;
    /// PUBLISH packets one client may send at once when it was quiet before. Matters only with `publish_rate_max`.
    publish_burst_max: 1_000, 1, 10_000_000;
    /// Longest Will Delay Interval, seconds. A longer one is refused with 0x83 and a reason string.
    will_delay_max_secs: 604_800, 0, 4_294_967_295;
    /// Longest keep alive, seconds: a client that asks for more, or for none, is told this Server Keep Alive (MQTT 5) or held to it (3.1.1). 0: the client decides.
    keep_alive_max_secs: 0, 0, 65_535;
    /// Password checks waiting at the same time. One more CONNECT is refused with 0x89 Server busy.
    auth_waiting_max: 1_024, 1, 100_000;
    /// TLS handshakes under way at the same time on one listener. Beyond it the longest silent peer loses its place.
    handshakes_max: 1_000, 1, 100_000;
    /// QUIC handshakes under way on one listener above which a new client must first show that it receives at its address (Retry). 0: always.
    quic_retry_above: 64, 0, 100_000;
    /// Durable messages accepted and not yet on disk, bytes. Beyond it publishers are not read until the disk has caught up.
    commit_bytes_max: 16_777_216, 65_536, 1_073_741_824;
    /// Longest message of a conversation, bytes. A longer one is refused with `too_large` (0x95).
    im_message_bytes_max: 65_536, 64, 1_048_576;
    /// Longest message to a device, bytes. Edge as `im_message_bytes_max`.
    im_device_message_bytes_max: 4_096, 64, 1_048_576;
    /// Messages a second one account may send in the long run; 0: no limit. Beyond it: `quota` (0x97).
    im_account_rate_max: 100, 0, 1_000_000;
    /// Messages it may send at once.
    im_account_burst_max: 1_000, 1, 1_000_000;
    /// Messages a second one conversation takes in the long run; 0: no limit. Beyond it: `quota` (0x97).
    im_conversation_rate_max: 200, 0, 1_000_000;
    /// Messages it takes at once.
    im_conversation_burst_max: 2_000, 1, 1_000_000;
    /// Entries kept in the mailbox of a person or service. Older ones go; a terminal that had not got them is told of the gap.
    im_mailbox_entries_max: 10_000, 16, 10_000_000;
    /// Days they are kept, 31 at most: then the store forgets them.
    im_mailbox_days: 30, 1, 31;
    /// Entries kept in the mailbox of a device. Edge as `im_mailbox_entries_max`.
    im_device_mailbox_entries_max: 256, 16, 10_000_000;
    /// Days they are kept. Edge as `im_mailbox_days`.
    im_device_mailbox_days: 7, 1, 31;
    /// Pulls of one account (`me/sync`, `me/history`, `me/convs`, `me/recount`, `me/blob`) that wait for the disk. One more is refused with `quota` (0x97).
    im_pulls_per_account_max: 64, 1, 65_536;
    /// Contacts of one account, blocked and muted ones included; and channels it follows. One more is refused with `quota` (0x97).
    im_contacts_per_account_max: 1_000, 1, 100_000;
    /// Contact requests of one account, and to one account, that nobody has answered. One more is refused with `quota` (0x97).
    im_requests_waiting_max: 100, 1, 100_000;
    /// Contact requests one account makes in an hour, those that it takes back included. One more is refused with `quota` (0x97).
    im_requests_per_hour_max: 100, 1, 1_000_000;
    /// Days a contact request waits. Then it ends, and both sides are told.
    im_request_wait_days: 30, 1, 3_650;
    /// Groups and households one account is in. One more is refused with `quota` (0x97).
    im_groups_per_account_max: 100, 1, 10_000;
    /// Members of a group. One more is refused with `quota` (0x97).
    im_group_members_max: 1_024, 2, 65_536;
    /// Members up to which messages of a group are copied into mailboxes. In a larger one each terminal follows the log, for ever.
    im_group_copied_max: 64, 1, 1_024;
    /// Pairing codes of one account that are not used. One more is refused with `quota` (0x97).
    im_pairing_codes_max: 5, 1, 1_000;
    /// Seconds a pairing code is good for. Then it is `not_found`.
    im_pairing_code_secs: 600, 10, 86_400;
    /// Wrong pairing codes within a minute, from wherever, after which every code is refused with `quota` (0x97) for a minute.
    im_pairing_wrong_max: 20, 1, 1_000_000;
    /// Commands under way to one device at the same time. Further ones wait for an outcome.
    im_command_window: 1, 1, 64;
    /// Commands without an outcome for one device. One more is refused with `quota`.
    im_commands_per_device_max: 256, 1, 65_536;
    /// Commands with an outcome that are remembered for one device, for 7 days at most. The oldest are forgotten first.
    im_commands_kept_max: 256, 1, 65_536;
    /// Arguments of a command, bytes. Longer ones are refused with `too_large`.
    im_command_args_bytes_max: 4_096, 2, 65_536;
    /// Result of a command, bytes. The device hears `too_large` and the command goes on.
    im_command_result_bytes_max: 4_096, 2, 65_536;
    /// Deadline of a command that names none, milliseconds from its acceptance.
    im_command_deadline_ms: 10_000, 1, 86_400_000;
    /// Longest deadline of a command without `persist`, milliseconds. A longer one is refused.
    im_command_deadline_max_ms: 3_600_000, 1, 86_400_000;
    /// Longest deadline of a command with `persist`, and the one it has when it names none, seconds. A longer one is refused.
    im_command_persist_max_secs: 604_800, 1, 2_592_000;
    /// Reported state of a device, and its desired state, bytes of JSON each. A change beyond it is refused with `too_large`.
    im_state_bytes_max: 8_192, 2, 262_144;
    /// Description of a device, bytes of JSON. A longer one is refused with `too_large`.
    im_description_bytes_max: 8_192, 2, 262_144;
    /// Announcement channels. One more is refused with `quota` (0x97).
    im_channels_max: 1_000, 1, 1_000_000;
    /// Announcements kept of one channel. One more takes the place of the oldest that is over; when none is, it is refused with `quota` (0x97).
    im_channel_entries_max: 1_000, 1, 100_000;
    /// Longest text of an announcement, bytes. A longer one is refused with `too_large` (0x95).
    im_announcement_bytes_max: 65_536, 64, 1_048_576;
    /// Bytes of the texts of all announcements, which are kept in memory. What would be more is refused with `quota` (0x97).
    im_channel_bytes_max: 67_108_864, 1_024, 1_099_511_627_776;
    /// Accounts on one white list. A longer list is refused with `bad_request` (0x99).
    im_white_list_max: 1_000, 1, 100_000;
    /// Milliseconds over which terminals that are online are told of an announcement with `notify`.
    im_announce_spread_ms: 5_000, 1, 86_400_000;
    /// Seconds after the end of an account's last connection until others are told that it is offline.
    im_presence_grace_secs: 5, 0, 3_600;
    /// Longest sleep an account may announce with `me/status`, seconds. A longer one is refused with `bad_request` (0x99).
    im_asleep_max_secs: 2_592_000, 1, 31_536_000;
    /// Volatile rooms at the same time. To make one more is refused with `quota` (0x97).
    im_rooms_max: 1_000, 1, 1_000_000;
    /// Sessions in one volatile room. One more is refused with `quota` (0x97).
    im_room_members_max: 10_000, 1, 1_000_000;
    /// Volatile rooms one session may be in. To join one more is refused with `quota` (0x97).
    im_rooms_per_session_max: 32, 1, 1_000;
    /// Messages a second one account may send to volatile rooms; 0: no limit. Beyond it they are refused with `quota` (0x97).
    im_room_rate_max: 10, 0, 1_000_000;
    /// Messages it may send at once when it was quiet before. Edge as `im_room_rate_max`.
    im_room_burst_max: 30, 1, 1_000_000;
    /// Typing notices a second of one account, and twice as many at once; 0: no limit. Beyond it they are refused with `quota` (0x97).
    im_typing_rate_max: 5, 0, 1_000_000;
    /// Stream messages a second of one account, and twice as many at once; 0: no limit. Beyond it they are refused with `quota` (0x97).
    im_stream_rate_max: 100, 0, 1_000_000;
    /// Longest payload of a stream, bytes. A longer one is refused with `too_large` (0x95).
    im_stream_bytes_max: 65_536, 64, 1_048_576;
    /// Longest blob (firmware image), bytes. A longer one is refused with `too_large`.
    im_blob_bytes_max: 16_777_216, 1, 1_073_741_824;
    /// Blobs in all. One more is refused with `quota` until another is removed.
    im_blobs_max: 64, 1, 10_000;
    /// Bytes of all blobs, which are on the disk. What would be more is refused with `quota`.
    im_blobs_bytes_max: 268_435_456, 1, 1_099_511_627_776;
    /// Bytes of a blob that one request is answered with. Who asks for more gets so many.
    im_blob_range_bytes_max: 16_384, 64, 65_536;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_legal_and_edges_are_refused() {
        for info in LIMITS {
            let mut limits = Limits::default();
            assert_eq!(limits.value(info.name), Some(info.default), "{}", info.name);
            assert_eq!(limits.set(info.name, info.default), Ok(()), "{}", info.name);
            assert_eq!(limits.set(info.name, info.most), Ok(()), "{}", info.name);
            assert!(limits.set(info.name, info.most + 1).is_err(), "{}", info.name);
        }
        assert_eq!(Limits::default().set("no_such", 1), Err(LimitError::Unknown));
    }
}
