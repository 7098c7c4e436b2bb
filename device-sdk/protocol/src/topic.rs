//! Topic names and filters (section 4.7 of both versions).

/// A topic name or filter is not legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicError {
    /// It has no character [MQTT5-4.7.3-1] [MQTT3-4.7.3-1].
    Empty,
    /// It is longer than 65,535 bytes [MQTT5-4.7.3-3] [MQTT3-4.7.3-3].
    TooLong,
    /// It contains U+0000 [MQTT5-4.7.3-2] [MQTT3-4.7.3-2].
    Nul,
    /// A name contains `+` or `#` [MQTT5-3.3.2-2] [MQTT3-3.3.2-2].
    WildcardInName,
    /// `#` is not alone in the last level [MQTT5-4.7.1-1] [MQTT3-4.7.1-2].
    MisplacedHash,
    /// `+` is not alone in its level [MQTT5-4.7.1-2] [MQTT3-4.7.1-3].
    MisplacedPlus,
    /// `$share/` is not followed by a share name and a filter [MQTT5-4.8.2-1] [MQTT5-4.8.2-2].
    BadShare,
}

impl core::fmt::Display for TopicError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Empty => "a topic needs at least one character",
            Self::TooLong => "a topic has at most 65,535 bytes",
            Self::Nul => "a topic may not contain U+0000",
            Self::WildcardInName => "a topic name may not contain + or #",
            Self::MisplacedHash => "# must be the whole last level of a topic filter",
            Self::MisplacedPlus => "+ must be a whole level of a topic filter",
            Self::BadShare => "a shared subscription is $share/NAME/FILTER, NAME without wildcards",
        })
    }
}

impl core::error::Error for TopicError {}

/// The levels of a name or filter.
#[inline]
pub fn levels(topic: &str) -> core::str::Split<'_, char> {
    topic.split('/')
}

/// How many levels there are; at least one.
#[inline]
pub fn level_count(topic: &str) -> usize {
    topic.bytes().filter(|b| *b == b'/').count() + 1
}

/// Whether a topic name is legal.
pub fn check_name(name: &str) -> Result<(), TopicError> {
    check_common(name)?;
    check_characters(name)
}

/// The characters of a topic name: no U+0000 and no wildcard; nothing is said of its length.
#[inline]
pub(crate) fn check_characters(name: &str) -> Result<(), TopicError> {
    if !has_special(name.as_bytes()) {
        return Ok(());
    }
    // A string without U+0000 is a matter of its encoding, and that is judged first.
    Err(if name.as_bytes().contains(&0) { TopicError::Nul } else { TopicError::WildcardInName })
}

/// Whether there is a zero byte, `+` or `#`. Eight bytes at a time, because every PUBLISH pays for it.
#[inline]
fn has_special(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut found = words.iter().fold(0, |found, word| found | special_in(u64::from_le_bytes(*word)));
    if let Some(last) = bytes.last_chunk::<8>() {
        // It may overlap the word before, which does no harm.
        found |= special_in(u64::from_le_bytes(*last));
    } else {
        return rest.iter().any(|b| matches!(b, 0 | b'+' | b'#'));
    }
    found != 0
}

/// Not zero exactly if one of the eight bytes is zero, `+` or `#`: `(x - 1) & !x` has its top bit set in the lowest byte
/// that is zero.
#[inline]
const fn special_in(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = ONES << 7;
    let plus = word ^ (ONES * b'+' as u64);
    let hash = word ^ (ONES * b'#' as u64);
    let zero = word.wrapping_sub(ONES) & !word;
    let plus = plus.wrapping_sub(ONES) & !plus;
    let hash = hash.wrapping_sub(ONES) & !hash;
    (zero | plus | hash) & TOPS
}

fn has_wildcard(name: &str) -> bool {
    name.bytes().any(|b| matches!(b, b'+' | b'#'))
}

