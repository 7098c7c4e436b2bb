//! Rest: everything that was begun is finished, and then it is looked at. And bounds, which hold at any time.

use super::terminal::{Mode, Phase, Terminal};
use super::{EPOCH_MS, ImClass, World, verdict};

/// When the world gives up waiting for everything to come to rest.
const REST_MS: u64 = 120_000;
/// Long enough for every message that expires, and for the clients that lie.
const CALM_MS: u64 = 8_000;

impl World<'_> {
    pub(super) fn rest_and_look(&mut self) {
        self.calm = true;
        self.pass(self.now_ms + CALM_MS, |_| false);
        self.come_to_rest();
        self.look();
        verdict::judge(&mut self.model, &self.terminals, &self.audit, EPOCH_MS + self.now_ms);
        self.check_presence();
    }

    pub(super) fn come_to_rest(&mut self) {
        let deadline = self.now_ms + REST_MS;
        self.pass(deadline, Self::is_at_rest);
        if !self.is_at_rest() {
            let text = self.what_moves();
            self.model.blame(ImClass::Stuck, text);
        }
    }

    fn is_at_rest(&self) -> bool {
        let Some(b) = &self.broker else { return false };
        !b.hub.is_committing()
            && !b.stopping
            && !b.desk.is_busy()
            && self.terminals.iter().all(|t| t.who.mode == Mode::Auditor || t.phase == Phase::Open && t.is_done())
            && b.hub.im_totals().asked == 0
            && self.conns.iter().filter(|c| c.hub.is_some()).all(|c| c.is_quiet() && b.hub.output(c.link()).is_empty())
            && self.model.pulls_are_done(&self.terminals)
            && self.board.is_idle()
            && self.commands_are_over()
    }

    fn what_moves(&self) -> String {
        let mut lines = vec![format!("after {REST_MS} ms of rest at {} ms:", self.now_ms)];
        lines.extend(
            self.terminals
                .iter()
                .filter(|t| t.who.mode != Mode::Auditor && (!t.is_done() || t.phase != Phase::Open))
                .map(Terminal::unfinished),
        );
        if let Some(b) = &self.broker {
            lines.push(format!(
                "committing {}, desk busy {}, {:?}, {:?}",
                b.hub.is_committing(),
                b.desk.is_busy(),
                b.hub.totals(),
                b.hub.im_totals()
            ));
            for c in self.conns.iter().filter(|c| c.hub.is_some() && !c.is_quiet()) {
                lines.push(format!("connection of {}: {}", self.terminals[c.terminal].who.name, c.state()));
            }
        } else {
            lines.push("the broker is not running".into());
        }
        lines.push(self.model.pulls_open(&self.terminals));
        lines.join("\n    ")
    }

    // ---- Bounds ------------------------------------------------------------------------------------------------

    /// Nothing grows beyond its limit, at any time.
    pub(super) fn check_bounds(&mut self) {
        let Some(b) = &self.broker else { return };
        let limits = &self.plan.limits;
        let packet = limits.packet_bytes_max;
        let mut wrong = vec![];
        for c in self.conns.iter().filter(|c| c.hub.is_some()) {
            let unsent = b.hub.output(c.link()).len() as u64;
            if unsent > limits.output_bytes_max + packet {
                wrong.push(format!("{unsent} bytes of output wait for {}", self.terminals[c.terminal].who.name));
            }
        }
        let (totals, im) = (b.hub.totals(), b.hub.im_totals());
        if totals.uncommitted_bytes > limits.commit_bytes_max + packet * (self.conns.len() as u64 + 1) {
            wrong.push(format!("{} bytes wait for the disk", totals.uncommitted_bytes));
        }
        // Each account its pulls, each session a page of each kind, and each connection what it waits for.
        let waiting = 4 * (im.online + 1) + self.conns.len() as u64;
        let most = im.accounts * limits.im_pulls_per_account_max + waiting;
        if im.asked > most || im.cached_bytes > 17 << 20 {
            wrong.push(format!("{im:?}, at most {most} may be asked"));
        }
        if im.terminals > 16 * im.accounts {
            wrong.push(format!("{im:?}: more terminals than the accounts may have"));
        }
        for text in wrong {
            self.model.blame(ImClass::Bound, text);
        }
    }
}
