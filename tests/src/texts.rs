//! What clients send, and that it arrived as it was sent.

use std::fs;
use std::path::PathBuf;

use crate::daemon::{Daemon, Site};

const KIB: usize = 1 << 10;

/// A receive buffer of the daemon holds 64 KiB; around that a message begins to span two.
const SIZES: [usize; 7] = [0, KIB, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, KIB * KIB, 5 * KIB * KIB];

/// What is easily got wrong: dots, empty lines, octets with the high bit, words that look like commands or like our own
/// header lines.
const AWKWARD: [&[u8]; 7] = [
    b".\r\n",
    b"..\r\n\r\n.\r\n",
    b"\r\n\r\n\r\n",
    b"QUIT\r\n.QUIT\r\nRSET\r\n",
    b"\xe4\xf6\xfc \x80\xff\x01 \xc3\xa9\r\n.\xff\r\n",
    b"Received: from nowhere\r\n\tby nobody\r\n\r\n.text\r\n",
    b"Return-Path: <somebody@else>\r\nDelivered-To: nobody\r\n\r\nafter the head\r\n",
];

/// What every client sends.
pub fn texts() -> Vec<Vec<u8>> {
    let long_line = [vec![b'l'; 300_000], b"\r\n".to_vec()].concat();
    let sized = SIZES.iter().map(|&size| text_of_size(size));
    sized.chain(AWKWARD.iter().map(|text| text.to_vec())).chain([long_line]).collect()
}

/// Lines of up to 998 octets with their CRLF, many of which begin with a dot; all octets but CR, LF and NUL occur.
pub fn text_of_size(size: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(size);
    let mut random = 0x9e37_79b9_7f4a_7c15 ^ size as u64;
    while text.len() < size {
        // xorshift: the same size, the same text.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let rest = size - text.len();
        let wanted = 2 + random as usize % 997;
        // Never leaves a rest that has no room for CRLF.
        let length = if wanted + 2 > rest { rest } else { wanted };
        let octets = (0..length - 2).map(|at| (random >> (at % 57)) as u8 ^ at as u8);
        text.extend(octets.map(|octet| if b"\r\n\0".contains(&octet) { b'.' } else { octet }));
        if length > 2 && random & 1 << 60 == 0 {
            let line_start = text.len() - (length - 2);
            text[line_start] = b'.';
        }
        text.extend_from_slice(b"\r\n");
    }
    text
}

/// One file for each text, in the form that the client wants.
pub fn write_files(site: &Site, texts: &[Vec<u8>], form: fn(&[u8]) -> Vec<u8>) -> Vec<PathBuf> {
    let write = |(number, text): (usize, &Vec<u8>)| {
        let path = site.folder().join(format!("text-{number}"));
        fs::write(&path, form(text)).unwrap();
        path
    };
    texts.iter().enumerate().map(write).collect()
}

/// All texts are in the Maildir, octet by octet and in the order in which they were sent, and nothing else is.
pub fn assert_delivered(site: &Site, daemon: Daemon, texts: &[Vec<u8>], protocol: &str) {
    daemon.wait_until_delivered();
    let with = format!("with {protocol} id ");
    for message in site.maildir().messages().unwrap() {
        let head = String::from_utf8_lossy(&message[..message.len().min(500)]).into_owned();
        assert!(head.contains(&with), "no {with:?} in {head}");
    }
    let delivered = site.maildir().texts().unwrap();
    assert_eq!(delivered.len(), texts.len());
    for (delivered, sent) in delivered.iter().zip(texts) {
        let differs = delivered.iter().zip(sent).position(|(ours, theirs)| ours != theirs);
        let lengths = (delivered.len(), sent.len());
        assert!(delivered == sent, "lengths (delivered, sent) {lengths:?}, differs at {differs:?}");
    }
    stop(daemon);
}

pub fn stop(daemon: Daemon) {
    let ended = daemon.stop().unwrap();
    assert!(ended.status.success(), "{ended:?}");
}
