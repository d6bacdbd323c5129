//! Dialogues of the SMTP core.

use std::time::Duration;

use ingress_tests::dialogue::{Script, Transcript, settings};
use ingress_user::policy::RecipientDomains;
use ingress_user::smtp::Settings;
use ingress_user::smtp::envelope::{BodyType, Protocol};
use ingress_user::smtp::reply::LocalFault;
use ingress_user::spool::QueueId;

const ID: Result<QueueId, LocalFault> = Ok(QueueId(32));

#[test]
fn a_message_is_taken() {
    Script::new()
        .expect("220 mx.example.net ESMTP")
        .client("EHLO client.example.org\r\n")
        .expect("250-mx.example.net\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250-STARTTLS\r\n250-LIMITS MAILMAX=10 RCPTMAX=3\r\n250 ENHANCEDSTATUSCODES\r\n")
        .client("MAIL FROM:<sender@example.org> SIZE=500 BODY=8BITMIME\r\n")
        .expect("250 2.1.0")
        .client("RCPT TO:<one@example.net>\r\n")
        .expect("250 2.1.5")
        .client("RCPT TO:<two@Example.Net>\r\n")
        .expect("250 2.1.5")
        .client("DATA\r\n")
        .expect("354 ")
        .client("Subject: x\r\n\r\ntext\r\n..dot\r\n.\r\n")
        .expect_nothing()
        .expect_message("Subject: x\r\n\r\ntext\r\n..dot\r\n.\r\n", |envelope| {
            assert_eq!(envelope.reverse_path(), "sender@example.org");
            let recipients: Vec<_> = envelope.recipients().map(|r| r.path).collect();
            assert_eq!(recipients, ["one@example.net", "two@Example.Net"]);
            assert_eq!(envelope.helo(), "client.example.org");
            assert_eq!(envelope.body, BodyType::EightBitMime);
            assert_eq!(envelope.protocol, Protocol::Esmtp);
        })
        .commit(ID)
        .expect("250 2.0.0 Ok: queued as 0000000000010\r\n")
        .client("QUIT\r\n")
        .expect("221 2.0.0")
        .expect_close()
        .play();
}

#[test]
fn no_250_before_the_spool_has_answered() {
    Script::new()
        .hello()
        .transaction()
        .client("a\r\n.\r\nNOOP\r\n")
        .pass(Duration::from_secs(299))
        .expect_nothing()
        .expect_message("a\r\n.\r\n", |_| {})
        .commit(ID)
        .expect("250 2.0.0 Ok: queued")
        .expect("250 2.0.0 Ok\r\n")
        .play();
}

