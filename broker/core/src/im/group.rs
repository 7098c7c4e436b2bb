//! Groups and households: members, roles, and changes that everybody sees in the same place of the conversation.

mod member;
#[cfg(test)]
mod tests;

use super::model::{AccountKind, AccountNo, Conv, ConvKind, ConvNo, Group, Member, Relation, Role};
use super::name::{NameKind, name_kind};
use super::{Code, Done, Im, Origin, Refusal, Verdict, flag, object, shorten, text};
use crate::hub::Now;
use serde_json::{Map, Value, json};
use std::rc::Rc;

/// Longest name that is shown of an account or a group, characters.
const NAME_CHARS: usize = 64;

/// A change that is wanted in a group the asker is in.
struct Change<'a> {
    me: AccountNo,
    conv: ConvNo,
    role: Role,
    /// Needs no consent of those it adds.
    operator: bool,
    fields: &'a Map<String, Value>,
}

impl Im {
    pub(super) fn on_group(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        group: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        match name_kind(group) {
            Some(NameKind::Room) => return self.on_room(now, origin, group, payload),
            Some(NameKind::Group) => {}
            _ => return Err(Refusal::bad(format!("{} is no name of a group: it begins with g-", shorten(group)))),
        }
        let me = self.acting(origin)?;
        let fields = &object(payload)?;
        let op = text(fields, "op")?.ok_or_else(|| Refusal::bad("a group needs \"op\": create, add, remove, …"))?;
        if op != "info" {
            self.not_too_fast(now, origin)?;
        }
        if op == "create" {
            return self.group_create(now, me, group, fields, origin.operator);
        }
        let (conv, role) = self.group_of(me, group, origin.operator)?;
        let change = Change { me, conv, role, operator: origin.operator, fields };
        let seq = match op {
            "info" => return Ok(Verdict::Done(Done::told(self.render_group(me, conv)))),
            "add" => self.group_add(now, &change)?,
            "remove" => self.group_remove(now, &change)?,
            "role" => self.group_role(now, &change)?,
            "rename" => self.group_rename(now, &change)?,
            "leave" => self.group_leave(now, &change)?,
            "dissolve" => {
                change.need_owner()?;
                self.dissolve(now, conv, me)
            }
            _ => return Err(Refusal::bad(format!("\"op\" of a group is not {}", shorten(op)))),
        };
        let reply = json!({ "group": group, "op": op, "seq": seq });
        Ok(Verdict::Done(Done { durable: true, seq, dup: false, reply: Some(reply) }))
    }

    pub(super) fn on_household(&mut self, _now: Now, origin: &Origin<'_>, _payload: &[u8]) -> Result<Verdict, Refusal> {
        let me = self.acting(origin)?;
        let households = &self.dir.accounts[me.at()].households;
        let list: Vec<Value> = households.iter().map(|conv| self.render_household(me, *conv)).collect();
        Ok(Verdict::Done(Done::told(json!({ "households": list }))))
    }

    // ---- Operations ------------------------------------------------------------------------------------------

    fn group_create(
        &mut self,
        now: Now,
        me: AccountNo,
        address: &str,
        fields: &Map<String, Value>,
        operator: bool,
    ) -> Result<Verdict, Refusal> {
        let plain = address.strip_prefix("g-").filter(|plain| !plain.is_empty()).unwrap_or(address);
        let name = display_name(text(fields, "name")?.unwrap_or(plain))?;
        let household = flag(fields, "household")?.unwrap_or_default();
        if self.dir.by_name.contains_key(address) {
            return self.created_before(me, address, &name, household);
        }
        let others = self.named_members(me, fields)?;
        self.has_room_for_group(me)?;
        let most = self.limits.im_group_members_max;
        if others.len() as u64 >= most {
            return Err(full(most));
        }
        for who in &others {
            if !operator {
                self.may_add(me, *who, household)?;
            }
            self.has_room_for_group(*who)?;
        }
        let address: Rc<str> = address.into();
        let group = Group { address: Rc::clone(&address), name, household, large: false, dissolved: false };
        let title = json!({ "op": "create", "name": group.name, "household": household });
        let conv = self.make_conv(Conv::new(ConvKind::Group(group), vec![]));
        self.dir.by_name.insert(address, super::model::Address::Conv(conv));
        self.put_member(conv, me, Role::Owner);
        let mut seq = self.post_system(now, conv, me, &title);
        for who in others {
            seq = self.join(now, conv, me, who, Role::Member);
        }
        Ok(Verdict::Done(Done { durable: true, seq, dup: false, reply: Some(self.render_group(me, conv)) }))
    }

