//! SYNs that the loaded XDP program answers with a cookie, without any interface (BPF_PROG_TEST_RUN). The queue of a
//! listener is made so short that one client fills it: the kernel then makes cookies without a flood.
//!
//! Needs root, a kernel that makes SYN cookies, and a binary with the eBPF object in it; else each test says why it was skipped.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use ingress_ebpf::abi::Verdict;
use ingress_ebpf::packets::{Extension, Frame, Network, Tag};
use ingress_user::config::{FilterConfig, FilterMode};
use ingress_user::worker::clock::Now;
use ingress_user::xdp::{self, Action, Prefilter, Redirection, Setup, XdpError};
use socket2::{Domain, SockFilter, Socket, Type};

const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// More SYNs than a CPU's budget, which is two at once, on every CPU that the test may run on.
const FLOOD: u16 = 1_000;

/// linux/bpf_common.h: the filter's answer.
const BPF_RET: u16 = 6;

const COOKIE_SENT: (Action, &str) = (Action::Answer, Verdict::CookieSent.name());
const UNDER_PRESSURE: (Action, &str) = (Action::Drop, Verdict::UnderPressure.name());
const PASSED: (Action, &str) = (Action::Pass, Verdict::Passed.name());

fn config() -> FilterConfig {
    FilterConfig {
        connections_per_second: 0,
        pressure_per_second: 1,
        syn_cookies: true,
        syn_payload_bytes_max: 1_000,
        ..FilterConfig::default()
    }
}

/// net.ipv4.tcp_syncookies.
fn switch() -> u32 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/tcp_syncookies").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn listener(address: IpAddr, backlog: i32) -> TcpListener {
    let address = SocketAddr::new(address, 0);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(backlog).unwrap();
    socket.into()
}

/// A listener of which the queue of connections to be is full: its only client does not hear its answer.
fn full_listener(address: IpAddr) -> (TcpListener, Socket) {
    let listener = listener(address, 0);
    let address = listener.local_addr().unwrap();
    let client = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    // Every packet has no octets left after it.
    client.attach_filter(&[SockFilter::new(BPF_RET, 0, 0, 0)]).unwrap();
    client.set_nonblocking(true).unwrap();
    let _in_progress = client.connect(&address.into());
    let deadline = Now::read().monotonic + Duration::from_secs(20);
    while !is_asked(address) {
        assert!(Now::read().monotonic < deadline, "no SYN came");
        std::thread::yield_now();
    }
    (listener, client)
}

/// Whether somebody waits in the queue of this listener, as in proc_pid_net(5): state SYN-RECEIVED.
fn is_asked(listener: SocketAddr) -> bool {
    let table = if listener.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" };
    let port = format!(":{:04X}", listener.port());
    fs::read_to_string(table).unwrap().lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(&port)) && words.nth(1) == Some("03")
    })
}

/// None, with the reason printed, where the program cannot be loaded.
fn load(port: u16, filter: &FilterConfig) -> Option<Prefilter> {
    let setup = Setup {
        ports: &[port],
        interfaces: &[],
        redirection: Redirection::Off,
        heartbeat_timeout: Duration::from_secs(3_600),
        filter,
    };
    let prefilter =
        xdp::object().ok_or(XdpError::NoObject).and_then(|it| Prefilter::load(it, setup));
    match prefilter {
        Err(error @ (XdpError::NoObject | XdpError::NotPermitted { .. })) => {
            println!("skipped: {error}");
            None
        }
        _ if switch() == 0 => {
            println!("skipped: the kernel makes no SYN cookies");
            None
        }
        loaded => Some(loaded.unwrap_or_else(|error| panic!("{error}: {error:?}"))),
    }
}

/// A SYN to a listener on this machine.
fn syn(address: SocketAddr, source_port: u16) -> Frame {
    let mut frame = match address {
        SocketAddr::V4(_) => Frame::v4(address.port()),
        SocketAddr::V6(_) => Frame::v6(address.port(), &[]),
    };
    match (&mut frame.network, address.ip()) {
        (Network::V4 { destination, .. }, IpAddr::V4(ip)) => *destination = ip,
        (Network::V6 { destination, .. }, IpAddr::V6(ip)) => *destination = ip,
        _ => unreachable!(),
    }
    frame.source_port = source_port;
    frame
}

