//! What the operator looks up, and no account is asked for.

use super::model::{AccountNo, ConvKind};
use super::{Im, Refusal, shorten};
use serde_json::{Value, json};

/// Something to look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// An account: profile, presence, terminals.
    Account {
        /// Its name.
        name: String,
    },
    /// Every announcement channel.
    Channels,
    /// Every blob, and who may read it.
    Blobs,
    /// How a command goes.
    Command {
        /// The account that gave it.
        account: String,
        /// The device it is for.
        device: String,
        /// Its id.
        id: String,
    },
}

impl Im {
    /// What there is to see.
    pub(crate) fn look(&self, look: &Look) -> Result<Value, Refusal> {
        match look {
            Look::Account { name } => Ok(self.look_account(self.known(name)?)),
            Look::Channels => Ok(self.look_channels()),
            Look::Blobs => Ok(self.look_blobs()),
            Look::Command { account, device, id } => {
                let unknown = || {
                    let (device, id) = (shorten(device), shorten(id));
                    Refusal::not_found(format!("{device} has no command {id} of {}", shorten(account)))
                };
                let (account, device) = (self.known(account)?, self.known(device)?);
                self.look_command(account, device, id).ok_or_else(unknown)
            }
        }
    }

    fn known(&self, name: &str) -> Result<AccountNo, Refusal> {
        self.account_no(name).ok_or_else(|| Refusal::not_found(format!("there is no account {}", shorten(name))))
    }

    fn look_account(&self, no: AccountNo) -> Value {
        let account = &self.dir.accounts[no.at()];
        let terminals: Vec<Value> = account
            .terminals
            .iter()
            .map(|terminal| {
                json!({
                    "terminal": &*terminal.client_id,
                    "online": terminal.online != u32::MAX,
                    "level": terminal.level,
                    "platform": &*terminal.platform,
                    "app": &*terminal.app,
                    "seen": terminal.seen_ms,
                    "acked": terminal.acked,
                })
            })
            .collect();
        let presence: Value = serde_json::from_slice(&self.render_presence(no)).unwrap_or_default();
        let mut seen = json!({
            "addr": &*account.name,
            "kind": account.kind.text(),
            "presence": presence,
            "terminals": terminals,
            "unread": account.unread,
        });
        if !account.display.is_empty() {
            seen["name"] = account.display.as_str().into();
        }
        if !account.data.is_empty() {
            seen["data"] = serde_json::from_str(&account.data).unwrap_or_default();
        }
        seen
    }

    fn look_channels(&self) -> Value {
        let mut channels: Vec<(&str, Value)> = vec![];
        for conv in &self.dir.convs {
            let ConvKind::Channel(channel) = &conv.kind else { continue };
            let editors: Vec<&str> = channel.editors.iter().map(|no| &**self.name_of(*no)).collect();
            let audience = if channel.to_all { "all" } else { "followers" };
            let line =
                json!({ "channel": &*channel.address, "name": channel.name, "audience": audience, "editors": editors });
            channels.push((&channel.address, line));
        }
        channels.sort_unstable_by(|a, b| a.0.cmp(b.0));
        json!({ "channels": channels.into_iter().map(|(_, line)| line).collect::<Vec<_>>() })
    }
}
