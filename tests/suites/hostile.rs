//! Clients that are broken or mean: what they do costs their own connection and nothing else.
//!
//! In every test another client has a transaction open before the attack and completes it afterwards, and in the end the
//! daemon has no connection open and no buffer lent.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use ingress_tests::client::Client;
use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::programs::client_hello;
use ingress_tests::wait::wait_for;
use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};

const CLOSE_TIMEOUT: Duration = Duration::from_secs(20);

#[test]
fn nonsense_is_refused_until_it_is_enough() {
    attack("[limits]\nerrors_max = 5\n", |daemon| {
        let mut client = Client::hello(daemon.smtp("starttls"));
        for line in ["GET / HTTP/1.1", "\u{1}\u{2}\u{3}", "", "DATA now"] {
            client.command(line, "50");
        }
        client.command("EXPN everybody", "502");
        client.expect("421 4.7.0");
        client.expect_close();
    });
}

#[test]
fn a_line_that_is_too_long_is_refused_and_the_session_goes_on() {
    attack_that_delivers("", 1, |daemon| {
        let mut client = Client::hello(daemon.smtp("starttls"));
        for length in [3_000, 300_000] {
            client.command(&"a".repeat(length), "500 5.5.2");
        }
        client.message(b"still here\r\n");
        client.quit();
    });
}

#[test]
fn a_line_without_end_takes_no_memory() {
    attack("", |daemon| {
        let before = daemon.resident_kib().unwrap();
        let mut client = Client::hello(daemon.smtp("starttls"));
        for _ in 0..64 {
            client.send(vec![b'a'; 1 << 20]);
        }
        client.command("", "500 5.5.2");
        assert_grown_by_at_most(8 << 10, before, daemon);
    });
}

/// Each reply is read before the next chunks are sent, as a client that fits its window does.
#[test]
fn a_message_in_tiny_chunks_takes_no_more_memory_than_its_octets() {
    attack_that_delivers("", 1, |daemon| {
        let mut client = Client::hello(daemon.smtp("starttls"));
        client.envelope();
        let before = daemon.resident_kib().unwrap();
        let chunks = b"BDAT 1\r\nx".repeat(500);
        for _ in 0..400 {
            client.send(&chunks);
            for _ in 0..500 {
                client.expect("250 2.0.0 1 octets");
            }
        }
        // 200,000 octets; with the commands before them they were nine times as many.
        let buffers: u64 = ["/workers/0/buffers_lent", "/workers/1/buffers_lent"]
            .iter()
            .filter_map(|pointer| daemon.count(pointer).ok())
            .sum();
        assert!(buffers <= 6, "{buffers} buffers");
        assert_grown_by_at_most(4 << 10, before, daemon);
        client.command("BDAT 2 LAST\r\n", "250 2.0.0");
        client.quit();
    });
}

#[test]
fn empty_lines_are_errors_and_take_no_memory() {
    attack("[limits]\nerrors_max = 100000\nerrors_undelayed_max = 100000\n", |daemon| {
        let before = daemon.resident_kib().unwrap();
        let mut client = Client::hello(daemon.smtp("starttls"));
        for _ in 0..50 {
            client.send(b"\r\n".repeat(1000));
            for _ in 0..1000 {
                client.expect("500 5.5.1");
            }
        }
        assert_grown_by_at_most(4 << 10, before, daemon);
        client.quit();
    });
}

#[test]
fn binary_garbage_ends_at_the_first_bare_line_end() {
    attack("", |daemon| {
        for seed in 1..=20 {
            let mut client = Client::connect(daemon.smtp("starttls"));
            // The daemon may have hung up before all is sent.
            let _hung_up = client.try_send(garbage(seed));
            client.read_to_close();
        }
    });
}

#[test]
fn garbage_on_the_implicit_port_fails_the_handshake() {
    attack("", |daemon| {
        for seed in 1..=20 {
            let mut client = Client::connect(daemon.smtp("implicit"));
            let _hung_up = client.try_send(garbage(seed));
            client.read_to_close();
        }
        let mut client = Client::connect(daemon.smtp("implicit"));
        client.send("EHLO client.test\r\n");
        client.read_to_close();
        assert_eq!(daemon.count("/tls/handshakes_failed").unwrap(), 21);
    });
}

