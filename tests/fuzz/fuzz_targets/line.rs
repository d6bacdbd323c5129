//! A command line of any octets: it is refused, or its parts are within their limits and mean the same when written out again.

#![no_main]

use ingress_user::smtp::address::{Address, DOMAIN_BYTES_MAX, LOCAL_PART_BYTES_MAX};
use ingress_user::smtp::command::Command;
use ingress_user::smtp::envelope::{BodyType, Ret};
use ingress_user::smtp::parameters::{MailParameters, RcptParameters};
use ingress_user::smtp::xclient::{Told, Xclient};
use libfuzzer_sys::fuzz_target;

/// A HELO name has no limit of its own in RFC 5321; a domain, which it should be, has this one.
const HELO_NAME_BYTES_MAX: usize = DOMAIN_BYTES_MAX;

fuzz_target!(|line: &[u8]| {
    let Ok(command) = Command::parse(line) else { return };
    match &command {
        Command::Helo { name } | Command::Ehlo { name } | Command::Lhlo { name } => {
            assert!((1..=HELO_NAME_BYTES_MAX).contains(&name.len()));
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        Command::Mail { reverse_path: Some(path), .. } | Command::Rcpt { path, .. } => {
            assert!(path.as_str().len() <= LOCAL_PART_BYTES_MAX + 1 + DOMAIN_BYTES_MAX);
        }
        Command::Xclient(told) => check_names(told),
        _ => {}
    }
    if let Some(plain) = written_out(&command) {
        assert_eq!(Command::parse(plain.as_bytes()).as_ref(), Ok(&command), "{plain:?}");
    }
});

/// What xtext hides is no worse than what stands open.
fn check_names(told: &Xclient) {
    for name in [&told.name, &told.helo] {
        if let Told::Is(name) = name {
            assert!((1..=DOMAIN_BYTES_MAX).contains(&name.len()));
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}

/// The line that a strict client sends for `command`. What an argument said that is not kept is left out; XCLIENT's were
/// decoded, so there is no line for it.
fn written_out(command: &Command<'_>) -> Option<String> {
    Some(match command {
        Command::Helo { name } => format!("HELO {name}"),
        Command::Ehlo { name } => format!("EHLO {name}"),
        Command::Lhlo { name } => format!("LHLO {name}"),
        Command::Mail { reverse_path, parameters } => {
            let path = reverse_path.as_ref().map(Address::as_str).unwrap_or_default();
            format!("MAIL FROM:<{path}>{}", of_mail(parameters))
        }
        Command::Rcpt { path, parameters } => {
            format!("RCPT TO:<{}>{}", path.as_str(), of_rcpt(parameters))
        }
        Command::Data => "DATA".to_owned(),
        Command::Bdat { octets, last: false } => format!("BDAT {octets}"),
        Command::Bdat { octets, last: true } => format!("BDAT {octets} LAST"),
        Command::Rset => "RSET".to_owned(),
        Command::Noop => "NOOP".to_owned(),
        Command::Vrfy => "VRFY someone".to_owned(),
        Command::Help => "HELP".to_owned(),
        Command::Quit => "QUIT".to_owned(),
        Command::StartTls => "STARTTLS".to_owned(),
        Command::Xclient(_) => return None,
    })
}

fn of_mail(parameters: &MailParameters<'_>) -> String {
    let body = parameters.body.map(|body| match body {
        BodyType::SevenBit => " BODY=7BIT",
        BodyType::EightBitMime => " BODY=8BITMIME",
        BodyType::BinaryMime => " BODY=BINARYMIME",
    });
    let ret = parameters.ret.map(|ret| match ret {
        Ret::Full => " RET=FULL",
        Ret::Headers => " RET=HDRS",
    });
    let size = parameters.size.map(|size| format!(" SIZE={size}")).unwrap_or_default();
    let id = parameters.envelope_id.map(|id| format!(" ENVID={id}")).unwrap_or_default();
    let smtputf8 = if parameters.smtputf8 { " SMTPUTF8" } else { "" };
    let requiretls = if parameters.requiretls { " REQUIRETLS" } else { "" };
    [body.unwrap_or(""), ret.unwrap_or(""), &size, &id, smtputf8, requiretls].concat()
}

fn of_rcpt(parameters: &RcptParameters<'_>) -> String {
    let notify = parameters.notify.map(|notify| format!(" NOTIFY={notify}")).unwrap_or_default();
    let original = parameters.original.map(|original| format!(" ORCPT={original}"));
    [notify, original.unwrap_or_default()].concat()
}
