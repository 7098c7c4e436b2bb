//! Pairing: a person's one-time code makes a device's account, its contact and its place in the household.
//!
//! A code is 40 bits that live for ten minutes, so guessing it has to be slow: the hub delays whoever is wrong, and too
//! many wrong codes in a minute, from wherever, shut the door for a minute. The code itself is kept nowhere, only two
//! hashes of it with a salt of its own: who reads the disk has to try about as long as the code lives.
//!
//! The first use binds a code to one name and makes the account. Until the device shows that it has its credentials
//! (it acknowledges them, or comes in with them), the same code gives it new ones for that account and no other, so
//! that an answer that is lost loses nothing.

#[cfg(test)]
mod tests;

use super::contact::Contacts;
use super::model::{AccountKind, AccountNo, ContactOp, ConvKind, ConvNo, Role};
use super::name::is_address_of_account;
use super::online::{Class, Note, Tag};
use super::row::{RowWriter, read_u32, reader};
use super::{Asker, Code, Done, Im, ImTimer, Origin, Out, Refusal, Reply, Verdict, object, row, shorten, text};
use crate::hash::sip;
use crate::hub::Now;
use crate::store::Fact;
use crate::store::bytes::DecodeError;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};

/// Account of a connection that came in with a code: it is nobody yet.
pub(crate) const PAIRING_ACCOUNT: AccountNo = AccountNo(u32::MAX);

/// 32 letters and digits of which no two are taken for each other.
const ALPHABET: &[u8; 32] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";
/// Characters of a code, without the dash in its middle.
const CODE_CHARS: usize = 8;
/// Where a device that is being paired hears everything.
const TOPIC: &str = "im/v1/me/paired";
/// How often credentials are made for one code.
const USES_MAX: u32 = 10;
/// Wrong codes are counted over this time, and that long the door stays shut.
const SHUT_MS: u64 = 60_000;

/// Asks the driver for credentials: a random password of 128 bits at least, and the account record that holds its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairRequest {
    /// Names the exchange; `Hub::paired` carries it too.
    pub exchange: u64,
    /// Name of the account that is being made.
    pub name: String,
}

/// Codes that were given out, and the other invitations: requests to be a contact.
#[derive(Debug, Default)]
pub(crate) struct Pairings {
    /// By the first half of their hash.
    codes: BTreeMap<u64, PairCode>,
    last_exchange: u64,
    /// When the latest wrong codes came, by the clock that only moves forward.
    wrong: VecDeque<u64>,
    /// Until then no code is looked at.
    shut_until_ms: u64,
    pub(super) contacts: Contacts,
}

/// One code.
#[derive(Debug)]
struct PairCode {
    salt: u64,
    /// Second half of the hash.
    check: u64,
    owner: AccountNo,
    household: ConvNo,
    /// Milliseconds since 1970.
    until_ms: u64,
    /// The only name it can be used for; empty: any.
    name: String,
    /// The account it has made.
    device: Option<AccountNo>,
    uses: u32,
    /// Credentials are being made.
    exchange: Option<Exchange>,
    /// The session that was last sent credentials, and its generation.
    told: Option<(u32, u32)>,
}

/// Credentials that are being made.
#[derive(Debug)]
struct Exchange {
    no: u64,
    name: String,
    asker: Asker,
}

impl PairCode {
    fn encode(&self) -> Vec<u8> {
        let mut w = RowWriter::new(1);
        w.int(self.salt).int(self.check).int(self.owner.0.into()).int(self.household.0.into()).int(self.until_ms);
        w.str(&self.name).flag(self.device.is_some()).int(self.device.map_or(0, |no| no.0.into()));
        w.0
    }

    fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut r = reader(value)?;
        let (salt, check) = (r.int()?, r.int()?);
        let (owner, household) = (AccountNo(read_u32(&mut r)?), ConvNo(read_u32(&mut r)?));
        let (until_ms, name) = (r.int()?, r.str()?.to_owned());
        let (is_used, device) = (r.byte()? != 0, AccountNo(read_u32(&mut r)?));
        let device = is_used.then_some(device);
        Ok(Self { salt, check, owner, household, until_ms, name, device, uses: 0, exchange: None, told: None })
    }
}

