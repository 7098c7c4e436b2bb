//! What the hub knows of one connection, or of a further stream of one: its phase, what the client allows, and the bytes
//! it has not read yet.

use crate::im::AccountNo;
use crate::router::Route;
use parlor_protocol::mqtt::{ReasonCode, Version};
use std::net::IpAddr;
use std::rc::Rc;

/// Names a connection; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId {
    /// Place in the table.
    pub slot: u32,
    /// Tells a later user of the place apart.
    pub generation: u32,
}

/// What is known of a connection when it opens.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Address of the other side.
    pub address: IpAddr,
    /// Whether clients without credentials may come in here.
    pub allow_anonymous: bool,
    /// Account named by a verified client certificate.
    pub certificate: Option<String>,
    /// It speaks the native link, and the driver translates; false: MQTT.
    pub native: bool,
}

/// What a further stream of a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Packets in both directions, as on the connection's first stream.
    Data,
    /// One request of the native link, and its answer.
    Bulk,
    /// No stream but the connection's datagrams: its roads are for QoS 0 only, and what finds it full is dropped.
    Datagrams,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// CONNECT is awaited.
    Connecting,
    /// The client is being authenticated.
    Authenticating,
    /// CONNACK waits for the disk.
    Opening,
    /// CONNACK was sent.
    Open,
    /// A stream whose client has said all there is: it gets the answers that wait for the disk, then it is `Closing`.
    Ending,
    /// It gets what is in `out`, nothing else is read.
    Closing,
    /// A stream that is gone, while answers of what came on it wait for the disk: they go to its connection.
    Gone,
}

/// Why a link is not being read.
pub(crate) mod pause {
    /// Authentication or CONNACK is under way.
    pub(crate) const HANDSHAKE: u8 = 1;
    /// As many PUBLISH packets as allowed wait for the disk.
    pub(crate) const IN_FLIGHT: u8 = 2;
    /// The disk is behind for everybody.
    pub(crate) const DISK: u8 = 4;
    /// The client publishes faster than it may.
    pub(crate) const RATE: u8 = 8;
    /// The client does not read its answers.
    pub(crate) const OUTPUT: u8 = 16;
    /// A message waits for the store to say whether its client id was used.
    pub(crate) const LOOKUP: u8 = 32;
}

/// One connection, or a further stream of one, which acts for the session of its connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) generation: u32,
    pub(crate) phase: Phase,
    pub(crate) version: Version,
    pub(crate) dirty: bool,
    pub(crate) paused: u8,
    /// Request Problem Information was 0 [MQTT5-3.1.2-29].
    pub(crate) no_problem_information: bool,
    pub(crate) allow_anonymous: bool,
    pub(crate) native: bool,
    /// What stream it is; none: it is the connection, which its first stream stands for.
    pub(crate) stream: Option<StreamKind>,
    pub(crate) session: u32,
    /// The account in the messaging rooms; none for anonymous clients.
    pub(crate) im_account: Option<AccountNo>,
    /// The account is in the operator's group `admins`.
    pub(crate) im_admin: bool,
    /// QoS 1 packets of the messaging rooms that wait for their PUBACK.
    pub(crate) im_in_flight: u16,
    pub(crate) keep_alive_ms: u32,
    pub(crate) packet_max: u32,
    pub(crate) receive_max: u16,
    pub(crate) alias_out_max: u16,
    /// Receive Maximum and Topic Alias Maximum as CONNACK announced them: a reload changes them for later clients.
    pub(crate) announced_receive_max: u16,
    pub(crate) announced_alias_max: u16,
    /// QoS 1 and 2 PUBLISH packets accepted and not answered finally.
    pub(crate) unanswered: u16,
    /// Acknowledgements waiting for the disk; later ones queue behind them.
    pub(crate) deferred: u16,
    pub(crate) last_packet_ms: u64,
    pub(crate) out: Vec<u8>,
    /// How much of `out` the socket has taken.
    pub(crate) out_sent: usize,
    pub(crate) address: IpAddr,
    pub(crate) extra: Option<Box<Extra>>,
}

