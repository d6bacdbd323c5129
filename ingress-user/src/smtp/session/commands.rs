//! What each command does to the session.

use std::sync::Arc;

use super::{Action, Chunks, Helo, Session, State, Tls, Transaction};
use crate::policy::TargetExtensions;
use crate::smtp::address::{Address, PathError};
use crate::smtp::command::{Command, CommandError};
use crate::smtp::data::{DataLimits, DataScanner};
use crate::smtp::dialect::Dialect;
use crate::smtp::envelope::{BodyType, Recipient};
use crate::smtp::parameters::{MailParameters, RcptParameters};
use crate::smtp::reply::{Closing, Extensions, Refusal, Reply};
use crate::smtp::xclient::{Told, Xclient};

impl Session {
    pub(super) fn handle_command(
        &mut self,
        command: Command<'_>,
        behind: bool,
        out: &mut Vec<u8>,
    ) -> Action {
        match command {
            Command::Ehlo { name } => self.hello(name, Dialect::Smtp, true, out),
            Command::Helo { name } => self.hello(name, Dialect::Smtp, false, out),
            Command::Lhlo { name } => self.hello(name, Dialect::Lmtp, true, out),
            Command::Mail { reverse_path, parameters } => self.mail(reverse_path, &parameters, out),
            Command::Rcpt { path, parameters } => self.rcpt(&path, &parameters, out),
            Command::Data => self.data(out),
            Command::Bdat { octets, last } => self.bdat(octets, last, out),
            Command::Rset => {
                self.reset();
                self.say(Reply::Ok, out)
            }
            Command::Noop => self.say(Reply::Ok, out),
            Command::Vrfy => self.say(Reply::CannotVerify, out),
            Command::Help => self.say(Reply::Help, out),
            Command::StartTls => self.starttls(behind, out),
            Command::Xclient(told) => self.xclient(told, out),
            Command::Quit => {
                let settings = Arc::clone(&self.settings);
                let _ = self.say(Reply::Goodbye { hostname: &settings.hostname }, out);
                self.reset();
                self.state = State::Closed;
                Action::Close
            }
        }
    }

    /// EHLO, HELO and LHLO also clear the transaction (RFC 5321 4.1.4).
    fn hello(&mut self, name: &str, dialect: Dialect, extended: bool, out: &mut Vec<u8>) -> Action {
        let settings = Arc::clone(&self.settings);
        if dialect != settings.dialect {
            return self.refuse(Refusal::OtherDialect(settings.dialect), out);
        }
        self.reset();
        self.helo = Some(Helo { name: name.into(), extended });
        let hostname = &settings.hostname;
        if extended {
            self.say(Reply::Ehlo { hostname, extensions: self.extensions() }, out)
        } else {
            self.say(Reply::Helo { hostname }, out)
        }
    }

    /// What EHLO announces; after HELO there are no extensions.
    fn extensions(&self) -> Extensions {
        let settings = &*self.settings;
        let is_extended = self.helo.as_ref().is_some_and(|helo| helo.extended);
        let mut target = if is_extended { settings.target } else { TargetExtensions::default() };
        // RFC 8689 section 2: only under TLS.
        target.requiretls &= self.secure;
        Extensions {
            message_bytes_max: settings.message_bytes_max,
            recipients_max: settings.recipients_max,
            messages_max: settings.messages_max,
            target,
            starttls: self.is_starttls_on_offer(),
            xclient: self.client.may_xclient,
        }
    }

    fn mail(
        &mut self,
        reverse_path: Option<Address<'_>>,
        parameters: &MailParameters<'_>,
        out: &mut Vec<u8>,
    ) -> Action {
        if self.helo.is_none() {
            return self.refuse(Refusal::HeloFirst, out);
        }
        if matches!(self.state, State::ExpectCommand(Some(_))) {
            return self.refuse(Refusal::NestedMail, out);
        }
        if let Some(refusal) = self.mail_refusal(reverse_path, parameters) {
            return self.refuse(refusal, out);
        }
        let mut envelope = self.spare.take().unwrap_or_default();
        envelope.clear(self.client.address);
        envelope.set_reverse_path(reverse_path.map(|path| path.as_str()).unwrap_or_default());
        envelope.set_envelope_id(parameters.envelope_id);
        envelope.body = parameters.body.unwrap_or(BodyType::SevenBit);
        envelope.smtputf8 = parameters.smtputf8;
        envelope.requiretls = parameters.requiretls;
        envelope.ret = parameters.ret;
        self.state = State::ExpectCommand(Some(Transaction { envelope, chunks: Chunks::None }));
        self.say(Reply::SenderOk, out)
    }

    /// What EHLO did not announce is no parameter of ours.
    fn mail_refusal(
        &self,
        reverse_path: Option<Address<'_>>,
        parameters: &MailParameters<'_>,
    ) -> Option<Refusal> {
        let target = self.extensions().target;
        let wants_dsn = parameters.ret.is_some() || parameters.envelope_id.is_some();
        let wants_binary = parameters.body == Some(BodyType::BinaryMime);
        if (parameters.smtputf8 && !target.smtputf8)
            || (parameters.requiretls && !target.requiretls)
            || (wants_dsn && !target.dsn)
        {
            return Some(Refusal::Command(CommandError::UnknownParameter));
        }
        if wants_binary && !target.binarymime {
            return Some(Refusal::Command(CommandError::ParameterValue));
        }
        if !parameters.smtputf8 && reverse_path.is_some_and(|path| !path.is_ascii()) {
            return Some(Refusal::Command(CommandError::Sender(PathError::NonAscii)));
        }
        let too_big = parameters.size.is_some_and(|size| size > self.settings.message_bytes_max);
        too_big.then_some(Refusal::DeclaredTooBig)
    }

