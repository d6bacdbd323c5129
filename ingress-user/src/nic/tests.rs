//! A machine of files: two queues of `eth0` with an interrupt each, nothing as wanted.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::*;

/// CPUs with a worker, on that machine.
pub(super) const WORKERS: &[usize] = &[2, 3];

/// Files below a folder of its own.
pub(super) struct Tree {
    root: tempfile::TempDir,
}

const FILES: &[(&str, &str)] = &[
    ("devices/virtio2/net/eth0/ifindex", "7\n"),
    ("devices/virtio2/net/eth0/mtu", "1500\n"),
    ("devices/virtio2/net/eth0/operstate", "up\n"),
    ("devices/virtio2/net/eth0/statistics/rx_packets", "1000\n"),
    ("devices/virtio2/net/eth0/statistics/rx_dropped", "3\n"),
    ("devices/virtio2/net/eth0/queues/rx-0/rps_cpus", "0f\n"),
    ("devices/virtio2/net/eth0/queues/rx-1/rps_cpus", "00\n"),
    ("devices/virtio2/net/eth0/queues/tx-0/xps_cpus", "03\n"),
    ("devices/virtio2/net/eth0/queues/tx-1/xps_cpus", "0c\n"),
    ("devices/msi_irqs/39", "msix\n"),
    ("devices/msi_irqs/40", "msix\n"),
    ("devices/msi_irqs/41", "msix\n"),
    (
        "proc/interrupts",
        "       CPU0   CPU1   CPU2   CPU3\n\
         39:      0      0      0      0 PCI-MSIX-0000:00:03.0 0-edge virtio2-config\n\
         40:      9      0      0      0 PCI-MSIX-0000:00:03.0 1-edge virtio2-input.0\n\
         41:      0      9      0      0 PCI-MSIX-0000:00:03.0 2-edge virtio2-input.1\n\
         42:      0      9      0      0 PCI-MSIX-0000:00:04.0 1-edge virtio3-input.0\n",
    ),
    ("proc/irq/40/smp_affinity_list", "0-3\n"),
    ("proc/irq/40/effective_affinity_list", "0\n"),
    ("proc/irq/41/smp_affinity_list", "1\n"),
    ("proc/irq/41/effective_affinity_list", "1\n"),
    ("proc/sys/net/core/somaxconn", "128\n"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "2048\n"),
    ("proc/sys/net/ipv4/tcp_migrate_req", "0\n"),
    ("proc/sys/kernel/random/boot_id", "b-1\n"),
    ("proc/1/comm", "init\n"),
];

impl Tree {
    pub(super) fn new() -> Self {
        let tree = Self { root: tempfile::tempdir().unwrap() };
        for (path, text) in FILES {
            tree.write(path, text);
        }
        let root = tree.root.path();
        for folder in ["sys/class/net", "drivers/virtio_net"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        symlink(root.join("devices/virtio2/net/eth0"), root.join("sys/class/net/eth0")).unwrap();
        symlink(root.join("devices/virtio2"), root.join("devices/virtio2/net/eth0/device"))
            .unwrap();
        symlink(root.join("drivers/virtio_net"), root.join("devices/virtio2/driver")).unwrap();
        tree
    }

    pub(super) fn machine(&self) -> Machine {
        Machine::at(self.root.path())
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(super) fn remove(&self, path: &str) {
        fs::remove_file(self.root.path().join(path)).unwrap();
    }

    /// Every file and its text; links are not followed.
    pub(super) fn files(&self) -> BTreeMap<PathBuf, String> {
        let mut files = BTreeMap::new();
        collect(self.root.path(), &mut files);
        files
    }
}

fn collect(folder: &Path, files: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            collect(&entry.path(), files);
        } else if kind.is_file() {
            files.insert(entry.path(), fs::read_to_string(entry.path()).unwrap());
        }
    }
}

#[test]
fn files_tell_queues_interrupts_and_where_they_run() {
    let nic = Nic::read_files(&Tree::new().machine(), "eth0").unwrap();
    assert_eq!((nic.index, nic.mtu, nic.state.as_str()), (7, 1500, "up"));
    assert_eq!(nic.driver.as_deref(), Some("virtio_net"));
    assert_eq!((nic.totals.rx_packets, nic.totals.rx_dropped), (1000, 3));
    let numbers: Vec<u32> = nic.irqs.iter().map(|irq| irq.number).collect();
    assert_eq!(numbers, [39, 40, 41]);
    let receive: Vec<_> =
        nic.queues(Direction::Rx).map(|queue| (queue.number, queue.irq)).collect();
    assert_eq!(receive, [(0, Some(40)), (1, Some(41))]);
    let transmit: Vec<_> = nic.queues(Direction::Tx).map(|queue| queue.irq).collect();
    assert_eq!(transmit, [None, None]);
    let irq = nic.irq(&nic.queues[0]).unwrap();
    assert_eq!((irq.affinity.to_string(), irq.runs_on().to_string()), ("0-3".into(), "0".into()));
}

#[test]
fn an_unknown_interface_is_named_with_those_that_are_there() {
    for name in ["eth1", "../net/eth0", ""] {
        let error = Nic::read_files(&Tree::new().machine(), name).unwrap_err().to_string();
        assert!(error.contains(&format!("`{name}` does not exist: there are eth0")), "{error}");
    }
}

#[test]
fn irqbalance_is_noticed_by_its_process() {
    let tree = Tree::new();
    assert!(!Host::read(&tree.machine()).irqbalance);
    tree.write("proc/812/comm", "irqbalance\n");
    assert!(Host::read(&tree.machine()).irqbalance);
}
