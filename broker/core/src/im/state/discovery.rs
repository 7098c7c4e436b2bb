//! Descriptions as Home Assistant's MQTT device discovery: one retained message a device, one component for each
//! thing that can be seen or set.
//!
//! The form is that of <https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload>: below the prefix
//! at `device/{id}/config`, with `device`, `origin`, `components`, and `state_topic`, `command_topic` and templates in
//! each component. An empty message removes the device; a component that holds its platform only removes that one.

use super::super::model::AccountNo;
use super::super::{Im, Out};
use super::describe::number;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Modes that Home Assistant's climate knows.
const CLIMATE_MODES: [&str; 7] = ["auto", "off", "cool", "heat", "dry", "fan_only", "heat_cool"];
/// Unit, word that must be in the name (empty: any), device class.
const DEVICE_CLASSES: [(&str, &str, &str); 15] = [
    ("°C", "", "temperature"),
    ("°F", "", "temperature"),
    ("%", "hum", "humidity"),
    ("%", "bat", "battery"),
    ("%", "moist", "moisture"),
    ("W", "", "power"),
    ("kW", "", "power"),
    ("Wh", "", "energy"),
    ("kWh", "", "energy"),
    ("V", "", "voltage"),
    ("A", "", "current"),
    ("hPa", "", "atmospheric_pressure"),
    ("lx", "", "illuminance"),
    ("ppm", "co2", "carbon_dioxide"),
    ("dBm", "", "signal_strength"),
];

impl Im {
    /// Tells Home Assistant what a device can do now; `before` is what it could until now.
    pub(super) fn publish_discovery(&mut self, device: AccountNo, before: Option<&Value>) {
        let name = Rc::clone(self.name_of(device));
        let Some(known) = self.states.devices.get_mut(&device) else { return };
        let components = known.description.as_ref().map(|d| components(&name, d)).unwrap_or_default();
        let prefix = match (&self.settings.home_assistant, components.is_empty()) {
            (Some(prefix), false) => prefix.clone(),
            _ => String::new(),
        };
        let description = known.description.clone().unwrap_or_default();
        let earlier = core::mem::replace(&mut known.prefix, prefix.clone());
        if !earlier.is_empty() && earlier != prefix {
            self.put_discovery(&earlier, &name, vec![]);
        }
        if prefix.is_empty() {
            return;
        }
        let gone = gone(&name, before, &components);
        if earlier == prefix && !gone.is_empty() {
            // First with what is gone as bare platforms, which removes them, then without.
            let both = gone.into_iter().chain(components.clone()).collect();
            self.put_discovery(&prefix, &name, message(&name, &description, &both));
        }
        self.put_discovery(&prefix, &name, message(&name, &description, &components));
    }

    fn put_discovery(&mut self, prefix: &str, device: &str, payload: Vec<u8>) {
        // Only A-Z a-z 0-9 _ - may be in this level, and no name has capitals.
        let id = device.replace('.', "DOT");
        self.out.push_back(Out::Plain { topic: format!("{prefix}/device/{id}/config"), payload });
    }
}

/// The whole message.
fn message(device: &str, description: &Value, components: &Map<String, Value>) -> Vec<u8> {
    let mut about = json!({ "identifiers": [format!("parlor:{device}")] });
    about["name"] = description.get("name").cloned().unwrap_or_else(|| device.into());
    if let Some(model) = description.get("model") {
        about["model"] = model.clone();
    }
    let message = json!({
        "device": about,
        "origin": { "name": "Parlor", "sw_version": env!("CARGO_PKG_VERSION") },
        "availability_topic": format!("im/v1/presence/{device}/avail"),
        "qos": 1,
        "components": components,
    });
    message.to_string().into_bytes()
}

/// Components that were there before and are not now, as what removes them.
fn gone(device: &str, before: Option<&Value>, now: &Map<String, Value>) -> Map<String, Value> {
    let before = before.map(|description| components(device, description)).unwrap_or_default();
    let is_gone = |(id, _): &(String, Value)| !now.contains_key(id);
    before.into_iter().filter(is_gone).map(|(id, c)| (id, json!({ "platform": c["platform"] }))).collect()
}

