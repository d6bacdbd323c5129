//! Properties of the SMTP core that hold for any input.

use std::time::Duration;

use ingress_tests::dialogue::{Transcript, set, settings};
use ingress_user::smtp::Settings;
use ingress_user::smtp::dialect::Dialect;
use proptest::strategy::Strategy;
use proptest::test_runner::TestCaseError;

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

/// Words that the extensions are about. A client in no network of ours may say them all and go on.
const EXTENDED_WORDS: [&[u8]; 31] = [
    b"EHLO x\r\n",
    b"LHLO x\r\n",
    b"HELO x\r\n",
    b"MAIL FROM:<a@example.org>\r\n",
    b"MAIL FROM:<> BODY=BINARYMIME\r\n",
    "MAIL FROM:<jürgen@bücher.example> SMTPUTF8 RET=HDRS ENVID=a+2Bb\r\n".as_bytes(),
    "MAIL FROM:<jürgen@example.org>\r\n".as_bytes(),
    b"MAIL FROM:<a@example.org> REQUIRETLS\r\n",
    b"MAIL FROM:<a@example.org> RET=ALL\r\n",
    b"RCPT TO:<a@example.net>\r\n",
    b"RCPT TO:<a@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@b\r\n",
    "RCPT TO:<\"jürgen m\"@bücher.example> ORCPT=utf-8;ü\r\n".as_bytes(),
    b"RCPT TO:<a%b@example.net> NOTIFY=NEVER\r\n",
    b"XCLIENT ADDR=198.51.100.7 HELO=y\r\n",
    b"XCLIENT ADDR=192.0.2.1 NAME=[UNAVAILABLE] PROTO=SMTP HELO=y\r\n",
    b"XCLIENT NAME=a+0Ab\r\n",
    b"DATA\r\n",
    b"BDAT 5\r\na\0b\r\n",
    b"BDAT 3 LAST\r\na\r\n",
    b"BDAT 4\r\na\nb\r",
    b"BDAT 1 LAST\r\n\n",
    b"BDAT 0 LAST\r\n",
    b"BDAT 9\r\n",
    b"RSET\r\n",
    b"NOOP \xc3\r\n",
    "NOOP \u{85}\r\n".as_bytes(),
    "üü".as_bytes(),
    b".\r\n",
    b"..\r\n",
    b"\r\n",
    &[b'x'; 600],
];

/// Words that only those may say whose bare line ends and NULs are let through.
const SLOPPY_WORDS: [&[u8]; 14] = [
    b"EHLO x\n",
    b"LHLO x\n",
    b"MAIL FROM:<a@example.org>\n",
    b"RCPT TO:<b@example.net>\n",
    b"DATA\n",
    b"BDAT 4 LAST\na\nb\r",
    b"RSET\n",
    b"NOOP \0\r\n",
    b"NOOP \0\n",
    b"a\0b",
    b".\n",
    b"\n",
    b"\r",
    b"\0",
];

/// Nothing waits, everything is on offer, and the client may name others: in 198.51.100.0/24, none of whom is let through.
fn extended_settings(dialect: Dialect, is_sloppy: bool) -> Settings {
    let mut extended = Settings {
        dialect,
        greet_delay: Duration::ZERO,
        error_delay: Duration::ZERO,
        errors_max: 1000,
        messages_max: 1000,
        ..settings()
    };
    set(&mut extended, "xclient", "192.0.2.0/24").expect("a setting of dialogues");
    if is_sloppy {
        set(&mut extended, "normalize", "192.0.2.0/24").expect("a setting of dialogues");
    }
    extended
}

/// Plays `input` whole, octet by octet, with each CR the first of a piece, and cut at `cuts`.
fn assert_splits_change_nothing(
    settings: impl Fn() -> Settings,
    input: &[u8],
    cuts: Vec<usize>,
) -> Result<(), TestCaseError> {
    let whole = Transcript::of(settings(), [input]);
    proptest::prop_assert_eq!(&Transcript::of(settings(), input.chunks(1)), &whole);
    let each_cr = (0..).zip(input).filter(|(_, octet)| **octet == b'\r').map(|(at, _)| at);
    for mut cuts in [each_cr.collect(), cuts] {
        cuts.iter_mut().for_each(|cut| *cut = (*cut).min(input.len()));
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]);
        proptest::prop_assert_eq!(&Transcript::of(settings(), pieces), &whole);
    }
    Ok(())
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(2000))]

    /// The same for what clients say under extensions, and for those whose bare line ends and NULs are let through.
    #[test]
    fn splits_change_nothing_for_extensions_and_sloppy_clients(
        is_lmtp in proptest::bool::ANY,
        is_sloppy in proptest::bool::ANY,
        begun in proptest::bool::ANY,
        words in proptest::collection::vec(0..EXTENDED_WORDS.len() + SLOPPY_WORDS.len(), 0..40),
        cuts in proptest::collection::vec(0usize..2000, 0..12),
    ) {
        let (dialect, hello) = if is_lmtp { (Dialect::Lmtp, 1) } else { (Dialect::Smtp, 0) };
        let start: &[usize] = if begun { &[hello, 5, 10, 11] } else { &[hello] };
        let said: Vec<&[u8]> = match is_sloppy {
            true => [&EXTENDED_WORDS[..], &SLOPPY_WORDS].concat(),
            false => EXTENDED_WORDS.to_vec(),
        };
        let words = start.iter().chain(&words).map(|&word| said[word % said.len()]);
        let input = words.collect::<Vec<_>>().concat();
        assert_splits_change_nothing(|| extended_settings(dialect, is_sloppy), &input, cuts)?;
    }

    /// Any octets at all, also within lines that begin well: no panic, nothing kept beyond the limit of a line, and the same
    /// outcome however they come.
    #[test]
    fn any_octets_are_survived_within_the_limits(
        pieces in proptest::collection::vec(
            proptest::prop_oneof![
                proptest::collection::vec(proptest::prelude::any::<u8>(), 0..700),
                (0..WORDS.len()).prop_map(|word| WORDS[word].to_vec()),
            ],
            0..12,
        ),
    ) {
        let settings = || Settings { errors_max: 1000, error_delay: Duration::ZERO, ..settings() };
        let input = pieces.concat();
        let whole = Transcript::of(settings(), [input.as_slice()]);
        let octets = Transcript::of(settings(), input.chunks(1));
        let as_generated = Transcript::of(settings(), pieces.iter().map(Vec::as_slice));
        for transcript in [&whole, &octets, &as_generated] {
            let limit = settings().command_line_bytes_max;
            proptest::prop_assert!(transcript.kept_octets_max <= limit);
            proptest::prop_assert_eq!(transcript, &whole);
        }
    }
}
