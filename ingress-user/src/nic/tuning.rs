//! Does the steps of a plan, and takes them back.
//!
//! What was there before is on disk before the first step, and the first record of a setting stays: however often an
//! interface is tuned, undoing leads to what the operator had.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::netlink::{Netlink, NetlinkError};
use super::plan::{self, Workers, affinity_file, queue_file};
use super::{Change, Host, How, Machine, Nic, NicError, Step};

/// Why an interface cannot be tuned, or not be put back.
#[derive(Debug, thiserror::Error)]
pub enum TuningError {
    #[error(transparent)]
    Nic(#[from] NicError),
    #[error("cannot keep what was there before in {}: {source}; nothing was changed", file.display())]
    Keep { file: PathBuf, source: io::Error },
    #[error("nothing to undo: there is no {} of this boot", .0.display())]
    NothingKept(PathBuf),
    #[error("cannot use {}: {reason}; undo by hand, then remove the file", file.display())]
    Unusable { file: PathBuf, reason: String },
}

/// The tuning of one interface.
#[derive(Debug, Clone)]
pub struct Tuning {
    machine: Machine,
    interface: String,
    /// `<state_dir>/nic/IFACE.json`.
    file: PathBuf,
}

/// What became of one step.
#[derive(Debug)]
pub struct Done {
    pub what: String,
    /// The text of the kernel's refusal.
    pub result: Result<(), String>,
}

/// What was there before.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// The kernel's id of the boot: no setting outlives it, and the numbers of interrupts change.
    boot: String,
    settings: Vec<Setting>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Setting {
    File { path: String, text: String },
    Driver(Change),
}

impl Setting {
    fn is_of_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { path, .. }, Self::File { path: other, .. }) => path == other,
            (Self::Driver(change), Self::Driver(other)) => {
                std::mem::discriminant(change) == std::mem::discriminant(other)
            }
            _ => false,
        }
    }

    fn what(&self) -> String {
        match self {
            Self::File { path, .. } => format!("/{path}"),
            Self::Driver(Change::Channels { .. }) => "queues".to_owned(),
            Self::Driver(Change::Rings { .. }) => "rings".to_owned(),
            Self::Driver(Change::Coalescing { .. }) => "interrupt coalescing".to_owned(),
        }
    }
}

impl Tuning {
    pub fn new(machine: Machine, state_dir: &Path, interface: &str) -> Self {
        let file = state_dir.join("nic").join(format!("{interface}.json"));
        Self { machine, interface: interface.to_owned(), file }
    }

    /// Does what is to do for `workers`. A step that fails does not keep the others from being tried. What is left to the
    /// operator is not among the answers.
    ///
    /// # Errors
    /// When what was there before cannot be kept; then nothing was changed.
    pub async fn apply(&self, workers: Workers<'_>) -> Result<Vec<Done>, TuningError> {
        let nic = Nic::read(&self.machine, &self.interface).await?;
        let steps = plan::plan(&nic, workers, &Host::read(&self.machine));
        let Some(channels) = steps.iter().find(|step| is_of_channels(step)) else {
            return self.perform(&nic, &steps).await;
        };
        // Other queues have other files and interrupts: the rest is planned once they are there.
        let mut done = self.perform(&nic, std::slice::from_ref(channels)).await?;
        let nic = Nic::read(&self.machine, &self.interface).await?;
        let mut steps = plan::plan(&nic, workers, &Host::read(&self.machine));
        steps.retain(|step| !is_of_channels(step));
        done.extend(self.perform(&nic, &steps).await?);
        Ok(done)
    }

    /// Puts back what was there before the first [`apply`](Self::apply), and forgets it when all is back.
    ///
    /// # Errors
    /// When nothing was kept, or it cannot be read.
    pub async fn undo(&self) -> Result<Vec<Done>, TuningError> {
        // Without it nothing could be put back, and the record would be lost.
        Nic::read_files(&self.machine, &self.interface)?;
        let kept = self.kept()?.ok_or_else(|| TuningError::NothingKept(self.file.clone()))?;
        let (driver, files): (Vec<Setting>, Vec<Setting>) =
            kept.settings.into_iter().partition(|setting| matches!(setting, Setting::Driver(_)));
        let mut done = Vec::new();
        // The driver first: it makes the queues whose files follow.
        for setting in driver.into_iter().chain(files) {
            let result = match &setting {
                Setting::File { path, text } => match self.machine.write(path, text) {
                    // It went with its queue or its interrupt, and so did the setting.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    result => result.map_err(|error| refusal(&error)),
                },
                Setting::Driver(change) => self.ask_driver(*change).await,
            };
            done.push(Done { what: setting.what(), result });
        }
        if done.iter().all(|done| done.result.is_ok()) {
            fs::remove_file(&self.file).map_err(|error| self.unusable(error))?;
        }
        Ok(done)
    }

