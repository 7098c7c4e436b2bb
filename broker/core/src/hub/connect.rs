//! From CONNECT to CONNACK.

use super::lifetime::WithWill;
use super::messaging::{Hello, PAIR, is_messaging};
use super::{After, Effect, Hub, Now, Timer, narrow};
use crate::auth::{AuthRequest, AuthStep};
use crate::im::PAIRING_ACCOUNT;
use crate::link::{PendingConnect, Phase, pause};
use crate::message::Message;
use crate::session::{Durable, NO_LINK, Session, Who, WillState};
use crate::store::SessionNo;
use parlor_protocol::mqtt::{
    ConnAck, Connect, DecodeError, Disconnect, Packet, Properties, Property, ReasonCode, Version, Will,
};
use std::rc::Rc;

/// The account of clients that present no credentials, where that is allowed.
pub const ANONYMOUS: &str = "anonymous";

impl Hub {
    pub(super) fn on_connect(&mut self, now: Now, slot: u32, c: &Connect<'_>) {
        let l = &mut self.links[slot as usize];
        l.version = c.version;
        let p = c.properties;
        if c.version == Version::V5 {
            l.no_problem_information = p.request_problem_information() == Some(false);
            l.packet_max = p.maximum_packet_size().unwrap_or(u32::MAX);
            l.receive_max = p.receive_maximum().unwrap_or(u16::MAX);
            let aliases = p.topic_alias_maximum().unwrap_or(0);
            l.alias_out_max = aliases.min(u16::try_from(self.limits.topic_alias_out_max).unwrap_or(u16::MAX));
        }
        l.announced_receive_max = u16::try_from(self.limits.receive_max).unwrap_or(u16::MAX);
        l.announced_alias_max = u16::try_from(self.limits.topic_alias_max).unwrap_or(u16::MAX);
        l.receive_max = l.receive_max.min(u16::try_from(self.limits.in_flight_max).unwrap_or(u16::MAX));
        if self.stopping {
            return self.refuse_connect(
                now,
                slot,
                ReasonCode::SERVER_UNAVAILABLE,
                "stopping",
                "the server is shutting down",
            );
        }
        if self.connections() > self.limits.connections_max {
            return self.refuse_connect(now, slot, ReasonCode::SERVER_BUSY, "connections_max", "too many connections");
        }
        // All of 1 to 23 letters and digits pass [MQTT5-3.1.3-5] [MQTT3-3.1.3-5]; a longer identifier is refused
        // [MQTT5-3.1.3-8] [MQTT3-3.1.3-9].
        if c.client_id.len() as u64 > self.limits.client_id_bytes_max {
            return self.refuse_connect(
                now,
                slot,
                ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
                "client_id_bytes_max",
                "the client identifier is too long",
            );
        }
        let assigned = c.client_id.is_empty();
        if assigned && c.version == Version::V311 && !c.clean_start {
            // [MQTT3-3.1.3-8]
            return self.refuse_connect(now, slot, ReasonCode::CLIENT_IDENTIFIER_NOT_VALID, "client_id_missing", "");
        }
        // [MQTT5-3.1.3-6] [MQTT3-3.1.3-6]
        let client_id = if assigned { self.invent_client_id() } else { c.client_id.to_owned() };
        if p.authentication_data().is_some() && p.authentication_method().is_none() {
            return self.refuse_connect(
                now,
                slot,
                ReasonCode::PROTOCOL_ERROR,
                "auth_data_without_method",
                "Authentication Data needs an Authentication Method",
            );
        }
        if c.version == Version::V5
            && let Some(hello) = Hello::read(p)
        {
            self.links[slot as usize].extra().hello = Some(hello);
        }
        let will = match c.will.as_ref().map(|w| self.check_will(w)).transpose() {
            Ok(will) => will.map(Box::new),
            Err((reason, label, text)) => return self.refuse_connect(now, slot, reason, label, text),
        };
        // Clean Session of 3.1.1 is a session of the length of its connection [MQTT3-3.1.2-6]; without it, it has no end.
        let session_expiry_secs = match c.version {
            Version::V5 => p.session_expiry_interval_secs().unwrap_or(0),
            Version::V311 if c.clean_start => 0,
            Version::V311 => u32::MAX,
        };
        let pending = Box::new(PendingConnect {
            client_id,
            assigned,
            clean_start: c.clean_start,
            keep_alive_secs: c.keep_alive_secs,
            session_expiry_secs,
            request_response_information: p.request_response_information() == Some(true),
            will,
        });
        self.authenticate_connect(now, slot, c, pending);
    }

