//! The table `[im]`.

use super::Im;
use super::problem::Offence;
use super::section::{Room, Section};

/// Longest topic prefix, bytes: much is appended to it.
const TOPIC_PREFIX_BYTES_MAX: usize = 256;

pub(super) fn read(room: &mut Room, top: &mut Section) -> Im {
    let mut im = Im { enabled: true, home_assistant: None };
    let Some(mut section) = top.section(room, "im") else { return im };
    im.enabled = section.boolean(room, "enabled").unwrap_or(true);
    let wanted = section.boolean(room, "home_assistant").unwrap_or(false);
    let mut prefix = "homeassistant".to_owned();
    if let Some((origin, value)) = section.text(room, "home_assistant_prefix") {
        if is_topic_prefix(&value) {
            prefix = value;
        } else {
            room.problem(&origin, Offence::BadPrefix(value));
        }
    }
    section.finish(room);
    im.home_assistant = wanted.then_some(prefix);
    im
}

/// Whether topics may begin with `text` and a slash, outside of what the broker keeps for itself.
fn is_topic_prefix(text: &str) -> bool {
    let is_level =
        |level: &str| !level.is_empty() && !level.contains(|c: char| matches!(c, '+' | '#') || c.is_control());
    text.len() <= TOPIC_PREFIX_BYTES_MAX
        && text.split('/').all(is_level)
        && !text.starts_with('$')
        && text.split('/').next() != Some("im")
}
