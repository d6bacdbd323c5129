//! The packets of `tests/packets`, through the loaded program (BPF_PROG_TEST_RUN) and through its decoder and filter on the host.
//!
//! The program needs root and a binary with the eBPF object in it; else its tests say why they were skipped.

mod corpus;
mod setup;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use ingress_ebpf::abi::Verdict;
use ingress_user::xdp::Action;

use corpus::{FRAME_BYTES_MIN, Packet, packets};
use setup::{Counts, Host, Kernel, LOOPBACK_SLOT, Setup};

/// So that none are lost unnoticed.
const PACKETS_MIN: usize = 120;

/// The fixed part of a TCP header (RFC 9293 section 3.1), and where its control bits are.
const TCP_BYTES_MIN: usize = 20;
const TCP_FLAGS: usize = 13;

/// Frames that are damaged octet by octet are no longer than this, and cuts end so far behind the headers.
const DAMAGED_BYTES_MAX: usize = 256;

const NOT_UNDERSTOOD: (Action, Verdict) = (Action::Pass, Verdict::NotUnderstood);

/// Of packets whose set-up can be shared, those of each set-up.
fn by_shared_setup(packets: &[Packet]) -> BTreeMap<Setup, Vec<&Packet>> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for packet in packets.iter().filter(|packet| packet.setup.is_shared()) {
        groups.entry(packet.setup).or_default().push(packet);
    }
    groups
}

fn only(verdict: Verdict, packets: u64) -> Counts {
    Counts::from([((LOOPBACK_SLOT, 0, verdict.name()), packets)])
}

/// What the program did otherwise than the packet's file says.
fn differences(kernel: &mut Kernel, packet: &Packet) -> Vec<String> {
    let mut differences = Vec::new();
    let (action, out) = kernel.run(&packet.octets);
    let counted = kernel.counted();
    if action != packet.action {
        differences.push(format!("{}: {action:?}, expected {:?}", packet.name, packet.action));
    }
    if counted != only(packet.verdict, 1) {
        let expected = packet.verdict.name();
        differences.push(format!("{}: counted {counted:?}, expected {expected}", packet.name));
    }
    if out != packet.handed_on() {
        differences.push(format!("{}: handed on as {out:02x?}", packet.name));
    }
    differences
}