    fn check_will(&self, w: &Will<'_>) -> Result<WillState, (ReasonCode, &'static str, &'static str)> {
        let delay_secs = w.properties.will_delay_interval_secs().unwrap_or(0);
        if u64::from(delay_secs) > self.limits.will_delay_max_secs {
            return Err((
                ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
                "will_delay_max_secs",
                "the Will Delay Interval is longer than this server allows",
            ));
        }
        if w.topic.len() as u64 > self.limits.topic_bytes_max {
            return Err((
                ReasonCode::TOPIC_NAME_INVALID,
                "topic_bytes_max",
                "the Will Topic is longer than this server allows",
            ));
        }
        if parlor_protocol::topic::level_count(w.topic) as u64 > self.limits.topic_levels_max {
            return Err((
                ReasonCode::TOPIC_NAME_INVALID,
                "topic_levels_max",
                "the Will Topic has more levels than this server allows",
            ));
        }
        let mut properties = vec![];
        for property in w.properties.iter() {
            // In their order [MQTT5-3.1.3-10].
            if !matches!(property, Property::WillDelayInterval(_) | Property::MessageExpiryInterval(_)) {
                property.encode(&mut properties);
            }
        }
        Ok(WillState {
            message: Rc::new(Message::new(w.topic, &properties, w.payload, 0)),
            qos: w.qos as u8,
            retain: w.retain,
            delay_secs,
            // An interval of 0 is one, and over at once.
            expiry_ms: w.properties.message_expiry_secs().map_or(0, |secs| (u64::from(secs) * 1000).max(1)),
            timer_ms: 0,
        })
    }

    fn invent_client_id(&mut self) -> String {
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        loop {
            let (a, b) = (self.draw(), self.draw());
            let letter = |i: u32| {
                let bits = if i < 10 { a >> (i * 5) } else { b >> ((i - 10) * 5) };
                char::from(LETTERS[(bits & 31) as usize])
            };
            // 23 characters at most is what every server of the protocol accepts.
            let id: String = "auto-".chars().chain((0..18).map(letter)).collect();
            if self.find_session(&id).is_none() {
                return id;
            }
        }
    }

    /// Without credentials, where that is allowed, nobody needs to be asked.
    fn authenticate_connect(&mut self, now: Now, slot: u32, c: &Connect<'_>, pending: Box<PendingConnect>) {
        let method = c.properties.authentication_method();
        let l = &self.links[slot as usize];
        let certificate = l.extra.as_ref().and_then(|e| e.certificate.clone());
        let bare = c.username.is_none() && c.password.is_none() && method.is_none() && certificate.is_none();
        if bare && l.allow_anonymous {
            self.counters.auth.add("anonymous");
            let who = self.who_is(ANONYMOUS, vec![]);
            return self.establish(now, slot, pending, who, None);
        }
        if c.username == Some(PAIR) && certificate.is_none() && method.is_none() {
            return self.connect_to_pair(now, slot, c, pending);
        }
        if self.authenticating >= self.limits.auth_waiting_max {
            return self.refuse_connect(
                now,
                slot,
                ReasonCode::SERVER_BUSY,
                "auth_waiting_max",
                "too many clients are being authenticated; try again later",
            );
        }
        self.next_exchange += 1;
        let exchange = self.next_exchange;
        let request = AuthRequest {
            exchange,
            step: AuthStep::Connect,
            client_id: pending.client_id.clone(),
            username: c.username.map(str::to_owned),
            password: c.password.map(<[u8]>::to_vec),
            method: method.map(str::to_owned),
            data: c.properties.authentication_data().unwrap_or_default().to_vec(),
            certificate,
            peer: l.address,
            allow_anonymous: l.allow_anonymous,
        };
        self.set_phase(slot, Phase::Authenticating);
        let l = &mut self.links[slot as usize];
        let extra = l.extra();
        extra.pending = Some(pending);
        extra.exchange = exchange;
        extra.auth_method = method.map(Into::into);
        self.pause(slot, pause::HANDSHAKE);
        self.ask(slot, request);
    }

