//! The subscription trie: one node a topic level.

use super::shared::{GroupKey, Groups, Member};
use super::{NoLocal, Options, Recipient, Route, SessionKey, put_subscription_id};
use crate::hash::{Map, map};
use parlor_protocol::topic;

const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Entry {
    session: SessionKey,
    options: Options,
    id: u32,
}

/// Subscribers at one point of the trie.
#[derive(Debug, Default)]
struct Subscribers {
    /// Ascending by session.
    plain: Vec<Entry>,
    groups: Vec<GroupKey>,
}

impl Subscribers {
    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.groups.is_empty()
    }
}

#[derive(Debug)]
struct Node {
    parent: u32,
    level: Box<str>,
    children: Map<Box<str>, u32>,
    plus: u32,
    /// Filters that end here.
    here: Subscribers,
    /// Filters that end in `#` below here.
    below: Subscribers,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.plus == NONE && self.here.is_empty() && self.below.is_empty()
    }
}

/// All subscriptions.
#[derive(Debug)]
pub struct Router {
    seed: u64,
    nodes: Vec<Node>,
    free: Vec<u32>,
    groups: Groups,
    generation: u64,
    count: u64,
}

impl Router {
    /// An empty router; `seed` keys its hash tables.
    pub fn new(seed: u64) -> Self {
        let mut router = Self { seed, nodes: vec![], free: vec![], groups: Groups::new(seed), generation: 1, count: 0 };
        router.allocate(NONE, "");
        router
    }

    /// Changes whenever a route found before may have become wrong.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Says that routes found before are wrong for a reason outside the router (rights changed).
    pub fn invalidate(&mut self) {
        self.generation += 1;
    }

    /// How many subscriptions there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The shared groups, to pick a member.
    pub fn groups(&mut self) -> &mut Groups {
        &mut self.groups
    }

    /// Adds or replaces the subscription of `session` to `filter` (`$share/…` included); true if it is new
    /// (`[MQTT5-3.8.4-3]`, `[MQTT3-3.8.4-3]`).
    pub fn subscribe(&mut self, session: SessionKey, filter: &str, options: Options, id: u32) -> bool {
        self.generation += 1;
        let (group, plain) = split(filter);
        let (node, below) = self.make_path(plain);
        let added = if let Some(group) = group {
            let place = place(&mut self.nodes[node as usize], below);
            let key = place.groups.iter().copied().find(|key| self.groups.name(*key) == group);
            let key = key.unwrap_or_else(|| {
                let key = self.groups.create(group);
                place.groups.push(key);
                key
            });
            self.groups.join(key, Member { session, options, id })
        } else {
            let plain = &mut place(&mut self.nodes[node as usize], below).plain;
            let entry = Entry { session, options, id };
            match plain.binary_search_by_key(&session, |e| e.session) {
                // In its place, so that no message misses it [MQTT5-3.8.4-4].
                Ok(at) => {
                    plain[at] = entry;
                    false
                }
                Err(at) => {
                    plain.insert(at, entry);
                    true
                }
            }
        };
        self.count += u64::from(added);
        added
    }

    /// Removes a subscription; true if there was one.
    pub fn unsubscribe(&mut self, session: SessionKey, filter: &str) -> bool {
        let (group, plain) = split(filter);
        let Some((node, below)) = self.find_path(plain) else { return false };
        let place = place(&mut self.nodes[node as usize], below);
        let removed = if let Some(group) = group {
            let Some(at) = place.groups.iter().position(|key| self.groups.name(*key) == group) else { return false };
            let (left, empty) = self.groups.leave(place.groups[at], session);
            if empty {
                place.groups.swap_remove(at);
            }
            left
        } else {
            match place.plain.binary_search_by_key(&session, |e| e.session) {
                Ok(at) => {
                    place.plain.remove(at);
                    true
                }
                Err(_) => false,
            }
        };
        if removed {
            self.generation += 1;
            self.count -= 1;
            self.prune(node);
        }
        removed
    }

