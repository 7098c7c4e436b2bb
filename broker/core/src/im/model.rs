//! What the messaging rooms know: accounts, conversations, members, terminals.

use super::row::{RowWriter, read_flag, read_u32, reader};
use crate::hash::Map;
use crate::store::bytes::DecodeError;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// Names an account; never used again for another, also not after its name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AccountNo(pub(crate) u32);

/// Names a conversation: two accounts, a group, a channel or a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConvNo(pub(crate) u32);

impl AccountNo {
    pub(crate) fn at(self) -> usize {
        self.0 as usize
    }
}

impl ConvNo {
    pub(crate) fn at(self) -> usize {
        self.0 as usize
    }
}

/// What an account is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum AccountKind {
    #[default]
    Person,
    Device,
    Service,
}

impl AccountKind {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Device => "device",
            Self::Service => "service",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Person, Self::Device, Self::Service].into_iter().find(|kind| kind.text() == text)
    }
}

/// How one account stands to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Relation {
    #[default]
    None,
    /// Has asked and waits for an answer.
    Asked,
    /// Is asked and has not answered.
    Asking,
    /// Both agreed.
    Friends,
    /// Follows a channel.
    Follows,
}

/// One account's side of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Contact {
    pub(crate) relation: Relation,
    /// This account wants to hear nothing of the other.
    pub(crate) blocked: bool,
    /// Messages of the other do not count as unread.
    pub(crate) muted: bool,
    /// Milliseconds since 1970 of the last change.
    pub(crate) since_ms: u64,
}

impl Contact {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = RowWriter::new(1);
        w.byte(self.relation as u8).flag(self.blocked).flag(self.muted).int(self.since_ms);
        w.0
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut r = reader(value)?;
        let relation = match r.byte()? {
            1 => Relation::Asked,
            2 => Relation::Asking,
            3 => Relation::Friends,
            4 => Relation::Follows,
            _ => Relation::None,
        };
        Ok(Self { relation, blocked: read_flag(&mut r)?, muted: read_flag(&mut r)?, since_ms: r.int()? })
    }
}

/// One account.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) name: Rc<str>,
    pub(crate) kind: AccountKind,
    /// Removed: its number stays, its name does not.
    pub(crate) removed: bool,
    pub(crate) created_ms: u64,
    /// Display name; empty: none.
    pub(crate) display: String,
    /// Profile data, JSON text; empty: none.
    pub(crate) data: String,
    pub(crate) contacts: BTreeMap<AccountNo, Contact>,
    /// Conversations it is in.
    pub(crate) convs: Vec<ConvNo>,
    /// Those of them that are households.
    pub(crate) households: Vec<ConvNo>,
    pub(crate) terminals: Vec<Terminal>,
    pub(crate) mailbox: Mailbox,
    /// Unread messages of all conversations.
    pub(crate) unread: u64,
    /// Sessions that take part, as places in `Im::online`.
    pub(crate) online: Vec<u32>,
    pub(crate) presence: super::presence::PresenceState,
    pub(crate) flood: super::flood::Bucket,
}

