//! Which records to publish, for these domains, this host and these keys.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::{Value, json};

use super::policy::{Mode, Policy};
use crate::policy::RecipientDomains;

/// The preference of this host. What it is counts only beside others, which are the operator's.
const MX_PREFERENCE: u16 = 10;

/// RFC 1035 3.3: octets in one string of a TXT record; longer text is several strings.
const TEXT_BYTES_MAX: usize = 255;

const MX: &str = "MX: mail for the domain goes to this host (RFC 5321 5.1)";
const TLSA: &str = "DANE: the keys of this host's certificates (RFC 7672); heeded only where DNSSEC signs the zone";
const MTA_STS: &str = "MTA-STS: there is a policy, and a new id when it changes (RFC 8461)";
const TLSRPT: &str = "TLSRPT: where senders report on TLS, good and bad (RFC 8460)";
const POLICY: &str = "MTA-STS: the policy, to be served over HTTPS (RFC 8461 3.3)";

/// Everything that this host would have published.
#[derive(Debug, Clone)]
pub struct Publication {
    hostname: String,
    /// Sorted; none where the configuration takes mail for every domain.
    domains: Vec<String>,
    policy: Policy,
    /// Whether this host serves the policy itself.
    serves_policy: bool,
    records: Vec<Record>,
}

/// One record. Displays as a line of a zone file, without TTL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Absolute, in lower case.
    pub name: String,
    #[serde(rename = "type")]
    pub kind: RecordType,
    /// As a zone file has it, but text in one piece and without quotes.
    pub value: String,
    pub purpose: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RecordType {
    Mx,
    Tlsa,
    Txt,
}

impl Publication {
    /// `public_keys` are the SubjectPublicKeyInfos of the certificates in DER; those that several have in common count once.
    pub fn new<'k>(
        hostname: &str,
        domains: &RecipientDomains,
        public_keys: impl IntoIterator<Item = &'k [u8]>,
        policy: Policy,
        serves_policy: bool,
    ) -> Self {
        let hostname = hostname.to_ascii_lowercase();
        let domains: Vec<String> = domains.names().into_iter().map(str::to_owned).collect();
        let digests: BTreeSet<String> = public_keys.into_iter().map(sha256).collect();
        let mut records = Vec::new();
        let mut add = |name, kind, value, purpose| {
            records.push(Record { name, kind, value, purpose });
        };
        for domain in &domains {
            let value = format!("{MX_PREFERENCE} {hostname}.");
            add(format!("{domain}."), RecordType::Mx, value, MX);
        }
        for digest in digests {
            // RFC 7672 3.1: this key (3), the SubjectPublicKeyInfo (1), as SHA-256 (1). Needs neither authority nor name.
            let value = format!("3 1 1 {digest}");
            add(format!("_25._tcp.{hostname}."), RecordType::Tlsa, value, TLSA);
        }
        for domain in &domains {
            let value = format!("v=STSv1; id={}", policy.id());
            add(format!("_mta-sts.{domain}."), RecordType::Txt, value, MTA_STS);
        }
        for domain in &domains {
            let value = format!("v=TLSRPTv1; rua=mailto:postmaster@{domain}");
            add(format!("_smtp._tls.{domain}."), RecordType::Txt, value, TLSRPT);
        }
        Self { hostname, domains, policy, serves_policy, records }
    }

    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Why there are records of the host alone, where it is so.
    pub fn remark(&self) -> Option<&'static str> {
        self.domains.is_empty().then_some(
            "recipients.domains is \"*\", so there is no domain to print MX, MTA-STS and TLSRPT records of",
        )
    }

    /// A list of objects with `name`, `type`, `value` and `purpose`. The policies come last, with the type `file` and their
    /// address as name.
    pub fn json(&self) -> Value {
        let policies = self.domains.iter().map(|domain| {
            json!({
                "name": Policy::address(domain),
                "type": "file",
                "value": self.policy.text,
                "purpose": POLICY,
            })
        });
        self.records.iter().map(|record| json!(record)).chain(policies).collect()
    }

    fn write_policy(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n; {POLICY}, at")?;
        for domain in &self.domains {
            writeln!(f, ";   {}", Policy::address(domain))?;
        }
        let hostname = &self.hostname;
        if self.serves_policy {
            writeln!(f, "; ingress serves it, so these names have to lead to {hostname} too;")?;
        }
        writeln!(
            f,
            "; other hosts that the domain's MX records name take an `mx` line each (mta_sts.mx):"
        )?;
        for line in self.policy.text.lines() {
            writeln!(f, ";   {line}")?;
        }
        let remark = match self.policy.mode {
            _ if self.policy.is_verifiable => return Ok(()),
            Mode::None => return Ok(()),
            Mode::Testing => "Mode testing",
            Mode::Enforce => "BEWARE of mode enforce",
        };
        writeln!(
            f,
            "; {remark}: senders cannot verify a certificate that is self-signed or not for {hostname},\n\
             ; and with enforce they would bring no mail."
        )
    }
}

