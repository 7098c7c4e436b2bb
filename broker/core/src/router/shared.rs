//! Shared subscriptions: groups of sessions of which one gets each message (MQTT 5 section 4.8.2).

use super::{Options, SessionKey};
use crate::hash::{Map, map};

/// Names one shared group (share name and filter).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupKey(u32);

/// One session's part in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which session.
    pub session: SessionKey,
    /// Its options.
    pub options: Options,
    /// Its Subscription Identifier, or 0.
    pub id: u32,
}

#[derive(Debug)]
struct Group {
    name: Box<str>,
    members: Vec<Member>,
    next: usize,
}

/// All shared groups.
#[derive(Debug)]
pub struct Groups {
    groups: Map<u32, Group>,
    last: u32,
}

impl Groups {
    pub(super) fn new(seed: u64) -> Self {
        Self { groups: map(seed), last: 0 }
    }

    pub(super) fn create(&mut self, name: &str) -> GroupKey {
        self.last = self.last.wrapping_add(1);
        while self.groups.contains_key(&self.last) {
            self.last = self.last.wrapping_add(1);
        }
        self.groups.insert(self.last, Group { name: name.into(), members: vec![], next: 0 });
        GroupKey(self.last)
    }

    pub(super) fn name(&self, key: GroupKey) -> &str {
        self.groups.get(&key.0).map_or("", |g| &g.name)
    }

    /// True if the member is new.
    pub(super) fn join(&mut self, key: GroupKey, member: Member) -> bool {
        let Some(group) = self.groups.get_mut(&key.0) else { return false };
        if let Some(old) = group.members.iter_mut().find(|m| m.session == member.session) {
            *old = member;
            return false;
        }
        group.members.push(member);
        true
    }

    /// Whether it was a member, and whether the group is gone now.
    pub(super) fn leave(&mut self, key: GroupKey, session: SessionKey) -> (bool, bool) {
        let Some(group) = self.groups.get_mut(&key.0) else { return (false, false) };
        let Some(at) = group.members.iter().position(|m| m.session == session) else { return (false, false) };
        group.members.remove(at);
        if group.members.is_empty() {
            self.groups.remove(&key.0);
            return (true, true);
        }
        (true, false)
    }

    /// Picks the next member in turn for which `rank` is best (lowest); members without a rank are not asked.
    pub fn pick(&mut self, key: GroupKey, mut rank: impl FnMut(&Member) -> Option<u8>) -> Option<Member> {
        let group = self.groups.get_mut(&key.0)?;
        let len = group.members.len();
        let mut best: Option<(u8, usize)> = None;
        for step in 0..len {
            let at = (group.next + step) % len;
            match rank(&group.members[at]) {
                Some(0) => {
                    best = Some((0, at));
                    break;
                }
                Some(r) if best.is_none_or(|(b, _)| r < b) => best = Some((r, at)),
                _ => {}
            }
        }
        let (_, at) = best?;
        group.next = (at + 1) % len;
        Some(group.members[at])
    }
}
