//! A thermostat in a room that follows it slowly.

use super::{Device, Unwilling, commands};
use serde_json::{Map, Value, json};

/// What should be and what is, tenths of a degree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::im) struct Thermostat {
    target: i64,
    temp: i64,
}

/// The room gets this much nearer each time, tenths of a degree.
const STEP: i64 = 5;

impl Default for Thermostat {
    fn default() -> Self {
        Self { target: 200, temp: 195 }
    }
}

impl Device for Thermostat {
    fn describe(&self) -> Value {
        let target = json!({"type": "float", "min": 5, "max": 30, "unit": "°C"});
        json!({
            "name": "Thermostat",
            "model": "parlor simulate thermostat",
            "commands": commands(&json!({"target": target})),
            "state": {"target": target, "temp": {"type": "float", "unit": "°C"}, "heating": {"type": "bool"}},
        })
    }

    fn reported(&self) -> Map<String, Value> {
        Map::from_iter([
            ("target".to_owned(), degrees(self.target)),
            ("temp".to_owned(), degrees(self.temp)),
            ("heating".to_owned(), json!(self.temp < self.target)),
        ])
    }

    fn set(&mut self, wish: &Map<String, Value>) -> Result<(), Unwilling> {
        let mut new = self.clone();
        for (key, value) in wish {
            if key != "target" {
                return Err(Unwilling::Unknown { key: key.clone(), has: "target" });
            }
            let target = value.as_f64().filter(|target| (5.0..=30.0).contains(target));
            let target = target.ok_or(Unwilling::Value { key: "target", must: "a temperature from 5 to 30" })?;
            // Between 50 and 300: no digit is lost.
            #[allow(clippy::cast_possible_truncation)]
            let tenths = (target * 10.0).round() as i64;
            new.target = tenths;
        }
        *self = new;
        Ok(())
    }

    fn words(&self) -> String {
        let does = match self.temp.cmp(&self.target) {
            std::cmp::Ordering::Less => "heating",
            std::cmp::Ordering::Equal => "idle",
            std::cmp::Ordering::Greater => "cooling down",
        };
        format!("{} °C now, {} °C wanted, {does}", degrees(self.temp), degrees(self.target))
    }

    fn wish(&self, text: &str) -> Option<Map<String, Value>> {
        let target: Value = match text {
            "on" => json!(21),
            "off" => json!(16),
            text => {
                let number = text.trim_end_matches('c').trim_end_matches('°').trim_end().replace(',', ".");
                json!(number.parse::<f64>().ok().filter(|number| number.is_finite())?)
            }
        };
        Some(Map::from_iter([("target".to_owned(), target)]))
    }

    fn tick(&mut self) -> bool {
        let step = (self.target - self.temp).clamp(-STEP, STEP);
        self.temp += step;
        step != 0
    }
}

/// Tenths as JSON: `21`, `21.5`.
fn degrees(tenths: i64) -> Value {
    if tenths % 10 == 0 {
        return json!(tenths / 10);
    }
    // A few hundred: exact enough for its one decimal.
    #[allow(clippy::cast_precision_loss)]
    let degrees = tenths as f64 / 10.0;
    json!(degrees)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_follows() {
        let mut thermostat = Thermostat::default();
        let target = |value: Value| Map::from_iter([("target".to_owned(), value)]);
        thermostat.set(&target(json!(20.5))).unwrap();
        assert_eq!(thermostat.reported()["heating"], true);
        assert!(thermostat.tick() && thermostat.tick());
        assert!(!thermostat.tick());
        assert_eq!(Value::Object(thermostat.reported()), json!({"target": 20.5, "temp": 20.5, "heating": false}));
        assert_eq!(thermostat.words(), "20.5 °C now, 20.5 °C wanted, idle");
        assert!(thermostat.set(&target(json!(31))).is_err() && thermostat.set(&target(json!("warm"))).is_err());
    }

    #[test]
    fn people_write_temperatures_in_many_ways() {
        for text in ["21.5", "21,5", "21.5 °c", "21.5c"] {
            assert_eq!(Thermostat::default().wish(text).unwrap()["target"], 21.5, "{text}");
        }
        assert_eq!(Thermostat::default().wish("on").unwrap()["target"], 21);
        assert_eq!(Thermostat::default().wish("warmer"), None);
        assert_eq!(Thermostat::default().wish("nan"), None);
    }
}
