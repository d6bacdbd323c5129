use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{self, Path, PathBuf};

use super::Config;
use super::error::ConfigError;
use super::resolve::resolve;
use super::source::Source;

/// What runs without a file: see the comments in it.
const EMBEDDED: &str = include_str!("../../config/default.toml");

impl Config {
    /// Reads and checks the file at `path`. Relative paths in it start at its folder.
    ///
    /// The certificate files it names must be readable now. Nothing is created, bound or attached.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read_error = |source| ConfigError::Read { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(read_error)?;
        let absolute = path::absolute(path).map_err(read_error)?;
        let folder = absolute.parent().unwrap_or(Path::new("/"));
        Self::parse(&path.display().to_string(), &text, folder)
    }

    /// The configuration of a daemon started without a file. Its state lives in one folder: `INGRESS_STATE_DIR`, else
    /// `$XDG_STATE_HOME/ingress`, else `~/.local/state/ingress`, for root too.
    ///
    /// Fails when none of them is known, or when the folder's path is too long for a socket in it.
    pub fn embedded() -> Result<Self, ConfigError> {
        let folder = state_folder(|name| env::var_os(name), env::home_dir())
            .ok_or(ConfigError::NoStateFolder)?;
        Self::parse("embedded default", EMBEDDED, &folder)
    }

    /// Checks `text`, called `name` in errors. Relative paths in it start at `folder`.
    pub(super) fn parse(name: &str, text: &str, folder: &Path) -> Result<Self, ConfigError> {
        let (source, file) = Source::parse(name, text)?;
        resolve(file, &source, folder)
    }
}

/// Relative values do not count: the daemon and `ingress status` are not started in the same folder.
fn state_folder(
    variable: impl Fn(&str) -> Option<OsString>,
    home: Option<PathBuf>,
) -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let named = |name| variable(name).map(PathBuf::from).filter(absolute);
    named("INGRESS_STATE_DIR")
        .or_else(|| Some(named("XDG_STATE_HOME")?.join("ingress")))
        .or_else(|| Some(home.filter(absolute)?.join(".local/state/ingress")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(variables: &[(&str, &str)], home: Option<&str>) -> Option<PathBuf> {
        let variable = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        };
        state_folder(variable, home.map(PathBuf::from))
    }

    #[test]
    fn the_state_folder_is_the_first_absolute_one() {
        let xdg = ("XDG_STATE_HOME", "/xdg");
        assert_eq!(folder(&[xdg, ("INGRESS_STATE_DIR", "/i")], None), Some("/i".into()));
        assert_eq!(folder(&[xdg], Some("/home/a")), Some("/xdg/ingress".into()));
        assert_eq!(folder(&[], Some("/home/a")), Some("/home/a/.local/state/ingress".into()));
        assert_eq!(folder(&[("INGRESS_STATE_DIR", "rel")], None), None);
    }

    #[test]
    fn the_embedded_default_keeps_everything_below_its_folder() {
        let config = Config::parse("embedded default", EMBEDDED, Path::new("/s")).unwrap();
        assert_eq!(config.state_dir, Path::new("/s"));
        assert_eq!(config.control.socket, Path::new("/s/control.sock"));
        assert_eq!(
            config.delivery,
            super::super::DeliveryConfig::Maildir { path: "/s/maildir".into() }
        );
        assert!(config.control.metrics.is_none());
        assert!(config.xdp.interfaces.is_empty());
        assert_eq!(config.listeners.len(), 2);
    }
}
