use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;

/// The least a file must say, without line numbers that anyone depends on.
const MINIMAL: &str = r#"
[[listener]]
address = "127.0.0.1:0"
[recipients]
domains = ["example.net"]
[delivery]
kind = "discard"
"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse("f", text, Path::new("/etc/ingress")).map_err(|error| error.to_string())
}

/// The error for `text` put before [`MINIMAL`], or after it when it begins a section.
fn error_of(text: &str) -> String {
    let whole = match text.starts_with('[') {
        true => format!("{text}\n{MINIMAL}"),
        false => format!("{text}{MINIMAL}"),
    };
    parse(&whole).expect_err(text)
}

#[test]
fn the_least_file_gets_every_default() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.limits.idle_timeout, Duration::from_secs(300));
    assert_eq!(config.state_dir, Path::new("/var/lib/ingress"));
    assert_eq!(config.control.socket, Path::new("/var/lib/ingress/control.sock"));
    assert_eq!(config.limits.greet_delay, Duration::ZERO);
    assert_eq!(config.limits.proxy_header_timeout, Duration::from_secs(5));
    assert_eq!(config.limits.error_delay, Duration::from_secs(1));
    assert_eq!(config.limits.errors_undelayed_max, 10);
    assert_eq!(config.limits.messages_per_session_max, 10_000);
    assert_eq!(config.listeners[0].tls, TlsMode::StartTls);
    assert_eq!(config.listeners[0].dialect, Dialect::Smtp);
    assert_eq!(config.networks, ClientNetworks::default());
    assert!(!config.worker_cpus.is_empty());
    assert_eq!(config.delivery, DeliveryConfig::Discard);
    assert_eq!(config.mta_sts, MtaStsConfig::default());
    assert!(config.mta_sts.listen.is_empty());
    assert_eq!(config.mta_sts.max_age, Duration::from_secs(1_209_600));
}

