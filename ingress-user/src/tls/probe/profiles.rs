//! The catalogue of clients.

use super::hello::Hello;
use crate::tls::verdict::KeyKind;

/// A kind of client.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    pub name: &'static str,
    /// Its hello to the server of this name.
    pub hello: fn(&str) -> Hello,
    /// Octets in each record of its hello.
    pub record_bytes: usize,
}

impl Profile {
    /// The hello as it is sent.
    pub fn octets(&self, server: &str) -> Vec<u8> {
        (self.hello)(server).records(self.record_bytes)
    }
}

/// What every server of today has to take.
pub const MODERN: &str = "modern";

/// The largest record (RFC 8446 5.1).
const WHOLE: usize = 1 << 14;
/// A record for each few octets, as the most careful reader of "may be fragmented" has it.
const TINY: usize = 5;

/// All of them; the last ones work anywhere, so that no refusal is under way when the test ends.
pub const PROFILES: [Profile; 11] = [
    Profile { name: MODERN, hello: modern, record_bytes: WHOLE },
    Profile { name: "TLS 1.2, ECDHE only", hello: tls_1_2, record_bytes: WHOLE },
    Profile { name: "RSA signatures only", hello: rsa_signatures, record_bytes: WHOLE },
    Profile { name: "ECDSA signatures only", hello: ecdsa_signatures, record_bytes: WHOLE },
    Profile { name: "CBC only", hello: cbc, record_bytes: WHOLE },
    Profile { name: "RSA key exchange only", hello: rsa_key_exchange, record_bytes: WHOLE },
    Profile { name: "TLS 1.0 only", hello: tls_1_0, record_bytes: WHOLE },
    Profile { name: "no server name", hello: no_server_name, record_bytes: WHOLE },
    Profile { name: "unknown server name", hello: unknown_server_name, record_bytes: WHOLE },
    Profile { name: "tiny fragments", hello: modern, record_bytes: TINY },
    Profile { name: "post-quantum first", hello: post_quantum, record_bytes: WHOLE },
];

const RSA_SCHEMES: [u16; 6] = [0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601];
const ECDSA_SCHEMES: [u16; 2] = [0x0403, 0x0503];
/// With AES-GCM and ChaCha20, for either kind of key.
const ECDHE_SUITES: [u16; 6] = [0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8];
const ECDHE_CBC_SUITES: [u16; 6] = [0xc023, 0xc027, 0xc009, 0xc013, 0xc00a, 0xc014];
const RSA_KEY_EXCHANGE_SUITES: [u16; 4] = [0x009c, 0x009d, 0x002f, 0x0035];
const X25519: u16 = 0x001d;
const SECP256R1: u16 = 0x0017;
const X25519MLKEM768: u16 = 0x11ec;

/// A TLS 1.2 client that can check the signatures of this kind of key alone, so that it gets that certificate.
pub fn for_key(key: KeyKind, server: &str) -> Hello {
    Hello { schemes: Some(key.schemes().to_vec()), ..tls_1_2(server) }
}

fn modern(server: &str) -> Hello {
    Hello { server_name: Some(server.as_bytes().to_vec()), ..Hello::modern() }
}

fn tls_1_2(server: &str) -> Hello {
    with_suites(&ECDHE_SUITES, server)
}

fn cbc(server: &str) -> Hello {
    with_suites(&ECDHE_CBC_SUITES, server)
}

fn rsa_key_exchange(server: &str) -> Hello {
    with_suites(&RSA_KEY_EXCHANGE_SUITES, server)
}

/// TLS 1.2 with these suites.
fn with_suites(suites: &[u16], server: &str) -> Hello {
    Hello { server_name: Some(server.as_bytes().to_vec()), ..Hello::of_2012(suites) }
}

fn rsa_signatures(server: &str) -> Hello {
    Hello { schemes: Some(RSA_SCHEMES.to_vec()), ..modern(server) }
}

fn ecdsa_signatures(server: &str) -> Hello {
    Hello { schemes: Some(ECDSA_SCHEMES.to_vec()), ..modern(server) }
}

fn tls_1_0(_server: &str) -> Hello {
    Hello::of_1999()
}

fn no_server_name(_server: &str) -> Hello {
    Hello::modern()
}

fn unknown_server_name(_server: &str) -> Hello {
    // RFC 2606: nobody has a name there.
    modern("unknown.invalid")
}

fn post_quantum(server: &str) -> Hello {
    let groups = vec![X25519MLKEM768, X25519, SECP256R1];
    Hello { groups, key_shares: vec![X25519MLKEM768, X25519], ..modern(server) }
}
