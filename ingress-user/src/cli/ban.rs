use std::fmt::Write;

use anyhow::{Context, Result};
use clap::Subcommand;
use ipnet::IpNet;

use super::daemon::{DaemonArguments, block_on};
use super::tls::{network, seconds, time_text};
use crate::bans::BanReport;
use crate::control;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show who is banned, why, until when, and how many packets XDP has dropped for it
    List {
        /// Print the daemon's JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        daemon: DaemonArguments,
    },
    /// Ban clients at once; open sessions go on, unless XDP drops their packets
    Add {
        /// Addresses or networks: at most a /24, of IPv6 a /56, and nothing smaller than a /64
        #[arg(value_name = "NET", value_parser = network, required = true)]
        networks: Vec<IpNet>,
        /// For how long, such as 30m, 12h or 7d
        #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = seconds)]
        seconds: u64,
        /// What to show as the reason
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        #[command(flatten)]
        daemon: DaemonArguments,
    },
    /// End all bans that an address or a network has a part in, and forget what led to them
    Del {
        #[arg(value_name = "NET", value_parser = network)]
        network: IpNet,
        #[command(flatten)]
        daemon: DaemonArguments,
    },
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.verb {
        Verb::List { json, daemon } => {
            let text = block_on(control::fetch(&daemon.socket()?, "/bans"))??;
            if *json {
                return super::print(&format!("{text}\n"));
            }
            let bans: Vec<BanReport> = serde_json::from_str(&text)
                .context("the daemon's answer is not what this version of ingress expects")?;
            super::print(&list(&bans))
        }
        Verb::Add { networks, seconds, reason, daemon } => {
            let note = in_query(reason);
            networks.iter().try_for_each(|network| {
                change(
                    daemon,
                    &format!("/bans/add?network={network}&seconds={seconds}&note={note}"),
                )
            })
        }
        Verb::Del { network, daemon } => change(daemon, &format!("/bans/del?network={network}")),
    }
}

fn change(daemon: &DaemonArguments, target: &str) -> Result<()> {
    let answer = block_on(control::change(&daemon.socket()?, target))??;
    super::print(&answer)
}

fn list(bans: &[BanReport]) -> String {
    if bans.is_empty() {
        return "nobody is banned\n".to_owned();
    }
    let mut text = String::new();
    for ban in bans {
        let BanReport { network, reason, note, offences, times, since, until, packets } = ban;
        let network = network.to_string();
        let why = match (reason.as_str(), note.as_str()) {
            ("operator", "") => "by the operator".to_owned(),
            ("operator", note) => format!("by the operator: {note}"),
            (offence, _) => format!("{offence}, {offences} times; ban {times} in a row"),
        };
        let dropped = match packets {
            Some(packets) => format!("{packets} packets dropped"),
            None => "turned away when it connects".to_owned(),
        };
        let (since, until) = (time_text(*since), time_text(*until));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{network:<24} until {until}, since {since}; {dropped}; {why}");
    }
    text
}

/// Text as a value in a query (RFC 3986 section 2.1).
fn in_query(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte.is_ascii_alphanumeric() {
            true => encoded.push(char::from(byte)),
            false => {
                // Writing to a String cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_why_until_when_and_how_many_packets() {
        let ban = BanReport {
            network: "192.0.2.7/32".parse().unwrap(),
            reason: "early_talker".to_owned(),
            note: String::new(),
            offences: 3,
            times: 2,
            since: 1_795_508_201,
            until: 1_795_509_401,
            packets: Some(17),
        };
        let words = BanReport {
            network: "2001:db8::/64".parse().unwrap(),
            reason: "operator".to_owned(),
            note: "spam again".to_owned(),
            packets: None,
            ..ban.clone()
        };
        assert_eq!(
            list(&[ban, words]),
            "192.0.2.7/32             until 2026-11-24T08:36:41Z, since 2026-11-24T08:16:41Z; \
             17 packets dropped; early_talker, 3 times; ban 2 in a row\n\
             2001:db8::/64            until 2026-11-24T08:36:41Z, since 2026-11-24T08:16:41Z; \
             turned away when it connects; by the operator: spam again\n"
        );
        assert_eq!(list(&[]), "nobody is banned\n");
    }

    #[test]
    fn a_reason_of_any_text_is_one_value() {
        assert_eq!(in_query("a b&c=\u{fc}"), "a%20b%26c%3D%C3%BC");
    }
}
