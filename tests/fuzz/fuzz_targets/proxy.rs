//! Any octets where a PROXY protocol header should be: a verdict that does not change with what comes later, and none before
//! the octets that it rests on.

#![no_main]

use ingress_user::smtp::proxy::{HEADER_BYTES_MAX, Parsed, Source, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut verdict = None;
    for end in 0..=input.len() {
        let parsed = parse(&input[..end]);
        match (&verdict, &parsed) {
            (None, Ok(Parsed::Incomplete)) => {
                assert!(end < HEADER_BYTES_MAX, "more is wanted than a header has");
            }
            (None, _) => {
                if let Ok(Parsed::Complete { header_bytes, source }) = &parsed {
                    assert_eq!(*header_bytes, end, "complete, but not with its last octet");
                    if let Source::Conveyed(client) = source {
                        assert_eq!(client.ip(), client.ip().to_canonical());
                    }
                }
                verdict = Some(parsed);
            }
            // What the error shows of the octets may be more; that it is one stays.
            (Some(Err(_)), Err(_)) => {}
            (Some(verdict), _) => {
                assert_eq!(*verdict, parsed, "octets behind it change the verdict")
            }
        }
    }
});
