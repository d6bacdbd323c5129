//! Deny lists: read from files, put in force as a whole, and read anew when the files change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ingress_ebpf::abi::PREFIXES_MAX;
use ipnet::IpNet;

use tokio::time::{MissedTickBehavior, interval};

use super::error::XdpError;
use super::filter::Filter;
use super::lists::{ListFile, Lists};
use crate::file_stamp::FileStamp;

/// Bad lines of a file that are told one by one; more are counted.
const BAD_LINES_TOLD_MAX: usize = 5;

/// Between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Octets of a file: far above what fits into the kernel's map.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Why lists were not exchanged; those before stay in force.
#[derive(Debug, thiserror::Error)]
pub enum DenyError {
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {bytes} bytes: no list of networks is longer than {FILE_BYTES_MAX}", path.display())]
    TooLong { path: PathBuf, bytes: u64 },
    #[error("{count} networks, but the kernel's lists hold {PREFIXES_MAX} of each family")]
    TooMany { count: usize },
    #[error(transparent)]
    Kernel(#[from] XdpError),
}

/// The lists of a running filter.
pub struct DenyLists {
    filter: Arc<Filter>,
    allow: Vec<IpNet>,
    files: Vec<PathBuf>,
    /// The files as they were before they were last read. Held throughout a reload, so that of two the later reading stays.
    stamps: Mutex<Vec<Option<FileStamp>>>,
}

/// What is in force after a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce {
    /// Networks that are denied or allowed.
    pub networks: usize,
    /// A sentence for each bad line, `FILE:LINE: what is wrong`, as far as they are told.
    pub bad_lines: Vec<String>,
}

impl DenyLists {
    pub fn new(filter: Arc<Filter>, allow: Vec<IpNet>, files: Vec<PathBuf>) -> Self {
        Self { filter, allow, files, stamps: Mutex::default() }
    }

    /// Reads all files and puts them in force together. Bad lines are left out and told. Blocks on files.
    ///
    /// # Errors
    /// [`DenyError`]: a file that cannot be read, or more networks than the kernel holds.
    pub fn reload(&self) -> Result<InForce, DenyError> {
        self.reload_locked(self.stamps())
    }

    /// [`Self::reload`] when a file is not what it was at the last reading.
    pub fn reload_if_changed(&self) -> Option<Result<InForce, DenyError>> {
        let known = self.stamps();
        let is_changed = *known != self.stamps_now();
        is_changed.then(|| self.reload_locked(known))
    }

    fn reload_locked(
        &self,
        mut known: MutexGuard<'_, Vec<Option<FileStamp>>>,
    ) -> Result<InForce, DenyError> {
        // Before the reading: what changes during it is seen at the next look.
        *known = self.stamps_now();
        let result = self.replace();
        match &result {
            Ok(InForce { networks, bad_lines }) => {
                tracing::info!(networks, "lists of allowed and denied networks in force");
                for line in bad_lines {
                    tracing::warn!("deny list: {line}");
                }
            }
            Err(error) => {
                tracing::error!(%error, "deny lists not loaded, those loaded before stay");
            }
        }
        result
    }

    fn replace(&self) -> Result<InForce, DenyError> {
        let (mut denied, mut bad_lines) = (Vec::new(), Vec::new());
        for path in &self.files {
            let list = ListFile::parse(&read(path)?);
            bad_lines.extend(told(path, &list.bad_lines));
            denied.extend(list.networks);
        }
        let lists = Lists::new(self.allow.iter().copied(), denied);
        let networks = lists.len();
        if networks > PREFIXES_MAX as usize {
            return Err(DenyError::TooMany { count: networks });
        }
        self.filter.set_lists(lists)?;
        Ok(InForce { networks, bad_lines })
    }

    fn stamps_now(&self) -> Vec<Option<FileStamp>> {
        self.files.iter().map(|file| FileStamp::of(file)).collect()
    }

    fn stamps(&self) -> MutexGuard<'_, Vec<Option<FileStamp>>> {
        self.stamps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks every minute whether files have changed, and then reloads. Never ends.
pub async fn watch_lists(lists: Arc<DenyLists>) {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let lists = Arc::clone(&lists);
        // The result is logged; no thread is to be had only when the daemon stops.
        let _done = tokio::task::spawn_blocking(move || lists.reload_if_changed()).await;
    }
}

/// The text of the file; octets that are no UTF-8 make a bad line.
fn read(path: &Path) -> Result<String, DenyError> {
    let read_error = |source| DenyError::Read { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(read_error)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(DenyError::TooLong { path: path.to_owned(), bytes });
    }
    let octets = fs::read(path).map_err(read_error)?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

/// The first bad lines of a file, and how many more there are.
fn told(path: &Path, bad_lines: &[(usize, String)]) -> Vec<String> {
    let shown = path.display();
    let mut lines: Vec<String> = bad_lines
        .iter()
        .take(BAD_LINES_TOLD_MAX)
        .map(|(number, problem)| format!("{shown}:{number}: {problem}"))
        .collect();
    if bad_lines.len() > BAD_LINES_TOLD_MAX {
        lines.push(format!("{shown}: {} more bad lines", bad_lines.len() - BAD_LINES_TOLD_MAX));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_bad_lines_are_told_and_the_others_counted() {
        let bad: Vec<(usize, String)> = (1..=8).map(|number| (number, "bad".to_owned())).collect();
        let lines = told(Path::new("/etc/deny"), &bad);
        assert_eq!(lines.len(), BAD_LINES_TOLD_MAX + 1);
        assert_eq!(lines[0], "/etc/deny:1: bad");
        assert_eq!(lines[BAD_LINES_TOLD_MAX], "/etc/deny: 3 more bad lines");
        assert_eq!(told(Path::new("/etc/deny"), &bad[..2]).len(), 2);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = read(Path::new("/nowhere/deny.txt")).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/deny.txt: No such file"), "{error}");
    }
}
