//! Who is in a group, and what coming and going does to everything that is kept for a member.

use crate::hub::Now;
use crate::im::model::{AccountKind, AccountNo, ConvKind, ConvNo, MailEntry, MailKind, Member, Role};
use crate::im::terminal::place_key;
use crate::im::{Im, row};
use serde_json::json;

impl Im {
    /// Puts an account into a group and tells everybody, the new member first of all. Returns the seq of the message.
    pub(in crate::im) fn join(&mut self, now: Now, conv: ConvNo, by: AccountNo, who: AccountNo, role: Role) -> u64 {
        self.put_member(conv, who, role);
        let body = json!({ "op": "add", "who": &**self.name_of(who), "role": role.text() });
        self.post_system(now, conv, by, &body)
    }

    /// Tells everybody, the member who goes too, and takes it out. Returns the seq of the message.
    pub(super) fn expel(&mut self, now: Now, conv: ConvNo, by: AccountNo, who: AccountNo, op: &str) -> u64 {
        let body = json!({ "op": op, "who": &**self.name_of(who) });
        let seq = self.post_system(now, conv, by, &body);
        self.let_go(now, conv, who, seq);
        seq
    }

    /// Ends a group. Returns the seq of its last message.
    pub(super) fn dissolve(&mut self, now: Now, conv: ConvNo, by: AccountNo) -> u64 {
        let seq = self.post_system(now, conv, by, &json!({ "op": "dissolve" }));
        let members: Vec<AccountNo> = self.dir.convs[conv.at()].members.iter().map(|member| member.account).collect();
        for who in members {
            self.let_go(now, conv, who, seq);
        }
        if let ConvKind::Group(group) = &mut self.dir.convs[conv.at()].kind {
            group.dissolved = true;
        }
        self.store_conv(conv);
        seq
    }

    pub(super) fn set_role(&mut self, now: Now, conv: ConvNo, by: AccountNo, who: AccountNo, role: Role) -> u64 {
        if let Some(member) = self.dir.convs[conv.at()].member_mut(who) {
            member.role = role;
        }
        self.touch_member(conv, who);
        self.rights += 1;
        let body = json!({ "op": "role", "who": &**self.name_of(who), "role": role.text() });
        self.post_system(now, conv, by, &body)
    }

    /// An account that ends leaves every group. A group whose last owner it was passes to whoever has been in it for
    /// longest: people before devices, members before guests. One in which nobody is left ends.
    pub(in crate::im) fn leave_groups(&mut self, now: Now, gone: AccountNo) {
        for conv in self.dir.accounts[gone.at()].convs.clone() {
            if !matches!(self.dir.convs[conv.at()].kind, ConvKind::Group(_)) {
                continue;
            }
            if self.is_last_owner(conv, gone) {
                match self.heir(conv, gone) {
                    Some(heir) => {
                        self.set_role(now, conv, gone, heir, Role::Owner);
                    }
                    None => {
                        self.dissolve(now, conv, gone);
                        continue;
                    }
                }
            }
            self.expel(now, conv, gone, gone, "remove");
        }
    }

    pub(super) fn is_last_owner(&self, conv: ConvNo, who: AccountNo) -> bool {
        let owners = self.dir.convs[conv.at()].members.iter().filter(|member| member.role == Role::Owner);
        owners.map(|member| member.account).eq([who])
    }

    fn heir(&self, conv: ConvNo, gone: AccountNo) -> Option<AccountNo> {
        let others = self.dir.convs[conv.at()].members.iter().filter(|member| member.account != gone);
        let rank = |member: &&Member| {
            let is_device = self.dir.accounts[member.account.at()].kind == AccountKind::Device;
            (is_device, member.role == Role::Guest, member.joined, member.account)
        };
        others.min_by_key(rank).map(|member| member.account)
    }

    // ---- What is kept for a member ---------------------------------------------------------------------------

