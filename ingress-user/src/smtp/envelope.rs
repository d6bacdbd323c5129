//! What a transaction carries beside the message itself (RFC 5321 section 2.3.1).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

/// Octets of text and number of recipients up to which an envelope's memory is worth keeping for the next transaction.
const KEPT_TEXT_BYTES_MAX: usize = 1024;
const KEPT_RECIPIENTS_MAX: usize = 16;

/// One transaction's envelope.
///
/// All its texts stand in one allocation that [`clear`](Self::clear) keeps, so an envelope that goes round (session, spool,
/// session) costs no allocation for a message.
#[derive(Clone)]
pub struct Envelope {
    text: String,
    reverse_path: Span,
    helo: Span,
    client_name: Option<Span>,
    envelope_id: Option<Span>,
    recipients: Vec<RecipientSpans>,
    pub client: IpAddr,
    pub protocol: Protocol,
    pub body: BodyType,
    /// Addresses or header fields may be UTF-8 (RFC 6531).
    pub smtputf8: bool,
    /// Every further hop must be under TLS with a verified peer (RFC 8689).
    pub requiretls: bool,
    /// How much of the message a failure report returns.
    pub ret: Option<Ret>,
}

/// A place in [`Envelope::text`]. Texts come from command lines, of which limits keep the sum below 4 GiB.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u32,
    end: u32,
}

#[derive(Debug, Clone, Copy)]
struct RecipientSpans {
    path: Span,
    notify: Notify,
    original: Option<Span>,
}

/// One accepted RCPT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient<'a> {
    /// Without angle brackets and source route.
    pub path: &'a str,
    /// NOTIFY= (RFC 3461 4.1).
    pub notify: Notify,
    /// ORCPT= (RFC 3461 4.2) as it came: address type, `;`, and the address in xtext.
    pub original: Option<&'a str>,
}

impl Envelope {
    /// An empty envelope for a transaction of `client`.
    pub fn new(client: IpAddr) -> Self {
        Self {
            text: String::new(),
            reverse_path: Span::default(),
            helo: Span::default(),
            client_name: None,
            envelope_id: None,
            recipients: Vec::new(),
            client,
            protocol: Protocol::Smtp,
            body: BodyType::SevenBit,
            smtputf8: false,
            requiretls: false,
            ret: None,
        }
    }

    /// The envelope of a transaction without parameters, in ESMTP.
    pub fn plain(client: IpAddr, helo: &str, reverse_path: &str, recipients: &[&str]) -> Self {
        let mut envelope = Self::new(client);
        envelope.set_reverse_path(reverse_path);
        for &path in recipients {
            envelope.add_recipient(Recipient { path, notify: Notify::default(), original: None });
        }
        envelope.set_helo(helo);
        envelope.protocol = Protocol::Esmtp;
        envelope
    }

    /// Address of MAIL FROM without angle brackets; empty is the null reverse-path `<>`.
    pub fn reverse_path(&self) -> &str {
        self.slice(self.reverse_path)
    }

    /// The name the client gave in EHLO, HELO or LHLO.
    pub fn helo(&self) -> &str {
        self.slice(self.helo)
    }

    /// The client's host name, where someone who may has told it (XCLIENT NAME).
    pub fn client_name(&self) -> Option<&str> {
        self.client_name.map(|span| self.slice(span))
    }

    /// ENVID= (RFC 3461 4.4) in xtext, as it came.
    pub fn envelope_id(&self) -> Option<&str> {
        self.envelope_id.map(|span| self.slice(span))
    }