    /// Somebody whose first answer was lost asks again, or the name is taken.
    fn created_before(&self, me: AccountNo, address: &str, name: &str, household: bool) -> Result<Verdict, Refusal> {
        if let Ok((conv, Role::Owner)) = self.group_of(me, address, false)
            && let ConvKind::Group(group) = &self.dir.convs[conv.at()].kind
            && group.name == name
            && group.household == household
        {
            let reply = Some(self.render_group(me, conv));
            return Ok(Verdict::Done(Done { durable: true, seq: 0, dup: true, reply }));
        }
        Err(Refusal::new(Code::Exists, format!("{address} is taken; names of groups are never used again")))
    }

    /// The accounts named as first members, each once.
    fn named_members(&self, me: AccountNo, fields: &Map<String, Value>) -> Result<Vec<AccountNo>, Refusal> {
        let list = match fields.get("members") {
            None | Some(Value::Null) => return Ok(vec![]),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(Refusal::bad("\"members\" is not a list of names")),
        };
        let mut members = vec![];
        for name in list {
            let name = name.as_str().ok_or_else(|| Refusal::bad("\"members\" is not a list of names"))?;
            let who = self.account_no(name).ok_or_else(|| no_account(name))?;
            if who != me && !members.contains(&who) {
                members.push(who);
            }
        }
        Ok(members)
    }

    fn group_add(&mut self, now: Now, change: &Change<'_>) -> Result<u64, Refusal> {
        change.need_owner()?;
        let who = self.who(change)?;
        let role = change.role_wanted()?.unwrap_or_default();
        let conv = &self.dir.convs[change.conv.at()];
        if let Some(member) = conv.member(who) {
            if member.role == role {
                // Asked again, because the first answer was lost.
                return Ok(0);
            }
            return Err(Refusal::new(Code::Exists, "it is a member already; \"role\" changes its role"));
        }
        if !change.operator {
            let ConvKind::Group(group) = &conv.kind else { return Ok(0) };
            self.may_add(change.me, who, group.household)?;
        }
        self.has_room_for_member(change.conv, who)?;
        Ok(self.join(now, change.conv, change.me, who, role))
    }

    fn group_remove(&mut self, now: Now, change: &Change<'_>) -> Result<u64, Refusal> {
        let who = self.who(change)?;
        if who == change.me {
            return self.group_leave(now, change);
        }
        change.need_owner()?;
        if self.dir.convs[change.conv.at()].member(who).is_none() {
            return Err(self.no_member(who));
        }
        self.keeps_an_owner(change.conv, who)?;
        Ok(self.expel(now, change.conv, change.me, who, "remove"))
    }

    fn group_leave(&mut self, now: Now, change: &Change<'_>) -> Result<u64, Refusal> {
        if self.dir.convs[change.conv.at()].member(change.me).is_none() {
            return Err(self.no_member(change.me));
        }
        self.keeps_an_owner(change.conv, change.me)?;
        Ok(self.expel(now, change.conv, change.me, change.me, "leave"))
    }

