//! The native link: what goes up as frames instead of topics and JSON, and what comes down turned back. So all roads bring the
//! same things, and what a client knows of messaging is written once.

mod down;
#[cfg(test)]
mod tests;
mod up;

use super::driver::{Codec, Out};
use super::{Delivery, Down, End, Login, RECEIVE_MAX, Up, ended, refused};
use crate::error::ConnectError;
use crate::model::event::Answer;
use crate::model::up::{Effort, Publish as Wanted};
use crate::options::{Filter, Quality};
use down::Page;
use parlor_protocol::link::{
    self, Code, Decoded, Down as Frame, LEVEL, SCHEMA, SIZE_MAX, Secret, Up as UpFrame, decode_datagram, decode_frame,
    wants,
};
use parlor_protocol::mqtt::ReasonCode;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Longest frame sent as a datagram, bytes: what fits into a packet on every way.
const DATAGRAM_BYTES_MAX: usize = 1_100;

/// What is known of one connection.
pub(super) struct NativeCodec {
    login: Arc<Login>,
    filters: Vec<Filter>,
    has_datagrams: bool,
    next_id: u16,
    /// Tokens by packet identifier.
    unanswered: BTreeMap<u16, u64>,
    /// Subscriptions without an answer.
    subscribing: BTreeMap<u16, Filter>,
    is_welcome: bool,
    is_told: bool,
    /// Longest frame the broker takes.
    frame_max: usize,
    /// What the broker says of it.
    keep_alive_s: u16,
    /// A page whose entries are still coming.
    page: Option<Page>,
    /// Topics of which a value has come: the first one is what the broker keeps.
    values: BTreeSet<String>,
}

impl NativeCodec {
    pub fn new(login: Arc<Login>, filters: Vec<Filter>, has_datagrams: bool) -> Self {
        Self {
            login,
            filters,
            has_datagrams,
            next_id: 0,
            unanswered: BTreeMap::new(),
            subscribing: BTreeMap::new(),
            is_welcome: false,
            is_told: false,
            frame_max: usize::from(SIZE_MAX),
            keep_alive_s: 0,
            page: None,
            values: BTreeSet::new(),
        }
    }

    /// A packet identifier that is not in use.
    fn id(&mut self) -> u16 {
        for _ in 0..u16::MAX {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if !self.unanswered.contains_key(&self.next_id) && !self.subscribing.contains_key(&self.next_id) {
                break;
            }
        }
        self.next_id
    }

    /// Writes a frame; `false`: it is longer than the broker takes.
    fn put(&self, frame: &UpFrame<'_>, out: &mut Out) -> bool {
        let size = link::frame_size(frame);
        let may_be_lost = matches!(frame, UpFrame::Typing { .. } | UpFrame::Stream { .. } | UpFrame::Telemetry { .. });
        if may_be_lost && self.has_datagrams && size <= DATAGRAM_BYTES_MAX {
            let mut bytes = Vec::with_capacity(size);
            if link::encode_datagram(frame, &mut bytes).is_ok() {
                out.datagrams.push(bytes);
            }
            return true;
        }
        size <= self.frame_max && link::encode(frame, &mut out.bytes).is_ok()
    }

    fn publish(&mut self, wanted: &Wanted, out: &mut Out, downs: &mut Vec<Down>) {
        let id = match wanted.effort {
            Effort::Once => 0,
            Effort::UntilAnswered => self.id(),
        };
        let fits = up::with_frame(wanted, id, |frame| self.put(frame, out));
        if id == 0 {
            return;
        }
        if fits {
            self.unanswered.insert(id, wanted.token);
        } else {
            let (code, text) = ("too_large".to_owned(), format!("it does not fit into {} bytes", self.frame_max));
            downs.push(Down::Answered { token: wanted.token, answer: Answer::Refused { code, text } });
        }
    }

    fn subscribe(&mut self, filter: Filter, out: &mut Out) {
        let packet_id = self.id();
        let options = match filter.quality {
            Quality::AtMostOnce => 0,
            Quality::AtLeastOnce => 1,
        };
        self.put(&UpFrame::Subscribe { packet_id, filter: &filter.filter, options }, out);
        self.subscribing.insert(packet_id, filter);
    }

