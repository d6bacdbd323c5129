//! What the operator sees of a connection: counters, the log, live traces.

use super::connection::{Connection, Turn};
use super::tls::{Established, Seen, TlsFailure};
use crate::bans::Offence;
use crate::smtp::reply::Closing;
use crate::tls::journal::{Cover, Event, Failed, Handshake, Outcome, Reporter};
use crate::tls::verdict::{Ending, Stage};

/// A connection's messages, as far as the journal has not heard of them.
#[derive(Debug, Default)]
pub(super) struct Mail {
    /// It knows of the first one.
    first_told: bool,
    /// Those after it, under the same cover; told when that ends.
    further: u32,
    /// Of TLS, by the number of the protocol; 0 in clear.
    tls_version: u16,
}

impl Connection {
    /// We have ended the session: counted by reason, and in the log where it was the client's doing.
    pub(super) fn note_closing(&mut self, turn: &mut Turn<'_>) {
        let Some(why) = self.session.closing() else { return };
        turn.metrics.count_closing(why);
        match why {
            Closing::EarlyTalker => self.offend(Offence::EarlyTalker, turn),
            Closing::TooManyErrors => self.offend(Offence::ErrorFlood, turn),
            Closing::Timeout => self.note_silence(turn),
            _ => {}
        }
        if why.is_clients_fault() {
            self.log_end(why.label(), turn);
        }
    }

    /// The connection ended for nothing that we did: an offence where nothing ever came.
    pub(super) fn note_silence(&self, turn: &Turn<'_>) {
        if !self.heard {
            self.offend(Offence::Silent, turn);
        }
    }

    /// The client did what it may be banned for. Where the client is not who sends the packets, because a balancer conveys it or
    /// XCLIENT named another, there is nobody to ban. Who brought a message is forgiven what costs little.
    fn offend(&self, offence: Offence, turn: &Turn<'_>) {
        let client = self.session.client();
        let is_sender = self.direct && self.counted_as() == Some(client);
        if is_sender && !(offence.is_forgivable() && self.mail.first_told) {
            turn.bans.report(client, offence);
        }
    }

    pub(super) fn log_end(&self, reason: &str, turn: &mut Turn<'_>) {
        let client = self.session.client();
        turn.errors.session_ended(client, reason, self.session.transcript(), turn.now);
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

    /// Has the session know whether its client may have TLS: not where its handshake has failed before, nor while too many
    /// others are not through. Who the client is may change with each command (XCLIENT), so it is asked before each.
    pub(super) fn prepare_for_tls(&mut self, turn: &Turn<'_>) {
        if self.tls.is_none() {
            self.session.withhold_starttls(turn.journal.is_withheld(self.session.client()));
            self.session.note_tls_busy(turn.handshakes.is_full());
        }
    }

    pub(super) fn note_established(&mut self, established: Established, turn: &mut Turn<'_>) {
        self.end_handshake(turn.handshakes);
        turn.metrics.tls_handshakes_completed.increment();
        let Established { version, suite, resumed } = established;
        self.tell_further_messages(turn.journal);
        self.mail.tls_version = version;
        let helo = self.session.helo().map(Box::from);
        if let Some(tls) = &mut self.tls {
            tls.note_helo(helo);
        }
        self.report_handshake(Outcome::Established { version, suite, resumed }, turn);
    }

    /// TLS ended in an error, during the handshake or after it.
    pub(super) fn tls_broke(&mut self, failure: &TlsFailure, turn: &mut Turn<'_>) {
        if self.session.is_awaiting_tls() {
            return self.note_failed_handshake(failure.ending(), failure.alert_sent(), turn);
        }
        turn.metrics.count_tls_break(failure.kind());
        let reason = format!("tls_{}: {failure}", failure.kind().label());
        self.log_end(&reason, turn);
    }

    /// The handshake ended without a word of ours.
    pub(super) fn handshake_failed(&mut self, ending: Ending, turn: &mut Turn<'_>) {
        self.note_failed_handshake(ending, None, turn);
    }

    fn note_failed_handshake(
        &mut self,
        ending: Ending,
        alert_sent: Option<u8>,
        turn: &mut Turn<'_>,
    ) {
        self.end_handshake(turn.handshakes);
        turn.metrics.tls_handshakes_failed.increment();
        if self.heard {
            self.offend(Offence::HandshakeFailed, turn);
        }
        let (stage, hello) = self
            .seen()
            .map_or((Stage::Nothing, Vec::new()), |seen| (seen.stage(), seen.hello.clone()));
        self.report_handshake(Outcome::Failed(Failed { stage, ending, alert_sent, hello }), turn);
    }

    /// A client that finished the handshake and then said nothing is reported as a failure too: some check the certificate
    /// only then.
    pub(super) fn note_silence_under_tls(&self, ending: Ending, turn: &Turn<'_>) {
        if self.session.is_silent_under_tls() {
            self.offend(Offence::HandshakeFailed, turn);
            let hello = self.seen().map(|seen| seen.hello.clone()).unwrap_or_default();
            let failed = Failed { stage: Stage::Finished, ending, alert_sent: None, hello };
            self.report_handshake(Outcome::Failed(failed), turn);
        }
    }

    fn seen(&self) -> Option<&Seen> {
        self.tls.as_ref().and_then(|tls| tls.seen())
    }

    fn report_handshake(&self, outcome: Outcome, turn: &Turn<'_>) {
        let helo_before_tls = self.seen().and_then(|seen| seen.helo.clone());
        turn.journal.report(Event::Handshake(Box::new(Handshake {
            client: self.session.client(),
            helo: self.session.helo().map(Box::from).or(helo_before_tls),
            implicit: self.session.is_tls_first(),
            outcome,
        })));
    }

    /// A message is taken. The journal hears of the first one of each session at once, of the others when it ends.
    pub(super) fn note_message(&mut self, turn: &Turn<'_>) {
        if std::mem::replace(&mut self.mail.first_told, true) {
            self.mail.further = self.mail.further.saturating_add(1);
            return;
        }
        turn.journal.report(Event::FirstMessage {
            client: self.session.client(),
            cover: self.cover(),
            offered: self.session.is_starttls_on_offer(),
        });
    }

    /// Tells of the messages after the first, if there were any: nothing more comes under this cover.
    pub(super) fn tell_further_messages(&mut self, journal: &Reporter) {
        let count = std::mem::take(&mut self.mail.further);
        if count > 0 {
            journal.report(Event::FurtherMessages { cover: self.cover(), count });
        }
    }

    fn cover(&self) -> Cover {
        match self.mail.tls_version {
            0 => Cover::Clear,
            version => Cover::Tls { version, first: self.session.is_tls_first() },
        }
    }
}