/// Names and filters: a character at least [MQTT5-4.7.3-1] [MQTT3-4.7.3-1], 65,535 bytes at most [MQTT5-4.7.3-3]
/// [MQTT3-4.7.3-3], no U+0000 [MQTT5-4.7.3-2] [MQTT3-4.7.3-2].
fn check_common(topic: &str) -> Result<(), TopicError> {
    if topic.is_empty() {
        return Err(TopicError::Empty);
    }
    if topic.len() > usize::from(u16::MAX) {
        return Err(TopicError::TooLong);
    }
    if topic.as_bytes().contains(&0) {
        return Err(TopicError::Nul);
    }
    Ok(())
}

/// Wildcards have a level of their own [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT3-4.7.1-2] [MQTT3-4.7.1-3].
///
/// Whether a topic filter is legal; the filter of a shared subscription is checked without its `$share/NAME/`.
pub fn check_filter(filter: &str) -> Result<(), TopicError> {
    check_common(filter)?;
    let mut rest = levels(filter);
    while let Some(level) = rest.next() {
        if level.contains('#') && (level != "#" || rest.clone().next().is_some()) {
            return Err(TopicError::MisplacedHash);
        }
        if level.contains('+') && level != "+" {
            return Err(TopicError::MisplacedPlus);
        }
    }
    Ok(())
}

/// `$share/`, a name without wildcards, and a filter [MQTT5-4.8.2-1] [MQTT5-4.8.2-2].
///
/// The share name and the filter of a shared subscription; `None` for an ordinary filter.
pub fn parse_shared(filter: &str) -> Result<Option<(&str, &str)>, TopicError> {
    let Some(rest) = filter.strip_prefix("$share/") else {
        return if filter == "$share" { Err(TopicError::BadShare) } else { Ok(None) };
    };
    match rest.split_once('/') {
        Some((name, filter)) if !name.is_empty() && !has_wildcard(name) && !filter.is_empty() => {
            Ok(Some((name, filter)))
        }
        _ => Err(TopicError::BadShare),
    }
}