#[test]
fn each_error_names_line_key_and_what_was_expected() {
    let table = [
        ("hostname = \"a_b\"", "f:1: hostname = \"a_b\": expected a host name"),
        ("hostname = 5", "f:1: hostname = 5: expected a string"),
        ("workers = \"some\"", "f:1: workers = \"some\": expected \"auto\", a count, or a list"),
        ("workers = 0", "f:1: workers = 0: expected 1 to "),
        (
            "workers = [0, 70000]",
            "f:1: workers[1] = 70000: expected a CPU this process may run on: ",
        ),
        ("workers = [-1]", "f:1: workers[0] = -1: expected a whole number"),
        ("state_dir = \"\"", "f:1: state_dir = \"\": expected a path"),
        (
            "[limits]\n\nidle_timeout = \"300\"",
            "f:3: [limits] idle_timeout = \"300\": expected a duration with its unit (ms, s, m, h, d)",
        ),
        ("[limits]\nidle_timeout = 300", "f:2: [limits] idle_timeout = 300: expected a duration"),
        (
            "[limits]\nidle_timeout = \"0s\"",
            "f:2: [limits] idle_timeout = \"0s\": expected from \"1ms\" to \"1d\"",
        ),
        (
            "[limits]\nproxy_header_timeout = \"0s\"",
            "f:2: [limits] proxy_header_timeout = \"0s\": expected from \"1ms\" to \"1d\"",
        ),
        (
            "[limits]\ngreet_delay = \"61s\"",
            "f:2: [limits] greet_delay = \"61s\": expected from \"0ms\" to \"1m\"",
        ),
        (
            "[limits]\nerror_delay = \"2m\"",
            "f:2: [limits] error_delay = \"2m\": expected from \"0ms\" to \"1m\"",
        ),
        (
            "[limits]\nerrors_undelayed_max = 1000001",
            "f:2: [limits] errors_undelayed_max = 1000001: expected from 0 to 1000000",
        ),
        (
            "[limits]\nmessages_per_session_max = 1000000",
            "f:2: [limits] messages_per_session_max = 1000000: expected from 1 to 999999",
        ),
        (
            "[limits]\nrecipients_max = 1000000",
            "f:2: [limits] recipients_max = 1000000: expected from 1 to 999999",
        ),
        (
            "[limits]\nmessage_bytes_max = \"1XB\"",
            "f:2: [limits] message_bytes_max = \"1XB\": expected a number of bytes",
        ),
        (
            "[limits]\nmessage_bytes_max = 0",
            "f:2: [limits] message_bytes_max = 0: expected from \"1B\"",
        ),
        (
            "[limits]\nmessage_bytes_max = \"1GiB\"",
            "f:2: [limits] message_bytes_max = \"1GiB\": expected at most \"128MiB\"",
        ),
        (
            "[limits]\nbuffers_per_worker_max = 10",
            "f:2: [limits] buffers_per_worker_max = 10: expected at least 800, room for message_bytes_max",
        ),
        (
            "[limits]\nrecipients_max = -1",
            "f:2: [limits] recipients_max = -1: expected a whole number",
        ),
        (
            "[limits]\nconnections_max = 1.5",
            "f:2: [limits] connections_max = 1.5: expected a whole number",
        ),
        (
            "[spool]\nsegment_bytes_max = 1",
            "f:2: [spool] segment_bytes_max = 1: expected from \"64KiB\"",
        ),
        (
            "[[listener]]\naddress = \"localhost:25\"",
            "f:2: [[listener]] address = \"localhost:25\": expected an IP address with port",
        ),
        (
            "[[listener]]\ntls = \"off\"",
            "f:1: [[listener]] address: missing, expected an IP address with port",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"ssl\"",
            "f:3: [[listener]] tls = \"ssl\": expected one of \"off\", \"starttls\", \"implicit\"",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"",
            "f:3: [[listener]] protocol = \"http\": expected \"smtp\" or \"lmtp\"",
        ),
        (
            "[[listener]]\naddress = \"[::]:25\"\nprotocol = \"lmtp\"",
            "f:3: [[listener]] protocol = \"lmtp\": expected \"smtp\", since LMTP must not be used on port 25 (RFC 2033 section 5)",
        ),
        (
            "[networks]\nxclient = \"192.0.2.1\"",
            "f:2: [networks] xclient = \"192.0.2.1\": expected a list",
        ),
        ("[networks]\nxclient = [5]", "f:2: [networks] xclient[0] = 5: expected a string"),
        (
            "[networks]\nproxy_protocol = [\"192.0.2.1\", \"localhost\"]",
            "f:2: [networks] proxy_protocol[1] = \"localhost\": expected an IP address or a network, such as \"192.0.2.0/24\"",
        ),
        (
            "[networks]\nnormalize = [\"192.0.2.0/33\"]",
            "f:2: [networks] normalize[0] = \"192.0.2.0/33\": expected an IP address or a network",
        ),
        (
            "[networks]\nundelayed = [\n\"192.0.2.77/26\"]",
            "f:3: [networks] undelayed[0] = \"192.0.2.77/26\": expected the network \"192.0.2.64/26\" or the address \"192.0.2.77\"",
        ),
        (
            "[networks]\nundelayed = [\"2001:db8::1/32\"]",
            "f:2: [networks] undelayed[0] = \"2001:db8::1/32\": expected the network \"2001:db8::/32\" or",
        ),
        (
            "[[listener]]\naddress = \"[::]:25\"\n[[listener]]\naddress = \"[::]:25\"",
            "f:4: [[listener]] address = \"[::]:25\": expected each address once",
        ),
        (
            "[tls]\ncertificates = [ { chain = \"/nonexistent/c.pem\", key = \"k\" } ]",
            "f:2: [tls] certificates[0].chain = \"/nonexistent/c.pem\": expected a readable PEM file, but /nonexistent/c.pem cannot be opened: No such file",
        ),
        (
            "[tls]\ncertificates = [ { key = \"k\" } ]",
            "f:2: [tls] certificates[0].chain: missing, expected the path of a PEM file",
        ),
        ("[xdp]\nmode = \"fast\"", "f:2: [xdp] mode = \"fast\": expected one of \"off\", \"auto\""),
        ("[xdp]\nmode = \"native\"", "f:1: [xdp] interfaces: missing, expected the interfaces"),
        (
            "[xdp]\ninterfaces = [\"a/b\"]",
            "f:2: [xdp] interfaces[0] = \"a/b\": expected an interface name",
        ),
        (
            "[xdp]\ninterfaces = [\"a\", \"a\"]",
            "f:2: [xdp] interfaces[1] = \"a\": expected each interface once",
        ),
        (
            "[xdp]\ninterfaces = [\"a\"]\nmode = \"generic\"\nsteering = \"cpumap\"",
            "f:4: [xdp] steering = \"cpumap\": expected another steering",
        ),
        (
            "[xdp]\nheartbeat_timeout = \"1s\"",
            "f:2: [xdp] heartbeat_timeout = \"1s\": expected from \"2s\" to \"1h\"",
        ),
        ("[bans]\nwindow = \"2d\"", "f:2: [bans] window = \"2d\": expected from \"1s\" to \"1d\""),
        (
            "[bans]\nlifetime = \"2h\"\nlifetime_max = \"1h\"",
            "f:3: [bans] lifetime_max = \"1h\": expected at least \"2h\"",
        ),
        (
            "[bans]\nexempt = [\"loopback\"]",
            "f:2: [bans] exempt[0] = \"loopback\": expected an IP address or a network",
        ),
        (
            "[control]\nmetrics = \"9125\"",
            "f:2: [control] metrics = \"9125\": expected an IP address with port",
        ),
        ("[mta_sts]\nlisten = 443", "f:2: [mta_sts] listen = 443: expected a string or a list"),
        (
            "[mta_sts]\nlisten = \"443\"",
            "f:2: [mta_sts] listen = \"443\": expected an IP address with port",
        ),
        (
            "[mta_sts]\nlisten = [\"[::]:443\",\n\"*:443\"]",
            "f:3: [mta_sts] listen[1] = \"*:443\": expected an IP address with port",
        ),
        (
            "[mta_sts]\nlisten = [\"[::]:443\", \"[::]:443\"]",
            "f:2: [mta_sts] listen[1] = \"[::]:443\": expected each address once",
        ),
        (
            "[control]\nmetrics = \"127.0.0.1:443\"\n[mta_sts]\nlisten = \"127.0.0.1:443\"",
            "f:4: [mta_sts] listen = \"127.0.0.1:443\": expected an address that neither",
        ),
        (
            "[mta_sts]\nlisten = [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", \"h\", \"i\"]",
            "f:2: [mta_sts] listen = [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", \"h\", \"i\"]: expected at most 8 addresses",
        ),
        (
            "[mta_sts]\nmode = \"strict\"",
            "f:2: [mta_sts] mode = \"strict\": expected one of \"auto\", \"testing\", \"enforce\", \"none\"",
        ),
        (
            "[mta_sts]\nmax_age = \"31557601s\"",
            "f:2: [mta_sts] max_age = \"31557601s\": expected from \"1s\" to \"8766h\"",
        ),
        (
            "[mta_sts]\nmax_age = \"1500ms\"",
            "f:2: [mta_sts] max_age = \"1500ms\": expected whole seconds",
        ),
        (
            "[mta_sts]\nmx = [\"*.example.net\", \"a.*.net\"]",
            "f:2: [mta_sts] mx[1] = \"a.*.net\": expected a host name",
        ),
        (
            "[mta_sts]\ncertificates = [ { chain = \"/nonexistent/c.pem\", key = \"k\" } ]",
            "f:2: [mta_sts] certificates[0].chain = \"/nonexistent/c.pem\": expected a readable PEM file",
        ),
        (
            "[mta_sts]\ncertificates = [[\"a\", \"b\"]]",
            "f:2: [mta_sts] certificates[0] = [\"a\", \"b\"]: expected a table",
        ),
    ];
    for (text, expected) in table {
        let error = error_of(text);
        assert!(error.starts_with(expected), "{text}\n  gave     {error}\n  expected {expected}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    assert_eq!(
        error_of("hostnme = \"a\""),
        "f:1: hostnme: unknown key, expected one of hostname, state_dir, workers, listener, tls, \
         recipients, networks, limits, spool, delivery, xdp, bans, control, mta_sts (did you mean hostname?)"
    );
    let error = error_of("[limits]\n# note\nidle_timout = \"1s\"");
    assert!(
        error.starts_with("f:3: [limits] idle_timout: unknown key, expected one of idle_timeout, ")
    );
    assert!(error.ends_with(" (did you mean idle_timeout?)"), "{error}");
    let error = error_of("[[listener]]\naddress = \"127.0.0.1:0\"\nport = 25");
    assert_eq!(
        error,
        "f:3: [[listener]] port: unknown key, expected one of address, tls, protocol"
    );
    let error = error_of("[limit]\nidle_timeout = \"1s\"");
    assert!(error.starts_with("f:1: limit: unknown key, expected one of hostname, "), "{error}");
    let error = error_of("[tls]\ncertificates = [ { chian = \"a\" } ]");
    assert!(error.starts_with("f:2: [tls] certificates[0].chian: unknown key"), "{error}");
}

#[test]
fn the_wrong_kind_of_section_is_not_taken_for_another() {
    let table = [
        (
            "[listener]\naddress = \"a\"",
            "f:1: listener = [listener]: expected [[listener]] sections",
        ),
        (
            "[[limits]]\nidle_timeout = \"1s\"",
            "f:1: limits = [[limits]]: expected one [limits] section",
        ),
        ("limits = [\"1s\"]", "f:1: limits = [\"1s\"]: expected one [limits] section"),
        ("limits = 5", "f:1: limits = 5: expected a table"),
        (
            "listener = [[\"127.0.0.1:0\"]]",
            "f:1: [[listener]] = [\"127.0.0.1:0\"]: expected a table",
        ),
        (
            "tls = { certificates = [[\"a\", \"b\"]] }",
            "f:1: [tls] certificates[0] = [\"a\", \"b\"]: expected a table",
        ),
        ("[recipients]\ndomains = \"*\"", "f:2: [recipients] domains = \"*\": expected a list"),
        ("[delivery]\nkind = 3", "f:2: [delivery] kind = 3: expected a string"),
        ("[a.b]\nc = 1", "f:1: a: unknown key, expected one of hostname, "),
    ];
    for (text, expected) in table {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(expected), "{text}\n  gave     {error}\n  expected {expected}");
    }
}