    /// In the order given. Never empty in an accepted transaction.
    pub fn recipients(&self) -> impl ExactSizeIterator<Item = Recipient<'_>> {
        self.recipients.iter().map(|spans| Recipient {
            path: self.slice(spans.path),
            notify: spans.notify,
            original: spans.original.map(|span| self.slice(span)),
        })
    }

    pub fn recipient_count(&self) -> usize {
        self.recipients.len()
    }

    pub fn set_reverse_path(&mut self, path: &str) {
        self.reverse_path = self.store(path);
    }

    pub fn set_helo(&mut self, name: &str) {
        self.helo = self.store(name);
    }

    pub fn set_client_name(&mut self, name: Option<&str>) {
        self.client_name = name.map(|name| self.store(name));
    }

    pub fn set_envelope_id(&mut self, id: Option<&str>) {
        self.envelope_id = id.map(|id| self.store(id));
    }

    pub fn add_recipient(&mut self, recipient: Recipient<'_>) {
        let path = self.store(recipient.path);
        let original = recipient.original.map(|original| self.store(original));
        self.recipients.push(RecipientSpans { path, notify: recipient.notify, original });
    }

    /// Begins anew for a transaction of `client`, in the memory there is; more of it than is worth keeping is given up.
    pub fn clear(&mut self, client: IpAddr) {
        let mut fresh = Self::new(client);
        self.text.clear();
        self.recipients.clear();
        if self.text.capacity() <= KEPT_TEXT_BYTES_MAX {
            fresh.text = std::mem::take(&mut self.text);
        }
        if self.recipients.capacity() <= KEPT_RECIPIENTS_MAX {
            fresh.recipients = std::mem::take(&mut self.recipients);
        }
        *self = fresh;
    }

    fn store(&mut self, text: &str) -> Span {
        let start = self.text.len() as u32;
        self.text.push_str(text);
        Span { start, end: self.text.len() as u32 }
    }

    fn slice(&self, span: Span) -> &str {
        self.text.get(Range::from(span)).unwrap_or_default()
    }
}

impl Default for Envelope {
    fn default() -> Self {
        Self::new(Ipv4Addr::UNSPECIFIED.into())
    }
}

impl From<Span> for Range<usize> {
    fn from(span: Span) -> Self {
        span.start as usize..span.end as usize
    }
}

/// Two are equal when they say the same, wherever the texts stand.
impl PartialEq for Envelope {
    fn eq(&self, other: &Self) -> bool {
        let texts = |envelope: &Self| {
            [Some(envelope.reverse_path()), Some(envelope.helo())]
                .into_iter()
                .chain([envelope.client_name(), envelope.envelope_id()])
                .map(|text| text.map(str::to_owned))
                .collect::<Vec<_>>()
        };
        let rest = |envelope: &Self| {
            let Self { client, protocol, body, smtputf8, requiretls, ret, .. } = envelope;
            (*client, *protocol, *body, *smtputf8, *requiretls, *ret)
        };
        texts(self) == texts(other)
            && rest(self) == rest(other)
            && self.recipients().eq(other.recipients())
    }
}

impl Eq for Envelope {}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("reverse_path", &self.reverse_path())
            .field("recipients", &self.recipients().collect::<Vec<_>>())
            .field("client", &self.client)
            .field("client_name", &self.client_name())
            .field("helo", &self.helo())
            .field("protocol", &self.protocol)
            .field("body", &self.body)
            .field("smtputf8", &self.smtputf8)
            .field("requiretls", &self.requiretls)
            .field("ret", &self.ret)
            .field("envelope_id", &self.envelope_id())
            .finish()
    }
}

/// How the message came, for `with` of `Received:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Smtp,
    Esmtp,
    Esmtps,
    Lmtp,
    Lmtps,
}

impl Protocol {
    /// As RFC 3848 has it, and RFC 6531 4.3 for transactions with SMTPUTF8.
    pub fn keyword(self, smtputf8: bool) -> &'static str {
        match (self, smtputf8) {
            (Self::Smtp, _) => "SMTP",
            (Self::Esmtp, false) => "ESMTP",
            (Self::Esmtp, true) => "UTF8SMTP",
            (Self::Esmtps, false) => "ESMTPS",
            (Self::Esmtps, true) => "UTF8SMTPS",
            (Self::Lmtp, false) => "LMTP",
            (Self::Lmtp, true) => "UTF8LMTP",
            (Self::Lmtps, false) => "LMTPS",
            (Self::Lmtps, true) => "UTF8LMTPS",
        }
    }
}