/// What Home Assistant is to show of a device.
fn components(device: &str, description: &Value) -> Map<String, Value> {
    let empty = Map::new();
    let part = |key: &str| description.get(key).and_then(Value::as_object).unwrap_or(&empty);
    let mut house = House { device, seen: BTreeMap::new(), set: vec![], components: Map::new() };
    for (key, field) in part("state") {
        if let Some(field) = field.as_object() {
            house.seen.insert(key, field);
        }
    }
    for (command, about) in part("commands") {
        house.take_in(command, about.get("args").and_then(Value::as_object).unwrap_or(&empty));
    }
    house.climate();
    house.light();
    for control in core::mem::take(&mut house.set) {
        house.control(&control);
    }
    for (key, field) in core::mem::take(&mut house.seen) {
        house.sensor(key, field);
    }
    house.components
}

/// One argument that Home Assistant can set by itself.
struct Control<'a> {
    command: &'a str,
    arg: &'a str,
    field: &'a Map<String, Value>,
}

/// A device while its components are found.
struct House<'a> {
    device: &'a str,
    /// States that no component shows yet.
    seen: BTreeMap<&'a str, &'a Map<String, Value>>,
    /// Arguments that no component sets yet.
    set: Vec<Control<'a>>,
    components: Map<String, Value>,
}

impl<'a> House<'a> {
    /// `set` may be given any of its arguments; another command must have one at most, as that is all that one
    /// component can give.
    fn take_in(&mut self, command: &'a str, args: &'a Map<String, Value>) {
        if args.is_empty() {
            return self.button(command);
        }
        if command != "set" && args.len() > 1 {
            return;
        }
        for (arg, field) in args {
            if let Some(field) = field.as_object() {
                self.set.push(Control { command, arg, field });
            }
        }
    }

