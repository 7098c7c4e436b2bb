//! Does what a line asks for.

use super::slash::Wish;
use parlor_client::model::up::Draft;
use parlor_client::model::{Messenger, OutboxFull};
use serde_json::json;

/// It could not be done.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActError {
    #[error(transparent)]
    Full(#[from] OutboxFull),
    #[error("there is no message of yours here")]
    NothingOwn,
}

/// Does it, as far as the messenger is concerned.
pub(super) fn act(messenger: &mut Messenger, wish: Wish, now: u64) -> Result<(), ActError> {
    match wish {
        Wish::Say { to, text } => {
            messenger.send(&to, &Draft::text(text), now)?;
        }
        Wish::Command { device, order } => {
            messenger.command(&device, &order, now)?;
        }
        Wish::Cancel { device, id } => messenger.cancel(&device, &id)?,
        Wish::Edit { with, seq, text } => {
            let seq = seq.or_else(|| last_own(messenger, &with)).ok_or(ActError::NothingOwn)?;
            messenger.ask(&format!("to/{with}/edit"), json!({"seq": seq, "text": text}))?;
        }
        Wish::Recall { with, seq } => {
            let seq = seq.or_else(|| last_own(messenger, &with)).ok_or(ActError::NothingOwn)?;
            messenger.ask(&format!("to/{with}/recall"), json!({ "seq": seq }))?;
        }
        Wish::Ask { below, payload } => {
            messenger.ask(&below, payload)?;
        }
        Wish::Open(with) => messenger.open(&with),
        Wish::Help | Wish::Quit | Wish::Nothing => {}
    }
    Ok(())
}

fn last_own(messenger: &Messenger, with: &str) -> Option<u64> {
    let mut messages = messenger.conversation(with)?.messages().rev();
    messages.find(|message| message.from == messenger.me() && !message.gone).map(|message| message.seq)
}
