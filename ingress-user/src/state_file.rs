//! JSON documents in the state folder that a restart reads again: replaced as a whole, of one version, and set aside when broken.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// What a document is, to those who read it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    /// Its field `version`. A document with another is set aside: none is better than one that is read wrongly.
    pub(crate) version: u32,
    /// Far beyond what it can grow to.
    pub(crate) bytes_max: u64,
    /// What begins anew when it cannot be read, for the log.
    pub(crate) holds: &'static str,
}

#[derive(Debug, Deserialize)]
struct Version {
    version: u32,
}

impl Format {
    /// What the file has. One that cannot be used is said and set aside, and is no reason not to start.
    pub(crate) fn load<T: DeserializeOwned + Default>(self, file: &Path) -> T {
        let error = match self.read(file) {
            Ok(document) => return document,
            Err(error) if error.kind() == ErrorKind::NotFound => return T::default(),
            Err(error) => error,
        };
        let aside = file.with_extension("json.broken");
        tracing::warn!(
            file = %file.display(), aside = %aside.display(), %error,
            "{} begin anew: what was kept cannot be read and is set aside", self.holds
        );
        if let Err(error) = fs::rename(file, &aside) {
            tracing::warn!(file = %file.display(), %error, "cannot set it aside");
        }
        T::default()
    }

    fn read<T: DeserializeOwned>(self, file: &Path) -> io::Result<T> {
        let mut text = Vec::new();
        File::open(file)?.take(self.bytes_max + 1).read_to_end(&mut text)?;
        if text.len() as u64 > self.bytes_max {
            return Err(io::Error::other(format!("it has more than {} octets", self.bytes_max)));
        }
        // Looked at first, so that a later version is called by that name.
        let Version { version } = serde_json::from_slice(&text)?;
        if version != self.version {
            let reason =
                format!("its version is {version}, and {} is what can be read", self.version);
            return Err(io::Error::other(reason));
        }
        Ok(serde_json::from_slice(&text)?)
    }
}

/// Writes the file anew. Whoever reads it, after a crash too, finds the old one or the new one.
pub(crate) fn replace(
    file: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let unfinished = file.with_extension("tmp");
    let mut output = BufWriter::new(File::create(&unfinished)?);
    write(&mut output)?;
    output.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(unfinished, file)
}
