//! Every reply: its code (RFC 5321 4.2), its enhanced code (RFC 3463) and its text. No other file knows what a reply looks
//! like on the wire.

use std::fmt::Display;
use std::io::Write;

use super::address::PathError;
use super::command::CommandError;
use super::data::DataFault;
use super::dialect::Dialect;
use super::xclient;
use crate::policy::TargetExtensions;
use crate::spool::QueueId;

/// What the server says.
#[derive(Debug, Clone, Copy)]
pub enum Reply<'a> {
    Greeting {
        hostname: &'a str,
        dialect: Dialect,
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
    pub messages_max: u32,
    pub target: TargetExtensions,
    pub starttls: bool,
    pub xclient: bool,
}

/// Why a command or a message was refused. The connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Command(CommandError),
    LineTooLong,
    /// EHLO or HELO has to come first.
    HeloFirst,
    /// EHLO or HELO to LMTP, or LHLO to SMTP (RFC 2033 4.1); this is the dialect spoken here.
    OtherDialect(Dialect),
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
    /// The recipient's local part asks for a further hop.
    RoutedRecipient,
    XclientDenied,
    /// XCLIENT within a transaction.
    InTransaction,
    TlsUnavailable,
    /// A handshake of this client has failed, and STARTTLS is kept from it for a while (RFC 3207 section 4).
    TlsWithheld,
    /// Too many handshakes are not through yet.
    TlsBusy,
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
    TooManyMessages,
    /// The client talked before the greeting.
    EarlyTalker,
    /// A peer that should convey clients sent no valid PROXY protocol header, or not in time.
    NoProxyHeader,
    ShuttingDown,
    TooManyConnections,
    TooManyConnectionsOfClient,
    /// The client misbehaved before, or the operator does not want it.
    Banned,
    /// Where TLS comes first.
    TooManyHandshakes,
    /// Octets came with STARTTLS that were not TLS (RFC 3207 section 4.2 and the NO STARTTLS attacks).
    PipelinedStartTls,
    BareLineEnd,
    /// NUL in a command.
    Nul,
    /// What follows may be a chunk or a command, and nobody can tell.
    BadChunkSize,
}

impl Reply<'_> {
    /// Appends the reply with its line ends.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Greeting { hostname, dialect } => {
                let text = match dialect {
                    Dialect::Smtp => "ESMTP ready",
                    Dialect::Lmtp => "LMTP ready",
                };
                line(out, "220", hostname, text);
            }
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
            Self::LineTooLong => ("500", "5.5.2", "Command line too long"),
            Self::HeloFirst => ("503", "5.5.1", "Send EHLO, HELO or LHLO first"),
            Self::OtherDialect(Dialect::Smtp) => ("500", "5.5.1", "This is SMTP: send EHLO"),
            Self::OtherDialect(Dialect::Lmtp) => ("500", "5.5.1", "This is LMTP: send LHLO"),
            Self::NestedMail => ("503", "5.5.1", "Sender already given; RSET begins anew"),
            Self::MailFirst => ("503", "5.5.1", "Need MAIL before this"),
            Self::RecipientsFirst => ("503", "5.5.1", "No valid recipients"),
            Self::RoutedRecipient => (
                "550",
                "5.7.1",
                "Relaying denied: %, ! or @ in the local part asks for another hop",
            ),
            Self::XclientDenied => ("550", "5.7.0", "XCLIENT is not open to you"),
            Self::InTransaction => ("503", "5.5.1", "Not within a mail transaction"),
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
            Self::TlsWithheld => ("454", "4.7.0", "TLS not available to you now; go on in clear"),
            Self::TlsBusy => ("454", "4.3.2", "Too many TLS handshakes; try again later"),
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
            Self::TooManyMessages => {
                ("421", "4.7.0", "Too many messages in one session; go on in another")
            }
            Self::EarlyTalker => ("554", "5.5.1", "You talked before the greeting; closing"),
            Self::NoProxyHeader => ("421", "4.3.2", "No valid PROXY protocol header; closing"),
            Self::ShuttingDown => ("421", "4.3.2", "Service shutting down; try again later"),
            Self::TooManyConnections => ("421", "4.3.2", "Too many connections; try again later"),
            Self::TooManyConnectionsOfClient => {
                ("421", "4.7.0", "Too many connections from your address; try again later")
            }
            Self::Banned => {
                ("421", "4.7.0", "Your address is not served for a while; try again later")
            }
            Self::TooManyHandshakes => ("421", "4.3.2", "Too many TLS handshakes; try again later"),
            Self::PipelinedStartTls => ("554", "5.5.1", "Data behind STARTTLS; closing"),
            Self::BadChunkSize => ("554", "5.5.4", "BDAT without a valid chunk size; closing"),
            Self::BareLineEnd => {
                ("554", "5.5.2", "Bare <CR> or <LF>: lines end with <CR><LF>; closing")
            }
            Self::Nul => ("554", "5.5.2", "NUL in a command; closing"),
        }
    }
}