    fn rcpt(
        &mut self,
        path: &Address<'_>,
        parameters: &RcptParameters<'_>,
        out: &mut Vec<u8>,
    ) -> Action {
        let settings = Arc::clone(&self.settings);
        let keeps_dsn = self.extensions().target.dsn;
        let State::ExpectCommand(Some(transaction)) = &mut self.state else {
            return self.refuse(Refusal::MailFirst, out);
        };
        if transaction.chunks != Chunks::None {
            return self.refuse(Refusal::MessageBegun, out);
        }
        let envelope = &mut transaction.envelope;
        let wants_dsn = parameters.notify.is_some() || parameters.original.is_some();
        if wants_dsn && !keeps_dsn {
            return self.refuse(Refusal::Command(CommandError::UnknownParameter), out);
        }
        let is_ascii = path.is_ascii() && parameters.original.is_none_or(str::is_ascii);
        if !is_ascii && !envelope.smtputf8 {
            return self
                .refuse(Refusal::Command(CommandError::Recipient(PathError::NonAscii)), out);
        }
        if !path.is_bare_postmaster() && !settings.domains.accepts(&path.ascii_domain()) {
            return self.refuse(Refusal::RelayDenied, out);
        }
        if path.is_routed() {
            return self.refuse(Refusal::RoutedRecipient, out);
        }
        if envelope.recipient_count() >= settings.recipients_max {
            // RFC 5321 4.5.3.1.10: 452, and the client sends the message to those it has. Not the client's error.
            return self.say(Reply::Refused(Refusal::TooManyRecipients), out);
        }
        let notify = parameters.notify.unwrap_or_default();
        envelope.add_recipient(Recipient {
            path: path.as_str(),
            notify,
            original: parameters.original,
        });
        self.say(Reply::RecipientOk, out)
    }

    fn data(&mut self, out: &mut Vec<u8>) -> Action {
        let refusal = match &self.state {
            State::ExpectCommand(Some(transaction)) => match transaction.chunks {
                Chunks::None if transaction.envelope.body == BodyType::BinaryMime => {
                    Some(Refusal::BinaryNeedsChunks)
                }
                Chunks::None if transaction.envelope.recipient_count() == 0 => {
                    Some(Refusal::RecipientsFirst)
                }
                Chunks::None => None,
                _ => Some(Refusal::MessageBegun),
            },
            _ => Some(Refusal::MailFirst),
        };
        if let Some(refusal) = refusal {
            return self.refuse(refusal, out);
        }
        let state = std::mem::replace(&mut self.state, State::ExpectCommand(None));
        let State::ExpectCommand(Some(transaction)) = state else { return Action::Continue };
        let limits = DataLimits {
            message_bytes_max: self.settings.message_bytes_max,
            line_bytes_max: self.settings.text_line_bytes_max,
            sloppy: self.client.is_sloppy,
        };
        let scanner = DataScanner::new(limits);
        self.state = State::ExpectData { transaction, scanner, refusal: None };
        self.say(Reply::StartData, out)
    }

    fn starttls(&mut self, behind: bool, out: &mut Vec<u8>) -> Action {
        if self.secure {
            return self.refuse(Refusal::TlsAlreadyActive, out);
        }
        if self.settings.tls != Tls::StartTls {
            return self.refuse(Refusal::TlsUnavailable, out);
        }
        if self.starttls_withheld {
            // It may have remembered the offer from another time: no error of its own.
            return self.say(Reply::Refused(Refusal::TlsWithheld), out);
        }
        if self.tls_busy {
            return self.say(Reply::Refused(Refusal::TlsBusy), out);
        }
        if behind {
            // What came in the same breath was sent in clear by the client, or put there by someone in the path.
            return self.end(Closing::PipelinedStartTls, out);
        }
        let _ = self.say(Reply::ReadyForTls, out);
        self.await_tls();
        Action::StartTls
    }

    /// A host in front of us says whose connection it is; the session begins anew as that client's.
    fn xclient(&mut self, told: Xclient, out: &mut Vec<u8>) -> Action {
        if !self.client.may_xclient {
            return self.refuse(Refusal::XclientDenied, out);
        }
        if matches!(self.state, State::ExpectCommand(Some(_))) {
            return self.refuse(Refusal::InTransaction, out);
        }
        let settings = Arc::clone(&self.settings);
        if let Told::Is(address) = told.address {
            self.client.set_address(address, &settings.networks);
        }
        told.name.update(&mut self.client.name);
        let extended = match told.extended {
            Told::Is(extended) => extended,
            Told::Nothing | Told::Unavailable => true,
        };
        self.helo = match told.helo {
            Told::Is(name) => Some(Helo { name, extended }),
            Told::Nothing | Told::Unavailable => None,
        };
        self.greet(out);
        Action::Continue
    }
}
