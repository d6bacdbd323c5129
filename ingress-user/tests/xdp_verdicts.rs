//! The loaded XDP program, packet in and verdict out, without any interface (BPF_PROG_TEST_RUN).
//!
//! Needs root and a binary with the eBPF object in it; else each test says why it was skipped.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ingress_ebpf::abi::{BUCKETS, PORTS_MAX, Verdict};
use ingress_ebpf::decode::{Miss, decode};
use ingress_ebpf::packets::{Extension, Frame, Network, Tag};
use ingress_user::config::{FilterConfig, FilterMode};
use ingress_user::worker::clock::Now;
use ingress_user::xdp::{self, Action, Lists, Prefilter, Redirection, Setup, XdpError};

const PORTS: [u16; 2] = [25, 465];

/// The test run refuses what is shorter than an Ethernet header.
const FRAME_BYTES_MIN: usize = 14;

/// None, with the reason printed, where the program cannot be loaded. There is no filter in it.
fn prefilter(redirection: Redirection<'_>) -> Option<Prefilter> {
    load(redirection, &FilterConfig { mode: FilterMode::Off, ..FilterConfig::default() })
}

/// Longer than any test.
const HOUR: Duration = Duration::from_secs(3_600);

fn load(redirection: Redirection<'_>, filter: &FilterConfig) -> Option<Prefilter> {
    load_attended(redirection, filter, HOUR)
}

fn load_attended(
    redirection: Redirection<'_>,
    filter: &FilterConfig,
    heartbeat_timeout: Duration,
) -> Option<Prefilter> {
    let Some(object) = xdp::object() else {
        println!("skipped: {}", XdpError::NoObject);
        return None;
    };
    let setup = Setup { ports: &PORTS, interfaces: &[], redirection, heartbeat_timeout, filter };
    match Prefilter::load(object, setup) {
        Ok(prefilter) => Some(prefilter),
        Err(error @ XdpError::NotPermitted { .. }) => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}: {error:?}"),
    }
}

/// Runs one frame and tells which counter moved.
fn judge(prefilter: &mut Prefilter, frame: &[u8]) -> (Action, &'static str) {
    let before = prefilter.verdicts().unwrap();
    let action = prefilter.run(frame).unwrap();
    let after = prefilter.verdicts().unwrap();
    let moved: Vec<_> = before
        .into_iter()
        .zip(after)
        .filter(|(before, after)| before != after)
        .map(|((name, before), (_, after))| (name, after - before))
        .collect();
    let [(name, 1)] = moved[..] else { panic!("one frame moved {moved:?}") };
    (action, name)
}

const NOT_OURS: (Action, &str) = (Action::Pass, Verdict::NotOurs.name());
const NOT_UNDERSTOOD: (Action, &str) = (Action::Pass, Verdict::NotUnderstood.name());
const PASSED: (Action, &str) = (Action::Pass, Verdict::Passed.name());
const STEERED: (Action, &str) = (Action::Redirect, Verdict::Steered.name());

/// Every shape that the decoder understands, to a port of ours.
fn ours() -> Vec<Frame> {
    let mut with_options = Frame::v4(465);
    let Network::V4 { option_words, .. } = &mut with_options.network else { unreachable!() };
    *option_words = 10;
    let every_extension = [
        Extension::HopByHop,
        Extension::DestinationOptions,
        Extension::Routing,
        Extension::Authentication,
    ];
    vec![
        Frame::v4(25),
        with_options,
        Frame::v4(25).tagged(&[Tag::Customer(7)]),
        Frame::v4(25).tagged(&[Tag::Provider(7), Tag::Customer(9)]),
        Frame::v6(25, &[]),
        Frame::v6(465, &every_extension[..1]),
        Frame::v6(465, &every_extension),
        Frame::v6(25, &every_extension).tagged(&[Tag::Provider(7), Tag::Customer(9)]),
    ]
}

