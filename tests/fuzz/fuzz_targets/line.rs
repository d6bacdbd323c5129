//! A command line of any octets: it is refused, or its parts are within their limits and mean the same when written out again.

#![no_main]

use ingress_user::smtp::address::{Address, DOMAIN_BYTES_MAX, LOCAL_PART_BYTES_MAX};
use ingress_user::smtp::command::{Command, Mail};
use ingress_user::smtp::envelope::BodyType;
use libfuzzer_sys::fuzz_target;

/// A HELO name has no limit of its own in RFC 5321; a domain, which it should be, has this one.
const HELO_NAME_BYTES_MAX: usize = DOMAIN_BYTES_MAX;

fuzz_target!(|line: &[u8]| {
    let Ok(command) = Command::parse(line) else { return };
    match &command {
        Command::Helo { name } | Command::Ehlo { name } => {
            assert!((1..=HELO_NAME_BYTES_MAX).contains(&name.len()));
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        Command::Mail(Mail { reverse_path: Some(path), .. }) | Command::Rcpt { path } => {
            assert!(path.as_str().len() <= LOCAL_PART_BYTES_MAX + 1 + DOMAIN_BYTES_MAX);
        }
        _ => {}
    }
    let plain = written_out(&command);
    assert_eq!(Command::parse(plain.as_bytes()).as_ref(), Ok(&command), "{plain:?}");
});

/// The line that a strict client sends for `command`. What an argument said that is not kept is left out.
fn written_out(command: &Command<'_>) -> String {
    match command {
        Command::Helo { name } => format!("HELO {name}"),
        Command::Ehlo { name } => format!("EHLO {name}"),
        Command::Mail(mail) => written_out_mail(mail),
        Command::Rcpt { path } => format!("RCPT TO:<{}>", path.as_str()),
        Command::Data => "DATA".to_owned(),
        Command::Bdat { octets, last: false } => format!("BDAT {octets}"),
        Command::Bdat { octets, last: true } => format!("BDAT {octets} LAST"),
        Command::Rset => "RSET".to_owned(),
        Command::Noop => "NOOP".to_owned(),
        Command::Vrfy => "VRFY someone".to_owned(),
        Command::Help => "HELP".to_owned(),
        Command::Quit => "QUIT".to_owned(),
        Command::StartTls => "STARTTLS".to_owned(),
    }
}

fn written_out_mail(mail: &Mail<'_>) -> String {
    let path = mail.reverse_path.as_ref().map(Address::as_str).unwrap_or_default();
    let size = mail.size.map(|size| format!(" SIZE={size}")).unwrap_or_default();
    let body = match mail.body {
        BodyType::SevenBit => "7BIT",
        BodyType::EightBitMime => "8BITMIME",
        BodyType::BinaryMime => "BINARYMIME",
    };
    format!("MAIL FROM:<{path}>{size} BODY={body}")
}