    fn group_role(&mut self, now: Now, change: &Change<'_>) -> Result<u64, Refusal> {
        change.need_owner()?;
        let who = self.who(change)?;
        let role = change.role_wanted()?.ok_or_else(|| Refusal::bad("\"role\" is missing: owner, member or guest"))?;
        let Some(member) = self.dir.convs[change.conv.at()].member(who) else {
            return Err(self.no_member(who));
        };
        if member.role == role {
            return Ok(0);
        }
        if role != Role::Owner {
            self.keeps_an_owner(change.conv, who)?;
        }
        Ok(self.set_role(now, change.conv, change.me, who, role))
    }

    fn group_rename(&mut self, now: Now, change: &Change<'_>) -> Result<u64, Refusal> {
        change.need_owner()?;
        let name = text(change.fields, "name")?.ok_or_else(|| Refusal::bad("\"name\" is missing"))?;
        let name = display_name(name)?;
        let ConvKind::Group(group) = &mut self.dir.convs[change.conv.at()].kind else { return Ok(0) };
        if group.name == name {
            return Ok(0);
        }
        group.name.clone_from(&name);
        self.store_conv(change.conv);
        Ok(self.post_system(now, change.conv, change.me, &json!({ "op": "rename", "name": name })))
    }

    // ---- Rules -----------------------------------------------------------------------------------------------

    /// The group of this address and the asker's role; who is not in it does not learn that it exists.
    fn group_of(&self, me: AccountNo, address: &str, operator: bool) -> Result<(ConvNo, Role), Refusal> {
        let unknown = || Refusal::not_found(format!("you are in no group {}", shorten(address)));
        let conv = match self.dir.by_name.get(address) {
            Some(super::model::Address::Conv(conv)) => *conv,
            _ => return Err(unknown()),
        };
        let c = &self.dir.convs[conv.at()];
        match &c.kind {
            ConvKind::Group(group) if !group.dissolved => {}
            _ => return Err(unknown()),
        }
        let role = if operator { Some(Role::Owner) } else { c.member(me).map(|member| member.role) };
        role.map(|role| (conv, role)).ok_or_else(unknown)
    }

    fn who(&self, change: &Change<'_>) -> Result<AccountNo, Refusal> {
        let name = text(change.fields, "who")?.ok_or_else(|| Refusal::bad("\"who\" is missing: an account"))?;
        self.account_no(name).ok_or_else(|| no_account(name))
    }

    fn no_member(&self, who: AccountNo) -> Refusal {
        Refusal::not_found(format!("{} is not in the group", self.name_of(who)))
    }

    /// Whether `me` may bring `who` into a group: a contact, or a device of a household it is in. Into another
    /// household only an owner brings a device that is no contact: whoever is a guest, or may be taken out, would
    /// otherwise give itself a right to command it that nobody can take back.
    fn may_add(&self, me: AccountNo, who: AccountNo, household: bool) -> Result<(), Refusal> {
        self.neither_blocks(me, who)?;
        if self.contact(me, who).relation == Relation::Friends {
            return Ok(());
        }
        if self.dir.accounts[who.at()].kind == AccountKind::Device {
            let least = if household { Role::Owner } else { Role::Member };
            match self.role_beside(me, who) {
                Some(role) if role >= least => return Ok(()),
                Some(_) => {
                    let text = format!("your role beside {} is too low to bring it into a group", self.name_of(who));
                    return Err(Refusal::new(Code::Forbidden, text));
                }
                None => {}
            }
        }
        Err(Refusal::new(Code::NoConsent, format!("{} is no contact of yours", self.name_of(who))))
    }

    /// Refuses what would leave a group without an owner.
    fn keeps_an_owner(&self, conv: ConvNo, without: AccountNo) -> Result<(), Refusal> {
        if !self.is_last_owner(conv, without) {
            return Ok(());
        }
        Err(Refusal::new(Code::Forbidden, "the last owner names another owner first, or dissolves the group"))
    }

    /// Whether the group, and the account, have room for one member more.
    pub(super) fn has_room_for_member(&self, conv: ConvNo, who: AccountNo) -> Result<(), Refusal> {
        let most = self.limits.im_group_members_max;
        if self.dir.convs[conv.at()].members.len() as u64 >= most {
            return Err(full(most));
        }
        self.has_room_for_group(who)
    }

