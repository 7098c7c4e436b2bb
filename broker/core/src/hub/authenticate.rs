//! Answers of the authenticator, and AUTH packets.

use super::{Effect, Hub, Now};
use crate::auth::{AuthAnswer, AuthRequest, AuthStep};
use crate::link::{LinkId, Phase, pause};
use parlor_protocol::mqtt::{Auth, Packet, Properties, Property, ReasonCode, Version};

impl Hub {
    /// The authenticator has answered.
    pub fn authenticated(&mut self, now: Now, link: LinkId, exchange: u64, answer: AuthAnswer) {
        if !self.is_current(link) {
            return;
        }
        let slot = link.slot;
        let l = &mut self.links[slot as usize];
        if l.extra().exchange != exchange {
            return;
        }
        self.answered(slot);
        let l = &self.links[slot as usize];
        match (l.phase, answer) {
            (Phase::Authenticating, AuthAnswer::Accept { account, groups, expires_at_ms, data }) => {
                self.counters.auth.add("accepted");
                let extra = self.links[slot as usize].extra();
                extra.exchange = 0;
                extra.expires_at_ms = expires_at_ms;
                let Some(pending) = extra.pending.take() else { return };
                let who = self.who_is(&account, groups);
                self.establish(now, slot, pending, who, data.as_deref());
            }
            // [MQTT5-4.12.0-1] [MQTT5-4.12.0-4]
            (Phase::Authenticating, AuthAnswer::Refuse { reason, text, label }) => {
                self.counters.auth.add(label);
                self.links[slot as usize].extra().exchange = 0;
                self.refuse_connect(now, slot, reason, label, text);
            }
            (Phase::Authenticating | Phase::Open, AuthAnswer::Continue { data }) => {
                // [MQTT5-4.12.0-2]
                self.send_auth(slot, ReasonCode::CONTINUE_AUTHENTICATION, Some(&data));
                self.resume(now, slot, pause::HANDSHAKE);
            }
            (Phase::Open, AuthAnswer::Accept { account, groups, expires_at_ms, data }) => {
                let key = self.links[slot as usize].session;
                if *self.sessions[key as usize].who.account != *account {
                    return self.refuse(
                        now,
                        slot,
                        ReasonCode::NOT_AUTHORIZED,
                        "reauth_other_account",
                        "re-authentication must be as the same account",
                    );
                }
                self.counters.auth.add("reauthenticated");
                let who = self.who_is(&account, groups);
                self.sessions[key as usize].who = who;
                self.router.invalidate();
                let extra = self.links[slot as usize].extra();
                extra.exchange = 0;
                extra.expires_at_ms = expires_at_ms;
                self.arm_token(now, link);
                self.send_auth(slot, ReasonCode::SUCCESS, data.as_deref());
            }
            (Phase::Open, AuthAnswer::Refuse { reason, text, label }) => {
                // [MQTT5-4.12.1-2]
                self.counters.auth.add(label);
                self.links[slot as usize].extra().exchange = 0;
                self.refuse(now, slot, reason, label, text);
            }
            _ => {}
        }
    }

    fn send_auth(&mut self, slot: u32, reason: ReasonCode, data: Option<&[u8]>) {
        let mut properties = vec![];
        if let Some(method) = self.links[slot as usize].extra.as_ref().and_then(|e| e.auth_method.as_deref()) {
            Property::AuthenticationMethod(method).encode(&mut properties); // [MQTT5-4.12.0-5]
        }
        if let Some(data) = data {
            Property::AuthenticationData(data).encode(&mut properties);
        }
        self.send(slot, &Packet::Auth(Auth { reason, properties: Properties::from_validated(&properties) }));
    }

    pub(super) fn on_auth(&mut self, now: Now, slot: u32, auth: &Auth<'_>) {
        let l = &mut self.links[slot as usize];
        let (phase, version, address, allow_anonymous) = (l.phase, l.version, l.address, l.allow_anonymous);
        let extra = l.extra();
        // [MQTT5-4.12.0-6] [MQTT5-4.12.0-7] [MQTT5-4.12.1-1]: only after a CONNECT with that very method.
        let same =
            extra.auth_method.is_some() && auth.properties.authentication_method() == extra.auth_method.as_deref();
        if version == Version::V311 || !same {
            return self.refuse(
                now,
                slot,
                ReasonCode::PROTOCOL_ERROR,
                "auth_method_changed",
                "AUTH needs the Authentication Method of CONNECT",
            );
        }
        let (step, exchange) = match (auth.reason, phase, extra.exchange) {
            // One step at a time: the next is not due before this one was answered.
            (ReasonCode::CONTINUE_AUTHENTICATION, _, 1..) if !extra.asked => (AuthStep::Continue, extra.exchange),
            (ReasonCode::RE_AUTHENTICATE, Phase::Open, 0) => {
                self.next_exchange += 1;
                (AuthStep::ReAuthenticate, self.next_exchange)
            }
            _ => {
                return self.refuse(
                    now,
                    slot,
                    ReasonCode::PROTOCOL_ERROR,
                    "auth_out_of_order",
                    "this AUTH is not expected now",
                );
            }
        };
        let l = &mut self.links[slot as usize];
        let key = l.session;
        let extra = l.extra();
        extra.exchange = exchange;
        let pending_id = extra.pending.as_ref().map(|p| p.client_id.clone());
        let method = extra.auth_method.as_deref().map(str::to_owned);
        let certificate = extra.certificate.clone();
        let client_id =
            pending_id.or_else(|| self.sessions.get(key as usize).map(|s| s.client_id.to_string())).unwrap_or_default();
        let request = AuthRequest {
            exchange,
            step,
            client_id,
            username: None,
            password: None,
            method,
            data: auth.properties.authentication_data().unwrap_or_default().to_vec(),
            certificate,
            peer: address,
            allow_anonymous,
        };
        if phase == Phase::Authenticating {
            self.pause(slot, pause::HANDSHAKE);
        }
        self.ask(slot, request);
    }

    /// Asks the authenticator; the link counts as waiting until the answer comes or it ends.
    pub(super) fn ask(&mut self, slot: u32, request: AuthRequest) {
        self.links[slot as usize].extra().asked = true;
        self.authenticating += 1;
        let link = self.id_of(slot);
        self.effects.push_back(Effect::Authenticate(link, Box::new(request)));
    }

    /// The authenticator has answered, or nobody waits for its answer any more.
    pub(super) fn answered(&mut self, slot: u32) {
        if let Some(extra) = &mut self.links[slot as usize].extra
            && core::mem::take(&mut extra.asked)
        {
            self.authenticating -= 1;
        }
    }
}
