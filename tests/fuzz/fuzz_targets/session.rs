//! Any octets of a client, in any pieces: the same replies, the same messages, the same end.
//!
//! The first two octets choose how the session is set, the third how the rest is cut (see `choice`, `trust` and [`cut`]).

#![no_main]

use std::array;
use std::sync::{Arc, LazyLock};

use ingress_fuzz::{Client, Spool, cut, reply_lines};
use ingress_tests::dialogue::{set, settings};
use ingress_user::smtp::Settings;
use ingress_user::smtp::dialect::Dialect;
use ingress_user::smtp::session::Tls;
use libfuzzer_sys::fuzz_target;

/// What a client says that comes to the point. Chance alone rarely gets there.
const PROXY: &[u8] = b"PROXY TCP4 198.51.100.1 192.0.2.2 40000 25\r\n";
const EHLO: &[u8] = b"EHLO client.example.org\r\n";
const LHLO: &[u8] = b"LHLO client.example.org\r\n";
const TRANSACTION: &[u8] = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n";

/// Where the client comes from, and where its balancer says that it does.
const CLIENTS: &str = "192.0.2.1/32 198.51.100.1/32";

/// Bits of the first octet. Those of 32 and above mean nothing, so that seeds can begin with a letter.
mod choice {
    pub(super) const TINY_LIMITS: u8 = 1;
    pub(super) const NO_STARTTLS: u8 = 2;
    pub(super) const MANY_ERRORS: u8 = 4;
    pub(super) const BUSY_SPOOL: u8 = 8;
    pub(super) const IN_TRANSACTION: u8 = 16;
}

/// Bits of the second octet: who the client is to us. Others mean nothing again.
mod trust {
    pub(super) const PROXY_HEADER: u8 = 1;
    pub(super) const XCLIENT: u8 = 2;
    pub(super) const SLOPPY: u8 = 4;
    pub(super) const LMTP: u8 = 8;
}

/// By trust, then by choice; the choices that are no matter of settings are among them.
static SETTINGS: LazyLock<[[Arc<Settings>; 32]; 16]> = LazyLock::new(|| {
    array::from_fn(|trust| {
        array::from_fn(|choice| Arc::new(chosen(choice as u8, trust as u8).expect("settings")))
    })
});

/// Tiny limits are within reach of a short input.
fn chosen(choice: u8, trust: u8) -> Result<Settings, String> {
    let mut settings = settings();
    if choice & choice::TINY_LIMITS != 0 {
        settings.command_line_bytes_max = 40;
        settings.message_bytes_max = 60;
        settings.text_line_bytes_max = 20;
    }
    if choice & choice::MANY_ERRORS != 0 {
        settings.errors_max = 1000;
        settings.messages_max = 1000;
    }
    if choice & choice::NO_STARTTLS != 0 {
        settings.tls = Tls::Off;
    }
    let networks = [
        (trust::PROXY_HEADER, "proxy_protocol", "192.0.2.1/32"),
        (trust::XCLIENT, "xclient", CLIENTS),
        (trust::SLOPPY, "normalize", CLIENTS),
    ];
    for (bit, name, value) in networks {
        if trust & bit != 0 {
            set(&mut settings, name, value)?;
        }
    }
    if trust & trust::LMTP != 0 {
        settings.dialect = Dialect::Lmtp;
    }
    Ok(settings)
}

/// What was said before the input.
fn start(choice: u8, trust: u8) -> Vec<u8> {
    if choice & choice::IN_TRANSACTION == 0 {
        return Vec::new();
    }
    let header = if trust & trust::PROXY_HEADER == 0 { &[] } else { PROXY };
    let hello = if trust & trust::LMTP == 0 { EHLO } else { LHLO };
    [header, hello, TRANSACTION].concat()
}

fuzz_target!(|input: &[u8]| {
    let &[choice, trust, seed, ref client @ ..] = input else { return };
    let settings = &SETTINGS[usize::from(trust % 16)][usize::from(choice % 32)];
    let spool = if choice & choice::BUSY_SPOOL == 0 { Spool::TakesAll } else { Spool::TakesHalf };
    let octets = [&start(choice, trust), client].concat();

    let whole = Client::play(settings, spool, [octets.as_slice()]);
    // Each command that was refused, each message (a client may have any number refused; LMTP tells each recipient), and
    // the last word.
    let refused = reply_lines(&whole.replies).filter(|line| line.starts_with('5')).count();
    let replies = if settings.dialect == Dialect::Lmtp { settings.recipients_max } else { 1 };
    let commands = refused.saturating_sub(whole.refused_messages as usize * replies + 1);
    assert!(commands <= settings.errors_max as usize, "{commands} commands were refused");
    assert_eq!(Client::play(settings, spool, octets.chunks(1)), whole, "octet by octet");
    assert_eq!(Client::play(settings, spool, cut(&octets, seed)), whole, "cut");
});