    fn frame(&mut self, frame: &Frame<'_>, out: &mut Out, downs: &mut VecDeque<Down>) -> Result<(), End> {
        match frame {
            Frame::Welcome { frame_max, receive_max, keep_alive_s, .. } => {
                self.is_welcome = true;
                self.frame_max = usize::from(*frame_max);
                self.keep_alive_s = *keep_alive_s;
                downs.push_back(Down::Window(*receive_max));
                let filters = self.filters.clone();
                for filter in filters.into_iter().filter(|filter| wanted(filter).is_none()) {
                    self.subscribe(filter, out);
                }
                self.tell(downs);
            }
            Frame::Close { code, text } => {
                let code = ReasonCode(*code);
                let text = (!text.is_empty()).then_some(*text);
                return Err(if self.is_welcome {
                    ended(&self.login, code, text)
                } else if code == ReasonCode::UNSUPPORTED_PROTOCOL_VERSION {
                    let why = text.unwrap_or("it says no more").to_owned();
                    End::Fatal(ConnectError::Version { target: self.login.target.clone(), why })
                } else {
                    refused(&self.login, code, text)
                });
            }
            Frame::Accepted { packet_id, seq, dup } => {
                let answer = Answer::Accepted { seq: (*seq != 0).then_some(*seq), dup: *dup };
                self.answered(*packet_id, answer, downs);
            }
            Frame::Refused { packet_id, code, text } => {
                let answer = Answer::Refused { code: word(*code), text: (*text).to_owned() };
                self.answered(*packet_id, answer, downs);
            }
            Frame::Subscribed { packet_id, code } => {
                let Some(filter) = self.subscribing.remove(packet_id) else { return Ok(()) };
                if *code >= 0x80 {
                    let why = ReasonCode(*code).name().to_owned();
                    if self.login.options.listen.filters().contains(&filter) {
                        return Err(End::Fatal(ConnectError::Subscription { filter: filter.filter, why }));
                    }
                    downs.push_back(Down::NotSubscribed { filter: filter.filter, why });
                }
                self.tell(downs);
            }
            Frame::Pong {} | Frame::Unknown { .. } | Frame::Unsubscribed { .. } => {}
            frame => self.told(frame, downs),
        }
        Ok(())
    }

    fn answered(&mut self, packet_id: u16, answer: Answer, downs: &mut VecDeque<Down>) {
        if let Some(token) = self.unanswered.remove(&packet_id) {
            downs.push_back(Down::Answered { token, answer });
        }
    }

    /// Says once that the connection stands, when the subscriptions do.
    fn tell(&mut self, downs: &mut VecDeque<Down>) {
        if self.is_welcome && !self.is_told && self.subscribing.is_empty() {
            self.is_told = true;
            downs.push_back(Down::Connected);
        }
    }

    /// Something that comes on a topic of MQTT, or an entry of a page of such.
    fn told(&mut self, frame: &Frame<'_>, downs: &mut VecDeque<Down>) {
        if let Some(page) = Page::begin(frame) {
            self.page = Some(page);
        } else if let Some(page) = &mut self.page {
            page.add(frame, &self.login.user);
        } else if let Some((packet_id, topic, payload, is_retained)) = down::topic(frame, &self.login.user) {
            // Names are bounded by what the model keeps of them.
            let is_value = matches!(
                frame,
                Frame::Head { .. } | Frame::Conversation { .. } | Frame::Presence { .. } | Frame::State { .. }
            );
            let is_first = is_value
                && self.values.len() < crate::model::limits::NAMES_MAX * 2
                && self.values.insert(topic.clone());
            let number = (packet_id != 0).then_some(u64::from(packet_id));
            let is_retained = is_retained || is_first;
            downs.push_back(Down::Message(Delivery { topic, payload, is_retained, number }));
        }
        if let Some(page) = self.page.take_if(|page| page.is_complete()) {
            let (packet_id, topic, payload) = page.finish();
            let number = (packet_id != 0).then_some(u64::from(packet_id));
            downs.push_back(Down::Message(Delivery { topic, payload, is_retained: false, number }));
        }
    }
}