/// Runs a frame: the action, the counter that moved, and the frame that is left.
fn judge(prefilter: &mut Prefilter, frame: &[u8]) -> ((Action, &'static str), Vec<u8>) {
    let before = prefilter.verdicts().unwrap();
    let (action, left) = prefilter.run_through(frame).unwrap();
    let after = prefilter.verdicts().unwrap();
    let moved = before.into_iter().zip(after).find(|(before, after)| before != after);
    ((action, moved.expect("a counter").0.0), left)
}

/// What becomes of a SYN of this shape when there are too many.
fn judge_under_pressure(
    prefilter: &mut Prefilter,
    shape: impl Fn(u16) -> Vec<u8>,
) -> ((Action, &'static str), Vec<u8>) {
    let verdicts = (0..FLOOD).map(|number| judge(prefilter, &shape(10_000 + number)));
    verdicts.into_iter().find(|(verdict, _)| *verdict != PASSED).expect("a SYN beyond the budget")
}

/// RFC 1071: all ones, where a checksum stands among the octets.
fn sum(octets: &[u8]) -> u32 {
    let mut sum: u32 =
        octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

/// A whole answer to `asked`, of which the IP header stands at `at`.
fn check_answer(asked: &[u8], answer: &[u8], at: usize, sequence: u32) {
    assert_eq!(answer[..6], asked[6..12], "to the station that it came from");
    assert_eq!(answer[6..12], asked[..6]);
    assert_eq!(answer[12..at], asked[12..at], "tags and type");
    let (asked, answer) = (&asked[at..], &answer[at..]);
    let is_v4 = asked[0] >> 4 == 4;
    let (addresses, tcp, padding) = if is_v4 { (12, 20, 4) } else { (8, 40, 0) };
    assert_eq!(answer.len(), tcp + 24 + padding);
    let size = (tcp - addresses) / 2;
    let (client, server) = (addresses..addresses + size, addresses + size..tcp);
    assert_eq!(answer[client.clone()], asked[server.clone()]);
    assert_eq!(answer[server], asked[client]);
    if is_v4 {
        assert_eq!(sum(&answer[..tcp]), 0xffff);
    }
    let pseudo_header = [&answer[addresses..tcp], &[0, 6, 0, 24]].concat();
    let header = &answer[tcp..tcp + 24];
    assert_eq!(sum(&[&pseudo_header, header].concat()), 0xffff);
    assert_eq!(header[..2], asked[tcp + 2..tcp + 4], "ports");
    assert_eq!(header[2..4], asked[tcp..tcp + 2]);
    assert_eq!(header[8..12], sequence.wrapping_add(1).to_be_bytes(), "the SYN is acknowledged");
    assert_eq!(header[12..14], [6 << 4, 0x12], "SYN and ACK");
    assert_ne!(header[4..8], [0; 4], "a cookie");
}

#[test]
fn a_syn_under_pressure_is_answered_in_every_shape() {
    const SEQUENCE: u32 = u32::MAX;
    let tags = [Tag::Provider(7), Tag::Customer(9)];
    for address in ADDRESSES {
        let (listener, _client) = full_listener(address);
        let address = listener.local_addr().unwrap();
        for (count, at) in [(0, 14), (1, 18), (2, 22)] {
            // Words of options: none, an MSS, and as many as there can be; the answer has one word of them.
            for words in [0, 1, 10] {
                let Some(mut prefilter) = load(address.port(), &config()) else { return };
                let shape = |port| {
                    let mut frame = syn(address, port).tagged(&tags[..count]);
                    frame.payload = [2, 4, 0x05, 0xb4].repeat(words);
                    let mut bytes = frame.bytes();
                    let tcp = bytes.len() - 20 - words * 4;
                    bytes[tcp + 4..tcp + 8].copy_from_slice(&SEQUENCE.to_be_bytes());
                    bytes[tcp + 12] = (5 + words as u8) << 4;
                    bytes
                };
                let (verdict, answer) = judge_under_pressure(&mut prefilter, shape);
                assert_eq!(verdict, COOKIE_SENT, "{address} {count} tags, {words} words");
                // Which of the flood it was does not matter but for its port.
                let tcp = if address.is_ipv4() { at + 20 } else { at + 40 };
                let port = u16::from_be_bytes([answer[tcp + 2], answer[tcp + 3]]);
                check_answer(&shape(port), &answer, at, SEQUENCE);
            }
        }
    }
}

#[test]
fn data_in_a_syn_is_neither_acknowledged_nor_sent_back() {
    let (listener, _client) = full_listener(ADDRESSES[0]);
    let address = listener.local_addr().unwrap();
    let Some(mut prefilter) = load(address.port(), &config()) else { return };
    let shape = |port| {
        let mut frame = syn(address, port);
        frame.payload = vec![b'x'; 1_000];
        frame.bytes()
    };
    let (verdict, answer) = judge_under_pressure(&mut prefilter, shape);
    assert_eq!(verdict, COOKIE_SENT);
    let port = u16::from_be_bytes([answer[36], answer[37]]);
    check_answer(&shape(port), &answer, 14, 0);
}

/// The verdict without cookies, and a frame that nobody has touched.
fn assert_unanswered(filter: &FilterConfig, shape: impl Fn(SocketAddr, u16) -> Vec<u8>) {
    let (listener, _client) = full_listener(ADDRESSES[0]);
    let address = listener.local_addr().unwrap();
    let Some(mut prefilter) = load(address.port(), filter) else { return };
    let (verdict, left) = judge_under_pressure(&mut prefilter, |port| shape(address, port));
    assert_eq!(verdict, UNDER_PRESSURE);
    let port = u16::from_be_bytes([left[left.len() - 20], left[left.len() - 19]]);
    assert_eq!(left, shape(address, port));
}

#[test]
fn nobody_is_answered_unless_asked_for() {
    let filter = FilterConfig { syn_cookies: false, ..config() };
    assert_unanswered(&filter, |address, port| syn(address, port).bytes());
}

#[test]
fn a_syn_with_ip_options_or_extension_headers_has_to_come_twice() {
    assert_unanswered(&config(), |address, port| {
        let mut frame = syn(address, port);
        let Network::V4 { option_words, .. } = &mut frame.network else { unreachable!() };
        *option_words = 1;
        frame.bytes()
    });
    let (listener, _client) = full_listener(ADDRESSES[1]);
    let address = listener.local_addr().unwrap();
    let Some(mut prefilter) = load(address.port(), &config()) else { return };
    let (verdict, _) = judge_under_pressure(&mut prefilter, |port| {
        let mut frame = syn(address, port);
        let Network::V6 { extensions, .. } = &mut frame.network else { unreachable!() };
        extensions.push(Extension::HopByHop);
        frame.bytes()
    });
    assert_eq!(verdict, UNDER_PRESSURE);
}

#[test]
fn an_address_without_a_listener_does_not_answer() {
    assert_unanswered(&config(), |address, port| {
        syn(SocketAddr::new([127, 0, 0, 9].into(), address.port()), port).bytes()
    });
}

#[test]
fn a_header_that_ends_behind_the_frame_is_not_answered() {
    let (listener, _client) = full_listener(ADDRESSES[0]);
    let address = listener.local_addr().unwrap();
    let Some(mut prefilter) = load(address.port(), &config()) else { return };
    let (verdict, _) = judge_under_pressure(&mut prefilter, |port| {
        let mut bytes = syn(address, port).bytes();
        bytes[14 + 20 + 12] = 15 << 4;
        bytes
    });
    assert_eq!(verdict, UNDER_PRESSURE);
}

#[test]
fn a_listener_with_places_left_sends_its_clients_to_try_twice() {
    if switch() != 1 {
        println!("skipped: net.ipv4.tcp_syncookies is not 1");
        return;
    }
    let listener = listener(ADDRESSES[0], 128);
    let address = listener.local_addr().unwrap();
    let Some(mut prefilter) = load(address.port(), &config()) else { return };
    let shape = |port| syn(address, port).bytes();
    let (verdict, left) = judge_under_pressure(&mut prefilter, shape);
    assert_eq!(verdict, UNDER_PRESSURE);
    assert_eq!(left, shape(u16::from_be_bytes([left[34], left[35]])));
}

#[test]
fn a_monitor_answers_nobody() {
    let (listener, _client) = full_listener(ADDRESSES[0]);
    let address = listener.local_addr().unwrap();
    let filter = FilterConfig { mode: FilterMode::Monitor, ..config() };
    let Some(mut prefilter) = load(address.port(), &filter) else { return };
    let (verdict, _) = judge_under_pressure(&mut prefilter, |port| syn(address, port).bytes());
    assert_eq!(verdict, (Action::Pass, Verdict::UnderPressure.name()));
}

#[test]
fn a_syn_from_the_port_of_an_open_connection_is_left_to_the_stack() {
    for address in ADDRESSES {
        let listener = listener(address, 1);
        let address = listener.local_addr().unwrap();
        let Some(mut prefilter) = load(address.port(), &config()) else { return };
        let client = TcpStream::connect(address).unwrap();
        let mut frame = syn(address, client.local_addr().unwrap().port());
        match &mut frame.network {
            Network::V4 { source, .. } => *source = Ipv4Addr::LOCALHOST,
            Network::V6 { source, .. } => *source = Ipv6Addr::LOCALHOST,
        }
        let _ = judge_under_pressure(&mut prefilter, |port| syn(address, port).bytes());
        // The budget lets one of them pass within a second, not all.
        for _ in 0..20 {
            let (verdict, left) = judge(&mut prefilter, &frame.bytes());
            assert_eq!(verdict, PASSED);
            assert_eq!(left, frame.bytes());
        }
    }
}
