//! The kernel's table of bans, as the daemon writes it: see [`ingress_ebpf::bans`].

use std::collections::HashMap;

use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray};

use ingress_ebpf::abi::names;
use ingress_ebpf::bans::{Bucket, PLACES, Packets, buckets, counter};

use super::error::XdpError;
use super::maps::take;

pub(super) struct BanTable {
    buckets: Array<MapData, Bucket>,
    packets: PerCpuArray<MapData, Packets>,
    seed: u64,
    /// By source key.
    bans: HashMap<u64, Place>,
}

/// Where a ban stands, and the packets that had been counted there before it came.
#[derive(Debug, Clone, Copy)]
struct Place {
    bucket: u32,
    place: usize,
    packets_before: u64,
}

impl BanTable {
    /// `seed`: of the program's hashes.
    pub(super) fn take(ebpf: &mut Ebpf, seed: u64) -> Result<Self, XdpError> {
        let buckets = take(ebpf, names::BANS)?;
        let packets = take(ebpf, names::BAN_PACKETS)?;
        Ok(Self { buckets, packets, seed, bans: HashMap::new() })
    }

    /// Bans the source until then, in nanoseconds of the program's clock, or gives its ban another end.
    ///
    /// # Errors
    /// [`XdpError::TooManyBans`] when both of its buckets are full, [`XdpError::Map`] when the map cannot be written.
    pub(super) fn ban(&mut self, source: u64, until: u64) -> Result<(), XdpError> {
        let at = match self.bans.get(&source) {
            Some(known) => *known,
            None => self.free_place(source)?,
        };
        self.write(at, [source, until])?;
        self.bans.insert(source, at);
        Ok(())
    }

    /// Ends a ban, if there is one.
    pub(super) fn lift(&mut self, source: u64) {
        // Of a place that cannot be written the ban ends by itself, and nobody else is given it.
        if let Some(at) = self.bans.get(&source)
            && self.write(*at, [0, 0]).is_ok()
        {
            self.bans.remove(&source);
        }
    }

    /// Packets that the ban of this source has dropped; 0 where there is none.
    pub(super) fn packets(&self, source: u64) -> u64 {
        let Some(at) = self.bans.get(&source) else { return 0 };
        let counted = self.counted(at.bucket, at.place).unwrap_or(0);
        counted.saturating_sub(at.packets_before)
    }

    /// In the emptier one of its buckets.
    fn free_place(&self, source: u64) -> Result<Place, XdpError> {
        let mut emptier: Option<(usize, u32, usize)> = None;
        for bucket in buckets(source, self.seed) {
            let places = self.read(bucket)?;
            let mut free = free_places(&places);
            if let Some(place) = free.next() {
                let more = (1 + free.count(), bucket, place);
                emptier = Some(emptier.filter(|(count, ..)| *count >= more.0).unwrap_or(more));
            }
        }
        let (_, bucket, place) = emptier.ok_or(XdpError::TooManyBans)?;
        let packets_before = self.counted(bucket, place)?;
        Ok(Place { bucket, place, packets_before })
    }

    fn read(&self, bucket: u32) -> Result<Bucket, XdpError> {
        self.buckets.get(&bucket, 0).map_err(|error| XdpError::from_map("read the bans", error))
    }

    fn write(&mut self, at: Place, ban: [u64; 2]) -> Result<(), XdpError> {
        let mut bucket = self.read(at.bucket)?;
        if let Some(place) = bucket.as_chunks_mut().0.get_mut(at.place) {
            *place = ban;
        }
        let map_error = |error| XdpError::from_map("ban a client, or end a ban", error);
        self.buckets.set(at.bucket, bucket, 0).map_err(map_error)
    }

    fn counted(&self, bucket: u32, place: usize) -> Result<u64, XdpError> {
        let (entry, at) = counter(bucket, place);
        let by_cpu = self
            .packets
            .get(&entry, 0)
            .map_err(|error| XdpError::from_map("read the packets of bans", error))?;
        Ok(by_cpu.iter().filter_map(|packets| packets.get(at)).sum())
    }
}

fn free_places(bucket: &Bucket) -> impl Iterator<Item = usize> {
    let (places, _none) = bucket.as_chunks();
    (0..PLACES).zip(places).filter(|(_, [_, end])| *end == 0).map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_without_an_end_is_free() {
        let free = |bucket| free_places(&bucket).collect::<Vec<_>>();
        assert_eq!(free([0; 8]), [0, 1, 2, 3]);
        assert_eq!(free([7, 1, 8, 0, 0, 0, 0, 9]), [1, 2]);
        assert_eq!(free([1; 8]), [] as [usize; 0]);
    }
}