#[test]
fn a_client_hello_cut_in_half_gets_no_further() {
    attack("[limits]\ntls_handshake_timeout = \"1s\"\n", |daemon| {
        let hello = client_hello().unwrap();
        for half in [&hello[..3], &hello[..hello.len() / 2], &hello[..hello.len() - 1]] {
            // Who hangs up, and who waits for the end of the daemon's patience.
            let mut gone = Client::connect(daemon.smtp("implicit"));
            gone.send(half);
            let mut waiting = Client::connect(daemon.smtp("implicit"));
            waiting.send(half);
            drop(gone);
            waiting.read_to_close();
        }
        assert_eq!(daemon.count("/tls/handshakes_failed").unwrap(), 6);
    });
}

#[test]
fn commands_in_one_packet_with_starttls_are_never_taken() {
    attack("", |daemon| {
        let mut client = Client::hello(daemon.smtp("starttls"));
        client.envelope();
        client.send("STARTTLS\r\nDATA\r\ninjected\r\n.\r\n");
        client.expect("554 5.5.1");
        client.expect_close();
    });
}

#[test]
fn commands_in_the_middle_of_a_handshake_are_never_taken() {
    attack("", |daemon| {
        let mut client = Client::hello(daemon.smtp("starttls"));
        client.envelope();
        client.command("STARTTLS", "220");
        client.send(client_hello().unwrap());
        client.send("DATA\r\ninjected\r\n.\r\n");
        client.read_to_close();
        assert_eq!(daemon.count("/tls/handshakes_failed").unwrap(), 1);
    });
}

#[test]
fn commands_in_clear_behind_starttls_are_never_taken() {
    attack("", |daemon| {
        let mut client = Client::hello(daemon.smtp("starttls"));
        client.envelope();
        client.command("STARTTLS", "220");
        client.send("DATA\r\ninjected\r\n.\r\n");
        client.read_to_close();
    });
}

#[test]
fn a_client_may_hang_up_after_every_command() {
    const DIALOGUE: [(&str, &str); 9] = [
        ("EHLO client.test", "250"),
        ("NOOP", "250"),
        ("MAIL FROM:<sender@example.org>", "250"),
        ("RCPT TO:<user@example.net>", "250"),
        ("RCPT TO:<other@example.net>", "250"),
        ("DATA", "354"),
        ("text\r\nmore text", ""),
        (".\r\nMAIL FROM:<sender@example.org>\r\nRCPT TO:<user@example.net>\r\nDATA", "250"),
        ("half a line", ""),
    ];
    attack_that_delivers("", 2 * 3, |daemon| {
        for stage in 0..=DIALOGUE.len() {
            for hang_up in [close as fn(Client), reset, half_close] {
                let mut client = Client::connect(daemon.smtp("starttls"));
                client.expect("220");
                for (line, reply) in &DIALOGUE[..stage] {
                    client.send(format!("{line}\r\n"));
                    if !reply.is_empty() {
                        client.expect(reply);
                    }
                }
                hang_up(client);
            }
        }
    });
}

/// It does not wait for the 250, so the daemon does not know whether it heard it: the message is kept.
#[test]
fn a_client_that_hangs_up_right_after_the_final_dot_loses_nothing() {
    attack_that_delivers("", 20, |daemon| {
        for _ in 0..20 {
            let mut client = Client::hello(daemon.smtp("starttls"));
            client.envelope();
            client.command("DATA", "354");
            client.send("text\r\n.\r\n");
            client.close_sending_side();
            client.read_to_close();
        }
    });
}

#[test]
fn a_client_may_hang_up_in_the_middle_of_a_handshake() {
    attack("", |daemon| {
        let hello = client_hello().unwrap();
        for hang_up in [close as fn(Client), reset, half_close] {
            let mut client = Client::connect(daemon.smtp("implicit"));
            client.send(&hello);
            // The daemon has answered, and waits for the client's half.
            client.stream().read_exact(&mut [0; 5]).unwrap();
            hang_up(client);
            let mut client = Client::hello(daemon.smtp("starttls"));
            client.command("STARTTLS", "220");
            hang_up(client);
        }
        wait_until_idle_but(daemon, 1);
        assert_eq!(daemon.count("/tls/handshakes_failed").unwrap(), 6);
    });
}

