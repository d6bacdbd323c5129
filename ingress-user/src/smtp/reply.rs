//! Every reply: its code (RFC 5321 4.2), its enhanced code (RFC 3463) and its text. No other file knows what a reply looks
//! like on the wire.

use std::fmt::Display;
use std::io::Write;

use super::address::PathError;
use super::command::CommandError;
use super::data::DataFault;
use crate::spool::QueueId;

/// What the server says.
#[derive(Debug, Clone, Copy)]
pub enum Reply<'a> {
    Greeting {
        hostname: &'a str,
    },
    Helo {
        hostname: &'a str,
    },
    Ehlo {
        hostname: &'a str,
        extensions: Extensions,
    },
    /// RSET, NOOP and MAIL.
    Ok,
    SenderOk,
    RecipientOk,
    StartData,
    /// A chunk that is not the last (RFC 3030 section 2).
    ChunkReceived {
        octets: u64,
    },
    Queued {
        id: QueueId,
    },
    Help,
    CannotVerify,
    Goodbye {
        hostname: &'a str,
    },
    ReadyForTls,
    Refused(Refusal),
    /// Said with the last breath of a connection.
    Closing {
        hostname: &'a str,
        why: Closing,
    },
}

/// What EHLO announces beside the extensions that are always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extensions {
    pub message_bytes_max: u64,
    pub recipients_max: usize,
    pub starttls: bool,
}

/// Why a command or a message was refused. The connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Command(CommandError),
    LineTooLong,
    /// EHLO or HELO has to come first.
    HeloFirst,
    /// MAIL within a transaction.
    NestedMail,
    MailFirst,
    RecipientsFirst,
    TooManyRecipients,
    /// RCPT or DATA after a chunk: DATA and BDAT do not mix (RFC 3030 section 3).
    MessageBegun,
    /// A chunk after one that was refused.
    ChunkFailedBefore,
    /// DATA for a message that only BDAT can carry (RFC 3030 section 3).
    BinaryNeedsChunks,
    DeclaredTooBig,
    /// The recipient's domain is not ours.
    RelayDenied,
    TlsUnavailable,
    TlsAlreadyActive,
    Data(DataFault),
    Local(LocalFault),
}

/// Why we cannot take a message now; the client is to come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalFault {
    /// All receive buffers of the worker are in use.
    NoBuffers,
    /// Too many messages wait for the spool writer.
    SpoolBusy,
    SpoolFull,
    SpoolPoisoned,
    /// The spool did not answer in time. What it may still do is its own: the client comes again, a duplicate at worst.
    CommitTimeout,
}

/// Why a connection ends with 421, or with 554 where going on would be dangerous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    Timeout,
    TooManyErrors,
    ShuttingDown,
    TooManyConnections,
    TooManyConnectionsOfClient,
    NoBuffers,
    /// Octets came with STARTTLS that were not TLS (RFC 3207 section 4.2 and the NO STARTTLS attacks).
    PipelinedStartTls,
    BareLineEnd,
    /// What follows may be a chunk or a command, and nobody can tell.
    BadChunkSize,
}

impl Reply<'_> {
    /// Appends the reply with its line ends.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Greeting { hostname } => line(out, "220", hostname, "ESMTP ready"),
            Self::Helo { hostname } => out_line(out, format_args!("250 {hostname}")),
            Self::Ehlo { hostname, extensions } => write_ehlo(hostname, extensions, out),
            Self::Ok => line(out, "250", "2.0.0", "Ok"),
            Self::SenderOk => line(out, "250", "2.1.0", "Sender ok"),
            Self::RecipientOk => line(out, "250", "2.1.5", "Recipient ok"),
            Self::StartData => out_line(out, format_args!("354 End data with <CR><LF>.<CR><LF>")),
            Self::ChunkReceived { octets } => {
                out_line(out, format_args!("250 2.0.0 {octets} octets received"));
            }
            Self::Queued { id } => out_line(out, format_args!("250 2.0.0 Ok: queued as {id}")),
            Self::Help => {
                line(
                    out,
                    "214",
                    "2.0.0",
                    "HELO EHLO MAIL RCPT DATA BDAT RSET NOOP VRFY STARTTLS QUIT",
                );
            }
            Self::CannotVerify => line(
                out,
                "252",
                "2.5.2",
                "Cannot verify the address, but will take mail for it where it is local",
            ),
            Self::Goodbye { hostname } => {
                out_line(out, format_args!("221 2.0.0 {hostname} closing connection"));
            }
            Self::ReadyForTls => line(out, "220", "2.0.0", "Ready to start TLS"),
            Self::Refused(refusal) => {
                let (code, enhanced, text) = refusal.parts();
                line(out, code, enhanced, text);
            }
            Self::Closing { hostname, why } => {
                let (code, enhanced, text) = why.parts();
                out_line(out, format_args!("{code} {enhanced} {hostname} {text}"));
            }
        }
    }
}