/// The BODY parameter of MAIL (RFC 6152).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyType {
    SevenBit,
    EightBitMime,
    /// Lines of any length, octets of any value (RFC 3030); it comes by BDAT only.
    BinaryMime,
}

/// The RET parameter of MAIL (RFC 3461 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    Full,
    Headers,
}

/// The NOTIFY parameter of RCPT (RFC 3461 4.1): when the sender wants to hear of this recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Notify(u8);

impl Notify {
    /// Not given: failures, and delays at our choice.
    pub const UNSPECIFIED: Self = Self(0);
    pub const SUCCESS: Self = Self(1);
    pub const FAILURE: Self = Self(2);
    pub const DELAY: Self = Self(4);
    /// Never, which excludes all others.
    pub const NEVER: Self = Self(8);

    const NAMES: [(Self, &'static str); 4] = [
        (Self::NEVER, "NEVER"),
        (Self::SUCCESS, "SUCCESS"),
        (Self::FAILURE, "FAILURE"),
        (Self::DELAY, "DELAY"),
    ];

    /// `NEVER`, or a list of the others with commas, each at most once.
    pub fn parse(value: &str) -> Option<Self> {
        let mut set = Self::UNSPECIFIED;
        for word in value.split(',') {
            let (flag, _) = Self::NAMES.iter().find(|(_, name)| word.eq_ignore_ascii_case(name))?;
            if set.0 & flag.0 != 0 {
                return None;
            }
            set.0 |= flag.0;
        }
        (set == Self::NEVER || set.0 & Self::NEVER.0 == 0).then_some(set)
    }

    /// As one octet, for the spool.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The reverse of [`bits`](Self::bits); `None` for what no [`parse`](Self::parse) gives.
    pub fn from_bits(bits: u8) -> Option<Self> {
        (bits <= Self::NEVER.0).then_some(Self(bits))
    }
}

/// As the parameter's value; empty where it was not given.
impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = Self::NAMES.iter().filter(|(flag, _)| self.0 & flag.0 != 0);
        for (position, (_, name)) in given.enumerate() {
            f.write_str(if position == 0 { "" } else { "," })?;
            f.write_str(name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_is_never_or_a_set_of_the_others() {
        assert_eq!(Notify::parse("NEVER"), Some(Notify::NEVER));
        let set = Notify::parse("delay,Success").unwrap();
        assert_eq!(set.to_string(), "SUCCESS,DELAY");
        assert_eq!(Notify::from_bits(set.bits()), Some(set));
        for bad in ["", "NEVER,SUCCESS", "SUCCESS,SUCCESS", "SUCCESS,", "ALWAYS", "SUCCESS FAILURE"]
        {
            assert_eq!(Notify::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Notify::from_bits(9), None);
    }

    #[test]
    fn a_cleared_envelope_says_nothing_of_the_last_transaction() {
        let mut envelope = Envelope::new([192, 0, 2, 1].into());
        envelope.set_reverse_path("a@example.org");
        envelope.set_envelope_id(Some("id"));
        envelope.smtputf8 = true;
        let path = "b@example.net";
        envelope.add_recipient(Recipient { path, notify: Notify::NEVER, original: None });
        envelope.clear([192, 0, 2, 2].into());
        assert_eq!(envelope, Envelope::new([192, 0, 2, 2].into()));
    }

    #[test]
    fn the_memory_of_a_giant_envelope_is_given_up() {
        let mut envelope = Envelope::default();
        envelope.set_reverse_path(&"a".repeat(2 * KEPT_TEXT_BYTES_MAX));
        envelope.clear([192, 0, 2, 1].into());
        assert_eq!(envelope.text.capacity(), 0);
        envelope.set_reverse_path("a@example.org");
        let kept = envelope.text.capacity();
        envelope.clear([192, 0, 2, 1].into());
        assert_eq!(envelope.text.capacity(), kept);
    }
}
