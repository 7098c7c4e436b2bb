//! What accounts say of themselves, and what one may know of another.

mod operator;
#[cfg(test)]
mod tests;

use super::group::display_name;
use super::model::{AccountNo, Address, ConvKind, ConvNo, Terminal};
use super::{Code, Done, Im, Origin, Out, Refusal, Verdict, number, object, shorten, text};
use crate::hub::{Hello, Now};
use serde_json::{Value, json};

/// Most bytes of a profile's data, as JSON without spaces.
const DATA_BYTES: usize = 2_048;
/// Longest name of a platform, and of an app with its version, bytes.
const PLATFORM_BYTES: usize = 32;
const APP_BYTES: usize = 64;

impl Im {
    /// `me/hello`: level, platform, app of this terminal.
    pub(super) fn on_hello(&mut self, now: Now, origin: &Origin<'_>, payload: &[u8]) -> Result<Verdict, Refusal> {
        let me = self.acting(origin)?;
        let fields = object(payload)?;
        let level = number(&fields, "level")?.map(u32::try_from).transpose();
        let level = level.map_err(|_| Refusal::bad("\"level\" is no level: yyMMdd"))?;
        let platform = short(text(&fields, "platform")?, "platform", PLATFORM_BYTES)?;
        let app = short(text(&fields, "app")?, "app", APP_BYTES)?;
        let no = self.terminal_of(origin);
        let mut hello = self.hello_of(origin, me);
        hello.level = level.unwrap_or(hello.level);
        hello.platform = platform.map_or(hello.platform, Into::into);
        hello.app = app.map_or(hello.app, Into::into);
        let level = hello.level;
        if let Some(no) = no
            && let Some(terminal) = self.dir.accounts[me.at()].terminal_mut(no)
        {
            terminal.level = level;
            (terminal.platform, terminal.app) = (hello.platform.clone(), hello.app.clone());
            self.touch_terminal(me, no);
        }
        if let Some(online) = self.online_of(origin) {
            let online = &mut self.online[online as usize];
            online.level = level;
            if online.terminal.is_none() {
                // For the terminal that it may become.
                online.hello = Some(hello);
            }
        }
        // What it passes over or understands may be another now.
        if let Some(online) = self.online_of(origin) {
            self.announcements_for(now, online);
        }
        self.pairing_ended(me);
        let account = &self.dir.accounts[me.at()];
        let acked = no.and_then(|no| account.terminal(no)).map(|terminal| terminal.acked);
        Ok(Verdict::Done(Done::stored(json!({
            "account": &*account.name,
            "kind": account.kind.text(),
            "terminal": origin.client_id,
            "pos": account.mailbox.committed - 1,
            "acked": acked,
            "floor": account.mailbox.floor,
            "unread": account.unread,
            "level": level,
            "epoch": self.boot,
            "now": now.wall_ms,
        }))))
    }

    /// What the terminal of whoever asks has said of itself.
    fn hello_of(&self, origin: &Origin<'_>, me: AccountNo) -> Hello {
        let said = self.online_of(origin).and_then(|online| self.online[online as usize].hello.clone());
        let terminal = self.terminal_of(origin).and_then(|no| self.dir.accounts[me.at()].terminal(no));
        let kept = terminal.map(|t| Hello { level: t.level, platform: t.platform.clone(), app: t.app.clone() });
        said.or(kept).unwrap_or_default()
    }

    pub(super) fn on_whois(
        &mut self,
        _now: Now,
        origin: &Origin<'_>,
        name: &str,
        _payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        let me = self.acting(origin)?;
        let unknown = || Refusal::not_found(format!("there is no {}", shorten(name)));
        let profile = match self.dir.by_name.get(name).ok_or_else(unknown)? {
            Address::Account(no) => self.render_profile(me, *no),
            Address::Conv(conv) => self.render_conv_profile(me, *conv, origin.operator).ok_or_else(unknown)?,
        };
        Ok(Verdict::Done(Done::told(profile)))
    }

    /// An account, as `me` may know it: of a pair of which one has blocked the other neither sees more than the name.
    fn render_profile(&self, me: AccountNo, of: AccountNo) -> Value {
        let account = &self.dir.accounts[of.at()];
        let mut profile = json!({ "addr": &*account.name, "kind": account.kind.text() });
        if me != of {
            profile["contact"] = self.render_contact(me, of);
        }
        if me != of && self.neither_blocks(me, of).is_err() {
            return profile;
        }
        if !account.display.is_empty() {
            profile["name"] = account.display.as_str().into();
        }
        if !account.data.is_empty() {
            profile["data"] = serde_json::from_str(&account.data).unwrap_or_default();
        }
        if self.may_see(me, of)
            && let Some(description) = self.description(of)
        {
            profile["description"] = description.clone();
        }
        profile
    }