    /// A device with a pairing code comes in to get its credentials, and for nothing else.
    fn connect_to_pair(&mut self, now: Now, slot: u32, c: &Connect<'_>, mut pending: Box<PendingConnect>) {
        let code = c.password.and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default();
        let address = self.links[slot as usize].address;
        if let Err(label) = self.pairing_code_fits(now, address, code) {
            self.counters.auth.add(label);
            let (reason, text) = match label {
                "pairing_code" => (ReasonCode::BAD_USER_NAME_OR_PASSWORD, "this pairing code is wrong or too old"),
                _ => (ReasonCode::SERVER_BUSY, "too many wrong pairing codes; wait a minute"),
            };
            return self.refuse_connect(now, slot, reason, label, text);
        }
        self.counters.auth.add("pairing");
        let l = &mut self.links[slot as usize];
        l.im_account = Some(PAIRING_ACCOUNT);
        l.extra().pairing_code = Some(code.to_owned());
        // Nothing of it outlives the connection.
        pending.session_expiry_secs = 0;
        pending.clean_start = true;
        pending.will = None;
        let who = self.who_is(PAIR, vec![]);
        self.establish(now, slot, pending, who, None);
    }

    pub(super) fn who_is(&mut self, account: &str, groups: Vec<String>) -> Rc<Who> {
        if let Some(who) = self.who.get(account)
            && *who.groups == *groups
            && who.known
        {
            return Rc::clone(who);
        }
        let profile = self.access.profile(account, &groups);
        let account: Rc<str> = account.into();
        let who = Rc::new(Who { account: Rc::clone(&account), groups: groups.into(), profile, known: true });
        self.who.insert(account, Rc::clone(&who));
        who
    }

    /// The account of something found at start.
    pub(super) fn who_was(&mut self, account: &str) -> Rc<Who> {
        if let Some(who) = self.who.get(account) {
            return Rc::clone(who);
        }
        let profile = self.access.profile(account, &[]);
        let account: Rc<str> = account.into();
        let who = Rc::new(Who { account: Rc::clone(&account), groups: Box::default(), profile, known: false });
        self.who.insert(account, Rc::clone(&who));
        who
    }

    /// Forgets an account that has no session.
    pub(super) fn forget_unused(&mut self, account: &Rc<str>) {
        if !self.terminals.contains_key(account) {
            self.who.remove(account);
        }
    }

    /// The client is known and may come in, if there is nothing else against it.
    pub(super) fn establish(
        &mut self,
        now: Now,
        slot: u32,
        pending: Box<PendingConnect>,
        who: Rc<Who>,
        auth_data: Option<&[u8]>,
    ) {
        let account = Rc::clone(&who.account);
        self.establish_as(now, slot, pending, who, auth_data);
        self.forget_unused(&account);
    }