proptest::proptest! {
    /// Cut off and overwritten anywhere, a file gives a configuration or one line, never a panic.
    #[test]
    fn no_damage_to_a_file_is_a_panic(
        at in 0..MINIMAL.len(),
        remove in 0..20_usize,
        insert in "[\\[\\]\"={}.,a-z0-9\n]{0,6}",
    ) {
        let end = MINIMAL.len().min(at + remove);
        let text = format!("{}{insert}{}", &MINIMAL[..at], &MINIMAL[end..]);
        if let Err(error) = parse(&text) {
            proptest::prop_assert_eq!(error.lines().count(), 1, "{}", error);
        }
    }
}

#[test]
fn a_missing_section_is_reported_by_its_key() {
    let without = |part: &str| parse(&MINIMAL.replace(part, "")).unwrap_err();
    assert_eq!(
        without("[[listener]]\naddress = \"127.0.0.1:0\""),
        "f:1: listener: missing, expected at least one [[listener]] section"
    );
    assert_eq!(
        without("[recipients]\ndomains = [\"example.net\"]"),
        "f:1: [recipients] domains: missing, expected a list of the domains to take mail for, or [\"*\"] for all of them"
    );
    assert_eq!(
        without("kind = \"discard\""),
        "f:6: [delivery] kind: missing, expected \"maildir\" or \"discard\""
    );
}