    /// Puts an account into a group, without a word. It gets what is said from now on.
    pub(super) fn put_member(&mut self, conv: ConvNo, who: AccountNo, role: Role) {
        let c = &mut self.dir.convs[conv.at()];
        let ConvKind::Group(group) = &c.kind else { return };
        let (household, large) = (group.household, group.large);
        let Err(at) = c.members.binary_search_by_key(&who, |member| member.account) else { return };
        c.members.insert(at, Member::new(who, role, c.head));
        let count = c.members.len() as u64;
        // A member is made dirty, and is put on the list of those.
        self.dirty_members.push((conv, who));
        let account = &mut self.dir.accounts[who.at()];
        account.convs.push(conv);
        if household {
            account.households.push(conv);
            self.household_sight_changed(conv, who);
        }
        self.rights += 1;
        if large {
            self.place_terminals(conv, who);
        } else if count > self.limits.im_group_copied_max {
            self.enlarge(conv);
        }
    }

    /// A group has become so large that messages are not copied any more: from here on every terminal of every member
    /// follows the log.
    fn enlarge(&mut self, conv: ConvNo) {
        if let ConvKind::Group(group) = &mut self.dir.convs[conv.at()].kind {
            group.large = true;
        }
        self.store_conv(conv);
        let members: Vec<AccountNo> = self.dir.convs[conv.at()].members.iter().map(|member| member.account).collect();
        for who in members {
            self.place_terminals(conv, who);
        }
    }

    /// Every terminal of a member begins to follow the log at its end.
    fn place_terminals(&mut self, conv: ConvNo, who: AccountNo) {
        let head = self.dir.convs[conv.at()].head;
        let mut placed = vec![];
        for terminal in &mut self.dir.accounts[who.at()].terminals {
            terminal.places.insert(conv, head);
            placed.push(terminal.no);
        }
        let mut place = row::RowWriter::new(1);
        place.int(head);
        for no in placed {
            self.put(row::PLACE, place_key(who, no), conv.0.into(), &place.0);
        }
    }

    /// A member that has been told so goes; `seq` is the last message it gets.
    fn let_go(&mut self, now: Now, conv: ConvNo, who: AccountNo, seq: u64) {
        if self.dir.convs[conv.at()].is_large() {
            // It follows the log no more, so that this one message is copied.
            self.mail(now, who, MailEntry { kind: MailKind::Message, conv: conv.0, seq, extra: 0 });
        }
        self.take_member(conv, who);
    }

    /// Takes an account out of a group, without a word: its marks, its unread messages, its places in the log.
    fn take_member(&mut self, conv: ConvNo, who: AccountNo) {
        let c = &mut self.dir.convs[conv.at()];
        let Ok(at) = c.members.binary_search_by_key(&who, |member| member.account) else { return };
        let member = c.members.remove(at);
        self.del(row::MEMBER, conv.0.into(), who.0.into());
        self.moved.retain(|moved| *moved != (conv, who));
        let account = &mut self.dir.accounts[who.at()];
        account.unread = account.unread.saturating_sub(member.unread.into());
        account.convs.retain(|no| *no != conv);
        let was_household = account.households.contains(&conv);
        account.households.retain(|no| *no != conv);
        let mut places = vec![];
        for terminal in &mut account.terminals {
            if terminal.places.remove(&conv).is_some() {
                places.push(terminal.no);
            }
        }
        for no in places {
            self.del(row::PLACE, place_key(who, no), conv.0.into());
        }
        for at in 0..self.dir.accounts[who.at()].online.len() {
            let online = &mut self.online[self.dir.accounts[who.at()].online[at] as usize];
            online.logs_dirty.remove(&conv);
            online.backfill.retain(|backfill| backfill.conv != conv);
            online.extra.retain(|(of, ..)| *of != conv);
            online.log_page.retain(|(of, ..)| *of != conv);
            online.log_sent.remove(&conv);
        }
        self.badge(who, conv);
        self.rights += 1;
        if was_household {
            self.household_sight_changed(conv, who);
        }
    }

    /// `who` came into a household or left it: it and the members see each other, or no longer.
    fn household_sight_changed(&mut self, conv: ConvNo, who: AccountNo) {
        let members = self.dir.convs[conv.at()].members.iter().map(|member| member.account);
        let others: Vec<AccountNo> = members.filter(|other| *other != who).collect();
        self.look_again(who, &others);
        for other in others {
            self.look_again(other, &[who]);
        }
    }
}