    /// Everybody whose filters match `name`, byte by byte [MQTT5-3.3.2-3] [MQTT5-4.7.3-4] [MQTT3-3.3.2-3]
    /// [MQTT3-4.7.3-4].
    pub fn route(&self, name: &str) -> Route {
        let (mut plain, mut groups) = (vec![], vec![]);
        self.visit(name, |subscribers| {
            plain.extend_from_slice(&subscribers.plain);
            groups.extend_from_slice(&subscribers.groups);
        });
        plain.sort_by_key(|e| e.session);
        Route { recipients: merge(&plain), groups: groups.into() }
    }

    /// The delivery of `session`'s own message to itself when only some of its matching subscriptions have No Local.
    pub fn own_delivery(&self, name: &str, session: SessionKey) -> Option<Recipient> {
        let mut own = vec![];
        self.visit(name, |subscribers| {
            own.extend(subscribers.plain.iter().filter(|e| e.session == session && !e.options.no_local()));
        });
        merge(&own).into_vec().pop()
    }

    /// Walks every place whose filters match, breadth by level; the work is bounded by the nodes that match.
    fn visit(&self, name: &str, mut found: impl FnMut(&Subscribers)) {
        // Wildcards at the first level do not match names that begin with `$` [MQTT5-4.7.2-1] [MQTT3-4.7.2-1].
        let mut wild = !name.starts_with('$');
        let mut active = vec![ROOT];
        let mut next = vec![];
        for level in topic::levels(name) {
            for &at in &active {
                let node = &self.nodes[at as usize];
                if wild || at != ROOT {
                    found(&node.below);
                    if node.plus != NONE {
                        next.push(node.plus);
                    }
                }
                if let Some(&child) = node.children.get(level) {
                    next.push(child);
                }
            }
            active.clear();
            core::mem::swap(&mut active, &mut next);
            wild = true;
            if active.is_empty() {
                return;
            }
        }
        for &at in &active {
            let node = &self.nodes[at as usize];
            found(&node.here);
            // `sport/#` matches `sport` too (section 4.7.1.2).
            found(&node.below);
        }
    }

    fn allocate(&mut self, parent: u32, level: &str) -> u32 {
        let node = Node {
            parent,
            level: level.into(),
            children: map(self.seed),
            plus: NONE,
            here: Subscribers::default(),
            below: Subscribers::default(),
        };
        if let Some(at) = self.free.pop() {
            self.nodes[at as usize] = node;
            at
        } else {
            self.nodes.push(node);
            u32::try_from(self.nodes.len() - 1).expect("fewer nodes than subscription levels, which limits bound")
        }
    }

    fn make_path(&mut self, filter: &str) -> (u32, bool) {
        let mut at = ROOT;
        for level in topic::levels(filter) {
            if level == "#" {
                return (at, true);
            }
            let node = &self.nodes[at as usize];
            let child =
                if level == "+" { Some(node.plus).filter(|p| *p != NONE) } else { node.children.get(level).copied() };
            at = child.unwrap_or_else(|| {
                let child = self.allocate(at, level);
                let node = &mut self.nodes[at as usize];
                if level == "+" {
                    node.plus = child;
                } else {
                    node.children.insert(level.into(), child);
                }
                child
            });
        }
        (at, false)
    }

    fn find_path(&self, filter: &str) -> Option<(u32, bool)> {
        let mut at = ROOT;
        for level in topic::levels(filter) {
            let node = &self.nodes[at as usize];
            at = match level {
                "#" => return Some((at, true)),
                "+" => Some(node.plus).filter(|p| *p != NONE)?,
                _ => *node.children.get(level)?,
            };
        }
        Some((at, false))
    }

    /// Frees nodes that nobody needs any more, from `at` upwards.
    fn prune(&mut self, mut at: u32) {
        while at != ROOT && self.nodes[at as usize].is_empty() {
            let node = &mut self.nodes[at as usize];
            let (parent, level) = (node.parent, core::mem::take(&mut node.level));
            let parent_node = &mut self.nodes[parent as usize];
            if parent_node.plus == at {
                parent_node.plus = NONE;
            } else {
                parent_node.children.remove(&level);
            }
            self.free.push(at);
            at = parent;
        }
    }
}

fn place(node: &mut Node, below: bool) -> &mut Subscribers {
    if below { &mut node.below } else { &mut node.here }
}

fn split(filter: &str) -> (Option<&str>, &str) {
    match topic::parse_shared(filter) {
        Ok(Some((group, plain))) => (Some(group), plain),
        _ => (None, filter),
    }
}

