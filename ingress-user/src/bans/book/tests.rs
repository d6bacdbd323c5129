use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_795_500_000;

fn settings() -> BanSettings {
    BanSettings {
        early_talkers_max: 3,
        error_floods_max: 2,
        silent_sessions_max: 5,
        failed_handshakes_max: 0,
        window: Duration::from_secs(80),
        lifetime: Duration::from_secs(100),
        lifetime_max: Duration::from_secs(1_000),
        clients_max: 100,
        exempt: networks(&["198.51.100.0/24", "2001:db8:5::7"]),
    }
}

fn networks(list: &[&str]) -> Networks {
    list.iter().map(|text| net(text)).collect()
}

fn net(text: &str) -> IpNet {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.unwrap_or_else(|_| text.parse().unwrap())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn client(number: u32) -> IpAddr {
    IpAddr::V4((0xcb00_7100 + number).into())
}

/// As many offences as make a ban.
fn misbehave(book: &mut Book, client: IpAddr, now: u64) -> Ban {
    let _ = book.offence(client, Offence::ErrorFlood, now);
    book.offence(client, Offence::ErrorFlood, now).expect("a ban")
}

#[test]
fn as_many_as_allowed_make_a_ban_and_each_kind_counts_for_itself() {
    let mut book = Book::new(settings());
    for _ in 0..2 {
        assert_eq!(book.offence(client(1), Offence::EarlyTalker, NOW), None);
    }
    assert_eq!(book.offence(client(1), Offence::ErrorFlood, NOW), None);
    assert_eq!(book.offence(client(2), Offence::EarlyTalker, NOW), None);
    let ban = book.offence(client(1), Offence::EarlyTalker, NOW).unwrap();
    assert_eq!((ban.network, ban.reason()), (net("203.0.113.1/32"), "early_talker"));
    assert_eq!((ban.offences, ban.times, ban.since, ban.until), (3, 1, NOW, NOW + 100));
    assert_eq!(book.bans().count(), 1);
    for _ in 0..1_000 {
        assert_eq!(book.offence(client(3), Offence::HandshakeFailed, NOW), None, "0 is never");
    }
}

#[test]
fn a_ban_ends_and_the_next_is_twice_as_long_up_to_a_bound() {
    let mut book = Book::new(settings());
    let mut now = NOW;
    for lifetime in [100, 200, 400, 800, 1_000, 1_000] {
        let ban = misbehave(&mut book, client(1), now);
        assert_eq!(ban.until - ban.since, lifetime);
        assert!(!book.expire(ban.until - 1));
        assert!(book.expire(ban.until));
        // Just before it would be forgotten.
        now = ban.until + 999;
        book.expire(now);
    }
    let ban = misbehave(&mut book, client(1), now + 1_000 + 1_000);
    assert_eq!((ban.until - ban.since, ban.times), (100, 1), "that was long ago");
}

#[test]
fn sessions_that_end_during_a_ban_do_not_count_for_the_next() {
    let mut book = Book::new(settings());
    let ban = misbehave(&mut book, client(1), NOW);
    for _ in 0..100 {
        assert_eq!(book.offence(client(1), Offence::ErrorFlood, ban.until - 1), None);
    }
    book.expire(ban.until);
    assert_eq!(book.offence(client(1), Offence::ErrorFlood, ban.until), None);
}

#[test]
fn a_client_of_ipv6_is_a_64_and_mapped_ipv4_is_ipv4() {
    let mut book = Book::new(settings());
    let _ = book.offence(ip("2001:db8:1::1"), Offence::ErrorFlood, NOW);
    let ban = book.offence(ip("2001:db8:1::2"), Offence::ErrorFlood, NOW).unwrap();
    assert_eq!(ban.network, net("2001:db8:1::/64"));
    let _ = book.offence(ip("::ffff:203.0.113.1"), Offence::ErrorFlood, NOW);
    let ban = book.offence(ip("203.0.113.1"), Offence::ErrorFlood, NOW).unwrap();
    assert_eq!(ban.network, net("203.0.113.1/32"));
}

#[test]
fn a_network_with_an_exempt_host_in_it_is_not_banned() {
    let mut book = Book::new(settings());
    for _ in 0..100 {
        assert_eq!(book.offence(ip("2001:db8:5::8"), Offence::ErrorFlood, NOW), None);
    }
    for exempt in ["198.51.100.7", "198.51.100.0/24", "2001:db8:5::8", "2001:db8:5::/60"] {
        let hour = Duration::from_secs(3_600);
        let refused = book.add(net(exempt), hour, String::new(), NOW).unwrap_err();
        assert!(matches!(refused, NotBanned::Exempt(_)), "{exempt}");
    }
    assert_eq!(book.bans().count(), 0);
}

#[test]
fn the_operator_bans_networks_and_lifts_bans_of_any_kind() {
    let mut book = Book::new(settings());
    let hour = Duration::from_secs(3_600);
    let mut add = |network: &str| book.add(net(network), hour, "spam".to_owned(), NOW);
    assert!(matches!(add("203.0.112.0/23"), Err(NotBanned::TooWide(_))));
    assert!(matches!(add("2001:db8::/32"), Err(NotBanned::TooWide(_))));
    assert_eq!(add("2001:db8:1::1").unwrap().network, net("2001:db8:1::/64"));
    assert_eq!(add("::ffff:192.0.2.7").unwrap().network, net("192.0.2.7/32"));
    let ban = add("203.0.113.0/24").unwrap();
    assert_eq!((ban.reason(), &*ban.note, ban.until), ("operator", "spam", NOW + 3_600));
    assert_eq!(book.offence(client(9), Offence::ErrorFlood, NOW), None);
    assert_eq!(book.offence(client(9), Offence::ErrorFlood, NOW), None, "it is banned already");
    let _ = misbehave(&mut book, ip("192.0.2.9"), NOW);
    assert_eq!(book.lift(net("203.0.113.9")), [net("203.0.113.0/24")]);
    assert_eq!(book.lift(net("192.0.2.0/24")), [net("192.0.2.7/32"), net("192.0.2.9/32")]);
    assert_eq!(book.lift(net("2001:db8:1::5")), [net("2001:db8:1::/64")]);
    assert!(book.lift(net("2001:db8:1::5")).is_empty());
    // And what led to it is forgotten.
    assert_eq!(misbehave(&mut book, ip("192.0.2.9"), NOW).times, 1);
}

#[test]
fn a_self_test_is_excused_while_it_runs_and_nobody_else_is() {
    let mut book = Book::new(settings());
    book.excuse(net("203.0.113.1"), NOW + 60);
    for _ in 0..100 {
        assert_eq!(book.offence(client(1), Offence::ErrorFlood, NOW + 59), None);
    }
    let _ = misbehave(&mut book, client(2), NOW + 59);
    let _ = misbehave(&mut book, client(1), NOW + 60);
    for number in 0..100 {
        book.excuse(client_of(client(number)), NOW + 120);
    }
    assert_eq!(book.excused.len(), EXCUSED_MAX);
}

#[test]
fn the_operators_bans_are_bounded() {
    let mut book = Book::new(settings());
    let hour = Duration::from_secs(3_600);
    let mut add = |number: u32| {
        book.add(IpAddr::V4((0x0a00_0000 + number).into()).into(), hour, String::new(), NOW)
    };
    for number in 0..1_024 {
        assert!(add(number).is_ok());
    }
    assert_eq!(add(1_024), Err(NotBanned::TooMany));
    assert!(add(7).is_ok(), "that one is there already");
    for note in ["x".repeat(201), "two\nlines".to_owned(), "\u{1b}[2J".to_owned()] {
        let refused = book.add(net("192.0.2.1"), hour, note.clone(), NOW);
        assert_eq!(refused, Err(NotBanned::Note), "{note:?}");
    }
}

#[test]
fn a_network_is_as_many_clients_as_it_holds() {
    assert_eq!(clients_in(net("203.0.113.0/24")).len(), 256);
    assert_eq!(clients_in(net("203.0.113.1/32")), [net("203.0.113.1/32")]);
    assert_eq!(clients_in(net("2001:db8::/56")).len(), 256);
    assert_eq!(clients_in(net("2001:db8::/64")), [net("2001:db8::/64")]);
}

#[test]
fn what_is_kept_comes_back_as_far_as_it_counts() {
    let mut book = Book::new(settings());
    let first = misbehave(&mut book, client(1), NOW);
    let other = misbehave(&mut book, client(2), NOW + 50);
    let hour = Duration::from_secs(3_600);
    let pinned = book.add(net("192.0.2.0/25"), hour, "spam".to_owned(), NOW).unwrap();
    let kept = book.kept();

    let mut book = Book::new(settings());
    book.restore(kept.clone(), first.until);
    let mut bans: Vec<Ban> = book.bans().cloned().collect();
    bans.sort_by_key(|ban| ban.network);
    assert_eq!(bans, [pinned, other]);
    assert_eq!(misbehave(&mut book, client(1), first.until).times, 2);

    let exempt = networks(&["203.0.113.2", "192.0.2.1"]);
    let mut book = Book::new(BanSettings { exempt, ..settings() });
    book.restore(kept, NOW);
    assert_eq!(book.bans().cloned().collect::<Vec<_>>(), [first]);
}

#[test]
fn who_is_banned_is_forgotten_last() {
    let mut book = Book::new(settings());
    let banned = misbehave(&mut book, client(0), NOW);
    for number in 1..5_000 {
        let other = IpAddr::V4((0x0a00_0000 + number).into());
        let _ = book.offence(other, Offence::Silent, NOW + 1);
    }
    assert_eq!(book.bans().cloned().collect::<Vec<_>>(), [banned]);
}

/// One session's end: how long after the one before, whose and which.
fn session() -> impl Strategy<Value = (u64, u8, usize)> {
    (0_u64..40, 0_u8..6, 0..Offence::ALL.len())
}

proptest! {
    #[test]
    fn a_ban_never_comes_too_soon_nor_for_the_exempt_and_its_lifetime_is_bounded(
        sessions in proptest::collection::vec(session(), 1..400),
    ) {
        let settings = settings();
        let mut book = Book::new(settings.clone());
        let mut now = NOW;
        let mut ends: HashMap<(IpAddr, usize), Vec<u64>> = HashMap::new();
        let mut last: HashMap<IpAddr, Ban> = HashMap::new();
        for (step, who, kind) in sessions {
            now += step;
            book.expire(now);
            let offence = Offence::ALL[kind];
            let address =
                if who == 5 { ip("198.51.100.7") } else { client(who.into()) };
            let of_kind = ends.entry((address, kind)).or_default();
            of_kind.push(now);
            let within = of_kind.iter().filter(|at| now - **at < 80).count();
            let Some(ban) = book.offence(address, offence, now) else { continue };
            prop_assert!(who != 5, "the exempt");
            prop_assert!(settings.allowed(offence) > 0);
            prop_assert!(within >= settings.allowed(offence) as usize, "{within} are too few");
            let lifetime = ban.until - ban.since;
            prop_assert!((100..=1_000).contains(&lifetime));
            if let Some(before) = last.insert(address, ban.clone()) {
                prop_assert!(before.until <= now, "one ban at a time");
                let expected = if now - before.until < 1_000 {
                    (2 * (before.until - before.since)).min(1_000)
                } else {
                    100
                };
                prop_assert_eq!(lifetime, expected);
            }
        }
    }

    #[test]
    fn the_book_is_bounded(clients_max in 1_usize..40, sessions in proptest::collection::vec((0_u32..500, 0_u64..3), 1..600)) {
        let mut book = Book::new(BanSettings { clients_max, error_floods_max: 1, ..settings() });
        let mut now = NOW;
        for (number, step) in sessions {
            now += step;
            let offence = if number % 3 == 0 { Offence::ErrorFlood } else { Offence::Silent };
            let _ = book.offence(client(number), offence, now);
            prop_assert!(book.clients.len() <= clients_max);
            prop_assert!(book.bans.len() <= clients_max);
        }
    }
}