#[test]
fn a_pipelined_transaction_is_answered_in_order() {
    Script::new()
        .hello()
        .client(
            "MAIL FROM:<>\r\nRCPT TO:<a@example.net>\r\nRCPT TO:<a@elsewhere.example>\r\nDATA\r\n",
        )
        .expect("250 2.1.0")
        .expect("250 2.1.5")
        .expect("550 5.7.1")
        .expect("354")
        .client("x\r\n.\r\nMAIL FROM:<b@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
        .expect_message("x\r\n.\r\n", |envelope| assert_eq!(envelope.reverse_path(), ""))
        .commit(ID)
        .expect("250 2.0.0")
        .expect("250 2.1.0")
        .expect("250 2.1.5")
        .expect("354")
        .client("y\r\n.\r\n")
        .expect_message("y\r\n.\r\n", |envelope| {
            assert_eq!(envelope.reverse_path(), "b@example.org")
        })
        .commit(ID)
        .expect("250 2.0.0")
        .play();
}

#[test]
fn helo_makes_plain_smtp() {
    Script::new()
        .expect("220")
        .client("HELO client.example.org\r\n")
        .expect("250 mx.example.net\r\n")
        .transaction()
        .client(".\r\n")
        .expect_message(".\r\n", |envelope| assert_eq!(envelope.protocol, Protocol::Smtp))
        .commit(ID)
        .expect("250")
        .play();
}

#[test]
fn commands_out_of_sequence_are_refused() {
    Script::new()
        .expect("220")
        .client("MAIL FROM:<a@example.org>\r\n")
        .expect("503 5.5.1 Send EHLO")
        .client("EHLO x\r\n")
        .expect("250")
        .client("RCPT TO:<a@example.net>\r\n")
        .expect("503 5.5.1 Need MAIL")
        .client("DATA\r\n")
        .expect("503 5.5.1 Need MAIL")
        .client("MAIL FROM:<a@example.org>\r\n")
        .expect("250")
        .client("MAIL FROM:<b@example.org>\r\n")
        .expect("503 5.5.1 Sender already")
        .client("RSET\r\n")
        .expect("250")
        .client("MAIL FROM:<b@example.org>\r\n")
        .expect("250")
        .play();
}

#[test]
fn data_without_a_valid_recipient_is_refused() {
    Script::new()
        .hello()
        .client("MAIL FROM:<a@example.org>\r\nRCPT TO:<x@elsewhere.example>\r\nDATA\r\n")
        .expect("250")
        .expect("550 5.7.1")
        .expect("503 5.5.1 No valid recipients")
        .play();
}

#[test]
fn ehlo_and_rset_clear_the_transaction() {
    for clear in ["EHLO again\r\n", "RSET\r\n"] {
        Script::new()
            .hello()
            .client("MAIL FROM:<a@example.org>\r\nRCPT TO:<a@example.net>\r\n")
            .expect("250")
            .expect("250")
            .client(clear)
            .expect("250")
            .client("DATA\r\n")
            .expect("503")
            .play();
    }
}

#[test]
fn relaying_is_refused() {
    Script::new()
        .hello()
        .client("MAIL FROM:<a@example.net>\r\n")
        .expect("250")
        .client("RCPT TO:<b@example.org>\r\n")
        .expect("550 5.7.1")
        .client("RCPT TO:<b@[192.0.2.7]>\r\n")
        .expect("550 5.7.1")
        .client("RCPT TO:<@example.net:b@example.org>\r\n")
        .expect("550 5.7.1")
        .client("RCPT TO:<postmaster>\r\n")
        .expect("250 2.1.5")
        .play();
}

#[test]
fn the_small_commands_answer() {
    Script::new()
        .hello()
        .client("NOOP\r\nVRFY user\r\nHELP\r\nEXPN list\r\nWHAT\r\n")
        .expect("250 2.0.0")
        .expect("252 2.5.2")
        .expect("214 2.0.0")
        .expect("502 5.5.1")
        .expect("500 5.5.1")
        .play();
}

#[test]
fn limits_are_told() {
    let long = format!("NOOP {}\r\n", "x".repeat(600));
    Script::new()
        .hello()
        .client(&long)
        .expect("500 5.5.6")
        .client("MAIL FROM:<a@example.org> SIZE=1001\r\n")
        .expect("552 5.3.4")
        .client("MAIL FROM:<a@example.org>\r\n")
        .expect("250")
        .client("RCPT TO:<1@example.net>\r\nRCPT TO:<2@example.net>\r\nRCPT TO:<3@example.net>\r\nRCPT TO:<4@example.net>\r\n")
        .expect("250")
        .expect("250")
        .expect("250")
        .expect("452 4.5.3")
        .client("DATA\r\n")
        .expect("354")
        .client("x".repeat(499))
        .client("\r\n.\r\n")
        .expect("554 5.6.0 Line too long")
        .client("NOOP\r\n")
        .expect("250")
        .play();
}

#[test]
fn a_message_over_the_limit_is_read_to_its_end_and_refused() {
    let line = format!("{}\r\n", "x".repeat(98));
    Script::new()
        .hello()
        .transaction()
        .client(line.repeat(11))
        .expect_nothing()
        .client(".\r\n")
        .expect("552 5.3.4")
        .client("MAIL FROM:<a@example.org>\r\n")
        .expect("250")
        .play();
}

#[test]
fn a_line_of_exactly_the_limit_is_taken() {
    let exact = format!("NOOP {}\r\n", "x".repeat(512 - 7));
    let over = format!("NOOP {}\r\n", "x".repeat(512 - 6));
    Script::new().hello().client(exact).expect("250").client(over).expect("500 5.5.6").play();
}

#[test]
fn too_many_errors_end_the_session() {
    Script::new()
        .hello()
        .client("A\r\nB\r\nC\r\nD\r\n")
        .expect("500")
        .expect("500")
        .expect("500")
        .expect("500")
        .client("E\r\nNOOP\r\n")
        .expect("500")
        .expect("421 4.7.0")
        .expect_close()
        .play();
}

#[test]
fn a_bare_line_end_in_a_command_ends_the_session() {
    for line in [
        "NOOP\n",
        "NOOP\rx",
        "NOOP\r\r\n",
        "MAIL FROM:<a@example.org>\nRCPT TO:<a@example.net>\r\n",
    ] {
        Script::new().hello().client(line).expect("554 5.5.2").expect_close().play();
    }
}

#[test]
fn bare_lf_before_dot_is_not_end_of_data() {
    for smuggled in ["\n.\r\n", "\n.\n", "\r\n.\n", "\r.\r\n", "\r\n.\r\r\n"] {
        Script::new()
            .hello()
            .transaction()
            .client("a")
            .client(smuggled)
            .client("MAIL FROM:<admin@example.net>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\n")
            .expect_nothing()
            .client("evil\r\n.\r\n")
            .expect("554 5.5.2 Bare")
            .expect_close()
            .play();
    }
}

#[test]
fn starttls_forgets_everything_from_before() {
    Script::new()
        .hello()
        .client("MAIL FROM:<a@example.org>\r\n")
        .expect("250")
        .client("STARTTLS\r\n")
        .expect("220 2.0.0")
        .expect_starttls()
        .tls_established()
        .expect_nothing()
        .client("MAIL FROM:<a@example.org>\r\n")
        .expect("503 5.5.1 Send EHLO")
        .client("EHLO client.example.org\r\n")
        .expect("250-mx.example.net\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250-REQUIRETLS\r\n250-LIMITS MAILMAX=10 RCPTMAX=3\r\n250 ENH")
        .client("STARTTLS\r\n")
        .expect("503 5.5.1 TLS already active")
        .transaction()
        .client(".\r\n")
        .expect_message(".\r\n", |envelope| assert_eq!(envelope.protocol, Protocol::Esmtps))
        .commit(ID)
        .expect("250")
        .play();
}

#[test]
fn starttls_where_it_is_off_is_refused() {
    Script::with(Settings { tls: ingress_user::smtp::session::Tls::Off, ..settings() })
        .hello()
        .client("STARTTLS\r\n")
        .expect("502 5.5.1")
        .play();
}

#[test]
fn implicit_tls_greets_after_the_handshake() {
    Script::tls_first()
        .expect_nothing()
        .tls_established()
        .expect("220 mx.example.net")
        .client("EHLO x\r\n")
        .expect("250")
        .play();
}

#[test]
fn silence_is_answered_with_421() {
    Script::new()
        .hello()
        .pass(Duration::from_secs(299))
        .expect_nothing()
        .client("NO")
        .pass(Duration::from_secs(299))
        .expect_nothing()
        .pass(Duration::from_secs(1))
        .expect("421 4.4.2")
        .expect_close()
        .play();
}

#[test]
fn silence_within_a_message_is_answered_with_421() {
    Script::new()
        .hello()
        .transaction()
        .client("half a line")
        .pass(Duration::from_secs(301))
        .expect("421 4.4.2")
        .expect_close()
        .play();
}

#[test]
fn a_handshake_that_never_comes_is_cut_without_a_word() {
    Script::tls_first().pass(Duration::from_secs(61)).expect_nothing().expect_close().play();
}

#[test]
fn a_silent_spool_is_told_as_451_and_the_session_goes_on() {
    Script::new()
        .hello()
        .transaction()
        .client(".\r\n")
        .pass(Duration::from_secs(300))
        .expect_message(".\r\n", |_| {})
        .expect("451 4.3.0")
        .client("NOOP\r\n")
        .expect("250")
        .play();
}

#[test]
fn a_late_answer_of_the_spool_is_not_taken_for_the_next_message() {
    Script::new()
        .hello()
        .transaction()
        .client("one\r\n.\r\n")
        .expect_message("one\r\n.\r\n", |_| {})
        .submitted(QueueId(1))
        .pass(Duration::from_secs(300))
        .expect("451 4.3.0")
        .transaction()
        .client("two\r\n.\r\n")
        .expect_message("two\r\n.\r\n", |_| {})
        .late_commit(QueueId(1))
        .submitted(QueueId(2))
        .late_commit(QueueId(1))
        .expect_nothing()
        .late_commit(QueueId(2))
        .expect("250 2.0.0")
        .play();
}

#[test]
fn faults_of_the_spool_are_temporary() {
    for (fault, reply) in [
        (LocalFault::SpoolFull, "452 4.3.1"),
        (LocalFault::SpoolPoisoned, "451 4.3.0"),
        (LocalFault::SpoolBusy, "451 4.3.2"),
        (LocalFault::NoBuffers, "452 4.3.1"),
    ] {
        Script::new()
            .hello()
            .transaction()
            .client(".\r\n")
            .expect_message(".\r\n", |_| {})
            .commit(Err(fault))
            .expect(reply)
            .transaction()
            .play();
    }
}

#[test]
fn any_domain_is_taken_where_all_are_ours() {
    Script::with(Settings { domains: RecipientDomains::Any, ..settings() })
        .hello()
        .client("MAIL FROM:<>\r\nRCPT TO:<a@anything.example>\r\n")
        .expect("250")
        .expect("250 2.1.5")
        .play();
}

#[test]
fn a_message_comes_in_chunks() {
    Script::new()
        .hello()
        .client("MAIL FROM:<a@example.org> BODY=BINARYMIME\r\nRCPT TO:<a@example.net>\r\n")
        .expect("250")
        .expect("250")
        .client("BDAT 10\r\nno\r\n.\r\nendBDAT 5\r\nmore\nBDAT 2 LAST\r\n\r\nNOOP\r\n")
        .expect("250 2.0.0 10 octets")
        .expect("250 2.0.0 5 octets")
        .expect_chunked("no\r\n.\r\nendmore\n\r\n", |envelope| {
            assert_eq!(envelope.body, BodyType::BinaryMime);
        })
        .commit(ID)
        .expect("250 2.0.0 Ok: queued")
        .expect("250 2.0.0 Ok\r\n")
        .play();
}

#[test]
fn the_last_chunk_may_be_empty_or_the_only_one() {
    Script::new()
        .hello()
        .client("MAIL FROM:<a@example.org>\r\nRCPT TO:<a@example.net>\r\nBDAT 3\r\na\r\nBDAT 0 LAST\r\n")
        .expect("250")
        .expect("250")
        .expect("250 2.0.0 3 octets")
        .expect_chunked("a\r\n", |_| {})
        .commit(ID)
        .expect("250 2.0.0")
        .client("MAIL FROM:<a@example.org>\r\nRCPT TO:<a@example.net>\r\nBDAT 3 LAST\r\nb\r\n")
        .expect("250")
        .expect("250")
        .expect_chunked("b\r\n", |_| {})
        .commit(ID)
        .expect("250 2.0.0")
        .play();
}

#[test]
fn a_refused_chunk_is_never_read_as_commands() {
    Script::new()
        .hello()
        .client("BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
        .expect("503 5.5.1 Need MAIL")
        .expect("250")
        .client(
            "MAIL FROM:<a@example.org>\r\nRCPT TO:<a@elsewhere.example>\r\nBDAT 6 LAST\r\nQUIT\r\n",
        )
        .expect("250")
        .expect("550")
        .expect("503 5.5.1 No valid recipients")
        .play();
}

#[test]
fn after_a_failed_chunk_all_others_are_refused_until_rset() {
    let chunk = format!("BDAT 600\r\n{}", "x".repeat(600));
    Script::new()
        .hello()
        .client("MAIL FROM:<a@example.org>\r\nRCPT TO:<a@example.net>\r\n")
        .expect("250")
        .expect("250")
        .client(&chunk)
        .expect("250 2.0.0 600")
        .client(&chunk)
        .expect("552 5.3.4")
        .client("BDAT 6 LAST\r\nQUIT\r\n")
        .expect("503 5.5.1 A chunk")
        .client(
            "RSET\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<a@example.net>\r\nBDAT 3 LAST\r\na\r\n",
        )
        .expect("250")
        .expect("250")
        .expect("250")
        .expect_chunked("a\r\n", |_| {})
        .commit(ID)
        .expect("250")
        .play();
}

#[test]
fn what_ends_a_transaction_drops_its_chunks() {
    for end in ["RSET\r\n", "EHLO again\r\n", "HELO again\r\n"] {
        Script::new()
            .hello()
            .client("MAIL FROM:<a@example.org>\r\nRCPT TO:<a@example.net>\r\nBDAT 5\r\nfirst")
            .expect("250")
            .expect("250")
            .expect("250")
            .client(end)
            .expect("250")
            .client("MAIL FROM:<a@example.org>\r\nRCPT TO:<a@example.net>\r\nBDAT 6 LAST\r\nsecond")
            .expect("250")
            .expect("250")
            .expect_chunked("second", |_| {})
            .commit(ID)
            .expect("250")
            .play();
    }
}

#[test]
fn data_and_bdat_do_not_mix() {
    Script::new()
        .hello()
        .client("MAIL FROM:<a@example.org>\r\nRCPT TO:<a@example.net>\r\nBDAT 1\r\nxDATA\r\nRCPT TO:<b@example.net>\r\n")
        .expect("250")
        .expect("250")
        .expect("250")
        .expect("503 5.5.1 Message already begun")
        .expect("503 5.5.1 Message already begun")
        .client("RSET\r\nMAIL FROM:<a@example.org> BODY=BINARYMIME\r\nRCPT TO:<a@example.net>\r\nDATA\r\n")
        .expect("250")
        .expect("250")
        .expect("250")
        .expect("503 5.5.1 BODY=BINARYMIME takes BDAT")
        .play();
}

#[test]
fn a_chunk_of_unknown_size_ends_the_session() {
    for line in ["BDAT\r\n", "BDAT x LAST\r\n", "BDAT 18446744073709551616\r\n"] {
        Script::new().hello().client(line).expect("554 5.5.4").expect_close().play();
    }
}

/// RFC 3207 section 4.2, and the NO STARTTLS attacks: fed whole only, since what comes later is TLS by definition.
#[test]
fn what_is_pipelined_behind_starttls_is_never_a_command() {
    use ingress_user::smtp::{Action, Session};
    use ingress_user::worker::clock::Now;
    let now = Now::read().monotonic;
    let mut out = Vec::new();
    let mut session =
        Session::new(std::sync::Arc::new(settings()), "192.0.2.1".parse().unwrap(), now);
    let _ = session.open(now, &mut out);
    out.clear();
    let input = b"STARTTLS\r\nMAIL FROM:<injected@example.org>\r\n";
    let step = session.handle_input(input, now, &mut out);
    assert_eq!(step.action, Action::Close);
    assert!(out.starts_with(b"554 5.5.1"), "{}", out.escape_ascii());
    assert!(!session.wants_input());
}

/// Words of a client that has lost its way. STARTTLS is not among them: whether octets came with it is what it asks.
const WORDS: [&[u8]; 20] = [
    b"EHLO x\r\n",
    b"HELO x\r\n",
    b"MAIL FROM:<a@example.org>\r\n",
    b"MAIL FROM:<> BODY=BINARYMIME\r\n",
    b"RCPT TO:<a@example.net>\r\n",
    b"DATA\r\n",
    b"BDAT 5\r\n",
    b"BDAT 4 LAST\r\n",
    b"BDAT 0 LAST\r\n",
    b"BDAT x\r\n",
    b"RSET\r\n",
    b"QUIT\r\n",
    b"text",
    b".\r\n",
    b"..\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    b"\0\xff",
    &[b'x'; 600],
];

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(2000))]

    /// Whatever comes, and however it is cut: the same replies, the same messages, the same end.
    #[test]
    fn splits_change_nothing(
        begun in proptest::bool::ANY,
        words in proptest::collection::vec(0..WORDS.len(), 0..40),
        cuts in proptest::collection::vec(0usize..2000, 0..12),
    ) {
        let settings = || Settings { errors_max: 1000, ..settings() };
        // Half of the sessions are in a transaction already: chance alone rarely gets there.
        let start: &[usize] = if begun { &[0, 2, 4] } else { &[] };
        let input = start.iter().chain(&words).map(|&word| WORDS[word]).collect::<Vec<_>>().concat();
        let whole = Transcript::of(settings(), [input.as_slice()]);
        proptest::prop_assert_eq!(&Transcript::of(settings(), input.chunks(1)), &whole);
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]);
        proptest::prop_assert_eq!(&Transcript::of(settings(), pieces), &whole);
    }
}
