//! One announcement, and who may see what of it.

use crate::im::body::put_place;
use crate::im::dedup::Hash;
use crate::im::json::{put_field, put_text};
use crate::im::model::AccountNo;
use crate::im::row::{RowWriter, read_flag, read_u32, reader};
use crate::store::bytes::{DecodeError, Reader as Bytes};
use std::collections::BTreeMap;

/// Forms of the gates that are told apart; when there are more, two neighbours become one.
const GATES_KEPT: usize = 8;

/// Where an announcement is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Seen by nobody but those who may write to the channel.
    Draft = 1,
    /// Seen by the accounts on the white list.
    Pre = 2,
    Live = 3,
    /// No longer shown; who has it keeps it.
    Stopped = 4,
    /// No longer shown; who has it is told to remove it.
    Recalled = 5,
}

impl State {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Pre => "pre",
            Self::Live => "live",
            Self::Stopped => "stopped",
            Self::Recalled => "recalled",
        }
    }

    fn of(byte: u8) -> Result<Self, DecodeError> {
        [Self::Draft, Self::Pre, Self::Live, Self::Stopped, Self::Recalled]
            .into_iter()
            .find(|state| *state as u8 == byte)
            .ok_or(DecodeError::UnknownTag(byte))
    }
}

/// Which terminals an announcement is for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Gates {
    /// Least level.
    pub(super) min: u32,
    /// Greatest level; 0: no bound.
    pub(super) max: u32,
    /// Platforms; empty: every one, also an unknown one.
    pub(super) platforms: Vec<Box<str>>,
}

impl Gates {
    fn passes(&self, level: u32, platform: &str) -> bool {
        let mut platforms = self.platforms.iter();
        level >= self.min
            && (self.max == 0 || level <= self.max)
            && (self.platforms.is_empty() || platforms.any(|p| p.eq_ignore_ascii_case(platform)))
    }

    fn write(&self, w: &mut RowWriter) {
        w.int(self.min.into()).int(self.max.into()).int(self.platforms.len() as u64);
        for platform in &self.platforms {
            w.str(platform);
        }
    }

    fn read(r: &mut Bytes<'_>) -> Result<Self, DecodeError> {
        let mut gates = Self { min: read_u32(r)?, max: read_u32(r)?, platforms: vec![] };
        for _ in 0..r.int()? {
            gates.platforms.push(r.str()?.into());
        }
        Ok(gates)
    }
}

/// Accounts that see what is `pre`, each with the change of the channel that put it on the list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct WhiteList(pub(super) BTreeMap<AccountNo, u64>);

impl WhiteList {
    pub(super) fn write(&self, w: &mut RowWriter) {
        w.int(self.0.len() as u64);
        for (account, since) in &self.0 {
            w.int(account.0.into()).int(*since);
        }
    }

    pub(super) fn read(r: &mut Bytes<'_>) -> Result<Self, DecodeError> {
        let mut list = Self::default();
        for _ in 0..r.int()? {
            let account = AccountNo(read_u32(r)?);
            list.0.insert(account, r.int()?);
        }
        Ok(list)
    }

    /// The list as it is when `change` makes it these accounts: who stays keeps its number. Also who is new.
    pub(super) fn changed_to(&self, accounts: &[AccountNo], change: u64) -> (Self, Vec<AccountNo>) {
        let since = |account: &AccountNo| self.0.get(account).copied().unwrap_or(change);
        let list = Self(accounts.iter().map(|account| (*account, since(account))).collect());
        let added = list.0.keys().filter(|account| !self.0.contains_key(account)).copied().collect();
        (list, added)
    }
}

/// A terminal that reads a channel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) account: AccountNo,
    pub(super) level: u32,
    pub(super) platform: &'a str,
    /// The channel is for this account.
    pub(super) is_audience: bool,
    /// Changes up to here are dealt with, or under way on this connection.
    pub(super) place: u64,
    /// Changes up to here may have reached the terminal: at least `place`.
    pub(super) reached: u64,
}

