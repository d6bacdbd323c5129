//! The flood: SYNs with made-up source addresses, as fast as one CPU makes them, until standard input ends. The kernel program `flood`
//! sends them without a socket: it is run on live frames (BPF_F_TEST_XDP_LIVE_FRAMES, kernel 5.18).

use std::fs;
use std::net::Ipv4Addr;
use std::sync::mpsc::TryRecvError;

use anyhow::{Context, Result};
use aya::EbpfLoader;
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp};
use ingress_ebpf::abi::names;
use ingress_ebpf::flood::template;
use ingress_user::worker::clock::Now;
use ingress_user::xdp;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The interface to send on
    interface: String,
    /// Its neighbour's MAC address
    neighbour: String,
    /// Who is flooded, on port 25
    target: Ipv4Addr,
    /// So many addresses again and again; 0: 131,072
    #[arg(long)]
    sources: u32,
}

const PORT: u16 = 25;

/// Packets between two looks at standard input.
const BATCH: u32 = 50_000;

/// Frames that the kernel keeps in use at a time.
const LIVE_FRAMES: u32 = 64;

/// Prints packets a second at the end.
#[expect(clippy::print_stdout, reason = "the figure is the output")]
pub(crate) fn run(options: &Options) -> Result<()> {
    let ended = super::ends_with_stdin();
    let of_interface = |file| {
        let path = format!("/sys/class/net/{}/{file}", options.interface);
        fs::read_to_string(&path).with_context(|| path)
    };
    let index: u32 = of_interface("ifindex")?.trim().parse()?;
    let macs = [mac(&options.neighbour)?, mac(&of_interface("address")?)?];
    let frame = template(macs, options.target.into(), PORT);
    let mut ebpf = EbpfLoader::new()
        .override_global(names::FLOOD_INTERFACE, &index, true)
        .override_global(names::FLOOD_SOURCES, &options.sources, true)
        .load(xdp::object().context("built without the eBPF object")?)?;
    let program: &mut Xdp =
        ebpf.program_mut(names::FLOOD).context("no program `flood`")?.try_into()?;
    program.load()?;
    let began = Now::read().monotonic;
    let mut sent = 0.0;
    while !matches!(ended.try_recv(), Err(TryRecvError::Disconnected)) {
        program.test_run(TestRunOptions {
            data_in: Some(&frame),
            repeat: BATCH,
            attrs: TestRunAttrs::new().xdp_live_frames(LIVE_FRAMES),
            ..TestRunOptions::default()
        })?;
        sent += f64::from(BATCH);
    }
    let seconds = (Now::read().monotonic - began).as_secs_f64();
    println!("{:.0}", sent / seconds);
    Ok(())
}

/// `02:00:00:00:00:01`.
fn mac(text: &str) -> Result<[u8; 6]> {
    let octets: Result<Vec<u8>, _> =
        text.trim().split(':').map(|octet| u8::from_str_radix(octet, 16)).collect();
    octets?.try_into().ok().with_context(|| format!("{text:?} is no MAC address"))
}
