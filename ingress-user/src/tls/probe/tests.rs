use super::answer::{Answer, Chosen, parse};
use super::hello::Hello;
use super::profiles::{PROFILES, Profile, for_key};
use super::{Outcome, Row, chain};
use crate::tls::verdict::{KeyKind, Own};
use crate::worker::tls::{TlsContext, TlsStream};

/// What the TLS library with a self-signed P-256 certificate answers to the octets.
fn library_answer(octets: &[u8]) -> Vec<u8> {
    let state = tempfile::tempdir().unwrap();
    let credentials =
        crate::tls::load(&Default::default(), "mx.example.net", state.path()).unwrap();
    let context = TlsContext::new(credentials).unwrap();
    let mut stream = TlsStream::accept(&context.service().unwrap(), true);
    let (mut input, mut out) = (octets.to_vec(), Vec::new());
    // What it refuses it answers with an alert, which is what counts here.
    let _refused = stream.advance(&mut input, &mut out);
    out
}

fn profile(name: &str) -> Profile {
    PROFILES.into_iter().find(|profile| profile.name == name).unwrap()
}

fn chosen(hello: &Hello) -> Chosen {
    match parse(&library_answer(&hello.octets())).unwrap() {
        Some(Answer::Chosen(chosen)) => chosen,
        other => panic!("no ServerHello but {other:?}"),
    }
}

fn row(name: &str, may_come_in_clear: bool) -> Row {
    let profile = profile(name);
    let answer = parse(&library_answer(&profile.octets("mx.example.net"))).unwrap().unwrap();
    let hello = (profile.hello)("mx.example.net");
    let own = Own::with_keys(&[KeyKind::EcdsaP256]);
    Row::judge(profile.name, &hello, &answer, &own, may_come_in_clear)
}

#[test]
fn every_profile_meets_what_is_expected_of_an_ecdsa_server() {
    let table = [
        ("modern", None, "TLS 1.3, TLS_AES_256_GCM_SHA384, x25519"),
        ("TLS 1.2, ECDHE only", None, "TLS 1.2, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, x25519"),
        ("RSA signatures only", Some("no_common_scheme"), "add an RSA certificate"),
        ("ECDSA signatures only", None, "TLS 1.3"),
        ("CBC only", Some("cbc_only"), "(alert handshake_failure)"),
        ("RSA key exchange only", Some("rsa_key_exchange_only"), "ECDHE is switched on"),
        ("TLS 1.0 only", Some("old_versions_only"), "at most TLS 1.0 and we require TLS 1.2"),
        ("no server name", None, "TLS 1.3"),
        ("unknown server name", None, "TLS 1.3"),
        ("tiny fragments", None, "TLS 1.3"),
        ("post-quantum first", None, "x25519"),
    ];
    assert_eq!(table.len(), PROFILES.len());
    for (name, verdict, phrase) in table {
        let row = row(name, true);
        let outcome = if verdict.is_none() { Outcome::Works } else { Outcome::FallsToClear };
        assert_eq!((row.outcome, row.verdict), (outcome, verdict), "{row:?}");
        assert!(row.explanation.contains(phrase), "{row:?}");
    }
}

#[test]
fn without_starttls_there_is_no_clear_to_fall_to() {
    let row = row("TLS 1.0 only", false);
    assert_eq!((row.outcome, row.verdict), (Outcome::Fails, Some("old_versions_only")));
    assert!(row.explanation.contains("none of its mail comes in"), "{row:?}");
}

#[test]
fn a_wish_for_another_key_share_is_no_failure() {
    let hello = Hello { groups: vec![0x11ec, 0x0017], key_shares: vec![0x11ec], ..Hello::modern() };
    let chosen = chosen(&hello);
    assert!(chosen.retry);
    assert_eq!((chosen.version, chosen.group), (0x0304, Some(0x0017)));
    let answer = Answer::Chosen(chosen);
    let row = Row::judge("x", &hello, &answer, &Own::with_keys(&[]), true);
    assert!(row.explanation.ends_with("secp256r1, once the client has sent a key of that group"));
}