impl Refusal {
    fn parts(self) -> Parts {
        match self {
            Self::Command(error) => command_parts(error),
            Self::LineTooLong => ("500", "5.5.6", "Command line too long"),
            Self::HeloFirst => ("503", "5.5.1", "Send EHLO or HELO first"),
            Self::NestedMail => ("503", "5.5.1", "Sender already given; RSET begins anew"),
            Self::MailFirst => ("503", "5.5.1", "Need MAIL before this"),
            Self::RecipientsFirst => ("554", "5.5.1", "No valid recipients"),
            Self::TooManyRecipients => {
                ("452", "4.5.3", "Too many recipients; send the message to those given so far")
            }
            Self::MessageBegun => ("503", "5.5.1", "Message already begun with BDAT"),
            Self::ChunkFailedBefore => {
                ("503", "5.5.1", "A chunk of this message was refused; RSET begins anew")
            }
            Self::BinaryNeedsChunks => ("503", "5.5.1", "BODY=BINARYMIME takes BDAT"),
            Self::DeclaredTooBig => {
                ("552", "5.3.4", "Message size exceeds the limit given in EHLO")
            }
            Self::RelayDenied => ("550", "5.7.1", "Relaying denied: not a domain of this host"),
            Self::TlsUnavailable => ("502", "5.5.1", "STARTTLS not available here"),
            Self::TlsAlreadyActive => ("503", "5.5.1", "TLS already active"),
            Self::Data(fault) => data_parts(fault),
            Self::Local(fault) => fault.parts(),
        }
    }
}

impl LocalFault {
    fn parts(self) -> Parts {
        match self {
            Self::NoBuffers => ("452", "4.3.1", "Out of buffers; try again later"),
            Self::SpoolBusy => ("451", "4.3.2", "Queue writer busy; try again later"),
            Self::SpoolFull => ("452", "4.3.1", "Insufficient system storage; try again later"),
            Self::SpoolPoisoned => ("451", "4.3.0", "Queue storage failed; try again later"),
            Self::CommitTimeout => ("451", "4.3.0", "Queue storage too slow; try again later"),
        }
    }
}

impl Closing {
    fn parts(self) -> Parts {
        match self {
            Self::Timeout => ("421", "4.4.2", "Timeout waiting for the client; closing"),
            Self::TooManyErrors => ("421", "4.7.0", "Too many errors; closing"),
            Self::ShuttingDown => ("421", "4.3.2", "Service shutting down; try again later"),
            Self::TooManyConnections => ("421", "4.3.2", "Too many connections; try again later"),
            Self::TooManyConnectionsOfClient => {
                ("421", "4.7.0", "Too many connections from your address; try again later")
            }
            Self::NoBuffers => ("421", "4.3.2", "Out of buffers; try again later"),
            Self::PipelinedStartTls => ("554", "5.5.1", "Data behind STARTTLS; closing"),
            Self::BadChunkSize => ("554", "5.5.4", "BDAT without a valid chunk size; closing"),
            Self::BareLineEnd => {
                ("554", "5.5.2", "Bare <CR> or <LF>: lines end with <CR><LF>; closing")
            }
        }
    }
}