impl Closing {
    /// Every one, in the order of their numbers (`as usize`).
    pub const ALL: [Self; 14] = [
        Self::Timeout,
        Self::TooManyErrors,
        Self::TooManyMessages,
        Self::EarlyTalker,
        Self::NoProxyHeader,
        Self::ShuttingDown,
        Self::TooManyConnections,
        Self::TooManyConnectionsOfClient,
        Self::Banned,
        Self::TooManyHandshakes,
        Self::PipelinedStartTls,
        Self::BareLineEnd,
        Self::Nul,
        Self::BadChunkSize,
    ];

    /// Whether the client brought it about just now, and not our limits, a ban or a shutdown.
    pub fn is_clients_fault(self) -> bool {
        !matches!(
            self,
            Self::ShuttingDown
                | Self::TooManyConnections
                | Self::TooManyConnectionsOfClient
                | Self::Banned
                | Self::TooManyHandshakes
        )
    }

    /// As logs and metrics have it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::TooManyErrors => "too_many_errors",
            Self::TooManyMessages => "too_many_messages",
            Self::EarlyTalker => "early_talker",
            Self::NoProxyHeader => "no_proxy_header",
            Self::ShuttingDown => "shutting_down",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyConnectionsOfClient => "too_many_connections_of_client",
            Self::Banned => "banned",
            Self::TooManyHandshakes => "too_many_handshakes",
            Self::PipelinedStartTls => "pipelined_starttls",
            Self::BareLineEnd => "bare_line_end",
            Self::Nul => "nul",
            Self::BadChunkSize => "bad_chunk_size",
        }
    }
}