    fn has_room_for_group(&self, who: AccountNo) -> Result<(), Refusal> {
        let most = self.limits.im_groups_per_account_max;
        let account = &self.dir.accounts[who.at()];
        let is_group = |conv: &&ConvNo| matches!(self.dir.convs[conv.at()].kind, ConvKind::Group(_));
        if (account.convs.iter().filter(is_group).count() as u64) < most {
            return Ok(());
        }
        let text = format!("{} is in {most} groups (limits.im_groups_per_account_max)", account.name);
        Err(Refusal::new(Code::Quota, text))
    }

    // ---- Answers ---------------------------------------------------------------------------------------------

    pub(super) fn render_group(&self, me: AccountNo, conv: ConvNo) -> Value {
        let c = &self.dir.convs[conv.at()];
        let ConvKind::Group(group) = &c.kind else { return Value::Null };
        let members: Vec<Value> = c.members.iter().map(|member| self.render_member(member)).collect();
        json!({
            "addr": &*group.address,
            "kind": "group",
            "name": group.name,
            "household": group.household,
            "large": group.large,
            "role": c.member(me).map(|member| member.role.text()),
            "seq": c.head,
            "members": members,
        })
    }

    fn render_household(&self, me: AccountNo, conv: ConvNo) -> Value {
        let c = &self.dir.convs[conv.at()];
        let ConvKind::Group(group) = &c.kind else { return Value::Null };
        let with_presence = |member: &Member| {
            let mut value = self.render_member(member);
            if self.may_see(me, member.account) {
                value["presence"] = self.presence_word(member.account);
            }
            value
        };
        let members: Vec<Value> = c.members.iter().map(with_presence).collect();
        let role = c.member(me).map(|member| member.role.text());
        json!({ "addr": &*group.address, "name": group.name, "role": role, "members": members })
    }

    fn render_member(&self, member: &Member) -> Value {
        let account = &self.dir.accounts[member.account.at()];
        let mut value = json!({ "addr": &*account.name, "kind": account.kind.text(), "role": member.role.text() });
        if !account.display.is_empty() {
            value["name"] = account.display.as_str().into();
        }
        value
    }

    /// `online`, `away`, `asleep` or `offline`.
    fn presence_word(&self, of: AccountNo) -> Value {
        let presence: Value = serde_json::from_slice(&self.render_presence(of)).unwrap_or_default();
        match presence.get("state") {
            Some(state) => state.clone(),
            None if self.is_available(of) => "online".into(),
            None => "offline".into(),
        }
    }
}

impl Change<'_> {
    fn need_owner(&self) -> Result<(), Refusal> {
        match self.role {
            Role::Owner => Ok(()),
            _ => Err(Refusal::new(Code::Forbidden, "only an owner of the group does that")),
        }
    }

    fn role_wanted(&self) -> Result<Option<Role>, Refusal> {
        let Some(role) = text(self.fields, "role")? else { return Ok(None) };
        Role::parse(role).map(Some).ok_or_else(|| Refusal::bad("\"role\" is not owner, member or guest"))
    }
}

/// A name that is shown: 1 to 64 characters, none of which moves the cursor.
pub(super) fn display_name(text: &str) -> Result<String, Refusal> {
    let name = text.trim();
    if name.is_empty() || name.chars().count() > NAME_CHARS || name.chars().any(char::is_control) {
        return Err(Refusal::bad(format!("\"name\" is not 1 to {NAME_CHARS} characters without control characters")));
    }
    Ok(name.to_owned())
}

fn no_account(name: &str) -> Refusal {
    Refusal::not_found(format!("there is no account {}", shorten(name)))
}

fn full(most: u64) -> Refusal {
    Refusal::new(Code::Quota, format!("a group has at most {most} members (limits.im_group_members_max)"))
}
