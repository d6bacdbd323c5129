//! Networks that test this server right now: their handshakes fail on purpose.

use std::net::IpAddr;

use ipnet::IpNet;

/// How long a self-test counts as running after it was last heard of. Longer than its longest handshake, short enough that
/// one which was killed hides little.
pub(super) const SELF_TEST_SECONDS: u64 = 120;

/// A self-test comes from the own addresses. Beyond this the one that ends first makes room.
const SELF_TESTS_MAX: usize = 64;

/// With the second since 1970 in which each ends by itself.
#[derive(Debug, Default)]
pub(super) struct SelfTests(Vec<(IpNet, u64)>);

impl SelfTests {
    /// Begins or goes on.
    pub(super) fn begin(&mut self, network: IpNet, now: u64) {
        self.end(network);
        self.0.retain(|(_, until)| *until > now);
        if self.0.len() >= SELF_TESTS_MAX {
            // In the order of their beginning, which is that of their end.
            self.0.remove(0);
        }
        self.0.push((network, now.saturating_add(SELF_TEST_SECONDS)));
    }

    pub(super) fn end(&mut self, network: IpNet) {
        self.0.retain(|(known, _)| *known != network);
    }

    pub(super) fn covers(&self, client: IpAddr, now: u64) -> bool {
        let client = client.to_canonical();
        self.running(now).any(|network| network.contains(&client))
    }

    pub(super) fn running(&self, now: u64) -> impl Iterator<Item = &IpNet> {
        // A clock that was put back must not make one last for longer.
        let runs = move |until: u64| until > now && until - now <= SELF_TEST_SECONDS;
        self.0.iter().filter(move |(_, until)| runs(*until)).map(|(network, _)| network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_500_000;

    #[test]
    fn a_self_test_that_was_killed_ends_by_itself() {
        let mut tests = SelfTests::default();
        let network = "192.0.2.0/24".parse().unwrap();
        let client = "192.0.2.7".parse().unwrap();
        tests.begin(network, NOW);
        assert!(tests.covers(client, NOW + SELF_TEST_SECONDS - 1));
        assert!(!tests.covers(client, NOW + SELF_TEST_SECONDS));
        assert!(!tests.covers("198.51.100.7".parse().unwrap(), NOW));
        tests.begin(network, NOW + 60);
        assert!(tests.covers(client, NOW + SELF_TEST_SECONDS), "heard of again");
        assert!(!tests.covers(client, NOW - 1), "the clock was put back");
        tests.end(network);
        assert!(!tests.covers(client, NOW + 60));
    }

    #[test]
    fn more_self_tests_than_a_host_has_addresses_push_the_oldest_out() {
        let mut tests = SelfTests::default();
        let network = |number: u32| IpNet::from(IpAddr::V4((0xc000_0200 + number).into()));
        for number in 0..=SELF_TESTS_MAX as u32 {
            tests.begin(network(number), NOW);
        }
        assert_eq!(tests.running(NOW).count(), SELF_TESTS_MAX);
        assert!(!tests.covers(network(0).addr(), NOW));
    }
}
