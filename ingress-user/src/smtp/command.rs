//! One command line, parsed into a type.

use super::address::{self, Address, PathError};
use super::parameters::{MailParameters, RcptParameters};
use super::xclient::Xclient;

/// Octets of a HELO or EHLO argument that are kept; longer ones are refused (a domain has at most 255).
const HELO_NAME_BYTES_MAX: usize = 255;

/// A command of RFC 5321 4.1.1, RFC 2033, RFC 3030, RFC 3207 or XCLIENT with its arguments, borrowed from the line.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    Helo {
        name: &'a str,
    },
    Ehlo {
        name: &'a str,
    },
    /// HELO of LMTP (RFC 2033 section 4.1).
    Lhlo {
        name: &'a str,
    },
    Mail {
        /// `None` is the null reverse-path.
        reverse_path: Option<Address<'a>>,
        parameters: MailParameters<'a>,
    },
    Rcpt {
        path: Address<'a>,
        parameters: RcptParameters<'a>,
    },
    Data,
    /// A chunk of the message stands right behind the line (RFC 3030).
    Bdat {
        octets: u64,
        last: bool,
    },
    Rset,
    Noop,
    Vrfy,
    Help,
    Quit,
    StartTls,
    Xclient(Xclient),
}

/// Why a line is not a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandError {
    /// The verb is not one of ours.
    Unknown,
    /// A known command that is not offered here (RFC 5321 4.2.4).
    NotImplemented,
    /// Control characters, or octets that are no UTF-8.
    Syntax,
    /// NUL, which ends a text for too many programs behind us.
    Nul,
    /// The argument is missing, or there is one where none belongs.
    Argument,
    /// In MAIL.
    Sender(PathError),
    /// In RCPT.
    Recipient(PathError),
    /// A parameter of MAIL or RCPT that we did not announce.
    UnknownParameter,
    /// BDAT without a size that can be read: where the chunk ends is unknown.
    ChunkSize,
    /// A parameter of ours with a value that makes no sense, or given twice.
    ParameterValue,
}

impl<'a> Command<'a> {
    /// Parses a line without its CRLF.
    pub fn parse(line: &'a [u8]) -> Result<Self, CommandError> {
        if memchr::memchr(0, line).is_some() {
            return Err(CommandError::Nul);
        }
        let line = std::str::from_utf8(line).map_err(|_invalid| CommandError::Syntax)?;
        if has_control_character(line) {
            return Err(CommandError::Syntax);
        }
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        let argument = argument.trim_matches([' ', '\t']);
        let verb = verb.trim_end_matches([' ', '\t']);
        for (name, parse) in COMMANDS {
            if verb.eq_ignore_ascii_case(name) {
                return parse(argument);
            }
        }
        Err(match known_verb(verb.as_bytes()) {
            Some(_) => CommandError::NotImplemented,
            None => CommandError::Unknown,
        })
    }
}

type ArgumentParser = for<'a> fn(&'a str) -> Result<Command<'a>, CommandError>;

/// In the order of their frequency on an MX.
const COMMANDS: [(&str, ArgumentParser); 14] = [
    ("RCPT", parse_rcpt),
    ("MAIL", parse_mail),
    ("DATA", |argument| no_argument(argument, Command::Data)),
    ("BDAT", parse_bdat),
    ("EHLO", |argument| helo_name(argument).map(|name| Command::Ehlo { name })),
    ("QUIT", |argument| no_argument(argument, Command::Quit)),
    ("STARTTLS", |argument| no_argument(argument, Command::StartTls)),
    ("RSET", |argument| no_argument(argument, Command::Rset)),
    ("HELO", |argument| helo_name(argument).map(|name| Command::Helo { name })),
    ("NOOP", |_ignored| Ok(Command::Noop)),
    ("VRFY", |argument| some_argument(argument, Command::Vrfy)),
    ("HELP", |_ignored| Ok(Command::Help)),
    ("LHLO", |argument| helo_name(argument).map(|name| Command::Lhlo { name })),
    ("XCLIENT", |argument| Xclient::parse(argument).map(Command::Xclient)),
];

/// Verbs of RFC 5321 and its kin that are understood and not offered.
const NOT_OFFERED: [&str; 7] = ["EXPN", "TURN", "ETRN", "AUTH", "SEND", "SOML", "SAML"];