    /// Where what was there before is kept.
    pub fn file(&self) -> &Path {
        &self.file
    }

    async fn perform(&self, nic: &Nic, steps: &[Step]) -> Result<Vec<Done>, TuningError> {
        self.keep(nic, steps)?;
        let mut done = Vec::new();
        for step in steps {
            let result = match &step.how {
                How::Write { file, text } => self
                    .machine
                    .write(file, text)
                    .map_err(|error| format!("/{file}: {}", refusal(&error))),
                How::Change(change) => self.ask_driver(*change).await,
                How::Operator(_) => continue,
            };
            done.push(Done { what: step.what.clone(), result });
        }
        Ok(done)
    }

    async fn ask_driver(&self, change: Change) -> Result<(), String> {
        let netlink = Netlink::open().map_err(|error| error.to_string())?;
        let change = netlink.change(&self.interface, change);
        match tokio::time::timeout(CHANGE_TIMEOUT, change).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(NetlinkError::Refused(error))) => {
                Err(format!("the driver refuses: {}", refusal(&error)))
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_elapsed) => Err(format!("no answer within {} s", CHANGE_TIMEOUT.as_secs())),
        }
    }

    /// Adds what `steps` will change to what is kept, unless it is there from an earlier time.
    fn keep(&self, nic: &Nic, steps: &[Step]) -> Result<(), TuningError> {
        let anew = || Kept { boot: self.boot(), settings: Vec::new() };
        let mut kept = self.kept()?.unwrap_or_else(anew);
        let before = kept.settings.len();
        for setting in steps.iter().flat_map(|step| self.before(nic, step)) {
            if !kept.settings.iter().any(|other| other.is_of_the_same(&setting)) {
                kept.settings.push(setting);
            }
        }
        if kept.settings.len() == before {
            return Ok(());
        }
        let result = save(&self.file, &kept);
        result.map_err(|source| TuningError::Keep { file: self.file.clone(), source })
    }

    /// What a step will change, as it is. A new number of queues resets what belongs to the old ones.
    fn before(&self, nic: &Nic, step: &Step) -> Vec<Setting> {
        match &step.how {
            How::Write { file, .. } => self.file_setting(file.clone()).into_iter().collect(),
            How::Change(Change::Channels { .. }) => {
                let queues = nic.queues.iter().map(|queue| queue_file(&nic.name, queue));
                let irqs = nic.irqs.iter().map(|irq| affinity_file(irq.number));
                let files = queues.chain(irqs).filter_map(|path| self.file_setting(path));
                driver_setting(nic, step).into_iter().chain(files).collect()
            }
            How::Change(_) => driver_setting(nic, step).into_iter().collect(),
            How::Operator(_) => Vec::new(),
        }
    }

    /// None where it cannot be read: then it cannot be written either.
    fn file_setting(&self, path: String) -> Option<Setting> {
        let text = self.machine.octets(&path).ok()?;
        Some(Setting::File { path, text })
    }

    fn boot(&self) -> String {
        self.machine.text("proc/sys/kernel/random/boot_id").unwrap_or_default()
    }

    /// What was kept since the host was started.
    fn kept(&self) -> Result<Option<Kept>, TuningError> {
        let text = match fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unusable(error)),
        };
        let kept: Kept = serde_json::from_str(&text).map_err(|error| self.unusable(error))?;
        if kept.boot != self.boot() {
            return Ok(None);
        }
        let stray = kept.settings.iter().find_map(|setting| match setting {
            Setting::File { path, .. } => Some(path).filter(|path| !self.is_settable(path)),
            Setting::Driver(_) => None,
        });
        match stray {
            Some(path) => Err(self.unusable(format!("`{path}` is no setting of a NIC"))),
            None => Ok(Some(kept)),
        }
    }

    /// Root writes back what the record names, so it must not name anything else than what a plan changes.
    fn is_settable(&self, path: &str) -> bool {
        let between = |before: &str, after: &str| {
            let within = path.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            within.is_some_and(|within| !within.contains('/'))
        };
        let queues = format!("sys/class/net/{}/queues/", self.interface);
        between(&queues, "/rps_cpus")
            || between(&queues, "/xps_cpus")
            || between("proc/irq/", "/smp_affinity_list")
            || plan::sysctl_files().any(|file| file == path)
    }

    fn unusable(&self, reason: impl std::fmt::Display) -> TuningError {
        TuningError::Unusable { file: self.file.clone(), reason: reason.to_string() }
    }
}

