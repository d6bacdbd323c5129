use std::collections::HashSet;

/// The domains this host takes mail for. Everything else is refused at RCPT: not an open relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientDomains {
    /// `["*"]`: for load tests only.
    Any,
    /// Lower-case domain names.
    Listed(HashSet<Box<str>>),
}

impl RecipientDomains {
    /// Builds the list from names in any case.
    pub fn listed<'a>(domains: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Listed(domains.into_iter().map(|d| d.to_ascii_lowercase().into()).collect())
    }

    /// Sorted; none where every domain is ours.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Any => Vec::new(),
            Self::Listed(domains) => {
                let mut names: Vec<&str> = domains.iter().map(AsRef::as_ref).collect();
                names.sort_unstable();
                names
            }
        }
    }

    /// Whether mail for `domain` is ours. Domain names compare without case (RFC 5321 2.4).
    pub fn accepts(&self, domain: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(domains) => {
                if domain.bytes().any(|b| b.is_ascii_uppercase()) {
                    domains.contains(domain.to_ascii_lowercase().as_str())
                } else {
                    domains.contains(domain)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_domain_is_ours_in_any_case() {
        let domains = RecipientDomains::listed(["Example.NET", "example.org"]);
        assert!(domains.accepts("example.net"));
        assert!(domains.accepts("EXAMPLE.ORG"));
    }

    #[test]
    fn subdomains_and_suffixes_are_not_ours() {
        let domains = RecipientDomains::listed(["example.net"]);
        assert!(!domains.accepts("sub.example.net"));
        assert!(!domains.accepts("notexample.net"));
        assert!(!domains.accepts(""));
    }

    #[test]
    fn any_takes_everything() {
        assert!(RecipientDomains::Any.accepts("anything.invalid"));
    }
}
