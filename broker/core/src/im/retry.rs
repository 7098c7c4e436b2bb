//! A request whose client id may have been used long ago waits for the store, and is then made again.

use super::dedup::{Key, Known};
use super::model::AccountNo;
use super::{Im, Origin, Out, Pending, Verdict, row};
use crate::hub::Now;
use crate::store::{Answer, What};

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Retry {
    token: u64,
    key: Key,
    account: AccountNo,
    session: Option<(u32, u32)>,
    client_id: String,
    act: u64,
    response_topic: Option<String>,
    correlation: Option<Vec<u8>>,
    id: Option<String>,
    expiry_ms: u64,
    operator: bool,
    path: String,
    payload: Vec<u8>,
}

impl Im {
    /// Asks the store for a client id of which the filter says "perhaps"; the request is made again when it has
    /// answered.
    pub(super) fn ask_first(&mut self, origin: &Origin<'_>, path: String, payload: &[u8], key: Key) -> Verdict {
        let token = self.next_token;
        let retry = Retry {
            token,
            key,
            account: origin.account,
            session: origin.session,
            client_id: origin.client_id.to_owned(),
            act: origin.token,
            response_topic: origin.response_topic.map(str::to_owned),
            correlation: origin.correlation.map(<[u8]>::to_vec),
            id: origin.id.map(str::to_owned),
            expiry_ms: origin.expiry_ms,
            operator: origin.operator,
            path,
            payload: payload.to_vec(),
        };
        let what = What::Rows(vec![(key.0.0.into(), key.1)]);
        self.ask(row::DEDUP, what, Pending::Retry(Box::new(retry)));
        Verdict::Parked(token)
    }

    pub(super) fn asked_first(&mut self, now: Now, retry: &Retry, answer: &Answer) {
        match answer.iter().next().and_then(|found| Known::decode(found.value).ok()) {
            Some(known) => self.dedup.remember(retry.key, known),
            None => self.certainly_new = Some(retry.key),
        }
        let origin = Origin {
            account: retry.account,
            session: retry.session,
            client_id: &retry.client_id,
            token: retry.act,
            response_topic: retry.response_topic.as_deref(),
            correlation: retry.correlation.as_deref(),
            id: retry.id.as_deref(),
            expiry_ms: retry.expiry_ms,
            operator: retry.operator,
        };
        let mut verdict = self.request(now, &origin, &retry.path, &retry.payload);
        self.certainly_new = None;
        if let Ok(Verdict::Done(done)) = &mut verdict
            && origin.session.is_some()
            && let Some(reply) = done.reply.take()
        {
            let asker = Self::asker(&origin, &retry.path, None).with_id(&retry.payload);
            self.after_commit_tell(asker, reply);
        }
        self.out.push_back(Out::Concluded { token: retry.token, verdict });
    }
}