#[test]
fn an_answer_is_read_however_it_is_cut() {
    for name in ["modern", "TLS 1.2, ECDHE only", "TLS 1.0 only"] {
        let octets = library_answer(&profile(name).octets("mx.example.net"));
        let whole = parse(&octets).unwrap();
        assert!(whole.is_some(), "{name}");
        for cut in 0..octets.len() {
            let part = parse(&octets[..cut]).unwrap();
            assert!(part.is_none() || part == whole, "{name} at {cut}: {part:?}");
        }
    }
}

#[test]
fn what_is_no_tls_server_is_said() {
    assert!(parse(b"220 mx.example.net ESMTP\r\n").is_err());
    assert!(parse(b"").unwrap().is_none());
    // A record with a CertificateRequest before any ServerHello.
    assert!(parse(&[22, 3, 3, 0, 4, 13, 0, 0, 0]).is_err());
    // A ServerHello that ends within its random.
    assert!(parse(&[22, 3, 3, 0, 6, 2, 0, 0, 2, 3, 3]).is_err());
}

/// In the middle of the validity of the generated certificates.
const NOW: i64 = 1_795_500_000;

#[test]
fn a_self_signed_certificate_is_read_from_the_answer_and_judged() {
    let chain = chosen(&for_key(KeyKind::EcdsaP256, "mx.example.net")).chain;
    let report = chain::check(&chain, "MX.example.net", NOW);
    assert_eq!((report.certificates, report.names), (1, vec!["mx.example.net".to_owned()]));
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    assert!(report.findings[0].starts_with("self-signed"));
    let other = chain::check(&chain, "mx.example.org", NOW).findings;
    assert!(other.iter().any(|finding| finding.contains("not for mx.example.org")), "{other:?}");
    let late = chain::check(&chain, "mx.example.net", i64::MAX).findings;
    assert!(late.iter().any(|finding| finding.contains("1 has expired")), "{late:?}");
    let early = chain::check(&chain, "mx.example.net", i64::MIN).findings;
    assert!(early.iter().any(|finding| finding.contains("not valid yet")), "{early:?}");
}

#[test]
fn a_chain_without_its_intermediate_or_in_the_wrong_order_is_told() {
    let [root, intermediate, leaf] = three_certificates();
    let findings = |chain: &[Vec<u8>]| chain::check(chain, "mx.example.net", NOW).findings;
    let none: [&str; 0] = [];
    assert_eq!(findings(&[leaf.clone(), intermediate.clone()]), none);
    assert_eq!(findings(&[leaf.clone(), intermediate, root.clone()]), none);
    let alone = findings(std::slice::from_ref(&leaf));
    assert!(alone[0].contains("issued by \"CN=intermediate\": add"), "{alone:?}");
    let skipped = findings(&[leaf, root]);
    assert!(skipped[0].contains("which certificate 2 is not"), "{skipped:?}");
    assert_eq!(findings(&[]), ["no certificate is sent"]);
    assert!(findings(&[vec![0]])[0].contains("cannot be read"));
}

/// Root, intermediate and leaf in DER.
fn three_certificates() -> [Vec<u8>; 3] {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let parameters = |name: &str, is_ca: bool| {
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        if is_ca {
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        parameters
    };
    let [root_key, middle_key, leaf_key] = [(); 3].map(|()| KeyPair::generate().unwrap());
    let root_parameters = parameters("root", true);
    let root = root_parameters.self_signed(&root_key).unwrap();
    let root_issuer = Issuer::new(root_parameters, &root_key);
    let middle_parameters = parameters("intermediate", true);
    let middle = middle_parameters.signed_by(&middle_key, &root_issuer).unwrap();
    let middle_issuer = Issuer::new(middle_parameters, &middle_key);
    let leaf = parameters("mx.example.net", false).signed_by(&leaf_key, &middle_issuer).unwrap();
    [root, middle, leaf].map(|certificate| certificate.der().to_vec())
}
