//! Retained messages by topic, found by filter without looking at every topic.

use crate::hash::{Map, map};
use crate::message::Message;
use parlor_protocol::topic;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

/// One retained message.
#[derive(Debug, Clone)]
pub struct Retained {
    /// The message.
    pub message: Rc<Message>,
    /// QoS it was published with.
    pub qos: u8,
    /// The account that published it.
    pub publisher: Rc<str>,
    /// Made by the broker itself (`$SYS`): not stored, not counted.
    pub volatile: bool,
}

/// Depth of a walk below a `#`: every node matches.
const EVERYTHING: usize = usize::MAX;

#[derive(Debug, Default)]
struct Node {
    children: BTreeMap<Box<str>, u32>,
    value: Option<Retained>,
    parent: u32,
    level: Box<str>,
}

/// All retained messages.
#[derive(Debug)]
pub struct RetainedTree {
    nodes: Vec<Node>,
    free: Vec<u32>,
    /// Topic to node, so that a publisher that sets the same topic again walks nothing.
    index: Map<Box<str>, u32>,
    messages: u64,
    bytes: u64,
}

impl RetainedTree {
    /// An empty tree; `seed` keys its hash table.
    pub fn new(seed: u64) -> Self {
        Self { nodes: vec![Node::default()], free: vec![], index: map(seed), messages: 0, bytes: 0 }
    }

    /// How many messages are retained, those of the broker itself apart.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Bytes (topic, properties, payload) of those.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The message retained for `name`.
    pub fn get(&self, name: &str) -> Option<&Retained> {
        self.nodes[*self.index.get(name)? as usize].value.as_ref()
    }

    /// Sets the message of its topic.
    pub fn set(&mut self, retained: Retained) {
        let name: Box<str> = retained.message.topic().into();
        let at = self.index.get(&*name).copied().unwrap_or_else(|| {
            let mut at = 0;
            for level in topic::levels(&name) {
                at = match self.nodes[at as usize].children.get(level) {
                    Some(&child) => child,
                    None => self.allocate(at, level),
                };
            }
            self.index.insert(name, at);
            at
        });
        if !retained.volatile {
            self.messages += 1;
            self.bytes += retained.message.cost() as u64;
        }
        if let Some(old) = self.nodes[at as usize].value.replace(retained) {
            self.uncount(&old);
        }
    }

    /// Clears the message of a topic; true if there was one.
    pub fn clear(&mut self, name: &str) -> bool {
        let Some(mut at) = self.index.remove(name) else { return false };
        let old = self.nodes[at as usize].value.take();
        if let Some(old) = &old {
            self.uncount(old);
        }
        while at != 0 && self.nodes[at as usize].value.is_none() && self.nodes[at as usize].children.is_empty() {
            let node = core::mem::take(&mut self.nodes[at as usize]);
            self.nodes[node.parent as usize].children.remove(&node.level);
            self.free.push(at);
            at = node.parent;
        }
        old.is_some()
    }

    /// Calls `found` for every message whose topic matches `filter`, in topic order within a level.
    pub fn visit(&self, filter: &str, mut found: impl FnMut(&Retained)) {
        self.visit_after(filter, None, &mut { usize::MAX }, |r| {
            found(r);
            true
        });
    }

    /// As [`RetainedTree::visit`], for the topics that come after `after` in that order, until `found` says `false` or
    /// as many nodes were looked at as `budget` allows. Returns where it stopped, to go on `after` that; `None` at the
    /// end. A visit in many steps costs little more than one, and sees what is changed between them.
    pub fn visit_after(
        &self,
        filter: &str,
        after: Option<&str>,
        budget: &mut usize,
        mut found: impl FnMut(&Retained) -> bool,
    ) -> Option<Box<str>> {
        let levels: Vec<&str> = topic::levels(filter).collect();
        let seen: Vec<&str> = after.map(topic::levels).into_iter().flatten().collect();
        let mut walk = vec![];
        let mut next = Some((0, 0, after.map(|_| 0)));
        loop {
            if let Some((at, depth, along)) = next.take() {
                let node = &self.nodes[at as usize];
                let level = levels.get(depth).copied();
                let ends = level.is_none() || level == Some("#");
                *budget = budget.saturating_sub(1);
                // What lies on the way to `after`, and that itself, were visited before.
                if ends
                    && along.is_none()
                    && let Some(value) = &node.value
                    && !found(value)
                {
                    return Some(self.path(at));
                }
                if *budget == 0 && along.is_none() {
                    return Some(self.path(at));
                }
                let bound = along.and_then(|along| seen.get(along).copied());
                let from = bound.map_or(Bound::Unbounded, Bound::Included);
                let range = match level {
                    None if depth != EVERYTHING => None,
                    None | Some("#" | "+") => Some((from, Bound::Unbounded)),
                    Some(level) if bound.is_some_and(|b| level < b) => None,
                    Some(level) => Some((Bound::Included(level), Bound::Included(level))),
                };
                if let Some(range) = range {
                    let depth = if level == Some("#") || depth == EVERYTHING { EVERYTHING } else { depth + 1 };
                    // A wildcard at the first level does not match names that begin with `$` [MQTT5-4.7.2-1].
                    let hides = at == 0 && matches!(level, Some("#" | "+"));
                    walk.push((node.children.range::<str, _>(range), depth, along.zip(bound), hides));
                }
            }
            let (children, depth, way, hides) = walk.last_mut()?;
            match children.next() {
                None => {
                    walk.pop();
                }
                Some((level, _)) if *hides && level.starts_with('$') => {}
                Some((level, &child)) => {
                    let along = way.filter(|(_, bound)| **level == **bound).map(|(along, _)| along + 1);
                    next = Some((child, *depth, along));
                }
            }
        }
    }