/// The kernel's reason, and what to do about the usual one.
fn refusal(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!("{error}: run as root"),
        _ => error.to_string(),
    }
}

fn is_of_channels(step: &Step) -> bool {
    matches!(step.how, How::Change(Change::Channels { .. }))
}

/// What the driver has now of what a step will change.
fn driver_setting(nic: &Nic, step: &Step) -> Option<Setting> {
    let How::Change(change) = &step.how else { return None };
    let settings = &nic.settings;
    Some(Setting::Driver(match change {
        Change::Channels { rx, tx, combined } => {
            let now = settings.channels?;
            Change::Channels {
                rx: rx.map(|_| now.rx),
                tx: tx.map(|_| now.tx),
                combined: combined.map(|_| now.combined),
            }
        }
        Change::Rings { .. } => {
            let now = settings.rings?;
            Change::Rings { rx: now.rx, tx: now.tx }
        }
        Change::Coalescing { rx_adaptive, rx_microseconds } => {
            let now = settings.coalescing?;
            Change::Coalescing {
                rx_adaptive: rx_adaptive.and(now.rx_adaptive),
                rx_microseconds: rx_microseconds.and(now.rx_microseconds),
            }
        }
    }))
}

fn save(file: &Path, kept: &Kept) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let unfinished = file.with_extension("tmp");
    // One that is there may be a link to somewhere else, made by the daemon's user.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut output = File::create_new(&unfinished)?;
    output.write_all(serde_json::to_string_pretty(kept)?.as_bytes())?;
    output.sync_all()?;
    fs::rename(unfinished, file)
}

