//! The protocol core alone: no sockets, no spool.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use ingress_user::smtp::data::{DataLimits, DataScanner};
use ingress_user::smtp::{Action, Session, Settings};
use ingress_user::spool::QueueId;
use ingress_user::worker::clock::Now;

use crate::statistics::Spread;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Rounds of each measurement
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Messages of a round
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
}

/// Octets of the body that is scanned: a receive buffer full.
const BODY_BYTES: usize = 64 * 1024;

#[expect(clippy::print_stdout, reason = "the figures are the output")]
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0 && options.messages > 0, "nothing to measure");
    let rounds = 0..options.rounds;
    let message =
        rounds.clone().map(|_| transactions(options.messages)).collect::<Result<Vec<_>>>()?;
    println!("MAIL, RCPT, DATA and 1 KiB in the core: {:.2} us/message", Spread::of(message));
    for (name, line) in [("lines of 78 octets", 78), ("one line", BODY_BYTES)] {
        let rate = Spread::of(rounds.clone().map(|_| scan(line, options.messages / 10)));
        println!("scan for the end of a message, {name}: {rate:.1} GB/s");
    }
    Ok(())
}

/// Microseconds for a transaction on a session that stays open, each client turn as one receive.
fn transactions(messages: u64) -> Result<f64> {
    let now = Now::read().monotonic;
    let mut session = Session::new(Arc::new(settings()), [192, 0, 2, 1].into(), now);
    let mut replies = Vec::new();
    ensure!(session.open(now, &mut replies) == Action::Continue, "the session does not greet");
    feed(&mut session, b"EHLO client.example.org\r\n", now, &mut replies);
    let body = [b"x".repeat(76).as_slice(), b"\r\n"].concat().repeat(13);
    let body = [body.as_slice(), b".\r\n"].concat();
    let start = Now::read().monotonic;
    for number in 1..=messages {
        replies.clear();
        feed(&mut session, b"MAIL FROM:<sender@example.org>\r\n", now, &mut replies);
        feed(&mut session, b"RCPT TO:<user@example.net>\r\n", now, &mut replies);
        feed(&mut session, b"DATA\r\n", now, &mut replies);
        let complete = feed(&mut session, &body, now, &mut replies);
        ensure!(complete, "the session did not take message {number}");
        let id = QueueId(number);
        session.message_submitted(id);
        session.handle_commit(id, Ok(()), now, &mut replies);
        black_box(&replies);
    }
    Ok(micros_since(start) / messages as f64)
}

/// Whether the input completed a message.
fn feed(session: &mut Session, mut input: &[u8], now: Instant, replies: &mut Vec<u8>) -> bool {
    while let (false, true) = (input.is_empty(), session.wants_input()) {
        let step = session.handle_input(input, now, replies);
        input = input.get(step.consumed..).unwrap_or_default();
        if let Action::Commit { envelope, .. } = step.action {
            session.recycle(envelope);
            return true;
        }
    }
    false
}

/// Gigabytes a second over a body with lines of `line` octets.
fn scan(line: usize, bodies: u64) -> f64 {
    let mut body = vec![b'x'; BODY_BYTES];
    for end in (line..=BODY_BYTES).step_by(line) {
        if let Some(crlf) = body.get_mut(end - 2..end) {
            crlf.copy_from_slice(b"\r\n");
        }
    }
    let limits =
        DataLimits { message_bytes_max: u64::MAX, line_bytes_max: u64::MAX, sloppy: false };
    let mut scanner = DataScanner::new(limits);
    let start = Now::read().monotonic;
    for _ in 0..bodies {
        black_box(scanner.scan(black_box(&body)));
    }
    (bodies * BODY_BYTES as u64) as f64 / micros_since(start) / 1000.0
}

fn micros_since(start: Instant) -> f64 {
    Now::read().monotonic.duration_since(start).as_secs_f64() * 1_000_000.0
}

/// The dialogues' settings, with the daemon's default limits where the load would meet theirs.
fn settings() -> Settings {
    Settings {
        message_bytes_max: 50 << 20,
        text_line_bytes_max: 1 << 20,
        messages_max: u32::MAX,
        ..ingress_tests::dialogue::settings()
    }
}
