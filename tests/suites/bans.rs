//! Bans without XDP: who misbehaves is turned away when it connects, for a while.
//!
//! Everything comes from 127.0.0.0/8, which is exempt by default; each test says `exempt = []` or otherwise.

use std::net::IpAddr;
use std::time::Duration;

use ingress_tests::client::Client;
use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::handshakes::report;
use ingress_tests::wait::wait_for;
use serde_json::Value;

/// For the daemon to ban, and for a ban of some seconds to end.
const TIMEOUT: Duration = Duration::from_secs(30);

fn start(extra: &str) -> (Site, Daemon) {
    let site = Site::new(extra).unwrap();
    let daemon = site.start().unwrap();
    (site, daemon)
}

/// What `ingress ban VERB ARGS` says, and whether it succeeded.
fn ban(site: &Site, args: &[&str]) -> (bool, String) {
    let output = site.command_after("ban", args).unwrap();
    let said = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(said).unwrap())
}

fn bans(site: &Site) -> Vec<Value> {
    let (done, json) = ban(site, &["list", "--json"]);
    assert!(done, "{json}");
    serde_json::from_str(&json).unwrap()
}

/// The first ban in force.
fn wait_for_ban(site: &Site) -> Value {
    wait_for("ban", TIMEOUT, || !bans(site).is_empty());
    bans(site).remove(0)
}

fn expect_turned_away(daemon: &Daemon) {
    let mut client = Client::connect(daemon.smtp("starttls"));
    client.expect("421 4.7.0 mx.test Your address is not served");
    client.expect_close();
}

/// A session that ends for too many errors, where three are.
fn flood(mut client: Client) {
    client.expect("220 ");
    for _ in 0..3 {
        client.command("NONSENSE", "500");
    }
    client.expect("421 4.7.0 mx.test Too many errors");
    client.expect_close();
}

#[test]
fn an_early_talker_is_turned_away_until_its_ban_ends_and_the_next_lasts_longer() {
    let (site, daemon) = start(
        "[limits]\ngreet_delay = \"300ms\"\n\
         [bans]\nearly_talkers_max = 2\nlifetime = \"5s\"\nexempt = []\n",
    );
    let talk_early = || {
        for _ in 0..2 {
            let mut early = Client::connect(daemon.smtp("starttls"));
            early.send("EHLO client.test\r\n");
            early.expect("554 5.5.1");
            early.expect_close();
        }
        wait_for_ban(&site)
    };
    let lifetime = |ban: &Value| ban["until"].as_u64().unwrap() - ban["since"].as_u64().unwrap();
    let first = talk_early();
    expect_turned_away(&daemon);
    assert_eq!(first["network"], "127.0.0.1/32");
    assert_eq!(first["reason"], "early_talker");
    assert_eq!((&first["offences"], &first["times"]), (&2.into(), &1.into()));
    assert_eq!(first["packets"], Value::Null);
    assert_eq!(lifetime(&first), 5);
    assert!(daemon.count("/sessions/closed/banned").unwrap() >= 1);
    assert_eq!(daemon.count("/bans/begun/early_talker").unwrap(), 1);

    wait_for("end of the ban", TIMEOUT, || bans(&site).is_empty());
    let mut served = Client::hello(daemon.smtp("starttls"));
    served.message(b"text\r\n");
    served.quit();

    let second = talk_early();
    assert_eq!((&second["times"], lifetime(&second)), (&2.into(), 10));
    let log = daemon.stop().unwrap().stderr;
    assert!(log.contains("client banned") && log.contains("early_talker"), "{log}");
}

fn fail_handshake(mut client: Client) {
    client.send("this is not TLS\r\n");
    client.read_to_close();
}

/// The key that allows so many, the reason of the ban, and what is done.
type Misbehaviour = (&'static str, &'static str, fn(&Daemon));

#[test]
fn each_kind_of_misbehaviour_is_banned_by_its_name() {
    let limits = "[limits]\nerrors_max = 3\nidle_timeout = \"200ms\"\n";
    let misbehaviours: [Misbehaviour; 4] = [
        ("error_floods_max", "error_flood", |daemon| {
            flood(Client::connect(daemon.smtp("starttls")));
        }),
        ("silent_sessions_max", "silent", |daemon| {
            Client::connect(daemon.smtp("starttls")).expect("220 ");
        }),
        ("silent_sessions_max", "silent", |daemon| {
            let mut client = Client::connect(daemon.smtp("starttls"));
            client.expect("220 ");
            client.expect("421 4.4.2");
            client.expect_close();
        }),
        ("failed_handshakes_max", "handshake_failed", |daemon| {
            fail_handshake(Client::connect(daemon.smtp("implicit")));
        }),
    ];
    for (key, reason, misbehave) in misbehaviours {
        let (site, daemon) = start(&format!("{limits}[bans]\n{key} = 2\nexempt = []\n"));
        for _ in 0..2 {
            misbehave(&daemon);
        }
        let ban = wait_for_ban(&site);
        assert_eq!((&ban["reason"], &ban["offences"]), (&reason.into(), &2.into()), "{ban}");
        expect_turned_away(&daemon);
    }
}

