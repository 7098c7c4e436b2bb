//! What the operator's API answers: plain values the driver fills in.

use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Times are milliseconds since 1970 throughout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Version of the program.
    pub version: &'static str,
    /// When it started.
    pub started_at_ms: u64,
    /// Seconds since then.
    pub uptime_secs: u64,
    /// What it is doing.
    pub state: State,
    /// Open listeners.
    pub listeners: Vec<ListenerStatus>,
    /// Connected clients.
    pub connections: u64,
    /// Sessions, connected or not.
    pub sessions: u64,
    /// Subscriptions of all sessions.
    pub subscriptions: u64,
    /// Retained messages.
    pub retained_messages: u64,
    /// Their bytes: topic, properties and payload.
    pub retained_bytes: u64,
    /// Messages in the queues of all sessions.
    pub queue_messages: u64,
    /// Their bytes, counted once for each queue they are in.
    pub queue_bytes: u64,
    /// Accounts in the store.
    pub accounts: u64,
    /// How the store is.
    pub store: StoreStatus,
}

/// What the broker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Serving.
    Running,
    /// Ending: clients are being told to leave.
    Draining,
}

/// An open listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Its address as configured.
    pub url: String,
    /// The address it got; differs from the configured one when that had port 0.
    pub address: SocketAddr,
    /// Connections through it.
    pub connections: u64,
}

/// How the store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum StoreStatus {
    /// All is well.
    Ok,
    /// The disk is nearly full: nothing durable is taken on.
    LowSpace,
    /// The disk refused; nothing is durable any more.
    Failed {
        /// What happened and what to do.
        text: String,
    },
}

/// Part of a list, and where the rest begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    /// In ascending order of their key.
    pub items: Vec<T>,
    /// What to pass as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// The first `limit` rows with keys above `after`, in order, from keyed rows in any order.
    ///
    /// Holds at most `limit` rows at a time and calls `make` only for those of the page; `next` writes a key down.
    pub fn pick<K: Ord + Copy, R>(
        rows: impl Iterator<Item = (K, R)>,
        after: Option<K>,
        limit: u32,
        next: impl Fn(K) -> String,
        make: impl FnMut(R) -> T,
    ) -> Self {
        let limit = limit.max(1) as usize;
        let mut kept: BTreeMap<K, R> = BTreeMap::new();
        let mut more = false;
        for (key, row) in rows {
            if after.is_some_and(|after| key <= after) {
                continue;
            }
            if kept.len() == limit {
                more = true;
                if kept.last_key_value().is_some_and(|(last, _)| key >= *last) {
                    continue;
                }
                kept.pop_last();
            }
            kept.insert(key, row);
        }
        let next = if more { kept.last_key_value().map(|(last, _)| next(*last)) } else { None };
        Self { items: kept.into_values().map(make).collect(), next }
    }
}

/// Which sessions are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionsQuery {
    /// Only those with a client identifier above this one.
    pub after: Option<String>,
    /// At most so many.
    pub limit: u32,
    /// Only those of this account.
    pub account: Option<String>,
}

/// One session in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionSummary {
    /// MQTT client identifier.
    pub client_id: String,
    /// Whose it is.
    pub account: String,
    /// The connection, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionStatus>,
    /// When the connection ended; absent while there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disconnected_at_ms: Option<u64>,
    /// Session Expiry Interval, seconds; 0 ends with the connection, 4294967295 never expires.
    pub expiry_secs: u32,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Messages queued and not acknowledged.
    pub queue_messages: u64,
    /// Their bytes.
    pub queue_bytes: u64,
}

/// A client's connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConnectionStatus {
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Name of the listener.
    pub listener: String,
    /// Protocol level: 4 is MQTT 3.1.1, 5 is MQTT 5.
    pub version: u8,
    /// Since when.
    pub since_ms: u64,
    /// Keep Alive, seconds; 0: none.
    pub keep_alive_secs: u16,
    /// Whether it speaks frames of the native link, and not MQTT.
    pub native: bool,
    /// Streams it has beside its first; only QUIC connections have any.
    pub streams: u32,
}

/// Everything about one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionDetail {
    /// As in the list.
    #[serde(flatten)]
    pub summary: SessionSummary,
    /// QoS 1 and 2 messages sent and not yet answered.
    pub in_flight: u64,
    /// QoS 2 packet identifiers received and not yet released.
    pub inbound_qos2: u64,
    /// Whether a will waits.
    pub has_will: bool,
    /// Its subscriptions, by filter.
    pub subscription_list: Vec<SubscriptionRow>,
}

/// Which subscriptions are asked for. Rows are in order of client identifier and filter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubscriptionsQuery {
    /// Only those after this row; [`SubscriptionRow::read_key`] takes it apart.
    pub after: Option<String>,
    /// At most so many.
    pub limit: u32,
    /// Only those of this client identifier.
    pub client_id: Option<String>,
    /// Only those with exactly this filter.
    pub filter: Option<String>,
}

