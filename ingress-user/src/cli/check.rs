use std::path::PathBuf;

use anyhow::Result;

use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let config = Config::load(&arguments.config)?;
    // A comment: what is printed can be given back to --config.
    let remark = config.mta_sts.remark(&config.recipients);
    let remark = remark.map(|remark| format!("# {remark}\n")).unwrap_or_default();
    super::print(&format!("{remark}{config}"))
}