#[test]
fn mail_passes_when_nothing_is_steered() {
    let Some(mut prefilter) = prefilter(Redirection::Off) else { return };
    for frame in ours() {
        assert_eq!(judge(&mut prefilter, &frame.bytes()), PASSED, "{frame:?}");
    }
}

#[test]
fn mail_is_redirected_when_it_is_steered() {
    let Some(mut prefilter) = prefilter(Redirection::Cpus(&[0])) else { return };
    for frame in ours() {
        assert_eq!(judge(&mut prefilter, &frame.bytes()), STEERED, "{frame:?}");
    }
}

#[test]
fn other_traffic_passes() {
    let Some(mut prefilter) = prefilter(Redirection::Cpus(&[0])) else { return };
    let mut udp = Frame::v4(25);
    let Network::V4 { protocol, .. } = &mut udp.network else { unreachable!() };
    *protocol = 17;
    let mut arp = Frame::v4(25).bytes();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    for frame in [Frame::v4(22).bytes(), Frame::v6(0, &[]).bytes(), udp.bytes(), arp] {
        assert_eq!(judge(&mut prefilter, &frame), NOT_OURS, "{frame:02x?}");
    }
}

#[test]
fn fragments_pass() {
    let Some(mut prefilter) = prefilter(Redirection::Cpus(&[0])) else { return };
    let fragmented = |wire| {
        let mut frame = Frame::v4(25);
        let Network::V4 { fragment, .. } = &mut frame.network else { unreachable!() };
        *fragment = wire;
        frame
    };
    for frame in [fragmented(0x2000), fragmented(0x0010), Frame::v6(25, &[Extension::Fragment])] {
        assert_eq!(judge(&mut prefilter, &frame.bytes()), NOT_UNDERSTOOD, "{frame:?}");
    }
}

#[test]
fn nesting_deeper_than_we_look_passes() {
    let Some(mut prefilter) = prefilter(Redirection::Cpus(&[0])) else { return };
    let tags = [Tag::Provider(1), Tag::Customer(2), Tag::Customer(3)];
    let extensions = [Extension::DestinationOptions; 5];
    for frame in [Frame::v4(25).tagged(&tags), Frame::v6(25, &extensions)] {
        assert_eq!(judge(&mut prefilter, &frame.bytes()), NOT_UNDERSTOOD, "{frame:?}");
    }
}

#[test]
fn mail_cut_at_every_length_passes() {
    let Some(mut prefilter) = prefilter(Redirection::Cpus(&[0])) else { return };
    for frame in ours() {
        let bytes = frame.bytes();
        for end in FRAME_BYTES_MIN..bytes.len() {
            let verdict = judge(&mut prefilter, &bytes[..end]);
            assert_eq!(verdict, NOT_UNDERSTOOD, "{end} bytes of {frame:?}");
        }
    }
}

