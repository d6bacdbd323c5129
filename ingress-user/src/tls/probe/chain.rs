//! What senders that verify (MTA-STS, DANE, and whoever does it by habit) will find wrong with a chain of certificates.

use serde::Serialize;
use x509_parser::certificate::X509Certificate;
use x509_parser::parse_x509_certificate;

use crate::tls::choice::DnsNames;
use crate::tls::expiry::NotAfter;

/// One chain, as clients get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainReport {
    /// The names that its first certificate is for.
    pub names: Vec<String>,
    /// As RFC 3339 has it.
    pub not_after: String,
    /// How many certificates are sent.
    pub certificates: usize,
    /// One sentence each; none: nothing is wrong as far as the chain itself tells. Signatures and the root are not checked.
    pub findings: Vec<String>,
}

/// Checks the certificates, leaf first, of a server called `hostname`. `now`: seconds since 1970.
pub fn check(chain: &[Vec<u8>], hostname: &str, now: i64) -> ChainReport {
    let mut report = ChainReport {
        names: Vec::new(),
        not_after: String::new(),
        certificates: chain.len(),
        findings: Vec::new(),
    };
    let parsed: Result<Vec<_>, _> =
        chain.iter().map(|der| parse_x509_certificate(der).map(|(_, parsed)| parsed)).collect();
    let (chain, leaf) = match &parsed {
        Ok(chain) => match chain.first() {
            Some(leaf) => (chain, leaf),
            None => {
                report.findings.push("no certificate is sent".to_owned());
                return report;
            }
        },
        Err(error) => {
            report.findings.push(format!("a certificate cannot be read: {error}"));
            return report;
        }
    };
    let names = DnsNames::of(leaf);
    report.names = names.iter().map(str::to_owned).collect();
    report.not_after = NotAfter::of(leaf).to_string();
    if !names.fit(hostname) {
        report.findings.push(format!("it is not for {hostname}: senders that verify refuse it"));
    }
    for (certificate, number) in chain.iter().zip(1..) {
        report.findings.extend(out_of_time(certificate, number, now));
    }
    report.findings.extend(broken_links(chain));
    report
}

fn is_self_issued(certificate: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == certificate.subject().as_raw()
}

fn out_of_time(certificate: &X509Certificate<'_>, number: usize, now: i64) -> Option<String> {
    let validity = certificate.validity();
    let not_after = NotAfter::of(certificate);
    if validity.not_after.timestamp() < now {
        Some(format!("certificate {number} has expired on {not_after}: renew it"))
    } else if validity.not_before.timestamp() > now {
        Some(format!("certificate {number} is not valid yet: look at the clock"))
    } else {
        None
    }
}

/// Each certificate has to be issued by the next one, and the last by a root that clients have.
fn broken_links(chain: &[X509Certificate<'_>]) -> Vec<String> {
    let mut findings = Vec::new();
    for (pair, number) in chain.windows(2).zip(1..) {
        if let [certificate, issuer] = pair
            && certificate.issuer().as_raw() != issuer.subject().as_raw()
        {
            let (wanted, next) = (certificate.issuer(), number + 1);
            findings.push(format!(
                "certificate {number} was issued by \"{wanted}\", which certificate {next} is not: put the issuer there"
            ));
        }
    }
    match chain {
        [leaf] if is_self_issued(leaf) => findings.push(
            "self-signed: opportunistic senders take it, those that verify by a public CA do not"
                .to_owned(),
        ),
        [leaf] => findings.push(format!(
            "the chain has only its first certificate, issued by \"{}\": add the intermediate certificates to the file",
            leaf.issuer()
        )),
        _ => {}
    }
    findings
}
