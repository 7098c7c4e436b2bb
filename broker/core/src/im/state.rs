//! Reported and desired state of devices, their descriptions, and Home Assistant discovery.
//!
//! A device reports what is; who may command it says what is desired. The two are kept whole and changed by merge
//! patches, so that a device may sleep through any number of changes and then learn what is left of them.

mod describe;
mod discovery;
mod patch;
#[cfg(test)]
mod tests;

use super::model::AccountNo;
use super::online::Class;
use super::row::{RowWriter, read_u32, reader};
use super::{Code, Done, Im, Origin, Refusal, Verdict, object, row};
use crate::hub::Now;
use crate::store::bytes::{DecodeError, Reader};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Second half of a row's key: the state, or the description.
const STATE: u64 = 0;
const DESCRIPTION: u64 = 1;

/// What is kept of one device.
#[derive(Debug, Default)]
struct Device {
    /// Changed at least once.
    version: u64,
    reported: Map<String, Value>,
    desired: Map<String, Value>,
    /// Who caused the last change.
    by: Option<AccountNo>,
    /// When, milliseconds since 1970.
    ts: u64,
    description: Option<Value>,
    /// Home Assistant's prefix below which the description is published; empty: it is not.
    prefix: String,
}

/// States and descriptions of all devices.
#[derive(Debug, Default)]
pub(crate) struct States {
    devices: BTreeMap<AccountNo, Device>,
}

impl Im {
    // ---- Requests --------------------------------------------------------------------------------------------

    pub(super) fn on_desired(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        to: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        let device = self.commanded_device(origin, to)?;
        let patch = self.state_patch(payload)?;
        let state = self.states.devices.entry(device).or_default();
        let changed = patch::merged(&state.desired, &patch);
        if changed == state.desired {
            return Ok(self.state_done(origin, device));
        }
        check_size(&changed, self.limits.im_state_bytes_max, "desired")?;
        let state = self.states.devices.entry(device).or_default();
        state.desired = changed;
        let is_open = !patch::difference(&state.desired, &state.reported).is_empty();
        self.write_state(now, device, origin.account);
        if is_open {
            self.told_deltas.push(device);
        }
        Ok(self.state_done(origin, device))
    }

    pub(super) fn on_reported(&mut self, now: Now, origin: &Origin<'_>, payload: &[u8]) -> Result<Verdict, Refusal> {
        let device = origin.account;
        let patch = self.state_patch(payload)?;
        let state = self.states.devices.entry(device).or_default();
        let changed = patch::merged(&state.reported, &patch);
        if changed == state.reported {
            return Ok(self.state_done(origin, device));
        }
        check_size(&changed, self.limits.im_state_bytes_max, "reported")?;
        let by = self.command_of(device).unwrap_or(device);
        let state = self.states.devices.entry(device).or_default();
        let before = patch::difference(&state.desired, &state.reported);
        state.reported = changed;
        let after = patch::difference(&state.desired, &state.reported);
        self.write_state(now, device, by);
        // A device that reports something else is not told again what it has been told.
        if !after.is_empty() && after != before {
            self.told_deltas.push(device);
        }
        Ok(self.state_done(origin, device))
    }

    pub(super) fn on_describe(&mut self, _now: Now, origin: &Origin<'_>, payload: &[u8]) -> Result<Verdict, Refusal> {
        let device = origin.account;
        let most = self.limits.im_description_bytes_max;
        if payload.len() as u64 > most {
            let text = format!("the description has {} bytes, the most is {most}", payload.len());
            return Err(Refusal::new(Code::TooLarge, text));
        }
        let mut given = object(payload)?;
        given.remove("id");
        describe::check(&given)?;
        let description = (!given.is_empty()).then_some(Value::Object(given));
        let known = self.states.devices.entry(device).or_default();
        if known.description != description {
            let before = core::mem::replace(&mut known.description, description);
            self.publish_discovery(device, before.as_ref());
            self.store_description(device);
        }
        let is_asked = origin.session.is_none() || origin.response_topic.is_some();
        let reply = is_asked.then(|| serde_json::json!({ "described": self.description(device).is_some() }));
        Ok(Verdict::Done(Done { durable: true, reply, ..Done::default() }))
    }

    /// Reads a merge patch: an object, and not deeper than what is kept may be.
    fn state_patch(&self, payload: &[u8]) -> Result<Map<String, Value>, Refusal> {
        let most = self.limits.im_state_bytes_max;
        if payload.len() as u64 > most {
            let text = format!("the change has {} bytes, the most is {most}", payload.len());
            return Err(Refusal::new(Code::TooLarge, text));
        }
        let patch = object(payload)?;
        if patch.values().any(|value| patch::depth(value) >= patch::DEPTH) {
            return Err(Refusal::bad(format!("the change is nested deeper than {} levels", patch::DEPTH)));
        }
        Ok(patch)
    }

    fn state_done(&self, origin: &Origin<'_>, device: AccountNo) -> Verdict {
        let version = self.states.devices.get(&device).map_or(0, |state| state.version);
        let is_asked = origin.session.is_none() || origin.response_topic.is_some();
        let reply = is_asked.then(|| serde_json::json!({ "version": version }));
        Verdict::Done(Done { durable: true, reply, ..Done::default() })
    }

    // ---- What other rooms use --------------------------------------------------------------------------------

    /// Payload of `im/v1/state/{device}`; `None`: the device has none.
    pub(super) fn render_state(&self, device: AccountNo) -> Option<Vec<u8>> {
        let state = self.states.devices.get(&device).filter(|state| state.version != 0)?;
        let by = state.by.map(|by| &**self.name_of(by));
        let shown = serde_json::json!({
            "version": state.version, "reported": state.reported, "desired": state.desired, "by": by, "ts": state.ts,
        });
        Some(shown.to_string().into_bytes())
    }

