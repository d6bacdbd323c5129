use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::daemon::block_on;
use crate::config::Config;
use crate::dns::comparison::State;
use crate::dns::lookup;
use crate::dns::policy::Policy;
use crate::dns::publication::Publication;
use crate::tls;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file (TOML); without it, that of the trial server
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print a list of objects with name, type, value and purpose; MTA-STS policies have the type `file`
    #[arg(long)]
    json: bool,
    /// Compare with what a resolver says; exits 1 when a record is missing, different or not answered for
    #[arg(long)]
    check: bool,
    /// Ask this resolver, not those of the system
    #[arg(long, value_name = "ADDRESS:PORT", requires = "check")]
    resolver: Option<SocketAddr>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let config = match &arguments.config {
        Some(path) => Config::load(path)?,
        None => Config::embedded()?,
    };
    let Config { hostname, state_dir, tls, recipients, mta_sts, .. } = config;
    let leaves = tls::leaves(&tls, &hostname, &state_dir)?;
    let keys = leaves.iter().map(|leaf| leaf.public_key.as_slice());
    let certificates = leaves.iter().map(|leaf| (&leaf.names, leaf.is_self_signed));
    let policy = Policy::new(&hostname, &mta_sts, certificates);
    let serves_policy = !mta_sts.listen.is_empty();
    let publication = Publication::new(&hostname, &recipients, keys, policy, serves_policy);
    if arguments.check {
        return check(arguments, &publication);
    }
    match arguments.json {
        true => super::print(&json(&publication.json())?),
        false => super::print(&publication.to_string()),
    }
}

fn check(arguments: &Arguments, publication: &Publication) -> Result<()> {
    let findings = block_on(lookup::check(publication.records(), arguments.resolver))??;
    if arguments.json {
        super::print(&json(&findings)?)?;
    } else {
        let remark = publication.remark().map(|remark| format!("; {remark}\n"));
        let lines = findings.iter().map(|finding| format!("{finding}\n"));
        super::print(&remark.into_iter().chain(lines).collect::<String>())?;
    }
    let wrong = findings.iter().filter(|finding| finding.state != State::Ok).count();
    ensure!(wrong == 0, "{wrong} of {} records were not found as printed", findings.len());
    Ok(())
}

fn json(list: &impl serde::Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(list).context("cannot write JSON")? + "\n")
}