/// In what form a terminal is to see an announcement now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// For the first time.
    Msg,
    /// In another text than the one it has.
    Edit,
    /// It is to remove what it has.
    Recall,
}

impl Sight {
    /// Last level of the topic.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Msg => "msg",
            Self::Edit => "edit",
            Self::Recall => "recall",
        }
    }
}

/// One announcement. Every change of a channel has a number, greater than all before; a terminal's place is the number
/// of the last change that it has got, so what it is still to see follows from comparing numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) state: State,
    /// Who made it, with which client id (empty: none), and what tells that request from another with the same id.
    pub(super) by: AccountNo,
    pub(super) id: Box<str>,
    pub(super) content: u64,
    /// `,"text":"…"` and the other fields that are passed on as they are.
    pub(super) fragment: Vec<u8>,
    /// Number of the text: 1, 2, …
    pub(super) version: u64,
    /// Validity, milliseconds since 1970; 0: no bound.
    pub(super) from_ms: u64,
    pub(super) until_ms: u64,
    /// Terminals that are online are told.
    pub(super) notify: bool,
    /// It is `pre` or `live`, and its validity has not begun.
    pub(super) waits: bool,
    /// The latest change.
    pub(super) changed: u64,
    /// The change that made the present text, if somebody may have seen an earlier one; else 0.
    pub(super) text_change: u64,
    /// The changes with which the white list and everybody could see it first; 0: not yet.
    pub(super) pre_change: u64,
    pub(super) live_change: u64,
    /// The gates it has had while it was shown, each with the change that made them. Never empty.
    gates: Vec<(u64, Gates)>,
    /// Its own white list, instead of the channel's.
    pub(super) white: Option<WhiteList>,
    /// When it was first shown, and last changed; milliseconds since 1970.
    pub(super) shown_ms: u64,
    pub(super) changed_ms: u64,
    /// Terminals that it was sent to since the broker started.
    pub(super) sent: u64,
}

impl Entry {
    pub(super) fn new(by: AccountNo, id: &str, content: u64) -> Self {
        Self {
            state: State::Draft,
            by,
            id: id.into(),
            content,
            fragment: vec![],
            version: 0,
            from_ms: 0,
            until_ms: 0,
            notify: false,
            waits: false,
            changed: 0,
            text_change: 0,
            pre_change: 0,
            live_change: 0,
            gates: vec![(0, Gates::default())],
            white: None,
            shown_ms: 0,
            changed_ms: 0,
            sent: 0,
        }
    }

    pub(super) fn gates(&self) -> &Gates {
        let (_, gates) = self.gates.last().expect("there are always gates");
        gates
    }

    /// Somebody may have seen it.
    pub(super) fn was_shown(&self) -> bool {
        self.pre_change != 0 || self.live_change != 0
    }

    pub(super) fn is_over(&self, wall_ms: u64) -> bool {
        matches!(self.state, State::Stopped | State::Recalled) || (self.until_ms != 0 && self.until_ms <= wall_ms)
    }

    fn is_valid(&self, wall_ms: u64) -> bool {
        self.from_ms <= wall_ms && (self.until_ms == 0 || wall_ms < self.until_ms)
    }

    pub(super) fn set_text(&mut self, fragment: Vec<u8>, change: u64) {
        if fragment == self.fragment {
            return;
        }
        self.fragment = fragment;
        self.version += 1;
        if self.was_shown() {
            self.text_change = change;
        }
    }

    pub(super) fn set_gates(&mut self, gates: Gates, change: u64) {
        if *self.gates() == gates {
            return;
        }
        if !self.was_shown() {
            self.gates = vec![(0, gates)];
            return;
        }
        self.gates.push((change, gates));
        if self.gates.len() > GATES_KEPT {
            // Rather miss a terminal that only these gates let through than show it the same text twice.
            let (since, _) = self.gates.remove(0);
            self.gates[0].0 = since;
        }
    }