#[test]
fn a_self_test_does_not_ban_the_host_that_it_runs_on() {
    let (site, daemon) = start(
        "[limits]\nerrors_max = 3\n\
         [bans]\nfailed_handshakes_max = 1\nsilent_sessions_max = 1\nerror_floods_max = 1\nexempt = []\n",
    );
    let tested = site.command_after("tls", &["test"]).unwrap();
    assert!(daemon.count("/tls/handshakes_failed").unwrap() > 1, "{tested:?}");
    flood(Client::connect_from(IpAddr::from([127, 0, 0, 2]), daemon.smtp("starttls")));
    assert_eq!(wait_for_ban(&site)["network"], "127.0.0.2/32");
    assert_eq!(bans(&site).len(), 1);
}

/// Reports come in the order of the sessions' ends: had the first handshake counted, its ban would have been there first.
#[test]
fn a_failed_handshake_after_a_message_is_forgiven() {
    let (site, daemon) = start(
        "[limits]\nerrors_max = 3\n\
         [bans]\nfailed_handshakes_max = 2\nerror_floods_max = 1\nexempt = []\n",
    );
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.message(b"text\r\n");
    wait_for("word of the message", TIMEOUT, || report(&site)["messages"]["in_clear"] == 1);
    client.command("STARTTLS", "220");
    fail_handshake(client);
    // In another session, and where TLS comes first: STARTTLS is kept from it now.
    fail_handshake(Client::connect(daemon.smtp("implicit")));
    flood(Client::connect(daemon.smtp("starttls")));
    assert_eq!(wait_for_ban(&site)["reason"], "error_flood");
}

#[test]
fn nobody_is_banned_for_what_a_balancer_conveys_but_a_banned_client_is_not_served_through_it() {
    let (site, daemon) = start(
        "[limits]\nerrors_max = 3\n\
         [networks]\nproxy_protocol = [\"127.0.0.1\"]\nxclient = [\"127.0.0.3\"]\n\
         [bans]\nerror_floods_max = 1\nexempt = []\n",
    );
    let address = daemon.smtp("starttls");
    let from = |last: u8| Client::connect_from(IpAddr::from([127, 0, 0, last]), address);
    let conveyed = || {
        let mut balancer = from(1);
        balancer.send("PROXY TCP4 192.0.2.1 192.0.2.9 40000 25\r\n");
        balancer
    };
    flood(conveyed());
    let mut relay = from(3);
    relay.expect("220 ");
    relay.send("XCLIENT ADDR=192.0.2.2\r\n");
    flood(relay);
    // Their reports would have been before this one.
    flood(from(2));
    assert_eq!(wait_for_ban(&site)["network"], "127.0.0.2/32");
    assert_eq!(bans(&site).len(), 1);

    let (done, said) = ban(&site, &["add", "192.0.2.0/24"]);
    assert!(done, "{said}");
    let mut client = conveyed();
    client.expect("421 4.7.0 mx.test Your address is not served");
    client.expect_close();
}

#[test]
fn the_operator_adds_lists_and_lifts_bans_and_a_restart_keeps_them() {
    let (site, daemon) = start("[bans]\nexempt = [\"127.0.0.2\"]\n");
    assert_eq!(ban(&site, &["list"]), (true, "nobody is banned\n".to_owned()));
    let (done, said) =
        ban(&site, &["add", "127.0.0.1", "2001:db8::1", "--for", "2h", "--reason", "spam & more"]);
    let expected = "127.0.0.1/32 is banned for 7200 s\n2001:db8::/64 is banned for 7200 s\n";
    assert_eq!((done, &*said), (true, expected));
    expect_turned_away(&daemon);
    let (_, list) = ban(&site, &["list"]);
    assert!(list.contains("by the operator: spam & more\n"), "{list}");
    daemon.stop().unwrap();

    let daemon = site.start().unwrap();
    assert_eq!(bans(&site).len(), 2);
    expect_turned_away(&daemon);
    let (done, said) = ban(&site, &["del", "127.0.0.1"]);
    assert_eq!((done, &*said), (true, "127.0.0.1/32 is not banned any more\n"));
    Client::hello(daemon.smtp("starttls")).quit();

    for (args, why) in [
        (&["add", "127.0.0.2"][..], "127.0.0.2/32 is exempt from bans"),
        (&["add", "127.0.0.0/24"], "127.0.0.0/24 is exempt from bans"),
        (&["add", "10.0.0.0/8"], "10.0.0.0/8 is too wide for a ban"),
        (&["del", "127.0.0.1"], "no ban is in force for 127.0.0.1/32"),
    ] {
        let (done, said) = ban(&site, args);
        assert!(!done && said.contains(why), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn a_broken_file_of_bans_is_set_aside() {
    let site = Site::new("").unwrap();
    let file = site.folder().join("state/bans.json");
    std::fs::create_dir(site.folder().join("state")).unwrap();
    std::fs::write(&file, "{").unwrap();
    let daemon = site.start().unwrap();
    assert!(bans(&site).is_empty());
    assert!(site.folder().join("state/bans.json.broken").exists());
    let log = daemon.stop().unwrap().stderr;
    assert!(log.contains("bans begin anew"), "{log}");
}