impl Im {
    // ---- The person ------------------------------------------------------------------------------------------

    /// A person asks for a code.
    pub(super) fn on_pair(&mut self, now: Now, origin: &Origin<'_>, payload: &[u8]) -> Result<Verdict, Refusal> {
        let me = self.acting(origin)?;
        let fields = object(payload)?;
        if self.dir.accounts[me.at()].kind != AccountKind::Person {
            return Err(Refusal::new(Code::Forbidden, "only a person pairs devices"));
        }
        self.not_too_fast(now, origin)?;
        let address = text(&fields, "household")?.ok_or_else(|| Refusal::bad("\"household\" is missing: g-…"))?;
        let household = self.household_to_pair(me, address)?;
        let name = text(&fields, "name")?.unwrap_or_default();
        if !name.is_empty() {
            self.is_free(name, None)?;
        }
        self.pairing_due(now);
        let most = self.limits.im_pairing_codes_max;
        if self.pairings.codes.values().filter(|code| code.owner == me).count() as u64 >= most {
            let text = format!("you have {most} codes that are not used (limits.im_pairing_codes_max)");
            return Err(Refusal::new(Code::Quota, text));
        }
        let until_ms = now.wall_ms.saturating_add(self.limits.im_pairing_code_secs.saturating_mul(1000));
        let secret = (self.draw(), self.draw());
        let (plain, salt) = (letters(sip(secret, 0)), sip(secret, 1));
        let (key, check) = hashes(salt, word_of(plain));
        let name = name.to_owned();
        let (device, exchange, told) = (None, None, None);
        let code = PairCode { salt, check, owner: me, household, until_ms, name, device, uses: 0, exchange, told };
        self.put(row::PAIRING, key, 0, &code.encode());
        self.pairings.codes.insert(key, code);
        self.arm_wall(now, until_ms, ImTimer::Pairing);
        let (first, second) = plain.split_at(CODE_CHARS / 2);
        let shown = format!("{}-{}", String::from_utf8_lossy(first), String::from_utf8_lossy(second));
        Ok(Verdict::Done(Done::stored(json!({ "code": shown, "until": until_ms, "household": address }))))
    }

    /// The household of this address, if `me` may bring a device into it.
    fn household_to_pair(&self, me: AccountNo, address: &str) -> Result<ConvNo, Refusal> {
        let households = &self.dir.accounts[me.at()].households;
        let of_address = |no: &&ConvNo| match &self.dir.convs[no.at()].kind {
            ConvKind::Group(group) => *group.address == *address,
            _ => false,
        };
        let unknown = || Refusal::not_found(format!("you are in no household {}", shorten(address)));
        let household = *households.iter().find(of_address).ok_or_else(unknown)?;
        self.may_pair(me, household)?;
        Ok(household)
    }

    /// Whether `me` may bring one device more into this household.
    fn may_pair(&self, me: AccountNo, household: ConvNo) -> Result<(), Refusal> {
        let conv = &self.dir.convs[household.at()];
        match conv.member(me).map(|member| member.role) {
            None => return Err(Refusal::not_found("whoever made the code is in that household no more")),
            Some(Role::Guest) => {
                return Err(Refusal::new(Code::Forbidden, "a guest brings no device into a household"));
            }
            Some(Role::Member | Role::Owner) => {}
        }
        let most = self.limits.im_group_members_max;
        if conv.members.len() as u64 >= most {
            let text = format!("the household has {most} members (limits.im_group_members_max)");
            return Err(Refusal::new(Code::Quota, text));
        }
        self.has_room_for_contact(me, PAIRING_ACCOUNT)
    }

