//! Plays dialogues against the SMTP core: no socket, no thread, a clock that the dialogue moves.
//!
//! Each is played three ways: every client turn fed whole, octet by octet, and cut at random places. The outcome must be the
//! same. Every reply is to be expected before anything else happens, so none goes unseen.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ingress_user::policy::{ClientNetworks, Networks, RecipientDomains, TargetExtensions};
use ingress_user::smtp::Settings;
use ingress_user::smtp::dialect::Dialect;
use ingress_user::smtp::envelope::{BodyType, Envelope, Notify, Recipient, Ret};
use ingress_user::smtp::session::Tls;
use ingress_user::spool::QueueId;

use crate::corpus::Dialogue;
use crate::player::{Mismatch, Player};

/// What a dialogue starts from: short limits, one local domain, STARTTLS on offer, a target that keeps everything.
pub fn settings() -> Settings {
    Settings {
        hostname: "mx.example.net".into(),
        dialect: Dialect::Smtp,
        tls: Tls::StartTls,
        networks: ClientNetworks::default(),
        target: TargetExtensions { smtputf8: true, binarymime: true, dsn: true, requiretls: true },
        domains: RecipientDomains::listed(["example.net", "xn--bcher-kva.example"]),
        idle_timeout: Duration::from_secs(300),
        tls_handshake_timeout: Duration::from_secs(60),
        commit_timeout: Duration::from_secs(300),
        proxy_header_timeout: Duration::from_secs(5),
        greet_delay: Duration::ZERO,
        command_line_bytes_max: 512,
        message_bytes_max: 1000,
        text_line_bytes_max: 500,
        recipients_max: 3,
        messages_max: 10,
        errors_max: 5,
        errors_undelayed_max: 10,
        error_delay: Duration::from_secs(1),
    }
}

/// Changes the setting that a dialogue names.
pub fn set(settings: &mut Settings, name: &str, value: &str) -> Result<(), String> {
    match name {
        "hostname" => settings.hostname = value.into(),
        "protocol" => {
            settings.dialect = one_of(value, [("smtp", Dialect::Smtp), ("lmtp", Dialect::Lmtp)])?;
        }
        "tls" => {
            let modes =
                [("off", Tls::Off), ("starttls", Tls::StartTls), ("implicit", Tls::Implicit)];
            settings.tls = one_of(value, modes)?;
        }
        "domains" if value == "*" => settings.domains = RecipientDomains::Any,
        "domains" => settings.domains = RecipientDomains::listed(value.split(' ')),
        "proxy_protocol" => settings.networks.proxy_protocol = networks(value)?,
        "xclient" => settings.networks.xclient = networks(value)?,
        "normalize" => settings.networks.normalize = networks(value)?,
        "undelayed" => settings.networks.undelayed = networks(value)?,
        "target" => settings.target = target(value)?,
        "idle_timeout" => settings.idle_timeout = seconds(value)?,
        "tls_handshake_timeout" => settings.tls_handshake_timeout = seconds(value)?,
        "commit_timeout" => settings.commit_timeout = seconds(value)?,
        "proxy_header_timeout" => settings.proxy_header_timeout = seconds(value)?,
        "greet_delay" => settings.greet_delay = seconds(value)?,
        "error_delay" => settings.error_delay = seconds(value)?,
        "command_line_bytes_max" => settings.command_line_bytes_max = number(value)?,
        "message_bytes_max" => settings.message_bytes_max = number(value)?,
        "text_line_bytes_max" => settings.text_line_bytes_max = number(value)?,
        "recipients_max" => settings.recipients_max = number(value)?,
        "messages_max" => settings.messages_max = number(value)?,
        "errors_max" => settings.errors_max = number(value)?,
        "errors_undelayed_max" => settings.errors_undelayed_max = number(value)?,
        _ => return Err(format!("there is no setting {name:?}")),
    }
    Ok(())
}

/// A time in a dialogue: `300s`.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time in seconds, as 300s is");
    let digits = text.strip_suffix('s').ok_or_else(wrong)?;
    digits.parse().map(Duration::from_secs).map_err(|_invalid| wrong())
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_invalid| format!("{text:?} is no number that fits"))
}

fn one_of<T, const N: usize>(text: &str, values: [(&str, T); N]) -> Result<T, String> {
    let names = values.each_ref().map(|(name, _)| *name).join(", ");
    let mut values = values.into_iter();
    values
        .find_map(|(name, value)| (name == text).then_some(value))
        .ok_or_else(|| format!("{text:?} is none of {names}"))
}

fn networks(text: &str) -> Result<Networks, String> {
    text.split(' ')
        .map(|network| network.parse().map_err(|_invalid| format!("{network:?} is no network")))
        .collect()
}

/// What the target keeps: names, or `nothing`.
fn target(text: &str) -> Result<TargetExtensions, String> {
    let mut target = TargetExtensions::default();
    for name in text.split(' ').filter(|name| *name != "nothing") {
        match name {
            "smtputf8" => target.smtputf8 = true,
            "binarymime" => target.binarymime = true,
            "dsn" => target.dsn = true,
            "requiretls" => target.requiretls = true,
            _ => return Err(format!("{name:?} is no extension of a target")),
        }
    }
    Ok(target)
}

