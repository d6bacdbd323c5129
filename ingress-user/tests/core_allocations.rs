//! The SMTP core allocates nothing for a message in the steady state. A test binary of its own, because the counter is the
//! global allocator.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ingress_user::policy::{ClientNetworks, RecipientDomains, TargetExtensions};
use ingress_user::smtp::dialect::Dialect;
use ingress_user::smtp::session::Tls;
use ingress_user::smtp::{Action, Session, Settings};
use ingress_user::spool::QueueId;
use ingress_user::worker::clock::Now;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// Enough for every part of a session to have its memory.
const WARM_UP_MESSAGES: u64 = 3;
const MESSAGES: u64 = 100;

const DATA_TRANSACTION: [&[u8]; 4] = [
    b"MAIL FROM:<sender@example.org> SIZE=1000 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ314159\r\n",
    b"RCPT TO:<user@example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;user@example.net\r\n",
    b"DATA\r\n",
    b"Subject: x\r\n\r\ntext\r\n..dot\r\n.\r\n",
];

/// Refused commands, the small ones, a message in chunks, and one that is refused at its end.
const MIXED: [&[u8]; 11] = [
    b"RSET\r\n",
    b"NOOP\r\n",
    b"FOO\r\n",
    b"MAIL FROM:<>\r\n",
    b"RCPT TO:<user@elsewhere.example>\r\n",
    b"RCPT TO:<user@example.net>\r\nRCPT TO:<postmaster>\r\n",
    b"BDAT 7\r\ntext a\n",
    b"RSET\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<user@example.net>\r\n",
    b"BDAT 6\r\ntext\r\n",
    b"BDAT 2 LAST\r\n\r\n",
    b"VRFY user\r\n",
];

/// Without libtest: its threads allocate too, and the counter is everybody's.
fn main() {
    a_message_costs_the_core_no_allocation();
}

fn a_message_costs_the_core_no_allocation() {
    let now = Now::read().monotonic;
    let mut driver = Driver::new(now);
    for round in 0..WARM_UP_MESSAGES {
        driver.run(round);
    }
    let region = Region::new(ALLOCATOR);
    for round in WARM_UP_MESSAGES..MESSAGES {
        driver.run(round);
    }
    let stats = region.change();
    assert_eq!((stats.allocations, stats.reallocations), (0, 0), "{stats:?}");
    assert_eq!(driver.messages, 2 * MESSAGES);
}

struct Driver {
    session: Session,
    now: Instant,
    replies: Vec<u8>,
    messages: u64,
}

impl Driver {
    fn new(now: Instant) -> Self {
        let client = [192, 0, 2, 1].into();
        let mut session = Session::new(Arc::new(settings()), client, now);
        let mut replies = Vec::new();
        assert_eq!(session.open(now, &mut replies), Action::Continue);
        let mut driver = Self { session, now, replies, messages: 0 };
        driver.feed(b"EHLO client.example.org\r\n");
        driver
    }

    /// Two messages, each client turn once whole and once cut in two.
    fn run(&mut self, round: u64) {
        for turn in DATA_TRANSACTION.into_iter().chain(MIXED) {
            let cut = if round.is_multiple_of(2) { 0 } else { turn.len() / 2 };
            let (front, back) = turn.split_at(cut);
            self.feed(front);
            self.feed(back);
        }
        self.replies.clear();
    }

    fn feed(&mut self, mut input: &[u8]) {
        while !input.is_empty() {
            let step = self.session.handle_input(input, self.now, &mut self.replies);
            input = &input[step.consumed..];
            match step.action {
                Action::Commit { envelope, .. } => {
                    self.messages += 1;
                    let id = QueueId(self.messages);
                    self.session.message_submitted(id);
                    self.session.recycle(envelope);
                    self.session.handle_commit(id, Ok(()), self.now, &mut self.replies);
                }
                Action::Continue => {}
                other => panic!("{other:?} after {}", self.replies.escape_ascii()),
            }
        }
    }
}

fn settings() -> Settings {
    Settings {
        hostname: "mx.example.net".into(),
        dialect: Dialect::Smtp,
        tls: Tls::StartTls,
        domains: RecipientDomains::listed(["example.net"]),
        networks: ClientNetworks::default(),
        target: TargetExtensions { smtputf8: true, binarymime: true, dsn: true, requiretls: true },
        idle_timeout: Duration::from_secs(300),
        tls_handshake_timeout: Duration::from_secs(60),
        commit_timeout: Duration::from_secs(300),
        proxy_header_timeout: Duration::from_secs(5),
        greet_delay: Duration::ZERO,
        command_line_bytes_max: 2048,
        message_bytes_max: 1 << 20,
        text_line_bytes_max: 1000,
        recipients_max: 100,
        messages_max: u32::MAX,
        errors_max: u32::MAX,
        errors_undelayed_max: u32::MAX,
        error_delay: Duration::ZERO,
    }
}
