//! The octets after 354: the scanner finds the end where a plain search does, and faults that can be seen with the eye,
//! however the octets are cut. The first octet chooses the cuts.

#![no_main]

use ingress_fuzz::cut;
use ingress_user::smtp::data::{DataFault, DataLimits, DataScanner};
use libfuzzer_sys::fuzz_target;

const LIMITS: DataLimits = DataLimits { message_bytes_max: 60, line_bytes_max: 20, sloppy: false };

/// What the scanner made of a message.
#[derive(Debug, PartialEq, Eq)]
struct Scan {
    /// Octets up to and with the final dot's line end.
    end: Option<usize>,
    fault: Option<DataFault>,
    message_bytes: u64,
}

impl Scan {
    fn of<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let mut scanner = DataScanner::new(LIMITS);
        let mut before = 0;
        let end = pieces.into_iter().find_map(|piece| {
            let scanned = scanner.scan(piece);
            assert!(scanned.complete || scanned.consumed == piece.len());
            before += scanned.consumed;
            scanned.complete.then_some(before)
        });
        Self { end, fault: scanner.fault(), message_bytes: scanner.message_bytes() }
    }
}

/// The end by a plain search. The line of the final dot may be the first.
fn plain_end(wire: &[u8]) -> Option<usize> {
    let framed = [b"\r\n", wire].concat();
    framed.windows(5).position(|window| window == b"\r\n.\r\n").map(|at| at + 3)
}

/// Whether CR or LF stands alone in a whole message.
fn has_bare_line_end(wire: &[u8]) -> bool {
    let alone = |at: usize| match wire[at] {
        b'\r' => wire.get(at + 1) != Some(&b'\n'),
        b'\n' => at == 0 || wire[at - 1] != b'\r',
        _ => false,
    };
    (0..wire.len()).any(alone)
}

/// Octets of each line of a whole message that has no bare line end, CRLF counted, the stuffed dot not.
fn line_lengths(wire: &[u8]) -> impl Iterator<Item = u64> {
    let body = wire.strip_suffix(b".\r\n").expect("the end was found");
    body.split_inclusive(|&byte| byte == b'\n')
        .map(|line| line.strip_prefix(b".").unwrap_or(line).len() as u64)
}

fuzz_target!(|input: &[u8]| {
    let Some((&seed, wire)) = input.split_first() else { return };
    let whole = Scan::of([wire]);
    assert_eq!(Scan::of(wire.chunks(1)), whole, "octet by octet");
    assert_eq!(Scan::of(cut(wire, seed)), whole, "cut");
    assert_eq!(whole.end, plain_end(wire));

    let Some(message) = whole.end.map(|end| &wire[..end]) else { return };
    if has_bare_line_end(message) {
        assert!(whole.fault.is_some(), "a bare line end is taken");
        return;
    }
    let bytes: u64 = line_lengths(message).sum();
    assert_eq!(whole.message_bytes, bytes);
    let too_big = bytes > LIMITS.message_bytes_max;
    let too_long = line_lengths(message).any(|length| length > LIMITS.line_bytes_max);
    assert!(whole.fault.is_some() || !too_big && !too_long, "a limit is crossed");
    match whole.fault {
        Some(DataFault::TooBig) => assert!(too_big),
        Some(DataFault::LineTooLong) => assert!(too_long),
        Some(DataFault::BareCr | DataFault::BareLf) => panic!("a bare line end where none is"),
        // Faults of single octets are no matter of lines.
        _ => {}
    }
});