#[test]
fn a_maildir_needs_its_path_and_later_kinds_are_called_so() {
    let with = |kind: &str| parse(&MINIMAL.replace("discard", kind));
    assert_eq!(
        with("maildir").unwrap_err(),
        "f:6: [delivery] path: missing, expected the folder of the Maildir"
    );
    for kind in ["lmtp", "smtp", "jetstream"] {
        let error = with(kind).unwrap_err();
        assert!(error.ends_with("this kind is not in this version of ingress"), "{error}");
        assert!(error.starts_with(&format!("f:7: [delivery] kind = \"{kind}\": ")), "{error}");
    }
    assert!(with("carrier-pigeon").unwrap_err().contains("expected one of \"maildir\""));
}

#[test]
fn recipients_are_domains_or_the_star_alone() {
    let with = |domains: &str| parse(&MINIMAL.replace("\"example.net\"", domains));
    assert_eq!(with("\"*\"").unwrap().recipients, RecipientDomains::Any);
    assert!(with("\"*\", \"a.example\"").unwrap_err().contains("not both"));
    assert!(with("").unwrap_err().contains("f:5: [recipients] domains = []: expected a list"));
    let error = with("\"a.example\", \"bü_cher.example\"").unwrap_err();
    assert!(error.starts_with("f:5: [recipients] domains[1] = \"bü_cher.example\""), "{error}");
}

#[test]
fn a_domain_in_another_script_is_kept_and_shown_as_mail_carries_it() {
    let text = MINIMAL.replace("example.net", "Bücher.example");
    let config = parse(&text).unwrap();
    assert_eq!(config.recipients, RecipientDomains::listed(["xn--bcher-kva.example"]));
    assert!(config.to_string().contains("domains = [\"xn--bcher-kva.example\"]"), "{config}");
}

