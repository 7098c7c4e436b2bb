//! Retained messages by topic, found by filter without looking at every topic.

use crate::hash::{Map, map};
use crate::message::Message;
use parlor_protocol::topic;
use std::collections::BTreeMap;
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
        let levels: Vec<&str> = topic::levels(filter).collect();
        let mut stack = vec![(0u32, 0usize)];
        while let Some((at, depth)) = stack.pop() {
            let node = &self.nodes[at as usize];
            // A wildcard at the first level does not match names that begin with `$` [MQTT5-4.7.2-1].
            let hidden = |level: &str| depth == 0 && level.starts_with('$');
            match levels.get(depth) {
                None => {
                    if let Some(value) = &node.value {
                        found(value);
                    }
                }
                Some(&"#") => {
                    if let Some(value) = &node.value {
                        found(value);
                    }
                    let below = node.children.iter().rev().filter(|(level, _)| !hidden(level));
                    stack.extend(below.map(|(_, &child)| (child, EVERYTHING)));
                }
                Some(&"+") => {
                    let below = node.children.iter().rev().filter(|(level, _)| !hidden(level));
                    stack.extend(below.map(|(_, &child)| (child, depth + 1)));
                }
                Some(level) => stack.extend(node.children.get(*level).map(|&child| (child, depth + 1))),
            }
            if depth == EVERYTHING {
                stack.extend(node.children.values().rev().map(|&child| (child, EVERYTHING)));
            }
        }
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
