//! The loaded XDP program over several packets, without any interface (BPF_PROG_TEST_RUN): what changes between them, and what is
//! noted of them. What becomes of one packet is said in `tests/packets`.
//!
//! Needs root and a binary with the eBPF object in it; else each test says why it was skipped.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ingress_ebpf::abi::{BUCKETS, PORTS_MAX, Verdict};
use ingress_ebpf::packets::{Frame, Network};
use ingress_user::config::{FilterConfig, FilterMode};
use ingress_user::worker::clock::Now;
use ingress_user::xdp::{self, Action, Lists, Prefilter, Redirection, Setup, XdpError};

const PORTS: [u16; 2] = [25, 465];

/// Longer than any test.
const HOUR: Duration = Duration::from_secs(3_600);

/// None, with the reason printed, where the program cannot be loaded.
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

const PASSED: (Action, &str) = (Action::Pass, Verdict::Passed.name());
const STEERED: (Action, &str) = (Action::Redirect, Verdict::Steered.name());

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
fn a_ban_drops_every_packet_of_its_client_until_it_ends() {
    let Some(mut prefilter) = load(Redirection::Cpus(&[0]), &generous()) else { return };
    let filter = Arc::clone(prefilter.filter());
    for frame in [Frame::v4(25), Frame::v6(465, &[])] {
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
    assert_eq!(judge(&mut prefilter, &banned.bytes()), UNATTENDED);
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
fn a_flood_of_made_up_sources_is_not_told_of_one_by_one() {
    let Some(mut prefilter) = load(Redirection::Off, &generous()) else { return };
    // Samples are counted for each CPU.
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    let _ = cpus.first().map(|cpu| core_affinity::set_for_current(*cpu));
    let began = Now::read().monotonic;
    for number in 0..6_000_u32 {
        let [.., high, low] = number.to_be_bytes();
        let frame = from(Frame::v4(25), [198, 18, high, low].into());
        let _ = prefilter.run(&flagged(frame, 0)).unwrap();
    }
    let filter = prefilter.filter();
    let (told, lost) = (filter.samples().len() as u64, filter.samples_lost());
    assert_eq!(told + lost, 6_000, "each is the first drop of its source");
    // Four seconds' worth at once, and what came back meanwhile.
    let seconds = began.elapsed().as_secs() + 1;
    assert!((4_000..=4_001 + 1_000 * seconds).contains(&told), "{told} in {seconds} s");
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
    assert_eq!(prefilter.shares(&[0, 1]), [buckets / 2, buckets / 2]);
    prefilter.redirect_to(&[1]).unwrap();
    assert_eq!(prefilter.shares(&[0, 1]), [0, buckets]);
    prefilter.redirect_to(&[]).unwrap();
    assert_eq!(prefilter.shares(&[0, 1]), [0, buckets], "nobody is left to take them");
}

/// All buckets are CPU 0's. CPU 1 has no place in the map of CPUs, so that what goes there is seen to pass.
fn steered_to_cpu_0() -> Option<Prefilter> {
    load(Redirection::Cpus(&[0]), &generous())
}

/// The CPU that a packet of the client with this port goes to, in [`steered_to_cpu_0`].
fn cpu(prefilter: &mut Prefilter, port: u16, flags: u8) -> usize {
    let mut frame = Frame::v4(25);
    frame.source_port = port;
    match prefilter.run(&flagged(frame, flags)).unwrap() {
        Action::Redirect => 0,
        Action::Pass => 1,
        other => panic!("{other:?}"),
    }
}

const ALL: usize = BUCKETS as usize;

#[test]
fn open_connections_keep_their_cpu_while_their_buckets_move() {
    let Some(mut prefilter) = steered_to_cpu_0() else { return };
    let mut given = Vec::new();
    // So many ports at a time that each bucket has some of them.
    let mut connect = |prefilter: &mut Prefilter, first: u16, cpu_of_new| {
        for port in first..first + 2_000 {
            assert_eq!(cpu(prefilter, port, SYN), cpu_of_new, "{port}");
            given.push((port, cpu_of_new));
        }
        for &(port, given) in &given {
            assert_eq!(cpu(prefilter, port, ACK), given, "{port}");
        }
    };
    connect(&mut prefilter, 10_000, 0);
    for (first, from, to) in [(20_000, 0, 1), (30_000, 1, 0), (40_000, 0, 1)] {
        assert_eq!(prefilter.give(from, to, ALL).unwrap(), ALL);
        connect(&mut prefilter, first, to);
    }
}

#[test]
fn a_part_of_the_buckets_moves_and_first_those_that_moved_before() {
    let Some(mut prefilter) = steered_to_cpu_0() else { return };
    let at_cpu_1 = |prefilter: &mut Prefilter| -> Vec<u16> {
        (1_000..3_000).filter(|port| cpu(prefilter, *port, SYN) == 1).collect()
    };
    prefilter.give(0, 1, ALL / 8).unwrap();
    assert_eq!(prefilter.shares(&[0, 1]), [ALL - ALL / 8, ALL / 8]);
    let first = at_cpu_1(&mut prefilter);
    // An eighth of the 2,000; a fair hash is that far off once in a thousand million runs.
    assert!((160..340).contains(&first.len()), "{}", first.len());
    assert_eq!(prefilter.give(1, 0, ALL).unwrap(), ALL / 8, "it has no more");
    assert!(at_cpu_1(&mut prefilter).is_empty());
    prefilter.give(0, 1, ALL / 8).unwrap();
    assert_eq!(at_cpu_1(&mut prefilter), first);
}

#[test]
fn the_living_take_over_open_and_new_connections_of_moved_buckets() {
    let Some(mut prefilter) = steered_to_cpu_0() else { return };
    prefilter.give(0, 1, ALL / 2).unwrap();
    // CPU 0 was the home of all.
    prefilter.redirect_to(&[1]).unwrap();
    for port in 1_000..2_000 {
        assert_eq!(cpu(&mut prefilter, port, ACK), 1, "{port}");
        assert_eq!(cpu(&mut prefilter, port, SYN), 1, "{port}");
    }
    prefilter.redirect_to(&[0]).unwrap();
    for port in 2_000..3_000 {
        assert_eq!(cpu(&mut prefilter, port, ACK), 0, "{port}");
        assert_eq!(cpu(&mut prefilter, port, SYN), 0, "{port}");
    }
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
