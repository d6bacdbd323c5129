//! The memory of peers on disk: one JSON object a line, the file replaced as a whole.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::path::Path;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::state_file;
use crate::tls::memory::Peer;

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    network: IpNet,
    #[serde(flatten)]
    peer: Peer,
}

/// What the file has. A line that cannot be read is left out and said: the memory is a convenience, and no reason not to start.
pub(super) fn load(file: &Path) -> Vec<(IpNet, Peer)> {
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "cannot read what is known of TLS peers");
            return Vec::new();
        }
    };
    let mut peers = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(opened).lines()) {
        let line = line.and_then(|line| Ok(serde_json::from_str::<Line>(&line)?));
        match line {
            Ok(line) => peers.push((line.network, line.peer)),
            Err(error) => {
                tracing::warn!(file = %file.display(), line = number, %error, "a TLS peer is left out");
            }
        }
    }
    peers
}

pub(super) fn save(file: &Path, peers: &[(IpNet, Peer)]) -> io::Result<()> {
    state_file::replace(file, |output| {
        for (network, peer) in peers {
            serde_json::to_writer(&mut *output, &Line { network: *network, peer: *peer })?;
            output.write_all(b"\n")?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tls::memory::Pin;

    #[test]
    fn what_is_kept_comes_back_and_a_broken_line_costs_itself_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tls/peers.json");
        assert!(load(&file).is_empty());
        let peers = [
            ("192.0.2.7/32".parse().unwrap(), Peer { last_seen: 7, ..Peer::default() }),
            ("2001:db8::/64".parse().unwrap(), Peer { pin: Some(Pin::Offer), ..Peer::default() }),
        ];
        save(&file, &peers).unwrap();
        assert_eq!(load(&file), peers);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("nonsense\n{text}")).unwrap();
        assert_eq!(load(&file), peers);
    }
}
