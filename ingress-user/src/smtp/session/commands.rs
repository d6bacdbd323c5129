//! What each command does to the session.

use std::sync::Arc;
use std::time::Instant;

use super::{Action, Chunks, Helo, Session, State, Transaction};
use crate::smtp::command::{Command, Mail};
use crate::smtp::data::{DataLimits, DataScanner};
use crate::smtp::envelope::BodyType;
use crate::smtp::reply::{Closing, Extensions, Refusal, Reply};

impl Session {
    pub(super) fn handle_command(
        &mut self,
        command: Command<'_>,
        behind: bool,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Action {
        match command {
            Command::Ehlo { name } => self.hello(name, true, out),
            Command::Helo { name } => self.hello(name, false, out),
            Command::Mail(mail) => self.mail(&mail, out),
            Command::Rcpt { path } => {
                self.rcpt(path.as_str(), path.domain(), path.is_bare_postmaster(), out)
            }
            Command::Data => self.data(out),
            Command::Bdat { octets, last } => self.bdat(octets, last, now, out),
            Command::Rset => {
                self.state = State::ExpectCommand(None);
                self.accept(Reply::Ok, out)
            }
            Command::Noop => self.accept(Reply::Ok, out),
            Command::Vrfy => self.accept(Reply::CannotVerify, out),
            Command::Help => self.accept(Reply::Help, out),
            Command::StartTls => self.starttls(behind, now, out),
            Command::Quit => {
                Reply::Goodbye { hostname: &self.settings.hostname }.write_to(out);
                self.state = State::Closed { by_client: true };
                Action::Close
            }
        }
    }

    /// EHLO and HELO also clear the transaction (RFC 5321 4.1.4).
    fn hello(&mut self, name: &str, extended: bool, out: &mut Vec<u8>) -> Action {
        self.helo = Some(Helo { name: name.into(), extended });
        self.state = State::ExpectCommand(None);
        let hostname = &self.settings.hostname;
        if extended {
            let extensions = Extensions {
                message_bytes_max: self.settings.message_bytes_max,
                recipients_max: self.settings.recipients_max,
                starttls: self.settings.starttls && !self.secure,
            };
            Reply::Ehlo { hostname, extensions }.write_to(out);
        } else {
            Reply::Helo { hostname }.write_to(out);
        }
        Action::Continue
    }

    fn mail(&mut self, mail: &Mail<'_>, out: &mut Vec<u8>) -> Action {
        if self.helo.is_none() {
            return self.refuse(Refusal::HeloFirst, out);
        }
        if matches!(self.state, State::ExpectCommand(Some(_))) {
            return self.refuse(Refusal::NestedMail, out);
        }
        if mail.size.is_some_and(|size| size > self.settings.message_bytes_max) {
            return self.refuse(Refusal::DeclaredTooBig, out);
        }
        self.state = State::ExpectCommand(Some(Transaction {
            reverse_path: mail.reverse_path.map(|path| path.as_str()).unwrap_or_default().into(),
            recipients: Vec::new(),
            body: mail.body,
            chunks: Chunks::None,
        }));
        self.accept(Reply::SenderOk, out)
    }

    fn rcpt(&mut self, path: &str, domain: &str, postmaster: bool, out: &mut Vec<u8>) -> Action {
        let settings = Arc::clone(&self.settings);
        let State::ExpectCommand(Some(transaction)) = &mut self.state else {
            return self.refuse(Refusal::MailFirst, out);
        };
        if transaction.chunks != Chunks::None {
            return self.refuse(Refusal::MessageBegun, out);
        }
        if !postmaster && !settings.domains.accepts(domain) {
            return self.refuse(Refusal::RelayDenied, out);
        }
        if transaction.recipients.len() >= settings.recipients_max {
            // RFC 5321 4.5.3.1.10: 452, and the client sends the message to those it has. Not the client's error.
            return self.accept(Reply::Refused(Refusal::TooManyRecipients), out);
        }
        transaction.recipients.push(path.into());
        self.accept(Reply::RecipientOk, out)
    }

    fn data(&mut self, out: &mut Vec<u8>) -> Action {
        if let State::ExpectCommand(Some(transaction)) = &self.state {
            if transaction.chunks != Chunks::None {
                return self.refuse(Refusal::MessageBegun, out);
            }
            if transaction.body == BodyType::BinaryMime {
                return self.refuse(Refusal::BinaryNeedsChunks, out);
            }
        }
        match std::mem::replace(&mut self.state, State::ExpectCommand(None)) {
            State::ExpectCommand(Some(transaction)) if !transaction.recipients.is_empty() => {
                let limits = DataLimits {
                    message_bytes_max: self.settings.message_bytes_max,
                    line_bytes_max: self.settings.text_line_bytes_max,
                };
                let scanner = DataScanner::new(limits);
                self.state = State::ExpectData { transaction, scanner, refusal: None };
                self.accept(Reply::StartData, out)
            }
            State::ExpectCommand(Some(transaction)) => {
                self.state = State::ExpectCommand(Some(transaction));
                self.refuse(Refusal::RecipientsFirst, out)
            }
            _ => self.refuse(Refusal::MailFirst, out),
        }
    }

    fn starttls(&mut self, behind: bool, now: Instant, out: &mut Vec<u8>) -> Action {
        if self.secure {
            return self.refuse(Refusal::TlsAlreadyActive, out);
        }
        if !self.settings.starttls {
            return self.refuse(Refusal::TlsUnavailable, out);
        }
        if behind {
            // What came in the same breath was sent in clear by the client, or put there by someone in the path.
            return self.close(Closing::PipelinedStartTls, out);
        }
        Reply::ReadyForTls.write_to(out);
        self.await_tls(now);
        Action::StartTls
    }
}
