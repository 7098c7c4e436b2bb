//! Addresses and client ids: what may be one.

use crate::access::is_account_name;

/// What the form of a name says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameKind {
    Account,
    Group,
    Channel,
    Room,
}

/// Reads the form of an address; `None`: nothing may have this name.
pub(crate) fn name_kind(name: &str) -> Option<NameKind> {
    if !is_account_name(name) || matches!(name, "me" | "pair" | "anonymous") {
        return None;
    }
    Some(match name {
        _ if name.starts_with("g-") => NameKind::Group,
        _ if name.starts_with("ch-") => NameKind::Channel,
        _ if name.starts_with("r-") => NameKind::Room,
        _ => NameKind::Account,
    })
}

/// Whether an account may have this name: one that no group, channel or room can have, and none of the reserved ones.
pub fn is_address_of_account(name: &str) -> bool {
    name_kind(name) == Some(NameKind::Account)
}

/// Whether `id` may be a client id: 1 to 36 of `[A-Za-z0-9_-]`.
pub(crate) fn is_client_id(id: &str) -> bool {
    (1..=36).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_what_it_names() {
        for (name, kind) in [
            ("alice", Some(NameKind::Account)),
            ("g-home", Some(NameKind::Group)),
            ("ch-fw", Some(NameKind::Channel)),
            ("r-live", Some(NameKind::Room)),
            ("me", None),
            ("pair", None),
            ("Alice", None),
            ("", None),
        ] {
            assert_eq!(name_kind(name), kind, "{name}");
        }
        assert!(is_client_id("a_B-9") && !is_client_id("") && !is_client_id("a b") && !is_client_id(&"x".repeat(37)));
    }
}