impl Account {
    pub(crate) fn new(name: Rc<str>, kind: AccountKind, created_ms: u64) -> Self {
        Self {
            name,
            kind,
            removed: false,
            created_ms,
            display: String::new(),
            data: String::new(),
            contacts: BTreeMap::new(),
            convs: vec![],
            households: vec![],
            terminals: vec![],
            mailbox: Mailbox::default(),
            unread: 0,
            online: vec![],
            presence: super::presence::PresenceState::default(),
            flood: super::flood::Bucket::default(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = RowWriter::new(1);
        w.str(&self.name).byte(self.kind as u8).flag(self.removed).int(self.created_ms);
        w.str(&self.display).str(&self.data);
        w.0
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut r = reader(value)?;
        let name: Rc<str> = r.str()?.into();
        let kind = match r.byte()? {
            1 => AccountKind::Device,
            2 => AccountKind::Service,
            _ => AccountKind::Person,
        };
        let removed = read_flag(&mut r)?;
        let mut account = Self::new(name, kind, r.int()?);
        account.removed = removed;
        r.str()?.clone_into(&mut account.display);
        r.str()?.clone_into(&mut account.data);
        Ok(account)
    }

    pub(crate) fn terminal(&self, no: u8) -> Option<&Terminal> {
        self.terminals.iter().find(|t| t.no == no)
    }

    pub(crate) fn terminal_mut(&mut self, no: u8) -> Option<&mut Terminal> {
        self.terminals.iter_mut().find(|t| t.no == no)
    }
}

/// One installation of an account: a phone, a tab, a board.
#[derive(Debug, Default)]
pub(crate) struct Terminal {
    /// 0 to 15, free again when it is forgotten.
    pub(crate) no: u8,
    pub(crate) client_id: Box<str>,
    /// Every position up to here is done.
    pub(crate) acked: u64,
    /// Integer `yyMMdd`; 0: a stock client.
    pub(crate) level: u32,
    pub(crate) platform: Box<str>,
    pub(crate) app: Box<str>,
    /// When it was last connected, milliseconds since 1970.
    pub(crate) seen_ms: u64,
    /// Places in logs that are followed: large groups by seq, channels by number of the change.
    pub(crate) places: BTreeMap<ConvNo, u64>,
    pub(crate) dirty: bool,
    /// Positions below were sent on its last connection.
    pub(crate) sent: u64,
    /// Its place in `Im::online`; `u32::MAX`: away.
    pub(crate) online: u32,
}

impl Terminal {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = RowWriter::new(1);
        w.str(&self.client_id).int(self.acked).int(self.level.into()).int(self.seen_ms);
        w.str(&self.platform).str(&self.app);
        w.0
    }

    pub(crate) fn decode(no: u8, value: &[u8]) -> Result<Self, DecodeError> {
        let mut r = reader(value)?;
        Ok(Self {
            no,
            client_id: r.str()?.into(),
            acked: r.int()?,
            level: read_u32(&mut r)?,
            seen_ms: r.int()?,
            platform: r.str()?.into(),
            app: r.str()?.into(),
            places: BTreeMap::new(),
            dirty: false,
            sent: 0,
            online: u32::MAX,
        })
    }
}

/// Where an account's mailbox stands.
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// The position that the next entry gets; the first is 1.
    pub(crate) next: u64,
    /// Positions below are on disk.
    pub(crate) committed: u64,
    /// Positions below are gone.
    pub(crate) floor: u64,
    /// The latest entries, up to `next`; all that are not committed are here.
    pub(crate) recent: VecDeque<MailEntry>,
    /// Lowest position of each day that is still kept: day since 1970, position.
    pub(crate) days: VecDeque<(u32, u64)>,
    pub(crate) dirty: bool,
    /// Is on the list of those whose entries wait for a commit.
    pub(crate) touched: bool,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            next: 1,
            committed: 1,
            floor: 1,
            recent: VecDeque::new(),
            days: VecDeque::new(),
            dirty: false,
            touched: false,
        }
    }
}

impl Mailbox {
    /// Position of `recent[0]`.
    pub(crate) fn recent_from(&self) -> u64 {
        self.next - self.recent.len() as u64
    }

    /// The entry at `pos`, if it is in memory.
    pub(crate) fn recent_at(&self, pos: u64) -> Option<MailEntry> {
        let at = pos.checked_sub(self.recent_from())?;
        self.recent.get(usize::try_from(at).ok()?).copied()
    }
}

/// What one mailbox entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MailKind {
    /// A message of another, or what the account itself has sent.
    Message = 1,
    /// Marks of the peer (`extra`: its account), or how many of a group have what.
    Receipt = 2,
    /// The account's own marks, moved by one of its terminals.
    OwnMark = 3,
    Recall = 4,
    Edit = 5,
    /// Something about a contact (`conv`: account; `extra`: [`ContactOp`]).
    Contact = 6,
    /// A command changed (`conv`: device account; `seq`: number of the command; `extra`: state).
    Command = 7,
    /// A message did not get there (`extra`: why).
    Bounce = 8,
}

impl MailKind {
    fn of(byte: u8) -> Result<Self, DecodeError> {
        Ok(match byte {
            1 => Self::Message,
            2 => Self::Receipt,
            3 => Self::OwnMark,
            4 => Self::Recall,
            5 => Self::Edit,
            6 => Self::Contact,
            7 => Self::Command,
            8 => Self::Bounce,
            other => return Err(DecodeError::UnknownTag(other)),
        })
    }
}

/// Events between contacts, as `extra` of a [`MailKind::Contact`] entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContactOp {
    Request = 1,
    Accept = 2,
    Refuse = 3,
    Remove = 4,
}

impl ContactOp {
    pub(crate) fn text(extra: u32) -> &'static str {
        match extra {
            1 => "request",
            2 => "accept",
            3 => "refuse",
            _ => "remove",
        }
    }
}

/// One mailbox entry: what the account must learn, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MailEntry {
    pub(crate) kind: MailKind,
    pub(crate) conv: u32,
    pub(crate) seq: u64,
    pub(crate) extra: u32,
}

impl MailEntry {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind as u8);
        crate::store::bytes::put_int(out, self.conv.into());
        crate::store::bytes::put_int(out, self.seq);
        if self.extra != 0 {
            crate::store::bytes::put_int(out, self.extra.into());
        }
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut r = crate::store::bytes::Reader::new(value);
        let kind = MailKind::of(r.byte()?)?;
        let (conv, seq) = (read_u32(&mut r)?, r.int()?);
        let extra = if r.used() < value.len() { read_u32(&mut r)? } else { 0 };
        Ok(Self { kind, conv, seq, extra })
    }
}

