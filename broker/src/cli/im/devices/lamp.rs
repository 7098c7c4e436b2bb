//! A lamp that can be dimmed.

use super::{Device, Unwilling, commands};
use serde_json::{Map, Value, json};

/// On or off, and how bright.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::im) struct Lamp {
    on: bool,
    level: u64,
}

impl Default for Lamp {
    fn default() -> Self {
        Self { on: false, level: 100 }
    }
}

impl Device for Lamp {
    fn describe(&self) -> Value {
        let args = json!({"on": {"type": "bool"}, "level": {"type": "int", "min": 0, "max": 100, "unit": "%"}});
        json!({"name": "Lamp", "model": "parlor simulate lamp", "commands": commands(&args), "state": args})
    }

    fn reported(&self) -> Map<String, Value> {
        Map::from_iter([("on".to_owned(), json!(self.on)), ("level".to_owned(), json!(self.level))])
    }

    fn set(&mut self, wish: &Map<String, Value>) -> Result<(), Unwilling> {
        let mut new = self.clone();
        for (key, value) in wish {
            match key.as_str() {
                "on" => {
                    new.on = value.as_bool().ok_or(Unwilling::Value { key: "on", must: "true or false" })?;
                }
                "level" => {
                    let level = value.as_u64().filter(|level| *level <= 100);
                    new.level = level.ok_or(Unwilling::Value { key: "level", must: "a whole number from 0 to 100" })?;
                }
                _ => return Err(Unwilling::Unknown { key: key.clone(), has: "on and level" }),
            }
        }
        *self = new;
        Ok(())
    }

    fn words(&self) -> String {
        if self.on { format!("I am on, at {} %", self.level) } else { "I am off".to_owned() }
    }

    fn wish(&self, text: &str) -> Option<Map<String, Value>> {
        let one = |key: &str, value: Value| Some(Map::from_iter([(key.to_owned(), value)]));
        match text {
            "on" | "an" | "ein" => one("on", json!(true)),
            "off" | "aus" => one("on", json!(false)),
            _ => {
                let level: u64 = text.trim_end_matches('%').trim_end().parse().ok()?;
                let mut wish = one("level", json!(level))?;
                wish.insert("on".to_owned(), json!(level > 0));
                Some(wish)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_granted_whole_or_not_at_all() {
        let mut lamp = Lamp::default();
        let wish = |value: Value| value.as_object().cloned().unwrap_or_default();
        lamp.set(&wish(json!({"on": true, "level": 40}))).unwrap();
        assert_eq!((lamp.on, lamp.level), (true, 40));
        for bad in [json!({"on": false, "level": 101}), json!({"on": "no"}), json!({"on": false, "colour": 1})] {
            assert!(lamp.set(&wish(bad)).is_err());
            assert_eq!((lamp.on, lamp.level), (true, 40));
        }
        assert_eq!(lamp.wish("40 %"), Some(wish(json!({"on": true, "level": 40}))));
        assert_eq!(lamp.wish("bright"), None);
    }
}