/// Whether `filter` matches `name`. Wildcards at the start do not match names that begin with `$`
/// [MQTT5-4.7.2-1] [MQTT3-4.7.2-1]; `sport/#` matches `sport`.
pub fn matches(filter: &str, name: &str) -> bool {
    if name.starts_with('$') && matches!(filter.as_bytes().first(), Some(b'+' | b'#')) {
        return false;
    }
    let mut names = levels(name);
    for level in levels(filter) {
        if level == "#" {
            return true;
        }
        match names.next() {
            Some(found) if level == "+" || level == found => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

/// Whether every name that matches `narrow` also matches `wide`.
pub fn covers(wide: &str, narrow: &str) -> bool {
    let dollar = narrow.starts_with('$');
    if dollar && matches!(wide.as_bytes().first(), Some(b'+' | b'#')) {
        return false;
    }
    let mut narrows = levels(narrow);
    for level in levels(wide) {
        if level == "#" {
            return true;
        }
        match narrows.next() {
            None | Some("#") => return false,
            Some(_) if level == "+" => {}
            Some(found) if found == level => {}
            Some(_) => return false,
        }
    }
    narrows.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matching_follows_section_4_7() {
        // [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT5-4.7.2-1] [MQTT3-4.7.1-2] [MQTT3-4.7.1-3] [MQTT3-4.7.2-1], and no
        // normalisation [MQTT5-4.7.3-4] [MQTT3-4.7.3-4].
        for (filter, name, expect) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/a", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
            ("#", "sport", true),
            ("#", "/", true),
            ("sport/tennis/#", "sport/tennisball", false),
            ("+/tennis/#", "/tennis", true),
            ("sport+", "sport", false),
            ("ACCOUNTS", "Accounts", false),
            ("/finance", "finance", false),
            ("caf\u{E9}", "cafe\u{301}", false),
            ("\u{FEFF}a", "a", false),
        ] {
            assert_eq!(matches(filter, name), expect, "{filter} {name}");
        }
    }

    #[test]
    fn filters_and_names_are_checked() {
        // [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT5-4.8.2-1] [MQTT5-4.8.2-2] [MQTT3-4.7.1-2] [MQTT3-4.7.1-3]
        for filter in ["#", "+", "a/+/b", "a/#", "/", "+/+/#", "//"] {
            assert_eq!(check_filter(filter), Ok(()), "{filter}");
        }
        for (filter, error) in [
            ("", TopicError::Empty),
            ("a#", TopicError::MisplacedHash),
            ("a/#/b", TopicError::MisplacedHash),
            ("a+", TopicError::MisplacedPlus),
            ("a/+b/c", TopicError::MisplacedPlus),
            ("a\0", TopicError::Nul),
        ] {
            assert_eq!(check_filter(filter), Err(error), "{filter}");
        }
        assert_eq!(check_name("a/+"), Err(TopicError::WildcardInName));
        assert_eq!(parse_shared("$share/g/a/#"), Ok(Some(("g", "a/#"))));
        for bad in ["$share", "$share/", "$share//a", "$share/g", "$share/g/", "$share/+/a", "$share/g#/a"] {
            assert_eq!(parse_shared(bad), Err(TopicError::BadShare), "{bad}");
        }
        assert_eq!(parse_shared("$shared/a"), Ok(None));
    }

    #[test]
    fn special_characters_are_found_at_every_place_of_every_length() {
        // [MQTT5-3.3.2-2] [MQTT5-4.7.3-2] [MQTT3-3.3.2-2] [MQTT3-4.7.3-2]: words of eight bytes miss none and invent none.
        for len in 0..=33 {
            let plain = std::vec![b'a'; len];
            assert!(!has_special(&plain));
            for at in 0..len {
                for byte in 0..=0xFF {
                    let mut bytes = plain.clone();
                    bytes[at] = byte;
                    assert_eq!(has_special(&bytes), matches!(byte, 0 | b'+' | b'#'), "{byte} at {at} of {len}");
                }
            }
        }
        // Neighbours of what is looked for, where a borrow of a subtraction would show.
        for pair in [[1, 0x80], [0x2A, 0x2C], [0x22, 0x24], [0xAB, 0xA3], [0x01, 0x01]] {
            assert!(!has_special(&pair.repeat(8)));
        }
        assert_eq!(check_name("+\0"), Err(TopicError::Nul));
        assert_eq!(check_name(&"x".repeat(65_536)), Err(TopicError::TooLong)); // [MQTT5-4.7.3-3] [MQTT3-4.7.3-3]
        assert_eq!(check_name(""), Err(TopicError::Empty)); // [MQTT5-4.7.3-1] [MQTT3-4.7.3-1]
        assert_eq!((level_count("/"), level_count("a"), level_count("a//b")), (2, 1, 3));
    }

    #[test]
    fn covering_agrees_with_matching_on_every_small_case() {
        let parts = ["a", "b", "+", "#", "$s", ""];
        let mut filters = std::vec::Vec::new();
        for x in parts {
            filters.push(std::string::String::from(x));
            for y in parts {
                filters.push(std::format!("{x}/{y}"));
                filters.extend(parts.iter().map(|z| std::format!("{x}/{y}/{z}")));
            }
        }
        filters.retain(|f| check_filter(f).is_ok());
        let names: std::vec::Vec<_> = {
            let parts = ["a", "b", "c", "$s", ""];
            let mut names = std::vec::Vec::new();
            for x in parts {
                names.push(std::string::String::from(x));
                for y in parts {
                    names.push(std::format!("{x}/{y}"));
                    for z in parts {
                        names.push(std::format!("{x}/{y}/{z}"));
                        names.push(std::format!("{x}/{y}/{z}/c"));
                    }
                }
            }
            names.retain(|n| check_name(n).is_ok());
            names
        };
        for wide in &filters {
            for narrow in &filters {
                let expect = names.iter().filter(|n| matches(narrow, n)).all(|n| matches(wide, n));
                if covers(wide, narrow) {
                    assert!(expect, "{wide} covers {narrow}");
                }
            }
        }
    }
}
