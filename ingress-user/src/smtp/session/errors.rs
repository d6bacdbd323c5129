//! Refused commands: counted, after some of them answered late, and in the end not answered any more.

use super::{Action, Session, State};
use crate::smtp::reply::{Closing, Refusal, Reply};

impl Session {
    /// Refuses a command. It counts as the client's error.
    pub(super) fn refuse(&mut self, refusal: Refusal, out: &mut Vec<u8>) -> Action {
        self.refuse_with(1, refusal, out)
    }

    /// Refuses a message with so many replies. It counts as one error.
    pub(super) fn refuse_with(
        &mut self,
        replies: usize,
        refusal: Refusal,
        out: &mut Vec<u8>,
    ) -> Action {
        self.refused += 1;
        if self.refused > self.settings.errors_undelayed_max
            && !self.settings.error_delay.is_zero()
            && !self.client.is_undelayed
        {
            let transaction = match std::mem::replace(&mut self.state, State::ExpectCommand(None)) {
                State::ExpectCommand(transaction) => transaction,
                _ => None,
            };
            self.state = State::AwaitErrorDelay { transaction, refusal, replies };
            self.deadline = self.now + self.settings.error_delay;
            return Action::Continue;
        }
        self.tell_refusal(replies, refusal, out)
    }

    /// The delay is over.
    pub(super) fn tell_delayed_refusal(&mut self, out: &mut Vec<u8>) -> Action {
        let state = std::mem::replace(&mut self.state, State::ExpectCommand(None));
        let State::AwaitErrorDelay { transaction, refusal, replies } = state else {
            self.state = state;
            return Action::Continue;
        };
        self.state = State::ExpectCommand(transaction);
        self.deadline = self.now + self.settings.idle_timeout;
        self.tell_refusal(replies, refusal, out)
    }

    fn tell_refusal(&mut self, replies: usize, refusal: Refusal, out: &mut Vec<u8>) -> Action {
        let told = self.say_times(replies, Reply::Refused(refusal), out);
        if self.refused >= self.settings.errors_max {
            return self.end(Closing::TooManyErrors, out);
        }
        told
    }
}