fn assert_none(differences: &[String]) {
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

#[test]
fn the_program_does_with_every_packet_what_its_file_says() {
    let packets = packets();
    let mut wrong = Vec::new();
    for (setup, group) in by_shared_setup(&packets) {
        let Some(mut kernel) = Kernel::load(setup) else { return };
        for packet in group {
            wrong.extend(differences(&mut kernel, packet));
        }
    }
    for packet in packets.iter().filter(|packet| !packet.setup.is_shared()) {
        let Some(mut kernel) = Kernel::load(packet.setup) else { return };
        wrong.extend(differences(&mut kernel, packet));
    }
    assert_none(&wrong);
}

#[test]
fn the_host_judges_every_packet_as_its_file_says() {
    let mut wrong = Vec::new();
    for packet in packets().iter().filter(|packet| !packet.is_for_kernel_alone) {
        let (action, verdict) = Host::new(packet.setup).run(&packet.octets);
        if (action, verdict) != (packet.action, packet.verdict) {
            wrong.push(format!("{}: {action:?}, {}", packet.name, verdict.name()));
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_verdict_has_its_packets_and_every_packet_a_title_of_its_own() {
    let packets = packets();
    assert!(packets.len() >= PACKETS_MIN, "{} packets", packets.len());
    // A cookie takes a socket that listens: tests/xdp_cookies.rs.
    for verdict in Verdict::ALL.into_iter().filter(|verdict| *verdict != Verdict::CookieSent) {
        let is_there = packets.iter().any(|packet| packet.verdict == verdict);
        assert!(is_there, "no packet for {}", verdict.name());
    }
    let mut titles = BTreeSet::new();
    for packet in &packets {
        assert!(titles.insert(&packet.title), "{}: the title is another one's", packet.name);
    }
}

#[test]
fn every_file_is_in_the_table_of_the_readme() {
    let readme = fs::read_to_string(corpus::folder().join("README.md")).unwrap();
    for file in corpus::files() {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(readme.contains(&format!("| `{name}` |")), "{name}");
    }
}

/// Offset at which the fixed part of the TCP header ends, of packets for our ports.
fn end_of_headers(packet: &Packet) -> Option<usize> {
    let is_ours = !matches!(packet.verdict, Verdict::NotOurs | Verdict::NotUnderstood);
    let tcp = || packet.offset_of("tcp").unwrap_or_else(|| panic!("{}: no `tcp`", packet.name));
    is_ours.then(|| tcp() + TCP_BYTES_MIN)
}

#[test]
fn a_packet_cut_in_its_headers_is_left_to_the_stack_by_the_program() {
    let packets = packets();
    for (setup, group) in by_shared_setup(&packets) {
        let Some(mut kernel) = Kernel::load(setup) else { return };
        for packet in group {
            let Some(end) = end_of_headers(packet) else { continue };
            for end in FRAME_BYTES_MIN..end {
                let cut = &packet.octets[..end];
                assert_eq!(kernel.run(cut), (Action::Pass, cut.to_vec()), "{}", packet.name);
            }
            let cuts = (end - FRAME_BYTES_MIN) as u64;
            assert_eq!(kernel.counted(), only(Verdict::NotUnderstood, cuts), "{}", packet.name);
        }
    }
}

/// Behind its headers, too, a packet is what it was: lengths are those that the headers give.
#[test]
fn a_packet_cut_in_its_headers_is_left_to_the_stack_on_the_host() {
    let packets = packets();
    let ours = packets.iter().filter_map(|packet| Some((packet, end_of_headers(packet)?)));
    for (packet, headers_end) in ours {
        let end_max = packet.octets.len().min(headers_end + DAMAGED_BYTES_MAX);
        for end in 0..end_max {
            let verdict = Host::new(packet.setup).run(&packet.octets[..end]);
            let expected =
                if end < headers_end { NOT_UNDERSTOOD } else { (packet.action, packet.verdict) };
            assert_eq!(verdict, expected, "{} cut to {end}", packet.name);
        }
    }
}

/// Octets behind the addresses of Ethernet, each in turn replaced by others, and the control bits of TCP by all that there are.
fn damaged(packet: &Packet) -> impl Iterator<Item = Vec<u8>> {
    let octets = &packet.octets;
    let flags = packet.offset_of("tcp").map(|tcp| tcp + TCP_FLAGS);
    let flags = flags.filter(|at| *at < octets.len());
    let anywhere = (12..octets.len()).flat_map(|at| [(at, 0x00), (at, 0x4f), (at, 0xff)]);
    let flags = flags.into_iter().flat_map(|at| (0..=u8::MAX).map(move |value| (at, value)));
    anywhere.chain(flags).map(|(at, value)| {
        let mut damaged = octets.clone();
        damaged[at] = value;
        damaged
    })
}

#[test]
fn the_program_judges_damaged_packets_as_the_host_does() {
    let packets = packets();
    for (setup, group) in by_shared_setup(&packets) {
        let Some(mut kernel) = Kernel::load(setup) else { return };
        let mut host = Host::new(setup);
        for packet in group.into_iter().filter(|packet| packet.octets.len() <= DAMAGED_BYTES_MAX) {
            let mut expected = Counts::new();
            for octets in damaged(packet) {
                let (action, verdict) = host.run(&octets);
                *expected.entry((LOOPBACK_SLOT, 0, verdict.name())).or_default() += 1;
                let name = &packet.name;
                assert_eq!(
                    kernel.run(&octets),
                    (action, octets),
                    "{name}, {verdict:?} on the host"
                );
            }
            assert_eq!(kernel.counted(), expected, "{}", packet.name);
        }
    }
}