    /// A group, for its members; a channel, for everybody.
    fn render_conv_profile(&self, me: AccountNo, conv: ConvNo, operator: bool) -> Option<Value> {
        let c = &self.dir.convs[conv.at()];
        match &c.kind {
            ConvKind::Direct => None,
            ConvKind::Group(group) => {
                let role = c.member(me).map(|member| member.role.text());
                (!group.dissolved && (role.is_some() || operator)).then(|| {
                    json!({
                        "addr": &*group.address,
                        "kind": "group",
                        "name": group.name,
                        "household": group.household,
                        "members": c.members.len(),
                        "role": role,
                    })
                })
            }
            ConvKind::Channel(channel) => Some(json!({
                "addr": &*channel.address,
                "kind": "channel",
                "name": channel.name,
                "follows": channel.to_all || self.follows(me, conv),
            })),
        }
    }

    pub(super) fn on_profile(&mut self, now: Now, origin: &Origin<'_>, payload: &[u8]) -> Result<Verdict, Refusal> {
        let me = self.acting(origin)?;
        self.not_too_fast(now, origin)?;
        let fields = object(payload)?;
        let display = match text(&fields, "name")? {
            None if fields.contains_key("name") => Some(String::new()),
            None => None,
            Some(name) if name.trim().is_empty() => Some(String::new()),
            Some(name) => Some(display_name(name)?),
        };
        let data = match fields.get("data") {
            None => None,
            Some(Value::Null) => Some(String::new()),
            Some(data) => Some(data.to_string()),
        };
        if data.as_ref().is_some_and(|data| data.len() > DATA_BYTES) {
            return Err(Refusal::new(Code::TooLarge, format!("\"data\" has at most {DATA_BYTES} bytes")));
        }
        let account = &mut self.dir.accounts[me.at()];
        let before = (account.display.clone(), account.data.clone());
        account.display = display.unwrap_or_else(|| before.0.clone());
        account.data = data.unwrap_or_else(|| before.1.clone());
        let is_renamed = account.display != before.0;
        if is_renamed || account.data != before.1 {
            self.store_account(me);
        }
        if is_renamed {
            self.renamed(me);
        }
        Ok(Verdict::Done(Done::stored(self.render_profile(me, me))))
    }

    /// The line of every direct conversation with this account shows another name.
    fn renamed(&mut self, account: AccountNo) {
        for conv in self.dir.accounts[account.at()].convs.clone() {
            if let Some(peer) = self.dir.convs[conv.at()].peer_of(account) {
                self.badge(peer, conv);
            }
        }
    }

    // ---- Terminals -------------------------------------------------------------------------------------------

    pub(super) fn on_terminals(&mut self, _now: Now, origin: &Origin<'_>, payload: &[u8]) -> Result<Verdict, Refusal> {
        let me = self.acting(origin)?;
        let fields = object(payload)?;
        let Some(kick) = text(&fields, "kick")? else {
            let terminals = &self.dir.accounts[me.at()].terminals;
            let list: Vec<Value> = terminals.iter().map(|terminal| render_terminal(terminal, origin)).collect();
            return Ok(Verdict::Done(Done::told(json!({ "terminals": list }))));
        };
        let is_session = self.kick_sessions(me, |client_id| client_id == kick);
        let terminals = &self.dir.accounts[me.at()].terminals;
        let no = terminals.iter().find(|terminal| *terminal.client_id == *kick).map(|terminal| terminal.no);
        if no.is_none() && !is_session {
            return Err(Refusal::not_found(format!("you have no terminal {}", shorten(kick))));
        }
        if let Some(no) = no {
            self.forget_terminal(me, no);
        }
        Ok(Verdict::Done(Done::stored(json!({ "kicked": kick }))))
    }

    /// Ends the sessions of an account whose client identifier fits, and takes their terminals from them: until the hub
    /// has ended them they must not stand for a terminal that gets the same number. Says whether there was one.
    fn kick_sessions(&mut self, account: AccountNo, fits: impl Fn(&str) -> bool) -> bool {
        let mut any = false;
        for at in self.dir.accounts[account.at()].online.clone() {
            let online = &mut self.online[at as usize];
            if !fits(&online.client_id) {
                continue;
            }
            any = true;
            online.is_live = false;
            let (session, terminal) = (online.session, online.terminal.take());
            if let Some(no) = terminal
                && let Some(terminal) = self.dir.accounts[account.at()].terminal_mut(no)
            {
                terminal.online = u32::MAX;
            }
            self.out.push_back(Out::Kick { session });
        }
        any
    }
}

fn render_terminal(terminal: &Terminal, origin: &Origin<'_>) -> Value {
    json!({
        "terminal": &*terminal.client_id,
        "online": terminal.online != u32::MAX,
        "level": terminal.level,
        "platform": &*terminal.platform,
        "app": &*terminal.app,
        "seen": terminal.seen_ms,
        "acked": terminal.acked,
        "this": origin.session.is_some() && *terminal.client_id == *origin.client_id,
    })
}

/// A word of at most `most` bytes without control characters.
fn short<'a>(word: Option<&'a str>, key: &str, most: usize) -> Result<Option<&'a str>, Refusal> {
    match word {
        Some(word) if word.len() > most || word.chars().any(char::is_control) => {
            Err(Refusal::bad(format!("\"{key}\" is not at most {most} bytes without control characters")))
        }
        word => Ok(word),
    }
}