/// Lines of a zone file with comments, the same for the same configuration and certificates.
impl fmt::Display for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "; DNS records for the mail host {}", self.hostname)?;
        if let Some(remark) = self.remark() {
            writeln!(f, "; {remark}")?;
        }
        let mut purpose = "";
        for record in &self.records {
            if record.purpose != purpose {
                purpose = record.purpose;
                writeln!(f, "\n; {purpose}")?;
            }
            writeln!(f, "{record}")?;
        }
        if !self.domains.is_empty() {
            self.write_policy(f)?;
        }
        writeln!(f, "\n; Not printed: SPF, which is about mail that is sent, and PTR, which is")?;
        writeln!(f, "; in the zone of whoever lends the addresses.")
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, value, .. } = self;
        write!(f, "{name} IN {kind}")?;
        match kind {
            RecordType::Mx | RecordType::Tlsa => write!(f, " {value}"),
            // Neither quotes nor backslashes are in what is printed here, and all of it is ASCII.
            RecordType::Txt => value
                .as_bytes()
                .chunks(TEXT_BYTES_MAX)
                .try_for_each(|text| write!(f, " \"{}\"", String::from_utf8_lossy(text))),
        }
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mx => "MX",
            Self::Tlsa => "TLSA",
            Self::Txt => "TXT",
        })
    }
}

/// In hexadecimal, lower case.
pub(super) fn sha256(octets: &[u8]) -> String {
    digest(&SHA256, octets).as_ref().iter().fold(String::new(), |mut text, octet| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MtaStsConfig, PolicyMode};

    fn publication(domains: &RecipientDomains) -> Publication {
        let keys: [&[u8]; 3] = [b"second", b"first", b"second"];
        let policy = Policy::new("MX.example.net", &MtaStsConfig::default(), []);
        Publication::new("MX.example.net", domains, keys, policy, false)
    }

    #[test]
    fn the_zone_is_sorted_and_says_what_each_record_is_for() {
        let domains = RecipientDomains::listed(["example.org", "Example.net"]);
        assert_eq!(publication(&domains).to_string(), include_str!("expected.zone"));
    }

    #[test]
    fn mail_for_every_domain_leaves_the_records_of_the_host_and_says_so() {
        let publication = publication(&RecipientDomains::Any);
        assert!(publication.records().iter().all(|record| record.kind == RecordType::Tlsa));
        assert_eq!(publication.records().len(), 2, "a key that two certificates have counts once");
        assert!(publication.to_string().contains("recipients.domains is \"*\""));
    }

    #[test]
    fn json_has_the_policy_of_each_domain_behind_the_records() {
        let json = publication(&RecipientDomains::listed(["example.net"])).json();
        let list = json.as_array().unwrap();
        let types: Vec<_> = list.iter().map(|entry| entry["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["MX", "TLSA", "TLSA", "TXT", "TXT", "file"]);
        assert_eq!(list[4]["name"], "_smtp._tls.example.net.");
        assert_eq!(list[4]["value"], "v=TLSRPTv1; rua=mailto:postmaster@example.net");
        assert_eq!(list[5]["name"], "https://mta-sts.example.net/.well-known/mta-sts.txt");
        assert_eq!(
            list[5]["value"],
            "version: STSv1\nmode: testing\nmx: mx.example.net\nmax_age: 1209600\n"
        );
    }

    #[test]
    fn a_policy_that_would_stop_mail_is_printed_with_a_warning() {
        let text = |mode| {
            let settings = MtaStsConfig { mode, ..MtaStsConfig::default() };
            let policy = Policy::new("mx.example.net", &settings, []);
            let domains = RecipientDomains::listed(["example.net"]);
            Publication::new("mx.example.net", &domains, [], policy, true).to_string()
        };
        let enforce = text(PolicyMode::Enforce);
        assert!(enforce.contains("; BEWARE of mode enforce: senders cannot verify"), "{enforce}");
        assert!(enforce.contains("; ingress serves it, so these names have to lead"), "{enforce}");
        assert!(!text(PolicyMode::None).contains("cannot verify"));
    }

    #[test]
    fn text_that_is_longer_than_a_string_can_be_is_cut() {
        let domain = format!("{0}.{0}.{0}.{0}", "a".repeat(55));
        let domains = RecipientDomains::listed([domain.as_str()]);
        let report = publication(&domains).records().last().unwrap().to_string();
        let (first, rest) = report.split_once("\" \"").unwrap();
        assert_eq!(first.split_once('"').unwrap().1.len(), 255);
        assert!(rest.len() < 255, "{rest}");
    }
}
