//! A command line of any octets: it is refused, or its parts are within their limits and mean the same when written out again.

#![no_main]

use ingress_user::smtp::address::{Address, DOMAIN_BYTES_MAX, LOCAL_PART_BYTES_MAX};
use ingress_user::smtp::command::{Command, known_verb};
use ingress_user::smtp::envelope::{BodyType, Ret};
use ingress_user::smtp::parameters::{MailParameters, RcptParameters};
use ingress_user::smtp::xclient::{Told, Xclient};
use libfuzzer_sys::fuzz_target;

/// A HELO name has no limit of its own in RFC 5321; a domain, which it should be, has this one.
const HELO_NAME_BYTES_MAX: usize = DOMAIN_BYTES_MAX;

fuzz_target!(|line: &[u8]| {
    let Ok(command) = Command::parse(line) else { return };
    assert!(known_verb(line).is_some(), "a command whose verb is not known");
    match &command {
        Command::Helo { name } | Command::Ehlo { name } | Command::Lhlo { name } => {
            assert!((1..=HELO_NAME_BYTES_MAX).contains(&name.len()));
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        Command::Mail { reverse_path: Some(path), .. } | Command::Rcpt { path, .. } => {
            assert!(path.as_str().len() <= LOCAL_PART_BYTES_MAX + 1 + DOMAIN_BYTES_MAX);
        }
        _ => {}
    }
    // What was decoded is not written out again.
    if let Command::Xclient(told) = &command {
        return check_xclient(told);
    }
    let plain = written_out(&command);
    assert_eq!(Command::parse(plain.as_bytes()).as_ref(), Ok(&command), "{plain:?}");
});

/// The line that a strict client sends for `command`. What an argument said that is not kept is left out.
fn written_out(command: &Command<'_>) -> String {
    match command {
        Command::Helo { name } => format!("HELO {name}"),
        Command::Ehlo { name } => format!("EHLO {name}"),
        Command::Lhlo { name } => format!("LHLO {name}"),
        Command::Mail { reverse_path, parameters } => {
            let path = reverse_path.as_ref().map(Address::as_str).unwrap_or_default();
            format!("MAIL FROM:<{path}>{}", written_out_mail(parameters))
        }
        Command::Rcpt { path, parameters } => {
            format!("RCPT TO:<{}>{}", path.as_str(), written_out_rcpt(parameters))
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
        Command::Xclient(_) => unreachable!("not written out"),
    }
}

fn written_out_mail(parameters: &MailParameters<'_>) -> String {
    let MailParameters { size, body, smtputf8, requiretls, ret, envelope_id } = parameters;
    let body = body.map(|body| match body {
        BodyType::SevenBit => " BODY=7BIT",
        BodyType::EightBitMime => " BODY=8BITMIME",
        BodyType::BinaryMime => " BODY=BINARYMIME",
    });
    let ret = ret.map(|ret| match ret {
        Ret::Full => " RET=FULL",
        Ret::Headers => " RET=HDRS",
    });
    [
        size.map(|size| format!(" SIZE={size}")),
        body.map(str::to_owned),
        smtputf8.then(|| " SMTPUTF8".to_owned()),
        requiretls.then(|| " REQUIRETLS".to_owned()),
        ret.map(str::to_owned),
        envelope_id.map(|id| format!(" ENVID={id}")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn written_out_rcpt(parameters: &RcptParameters<'_>) -> String {
    let notify = parameters.notify.map(|notify| format!(" NOTIFY={notify}"));
    let original = parameters.original.map(|original| format!(" ORCPT={original}"));
    [notify, original].into_iter().flatten().collect()
}

fn check_xclient(told: &Xclient) {
    for name in [&told.name, &told.helo] {
        if let Told::Is(name) = name {
            assert!((1..=HELO_NAME_BYTES_MAX).contains(&name.len()));
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}