/// Merges entries, sorted by session, into one delivery a session.
fn merge(entries: &[Entry]) -> Box<[Recipient]> {
    let mut recipients: Vec<Recipient> = Vec::with_capacity(entries.len());
    for same in entries.chunk_by(|a, b| a.session == b.session) {
        let own = same.iter().filter(|e| e.options.no_local()).count();
        let mut ids = vec![];
        for entry in same.iter().filter(|e| e.id != 0) {
            put_subscription_id(&mut ids, entry.id);
        }
        recipients.push(Recipient {
            session: same[0].session,
            qos: same.iter().map(|e| e.options.qos()).max().unwrap_or(0),
            retain_as_published: same.iter().any(|e| e.options.retain_as_published()),
            no_local: match own {
                0 => NoLocal::None,
                n if n == same.len() => NoLocal::All,
                _ => NoLocal::Some,
            },
            subscription_ids: ids.into(),
        });
    }
    recipients.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(filters: &[&str], name: &str, expect: &[u32]) {
        let mut router = Router::new(1);
        for (i, filter) in filters.iter().enumerate() {
            assert!(router.subscribe(SessionKey(u32::try_from(i).unwrap()), filter, Options(1), 0));
        }
        let got: Vec<u32> = router.route(name).recipients.iter().map(|r| r.session.0).collect();
        assert_eq!(got, expect, "{name}");
        for (i, filter) in filters.iter().enumerate() {
            assert!(router.unsubscribe(SessionKey(u32::try_from(i).unwrap()), filter));
        }
        assert_eq!(router.count(), 0);
        assert_eq!(router.free.len(), router.nodes.len() - 1, "every node but the root is free again");
    }

    #[test]
    fn filters_match_as_the_specification_says() {
        // Section 4.7.1 of both versions.
        check(&["sport/tennis/player1/#", "sport/#", "#", "+", "sport/+", "+/+", "/+"], "sport", &[1, 2, 3]);
        check(&["sport/tennis/player1/#", "sport/#", "sport/tennis/+"], "sport/tennis/player1", &[0, 1, 2]);
        check(&["+/+", "/+", "+"], "/finance", &[0, 1]);
        check(&["#", "+/monitor", "$SYS/#", "$SYS/monitor/+", "$SYS/+"], "$SYS/monitor", &[2, 4]);
        check(&["a//b", "a/+/b", "a/b"], "a//b", &[0, 1]);
    }

    #[test]
    fn overlapping_subscriptions_merge_into_one_delivery() {
        let mut router = Router::new(1);
        let me = SessionKey(3);
        router.subscribe(me, "a/#", Options(0), 7);
        router.subscribe(me, "a/+", Options(2 | 4), 300);
        router.subscribe(me, "a/b", Options(1 | 8), 0);
        let route = router.route("a/b");
        let [one] = &route.recipients[..] else { panic!("{route:?}") };
        assert_eq!((one.qos, one.retain_as_published, one.no_local), (2, true, NoLocal::Some));
        assert_eq!(one.subscription_ids.len(), 2 + 3);
        let own = router.own_delivery("a/b", me).unwrap();
        assert_eq!((own.qos, own.no_local, own.subscription_ids.len()), (1, NoLocal::None, 2));
        assert!(!router.subscribe(me, "a/b", Options(1), 0), "replaced, not added");
        assert_eq!(router.count(), 3);
    }

    #[test]
    fn a_shared_group_is_found_once_and_vanishes_with_its_last_member() {
        let mut router = Router::new(1);
        for session in 0..3 {
            assert!(router.subscribe(SessionKey(session), "$share/g/a/#", Options(1), 0));
        }
        router.subscribe(SessionKey(9), "$share/h/a/b", Options(1), 0);
        assert_eq!(router.route("a/b").groups.len(), 2);
        assert_eq!(router.route("a/c").groups.len(), 1);
        for session in 0..3 {
            assert!(router.unsubscribe(SessionKey(session), "$share/g/a/#"));
        }
        assert!(!router.unsubscribe(SessionKey(0), "$share/g/a/#"));
        assert_eq!(router.route("a/b").groups.len(), 1);
    }
}