    /// Takes out an argument of `set` that is also a state of the same type, when it is one of these types.
    fn take(&mut self, arg: &str, types: &[&str]) -> Option<Control<'a>> {
        let fits = |control: &Control<'_>| {
            control.command == "set"
                && control.arg == arg
                && types.contains(&kind(control.field))
                && self.seen.get(arg).is_some_and(|field| kind(field) == kind(control.field))
        };
        let at = self.set.iter().position(fits)?;
        self.seen.remove(arg);
        Some(self.set.remove(at))
    }

    fn add(&mut self, platform: &str, key: &str, mut component: Value) {
        let id = format!("{platform}_{key}");
        component["platform"] = platform.into();
        component["unique_id"] = format!("parlor:{}:{id}", self.device).into();
        component["name"] = title(key).into();
        self.components.insert(id, component);
    }

    fn state_topic(&self) -> String {
        format!("im/v1/state/{}", self.device)
    }

    fn command_topic(&self, command: &str) -> String {
        format!("im/v1/to/{}/cmd/{command}", self.device)
    }

    fn button(&mut self, command: &str) {
        let mut component = json!({ "command_topic": self.command_topic(command), "payload_press": "{\"args\":{}}" });
        match command {
            "restart" | "reboot" => component["device_class"] = "restart".into(),
            "identify" => component["device_class"] = "identify".into(),
            _ => {}
        }
        self.add("button", command, component);
    }

    /// A `target` temperature makes a climate; `mode` or `on` is its mode, `temp` what it measures.
    fn climate(&mut self) {
        let is_degrees = |field: &Map<String, Value>| matches!(unit(field), Some("°C" | "°F"));
        if !self.seen.get("target").is_some_and(|field| is_degrees(field)) {
            return;
        }
        let Some(target) = self.take("target", &["int", "float"]) else { return };
        let (state, set) = (self.state_topic(), self.command_topic("set"));
        let mut component = json!({
            "temperature_command_topic": set,
            "temperature_command_template": giving("target", "{{ value }}"),
            "temperature_state_topic": state,
            "temperature_state_template": shown("target"),
            "temperature_unit": if unit(target.field) == Some("°F") { "F" } else { "C" },
            "temp_step": if kind(target.field) == "int" { 1.0 } else { 0.5 },
        });
        for (bound, name) in [("min", "min_temp"), ("max", "max_temp")] {
            if let Some(value) = target.field.get(bound) {
                component[name] = value.clone();
            }
        }
        for key in ["temp", "temperature"] {
            if self.seen.get(key).is_some_and(|field| is_degrees(field)) {
                component["current_temperature_topic"] = state.as_str().into();
                component["current_temperature_template"] = shown(key).into();
            }
        }
        let has_modes = self.seen.get("mode").is_some_and(|field| {
            let modes = field.get("of").and_then(Value::as_array);
            modes.is_some_and(|of| of.iter().all(|m| m.as_str().is_some_and(|m| CLIMATE_MODES.contains(&m))))
        });
        let mode = if has_modes { self.take("mode", &["enum"]) } else { self.take("on", &["bool"]) };
        component["mode_state_topic"] = state.into();
        match mode {
            Some(mode) if mode.arg == "mode" => {
                component["modes"] = mode.field.get("of").cloned().unwrap_or_default();
                component["mode_command_topic"] = set.into();
                component["mode_command_template"] = giving("mode", "{{ value | to_json }}").into();
                component["mode_state_template"] = shown("mode").into();
            }
            Some(_) => {
                component["modes"] = json!(["off", "heat"]);
                component["mode_command_topic"] = set.into();
                component["mode_command_template"] = giving("on", "{{ 'false' if value == 'off' else 'true' }}").into();
                component["mode_state_template"] = yes_or_no("on", "heat", "off").into();
            }
            None => {
                component["modes"] = json!(["heat"]);
                component["mode_state_template"] = "heat".into();
            }
        }
        self.add("climate", "target", component);
    }

    /// `on` together with `level` or `brightness` makes a light.
    fn light(&mut self) {
        let is_scale = |field: &Map<String, Value>| {
            number(field, "min").is_none_or(|min| min == 0.0) && number(field, "max").is_some_and(|max| max >= 1.0)
        };
        let has_on = self.set.iter().any(|c| c.command == "set" && c.arg == "on" && kind(c.field) == "bool");
        if !has_on || self.seen.get("on").is_none_or(|field| kind(field) != "bool") {
            return;
        }
        for key in ["brightness", "level"] {
            if !self.seen.get(key).is_some_and(|field| is_scale(field)) {
                continue;
            }
            let Some(level) = self.take(key, &["int"]) else { continue };
            let max = level.field.get("max").cloned().unwrap_or_default();
            self.take("on", &["bool"]);
            let on = format!(
                "{{\"args\":{{\"on\":true{{% if brightness is defined %}},\"{key}\":\
                 {{{{ [1, (brightness * {max} / 255) | round | int] | max }}}}{{% endif %}}}}}}"
            );
            let component = json!({
                "schema": "template",
                "command_topic": self.command_topic("set"),
                "command_on_template": on,
                "command_off_template": giving("on", "false"),
                "state_topic": self.state_topic(),
                "state_template": yes_or_no("on", "on", "off"),
                "brightness_template":
                    format!("{{{{ (value_json.reported['{key}'] | default(0) * 255 / {max}) | round | int }}}}"),
            });
            return self.add("light", "on", component);
        }
    }

    /// One argument by itself: switch, number, select or text.
    fn control(&mut self, control: &Control<'_>) {
        let Control { command, arg, field } = *control;
        let is_seen = self.seen.get(arg).is_some_and(|seen| kind(seen) == kind(field));
        let mut component = json!({ "command_topic": self.command_topic(command) });
        let platform = match kind(field) {
            "bool" => {
                component["payload_on"] = giving(arg, "true").into();
                component["payload_off"] = giving(arg, "false").into();
                if is_seen {
                    component["state_on"] = "on".into();
                    component["state_off"] = "off".into();
                }
                "switch"
            }
            "enum" => {
                component["options"] = field.get("of").cloned().unwrap_or_default();
                component["command_template"] = giving(arg, "{{ value | to_json }}").into();
                "select"
            }
            "text" => {
                let max = field.get("max").and_then(Value::as_u64).unwrap_or(255);
                component["max"] = max.min(255).into();
                component["command_template"] = giving(arg, "{{ value | to_json }}").into();
                "text"
            }
            _ => {
                component["command_template"] = giving(arg, "{{ value }}").into();
                // Home Assistant would take 1 and 100 where nothing is said.
                component["min"] = field.get("min").cloned().unwrap_or_else(|| json!(-1_000_000));
                component["max"] = field.get("max").cloned().unwrap_or_else(|| json!(1_000_000));
                component["step"] = if kind(field) == "int" { json!(1) } else { json!(0.1) };
                measured(&mut component, arg, field);
                "number"
            }
        };
        if is_seen {
            self.seen.remove(arg);
            component["state_topic"] = self.state_topic().into();
            let template = if platform == "switch" { yes_or_no(arg, "on", "off") } else { shown(arg) };
            component["value_template"] = template.into();
        }
        let key = if is_seen || command == "set" { arg.to_owned() } else { format!("{command}.{arg}") };
        self.add(platform, &key, component);
    }

    /// A state that nothing sets.
    fn sensor(&mut self, key: &str, field: &Map<String, Value>) {
        let mut component = json!({ "state_topic": self.state_topic(), "value_template": shown(key) });
        match kind(field) {
            "bool" => {
                component["value_template"] = yes_or_no(key, "on", "off").into();
                component["payload_on"] = "on".into();
                component["payload_off"] = "off".into();
                return self.add("binary_sensor", key, component);
            }
            "enum" => {
                component["device_class"] = "enum".into();
                component["options"] = field.get("of").cloned().unwrap_or_default();
            }
            "text" => {}
            _ => {
                measured(&mut component, key, field);
                let is_energy = component["device_class"] == "energy";
                component["state_class"] = if is_energy { "total_increasing" } else { "measurement" }.into();
            }
        }
        self.add("sensor", key, component);
    }
}