/// The verb of a line, if it is one that a client may rightly send: what else stands there may be anything, even a piece of
/// a message.
pub fn known_verb(line: &[u8]) -> Option<&'static str> {
    let verb = line.split(|&byte| matches!(byte, b' ' | b'\t' | b'\r')).next().unwrap_or_default();
    let known = COMMANDS.iter().map(|(name, _)| *name).chain(NOT_OFFERED);
    known.into_iter().find(|name| verb.eq_ignore_ascii_case(name.as_bytes()))
}

/// A tab is let through: it stands for a blank with some clients.
fn has_control_character(line: &str) -> bool {
    if line.is_ascii() {
        line.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t')
    } else {
        // Some programs end lines at the last two.
        line.chars().any(|c| c.is_control() && c != '\t' || matches!(c, '\u{2028}' | '\u{2029}'))
    }
}

fn no_argument<'a>(argument: &str, command: Command<'a>) -> Result<Command<'a>, CommandError> {
    if argument.is_empty() { Ok(command) } else { Err(CommandError::Argument) }
}

fn some_argument<'a>(argument: &str, command: Command<'a>) -> Result<Command<'a>, CommandError> {
    if argument.is_empty() { Err(CommandError::Argument) } else { Ok(command) }
}

/// Takes any printable word: real clients send names that are no valid domains, and nothing here trusts them.
fn helo_name(argument: &str) -> Result<&str, CommandError> {
    let holds = (1..=HELO_NAME_BYTES_MAX).contains(&argument.len())
        && argument.bytes().all(|byte| byte.is_ascii_graphic());
    if holds { Ok(argument) } else { Err(CommandError::Argument) }
}

fn parse_mail(argument: &str) -> Result<Command<'_>, CommandError> {
    let (path, parameters) = path_after("FROM:", argument, CommandError::Sender)?;
    let reverse_path = match path {
        "" => None,
        path => Some(reverse_path(path).map_err(CommandError::Sender)?),
    };
    let parameters = MailParameters::parse(parameters)?;
    Ok(Command::Mail { reverse_path, parameters })
}

fn parse_rcpt(argument: &str) -> Result<Command<'_>, CommandError> {
    let (path, parameters) = path_after("TO:", argument, CommandError::Recipient)?;
    let path = address::parse_path(path).map_err(CommandError::Recipient)?;
    Ok(Command::Rcpt { path, parameters: RcptParameters::parse(parameters)? })
}

/// `FROM:<path> parameters` to path and parameters. A blank after the colon is against the grammar and common; it is let
/// through (RFC 5321 3.3 asks for tolerance here).
fn path_after<'a>(
    keyword: &str,
    argument: &'a str,
    fault: fn(PathError) -> CommandError,
) -> Result<(&'a str, &'a str), CommandError> {
    let (head, rest) = argument.split_at_checked(keyword.len()).ok_or(CommandError::Argument)?;
    if !head.eq_ignore_ascii_case(keyword) {
        return Err(CommandError::Argument);
    }
    let (path, parameters) = address::split_path(rest.trim_ascii_start()).map_err(fault)?;
    if parameters.is_empty() || parameters.starts_with(' ') {
        Ok((path, parameters))
    } else {
        Err(fault(PathError::Syntax))
    }
}

/// A sender without a domain cannot be answered; only as a recipient is `postmaster` good without one (RFC 5321 4.5.1).
fn reverse_path(path: &str) -> Result<Address<'_>, PathError> {
    address::parse_path(path).and_then(|address| match address.is_bare_postmaster() {
        false => Ok(address),
        true => Err(PathError::Syntax),
    })
}

