//! What a server answers to clients of all ages: the pure part of `ingress tls test`.
//!
//! ClientHellos are written octet by octet, because no TLS library sends what old clients send. Of the answer only what comes
//! in clear is read, which tells enough: whether there is one, what was chosen, and in TLS 1.2 the certificates.

pub mod answer;
pub mod chain;
pub mod hello;
pub mod profiles;

#[cfg(test)]
mod tests;

use serde::Serialize;

use self::answer::{Answer, Chosen};
use self::hello::Hello;
use super::offer;
use super::verdict::{Ending, NextTry, Own, Stage, verdict};
use crate::tls::names;

/// What mail from clients of a profile meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Works,
    /// No TLS in common: STARTTLS will not be offered the next time, so the mail comes in clear.
    FallsToClear,
    Fails,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    pub profile: &'static str,
    pub outcome: Outcome,
    /// By the name that `ingress tls report` has for it.
    pub verdict: Option<&'static str>,
    /// What was chosen, or what is wrong and what can be done.
    pub explanation: String,
}

impl Row {
    /// There was no handshake to judge.
    pub fn without_handshake(profile: &'static str, explanation: String) -> Self {
        Self { profile, outcome: Outcome::Fails, verdict: None, explanation }
    }

    /// Judges the answer to `hello` from a server that has what `own` says. `may_come_in_clear`: there is STARTTLS to leave out.
    pub fn judge(
        profile: &'static str,
        hello: &Hello,
        answer: &Answer,
        own: &Own,
        may_come_in_clear: bool,
    ) -> Self {
        let alert = match answer {
            Answer::Chosen(chosen) => {
                let explanation = explain(chosen);
                return Self { profile, outcome: Outcome::Works, verdict: None, explanation };
            }
            Answer::Alert(alert) => *alert,
        };
        let offer = offer::parse(&hello.octets());
        let verdict = verdict(&offer, own, Stage::HelloReceived, Ending::WeRefused);
        let outcome = if may_come_in_clear && verdict.is_negotiation() {
            Outcome::FallsToClear
        } else {
            Outcome::Fails
        };
        let next = if may_come_in_clear { NextTry::InClear } else { NextTry::TlsFirst };
        let explanation = format!("{} (alert {})", verdict.explain(next), names::alert(alert));
        Self { profile, outcome, verdict: Some(verdict.name()), explanation }
    }
}

fn explain(chosen: &Chosen) -> String {
    let Chosen { version, suite, group, retry, .. } = chosen;
    let (version, suite) = (names::version(*version), names::suite(*suite));
    let group = group.map(|group| format!(", {}", names::group(group))).unwrap_or_default();
    let retry = if *retry { ", once the client has sent a key of that group" } else { "" };
    format!("{version}, {suite}{group}{retry}")
}
