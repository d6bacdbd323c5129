//! What a packet costs in the XDP program, beyond a program that drops it unseen, in the same run (BPF_PROG_TEST_RUN).

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ingress_ebpf::abi::BUCKETS;
use ingress_ebpf::packets::{Frame, Network};
use ingress_user::config::FilterConfig;
use ingress_user::xdp::{self, Lists, Prefilter, Redirection, Setup};

use crate::statistics::Spread;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Rounds of each measurement
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Runs of the program in a round
    #[arg(long, default_value_t = 1_000_000)]
    packets: u32,
    /// Denied networks in the lists, half of each family
    #[arg(long, default_value_t = 10_000)]
    prefixes: u32,
}

const ACK: u8 = 0x10;
const BANNED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);

#[expect(clippy::print_stdout, reason = "the figures are the output")]
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0 && options.packets > 0, "nothing to measure");
    let mut prefilter = load(options.prefixes)?;
    prefilter.filter().ban(IpAddr::V4(BANNED), Duration::from_secs(3_600))?;
    println!("{} prefixes, {} packets a round", options.prefixes, options.packets);
    for (name, frame) in frames() {
        println!("{name}: {:.0} ns over a bare XDP_DROP", cost(&mut prefilter, &frame, options)?);
    }
    // To where they are: what counts is that they have moved.
    prefilter.give(0, 0, BUCKETS as usize)?;
    for (name, frame) in frames().into_iter().filter(|(name, _)| name.ends_with("IPv4")) {
        let cost = cost(&mut prefilter, &frame, options)?;
        println!("{name}, in a bucket that moved: {cost:.0} ns over a bare XDP_DROP");
    }
    let verdicts = prefilter.verdicts()?;
    let counted: Vec<_> = verdicts.iter().filter(|(_, packets)| *packets > 0).collect();
    println!("verdicts: {counted:?}");
    Ok(())
}

/// Nanoseconds of a packet.
fn cost(prefilter: &mut Prefilter, frame: &[u8], options: &Options) -> Result<Spread> {
    let cost = |_round| {
        let bare = prefilter.time_baseline(frame, options.packets)?;
        let whole = prefilter.time(frame, options.packets)?;
        Ok((whole.as_secs_f64() - bare.as_secs_f64()) * 1e9 / f64::from(options.packets))
    };
    Ok(Spread::of((0..options.rounds).map(cost).collect::<Result<Vec<_>>>()?))
}

fn load(prefixes: u32) -> Result<Prefilter> {
    let object = xdp::object().context("built without the eBPF object")?;
    // Every packet of the measurement is to take the whole way.
    let filter = FilterConfig {
        connections_per_second: 100_000_000,
        connections_burst: 100_000_000,
        pressure_per_second: 100_000_000,
        sample_every: 10_000,
        ..FilterConfig::default()
    };
    let setup = Setup {
        ports: &[25, 465],
        interfaces: &[],
        redirection: Redirection::Cpus(&[0]),
        // Longer than any measurement.
        heartbeat_timeout: Duration::from_secs(3_600),
        filter: &filter,
    };
    let prefilter = Prefilter::load(object, setup)?;
    // None of them covers the frames' sources.
    let v4 = (0..prefixes / 2).map(|number| Ipv4Addr::from(0x0b00_0000 + (number << 8)));
    let v4 = v4.map(|address| ipnet(IpAddr::V4(address), 24));
    let v6 = (0..prefixes / 2).map(|number| {
        let high = u128::from(0x2a00_0000_u32 + number) << 96;
        ipnet(IpAddr::V6(high.into()), 48)
    });
    let denied = v4.chain(v6).collect::<Result<Vec<_>>>()?;
    prefilter.filter().set_lists(Lists::new([], denied))?;
    Ok(prefilter)
}

fn ipnet(address: IpAddr, length: u8) -> Result<ipnet::IpNet> {
    Ok(ipnet::IpNet::new(address, length)?)
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let mut open = Frame::v4(25);
    open.flags = ACK;
    let mut open_v6 = Frame::v6(25, &[]);
    open_v6.flags = ACK;
    let mut banned = Frame::v4(25);
    if let Network::V4 { source, .. } = &mut banned.network {
        *source = BANNED;
    }
    vec![
        ("not ours", Frame::v4(443).bytes()),
        ("open connection, IPv4", open.bytes()),
        ("open connection, IPv6", open_v6.bytes()),
        ("SYN through the whole filter, IPv4", Frame::v4(25).bytes()),
        ("SYN through the whole filter, IPv6", Frame::v6(25, &[]).bytes()),
        ("banned host", banned.bytes()),
    ]
}
