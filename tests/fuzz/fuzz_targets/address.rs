//! Paths of MAIL and RCPT: what is taken is within the limits of RFC 5321 4.5.3.1, and means the same when it is read again.

#![no_main]

use ingress_user::smtp::address::{
    Address, DOMAIN_BYTES_MAX, LOCAL_PART_BYTES_MAX, parse_path, split_path,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok((path, rest)) = split_path(text) {
        assert_eq!(format!("<{path}>{rest}"), text);
    }
    if let Ok(address) = parse_path(text) {
        check(address, text);
    }
});

fn check(address: Address<'_>, path: &str) {
    let mailbox = address.as_str();
    assert!(path.ends_with(mailbox));
    assert!(!mailbox.bytes().any(|byte| byte.is_ascii_control()));
    assert_eq!(parse_path(mailbox), Ok(address));
    // In MAIL and RCPT it is found whole again, whatever a quoted local part holds.
    assert_eq!(split_path(&format!("<{mailbox}> SIZE=1")), Ok((mailbox, " SIZE=1")));
    if address.is_bare_postmaster() {
        assert!(mailbox.eq_ignore_ascii_case("postmaster") && address.domain().is_empty());
        return;
    }
    let local = mailbox.strip_suffix(address.domain()).and_then(|rest| rest.strip_suffix('@'));
    assert!((1..=LOCAL_PART_BYTES_MAX).contains(&local.map_or(0, str::len)));
    assert!((1..=DOMAIN_BYTES_MAX).contains(&address.domain().len()));
    // Domains are compared by their A-labels: these are a domain too, and their own.
    let ascii = address.ascii_domain();
    assert!(ascii.is_ascii());
    let plain = format!("user@{ascii}");
    assert_eq!(parse_path(&plain).map(|address| address.ascii_domain()), Ok(ascii), "{mailbox}");
}
