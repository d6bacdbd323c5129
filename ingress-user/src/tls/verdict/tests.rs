use super::*;
use crate::tls::offer::parse;
use crate::tls::probe::hello::Hello;
use crate::worker::tls::{TlsContext, TlsStream};

const P256: &[KeyKind] = &[KeyKind::EcdsaP256];

/// Parses the octets, and checks name, retry in clear and a phrase of the sentence.
#[track_caller]
fn check(
    octets: &[u8],
    keys: &[KeyKind],
    (stage, ending): (Stage, Ending),
    (name, is_negotiation, phrase): (&str, bool, &str),
) {
    let verdict = verdict(&parse(octets), &Own::with_keys(keys), stage, ending);
    let text = verdict.explain(NextTry::InClear).to_string();
    assert_eq!(verdict.name(), name, "{text}");
    assert_eq!(verdict.is_negotiation(), is_negotiation, "{name}");
    assert!(text.contains(phrase), "{name}: {text}");
    assert!(!text.ends_with('.') && !text.contains('\n'), "not one sentence: {text}");
}

/// A hello that we refuse for what it offers. The TLS library with a P-256 certificate must refuse it as well.
#[track_caller]
fn refused(hello: &Hello, name: &str, phrase: &str) {
    let refusal = (Stage::HelloReceived, Ending::WeRefused);
    check(&hello.octets(), P256, refusal, (name, true, phrase));
    assert!(!library_answers(hello), "the TLS library takes it");
}

/// Whether the TLS library with a P-256 certificate answers this hello with more than an alert.
fn library_answers(hello: &Hello) -> bool {
    let state = tempfile::tempdir().unwrap();
    let credentials =
        crate::tls::load(&Default::default(), "mx.example.net", state.path()).unwrap();
    let context = TlsContext::new(credentials).unwrap();
    let mut stream = TlsStream::accept(&context.service().unwrap(), true);
    stream.advance(&mut hello.octets(), &mut Vec::new()).is_ok()
}

#[test]
fn what_we_can_is_what_the_tls_library_can() {
    let own = Own::with_keys(&KeyKind::ALL);
    let library = rustls_ring::DEFAULT_PROVIDER;
    let mut suites: Vec<u16> =
        library.tls13_cipher_suites.iter().map(|suite| suite.common.suite.into()).collect();
    suites.extend(library.tls12_cipher_suites.iter().map(|suite| u16::from(suite.common.suite)));
    suites.sort_unstable();
    let mut own_suites = own.suites;
    own_suites.sort_unstable();
    assert_eq!(own_suites, suites);
    let groups: Vec<u16> = library.kx_groups.iter().map(|group| group.name().into()).collect();
    assert_eq!(own.groups, groups);
}

#[test]
fn a_hello_that_fits_is_refused_by_nobody() {
    let hellos = [Hello::modern(), Hello::of_2012(&[0xc02b])];
    for hello in hellos {
        let offer = parse(&hello.octets()).unwrap();
        assert_eq!(refusal(&offer, &Own::with_keys(P256)), None);
        assert!(library_answers(&hello));
    }
}

#[test]
fn silence_and_a_close_before_the_hello_are_told_apart() {
    let silence = (Stage::Nothing, Ending::TimedOut);
    check(b"", P256, silence, ("no_hello", false, "said nothing until"));
    let closed = (Stage::Nothing, Ending::ClosedByClient);
    check(b"", P256, closed, ("closed_before_hello", false, "health check"));
}

#[test]
fn half_a_hello_points_to_the_path() {
    let octets = Hello::modern().octets();
    for ending in [Ending::TimedOut, Ending::ClosedByClient] {
        let expected = ("incomplete_hello", false, "the first 70 octets");
        check(&octets[..70], P256, (Stage::Nothing, ending), expected);
    }
    let refused = (Stage::Nothing, Ending::WeRefused);
    check(&octets[..70], P256, refused, ("malformed_hello", true, "first part alone"));
}