#[test]
fn lmtp_is_for_every_port_but_25() {
    let with = |port| {
        let listener = format!("address = \"127.0.0.1:{port}\"\nprotocol = \"lmtp\"");
        parse(&MINIMAL.replace("address = \"127.0.0.1:0\"", &listener))
    };
    for port in [0, 24, 26, 2525] {
        assert_eq!(with(port).unwrap().listeners[0].dialect, Dialect::Lmtp, "{port}");
    }
    with(25).unwrap_err();
}

#[test]
fn a_delay_may_be_nothing_and_so_may_the_errors_before_it() {
    let limits =
        "[limits]\ngreet_delay = \"60s\"\nerror_delay = \"0s\"\nerrors_undelayed_max = 0\n";
    let limits = parse(&format!("{MINIMAL}{limits}")).unwrap().limits;
    assert_eq!(limits.greet_delay, Duration::from_secs(60));
    assert_eq!(limits.error_delay, Duration::ZERO);
    assert_eq!(limits.errors_undelayed_max, 0);
}

#[test]
fn each_list_of_networks_is_for_itself() {
    let lists = r#"[networks]
proxy_protocol = ["192.0.2.1"]
xclient = ["2001:db8::/32"]
normalize = ["192.0.2.2/32", "198.51.100.0/24"]
undelayed = ["::ffff:203.0.113.0/120"]
without_tickets = ["198.18.0.0/15"]
"#;
    let networks = parse(&format!("{MINIMAL}{lists}")).unwrap().networks;
    let of = |address: &str| {
        let address = address.parse().unwrap();
        let ClientNetworks { proxy_protocol, xclient, normalize, undelayed, without_tickets } =
            &networks;
        [proxy_protocol, xclient, normalize, undelayed, without_tickets]
            .map(|list| list.contains(address))
    };
    assert_eq!(of("192.0.2.1"), [true, false, false, false, false]);
    assert_eq!(of("2001:db8:5::1"), [false, true, false, false, false]);
    assert_eq!(of("198.51.100.255"), [false, false, true, false, false]);
    assert_eq!(of("203.0.113.9"), [false, false, false, true, false]);
    assert_eq!(of("198.19.255.255"), [false, false, false, false, true]);
    assert_eq!(of("192.0.2.3"), [false; 5]);
}

#[test]
fn the_host_itself_is_exempt_from_bans_unless_the_file_says_otherwise() {
    let exempt = |more: &str, address: &str| {
        let bans = parse(&format!("{MINIMAL}{more}")).unwrap().bans_with_exempt();
        bans.exempt.contains(address.parse().unwrap())
    };
    for address in ["127.0.0.1", "127.255.0.1", "::1"] {
        assert!(exempt("", address), "{address}");
        assert!(!exempt("[bans]\nexempt = []\n", address), "{address}");
    }
    for list in [
        "[bans]\nexempt",
        "[xdp.filter]\nallow",
        "[tls.memory]\nexempt",
        "[networks]\nundelayed",
        "[networks]\nproxy_protocol",
        "[networks]\nxclient",
    ] {
        assert!(exempt(&format!("{list} = [\"192.0.2.0/24\"]\n"), "192.0.2.1"), "{list}");
        assert!(!exempt(&format!("{list} = [\"192.0.2.0/24\"]\n"), "192.0.3.1"), "{list}");
    }
}

#[test]
fn a_list_of_networks_has_an_end() {
    let with = |count: usize| {
        let list = vec!["\"192.0.2.1\""; count].join(",");
        parse(&format!("{MINIMAL}[networks]\nxclient = [{list}]\n"))
    };
    assert_eq!(with(1_024).unwrap().networks.xclient.iter().count(), 1_024);
    let error = with(1_025).unwrap_err();
    assert!(error.starts_with("f:9: [networks] xclient = [\"192.0.2.1\","), "{error}");
    assert!(error.ends_with("expected at most 1024 networks, not 1025"), "{error}");
}