/// The names that [`summary`] uses.
pub const SUMMARY_NAMES: [&str; 11] = [
    "from",
    "to",
    "body",
    "with",
    "helo",
    "client",
    "name",
    "mail",
    "rcpt",
    "smtputf8",
    "requiretls",
];

/// What a dialogue can say about an envelope: names and values. `to` comes once for each recipient, `rcpt` once for each that
/// has DSN parameters, `mail` where MAIL had such.
pub fn summary(envelope: &Envelope) -> Vec<(&'static str, String)> {
    let body = match envelope.body {
        BodyType::SevenBit => "7BIT",
        BodyType::EightBitMime => "8BITMIME",
        BodyType::BinaryMime => "BINARYMIME",
    };
    let yes_or_no = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let mut all = vec![
        ("from", format!("<{}>", envelope.reverse_path())),
        ("body", body.to_owned()),
        ("with", envelope.protocol.keyword(envelope.smtputf8).to_owned()),
        ("helo", envelope.helo().to_owned()),
        ("client", envelope.client.to_string()),
        ("smtputf8", yes_or_no(envelope.smtputf8)),
        ("requiretls", yes_or_no(envelope.requiretls)),
    ];
    all.push(("name", envelope.client_name().unwrap_or_default().to_owned()));
    let ret = envelope.ret.map(|ret| match ret {
        Ret::Full => "RET=FULL".to_owned(),
        Ret::Headers => "RET=HDRS".to_owned(),
    });
    let id = envelope.envelope_id().map(|id| format!("ENVID={id}"));
    all.extend(joined([ret, id]).map(|parameters| ("mail", parameters)));
    for recipient in envelope.recipients() {
        all.push(("to", format!("<{}>", recipient.path)));
        all.extend(rcpt_parameters(recipient).map(|parameters| ("rcpt", parameters)));
    }
    all
}

fn rcpt_parameters(recipient: Recipient<'_>) -> Option<String> {
    let Recipient { path, notify, original } = recipient;
    let notify = (notify != Notify::UNSPECIFIED).then(|| format!("NOTIFY={notify}"));
    let original = original.map(|original| format!("ORCPT={original}"));
    joined([notify, original]).map(|parameters| format!("<{path}> {parameters}"))
}

fn joined(parameters: [Option<String>; 2]) -> Option<String> {
    let given: Vec<String> = parameters.into_iter().flatten().collect();
    (!given.is_empty()).then(|| given.join(" "))
}

/// Where a dialogue went otherwise than written.
#[derive(Debug)]
pub struct Failure {
    file: String,
    line: usize,
    manner: Manner,
    mismatch: Mismatch,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tests/dialogues/{}:{}, fed {}", self.file, self.line, self.manner)?;
        writeln!(f, "  expected: {}", self.mismatch.expected)?;
        write!(f, "  came:     {}", self.mismatch.came)
    }
}

/// How client turns are cut.
#[derive(Debug, Clone, Copy)]
enum Manner {
    Whole,
    OctetByOctet,
    /// Pieces of 1 to 7 octets out of this seed.
    AtRandom(u64),
}

impl fmt::Display for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => write!(f, "whole"),
            Self::OctetByOctet => write!(f, "octet by octet"),
            Self::AtRandom(seed) => write!(f, "cut at random, seed {seed}"),
        }
    }
}

const SEEDS: std::ops::RangeInclusive<u64> = 1..=50;

/// Plays it whole, octet by octet, and cut at random.
pub fn play(dialogue: &Dialogue) -> Result<(), Failure> {
    play_in(dialogue, Manner::Whole)?;
    if dialogue.only_whole {
        return Ok(());
    }
    play_in(dialogue, Manner::OctetByOctet)?;
    SEEDS.map(Manner::AtRandom).try_for_each(|manner| play_in(dialogue, manner))
}

fn play_in(dialogue: &Dialogue, manner: Manner) -> Result<(), Failure> {
    let failure = |line, mismatch| Failure { file: dialogue.file.clone(), line, manner, mismatch };
    let mut player = Player::new(Arc::clone(&dialogue.settings));
    let mut cutter = Cutter::new(manner);
    let mut last = 0;
    for step in &dialogue.steps {
        last = step.line;
        player
            .take(&step.turn, |octets| cutter.cut(octets))
            .map_err(|mismatch| failure(last, mismatch))?;
    }
    player.end().map_err(|mismatch| failure(last, mismatch))
}

/// Cuts into pieces; the same seed gives the same pieces.
struct Cutter {
    manner: Manner,
    random: u64,
}

impl Cutter {
    fn new(manner: Manner) -> Self {
        let seed = if let Manner::AtRandom(seed) = manner { seed } else { 0 };
        Self { manner, random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
    }

    fn cut<'o>(&mut self, octets: &'o [u8]) -> Vec<&'o [u8]> {
        match self.manner {
            Manner::Whole => vec![octets],
            Manner::OctetByOctet => octets.chunks(1).collect(),
            Manner::AtRandom(_) => self.cut_at_random(octets),
        }
    }

    fn cut_at_random<'o>(&mut self, mut rest: &'o [u8]) -> Vec<&'o [u8]> {
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            // xorshift
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let length = (self.random % 7 + 1).min(rest.len() as u64);
            let (piece, behind) = rest.split_at(length as usize);
            pieces.push(piece);
            rest = behind;
        }
        pieces
    }
}