    /// Takes over, resumes or begins a session [MQTT5-3.1.2-4] [MQTT5-3.1.2-5].
    fn establish_as(
        &mut self,
        now: Now,
        slot: u32,
        mut pending: Box<PendingConnect>,
        who: Rc<Who>,
        auth_data: Option<&[u8]>,
    ) {
        if pending.will.as_ref().is_some_and(|will| is_messaging(will.message.topic())) {
            // To subscribers of `#` it would look like a message of the broker's own.
            let text = "a will does not lie below im/: presence says when a client is gone";
            return self.refuse_connect(now, slot, ReasonCode::NOT_AUTHORIZED, "will_not_authorized", text);
        }
        if let Some(will) = &pending.will
            && !self.access.may_publish(who.profile, &who.account, &pending.client_id, will.message.topic())
        {
            return self.refuse_connect(
                now,
                slot,
                ReasonCode::NOT_AUTHORIZED,
                "will_not_authorized",
                "this account may not publish to the Will Topic",
            );
        }
        let cap = u32::try_from(self.limits.session_expiry_max_secs).unwrap_or(u32::MAX);
        let expiry_secs = pending.session_expiry_secs.min(cap);
        // The client identifier names the session [MQTT5-3.1.3-2] [MQTT3-3.1.3-2].
        let mut found = self.find_session(&pending.client_id);
        if let Some(key) = found {
            if self.sessions[key as usize].who.account != who.account {
                return self.refuse_connect(
                    now,
                    slot,
                    ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
                    "client_id_of_another",
                    "this client identifier belongs to another account",
                );
            }
            let old = self.sessions[key as usize].link;
            if old != NO_LINK {
                // [MQTT5-3.1.4-3] [MQTT3-3.1.4-2]
                self.take_over(now, old);
            }
            found = self.find_session(&pending.client_id);
        }
        let mut ended_durable = false;
        if let Some(key) = found
            // [MQTT5-3.1.4-4] [MQTT3-3.1.2-6] [MQTT3-3.1.4-3]
            && (pending.clean_start || self.is_overdue(now, key))
        {
            ended_durable = self.sessions[key as usize].durable.is_some();
            self.end_session(now, key, WithWill::Yes);
            found = None;
        }
        if found.is_none()
            && let Some((label, text)) = self.no_room_for_session(&who.account, expiry_secs)
        {
            return self.refuse_connect(now, slot, ReasonCode::QUOTA_EXCEEDED, label, text);
        }
        // After a clean start there is none [MQTT5-3.2.2-2] [MQTT5-3.2.2-3] [MQTT3-3.2.2-1] [MQTT3-3.2.2-2] [MQTT3-3.2.2-3].
        let session_present = found.is_some();
        // [MQTT5-3.1.2-5] [MQTT5-3.1.2-6] [MQTT3-3.1.2-4]
        let key = found.unwrap_or_else(|| self.begin_session(&pending.client_id, &who));
        self.attach(slot, key, &mut pending, who, expiry_secs);
        let bytes = self.connack(slot, key, &pending, session_present, expiry_secs, auth_data);
        let link = self.id_of(slot);
        self.set_phase(slot, Phase::Opening);
        let wait = ended_durable
            || self.sessions[key as usize].durable.is_some()
            || self.sessions[key as usize].will.is_some();
        if wait {
            self.pause(slot, pause::HANDSHAKE);
            let s = &self.sessions[key as usize];
            if let Some(d) = &s.durable {
                // What was queued while nobody listened is on disk when CONNACK may go.
                let release = After::Release { session: key, generation: s.generation, until: d.tail };
                self.after_commit(now, release);
            }
            self.after_commit(now, After::ConnAck { link, bytes });
        } else {
            self.open_session(now, slot, &bytes);
        }
    }

    /// Whether a session has expired and only its timer has not fired yet [MQTT5-4.1.0-2].
    fn is_overdue(&self, now: Now, key: u32) -> bool {
        let s = &self.sessions[key as usize];
        let left = s.durable.as_ref().map_or(0, |d| d.disconnected_at_ms);
        left != 0 && s.expiry_secs != u32::MAX && left + u64::from(s.expiry_secs) * 1000 <= now.wall_ms
    }

    fn no_room_for_session(&self, account: &str, expiry_secs: u32) -> Option<(&'static str, &'static str)> {
        let terminals = self.terminals.get(account).copied().unwrap_or(0);
        let most = self.limits.terminals_per_account_max;
        if most != 0 && u64::from(terminals) >= most {
            return Some(("terminals_per_account_max", "this account has as many client identifiers as it may have"));
        }
        if expiry_secs > 0 && self.persistent >= self.limits.sessions_max {
            return Some(("sessions_max", "the server keeps no more sessions"));
        }
        (expiry_secs > 0 && self.low_space).then_some(("low_space", "the server's disk is nearly full"))
    }

