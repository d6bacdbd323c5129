//! Names of hosts and domains.

use std::fs;

use super::super::error::ConfigError;
use super::super::source::Source;
use crate::policy::RecipientDomains;

/// The name given, else this machine's own.
pub(super) fn hostname(source: &Source<'_>, given: Option<String>) -> Result<String, ConfigError> {
    match given {
        Some(name) if is_domain_name(&name) => Ok(name),
        Some(_) => Err(source
            .problem("hostname", "a host name of letters, digits and hyphens in dotted labels")),
        None => Ok(machine_hostname()),
    }
}

pub(super) fn recipients(
    source: &Source<'_>,
    domains: Option<Vec<String>>,
) -> Result<RecipientDomains, ConfigError> {
    const EXPECTED: &str = "a list of the domains to take mail for, or [\"*\"] for all of them";
    let key = "recipients.domains";
    let domains = domains.filter(|domains| !domains.is_empty());
    let domains = domains.ok_or_else(|| source.problem(key, EXPECTED))?;
    if domains.iter().any(|domain| domain == "*") {
        return match domains.len() {
            1 => Ok(RecipientDomains::Any),
            _ => Err(source.problem(key, "\"*\" alone or domain names, not both")),
        };
    }
    if let Some(bad) = domains.iter().position(|domain| !is_domain_name(domain)) {
        let expected = "a domain name of letters, digits and hyphens (xn-- for others)";
        return Err(source.problem(&format!("{key}.{bad}"), expected));
    }
    Ok(RecipientDomains::listed(domains.iter().map(String::as_str)))
}

/// RFC 5321 2.3.5 with RFC 1035 2.3.4: labels of 1 to 63 letters, digits and inner hyphens, 255 octets in all.
fn is_domain_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 255 && name.split('.').all(is_label)
}

fn machine_hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if is_domain_name(name) { name.to_owned() } else { "localhost".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_names_follow_the_label_rules() {
        for good in ["localhost", "mx.example.net", "xn--bcher-kva.example", "1and1.example"] {
            assert!(is_domain_name(good), "{good:?}");
        }
        let long_label = "a".repeat(64);
        let long_name = ["a"; 200].join(".");
        for bad in ["", ".", "a..b", "a.", "-a", "a-", "a_b", "a b", "bücher", "[::1]"] {
            assert!(!is_domain_name(bad), "{bad:?}");
        }
        assert!(!is_domain_name(&long_label));
        assert!(!is_domain_name(&long_name));
    }
}