/// RFC 3030 section 2: `chunk-size [ SP "LAST" ]`.
fn parse_bdat(argument: &str) -> Result<Command<'_>, CommandError> {
    let (size, rest) = argument.split_once(' ').unwrap_or((argument, ""));
    let last = match rest.trim_ascii() {
        "" => false,
        rest if rest.eq_ignore_ascii_case("LAST") => true,
        _ => return Err(CommandError::ChunkSize),
    };
    if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(CommandError::ChunkSize);
    }
    let octets = size.parse().map_err(|_beyond_64_bits| CommandError::ChunkSize)?;
    Ok(Command::Bdat { octets, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(line: &str) -> (Option<&str>, MailParameters<'_>) {
        match Command::parse(line.as_bytes()) {
            Ok(Command::Mail { reverse_path, parameters }) => {
                (reverse_path.map(|path| path.as_str()), parameters)
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn verbs_have_no_case() {
        assert_eq!(Command::parse(b"qUiT"), Ok(Command::Quit));
        assert_eq!(
            Command::parse(b"ehlo client.example"),
            Ok(Command::Ehlo { name: "client.example" })
        );
        assert_eq!(Command::parse(b"STARTTLS"), Ok(Command::StartTls));
    }

    #[test]
    fn trailing_blanks_are_ignored() {
        assert_eq!(Command::parse(b"DATA "), Ok(Command::Data));
        assert_eq!(Command::parse(b"QUIT\t"), Ok(Command::Quit));
    }

    #[test]
    fn mail_carries_path_and_parameters() {
        let (path, parameters) = mail("MAIL FROM:<user@example.net> SIZE=1000 BODY=8BITMIME");
        assert_eq!(path, Some("user@example.net"));
        assert_eq!(parameters.size, Some(1000));
        assert_eq!(mail("MAIL FROM:<>"), (None, MailParameters::default()));
        assert!(mail("mail from: <user@example.net>").0.is_some());
    }

    #[test]
    fn only_verbs_a_client_may_send_are_known() {
        assert_eq!(known_verb(b"mail FROM:<a@b>"), Some("MAIL"));
        assert_eq!(known_verb(b"AUTH PLAIN c2VjcmV0"), Some("AUTH"));
        assert_eq!(known_verb(b"QUIT\r"), Some("QUIT"));
        assert_eq!(known_verb(b"Dear Bob"), None);
        assert_eq!(known_verb(b""), None);
    }

    #[test]
    fn a_chunk_has_a_size_and_may_be_the_last() {
        assert_eq!(Command::parse(b"BDAT 5"), Ok(Command::Bdat { octets: 5, last: false }));
        assert_eq!(Command::parse(b"bdat 0 last"), Ok(Command::Bdat { octets: 0, last: true }));
    }

    #[test]
    fn faults_are_told_apart() {
        for (line, error) in [
            (&b""[..], CommandError::Unknown),
            (b"FOO", CommandError::Unknown),
            (b"GET / HTTP/1.1", CommandError::Unknown),
            (b"EXPN list", CommandError::NotImplemented),
            (b"EHLO", CommandError::Argument),
            (b"EHLO two words", CommandError::Argument),
            (b"DATA now", CommandError::Argument),
            (b"BDAT", CommandError::ChunkSize),
            (b"BDAT LAST", CommandError::ChunkSize),
            (b"BDAT -1", CommandError::ChunkSize),
            (b"BDAT 1 FIRST", CommandError::ChunkSize),
            (b"BDAT 99999999999999999999", CommandError::ChunkSize),
            (b"VRFY", CommandError::Argument),
            (b"MAIL", CommandError::Argument),
            (b"MAIL TO:<a@b>", CommandError::Argument),
            (b"MAIL FROM:a@b", CommandError::Sender(PathError::Syntax)),
            (b"MAIL FROM:<postmaster>", CommandError::Sender(PathError::Syntax)),
            (b"MAIL FROM:<a@b>SIZE=1", CommandError::Sender(PathError::Syntax)),
            (b"MAIL FROM:<a@b> SIZE=x", CommandError::ParameterValue),
            (b"MAIL FROM:<a@b> SIZE=1 SIZE=2", CommandError::ParameterValue),
            (b"MAIL FROM:<a@b> BODY=9BIT", CommandError::ParameterValue),
            (b"MAIL FROM:<a@b> AUTH=<>", CommandError::UnknownParameter),
            (b"RCPT TO:<>", CommandError::Recipient(PathError::Syntax)),
            (b"RCPT TO:<a@b> SIZE=1", CommandError::UnknownParameter),
            (b"XCLIENT", CommandError::Argument),
            (b"NOOP \x01", CommandError::Syntax),
            (b"NOOP \xff", CommandError::Syntax),
            ("NOOP \u{85}".as_bytes(), CommandError::Syntax),
            ("NOOP \u{2028}".as_bytes(), CommandError::Syntax),
            (b"NOOP \0", CommandError::Nul),
        ] {
            assert_eq!(Command::parse(line), Err(error), "{}", line.escape_ascii());
        }
    }
}