/// What a session made of some input.
#[derive(Debug, Default)]
pub struct Transcript {
    pub replies: Vec<u8>,
    /// The messages that the session asked to be made durable; each was.
    pub messages: Vec<Vec<u8>>,
    pub closed: bool,
    /// The most that the session kept of the input for itself, between two receives.
    pub kept_octets_max: usize,
}

/// What a client can see: how much was kept depends on how the octets came.
impl PartialEq for Transcript {
    fn eq(&self, other: &Self) -> bool {
        (&self.replies, &self.messages, self.closed)
            == (&other.replies, &other.messages, other.closed)
    }
}

impl Eq for Transcript {}

impl Transcript {
    /// Plays `pieces`, each as one receive.
    pub fn of<'p>(settings: Settings, pieces: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let mut player = Player::new(Arc::new(settings));
        let (mut messages, mut kept_octets_max) = (Vec::new(), 0);
        for piece in pieces {
            player.receive(piece);
            kept_octets_max = kept_octets_max.max(player.kept_octets());
            while let Some(asked) = player.asked.pop_front() {
                messages.push(asked.octets);
                player.store(QueueId(messages.len() as u64));
            }
        }
        Self { replies: player.output, closed: player.closed, messages, kept_octets_max }
    }
}

#[cfg(test)]
mod tests {
    use crate::corpus;

    const TO_354: &str = "S: 220\nC: EHLO x\nS: 250\nC: MAIL FROM:<a@b>\nS: 250\n\
        C: RCPT TO:<a@example.net>\nS: 250\nC: DATA\nS: 354\n";

    /// How the dialogue fails, or nothing.
    fn failure_of(turns: &str) -> String {
        let dialogues = corpus::parse("a.dialogue", &format!("== a\n{turns}"), &[]).unwrap();
        super::play(&dialogues[0]).err().map(|failure| failure.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_failure_says_where_and_how_and_what() {
        assert_eq!(
            failure_of("S: 220\nC: NOOP\nS: 251\n"),
            "tests/dialogues/a.dialogue:4, fed whole\n  expected: a reply 251\n  came:     250 2.0.0 Ok"
        );
        let injected = failure_of("S: 220\nC: STARTTLS\nC: NOOP\nS: 554\nclosed\n");
        assert!(injected.contains("a.dialogue:5, fed octet by octet\n"), "{injected}");
    }

    #[test]
    fn a_dialogue_that_goes_otherwise_fails() {
        for (turns, expected) in [
            ("S: 220 mx.example.org\n", "a reply 220 mx.example.org"),
            ("S= 220 mx.example.net\n", "a reply 220 mx.example.net"),
            ("S: 220-mx.example.net\nS: 220 more\n", "a reply 220-mx.example.net / 220 more"),
            ("S: 220\nS: 250\n", "a reply 250"),
            ("S: 220\nC: EHLO x\nS: 250-mx\nS: 250 ENH\n", "a reply 250-mx / 250 ENH"),
            ("S: 220\nC: NOOP\n", "no further reply"),
            ("S: 220\nC: NOOP\n\nC: NOOP\nS: 250\nS: 250\n", "no further reply"),
            ("silence\nS: 220\n", "no further reply"),
            ("S: 220\nclosed\n", "closed"),
            ("S: 220\nC: QUIT\nS: 221\n", "a session that goes on"),
            ("S: 220\ntls\n", "a session that waits for TLS"),
            ("S: 220\nC: STARTTLS\nS: 220\n", "no wait for TLS at the end"),
            ("S: 220\nmessage DATA\nM: .\n", "a message"),
        ] {
            let failure = failure_of(turns);
            assert!(failure.contains(&format!("  expected: {expected}\n")), "{turns}: {failure}");
        }
    }

    #[test]
    fn a_message_that_differs_or_goes_unseen_fails() {
        assert_eq!(
            failure_of(&format!("{TO_354}C: .\nmessage DATA\nE: to=<a@example.net>\nM: .\n")),
            ""
        );
        for (turns, expected) in [
            ("C: .\n", "no message that the dialogue does not name"),
            ("C: .\ncommit ok\nS: 250\n", "no message that the dialogue does not name"),
            ("C: .\nmessage BDAT\nM: .\n", "Verbatim"),
            ("C: .\nmessage DATA\nM: x\n", "the message x\\r\\n"),
            ("C: .\nmessage DATA\nE: from=<>\nM: .\n", "from=<>"),
            (
                "C: .\nmessage DATA\nE: to=<a@example.net>\nE: to=<b>\nM: .\n",
                "to=<a@example.net>,<b>",
            ),
        ] {
            let failure = failure_of(&format!("{TO_354}{turns}"));
            assert!(failure.contains(&format!("  expected: {expected}\n")), "{turns}: {failure}");
        }
    }
}