/// Role in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Role {
    Guest,
    #[default]
    Member,
    Owner,
}

impl Role {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Member => "member",
            Self::Owner => "owner",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Guest, Self::Member, Self::Owner].into_iter().find(|role| role.text() == text)
    }
}

/// One account's part in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) account: AccountNo,
    pub(crate) role: Role,
    /// Messages up to here were said before it came.
    pub(crate) joined: u64,
    /// Delivered up to here.
    pub(crate) recv: u64,
    /// Read up to here.
    pub(crate) read: u64,
    /// Cleared up to here: gone for this account only.
    pub(crate) cleared: u64,
    pub(crate) unread: u32,
    pub(crate) muted: bool,
    /// Not written since it changed.
    pub(crate) dirty: bool,
    /// Marks that the others have been told, while a change waits to be told.
    pub(crate) told: Option<(u64, u64)>,
    /// Position of the latest receipt entry about this member in the peer's mailbox; earlier ones say nothing new.
    pub(crate) receipt_at: u64,
    /// `recv` and `read` as they are on disk: nobody is told more.
    pub(crate) kept: (u64, u64),
}

impl Member {
    pub(crate) fn new(account: AccountNo, role: Role, joined: u64) -> Self {
        Self {
            account,
            role,
            joined,
            recv: joined,
            read: joined,
            cleared: 0,
            unread: 0,
            muted: false,
            dirty: true,
            told: None,
            receipt_at: 0,
            kept: (joined, joined),
        }
    }

    pub(crate) fn write(&self, w: &mut RowWriter) {
        w.byte(self.role as u8 | u8::from(self.muted) << 4);
        w.int(self.joined).int(self.read - self.joined.min(self.read)).int(self.recv.saturating_sub(self.read));
        w.int(self.cleared).int(self.unread.into());
    }

    pub(crate) fn read(account: AccountNo, r: &mut crate::store::bytes::Reader<'_>) -> Result<Self, DecodeError> {
        let flags = r.byte()?;
        let role = match flags & 3 {
            0 => Role::Guest,
            1 => Role::Member,
            _ => Role::Owner,
        };
        let joined = r.int()?;
        let read = joined.saturating_add(r.int()?);
        let recv = read.saturating_add(r.int()?);
        let (cleared, unread) = (r.int()?, read_u32(r)?);
        let mut member = Self::new(account, role, joined);
        member.muted = flags & 16 != 0;
        (member.read, member.recv, member.cleared, member.unread) = (read, recv, cleared, unread);
        member.kept = (recv, read);
        member.dirty = false;
        Ok(member)
    }

    /// The first seq this account may see.
    pub(crate) fn visible_from(&self) -> u64 {
        self.joined.max(self.cleared) + 1
    }
}

/// What a conversation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConvKind {
    Direct,
    Group(Group),
    Channel(Channel),
}

/// Settings of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) address: Rc<str>,
    pub(crate) name: String,
    pub(crate) household: bool,
    /// More than 64 members: messages are not copied into mailboxes, also not when it becomes smaller again.
    pub(crate) large: bool,
    /// Ended: nobody is in it, and its address may be used again by nobody.
    pub(crate) dissolved: bool,
}

/// Settings of an announcement channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Channel {
    pub(crate) address: Rc<str>,
    pub(crate) name: String,
    /// Everybody follows it; else those who said so.
    pub(crate) to_all: bool,
    pub(crate) editors: Vec<AccountNo>,
}

/// A message no longer counts as unread: it was recalled, or expired.
pub(crate) const GONE: u8 = 2;
/// A message counts as unread.
pub(crate) const COUNTED: u8 = 1;

/// One conversation.
#[derive(Debug)]
pub(crate) struct Conv {
    pub(crate) kind: ConvKind,
    /// Ascending by account; two of a direct conversation.
    pub(crate) members: Vec<Member>,
    /// Seq of the last message; 0: none.
    pub(crate) head: u64,
    /// Milliseconds since 1970 of the last message.
    pub(crate) last_ms: u64,
    /// Who said the latest messages, up to `head`, and whether they count.
    pub(crate) window: VecDeque<(AccountNo, u8)>,
    pub(crate) dirty: bool,
    /// Rises when a message stops counting.
    pub(crate) changes: u32,
    /// Generation of the rights with which both of a direct conversation were found free to write.
    pub(crate) allowed: u64,
    pub(crate) flood: super::flood::Bucket,
}

/// Messages of a conversation whose sender is kept in memory.
pub(crate) const WINDOW: usize = 512;

