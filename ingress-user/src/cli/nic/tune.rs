use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::{Interfaces, Served};
use crate::cli::daemon::block_on;
use crate::config::Config;
use crate::nic::{self, Change, Done, Host, How, Machine, Nic, Step, Tuning, Workers};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    interfaces: Interfaces,
    /// Do it; what was there before is kept below `state_dir`
    #[arg(long)]
    apply: bool,
    /// Put back what was there before the first --apply
    #[arg(long, conflicts_with = "apply")]
    undo: bool,
    /// Print the plan as a list of objects, one for each interface
    #[arg(long, conflicts_with_all = ["apply", "undo"])]
    json: bool,
}

/// The plan of an interface.
#[derive(Serialize)]
struct Plan {
    interface: String,
    steps: Vec<Step>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let (config, names) = arguments.interfaces.resolve()?;
    block_on(async {
        match (arguments.apply, arguments.undo) {
            (true, _) => apply(&config, &names).await,
            (_, true) => undo(&config, &names).await,
            _ => {
                let mut plans = Vec::new();
                for name in names {
                    let steps = plan(&config, &name).await?;
                    plans.push(Plan { interface: name, steps });
                }
                print_plans(&plans, arguments.json)
            }
        }
    })?
}

async fn plan(config: &Config, name: &str) -> Result<Vec<Step>> {
    let machine = Machine::this();
    let nic = Nic::read(&machine, name).await?;
    let steered = Served::ask(config).await.steered(&nic);
    let workers = Workers { cpus: &config.worker_cpus, steered };
    Ok(nic::plan(&nic, workers, &Host::read(&machine)))
}

fn print_plans(plans: &[Plan], json: bool) -> Result<()> {
    if json {
        let json = serde_json::to_string_pretty(plans).context("cannot write JSON")?;
        return crate::cli::print(&format!("{json}\n"));
    }
    let mut text = String::new();
    for Plan { interface, steps } in plans {
        match steps.len() {
            0 => text += &format!("{interface}: all is as wanted\n"),
            count => text += &format!("{interface}: {count} to change (--apply does it)\n"),
        }
        for step in steps {
            let Step { what, now, wanted, why, how } = step;
            text +=
                &format!("  {what}: {now} -> {wanted}\n    {why}\n    {}\n", told(how, interface));
        }
    }
    crate::cli::print(&text)
}

/// The command that does the same.
fn told(how: &How, interface: &str) -> String {
    match how {
        How::Write { file, text } => format!("echo {} > /{file}", text.trim_end()),
        How::Operator(command) => format!("not done by --apply: {command}"),
        How::Change(Change::Channels { rx, tx, combined }) => {
            let count = |name: &str, count: &Option<u32>| count.map(|it| format!(" {name} {it}"));
            let counts = [count("rx", rx), count("tx", tx), count("combined", combined)];
            format!("ethtool -L {interface}{}", counts.into_iter().flatten().collect::<String>())
        }
        How::Change(Change::Rings { rx, tx }) => format!("ethtool -G {interface} rx {rx} tx {tx}"),
        How::Change(Change::Coalescing { rx_adaptive, rx_microseconds }) => {
            let adaptive =
                rx_adaptive.map(|on| if on { " adaptive-rx on" } else { " adaptive-rx off" });
            let time = rx_microseconds.map(|time| format!(" rx-usecs {time}")).unwrap_or_default();
            format!("ethtool -C {interface}{}{time}", adaptive.unwrap_or_default())
        }
    }
}

async fn apply(config: &Config, names: &[String]) -> Result<()> {
    let mut failed = 0;
    for name in names {
        let tuning = Tuning::new(Machine::this(), &config.state_dir, name);
        let nic = Nic::read(&Machine::this(), name).await?;
        let steered = Served::ask(config).await.steered(&nic);
        let done = tuning.apply(Workers { cpus: &config.worker_cpus, steered }).await?;
        failed += print_done(name, &done, "all is as wanted")?;
        for step in plan(config, name).await? {
            if let How::Operator(command) = &step.how {
                crate::cli::print(&format!("{name}: {}: left to you: {command}\n", step.what))?;
            }
        }
    }
    ensure!(
        failed == 0,
        "{failed} changes failed; `ingress nic tune --undo` takes the others back"
    );
    Ok(())
}

async fn undo(config: &Config, names: &[String]) -> Result<()> {
    let mut failed = 0;
    for name in names {
        let tuning = Tuning::new(Machine::this(), &config.state_dir, name);
        let failures = print_done(name, &tuning.undo().await?, "nothing was changed")?;
        if failures > 0 {
            let file = tuning.file().display();
            crate::cli::print(&format!(
                "{name}: {file} is kept; remove it to forget what is in it\n"
            ))?;
        }
        failed += failures;
    }
    ensure!(failed == 0, "{failed} settings could not be put back");
    Ok(())
}

/// A line each; how many failed.
fn print_done(name: &str, done: &[Done], nothing: &str) -> Result<usize> {
    let mut text = String::new();
    for Done { what, result } in done {
        match result {
            Ok(()) => text += &format!("{name}: {what}: done\n"),
            Err(error) => text += &format!("{name}: {what}: FAILED: {error}\n"),
        }
    }
    if done.is_empty() {
        text += &format!("{name}: {nothing}\n");
    }
    crate::cli::print(&text)?;
    Ok(done.iter().filter(|done| done.result.is_err()).count())
}