/// What only some connections need.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub(crate) certificate: Option<String>,
    pub(crate) pending: Option<Box<PendingConnect>>,
    /// The exchange with the authenticator that is under way; 0: none.
    pub(crate) exchange: u64,
    /// The authenticator has been asked and has not answered.
    pub(crate) asked: bool,
    pub(crate) auth_method: Option<Box<str>>,
    /// Milliseconds since 1970 at which the right to be connected ends.
    pub(crate) expires_at_ms: Option<u64>,
    /// The deadline of that, on the clock of [`crate::Now::ms`].
    pub(crate) token_timer_ms: u64,
    /// What the client said of itself for the messaging rooms.
    pub(crate) hello: Option<Box<crate::hub::Hello>>,
    /// Why it was ended, once it was.
    pub(crate) farewell: Option<(ReasonCode, Box<str>)>,
    /// The code with which a device came in that is being paired.
    pub(crate) pairing_code: Option<String>,
    pub(crate) aliases_in: Vec<Option<Rc<str>>>,
    pub(crate) aliases_out: Vec<Box<str>>,
    pub(crate) routes: Vec<CachedRoute>,
    /// Rate limit: messages that may be sent now, in thousandths (negative: sent on credit), and when that was computed.
    pub(crate) tokens: i64,
    pub(crate) tokens_at_ms: u64,
    /// Of a connection: the places of its further streams.
    pub(crate) streams: Vec<u32>,
    /// Of a native connection: the level that its client has said, and what its Hello wants.
    pub(crate) level: u32,
    pub(crate) wants: u16,
    /// Of a native stream for one request: it has come.
    pub(crate) has_request: bool,
    /// Of a stream: the place of its connection, or its own once that has ended.
    pub(crate) parent: u32,
}

/// A route a publisher used before.
#[derive(Debug)]
pub(crate) struct CachedRoute {
    pub(crate) generation: u64,
    pub(crate) topic: Box<str>,
    pub(crate) route: Rc<Route>,
}

/// A CONNECT that waits for its client to be authenticated.
#[derive(Debug)]
pub(crate) struct PendingConnect {
    pub(crate) client_id: String,
    pub(crate) assigned: bool,
    pub(crate) clean_start: bool,
    pub(crate) keep_alive_secs: u16,
    pub(crate) session_expiry_secs: u32,
    pub(crate) request_response_information: bool,
    pub(crate) will: Option<Box<crate::session::WillState>>,
}

impl Link {
    pub(crate) fn new(generation: u32, peer: &Peer, now_ms: u64) -> Self {
        let extra = peer.certificate.clone().map(|c| Box::new(Extra { certificate: Some(c), ..Extra::default() }));
        Self {
            generation,
            phase: Phase::Connecting,
            // A native client is one of MQTT 5 that writes in another form.
            version: if peer.native { Version::V5 } else { Version::V311 },
            dirty: false,
            paused: 0,
            no_problem_information: false,
            allow_anonymous: peer.allow_anonymous,
            native: peer.native,
            stream: None,
            session: u32::MAX,
            im_account: None,
            im_admin: false,
            im_in_flight: 0,
            keep_alive_ms: 0,
            packet_max: u32::MAX,
            receive_max: u16::MAX,
            alias_out_max: 0,
            announced_receive_max: u16::MAX,
            announced_alias_max: 0,
            unanswered: 0,
            deferred: 0,
            last_packet_ms: now_ms,
            out: Vec::new(),
            out_sent: 0,
            address: peer.address,
            extra,
        }
    }

    /// A further stream of this connection, which is in the place `parent`. What CONNECT settled holds for it as well;
    /// what changes (credit, keep alive, aliases, rate) is kept with the connection.
    pub(crate) fn new_stream(&self, generation: u32, parent: u32, kind: StreamKind) -> Self {
        Self {
            generation,
            phase: Phase::Open,
            version: self.version,
            dirty: false,
            paused: 0,
            no_problem_information: self.no_problem_information,
            allow_anonymous: self.allow_anonymous,
            native: self.native,
            stream: Some(kind),
            session: self.session,
            im_account: self.im_account,
            im_admin: self.im_admin,
            im_in_flight: 0,
            keep_alive_ms: 0,
            packet_max: self.packet_max,
            receive_max: self.receive_max,
            // Between streams there is no order, so an alias could be used before it is known.
            alias_out_max: 0,
            announced_receive_max: self.announced_receive_max,
            announced_alias_max: self.announced_alias_max,
            unanswered: 0,
            deferred: 0,
            last_packet_ms: self.last_packet_ms,
            out: Vec::new(),
            out_sent: 0,
            address: self.address,
            extra: Some(Box::new(Extra { parent, ..Extra::default() })),
        }
    }

    /// QoS 1 and 2 deliveries of queues that may be under way beside those of the messaging rooms.
    pub(crate) fn queue_credit(&self) -> u16 {
        self.receive_max.saturating_sub(self.im_in_flight)
    }

    /// Bytes the client has not taken.
    pub(crate) fn unsent(&self) -> usize {
        self.out.len() - self.out_sent
    }

    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }
}
