//! Properties of the SMTP core that hold for any input.

use ingress_tests::dialogue::{Transcript, settings};
use ingress_user::smtp::Settings;

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