/// One subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubscriptionRow {
    /// MQTT client identifier.
    pub client_id: String,
    /// Topic filter, with `$share/…` where shared.
    pub filter: String,
    /// Granted QoS.
    pub qos: u8,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Retain Handling, 0 to 2.
    pub retain_handling: u8,
    /// Subscription Identifier, if the client gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
}

impl SubscriptionRow {
    /// Fills in a row from the option bits of SUBSCRIBE; an `id` of 0 is none.
    pub fn new(client_id: &str, filter: &str, options: u8, id: u32) -> Self {
        Self {
            client_id: client_id.to_owned(),
            filter: filter.to_owned(),
            qos: options & 3,
            no_local: options & 4 != 0,
            retain_as_published: options & 8 != 0,
            retain_handling: options >> 4 & 3,
            id: (id != 0).then_some(id),
        }
    }

    /// Writes down where a page of rows, sorted by client identifier and filter, ended.
    ///
    /// No MQTT text has a NUL `[MQTT5-1.5.4-2]`, so it keeps the two apart.
    pub fn write_key((client_id, filter): (&str, &str)) -> String {
        format!("{client_id}\0{filter}")
    }

    /// Reads [`SubscriptionsQuery::after`].
    pub fn read_key(key: &str) -> (&str, &str) {
        key.split_once('\0').unwrap_or((key, ""))
    }
}

/// Which retained messages are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetainedQuery {
    /// Only topics after this one.
    pub after: Option<String>,
    /// At most so many.
    pub limit: u32,
    /// Only topics that match this topic filter.
    pub filter: Option<String>,
    /// Only topics that begin so.
    pub prefix: Option<String>,
}

/// One retained message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetainedRow {
    /// Topic name.
    pub topic: String,
    /// QoS it was published with.
    pub qos: u8,
    /// Account that published it.
    pub publisher: String,
    /// When it expires; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// Its payload.
    #[serde(flatten)]
    pub payload: Payload,
}

/// A payload; shown as `payload_utf8` where it is text, as `payload_base64` otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(pub Vec<u8>);

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(Some(1))?;
        match std::str::from_utf8(&self.0) {
            Ok(text) => map.serialize_entry("payload_utf8", text)?,
            Err(_) => map.serialize_entry("payload_base64", &base64(&self.0))?,
        }
        map.end()
    }
}

/// What an operator may know about an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    /// Its name.
    pub name: String,
    /// Groups it is in.
    pub groups: Vec<String>,
    /// Whether it must not log in.
    pub disabled: bool,
    /// When it was made.
    pub created_ms: u64,
}

/// What kind of account something is, for messaging.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum AccountKind {
    /// Somebody with terminals and contacts.
    Person,
    /// A thing that is commanded and has a state.
    Device,
    /// A program that may write to everybody.
    Service,
}

impl AccountKind {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Device => "device",
            Self::Service => "service",
        }
    }
}

/// A connect token, as it is handed out.
#[derive(Serialize)]
pub(super) struct TokenRow {
    pub(super) account: String,
    pub(super) token: String,
    pub(super) expires_at_ms: u64,
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// Sections that differ from what runs and take effect only at the next start.
    pub needs_restart: Vec<&'static str>,
    /// Warnings about the configuration, as `parlor check-config` prints them.
    pub warnings: String,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Bytes of the backup.
    pub bytes: u64,
    /// What the operator should know, for example that the broker starts anew.
    pub text: String,
}

/// RFC 4648 s4, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut group = [0_u8; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for digit in 0..4 {
            if digit <= chunk.len() {
                out.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_text_where_they_can_be() {
        for (bytes, expect) in [
            (&b"on"[..], r#"{"payload_utf8":"on"}"#),
            (b"", r#"{"payload_utf8":""}"#),
            (&[0xFF], r#"{"payload_base64":"/w=="}"#),
            (&[0xFF, 0x00], r#"{"payload_base64":"/wA="}"#),
            (&[0xFF, 0x00, 0x41, 0x42], r#"{"payload_base64":"/wBBQg=="}"#),
        ] {
            assert_eq!(serde_json::to_string(&Payload(bytes.to_vec())).unwrap(), expect);
        }
    }

    #[test]
    fn pages_are_in_order_and_say_where_to_go_on() {
        let rows = ["d", "a", "c", "b", "e"];
        let page = |after, limit| {
            let page = Page::pick(rows.iter().map(|row| (*row, *row)), after, limit, str::to_owned, |row| row);
            (page.items.join(""), page.next)
        };
        assert_eq!(page(None, 2), ("ab".into(), Some("b".into())));
        assert_eq!(page(Some("b"), 2), ("cd".into(), Some("d".into())));
        assert_eq!(page(Some("d"), 2), ("e".into(), None));
        assert_eq!(page(None, 5), ("abcde".into(), None));
        assert_eq!(page(Some("e"), 5), (String::new(), None));
        assert_eq!(page(None, 0), ("a".into(), Some("a".into())));
    }

    #[test]
    fn subscription_rows_read_the_option_bits() {
        let row = SubscriptionRow::new("c", "a/#", 0b0010_1101, 0);
        assert_eq!(
            (row.qos, row.no_local, row.retain_as_published, row.retain_handling, row.id),
            (1, true, true, 2, None)
        );
    }
}
