//! What only the latest matters of: presence, states, the lines of conversations, and the head.

use super::Im;
use super::json::{put_field, put_num, put_str};
use super::model::{AccountNo, ConvKind, ConvNo};
use super::online::{Class, Note, Tag, body_of};
use super::wire::Sending;

/// Conversations named in a head.
const HEAD_CONVS: usize = 64;

impl Im {
    // ---- Latest wins -----------------------------------------------------------------------------------------

    pub(super) fn next_latest(&mut self, at: u32) -> Option<Sending> {
        while self.online[at as usize].has_latest() {
            let Some(note) = self.latest_note(at) else { break };
            let Some(note) = note else { continue };
            if let Some(sending) = self.send_note(at, &note) {
                return Some(sending);
            }
        }
        None
    }

    /// `None`: nothing may go now; `Some(None)`: that one need not be sent.
    #[allow(clippy::option_option)] // Two different kinds of nothing.
    pub(super) fn latest_note(&mut self, at: u32) -> Option<Option<Note>> {
        let account = self.online[at as usize].account;
        if account.at() >= self.dir.accounts.len() {
            return None;
        }
        let make = |class, topic: String, payload: Vec<u8>, tag| {
            let mut note = Note::new(class, &topic, &payload);
            (note.retain, note.tag) = (true, tag);
            note
        };
        if let Some(of) = self.online[at as usize].avail_dirty.pop_first() {
            let topic = format!("im/v1/presence/{}/avail", self.name_of(of));
            // An empty payload clears what the client may keep of somebody it sees no longer.
            let word = match (self.may_see(account, of), self.is_available(of)) {
                (false, _) => "",
                (true, true) => "online",
                (true, false) => "offline",
            };
            return Some(Some(make(Class::Avail, topic, word.as_bytes().to_vec(), Tag::None)));
        }
        if let Some(of) = self.online[at as usize].presence_dirty.pop_first() {
            let topic = format!("im/v1/presence/{}", self.name_of(of));
            let o = &mut self.online[at as usize];
            if o.wants(Class::Avail) {
                o.avail_dirty.insert(of);
            }
            let is_wanted = o.wants(Class::Presence);
            let payload = if self.may_see(account, of) { self.render_presence(of) } else { vec![] };
            return Some(is_wanted.then(|| make(Class::Presence, topic, payload, Tag::None)));
        }
        if let Some(of) = self.online[at as usize].state_dirty.pop_first() {
            let topic = format!("im/v1/state/{}", self.name_of(of));
            let payload = if self.may_see(account, of) { self.render_state(of) } else { Some(vec![]) };
            return Some(payload.map(|payload| make(Class::State, topic, payload, Tag::None)));
        }
        if core::mem::take(&mut self.online[at as usize].delta_dirty) {
            let payload = self.render_delta(account);
            return Some(payload.map(|payload| {
                let mut note = make(Class::Delta, "im/v1/me/delta".to_owned(), payload, Tag::None);
                note.retain = false;
                note
            }));
        }
        if let Some(conv) = self.online[at as usize].convs_dirty.pop_first() {
            let Some(payload) = self.render_conv(account, conv) else { return Some(None) };
            let topic = format!("im/v1/me/conv/{}", self.address_for(conv, account));
            return Some(Some(make(Class::Conv, topic, payload, Tag::None)));
        }
        let o = &mut self.online[at as usize];
        // A client that pulls is told once, and again only when it has heard that.
        if !o.head_dirty || o.notes_sent.iter().any(|(_, tag)| *tag == Tag::Head) {
            return None;
        }
        o.head_dirty = false;
        let payload = self.render_head(account);
        Some(Some(make(Class::Head, "im/v1/me/head".to_owned(), payload, Tag::Head)))
    }

    /// Payload of `im/v1/me/head`.
    pub(super) fn render_head(&self, account: AccountNo) -> Vec<u8> {
        let a = &self.dir.accounts[account.at()];
        let mut out = b"{\"pos\":".to_vec();
        put_num(&mut out, a.mailbox.committed - 1);
        put_field(&mut out, "floor", a.mailbox.floor);
        put_field(&mut out, "unread", a.unread);
        let mut by: Vec<(u64, ConvNo, u32)> = vec![];
        if a.unread > 0 {
            for &no in &a.convs {
                let conv = &self.dir.convs[no.at()];
                if let Some(member) = conv.member(account)
                    && member.unread > 0
                {
                    by.push((conv.last_ms, no, member.unread));
                }
            }
            by.sort_unstable_by_key(|(last, ..)| core::cmp::Reverse(*last));
            by.truncate(HEAD_CONVS);
        }
        out.extend_from_slice(b",\"by\":{");
        for (at, (_, no, unread)) in by.into_iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            put_str(&mut out, &self.address_for(no, account));
            out.push(b':');
            put_num(&mut out, unread.into());
        }
        out.extend_from_slice(b"}}");
        out
    }

    /// Payload of `im/v1/me/conv/{addr}`; `None`: the account is not in it any more.
    pub(super) fn render_conv(&self, account: AccountNo, no: ConvNo) -> Option<Vec<u8>> {
        let last = self.bodies.get(&(no, self.dir.convs[no.at()].head)).cloned();
        self.conv_line(account, no, last.as_deref()).map(|line| line.to_string().into_bytes())
    }

    /// One line of a list of conversations; `last` is the bytes of its last message, where known.
    pub(super) fn conv_line(&self, account: AccountNo, no: ConvNo, last: Option<&[u8]>) -> Option<serde_json::Value> {
        let conv = &self.dir.convs[no.at()];
        let member = conv.member(account)?;
        let (kind, name) = match &conv.kind {
            ConvKind::Direct => {
                let peer = &self.dir.accounts[conv.peer_of(account)?.at()];
                (peer.kind.text(), peer.display.clone())
            }
            ConvKind::Group(g) => (if g.household { "household" } else { "group" }, g.name.clone()),
            ConvKind::Channel(c) => ("channel", c.name.clone()),
        };
        let mut line = serde_json::json!({
            "addr": &*self.address_for(no, account),
            "kind": kind,
            "name": name,
            "seq": conv.head,
            "unread": member.unread,
            "read": member.read,
            "recv": member.recv,
            "muted": member.muted,
            "ts": conv.last_ms,
            "created": conv.head <= 1,
        });
        if let Some(body) = last.and_then(body_of)
            && conv.head >= member.visible_from()
        {
            line["last"] = serde_json::json!({
                "seq": conv.head,
                "from": &**self.name_of(body.from),
                "text": body.preview(),
                "ts": body.ts,
            });
        }
        Some(line)
    }
}
