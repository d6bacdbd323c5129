use std::path::PathBuf;

/// Why a configuration cannot be used. Displays as one line, ready for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: cannot read the configuration: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// Not TOML at all, a key given twice included.
    #[error("{file}:{line}: not valid TOML: {message}")]
    Syntax { file: String, line: usize, message: String },
    /// `key` carries its section, as in `[limits] idle_timout`.
    #[error("{file}:{line}: {key}: unknown key, expected {expected}")]
    UnknownKey { file: String, line: usize, key: String, expected: String },
    #[error("{file}:{line}: {key} = {value}: expected {expected}")]
    Value { file: String, line: usize, key: String, value: String, expected: String },
    #[error("{file}:{line}: {key}: missing, expected {expected}")]
    Missing { file: String, line: usize, key: String, expected: String },
    /// The embedded default keeps its state below the user's home.
    #[error(
        "no folder for the state: set INGRESS_STATE_DIR, XDG_STATE_HOME or HOME to an absolute path"
    )]
    NoStateFolder,
}
