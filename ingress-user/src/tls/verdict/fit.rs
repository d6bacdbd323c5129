//! What the offer and we have in common, and which lack of it is the cause.

use serde::{Deserialize, Serialize};

use super::{ECDSA_SUITES, KeyKind, Offer, Own, RSA_SUITES, SIGNALS, TLS_1_3, Verdict};
use crate::tls::names;

/// By the numbers of the protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    pub versions: Vec<u16>,
    pub suites: Vec<u16>,
    pub groups: Vec<u16>,
    pub schemes: Vec<u16>,
}

/// What of the offer we could have used, in the client's order. A list that is empty though those before it are not is the
/// cause of a refusal.
pub fn usable(offer: &Offer, own: &Own) -> Parameters {
    let version = version(offer, own);
    let suites = match version {
        Some(version) => suites(offer, own, version),
        // Without a version they are not to blame.
        None => common(&offer.suites, &own.suites).collect(),
    };
    let schemes = match version.filter(|_| !suites.is_empty()) {
        Some(version) => usable_schemes(offer, &suites, version),
        None => offer.schemes.clone(),
    };
    Parameters {
        versions: once_each(common(&offer.versions, &own.versions)),
        suites: once_each(suites.into_iter()),
        groups: once_each(common(&offer.groups, &own.groups)),
        schemes: once_each(common(&schemes, &own.schemes)),
    }
}

/// A client that says a thing twice does not make more of it common: no list is longer than ours.
fn once_each(values: impl Iterator<Item = u16>) -> Vec<u16> {
    let mut seen = Vec::new();
    for value in values {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

/// The newest common version decides alone: there is no second attempt with an older one.
fn version(offer: &Offer, own: &Own) -> Option<u16> {
    common(&offer.versions, &own.versions).max()
}

/// Those in common that belong to this version.
fn suites(offer: &Offer, own: &Own, version: u16) -> Vec<u16> {
    let is_of_version = |suite: &u16| (version >= TLS_1_3) == is_tls_1_3_suite(*suite);
    common(&offer.suites, &own.suites).filter(is_of_version).collect()
}

/// What the two sides do not have in common. In the order of the cause: a scheme is of no use without a suite.
pub(super) fn refusal(offer: &Offer, own: &Own) -> Option<Verdict> {
    let Some(version) = version(offer, own) else {
        return Some(no_version(offer, own));
    };
    let suites = suites(offer, own, version);
    if suites.is_empty() {
        return Some(no_suite(offer, version));
    }
    if common(&offer.groups, &own.groups).next().is_none() {
        return Some(Verdict::NoCommonGroup(offer.groups.clone()));
    }
    let usable = usable_schemes(offer, &suites, version);
    if common(&usable, &own.schemes).next().is_some() {
        return None;
    }
    let would_fit = |key: &KeyKind| common(&usable, key.schemes()).next().is_some();
    let remedy = KeyKind::ALL.into_iter().find(would_fit);
    let offered = if usable.is_empty() { offer.schemes.clone() } else { usable };
    Some(Verdict::NoCommonScheme { offered, remedy })
}

fn common<'a>(theirs: &'a [u16], ours: &'a [u16]) -> impl Iterator<Item = u16> + 'a {
    theirs.iter().copied().filter(|value| ours.contains(value))
}

fn no_version(offer: &Offer, own: &Own) -> Verdict {
    let highest = offer.versions.iter().copied().max();
    match highest.zip(own.versions.iter().copied().min()) {
        Some((theirs, least)) if theirs < least => Verdict::OldVersionsOnly(theirs),
        _ => Verdict::NoCommonVersion(offer.versions.clone()),
    }
}

/// RFC 8446 B.4: all suites of TLS 1.3, and no others, have this first octet.
fn is_tls_1_3_suite(suite: u16) -> bool {
    suite >> 8 == 0x13
}

/// Which weakness all suites share that a server could use without a secret known beforehand. Suites without a certificate
/// or encryption do not count: opportunistic clients offer them besides.
fn no_suite(offer: &Offer, version: u16) -> Verdict {
    let suites = offer.suites.iter().copied().filter(|suite| !SIGNALS.contains(suite)).collect();
    let offered = || offer.suites.iter().copied().filter_map(names::known_suite);
    let begins = |prefix: &str| offered().any(|name| name.starts_with(prefix));
    let (ecdhe, dhe, rsa) = (begins("TLS_ECDHE_"), begins("TLS_DHE_"), begins("TLS_RSA_WITH_"));
    let mut ecdhe_suites = offered().filter(|name| name.starts_with("TLS_ECDHE_"));
    match (ecdhe, dhe, rsa) {
        // The suites of TLS 1.2 are of no use once both sides know TLS 1.3.
        _ if version >= TLS_1_3 => Verdict::NoCommonSuite(suites),
        (true, ..) if ecdhe_suites.all(|name| name.contains("_CBC_")) => Verdict::CbcOnly,
        (false, true, _) => Verdict::DheOnly,
        (false, false, true) => Verdict::RsaKeyExchangeOnly,
        _ => Verdict::NoCommonSuite(suites),
    }
}

/// The offered schemes in which a certificate could sign under one of these suites, whichever certificates are there.
fn usable_schemes(offer: &Offer, suites: &[u16], version: u16) -> Vec<u16> {
    const PKCS1: [u16; 3] = [0x0401, 0x0501, 0x0601];
    let has = |of_key: &[u16]| suites.iter().any(|suite| of_key.contains(suite));
    let fits = |key: KeyKind, scheme: u16| match key {
        // RFC 8446 4.2.3: PKCS#1 signatures stand in certificates only. The suite says nothing about the key.
        _ if version >= TLS_1_3 => !PKCS1.contains(&scheme),
        KeyKind::Rsa => has(&RSA_SUITES),
        _ => has(&ECDSA_SUITES),
    };
    let is_usable = |scheme: u16| {
        KeyKind::ALL.into_iter().any(|key| key.schemes().contains(&scheme) && fits(key, scheme))
    };
    offer.schemes.iter().copied().filter(|scheme| is_usable(*scheme)).collect()
}
