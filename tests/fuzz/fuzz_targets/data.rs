//! The octets after 354: the scanner finds the end where a plain search does, and faults that can be seen with the eye,
//! however the octets are cut. The first octet chooses the cuts.

#![no_main]

use ingress_fuzz::cut;
use ingress_user::smtp::data::{DataFault, DataLimits, DataScanner};
use libfuzzer_sys::fuzz_target;

const LIMITS: DataLimits = DataLimits { message_bytes_max: 60, line_bytes_max: 20, sloppy: false };
/// For clients whose bare line ends and NULs are let through.
const SLOPPY: DataLimits = DataLimits { sloppy: true, ..LIMITS };

/// What the scanner made of a message.
#[derive(Debug, PartialEq, Eq)]
struct Scan {
    /// Octets up to and with the final dot's line end.
    end: Option<usize>,
    fault: Option<DataFault>,
    message_bytes: u64,
    is_sloppy: bool,
}

impl Scan {
    fn of<'p>(limits: DataLimits, pieces: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let mut scanner = DataScanner::new(limits);
        let mut before = 0;
        let end = pieces.into_iter().find_map(|piece| {
            let scanned = scanner.scan(piece);
            assert!(scanned.complete || scanned.consumed == piece.len());
            before += scanned.consumed;
            scanned.complete.then_some(before)
        });
        let (fault, is_sloppy) = (scanner.fault(), scanner.is_sloppy());
        Self { end, fault, message_bytes: scanner.message_bytes(), is_sloppy }
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

/// The scan of the whole, which is that of any pieces.
fn scan(limits: DataLimits, wire: &[u8], seed: u8) -> Scan {
    let whole = Scan::of(limits, [wire]);
    assert_eq!(Scan::of(limits, wire.chunks(1)), whole, "octet by octet");
    assert_eq!(Scan::of(limits, cut(wire, seed)), whole, "cut");
    assert_eq!(whole.end, plain_end(wire));
    whole
}

fuzz_target!(|input: &[u8]| {
    let Some((&seed, wire)) = input.split_first() else { return };
    let strict = scan(LIMITS, wire, seed);
    let sloppy = scan(SLOPPY, wire, seed);
    let Some(message) = strict.end.map(|end| &wire[..end]) else { return };
    let is_bare = has_bare_line_end(message);
    assert_eq!(sloppy.is_sloppy, is_bare || message.contains(&0));
    if is_bare {
        // Told before limits: after it the session must not go on.
        let fault = strict.fault;
        assert!(matches!(fault, Some(DataFault::BareCr | DataFault::BareLf)), "{fault:?}");
        return;
    }
    check_faults(&strict, message);
});

/// What a message without bare line ends is refused for.
fn check_faults(scan: &Scan, message: &[u8]) {
    let bytes: u64 = line_lengths(message).sum();
    assert_eq!(scan.message_bytes, bytes);
    let too_big = bytes > LIMITS.message_bytes_max;
    let too_long = line_lengths(message).any(|length| length > LIMITS.line_bytes_max);
    let nul = message.contains(&0);
    match scan.fault {
        Some(DataFault::Nul) => assert!(nul),
        Some(DataFault::TooBig) => assert!(too_big && !nul),
        Some(DataFault::LineTooLong) => assert!(too_long && !nul),
        None => assert!(!nul && !too_big && !too_long),
        Some(DataFault::BareCr | DataFault::BareLf) => panic!("a bare line end where none is"),
    }
}
