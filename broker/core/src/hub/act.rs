//! What the operator's side does and looks up in messaging, without a connection.

use super::messaging::{PAIRED, Waiting};
use super::{After, Hub, Now};
use crate::im::{BlobOrder, Code, Done, Look, Origin, PAIRING_ACCOUNT, Refusal, Reply, Verdict, shorten};

/// Whose rights count for what [`Hub::act`] is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Authority {
    /// The operator's, who needs nobody's consent.
    Operator,
    /// Those of the account that acts.
    Account,
}

impl Hub {
    /// Does what a PUBLISH by `account` to `im/v1/{path}` would do, with the operator's authority;
    /// [`Effect::Replied`] with this token follows once it is durable. An empty `account` may only pair.
    pub fn act(&mut self, now: Now, account: &str, path: &str, payload: &[u8], token: u64) {
        self.act_with(now, Authority::Operator, (account, path), payload, token);
    }

    /// As [`Hub::act`], with no more than the account's own rights.
    pub fn act_within_rights(&mut self, now: Now, account: &str, path: &str, payload: &[u8], token: u64) {
        self.act_with(now, Authority::Account, (account, path), payload, token);
    }

    fn act_with(&mut self, now: Now, authority: Authority, (account, path): (&str, &str), payload: &[u8], token: u64) {
        let no = if account.is_empty() && path == PAIRED { Some(PAIRING_ACCOUNT) } else { self.im.account_no(account) };
        let Some(no) = no else {
            let text = format!("there is no account {}", shorten(account));
            return self.acted(now, token, Err(Refusal::new(Code::NotFound, text)));
        };
        if self.low_space && path.starts_with("to/") {
            let text = "the server's disk is nearly full; try again later";
            return self.acted(now, token, Err(Refusal::new(Code::LowSpace, text)));
        }
        let origin = Origin {
            account: no,
            session: None,
            client_id: "$operator",
            token,
            response_topic: None,
            correlation: None,
            id: None,
            expiry_ms: 0,
            operator: authority == Authority::Operator,
        };
        match self.im.request(now, &origin, path, payload) {
            Ok(Verdict::Parked(parked)) => {
                self.im_waiting.insert(parked, Waiting::Act { token });
            }
            verdict => {
                self.take_im_facts(now);
                self.acted(now, token, verdict);
            }
        }
        self.settle_im(now);
    }

    /// Looks something up; [`Effect::Replied`] with this token follows, once what it says is durable.
    pub fn look(&mut self, now: Now, look: &Look, token: u64) {
        let seen = self.im.look(look).map(|seen| Verdict::Done(Done::told(seen)));
        self.acted(now, token, seen);
    }

    /// Does something about a blob; [`Effect::Replied`] with this token follows once it is durable.
    pub fn blob(&mut self, now: Now, order: BlobOrder, token: u64) {
        let done = if self.low_space && order.takes_room() {
            Err(Refusal::new(Code::LowSpace, "the server's disk is nearly full; try again later"))
        } else {
            self.im.order_blob(now, order)
        };
        self.take_im_facts(now);
        self.acted(now, token, done.map(|reply| Verdict::Done(Done::stored(reply))));
        self.settle_im(now);
    }

    pub(super) fn acted(&mut self, now: Now, token: u64, verdict: Result<Verdict, Refusal>) {
        let reply = match verdict {
            Ok(Verdict::Done(done)) => {
                let mut reply = done.reply.unwrap_or_else(|| serde_json::json!({}));
                if done.seq != 0 {
                    reply["seq"] = done.seq.into();
                    reply["dup"] = done.dup.into();
                }
                Reply::Done(reply.to_string())
            }
            // The answer comes by itself.
            Ok(_) => return,
            Err(refusal) => {
                self.im.counters.refused.add(refusal.code.text());
                Reply::Refused { code: refusal.code.text(), text: refusal.text }
            }
        };
        self.after_commit(now, After::Replied { token, reply });
    }
}
