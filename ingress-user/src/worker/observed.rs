//! What the operator sees of a connection: counters, the log, live traces.

use super::connection::{Connection, Turn};

impl Connection {
    /// We have ended the session: counted by reason, and in the log where it was the client's doing.
    pub(super) fn note_closing(&mut self, turn: &mut Turn<'_>) {
        let Some(why) = self.session.closing() else { return };
        turn.metrics.count_closing(why);
        if why.is_clients_fault() {
            self.log_end(why.label(), turn);
        }
    }

    pub(super) fn log_end(&self, reason: &str, turn: &mut Turn<'_>) {
        let (client, now) = (self.session.client(), turn.now.monotonic);
        turn.errors.session_ended(client, reason, self.session.transcript(), now);
    }

    /// Shows live traces what was said since the last time. For a session they had not seen before, what is kept of it.
    pub(super) fn tell_watchers(&mut self, turn: &Turn<'_>) {
        let client = self.session.client();
        if !turn.watches.is_watched(client) {
            return;
        }
        let port = self.socket.peer_addr().map_or(0, |peer| peer.port());
        for entry in self.session.transcript().since(self.told) {
            turn.watches.tell(client, &format!("{client} #{port} {entry}"));
        }
        self.told = self.session.transcript().recorded();
    }

    pub(super) fn count_refusals(&mut self, turn: &Turn<'_>) {
        let now = (self.session.refused_commands(), self.session.refused_messages());
        let (commands, messages) = std::mem::replace(&mut self.refusals_counted, now);
        turn.metrics.commands_refused.add(u64::from(now.0 - commands));
        turn.metrics.messages_refused.add(u64::from(now.1 - messages));
    }
}
