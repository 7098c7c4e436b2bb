//! Which of a connection's streams a delivery takes, and what waits in memory for each of them.
//!
//! A road leads from a topic filter to a stream. A delivery takes the first road, ascending by filter (byte by byte),
//! whose filter matches its topic; without one it takes the connection's first stream, which has no road.

use crate::session::Ready;
use parlor_protocol::topic;
use std::collections::VecDeque;

/// The roads of one session; only sessions that have used further streams own one of these.
#[derive(Debug, Default)]
pub(crate) struct Roads {
    /// Ascending by filter.
    list: Vec<Road>,
    /// Streams for which something waits.
    lanes: Vec<Lane>,
    /// The lane whose turn it is; one past the last is the first stream's.
    turn: usize,
}

#[derive(Debug)]
struct Road {
    filter: Box<str>,
    /// Where the filter of a shared subscription begins behind its group; 0 for others.
    plain_at: usize,
    stream: u32,
    /// QoS 1 and 2 take another road: nothing says whether a datagram came.
    only_qos_0: bool,
}

#[derive(Debug)]
struct Lane {
    stream: u32,
    waiting: VecDeque<Ready>,
}

impl Roads {
    /// The stream for a delivery.
    pub(crate) fn find(&self, topic: &str, qos: u8) -> Option<u32> {
        let leads = |road: &&Road| {
            let filter = road.filter.get(road.plain_at..).unwrap_or_default();
            !(road.only_qos_0 && qos > 0) && topic::matches(filter, topic)
        };
        self.list.iter().find(leads).map(|road| road.stream)
    }

    /// The stream for deliveries that are made for this very filter.
    pub(crate) fn of_filter(&self, filter: &str, qos: u8) -> Option<u32> {
        let road = self.list.get(self.place_of(filter).ok()?)?;
        (!road.only_qos_0 || qos == 0).then_some(road.stream)
    }

    /// Lets a filter lead to a stream, whatever it led to before.
    pub(crate) fn set(&mut self, filter: &str, stream: u32, only_qos_0: bool) {
        let plain_at = match topic::parse_shared(filter) {
            Ok(Some((_, plain))) => filter.len() - plain.len(),
            _ => 0,
        };
        let road = Road { filter: filter.into(), plain_at, stream, only_qos_0 };
        match self.place_of(filter) {
            Ok(at) => self.list[at] = road,
            Err(at) => self.list.insert(at, road),
        }
    }

    /// Whether a filter leads somewhere.
    pub(crate) fn has(&self, filter: &str) -> bool {
        self.place_of(filter).is_ok()
    }

    /// The filter leads nowhere any more; what waits for its stream goes there all the same.
    pub(crate) fn remove(&mut self, filter: &str) {
        if let Ok(at) = self.place_of(filter) {
            self.list.remove(at);
        }
    }

    /// A stream has ended: no road leads there any more. What waited for it.
    pub(crate) fn end(&mut self, stream: u32) -> VecDeque<Ready> {
        self.list.retain(|road| road.stream != stream);
        match self.lanes.iter().position(|lane| lane.stream == stream) {
            Some(at) => self.lanes.remove(at).waiting,
            None => VecDeque::new(),
        }
    }