    /// Whether a device may have this name. `code` is the one that wants it.
    fn is_free(&self, name: &str, code: Option<u64>) -> Result<(), Refusal> {
        if !is_address_of_account(name) {
            let text = format!("{} is no name an account can have (docs/protocol.md, section 1)", shorten(name));
            return Err(Refusal::bad(text));
        }
        let wanted = |(key, other): (&u64, &PairCode)| {
            code != Some(*key) && (other.name == name || other.exchange.as_ref().is_some_and(|e| e.name == name))
        };
        if self.dir.by_name.contains_key(name) || self.pairings.codes.iter().any(wanted) {
            return Err(Refusal::new(Code::Exists, format!("the name {name} is taken")));
        }
        Ok(())
    }

    // ---- The device ------------------------------------------------------------------------------------------

    /// Whether a connection may come in with this code as its password. Every wrong one counts.
    pub(crate) fn pairing_login(&mut self, now: Now, code: &str) -> Result<(), Refusal> {
        self.code_of(now, code).map(|_| ())
    }

    /// The key of a code that is good now.
    fn code_of(&mut self, now: Now, code: &str) -> Result<u64, Refusal> {
        if now.ms < self.pairings.shut_until_ms {
            self.counters.refused.add("pairing_shut");
            let text = "too many wrong codes were tried: wait a minute and try again";
            return Err(Refusal::new(Code::Quota, text));
        }
        let plain: Vec<u8> = code.bytes().filter(u8::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect();
        if let Ok(plain) = <[u8; CODE_CHARS]>::try_from(plain) {
            let word = word_of(plain);
            let fits = |(key, code): &(&u64, &PairCode)| {
                now.wall_ms < code.until_ms && hashes(code.salt, word) == (**key, code.check)
            };
            if let Some((key, _)) = self.pairings.codes.iter().find(fits) {
                return Ok(*key);
            }
        }
        self.count_wrong(now);
        Err(Refusal::not_found("there is no such code, or its ten minutes are over: ask for a new one"))
    }

    fn count_wrong(&mut self, now: Now) {
        self.counters.refused.add("pairing_wrong");
        let (wrong, most) = (&mut self.pairings.wrong, self.limits.im_pairing_wrong_max);
        wrong.push_back(now.ms);
        while wrong.front().is_some_and(|at| at.saturating_add(SHUT_MS) <= now.ms) {
            wrong.pop_front();
        }
        if wrong.len() as u64 >= most {
            wrong.clear();
            self.pairings.shut_until_ms = now.ms.saturating_add(SHUT_MS);
            let text = format!("{most} wrong pairing codes within a minute: no code is taken for a minute");
            self.out.push_back(Out::Notice { label: "pairing_shut", text });
        }
    }

    /// A device that came in with a code says its name.
    pub(super) fn on_paired(&mut self, now: Now, origin: &Origin<'_>, payload: &[u8]) -> Result<Verdict, Refusal> {
        if origin.account != PAIRING_ACCOUNT {
            return Err(Refusal::new(
                Code::Forbidden,
                "only a connection with user name \"pair\" and a code does that",
            ));
        }
        let fields = object(payload)?;
        let code = match origin.session {
            Some(_) => origin.id,
            None => text(&fields, "code")?,
        };
        let code = code.ok_or_else(|| Refusal::bad("\"code\" is missing"))?;
        let mut asker = Self::asker(origin, "me/paired", fields.get("id").cloned());
        // The only topic that such a connection may subscribe to.
        asker.topic = TOPIC.into();
        let begun = self.code_of(now, code).and_then(|key| self.begin_exchange(key, text(&fields, "name")?, &asker));
        if let Err(refusal) = &begun
            && asker.session.is_some()
        {
            // MQTT 3.1.1 knows no refusal, and this connection has no other topic to hear of it.
            self.refuse_pairing(&asker, refusal);
        }
        begun.map(|()| Verdict::Later)
    }

    fn begin_exchange(&mut self, key: u64, name: Option<&str>, asker: &Asker) -> Result<(), Refusal> {
        let Some(code) = self.pairings.codes.get(&key) else { return Err(Refusal::not_found("the code is over")) };
        let name = match name.unwrap_or_default() {
            "" if code.name.is_empty() => return Err(Refusal::bad("\"name\" is missing: how the device is called")),
            "" => code.name.clone(),
            name if code.name.is_empty() || code.name == name => name.to_owned(),
            _ => return Err(Refusal::new(Code::Forbidden, format!("this code is for the name {}", code.name))),
        };
        if code.uses >= USES_MAX {
            let text = format!("this code was used {USES_MAX} times: ask for a new one");
            return Err(Refusal::new(Code::Quota, text));
        }
        if code.device.is_none() {
            self.may_pair(code.owner, code.household)?;
            self.is_free(&name, Some(key))?;
        }
        self.pairings.last_exchange += 1;
        let exchange = self.pairings.last_exchange;
        if let Some(code) = self.pairings.codes.get_mut(&key) {
            code.uses += 1;
            code.exchange = Some(Exchange { no: exchange, name: name.clone(), asker: asker.clone() });
        }
        self.out.push_back(Out::Pair(Box::new(PairRequest { exchange, name })));
        Ok(())
    }

    // ---- The driver's answer ---------------------------------------------------------------------------------

    /// Credentials were made: `record` goes into the table of accounts, `password` to the device.
    pub(crate) fn paired(&mut self, now: Now, exchange: u64, record: &[u8], password: &str) {
        let Some((key, exchange)) = self.take_exchange(exchange) else { return };
        match self.make_device(now, key, &exchange.name, record) {
            Ok((owner, household)) => {
                let reply = json!({
                    "account": exchange.name,
                    "password": password,
                    "owner": owner,
                    "household": household,
                });
                self.after_commit_tell(exchange.asker, reply);
            }
            Err(refusal) => self.refuse_pairing(&exchange.asker, &refusal),
        }
    }

    fn take_exchange(&mut self, no: u64) -> Option<(u64, Exchange)> {
        let is_it = |code: &PairCode| code.exchange.as_ref().is_some_and(|exchange| exchange.no == no);
        let (key, code) = self.pairings.codes.iter_mut().find(|(_, code)| is_it(code))?;
        let key = *key;
        code.exchange.take().map(|exchange| (key, exchange))
    }

    /// Writes the account with all that belongs to it, in one batch. Returns the names of owner and household.
    fn make_device(&mut self, now: Now, key: u64, name: &str, record: &[u8]) -> Result<(String, String), Refusal> {
        let Some(code) = self.pairings.codes.get(&key) else { return Err(Refusal::not_found("the code is over")) };
        let (owner, household) = (code.owner, code.household);
        let device = match code.device {
            Some(device) if self.account_no(name) == Some(device) => device,
            Some(_) => return Err(Refusal::not_found("the account this code has made is gone")),
            None => {
                self.may_pair(owner, household)?;
                self.is_free(name, Some(key))?;
                let device = self.make_account(now, name, AccountKind::Device);
                self.befriend(now, owner, device);
                // The owner learns that it has a contact more.
                self.tell_contact(now, device, owner, ContactOp::Accept);
                self.join(now, household, owner, device, Role::Member);
                device
            }
        };
        self.facts.push(&Fact::Account { name, record });
        self.out.push_back(Out::AccountMade { name: name.to_owned(), record: record.to_vec() });
        if let Some(code) = self.pairings.codes.get_mut(&key) {
            code.device = Some(device);
            name.clone_into(&mut code.name);
            let value = code.encode();
            self.put(row::PAIRING, key, 0, &value);
        }
        Ok((self.name_of(owner).to_string(), self.address_for(household, owner).to_string()))
    }

    /// Sends a device its credentials, now that they are on disk.
    pub(super) fn tell_paired(&mut self, session: (u32, u32), asker: &Asker, reply: Value) {
        let account = reply["account"].as_str().and_then(|name| self.account_no(name));
        for code in self.pairings.codes.values_mut().filter(|code| code.device.is_some() && code.device == account) {
            code.told = Some(session);
        }
        self.note_paired(session, asker, reply, Tag::Paired);
    }

    fn refuse_pairing(&mut self, asker: &Asker, refusal: &Refusal) {
        let Some(session) = asker.session else {
            self.counters.refused.add(refusal.code.text());
            let reply = Reply::Refused { code: refusal.code.text(), text: refusal.text.clone() };
            self.out.push_back(Out::Replied { token: asker.token, reply });
            return;
        };
        let reply = json!({ "code": refusal.code.text(), "text": refusal.text });
        self.note_paired(session, asker, reply, Tag::None);
    }

    /// Sends JSON to the device under the one topic it may subscribe to.
    fn note_paired(&mut self, session: (u32, u32), asker: &Asker, mut reply: Value, tag: Tag) {
        let Some(&online) = self.by_session.get(&session.0) else { return };
        if self.online[online as usize].generation != session.1 {
            return;
        }
        if let Some(id) = &asker.id {
            reply["id"] = id.clone();
        }
        let mut note = Note::new(Class::Paired, TOPIC, reply.to_string().as_bytes());
        (note.correlation, note.tag) = (asker.correlation.clone(), tag);
        self.note(online, note);
    }

    // ---- How a code ends -------------------------------------------------------------------------------------

    /// The device has shown that it has its credentials: the code that made it is over.
    pub(crate) fn pairing_ended(&mut self, device: AccountNo) {
        if !self.pairings.codes.is_empty() {
            self.end_codes(|code| code.device == Some(device));
        }
    }

    /// The device has acknowledged its credentials.
    pub(super) fn pairing_heard(&mut self, _now: Now, online: u32) {
        let Some(o) = self.online.get(online as usize) else { return };
        let session = (o.session, o.generation);
        self.end_codes(|code| code.told == Some(session));
    }

    /// An account is gone, and with it the codes it has given out and the one that made it.
    pub(super) fn forget_pairings(&mut self, gone: AccountNo) {
        self.end_codes(|code| code.owner == gone || code.device == Some(gone));
    }

    pub(super) fn pairing_due(&mut self, now: Now) {
        self.end_codes(|code| code.until_ms <= now.wall_ms);
        if let Some(next) = self.pairings.codes.values().map(|code| code.until_ms).min() {
            // A time of day that was put back, or a start, moves deadlines: there is always one timer that fits.
            self.arm_wall(now, next, ImTimer::Pairing);
        }
    }

    fn end_codes(&mut self, is_over: impl Fn(&PairCode) -> bool) {
        let over: Vec<u64> =
            self.pairings.codes.iter().filter(|(_, code)| is_over(code)).map(|(key, _)| *key).collect();
        for key in over {
            self.del(row::PAIRING, key, 0);
            if let Some(code) = self.pairings.codes.remove(&key)
                && let Some(exchange) = code.exchange
            {
                self.refuse_pairing(&exchange.asker, &Refusal::not_found("the code is over: ask for a new one"));
            }
        }
    }

    pub(super) fn restore_pairing(&mut self, hash: u64, value: &[u8]) -> Result<(), DecodeError> {
        self.pairings.codes.insert(hash, PairCode::decode(value)?);
        Ok(())
    }

    /// Every row was read: deadlines are set.
    pub(super) fn pairings_restored(&mut self, now: Now) {
        self.pairing_due(now);
    }
}

/// The code that the lowest 40 of these bits are.
fn letters(bits: u64) -> [u8; CODE_CHARS] {
    let mut rest = bits;
    [(); CODE_CHARS].map(|()| {
        let letter = ALPHABET[usize::try_from(rest & 31).unwrap_or_default()];
        rest >>= 5;
        letter
    })
}

fn word_of(code: [u8; CODE_CHARS]) -> u64 {
    u64::from_le_bytes(code)
}

/// Two independent hashes of a code, as they are stored: with both equal it is the same one.
fn hashes(salt: u64, word: u64) -> (u64, u64) {
    (sip((salt, 1), word), sip((salt, 2), word))
}
