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
    let a_labels = |(index, domain): (usize, &String)| {
        let expected = "a domain name: letters, digits and hyphens in dotted labels, in any script";
        a_labels(domain).ok_or_else(|| source.problem(&format!("{key}.{index}"), expected))
    };
    let domains: Vec<String> =
        domains.iter().enumerate().map(a_labels).collect::<Result<_, ConfigError>>()?;
    Ok(RecipientDomains::listed(domains.iter().map(String::as_str)))
}

/// The domain as mail without SMTPUTF8 carries it: U-labels become A-labels (RFC 5890 section 2.3.2.1), ASCII stays as it
/// is. `None` if it is no domain name.
fn a_labels(domain: &str) -> Option<String> {
    let ascii = match domain.is_ascii() {
        true => domain.to_owned(),
        false => idna::domain_to_ascii_strict(domain).ok()?,
    };
    is_domain_name(&ascii).then_some(ascii)
}

/// RFC 5321 2.3.5 with RFC 1035 2.3.4: labels of 1 to 63 letters, digits and inner hyphens, 255 octets in all.
pub(super) fn is_domain_name(name: &str) -> bool {
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
    fn names_in_other_scripts_become_a_labels() {
        let table = [
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.Example", "xn--bcher-kva.example"),
            // Composed from u and a combining diaeresis.
            ("bu\u{308}cher.example", "xn--bcher-kva.example"),
            ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
            // Not "strasse": UTS 46 is non-transitional by now.
            ("straße.example", "xn--strae-oqa.example"),
            ("ab--cd.Example", "ab--cd.Example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ];
        for (given, expected) in table {
            assert_eq!(a_labels(given).as_deref(), Some(expected), "{given}");
        }
        let long_label = "ü".repeat(64);
        for bad in ["bü_cher.example", "bü cher.example", "a..ü", "ü.", "-ü", "ü-", "u\u{202e}ü"]
        {
            assert_eq!(a_labels(bad), None, "{bad:?}");
        }
        assert_eq!(a_labels(&long_label), None);
    }

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
