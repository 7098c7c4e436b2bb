//! What the hub asks about a client that wants in, and what it is told.

use parlor_protocol::mqtt::ReasonCode;
use std::net::IpAddr;

/// Asks who a client is. The password never appears in a debug text.
pub struct AuthRequest {
    /// Names the exchange; the answer and later steps carry it too.
    pub exchange: u64,
    /// First step of a CONNECT, a later step (AUTH 0x18), or the first step of a re-authentication (AUTH 0x19).
    pub step: AuthStep,
    /// MQTT client identifier (assigned already if the client sent none).
    pub client_id: String,
    /// CONNECT user name.
    pub username: Option<String>,
    /// CONNECT password.
    pub password: Option<Vec<u8>>,
    /// Authentication Method.
    pub method: Option<String>,
    /// Authentication Data.
    pub data: Vec<u8>,
    /// Account named by a client certificate the TLS layer has verified.
    pub certificate: Option<String>,
    /// Where the connection comes from.
    pub peer: IpAddr,
    /// Whether the listener lets clients without credentials in, as the account `anonymous`.
    pub allow_anonymous: bool,
}

/// Which step of authentication this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthStep {
    /// CONNECT.
    Connect,
    /// AUTH with 0x18 Continue authentication.
    Continue,
    /// AUTH with 0x19 Re-authenticate.
    ReAuthenticate,
}

/// The answer to an [`AuthRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthAnswer {
    /// Let in.
    Accept {
        /// Account name.
        account: String,
        /// Groups of accounts it is in, for the rules.
        groups: Vec<String>,
        /// When the right to be connected ends, milliseconds since 1970.
        expires_at_ms: Option<u64>,
        /// Authentication Data for CONNACK or AUTH.
        data: Option<Vec<u8>>,
    },
    /// Send AUTH 0x18 with this Authentication Data.
    Continue {
        /// Authentication Data.
        data: Vec<u8>,
    },
    /// Refuse; the text is a reason string fit for the client (it does not say which part was wrong).
    Refuse {
        /// 0x86, 0x87, 0x8C, 0x89, 0x9F …
        reason: ReasonCode,
        /// For the client.
        text: &'static str,
        /// Label of the counter, e.g. `bad_password`, `unknown_account`, `slowed_down`, `expired_token`.
        label: &'static str,
    },
}
