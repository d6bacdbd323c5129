//! Any octets of a client, in any pieces: the same replies, the same messages, the same end.
//!
//! The first octet chooses how the session is set, the second how the rest is cut (see `choice` and [`cut`]).

#![no_main]

use std::array;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ingress_fuzz::{Client, Spool, cut, reply_lines};
use ingress_tests::dialogue::settings;
use ingress_user::policy::Networks;
use ingress_user::smtp::Settings;
use ingress_user::smtp::session::Tls;
use ipnet::{IpNet, Ipv4Net};
use libfuzzer_sys::fuzz_target;

/// What a client says that comes to the point. Chance alone rarely gets there.
const TRANSACTION: &[u8] =
    b"EHLO client.example.org\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n";

/// Bits of the first octet. Those of 64 and above mean nothing, so that seeds can begin with a letter.
mod choice {
    pub(super) const TINY_LIMITS: u8 = 1;
    pub(super) const NO_STARTTLS: u8 = 2;
    pub(super) const MANY_ERRORS: u8 = 4;
    pub(super) const BUSY_SPOOL: u8 = 8;
    pub(super) const IN_TRANSACTION: u8 = 16;
    /// Its bare line ends are let through, and it may name another client.
    pub(super) const TRUSTED: u8 = 32;
}

/// For each choice; those that are no matter of settings are among them.
static SETTINGS: LazyLock<[Arc<Settings>; 64]> =
    LazyLock::new(|| array::from_fn(|choice| Arc::new(chosen(choice as u8))));

/// Tiny limits are within reach of a short input.
fn chosen(choice: u8) -> Settings {
    let mut settings = settings();
    if choice & choice::TINY_LIMITS != 0 {
        settings.command_line_bytes_max = 40;
        settings.message_bytes_max = 60;
        settings.text_line_bytes_max = 20;
    }
    if choice & choice::MANY_ERRORS != 0 {
        settings.errors_max = 1000;
    }
    if choice & choice::NO_STARTTLS != 0 {
        settings.tls = Tls::Off;
    }
    if choice & choice::TRUSTED != 0 {
        let everybody: Networks = [IpNet::V4(Ipv4Net::default())].into_iter().collect();
        settings.networks.normalize = everybody.clone();
        settings.networks.xclient = everybody;
    }
    settings.messages_max = 1000;
    // Nobody lets time pass.
    settings.error_delay = Duration::ZERO;
    settings
}

fuzz_target!(|input: &[u8]| {
    let [choice, seed, client @ ..] = input else { return };
    let settings = &SETTINGS[usize::from(*choice) % SETTINGS.len()];
    let spool = if choice & choice::BUSY_SPOOL == 0 { Spool::TakesAll } else { Spool::TakesHalf };
    let start = if choice & choice::IN_TRANSACTION == 0 { &[] } else { TRANSACTION };
    let octets = [start, client].concat();

    let whole = Client::play(settings, spool, [octets.as_slice()]);
    // Each command that was refused, each message (a client may have any number refused), and the last word.
    let refused = reply_lines(&whole.replies).filter(|line| line.starts_with('5')).count();
    let commands = refused.saturating_sub(whole.refused_messages as usize + 1);
    assert!(commands <= settings.errors_max as usize, "{commands} commands were refused");
    assert_eq!(Client::play(settings, spool, octets.chunks(1)), whole, "octet by octet");
    assert_eq!(Client::play(settings, spool, cut(&octets, *seed)), whole, "cut");
});