impl Codec for NativeCodec {
    fn hello(&mut self, out: &mut Out) {
        let fresh = Self::new(Arc::clone(&self.login), std::mem::take(&mut self.filters), self.has_datagrams);
        *self = fresh;
        let login = Arc::clone(&self.login);
        let options = &login.options;
        let mut all = self.filters.iter().filter_map(wanted).fold(0, |all, want| all | want);
        if self.has_datagrams {
            all |= wants::DATAGRAMS;
        }
        let hello = UpFrame::Hello {
            level: LEVEL,
            schema: SCHEMA,
            account: &login.user,
            secret: Secret(login.password.as_bytes()),
            terminal: &login.terminal,
            keep_alive_s: u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX),
            expiry_s: 0,
            receive_max: RECEIVE_MAX,
            frame_max: SIZE_MAX,
            // As over MQTT: to clear a session may not be asked for in a first flight.
            clean: false,
            wants: all,
            core_level: options.level,
            platform: &options.platform,
            app: &options.app,
        };
        self.put(&hello, out);
    }

    fn up(&mut self, up: Up, out: &mut Out) {
        match up {
            Up::Publish(wanted) => {
                let mut downs = Vec::new();
                self.publish(&wanted, out, &mut downs);
                out.downs.append(&mut downs);
            }
            Up::Acknowledge(number) => {
                let packet_id = u16::try_from(number).unwrap_or_default();
                self.put(&UpFrame::Ack { packet_id }, out);
            }
            Up::Subscribe(filter) => self.subscribe(filter, out),
            Up::Unsubscribe(filter) => {
                let packet_id = self.id();
                self.put(&UpFrame::Unsubscribe { packet_id, filter: &filter }, out);
            }
            Up::Close => {
                self.put(&UpFrame::Bye { will: false }, out);
            }
            Up::Rebind => {}
        }
    }

    fn feed(&mut self, bytes: &mut Vec<u8>, out: &mut Out, downs: &mut VecDeque<Down>) -> Result<(), End> {
        let mut at = 0;
        let result = loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let (frame, len) = match decode_frame::<Frame<'_>>(rest, SIZE_MAX) {
                Ok(Some(read)) => read,
                Ok(None) => break Ok(()),
                Err(error) => break Err(End::Lost(format!("the broker sent what is no frame: {error}"))),
            };
            at += len;
            // What a later broker says more is passed over.
            if let Decoded::Frame(frame) = frame
                && let Err(end) = self.frame(&frame, out, downs)
            {
                break Err(end);
            }
        };
        bytes.drain(..at);
        result
    }

    fn datagram(&mut self, bytes: &[u8], downs: &mut VecDeque<Down>) {
        if let Ok(Decoded::Frame(frame @ (Frame::Typing { .. } | Frame::Stream { .. } | Frame::Publish { .. }))) =
            decode_datagram::<Frame<'_>>(bytes)
            && let Some((0, topic, payload, is_retained)) = down::topic(&frame, &self.login.user)
        {
            downs.push_back(Down::Message(Delivery { topic, payload, is_retained, number: None }));
        }
    }

    fn keep_alive(&self) -> Option<Duration> {
        (self.keep_alive_s != 0).then(|| Duration::from_secs(u64::from(self.keep_alive_s)))
    }

    fn ping(&mut self, out: &mut Out) {
        self.put(&UpFrame::Ping {}, out);
    }
}

/// The bits of Hello that stand for a filter; none: it takes a frame of its own.
fn wanted(filter: &Filter) -> Option<u16> {
    if filter.quality == Quality::AtMostOnce {
        return None;
    }
    let levels: Vec<&str> = filter.filter.split('/').collect();
    Some(match levels[..] {
        ["im", "v1", "me", "#"] => wants::PUSH | wants::SENT | wants::HEAD | wants::COMMANDS | wants::RESULTS,
        ["im", "v1", "me", "in", "#"] => wants::PUSH,
        ["im", "v1", "me", "sent"] => wants::SENT,
        ["im", "v1", "me", "cmd", "#"] | ["im", "v1", "me", "delta"] => wants::COMMANDS,
        ["im", "v1", "me", "res", "#"] => wants::RESULTS,
        ["im", "v1", "presence", "+"] => wants::PRESENCE,
        ["im", "v1", "state", "+"] => wants::STATE,
        // These come always.
        ["im", "v1", "me", "err"] | ["im", "v1", "me", _, "res"] => 0,
        _ => return None,
    })
}

/// A code of section 10 as its word; one that a later broker has made up as a number.
fn word(code: Code) -> String {
    match code.text() {
        "" => format!("code_{}", code.value()),
        text => text.to_owned(),
    }
}