    pub(super) fn set_validity(&mut self, from_ms: u64, until_ms: u64, change: u64, wall_ms: u64) {
        let was_over = self.until_ms != 0 && self.until_ms <= wall_ms;
        (self.from_ms, self.until_ms) = (from_ms, until_ms);
        if was_over && !self.is_over(wall_ms) && self.was_shown() {
            // Terminals went past it while it was over: it counts as new.
            self.text_change = change;
        }
    }

    /// Looks whether it is shown from this change on, after its state or its validity has changed or begun.
    pub(super) fn show(&mut self, change: u64, wall_ms: u64) {
        if !matches!(self.state, State::Pre | State::Live) {
            self.waits = false;
            return;
        }
        let waited = core::mem::replace(&mut self.waits, self.from_ms > wall_ms);
        if self.waits {
            return;
        }
        let shown = if self.state == State::Pre { &mut self.pre_change } else { &mut self.live_change };
        if *shown == 0 {
            *shown = change;
            self.shown_ms = wall_ms;
        } else if waited {
            // It was shown, was put off, and terminals went past it meanwhile.
            self.text_change = change;
        }
    }

    /// Nothing of it is left but what a recall needs.
    pub(super) fn wipe(&mut self) {
        self.state = State::Recalled;
        self.waits = false;
        self.fragment = vec![];
    }

    /// The change with which an account could see it first; `u64::MAX`: never.
    fn first_shown(&self, account: AccountNo, common: &WhiteList) -> u64 {
        let white = self.white.as_ref().unwrap_or(common);
        let live = if self.live_change == 0 { u64::MAX } else { self.live_change };
        match white.0.get(&account) {
            Some(since) if self.pre_change != 0 => live.min(self.pre_change.max(*since)),
            _ => live,
        }
    }

    /// What a terminal is to see of it, if anything. `common`: the channel's white list.
    pub(super) fn sight(&self, common: &WhiteList, reader: &Reader<'_>, wall_ms: u64) -> Option<Sight> {
        let shown = self.first_shown(reader.account, common);
        match self.state {
            State::Draft | State::Stopped => None,
            // Whoever has it is told, whatever it is by now.
            State::Recalled => (reader.place < self.changed && shown <= reader.reached).then_some(Sight::Recall),
            State::Pre | State::Live => {
                let passes = |gates: &Gates| gates.passes(reader.level, reader.platform);
                let is_open = reader.is_audience && !self.waits && self.is_valid(wall_ms) && passes(self.gates());
                let (since, _) = self.gates.iter().find(|(_, gates)| is_open && passes(gates))?;
                let first = shown.max(*since);
                if first == u64::MAX || first.max(self.text_change) <= reader.place {
                    return None;
                }
                Some(if first <= reader.place { Sight::Edit } else { Sight::Msg })
            }
        }
    }