    pub(super) fn begin_session(&mut self, client_id: &str, who: &Rc<Who>) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        let session = Session {
            client_id: client_id.into(),
            who: Rc::clone(who),
            generation: self.generation,
            link: NO_LINK,
            expiry_secs: 0,
            version: Version::V311,
            subscriptions: vec![],
            inbound: vec![],
            flow: None,
            durable: None,
            will: None,
        };
        let key = narrow(self.sessions.insert(session));
        let (sessions, hasher) = (&self.sessions, &self.hasher);
        let hash_of = |id: &str| core::hash::BuildHasher::hash_one(hasher, id);
        self.by_client_id.insert_unique(hash_of(client_id), key, |k| hash_of(&sessions[*k as usize].client_id));
        *self.terminals.entry(Rc::clone(&who.account)).or_insert(0) += 1;
        // Ending an earlier session of this client may have forgotten its account.
        self.who.entry(Rc::clone(&who.account)).or_insert_with(|| Rc::clone(who));
        key
    }

    fn attach(&mut self, slot: u32, key: u32, pending: &mut PendingConnect, who: Rc<Who>, expiry_secs: u32) {
        let l = &mut self.links[slot as usize];
        l.session = key;
        let version = l.version;
        let keep_alive_max = u16::try_from(self.limits.keep_alive_max_secs).unwrap_or(u16::MAX);
        let wished = pending.keep_alive_secs;
        let keep_alive_secs =
            if keep_alive_max != 0 && (wished == 0 || wished > keep_alive_max) { keep_alive_max } else { wished };
        // One and a half times the keep alive [MQTT5-3.1.2-22] [MQTT3-3.1.2-24].
        l.keep_alive_ms = u32::from(keep_alive_secs) * 1500;
        pending.keep_alive_secs = keep_alive_secs;
        let s = &mut self.sessions[key as usize];
        s.link = slot;
        let rights_changed = s.who.profile != who.profile || s.who.known != who.known;
        s.who = who;
        if rights_changed && !s.subscriptions.is_empty() {
            self.router.invalidate();
        }
        let s = &mut self.sessions[key as usize];
        s.version = version;
        s.expiry_secs = expiry_secs;
        // A will that was waiting is not sent once the session goes on [MQTT5-3.1.3-9].
        let had_will = s.will.take().is_some();
        // [MQTT5-3.1.2-7] [MQTT3-3.1.2-8]; without Will Flag there is none [MQTT3-3.1.2-12].
        s.will = pending.will.take();
        self.online += 1;
        // What must outlive the connection is kept on disk [MQTT5-3.1.2-23] [MQTT3-3.1.2-4] [MQTT3-4.1.0-1].
        if expiry_secs > 0 && self.sessions[key as usize].durable.is_none() {
            let no = SessionNo(self.next_session);
            self.next_session += 1;
            self.by_session_no.insert(no.0, key);
            self.persistent += 1;
            self.sessions[key as usize].durable = Some(Box::new(Durable {
                no,
                tail: 0,
                committed: 0,
                sent: 0,
                uncertain_until: 0,
                queued: 0,
                queued_bytes: 0,
                ready: std::collections::VecDeque::new(),
                ready_bytes: 0,
                page: None,
                loading: false,
                disconnected_at_ms: 0,
                expiry_timer_ms: 0,
                prior: std::collections::VecDeque::new(),
                prior_base: 0,
            }));
        } else if expiry_secs == 0 && self.sessions[key as usize].durable.is_some() {
            // It goes on, but only as long as this connection: still on disk, for its queue is there.
            self.sessions[key as usize].expiry_secs = 0;
        }
        if let Some(d) = &mut self.sessions[key as usize].durable {
            d.disconnected_at_ms = 0;
            d.expiry_timer_ms = 0;
        }
        self.store_session(key);
        self.store_will(key, had_will);
    }

    fn connack(
        &self,
        slot: u32,
        key: u32,
        pending: &PendingConnect,
        session_present: bool,
        expiry_secs: u32,
        auth_data: Option<&[u8]>,
    ) -> Box<[u8]> {
        let l = &self.links[slot as usize];
        let mut properties = vec![];
        if l.version == Version::V5 {
            let mut put = |p: Property<'_>| p.encode(&mut properties);
            if expiry_secs != pending.session_expiry_secs {
                put(Property::SessionExpiryInterval(expiry_secs));
            }
            if l.announced_receive_max != u16::MAX {
                put(Property::ReceiveMaximum(l.announced_receive_max));
            }
            put(Property::MaximumPacketSize(u32::try_from(self.limits.packet_bytes_max).unwrap_or(u32::MAX)));
            let client_id = &self.sessions[key as usize].client_id;
            if pending.assigned {
                put(Property::AssignedClientIdentifier(client_id)); // [MQTT5-3.1.3-7] [MQTT5-3.2.2-16]
            }
            if l.announced_alias_max != 0 {
                put(Property::TopicAliasMaximum(l.announced_alias_max));
            }
            // Where there is a bound the client is told what holds; else its own value does [MQTT5-3.2.2-22].
            if self.limits.keep_alive_max_secs != 0 {
                put(Property::ServerKeepAlive(pending.keep_alive_secs));
            }
            let response;
            // As a part of a topic the identifier must not be more than a part.
            if pending.request_response_information && !client_id.contains(['+', '#', '/', '\0']) {
                response = format!("response/{client_id}");
                put(Property::ResponseInformation(&response)); // [MQTT5-3.1.2-28]
            }
            let method = l.extra.as_ref().and_then(|e| e.auth_method.as_deref());
            if let Some(method) = method {
                put(Property::AuthenticationMethod(method)); // [MQTT5-4.12.0-5]
            }
            if let Some(data) = auth_data {
                put(Property::AuthenticationData(data));
            }
        }
        let packet = Packet::ConnAck(ConnAck {
            session_present,
            reason: ReasonCode::SUCCESS,
            properties: Properties::from_validated(&properties),
        });
        let mut bytes = vec![];
        packet.encode(l.version, &mut bytes);
        bytes.into()
    }

    /// Only here is a CONNECT accepted, and nothing is sent to the client before this [MQTT5-3.1.4-5] [MQTT5-3.2.0-1]
    /// [MQTT5-3.2.0-2] [MQTT3-3.1.4-4] [MQTT3-3.2.0-1].
    ///
    /// CONNACK goes out and the session is live.
    pub(super) fn open_session(&mut self, now: Now, slot: u32, connack: &[u8]) {
        let fits = if self.links[slot as usize].native {
            self.send_welcome(now, slot, connack)
        } else {
            let fits = connack.len() as u64 <= u64::from(self.links[slot as usize].packet_max);
            if fits {
                self.send_bytes(slot, connack);
            }
            fits
        };
        if !fits {
            // A client that cannot even be told that it is in cannot be served [MQTT5-3.1.2-24].
            return self.abort(now, slot, "connack_too_large");
        }
        let link = self.id_of(slot);
        self.set_phase(slot, Phase::Open);
        let l = &mut self.links[slot as usize];
        l.last_packet_ms = now.ms;
        let (key, keep_alive_ms) = (l.session, l.keep_alive_ms);
        if keep_alive_ms != 0 {
            self.arm(now.ms + u64::from(keep_alive_ms), Timer::KeepAlive(link));
        }
        self.arm_token(now, link);
        self.arrive_im(now, slot, key);
        if self.links[slot as usize].native {
            self.subscribe_as_wanted(now, slot, key);
        }
        self.resume(now, slot, pause::HANDSHAKE);
        self.pump(now, key);
    }

    /// CONNACK with a reason, then the end [MQTT5-3.1.4-2] [MQTT5-3.2.2-7] [MQTT3-3.2.2-5].
    pub(super) fn refuse_connect(
        &mut self,
        now: Now,
        slot: u32,
        reason: ReasonCode,
        label: &'static str,
        text: &'static str,
    ) {
        self.counters.refused.add(label);
        if self.limits.value(label).is_some() {
            self.counters.limits.add(label);
        }
        let address = self.links[slot as usize].address;
        self.notices.push(now.ms, label, || format!("CONNECT from {address} refused: {reason:?} ({label}) {text}"));
        let properties = self.reason_property(slot, text);
        let properties = Properties::from_validated(&properties);
        self.send(slot, &Packet::ConnAck(ConnAck { session_present: false, reason, properties }));
        self.links[slot as usize].extra().farewell = Some((reason, text.into()));
        self.hang_up(slot);
    }

    /// Ends a connection with a reason, if there is a way to say it, and counts why [MQTT5-4.13.1-1] [MQTT3-4.8.0-1].
    pub(super) fn refuse(&mut self, now: Now, slot: u32, reason: ReasonCode, label: &'static str, text: &str) {
        let slot = self.main_of(slot);
        self.counters.refused.add(label);
        if self.limits.value(label).is_some() {
            self.counters.limits.add(label);
        }
        let (client, address) = (self.name_of(slot), self.links[slot as usize].address);
        self.notices.push(now.ms, label, || {
            format!("connection of client {client:?} from {address} ended: {reason:?} ({label}): {text}")
        });
        self.dismiss(slot, reason, text);
        self.end(now, slot, WithWill::Yes);
    }

    /// Before an accepting CONNACK there is no DISCONNECT [MQTT5-3.14.0-1]; after either the connection is closed
    /// [MQTT5-3.14.4-2] [MQTT5-4.13.2-1].
    ///
    /// DISCONNECT (5.0) and the end of the socket; the session is dealt with by the caller.
    pub(super) fn dismiss(&mut self, slot: u32, reason: ReasonCode, text: &str) {
        let l = &self.links[slot as usize];
        if l.version == Version::V5 && l.phase == Phase::Open {
            let properties = self.reason_property(slot, text);
            let properties = Properties::from_validated(&properties);
            self.send(slot, &Packet::Disconnect(Disconnect { reason, properties }));
        } else if l.phase == Phase::Authenticating && l.version == Version::V5 {
            // Table 3-1 has no "shutting down" for CONNACK.
            let stopping = reason == ReasonCode::SERVER_SHUTTING_DOWN;
            let reason = if stopping { ReasonCode::SERVER_UNAVAILABLE } else { reason };
            let properties = self.reason_property(slot, text);
            let properties = Properties::from_validated(&properties);
            self.send(slot, &Packet::ConnAck(ConnAck { session_present: false, reason, properties }));
        }
        self.links[slot as usize].extra().farewell = Some((reason, text.into()));
        self.hang_up(slot);
    }

    /// Ends a connection without a word, where the protocol has none.
    pub(super) fn abort(&mut self, now: Now, slot: u32, label: &'static str) {
        self.counters.refused.add(label);
        let address = self.links[slot as usize].address;
        self.notices.push(now.ms, label, || format!("connection from {address} closed: {label}"));
        self.links[slot as usize].extra().farewell = Some((ReasonCode::PROTOCOL_ERROR, label.into()));
        self.hang_up(slot);
        self.end(now, slot, WithWill::Yes);
    }

    /// The connection is closed whatever was wrong; 3.1.1 hears nothing but of its version [MQTT5-3.1.4-1] [MQTT5-4.13.1-1]
    /// [MQTT3-3.1.4-1] [MQTT3-3.2.2-6] [MQTT3-4.8.0-1].
    pub(super) fn on_malformed(&mut self, now: Now, slot: u32, error: &DecodeError, named: Option<Version>) {
        let reason = error.reason();
        let text = error.to_string();
        let l = &mut self.links[slot as usize];
        match l.phase {
            Phase::Open => {
                // A second CONNECT is one whatever version it names, and DISCONNECT has no reason for versions.
                let is_connect = reason == ReasonCode::UNSUPPORTED_PROTOCOL_VERSION;
                let reason = if is_connect { ReasonCode::PROTOCOL_ERROR } else { reason };
                self.refuse(now, slot, reason, error.kind(), &text);
            }
            Phase::Connecting | Phase::Authenticating => {
                self.counters.refused.add(error.kind());
                let address = l.address;
                self.notices.push(now.ms, error.kind(), || format!("CONNECT from {address} refused: {text}"));
                if let Some(version) = error.connack_version().or(named.filter(|v| *v == Version::V5)) {
                    // [MQTT5-3.1.2-2] [MQTT3-3.1.2-2]; 5.0 section 3.1.4 lets a server say what was wrong with a CONNECT.
                    l.version = version;
                    let packet = ConnAck { session_present: false, reason, properties: Properties::EMPTY };
                    self.send(slot, &Packet::ConnAck(packet));
                }
                self.hang_up(slot);
                self.end(now, slot, WithWill::Yes);
            }
            Phase::Opening => self.abort(now, slot, error.kind()),
            Phase::Closing | Phase::Ending | Phase::Gone => {}
        }
    }

    pub(super) fn set_phase(&mut self, slot: u32, phase: Phase) {
        self.links[slot as usize].phase = phase;
    }

    /// Nothing that comes after this is processed [MQTT5-3.1.4-6] [MQTT3-3.1.4-5].
    pub(super) fn hang_up(&mut self, slot: u32) {
        if self.links[slot as usize].phase != Phase::Closing {
            self.set_phase(slot, Phase::Closing);
            let link = self.id_of(slot);
            self.effects.push_back(Effect::Close(link));
        }
    }

    pub(super) fn find_session(&self, client_id: &str) -> Option<u32> {
        let hash = core::hash::BuildHasher::hash_one(&self.hasher, client_id);
        self.by_client_id.find(hash, |k| *self.sessions[*k as usize].client_id == *client_id).copied()
    }

    /// The client identifier of a link, for a log line.
    pub(super) fn name_of(&self, slot: u32) -> String {
        let key = self.links[slot as usize].session;
        self.sessions.get(key as usize).map_or_else(String::new, |s| super::inbound::shorten(&s.client_id).to_owned())
    }
}