#[test]
fn what_is_not_tls_is_named_with_its_remedy() {
    let refused = (Stage::Nothing, Ending::WeRefused);
    let table: [(&[u8], bool, &str); 6] = [
        (b"EHLO a.example\r\n", true, "speaks SMTP in clear where TLS begins"),
        (b"\x00\x01nonsense", true, r#"speaks "\x00\x01nonsen" where"#),
        (b"GET / HTTP/1.1\r\n", false, "no mail client"),
        (b"SSH-2.0-x\r\n", false, "no mail client"),
        (b"PROXY TCP4 192.0.2.1 ", false, "add the balancer"),
        (b"\x00", true, "scanner"),
    ];
    for (octets, is_negotiation, phrase) in table {
        check(octets, P256, refused, ("not_tls", is_negotiation, phrase));
    }
    // Cut before we could refuse: no try in clear is to be had by that.
    for ending in [Ending::ClosedByClient, Ending::TimedOut] {
        let expected = ("not_tls", false, "SMTP in clear");
        check(b"EHLO a.example\r\n", P256, (Stage::Nothing, ending), expected);
    }
    let ssl2 = b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10";
    check(ssl2, P256, refused, ("ssl2_hello", true, "SSL 2.0"));
}

#[test]
fn a_hello_that_contradicts_itself_is_malformed() {
    let hello = Hello { compressions: vec![1], ..Hello::modern() };
    refused(&hello, "malformed_hello", "malformed (it does not allow to leave compression out)");
    let closed = (Stage::HelloReceived, Ending::ClosedByClient);
    check(&hello.octets(), P256, closed, ("closed_after_hello", false, "before our answer"));
    let silence = (Stage::HelloReceived, Ending::TimedOut);
    check(&hello.octets(), P256, silence, ("timed_out_after_hello", false, "overloaded"));
}

#[test]
fn an_old_client_learns_its_highest_version() {
    refused(&Hello::of_1999(), "old_versions_only", "at most TLS 1.0 and we require TLS 1.2");
    let hello = Hello { versions: Some(vec![0x0302, 0x0301]), ..Hello::modern() };
    refused(&hello, "old_versions_only", "at most TLS 1.1");
}

#[test]
fn a_client_of_drafts_is_not_called_old() {
    let hello = Hello { versions: Some(vec![0x7f1c]), ..Hello::modern() };
    refused(&hello, "no_common_version", "do not know (0x7f1c)");
}

#[test]
fn suites_that_do_not_fit_are_told_by_their_common_weakness() {
    let table: [(&[u16], &str, &str); 9] = [
        (&[0x002f, 0x009c, 0x00ff], "rsa_key_exchange_only", "no forward secrecy"),
        (&[0x002f, 0x0034, 0x00a6], "rsa_key_exchange_only", "no forward secrecy"),
        (&[0xc013, 0xc014, 0x0033, 0x002f], "cbc_only", "CBC"),
        (&[0xc00a], "cbc_only", "AES-GCM or ChaCha20 is switched on there"),
        (&[0x009e, 0x0033, 0x002f], "dhe_only", "Diffie-Hellman (DHE)"),
        (&[0xc0ac, 0xc013], "no_common_suite", "only TLS_ECDHE_ECDSA_WITH_AES_128_CCM, TLS_"),
        (&[0xc011, 0xc001, 1, 2, 3], "no_common_suite", "TLS_RSA_WITH_NULL_SHA and 1 more"),
        (&[0xc0ac, 0x00ff, 0x5600], "no_common_suite", "ECDSA_WITH_AES_128_CCM: its next try"),
        // Of TLS 1.3, which this client does not speak.
        (&[0x1301], "no_common_suite", "TLS_AES_128_GCM_SHA256"),
    ];
    for (suites, name, phrase) in table {
        refused(&Hello::of_2012(suites), name, phrase);
    }
}

#[test]
fn the_suites_of_tls_1_2_do_not_help_a_client_of_tls_1_3() {
    let hello = Hello { suites: vec![0x1304, 0xc02b], ..Hello::modern() };
    refused(&hello, "no_common_suite", "TLS_AES_128_CCM_SHA256");
}

#[test]
fn a_group_that_is_missing_is_named() {
    let hello = Hello { groups: vec![0x0019, 0x0100], key_shares: vec![0x0019], ..Hello::modern() };
    refused(&hello, "no_common_group", "only secp521r1, ffdhe2048");
    let hello = Hello { groups: Vec::new(), ..Hello::of_2012(&[0xc02b]) };
    refused(&hello, "no_common_group", "none at all");
}

#[test]
fn a_certificate_that_would_have_fitted_is_recommended() {
    let rsa_alone = Hello { schemes: Some(vec![0x0804, 0x0401]), ..Hello::modern() };
    refused(&rsa_alone, "no_common_scheme", "add an RSA certificate");
    // The scheme would fit, but not under this suite.
    let phrase = "only rsa_pss_rsae_sha256, rsa_pkcs1_sha256: add an RSA certificate";
    refused(&Hello::of_2012(&[0xc02f]), "no_common_scheme", phrase);
    let p384_alone = Hello { schemes: Some(vec![0x0503]), ..Hello::modern() };
    refused(&p384_alone, "no_common_scheme", "add an ECDSA P-384 certificate");

    let we_refused = (Stage::HelloReceived, Ending::WeRefused);
    let expected = ("no_common_scheme", true, "add an ECDSA P-256 certificate");
    check(&Hello::of_2012(&[0xc02b]).octets(), &[KeyKind::Rsa], we_refused, expected);
    let ed25519_alone = Hello { schemes: Some(vec![0x0807]), ..Hello::modern() };
    let expected = ("no_common_scheme", true, "add an Ed25519 certificate");
    check(&ed25519_alone.octets(), &[KeyKind::Rsa], we_refused, expected);
    // RFC 8446 4.2.3: no PKCS#1 signature in the handshake itself.
    let pkcs1_alone = Hello { schemes: Some(vec![0x0401]), ..Hello::modern() };
    let expected = ("no_common_scheme", true, "only rsa_pkcs1_sha256");
    check(&pkcs1_alone.octets(), &[KeyKind::Rsa], we_refused, expected);
}

#[test]
fn a_client_of_sha_1_gets_no_advice_that_would_not_help() {
    let hello = Hello { schemes: Some(vec![0x0201, 0x0203]), ..Hello::of_2012(&[0xc02b]) };
    refused(&hello, "no_common_scheme", "only rsa_pkcs1_sha1, ecdsa_sha1: its next try");
    let hello = Hello { schemes: None, ..Hello::of_2012(&[0xc02b]) };
    refused(&hello, "no_common_scheme", "none at all: its next try");
}

#[test]
fn a_second_kind_of_key_makes_the_hello_fit() {
    let offer = parse(&Hello::of_2012(&[0xc02f]).octets()).unwrap();
    assert!(refusal(&offer, &Own::with_keys(P256)).is_some());
    let both = Own::with_keys(&[KeyKind::EcdsaP256, KeyKind::Rsa]);
    assert_eq!(refusal(&offer, &both), None);
}

#[test]
fn a_refusal_of_a_hello_that_fits_is_a_protocol_violation() {
    // TLS 1.3 without a key_share extension (RFC 8446 9.2).
    let hello = Hello { key_shares: Vec::new(), ..Hello::modern() };
    refused(&hello, "protocol_violation", "breaks a rule of TLS");
    let later = (Stage::FlightSent, Ending::WeRefused);
    let expected = ("protocol_violation", false, "answer to our certificate");
    check(&Hello::modern().octets(), P256, later, expected);
}

#[test]
fn an_alert_about_the_certificate_is_never_a_matter_of_negotiation() {
    let table = [
        (42, "(bad_certificate): it checks certificates, so compare"),
        (43, "(unsupported_certificate): it cannot use this type"),
        (44, "(certificate_revoked): it was revoked"),
        (45, "(certificate_expired): renew it"),
        (46, "(certificate_unknown): it checks certificates"),
        (48, "(unknown_ca): it checks certificates, so get one from a public CA"),
        (113, "(bad_certificate_status_response): it wants proof"),
    ];
    for (alert, phrase) in table {
        for stage in [Stage::FlightSent, Stage::Finished] {
            let how = (stage, Ending::AlertReceived(alert));
            let expected = ("distrusts_certificate", false, phrase);
            check(&Hello::modern().octets(), P256, how, expected);
        }
    }
}

#[test]
fn every_way_to_go_away_has_its_own_words() {
    let table = [
        (Stage::HelloReceived, Ending::ClosedByClient, "closed_after_hello", "before our answer"),
        (Stage::HelloReceived, Ending::TimedOut, "timed_out_after_hello", "overloaded"),
        (Stage::HelloReceived, Ending::AlertReceived(80), "client_alert", "alert internal_error"),
        (Stage::FlightSent, Ending::AlertReceived(40), "client_alert", "alert handshake_failure"),
        (Stage::FlightSent, Ending::AlertReceived(200), "client_alert", "alert 0xc8"),
        (Stage::FlightSent, Ending::AlertReceived(0), "closed_after_flight", "without a word"),
        (Stage::FlightSent, Ending::ClosedByClient, "closed_after_flight", "checks certificates"),
        (Stage::FlightSent, Ending::TimedOut, "timed_out_after_flight", "smaller MTU"),
        (Stage::Finished, Ending::ClosedByClient, "broke_after_finish", "the client closed:"),
        (Stage::Finished, Ending::TimedOut, "broke_after_finish", "said nothing until"),
        (Stage::Finished, Ending::WeRefused, "broke_after_finish", "could not be read"),
        (Stage::Finished, Ending::AlertReceived(20), "broke_after_finish", "bad_record_mac"),
    ];
    for (stage, ending, name, phrase) in table {
        let octets = Hello::modern().octets();
        check(&octets, P256, (stage, ending), (name, false, phrase));
    }
}

/// One of each, and of each form of a sentence.
fn every_verdict() -> Vec<Verdict> {
    let key = Some(KeyKind::Rsa);
    let foreign = |foreign| Verdict::NotTls { foreign, refused: true };
    vec![
        Verdict::NoHello,
        Verdict::ClosedBeforeHello,
        Verdict::IncompleteHello { octets: 70 },
        foreign(Foreign::Smtp),
        foreign(Foreign::Http),
        foreign(Foreign::Ssh),
        foreign(Foreign::ProxyHeader),
        foreign(Foreign::Unknown(vec![0])),
        Verdict::Ssl2Hello,
        Verdict::MalformedHello("reason"),
        Verdict::OldVersionsOnly(0x0301),
        Verdict::NoCommonVersion(vec![0x7f1c]),
        Verdict::RsaKeyExchangeOnly,
        Verdict::CbcOnly,
        Verdict::DheOnly,
        Verdict::NoCommonSuite(vec![0xc0ac]),
        Verdict::NoCommonGroup(vec![0x0019]),
        Verdict::NoCommonScheme { offered: vec![0x0804], remedy: key },
        Verdict::NoCommonScheme { offered: vec![0x0201], remedy: None },
        Verdict::DistrustsCertificate(48),
        Verdict::ClientAlert(80),
        Verdict::ClosedAfterHello,
        Verdict::TimedOutAfterHello,
        Verdict::ClosedAfterFlight,
        Verdict::TimedOutAfterFlight,
        Verdict::ProtocolViolation { after_flight: false },
        Verdict::ProtocolViolation { after_flight: true },
        Verdict::BrokeAfterFinish(Ending::TimedOut),
    ]
}

#[test]
fn no_sentence_promises_mail_in_clear_where_none_can_come() {
    let mut names: Vec<&str> = Vec::new();
    for verdict in every_verdict() {
        names.push(verdict.name());
        let text = |next| verdict.explain(next).to_string();
        let (clear, again, first) =
            (text(NextTry::InClear), text(NextTry::StartTls), text(NextTry::TlsFirst));
        let promise = "will come in clear";
        assert!(!again.contains(promise) && !first.contains(promise), "{again}\n{first}");
        assert!(!first.contains("STARTTLS") && !first.contains("next try"), "{first}");
        // Beside the promise nothing but what happened may name clear text.
        assert!(!first.contains("in clear") || first.contains("speaks SMTP in clear"), "{first}");
        // Who speaks no TLS is told what to set, not what comes next.
        let tells_next = verdict.is_negotiation() && !matches!(verdict, Verdict::NotTls { .. });
        assert_eq!(clear.contains(promise), tells_next, "{clear}");
        assert_eq!(again.contains("tries with STARTTLS fail"), tells_next, "{again}");
        assert_eq!(first.contains("none of its mail comes in"), tells_next, "{first}");
    }
    names.dedup();
    assert_eq!(names.len(), 22, "a verdict is missing: {names:?}");
}

#[test]
fn the_first_list_without_common_entries_is_the_cause() {
    let usable = |hello: &Hello| usable(&parse(&hello.octets()).unwrap(), &Own::with_keys(P256));
    let fits = usable(&Hello::of_2012(&[0xc02f, 0xc02b]));
    assert_eq!((fits.versions, fits.suites), (vec![0x0303], vec![0xc02f, 0xc02b]));
    assert!(fits.groups.contains(&0x0017) && fits.schemes == [0x0403], "{:?}", fits.schemes);
    let twice = usable(&Hello::of_2012(&[0xc02b, 0xc02b]));
    assert_eq!(twice.suites, [0xc02b]);
    assert!(usable(&Hello::of_1999()).versions.is_empty());
    let cbc = usable(&Hello::of_2012(&[0xc013]));
    assert!(!cbc.versions.is_empty() && cbc.suites.is_empty(), "{cbc:?}");
    // A suite of TLS 1.2 is of no use once both sides know TLS 1.3.
    let cut = usable(&Hello { suites: vec![0x1304, 0xc02b], ..Hello::modern() });
    assert!(cut.suites.is_empty(), "{cut:?}");
    let group = usable(&Hello { groups: vec![0x0019], ..Hello::of_2012(&[0xc02b]) });
    assert!(!group.suites.is_empty() && group.groups.is_empty(), "{group:?}");
    // The scheme is in common, but not under this suite.
    let scheme = usable(&Hello::of_2012(&[0xc02f]));
    assert!(!scheme.groups.is_empty() && scheme.schemes.is_empty(), "{scheme:?}");
}

proptest::proptest! {
    /// Whoever cuts or delays a connection must not gain a try in clear, whatever the octets before the cut.
    #[test]
    fn a_cut_connection_never_calls_for_a_try_in_clear(
        junk in proptest::collection::vec(proptest::num::u8::ANY, 0..40),
        cut in 0usize..200,
        alert in proptest::num::u8::ANY,
    ) {
        let own = Own::with_keys(P256);
        let hello = Hello::of_1999().octets();
        let start = &hello[..cut.min(hello.len())];
        let endings = [Ending::ClosedByClient, Ending::TimedOut, Ending::AlertReceived(alert)];
        for octets in [junk.as_slice(), start] {
            for stage in [Stage::Nothing, Stage::HelloReceived, Stage::FlightSent, Stage::Finished] {
                for ending in endings {
                    let verdict = verdict(&parse(octets), &own, stage, ending);
                    proptest::prop_assert!(!verdict.is_negotiation(), "{verdict:?}");
                }
            }
        }
    }
}