/// Code, enhanced code, text.
type Parts = (&'static str, &'static str, &'static str);

fn command_parts(error: CommandError) -> Parts {
    match error {
        CommandError::Unknown => ("500", "5.5.1", "Command unknown"),
        CommandError::NotImplemented => ("502", "5.5.1", "Command not implemented"),
        CommandError::Syntax => ("500", "5.5.2", "Only printable ASCII in commands"),
        CommandError::ChunkSize => ("501", "5.5.4", "Bad chunk size"),
        CommandError::Argument => ("501", "5.5.4", "Wrong or missing argument"),
        CommandError::UnknownParameter => ("555", "5.5.4", "Parameter not recognized"),
        CommandError::ParameterValue => ("501", "5.5.4", "Wrong parameter value"),
        CommandError::Path(PathError::Syntax) => ("501", "5.1.3", "Bad address syntax"),
        CommandError::Path(PathError::LocalPartTooLong) => ("501", "5.1.3", "Local part too long"),
        CommandError::Path(PathError::DomainTooLong) => ("501", "5.1.3", "Domain too long"),
        // RFC 6531 3.5: 550 or 553 with 5.6.7 where SMTPUTF8 would be needed.
        CommandError::Path(PathError::NonAscii) => {
            ("553", "5.6.7", "Address with non-ASCII characters")
        }
    }
}

fn data_parts(fault: DataFault) -> Parts {
    match fault {
        DataFault::BareLf => ("554", "5.5.2", "Bare <LF> in message: lines end with <CR><LF>"),
        DataFault::BareCr => ("554", "5.5.2", "Bare <CR> in message: lines end with <CR><LF>"),
        DataFault::TooBig => ("552", "5.3.4", "Message size exceeds the limit given in EHLO"),
        DataFault::LineTooLong => ("554", "5.6.0", "Line too long in message"),
    }
}

fn write_ehlo(hostname: &str, extensions: Extensions, out: &mut Vec<u8>) {
    out_line(out, format_args!("250-{hostname}"));
    out_line(out, format_args!("250-PIPELINING"));
    out_line(out, format_args!("250-SIZE {}", extensions.message_bytes_max));
    out_line(out, format_args!("250-8BITMIME"));
    out_line(out, format_args!("250-CHUNKING"));
    out_line(out, format_args!("250-BINARYMIME"));
    // RFC 9422. MAILMAX is not there because there is no such limit.
    out_line(out, format_args!("250-LIMITS RCPTMAX={}", extensions.recipients_max));
    if extensions.starttls {
        out_line(out, format_args!("250-STARTTLS"));
    }
    out_line(out, format_args!("250 ENHANCEDSTATUSCODES"));
}

fn line(out: &mut Vec<u8>, first: &str, second: &str, text: &str) {
    for part in [first, " ", second, " ", text, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn out_line(out: &mut Vec<u8>, text: impl Display) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{text}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(reply: Reply<'_>) -> String {
        let mut out = Vec::new();
        reply.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn all_refusals() -> Vec<Refusal> {
        use CommandError as C;
        let commands = [
            C::Unknown,
            C::NotImplemented,
            C::Syntax,
            C::Argument,
            C::UnknownParameter,
            C::ParameterValue,
            C::ChunkSize,
            C::Path(PathError::Syntax),
            C::Path(PathError::LocalPartTooLong),
            C::Path(PathError::DomainTooLong),
            C::Path(PathError::NonAscii),
        ];
        let data =
            [DataFault::BareLf, DataFault::BareCr, DataFault::TooBig, DataFault::LineTooLong];
        let local = [
            LocalFault::NoBuffers,
            LocalFault::SpoolBusy,
            LocalFault::SpoolFull,
            LocalFault::SpoolPoisoned,
            LocalFault::CommitTimeout,
        ];
        let mut all = vec![
            Refusal::LineTooLong,
            Refusal::HeloFirst,
            Refusal::NestedMail,
            Refusal::MailFirst,
            Refusal::RecipientsFirst,
            Refusal::TooManyRecipients,
            Refusal::MessageBegun,
            Refusal::ChunkFailedBefore,
            Refusal::BinaryNeedsChunks,
            Refusal::DeclaredTooBig,
            Refusal::RelayDenied,
            Refusal::TlsUnavailable,
            Refusal::TlsAlreadyActive,
        ];
        all.extend(commands.map(Refusal::Command));
        all.extend(data.map(Refusal::Data));
        all.extend(local.map(Refusal::Local));
        all
    }

    #[test]
    fn the_class_of_an_enhanced_code_is_the_first_digit_of_the_reply() {
        let closings = [
            Closing::Timeout,
            Closing::TooManyErrors,
            Closing::ShuttingDown,
            Closing::TooManyConnections,
            Closing::TooManyConnectionsOfClient,
            Closing::NoBuffers,
            Closing::PipelinedStartTls,
            Closing::BareLineEnd,
            Closing::BadChunkSize,
        ]
        .map(|why| Reply::Closing { hostname: "mx.example.net", why });
        let ok = [Reply::Ok, Reply::SenderOk, Reply::RecipientOk, Reply::Help, Reply::CannotVerify];
        let refusals = all_refusals().into_iter().map(Reply::Refused);
        for reply in refusals.chain(closings).chain(ok) {
            let text = text_of(reply);
            let mut words = text.split(' ');
            let (code, enhanced) = (words.next().unwrap(), words.next().unwrap());
            assert_eq!(code.len(), 3, "{text}");
            assert_eq!(enhanced.split('.').count(), 3, "{text}");
            assert_eq!(code.as_bytes()[0], enhanced.as_bytes()[0], "{text}");
            assert!(text.ends_with("\r\n") && text.len() <= 512, "{text}");
        }
    }

    #[test]
    fn a_local_fault_is_always_temporary() {
        for refusal in all_refusals() {
            if matches!(refusal, Refusal::Local(_)) {
                assert!(text_of(Reply::Refused(refusal)).starts_with('4'));
            }
        }
    }

    #[test]
    fn ehlo_announces_starttls_only_where_it_is_offered() {
        let ehlo = |starttls| {
            let extensions = Extensions { message_bytes_max: 1000, recipients_max: 100, starttls };
            text_of(Reply::Ehlo { hostname: "mx.example.net", extensions })
        };
        assert!(ehlo(true).contains("250-STARTTLS\r\n"));
        assert!(!ehlo(false).contains("STARTTLS"));
        assert!(ehlo(false).contains("250-SIZE 1000\r\n"));
        assert!(ehlo(false).contains("250-LIMITS RCPTMAX=100\r\n"));
        assert!(ehlo(false).ends_with("250 ENHANCEDSTATUSCODES\r\n"));
    }
}