#[test]
fn a_client_that_never_reads_replies_is_not_read_either() {
    attack("", |daemon| {
        // The short command with the longest reply: 1 MiB of it asks for ten.
        const COMMAND: &[u8] = b"VRFY a\r\n";
        const COMMANDS: usize = (1 << 20) / COMMAND.len();
        let before = daemon.resident_kib().unwrap();
        let mut client = Client::hello(daemon.smtp("starttls"));
        set_socket_recv_buffer_size(client.stream(), 16 << 10).unwrap();
        let mut socket = client.stream().try_clone().unwrap();
        let writer = thread::spawn(move || socket.write_all(&COMMAND.repeat(COMMANDS)));
        // Others are served meanwhile, and the daemon keeps no replies beyond its bound.
        for _ in 0..50 {
            let mut other = Client::hello(daemon.smtp("starttls"));
            other.envelope();
            other.quit();
        }
        assert_grown_by_at_most(4 << 10, before, daemon);
        // Nothing is lost by the wait: as soon as the client reads, all replies come.
        set_socket_recv_buffer_size(client.stream(), 1 << 20).unwrap();
        for _ in 0..COMMANDS {
            client.expect("252");
        }
        writer.join().unwrap().unwrap();
        client.quit();
    });
}

#[test]
fn a_bare_line_feed_cannot_smuggle_a_second_message() {
    const SMUGGLED: [&str; 4] = [
        "text\r\n.\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<user@example.net>\r\nDATA\r\nx\r\n.\r\n",
        "text\n.\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<user@example.net>\r\nDATA\r\nx\r\n.\r\n",
        "text\n.\r\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<user@example.net>\r\nDATA\r\nx\r\n.\r\n",
        "text\r.\rMAIL FROM:<evil@example.org>\r\nRCPT TO:<user@example.net>\r\nDATA\r\nx\r\n.\r\n",
    ];
    attack("", |daemon| {
        for text in SMUGGLED {
            let mut client = Client::hello(daemon.smtp("starttls"));
            client.envelope();
            client.command("DATA", "354");
            client.send(text);
            client.expect("554 5.5.2");
            client.expect_close();
        }
        let mut client = Client::hello(daemon.smtp("starttls"));
        client.send("MAIL FROM:<sender@example.org>\nRCPT TO:<user@example.net>\r\n");
        client.expect("554 5.5.2");
        client.expect_close();
    });
}

#[test]
fn a_message_that_is_too_big_is_refused_and_the_session_goes_on() {
    attack_that_delivers("[limits]\nmessage_bytes_max = \"64KiB\"\n", 1, |daemon| {
        let mut client = Client::hello(daemon.smtp("starttls"));
        client.command("MAIL FROM:<sender@example.org> SIZE=65537", "552 5.3.4");
        client.envelope();
        client.command("DATA", "354");
        for _ in 0..2000 {
            client.send("a line of a message that takes no end\r\n".repeat(30));
        }
        client.send(".\r\n");
        client.expect("552 5.3.4");
        client.message(b"a small one\r\n");
        client.quit();
    });
}

#[test]
fn mail_for_others_is_not_relayed() {
    let site = Site::with_config(
        "hostname = \"mx.test\"\nstate_dir = \"state\"\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"starttls\"\n\
         [recipients]\ndomains = [\"example.net\"]\n\
         [delivery]\nkind = \"maildir\"\npath = \"maildir\"\n",
    )
    .unwrap();
    attack_site(&site, 1, |daemon| {
        let mut client = Client::hello(daemon.smtp("starttls"));
        client.command("MAIL FROM:<user@example.net>", "250");
        for recipient in [
            "user@elsewhere.example",
            "user@sub.example.net",
            "user@example.net.elsewhere.example",
            "user@[192.0.2.1]",
            "@example.net:user@elsewhere.example",
        ] {
            client.command(&format!("RCPT TO:<{recipient}>"), "550 5.7.1");
        }
        client.command("DATA", "503 5.5.1");
        client.command("RCPT TO:<user@EXAMPLE.net>", "250");
        client.data(b"for us\r\n");
        client.quit();
    });
}

#[test]
fn a_client_with_too_many_connections_is_turned_away() {
    crowd("connections_per_client_max", "421 4.7.0");
}

#[test]
fn connections_beyond_all_are_turned_away() {
    crowd("connections_max", "421 4.3.2");
}

