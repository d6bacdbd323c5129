//! Other kernels than this machine's: the daemon in a guest of qemu, on network cards with one queue and with several.
//!
//! Each boot checks that the verifier takes the programs and the driver attaches them natively, that connections are local to
//! their worker, that a ban drops and a ban lifted serves again, and that a large message arrives as it was sent. Where a kernel
//! or a privilege is missing a test says so; `cargo xtask test vm` brings what can be brought.

use ingress_tests::vm;
use ingress_tests::vm::qemu::Wire;

fn boot(kernel: &str, wire: Wire) {
    let missing = vm::missing(kernel).or_else(|| wire.missing().map(str::to_owned));
    if let Some(reason) = missing {
        println!("skipped: Linux {kernel}, {wire}: {reason}");
        return;
    }
    println!("{}", vm::run(kernel, wire).unwrap_or_else(|error| panic!("{error:#}")));
}

#[test]
fn linux_6_1_with_one_queue() {
    boot("6.1", Wire::Hub);
}

#[test]
fn linux_6_1_with_a_queue_for_each_worker() {
    boot("6.1", Wire::Taps);
}

#[test]
fn linux_6_12_with_one_queue() {
    boot("6.12", Wire::Hub);
}

#[test]
fn linux_6_12_with_a_queue_for_each_worker() {
    boot("6.12", Wire::Taps);
}
