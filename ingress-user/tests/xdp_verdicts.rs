//! The loaded XDP program, packet in and verdict out, without any interface (BPF_PROG_TEST_RUN).
//!
//! Needs root and a binary with the eBPF object in it; else each test says why it was skipped.

use ingress_ebpf::abi::{PORTS_MAX, Verdict};
use ingress_ebpf::decode::{Miss, decode};
use ingress_ebpf::packets::{Extension, Frame, Network, Tag};
use ingress_user::xdp::{self, Action, Prefilter, Redirection, XdpError};

const PORTS: [u16; 2] = [25, 465];

/// The test run refuses what is shorter than an Ethernet header.
const FRAME_BYTES_MIN: usize = 14;

/// None, with the reason printed, where the program cannot be loaded.
fn prefilter(redirection: Redirection<'_>) -> Option<Prefilter> {
    let Some(object) = xdp::object() else {
        println!("skipped: {}", XdpError::NoObject);
        return None;
    };
    match Prefilter::load(object, &PORTS, redirection) {
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

#[test]
fn more_ports_than_slots_are_refused() {
    // Refused before the object is looked at, and a port that comes twice counts once.
    let ports: Vec<u16> = (1..=9).chain(1..=9).collect();
    let refused = |count| match Prefilter::load(&[], &ports[..count], Redirection::Off) {
        Err(XdpError::TooManyPorts { count }) => Some(count),
        _ => None,
    };
    assert_eq!(refused(PORTS_MAX), None);
    assert_eq!(refused(ports.len()), Some(PORTS_MAX + 1));
}