    /// The topic of a node, whether a message is retained there or not.
    fn path(&self, mut at: u32) -> Box<str> {
        let mut levels = vec![];
        while at != 0 {
            let node = &self.nodes[at as usize];
            levels.push(&*node.level);
            at = node.parent;
        }
        levels.reverse();
        levels.join("/").into()
    }

    /// Calls `found` for every retained message, ascending by level.
    pub fn all(&self) -> impl Iterator<Item = &Retained> {
        self.nodes.iter().filter_map(|n| n.value.as_ref())
    }

    fn allocate(&mut self, parent: u32, level: &str) -> u32 {
        let node = Node { parent, level: level.into(), ..Node::default() };
        let at = if let Some(at) = self.free.pop() {
            self.nodes[at as usize] = node;
            at
        } else {
            self.nodes.push(node);
            u32::try_from(self.nodes.len() - 1).expect("fewer nodes than retained levels, which limits bound")
        };
        self.nodes[parent as usize].children.insert(level.into(), at);
        at
    }

    fn uncount(&mut self, retained: &Retained) {
        if !retained.volatile {
            self.messages -= 1;
            self.bytes -= retained.message.cost() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(topics: &[&str]) -> RetainedTree {
        let mut tree = RetainedTree::new(1);
        for topic in topics {
            let message = Rc::new(Message::new(topic, &[], b"x", 0));
            tree.set(Retained { message, qos: 0, publisher: "p".into(), volatile: false });
        }
        tree
    }

    #[test]
    fn visiting_agrees_with_matching_one_by_one() {
        let topics = ["a", "a/b", "a/b/c", "/a", "a/", "$SYS/x", "$SYS", "b/b", "a//c", "$a/b/c"];
        let tree = tree(&topics);
        for filter in ["#", "+", "a/#", "a/+", "+/b", "+/#", "$SYS/#", "$SYS/+", "a/b", "/+", "a/+/c", "+/+/+", "$a/#"]
        {
            let mut got = vec![];
            tree.visit(filter, |r| got.push(r.message.topic().to_owned()));
            got.sort();
            let mut expect: Vec<_> =
                topics.iter().filter(|t| topic::matches(filter, t)).map(ToString::to_string).collect();
            expect.sort();
            assert_eq!(got, expect, "{filter}");
        }
    }

    #[test]
    fn a_visit_goes_on_after_any_topic_whether_it_is_still_there_or_not() {
        let topics = ["a", "a/b", "a/b/c", "/a", "a/", "$SYS/x", "$SYS", "b/b", "a//c", "$a/b/c", "a/c", "a/b/d"];
        let tree = tree(&topics);
        for filter in ["#", "+", "a/#", "a/+", "+/b", "$SYS/#", "a/b", "+/+/+", "a/+/c"] {
            let mut all = vec![];
            tree.visit(filter, |r| all.push(r.message.topic().to_owned()));
            for step in 1..4 {
                let (mut got, mut after): (Vec<String>, Option<Box<str>>) = (vec![], None);
                loop {
                    let before = got.len();
                    after = tree.visit_after(filter, after.as_deref(), &mut { step * 2 }, |r| {
                        got.push(r.message.topic().to_owned());
                        got.len() < before + step
                    });
                    if after.is_none() {
                        break;
                    }
                }
                assert_eq!(got, all, "{filter} by {step}");
            }
        }
        let mut rest = vec![];
        tree.visit_after("a/#", Some("a/b/bb"), &mut 100, |r| {
            rest.push(r.message.topic().to_owned());
            true
        });
        assert_eq!(rest, ["a/b/c", "a/b/d", "a/c"]);
    }

    #[test]
    fn clearing_everything_leaves_nothing() {
        let topics = ["a", "a/b", "a/b/c", "x/y"];
        let mut tree = tree(&topics);
        assert_eq!((tree.messages(), tree.bytes()), (4, 1 + 3 + 5 + 3 + 4));
        for topic in topics {
            assert!(tree.clear(topic));
            assert!(!tree.clear(topic));
        }
        assert_eq!((tree.messages(), tree.bytes()), (0, 0));
        assert_eq!(tree.free.len(), tree.nodes.len() - 1);
    }
}
