//! Certificates made with OpenSSL.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::Site;
use crate::programs::{openssl, succeed};

/// The type of a certificate's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Ecdsa,
    Rsa,
}

/// `ecdsa.pem` before `rsa.pem`, with their keys, in the site's folder.
const BOTH: &str = r#"
[tls]
certificates = [
  { chain = "ecdsa.pem", key = "ecdsa.key" },
  { chain = "rsa.pem", key = "rsa.key" },
]
"#;

/// What a certificate of a public authority has besides the name. Nothing ever fetches the list of revoked ones.
const OF_AN_AUTHORITY: &str = "subjectAltName = DNS:mx.test
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = serverAuth
crlDistributionPoints = URI:http://authority.test/revoked
";

/// Makes PATH.pem and PATH.key, self-signed; `names` is the subjectAltName, such as `DNS:mx.test`.
pub fn make(path: &Path, key: Key, common_name: &str, names: &str) {
    let mut command = request(key, common_name);
    command.args(["-x509", "-days", "2", "-addext", &format!("subjectAltName={names}")]);
    command.arg("-keyout").arg(path.with_extension("key"));
    succeed(command.arg("-out").arg(path.with_extension("pem")));
}

/// A site with the common configuration, `extra` sections behind it, and a self-signed certificate of mx.test for either
/// type of key.
pub fn site_with_both_keys(extra: &str) -> Site {
    let site = Site::new(&format!("{BOTH}{extra}")).unwrap();
    for (name, key) in [("ecdsa", Key::Ecdsa), ("rsa", Key::Rsa)] {
        make(&site.folder().join(name), key, "mx.test", "DNS:mx.test");
    }
    site
}

/// As [`site_with_both_keys`], where both certificates are signed by an authority, whose own certificate's file is given
/// back.
pub fn site_with_an_authority(extra: &str) -> (Site, PathBuf) {
    let site = Site::new(&format!("{BOTH}{extra}")).unwrap();
    let file = |name: &str| site.folder().join(name);
    let mut authority = request(Key::Ecdsa, "authority.test");
    authority.args(["-x509", "-days", "900", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]);
    authority.arg("-keyout").arg(file("authority.key"));
    succeed(authority.arg("-out").arg(file("authority.pem")));
    fs::write(file("extensions"), OF_AN_AUTHORITY).unwrap();
    for (name, key) in [("ecdsa", Key::Ecdsa), ("rsa", Key::Rsa)] {
        let mut asked = request(key, "mx.test");
        asked.arg("-keyout").arg(file(name).with_extension("key"));
        succeed(asked.arg("-out").arg(file(name).with_extension("csr")));
        let mut signed = openssl();
        signed.args(["x509", "-req", "-days", "90", "-CAcreateserial"]);
        signed.arg("-in").arg(file(name).with_extension("csr"));
        signed.arg("-CA").arg(file("authority.pem")).arg("-CAkey").arg(file("authority.key"));
        signed.arg("-extfile").arg(file("extensions"));
        succeed(signed.arg("-out").arg(file(name).with_extension("pem")));
    }
    let authority = file("authority.pem");
    (site, authority)
}

/// `openssl req` with a new key.
fn request(key: Key, common_name: &str) -> Command {
    let mut command = openssl();
    command.args(["req", "-nodes", "-subj", &format!("/CN={common_name}"), "-newkey"]);
    match key {
        Key::Rsa => command.arg("rsa:2048"),
        Key::Ecdsa => command.args(["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]),
    };
    command
}
