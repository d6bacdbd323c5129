//! Writes ClientHellos with whatever a client might offer, also what no TLS library would.

/// What goes into a ClientHello (RFC 8446 4.1.2). `None`, or an empty list, leaves the extension out.
#[derive(Debug, Clone)]
pub struct Hello {
    pub legacy_version: u16,
    pub versions: Option<Vec<u16>>,
    pub suites: Vec<u16>,
    pub compressions: Vec<u8>,
    pub groups: Vec<u16>,
    /// Groups; the keys are made up.
    pub key_shares: Vec<u16>,
    pub schemes: Option<Vec<u16>>,
    pub server_name: Option<Vec<u8>>,
    pub alpn: Vec<Vec<u8>>,
}

impl Hello {
    /// As a current mail server sends it: fits every certificate.
    pub fn modern() -> Self {
        Self {
            legacy_version: 0x0303,
            versions: Some(vec![0x0304, 0x0303]),
            suites: vec![0x1302, 0x1301, 0xc02b, 0xc02f, 0x009e, 0xc013, 0x002f, 0x00ff],
            compressions: vec![0],
            groups: vec![0x001d, 0x0017],
            key_shares: vec![0x001d],
            schemes: Some(vec![0x0403, 0x0503, 0x0807, 0x0804, 0x0401, 0x0201]),
            server_name: None,
            alpn: Vec::new(),
        }
    }

    /// TLS 1.2 and nothing newer.
    pub fn of_2012(suites: &[u16]) -> Self {
        let modern = Self::modern();
        Self { versions: None, suites: suites.to_vec(), key_shares: Vec::new(), ..modern }
    }

    /// TLS 1.0 without extensions.
    pub fn of_1999() -> Self {
        Self {
            legacy_version: 0x0301,
            versions: None,
            suites: vec![0x002f, 0x000a],
            groups: Vec::new(),
            key_shares: Vec::new(),
            schemes: None,
            ..Self::modern()
        }
    }

    /// In one record.
    pub fn octets(&self) -> Vec<u8> {
        self.records(1 << 14)
    }

    /// In records with at most `body_bytes` each.
    pub fn records(&self, body_bytes: usize) -> Vec<u8> {
        let body = self.body();
        let mut message = vec![1, 0];
        message.extend(list16(&body));
        let record = |body: &[u8]| [&[22, 3, 1], list16(body).as_slice()].concat();
        message.chunks(body_bytes).flat_map(record).collect()
    }

    fn body(&self) -> Vec<u8> {
        let mut body = self.legacy_version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.extend(list8(&[]));
        body.extend(list16(&pairs(&self.suites)));
        body.extend(list8(&self.compressions));
        let extensions = self.extensions();
        if !extensions.is_empty() {
            body.extend(list16(&extensions));
        }
        body
    }

    fn extensions(&self) -> Vec<u8> {
        let mut extensions = Vec::new();
        let mut add = |kind: u16, data: Vec<u8>| {
            extensions.extend(kind.to_be_bytes());
            extensions.extend(list16(&data));
        };
        if let Some(name) = &self.server_name {
            add(0, list16(&[&[0], list16(name).as_slice()].concat()));
        }
        if !self.groups.is_empty() {
            add(10, list16(&pairs(&self.groups)));
        }
        if let Some(schemes) = &self.schemes {
            add(13, list16(&pairs(schemes)));
        }
        if !self.alpn.is_empty() {
            add(16, list16(&self.alpn.iter().flat_map(|name| list8(name)).collect::<Vec<_>>()));
        }
        if let Some(versions) = &self.versions {
            add(43, list8(&pairs(versions)));
        }
        if !self.key_shares.is_empty() {
            let share = |group: &u16| {
                let key = vec![9; key_bytes(*group)];
                [group.to_be_bytes().to_vec(), list16(&key)].concat()
            };
            add(51, list16(&self.key_shares.iter().flat_map(share).collect::<Vec<_>>()));
        }
        extensions
    }
}

/// How long a client's key of this group is (RFC 8446 4.2.8.2, RFC 8422 5.4; X25519MLKEM768 is an ML-KEM key of 1,184 octets
/// before one of x25519).
fn key_bytes(group: u16) -> usize {
    match group {
        X25519MLKEM768 => 1_184 + 32,
        SECP256R1 => 65,
        SECP384R1 => 97,
        _ => 32,
    }
}

const SECP256R1: u16 = 0x0017;
const SECP384R1: u16 = 0x0018;
const X25519MLKEM768: u16 = 0x11ec;

fn pairs(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// Octets behind their length; what a length of one octet cannot tell is left out.
fn list8(octets: &[u8]) -> Vec<u8> {
    let length = u8::try_from(octets.len()).unwrap_or(u8::MAX);
    [&[length], octets.get(..length.into()).unwrap_or(octets)].concat()
}

/// As [`list8`], with a length of two octets.
fn list16(octets: &[u8]) -> Vec<u8> {
    let length = u16::try_from(octets.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), octets.get(..length.into()).unwrap_or(octets)].concat()
}