impl Conv {
    pub(crate) fn new(kind: ConvKind, members: Vec<Member>) -> Self {
        Self {
            kind,
            members,
            head: 0,
            last_ms: 0,
            window: VecDeque::new(),
            dirty: true,
            changes: 0,
            allowed: 0,
            flood: super::flood::Bucket::default(),
        }
    }

    pub(crate) fn member(&self, account: AccountNo) -> Option<&Member> {
        self.members.binary_search_by_key(&account, |m| m.account).ok().map(|at| &self.members[at])
    }

    pub(crate) fn member_mut(&mut self, account: AccountNo) -> Option<&mut Member> {
        self.members.binary_search_by_key(&account, |m| m.account).ok().map(|at| &mut self.members[at])
    }

    /// The other one of a direct conversation.
    pub(crate) fn peer_of(&self, account: AccountNo) -> Option<AccountNo> {
        match self.kind {
            ConvKind::Direct => self.members.iter().map(|m| m.account).find(|a| *a != account),
            _ => None,
        }
    }

    pub(crate) fn is_large(&self) -> bool {
        matches!(&self.kind, ConvKind::Group(g) if g.large)
    }

    /// The lowest seq whose sender is in memory.
    pub(crate) fn window_from(&self) -> u64 {
        self.head + 1 - self.window.len() as u64
    }

    /// Who said a message, and its flags, if that is in memory.
    pub(crate) fn seen(&self, seq: u64) -> Option<(AccountNo, u8)> {
        let at = seq.checked_sub(self.window_from())?;
        self.window.get(usize::try_from(at).ok()?).copied()
    }

    /// Notes that a message no longer counts.
    pub(crate) fn set_gone(&mut self, seq: u64) {
        let from = self.window_from();
        if let Some(at) = seq.checked_sub(from).and_then(|at| usize::try_from(at).ok())
            && let Some(place) = self.window.get_mut(at)
        {
            place.1 |= GONE;
        }
    }

    /// The settings row of a conversation; direct ones need none but their two accounts.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = RowWriter::new(1);
        match &self.kind {
            ConvKind::Direct => {
                w.byte(1);
                for m in &self.members {
                    w.int(m.account.0.into());
                }
            }
            ConvKind::Group(g) => {
                w.byte(2).str(&g.address).str(&g.name).flag(g.household).flag(g.large).flag(g.dissolved);
            }
            ConvKind::Channel(c) => {
                w.byte(3).str(&c.address).str(&c.name).flag(c.to_all).int(c.editors.len() as u64);
                for editor in &c.editors {
                    w.int(editor.0.into());
                }
            }
        }
        w.0
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut r = reader(value)?;
        let conv = match r.byte()? {
            1 => {
                let (a, b) = (AccountNo(read_u32(&mut r)?), AccountNo(read_u32(&mut r)?));
                let members = vec![Member::new(a, Role::Member, 0), Member::new(b, Role::Member, 0)];
                Self::new(ConvKind::Direct, members)
            }
            2 => {
                let group = Group {
                    address: r.str()?.into(),
                    name: r.str()?.to_owned(),
                    household: read_flag(&mut r)?,
                    large: read_flag(&mut r)?,
                    dissolved: read_flag(&mut r)?,
                };
                Self::new(ConvKind::Group(group), vec![])
            }
            3 => {
                let mut channel = Channel {
                    address: r.str()?.into(),
                    name: r.str()?.to_owned(),
                    to_all: read_flag(&mut r)?,
                    editors: vec![],
                };
                for _ in 0..r.int()? {
                    channel.editors.push(AccountNo(read_u32(&mut r)?));
                }
                Self::new(ConvKind::Channel(channel), vec![])
            }
            other => return Err(DecodeError::UnknownTag(other)),
        };
        Ok(Self { dirty: false, ..conv })
    }

    /// The row that changes with every message: head, and both marks of a direct conversation.
    pub(crate) fn encode_head(&self) -> Vec<u8> {
        let mut w = RowWriter::new(1);
        w.int(self.head).int(self.last_ms);
        if self.kind == ConvKind::Direct {
            for member in &self.members {
                member.write(&mut w);
            }
        }
        w.0
    }

    pub(crate) fn decode_head(&mut self, value: &[u8]) -> Result<(), DecodeError> {
        let mut r = reader(value)?;
        self.head = r.int()?;
        self.last_ms = r.int()?;
        if self.kind == ConvKind::Direct {
            for member in &mut self.members {
                *member = Member::read(member.account, &mut r)?;
            }
        }
        Ok(())
    }
}

/// What an address leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Address {
    Account(AccountNo),
    Conv(ConvNo),
}

/// Every account and conversation, by number and by name.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) accounts: Vec<Account>,
    pub(crate) convs: Vec<Conv>,
    pub(crate) by_name: Map<Rc<str>, Address>,
    pub(crate) direct: Map<(AccountNo, AccountNo), ConvNo>,
}