/// Code, enhanced code, text.
type Parts = (&'static str, &'static str, &'static str);

fn command_parts(error: CommandError) -> Parts {
    match error {
        CommandError::Unknown => ("500", "5.5.1", "Command unknown"),
        CommandError::NotImplemented => ("502", "5.5.1", "Command not implemented"),
        CommandError::Syntax => ("500", "5.5.2", "Only printable characters in commands"),
        CommandError::Nul => ("500", "5.5.2", "NUL in a command"),
        CommandError::ChunkSize => ("501", "5.5.4", "Bad chunk size"),
        CommandError::Argument => ("501", "5.5.4", "Wrong or missing argument"),
        CommandError::UnknownParameter => ("555", "5.5.4", "Parameter not recognized"),
        CommandError::ParameterValue => ("501", "5.5.4", "Wrong parameter value"),
        // RFC 3463 3.2: X.1.7 is about a sender, X.1.3 about a recipient.
        CommandError::Sender(fault) => path_parts(fault, "5.1.7"),
        CommandError::Recipient(fault) => path_parts(fault, "5.1.3"),
    }
}

fn path_parts(fault: PathError, enhanced: &'static str) -> Parts {
    match fault {
        PathError::Syntax => ("501", enhanced, "Bad address syntax"),
        PathError::LocalPartTooLong => ("501", enhanced, "Local part too long"),
        PathError::DomainTooLong => ("501", enhanced, "Domain too long"),
        // RFC 6531 3.5: 550 or 553 with 5.6.7 where SMTPUTF8 would be needed.
        PathError::NonAscii => ("553", "5.6.7", "Address with non-ASCII characters needs SMTPUTF8"),
    }
}

fn data_parts(fault: DataFault) -> Parts {
    match fault {
        DataFault::BareLf => ("554", "5.5.2", "Bare <LF> in message: lines end with <CR><LF>"),
        DataFault::BareCr => ("554", "5.5.2", "Bare <CR> in message: lines end with <CR><LF>"),
        DataFault::Nul => ("554", "5.5.2", "NUL in message"),
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
    let Extensions { recipients_max, messages_max, target, .. } = extensions;
    let optional = [
        (target.binarymime, "BINARYMIME"),
        (target.smtputf8, "SMTPUTF8"),
        (target.dsn, "DSN"),
        (target.requiretls, "REQUIRETLS"),
        (extensions.starttls, "STARTTLS"),
    ];
    for (_, keyword) in optional.into_iter().filter(|(on_offer, _)| *on_offer) {
        out_line(out, format_args!("250-{keyword}"));
    }
    if extensions.xclient {
        out_line(out, format_args!("250-XCLIENT {}", xclient::ATTRIBUTES));
    }
    // RFC 9422 section 4.
    out_line(out, format_args!("250-LIMITS MAILMAX={messages_max} RCPTMAX={recipients_max}"));
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
            C::Nul,
            C::Argument,
            C::UnknownParameter,
            C::ParameterValue,
            C::ChunkSize,
            C::Sender(PathError::Syntax),
            C::Recipient(PathError::Syntax),
            C::Recipient(PathError::LocalPartTooLong),
            C::Recipient(PathError::DomainTooLong),
            C::Recipient(PathError::NonAscii),
        ];
        let data = [
            DataFault::BareLf,
            DataFault::BareCr,
            DataFault::Nul,
            DataFault::TooBig,
            DataFault::LineTooLong,
        ];
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
            Refusal::OtherDialect(Dialect::Smtp),
            Refusal::OtherDialect(Dialect::Lmtp),
            Refusal::RoutedRecipient,
            Refusal::XclientDenied,
            Refusal::InTransaction,
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
            Refusal::TlsWithheld,
            Refusal::TlsBusy,
            Refusal::TlsAlreadyActive,
        ];
        all.extend(commands.map(Refusal::Command));
        all.extend(data.map(Refusal::Data));
        all.extend(local.map(Refusal::Local));
        all
    }

    #[test]
    fn the_class_of_an_enhanced_code_is_the_first_digit_of_the_reply() {
        let closings = Closing::ALL.map(|why| Reply::Closing { hostname: "mx.example.net", why });
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
    fn closings_are_numbered_as_they_are_listed() {
        for (number, why) in Closing::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, number);
        }
    }

    #[test]
    fn the_table_of_reasons_says_what_is_said() {
        let table = include_str!("README.md");
        for why in Closing::ALL {
            let (code, enhanced, _) = why.parts();
            let row = format!("| `{}` | {code} {enhanced} |", why.label());
            assert!(table.contains(&row), "{row}");
        }
    }

    #[test]
    fn ehlo_announces_what_is_on_offer_and_nothing_else() {
        let ehlo = |on_offer| {
            let target = TargetExtensions {
                smtputf8: on_offer,
                binarymime: on_offer,
                dsn: on_offer,
                requiretls: on_offer,
            };
            let extensions = Extensions {
                message_bytes_max: 1000,
                recipients_max: 100,
                messages_max: 10,
                target,
                starttls: on_offer,
                xclient: on_offer,
            };
            text_of(Reply::Ehlo { hostname: "mx.example.net", extensions })
        };
        let always = [
            "PIPELINING",
            "SIZE 1000",
            "8BITMIME",
            "CHUNKING",
            "LIMITS MAILMAX=10 RCPTMAX=100",
            "ENHANCEDSTATUSCODES",
        ];
        let optional = [
            "BINARYMIME",
            "SMTPUTF8",
            "DSN",
            "REQUIRETLS",
            "STARTTLS",
            "XCLIENT NAME ADDR PROTO HELO",
        ];
        for on_offer in [false, true] {
            let reply = ehlo(on_offer);
            let lines: Vec<&str> = reply.trim_end().split("\r\n").map(|line| &line[4..]).collect();
            assert!(always.iter().all(|keyword| lines.contains(keyword)), "{reply}");
            assert!(optional.iter().all(|keyword| lines.contains(keyword) == on_offer), "{reply}");
            assert_eq!(lines.len(), 1 + always.len() + if on_offer { optional.len() } else { 0 });
        }
    }
}
