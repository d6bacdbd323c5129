//! Which certificate a client gets: by the name that it asks for (SNI, RFC 6066 3), then by what it can verify.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// The DNS names that a certificate is for, in lower case, as its subjectAltName lists them.
///
/// They are A-labels, like the names that clients ask for (RFC 5280 7.2, RFC 6066 3), so octets can be compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsNames(Box<[Box<str>]>);

impl DnsNames {
    /// None where there is no subjectAltName, or none that can be read: such a certificate still serves where no other fits.
    /// The common name has not counted for years (RFC 9525 2).
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let names = certificate.subject_alternative_name().ok().flatten();
        let general_names = names.iter().flat_map(|names| &names.value.general_names);
        general_names
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(*name),
                _ => None,
            })
            .collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// Whether the certificate is for `name`. A `*` stands for exactly one whole label, the leftmost (RFC 9525 6.3).
    pub(super) fn fit(&self, name: &str) -> bool {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.iter().any(|own| match own.strip_prefix("*.") {
            Some(own) => parent.is_some_and(|parent| own.eq_ignore_ascii_case(parent)),
            None => own.eq_ignore_ascii_case(name),
        })
    }
}

impl<'n> FromIterator<&'n str> for DnsNames {
    fn from_iter<I: IntoIterator<Item = &'n str>>(names: I) -> Self {
        Self(names.into_iter().map(|name| name.to_ascii_lowercase().into()).collect())
    }
}

/// The first of `candidates`, in the operator's order, that fits the name and has a signer; else the first that has one.
///
/// A name decides only between certificates that the client can use: mail servers ask for names that nobody told us of, and
/// most verify nothing, so a wrong certificate brings the mail in and an alert does not.
pub fn choose<C, S>(
    candidates: &[C],
    name: Option<&str>,
    names: impl Fn(&C) -> &DnsNames,
    signer: impl FnMut(&C) -> Option<S>,
) -> Option<S> {
    let fits = |candidate: &&C| name.is_some_and(|name| names(candidate).fit(name));
    candidates.iter().filter(fits).chain(candidates).find_map(signer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ECDSA: u8 = 1;
    const RSA: u8 = 2;

    struct Chain {
        label: &'static str,
        names: DnsNames,
        key: u8,
    }

    fn chain(label: &'static str, names: &[&str], key: u8) -> Chain {
        Chain { label, names: names.iter().copied().collect(), key }
    }

    fn chosen(chains: &[Chain], name: Option<&str>, offered: &[u8]) -> Option<&'static str> {
        let signer = |chain: &Chain| offered.contains(&chain.key).then_some(chain.label);
        choose(chains, name, |chain| &chain.names, signer)
    }

    fn two_names() -> [Chain; 4] {
        [
            chain("one ecdsa", &["one.test"], ECDSA),
            chain("one rsa", &["one.test"], RSA),
            chain("two ecdsa", &["two.test", "also.test"], ECDSA),
            chain("two rsa", &["two.test"], RSA),
        ]
    }

    #[test]
    fn the_name_goes_before_the_order() {
        let chains = two_names();
        assert_eq!(chosen(&chains, Some("two.test"), &[RSA, ECDSA]), Some("two ecdsa"));
        assert_eq!(chosen(&chains, Some("two.test"), &[RSA]), Some("two rsa"));
        assert_eq!(chosen(&chains, Some("one.test"), &[RSA]), Some("one rsa"));
    }

    #[test]
    fn an_unknown_or_missing_name_gets_the_first_that_can_sign() {
        let chains = two_names();
        for name in [None, Some("three.test"), Some("test"), Some("")] {
            assert_eq!(chosen(&chains, name, &[ECDSA, RSA]), Some("one ecdsa"), "{name:?}");
            assert_eq!(chosen(&chains, name, &[RSA]), Some("one rsa"), "{name:?}");
        }
    }

    #[test]
    fn a_certificate_of_another_name_serves_when_that_of_the_name_cannot_sign() {
        let chains = two_names();
        assert_eq!(chosen(&chains, Some("also.test"), &[RSA]), Some("one rsa"));
    }

    #[test]
    fn nothing_is_chosen_only_when_nothing_can_sign() {
        assert_eq!(chosen(&two_names(), Some("one.test"), &[]), None);
        assert_eq!(chosen(&[], Some("one.test"), &[RSA]), None);
    }

    #[test]
    fn names_are_compared_without_case() {
        let names: DnsNames = ["MX.Example.NET", "xn--Bcher-kva.example"].into_iter().collect();
        assert!(names.fit("mx.example.net") && names.fit("Mx.eXample.net"));
        assert!(names.fit("xn--bcher-kva.example"));
        assert_eq!(names.iter().next(), Some("mx.example.net"));
    }

    #[test]
    fn a_wildcard_is_one_label() {
        let names: DnsNames = ["*.example.net"].into_iter().collect();
        assert!(names.fit("mx1.example.net") && names.fit("MX2.EXAMPLE.net"));
        for other in ["example.net", "a.b.example.net", "mx.example.org", "net", "example.net."] {
            assert!(!names.fit(other), "{other}");
        }
        let partial: DnsNames = ["mx*.example.net", "*"].into_iter().collect();
        assert!(!partial.fit("mx1.example.net") && !partial.fit("localhost"));
    }
}