/// A driver may have to take its link down and up again.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Steered;
    use super::super::tests::{Tree, WORKERS};
    use super::*;

    struct Site {
        tree: Tree,
        state: tempfile::TempDir,
    }

    impl Site {
        fn new() -> Self {
            Self { tree: Tree::new(), state: tempfile::tempdir().unwrap() }
        }

        fn tuning(&self) -> Tuning {
            Tuning::new(self.tree.machine(), self.state.path(), "eth0")
        }

        fn steps(&self) -> Vec<Step> {
            let workers = Workers { cpus: WORKERS, steered: Steered::Cpumap };
            plan::plan(&self.nic(), workers, &Host::read(&self.tree.machine()))
        }

        fn nic(&self) -> Nic {
            Nic::read_files(&self.tree.machine(), "eth0").unwrap()
        }

        /// As `apply`, without the driver.
        fn perform(&self) -> Vec<Done> {
            block_on(self.tuning().perform(&self.nic(), &self.steps())).unwrap()
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn assert_done(done: &[Done]) {
        assert!(done.iter().all(|done| done.result.is_ok()), "{done:?}");
        assert!(!done.is_empty());
    }

    #[test]
    fn after_the_steps_nothing_is_to_do() {
        let site = Site::new();
        assert_done(&site.perform());
        assert_eq!(site.steps(), []);
    }

    #[test]
    fn undoing_restores_every_octet() {
        let site = Site::new();
        let before: BTreeMap<PathBuf, String> = site.tree.files();
        assert_done(&site.perform());
        assert_ne!(site.tree.files(), before);
        assert_done(&block_on(site.tuning().undo()).unwrap());
        assert_eq!(site.tree.files(), before);
        assert!(!site.tuning().file().exists());
    }

    #[test]
    fn tuning_twice_still_leads_back_to_the_original() {
        let site = Site::new();
        let before = site.tree.files();
        assert_done(&site.perform());
        site.tree.write("proc/irq/40/smp_affinity_list", "7\n");
        assert_done(&site.perform());
        assert_done(&block_on(site.tuning().undo()).unwrap());
        assert_eq!(site.tree.files(), before);
    }

    #[test]
    fn a_step_that_fails_keeps_no_other_from_being_done() {
        let site = Site::new();
        let mut steps = site.steps();
        let missing =
            How::Write { file: "proc/irq/9/smp_affinity_list".into(), text: "0\n".into() };
        steps[0].how = missing;
        let done = block_on(site.tuning().perform(&site.nic(), &steps)).unwrap();
        let failed: Vec<_> = done.iter().filter(|done| done.result.is_err()).collect();
        assert_eq!(failed.len(), 1, "{done:?}");
        assert!(failed[0].result.as_ref().unwrap_err().contains("/proc/irq/9/"), "{failed:?}");
        assert_eq!(site.steps().len(), 1);
    }

    #[test]
    fn what_went_with_its_queue_is_no_failure_but_a_missing_interface_is() {
        let site = Site::new();
        assert_done(&site.perform());
        let queue = "devices/virtio2/net/eth0/queues/tx-1/xps_cpus";
        site.tree.remove(queue);
        let interface = "devices/virtio2/net/eth0/ifindex";
        site.tree.remove(interface);
        let error = block_on(site.tuning().undo()).unwrap_err();
        assert!(error.to_string().contains("`eth0` does not exist"), "{error}");
        assert!(site.tuning().file().exists());
        site.tree.write(interface, "7\n");
        assert_done(&block_on(site.tuning().undo()).unwrap());
        assert!(!site.tuning().file().exists());
    }

    #[test]
    fn a_record_from_before_a_reboot_is_not_put_back_and_begun_anew() {
        let site = Site::new();
        assert_done(&site.perform());
        site.tree.write("proc/sys/kernel/random/boot_id", "b-2\n");
        let error = block_on(site.tuning().undo()).unwrap_err();
        assert!(error.to_string().starts_with("nothing to undo"), "{error}");
        site.tree.write("proc/irq/40/smp_affinity_list", "3\n");
        let before = site.tree.files();
        assert_done(&site.perform());
        assert_done(&block_on(site.tuning().undo()).unwrap());
        assert_eq!(site.tree.files(), before);
    }

    #[test]
    fn a_link_in_the_way_of_the_record_is_not_followed() {
        let site = Site::new();
        let victim = site.state.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        fs::create_dir_all(site.state.path().join("nic")).unwrap();
        let link = site.state.path().join("nic/eth0.tmp");
        std::os::unix::fs::symlink(&victim, link).unwrap();
        assert_done(&site.perform());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn without_a_record_there_is_nothing_to_undo() {
        let site = Site::new();
        let error = block_on(site.tuning().undo()).unwrap_err();
        assert!(error.to_string().starts_with("nothing to undo"), "{error}");
    }

    #[test]
    fn a_record_cannot_make_root_write_other_files() {
        for path in [
            "etc/shadow",
            "/etc/shadow",
            "proc/sys/net/../kernel/core_pattern",
            "proc/sys/net/ipv4/ip_forward",
            "proc/irq/../../etc/smp_affinity_list",
            "sys/class/net/eth0/device/remove",
            "sys/class/net/eth1/queues/rx-0/rps_cpus",
        ] {
            let site = Site::new();
            let file = site.tuning().file().to_owned();
            let setting = Setting::File { path: path.to_owned(), text: String::new() };
            save(&file, &Kept { boot: "b-1".to_owned(), settings: vec![setting] }).unwrap();
            let error = block_on(site.tuning().undo()).unwrap_err();
            assert!(error.to_string().contains(path), "{error}");
        }
    }

    #[test]
    fn nothing_is_changed_when_the_record_cannot_be_written() {
        let site = Site::new();
        fs::create_dir_all(site.state.path().join("nic/eth0.tmp")).unwrap();
        let before = site.tree.files();
        let error = block_on(site.tuning().perform(&site.nic(), &site.steps())).unwrap_err();
        assert!(error.to_string().ends_with("nothing was changed"), "{error}");
        assert_eq!(site.tree.files(), before);
    }
}
