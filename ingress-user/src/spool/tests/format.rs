//! FORMAT.md says what the code does: its example is decoded here, and made again octet by octet.

use std::fs;

use super::super::batch::Batch;
use super::super::segment::SegmentHeader;
use super::*;

/// Octets of the blocks marked `hex`: offset, then octets, then text behind `|`.
fn example() -> Vec<u8> {
    include_str!("../FORMAT.md")
        .split("```hex\n")
        .skip(1)
        .flat_map(|block| block.split("```").next().unwrap().lines())
        .flat_map(|line| line.split('|').next().unwrap().split_whitespace().skip(1))
        .map(|octet| u8::from_str_radix(octet, 16).unwrap())
        .collect()
}

fn example_submission() -> Submission {
    Submission {
        accepted_at: 1_700_000_000_000_000,
        envelope: Box::new(Envelope::plain(
            [192, 0, 2, 7].into(),
            "b.example",
            "a@b.example",
            &["c@d.example"],
        )),
        trace: b"X: y\r\n".to_vec(),
        encoding: BodyEncoding::DotStuffed,
        ..submission(QueueId::new(1_700_000_000_000_000, 1).0, b"Hi\r\n..\r\n.\r\n")
    }
}

/// The example as the code writes it.
fn encoded() -> Vec<u8> {
    let header = SegmentHeader { number: 1, nonce: 0x1122_3344_5566_7788 };
    let submissions = [example_submission()];
    let mut batch = Batch::default();
    batch.encode(&submissions, 40, header.number, header.nonce);
    let slices = batch.slices(&submissions);
    header.encode().into_iter().chain(slices.iter().flat_map(|s| s.iter().copied())).collect()
}

fn dump(octets: &[u8]) -> String {
    let line = |(index, octets): (usize, &[u8])| {
        let hex: String = octets.iter().map(|octet| format!("{octet:02x} ")).collect();
        let printable = |octet: &u8| if octet.is_ascii_graphic() { *octet as char } else { '.' };
        let text: String = octets.iter().map(printable).collect();
        format!("{:04x}  {hex:<48} | {text}\n", index * 16)
    };
    octets.chunks(16).enumerate().map(line).collect()
}

#[test]
fn the_example_in_format_md_is_what_the_code_writes() {
    assert_eq!(dump(&example()), dump(&encoded()));
}

#[test]
fn the_example_in_format_md_is_a_spool() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(segment_path(directory.path(), 1), example()).unwrap();
    let (contents, recovered) = recovered_contents(directory.path());
    let expected = Content { body: b"Hi\r\n.\r\n".to_vec(), ..Content::of(&example_submission()) };
    assert_eq!((contents, recovered.damaged), (vec![expected], 0));
}