/// Unit and device class of a number.
fn measured(component: &mut Value, key: &str, field: &Map<String, Value>) {
    let Some(unit) = unit(field) else { return };
    component["unit_of_measurement"] = unit.into();
    let key = key.to_ascii_lowercase();
    let class = DEVICE_CLASSES.iter().find(|(of, word, _)| *of == unit && key.contains(word));
    if let Some((_, _, class)) = class {
        component["device_class"] = (*class).into();
    }
}

fn kind(field: &Map<String, Value>) -> &str {
    field.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn unit(field: &Map<String, Value>) -> Option<&str> {
    field.get("unit").and_then(Value::as_str)
}

/// A reported value as text; `None` is what Home Assistant takes for "unknown".
fn shown(key: &str) -> String {
    format!("{{{{ value_json.reported['{key}'] | default('None') }}}}")
}

/// A reported yes or no as one of two words.
fn yes_or_no(key: &str, yes: &str, no: &str) -> String {
    let is = format!("value_json.reported['{key}']");
    format!("{{{{ 'None' if {is} is not defined else '{yes}' if {is} else '{no}' }}}}")
}

/// The payload, or its template, of a command that gives one argument.
fn giving(arg: &str, value: &str) -> String {
    format!("{{\"args\":{{\"{arg}\":{value}}}}}")
}

/// `night_mode` as `Night mode`.
fn title(key: &str) -> String {
    let mut words = key.replace(['_', '-', '.'], " ");
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(description: &Value) -> Map<String, Value> {
        components("lamp", description)
    }

    #[track_caller]
    fn check(description: &Value, expect: &[&str]) {
        let got = found(description);
        assert_eq!(got.keys().collect::<Vec<_>>(), expect);
        for (id, component) in &got {
            assert_eq!(component["unique_id"], format!("parlor:lamp:{id}"));
        }
    }

    #[test]
    fn what_is_seen_becomes_sensors() {
        let description = json!({"state": {
            "on": {"type": "bool"}, "temp": {"type": "float", "unit": "°C"}, "mode": {"type": "enum", "of": ["a"]},
            "energy": {"type": "int", "unit": "kWh"}, "humidity": {"type": "int", "unit": "%"},
            "fill": {"type": "int", "unit": "%"}, "note": {"type": "text"},
        }});
        check(
            &description,
            &[
                "binary_sensor_on",
                "sensor_energy",
                "sensor_fill",
                "sensor_humidity",
                "sensor_mode",
                "sensor_note",
                "sensor_temp",
            ],
        );
        let found = found(&description);
        assert_eq!(
            found["sensor_temp"],
            json!({
                "platform": "sensor", "unique_id": "parlor:lamp:sensor_temp", "name": "Temp",
                "state_topic": "im/v1/state/lamp", "value_template": "{{ value_json.reported['temp'] | default('None') }}",
                "unit_of_measurement": "°C", "device_class": "temperature", "state_class": "measurement",
            })
        );
        assert_eq!(found["sensor_humidity"]["device_class"], "humidity");
        assert_eq!(found["sensor_fill"].get("device_class"), None);
        assert_eq!(found["sensor_energy"]["state_class"], "total_increasing");
    }

    #[test]
    fn what_is_set_becomes_controls_and_is_no_sensor_too() {
        let args = json!({
            "on": {"type": "bool"}, "speed": {"type": "int", "min": 1, "max": 5}, "mode": {"type": "enum", "of": ["a"]},
            "label": {"type": "text", "max": 300},
        });
        let description = json!({"state": {"on": {"type": "bool"}, "speed": {"type": "int"}},
            "commands": {"set": {"args": args}, "restart": {}, "dim": {"args": {"to": {"type": "float"}}},
                "move": {"args": {"x": {"type": "int"}, "y": {"type": "int"}}}}});
        check(
            &description,
            &["button_restart", "number_dim.to", "number_speed", "select_mode", "switch_on", "text_label"],
        );
        let found = found(&description);
        assert_eq!(found["switch_on"]["payload_on"], r#"{"args":{"on":true}}"#);
        assert_eq!(found["switch_on"]["command_topic"], "im/v1/to/lamp/cmd/set");
        assert_eq!(found["number_speed"]["command_template"], r#"{"args":{"speed":{{ value }}}}"#);
        assert_eq!((&found["number_speed"]["min"], &found["number_speed"]["max"]), (&json!(1), &json!(5)));
        assert_eq!(found["number_dim.to"]["command_topic"], "im/v1/to/lamp/cmd/dim");
        assert_eq!(found["number_dim.to"].get("state_topic"), None);
        assert_eq!(found["text_label"]["max"], 255);
        assert_eq!(found["button_restart"]["device_class"], "restart");
    }

    #[test]
    fn on_and_level_make_a_light_and_a_target_makes_a_climate() {
        let both = json!({"on": {"type": "bool"}, "level": {"type": "int", "min": 0, "max": 100}});
        let lamp = json!({"state": both, "commands": {"set": {"args": both}}});
        check(&lamp, &["light_on"]);
        let light = &found(&lamp)["light_on"];
        assert_eq!(
            light["command_on_template"],
            "{\"args\":{\"on\":true{% if brightness is defined %},\"level\":\
             {{ [1, (brightness * 100 / 255) | round | int] | max }}{% endif %}}}"
        );
        assert_eq!(light["command_off_template"], r#"{"args":{"on":false}}"#);
        assert_eq!(
            light["brightness_template"],
            "{{ (value_json.reported['level'] | default(0) * 255 / 100) | round | int }}"
        );
        let seen = json!({"target": {"type": "float", "unit": "°C", "min": 5, "max": 30},
            "mode": {"type": "enum", "of": ["off", "heat"]}, "temp": {"type": "float", "unit": "°C"}});
        let set = json!({"target": {"type": "float", "unit": "°C", "min": 5, "max": 30},
            "mode": {"type": "enum", "of": ["off", "heat"]}});
        let heater = json!({"state": seen, "commands": {"set": {"args": set}}});
        check(&heater, &["climate_target", "sensor_temp"]);
        let climate = &found(&heater)["climate_target"];
        assert_eq!((&climate["min_temp"], &climate["max_temp"]), (&json!(5), &json!(30)));
        assert_eq!(climate["modes"], json!(["off", "heat"]));
        assert_eq!(climate["mode_command_template"], r#"{"args":{"mode":{{ value | to_json }}}}"#);
    }

    #[test]
    fn what_is_gone_is_named_with_its_platform() {
        let before = json!({"state": {"a": {"type": "bool"}, "b": {"type": "int"}}});
        let now = found(&json!({"state": {"b": {"type": "int"}}}));
        let gone = gone("lamp", Some(&before), &now);
        assert_eq!(Value::Object(gone), json!({"binary_sensor_a": {"platform": "binary_sensor"}}));
    }
}