    /// How many roads there are.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is nothing here.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty() && self.lanes.is_empty()
    }

    /// Streams that get messaging and must not lose any of it.
    pub(crate) fn messaging(&self) -> impl Iterator<Item = u32> {
        self.list.iter().filter(|road| !road.only_qos_0 && road.filter.starts_with("im/")).map(|road| road.stream)
    }

    /// Whether something waits for a stream.
    pub(crate) fn has_waiting(&self, stream: u32) -> bool {
        self.lanes.iter().any(|lane| lane.stream == stream)
    }

    /// How many messages wait for all streams that have roads.
    pub(crate) fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.len()).sum()
    }

    /// Makes a message wait for a stream.
    pub(crate) fn wait(&mut self, stream: u32, ready: Ready) {
        match self.lanes.iter_mut().find(|lane| lane.stream == stream) {
            Some(lane) => lane.waiting.push_back(ready),
            None => self.lanes.push(Lane { stream, waiting: [ready].into() }),
        }
    }

    /// All lanes, the one whose turn it is first; `None` is the first stream's.
    pub(crate) fn in_turn(&self) -> impl Iterator<Item = Option<u32>> + use<> {
        let lanes: Vec<Option<u32>> = self.lanes.iter().map(|lane| Some(lane.stream)).chain([None]).collect();
        let first = self.turn % lanes.len();
        let count = lanes.len();
        (0..count).filter_map(move |at| lanes.get((first + at) % count).copied())
    }

    /// This lane had its turn.
    pub(crate) fn had_turn(&mut self, lane: Option<u32>) {
        let at = self.lanes.iter().position(|known| Some(known.stream) == lane);
        self.turn = at.unwrap_or(self.lanes.len()) + 1;
    }

    /// The first message that waits for a stream.
    pub(crate) fn first(&self, stream: u32) -> Option<&Ready> {
        self.lanes.iter().find(|lane| lane.stream == stream)?.waiting.front()
    }

    /// Takes it.
    pub(crate) fn take_first(&mut self, stream: u32) -> Option<Ready> {
        let at = self.lanes.iter().position(|lane| lane.stream == stream)?;
        let lane = self.lanes.get_mut(at)?;
        let ready = lane.waiting.pop_front();
        if lane.waiting.is_empty() {
            self.lanes.remove(at);
        }
        ready
    }

    fn place_of(&self, filter: &str) -> Result<usize, usize> {
        self.list.binary_search_by(|road| (*road.filter).cmp(filter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use std::rc::Rc;

    fn ready(index: u64) -> Ready {
        let message = Rc::new(Message::new("t", &[], b"x", 0));
        Ready { index, message, qos: 1, retain: false, subscription_ids: Box::default() }
    }

    #[test]
    fn the_first_filter_that_matches_leads() {
        let mut roads = Roads::default();
        roads.set("a/b", 3, false);
        roads.set("a/#", 2, false);
        roads.set("$share/g/s/+", 4, false);
        roads.set("a/+/c", 5, true);
        assert_eq!(roads.find("a/b", 1), Some(2), "`#` sorts before letters");
        assert_eq!(roads.find("s/x", 0), Some(4));
        assert_eq!(roads.find("g/s/x", 0), None);
        roads.remove("a/#");
        assert_eq!((roads.find("a/b", 1), roads.find("a", 0)), (Some(3), None));
        assert_eq!((roads.find("a/x/c", 0), roads.find("a/x/c", 1)), (Some(5), None));
        assert_eq!((roads.of_filter("a/+/c", 0), roads.of_filter("a/+/c", 1)), (Some(5), None));
        roads.set("a/b", 9, false);
        assert_eq!(roads.find("a/b", 2), Some(9));
        roads.end(9);
        assert_eq!((roads.find("a/b", 2), roads.len()), (None, 2));
    }

    #[test]
    fn lanes_have_their_turns_and_what_an_ended_one_held_comes_back() {
        let mut roads = Roads::default();
        roads.wait(7, ready(1));
        roads.wait(8, ready(2));
        roads.wait(7, ready(3));
        assert_eq!(roads.in_turn().collect::<Vec<_>>(), [Some(7), Some(8), None]);
        roads.had_turn(Some(7));
        assert_eq!(roads.in_turn().collect::<Vec<_>>(), [Some(8), None, Some(7)]);
        roads.had_turn(None);
        assert_eq!(roads.in_turn().next(), Some(Some(7)));
        assert_eq!(roads.first(7).map(|r| r.index), Some(1));
        assert_eq!(roads.take_first(7).map(|r| r.index), Some(1));
        assert_eq!((roads.waiting(), roads.has_waiting(9)), (2, false));
        assert_eq!(roads.end(7).into_iter().map(|r| r.index).collect::<Vec<_>>(), [3]);
        assert!(roads.take_first(8).is_some() && roads.is_empty());
    }
}
