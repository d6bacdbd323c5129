//! Frames of JSON, and file descriptors, over a Unix stream.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Octets of a frame: a group takes about a hundred.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// The kernel takes 253 at once (SCM_MAX_FD).
const FILES_AT_ONCE: usize = 64;

/// Carries the descriptors: the kernel sends none without an octet.
const CARRIER: [u8; 1] = *b"F";

pub(super) fn send<T: Serialize>(mut stream: &UnixStream, value: &T) -> io::Result<()> {
    let text = serde_json::to_vec(value)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&text)
}

pub(super) fn receive<T: DeserializeOwned>(mut stream: &UnixStream) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame that is too long"));
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

pub(super) fn send_files(stream: &UnixStream, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    for files in files.chunks(FILES_AT_ONCE) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(io::Error::other("no room for file descriptors"));
        }
        sendmsg(stream, &[IoSlice::new(&CARRIER)], &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// As many as were sent in one call of [`send_files`].
pub(super) fn receive_files(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut files = Vec::with_capacity(count);
    while files.len() < count {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut carrier = CARRIER;
        // One octet at a time, so that descriptors of different calls stay apart.
        let into = &mut [IoSliceMut::new(&mut carrier)];
        let received = recvmsg(stream, into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = files.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                files.extend(received);
            }
        }
        if files.len() == before {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "file descriptors were lost"));
        }
    }
    Ok(files)
}