/// The kernel's copy of the decoder judges as the host's does, damaged frames included.
#[test]
fn kernel_and_host_agree() {
    let Some(mut prefilter) = prefilter(Redirection::Off) else { return };
    for frame in ours() {
        let intact = frame.bytes();
        for at in 12..intact.len() {
            for value in [0x00, 0x4f, 0xff] {
                let mut bytes = intact.clone();
                bytes[at] = value;
                let expected = match decode(&bytes.as_slice()) {
                    Ok(segment) if PORTS.contains(&segment.destination_port) => PASSED,
                    Ok(_) | Err(Miss::NotTcp) => NOT_OURS,
                    Err(Miss::NotUnderstood) => NOT_UNDERSTOOD,
                };
                assert_eq!(judge(&mut prefilter, &bytes), expected, "byte {at}: {bytes:02x?}");
            }
        }
    }
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Budgets that no test here reaches by accident.
fn generous() -> FilterConfig {
    FilterConfig {
        connections_per_second: 100_000,
        connections_burst: 1_000_000,
        pressure_per_second: 0,
        ..FilterConfig::default()
    }
}

fn dropped(verdict: Verdict) -> (Action, &'static str) {
    (Action::Drop, verdict.name())
}

fn flagged(mut frame: Frame, flags: u8) -> Vec<u8> {
    frame.flags = flags;
    frame.bytes()
}

/// From another address than [`Frame::v4`] and [`Frame::v6`] give.
fn from(mut frame: Frame, address: IpAddr) -> Frame {
    match (&mut frame.network, address) {
        (Network::V4 { source, .. }, IpAddr::V4(address)) => *source = address,
        (Network::V6 { source, .. }, IpAddr::V6(address)) => *source = address,
        _ => panic!("{address} is of the other family"),
    }
    frame
}

fn source(frame: &Frame) -> IpAddr {
    match &frame.network {
        Network::V4 { source, .. } => (*source).into(),
        Network::V6 { source, .. } => (*source).into(),
    }
}

#[test]
fn mail_in_every_shape_passes_the_filter_and_is_steered() {
    let Some(mut prefilter) = load(Redirection::Cpus(&[0]), &generous()) else { return };
    for frame in ours() {
        for flags in [SYN, SYN | 0xc0, ACK, ACK | 0x08, 0x11, 0x14, 0x04] {
            assert_eq!(
                judge(&mut prefilter, &flagged(frame.clone(), flags)),
                STEERED,
                "{frame:?} {flags:#x}"
            );
        }
    }
}

#[test]
fn flags_that_no_stack_sends_are_dropped() {
    let Some(mut prefilter) = load(Redirection::Cpus(&[0]), &generous()) else { return };
    for frame in ours() {
        for flags in [0, 0x29, 0x2b, 0x03, 0x06, 0x07, 0x13, 0x16, 0xc0] {
            let verdict = judge(&mut prefilter, &flagged(frame.clone(), flags));
            assert_eq!(verdict, dropped(Verdict::BadFlags), "{frame:?} {flags:#x}");
        }
    }
    // For others the stack is responsible.
    assert_eq!(judge(&mut prefilter, &flagged(Frame::v4(22), 0)), NOT_OURS);
}

#[test]
fn a_ban_drops_every_packet_of_its_client_until_it_ends() {
    let Some(mut prefilter) = load(Redirection::Cpus(&[0]), &generous()) else { return };
    let filter = Arc::clone(prefilter.filter());
    for frame in ours() {
        let client = source(&frame);
        filter.ban(client, Duration::from_secs(3_600)).unwrap();
        for flags in [SYN, ACK] {
            let verdict = judge(&mut prefilter, &flagged(frame.clone(), flags));
            assert_eq!(verdict, dropped(Verdict::Banned), "{frame:?}");
        }
        assert_eq!(filter.packets_of_ban(client), 2);
        // Banned again, it is the same ban with another end.
        filter.ban(client, Duration::ZERO).unwrap();
        assert_eq!(judge(&mut prefilter, &frame.bytes()), STEERED, "its end has come");
        assert_eq!(filter.packets_of_ban(client), 2);
        filter.ban(client, Duration::from_secs(3_600)).unwrap();
        filter.lift_ban(client);
        assert_eq!(judge(&mut prefilter, &frame.bytes()), STEERED, "lifted");
    }
}

#[test]
fn a_filter_without_a_daemon_passes_everything() {
    // Long enough for a heartbeat and a packet, on a busy machine too.
    let timeout = Duration::from_secs(2);
    let Some(mut prefilter) = load_attended(Redirection::Cpus(&[0]), &generous(), timeout) else {
        return;
    };
    let banned = Frame::v4(25);
    prefilter.filter().ban(source(&banned), HOUR).unwrap();
    prefilter.beat().unwrap();
    assert_eq!(judge(&mut prefilter, &banned.bytes()), dropped(Verdict::Banned));
    let deadline = Now::read().monotonic + 10 * timeout;
    while judge(&mut prefilter, &banned.bytes()) == dropped(Verdict::Banned) {
        assert!(Now::read().monotonic < deadline, "the filter goes on without a daemon");
    }
    const UNATTENDED: (Action, &str) = (Action::Pass, Verdict::Unattended.name());
    for frame in ours() {
        for flags in [SYN, ACK, 0] {
            let verdict = judge(&mut prefilter, &flagged(frame.clone(), flags));
            assert_eq!(verdict, UNATTENDED, "{frame:?} {flags:#x}");
        }
    }
    assert_eq!(judge(&mut prefilter, &Frame::v4(22).bytes()), NOT_OURS);
    assert!(prefilter.beat().unwrap() > timeout);
    assert_eq!(judge(&mut prefilter, &banned.bytes()), dropped(Verdict::Banned), "it is back");
}

#[test]
fn bans_of_neighbours_are_told_apart_and_counted_apart() {
    let Some(mut prefilter) = load(Redirection::Off, &generous()) else { return };
    let filter = Arc::clone(prefilter.filter());
    let neighbour =
        |number: u32| IpAddr::from([198, 18, (number >> 8) as u8, (number & 0xff) as u8]);
    let lifetime = Duration::from_secs(3_600);
    for number in 0..2_000 {
        filter.ban(neighbour(number), lifetime).unwrap();
    }
    for number in (0..2_000).step_by(2) {
        filter.lift_ban(neighbour(number));
    }
    for number in 0..2_000 {
        let frame = from(Frame::v4(25), neighbour(number)).bytes();
        let is_banned = number % 2 == 1;
        let expected = if is_banned { dropped(Verdict::Banned) } else { PASSED };
        assert_eq!(judge(&mut prefilter, &frame), expected, "{number}");
        assert_eq!(filter.packets_of_ban(neighbour(number)), u64::from(is_banned), "{number}");
    }
    filter.lift_ban(neighbour(1));
    filter.ban(neighbour(1), lifetime).unwrap();
    assert_eq!(filter.packets_of_ban(neighbour(1)), 0, "a new ban in an old place");
}

#[test]
fn an_ipv6_client_is_banned_with_its_network_and_an_ipv4_client_alone() {
    let Some(mut prefilter) = load(Redirection::Off, &generous()) else { return };
    let filter = Arc::clone(prefilter.filter());
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    filter.ban(address("2001:db8:0:1::7"), Duration::from_secs(60)).unwrap();
    filter.ban(address("192.0.2.7"), Duration::from_secs(60)).unwrap();
    let mut of =
        |frame: Frame, client| judge(&mut prefilter, &from(frame, address(client)).bytes());
    assert_eq!(of(Frame::v6(25, &[]), "2001:db8:0:1:ffff::"), dropped(Verdict::Banned));
    assert_eq!(of(Frame::v6(25, &[]), "2001:db8:0:2::7"), PASSED);
    assert_eq!(of(Frame::v4(25), "192.0.2.7"), dropped(Verdict::Banned));
    assert_eq!(of(Frame::v4(25), "192.0.2.8"), PASSED);
}

#[test]
fn the_lists_decide_about_new_connections_alone() {
    let Some(mut prefilter) = load(Redirection::Cpus(&[0]), &generous()) else { return };
    let lists = Lists::new(
        ["192.0.2.0/29".parse().unwrap(), "2001:db8:0:1::/64".parse().unwrap()],
        ["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
    );
    prefilter.filter().set_lists(lists).unwrap();
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let mut of = |frame: Frame, client, flags| {
        judge(&mut prefilter, &flagged(from(frame, address(client)), flags))
    };
    const ALLOWED: (Action, &str) = (Action::Redirect, Verdict::Allowed.name());
    assert_eq!(of(Frame::v4(25), "192.0.2.7", SYN), ALLOWED);
    assert_eq!(of(Frame::v4(25), "192.0.2.8", SYN), dropped(Verdict::Denied));
    assert_eq!(of(Frame::v4(25), "192.0.2.8", ACK), STEERED);
    assert_eq!(of(Frame::v4(25), "192.0.3.8", SYN), STEERED);
    assert_eq!(of(Frame::v6(25, &[]), "2001:db8:0:1::9", SYN), ALLOWED);
    assert_eq!(
        of(Frame::v6(25, &[Extension::HopByHop]), "2001:db8:0:2::9", SYN),
        dropped(Verdict::Denied)
    );
    assert_eq!(of(Frame::v6(25, &[]), "2001:db9::9", SYN), STEERED);
}

#[test]
fn lists_are_exchanged_as_often_as_one_likes() {
    let Some(mut prefilter) = load(Redirection::Off, &generous()) else { return };
    let filter = Arc::clone(prefilter.filter());
    let denied =
        |networks: &[&str]| Lists::new([], networks.iter().map(|text| text.parse().unwrap()));
    let rounds: [(&[&str], bool); 6] = [
        (&["192.0.2.0/24"], true),
        (&["192.0.2.0/30"], false),
        (&["192.0.0.0/8", "192.0.2.0/30"], true),
        (&["192.0.2.7/32", "2001:db8::/32"], true),
        (&[], false),
        (&["0.0.0.0/0"], true),
    ];
    for (networks, is_denied) in rounds {
        filter.set_lists(denied(networks)).unwrap();
        let expected = if is_denied { dropped(Verdict::Denied) } else { PASSED };
        assert_eq!(judge(&mut prefilter, &Frame::v4(25).bytes()), expected, "{networks:?}");
    }
}

#[test]
fn a_syn_with_data_is_dropped_beyond_what_is_allowed() {
    let config = FilterConfig { syn_payload_bytes_max: 100, ..generous() };
    let Some(mut prefilter) = load(Redirection::Off, &config) else { return };
    for mut frame in ours() {
        frame.payload = vec![b'x'; 100];
        assert_eq!(judge(&mut prefilter, &frame.bytes()), PASSED, "{frame:?}");
        frame.payload.push(b'x');
        assert_eq!(
            judge(&mut prefilter, &frame.bytes()),
            dropped(Verdict::SynPayload),
            "{frame:?}"
        );
        assert_eq!(judge(&mut prefilter, &flagged(frame.clone(), ACK)), PASSED, "{frame:?}");
    }
}

#[test]
fn a_source_beyond_its_budget_is_dropped_and_others_are_not() {
    let config = FilterConfig { connections_per_second: 1, connections_burst: 5, ..generous() };
    let Some(mut prefilter) = load(Redirection::Off, &config) else { return };
    for frame in [Frame::v4(25), Frame::v6(25, &[])] {
        for _ in 0..5 {
            assert_eq!(judge(&mut prefilter, &frame.bytes()), PASSED);
        }
        assert_eq!(judge(&mut prefilter, &frame.bytes()), dropped(Verdict::OverBudget));
        assert_eq!(judge(&mut prefilter, &flagged(frame, ACK)), PASSED);
    }
    let other = from(Frame::v4(25), [192, 0, 2, 99].into());
    assert_eq!(judge(&mut prefilter, &other.bytes()), PASSED);
}

#[test]
fn made_up_sources_are_dropped_under_pressure() {
    let config = FilterConfig { pressure_per_second: 10, ..generous() };
    let Some(mut prefilter) = load(Redirection::Off, &config) else { return };
    let verdicts: Vec<_> = (0..200)
        .map(|number| {
            judge(&mut prefilter, &from(Frame::v4(25), [198, 18, 0, number].into()).bytes())
        })
        .collect();
    let passed = verdicts.iter().filter(|verdict| **verdict == PASSED).count();
    // Ten at once and the one that finds the budget whole; the test runs on more than one CPU, each with its own.
    assert!((11..150).contains(&passed), "{passed}");
    assert!(verdicts.contains(&dropped(Verdict::UnderPressure)));
}

#[test]
fn a_monitor_counts_and_samples_and_drops_nothing() {
    let config = FilterConfig { mode: FilterMode::Monitor, ..generous() };
    let Some(mut prefilter) = load(Redirection::Cpus(&[0]), &config) else { return };
    let filter = Arc::clone(prefilter.filter());
    filter.ban([192, 0, 2, 7].into(), Duration::from_secs(60)).unwrap();
    let verdict = judge(&mut prefilter, &Frame::v4(25).bytes());
    assert_eq!(verdict, (Action::Redirect, Verdict::Banned.name()));
    assert_eq!(filter.samples().len(), 1);
}

#[test]
fn the_first_drop_of_a_source_is_sampled_and_some_after_it() {
    let config = FilterConfig { sample_every: 16, ..generous() };
    let Some(mut prefilter) = load(Redirection::Off, &config) else { return };
    let filter = Arc::clone(prefilter.filter());
    for frame in [Frame::v4(465), Frame::v6(25, &[])] {
        filter.ban(source(&frame), Duration::from_secs(60)).unwrap();
        let _ = judge(&mut prefilter, &frame.bytes());
        let [sample] = filter.samples()[..] else { panic!("one drop, one sample") };
        assert_eq!(sample.source, source(&frame));
        assert_eq!((sample.verdict, sample.destination_port), ("banned", frame.destination_port));
        assert_eq!(sample.flags, SYN);
        for _ in 0..400 {
            let _ = judge(&mut prefilter, &frame.bytes());
        }
        // One in 16 on each CPU that the test ran on, where the first is sampled too.
        let more = filter.samples().len();
        assert!((24..=26).contains(&more), "{more}");
    }
    assert_eq!(filter.samples_lost(), 0);
}

#[test]
fn samples_that_nobody_reads_are_counted_as_lost() {
    let Some(mut prefilter) =
        load(Redirection::Off, &FilterConfig { sample_every: 1, ..generous() })
    else {
        return;
    };
    for _ in 0..10_000 {
        let _ = prefilter.run(&flagged(Frame::v4(25), 0)).unwrap();
    }
    let (read, lost) =
        (prefilter.filter().samples().len() as u64, prefilter.filter().samples_lost());
    assert_eq!(read + lost, 10_000);
    assert!(lost > 0);
}

#[test]
fn the_connections_of_a_dead_worker_go_to_the_living_and_theirs_stay() {
    let Some(prefilter) = load(Redirection::Cpus(&[0, 1]), &generous()) else { return };
    let buckets = BUCKETS as usize;
    assert_eq!(prefilter.buckets_of(&[0, 1]).unwrap(), [buckets / 2, buckets / 2]);
    prefilter.redirect_to(&[1]).unwrap();
    assert_eq!(prefilter.buckets_of(&[0, 1]).unwrap(), [0, buckets]);
    prefilter.redirect_to(&[]).unwrap();
    assert_eq!(prefilter.buckets_of(&[0, 1]).unwrap(), [0, buckets], "nobody is left to take them");
}

#[test]
fn more_ports_than_slots_are_refused() {
    // Refused before the object is looked at, and a port that comes twice counts once.
    let ports: Vec<u16> = (1..=9).chain(1..=9).collect();
    let filter = FilterConfig::default();
    let setup = |count| Setup {
        ports: &ports[..count],
        interfaces: &[],
        redirection: Redirection::Off,
        heartbeat_timeout: HOUR,
        filter: &filter,
    };
    let refused = |count| match Prefilter::load(&[], setup(count)) {
        Err(XdpError::TooManyPorts { count }) => Some(count),
        _ => None,
    };
    assert_eq!(refused(PORTS_MAX), None);
    assert_eq!(refused(ports.len()), Some(PORTS_MAX + 1));
}