#[test]
fn the_target_keeps_what_its_kind_is_known_for_and_what_the_file_adds() {
    let with = |kind: &str, more: &str| {
        let delivery = format!("kind = \"{kind}\"\npath = \"m\"\n{more}");
        parse(&MINIMAL.replace("kind = \"discard\"", &delivery)).map(|config| config.target)
    };
    let all = TargetExtensions { smtputf8: true, binarymime: true, dsn: true, requiretls: true };
    let maildir = TargetExtensions { dsn: false, ..all };
    assert_eq!(with("maildir", ""), Ok(maildir));
    assert_eq!(with("maildir", "extensions = [\"smtputf8\"]"), Ok(maildir));
    assert_eq!(with("maildir", "extensions = [\"dsn\"]"), Ok(all));
    assert_eq!(with("discard", ""), Ok(all));
    assert_eq!(
        with("maildir", "extensions = [\"dsn\", \"vrfy\"]").unwrap_err(),
        "f:9: [delivery] extensions[1] = \"vrfy\": expected one of \"smtputf8\", \"binarymime\", \"dsn\", \"requiretls\""
    );
}

#[test]
fn what_is_not_toml_is_said_with_its_line() {
    assert!(error_of("hostname = ").starts_with("f:1: not valid TOML: "));
    let twice = error_of("hostname = \"a\"\nhostname = \"b\"");
    assert!(twice.starts_with("f:2: not valid TOML: duplicate key"), "{twice}");
    assert_eq!(twice.lines().count(), 1, "{twice}");
}

#[test]
fn an_address_of_a_listener_is_not_for_the_metrics_too() {
    let text = format!("{MINIMAL}[control]\nmetrics = \"127.0.0.1:25\"\n").replace(":0\"", ":25\"");
    assert!(parse(&text).unwrap_err().starts_with("f:9: [control] metrics = \"127.0.0.1:25\""));
}

#[test]
fn a_socket_path_too_long_for_the_kernel_is_refused() {
    let text = format!("{MINIMAL}[control]\nsocket = \"{}\"\n", "s".repeat(200));
    assert!(parse(&text).unwrap_err().contains("expected a path of at most 107 bytes"));
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("c.pem"), "").unwrap();
    fs::write(folder.path().join("k.pem"), "").unwrap();
    let path = folder.path().join("ingress.toml");
    let certificates = "[tls]\ncertificates = [ { chain = \"c.pem\", key = \"./k.pem\" } ]\n";
    let text = format!("state_dir = \"state\"\n{MINIMAL}{certificates}");
    fs::write(&path, text).unwrap();
    let config = Config::load(&path).unwrap();
    assert_eq!(config.state_dir, folder.path().join("state"));
    assert_eq!(config.tls.certificates[0].chain, folder.path().join("c.pem"));
    assert_eq!(config.tls.certificates[0].key, folder.path().join("k.pem"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Path::new("/nonexistent/ingress.toml")).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/ingress.toml: cannot read the configuration: No such"));
}

#[test]
fn what_is_displayed_resolves_to_itself() {
    let text = r#"
hostname = "mx.example.net"
state_dir = "state"
workers = 1
[[listener]]
address = "[::1]:0"
tls = "off"
[[listener]]
address = "127.0.0.1:465"
tls = "implicit"
[[listener]]
address = "127.0.0.1:24"
protocol = "lmtp"
[recipients]
domains = ["b.example", "A.example", "bücher.example"]
[networks]
proxy_protocol = ["192.0.2.1", "2001:db8::/32"]
xclient = ["::ffff:192.0.2.2"]
[limits]
idle_timeout = "1500ms"
error_delay = "0s"
message_bytes_max = 1000
[delivery]
kind = "maildir"
path = "mail \"box\""
extensions = ["dsn"]
[xdp]
interfaces = ["eth0", "lo"]
[bans]
silent_sessions_max = 0
exempt = []
[control]
metrics = "127.0.0.1:9125"
[mta_sts]
listen = "0.0.0.0:443"
mode = "none"
max_age = "31557600s"
mx = ["*.Backup.example"]
"#;
    for text in [text, MINIMAL] {
        let shown = parse(text).unwrap().to_string();
        let again = parse(&shown).unwrap_or_else(|error| panic!("{error}\n{shown}")).to_string();
        assert_eq!(shown, again);
        assert!(shown.contains("idle_timeout = "), "{shown}");
    }
    let shown = parse(text).unwrap().to_string();
    for part in [
        "silent_sessions_max = 0",
        "protocol = \"lmtp\"",
        "xclient = [\"192.0.2.2/32\"]",
        "extensions = [",
        "error_delay = \"0ms\"",
        "listen = [\"0.0.0.0:443\"]",
        "max_age = \"8766h\"",
        "mx = [\"*.backup.example\"]",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
}