    /// The payload in which a terminal sees it.
    pub(super) fn render(&self, no: u64, channel: &str, sight: Sight, wall_ms: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.fragment.len() + 160);
        out.push(b'{');
        put_place(&mut out, no, 0, 0);
        put_field(&mut out, "entry", no);
        put_field(&mut out, "change", self.changed);
        put_text(&mut out, if sight == Sight::Msg { "from" } else { "by" }, channel);
        put_field(&mut out, "ts", if sight == Sight::Msg { self.shown_ms } else { self.changed_ms });
        if sight != Sight::Recall {
            out.extend_from_slice(&self.fragment);
            put_field(&mut out, "version", self.version);
            if self.until_ms != 0 {
                put_field(&mut out, "left_ms", self.until_ms.saturating_sub(wall_ms));
            }
        }
        out.push(b'}');
        out
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = RowWriter(Vec::with_capacity(self.fragment.len() + 96));
        w.byte(1).byte(self.state as u8).int(self.by.0.into()).str(&self.id).int(self.content);
        w.bytes(&self.fragment).int(self.version).int(self.from_ms).int(self.until_ms);
        w.flag(self.notify).flag(self.waits);
        w.int(self.changed).int(self.text_change).int(self.pre_change).int(self.live_change);
        w.int(self.gates.len() as u64);
        for (since, gates) in &self.gates {
            w.int(*since);
            gates.write(&mut w);
        }
        w.flag(self.white.is_some());
        if let Some(white) = &self.white {
            white.write(&mut w);
        }
        w.int(self.shown_ms).int(self.changed_ms);
        w.0
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut r = reader(value)?;
        let state = State::of(r.byte()?)?;
        let by = AccountNo(read_u32(&mut r)?);
        let id = r.str()?;
        let mut entry = Self { state, ..Self::new(by, id, r.int()?) };
        entry.fragment = r.bytes()?.to_vec();
        entry.version = r.int()?;
        (entry.from_ms, entry.until_ms) = (r.int()?, r.int()?);
        (entry.notify, entry.waits) = (read_flag(&mut r)?, read_flag(&mut r)?);
        (entry.changed, entry.text_change) = (r.int()?, r.int()?);
        (entry.pre_change, entry.live_change) = (r.int()?, r.int()?);
        let mut gates = vec![];
        for _ in 0..r.int()? {
            let since = r.int()?;
            gates.push((since, Gates::read(&mut r)?));
        }
        if !gates.is_empty() {
            entry.gates = gates;
        }
        if read_flag(&mut r)? {
            entry.white = Some(WhiteList::read(&mut r)?);
        }
        (entry.shown_ms, entry.changed_ms) = (r.int()?, r.int()?);
        Ok(entry)
    }
}