    /// Payload of `im/v1/me/delta`; `None`: reported and desired agree.
    pub(super) fn render_delta(&self, device: AccountNo) -> Option<Vec<u8>> {
        let state = self.states.devices.get(&device)?;
        let delta = patch::difference(&state.desired, &state.reported);
        if delta.is_empty() {
            return None;
        }
        Some(serde_json::json!({ "version": state.version, "desired": delta }).to_string().into_bytes())
    }

    /// What a device says it can do.
    pub(super) fn description(&self, device: AccountNo) -> Option<&Value> {
        self.states.devices.get(&device)?.description.as_ref()
    }

    /// An account was removed: so are its state and its description, and Home Assistant is told.
    pub(super) fn state_account_removed(&mut self, device: AccountNo) {
        let Some(known) = self.states.devices.get_mut(&device) else { return };
        let before = known.description.take();
        self.publish_discovery(device, before.as_ref());
        self.states.devices.remove(&device);
        self.del(row::STATE, device.0.into(), STATE);
        self.del(row::STATE, device.0.into(), DESCRIPTION);
    }

    pub(super) fn restore_state(&mut self, device: AccountNo, part: u64, value: &[u8]) -> Result<(), DecodeError> {
        let mut r = reader(value)?;
        let is_known = |account: AccountNo| account.at() < self.dir.accounts.len();
        if !is_known(device) {
            return Err(DecodeError::Truncated);
        }
        if part == DESCRIPTION {
            let (prefix, description) = (r.str()?.to_owned(), read_object(&mut r)?);
            let state = self.states.devices.entry(device).or_default();
            (state.prefix, state.description) = (prefix, Some(Value::Object(description)));
            return Ok(());
        }
        let (version, by, ts) = (r.int()?, AccountNo(read_u32(&mut r)?), r.int()?);
        let (reported, desired) = (read_object(&mut r)?, read_object(&mut r)?);
        let by = is_known(by).then_some(by);
        let state = self.states.devices.entry(device).or_default();
        (state.version, state.by, state.ts) = (version, by, ts);
        (state.reported, state.desired) = (reported, desired);
        Ok(())
    }

    /// Every row was read, or settings have changed: what depends on settings is said again.
    pub(super) fn states_restored(&mut self, _now: Now) {
        let devices: Vec<AccountNo> = self.states.devices.keys().copied().collect();
        for device in devices {
            let Some(known) = self.states.devices.get(&device).filter(|known| known.description.is_some()) else {
                continue;
            };
            let before = known.prefix.clone();
            self.publish_discovery(device, None);
            if self.states.devices.get(&device).is_some_and(|known| known.prefix != before) {
                self.store_description(device);
            }
        }
    }

    // ---- Changes ---------------------------------------------------------------------------------------------

    /// A device's state has changed: it is written, and told when it is on disk.
    fn write_state(&mut self, now: Now, device: AccountNo, by: AccountNo) {
        let state = self.states.devices.entry(device).or_default();
        state.version += 1;
        state.by = Some(by);
        state.ts = now.wall_ms;
        let mut w = RowWriter::new(1);
        w.int(state.version).int(by.0.into()).int(state.ts);
        w.str(&text(&state.reported)).str(&text(&state.desired));
        self.put(row::STATE, device.0.into(), STATE, &w.0);
        self.told_states.push(device);
    }

    /// Everybody who may see a device's state is told what it is now.
    pub(super) fn state_changed(&mut self, device: AccountNo) {
        let topic = format!("im/v1/state/{}", self.name_of(device));
        for viewer in self.visible_to(device) {
            for at in 0..self.dir.accounts[viewer.at()].online.len() {
                let place = self.dir.accounts[viewer.at()].online[at];
                let Some(o) = self.online.get_mut(place as usize) else { continue };
                if o.wants_topic(Class::State, &topic).is_some() {
                    o.state_dirty.insert(device);
                    self.wake(place);
                }
            }
        }
    }

    /// What is desired and not reported has changed: the device is told.
    pub(super) fn delta_changed(&mut self, device: AccountNo) {
        for at in 0..self.dir.accounts[device.at()].online.len() {
            let place = self.dir.accounts[device.at()].online[at];
            let Some(o) = self.online.get_mut(place as usize) else { continue };
            if o.wants(Class::Delta) {
                o.delta_dirty = true;
                self.wake(place);
            }
        }
    }

    fn store_description(&mut self, device: AccountNo) {
        let Some(known) = self.states.devices.get(&device) else { return };
        let Some(Value::Object(description)) = &known.description else {
            return self.del(row::STATE, device.0.into(), DESCRIPTION);
        };
        let mut w = RowWriter::new(1);
        w.str(&known.prefix).str(&text(description));
        self.put(row::STATE, device.0.into(), DESCRIPTION, &w.0);
    }
}

fn check_size(object: &Map<String, Value>, most: u64, what: &str) -> Result<(), Refusal> {
    let len = text(object).len() as u64;
    if len > most {
        let text = format!("the {what} state would have {len} bytes, the most is {most}: remove keys with null");
        return Err(Refusal::new(Code::TooLarge, text));
    }
    Ok(())
}

fn text(object: &Map<String, Value>) -> String {
    serde_json::to_string(object).unwrap_or_default()
}

fn read_object(r: &mut Reader<'_>) -> Result<Map<String, Value>, DecodeError> {
    // This program wrote it as JSON; what does not read back is treated as damaged bytes.
    serde_json::from_str(r.str()?).map_err(|_| DecodeError::Truncated)
}