#[test]
fn a_client_that_says_nothing_is_told_and_left() {
    let site = Site::new("[limits]\nidle_timeout = \"1s\"\n").unwrap();
    let daemon = site.start().unwrap();
    let mut before_ehlo = Client::connect(daemon.smtp("starttls"));
    before_ehlo.expect("220");
    let mut in_a_line = Client::hello(daemon.smtp("starttls"));
    in_a_line.send("MAIL FR");
    let mut in_data = Client::hello(daemon.smtp("starttls"));
    in_data.envelope();
    in_data.command("DATA", "354");
    in_data.send("half a message\r\n");
    for client in [&mut before_ehlo, &mut in_a_line, &mut in_data] {
        client.expect("421 4.4.2");
        client.expect_close();
    }
    drop([before_ehlo, in_a_line, in_data]);
    finish(&site, daemon, 0);
}

fn attack(extra: &str, attack: impl FnOnce(&Daemon)) {
    attack_that_delivers(extra, 0, attack);
}

fn attack_that_delivers(extra: &str, messages: usize, attack: impl FnOnce(&Daemon)) {
    attack_site(&Site::new(extra).unwrap(), messages, attack);
}

/// Runs `attack`, of which so many messages are to be delivered, between the halves of a bystander's transaction.
fn attack_site(site: &Site, messages: usize, attack: impl FnOnce(&Daemon)) {
    let daemon = site.start().unwrap();
    let mut bystander = Client::hello(daemon.smtp("starttls"));
    bystander.envelope();
    attack(&daemon);
    bystander.data(b"of the bystander\r\n");
    bystander.quit();
    finish(site, daemon, messages + 1);
}

/// Everything was given back, just these messages came through, and no thread of the daemon had to die for it.
fn finish(site: &Site, daemon: Daemon, messages: usize) {
    wait_until_idle_but(&daemon, 0);
    let lent = || {
        let status = daemon.status().unwrap();
        let workers = status["workers"].as_array().unwrap();
        workers.iter().map(|worker| worker["buffers_lent"].as_u64().unwrap()).sum::<u64>()
    };
    wait_for("buffers given back", CLOSE_TIMEOUT, || lent() == 0);
    daemon.wait_until_delivered();
    let ended = daemon.stop().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    assert_eq!(site.maildir().count().unwrap(), messages, "{}", ended.stderr);
    for text in site.maildir().texts().unwrap() {
        assert!(!text.starts_with(b"injected"), "{}", text.escape_ascii());
    }
}

fn wait_until_idle_but(daemon: &Daemon, connections: u64) {
    wait_for("closed connections", CLOSE_TIMEOUT, || {
        daemon.count("/connections/open").unwrap() == connections
    });
}

/// With a limit of 3, of which the bystander takes one.
fn crowd(limit: &str, reply: &str) {
    attack(&format!("[limits]\n{limit} = 3\n"), |daemon| {
        let address = daemon.smtp("starttls");
        let (first, second) = (Client::hello(address), Client::hello(address));
        for _ in 0..5 {
            let mut refused = Client::connect(address);
            refused.expect(reply);
            refused.expect_close();
        }
        let mut refused = Client::connect(daemon.smtp("implicit"));
        refused.expect_close();
        assert_eq!(daemon.count("/connections/refused").unwrap(), 6);
        first.quit();
        wait_until_idle_but(daemon, 2);
        Client::hello(address).quit();
        second.quit();
    });
}

fn close(client: Client) {
    drop(client);
}

/// With a zero linger time, closing sends RST: what a crashed client, or one behind a firewall, looks like.
fn reset(client: Client) {
    set_socket_linger(client.stream(), Some(Duration::ZERO)).unwrap();
}

fn half_close(mut client: Client) {
    client.close_sending_side();
    client.read_to_close();
}

/// 100 kB in which every octet occurs, a lone CR or LF soon.
fn garbage(seed: u64) -> Vec<u8> {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 32) as u8
    };
    (0..100_000).map(|_| next()).collect()
}

fn assert_grown_by_at_most(kib: u64, before: u64, daemon: &Daemon) {
    let now = daemon.resident_kib().unwrap();
    assert!(now <= before + kib, "resident memory grew from {before} to {now} KiB");
}