/// What tells two requests with the same client id apart.
pub(super) fn content_of(op: &str, payload: &[u8]) -> u64 {
    let mut hash = Hash::new(2);
    hash.write(op.as_bytes());
    hash.write(payload);
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: AccountNo = AccountNo(1);
    const TESTER: AccountNo = AccountNo(2);

    /// Live since change 5, and until then shown to the tester since change 3.
    fn entry() -> Entry {
        let mut entry = Entry::new(AccountNo(0), "", 0);
        entry.set_text(b",\"text\":\"x\"".to_vec(), 1);
        entry.white = Some(WhiteList([(TESTER, 2)].into()));
        for (state, change) in [(State::Pre, 3), (State::Live, 5)] {
            entry.state = state;
            entry.show(change, 1_000);
            entry.changed = change;
        }
        entry
    }

    #[test]
    fn the_gates_are_a_table() {
        let phone = Reader { account: ALICE, level: 260_101, platform: "ios", is_audience: true, place: 0, reached: 0 };
        let gates = |min, max, platforms: &[&str]| Gates {
            min,
            max,
            platforms: platforms.iter().map(|p| (*p).into()).collect(),
        };
        let shown = Some(Sight::Msg);
        for (name, gates, from_ms, until_ms, reader, expect) in [
            ("open to all", gates(0, 0, &[]), 0, 0, phone, shown),
            ("not in the audience", gates(0, 0, &[]), 0, 0, Reader { is_audience: false, ..phone }, None),
            ("level at least", gates(260_101, 0, &[]), 0, 0, phone, shown),
            ("level too low", gates(260_102, 0, &[]), 0, 0, phone, None),
            ("level at most", gates(0, 260_101, &[]), 0, 0, phone, shown),
            ("level too high", gates(0, 260_100, &[]), 0, 0, phone, None),
            ("stock client under a least level", gates(1, 0, &[]), 0, 0, Reader { level: 0, ..phone }, None),
            ("stock client under a greatest level", gates(0, 9, &[]), 0, 0, Reader { level: 0, ..phone }, shown),
            ("platform", gates(0, 0, &["android", "iOS"]), 0, 0, phone, shown),
            ("other platform", gates(0, 0, &["android"]), 0, 0, phone, None),
            ("unknown platform", gates(0, 0, &["ios"]), 0, 0, Reader { platform: "", ..phone }, None),
            ("valid", gates(0, 0, &[]), 2_000, 2_001, phone, shown),
            ("not yet valid", gates(0, 0, &[]), 2_001, 0, phone, None),
            ("no longer valid", gates(0, 0, &[]), 0, 2_000, phone, None),
            ("dealt with", gates(0, 0, &[]), 0, 0, Reader { place: 5, reached: 5, ..phone }, None),
        ] {
            let mut entry = entry();
            entry.gates = vec![(0, gates)];
            (entry.from_ms, entry.until_ms) = (from_ms, until_ms);
            assert_eq!(entry.sight(&WhiteList::default(), &reader, 2_000), expect, "{name}");
        }
    }

    #[track_caller]
    fn check(entry: &Entry, account: AccountNo, place: u64, expect: Option<Sight>) {
        let reader = Reader { account, level: 0, platform: "", is_audience: true, place, reached: place };
        assert_eq!(entry.sight(&WhiteList::default(), &reader, 2_000), expect, "{entry:?}");
    }

    #[test]
    fn who_saw_it_early_does_not_see_it_again_until_its_text_changes() {
        let mut entry = entry();
        check(&entry, TESTER, 2, Some(Sight::Msg));
        check(&entry, TESTER, 3, None);
        check(&entry, ALICE, 4, Some(Sight::Msg));
        entry.set_text(b",\"text\":\"y\"".to_vec(), 6);
        entry.changed = 6;
        for account in [ALICE, TESTER] {
            check(&entry, account, 5, Some(Sight::Edit));
            check(&entry, account, 6, None);
            check(&entry, account, 0, Some(Sight::Msg));
        }
        check(&entry, ALICE, 4, Some(Sight::Msg));
    }

    #[test]
    fn a_recall_is_for_those_who_may_have_it() {
        let mut entry = entry();
        entry.wipe();
        entry.changed = 9;
        check(&entry, ALICE, 4, None);
        check(&entry, ALICE, 5, Some(Sight::Recall));
        check(&entry, ALICE, 9, None);
        check(&entry, TESTER, 2, None);
        check(&entry, TESTER, 3, Some(Sight::Recall));
    }

    #[test]
    fn wider_gates_reach_those_they_kept_out_and_nobody_twice() {
        let mut entry = entry();
        entry.set_gates(Gates { min: 10, ..Gates::default() }, 6);
        entry.set_gates(Gates { min: 1, ..Gates::default() }, 7);
        let reader =
            |level, place| Reader { account: ALICE, level, platform: "", is_audience: true, place, reached: place };
        let none = WhiteList::default();
        // Both passed the gates it had at change 5.
        assert_eq!(entry.sight(&none, &reader(1, 5), 2_000), None);
        assert_eq!(entry.sight(&none, &reader(1, 4), 2_000), Some(Sight::Msg));
        entry.gates.remove(0);
        assert_eq!(entry.sight(&none, &reader(1, 6), 2_000), Some(Sight::Msg));
        assert_eq!(entry.sight(&none, &reader(10, 6), 2_000), None);
        for min in 20..40 {
            entry.set_gates(Gates { min, ..Gates::default() }, u64::from(min));
        }
        assert_eq!(entry.gates.len(), GATES_KEPT);
        assert_eq!(entry.sight(&none, &reader(99, 6), 2_000), None);
    }

    #[test]
    fn an_entry_reads_back() {
        let mut entry = entry();
        entry.set_gates(Gates { min: 1, max: 9, platforms: vec!["ios".into(), "web".into()] }, 6);
        (entry.from_ms, entry.until_ms, entry.notify, entry.changed_ms) = (7, 1 << 50, true, 12);
        assert_eq!(Entry::decode(&entry.encode()), Ok(entry.clone()));
        assert!(Entry::decode(&[1, 9]).is_err() && Entry::decode(&entry.encode()[..20]).is_err());
        let text = String::from_utf8(entry.render(4, "ch-fw", Sight::Edit, 0)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["entry"], &value["text"], &value["by"]), (&4.into(), &"x".into(), &"ch-fw".into()));
    }
}
