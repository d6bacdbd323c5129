//! Any octets of a client, in any pieces: the same replies, the same messages, the same end.
//!
//! The first octet chooses how the session is set, the second how the rest is cut (see [`Choice`] and [`cut`]).

#![no_main]

use std::array;
use std::sync::{Arc, LazyLock};

use ingress_fuzz::{Client, Spool, cut, reply_lines};
use ingress_tests::dialogue::settings;
use ingress_user::smtp::Settings;
use libfuzzer_sys::fuzz_target;

/// What a client says that comes to the point. Chance alone rarely gets there.
const TRANSACTION: &[u8] =
    b"EHLO client.example.org\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n";

/// Bits of the first octet. The others are free, so that seeds can be typed.
struct Choice;

impl Choice {
    const TINY_LIMITS: usize = 1;
    const NO_STARTTLS: usize = 2;
    const MANY_ERRORS: usize = 4;
    /// Where the choices that settings express end.
    const SETTINGS: usize = 8;
    const BUSY_SPOOL: u8 = 8;
    const IN_TRANSACTION: u8 = 16;
}

static SETTINGS: LazyLock<[Arc<Settings>; Choice::SETTINGS]> =
    LazyLock::new(|| array::from_fn(|choice| Arc::new(chosen(choice))));

/// Tiny limits are within reach of a short input.
fn chosen(choice: usize) -> Settings {
    let mut settings = settings();
    if choice & Choice::TINY_LIMITS != 0 {
        settings.command_line_bytes_max = 40;
        settings.message_bytes_max = 60;
        settings.text_line_bytes_max = 20;
    }
    if choice & Choice::MANY_ERRORS != 0 {
        settings.errors_max = 1000;
    }
    settings.starttls = choice & Choice::NO_STARTTLS == 0;
    settings
}

fuzz_target!(|input: &[u8]| {
    let [choice, seed, client @ ..] = input else { return };
    let settings = &SETTINGS[usize::from(*choice) % Choice::SETTINGS];
    let spool = if choice & Choice::BUSY_SPOOL == 0 { Spool::TakesAll } else { Spool::TakesHalf };
    let start = if choice & Choice::IN_TRANSACTION == 0 { &[] } else { TRANSACTION };
    let octets = [start, client].concat();

    let whole = Client::play(settings, spool, [octets.as_slice()]);
    // 5yz ends a command, a message or the connection, and commands end so at most `errors_max` times. No more can be said
    // from outside: a client may have any number of messages refused.
    reply_lines(&whole.replies).for_each(drop);
    assert_eq!(Client::play(settings, spool, octets.chunks(1)), whole, "octet by octet");
    assert_eq!(Client::play(settings, spool, cut(&octets, *seed)), whole, "cut");
});
