//! Which interrupt belongs to which queue.
//!
//! The kernel tells it through the family `netdev` where the driver registers it. Everywhere else only the names of the
//! interrupts tell, and every driver has its own: `eth0-TxRx-0`, `virtio2-input.0`, `mlx5_comp0@pci:0000:01:00.0`.

use super::Direction;

/// Names by interrupt number, as `/proc/interrupts` has them.
pub(super) fn parse(text: &str) -> Vec<(u32, String)> {
    let mut lines = text.lines();
    let cpus = lines.next().map_or(0, |header| header.split_whitespace().count());
    lines.filter_map(|line| interrupt(line, cpus)).collect()
}

/// A number, a count for each CPU, the chip, the chip's own number, and the names.
fn interrupt(line: &str, cpus: usize) -> Option<(u32, String)> {
    let (number, rest) = line.split_once(':')?;
    let number = number.trim().parse().ok()?;
    let words: Vec<&str> = rest.split_whitespace().skip(cpus).collect();
    // Several devices share one: "eth0, usb1".
    let shared = words.iter().rev().skip(1).take_while(|word| word.ends_with(',')).count();
    let names = words.get(words.len().checked_sub(shared + 1)?..)?;
    Some((number, names.join(" ")))
}

/// The queue that an interrupt's name stands for, and in which direction; none is both.
pub(super) fn queue(name: &str) -> Option<(Option<Direction>, u32)> {
    // Behind @ stands the device.
    let name = name.split('@').next()?.to_ascii_lowercase();
    if NO_QUEUES.iter().any(|other| name.contains(other)) {
        return None;
    }
    let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (words, number) = name.split_at(name.len() - digits);
    let number = number.parse().ok()?;
    let has = |words: &str, either: [&str; 2]| either.iter().any(|word| words.contains(word));
    match (has(words, ["rx", "input"]), has(words, ["tx", "output"])) {
        (true, false) => Some((Some(Direction::Rx), number)),
        (false, true) => Some((Some(Direction::Tx), number)),
        (true, true) => Some((None, number)),
        // Without a word for it, only a separated number is one of a queue: "eth0" is no queue 0.
        (false, false) => {
            (words.ends_with(['-', '.']) || words.ends_with("comp")).then_some((None, number))
        }
    }
}

/// Interrupts for what is not packets.
const NO_QUEUES: [&str; 9] =
    ["async", "config", "control", "ctrl", "mgmnt", "misc", "event", "admin", "fdir"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_stand_behind_the_counts_of_all_cpus() {
        let text = "           CPU0       CPU1       \n \
            16:          1          0   IO-APIC  16-fasteoi   uhci_hcd:usb1, eth1\n \
            38:          0      28917 PCI-MSIX-0000:00:03.0   1-edge      virtio2-input.0\n\
            NMI:          0          0   Non-maskable interrupts\n\
            ERR:          0\n";
        let expected = [(16, "uhci_hcd:usb1, eth1"), (38, "virtio2-input.0")];
        assert_eq!(parse(text), expected.map(|(number, name)| (number, name.to_owned())));
    }

    #[test]
    fn the_names_of_common_drivers_give_their_queue() {
        let (rx, tx) = (Some(Direction::Rx), Some(Direction::Tx));
        let table = [
            ("virtio2-input.1", Some((rx, 1))),
            ("virtio2-output.0", Some((tx, 0))),
            ("eth0-TxRx-12", Some((None, 12))),
            ("eth0-Tx-Rx-3", Some((None, 3))),
            ("i40e-eth0-TxRx-7", Some((None, 7))),
            ("eth0-rx-2", Some((rx, 2))),
            ("mlx5_comp5@pci:0000:01:00.0", Some((None, 5))),
            ("eth0-4", Some((None, 4))),
            ("mlx5_async0@pci:0000:01:00.0", None),
            ("ena-mgmnt@pci:0000:00:05.0", None),
            ("virtio2-config", None),
            ("eth0", None),
            ("ice-0000:01:00.0:misc", None),
        ];
        for (name, expected) in table {
            assert_eq!(queue(name), expected, "{name}");
        }
    }

    #[test]
    fn text_that_is_no_table_has_no_interrupts() {
        for text in ["", "\n\n", "CPU0\n:\n 7:\n", "CPU0 CPU1\n 9: 1\n"] {
            assert_eq!(parse(text), [], "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_table_says_it_is_read(text in "[ -~\n]{0,200}", name in "\\PC{0,40}") {
            let _queue = queue(&name);
            for (_, name) in parse(&text) {
                prop_assert!(!name.is_empty());
            }
        }
    }
}
